//! The metrics APIs: `metrics.k8s.io` as metrics-server answers, `custom.metrics.k8s.io` and
//! `external.metrics.k8s.io` as the adapters made with upstream's library do.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use wharf_model::duration;
use wharf_model::kinds::{Kind, built_in};
use wharf_model::metrics::{ContainerUsage, NodeMetrics, PodMetrics, Sample, Usage};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::quantity::{Format, Quantity};
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::metrics::{Metrics as _, PodQuery};

use super::{Call, finish};
use crate::api::Api;
use crate::body::Body;
use crate::negotiate::Form;
use crate::query::ListOptions;
use crate::resources::Resource;
use crate::{fields, path, status};

/// Usage of pods and nodes.
const RESOURCE: &str = "metrics.k8s.io";
/// Values about objects.
pub(crate) const CUSTOM: &str = "custom.metrics.k8s.io";
/// Values about nothing in the cluster.
const EXTERNAL: &str = "external.metrics.k8s.io";
/// The window of a sample that does not say: the library's default.
const WINDOW_SECONDS: u64 = 60;

/// Whether a path is one of a metrics API whose resources are not in the table.
pub(crate) fn is_adapters(group: &str) -> bool {
    matches!(group, CUSTOM | EXTERNAL)
}

/// Answers `get` and `list` of usage.
pub(super) fn usage(
    api: &Arc<Api>,
    call: &Call<'_>,
    resource: &Resource,
) -> Result<Response<Body>, ApiError> {
    if !matches!(call.head.method, Method::GET | Method::HEAD) {
        return Err(status::no_such_method());
    }
    if call.path.subresource.is_some() {
        return Err(status::no_such_path());
    }
    let options = ListOptions::parse(&call.query)?;
    if options.watch || call.path.watch {
        return Err(status::no_such_method());
    }
    let kind = Kind::by_resource("", resource.plural).ok_or_else(status::no_such_path)?;
    let now = api.now();
    if let Some(name) = call.path.name.as_deref() {
        let key = call.key();
        let object = api.store.get(kind, &key);
        let found = object.iter().flat_map(|object| measured(api, &[object.as_ref()], now)).next();
        let found = found.ok_or_else(|| {
            let shown = if key.namespace.is_empty() {
                name.to_owned()
            } else {
                format!("{}/{name}", key.namespace)
            };
            not_found(resource, object.is_some(), &shown)
        })?;
        return match call.accepted.form {
            Form::Table => finish(call, StatusCode::OK, to_bytes(&table(&[found]))),
            _ => finish(call, StatusCode::OK, to_bytes(&found)),
        };
    }
    fields::check(kind, &options.fields)?;
    let namespace = call.path.namespace.as_deref();
    let (objects, _) = api.store.list(kind, namespace);
    let wanted: Vec<&Object> = objects
        .iter()
        .map(AsRef::as_ref)
        .filter(|object| options.labels.matches_with(|key| object.header().label(key)))
        .filter(|object| fields::matches(object, &options.fields))
        .collect();
    let mut items = measured(api, &wanted, now);
    let shown = match call.accepted.form {
        Form::Table => table(&items),
        _ => {
            for item in &mut items {
                // What is in a list is known to be of its kind.
                item.as_object_mut().map(|item| (item.remove("kind"), item.remove("apiVersion")));
            }
            json!({
                "kind": format!("{}List", resource.kind),
                "apiVersion": format!("{RESOURCE}/{}", resource.version),
                "metadata": {},
                "items": items,
            })
        }
    };
    finish(call, StatusCode::OK, to_bytes(&shown))
}

