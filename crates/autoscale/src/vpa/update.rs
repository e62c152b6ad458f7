//! Which running pods are to get what is recommended for them, in which order, and how: by eviction
//! or in place.
//!
//! A pod is chosen when it asks for what is out of its recommended range, when a container of it was
//! soon killed for memory, or when it has run for long and asks for something quite different. How
//! many pods of a workload may go at a time is a [`Budget`].

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use wharf_model::pod::condition;
use wharf_model::quantity::Quantity;
use wharf_model::time::Time;
use wharf_model::vpa::{ContainerPolicy, EvictionRequirement, VerticalPodAutoscaler};

use super::LimitRanges;
use super::admit::{Capped, OBSERVED_CONTAINERS, capped, get};

/// The updater's flags; the defaults are upstream's.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdaterConfig {
    /// `--min-replicas`: workloads with fewer live pods are left alone, unless their autoscaler says
    /// otherwise.
    pub min_replicas: i32,
    /// `--eviction-tolerance`: the fraction of a workload's pods that may go at a time.
    pub tolerance: f64,
    /// `--pod-update-threshold`: smaller differences within the recommended range count for nothing.
    pub least_difference: f64,
    /// `--in-recommendation-bounds-eviction-lifetime-threshold`: pods within the recommended range
    /// are left alone for so long.
    pub lifetime: Duration,
    /// `--evict-after-oom-threshold`: a kill for memory so soon after the start counts as quick.
    pub quick_kill: Duration,
}

impl Default for UpdaterConfig {
    fn default() -> Self {
        Self {
            min_replicas: 2,
            tolerance: 0.5,
            least_difference: 0.1,
            lifetime: Duration::from_secs(12 * 3600),
            quick_kill: Duration::from_secs(600),
        }
    }
}

/// How much a pod is in need of what is recommended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Priority {
    /// Whether a container asks for less than the lower bound, for more than the upper bound, or
    /// for nothing.
    pub is_out_of_range: bool,
    /// Whether a container should ask for more.
    pub grows: bool,
    /// How far what is asked for is from what is recommended, as a fraction, added over resources.
    pub difference: f64,
}

impl Priority {
    /// The order in which pods are updated: those that should ask for more first, then the larger
    /// difference.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        other.grows.cmp(&self.grows).then(other.difference.total_cmp(&self.difference))
    }
}

/// Why a pod is updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It asks for what is out of the recommended range.
    OutOfRange,
    /// A container of it was killed for memory soon after its start.
    QuickKill,
    /// It has run for long, and asks for something quite different.
    Difference,
}

/// How a running pod stands to what is recommended for it; `None` if it stays as it is.
pub fn judge(
    autoscaler: &VerticalPodAutoscaler,
    pod: &Pod,
    now: Time,
    config: &UpdaterConfig,
    ranges: &LimitRanges,
) -> Option<(Priority, Cause)> {
    let found = priority(autoscaler, pod, ranges);
    let is_quick = was_killed_quickly(autoscaler, pod, config.quick_kill);
    let cause = if found.is_out_of_range {
        Cause::OutOfRange
    } else if is_quick {
        Cause::QuickKill
    } else {
        let started = pod.status.as_ref()?.start_time.as_ref().map(Time::from)?;
        if now < started + config.lifetime || found.difference < config.least_difference {
            return None;
        }
        Cause::Difference
    };
    // A kill that another request would not have prevented is no reason.
    if is_quick && found.difference == 0.0 {
        return None;
    }
    Some((found, cause))
}

/// How much a pod is in need of what is recommended.
pub fn priority(autoscaler: &VerticalPodAutoscaler, pod: &Pod, ranges: &LimitRanges) -> Priority {
    let mut priority = Priority::default();
    let mut sums = [(0_i64, 0_i64); 2];
    let mut any = [false; 2];
    for (container, capped) in observed(autoscaler, pod, ranges) {
        for (index, name) in ["cpu", "memory"].into_iter().enumerate() {
            let Some(target) = capped.target.of(name) else { continue };
            any[index] = true;
            let (asked, recommended) = &mut sums[index];
            *recommended = recommended.saturating_add(target.milli_value_ceil());
            let Some(request) = request(pod, container, name) else {
                priority.grows = true;
                priority.is_out_of_range = true;
                continue;
            };
            *asked = asked.saturating_add(request.milli_value_ceil());
            priority.grows |= target.milli_value_ceil() > request.milli_value_ceil();
            let is_low = capped.lower.of(name).is_some_and(|lower| request < lower);
            let is_high = capped.upper.of(name).is_some_and(|upper| request > upper);
            priority.is_out_of_range |= is_low || is_high;
        }
    }
    for ((asked, recommended), _) in sums.into_iter().zip(any).filter(|(_, any)| *any) {
        let asked = (asked as f64).max(1.0);
        priority.difference += (asked - recommended as f64).abs() / asked;
    }
    priority
}

