//! What was delivered: log groups with their streams and events, as CloudWatch Logs keeps them, within
//! a bound; the oldest events go first.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use wharf_model::time::Time;

use crate::delivery::Delivered;

/// The most bytes of events that are kept: messages, and what it takes to keep them.
pub const BYTES_MAX: usize = 32 << 20;
/// What an event counts beside its message.
const EVENT_BYTES: usize = 128;

/// Log groups, streams and events.
#[derive(Debug)]
pub struct LogStore {
    groups: BTreeMap<Arc<str>, Group>,
    /// In the order of their times; of the same moment in that of their arrival.
    events: BTreeMap<(Time, u64), Event>,
    bytes: usize,
    bytes_max: usize,
    arrived: u64,
    dropped: u64,
}

/// A log group.
#[derive(Clone, Debug)]
pub struct Group {
    /// When it was made.
    pub created: Time,
    /// For how many days it keeps events, if somebody said so. Nothing goes by it here.
    pub retention_days: Option<u32>,
    /// Its streams.
    pub streams: BTreeMap<Arc<str>, Stream>,
}

/// A log stream.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// When it was made.
    pub created: Time,
    /// The time of its first event.
    pub first: Time,
    /// The time of its last event.
    pub last: Time,
    /// When an event arrived last.
    pub ingested: Time,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number: later arrivals have greater ones.
    pub number: u64,
    /// When it was printed.
    pub at: Time,
    /// When it arrived.
    pub ingested: Time,
    /// The log group.
    pub group: Arc<str>,
    /// The log stream.
    pub stream: Arc<str>,
    /// The message.
    pub message: String,
}

/// What of it is new with a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct New {
    /// The group was made.
    pub group: bool,
    /// The stream was made.
    pub stream: bool,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Of this group.
    pub group: &'a str,
    /// Of streams whose names begin so.
    pub stream_prefix: &'a str,
    /// Printed at this time or later.
    pub since: Time,
    /// That arrived after the one with this number.
    pub after: u64,
}

impl Default for LogStore {
    fn default() -> Self {
        Self::holding(BYTES_MAX)
    }
}

impl LogStore {
    /// One that keeps so many bytes.
    pub fn holding(bytes_max: usize) -> Self {
        let (groups, events) = Default::default();
        Self { groups, events, bytes: 0, bytes_max, arrived: 0, dropped: 0 }
    }

    /// Takes in what is delivered at `now` of a line that was printed at `at`.
    pub fn put(&mut self, delivered: Delivered, at: Time, now: Time) -> New {
        let Delivered { group, stream, message, retention_days } = delivered;
        let mut new = New::default();
        let (group_name, group): (Arc<str>, &mut Group) = {
            let name: Arc<str> = match self.groups.get_key_value(group.as_str()) {
                Some((name, _)) => Arc::clone(name),
                None => group.into(),
            };
            let group = self.groups.entry(Arc::clone(&name)).or_insert_with(|| {
                new.group = true;
                Group { created: now, retention_days: None, streams: BTreeMap::new() }
            });
            (name, group)
        };
        group.retention_days = retention_days.or(group.retention_days);
        let stream_name: Arc<str> = match group.streams.get_key_value(stream.as_str()) {
            Some((name, _)) => Arc::clone(name),
            None => stream.into(),
        };
        let stream = group.streams.entry(Arc::clone(&stream_name)).or_insert_with(|| {
            new.stream = true;
            Stream { created: now, first: at, last: at, ingested: now }
        });
        (stream.first, stream.last) = (stream.first.min(at), stream.last.max(at));
        stream.ingested = stream.ingested.max(now);
        self.arrived += 1;
        let number = self.arrived;
        self.bytes += message.len() + EVENT_BYTES;
        let event =
            Event { number, at, ingested: now, group: group_name, stream: stream_name, message };
        self.events.insert((at, number), event);
        while self.bytes > self.bytes_max
            && let Some((_, oldest)) = self.events.pop_first()
        {
            self.bytes -= oldest.message.len() + EVENT_BYTES;
            self.dropped += 1;
        }
        new
    }

