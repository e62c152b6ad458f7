//! Drives the event loop over a remote cluster: one thread that runs what is due and sleeps until
//! the next wake-up or news from the cluster.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use wharf_controllers::event_loop::{EventLoop, Recorder};
use wharf_model::time::Time;
use wharf_ports::clock::Clock as _;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::LogLine;
use wharf_ports::error::ApiError;
use wharf_ports::reason::Reason;
use wharf_remote::RemoteCluster;

use crate::failure::Failure;
use crate::lab::clock::ScaledClock;
use crate::lab::shared_journal::Entry;
use crate::output;

/// Steps between two looks at the clock and at whether to stop.
const STEPS_AT_ONCE: u64 = 256;

type Loop = EventLoop<RemoteCluster>;

/// The thread that drives the loop.
pub(super) struct Driver {
    thread: JoinHandle<Loop>,
    stop: watch::Sender<bool>,
    failure: Option<oneshot::Receiver<Failure>>,
}

impl Driver {
    /// Starts the thread.
    pub(super) fn start(
        event_loop: Loop,
        clock: Arc<ScaledClock>,
        arrivals: [Arc<Notify>; 2],
        verbose: u8,
        journal: Option<mpsc::Sender<Entry>>,
    ) -> Result<Self, Failure> {
        let (stop, stopping) = watch::channel(false);
        let (failed, failure) = oneshot::channel();
        let recorder = Teller { verbose, journal };
        let thread = std::thread::Builder::new()
            .name("event-loop".to_owned())
            .spawn(move || {
                let mut run = Run { event_loop, clock, arrivals, recorder, stop: stopping };
                if let Err(failure) = run.until_stopped() {
                    // The program may be ending already; then nobody needs to know.
                    let _ = failed.send(failure);
                }
                run.event_loop
            })
            .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { thread, stop, failure: Some(failure) })
    }

    /// Waits for a failure of the loop; never returns if there is none.
    pub(super) async fn failed(&mut self) -> Failure {
        if let Some(failure) = &mut self.failure {
            match failure.await {
                Ok(failure) => return failure,
                // Its sender is gone without a word: the thread panicked.
                Err(_) if !*self.stop.borrow() => {
                    self.failure = None;
                    return Failure::failed("the event loop has ended; this is a bug in wharf");
                }
                Err(_) => self.failure = None,
            }
        }
        std::future::pending().await
    }

    /// Ends the loop after its step, and lets what it has written arrive.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        let Self { thread, stop, .. } = self;
        stop.send_replace(true);
        let event_loop = tokio::task::spawn_blocking(move || thread.join())
            .await
            .map_err(Failure::failed)?
            .map_err(|_| Failure::failed("the event loop has panicked; this is a bug in wharf"))?;
        event_loop.into_cluster().close().await;
        Ok(())
    }
}

struct Run {
    event_loop: Loop,
    clock: Arc<ScaledClock>,
    /// Told of what comes from the cluster, and from extenders.
    arrivals: [Arc<Notify>; 2],
    recorder: Teller,
    stop: watch::Receiver<bool>,
}

impl Run {
    fn until_stopped(&mut self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(Failure::failed)?;
        let mut changes = self.clock.changes();
        while !*self.stop.borrow() {
            changes.mark_unchanged();
            let now = self.clock.now();
            let more = self.event_loop.run_some(now, STEPS_AT_ONCE, &mut self.recorder);
            if let Some(lost) = self.event_loop.cluster_mut().failure() {
                return Err(Failure::failed(lost));
            }
            if more {
                continue;
            }
            let wake = self.event_loop.next_wake();
            let sleep = wake.and_then(|wake| self.clock.real_time_until(wake));
            runtime.block_on(async {
                let timer = async {
                    match sleep {
                        Some(sleep) => tokio::time::sleep(sleep).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = timer => {}
                    () = self.arrivals[0].notified() => {}
                    () = self.arrivals[1].notified() => {}
                    _ = changes.changed() => {}
                    _ = self.stop.wait_for(|stop| *stop) => {}
                }
            });
        }
        Ok(())
    }
}

/// Says on stderr what components log, and more if asked to; a lab is told as well, for those who
/// ask it.
struct Teller {
    verbose: u8,
    journal: Option<mpsc::Sender<Entry>>,
}

impl Teller {
    fn share(&self, entry: impl FnOnce() -> Entry) {
        if let Some(journal) = &self.journal {
            // A line that finds no room is still on stderr.
            let _ = journal.try_send(entry());
        }
    }
}

impl Recorder for Teller {
    fn reason(&mut self, now: Time, reason: Reason) {
        if self.verbose > 0 {
            let Reason { kind, key, by, decision, .. } = &reason;
            output::progress(&format!("{now} {by}: {} {key}: {decision}", kind.singular));
        }
        self.share(|| Entry::reason(now, reason));
    }

    fn log(&mut self, now: Time, line: LogLine) {
        output::progress(&line.line);
        self.share(|| Entry::log(now, line));
    }

    fn change(&mut self, now: Time, change: &Change) {
        if self.verbose > 1 {
            let verb = match (&change.old, &change.new) {
                (None, _) => "created",
                (_, None) => "deleted",
                _ => "changed",
            };
            output::progress(&format!("{now} {verb} {} {}", change.kind(), change.key()));
        }
    }

    fn refused(&mut self, now: Time, controller: &'static str, write: &Write, error: &ApiError) {
        if self.verbose > 0 {
            output::progress(&format!("{now} {controller}: {write:?} refused: {error}"));
        }
    }
}
