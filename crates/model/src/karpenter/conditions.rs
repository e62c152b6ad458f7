//! Conditions of the three kinds: their words, and how a change of one moves the root condition
//! Ready.
//!
//! The rules are those of upstream's condition sets: all dependents start Unknown with the reason
//! AwaitingReconciliation; the transition time moves only with the status; Ready is True when every
//! dependent is True for the present generation, False as soon as one is False for it, else Unknown.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};

use super::{EC2NodeClass, NodeClaim, NodePool};

/// The root condition of every kind.
pub const READY: &str = "Ready";
/// Status of a condition that holds.
pub const TRUE: &str = "True";
/// Status of a condition that does not hold.
pub const FALSE: &str = "False";
/// Status of a condition of which nothing is known yet.
pub const UNKNOWN: &str = "Unknown";

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

/// The condition of a type, if it is set.
pub fn get<'a>(conditions: &'a [Condition], condition_type: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == condition_type)
}

/// Whether a condition is set and True.
pub fn is_true(conditions: &[Condition], condition_type: &str) -> bool {
    get(conditions, condition_type).is_some_and(|condition| condition.status == TRUE)
}

/// A change of a condition's status, from which the event that reports it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The condition's type; also the event's reason.
    pub condition_type: String,
    /// The status before.
    pub from: String,
    /// The status now.
    pub to: String,
    /// The condition's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

impl Transition {
    /// The text of the Normal event that upstream records for the change.
    pub fn event_message(&self) -> String {
        let Self { condition_type, from, to, reason, message } = self;
        let separator = if message.is_empty() { "" } else { ", Message: " };
        format!(
            "Status condition transitioned, Type: {condition_type}, Status: {from} -> {to}, \
             Reason: {reason}{separator}{message}"
        )
    }
}

/// The changes of status between two versions of an object's conditions. A condition that is new or
/// gone is no transition: upstream reports only those it has seen before.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Transition> {
    after
        .iter()
        .filter_map(|condition| {
            let old = get(before, &condition.type_)?;
            (old.status != condition.status).then(|| Transition {
                condition_type: condition.type_.clone(),
                from: old.status.clone(),
                to: condition.status.clone(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            })
        })
        .collect()
}

/// An object with a root condition and dependents.
pub trait Conditioned: k8s_openapi::Metadata<Ty = ObjectMeta> {
    /// The types Ready depends on.
    const DEPENDENTS: &'static [&'static str];

    /// Its conditions.
    fn conditions(&self) -> &[Condition];

    /// Its conditions, to replace.
    fn conditions_vec_mut(&mut self) -> &mut Vec<Condition>;

    /// Its conditions, to change at a time. Dependents that are missing become Unknown.
    fn conditions_mut(&mut self, now: Timestamp) -> ConditionSet<'_>
    where
        Self: Sized,
    {
        let metadata = self.metadata();
        let context = Context {
            generation: metadata.generation.unwrap_or(0),
            now: to_second(now),
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(to_second(now), |created| created.0),
            deleting: metadata.deletion_timestamp.is_some(),
            dependents: Self::DEPENDENTS,
        };
        let mut set = ConditionSet { conditions: self.conditions_vec_mut(), context };
        for condition_type in std::iter::once(&READY).chain(Self::DEPENDENTS) {
            if set.get(condition_type).is_none() {
                set.set_unknown(
                    condition_type,
                    reason::AWAITING_RECONCILIATION,
                    reason::AWAITING_RECONCILIATION_MESSAGE,
                );
            }
        }
        set
    }

    /// Whether a condition is set and True.
    fn is_true(&self, condition_type: &str) -> bool {
        is_true(self.conditions(), condition_type)
    }

    /// Whether the root condition is True for the present generation.
    fn is_ready(&self) -> bool {
        self.is_true(READY)
    }
}

macro_rules! conditioned {
    ($type:ty, $dependents:expr) => {
        impl Conditioned for $type {
            const DEPENDENTS: &'static [&'static str] = $dependents;

            fn conditions(&self) -> &[Condition] {
                &self.status.conditions
            }

            fn conditions_vec_mut(&mut self) -> &mut Vec<Condition> {
                &mut self.status.conditions
            }
        }
    };
}

conditioned!(NodePool, node_pool::DEPENDENTS);
conditioned!(NodeClaim, node_claim::DEPENDENTS);
conditioned!(EC2NodeClass, ec2_node_class::DEPENDENTS);

/// The conditions of one object while they are changed.
pub struct ConditionSet<'a> {
    conditions: &'a mut Vec<Condition>,
    context: Context,
}

#[derive(Clone, Copy)]
struct Context {
    generation: i64,
    now: Timestamp,
    created: Timestamp,
    deleting: bool,
    dependents: &'static [&'static str],
}

