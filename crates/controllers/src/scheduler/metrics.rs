//! The scheduler's metrics, under upstream's names.
//!
//! They are told and never read: no decision depends on them. Time is cluster time; only how long
//! decisions take is the machine's, and is measured by a stopwatch that the shell lends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use compact_str::CompactString;
use wharf_scheduler::{ExtensionPoint, Measure, PLUGINS, Plugin, Status};

use super::queue::Depth;
use crate::metrics::{Exposition, Histogram};

/// Attempts from which on pods are counted together.
const ATTEMPTS_MAX: u32 = 15;

/// Of every so many cycles the times of single plugins are taken in one, as upstream does on
/// average.
const SAMPLED_EVERY: u64 = 10;

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

/// How a wait for devices to be made ready has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    Success,
    Failure,
    Timeout,
}

impl Readiness {
    fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
        }
    }
}

/// The extension points at which it is counted how often plugins are heard.
const HEARD_AT: [ExtensionPoint; 4] = [
    ExtensionPoint::PreFilter,
    ExtensionPoint::Filter,
    ExtensionPoint::PreScore,
    ExtensionPoint::Score,
];

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
    /// The numbers of attempts of those that were scheduled.
    tries: Option<Histogram>,
    /// By extension point, status and profile.
    points: BTreeMap<(ExtensionPoint, Status, usize), Histogram>,
    executions: BTreeMap<(Plugin, ExtensionPoint, Status), Histogram>,
    /// How often plugins were heard, by profile, point and plugin.
    answers: Vec<[[u64; PLUGINS]; HEARD_AT.len()]>,
    /// How pods fared whose devices had to be made ready, by profile, driver and outcome: how long
    /// they waited.
    readiness: BTreeMap<(usize, CompactString, Readiness), Histogram>,
    /// Claims made for extended resources, by whether that went well.
    claims_made: BTreeMap<bool, u64>,
    /// How long news of the cluster take, by upstream's names for it.
    news: BTreeMap<&'static str, Histogram>,
    /// How often it was looked for room to be made.
    preemptions: u64,
    victims: Option<Histogram>,
    permit_waits: BTreeMap<Outcome, Histogram>,
    incoming: BTreeMap<(&'static str, &'static str), u64>,
    unschedulable: BTreeMap<(usize, Plugin), usize>,
    depth: Depth,
    sizes: Sizes,
}

impl Told {
    /// How long extension points, plugins and news take.
    fn write_times(&self, text: &mut Exposition) {
        let name = "scheduler_framework_extension_point_duration_seconds";
        text.family(name, "histogram", "Time of all plugins together at an extension point.");
        for ((point, status, profile), histogram) in &self.points {
            let profile = self.profiles.get(*profile).map_or("", String::as_str);
            let labels = [
                ("extension_point", point.name()),
                ("profile", profile),
                ("status", status.name()),
            ];
            text.histogram(name, &labels, histogram);
        }
        let name = "scheduler_plugin_execution_duration_seconds";
        text.family(
            name,
            "histogram",
            "Time of a plugin at an extension point, of one in ten pods.",
        );
        for ((plugin, point, status), histogram) in &self.executions {
            let labels = [
                ("extension_point", point.name()),
                ("plugin", plugin.name()),
                ("status", status.name()),
            ];
            text.histogram(name, &labels, histogram);
        }
        let name = "scheduler_event_handling_duration_seconds";
        text.family(name, "histogram", "Time to take in a change of the cluster.");
        for (event, histogram) in &self.news {
            text.histogram(name, &[("event", event)], histogram);
        }
    }

    /// How often plugins were heard.
    fn write_answers(&self, text: &mut Exposition) {
        let name = "scheduler_plugin_evaluation_total";
        let help = "Number of times a plugin was heard of a pod, or of a node for a pod.";
        text.family(name, "counter", help);
        for (profile, answers) in self.profiles.iter().zip(&self.answers) {
            for (point, times) in HEARD_AT.iter().zip(answers) {
                let plugins = Plugin::ALL.iter().map(|plugin| (plugin, times[*plugin as usize]));
                for (plugin, times) in plugins.filter(|(_, times)| *times > 0) {
                    let labels = [
                        ("extension_point", point.name()),
                        ("plugin", plugin.name()),
                        ("profile", profile),
                    ];
                    text.sample(name, &labels, times);
                }
            }
        }
    }

    /// How pods fared that need devices.
    fn write_devices(&self, text: &mut Exposition) {
        let counted = "scheduler_dra_bindingconditions_allocations_total";
        let help = "Number of allocations of devices that had to be made ready, by driver.";
        text.family(counted, "counter", help);
        let labels = |(profile, driver, readiness): &(usize, CompactString, Readiness)| {
            let profile = self.profiles.get(*profile).map_or("", String::as_str).to_owned();
            [
                ("driver", driver.to_string()),
                ("profile", profile),
                ("status", readiness.name().to_owned()),
            ]
        };
        for (key, waits) in &self.readiness {
            let labels = labels(key);
            text.sample(
                counted,
                &labels.each_ref().map(|(name, it)| (*name, it.as_str())),
                waits.count(),
            );
        }
        let timed = "scheduler_dra_bindingconditions_wait_duration_seconds";
        text.family(timed, "histogram", "Time pods waited for their devices to be made ready.");
        for (key, waits) in &self.readiness {
            let labels = labels(key);
            text.histogram(timed, &labels.each_ref().map(|(name, it)| (*name, it.as_str())), waits);
        }
        let name = "scheduler_resourceclaim_creates_total";
        text.family(name, "counter", "Number of claims made for extended resources.");
        for (well, count) in &self.claims_made {
            let status = if *well { "success" } else { "failure" };
            text.sample(name, &[("status", status)], count);
        }
    }

