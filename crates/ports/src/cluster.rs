//! The Cluster port: writes as values with preconditions; changes and outcomes as events.

use std::fmt;
use std::sync::Arc;

use compact_str::CompactString;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Revision, Typed};

use crate::error::ApiError;
use crate::event::EventRecord;
use crate::view::View;

/// Which part of an object an update replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Metadata and spec; the stored status stays. What `PUT` on the object does.
    Main,
    /// The status; metadata and spec stay. What `PUT` on the `status` subresource does.
    Status,
    /// Both at once. Over a remote API this is two requests.
    All,
    /// What the containers of a pod ask for and are limited to; all else stays. What `PUT` on the
    /// `resize` subresource does.
    Resize,
    /// The conditions that approve or deny a CertificateSigningRequest; all else stays. What `PUT` on
    /// the `approval` subresource does.
    Approval,
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Garbage collection deletes them afterwards.
    #[default]
    Background,
    /// The object stays until its blocking dependents are gone.
    Foreground,
    /// They stay and lose their owner reference.
    Orphan,
}

/// A change asked for by a controller.
///
/// An update whose object carries a `resourceVersion` is refused if the stored one differs; one
/// without replaces whatever is there.
pub enum Write {
    /// Create an object; `generateName` is honoured.
    Create(Box<dyn Typed>),
    /// Replace a part of an object.
    Update {
        /// The new object.
        object: Box<dyn Typed>,
        /// Which part of it counts.
        part: Part,
    },
    /// Delete an object, gracefully and with respect to finalizers.
    Delete(Delete),
    /// Bind a pod to a node (`pods/binding`).
    Bind {
        /// The pod.
        pod: ObjectKey,
        /// Its uid: a pod recreated under the same name is not bound.
        uid: CompactString,
        /// The node's name.
        node: CompactString,
    },
    /// Set the number of replicas of a workload (its `scale` subresource), whatever else of it has
    /// changed meanwhile.
    Scale {
        /// The workload's kind.
        kind: Kind,
        /// Which workload.
        key: ObjectKey,
        /// Its uid.
        uid: CompactString,
        /// How many.
        replicas: i32,
    },
    /// Evict a pod (`pods/eviction`): a deletion that disruption budgets may refuse.
    Evict {
        /// The pod.
        pod: ObjectKey,
        /// Its uid.
        uid: CompactString,
    },
    /// Record an Event.
    Record(EventRecord),
}

/// A deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Kind of the object.
    pub kind: Kind,
    /// Which object.
    pub key: ObjectKey,
    /// Only if it has this uid.
    pub uid: Option<CompactString>,
    /// Only if it is at this revision.
    pub revision: Option<Revision>,
    /// Grace period for pods in seconds; `None` is the pod's own.
    pub grace_seconds: Option<i64>,
    /// What happens to dependents.
    pub propagation: Propagation,
}

impl Delete {
    /// The deletion of exactly the object that was seen.
    pub fn of(object: &Object) -> Self {
        Self {
            kind: object.kind(),
            key: object.key().clone(),
            uid: Some(object.uid().into()),
            revision: None,
            grace_seconds: None,
            propagation: Propagation::Background,
        }
    }

    /// The same with a grace period.
    #[must_use]
    pub fn with_grace(mut self, seconds: i64) -> Self {
        self.grace_seconds = Some(seconds);
        self
    }
}

impl Write {
    /// What the write is about: kind and key (the generated name is not known yet on create).
    pub fn subject(&self) -> (Kind, ObjectKey) {
        match self {
            Self::Create(object) | Self::Update { object, .. } => {
                (object.kind(), ObjectKey::of(object.meta()))
            }
            Self::Delete(delete) => (delete.kind, delete.key.clone()),
            Self::Scale { kind, key, .. } => (*kind, key.clone()),
            Self::Bind { pod, .. } | Self::Evict { pod, .. } => {
                (Kind::of::<k8s_openapi::api::core::v1::Pod>(), pod.clone())
            }
            Self::Record(record) => (record.regarding.kind, record.regarding.key.clone()),
        }
    }

    /// The verb, for logs and traces.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update { part: Part::Status, .. } => "update status of",
            Self::Update { part: Part::Resize, .. } => "resize",
            Self::Update { part: Part::Approval, .. } => "approve",
            Self::Update { .. } => "update",
            Self::Delete(_) => "delete",
            Self::Bind { .. } => "bind",
            Self::Scale { .. } => "scale",
            Self::Evict { .. } => "evict",
            Self::Record(_) => "record event on",
        }
    }
}

impl Clone for Write {
    fn clone(&self) -> Self {
        match self {
            Self::Create(object) => Self::Create(object.clone_box()),
            Self::Update { object, part } => {
                Self::Update { object: object.clone_box(), part: *part }
            }
            Self::Delete(delete) => Self::Delete(delete.clone()),
            Self::Bind { pod, uid, node } => {
                Self::Bind { pod: pod.clone(), uid: uid.clone(), node: node.clone() }
            }
            Self::Scale { kind, key, uid, replicas } => {
                Self::Scale { kind: *kind, key: key.clone(), uid: uid.clone(), replicas: *replicas }
            }
            Self::Evict { pod, uid } => Self::Evict { pod: pod.clone(), uid: uid.clone() },
            Self::Record(record) => Self::Record(record.clone()),
        }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key) = self.subject();
        write!(f, "{} {kind} {key}", self.verb())
    }
}

/// One change of one object, in the order of revisions.
#[derive(Clone, Debug)]
pub struct Change {
    /// The revision of the change.
    pub revision: Revision,
    /// What the object was; `None` when it was created.
    pub old: Option<Arc<Object>>,
    /// What it is now; `None` when it was deleted.
    pub new: Option<Arc<Object>>,
}

impl Change {
    /// The newer of the two versions there are.
    pub fn object(&self) -> &Arc<Object> {
        match (&self.new, &self.old) {
            (Some(object), _) | (None, Some(object)) => object,
            (None, None) => unreachable!("invariant: a change has at least one version"),
        }
    }

    /// The kind of the object.
    pub fn kind(&self) -> Kind {
        self.object().kind()
    }

    /// The key of the object.
    pub fn key(&self) -> &ObjectKey {
        self.object().key()
    }
}

/// Names a write until its outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// What the cluster tells its reader.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// An object changed.
    Changed(Change),
    /// A write was carried out or refused. The object is the version it left behind, if any.
    Outcome {
        /// The write.
        id: WriteId,
        /// What became of it.
        result: Result<Option<Arc<Object>>, ApiError>,
    },
}

/// A cluster, for the event loop that owns it: takes writes, gives events. Never blocks.
pub trait Cluster {
    /// Asks for a write; its outcome comes as an event with the same id. The write is shared with
    /// whoever waits for the outcome.
    fn submit(&mut self, id: WriteId, write: Arc<Write>);

    /// Appends the events since the last call, in order. Events may be repeated after a
    /// reconnection; they are never reordered for one object. `view` is what the reader has made of
    /// those so far.
    fn poll(&mut self, view: &View, events: &mut Vec<ClusterEvent>);

    /// Whether events are under way that a later [`Cluster::poll`] will give without anybody doing
    /// anything. Only adapters that delay events (fault injection) say so.
    fn pending(&self) -> bool {
        false
    }
}
