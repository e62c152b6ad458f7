//! The types, reasons and fixed messages of conditions, exactly as upstream writes them.

/// Condition types of NodeClaim.
pub mod node_claim {
    /// The machine was created.
    pub const LAUNCHED: &str = "Launched";
    /// The node joined the cluster and was given its labels and taints.
    pub const REGISTERED: &str = "Registered";
    /// The node is ready for pods.
    pub const INITIALIZED: &str = "Initialized";
    /// The node has been quiet for consolidateAfter; removed when it is not.
    pub const CONSOLIDATABLE: &str = "Consolidatable";
    /// The node no longer is what its pool asks for; removed when it is.
    pub const DRIFTED: &str = "Drifted";
    /// The node's pods are gone.
    pub const DRAINED: &str = "Drained";
    /// The node's volumes are detached.
    pub const VOLUMES_DETACHED: &str = "VolumesDetached";
    /// The cloud accepted the machine's deletion.
    pub const INSTANCE_TERMINATING: &str = "InstanceTerminating";
    /// The node offers what its machine should.
    pub const CONSISTENT_STATE_FOUND: &str = "ConsistentStateFound";
    /// The node was picked for disruption.
    pub const DISRUPTION_REASON: &str = "DisruptionReason";
    /// What Ready depends on.
    pub const DEPENDENTS: &[&str] = &[LAUNCHED, REGISTERED, INITIALIZED];
}

/// Condition types of NodePool.
pub mod node_pool {
    /// The parts that a schema cannot check are valid.
    pub const VALIDATION_SUCCEEDED: &str = "ValidationSucceeded";
    /// The node class exists and is ready.
    pub const NODE_CLASS_READY: &str = "NodeClassReady";
    /// Whether the pool's nodes manage to register; for information, Ready does not need it.
    pub const NODE_REGISTRATION_HEALTHY: &str = "NodeRegistrationHealthy";
    /// What Ready depends on.
    pub const DEPENDENTS: &[&str] = &[VALIDATION_SUCCEEDED, NODE_CLASS_READY];
}

/// Condition types of EC2NodeClass.
pub mod ec2_node_class {
    /// Images were found.
    pub const AMIS_READY: &str = "AMIsReady";
    /// Subnets were found.
    pub const SUBNETS_READY: &str = "SubnetsReady";
    /// Security groups were found.
    pub const SECURITY_GROUPS_READY: &str = "SecurityGroupsReady";
    /// The instance profile exists.
    pub const INSTANCE_PROFILE_READY: &str = "InstanceProfileReady";
    /// Dry runs of the launch calls succeed.
    pub const VALIDATION_SUCCEEDED: &str = "ValidationSucceeded";
    /// The placement group was found, or none is asked for.
    pub const PLACEMENT_GROUP_READY: &str = "PlacementGroupReady";
    /// Capacity reservations were looked up.
    pub const CAPACITY_RESERVATIONS_READY: &str = "CapacityReservationsReady";
    /// What Ready depends on, with the ReservedCapacity gate on (its default).
    pub const DEPENDENTS: &[&str] = &[
        AMIS_READY,
        SUBNETS_READY,
        SECURITY_GROUPS_READY,
        INSTANCE_PROFILE_READY,
        VALIDATION_SUCCEEDED,
        PLACEMENT_GROUP_READY,
        CAPACITY_RESERVATIONS_READY,
    ];
}

/// Condition types of EKS Auto Mode's NodeClass.
pub mod auto_node_class {
    pub use super::ec2_node_class::{INSTANCE_PROFILE_READY, SECURITY_GROUPS_READY, SUBNETS_READY};
    /// What Ready depends on.
    pub const DEPENDENTS: &[&str] = &[SUBNETS_READY, SECURITY_GROUPS_READY, INSTANCE_PROFILE_READY];
}

/// Reasons of conditions that are not True, with their fixed messages where upstream has one. A
/// condition that is True carries its own type as the reason unless said otherwise.
pub mod reason {
    /// Nobody looked yet.
    pub const AWAITING_RECONCILIATION: &str = "AwaitingReconciliation";
    /// The message with [`AWAITING_RECONCILIATION`].
    pub const AWAITING_RECONCILIATION_MESSAGE: &str = "object is awaiting reconciliation";
    /// Of a root condition that is Unknown.
    pub const RECONCILING_DEPENDENTS: &str = "ReconcilingDependents";
    /// Of a root condition that is False.
    pub const UNHEALTHY_DEPENDENTS: &str = "UnhealthyDependents";

