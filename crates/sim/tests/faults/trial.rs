//! One seed's world, run step by step with every invariant checked between any two.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_controllers::event_loop::NoRecorder;
use wharf_controllers::scheduler::snapshot_of;
use wharf_model::instance::{
    Instance, InstanceSpec, InstanceState, InstanceStatus, KubeletArguments,
};
use wharf_model::karpenter::NodeClaim;
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::ObjectKey;
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_ports::clock::VirtualClock;
use wharf_ports::cluster::{Delete, Part, Propagation, Write};
use wharf_registry::{EmbeddedCluster, Registry};
use wharf_scheduler::config::Configuration;
use wharf_scheduler::{Decision, Profile, Rotation, schedule};
use wharf_schema::decode::{FieldValidation, decode_any, decode_yaml_documents};
use wharf_sim::world::{Controllers, World, WorldSettings};
use wharf_store::Store;

use crate::cluster::{Faults, FaultyCluster};
use crate::invariants::Invariants;

const START: Time = Time::from_seconds(1_767_225_600);
const MINUTE: u64 = 60;
/// Where the machines of a world without Karpenter's stand in turn.
const ZONES: [(&str, &str); 2] = [("us-east-1a", "use1-az1"), ("us-east-1b", "use1-az2")];

/// One seed's world and what it has been through.
pub(crate) struct Trial {
    pub(crate) random: Random,
    pub(crate) registry: Arc<Registry>,
    pub(crate) crashes: u32,
    seed: u64,
    settings: WorldSettings,
    clock: Arc<VirtualClock>,
    world: World<FaultyCluster>,
    faults: Faults,
    invariants: Invariants,
    machines: usize,
    /// What somebody does between any two steps.
    meddler: Option<fn(&mut Self)>,
    /// Until when a watch tells nothing.
    stalled_until: Option<Time>,
}

impl Trial {
    pub(crate) fn new(seed: u64, scheduler: Configuration) -> Self {
        Self::with_watches(seed, scheduler, false)
    }

    /// A world in which nothing fails.
    pub(crate) fn without_faults(seed: u64) -> Self {
        Self::with_faults(seed, Configuration::default(), Random::new(seed, 0), Faults::NONE)
    }

    /// The same, with a watch for each kind or one for all.
    pub(crate) fn with_watches(seed: u64, scheduler: Configuration, watch_per_kind: bool) -> Self {
        let mut random = Random::for_purpose(seed, "faults");
        let faults = Faults {
            late: random.below(60),
            repeated: random.below(20),
            refused: random.below(10),
            answer_lost: random.below(6),
            watch_per_kind,
            crashes: true,
        };
        Self::with_faults(seed, scheduler, random, faults)
    }

    fn with_faults(
        seed: u64,
        scheduler: Configuration,
        mut random: Random,
        faults: Faults,
    ) -> Self {
        let clock = Arc::new(VirtualClock::starting_at(START));
        let registry = Arc::new(Registry::new(Store::rehearsal(), clock.clone(), seed));
        let settings = WorldSettings {
            region: "us-east-1".to_owned(),
            seed,
            controllers: Controllers::All,
            scheduler,
            vpa_storage: Default::default(),
            metrics_apis: Default::default(),
            cluster: Default::default(),
        };
        let world = world(&registry, &settings, &mut random, faults);
        let invariants = Invariants::default();
        let (crashes, machines) = (0, 0);
        Self {
            random,
            registry,
            crashes,
            seed,
            settings,
            clock,
            world,
            faults,
            invariants,
            machines,
            meddler: None,
            stalled_until: None,
        }
    }

    /// Has somebody do something between any two steps; `None` is to stop.
    pub(crate) fn meddle(&mut self, meddler: Option<fn(&mut Self)>) {
        self.meddler = meddler;
    }

    /// Has the watch of a kind tell nothing for a while.
    pub(crate) fn stall(&mut self, kind: Kind, seconds: u64) {
        self.world.cluster_mut().stall(Some(kind));
        self.stalled_until = Some(self.registry.now() + Duration::from_secs(seconds));
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled_until.is_some()
    }

    /// What must be told besides when a seed fails.
    pub(crate) fn history(&self) -> (u64, u32) {
        (self.registry.store().revision(), self.crashes)
    }

    /// The seed.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Has the program die after so many writes, if it may at all; `None` leaves it to chance.
    pub(crate) fn die_after(&mut self, writes: Option<u32>) {
        if let Some(writes) = writes.filter(|_| self.faults.crashes) {
            self.world.cluster_mut().die_after(writes);
        }
    }

