//! What the cluster's pods are to each other, kept so that a decision need not look at them.
//!
//! Topology spread constraints and pod (anti-)affinity ask how many pods of some kind are in each
//! domain of a topology key. Counting them per decision costs a visit to every pod; here each
//! answer is a *tally* that is kept up to date when a pod comes or goes:
//!
//! - a [`groups::Group`] is all pods with the same namespace and labels; a [`groups::Matcher`] is
//!   what a constraint or term selects, and a group knows the matchers that select it;
//! - a [`keys::Key`] knows the domain of every node, a [`scopes::Scope`] which nodes count;
//! - a [`Tally`] counts the pods of one matcher by the domains of one key within one scope;
//! - a [`CarriedTerm`] is a term that pods have, with the number of its carriers by domain: what
//!   placed pods want of the one that is being placed.
//!
//! All of these are shared by whoever asks the same, and appear when a pod that asks is compiled.
//! A pod placed or displaced costs a few additions per matcher that selects it; a node that
//! changes its labels or taints is taken out with all its pods and put in again. A decision looks
//! up one number per node and constraint. Nothing is ever forgotten but by building a new snapshot
//! (see [`crate::snapshot::Snapshot`]); what is no longer asked for costs its updates until then.

mod compile;
mod counts;
mod defaults;
pub(crate) mod groups;
pub(crate) mod keys;
pub(crate) mod scopes;
mod tallies;

use rustc_hash::FxHashMap;

pub(crate) use compile::{
    Constraint, OwnTerm, PodTerms, honors_affinity, honors_taints, is_required, min_domains,
};
pub(crate) use counts::Counts;
pub(crate) use tallies::{CarriedTerm, DomainCounts, Tally, TermKind};

use crate::namespaces::Namespaces;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::selector::Selector;
use crate::snapshot::{NodeIndex, Slot};
use crate::symbols::{Labels, Symbol, Symbols};
use crate::workloads::{Owner, OwnerSelector, Workloads};

use groups::{GroupId, Groups, MatcherId, Presence};
use keys::{Key, KeyId, Keys};
use scopes::{Scope, ScopeId, Scopes};

/// A tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TallyId(u32);

/// A term that pods carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TermId(u32);

/// The next id of a list that has so many entries.
fn id(length: usize) -> u32 {
    u32::try_from(length).expect("invariant: a snapshot is replaced long before 2^32 entries")
}

/// The nodes of a snapshot.
#[derive(Clone, Copy)]
pub(crate) struct Nodes<'a>(pub(crate) &'a [Slot]);

impl<'a> Nodes<'a> {
    /// Those that are known, with their places.
    fn known(self) -> impl Iterator<Item = (NodeIndex, &'a NodeInfo)> {
        let slots = (0..).zip(self.0).filter(|(_, slot)| slot.known);
        slots.map(|(at, slot)| (NodeIndex::new(at), &slot.node))
    }
}

/// The indexes. See the module's head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    keys: Keys,
    scopes: Scopes,
    groups: Groups,
    tallies: Vec<Tally>,
    known_tallies: FxHashMap<(MatcherId, KeyId, ScopeId, bool), TallyId>,
    terms: Vec<CarriedTerm>,
    known_terms: FxHashMap<(MatcherId, KeyId, TermKind), TermId>,
    namespaces: Namespaces,
    workloads: Workloads,
    defaults: defaults::Defaults,
}

impl Topology {
    /// A topology key.
    pub(crate) fn key(&self, id: KeyId) -> &Key {
        self.keys.get(id)
    }

    /// All topology keys.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A scope.
    pub(crate) fn scope(&self, id: ScopeId) -> &Scope {
        self.scopes.get(id)
    }

    /// A tally.
    pub(crate) fn tally(&self, id: TallyId) -> &Tally {
        &self.tallies[id.0 as usize]
    }

    /// A term that pods carry.
    pub(crate) fn term(&self, id: TermId) -> &CarriedTerm {
        &self.terms[id.0 as usize]
    }

    /// The selector by which a pod is spread if it has no constraints of its own; `None` if
    /// nothing selects it.
    pub(crate) fn default_selector(&self, pod: &PodInfo) -> Option<&Selector> {
        Some(&self.spreading(pod.terms.default?)?.selector)
    }

    /// A matcher's pods by node, those being deleted left out.
    pub(crate) fn by_node(&self, id: MatcherId) -> Option<&Counts> {
        self.groups.matcher(id).by_node.as_ref()
    }

