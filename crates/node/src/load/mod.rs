//! The load model at work: what runs on the simulated nodes is told to it, and what it says is
//! used is told to the metrics board.
//!
//! It is stepped at whole seconds of cluster time, however late the loop comes to it, and only
//! while something changes.

mod pressure;
mod profile;
mod routes;
mod services;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod};
use wharf_load::{Container as Running, Id, Load, Node, Outcome, Target, Usage};
use wharf_model::instance::Instance;
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;
use wharf_model::resources::{cpu_shares, oom_score_adj};
use wharf_model::time::Time;
use wharf_ports::metrics::{Board, Level, Series, Told, Value};
use wharf_ports::view::View;

use crate::program::Program;
use pressure::Candidate;
pub(crate) use routes::answering;
use services::Services;
pub(crate) use values::{Values, tells_values};

/// Modelled: what kubelet, container runtime and system use of a node.
const SYSTEM_CORES: f64 = 0.04;
/// Modelled: the same in bytes, as long as that is at most this part of the node's.
const SYSTEM_BYTES: f64 = 450.0 * 1_048_576.0;
const SYSTEM_PART_MAX: f64 = 0.15;
/// The custom metric that the model gives of pods which answer requests.
const REQUESTS_METRIC: &str = "http_requests_per_second";

/// What is used on the simulated nodes.
pub(crate) struct Loads {
    load: Load,
    board: Arc<Board>,
    /// When the model is to be solved next.
    due: Option<Time>,
    /// Whether requests may go elsewhere now.
    routes_changed: bool,
    services: Services,
    pressed: BTreeMap<CompactString, Pressed>,
    /// The pods that read a curve from a ConfigMap, by its key.
    readers: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// A node that has run out of memory.
struct Pressed {
    /// When it last had too little.
    seen: Time,
    /// When somebody was evicted last.
    evicted: Option<Time>,
    /// What there was at the last look.
    available: u64,
}

/// What has to be done for want of memory.
#[derive(Debug, PartialEq)]
pub(crate) enum Order {
    /// Kill a container; the pod goes on.
    Kill(Id, Time),
    /// Evict a pod.
    Evict(ObjectKey, Eviction),
    /// Say that a node is short of memory, or no longer.
    Press(CompactString, bool),
}

impl Loads {
    /// Nothing runs yet.
    pub(crate) fn new(board: Arc<Board>) -> Self {
        Self {
            load: Load::default(),
            board,
            due: None,
            routes_changed: false,
            services: Services::default(),
            pressed: BTreeMap::new(),
            readers: BTreeMap::new(),
        }
    }

    /// The board that is told.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// When the model is to be solved next.
    pub(crate) fn due(&self) -> Option<Time> {
        self.due
    }

    /// A node is up.
    pub(crate) fn node_up(&mut self, instance: &Instance, now: Time) {
        let capacity = |name: &str| {
            let text = instance.spec.kubelet.capacity.get(name);
            text.and_then(|text| Quantity::parse(text).ok()).map_or(0.0, |amount| amount.as_f64())
        };
        let (cores, memory) = (capacity("cpu"), capacity("memory"));
        let node = Node {
            cores,
            memory,
            system_cores: SYSTEM_CORES.min(cores * SYSTEM_PART_MAX),
            system_memory: SYSTEM_BYTES.min(memory * SYSTEM_PART_MAX),
        };
        self.load.set_node(&instance.spec.private_dns_name.as_str().into(), node);
        self.touched(now);
    }

    /// Whether a node is up.
    pub(crate) fn knows(&self, node: &str) -> bool {
        self.load.usage_of(node).is_some()
    }

    /// A node is gone.
    pub(crate) fn node_gone(&mut self, name: &str) {
        self.load.remove_node(name);
        self.pressed.remove(name);
        self.board.take(Told::NodeGone { node: name.into() });
    }

    /// A container runs. `from` is when it is known from: its start, but after a restart of the
    /// simulation the present. Returns what is wrong with its pod's annotations.
    pub(crate) fn started(
        &mut self,
        subject: &Subject<'_>,
        started: Time,
        from: Time,
        now: Time,
    ) -> Vec<String> {
        let (running, problems) = self.running(subject, started);
        let (_, memory) = running.profile.background(Duration::ZERO);
        self.board.take(Told::Container {
            pod: subject.id.pod.clone(),
            container: subject.id.container.clone(),
            started,
            at: from,
            level: Level { cpu_nanos: 0, memory_bytes: memory as u64 },
        });
        if running.profile.targets().next().is_some() {
            self.routes_changed = true;
        }
        self.load.start(subject.node, subject.id, running);
        self.touched(now);
        problems
    }

