//! Which pods' samples count: pods that are leaving do not, pods that are starting count against a
//! rise, pods without a sample count for whatever keeps the count as it is.

use k8s_openapi::api::core::v1::Pod;
use rustc_hash::FxHashMap;
use wharf_model::pod::{condition, phase};
use wharf_model::time::Time;

use super::Config;

/// A pod's sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// In thousandths.
    pub(super) milli: i64,
    pub(super) timestamp: Time,
    pub(super) window: std::time::Duration,
}

/// Samples by name of pod.
pub(super) type Usages<'a> = FxHashMap<&'a str, Usage>;

/// Pods in groups.
#[derive(Debug, Default)]
pub(super) struct Groups<'a> {
    pub(super) ready: usize,
    pub(super) unready: Vec<&'a str>,
    pub(super) missing: Vec<&'a str>,
    pub(super) ignored: Vec<&'a str>,
}

/// Groups the pods of a target. Only cpu has rules of readiness: starting is work, and says
/// nothing of the load.
pub(super) fn group<'a>(
    pods: &[&'a Pod],
    usages: &Usages<'_>,
    resource: &str,
    config: &Config,
    now: Time,
) -> Groups<'a> {
    let mut groups = Groups::default();
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
            groups.ignored.push(name);
        } else if phase(pod) == "Pending" {
            groups.unready.push(name);
        } else {
            match usages.get(name) {
                None => groups.missing.push(name),
                Some(usage) if resource == "cpu" && !is_representative(pod, usage, config, now) => {
                    groups.unready.push(name);
                }
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

fn is_representative(pod: &Pod, usage: &Usage, config: &Config, now: Time) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (condition(pod, "Ready"), started.map(Time::from)) else {
        return false;
    };
    let is_unready = ready.status == "False";
    let turned = ready.last_transition_time.as_ref().map_or(Time::EPOCH, Time::from);
    if started + config.cpu_initialization_period > now {
        // A whole window must have been measured since the pod became what it is.
        !is_unready && usage.timestamp >= turned + usage.window
    } else {
        // Later only a pod that has never been ready is left out.
        !(is_unready && started + config.initial_readiness_delay > turned)
    }
}
