//! A structural schema at work: validation, defaults, and the fields it does not know.
//!
//! Covers what custom resource definitions in `apiextensions.k8s.io/v1` may say of types, limits,
//! patterns, enums, list types and defaults; not `allOf`, `oneOf`, `not` and expressions. Messages
//! are those of the Kubernetes API server.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::{Map, Value};

use super::{FieldError, FieldErrorKind};

/// A schema, compiled once and used for every object.
#[derive(Debug, Default)]
pub struct Structural {
    kind: Option<Type>,
    int_or_string: bool,
    nullable: bool,
    preserve_unknown: bool,
    format: Option<String>,
    one_of: Vec<Value>,
    pattern: Option<(String, Regex)>,
    minimum: Option<i64>,
    maximum: Option<i64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    max_properties: Option<usize>,
    properties: BTreeMap<String, Structural>,
    required: Vec<String>,
    additional: Option<Box<Structural>>,
    items: Option<Box<Structural>>,
    list_type: ListType,
    default: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    String,
    Integer,
    Number,
    Boolean,
    Object,
    Array,
}

#[derive(Debug, Default)]
enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A type that structural schemas do not have.
    #[error("the type {0:?} is none of string, integer, number, boolean, object and array")]
    Type(String),
    /// A pattern that does not compile.
    #[error("the pattern {pattern:?} cannot be compiled")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
}

