//! Which news is worth another try for a pod that was turned down: upstream's queueing hints. A
//! hint may wake in vain but must never leave a pod asleep that would fit now.

use crate::devices::DeviceNews;
use crate::node::{NodeFacts, NodeInfo};
use crate::plugins::{
    dynamic_resources, inter_pod_affinity, node_affinity, node_declared_features, node_ports,
    node_resources_fit, node_unschedulable, node_volume_limits, pod_topology_spread,
    taint_toleration, volume_binding, volume_restrictions, volume_zone,
};
use crate::pod::PodInfo;
use crate::profile::{Plugin, PluginSet};
use crate::snapshot::Snapshot;
use crate::storage::StorageNews;

/// Something that happened to the cluster.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// A node appeared, or changed in a way scheduling can see.
    Node {
        /// What it was; `None` if it is new.
        old: Option<&'a NodeFacts>,
        /// What it is.
        new: &'a NodeInfo,
    },
    /// A node went. The pods that were on it are still counted there.
    NodeGone(&'a NodeInfo),
    /// A pod has a place on a node.
    PodPlaced(&'a PodInfo),
    /// A pod no longer holds its place on a node: deleted, finished, or its binding refused.
    PodGone(&'a PodInfo),
    /// A pod on a node asks for other amounts than before.
    PodResized {
        /// As it was.
        old: &'a PodInfo,
        /// As it is.
        new: &'a PodInfo,
    },
    /// A storage object came or changed.
    Storage(StorageNews),
    /// A claim on devices, a class or a slice of them came or changed.
    Devices(&'a DeviceNews),
    /// A pod on a node has other labels than before, or is being deleted now.
    PodChanged {
        /// As it was.
        old: &'a PodInfo,
        /// As it is.
        new: &'a PodInfo,
    },
    /// The labels of a namespace changed, or it came or went.
    Namespace,
    /// A Service or a controller of pods came or went, or its selector changed.
    Workloads,
}

/// The plugins whose mind the news could change at all, whatever the pod. The commonest news, that
/// a pod has been placed, is of no interest to most.
pub fn concerns(news: &News<'_>) -> PluginSet {
    match news {
        News::PodPlaced(_) => {
            [Plugin::PodTopologySpread, Plugin::InterPodAffinity].into_iter().collect()
        }
        _ => Plugin::FILTERS.into_iter().collect(),
    }
}

/// Whether the news could change the mind of a plugin that turned the pod down.
pub fn wakes(rejected_by: PluginSet, pod: &PodInfo, news: &News<'_>, snapshot: &Snapshot) -> bool {
    rejected_by
        .intersection(concerns(news))
        .iter()
        .any(|plugin| wakes_one(plugin, pod, news, snapshot))
}

/// Whether a change of the waiting pod itself could change the mind of a plugin that turned it
/// down.
pub fn wakes_itself(
    rejected_by: PluginSet,
    old: &PodInfo,
    new: &PodInfo,
    snapshot: &Snapshot,
) -> bool {
    Plugin::FILTERS.iter().filter(|plugin| rejected_by.contains(**plugin)).any(
        |plugin| match plugin {
            Plugin::NodeUnschedulable => node_unschedulable::wakes_on_self(old, new, snapshot),
            Plugin::TaintToleration => taint_toleration::wakes_on_self(old, new),
            Plugin::NodeResourcesFit => node_resources_fit::wakes_on_shrink(new, old, new),
            Plugin::PodTopologySpread => pod_topology_spread::wakes_on_self(old, new),
            Plugin::InterPodAffinity => inter_pod_affinity::wakes_on_self(old, new),
            Plugin::DynamicResources => dynamic_resources::wakes_on_self(old, new),
            Plugin::NodeDeclaredFeatures => node_declared_features::wakes_on_self(old, new),
            // The API lets nothing else of these change but to narrow a gated pod's node selection.
            _ => false,
        },
    )
}

fn wakes_one(plugin: Plugin, pod: &PodInfo, news: &News<'_>, snapshot: &Snapshot) -> bool {
    match news {
        News::Node { old, new } => {
            // Plugins that register for new nodes but not for taints are woken by every change of
            // taints too: a node may have been hidden from them by its taints when it was new.
            let unveiled = old.is_some_and(|old| {
                old.taints != new.facts.taints || (old.unschedulable && !new.facts.unschedulable)
            });
            match plugin {
                Plugin::NodeUnschedulable => node_unschedulable::wakes_on_node(*old, &new.facts),
                Plugin::TaintToleration => taint_toleration::wakes_on_node(pod, *old, &new.facts),
                Plugin::NodeName => unveiled || old.is_none(),
                Plugin::NodePorts => unveiled || old.is_none(),
                Plugin::NodeAffinity => {
                    let old = old.map(|old| NodeInfo::empty(old.clone()));
                    unveiled
                        || node_affinity::wakes_on_node(pod, old.as_ref(), new, snapshot.symbols())
                }
                Plugin::NodeResourcesFit => {
                    unveiled || node_resources_fit::wakes_on_node(pod, *old, &new.facts, snapshot)
                }
                // Upstream's hint for limits leaves new nodes out, since a node's drivers tell of
                // themselves later; until they do, the node has no limit.
                Plugin::VolumeRestrictions | Plugin::NodeVolumeLimits => unveiled || old.is_none(),
                Plugin::VolumeBinding => {
                    unveiled || volume_binding::wakes_on_node(*old, &new.facts)
                }
                Plugin::VolumeZone => unveiled || volume_zone::wakes_on_node(*old, &new.facts),
                // Of these, the first registers for taints itself.
                Plugin::PodTopologySpread => {
                    pod_topology_spread::wakes_on_node(pod, *old, new, snapshot)
                }
                Plugin::InterPodAffinity => {
                    unveiled || inter_pod_affinity::wakes_on_node(pod, *old, new, snapshot)
                }
                Plugin::DynamicResources => {
                    unveiled || dynamic_resources::wakes_on_node(*old, &new.facts)
                }
                Plugin::NodeDeclaredFeatures => {
                    unveiled || node_declared_features::wakes_on_node(*old, &new.facts)
                }
                _ => false,
            }
        }
        News::NodeGone(gone) => match plugin {
            Plugin::PodTopologySpread => {
                pod_topology_spread::wakes_on_node_gone(pod, &gone.facts, snapshot)
            }
            Plugin::InterPodAffinity => inter_pod_affinity::wakes_on_node_gone(gone),
            _ => false,
        },
        News::PodPlaced(placed) => match plugin {
            Plugin::PodTopologySpread => pod_topology_spread::wakes_on_pod(pod, placed, snapshot),
            Plugin::InterPodAffinity => {
                inter_pod_affinity::wakes_on_pod_added(pod, placed, snapshot)
            }
            _ => false,
        },
        News::PodGone(gone) => match plugin {
            Plugin::NodePorts => node_ports::wakes_on_pod_gone(pod, gone),
            Plugin::NodeResourcesFit => node_resources_fit::wakes_on_pod_gone(),
            Plugin::VolumeRestrictions => volume_restrictions::wakes_on_pod_gone(pod, gone),
            Plugin::NodeVolumeLimits => node_volume_limits::wakes_on_pod_gone(gone),
            Plugin::PodTopologySpread => pod_topology_spread::wakes_on_pod(pod, gone, snapshot),
            Plugin::InterPodAffinity => inter_pod_affinity::wakes_on_pod_gone(pod, gone, snapshot),
            Plugin::VolumeBinding => volume_binding::wakes_on_pod_gone(gone),
            Plugin::DynamicResources => dynamic_resources::wakes_on_pod_gone(gone),
            _ => false,
        },
        News::PodChanged { old, new } => match plugin {
            Plugin::PodTopologySpread => {
                pod_topology_spread::wakes_on_pod_change(pod, old, new, snapshot)
            }
            Plugin::InterPodAffinity => {
                inter_pod_affinity::wakes_on_pod_change(pod, old, new, snapshot)
            }
            _ => false,
        },
        News::Namespace => {
            plugin == Plugin::InterPodAffinity && inter_pod_affinity::wakes_on_namespace()
        }
        News::Workloads => {
            plugin == Plugin::PodTopologySpread && pod_topology_spread::wakes_on_workloads(pod)
        }
        News::PodResized { old, new } => {
            plugin == Plugin::NodeResourcesFit && node_resources_fit::wakes_on_shrink(pod, old, new)
        }
        // A class may stand for an extended resource that no node offers.
        News::Devices(DeviceNews::Class) if plugin == Plugin::NodeResourcesFit => {
            pod.extended.is_some()
        }
        News::Devices(news) => {
            plugin == Plugin::DynamicResources && dynamic_resources::wakes_on_devices(pod, news)
        }
        News::Storage(news) => match plugin {
            Plugin::VolumeRestrictions => volume_restrictions::wakes_on_storage(pod, news),
            // Which volumes a node counts as one follows from the claims, volumes and classes of all
            // its pods, not only from the pod's own.
            Plugin::NodeVolumeLimits => true,
            Plugin::VolumeBinding => volume_binding::wakes_on_storage(pod, news),
            Plugin::VolumeZone => volume_zone::wakes_on_storage(pod, news),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::cycle::{Decision, Rotation, schedule};
    use crate::profile::Profile;
    use crate::snapshot::NodeChange;
    use crate::testing::pod;

    fn a_node(name: u8, machine: Machine) -> Node {
        let Machine { cpu, zone, tainted, cordoned, featured } = machine;
        let taints =
            if tainted { json!([{"key": "k", "effect": "NoSchedule"}]) } else { json!([]) };
        let features =
            if featured { json!(["UserNamespacesHostNetworkSupport"]) } else { json!(null) };
        serde_json::from_value(json!({
            "metadata": {"name": format!("n{name}"), "labels": {"zone": zone.to_string()}},
            "spec": {"taints": taints, "unschedulable": cordoned},
            "status": {
                "allocatable": {"cpu": cpu.to_string(), "memory": "1Gi", "pods": "2"},
                "declaredFeatures": features
            }
        }))
        .unwrap()
    }

    /// What is asked for: by the pod that waits, and as far as it makes sense by those that run.
    #[derive(Clone, Debug)]
    struct Asked {
        cpu: u8,
        zone: Option<u8>,
        port: bool,
        tolerates: bool,
        feature: bool,
        on: Option<u8>,
    }

    impl Asked {
        fn pod(&self) -> Pod {
            let mut pod = pod("waiting", json!({"cpu": self.cpu.to_string()}));
            let spec = pod.spec.as_mut().unwrap();
            spec.node_selector =
                self.zone.map(|zone| [("zone".to_owned(), zone.to_string())].into());
            if self.port {
                spec.containers[0].ports =
                    serde_json::from_value(json!([{"containerPort": 1, "hostPort": 80}])).unwrap();
            }
            if self.tolerates {
                spec.tolerations = serde_json::from_value(json!([{"key": "k"}])).unwrap();
            }
            if self.feature {
                (spec.host_network, spec.host_users) = (Some(true), Some(false));
            }
            spec.node_name = self.on.map(|on| format!("n{on}"));
            pod
        }
    }

    fn asked() -> impl Strategy<Value = Asked> {
        let rarely = || prop::bool::weighted(0.2);
        let on = prop::option::weighted(0.1, 0..3u8);
        (1..4u8, prop::option::of(0..2u8), any::<bool>(), rarely(), rarely(), on).prop_map(
            |(cpu, zone, port, tolerates, feature, on)| Asked {
                cpu,
                zone,
                port,
                tolerates,
                feature,
                on,
            },
        )
    }

    #[derive(Clone, Copy, Debug)]
    struct Machine {
        cpu: u8,
        zone: u8,
        tainted: bool,
        cordoned: bool,
        featured: bool,
    }

    #[derive(Clone, Debug)]
    enum Event {
        Node(u8, Machine),
        NoNode(u8),
        Run {
            name: u8,
            node: u8,
            cpu: u8,
            port: bool,
        },
        /// A pod that runs asks for something else.
        Resize {
            name: u8,
            cpu: u8,
        },
        Stop(u8),
        /// The pod that waits asks for something else, or tolerates more.
        Change {
            cpu: u8,
            tolerates: bool,
        },
    }

    fn event() -> impl Strategy<Value = Event> {
        let machine = (1..4u8, 0..2u8, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(cpu, zone, tainted, cordoned, featured)| Machine {
                cpu,
                zone,
                tainted,
                cordoned,
                featured,
            },
        );
        prop_oneof![
            4 => (0..3u8, machine).prop_map(|(name, machine)| Event::Node(name, machine)),
            1 => (0..3u8).prop_map(Event::NoNode),
            4 => (0..4u8, 0..3u8, 1..3u8, any::<bool>())
                .prop_map(|(name, node, cpu, port)| Event::Run { name, node, cpu, port }),
            2 => (0..4u8, 0..3u8).prop_map(|(name, cpu)| Event::Resize { name, cpu }),
            3 => (0..4u8).prop_map(Event::Stop),
            1 => (1..4u8, any::<bool>()).prop_map(|(cpu, tolerates)| Event::Change { cpu, tolerates }),
        ]
    }

    fn running(name: u8, cpu: u8, port: bool) -> Pod {
        let asked = Asked { cpu, zone: None, port, tolerates: false, feature: false, on: None };
        let mut pod = asked.pod();
        pod.metadata.name = Some(format!("r{name}"));
        pod
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever happens to the cluster and to the pod: if a pod that was turned down would fit
        /// now, some news since has woken it. (The plugins that look at other pods, at volumes and
        /// at devices have the same property beside their own tests.)
        #[test]
        fn hints_never_strand_a_pod(
            events in prop::collection::vec(event(), 1..40), mut asked in asked(),
        ) {
            let mut snapshot = Snapshot::new();
            let mut info = snapshot.compile(&asked.pod());
            let mut ports = std::collections::BTreeMap::new();
            let mut asleep: Option<PluginSet> = None;
            for event in events {
                let woken = |by: PluginSet, news: News<'_>, snapshot: &Snapshot| wakes(by, &info, &news, snapshot);
                match event {
                    Event::Node(name, machine) => {
                        let change = snapshot.set_node(&a_node(name, machine));
                        let new = snapshot.node_named(&format!("n{name}")).unwrap();
                        let old = match &change { NodeChange::Updated(old) => Some(&**old), _ => None };
                        if change != NodeChange::Same && asleep.is_some_and(|by| woken(by, News::Node { old, new }, &snapshot)) {
                            asleep = None;
                        }
                    }
                    Event::NoNode(name) => {
                        let name = format!("n{name}");
                        if let Some(gone) = snapshot.node_named(&name).cloned() {
                            snapshot.remove_node(&name);
                            if asleep.is_some_and(|by| woken(by, News::NodeGone(&gone), &snapshot)) {
                                asleep = None;
                            }
                        }
                    }
                    Event::Run { name, node, cpu, port } => {
                        let running = snapshot.compile(&running(name, cpu, port));
                        let old = snapshot.displace(&running.uid);
                        snapshot.place(running, &format!("n{node}"));
                        ports.insert(name, (node, port));
                        if let Some(old) = old && asleep.is_some_and(|by| woken(by, News::PodGone(&old), &snapshot)) {
                            asleep = None;
                        }
                    }
                    Event::Resize { name, cpu } => {
                        let Some((node, port)) = ports.get(&name).copied() else { continue };
                        let new = snapshot.compile(&running(name, cpu, port));
                        let Some(old) = snapshot.displace(&new.uid) else { continue };
                        snapshot.place(new.clone(), &format!("n{node}"));
                        let news = News::PodResized { old: &old, new: &new };
                        if asleep.is_some_and(|by| woken(by, news, &snapshot)) {
                            asleep = None;
                        }
                    }
                    Event::Stop(name) => {
                        ports.remove(&name);
                        if let Some(old) = snapshot.displace(&format!("default/r{name}"))
                            && asleep.is_some_and(|by| woken(by, News::PodGone(&old), &snapshot)) {
                            asleep = None;
                        }
                    }
                    Event::Change { cpu, tolerates } => {
                        // A toleration is never taken off again.
                        asked.cpu = cpu;
                        asked.tolerates |= tolerates;
                        let new = snapshot.compile(&asked.pod());
                        if asleep.is_some_and(|by| wakes_itself(by, &info, &new, &snapshot)) {
                            asleep = None;
                        }
                        info = new;
                    }
                }
                match schedule(&snapshot, &info, &Profile::default(), &mut Rotation::default()) {
                    Decision::Bind(_) => prop_assert!(asleep.is_none(), "asleep but it would fit"),
                    // A pod is woken, tried in vain, and sleeps again.
                    Decision::Unschedulable(answer) if asleep.is_none() && answer.diagnosis.nodes > 0 => {
                        asleep = Some(answer.diagnosis.plugins);
                    }
                    Decision::Unschedulable(_) => {}
                }
            }
        }
    }
}
