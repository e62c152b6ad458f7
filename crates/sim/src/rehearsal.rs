//! Runs a scenario on a virtual clock: does what is due, jumps to the next wake-up, and prints the
//! same bytes for the same seed.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use serde_json::{Value, json};
use wharf_controllers::event_loop::NeverAtRest;
use wharf_model::balancing::LoadBalancer;
use wharf_model::duration;
use wharf_model::gates::FeatureGates;
use wharf_model::instance::Instance;
use wharf_model::karpenter::NodeClaim;
use wharf_model::kinds::{Kind, Resource};
use wharf_model::money::Money;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::clock::VirtualClock;
use wharf_ports::cluster::{Delete, Part, Propagation, Write};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::metrics::Board;
use wharf_ports::view::View;
use wharf_registry::Registry;
use wharf_scheduler::config::Configuration;
use wharf_schema::decode::{FieldValidation, decode_any, decode_yaml_documents};
use wharf_store::Store;

use crate::ledger::Ledger;
use crate::scenario::{Action, Manifest, Scenario, Target};
use crate::timeline::Timeline;
use crate::world::{Controllers, World, WorldError, WorldSettings};

/// Where every rehearsal begins, so that two runs print the same times: 2026-01-01T00:00:00Z.
pub const START: Time = Time::from_seconds(1_767_225_600);
/// How long a scenario without an end runs after its last step.
const UNTIL_AFTER_LAST_STEP: Duration = Duration::from_secs(30 * 60);
/// Region and seed of a scenario that names none.
const REGION_DEFAULT: &str = "us-east-1";
const SEED_DEFAULT: u64 = 1;

/// What a run may set against the scenario.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// How long to run.
    pub until: Option<Duration>,
    /// The seed.
    pub seed: Option<u64>,
    /// How the scheduler is configured.
    pub scheduler: Configuration,
    /// Which features are on.
    pub gates: FeatureGates,
}

/// Why a rehearsal ended early.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The world could not be put together.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A manifest is not valid.
    #[error("{source_name}: {error}")]
    Manifest {
        /// The file.
        source_name: String,
        /// What is wrong.
        error: String,
    },
    /// A step was refused by the API's rules.
    #[error("step at {at}: {error}")]
    Step {
        /// When.
        at: String,
        /// Why.
        error: String,
    },
    /// The controllers never come to rest: a bug.
    #[error(transparent)]
    NeverAtRest(#[from] NeverAtRest),
}

/// A rehearsal under way. [`Rehearsal::run`] is the whole of it; a narrator may go step by step.
pub struct Rehearsal {
    world: World,
    registry: Arc<Registry>,
    clock: Arc<VirtualClock>,
    timeline: Timeline,
    scenario: Scenario,
    next_step: usize,
    end: Time,
    region: String,
    seed: u64,
}

/// What a rehearsal leaves behind.
pub struct Report {
    /// Name of the scenario.
    pub scenario: String,
    /// Region.
    pub region: String,
    /// Seed.
    pub seed: u64,
    /// Cluster time that passed.
    pub elapsed: Duration,
    /// What happened.
    pub timeline: Timeline,
    /// What it cost.
    pub ledger: Ledger,
    /// How the cluster stood at the end.
    pub end: EndState,
}

/// How a cluster stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndState {
    /// Nodes.
    pub nodes: usize,
    /// NodeClaims.
    pub node_claims: usize,
    /// Running pods.
    pub running: usize,
    /// Pending pods.
    pub pending: usize,
}

