//! What plugins set aside for a pod that has a node, and do before it is bound: the Reserve and
//! PreBind extension points.

use std::fmt;
use std::time::Duration;

use compact_str::CompactString;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::Write;
use wharf_ports::view::View;
use wharf_scheduler::{Plugin, PodInfo, Profile, Snapshot};

/// A plugin with a part between the decision and the binding. Whatever it holds goes with the pod:
/// each [`Reserver::reserve`] that succeeded is followed by one [`Reserver::unreserve`] or one
/// [`Reserver::bound`].
pub trait Reserver: fmt::Debug + Send {
    /// Which plugin it is.
    fn plugin(&self) -> Plugin;

    /// Reserve: sets aside what the pod needs on the node. Returns whether there is work to do
    /// before the binding.
    fn reserve(
        &mut self,
        pod: &PodInfo,
        node: &str,
        snapshot: &mut Snapshot,
        view: &View,
    ) -> Result<bool, Refusal>;

    /// Gives back what was set aside: the pod does not go to the node.
    fn unreserve(&mut self, pod: &PodInfo, snapshot: &mut Snapshot);

    /// The cluster shows the pod on its node: what was set aside is now to be seen there.
    fn bound(&mut self, pod: &PodInfo, snapshot: &mut Snapshot);

    /// PreBind: what is still to be done. Asked once when the pod is let go, and again when
    /// something that concerns it has changed.
    fn pre_bind(
        &mut self,
        pod: &PodInfo,
        node: &str,
        snapshot: &mut Snapshot,
        view: &View,
        now: Time,
    ) -> PreBind;

    /// How long the work may take.
    fn patience(&self, profile: &Profile) -> Duration;

    /// The pods (uids) in PreBind that a change of this object concerns.
    fn concerned(&self, kind: Kind, key: &ObjectKey) -> Vec<CompactString>;

    /// The snapshot was built anew: tells it again what is set aside.
    fn renew(&mut self, snapshot: &mut Snapshot);
}

/// How a plugin's work before a binding stands.
#[derive(Debug)]
pub enum PreBind {
    /// Done: as far as it is concerned the pod may be bound.
    Done,
    /// Under way, with these writes now.
    Waits(Vec<Write>),
    /// It came to nothing.
    Failed(Refusal),
}

/// Why a pod does not go to the node that was chosen for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A plugin turned it down; its news may bring it back.
    Rejected(String),
    /// A plugin turned it down for now: what it waits for is under way, and when its news comes the
    /// pod is tried again without a backoff.
    Pending(String),
    /// Something went wrong; it is tried again after a while.
    Error(String),
}
