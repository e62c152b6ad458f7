//! The cached world that decisions read: every object the cluster has told of, with the indexes
//! that decisions need. Changed only by applying changes in order.

mod labels;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Pod};
use rustc_hash::FxHashMap;
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::{Object, ObjectKey, Revision};

use crate::cluster::Change;
use labels::PodsByLabel;
pub use labels::place;

type Objects = BTreeMap<ObjectKey, Arc<Object>>;

/// The cached world. Iteration is always in the order of keys.
#[derive(Clone, Debug, Default)]
pub struct View {
    kinds: Vec<Objects>,
    by_owner: FxHashMap<CompactString, BTreeSet<(Kind, ObjectKey)>>,
    pods_by_node: FxHashMap<CompactString, BTreeSet<ObjectKey>>,
    pods_by_label: PodsByLabel,
    nodes_by_provider_id: FxHashMap<CompactString, BTreeSet<ObjectKey>>,
    /// Per kind, the newest change applied: each kind is one ordered stream.
    revisions: Vec<Revision>,
    /// The newest object of any kind that came with a first listing: of changes after it, none can
    /// be older than what is held.
    loaded: Revision,
}

impl View {
    /// An empty world.
    pub fn new() -> Self {
        Self::default()
    }

    /// The revision of the newest change applied.
    pub fn revision(&self) -> Revision {
        self.revisions.iter().copied().max().unwrap_or_default()
    }

    /// Takes in an object as a first listing tells it, before any change is applied.
    pub fn load(&mut self, object: Arc<Object>) {
        self.loaded = self.loaded.max(object.revision());
        self.replace(object.kind(), &object.key().clone(), Some(object));
    }

    /// Brings the world up to date with one change. A change that is not newer than what was
    /// already applied for its kind does nothing; returns whether the change was applied.
    pub fn apply(&mut self, change: &Change) -> bool {
        let kind = change.kind();
        if self.revisions.len() <= kind.index {
            self.revisions.resize(kind.index + 1, 0);
        }
        if change.revision <= self.revisions[kind.index] {
            return false;
        }
        if change.revision <= self.loaded
            && self.object(kind, change.key()).is_some_and(|it| change.revision <= it.revision())
        {
            return false;
        }
        self.revisions[kind.index] = change.revision;
        self.replace(kind, change.key(), change.new.clone());
        true
    }

    fn replace(&mut self, kind: Kind, key: &ObjectKey, new: Option<Arc<Object>>) {
        let objects = self.objects_mut(kind);
        let old = match &new {
            Some(new) => objects.insert(key.clone(), Arc::clone(new)),
            None => objects.remove(key),
        };
        match (old, new) {
            // Most changes are of what no index is about.
            (Some(old), Some(new)) if are_indexed_alike(&old, &new) => {}
            (old, new) => {
                old.iter().for_each(|old| self.unindex(old));
                new.iter().for_each(|new| self.index(new));
            }
        }
    }

    /// An object of any kind.
    pub fn object(&self, kind: Kind, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.kinds.get(kind.index)?.get(key)
    }

    /// An object's typed form. `None` also for one that does not decode: it is set aside.
    pub fn get<T: Resource>(&self, key: &ObjectKey) -> Option<&T> {
        self.object(T::kind(), key)?.typed()
    }

    /// A cluster-scoped object's typed form.
    pub fn get_cluster<T: Resource>(&self, name: &str) -> Option<&T> {
        self.get(&ObjectKey::cluster(name))
    }

    /// All objects of a kind.
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.kinds.get(kind.index).into_iter().flat_map(BTreeMap::values)
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.kinds.get(kind.index).map_or(0, BTreeMap::len)
    }

    /// All objects of a kind, typed.
    pub fn list<T: Resource>(&self) -> impl Iterator<Item = &T> {
        self.objects(T::kind()).filter_map(|object| object.typed())
    }

    /// The objects of a kind in one namespace.
    pub fn objects_in(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        let first = ObjectKey { namespace: namespace.into(), name: CompactString::default() };
        let namespace = first.namespace.clone();
        self.kinds
            .get(kind.index)
            .into_iter()
            .flat_map(move |objects| objects.range(first.clone()..))
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The objects of a kind in one namespace whose names are not before `name`.
    pub fn objects_from(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = &Arc<Object>> {
        let first = ObjectKey::namespaced(namespace, name);
        let namespace = first.namespace.clone();
        self.kinds
            .get(kind.index)
            .into_iter()
            .flat_map(move |objects| objects.range(first.clone()..))
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The objects of a kind in one namespace, typed.
    pub fn list_in<T: Resource>(&self, namespace: &str) -> impl Iterator<Item = &T> {
        self.objects_in(T::kind(), namespace).filter_map(|object| object.typed())
    }

    /// Objects of one kind that name `uid` as an owner.
    pub fn owned_by(&self, uid: &str, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.dependents(uid).filter(move |object| object.kind() == kind)
    }

    /// Objects of every kind that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.by_owner
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|(kind, key)| self.object(*kind, key))
    }

    /// Pods bound to a node, finished ones included.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Object>> {
        let kind = Kind::of::<Pod>();
        self.pods_by_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(move |key| self.object(kind, key))
    }

    /// Nodes with a provider id (`aws:///us-east-1a/i-…`). Normally one.
    pub fn nodes_with_provider_id(&self, provider_id: &str) -> impl Iterator<Item = &Arc<Object>> {
        let kind = Kind::of::<Node>();
        self.nodes_by_provider_id
            .get(provider_id)
            .into_iter()
            .flatten()
            .filter_map(move |key| self.object(kind, key))
    }

    fn objects_mut(&mut self, kind: Kind) -> &mut Objects {
        if self.kinds.len() <= kind.index {
            self.kinds.resize_with(kind.index + 1, BTreeMap::new);
        }
        &mut self.kinds[kind.index]
    }

    fn index(&mut self, object: &Arc<Object>) {
        let (kind, key) = (object.kind(), object.key());
        for owner in &object.header().owners {
            self.by_owner.entry(owner.uid.clone()).or_default().insert((kind, key.clone()));
        }
        if kind == Kind::of::<Pod>() {
            self.pods_by_label.add(object);
        }
        if let Some(node) = node_of(object) {
            self.pods_by_node.entry(node.into()).or_default().insert(key.clone());
        } else if let Some(id) = provider_id_of(object) {
            self.nodes_by_provider_id.entry(id.into()).or_default().insert(key.clone());
        }
    }

    fn unindex(&mut self, object: &Arc<Object>) {
        for owner in &object.header().owners {
            let entry = (object.kind(), object.key().clone());
            remove(&mut self.by_owner, &owner.uid, &entry);
        }
        if object.kind() == Kind::of::<Pod>() {
            self.pods_by_label.remove(object);
        }
        if let Some(node) = node_of(object) {
            remove(&mut self.pods_by_node, node, object.key());
        } else if let Some(id) = provider_id_of(object) {
            remove(&mut self.nodes_by_provider_id, id, object.key());
        }
    }
}

