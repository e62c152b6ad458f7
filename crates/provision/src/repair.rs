//! Node repair: which nodes are broken for so long that they are replaced, and when so many are that
//! something else must be wrong and none is.
//!
//! Karpenter's policies for EKS (<https://karpenter.sh/docs/concepts/disruption/#node-repair>), and the
//! limit of managed node groups (<https://docs.aws.amazon.com/eks/latest/userguide/node-repair.html>).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use wharf_model::time::Time;

/// For how long a condition may say that a node is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The condition's type.
    pub condition: &'static str,
    /// The status that says so.
    pub status: &'static str,
    /// For how long.
    pub toleration: Duration,
}

const LONG: Duration = Duration::from_mins(30);
const SHORT: Duration = Duration::from_mins(10);

/// The policies.
pub const POLICIES: [Policy; 7] = [
    Policy { condition: "Ready", status: "False", toleration: LONG },
    Policy { condition: "Ready", status: "Unknown", toleration: LONG },
    Policy { condition: "AcceleratedHardwareReady", status: "False", toleration: SHORT },
    Policy { condition: "StorageReady", status: "False", toleration: LONG },
    Policy { condition: "NetworkingReady", status: "False", toleration: LONG },
    Policy { condition: "KernelReady", status: "False", toleration: LONG },
    Policy { condition: "ContainerRuntimeReady", status: "False", toleration: LONG },
];

/// Of a pool this part may be broken, rounded up to whole nodes.
const POOL_PERCENT: usize = 20;
/// A group of so many nodes or fewer is always repaired.
const GROUP_SMALL: usize = 5;
/// Of a larger group this part may be broken.
const GROUP_PERCENT: usize = 20;

/// What is broken about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which condition, `KernelReady`.
    pub condition: &'static str,
    /// What it says, `False`.
    pub status: &'static str,
    /// Its reason.
    pub reason: String,
    /// Since when.
    pub since: Time,
    /// When that has been tolerated for long enough.
    pub due: Time,
}

/// What is broken about a node: of several things the one that is due first.
pub fn broken(node: &Node) -> Option<Broken> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    let of_policy = |policy: &Policy| {
        let says = |condition: &&NodeCondition| {
            condition.type_ == policy.condition && condition.status == policy.status
        };
        let found = conditions.iter().find(says)?;
        let since = found.last_transition_time.as_ref().map(Time::from).unwrap_or_default();
        Some(Broken {
            condition: policy.condition,
            status: policy.status,
            reason: found.reason.clone().unwrap_or_default(),
            since,
            due: since + policy.toleration,
        })
    };
    POLICIES.iter().filter_map(of_policy).min_by_key(|broken| (broken.due, broken.condition))
}

/// Whether so many nodes of a pool are broken that none is replaced.
pub fn holds_back_pool(broken: usize, nodes: usize) -> bool {
    broken > (nodes * POOL_PERCENT).div_ceil(100)
}

/// Whether so many nodes of a managed group are broken that none is replaced.
pub fn holds_back_group(broken: usize, nodes: usize) -> bool {
    nodes > GROUP_SMALL && broken * 100 > nodes * GROUP_PERCENT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn node(conditions: &[(&str, &str, i64)]) -> Node {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(type_, status, minute)| {
                let at = Time::from_seconds(minute * 60).to_meta();
                json!({"type": type_, "status": status, "reason": "R", "lastTransitionTime": at})
            })
            .collect();
        serde_json::from_value(json!({"status": {"conditions": conditions}})).expect("a node")
    }

    #[test]
    fn policies_are_karpenters() {
        for (conditions, expected) in [
            (&[("Ready", "True", 0)][..], None),
            (&[("Ready", "False", 5)], Some(("Ready", 35))),
            (&[("Ready", "Unknown", 5)], Some(("Ready", 35))),
            (&[("KernelReady", "False", 1)], Some(("KernelReady", 31))),
            (&[("KernelReady", "Unknown", 1)], None),
            (&[("AcceleratedHardwareReady", "False", 1)], Some(("AcceleratedHardwareReady", 11))),
            (&[("DiskPressure", "True", 1), ("MemoryPressure", "True", 1)], None),
            (
                &[("KernelReady", "False", 1), ("AcceleratedHardwareReady", "False", 15)],
                Some(("AcceleratedHardwareReady", 25)),
            ),
            (
                &[("StorageReady", "False", 9), ("NetworkingReady", "False", 8)],
                Some(("NetworkingReady", 38)),
            ),
        ] {
            let found = broken(&node(conditions));
            let told = found.map(|broken| (broken.condition, broken.due));
            let expected =
                expected.map(|(condition, minute)| (condition, Time::from_seconds(minute * 60)));
            assert_eq!(told, expected, "{conditions:?}");
        }
        assert_eq!(broken(&Node::default()), None);
    }

    #[test]
    fn too_many_broken_nodes_hold_repair_back() {
        for (broken, nodes, pool, group) in [
            (1, 1, false, false),
            (1, 5, false, false),
            (2, 5, true, false),
            (5, 5, true, false),
            (1, 6, false, false),
            (2, 6, false, true),
            (2, 10, false, false),
            (3, 10, true, true),
            (3, 11, false, true),
        ] {
            assert_eq!(holds_back_pool(broken, nodes), pool, "pool {broken} of {nodes}");
            assert_eq!(holds_back_group(broken, nodes), group, "group {broken} of {nodes}");
        }
    }

    proptest! {
        /// One broken node is always replaced, and what holds few back holds more back.
        #[test]
        fn limits_are_monotonic(nodes in 1_usize..200, broken in 1_usize..200) {
            prop_assert!(!holds_back_pool(1, nodes) && !holds_back_group(1, nodes.max(1)));
            let broken = broken.min(nodes);
            if holds_back_pool(broken, nodes) {
                prop_assert!(holds_back_pool(broken + 1, nodes));
            }
            if holds_back_group(broken, nodes) {
                prop_assert!(holds_back_group(broken + 1, nodes));
            }
        }
    }
}
