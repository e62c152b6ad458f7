//! Which pods a selector matches, without looking at all there are: ten thousand autoscalers and
//! Services over a hundred thousand pods ask it every few seconds.
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
use wharf_model::selector::Selector;

use super::View;

/// The names of pods, sorted, by namespace and label.
#[derive(Clone, Debug, Default)]
pub(super) struct PodsByLabel(FxHashMap<u64, BTreeSet<CompactString>>);

impl PodsByLabel {
    pub(super) fn add(&mut self, pod: &Object) {
        let header = pod.header();
        for (key, value) in &header.labels {
            let place = place(&header.key.namespace, key, value);
            self.0.entry(place).or_default().insert(header.key.name.clone());
        }
    }

    pub(super) fn remove(&mut self, pod: &Object) {
        let header = pod.header();
        for (key, value) in &header.labels {
            let place = place(&header.key.namespace, key, value);
            if let Some(names) = self.0.get_mut(&place) {
                names.remove(&header.key.name);
                if names.is_empty() {
                    self.0.remove(&place);
                }
            }
        }
    }
}

impl View {
    /// The pods of a namespace that a selector matches, in the order of their names.
    pub fn pods_matching(&self, namespace: &str, selector: &Selector) -> Vec<&Arc<Object>> {
        let kind = Kind::of::<Pod>();
        if selector.is_nothing() {
            return Vec::new();
        }
        let fewest = selector
            .anchors()
            .map(|(key, value)| self.pods_by_label.0.get(&place(namespace, key, value)))
            .min_by_key(|names| names.map_or(0, BTreeSet::len));
        let matches =
            |object: &&Arc<Object>| selector.matches_with(|key| object.header().label(key));
        match fewest {
            None => self.objects_in(kind, namespace).filter(matches).collect(),
            Some(None) => Vec::new(),
            Some(Some(names)) => names
                .iter()
                .filter_map(|name| self.object(kind, &ObjectKey::namespaced(namespace, name)))
                .filter(matches)
                .collect(),
        }
    }
}

/// Where what has a label of a namespace is filed.
pub fn place(namespace: &str, key: &str, value: &str) -> u64 {
    let mut hasher = FxHasher::default();
    (namespace, key, value).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::Change;

    fn pod(name: &str, labels: &serde_json::Value, revision: u64) -> Arc<Object> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "default", "labels": labels}}),
        )
        .expect("a pod");
        Arc::new(Object::from_typed(Box::new(pod), revision))
    }

    #[test]
    fn pods_are_found_as_a_look_at_all_would_find_them() {
        let mut view = View::new();
        let mut change = |old: Option<&Arc<Object>>, new: Option<&Arc<Object>>, revision| {
            let change = Change { revision, old: old.cloned(), new: new.cloned() };
            view.apply(&change);
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
            let found = view.pods_matching("default", &selector);
            let names: Vec<&str> = found.iter().map(|pod| pod.key().name.as_str()).collect();
            assert_eq!(names, expected, "{selector}");
        }
        assert!(view.pods_matching("default", &Selector::NOTHING).is_empty());
    }
}
