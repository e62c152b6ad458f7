//! The workloads: upstream's `scheduler_perf` cases by their names and sizes, with what upstream was
//! measured to do and what Wharf is to do.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::extras::{self, Placed};
use super::objects::{self as make, BEFORE, MEASURED};

/// How large a workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// Nodes.
    pub(super) nodes: usize,
    /// Pods that are there before.
    pub(super) before: usize,
    /// Pods that are measured.
    pub(super) pods: usize,
}

/// A workload.
pub(super) struct Workload {
    /// Upstream's name.
    pub(super) name: &'static str,
    /// Upstream's size, unless the goal is for another.
    pub(super) size: Size,
    /// What upstream reaches, in pods a second.
    pub(super) upstream: Upstream,
    /// What Wharf is to reach, in pods a second.
    pub(super) goal: Option<u32>,
    /// The node with this index.
    pub(super) node: fn(usize, &Size) -> Value,
    /// The pod there before with this index.
    pub(super) before: fn(usize, &Size) -> Value,
    /// The measured pod with this index.
    pub(super) pod: fn(usize, &Size) -> Value,
    /// What there is for the node with this index.
    pub(super) with_node: fn(usize, &Size) -> Vec<Placed>,
    /// What there is for a pod before it is created.
    pub(super) with_pod: fn(&Value) -> Vec<Placed>,
    /// What else there is, and what goes on meanwhile.
    pub(super) special: Special,
}

/// What is known of upstream's speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upstream {
    /// Measured on a machine of the kind that the goals are for.
    Measured(u32),
    /// The floor that upstream sets itself in its own continuous runs.
    Floor(u32),
    /// Not known.
    Unknown,
}

/// What makes a workload special besides its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// Nothing.
    Nothing,
    /// A service selects the measured pods.
    Service,
    /// Its pods' namespaces are selected by their labels.
    Teams,
    /// Each tenth of the measured pods fits nowhere.
    Impossible,
    /// A node, a service and a pod that fits nowhere come and go.
    Churn,
    /// Pods claim devices by a template.
    Devices,
}

impl Workload {
    /// What must be there before the nodes: paths and objects.
    pub(super) fn set_up(&self) -> Vec<(String, Value)> {
        let mut objects = vec![make::priority_class("high", 10)];
        if self.special == Special::Teams {
            objects.extend(make::team_namespaces());
        } else {
            objects.extend([BEFORE, MEASURED].map(|name| make::namespace(name, json!({}))));
        }
        if self.special == Special::Devices {
            objects.extend(extras::claim_templates());
        }
        if self.special == Special::Service {
            objects.push(make::service("measured"));
        }
        objects
    }

    /// The controllers that have to run.
    pub(super) fn controllers(&self) -> BTreeSet<String> {
        // Somebody has to make claims from templates.
        let claims = (self.special == Special::Devices).then_some("resourceclaim-controller");
        claims.into_iter().chain(["scheduler"]).map(str::to_owned).collect()
    }

    /// How many of the measured pods find a node.
    pub(super) fn expected(&self, size: &Size) -> usize {
        match self.special {
            Special::Impossible => size.pods - size.pods / 10,
            _ => size.pods,
        }
    }

    /// This workload with other numbers of nodes or pods; what is there before keeps its share.
    pub(super) fn scaled(&self, nodes: Option<usize>, pods: Option<usize>) -> Size {
        let size = self.size;
        let nodes = nodes.unwrap_or(size.nodes);
        Size { nodes, before: size.before * nodes / size.nodes, pods: pods.unwrap_or(size.pods) }
    }
}

const fn size(nodes: usize, before: usize, pods: usize) -> Size {
    Size { nodes, before, pods }
}

/// A workload without goal or specialities, of plain nodes, after plain pods.
const fn workload(
    name: &'static str,
    size: Size,
    upstream: Upstream,
    pod: fn(usize, &Size) -> Value,
) -> Workload {
    Workload {
        name,
        size,
        upstream,
        goal: None,
        node: make::plain_node,
        before: make::plain_before,
        pod,
        with_node: extras::none,
        with_pod: extras::none_for_pods,
        special: Special::Nothing,
    }
}

