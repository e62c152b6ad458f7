//! Target groups: which addresses or machines are in them, and how they fare.
//!
//! Modelled: a target is healthy one interval of its group's checks after it was registered, as AWS
//! asks for one check of new targets, and stays so while its pod is ready; one that was taken out drains
//! for five minutes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::balancing::{DRAINING, HEALTHY, INITIAL, Target, TargetGroup, TargetGroupBinding};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::condition;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::stack::BINDING_FINALIZER;
use crate::workloads::endpoints::SERVICE_NAME;
use crate::workloads::event;

const COMPONENT: &str = "targetGroupBinding";
/// `deregistration_delay.timeout_seconds`.
const DRAINS_FOR: Duration = Duration::from_mins(5);
/// Taints that say a machine is about to go.
const LEAVING: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];
const FARGATE: (&str, &str) = ("eks.amazonaws.com/compute-type", "fargate");

/// The controller of bindings.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    /// What was last found missing for each binding.
    told: BTreeMap<ObjectKey, String>,
}

/// The condition that a pod with a readiness gate for a binding waits for.
pub fn health_condition(binding: &str) -> String {
    format!("target-health.elbv2.k8s.aws/{binding}")
}

impl Bindings {
    fn reconcile(
        &mut self,
        object: &Arc<Object>,
        binding: &TargetGroupBinding,
        context: &Context<'_>,
    ) -> Step {
        let (view, now) = (context.view, context.now);
        let mut step = Step::done();
        let finalizers = binding.metadata.finalizers.as_deref().unwrap_or_default();
        if !finalizers.iter().any(|held| held == BINDING_FINALIZER) {
            let mut draft = binding.clone();
            draft.metadata.finalizers.get_or_insert_default().push(BINDING_FINALIZER.to_owned());
            step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        }
        let Some(group) = group_of(binding, view) else {
            let message = format!(
                "target group not found: {}",
                binding
                    .spec
                    .target_group_arn
                    .as_deref()
                    .or(binding.spec.target_group_name.as_deref())
                    .unwrap_or("no targetGroupARN or targetGroupName")
            );
            self.tell(object, "FailedReconcile", message, &mut step);
            return step;
        };
        let wanted = match wanted(binding, group, view) {
            Ok(wanted) => wanted,
            Err(message) => {
                self.tell(object, "BackendNotFound", message, &mut step);
                Vec::new()
            }
        };
        let interval = Duration::from_secs(u64::from(group.spec.health_check.interval_seconds));
        let (targets, next) = follow(&group.status.targets, wanted, interval, now);
        step.again = next.map(|at| at.since(now));
        step.writes.extend(gates(&object.key().name, &targets, view, now));
        if targets != group.status.targets {
            let mut draft = group.clone();
            draft.status.targets = targets;
            step.write(Write::Update { object: Box::new(draft), part: Part::Status });
        }
        if binding.status.observed_generation != binding.metadata.generation {
            let mut draft = binding.clone();
            draft.status.observed_generation = binding.metadata.generation;
            step.write(Write::Update { object: Box::new(draft), part: Part::Status });
            let message = "Successfully reconciled";
            step.write(event(
                object,
                EventType::Normal,
                COMPONENT,
                "SuccessfullyReconciled",
                message,
            ));
        }
        step
    }

    fn tell(&mut self, object: &Object, reason: &str, message: String, step: &mut Step) {
        let before = self.told.insert(object.key().clone(), message.clone());
        if before.as_ref() != Some(&message) {
            step.write(event(object, EventType::Warning, COMPONENT, reason, message));
        }
    }

    /// Takes all targets out, and lets the binding go.
    fn finalize(&mut self, binding: &TargetGroupBinding, context: &Context<'_>) -> Step {
        let mut step = Step::done();
        self.told.remove(&ObjectKey::of(&binding.metadata));
        if let Some(group) = group_of(binding, context.view) {
            let (targets, _) =
                follow(&group.status.targets, Vec::new(), Duration::ZERO, context.now);
            if targets != group.status.targets {
                let mut draft = group.clone();
                draft.status.targets = targets;
                step.write(Write::Update { object: Box::new(draft), part: Part::Status });
            }
        }
        let mut draft = binding.clone();
        let finalizers = draft.metadata.finalizers.get_or_insert_default();
        finalizers.retain(|held| held != BINDING_FINALIZER);
        if draft != *binding {
            step.write(Write::Update { object: Box::new(draft), part: Part::Main });
        }
        step
    }