    /// A running container's pod was changed.
    pub(crate) fn changed(
        &mut self,
        subject: &Subject<'_>,
        started: Time,
        now: Time,
    ) -> Vec<String> {
        let (running, problems) = self.running(subject, started);
        let before = self.load.next();
        self.load.change(subject.id, |container| *container = running);
        if self.load.next() != before {
            self.routes_changed = true;
            self.touched(now);
        }
        problems
    }

    /// A container runs no more.
    pub(crate) fn ended(&mut self, id: &Id, at: Time, now: Time) {
        self.load.stop(id);
        let (pod, container) = (id.pod.clone(), id.container.clone());
        self.board.take(Told::Ended { pod, container, at });
        self.touched(now);
    }

    /// A pod is no more.
    pub(crate) fn pod_gone(&mut self, pod: &ObjectKey) {
        self.board.take(Told::PodGone { pod: pod.clone() });
        self.readers.retain(|_, pods| {
            pods.remove(pod);
            !pods.is_empty()
        });
    }

    /// Other pods may answer requests than before.
    pub(crate) fn reroute(&mut self) {
        self.routes_changed = true;
    }

    /// Whether anybody makes requests.
    pub(crate) fn has_clients(&self) -> bool {
        self.load.routes().next().is_some()
    }

    /// The pods that read a curve from a ConfigMap.
    pub(crate) fn readers(&self, configmap: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.readers.get(configmap).into_iter().flatten()
    }

    /// Solves the model for all moments up to `now` that are due.
    pub(crate) fn tick(&mut self, view: &View, now: Time) -> Vec<Order> {
        let mut orders = Vec::new();
        if self.routes_changed && (self.has_clients() || !self.services.is_empty()) {
            self.touched(now);
        }
        while let Some(at) = self.due.filter(|due| *due <= now) {
            if std::mem::take(&mut self.routes_changed) {
                let routes: Vec<(CompactString, Target)> =
                    self.load.routes().map(|(ns, target)| (ns.clone(), target.clone())).collect();
                let mut services = BTreeMap::new();
                for (namespace, target) in routes {
                    let (service, found) = routes::endpoints(view, &namespace, &target);
                    self.load.set_endpoints(&namespace, &target, found);
                    services.extend(service.map(|service| ((namespace, target), service)));
                }
                self.services.lead(services, view, &self.board);
            }
            let outcome = self.load.tick(at);
            self.tell(at, &outcome);
            self.services.tell(&self.load, &self.board, at);
            self.due = self.load.next().map(|next| next.max(at + Duration::from_secs(1)));
            for id in outcome.killed {
                self.load.stop(&id);
                self.touched(at);
                orders.push(Order::Kill(id, at));
            }
            self.look_for_pressure(view, at, &mut orders);
        }
        orders
    }

    fn tell(&mut self, at: Time, outcome: &Outcome) {
        let level =
            |usage: &Usage| Level { cpu_nanos: usage.cpu_nanos, memory_bytes: usage.memory_bytes };
        for (id, started, usage) in &outcome.usages {
            self.board.take(Told::Container {
                pod: id.pod.clone(),
                container: id.container.clone(),
                started: *started,
                at,
                level: level(usage),
            });
        }
        for (node, usage) in &outcome.nodes {
            self.board.take(Told::Node { node: node.clone(), at, level: level(usage) });
            let Some((node_has, _)) = self.load.usage_of(node) else { continue };
            let available = (node_has.memory as u64).saturating_sub(usage.memory_bytes);
            if available < pressure::AVAILABLE_MIN {
                let pressed = self.pressed.entry(node.clone());
                let pressed = pressed.or_insert(Pressed { seen: at, evicted: None, available });
                (pressed.seen, pressed.available) = (at, available);
            } else if let Some(pressed) = self.pressed.get_mut(node) {
                pressed.available = available;
            }
        }
        for (id, rate) in &outcome.answered {
            let series = Series {
                resource: "pods".into(),
                object: id.pod.clone(),
                metric: REQUESTS_METRIC.into(),
                labels: BTreeMap::new(),
            };
            self.board.take(Told::Value { series, value: Value::Number(*rate), at });
        }
    }