impl Structural {
    /// Compiles a schema from its JSON form.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        let size = |key: &str| {
            schema.get(key).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok())
        };
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let strings = |key: &str| -> Vec<String> {
            let list = schema.get(key).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let inner = |key: &str| {
            schema
                .get(key)
                .filter(|inner| inner.is_object())
                .map(|inner| Self::compile(inner).map(Box::new))
                .transpose()
        };
        let mut properties = BTreeMap::new();
        for (name, field) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            properties.insert(name.clone(), Self::compile(field)?);
        }
        Ok(Self {
            kind: text("type").map(Type::parse).transpose()?,
            int_or_string: flag("x-kubernetes-int-or-string"),
            nullable: flag("nullable"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            format: text("format").map(str::to_owned),
            one_of: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            pattern: text("pattern").map(compile_pattern).transpose()?,
            minimum: schema.get("minimum").and_then(Value::as_i64),
            maximum: schema.get("maximum").and_then(Value::as_i64),
            min_length: size("minLength"),
            max_length: size("maxLength"),
            min_items: size("minItems"),
            max_items: size("maxItems"),
            max_properties: size("maxProperties"),
            properties,
            required: strings("required"),
            additional: inner("additionalProperties")?,
            items: inner("items")?,
            list_type: match text("x-kubernetes-list-type") {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map(strings("x-kubernetes-list-map-keys")),
                _ => ListType::Atomic,
            },
            default: schema.get("default").cloned(),
        })
    }

    /// The errors of a whole object. Values equal to those in `old` are not looked at.
    pub fn validate(&self, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.check("", value, old, &mut errors);
        errors
    }

    /// Fills in defaults, after dropping nulls where null is not a value, as the API server does.
    pub fn apply_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|name, field| {
                    let known = self.properties.get(name).or(self.additional.as_deref());
                    !field.is_null() || known.is_none_or(|schema| schema.nullable)
                });
                for (name, schema) in &self.properties {
                    if let Some(default) = &schema.default
                        && !map.contains_key(name)
                    {
                        map.insert(name.clone(), default.clone());
                    }
                }
                for (name, field) in map.iter_mut() {
                    if let Some(schema) = self.properties.get(name).or(self.additional.as_deref()) {
                        schema.apply_defaults(field);
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    list.iter_mut().for_each(|item| items.apply_defaults(item));
                }
            }
            _ => {}
        }
    }

    /// The paths of the fields that the schema does not know, which strict decoding refuses and
    /// lenient decoding drops. `apiVersion`, `kind` and `metadata` are not this schema's matter.
    pub fn unknown_fields(&self, value: &Value) -> Vec<String> {
        let mut unknown = Vec::new();
        let mut copy = value.clone();
        self.prune_at("", &mut copy, &mut unknown);
        unknown
    }

    /// Drops the fields that the schema does not know and returns their paths.
    pub fn prune(&self, value: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        self.prune_at("", value, &mut unknown);
        unknown
    }

    fn prune_at(&self, path: &str, value: &mut Value, unknown: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.retain(|name, field| {
                if path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                let path = join(path, name);
                match self.properties.get(name).or(self.additional.as_deref()) {
                    Some(schema) => schema.prune_at(&path, field, unknown),
                    None if self.preserve_unknown => {}
                    None => {
                        unknown.push(path);
                        return false;
                    }
                }
                true
            }),
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for (index, item) in list.iter_mut().enumerate() {
                        items.prune_at(&format!("{path}[{index}]"), item, unknown);
                    }
                }
            }
            _ => {}
        }
    }

    fn check(&self, path: &str, value: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        if old == Some(value) || (value.is_null() && self.nullable) {
            return;
        }
        if let Some(expected) = self.type_mismatch(value) {
            let actual = type_name(value);
            errors.push(FieldError {
                field: path.to_owned(),
                kind: FieldErrorKind::TypeInvalid,
                bad_value: Some(actual.into()),
                detail: format!("{path} in body must be of type {expected}: {actual:?}"),
            });
            return;
        }
        match value {
            Value::String(text) => self.check_string(path, text, errors),
            Value::Number(number) => self.check_number(path, number, errors),
            Value::Array(list) => self.check_list(path, list, old, errors),
            Value::Object(map) => self.check_object(path, map, old, errors),
            Value::Null | Value::Bool(_) => {}
        }
        if !self.one_of.is_empty() && !self.one_of.contains(value) {
            let values: Vec<String> = self.one_of.iter().map(Value::to_string).collect();
            errors.push(FieldError {
                field: path.to_owned(),
                kind: FieldErrorKind::NotSupported,
                bad_value: Some(value.clone()),
                detail: format!("supported values: {}", values.join(", ")),
            });
        }
    }

    /// The type that was expected, if the value has another.
    fn type_mismatch(&self, value: &Value) -> Option<&'static str> {
        if self.int_or_string {
            let fits = value.is_string() || value.is_i64() || value.is_u64();
            return (!fits).then_some("integer,string");
        }
        let kind = self.kind?;
        let fits = match kind {
            Type::String => value.is_string(),
            Type::Integer => value.is_i64() || value.is_u64(),
            Type::Number => value.is_number(),
            Type::Boolean => value.is_boolean(),
            Type::Object => value.is_object(),
            Type::Array => value.is_array(),
        };
        (!fits).then_some(kind.name())
    }

    fn check_string(&self, path: &str, text: &str, errors: &mut Vec<FieldError>) {
        let mut invalid = |kind, detail: String| {
            let bad_value = Some(Value::from(text));
            errors.push(FieldError { field: path.to_owned(), kind, bad_value, detail });
        };
        if let Some(least) = self.min_length
            && text.chars().count() < least
        {
            invalid(
                FieldErrorKind::Invalid,
                format!("{path} in body should be at least {least} chars long"),
            );
        }
        if let Some((pattern, regex)) = &self.pattern
            && !regex.is_match(text)
        {
            invalid(FieldErrorKind::Invalid, format!("{path} in body should match '{pattern}'"));
        }
        if self.format.as_deref() == Some("date-time") && text.parse::<jiff::Timestamp>().is_err() {
            invalid(
                FieldErrorKind::TypeInvalid,
                format!("{path} in body must be of type date-time: {}", Value::from(text)),
            );
        }
        if let Some(most) = self.max_length
            && text.chars().count() > most
        {
            let unit = if most == 1 { "byte" } else { "bytes" };
            errors.push(FieldError {
                field: path.to_owned(),
                kind: FieldErrorKind::TooLong,
                bad_value: None,
                detail: format!("may not be more than {most} {unit}"),
            });
        }
    }

    fn check_number(&self, path: &str, number: &serde_json::Number, errors: &mut Vec<FieldError>) {
        let mut invalid = |kind, detail: String| {
            let bad_value = Some(Value::Number(number.clone()));
            errors.push(FieldError { field: path.to_owned(), kind, bad_value, detail });
        };
        let Some(value) = number.as_i64() else { return };
        if let Some(most) = self.maximum
            && value > most
        {
            invalid(
                FieldErrorKind::Invalid,
                format!("{path} in body should be less than or equal to {most}"),
            );
        } else if self.format.as_deref() == Some("int32") && i32::try_from(value).is_err() {
            invalid(
                FieldErrorKind::TypeInvalid,
                format!("{path} in body must be of type int32: \"integer\""),
            );
        }
        if let Some(least) = self.minimum
            && value < least
        {
            invalid(
                FieldErrorKind::Invalid,
                format!("{path} in body should be greater than or equal to {least}"),
            );
        }
    }

    fn check_list(
        &self,
        path: &str,
        list: &[Value],
        old: Option<&Value>,
        errors: &mut Vec<FieldError>,
    ) {
        if let Some(most) = self.max_items
            && list.len() > most
        {
            errors.push(too_many(path, list.len(), most));
        }
        if let Some(least) = self.min_items
            && list.len() < least
        {
            errors.push(FieldError {
                field: path.to_owned(),
                kind: FieldErrorKind::Invalid,
                bad_value: Some(list.len().into()),
                detail: format!("{path} in body should have at least {least} items"),
            });
        }
        // Items of an atomic list have no identity, so there is no old item to compare with. By
        // identity, since a look through the old list for each item would take minutes for a long one.
        let mut old_items = BTreeMap::new();
        for item in old.and_then(Value::as_array).into_iter().flatten() {
            if let Some(identity) = self.list_type.identity(item) {
                old_items.entry(identity.to_string()).or_insert(item);
            }
        }
        let mut seen = BTreeSet::new();
        for (index, item) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let identity = self.list_type.identity(item);
            let text = identity.as_ref().map(Value::to_string);
            let old_item = text.as_ref().and_then(|text| old_items.get(text).copied());
            if let Some(items) = &self.items {
                items.check(&path, item, old_item, errors);
            }
            if let (Some(identity), Some(text)) = (identity, text)
                && !seen.insert(text)
            {
                errors.push(FieldError {
                    field: path,
                    kind: FieldErrorKind::Duplicate,
                    bad_value: Some(identity),
                    detail: String::new(),
                });
            }
        }
    }

    fn check_object(
        &self,
        path: &str,
        map: &Map<String, Value>,
        old: Option<&Value>,
        errors: &mut Vec<FieldError>,
    ) {
        if let Some(most) = self.max_properties
            && map.len() > most
        {
            errors.push(too_many(path, map.len(), most));
        }
        for name in &self.required {
            if !map.contains_key(name) {
                errors.push(FieldError {
                    field: join(path, name),
                    kind: FieldErrorKind::Required,
                    bad_value: None,
                    detail: String::new(),
                });
            }
        }
        for (name, field) in map {
            if let Some(schema) = self.properties.get(name).or(self.additional.as_deref()) {
                schema.check(&join(path, name), field, old.and_then(|old| old.get(name)), errors);
            }
        }
    }
}

