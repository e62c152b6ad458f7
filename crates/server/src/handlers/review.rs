//! Reviews of oneself: who am I, and what may I do? Whoever is let in is an administrator, so the
//! answer to the second is always yes.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use wharf_ports::error::ApiError;

use super::{Call, render, write};
use crate::body::Body;
use crate::resources::{Backing, Resource};
use crate::status::{bad_request, invalid};

/// Answers `create` on one of the reviews.
pub(super) fn answer(call: &Call<'_>, resource: &Resource) -> Result<Response<Body>, ApiError> {
    let body = write::body_json(call)?;
    let mut review: Value = serde_json::from_slice(&body)
        .map_err(|error| bad_request(format!("unable to decode {}: {error}", resource.kind)))?;
    let kind = review.get("kind").and_then(Value::as_str);
    if !review.is_object() || kind.is_some_and(|kind| kind != resource.kind) {
        return Err(bad_request(format!(
            "the object provided is unrecognized (must be of type {})",
            resource.kind
        )));
    }
    review["apiVersion"] = resource.api_version().into();
    review["kind"] = resource.kind.into();
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    review["status"] = match resource.backing {
        Backing::SelfReview => json!({
            "userInfo": {"username": call.user.name, "groups": call.user.groups}
        }),
        Backing::RulesReview => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        _ => {
            let spec = &review["spec"];
            let asked = |field: &str| spec.get(field).is_some_and(Value::is_object);
            if asked("resourceAttributes") == asked("nonResourceAttributes") {
                return Err(invalid(
                    "authorization.k8s.io",
                    "SelfSubjectAccessReview",
                    "",
                    "FieldValueInvalid",
                    "spec.resourceAttributes",
                    "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
                ));
            }
            json!({"allowed": true, "reason": "the user is an administrator of this cluster"})
        }
    };
    render::document(call, StatusCode::CREATED, &review)
}