    /// The terms that speak of a pod, whoever carries them.
    pub(crate) fn terms_about(
        &self,
        pod: &PodInfo,
    ) -> impl Iterator<Item = (TermId, &CarriedTerm)> {
        let matchers = self.groups.group(pod.group).matchers.iter();
        let terms = matchers.flat_map(|id| self.groups.matcher(*id).terms.iter());
        terms.map(|id| (*id, self.term(*id))).filter(|(_, term)| term.total() > 0)
    }

    /// Whether a matcher selects a pod.
    pub(crate) fn selects(&self, id: MatcherId, pod: &PodInfo, symbols: &Symbols) -> bool {
        let matcher = self.groups.matcher(id);
        matcher.matches(pod.namespace, &pod.labels, &self.namespaces, symbols)
    }

    /// The labels of a namespace; `None` if it is not known.
    pub(crate) fn namespace_labels(&self, name: Symbol) -> Option<&[(Symbol, Symbol)]> {
        self.namespaces.labels(name)
    }

    /// Counts a pod on a node.
    pub(crate) fn place(&mut self, pod: &PodInfo, index: NodeIndex) {
        let one = Presence { all: 1, live: u32::from(!pod.terminating) };
        let presence = self.groups.group_mut(pod.group).on.entry(index).or_default();
        presence.all += one.all;
        presence.live += one.live;
        self.count(pod, index);
        if one.live > 0 {
            self.count_by_node(pod.group, |counts| {
                counts.add(index.number(), 1);
            });
        }
    }

    /// Counts a pod on a node no longer.
    pub(crate) fn displace(&mut self, pod: &PodInfo, index: NodeIndex) {
        let one = Presence { all: 1, live: u32::from(!pod.terminating) };
        let on = &mut self.groups.group_mut(pod.group).on;
        if let Some(presence) = on.get_mut(&index) {
            presence.all -= one.all;
            presence.live -= one.live;
            if presence.all == 0 {
                on.remove(&index);
            }
        }
        self.discount(pod, index);
        if one.live > 0 {
            self.count_by_node(pod.group, |counts| {
                counts.subtract(index.number(), 1);
            });
        }
    }

    fn count_by_node(&mut self, group: GroupId, mut change: impl FnMut(&mut Counts)) {
        for place in 0..self.groups.group(group).matchers.len() {
            let matcher = self.groups.group(group).matchers[place];
            if let Some(counts) = &mut self.groups.matcher_mut(matcher).by_node {
                change(counts);
            }
        }
    }

    /// Takes in a node that has become known, with the pods on it.
    pub(crate) fn enter(&mut self, index: NodeIndex, node: &NodeInfo, symbols: &Symbols) {
        self.keys.enter(index, node);
        self.scopes.enter(index, node, &self.keys, symbols);
        for pod in &node.pods {
            self.count(pod, index);
        }
    }

    /// Takes out a node that is no longer known, or before it is taken in with other facts.
    pub(crate) fn leave(&mut self, index: NodeIndex, node: &NodeInfo) {
        for pod in &node.pods {
            self.discount(pod, index);
        }
        self.scopes.leave(index, &self.keys);
        self.keys.leave(index);
    }

    /// Counts a pod by domain.
    fn count(&mut self, pod: &PodInfo, index: NodeIndex) {
        self.at_domains(pod, index, DomainCounts::add, CarriedTerm::add);
    }

    /// Takes back what was counted of it.
    fn discount(&mut self, pod: &PodInfo, index: NodeIndex) {
        self.at_domains(pod, index, DomainCounts::subtract, CarriedTerm::subtract);
    }

    /// Changes the counts for which a pod on a node matters.
    fn at_domains(
        &mut self,
        pod: &PodInfo,
        index: NodeIndex,
        change_tally: impl Fn(&mut DomainCounts, keys::Domain, Presence),
        change_term: impl Fn(&mut CarriedTerm, keys::Domain),
    ) {
        let one = Presence { all: 1, live: u32::from(!pod.terminating) };
        for matcher in &self.groups.group(pod.group).matchers {
            for tally in &self.groups.matcher(*matcher).tallies {
                let tally = &mut self.tallies[tally.0 as usize];
                if self.scopes.get(tally.scope).counts(index)
                    && let Some(domain) = self.keys.get(tally.key).domain(index)
                {
                    change_tally(&mut tally.counts, domain, one);
                }
            }
        }
        for term in &pod.terms.carried {
            let term = &mut self.terms[term.0 as usize];
            if let Some(domain) = self.keys.get(term.key).domain(index) {
                change_term(term, domain);
            }
        }
    }

