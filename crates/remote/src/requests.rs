//! Which requests carry out a write: values, made without a socket.
//!
//! Updates are JSON merge patches of what the controller changed (see [`crate::merge`] for why not
//! `PUT`). A patch names the uid of the object it was made for, so that an object recreated under
//! the same name is not changed; if the write carries a `resourceVersion`, the patch does too, and
//! the server refuses it when another writer was faster, just as it would refuse a `PUT`. A write
//! without one changes what it changes and leaves alone what others have changed meanwhile.

use http::Method;
use serde_json::{Map, Value, json};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Typed};
use wharf_ports::cluster::{Delete, Part, Propagation};

use crate::api::{Again, Request};
use crate::merge;
use crate::path;

const JSON: &str = "application/json";
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";

/// The creation of an object.
pub(crate) fn create(object: &dyn Typed) -> Request {
    let kind = object.kind();
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    Request::send(Method::POST, path::collection(kind, namespace), JSON, object.encode())
}

/// A deletion.
pub(crate) fn delete(delete: &Delete) -> Request {
    let mut options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": match delete.propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        },
    });
    if let Some(uid) = &delete.uid {
        options["preconditions"]["uid"] = json!(uid);
    }
    if let Some(revision) = delete.revision {
        options["preconditions"]["resourceVersion"] = json!(revision.to_string());
    }
    if let Some(seconds) = delete.grace_seconds {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    let path = path::object(delete.kind, &delete.key);
    Request::send(Method::DELETE, path, JSON, options.to_string())
}

/// The binding of a pod.
pub(crate) fn bind(pods: Kind, pod: &ObjectKey, uid: &str, node: &str) -> Request {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    Request::send(Method::POST, path::subresource(pods, pod, "binding"), JSON, body.to_string())
}

/// The number of replicas of a workload. The subresource is replaced, as upstream's autoscaler does
/// (its role may `update` it, not `patch` it); without a `resourceVersion` it is not conditional.
pub(crate) fn scale(kind: Kind, key: &ObjectKey, uid: &str, replicas: i32) -> Request {
    let body = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
        "spec": {"replicas": replicas},
    });
    Request::send(Method::PUT, path::subresource(kind, key, "scale"), JSON, body.to_string())
}

/// The eviction of a pod. A refusal by a disruption budget (429) is an answer, not a reason to ask
/// again: the controller decides when.
pub(crate) fn evict(pods: Kind, pod: &ObjectKey, uid: &str) -> Request {
    let body = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": uid}},
    });
    let path = path::subresource(pods, pod, "eviction");
    Request::send(Method::POST, path, JSON, body.to_string()).with(Again::Never)
}

/// An update as the patches that make it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    kind: Kind,
    key: ObjectKey,
    uid: String,
    /// The version the write insists on.
    pub(crate) version: Option<String>,
    /// What is to be patched, in order: the subresource (empty for the object itself) and the
    /// change. None if nothing is different.
    pub(crate) patches: Vec<(&'static str, Map<String, Value>)>,
}

impl Update {
    /// The update that makes `part` of `object` out of `base`, the version that was last seen.
    pub(crate) fn new(base: &Object, object: &dyn Typed, part: Part) -> Self {
        let mut update = Self {
            kind: object.kind(),
            key: ObjectKey::of(object.meta()),
            uid: base.uid().to_owned(),
            version: object.meta().resource_version.clone().filter(|version| !version.is_empty()),
            patches: Vec::new(),
        };
        let mut change = change(base, object);
        let status = if update.kind.has_status_apart() { change.remove("status") } else { None };
        let lifts_last_finalizer = base.header().deleting.is_some()
            && object.meta().finalizers.as_ref().is_none_or(Vec::is_empty);
        if !matches!(part, Part::Status | Part::Approval) && !change.is_empty() {
            let subresource = if part == Part::Resize { "resize" } else { "" };
            update.patches.push((subresource, change));
        }
        if matches!(part, Part::Status | Part::All | Part::Approval)
            && let Some(status) = status
        {
            let change = Map::from_iter([("status".to_owned(), status)]);
            // After the last finalizer has gone there is no object left to tell the status of.
            let at = if lifts_last_finalizer { 0 } else { update.patches.len() };
            let subresource = if part == Part::Approval { "approval" } else { "status" };
            update.patches.insert(at, (subresource, change));
        }
        update
    }

    /// The request for one of the patches, on the version the one before has made.
    pub(crate) fn request(&self, subresource: &str, change: &Map<String, Value>) -> Request {
        let mut body = Value::Object(change.clone());
        if !self.uid.is_empty() {
            body["metadata"]["uid"] = json!(self.uid);
        }
        if let Some(version) = &self.version {
            body["metadata"]["resourceVersion"] = json!(version);
        }
        let path = if subresource.is_empty() {
            path::object(self.kind, &self.key)
        } else {
            path::subresource(self.kind, &self.key, subresource)
        };
        Request::send(Method::PATCH, path, MERGE_PATCH, body.to_string())
    }
}

