//! The three kinds of patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes'
//! strategic merge patch.
//!
//! A patch is applied to the object's JSON; the result is decoded like any body
//! ([`crate::decode::decode_patched`]).
//!
//! Public contract:
//! <https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/>.

mod json;
mod merge;
mod strategic;

use serde_json::{Map, Value};
use wharf_model::kinds::Kind;
use wharf_ports::error::{ApiError, Cause, StatusReason};

use crate::error::bad_request;
use crate::tree::is_custom;

/// The kind of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    StrategicMerge,
}

/// What a patch makes of the current object.
///
/// # Errors
/// 400 for a patch that cannot be read, 415 for a strategic patch of a custom resource, 422 for a
/// patch that does not fit the object, 413 for one with too many operations.
pub fn apply(
    kind: Kind,
    patch_type: PatchType,
    current: &Value,
    patch: &[u8],
) -> Result<Value, ApiError> {
    match patch_type {
        PatchType::Json => json::apply(current, patch),
        PatchType::Merge => {
            Ok(merge::apply(current.clone(), read_object(patch, "error decoding patch: ")?))
        }
        PatchType::StrategicMerge if is_custom(kind) => Err(ApiError::new(
            StatusReason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )),
        PatchType::StrategicMerge => strategic::apply(kind, current, read_object(patch, "")?),
    }
}

/// A patch as upstream's refusals show it, when they do not show the patched object instead.
pub(crate) fn shown(patch_type: PatchType, patch: &[u8]) -> Option<String> {
    match patch_type {
        PatchType::StrategicMerge => {
            serde_json::from_slice(patch).ok().map(|patch| strategic::plain(&patch))
        }
        PatchType::Json | PatchType::Merge => None,
    }
}

/// Reads a patch that is an object.
fn read_object(patch: &[u8], context: &str) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(patch) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(bad_request(format!(
            "{context}json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            crate::decode::go_type_of(&other)
        ))),
        Err(error) => {
            Err(bad_request(format!("{context}{}", crate::decode::syntax_error(&error, patch))))
        }
    }
}

/// 422 for a patch that does not fit. Upstream's message hides why; the cause tells it.
fn does_not_fit(why: String) -> ApiError {
    let mut error = ApiError::new(
        StatusReason::Invalid,
        "the server rejected our request due to an error in our request",
    );
    error.causes = vec![Cause { reason: String::new(), message: why, field: "patch".to_owned() }];
    error
}

#[cfg(test)]
mod tests {
    use wharf_model::kinds::built_in;

    use super::*;

    #[test]
    fn custom_resources_take_no_strategic_patch() {
        for kind in built_in() {
            let result = apply(*kind, PatchType::StrategicMerge, &Value::Object(Map::new()), b"{}");
            assert_eq!(result.is_err(), is_custom(*kind), "{kind}");
            if let Err(error) = result {
                assert_eq!(error.reason.code(), 415);
            }
        }
    }

    #[test]
    fn unreadable_patches_are_refused() {
        let kind = built_in()[0];
        let message = |patch_type, patch: &str| {
            let error = apply(kind, patch_type, &Value::Object(Map::new()), patch.as_bytes());
            let error = error.unwrap_err();
            format!("{} {}", error.reason.code(), error.message)
        };
        assert_eq!(
            message(PatchType::Merge, "[]"),
            "400 error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
        assert_eq!(message(PatchType::StrategicMerge, "{"), "400 unexpected end of JSON input");
    }
}
