//! PodGroups and Workloads.

use k8s_openapi::api::scheduling::v1alpha2::{PodGroup, Workload};
use serde_json::{Value, json};
use wharf_model::time::Time;

use super::{Column, age};

/// The condition that says whether a group has been scheduled.
const SCHEDULED: &str = "PodGroupScheduled";

pub(super) const GROUP: &[Column] = &[
    Column::text("Name"),
    Column::text("Policy"),
    Column::text("Workload"),
    Column::text("Status"),
    Column::text("Age"),
];

pub(super) fn group(group: &PodGroup, now: Time) -> Vec<Value> {
    let spec = &group.spec;
    let policy = &spec.scheduling_policy;
    let policy = match (&policy.gang, &policy.basic) {
        (Some(_), _) => "Gang",
        (None, Some(_)) => "Basic",
        (None, None) => "",
    };
    let workload = spec.pod_group_template_ref.as_ref().and_then(|from| from.workload.as_ref());
    let conditions = group.status.as_ref().and_then(|status| status.conditions.as_deref());
    let condition = conditions.into_iter().flatten().find(|condition| condition.type_ == SCHEDULED);
    let status = match condition {
        None => "Pending",
        Some(condition) if condition.status == "True" => "Scheduled",
        Some(condition) => &condition.reason,
    };
    vec![
        json!(group.metadata.name),
        json!(policy),
        super::or_none(workload.map(|workload| workload.workload_name.as_str())),
        json!(status),
        json!(age(group.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const WORKLOAD: &[Column] = &[Column::text("Name"), Column::text("Age")];

pub(super) fn workload(workload: &Workload, now: Time) -> Vec<Value> {
    vec![
        json!(workload.metadata.name),
        json!(age(workload.metadata.creation_timestamp.as_ref(), now)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    #[test]
    fn groups_say_how_they_are_scheduled() {
        let group = |status: Value| {
            let spec = json!({"schedulingPolicy": {"gang": {"minCount": 3}}});
            printed("PodGroup", json!({"metadata": {"name": "g"}, "spec": spec, "status": status}))
        };
        assert_eq!(group(json!({})), "g|Gang|<none>|Pending|<unknown>");
        let condition = |status: &str| {
            json!({"conditions": [{"type": SCHEDULED, "status": status, "reason": "Unschedulable",
                "message": "", "lastTransitionTime": "2026-01-01T23:55:00Z"}]})
        };
        assert_eq!(group(condition("True")), "g|Gang|<none>|Scheduled|<unknown>");
        assert_eq!(group(condition("False")), "g|Gang|<none>|Unschedulable|<unknown>");
    }
}