/// Whether every index has the same entries for two versions of an object.
fn are_indexed_alike(old: &Object, new: &Object) -> bool {
    old.header().owners == new.header().owners
        && node_of(old) == node_of(new)
        && provider_id_of(old) == provider_id_of(new)
        && (old.kind() != Kind::of::<Pod>() || old.header().labels == new.header().labels)
}

fn remove<V: Ord>(map: &mut FxHashMap<CompactString, BTreeSet<V>>, key: &str, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

fn node_of(object: &Object) -> Option<&str> {
    if object.kind() != Kind::of::<Pod>() {
        return None;
    }
    let node = object.typed::<Pod>()?.spec.as_ref()?.node_name.as_deref()?;
    (!node.is_empty()).then_some(node)
}

fn provider_id_of(object: &Object) -> Option<&str> {
    if object.kind() != Kind::of::<Node>() {
        return None;
    }
    object.typed::<Node>()?.spec.as_ref()?.provider_id.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: Option<&str>, owner: &str, revision: Revision) -> Arc<Object> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": owner}]},
            "spec": {"containers": [], "nodeName": node}
        }))
        .expect("a valid pod");
        Arc::new(Object::from_typed(Box::new(pod), revision))
    }

    fn change(old: Option<&Arc<Object>>, new: Option<&Arc<Object>>, revision: Revision) -> Change {
        Change { revision, old: old.cloned(), new: new.cloned() }
    }

    fn names<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Vec<&'a str> {
        objects.map(|object| object.key().name.as_str()).collect()
    }

    #[test]
    fn indexes_follow_changes() {
        let mut view = View::new();
        let (pending, bound) = (pod("a", None, "rs-1", 1), pod("a", Some("n1"), "rs-1", 2));
        view.apply(&change(None, Some(&pending), 1));
        assert_eq!(names(view.pods_on("n1")), Vec::<&str>::new());
        assert_eq!(names(view.owned_by("rs-1", Kind::of::<Pod>())), ["a"]);
        view.apply(&change(Some(&pending), Some(&bound), 2));
        assert_eq!(names(view.pods_on("n1")), ["a"]);
        view.apply(&change(Some(&bound), None, 3));
        assert_eq!(names(view.pods_on("n1")), Vec::<&str>::new());
        assert_eq!(view.count(Kind::of::<Pod>()), 0);
        assert_eq!(view.revision(), 3);
    }

    #[test]
    fn repeated_and_late_changes_do_nothing() {
        let mut view = View::new();
        let (first, second) = (pod("a", None, "o", 1), pod("a", Some("n"), "o", 2));
        assert!(view.apply(&change(None, Some(&first), 1)));
        assert!(view.apply(&change(Some(&first), Some(&second), 2)));
        assert!(!view.apply(&change(None, Some(&first), 1)));
        assert!(!view.apply(&change(Some(&first), Some(&second), 2)));
        assert_eq!(names(view.pods_on("n")), ["a"]);
        assert!(view.apply(&change(Some(&second), None, 3)));
        assert!(!view.apply(&change(Some(&second), None, 3)));
        assert!(!view.apply(&change(None, Some(&first), 1)), "a late creation resurrects nothing");
    }

    #[test]
    fn a_namespace_lists_only_its_own() {
        let mut view = View::new();
        view.apply(&change(None, Some(&pod("a", None, "o", 1)), 1));
        assert_eq!(view.objects_in(Kind::of::<Pod>(), "default").count(), 1);
        assert_eq!(view.objects_in(Kind::of::<Pod>(), "defaul").count(), 0);
    }
}
