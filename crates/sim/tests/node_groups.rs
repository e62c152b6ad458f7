//! Managed node groups in a whole world: machines come and go as the group's size says, pods run on
//! them, and Karpenter leaves them alone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};
use wharf_controllers::event_loop::NoRecorder;
use wharf_model::gates::FeatureGates;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::karpenter::{EC2NodeClass, NodeClaim, NodePool};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::nodegroup::{LABEL, NAME_TAG, Nodegroup};
use wharf_model::object::{ObjectKey, Typed};
use wharf_model::subnet::Cidr;
use wharf_model::time::Time;
use wharf_ports::clock::{Clock, VirtualClock};
use wharf_ports::cluster::{Delete, Part, Write};
use wharf_registry::Registry;
use wharf_scheduler::config::Configuration;
use wharf_sim::config;
use wharf_sim::world::{Controllers, World, WorldSettings};
use wharf_store::Store;

/// 2026-01-01T00:00:00Z.
const START: Time = Time::from_seconds(1_767_225_600);

struct Lab {
    world: World,
    registry: Arc<Registry>,
    clock: Arc<VirtualClock>,
}

impl Lab {
    /// A cluster of a ClusterConfig with a VPC in three zones and these node groups.
    fn new(node_groups: &str) -> Self {
        Self::with_gates(node_groups, FeatureGates::default())
    }

    fn with_gates(node_groups: &str, gates: FeatureGates) -> Self {
        let text = format!(
            "apiVersion: eksctl.io/v1alpha5
kind: ClusterConfig
metadata: {{name: mixed, region: us-east-1}}
vpc: {{cidr: 10.10.0.0/16}}
{node_groups}"
        );
        let config = config::load(&text, "cluster.yaml").expect("a valid file");
        assert_eq!(config.warnings, Vec::<String>::new());
        let settings = WorldSettings {
            region: config.region,
            seed: 1,
            controllers: Controllers::All,
            scheduler: Configuration::default(),
            vpa_storage: Default::default(),
            metrics_apis: Default::default(),
            cluster: config.cluster,
        };
        let clock = Arc::new(VirtualClock::starting_at(START));
        let registry =
            Arc::new(Registry::new(Store::rehearsal(), clock.clone(), 1).with_gates(gates));
        let world = World::new(Arc::clone(&registry), &settings).expect("a world");
        Self { world, registry, clock }
    }

    fn create<T: Resource>(&mut self, manifest: Value) {
        let object: T = serde_json::from_value(manifest).expect("a valid manifest");
        self.registry.apply(Write::Create(Box::new(object))).expect("the API takes it");
    }

    fn run_for(&mut self, seconds: u64) {
        let until = self.clock.now() + Duration::from_secs(seconds);
        loop {
            self.world.run_due(self.clock.now(), &mut NoRecorder).expect("it comes to rest");
            match self.world.next_wake().filter(|at| *at <= until) {
                Some(at) => self.clock.advance_to(at),
                None => break,
            }
        }
        self.clock.advance_to(until);
    }

    fn group(&self, name: &str) -> &Nodegroup {
        let key = ObjectKey::namespaced("kube-system", name);
        self.world.view().get(&key).expect("the group is there")
    }

    fn status(&self, name: &str) -> String {
        self.group(name).status.status.clone().unwrap_or_default()
    }

    fn edit(&mut self, name: &str, change: impl FnOnce(&mut Nodegroup)) {
        let mut group = self.group(name).clone();
        change(&mut group);
        let write = Write::Update { object: Box::new(group), part: Part::Main };
        self.registry.apply(write).expect("the API takes it");
    }

    fn scale(&mut self, name: &str, desired: i64) {
        self.edit(name, |group| {
            let config = group.spec.scaling_config.get_or_insert_default();
            config.desired_size = Some(desired);
            config.min_size = config.min_size.map(|min| min.min(desired));
            config.max_size = config.max_size.map(|max| max.max(desired));
        });
    }

    fn machines(&self, group: &str) -> Vec<&Instance> {
        let is_up = |machine: &&Instance| {
            matches!(machine.status.state, InstanceState::Pending | InstanceState::Running)
                && machine.spec.tags.get(NAME_TAG).is_some_and(|name| name == group)
        };
        self.world.view().list::<Instance>().filter(is_up).collect()
    }

    fn per_zone(&self, group: &str) -> Vec<usize> {
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        self.machines(group).iter().for_each(|m| *zones.entry(&m.spec.zone).or_default() += 1);
        zones.into_values().collect()
    }

    fn nodes(&self, group: &str) -> Vec<&Node> {
        let of_group = |node: &&Node| {
            node.metadata.labels.as_ref().and_then(|l| l.get(LABEL)).is_some_and(|n| n == group)
        };
        self.world.view().list::<Node>().filter(of_group).collect()
    }

