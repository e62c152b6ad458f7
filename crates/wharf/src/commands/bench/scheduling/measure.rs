//! One workload through the whole path: a lab with a data directory and the scheduler alone, its
//! objects created over TLS, its pods counted when their bindings would survive a crash.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::runtime::Runtime;
use wharf_model::kinds::Kind;
use wharf_ports::cluster::Change;
use wharf_sim::world::Controllers;
use wharf_store::{Visibility, Watch};

use super::extras::Placed;
use super::load;
use super::workloads::{Size, Special, Workload};
use crate::failure::Failure;
use crate::lab::clock::machine_instant;
use crate::lab::{Lab, LabOptions};
use crate::output;
use crate::prometheus::Sources;

/// Threads of the server, as `wharf up` has them.
const SERVER_THREADS: usize = 2;
/// How long nothing may be bound before a run is given up.
const STALLED: Duration = Duration::from_secs(60);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(250);
/// The span of upstream's samples.
const SAMPLE: Duration = Duration::from_secs(1);

/// How a workload is run.
pub(super) struct Options {
    /// The folder for the lab's data directory.
    pub(super) folder: PathBuf,
    /// How many clients create pods at once.
    pub(super) clients: usize,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// How many pods were bound.
    pub(super) bound: usize,
    /// From the first request to the last durable binding.
    pub(super) elapsed: Duration,
    /// Pods a second on average over samples of a second, as upstream counts; `None` if the run
    /// was over before there were two.
    pub(super) average: Option<f64>,
    /// The most memory the process ever held, in KiB: lab, clients and all.
    pub(super) peak_kib: u64,
}

impl Outcome {
    /// Pods a second over the whole run.
    pub(super) fn rate(&self) -> f64 {
        self.bound as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs a workload.
pub(super) fn run(workload: &Workload, size: &Size, options: &Options) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SERVER_THREADS)
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    let lab = runtime.block_on(Lab::start(
        &LabOptions {
            scheduler: wharf_scheduler::config::Configuration::default(),
            listen: ([127, 0, 0, 1], 0).into(),
            data: Some(options.folder.clone()),
            speed: 1,
            cluster: None,
            region: None,
            seed: None,
            verbose: 0,
            controllers: Controllers::Only(workload.controllers()),
            metrics_apis: Default::default(),
            gates: Default::default(),
            vpa_storage: Default::default(),
        },
        Sources::default(),
    ))?;
    let run = Run { runtime: &runtime, lab: &lab, workload, size, clients: options.clients };
    let outcome = run.all();
    output::status("");
    runtime.block_on(lab.stop())?;
    outcome
}

struct Run<'a> {
    runtime: &'a Runtime,
    lab: &'a Lab,
    workload: &'a Workload,
    size: &'a Size,
    clients: usize,
}

impl Run<'_> {
    fn all(&self) -> Result<Outcome, Failure> {
        let Self { workload, size, lab, clients, .. } = self;
        let stop = AtomicBool::new(false);
        self.tell("namespaces and services");
        let first = workload.set_up();
        load::create_all(&lab.access, 1, first.len(), &|index| first[index].clone(), &stop)?;
        self.tell(&format!("{} nodes", size.nodes));
        let node = |index| ("/api/v1/nodes".to_owned(), (workload.node)(index, size));
        load::create_all(&lab.access, *clients, size.nodes, &node, &stop)?;
        self.extras((0..size.nodes).flat_map(|index| (workload.with_node)(index, size)))?;
        self.pods("before-", workload.before, size.before, size.before, false)?;
        let counted = self.pods(
            "measured-",
            workload.pod,
            size.pods,
            workload.expected(size),
            workload.special == Special::Churn,
        )?;
        Ok(Outcome {
            bound: counted.total,
            elapsed: counted.elapsed,
            average: average(&counted.arrivals, counted.elapsed),
            peak_kib: peak_kib(),
        })
    }

    /// Creates what nodes and pods have besides themselves.
    fn extras(&self, objects: impl Iterator<Item = Placed>) -> Result<(), Failure> {
        let objects: Vec<Placed> = objects.collect();
        if objects.is_empty() {
            return Ok(());
        }
        self.tell(&format!("{} volumes, claims and devices", objects.len()));
        let object = |index: usize| objects[index].clone();
        let stop = AtomicBool::new(false);
        load::create_all(&self.lab.access, self.clients, objects.len(), &object, &stop)
    }

    /// Creates pods and waits until those that can be are bound. What they have besides themselves
    /// is there by then.
    fn pods(
        &self,
        prefix: &'static str,
        pod: fn(usize, &Size) -> Value,
        count: usize,
        expected: usize,
        churn: bool,
    ) -> Result<Counted, Failure> {
        self.extras((0..count).flat_map(|at| (self.workload.with_pod)(&pod(at, self.size))))?;
        let store = self.lab.store();
        let watch = store
            .watch(Some(Kind::of::<Pod>()), store.revision(), Visibility::Durable)
            .map_err(Failure::failed)?;
        let access = &self.lab.access;
        let object = |index| {
            let pod = pod(index, self.size);
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            (format!("/api/v1/namespaces/{namespace}/pods"), pod)
        };
        // Told apart, so that the churn ends with the pods and not with the last request.
        let (failed, over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let begun = machine_instant();
            let creating =
                scope.spawn(|| load::create_all(access, self.clients, count, &object, &failed));
            let churning = churn.then(|| scope.spawn(|| load::churn(access, &over)));
            let counter = Counter { watch, prefix, begun, counted: Counted::default() };
            let counted = counter.until(self, expected, &failed);
            over.store(true, Ordering::Relaxed);
            if counted.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            let panicked = |_| Failure::failed("a client has panicked; this is a bug in wharf");
            creating.join().map_err(panicked)??;
            if let Some(churning) = churning {
                churning.join().map_err(panicked)??;
            }
            counted
        })
    }

    fn tell(&self, what: &str) {
        output::status(&format!("{}: {what}", self.workload.name));
    }
}

