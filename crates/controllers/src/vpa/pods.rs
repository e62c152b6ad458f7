//! Which pods a selector matches, without looking at every pod of the namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::selector::{Operator, Selector};
use wharf_ports::cluster::Change;
use wharf_ports::view::View;

/// Namespace, key and value of a label.
type Label = (CompactString, CompactString, CompactString);

/// The names of pods by their labels.
#[derive(Debug, Default)]
pub(super) struct PodIndex {
    by_label: FxHashMap<Label, BTreeSet<CompactString>>,
}

impl PodIndex {
    /// Takes in a change of a pod.
    pub(super) fn observe(&mut self, change: &Change) {
        let labels = |object: &Option<Arc<Object>>| {
            object.as_ref().map(|object| object.header().labels.clone()).unwrap_or_default()
        };
        let (old, new) = (labels(&change.old), labels(&change.new));
        if old == new {
            return;
        }
        let ObjectKey { namespace, name } = change.key();
        for (key, value) in old {
            let label = (namespace.clone(), key, value);
            if let Some(names) = self.by_label.get_mut(&label) {
                names.remove(name);
                if names.is_empty() {
                    self.by_label.remove(&label);
                }
            }
        }
        for (key, value) in new {
            self.by_label.entry((namespace.clone(), key, value)).or_default().insert(name.clone());
        }
    }

    /// The pods of a namespace that a selector matches, by name.
    pub(super) fn find<'v>(
        &self,
        view: &'v View,
        namespace: &str,
        selector: &Selector,
    ) -> Vec<&'v Arc<Object>> {
        let kind = Kind::of::<Pod>();
        let matches =
            |object: &&Arc<Object>| selector.matches_with(|key| object.header().label(key));
        if selector.is_nothing() {
            return Vec::new();
        }
        let equal = selector.requirements().iter().filter(|requirement| {
            matches!(requirement.operator(), Operator::Equals | Operator::DoubleEquals)
        });
        let fewest = equal
            .filter_map(|requirement| Some((requirement.key(), requirement.values().next()?)))
            .map(|(key, value)| self.by_label.get(&(namespace.into(), key.into(), value.into())))
            .min_by_key(|names| names.map_or(0, BTreeSet::len));
        match fewest {
            None => view.objects_in(kind, namespace).filter(matches).collect(),
            Some(None) => Vec::new(),
            Some(Some(names)) => names
                .iter()
                .filter_map(|name| view.object(kind, &ObjectKey::namespaced(namespace, name)))
                .filter(matches)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, labels: &serde_json::Value, revision: u64) -> Arc<Object> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "default", "labels": labels}}),
        )
        .expect("a pod");
        Arc::new(Object::from_typed(Box::new(pod), revision))
    }

    #[test]
    fn pods_are_found_as_a_look_at_all_would_find_them() {
        let (mut view, mut index) = (View::new(), PodIndex::default());
        let mut change = |old: Option<&Arc<Object>>, new: Option<&Arc<Object>>, revision| {
            let change = Change { revision, old: old.cloned(), new: new.cloned() };
            view.apply(&change);
            index.observe(&change);
        };
        let a = pod("a", &json!({"app": "web", "tier": "x"}), 1);
        let b = pod("b", &json!({"app": "web"}), 2);
        let c = pod("c", &json!({"app": "db"}), 3);
        change(None, Some(&a), 1);
        change(None, Some(&b), 2);
        change(None, Some(&c), 3);
        let moved = pod("b", &json!({"app": "db"}), 4);
        change(Some(&b), Some(&moved), 4);
        change(Some(&c), None, 5);
        for (selector, expected) in [
            ("app=web", vec!["a"]),
            ("app=db", vec!["b"]),
            ("app=web,tier=x", vec!["a"]),
            ("app in (web,db)", vec!["a", "b"]),
            ("app", vec!["a", "b"]),
            ("app=none", vec![]),
        ] {
            let selector = Selector::parse(selector).expect("a selector");
            let found = index.find(&view, "default", &selector);
            let names: Vec<&str> = found.iter().map(|pod| pod.key().name.as_str()).collect();
            assert_eq!(names, expected, "{selector}");
        }
        assert!(index.find(&view, "default", &Selector::NOTHING).is_empty());
    }
}
