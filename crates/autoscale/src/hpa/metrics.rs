//! The metrics of an autoscaler, one after the other: what each says, and which one wins.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HorizontalPodAutoscalerSpec,
    MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use wharf_model::metrics::PodMetrics;
use wharf_model::quantity::{Format, Quantity, canonicalize};
use wharf_model::selector::Selector;
use wharf_model::time::Time;

use super::conditions::Conditions;
use super::readiness::{Usage, Usages};
use super::replicas::{Count, Measure, Tolerances, of_average, of_value};
use super::{Config, Event, Scale, Source};

/// What one metric asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The metric as upstream's texts name it.
    pub metric: String,
    /// What it asks for, or why it cannot tell.
    pub result: Result<Count, String>,
}

/// What the metrics of a pass are computed from.
pub(super) struct Survey<'a> {
    pub(super) config: &'a Config,
    pub(super) namespace: &'a str,
    pub(super) spec: &'a HorizontalPodAutoscalerSpec,
    pub(super) scale: &'a Scale,
    pub(super) source: &'a dyn Source,
    pub(super) now: Time,
}

/// What came of it.
pub(super) struct Answer {
    /// The highest count and the metric that asked for it.
    pub(super) winner: Result<(i32, String), String>,
    /// One entry per metric of the spec; `None` if it did not come to that.
    pub(super) statuses: Option<Vec<MetricStatus>>,
    pub(super) proposals: Vec<Proposal>,
}

/// A metric that could not be computed.
struct Failure {
    /// The reason of the Event and the condition.
    reason: &'static str,
    /// The text of both.
    text: String,
    /// The text where several metrics are told of.
    outer: String,
}

