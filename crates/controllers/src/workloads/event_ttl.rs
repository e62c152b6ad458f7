//! Events go an hour after they were last seen: the API server's `--event-ttl`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use wharf_model::kinds::Kind;
use wharf_model::object::Object;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::view::View;

/// How long an Event is kept; upstream's default.
const TTL: Duration = Duration::from_hours(1);
/// Events are looked through this often, so they may stay a little longer than [`TTL`].
const SWEEP: Duration = Duration::from_secs(60);
/// The most deletions in one step.
const BATCH: usize = 2_000;

/// Removes old Events.
#[derive(Debug, Default)]
pub struct EventTtl {
    /// Whether a sweep is on the queue: without Events there is none.
    waiting: bool,
}

impl EventTtl {
    fn sweep() -> WorkKey {
        WorkKey::singleton("events")
    }
}

impl Controller for EventTtl {
    fn name(&self) -> &'static str {
        "event-ttl-controller"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<Event>() && !self.waiting {
            self.waiting = true;
            queue.after(Self::sweep(), SWEEP);
        }
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        let now = context.now;
        let mut step = Step { independent: true, ..Step::default() };
        let mut oldest: Option<Time> = None;
        for object in context.view.objects(Kind::of::<Event>()) {
            // The creation time is at hand; only Events that old are decoded.
            let mut seen = object.header().created;
            if seen + TTL <= now {
                seen = last_seen(object).max(seen);
            }
            if seen + TTL <= now && step.writes.len() < BATCH {
                step.write(Write::Delete(Delete::of(object)));
            } else {
                oldest = Some(oldest.map_or(seen, |oldest| oldest.min(seen)));
            }
        }
        self.waiting = oldest.is_some();
        step.again = oldest.map(|oldest| (oldest + TTL).since(now).max(SWEEP));
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, _error: &ApiError) -> OnError {
        OnError::Forget
    }
}

/// When the Event last happened, by whichever of its times says so.
fn last_seen(object: &Object) -> Time {
    let Some(event) = object.typed::<Event>() else { return Time::EPOCH };
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let last = event.last_timestamp.as_ref().map(Time::from);
    let micro = event.event_time.as_ref().map(Time::from);
    last.max(micro).max(series.map(Time::from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workloads::harness::World;

    fn event(name: &str, last: Time) -> serde_json::Value {
        json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {},
            "metadata": {"name": name, "namespace": "default"}, "lastTimestamp": last.to_string()})
    }

    #[test]
    fn events_go_an_hour_after_they_were_last_seen() {
        let mut world = World::new(vec![Box::new(EventTtl::default())]);
        let start = world.now;
        world.apply(event("once", start));
        world.apply(event("again", start + Duration::from_secs(1_800)));
        world.run_for(Duration::from_secs(3_500));
        assert_eq!(world.list::<Event>().len(), 2);
        world.run_for(Duration::from_secs(200));
        assert_eq!(world.list::<Event>().len(), 1);
        world.run_for(Duration::from_secs(1_900));
        assert_eq!(world.list::<Event>().len(), 0);
        let steps = world.steps;
        world.run_for(Duration::from_secs(86_400));
        assert_eq!(world.steps, steps, "without events there is nothing to look at");
    }
}
