//! Karpenter's custom resources: `NodePool` and `NodeClaim` (`karpenter.sh/v1`) and `EC2NodeClass`
//! (`karpenter.k8s.aws/v1`), with everything an API server must know of them: schema, defaults,
//! validation and printed columns; and what a controller must know: conditions, event reasons,
//! static hashes and how a pool's template becomes a claim.
//!
//! Start with [`NodePool`]. The field set is that of Karpenter 1.14 and its main branch at
//! 2026-08-21. Times are always arguments; nothing here reads a clock.
//!
//! Public contract: <https://karpenter.sh/docs/concepts/nodepools/>,
//! <https://karpenter.sh/docs/concepts/nodeclaims/>, <https://karpenter.sh/docs/concepts/nodeclasses/>.

pub mod columns;
pub mod conditions;
pub mod defaults;
pub mod ec2nodeclass;
pub mod events;
pub mod hash;
#[cfg(test)]
mod lab_manifests;
pub mod nodeclaim;
pub mod nodepool;
pub mod schema;
pub mod template;
pub mod validation;

pub use crate::custom::IntOrQuantity;
pub use ec2nodeclass::{EC2NodeClass, EC2NodeClassSpec, EC2NodeClassStatus};
pub use nodeclaim::{NodeClaim, NodeClaimSpec, NodeClaimStatus};
pub use nodepool::{
    Budget, ConsolidationPolicy, Disruption, DisruptionReason, NodeClaimTemplate,
    NodeClaimTemplateSpec, NodeClassReference, NodePool, NodePoolSpec, NodePoolStatus,
    NodeSelectorRequirementWithMinValues,
};

pub use crate::labels::{
    EC2NODECLASS_FINALIZER as NODE_CLASS_TERMINATION_FINALIZER, TERMINATION_FINALIZER,
};

/// The API group of NodePool and NodeClaim.
pub const GROUP: &str = "karpenter.sh";
/// The API group of EC2NodeClass.
pub const AWS_GROUP: &str = "karpenter.k8s.aws";
/// The word that switches a duration off (`expireAfter: Never`).
pub const NEVER: &str = "Never";
