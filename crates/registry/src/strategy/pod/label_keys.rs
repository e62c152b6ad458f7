//! `matchLabelKeys` and `mismatchLabelKeys`: when a pod is created, the values of its own labels
//! become a part of the selectors (KEP-3633 for affinity, KEP-3243 for topology spread), so that
//! whoever reads the pod later needs the selector alone.

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

/// Puts the labels of a new pod into the selectors that name their keys.
pub(super) fn merge(pod: &mut Pod) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return };
    if let Some(affinity) = &mut spec.affinity {
        let with = affinity.pod_affinity.as_mut().map(|affinity| {
            (
                &mut affinity.required_during_scheduling_ignored_during_execution,
                &mut affinity.preferred_during_scheduling_ignored_during_execution,
            )
        });
        let without = affinity.pod_anti_affinity.as_mut().map(|affinity| {
            (
                &mut affinity.required_during_scheduling_ignored_during_execution,
                &mut affinity.preferred_during_scheduling_ignored_during_execution,
            )
        });
        for (required, preferred) in with.into_iter().chain(without) {
            let preferred = preferred.iter_mut().flatten().map(|term| &mut term.pod_affinity_term);
            for term in required.iter_mut().flatten().chain(preferred) {
                self::term(term, &labels);
            }
        }
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        if let Some(selector) = &mut constraint.label_selector {
            refine(selector, "In", keys, &labels);
        }
    }
}

fn term(term: &mut PodAffinityTerm, labels: &BTreeMap<String, String>) {
    let Some(selector) = &mut term.label_selector else { return };
    refine(selector, "In", term.match_label_keys.as_deref().unwrap_or_default(), labels);
    refine(selector, "NotIn", term.mismatch_label_keys.as_deref().unwrap_or_default(), labels);
}

/// Adds one requirement for each key that the pod has.
fn refine(
    selector: &mut LabelSelector,
    operator: &str,
    keys: &[String],
    labels: &BTreeMap<String, String>,
) {
    for key in keys {
        let Some(value) = labels.get(key) else { continue };
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn merged(spec: Value) -> Value {
        let labels = json!({"app": "web", "hash": "1"});
        let pod = json!({"metadata": {"labels": labels}, "spec": spec});
        let mut pod: Pod = serde_json::from_value(pod).expect("a pod");
        merge(&mut pod);
        serde_json::to_value(pod).expect("JSON")["spec"].take()
    }

    #[test]
    fn the_keys_a_pod_has_refine_its_selectors() {
        let selector = json!({"matchLabels": {"app": "web"}});
        let term = json!({
            "topologyKey": "zone", "labelSelector": selector.clone(),
            "matchLabelKeys": ["hash", "absent"], "mismatchLabelKeys": ["app"],
        });
        let spec = merged(json!({
            "containers": [],
            "affinity": {
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term.clone()]},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": term}]},
            },
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": selector, "matchLabelKeys": ["hash"]},
                {"maxSkew": 1, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule",
                    "matchLabelKeys": ["hash"]},
            ],
        }));
        let hash = json!({"key": "hash", "operator": "In", "values": ["1"]});
        let both = json!([hash.clone(), {"key": "app", "operator": "NotIn", "values": ["web"]}]);
        let affinity = &spec["affinity"];
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        assert_eq!(affinity["podAffinity"][required][0]["labelSelector"]["matchExpressions"], both);
        assert_eq!(
            affinity["podAntiAffinity"][preferred][0]["podAffinityTerm"]["labelSelector"]["matchExpressions"],
            both
        );
        let constraints = &spec["topologySpreadConstraints"];
        assert_eq!(constraints[0]["labelSelector"]["matchExpressions"], json!([hash]));
        // Without a selector there is nothing to refine; validation refuses it.
        assert_eq!(constraints[1].get("labelSelector"), None);
    }
}
