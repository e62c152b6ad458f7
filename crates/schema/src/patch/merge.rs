//! JSON Merge Patch (RFC 7386).

use serde_json::{Map, Value};

/// Merges `patch` into `target`: nulls remove, objects merge, anything else replaces.
pub(super) fn apply(target: Value, patch: Map<String, Value>) -> Value {
    let mut target = match target {
        Value::Object(map) => map,
        // By the RFC, what is not an object counts as an empty one.
        _ => Map::new(),
    };
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(&name);
            }
            Value::Object(inner) => {
                let old = target.remove(&name).unwrap_or_default();
                target.insert(name, apply(old, inner));
            }
            other => {
                target.insert(name, other);
            }
        }
    }
    Value::Object(target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn merged(target: Value, patch: Value) -> Value {
        let Value::Object(patch) = patch else { panic!("a patch is an object") };
        apply(target, patch)
    }

    /// The examples of the RFC's appendix that apply to object patches.
    #[test]
    fn merges_as_the_rfc_says() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(merged(target.clone(), patch.clone()), expected, "{target} + {patch}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..3_i32).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        scalar.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn objects() -> impl Strategy<Value = Map<String, Value>> {
        proptest::collection::btree_map("[a-d]", values(), 0..4)
            .prop_map(|map| map.into_iter().collect())
    }

    /// The patch that makes `b` of `a`.
    fn diff(a: &Map<String, Value>, b: &Map<String, Value>) -> Map<String, Value> {
        let mut patch = Map::new();
        for name in a.keys().filter(|name| !b.contains_key(*name)) {
            patch.insert(name.clone(), Value::Null);
        }
        for (name, new) in b {
            match (a.get(name), new) {
                (Some(old), new) if old == new => {}
                (Some(Value::Object(old)), Value::Object(new)) => {
                    patch.insert(name.clone(), Value::Object(diff(old, new)));
                }
                _ => {
                    patch.insert(name.clone(), new.clone());
                }
            }
        }
        patch
    }

    proptest! {
        #[test]
        fn a_difference_applied_gives_the_other(a in objects(), b in objects()) {
            let patch = diff(&a, &b);
            prop_assert_eq!(apply(Value::Object(a), patch), Value::Object(b));
        }

        #[test]
        fn twice_is_once(a in objects(), patch in objects()) {
            let once = apply(Value::Object(a), patch.clone());
            prop_assert_eq!(apply(once.clone(), patch), once);
        }
    }
}