/// What the writer changed, as the content of a merge patch.
fn change(base: &Object, object: &dyn Typed) -> Map<String, Value> {
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let raw = read(&base.json_unkept());
    // What the type makes of the base. Without it (the base does not decode, then no controller
    // has a draft of it) every field of the new object counts as changed.
    let old = base.typed_any().map_or(Value::Null, |typed| read(&typed.encode()));
    let mut new = read(&object.encode());
    // These are the server's to write; the version is a condition and goes in later.
    for field in ["resourceVersion", "uid", "generation", "creationTimestamp", "managedFields"] {
        if let Value::Object(metadata) = &mut new["metadata"] {
            match old["metadata"].get(field) {
                Some(value) => metadata.insert(field.to_owned(), value.clone()),
                None => metadata.remove(field),
            };
        }
    }
    match merge::difference(&raw, &merge::graft(&raw, &old, &new)) {
        Some(Value::Object(change)) => change,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;

    fn seen<T: wharf_model::kinds::Resource>(value: &Value) -> Object {
        let bytes = Bytes::from(value.to_string());
        Object::from_json(Kind::of::<T>(), bytes, 7).expect("an object")
    }

    fn body(request: &Request) -> Value {
        serde_json::from_slice(&request.body).expect("JSON")
    }

    fn node() -> Object {
        seen::<Node>(&json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "1"}},
            "spec": {"taints": [{"key": "k", "effect": "NoSchedule", "future": 1}], "future": true},
            "status": {"phase": "x", "future": {}}}))
    }

    #[test]
    fn an_update_is_a_patch_of_what_changed() {
        let base = node();
        let mut draft = base.draft::<Node>().expect("a node");
        draft.metadata.labels.as_mut().expect("labels").insert("b".to_owned(), "2".to_owned());
        draft.status.as_mut().expect("a status").phase = Some("y".to_owned());
        let update = Update::new(&base, &draft, Part::Main);
        assert_eq!(update.patches.len(), 1);
        let request = update.request(update.patches[0].0, &update.patches[0].1);
        assert_eq!((request.method.as_str(), request.path.as_str()), ("PATCH", "/api/v1/nodes/n"));
        assert_eq!(request.content_type, MERGE_PATCH);
        assert_eq!(
            body(&request),
            json!({"metadata": {"labels": {"b": "2"}, "uid": "u", "resourceVersion": "7"}})
        );
        let update = Update::new(&base, &draft, Part::Status);
        let request = update.request(update.patches[0].0, &update.patches[0].1);
        assert_eq!(request.path, "/api/v1/nodes/n/status");
        assert_eq!(
            body(&request),
            json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "status": {"phase": "y"}})
        );
        let both = Update::new(&base, &draft, Part::All);
        assert_eq!(both.patches.iter().map(|patch| patch.0).collect::<Vec<_>>(), ["", "status"]);
    }

    #[test]
    fn an_update_without_a_version_sets_no_condition_but_the_uid() {
        let base = node();
        let mut draft = base.draft::<Node>().expect("a node");
        draft.metadata.resource_version = None;
        draft.spec.as_mut().expect("a spec").unschedulable = Some(true);
        let update = Update::new(&base, &draft, Part::Main);
        let request = update.request("", &update.patches[0].1);
        assert_eq!(
            body(&request),
            json!({"metadata": {"uid": "u"}, "spec": {"unschedulable": true}})
        );
    }

    #[test]
    fn the_status_goes_before_the_last_finalizer() {
        let base = seen::<Pod>(&json!({"metadata": {"name": "p", "namespace": "n", "uid": "u",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"]}, "status": {}}));
        let mut draft = base.draft::<Pod>().expect("a pod");
        draft.metadata.finalizers = None;
        draft.status.get_or_insert_default().phase = Some("Failed".to_owned());
        let update = Update::new(&base, &draft, Part::All);
        assert_eq!(update.patches.iter().map(|patch| patch.0).collect::<Vec<_>>(), ["status", ""]);
        let removed = &update.patches[1].1;
        assert_eq!(removed["metadata"]["finalizers"], Value::Null);
    }

    #[test]
    fn nothing_changed_is_no_request() {
        let base = node();
        let draft = base.draft::<Node>().expect("a node");
        assert!(Update::new(&base, &draft, Part::All).patches.is_empty());
    }

    #[test]
    fn deletions_carry_their_conditions() {
        let mut delete_node = Delete::of(&node());
        delete_node.revision = Some(7);
        let request = delete(&delete_node.with_grace(0));
        assert_eq!(
            body(&request),
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
                "gracePeriodSeconds": 0, "preconditions": {"uid": "u", "resourceVersion": "7"}})
        );
    }

    #[test]
    fn bindings_and_evictions_name_the_very_pod() {
        let (pods, key) = (Kind::of::<Pod>(), ObjectKey::namespaced("shop", "web"));
        let request = bind(pods, &key, "u", "n1");
        assert_eq!(request.path, "/api/v1/namespaces/shop/pods/web/binding");
        assert_eq!(body(&request)["metadata"]["uid"], "u");
        assert_eq!(body(&request)["target"]["name"], "n1");
        assert_eq!(request.again, Again::IfNotDone);
        let request = evict(pods, &key, "u");
        assert_eq!(request.path, "/api/v1/namespaces/shop/pods/web/eviction");
        assert_eq!(body(&request)["deleteOptions"]["preconditions"]["uid"], "u");
        assert_eq!(request.again, Again::Never);
    }
}
