//! How long a Job waits before it makes pods in place of failed ones
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-backoff-failure-policy>).

use std::collections::BTreeMap;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::batch::v1::JobSpec;
use wharf_model::time::Time;

use super::pods::JobPod;

/// The wait after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait: what Kubernetes 1.36 does; its documentation still speaks of six minutes.
const LONGEST: Duration = Duration::from_secs(600);

/// The ends of a Job's pods: when, and whether well. Those seen are kept, since a pod may be
/// deleted; after a restart the pods that are there tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    ends: BTreeMap<CompactString, (Time, bool)>,
}

impl Record {
    /// Takes in the pods there are. What was before the last success does not matter any more.
    pub(super) fn learn(&mut self, spec: &JobSpec, pods: &[JobPod<'_>]) {
        // One that was given up uncounted has not failed.
        for pod in pods.iter().filter(|pod| pod.is_tracked || !pod.is_deleting()) {
            let succeeded = pod.has_succeeded();
            if (succeeded || pod.has_failed(spec)) && !self.ends.contains_key(pod.uid()) {
                self.ends.insert(pod.uid().into(), (pod.finished_at(), succeeded));
            }
        }
        let successes = self.ends.values().filter(|(_, succeeded)| *succeeded);
        if let Some(last) = successes.map(|(at, _)| *at).max() {
            self.ends.retain(|_, (at, _)| *at >= last);
        }
    }

    /// When the next pod may be made.
    pub(super) fn next(&self) -> Option<Time> {
        let success = self.ends.values().filter(|(_, well)| *well).map(|(at, _)| *at).max();
        let failures = self.ends.values().filter(|(at, well)| !well && Some(*at) > success);
        let (mut count, mut last) = (0_u32, None);
        for (at, _) in failures {
            count += 1;
            last = last.max(Some(*at));
        }
        Some(last? + wait(count))
    }
}

/// When the pod that takes the place of `failed`, the last of its index, may be made.
pub(super) fn next_of_index(failed: &JobPod<'_>) -> Time {
    let failures = u32::try_from(failed.all_failures_before()).unwrap_or(0) + 1;
    failed.finished_at() + wait(failures)
}

fn wait(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST * 2_u32.pow(doublings)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_minutes() {
        let seconds: Vec<u64> = (1..9).map(|failures| wait(failures).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 320, 600, 600]);
    }

    #[test]
    fn only_failures_since_the_last_success_count() {
        let mut record = Record::default();
        let mut ended = |uid: &str, seconds, well| {
            record.ends.insert(uid.into(), (Time::from_seconds(seconds), well));
            record.next().map(Time::as_seconds)
        };
        assert_eq!(ended("a", 100, false), Some(110));
        assert_eq!(ended("b", 120, false), Some(140));
        assert_eq!(ended("c", 150, true), None);
        assert_eq!(ended("d", 160, false), Some(170));
    }
}
