//! `fargate-scheduler`: looks once at each pod that Fargate has taken, asks for its micro-VM, and binds
//! the pod when the VM's node is ready. When the pod is gone, so is the VM; a pod that has merely ended
//! keeps it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
};
use rustc_hash::FxHashMap;
use wharf_fargate::logging::{self, Disabled, Told};
use wharf_fargate::refusal::{self, Claim, refusal};
use wharf_fargate::{
    CAPACITY_PROVISIONED, LOGGING, PROFILE_LABEL, SCHEDULER, admission, node, size, storage,
};
use wharf_model::fargate::FargateProfile;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::{condition, is_terminal};
use wharf_model::time::Time;
use wharf_ports::cloud::{CloudEvent, CloudRequest, LaunchError, MicroVmRequest};
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, Step, WorkKey};
use wharf_ports::event::EventType;
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;

use super::FargateSettings;
use crate::scheduler::writes;

/// A VM that does not show after so long is asked for again; the request is idempotent.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long to wait after the cloud had no room.
const WAIT_FOR_CAPACITY: Duration = Duration::from_mins(1);
/// How long a VM may take until its pod is bound; then it is given up, and another asked for. AWS does
/// not publish its own.
const PROVISION_MAX: Duration = Duration::from_mins(10);
/// What users are told when it had none.
const NO_CAPACITY: &str = "Fargate capacity is unavailable at this time. Please try again later or in a different availability zone.";

/// The controller.
pub(super) struct FargateScheduler {
    settings: Arc<FargateSettings>,
    /// The VMs of each pod; more than one where a pod was created again under its name.
    machines: FxHashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// When a VM was last asked for, for a pod that has none yet.
    asked: FxHashMap<ObjectKey, (CompactString, Time)>,
    /// Requests that the cloud has refused, until the pod's next step.
    refused: FxHashMap<ObjectKey, LaunchError>,
}

impl FargateScheduler {
    pub(super) fn new(settings: Arc<FargateSettings>) -> Self {
        let (machines, asked, refused) = Default::default();
        Self { settings, machines, asked, refused }
    }

    /// Gives up the VMs that were for a pod of this name and have none.
    fn release(&self, key: &ObjectKey, uid: Option<&str>, view: &View, step: &mut Step) {
        for machine in self.machines.get(key).into_iter().flatten() {
            let Some(instance) = view.get::<Instance>(machine).filter(|vm| is_up(vm)) else {
                continue;
            };
            let pod_uid = instance.spec.micro_vm.as_ref().map(|vm| vm.pod_uid.as_str());
            if pod_uid != uid {
                let instance_id = machine.name.to_string();
                step.cloud.push(CloudRequest::Terminate { instance_id });
                step.again = Some(ASK_AGAIN);
            }
        }
    }

