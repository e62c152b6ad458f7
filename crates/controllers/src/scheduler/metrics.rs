//! The scheduler's metrics, under upstream's names.
//!
//! They are told and never read: no decision depends on them. Time is cluster time; only how long
//! decisions take is the machine's, and is measured by a stopwatch that the shell lends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use wharf_scheduler::Plugin;

use super::queue::Depth;
use crate::metrics::{Exposition, Histogram};

/// Attempts from which on pods are counted together.
const ATTEMPTS_MAX: u32 = 15;

/// The scheduler's metrics, shared between the scheduler and who shows them.
#[derive(Default)]
pub struct SchedulerMetrics {
    told: Mutex<Told>,
    stopwatch: OnceLock<Stopwatch>,
}

/// The machine's time since some moment.
type Stopwatch = Box<dyn Fn() -> Duration + Send + Sync>;

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Scheduled,
    Unschedulable,
    Error,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Unschedulable => "unschedulable",
            Self::Error => "error",
        }
    }
}

/// How many objects the scheduler keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub(super) nodes: usize,
    pub(super) pods: usize,
    pub(super) assumed: usize,
}

#[derive(Default)]
struct Told {
    profiles: Vec<String>,
    /// By profile and outcome.
    attempts: BTreeMap<(usize, Outcome), Histogram>,
    algorithm: Option<Histogram>,
    /// By the number of attempts.
    latency: BTreeMap<u32, Histogram>,
    victims: Option<Histogram>,
    permit_waits: BTreeMap<Outcome, Histogram>,
    incoming: BTreeMap<(&'static str, &'static str), u64>,
    unschedulable: BTreeMap<(usize, Plugin), usize>,
    depth: Depth,
    sizes: Sizes,
}

impl fmt::Debug for SchedulerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerMetrics").finish_non_exhaustive()
    }
}

impl SchedulerMetrics {
    pub(super) fn new(profiles: Vec<String>) -> Self {
        let told = Told { profiles, ..Told::default() };
        Self { told: Mutex::new(told), stopwatch: OnceLock::new() }
    }

    /// Lends a stopwatch for how long decisions take; without one they take no time. Only the
    /// first one counts.
    pub fn measure_with(&self, stopwatch: impl Fn() -> Duration + Send + Sync + 'static) {
        let _ = self.stopwatch.set(Box::new(stopwatch));
    }

