//! JSON Patch (RFC 6902), with the indexes and texts of upstream's implementation: `-` appends, a
//! negative index counts from the end.

use serde::Deserialize;
use serde_json::Value;
use wharf_ports::error::{ApiError, StatusReason};

use super::does_not_fit;
use crate::error::bad_request;

/// Upstream's bound on the operations of one patch.
const OPERATIONS_MAX: usize = 10_000;
/// Bytes that copies in one patch may add up to: upstream's bound on a request's size. Without it
/// a short patch that copies a value into itself again and again doubles it each time.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Objects and lists within one another that the JSON reader takes. Without the bound a patch that
/// copies a value to its own deepest place doubles the depth each time, until the stack is used up.
const DEPTH_MAX: usize = 127;

/// Applies a patch, all of it or nothing.
pub(super) fn apply(current: &Value, patch: &[u8]) -> Result<Value, ApiError> {
    let operations: Vec<Operation> = serde_json::from_slice(patch).map_err(|error| {
        bad_request(if error.is_data() {
            error.to_string()
        } else {
            crate::decode::syntax_error(&error, patch)
        })
    })?;
    if operations.len() > OPERATIONS_MAX {
        return Err(ApiError::new(
            StatusReason::RequestEntityTooLarge,
            format!(
                "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
                operations.len()
            ),
        ));
    }
    let mut document = current.clone();
    let mut copied = 0;
    for operation in operations {
        operation.apply(&mut document, &mut copied).map_err(does_not_fit)?;
    }
    Ok(document)
}

