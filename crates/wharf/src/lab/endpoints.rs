//! The lab's own endpoints under `/wharf/v1/`, for the command line: clock, reasons, ledger.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use parking_lot::Mutex;
use serde_json::{Value, json};
use wharf_cloud::catalog::Catalog;
use wharf_controllers::fargate;
use wharf_controllers::journal::Journal;
use wharf_controllers::karpenter::{KarpenterSettings, review};
use wharf_controllers::metrics::MEDIA_TYPE;
use wharf_controllers::scheduler::SchedulerMetrics;
use wharf_model::balancing::LoadBalancer;
use wharf_model::instance::Instance;
use wharf_model::karpenter::NodePool;
use wharf_model::kinds::{Kind, built_in};
use wharf_model::object::{Object, ObjectKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::metrics::Board;
use wharf_ports::view::View;
use wharf_registry::Registry;
use wharf_scheduler::Profile;
use wharf_server::{Extra, ExtraRequest, ExtraResponse, Later};
use wharf_sim::cluster::Cluster;
use wharf_sim::ledger::Ledger;
use wharf_sim::scenario::Target;
use wharf_sim::why::{self, Telling};
use wharf_sim::world::create_cloud_objects;

use super::balancers::Balancers;
use super::clock::{Reading, ScaledClock};
use super::collected_logs::{self, CollectedLogs};
use super::shared_board::{self, News};
use super::shared_journal::{self, Entry};
use super::state_metrics::{self, karpenter};

/// The endpoints.
pub(super) struct LabEndpoints {
    pub(super) registry: Arc<Registry>,
    pub(super) clock: Arc<ScaledClock>,
    pub(super) journal: Arc<Mutex<Journal>>,
    pub(super) collected: Arc<CollectedLogs>,
    pub(super) metrics: Arc<SchedulerMetrics>,
    pub(super) board: Arc<Board>,
    /// What Karpenter has done.
    pub(super) machines: Arc<karpenter::Counters>,
    pub(super) cluster_name: String,
    pub(super) catalog: Arc<Catalog>,
    /// The scheduler's profiles.
    pub(super) profiles: Vec<Profile>,
    pub(super) cloud_is_elsewhere: bool,
    pub(super) balancers: Arc<Balancers>,
}

impl LabEndpoints {
    /// Takes in what kubelets in another process measure.
    fn measured(&self, body: &[u8]) -> Result<Value, ApiError> {
        let news: Vec<News> = serde_json::from_slice(body)
            .map_err(|error| refusal(format!("what was measured is not valid: {error}")))?;
        for news in news {
            self.board.take(news.into());
        }
        Ok(json!({}))
    }

    /// Takes in what controllers in another process say.
    fn journal(&self, body: &[u8]) -> Result<Value, ApiError> {
        let entries: Vec<Entry> = serde_json::from_slice(body)
            .map_err(|error| refusal(format!("the journal's entries are not valid: {error}")))?;
        let mut journal = self.journal.lock();
        for entry in entries {
            entry.tell(&mut journal);
        }
        Ok(json!({}))
    }

    /// Welcomes a simulated cloud in another process: two of them would both move the machines on.
    fn cloud(&self) -> Result<Value, ApiError> {
        if !self.cloud_is_elsewhere {
            return Err(ApiError::new(
                StatusReason::Conflict,
                "this lab has a cloud of its own; start it with `wharf up --controllers none`",
            ));
        }
        let cluster = Cluster { name: self.cluster_name.clone(), ..Cluster::default() };
        create_cloud_objects(&self.registry, &self.catalog, &cluster)?;
        Ok(json!({}))
    }

    async fn clock(&self, body: &[u8]) -> Result<Value, ApiError> {
        if !body.is_empty() {
            let order: Value = serde_json::from_slice(body)
                .map_err(|error| refusal(format!("the order is not JSON: {error}")))?;
            let span = |nanos: &Value| nanos.as_u64().map(Duration::from_nanos);
            match (order["do"].as_str(), span(&order["nanos"]), order["speed"].as_u64()) {
                (Some("pause"), ..) => self.clock.set_paused(true),
                (Some("resume"), ..) => self.clock.set_paused(false),
                (Some("step"), Some(span), _) => {
                    self.clock.step(span);
                    self.clock.stepped().await;
                }
                (Some("speed"), _, Some(speed)) => {
                    self.clock.set_speed(u32::try_from(speed).unwrap_or(u32::MAX));
                }
                _ => {
                    return Err(refusal(
                        "the clock takes pause, resume, step and speed".to_owned(),
                    ));
                }
            }
        }
        Ok(show(self.clock.read()))
    }

    fn why(&self, request: &ExtraRequest<'_>) -> Result<ExtraResponse, ApiError> {
        let target = Target::parse(request.query.text("object"), request.query.get("namespace"))
            .map_err(refusal)?;
        let now = self.clock.read().now;
        let object = self.registry.store().get(target.kind, &target.key);
        let instances = self.instances();
        let machines = instances.iter().filter_map(|object| object.typed::<Instance>());
        let journal = self.journal.lock();
        let answer = why::answer(&target, object.as_deref(), machines, &journal, now);
        drop(journal);
        let mut answer =
            answer.ok_or_else(|| ApiError::not_found(target.kind, &target.key.name))?;
        if let Some(pod) = object.as_ref().and_then(|object| object.typed::<Pod>())
            && let Some(name) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref())
            && let Some(node) =
                self.registry.store().get(Kind::of::<Node>(), &ObjectKey::cluster(name))
            && let Some(node) = node.typed::<Node>()
        {
            answer = answer.with_kernel(pod, node);
        }
        if let Some(pod) = object.as_ref().and_then(|object| object.typed::<Pod>())
            && let view = self.view()
            && let Some(chances) = why::pod_review(pod, &view, &self.profiles)
        {
            let buys = self.registry.store().count(Kind::of::<NodePool>()) > 0;
            let outlook = (buys && !chances.has_place())
                .then(|| review(&view, &self.catalog, KarpenterSettings::default(), pod, now));
            let telling = Telling {
                every_node: request.query.get("nodes") == Some("all"),
                catalog: Some(&self.catalog),
                outlook: outlook.as_ref(),
            };
            let waits = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
            answer = answer.with_chances(&chances, waits, telling);
            let settings = KarpenterSettings {
                cluster_name: self.cluster_name.clone(),
                ..KarpenterSettings::default()
            };
            let outlook =
                outlook.or_else(|| buys.then(|| review(&view, &self.catalog, settings, pod, now)));
            let cluster = why::Cluster {
                name: &self.cluster_name,
                catalog: &self.catalog,
                profiles: &self.profiles,
            };
            let takers = why::takers(pod, &chances, outlook.as_ref(), cluster, &view);
            answer = answer.with_takers(takers);
            if waits && let Some(taker) = fargate::who_takes(pod, &view) {
                answer = answer.with_fargate(taker);
            }
        }
        Ok(if request.query.get("output") == Some("json") {
            ExtraResponse::Json(answer.to_json().to_string().into())
        } else {
            ExtraResponse::Text(answer.to_text())
        })
    }

    /// The cluster as it is, for a question that the controllers have not been asked.
    fn view(&self) -> View {
        let mut view = View::new();
        for kind in built_in().iter().filter(|kind| **kind != Kind::of::<Event>()) {
            for object in self.registry.store().list(*kind, None).0 {
                view.load(object);
            }
        }
        view
    }

    fn ledger(&self) -> Value {
        let instances = self.instances();
        let machines = instances.iter().filter_map(|object| object.typed::<Instance>());
        let now = self.clock.read().now;
        let (balancers, _) = self.registry.store().list(Kind::of::<LoadBalancer>(), None);
        let balancers = balancers.iter().filter_map(|object| object.typed::<LoadBalancer>());
        Ledger::of(machines, now).and_balancers(balancers, now).to_json()
    }

    fn instances(&self) -> Vec<Arc<Object>> {
        self.registry.store().list(Kind::of::<Instance>(), None).0
    }
}

