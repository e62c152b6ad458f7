//! Objects and lists in the form the client asked for.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use wharf_model::object::{Object, Revision};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_schema::decode::Version;

use super::{Call, Target};
use crate::api::Api;
use crate::body::{Body, Pieces};
use crate::negotiate::Form;
use crate::resources::Backing;
use crate::status::bad_request;
use crate::table::{self, IncludeObject};
use crate::{events_v1, yaml};

/// How much of a list is made at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Longest warning that is sent, upstream's bound on all of them together.
const WARNING_BYTES_MAX: usize = 4 * 1024;

/// An object's JSON as the target's API version shows it. For most kinds these are the stored
/// bytes themselves.
pub(super) fn object_bytes(target: Target, object: &Object) -> Bytes {
    match target.resource.backing {
        Backing::EventsV1 => events_v1::from_stored(object.json()),
        Backing::Converted(version) => converted(version, object),
        _ => object.json().clone(),
    }
}

/// An object's JSON in a version in which it is not stored, `apiVersion` and `kind` first as all
/// objects have them.
fn converted(version: &Version, object: &Object) -> Bytes {
    let Ok(stored) = serde_json::from_slice::<Value>(object.json()) else {
        return object.json().clone();
    };
    let mut shown = version.show(stored);
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    let head = format!(
        "{{\"apiVersion\":\"{}/{}\",\"kind\":\"{}\",",
        version.group, version.version, version.kind
    );
    format!("{head}{}", &shown.to_string()[1..]).into()
}

/// An object as a JSON value, in the target's API version.
pub(super) fn object_value(target: Target, object: &Object) -> Result<Value, ApiError> {
    serde_json::from_slice(&object_bytes(target, object)).map_err(|error| {
        ApiError::new(StatusReason::InternalError, format!("Internal error occurred: {error}"))
    })
}

/// An answer with one object.
pub(super) fn one(
    api: &Api,
    call: &Call<'_>,
    target: Target,
    code: StatusCode,
    object: &Arc<Object>,
) -> Result<Response<Body>, ApiError> {
    let body = match call.accepted.form {
        Form::Plain => object_bytes(target, object),
        Form::Metadata => to_bytes(&metadata_only(object, true)?),
        Form::Table => {
            let objects = std::slice::from_ref(object);
            let mut table = table::render(target.kind, objects, api.now(), include(call)?);
            table["metadata"] = json!({"resourceVersion": object.revision().to_string()});
            to_bytes(&table)
        }
    };
    finish(call, code, body)
}

/// An answer with one document that is not a stored object.
pub(super) fn document(
    call: &Call<'_>,
    code: StatusCode,
    value: &impl Serialize,
) -> Result<Response<Body>, ApiError> {
    finish(call, code, to_bytes(value))
}

/// An answer with whole bytes of JSON, as YAML or indented if the client wants it.
pub(crate) fn finish(
    call: &Call<'_>,
    code: StatusCode,
    json: Bytes,
) -> Result<Response<Body>, ApiError> {
    let internal = |error: &dyn std::fmt::Display| {
        ApiError::new(StatusReason::InternalError, format!("Internal error occurred: {error}"))
    };
    let parse = |json: &Bytes| serde_json::from_slice::<Value>(json).map_err(|e| internal(&e));
    let (body, media) = if call.accepted.yaml {
        let text = yaml::write(&parse(&json)?).map_err(|error| internal(&error))?;
        (Bytes::from(text), "application/yaml")
    } else if call.query.flag("pretty") == Some(true) {
        let text = serde_json::to_vec_pretty(&parse(&json)?).map_err(|error| internal(&error))?;
        (Bytes::from(text), "application/json")
    } else {
        (json, "application/json")
    };
    let mut response = Response::new(Body::Full(body));
    *response.status_mut() = code;
    head(&mut response, media);
    Ok(response)
}

/// The headers of every answer.
pub(super) fn head(response: &mut Response<Body>, media: &'static str) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
}

/// Adds warnings in upstream's form: `Warning: 299 - "text"`.
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut left = WARNING_BYTES_MAX;
    for warning in warnings {
        let text: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        let Some(rest) = left.checked_sub(text.len()) else { return };
        left = rest;
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
}