    /// Launched: the provider failed without a reason of its own.
    pub const LAUNCH_FAILED: &str = "LaunchFailed";
    /// Registered, Initialized: no node with the claim's provider id.
    pub const NODE_NOT_FOUND: &str = "NodeNotFound";
    /// The message with [`NODE_NOT_FOUND`].
    pub const NODE_NOT_FOUND_MESSAGE: &str = "Node not registered with cluster";
    /// Registered: several nodes with the claim's provider id.
    pub const MULTIPLE_NODES_FOUND: &str = "MultipleNodesFound";
    /// The message with [`MULTIPLE_NODES_FOUND`].
    pub const MULTIPLE_NODES_FOUND_MESSAGE: &str = "Invariant violated, matched multiple nodes";
    /// Registered: a provider's step is not done.
    pub const REGISTRATION_HOOK_PENDING: &str = "RegistrationHookPending";
    /// Initialized: the node is not Ready.
    pub const NODE_NOT_READY: &str = "NodeNotReady";
    /// The message with [`NODE_NOT_READY`].
    pub const NODE_NOT_READY_MESSAGE: &str = "Node status is NotReady";
    /// Initialized: a startup taint is still there.
    pub const STARTUP_TAINTS_EXIST: &str = "StartupTaintsExist";
    /// Initialized: a taint that Kubernetes removes itself is still there.
    pub const KNOWN_EPHEMERAL_TAINTS_EXIST: &str = "KnownEphemeralTaintsExist";
    /// Initialized: a requested resource is not offered yet.
    pub const RESOURCE_NOT_REGISTERED: &str = "ResourceNotRegistered";
    /// Initialized: a device driver has not published its devices.
    pub const DRA_DRIVER_POOLS_NOT_PUBLISHED: &str = "DRADriverPoolsNotPublished";
    /// Drifted: the pool's template changed.
    pub const NODE_POOL_DRIFTED: &str = "NodePoolDrifted";
    /// Drifted: the pool's requirements no longer allow the node.
    pub const REQUIREMENTS_DRIFTED: &str = "RequirementsDrifted";
    /// Drifted: the instance type is no longer offered.
    pub const INSTANCE_TYPE_NOT_FOUND: &str = "InstanceTypeNotFound";
    /// Drained: pods are being evicted; also the message.
    pub const DRAINING: &str = "Draining";
    /// VolumesDetached: attachments remain; also the message.
    pub const AWAITING_VOLUME_DETACHMENT: &str = "AwaitingVolumeDetachment";
    /// VolumesDetached: attachments remained when the time was up; also the message.
    pub const TERMINATION_GRACE_PERIOD_ELAPSED: &str = "TerminationGracePeriodElapsed";
    /// ConsistentStateFound: the node offers too little.
    pub const CONSISTENCY_CHECK_FAILED: &str = "ConsistencyCheckFailed";
    /// The message with [`CONSISTENCY_CHECK_FAILED`].
    pub const CONSISTENCY_CHECK_FAILED_MESSAGE: &str = "Consistency Check Failed";

    /// ValidationSucceeded of a pool.
    pub const NODE_POOL_VALIDATION_FAILED: &str = "NodePoolValidationFailed";
    /// NodeClassReady: it does not exist.
    pub const NODE_CLASS_NOT_FOUND: &str = "NodeClassNotFound";
    /// The message with [`NODE_CLASS_NOT_FOUND`].
    pub const NODE_CLASS_NOT_FOUND_MESSAGE: &str = "NodeClass not found on cluster";
    /// NodeClassReady: it is being deleted.
    pub const NODE_CLASS_TERMINATING: &str = "NodeClassTerminating";
    /// The message with [`NODE_CLASS_TERMINATING`].
    pub const NODE_CLASS_TERMINATING_MESSAGE: &str = "NodeClass is Terminating";
    /// NodeClassReady: its own Ready is Unknown.
    pub const NODE_CLASS_READINESS_UNKNOWN: &str = "NodeClassReadinessUnknown";
    /// The message with [`NODE_CLASS_READINESS_UNKNOWN`].
    pub const NODE_CLASS_READINESS_UNKNOWN_MESSAGE: &str = "Node Class Readiness Unknown";
    /// NodeRegistrationHealthy: nodes launch but do not register.
    pub const REGISTRATION_FAILED: &str = "RegistrationFailed";
    /// The message with [`REGISTRATION_FAILED`].
    pub const REGISTRATION_FAILED_MESSAGE: &str = "Failed to register node";

