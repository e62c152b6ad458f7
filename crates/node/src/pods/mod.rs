//! The kubelet's other half: runs the pods that are bound to simulated nodes.
//!
//! Follows <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>: a sandbox with an
//! address, init containers in their order, then the containers; images pulled once per node;
//! restarts with back-off; graceful deletion, after which the pod is removed from the API. What a
//! container's process does is a model ([`crate::program`]), how long things take is drawn from
//! the pod's uid, so that the same pod behaves the same in every run.
//!
//! What runs is kept in memory and made again from the pods' status after a restart, as a kubelet
//! learns it from its container runtime.

mod address;
mod attached;
mod resize;
mod run;
mod status;
mod usage;
mod volumes;
mod worker;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodStatus};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use rustc_hash::FxHashMap;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_terminal;
use wharf_model::random::fnv1a;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::{EventRecord, Regarding};
use wharf_ports::metrics::Board;
use wharf_ports::view::View;

use crate::load::{Loads, Values};
pub use attached::ended;

use address::Addresses;
use run::{Images, Said};
use worker::Worker;

/// The controller that runs the pods of every simulated node.
#[derive(Debug)]
pub struct PodAgent {
    pods: FxHashMap<ObjectKey, Tracked>,
    nodes: FxHashMap<String, NodeState>,
    addresses: Addresses,
    /// Pods that wait for volumes.
    held: BTreeSet<ObjectKey>,
    /// Pods whose resize waits for room on their node.
    cramped: BTreeSet<ObjectKey>,
    /// The machines that are up, with their nodes' names.
    machines: FxHashMap<ObjectKey, String>,
    /// What is used.
    loads: Loads,
    /// What annotations say of custom and external metrics.
    values: Values,
}

#[derive(Debug)]
struct Tracked {
    worker: Worker,
    node: String,
    /// The kubelet's part of the status as last written.
    written: Option<PodStatus>,
    /// Whether the pod's removal was asked for.
    removed: bool,
    /// What the load model knows of it.
    measured: usage::Measured,
}

#[derive(Debug, Default)]
struct NodeState {
    instance: ObjectKey,
    images: Images,
}

impl Default for PodAgent {
    fn default() -> Self {
        Self::new(Board::new())
    }
}

impl PodAgent {
    /// An agent that knows of no pod yet, and tells a board what is used.
    pub fn new(board: Arc<Board>) -> Self {
        Self {
            pods: FxHashMap::default(),
            nodes: FxHashMap::default(),
            addresses: Addresses::default(),
            held: BTreeSet::new(),
            cramped: BTreeSet::new(),
            machines: FxHashMap::default(),
            loads: Loads::new(board),
            values: Values::default(),
        }
    }

    fn forget(&mut self, key: &ObjectKey, now: Time) {
        self.held.remove(key);
        self.cramped.remove(key);
        if let Some(tracked) = self.pods.remove(key) {
            if let Some(ip) = tracked.worker.ip {
                self.addresses.release(ip, &tracked.worker.uid);
            }
            self.measure_no_more(key, &tracked, now);
        }
    }

    /// A pod that was deleted without grace is gone from the API before its containers are: the
    /// kubelet stops them all the same and says so.
    fn stop_removed(&mut self, key: &ObjectKey, now: Time) -> Step {
        let mut step = Step::done();
        if let Some(tracked) = self.pods.get(key)
            && let Some(regarding) = tracked.regarding(key)
        {
            let said = tracked.worker.killings();
            step.writes
                .extend(said.into_iter().map(|said| record(&regarding, &tracked.node, said)));
        }
        self.forget(key, now);
        self.loads.pod_gone(key);
        step
    }

