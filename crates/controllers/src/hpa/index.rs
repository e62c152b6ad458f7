//! Which autoscalers' selectors match a pod, without looking at all there are: ten thousand autoscalers
//! over a hundred thousand pods ask it every 15 s.
//!
//! Selectors are filed under one of the labels they ask for, as pods are under each of theirs. What
//! is found there is still held against the selector, so that a clash of hashes does no harm.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use rustc_hash::FxHashMap;
use wharf_model::object::ObjectKey;
use wharf_model::selector::Selector;
use wharf_ports::view::place;

#[derive(Debug, Default)]
pub(super) struct Index {
    /// The selectors of the autoscalers' targets, as last seen.
    selectors: FxHashMap<ObjectKey, Selector>,
    /// Autoscalers by namespace and a label that their selector asks for; those whose selector asks
    /// for no label in particular by their namespace.
    autoscalers: FxHashMap<u64, BTreeSet<ObjectKey>>,
}

impl Index {
    /// Remembers the selector of an autoscaler's target.
    pub(super) fn watch(&mut self, autoscaler: &ObjectKey, selector: Selector) {
        if self.selectors.get(autoscaler) == Some(&selector) {
            return;
        }
        self.forget(autoscaler);
        let filed = filed_under(&autoscaler.namespace, &selector);
        self.autoscalers.entry(filed).or_default().insert(autoscaler.clone());
        self.selectors.insert(autoscaler.clone(), selector);
    }

    /// Forgets an autoscaler.
    pub(super) fn forget(&mut self, autoscaler: &ObjectKey) {
        let Some(selector) = self.selectors.remove(autoscaler) else { return };
        let filed = filed_under(&autoscaler.namespace, &selector);
        if let Some(keys) = self.autoscalers.get_mut(&filed) {
            keys.remove(autoscaler);
            if keys.is_empty() {
                self.autoscalers.remove(&filed);
            }
        }
    }

    /// The autoscalers whose selectors match any of some pods of a namespace.
    pub(super) fn autoscalers_over(&self, namespace: &str, pods: &[&Pod]) -> Vec<String> {
        let mut over: BTreeSet<&ObjectKey> = BTreeSet::new();
        let loose = self.autoscalers.get(&place(namespace, "", ""));
        for pod in pods {
            let labels = &pod.metadata.labels;
            let filed = labels.iter().flatten();
            let filed = filed
                .filter_map(|(key, value)| self.autoscalers.get(&place(namespace, key, value)));
            for autoscaler in filed.chain(loose).flatten() {
                if !over.contains(autoscaler)
                    && autoscaler.namespace == namespace
                    && self.selectors.get(autoscaler).is_some_and(|it| it.matches(labels))
                {
                    over.insert(autoscaler);
                }
            }
        }
        over.into_iter().map(ObjectKey::to_string).collect()
    }
}

fn filed_under(namespace: &str, selector: &Selector) -> u64 {
    let (key, value) = selector.anchors().next().unwrap_or_default();
    place(namespace, key, value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;
    use wharf_model::kinds::Kind;
    use wharf_model::object::Object;
    use wharf_ports::cluster::Change;
    use wharf_ports::view::View;

    use super::*;

    fn object(name: u8, namespace: u8, labels: &[(u8, u8)], revision: u64) -> Arc<Object> {
        let labels: serde_json::Map<_, _> = labels
            .iter()
            .map(|(key, value)| (format!("k{key}"), json!(format!("v{value}"))))
            .collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("p{name}"), "namespace": format!("n{namespace}"), "labels": labels}
        }))
        .expect("a pod");
        Arc::new(Object::from_typed(Box::new(pod), revision))
    }

    fn labels() -> impl Strategy<Value = Vec<(u8, u8)>> {
        prop::collection::vec((0..3_u8, 0..3_u8), 0..3)
    }

    const SELECTORS: [&str; 6] =
        ["k0=v0", "k0=v1,k1=v2", "k0 in (v0,v1)", "!k2", "k1 in (v1)", "k2"];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The index finds what a look at everything finds.
        #[test]
        fn finds_what_a_scan_finds(
            changes in prop::collection::vec((0..6_u8, 0..2_u8, prop::option::of(labels())), 1..30),
        ) {
            let (mut view, mut index) = (View::new(), Index::default());
            for (number, selector) in SELECTORS.iter().enumerate() {
                for namespace in ["n0", "n1"] {
                    let key = ObjectKey::namespaced(namespace, format!("h{number}"));
                    index.watch(&key, Selector::parse(selector).expect("a selector"));
                }
            }
            index.forget(&ObjectKey::namespaced("n0", "h5"));
            for (at, (name, namespace, labels)) in changes.into_iter().enumerate() {
                let revision = at as u64 + 1;
                let key = ObjectKey::namespaced(format!("n{namespace}"), format!("p{name}"));
                let old = view.object(Kind::of::<Pod>(), &key).cloned();
                let new = labels.map(|labels| object(name, namespace, &labels, revision));
                if old.is_none() && new.is_none() {
                    continue;
                }
                view.apply(&Change { revision, old, new });
            }
            for namespace in ["n0", "n1"] {
                let all: Vec<&Pod> = view.list_in(namespace).collect();
                for selector in SELECTORS {
                    let selector = Selector::parse(selector).expect("a selector");
                    let scanned: Vec<_> = all
                        .iter()
                        .filter(|pod| selector.matches(&pod.metadata.labels))
                        .map(|pod| pod.metadata.name.clone())
                        .collect();
                    let found = view.pods_matching(namespace, &selector);
                    let found: Vec<_> =
                        found.iter().map(|pod| Some(pod.key().name.to_string())).collect();
                    prop_assert_eq!(found, scanned);
                }
                let expected: Vec<String> = SELECTORS
                    .iter()
                    .enumerate()
                    .filter(|(number, _)| namespace == "n1" || *number != 5)
                    .filter(|(_, selector)| {
                        let selector = Selector::parse(selector).expect("a selector");
                        all.iter().any(|pod| selector.matches(&pod.metadata.labels))
                    })
                    .map(|(number, _)| format!("{namespace}/h{number}"))
                    .collect();
                prop_assert_eq!(index.autoscalers_over(namespace, &all), expected);
            }
        }
    }
}
