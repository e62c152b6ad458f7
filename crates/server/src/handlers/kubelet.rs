//! `nodes/NAME/proxy/…`: what a kubelet itself tells of usage, `/metrics/resource` for Prometheus
//! and metrics-server, `/stats/summary` for people.

use std::fmt::Write as _;
use std::sync::Arc;

use hyper::{Method, Response};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use wharf_model::kinds::Kind;
use wharf_model::object::Object;
use wharf_model::quantity::Quantity;
use wharf_model::time::Time;
use wharf_ports::error::ApiError;
use wharf_ports::metrics::Counters;

use super::{Call, Target};
use crate::api::{Api, json as json_answer, typed_response};
use crate::body::Body;
use crate::status;

/// Answers what a kubelet is asked through the API.
pub(super) fn proxy(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    if !matches!(call.head.method, Method::GET | Method::HEAD) {
        return Err(status::no_such_method());
    }
    let key = call.key();
    let Some(node) = api.store.get(target.kind, &key) else {
        return Err(ApiError::not_found(target.kind, &key.name));
    };
    let now = api.now();
    let pods = pods_on(api, &key.name, now);
    let own = api.parts.metrics.node_counters(&key.name, now);
    match call.path.rest {
        "metrics/resource" => {
            let text = resource_metrics(own.as_ref(), &pods, now);
            Ok(typed_response(text.into(), "text/plain; version=0.0.4; charset=utf-8"))
        }
        "stats/summary" => {
            Ok(json_answer(summary(&node, own.as_ref(), &pods, now).to_string().into()))
        }
        "healthz" => Ok(typed_response("ok".into(), "text/plain; charset=utf-8")),
        _ => Err(status::no_such_path()),
    }
}

/// The pods of a node of which anything runs, with their counters.
fn pods_on(api: &Api, node: &str, now: Time) -> Vec<(Arc<Object>, Vec<Counters>)> {
    let (pods, _) = api.store.list(Kind::of::<Pod>(), None);
    let here = pods.into_iter().filter(|object| {
        let pod = object.typed::<Pod>();
        pod.and_then(|pod| pod.spec.as_ref()?.node_name.as_deref()) == Some(node)
    });
    here.filter_map(|object| {
        let key = object.key();
        let counters = api.parts.metrics.counters(&key.namespace, &key.name, now);
        (!counters.is_empty()).then_some((object, counters))
    })
    .collect()
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn resource_metrics(
    node: Option<&Counters>,
    pods: &[(Arc<Object>, Vec<Counters>)],
    now: Time,
) -> String {
    let millis = now.as_nanos() / 1_000_000;
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, f64)>| {
        let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "{name}{labels} {value} {millis}");
        }
    };
    let containers = |value: &dyn Fn(&Counters) -> f64| -> Vec<(String, f64)> {
        let rows = pods
            .iter()
            .flat_map(|(pod, counters)| counters.iter().map(move |counters| (pod.key(), counters)));
        rows.map(|(key, counters)| {
            let labels = format!(
                "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
                counters.container, key.namespace, key.name
            );
            (labels, value(counters))
        })
        .collect()
    };
    let per_pod = |value: &dyn Fn(&Counters) -> f64| -> Vec<(String, f64)> {
        pods.iter()
            .map(|(pod, counters)| {
                let key = pod.key();
                let labels = format!("{{namespace=\"{}\",pod=\"{}\"}}", key.namespace, key.name);
                (labels, counters.iter().map(value).sum())
            })
            .collect()
    };
    let cpu = |counters: &Counters| seconds(counters.cpu_nanos);
    let memory = |counters: &Counters| counters.memory_bytes as f64;
    let started = |counters: &Counters| counters.started.as_nanos() as f64 / 1e9;
    let of_node = |value: fn(&Counters) -> f64| -> Vec<(String, f64)> {
        node.map(|node| (String::new(), value(node))).into_iter().collect()
    };
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        containers(&cpu),
    );
    family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
        containers(&memory),
    );
    family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        containers(&started),
    );
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
        of_node(cpu),
    );
    family(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
        of_node(memory),
    );
    family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
        per_pod(&cpu),
    );
    family(
        "pod_memory_working_set_bytes",
        "gauge",
        "Current working set of the pod in bytes",
        per_pod(&memory),
    );
    family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        vec![(String::new(), 0.0)],
    );
    out
}

fn summary(
    node: &Object,
    own: Option<&Counters>,
    pods: &[(Arc<Object>, Vec<Counters>)],
    now: Time,
) -> Value {
    let time = now.to_meta();
    let cpu =
        |counters: &Counters| json!({"time": time, "usageCoreNanoSeconds": counters.cpu_nanos});
    let memory = |counters: &Counters| json!({"time": time, "workingSetBytes": counters.memory_bytes, "usageBytes": counters.memory_bytes});
    let shown = pods.iter().map(|(pod, counters)| {
        let key = pod.key();
        let sum = |value: fn(&Counters) -> u64| counters.iter().map(value).sum::<u64>();
        let whole = Counters {
            container: "".into(),
            started: now,
            cpu_nanos: sum(|counters| counters.cpu_nanos),
            memory_bytes: sum(|counters| counters.memory_bytes),
        };
        json!({
            "podRef": {"name": key.name, "namespace": key.namespace, "uid": pod.uid()},
            "startTime": counters.iter().map(|c| c.started).min().unwrap_or(now).to_meta(),
            "containers": counters.iter().map(|counters| json!({
                "name": counters.container,
                "startTime": counters.started.to_meta(),
                "cpu": cpu(counters),
                "memory": memory(counters),
            })).collect::<Vec<_>>(),
            "cpu": cpu(&whole),
            "memory": memory(&whole),
        })
    });
    let capacity = node.typed::<Node>().and_then(|node| {
        let capacity = node.status.as_ref()?.capacity.as_ref()?.get("memory")?;
        u64::try_from(Quantity::try_from(capacity).ok()?.value_ceil()).ok()
    });
    let mut shown_node = json!({"nodeName": node.key().name});
    if let Some(own) = own {
        shown_node["startTime"] = json!(own.started.to_meta());
        shown_node["cpu"] = cpu(own);
        shown_node["memory"] = memory(own);
        if let Some(capacity) = capacity {
            shown_node["memory"]["availableBytes"] =
                capacity.saturating_sub(own.memory_bytes).into();
        }
    }
    json!({"node": shown_node, "pods": shown.collect::<Vec<_>>()})
}
