//! Default spreading: by which selector a pod without constraints of its own is spread.
//!
//! The selector comes from Services and the pod's controller, which change while the pod waits; so
//! it is kept per kind of pod (group, owner, node affinity) and worked out anew when one of them
//! changes.

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};
use wharf_model::labels;

use super::compile::{honors_affinity, honors_taints, is_required, min_domains, requirement};
use super::groups::{GroupId, MatcherId, Target};
use super::keys::KeyId;
use super::scopes::{Conditions, ScopeId};
use super::{Constraint, Nodes, TallyId, Topology};
use crate::pod::PodInfo;
use crate::selector::Selector;
use crate::symbols::{Symbol, Symbols};
use crate::workloads::Owner;

/// A kind of pod that may be spread by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DefaultId(u32);

/// How pods of a kind are spread by default.
#[derive(Clone, Debug)]
pub(crate) struct Spreading {
    /// The merged selector.
    pub(crate) selector: Selector,
    /// The pods that it selects.
    pub(crate) matcher: MatcherId,
    /// The pods are counted by node for the system's constraint on nodes, and by zone for that on
    /// zones.
    pub(crate) hostname: KeyId,
    pub(crate) zone: KeyId,
    pub(crate) zones: TallyId,
    /// By list of constraints: how the pods are spread where a profile has that list for default.
    /// Lists that came after the pods are left out.
    listed: Vec<Box<[Constraint]>>,
}

/// A profile's list of default constraints.
#[derive(Clone, Debug)]
struct List {
    constraints: Box<[TopologySpreadConstraint]>,
    /// What each of them looks at.
    compiled: Box<[Listed]>,
}

/// What a default constraint looks at.
#[derive(Clone, Debug)]
struct Listed {
    key: KeyId,
    /// The keys that a node has to have to count: those of all constraints of the same kind.
    alike: SmallVec<[KeyId; 2]>,
}

/// What a kind of pod is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PodKind {
    pub(super) group: GroupId,
    pub(super) owner: Option<Owner>,
    pub(super) hostname: KeyId,
    /// Zones, with nodes without one counted as the zone without a name.
    pub(super) zone: KeyId,
    /// The nodes that the pods' node affinity lets count.
    pub(super) scope: ScopeId,
    /// The same for every constraint of the profiles' lists, list by list.
    pub(super) listed: SmallVec<[ScopeId; 2]>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    all: Vec<(PodKind, Option<Spreading>)>,
    known: FxHashMap<PodKind, DefaultId>,
    by_namespace: FxHashMap<Symbol, Vec<DefaultId>>,
    lists: Vec<List>,
}

impl Defaults {
    /// Whether tolerations decide which nodes count for any list.
    pub(super) fn honor_taints(&self) -> bool {
        self.lists.iter().flat_map(|list| &list.constraints).any(honors_taints)
    }
}

impl Topology {
    /// How a kind of pod is spread by default; `None` if nothing selects its pods.
    pub(crate) fn spreading(&self, id: DefaultId) -> Option<&Spreading> {
        self.defaults.all[id.0 as usize].1.as_ref()
    }

    /// The constraints of one list under which pods of a kind are. `None` if they are not counted
    /// for it: the list is not known, or came after the pods.
    pub(crate) fn listed(
        &self,
        id: DefaultId,
        list: &[TopologySpreadConstraint],
    ) -> Option<&[Constraint]> {
        let place = self.defaults.lists.iter().position(|known| *known.constraints == *list)?;
        let (kind, spreading) = &self.defaults.all[id.0 as usize];
        let lists = &self.defaults.lists[..=place];
        let scopes: usize = lists.iter().map(|list| list.constraints.len()).sum();
        if kind.listed.len() < scopes {
            return None;
        }
        match spreading {
            Some(spreading) => spreading.listed.get(place).map(AsRef::as_ref),
            None => Some(&[]),
        }
    }

    /// Counts for a profile's list of default constraints from now on, as far as pods that are
    /// compiled from now on go.
    pub(crate) fn follow_list(
        &mut self,
        list: &[TopologySpreadConstraint],
        symbols: &mut Symbols,
        nodes: Nodes<'_>,
    ) {
        if self.defaults.lists.iter().any(|known| *known.constraints == *list) {
            return;
        }
        let keys: Vec<KeyId> = list
            .iter()
            .map(|constraint| {
                self.keys.intern(symbols.intern(&constraint.topology_key), false, nodes)
            })
            .collect();
        let compiled = list.iter().zip(&keys).map(|(constraint, key)| {
            let others = list.iter().zip(&keys);
            let others = others.filter(|(other, _)| is_required(other) == is_required(constraint));
            let mut alike: SmallVec<[KeyId; 2]> = others.map(|(_, key)| *key).collect();
            alike.sort_unstable();
            alike.dedup();
            Listed { key: *key, alike }
        });
        let compiled = compiled.collect();
        self.defaults.lists.push(List { constraints: list.into(), compiled });
        // What is known of pods was compiled without.
        self.groups.forget_compiled();
    }