#[derive(Deserialize)]
struct Operation {
    #[serde(default)]
    op: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    from: Option<String>,
    /// Absent and null differ.
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Operation {
    fn apply(self, document: &mut Value, copied: &mut usize) -> Result<(), String> {
        let path = self.path.as_str();
        match self.op.as_str() {
            "add" => add(document, path, self.value.unwrap_or_default(), "add"),
            "remove" => remove(document, path, "remove").map(drop),
            "replace" => replace(document, path, self.value.unwrap_or_default()),
            "test" => test(document, path, &self.value.unwrap_or_default()),
            "move" => {
                let from =
                    self.from.ok_or("move operation failed to decode from: missing value")?;
                let value = remove(document, &from, "move")?;
                add(document, path, value, "move")
            }
            "copy" => {
                let from =
                    self.from.ok_or("copy operation failed to decode from: missing value")?;
                let value = find(document, &from)
                    .ok_or_else(|| format!("copy operation does not apply: doc is missing from path: {from}: missing value"))?
                    .clone();
                *copied += value.to_string().len();
                if *copied > COPIED_BYTES_MAX {
                    return Err(format!(
                        "Unable to copy, the accumulated size increase of copy is {copied}, exceeding the limit {COPIED_BYTES_MAX}"
                    ));
                }
                add(document, path, value, "copy")
            }
            other => Err(format!("Unexpected kind: {other}")),
        }
    }
}

fn add(document: &mut Value, path: &str, value: Value, what: &str) -> Result<(), String> {
    check_depth(path, &value)?;
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (parent, key) = parent_of(document, path).ok_or_else(|| {
        format!("{what} operation does not apply: doc is missing path: {path:?}: missing value")
    })?;
    match parent {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => {
            // An index one past the end appends.
            let index = position(&key, list.len() + 1).map_err(|why| in_path(what, path, &why))?;
            list.insert(index, value);
        }
        _ => {
            return Err(format!(
                "{what} operation does not apply: doc is missing path: {path:?}: missing value"
            ));
        }
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str, what: &str) -> Result<Value, String> {
    let missing =
        || format!("{what} operation does not apply: doc is missing path: {path:?}: missing value");
    let (parent, key) = parent_of(document, path).ok_or_else(missing)?;
    match parent {
        Value::Object(map) => map.remove(&key).ok_or_else(|| {
            in_path(what, path, &format!("Unable to remove nonexistent key: {key}: missing value"))
        }),
        Value::Array(list) => {
            let index = position(&key, list.len()).map_err(|why| in_path(what, path, &why))?;
            Ok(list.remove(index))
        }
        _ => Err(missing()),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    check_depth(path, &value)?;
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    match find_mut(document, path) {
        Some(place) => {
            *place = value;
            Ok(())
        }
        None => Err(format!(
            "replace operation does not apply: doc is missing key: {path}: missing value"
        )),
    }
}

fn test(document: &Value, path: &str, expected: &Value) -> Result<(), String> {
    match find(document, path) {
        Some(found) if found == expected => Ok(()),
        // Upstream takes a missing field for null.
        None if expected.is_null() => Ok(()),
        _ => Err(format!("testing value {path} failed: test failed")),
    }
}

/// Refuses a value that would lie too deep at `path`.
fn check_depth(path: &str, value: &Value) -> Result<(), String> {
    let depth = path.matches('/').count() + depth(value);
    if depth > DEPTH_MAX {
        return Err(format!(
            "the result would be {depth} levels deep, at most {DEPTH_MAX} are read"
        ));
    }
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn in_path(what: &str, path: &str, why: &str) -> String {
    format!("error in {what} for path: '{path}': {why}")
}

/// The position that a segment means in a list with `count` places.
fn position(segment: &str, count: usize) -> Result<usize, String> {
    let index: i64 =
        segment.parse().map_err(|_| format!("value was not a proper array index: {segment:?}"))?;
    let found = if index < 0 {
        let back = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
        count.checked_sub(back)
    } else {
        usize::try_from(index).ok().filter(|index| *index < count)
    };
    found
        .ok_or_else(|| format!("Unable to access invalid index: {index}: invalid index referenced"))
}

/// The container of the last segment of a path, and that segment.
fn parent_of<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, key) = path.rsplit_once('/')?;
    Some((find_mut(document, parent)?, unescape(key)))
}

fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    segments(path)?.try_fold(document, |value, segment| match value {
        Value::Object(map) => map.get(&segment),
        Value::Array(list) => position(&segment, list.len()).ok().and_then(|index| list.get(index)),
        _ => None,
    })
}

fn find_mut<'a>(document: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    segments(path)?.try_fold(document, |value, segment| match value {
        Value::Object(map) => map.get_mut(&segment),
        Value::Array(list) => {
            let index = position(&segment, list.len()).ok()?;
            list.get_mut(index)
        }
        _ => None,
    })
}

