//! EKS Auto Mode in a whole world: its pools are there and stay as they are, its machines come and go,
//! beside those of self-managed Karpenter, and it takes its fee.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use wharf_controllers::event_loop::NoRecorder;
use wharf_model::auto_mode::{AutoNodeClass, Cluster as EksCluster};
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::karpenter::conditions::Conditioned;
use wharf_model::karpenter::{EC2NodeClass, NodeClaim, NodePool};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::clock::{Clock, VirtualClock};
use wharf_ports::cluster::{Delete, Part, Write};
use wharf_registry::Registry;
use wharf_scheduler::config::Configuration;
use wharf_sim::cluster::{AutoMode, Cluster};
use wharf_sim::ledger::Ledger;
use wharf_sim::world::{Controllers, World, WorldSettings};
use wharf_store::Store;

/// 2026-08-01T00:00:00Z.
const START: Time = Time::from_seconds(1_785_542_400);

struct Lab {
    world: World,
    registry: Arc<Registry>,
    clock: Arc<VirtualClock>,
}

impl Lab {
    fn new(pools: &[&str]) -> Self {
        let name = "automode-cluster";
        let auto_mode = AutoMode {
            node_pools: pools.iter().map(|pool| (*pool).to_owned()).collect(),
            ..AutoMode::of_eksctl(name)
        };
        let cluster =
            Cluster { name: name.to_owned(), auto_mode: Some(auto_mode), ..Cluster::default() };
        let settings = WorldSettings {
            region: "ap-northeast-2".to_owned(),
            seed: 1,
            controllers: Controllers::All,
            scheduler: Configuration::default(),
            vpa_storage: Default::default(),
            metrics_apis: Default::default(),
            cluster,
        };
        let clock = Arc::new(VirtualClock::starting_at(START));
        let registry = Arc::new(Registry::new(Store::rehearsal(), clock.clone(), 1));
        let world = World::new(Arc::clone(&registry), &settings).expect("a world");
        let mut lab = Self { world, registry, clock };
        lab.run_for(5);
        lab
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

    fn create<T: Resource>(&mut self, manifest: Value) {
        let object: T = serde_json::from_value(manifest).expect("a valid manifest");
        self.registry.apply(Write::Create(Box::new(object))).expect("the API takes it");
    }

    fn update<T: Resource>(&mut self, key: &ObjectKey, change: impl FnOnce(&mut T)) {
        let mut object = self.world.view().get::<T>(key).expect("it is there").clone();
        change(&mut object);
        let write = Write::Update { object: Box::new(object), part: Part::Main };
        self.registry.apply(write).expect("the API takes it");
    }

    fn delete<T: Resource>(&mut self, name: &str) {
        let object = self.world.view().object(T::kind(), &ObjectKey::cluster(name));
        let write = Write::Delete(Delete::of(object.expect("it is there")));
        self.registry.apply(write).expect("the API takes it");
    }

    fn inflate(&mut self, selector: Value) {
        self.create::<Deployment>(json!({
            "metadata": {"name": "inflate", "namespace": "default"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "inflate"}},
                "template": {
                    "metadata": {"labels": {"app": "inflate"}},
                    "spec": {
                        "terminationGracePeriodSeconds": 0,
                        "nodeSelector": selector,
                        "containers": [{"name": "inflate",
                            "image": "public.ecr.aws/eks-distro/kubernetes/pause:3.7",
                            "resources": {"requests": {"cpu": "1"}}}],
                    },
                },
            },
        }));
    }

    fn scale(&mut self, replicas: i32) {
        self.update::<Deployment>(&ObjectKey::namespaced("default", "inflate"), |inflate| {
            inflate.spec.as_mut().expect("a spec").replicas = Some(replicas);
        });
    }

    fn running(&self) -> usize {
        let is_running = |pod: &&Pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        self.world.view().list::<Pod>().filter(is_running).count()
    }

    fn list<T: Resource>(&self) -> Vec<&T> {
        self.world.view().list::<T>().collect()
    }

    fn pool(&self, name: &str) -> Option<&NodePool> {
        self.world.view().get_cluster(name)
    }

    /// Reasons and texts of what Auto Mode said of objects of a kind.
    fn told(&self, kind: &str) -> Vec<(String, String)> {
        let events = self.world.view().list::<Event>();
        events
            .filter(|event| event.involved_object.kind.as_deref() == Some(kind))
            .filter(|event| {
                let source = event.source.as_ref().and_then(|source| source.component.as_deref());
                let component = event.reporting_component.as_deref().or(source);
                component == Some("eks-auto-mode/compute")
            })
            .map(|event| {
                let text = |field: &Option<String>| field.clone().unwrap_or_default();
                (text(&event.reason), text(&event.message))
            })
            .collect()
    }
}