impl Type {
    fn parse(name: &str) -> Result<Self, SchemaError> {
        [Self::String, Self::Integer, Self::Number, Self::Boolean, Self::Object, Self::Array]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| SchemaError::Type(name.to_owned()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::Array => "array",
        }
    }
}

impl ListType {
    /// What tells an item from the others: itself in a set, its keys in a map.
    fn identity(&self, item: &Value) -> Option<Value> {
        match self {
            Self::Atomic => None,
            Self::Set => Some(item.clone()),
            Self::Map(keys) => Some(Value::Object(
                keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect(),
            )),
        }
    }
}

/// The JSON type of a value, as schemas name it.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn too_many(path: &str, count: usize, most: usize) -> FieldError {
    let unit = if most == 1 { "item" } else { "items" };
    FieldError {
        field: path.to_owned(),
        kind: FieldErrorKind::TooMany,
        bad_value: Some(count.into()),
        detail: format!("must have at most {most} {unit}"),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn compile_pattern(pattern: &str) -> Result<(String, Regex), SchemaError> {
    // Kubernetes uses RE2, where `\s` means the ASCII blanks.
    let regex = Regex::new(&pattern.replace(r"\s", r"[\t\n\f\r ]")).map_err(|source| {
        SchemaError::Pattern { pattern: pattern.to_owned(), source: Box::new(source) }
    })?;
    Ok((pattern.to_owned(), regex))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Structural {
        Structural::compile(&json!({
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5, "minLength": 1},
                "count": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 10, "default": 3},
                "size": {"x-kubernetes-int-or-string": true, "pattern": "^[0-9]+Gi$"},
                "on": {"type": "boolean"},
                "ratio": {"type": "number"},
                "when": {"type": "string", "format": "date-time"},
                "free": {"type": "integer", "format": "int32"},
                "mode": {"type": "string", "enum": ["a", "b"]},
                "set": {"type": "array", "maxItems": 3, "minItems": 1, "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "properties": {"port": {"type": "integer"}, "name": {"type": "string", "default": "p"}}}},
                "tags": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
            }
        }))
        .unwrap()
    }

    /// In time that grows with the square of its length this takes minutes.
    #[test]
    fn a_long_list_is_compared_with_the_old_one_in_time() {
        let ports: Vec<Value> =
            (0..30_000).map(|port| json!({"port": port, "name": "Q"})).collect();
        let value = json!({"name": "a", "ports": ports});
        let mut new = value.clone();
        new["ports"][29_999]["name"] = json!(1);
        let errors = schema().validate(&new, Some(&value));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].field, "ports[29999].name");
    }

    #[test]
    fn messages_are_the_api_servers() {
        let cases = [
            (json!({}), r#"name: Required value"#),
            (
                json!({"name": 1}),
                r#"name: Invalid value: "integer": name in body must be of type string: "integer""#,
            ),
            (
                json!({"name": null}),
                r#"name: Invalid value: "null": name in body must be of type string: "null""#,
            ),
            (
                json!({"name": "A"}),
                r#"name: Invalid value: "A": name in body should match '^[a-z]+$'"#,
            ),
            (json!({"name": "abcdef"}), r#"name: Too long: may not be more than 5 bytes"#),
            (
                json!({"name": "a", "count": 0}),
                "count: Invalid value: 0: count in body should be greater than or equal to 1",
            ),
            (
                json!({"name": "a", "count": 11}),
                "count: Invalid value: 11: count in body should be less than or equal to 10",
            ),
            (
                json!({"name": "a", "count": 1.5}),
                r#"count: Invalid value: "number": count in body must be of type integer: "number""#,
            ),
            (
                json!({"name": "a", "free": 3_000_000_000_u64}),
                r#"free: Invalid value: 3000000000: free in body must be of type int32: "integer""#,
            ),
            (
                json!({"name": "a", "size": true}),
                r#"size: Invalid value: "boolean": size in body must be of type integer,string: "boolean""#,
            ),
            (
                json!({"name": "a", "size": "1"}),
                r#"size: Invalid value: "1": size in body should match '^[0-9]+Gi$'"#,
            ),
            (
                json!({"name": "a", "on": "yes"}),
                r#"on: Invalid value: "string": on in body must be of type boolean: "string""#,
            ),
            (
                json!({"name": "a", "ratio": "1"}),
                r#"ratio: Invalid value: "string": ratio in body must be of type number: "string""#,
            ),
            (
                json!({"name": "a", "when": "soon"}),
                r#"when: Invalid value: "soon": when in body must be of type date-time: "soon""#,
            ),
            (
                json!({"name": "a", "mode": "c"}),
                r#"mode: Unsupported value: "c": supported values: "a", "b""#,
            ),
            (
                json!({"name": "a", "set": []}),
                "set: Invalid value: 0: set in body should have at least 1 items",
            ),
            (
                json!({"name": "a", "set": ["a", "b", "c", "d"]}),
                "set: Too many: 4: must have at most 3 items",
            ),
            (json!({"name": "a", "set": ["a", "a"]}), r#"set[1]: Duplicate value: "a""#),
            (
                json!({"name": "a", "ports": [{"port": 1}, {"port": 1}]}),
                r#"ports[1]: Duplicate value: {"port":1}"#,
            ),
            (
                json!({"name": "a", "tags": {"a": "", "b": ""}}),
                "tags: Too many: 2: must have at most 1 item",
            ),
            (
                json!({"name": "a", "tags": {"a": 1}}),
                r#"tags.a: Invalid value: "integer": tags.a in body must be of type string: "integer""#,
            ),
        ];
        for (value, expected) in cases {
            let errors: Vec<String> =
                schema().validate(&value, None).iter().map(FieldError::to_string).collect();
            assert_eq!(errors, [expected], "{value}");
        }
        let good = json!({"name": "a", "size": 1, "ratio": 1, "when": "2026-01-01T00:00:00Z", "any": {"x": [1]}});
        assert_eq!(schema().validate(&good, None), []);
    }

    #[test]
    fn an_unchanged_value_is_not_held_against_an_update() {
        let old = json!({"name": "A", "ports": [{"port": 1, "name": 2}]});
        let unchanged =
            json!({"name": "A", "count": 2, "ports": [{"port": 2}, {"port": 1, "name": 2}]});
        assert_eq!(schema().validate(&unchanged, Some(&old)), []);
        let changed = json!({"name": "B", "ports": [{"port": 1, "name": 3}]});
        let fields: Vec<String> =
            schema().validate(&changed, Some(&old)).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["name", "ports[0].name"]);
    }

    #[test]
    fn defaults_fill_gaps_and_nulls_go() {
        let mut value = json!({"name": "a", "count": null, "mode": null, "ports": [{"port": 1}, {"name": "q"}], "any": {"x": null}});
        schema().apply_defaults(&mut value);
        assert_eq!(
            value,
            json!({"name": "a", "count": 3, "ports": [{"port": 1, "name": "p"}, {"name": "q"}], "any": {"x": null}})
        );
    }

    #[test]
    fn unknown_fields_are_found_and_dropped() {
        let mut value = json!({
            "apiVersion": "v1", "metadata": {"x": 1}, "name": "a", "nmae": "b",
            "ports": [{"port": 1, "prot": 2}], "any": {"x": 1}, "tags": {"t": "1"}
        });
        assert_eq!(schema().unknown_fields(&value), ["nmae", "ports[0].prot"]);
        assert_eq!(schema().prune(&mut value).len(), 2);
        assert_eq!(schema().unknown_fields(&value), [""; 0]);
        assert_eq!(value["ports"], json!([{"port": 1}]));
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_refused() {
        let error = |schema| Structural::compile(&schema).unwrap_err().to_string();
        assert_eq!(
            error(json!({"type": "float"})),
            "the type \"float\" is none of string, integer, number, boolean, object and array"
        );
        assert_eq!(
            error(json!({"properties": {"x": {"type": "string", "pattern": "("}}})),
            "the pattern \"(\" cannot be compiled"
        );
    }
}
