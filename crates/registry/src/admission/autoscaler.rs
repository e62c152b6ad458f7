//! The Vertical Pod Autoscaler's admission webhook (`vpa.k8s.io`). Of its own objects it refuses what
//! it cannot work with, and fills in the default update policy; new pods under an autoscaler get the
//! requests and limits that are recommended for them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{LimitRange, Pod};
use wharf_autoscale::vpa::target::{Controller, precedence, selector, topmost};
use wharf_autoscale::vpa::{LimitRanges, admit};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::vpa::validation::{Gates, review};
use wharf_model::vpa::{UpdateMode, UpdatePolicy, VerticalPodAutoscaler};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_store::Store;

/// Admits a new autoscaler, or a change of the one stored.
pub(super) fn admit(
    autoscaler: &mut VerticalPodAutoscaler,
    old: Option<&VerticalPodAutoscaler>,
    gates: Gates,
) -> Result<(), ApiError> {
    let errors: Vec<String> =
        review(autoscaler, old, gates).errors.iter().map(ToString::to_string).collect();
    let errors = match errors.as_slice() {
        [] => {
            autoscaler.spec.update_policy.get_or_insert_with(|| UpdatePolicy {
                update_mode: Some("Recreate".to_owned()),
                ..UpdatePolicy::default()
            });
            return Ok(());
        }
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let message = format!("admission webhook \"vpa.k8s.io\" denied the request: {errors}");
    Err(ApiError::new(StatusReason::Denied, message))
}

/// Gives a new pod what its autoscaler recommends. A pod that none is about, or whose controllers
/// cannot be found, stays as it is.
pub(super) fn admit_pod(store: &Store, pod: &mut Pod) {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let (autoscalers, _) = store.list(Kind::of::<VerticalPodAutoscaler>(), Some(&namespace));
    if autoscalers.is_empty() {
        return;
    }
    let lookup = |kind: Kind, key: &ObjectKey| store.get(kind, key);
    let owners = pod.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else {
        return;
    };
    let above = Controller { kind: owner.kind.as_str().into(), name: owner.name.as_str().into() };
    let Ok(Some(top)) = topmost(&above, &namespace, &lookup) else { return };
    let is_about = |object: &&Arc<Object>| {
        object.typed::<VerticalPodAutoscaler>().is_some_and(|autoscaler| {
            autoscaler.update_mode() != UpdateMode::Off
                && autoscaler.spec.target_ref.as_ref().map(Controller::of).as_ref() == Some(&top)
                && selector(autoscaler, &namespace, &lookup)
                    .is_ok_and(|selector| selector.matches(&pod.metadata.labels))
        })
    };
    let chosen = autoscalers.iter().filter(is_about).min_by_key(|object| precedence(object));
    if let Some(autoscaler) = chosen.and_then(|object| object.typed::<VerticalPodAutoscaler>()) {
        let (ranges, _) = store.list(Kind::of::<LimitRange>(), Some(&namespace));
        let ranges = ranges.iter().filter_map(|object| object.typed::<LimitRange>());
        admit::admit(autoscaler, pod, &LimitRanges::of(ranges));
    }
}
