//! Content negotiation: in which form the client wants the answer, and in which form it sent the
//! question.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use wharf_ports::error::{ApiError, StatusReason};

/// The form of an object or a list in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Plain,
    /// A `Table`, which kubectl prints.
    Table,
    /// Its metadata only.
    Metadata,
}

/// What the client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The form.
    pub form: Form,
    /// YAML in place of JSON.
    pub yaml: bool,
    /// Which version of aggregated discovery, if that is asked for.
    pub discovery: Option<Discovery>,
    /// The protobuf form of the OpenAPI v2 document.
    pub openapi_protobuf: bool,
}

/// A version of aggregated discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// `v2`.
    V2,
    /// `v2beta1`, of kubectl before 1.30.
    V2Beta1,
}

impl Discovery {
    /// The version's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }
}

const PLAIN: Accepted =
    Accepted { form: Form::Plain, yaml: false, discovery: None, openapi_protobuf: false };

/// Reads `Accept`: the first type of the client's list that can be served.
///
/// # Errors
/// 406 if none can.
pub(crate) fn accepted(headers: &HeaderMap) -> Result<Accepted, ApiError> {
    let Some(accept) = headers.get(ACCEPT) else { return Ok(PLAIN) };
    let accept = accept.to_str().unwrap_or_default();
    if matches!(accept, "" | "*/*" | "application/json" | "application/json, */*") {
        return Ok(PLAIN);
    }
    accept.split(',').find_map(clause).ok_or_else(|| {
        ApiError::new(
            StatusReason::NotAcceptable,
            "only the following media types are accepted: application/json, application/yaml",
        )
    })
}

fn clause(clause: &str) -> Option<Accepted> {
    let mut parts = clause.split(';').map(str::trim);
    let media = parts.next()?;
    let (mut target, mut group, mut version) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => target = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            _ => {}
        }
    }
    let mut found = PLAIN;
    match media {
        "application/json" | "*/*" | "application/*" => {}
        "application/yaml" => found.yaml = true,
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf" => {
            found.openapi_protobuf = true;
        }
        _ => return None,
    }
    match (target, group, version) {
        ("", _, _) => {}
        ("Table", "meta.k8s.io", "v1" | "v1beta1") => found.form = Form::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
            found.form = Form::Metadata;
        }
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => {
            found.discovery = Some(Discovery::V2);
        }
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
            found.discovery = Some(Discovery::V2Beta1);
        }
        _ => return None,
    }
    Some(found)
}

/// Whether the client takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.split(',').any(|coding| coding.trim().starts_with("gzip")))
}

/// The media type of the request's body, without parameters; empty if the client does not say.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map_or("", |text| text.split(';').next().unwrap_or_default().trim())
}

/// 415 with the types that can be read.
pub(crate) fn unsupported(media: &str, supported: &[&str]) -> ApiError {
    let supported = supported.join(", ");
    let message = if media.is_empty() {
        format!(
            "the body of the request was in an unknown format - accepted media types include: {supported}"
        )
    } else {
        format!(
            "the body of the request was in an unknown format ({media}) - accepted media types include: {supported}"
        )
    };
    ApiError::new(StatusReason::UnsupportedMediaType, message)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn accept(text: &'static str) -> Result<Accepted, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(text));
        accepted(&headers).map_err(|error| error.reason.code())
    }

    #[test]
    fn the_first_form_that_can_be_served_wins() {
        let kubectl_get = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl_get), Ok(Accepted { form: Form::Table, ..PLAIN }));
        assert_eq!(accept("application/vnd.kubernetes.protobuf,application/json"), Ok(PLAIN));
        assert_eq!(accept("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(accept("application/json;as=Unknown;v=v1;g=meta.k8s.io"), Err(406));
        assert_eq!(
            accept("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"),
            Ok(Accepted { form: Form::Metadata, ..PLAIN })
        );
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(accept(discovery), Ok(Accepted { discovery: Some(Discovery::V2), ..PLAIN }));
    }
}
