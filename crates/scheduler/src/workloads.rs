//! Services and the controllers of pods, as far as scheduling looks at them: from their selectors
//! comes the selector of the default topology spread constraints.
//!
//! Rule: the selectors of all Services that select the pod, and that of the ReplicationController,
//! ReplicaSet or StatefulSet which controls it, are put together. An owner that is not known adds
//! nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use rustc_hash::FxHashMap;

use crate::selector::Selector;
use crate::symbols::{Labels, Symbol, Symbols, label};

/// The kinds of controllers whose selectors count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// `v1` ReplicationController.
    ReplicationController,
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `apps/v1` StatefulSet.
    StatefulSet,
}

/// The controller of a pod, in the pod's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its kind.
    pub kind: OwnerKind,
    /// Its name.
    pub name: Symbol,
}

impl Owner {
    /// The controller that a pod names, if it is of one of the kinds that count.
    pub fn of(pod: &Pod, symbols: &mut Symbols) -> Option<Self> {
        let mut owners = pod.metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true))?;
        let kind = match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => OwnerKind::ReplicationController,
            ("apps/v1", "ReplicaSet") => OwnerKind::ReplicaSet,
            ("apps/v1", "StatefulSet") => OwnerKind::StatefulSet,
            _ => return None,
        };
        Some(Self { kind, name: symbols.intern(&owner.name) })
    }
}

/// The selector of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnerSelector {
    /// Labels, as a ReplicationController has them.
    Labels(Labels),
    /// A label selector.
    Selector(Selector),
}

/// Services and controllers by namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workloads {
    /// The selectors of Services that have one, by name.
    services: FxHashMap<Symbol, BTreeMap<Symbol, Labels>>,
    owners: FxHashMap<(Symbol, Owner), OwnerSelector>,
}

impl Workloads {
    /// Takes in a Service as it is now; one without selector selects nothing. Returns whether that
    /// is news.
    pub(crate) fn set_service(
        &mut self,
        namespace: Symbol,
        name: Symbol,
        selector: Labels,
    ) -> bool {
        if selector.is_empty() {
            return self.remove_service(namespace, name);
        }
        let services = self.services.entry(namespace).or_default();
        let old = services.insert(name, selector);
        old.as_ref() != services.get(&name)
    }

    /// Forgets a Service. Returns whether it was known.
    pub(crate) fn remove_service(&mut self, namespace: Symbol, name: Symbol) -> bool {
        let services = self.services.get_mut(&namespace);
        services.is_some_and(|services| services.remove(&name).is_some())
    }

    /// Takes in a controller as it is now. Returns whether that is news.
    pub(crate) fn set_owner(
        &mut self,
        namespace: Symbol,
        owner: Owner,
        selector: OwnerSelector,
    ) -> bool {
        let old = self.owners.insert((namespace, owner), selector);
        old.as_ref() != self.owners.get(&(namespace, owner))
    }

    /// Forgets a controller. Returns whether it was known.
    pub(crate) fn remove_owner(&mut self, namespace: Symbol, owner: Owner) -> bool {
        self.owners.remove(&(namespace, owner)).is_some()
    }

    /// The selector by which pods like this one are spread by default; `None` if nothing selects
    /// it: then it is not spread.
    pub(crate) fn default_selector(
        &self,
        namespace: Symbol,
        labels: &[(Symbol, Symbol)],
        owner: Option<Owner>,
    ) -> Option<Selector> {
        let services = self.services.get(&namespace).into_iter().flat_map(BTreeMap::values);
        let matching = services.filter(|selector| {
            selector.iter().all(|(key, value)| label(labels, *key) == Some(*value))
        });
        let mut pairs: BTreeMap<Symbol, Symbol> =
            matching.flat_map(|selector| selector.iter().copied()).collect();
        let mut requirements = None;
        match owner.and_then(|owner| self.owners.get(&(namespace, owner))) {
            // A controller that names other labels than the pod has wins over the Services.
            Some(OwnerSelector::Labels(own)) => pairs.extend(own.iter().copied()),
            Some(OwnerSelector::Selector(own)) => requirements = Some(own),
            None => {}
        }
        let selector = Selector::of_labels(pairs).and(requirements);
        (!selector.is_everything()).then_some(selector)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::pod;

    #[test]
    fn only_the_managing_owner_of_a_known_kind_counts() {
        let mut symbols = Symbols::default();
        let mut owner = |api: &str, kind: &str, controller: bool| {
            let mut pod = pod("p", json!({}));
            pod.metadata.owner_references = serde_json::from_value(json!([
                {"apiVersion": api, "kind": kind, "name": "o", "uid": "u", "controller": controller}
            ]))
            .unwrap();
            Owner::of(&pod, &mut symbols).map(|owner| owner.kind)
        };
        assert_eq!(owner("apps/v1", "ReplicaSet", true), Some(OwnerKind::ReplicaSet));
        assert_eq!(
            owner("v1", "ReplicationController", true),
            Some(OwnerKind::ReplicationController)
        );
        assert_eq!(owner("apps/v1", "ReplicaSet", false), None);
        assert_eq!(owner("apps/v1", "DaemonSet", true), None);
        assert_eq!(owner("example.com/v1", "ReplicaSet", true), None);
    }

    #[test]
    fn services_and_owner_are_put_together() {
        let mut symbols = Symbols::default();
        let mut labels = |pairs: &[(&str, &str)]| -> Labels {
            let mut pairs: Vec<_> = pairs
                .iter()
                .map(|(key, value)| (symbols.intern(key), symbols.intern(value)))
                .collect();
            pairs.sort_unstable();
            pairs.into()
        };
        let own = labels(&[("app", "a"), ("hash", "1"), ("tier", "web")]);
        let (app, tier, other, hash) = (
            labels(&[("app", "a")]),
            labels(&[("tier", "web")]),
            labels(&[("app", "b")]),
            labels(&[("hash", "1")]),
        );
        let without_tier = labels(&[("app", "a"), ("hash", "1")]);
        let [namespace, name, second] = ["default", "s", "t"].map(|text| symbols.intern(text));
        let mut workloads = Workloads::default();
        let owner = Owner { kind: OwnerKind::ReplicationController, name };
        let selector =
            |workloads: &Workloads| workloads.default_selector(namespace, &own, Some(owner));
        assert_eq!(selector(&workloads), None, "an unknown owner adds nothing");
        assert!(workloads.set_service(namespace, name, other));
        assert_eq!(selector(&workloads), None, "a service of other pods neither");
        assert!(workloads.set_service(namespace, name, app.clone()));
        assert!(!workloads.set_service(namespace, name, app));
        let one = selector(&workloads).unwrap();
        assert!(one.matches(&without_tier, &symbols));
        assert!(workloads.set_service(namespace, second, tier));
        assert!(workloads.set_owner(namespace, owner, OwnerSelector::Labels(hash)));
        let all = selector(&workloads).unwrap();
        assert!(all.matches(&own, &symbols) && !all.matches(&without_tier, &symbols));
        assert!(workloads.remove_service(namespace, second));
        assert!(selector(&workloads).unwrap().matches(&without_tier, &symbols));
        assert!(workloads.set_service(namespace, name, Labels::default()), "no selector any more");
        assert!(workloads.remove_owner(namespace, owner));
        assert_eq!(selector(&workloads), None);
    }
}