    fn queue(view: &View, queue: &mut Enqueue, of: impl Fn(&TargetGroupBinding) -> bool) {
        let kind = Kind::of::<TargetGroupBinding>();
        for binding in view.list::<TargetGroupBinding>().filter(|binding| of(binding)) {
            queue.now(WorkKey::object(kind, &ObjectKey::of(&binding.metadata)));
        }
    }
}

impl Controller for Bindings {
    fn name(&self) -> &'static str {
        "target group bindings"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[
            ("", "pods"),
            ("", "nodes"),
            ("", "services"),
            ("discovery.k8s.io", "endpointslices"),
            ("elbv2.k8s.aws", "targetgroupbindings"),
            ("sim.wharf.dev", "targetgroups"),
        ])
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        if kind == Kind::of::<TargetGroupBinding>() {
            queue.now(WorkKey::object(kind, change.key()));
            return;
        }
        if view.count(Kind::of::<TargetGroupBinding>()) == 0 {
            return;
        }
        let header = change.object().header();
        let in_namespace = |binding: &TargetGroupBinding| {
            binding.metadata.namespace.as_deref() == Some(header.key.namespace.as_str())
        };
        if kind == Kind::of::<EndpointSlice>() {
            let service = header.label(SERVICE_NAME).unwrap_or_default();
            Self::queue(view, queue, |it| in_namespace(it) && it.spec.service_ref.name == service);
        } else if kind == Kind::of::<Service>() {
            let name = header.key.name.as_str();
            Self::queue(view, queue, |it| in_namespace(it) && it.spec.service_ref.name == name);
        } else if kind == Kind::of::<TargetGroup>() {
            let arn = change.object().typed::<TargetGroup>().map(|group| group.spec.arn.as_str());
            let name = header.key.name.as_str();
            Self::queue(view, queue, |it| {
                it.spec.target_group_arn.as_deref() == arn
                    || it.spec.target_group_name.as_deref() == Some(name)
            });
        } else if kind == Kind::of::<Pod>() {
            // A pod whose containers are ready, but for its gate.
            let is_gated =
                change.new.as_ref().and_then(|it| it.typed::<Pod>()).is_some_and(|pod| {
                    let gates =
                        pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
                    gates
                        .into_iter()
                        .any(|gate| gate.condition_type.starts_with(&health_condition("")))
                });
            if is_gated {
                Self::queue(view, queue, in_namespace);
            }
        } else if kind == Kind::of::<Node>() {
            let of = |object: &Object| {
                object.typed::<Node>().map(|node| (instance_id(node), is_target(node)))
            };
            if change.old.as_deref().and_then(of) != change.new.as_deref().and_then(of) {
                Self::queue(view, queue, |it| it.spec.target_type.as_deref() != Some("ip"));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<TargetGroupBinding>(), &key.key);
        match object.and_then(|object| Some((object, object.typed::<TargetGroupBinding>()?))) {
            None => {
                self.told.remove(&key.key);
                Step::done()
            }
            Some((object, binding)) if object.header().deleting.is_some() => {
                self.finalize(binding, context)
            }
            Some((object, binding)) => self.reconcile(object, binding, context),
        }
    }
}

/// The target group that a binding is about: by its ARN, else by its name.
fn group_of<'v>(binding: &TargetGroupBinding, view: &'v View) -> Option<&'v TargetGroup> {
    match &binding.spec.target_group_arn {
        Some(arn) => view.list::<TargetGroup>().find(|group| group.spec.arn == *arn),
        None => view.get_cluster(binding.spec.target_group_name.as_deref()?),
    }
}