fn cpu(node: &Node) -> &str {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    allocatable.map_or("", |allocatable| allocatable["cpu"].0.as_str())
}

#[test]
fn a_fresh_cluster_has_pools_and_nothing_else() {
    let lab = Lab::new(&["general-purpose"]);
    assert!(lab.list::<Node>().is_empty() && lab.list::<Pod>().is_empty());
    let pool = lab.pool("general-purpose").expect("it is there");
    assert!(pool.is_ready(), "{:?}", pool.status.conditions);
    let annotations = pool.metadata.annotations.as_ref().expect("annotations");
    assert_eq!(annotations["karpenter.sh/nodepool-hash"], "4012513481623584108");
    assert_eq!(annotations["karpenter.sh/nodepool-hash-version"], "v3");
    assert_eq!(pool.status.nodes, Some(0));
    for resource in ["cpu", "ephemeral-storage", "memory", "nodes", "pods"] {
        assert_eq!(pool.status.resources[resource].0, "0", "{resource}");
    }
    assert!(lab.pool("system").is_none());
    let class = lab.list::<AutoNodeClass>().remove(0);
    assert!(class.is_ready(), "{:?}", class.status.conditions);
    assert_eq!(
        class.metadata.finalizers.as_deref(),
        Some(&["eks.amazonaws.com/termination".to_owned()][..])
    );
    assert!(!class.status.subnets.is_empty() && class.status.security_groups.len() == 1);
}

#[test]
fn inflate_grows_and_shrinks_on_auto_mode() {
    let mut lab = Lab::new(&["general-purpose"]);
    lab.inflate(json!({"eks.amazonaws.com/compute-type": "auto"}));
    lab.run_for(20);
    let claim = lab.list::<NodeClaim>().remove(0);
    assert_eq!(claim.status.allocatable["cpu"].0, "1480m", "{:?}", claim.metadata.labels);
    lab.run_for(100);
    assert_eq!(lab.running(), 1);
    let node = lab.list::<Node>().remove(0);
    let name = node.metadata.name.as_deref().expect("a name");
    assert!(name.starts_with("i-") && name.len() == 19, "{name}");
    assert_eq!(cpu(node), "1930m");
    let labels = node.metadata.labels.as_ref().expect("labels");
    for (key, value) in [
        ("app.kubernetes.io/managed-by", "eks"),
        ("eks.amazonaws.com/compute-type", "auto"),
        ("eks.amazonaws.com/nodeclass", "default"),
        ("eks.amazonaws.com/instance-memory", "4096"),
        ("karpenter.sh/nodepool", "general-purpose"),
        ("karpenter.sh/do-not-sync-taints", "true"),
        ("kubernetes.io/hostname", name),
        ("node.kubernetes.io/instance-type", "c5a.large"),
    ] {
        assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
    }
    let zone = &labels["topology.kubernetes.io/zone"];
    assert_eq!(&labels["topology.ebs.csi.eks.amazonaws.com/zone"], zone);
    assert!(labels.keys().all(|key| !key.contains("karpenter.k8s.aws")), "{labels:?}");
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref()).expect("info");
    assert!(info.os_image.starts_with("Bottlerocket (EKS Auto, Standard) "), "{}", info.os_image);
    assert_eq!(info.container_runtime_version, "containerd://2.1.5+bottlerocket");

    let claims = lab.told("NodeClaim");
    for (reason, text) in [
        (
            "Launched",
            "Status condition transitioned, Type: Launched, Status: Unknown -> True, Reason: Launched",
        ),
        ("DisruptionBlocked", "Nodeclaim does not have an associated node"),
        (
            "Registered",
            "Status condition transitioned, Type: Registered, Status: Unknown -> True, Reason: Registered",
        ),
        (
            "Initialized",
            "Status condition transitioned, Type: Initialized, Status: Unknown -> True, Reason: Initialized",
        ),
        (
            "Ready",
            "Status condition transitioned, Type: Ready, Status: Unknown -> True, Reason: Ready",
        ),
    ] {
        assert!(claims.contains(&(reason.to_owned(), text.to_owned())), "{reason} of {claims:?}");
    }
    assert!(lab.told("Node").iter().any(|(reason, _)| reason == "Ready"));
    assert!(lab.told("Pod").iter().any(|(reason, text)| {
        reason == "Nominated"
            && text.starts_with("Pod should schedule on: nodeclaim/general-purpose-")
    }));

    for replicas in [100, 200, 50] {
        lab.scale(replicas);
        lab.run_for(1_200);
        assert_eq!(lab.running(), usize::try_from(replicas).expect("small"));
        let cores: usize = lab
            .list::<Node>()
            .iter()
            .map(|node| cpu(node).trim_end_matches('m').parse::<usize>().expect("thousandths"))
            .sum();
        let wanted = usize::try_from(replicas).expect("small") * 1_000;
        assert!(cores >= wanted && cores < wanted * 2, "{cores} for {replicas}");
    }
    let finalized = ("Finalized".to_owned(), "Finalized karpenter.sh/termination".to_owned());
    assert!(lab.told("NodeClaim").contains(&finalized), "nodes were given up");

    let instances = lab.list::<Instance>();
    assert!(instances.iter().all(|machine| machine.spec.managed));
    let ledger = Ledger::of(instances, lab.clock.now());
    assert!(ledger.fees() > wharf_model::money::Money::default());
    for line in &ledger.lines {
        let expected = line.price.scale(12, 100).round_to_digits(5);
        assert_eq!(line.fee, expected, "{}", line.instance_type);
    }
}