    /// Breaks a node as users do.
    fn annotate(&mut self, node: &str, fault: &str) {
        let mut node = self.world.view().get_cluster::<Node>(node).expect("it is there").clone();
        let annotations = node.metadata.annotations.get_or_insert_default();
        annotations.insert("sim.wharf.dev/fail".to_owned(), fault.to_owned());
        let write = Write::Update { object: Box::new(node), part: Part::Main };
        self.registry.apply(write).expect("the API takes it");
    }

    fn condition(&self, node: &str, type_: &str) -> Option<String> {
        let node = self.world.view().get_cluster::<Node>(node)?;
        let mut conditions = node.status.as_ref()?.conditions.iter().flatten();
        let found = conditions.find(|condition| condition.type_ == type_)?;
        Some(format!("{} {}", found.status, found.reason.as_deref().unwrap_or_default()))
    }

    fn node_names(&self, group: &str) -> Vec<String> {
        self.nodes(group).iter().filter_map(|node| node.metadata.name.clone()).collect()
    }

    fn deployment(&mut self, name: &str, replicas: i32, cpu: &str) {
        self.create::<Deployment>(json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.7",
                    "resources": {"requests": {"cpu": cpu}}}]}}},
        }));
    }

    fn running(&self) -> Vec<&Pod> {
        let view = self.world.view();
        let pods = view.list_in::<Pod>("default");
        pods.filter(|pod| wharf_model::pod::phase(pod) == "Running").collect()
    }

    fn said(&self, group: &str) -> Vec<(String, String)> {
        let events = self.world.view().list::<Event>();
        let of_group = events.filter(|event| {
            event.involved_object.kind.as_deref() == Some("Nodegroup")
                && event.involved_object.name.as_deref() == Some(group)
        });
        of_group
            .map(|event| {
                (
                    event.reason.clone().unwrap_or_default(),
                    event.message.clone().unwrap_or_default(),
                )
            })
            .collect()
    }
}

const WORKERS: &str = "managedNodeGroups:
- {name: workers, instanceType: m5.large, desiredCapacity: 3, minSize: 0, maxSize: 6, labels: {tier: web}}
";

#[test]
fn a_group_has_its_machines_in_the_vpcs_zones_and_pods_run_there() {
    let mut lab = Lab::new(WORKERS);
    lab.run_for(10);
    assert_eq!(lab.status("workers"), "CREATING");
    lab.run_for(60);
    assert_eq!(lab.status("workers"), "ACTIVE");
    assert_eq!(lab.per_zone("workers"), [1, 1, 1]);
    let block: Cidr = "10.10.0.0/16".parse().expect("a block");
    for machine in lab.machines("workers") {
        assert!(block.contains(machine.spec.private_ip.parse().expect("an address")));
        assert!(machine.spec.private_dns_name.starts_with("ip-10-10-"));
        assert_eq!(machine.spec.tags["k8s.io/cluster-autoscaler/mixed"], "owned");
    }
    let nodes = lab.nodes("workers");
    assert_eq!(nodes.len(), 3);
    let labels = nodes[0].metadata.labels.clone().unwrap_or_default();
    assert_eq!(labels["tier"], "web");
    assert_eq!(labels["eks.amazonaws.com/capacityType"], "ON_DEMAND");
    assert_eq!(labels["node.kubernetes.io/instance-type"], "m5.large");
    assert!(!labels.keys().any(|key| key.starts_with("karpenter.sh/")));
    let launched = lab.said("workers").iter().filter(|(reason, _)| reason == "Launched").count();
    assert_eq!(launched, 3);
    lab.deployment("web", 6, "500m");
    lab.run_for(30);
    assert_eq!(lab.running().len(), 6);
    for pod in lab.running() {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let ip: Ipv4Addr = ip.and_then(|ip| ip.parse().ok()).expect("an address");
        assert!(block.contains(ip), "pods have addresses of the VPC: {ip}");
    }
    assert_eq!(lab.world.view().count(Kind::of::<NodeClaim>()), 0);
}

