//! Which queries are which custom and external metrics: the file of `--prometheus-rules`, a small
//! part of what Prometheus Adapter is configured with.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;
use serde::Deserialize;
use wharf_model::kinds::{Kind, built_in};
use wharf_model::object::ObjectKey;
use wharf_ports::metrics::{MetricQuery, Series};

use super::Data;

/// Series that one rule may give: each is told to the autoscalers with every answer.
const SERIES_MAX: usize = 10_000;
const API_VERSION: &str = "wharf.dev/v1alpha1";
const KIND: &str = "PrometheusRules";

/// A query with the metric that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The metric's name.
    pub(super) metric: CompactString,
    /// The kind of the objects it is about; `None` for an external metric.
    about: Option<Kind>,
    /// What Prometheus is asked.
    pub(super) query: String,
    namespace_label: String,
    name_label: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    rules: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    metric: CompactString,
    about: Option<String>,
    query: String,
    namespace_label: Option<String>,
    name_label: Option<String>,
}

/// Reads a file's text; `file` is its name for messages.
pub(crate) fn load(text: &str, file: &str) -> Result<Vec<Rule>, String> {
    let wrong = |what: String| format!("{file}: {what}");
    let read: File = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.to_string();
        wrong(error.lines().next().unwrap_or_default().trim_end_matches(':').to_owned())
    })?;
    if read.api_version != API_VERSION || read.kind != KIND {
        return Err(wrong(format!(
            "it holds {} {}; this version reads {API_VERSION} {KIND}",
            read.api_version, read.kind
        )));
    }
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    for (at, written) in read.rules.into_iter().enumerate() {
        let wrong = |field: &str, what: &str| wrong(format!("rules[{at}].{field}: {what}"));
        if written.metric.is_empty() {
            return Err(wrong("metric", "give the metric a name"));
        }
        if written.query.trim().is_empty() {
            return Err(wrong("query", "say what to ask Prometheus"));
        }
        let about = written.about.as_deref().map(|resource| {
            let found = built_in().iter().find(|kind| kind.group_resource() == resource);
            found.copied().ok_or_else(|| {
                let what = format!(
                    "there is no resource {resource:?}; write pods, services, deployments.apps and so on, or leave it out for an external metric"
                );
                wrong("about", &what)
            })
        });
        let about = about.transpose()?;
        if !names
            .insert((about.map(|kind| kind.group_resource().to_owned()), written.metric.clone()))
        {
            return Err(wrong("metric", &format!("{} has a rule already", written.metric)));
        }
        let name = about.map_or_else(String::new, |kind| kind.kind.to_lowercase());
        rules.push(Rule {
            metric: written.metric,
            about,
            query: written.query,
            namespace_label: written.namespace_label.unwrap_or_else(|| "namespace".to_owned()),
            name_label: written.name_label.unwrap_or(name),
        });
    }
    Ok(rules)
}

impl Rule {
    /// Whether a question of an autoscaler is one for this rule.
    pub(super) fn answers(&self, query: &MetricQuery<'_>) -> bool {
        let is_about =
            |resource: &str| self.about.is_some_and(|kind| kind.group_resource() == resource);
        match query {
            MetricQuery::Pods { metric, .. } => self.metric == *metric && is_about("pods"),
            MetricQuery::Object { object, metric, .. } => {
                self.metric == *metric && is_about(&object.resource().0)
            }
            MetricQuery::External { metric, .. } => self.metric == *metric && self.about.is_none(),
        }
    }

    /// The series that an answer of Prometheus gives, with their values. What is no number is none.
    pub(super) fn series(&self, data: Data) -> Result<BTreeMap<Series, f64>, String> {
        let values = match data {
            Data::Vector(values) => values,
            Data::Scalar(value) if self.about.is_none() => {
                vec![super::Value { metric: BTreeMap::new(), value }]
            }
            other => return Err(format!("its query gives a {}, not a vector", other.name())),
        };
        if values.len() > SERIES_MAX {
            return Err(format!(
                "its query gives {} series, and {SERIES_MAX} are the most; sum them up",
                values.len()
            ));
        }
        let mut found = BTreeMap::new();
        for super::Value { metric: mut labels, value: (_, value) } in values {
            let value = value.0;
            if !value.is_finite() {
                continue;
            }
            labels.remove("__name__");
            let (resource, object) = self.object(&mut labels)?;
            let metric = self.metric.clone();
            found.insert(Series { resource, object, metric, labels }, value);
        }
        Ok(found)
    }

