//! A server's refusal as the ports know it: the `Status` in the body, else the HTTP code.

use http::HeaderMap;
use serde::Deserialize;
use wharf_ports::error::{ApiError, Cause, StatusReason};

/// Text of a refusal without a `Status` is cut to this length: proxies answer with whole pages.
const TEXT_LEN_MAX: usize = 300;
/// How the text of a refusal without a `Status` begins.
const PLAIN: &str = "the server answered ";

/// The refusal that an answer with an error code tells.
pub(crate) fn refusal(code: u16, headers: &HeaderMap, body: &[u8]) -> ApiError {
    let mut error = match serde_json::from_slice::<Status>(body) {
        Ok(status) if status.kind == "Status" => status.into_error(code),
        _ => ApiError::new(reason_of_code(code), plain(code, body)),
    };
    // The header counts: a proxy in front of the server knows no Status.
    let header = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    if let Some(seconds) = header.and_then(|text| text.trim().parse().ok()) {
        error.retry_after_seconds = Some(seconds);
    }
    error
}

/// Whether a refusal came without a `Status`: its text was made here.
pub(crate) fn is_plain(error: &ApiError) -> bool {
    error.message.starts_with(PLAIN)
}

/// The refusal in a watch's `ERROR` event.
pub(crate) fn refusal_in_watch(object: &str) -> ApiError {
    match serde_json::from_str::<Status>(object) {
        Ok(status) if status.kind == "Status" => {
            let code = status.code;
            status.into_error(code)
        }
        _ => ApiError::new(
            StatusReason::InternalError,
            format!("the watch told an error that is no Status: {}", cut(object)),
        ),
    }
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Status {
    kind: String,
    code: u16,
    message: String,
    reason: String,
    details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<StatusCause>,
    retry_after_seconds: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusCause {
    reason: String,
    message: String,
    field: String,
}

impl Status {
    fn into_error(self, code: u16) -> ApiError {
        let reason = reason_of_word(&self.reason).unwrap_or_else(|| reason_of_code(code));
        let details = self.details.unwrap_or_default();
        let cause = |StatusCause { reason, message, field }| Cause { reason, message, field };
        ApiError {
            reason,
            message: self.message,
            name: details.name,
            group: details.group,
            kind: details.kind,
            uid: details.uid,
            causes: details.causes.into_iter().map(cause).collect(),
            retry_after_seconds: details.retry_after_seconds.filter(|seconds| *seconds > 0),
        }
    }
}

fn reason_of_word(word: &str) -> Option<StatusReason> {
    use StatusReason as R;
    let known = [
        R::BadRequest,
        R::Unauthorized,
        R::Forbidden,
        R::NotFound,
        R::MethodNotAllowed,
        R::NotAcceptable,
        R::AlreadyExists,
        R::Conflict,
        R::Expired,
        R::RequestEntityTooLarge,
        R::UnsupportedMediaType,
        R::Invalid,
        R::TooManyRequests,
        R::InternalError,
        R::ServiceUnavailable,
        R::Timeout,
    ];
    match word {
        // Two words that mean what another says: 410, and a 504 that came from the server itself.
        "Gone" => Some(R::Expired),
        "ServerTimeout" => Some(R::Timeout),
        _ => known.into_iter().find(|reason| reason.word() == word),
    }
}

fn reason_of_code(code: u16) -> StatusReason {
    use StatusReason as R;
    match code {
        401 => R::Unauthorized,
        403 => R::Forbidden,
        404 => R::NotFound,
        405 => R::MethodNotAllowed,
        406 => R::NotAcceptable,
        408 | 504 => R::Timeout,
        409 => R::Conflict,
        410 => R::Expired,
        413 => R::RequestEntityTooLarge,
        415 => R::UnsupportedMediaType,
        422 => R::Invalid,
        429 => R::TooManyRequests,
        502 | 503 => R::ServiceUnavailable,
        500.. => R::InternalError,
        _ => R::BadRequest,
    }
}

fn plain(code: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.is_empty() {
        return format!("{PLAIN}{code}");
    }
    format!("{PLAIN}{code}: {}", cut(text))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_LEN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_status_is_told_with_all_it_says() {
        let body = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Cannot evict pod as it would violate the pod's disruption budget.","reason":"TooManyRequests","details":{"causes":[{"reason":"DisruptionBudget","message":"needs 2"}],"retryAfterSeconds":10},"code":429}"#;
        let error = refusal(429, &HeaderMap::new(), body);
        assert_eq!(error.reason, StatusReason::TooManyRequests);
        assert_eq!(error.causes[0].reason, "DisruptionBudget");
        assert_eq!(error.retry_after_seconds, Some(10));
    }

    #[test]
    fn without_a_status_the_code_and_header_count() {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("7"));
        let error = refusal(503, &headers, b"<html>upstream is down</html>");
        assert_eq!(error.reason, StatusReason::ServiceUnavailable);
        assert_eq!(error.retry_after_seconds, Some(7));
        assert!(error.message.contains("upstream is down"));
        for (code, reason) in [
            (400, StatusReason::BadRequest),
            (404, StatusReason::NotFound),
            (410, StatusReason::Expired),
            (502, StatusReason::ServiceUnavailable),
            (504, StatusReason::Timeout),
            (599, StatusReason::InternalError),
        ] {
            assert_eq!(refusal(code, &HeaderMap::new(), b"").reason, reason, "{code}");
        }
        let page = "é".repeat(5_000);
        assert!(refusal(500, &HeaderMap::new(), page.as_bytes()).message.len() < 1_000);
    }

    #[test]
    fn gone_in_a_watch_is_expired() {
        let text = r#"{"kind":"Status","code":410,"reason":"Gone","message":"too old"}"#;
        assert_eq!(refusal_in_watch(text).reason, StatusReason::Expired);
        assert_eq!(refusal_in_watch("[]").reason, StatusReason::InternalError);
    }
}
