//! Refusals of the Kubernetes API as values, the same for API clients and for controllers.

use wharf_model::kinds::Kind;

/// Why a request was refused, as Kubernetes tells it (`metav1.Status.reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusReason {
    /// 400: the request cannot be understood.
    BadRequest,
    /// 400: an admission webhook refused the object; there is no word for it.
    Denied,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 409: an object of that name is there already.
    AlreadyExists,
    /// 409: the object changed since it was read, or the operation conflicts with its state.
    Conflict,
    /// 410: the revision asked for is no longer held.
    Expired,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 422: the object breaks a rule of its kind.
    Invalid,
    /// 429: ask again later (evictions that a disruption budget refuses).
    TooManyRequests,
    /// 500.
    InternalError,
    /// 503.
    ServiceUnavailable,
    /// 504: the server could not finish in time.
    Timeout,
}

impl StatusReason {
    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest | Self::Denied => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// The word in the `reason` field.
    pub fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Denied => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }
}

/// One cause of a refusal, as in `metav1.StatusCause`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, `UnexpectedServerResponse`, …
    pub reason: String,
    /// What is wrong, without the field.
    pub message: String,
    /// The path of the field; empty if the cause is not about a field.
    pub field: String,
}

/// A refusal by the API, with all that a `Status` object tells.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The kind of refusal.
    pub reason: StatusReason,
    /// The text, worded as Kubernetes words it.
    pub message: String,
    /// Name of the object it is about; empty if unknown.
    pub name: String,
    /// API group of the resource; empty for the core group.
    pub group: String,
    /// The resource (`pods`), or the kind for validation errors (`Pod`), as upstream fills it.
    pub kind: String,
    /// The object's uid, where known.
    pub uid: String,
    /// Causes.
    pub causes: Vec<Cause>,
    /// After how many seconds asking again may help.
    pub retry_after_seconds: Option<u32>,
}

impl ApiError {
    /// A refusal without details.
    pub fn new(reason: StatusReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
        }
    }

    /// The same refusal about the object `name` of `kind`.
    #[must_use]
    pub fn about(mut self, kind: Kind, name: impl Into<String>) -> Self {
        self.group = kind.group.to_owned();
        self.kind = kind.plural.to_owned();
        self.name = name.into();
        self
    }

    /// `pods "x" not found`.
    pub fn not_found(kind: Kind, name: &str) -> Self {
        Self::new(StatusReason::NotFound, format!("{} \"{name}\" not found", kind.group_resource()))
            .about(kind, name)
    }

    /// `pods "x" already exists`.
    pub fn already_exists(kind: Kind, name: &str) -> Self {
        Self::new(
            StatusReason::AlreadyExists,
            format!("{} \"{name}\" already exists", kind.group_resource()),
        )
        .about(kind, name)
    }

    /// `Operation cannot be fulfilled on pods "x": …`.
    pub fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        Self::new(
            StatusReason::Conflict,
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.group_resource()),
        )
        .about(kind, name)
    }

    /// The conflict of a write based on an old version.
    pub fn stale(kind: Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// `pods "x" is forbidden: …`.
    pub fn forbidden(kind: Kind, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", kind.group_resource())
        } else {
            format!("{} \"{name}\" is forbidden: {why}", kind.group_resource())
        };
        Self::new(StatusReason::Forbidden, message).about(kind, name)
    }

    /// Whether the same request may succeed later without being changed.
    pub fn retryable(&self) -> bool {
        matches!(
            self.reason,
            StatusReason::Conflict
                | StatusReason::TooManyRequests
                | StatusReason::InternalError
                | StatusReason::ServiceUnavailable
                | StatusReason::Timeout
        )
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let pod = Kind::of::<Pod>();
        assert_eq!(ApiError::not_found(pod, "x").to_string(), "pods \"x\" not found");
        assert_eq!(
            ApiError::already_exists(Kind::of::<Deployment>(), "x").to_string(),
            "deployments.apps \"x\" already exists"
        );
        assert!(ApiError::stale(pod, "x").retryable());
        assert!(!ApiError::not_found(pod, "x").retryable());
    }
}
