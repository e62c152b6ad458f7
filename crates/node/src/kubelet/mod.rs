//! The kubelets of simulated machines: each registers its Node when the boot plan says so, reports
//! it ready, and keeps its status and Lease fresh for as long as the machine runs.
//!
//! Follows <https://kubernetes.io/docs/concepts/architecture/nodes/> (heartbeats: a Lease renewal
//! every 10 s, a status report every 5 min). A kubelet registers once, when it starts: a Node that
//! somebody deletes does not come back. That it has registered is noted on the Instance, so that a
//! restart of the simulation is not taken for one of the machine. Once a machine is terminated its
//! Node is deleted, which is the cloud-node-lifecycle controller's part.

mod certificates;
mod csi;
mod node;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use rustc_hash::FxHashMap;
use wharf_model::auto_mode::EVENT_SOURCE;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::node_health::{READY, faults};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::{EventRecord, EventType, Regarding};
use wharf_ports::view::View;

pub use certificates::KubeletCertificates;

/// Set on an Instance whose kubelet has registered its Node.
pub const REGISTERED_ANNOTATION: &str = "sim.wharf.dev/registered";
/// The namespace of node leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// How often kubelets make themselves heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeats {
    /// Between two renewals of the Lease; upstream's default is 10 s.
    pub lease: Duration,
    /// Between two status reports without news; upstream's default is 5 min.
    pub status: Duration,
    /// What the Lease says of its validity; upstream's default is 40 s.
    pub lease_duration: Duration,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            status: Duration::from_secs(300),
            lease_duration: Duration::from_secs(40),
        }
    }
}

/// How long the cloud-node-lifecycle controller takes to notice that a machine is gone.
const CLOUD_NODE_POLL: Duration = Duration::from_secs(5);
/// How long a write is given to show up before it is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// The controller that plays every simulated machine's kubelet, as far as its Node goes.
#[derive(Debug, Default)]
pub struct NodeAgent {
    heartbeats: Heartbeats,
    /// Whether kubelets ask for serving certificates.
    certificates: bool,
    /// By Instance: what the kubelet has written and may not see yet.
    kubelets: FxHashMap<ObjectKey, Kubelet>,
    /// Instances by the name of their node.
    instances: FxHashMap<String, ObjectKey>,
}

/// What one kubelet remembers. Losing it costs a repeated write at most.
#[derive(Debug, Default)]
struct Kubelet {
    registered: Option<Time>,
    annotated: Option<Time>,
    ready: Option<Time>,
    lease: Option<Time>,
    csi: Option<Time>,
    status: Option<Time>,
    deleted: Option<Time>,
}

impl NodeAgent {
    /// Kubelets that make themselves heard as often as told.
    pub fn new(heartbeats: Heartbeats) -> Self {
        Self { heartbeats, ..Self::default() }
    }

    /// The same kubelets, who ask for serving certificates or do not.
    #[must_use]
    pub fn asking_for_certificates(mut self, ask: bool) -> Self {
        self.certificates = ask;
        self
    }

    fn run(&mut self, instance: &Instance, key: &ObjectKey, context: &Context<'_>) -> Step {
        let now = context.now;
        let registers = Time::from_nanos(instance.status.registers_at_nanos);
        if now < registers {
            return Step::again_after(registers.since(now));
        }
        let kubelet = self.kubelets.entry(key.clone()).or_default();
        let name = &instance.spec.private_dns_name;
        let noted = has_registered(instance);
        let node = context.view.object(Node::kind(), &ObjectKey::cluster(name));
        let Some(node) = node else {
            let asked = kubelet.registered.is_some_and(|at| now < at + RETRY);
            if noted || asked {
                return if noted { Step::done() } else { Step::again_after(RETRY) };
            }
            kubelet.registered = Some(now);
            let mut step = Step::again_after(RETRY);
            step.write(Write::Create(Box::new(node::registration(instance, now))));
            return step;
        };
        if node
            .typed::<Node>()
            .is_some_and(|node| faults(node.metadata.annotations.as_ref()).contains_key(READY))
        {
            // Silenced by hand; the change that ends it will wake this up.
            return Step::done();
        }
        let mut step = Step::done();
        if !noted && kubelet.annotated.is_none_or(|at| at + RETRY <= now) {
            kubelet.annotated = Some(now);
            step.write(note_registration(instance));
            if self.certificates {
                step.write(Write::Create(Box::new(certificates::request(name))));
            }
            step.writes.extend(started_events(node, name));
        }
        let mut next = self.report(key, instance, node, now, &mut step);
        next = next.min(self.renew(key, node, context, &mut step));
        next = next.min(self.register_driver(key, instance, node, context, &mut step));
        step.again = Some(next.since(now).max(Duration::from_millis(1)));
        step
    }