    /// Has the program live on from now on; all else goes on failing.
    pub(crate) fn live_on(&mut self) {
        self.faults.crashes = false;
        self.world.cluster_mut().live_on();
    }

    /// A number below the bound.
    pub(crate) fn draw(&mut self, bound: u32) -> u32 {
        self.random.below(bound)
    }

    /// Runs for so many minutes of cluster time.
    pub(crate) fn run_for_minutes(&mut self, minutes: u64) {
        self.run_for_seconds(minutes * MINUTE);
    }

    /// Runs for a span of cluster time, restarting after every crash.
    pub(crate) fn run_for_seconds(&mut self, seconds: u64) {
        let end = self.registry.now() + Duration::from_secs(seconds);
        loop {
            let now = self.registry.now();
            if self.stalled_until.is_some_and(|until| until <= now) {
                self.stalled_until = None;
                self.world.cluster_mut().stall(None);
            }
            // One step at a time, so that the invariants are checked between any two.
            while self.world.run_some(now, 1, &mut NoRecorder) && !self.crashed() {
                self.invariants.check(self.registry.store(), now);
                if let Some(meddler) = self.meddler {
                    meddler(self);
                }
            }
            self.invariants.check(self.registry.store(), now);
            if self.crashed() {
                self.crashes += 1;
                self.invariants.restarted();
                self.world = world(&self.registry, &self.settings, &mut self.random, self.faults);
                continue;
            }
            if now >= end {
                return;
            }
            let next = self.world.next_wake().into_iter().chain(self.stalled_until).min();
            self.clock.advance_to(next.unwrap_or(end).clamp(now, end));
        }
    }

    fn crashed(&mut self) -> bool {
        self.world.cluster_mut().crashed()
    }

    /// Nobody is left asleep who could run: for as long as a pod waits (that is not part of a group,
    /// which has rules of its own), a scheduler that knows nothing but the present finds no node for
    /// it. What is on its way, or waits for its back-off, is given time.
    pub(crate) fn nobody_is_stranded(&mut self) {
        const LOOKS: u32 = 5;
        let mut stranded = self.waiting_though_they_would_fit();
        for _ in 1..LOOKS {
            if stranded.is_empty() {
                return;
            }
            self.run_for_seconds(25);
            let still = self.waiting_though_they_would_fit();
            stranded = stranded.intersection(&still).cloned().collect();
        }
        assert!(stranded.is_empty(), "{stranded:?} would fit but wait {}", self.describe());
    }

    fn waiting_though_they_would_fit(&self) -> BTreeSet<ObjectKey> {
        let (_, view) = EmbeddedCluster::new(Arc::clone(&self.registry));
        let mut snapshot = snapshot_of(&view);
        let profile = Profile::default();
        let mut fitting = BTreeSet::new();
        for pod in view.list::<Pod>() {
            let Some(spec) = &pod.spec else { continue };
            let waits = spec.node_name.is_none()
                && spec.scheduling_group.is_none()
                && pod.metadata.deletion_timestamp.is_none();
            if !waits {
                continue;
            }
            let info = snapshot.compile(pod);
            let decision = schedule(&snapshot, &info, &profile, &mut Rotation::default());
            if matches!(decision, Decision::Bind(_)) {
                fitting.insert(info.key.clone());
            }
        }
        fitting
    }

    /// Creates what a manifest has.
    pub(crate) fn apply(&self, yaml: &str) {
        for document in decode_yaml_documents(yaml, "test").expect("valid YAML") {
            let mut object =
                decode_any(document, FieldValidation::Strict).expect("a valid object").object;
            if object.kind().namespaced {
                object.meta_mut().namespace = Some("default".to_owned());
            }
            self.registry.apply(Write::Create(object)).expect("accepted");
        }
    }