    /// The VMs that are or were for a pod.
    fn machines_of<'v>(
        &'v self,
        key: &ObjectKey,
        uid: &'v str,
        view: &'v View,
    ) -> impl Iterator<Item = &'v Instance> {
        let machines = self.machines.get(key).into_iter().flatten();
        machines.filter_map(|key| view.get(key)).filter(move |instance: &&Instance| {
            instance.spec.micro_vm.as_ref().is_some_and(|vm| vm.pod_uid == uid)
        })
    }

    /// Looks at a pod that has no node yet.
    fn schedule(&mut self, object: &Object, pod: &Pod, context: &Context<'_>, step: &mut Step) {
        let key = object.key();
        let machine = self.machines_of(key, object.uid(), context.view).find(|vm| is_up(vm));
        if let Some(machine) = machine {
            bind_or_give_up(object, machine, context, step);
            self.asked.remove(key);
            return;
        }
        if was_refused(pod) {
            return;
        }
        if let Some((reason, message)) = self.why_not(pod, context.view) {
            step.writes.extend(writes::refused(object, reason, &message, context.now));
            step.write(writes::failed(object, &message, SCHEDULER));
            step.reasons.push(told(object, format!("refused: {message}"), Vec::new()));
            return;
        }
        if let Some(error) = self.refused.remove(key) {
            let message = match &error {
                LaunchError::InsufficientCapacity { .. } => NO_CAPACITY,
                LaunchError::Api { message, .. } => message,
            };
            let because = vec![Because::new("cloud", error.to_string())];
            self.wait(object, message, because, context.now, step);
            return;
        }
        self.provision(object, pod, context, step);
    }

    /// Tells a pod why it gets no VM now, and tries again later.
    fn wait(
        &mut self,
        object: &Object,
        message: &str,
        because: Vec<Because>,
        now: Time,
        step: &mut Step,
    ) {
        let until = now + (WAIT_FOR_CAPACITY - ASK_AGAIN);
        self.asked.insert(object.key().clone(), (object.uid().into(), until));
        step.write(writes::failed(object, message, SCHEDULER));
        step.reasons.push(told(object, message.to_owned(), because));
        step.again = Some(WAIT_FOR_CAPACITY);
    }

    /// Asks for the pod's VM, after the pod has been told what it will be.
    fn provision(&mut self, object: &Object, pod: &Pod, context: &Context<'_>, step: &mut Step) {
        let Some(spec) = &pod.spec else { return };
        let (Ok(size), Ok(storage_gib)) = (size::of_pod(spec), storage::of_pod(spec)) else {
            return;
        };
        let text = size.to_string();
        let profile = profile_of(pod, context.view);
        let name = profile.map(|profile| profile.spec.name.clone()).unwrap_or_default();
        let price = self.settings.prices.price(size, storage_gib);
        if annotation(pod, CAPACITY_PROVISIONED) != Some(&text)
            || annotation(pod, LOGGING).is_none()
        {
            let logging = logging_of(context.view);
            step.writes.push(annotated(pod, &text, &logging));
            let kind = if logging.is_warning { EventType::Warning } else { EventType::Normal };
            step.write(writes::told(object, kind, logging.reason, logging.message, SCHEDULER));
            let because = vec![
                Because::new("profile", name.clone()),
                Because::new("size", requests_text(spec)),
                Because::new("price", price.per_hour()),
            ];
            step.reasons.push(told(object, format!("gets a micro-VM of {text}"), because));
        }
        let asked = self.asked.get(object.key()).filter(|(uid, _)| uid == object.uid());
        let again = asked.map(|(_, at)| *at + ASK_AGAIN);
        if let Some(again) = again.filter(|again| *again > context.now) {
            step.again = Some(again.since(context.now));
            return;
        }
        if let Some(message) = profile.and_then(|profile| blocked(profile, context.view)) {
            self.wait(object, &message, Vec::new(), context.now, step);
            return;
        }
        self.asked.insert(object.key().clone(), (object.uid().into(), context.now));
        let failed = self.machines_of(object.key(), object.uid(), context.view).count();
        let amounts = node::amounts(size, storage_gib);
        step.cloud.push(CloudRequest::LaunchMicroVm(Box::new(MicroVmRequest {
            token: match failed {
                0 => object.uid().to_owned(),
                failed => format!("{}/{failed}", object.uid()),
            },
            pod: object.key().clone(),
            pod_uid: object.uid().to_owned(),
            profile: name,
            subnets: profile.map(|profile| profile.spec.subnets.clone()).unwrap_or_default(),
            size: text,
            storage_gib,
            price,
            capacity: amounts.capacity,
            allocatable: amounts.allocatable,
        })));
        step.again = Some(ASK_AGAIN);
    }

    /// The reason and text with which a pod is refused.
    fn why_not(&self, pod: &Pod, view: &View) -> Option<(&'static str, String)> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(refusal) = refusal(pod, &|name| claim(namespace, name, view)) {
            return Some((refusal::REASON, refusal.to_string()));
        }
        let spec = pod.spec.as_ref()?;
        if let Err(error) = size::of_pod(spec) {
            return Some((size::TOO_LARGE_REASON, error.to_string()));
        }
        let error = storage::of_pod(spec).err()?;
        Some((size::TOO_LARGE_REASON, error.to_string()))
    }
}

