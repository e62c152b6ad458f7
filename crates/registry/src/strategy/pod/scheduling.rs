//! What is wrong with the part of a pod's spec that says where it may run.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorTerm, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use wharf_model::names;
use wharf_model::taints::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE};

use super::validate::one_of;
use crate::field::{Errors, Json, Path};
use crate::metadata;

const EFFECTS: [&str; 3] = [NO_SCHEDULE, PREFER_NO_SCHEDULE, NO_EXECUTE];

pub(super) fn validate(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    metadata::labels(&path.child("nodeSelector"), spec.node_selector.iter().flatten(), errors);
    let tolerations = path.child("tolerations");
    for (index, toleration) in spec.tolerations.iter().flatten().enumerate() {
        self::toleration(&tolerations.index(index), toleration, errors);
    }
    let gates = path.child("schedulingGates");
    let mut seen = BTreeSet::new();
    for (index, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let path = gates.index(index);
        errors.invalid_each(&path, &gate.name, names::qualified_name(&gate.name));
        if !seen.insert(&gate.name) {
            errors.duplicate(&path, &gate.name);
        }
    }
    affinity(&path.child("affinity"), spec, errors);
    let constraints = path.child("topologySpreadConstraints");
    let mut seen = BTreeSet::new();
    for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let path = constraints.index(index);
        spread(&path, constraint, errors);
        if !seen.insert((&constraint.topology_key, &constraint.when_unsatisfiable)) {
            let shown =
                format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), &shown);
        }
    }
}

fn toleration(path: &Path<'_>, toleration: &Toleration, errors: &mut Errors) {
    let key = toleration.key.as_deref().unwrap_or_default();
    let operator = toleration.operator.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !key.is_empty() {
        errors.invalid_each(&path.child("key"), key, names::qualified_name(key));
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&path.child("operator"), operator, detail);
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(&path.child("effect"), effect, detail);
    }
    match operator {
        "" | "Equal" => {
            errors.invalid_each(&path.child("operator"), value, names::label_value(value))
        }
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.invalid(&path.child("operator"), &Json(toleration), detail);
        }
        "Exists" => {}
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        one_of(&path.child("effect"), Some(effect), &EFFECTS, errors);
    }
}

fn affinity(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    let Some(affinity) = &spec.affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(required) = &node.required_during_scheduling_ignored_during_execution {
            let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
            node_selector(&path, required, errors);
        }
        let preferred = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        let terms = node.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (index, term) in terms.enumerate() {
            let path = preferred.index(index);
            weight(&path, term.weight, errors);
            node_selector_term(&path.child("preference"), &term.preference, errors);
        }
    }
    let between = [
        (
            "podAffinity",
            affinity.pod_affinity.as_ref().map(|affinity| {
                (
                    &affinity.required_during_scheduling_ignored_during_execution,
                    &affinity.preferred_during_scheduling_ignored_during_execution,
                )
            }),
        ),
        (
            "podAntiAffinity",
            affinity.pod_anti_affinity.as_ref().map(|affinity| {
                (
                    &affinity.required_during_scheduling_ignored_during_execution,
                    &affinity.preferred_during_scheduling_ignored_during_execution,
                )
            }),
        ),
    ];
    for (field, terms) in between {
        let Some((required, preferred)) = terms else { continue };
        let path = path.child(field);
        let required_path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in required.iter().flatten().enumerate() {
            pod_affinity_term(&required_path.index(index), term, errors);
        }
        let preferred_path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in preferred.iter().flatten().enumerate() {
            let path = preferred_path.index(index);
            weight(&path, term.weight, errors);
            pod_affinity_term(&path.child("podAffinityTerm"), &term.pod_affinity_term, errors);
        }
    }
}

fn weight(path: &Path<'_>, weight: i32, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), &weight, "must be in the range 1-100");
    }
}

/// What is wrong with a node selector.
pub(crate) fn node_selector(path: &Path<'_>, selector: &NodeSelector, errors: &mut Errors) {
    let terms = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(&terms, "must have at least one node selector term");
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        node_selector_term(&terms.index(index), term, errors);
    }
}

fn node_selector_term(path: &Path<'_>, term: &NodeSelectorTerm, errors: &mut Errors) {
    let expressions = path.child("matchExpressions");
    for (index, expression) in term.match_expressions.iter().flatten().enumerate() {
        let path = expressions.index(index);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "Gt" | "Lt" if values.len() != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.required(&path.child("values"), detail);
            }
            "Gt" | "Lt" => {}
            operator => set_operator(&path, operator, values, errors),
        }
        errors.invalid_each(
            &path.child("key"),
            &expression.key,
            names::qualified_name(&expression.key),
        );
    }
    node_fields(path, term, errors);
}

/// Nodes can be picked by one field, their name, and by one value of it.
fn node_fields(path: &Path<'_>, term: &NodeSelectorTerm, errors: &mut Errors) {
    let fields = path.child("matchFields");
    for (index, field) in term.match_fields.iter().flatten().enumerate() {
        let path = fields.index(index);
        match field.operator.as_str() {
            "In" | "NotIn" => {
                if field.values.as_ref().map_or(0, Vec::len) != 1 {
                    let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    errors.required(&path.child("values"), detail);
                }
            }
            other => {
                errors.invalid(&path.child("operator"), other, "not a valid selector operator")
            }
        }
        if field.key != "metadata.name" {
            errors.invalid(&path.child("key"), &field.key, "not a valid field selector key");
            continue;
        }
        let values = path.child("values");
        for (index, name) in field.values.iter().flatten().enumerate() {
            errors.invalid_each(&values.index(index), name, names::dns_1123_subdomain(name));
        }
    }
}

