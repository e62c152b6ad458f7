//! EKS Auto Mode's kinds: `NodeClass` (`eks.amazonaws.com/v1`), which its NodePools refer to as those of
//! self-managed Karpenter refer to an EC2NodeClass, and `Cluster` (`eks.services.k8s.aws/v1alpha1`), the
//! AWS controller's kind, in which Auto Mode is switched on and off.
//!
//! [`pools`] has the NodePools that Auto Mode brings; [`families`] which machine types it takes; [`fee`] what
//! it costs.
//!
//! Public contract: <https://docs.aws.amazon.com/eks/latest/userguide/create-node-class.html>,
//! <https://docs.aws.amazon.com/eks/latest/userguide/set-builtin-node-pools.html>,
//! <https://aws-controllers-k8s.github.io/community/reference/eks/v1alpha1/cluster/>.

mod cluster;
pub mod columns;
pub mod families;
pub mod fee;
mod nodeclass;
pub mod pools;
pub mod schema;
mod validation;

pub use cluster::{
    Cluster, ClusterSpec, ClusterStatus, ComputeConfig, KubernetesNetworkConfig, StorageConfig,
    Switch,
};
pub use nodeclass::{
    AutoNodeClass, AutoNodeClassSpec, AutoNodeClassStatus, EphemeralStorage, PodSubnetSelectorTerm,
};
pub use validation::{LIFETIME_MAX_HOURS, lifetime_problem, validate};

/// The API group of Auto Mode's own kinds, and the domain of its labels.
pub const GROUP: &str = "eks.amazonaws.com";
/// The kind of its node classes, as `nodeClassRef` names it.
pub const NODE_CLASS: &str = "NodeClass";
/// Keeps a node class until its NodeClaims are gone.
pub const FINALIZER: &str = "eks.amazonaws.com/termination";
/// The component that Auto Mode's events come from.
pub const EVENT_SOURCE: &str = "eks-auto-mode/compute";
/// The node class that Auto Mode brings.
pub const DEFAULT_CLASS: &str = "default";
/// What of a node's cpu Auto Mode holds back while it plans, in thousandths: its agents run beside
/// the kubelet, as processes rather than pods. A node that has joined says what it has itself.
pub const PLANNING_RESERVE_MILLI: i64 = 450;
/// Pods on a node at most, whatever addresses it has.
pub const PODS_MAX: u32 = 110;

/// Whether a reference to a node class is to one of Auto Mode's.
pub fn is_auto_class(reference: &crate::karpenter::NodeClassReference) -> bool {
    reference.group == GROUP
}