    /// The machine under a node, while its kubelet runs.
    fn machine<'v>(&self, node: &str, view: &'v View) -> Option<&'v Instance> {
        let instance = view.get::<Instance>(&self.nodes.get(node)?.instance)?;
        let live = matches!(instance.status.state, InstanceState::Pending | InstanceState::Running);
        live.then_some(instance)
    }

    fn run(&mut self, key: &ObjectKey, object: &Object, pod: &Pod, context: &Context<'_>) -> Step {
        let now = context.now;
        let Some(spec) = pod.spec.as_ref() else { return Step::done() };
        let node = spec.node_name.as_deref().unwrap_or_default();
        let Some(machine) = self.machine(node, context.view) else { return Step::done() };
        if is_terminal(pod) {
            self.forget(key, now);
            return if pod.metadata.deletion_timestamp.is_some() {
                remove(object)
            } else {
                Step::done()
            };
        }
        let host_network = spec.host_network == Some(true);
        let up = Time::from_nanos(if host_network {
            machine.status.registers_at_nanos
        } else {
            machine.status.ready_at_nanos
        });
        if now < up {
            // Nothing of it has run yet: a deletion needs no wait.
            return if pod.metadata.deletion_timestamp.is_some() {
                remove(object)
            } else {
                Step::again_after(up.since(now))
            };
        }
        let host_ip = machine.spec.private_ip.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
        if self.pods.get(key).is_some_and(|tracked| tracked.worker.uid != object.uid()) {
            self.forget(key, now);
        }
        let Some(state) = self.nodes.get_mut(node) else { return Step::done() };
        let tracked = self.pods.entry(key.clone()).or_insert_with(|| Tracked {
            worker: Worker::new(pod, host_ip, now),
            node: node.to_owned(),
            written: None,
            removed: false,
            measured: usage::Measured::from(now),
        });
        let worker = &mut tracked.worker;
        worker.wait_for_volumes(volumes::are_missing(key, pod, context.view), now);
        if worker.is_held {
            self.held.insert(key.clone());
        } else {
            self.held.remove(key);
        }
        if worker.ip.is_none() && !worker.is_held && now >= worker.sandbox_at {
            let hint = fnv1a(worker.uid.as_bytes());
            // A micro-VM's only interface is its pod's.
            worker.ip = Some(match machine.spec.micro_vm {
                Some(_) => host_ip,
                None => {
                    let subnet = address::subnet_of(machine, host_ip, context.view);
                    self.addresses.assign(subnet, hint, &worker.uid)
                }
            });
        }
        worker.end_as_told(pod, now);
        let mut said = Vec::new();
        let before = tracked.written.as_ref().or(pod.status.as_ref());
        let room = || resize::room(pod, node, context.view);
        let resized = worker.advance_resize(pod, before, &room, now, &mut said);
        if worker.is_cramped() {
            self.cramped.insert(key.clone());
        } else {
            self.cramped.remove(key);
        }
        let next = worker.advance(pod, &mut state.images, now, &mut said);
        let next = next.into_iter().chain(resized).min();
        let mut step = Step::done();
        let regarding = Regarding::object(object);
        step.writes.extend(said.into_iter().map(|said| record(&regarding, node, said)));
        self.measure(key, object, pod, context, &mut step);
        let Some(tracked) = self.pods.get_mut(key) else { return step };
        step.writes.extend(tracked.report(pod, now));
        let next = tracked.remove(object, now, &mut step).or(next);
        step.again = next.map(|at| at.since(now).max(std::time::Duration::from_millis(1)));
        self.plan_tick(now, &mut step);
        step
    }
}

impl Tracked {
    /// The pod as events name it; `None` if its containers have been told to stop already.
    fn regarding(&self, key: &ObjectKey) -> Option<Regarding> {
        self.worker.kill.is_none().then(|| Regarding {
            kind: Kind::of::<Pod>(),
            key: key.clone(),
            uid: self.worker.uid.as_str().into(),
            field_path: String::new(),
        })
    }

    /// The status write, if there is news.
    fn report(&mut self, pod: &Pod, now: Time) -> Option<Write> {
        let seen = pod.status.as_ref();
        let own = status::report(&self.worker, pod, self.written.as_ref().or(seen), now);
        let news = match &self.written {
            Some(written) => *written != own,
            None => seen.is_none_or(|seen| status::merge(&own, Some(seen)) != *seen),
        };
        let merged = news.then(|| status::merge(&own, seen));
        self.written = Some(own);
        let mut pod = Pod { status: Some(merged?), ..pod.clone() };
        pod.metadata.resource_version = None;
        Some(Write::Update { object: Box::new(pod), part: Part::Status })
    }

    /// Removes a pod whose deletion was asked for once it is stopped; says when to look again.
    fn remove(&mut self, object: &Object, now: Time, step: &mut Step) -> Option<Time> {
        let deleting = object.header().deleting.is_some();
        let at = self.worker.remove_at().filter(|_| deleting)?;
        if now < at {
            return Some(at);
        }
        if !std::mem::replace(&mut self.removed, true) {
            step.write(Write::Delete(Delete::of(object).with_grace(0)));
        }
        None
    }
}