impl Survey<'_> {
    pub(super) fn compute(&self, conditions: &mut Conditions, events: &mut Vec<Event>) -> Answer {
        let (selector, pods) = match self.select(conditions, events) {
            Ok(found) => found,
            Err(text) => {
                return Answer { winner: Err(text), statuses: None, proposals: Vec::new() };
            }
        };
        let specs = self.spec.metrics.as_deref().unwrap_or_default();
        let mut statuses = Vec::with_capacity(specs.len());
        let mut proposals = Vec::with_capacity(specs.len());
        let mut winner = (0, String::new());
        let mut first: Option<Failure> = None;
        let mut failed = 0;
        for (place, spec) in specs.iter().enumerate() {
            let mut status = MetricStatus::default();
            let name = name(spec);
            match self.one(place, spec, &selector, &pods, &mut status) {
                Ok(count) => {
                    proposals.push(Proposal { metric: name.clone(), result: Ok(count) });
                    if winner.0 == 0 || count.replicas > winner.0 {
                        winner = (count.replicas, name);
                    }
                }
                Err(failure) => {
                    proposals.push(Proposal { metric: name, result: Err(failure.text.clone()) });
                    events.push(Event::warning(failure.reason, failure.text.clone()));
                    failed += 1;
                    first.get_or_insert(failure);
                }
            }
            statuses.push(status);
        }
        let statuses = Some(statuses);
        if let Some(first) = first
            && (failed == specs.len() || winner.0 < self.scale.spec_replicas)
        {
            conditions.set(
                "ScalingActive",
                false,
                first.reason,
                format!("the HPA was unable to compute the replica count: {}", first.text),
            );
            let text = format!(
                "invalid metrics ({failed} invalid out of {}), first error is: {}",
                specs.len(),
                first.outer
            );
            return Answer { winner: Err(text), statuses, proposals };
        }
        conditions.set(
            "ScalingActive",
            true,
            "ValidMetricFound",
            format!("the HPA was able to successfully calculate a replica count from {}", winner.1),
        );
        Answer { winner: Ok(winner), statuses, proposals }
    }

    /// The target's selector and pods, if they are this autoscaler's alone.
    fn select(
        &self,
        conditions: &mut Conditions,
        events: &mut Vec<Event>,
    ) -> Result<(Selector, Vec<&Pod>), String> {
        let text = &self.scale.selector;
        let mut refuse = |reason: &'static str, event: &'static str, text: &str, message: &str| {
            events.push(Event::warning(event, text));
            conditions.set("ScalingActive", false, reason, message);
            text.to_owned()
        };
        if text.is_empty() {
            let message = "the HPA target's scale is missing a selector";
            return Err(refuse(
                "InvalidSelector",
                "SelectorRequired",
                "selector is required",
                message,
            ));
        }
        let selector = Selector::parse(text).map_err(|error| {
            let text = format!(
                "couldn't convert selector into a corresponding internal selector object: {error}"
            );
            refuse("InvalidSelector", "InvalidSelector", &text, &text)
        })?;
        let pods = self.source.pods(&selector);
        let autoscalers = self.source.autoscalers_over(&pods);
        if autoscalers.len() > 1 {
            let text = format!(
                "pods by selector {selector} are controlled by multiple HPAs: [{}]",
                autoscalers.join(" ")
            );
            return Err(refuse("AmbiguousSelector", "AmbiguousSelector", &text, &text));
        }
        Ok((selector, pods))
    }

    fn one(
        &self,
        place: usize,
        spec: &MetricSpec,
        selector: &Selector,
        pods: &[&Pod],
        status: &mut MetricStatus,
    ) -> Result<Count, Failure> {
        if let ("Resource", Some(metric)) = (&*spec.type_, &spec.resource) {
            let count = self.resource(&metric.name, None, &metric.target, selector, pods).map_err(
                |text| Failure {
                    reason: "FailedGetResourceMetric",
                    outer: format!("failed to get {} resource metric value: {text}", metric.name),
                    text,
                },
            )?;
            status.resource = Some(ResourceMetricStatus {
                name: metric.name.clone(),
                current: resource_status(&count, &metric.name),
            });
            status.type_.clone_from(&spec.type_);
            return Ok(count);
        }
        if let ("ContainerResource", Some(metric)) = (&*spec.type_, &spec.container_resource) {
            let container = metric.container.as_str();
            let count = self
                .resource(&metric.name, Some(container), &metric.target, selector, pods)
                .map_err(|text| Failure {
                    reason: "FailedGetContainerResourceMetric",
                    outer: format!("failed to get {container} container metric value: {text}"),
                    text,
                })?;
            status.container_resource = Some(ContainerResourceMetricStatus {
                container: container.to_owned(),
                name: metric.name.clone(),
                current: resource_status(&count, &metric.name),
            });
            status.type_.clone_from(&spec.type_);
            return Ok(count);
        }
        if let ("Pods", Some(metric)) = (&*spec.type_, &spec.pods) {
            let name = &metric.metric.name;
            let count =
                self.of_pods(place, spec, name, &metric.target, pods).map_err(|text| Failure {
                    reason: "FailedGetPodsMetric",
                    outer: format!("failed to get pods metric value: {text}"),
                    text,
                })?;
            status.pods = Some(PodsMetricStatus {
                metric: metric.metric.clone(),
                current: average_status(count.milli),
            });
            status.type_.clone_from(&spec.type_);
            return Ok(count);
        }
        if let ("Object", Some(metric)) = (&*spec.type_, &spec.object) {
            let name = &metric.metric.name;
            let average = metric.target.type_ == "AverageValue";
            let object = &metric.described_object;
            let value = self.single(place, spec).map_err(|error| {
                format!(
                    "unable to get metric {name}: {} on {} {}/{error}",
                    object.kind, self.namespace, object.name
                )
            });
            let count = value.and_then(|value| self.whole(value, &metric.target, average, pods));
            let count = count.map_err(|text| Failure {
                reason: "FailedGetObjectMetric",
                outer: if average {
                    format!(
                        "failed to get object metric value: failed to get {name} object metric: {text}"
                    )
                } else {
                    format!("failed to get object metric value: {text}")
                },
                text,
            })?;
            status.object = Some(ObjectMetricStatus {
                described_object: object.clone(),
                metric: metric.metric.clone(),
                current: whole_status(&count, average),
            });
            status.type_.clone_from(&spec.type_);
            return Ok(count);
        }
        if let ("External", Some(metric)) = (&*spec.type_, &spec.external) {
            let name = &metric.metric.name;
            let average = metric.target.average_value.is_some();
            let value = self.sum(place, spec).map_err(|error| {
                format!(
                    "unable to get external metric {}/{name}/{}: {error}",
                    self.namespace,
                    in_go(metric.metric.selector.as_ref())
                )
            });
            let count = value.and_then(|value| self.whole(value, &metric.target, average, pods));
            let count = count.map_err(|text| Failure {
                reason: "FailedGetExternalMetric",
                outer: format!(
                    "failed to get {name} external metric value: {}: {text}",
                    if average {
                        format!("failed to get {name} external metric")
                    } else {
                        format!("failed to get external metric {name}")
                    }
                ),
                text,
            })?;
            status.external = Some(ExternalMetricStatus {
                metric: metric.metric.clone(),
                current: whole_status(&count, average),
            });
            status.type_.clone_from(&spec.type_);
            return Ok(count);
        }
        let text = format!("unknown metric source type {:?}", spec.type_);
        Err(Failure { reason: "InvalidMetricSourceType", outer: text.clone(), text })
    }

    fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
        selector: &Selector,
        pods: &[&Pod],
    ) -> Result<Count, String> {
        let what = if target.average_value.is_some() { "usage" } else { "utilization" };
        let prefixed = |text: String| format!("failed to get {resource} {what}: {text}");
        let answer = fetched(self.source.pod_metrics(selector), "resource");
        let metrics = answer.map_err(|error| {
            prefixed(format!("unable to get metrics for resource {resource}: {error}"))
        })?;
        let usages = usages(&metrics, resource, container);
        let measure = self.measure(resource, pods);
        match (&target.average_value, target.average_utilization) {
            (Some(average), _) => measure.average(usages, milli(average)),
            (None, Some(percent)) => measure.utilization(usages, container, percent),
            (None, None) => {
                return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned());
            }
        }
        .map_err(prefixed)
    }

    fn of_pods(
        &self,
        place: usize,
        spec: &MetricSpec,
        name: &str,
        target: &MetricTarget,
        pods: &[&Pod],
    ) -> Result<Count, String> {
        let samples = fetched(self.source.samples(place, spec), "custom")
            .map_err(|error| format!("unable to get metric {name}: {error}"))?;
        let usages: Usages<'_> = samples
            .iter()
            .map(|sample| {
                let usage = Usage {
                    milli: sample.value.milli_value_ceil(),
                    timestamp: self.now,
                    window: std::time::Duration::ZERO,
                };
                (sample.object.as_str(), usage)
            })
            .collect();
        let target = target.average_value.as_ref().map_or(0, milli);
        self.measure("", pods).average(usages, target)
    }

    fn measure<'m>(&'m self, resource: &'m str, pods: &'m [&'m Pod]) -> Measure<'m> {
        Measure {
            config: self.config,
            tolerances: self.tolerances(),
            current: self.scale.spec_replicas,
            pods,
            base: self.source.base_requests(resource),
            resource,
            now: self.now,
        }
    }

    /// The only value of an object's metric.
    fn single(&self, place: usize, spec: &MetricSpec) -> Result<i64, String> {
        let samples = self.source.samples(place, spec);
        let samples = samples.and_then(|samples| match samples.len() {
            1 => Ok(samples),
            count => Err(format!(
                "the custom metrics API server returned {count} results when we asked for exactly one"
            )),
        });
        Ok(fetched(samples, "custom")?[0].value.milli_value_ceil())
    }

    /// The sum of an external metric's series.
    fn sum(&self, place: usize, spec: &MetricSpec) -> Result<i64, String> {
        let samples = fetched(self.source.samples(place, spec), "external")?;
        let values = samples.iter().map(|sample| sample.value.milli_value_ceil());
        Ok(values.fold(0, i64::saturating_add))
    }

    fn whole(
        &self,
        value: i64,
        target: &MetricTarget,
        average: bool,
        pods: &[&Pod],
    ) -> Result<Count, String> {
        let (scale, tolerances) = (self.scale, self.tolerances());
        if average {
            let target = target.average_value.as_ref().map_or(0, milli);
            return Ok(of_average(value, target, scale, tolerances));
        }
        let target = target.value.as_ref().map_or(0, milli);
        of_value(value, target, scale.spec_replicas, tolerances, pods)
    }

    fn tolerances(&self) -> Tolerances {
        let behavior = self.spec.behavior.as_ref().filter(|_| self.config.configurable_tolerance);
        let own = |tolerance: Option<&ApiQuantity>| {
            let quantity = tolerance.and_then(|text| Quantity::try_from(text).ok());
            quantity.map_or(self.config.tolerance, |quantity| quantity.as_f64())
        };
        let rules = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
            own(rules.and_then(|rules| rules.tolerance.as_ref()))
        };
        Tolerances {
            up: rules(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
            down: rules(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
        }
    }
}

/// An answer of a metrics API, with the words that go around its error; an empty one is an error.
fn fetched<T>(answer: Result<Vec<T>, String>, api: &str) -> Result<Vec<T>, String> {
    match answer {
        Err(error) => Err(format!("unable to fetch metrics from {api} metrics API: {error}")),
        Ok(items) if items.is_empty() => Err(format!("no metrics returned from {api} metrics API")),
        Ok(items) => Ok(items),
    }
}

/// Samples by pod: of one container, or the sum over all. A pod of which any container lacks the
/// resource has none.
fn usages<'m>(metrics: &'m [PodMetrics], resource: &str, container: Option<&str>) -> Usages<'m> {
    let mut usages = Usages::default();
    for pod in metrics {
        let of = |usage: &[(compact_str::CompactString, Quantity)]| {
            let found = usage.iter().find(|(name, _)| name == resource);
            found.map(|(_, amount)| amount.milli_value_ceil())
        };
        let milli = match container {
            Some(wanted) => {
                let container = pod.containers.iter().find(|item| item.name == wanted);
                container.and_then(|container| of(&container.usage))
            }
            None if pod.containers.is_empty() => None,
            None => pod
                .containers
                .iter()
                .map(|container| of(&container.usage))
                .try_fold(0_i64, |sum, amount| Some(sum.saturating_add(amount?))),
        };
        if let Some(milli) = milli {
            let usage = Usage { milli, timestamp: pod.timestamp, window: pod.window };
            usages.insert(pod.pod.as_str(), usage);
        }
    }
    usages
}

