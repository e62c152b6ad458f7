//! `nodepool`: what a pool holds, whether it can be used, and the hash that tells drift.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use wharf_model::karpenter::conditions::{self, Conditioned, node_pool, reason};
use wharf_model::karpenter::hash::NODE_POOL_HASH_VERSION;
use wharf_model::karpenter::{NodeClaim, NodePool};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::requirements::Requirement;
use wharf_model::resources::Resources;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::view::View;
use wharf_provision::pool::NODES;

use super::class::{self, NodeClass};
use super::events::report_transitions;
use super::shared::Shared;
use super::snapshot::{StateNode, class_of, node_of_claim};

/// The controller.
pub(super) struct NodePoolController {
    shared: Arc<Shared>,
}

impl NodePoolController {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Controller for NodePoolController {
    fn name(&self) -> &'static str {
        "karpenter nodepool"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<NodePool>();
        if change.kind() == kind {
            self.shared.memory().changes += 1;
            queue.now(WorkKey::object(kind, change.key()));
        } else if change.kind() == Kind::of::<NodeClaim>() {
            if let Some(pool) = change.object().header().label(labels::NODEPOOL) {
                queue.now(WorkKey::object(kind, &ObjectKey::cluster(pool)));
            }
        } else if class::kinds().contains(&change.kind()) {
            for pool in view.objects(kind) {
                queue.now(WorkKey::object(kind, pool.key()));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some(pool) = context.view.get::<NodePool>(&key.key) else { return Step::done() };
        let mut draft = pool.clone();
        let annotations = draft.metadata.annotations.get_or_insert_default();
        annotations.insert(labels::NODEPOOL_HASH.to_owned(), pool.static_hash());
        annotations
            .insert(labels::NODEPOOL_HASH_VERSION.to_owned(), NODE_POOL_HASH_VERSION.to_owned());
        let (nodes, resources) = holdings(context.view, &key.key.name);
        draft.status.nodes = Some(nodes);
        draft.status.resources = resources;
        let class = class_of(context.view, pool);
        draft.status.node_class_observed_generation =
            class.and_then(|class| class.metadata().generation);
        let mut set = draft.conditions_mut(context.now.timestamp());
        match invalid(pool) {
            Some(message) => {
                let reason = reason::NODE_POOL_VALIDATION_FAILED;
                set.set_false(node_pool::VALIDATION_SUCCEEDED, reason, &message)
            }
            None => set.set_true(node_pool::VALIDATION_SUCCEEDED),
        };
        match class_problem(class) {
            Some((reason, message)) => {
                set.set_false(node_pool::NODE_CLASS_READY, &reason, &message)
            }
            None => set.set_true(node_pool::NODE_CLASS_READY),
        };
        let mut step = Step::done();
        if draft == *pool {
            return step;
        }
        let after = draft.status.conditions.clone();
        step.write(Write::Update { object: Box::new(draft), part: Part::All });
        report_transitions(&mut step, pool, pool.conditions(), &after);
        step
    }
}

/// The number of a pool's nodes and the sum of their capacities.
fn holdings(view: &View, pool: &str) -> (i64, BTreeMap<String, Quantity>) {
    let mut total = Resources::default();
    let mut count = 0;
    for object in view.objects(Kind::of::<NodeClaim>()) {
        if object.header().label(labels::NODEPOOL) != Some(pool) {
            continue;
        }
        let Some(claim) = object.typed::<NodeClaim>() else { continue };
        let node = node_of_claim(view, claim);
        let held = StateNode { claim: Some(claim), node, deleting: false, pods: Vec::new() };
        total.add(&held.capacity());
        count += 1;
    }
    let mut resources = total.to_map();
    for name in ["cpu", "memory", "ephemeral-storage", "pods"] {
        resources.entry(name.to_owned()).or_insert_with(|| Quantity("0".to_owned()));
    }
    resources.insert(NODES.to_owned(), Quantity(count.to_string()));
    (count, resources)
}

/// What the schema cannot check: why a pool is invalid.
fn invalid(pool: &NodePool) -> Option<String> {
    let template = &pool.spec.template.spec;
    for entry in &template.requirements {
        if let Err(error) =
            Requirement::parse(&entry.key, &entry.operator, &entry.values, entry.min_values)
        {
            return Some(format!("invalid value: {error} in requirements, restricted"));
        }
        if entry.key == labels::NODEPOOL {
            return Some(format!("label \"{}\" is restricted", entry.key));
        }
        if let Some(why) = labels::restriction(&entry.key) {
            return Some(why.into_owned());
        }
    }
    let all: Vec<_> = template.taints.iter().chain(&template.startup_taints).collect();
    for (index, taint) in all.iter().enumerate() {
        let twin = |other: &&&k8s_openapi::api::core::v1::Taint| {
            wharf_model::taints::same_taint(taint, other)
        };
        if all[..index].iter().any(|other| twin(&other)) {
            return Some(format!("duplicate taint Key/Effect pair {}={}", taint.key, taint.effect));
        }
    }
    None
}

/// Why a pool's node class cannot be used.
fn class_problem(class: Option<NodeClass<'_>>) -> Option<(String, String)> {
    let fixed = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
    let Some(class) = class else {
        return fixed(reason::NODE_CLASS_NOT_FOUND, reason::NODE_CLASS_NOT_FOUND_MESSAGE);
    };
    if class.metadata().deletion_timestamp.is_some() {
        return fixed(reason::NODE_CLASS_TERMINATING, reason::NODE_CLASS_TERMINATING_MESSAGE);
    }
    let ready = conditions::get(class.conditions(), conditions::READY);
    match ready.map(|ready| (ready.status.as_str(), ready)) {
        Some((conditions::TRUE, _)) => None,
        Some((conditions::FALSE, ready)) => Some((ready.reason.clone(), ready.message.clone())),
        _ => fixed(
            reason::NODE_CLASS_READINESS_UNKNOWN,
            reason::NODE_CLASS_READINESS_UNKNOWN_MESSAGE,
        ),
    }
}
