//! The `scale` subresource of workloads.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use wharf_model::kinds::Kind;
use wharf_model::object::{ObjectKey, Typed};
use wharf_ports::error::{ApiError, StatusReason};

use crate::field::{Errors, Path};
use crate::{Registry, WriteOptions, decoded};

impl Registry {
    /// The scale of a workload.
    ///
    /// # Errors
    /// If the workload is not there, or is of a kind that has no scale.
    pub fn scale(&self, kind: Kind, key: &ObjectKey) -> Result<Scale, ApiError> {
        let stored = self.get(kind, key)?;
        scale_of(decoded(&stored)?).ok_or_else(|| no_scale(kind))
    }

    /// Sets the number of replicas of a workload.
    ///
    /// # Errors
    /// The API's refusal, as for [`Registry::scale`].
    pub fn set_scale(
        &self,
        kind: Kind,
        key: &ObjectKey,
        scale: &Scale,
        options: &WriteOptions,
    ) -> Result<Scale, ApiError> {
        let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let mut errors = Errors::default();
        let path = Path::root("spec");
        errors.not_negative(&path.child("replicas"), Some(i64::from(replicas)));
        errors.into_result(kind, &key.name).map_err(|mut refusal| {
            refusal.message = refusal.message.replacen(
                &refusal.message[..refusal.message.find(' ').unwrap_or(0)],
                "Scale.autoscaling",
                1,
            );
            refusal.group = "autoscaling".to_owned();
            refusal.kind = "Scale".to_owned();
            refusal
        })?;
        let version = scale.metadata.resource_version.as_deref().unwrap_or_default();
        let uid = scale.metadata.uid.as_deref().unwrap_or_default();
        let stored = self.change(kind, key, options.dry_run, &|object| {
            let meta = object.meta();
            let stored_version = meta.resource_version.as_deref().unwrap_or_default();
            if !version.is_empty() && version != stored_version {
                return Err(ApiError::stale(kind, &key.name));
            }
            let stored_uid = meta.uid.as_deref().unwrap_or_default();
            if !uid.is_empty() && uid != stored_uid {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {stored_uid}"
                );
                return Err(ApiError::conflict(kind, &key.name, &why));
            }
            set_replicas(object, replicas)
        })?;
        scale_of(decoded(&stored)?).ok_or_else(|| no_scale(kind))
    }
}

fn set_replicas(object: &mut dyn Typed, replicas: i32) -> Result<(), ApiError> {
    let kind = object.kind();
    let stored = if let Some(deployment) = object.as_any_mut().downcast_mut::<Deployment>() {
        &mut deployment.spec.get_or_insert_default().replicas
    } else if let Some(set) = object.as_any_mut().downcast_mut::<ReplicaSet>() {
        &mut set.spec.get_or_insert_default().replicas
    } else if let Some(set) = object.as_any_mut().downcast_mut::<StatefulSet>() {
        &mut set.spec.get_or_insert_default().replicas
    } else if let Some(old) = object.as_any_mut().downcast_mut::<ReplicationController>() {
        &mut old.spec.get_or_insert_default().replicas
    } else {
        return Err(no_scale(kind));
    };
    if stored.replace(replicas) != Some(replicas) {
        let meta = object.meta_mut();
        meta.generation = Some(meta.generation.unwrap_or(0) + 1);
    }
    Ok(())
}

fn scale_of(object: &dyn Typed) -> Option<Scale> {
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

fn no_scale(kind: Kind) -> ApiError {
    let message = "the server could not find the requested resource";
    ApiError::new(StatusReason::NotFound, message).about(kind, "")
}
