//! What a controller says of an object in the cluster's own Events.

use compact_str::CompactString;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};

/// The object an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regarding {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: CompactString,
    /// A part of it (`spec.containers{inflate}`); empty for the whole.
    pub field_path: String,
}

impl Regarding {
    /// The whole of `object`.
    pub fn object(object: &Object) -> Self {
        Self {
            kind: object.kind(),
            key: object.key().clone(),
            uid: object.uid().into(),
            field_path: String::new(),
        }
    }
}

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Worth knowing.
    Normal,
    /// Worth looking at.
    Warning,
}

/// One thing to say. The adapter turns repeats into a count, as upstream's recorder does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// What it is about.
    pub regarding: Regarding,
    /// Normal or Warning.
    pub kind: EventType,
    /// The reason word, upstream's: `Scheduled`.
    pub reason: String,
    /// The action word (`Binding`); empty for recorders of the old interface.
    pub action: String,
    /// The text, upstream's.
    pub message: String,
    /// Who says it: `default-scheduler`, `kubelet`, `karpenter`.
    pub component: String,
    /// On which host it is said; the node for kubelets, else empty.
    pub host: String,
}
