//! The lab's log groups: what containers on Fargate print, delivered as the map `aws-logging` says.
//!
//! Nothing is sent while nobody asks: what a container has printed is known from its pod at any time,
//! so it is taken in when somebody looks, and before it would get lost: when a container starts again,
//! and when its pod goes. The source of lines is that of `kubectl logs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Pod};
use parking_lot::Mutex;
use serde_json::{Value, json};
use wharf_fargate::delivery::{Delivery, Origin};
use wharf_fargate::log_store::{LogStore, Wanted};
use wharf_fargate::{LOGGING, logging};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::Change;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_server::{PodLogs as _, Query};
use wharf_store::Store;

use super::pod_logs::ModelledLogs;

/// The endpoint's name.
pub(super) const NAME: &str = "logs";
/// How long after it was printed a line arrives: Fluent Bit's interval.
const FLUSH: Duration = Duration::from_secs(1);
/// The annotation of a pod whose lines are delivered.
const ENABLED: &str = "LoggingEnabled";

/// What was delivered, and where it comes from.
pub(super) struct CollectedLogs {
    logs: Arc<ModelledLogs>,
    store: Store,
    cluster: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    delivered: LogStore,
    pods: BTreeMap<ObjectKey, Followed>,
}

/// A pod whose lines are delivered.
struct Followed {
    uid: String,
    /// By the map that was there when the pod came.
    delivery: Arc<Delivery>,
    /// How many lines of each container's run have been taken in.
    read: BTreeMap<(String, i32), u64>,
}

impl CollectedLogs {
    pub(super) fn new(logs: Arc<ModelledLogs>, store: Store, cluster: String) -> Self {
        Self { logs, store, cluster, state: Mutex::default() }
    }

    /// Follows pods that come, and takes in what would get lost.
    pub(super) fn observe(&self, now: Time, change: &Change) {
        if change.kind() != Kind::of::<Pod>() {
            return;
        }
        let key = change.key();
        if let Some(old) = change.old.as_ref().filter(|old| is_enabled(old))
            && change.new.as_ref().is_none_or(|new| starts_again(old, new))
        {
            self.take_in(&mut self.state.lock(), old, now, Duration::ZERO);
        }
        match &change.new {
            None => {
                self.state.lock().pods.remove(key);
            }
            Some(new) if is_enabled(new) => self.follow(&mut self.state.lock(), new),
            Some(_) => {}
        }
    }

    fn follow(&self, state: &mut State, pod: &Object) {
        let is_known = state.pods.get(pod.key()).is_some_and(|known| known.uid == pod.uid());
        if is_known {
            return;
        }
        let key = ObjectKey::namespaced(logging::NAMESPACE, logging::CONFIG_MAP);
        let map = self.store.get(Kind::of::<ConfigMap>(), &key);
        let data = map.and_then(|map| map.typed::<ConfigMap>()?.data.clone()).unwrap_or_default();
        // A map that is wrong by now was right when the pod was told that its lines are delivered; what
        // it was is gone with it.
        let delivery = logging::read(&data).map(|read| Delivery::of(&read)).unwrap_or_default();
        let followed = Followed {
            uid: pod.uid().to_owned(),
            delivery: Arc::new(delivery),
            read: BTreeMap::new(),
        };
        state.pods.insert(pod.key().clone(), followed);
    }

    /// Takes in what has arrived by now of all pods that are there.
    fn catch_up(&self, state: &mut State, now: Time) {
        let keys: Vec<ObjectKey> = state.pods.keys().cloned().collect();
        for key in keys {
            if let Some(pod) = self.store.get(Kind::of::<Pod>(), &key) {
                self.take_in(state, &pod, now, FLUSH);
            }
        }
    }

    /// Takes in what a pod's containers have printed and what was under way for so long.
    fn take_in(&self, state: &mut State, object: &Object, now: Time, flush: Duration) {
        let Some(pod) = object.typed::<Pod>() else { return };
        self.follow(state, object);
        let State { delivered, pods } = state;
        let Some(followed) = pods.get_mut(object.key()) else { return };
        for status in statuses(pod) {
            let run = (status.name.clone(), status.restart_count);
            let read = followed.read.entry(run).or_insert(0);
            let part = self.logs.read(object, &status.name, false, *read);
            let origin = Origin::of(pod, &status.name);
            for line in part.lines {
                let arrives = line.time + flush;
                if arrives > now {
                    break;
                }
                *read += 1;
                for arrived in followed.delivery.deliver(&origin, line.time, &line.text) {
                    let (group, stream) = (arrived.group.clone(), arrived.stream.clone());
                    let new = delivered.put(arrived, line.time, arrives);
                    if !followed.delivery.ships_own_log {
                        continue;
                    }
                    let mut says = Vec::new();
                    if new.group {
                        says.push(format!("Created log group {group}"));
                    }
                    if new.stream {
                        says.push(format!("Created log stream {stream} in log group {group}"));
                    }
                    for says in says {
                        let own =
                            followed.delivery.own_line(&self.cluster, &origin, arrives, &says);
                        delivered.put(own, arrives, arrives);
                    }
                }
            }
        }
    }
}

/// Answers what is asked of the groups: all of them, or one's events.
pub(super) fn answer(
    logs: &CollectedLogs,
    query: &Query<'_>,
    now: Time,
) -> Result<Value, ApiError> {
    let mut state = logs.state.lock();
    logs.catch_up(&mut state, now);
    let Some(group) = query.get("group") else {
        let mut described = state.delivered.describe();
        let mut notes: Vec<&String> =
            state.pods.values().flat_map(|followed| &followed.delivery.notes).collect();
        notes.sort();
        notes.dedup();
        described["notes"] = json!(notes);
        return Ok(described);
    };
    if !state.delivered.groups().any(|(name, _)| name == group) {
        let message = format!("The specified log group does not exist: {group}");
        return Err(ApiError::new(StatusReason::NotFound, message));
    }
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
    let since = number("since").map_or(Time::EPOCH, |nanos| now - Duration::from_nanos(nanos));
    let stream_prefix = query.get("stream").unwrap_or_default();
    let after = number("after").unwrap_or(0);
    let wanted = Wanted { group, stream_prefix, since, after };
    let events: Vec<_> = state.delivered.events(&wanted).collect();
    let last = events.iter().map(|event| event.number).max().unwrap_or(after);
    let events: Vec<Value> = events.into_iter().map(|event| event.filtered()).collect();
    Ok(json!({"events": events, "last": last}))
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    })
}

fn is_enabled(object: &Object) -> bool {
    let Some(pod) = object.typed::<Pod>() else { return false };
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(LOGGING)).is_some_and(|v| v == ENABLED)
}

/// Whether a container runs again, so that what it printed before is soon out of reach.
fn starts_again(old: &Object, new: &Object) -> bool {
    let (Some(old), Some(new)) = (old.typed::<Pod>(), new.typed::<Pod>()) else { return true };
    old.metadata.uid != new.metadata.uid
        || statuses(new).any(|status| {
            statuses(old).any(|before| {
                before.name == status.name && before.restart_count != status.restart_count
            })
        })
}
