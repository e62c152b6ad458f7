//! Definitions in the form that the documents publish, with the merge facts and the kinds' names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Dialect;
use super::served::Served;
use crate::tree::{REFERENCE, all_schemas, facts};

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// All definitions in one dialect.
pub(super) struct Definitions {
    all: BTreeMap<String, Value>,
    served: Vec<Served>,
}

impl Definitions {
    pub(super) fn new(dialect: Dialect) -> Self {
        let schemas = all_schemas();
        let mut served: Vec<Served> = schemas
            .roots
            .iter()
            .map(|(kind, name)| {
                let status = schemas.definitions[name].pointer("/properties/status").is_some();
                Served::of(*kind, name.clone(), status)
            })
            .collect();
        served.extend(extra());
        let mut definitions = Self {
            all: schemas
                .definitions
                .iter()
                .map(|(name, schema)| (name.clone(), definition(name, schema, dialect)))
                .collect(),
            served,
        };
        definitions.add_facts();
        definitions.add_kinds(dialect);
        definitions
    }

    pub(super) fn served(&self) -> &[Served] {
        &self.served
    }

    /// The definitions that some resources and their lists refer to, directly or not.
    pub(super) fn reachable_from(&self, served: &[&Served]) -> Map<String, Value> {
        let mut found: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<String> = served
            .iter()
            .flat_map(|served| [served.definition.clone(), served.list_definition()])
            .collect();
        while let Some(name) = open.pop() {
            if let Some((name, schema)) = self.all.get_key_value(&name)
                && found.insert(name)
            {
                references(schema, &mut open);
            }
        }
        found.into_iter().map(|name| (name.to_owned(), self.all[name].clone())).collect()
    }

    /// How lists and maps merge, as extensions of the fields.
    fn add_facts(&mut self) {
        for fact in facts::all() {
            let Some(schema) = self.all.get_mut(&facts::full_name(fact.definition)) else {
                continue;
            };
            let place = match fact.field {
                Some(field) => schema.pointer_mut(&format!("/properties/{field}")),
                None => Some(schema),
            };
            let Some(Value::Object(place)) = place else { continue };
            let is_list = place.get("type").and_then(Value::as_str) == Some("array");
            for (key, value) in fact.extensions(is_list) {
                place.insert(key.to_owned(), value);
            }
        }
    }

    /// The names of kinds, and the definitions of their lists.
    fn add_kinds(&mut self, dialect: Dialect) {
        for served in &self.served {
            let name_of = |kind: &str| json!([{"group": served.group, "kind": kind, "version": served.version}]);
            if let Some(Value::Object(schema)) = self.all.get_mut(&served.definition) {
                schema.insert("x-kubernetes-group-version-kind".to_owned(), name_of(served.kind));
            }
            let list_kind = format!("{}List", served.kind);
            let mut list = json!({
                "type": "object",
                "description": format!("{list_kind} is a list of {}.", served.kind),
                "required": ["items"],
                "properties": {
                    "apiVersion": {"type": "string", "description": "Group and version of the form this list is written in."},
                    "kind": {"type": "string", "description": "Name of the kind of list."},
                    "metadata": {"description": "Standard list metadata.", "$ref": format!("{REFERENCE}{LIST_META}")},
                    "items": {"type": "array", "description": "The objects.", "items": {"$ref": format!("{REFERENCE}{}", served.definition)}},
                },
            });
            list = convert(&list, dialect);
            list["x-kubernetes-group-version-kind"] = name_of(&list_kind);
            self.all.insert(served.list_definition(), list);
        }
    }
}

/// Resources that are not kinds of their own in the store.
fn extra() -> [Served; 3] {
    [
        Served {
            group: "autoscaling",
            version: "v1",
            kind: "HorizontalPodAutoscaler",
            plural: "horizontalpodautoscalers",
            namespaced: true,
            read_only: false,
            is_custom: false,
            definition: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler".to_owned(),
            has_status: true,
        },
        Served {
            group: "events.k8s.io",
            version: "v1",
            kind: "Event",
            plural: "events",
            namespaced: true,
            read_only: false,
            is_custom: false,
            definition: "io.k8s.api.events.v1.Event".to_owned(),
            has_status: false,
        },
        Served {
            group: "apiextensions.k8s.io",
            version: "v1",
            kind: "CustomResourceDefinition",
            plural: "customresourcedefinitions",
            namespaced: false,
            read_only: true,
            is_custom: false,
            definition:
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"
                    .to_owned(),
            has_status: true,
        },
    ]
}

/// One definition; a few that Go encodes by hand are published in a form of their own.
fn definition(name: &str, schema: &Value, dialect: Dialect) -> Value {
    let mut converted = convert(schema, dialect);
    let form = match (name, dialect) {
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", Dialect::V3) => {
            json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
        }
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", Dialect::V2) => {
            json!({"type": "string", "format": "int-or-string"})
        }
        ("io.k8s.apimachinery.pkg.api.resource.Quantity", Dialect::V3) => {
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]})
        }
        ("io.k8s.apimachinery.pkg.api.resource.Quantity", Dialect::V2) => json!({"type": "string"}),
        _ => {
            // A custom resource's own schema leaves its metadata open.
            if let Some(metadata) = converted.pointer_mut("/properties/metadata")
                && metadata.get("properties").is_none()
                && metadata.get("type").is_some()
            {
                let whole = json!({
                    "description": metadata["description"],
                    "$ref": format!("{REFERENCE}{OBJECT_META}"),
                });
                *metadata = convert(&whole, dialect);
            }
            return converted;
        }
    };
    if let (Value::Object(converted), Value::Object(form)) = (&mut converted, form) {
        converted.remove("x-kubernetes-int-or-string");
        converted.extend(form);
    }
    converted
}

/// A schema in a dialect: references point where its definitions are, and what it cannot say is
/// left out.
fn convert(schema: &Value, dialect: Dialect) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    let mut converted = Map::new();
    for (key, value) in schema {
        let value = match (key.as_str(), value) {
            ("$ref", Value::String(text)) => {
                let name = text.strip_prefix(REFERENCE).unwrap_or(text);
                json!(dialect.reference(name))
            }
            ("properties", Value::Object(fields)) => Value::Object(
                fields
                    .iter()
                    .map(|(name, field)| (name.clone(), convert(field, dialect)))
                    .collect(),
            ),
            ("items" | "additionalProperties" | "not", inner) => convert(inner, dialect),
            // Swagger has no unions and no nulls; upstream drops them, too.
            ("anyOf" | "oneOf" | "nullable", _) if dialect == Dialect::V2 => continue,
            ("anyOf" | "oneOf" | "allOf", Value::Array(list)) => {
                list.iter().map(|inner| convert(inner, dialect)).collect()
            }
            (_, value) => value.clone(),
        };
        converted.insert(key.clone(), value);
    }
    // In v3 nothing may stand beside a reference.
    if dialect == Dialect::V3
        && converted.len() > 1
        && let Some(reference) = converted.remove("$ref")
    {
        converted.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
    Value::Object(converted)
}

/// The names of the definitions that a schema refers to.
fn references(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "$ref" => {
                        names.extend(text.rsplit('/').next().map(str::to_owned));
                    }
                    value => references(value, names),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}