/// The metric as upstream's texts name it.
fn name(spec: &MetricSpec) -> String {
    let resource = |name: &str, words: &str, target: &MetricTarget| {
        if target.average_value.is_some() {
            format!("{name} {words}")
        } else {
            format!("{name} {words} utilization (percentage of request)")
        }
    };
    let external = |metric: &MetricIdentifier| {
        format!("external metric {}({})", metric.name, in_go(metric.selector.as_ref()))
    };
    match &*spec.type_ {
        "Resource" => {
            spec.resource.as_ref().map(|metric| resource(&metric.name, "resource", &metric.target))
        }
        // Upstream says "resource" of a container's average value too.
        "ContainerResource" => spec.container_resource.as_ref().map(|metric| {
            let average = metric.target.average_value.is_some();
            let words = if average { "resource" } else { "container resource" };
            resource(&metric.name, words, &metric.target)
        }),
        "Pods" => spec.pods.as_ref().map(|metric| format!("pods metric {}", metric.metric.name)),
        "Object" => spec.object.as_ref().map(|metric| {
            if metric.target.type_ == "AverageValue" {
                external(&metric.metric)
            } else {
                format!("{} metric {}", metric.described_object.kind, metric.metric.name)
            }
        }),
        "External" => spec.external.as_ref().map(|metric| external(&metric.metric)),
        _ => None,
    }
    .unwrap_or_default()
}

