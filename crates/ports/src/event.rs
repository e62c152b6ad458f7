//! What a controller says of an object in the cluster's own Events.

use std::collections::BTreeMap;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;

/// How long the API server keeps an Event after it was last seen (`--event-ttl`).
pub const EVENT_TTL: Duration = Duration::from_secs(3_600);
/// How long after its last occurrence a series is over for upstream's recorder.
const SERIES_WINDOW: Duration = Duration::from_secs(360);

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

    /// As an Event refers to it.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.kind.api_version()),
            kind: Some(self.kind.kind.to_owned()),
            namespace: optional(&self.key.namespace),
            name: Some(self.key.name.to_string()),
            uid: optional(&self.uid),
            field_path: optional(&self.field_path),
            ..ObjectReference::default()
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

impl EventType {
    /// As an Event writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One thing to say. The adapter turns repeats into a count, as upstream's recorder does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// What it is about.
    pub regarding: Regarding,
    /// Another object that has to do with it: the pod for which one was preempted.
    pub related: Option<Box<Regarding>>,
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
    /// Annotations of the Event, for programs that read it.
    pub annotations: BTreeMap<String, String>,
}

impl EventRecord {
    /// Whether it is said through the newer interface (`events.k8s.io`), as upstream's scheduler
    /// does: then its Event has an `eventTime` and, once it repeats, a series; the older fields for
    /// the source, the times and the count stay empty.
    pub fn is_of_series(&self) -> bool {
        !self.action.is_empty()
    }

    /// How long after it was last said it still counts as a repeat; later it is an Event anew.
    pub fn counted(&self) -> Duration {
        if self.is_of_series() { SERIES_WINDOW } else { EVENT_TTL }
    }

    /// The Event that says it for the first time, at `now`. Its name is the object's and a stamp,
    /// as upstream's recorder names Events.
    pub fn to_event(&self, now: Time, stamp: i64) -> Event {
        let (regarding, series) = (&self.regarding, self.is_of_series());
        // Events of cluster-scoped objects live in the default namespace.
        let namespace = optional(&regarding.key.namespace).unwrap_or_else(|| "default".to_owned());
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{stamp:x}", regarding.key.name)),
                namespace: Some(namespace),
                annotations: Some(self.annotations.clone()).filter(|all| !all.is_empty()),
                ..ObjectMeta::default()
            },
            involved_object: regarding.reference(),
            related: self.related.as_ref().map(|related| related.reference()),
            reason: Some(self.reason.clone()),
            message: Some(self.message.clone()),
            type_: Some(self.kind.word().to_owned()),
            action: optional(&self.action),
            count: (!series).then_some(1),
            first_timestamp: (!series).then(|| now.to_meta()),
            last_timestamp: (!series).then(|| now.to_meta()),
            event_time: series.then(|| now.to_micro()),
            source: Some(if series {
                EventSource::default()
            } else {
                EventSource { component: optional(&self.component), host: optional(&self.host) }
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.instance()),
            ..Event::default()
        }
    }

    /// Which copy of the component says it. Recorders of the new interface name themselves and
    /// their host; those of the old one only the host.
    fn instance(&self) -> String {
        match (self.is_of_series(), self.host.as_str()) {
            (false, host) => host.to_owned(),
            (true, "") => format!("{}-{HOST}", self.component),
            (true, host) => format!("{}-{host}", self.component),
        }
    }
}

/// Where recorders of the new interface run that name no host: the one process there is.
const HOST: &str = "wharf";

fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
