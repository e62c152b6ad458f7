//! The structural OpenAPI v3 schema of each kind: what `kubectl explain` shows, what the API server
//! publishes, and what structural validation and defaulting read.
//!
//! Types, limits, patterns, enums and defaults are those of upstream's definitions; the descriptions
//! are ours. Patterns that upstream puts on an array, where they have no effect, are left out.

mod ec2nodeclass;
mod nodes;

use std::sync::LazyLock;

use serde_json::Value;

/// The schema of NodePool.
pub fn node_pool() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(nodes::node_pool);
    &SCHEMA
}

/// The schema of NodeClaim.
pub fn node_claim() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(nodes::node_claim);
    &SCHEMA
}

/// The schema of EC2NodeClass.
pub fn ec2_node_class() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(ec2nodeclass::ec2_node_class);
    &SCHEMA
}

/// The schema of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static Value> {
    match kind {
        "NodePool" => Some(node_pool()),
        "NodeClaim" => Some(node_claim()),
        "EC2NodeClass" => Some(ec2_node_class()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema node says what it is and has a description a user can read.
    fn check(path: &str, schema: &Value) {
        let known = schema.get("type").is_some()
            || schema.get("x-kubernetes-int-or-string").is_some()
            || schema.get("x-kubernetes-preserve-unknown-fields").is_some();
        assert!(known, "{path} has no type");
        for (name, field) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let path = format!("{path}.{name}");
            assert!(
                field
                    .get("description")
                    .and_then(Value::as_str)
                    .is_some_and(|text| !text.is_empty()),
                "{path} has no description"
            );
            check(&path, field);
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            assert!(
                schema["properties"].get(name.as_str().unwrap()).is_some(),
                "{path} requires {name}, which it does not have"
            );
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(inner_schema) = schema.get(inner) {
                check(&format!("{path}.{inner}"), inner_schema);
            }
        }
    }

    #[test]
    fn every_field_is_typed_and_described() {
        for kind in ["NodePool", "NodeClaim", "EC2NodeClass"] {
            check(kind, by_kind(kind).unwrap());
        }
        assert!(by_kind("Node").is_none());
    }
}
