//! Default spreading: by which selector a pod without constraints of its own is spread.
//!
//! The selector comes from Services and the pod's controller, which change while the pod waits; so
//! it is kept per kind of pod (group, owner, node affinity) and worked out anew when one of them
//! changes.

use rustc_hash::FxHashMap;
use smallvec::smallvec;

use super::groups::{GroupId, MatcherId, Target};
use super::keys::KeyId;
use super::scopes::ScopeId;
use super::{TallyId, Topology};
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
}

/// What a kind of pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PodKind {
    pub(super) group: GroupId,
    pub(super) owner: Option<Owner>,
    pub(super) hostname: KeyId,
    /// Zones, with nodes without one counted as the zone without a name.
    pub(super) zone: KeyId,
    /// The nodes that the pods' node affinity lets count.
    pub(super) scope: ScopeId,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    all: Vec<(PodKind, Option<Spreading>)>,
    known: FxHashMap<PodKind, DefaultId>,
    by_namespace: FxHashMap<Symbol, Vec<DefaultId>>,
}

impl Topology {
    /// How a kind of pod is spread by default; `None` if nothing selects its pods.
    pub(crate) fn spreading(&self, id: DefaultId) -> Option<&Spreading> {
        self.defaults.all[id.0 as usize].1.as_ref()
    }

    /// Follows a kind of pod from now on.
    pub(super) fn intern_default(&mut self, kind: PodKind, symbols: &Symbols) -> DefaultId {
        if let Some(id) = self.defaults.known.get(&kind) {
            return *id;
        }
        let id = DefaultId(super::id(self.defaults.all.len()));
        let spreading = self.work_out(kind, symbols);
        let namespace = self.groups.group(kind.group).namespace;
        self.defaults.all.push((kind, spreading));
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
            let kind = *kind;
            let group = self.groups.group(kind.group);
            let selector = self.workloads.default_selector(namespace, &group.labels, kind.owner);
            if known.as_ref().map(|known| &known.selector) != selector.as_ref() {
                self.defaults.all[id.0 as usize].1 = self.work_out(kind, symbols);
            }
        }
    }

    fn work_out(&mut self, kind: PodKind, symbols: &Symbols) -> Option<Spreading> {
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
        let PodKind { hostname, zone, .. } = kind;
        Some(Spreading { selector, matcher, hostname, zone, zones })
    }
}