impl Controller for PodAgent {
    fn name(&self) -> &'static str {
        "kubelet-pods"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        self.observe_load(change, queue);
        if kind == Kind::of::<Pod>() {
            let Some(pod) = change.object().typed::<Pod>() else { return };
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else {
                return;
            };
            if change.old.is_none() {
                self.learn(pod, node);
            }
            queue.now(WorkKey::object(kind, change.key()));
            // A pod that leaves makes room.
            if change.new.is_none() || is_terminal(pod) {
                for waiting in &self.cramped {
                    queue.now(WorkKey::object(kind, waiting));
                }
            }
        } else if kind == Kind::of::<PersistentVolumeClaim>()
            || kind == Kind::of::<VolumeAttachment>()
        {
            for pod in &self.held {
                queue.now(WorkKey::object(Kind::of::<Pod>(), pod));
            }
        } else if kind == Kind::of::<Instance>()
            && let Some(instance) = change.object().typed::<Instance>()
        {
            let node = instance.spec.private_dns_name.as_str();
            queue.now(WorkKey::object(kind, change.key()));
            if change.new.is_some() {
                self.nodes.entry(node.to_owned()).or_default().instance = change.key().clone();
                if change.old.is_none() {
                    for pod in view.pods_on(node) {
                        queue.now(WorkKey::object(Kind::of::<Pod>(), pod.key()));
                    }
                }
            } else if self.nodes.get(node).is_some_and(|node| node.instance == *change.key()) {
                self.nodes.remove(node);
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        match key.kind {
            None => return self.tick(context),
            Some(kind) if kind == Kind::of::<Instance>() => {
                return self.watch_machine(key, context);
            }
            Some(kind) if kind != Kind::of::<Pod>() => return self.take_values(key, context),
            Some(_) => {}
        }
        let values = self.take_values(key, context);
        let mut step = self.step_pod(key, context);
        step.writes.splice(0..0, values.writes);
        step
    }

    fn refused(&mut self, key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound {
            return OnError::Forget;
        }
        if let Some(tracked) = self.pods.get_mut(&key.key) {
            tracked.written = None;
            tracked.removed = false;
        }
        OnError::Retry
    }
}

impl PodAgent {
    fn step_pod(&mut self, key: &WorkKey, context: &Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<Pod>(), &key.key);
        let Some((object, pod)) = object.and_then(|object| Some((object, object.typed::<Pod>()?)))
        else {
            return self.stop_removed(&key.key, context.now);
        };
        let mirror =
            pod.metadata.annotations.iter().flatten().any(|(k, _)| k == labels::MIRROR_POD);
        if mirror {
            return Step::done();
        }
        self.run(&key.key, object, pod, context)
    }

    /// Takes in what the status of a pod says of images and addresses in use: after a restart the
    /// only source of either.
    fn learn(&mut self, pod: &Pod, node: &str) {
        let Some(status) = &pod.status else { return };
        let containers = status.container_statuses.iter().flatten();
        for container in status.init_container_statuses.iter().flatten().chain(containers) {
            if container.container_id.is_none() {
                continue;
            }
            let spec = pod.spec.as_ref();
            let init = spec.and_then(|spec| spec.init_containers.as_ref());
            let main = spec.map(|spec| &spec.containers);
            let image = init
                .into_iter()
                .chain(main)
                .flatten()
                .find(|c| c.name == container.name)
                .and_then(|c| c.image.clone());
            if let Some(image) = image {
                let images = &mut self.nodes.entry(node.to_owned()).or_default().images;
                images.0.insert(image, Time::EPOCH);
            }
        }
        let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        if let Some(ip) = status.pod_ip.as_deref().and_then(|ip| ip.parse().ok())
            && !host_network
            && !is_terminal(pod)
        {
            self.addresses.claim(ip, pod.metadata.uid.as_deref().unwrap_or_default());
        }
    }
}

fn remove(object: &Object) -> Step {
    let mut step = Step::done();
    step.write(Write::Delete(Delete::of(object).with_grace(0)));
    step
}

fn record(regarding: &Regarding, node: &str, said: Said) -> Write {
    Write::Record(EventRecord {
        regarding: Regarding { field_path: said.field_path, ..regarding.clone() },
        related: None,
        kind: said.kind,
        reason: said.reason.to_owned(),
        action: String::new(),
        message: said.message,
        component: "kubelet".to_owned(),
        host: node.to_owned(),
        annotations: said.annotations,
    })
}

#[cfg(test)]
mod tests;
