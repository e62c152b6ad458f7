//! What Fargate's mutating webhook does to a new pod.
//!
//! It is asked for every pod that is created, once: a pod that was there before its profile never
//! moves. A pod that it takes is given to Fargate's scheduler and made as important as what a node
//! cannot do without; everything else of it stays, its owner's template too.

use k8s_openapi::api::core::v1::Pod;
use wharf_model::fargate::FargateProfile;

use crate::profile::{self, Candidate};
use crate::{COMPUTE_TYPE, PROFILE_LABEL, SCHEDULER};

/// The name of the webhook's configuration, which appears with the first profile.
pub const CONFIGURATION: &str = "0500-amazon-eks-fargate-mutation.amazonaws.com";

const PRIORITY_CLASS: &str = "system-node-critical";
const PRIORITY: i32 = 2_000_001_000;
const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// Why a new pod is left to others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Elsewhere {
    /// No selector matches it.
    #[error("no Fargate profile matches its namespace and labels")]
    NoMatch,
    /// Its annotation asks for EC2, as that of CoreDNS does by default.
    #[error("its annotation eks.amazonaws.com/compute-type: ec2 keeps it off Fargate")]
    OnEc2,
    /// It names another scheduler.
    #[error("it names the scheduler {0:?}")]
    OtherScheduler(String),
    /// It names its node.
    #[error("it names its node")]
    NamesNode,
    /// It has a node selector. Reported by AWS' support; the exact rule is not published.
    #[error("it has a nodeSelector")]
    NodeSelector,
    /// Its label names a profile that does not match it, or that there is none of.
    #[error("its label eks.amazonaws.com/fargate-profile names {0:?}, which does not match it")]
    LabelledOtherwise(String),
}

/// Which of the profiles takes a new pod. `namespace` is where it is created.
///
/// # Errors
/// Why none does.
pub fn profile_of<'p>(
    pod: &Pod,
    namespace: &str,
    profiles: impl IntoIterator<Item = &'p FargateProfile>,
) -> Result<&'p FargateProfile, Elsewhere> {
    let active = profiles.into_iter().filter(|profile| profile.is_active());
    let labels = pod.metadata.labels.as_ref();
    let candidate = Candidate { namespace, labels };
    let matching = active.filter(|profile| profile::matches(&profile.spec, candidate));
    let asked = labels.and_then(|labels| labels.get(PROFILE_LABEL));
    let chosen = match asked {
        Some(name) => {
            let mut matching = matching;
            matching
                .find(|profile| profile.spec.name == *name)
                .ok_or_else(|| Elsewhere::LabelledOtherwise(name.clone()))?
        }
        None => profile::choose(matching, candidate).ok_or(Elsewhere::NoMatch)?,
    };
    match why_not(pod) {
        Some(elsewhere) => Err(elsewhere),
        None => Ok(chosen),
    }
}

/// What of a pod itself keeps it off Fargate.
fn why_not(pod: &Pod) -> Option<Elsewhere> {
    let annotations = pod.metadata.annotations.as_ref();
    if annotations.and_then(|annotations| annotations.get(COMPUTE_TYPE)).is_some_and(|v| v == "ec2")
    {
        return Some(Elsewhere::OnEc2);
    }
    let spec = pod.spec.as_ref()?;
    let scheduler = spec.scheduler_name.as_deref().unwrap_or_default();
    if !matches!(scheduler, "" | DEFAULT_SCHEDULER | SCHEDULER) {
        return Some(Elsewhere::OtherScheduler(scheduler.to_owned()));
    }
    if spec.node_name.as_deref().is_some_and(|node| !node.is_empty()) {
        return Some(Elsewhere::NamesNode);
    }
    let selector = spec.node_selector.as_ref();
    selector.is_some_and(|selector| !selector.is_empty()).then_some(Elsewhere::NodeSelector)
}

