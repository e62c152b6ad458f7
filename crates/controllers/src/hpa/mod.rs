//! The Horizontal Pod Autoscaler's controller: drives the core in `wharf-autoscale`, one pass per
//! autoscaler every sync period.
//!
//! Passes take place at fixed cluster times, whole periods after the autoscaler's creation, so that
//! neither a restart nor the speed of the clock moves them. As upstream, a new autoscaler waits one
//! period for its first pass, and nothing that happens between two passes makes one.
//!
//! A pass writes in its middle: what a count came to decides what the status says. The step writes
//! as if all went well; if the scale is refused, the rest is dropped, the memory taken back, and
//! the step right after it says what happened instead.

mod beside;
mod index;
mod reasons;
mod source;
mod target;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use rustc_hash::FxHashMap;
pub use wharf_autoscale::hpa::Config;
use wharf_autoscale::hpa::{self, Memory, Outcome, Pass, begin};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_model::vpa::VerticalPodAutoscaler;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::metrics::Metrics;
use wharf_ports::view::View;

use crate::workloads::event;
pub use beside::{PREDICT, PREDICT_AHEAD, PREDICT_HISTORY, PREDICT_SEASON};
use beside::{Remembered, Vertical};
use index::Index;
use source::Seen;
use target::Target;

/// The controller's name, upstream's.
pub const NAME: &str = "horizontal-pod-autoscaler-controller";
const COMPONENT: &str = "horizontal-pod-autoscaler";
/// The reason of Events about annotations that cannot be read.
const INVALID: &str = "InvalidPrediction";
/// How long a pass is put off whose metrics have been sent for.
const DEFERRED: Duration = Duration::from_secs(1);

/// The controller.
pub struct HorizontalPodAutoscalers {
    config: Config,
    metrics: Arc<dyn Metrics>,
    index: Index,
    vertical: Vertical,
    known: FxHashMap<ObjectKey, Known>,
}

/// What is remembered of an autoscaler. A restart loses it, as upstream's does, but for what was
/// asked for, where that is forecast.
struct Known {
    uid: CompactString,
    memory: Memory,
    /// When its next pass is due.
    next: Time,
    /// The pass whose scale is being written, with its time and the memory from before.
    open: Option<(Pass, Time, Memory)>,
    refused: Option<Refused>,
    /// The pass whose scale failed, as far as anybody heard, with its time.
    failed: Option<(Pass, Time)>,
    /// What was asked for before, if it is to be forecast.
    remembered: Remembered,
    /// What was said to be wrong with its annotations.
    problem: Option<String>,
}

/// A write of a pass that was refused.
enum Refused {
    Scale(String),
    Status(String),
}

impl HorizontalPodAutoscalers {
    /// A controller that has seen nothing.
    pub fn new(config: Config, metrics: Arc<dyn Metrics>) -> Self {
        Self {
            config,
            metrics,
            index: Index::default(),
            vertical: Vertical::default(),
            known: FxHashMap::default(),
        }
    }

    fn pass(
        &mut self,
        object: &Object,
        autoscaler: &HorizontalPodAutoscaler,
        context: &Context<'_>,
    ) -> Step {
        let (view, now, key) = (context.view, context.now, object.key());
        let target = target::find(autoscaler, view);
        // An autoscaler whose selector cannot be read is over no pods.
        let selector = target.as_ref().ok().map(|target| &target.scale.selector);
        match selector.filter(|text| !text.is_empty()).map(|text| Selector::parse(text)) {
            Some(Ok(selector)) => self.index.watch(key, selector),
            _ => self.index.forget(key),
        }
        let Some(known) = self.known.get_mut(key) else { return Step::done() };
        if let (Some((failed, at)), Ok(target)) = (known.failed.take(), &target)
            && failed.scale_to == Some(target.scale.spec_replicas)
        {
            failed.came_about(&mut known.memory, autoscaler, at);
        }
        let mut extra = Vec::new();
        let (settings, problem) = beside::settings(autoscaler);
        let is_news = problem.is_some() && problem != known.problem;
        known.problem = problem;
        let remembered = &mut known.remembered;
        let forecast = settings.and_then(|settings| {
            remembered.read(autoscaler, &settings, now);
            remembered.history.forecast(&settings, now)
        });
        let floor = forecast.map(|forecast| forecast.floor.min(autoscaler.spec.max_replicas));
        let shared =
            target.as_ref().ok().and_then(|target| self.vertical.base(autoscaler, target, view));
        let base = shared.map(|(template, resources, because)| {
            extra.push(because);
            (template, resources)
        });
        let seen = Seen {
            view,
            index: &self.index,
            metrics: &*self.metrics,
            namespace: &key.namespace,
            now,
            base,
            floor,
            found: OnceCell::new(),
        };
        let scale = target.as_ref().map(|target| &target.scale).map_err(String::as_str);
        let deferred = self.metrics.deferred().map(|count| (count, known.memory.clone()));
        let pass = begin(&self.config, &mut known.memory, autoscaler, scale, &seen, now);
        drop(seen);
        if let Some((count, memory)) = deferred
            && self.metrics.deferred() != Some(count)
        {
            // It did not take place: the one that has its metrics will, in a moment.
            known.memory = memory;
            known.next = known.next.min(now + DEFERRED);
            return Step::done();
        }
        let mut step = Step::done();
        if let Some(problem) = known.problem.as_ref().filter(|_| is_news) {
            step.write(event(object, EventType::Warning, COMPONENT, INVALID, problem.clone()));
        }
        if let Some(settings) = settings {
            if let Some(proposed) = pass.proposed {
                known.remembered.observe(autoscaler, &settings, now, proposed, floor);
            }
            extra.push(beside::told(forecast, &known.remembered.history));
        }
        step.reasons.push(reasons::of_pass(object.kind(), key, &pass, extra));
        let before = known.memory.clone();
        if let (Some(replicas), Ok(target)) = (pass.scale_to, target) {
            let Target { kind, key, uid, .. } = target;
            step.write(Write::Scale { kind, key, uid, replicas });
            known.open = Some((pass.clone(), now, before));
        }
        let outcome = pass.finish(&self.config, &mut known.memory, autoscaler, Ok(()), now);
        tell(&mut step, object, autoscaler, outcome);
        step
    }
}

