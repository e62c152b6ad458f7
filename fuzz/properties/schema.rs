//! What must hold of any input to the decoders and patches of `wharf-schema`.

use std::sync::LazyLock;

use serde_json::Value;
use wharf_model::kinds::{Kind, built_in};
use wharf_schema::decode::{
    FieldValidation, decode, decode_any, decode_patched, decode_value, decode_yaml_documents,
    yaml_to_json,
};
use wharf_schema::patch::{PatchType, apply};

/// YAML with one or more documents: what is read is a JSON value that can be sent and read again,
/// and what is an object reads the same once it was written.
pub(crate) fn manifest_yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(value) = yaml_to_json(text) {
        is_sendable(&value);
    }
    for value in decode_yaml_documents(text, "input.yaml").unwrap_or_default() {
        is_sendable(&value);
        for validation in [FieldValidation::Strict, FieldValidation::Warn] {
            if let Ok(decoded) = decode_any(value.clone(), validation) {
                let kind = wharf_schema::decode::kind_of(&value).expect("it was decoded");
                reads_the_same(kind, &decoded.object.encode());
            }
        }
    }
}

/// A body in JSON. Its first byte picks the kind.
pub(crate) fn json_body(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let kind = built_in()[usize::from(*first) % built_in().len()];
    let _ = decode(kind, body, FieldValidation::Strict);
    if let Ok(decoded) = decode(kind, body, FieldValidation::Warn) {
        reads_the_same(kind, &decoded.object.encode());
    }
}

/// A JSON Patch of a Pod.
pub(crate) fn json_patch(data: &[u8]) {
    patch(PatchType::Json, data);
}

/// A JSON Merge Patch of a Pod.
pub(crate) fn merge_patch(data: &[u8]) {
    patch(PatchType::Merge, data);
}

/// A strategic merge patch of a Pod.
pub(crate) fn strategic_patch(data: &[u8]) {
    patch(PatchType::StrategicMerge, data);
}

static POD: LazyLock<Value> = LazyLock::new(|| {
    let text = r#"{
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "default", "labels": {"a": "b"}, "finalizers": ["f/a", "f/b"]},
        "spec": {
            "containers": [
                {"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                 "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}],
                 "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}},
                {"name": "d", "image": "j"}
            ],
            "tolerations": [{"key": "k", "operator": "Exists"}],
            "volumes": [{"name": "v", "emptyDir": {}}]
        }
    }"#;
    serde_json::from_str(text).expect("JSON")
});

fn patch(patch_type: PatchType, data: &[u8]) {
    let kind = Kind::by_kind("", "Pod").expect("built in");
    let Ok(patched) = apply(kind, patch_type, &POD, data) else { return };
    is_sendable(&patched);
    let decoded = decode_patched(kind, patched, patch_type, data, FieldValidation::Strict);
    if let Ok(decoded) = decoded {
        reads_the_same(kind, &decoded.object.encode());
    }
}

/// Whether a value can be written and read again, which very deep ones cannot.
fn is_sendable(value: &Value) {
    let text = value.to_string();
    match serde_json::from_str::<Value>(&text) {
        Ok(again) => assert_eq!(again.to_string(), text),
        Err(error) => panic!("{error}"),
    }
}

/// Whether an object that was written reads as the same one, with nothing to be warned of.
fn reads_the_same(kind: Kind, encoded: &[u8]) {
    let again = decode(kind, encoded, FieldValidation::Strict);
    let again = again
        .unwrap_or_else(|error| panic!("{}: {}", error.message, String::from_utf8_lossy(encoded)));
    assert_eq!(again.object.encode(), encoded);
    let value = serde_json::from_slice(encoded).expect("JSON");
    let again = decode_value(kind, value, FieldValidation::Strict).expect("a value is no worse");
    assert_eq!(again.object.encode(), encoded);
}
