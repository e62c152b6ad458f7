//! Compiling what a pod says of other pods: its constraints and terms, each with the index that
//! answers it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Pod, PodAffinity, PodAffinityTerm, PodAntiAffinity, TopologySpreadConstraint,
};
use smallvec::{SmallVec, smallvec};
use wharf_model::labels;

use super::defaults::{DefaultId, PodKind};
use super::groups::{MatcherId, Target};
use super::keys::KeyId;
use super::scopes::{Conditions, ScopeId};
use super::{Nodes, TallyId, TermId, TermKind, Topology};
use crate::pod::{NodeAffinity, PodInfo, Toleration};
use crate::selector::Selector;
use crate::symbols::{Symbol, Symbols, label};
use crate::workloads::Owner;

/// What a pod says of other pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodTerms {
    /// Its topology spread constraints.
    pub(crate) constraints: Box<[Constraint]>,
    /// How it is spread if it has none.
    pub(crate) default: Option<DefaultId>,
    /// Terms of required affinity.
    pub(crate) required: Box<[OwnTerm]>,
    /// The pods that all of those select, which are the ones that count; `None` without any.
    pub(crate) required_of_all: Option<MatcherId>,
    /// Terms of required anti-affinity.
    pub(crate) required_anti: Box<[OwnTerm]>,
    /// Terms of preferred affinity with their weights, which are negative for anti-affinity.
    pub(crate) preferred: Box<[(i64, OwnTerm)]>,
    /// The same terms as other pods meet them while this one is on a node.
    pub(crate) carried: Box<[TermId]>,
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Constraint {
    /// Whether it is required (`DoNotSchedule`) or preferred (`ScheduleAnyway`).
    pub(crate) required: bool,
    pub(crate) max_skew: i64,
    /// With fewer domains than this the least count is taken to be 0.
    pub(crate) min_domains: usize,
    pub(crate) key: KeyId,
    /// What it selects, `matchLabelKeys` included.
    pub(crate) selector: Selector,
    /// The pods it counts.
    pub(crate) matcher: MatcherId,
    /// The nodes that count.
    pub(crate) scope: ScopeId,
    /// Their number by domain; `None` where they are counted by node instead.
    pub(crate) tally: Option<TallyId>,
    /// Whether taints decide which nodes count.
    pub(crate) honors_taints: bool,
}

/// A term of a pod's own affinity or anti-affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnTerm {
    pub(crate) key: KeyId,
    /// The pods it selects.
    pub(crate) matcher: MatcherId,
    /// Their number by domain; for required affinity, that of the pods that all terms select.
    pub(crate) tally: TallyId,
}

/// What decides the terms of a pod, besides its namespace and labels.
#[derive(Clone, Copy)]
struct Source<'a> {
    constraints: &'a [TopologySpreadConstraint],
    affinity: Option<&'a PodAffinity>,
    anti_affinity: Option<&'a PodAntiAffinity>,
    owner: Option<Owner>,
    info: &'a PodInfo,
    /// Whether defaults honour taints, under which a pod without constraints may be.
    by_taints: bool,
}

impl<'a> Source<'a> {
    fn new(info: &'a PodInfo, pod: &'a Pod, by_taints: bool, symbols: &mut Symbols) -> Self {
        let spec = pod.spec.as_ref();
        let affinity = spec.and_then(|spec| spec.affinity.as_ref());
        Self {
            constraints: spec
                .and_then(|spec| spec.topology_spread_constraints.as_deref())
                .unwrap_or_default(),
            affinity: affinity.and_then(|affinity| affinity.pod_affinity.as_ref()),
            anti_affinity: affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref()),
            owner: Owner::of(pod, symbols),
            info,
            by_taints,
        }
    }

    /// Tolerations, as far as they matter.
    fn tolerations(&self) -> &'a [Toleration] {
        let matter = if self.constraints.is_empty() {
            self.by_taints
        } else {
            self.constraints.iter().any(honors_taints)
        };
        if matter { &self.info.tolerations } else { &[] }
    }
}

/// The terms of pods of one group, with what they were compiled from: the pods of one template have
/// the same.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    constraints: Box<[TopologySpreadConstraint]>,
    affinity: Option<PodAffinity>,
    anti_affinity: Option<PodAntiAffinity>,
    owner: Option<Owner>,
    nodes: Option<NodeAffinity>,
    tolerations: Box<[Toleration]>,
    terms: Arc<PodTerms>,
}

