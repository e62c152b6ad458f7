//! What the metrics APIs answer: values from JSON, and refusals in client-go's words, which end up
//! in the conditions of autoscalers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as MetaTime;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wharf_model::duration;
use wharf_model::metrics::{ContainerUsage, NodeMetrics, PodMetrics, Sample, Usage};
use wharf_model::quantity::Quantity;
use wharf_model::time::Time;
use wharf_ports::error::{ApiError, StatusReason};

use crate::status;

/// The window of a custom metric that does not say: upstream's client takes a minute.
const WINDOW: Duration = Duration::from_secs(60);
const NOT_FOUND: &str = "the server could not find the requested resource";

/// An answer, shared by all who ask for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Pods(Arc<[PodMetrics]>),
    Nodes(Arc<[NodeMetrics]>),
    Samples(Arc<[Sample]>),
}

/// Usage of pods, in the order of their names.
pub(super) fn pods(body: &[u8], namespace: &str) -> Result<Answer, String> {
    let list: List<PodItem> = read(body)?;
    let mut pods: Vec<PodMetrics> = list
        .items
        .into_iter()
        .map(|item| PodMetrics {
            namespace: namespace.into(),
            pod: item.metadata.name.into(),
            timestamp: Time::from(&item.timestamp),
            window: window(&item.window),
            containers: item
                .containers
                .into_iter()
                .map(|container| ContainerUsage {
                    name: container.name.into(),
                    usage: usage(&container.usage),
                })
                .collect(),
        })
        .collect();
    pods.sort_by(|a, b| a.pod.cmp(&b.pod));
    Ok(Answer::Pods(pods.into()))
}

/// Usage of nodes, in the order of their names.
pub(super) fn nodes(body: &[u8]) -> Result<Answer, String> {
    let list: List<NodeItem> = read(body)?;
    let mut nodes: Vec<NodeMetrics> = list
        .items
        .into_iter()
        .map(|item| NodeMetrics {
            node: item.metadata.name.into(),
            timestamp: Time::from(&item.timestamp),
            window: window(&item.window),
            usage: usage(&item.usage),
        })
        .collect();
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(Answer::Nodes(nodes.into()))
}

/// Values of a custom metric, of either version of the API.
pub(super) fn values(body: &[u8]) -> Result<Answer, String> {
    let list: List<ValueItem> = read(body)?;
    let samples = list.items.into_iter().map(|item| {
        let seconds = item.window_seconds.or(item.window);
        Ok(Sample {
            object: item.described_object.name.into(),
            labels: BTreeMap::new(),
            timestamp: Time::from(&item.timestamp),
            window: Some(seconds.map_or(WINDOW, Duration::from_secs)),
            value: quantity(&item.value)?,
        })
    });
    Ok(Answer::Samples(samples.collect::<Result<Vec<_>, String>>()?.into()))
}

/// Values of an external metric.
pub(super) fn external(body: &[u8]) -> Result<Answer, String> {
    let list: List<ExternalItem> = read(body)?;
    let samples = list.items.into_iter().map(|item| {
        Ok(Sample {
            object: Default::default(),
            labels: item.metric_labels.unwrap_or_default(),
            timestamp: Time::from(&item.timestamp),
            window: item.window.map(Duration::from_secs),
            value: quantity(&item.value)?,
        })
    });
    Ok(Answer::Samples(samples.collect::<Result<Vec<_>, String>>()?.into()))
}

/// The versions of the custom metrics API that a cluster tells.
pub(super) struct Versions(Group);

impl Versions {
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        read(body).map(Self)
    }

    /// The preferred one if it is known here, else the first that is.
    pub(super) fn chosen(&self) -> Result<&'static str, String> {
        let preferred = self.0.preferred_version.iter();
        preferred
            .chain(&self.0.versions)
            .find_map(|version| ["v1beta2", "v1beta1"].into_iter().find(|v| *v == version.version))
            .ok_or_else(|| "no known available metric versions found".to_owned())
    }
}

/// Whether a refusal says that there is no such API.
pub(super) fn is_absent(error: &ApiError) -> bool {
    error.reason == StatusReason::NotFound
        && (status::is_plain(error) || error.message == NOT_FOUND)
}

/// A refusal in client-go's words: the server's own if it sent any that mean something, else what
/// client-go says for such a code, with what was asked for.
pub(super) fn refusal(error: &ApiError, subject: &str) -> String {
    if !status::is_plain(error) && error.message != NOT_FOUND {
        return error.message.clone();
    }
    use StatusReason as R;
    let text = match error.reason {
        R::NotFound => NOT_FOUND,
        R::Unauthorized => "the server has asked for the client to provide credentials",
        R::Forbidden => "the server does not allow access to the requested resource",
        R::MethodNotAllowed => "the server does not allow this method on the requested resource",
        R::TooManyRequests => {
            "the server has received too many requests and has asked us to try again later"
        }
        R::ServiceUnavailable => "the server is currently unable to handle the request",
        R::Timeout => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        R::InternalError => "an error on the server has prevented the request from succeeding",
        _ => return format!("{} (get {subject})", error.message),
    };
    format!("{text} (get {subject})")
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("the answer cannot be read: {error}"))
}