impl Rehearsal {
    /// Puts the world together and creates what the scenario has at the start.
    ///
    /// # Errors
    /// If the region is unknown or a manifest is not valid.
    pub fn new(scenario: Scenario, options: &Options) -> Result<Self, RehearsalError> {
        let of_cluster = scenario.cluster.as_ref().map(|config| config.region.clone());
        let region = scenario.region.clone().or(of_cluster);
        let region = region.unwrap_or_else(|| REGION_DEFAULT.to_owned());
        let cluster = scenario.cluster.as_ref().map(|config| config.cluster.clone());
        let seed = options.seed.or(scenario.seed).unwrap_or(SEED_DEFAULT);
        let last_step = scenario.steps.last().map_or(Duration::ZERO, |step| step.at);
        let until = options.until.or(scenario.until).unwrap_or(last_step + UNTIL_AFTER_LAST_STEP);
        let clock = Arc::new(VirtualClock::starting_at(START));
        let registry =
            Registry::new(Store::rehearsal(), clock.clone(), seed).with_gates(options.gates);
        let registry = Arc::new(registry);
        let settings = WorldSettings {
            region: region.clone(),
            seed,
            controllers: Controllers::All,
            scheduler: options.scheduler.clone(),
            vpa_storage: Default::default(),
            metrics_apis: Default::default(),
            cluster: cluster.unwrap_or_default(),
        };
        let world = World::new(Arc::clone(&registry), &settings)?;
        let mut rehearsal = Self {
            world,
            registry,
            clock,
            timeline: Timeline::starting_at(START),
            end: START + until,
            next_step: 0,
            region,
            seed,
            scenario,
        };
        for manifest in rehearsal.scenario.manifests.clone() {
            rehearsal.apply(&manifest)?;
        }
        Ok(rehearsal)
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// If a step is refused, or the controllers never come to rest.
    pub fn run(mut self) -> Result<Report, RehearsalError> {
        while self.advance()? {}
        Ok(self.report())
    }

    /// Does what is due at the present moment and moves the clock to the next; `false` at the end.
    ///
    /// # Errors
    /// As [`Rehearsal::run`].
    pub fn advance(&mut self) -> Result<bool, RehearsalError> {
        self.advance_towards(self.end)
    }

    /// Goes on until a moment, which is not passed even if nothing happens at it.
    ///
    /// # Errors
    /// As [`Rehearsal::run`].
    pub fn run_to(&mut self, moment: Time) -> Result<(), RehearsalError> {
        while self.advance_towards(moment)? {}
        Ok(())
    }

    fn advance_towards(&mut self, end: Time) -> Result<bool, RehearsalError> {
        let now = self.world.now();
        while let Some(step) = self.scenario.steps.get(self.next_step)
            && START + step.at <= now
        {
            let step = step.clone();
            self.next_step += 1;
            self.act(step.at, &step.action)?;
        }
        self.world.run_due(now, &mut self.timeline)?;
        if now >= end {
            return Ok(false);
        }
        let step = self.scenario.steps.get(self.next_step).map(|step| START + step.at);
        let next = [self.world.next_wake(), step].into_iter().flatten().min();
        self.clock.advance_to(next.unwrap_or(end).clamp(now, end));
        Ok(true)
    }

    /// Cluster time.
    pub fn now(&self) -> Time {
        self.world.now()
    }

    /// The world as the controllers see it.
    pub fn view(&self) -> &View {
        self.world.view()
    }

    /// The Events of the cluster, as clients see them.
    pub fn events(&self) -> Vec<Event> {
        let (events, _) = self.registry.store().list(Kind::of::<Event>(), None);
        events.iter().filter_map(|event| event.draft::<Event>()).collect()
    }

    /// What is measured of pods and nodes.
    pub fn board(&self) -> Arc<Board> {
        self.world.board()
    }

    /// What has happened so far; a narrator takes lines from it.
    pub fn timeline_mut(&mut self) -> &mut Timeline {
        &mut self.timeline
    }

    /// What everything has cost so far.
    pub fn ledger(&self) -> Ledger {
        let (view, now) = (self.world.view(), self.world.now());
        Ledger::of(view.list::<Instance>(), now).and_balancers(view.list::<LoadBalancer>(), now)
    }

    /// How the cluster stands.
    pub fn state(&self) -> EndState {
        let view = self.world.view();
        let phase = |wanted: &str| {
            view.list::<Pod>()
                .filter(|pod| {
                    // The simulated controllers' own pods are not part of the scenario.
                    pod.metadata.namespace.as_deref() != Some("kube-system")
                        && pod.status.as_ref().and_then(|status| status.phase.as_deref())
                            == Some(wanted)
                })
                .count()
        };
        EndState {
            nodes: view.count(Kind::of::<Node>()),
            node_claims: view.count(Kind::of::<NodeClaim>()),
            running: phase("Running"),
            pending: phase("Pending"),
        }
    }

    /// Ends the rehearsal.
    pub fn report(self) -> Report {
        let (ledger, end) = (self.ledger(), self.state());
        Report {
            scenario: self.scenario.name,
            region: self.region,
            seed: self.seed,
            elapsed: self.world.now().since(START),
            timeline: self.timeline,
            ledger,
            end,
        }
    }

    fn act(&mut self, at: Duration, action: &Action) -> Result<(), RehearsalError> {
        let now = self.world.now();
        let refused = |error: ApiError| RehearsalError::Step {
            at: duration::format(i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)),
            error: error.to_string(),
        };
        match action {
            Action::Apply(manifests) => {
                for manifest in manifests {
                    for (kind, name) in self.apply(manifest)? {
                        let text = format!("apply {}/{name}", kind.singular);
                        self.timeline.tell(now, "step", format!("{}/{name}", kind.singular), text);
                    }
                }
            }
            Action::Scale { target, replicas } => {
                self.scale(target, *replicas).map_err(refused)?;
                let subject = format!("{}/{}", target.kind.singular, target.key.name);
                let text = format!("scale {subject} to {replicas}");
                self.timeline.tell(now, "step", subject, text);
            }
            Action::Delete(target) => {
                let delete = Delete {
                    kind: target.kind,
                    key: target.key.clone(),
                    uid: None,
                    revision: None,
                    grace_seconds: None,
                    propagation: Propagation::Background,
                };
                self.registry.apply(Write::Delete(delete)).map_err(refused)?;
                let subject = format!("{}/{}", target.kind.singular, target.key.name);
                let text = format!("delete {subject}");
                self.timeline.tell(now, "step", subject, text);
            }
        }
        Ok(())
    }

