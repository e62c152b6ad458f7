//! PodDisruptionBudgets: how many of the pods they cover may be evicted now
//! (<https://kubernetes.io/docs/tasks/run-application/configure-pdb/>).

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::{is_terminal, ready_since};
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;
use super::owners::controller_of;
use super::percentage::scaled;

const COMPONENT: &str = "controllermanager";
/// After so long a pod that was evicted and is still there counts again.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
/// The wait after a change grows with the number of pods covered, so that the work for many
/// changes does not grow with the square of their number.
const SETTLE_PER_POD: Duration = Duration::from_micros(20);
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// The disruption controller.
#[derive(Debug, Default)]
pub struct DisruptionController {
    /// How many pods each budget covered at the last look, and its selector's source version.
    covered: FxHashMap<ObjectKey, u32>,
}

impl DisruptionController {
    /// A controller that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn queue(&self, budget: &ObjectKey, queue: &mut Enqueue) {
        let covered = self.covered.get(budget).copied().unwrap_or(0);
        let wait = if covered < 50 { Duration::ZERO } else { SETTLE_PER_POD * covered };
        queue.after(
            WorkKey::object(Kind::of::<PodDisruptionBudget>(), budget),
            wait.min(SETTLE_MAX),
        );
    }

    fn look(
        &mut self,
        object: &Object,
        budget: &PodDisruptionBudget,
        context: &Context<'_>,
    ) -> Step {
        let (view, now) = (context.view, context.now);
        let pods = covered_pods(budget, &object.key().namespace, view);
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        self.covered.insert(object.key().clone(), count);
        let (expected, desired) = match expected_and_desired(budget, &pods, view) {
            Ok(numbers) => numbers,
            Err(message) => return failed(object, budget, &message, now),
        };
        let (disrupted, next) = still_disrupted(budget, &pods, now);
        let healthy = pods
            .iter()
            .filter(|(object, pod)| {
                object.header().deleting.is_none()
                    && !disrupted.contains_key(object.key().name.as_str())
                    && ready_since(pod).is_some()
            })
            .count();
        let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
        let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
        let (value, reason) =
            if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        let status = PodDisruptionBudgetStatus {
            current_healthy: Some(healthy),
            desired_healthy: Some(desired),
            disruptions_allowed: Some(allowed),
            expected_pods: Some(expected),
            disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
            observed_generation: budget.metadata.generation,
            conditions: Some(vec![condition(budget, value, reason, "", now)]),
        };
        let mut step = Step::done();
        step.again = next.map(|at| at.since(now));
        step.writes.extend(report(budget, status));
        step
    }
}

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<PodDisruptionBudget>();
        if change.kind() == kind {
            queue.now(WorkKey::object(kind, change.key()));
            return;
        }
        let namespace = &change.key().namespace;
        if change.kind() == Kind::of::<Pod>() {
            for budget in view.list_in::<PodDisruptionBudget>(namespace) {
                let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                let Ok(selector) = Selector::from_api(selector) else { continue };
                let mut versions = change.old.iter().chain(&change.new);
                if versions.any(|pod| selector.matches_with(|key| pod.header().label(key))) {
                    self.queue(&ObjectKey::of(&budget.metadata), queue);
                }
            }
        } else if change.kind() == Kind::of::<Deployment>()
            || change.kind() == Kind::of::<ReplicaSet>()
        {
            let size = |object: &Object| object.typed::<Deployment>().map(deployment_size);
            let size = |object: &Object| {
                size(object).or_else(|| object.typed::<ReplicaSet>().map(set_size))
            };
            if change.old.as_deref().and_then(size) != change.new.as_deref().and_then(size) {
                for budget in view.objects_in(kind, namespace) {
                    self.queue(budget.key(), queue);
                }
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<PodDisruptionBudget>(), &key.key);
        let Some((object, budget)) =
            object.and_then(|object| Some((object, object.typed::<PodDisruptionBudget>()?)))
        else {
            self.covered.remove(&key.key);
            return Step::done();
        };
        self.look(object, budget, context)
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

fn covered_pods<'v>(
    budget: &PodDisruptionBudget,
    namespace: &str,
    view: &'v View,
) -> Vec<(&'v Object, &'v Pod)> {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let Ok(selector) = Selector::from_api(selector) else { return Vec::new() };
    view.pods_matching(namespace, &selector)
        .into_iter()
        .filter_map(|object| Some((object.as_ref(), object.typed::<Pod>()?)))
        .filter(|(_, pod)| !is_terminal(pod))
        .collect()
}