    fn point(&mut self, point: ExtensionPoint, status: Status, profile: usize, took: Duration) {
        let new = || Histogram::exponential(0.0001, 2.0, 12);
        let key = (point, status, profile);
        self.points.entry(key).or_insert_with(new).observe(took.as_secs_f64());
    }

    fn execution(&mut self, plugin: Plugin, point: ExtensionPoint, status: Status, took: Duration) {
        let new = || Histogram::exponential(0.000_01, 1.5, 20);
        let key = (plugin, point, status);
        self.executions.entry(key).or_insert_with(new).observe(took.as_secs_f64());
    }
}

fn is_sampled(cycle: u64) -> bool {
    cycle % SAMPLED_EVERY == 1
}

impl fmt::Debug for SchedulerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerMetrics").finish_non_exhaustive()
    }
}

impl SchedulerMetrics {
    pub(super) fn new(profiles: Vec<String>) -> Self {
        let answers = vec![[[0; PLUGINS]; HEARD_AT.len()]; profiles.len()];
        let told = Told { profiles, answers, ..Told::default() };
        Self { told: Mutex::new(told), stopwatch: OnceLock::new() }
    }

    /// Lends a stopwatch for how long decisions take; without one they take no time. Only the
    /// first one counts.
    pub fn measure_with(&self, stopwatch: impl Fn() -> Duration + Send + Sync + 'static) {
        let _ = self.stopwatch.set(Box::new(stopwatch));
    }

    /// Begins to take the times of a decision, if there is a stopwatch; `cycle` counts them.
    pub(super) fn measure(&self, cycle: u64) -> Measure<'_> {
        match self.stopwatch.get() {
            Some(stopwatch) => Measure::by(stopwatch, is_sampled(cycle)),
            None => Measure::off(),
        }
    }

    /// Takes in the times of a decision.
    pub(super) fn measured(&self, profile: usize, measure: &Measure<'_>) {
        if measure.points().is_empty() {
            return;
        }
        let mut told = self.told();
        for (point, status, took) in measure.points() {
            told.point(*point, *status, profile, *took);
        }
        for (plugin, point, status, took) in measure.executions() {
            told.execution(*plugin, *point, *status, *took);
        }
        let Some(answers) = told.answers.get_mut(profile) else { return };
        for (plugin, point, times) in measure.answers() {
            if let Some(at) = HEARD_AT.iter().position(|known| known == point) {
                answers[at][*plugin as usize] += times;
            }
        }
    }

    /// A pod's wait for a driver's devices to be made ready has ended.
    pub(super) fn devices_awaited(
        &self,
        profile: usize,
        driver: CompactString,
        readiness: Readiness,
        waited: Duration,
    ) {
        let new = || Histogram::exponential(0.1, 2.0, 14);
        let mut told = self.told();
        let waits = told.readiness.entry((profile, driver, readiness)).or_insert_with(new);
        waits.observe(waited.as_secs_f64());
    }

    /// A claim for extended resources was to be made.
    pub(super) fn claim_made(&self, well: bool) {
        *self.told().claims_made.entry(well).or_default() += 1;
    }

    /// An extension point beyond the decision is done.
    pub(super) fn point(
        &self,
        point: ExtensionPoint,
        status: Status,
        profile: usize,
        took: Duration,
    ) {
        self.told().point(point, status, profile, took);
    }

    /// A plugin has done its part beyond the decision; it counts if the cycle is sampled.
    pub(super) fn execution(
        &self,
        cycle: u64,
        plugin: Plugin,
        point: ExtensionPoint,
        status: Status,
        took: Duration,
    ) {
        if is_sampled(cycle) && self.stopwatch.get().is_some() {
            self.told().execution(plugin, point, status, took);
        }
    }

    /// News of the cluster took so long on the machine's clock.
    pub(super) fn heard(&self, event: &'static str, took: Duration) {
        let new = || Histogram::exponential(0.0001, 2.0, 12);
        self.told().news.entry(event).or_insert_with(new).observe(took.as_secs_f64());
    }

    /// It was looked for room to be made.
    pub(super) fn looked_for_room(&self) {
        self.told().preemptions += 1;
    }

    /// Whether there is a stopwatch.
    pub(super) fn has_clock(&self) -> bool {
        self.stopwatch.get().is_some()
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
        let new = || Histogram::exponential(1.0, 2.0, 5);
        told.tries.get_or_insert_with(new).observe(f64::from(attempts));
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
        let name = "scheduler_pod_scheduling_attempts";
        text.family(name, "histogram", "Number of attempts it took to schedule a pod.");
        if let Some(histogram) = &told.tries {
            text.histogram(name, &[], histogram);
        }
        told.write_times(&mut text);
        told.write_answers(&mut text);
        told.write_devices(&mut text);
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
        let name = "scheduler_goroutines";
        text.family(name, "gauge", "Number of pods on their way to their node.");
        text.sample(name, &[("operation", "binding")], told.sizes.assumed);
        let name = "scheduler_inflight_events";
        text.family(name, "gauge", "Number of pods that news is kept for until they are bound.");
        text.sample(name, &[("event", "PodPopped")], told.sizes.assumed);
        let name = "scheduler_preemption_attempts_total";
        text.family(
            name,
            "counter",
            "Number of times that it was looked for pods to go for another.",
        );
        text.sample(name, &[], told.preemptions);
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