    /// Creates or replaces every object of a manifest, as `kubectl apply` does for a user who owns
    /// the whole object.
    fn apply(&mut self, manifest: &Manifest) -> Result<Vec<(Kind, String)>, RehearsalError> {
        let invalid = |error: String| RehearsalError::Manifest {
            source_name: manifest.source.clone(),
            error,
        };
        let documents = decode_yaml_documents(&manifest.text, &manifest.source)
            .map_err(|error| invalid(error.to_string()))?;
        let mut applied = Vec::with_capacity(documents.len());
        for document in documents {
            let decoded = decode_any(document, FieldValidation::Strict)
                .map_err(|error| invalid(error.to_string()))?;
            let mut object = decoded.object;
            let kind = object.kind();
            if kind.namespaced && object.meta().namespace.is_none() {
                object.meta_mut().namespace = Some("default".to_owned());
            }
            let name = object.meta().name.clone().unwrap_or_default();
            let again = object.clone_box();
            match self.registry.apply(Write::Create(object)) {
                Err(error) if error.reason == StatusReason::AlreadyExists => {
                    let write = Write::Update { object: again, part: Part::Main };
                    self.registry.apply(write).map_err(|error| invalid(error.to_string()))?;
                }
                result => {
                    result.map_err(|error| invalid(error.to_string()))?;
                }
            }
            applied.push((kind, name));
        }
        Ok(applied)
    }

    fn scale(&self, target: &Target, replicas: i32) -> Result<(), ApiError> {
        if target.kind == Kind::of::<Deployment>() {
            self.rewrite::<Deployment>(&target.key, |deployment| {
                deployment.spec.get_or_insert_default().replicas = Some(replicas);
            })
        } else {
            self.rewrite::<ReplicaSet>(&target.key, |set| {
                set.spec.get_or_insert_default().replicas = Some(replicas);
            })
        }
    }

    fn rewrite<T: Resource>(
        &self,
        key: &ObjectKey,
        change: impl FnOnce(&mut T),
    ) -> Result<(), ApiError> {
        let stored = self.registry.get(T::kind(), key)?;
        let mut object =
            stored.draft::<T>().ok_or_else(|| ApiError::not_found(T::kind(), &key.name))?;
        change(&mut object);
        self.registry
            .apply(Write::Update { object: Box::new(object), part: Part::Main })
            .map(|_| ())
    }
}

impl Report {
    /// For people.
    pub fn to_text(&self) -> String {
        let elapsed = i64::try_from(self.elapsed.as_nanos()).unwrap_or(i64::MAX);
        let EndState { nodes, node_claims, running, pending } = self.end;
        format!(
            "scenario {} in {} with seed {}, {} from {START}\n\n{}\nat the end: {nodes} nodes, {node_claims} nodeclaims, {running} pods running, {pending} pending\n\n{}",
            self.scenario,
            self.region,
            self.seed,
            duration::format(elapsed),
            self.timeline.to_text(),
            self.ledger.to_text(),
        )
    }

    /// For scripts.
    pub fn to_json(&self) -> Value {
        let elapsed = i64::try_from(self.elapsed.as_nanos()).unwrap_or(i64::MAX);
        let EndState { nodes, node_claims, running, pending } = self.end;
        json!({
            "scenario": self.scenario,
            "region": self.region,
            "seed": self.seed,
            "version": env!("CARGO_PKG_VERSION"),
            "start": START.to_string(),
            "elapsed": duration::format(elapsed),
            "timeline": self.timeline.to_json(),
            "end": {"nodes": nodes, "nodeClaims": node_claims, "running": running, "pending": pending},
            "cost": self.ledger.to_json(),
        })
    }

    /// What it all cost.
    pub fn total(&self) -> Money {
        self.ledger.total()
    }
}