impl Compiled {
    fn new(source: &Source<'_>, terms: Arc<PodTerms>) -> Self {
        Self {
            constraints: source.constraints.into(),
            affinity: source.affinity.cloned(),
            anti_affinity: source.anti_affinity.cloned(),
            owner: source.owner,
            nodes: requirement(&source.info.affinity),
            tolerations: source.tolerations().into(),
            terms,
        }
    }

    fn is_from(&self, source: &Source<'_>) -> bool {
        let affinity = &source.info.affinity;
        let nodes = match &self.nodes {
            None => affinity.selector.is_empty() && affinity.required.is_none(),
            Some(nodes) => {
                nodes.selector == affinity.selector && nodes.required == affinity.required
            }
        };
        nodes
            && self.owner == source.owner
            && self.affinity.as_ref() == source.affinity
            && self.anti_affinity.as_ref() == source.anti_affinity
            && *self.constraints == *source.constraints
            && *self.tolerations == *source.tolerations()
    }
}

/// How many different terms are remembered of the pods of one group.
const COMPILED_MAX: usize = 4;

impl Topology {
    /// Compiles what a pod says of others into `info`, which has all the rest.
    pub(crate) fn compile(
        &mut self,
        info: &mut PodInfo,
        pod: &Pod,
        symbols: &mut Symbols,
        nodes: Nodes<'_>,
    ) {
        let (namespace, labels) = (info.namespace, &info.labels);
        info.group = self.groups.intern_group(namespace, labels, &self.namespaces, symbols);
        let source = Source::new(info, pod, self.defaults.honor_taints(), symbols);
        let known = self.groups.group(info.group).compiled.iter();
        let known = known.rev().find(|compiled| compiled.is_from(&source));
        let terms = match known {
            Some(compiled) => compiled.terms.clone(),
            None => {
                let terms = Arc::new(self.terms_of(&source, symbols, nodes));
                let compiled = &mut self.groups.group_mut(info.group).compiled;
                if compiled.len() == COMPILED_MAX {
                    compiled.remove(0);
                }
                compiled.push(Compiled::new(&source, terms.clone()));
                terms
            }
        };
        info.terms = terms;
    }

    fn terms_of(
        &mut self,
        source: &Source<'_>,
        symbols: &mut Symbols,
        nodes: Nodes<'_>,
    ) -> PodTerms {
        let mut terms = PodTerms::default();
        let info = source.info;
        if source.constraints.is_empty() {
            terms.default = Some(self.default_spreading(source, symbols, nodes));
        } else {
            terms.constraints = self.constraints(info, source.constraints, symbols, nodes);
        }
        if let Some(own) = source.affinity {
            let required = own.required_during_scheduling_ignored_during_execution.as_deref();
            self.required(&mut terms, info, required.unwrap_or_default(), symbols, nodes);
            let preferred = own.preferred_during_scheduling_ignored_during_execution.as_deref();
            for item in preferred.unwrap_or_default() {
                let weight = i64::from(item.weight);
                self.preferred(&mut terms, info, weight, &item.pod_affinity_term, symbols, nodes);
            }
        }
        if let Some(own) = source.anti_affinity {
            let required = own.required_during_scheduling_ignored_during_execution.as_deref();
            self.required_anti(&mut terms, info, required.unwrap_or_default(), symbols, nodes);
            let preferred = own.preferred_during_scheduling_ignored_during_execution.as_deref();
            for item in preferred.unwrap_or_default() {
                let weight = -i64::from(item.weight);
                self.preferred(&mut terms, info, weight, &item.pod_affinity_term, symbols, nodes);
            }
        }
        terms
    }

