//! Interning: pods of one template ask the same questions, so each question gets a number and is
//! answered once.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};
use wharf_model::resources::Resources;

use crate::pod::{Constraints, Origin, PodRequest, Rung};
use crate::terms::HostPort;

/// A pod's shape: what it asks for, where it may go, and whether it may only go to settled nodes;
/// and the number of its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShapeId(pub(crate) u32, pub(crate) u32);

/// One shape.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) requests: Resources,
    /// Whether it must not go to nodes that were busy a moment ago.
    pub(crate) settled_only: bool,
    /// The forms of its constraints, in the order in which they are tried.
    pub(crate) rungs: Arc<[u32]>,
    /// The node's ports that it takes.
    pub(crate) ports: Arc<[HostPort]>,
    /// The numbers of its attempts: one for each form.
    pub(crate) attempts: Range<usize>,
}

/// All shapes met so far.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    pub(crate) shapes: Vec<Shape>,
    pub(crate) rungs: Vec<Rung>,
    /// Per rung: the first one that asks the same of the node itself.
    pub(crate) node_form: Vec<u32>,
    pub(crate) attempts: usize,
    by_value: FxHashMap<(Resources, u32, bool), u32>,
    /// Constraints already compiled: their values by fingerprint, and their forms.
    by_fingerprint: FxHashMap<u64, Vec<u32>>,
    constraints: Vec<(Arc<Constraints>, Arc<[u32]>)>,
    rungs_by_fingerprint: FxHashMap<u64, Vec<u32>>,
    /// Rungs by what they ask of the node itself.
    node_forms: FxHashMap<u64, Vec<u32>>,
    /// Pods of one template share the allocation, which makes the look-up cheap.
    by_address: FxHashMap<usize, u32>,
}

impl Shapes {
    /// The shape of a pod; `soft_taints` says whether some pool has a PreferNoSchedule taint.
    pub(crate) fn of(&mut self, pod: &PodRequest, soft_taints: bool) -> u32 {
        let constraints = self.constraints_of(&pod.constraints, soft_taints);
        let settled_only = pod.origin == Origin::Candidate;
        let key = (pod.requests.clone(), constraints, settled_only);
        if let Some(id) = self.by_value.get(&key) {
            return *id;
        }
        let id = self.shapes.len() as u32;
        let rungs = Arc::clone(&self.constraints[constraints as usize].1);
        let attempts = self.attempts..self.attempts + rungs.len();
        self.attempts = attempts.end;
        let ports = pod.constraints.ports.as_slice().into();
        let requests = pod.requests.clone();
        self.shapes.push(Shape { requests, settled_only, rungs, ports, attempts });
        self.by_value.insert(key, id);
        id
    }

    fn constraints_of(&mut self, constraints: &Arc<Constraints>, soft_taints: bool) -> u32 {
        // The allocation is kept alive in `constraints`, so its address stays its own.
        let address = Arc::as_ptr(constraints).addr();
        if let Some(id) = self.by_address.get(&address) {
            return *id;
        }
        let fingerprint = constraints_fingerprint(constraints);
        let known = self.by_fingerprint.get(&fingerprint).into_iter().flatten().copied();
        if let Some(id) =
            known.into_iter().find(|id| *self.constraints[*id as usize].0 == **constraints)
        {
            return id;
        }
        let id = self.constraints.len() as u32;
        let ladder = constraints.ladder(soft_taints);
        let rungs = ladder.into_iter().map(|rung| self.rung_of(rung)).collect();
        self.constraints.push((Arc::clone(constraints), rungs));
        self.by_fingerprint.entry(fingerprint).or_default().push(id);
        self.by_address.insert(address, id);
        id
    }

    fn rung_of(&mut self, rung: Rung) -> u32 {
        let fingerprint = rung_fingerprint(&rung);
        let known = self.rungs_by_fingerprint.entry(fingerprint).or_default();
        if let Some(id) = known.iter().find(|id| self.rungs[**id as usize] == rung) {
            return *id;
        }
        let id = self.rungs.len() as u32;
        known.push(id);
        let mut hasher = FxHasher::default();
        rung.requirements.iter().for_each(|requirement| requirement.hash(&mut hasher));
        hash_tolerations(&rung.tolerations, &mut hasher);
        let alike = self.node_forms.entry(hasher.finish()).or_default();
        let same = |other: &&u32| {
            let other = &self.rungs[**other as usize];
            other.requirements == rung.requirements && other.tolerations == rung.tolerations
        };
        let form = alike.iter().find(same).copied().unwrap_or_else(|| {
            alike.push(id);
            id
        });
        self.node_form.push(form);
        self.rungs.push(rung);
        id
    }
}

fn constraints_fingerprint(constraints: &Constraints) -> u64 {
    let mut hasher = FxHasher::default();
    let preferred = constraints.preferred.iter().map(|(_, requirements)| requirements);
    for part in std::iter::once(&constraints.selector).chain(&constraints.required).chain(preferred)
    {
        part.len().hash(&mut hasher);
        part.iter().for_each(|requirement| requirement.hash(&mut hasher));
    }
    hash_tolerations(&constraints.tolerations, &mut hasher);
    (&constraints.topology, &constraints.ports).hash(&mut hasher);
    hasher.finish()
}

fn rung_fingerprint(rung: &Rung) -> u64 {
    let mut hasher = FxHasher::default();
    rung.requirements.iter().for_each(|requirement| requirement.hash(&mut hasher));
    hash_tolerations(&rung.tolerations, &mut hasher);
    rung.topology.hash(&mut hasher);
    hasher.finish()
}

fn hash_tolerations(tolerations: &[k8s_openapi::api::core::v1::Toleration], hasher: &mut FxHasher) {
    for toleration in tolerations {
        (&toleration.key, &toleration.operator, &toleration.value, &toleration.effect).hash(hasher);
    }
}