/// The containers that admission saw, with what is recommended for them.
fn observed<'p>(
    autoscaler: &'p VerticalPodAutoscaler,
    pod: &'p Pod,
    ranges: &LimitRanges,
) -> impl Iterator<Item = (&'p Container, Capped)> + use<'p> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let all = containers.iter().zip(capped(autoscaler, containers, ranges));
    all.filter(|(container, _)| is_observed(pod, &container.name))
        .filter_map(|(container, capped)| Some((container, capped?)))
}

/// Whether admission saw a container; it did of a pod that it said nothing of.
fn is_observed(pod: &Pod, container: &str) -> bool {
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(OBSERVED_CONTAINERS));
    annotation.is_none_or(|names| names.split(", ").any(|name| name == container))
}

/// What a container asks for: what its kubelet gives it, or else what its pod's spec says.
fn request(pod: &Pod, container: &Container, name: &str) -> Option<Quantity> {
    let actual = status_of(pod, &container.name).and_then(|status| status.resources.as_ref());
    let resources = actual.or(container.resources.as_ref())?;
    get(resources.requests.as_ref(), name)
}

fn status_of<'p>(pod: &'p Pod, container: &str) -> Option<&'p ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == container)
}

fn was_killed_quickly(autoscaler: &VerticalPodAutoscaler, pod: &Pod, soon: Duration) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .filter(|status| is_observed(pod, &status.name))
        .filter(|status| !autoscaler.policy_of(&status.name).is_some_and(ContainerPolicy::is_off))
        .filter_map(|status| status.last_state.as_ref()?.terminated.as_ref())
        .filter(|ended| ended.reason.as_deref() == Some("OOMKilled"))
        .any(|ended| {
            let time = |time: &Option<_>| time.as_ref().map(Time::from).unwrap_or_default();
            time(&ended.finished_at).since(time(&ended.started_at)) < soon
        })
}

/// Whether an autoscaler's requirements let a pod be evicted: all of them have to hold, each for
/// any of its resources, for any container.
pub fn may_be_evicted(autoscaler: &VerticalPodAutoscaler, pod: &Pod, ranges: &LimitRanges) -> bool {
    let policy = autoscaler.spec.update_policy.as_ref();
    let Some(requirements) = policy.and_then(|policy| policy.eviction_requirements.as_deref())
    else {
        return true;
    };
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let all = containers.iter().zip(capped(autoscaler, containers, ranges));
    all.filter_map(|(container, capped)| Some((container, capped?))).any(|(container, capped)| {
        let names = ["cpu", "memory"];
        // One that lacks a request is to get it.
        names.iter().any(|name| request(pod, container, name).is_none())
            || requirements.iter().all(|one| requirement_holds(one, pod, container, &capped))
    })
}

fn requirement_holds(
    requirement: &EvictionRequirement,
    pod: &Pod,
    container: &Container,
    capped: &Capped,
) -> bool {
    requirement.resources.iter().any(|name| {
        let zero = Quantity::from_milli(0);
        let target = capped.target.of(name).unwrap_or(zero);
        let request = request(pod, container, name).unwrap_or(zero);
        match requirement.change_requirement.as_str() {
            "TargetHigherThanRequests" => target > request,
            "TargetLowerThanRequests" => target < request,
            _ => false,
        }
    })
}

/// How many pods of one controller may still go in this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    configured: i64,
    running: i64,
    tolerance: i64,
    disrupted: i64,
}

impl Budget {
    /// The budget of a controller that is to have `configured` pods and of which `running` run.
    pub fn new(configured: i64, running: i64, tolerance: f64) -> Self {
        let tolerance = (configured as f64 * tolerance) as i64;
        Self { configured, running, tolerance, disrupted: 0 }
    }

    /// Whether one more pod may go.
    pub fn allows(&self) -> bool {
        let least = self.configured - self.tolerance;
        // Where nothing is tolerated, one pod may go as long as all run.
        let alone = self.configured == self.running && self.tolerance == 0 && self.disrupted == 0;
        self.running - self.disrupted > least || alone
    }

    /// Counts a pod that goes.
    pub fn take(&mut self) {
        self.disrupted += 1;
    }
}

/// What to do about a pod that could be resized in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPlace {
    /// Resize it.
    Resize,
    /// Leave it be: its turn has not come, or a resize is under way.
    Wait,
    /// Evict it: a resize did not come about.
    Evict,
}

/// How long a resize may be put off by the node.
const DEFERRED_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a resize may take.
const IN_PROGRESS_MAX: Duration = Duration::from_secs(3600);

