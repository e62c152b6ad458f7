//! `nodeclaim.garbagecollection`: machines without a NodeClaim are terminated, NodeClaims whose
//! machine is gone are deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use wharf_cloud::ec2::NODE_CLAIM_TAG;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::karpenter::NodeClaim;
use wharf_model::karpenter::conditions::{Conditioned, node_claim};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cloud::CloudRequest;
use wharf_ports::cluster::{Change, Delete, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::view::View;

use super::snapshot::{is_node_ready, node_of_claim};

const COLLECT: &str = "collect";
/// How often to look while there is anything to look at.
const PERIOD: Duration = Duration::from_mins(2);
/// A machine without a NodeClaim may be younger than the news of its claim.
const AGE_MIN: Duration = Duration::from_secs(30);

/// The controller.
pub(super) struct GarbageCollection;

impl GarbageCollection {
    pub(super) fn new() -> Self {
        Self
    }
}

impl Controller for GarbageCollection {
    fn name(&self) -> &'static str {
        "nodeclaim.garbagecollection"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        let relevant = kind == Kind::of::<NodeClaim>() || kind == Kind::of::<Instance>();
        if relevant && (change.old.is_none() || change.new.is_none()) {
            queue.after(WorkKey::singleton(COLLECT), AGE_MIN);
        }
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        let claims: BTreeSet<&str> = context
            .view
            .objects(Kind::of::<NodeClaim>())
            .map(|object| object.key().name.as_str())
            .collect();
        let mut running = 0;
        for instance in context.view.list::<Instance>() {
            let Some(claim) = instance.spec.tags.get(NODE_CLAIM_TAG) else { continue };
            let state = instance.status.state;
            if !matches!(state, InstanceState::Pending | InstanceState::Running) {
                continue;
            }
            running += 1;
            let launched = Time::from_nanos(instance.status.launched_at_nanos);
            if !claims.contains(claim.as_str()) && context.now.since(launched) >= AGE_MIN {
                let instance_id = instance.metadata.name.clone().unwrap_or_default();
                step.cloud.push(CloudRequest::Terminate { instance_id });
            }
        }
        for object in context.view.objects(Kind::of::<NodeClaim>()) {
            let Some(claim) = object.typed::<NodeClaim>() else { continue };
            let node = node_of_claim(context.view, claim);
            let gone = claim.metadata.deletion_timestamp.is_none()
                && claim.is_true(node_claim::REGISTERED)
                && is_gone(context.view, claim)
                && !node.is_some_and(is_node_ready);
            if gone {
                step.write(Write::Delete(Delete::of(object)));
            }
        }
        if running > 0 || !claims.is_empty() {
            step.again = Some(PERIOD);
        }
        step
    }
}

/// Whether a claim's machine is gone from a cloud that keeps its machines in the view.
pub(super) fn is_gone(view: &View, claim: &NodeClaim) -> bool {
    let Some((_, id)) = claim.status.provider_id.rsplit_once('/') else { return true };
    match view.get::<Instance>(&ObjectKey::cluster(id)) {
        Some(instance) => {
            !matches!(instance.status.state, InstanceState::Pending | InstanceState::Running)
        }
        // A real cloud's machines are not in the view; its events tell when one is gone.
        None => view.count(Kind::of::<Instance>()) > 0,
    }
}
