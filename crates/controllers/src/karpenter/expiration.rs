//! `nodeclaim.expiration`: ends a NodeClaim when its time is up. Budgets do not hold it back and
//! nothing is launched in advance.

use wharf_model::karpenter::NodeClaim;
use wharf_model::kinds::Kind;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;
use wharf_provision::disruption::drift::expires_at;

/// The controller.
pub(super) struct Expiration;

impl Controller for Expiration {
    fn name(&self) -> &'static str {
        "nodeclaim.expiration"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<NodeClaim>();
        // The spec never changes: its creation is all there is to see.
        if change.kind() == kind && change.old.is_none() {
            queue.now(WorkKey::object(kind, change.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some(object) = context.view.object(Kind::of::<NodeClaim>(), &key.key) else {
            return Step::done();
        };
        let Some(claim) = object.typed::<NodeClaim>() else { return Step::done() };
        if claim.metadata.deletion_timestamp.is_some() {
            return Step::done();
        }
        let created = claim.metadata.creation_timestamp.as_ref().map(Time::from);
        let Some(end) = expires_at(created.unwrap_or_default(), claim.spec.expire_after()) else {
            return Step::done();
        };
        if context.now < end {
            return Step::again_after(end.since(context.now));
        }
        let mut step = Step::done();
        step.write(Write::Delete(Delete::of(object)));
        step.reasons.push(Reason {
            kind: object.kind(),
            key: key.key.clone(),
            by: "expiration",
            decision: "expired".to_owned(),
            because: vec![Because::new(
                "expireAfter",
                claim.spec.expire_after.clone().unwrap_or_default(),
            )],
        });
        step
    }
}
