//! Bodies in Kubernetes' protobuf form, read as JSON. kubectl sends them for built-in kinds since
//! 1.32 and does not fall back to JSON; answers may be JSON, which its `Accept` names.
//!
//! The form is an envelope (four magic bytes and `runtime.Unknown`) around the object's message.
//! The fields of the messages are data: `data/protobuf-fields.txt`. Fields that are not known are
//! passed over, as protobuf wants it. What comes out is what the same client would have sent as
//! JSON: its writers always put down fields that cannot be unset in Go, zero or not, and JSON leaves
//! some of those out.
//!
//! Public contract: <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>.

#[cfg(test)]
mod kubectl;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use wharf_model::time::Time;
use wharf_ports::error::{ApiError, StatusReason};

use self::wire::{Fields, Wire, varint};
use crate::status::bad_request;

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages within messages; a pod's deepest has about ten.
const DEPTH_MAX: usize = 40;

/// Reads a body as JSON.
///
/// # Errors
/// 400 if it is not in this form or of a kind that is not known; 415 if its group has no such form,
/// as custom resources have none.
pub(crate) fn to_json(body: &[u8]) -> Result<Value, ApiError> {
    let refuse = |why: String| bad_request(format!("the protobuf body cannot be read: {why}"));
    let Some(envelope) = body.strip_prefix(MAGIC) else {
        return Err(refuse("it does not begin with the magic bytes of Kubernetes".to_owned()));
    };
    let (api_version, kind, raw) = open(envelope).map_err(|failure| refuse(failure.to_string()))?;
    if api_version.is_empty() || kind.is_empty() {
        return Err(refuse("its envelope lacks the apiVersion or the kind".to_owned()));
    }
    let package = package(&api_version, &kind).ok_or_else(|| {
        ApiError::new(
            StatusReason::UnsupportedMediaType,
            format!("{kind:?} of {api_version:?} has no protobuf form; send application/json"),
        )
    })?;
    let name = format!("{package}/{kind}");
    if !messages().contains_key(name.as_str()) {
        return Err(refuse(format!("kind {kind:?} of {api_version:?} is not known")));
    }
    let mut object = Map::new();
    message(&name, raw, &mut object, 0).map_err(|failure| refuse(failure.to_string()))?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

/// What the envelope holds: `apiVersion`, `kind`, and the object's message.
fn open(envelope: &[u8]) -> Result<(String, String, &[u8]), Failure> {
    let (mut type_meta, mut raw) = (&[][..], &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Fields(type_meta) {
        match field? {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
            _ => {}
        }
    }
    Ok((api_version, kind, raw))
}

/// The table's name for the messages of a group-version.
fn package(api_version: &str, kind: &str) -> Option<&'static str> {
    Some(match api_version {
        // Every group-version has its own name for the options of a deletion.
        _ if kind == "DeleteOptions" => "meta",
        "v1" => "core",
        "apps/v1" => "apps",
        "policy/v1" => "policy",
        "certificates.k8s.io/v1" => "certificates",
        "authorization.k8s.io/v1" => "authorization",
        "authentication.k8s.io/v1" => "authentication",
        "autoscaling/v1" => "autoscaling",
        "autoscaling/v2" => "autoscaling.v2",
        "scheduling.k8s.io/v1" => "scheduling",
        "coordination.k8s.io/v1" => "coordination",
        "events.k8s.io/v1" => "events",
        _ => return None,
    })
}

/// Why a body cannot be read, and in which field.
#[derive(Debug)]
struct Failure {
    why: &'static str,
    /// The names of the fields that hold the place, the innermost first.
    path: Vec<&'static str>,
}

impl Failure {
    fn within(mut self, field: &'static str) -> Self {
        self.path.push(field);
        self
    }
}

impl From<&'static str> for Failure {
    fn from(why: &'static str) -> Self {
        Self { why, path: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: Vec<_> = self.path.iter().rev().copied().collect();
        if path.is_empty() {
            return f.write_str(self.why);
        }
        write!(f, "{}: {}", path.join("."), self.why)
    }
}

/// One field of a message, from the table.
struct Field {
    name: &'static str,
    form: Form,
    /// Its value's fields stand in the message itself.
    inline: bool,
    /// JSON leaves its zero out.
    drop_zero: bool,
    kind: FieldKind,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    One,
    Repeated,
    Map,
}

#[derive(Clone, Copy)]
enum FieldKind {
    Text,
    Integer,
    Boolean,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    RawJson,
    /// Texts in a message of their own.
    Texts,
    Message(&'static str),
}

type Messages = BTreeMap<&'static str, BTreeMap<u32, Field>>;

fn messages() -> &'static Messages {
    static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
        include_str!("../data/protobuf-fields.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(": "))
            .map(|(name, fields)| (name, fields.split(", ").filter_map(parse_field).collect()))
            .collect()
    });
    &MESSAGES
}

