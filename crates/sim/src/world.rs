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
use wharf_controllers::event_loop::{EventLoop, NeverAtRest, Recorder};
use wharf_controllers::karpenter::{self, KarpenterSettings};
use wharf_controllers::scheduler::Scheduler;
use wharf_controllers::workloads;
use wharf_model::labels;
use wharf_model::object::Object;
use wharf_model::time::Time;
use wharf_node::kubelet::{Heartbeats, NodeAgent};
use wharf_node::pods::PodAgent;
use wharf_ports::cluster::{Cluster, Part, Write};
use wharf_ports::controller::Controller;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;
use wharf_registry::{EmbeddedCluster, Registry};
use wharf_scheduler::Profile;

/// How long a node may be silent before it is taken for lost: kube-controller-manager's
/// `--node-monitor-grace-period`.
const NODE_GRACE_PERIOD: Duration = Duration::from_secs(50);
/// The component that logs as Karpenter's users know it.
const COMPONENT: &str = "karpenter";
/// Where the control plane's pods are said to run: no node of that name exists.
const CONTROL_PLANE_NODE: &str = "wharf-control-plane";

/// What a world is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldSettings {
    /// EC2 region.
    pub region: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Which controllers run.
    pub controllers: Controllers,
}

/// Which controllers run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Controllers {
    /// All there are.
    #[default]
    All,
    /// Those of these names ([`Controller::name`]), for measuring one of them, or where others are
    /// run by someone else.
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
        let controllers = settings.controllers.choose(controllers(&catalog))?;
        registry.bootstrap()?;
        if settings.controllers == Controllers::All {
            create_control_plane_pod(&registry)?;
        }
        let cloud = SimulatedEc2::new(Ec2Settings::new(settings.region.as_str(), settings.seed));
        let (cluster, view) = EmbeddedCluster::new(Arc::clone(&registry));
        let mut event_loop =
            EventLoop::new(wrap(cluster), Box::new(cloud), controllers, settings.seed);
        event_loop.start(registry.now(), view);
        Ok(Self { registry, event_loop })
    }

    /// Cluster time.
    pub fn now(&self) -> Time {
        self.registry.now()
    }

    /// The world as the controllers see it.
    pub fn view(&self) -> &View {
        self.event_loop.view()
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
    fn choose(
        &self,
        mut controllers: Vec<Box<dyn Controller>>,
    ) -> Result<Vec<Box<dyn Controller>>, WorldError> {
        let Self::Only(names) = self else { return Ok(controllers) };
        let known: Vec<_> = controllers.iter().map(|controller| controller.name()).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(WorldError::Controller { unknown: unknown.clone(), known });
        }
        controllers.retain(|controller| names.contains(controller.name()));
        Ok(controllers)
    }
}

/// Every controller of a simulated world, in a fixed order: events reach them in it.
fn controllers(catalog: &Arc<Catalog>) -> Vec<Box<dyn Controller>> {
    let mut controllers = workloads::controllers(NODE_GRACE_PERIOD);
    controllers.push(Box::new(Scheduler::new(Profile::default())));
    controllers.extend(karpenter::controllers(catalog, KarpenterSettings::default()));
    controllers.push(Box::new(NodeAgent::new(Heartbeats::default())));
    controllers.push(Box::new(PodAgent::new()));
    controllers
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
    fn controllers_are_chosen_by_name() {
        let all = || controllers(&Arc::new(Catalog::load("us-east-1").expect("there is one")));
        let only = |name: &str| Controllers::Only([name.to_owned()].into());
        let chosen = only("scheduler").choose(all()).expect("it is known");
        assert_eq!(chosen.iter().map(|one| one.name()).collect::<Vec<_>>(), ["scheduler"]);
        assert_eq!(Controllers::All.choose(all()).expect("all").len(), all().len());
        let error = only("schedular").choose(all()).err().expect("a typo").to_string();
        assert!(error.starts_with("there is no controller \"schedular\"; there are "), "{error}");
        assert!(error.contains("scheduler"), "{error}");
    }
}
