//! The OpenAPI documents over HTTP: kubectl keeps them on disk and asks whether they still hold.

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use wharf_ports::error::ApiError;
use wharf_schema::openapi;

use crate::api::typed_response;
use crate::body::Body;
use crate::negotiate::Accepted;
use crate::path::Route;
use crate::query::Query;
use crate::status;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a request for one of the documents.
pub(crate) fn answer(
    head: &Parts,
    route: &Route<'_>,
    accepted: Accepted,
) -> Result<Response<Body>, ApiError> {
    let (document, media) = match route {
        Route::OpenApiV2 if accepted.openapi_protobuf => (Some(openapi::v2_protobuf()), PROTOBUF),
        Route::OpenApiV2 => (Some(openapi::v2_json()), JSON),
        Route::OpenApiV3 => (Some(openapi::v3_index()), JSON),
        Route::OpenApiV3Path(path) => (openapi::v3_group_version(path), JSON),
        _ => (None, JSON),
    };
    let document = document.ok_or_else(status::no_such_path)?;
    let hash = openapi::hash(document);
    let tag = format!("\"{hash}\"");
    let known = head.headers.get(IF_NONE_MATCH).is_some_and(|value| value == tag.as_str());
    let mut response = if known {
        let mut response = typed_response(Bytes::new(), media);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        typed_response(Bytes::from_static(document), media)
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    // An address that holds the hash always means this very content.
    let query = Query::parse(head.uri.query().unwrap_or_default());
    if query.text("hash") == hash {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(response)
}