    /// Reports the node's status if there is news or the last report is old; says when next.
    fn report(
        &mut self,
        key: &ObjectKey,
        instance: &Instance,
        object: &Object,
        now: Time,
        step: &mut Step,
    ) -> Time {
        let Some(node) = object.typed::<Node>() else { return now + self.heartbeats.status };
        let Some(kubelet) = self.kubelets.get_mut(key) else { return now + RETRY };
        let ready_at = Time::from_nanos(instance.status.ready_at_nanos);
        let ready = now >= ready_at;
        let told = node::heartbeat(node);
        let last = kubelet.status.max(told).unwrap_or(now);
        let news = ready && !node::reported_ready(node);
        let asked = kubelet.ready.is_some_and(|at| now < at + RETRY);
        if (news && !asked) || last + self.heartbeats.status <= now {
            kubelet.status = Some(now);
            if news {
                kubelet.ready = Some(now);
                step.write(node_event(
                    object,
                    EventType::Normal,
                    "NodeReady",
                    &format!("Node {} status is now: NodeReady", object.key().name),
                ));
                if instance.spec.managed {
                    step.writes.extend(auto_mode_events(object));
                }
            }
            let node = node::status_report(node, instance, ready, now);
            step.write(Write::Update { object: Box::new(node), part: Part::Status });
            let next = now + if news { RETRY } else { self.heartbeats.status };
            return if ready { next } else { next.min(ready_at) };
        }
        let next = if asked && news { now + RETRY } else { last + self.heartbeats.status };
        if ready { next } else { next.min(ready_at) }
    }

    /// Writes the node's CSINode once its network is up and the driver's pod runs; says when to
    /// look again.
    fn register_driver(
        &mut self,
        key: &ObjectKey,
        instance: &Instance,
        node: &Object,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Time {
        let (now, ready_at) = (context.now, Time::from_nanos(instance.status.ready_at_nanos));
        let later = now + self.heartbeats.status;
        let Some(kubelet) = self.kubelets.get_mut(key) else { return later };
        // Micro-VMs run no pods but one, so no driver's either.
        if instance.spec.micro_vm.is_some() {
            return later;
        }
        if now < ready_at {
            return ready_at;
        }
        if context.view.object(CSINode::kind(), node.key()).is_some() {
            return later;
        }
        if kubelet.csi.is_none_or(|at| at + RETRY <= now) {
            kubelet.csi = Some(now);
            step.write(Write::Create(Box::new(csi::csi_node(node, instance))));
        }
        now + RETRY
    }

    /// Renews the Lease if it is due; says when next.
    fn renew(
        &mut self,
        key: &ObjectKey,
        node: &Object,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Time {
        let Some(kubelet) = self.kubelets.get_mut(key) else { return context.now + RETRY };
        let now = context.now;
        let name = node.key().name.as_str();
        let lease = context.view.get::<Lease>(&ObjectKey::namespaced(LEASE_NAMESPACE, name));
        let renewed = lease
            .and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref())
            .map(Time::from)
            .max(kubelet.lease);
        if let Some(renewed) = renewed
            && now < renewed + self.heartbeats.lease
        {
            return renewed + self.heartbeats.lease;
        }
        let seen = lease.is_some();
        let mut lease = lease.cloned().unwrap_or_else(|| new_lease(node));
        lease.metadata.resource_version = None;
        let spec = lease.spec.get_or_insert_default();
        spec.renew_time = Some(now.to_micro());
        spec.lease_duration_seconds =
            Some(i32::try_from(self.heartbeats.lease_duration.as_secs()).unwrap_or(i32::MAX));
        kubelet.lease = Some(now);
        step.write(if seen {
            Write::Update { object: Box::new(lease), part: Part::All }
        } else {
            Write::Create(Box::new(lease))
        });
        now + self.heartbeats.lease
    }

    /// Deletes the Node of a machine that is no more.
    fn clean_up(&mut self, instance: &Instance, key: &ObjectKey, context: &Context<'_>) -> Step {
        let now = context.now;
        let gone = Time::from_nanos(instance.status.terminated_at_nanos.unwrap_or_default());
        // Fargate takes the node of a micro-VM away itself, and at once.
        let is_micro_vm = instance.spec.micro_vm.is_some();
        let due = if is_micro_vm { gone } else { gone + CLOUD_NODE_POLL };
        let node_key = ObjectKey::cluster(&instance.spec.private_dns_name);
        let Some(node) = context.view.object(Node::kind(), &node_key) else {
            self.kubelets.remove(key);
            return Step::done();
        };
        let same = node.typed::<Node>().and_then(|node| node.spec.as_ref()?.provider_id.as_deref())
            == Some(node::provider_id(instance).as_str());
        if !same || node.header().deleting.is_some() {
            return Step::done();
        }
        if now < due {
            return Step::again_after(due.since(now));
        }
        let kubelet = self.kubelets.entry(key.clone()).or_default();
        if kubelet.deleted.is_some_and(|at| now < at + RETRY) {
            return Step::again_after(RETRY);
        }
        kubelet.deleted = Some(now);
        let mut step = Step::again_after(RETRY);
        if is_micro_vm {
            step.write(Write::Delete(Delete::of(node)));
            return step;
        }
        step.write(Write::Record(EventRecord {
            regarding: Regarding::object(node),
            related: None,
            kind: EventType::Normal,
            reason: "DeletingNode".to_owned(),
            action: String::new(),
            message: format!(
                "Deleting node {} because it does not exist in the cloud provider",
                node_key.name
            ),
            component: "cloud-node-lifecycle-controller".to_owned(),
            host: String::new(),
            annotations: BTreeMap::new(),
        }));
        step.write(Write::Delete(Delete::of(node)));
        step
    }
}

impl Controller for NodeAgent {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<Instance>() {
            if let Some(instance) = change.object().typed::<Instance>() {
                let name = instance.spec.private_dns_name.clone();
                if change.new.is_some() {
                    self.instances.insert(name, change.key().clone());
                } else if self.instances.get(&name) == Some(change.key()) {
                    self.instances.remove(&name);
                }
            }
            queue.now(WorkKey::object(change.kind(), change.key()));
        } else if change.kind() == Kind::of::<Node>()
            && let Some(instance) = self.instances.get(change.key().name.as_str())
        {
            queue.now(WorkKey::object(Kind::of::<Instance>(), instance));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some(instance) = context.view.get::<Instance>(&key.key) else {
            self.kubelets.remove(&key.key);
            return Step::done();
        };
        match instance.status.state {
            InstanceState::Pending | InstanceState::Running => {
                self.run(instance, &key.key, context)
            }
            // The kubelet went down with the machine; what it last said stands.
            InstanceState::ShuttingDown => Step::done(),
            InstanceState::Terminated => self.clean_up(instance, &key.key, context),
        }
    }

