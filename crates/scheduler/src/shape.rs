//! What pods of one template have in common, held once for all of them: everything that decides by
//! itself which nodes would take a pod and how they score, whatever other pods are where.
//!
//! Two pods of one shape get the same answer from a node. That saves memory, and lets a
//! [`crate::Memo`] keep answers from one decision to the next.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use crate::pod::{HostPort, NodeAffinity, Toleration};
use crate::requests::PodRequests;
use crate::symbols::Symbol;

/// Below so many shapes nobody looks for unused ones.
const SHAPES_MIN: usize = 256;

/// What node-local filters and scorers read of a pod. Anything else they read belongs in here too:
/// answers are remembered by shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// What it asks for.
    pub amounts: PodRequests,
    /// Which nodes it may run on, and which it likes.
    pub affinity: NodeAffinity,
    /// Tolerations.
    pub tolerations: SmallVec<[Toleration; 4]>,
    /// Ports it takes of its host.
    pub host_ports: SmallVec<[HostPort; 1]>,
    /// The images of its containers and volumes, as nodes list them, in order.
    pub images: SmallVec<[Symbol; 2]>,
    /// How many containers it has, init containers included.
    pub containers: i64,
    /// Names of features that its node has to declare.
    pub features: SmallVec<[Symbol; 0]>,
}

/// The shapes in use. Finding one costs the same however many there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shapes {
    known: FxHashSet<Arc<Shape>>,
    /// How many there were when unused ones were last dropped.
    kept: usize,
}

impl Shapes {
    /// The one copy of a shape.
    pub(crate) fn intern(&mut self, shape: Shape) -> Arc<Shape> {
        if let Some(known) = self.known.get(&shape) {
            return known.clone();
        }
        // Twice as many as were in use: most are of pods long gone. Looking through them is paid
        // for by the shapes that came since.
        if self.known.len() >= SHAPES_MIN.max(2 * self.kept) {
            self.known.retain(|shape| Arc::strong_count(shape) > 1);
            self.kept = self.known.len();
        }
        let shape = Arc::new(shape);
        self.known.insert(shape.clone());
        shape
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::Snapshot;
    use crate::testing::pod;

    #[test]
    fn equal_pods_share_a_shape_and_unused_shapes_go() {
        let mut snapshot = Snapshot::new();
        let compile = |snapshot: &mut Snapshot, name: &str, cpu: usize| {
            snapshot.compile(&pod(name, json!({"cpu": format!("{cpu}m")})))
        };
        let first = compile(&mut snapshot, "a", 1);
        let second = compile(&mut snapshot, "b", 1);
        let other = compile(&mut snapshot, "c", 2);
        assert!(Arc::ptr_eq(&first.shape, &second.shape));
        assert!(!Arc::ptr_eq(&first.shape, &other.shape));
        let mut shapes = Shapes::default();
        for cpu in 0..10 * SHAPES_MIN {
            shapes.intern((*compile(&mut snapshot, "d", cpu).shape).clone());
            assert!(shapes.known.len() <= SHAPES_MIN);
        }
    }
}