/// How many pods there ought to be, and how many of them have to be healthy.
fn expected_and_desired(
    budget: &PodDisruptionBudget,
    pods: &[(&Object, &Pod)],
    view: &View,
) -> Result<(i32, i32), String> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let spec = budget.spec.as_ref();
    let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    if let Some(unavailable) = spec.and_then(|spec| spec.max_unavailable.as_ref()) {
        let expected = expected_scale(pods, view)?;
        return Ok((expected, (expected - scaled(unavailable, expected, true)).max(0)));
    }
    match spec.and_then(|spec| spec.min_available.as_ref()) {
        Some(IntOrString::Int(number)) => Ok((count, *number)),
        Some(percent) => {
            let expected = expected_scale(pods, view)?;
            Ok((expected, scaled(percent, expected, true)))
        }
        None => Ok((count, 0)),
    }
}

/// The sum of the sizes of all controllers that the pods have.
fn expected_scale(pods: &[(&Object, &Pod)], view: &View) -> Result<i32, String> {
    let mut sizes: BTreeMap<&str, i32> = BTreeMap::new();
    for (object, _) in pods {
        let Some(owner) = object.header().controller() else {
            // Upstream leaves pods without a controller out of the count.
            continue;
        };
        if sizes.contains_key(owner.uid.as_str()) {
            continue;
        }
        let Some(set) = controller_of::<ReplicaSet>(object, view) else {
            let (kind, name) = (&owner.kind, &owner.name);
            return Err(format!(
                "found no controller {kind} {name} for pod {:?}",
                object.key().name
            ));
        };
        match controller_of::<Deployment>(set, view) {
            Some(deployment) => {
                let size = deployment.typed::<Deployment>().map_or(0, deployment_size);
                sizes.insert(deployment.uid(), size);
            }
            None => {
                sizes.insert(owner.uid.as_str(), set.typed::<ReplicaSet>().map_or(0, set_size));
            }
        }
    }
    Ok(sizes.into_values().fold(0, i32::saturating_add))
}

fn deployment_size(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn set_size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

type MetaTime = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Pods that were evicted and whose deletion has not begun, and when the first of them is given
/// up on.
fn still_disrupted(
    budget: &PodDisruptionBudget,
    pods: &[(&Object, &Pod)],
    now: Time,
) -> (BTreeMap<String, MetaTime>, Option<Time>) {
    let noted = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone());
    let mut next: Option<Time> = None;
    let mut noted = noted.unwrap_or_default();
    noted.retain(|name, at| {
        let waiting = pods.iter().any(|(object, _)| {
            object.key().name == name.as_str() && object.header().deleting.is_none()
        });
        let until = Time::from(&*at) + DELETION_TIMEOUT;
        let keep = waiting && now < until;
        if keep {
            next = Some(next.map_or(until, |next| next.min(until)));
        }
        keep
    });
    (noted, next)
}

fn condition(
    budget: &PodDisruptionBudget,
    status: &str,
    reason: &str,
    message: &str,
    now: Time,
) -> Condition {
    const TYPE: &str = "DisruptionAllowed";
    let old = budget.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let before = old.into_iter().find(|c| c.type_ == TYPE && c.status == status);
    Condition {
        type_: TYPE.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: before
            .map_or_else(|| now.to_meta(), |before| before.last_transition_time.clone()),
    }
}