#[test]
fn a_smaller_size_drains_and_a_machine_that_is_gone_is_replaced() {
    let mut lab = Lab::new(WORKERS);
    lab.run_for(70);
    lab.deployment("web", 6, "250m");
    lab.run_for(30);
    lab.scale("workers", 5);
    lab.run_for(10);
    assert_eq!(lab.status("workers"), "UPDATING");
    lab.run_for(60);
    assert_eq!(lab.status("workers"), "ACTIVE");
    assert_eq!(lab.per_zone("workers"), [2, 2, 1]);
    lab.scale("workers", 1);
    lab.run_for(120);
    assert_eq!(lab.machines("workers").len(), 1);
    assert_eq!(lab.nodes("workers").len(), 1);
    assert_eq!((lab.status("workers").as_str(), lab.running().len()), ("ACTIVE", 6));
    // Somebody terminates it in EC2.
    let id = lab.machines("workers")[0].metadata.name.clone().unwrap_or_default();
    let mut machine = lab.machines("workers")[0].clone();
    machine.status.state = InstanceState::Terminated;
    machine.status.terminated_at_nanos = Some(lab.clock.now().as_nanos());
    let write = Write::Update { object: Box::new(machine), part: Part::Status };
    lab.registry.apply(write).expect("the API takes it");
    lab.run_for(90);
    let machines = lab.machines("workers");
    assert_eq!(machines.len(), 1);
    assert_ne!(machines[0].metadata.name.clone().unwrap_or_default(), id);
    assert_eq!(lab.status("workers"), "ACTIVE");
}

#[test]
fn a_budget_holds_a_machine_for_fifteen_minutes_and_no_longer() {
    let mut lab = Lab::new(WORKERS);
    lab.scale("workers", 1);
    lab.run_for(70);
    lab.deployment("web", 1, "250m");
    lab.create::<PodDisruptionBudget>(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }));
    lab.run_for(30);
    assert_eq!(lab.running().len(), 1);
    lab.scale("workers", 0);
    lab.run_for(14 * 60);
    assert_eq!(lab.running().len(), 1, "the budget protects it");
    let node = lab.nodes("workers")[0];
    assert_eq!(node.spec.as_ref().and_then(|spec| spec.unschedulable), Some(true));
    lab.run_for(3 * 60);
    assert_eq!((lab.machines("workers").len(), lab.nodes("workers").len()), (0, 0));
    assert_eq!(lab.status("workers"), "ACTIVE");
}

#[test]
fn a_deleted_group_takes_its_machines_with_it() {
    let mut lab = Lab::new(WORKERS);
    lab.run_for(70);
    let key = ObjectKey::namespaced("kube-system", "workers");
    let object = lab.world.view().object(Kind::of::<Nodegroup>(), &key).expect("it is there");
    lab.registry.apply(Write::Delete(Delete::of(object))).expect("the API takes it");
    lab.run_for(5);
    assert_eq!(lab.status("workers"), "DELETING");
    lab.run_for(60);
    assert_eq!(lab.world.view().count(Kind::of::<Nodegroup>()), 0);
    assert_eq!(lab.machines("workers").len() + lab.nodes("workers").len(), 0);
}

#[test]
fn labels_and_taints_of_a_group_reach_the_nodes_that_are_there() {
    let mut lab = Lab::new(WORKERS);
    lab.run_for(70);
    lab.edit("workers", |group| {
        group.spec.labels.remove("tier");
        group.spec.labels.insert("team".to_owned(), "blue".to_owned());
        group.spec.taints = serde_json::from_value(json!([
            {"key": "dedicated", "value": "web", "effect": "NO_SCHEDULE"}
        ]))
        .expect("a taint");
    });
    lab.run_for(5);
    for node in lab.nodes("workers") {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        assert_eq!((labels.get("tier"), labels["team"].as_str()), (None, "blue"));
        let taints = node.spec.clone().unwrap_or_default().taints.unwrap_or_default();
        assert_eq!(taints.len(), 1, "{taints:?}");
    }
}

#[test]
fn a_group_of_unknown_types_says_so() {
    let mut lab = Lab::new("");
    lab.create::<Nodegroup>(json!({
        "metadata": {"name": "typo", "namespace": "kube-system"},
        "spec": {"name": "typo", "instanceTypes": ["m5.lage"]},
    }));
    lab.run_for(5);
    assert_eq!(lab.status("typo"), "CREATE_FAILED");
    let health = lab.group("typo").status.health.clone().unwrap_or_default();
    assert_eq!(
        health.issues[0].message,
        "The following supplied instance types do not exist: [m5.lage]"
    );
}