impl ConditionSet<'_> {
    /// The condition of a type, if it is set.
    pub fn get(&self, condition_type: &str) -> Option<&Condition> {
        get(self.conditions, condition_type)
    }

    /// Whether a condition is set and True.
    pub fn is_true(&self, condition_type: &str) -> bool {
        is_true(self.conditions, condition_type)
    }

    /// Makes a condition True with its type as the reason. Says whether anything changed, as all
    /// setters do.
    pub fn set_true(&mut self, condition_type: &str) -> bool {
        self.set(condition_type, TRUE, condition_type, "")
    }

    /// Makes a condition True with a reason of its own (Drifted, DisruptionReason).
    pub fn set_true_with_reason(
        &mut self,
        condition_type: &str,
        reason: &str,
        message: &str,
    ) -> bool {
        self.set(condition_type, TRUE, reason, message)
    }

    /// Makes a condition False.
    pub fn set_false(&mut self, condition_type: &str, reason: &str, message: &str) -> bool {
        self.set(condition_type, FALSE, reason, message)
    }

    /// Makes a condition Unknown.
    pub fn set_unknown(&mut self, condition_type: &str, reason: &str, message: &str) -> bool {
        self.set(condition_type, UNKNOWN, reason, message)
    }

    /// Removes a condition that Ready does not depend on. Says whether it was there.
    pub fn remove(&mut self, condition_type: &str) -> bool {
        if self.is_dependent(condition_type) || self.get(condition_type).is_none() {
            return false;
        }
        self.conditions.retain(|condition| condition.type_ != condition_type);
        // Upstream sorts by name here and by time on a set; kept, since users see the order.
        self.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        true
    }

    fn set(&mut self, condition_type: &str, status: &str, reason: &str, message: &str) -> bool {
        let Context { generation, now, created, deleting, .. } = self.context;
        let mut condition = Condition {
            type_: condition_type.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: (generation != 0).then_some(generation),
            // A dependent that appears now has been Unknown since the object was created.
            last_transition_time: Time(if self.is_dependent(condition_type) {
                created
            } else {
                now
            }),
        };
        if let Some(old) = self.get(condition_type) {
            condition.last_transition_time =
                if old.status == status { old.last_transition_time.clone() } else { Time(now) };
            if *old == condition {
                return false;
            }
        }
        self.conditions.retain(|other| other.type_ != condition_type);
        if deleting {
            // Nobody reconciles the others of an object that goes away; they must not make Ready
            // Unknown just because the deletion raised the generation.
            for other in self.conditions.iter_mut() {
                other.observed_generation = condition.observed_generation;
            }
        }
        self.conditions.push(condition);
        self.conditions.sort_by(|a, b| {
            (a.type_ == READY, &a.last_transition_time)
                .cmp(&(b.type_ == READY, &b.last_transition_time))
        });
        self.recompute_root(condition_type);
        true
    }

    fn recompute_root(&mut self, changed: &str) {
        if changed == READY {
            return;
        }
        let current = (self.context.generation != 0).then_some(self.context.generation);
        let mut unhealthy: Vec<&Condition> = self
            .conditions
            .iter()
            .filter(|condition| self.context.dependents.contains(&condition.type_.as_str()))
            .filter(|condition| {
                condition.status != TRUE || condition.observed_generation != current
            })
            .collect();
        if unhealthy.is_empty() {
            self.set_true(READY);
            return;
        }
        unhealthy.sort_by(|a, b| b.last_transition_time.cmp(&a.last_transition_time));
        let failed = unhealthy
            .iter()
            .any(|condition| condition.status == FALSE && condition.observed_generation == current);
        let message = unhealthy
            .iter()
            .map(|condition| format!("{}={}", condition.type_, condition.status))
            .collect::<Vec<_>>()
            .join(", ");
        if failed {
            self.set_false(READY, reason::UNHEALTHY_DEPENDENTS, &message);
        } else {
            self.set_unknown(READY, reason::RECONCILING_DEPENDENTS, &message);
        }
    }

    fn is_dependent(&self, condition_type: &str) -> bool {
        condition_type == READY || self.context.dependents.contains(&condition_type)
    }
}