/// How much of each object a table's rows carry.
pub(super) fn include(call: &Call<'_>) -> Result<IncludeObject, ApiError> {
    match call.query.text("includeObject") {
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "None" => Ok(IncludeObject::None),
        "Object" => Ok(IncludeObject::Object),
        other => Err(bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

/// An object's metadata alone.
pub(super) fn metadata_only(object: &Object, typed: bool) -> Result<Value, ApiError> {
    let meta = object
        .typed_any()
        .map_err(|error| error.to_string())
        .and_then(|any| serde_json::to_value(any.meta()).map_err(|error| error.to_string()))
        .map_err(|error| {
            ApiError::new(StatusReason::InternalError, format!("Internal error occurred: {error}"))
        })?;
    Ok(if typed {
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
    } else {
        json!({"metadata": meta})
    })
}

/// What a list says of itself.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    /// The revision at which the list stands.
    #[serde(serialize_with = "as_text")]
    pub resource_version: Revision,
    /// Where to carry on; empty at the end.
    #[serde(rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    /// How many objects follow, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<usize>,
}

fn as_text<S: serde::Serializer>(revision: &Revision, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(revision)
}

/// An answer with a list.
pub(super) fn list(
    api: &Api,
    call: &Call<'_>,
    target: Target,
    objects: Vec<Arc<Object>>,
    meta: &ListMeta,
) -> Result<Response<Body>, ApiError> {
    match call.accepted.form {
        Form::Table => {
            let mut table = table::render(target.kind, &objects, api.now(), include(call)?);
            table["metadata"] = serde_json::to_value(meta).unwrap_or_default();
            finish(call, StatusCode::OK, to_bytes(&table))
        }
        Form::Metadata => {
            // An object that does not decode is left out rather than failing the list.
            let items: Vec<Value> =
                objects.iter().filter_map(|object| metadata_only(object, false).ok()).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "items": items,
            });
            finish(call, StatusCode::OK, to_bytes(&list))
        }
        Form::Plain => {
            let pieces = ListPieces::new(target, objects, meta);
            if call.accepted.yaml || call.query.flag("pretty") == Some(true) {
                return finish(call, StatusCode::OK, pieces.whole());
            }
            let mut response = Response::new(pieces.into_body());
            head(&mut response, "application/json");
            Ok(response)
        }
    }
}

/// A list made piece by piece from the objects' own bytes.
struct ListPieces {
    target: Target,
    head: Bytes,
    objects: std::vec::IntoIter<Arc<Object>>,
    /// What each item begins with and a list does not repeat, as upstream's typed lists.
    prefix: Vec<u8>,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Head,
    Items,
    Done,
}

impl ListPieces {
    fn new(target: Target, objects: Vec<Arc<Object>>, meta: &ListMeta) -> Self {
        let resource = target.resource;
        let head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
            resource.kind,
            resource.api_version(),
            serde_json::to_string(meta).unwrap_or_else(|_| "{}".to_owned()),
        );
        let custom = is_custom(resource.group);
        let prefix = if custom {
            Vec::new()
        } else {
            format!(
                "{{\"apiVersion\":\"{}\",\"kind\":\"{}\",",
                resource.api_version(),
                resource.kind
            )
            .into_bytes()
        };
        Self { target, head: head.into(), objects: objects.into_iter(), prefix, state: State::Head }
    }

    fn into_body(mut self) -> Body {
        match self.next_piece() {
            // A short list is sent with its length.
            Some(first) if self.state == State::Done => Body::Full(first),
            Some(first) => Body::Lazy(Box::new(Rest { first: Some(first), pieces: self })),
            None => Body::empty(),
        }
    }

    fn whole(mut self) -> Bytes {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next_piece() {
            all.extend_from_slice(&piece);
        }
        all.freeze()
    }
}

/// Custom resources keep `apiVersion` and `kind` in list items, built-in kinds do not.
fn is_custom(group: &str) -> bool {
    wharf_model::custom::is_custom_group(group)
}

impl Pieces for ListPieces {
    fn next_piece(&mut self) -> Option<Bytes> {
        if self.state == State::Done {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES + 4096);
        let mut first = self.state == State::Head;
        if first {
            piece.extend_from_slice(&self.head);
            self.state = State::Items;
        }
        while piece.len() < PIECE_BYTES {
            let Some(object) = self.objects.next() else {
                piece.extend_from_slice(b"]}\n");
                self.state = State::Done;
                break;
            };
            if !std::mem::take(&mut first) {
                piece.extend_from_slice(b",");
            }
            let bytes = object_bytes(self.target, &object);
            match bytes.strip_prefix(&self.prefix[..]) {
                Some(rest) if !self.prefix.is_empty() => {
                    piece.extend_from_slice(b"{");
                    piece.extend_from_slice(rest);
                }
                _ => piece.extend_from_slice(&bytes),
            }
        }
        Some(piece.freeze())
    }
}

struct Rest {
    first: Option<Bytes>,
    pieces: ListPieces,
}

impl Pieces for Rest {
    fn next_piece(&mut self) -> Option<Bytes> {
        self.first.take().or_else(|| self.pieces.next_piece())
    }
}

/// A value's JSON.
pub(super) fn to_bytes(value: &impl Serialize) -> Bytes {
    // Plain data with string keys always encodes.
    Bytes::from(serde_json::to_vec(value).expect("plain data always encodes as JSON"))
}