    fn refused(&mut self, key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        if matches!(error.reason, StatusReason::AlreadyExists | StatusReason::NotFound) {
            // Somebody was faster; the change that says so is on its way.
            return OnError::Forget;
        }
        if let Some(kubelet) = self.kubelets.get_mut(&key.key) {
            match write {
                Write::Create(_) if write.subject().0 == Kind::of::<Node>() => {
                    kubelet.registered = None;
                }
                _ => {
                    let registered = kubelet.registered;
                    *kubelet = Kubelet { registered, ..Kubelet::default() };
                }
            }
        }
        OnError::Retry
    }
}

fn has_registered(instance: &Instance) -> bool {
    let annotations = instance.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(REGISTERED_ANNOTATION))
}

fn note_registration(instance: &Instance) -> Write {
    let mut instance = instance.clone();
    instance.metadata.resource_version = None;
    instance
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(REGISTERED_ANNOTATION.to_owned(), "true".to_owned());
    Write::Update { object: Box::new(instance), part: Part::Main }
}

fn new_lease(node: &Object) -> Lease {
    let name = node.key().name.to_string();
    let mut lease = Lease {
        spec: Some(LeaseSpec { holder_identity: Some(name.clone()), ..LeaseSpec::default() }),
        ..Lease::default()
    };
    lease.metadata.name = Some(name.clone());
    lease.metadata.namespace = Some(LEASE_NAMESPACE.to_owned());
    lease.metadata.owner_references = Some(vec![node::owner_reference(name, node.uid())]);
    lease
}

/// What a kubelet says about its node when it starts.
fn started_events(node: &Object, name: &str) -> Vec<Write> {
    let status = |reason: &str| format!("Node {name} status is now: {reason}");
    let normal = |reason: &str, message: &str| node_event(node, EventType::Normal, reason, message);
    vec![
        normal("Starting", "Starting kubelet."),
        node_event(
            node,
            EventType::Warning,
            "InvalidDiskCapacity",
            "invalid capacity 0 on image filesystem",
        ),
        normal("NodeHasSufficientMemory", &status("NodeHasSufficientMemory")),
        normal("NodeHasNoDiskPressure", &status("NodeHasNoDiskPressure")),
        normal("NodeHasSufficientPID", &status("NodeHasSufficientPID")),
        normal("NodeAllocatableEnforced", "Updated Node Allocatable limit across pods"),
    ]
}

/// What is told besides of a node of EKS Auto Mode when it is ready: by Auto Mode itself, by the
/// kube-proxy that runs as a process on it, and by the cloud's controller.
fn auto_mode_events(node: &Object) -> Vec<Write> {
    let ready = "Status condition transitioned, Type: Ready, Status: False -> True, Reason: \
                 KubeletReady, Message: kubelet is posting ready status";
    let told = |component: &str, reason: &str, message: &str| {
        let mut event = node_event(node, EventType::Normal, reason, message);
        if let Write::Record(record) = &mut event {
            record.regarding = Regarding::object(node);
            record.component = component.to_owned();
            record.host = String::new();
        }
        event
    };
    vec![
        told(EVENT_SOURCE, "Ready", ready),
        told("kube-proxy", "Starting", ""),
        told("cloud-node-controller", "Synced", "Node synced successfully"),
    ]
}

fn node_event(node: &Object, kind: EventType, reason: &str, message: &str) -> Write {
    let name = &node.key().name;
    // The kubelet does not know its Node's uid and gives the name instead.
    let regarding = Regarding { uid: name.clone(), ..Regarding::object(node) };
    Write::Record(EventRecord {
        regarding,
        related: None,
        kind,
        reason: reason.to_owned(),
        action: String::new(),
        message: message.to_owned(),
        component: "kubelet".to_owned(),
        host: name.to_string(),
        annotations: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests;