    /// The object that a series is about, whose labels are taken out.
    fn object(
        &self,
        labels: &mut BTreeMap<String, String>,
    ) -> Result<(CompactString, ObjectKey), String> {
        let Some(kind) = self.about else {
            // An external metric without a namespace is one of all namespaces.
            let namespace = labels.remove(&self.namespace_label).unwrap_or_default();
            return Ok((CompactString::default(), ObjectKey::namespaced(namespace, "")));
        };
        let mut take = |label: &String| {
            labels.remove(label).ok_or_else(|| {
                format!("its query gives series without the label {label}, which says what they are about")
            })
        };
        let namespace = if kind.namespaced { take(&self.namespace_label)? } else { String::new() };
        let name = take(&self.name_label)?;
        Ok((kind.group_resource().into(), ObjectKey::namespaced(namespace, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
apiVersion: wharf.dev/v1alpha1
kind: PrometheusRules
rules:
- metric: http_requests_per_second
  about: pods
  query: sum by (namespace, pod) (rate(http_requests_total[2m]))
- metric: latency
  about: deployments.apps
  namespaceLabel: ns
  nameLabel: workload
  query: max by (ns, workload) (latency_seconds)
- metric: queue_length
  query: sum by (queue) (queue_messages)
"#;

    fn vector(series: &str) -> Data {
        let text = format!(r#"{{"resultType":"vector","result":[{series}]}}"#);
        serde_json::from_str(&text).expect("an answer")
    }

    fn shown(rule: &Rule, data: Data) -> Result<Vec<String>, String> {
        let show = |(series, value): (Series, f64)| {
            format!(
                "{} {} {} {:?} {value}",
                series.resource, series.object, series.metric, series.labels
            )
        };
        Ok(rule.series(data)?.into_iter().map(show).collect())
    }

    #[test]
    fn series_become_metrics_of_objects() {
        let rules = load(FILE, "rules.yaml").expect("it is right");
        let pods = vector(
            r#"{"metric":{"__name__":"x","namespace":"shop","pod":"web-1","code":"200"},"value":[1,"2.5"]},
               {"metric":{"namespace":"shop","pod":"web-2"},"value":[1,"NaN"]}"#,
        );
        assert_eq!(
            shown(&rules[0], pods).expect("series"),
            [r#"pods shop/web-1 http_requests_per_second {"code": "200"} 2.5"#]
        );
        let workloads = vector(r#"{"metric":{"ns":"shop","workload":"web"},"value":[1,"+Inf"]}"#);
        assert_eq!(shown(&rules[1], workloads), Ok(vec![]));
        let workloads = vector(r#"{"metric":{"ns":"shop","workload":"web"},"value":[1,"3"]}"#);
        assert_eq!(
            shown(&rules[1], workloads).expect("series"),
            ["deployments.apps shop/web latency {} 3"]
        );
        let queues = vector(r#"{"metric":{"queue":"a","namespace":"shop"},"value":[1,"7"]}"#);
        assert_eq!(
            shown(&rules[2], queues).expect("series"),
            [r#" shop/ queue_length {"queue": "a"} 7"#]
        );
        let scalar: Data =
            serde_json::from_str(r#"{"resultType":"scalar","result":[1,"7"]}"#).expect("an answer");
        assert_eq!(rules[2].series(scalar).map(|found| found.len()), Ok(1));
        for (rule, data, expected) in [
            (0, vector(r#"{"metric":{"pod":"x"},"value":[1,"1"]}"#), "without the label namespace"),
            (1, vector(r#"{"metric":{"ns":"x"},"value":[1,"1"]}"#), "without the label workload"),
            (0, Data::Matrix(Vec::new()), "its query gives a matrix, not a vector"),
        ] {
            let error = rules[rule].series(data).expect_err("it cannot be");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (from, to, expected) in [
            (
                "v1alpha1",
                "v1",
                "f: it holds wharf.dev/v1 PrometheusRules; this version reads wharf.dev/v1alpha1 PrometheusRules",
            ),
            (
                "about: pods",
                "about: pod",
                "f: rules[0].about: there is no resource \"pod\"; write pods,",
            ),
            ("metric: latency", "metric: ''", "f: rules[1].metric: give the metric a name"),
            (
                "query: sum by (queue) (queue_messages)",
                "query: ' '",
                "f: rules[2].query: say what to ask Prometheus",
            ),
            ("about: pods", "abuot: pods", "unknown field `abuot`"),
            (
                "about: deployments.apps",
                "about: pods",
                "rules[1].metric: http_requests_per_second has a rule already",
            ),
        ] {
            let text = FILE.replace(from, to);
            let text = match expected.contains("already") {
                true => text.replace("metric: latency", "metric: http_requests_per_second"),
                false => text,
            };
            let error = load(&text, "f").expect_err("a mistake");
            assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
        }
    }
}
