//! The Horizontal Pod Autoscaler's pass: from a scale, pods and metrics to a count of replicas,
//! conditions and Events, as the `autoscaling/v2` controller of Kubernetes 1.36 does it.
//!
//! A pass has two halves, since it writes in between: [`begin`] says which count to write, and
//! [`Pass::finish`] takes the outcome and gives the status. What outlives a pass is in [`Memory`].

pub mod cases;
mod conditions;
mod metrics;
mod normalize;
mod readiness;
mod replicas;
mod requests;

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
    MetricSpec, MetricStatus,
};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use wharf_model::metrics::{PodMetrics, Sample};
use wharf_model::selector::Selector;
use wharf_model::time::Time;

use conditions::Conditions;
pub use metrics::Proposal;
pub use normalize::{Limits, Memory};
pub use replicas::{Count, Grouped, Held};

/// The controller's flags and gates; the defaults are upstream's.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How often each autoscaler is looked at.
    pub sync_period: Duration,
    /// By how much a ratio may differ from 1 without consequence.
    pub tolerance: f64,
    /// How long a higher proposal holds a lower one back.
    pub downscale_stabilization: Duration,
    /// How long after its start a pod's cpu samples are judged by its readiness.
    pub cpu_initialization_period: Duration,
    /// How long after its start a pod's first readiness may come.
    pub initial_readiness_delay: Duration,
    /// Gate `HPAScaleToZero`.
    pub scale_to_zero: bool,
    /// Gate `HPAConfigurableTolerance`.
    pub configurable_tolerance: bool,
    /// Gate `PodLevelResources`.
    pub pod_level_resources: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sync_period: Duration::from_secs(15),
            tolerance: 0.1,
            downscale_stabilization: Duration::from_secs(300),
            cpu_initialization_period: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
            scale_to_zero: false,
            configurable_tolerance: true,
            pod_level_resources: true,
        }
    }
}

/// The `scale` subresource of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// How many replicas are asked for.
    pub spec_replicas: i32,
    /// How many there are.
    pub status_replicas: i32,
    /// Which pods they are, as `status.selector` has it.
    pub selector: String,
}

/// Where a pass finds pods and metrics. Errors are the texts of the APIs behind it.
pub trait Source {
    /// The pods of the autoscaler's namespace that a selector matches.
    fn pods(&self, selector: &Selector) -> Vec<&Pod>;
    /// What the resource metrics API says of the pods that a selector matches.
    fn pod_metrics(&self, selector: &Selector) -> Result<Vec<PodMetrics>, String>;
    /// What the custom or external metrics API says of the metric at that place of the spec.
    fn samples(&self, place: usize, spec: &MetricSpec) -> Result<Vec<Sample>, String>;
    /// The autoscalers, as `namespace/name`, under whose selectors any of the pods fall.
    fn autoscalers_over(&self, pods: &[&Pod]) -> Vec<String>;
    /// The pod spec whose requests utilisation of a resource is measured against, in place of those
    /// of the pods: where another autoscaler changes these, a share of them says nothing of load.
    fn base_requests(&self, _resource: &str) -> Option<&PodSpec> {
        None
    }
    /// A count that a forecast asks for. Metrics may ask for more, never for less.
    fn floor(&self) -> Option<i32> {
        None
    }
}

/// An Event to record on the autoscaler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether it is a warning.
    pub warning: bool,
    /// Its reason.
    pub reason: &'static str,
    /// Its text.
    pub message: String,
}

impl Event {
    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }

    fn normal(reason: &'static str, message: String) -> Self {
        Self { warning: false, reason, message }
    }
}

/// A pass before its count is written.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The count to write; `None` if there is nothing to write.
    pub scale_to: Option<i32>,
    /// What each metric proposed, for whoever asks why.
    pub proposals: Vec<Proposal>,
    /// The highest proposal before limits; `None` if no metric was asked.
    pub proposed: Option<i32>,
    /// What became of the proposal; `None` if no metric was asked.
    pub limits: Option<Limits>,
    /// The count that a forecast asked for, if that was more than the metrics did.
    pub foreseen: Option<i32>,
    /// Why the count changes, as the Event says it.
    pub reason: String,
    current: i32,
    status: Status,
    events: Vec<Event>,
    after_status: Vec<Event>,
    metrics: Option<Vec<MetricStatus>>,
    scales_to_zero: bool,
}

/// What a pass leaves behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The status to write, if it differs from the one there is.
    pub status: HorizontalPodAutoscalerStatus,
    /// Events recorded before the status is written.
    pub events: Vec<Event>,
    /// Events recorded afterwards.
    pub after_status: Vec<Event>,
}