/// All workloads, those with goals first.
pub(super) const WORKLOADS: &[Workload] = &[
    Workload {
        goal: Some(6_700),
        ..workload(
            "SchedulingBasic",
            size(5_000, 1_000, 10_000),
            Upstream::Measured(336),
            make::plain,
        )
    },
    Workload {
        goal: Some(5_000),
        before: make::away_before,
        ..workload(
            "SchedulingPodAntiAffinity",
            size(5_000, 1_000, 2_000),
            Upstream::Measured(112),
            make::away,
        )
    },
    Workload {
        goal: Some(5_000),
        node: make::node_in_one_zone,
        before: make::near_before,
        ..workload(
            "SchedulingPodAffinity",
            size(5_000, 5_000, 5_000),
            Upstream::Floor(35),
            make::near,
        )
    },
    Workload {
        goal: Some(5_000),
        node: make::node_in_three_zones,
        ..workload(
            "TopologySpreading",
            size(5_000, 5_000, 5_000),
            Upstream::Measured(119),
            make::spread_over_zones,
        )
    },
    Workload {
        goal: Some(5_000),
        node: make::node_in_three_zones,
        ..workload(
            "PreferredTopologySpreading",
            size(5_000, 5_000, 5_000),
            Upstream::Measured(142),
            make::rather_spread_over_zones,
        )
    },
    Workload {
        goal: Some(6_000),
        node: make::node_in_one_zone,
        ..workload(
            "SchedulingNodeAffinity",
            size(5_000, 5_000, 10_000),
            Upstream::Floor(220),
            make::with_node_affinity,
        )
    },
    Workload {
        goal: Some(5_000),
        special: Special::Impossible,
        ..workload(
            "Unschedulable",
            size(5_000, 100, 10_000),
            Upstream::Floor(170),
            make::impossible_or_not,
        )
    },
    Workload {
        goal: Some(3_000),
        before: make::low_priority,
        ..workload(
            "PreemptionBasic",
            size(5_000, 20_000, 5_000),
            Upstream::Unknown,
            make::high_priority,
        )
    },
    Workload {
        goal: Some(6_000),
        node: make::node_or_the_large_one,
        ..workload(
            "SchedulingDaemonset",
            size(15_001, 0, 30_000),
            Upstream::Floor(390),
            make::on_the_large_node,
        )
    },
    Workload {
        goal: Some(5_000),
        special: Special::Churn,
        ..workload(
            "SchedulingWithMixedChurn",
            size(5_000, 0, 10_000),
            Upstream::Floor(265),
            make::plain,
        )
    },
    Workload {
        before: make::rather_near_before,
        ..workload(
            "SchedulingPreferredPodAffinity",
            size(5_000, 5_000, 5_000),
            Upstream::Floor(90),
            make::rather_near,
        )
    },
    Workload {
        before: make::rather_away_before,
        ..workload(
            "SchedulingPreferredPodAntiAffinity",
            size(5_000, 5_000, 5_000),
            Upstream::Floor(90),
            make::rather_away,
        )
    },
    Workload {
        before: make::away_before,
        ..workload(
            "SchedulingPodMatchingAntiAffinity",
            size(5_000, 1_000, 5_000),
            Upstream::Floor(540),
            make::excluded_by_others,
        )
    },
    Workload {
        node: make::node_in_one_zone,
        before: make::every_wish_before,
        ..workload(
            "MixedSchedulingBasePod",
            size(5_000, 10_000, 5_000),
            Upstream::Floor(140),
            make::plain,
        )
    },
    Workload {
        node: make::node_in_three_zones,
        special: Special::Service,
        ..workload(
            "DefaultTopologySpreading",
            size(5_000, 5_000, 10_000),
            Upstream::Unknown,
            make::selected,
        )
    },
    Workload {
        node: make::node_tainted_or_not,
        ..workload(
            "SchedulingWithNodeInclusionPolicy",
            size(5_000, 0, 4_000),
            Upstream::Floor(68),
            make::spread_over_tolerated_nodes,
        )
    },
    Workload {
        before: make::team_away_before,
        special: Special::Teams,
        ..workload(
            "SchedulingRequiredPodAntiAffinityWithNSSelector",
            size(6_000, 4_000, 2_000),
            Upstream::Floor(24),
            make::team_away,
        )
    },
    Workload {
        before: make::team_rather_away_before,
        special: Special::Teams,
        ..workload(
            "SchedulingPreferredAntiAffinityWithNSSelector",
            size(5_000, 4_000, 2_000),
            Upstream::Floor(55),
            make::team_rather_away,
        )
    },
    Workload {
        node: make::node_in_one_zone,
        before: make::team_near_before,
        special: Special::Teams,
        ..workload(
            "SchedulingRequiredPodAffinityWithNSSelector",
            size(5_000, 5_000, 2_000),
            Upstream::Floor(35),
            make::team_near,
        )
    },
    Workload {
        before: make::team_rather_near_before,
        special: Special::Teams,
        ..workload(
            "SchedulingPreferredAffinityWithNSSelector",
            size(5_000, 5_000, 5_000),
            Upstream::Floor(90),
            make::team_rather_near,
        )
    },
    workload(
        "SchedulingSecrets",
        size(5_000, 1_000, 10_000),
        Upstream::Floor(260),
        make::with_secrets,
    ),
    Workload {
        node: make::node_with_extended_resource,
        ..workload(
            "SchedulingWithExtendedResource",
            size(5_000, 0, 5_000),
            Upstream::Unknown,
            make::with_extended_resource,
        )
    },
    Workload {
        before: extras::volume_before,
        with_pod: extras::old_volume,
        ..workload(
            "SchedulingInTreePVs",
            size(5_000, 1_000, 2_000),
            Upstream::Floor(90),
            extras::with_a_volume,
        )
    },
    Workload {
        before: extras::volume_before,
        with_node: extras::migrated_volume_limit,
        with_pod: extras::old_volume,
        ..workload(
            "SchedulingMigratedInTreePVs",
            size(5_000, 5_000, 5_000),
            Upstream::Floor(35),
            extras::with_a_volume,
        )
    },
    Workload {
        before: extras::volume_before,
        with_node: extras::volume_limit,
        with_pod: extras::driver_volume,
        ..workload(
            "SchedulingCSIPVs",
            size(5_000, 5_000, 5_000),
            Upstream::Floor(48),
            extras::with_a_volume,
        )
    },
    Workload {
        before: make::low_priority,
        with_pod: extras::old_volume_of_measured,
        ..workload(
            "PreemptionPVs",
            size(1_000, 4_000, 1_000),
            Upstream::Unknown,
            extras::high_priority_with_a_volume,
        )
    },
    Workload {
        before: extras::device_before,
        with_node: extras::devices,
        special: Special::Devices,
        ..workload(
            "SchedulingWithResourceClaimTemplate",
            size(500, 2_500, 2_500),
            Upstream::Floor(56),
            extras::with_a_device,
        )
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;

    #[test]
    fn objects_are_what_the_api_takes() {
        let names: BTreeSet<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        assert_eq!(names.len(), WORKLOADS.len(), "every name once");
        for workload in WORKLOADS {
            let size = workload.scaled(Some(20), Some(10));
            for index in 0..20 {
                let node: Node = serde_json::from_value((workload.node)(index, &size))
                    .unwrap_or_else(|error| panic!("{}: {error}", workload.name));
                assert!(node.metadata.name.is_some(), "{}", workload.name);
                for pod in [(workload.before)(index, &size), (workload.pod)(index, &size)] {
                    let pod: Pod = serde_json::from_value(pod)
                        .unwrap_or_else(|error| panic!("{}: {error}", workload.name));
                    assert!(pod.metadata.namespace.is_some(), "{}", workload.name);
                }
            }
        }
    }

    #[test]
    fn sizes_scale_with_the_nodes() {
        let find = |name: &str| {
            WORKLOADS.iter().find(|workload| workload.name == name).expect("it is there")
        };
        let preemption = find("PreemptionBasic").scaled(Some(1_000), Some(1_000));
        assert_eq!(preemption, size(1_000, 4_000, 1_000));
        let impossible = find("Unschedulable");
        assert_eq!(impossible.expected(&impossible.size), 9_000);
    }
}