impl Controller for FargateScheduler {
    fn name(&self) -> &'static str {
        SCHEDULER
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        if kind == Kind::of::<Pod>() {
            if change.object().typed::<Pod>().is_some_and(admission::is_admitted) {
                queue.now(WorkKey::object(kind, change.key()));
            }
        } else if kind == Kind::of::<Instance>() {
            let Some(pod) = change.object().typed::<Instance>().and_then(pod_of) else { return };
            if change.new.is_some() {
                self.machines.entry(pod.clone()).or_default().insert(change.key().clone());
            } else if let Some(machines) = self.machines.get_mut(&pod) {
                machines.remove(change.key());
                if machines.is_empty() {
                    self.machines.remove(&pod);
                }
            }
            queue.now(WorkKey::object(Kind::of::<Pod>(), &pod));
        } else if kind == Kind::of::<Node>()
            && let Some(pod) = change.object().typed::<Node>().and_then(|node| {
                let provider_id = node.spec.as_ref()?.provider_id.as_deref()?;
                // `aws:///zone/machine/node`; EC2's end in the instance's id.
                let machine = provider_id.strip_prefix("aws:///")?.split('/').nth(1)?;
                pod_of(view.get_cluster::<Instance>(machine)?)
            })
        {
            queue.now(WorkKey::object(Kind::of::<Pod>(), &pod));
        }
    }

    fn observe_cloud(&mut self, event: &CloudEvent, _view: &View, queue: &mut Enqueue) {
        if let CloudEvent::MicroVmFailed { pod, error } = event {
            self.refused.insert(pod.clone(), error.clone());
            queue.now(WorkKey::object(Kind::of::<Pod>(), pod));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        let object = context.view.object(Kind::of::<Pod>(), &key.key);
        self.release(&key.key, object.map(|object| object.uid()), context.view, &mut step);
        let Some((object, pod)) = object.and_then(|object| Some((object, object.typed::<Pod>()?)))
        else {
            self.refused.remove(&key.key);
            self.asked.remove(&key.key);
            return step;
        };
        let spec = pod.spec.as_ref();
        let is_bound =
            spec.and_then(|spec| spec.node_name.as_deref()).is_some_and(|n| !n.is_empty());
        let is_gated = spec.is_some_and(|spec| spec.scheduling_gates.iter().flatten().count() > 0);
        if admission::is_admitted(pod)
            && !is_bound
            && !is_gated
            && !is_terminal(pod)
            && pod.metadata.deletion_timestamp.is_none()
        {
            self.schedule(object, pod, context, &mut step);
        }
        step
    }
}

/// Binds a pod to its VM's node, if that is ready; gives the VM up if it takes too long.
fn bind_or_give_up(object: &Object, machine: &Instance, context: &Context<'_>, step: &mut Step) {
    if bind(object, machine, context.view, step) {
        return;
    }
    let last = Time::from_nanos(machine.status.launched_at_nanos) + PROVISION_MAX;
    if context.now < last {
        step.again = Some(last.since(context.now));
        return;
    }
    let message = format!("Pod provisioning timed out (will retry) for pod: {}", object.key());
    let instance_id = machine.metadata.name.clone().unwrap_or_default();
    let because = vec![Because::new("machine", instance_id.clone())];
    step.write(writes::failed(object, &message, SCHEDULER));
    step.reasons.push(told(object, message, because));
    step.cloud.push(CloudRequest::Terminate { instance_id });
    step.again = Some(ASK_AGAIN);
}

/// Why nothing may start on a profile: the cluster has a map of roles, and the profile's is not in it.
/// Without a map, roles are taken to have access entries.
fn blocked(profile: &FargateProfile, view: &View) -> Option<String> {
    let role = profile.spec.pod_execution_role_arn.as_deref()?;
    let map = view.get::<ConfigMap>(&ObjectKey::namespaced("kube-system", "aws-auth"))?;
    let roles = map.data.as_ref().and_then(|data| data.get("mapRoles"));
    let is_listed = roles.is_some_and(|roles| {
        let words = roles.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','));
        words.into_iter().any(|word| word == role)
    });
    (!is_listed).then(|| {
        format!(
            "Misconfigured Fargate Profile: fargate profile {} blocked for new launches due to: Pod execution role is not found in auth config or does not have all required permissions for launching fargate pods.",
            profile.spec.name
        )
    })
}

