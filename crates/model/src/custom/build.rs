//! Short words for building schemas.

use serde_json::{Map, Value, json};

/// A schema under construction.
#[derive(Clone)]
pub(crate) struct Schema(Map<String, Value>);

/// The pattern of a Kubernetes quantity.
pub(crate) const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
/// The pattern of a label key, with an optional domain.
pub(crate) const LABEL_KEY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(\/))?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
/// The pattern of a label value.
pub(crate) const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

fn typed(kind: &str, description: &str) -> Schema {
    Schema(Map::new()).with("type", kind).describe(description)
}

pub(crate) fn string(description: &str) -> Schema {
    typed("string", description)
}

pub(crate) fn boolean(description: &str) -> Schema {
    typed("boolean", description)
}

pub(crate) fn int32(description: &str) -> Schema {
    typed("integer", description).with("format", "int32")
}

pub(crate) fn int64(description: &str) -> Schema {
    typed("integer", description).with("format", "int64")
}

pub(crate) fn integer(description: &str) -> Schema {
    typed("integer", description)
}

pub(crate) fn time(description: &str) -> Schema {
    string(description).with("format", "date-time")
}

pub(crate) fn array(description: &str, items: Schema) -> Schema {
    typed("array", description).with("items", items.0)
}

pub(crate) fn map(description: &str, values: Schema) -> Schema {
    typed("object", description).with("additionalProperties", values.0)
}

pub(crate) fn quantities(description: &str) -> Schema {
    map(
        description,
        Schema(Map::new())
            .with("anyOf", json!([{"type": "integer"}, {"type": "string"}]))
            .pattern(QUANTITY)
            .with("x-kubernetes-int-or-string", true),
    )
}

pub(crate) fn object<const N: usize>(description: &str, fields: [(&str, Schema); N]) -> Schema {
    let properties: Map<String, Value> =
        fields.into_iter().map(|(name, field)| (name.to_owned(), field.build())).collect();
    typed("object", description).with("properties", properties)
}

/// An object whose fields the schema does not name.
pub(crate) fn opaque(description: &str) -> Schema {
    typed("object", description).with("x-kubernetes-preserve-unknown-fields", true)
}

impl Schema {
    /// A schema that says nothing yet.
    pub(crate) fn any() -> Self {
        Self(Map::new())
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn describe(self, description: &str) -> Self {
        self.with("description", description)
    }

    pub(crate) fn pattern(self, pattern: &str) -> Self {
        self.with("pattern", pattern)
    }

    pub(crate) fn one_of(self, values: &[&str]) -> Self {
        self.with("enum", json!(values))
    }

    pub(crate) fn default(self, value: impl Into<Value>) -> Self {
        self.with("default", value)
    }

    pub(crate) fn range(self, minimum: i64, maximum: i64) -> Self {
        self.with("minimum", minimum).with("maximum", maximum)
    }

    pub(crate) fn minimum(self, minimum: i64) -> Self {
        self.with("minimum", minimum)
    }

    pub(crate) fn max_items(self, count: u64) -> Self {
        self.with("maxItems", count)
    }

    pub(crate) fn required(self, names: &[&str]) -> Self {
        self.with("required", json!(names))
    }

    pub(crate) fn list_type(self, list_type: &str) -> Self {
        self.with("x-kubernetes-list-type", list_type)
    }

    pub(crate) fn build(self) -> Value {
        Value::Object(self.0)
    }
}

/// A whole kind: `apiVersion`, `kind` and `metadata` beside its own two parts.
pub(crate) fn kind(description: &str, spec: Schema, status: Schema) -> Schema {
    object(
        description,
        [
            ("apiVersion", string("Group and version of the form this object is written in.")),
            ("kind", string("Name of the kind of object.")),
            ("metadata", typed("object", "Standard object metadata.")),
            ("spec", spec),
            ("status", status),
        ],
    )
}

/// A list of conditions. `strict` asks for reason and message, as NodePool and EC2NodeClass do.
pub(crate) fn conditions(strict: bool) -> Schema {
    let reason = string("One word that says why, for programs.").with("maxLength", 1024);
    let condition = object(
        "One aspect of the object's state.",
        [
            ("lastTransitionTime", time("When the status last changed.")),
            ("message", string("Why, for people.").with("maxLength", 32768)),
            (
                "observedGeneration",
                int64("The generation of the object that was looked at.").minimum(0),
            ),
            (
                "reason",
                if strict {
                    reason.with("minLength", 1).pattern("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
                } else {
                    reason.pattern("^([A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?|)$")
                },
            ),
            ("status", string("True, False or Unknown.").one_of(&["True", "False", "Unknown"])),
            (
                "type",
                string("The condition's name.").with("maxLength", 316).pattern(
                    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                ),
            ),
        ],
    )
    .required(if strict {
        &["lastTransitionTime", "message", "reason", "status", "type"]
    } else {
        &["lastTransitionTime", "status", "type"]
    });
    array("Signals of health and readiness.", condition)
}