    /// The nodes that count for a pod under each constraint of the lists.
    pub(super) fn listed_scopes(
        &mut self,
        info: &PodInfo,
        symbols: &Symbols,
        nodes: Nodes<'_>,
    ) -> SmallVec<[ScopeId; 2]> {
        let mut scopes = SmallVec::new();
        for list in &self.defaults.lists {
            for (constraint, listed) in list.constraints.iter().zip(&list.compiled) {
                let conditions = Conditions {
                    keys: listed.alike.clone(),
                    affinity: requirement(&info.affinity).filter(|_| honors_affinity(constraint)),
                    tolerations: honors_taints(constraint).then(|| info.tolerations.clone()),
                };
                let scope = self.scopes.intern(conditions, &self.keys, nodes, symbols);
                if is_required(constraint) {
                    self.scopes.follow(scope, listed.key, &self.keys);
                }
                scopes.push(scope);
            }
        }
        scopes
    }

    /// Follows a kind of pod from now on.
    pub(super) fn intern_default(&mut self, kind: PodKind, symbols: &Symbols) -> DefaultId {
        if let Some(id) = self.defaults.known.get(&kind) {
            return *id;
        }
        let id = DefaultId(super::id(self.defaults.all.len()));
        let spreading = self.work_out(&kind, symbols);
        let namespace = self.groups.group(kind.group).namespace;
        self.defaults.all.push((kind.clone(), spreading));
        self.defaults.known.insert(kind, id);
        self.defaults.by_namespace.entry(namespace).or_default().push(id);
        id
    }

    /// Works out anew what a change of a controller, or of Services, may have changed.
    pub(super) fn follow_workloads(
        &mut self,
        namespace: Symbol,
        owner: Option<Owner>,
        symbols: &Symbols,
    ) {
        let ids = self.defaults.by_namespace.get(&namespace).cloned().unwrap_or_default();
        for id in ids {
            let (kind, known) = &self.defaults.all[id.0 as usize];
            if owner.is_some() && kind.owner != owner {
                continue;
            }
            let kind = kind.clone();
            let group = self.groups.group(kind.group);
            let selector = self.workloads.default_selector(namespace, &group.labels, kind.owner);
            if known.as_ref().map(|known| &known.selector) != selector.as_ref() {
                self.defaults.all[id.0 as usize].1 = self.work_out(&kind, symbols);
            }
        }
    }

    fn work_out(&mut self, kind: &PodKind, symbols: &Symbols) -> Option<Spreading> {
        let group = self.groups.group(kind.group);
        let namespace = group.namespace;
        let selector = self.workloads.default_selector(namespace, &group.labels, kind.owner)?;
        let target = Target {
            namespaces: smallvec![namespace],
            namespace_selector: None,
            also_unlabelled: false,
            selector: selector.clone(),
        };
        let matcher = self.groups.intern_matcher(smallvec![target], &self.namespaces, symbols);
        self.groups.count_by_node(matcher);
        let zones = self.intern_tally(matcher, kind.zone, kind.scope, true);
        let listed = self.listed_constraints(kind, &selector, matcher);
        let PodKind { hostname, zone, .. } = *kind;
        Some(Spreading { selector, matcher, hostname, zone, zones, listed })
    }

    fn listed_constraints(
        &mut self,
        kind: &PodKind,
        selector: &Selector,
        matcher: MatcherId,
    ) -> Vec<Box<[Constraint]>> {
        let mut all = Vec::new();
        let mut scopes = kind.listed.iter().copied();
        for place in 0..self.defaults.lists.len() {
            let mut constraints = Vec::new();
            for at in 0..self.defaults.lists[place].constraints.len() {
                // A list that came after the pods has no scopes for them.
                let Some(scope) = scopes.next() else { return all };
                let list = &self.defaults.lists[place];
                let (constraint, key) = (&list.constraints[at], list.compiled[at].key);
                let required = is_required(constraint);
                let by_node = !required && constraint.topology_key == labels::HOSTNAME;
                let mut compiled = Constraint {
                    required,
                    max_skew: i64::from(constraint.max_skew),
                    min_domains: min_domains(constraint),
                    key,
                    selector: selector.clone(),
                    matcher,
                    scope,
                    tally: None,
                    honors_taints: honors_taints(constraint),
                };
                if !by_node {
                    compiled.tally = Some(self.intern_tally(matcher, key, scope, true));
                }
                constraints.push(compiled);
            }
            all.push(constraints.into_boxed_slice());
        }
        all
    }
}