#[test]
fn what_eks_made_is_put_back_and_comes_again() {
    let mut lab = Lab::new(&["general-purpose", "system"]);
    let key = ObjectKey::cluster("general-purpose");
    lab.update::<NodePool>(&key, |pool| pool.spec.weight = Some(7));
    lab.run_for(5);
    assert_eq!(lab.pool("general-purpose").expect("it is there").spec.weight, None);
    lab.delete::<NodePool>("general-purpose");
    lab.delete::<AutoNodeClass>("default");
    lab.run_for(30);
    assert!(lab.pool("general-purpose").is_some_and(Conditioned::is_ready));
    let class = lab.list::<AutoNodeClass>();
    assert!(class.len() == 1 && class[0].is_ready());
    assert!(
        lab.told("NodeClass").contains(&(
            "Finalized".to_owned(),
            "Finalized eks.amazonaws.com/termination".to_owned()
        ))
    );
}

#[test]
fn a_pool_that_is_switched_off_goes_with_its_nodes() {
    let mut lab = Lab::new(&["general-purpose"]);
    lab.inflate(json!({}));
    lab.run_for(120);
    assert_eq!(lab.running(), 1);
    let cluster = ObjectKey::namespaced("kube-system", "automode-cluster");
    lab.update::<EksCluster>(&cluster, |cluster| {
        let compute = cluster.spec.compute_config.as_mut().expect("it is on");
        compute.node_pools = vec!["system".to_owned()];
    });
    lab.run_for(300);
    assert!(lab.pool("general-purpose").is_none() && lab.pool("system").is_some());
    assert!(lab.list::<Node>().is_empty() && lab.list::<NodeClaim>().is_empty());
    // The system pool's taint keeps the pod off.
    assert_eq!(lab.running(), 0);
    lab.update::<EksCluster>(&cluster, |cluster| {
        cluster.spec.compute_config = None;
        cluster.spec.kubernetes_network_config = None;
        cluster.spec.storage_config = None;
    });
    lab.run_for(60);
    assert!(lab.pool("system").is_none() && lab.list::<AutoNodeClass>().is_empty());
}

