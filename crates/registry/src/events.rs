//! Recording of Events as upstream's recorder does it: one object per thing said, and a count when
//! it is said again.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, EventSeries};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::{EVENT_TTL, EventRecord};

use crate::{Registry, WriteOptions, strategy};

/// How many things said are remembered to be counted; upstream's recorder has the same bound.
const SAID_MAX: usize = 4_096;
/// How many names are tried when several Events of one object fall on the same instant.
const NAMES_MAX: i64 = 64;

/// Which Event said what. Filled from the stored Events when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    is_filled: bool,
    said: FxHashMap<Saying, Said>,
    /// Counts what is remembered, to tell what was said longest ago.
    sequence: u64,
}

/// What makes one Event a repeat of another: all it says and of what, one after the other.
type Saying = String;

#[derive(Clone, Debug)]
struct Said {
    event: ObjectKey,
    last: Time,
    sequence: u64,
}

impl Registry {
    /// Records an Event; a repeat within its time to live raises the count of the one there is.
    ///
    /// # Errors
    /// The API's refusal, for instance if the namespace is being deleted.
    pub fn record(&self, record: &EventRecord) -> Result<Arc<Object>, ApiError> {
        let now = self.now();
        let mut recorder = self.recorder.lock();
        if !recorder.is_filled {
            recorder.fill(self, now);
        }
        let saying = Parts::of(record).saying();
        if let Some(said) =
            recorder.said.get(&saying).filter(|said| now.since(said.last) < record.counted())
        {
            let event = said.event.clone();
            match self.count_up(&event, now) {
                Ok(object) => {
                    recorder.remember(saying, event, now);
                    return Ok(object);
                }
                // It has been deleted meanwhile: say it anew.
                Err(error) if error.reason == StatusReason::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let object = self.say(record, now)?;
        recorder.remember(saying, object.key().clone(), now);
        Ok(object)
    }

    /// The Events that have been kept long enough by `now`, for a controller to delete.
    pub fn expired_events(&self, now: Time) -> Vec<ObjectKey> {
        let (events, _) = self.store.list(Kind::of::<Event>(), None);
        events
            .iter()
            .filter(|event| now.since(event.header().created) >= EVENT_TTL)
            .filter(|event| now.since(last_seen(event)) >= EVENT_TTL)
            .map(|event| event.key().clone())
            .collect()
    }

    fn count_up(&self, key: &ObjectKey, now: Time) -> Result<Arc<Object>, ApiError> {
        self.change(Kind::of::<Event>(), key, false, &|object| {
            let event = strategy::typed_mut::<Event>(object);
            if event.event_time.is_some() {
                let series = event.series.take().and_then(|series| series.count);
                event.series = Some(EventSeries {
                    count: Some(series.unwrap_or(1).saturating_add(1)),
                    last_observed_time: Some(now.to_micro()),
                });
            } else {
                event.count = Some(event.count.unwrap_or(1).saturating_add(1));
                event.last_timestamp = Some(now.to_meta());
            }
            Ok(())
        })
    }

    fn say(&self, record: &EventRecord, now: Time) -> Result<Arc<Object>, ApiError> {
        let mut refusal = None;
        for step in 0..NAMES_MAX {
            let event = record.to_event(now, now.as_nanos().saturating_add(step));
            match self.create(Box::new(event), &WriteOptions::default()) {
                Err(error) if error.reason == StatusReason::AlreadyExists => refusal = Some(error),
                other => return other,
            }
        }
        Err(refusal.unwrap_or_else(|| {
            ApiError::already_exists(Kind::of::<Event>(), &record.regarding.key.name)
        }))
    }
}

impl Recorder {
    fn fill(&mut self, registry: &Registry, now: Time) {
        let (events, _) = registry.store.list(Kind::of::<Event>(), None);
        let mut said: Vec<(Time, &Arc<Object>)> =
            events.iter().map(|object| (last_seen(object), object)).collect();
        said.retain(|(last, _)| now.since(*last) < EVENT_TTL);
        // What was said longest ago is the first to be forgotten.
        said.sort_by_key(|(last, _)| *last);
        for (last, object) in said {
            // Decoded aside, since the store keeps Events as JSON only.
            if let Ok(event) = serde_json::from_slice::<Event>(&object.json_unkept()) {
                self.remember(Parts::of_event(&event).saying(), object.key().clone(), last);
            }
        }
        self.is_filled = true;
    }

    fn remember(&mut self, saying: Saying, event: ObjectKey, now: Time) {
        self.sequence += 1;
        self.said.insert(saying, Said { event, last: now, sequence: self.sequence });
        if self.said.len() <= SAID_MAX {
            return;
        }
        self.said.retain(|_, said| now.since(said.last) < EVENT_TTL);
        if self.said.len() <= SAID_MAX {
            return;
        }
        // Forget the older half, so that forgetting is rare.
        let mut sequences: Vec<u64> = self.said.values().map(|said| said.sequence).collect();
        sequences.sort_unstable();
        let cut = sequences[sequences.len() / 2];
        self.said.retain(|_, said| said.sequence >= cut);
    }
}

/// What of an Event has to be the same in its repeats.
struct Parts<'a> {
    uid: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    field_path: &'a str,
    type_: &'a str,
    reason: &'a str,
    message: &'a str,
    component: &'a str,
    host: &'a str,
}

impl<'a> Parts<'a> {
    fn of(record: &'a EventRecord) -> Self {
        let EventRecord { regarding, .. } = record;
        Self {
            uid: &regarding.uid,
            kind: regarding.kind.kind,
            namespace: &regarding.key.namespace,
            name: &regarding.key.name,
            field_path: &regarding.field_path,
            type_: record.kind.word(),
            reason: &record.reason,
            message: &record.message,
            component: &record.component,
            host: &record.host,
        }
    }

    fn of_event(event: &'a Event) -> Self {
        fn text(field: Option<&String>) -> &str {
            field.map_or("", String::as_str)
        }
        let about = &event.involved_object;
        let source = event.source.as_ref();
        let component = source.and_then(|source| source.component.as_ref());
        Self {
            uid: text(about.uid.as_ref()),
            kind: text(about.kind.as_ref()),
            namespace: text(about.namespace.as_ref()),
            name: text(about.name.as_ref()),
            field_path: text(about.field_path.as_ref()),
            type_: text(event.type_.as_ref()),
            reason: text(event.reason.as_ref()),
            message: text(event.message.as_ref()),
            component: text(component.or(event.reporting_component.as_ref())),
            host: text(source.and_then(|source| source.host.as_ref())),
        }
    }

    /// The parts as one text, in which each is told from the next.
    fn saying(&self) -> Saying {
        let parts = [
            self.uid,
            self.kind,
            self.namespace,
            self.name,
            self.field_path,
            self.type_,
            self.reason,
            self.message,
            self.component,
            self.host,
        ];
        parts.join("\0")
    }
}

/// When an Event was last seen, read from its JSON without decoding the rest.
fn last_seen(event: &Object) -> Time {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time as MetaTime};
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Times {
        last_timestamp: Option<MetaTime>,
        event_time: Option<MicroTime>,
        series: Option<Series>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Series {
        last_observed_time: Option<MicroTime>,
    }
    let times: Times = serde_json::from_slice(&event.json_unkept()).unwrap_or_default();
    let series = times.series.and_then(|series| series.last_observed_time);
    [
        Some(event.header().created),
        times.last_timestamp.as_ref().map(Time::from),
        times.event_time.as_ref().map(Time::from),
        series.as_ref().map(Time::from),
    ]
    .into_iter()
    .flatten()
    .max()
    .unwrap_or_default()
}
