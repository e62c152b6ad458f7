//! Karpenter's controllers over the provisioning core: pending pods become NodeClaims, NodeClaims
//! machines, machines nodes; nodes that are not worth their price go away again.
//!
//! One file per controller; [`controllers`] makes them all. What they must remember between steps
//! and tell each other is in `shared` and may be lost at any moment: everything that counts is read
//! from the view. Words, timings and texts are upstream's (<https://karpenter.sh/docs/>).

mod auto_class;
mod auto_pools;
mod class;
mod daemons;
mod disruption;
mod events;
mod expiration;
mod garbage_collection;
mod health;
mod instance_types;
mod launch;
mod lifecycle;
mod log;
mod marks;
mod nodeclass;
mod nodepool;
mod pod_events;
mod pods;
mod provisioner;
mod registration;
mod review;
mod shared;
mod snapshot;
mod termination;
mod volume_topology;
mod why;

use std::sync::Arc;
use std::time::Duration;

use wharf_cloud::catalog::Catalog;
use wharf_ports::controller::Controller;
use wharf_provision::disruption::consolidate::Gates;
pub use wharf_provision::review::{
    Exceeded, Exclusion, Hindrance, Offer, PoolAnswer, Refusal, Shortage,
};
use wharf_provision::solve::{Packing, Settings};

pub use self::review::{Limit, Outlook, PoolReview, PoolSays, review};

/// Settings of Karpenter's controllers, with upstream's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KarpenterSettings {
    /// Name of the cluster (`CLUSTER_NAME`).
    pub cluster_name: String,
    /// A batch of pods closes when so long no other pod has come (`BATCH_IDLE_DURATION`).
    pub batch_idle: Duration,
    /// A batch of pods closes after so long at the latest (`BATCH_MAX_DURATION`).
    pub batch_max: Duration,
    /// How pods are put together, and whether preferences count.
    pub solver: Settings,
    /// Feature gates of consolidation.
    pub gates: Gates,
    /// Whether broken nodes are replaced (`NodeRepair`). Auto Mode's always are.
    pub node_repair: bool,
}

impl Default for KarpenterSettings {
    fn default() -> Self {
        Self {
            cluster_name: "wharf".to_owned(),
            batch_idle: Duration::from_secs(1),
            batch_max: Duration::from_secs(10),
            solver: Settings { packing: Packing::Upstream, ..Settings::default() },
            gates: Gates::default(),
            node_repair: false,
        }
    }
}

/// Karpenter's controllers for a cluster in the region of `catalog`.
pub fn controllers(
    catalog: &Arc<Catalog>,
    settings: KarpenterSettings,
) -> Vec<Box<dyn Controller>> {
    let shared = shared::Shared::new(Arc::clone(catalog), settings);
    vec![
        Box::new(nodeclass::NodeClassController::new(Arc::clone(&shared))),
        Box::new(auto_pools::AutoPools::new(Arc::clone(&shared))),
        Box::new(auto_class::AutoClassController::new(Arc::clone(&shared))),
        Box::new(nodepool::NodePoolController::new(Arc::clone(&shared))),
        Box::new(provisioner::Provisioner::new(Arc::clone(&shared))),
        Box::new(lifecycle::Lifecycle::new(Arc::clone(&shared))),
        Box::new(pod_events::PodEvents::new()),
        Box::new(marks::Marks::new(Arc::clone(&shared))),
        Box::new(disruption::DisruptionController::new(Arc::clone(&shared))),
        Box::new(termination::Termination::new(Arc::clone(&shared))),
        Box::new(expiration::Expiration),
        Box::new(health::Health::new(Arc::clone(&shared))),
        Box::new(garbage_collection::GarbageCollection::new()),
    ]
}