impl Extra for LabEndpoints {
    fn metrics(&self) -> Option<(&'static str, String)> {
        let now = self.clock.read().now;
        let state = state_metrics::text(self.registry.store(), &self.board, &self.machines, now);
        Some((MEDIA_TYPE, self.metrics.to_text() + &state))
    }

    fn handle<'a>(&'a self, request: ExtraRequest<'a>) -> Later<'a, Option<ExtraResponse>> {
        Box::pin(async move {
            let json = |value: Value| ExtraResponse::Json(value.to_string().into());
            let answer = match (request.method.as_str(), request.path) {
                ("GET", "clock") => Ok(json(show(self.clock.read()))),
                ("PUT" | "POST", "clock") => self.clock(request.body).await.map(json),
                ("POST", "cloud") => self.cloud().map(json),
                ("POST", shared_journal::NAME) => self.journal(request.body).map(json),
                ("POST", shared_board::NAME) => self.measured(request.body).map(json),
                ("GET", "why") => self.why(&request),
                ("GET", "cluster") => Ok(json(json!({"name": self.cluster_name}))),
                ("GET", collected_logs::NAME) => {
                    let now = self.clock.read().now;
                    collected_logs::answer(&self.collected, request.query, now).map(json)
                }
                ("GET", "ledger") => Ok(json(self.ledger())),
                ("GET", "load-balancers") => Ok(json(self.balancers.told())),
                _ => return None,
            };
            Some(answer.unwrap_or_else(ExtraResponse::Refused))
        })
    }
}

fn show(reading: Reading) -> Value {
    json!({
        "now": reading.now.to_string(),
        "speed": reading.speed,
        "paused": reading.paused,
    })
}

fn refusal(message: String) -> ApiError {
    ApiError::new(StatusReason::BadRequest, message)
}
