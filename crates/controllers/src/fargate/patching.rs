//! Patching, as AWS does it: the pods whose machines are older than the patch are evicted, zone by zone.
//! A pod that a budget protects is told of, and deleted three days later.
//! <https://docs.aws.amazon.com/eks/latest/userguide/fargate-pod-patching.html>
//!
//! Rounds begin at multiples of their interval since 1970, so that nothing has to be remembered: a
//! machine is due if it was launched before the present round began. When a pod is to be deleted is noted
//! on its machine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use rustc_hash::FxHashMap;
use serde_json::json;
use wharf_model::instance::Instance;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;

use super::FargateSettings;
use super::scheduler::is_up;
use crate::scheduler::writes;

/// Between the zones of a round.
const ZONE_GAP: Duration = Duration::from_mins(10);
/// From a refused eviction until the pod is deleted.
const NOTICE: Duration = Duration::from_hours(72);
/// Noted on the machine of a pod that is to be deleted: when, in nanoseconds since 1970.
const TERMINATION: &str = "sim.wharf.dev/scheduled-termination";
/// The source of the events.
const SOURCE: &str = "aws.eks";

/// The controller.
pub(super) struct Patching {
    settings: Arc<FargateSettings>,
    every: Duration,
    /// Evictions that were refused, and why, until the next step.
    refused: FxHashMap<ObjectKey, String>,
}

impl Patching {
    pub(super) fn new(settings: Arc<FargateSettings>, every: Duration) -> Self {
        Self { settings, every, refused: FxHashMap::default() }
    }

    /// When the round began that is on at a moment.
    fn round(&self, now: Time) -> Time {
        let every = i64::try_from(self.every.as_nanos()).unwrap_or(i64::MAX).max(1);
        Time::from_nanos(now.as_nanos() - now.as_nanos().rem_euclid(every))
    }

    /// What is done about a pod that is due.
    fn replace(
        &mut self,
        machine: &Instance,
        object: &Object,
        now: Time,
        step: &mut Step,
    ) -> Option<Time> {
        if let Some(at) = scheduled(machine) {
            if at <= now {
                step.write(Write::Delete(Delete::of(object)));
                step.reasons.push(told(object, "deleted, as its eviction was refused", Vec::new()));
                return None;
            }
            return Some(at);
        }
        let Some(why) = self.refused.remove(object.key()) else {
            let (pod, uid) = (object.key().clone(), object.uid().into());
            step.write(Write::Evict { pod, uid });
            step.reasons.push(told(object, "evicted for a patch", Vec::new()));
            return None;
        };
        let at = now + NOTICE;
        let mut noted = machine.clone();
        let annotations = noted.metadata.annotations.get_or_insert_default();
        annotations.insert(TERMINATION.to_owned(), at.as_nanos().to_string());
        step.write(Write::Update { object: Box::new(noted), part: Part::Main });
        let profile = machine.spec.micro_vm.as_ref().map(|vm| vm.profile.as_str());
        let message = json!({
            "source": SOURCE,
            "detail-type": "EKS Fargate Pod Scheduled Termination",
            "time": now.to_string(),
            "region": self.settings.region,
            "account": self.settings.account,
            "detail": {
                "clusterName": self.settings.cluster_name,
                "fargateProfileName": profile,
                "podName": object.key().name.as_str(),
                "podNamespace": object.key().namespace.as_str(),
                "evictErrorMessage": why,
                "scheduledTerminationTime": at.to_string(),
            },
        });
        let (warning, reason) = (EventType::Warning, "ScheduledTermination");
        step.write(writes::told(object, warning, reason, message.to_string(), SOURCE));
        let because = vec![Because::new("eviction", why)];
        let decision = format!("to be deleted at {at} for a patch");
        step.reasons.push(told(object, &decision, because));
        Some(at)
    }
}

impl Controller for Patching {
    fn name(&self) -> &'static str {
        "fargate patching"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<Instance>() && change.old.is_none() {
            queue.now(WorkKey::singleton("fargate patching"));
        }
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        let now = context.now;
        let begun = self.round(now);
        let mut next = begun + self.every;
        let mut step = Step { independent: true, ..Step::default() };
        let machines: Vec<&Instance> = context
            .view
            .list::<Instance>()
            .filter(|machine| machine.spec.micro_vm.is_some() && is_up(machine))
            .collect();
        if machines.is_empty() {
            return step;
        }
        let zones: BTreeSet<&str> =
            machines.iter().map(|machine| machine.spec.zone.as_str()).collect();
        for machine in machines {
            if begun.as_nanos() <= machine.status.launched_at_nanos {
                continue;
            }
            let before = zones.range(..machine.spec.zone.as_str()).count();
            let turn = begun + ZONE_GAP * u32::try_from(before).unwrap_or(u32::MAX);
            if now < turn {
                next = next.min(turn);
            } else if let Some(object) = pod_of(machine, context.view)
                && let Some(at) = self.replace(machine, object, now, &mut step)
            {
                next = next.min(at);
            }
        }
        if !step.writes.is_empty() {
            // What was asked for may have got lost.
            next = next.min(now + ZONE_GAP);
        }
        step.again = Some(next.since(now));
        step
    }

    fn refused(&mut self, _key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        if let Write::Evict { pod, .. } = write
            && let Some(why) = budget_refusal(error)
        {
            self.refused.insert(pod.clone(), why);
        }
        OnError::Retry
    }
}

/// What AWS says of an eviction that budgets refuse; `None` if it failed otherwise.
fn budget_refusal(error: &ApiError) -> Option<String> {
    match error.reason {
        StatusReason::TooManyRequests => Some(error.message.trim_end_matches('.').to_owned()),
        StatusReason::InternalError if error.message.contains("PodDisruptionBudget") => Some(
            "This pod has multiple PodDisruptionBudget, which the eviction subresource does not support"
                .to_owned(),
        ),
        _ => None,
    }
}

/// The pod of a machine, if it runs there and is not on its way out.
fn pod_of<'v>(machine: &Instance, view: &'v View) -> Option<&'v Arc<Object>> {
    let vm = machine.spec.micro_vm.as_ref()?;
    let key = ObjectKey::namespaced(&vm.pod_namespace, &vm.pod_name);
    let object = view.object(Kind::of::<Pod>(), &key)?;
    let pod = object.typed::<Pod>()?;
    let is_bound = pod.spec.as_ref()?.node_name.as_deref() == Some(&machine.spec.private_dns_name);
    let is_here = is_bound && object.uid() == vm.pod_uid && object.header().deleting.is_none();
    is_here.then_some(object)
}

fn scheduled(machine: &Instance) -> Option<Time> {
    let at = machine.metadata.annotations.as_ref()?.get(TERMINATION)?;
    at.parse().ok().map(Time::from_nanos)
}

fn told(object: &Object, decision: &str, because: Vec<Because>) -> Reason {
    let (kind, key) = (object.kind(), object.key().clone());
    Reason { kind, key, by: "fargate", decision: decision.to_owned(), because }
}