/// A label selector as Go prints a pointer to one.
fn in_go(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| format!("{key}: {value},"))
        .collect();
    let expressions: String = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|item| {
            let values = item.values.as_deref().unwrap_or_default().join(" ");
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
                item.key, item.operator
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

fn milli(quantity: &ApiQuantity) -> i64 {
    Quantity::try_from(quantity).map_or(0, |quantity| quantity.milli_value_ceil())
}

fn resource_status(count: &Count, resource: &str) -> MetricValueStatus {
    let format = if resource == "memory" { Format::BinarySi } else { Format::DecimalSi };
    let mut amount = Quantity::from_milli(count.milli).in_format(format).to_api();
    // As the API keeps it: bytes without a binary suffix are read back as a decimal number.
    // What was just printed can be read.
    let _ = canonicalize(&mut amount);
    MetricValueStatus {
        average_utilization: count.utilization,
        average_value: Some(amount),
        value: None,
    }
}

fn average_status(milli: i64) -> MetricValueStatus {
    MetricValueStatus {
        average_value: Some(Quantity::from_milli(milli).to_api()),
        ..MetricValueStatus::default()
    }
}

fn whole_status(count: &Count, average: bool) -> MetricValueStatus {
    let amount = Some(Quantity::from_milli(count.milli).to_api());
    if average {
        MetricValueStatus { average_value: amount, ..MetricValueStatus::default() }
    } else {
        MetricValueStatus { value: amount, ..MetricValueStatus::default() }
    }
}
