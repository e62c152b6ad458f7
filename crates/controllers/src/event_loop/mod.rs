//! The one deterministic event loop under every world.
//!
//! A heap of wake-ups ordered by time, then by sequence; one entry per controller and key; one step
//! at a time. In a rehearsal the driver jumps the clock to [`EventLoop::next_wake`]; in a lab it
//! waits for it. The loop itself never waits, never reads a clock and never blocks, so that any
//! event or write can be dropped, delayed or repeated by the adapter it is given.

mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wharf_model::kinds::built_in;
use wharf_model::object::Object;
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_ports::cloud::{Cloud, CloudOutput};
use wharf_ports::cluster::{Change, Cluster, ClusterEvent, Write, WriteId};
use wharf_ports::controller::{Context, Controller, Enqueue, LogLine, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::extender::{ExtenderAnswer, ExtenderCall, ExtenderCalls};
use wharf_ports::history::{HistoryAnswer, HistoryCall, HistoryCalls};
use wharf_ports::reason::Reason;
use wharf_ports::view::View;

use queue::Queue;

/// First delay after a refused write; doubles with each refusal of the same key.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// Longest delay after refused writes.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Steps at one moment of virtual time after which the controllers are taken to be chasing each
/// other. A start with 100,000 objects needs a few steps for each.
const STEPS_AT_ONE_MOMENT_MAX: u64 = 5_000_000;

/// What the loop tells of its work, for `wharf why`, `kubectl logs`, traces and narration.
pub trait Recorder {
    /// A decision's reason.
    fn reason(&mut self, now: Time, reason: Reason);
    /// A component's log line.
    fn log(&mut self, now: Time, line: LogLine);
    /// A change of the cluster, after the view has it.
    fn change(&mut self, _now: Time, _change: &Change) {}
    /// A refused write.
    fn refused(
        &mut self,
        _now: Time,
        _controller: &'static str,
        _write: &Write,
        _error: &ApiError,
    ) {
    }
}

/// A recorder that keeps nothing.
#[derive(Debug, Default)]
pub struct NoRecorder;

impl Recorder for NoRecorder {
    fn reason(&mut self, _now: Time, _reason: Reason) {}
    fn log(&mut self, _now: Time, _line: LogLine) {}
}

/// Nobody who could ask extenders: every question is answered with an error.
#[derive(Debug, Default)]
struct NoExtenders {
    answers: Vec<ExtenderAnswer>,
}

impl ExtenderCalls for NoExtenders {
    fn call(&mut self, call: ExtenderCall) {
        let result = Err(format!("{} cannot be asked here", call.url));
        self.answers.push(ExtenderAnswer { id: call.id, result });
    }

    fn poll(&mut self, answers: &mut Vec<ExtenderAnswer>) {
        answers.append(&mut self.answers);
    }
}

/// Nobody who has kept history: every question is answered with an error.
#[derive(Debug, Default)]
struct NoHistory {
    answers: Vec<HistoryAnswer>,
}

impl HistoryCalls for NoHistory {
    fn call(&mut self, call: HistoryCall) {
        let result = Err("there is nobody here who has kept any".to_owned());
        self.answers.push(HistoryAnswer { id: call.id, result });
    }

    fn poll(&mut self, answers: &mut Vec<HistoryAnswer>) {
        answers.append(&mut self.answers);
    }
}

/// The controllers never come to rest: a bug in one of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the controllers do not come to rest at {now}; the last one to act was {controller} on {key}"
)]
pub struct NeverAtRest {
    /// When.
    pub now: Time,
    /// Which controller acted last.
    pub controller: &'static str,
    /// On what.
    pub key: String,
}

/// The event loop: controllers, the world they see, and what they are to look at next.
pub struct EventLoop<C> {
    cluster: C,
    cloud: Box<dyn Cloud>,
    extenders: Box<dyn ExtenderCalls>,
    history: Box<dyn HistoryCalls>,
    view: View,
    controllers: Vec<Slot>,
    queue: Queue,
    steps: BTreeMap<WriteId, InFlight>,
    next_write: u64,
    steps_run: u64,
    steps_at_one_moment_max: u64,
    last_step: Option<(usize, WorkKey)>,
}

struct Slot {
    controller: Box<dyn Controller>,
    random: Random,
    failures: BTreeMap<WorkKey, u32>,
}

/// A write whose outcome is awaited, and what follows it.
struct InFlight {
    /// `None` for writes of the cloud.
    origin: Option<(usize, WorkKey)>,
    write: Arc<Write>,
    /// The step's remaining writes, in order; sent one by one as each succeeds.
    rest: std::vec::IntoIter<Write>,
}

