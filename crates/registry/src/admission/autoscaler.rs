//! The Vertical Pod Autoscaler's admission webhook (`vpa.k8s.io`), as far as it is about its own
//! objects: it refuses what it cannot work with, and fills in the default update policy.

use wharf_model::vpa::validation::{Gates, review};
use wharf_model::vpa::{UpdatePolicy, VerticalPodAutoscaler};
use wharf_ports::error::{ApiError, StatusReason};

/// Admits a new autoscaler, or a change of the one stored.
pub(super) fn admit(
    autoscaler: &mut VerticalPodAutoscaler,
    old: Option<&VerticalPodAutoscaler>,
) -> Result<(), ApiError> {
    let errors: Vec<String> =
        review(autoscaler, old, Gates::default()).errors.iter().map(ToString::to_string).collect();
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
