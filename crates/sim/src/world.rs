//! A world: registry, controllers, simulated cloud and kubelets on one event loop. The lab and the
//! rehearsal run exactly this; they differ in the clock and in who else writes to the registry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStatus, Pod, PodCondition, PodSpec,
    PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_cloud::catalog::{Catalog, UnknownRegion};
use wharf_cloud::ec2::{Ec2Settings, SimulatedEc2};
use wharf_cloud::none::NoCloud;
use wharf_controllers::cpa::ProportionalAutoscalers;
use wharf_controllers::elb::{self, ElbSettings};
use wharf_controllers::event_loop::{EventLoop, NeverAtRest, Recorder};
use wharf_controllers::fargate::{self, FargateSettings};
use wharf_controllers::hpa::{self, HorizontalPodAutoscalers};
use wharf_controllers::karpenter::{self, KarpenterSettings};
use wharf_controllers::nodegroups::{self, NodegroupSettings};
use wharf_controllers::scheduler::{Scheduler, SchedulerMetrics};
use wharf_controllers::vpa::Storage;
use wharf_controllers::{storage, vpa, workloads};
use wharf_model::auto_mode::Cluster as EksCluster;
use wharf_model::gates::FeatureGates;
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::Object;
use wharf_model::time::Time;
use wharf_node::kubelet::{Heartbeats, KubeletCertificates, NodeAgent};
use wharf_node::monitor::MonitoringAgent;
use wharf_node::pods::PodAgent;
use wharf_ports::cloud::Cloud;
use wharf_ports::cluster::{Cluster, Part, Write};
use wharf_ports::controller::Controller;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::extender::ExtenderCalls;
use wharf_ports::history::HistoryCalls;
use wharf_ports::metrics::{Board, Metrics, MetricsApis, Served};
use wharf_ports::view::View;
use wharf_registry::{EmbeddedCluster, Registry};
use wharf_scheduler::config::Configuration;

use crate::cluster::{self, Cluster as ClusterStart};

/// How long a node may be silent before it is taken for lost: kube-controller-manager's
/// `--node-monitor-grace-period`.
const NODE_GRACE_PERIOD: Duration = Duration::from_secs(50);
/// The component that logs as Karpenter's users know it.
pub const COMPONENT: &str = "karpenter";
/// Where the control plane's pods are said to run: no node of that name exists.
const CONTROL_PLANE_NODE: &str = "wharf-control-plane";

/// What a world is made with.
#[derive(Clone, Debug, PartialEq)]
pub struct WorldSettings {
    /// EC2 region.
    pub region: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Which controllers run.
    pub controllers: Controllers,
    /// How the scheduler is configured.
    pub scheduler: Configuration,
    /// With what the Vertical Pod Autoscaler's recommender begins.
    pub vpa_storage: Storage,
    /// Which metrics APIs there are.
    pub metrics_apis: MetricsApis,
    /// What the cluster begins with.
    pub cluster: ClusterStart,
}

/// Which controllers run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Controllers {
    /// All there are.
    #[default]
    All,
    /// Those of these names or groups, for measuring one of them, or where others are run by someone
    /// else. Without Karpenter there is no simulated cloud either.
    Only(BTreeSet<String>),
}

