//! `Status` objects: the one place where a refusal becomes what goes over the wire.

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use wharf_model::kinds::Kind;
use wharf_ports::error::{ApiError, Cause, StatusReason};

use crate::body::Body;

/// The answer for a refusal.
pub(crate) fn refuse(error: &ApiError) -> Response<Body> {
    refuse_with_continue(error, "")
}

/// The answer for an expired list that can be carried on with `token`.
pub(crate) fn refuse_with_continue(error: &ApiError, token: &str) -> Response<Body> {
    let mut response = Response::new(Body::Full(encode(error, token)));
    *response.status_mut() =
        StatusCode::from_u16(error.reason.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Some(seconds) = error.retry_after_seconds {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A refusal as the JSON of a `Status`.
pub(crate) fn encode(error: &ApiError, continue_token: &str) -> Bytes {
    let details = Details {
        name: &error.name,
        group: &error.group,
        kind: &error.kind,
        uid: &error.uid,
        causes: error.causes.iter().map(CauseWire::of).collect(),
        retry_after_seconds: error.retry_after_seconds,
    };
    let status = Status {
        kind: "Status",
        api_version: "v1",
        metadata: ListMeta { continue_token },
        status: "Failure",
        message: &error.message,
        reason: error.reason.word(),
        details: (!details.is_empty()).then_some(details),
        code: error.reason.code(),
    };
    to_bytes(&status)
}

/// The `Status` that tells of a completed deletion.
pub(crate) fn deleted(kind: Kind, name: &str, uid: &str) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Success<'a> {
        kind: &'static str,
        api_version: &'static str,
        metadata: ListMeta<'a>,
        status: &'static str,
        details: Details<'a>,
    }
    to_bytes(&Success {
        kind: "Status",
        api_version: "v1",
        metadata: ListMeta { continue_token: "" },
        status: "Success",
        details: Details {
            name,
            group: kind.group,
            kind: kind.plural,
            uid,
            causes: Vec::new(),
            retry_after_seconds: None,
        },
    })
}

/// `{"kind":"Status","status":"Success","code":201}`: the answer to a binding or an eviction.
pub(crate) fn created() -> Bytes {
    Bytes::from_static(
        br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}"#,
    )
}

/// 404 for a path that nothing answers.
pub(crate) fn no_such_path() -> ApiError {
    ApiError::new(StatusReason::NotFound, "the server could not find the requested resource")
}

/// 405 for a path that does not take this method.
pub(crate) fn no_such_method() -> ApiError {
    ApiError::new(
        StatusReason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

/// 400.
pub(crate) fn bad_request(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusReason::BadRequest, message)
}

/// 422 with one cause: `KIND "name" is invalid: field: message`.
pub(crate) fn invalid(
    group: &str,
    kind: &str,
    name: &str,
    reason: &str,
    field: &str,
    message: &str,
) -> ApiError {
    let about = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let mut error = ApiError::new(
        StatusReason::Invalid,
        format!("{about} \"{name}\" is invalid: {field}: {message}"),
    );
    error.group = group.to_owned();
    error.kind = kind.to_owned();
    error.name = name.to_owned();
    error.causes =
        vec![Cause { reason: reason.into(), message: message.into(), field: field.into() }];
    error
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: ListMeta<'a>,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    code: u16,
}

#[derive(Serialize)]
struct ListMeta<'a> {
    #[serde(rename = "continue", skip_serializing_if = "str::is_empty")]
    continue_token: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<CauseWire<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
}

impl Details<'_> {
    fn is_empty(&self) -> bool {
        self.name.is_empty()
            && self.group.is_empty()
            && self.kind.is_empty()
            && self.uid.is_empty()
            && self.causes.is_empty()
            && self.retry_after_seconds.is_none()
    }
}

#[derive(Serialize)]
struct CauseWire<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'a str,
}

impl<'a> CauseWire<'a> {
    fn of(cause: &'a Cause) -> Self {
        Self { reason: &cause.reason, message: &cause.message, field: &cause.field }
    }
}

fn to_bytes(value: &impl Serialize) -> Bytes {
    // Plain strings and numbers always encode.
    Bytes::from(serde_json::to_vec(value).expect("a Status always encodes as JSON"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn refusals_read_as_upstreams() {
        let text = |error: &ApiError| String::from_utf8(encode(error, "").to_vec()).expect("UTF-8");
        assert_eq!(
            text(&ApiError::not_found(Kind::of::<Pod>(), "x")),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"pods"},"code":404}"#
        );
        assert_eq!(
            text(&ApiError::new(StatusReason::Unauthorized, "Unauthorized")),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#
        );
        let mut busy = ApiError::new(StatusReason::TooManyRequests, "later");
        busy.retry_after_seconds = Some(10);
        let response = refuse(&busy);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "10");
    }
}
