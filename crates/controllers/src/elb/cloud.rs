//! Elastic Load Balancing's own part: a load balancer has its name in DNS at once and becomes active
//! minutes later. One that was deleted is kept for a day, as machines are.

use std::time::Duration;

use wharf_model::balancing::{ACTIVE, DELETED, LoadBalancer, PROVISIONING};
use wharf_model::kinds::Kind;
use wharf_model::object::Object;
use wharf_model::random::{Random, fnv1a};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::view::View;

/// Modelled: how long it takes to become active, in milliseconds. People see two to three minutes.
const PROVISIONING_MILLISECONDS: (u64, u64) = (110_000, 170_000);
const KEPT: Duration = Duration::from_hours(24);

/// The controller.
pub(super) struct Balancers;

/// How long a load balancer of this name takes to become active.
pub(super) fn provisioning_time(name: &str) -> Duration {
    let (least, most) = PROVISIONING_MILLISECONDS;
    Duration::from_millis(Random::new(1, fnv1a(name.as_bytes())).between(least, most))
}

impl Controller for Balancers {
    fn name(&self) -> &'static str {
        "elastic load balancing"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[("sim.wharf.dev", "loadbalancers")])
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<LoadBalancer>() && change.new.is_some() {
            queue.now(WorkKey::object(change.kind(), change.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<LoadBalancer>(), &key.key);
        let Some((object, balancer)) =
            object.and_then(|object| Some((object, object.typed::<LoadBalancer>()?)))
        else {
            return Step::done();
        };
        let now = context.now;
        match balancer.status.state.as_str() {
            ACTIVE => Step::done(),
            DELETED => forget(object, balancer, now),
            _ => provision(balancer, now),
        }
    }
}

fn provision(balancer: &LoadBalancer, now: Time) -> Step {
    let mut step = Step::done();
    let name = balancer.metadata.name.as_deref().unwrap_or_default();
    let mut draft = balancer.clone();
    let created = *draft.status.created_at_nanos.get_or_insert(now.as_nanos());
    let due = Time::from_nanos(created) + provisioning_time(name);
    if due <= now {
        draft.status.state = ACTIVE.to_owned();
        draft.status.active_at_nanos = Some(now.as_nanos());
    } else {
        draft.status.state = PROVISIONING.to_owned();
        step.again = Some(due.since(now));
    }
    if draft != *balancer {
        step.write(Write::Update { object: Box::new(draft), part: Part::Status });
    }
    step
}

fn forget(object: &Object, balancer: &LoadBalancer, now: Time) -> Step {
    let deleted = Time::from_nanos(balancer.status.deleted_at_nanos.unwrap_or_default());
    let due = deleted + KEPT;
    if now < due {
        return Step::again_after(due.since(now));
    }
    let mut step = Step::done();
    step.write(Write::Delete(Delete::of(object)));
    step
}
