//! Updates that drop nothing: how a change made on a typed object becomes a JSON merge patch.
//!
//! A typed object knows the fields of the version this program was built with; a server may know
//! more. Sending the whole typed object back (`PUT`) would delete what the type does not know. So
//! the change is worked out between the typed form of what was seen and the typed form of what is
//! wanted, carried over onto the JSON that was seen ([`graft`]), and only what differs is sent
//! ([`difference`]). A merge patch replaces lists as a whole; grafting keeps the unknown fields of
//! their elements too.

use serde_json::{Map, Value};

/// The fields by which two elements of a list are known to be the same thing, best first.
const IDENTITIES: [&str; 3] = ["uid", "name", "type"];

/// `raw` with the change from `old` to `new`, both of which are views of the same object that may
/// lack fields `raw` has.
pub(crate) fn graft(raw: &Value, old: &Value, new: &Value) -> Value {
    if old == new {
        return raw.clone();
    }
    match (raw, old, new) {
        (Value::Object(raw), Value::Object(old), Value::Object(new)) => {
            Value::Object(graft_object(raw, old, new))
        }
        (Value::Array(raw), Value::Array(old), Value::Array(new)) if raw.len() == old.len() => {
            Value::Array(graft_list(raw, old, new))
        }
        _ => new.clone(),
    }
}

fn graft_object(
    raw: &Map<String, Value>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> Map<String, Value> {
    let mut grafted = raw.clone();
    for (field, value) in new {
        let value = match (raw.get(field), old.get(field)) {
            (Some(raw), Some(old)) => graft(raw, old, value),
            _ => value.clone(),
        };
        grafted.insert(field.clone(), value);
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        grafted.remove(field);
    }
    grafted
}

/// Each element of `new` in the raw form of the element it was, if it was there.
fn graft_list(raw: &[Value], old: &[Value], new: &[Value]) -> Vec<Value> {
    let mut taken = vec![false; old.len()];
    let mut grafted: Vec<Option<Value>> = vec![None; new.len()];
    // Elements that did not change come first, at their own place before any other, so that a
    // changed neighbour of the same name does not take theirs.
    for (index, value) in new.iter().enumerate() {
        let same = |at: &usize| !taken[*at] && old[*at] == *value;
        let own = Some(index).filter(|index| *index < old.len()).filter(same);
        if let Some(at) = own.or_else(|| (0..old.len()).find(same)) {
            taken[at] = true;
            grafted[index] = Some(raw[at].clone());
        }
    }
    for (index, value) in new.iter().enumerate() {
        if grafted[index].is_some() {
            continue;
        }
        let known = (0..old.len()).find(|at| !taken[*at] && is_same_thing(&old[*at], value));
        grafted[index] = Some(match known {
            Some(at) => {
                taken[at] = true;
                graft(&raw[at], &old[at], value)
            }
            None => value.clone(),
        });
    }
    grafted.into_iter().flatten().collect()
}

fn is_same_thing(old: &Value, new: &Value) -> bool {
    let field = IDENTITIES.iter().find(|field| new.get(**field).is_some());
    field.is_some_and(|field| old.get(*field) == new.get(*field))
}

/// The JSON merge patch (RFC 7396) that makes `to` out of `from`; `None` if they are the same.
pub(crate) fn difference(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return Some(to.clone()) };
    let mut patch = Map::new();
    for (field, value) in to {
        let change = match from.get(field) {
            Some(before) => difference(before, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(field.clone(), change);
        }
    }
    for field in from.keys().filter(|field| !to.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// RFC 7396, section 2.
    fn apply(target: &Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut result = target.as_object().cloned().unwrap_or_default();
        for (field, value) in patch {
            if value.is_null() {
                result.remove(field);
            } else {
                let before = result.get(field).cloned().unwrap_or(Value::Null);
                result.insert(field.clone(), apply(&before, value));
            }
        }
        Value::Object(result)
    }

    #[test]
    fn unknown_fields_survive_a_change_beside_them() {
        let raw = json!({"metadata": {"name": "p", "labels": {"a": "1"}, "future": 1},
            "spec": {"containers": [{"name": "x", "image": "i", "future": true}, {"name": "y"}],
                "future": {"deep": []}}});
        let old = json!({"metadata": {"name": "p", "labels": {"a": "1"}},
            "spec": {"containers": [{"name": "x", "image": "i"}, {"name": "y"}]}});
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"b": "2"});
        new["spec"]["containers"][0]["image"] = json!("j");
        let grafted = graft(&raw, &old, &new);
        let patch = difference(&raw, &grafted);
        assert_eq!(
            patch,
            Some(json!({"metadata": {"labels": {"a": null, "b": "2"}},
                "spec": {"containers": [{"name": "x", "image": "j", "future": true}, {"name": "y"}]}}))
        );
    }

    #[test]
    fn a_list_keeps_the_unknown_fields_of_elements_that_move() {
        let raw = json!({"c": [{"type": "A", "s": 1, "observed": 7}, {"type": "B", "s": 1, "observed": 8}]});
        let old = json!({"c": [{"type": "A", "s": 1}, {"type": "B", "s": 1}]});
        let new =
            json!({"c": [{"type": "N", "s": 0}, {"type": "B", "s": 2}, {"type": "A", "s": 1}]});
        assert_eq!(
            graft(&raw, &old, &new),
            json!({"c": [{"type": "N", "s": 0}, {"type": "B", "s": 2, "observed": 8},
                {"type": "A", "s": 1, "observed": 7}]})
        );
    }

    #[test]
    fn nothing_changed_is_no_patch() {
        let raw = json!({"a": null, "b": [1], "future": 1});
        let typed = json!({"b": [1]});
        assert_eq!(difference(&raw, &graft(&raw, &typed, &typed)), None);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        // No nulls: typed objects have none, and a merge patch cannot write one.
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..4_i32).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("name|type|[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// `value` without the fields named `c` on any level: what an older type would see.
    fn older_view(value: &Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    .filter(|(field, _)| *field != "c")
                    .map(|(field, value)| (field.clone(), older_view(value)))
                    .collect(),
            ),
            Value::Array(list) => list.iter().map(older_view).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn what_is_wanted_is_what_an_older_type_sees_afterwards(raw in json_value(), wanted in json_value()) {
            let (old, new) = (older_view(&raw), older_view(&wanted));
            let grafted = graft(&raw, &old, &new);
            prop_assert_eq!(older_view(&grafted), new);
            match difference(&raw, &grafted) {
                Some(patch) => prop_assert_eq!(apply(&raw, &patch), grafted),
                None => prop_assert_eq!(raw, grafted),
            }
        }
    }
}
