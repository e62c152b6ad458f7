//! From the bytes of a list or a watch to objects, with every field the server sent: nothing passes
//! through a type that could drop one. What is dropped on purpose is `metadata.managedFields`,
//! which no controller reads and which is about half of a typical object.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, Revision};

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's {what} cannot be read: {message}")]
pub(crate) struct Unreadable {
    /// What was being read.
    what: String,
    message: String,
}

impl Unreadable {
    fn new(what: impl Into<String>, message: impl ToString) -> Self {
        Self { what: what.into(), message: message.to_string() }
    }
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// Objects that cannot be read, each told in a line: they are set aside.
    pub(crate) problems: Vec<String>,
    pub(crate) revision: Revision,
    /// The token of the next page; empty on the last.
    pub(crate) next: String,
}

/// Reads a page of a list of `kind`.
pub(crate) fn page(kind: Kind, body: &[u8]) -> Result<Page, Unreadable> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(default)]
        metadata: ListMeta,
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct ListMeta {
        resource_version: String,
        #[serde(rename = "continue")]
        next: Option<String>,
    }
    let what = || format!("list of {}", kind.plural);
    let list: List<'_> =
        serde_json::from_slice(body).map_err(|error| Unreadable::new(what(), error))?;
    let mut page = Page {
        objects: Vec::new(),
        problems: Vec::new(),
        revision: number(&list.metadata.resource_version)
            .ok_or_else(|| Unreadable::new(what(), "it has no numeric resourceVersion"))?,
        next: list.metadata.next.unwrap_or_default(),
    };
    for item in list.items.into_iter().flatten() {
        match object(kind, item.get()) {
            Ok(object) => page.objects.push(object),
            Err(problem) => page.problems.push(problem.to_string()),
        }
    }
    Ok(page)
}

/// An event of a watch.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// The object is there in this form.
    Present(Arc<Object>),
    /// The object is gone; this was its last form.
    Gone(Arc<Object>),
    /// Nothing has changed up to this revision.
    Bookmark(Revision),
    /// The watch cannot go on; the text of a `Status`.
    Error(String),
}

/// Reads a line of a watch of `kind`.
pub(crate) fn watch_event(kind: Kind, line: &[u8]) -> Result<WatchEvent, Unreadable> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(rename = "type")]
        type_: String,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let what = || format!("watch of {}", kind.plural);
    let line: Line<'_> =
        serde_json::from_slice(line).map_err(|error| Unreadable::new(what(), error))?;
    let text = line.object.get();
    match line.type_.as_str() {
        "ADDED" | "MODIFIED" => object(kind, text).map(WatchEvent::Present),
        "DELETED" => object(kind, text).map(WatchEvent::Gone),
        "BOOKMARK" => revision_of(kind, text).map(WatchEvent::Bookmark),
        "ERROR" => Ok(WatchEvent::Error(text.to_owned())),
        other => Err(Unreadable::new(what(), format!("{other:?} is no type of event"))),
    }
}

/// Reads one object: items of lists lack `apiVersion` and `kind`, which are put in.
pub(crate) fn object(kind: Kind, text: &str) -> Result<Arc<Object>, Unreadable> {
    let unreadable = |error: &dyn std::fmt::Display| Unreadable::new(kind.singular, error);
    let mut fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| unreadable(&error))?;
    let metadata = fields.get("metadata").ok_or_else(|| unreadable(&"it has no metadata"))?;
    let mut metadata: BTreeMap<String, &RawValue> =
        serde_json::from_str(metadata.get()).map_err(|error| unreadable(&error))?;
    metadata.remove("managedFields");
    let version = metadata.get("resourceVersion").and_then(|raw| raw_number(raw));
    let revision = version.ok_or_else(|| unreadable(&"it has no numeric resourceVersion"))?;
    let metadata =
        serde_json::value::to_raw_value(&metadata).map_err(|error| unreadable(&error))?;
    let header = [("apiVersion", kind.api_version()), ("kind", kind.kind.to_owned())].map(
        |(field, value)| {
            serde_json::value::to_raw_value(&value).map(|value| (field.to_owned(), value))
        },
    );
    let mut owned = Vec::with_capacity(2);
    for entry in header {
        owned.push(entry.map_err(|error| unreadable(&error))?);
    }
    // In the order of names `apiVersion` and `kind` come before all other fields of most kinds.
    for (field, value) in &owned {
        fields.insert(field.clone(), value);
    }
    fields.insert("metadata".to_owned(), &metadata);
    let json = serde_json::to_vec(&fields).map_err(|error| unreadable(&error))?;
    Object::from_json(kind, Bytes::from(json), revision)
        .map(Arc::new)
        .map_err(|error| unreadable(&error))
}

