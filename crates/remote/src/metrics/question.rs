//! What the metrics APIs are asked, as values, and the paths under which they are asked it.

use compact_str::CompactString;
use wharf_ports::metrics::{MetricQuery, PodQuery};

use super::answer::{self, Answer};
use crate::path::escaped;

/// Usage of cpu and memory.
const RESOURCE: &str = "metrics.k8s.io";
/// Values about objects.
pub(super) const CUSTOM: &str = "custom.metrics.k8s.io";
/// Values about nothing in the cluster.
const EXTERNAL: &str = "external.metrics.k8s.io";

/// One question. Two autoscalers that ask the same share the answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// The usage of the pods of a namespace that a selector matches.
    Usage { namespace: CompactString, selector: String },
    /// The usage of all nodes.
    Nodes,
    /// A metric of those pods.
    Pods { namespace: CompactString, selector: String, metric: CompactString, series: String },
    /// A metric of one object, by its resource with group. Of a namespace there is no object's
    /// name: it is about the one that the question is asked in.
    Object {
        namespace: CompactString,
        resource: CompactString,
        name: CompactString,
        metric: CompactString,
        series: String,
    },
    /// An external metric.
    External { namespace: CompactString, metric: CompactString, series: String },
}

impl Question {
    /// What is asked for the usage of pods.
    pub(super) fn of_pods(pods: &PodQuery<'_>) -> Self {
        Self::Usage { namespace: pods.namespace.into(), selector: pods.selector.to_string() }
    }

    /// What is asked for a custom or external metric.
    pub(super) fn of_metric(query: &MetricQuery<'_>) -> Self {
        match query {
            MetricQuery::Pods { pods, metric, series } => Self::Pods {
                namespace: pods.namespace.into(),
                selector: pods.selector.to_string(),
                metric: (*metric).into(),
                series: series.to_string(),
            },
            MetricQuery::Object { object, metric, series } => {
                let (resource, key) = object.resource();
                let is_namespace = resource == "namespaces";
                Self::Object {
                    namespace: object.namespace.into(),
                    resource,
                    name: if is_namespace { CompactString::default() } else { key.name },
                    metric: (*metric).into(),
                    series: series.to_string(),
                }
            }
            MetricQuery::External { namespace, metric, series } => Self::External {
                namespace: (*namespace).into(),
                metric: (*metric).into(),
                series: series.to_string(),
            },
        }
    }

    /// The API that is asked.
    pub(super) fn group(&self) -> &'static str {
        match self {
            Self::Usage { .. } | Self::Nodes => RESOURCE,
            Self::Pods { .. } | Self::Object { .. } => CUSTOM,
            Self::External { .. } => EXTERNAL,
        }
    }

    /// Path and query. `version` is that of the custom metrics API; the others have one.
    pub(super) fn path(&self, version: &str) -> String {
        let within = |version: &str, namespace: &str| {
            format!("/apis/{}/{version}/namespaces/{}", self.group(), escaped(namespace))
        };
        let (path, parameters) = match self {
            Self::Usage { namespace, selector } => (
                format!("{}/pods", within("v1beta1", namespace)),
                vec![("labelSelector", selector)],
            ),
            Self::Nodes => (format!("/apis/{RESOURCE}/v1beta1/nodes"), Vec::new()),
            Self::Pods { namespace, selector, metric, series } => (
                format!("{}/pods/*/{}", within(version, namespace), escaped(metric)),
                vec![("labelSelector", selector), ("metricLabelSelector", series)],
            ),
            Self::Object { namespace, resource, name, metric, series } => {
                let within = within(version, namespace);
                let metric = escaped(metric);
                let path = if name.is_empty() {
                    format!("{within}/metrics/{metric}")
                } else {
                    format!("{within}/{}/{}/{metric}", escaped(resource), escaped(name))
                };
                (path, vec![("metricLabelSelector", series)])
            }
            Self::External { namespace, metric, series } => (
                format!("{}/{}", within("v1beta1", namespace), escaped(metric)),
                vec![("labelSelector", series)],
            ),
        };
        let given = parameters.iter().filter(|(_, value)| !value.is_empty());
        let query: Vec<String> =
            given.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    /// What was asked for, as client-go names it in errors: `pods.metrics.k8s.io`.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Usage { .. } => format!("pods.{RESOURCE}"),
            Self::Nodes => format!("nodes.{RESOURCE}"),
            Self::Pods { .. } => format!("pods.{CUSTOM} *"),
            Self::Object { name, metric, .. } if name.is_empty() => {
                format!("metrics.{CUSTOM} {metric}")
            }
            Self::Object { resource, name, .. } => format!("{resource}.{CUSTOM} {name}"),
            Self::External { metric, .. } => format!("{metric}.{EXTERNAL}"),
        }
    }

    /// Reads the answer.
    pub(super) fn read(&self, body: &[u8]) -> Result<Answer, String> {
        match self {
            Self::Usage { namespace, .. } => answer::pods(body, namespace),
            Self::Nodes => answer::nodes(body),
            Self::Pods { .. } | Self::Object { .. } => answer::values(body),
            Self::External { .. } => answer::external(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use wharf_model::selector::Selector;
    use wharf_ports::metrics::DescribedObject;

    use super::*;

    #[test]
    fn questions_are_asked_as_upstream_asks_them() {
        let (pods, series) = (
            Selector::parse("app=web,tier in (a,b)").expect("a selector"),
            Selector::parse("verb=GET").expect("a selector"),
        );
        let everything = Selector::EVERYTHING;
        let query = PodQuery { namespace: "shop", selector: &pods, names: &[] };
        let of_object = |api_version, kind, name| {
            let object = DescribedObject { namespace: "shop", api_version, kind, name };
            Question::of_metric(&MetricQuery::Object { object, metric: "hits", series: &series })
        };
        for (question, path, subject) in [
            (
                Question::of_pods(&query),
                "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods?labelSelector=app%3Dweb%2Ctier%20in%20%28a%2Cb%29",
                "pods.metrics.k8s.io",
            ),
            (Question::Nodes, "/apis/metrics.k8s.io/v1beta1/nodes", "nodes.metrics.k8s.io"),
            (
                Question::of_metric(&MetricQuery::Pods {
                    pods: query,
                    metric: "rps",
                    series: &everything,
                }),
                "/apis/custom.metrics.k8s.io/V/namespaces/shop/pods/*/rps?labelSelector=app%3Dweb%2Ctier%20in%20%28a%2Cb%29",
                "pods.custom.metrics.k8s.io *",
            ),
            (
                of_object("apps/v1", "Deployment", "web"),
                "/apis/custom.metrics.k8s.io/V/namespaces/shop/deployments.apps/web/hits?metricLabelSelector=verb%3DGET",
                "deployments.apps.custom.metrics.k8s.io web",
            ),
            (
                of_object("v1", "Namespace", "elsewhere"),
                "/apis/custom.metrics.k8s.io/V/namespaces/shop/metrics/hits?metricLabelSelector=verb%3DGET",
                "metrics.custom.metrics.k8s.io hits",
            ),
            (
                Question::of_metric(&MetricQuery::External {
                    namespace: "shop",
                    metric: "sqs/queue length",
                    series: &everything,
                }),
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/sqs%2Fqueue%20length",
                "sqs/queue length.external.metrics.k8s.io",
            ),
        ] {
            assert_eq!(question.path("V"), path);
            assert_eq!(question.subject(), subject);
        }
    }
}
