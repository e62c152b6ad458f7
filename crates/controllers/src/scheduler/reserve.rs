//! What plugins set aside for a pod that has a node, and do before it is bound: the Reserve and
//! PreBind extension points.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::{ObjectKey, Revision};
use wharf_model::time::Time;
use wharf_ports::cluster::Write;
use wharf_ports::view::View;
use wharf_scheduler::{DeviceNews, Plugin, PodInfo, Profile, Snapshot};

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

    /// The work has taken longer, and the pod will be turned down. Returns what is said of that;
    /// `None` to say just that.
    fn give_up(&mut self, _pod: &PodInfo, _snapshot: &mut Snapshot) -> Option<&'static str> {
        None
    }

    /// The drivers for whose devices the pod waits or has waited before its binding.
    fn drivers_awaited(&self, _pod: &PodInfo, _view: &View) -> Vec<CompactString> {
        Vec::new()
    }

    /// The pods (uids) in PreBind that a change of this object concerns.
    fn concerned(&self, kind: Kind, key: &ObjectKey) -> Vec<CompactString>;

    /// The snapshot was built anew: tells it again what is set aside.
    fn renew(&mut self, snapshot: &mut Snapshot);

    /// A write of its was answered. Returns whether a round is to look what follows.
    fn written(&mut self, _write: &Write, _outcome: WriteOutcome) -> bool {
        false
    }

    /// Gives back what pods have left behind of which it is clear by now what has become. Asked in
    /// every round as long as there is any.
    fn settle(&mut self, _snapshot: &mut Snapshot, _view: &View, _now: Time) -> Settled {
        Settled::default()
    }

    /// When there will be something to settle though nothing changes.
    fn settles_at(&self) -> Option<Time> {
        None
    }

    /// Whether anything that a pod has left behind waits for being settled.
    fn is_unsettled(&self) -> bool {
        false
    }
}

/// What has been given back.
#[derive(Debug, Default)]
pub struct Settled {
    /// News for others.
    pub news: Vec<DeviceNews>,
    /// What is to be written to find out about the rest.
    pub writes: Vec<Write>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It was carried out, and left this revision of the object behind.
    Done(Option<Revision>),
    /// It was not carried out.
    Refused,
    /// The answer leaves that open.
    Doubted,
}

/// How a plugin's work before a binding stands.
#[derive(Debug)]
pub enum PreBind {
    /// Done: as far as it is concerned the pod may be bound.
    Done,
    /// Under way.
    Waits(Waiting),
    /// It came to nothing.
    Failed(Refusal),
}

/// What a plugin's work is waiting for.
#[derive(Debug, Default)]
pub struct Waiting {
    /// What is to be written now.
    pub writes: Vec<Write>,
    /// When the wait began, if that was before this pod's turn.
    pub since: Option<Time>,
    /// What is to be told of it now: an Event's reason and message.
    pub event: Option<(&'static str, String)>,
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

/// Which pods (by uid) wait for which objects: whom a change of one concerns.
#[derive(Debug)]
pub(super) struct Concerned<K>(FxHashMap<K, Vec<CompactString>>);

impl<K> Default for Concerned<K> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<K: Eq + Hash> Concerned<K> {
    /// A pod waits for an object.
    pub(super) fn add(&mut self, object: K, pod: &CompactString) {
        self.0.entry(object).or_default().push(pod.clone());
    }

    /// It waits for it no more.
    pub(super) fn remove(&mut self, object: &K, pod: &str) {
        if let Some(pods) = self.0.get_mut(object) {
            pods.retain(|uid| uid != pod);
            if pods.is_empty() {
                self.0.remove(object);
            }
        }
    }

    /// The pods that wait for an object, in the order in which they came.
    pub(super) fn of(&self, object: &K) -> &[CompactString] {
        self.0.get(object).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
