//! On which nodes a DaemonSet's pods run, and what such a pod looks like.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec,
    Toleration,
};
use wharf_model::labels::{
    CONTROLLER_REVISION_HASH, DAEMON_TEMPLATE_GENERATION, POD_TEMPLATE_GENERATION,
};
use wharf_model::random::Random;
use wharf_model::requirements::node_selector::pod_matches_node;
use wharf_model::taints::{
    ComparisonOperators, NO_EXECUTE, blocks_scheduling, daemon_set_tolerations, first_untolerated,
};

use crate::workloads::owners::controller_reference;

/// What a node means to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is to have a pod.
    Wanted,
    /// A pod that is there may stay: taints only keep new ones away.
    Tolerated,
    /// It is not to have one.
    Unwanted,
}

/// What a node means to a DaemonSet's pods. The tolerations are those of [`tolerations`].
pub(crate) fn fit(spec: &PodSpec, tolerations: &[Toleration], node: &Node) -> Fit {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let is_bound_elsewhere =
        spec.node_name.as_deref().is_some_and(|bound| !bound.is_empty() && bound != name);
    if is_bound_elsewhere || !pod_matches_node(spec, name, &node.metadata.labels) {
        return Fit::Unwanted;
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let untolerated = |relevant: fn(&k8s_openapi::api::core::v1::Taint) -> bool| {
        first_untolerated(taints, tolerations, ComparisonOperators::Off, relevant).is_some()
    };
    if untolerated(|taint| taint.effect == NO_EXECUTE) {
        Fit::Unwanted
    } else if untolerated(blocks_scheduling) {
        Fit::Tolerated
    } else {
        Fit::Wanted
    }
}

/// What the pods of a template tolerate: what it says, and what is added for every DaemonSet.
pub(crate) fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    for added in daemon_set_tolerations(spec.host_network == Some(true)) {
        let same = |one: &Toleration| {
            (&one.key, &one.effect, &one.operator) == (&added.key, &added.effect, &added.operator)
        };
        match tolerations.iter_mut().find(|one| same(one)) {
            Some(one) => *one = added,
            None => tolerations.push(added),
        }
    }
    tolerations
}

/// The node that a DaemonSet's pod is for: the one it is on, or the one its affinity names.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter());
    let mut named = fields.flatten().filter(|field| field.key == "metadata.name");
    named.next()?.values.as_ref()?.first().map(String::as_str)
}

/// The pod for a node. It names the node in its affinity and leaves the rest to the scheduler.
pub(super) fn pod(
    set: &DaemonSet,
    template: &PodTemplateSpec,
    hash: &str,
    node: &str,
    random: &mut Random,
) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.tolerations = Some(tolerations(&spec));
    let affinity = spec.affinity.get_or_insert_default();
    let affinity = affinity.node_affinity.get_or_insert_default();
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), ..NodeSelectorTerm::default() };
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    let mut labels: BTreeMap<String, String> = from.labels.unwrap_or_default();
    labels.insert(CONTROLLER_REVISION_HASH.to_owned(), hash.to_owned());
    let annotations = set.metadata.annotations.as_ref();
    if let Some(generation) = annotations.and_then(|all| all.get(DAEMON_TEMPLATE_GENERATION)) {
        labels.insert(POD_TEMPLATE_GENERATION.to_owned(), generation.clone());
    }
    let generate = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
    let mut pod = Pod { spec: Some(spec), ..Pod::default() };
    pod.metadata.name = Some(random.generated_name(&generate));
    pod.metadata.generate_name = Some(generate);
    pod.metadata.namespace.clone_from(&set.metadata.namespace);
    pod.metadata.labels = Some(labels);
    pod.metadata.annotations = from.annotations;
    pod.metadata.finalizers = from.finalizers;
    pod.metadata.owner_references = Some(vec![controller_reference(set)]);
    pod
}