/// Makes a new pod one of Fargate's.
pub fn admit(pod: &mut Pod, profile: &FargateProfile) {
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(PROFILE_LABEL.to_owned(), profile.spec.name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.scheduler_name = Some(SCHEDULER.to_owned());
    spec.priority_class_name = Some(PRIORITY_CLASS.to_owned());
    spec.priority = Some(PRIORITY);
    spec.preemption_policy = Some("PreemptLowerPriority".to_owned());
}

/// Whether a pod is one of Fargate's.
pub fn is_admitted(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()) == Some(SCHEDULER)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wharf_model::fargate::status;

    use super::*;

    fn profiles() -> Vec<FargateProfile> {
        let profile = |name: &str, namespace: &str, state: &str| -> FargateProfile {
            serde_json::from_value(json!({
                "spec": {"name": name, "selectors": [{"namespace": namespace}]},
                "status": {"status": state},
            }))
            .expect("a valid profile")
        };
        vec![
            profile("b", "study-*", status::ACTIVE),
            profile("a-creating", "study-*", status::CREATING),
            profile("c", "study-aews", status::ACTIVE),
        ]
    }

    fn pod(metadata: Value, spec: Value) -> Pod {
        let mut whole =
            json!({"containers": [{"name": "c"}], "schedulerName": "default-scheduler"});
        for (key, value) in spec.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": metadata, "spec": whole})).expect("a valid pod")
    }

    fn decided(namespace: &str, metadata: Value, spec: Value) -> String {
        let profiles = profiles();
        match profile_of(&pod(metadata, spec), namespace, &profiles) {
            Ok(profile) => profile.spec.name.clone(),
            Err(elsewhere) => elsewhere.to_string(),
        }
    }

    #[test]
    fn who_takes_a_pod() {
        let label = |name: &str| json!({"labels": {PROFILE_LABEL: name}});
        let annotated = |value: &str| json!({"annotations": {COMPUTE_TYPE: value}});
        for (namespace, metadata, spec, expected) in [
            ("study-aews", json!({}), json!({}), "b"),
            ("study-aews", label("c"), json!({}), "c"),
            (
                "study-x",
                label("c"),
                json!({}),
                "its label eks.amazonaws.com/fargate-profile names \"c\", which does not match it",
            ),
            (
                "study-aews",
                label("a-creating"),
                json!({}),
                "its label eks.amazonaws.com/fargate-profile names \"a-creating\", which does not match it",
            ),
            (
                "default",
                json!({}),
                json!({}),
                "no Fargate profile matches its namespace and labels",
            ),
            (
                "study-aews",
                annotated("ec2"),
                json!({}),
                "its annotation eks.amazonaws.com/compute-type: ec2 keeps it off Fargate",
            ),
            ("study-aews", annotated("fargate"), json!({}), "b"),
            (
                "study-aews",
                json!({}),
                json!({"schedulerName": "mine"}),
                "it names the scheduler \"mine\"",
            ),
            ("study-aews", json!({}), json!({"schedulerName": "fargate-scheduler"}), "b"),
            ("study-aews", json!({}), json!({"nodeName": "n"}), "it names its node"),
            ("study-aews", json!({}), json!({"nodeSelector": {"a": "b"}}), "it has a nodeSelector"),
            ("study-aews", json!({}), json!({"nodeSelector": {}, "nodeName": ""}), "b"),
        ] {
            assert_eq!(decided(namespace, metadata, spec), expected);
        }
    }

    #[test]
    fn a_pod_is_changed_in_these_fields_and_no_other() {
        let before = pod(
            json!({"labels": {"app": "netshoot"}}),
            json!({"priority": 0, "priorityClassName": "mine",
                "tolerations": [{"key": "k", "operator": "Exists"}]}),
        );
        let mut after = before.clone();
        admit(&mut after, &profiles()[0]);
        assert!(is_admitted(&after) && !is_admitted(&before));
        let expected = pod(
            json!({"labels": {"app": "netshoot", "eks.amazonaws.com/fargate-profile": "b"}}),
            json!({"priority": 2_000_001_000, "priorityClassName": "system-node-critical",
                "preemptionPolicy": "PreemptLowerPriority", "schedulerName": "fargate-scheduler",
                "tolerations": [{"key": "k", "operator": "Exists"}]}),
        );
        assert_eq!(after, expected);
        let again = after.clone();
        admit(&mut after, &profiles()[0]);
        assert_eq!(after, again, "once is enough");
    }
}
