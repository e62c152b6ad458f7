//! The middle of a NodeClaim's life: its node joins and is given what the claim says, then becomes
//! ready for pods. Part of `nodeclaim.lifecycle`.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use wharf_model::karpenter::conditions::{Conditioned, node_claim, reason};
use wharf_model::karpenter::{NodeClaim, TERMINATION_FINALIZER, events};
use wharf_model::labels;
use wharf_model::resources::Resources;
use wharf_model::taints;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::controller::{Context, Step};

use super::events::warning;
use super::lifecycle::NAME;
use super::log::{self, Source};
use super::snapshot::is_node_ready;

/// Gives the claim's node its labels, taints and owner once it has joined.
pub(super) fn register(claim: &mut NodeClaim, context: &mut Context<'_>, step: &mut Step) {
    if !claim.is_true(node_claim::LAUNCHED) || claim.is_true(node_claim::REGISTERED) {
        return;
    }
    let nodes: Vec<&Node> = context
        .view
        .nodes_with_provider_id(&claim.status.provider_id)
        .filter_map(|object| object.typed::<Node>())
        .collect();
    let now = context.now.timestamp();
    let mut set = claim.conditions_mut(now);
    let [node] = nodes[..] else {
        if nodes.is_empty() {
            let (reason, message) = (reason::NODE_NOT_FOUND, reason::NODE_NOT_FOUND_MESSAGE);
            set.set_unknown(node_claim::REGISTERED, reason, message);
        } else {
            let reason = reason::MULTIPLE_NODES_FOUND;
            let message = reason::MULTIPLE_NODES_FOUND_MESSAGE;
            set.set_false(node_claim::REGISTERED, reason, message);
        }
        return;
    };
    let synced = synced_node(node, claim);
    if !has_taint(node, labels::TAINT_UNREGISTERED)
        && node_label(node, labels::REGISTERED) != Some("true")
    {
        let message = "Missing karpenter.sh/unregistered taint which prevents registration \
                       related race conditions on Karpenter-managed nodes";
        step.write(warning(claim, events::UNREGISTERED_TAINT_MISSING, message));
    }
    if synced != *node {
        step.write(Write::Update { object: Box::new(synced), part: Part::Main });
    }
    let node_name = node.metadata.name.clone().unwrap_or_default();
    claim.status.node_name.clone_from(&node_name);
    claim.conditions_mut(now).set_true(node_claim::REGISTERED);
    let name = claim.metadata.name.clone().unwrap_or_default();
    let fields =
        [("provider-id", json!(claim.status.provider_id)), ("Node", json!({ "name": node_name }))];
    log::info(step, context, Source::node_claim(NAME, &name), "registered nodeclaim", &fields);
}

/// Says when the claim's node is ready for pods.
pub(super) fn initialize(claim: &mut NodeClaim, context: &mut Context<'_>, step: &mut Step) {
    if !claim.is_true(node_claim::REGISTERED) || claim.is_true(node_claim::INITIALIZED) {
        return;
    }
    let node = context.view.get_cluster::<Node>(&claim.status.node_name);
    let now = context.now.timestamp();
    // The node is looked at as it was before registration in this very step; the next step, on
    // the node's change, sees it with its taints.
    let registered = node.filter(|node| node_label(node, labels::REGISTERED) == Some("true"));
    let hindrance = match registered {
        None => Some((reason::NODE_NOT_FOUND, reason::NODE_NOT_FOUND_MESSAGE.to_owned())),
        Some(node) => hindrance(node, claim),
    };
    if let Some((reason, message)) = hindrance {
        claim.conditions_mut(now).set_unknown(node_claim::INITIALIZED, reason, &message);
        return;
    }
    let Some(node) = registered else { return };
    if node_label(node, labels::INITIALIZED) != Some("true") {
        let mut draft = node.clone();
        let node_labels = draft.metadata.labels.get_or_insert_default();
        node_labels.insert(labels::INITIALIZED.to_owned(), "true".to_owned());
        step.write(Write::Update { object: Box::new(draft), part: Part::Main });
    }
    claim.conditions_mut(now).set_true(node_claim::INITIALIZED);
    let name = claim.metadata.name.clone().unwrap_or_default();
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone());
    let fields: [(&str, Value); 3] = [
        ("provider-id", json!(claim.status.provider_id)),
        ("Node", json!({ "name": claim.status.node_name })),
        ("allocatable", json!(allocatable.unwrap_or_default())),
    ];
    log::info(step, context, Source::node_claim(NAME, &name), "initialized nodeclaim", &fields);
}