#[test]
fn pools_of_both_kinds_work_side_by_side_each_in_its_own_words() {
    let mut lab = Lab::new(&["general-purpose"]);
    lab.create::<EC2NodeClass>(json!({"metadata": {"name": "default"}, "spec": {
        "role": "KarpenterNodeRole", "amiSelectorTerms": [{"alias": "al2023@latest"}],
        "subnetSelectorTerms": [{"tags": {"a": "b"}}],
        "securityGroupSelectorTerms": [{"tags": {"a": "b"}}]}}));
    lab.create::<NodePool>(json!({"metadata": {"name": "own"}, "spec": {"template": {"spec": {
        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
        "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]}}}}));
    // A pool of Auto Mode that asks in Karpenter's words gets nothing.
    lab.create::<NodePool>(json!({"metadata": {"name": "foreign"}, "spec": {"weight": 100, "template": {"spec": {
        "nodeClassRef": {"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"},
        "requirements": [{"key": "karpenter.k8s.aws/instance-category", "operator": "In", "values": ["c"]}]}}}}));
    lab.run_for(10);
    for (name, selector) in [
        ("auto", json!({"eks.amazonaws.com/instance-category": "m"})),
        ("own", json!({"karpenter.k8s.aws/instance-category": "m"})),
    ] {
        lab.create::<Pod>(json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeSelector": selector, "containers": [{"name": "c",
                "image": "public.ecr.aws/eks-distro/kubernetes/pause:3.7",
                "resources": {"requests": {"cpu": "1"}}}]}}));
    }
    lab.run_for(180);
    assert_eq!(lab.running(), 2);
    let pool_of = |pod: &str| {
        let pod: &Pod =
            lab.world.view().get(&ObjectKey::namespaced("default", pod)).expect("the pod");
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).expect("a node");
        let node: &Node = lab.world.view().get_cluster(node).expect("the node");
        let labels = node.metadata.labels.as_ref().expect("labels");
        (node.metadata.name.clone().expect("a name"), labels["karpenter.sh/nodepool"].clone())
    };
    let (auto, own) = (pool_of("auto"), pool_of("own"));
    assert_eq!((auto.1.as_str(), own.1.as_str()), ("general-purpose", "own"));
    assert!(auto.0.starts_with("i-") && own.0.starts_with("ip-"), "{auto:?} {own:?}");
    let up = |managed: bool| {
        let machines = lab.list::<Instance>();
        let is_up = |machine: &&&Instance| {
            machine.status.state == InstanceState::Running && machine.spec.managed == managed
        };
        machines.iter().filter(is_up).count()
    };
    assert_eq!((up(true), up(false)), (1, 1));
    let foreign = lab.told("NodePool");
    assert!(foreign.iter().any(|(reason, _)| reason == "NoCompatibleInstanceTypes"), "{foreign:?}");
    assert!(lab.world.view().objects(Kind::of::<NodeClaim>()).count() == 2);
}

#[test]
fn a_volume_of_auto_modes_driver_is_bound_where_its_pod_runs() {
    let mut lab = Lab::new(&["general-purpose"]);
    lab.create::<StorageClass>(json!({
        "metadata": {"name": "auto-ebs"},
        "provisioner": "ebs.csi.eks.amazonaws.com",
        "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": {"type": "gp3"},
    }));
    lab.create::<PersistentVolumeClaim>(json!({
        "metadata": {"name": "data", "namespace": "default"},
        "spec": {"storageClassName": "auto-ebs", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "8Gi"}}},
    }));
    lab.create::<Pod>(json!({
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "nodeSelector": {"eks.amazonaws.com/compute-type": "auto"},
            "containers": [{"name": "db", "image": "postgres",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }));
    lab.run_for(300);
    let view = lab.world.view();
    let pod = view.get::<Pod>(&ObjectKey::namespaced("default", "db")).expect("the pod");
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    assert_eq!(phase, Some("Running"), "{:?}", pod.status);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).expect("a node");
    let node = view.get_cluster::<Node>(node).expect("the node");
    let labels = node.metadata.labels.as_ref().expect("labels");
    let zone = &labels["topology.ebs.csi.eks.amazonaws.com/zone"];
    assert_eq!(zone, &labels["topology.kubernetes.io/zone"]);
    let key = ObjectKey::namespaced("default", "data");
    let claim = view.get::<PersistentVolumeClaim>(&key).expect("the claim");
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let volume = view.get_cluster::<PersistentVolume>(volume.expect("it is bound"));
    let spec = volume.and_then(|volume| volume.spec.as_ref()).expect("a volume");
    assert_eq!(spec.csi.as_ref().expect("a driver").driver, "ebs.csi.eks.amazonaws.com");
    let affinity = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    let terms = &affinity.expect("a zone").node_selector_terms[0];
    let expression = &terms.match_expressions.as_ref().expect("an expression")[0];
    assert_eq!(expression.key, "topology.ebs.csi.eks.amazonaws.com/zone");
    assert_eq!(expression.values.as_ref().expect("a zone"), &vec![zone.clone()]);
}
