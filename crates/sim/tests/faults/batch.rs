//! Jobs and a DaemonSet, while somebody deletes their pods and machines are added.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::kinds::Kind;
use wharf_model::pod::{is_active, phase};
use wharf_scheduler::config::Configuration;
use wharf_store::Store;

use crate::trial::Trial;

const JOBS: usize = 4;
const MACHINES_MAX: u32 = 3;

const DAEMON: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: c
          image: registry.k8s.io/pause:3.10
          resources: {requests: {cpu: 100m}}
";

/// Whatever happens to their pods, all Jobs end as they should, and each node has its daemon.
pub(crate) fn run(seed: u64) -> Trial {
    play(Trial::new(seed, Configuration::default()))
}

/// The same with a watch for each kind, any of which may be late.
pub(crate) fn run_with_late_watches(seed: u64) -> Trial {
    play(Trial::with_watches(seed, Configuration::default(), true))
}

fn play(mut trial: Trial) -> Trial {
    for _ in 0..2 + trial.draw(2) {
        trial.add_machine();
    }
    trial.apply(DAEMON);
    let mut added = 0;
    let mut jobs = Vec::new();
    for _ in 0..12 {
        match trial.draw(6) {
            0..=2 if jobs.len() < JOBS => jobs.push(create(&mut trial, jobs.len())),
            3 if added < MACHINES_MAX => {
                trial.add_machine();
                added += 1;
            }
            4 | 5 => delete_a_pod(&mut trial),
            _ => {}
        }
        let seconds = u64::from(trial.draw(90));
        trial.run_for_seconds(seconds);
    }
    trial.run_for_minutes(90);
    for wanted in &jobs {
        let (objects, _) = trial.registry.store().list(Kind::of::<Job>(), Some("default"));
        let job = objects.iter().find(|job| job.key().name == wanted.name.as_str());
        let status = job.and_then(|job| job.typed::<Job>()?.status.clone()).unwrap_or_default();
        let ended: Vec<&str> =
            status.conditions.iter().flatten().map(|it| it.type_.as_str()).collect();
        let expected = if wanted.fails { "Failed" } else { "Complete" };
        assert!(ended.contains(&expected), "{} ended {status:?} {}", wanted.name, trial.describe());
        assert_eq!(status.active.unwrap_or(0), 0, "{} {status:?}", wanted.name);
        if wanted.indexed {
            let all = format!("0-{}", wanted.completions - 1);
            assert_eq!(status.completed_indexes.as_deref(), Some(all.as_str()), "{}", wanted.name);
        }
    }
    let held = trial.count::<Pod>(|pod| pod.metadata.finalizers.is_some());
    assert_eq!(held, 0, "nothing holds a pod that was counted");
    one_daemon_for_each_node(&trial);
    trial
}

/// A Job of the world and how it has to end.
struct Wanted {
    name: String,
    completions: u32,
    fails: bool,
    indexed: bool,
}

fn create(trial: &mut Trial, index: usize) -> Wanted {
    let name = format!("job-{index}");
    let completions = 3 + trial.draw(4);
    let parallelism = 1 + trial.draw(3);
    let seconds = 1 + trial.draw(60);
    let fails = trial.draw(4) == 0;
    let indexed = !fails && trial.draw(2) == 0;
    let mode = if indexed { "Indexed" } else { "NonIndexed" };
    let (limit, script) = if fails { (2, "; exit 3") } else { (50, "") };
    trial.apply(&format!(
        "
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  completions: {completions}
  parallelism: {parallelism}
  completionMode: {mode}
  backoffLimit: {limit}
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 5
      containers:
        - name: c
          image: busybox
          command: [sh, -c, \"sleep {seconds}{script}\"]
          resources: {{requests: {{cpu: 500m}}}}
"
    ));
    Wanted { name, completions, fails, indexed }
}

fn delete_a_pod(trial: &mut Trial) {
    let (pods, _) = trial.registry.store().list(Kind::of::<Pod>(), Some("default"));
    if pods.is_empty() {
        return;
    }
    let which = trial.draw(u32::try_from(pods.len()).expect("few")) as usize;
    trial.delete::<Pod>(&pods[which].key().name);
}

fn one_daemon_for_each_node(trial: &Trial) {
    let store = trial.registry.store();
    let (pods, _) = store.list(Kind::of::<Pod>(), Some("default"));
    let mut daemons: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods.iter().filter_map(|object| object.typed::<Pod>()) {
        let owners = pod.metadata.owner_references.iter().flatten();
        if is_active(pod) && owners.into_iter().any(|owner| owner.kind == "DaemonSet") {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            *daemons.entry(node.unwrap_or_default()).or_default() += 1;
        }
    }
    let (nodes, _) = store.list(Kind::of::<Node>(), None);
    let nodes: BTreeMap<String, usize> =
        nodes.iter().map(|node| (node.key().name.to_string(), 1)).collect();
    assert_eq!(daemons, nodes, "{}", trial.describe());
}

/// What a Job says of its pods is never more than what they did.
#[derive(Default)]
pub(crate) struct BatchInvariants {
    /// By Job, the pods that were ever seen to have succeeded, and those that may count as failed.
    ended: BTreeMap<String, [BTreeSet<String>; 2]>,
    /// The counts of each Job when last looked at: they never fall.
    counts: BTreeMap<String, [i32; 2]>,
}

impl BatchInvariants {
    pub(crate) fn check(&mut self, store: &Store) {
        for object in store.list(Kind::of::<Pod>(), Some("default")).0 {
            let owner = object.header().controller().filter(|owner| owner.kind == "Job");
            let (Some(owner), Some(pod)) = (owner, object.typed::<Pod>()) else { continue };
            let [succeeded, failed] = self.ended.entry(owner.uid.to_string()).or_default();
            if phase(pod) == "Succeeded" {
                succeeded.insert(object.uid().to_owned());
            } else if phase(pod) == "Failed" || pod.metadata.deletion_timestamp.is_some() {
                failed.insert(object.uid().to_owned());
            }
        }
        for object in store.list(Kind::of::<Job>(), Some("default")).0 {
            let Some(job) = object.typed::<Job>() else { panic!("a Job that does not decode") };
            let status = job.status.clone().unwrap_or_default();
            let counts = [status.succeeded.unwrap_or(0), status.failed.unwrap_or(0)];
            let seen = self.ended.entry(object.uid().to_owned()).or_default();
            for (count, seen) in std::iter::zip(counts, seen) {
                let seen = i32::try_from(seen.len()).expect("few");
                assert!(count <= seen, "{} counts {counts:?}, {seen} ended so", object.key());
            }
            let before = self.counts.insert(object.uid().to_owned(), counts).unwrap_or_default();
            assert!(before[0] <= counts[0] && before[1] <= counts[1], "{} fell", object.key());
        }
    }
}
