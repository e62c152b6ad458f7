//! Groups and matchers: which pods are meant, worked out once per distinct set of labels.
//!
//! A *group* is all pods of one namespace with the same labels. A *matcher* is what a spread
//! constraint or an affinity term selects: namespaces and a label selector, or several of these at
//! once. Whether a matcher selects a group is decided when the later of the two first appears;
//! from then on a pod that comes or goes is known by its group to be selected or not. To find the
//! pairs that have to be decided at all, both are filed under label pairs.

use rustc_hash::{FxHashMap, FxHasher};
use smallvec::SmallVec;
use std::hash::{Hash, Hasher};

use super::compile::Compiled;
use super::counts::Counts;
use super::{TallyId, TermId};
use crate::namespaces::Namespaces;
use crate::selector::Selector;
use crate::snapshot::NodeIndex;
use crate::symbols::{Labels, Symbol, Symbols};

/// A group of equal labels in one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(u32);

/// A matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MatcherId(u32);

/// Pods of some namespaces that a label selector selects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// Names of namespaces, sorted.
    pub(crate) namespaces: SmallVec<[Symbol; 1]>,
    /// Selects further namespaces by their labels.
    pub(crate) namespace_selector: Option<Selector>,
    /// Whether the namespace selector is also tried on no labels at all, and what it selects then
    /// is every namespace. Upstream does so with the terms of the pod that is being placed, so
    /// that one made of `NotIn` and `DoesNotExist` alone selects all namespaces.
    pub(crate) also_unlabelled: bool,
    /// Selects pods.
    pub(crate) selector: Selector,
}

impl Target {
    fn covers_namespace(
        &self,
        namespace: Symbol,
        namespaces: &Namespaces,
        symbols: &Symbols,
    ) -> bool {
        self.namespaces.binary_search(&namespace).is_ok()
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                // A namespace that is not known has no labels.
                let labels = namespaces.labels(namespace).unwrap_or_default();
                selector.matches(labels, symbols)
                    || self.also_unlabelled && selector.matches(&[], symbols)
            })
    }

    /// Whether it selects such a pod.
    pub(crate) fn matches(
        &self,
        namespace: Symbol,
        labels: &[(Symbol, Symbol)],
        namespaces: &Namespaces,
        symbols: &Symbols,
    ) -> bool {
        self.covers_namespace(namespace, namespaces, symbols)
            && self.selector.matches(labels, symbols)
    }
}

/// How many pods of a group are on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// All of them.
    pub(crate) all: u32,
    /// Those that are not being deleted.
    pub(crate) live: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) namespace: Symbol,
    pub(crate) labels: Labels,
    pub(crate) on: FxHashMap<NodeIndex, Presence>,
    /// The matchers that select it, sorted.
    pub(crate) matchers: Vec<MatcherId>,
    /// The terms of its pods.
    pub(super) compiled: SmallVec<[Compiled; 0]>,
}

#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    /// All of these select the pod.
    pub(crate) targets: SmallVec<[Target; 1]>,
    /// The groups that it selects.
    groups: Vec<GroupId>,
    /// What is counted of its pods.
    pub(crate) tallies: SmallVec<[TallyId; 2]>,
    /// The terms of pods that say something of its pods.
    pub(crate) terms: SmallVec<[TermId; 1]>,
    /// Its pods on each node, those being deleted left out; if somebody asked for that.
    pub(crate) by_node: Option<Counts>,
}

impl Matcher {
    pub(crate) fn matches(
        &self,
        namespace: Symbol,
        labels: &[(Symbol, Symbol)],
        namespaces: &Namespaces,
        symbols: &Symbols,
    ) -> bool {
        let mut targets = self.targets.iter();
        targets.all(|target| target.matches(namespace, labels, namespaces, symbols))
    }
}

/// Where a matcher is filed: every pod it selects has this.
enum Anchor {
    /// One of these label pairs.
    Pairs(Vec<(Symbol, Symbol)>),
    /// Some namespace.
    Namespaces(SmallVec<[Symbol; 1]>),
    /// Nothing in particular.
    Nothing,
}

