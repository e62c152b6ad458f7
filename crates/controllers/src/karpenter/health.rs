//! `node.health`: node repair. A node that is broken for longer than its policy tolerates is replaced,
//! without regard to budgets, unless so many of its pool are that the fault lies elsewhere.
//!
//! Upstream has it behind the feature gate `NodeRepair`; Auto Mode always does it.
//! <https://karpenter.sh/docs/concepts/disruption/#node-repair>

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use wharf_model::auto_mode;
use wharf_model::karpenter::{NodeClaim, events};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;
use wharf_provision::repair::{broken, holds_back_pool};

use super::events::warning;
use super::shared::Shared;
use super::snapshot::claim_of_node;

/// How long to wait while too many nodes are broken.
const HELD_BACK: Duration = Duration::from_mins(5);
/// How long until the same is told again.
const TELL_AGAIN: Duration = Duration::from_mins(15);

/// The controller.
pub(super) struct Health {
    shared: Arc<Shared>,
}

impl Health {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn repairs(&self, claim: &NodeClaim) -> bool {
        self.shared.settings.node_repair || claim.spec.node_class_ref.group == auto_mode::GROUP
    }
}

impl Controller for Health {
    fn name(&self) -> &'static str {
        "node.health"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<Node>();
        let is_broken = change.new.is_some()
            && change.kind() == kind
            && change.object().typed::<Node>().is_some_and(|node| broken(node).is_some());
        if is_broken {
            queue.now(WorkKey::object(kind, change.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let mut step = Step::done();
        let Some(node) = view.get::<Node>(&key.key) else { return step };
        let Some(claim) = claim_of_node(view, node)
            .filter(|claim| claim.metadata.deletion_timestamp.is_none() && self.repairs(claim))
        else {
            return step;
        };
        let Some(found) = broken(node) else { return step };
        if now < found.due {
            return Step::again_after(found.due.since(now));
        }
        let pool = pool_of(node);
        let of_pool = view.list::<Node>().filter(|other| {
            let is_karpenters = pool_of(other).is_some() || claim_of_node(view, other).is_some();
            is_karpenters && (pool.is_none() || pool_of(other) == pool)
        });
        let (mut all, mut bad) = (0, 0);
        for other in of_pool {
            all += 1;
            bad += usize::from(broken(other).is_some());
        }
        if holds_back_pool(bad, all) {
            let whole = if pool.is_some() { "nodepool" } else { "cluster" };
            let text = format!("more than 20% nodes are unhealthy in the {whole}");
            for event in [
                warning(node, events::NODE_REPAIR_BLOCKED, text.clone()),
                warning(claim, events::NODE_REPAIR_BLOCKED, text),
            ] {
                self.shared.tell(&mut step, event, TELL_AGAIN, now);
            }
            step.again = Some(HELD_BACK);
            return step;
        }
        let claim_key = ObjectKey::of(&claim.metadata);
        let Some(object) = view.object(Kind::of::<NodeClaim>(), &claim_key) else { return step };
        // From now on nothing that protects a pod holds the node.
        let mut draft = claim.clone();
        let annotations = draft.metadata.annotations.get_or_insert_default();
        let stamp = labels::NODECLAIM_TERMINATION_TIMESTAMP.to_owned();
        annotations.insert(stamp, now.to_string());
        step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        step.write(Write::Delete(Delete::of(object)));
        let because = vec![
            Because::new(
                found.condition,
                format!("{} ({}) since {}", found.status, found.reason, found.since),
            ),
            Because::new(
                "toleration",
                format!("{} min are tolerated", found.due.since(found.since).as_secs() / 60),
            ),
            Because::new("unhealthy", format!("{bad} of {all} nodes")),
        ];
        for (kind, key) in
            [(Kind::of::<Node>(), key.key.clone()), (Kind::of::<NodeClaim>(), claim_key)]
        {
            let decision = "replaced by node repair".to_owned();
            step.reasons.push(Reason {
                kind,
                key,
                by: "repair",
                decision,
                because: because.clone(),
            });
        }
        step
    }
}

fn pool_of(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(labels::NODEPOOL).map(String::as_str)
}
