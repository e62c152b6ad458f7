//! `apiVersion` and `kind`: what a document says it is.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;
use wharf_model::kinds::{Kind, built_in};
use wharf_ports::error::ApiError;

use super::no_matches;
use crate::error::{bad_request, not_handled_as, unrecognized};
use crate::tree::is_custom;

/// The kind that a document names.
///
/// # Errors
/// `Object 'Kind' is missing in '…'`, `no matches for kind "Foo" in version "v1"`.
pub fn kind_of(value: &Value) -> Result<Kind, ApiError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, name) = (text("apiVersion"), text("kind"));
    if name.is_empty() {
        return Err(bad_request(format!("Object 'Kind' is missing in '{value}'")));
    }
    if api_version.is_empty() {
        return Err(bad_request(format!("Object 'apiVersion' is missing in '{value}'")));
    }
    built_in()
        .iter()
        .copied()
        .find(|kind| kind.kind == name && kind.api_version() == api_version)
        .ok_or_else(|| no_matches(name, api_version))
}

/// Refuses JSON that is no object or says that it is of another kind.
pub(super) fn check(kind: Kind, version: &str, json: &[u8]) -> Result<(), ApiError> {
    let body = || String::from_utf8_lossy(json);
    let envelope: Envelope<'_> = serde_json::from_slice(json).map_err(|error| {
        let why =
            format!("couldn't get version/kind; json parse error: {}", syntax_error(&error, json));
        unrecognized(kind, &why, &body())
    })?;
    compare(kind, version, &envelope.api_version, &envelope.kind, &body)
}

/// The same for a value.
pub(super) fn check_value(kind: Kind, version: &str, value: &Value) -> Result<(), ApiError> {
    let body = || Cow::Owned(value.to_string());
    let Some(object) = value.as_object() else {
        let why = format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct",
            go_type_of(value)
        );
        return Err(unrecognized(kind, &why, &body()));
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    compare(kind, version, text("apiVersion"), text("kind"), &body)
}

fn compare<'a>(
    expected: Kind,
    expected_version: &str,
    api_version: &str,
    kind: &str,
    body: &dyn Fn() -> Cow<'a, str>,
) -> Result<(), ApiError> {
    if kind.is_empty() && is_custom(expected) {
        let body = body();
        return Err(unrecognized(
            expected,
            &format!("Object 'Kind' is missing in '{body}'"),
            &body,
        ));
    }
    let expected_version = group_version(expected.group, expected_version);
    let same_version = api_version == expected_version || api_version.is_empty();
    if same_version && (kind == expected.kind || kind.is_empty()) {
        return Ok(());
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let version = if version.is_empty() {
        expected_version.rsplit('/').next().unwrap_or_default()
    } else {
        version
    };
    if kind == expected.kind || kind.is_empty() {
        return Err(bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected_version})"
        )));
    }
    let group = if api_version.is_empty() { expected.group } else { group };
    let why = match Kind::by_kind(group, kind).filter(|known| known.version == version) {
        Some(_) => format!(
            "converting ({version}.{kind}) to ({}.{expected}): unknown conversion",
            package(expected)
        ),
        None => format!(
            "no kind {kind:?} is registered for version {:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            group_version(group, version)
        ),
    };
    Err(not_handled_as(kind, version, expected, &why))
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Go's package of a kind's internal form.
fn package(kind: Kind) -> &'static str {
    if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() }
}

/// What Go calls a JSON value's type.
pub(crate) fn go_type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A syntax error in Go's words, as near as the parser's own error allows.
pub(crate) fn syntax_error(error: &serde_json::Error, json: &[u8]) -> String {
    match error.classify() {
        Category::Eof => "unexpected end of JSON input".to_owned(),
        Category::Syntax => {
            let line = json.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
            let at = line.and_then(|line| line.get(error.column().saturating_sub(1)));
            match at {
                Some(byte) if byte.is_ascii() => format!(
                    "invalid character {:?} looking for beginning of value",
                    char::from(*byte)
                ),
                _ => error.to_string(),
            }
        }
        Category::Data | Category::Io => error.to_string(),
    }
}

#[derive(Default)]
struct Envelope<'a> {
    api_version: Cow<'a, str>,
    kind: Cow<'a, str>,
}

/// By hand, since a field that is there twice must not be an error here: the last one counts.
impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Envelope::default();
                while let Some(Text(key)) = map.next_key()? {
                    match &*key {
                        "apiVersion" => {
                            found.api_version =
                                map.next_value::<Option<Text<'de>>>()?.unwrap_or_default().0;
                        }
                        "kind" => {
                            found.kind =
                                map.next_value::<Option<Text<'de>>>()?.unwrap_or_default().0;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A text that is borrowed where it has no escapes.
#[derive(Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}
