//! The refusals of this crate, in upstream's words.

use serde_json::Value;
use wharf_model::custom::FieldError;
use wharf_model::kinds::Kind;
use wharf_ports::error::{ApiError, Cause, StatusReason};

/// 400.
pub(crate) fn bad_request(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusReason::BadRequest, message)
}

/// `Deployment in version "v1" cannot be handled as a Deployment: …`.
pub(crate) fn not_handled(kind: Kind, why: &str) -> ApiError {
    not_handled_as(kind.kind, kind.version, kind, why)
}

/// The same for data that says it is something else than what was expected.
pub(crate) fn not_handled_as(given: &str, version: &str, expected: Kind, why: &str) -> ApiError {
    bad_request(format!("{given} in version {version:?} cannot be handled as a {expected}: {why}"))
}

/// For data that does not even say what it is.
pub(crate) fn unrecognized(kind: Kind, why: &str, body: &str) -> ApiError {
    bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

/// `strict decoding error: unknown field "spec.a", unknown field "spec.b"`.
pub(crate) fn strict(findings: &[String]) -> String {
    format!("strict decoding error: {}", findings.join(", "))
}

/// 422 about a custom resource, with a cause for each error.
pub(crate) fn invalid_resource(kind: Kind, name: &str, errors: &[FieldError]) -> ApiError {
    let texts: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    let text = match texts.as_slice() {
        [only] => only.clone(),
        _ => format!("[{}]", texts.join(", ")),
    };
    let message = format!("{}.{} \"{name}\" is invalid: {text}", kind.kind, kind.group);
    let mut error = ApiError::new(StatusReason::Invalid, message).about(kind, name);
    error.kind = kind.kind.to_owned();
    error.causes = errors
        .iter()
        .map(|error| Cause {
            reason: error.kind.reason().to_owned(),
            message: error.body(),
            field: error.field.clone(),
        })
        .collect();
    error
}

/// 422 about a patch whose result cannot be decoded. Upstream shows the patched object.
pub(crate) fn invalid_patch(shown: &str, why: &str) -> ApiError {
    let body = format!("Invalid value: {}: {why}", Value::from(shown));
    let mut error =
        ApiError::new(StatusReason::Invalid, format!(" \"\" is invalid: patch: {body}"));
    error.causes = vec![Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: body,
        field: "patch".to_owned(),
    }];
    error
}

/// How much of a body upstream's messages show.
const SUMMARY_BYTES_MAX: usize = 30;

fn summary(body: &str) -> String {
    if body.is_empty() {
        return "<empty>".to_owned();
    }
    if !body.starts_with('{') {
        let hex: String =
            body.bytes().take(SUMMARY_BYTES_MAX).map(|b| format!("{b:02x}")).collect();
        return if body.len() > SUMMARY_BYTES_MAX { format!("{hex} ...") } else { hex };
    }
    if body.len() <= SUMMARY_BYTES_MAX {
        return body.to_owned();
    }
    let mut end = SUMMARY_BYTES_MAX;
    while !body.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} ...", &body[..end])
}