    /// AMIsReady: nothing matched.
    pub const AMI_NOT_FOUND: &str = "AMINotFound";
    /// The message with [`AMI_NOT_FOUND`].
    pub const AMI_NOT_FOUND_MESSAGE: &str = "AMISelector did not match any AMIs";
    /// AMIsReady: the alias is not offered for this Kubernetes version.
    pub const UNSUPPORTED_ALIAS: &str = "UnsupportedAlias";
    /// SubnetsReady: nothing matched.
    pub const SUBNETS_NOT_FOUND: &str = "SubnetsNotFound";
    /// The message with [`SUBNETS_NOT_FOUND`].
    pub const SUBNETS_NOT_FOUND_MESSAGE: &str = "SubnetSelector did not match any Subnets";
    /// SecurityGroupsReady: nothing matched.
    pub const SECURITY_GROUPS_NOT_FOUND: &str = "SecurityGroupsNotFound";
    /// The message with [`SECURITY_GROUPS_NOT_FOUND`].
    pub const SECURITY_GROUPS_NOT_FOUND_MESSAGE: &str =
        "SecurityGroupSelector did not match any SecurityGroups";
    /// PlacementGroupReady: nothing matched.
    pub const PLACEMENT_GROUP_NOT_FOUND: &str = "PlacementGroupNotFound";
    /// PlacementGroupReady: the look-up failed.
    pub const PLACEMENT_GROUP_RESOLUTION_FAILED: &str = "PlacementGroupResolutionFailed";
    /// The message with [`PLACEMENT_GROUP_RESOLUTION_FAILED`].
    pub const PLACEMENT_GROUP_RESOLUTION_FAILED_MESSAGE: &str = "Failed to resolve placement group";
    /// ValidationSucceeded of a class: another condition comes first.
    pub const DEPENDENCIES_NOT_READY: &str = "DependenciesNotReady";
    /// ValidationSucceeded of a class: a tag is reserved.
    pub const TAG_VALIDATION_FAILED: &str = "TagValidationFailed";
    /// ValidationSucceeded of a class: the controller may not create fleets.
    pub const CREATE_FLEET_AUTH_CHECK_FAILED: &str = "CreateFleetAuthCheckFailed";
    /// ValidationSucceeded of a class: the controller may not create launch templates.
    pub const CREATE_LAUNCH_TEMPLATE_AUTH_CHECK_FAILED: &str =
        "CreateLaunchTemplateAuthCheckFailed";
    /// ValidationSucceeded of a class: the controller may not run instances.
    pub const RUN_INSTANCES_AUTH_CHECK_FAILED: &str = "RunInstancesAuthCheckFailed";
    /// ValidationSucceeded of a class: the profile does not exist.
    pub const INSTANCE_PROFILE_NOT_FOUND: &str = "InstanceProfileNotFound";
    /// ValidationSucceeded of a class: the user data is too long.
    pub const USER_DATA_SIZE_LIMIT_EXCEEDED: &str = "UserDataSizeLimitExceeded";
    /// ValidationSucceeded of a class: the service address range is not known.
    pub const CLUSTER_CIDR_RESOLUTION_FAILED: &str = "ClusterCIDRResolutionFailed";
    /// ValidationSucceeded of a class that is True without dry runs.
    pub const DRY_RUN_DISABLED: &str = "DryRunDisabled";
    /// ValidationSucceeded of a class: the kubelet settings are wrong.
    pub const INVALID_KUBELET_CONFIGURATION: &str = "InvalidKubeletConfiguration";
    /// ValidationSucceeded of a class: the image family does not take these kubelet settings.
    pub const UNSUPPORTED_KUBELET_CONFIGURATION: &str = "UnsupportedKubeletConfiguration";
}