/// How a resize of a pod stands, as its kubelet tells it.
pub fn resize_under_way(pod: &Pod) -> bool {
    ["PodResizePending", "PodResizeInProgress"].iter().any(|type_| is_true(pod, type_))
}

/// Whether a pod's node can never give it what it is to be resized to.
pub fn resize_is_infeasible(pod: &Pod) -> bool {
    condition(pod, "PodResizePending").is_some_and(|condition| {
        condition.status == "True" && condition.reason.as_deref() == Some("Infeasible")
    })
}

/// What to do about a pod in the mode `InPlaceOrRecreate`; `waited` is for how long a resize of it
/// has been seen to be under way.
pub fn in_place(pod: &Pod, budget: &Budget, waited: Duration) -> InPlace {
    if wharf_model::pod::phase(pod) == "Pending" || !budget.allows() {
        return InPlace::Wait;
    }
    if !resize_under_way(pod) {
        return InPlace::Resize;
    }
    let reason = |type_: &str| {
        let found = condition(pod, type_).filter(|condition| condition.status == "True")?;
        Some(found.reason.as_deref().unwrap_or_default())
    };
    let is_over = match (reason("PodResizePending"), reason("PodResizeInProgress")) {
        (Some("Deferred"), _) => waited >= DEFERRED_MAX,
        (None, Some("")) => waited >= IN_PROGRESS_MAX,
        _ => true,
    };
    if is_over { InPlace::Evict } else { InPlace::Wait }
}

