//! `nodeclaim.disruption`: the conditions that make a NodeClaim a candidate: Consolidatable once its
//! node has been quiet, Drifted once it is no longer what its pool asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_model::auto_mode::AutoNodeClass;
use wharf_model::karpenter::conditions::{Conditioned, node_claim};
use wharf_model::karpenter::{EC2NodeClass, NodeClaim, NodePool};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::Object;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::view::View;
use wharf_provision::disruption::drift::{Stamped, from_node_class, from_pool};

use super::class::{self, NodeClass};
use super::events::report_transitions;
use super::shared::Shared;
use super::snapshot::{claim_quiet_at, pool_requirements};

/// The controller.
pub(super) struct Marks {
    shared: Arc<Shared>,
}

impl Marks {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Controller for Marks {
    fn name(&self) -> &'static str {
        "nodeclaim.disruption"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let claims = Kind::of::<NodeClaim>();
        if change.kind() == claims {
            queue.now(WorkKey::object(claims, change.key()));
        } else if change.kind() == Kind::of::<NodePool>() || class::kinds().contains(&change.kind())
        {
            let spec_changed = match (&change.old, &change.new) {
                (Some(old), Some(new)) => spec_differs(old, new),
                _ => true,
            };
            if spec_changed {
                for claim in view.objects(claims) {
                    queue.now(WorkKey::object(claims, claim.key()));
                }
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some(claim) = context.view.get::<NodeClaim>(&key.key) else { return Step::done() };
        if claim.metadata.deletion_timestamp.is_some() {
            return Step::done();
        }
        let pool = claim.metadata.labels.as_ref().and_then(|map| map.get(labels::NODEPOOL));
        let Some(pool) = pool.and_then(|name| context.view.get_cluster::<NodePool>(name)) else {
            return Step::done();
        };
        let mut draft = claim.clone();
        let mut step = Step::done();
        let now = context.now;
        let quiet = claim_quiet_at(claim, pool).filter(|_| !pool.spec.is_static());
        let mut set = draft.conditions_mut(now.timestamp());
        match quiet {
            Some(quiet) if quiet <= now => {
                set.set_true(node_claim::CONSOLIDATABLE);
            }
            quiet => {
                set.remove(node_claim::CONSOLIDATABLE);
                step.again = quiet.map(|quiet: Time| quiet.since(now));
            }
        }
        match drift(claim, pool, context.view) {
            Some(reason) => {
                set.set_true_with_reason(node_claim::DRIFTED, reason, "");
            }
            None => {
                set.remove(node_claim::DRIFTED);
            }
        }
        if draft.status.conditions != claim.status.conditions {
            let after = draft.status.conditions.clone();
            step.write(Write::Update { object: Box::new(draft), part: Part::Status });
            report_transitions(&mut step, claim, claim.conditions(), &after);
            self.shared.memory().changes += 1;
        }
        step
    }
}

/// Why a claim has drifted; only once it is launched.
fn drift(claim: &NodeClaim, pool: &NodePool, view: &View) -> Option<&'static str> {
    if !claim.is_true(node_claim::LAUNCHED) {
        return None;
    }
    let none = BTreeMap::new();
    let claim_annotations = claim.metadata.annotations.as_ref().unwrap_or(&none);
    let claim_labels = claim.metadata.labels.as_ref().unwrap_or(&none);
    let pool_annotations = pool.metadata.annotations.as_ref().unwrap_or(&none);
    let of_pool = from_pool(
        Stamped::node_pool(pool_annotations),
        Stamped::node_pool(claim_annotations),
        &pool_requirements(pool),
        claim_labels,
    );
    of_pool.or_else(|| {
        let class = NodeClass::of(view, &claim.spec.node_class_ref)?;
        let class_annotations = class.metadata().annotations.as_ref().unwrap_or(&none);
        from_node_class(class.stamped(class_annotations), class.stamped(claim_annotations))
    })
}

fn spec_differs(old: &Object, new: &Object) -> bool {
    macro_rules! differs {
        ($type:ty) => {
            if let (Some(old), Some(new)) = (old.typed::<$type>(), new.typed::<$type>()) {
                return old.spec != new.spec
                    || old.metadata.annotations != new.metadata.annotations;
            }
        };
    }
    differs!(NodePool);
    differs!(EC2NodeClass);
    differs!(AutoNodeClass);
    true
}
