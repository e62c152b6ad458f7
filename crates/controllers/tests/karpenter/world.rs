//! A small cluster on a virtual clock: real registry, scheduler, kubelets, simulated EC2 and
//! Karpenter; only the pods' owner is a stand-in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use wharf_cloud::catalog::Catalog;
use wharf_cloud::ec2::{CapacityRule, Ec2Settings, SimulatedEc2};
use wharf_controllers::event_loop::{EventLoop, Recorder};
use wharf_controllers::karpenter::{self, KarpenterSettings};
use wharf_controllers::scheduler::Scheduler;
use wharf_controllers::workloads::disruption::DisruptionController;
use wharf_controllers::workloads::node_lifecycle::NodeLifecycle;
use wharf_controllers::workloads::pod_gc::PodGc;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::karpenter::{EC2NodeClass, NodeClaim, NodePool};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_node::kubelet::{Heartbeats, NodeAgent};
use wharf_node::pods::PodAgent;
use wharf_ports::clock::VirtualClock;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, LogLine, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::reason::Reason;
use wharf_ports::view::View;
use wharf_registry::{EmbeddedCluster, Registry};
use wharf_scheduler::Profile;
use wharf_store::Store;

pub(crate) struct World {
    pub(crate) registry: Arc<Registry>,
    clock: Arc<VirtualClock>,
    event_loop: EventLoop<EmbeddedCluster>,
    pub(crate) journal: Journal,
    replicas: Arc<AtomicUsize>,
    cpu: String,
    shortages: Vec<CapacityRule>,
    seed: u64,
}

#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) logs: Vec<Value>,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) refused: Vec<String>,
}

impl Recorder for Journal {
    fn reason(&mut self, _now: Time, reason: Reason) {
        self.reasons.push(reason);
    }
    fn log(&mut self, _now: Time, line: LogLine) {
        self.logs.push(serde_json::from_str(&line.line).expect("log lines are JSON"));
    }
    fn refused(&mut self, _: Time, controller: &'static str, write: &Write, error: &ApiError) {
        self.refused.push(format!("{controller}: {write:?}: {error}"));
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with("1", Vec::new(), 1)
    }

    pub(crate) fn with(cpu: &str, shortages: Vec<CapacityRule>, seed: u64) -> Self {
        let clock = Arc::new(VirtualClock::starting_at(Time::from_seconds(1_767_225_600)));
        let registry = Arc::new(Registry::new(Store::ephemeral(), clock.clone(), seed));
        registry.bootstrap().expect("a new cluster");
        let replicas = Arc::new(AtomicUsize::new(0));
        let event_loop = event_loop(&registry, &replicas, cpu, &shortages, seed);
        let journal = Journal::default();
        let cpu = cpu.to_owned();
        let mut world =
            Self { registry, clock, event_loop, journal, replicas, cpu, shortages, seed };
        world.create::<EC2NodeClass>(json!({
            "metadata": {"name": "default"},
            "spec": {
                "role": "KarpenterNodeRole-demo",
                "amiSelectorTerms": [{"alias": "al2023@latest"}],
                "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "demo"}}],
                "securityGroupSelectorTerms": [{"tags": {"karpenter.sh/discovery": "demo"}}],
            },
        }));
        world
    }

    /// As after a restart of the process: everything in memory is gone.
    pub(crate) fn restart(&mut self) {
        self.event_loop =
            event_loop(&self.registry, &self.replicas, &self.cpu, &self.shortages, self.seed);
    }

    pub(crate) fn create<T: Resource>(&mut self, value: Value) {
        let object: T = serde_json::from_value(value).expect("a valid object");
        self.registry.apply(Write::Create(Box::new(object))).expect("it is accepted");
    }

