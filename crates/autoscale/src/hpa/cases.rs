//! Histories of passes in JSON, as recorded from upstream's controller: the form that
//! `wharf verify hpa` reads and this crate's tests hold the arithmetic against.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as MetaTime;
use serde::{Deserialize, Serialize};
use wharf_model::metrics::{ContainerUsage, PodMetrics, Sample};
use wharf_model::quantity::Quantity;
use wharf_model::selector::{Operator, Selector};
use wharf_model::time::Time;

use super::{Config, Event, Memory, Scale, Source, begin, same_status};

/// One history.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    #[serde(default)]
    config: Flags,
    start: MetaTime,
    hpa: HorizontalPodAutoscaler,
    steps: Vec<Step>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Flags {
    sync_period_seconds: Option<f64>,
    tolerance: Option<f64>,
    downscale_stabilization_seconds: Option<f64>,
    cpu_initialization_period_seconds: Option<f64>,
    initial_readiness_delay_seconds: Option<f64>,
    feature_gates: BTreeMap<String, bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    time: MetaTime,
    spec: Option<HorizontalPodAutoscalerSpec>,
    scale: Option<StepScale>,
    #[serde(default)]
    errors: Errors,
    pods: Option<Vec<Pod>>,
    #[serde(default)]
    pod_metrics: Vec<StepPodMetrics>,
    #[serde(default)]
    metrics: Vec<Option<StepMetric>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StepScale {
    #[serde(default)]
    spec_replicas: i32,
    #[serde(default)]
    status_replicas: i32,
    #[serde(default)]
    selector: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Errors {
    get_scale: Option<String>,
    update_scale: Option<String>,
    update_status: Option<String>,
    pod_metrics: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StepPodMetrics {
    pod: String,
    timestamp: MetaTime,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<StepContainer>,
}

#[derive(Debug, Deserialize)]
struct StepContainer {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, ApiQuantity>,
}

#[derive(Debug, Deserialize)]
struct StepMetric {
    #[serde(default)]
    items: Vec<StepSample>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StepSample {
    #[serde(default)]
    pod: String,
    value: ApiQuantity,
}

/// What one pass did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The count it tried to write.
    pub scale: Option<i32>,
    /// The stored status afterwards.
    pub status: HorizontalPodAutoscalerStatus,
    /// Whether the status was written.
    pub status_written: bool,
    /// Events in their order.
    pub events: Vec<ToldEvent>,
}

/// An Event.
#[derive(Debug, Serialize)]
pub struct ToldEvent {
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub type_: &'static str,
    /// Its reason.
    pub reason: &'static str,
    /// Its text.
    pub message: String,
}

impl From<Event> for ToldEvent {
    fn from(event: Event) -> Self {
        let type_ = if event.warning { "Warning" } else { "Normal" };
        Self { type_, reason: event.reason, message: event.message }
    }
}

impl Case {
    /// Runs the history.
    pub fn run(self) -> Vec<Answer> {
        let config = self.config.config();
        let mut memory = Memory::default();
        let mut hpa = self.hpa;
        let mut pods = Vec::new();
        let mut answers = Vec::with_capacity(self.steps.len());
        debug_assert!(self.steps.first().is_none_or(|step| step.time >= self.start));
        for mut step in self.steps {
            if let Some(spec) = step.spec.take() {
                hpa.spec = spec;
            }
            if let Some(now) = step.pods.take() {
                pods = now;
            }
            answers.push(step.run(&config, &mut memory, &mut hpa, &pods));
        }
        answers
    }
}

impl Flags {
    fn config(&self) -> Config {
        let standard = Config::default();
        let seconds = |value: Option<f64>, otherwise| value.map_or(otherwise, seconds);
        let gate =
            |name: &str, otherwise| self.feature_gates.get(name).copied().unwrap_or(otherwise);
        Config {
            sync_period: seconds(self.sync_period_seconds, standard.sync_period),
            tolerance: self.tolerance.unwrap_or(standard.tolerance),
            downscale_stabilization: seconds(
                self.downscale_stabilization_seconds,
                standard.downscale_stabilization,
            ),
            cpu_initialization_period: seconds(
                self.cpu_initialization_period_seconds,
                standard.cpu_initialization_period,
            ),
            initial_readiness_delay: seconds(
                self.initial_readiness_delay_seconds,
                standard.initial_readiness_delay,
            ),
            scale_to_zero: gate("HPAScaleToZero", standard.scale_to_zero),
            configurable_tolerance: gate(
                "HPAConfigurableTolerance",
                standard.configurable_tolerance,
            ),
            pod_level_resources: gate("PodLevelResources", standard.pod_level_resources),
        }
    }
}

impl Step {
    fn run(
        &self,
        config: &Config,
        memory: &mut Memory,
        hpa: &mut HorizontalPodAutoscaler,
        pods: &[Pod],
    ) -> Answer {
        let now = Time::from(&self.time);
        let scale = self.scale.as_ref().map(|scale| Scale {
            spec_replicas: scale.spec_replicas,
            status_replicas: scale.status_replicas,
            selector: scale.selector.clone(),
        });
        let scale = match (&self.errors.get_scale, &scale) {
            (Some(error), _) => Err(error.as_str()),
            (None, Some(scale)) => Ok(scale),
            (None, None) => Err("the case has no scale"),
        };
        let source = Recorded { step: self, pods };
        let pass = begin(config, memory, hpa, scale, &source, now);
        let scale = pass.scale_to;
        let written = self.errors.update_scale.as_deref().map_or(Ok(()), Err);
        let outcome = pass.finish(config, memory, hpa, written, now);
        let status_written = !same_status(hpa.status.as_ref(), &outcome.status);
        let mut events = outcome.events;
        let refused = self.errors.update_status.as_ref().filter(|_| status_written);
        if let Some(error) = refused {
            events.push(Event::warning("FailedUpdateStatus", error.clone()));
        } else {
            hpa.status = Some(outcome.status);
        }
        events.extend(outcome.after_status);
        Answer {
            scale,
            status: hpa.status.clone().unwrap_or_default(),
            status_written: status_written && self.errors.update_status.is_none(),
            events: events.into_iter().map(ToldEvent::from).collect(),
        }
    }
}

struct Recorded<'a> {
    step: &'a Step,
    pods: &'a [Pod],
}

impl Source for Recorded<'_> {
    fn pods(&self, selector: &Selector) -> Vec<&Pod> {
        self.pods.iter().filter(|pod| selector.matches(&pod.metadata.labels)).collect()
    }

    fn pod_metrics(&self, selector: &Selector) -> Result<Vec<PodMetrics>, String> {
        if let Some(error) = &self.step.errors.pod_metrics {
            return Err(error.clone());
        }
        // The metrics API of the recordings has no answer to a selector that asks for a key alone.
        if selector.requirements().iter().any(|item| item.operator() == Operator::Exists) {
            return Ok(Vec::new());
        }
        Ok(self.step.pod_metrics.iter().map(StepPodMetrics::read).collect())
    }

    fn samples(&self, place: usize, _: &MetricSpec) -> Result<Vec<Sample>, String> {
        let Some(Some(metric)) = self.step.metrics.get(place) else { return Ok(Vec::new()) };
        if let Some(error) = &metric.error {
            return Err(error.clone());
        }
        let sample = |item: &StepSample| Sample {
            object: item.pod.as_str().into(),
            labels: BTreeMap::new(),
            timestamp: Time::EPOCH,
            window: None,
            value: Quantity::try_from(&item.value).unwrap_or_default(),
        };
        Ok(metric.items.iter().map(sample).collect())
    }

    fn autoscalers_over(&self, _: &[&Pod]) -> Vec<String> {
        Vec::new()
    }
}

impl StepPodMetrics {
    fn read(&self) -> PodMetrics {
        let usage = |usage: &BTreeMap<String, ApiQuantity>| {
            usage
                .iter()
                .map(|(name, amount)| {
                    (name.as_str().into(), Quantity::try_from(amount).unwrap_or_default())
                })
                .collect()
        };
        PodMetrics {
            namespace: "".into(),
            pod: self.pod.as_str().into(),
            timestamp: Time::from(&self.timestamp),
            window: wharf_model::duration::parse(&self.window)
                .ok()
                .and_then(|nanos| u64::try_from(nanos).ok())
                .map_or(Duration::ZERO, Duration::from_nanos),
            containers: self
                .containers
                .iter()
                .map(|item| ContainerUsage {
                    name: item.name.as_str().into(),
                    usage: usage(&item.usage),
                })
                .collect(),
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