    /// The groups, in the order of their names.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(name, group)| (&**name, group))
    }

    /// How many events had to go.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Events, in the order of their times.
    pub fn events<'s>(&'s self, wanted: &Wanted<'_>) -> impl Iterator<Item = &'s Event> {
        let (group, prefix, after) = (wanted.group, wanted.stream_prefix, wanted.after);
        let from = self.events.range((wanted.since, 0)..).map(|(_, event)| event);
        from.filter(move |event| {
            &*event.group == group && event.number > after && event.stream.starts_with(prefix)
        })
    }

    /// Groups and streams, named as in CloudWatch's API.
    pub fn describe(&self) -> Value {
        let groups = self.groups.iter().map(|(name, group)| {
            let streams = group.streams.iter().map(|(name, stream)| {
                json!({
                    "logStreamName": &**name,
                    "creationTime": milliseconds(stream.created),
                    "firstEventTimestamp": milliseconds(stream.first),
                    "lastEventTimestamp": milliseconds(stream.last),
                    "lastIngestionTime": milliseconds(stream.ingested),
                })
            });
            json!({
                "logGroupName": &**name,
                "creationTime": milliseconds(group.created),
                "retentionInDays": group.retention_days,
                "logStreams": streams.collect::<Vec<_>>(),
            })
        });
        json!({"logGroups": groups.collect::<Vec<_>>(), "dropped": self.dropped})
    }
}

impl Event {
    /// The event as `FilterLogEvents` gives it.
    pub fn filtered(&self) -> Value {
        json!({
            "logStreamName": &*self.stream,
            "timestamp": milliseconds(self.at),
            "message": self.message,
            "ingestionTime": milliseconds(self.ingested),
            "eventId": format!("{:056}", self.number),
        })
    }
}

fn milliseconds(time: Time) -> i64 {
    time.as_nanos() / 1_000_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delivered(group: &str, stream: &str, message: &str) -> Delivered {
        let (group, stream) = (group.to_owned(), stream.to_owned());
        Delivered { group, stream, message: message.to_owned(), retention_days: None }
    }

    #[test]
    fn events_are_found_by_group_stream_time_and_number() {
        let mut store = LogStore::default();
        let at = Time::from_seconds;
        assert_eq!(
            store.put(delivered("g", "web-1", "b"), at(20), at(30)),
            New { group: true, stream: true }
        );
        assert_eq!(
            store.put(delivered("g", "db-1", "a"), at(10), at(30)),
            New { group: false, stream: true }
        );
        assert!(store.put(delivered("other", "web-1", "x"), at(15), at(30)).group);
        assert_eq!(store.put(delivered("g", "web-1", "c"), at(30), at(31)), New::default());
        let found = |wanted: Wanted<'_>| {
            store.events(&wanted).map(|event| event.message.as_str()).collect::<String>()
        };
        assert_eq!(found(Wanted { group: "g", ..Wanted::default() }), "abc");
        let of_web = Wanted { group: "g", stream_prefix: "web", ..Wanted::default() };
        assert_eq!(found(of_web), "bc");
        assert_eq!(found(Wanted { group: "g", since: at(20), ..Wanted::default() }), "bc");
        assert_eq!(found(Wanted { group: "g", after: 2, ..Wanted::default() }), "c");
        let first = store.events(&Wanted { group: "g", ..Wanted::default() }).next();
        assert_eq!(
            first.expect("an event").filtered(),
            json!({"logStreamName": "db-1", "timestamp": 10_000, "message": "a",
                "ingestionTime": 30_000, "eventId": format!("{:056}", 2)})
        );
        let groups = store.describe();
        assert_eq!(groups["logGroups"][0]["logStreams"][1]["lastEventTimestamp"], 30_000);
    }

    proptest! {
        #[test]
        fn the_newest_stay_within_the_bound(times in proptest::collection::vec(0_i64..50, 1..80), most in 1_usize..20) {
            let mut store = LogStore::holding(most * (EVENT_BYTES + 1));
            for time in &times {
                store.put(delivered("g", "s", "m"), Time::from_seconds(*time), Time::from_seconds(60));
            }
            let kept: Vec<i64> = store.events(&Wanted { group: "g", ..Wanted::default() })
                .map(|event| event.at.as_seconds()).collect();
            prop_assert_eq!(kept.len(), times.len().min(most));
            prop_assert_eq!(store.dropped() as usize, times.len() - kept.len());
            prop_assert!(kept.is_sorted());
            prop_assert_eq!(kept.last(), times.iter().max());
        }
    }
}