/// Why a world cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// There is no such region.
    #[error(transparent)]
    Region(#[from] UnknownRegion),
    /// There is no such controller.
    #[error("there is no controller {unknown:?}; there are {}", known.join(", "))]
    Controller {
        /// The name asked for.
        unknown: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// The registry refused what every cluster begins with.
    #[error("the cluster cannot be set up: {0}")]
    Setup(#[from] ApiError),
}

/// A world, on the cluster adapter `C`: fault injection puts its own between loop and registry.
pub struct World<C = EmbeddedCluster> {
    registry: Arc<Registry>,
    event_loop: EventLoop<C>,
    metrics: Arc<SchedulerMetrics>,
    board: Arc<Board>,
}

/// Where the kubelets tell what is used, and where the autoscalers read it. In a simulated world
/// the two are one.
#[derive(Clone)]
pub struct Measures {
    /// Where usage is told.
    pub board: Arc<Board>,
    /// Where it is read.
    pub metrics: Arc<dyn Metrics>,
    /// Where the past is read.
    pub storage: Storage,
}

impl Measures {
    /// Usage is read where it is told.
    pub fn on(board: &Arc<Board>) -> Self {
        let metrics = Arc::clone(board) as Arc<dyn Metrics>;
        Self { board: Arc::clone(board), metrics, storage: Storage::default() }
    }

    /// The same with some of the APIs left out.
    #[must_use]
    pub fn served(self, apis: MetricsApis) -> Self {
        if apis == MetricsApis::ALL {
            return self;
        }
        Self { metrics: Arc::new(Served { metrics: self.metrics, apis }), ..self }
    }
}

impl World {
    /// Creates what every cluster begins with, and starts every controller on the world as it
    /// stands: a new one, or one that was stopped at any moment.
    ///
    /// # Errors
    /// If the region or a controller is unknown.
    pub fn new(registry: Arc<Registry>, settings: &WorldSettings) -> Result<Self, WorldError> {
        Self::on(registry, settings, |cluster| cluster)
    }
}

impl<C: Cluster> World<C> {
    /// The same with the cluster adapter wrapped in another.
    ///
    /// # Errors
    /// As [`World::new`].
    pub fn on(
        registry: Arc<Registry>,
        settings: &WorldSettings,
        wrap: impl FnOnce(EmbeddedCluster) -> C,
    ) -> Result<Self, WorldError> {
        let catalog = Arc::new(Catalog::load(&settings.region)?);
        let scheduler = Scheduler::new(settings.scheduler.clone());
        let metrics = scheduler.metrics();
        let board = Board::new();
        let measures = Measures { storage: settings.vpa_storage, ..Measures::on(&board) };
        let measures = measures.served(settings.metrics_apis);
        let gates = registry.gates();
        let all =
            controllers(&catalog, &settings.cluster, scheduler, settings.seed, &measures, gates);
        let chosen = choose(&settings.controllers, all)?;
        registry.bootstrap()?;
        if settings.controllers.run_cloud() {
            create_cloud_objects(&registry, &catalog, &settings.cluster)?;
        }
        let cloud: Box<dyn Cloud> = if settings.controllers.run_cloud() {
            let vcpus_max = settings.cluster.fargate_vcpus_max;
            Box::new(simulated_cloud(&settings.region, settings.seed, vcpus_max))
        } else {
            Box::new(NoCloud::default())
        };
        let (cluster, view) = EmbeddedCluster::new(Arc::clone(&registry));
        let controllers = chosen.into_iter().map(|(_, controller)| controller).collect();
        let mut event_loop = EventLoop::new(wrap(cluster), cloud, controllers, settings.seed);
        event_loop.start(registry.now(), view);
        Ok(Self { registry, event_loop, metrics, board })
    }

    /// Has the scheduler's questions to extenders asked.
    pub fn ask_extenders_with(&mut self, calls: Box<dyn ExtenderCalls>) {
        self.event_loop.ask_extenders_with(calls);
    }

    /// Has questions about the past asked.
    pub fn ask_history_with(&mut self, calls: Box<dyn HistoryCalls>) {
        self.event_loop.ask_history_with(calls);
    }

    /// Cluster time.
    pub fn now(&self) -> Time {
        self.registry.now()
    }

    /// The world as the controllers see it.
    pub fn view(&self) -> &View {
        self.event_loop.view()
    }

    /// What is measured of pods and nodes.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// What the scheduler tells of its work.
    pub fn scheduler_metrics(&self) -> Arc<SchedulerMetrics> {
        Arc::clone(&self.metrics)
    }

    /// The cluster adapter.
    pub fn cluster_mut(&mut self) -> &mut C {
        self.event_loop.cluster_mut()
    }

    /// When there is something to do next.
    pub fn next_wake(&self) -> Option<Time> {
        self.event_loop.next_wake()
    }

    /// Does what is due, at most `steps_max` steps; returns whether more is due.
    pub fn run_some(&mut self, now: Time, steps_max: u64, recorder: &mut dyn Recorder) -> bool {
        self.event_loop.run_some(now, steps_max, recorder)
    }

    /// Does all that is due.
    ///
    /// # Errors
    /// If the controllers never come to rest.
    pub fn run_due(&mut self, now: Time, recorder: &mut dyn Recorder) -> Result<(), NeverAtRest> {
        self.event_loop.run_due(now, recorder)
    }
}

impl Controllers {
    /// The choice that a list of names makes: `all`, `none`, or groups and controllers.
    pub fn named(names: &str) -> Self {
        match names {
            "all" => Self::All,
            "none" => Self::Only(BTreeSet::new()),
            _ => {
                let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
                Self::Only(names.map(str::to_owned).collect())
            }
        }
    }

    /// Whether the simulated kubelets are among what is chosen.
    pub fn run_kubelets(&self) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(KUBELET),
        }
    }

    /// Whether the scheduler is among what is chosen.
    pub fn run_scheduler(&self) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(SCHEDULER),
        }
    }

    /// Whether nothing is chosen.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(names) if names.is_empty())
    }

    /// Whether the simulated cloud is among what is chosen: it is where Karpenter is, since two of
    /// them would both move the machines on.
    pub fn run_cloud(&self) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(KARPENTER),
        }
    }
}

