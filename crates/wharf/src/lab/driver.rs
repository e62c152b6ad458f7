//! Drives the event loop on the lab's clock: one thread that runs what is due and sleeps until the
//! next wake-up, a change of the cluster, or a change of the clock.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use wharf_controllers::event_loop::{NeverAtRest, Recorder};
use wharf_controllers::journal::Journal;
use wharf_model::time::Time;
use wharf_ports::clock::Clock;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::LogLine;
use wharf_ports::error::ApiError;
use wharf_ports::reason::Reason;
use wharf_sim::timeline::Timeline;
use wharf_sim::world::World;
use wharf_store::Store;

use super::clock::ScaledClock;
use super::collected_logs::CollectedLogs;
use super::state_metrics::karpenter::Counters;
use crate::failure::Failure;
use crate::output;

/// Steps between two looks at the clock and at whether to stop.
const STEPS_AT_ONCE: u64 = 256;

/// The thread that drives the loop.
pub(super) struct Driver {
    thread: JoinHandle<()>,
    failure: Option<oneshot::Receiver<Failure>>,
}

impl Driver {
    /// Starts the thread.
    pub(super) fn start(
        world: World,
        store: Store,
        clock: Arc<ScaledClock>,
        recorder: LabRecorder,
        stop: watch::Receiver<bool>,
        answers: Arc<Notify>,
    ) -> Result<Self, Failure> {
        let (failed, failure) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("event-loop".to_owned())
            .spawn(move || {
                let run = Run { world, store, clock, recorder, stop, answers };
                if let Err(failure) = run.until_stopped() {
                    // The lab may be gone already; then nobody needs to know.
                    let _ = failed.send(failure);
                }
            })
            .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { thread, failure: Some(failure) })
    }

    /// Waits for a failure of the loop; never returns if it stops in order.
    pub(super) async fn failed(&mut self) -> Failure {
        if let Some(failure) = &mut self.failure {
            match failure.await {
                Ok(failure) => return failure,
                Err(_) => self.failure = None,
            }
        }
        std::future::pending().await
    }

    /// Waits for the thread to end after the stop was signalled.
    pub(super) async fn join(self) -> Result<(), Failure> {
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.join())
            .await
            .map_err(Failure::failed)?
            .map_err(|_| Failure::failed("the event loop has panicked; this is a bug in wharf"))
    }
}

struct Run {
    world: World,
    store: Store,
    clock: Arc<ScaledClock>,
    recorder: LabRecorder,
    stop: watch::Receiver<bool>,
    /// Told of answers of extenders, and of those who keep history.
    answers: Arc<Notify>,
}

impl Run {
    fn until_stopped(mut self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(Failure::failed)?;
        while !*self.stop.borrow() {
            let reading = self.clock.read();
            if let Some(target) = reading.stepping_to {
                self.step_towards(target)?;
                continue;
            }
            let seen = self.store.revision();
            self.store.set_clock(reading.now);
            let more = self.world.run_some(reading.now, STEPS_AT_ONCE, &mut self.recorder);
            self.world.cluster_mut().hand_over_events();
            self.recorder.tell();
            if !more {
                let wake = self.world.next_wake();
                self.clock.hold_at(wake);
                let sleep = wake.and_then(|wake| self.clock.real_time_until(wake));
                let news = wait(&self.store, seen, &self.clock, reading, sleep, &mut self.stop);
                runtime.block_on(async {
                    tokio::select! {
                        () = news => {}
                        () = self.answers.notified() => {}
                    }
                });
            }
        }
        Ok(())
    }

    /// Moves to the next wake-up on the way to `target`, or to `target` itself.
    fn step_towards(&mut self, target: Time) -> Result<(), Failure> {
        let now = self.clock.now();
        self.world
            .run_due(now, &mut self.recorder)
            .map_err(|error: NeverAtRest| Failure::failed(error))?;
        self.recorder.tell();
        // What was said now is to bear the time it was said at.
        self.world.cluster_mut().settle_events();
        let next = self.world.next_wake().map_or(target, |wake| wake.max(now).min(target));
        self.store.set_clock(next);
        self.clock.advance_to(next);
        if next == target {
            self.world
                .run_due(target, &mut self.recorder)
                .map_err(|error: NeverAtRest| Failure::failed(error))?;
            self.recorder.tell();
            self.world.cluster_mut().settle_events();
        }
        Ok(())
    }
}

async fn wait(
    store: &Store,
    seen: u64,
    clock: &ScaledClock,
    reading: super::clock::Reading,
    sleep: Option<std::time::Duration>,
    stop: &mut watch::Receiver<bool>,
) {
    let mut changes = clock.changes();
    let now = clock.read();
    // A change of the clock between its reading and here must not be slept through.
    if (now.speed, now.paused, now.stepping_to)
        != (reading.speed, reading.paused, reading.stepping_to)
    {
        return;
    }
    let timer = async {
        match sleep {
            Some(sleep) => tokio::time::sleep(sleep).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = timer => {}
        () = store.wait_past(seen) => {}
        _ = changes.changed() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Keeps the journal, counts machines, and says on stderr what `-v` asks for.
pub(super) struct LabRecorder {
    journal: Arc<Mutex<Journal>>,
    collected: Arc<CollectedLogs>,
    machines: Arc<Counters>,
    timeline: Option<Timeline>,
    every_change: bool,
}

impl LabRecorder {
    /// One that says on stderr, from a moment on, what so many `-v` ask for.
    pub(super) fn new(
        journal: Arc<Mutex<Journal>>,
        collected: Arc<CollectedLogs>,
        machines: Arc<Counters>,
        verbose: u8,
        start: Time,
    ) -> Self {
        Self {
            journal,
            collected,
            machines,
            timeline: (verbose > 0).then(|| Timeline::starting_at(start)),
            every_change: verbose > 1,
        }
    }

    /// Says what the timeline has gathered.
    fn tell(&mut self) {
        if let Some(timeline) = &mut self.timeline {
            for line in timeline.take_lines() {
                output::progress(&line);
            }
        }
    }
}

impl Recorder for LabRecorder {
    fn reason(&mut self, now: Time, reason: Reason) {
        self.journal.lock().reason(now, reason);
    }

    fn log(&mut self, now: Time, line: LogLine) {
        self.journal.lock().log(now, line);
    }

    fn change(&mut self, now: Time, change: &Change) {
        self.machines.observe(change);
        self.collected.observe(now, change);
        if let Some(timeline) = &mut self.timeline {
            timeline.change(now, change);
        }
        if self.every_change {
            let verb = match (&change.old, &change.new) {
                (None, _) => "created",
                (_, None) => "deleted",
                _ => "changed",
            };
            output::progress(&format!("{now} {verb} {} {}", change.kind(), change.key()));
        }
    }

    fn refused(&mut self, now: Time, controller: &'static str, write: &Write, error: &ApiError) {
        if self.every_change {
            output::progress(&format!("{now} {controller}: {write:?} refused: {error}"));
        }
    }
}
