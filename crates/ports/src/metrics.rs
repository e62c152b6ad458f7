//! The Metrics port: what the metrics APIs say at a moment of cluster time.
//!
//! An answer is a function of what was measured up to `now`, never of when somebody asks: a lab at
//! any speed and a rehearsal decide alike.

mod board;
mod meter;

use std::sync::Arc;

use compact_str::CompactString;
use wharf_model::kinds::Kind;
use wharf_model::metrics::{NodeMetrics, PodMetrics, Sample};
use wharf_model::object::ObjectKey;
use wharf_model::selector::Selector;
use wharf_model::time::Time;

pub use board::{Board, Counters, Listener, RESOLUTION, Series, Told, Value, last_scrape};
pub use meter::{Level, Meter};

/// The metrics APIs. Errors are their texts, as upstream's autoscalers put them into conditions
/// and Events.
pub trait Metrics: Send + Sync {
    /// What `metrics.k8s.io` says of pods. One of which nothing is known is left out.
    ///
    /// # Errors
    /// The API's refusal.
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String>;

    /// What `metrics.k8s.io` says of all nodes, in the order of their names.
    ///
    /// # Errors
    /// The API's refusal.
    fn node_metrics(&self, now: Time) -> Result<Vec<NodeMetrics>, String>;

    /// What `custom.metrics.k8s.io` or `external.metrics.k8s.io` says of a metric.
    ///
    /// # Errors
    /// The API's refusal.
    fn samples(&self, query: &MetricQuery<'_>, now: Time) -> Result<Vec<Sample>, String>;

    /// How many questions have been deferred so far: their answers have to be sent for, and were
    /// refused meanwhile. Whoever asks the same a moment later finds the answer. `None` where
    /// nothing is ever deferred.
    fn deferred(&self) -> Option<u64> {
        None
    }
}

/// A cluster without metrics: what an API server says to which no metrics server has been added.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMetrics;

const NO_RESOURCE: &str = "the server could not find the requested resource";

impl Metrics for NoMetrics {
    fn pod_metrics(&self, _: &PodQuery<'_>, _: Time) -> Result<Vec<PodMetrics>, String> {
        Err(format!("{NO_RESOURCE} (get pods.metrics.k8s.io)"))
    }

    fn node_metrics(&self, _: Time) -> Result<Vec<NodeMetrics>, String> {
        Err(format!("{NO_RESOURCE} (get nodes.metrics.k8s.io)"))
    }

    fn samples(&self, query: &MetricQuery<'_>, _: Time) -> Result<Vec<Sample>, String> {
        Err(match query {
            MetricQuery::External { metric, .. } => {
                format!("{NO_RESOURCE} (get {metric}.external.metrics.k8s.io)")
            }
            _ => "no custom metrics API (custom.metrics.k8s.io) registered".to_owned(),
        })
    }
}

/// Which metrics APIs a cluster has: most have those of the add-ons that somebody installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsApis {
    /// `metrics.k8s.io`, which metrics-server brings.
    pub resource: bool,
    /// `custom.metrics.k8s.io`, which an adapter brings.
    pub custom: bool,
    /// `external.metrics.k8s.io`, which an adapter brings.
    pub external: bool,
}

impl MetricsApis {
    /// All three.
    pub const ALL: Self = Self { resource: true, custom: true, external: true };
    /// None of them.
    pub const NONE: Self = Self { resource: false, custom: false, external: false };

    /// Whether an API group is served; those that are not about metrics are not in question.
    pub fn serve(self, group: &str) -> bool {
        match group {
            "metrics.k8s.io" => self.resource,
            "custom.metrics.k8s.io" => self.custom,
            "external.metrics.k8s.io" => self.external,
            _ => true,
        }
    }
}

impl Default for MetricsApis {
    fn default() -> Self {
        Self::ALL
    }
}

impl std::str::FromStr for MetricsApis {
    type Err = String;

    /// `all`, `none`, or some of `resource`, `custom` and `external` with commas between.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut apis = Self::NONE;
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(apis),
            _ => {}
        }
        for name in text.split(',').map(str::trim) {
            *match name {
                "resource" => &mut apis.resource,
                "custom" => &mut apis.custom,
                "external" => &mut apis.external,
                _ => {
                    return Err(format!(
                        "there is no metrics API {name:?}; there are resource, custom, external, all and none"
                    ));
                }
            } = true;
        }
        Ok(apis)
    }
}

/// Metrics of which some are not served: what reads them is told so as by an API server.
pub struct Served {
    /// Where the others are.
    pub metrics: Arc<dyn Metrics>,
    /// Which ones are served.
    pub apis: MetricsApis,
}

impl Metrics for Served {
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String> {
        match self.apis.resource {
            true => self.metrics.pod_metrics(pods, now),
            false => NoMetrics.pod_metrics(pods, now),
        }
    }