#[derive(Clone, Debug)]
struct Status {
    old: HorizontalPodAutoscalerStatus,
    conditions: Conditions,
}

/// The first half of a pass: what the count should be.
pub fn begin(
    config: &Config,
    memory: &mut Memory,
    hpa: &HorizontalPodAutoscaler,
    scale: Result<&Scale, &str>,
    source: &dyn Source,
    now: Time,
) -> Pass {
    let old = hpa.status.clone().unwrap_or_default();
    let conditions = Conditions::new(old.conditions.as_deref().unwrap_or_default(), now);
    let mut pass = Pass {
        scale_to: None,
        proposals: Vec::new(),
        proposed: None,
        limits: None,
        foreseen: None,
        reason: String::new(),
        current: 0,
        status: Status { old, conditions },
        events: Vec::new(),
        after_status: Vec::new(),
        metrics: None,
        scales_to_zero: false,
    };
    match scale {
        Ok(scale) => pass.decide(config, memory, hpa, scale, source, now),
        Err(error) => {
            pass.events.push(Event::warning("FailedGetScale", error));
            pass.status.conditions.set(
                "AbleToScale",
                false,
                "FailedGetScale",
                format!("the HPA controller was unable to get the target's current scale: {error}"),
            );
            // Nothing else of the status changes.
            pass.current = pass.status.old.current_replicas.unwrap_or(0);
            pass.metrics = pass.status.old.current_metrics.clone();
        }
    }
    pass
}

impl Pass {
    fn decide(
        &mut self,
        config: &Config,
        memory: &mut Memory,
        hpa: &HorizontalPodAutoscaler,
        scale: &Scale,
        source: &dyn Source,
        now: Time,
    ) {
        self.status.conditions.set(
            "AbleToScale",
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        );
        let spec = &hpa.spec;
        let current = scale.spec_replicas;
        let least = spec.min_replicas.unwrap_or(1);
        self.current = current;
        self.scales_to_zero = least == 0 && has_metric_without_pods(spec);
        memory.start(current, now);
        let was_scaled_to_zero = self.status.conditions.is_true("ScaledToZero");
        let wakes = config.scale_to_zero
            && was_scaled_to_zero
            && (least != 0 || has_metric_without_pods(spec));
        let desired = if current == 0 && !wakes {
            self.status.conditions.set(
                "ScalingActive",
                false,
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
            );
            if !config.scale_to_zero {
                self.status.conditions.remove("ScaledToZero");
            }
            return;
        } else if current > spec.max_replicas {
            "Current number of replicas above Spec.MaxReplicas".clone_into(&mut self.reason);
            spec.max_replicas
        } else if current < least && current != 0 {
            BELOW_LEAST.clone_into(&mut self.reason);
            least
        } else {
            let Some(desired) = self.measure(config, memory, hpa, spec, scale, source, now) else {
                return;
            };
            if current == 0 && least != 0 && desired < least {
                if self.reason.is_empty() {
                    BELOW_LEAST.clone_into(&mut self.reason);
                }
                least
            } else {
                desired
            }
        };
        self.scale_to = (desired != current).then_some(desired);
    }

    /// The count that metrics and behavior ask for; `None` if the metrics say nothing.
    #[expect(clippy::too_many_arguments, reason = "what a pass knows, from one caller")]
    fn measure(
        &mut self,
        config: &Config,
        memory: &mut Memory,
        hpa: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        source: &dyn Source,
        now: Time,
    ) -> Option<i32> {
        let namespace = hpa.metadata.namespace.as_deref().unwrap_or_default();
        let survey = metrics::Survey { config, namespace, spec, scale, source, now };
        let answer = survey.compute(&mut self.status.conditions, &mut self.events);
        self.metrics = answer.statuses;
        self.proposals = answer.proposals;
        let (count, metric) = match answer.winner {
            Ok(winner) => winner,
            Err(error) => {
                self.after_status.push(Event::warning("FailedComputeMetricsReplicas", error));
                return None;
            }
        };
        let mut desired = count.max(0);
        self.proposed = Some(desired);
        self.foreseen = source.floor().filter(|floor| *floor > desired);
        if let Some(floor) = self.foreseen {
            desired = floor;
        }
        if desired > scale.spec_replicas && self.foreseen.is_some() {
            self.reason = format!("forecast of {desired} replicas");
        } else if desired > scale.spec_replicas {
            self.reason = format!("{metric} above target");
        } else if desired < scale.spec_replicas {
            "All metrics below target".clone_into(&mut self.reason);
        }
        let tell = |name: &str, ok, why: normalize::Why| {
            self.status.conditions.set(name, ok, why.reason, why.message);
        };
        let limits = memory.normalize(config, spec, scale.spec_replicas, desired, now, tell);
        self.limits = Some(limits);
        Some(limits.count)
    }