/// Why a node is not ready for pods yet: reason and message of the Initialized condition.
fn hindrance(node: &Node, claim: &NodeClaim) -> Option<(&'static str, String)> {
    if !is_node_ready(node) {
        return Some((reason::NODE_NOT_READY, reason::NODE_NOT_READY_MESSAGE.to_owned()));
    }
    let of_node = || node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let startup = &claim.spec.startup_taints;
    let is_startup = |taint: &&_| startup.iter().any(|other| taints::same_taint(other, taint));
    if let Some(taint) = of_node().find(is_startup) {
        let message = format!("StartupTaint \"{}\" still exists", taints::display(taint));
        return Some((reason::STARTUP_TAINTS_EXIST, message));
    }
    if let Some(taint) = of_node().find(|taint| taints::is_ephemeral(taint)) {
        let message = format!("KnownEphemeralTaint \"{}\" still exists", taints::display(taint));
        return Some((reason::KNOWN_EPHEMERAL_TAINTS_EXIST, message));
    }
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let allocatable = allocatable.map(Resources::from_map).unwrap_or_default();
    let requested = Resources::from_map(&claim.spec.resources.requests);
    let missing = requested
        .iter()
        .find(|(name, amount)| *amount > 0 && allocatable.get(name) == 0)
        .map(|(name, _)| name.to_owned());
    missing.map(|name| {
        let message = format!("Resource \"{name}\" was requested but not registered");
        (reason::RESOURCE_NOT_REGISTERED, message)
    })
}

/// The node with what its claim gives it.
fn synced_node(node: &Node, claim: &NodeClaim) -> Node {
    let mut synced = node.clone();
    let meta = &mut synced.metadata;
    let node_labels = meta.labels.get_or_insert_default();
    node_labels.extend(claim.metadata.labels.clone().unwrap_or_default());
    node_labels.insert(labels::REGISTERED.to_owned(), "true".to_owned());
    let keeps_taints =
        node_labels.get(labels::DO_NOT_SYNC_TAINTS).map(String::as_str) == Some("true");
    let annotations = meta.annotations.get_or_insert_default();
    annotations.extend(claim.metadata.annotations.clone().unwrap_or_default());
    let owners = meta.owner_references.get_or_insert_default();
    let uid = claim.metadata.uid.clone().unwrap_or_default();
    if !owners.iter().any(|owner| owner.uid == uid) {
        owners.push(OwnerReference {
            api_version: "karpenter.sh/v1".to_owned(),
            kind: "NodeClaim".to_owned(),
            name: claim.metadata.name.clone().unwrap_or_default(),
            uid,
            block_owner_deletion: Some(true),
            controller: None,
        });
    }
    let finalizers = meta.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TERMINATION_FINALIZER) {
        finalizers.push(TERMINATION_FINALIZER.to_owned());
    }
    let taints = synced.spec.get_or_insert_default().taints.get_or_insert_default();
    taints.retain(|taint| taint.key != labels::TAINT_UNREGISTERED);
    if !keeps_taints {
        for taint in claim.spec.taints.iter().chain(&claim.spec.startup_taints) {
            if !taints.iter().any(|other| taints::same_taint(other, taint)) {
                taints.push(taint.clone());
            }
        }
    }
    synced
}

fn has_taint(node: &Node, key: &str) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == key)
}

fn node_label<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}
