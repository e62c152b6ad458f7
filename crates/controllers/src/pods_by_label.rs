//! Which pods a selector matches, without looking at all there are: ten thousand autoscalers over a
//! hundred thousand pods ask it every few seconds.
//!
//! Pods are filed under each of their labels. What is found there is still held against the selector,
//! so that a clash of hashes does no harm.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use rustc_hash::{FxHashMap, FxHasher};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::selector::{Operator, Selector};
use wharf_ports::cluster::Change;
use wharf_ports::view::View;

/// The names of pods, sorted, by namespace and label.
#[derive(Debug, Default)]
pub(crate) struct PodsByLabel(FxHashMap<u64, BTreeSet<CompactString>>);

impl PodsByLabel {
    /// Takes in a change of a pod.
    pub(crate) fn take(&mut self, change: &Change) {
        let (old, new) = (change.old.as_deref(), change.new.as_deref());
        let (old, new) = (old.map(Object::header), new.map(Object::header));
        if let (Some(old), Some(new)) = (old, new)
            && old.labels == new.labels
            && old.key == new.key
        {
            return;
        }
        if let Some(old) = old {
            for (key, value) in &old.labels {
                let place = place(&old.key.namespace, key, value);
                if let Some(names) = self.0.get_mut(&place) {
                    names.remove(&old.key.name);
                    if names.is_empty() {
                        self.0.remove(&place);
                    }
                }
            }
        }
        if let Some(new) = new {
            for (key, value) in &new.labels {
                let place = place(&new.key.namespace, key, value);
                self.0.entry(place).or_default().insert(new.key.name.clone());
            }
        }
    }

    /// The pods of a namespace that a selector matches, in the order of their names.
    pub(crate) fn find<'v>(
        &self,
        view: &'v View,
        namespace: &str,
        selector: &Selector,
    ) -> Vec<&'v Arc<Object>> {
        let kind = Kind::of::<Pod>();
        if selector.is_nothing() {
            return Vec::new();
        }
        let fewest = anchors(selector)
            .map(|(key, value)| self.0.get(&place(namespace, key, value)))
            .min_by_key(|names| names.map_or(0, BTreeSet::len));
        let matches =
            |object: &&Arc<Object>| selector.matches_with(|key| object.header().label(key));
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

/// The labels, with their values, that a selector cannot match without.
pub(crate) fn anchors(selector: &Selector) -> impl Iterator<Item = (&str, &str)> {
    selector.requirements().iter().filter_map(|requirement| {
        let mut values = requirement.values();
        match (requirement.operator(), values.next(), values.next()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, Some(value), None) => {
                Some((requirement.key(), value))
            }
            _ => None,
        }
    })
}

/// Where what has a label of a namespace is filed.
pub(crate) fn place(namespace: &str, key: &str, value: &str) -> u64 {
    let mut hasher = FxHasher::default();
    (namespace, key, value).hash(&mut hasher);
    hasher.finish()
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
        let (mut view, mut index) = (View::new(), PodsByLabel::default());
        let mut change = |old: Option<&Arc<Object>>, new: Option<&Arc<Object>>, revision| {
            let change = Change { revision, old: old.cloned(), new: new.cloned() };
            view.apply(&change);
            index.take(&change);
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
