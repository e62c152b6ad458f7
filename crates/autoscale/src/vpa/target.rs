//! Whose pods an autoscaler is about: its target's selector, the topmost controller of a pod, and
//! which of several autoscalers has the say.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::selector::Selector;
use wharf_model::vpa::{TargetRef, VerticalPodAutoscaler};

/// Finds objects.
pub type Lookup<'a> = dyn Fn(Kind, &ObjectKey) -> Option<Arc<Object>> + 'a;

/// Controllers that upstream knows without asking for a scale.
const WELL_KNOWN: [&str; 7] = [
    "DaemonSet",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "ReplicationController",
    "Job",
    "CronJob",
];
/// A longer chain of owners than this is taken to bite its own tail.
const OWNERS_MAX: usize = 32;

/// A controller in some namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Controller {
    /// Its kind.
    pub kind: CompactString,
    /// Its name.
    pub name: CompactString,
}

impl Controller {
    /// The target of an autoscaler.
    pub fn of(target: &TargetRef) -> Self {
        Self { kind: target.kind.as_str().into(), name: target.name.as_str().into() }
    }

    /// The controller of an object.
    pub fn above(object: &Object) -> Option<Self> {
        let owner = object.header().controller()?;
        Some(Self { kind: owner.kind.clone(), name: owner.name.clone() })
    }

    fn is_well_known(&self) -> bool {
        WELL_KNOWN.contains(&self.kind.as_str())
    }
}

/// The selector of an autoscaler's target; or why there is none, as the condition
/// `ConfigUnsupported` tells it.
///
/// # Errors
/// The condition's message.
pub fn selector(
    autoscaler: &VerticalPodAutoscaler,
    namespace: &str,
    lookup: &Lookup<'_>,
) -> Result<Selector, String> {
    let Some(target) = &autoscaler.spec.target_ref else {
        return Err("Cannot read targetRef. Reason: targetRef not defined".to_owned());
    };
    let selector = selector_of(target, namespace, lookup)
        .map_err(|reason| format!("Cannot read targetRef. Reason: {reason}"))?;
    let version = target.api_version.as_deref().unwrap_or_default();
    let shown = format!("{version}.{}/{}", target.kind, target.name);
    let own = Controller::of(target);
    match topmost(&own, namespace, lookup) {
        Ok(Some(top)) if top == own => Ok(selector),
        Ok(Some(_)) => Err(format!(
            "The target {shown} has a parent controller but it should point to a topmost well-known or scalable controller"
        )),
        Ok(None) => Err(format!(
            "Unknown error during checking if target {shown} is a topmost well-known or scalable controller"
        )),
        Err(error) => Err(format!(
            "Error checking if target {shown} is a topmost well-known or scalable controller: {error}"
        )),
    }
}

fn selector_of(
    target: &TargetRef,
    namespace: &str,
    lookup: &Lookup<'_>,
) -> Result<Selector, String> {
    let (kind, name) = (&target.kind, &target.name);
    let own = Controller::of(target);
    if !own.is_well_known() {
        let version = target.api_version.as_deref().unwrap_or_default();
        let error = if Kind::by_kind(target.group(), kind).is_some() {
            "the server could not find the requested resource".to_owned()
        } else {
            format!("no matches for kind {kind:?} in group {:?}", target.group())
        };
        return Err(format!("Unhandled targetRef {version} / {kind} / {name}, last error {error}"));
    }
    let object = find(&own, namespace, lookup)
        .ok_or_else(|| format!("{kind} {namespace}/{name} does not exist"))?;
    let selector = if let Some(deployment) = object.typed::<Deployment>() {
        Selector::from_api(deployment.spec.as_ref().map(|spec| &spec.selector))
    } else if let Some(set) = object.typed::<ReplicaSet>() {
        Selector::from_api(set.spec.as_ref().map(|spec| &spec.selector))
    } else if let Some(set) = object.typed::<StatefulSet>() {
        Selector::from_api(set.spec.as_ref().map(|spec| &spec.selector))
    } else if let Some(old) = object.typed::<ReplicationController>() {
        let labels = old.spec.as_ref().and_then(|spec| spec.selector.clone());
        Ok(Selector::from_map(&labels.unwrap_or_default()))
    } else {
        return Err(format!("Failed to parse {kind} {namespace}/{name}"));
    };
    selector.map_err(|error| error.to_string())
}