fn is_true(pod: &Pod, type_: &str) -> bool {
    condition(pod, type_).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const NOW: Time = Time::from_seconds(200_000);

    fn autoscaler(policy: Value) -> VerticalPodAutoscaler {
        serde_json::from_value(json!({
            "metadata": {"name": "v"}, "spec": {"updatePolicy": policy},
            "status": {"recommendation": {"containerRecommendations": [{"containerName": "c",
                "target": {"cpu": "200m", "memory": "100Mi"},
                "lowerBound": {"cpu": "100m", "memory": "50Mi"},
                "upperBound": {"cpu": "400m", "memory": "200Mi"}}]}},
        }))
        .unwrap()
    }

    fn pod(requests: Value, status: Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "resources": {"requests": requests}}]}, "status": status}))
        .unwrap()
    }

    fn started(seconds_ago: u64) -> Value {
        json!({"startTime": (NOW - Duration::from_secs(seconds_ago)).to_string()})
    }

    fn killed_after(seconds: i64) -> Value {
        json!({"startTime": NOW.to_string(), "containerStatuses": [{"name": "c", "image": "", "imageID": "",
            "ready": true, "restartCount": 1, "lastState": {"terminated": {"exitCode": 137,
                "reason": "OOMKilled", "startedAt": Time::from_seconds(1000).to_string(),
                "finishedAt": Time::from_seconds(1000 + seconds).to_string()}}}]})
    }

    #[test]
    fn pods_are_chosen_by_range_kill_or_difference() {
        let fits = json!({"cpu": "200m", "memory": "100Mi"});
        let half = json!({"cpu": "150m", "memory": "100Mi"});
        for (name, requests, status, expected) in [
            ("within range and young", half.clone(), started(60), None),
            ("within range and old", half.clone(), started(12 * 3600), Some(Cause::Difference)),
            (
                "a little off and old",
                json!({"cpu": "190m", "memory": "100Mi"}),
                started(90_000),
                None,
            ),
            (
                "too little",
                json!({"cpu": "50m", "memory": "100Mi"}),
                started(0),
                Some(Cause::OutOfRange),
            ),
            (
                "too much",
                json!({"cpu": "500m", "memory": "100Mi"}),
                started(0),
                Some(Cause::OutOfRange),
            ),
            ("nothing asked for", json!({"cpu": "200m"}), started(0), Some(Cause::OutOfRange)),
            ("killed soon", half.clone(), killed_after(599), Some(Cause::QuickKill)),
            ("killed late", half, killed_after(600), None),
            ("killed soon, with the target", fits, killed_after(1), None),
        ] {
            let pod = pod(requests, status);
            let found = judge(
                &autoscaler(Value::Null),
                &pod,
                NOW,
                &UpdaterConfig::default(),
                &LimitRanges::default(),
            );
            assert_eq!(found.map(|(_, cause)| cause), expected, "{name}");
        }
    }

    #[test]
    fn what_the_kubelet_gives_counts_before_the_spec() {
        let mut status = started(0);
        status["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}}}]);
        let pod = pod(json!({"cpu": "200m", "memory": "100Mi"}), status);
        let found = priority(&autoscaler(Value::Null), &pod, &LimitRanges::default());
        assert!(found.is_out_of_range && found.grows);
        assert_eq!(found.difference, 3.0);
    }

    #[test]
    fn containers_that_admission_did_not_see_do_not_count() {
        let mut pod = pod(json!({}), started(0));
        assert!(
            judge(
                &autoscaler(Value::Null),
                &pod,
                NOW,
                &UpdaterConfig::default(),
                &LimitRanges::default()
            )
            .is_some()
        );
        let seen = (OBSERVED_CONTAINERS.to_owned(), "a, b".to_owned());
        pod.metadata.annotations = Some([seen].into());
        assert_eq!(
            judge(
                &autoscaler(Value::Null),
                &pod,
                NOW,
                &UpdaterConfig::default(),
                &LimitRanges::default()
            ),
            None
        );
    }

    #[test]
    fn growth_comes_first_then_the_larger_difference() {
        let priority = |grows, difference| Priority { grows, difference, ..Priority::default() };
        let mut all = [priority(false, 3.0), priority(true, 0.2), priority(true, 2.0)];
        all.sort_by(Priority::order);
        assert_eq!(all, [priority(true, 2.0), priority(true, 0.2), priority(false, 3.0)]);
    }

    #[test]
    fn requirements_hold_back_evictions() {
        let requirement = |resources: Value, change: &str| json!({"evictionRequirements": [{"resources": resources, "changeRequirement": change}]});
        let asks = |requests| pod(requests, started(0));
        let less = || asks(json!({"cpu": "100m", "memory": "150Mi"}));
        for (policy, pod, expected) in [
            (Value::Null, less(), true),
            (requirement(json!(["cpu"]), "TargetHigherThanRequests"), less(), true),
            (requirement(json!(["memory"]), "TargetHigherThanRequests"), less(), false),
            (requirement(json!(["cpu", "memory"]), "TargetHigherThanRequests"), less(), true),
            (requirement(json!(["memory"]), "TargetLowerThanRequests"), less(), true),
            (
                requirement(json!(["memory"]), "TargetHigherThanRequests"),
                asks(json!({"cpu": "1"})),
                true,
            ),
        ] {
            assert_eq!(
                may_be_evicted(&autoscaler(policy.clone()), &pod, &LimitRanges::default()),
                expected,
                "{policy}"
            );
        }
    }

    #[test]
    fn budgets_are_upstreams() {
        for (configured, running, expected) in [
            (1, 1, 1),
            (2, 2, 1),
            (3, 3, 1),
            (4, 4, 2),
            (10, 10, 5),
            (10, 5, 0),
            (4, 3, 1),
            (0, 3, 3),
        ] {
            let mut budget = Budget::new(configured, running, 0.5);
            let mut gone = 0;
            while budget.allows() && gone < running {
                budget.take();
                gone += 1;
            }
            assert_eq!(gone, expected, "{configured} {running}");
        }
    }

    #[test]
    fn a_resize_under_way_is_waited_for_but_not_for_ever() {
        let plenty = Budget::new(4, 4, 0.5);
        let resize = |type_: &str, reason: &str| {
            let condition = json!({"type": type_, "status": "True", "reason": reason});
            pod(json!({}), json!({"phase": "Running", "conditions": [condition]}))
        };
        let running = pod(json!({}), json!({"phase": "Running"}));
        let seconds = Duration::from_secs;
        for (pod, waited, expected) in [
            (running.clone(), 0, InPlace::Resize),
            (resize("PodResizePending", "Deferred"), 299, InPlace::Wait),
            (resize("PodResizePending", "Deferred"), 300, InPlace::Evict),
            (resize("PodResizePending", "Infeasible"), 0, InPlace::Evict),
            (resize("PodResizeInProgress", ""), 3599, InPlace::Wait),
            (resize("PodResizeInProgress", ""), 3600, InPlace::Evict),
            (resize("PodResizeInProgress", "Error"), 0, InPlace::Evict),
            (pod(json!({}), json!({"phase": "Pending"})), 0, InPlace::Wait),
        ] {
            assert_eq!(in_place(&pod, &plenty, seconds(waited)), expected, "{pod:?}");
        }
        assert_eq!(in_place(&running, &Budget::new(4, 2, 0.5), Duration::ZERO), InPlace::Wait);
    }

    proptest! {
        /// However pods go, enough of them stay: what is not tolerated to go, or all but one.
        #[test]
        fn a_budget_keeps_enough(configured in 0_i64..50, running in 0_i64..50, percent in 0_u32..100) {
            let tolerance = f64::from(percent) / 100.0;
            let mut budget = Budget::new(configured, running, tolerance);
            let mut left = running;
            while budget.allows() && left > 0 {
                budget.take();
                left -= 1;
            }
            let least = configured - (configured as f64 * tolerance) as i64;
            prop_assert!(left >= least.min(running) || left == running - 1);
        }
    }
}