/// Usage of pods or nodes, in their order; what has not been measured is left out.
fn measured(api: &Api, objects: &[&Object], now: Time) -> Vec<Value> {
    let Some(first) = objects.first() else { return Vec::new() };
    let meta = |object: &Object| {
        let mut meta = json!({"name": object.key().name, "creationTimestamp": now.to_meta()});
        if !object.key().namespace.is_empty() {
            meta["namespace"] = object.key().namespace.as_str().into();
        }
        let labels: BTreeMap<&str, &str> = object
            .header()
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        if !labels.is_empty() {
            meta["labels"] = json!(labels);
        }
        meta
    };
    if first.key().namespace.is_empty() {
        let nodes = api.parts.metrics.node_metrics(now).unwrap_or_default();
        let by_name: BTreeMap<&str, &NodeMetrics> =
            nodes.iter().map(|node| (node.node.as_str(), node)).collect();
        let one = |object: &&Object| {
            let node = by_name.get(object.key().name.as_str())?;
            Some(json!({
                "kind": "NodeMetrics",
                "apiVersion": format!("{RESOURCE}/v1beta1"),
                "metadata": meta(object),
                "timestamp": node.timestamp.to_meta(),
                "window": go(node.window),
                "usage": amounts(&node.usage),
            }))
        };
        return objects.iter().filter_map(one).collect();
    }
    let everything = Selector::default();
    let mut items = Vec::new();
    for within in objects.chunk_by(|a, b| a.key().namespace == b.key().namespace) {
        let namespace = within[0].key().namespace.as_str();
        let names: Vec<&str> = within.iter().map(|object| object.key().name.as_str()).collect();
        let query = PodQuery { namespace, selector: &everything, names: &names };
        let pods = api.parts.metrics.pod_metrics(&query, now).unwrap_or_default();
        let by_name: BTreeMap<&str, &PodMetrics> =
            pods.iter().map(|pod| (pod.pod.as_str(), pod)).collect();
        items.extend(within.iter().filter_map(|object| {
            let pod = by_name.get(object.key().name.as_str())?;
            let containers = pod.containers.iter().map(
                |ContainerUsage { name, usage }| json!({"name": name, "usage": amounts(usage)}),
            );
            Some(json!({
                "kind": "PodMetrics",
                "apiVersion": format!("{RESOURCE}/v1beta1"),
                "metadata": meta(object),
                "timestamp": pod.timestamp.to_meta(),
                "window": go(pod.window),
                "containers": containers.collect::<Vec<_>>(),
            }))
        }));
    }
    items
}

fn amounts(usage: &Usage) -> Value {
    let amount = |amount: &Quantity| amount.to_api().0;
    usage.iter().map(|(name, value)| (name.to_string(), Value::from(amount(value)))).collect()
}

/// What `kubectl get podmetrics` prints.
fn table(items: &[Value]) -> Value {
    let column = |name: &str, description: &str| json!({"name": name, "type": "string", "format": "", "description": description, "priority": 0});
    let sum = |item: &Value, resource: &str, format| {
        let containers = item["containers"].as_array().into_iter().flatten();
        let usages = containers.map(|container| &container["usage"]).chain([&item["usage"]]);
        let amounts = usages.filter_map(|usage| Quantity::parse(usage[resource].as_str()?).ok());
        let sum = amounts.fold(Quantity::ZERO, |sum, amount| sum.add(&amount));
        sum.in_format(format).to_api().0
    };
    let rows = items.iter().map(|item| {
        json!({
            "cells": [
                item["metadata"]["name"],
                sum(item, "cpu", Format::DecimalSi),
                sum(item, "memory", Format::BinarySi),
                item["window"],
            ],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": item["metadata"],
            },
        })
    });
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [
            column("Name", "Name of the resource"),
            column("cpu", "Used cpu"),
            column("memory", "Used memory"),
            column("Window", "The time over which usage was measured"),
        ],
        "rows": rows.collect::<Vec<_>>(),
    })
}

fn not_found(resource: &Resource, is_there: bool, name: &str) -> ApiError {
    // Of an object that is there metrics-server has no metrics yet; of another it knows nothing.
    let (plural, group) = if is_there {
        (resource.kind.to_lowercase(), RESOURCE)
    } else {
        (resource.plural.to_owned(), "")
    };
    let shown = if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") };
    let message = format!("{shown} \"{name}\" not found");
    let mut error = ApiError::new(StatusReason::NotFound, message);
    (error.group, error.kind, error.name) = (group.to_owned(), plural, name.to_owned());
    error
}

/// The resources of the custom metrics API: one for each metric of each kind of object that has
/// any.
pub(crate) fn custom_resources(api: &Api, version: &str) -> Bytes {
    let names = api.parts.metrics.metric_names();
    let of_objects = names.iter().filter(|(resource, _)| !resource.is_empty());
    let resources: Vec<Value> = of_objects
        .map(|(resource, metric)| {
            let kind = built_in().iter().find(|kind| kind.group_resource() == resource.as_str());
            json!({
                "name": format!("{resource}/{metric}"),
                "singularName": "",
                "namespaced": kind.is_none_or(|kind| kind.namespaced),
                "kind": "MetricValueList",
                "verbs": ["get"],
            })
        })
        .collect();
    to_bytes(&json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{CUSTOM}/{version}"),
        "resources": resources,
    }))
}