    fn constraints(
        &mut self,
        info: &PodInfo,
        constraints: &[TopologySpreadConstraint],
        symbols: &mut Symbols,
        nodes: Nodes<'_>,
    ) -> Box<[Constraint]> {
        let keys: SmallVec<[KeyId; 4]> = constraints
            .iter()
            .map(|constraint| {
                self.keys.intern(symbols.intern(&constraint.topology_key), false, nodes)
            })
            .collect();
        let mut compiled = Vec::with_capacity(constraints.len());
        for (constraint, key) in constraints.iter().zip(&keys) {
            // A node has to have the keys of all constraints of the same kind to count.
            let alike = constraints.iter().zip(&keys);
            let alike = alike.filter(|(other, _)| is_required(other) == is_required(constraint));
            let mut alike: SmallVec<[KeyId; 2]> = alike.map(|(_, key)| *key).collect();
            alike.sort_unstable();
            alike.dedup();
            let honors_taints = honors_taints(constraint);
            let conditions = Conditions {
                keys: alike,
                affinity: requirement(&info.affinity).filter(|_| honors_affinity(constraint)),
                tolerations: honors_taints.then(|| info.tolerations.clone()),
            };
            let scope = self.scopes.intern(conditions, &self.keys, nodes, symbols);
            let selector = spread_selector(constraint, info, symbols);
            let matcher = self.spread_matcher(info.namespace, &selector, symbols);
            let by_node = !is_required(constraint) && constraint.topology_key == labels::HOSTNAME;
            if by_node {
                self.groups.count_by_node(matcher);
            }
            if is_required(constraint) {
                self.scopes.follow(scope, *key, &self.keys);
            }
            compiled.push(Constraint {
                required: is_required(constraint),
                max_skew: i64::from(constraint.max_skew),
                min_domains: min_domains(constraint),
                key: *key,
                selector,
                matcher,
                scope,
                tally: (!by_node).then(|| self.intern_tally(matcher, *key, scope, true)),
                honors_taints,
            });
        }
        compiled.into_boxed_slice()
    }

    /// The pods that a constraint counts. An empty selector counts none, although it selects all.
    fn spread_matcher(
        &mut self,
        namespace: Symbol,
        selector: &Selector,
        symbols: &Symbols,
    ) -> MatcherId {
        let empty = selector.is_everything();
        let target = Target {
            namespaces: smallvec![namespace],
            namespace_selector: None,
            also_unlabelled: false,
            selector: if empty { Selector::nothing() } else { selector.clone() },
        };
        self.groups.intern_matcher(smallvec![target], &self.namespaces, symbols)
    }

    fn default_spreading(
        &mut self,
        source: &Source<'_>,
        symbols: &mut Symbols,
        nodes: Nodes<'_>,
    ) -> DefaultId {
        let Source { info, owner, .. } = *source;
        let zone = symbols.intern(labels::TOPOLOGY_ZONE);
        let zone = self.keys.intern(zone, true, nodes);
        let hostname = self.keys.intern(symbols.intern(labels::HOSTNAME), false, nodes);
        let conditions =
            Conditions { affinity: requirement(&info.affinity), ..Conditions::default() };
        let scope = self.scopes.intern(conditions, &self.keys, nodes, symbols);
        let listed = self.listed_scopes(info, symbols, nodes);
        let kind = PodKind { group: info.group, owner, hostname, zone, scope, listed };
        self.intern_default(kind, symbols)
    }

    fn required(
        &mut self,
        terms: &mut PodTerms,
        info: &PodInfo,
        required: &[PodAffinityTerm],
        symbols: &mut Symbols,
        nodes: Nodes<'_>,
    ) {
        if required.is_empty() {
            return;
        }
        let targets: SmallVec<[Target; 1]> =
            required.iter().map(|term| own_target(term, info, symbols)).collect();
        let of_all = self.groups.intern_matcher(targets.clone(), &self.namespaces, symbols);
        let mut own = Vec::with_capacity(required.len());
        for (term, target) in required.iter().zip(targets) {
            let key = self.keys.intern(symbols.intern(&term.topology_key), false, nodes);
            self.carry(terms, term, key, TermKind::Required, info, symbols);
            let matcher = self.groups.intern_matcher(smallvec![target], &self.namespaces, symbols);
            let tally = self.intern_tally(of_all, key, ScopeId::ALL, false);
            own.push(OwnTerm { key, matcher, tally });
        }
        terms.required = own.into_boxed_slice();
        terms.required_of_all = Some(of_all);
    }

    fn required_anti(
        &mut self,
        terms: &mut PodTerms,
        info: &PodInfo,
        required: &[PodAffinityTerm],
        symbols: &mut Symbols,
        nodes: Nodes<'_>,
    ) {
        let mut own = Vec::with_capacity(required.len());
        for term in required {
            let term_of_own = self.own_term(term, info, symbols, nodes);
            self.carry(terms, term, term_of_own.key, TermKind::RequiredAnti, info, symbols);
            own.push(term_of_own);
        }
        terms.required_anti = own.into_boxed_slice();
    }

