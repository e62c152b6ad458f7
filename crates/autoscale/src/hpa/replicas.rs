//! From usage and target to a number of replicas.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use rustc_hash::FxHashMap;
use wharf_model::pod::{condition, phase};

use super::readiness::{Groups, Usage, Usages, group};
use super::{Config, Scale, requests};
use wharf_model::time::Time;

const NO_PODS: &str = "no pods returned by selector while calculating replica count";
const NO_SAMPLES: &str = "did not receive metrics for targeted pods (pods might be unready)";
const NO_MATCH: &str = "no metrics returned matched known pods";

/// By how much a ratio may differ from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerances {
    fn hold(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What a metric asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// How many replicas.
    pub replicas: i32,
    /// Usage over target.
    pub ratio: f64,
    /// Percent of the requests, where that is the target.
    pub utilization: Option<i32>,
    /// The average or the value, in thousandths.
    pub milli: i64,
    /// The pods it was measured on; `None` where the value is about no pod.
    pub pods: Option<Grouped>,
    /// Why it asks for what there is, if the ratio alone would have asked for another count.
    pub held: Option<Held>,
}

/// How many pods fell into which group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grouped {
    /// Those with a sample that counts.
    pub ready: usize,
    /// Those whose samples do not count yet.
    pub unready: usize,
    /// Those without a sample.
    pub missing: usize,
    /// Those that end.
    pub ignored: usize,
}

/// Why a metric asks for no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The ratio is near enough to 1.
    Tolerance,
    /// With what pods without samples may be using, the change would go another way.
    Missing,
}

/// What the pods of a target are measured with.
pub(super) struct Measure<'a> {
    pub(super) config: &'a Config,
    pub(super) tolerances: Tolerances,
    pub(super) current: i32,
    pub(super) pods: &'a [&'a Pod],
    /// Requests that stand for those of the pods, where another autoscaler changes these.
    pub(super) base: Option<&'a PodSpec>,
    /// The resource; empty for metrics that are none.
    pub(super) resource: &'a str,
    pub(super) now: Time,
}

impl<'a> Measure<'a> {
    /// Percent of requests against a target percentage.
    pub(super) fn utilization(
        &self,
        mut usages: Usages<'a>,
        container: Option<&str>,
        target: i32,
    ) -> Result<Count, String> {
        let groups = self.narrow(&mut usages)?;
        let pod_level = self.config.pod_level_resources;
        let requests = requests::of(self.pods, self.base, container, self.resource, pod_level)?;
        let (ratio, utilization, milli) = utilization(&usages, &requests, target)?;
        let pods = Some(groups.sizes());
        let count = |(replicas, held)| Count {
            replicas,
            ratio,
            utilization: Some(utilization),
            milli,
            pods,
            held,
        };
        if groups.missing.is_empty() && (groups.unready.is_empty() || ratio <= 1.0) {
            return Ok(count(self.plain(ratio, &groups)));
        }
        // Whatever has no sample is taken to use what speaks against a change.
        let full = i64::from(target.max(100));
        groups.fill(&mut usages, ratio, |pod| {
            requests.get(pod).map_or(0, |request| request.saturating_mul(full) / 100)
        });
        let (filled, _, _) = self::utilization(&usages, &requests, target)?;
        Ok(count(self.checked(ratio, filled, usages.len())))
    }

    /// The average of a value against a target average.
    pub(super) fn average(&self, mut usages: Usages<'a>, target: i64) -> Result<Count, String> {
        let groups = self.narrow(&mut usages)?;
        let (ratio, milli) = average(&usages, target);
        let pods = Some(groups.sizes());
        let count =
            |(replicas, held)| Count { replicas, ratio, utilization: None, milli, pods, held };
        if groups.missing.is_empty() && (groups.unready.is_empty() || ratio <= 1.0) {
            return Ok(count(self.plain(ratio, &groups)));
        }
        groups.fill(&mut usages, ratio, |_| target);
        let (filled, _) = average(&usages, target);
        Ok(count(self.checked(ratio, filled, usages.len())))
    }

