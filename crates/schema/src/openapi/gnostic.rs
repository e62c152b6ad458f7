//! A v2 document as protobuf: the `openapi.v2.Document` message of gnostic, which is all that older
//! clients read. Written from the document's JSON; what the documents here never say is not
//! encoded.
//!
//! Public contract: <https://github.com/google/gnostic-models/blob/main/openapiv2/OpenAPIv2.proto>.

use serde_json::{Map, Value};

/// The document as protobuf.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        for (path, item) in entries(&document["paths"]) {
            paths.named(2, path, |out| path_item(out, item));
        }
    });
    out.message(9, |definitions| {
        for (name, definition) in entries(&document["definitions"]) {
            definitions.named(1, name, |out| schema(out, definition));
        }
    });
    out.0
}

fn path_item(out: &mut Message, item: &Value) {
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(value) = item.get(method) {
            out.message(field, |out| operation(out, value));
        }
    }
    for value in list(&item["parameters"]) {
        out.message(9, |out| parameter(out, value));
    }
}

fn operation(out: &mut Message, value: &Value) {
    out.texts(1, &value["tags"]);
    out.text(5, &value["operationId"]);
    out.texts(6, &value["produces"]);
    out.texts(7, &value["consumes"]);
    for value in list(&value["parameters"]) {
        out.message(8, |out| parameter(out, value));
    }
    out.message(9, |out| {
        for (code, response) in entries(&value["responses"]) {
            out.named(1, code, |out| {
                out.message(1, |out| {
                    out.text(1, &response["description"]);
                    // A SchemaItem that holds a Schema.
                    out.message(2, |out| out.message(1, |out| schema(out, &response["schema"])));
                });
            });
        }
    });
    extensions(out, 13, value);
}

/// A ParametersItem that holds a Parameter.
fn parameter(out: &mut Message, value: &Value) {
    out.message(1, |out| {
        let place = value["in"].as_str().unwrap_or_default();
        match place {
            "body" => out.message(1, |out| {
                out.text(2, &value["name"]);
                out.text(3, &value["in"]);
                out.flag(4, &value["required"]);
                out.message(5, |out| schema(out, &value["schema"]));
            }),
            // A NonBodyParameter; the two forms number some fields differently.
            "path" => out.message(2, |out| {
                out.message(4, |out| {
                    out.flag(1, &value["required"]);
                    out.text(2, &value["in"]);
                    out.text(4, &value["name"]);
                    out.text(5, &value["type"]);
                    out.flag(18, &value["uniqueItems"]);
                });
            }),
            _ => out.message(2, |out| {
                out.message(3, |out| {
                    out.flag(1, &value["required"]);
                    out.text(2, &value["in"]);
                    out.text(4, &value["name"]);
                    out.text(6, &value["type"]);
                    out.flag(20, &value["uniqueItems"]);
                });
            }),
        }
    });
}

fn schema(out: &mut Message, value: &Value) {
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(3, &value["title"]);
    out.text(4, &value["description"]);
    if let Some(default) = value.get("default") {
        out.message(5, |out| any(out, default));
    }
    out.double(7, &value["maximum"]);
    out.double(9, &value["minimum"]);
    out.integer(11, &value["maxLength"]);
    out.integer(12, &value["minLength"]);
    out.text(13, &value["pattern"]);
    out.integer(14, &value["maxItems"]);
    out.integer(15, &value["minItems"]);
    out.flag(16, &value["uniqueItems"]);
    out.integer(17, &value["maxProperties"]);
    out.integer(18, &value["minProperties"]);
    out.texts(19, &value["required"]);
    for value in list(&value["enum"]) {
        out.message(20, |out| any(out, value));
    }
    match value.get("additionalProperties") {
        Some(Value::Bool(_)) => {
            out.message(21, |out| out.flag(2, &value["additionalProperties"]));
        }
        Some(inner) => out.message(21, |out| out.message(1, |out| schema(out, inner))),
        None => {}
    }
    if let Some(kind) = value.get("type") {
        out.message(22, |out| out.text(1, kind));
    }
    if let Some(items) = value.get("items") {
        out.message(23, |out| out.message(1, |out| schema(out, items)));
    }
    for value in list(&value["allOf"]) {
        out.message(24, |out| schema(out, value));
    }
    if value.get("properties").is_some() {
        out.message(25, |out| {
            for (name, field) in entries(&value["properties"]) {
                out.named(1, name, |out| schema(out, field));
            }
        });
    }
    extensions(out, 31, value);
}

/// The fields that begin with `x-`.
fn extensions(out: &mut Message, field: u32, value: &Value) {
    for (name, value) in entries(value).filter(|(name, _)| name.starts_with("x-")) {
        out.named(field, name, |out| any(out, value));
    }
}

/// An Any: its value as YAML, and JSON is YAML.
fn any(out: &mut Message, value: &Value) {
    out.bytes(2, format!("{value}\n").as_bytes());
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A protobuf message under construction. Fields with default values are left out.
#[derive(Default)]
struct Message(Vec<u8>);

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;

impl Message {
    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// An entry of a map: a message with the key as 1 and the value as 2.
    fn named(&mut self, field: u32, name: &str, fill: impl FnOnce(&mut Message)) {
        self.message(field, |out| {
            out.bytes(1, name.as_bytes());
            out.message(2, fill);
        });
    }

    fn text(&mut self, field: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, value: &Value) {
        for text in list(value).iter().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            self.key(field, VARINT);
            self.varint(1);
        }
    }

    fn integer(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_u64().filter(|number| *number != 0) {
            self.key(field, VARINT);
            self.varint(number);
        }
    }

    fn double(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_f64().filter(|number| *number != 0.0) {
            self.key(field, FIXED64);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_encoded_by_the_wire_format() {
        let mut out = Message::default();
        out.text(1, &json!("ab"));
        out.flag(18, &json!(true));
        out.integer(17, &json!(300));
        out.double(7, &json!(1));
        out.text(2, &json!(""));
        assert_eq!(
            out.0,
            [
                0x0a, 2, b'a', b'b', 0x90, 0x01, 1, 0x88, 0x01, 0xac, 0x02, 0x39, 0, 0, 0, 0, 0, 0,
                0xf0, 0x3f
            ]
        );
    }

    #[test]
    fn a_small_document_is_encoded() {
        let bytes = document(&json!({
            "swagger": "2.0",
            "info": {"title": "T", "version": "v"},
            "paths": {},
            "definitions": {"a": {"type": "string"}},
        }));
        let expected: &[u8] = b"\x0a\x032.0\x12\x06\x0a\x01T\x12\x01v\x42\x00\x4a\x12\x0a\x10\x0a\x01a\x12\x0b\xb2\x01\x08\x0a\x06string";
        assert_eq!(bytes, expected);
    }
}