    /// What a kubelet does about a node that is short of memory: one pod at a time.
    fn look_for_pressure(&mut self, view: &View, now: Time, orders: &mut Vec<Order>) {
        let mut over = Vec::new();
        let mut again: Option<Time> = None;
        for (node, pressed) in &mut self.pressed {
            let short = pressed.available < pressure::AVAILABLE_MIN;
            if short {
                pressed.seen = now;
            }
            let rests = pressed.evicted.is_some_and(|at| now < at + pressure::HOUSEKEEPING);
            if short && !rests {
                orders.push(Order::Press(node.clone(), true));
                let candidates = candidates(view, &self.load, node);
                if let Some(victim) = pressure::victim(candidates)
                    && let Some(pod) = view.get::<Pod>(&victim.pod)
                {
                    let eviction = pressure::eviction(&victim, pod, pressed.available);
                    orders.push(Order::Evict(victim.pod, eviction));
                }
                pressed.evicted = Some(now);
            } else if !short && now >= pressed.seen + pressure::TRANSITION {
                orders.push(Order::Press(node.clone(), false));
                over.push(node.clone());
                continue;
            }
            let next = if short {
                now + pressure::HOUSEKEEPING
            } else {
                pressed.seen + pressure::TRANSITION
            };
            again = Some(again.map_or(next, |again| again.min(next)));
        }
        for node in over {
            self.pressed.remove(&node);
        }
        if let Some(again) = again {
            let at = Load::on_grid(again);
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    fn touched(&mut self, now: Time) {
        // Not at the moment itself: more may come of it.
        let at = Load::on_grid(now + Duration::from_nanos(1));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn running(&mut self, subject: &Subject<'_>, started: Time) -> (Running, Vec<String>) {
        let namespace = &subject.id.pod.namespace;
        let configmaps = |name: &str, key: &str| {
            let found = subject.view.get::<ConfigMap>(&ObjectKey::namespaced(namespace, name))?;
            found.data.as_ref()?.get(key).cloned()
        };
        for name in profile::configmaps_of(subject.pod) {
            let readers = self.readers.entry(ObjectKey::namespaced(namespace, name)).or_default();
            readers.insert(subject.id.pod.clone());
        }
        let container = subject.container;
        let (profile, problems) =
            profile::profile_of(subject.pod, container, subject.program, &configmaps);
        let memory = self.load.usage_of(subject.node).map_or(0.0, |(node, _)| node.memory);
        let spec = subject.pod.spec.as_ref();
        let running = Running {
            started,
            weight: cpu_shares(container) as f64,
            cpu_limit: profile::cpu_limit(container),
            memory_limit: profile::memory_limit(container),
            oom_score_adj: spec.map_or(0, |spec| oom_score_adj(spec, container, memory as i64)),
            profile: Arc::new(profile),
        };
        (running, problems)
    }
}

/// A container of a pod on a node.
pub(crate) struct Subject<'a> {
    pub(crate) view: &'a View,
    pub(crate) node: &'a CompactString,
    pub(crate) id: &'a Id,
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) program: &'a Program,
}

/// Whether requests may go elsewhere because a pod changed.
pub(crate) fn takes_requests(pod: &Pod) -> bool {
    routes::takes_requests(pod)
}

/// The node with its memory pressure begun or ended.
pub(crate) use pressure::{Eviction, with_condition as with_pressure};

/// The pods on a node, with what they use.
fn candidates(view: &View, load: &Load, node: &str) -> Vec<Candidate> {
    let mut used: BTreeMap<&ObjectKey, Vec<(String, u64)>> = BTreeMap::new();
    for (id, bytes) in load.memory_on(node) {
        used.entry(&id.pod).or_default().push((id.container.to_string(), bytes));
    }
    used.into_iter()
        .filter_map(|(key, used)| Some(Candidate::new(key, view.get::<Pod>(key)?, used)))
        // What a node cannot do without is not evicted.
        .filter(|candidate| candidate.priority < 2_000_000_000)
        .collect()
}

impl std::fmt::Debug for Loads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loads").field("due", &self.due).finish_non_exhaustive()
    }
}
