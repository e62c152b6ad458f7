//! The scale of a workload: how many replicas are asked for, how many there are, and which pods
//! they are. What the API's `scale` subresource shows, and what autoscalers read and write.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::object::Typed;

/// The scale of a workload; `None` for kinds that have none.
pub fn of(object: &dyn Typed) -> Option<Scale> {
    let (replicas, observed, selector) =
        if let Some(deployment) = object.as_any().downcast_ref::<Deployment>() {
            let spec = deployment.spec.as_ref()?;
            let observed = deployment.status.as_ref().and_then(|status| status.replicas);
            (spec.replicas, observed, selector_text(&spec.selector))
        } else if let Some(set) = object.as_any().downcast_ref::<ReplicaSet>() {
            let spec = set.spec.as_ref()?;
            let observed = set.status.as_ref().map(|status| status.replicas);
            (spec.replicas, observed, selector_text(&spec.selector))
        } else if let Some(set) = object.as_any().downcast_ref::<StatefulSet>() {
            let spec = set.spec.as_ref()?;
            let observed = set.status.as_ref().map(|status| status.replicas);
            (spec.replicas, observed, selector_text(&spec.selector))
        } else if let Some(old) = object.as_any().downcast_ref::<ReplicationController>() {
            let spec = old.spec.as_ref()?;
            let observed = old.status.as_ref().map(|status| status.replicas);
            let match_labels = spec.selector.clone();
            let selector = LabelSelector { match_labels, ..LabelSelector::default() };
            (spec.replicas, observed, selector_text(&selector))
        } else {
            return None;
        };
    let meta = object.meta();
    Some(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas }),
        status: Some(ScaleStatus { replicas: observed.unwrap_or(0), selector: Some(selector) }),
    })
}

/// Sets the number of replicas of a workload, and begins a new generation if it is another. False
/// for kinds that have no scale.
pub fn set(object: &mut dyn Typed, replicas: i32) -> bool {
    let stored = if let Some(deployment) = object.as_any_mut().downcast_mut::<Deployment>() {
        &mut deployment.spec.get_or_insert_default().replicas
    } else if let Some(set) = object.as_any_mut().downcast_mut::<ReplicaSet>() {
        &mut set.spec.get_or_insert_default().replicas
    } else if let Some(set) = object.as_any_mut().downcast_mut::<StatefulSet>() {
        &mut set.spec.get_or_insert_default().replicas
    } else if let Some(old) = object.as_any_mut().downcast_mut::<ReplicationController>() {
        &mut old.spec.get_or_insert_default().replicas
    } else {
        return false;
    };
    if stored.replace(replicas) != Some(replicas) {
        let meta = object.meta_mut();
        meta.generation = Some(meta.generation.unwrap_or(0) + 1);
    }
    true
}

/// A selector in the form of query strings, as autoscalers use it: requirements sorted by key.
fn selector_text(selector: &LabelSelector) -> String {
    let equal =
        selector.match_labels.iter().flatten().map(|(key, value)| (key, format!("{key}={value}")));
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let key = &expression.key;
        let mut values = expression.values.clone().unwrap_or_default();
        values.sort();
        let values = values.join(",");
        let text = match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        };
        (key, text)
    });
    let mut parts: Vec<(&String, String)> = equal.chain(expressions).collect();
    parts.sort_by(|left, right| left.0.cmp(right.0));
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}
