//! Indexed Jobs: which indexes have succeeded, which have failed, which are to run next
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode>).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use wharf_model::indexes::Indexes;
use wharf_model::time::Time;

use super::backoff;
use super::pods::{JobPod, is_indexed, replaces_failed_only};
use super::policy;
use super::status::Finish;

/// How far the indexes of a Job are.
pub(super) struct Indexed<'v> {
    /// Those that the status has as completed.
    pub(super) counted: Indexes,
    /// The same with those of pods that have succeeded since.
    pub(super) succeeded: Indexes,
    /// Those that are given up, where each has a limit of its own.
    pub(super) failed: Option<Indexes>,
    /// The last failed pod of each index that waits for another: it is kept until that is there,
    /// since it says how often the index has failed.
    pub(super) delayed: BTreeMap<i32, JobPod<'v>>,
}

/// Whether a pod has an index that its Job has, or needs none.
pub(super) fn is_valid(spec: &JobSpec, pod: &JobPod<'_>) -> bool {
    let completions = spec.completions.unwrap_or(0);
    !is_indexed(spec) || pod.index.is_some_and(|index| index < completions)
}

impl<'v> Indexed<'v> {
    pub(super) fn of(spec: &JobSpec, status: &JobStatus, pods: &[JobPod<'v>]) -> Self {
        let completions = spec.completions.unwrap_or(0);
        let read = |text: Option<&String>| {
            Indexes::of_status(text.map_or("", String::as_str), completions)
        };
        let counted = read(status.completed_indexes.as_ref());
        let tracked = || {
            let valid = |pod: &&JobPod<'v>| pod.is_tracked && is_valid(spec, pod);
            pods.iter().filter(valid).filter_map(|pod| Some((pod.index?, pod)))
        };
        let mut succeeded = counted.clone();
        let well = tracked().filter(|(_, pod)| pod.has_succeeded());
        succeeded.extend(well.map(|(index, _)| index));
        let mut failed = None;
        let mut delayed: BTreeMap<i32, JobPod<'v>> = BTreeMap::new();
        if spec.backoff_limit_per_index.is_some() {
            let mut indexes = read(status.failed_indexes.as_ref());
            let ended = tracked().filter(|(_, pod)| policy::ends_index(spec, pod));
            indexes.extend(ended.map(|(index, _)| index));
            let active: BTreeSet<i32> =
                pods.iter().filter(|pod| pod.is_active()).filter_map(|pod| pod.index).collect();
            for (index, pod) in tracked().filter(|(_, pod)| pod.has_failed(spec)) {
                if succeeded.contains(index) || indexes.contains(index) || active.contains(&index) {
                    continue;
                }
                let order = |pod: &JobPod<'_>| (pod.all_failures_before(), pod.finished_at());
                if delayed.get(&index).is_none_or(|other| order(other) < order(pod)) {
                    delayed.insert(index, *pod);
                }
            }
            failed = Some(indexes);
        }
        Self { counted, succeeded, failed, delayed }
    }

    /// Why the Job has failed by its indexes, if it has.
    pub(super) fn failure(&self, spec: &JobSpec) -> Option<Finish> {
        let failed = self.failed.as_ref()?.count();
        if spec.max_failed_indexes.is_some_and(|most| failed > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Finish::failure("MaxFailedIndexesExceeded", message));
        }
        let ended = failed + self.succeeded.count();
        (failed > 0 && ended >= spec.completions.unwrap_or(0))
            .then(|| Finish::failure("FailedIndexes", "Job has failed indexes"))
    }

    /// The lowest indexes that have to run, at most so many, and when each may at the earliest.
    pub(super) fn pending(
        &self,
        spec: &JobSpec,
        pods: &[JobPod<'v>],
        most: usize,
    ) -> Vec<(i32, Option<Time>)> {
        let waits = replaces_failed_only(spec);
        let taken: BTreeSet<i32> = pods
            .iter()
            .filter(|pod| pod.is_active() || (waits && pod.is_terminating()))
            .filter_map(|pod| pod.index)
            .collect();
        let is_failed = |index| self.failed.as_ref().is_some_and(|all| all.contains(index));
        (0..spec.completions.unwrap_or(0))
            .filter(|index| {
                !taken.contains(index) && !self.succeeded.contains(*index) && !is_failed(*index)
            })
            .take(most)
            .map(|index| (index, self.delayed.get(&index).map(backoff::next_of_index)))
            .collect()
    }
}
