//! `nodeclaim.podevents`: stamps when a pod last came to a node or left it, from which
//! consolidateAfter counts.

use std::collections::BTreeSet;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::karpenter::NodeClaim;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::view::View;

use super::pods;
use super::snapshot::claim_of_node;

/// A claim is stamped at most this often.
const DEDUPE: Duration = Duration::from_secs(10);

/// The controller.
pub(super) struct PodEvents {
    /// Claims with an event that is not stamped yet.
    pending: BTreeSet<CompactString>,
}

impl PodEvents {
    pub(super) fn new() -> Self {
        Self { pending: BTreeSet::new() }
    }
}

impl Controller for PodEvents {
    fn name(&self) -> &'static str {
        "nodeclaim.podevents"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        if change.kind() != Kind::of::<Pod>() {
            return;
        }
        // What is there at the start is no event.
        let old = change.old.as_ref().and_then(|object| object.typed::<Pod>());
        let (Some(old), Some(pod)) = (old, change.object().typed::<Pod>()) else { return };
        if pods::is_owned_by(pod, &["DaemonSet"]) {
            return;
        }
        let Some(node) = pods::node_of(pod) else { return };
        let gone = change.new.is_none()
            && old.metadata.deletion_timestamp.is_none()
            && !pods::is_terminal(old);
        let bound = pods::node_of(old).is_none();
        let ended = pods::is_terminal(pod) && !pods::is_terminal(old);
        let leaving =
            pod.metadata.deletion_timestamp.is_some() && old.metadata.deletion_timestamp.is_none();
        if !(gone || bound || ended || leaving) {
            return;
        }
        let claim = view.get_cluster::<Node>(node).and_then(|node| claim_of_node(view, node));
        if let Some(claim) = claim {
            let key = ObjectKey::of(&claim.metadata);
            self.pending.insert(key.name.clone());
            queue.now(WorkKey::object(Kind::of::<NodeClaim>(), &key));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        if !self.pending.contains(&key.key.name) {
            return Step::done();
        }
        let Some(claim) = context.view.get::<NodeClaim>(&key.key) else {
            self.pending.remove(&key.key.name);
            return Step::done();
        };
        let last = claim.status.last_pod_event_time.as_ref().map(Time::from);
        if last.is_some_and(|last| context.now.since(last) < DEDUPE) {
            // Upstream drops the event; the earlier stamp is at most this much too early.
            self.pending.remove(&key.key.name);
            return Step::done();
        }
        let mut draft = claim.clone();
        draft.status.last_pod_event_time = Some(context.now.to_meta());
        self.pending.remove(&key.key.name);
        let mut step = Step::done();
        step.write(Write::Update { object: Box::new(draft), part: Part::Status });
        step
    }
}