fn anchor(targets: &[Target]) -> Anchor {
    let selectors = targets.iter().filter_map(|target| target.selector.pairs());
    if let Some((key, values)) = selectors.min_by_key(|(_, values)| values.len()) {
        return Anchor::Pairs(values.iter().map(|value| (key, *value)).collect());
    }
    let plain = targets.iter().find(|target| target.namespace_selector.is_none());
    plain.map_or(Anchor::Nothing, |target| Anchor::Namespaces(target.namespaces.clone()))
}

/// All groups and matchers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    groups: Vec<Group>,
    /// By hash of namespace and labels.
    known_groups: FxHashMap<u64, SmallVec<[GroupId; 1]>>,
    groups_by_pair: FxHashMap<(Symbol, Symbol), Vec<GroupId>>,
    groups_by_namespace: FxHashMap<Symbol, Vec<GroupId>>,
    matchers: Vec<Matcher>,
    known_matchers: FxHashMap<SmallVec<[Target; 1]>, MatcherId>,
    matchers_by_pair: FxHashMap<(Symbol, Symbol), Vec<MatcherId>>,
    matchers_by_namespace: FxHashMap<Symbol, Vec<MatcherId>>,
    matchers_of_nothing: Vec<MatcherId>,
    /// Those that a change of a namespace's labels may concern.
    selecting_namespaces: Vec<MatcherId>,
}

impl Groups {
    pub(crate) fn group(&self, id: GroupId) -> &Group {
        &self.groups[id.0 as usize]
    }

    pub(super) fn group_mut(&mut self, id: GroupId) -> &mut Group {
        &mut self.groups[id.0 as usize]
    }

    pub(crate) fn matcher(&self, id: MatcherId) -> &Matcher {
        &self.matchers[id.0 as usize]
    }

    pub(super) fn matcher_mut(&mut self, id: MatcherId) -> &mut Matcher {
        &mut self.matchers[id.0 as usize]
    }

    /// The group of a namespace and labels.
    pub(super) fn intern_group(
        &mut self,
        namespace: Symbol,
        labels: &Labels,
        namespaces: &Namespaces,
        symbols: &Symbols,
    ) -> GroupId {
        let mut hasher = FxHasher::default();
        (namespace, labels).hash(&mut hasher);
        let hash = hasher.finish();
        let known = self.known_groups.get(&hash).into_iter().flatten().find(|id| {
            let group = self.group(**id);
            group.namespace == namespace && group.labels == *labels
        });
        if let Some(id) = known {
            return *id;
        }
        let id = GroupId(super::id(self.groups.len()));
        let by_pair = labels.iter().filter_map(|pair| self.matchers_by_pair.get(pair));
        let by_namespace = self.matchers_by_namespace.get(&namespace);
        let mut matchers: Vec<MatcherId> = by_pair
            .chain(by_namespace)
            .chain([&self.matchers_of_nothing])
            .flatten()
            .copied()
            .filter(|id| self.matcher(*id).matches(namespace, labels, namespaces, symbols))
            .collect();
        matchers.sort_unstable();
        matchers.dedup();
        for matcher in &matchers {
            self.matchers[matcher.0 as usize].groups.push(id);
        }
        for pair in labels.iter() {
            self.groups_by_pair.entry(*pair).or_default().push(id);
        }
        self.groups_by_namespace.entry(namespace).or_default().push(id);
        self.known_groups.entry(hash).or_default().push(id);
        self.groups.push(Group {
            namespace,
            labels: labels.clone(),
            on: FxHashMap::default(),
            matchers,
            compiled: SmallVec::new(),
        });
        id
    }