/// What is wrong with the operator of a set-based requirement, or with how many values it has.
fn set_operator(path: &Path<'_>, operator: &str, values: &[String], errors: &mut Errors) {
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.required(&path.child("values"), detail);
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&path.child("values"), detail);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
}

fn pod_affinity_term(path: &Path<'_>, term: &PodAffinityTerm, errors: &mut Errors) {
    let labels = path.child("labelSelector");
    label_selector(&labels, term.label_selector.as_ref(), errors);
    let namespaces = path.child("namespaceSelector");
    label_selector(&namespaces, term.namespace_selector.as_ref(), errors);
    let namespaces = path.child("namespaces");
    for name in term.namespaces.iter().flatten() {
        errors.invalid_each(&namespaces, name, names::dns_1123_label(name));
    }
    let (matched, mismatched) = (&term.match_label_keys, &term.mismatch_label_keys);
    let selector = term.label_selector.as_ref();
    label_keys(&path.child("matchLabelKeys"), matched.as_deref(), selector, errors);
    label_keys(&path.child("mismatchLabelKeys"), mismatched.as_deref(), selector, errors);
    twice_selected(path, matched.as_deref(), selector, errors);
    for (index, key) in matched.iter().flatten().enumerate() {
        if mismatched.iter().flatten().any(|other| other == key) {
            let path = path.child("matchLabelKeys");
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.invalid(&path.index(index), key, detail);
        }
    }
    let key = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.required(&key, "can not be empty");
    } else {
        errors.invalid_each(&key, &term.topology_key, names::qualified_name(&term.topology_key));
    }
}

fn spread(path: &Path<'_>, constraint: &TopologySpreadConstraint, errors: &mut Errors) {
    if constraint.max_skew <= 0 {
        errors.invalid(&path.child("maxSkew"), &constraint.max_skew, "must be greater than zero");
    }
    if constraint.topology_key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    } else {
        let messages = names::qualified_name(&constraint.topology_key);
        errors.invalid_each(&path.child("topologyKey"), &constraint.topology_key, messages);
    }
    one_of(
        &path.child("whenUnsatisfiable"),
        Some(&constraint.when_unsatisfiable),
        &["DoNotSchedule", "ScheduleAnyway"],
        errors,
    );
    if let Some(domains) = constraint.min_domains {
        if domains <= 0 {
            errors.invalid(&path.child("minDomains"), &domains, "must be greater than zero");
        }
        if constraint.when_unsatisfiable != "DoNotSchedule" {
            let detail = format!(
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                constraint.when_unsatisfiable
            );
            errors.invalid(&path.child("minDomains"), &domains, detail);
        }
    }
    for (field, policy) in [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ] {
        one_of(&path.child(field), policy.as_deref(), &["Honor", "Ignore"], errors);
    }
    let selector = constraint.label_selector.as_ref();
    let (keys, path_of_keys) =
        (constraint.match_label_keys.as_deref(), path.child("matchLabelKeys"));
    label_keys(&path_of_keys, keys, selector, errors);
    twice_selected(&path_of_keys, keys, selector, errors);
    label_selector(&path.child("labelSelector"), selector, errors);
}

/// Keys whose values are taken from the pod refine a selector, so there must be one.
fn label_keys(
    path: &Path<'_>,
    keys: Option<&[String]>,
    selector: Option<&LabelSelector>,
    errors: &mut Errors,
) {
    let Some(keys) = keys.filter(|keys| !keys.is_empty()) else { return };
    if selector.is_none() {
        errors.forbidden(path, "must not be specified when labelSelector is not set");
    }
    for (index, key) in keys.iter().enumerate() {
        errors.invalid_each(&path.index(index), key, names::qualified_name(key));
    }
}

/// A key of `matchLabelKeys` is in the selector of a pod once, since it was put there when the pod
/// was created; twice means that the selector had it already.
fn twice_selected(
    path: &Path<'_>,
    keys: Option<&[String]>,
    selector: Option<&LabelSelector>,
    errors: &mut Errors,
) {
    let (Some(keys), Some(selector)) = (keys, selector) else { return };
    let mut seen: BTreeSet<&String> =
        selector.match_labels.iter().flat_map(|labels| labels.keys()).collect();
    for expression in selector.match_expressions.iter().flatten() {
        let position = keys.iter().rposition(|key| *key == expression.key);
        if let Some(index) = position
            && seen.contains(&expression.key)
        {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.invalid(&path.index(index), &expression.key, detail);
        }
        seen.insert(&expression.key);
    }
}

/// What is wrong with a label selector.
pub(crate) fn label_selector(
    path: &Path<'_>,
    selector: Option<&LabelSelector>,
    errors: &mut Errors,
) {
    let Some(selector) = selector else { return };
    metadata::labels(&path.child("matchLabels"), selector.match_labels.iter().flatten(), errors);
    let expressions = path.child("matchExpressions");
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = expressions.index(index);
        let values = expression.values.as_deref().unwrap_or_default();
        set_operator(&path, &expression.operator, values, errors);
        errors.invalid_each(
            &path.child("key"),
            &expression.key,
            names::qualified_name(&expression.key),
        );
        let values_path = path.child("values");
        for (index, value) in values.iter().enumerate() {
            errors.invalid_each(&values_path.index(index), value, names::label_value(value));
        }
    }
}