impl<C: Cluster> EventLoop<C> {
    /// A loop over a cluster and a cloud. Each controller draws from its own stream of `seed`.
    pub fn new(
        cluster: C,
        cloud: Box<dyn Cloud>,
        controllers: Vec<Box<dyn Controller>>,
        seed: u64,
    ) -> Self {
        let controllers = controllers
            .into_iter()
            .map(|controller| Slot {
                random: Random::for_purpose(seed, controller.name()),
                controller,
                failures: BTreeMap::new(),
            })
            .collect();
        Self {
            cluster,
            cloud,
            extenders: Box::<NoExtenders>::default(),
            history: Box::<NoHistory>::default(),
            view: View::new(),
            controllers,
            queue: Queue::default(),
            steps: BTreeMap::new(),
            next_write: 0,
            steps_run: 0,
            steps_at_one_moment_max: STEPS_AT_ONE_MOMENT_MAX,
            last_step: None,
        }
    }

    /// Has questions to extenders asked. Without, each is answered with an error.
    pub fn ask_extenders_with(&mut self, calls: Box<dyn ExtenderCalls>) {
        self.extenders = calls;
    }

    /// Has questions about the past asked. Without, each is answered with an error.
    pub fn ask_history_with(&mut self, calls: Box<dyn HistoryCalls>) {
        self.history = calls;
    }

    /// Takes in the world as it stands and lets every controller see each object once, kind by
    /// kind in the order of keys.
    pub fn start(&mut self, now: Time, view: View) {
        self.view = view;
        for index in 0..self.controllers.len() {
            let mut enqueue = Enqueue::default();
            self.controllers[index].controller.start(&mut enqueue);
            self.enqueue(index, now, &mut enqueue);
        }
        let objects: Vec<Arc<Object>> =
            built_in().iter().flat_map(|kind| self.view.objects(*kind).cloned()).collect();
        for object in objects {
            let change = Change { revision: object.revision(), old: None, new: Some(object) };
            self.observe(now, &change);
        }
    }

    /// The world as the controllers see it.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The cluster adapter.
    pub fn cluster_mut(&mut self) -> &mut C {
        &mut self.cluster
    }

    /// Ends the loop and gives the cluster adapter back.
    pub fn into_cluster(self) -> C {
        self.cluster
    }

    /// How many steps have run since the start.
    pub fn steps_run(&self) -> u64 {
        self.steps_run
    }

    /// When there is something to do next; `None` if nothing is waiting.
    pub fn next_wake(&self) -> Option<Time> {
        match (self.queue.next_wake(), self.cloud.next_wake()) {
            (Some(queue), Some(cloud)) => Some(queue.min(cloud)),
            (queue, cloud) => queue.or(cloud),
        }
    }

    /// Does what is due at `now`, at most `steps_max` steps. Returns whether more is due.
    pub fn run_some(&mut self, now: Time, steps_max: u64, recorder: &mut dyn Recorder) -> bool {
        for _ in 0..steps_max {
            self.take_events(now, recorder);
            let Some((index, key)) = self.queue.pop_due(now) else {
                if self.cluster.pending() {
                    continue;
                }
                return false;
            };
            self.run_step(now, index, key, recorder);
        }
        true
    }

    /// Does all that is due at `now`.
    ///
    /// # Errors
    /// If the controllers never come to rest.
    pub fn run_due(&mut self, now: Time, recorder: &mut dyn Recorder) -> Result<(), NeverAtRest> {
        if !self.run_some(now, self.steps_at_one_moment_max, recorder) {
            return Ok(());
        }
        let (controller, key) = match &self.last_step {
            Some((index, key)) => (self.controllers[*index].controller.name(), key.key.to_string()),
            None => ("none", String::new()),
        };
        Err(NeverAtRest { now, controller, key })
    }

    fn run_step(&mut self, now: Time, index: usize, key: WorkKey, recorder: &mut dyn Recorder) {
        self.steps_run += 1;
        self.last_step = Some((index, key.clone()));
        let slot = &mut self.controllers[index];
        let mut context = Context { view: &self.view, now, random: &mut slot.random };
        let step = slot.controller.step(&key, &mut context);
        self.carry_out(now, index, key, step, recorder);
    }

    fn carry_out(
        &mut self,
        now: Time,
        index: usize,
        key: WorkKey,
        step: Step,
        recorder: &mut dyn Recorder,
    ) {
        step.reasons.into_iter().for_each(|reason| recorder.reason(now, reason));
        step.logs.into_iter().for_each(|line| recorder.log(now, line));
        for (other, delay) in step.enqueue {
            self.queue.add(index, other, now + delay);
        }
        if let Some(again) = step.again {
            self.queue.add(index, key.clone(), now + again);
        }
        if step.independent {
            for write in step.writes {
                self.submit(Some((index, key.clone())), write, Vec::new().into_iter());
            }
        } else {
            let mut writes = step.writes.into_iter();
            if let Some(first) = writes.next() {
                // One step of a key at a time: the key waits until its writes are through.
                self.queue.hold(index, &key);
                self.submit(Some((index, key)), first, writes);
            }
        }
        for request in step.cloud {
            self.cloud.submit(request, now);
        }
        for call in step.extender {
            self.extenders.call(call);
        }
        for call in step.history {
            self.history.call(call);
        }
    }