/// Pods as they were bound.
#[derive(Debug, Default)]
struct Counted {
    total: usize,
    elapsed: Duration,
    /// When how many bindings became durable.
    arrivals: Vec<(Duration, usize)>,
}

/// Counts durable bindings of the pods whose names begin alike.
struct Counter {
    watch: Watch,
    prefix: &'static str,
    begun: Instant,
    counted: Counted,
}

impl Counter {
    fn until(
        mut self,
        run: &Run<'_>,
        expected: usize,
        failed: &AtomicBool,
    ) -> Result<Counted, Failure> {
        let (mut told, mut moved) = (self.begun, self.begun);
        let mut changes = Vec::new();
        while self.counted.total < expected && !failed.load(Ordering::Relaxed) {
            let changed = self.watch.changed();
            let waited = run.runtime.block_on(async { tokio::time::timeout(TELL, changed).await });
            if let Ok(changed) = waited {
                changed.map_err(Failure::failed)?;
            }
            self.watch.drain(&mut changes).map_err(Failure::failed)?;
            let now = machine_instant();
            let bound = changes.drain(..).filter(|change| is_bound(change, self.prefix)).count();
            if bound > 0 {
                moved = now;
                self.counted.total += bound;
                self.counted.elapsed = now - self.begun;
                self.counted.arrivals.push((now - self.begun, bound));
            } else if now - moved > STALLED {
                return Err(Failure::failed(format!(
                    "{}: {} of {expected} pods were bound, and none more within {} s",
                    run.workload.name,
                    self.counted.total,
                    STALLED.as_secs()
                )));
            }
            if now - told > TELL {
                told = now;
                let Counted { total, .. } = self.counted;
                let rate = total as f64 / (now - self.begun).as_secs_f64();
                run.tell(&format!("{}pods: {total} of {expected}, {rate:.0}/s", self.prefix));
            }
        }
        Ok(self.counted)
    }
}

/// Whether the change sends a pod of the prefix to a node.
fn is_bound(change: &Change, prefix: &str) -> bool {
    if !change.key().name.starts_with(prefix) {
        return false;
    }
    let on_node = |object: Option<&wharf_model::object::Object>| {
        let spec =
            object.and_then(|object| object.typed::<Pod>()).and_then(|pod| pod.spec.as_ref());
        spec.is_some_and(|spec| spec.node_name.as_ref().is_some_and(|name| !name.is_empty()))
    };
    on_node(change.new.as_deref()) && !on_node(change.old.as_deref())
}

/// Upstream's average: pods a second in samples of a second, the first left out; idle samples share
/// with the busy one that follows. What comes after the last whole sample is not counted.
fn average(arrivals: &[(Duration, usize)], elapsed: Duration) -> Option<f64> {
    let whole = elapsed.as_nanos() / SAMPLE.as_nanos();
    let mut samples = vec![0_usize; usize::try_from(whole).unwrap_or(usize::MAX)];
    for (at, bound) in arrivals {
        let index = usize::try_from(at.as_nanos() / SAMPLE.as_nanos()).unwrap_or(usize::MAX);
        if let Some(sample) = samples.get_mut(index) {
            *sample += bound;
        }
    }
    let mut rates = Vec::new();
    let mut idle = 0;
    for sample in samples {
        idle += 1;
        if sample > 0 {
            rates.extend(std::iter::repeat_n(sample as f64 / idle as f64, idle));
            idle = 0;
        }
    }
    let rates = rates.get(1..).filter(|rates| !rates.is_empty())?;
    Some(rates.iter().sum::<f64>() / rates.len() as f64)
}

/// The most memory this process has held, in KiB (`VmHWM`).
fn peak_kib() -> u64 {
    super::super::memory_kib("self", "VmHWM:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_upstreams() {
        let at = |millis: u64| Duration::from_millis(millis);
        let average = |arrivals: &[(u64, usize)], end: u64| {
            let arrivals: Vec<_> = arrivals.iter().map(|(ms, bound)| (at(*ms), *bound)).collect();
            average(&arrivals, at(end))
        };
        assert_eq!(average(&[(500, 10), (900, 5)], 900), None, "shorter than a sample");
        assert_eq!(average(&[(500, 10), (1_500, 5)], 1_500), None, "the first is left out");
        assert_eq!(average(&[(500, 10), (1_500, 5), (2_100, 7)], 2_100), Some(5.0));
        // Two idle seconds, then 30: ten in each of the three.
        assert_eq!(average(&[(500, 10), (3_500, 30)], 4_000), Some(10.0));
    }
}
