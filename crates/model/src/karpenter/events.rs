//! Event reasons of Karpenter's controllers, exactly as upstream writes them: users filter by
//! these words.

/// A node may not be disrupted now; the message says why.
pub const DISRUPTION_BLOCKED: &str = "DisruptionBlocked";
/// A replacement is being launched for a disrupted node.
pub const DISRUPTION_LAUNCHING: &str = "DisruptionLaunching";
/// A disrupted node is being terminated.
pub const DISRUPTION_TERMINATING: &str = "DisruptionTerminating";
/// A disruption waits for its replacements to be initialized.
pub const DISRUPTION_WAITING_READINESS: &str = "DisruptionWaitingReadiness";
/// Consolidation cannot take a node; the message says why.
pub const UNCONSOLIDATABLE: &str = "Unconsolidatable";
/// A consolidation was found.
pub const CONSOLIDATION_CANDIDATE: &str = "ConsolidationCandidate";
/// A consolidation did not survive its validation.
pub const CONSOLIDATION_REJECTED: &str = "ConsolidationRejected";
/// A balanced consolidation's savings outweigh its disruption.
pub const CONSOLIDATION_APPROVED: &str = "ConsolidationApproved";
/// No machine can be found for a pod.
pub const FAILED_SCHEDULING: &str = "FailedScheduling";
/// A pool's requirements leave no instance type.
pub const NO_COMPATIBLE_INSTANCE_TYPES: &str = "NoCompatibleInstanceTypes";
/// A pod is expected to land on a node or claim.
pub const NOMINATED: &str = "Nominated";
/// Node repair is held back.
pub const NODE_REPAIR_BLOCKED: &str = "NodeRepairBlocked";
/// A pod is deleted to keep its node's termination time.
pub const DISRUPTED: &str = "Disrupted";
/// A pod was evicted.
pub const EVICTED: &str = "Evicted";
/// A node cannot be drained yet.
pub const FAILED_DRAINING: &str = "FailedDraining";
/// A node's termination grace period runs.
pub const TERMINATION_GRACE_PERIOD_EXPIRING: &str = "TerminationGracePeriodExpiring";
/// A node could not be terminated.
pub const FAILED_TERMINATION: &str = "FailedTermination";
/// A node waits for its volumes to be detached.
pub const AWAITING_VOLUME_DETACHMENT: &str = "AwaitingVolumeDetachment";
/// A node offers less than its machine should.
pub const FAILED_CONSISTENCY_CHECK: &str = "FailedConsistencyCheck";
/// The cloud has no capacity for a claim.
pub const INSUFFICIENT_CAPACITY_ERROR: &str = "InsufficientCapacityError";
/// A node registered without the taint that keeps pods off until it is set up.
pub const UNREGISTERED_TAINT_MISSING: &str = "UnregisteredTaintMissing";
/// A claim's node class is not ready.
pub const NODE_CLASS_NOT_READY: &str = "NodeClassNotReady";
/// A node class is deleted but claims still refer to it.
pub const WAITING_ON_NODE_CLAIM_TERMINATION: &str = "WaitingOnNodeClaimTermination";
/// AWS will take a spot instance back.
pub const SPOT_INTERRUPTED: &str = "SpotInterrupted";
/// AWS will take an instance of an interruptible reservation back.
pub const CAPACITY_RESERVATION_INSTANCE_INTERRUPTED: &str =
    "CapacityReservationInstanceInterrupted";
/// AWS recommends to leave a spot instance.
pub const SPOT_REBALANCE_RECOMMENDATION: &str = "SpotRebalanceRecommendation";
/// An instance is stopping.
pub const INSTANCE_STOPPING: &str = "InstanceStopping";
/// An instance is terminating.
pub const INSTANCE_TERMINATING: &str = "InstanceTerminating";
/// An instance fails its status checks or has a scheduled health event.
pub const INSTANCE_UNHEALTHY: &str = "InstanceUnhealthy";
/// A claim is deleted because of an interruption.
pub const TERMINATING_ON_INTERRUPTION: &str = "TerminatingOnInterruption";