fn find(controller: &Controller, namespace: &str, lookup: &Lookup<'_>) -> Option<Arc<Object>> {
    let group = if controller.kind == "ReplicationController" { "" } else { "apps" };
    let kind = Kind::by_kind(group, &controller.kind)?;
    lookup(kind, &ObjectKey::namespaced(namespace, &controller.name))
}

/// The topmost controller above `controller`, itself included, that upstream knows. `None` if there
/// is none.
///
/// # Errors
/// If an owner is not there, or of a kind that nobody knows.
pub fn topmost(
    controller: &Controller,
    namespace: &str,
    lookup: &Lookup<'_>,
) -> Result<Option<Controller>, String> {
    let mut found = None;
    let mut next = Some(controller.clone());
    for _ in 0..OWNERS_MAX {
        let Some(own) = next else { return Ok(found) };
        if !own.is_well_known() {
            // Nothing else here has a scale, nor an owner that could be asked for through one.
            return Ok(found);
        }
        let object = find(&own, namespace, lookup)
            .ok_or_else(|| format!("{} {namespace}/{} does not exist", own.kind, own.name))?;
        found = Some(own);
        next = Controller::above(&object);
    }
    Err("Cycle detected in ownership chain".to_owned())
}

/// Which of two autoscalers of the same pods has the say: the older one, then the one that comes
/// first by name.
pub fn precedence(autoscaler: &Object) -> (i64, &str) {
    (autoscaler.header().created.as_nanos(), autoscaler.key().name.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wharf_model::vpa::VerticalPodAutoscaler;

    use super::*;

    fn object(value: Value) -> Arc<Object> {
        let group = value["apiVersion"].as_str().and_then(|v| v.split_once('/'));
        let kind =
            Kind::by_kind(group.map_or("", |(group, _)| group), value["kind"].as_str().unwrap());
        let typed = (kind.unwrap().decode)(value.to_string().as_bytes()).unwrap();
        Arc::new(Object::from_typed(typed, 1))
    }

    fn workload(kind: &str, name: &str, owner: Option<(&str, &str)>) -> Arc<Object> {
        let owners: Vec<Value> = owner
            .map(|(kind, name)| {
                json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "controller": true})
            })
            .into_iter()
            .collect();
        object(json!({"apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "default", "ownerReferences": owners},
            "spec": {"selector": {"matchLabels": {"app": name}}, "replicas": 1,
                "serviceName": "", "template": {}}}))
    }

    fn check(target: Value, expected: Result<&str, &str>) {
        let objects = [
            workload("Deployment", "web", None),
            workload("ReplicaSet", "web-1", Some(("Deployment", "web"))),
            workload("ReplicaSet", "lost", Some(("Deployment", "gone"))),
            workload("ReplicaSet", "odd", Some(("Rollout", "web"))),
            workload("StatefulSet", "db", None),
        ];
        let lookup = |kind: Kind, key: &ObjectKey| {
            objects.iter().find(|object| object.kind() == kind && object.key() == key).cloned()
        };
        let autoscaler: VerticalPodAutoscaler =
            serde_json::from_value(json!({"spec": {"targetRef": target}})).unwrap();
        let found = selector(&autoscaler, "default", &lookup).map(|selector| selector.to_string());
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }

    fn target(kind: &str, name: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": kind, "name": name})
    }

    #[test]
    fn targets_are_topmost_controllers() {
        check(target("Deployment", "web"), Ok("app=web"));
        check(target("StatefulSet", "db"), Ok("app=db"));
        check(target("ReplicaSet", "odd"), Ok("app=odd"));
        check(
            target("ReplicaSet", "web-1"),
            Err(
                "The target apps/v1.ReplicaSet/web-1 has a parent controller but it should point to a topmost well-known or scalable controller",
            ),
        );
        check(
            target("ReplicaSet", "lost"),
            Err(
                "Error checking if target apps/v1.ReplicaSet/lost is a topmost well-known or scalable controller: Deployment default/gone does not exist",
            ),
        );
        check(
            target("Deployment", "gone"),
            Err("Cannot read targetRef. Reason: Deployment default/gone does not exist"),
        );
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "name": "p"}),
            Err(
                "Cannot read targetRef. Reason: Unhandled targetRef v1 / Pod / p, last error the server could not find the requested resource",
            ),
        );
        check(
            json!({"apiVersion": "argoproj.io/v1", "kind": "Rollout", "name": "r"}),
            Err(
                "Cannot read targetRef. Reason: Unhandled targetRef argoproj.io/v1 / Rollout / r, last error no matches for kind \"Rollout\" in group \"argoproj.io\"",
            ),
        );
    }
}