    /// Adds a machine of 4 cores that nobody manages; its kubelet registers soon. Returns its name.
    pub(crate) fn add_machine(&mut self) -> String {
        let index = self.machines;
        self.machines += 1;
        let name = format!("n{index}");
        let (zone, zone_id) = ZONES[index % ZONES.len()];
        let amounts = [("cpu", "4"), ("memory", "16Gi"), ("pods", "20")];
        let amounts = amounts.map(|(name, amount)| (name.to_owned(), amount.to_owned()));
        let now = self.registry.now().as_nanos();
        let mut instance = Instance::default();
        instance.spec = InstanceSpec {
            instance_type: "m5.xlarge".to_owned(),
            capacity_type: "on-demand".to_owned(),
            region: self.settings.region.clone(),
            zone: zone.to_owned(),
            zone_id: zone_id.to_owned(),
            private_ip: format!("10.0.0.{}", index + 10),
            private_dns_name: name.clone(),
            price_nanos_per_hour: 192_000_000,
            kubelet: KubeletArguments {
                capacity: amounts.clone().into(),
                allocatable: amounts.into(),
                ..KubeletArguments::default()
            },
            ..InstanceSpec::default()
        };
        instance.status = InstanceStatus {
            state: InstanceState::Running,
            launched_at_nanos: now,
            running_at_nanos: now,
            registers_at_nanos: now,
            ready_at_nanos: now + 1_000_000_000,
            ..InstanceStatus::default()
        };
        instance.metadata.name = Some(format!("i-{index:017x}"));
        self.registry.apply(Write::Create(Box::new(instance))).expect("accepted");
        name
    }

    /// Scales a Deployment or StatefulSet, whichever is of that name.
    pub(crate) fn scale(&self, name: &str, replicas: u32) {
        let key = ObjectKey::namespaced("default", name);
        let replicas = Some(i32::try_from(replicas).expect("a small number"));
        let write = if let Ok(object) = self.registry.get(Kind::of::<Deployment>(), &key) {
            let mut deployment = object.draft::<Deployment>().expect("a Deployment");
            deployment.metadata.resource_version = None;
            deployment.spec.get_or_insert_default().replicas = replicas;
            Write::Update { object: Box::new(deployment), part: Part::Main }
        } else {
            let object = self.registry.get(Kind::of::<StatefulSet>(), &key).expect("there");
            let mut set = object.draft::<StatefulSet>().expect("a StatefulSet");
            set.metadata.resource_version = None;
            set.spec.get_or_insert_default().replicas = replicas;
            Write::Update { object: Box::new(set), part: Part::Main }
        };
        self.registry.apply(write).expect("accepted");
    }

    /// Deletes an object of the default namespace.
    pub(crate) fn delete<T: Resource>(&self, name: &str) {
        let delete = Delete {
            kind: T::kind(),
            key: ObjectKey::namespaced("default", name),
            uid: None,
            revision: None,
            grace_seconds: None,
            propagation: Propagation::Background,
        };
        self.registry.apply(Write::Delete(delete)).expect("there");
    }

    pub(crate) fn count<T: Resource>(&self, wanted: impl Fn(&T) -> bool) -> usize {
        let (objects, _) = self.registry.store().list(T::kind(), None);
        objects.iter().filter_map(|object| object.typed::<T>()).filter(|one| wanted(one)).count()
    }

    /// How many pods there are in the default namespace.
    pub(crate) fn pods(&self) -> usize {
        self.count::<Pod>(|pod| pod.metadata.namespace.as_deref() == Some("default"))
    }

    /// How many of them run and are not on their way out.
    pub(crate) fn running(&self) -> usize {
        self.count::<Pod>(|pod| {
            pod.metadata.namespace.as_deref() == Some("default")
                && pod.metadata.deletion_timestamp.is_none()
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        })
    }

    /// How the cluster stands, for a failure's message.
    pub(crate) fn describe(&self) -> String {
        let store = self.registry.store();
        let mut text = format!("at {} in the world of seed {}\n", self.registry.now(), self.seed);
        for kind in [
            Kind::of::<Pod>(),
            Kind::of::<Node>(),
            Kind::of::<NodeClaim>(),
            Kind::of::<Instance>(),
            Kind::of::<HorizontalPodAutoscaler>(),
        ] {
            for object in store.list(kind, None).0.iter().take(12) {
                let json: serde_json::Value =
                    serde_json::from_slice(object.json()).expect("its own JSON");
                text.push_str(&format!(
                    "{kind} {} node {} {}\n",
                    object.key(),
                    json["spec"]["nodeName"],
                    json["status"]
                ));
            }
        }
        text
    }
}

/// A world that crashes after a drawn number of writes; sometimes it never does.
fn world(
    registry: &Arc<Registry>,
    settings: &WorldSettings,
    random: &mut Random,
    faults: Faults,
) -> World<FaultyCluster> {
    let stream = random.next_u64();
    let writes = (faults.crashes && random.below(4) > 0).then(|| 1 + random.below(150));
    World::on(Arc::clone(registry), settings, |cluster| {
        FaultyCluster::new(cluster, Random::new(settings.seed, stream), faults, writes)
    })
    .expect("a known region")
}