/// The segments of a JSON pointer; none if it does not begin with a slash.
fn segments(path: &str) -> Option<impl Iterator<Item = String>> {
    let rest = if path.is_empty() { Some("") } else { path.strip_prefix('/') }?;
    Some(rest.split('/').filter(move |_| !path.is_empty()).map(unescape))
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(current: &Value, patch: &Value) -> String {
        match apply(current, patch.to_string().as_bytes()) {
            Ok(value) => value.to_string(),
            Err(error) => error
                .causes
                .first()
                .map_or_else(|| error.message.clone(), |cause| cause.message.clone()),
        }
    }

    #[test]
    fn operations_work_as_in_the_rfc() {
        let current = json!({"a": [1, 2], "b": {"c/d": "x"}, "n": null});
        for (patch, expected) in [
            (
                json!([{"op": "add", "path": "/a/1", "value": 9}]),
                r#"{"a":[1,9,2],"b":{"c/d":"x"},"n":null}"#,
            ),
            (
                json!([{"op": "add", "path": "/a/-", "value": 9}]),
                r#"{"a":[1,2,9],"b":{"c/d":"x"},"n":null}"#,
            ),
            (
                json!([{"op": "add", "path": "/a/2", "value": 9}]),
                r#"{"a":[1,2,9],"b":{"c/d":"x"},"n":null}"#,
            ),
            (json!([{"op": "remove", "path": "/a/-1"}]), r#"{"a":[1],"b":{"c/d":"x"},"n":null}"#),
            (
                json!([{"op": "replace", "path": "/b/c~1d", "value": "y"}]),
                r#"{"a":[1,2],"b":{"c/d":"y"},"n":null}"#,
            ),
            (
                json!([{"op": "move", "from": "/a/0", "path": "/b/e"}]),
                r#"{"a":[2],"b":{"c/d":"x","e":1},"n":null}"#,
            ),
            (
                json!([{"op": "copy", "from": "/b", "path": "/z"}]),
                r#"{"a":[1,2],"b":{"c/d":"x"},"n":null,"z":{"c/d":"x"}}"#,
            ),
            (
                json!([{"op": "test", "path": "/a", "value": [1, 2]}, {"op": "remove", "path": "/n"}]),
                r#"{"a":[1,2],"b":{"c/d":"x"}}"#,
            ),
            (json!([{"op": "replace", "path": "", "value": {"k": 1}}]), r#"{"k":1}"#),
            (
                json!([{"op": "add", "path": "/x/y", "value": 1}]),
                r#"add operation does not apply: doc is missing path: "/x/y": missing value"#,
            ),
            (
                json!([{"op": "remove", "path": "/q"}]),
                "error in remove for path: '/q': Unable to remove nonexistent key: q: missing value",
            ),
            (
                json!([{"op": "replace", "path": "/q", "value": 1}]),
                "replace operation does not apply: doc is missing key: /q: missing value",
            ),
            (
                json!([{"op": "test", "path": "/a/0", "value": 2}]),
                "testing value /a/0 failed: test failed",
            ),
            (
                json!([{"op": "remove", "path": "/a/5"}]),
                "error in remove for path: '/a/5': Unable to access invalid index: 5: invalid index referenced",
            ),
            (json!([{"op": "leap", "path": "/a"}]), "Unexpected kind: leap"),
        ] {
            assert_eq!(patched(&current, &patch), expected, "{patch}");
        }
    }

    #[test]
    fn work_is_bounded() {
        let many =
            json!(vec![json!({"op": "test", "path": "/a", "value": null}); OPERATIONS_MAX + 1]);
        assert!(patched(&json!({}), &many).starts_with("The allowed maximum operations"));
        let doubling = json!(vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 40]);
        assert!(patched(&json!({"a": ["x"]}), &doubling).contains("exceeding the limit"));
    }

    /// The stack once ran out on such patches.
    #[test]
    fn depth_is_bounded() {
        let deeper = |k: u32| json!({"op": "copy", "from": "", "path": "/a".repeat(1 << k)});
        let doubling = json!((0..20).map(deeper).collect::<Vec<_>>());
        assert!(patched(&json!({"a": {}}), &doubling).contains("levels deep"));
        let value: Value = serde_json::from_str(&format!("{}{}", "[".repeat(120), "]".repeat(120)))
            .expect("read by itself");
        let path = "/0".repeat(119);
        let adding = json!([
            {"op": "add", "path": "/a", "value": value.clone()},
            {"op": "add", "path": format!("/a{path}/-"), "value": value},
        ]);
        assert!(patched(&json!({}), &adding).contains("would be 241 levels deep"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(path in "[/a-b0-2~-]{0,8}", from in "[/a-b0-2-]{0,6}", op in "add|remove|replace|move|copy|test") {
            let current = json!({"a": [1, {"b": []}], "b": {"0": {}}});
            let _ = patched(&current, &json!([{"op": op, "path": path, "from": from, "value": 1}]));
        }

        /// Adding and then removing in the same place changes nothing.
        #[test]
        fn add_then_remove_is_nothing(index in 0..3_usize, name in "[c-z]{1,3}") {
            let current = json!({"a": [1, 2], "b": {}});
            for path in [format!("/a/{index}"), format!("/b/{name}")] {
                let patch = json!([{"op": "add", "path": path, "value": 7}, {"op": "remove", "path": path}]);
                proptest::prop_assert_eq!(patched(&current, &patch), current.to_string());
            }
        }
    }
}
