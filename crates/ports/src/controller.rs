//! The shape of a controller: a step function that returns what it wants and never awaits.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::random::Random;
use wharf_model::time::Time;

use crate::cloud::{CloudEvent, CloudRequest};
use crate::cluster::{Change, Write};
use crate::error::ApiError;
use crate::extender::{ExtenderAnswer, ExtenderCall};
use crate::history::{HistoryAnswer, HistoryCall};
use crate::reason::Reason;
use crate::view::View;

/// What a controller works on: an object, or one of its own singletons.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkKey {
    /// The kind, for a controller that works on several; `None` for a singleton.
    pub kind: Option<Kind>,
    /// The object, or the singleton's name.
    pub key: ObjectKey,
}

impl WorkKey {
    /// Work on one object.
    pub fn object(kind: Kind, key: &ObjectKey) -> Self {
        Self { kind: Some(kind), key: key.clone() }
    }

    /// Work that is about no single object (a scheduling round, a disruption pass).
    pub fn singleton(name: &'static str) -> Self {
        Self { kind: None, key: ObjectKey::cluster(name) }
    }
}

/// What a step may look at.
pub struct Context<'a> {
    /// The cached world.
    pub view: &'a View,
    /// Cluster time.
    pub now: Time,
    /// The controller's own seeded generator.
    pub random: &'a mut Random,
}

/// What a step wants. An empty step is a good answer: nothing to do.
#[derive(Debug, Default)]
pub struct Step {
    /// Writes, carried out in this order.
    pub writes: Vec<Write>,
    /// Whether the writes stand alone: then all are attempted and each refusal is told. Otherwise
    /// the first refusal drops the rest, and the key is looked at afresh.
    pub independent: bool,
    /// Requests to the cloud.
    pub cloud: Vec<CloudRequest>,
    /// Questions to the scheduler's extenders.
    pub extender: Vec<ExtenderCall>,
    /// Questions for what containers used in the past.
    pub history: Vec<HistoryCall>,
    /// Look at this key again after so long, even if nothing changes.
    pub again: Option<Duration>,
    /// Look at other keys after so long.
    pub enqueue: Vec<(WorkKey, Duration)>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Lines for the component's own log, as its users read it with `kubectl logs`.
    pub logs: Vec<LogLine>,
}

impl Step {
    /// Nothing to do.
    pub fn done() -> Self {
        Self::default()
    }

    /// Nothing to do but to look again after `delay`.
    pub fn again_after(delay: Duration) -> Self {
        Self { again: Some(delay), ..Self::default() }
    }

    /// Adds a write.
    pub fn write(&mut self, write: Write) -> &mut Self {
        self.writes.push(write);
        self
    }
}

/// A line in the log of a component (`karpenter`) or of a container, complete as its users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The component whose log it is, or what [`container_log_name`] says.
    pub component: Cow<'static, str>,
    /// The line, without the line feed.
    pub line: String,
}

/// The name of the log of one run of a pod's container, of which a controller plays the program.
pub fn container_log_name(pod_uid: &str, container: &str, restarts: i32) -> String {
    format!("container/{pod_uid}/{container}/{restarts}")
}

/// Collects the keys that an event makes work for.
///
/// A key waits once, for the earliest moment asked for: a step that runs early must itself ask to
/// be called again for what is still ahead.
#[derive(Debug, Default)]
pub struct Enqueue {
    keys: Vec<(WorkKey, Duration)>,
}

impl Enqueue {
    /// Work on `key` now.
    pub fn now(&mut self, key: WorkKey) {
        self.keys.push((key, Duration::ZERO));
    }

    /// Work on `key` after `delay`.
    pub fn after(&mut self, key: WorkKey, delay: Duration) {
        self.keys.push((key, delay));
    }

    /// Takes what was collected.
    pub fn take(&mut self) -> Vec<(WorkKey, Duration)> {
        std::mem::take(&mut self.keys)
    }
}

/// A controller. Level-triggered: a step looks at the world as it is, not at what changed, so that
/// lost, repeated and late events and a restart between any two writes do no harm.
pub trait Controller: Send {
    /// Its name in logs and queues.
    fn name(&self) -> &'static str;

    /// The resources it looks at, as group and plural name; `None` for all there are. Over a remote
    /// cluster no others need be followed, nor allowed to be read. A resource that has no row in the
    /// table of kinds is passed over.
    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        None
    }

    /// Says which keys a change makes work for. Called for every change, after the view has it;
    /// at start it is called once for every object there is, as if just created.
    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue);

    /// Says which keys news from the cloud makes work for.
    fn observe_cloud(&mut self, _event: &CloudEvent, _view: &View, _queue: &mut Enqueue) {}

    /// Takes an extender's answer, and says which keys it makes work for.
    fn answered(&mut self, _answer: &ExtenderAnswer, _queue: &mut Enqueue) {}

    /// Takes an answer about the past, and says which keys it makes work for.
    fn recalled(&mut self, _answer: &HistoryAnswer, _queue: &mut Enqueue) {}

    /// Called once when the loop starts, before any change: timers of singletons begin here.
    fn start(&mut self, _queue: &mut Enqueue) {}

    /// Looks at one key and says what to do.
    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step;

    /// Told when a write of a step for `key` was carried out, with the version of the object it left
    /// behind, where that is known. The view may show it before or after.
    fn done(
        &mut self,
        _key: &WorkKey,
        _write: &Write,
        _left: Option<&Arc<Object>>,
        _queue: &mut Enqueue,
    ) {
    }

    /// Told when a write of a step for `key` was refused. The key is queued again with back-off
    /// unless this returns [`OnError::Forget`].
    fn refused(&mut self, _key: &WorkKey, _write: &Write, _error: &ApiError) -> OnError {
        OnError::Retry
    }
}

/// What the loop does with a key whose write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Queue it again with exponential back-off.
    Retry,
    /// Leave it to the next event.
    Forget,
}