    pub(crate) fn pool(&mut self, change: impl FnOnce(&mut Value)) {
        let mut pool = json!({
            "metadata": {"name": "default"},
            "spec": {
                "template": {"spec": {
                    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                    "requirements": [
                        {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                        {"key": "karpenter.k8s.aws/instance-category", "operator": "In", "values": ["c", "m", "r"]},
                        {"key": "karpenter.k8s.aws/instance-size", "operator": "NotIn", "values": ["nano", "micro", "small", "medium"]},
                        {"key": "karpenter.k8s.aws/instance-hypervisor", "operator": "In", "values": ["nitro"]},
                    ],
                    "expireAfter": "720h",
                }},
                "limits": {"cpu": "1000", "memory": "1000Gi"},
                "disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "1m"},
            },
        });
        change(&mut pool);
        self.create::<NodePool>(pool);
    }

    pub(crate) fn scale(&mut self, replicas: usize) {
        self.replicas.store(replicas, Ordering::Relaxed);
        self.run(0);
    }

    pub(crate) fn update<T: Resource>(&mut self, name: &str, change: impl FnOnce(&mut T)) {
        let object = self.registry.get(T::kind(), &ObjectKey::cluster(name)).expect("it is there");
        let mut draft: T = object.draft().expect("it decodes");
        change(&mut draft);
        let write = Write::Update { object: Box::new(draft), part: Part::Main };
        self.registry.apply(write).expect("it is accepted");
    }

    /// Lets so many seconds of cluster time pass.
    pub(crate) fn run(&mut self, seconds: u64) {
        let end = self.registry.now() + Duration::from_secs(seconds);
        loop {
            let now = self.registry.now();
            self.event_loop.run_due(now, &mut self.journal).expect("it comes to rest");
            let wake = self.event_loop.next_wake().unwrap_or(Time::MAX);
            if wake > end {
                break;
            }
            self.clock.advance_to(wake);
        }
        self.clock.advance_to(end);
    }

    /// The same with restarts on the way, each after a number of steps and so between any two
    /// writes, also those of one step.
    pub(crate) fn run_with_restarts(&mut self, seconds: u64, restarts: u64, salt: u64) {
        let end = self.registry.now() + Duration::from_secs(seconds);
        for restart in 0..restarts {
            // Anything from no time at all to a few seconds between two restarts.
            self.run((restart + salt) % 7);
            let now = self.registry.now();
            self.event_loop.run_some(now, 1 + (restart * 5 + salt) % 17, &mut self.journal);
            self.restart();
        }
        self.run(end.since(self.registry.now()).as_secs());
    }

    pub(crate) fn list<T: Resource>(&self) -> Vec<T> {
        let (objects, _) = self.registry.store().list(T::kind(), None);
        objects.iter().filter_map(|object| object.draft::<T>()).collect()
    }

    /// The cluster as controllers see it.
    pub(crate) fn view(&self) -> View {
        let mut view = View::new();
        for kind in [
            Kind::of::<Node>(),
            Kind::of::<Pod>(),
            Kind::of::<NodeClaim>(),
            Kind::of::<NodePool>(),
            Kind::of::<EC2NodeClass>(),
        ] {
            for object in self.registry.store().list(kind, None).0 {
                view.load(object);
            }
        }
        view
    }

    pub(crate) fn running_pods(&self) -> usize {
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let live = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
        let pods = self.list::<Pod>();
        pods.iter().filter(live).filter(|pod| phase(pod).as_deref() == Some("Running")).count()
    }

    pub(crate) fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.list::<Node>();
        nodes.retain(|node| node.metadata.deletion_timestamp.is_none());
        nodes
    }

    pub(crate) fn claims(&self) -> Vec<NodeClaim> {
        self.list()
    }

    pub(crate) fn machines(&self) -> Vec<Instance> {
        let mut machines = self.list::<Instance>();
        machines.retain(|instance| {
            matches!(instance.status.state, InstanceState::Pending | InstanceState::Running)
        });
        machines
    }

    /// The log messages, with the reason where one is given.
    pub(crate) fn messages(&self) -> Vec<String> {
        let message = |line: &Value| {
            let text = line["message"].as_str().unwrap_or_default();
            match line["reason"].as_str() {
                Some(reason) => format!("{text} [{reason}]"),
                None => text.to_owned(),
            }
        };
        self.journal.logs.iter().map(message).collect()
    }

