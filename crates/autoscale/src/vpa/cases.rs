//! Histories of usage in JSON, as recorded from upstream's recommender: the form that
//! `wharf verify vpa` reads and this crate's tests hold the arithmetic against.

use std::collections::BTreeMap;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as MetaTime};
use serde::{Deserialize, Serialize};
use wharf_model::quantity::Quantity;
use wharf_model::selector::Selector;
use wharf_model::time::Time;

use super::{
    Amount, Checkpoint, Config, HistogramCheckpoint, Limits, Model, ObservedContainer, ObservedPod,
    Policies, Policy, Recommendation, Recommended, Target,
};

/// One history.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    #[serde(default)]
    config: Flags,
    selector: String,
    vpa: Autoscaler,
    events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Flags {
    confidence_interval_cpu: Option<f64>,
    confidence_interval_memory: Option<f64>,
    container_recommendation_max_allowed_cpu: Option<ApiQuantity>,
    container_recommendation_max_allowed_memory: Option<ApiQuantity>,
    cpu_histogram_decay_half_life: Option<f64>,
    memory_histogram_decay_half_life: Option<f64>,
    cpu_integer_post_processor_enabled: bool,
    feature_gates: BTreeMap<String, bool>,
    memory_aggregation_interval: Option<f64>,
    oom_bump_up_ratio: Option<f64>,
    oom_min_bump_up_bytes: Option<f64>,
    pod_recommendation_min_cpu_millicores: Option<f64>,
    pod_recommendation_min_memory_mb: Option<f64>,
    recommendation_margin_fraction: Option<f64>,
    recommendation_lower_bound_cpu_percentile: Option<f64>,
    recommendation_lower_bound_memory_percentile: Option<f64>,
    recommendation_upper_bound_cpu_percentile: Option<f64>,
    recommendation_upper_bound_memory_percentile: Option<f64>,
    target_cpu_percentile: Option<f64>,
    target_memory_percentile: Option<f64>,
    round_cpu_millicores: Option<Amount>,
    round_memory_bytes: Option<Amount>,
}

#[derive(Debug, Deserialize)]
struct Autoscaler {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    resource_policy: ResourcePolicy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourcePolicy {
    container_policies: Vec<ContainerPolicy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPolicy {
    container_name: String,
    mode: Option<String>,
    min_allowed: BTreeMap<String, ApiQuantity>,
    max_allowed: BTreeMap<String, ApiQuantity>,
    controlled_resources: Option<Vec<String>>,
    memory_aggregation_interval_seconds: Option<f64>,
    oom_bump_up_ratio: Option<ApiQuantity>,
    oom_min_bump_up: Option<ApiQuantity>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Event {
    Pod {
        pod: EventPod,
    },
    DeletePod {
        name: String,
    },
    Vpa {
        vpa: Box<Autoscaler>,
    },
    Samples {
        at: MetaTime,
        every: i64,
        count: usize,
        series: Vec<Series>,
    },
    Oom {
        at: MetaTime,
        name: String,
        container: String,
        #[serde(default)]
        memory: Amount,
    },
    Recommend {
        at: MetaTime,
    },
    Checkpoint {
        at: MetaTime,
    },
    Restart {
        at: MetaTime,
    },
}

#[derive(Debug, Deserialize)]
struct EventPod {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    containers: Vec<EventContainer>,
}

#[derive(Debug, Deserialize)]
struct EventContainer {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Series {
    pod: String,
    container: String,
    #[serde(default)]
    cpu: Vec<Amount>,
    #[serde(default)]
    memory: Vec<Amount>,
}

/// What came of an event.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    /// The event's place.
    pub event: usize,
    /// What is recommended, after `recommend`; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<Vec<ToldRecommendation>>,
    /// The conditions, after `recommend`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<ToldCondition>>,
    /// What is kept, after `checkpoint` and `restart`; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<BTreeMap<String, ToldCheckpoint>>,
}

/// A condition.
#[derive(Debug, Serialize)]
pub struct ToldCondition {
    #[serde(rename = "type")]
    type_: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

/// What one container should ask for, as the status of the autoscaler says it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToldRecommendation {
    container_name: CompactString,
    target: BTreeMap<&'static str, ApiQuantity>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    lower_bound: BTreeMap<&'static str, ApiQuantity>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    upper_bound: BTreeMap<&'static str, ApiQuantity>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    uncapped_target: BTreeMap<&'static str, ApiQuantity>,
}

/// A checkpoint's status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToldCheckpoint {
    version: &'static str,
    cpu_histogram: ToldHistogram,
    memory_histogram: ToldHistogram,
    first_sample_start: Option<MetaTime>,
    last_sample_start: Option<MetaTime>,
    #[serde(skip_serializing_if = "is_zero")]
    total_samples_count: u64,
}

/// A histogram of a checkpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToldHistogram {
    reference_timestamp: Option<MetaTime>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    bucket_weights: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "is_nothing")]
    total_weight: f64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn is_nothing(weight: &f64) -> bool {
    *weight == 0.0
}

