//! Namespaces being deleted: everything in them goes first, then the `kubernetes` finalizer
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/>).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use wharf_model::kinds::{Kind, built_in};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;

/// The finalizer in a namespace's spec.
const FINALIZER: &str = "kubernetes";
/// The most deletions in one step.
const BATCH: usize = 500;
/// How long deletions are given before what is still there is asked for again.
const RETRY: Duration = Duration::from_secs(5);

/// The namespace controller.
#[derive(Debug, Default)]
pub struct NamespaceController;

impl NamespaceController {
    fn empty(namespace: &Namespace, name: &str, context: &Context<'_>) -> Step {
        let mut step = Step::done();
        let mut remaining: Vec<(Kind, usize)> = Vec::new();
        for kind in built_in().iter().copied().filter(|kind| kind.namespaced) {
            let mut count = 0;
            for object in context.view.objects_in(kind, name) {
                count += 1;
                if object.header().deleting.is_none() && step.writes.len() < BATCH {
                    step.write(Write::Delete(Delete::of(object)));
                }
            }
            if count > 0 {
                remaining.push((kind, count));
            }
        }
        if remaining.is_empty() {
            step.write(finalized(namespace));
            return step;
        }
        // One that is gone already is no reason to leave the others.
        step.independent = true;
        step.again = Some(RETRY);
        let finalizers = held_by(context.view, name);
        step.writes.extend(report(namespace, &remaining, &finalizers, context.now));
        step
    }
}

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<Namespace>();
        if change.kind() == kind {
            if is_terminating(change.object()) {
                queue.now(WorkKey::object(kind, change.key()));
            }
        } else if !change.key().namespace.is_empty() {
            let key = ObjectKey::cluster(&change.key().namespace);
            let gone_or_new = change.new.is_none() || change.old.is_none();
            if gone_or_new && view.object(kind, &key).is_some_and(|object| is_terminating(object)) {
                // Many objects go at once: they are looked at together.
                queue.after(WorkKey::object(kind, &key), Duration::from_millis(50));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<Namespace>(), &key.key);
        let Some(object) = object.filter(|object| is_terminating(object)) else {
            return Step::done();
        };
        let Some(namespace) = object.typed::<Namespace>() else { return Step::done() };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
        if !finalizers.is_some_and(|list| list.iter().any(|one| one == FINALIZER)) {
            return Step::done();
        }
        Self::empty(namespace, &key.key.name, context)
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

fn is_terminating(object: &Object) -> bool {
    object.header().deleting.is_some()
}

/// The namespace without the finalizer, on condition that it is as it was seen.
fn finalized(namespace: &Namespace) -> Write {
    let mut namespace = namespace.clone();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|one| one != FINALIZER);
    }
    // The spec of a namespace changes with the rest or, as upstream's `finalize`, not at all.
    Write::Update { object: Box::new(namespace), part: Part::All }
}

/// Finalizers that hold pods of the namespace, with how many each.
fn held_by(view: &View, name: &str) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for pod in view.list_in::<Pod>(name) {
        for finalizer in pod.metadata.finalizers.iter().flatten() {
            *counts.entry(finalizer.clone()).or_default() += 1;
        }
    }
    counts.into_iter().collect()
}

/// Says in the status what is still there, if that is news.
fn report(
    namespace: &Namespace,
    remaining: &[(Kind, usize)],
    finalizers: &[(String, usize)],
    now: Time,
) -> Option<Write> {
    let list = |items: Vec<String>| items.join(", ");
    let resources = list(
        remaining
            .iter()
            .map(|(kind, count)| format!("{} has {count} resource instances", resource(*kind)))
            .collect(),
    );
    let holders = list(
        finalizers.iter().map(|(name, n)| format!("{name} in {n} resource instances")).collect(),
    );
    let content = format!("Some resources are remaining: {resources}");
    let held = format!("Some content in the namespace has finalizers remaining: {holders}");
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        (
            "NamespaceDeletionContentFailure",
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".to_owned(),
        ),
        ("NamespaceContentRemaining", "True", "SomeResourcesRemain", content),
        if finalizers.is_empty() {
            (
                "NamespaceFinalizersRemaining",
                "False",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            )
        } else {
            ("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", held)
        },
    ];
    let old = namespace.status.as_ref().and_then(|status| status.conditions.clone());
    let old = old.unwrap_or_default();
    let conditions: Vec<NamespaceCondition> = rows
        .into_iter()
        .map(|(type_, status, reason, message)| {
            let before = old.iter().find(|c| c.type_ == type_ && c.status == status);
            NamespaceCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: before
                    .and_then(|before| before.last_transition_time.clone())
                    .or_else(|| Some(now.to_meta())),
            }
        })
        .collect();
    if old == conditions {
        return None;
    }
    let mut namespace = namespace.clone();
    namespace.metadata.resource_version = None;
    let status = namespace.status.get_or_insert_default();
    status.phase = Some("Terminating".to_owned());
    status.conditions = Some(conditions);
    Some(Write::Update { object: Box::new(namespace), part: Part::Status })
}

/// `pods.`, `deployments.apps`: upstream writes the core group's resources with a final dot.
fn resource(kind: Kind) -> String {
    format!("{}.{}", kind.plural, kind.group)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;
    use crate::workloads::harness::World;
    use wharf_ports::cluster::Propagation;

    fn world() -> World {
        let mut world = World::new(vec![Box::new(NamespaceController)]);
        for name in ["team", "teams"] {
            world.apply(json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]}}));
            world.apply(json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "c", "namespace": name}}));
            world.apply(json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "namespace": name},
                "spec": {"containers": [], "nodeName": "n"}}));
        }
        world.run_for(Duration::from_secs(1));
        world
    }

    #[test]
    fn a_namespace_goes_after_its_content() {
        let mut world = world();
        assert_eq!(world.writes, 0);
        world.delete::<Namespace>(&ObjectKey::cluster("team"), Propagation::Background);
        world.run_for(Duration::from_secs(20));
        assert!(world.get::<ConfigMap>("team", "c").is_none());
        let namespace = world.get::<Namespace>("", "team").expect("a pod is still there");
        let conditions = namespace.status.clone().and_then(|s| s.conditions).expect("conditions");
        assert_eq!(
            conditions[3].message.as_deref(),
            Some("Some resources are remaining: pods. has 1 resource instances")
        );
        let writes = world.writes;
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.writes, writes);
        world.kubelet("n");
        world.run_for(Duration::from_secs(1));
        assert!(world.get::<Namespace>("", "team").is_none());
        assert!(world.get::<Namespace>("", "teams").is_some());
        assert!(world.get::<ConfigMap>("teams", "c").is_some());
    }
}