fn revision_of(kind: Kind, text: &str) -> Result<Revision, Unreadable> {
    #[derive(Deserialize)]
    struct Bookmark<'a> {
        #[serde(borrow)]
        metadata: Meta<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta<'a> {
        #[serde(borrow)]
        resource_version: &'a RawValue,
    }
    let unreadable = |error: &dyn std::fmt::Display| {
        Unreadable::new(format!("bookmark of {}", kind.plural), error)
    };
    let bookmark: Bookmark<'_> = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
    raw_number(bookmark.metadata.resource_version)
        .ok_or_else(|| unreadable(&"it has no numeric resourceVersion"))
}

fn raw_number(raw: &RawValue) -> Option<Revision> {
    number(raw.get().strip_prefix('"')?.strip_suffix('"')?)
}

/// resourceVersions of one resource are comparable numbers, by contract since Kubernetes 1.35
/// (KEP-5504) and in fact ever since.
fn number(text: &str) -> Option<Revision> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    fn pods() -> Kind {
        Kind::of::<Pod>()
    }

    #[test]
    fn an_item_of_a_list_becomes_a_whole_object_with_its_unknown_fields() {
        let body = json!({"kind": "PodList", "apiVersion": "v1",
        "metadata": {"resourceVersion": "17", "continue": "next"},
        "items": [
            {"metadata": {"name": "p", "namespace": "n", "resourceVersion": "9", "uid": "u",
                "managedFields": [{"manager": "x"}], "future": {"a": 1}},
             "spec": {"containers": [], "future": [1.50]}},
            {"metadata": {"name": "bad", "resourceVersion": "x"}},
            5
        ]})
        .to_string();
        let page = page(pods(), body.as_bytes()).expect("a list");
        assert_eq!((page.revision, page.next.as_str(), page.objects.len()), (17, "next", 1));
        assert_eq!(page.problems.len(), 2);
        let object = &page.objects[0];
        assert_eq!((object.revision(), object.uid()), (9, "u"));
        assert!(object.typed::<Pod>().is_some());
        let value: Value = serde_json::from_slice(object.json()).expect("JSON");
        assert_eq!(value["apiVersion"], "v1");
        assert_eq!(value["kind"], "Pod");
        assert_eq!(value["metadata"]["future"]["a"], 1);
        assert_eq!(value["spec"]["future"][0], 1.5);
        assert!(value["metadata"].get("managedFields").is_none());
    }

    #[test]
    fn events_are_told_apart() {
        let line = |type_: &str, object: Value| {
            watch_event(pods(), json!({"type": type_, "object": object}).to_string().as_bytes())
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "resourceVersion": "3"}});
        assert!(matches!(line("ADDED", pod.clone()), Ok(WatchEvent::Present(_))));
        assert!(matches!(line("MODIFIED", pod.clone()), Ok(WatchEvent::Present(_))));
        assert!(
            matches!(line("DELETED", pod), Ok(WatchEvent::Gone(object)) if object.revision() == 3)
        );
        let mark = json!({"kind": "Pod", "metadata": {"resourceVersion": "42"}});
        assert!(matches!(line("BOOKMARK", mark), Ok(WatchEvent::Bookmark(42))));
        assert!(matches!(line("ERROR", json!({"code": 410})), Ok(WatchEvent::Error(_))));
        assert!(line("OTHER", json!({})).is_err());
        assert!(watch_event(pods(), b"{\"type\":\"ADDED\"").is_err());
    }

    #[test]
    fn a_list_without_items_is_empty() {
        let body = br#"{"metadata":{"resourceVersion":"1"},"items":null}"#;
        assert!(
            page(pods(), body).is_ok_and(|page| page.objects.is_empty() && page.next.is_empty())
        );
        assert!(page(pods(), b"{}").is_err());
        assert!(page(pods(), b"<html>").is_err());
    }
}