impl Case {
    /// Runs the history.
    pub fn run(self) -> Vec<Answer> {
        let config = self.config.config();
        // A selector that cannot be read selects nothing.
        let selector = Selector::parse(&self.selector).unwrap_or(Selector::NOTHING);
        let mut target = Target { selector, policies: self.vpa.policies() };
        let mut model = Model::new(config.clone(), target.clone());
        let mut pods: BTreeMap<CompactString, ObservedPod> = BTreeMap::new();
        let mut now = Time::EPOCH;
        let mut answers = Vec::new();
        for (place, event) in self.events.iter().enumerate() {
            match event {
                Event::Pod { pod } => {
                    let pod = pod.observed();
                    model.set_pod(&pod);
                    pods.insert(pod.name.clone(), pod);
                }
                Event::DeletePod { name } => {
                    model.remove_pod(name);
                    pods.remove(name.as_str());
                }
                Event::Vpa { vpa } => {
                    target.policies = vpa.policies();
                    model.set_target(target.clone());
                }
                Event::Samples { at, every, count, series } => {
                    for index in 0..*count {
                        let passed = every.saturating_mul(i64::try_from(index).unwrap_or(i64::MAX));
                        let at =
                            Time::from_seconds(Time::from(at).as_seconds().saturating_add(passed));
                        now = now.max(at);
                        series.iter().for_each(|series| series.add(&mut model, index, at));
                    }
                }
                Event::Oom { at, name, container, memory } => {
                    now = now.max(at.into());
                    model.add_oom(name, container, *memory, at.into());
                }
                Event::Recommend { at } => {
                    now = now.max(at.into());
                    answers.push(recommend(&model, place));
                }
                Event::Checkpoint { at } => {
                    now = now.max(at.into());
                    answers.push(kept(place, &model.checkpoints(now)));
                }
                Event::Restart { at } => {
                    now = now.max(at.into());
                    let checkpoints = model.checkpoints(now);
                    model = Model::new(config.clone(), target.clone());
                    for (container, checkpoint) in &checkpoints {
                        model.load(container, checkpoint);
                    }
                    pods.values().for_each(|pod| model.set_pod(pod));
                    answers.push(kept(place, &checkpoints));
                }
            }
        }
        answers
    }
}

impl Series {
    fn add(&self, model: &mut Model, index: usize, at: Time) {
        if !self.cpu.is_empty() {
            model.add_cpu(&self.pod, &self.container, self.cpu[index % self.cpu.len()], at);
        }
        if !self.memory.is_empty() {
            let bytes = self.memory[index % self.memory.len()];
            model.add_memory(&self.pod, &self.container, bytes, at);
        }
    }
}

impl EventPod {
    fn observed(&self) -> ObservedPod {
        let container =
            |item: &EventContainer| ObservedContainer { name: item.name.as_str().into() };
        ObservedPod {
            name: self.name.as_str().into(),
            labels: self.labels.clone(),
            containers: self.containers.iter().map(container).collect(),
        }
    }
}

impl Flags {
    fn config(&self) -> Config {
        let mut config = Config::default();
        let set = |to: &mut f64, from: Option<f64>| *to = from.unwrap_or(*to);
        let wait = |to: &mut Duration, from: Option<f64>| *to = from.map_or(*to, seconds);
        set(&mut config.cpu.target, self.target_cpu_percentile);
        set(&mut config.cpu.lower, self.recommendation_lower_bound_cpu_percentile);
        set(&mut config.cpu.upper, self.recommendation_upper_bound_cpu_percentile);
        set(&mut config.memory.target, self.target_memory_percentile);
        set(&mut config.memory.lower, self.recommendation_lower_bound_memory_percentile);
        set(&mut config.memory.upper, self.recommendation_upper_bound_memory_percentile);
        set(&mut config.margin, self.recommendation_margin_fraction);
        set(&mut config.oom_bump_ratio, self.oom_bump_up_ratio);
        set(&mut config.oom_bump_least, self.oom_min_bump_up_bytes);
        wait(&mut config.cpu.half_life, self.cpu_histogram_decay_half_life);
        wait(&mut config.memory.half_life, self.memory_histogram_decay_half_life);
        wait(&mut config.cpu.confidence_interval, self.confidence_interval_cpu);
        wait(&mut config.memory.confidence_interval, self.confidence_interval_memory);
        wait(&mut config.memory_interval, self.memory_aggregation_interval);
        if let Some(millicores) = self.pod_recommendation_min_cpu_millicores {
            config.pod_minimum.cpu = super::amount(millicores);
        }
        if let Some(mebibytes) = self.pod_recommendation_min_memory_mb {
            config.pod_minimum.memory = super::amount(mebibytes * 1_048_576.0);
        }
        config.round_to.cpu = self.round_cpu_millicores.unwrap_or(config.round_to.cpu);
        config.round_to.memory = self.round_memory_bytes.unwrap_or(config.round_to.memory);
        config.max_allowed = Limits {
            cpu: self.container_recommendation_max_allowed_cpu.as_ref().and_then(read),
            memory: self.container_recommendation_max_allowed_memory.as_ref().and_then(read),
        };
        config.integer_cpu = self.cpu_integer_post_processor_enabled;
        config.per_vpa_config = self.feature_gates.get("PerVPAConfig") == Some(&true);
        config
    }
}