    fn node_metrics(&self, now: Time) -> Result<Vec<NodeMetrics>, String> {
        match self.apis.resource {
            true => self.metrics.node_metrics(now),
            false => NoMetrics.node_metrics(now),
        }
    }

    fn samples(&self, query: &MetricQuery<'_>, now: Time) -> Result<Vec<Sample>, String> {
        let served = match query {
            MetricQuery::External { .. } => self.apis.external,
            _ => self.apis.custom,
        };
        match served {
            true => self.metrics.samples(query, now),
            false => NoMetrics.samples(query, now),
        }
    }

    fn deferred(&self) -> Option<u64> {
        self.metrics.deferred()
    }
}

/// Which pods. Who asks knows the pods that its selector matches; an adapter that has the numbers
/// in memory looks them up by name, one that asks an API sends the selector.
#[derive(Clone, Copy, Debug)]
pub struct PodQuery<'a> {
    /// Their namespace.
    pub namespace: &'a str,
    /// What the API is asked for.
    pub selector: &'a Selector,
    /// The names of the pods that the selector matches. Answers come in this order.
    pub names: &'a [&'a str],
}

/// Which values of a custom or external metric.
#[derive(Clone, Copy, Debug)]
pub enum MetricQuery<'a> {
    /// A value for each of some pods.
    Pods {
        /// Which pods.
        pods: PodQuery<'a>,
        /// The metric.
        metric: &'a str,
        /// Which of its series.
        series: &'a Selector,
    },
    /// The value of one object.
    Object {
        /// Which object.
        object: DescribedObject<'a>,
        /// The metric.
        metric: &'a str,
        /// Which of its series.
        series: &'a Selector,
    },
    /// The values of an external metric.
    External {
        /// In whose name it is asked for.
        namespace: &'a str,
        /// The metric.
        metric: &'a str,
        /// Which of its series.
        series: &'a Selector,
    },
}

/// An object that a custom metric is about.
#[derive(Clone, Copy, Debug)]
pub struct DescribedObject<'a> {
    /// Its namespace: that of the autoscaler, for cluster-scoped objects too.
    pub namespace: &'a str,
    /// Its `apiVersion`; may be empty.
    pub api_version: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl DescribedObject<'_> {
    /// The object's resource with its group (`deployments.apps`) and its key. Of a kind that is
    /// not built in the resource is guessed, as upstream does where discovery has none.
    pub fn resource(&self) -> (CompactString, ObjectKey) {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        if let Some(kind) = Kind::by_kind(group, self.kind) {
            let namespace = if kind.namespaced { self.namespace } else { "" };
            return (
                kind.group_resource().into(),
                ObjectKey { namespace: namespace.into(), name: self.name.into() },
            );
        }
        let mut plural = self.kind.to_lowercase();
        if plural.ends_with(['s', 'x']) || plural.ends_with("ch") {
            plural.push_str("es");
        } else if plural.ends_with('y') {
            plural.pop();
            plural.push_str("ies");
        } else {
            plural.push('s');
        }
        let resource = if group.is_empty() { plural } else { format!("{plural}.{group}") };
        (resource.into(), ObjectKey::namespaced(self.namespace, self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_the_apis_can_be_left_out() {
        let apis: MetricsApis = "resource, external".parse().expect("known names");
        let served = Served { metrics: Board::new(), apis };
        let everything = Selector::EVERYTHING;
        let pods = PodQuery { namespace: "default", selector: &everything, names: &[] };
        assert_eq!(served.pod_metrics(&pods, Time::EPOCH), Ok(vec![]));
        let of_pods = MetricQuery::Pods { pods, metric: "rps", series: &everything };
        let absent = "no custom metrics API (custom.metrics.k8s.io) registered".to_owned();
        assert_eq!(served.samples(&of_pods, Time::EPOCH), Err(absent));
        let external =
            MetricQuery::External { namespace: "default", metric: "q", series: &everything };
        assert_eq!(served.samples(&external, Time::EPOCH), Ok(vec![]));
        assert!(apis.serve("apps") && !apis.serve("custom.metrics.k8s.io"));
        assert_eq!("all".parse(), Ok(MetricsApis::ALL));
        let error = "node".parse::<MetricsApis>().expect_err("a typo");
        assert!(error.starts_with("there is no metrics API \"node\"; there are "), "{error}");
    }

    #[test]
    fn objects_are_found_by_their_resource() {
        for (api_version, kind, expected) in [
            ("v1", "Service", "services default/x"),
            ("apps/v1", "Deployment", "deployments.apps default/x"),
            ("v1", "Node", "nodes x"),
            ("networking.k8s.io/v1", "Ingress", "ingresses.networking.k8s.io default/x"),
            ("example.com/v1", "Policy", "policies.example.com default/x"),
        ] {
            let object = DescribedObject { namespace: "default", api_version, kind, name: "x" };
            let (resource, key) = object.resource();
            assert_eq!(format!("{resource} {key}"), expected);
        }
    }
}
