//! Plain Kubernetes matching of node selectors and node affinity against an existing node, as
//! kube-scheduler does it.
//!
//! Rules: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/>.

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

use crate::selector::Labels;

/// The only field `matchFields` may name.
const FIELD_NAME: &str = "metadata.name";

/// Whether a node has every label of the pod's node selector and matches its required node
/// affinity.
pub fn pod_matches_node(spec: &PodSpec, node_name: &str, labels: &(impl Labels + ?Sized)) -> bool {
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| labels.label(key) == Some(value));
    let required =
        spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()).and_then(
            |affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref(),
        );
    selected && required.is_none_or(|required| node_selector_matches(required, node_name, labels))
}

/// Whether any term matches; without terms nothing does.
pub fn node_selector_matches(
    selector: &NodeSelector,
    node_name: &str,
    labels: &(impl Labels + ?Sized),
) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| node_selector_term_matches(term, node_name, labels))
}

/// Whether all expressions and fields of a term match. An empty term matches nothing, and so does
/// a malformed one.
pub fn node_selector_term_matches(
    term: &NodeSelectorTerm,
    node_name: &str,
    labels: &(impl Labels + ?Sized),
) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|expression| expression_matches(expression, labels.label(&expression.key)))
        && fields.iter().all(|field| field_matches(field, node_name))
}

/// Whether a term is well-formed: each operator is known and has as many values as it takes.
pub fn node_selector_term_is_valid(term: &NodeSelectorTerm) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    expressions.iter().all(is_valid_expression) && fields.iter().all(is_valid_field)
}

/// The nodes a term leaves over by naming them: the values of its `metadata.name In` fields, those
/// common to all of them. None if it has no such field. Terms of DaemonSet pods name one node, and
/// kube-scheduler then looks at no other.
pub fn pinned_nodes(term: &NodeSelectorTerm) -> Option<Vec<&str>> {
    let mut pinned: Option<Vec<&str>> = None;
    let fields = term.match_fields.iter().flatten();
    for field in fields.filter(|field| field.key == FIELD_NAME && field.operator == "In") {
        let names: Vec<&str> = field.values.iter().flatten().map(String::as_str).collect();
        match &mut pinned {
            Some(left) => left.retain(|name| names.contains(name)),
            None => pinned = Some(names),
        }
    }
    pinned
}

fn expression_matches(expression: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    if !is_valid_expression(expression) {
        return false;
    }
    let listed = |value: &str| expression.values.iter().flatten().any(|entry| entry == value);
    let compare = || -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, single_value(expression)?.parse().ok()?))
    };
    match expression.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare().is_some_and(|(have, than)| have > than),
        "Lt" => compare().is_some_and(|(have, than)| have < than),
        _ => false,
    }
}

fn is_valid_expression(expression: &NodeSelectorRequirement) -> bool {
    let count = expression.values.as_ref().map_or(0, Vec::len);
    match expression.operator.as_str() {
        "In" | "NotIn" => count > 0,
        "Exists" | "DoesNotExist" => count == 0,
        "Gt" | "Lt" => single_value(expression).is_some_and(|value| value.parse::<i64>().is_ok()),
        _ => false,
    }
}

fn field_matches(field: &NodeSelectorRequirement, node_name: &str) -> bool {
    is_valid_field(field) && (single_value(field) == Some(node_name)) == (field.operator == "In")
}

fn is_valid_field(field: &NodeSelectorRequirement) -> bool {
    field.key == FIELD_NAME
        && matches!(field.operator.as_str(), "In" | "NotIn")
        && single_value(field).is_some()
}

fn single_value(requirement: &NodeSelectorRequirement) -> Option<&str> {
    let [value] = requirement.values.as_deref()? else {
        return None;
    };
    Some(value)
}