#[test]
fn karpenter_uses_the_room_of_a_group_and_leaves_its_machines_alone() {
    let mut lab = Lab::new(WORKERS);
    lab.create::<EC2NodeClass>(json!({"metadata": {"name": "default"}, "spec": {
        "role": "nodes", "amiSelectorTerms": [{"alias": "al2023@latest"}],
        "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "mixed"}}],
        "securityGroupSelectorTerms": [{"tags": {"karpenter.sh/discovery": "mixed"}}]}}));
    lab.create::<NodePool>(json!({"metadata": {"name": "default"}, "spec": {
        "disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "30s"},
        "template": {"spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
            "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]}}}}));
    lab.run_for(70);
    lab.deployment("fits", 6, "500m");
    lab.run_for(60);
    assert_eq!((lab.running().len(), lab.world.view().count(Kind::of::<NodeClaim>())), (6, 0));
    lab.deployment("more", 4, "1");
    lab.run_for(120);
    assert_eq!(lab.running().len(), 10);
    let claims: Vec<&NodeClaim> = lab.world.view().list::<NodeClaim>().collect();
    assert_eq!(claims.len(), 1, "only for what does not fit");
    let block: Cidr = "10.10.0.0/16".parse().expect("a block");
    for machine in lab.world.view().list::<Instance>() {
        assert!(block.contains(machine.spec.private_ip.parse().expect("an address")));
    }
    lab.run_for(600);
    assert_eq!(lab.machines("workers").len(), 3, "idle or not, they are the group's");
    let kind = Typed::kind(lab.group("workers"));
    assert_eq!(kind, Kind::of::<Nodegroup>());
}

const REPAIRED: &str = "managedNodeGroups:
- {name: workers, instanceType: m5.large, desiredCapacity: 3, minSize: 0, maxSize: 10, nodeRepairConfig: {enabled: true}}
";

#[test]
fn a_broken_node_of_a_group_is_replaced_after_half_an_hour() {
    let mut lab = Lab::new(REPAIRED);
    lab.run_for(90);
    let broken = lab.node_names("workers").remove(0);
    assert_eq!(lab.condition(&broken, "KernelReady").as_deref(), Some("True KernelIsReady"));
    assert_eq!(lab.condition(&broken, "AcceleratedHardwareReady"), None);
    lab.annotate(&broken, "KernelReady");
    lab.run_for(5);
    assert_eq!(lab.condition(&broken, "KernelReady").as_deref(), Some("False ForkFailedOutOfPIDs"));
    lab.run_for(29 * 60);
    assert!(lab.node_names("workers").contains(&broken), "it is tolerated for 30 min");
    lab.run_for(5 * 60);
    let names = lab.node_names("workers");
    assert_eq!((names.len(), names.contains(&broken)), (3, false));
    assert_eq!(lab.status("workers"), "ACTIVE");
}

#[test]
fn a_silent_kubelet_is_a_broken_node_and_too_many_broken_ones_stay() {
    let mut lab = Lab::new(REPAIRED);
    lab.scale("workers", 6);
    lab.run_for(90);
    let names = lab.node_names("workers");
    lab.annotate(&names[0], "Ready");
    lab.annotate(&names[1], "StorageReady");
    lab.run_for(3 * 60);
    let ready = lab.condition(&names[0], "Ready").unwrap_or_default();
    assert!(ready.starts_with("Unknown "), "{ready}");
    lab.run_for(40 * 60);
    assert_eq!(lab.node_names("workers"), names, "two of six are too many");
    lab.annotate(&names[1], "");
    lab.run_for(5 * 60);
    assert!(!lab.node_names("workers").contains(&names[0]), "one of six is not");
    assert!(lab.node_names("workers").contains(&names[1]));
}

#[test]
fn groups_without_node_repair_have_no_agent() {
    let mut lab = Lab::new(WORKERS);
    lab.run_for(90);
    let node = lab.node_names("workers").remove(0);
    lab.annotate(&node, "KernelReady");
    lab.run_for(60);
    assert_eq!(lab.condition(&node, "KernelReady"), None);
}

#[test]
fn karpenter_replaces_broken_nodes_where_its_gate_is_on() {
    for is_on in [false, true] {
        let mut lab =
            Lab::with_gates("", FeatureGates { node_repair: is_on, ..Default::default() });
        lab.create::<EC2NodeClass>(json!({"metadata": {"name": "default"}, "spec": {
            "role": "nodes", "amiSelectorTerms": [{"alias": "al2023@latest"}],
            "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "mixed"}}],
            "securityGroupSelectorTerms": [{"tags": {"karpenter.sh/discovery": "mixed"}}]}}));
        lab.create::<NodePool>(json!({"metadata": {"name": "default"}, "spec": {
            "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "Never"},
            "template": {"spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]}}}}));
        lab.run_for(5);
        lab.deployment("web", 1, "1");
        lab.run_for(120);
        let node = |lab: &Lab| -> Option<String> {
            let mut nodes = lab.world.view().list::<Node>();
            nodes.next().and_then(|node| node.metadata.name.clone())
        };
        let broken = node(&lab).expect("a node");
        lab.annotate(&broken, "NetworkingReady");
        lab.run_for(29 * 60);
        assert_eq!(node(&lab).as_deref(), Some(broken.as_str()));
        lab.run_for(10 * 60);
        assert_eq!(node(&lab).as_deref() == Some(broken.as_str()), !is_on);
        assert_eq!(lab.running().len(), 1);
    }
}