    /// Groups the pods and drops the samples that do not count.
    fn narrow(&self, usages: &mut Usages<'a>) -> Result<Groups<'a>, String> {
        if self.pods.is_empty() {
            return Err(NO_PODS.to_owned());
        }
        let groups = group(self.pods, usages, self.resource, self.config, self.now);
        for name in groups.ignored.iter().chain(&groups.unready) {
            usages.remove(name);
        }
        if usages.is_empty() {
            return Err(NO_SAMPLES.to_owned());
        }
        Ok(groups)
    }

    /// The count when every pod has its say.
    fn plain(&self, ratio: f64, groups: &Groups<'_>) -> (i32, Option<Held>) {
        if self.tolerances.hold(ratio) {
            (self.current, Some(Held::Tolerance))
        } else {
            ((ratio * groups.ready as f64).ceil() as i32, None)
        }
    }

    /// The count after filling in: only where it goes in the same direction as before.
    fn checked(&self, ratio: f64, filled: f64, samples: usize) -> (i32, Option<Held>) {
        let turned = (ratio < 1.0 && filled > 1.0) || (ratio > 1.0 && filled < 1.0);
        if turned {
            return (self.current, Some(Held::Missing));
        }
        if self.tolerances.hold(filled) {
            return (self.current, Some(Held::Tolerance));
        }
        let count = (filled * samples as f64).ceil() as i32;
        let against =
            (filled < 1.0 && count > self.current) || (filled > 1.0 && count < self.current);
        if against { (self.current, Some(Held::Missing)) } else { (count, None) }
    }
}

impl<'a> Groups<'a> {
    fn sizes(&self) -> Grouped {
        Grouped {
            ready: self.ready,
            unready: self.unready.len(),
            missing: self.missing.len(),
            ignored: self.ignored.len(),
        }
    }