fn parse_field(text: &'static str) -> Option<(u32, Field)> {
    let mut parts = text.split(' ');
    let number = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let mut kind = parts.next()?;
    let mut field =
        Field { name, form: Form::One, inline: false, drop_zero: false, kind: FieldKind::Text };
    if let Some(rest) = kind.strip_prefix('!') {
        (field.inline, kind) = (true, rest);
    }
    if let Some(rest) = kind.strip_prefix('~') {
        (field.drop_zero, kind) = (true, rest);
    }
    if let Some(rest) = kind.strip_prefix('*') {
        (field.form, kind) = (Form::Repeated, rest);
    }
    if let Some(rest) = kind.strip_prefix('%') {
        (field.form, kind) = (Form::Map, rest);
    }
    field.kind = match kind {
        "s" => FieldKind::Text,
        "i" => FieldKind::Integer,
        "b" => FieldKind::Boolean,
        "y" => FieldKind::Bytes,
        "T" => FieldKind::Time,
        "U" => FieldKind::MicroTime,
        "Q" => FieldKind::Quantity,
        "I" => FieldKind::IntOrString,
        "J" => FieldKind::RawJson,
        "L" => FieldKind::Texts,
        message => FieldKind::Message(message),
    };
    Some((number, field))
}

/// Reads a message's fields into a JSON object.
fn message(
    name: &str,
    bytes: &[u8],
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Failure> {
    if depth > DEPTH_MAX {
        return Err("it is nested too deeply".into());
    }
    let fields = messages().get(name).ok_or("it holds a message that is not known")?;
    for entry in Fields(bytes) {
        let (number, wire) = entry?;
        let Some(field) = fields.get(&number) else { continue };
        match (field.kind, wire) {
            (FieldKind::Message(inner), Wire::Bytes(bytes)) if field.inline => {
                message(inner, bytes, out, depth + 1)?;
            }
            _ => read(field, wire, out, depth).map_err(|failure| failure.within(field.name))?,
        }
    }
    Ok(())
}

/// Reads one entry of a field into the object that has the field.
fn read(
    field: &Field,
    wire: Wire<'_>,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Failure> {
    match field.form {
        Form::One => {
            let value = value(field.kind, wire, depth)?;
            if !(value.is_null() || field.drop_zero && is_zero(&value)) {
                out.insert(field.name.to_owned(), value);
            }
        }
        Form::Repeated => {
            let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Err("it is given twice".into()) };
            match (field.kind, wire) {
                // Numbers may come packed into one field.
                (FieldKind::Integer, Wire::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        list.push(Value::from(varint(&mut packed)?.cast_signed()));
                    }
                }
                (_, wire) => list.push(value(field.kind, wire, depth)?),
            }
        }
        Form::Map => {
            let Wire::Bytes(bytes) = wire else { return Err("a map has no entries".into()) };
            let (mut key, mut found) = (String::new(), None);
            for entry in Fields(bytes) {
                match entry? {
                    (1, Wire::Bytes(bytes)) => key = text(bytes)?,
                    (2, wire) => found = Some(value(field.kind, wire, depth)?),
                    _ => {}
                }
            }
            let found = match found {
                Some(found) => found,
                // An entry without a value has the value of no bytes.
                None => value(field.kind, Wire::Bytes(&[]), depth)?,
            };
            let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(map) = map else { return Err("it is given twice".into()) };
            map.insert(key, found);
        }
    }
    Ok(())
}