/// The simulated EC2 as every world has it, with a quota of Fargate's vCPUs if there is one.
pub fn simulated_cloud(region: &str, seed: u64, fargate_vcpus_max: Option<u32>) -> SimulatedEc2 {
    SimulatedEc2::new(Ec2Settings { fargate_vcpus_max, ..Ec2Settings::new(region, seed) })
}

/// The chosen controllers of a world, for one that is put together elsewhere: over a remote
/// cluster.
///
/// # Errors
/// If the region or a controller is unknown.
pub fn chosen_controllers(
    region: &str,
    choice: &Controllers,
    scheduler: Scheduler,
    seed: u64,
    measures: &Measures,
    gates: FeatureGates,
) -> Result<Vec<Box<dyn Controller>>, WorldError> {
    let catalog = Arc::new(Catalog::load(region)?);
    let all = controllers(&catalog, &ClusterStart::default(), scheduler, seed, measures, gates);
    let chosen = choose(choice, all)?;
    Ok(chosen.into_iter().map(|(_, controller)| controller).collect())
}

/// A controller with the group it belongs to: upstream has a program for each group.
type Grouped = (&'static str, Box<dyn Controller>);

const WORKLOADS: &str = "workloads";
const SCHEDULER: &str = "scheduler";
const KARPENTER: &str = "karpenter";
const FARGATE: &str = "fargate";
const NODEGROUPS: &str = nodegroups::NAME;
const LOAD_BALANCING: &str = "load-balancing";
const STORAGE: &str = "storage";
const KUBELET: &str = "kubelet";
const AUTOSCALING: &str = "autoscaling";
/// The groups whose controllers can be chosen one by one.
const APART: [&str; 2] = [WORKLOADS, AUTOSCALING];

/// Every controller of a simulated world, in a fixed order: events reach them in it.
fn controllers(
    catalog: &Arc<Catalog>,
    cluster: &ClusterStart,
    scheduler: Scheduler,
    seed: u64,
    measures: &Measures,
    gates: FeatureGates,
) -> Vec<Grouped> {
    let in_group = |group| move |controller| (group, controller);
    let mut controllers: Vec<Grouped> =
        workloads::controllers(NODE_GRACE_PERIOD).into_iter().map(in_group(WORKLOADS)).collect();
    let config = hpa::Config { scale_to_zero: gates.hpa_scale_to_zero, ..Default::default() };
    let autoscaler = HorizontalPodAutoscalers::new(config, Arc::clone(&measures.metrics));
    controllers.push((AUTOSCALING, Box::new(autoscaler)));
    let vertical = vpa::controllers(Arc::clone(&measures.metrics), measures.storage, gates.vpa);
    controllers.extend(vertical.into_iter().map(in_group(AUTOSCALING)));
    controllers.push((SCHEDULER, Box::new(scheduler)));
    let settings = KarpenterSettings {
        cluster_name: cluster.name.clone(),
        node_repair: gates.node_repair,
        ..KarpenterSettings::default()
    };
    let karpenter = karpenter::controllers(catalog, settings);
    controllers.extend(karpenter.into_iter().map(in_group(KARPENTER)));
    let settings = FargateSettings {
        cluster_name: cluster.name.clone(),
        patch_every: cluster.fargate_patch_every,
        ..FargateSettings::new(catalog.region().name, catalog.price_factor(), seed)
    };
    controllers.extend(fargate::controllers(settings).into_iter().map(in_group(FARGATE)));
    let settings = NodegroupSettings {
        cluster_name: cluster.name.clone(),
        account: fargate::ACCOUNT.to_owned(),
        catalog: Arc::clone(catalog),
    };
    controllers.extend(nodegroups::controllers(settings).into_iter().map(in_group(NODEGROUPS)));
    let settings = ElbSettings::new(&cluster.name, catalog.region().name, catalog.price_factor());
    controllers.extend(elb::controllers(settings).into_iter().map(in_group(LOAD_BALANCING)));
    controllers.extend(storage::controllers(seed).into_iter().map(in_group(STORAGE)));
    let kubelets = NodeAgent::new(Heartbeats::default());
    let kubelets = kubelets.asking_for_certificates(cluster.kubelet_certificates);
    controllers.push((KUBELET, Box::new(kubelets)));
    controllers.push((KUBELET, Box::new(KubeletCertificates)));
    controllers.push((KUBELET, Box::new(MonitoringAgent::new(gates.node_repair))));
    controllers.push((KUBELET, Box::new(PodAgent::new(Arc::clone(&measures.board)))));
    // What some pods' programs do to the cluster.
    controllers.push((KUBELET, Box::new(ProportionalAutoscalers::default())));
    controllers
}

/// Those that are chosen, by the name of their group or their own. Karpenter's work together and
/// are chosen together, as are the kubelets'.
fn choose(choice: &Controllers, mut controllers: Vec<Grouped>) -> Result<Vec<Grouped>, WorldError> {
    let Controllers::Only(names) = choice else { return Ok(controllers) };
    let mut known: Vec<&'static str> = vec![
        WORKLOADS,
        AUTOSCALING,
        SCHEDULER,
        KARPENTER,
        FARGATE,
        NODEGROUPS,
        LOAD_BALANCING,
        STORAGE,
        KUBELET,
    ];
    let apart = controllers.iter().filter(|(group, _)| APART.contains(group));
    known.extend(apart.map(|(_, controller)| controller.name()));
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(WorldError::Controller { unknown: unknown.clone(), known });
    }
    controllers.retain(|(group, controller)| {
        names.contains(*group) || (APART.contains(group) && names.contains(controller.name()))
    });
    Ok(controllers)
}