/// Kubernetes times have whole seconds on the wire; a finer value in memory would compare unequal
/// to itself after a round trip.
fn to_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("the whole second of a timestamp is in range")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(seconds, 500_000_000).unwrap()
    }

    fn claim() -> NodeClaim {
        let mut claim = NodeClaim::default();
        claim.metadata.generation = Some(1);
        claim.metadata.creation_timestamp = Some(Time(Timestamp::from_second(100).unwrap()));
        claim
    }

    fn show(claim: &NodeClaim) -> Vec<String> {
        claim
            .status
            .conditions
            .iter()
            .map(|c| {
                format!(
                    "{}={} {} {:?} @{} g{:?}",
                    c.type_,
                    c.status,
                    c.reason,
                    c.message,
                    c.last_transition_time.0.as_second(),
                    c.observed_generation.unwrap_or(0)
                )
            })
            .collect()
    }

    #[test]
    fn a_new_claim_awaits_reconciliation_since_its_creation() {
        let mut claim = claim();
        claim.conditions_mut(at(130));
        let awaiting = "AwaitingReconciliation \"object is awaiting reconciliation\" @100 g1";
        assert_eq!(
            show(&claim),
            [
                format!("Launched=Unknown {awaiting}"),
                format!("Registered=Unknown {awaiting}"),
                format!("Initialized=Unknown {awaiting}"),
                "Ready=Unknown ReconcilingDependents \"Launched=Unknown, Registered=Unknown, \
                 Initialized=Unknown\" @100 g1"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn ready_follows_its_dependents_and_reports_transitions() {
        let mut claim = claim();
        let mut events = Vec::new();
        for (time, condition_type) in [(110, "Launched"), (120, "Registered"), (130, "Initialized")]
        {
            claim.conditions_mut(at(time));
            let before = claim.status.conditions.clone();
            claim.conditions_mut(at(time)).set_true(condition_type);
            events.extend(
                transitions(&before, &claim.status.conditions)
                    .iter()
                    .map(Transition::event_message),
            );
        }
        assert!(claim.is_ready());
        assert_eq!(
            show(&claim),
            [
                "Launched=True Launched \"\" @110 g1",
                "Registered=True Registered \"\" @120 g1",
                "Initialized=True Initialized \"\" @130 g1",
                "Ready=True Ready \"\" @130 g1",
            ]
        );
        assert_eq!(
            events,
            [
                "Status condition transitioned, Type: Launched, Status: Unknown -> True, \
                 Reason: Launched",
                "Status condition transitioned, Type: Registered, Status: Unknown -> True, \
                 Reason: Registered",
                "Status condition transitioned, Type: Initialized, Status: Unknown -> True, \
                 Reason: Initialized",
                "Status condition transitioned, Type: Ready, Status: Unknown -> True, \
                 Reason: Ready",
            ]
        );
    }

    #[test]
    fn a_false_dependent_makes_ready_false_and_keeps_the_time_while_the_status_stays() {
        let mut pool = NodePool::default();
        pool.metadata.generation = Some(1);
        let mut set = pool.conditions_mut(at(10));
        set.set_true(node_pool::VALIDATION_SUCCEEDED);
        set.set_false(node_pool::NODE_CLASS_READY, "NodeClassNotFound", "first");
        let mut set = pool.conditions_mut(at(20));
        assert!(set.set_false(node_pool::NODE_CLASS_READY, "NodeClassTerminating", "second"));
        assert!(!set.set_false(node_pool::NODE_CLASS_READY, "NodeClassTerminating", "second"));
        let ready = set.get(READY).unwrap();
        assert_eq!(
            (&*ready.status, &*ready.reason, &*ready.message),
            (FALSE, "UnhealthyDependents", "NodeClassReady=False")
        );
        assert_eq!(set.get("NodeClassReady").unwrap().last_transition_time.0.as_second(), 10);
    }

    #[test]
    fn a_new_generation_makes_ready_unknown_until_all_were_seen_again() {
        let mut pool = NodePool::default();
        pool.metadata.generation = Some(1);
        let mut set = pool.conditions_mut(at(10));
        set.set_true(node_pool::VALIDATION_SUCCEEDED);
        set.set_true(node_pool::NODE_CLASS_READY);
        assert!(pool.is_ready());
        pool.metadata.generation = Some(2);
        pool.conditions_mut(at(20)).set_true(node_pool::VALIDATION_SUCCEEDED);
        let ready = get(pool.conditions(), READY).unwrap();
        assert_eq!(
            (&*ready.status, &*ready.message),
            (UNKNOWN, "NodeClassReady=True"),
            "the class was not looked at since the change"
        );
        pool.conditions_mut(at(30)).set_true(node_pool::NODE_CLASS_READY);
        assert!(pool.is_ready());
    }

    #[test]
    fn only_independent_conditions_can_be_removed() {
        let mut claim = claim();
        let mut set = claim.conditions_mut(at(1));
        set.set_true_with_reason(node_claim::DRIFTED, "NodePoolDrifted", "NodePoolDrifted");
        assert!(set.remove(node_claim::DRIFTED));
        assert!(!set.remove(node_claim::DRIFTED));
        assert!(!set.remove(node_claim::LAUNCHED));
        assert!(set.get(node_claim::LAUNCHED).is_some());
    }
}