/// A value that cannot be read is left out, as if the container had none.
fn usage(amounts: &BTreeMap<String, String>) -> Usage {
    let amount = |(name, text): (&String, &String)| {
        Some((name.as_str().into(), Quantity::parse(text).ok()?))
    };
    amounts.iter().filter_map(amount).collect()
}

fn quantity(text: &str) -> Result<Quantity, String> {
    Quantity::parse(text).map_err(|error| format!("the answer has a value {text:?}: {error}"))
}

fn window(text: &str) -> Duration {
    duration::parse(text)
        .ok()
        .and_then(|nanos| u64::try_from(nanos).ok())
        .map_or(Duration::ZERO, Duration::from_nanos)
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct PodItem {
    metadata: Named,
    timestamp: MetaTime,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerItem>,
}

#[derive(Deserialize)]
struct ContainerItem {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct NodeItem {
    metadata: Named,
    timestamp: MetaTime,
    #[serde(default)]
    window: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValueItem {
    described_object: Named,
    timestamp: MetaTime,
    /// `v1beta2`.
    window_seconds: Option<u64>,
    /// `v1beta1`.
    window: Option<u64>,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExternalItem {
    metric_labels: Option<BTreeMap<String, String>>,
    timestamp: MetaTime,
    window: Option<u64>,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Option<GroupVersion>,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn usage_of_pods_is_read() {
        let body = br#"{"kind":"PodMetricsList","items":[
            {"metadata":{"name":"b","namespace":"shop"},"timestamp":"2026-01-01T00:00:30Z","window":"14.9s",
             "containers":[{"name":"main","usage":{"cpu":"12345678n","memory":"30Mi","odd":"x"}}]},
            {"metadata":{"name":"a"},"timestamp":"2026-01-01T00:00:30Z","window":"15s","containers":null_}]}"#;
        let text = String::from_utf8_lossy(body).replace("null_", "[]");
        let Ok(Answer::Pods(pods)) = pods(text.as_bytes(), "shop") else {
            panic!("it can be read")
        };
        assert_eq!([&*pods[0].pod, &*pods[1].pod], ["a", "b"]);
        assert_eq!(pods[1].window, Duration::from_millis(14_900));
        let usage = &pods[1].containers[0].usage;
        assert_eq!(usage.len(), 2, "what cannot be read is left out");
        assert_eq!(usage[0].1.milli_value_ceil(), 13);
    }

    #[test]
    fn both_versions_of_a_custom_metric_are_read() {
        for item in [
            r#""metric":{"name":"rps","selector":null},"windowSeconds":30"#,
            r#""metricName":"rps","window":30,"selector":null"#,
        ] {
            let body = format!(
                r#"{{"items":[{{"describedObject":{{"kind":"Pod","name":"a"}},{item},"timestamp":"2026-01-01T00:00:30Z","value":"2500m"}}]}}"#
            );
            let Ok(Answer::Samples(samples)) = values(body.as_bytes()) else { panic!("{item}") };
            assert_eq!(samples[0].window, Some(Duration::from_secs(30)));
            assert_eq!(samples[0].value.milli_value_ceil(), 2_500);
        }
        let error = values(br#"{"items":[{"describedObject":{"name":"a"},"timestamp":"2026-01-01T00:00:30Z","value":"many"}]}"#);
        let error = error.expect_err("many is no number");
        assert!(error.starts_with("the answer has a value \"many\": "), "{error}");
    }

    #[test]
    fn the_preferred_version_is_taken_if_it_is_known() {
        for (preferred, versions, expected) in [
            ("v1beta1", &["v1beta2", "v1beta1"][..], Ok("v1beta1")),
            ("v1", &["v1", "v1beta2", "v1beta1"], Ok("v1beta2")),
            ("v1beta1", &["v1beta1"], Ok("v1beta1")),
            ("v1", &["v1"], Err("no known available metric versions found".to_owned())),
        ] {
            let versions: Vec<String> =
                versions.iter().map(|v| format!(r#"{{"version":"{v}"}}"#)).collect();
            let body = format!(
                r#"{{"preferredVersion":{{"version":"{preferred}"}},"versions":[{}]}}"#,
                versions.join(",")
            );
            let found = Versions::read(body.as_bytes()).and_then(|versions| versions.chosen());
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn refusals_are_in_the_words_of_upstreams_client() {
        let told = |code, body: &str| {
            refusal(
                &status::refusal(code, &HeaderMap::new(), body.as_bytes()),
                "pods.metrics.k8s.io",
            )
        };
        for (code, body, expected) in [
            (
                404,
                "404 page not found",
                "the server could not find the requested resource (get pods.metrics.k8s.io)",
            ),
            (
                404,
                r#"{"kind":"Status","code":404,"reason":"NotFound","message":"the server could not find the requested resource"}"#,
                "the server could not find the requested resource (get pods.metrics.k8s.io)",
            ),
            (
                503,
                "service unavailable",
                "the server is currently unable to handle the request (get pods.metrics.k8s.io)",
            ),
            (
                403,
                r#"{"kind":"Status","code":403,"reason":"Forbidden","message":"pods.metrics.k8s.io is forbidden: User \"x\" cannot list resource"}"#,
                "pods.metrics.k8s.io is forbidden: User \"x\" cannot list resource",
            ),
            (
                418,
                "short and stout",
                "the server answered 418: short and stout (get pods.metrics.k8s.io)",
            ),
        ] {
            assert_eq!(told(code, body), expected);
        }
    }
}
