//! What an autoscaler scales: the object its reference names, and the scale of it.

use compact_str::CompactString;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{PodSpec, ReplicationController};
use wharf_autoscale::hpa::Scale;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::scale;
use wharf_ports::error::ApiError;
use wharf_ports::view::View;

/// A target with its scale.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) key: ObjectKey,
    pub(super) uid: CompactString,
    pub(super) scale: Scale,
}

/// The target of an autoscaler, or why there is none, in the API's words.
pub(super) fn find(hpa: &HorizontalPodAutoscaler, view: &View) -> Result<Target, String> {
    let object = object(hpa, view)?;
    let typed = object.typed_any().map_err(ToString::to_string)?;
    let Some(scale) = scale::of(&**typed) else {
        return Err("the server could not find the requested resource".to_owned());
    };
    let status = scale.status.unwrap_or_default();
    Ok(Target {
        kind: object.kind(),
        key: object.key().clone(),
        uid: object.uid().into(),
        scale: Scale {
            spec_replicas: scale.spec.and_then(|spec| spec.replicas).unwrap_or(0),
            status_replicas: status.replicas,
            selector: status.selector.unwrap_or_default(),
        },
    })
}

fn object<'v>(hpa: &HorizontalPodAutoscaler, view: &'v View) -> Result<&'v Object, String> {
    let target = &hpa.spec.scale_target_ref;
    let version = target.api_version.as_deref().unwrap_or_default();
    if version.matches('/').count() > 1 {
        return Err(format!("unexpected GroupVersion string: {version}"));
    }
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let Some(kind) = Kind::by_kind(group, &target.kind) else {
        return Err(format!("no matches for kind {:?} in group {group:?}", target.kind));
    };
    let namespace = hpa.metadata.namespace.as_deref().unwrap_or_default();
    let key = ObjectKey::namespaced(if kind.namespaced { namespace } else { "" }, &target.name);
    match view.object(kind, &key) {
        Some(object) => Ok(object),
        None => Err(ApiError::not_found(kind, &target.name).message),
    }
}

/// The pod spec of a target's template.
pub(super) fn template<'v>(target: &Target, view: &'v View) -> Option<&'v PodSpec> {
    let object = view.object(target.kind, &target.key)?;
    let template = if let Some(deployment) = object.typed::<Deployment>() {
        &deployment.spec.as_ref()?.template
    } else if let Some(set) = object.typed::<StatefulSet>() {
        &set.spec.as_ref()?.template
    } else if let Some(set) = object.typed::<ReplicaSet>() {
        set.spec.as_ref()?.template.as_ref()?
    } else {
        object.typed::<ReplicationController>()?.spec.as_ref()?.template.as_ref()?
    };
    template.spec.as_ref()
}