    /// What the stopwatch shows.
    pub(super) fn clock(&self) -> Duration {
        self.stopwatch.get().map_or(Duration::ZERO, |stopwatch| stopwatch())
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Counts stay counts, whoever panicked while holding them.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A try has ended, after so long on the machine's clock.
    pub(super) fn attempt(&self, profile: usize, outcome: Outcome, took: Duration) {
        let mut told = self.told();
        let histogram = told.attempts.entry((profile, outcome)).or_insert_with(seconds);
        histogram.observe(took.as_secs_f64());
    }

    /// A decision of the core took so long on the machine's clock.
    pub(super) fn algorithm(&self, took: Duration) {
        self.told().algorithm.get_or_insert_with(seconds).observe(took.as_secs_f64());
    }

    /// A pod is on its node, so long after it was free to be tried.
    pub(super) fn scheduled(&self, attempts: u32, latency: Duration) {
        let mut told = self.told();
        let attempts = attempts.min(ATTEMPTS_MAX);
        let new = || Histogram::exponential(0.01, 2.0, 20);
        told.latency.entry(attempts).or_insert_with(new).observe(latency.as_secs_f64());
    }

    /// Pods go for another.
    pub(super) fn preempted(&self, victims: usize) {
        let new = || Histogram::exponential(1.0, 2.0, 7);
        self.told().victims.get_or_insert_with(new).observe(victims as f64);
    }

    /// A pod waited so long for permission.
    pub(super) fn permit_wait(&self, outcome: Outcome, waited: Duration) {
        let mut told = self.told();
        told.permit_waits.entry(outcome).or_insert_with(seconds).observe(waited.as_secs_f64());
    }

    /// How the queue stands at the end of a step.
    pub(super) fn stand(
        &self,
        depth: Depth,
        sizes: Sizes,
        incoming: &BTreeMap<(&'static str, &'static str), u64>,
        unschedulable: &BTreeMap<(usize, Plugin), usize>,
    ) {
        let mut told = self.told();
        told.depth = depth;
        told.sizes = sizes;
        told.incoming.clone_from(incoming);
        told.unschedulable.clone_from(unschedulable);
    }

    /// All of it as Prometheus reads it.
    pub fn to_text(&self) -> String {
        let told = self.told();
        let mut text = Exposition::default();
        let profile = |index: &usize| told.profiles.get(*index).map_or("", String::as_str);

        let name = "scheduler_schedule_attempts_total";
        text.family(name, "counter", "Number of attempts to schedule pods, by the result.");
        for ((index, outcome), histogram) in &told.attempts {
            let labels = [("profile", profile(index)), ("result", outcome.name())];
            text.sample(name, &labels, histogram.count());
        }
        let name = "scheduler_scheduling_attempt_duration_seconds";
        text.family(name, "histogram", "Time from taking a pod from the queue to its decision.");
        for ((index, outcome), histogram) in &told.attempts {
            let labels = [("profile", profile(index)), ("result", outcome.name())];
            text.histogram(name, &labels, histogram);
        }
        let name = "scheduler_scheduling_algorithm_duration_seconds";
        text.family(name, "histogram", "Time of the decision alone: filters, scores, the choice.");
        if let Some(histogram) = &told.algorithm {
            text.histogram(name, &[], histogram);
        }
        let name = "scheduler_pod_scheduling_sli_duration_seconds";
        let help =
            "Time from a pod's entering the queue to its binding, by the number of attempts.";
        text.family(name, "histogram", help);
        for (attempts, histogram) in &told.latency {
            let more = if *attempts == ATTEMPTS_MAX { "+" } else { "" };
            text.histogram(name, &[("attempts", &format!("{attempts}{more}"))], histogram);
        }
        let name = "scheduler_pending_pods";
        text.family(name, "gauge", "Number of pending pods, by the part of the queue they are in.");
        for (queue, count) in [
            ("active", told.depth.active),
            ("backoff", told.depth.backoff),
            ("gated", told.depth.gated),
            ("unschedulable", told.depth.unschedulable),
        ] {
            text.sample(name, &[("queue", queue)], count);
        }
        let name = "scheduler_queue_incoming_pods_total";
        text.family(name, "counter", "Number of pods added to a part of the queue, by the event.");
        for ((queue, event), count) in &told.incoming {
            text.sample(name, &[("event", event), ("queue", queue)], count);
        }
        let name = "scheduler_unschedulable_pods";
        text.family(name, "gauge", "Number of waiting pods that a plugin turned down.");
        for ((index, plugin), count) in &told.unschedulable {
            let labels = [("plugin", plugin.name()), ("profile", profile(index))];
            text.sample(name, &labels, count);
        }
        // Upstream renamed it; dashboards know either name.
        for name in ["scheduler_cache_size", "scheduler_scheduler_cache_size"] {
            text.family(name, "gauge", "Number of nodes, pods and assumed pods that are kept.");
            let Sizes { nodes, pods, assumed } = told.sizes;
            for (kind, count) in [("assumed_pods", assumed), ("nodes", nodes), ("pods", pods)] {
                text.sample(name, &[("type", kind)], count);
            }
        }
        let name = "scheduler_preemption_attempts_total";
        text.family(name, "counter", "Number of times that pods went for another.");
        text.sample(name, &[], told.victims.as_ref().map_or(0, Histogram::count));
        let name = "scheduler_preemption_victims";
        text.family(name, "histogram", "Number of pods that went for another.");
        if let Some(histogram) = &told.victims {
            text.histogram(name, &[], histogram);
        }
        let name = "scheduler_permit_wait_duration_seconds";
        text.family(name, "histogram", "Time pods waited for permission to go to their node.");
        for (outcome, histogram) in &told.permit_waits {
            text.histogram(name, &[("result", outcome.name())], histogram);
        }
        text.into_text()
    }
}

/// The bounds upstream has for what takes from a millisecond to half a minute.
fn seconds() -> Histogram {
    Histogram::exponential(0.001, 2.0, 15)
}