/// Binds a pod to its VM's node, if that is ready.
fn bind(object: &Object, machine: &Instance, view: &View, step: &mut Step) -> bool {
    let name = &machine.spec.private_dns_name;
    let is_ready = view.get_cluster::<Node>(name).is_some_and(|node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    });
    if !is_ready {
        return false;
    }
    step.write(Write::Bind {
        pod: object.key().clone(),
        uid: object.uid().into(),
        node: name.as_str().into(),
    });
    step.write(writes::scheduled(object, name, SCHEDULER));
    let because = vec![Because::new("zone", machine.spec.zone.clone())];
    step.reasons.push(told(object, format!("bound to its own node {name}"), because));
    true
}

/// Whether a VM is there or will be.
pub(super) fn is_up(instance: &Instance) -> bool {
    matches!(instance.status.state, InstanceState::Pending | InstanceState::Running)
}

fn pod_of(instance: &Instance) -> Option<ObjectKey> {
    let vm = instance.spec.micro_vm.as_ref()?;
    Some(ObjectKey::namespaced(&vm.pod_namespace, &vm.pod_name))
}

fn profile_of<'v>(pod: &Pod, view: &'v View) -> Option<&'v FargateProfile> {
    let name = pod.metadata.labels.as_ref()?.get(PROFILE_LABEL)?;
    view.list::<FargateProfile>().find(|profile| profile.spec.name == *name)
}

/// Whether the pod has been looked at and refused: that happens once.
fn was_refused(pod: &Pod) -> bool {
    condition(pod, "PodScheduled").is_some_and(|scheduled| {
        let reason = scheduled.reason.as_deref();
        matches!(reason, Some(refusal::REASON | size::TOO_LARGE_REASON))
    })
}

/// What a claim is bound to.
fn claim(namespace: &str, name: &str, view: &View) -> Claim {
    let key = ObjectKey::namespaced(namespace, name);
    let Some(claim) = view.get::<PersistentVolumeClaim>(&key) else { return Claim::Missing };
    let is_bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    let Some(volume) = volume.filter(|_| is_bound) else { return Claim::Unbound };
    let stored = view.get_cluster::<PersistentVolume>(&volume);
    let csi = stored.and_then(|volume| volume.spec.as_ref()?.csi.as_ref());
    Claim::Bound { driver: csi.map(|csi| csi.driver.clone()), volume }
}

/// What the cluster says of logging at the moment.
fn logging_of(view: &View) -> Told {
    let namespace = view.get_cluster::<Namespace>(logging::NAMESPACE);
    let labels = namespace.and_then(|namespace| namespace.metadata.labels.as_ref());
    let enabled = labels.and_then(|labels| labels.get(logging::NAMESPACE_LABEL));
    let key = ObjectKey::namespaced(logging::NAMESPACE, logging::CONFIG_MAP);
    let map = view.get::<ConfigMap>(&key).filter(|_| enabled.is_some_and(|v| v == "enabled"));
    let read = match map {
        Some(map) => logging::read(map.data.as_ref().unwrap_or(&Default::default()))
            .map_err(Disabled::Invalid),
        None => Err(Disabled::NotFound),
    };
    logging::told(&read)
}

fn annotation<'p>(pod: &'p Pod, key: &str) -> Option<&'p String> {
    pod.metadata.annotations.as_ref()?.get(key)
}

/// The pod with what it is told: its size, whatever a user wrote there, and whether its output is
/// collected.
fn annotated(pod: &Pod, size: &str, logging: &Told) -> Write {
    let mut pod = pod.clone();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CAPACITY_PROVISIONED.to_owned(), size.to_owned());
    annotations.insert(LOGGING.to_owned(), logging.annotation.clone());
    Write::Update { object: Box::new(pod), part: Part::Main }
}

/// What a size was chosen for, in words.
fn requests_text(spec: &k8s_openapi::api::core::v1::PodSpec) -> String {
    let requests = wharf_model::resources::pod_requests(spec);
    let text = |name: &str| wharf_model::resources::amount_text(name, requests.get(name));
    let (cpu, memory) = (text("cpu"), text("memory"));
    format!(
        "requests of cpu {cpu} and memory {memory}, and {}Mi for the VM itself",
        size::OVERHEAD_MIB
    )
}

fn told(object: &Object, decision: String, because: Vec<Because>) -> Reason {
    let (kind, key) = (object.kind(), object.key().clone());
    Reason { kind, key, by: "fargate", decision, because }
}