/// Creates what a cluster in the simulated cloud has besides: Karpenter's pod, the VPC, Fargate
/// profiles, and the storage add-on's objects.
///
/// # Errors
/// The API's refusal. That something is there already is none.
pub fn create_cloud_objects(
    registry: &Registry,
    catalog: &Catalog,
    cluster: &ClusterStart,
) -> Result<(), ApiError> {
    // Auto Mode's controllers run where nobody sees them: a fresh cluster has no pod at all.
    let was_in_auto_mode = registry.store().count(Kind::of::<EksCluster>()) > 0;
    let is_hidden = match &cluster.auto_mode {
        Some(auto_mode) => !auto_mode.with_karpenter,
        None => was_in_auto_mode,
    };
    if !is_hidden {
        create_control_plane_pod(registry)?;
    }
    cluster::create(registry, catalog, cluster)?;
    crate::addons::create_storage(registry)
}

/// Karpenter's own pod, so that `kubectl logs` finds its log where its users look for it. It runs
/// outside the cluster's nodes, as EKS runs what it manages; the mirror annotation, which marks
/// pods that no API client controls, keeps the garbage collectors off it.
fn create_control_plane_pod(registry: &Registry) -> Result<(), ApiError> {
    let name = "karpenter-7d9c8f6b5-wharf";
    let labels = [("app.kubernetes.io/instance", COMPONENT), ("app.kubernetes.io/name", COMPONENT)];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let now = registry.now().to_meta();
    let condition = |kind: &str| PodCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now.clone()),
        ..PodCondition::default()
    };
    let running = ContainerState {
        running: Some(ContainerStateRunning { started_at: Some(now.clone()) }),
        ..ContainerState::default()
    };
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("kube-system".to_owned()),
            labels: Some(labels.into_iter().map(owned).collect()),
            annotations: Some([owned((labels::MIRROR_POD, COMPONENT))].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "controller".to_owned(),
                image: Some("public.ecr.aws/karpenter/controller:1.14.0".to_owned()),
                ..Container::default()
            }],
            node_name: Some(CONTROL_PLANE_NODE.to_owned()),
            priority_class_name: Some("system-cluster-critical".to_owned()),
            ..PodSpec::default()
        }),
        status: None,
    };
    let created = match registry.apply(Write::Create(Box::new(pod))) {
        Err(error) if error.reason == StatusReason::AlreadyExists => return Ok(()),
        created => created?,
    };
    let Some(mut pod) = created.and_then(|object| object.draft::<Pod>()) else { return Ok(()) };
    let types =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    pod.status = Some(PodStatus {
        phase: Some("Running".to_owned()),
        conditions: Some(types.into_iter().map(condition).collect()),
        container_statuses: Some(vec![ContainerStatus {
            name: "controller".to_owned(),
            image: "public.ecr.aws/karpenter/controller:1.14.0".to_owned(),
            ready: true,
            started: Some(true),
            state: Some(running),
            ..ContainerStatus::default()
        }]),
        start_time: Some(now),
        ..pod.status.unwrap_or_default()
    });
    registry.apply(Write::Update { object: Box::new(pod), part: Part::Status }).map(|_| ())
}

