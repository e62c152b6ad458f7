//! What is measured in a lab whose kubelets run in another process: they send what they tell their
//! board, so that `kubectl top` answers as if they ran here. Both ends of the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wharf_model::curve::Curve;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::metrics::{Level, Series, Told, Value};

/// Where a lab takes it, below `/wharf/v1/`.
pub(crate) const NAME: &str = "measured";

/// One piece of news.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum News {
    Container { pod: Key, container: String, started: i64, at: i64, cpu: u64, memory: u64 },
    Ended { pod: Key, container: String, at: i64 },
    PodGone { pod: Key },
    Node { node: String, at: i64, cpu: u64, memory: u64 },
    NodeGone { node: String },
    Value { series: Named, at: i64, value: Number },
    ValueGone { series: Named },
}

/// Namespace and name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Key(String, String);

/// A series.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    resource: String,
    object: Key,
    metric: String,
    labels: BTreeMap<String, String>,
}

/// A value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Number {
    Constant(f64),
    /// Mean, amplitude, and period and phase in nanoseconds; from when on.
    Sine(f64, f64, u64, u64, i64),
    /// Times in nanoseconds with values, and after how long they begin anew; from when on.
    Steps(Vec<(u64, f64)>, Option<u64>, i64),
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&ObjectKey> for Key {
    fn from(key: &ObjectKey) -> Self {
        Self(key.namespace.to_string(), key.name.to_string())
    }
}

impl From<Key> for ObjectKey {
    fn from(Key(namespace, name): Key) -> Self {
        Self::namespaced(namespace, name)
    }
}

impl From<&Series> for Named {
    fn from(series: &Series) -> Self {
        Self {
            resource: series.resource.to_string(),
            object: (&series.object).into(),
            metric: series.metric.to_string(),
            labels: series.labels.clone(),
        }
    }
}

impl From<Named> for Series {
    fn from(named: Named) -> Self {
        Self {
            resource: named.resource.into(),
            object: named.object.into(),
            metric: named.metric.into(),
            labels: named.labels,
        }
    }
}

impl From<&Value> for Number {
    fn from(value: &Value) -> Self {
        match value {
            Value::Number(number) => Self::Constant(*number),
            Value::Curve(curve, start) => match curve.as_ref() {
                Curve::Constant(number) => Self::Constant(*number),
                Curve::Sine { mean, amplitude, period, phase } => {
                    Self::Sine(*mean, *amplitude, nanos(*period), nanos(*phase), start.as_nanos())
                }
                Curve::Steps { points, repeat } => Self::Steps(
                    points.iter().map(|(at, value)| (nanos(*at), *value)).collect(),
                    repeat.map(nanos),
                    start.as_nanos(),
                ),
            },
        }
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        let span = std::time::Duration::from_nanos;
        match number {
            Number::Constant(number) => Self::Number(number),
            Number::Sine(mean, amplitude, period, phase, start) => {
                let (period, phase) = (span(period.max(1)), span(phase));
                let curve = Curve::Sine { mean, amplitude, period, phase };
                Self::Curve(Arc::new(curve), Time::from_nanos(start))
            }
            Number::Steps(points, repeat, start) => {
                let points = points.into_iter().map(|(at, value)| (span(at), value)).collect();
                let curve = Curve::Steps { points, repeat: repeat.map(span) };
                Self::Curve(Arc::new(curve), Time::from_nanos(start))
            }
        }
    }
}

impl From<&Told> for News {
    fn from(told: &Told) -> Self {
        match told {
            Told::Container { pod, container, started, at, level } => Self::Container {
                pod: pod.into(),
                container: container.to_string(),
                started: started.as_nanos(),
                at: at.as_nanos(),
                cpu: level.cpu_nanos,
                memory: level.memory_bytes,
            },
            Told::Ended { pod, container, at } => {
                Self::Ended { pod: pod.into(), container: container.to_string(), at: at.as_nanos() }
            }
            Told::PodGone { pod } => Self::PodGone { pod: pod.into() },
            Told::Node { node, at, level } => Self::Node {
                node: node.to_string(),
                at: at.as_nanos(),
                cpu: level.cpu_nanos,
                memory: level.memory_bytes,
            },
            Told::NodeGone { node } => Self::NodeGone { node: node.to_string() },
            Told::Value { series, value, at } => {
                Self::Value { series: series.into(), at: at.as_nanos(), value: value.into() }
            }
            Told::ValueGone { series } => Self::ValueGone { series: series.into() },
        }
    }
}

impl From<News> for Told {
    fn from(news: News) -> Self {
        let time = Time::from_nanos;
        match news {
            News::Container { pod, container, started, at, cpu, memory } => Self::Container {
                pod: pod.into(),
                container: container.into(),
                started: time(started),
                at: time(at),
                level: Level { cpu_nanos: cpu, memory_bytes: memory },
            },
            News::Ended { pod, container, at } => {
                Self::Ended { pod: pod.into(), container: container.into(), at: time(at) }
            }
            News::PodGone { pod } => Self::PodGone { pod: pod.into() },
            News::Node { node, at, cpu, memory } => Self::Node {
                node: node.into(),
                at: time(at),
                level: Level { cpu_nanos: cpu, memory_bytes: memory },
            },
            News::NodeGone { node } => Self::NodeGone { node: node.into() },
            News::Value { series, at, value } => {
                Self::Value { series: series.into(), at: time(at), value: value.into() }
            }
            News::ValueGone { series } => Self::ValueGone { series: series.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_sent_is_what_was_told() {
        let pod = ObjectKey::namespaced("shop", "web");
        let at = Time::from_nanos(1_234_567_890_123);
        let level = Level { cpu_nanos: 5, memory_bytes: 7 };
        let series = Series {
            resource: "pods".into(),
            object: pod.clone(),
            metric: "rps".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
        };
        let steps = Curve::Steps {
            points: vec![(Duration::from_millis(1), 2.5)],
            repeat: Some(Duration::from_secs(9)),
        };
        let told = [
            Told::Container { pod: pod.clone(), container: "c".into(), started: at, at, level },
            Told::Ended { pod: pod.clone(), container: "c".into(), at },
            Told::PodGone { pod },
            Told::Node { node: "n".into(), at, level },
            Told::NodeGone { node: "n".into() },
            Told::Value { series: series.clone(), value: Value::Number(0.25), at },
            Told::Value { series: series.clone(), value: Value::Curve(Arc::new(steps), at), at },
            Told::ValueGone { series },
        ];
        let news: Vec<News> = told.iter().map(News::from).collect();
        let wire = serde_json::to_string(&news).expect("plain data");
        let received: Vec<News> = serde_json::from_str(&wire).expect("its own form");
        let received: Vec<Told> = received.into_iter().map(Told::from).collect();
        assert_eq!(received, told);
    }
}