/// The status write, if there is news. It carries the version seen: an eviction that was allowed
/// meanwhile is not to be forgotten.
fn report(budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Option<Write> {
    if budget.status.as_ref() == Some(&status) {
        return None;
    }
    let budget = PodDisruptionBudget { status: Some(status), ..budget.clone() };
    Some(Write::Update { object: Box::new(budget), part: Part::Status })
}

/// Without numbers nothing may be evicted.
fn failed(object: &Object, budget: &PodDisruptionBudget, message: &str, now: Time) -> Step {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    status.observed_generation = budget.metadata.generation;
    status.conditions = Some(vec![condition(budget, "False", "SyncFailed", message, now)]);
    let mut step = Step::again_after(Duration::from_secs(30));
    if let Some(write) = report(budget, status) {
        let text = format!("Failed to calculate the number of expected pods: {message}");
        let reason = "CalculateExpectedPodCountFailed";
        step.write(event(object, EventType::Warning, COMPONENT, reason, text));
        step.write(write);
    }
    step
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::workloads::deployment::DeploymentController;
    use crate::workloads::harness::World;
    use crate::workloads::replica_set::ReplicaSetController;

    fn world(spec: Value) -> World {
        let mut world = World::new(vec![
            Box::new(DisruptionController::new()),
            Box::new(DeploymentController::new()),
            Box::new(ReplicaSetController::new()),
        ]);
        let mut budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}}});
        for (key, value) in spec.as_object().into_iter().flatten() {
            budget["spec"][key] = value.clone();
        }
        world.apply(budget);
        world.apply(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 5, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}}));
        world.run_for(Duration::from_secs(1));
        world.kubelet("n1");
        world.run_for(Duration::from_secs(1));
        world
    }

    fn status(world: &World) -> PodDisruptionBudgetStatus {
        let budget = world.get::<PodDisruptionBudget>("default", "b").expect("the budget");
        budget.status.clone().expect("a status")
    }

    fn numbers(world: &World) -> (i32, i32, i32, i32) {
        let status = status(world);
        let number = |number: Option<i32>| number.expect("a number");
        (
            number(status.expected_pods),
            number(status.current_healthy),
            number(status.desired_healthy),
            number(status.disruptions_allowed),
        )
    }

    #[test]
    fn budgets_count_as_their_spec_says() {
        for (spec, expected) in [
            (json!({"minAvailable": 2}), (5, 5, 2, 3)),
            (json!({"minAvailable": "50%"}), (5, 5, 3, 2)),
            (json!({"maxUnavailable": 1}), (5, 5, 4, 1)),
            (json!({"maxUnavailable": "50%"}), (5, 5, 2, 3)),
            (json!({"maxUnavailable": 0}), (5, 5, 5, 0)),
        ] {
            let world = world(spec.clone());
            assert_eq!(numbers(&world), expected, "{spec}");
            let conditions = status(&world).conditions.expect("a condition");
            let reason = if expected.3 > 0 { "SufficientPods" } else { "InsufficientPods" };
            assert_eq!(conditions[0].reason, reason);
        }
    }

    #[test]
    fn evicted_pods_count_as_gone_for_two_minutes() {
        let mut world = world(json!({"maxUnavailable": 2}));
        let name = world.list::<Pod>()[0].metadata.name.clone().expect("a name");
        let now = world.now.to_meta();
        world.edit::<PodDisruptionBudget>(&ObjectKey::namespaced("default", "b"), |budget| {
            let status = budget.status.get_or_insert_default();
            status.disrupted_pods = Some(BTreeMap::from([(name, now)]));
        });
        world.run_for(Duration::from_secs(60));
        assert_eq!(numbers(&world), (5, 4, 3, 1));
        world.run_for(Duration::from_secs(61));
        assert_eq!(numbers(&world), (5, 5, 3, 2));
        assert_eq!(status(&world).disrupted_pods, None);
    }

    #[test]
    fn a_controller_that_is_unknown_allows_nothing() {
        let mut world = world(json!({"maxUnavailable": 1}));
        world.apply(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "labels": {"app": "web"},
                "ownerReferences": [{"apiVersion": "x/v1", "kind": "Thing", "name": "t",
                    "uid": "t", "controller": true}]},
            "spec": {"containers": []}}));
        world.run_for(Duration::from_secs(1));
        assert_eq!(status(&world).disruptions_allowed, Some(0));
        assert_eq!(
            status(&world).conditions.map(|c| c[0].reason.clone()).as_deref(),
            Some("SyncFailed")
        );
        assert!(world.messages().iter().any(|text| text.ends_with("for pod \"p\"")));
    }
}