    /// Reason and message of the events there are, each once.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let kind = Kind::by_resource("", "events").expect("a kind");
        let (objects, _) = self.registry.store().list(kind, None);
        let mut events: Vec<(String, String)> = objects
            .iter()
            .filter_map(|object| serde_json::from_slice::<Value>(object.json()).ok())
            .map(|event| {
                let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                (text("reason"), text("message"))
            })
            .collect();
        events.sort();
        events.dedup();
        events
    }

    pub(crate) fn has_event(&self, reason: &str, text: &str) -> bool {
        self.events().iter().any(|(r, message)| r == reason && message.contains(text))
    }
}

/// The machine types of the world's region.
pub(crate) fn catalog() -> Arc<Catalog> {
    Arc::new(Catalog::load("us-east-1").expect("a known region"))
}

fn event_loop(
    registry: &Arc<Registry>,
    replicas: &Arc<AtomicUsize>,
    cpu: &str,
    shortages: &[CapacityRule],
    seed: u64,
) -> EventLoop<EmbeddedCluster> {
    let catalog = catalog();
    let mut settings = Ec2Settings::new("us-east-1", seed);
    settings.shortages = shortages.to_vec();
    let mut controllers: Vec<Box<dyn Controller>> = vec![
        Box::new(Replicas { wanted: Arc::clone(replicas), cpu: cpu.to_owned() }),
        Box::new(Scheduler::new(Profile::default())),
        Box::new(NodeLifecycle::new(Duration::from_mins(10))),
        Box::new(DisruptionController::new()),
        Box::new(PodGc::default()),
        Box::new(NodeAgent::new(Heartbeats::default())),
        Box::new(PodAgent::default()),
    ];
    controllers.extend(karpenter::controllers(&catalog, KarpenterSettings::default()));
    let (cluster, view) = EmbeddedCluster::new(Arc::clone(registry));
    let cloud = Box::new(SimulatedEc2::new(settings));
    let mut event_loop = EventLoop::new(cluster, cloud, controllers, seed);
    event_loop.start(registry.now(), view);
    event_loop
}

/// Keeps a number of equal pods, as a ReplicaSet does.
struct Replicas {
    wanted: Arc<AtomicUsize>,
    cpu: String,
}

impl Controller for Replicas {
    fn name(&self) -> &'static str {
        "replicas"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<Pod>() {
            queue.now(WorkKey::singleton("replicas"));
        }
    }

    fn start(&mut self, queue: &mut Enqueue) {
        queue.now(WorkKey::singleton("replicas"));
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let mut live: Vec<_> = context
            .view
            .objects_in(Kind::of::<Pod>(), "default")
            .filter(|pod| pod.header().deleting.is_none())
            .collect();
        let mut step = Step::again_after(Duration::from_secs(1));
        live.sort_by_key(|pod| {
            pod.typed::<Pod>().and_then(|pod| pod.spec.clone()?.node_name).is_some()
        });
        for pod in live.iter().take(live.len().saturating_sub(wanted)) {
            step.write(Write::Delete(Delete::of(pod)));
        }
        for _ in live.len()..wanted {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {
                    "generateName": "inflate-", "namespace": "default", "labels": {"app": "inflate"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "inflate",
                        "uid": "5c7f8b1e-0000-4000-8000-000000000001", "controller": true}],
                },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "inflate", "image": "public.ecr.aws/eks-distro/kubernetes/pause:3.7",
                        "resources": {"requests": {"cpu": self.cpu, "memory": "1.5Gi"}}}],
                },
            }))
            .expect("a valid pod");
            step.write(Write::Create(Box::new(pod)));
        }
        step
    }

    fn refused(&mut self, _: &WorkKey, _: &Write, _: &ApiError) -> OnError {
        OnError::Retry
    }
}