/// The targets that there should be, as id, port and pod.
fn wanted(
    binding: &TargetGroupBinding,
    group: &TargetGroup,
    view: &View,
) -> Result<Vec<Target>, String> {
    let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
    let name = &binding.spec.service_ref.name;
    let key = ObjectKey::namespaced(namespace, name);
    let Some(service) = view.get::<Service>(&key) else {
        return Err(format!("backend not found: Service {name:?} not found"));
    };
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = ports.into_iter().find(|of| match &binding.spec.service_ref.port {
        Some(IntOrString::Int(number)) => of.port == *number,
        Some(IntOrString::String(name)) => of.name.as_ref() == Some(name),
        None => false,
    });
    let Some(port) = port else {
        return Err(format!("backend not found: unable to find the port on service {key}"));
    };
    let of_type = binding.spec.target_type.as_deref().unwrap_or(&group.spec.target_type);
    if of_type == "instance" {
        let node_port = port.node_port.unwrap_or(group.spec.port);
        let nodes = view.list::<Node>().filter(|node| is_target(node));
        let ids = nodes.filter_map(instance_id);
        return Ok(ids.map(|id| Target { id, port: node_port, ..Target::default() }).collect());
    }
    Ok(addresses(&key, port.name.as_deref().unwrap_or_default(), binding, view))
}

/// The pods behind a Service's port that are ready, or would be but for the gate of this binding.
fn addresses(
    service: &ObjectKey,
    port: &str,
    binding: &TargetGroupBinding,
    view: &View,
) -> Vec<Target> {
    let gate = health_condition(binding.metadata.name.as_deref().unwrap_or_default());
    let prefix = format!("{}-", service.name);
    let slices = view
        .objects_from(Kind::of::<EndpointSlice>(), &service.namespace, &prefix)
        .take_while(|object| object.key().name.starts_with(prefix.as_str()))
        .filter(|object| object.header().label(SERVICE_NAME) == Some(service.name.as_str()))
        .filter_map(|object| object.typed::<EndpointSlice>());
    let mut found = Vec::new();
    for slice in slices {
        let of =
            slice.ports.iter().flatten().find(|of| of.name.as_deref().unwrap_or_default() == port);
        let Some(number) = of.and_then(|of| of.port) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(name) = endpoint.target_ref.as_ref().and_then(|of| of.name.as_deref()) else {
                continue;
            };
            let key = ObjectKey::namespaced(&service.namespace, name);
            let Some(pod) = view.get::<Pod>(&key) else { continue };
            let said = endpoint.conditions.as_ref();
            let is_ready = said.and_then(|said| said.ready).unwrap_or(true);
            let is_leaving = said.and_then(|said| said.terminating) == Some(true);
            let waits_for_us = || {
                !is_leaving
                    && has_gate(pod, &gate)
                    && condition(pod, "ContainersReady").is_some_and(|it| it.status == "True")
            };
            if !is_ready && !waits_for_us() {
                continue;
            }
            found.extend(endpoint.addresses.first().map(|address| Target {
                id: address.clone(),
                port: number,
                pod: Some(key.to_string()),
                ..Target::default()
            }));
        }
    }
    found
}

fn has_gate(pod: &Pod, gate: &str) -> bool {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.into_iter().any(|of| of.condition_type == gate)
}

/// How targets go on: what is new begins its checks, what is no longer wanted drains. Also when there is
/// something to see next.
fn follow(
    before: &[Target],
    wanted: Vec<Target>,
    interval: Duration,
    now: Time,
) -> (Vec<Target>, Option<Time>) {
    let place = |target: &Target| (target.id.clone(), target.port);
    let mut known: BTreeMap<(String, i32), &Target> =
        before.iter().map(|target| (place(target), target)).collect();
    let mut after: BTreeMap<(String, i32), Target> = BTreeMap::new();
    let mut next: Option<Time> = None;
    let mut see = |at: Time| next = Some(next.map_or(at, |next| next.min(at)));
    for mut target in wanted {
        let held = known
            .remove(&place(&target))
            .filter(|held| held.state != DRAINING && held.pod == target.pod);
        let (state, since) = match held {
            Some(held) if held.state == INITIAL => {
                let due = Time::from_nanos(held.since_nanos) + interval;
                if due <= now {
                    (HEALTHY, now.as_nanos())
                } else {
                    see(due);
                    (INITIAL, held.since_nanos)
                }
            }
            Some(held) => (HEALTHY, held.since_nanos),
            None => {
                see(now + interval);
                (INITIAL, now.as_nanos())
            }
        };
        target.state = state.to_owned();
        target.since_nanos = since;
        after.insert(place(&target), target);
    }
    for (place, held) in known {
        let since = if held.state == DRAINING { held.since_nanos } else { now.as_nanos() };
        let due = Time::from_nanos(since) + DRAINS_FOR;
        if due > now {
            see(due);
            let state = DRAINING.to_owned();
            after.insert(place, Target { state, since_nanos: since, ..held.clone() });
        }
    }
    (after.into_values().collect(), next)
}