    fn fill(&self, usages: &mut Usages<'a>, ratio: f64, missing: impl Fn(&str) -> i64) {
        let usage =
            |milli| Usage { milli, timestamp: Time::EPOCH, window: std::time::Duration::ZERO };
        if ratio < 1.0 {
            for name in &self.missing {
                usages.insert(name, usage(missing(name)));
            }
        } else if ratio > 1.0 {
            for name in self.missing.iter().chain(&self.unready) {
                usages.insert(name, usage(0));
            }
        }
    }
}

/// Usage over target, percent of requests, and average usage.
fn utilization(
    usages: &Usages<'_>,
    requests: &FxHashMap<&str, i64>,
    target: i32,
) -> Result<(f64, i32, i64), String> {
    let (mut used, mut asked, mut pods) = (0_i64, 0_i64, 0_i64);
    for (name, usage) in usages {
        if let Some(request) = requests.get(name) {
            used = used.wrapping_add(usage.milli);
            asked = asked.wrapping_add(*request);
            pods += 1;
        }
    }
    if asked == 0 {
        return Err(NO_MATCH.to_owned());
    }
    let percent = (i128::from(used) * 100 / i128::from(asked)) as i32;
    Ok((f64::from(percent) / f64::from(target), percent, used / pods))
}

fn average(usages: &Usages<'_>, target: i64) -> (f64, i64) {
    let sum = usages.values().fold(0_i64, |sum, usage| sum.wrapping_add(usage.milli));
    // Never empty: that was refused before.
    let average = sum / i64::try_from(usages.len()).unwrap_or(i64::MAX).max(1);
    (average as f64 / target as f64, average)
}

/// A value that is about no pod against a target for the whole.
pub(super) fn of_value(
    value: i64,
    target: i64,
    current: i32,
    tolerances: Tolerances,
    pods: &[&Pod],
) -> Result<Count, String> {
    let ratio = value as f64 / target as f64;
    let count = |replicas, held| Count {
        replicas,
        ratio,
        utilization: None,
        milli: value,
        pods: None,
        held,
    };
    if current == 0 {
        return Ok(count(ratio.ceil() as i32, None));
    }
    if tolerances.hold(ratio) {
        return Ok(count(current, Some(Held::Tolerance)));
    }
    if pods.is_empty() {
        return Err(format!("unable to calculate ready pods: {NO_PODS}"));
    }
    let ready = pods.iter().filter(|pod| {
        phase(pod) == "Running"
            && condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
    });
    Ok(count((ratio * ready.count() as f64).ceil() as i32, None))
}

/// A value that is about no pod against a target for each replica.
pub(super) fn of_average(value: i64, target: i64, scale: &Scale, tolerances: Tolerances) -> Count {
    let replicas = scale.status_replicas;
    let ratio = value as f64 / (target as f64 * f64::from(replicas));
    let (wanted, held) = if tolerances.hold(ratio) {
        (replicas, Some(Held::Tolerance))
    } else {
        ((value as f64 / target as f64).ceil() as i32, None)
    };
    // Without replicas there is no average; upstream's status then shows what its processor makes
    // of infinity.
    let average = value as f64 / f64::from(replicas);
    let milli = match value {
        // A sum that was cut there is shown as it is.
        i64::MAX => value,
        _ if average.is_finite() => average.ceil() as i64,
        _ => i64::MIN,
    };
    Count { replicas: wanted, ratio, utilization: None, milli, pods: None, held }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pods(count: usize) -> Vec<Pod> {
        let pod = |index: usize| {
            serde_json::from_value(json!({
                "metadata": {"name": format!("p{index}")},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
                "status": {
                    "phase": "Running",
                    "startTime": "2026-01-01T00:00:00Z",
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
                }
            }))
            .unwrap()
        };
        (0..count).map(pod).collect()
    }

    fn count(pods: &[Pod], usage: &[i64], target: i32) -> Result<Count, String> {
        let config = Config::default();
        let pods: Vec<_> = pods.iter().collect();
        let now = Time::from_seconds(1_800_000_000);
        let usage = usage.iter().map(|milli| Usage {
            milli: *milli,
            timestamp: now,
            window: std::time::Duration::from_secs(15),
        });
        let names = pods.iter().filter_map(|pod| pod.metadata.name.as_deref());
        let measure = Measure {
            config: &config,
            tolerances: Tolerances { up: 0.1, down: 0.1 },
            current: i32::try_from(pods.len()).unwrap(),
            pods: &pods,
            base: None,
            resource: "cpu",
            now,
        };
        measure.utilization(names.zip(usage).collect(), None, target)
    }

    #[test]
    fn counts_follow_the_ratio_of_sums() {
        let four = pods(4);
        for (usage, target, expected) in [
            (vec![50; 4], 50, 4),
            (vec![54; 4], 50, 4),
            (vec![56; 4], 50, 5),
            (vec![100; 4], 50, 8),
            (vec![200, 0, 0, 0], 50, 4),
            (vec![10; 4], 50, 1),
            // One pod without a sample: full use is assumed for a fall, none for a rise.
            (vec![10; 3], 50, 3),
            (vec![90; 3], 50, 6),
        ] {
            let count = count(&four, &usage, target).unwrap();
            assert_eq!(count.replicas, expected, "{usage:?} of {target}");
        }
        assert_eq!(count(&[], &[], 50).unwrap_err(), NO_PODS);
        assert_eq!(count(&four, &[], 50).unwrap_err(), NO_SAMPLES);
    }

    proptest! {
        /// More load never asks for fewer replicas.
        #[test]
        fn monotone_in_load(
            usage in prop::collection::vec(0..400_i64, 1..12),
            more in prop::collection::vec(0..200_i64, 12),
            target in 1..150,
        ) {
            let pods = pods(usage.len());
            let higher: Vec<_> = usage.iter().zip(&more).map(|(usage, more)| usage + more).collect();
            let low = count(&pods, &usage, target).unwrap().replicas;
            let high = count(&pods, &higher, target).unwrap().replicas;
            prop_assert!(low <= high, "{low} > {high}");
        }
    }
}