/// The component whose log a pod of the control plane shows; `None` for every other pod.
pub fn component_of(pod: &Object) -> Option<&'static str> {
    (pod.key().namespace == "kube-system"
        && pod.header().label("app.kubernetes.io/name") == Some(COMPONENT))
    .then_some(COMPONENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_by_name_or_group() {
        let all = || {
            let catalog = Arc::new(Catalog::load("us-east-1").expect("there is one"));
            let measures = Measures::on(&Board::new());
            let scheduler = Scheduler::new(Configuration::default());
            let gates = FeatureGates::default();
            controllers(&catalog, &ClusterStart::default(), scheduler, 1, &measures, gates)
        };
        let names = |choice: &str| -> Vec<&str> {
            let chosen = choose(&Controllers::named(choice), all()).expect("they are known");
            chosen.iter().map(|(_, controller)| controller.name()).collect()
        };
        assert_eq!(names("scheduler"), ["scheduler"]);
        assert_eq!(
            names("kubelet, scheduler"),
            [
                "scheduler",
                "kubelet",
                "kubelet-certificates",
                "eks-node-monitoring-agent",
                "kubelet-pods",
                "cluster-proportional-autoscaler"
            ]
        );
        assert_eq!(names("pod-garbage-collector"), ["pod-garbage-collector"]);
        assert_eq!(
            names("horizontal-pod-autoscaler-controller"),
            ["horizontal-pod-autoscaler-controller"]
        );
        assert_eq!(names("none"), Vec::<&str>::new());
        assert_eq!(names("all").len(), all().len());
        assert_eq!(
            names(
                "workloads,autoscaling,scheduler,karpenter,fargate,nodegroups,load-balancing,storage,kubelet"
            )
            .len(),
            all().len()
        );
        let error = choose(&Controllers::named("schedular"), all()).err().expect("a typo");
        let error = error.to_string();
        assert!(error.starts_with("there is no controller \"schedular\"; there are "), "{error}");
        assert!(
            error.contains(
                "workloads, autoscaling, scheduler, karpenter, fargate, nodegroups, load-balancing, storage, kubelet, "
            ),
            "{error}"
        );
    }
}