impl Controller for HorizontalPodAutoscalers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[
            ("autoscaling", "horizontalpodautoscalers"),
            ("", "pods"),
            ("", "replicationcontrollers"),
            ("apps", "deployments"),
            ("apps", "replicasets"),
            ("apps", "statefulsets"),
        ])
    }

    fn observe(&mut self, change: &Change, _: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<VerticalPodAutoscaler>() {
            self.vertical.take(change.old.as_deref(), change.new.as_deref());
        } else if change.kind() == Kind::of::<HorizontalPodAutoscaler>() {
            if change.new.is_none() {
                self.known.remove(change.key());
                self.index.forget(change.key());
            } else if !self.known.contains_key(change.key()) {
                queue.now(WorkKey::object(change.kind(), change.key()));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let now = context.now;
        let object = context.view.object(Kind::of::<HorizontalPodAutoscaler>(), &key.key);
        let Some((object, autoscaler)) =
            object.and_then(|object| Some((object, object.typed::<HorizontalPodAutoscaler>()?)))
        else {
            self.known.remove(&key.key);
            self.index.forget(&key.key);
            return Step::done();
        };
        let due = |now| next_pass(object.header().created, self.config.sync_period, now);
        let known =
            self.known.entry(key.key.clone()).or_insert_with(|| Known::new(object, due(now)));
        if known.uid != object.uid() {
            *known = Known::new(object, due(now));
        }
        let open = known.open.take();
        let mut step = match (known.refused.take(), open) {
            (Some(Refused::Scale(error)), Some((pass, at, before))) => {
                known.memory = before;
                known.failed = Some((pass.clone(), at));
                let mut step = Step::done();
                let (config, memory) = (&self.config, &mut known.memory);
                let outcome = pass.finish(config, memory, autoscaler, Err(&error), now);
                tell(&mut step, object, autoscaler, outcome);
                step
            }
            (Some(Refused::Status(error)), _) => {
                let mut step = Step::done();
                let reason = "FailedUpdateStatus";
                step.write(event(object, EventType::Warning, COMPONENT, reason, error));
                step
            }
            _ => Step::done(),
        };
        if now >= known.next {
            known.next = due(now);
            let writes = std::mem::take(&mut step.writes);
            step = self.pass(object, autoscaler, context);
            step.writes.splice(0..0, writes);
        } else if known.remembered.is_due {
            step.write(known.remembered.keep(autoscaler));
        }
        let Some(known) = self.known.get(&key.key) else { return step };
        // What became of a scale is looked at as soon as it is known.
        let goes_on = known.open.is_some() || known.remembered.is_due;
        step.again = Some(if goes_on { Duration::ZERO } else { known.next.since(now) });
        step
    }

    fn refused(&mut self, key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        if let Some(known) = self.known.get_mut(&key.key) {
            if matches!(write, Write::Update { part: Part::Main, .. }) {
                known.remembered.not_kept();
                return OnError::Forget;
            }
            known.refused = match write {
                Write::Scale { .. } => Some(Refused::Scale(error.to_string())),
                _ if error.reason == StatusReason::NotFound => None,
                _ => Some(Refused::Status(error.to_string())),
            };
        }
        // The next step is queued already.
        OnError::Forget
    }
}

impl Known {
    fn new(object: &Object, next: Time) -> Self {
        Self {
            uid: object.uid().into(),
            memory: Memory::default(),
            next,
            open: None,
            refused: None,
            failed: None,
            remembered: Remembered::default(),
            problem: None,
        }
    }
}

/// The first pass after `now`: whole periods after the creation, at least one.
fn next_pass(created: Time, period: Duration, now: Time) -> Time {
    let period_nanos = i64::try_from(period.as_nanos()).unwrap_or(i64::MAX).max(1);
    let age = now.as_nanos().saturating_sub(created.as_nanos()).max(0);
    let periods = age / period_nanos + 1;
    created + Duration::from_nanos(periods.saturating_mul(period_nanos).unsigned_abs())
}

/// Adds what a pass leaves behind: Events, the status if it says something new, Events after it.
fn tell(step: &mut Step, object: &Object, autoscaler: &HorizontalPodAutoscaler, outcome: Outcome) {
    let Outcome { status, events, after_status } = outcome;
    let record = |told: hpa::Event| {
        let kind = if told.warning { EventType::Warning } else { EventType::Normal };
        event(object, kind, COMPONENT, told.reason, told.message)
    };
    step.writes.extend(events.into_iter().map(record));
    if !hpa::same_status(autoscaler.status.as_ref(), &status) {
        step.write(status_write(autoscaler, status));
    }
    step.writes.extend(after_status.into_iter().map(record));
}

fn status_write(
    autoscaler: &HorizontalPodAutoscaler,
    status: HorizontalPodAutoscalerStatus,
) -> Write {
    let mut object = HorizontalPodAutoscaler { status: Some(status), ..autoscaler.clone() };
    // Nobody else writes the status; a change of the spec meanwhile does not make it wrong.
    object.metadata.resource_version = None;
    Write::Update { object: Box::new(object), part: Part::Status }
}