/// The conditions that pods with the gate of a binding wait for.
fn gates(binding: &str, targets: &[Target], view: &View, now: Time) -> Vec<Write> {
    let gate = health_condition(binding);
    let mut writes = Vec::new();
    for target in targets.iter().filter(|target| target.state != DRAINING) {
        let Some((namespace, name)) = target.pod.as_deref().and_then(|pod| pod.split_once('/'))
        else {
            continue;
        };
        let Some(pod) = view.get::<Pod>(&ObjectKey::namespaced(namespace, name)) else { continue };
        if !has_gate(pod, &gate) {
            continue;
        }
        let is_healthy = target.state == HEALTHY;
        let status = if is_healthy { "True" } else { "False" };
        if condition(pod, &gate).is_some_and(|held| held.status == status) {
            continue;
        }
        let mut draft = pod.clone();
        let conditions = draft.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.retain(|held| held.type_ != gate);
        conditions.push(PodCondition {
            type_: gate.clone(),
            status: status.to_owned(),
            reason: (!is_healthy).then(|| "Elb.RegistrationInProgress".to_owned()),
            message: (!is_healthy).then(|| "Target registration is in progress".to_owned()),
            last_transition_time: Some(now.to_meta()),
            ..PodCondition::default()
        });
        writes.push(Write::Update { object: Box::new(draft), part: Part::Status });
    }
    writes
}

/// Whether a machine takes traffic for Services.
fn is_target(node: &Node) -> bool {
    let all = node.metadata.labels.as_ref();
    let label = |key: &str| all.and_then(|all| all.get(key)).map(String::as_str);
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True");
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let is_leaving = taints.into_iter().any(|taint| LEAVING.contains(&taint.key.as_str()));
    is_ready
        && !is_leaving
        && label(labels::EXCLUDE_FROM_LOAD_BALANCERS).is_none()
        && label(FARGATE.0) != Some(FARGATE.1)
}

fn instance_id(node: &Node) -> Option<String> {
    let provider_id = node.spec.as_ref()?.provider_id.as_deref()?;
    provider_id.rsplit('/').next().filter(|id| id.starts_with("i-")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: &str) -> Target {
        Target { id: id.to_owned(), port: 80, pod: Some(format!("n/{id}")), ..Target::default() }
    }

    #[test]
    fn targets_are_checked_and_drained() {
        let interval = Duration::from_secs(15);
        let at = Time::from_seconds;
        let states = |targets: &[Target]| -> Vec<String> {
            targets.iter().map(|target| format!("{} {}", target.id, target.state)).collect()
        };
        let (first, next) = follow(&[], vec![target("a")], interval, at(100));
        assert_eq!((states(&first), next), (vec!["a initial".to_owned()], Some(at(115))));
        let (second, next) = follow(&first, vec![target("a"), target("b")], interval, at(110));
        assert_eq!(
            (states(&second), next),
            (vec!["a initial".to_owned(), "b initial".to_owned()], Some(at(115)))
        );
        let (third, next) = follow(&second, vec![target("a"), target("b")], interval, at(115));
        assert_eq!(
            (states(&third), next),
            (vec!["a healthy".to_owned(), "b initial".to_owned()], Some(at(125)))
        );
        assert_eq!(follow(&third, vec![target("a"), target("b")], interval, at(116)).0, third);
        let (fourth, next) = follow(&third, vec![target("b")], interval, at(130));
        assert_eq!(
            (states(&fourth), next),
            (vec!["a draining".to_owned(), "b healthy".to_owned()], Some(at(430)))
        );
        let (last, next) = follow(&fourth, vec![target("b")], interval, at(430));
        assert_eq!((states(&last), next), (vec!["b healthy".to_owned()], None));
        let (back, _) = follow(&fourth, vec![target("a"), target("b")], interval, at(200));
        assert_eq!(states(&back), ["a initial", "b healthy"], "one that comes back is new");
    }
}