    /// The matcher of some targets.
    pub(super) fn intern_matcher(
        &mut self,
        targets: SmallVec<[Target; 1]>,
        namespaces: &Namespaces,
        symbols: &Symbols,
    ) -> MatcherId {
        if let Some(id) = self.known_matchers.get(&targets) {
            return *id;
        }
        let id = MatcherId(super::id(self.matchers.len()));
        let everything: Vec<GroupId>;
        let candidates: Vec<GroupId> = match anchor(&targets) {
            Anchor::Pairs(pairs) => {
                for pair in &pairs {
                    self.matchers_by_pair.entry(*pair).or_default().push(id);
                }
                let groups = pairs.iter().filter_map(|pair| self.groups_by_pair.get(pair));
                groups.flatten().copied().collect()
            }
            Anchor::Namespaces(names) => {
                for name in &names {
                    self.matchers_by_namespace.entry(*name).or_default().push(id);
                }
                let groups = names.iter().filter_map(|name| self.groups_by_namespace.get(name));
                groups.flatten().copied().collect()
            }
            Anchor::Nothing => {
                self.matchers_of_nothing.push(id);
                everything = (0..super::id(self.groups.len())).map(GroupId).collect();
                everything
            }
        };
        if targets.iter().any(|target| target.namespace_selector.is_some()) {
            self.selecting_namespaces.push(id);
        }
        let mut matcher = Matcher {
            targets: targets.clone(),
            groups: Vec::new(),
            tallies: SmallVec::new(),
            terms: SmallVec::new(),
            by_node: None,
        };
        matcher.groups = candidates
            .into_iter()
            .filter(|id| {
                let group = self.group(*id);
                matcher.matches(group.namespace, &group.labels, namespaces, symbols)
            })
            .collect();
        for group in &matcher.groups {
            // Ids ascend, so the list stays sorted.
            self.groups[group.0 as usize].matchers.push(id);
        }
        self.matchers.push(matcher);
        self.known_matchers.insert(targets, id);
        id
    }

    /// Forgets the terms that are remembered of the groups' pods.
    pub(super) fn forget_compiled(&mut self) {
        self.groups.iter_mut().for_each(|group| group.compiled.clear());
    }

    /// Counts a matcher's pods on each node from now on.
    pub(super) fn count_by_node(&mut self, id: MatcherId) {
        if self.matcher(id).by_node.is_some() {
            return;
        }
        let mut counts = Counts::default();
        for group in self.selected(id) {
            for (node, presence) in &group.on {
                counts.add(node.number(), presence.live);
            }
        }
        self.matcher_mut(id).by_node = Some(counts);
    }

    /// The groups that a matcher selects.
    pub(super) fn selected(&self, id: MatcherId) -> impl Iterator<Item = &Group> {
        self.matcher(id).groups.iter().map(|group| self.group(*group))
    }

    /// The pairs of groups and matchers in which a change of a namespace's labels has made a
    /// difference, with whether the matcher selects the group now.
    pub(super) fn changed_pairs(
        &self,
        namespace: Symbol,
        namespaces: &Namespaces,
        symbols: &Symbols,
    ) -> Vec<(GroupId, MatcherId, bool)> {
        let groups = self.groups_by_namespace.get(&namespace).into_iter().flatten();
        groups
            .flat_map(|group| self.selecting_namespaces.iter().map(move |id| (*group, *id)))
            .filter_map(|(id, matcher)| {
                let group = self.group(id);
                let now = self.matcher(matcher).matches(
                    group.namespace,
                    &group.labels,
                    namespaces,
                    symbols,
                );
                let before = group.matchers.binary_search(&matcher).is_ok();
                (now != before).then_some((id, matcher, now))
            })
            .collect()
    }

    /// Takes in one of those changes.
    pub(super) fn set_selected(&mut self, group: GroupId, matcher: MatcherId, selected: bool) {
        let matchers = &mut self.group_mut(group).matchers;
        match matchers.binary_search(&matcher) {
            Err(at) if selected => matchers.insert(at, matcher),
            Ok(at) if !selected => {
                matchers.remove(at);
            }
            _ => {}
        }
        let groups = &mut self.matcher_mut(matcher).groups;
        groups.retain(|known| *known != group);
        if selected {
            groups.push(group);
        }
    }
}