impl Autoscaler {
    fn policies(&self) -> Policies {
        let whole_cores = |(key, value): (&String, &String)| {
            let name = key.strip_prefix("vpa-post-processor.kubernetes.io/")?;
            let container = name.strip_suffix("_integerCPU")?;
            (value == "true").then(|| container.into())
        };
        Policies {
            containers: self
                .spec
                .resource_policy
                .container_policies
                .iter()
                .map(ContainerPolicy::read)
                .collect(),
            integer_cpu: self
                .metadata
                .annotations
                .iter()
                .flatten()
                .filter_map(whole_cores)
                .collect(),
        }
    }
}

impl ContainerPolicy {
    fn read(&self) -> Policy {
        let amounts = |list: &BTreeMap<String, ApiQuantity>| Limits {
            cpu: list.get("cpu").and_then(read),
            memory: list.get("memory").and_then(read),
        };
        let has = |list: &[String], name: &str| list.iter().any(|item| item == name);
        Policy {
            container: self.container_name.as_str().into(),
            off: self.mode.as_deref() == Some("Off"),
            min_allowed: amounts(&self.min_allowed),
            max_allowed: amounts(&self.max_allowed),
            controlled: self
                .controlled_resources
                .as_deref()
                .map(|list| (has(list, "cpu"), has(list, "memory"))),
            memory_interval: self.memory_aggregation_interval_seconds.map(seconds),
            oom_bump_ratio: self.oom_bump_up_ratio.as_ref().map(number),
            oom_bump_least: self.oom_min_bump_up.as_ref().map(number),
        }
    }
}

fn recommend(model: &Model, event: usize) -> Answer {
    let list = model.recommend();
    let plain = |type_, status| ToldCondition { type_, status, reason: None, message: None };
    let no_pods = |type_, status| ToldCondition {
        reason: Some("NoPodsMatched"),
        message: Some("No pods match this VPA object"),
        ..plain(type_, status)
    };
    let mut conditions = Vec::new();
    let has_pods = model.has_pods();
    if !has_pods {
        conditions.push(no_pods("NoPodsMatched", "True"));
    }
    conditions.push(match (list.is_empty(), has_pods) {
        (false, _) => plain("RecommendationProvided", "True"),
        (true, true) => plain("RecommendationProvided", "False"),
        (true, false) => no_pods("RecommendationProvided", "False"),
    });
    let list: Vec<_> = list.into_iter().map(ToldRecommendation::from).collect();
    Answer {
        event,
        recommendation: (!list.is_empty()).then_some(list),
        conditions: Some(conditions),
        checkpoints: None,
    }
}

impl From<Recommendation> for ToldRecommendation {
    fn from(recommendation: Recommendation) -> Self {
        Self {
            container_name: recommendation.container,
            target: quantities(recommendation.target),
            lower_bound: quantities(recommendation.lower),
            upper_bound: quantities(recommendation.upper),
            uncapped_target: quantities(recommendation.uncapped),
        }
    }
}

fn quantities(amounts: Recommended) -> BTreeMap<&'static str, ApiQuantity> {
    let cpu = amounts.cpu.map(|cpu| ("cpu", cpu));
    let memory = amounts.memory.map(|memory| ("memory", memory));
    let amounts = cpu.into_iter().chain(memory);
    amounts.map(|(name, quantity)| (name, quantity.to_api())).collect()
}

fn kept(event: usize, checkpoints: &BTreeMap<CompactString, Checkpoint>) -> Answer {
    let told = |(name, checkpoint): (&CompactString, &Checkpoint)| {
        (name.to_string(), ToldCheckpoint::from(checkpoint))
    };
    Answer {
        event,
        checkpoints: (!checkpoints.is_empty()).then(|| checkpoints.iter().map(told).collect()),
        ..Answer::default()
    }
}

impl From<&Checkpoint> for ToldCheckpoint {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self {
            version: "v3",
            cpu_histogram: (&checkpoint.cpu).into(),
            memory_histogram: (&checkpoint.memory).into(),
            first_sample_start: checkpoint.first.map(Time::to_meta),
            last_sample_start: checkpoint.last.map(Time::to_meta),
            total_samples_count: checkpoint.samples,
        }
    }
}

impl From<&HistogramCheckpoint> for ToldHistogram {
    fn from(histogram: &HistogramCheckpoint) -> Self {
        Self {
            reference_timestamp: histogram.reference.map(Time::to_meta),
            bucket_weights: histogram
                .weights
                .iter()
                .map(|(bucket, weight)| (bucket.to_string(), *weight))
                .collect(),
            total_weight: ten_digits(histogram.total),
        }
    }
}

/// The recordings have so many digits: in the last ones the order of additions shows.
fn ten_digits(value: f64) -> f64 {
    format!("{value:.9e}").parse().unwrap_or(value)
}

fn read(quantity: &ApiQuantity) -> Option<Quantity> {
    Quantity::try_from(quantity).ok()
}

fn number(quantity: &ApiQuantity) -> f64 {
    read(quantity).map_or(0.0, |quantity| quantity.as_f64())
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