    /// The tally of a matcher, key and scope, which is kept from now on.
    fn intern_tally(
        &mut self,
        matcher: MatcherId,
        key: KeyId,
        scope: ScopeId,
        live_only: bool,
    ) -> TallyId {
        let name = (matcher, key, scope, live_only);
        if let Some(id) = self.known_tallies.get(&name) {
            return *id;
        }
        let mut counts = DomainCounts::new(live_only);
        for group in self.groups.selected(matcher) {
            for (node, presence) in &group.on {
                if self.scopes.get(scope).counts(*node)
                    && let Some(domain) = self.keys.get(key).domain(*node)
                {
                    counts.add(domain, *presence);
                }
            }
        }
        let id = TallyId(id(self.tallies.len()));
        self.tallies.push(Tally { key, scope, counts });
        self.groups.matcher_mut(matcher).tallies.push(id);
        self.known_tallies.insert(name, id);
        id
    }

    fn intern_term(&mut self, matcher: MatcherId, key: KeyId, kind: TermKind) -> TermId {
        let name = (matcher, key, kind);
        if let Some(id) = self.known_terms.get(&name) {
            return *id;
        }
        let id = TermId(id(self.terms.len()));
        self.terms.push(CarriedTerm::new(matcher, key, kind));
        self.groups.matcher_mut(matcher).terms.push(id);
        self.known_terms.insert(name, id);
        id
    }

    /// Takes in a namespace as it is now. Returns whether decisions can see a change.
    pub(crate) fn set_namespace(
        &mut self,
        name: Symbol,
        labels: Labels,
        symbols: &Symbols,
    ) -> bool {
        let news = self.namespaces.set(name, labels);
        if news {
            self.follow_namespace(name, symbols);
        }
        news
    }

    /// Forgets a namespace. Returns whether it was known.
    pub(crate) fn remove_namespace(&mut self, name: Symbol, symbols: &Symbols) -> bool {
        let news = self.namespaces.remove(name);
        if news {
            self.follow_namespace(name, symbols);
        }
        news
    }

    /// Works out anew which matchers select the pods of a namespace.
    fn follow_namespace(&mut self, name: Symbol, symbols: &Symbols) {
        for (group, matcher, selected) in self.groups.changed_pairs(name, &self.namespaces, symbols)
        {
            self.groups.set_selected(group, matcher, selected);
            let tallies = self.groups.matcher(matcher).tallies.clone();
            let by_node = self.groups.matcher_mut(matcher).by_node.take();
            let on = &self.groups.group(group).on;
            for (node, presence) in on {
                for tally in &tallies {
                    let tally = &mut self.tallies[tally.0 as usize];
                    if self.scopes.get(tally.scope).counts(*node)
                        && let Some(domain) = self.keys.get(tally.key).domain(*node)
                    {
                        if selected {
                            tally.counts.add(domain, *presence);
                        } else {
                            tally.counts.subtract(domain, *presence);
                        }
                    }
                }
            }
            if by_node.is_some() {
                self.groups.count_by_node(matcher);
            }
        }
    }

    /// Takes in a Service as it is now. Returns whether decisions can see a change.
    pub(crate) fn set_service(
        &mut self,
        (namespace, name): (Symbol, Symbol),
        selector: Labels,
        symbols: &Symbols,
    ) -> bool {
        let news = self.workloads.set_service(namespace, name, selector);
        if news {
            self.follow_workloads(namespace, None, symbols);
        }
        news
    }

    /// Forgets a Service. Returns whether decisions can see a change.
    pub(crate) fn remove_service(
        &mut self,
        (namespace, name): (Symbol, Symbol),
        symbols: &Symbols,
    ) -> bool {
        let news = self.workloads.remove_service(namespace, name);
        if news {
            self.follow_workloads(namespace, None, symbols);
        }
        news
    }

    /// Takes in a controller as it is now. Returns whether decisions can see a change.
    pub(crate) fn set_owner(
        &mut self,
        namespace: Symbol,
        owner: Owner,
        selector: OwnerSelector,
        symbols: &Symbols,
    ) -> bool {
        let news = self.workloads.set_owner(namespace, owner, selector);
        if news {
            self.follow_workloads(namespace, Some(owner), symbols);
        }
        news
    }

    /// Forgets a controller. Returns whether it was known.
    pub(crate) fn remove_owner(
        &mut self,
        namespace: Symbol,
        owner: Owner,
        symbols: &Symbols,
    ) -> bool {
        let news = self.workloads.remove_owner(namespace, owner);
        if news {
            self.follow_workloads(namespace, Some(owner), symbols);
        }
        news
    }
}

#[cfg(test)]
mod tests;