/// Answers requests for custom and external metrics.
pub(crate) fn adapters(api: &Api, call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    if !matches!(call.head.method, Method::GET | Method::HEAD) {
        return Err(status::no_such_method());
    }
    let selector = |name: &str| {
        Selector::parse(call.query.text(name))
            .map_err(|error| status::bad_request(error.to_string()))
    };
    match (call.path.group, call.path.version) {
        (CUSTOM, "v1beta1" | "v1beta2") => {
            custom(api, call, &selector("labelSelector")?, &selector("metricLabelSelector")?)
        }
        (EXTERNAL, "v1beta1") => {
            let (Some(namespace), None) = (call.path.namespace.as_deref(), &call.path.name) else {
                return Err(status::no_such_path());
            };
            let metric = path::decode(call.path.resource);
            let series = selector("labelSelector")?;
            let found = api.parts.metrics.external(namespace, &metric, &series, api.now());
            let items: Vec<Value> = found
                .iter()
                .map(|sample| {
                    json!({
                        "metricName": metric,
                        "metricLabels": sample.labels,
                        "timestamp": sample.timestamp.to_meta(),
                        "value": sample.value.to_api().0,
                    })
                })
                .collect();
            finish(
                call,
                StatusCode::OK,
                to_bytes(&json!({
                    "kind": "ExternalMetricValueList",
                    "apiVersion": format!("{EXTERNAL}/v1beta1"),
                    "metadata": {},
                    "items": items,
                })),
            )
        }
        _ => Err(status::no_such_path()),
    }
}

fn custom(
    api: &Api,
    call: &Call<'_>,
    labels: &Selector,
    series: &Selector,
) -> Result<Response<Body>, ApiError> {
    let path = &call.path;
    let namespace = path.namespace.as_deref().unwrap_or_default();
    // `namespaces/NS/metrics/METRIC` is about the namespace itself.
    let (resource, name, metric) = match (path.resource, &path.name, path.subresource) {
        ("metrics", Some(metric), None) => ("namespaces", namespace, metric.clone()),
        (resource, Some(name), Some(metric)) => (resource, name.as_ref(), path::decode(metric)),
        _ => return Err(status::no_such_path()),
    };
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let kind = Kind::by_resource(group, plural);
    let now = api.now();
    let mut samples: Vec<Sample> = Vec::new();
    let within = if kind.is_some_and(|kind| !kind.namespaced) { "" } else { namespace };
    if name == "*" {
        let kind = kind.ok_or_else(status::no_such_path)?;
        let (objects, _) = api.store.list(kind, (!within.is_empty()).then_some(within));
        for object in objects {
            if labels.matches_with(|key| object.header().label(key)) {
                let of = api.parts.metrics.values_of(resource, object.key(), &metric, series, now);
                samples.extend(of);
            }
        }
    } else {
        let key = ObjectKey::namespaced(within, name);
        samples = api.parts.metrics.values_of(resource, &key, &metric, series, now);
        if samples.is_empty() {
            let message =
                format!("the server could not find the metric {metric} for {resource} {name}");
            return Err(ApiError::new(StatusReason::NotFound, message));
        }
    }
    if samples.is_empty() {
        let message = format!("the server could not find the metric {metric} for {resource}");
        return Err(ApiError::new(StatusReason::NotFound, message));
    }
    let newer = path.version == "v1beta2";
    let items: Vec<Value> = samples
        .iter()
        .map(|sample| {
            let seconds = sample.window.map_or(WINDOW_SECONDS, |window| window.as_secs());
            let mut item = json!({
                "describedObject": {
                    "kind": kind.map_or("", |kind| kind.kind),
                    "name": sample.object,
                    "apiVersion": kind.map_or_else(|| "v1".to_owned(), Kind::api_version),
                },
                "timestamp": sample.timestamp.to_meta(),
                "value": sample.value.to_api().0,
            });
            if !within.is_empty() {
                item["describedObject"]["namespace"] = within.into();
            }
            if newer {
                item["metric"] = json!({"name": metric, "selector": null});
                item["windowSeconds"] = seconds.into();
            } else {
                item["metricName"] = json!(metric);
                item["window"] = seconds.into();
                item["selector"] = Value::Null;
            }
            item
        })
        .collect();
    finish(
        call,
        StatusCode::OK,
        to_bytes(&json!({
            "kind": "MetricValueList",
            "apiVersion": format!("{CUSTOM}/{}", path.version),
            "metadata": {},
            "items": items,
        })),
    )
}

fn go(window: std::time::Duration) -> String {
    duration::format(i64::try_from(window.as_nanos()).unwrap_or(i64::MAX))
}

fn to_bytes(value: &Value) -> Bytes {
    value.to_string().into()
}