    fn preferred(
        &mut self,
        terms: &mut PodTerms,
        info: &PodInfo,
        weight: i64,
        term: &PodAffinityTerm,
        symbols: &mut Symbols,
        nodes: Nodes<'_>,
    ) {
        let own = self.own_term(term, info, symbols, nodes);
        self.carry(terms, term, own.key, TermKind::Preferred(weight), info, symbols);
        let mut all = std::mem::take(&mut terms.preferred).into_vec();
        all.push((weight, own));
        terms.preferred = all.into_boxed_slice();
    }

    fn own_term(
        &mut self,
        term: &PodAffinityTerm,
        info: &PodInfo,
        symbols: &mut Symbols,
        nodes: Nodes<'_>,
    ) -> OwnTerm {
        let key = self.keys.intern(symbols.intern(&term.topology_key), false, nodes);
        let target = own_target(term, info, symbols);
        let matcher = self.groups.intern_matcher(smallvec![target], &self.namespaces, symbols);
        OwnTerm { key, matcher, tally: self.intern_tally(matcher, key, ScopeId::ALL, false) }
    }

    /// Notes a term among those that the pod carries.
    fn carry(
        &mut self,
        terms: &mut PodTerms,
        term: &PodAffinityTerm,
        key: KeyId,
        kind: TermKind,
        info: &PodInfo,
        symbols: &mut Symbols,
    ) {
        let target = Target { also_unlabelled: false, ..own_target(term, info, symbols) };
        let matcher = self.groups.intern_matcher(smallvec![target], &self.namespaces, symbols);
        let mut all = std::mem::take(&mut terms.carried).into_vec();
        all.push(self.intern_term(matcher, key, kind));
        terms.carried = all.into_boxed_slice();
    }
}

/// Whether a constraint is required and not only preferred.
pub(crate) fn is_required(constraint: &TopologySpreadConstraint) -> bool {
    constraint.when_unsatisfiable != "ScheduleAnyway"
}

/// Whether node selector and required node affinity decide which nodes count.
pub(crate) fn honors_affinity(constraint: &TopologySpreadConstraint) -> bool {
    constraint.node_affinity_policy.as_deref() != Some("Ignore")
}

/// Whether taints decide which nodes count.
pub(crate) fn honors_taints(constraint: &TopologySpreadConstraint) -> bool {
    constraint.node_taints_policy.as_deref() == Some("Honor")
}

/// With fewer domains than this the least count is taken to be 0.
pub(crate) fn min_domains(constraint: &TopologySpreadConstraint) -> usize {
    constraint.min_domains.map_or(1, |domains| usize::try_from(domains).unwrap_or(0))
}

/// What a pod requires of its node, if anything.
pub(super) fn requirement(affinity: &NodeAffinity) -> Option<NodeAffinity> {
    let requires = !affinity.selector.is_empty() || affinity.required.is_some();
    requires.then(|| NodeAffinity { preferred: Box::default(), ..affinity.clone() })
}

/// The pods that a term selects when it is the term of the pod that is being placed.
fn own_target(term: &PodAffinityTerm, info: &PodInfo, symbols: &mut Symbols) -> Target {
    let named = term.namespaces.as_deref().unwrap_or_default();
    let namespace_selector = term.namespace_selector.as_ref();
    let mut namespaces: SmallVec<[Symbol; 1]> =
        named.iter().map(|name| symbols.intern(name)).collect();
    if namespaces.is_empty() && namespace_selector.is_none() {
        namespaces.push(info.namespace);
    }
    namespaces.sort_unstable();
    namespaces.dedup();
    Target {
        namespaces,
        namespace_selector: namespace_selector
            .map(|selector| Selector::new(Some(selector), symbols)),
        // Without a namespace selector both views of a term are one, and share their index.
        also_unlabelled: namespace_selector.is_some(),
        selector: Selector::new(term.label_selector.as_ref(), symbols),
    }
}

/// A constraint's selector with the pod's own values of its `matchLabelKeys`.
pub(crate) fn spread_selector(
    constraint: &TopologySpreadConstraint,
    info: &PodInfo,
    symbols: &mut Symbols,
) -> Selector {
    let selector = Selector::new(constraint.label_selector.as_ref(), symbols);
    let keys = constraint.match_label_keys.iter().flatten();
    let pairs: Vec<_> = keys
        .filter_map(|key| {
            let key = symbols.intern(key);
            Some((key, label(&info.labels, key)?))
        })
        .collect();
    if pairs.is_empty() { selector } else { Selector::of_labels(pairs).and(Some(&selector)) }
}
