//! Workloads and PodDisruptionBudgets.

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::core::v1::{PodSpec, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use wharf_model::time::Time;

use super::{Column, age, labels, or_none, selector};

pub(super) const DEPLOYMENT: &[Column] = &[
    Column::text("Name"),
    Column::text("Ready"),
    Column::text("Up-to-date"),
    Column::text("Available"),
    Column::text("Age"),
    Column::text("Containers").wide(),
    Column::text("Images").wide(),
    Column::text("Selector").wide(),
];

pub(super) fn deployment(deployment: &Deployment, now: Time) -> Vec<Value> {
    let spec = deployment.spec.as_ref();
    let status = deployment.status.as_ref();
    let desired = spec.and_then(|spec| spec.replicas).unwrap_or_default();
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or_default();
    let (names, images) = containers(spec.and_then(|spec| spec.template.spec.as_ref()));
    vec![
        json!(deployment.metadata.name),
        json!(format!("{ready}/{desired}")),
        json!(status.and_then(|status| status.updated_replicas).unwrap_or_default()),
        json!(status.and_then(|status| status.available_replicas).unwrap_or_default()),
        json!(age(deployment.metadata.creation_timestamp.as_ref(), now)),
        json!(names),
        json!(images),
        json!(spec.map_or_else(|| "<none>".to_owned(), |spec| selector(&spec.selector))),
    ]
}

pub(super) const REPLICA_SET: &[Column] = &[
    Column::text("Name"),
    Column::number("Desired"),
    Column::number("Current"),
    Column::number("Ready"),
    Column::text("Age"),
    Column::text("Containers").wide(),
    Column::text("Images").wide(),
    Column::text("Selector").wide(),
];

pub(super) fn replica_set(set: &ReplicaSet, now: Time) -> Vec<Value> {
    let spec = set.spec.as_ref();
    let status = set.status.as_ref();
    let template = spec.and_then(|spec| spec.template.as_ref());
    let (names, images) = containers(template.and_then(|template| template.spec.as_ref()));
    vec![
        json!(set.metadata.name),
        json!(spec.and_then(|spec| spec.replicas).unwrap_or_default()),
        json!(status.map(|status| status.replicas).unwrap_or_default()),
        json!(status.and_then(|status| status.ready_replicas).unwrap_or_default()),
        json!(age(set.metadata.creation_timestamp.as_ref(), now)),
        json!(names),
        json!(images),
        json!(spec.map_or_else(|| "<none>".to_owned(), |spec| selector(&spec.selector))),
    ]
}

/// Printed like a ReplicaSet, but for the older form of selector.
pub(super) fn replication_controller(controller: &ReplicationController, now: Time) -> Vec<Value> {
    let spec = controller.spec.as_ref();
    let status = controller.status.as_ref();
    let template = spec.and_then(|spec| spec.template.as_ref());
    let (names, images) = containers(template.and_then(|template| template.spec.as_ref()));
    vec![
        json!(controller.metadata.name),
        json!(spec.and_then(|spec| spec.replicas).unwrap_or_default()),
        json!(status.map(|status| status.replicas).unwrap_or_default()),
        json!(status.and_then(|status| status.ready_replicas).unwrap_or_default()),
        json!(age(controller.metadata.creation_timestamp.as_ref(), now)),
        json!(names),
        json!(images),
        json!(labels(spec.and_then(|spec| spec.selector.as_ref()).into_iter().flatten())),
    ]
}

pub(super) const STATEFUL_SET: &[Column] = &[
    Column::text("Name"),
    Column::text("Ready"),
    Column::text("Age"),
    Column::text("Containers").wide(),
    Column::text("Images").wide(),
];

pub(super) fn stateful_set(set: &StatefulSet, now: Time) -> Vec<Value> {
    let spec = set.spec.as_ref();
    let desired = spec.and_then(|spec| spec.replicas).unwrap_or_default();
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    let (names, images) = containers(spec.and_then(|spec| spec.template.spec.as_ref()));
    vec![
        json!(set.metadata.name),
        json!(format!("{ready}/{desired}")),
        json!(age(set.metadata.creation_timestamp.as_ref(), now)),
        json!(names),
        json!(images),
    ]
}

pub(super) const DAEMON_SET: &[Column] = &[
    Column::text("Name"),
    Column::number("Desired"),
    Column::number("Current"),
    Column::number("Ready"),
    Column::number("Up-to-date"),
    Column::number("Available"),
    Column::text("Node Selector"),
    Column::text("Age"),
    Column::text("Containers").wide(),
    Column::text("Images").wide(),
    Column::text("Selector").wide(),
];

pub(super) fn daemon_set(set: &DaemonSet, now: Time) -> Vec<Value> {
    let spec = set.spec.as_ref();
    let status = set.status.clone().unwrap_or_default();
    let pods = spec.and_then(|spec| spec.template.spec.as_ref());
    let (names, images) = containers(pods);
    vec![
        json!(set.metadata.name),
        json!(status.desired_number_scheduled),
        json!(status.current_number_scheduled),
        json!(status.number_ready),
        json!(status.updated_number_scheduled.unwrap_or_default()),
        json!(status.number_available.unwrap_or_default()),
        json!(labels(pods.and_then(|pods| pods.node_selector.as_ref()).into_iter().flatten())),
        json!(age(set.metadata.creation_timestamp.as_ref(), now)),
        json!(names),
        json!(images),
        json!(spec.map_or_else(|| "<none>".to_owned(), |spec| selector(&spec.selector))),
    ]
}

pub(super) const CONTROLLER_REVISION: &[Column] = &[
    Column::text("Name"),
    Column::text("Controller"),
    Column::text("Revision"),
    Column::text("Age"),
];

pub(super) fn controller_revision(revision: &ControllerRevision, now: Time) -> Vec<Value> {
    let owners = revision.metadata.owner_references.iter().flatten();
    let controller = owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| {
        let group = owner.api_version.split_once('/').map(|(group, _)| format!(".{group}"));
        let kind = owner.kind.to_lowercase();
        format!("{kind}{}/{}", group.unwrap_or_default(), owner.name)
    });
    vec![
        json!(revision.metadata.name),
        or_none(controller.as_deref()),
        json!(revision.revision.to_string()),
        json!(age(revision.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const BUDGET: &[Column] = &[
    Column::text("Name"),
    Column::text("Min Available"),
    Column::text("Max Unavailable"),
    Column::number("Allowed Disruptions"),
    Column::text("Age"),
];

pub(super) fn budget(budget: &PodDisruptionBudget, now: Time) -> Vec<Value> {
    let spec = budget.spec.as_ref();
    let amount = |value: Option<&IntOrString>| match value {
        Some(IntOrString::Int(number)) => json!(number.to_string()),
        Some(IntOrString::String(text)) => json!(text),
        None => json!("N/A"),
    };
    vec![
        json!(budget.metadata.name),
        amount(spec.and_then(|spec| spec.min_available.as_ref())),
        amount(spec.and_then(|spec| spec.max_unavailable.as_ref())),
        json!(
            budget
                .status
                .as_ref()
                .and_then(|status| status.disruptions_allowed)
                .unwrap_or_default()
        ),
        json!(age(budget.metadata.creation_timestamp.as_ref(), now)),
    ]
}

/// The names and images of a template's containers.
pub(super) fn containers(spec: Option<&PodSpec>) -> (String, String) {
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    let images: Vec<&str> =
        containers.iter().map(|container| container.image.as_deref().unwrap_or_default()).collect();
    (names.join(","), images.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    #[test]
    fn workloads_print_as_upstreams() {
        let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [
            {"name": "a", "image": "i:1"}, {"name": "b", "image": "j:2"}]}});
        let object = |status: Value| {
            json!({
                "metadata": {"name": "w", "creationTimestamp": "2026-01-01T23:58:30Z"},
                "spec": {"replicas": 5, "selector": {"matchLabels": {"app": "x"}}, "template": template.clone()},
                "status": status,
            })
        };
        assert_eq!(
            printed(
                "Deployment",
                object(json!({"readyReplicas": 3, "updatedReplicas": 4, "availableReplicas": 2}))
            ),
            "w|3/5|4|2|90s || a,b|i:1,j:2|app=x"
        );
        assert_eq!(
            printed("ReplicaSet", object(json!({"replicas": 4, "readyReplicas": 3}))),
            "w|5|4|3|90s || a,b|i:1,j:2|app=x"
        );
        let mut old = object(json!({"replicas": 4, "readyReplicas": 3}));
        old["spec"]["selector"] = json!({"app": "x"});
        assert_eq!(printed("ReplicationController", old), "w|5|4|3|90s || a,b|i:1,j:2|app=x");
        assert_eq!(
            printed("StatefulSet", object(json!({"replicas": 4, "readyReplicas": 3}))),
            "w|3/5|90s || a,b|i:1,j:2"
        );
        let mut daemons = object(json!({"desiredNumberScheduled": 4, "currentNumberScheduled": 3,
            "numberReady": 2, "numberMisscheduled": 0, "updatedNumberScheduled": 1}));
        daemons["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        assert_eq!(printed("DaemonSet", daemons), "w|4|3|2|1|0|disk=ssd|90s || a,b|i:1,j:2|app=x");
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "w", "uid": "u", "controller": true});
        let meta = json!({"name": "w-1", "ownerReferences": [owner]});
        assert_eq!(
            printed("ControllerRevision", json!({"metadata": meta, "revision": 2})),
            "w-1|statefulset.apps/w|2|<unknown>"
        );
        assert_eq!(
            printed(
                "PodDisruptionBudget",
                json!({
                    "metadata": {"name": "b", "creationTimestamp": "2026-01-01T23:58:30Z"},
                    "spec": {"minAvailable": "50%"},
                    "status": {"disruptionsAllowed": 1, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
                })
            ),
            "b|50%|N/A|1|90s"
        );
        // What no controller has looked at counts as zero.
        let bare = || json!({"metadata": {"name": "x"}});
        assert_eq!(printed("PodDisruptionBudget", bare()), "x|N/A|N/A|0|<unknown>");
        assert_eq!(printed("ReplicaSet", bare()), "x|0|0|0|<unknown> || ||<none>");
        assert_eq!(printed("Deployment", bare()), "x|0/0|0|0|<unknown> || ||<none>");
    }
}