/// Whether JSON's `omitempty` leaves a value out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    }
}

/// A value as JSON; null if it is not set.
fn value(kind: FieldKind, wire: Wire<'_>, depth: usize) -> Result<Value, Failure> {
    Ok(match (kind, wire) {
        (FieldKind::Text, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (FieldKind::Integer, Wire::Varint(number)) => number.cast_signed().into(),
        (FieldKind::Boolean, Wire::Varint(number)) => (number != 0).into(),
        (FieldKind::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (FieldKind::Time, Wire::Bytes(bytes)) => time(bytes, false)?.into(),
        (FieldKind::MicroTime, Wire::Bytes(bytes)) => time(bytes, true)?.into(),
        (FieldKind::Quantity, Wire::Bytes(bytes)) => match only(bytes)? {
            Some(number) => text(number)?.into(),
            None => "0".into(),
        },
        (FieldKind::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (FieldKind::RawJson, Wire::Bytes(bytes)) => match only(bytes)? {
            Some(raw) => serde_json::from_slice(raw).map_err(|_| "it is not JSON")?,
            None => Value::Null,
        },
        (FieldKind::Texts, Wire::Bytes(bytes)) => {
            let mut texts = Vec::new();
            for entry in Fields(bytes) {
                if let (1, Wire::Bytes(bytes)) = entry? {
                    texts.push(Value::from(text(bytes)?));
                }
            }
            texts.into()
        }
        (FieldKind::Message(name), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            message(name, bytes, &mut object, depth + 1)?;
            object.into()
        }
        _ => return Err("it is of another type than expected".into()),
    })
}

/// The bytes in the first field of a message that has no other.
fn only(bytes: &[u8]) -> Result<Option<&[u8]>, Failure> {
    let mut found = None;
    for entry in Fields(bytes) {
        if let (1, Wire::Bytes(bytes)) = entry? {
            found = Some(bytes);
        }
    }
    Ok(found)
}

/// A point in time; an empty message is none.
fn time(bytes: &[u8], micro: bool) -> Result<Option<String>, Failure> {
    let (mut seconds, mut nanos) = (0, 0);
    if bytes.is_empty() {
        return Ok(None);
    }
    for entry in Fields(bytes) {
        match entry? {
            (1, Wire::Varint(number)) => seconds = number.cast_signed(),
            (2, Wire::Varint(number)) => nanos = number.cast_signed(),
            _ => {}
        }
    }
    let time = Time::from_seconds(seconds);
    Ok(Some(if micro {
        let nanos = time.as_nanos().saturating_add(nanos);
        format!("{:.6}", Time::from_nanos(nanos).timestamp())
    } else {
        time.to_string()
    }))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Failure> {
    let (mut is_text, mut number, mut word) = (false, 0, String::new());
    for entry in Fields(bytes) {
        match entry? {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => word = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { word.into() } else { number.into() })
}

fn text(bytes: &[u8]) -> Result<String, Failure> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a text is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("short");
        assert!(length < 0x80);
        [&[number << 3 | 2, length], content].concat()
    }

    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC, &bytes(1, &meta), &bytes(2, raw), &bytes(3, b""), &bytes(4, b"")].concat()
    }

    #[test]
    fn a_config_map_reads_as_its_json() {
        // As client-go writes it: fields that are not pointers are there even when empty.
        let meta = [
            bytes(1, b"a"),
            bytes(2, b""),
            bytes(3, b"default"),
            number(7, 0),
            bytes(8, b""),
            bytes(11, &[bytes(1, b"x"), bytes(2, b"")].concat()),
        ]
        .concat();
        let entry = [bytes(1, b"k"), bytes(2, b"v")].concat();
        let raw = [bytes(1, &meta), bytes(2, &entry), number(4, 0)].concat();
        assert_eq!(
            to_json(&body("v1", "ConfigMap", &raw)).expect("valid"),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "immutable": false, "data": {"k": "v"},
                "metadata": {"name": "a", "namespace": "default", "labels": {"x": ""}},
            })
        );
    }

    #[test]
    fn inlined_and_special_values_read_as_their_json() {
        let request = [bytes(1, b"cpu"), bytes(2, &bytes(1, b"100m"))].concat();
        let probe_port = [number(1, 1), number(2, 0), bytes(3, b"http")].concat();
        let get = bytes(2, &[bytes(1, b"/"), bytes(2, &probe_port)].concat());
        let probe = [bytes(1, &get), number(2, 5), number(3, 0)].concat();
        let container = [bytes(1, b"c"), bytes(8, &bytes(2, &request)), bytes(11, &probe)].concat();
        let raw = bytes(2, &[bytes(2, &container), number(4, 0)].concat());
        let pod = to_json(&body("v1", "Pod", &raw)).expect("valid");
        assert_eq!(
            pod["spec"],
            json!({"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "c",
                "resources": {"requests": {"cpu": "100m"}},
                "readinessProbe": {
                    "httpGet": {"path": "/", "port": "http"}, "initialDelaySeconds": 5
                },
            }]})
        );
    }

    #[test]
    fn rubbish_is_refused() {
        for rubbish in [&b"{}"[..], b"k8s\0\x0a", b"k8s\0\x0a\x02\x0a\x05", MAGIC] {
            assert_eq!(to_json(rubbish).expect_err("rubbish").reason.code(), 400);
        }
        let error = to_json(&body("v1", "Foo", b"")).expect_err("unknown");
        assert!(error.message.contains("\"Foo\" of \"v1\" is not known"), "{error}");
        let error = to_json(&body("example.org/v1", "Foo", b"")).expect_err("no such form");
        assert_eq!(error.reason.code(), 415);
        let error = to_json(&body("v1", "Pod", &bytes(1, &bytes(11, b"x")))).expect_err("broken");
        assert_eq!(
            error.message,
            "the protobuf body cannot be read: metadata.labels: it ends within a number"
        );
    }

    #[test]
    fn every_message_that_is_named_is_there() {
        for (name, fields) in messages() {
            assert!(!fields.is_empty() || name.contains('/'), "{name}");
            for field in fields.values() {
                if let FieldKind::Message(inner) = field.kind {
                    assert!(messages().contains_key(inner), "{name}.{} is {inner}", field.name);
                }
            }
        }
    }

    /// The JSON names of a message's fields, inlined ones included.
    fn names(message: &str, out: &mut Vec<&'static str>) {
        for field in messages().get(message).into_iter().flat_map(BTreeMap::values) {
            match field.kind {
                FieldKind::Message(inner) if field.inline => names(inner, out),
                _ => out.push(field.name),
            }
        }
    }

    #[test]
    fn the_table_has_every_field_that_is_published() {
        let mut checked = 0;
        for path in ["api/v1", "apis/apps/v1", "apis/policy/v1", "apis/scheduling.k8s.io/v1"] {
            let document = wharf_schema::openapi::v3_group_version(path).expect("served");
            let document: Value = serde_json::from_slice(document).expect("JSON");
            let schemas = document["components"]["schemas"].as_object().expect("schemas");
            for (definition, schema) in schemas {
                let mut parts = definition.rsplit('.');
                let kind = parts.next().unwrap_or_default();
                let package = parts.nth(usize::from(definition.contains(".v1."))).unwrap_or("");
                let message = format!("{package}/{kind}");
                if !messages().contains_key(message.as_str()) {
                    continue;
                }
                let mut known = vec!["apiVersion", "kind"];
                names(&message, &mut known);
                for field in schema["properties"].as_object().into_iter().flatten().map(|(f, _)| f)
                {
                    assert!(known.contains(&field.as_str()), "{message} has no {field}");
                }
                checked += 1;
            }
        }
        assert!(checked > 150, "only {checked} messages are compared");
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            let raw = &raw[..raw.len().min(100)];
            let _ = to_json(&body("v1", "Pod", raw));
            let _ = to_json(&[MAGIC, raw].concat());
        }
    }
}
