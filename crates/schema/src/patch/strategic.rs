//! Strategic merge patch: merge patch with lists merged by key, and directives.
//!
//! Which lists merge and by which key is in the field tree; all others are replaced. Directives:
//! `$patch: replace|delete|merge` in objects and list items, `$deleteFromPrimitiveList/FIELD`,
//! `$setElementOrder/FIELD`, `$retainKeys`.
//!
//! Public contract: <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use wharf_model::kinds::Kind;
use wharf_ports::error::ApiError;

use crate::error::bad_request;
use crate::tree::{Definition, Merge, Shape, Tree};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies a patch to an object of a built-in kind.
pub(super) fn apply(
    kind: Kind,
    current: &Value,
    patch: Map<String, Value>,
) -> Result<Value, ApiError> {
    let tree = Tree::get();
    let shape = tree.root(kind).map_or(Shape::Any, Shape::Object);
    let current = current.as_object().cloned().unwrap_or_default();
    merge_map(&At { tree, shape: &shape }, current, patch).map(Value::Object).map_err(bad_request)
}

/// Where in the tree the merge is.
#[derive(Clone, Copy)]
struct At<'a> {
    tree: &'static Tree,
    shape: &'a Shape,
}

impl<'a> At<'a> {
    fn definition(self) -> Option<&'static Definition> {
        match self.shape {
            Shape::Object(id) => Some(self.tree.definition(*id)),
            _ => None,
        }
    }

    /// The field of that name, and how it merges.
    fn field(self, name: &str) -> (At<'a>, &'static Merge)
    where
        'static: 'a,
    {
        const PLAIN: &Merge =
            &Merge { merge: false, retain_keys: false, replace: false, key: None };
        if let Some(field) = self.definition().and_then(|definition| definition.field(name)) {
            return (At { tree: self.tree, shape: &field.shape }, &field.merge);
        }
        let shape = match self.shape {
            Shape::Map(inner) => inner,
            _ => &Shape::Any,
        };
        (At { tree: self.tree, shape }, PLAIN)
    }

    fn item(self) -> At<'a> {
        let shape = match self.shape {
            Shape::List(inner) => inner,
            _ => &Shape::Any,
        };
        At { tree: self.tree, shape }
    }
}

type Object = Map<String, Value>;

fn merge_map(at: &At<'_>, mut original: Object, mut patch: Object) -> Result<Object, String> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(Value::String(word)) if word == "replace" => return Ok(clean_object(patch)),
        Some(Value::String(word)) if word == "delete" => return Ok(Object::new()),
        Some(Value::String(word)) if word == "merge" => {}
        Some(other) => return Err(format!("unknown patch type found in map: {}", plain(&other))),
    }
    retain_keys(&mut original, &mut patch)?;
    set_element_orders(at, &mut original, &mut patch)?;
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut original, name, &value)?;
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let (inner, merge) = at.field(&key);
                if merge.replace {
                    Value::Object(clean_object(new))
                } else {
                    Value::Object(merge_map(&inner, old, new)?)
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let (inner, merge) = at.field(&key);
                Value::Array(merge_list(&inner, merge, old, new)?)
            }
            (_, new) => clean(new),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// `$retainKeys`: what it does not name goes away. The patch itself may set no other key.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), String> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let invalid = "invalid patch format of retainKeys";
    let Value::Array(keys) = directive else { return Err(invalid.to_owned()) };
    let kept = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    let bare = |name: &str| name.rsplit_once('/').map_or(name, |(_, bare)| bare).to_owned();
    for (name, value) in &*patch {
        let is_directive = name.starts_with('$');
        let name = if is_directive { bare(name) } else { name.clone() };
        if !kept(&name) && !value.is_null() {
            return Err(invalid.to_owned());
        }
    }
    original.retain(|name, _| kept(name));
    Ok(())
}