    /// Why nothing could be decided, as the Event says it.
    pub fn failure(&self) -> Option<&str> {
        let failed = self
            .after_status
            .first()
            .or_else(|| self.events.iter().find(|event| event.reason == "FailedGetScale"))?;
        Some(&failed.message)
    }

    /// The count there was.
    pub fn current(&self) -> i32 {
        self.current
    }

    /// The second half: what the write of the count came to.
    pub fn finish(
        mut self,
        config: &Config,
        memory: &mut Memory,
        hpa: &HorizontalPodAutoscaler,
        written: Result<(), &str>,
        now: Time,
    ) -> Outcome {
        let mut status = HorizontalPodAutoscalerStatus {
            current_replicas: Some(self.current),
            desired_replicas: self.status.old.desired_replicas,
            current_metrics: self.metrics.take(),
            last_scale_time: self.status.old.last_scale_time.take(),
            observed_generation: self.status.old.observed_generation,
            conditions: None,
        };
        let failed = !self.after_status.is_empty()
            || self.status.conditions.reason("AbleToScale") == Some("FailedGetScale");
        match (self.scale_to, written) {
            (Some(desired), Ok(())) => {
                self.status.conditions.set(
                    "AbleToScale",
                    true,
                    "SucceededRescale",
                    format!("the HPA controller was able to update the target scale to {desired}"),
                );
                self.events.push(Event::normal(
                    "SuccessfulRescale",
                    format!("New size: {desired}; reason: {}", self.reason),
                ));
                if config.scale_to_zero {
                    self.note_zero(desired);
                } else {
                    self.status.conditions.remove("ScaledToZero");
                }
                memory.remember_scaling(hpa.spec.behavior.as_ref(), self.current, desired, now);
                status.desired_replicas = desired;
                status.last_scale_time = Some(now.to_meta());
            }
            (Some(desired), Err(error)) => {
                self.events.push(Event::warning(
                    "FailedRescale",
                    format!("New size: {desired}; reason: {}; error: {error}", self.reason),
                ));
                self.status.conditions.set(
                    "AbleToScale",
                    false,
                    "FailedUpdateScale",
                    format!("the HPA controller was unable to update the target scale: {error}"),
                );
            }
            (None, _) if failed => {}
            (None, _) => status.desired_replicas = self.current,
        }
        status.conditions = self.status.conditions.into_api();
        Outcome { status, events: self.events, after_status: self.after_status }
    }

    /// Remembers the change of a pass that was finished as failed but has come about all the same: the
    /// answer to the write was lost. Policies count what the workload went through, whoever heard of
    /// it. (Upstream's forget such a change, and may go on faster than they allow.)
    pub fn came_about(&self, memory: &mut Memory, hpa: &HorizontalPodAutoscaler, at: Time) {
        if let Some(desired) = self.scale_to {
            memory.remember_scaling(hpa.spec.behavior.as_ref(), self.current, desired, at);
        }
    }

    fn note_zero(&mut self, desired: i32) {
        let zero = self.current > 0 && desired == 0 && self.scales_to_zero;
        let (reason, message) = if zero {
            ("ScaledToZero", "the HPA controller scaled the workload to zero")
        } else {
            ("NotScaledToZero", "the HPA controller did not scale the workload to zero")
        };
        self.status.conditions.set("ScaledToZero", zero, reason, message);
    }
}

/// Whether two statuses say the same; absent and empty lists are alike.
pub fn same_status(
    old: Option<&HorizontalPodAutoscalerStatus>,
    new: &HorizontalPodAutoscalerStatus,
) -> bool {
    let plain = |status: &HorizontalPodAutoscalerStatus| {
        let mut status = status.clone();
        status.current_metrics = status.current_metrics.filter(|list| !list.is_empty());
        status.conditions = status.conditions.filter(|list| !list.is_empty());
        status.current_replicas = Some(status.current_replicas.unwrap_or(0));
        status
    };
    old.is_some_and(|old| plain(old) == plain(new))
}

const BELOW_LEAST: &str = "Current number of replicas below Spec.MinReplicas";

/// Whether any metric can be measured without pods: only such a one can bring a workload back from
/// zero.
fn has_metric_without_pods(spec: &HorizontalPodAutoscalerSpec) -> bool {
    spec.metrics.iter().flatten().any(|metric| matches!(&*metric.type_, "Object" | "External"))
}