    fn submit(
        &mut self,
        origin: Option<(usize, WorkKey)>,
        write: Write,
        rest: std::vec::IntoIter<Write>,
    ) {
        let id = WriteId(self.next_write);
        self.next_write += 1;
        let write = Arc::new(write);
        self.cluster.submit(id, Arc::clone(&write));
        self.steps.insert(id, InFlight { origin, write, rest });
    }

    /// Takes in what the cluster and the cloud have to tell until both are silent.
    fn take_events(&mut self, now: Time, recorder: &mut dyn Recorder) {
        let mut events = Vec::new();
        let mut answers = Vec::new();
        let mut recalled = Vec::new();
        loop {
            self.extenders.poll(&mut answers);
            self.history.poll(&mut recalled);
            self.cluster.poll(&self.view, &mut events);
            let mut output = CloudOutput::default();
            if self.cloud.next_wake().is_some_and(|wake| wake <= now) {
                self.cloud.poll(now, &self.view, &mut output);
            }
            let silent = events.is_empty() && answers.is_empty() && recalled.is_empty();
            if silent && output.events.is_empty() && output.writes.is_empty() {
                return;
            }
            for event in events.drain(..) {
                match event {
                    ClusterEvent::Changed(change) => {
                        if self.view.apply(&change) {
                            recorder.change(now, &change);
                            self.observe(now, &change);
                        }
                    }
                    ClusterEvent::Outcome { id, result } => {
                        self.take_outcome(now, id, result, recorder);
                    }
                }
            }
            for answer in answers.drain(..) {
                for index in 0..self.controllers.len() {
                    let mut enqueue = Enqueue::default();
                    self.controllers[index].controller.answered(&answer, &mut enqueue);
                    self.enqueue(index, now, &mut enqueue);
                }
            }
            for answer in recalled.drain(..) {
                for index in 0..self.controllers.len() {
                    let mut enqueue = Enqueue::default();
                    self.controllers[index].controller.recalled(&answer, &mut enqueue);
                    self.enqueue(index, now, &mut enqueue);
                }
            }
            for write in output.writes {
                self.submit(None, write, Vec::new().into_iter());
            }
            for event in &output.events {
                for index in 0..self.controllers.len() {
                    let mut enqueue = Enqueue::default();
                    self.controllers[index].controller.observe_cloud(
                        event,
                        &self.view,
                        &mut enqueue,
                    );
                    self.enqueue(index, now, &mut enqueue);
                }
            }
        }
    }

    fn take_outcome(
        &mut self,
        now: Time,
        id: WriteId,
        result: Result<Option<Arc<Object>>, ApiError>,
        recorder: &mut dyn Recorder,
    ) {
        // A repeated outcome finds nothing and does nothing.
        let Some(InFlight { origin, write, mut rest }) = self.steps.remove(&id) else { return };
        let Some((index, key)) = origin else {
            if let Err(error) = result {
                recorder.refused(now, "cloud", &write, &error);
            }
            return;
        };
        match result {
            // A lost Event harms nobody: the step goes on.
            Err(error) if !matches!(*write, Write::Record(_)) => {
                let slot = &mut self.controllers[index];
                recorder.refused(now, slot.controller.name(), &write, &error);
                let verdict = slot.controller.refused(&key, &write, &error);
                let failures = slot.failures.entry(key.clone()).or_insert(0);
                let delay = BACKOFF_FIRST * 2_u32.saturating_pow((*failures).min(20));
                *failures += 1;
                self.queue.release(index, &key, now);
                match verdict {
                    OnError::Retry => self.queue.add(index, key, now + delay.min(BACKOFF_MAX)),
                    OnError::Forget => {
                        self.controllers[index].failures.remove(&key);
                    }
                }
            }
            result => {
                if let Ok(left) = &result {
                    let mut enqueue = Enqueue::default();
                    let controller = &mut self.controllers[index].controller;
                    controller.done(&key, &write, left.as_ref(), &mut enqueue);
                    self.enqueue(index, now, &mut enqueue);
                }
                match rest.next() {
                    Some(next) => self.submit(Some((index, key)), next, rest),
                    None => {
                        self.controllers[index].failures.remove(&key);
                        self.queue.release(index, &key, now);
                    }
                }
            }
        }
    }

    fn observe(&mut self, now: Time, change: &Change) {
        let mut enqueue = Enqueue::default();
        for index in 0..self.controllers.len() {
            self.controllers[index].controller.observe(change, &self.view, &mut enqueue);
            self.enqueue(index, now, &mut enqueue);
        }
    }

    fn enqueue(&mut self, index: usize, now: Time, enqueue: &mut Enqueue) {
        for (key, delay) in enqueue.take() {
            self.queue.add(index, key, now + delay);
        }
    }
}

#[cfg(test)]
mod tests;
