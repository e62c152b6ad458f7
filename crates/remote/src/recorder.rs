//! Records Events as upstream's recorder does: in the background, a repeat as a higher count, and
//! rather lost than in anybody's way.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use k8s_openapi::api::core::v1::Event;
use serde_json::json;
use tokio::sync::mpsc;
use wharf_model::kinds::Kind;
use wharf_model::object::{ObjectKey, Typed as _};
use wharf_model::time::Time;
use wharf_ports::clock::Clock;
use wharf_ports::error::StatusReason;
use wharf_ports::event::{EVENT_TTL, EventRecord};

use crate::api::{Api, Failure, Request};
use crate::{path, requests};

/// Events that wait to be sent; more are dropped, as upstream's broadcaster drops them.
pub(crate) const WAITING_MAX: usize = 1_000;
/// How many things said are remembered to be counted; upstream's recorder has the same bound.
const SAID_MAX: usize = 4_096;
/// How many names are tried when several Events of one object fall on the same instant.
const NAMES_MAX: i64 = 8;

/// Sends what comes until no more can come.
pub(crate) async fn run(api: Api, mut records: mpsc::Receiver<EventRecord>, clock: Arc<dyn Clock>) {
    let mut recorder = Recorder { api, said: HashMap::new() };
    while let Some(record) = records.recv().await {
        recorder.record(&record, clock.now()).await;
    }
}

struct Recorder {
    api: Api,
    said: HashMap<Saying, Said>,
}

/// What makes one Event a repeat of another.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Saying {
    uid: String,
    namespace: String,
    name: String,
    field_path: String,
    type_: &'static str,
    reason: String,
    message: String,
    component: String,
    host: String,
}

struct Said {
    event: ObjectKey,
    count: i32,
    last: Time,
}

impl Recorder {
    async fn record(&mut self, record: &EventRecord, now: Time) {
        let saying = Saying::of(record);
        if let Some(said) = self.said.get_mut(&saying)
            && now.since(said.last) < record.counted()
        {
            said.count = said.count.saturating_add(1);
            said.last = now;
            let body = if record.is_of_series() {
                json!({"series": {"count": said.count, "lastObservedTime": now.to_micro()}})
            } else {
                json!({"count": said.count, "lastTimestamp": now.to_string()})
            };
            let path = path::object(Kind::of::<Event>(), &said.event);
            let patch = Request::send(Method::PATCH, path, requests::MERGE_PATCH, body.to_string());
            match self.api.call(&patch).await {
                // It has been deleted meanwhile: say it anew.
                Err(Failure::Refused(error)) if error.reason == StatusReason::NotFound => {}
                // Sent or lost, it is over.
                _ => return,
            }
        }
        for step in 0..NAMES_MAX {
            let event = record.to_event(now, now.as_nanos().saturating_add(step));
            match self.api.call(&requests::create(&event)).await {
                Err(Failure::Refused(error)) if error.reason == StatusReason::AlreadyExists => {}
                Err(_) => return,
                Ok(_) => {
                    let said = Said { event: ObjectKey::of(event.meta()), count: 1, last: now };
                    self.remember(saying, said);
                    return;
                }
            }
        }
    }

    fn remember(&mut self, saying: Saying, said: Said) {
        let now = said.last;
        self.said.insert(saying, said);
        if self.said.len() > SAID_MAX {
            self.said.retain(|_, said| now.since(said.last) < EVENT_TTL / 2);
        }
        if self.said.len() > SAID_MAX {
            // What is forgotten is told as a new Event when it is said again: harmless.
            self.said.clear();
        }
    }
}

impl Saying {
    fn of(record: &EventRecord) -> Self {
        let regarding = &record.regarding;
        Self {
            uid: regarding.uid.to_string(),
            namespace: regarding.key.namespace.to_string(),
            name: regarding.key.name.to_string(),
            field_path: regarding.field_path.clone(),
            type_: record.kind.word(),
            reason: record.reason.clone(),
            message: record.message.clone(),
            component: record.component.clone(),
            host: record.host.clone(),
        }
    }
}