/// `$setElementOrder/FIELD`: merges that list and puts it in the given order. Items that only the
/// server knows keep their place among the others as far as they had one.
fn set_element_orders(
    at: &At<'_>,
    original: &mut Object,
    patch: &mut Object,
) -> Result<(), String> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let name = &directive[ELEMENT_ORDER.len()..];
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err("invalid patch format of setElementOrder list".to_owned());
        };
        let (inner, merge) = at.field(name);
        let new = match patch.remove(name) {
            Some(Value::Array(new)) => Some(new),
            Some(other) => {
                // Null or another type: nothing is left to be ordered.
                patch.insert(name.to_owned(), other);
                continue;
            }
            None => None,
        };
        let old = match original.remove(name) {
            Some(Value::Array(old)) => Some(old),
            _ => None,
        };
        let key = merge.key.as_deref();
        let server_order = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => merge_list(&inner, merge, Vec::new(), new)?,
            (Some(old), Some(new)) => merge_list(&inner, merge, old, new)?,
        };
        let ordered = in_order(merged, &order, &server_order, key);
        original.insert(name.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

/// `$deleteFromPrimitiveList/FIELD`.
fn delete_from(original: &mut Object, name: &str, gone: &Value) -> Result<(), String> {
    let Value::Array(gone) = gone else {
        return Err("invalid patch format of primitive list".to_owned());
    };
    if let Some(Value::Array(list)) = original.get_mut(name) {
        let gone: BTreeSet<String> = gone.iter().map(Value::to_string).collect();
        list.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

fn merge_list(
    at: &At<'_>,
    merge: &Merge,
    old: Vec<Value>,
    new: Vec<Value>,
) -> Result<Vec<Value>, String> {
    if !merge.merge {
        return Ok(new.into_iter().filter_map(clean_item).collect());
    }
    let Some(key) = merge.key.as_deref() else {
        // Scalars: the union, without repetitions.
        let mut seen = BTreeSet::new();
        let all = old.into_iter().chain(new);
        return Ok(all.filter(|item| seen.insert(item.to_string())).collect());
    };
    let (mut original, patch) = item_directives(old, new, key)?;
    let server_order = original.clone();
    let patch_order = patch.clone();
    let mut places = Places::of(&original, Some(key));
    for item in patch {
        let Value::Object(item) = item else {
            return Err(format!("expected a map with the merge key {key}, got {}", plain(&item)));
        };
        let identity = identity(&item, key)?.to_string();
        match places.0.get(&identity) {
            Some(place) => {
                let old = &mut original[*place];
                let before = old.as_object_mut().map(std::mem::take).unwrap_or_default();
                *old = Value::Object(merge_map(&at.item(), before, item)?);
            }
            None => {
                places.0.insert(identity, original.len());
                original.push(Value::Object(clean_object(item)));
            }
        }
    }
    Ok(in_order(original, &patch_order, &server_order, Some(key)))
}

/// Carries out `$patch` in list items; what is left of both lists is to be merged.
fn item_directives(
    mut old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), String> {
    let mut rest = Vec::with_capacity(new.len());
    let mut replace = false;
    let mut gone = BTreeSet::new();
    for item in new {
        match item.get(DIRECTIVE) {
            None => rest.push(item),
            Some(Value::String(word)) if word == "delete" => {
                let item = item.as_object().map(|item| identity(item, key)).transpose()?;
                gone.extend(item.map(Value::to_string));
            }
            Some(Value::String(word)) if word == "replace" => replace = true,
            Some(Value::String(word)) if word == "merge" => {
                return Err("merging lists cannot yet be specified in the patch".to_owned());
            }
            Some(other) => {
                return Err(format!("unknown patch type found in map: {}", plain(other)));
            }
        }
    }
    if replace {
        return Ok((rest.into_iter().filter_map(clean_item).collect(), Vec::new()));
    }
    if !gone.is_empty() {
        old.retain(|item| item.get(key).is_none_or(|id| !gone.contains(&id.to_string())));
    }
    Ok((old, rest))
}

fn identity<'a>(item: &'a Object, key: &str) -> Result<&'a Value, String> {
    item.get(key).ok_or_else(|| {
        format!(
            "map: {} does not contain declared merge key: {key}",
            plain(&Value::Object(item.clone()))
        )
    })
}

/// Puts a merged list in order: items named by `wanted` as it names them, the others as the server
/// had them, both interleaved by the server's order where it knows both.
fn in_order(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (wanted, server) = (Places::of(wanted, key), Places::of(server, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| wanted.get(item, key).is_some());
    named.sort_by_cached_key(|item| wanted.get(item, key));
    others.sort_by_cached_key(|item| server.get(item, key).unwrap_or(usize::MAX));
    let mut ordered = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        // A server's item goes first only where the server knows both and had it in front.
        let place = server.get(&item, key);
        while let Some(other) = others
            .next_if(|other| matches!((server.get(other, key), place), (Some(a), Some(b)) if a < b))
        {
            ordered.push(other);
        }
        ordered.push(item);
    }
    ordered.extend(others);
    ordered
}

/// Where in a list each item is first, by the text of what identifies it. Looking through the list
/// for each item of another would take minutes where both have a hundred thousand.
struct Places(BTreeMap<String, usize>);

impl Places {
    fn of(list: &[Value], key: Option<&str>) -> Self {
        let mut places = BTreeMap::new();
        for (index, item) in list.iter().enumerate() {
            if let Some(identity) = Self::identity(item, key) {
                places.entry(identity).or_insert(index);
            }
        }
        Self(places)
    }

    fn get(&self, item: &Value, key: Option<&str>) -> Option<usize> {
        self.0.get(&Self::identity(item, key)?).copied()
    }

    /// The value of the merge key, or without one the item itself.
    fn identity(item: &Value, key: Option<&str>) -> Option<String> {
        match key {
            Some(key) => item.get(key).map(Value::to_string),
            None => Some(item.to_string()),
        }
    }
}

/// A new value as it is stored: without nulls and directives.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(clean_object(map)),
        Value::Array(list) => Value::Array(list.into_iter().filter_map(clean_item).collect()),
        other => other,
    }
}

fn clean_object(map: Object) -> Object {
    map.into_iter()
        .filter(|(name, value)| !value.is_null() && !is_directive(name))
        .map(|(name, value)| (name, clean(value)))
        .collect()
}

/// An item of a new list; those that only carry a directive are dropped.
fn clean_item(item: Value) -> Option<Value> {
    if item.get(DIRECTIVE).is_some() {
        return None;
    }
    Some(clean(item))
}

fn is_directive(name: &str) -> bool {
    name == DIRECTIVE
        || name == RETAIN_KEYS
        || name.starts_with(DELETE_FROM)
        || name.starts_with(ELEMENT_ORDER)
}

/// A value as Go prints it in messages: texts without quotes.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(name, value)| format!("{name}:{}", plain(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Array(list) => {
            format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
