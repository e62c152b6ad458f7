//! The world of the model: nodes, the containers that run on them, and the routes of requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;

use crate::profile::{Profile, Target};
use crate::solve::Solver;

/// The grid of moments at which usage changes: multiples of it in cluster time.
const PERIOD: Duration = Duration::from_secs(1);

/// A container: its pod and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// The pod.
    pub pod: ObjectKey,
    /// The container's name.
    pub container: CompactString,
}

/// What a node has, and uses for itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// Cores.
    pub cores: f64,
    /// Bytes of memory.
    pub memory: f64,
    /// Cores that the system uses.
    pub system_cores: f64,
    /// Bytes that the system uses.
    pub system_memory: f64,
}

/// A running container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// When it started.
    pub started: Time,
    /// `cpu.shares`.
    pub weight: f64,
    /// Its limit in cores.
    pub cpu_limit: Option<f64>,
    /// Its limit in bytes.
    pub memory_limit: Option<f64>,
    /// The higher, the sooner it is killed when a node has no memory left.
    pub oom_score_adj: i32,
    /// What it does.
    pub profile: Arc<Profile>,
}

/// What is used from a moment on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Billionths of a core.
    pub cpu_nanos: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// What a tick changed.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// Containers that use something else from now on, with when they started.
    pub usages: Vec<(Id, Time, Usage)>,
    /// Nodes likewise, with all that runs on them.
    pub nodes: Vec<(CompactString, Usage)>,
    /// Requests a second that containers answer from now on.
    pub answered: Vec<(Id, f64)>,
    /// Containers that are killed for want of memory: their own limit's, or the node's.
    pub killed: Vec<Id>,
}

/// The model.
#[derive(Debug, Default)]
pub struct Load {
    pub(crate) nodes: BTreeMap<CompactString, NodeState>,
    pub(crate) routes: BTreeMap<Route, RouteState>,
    /// Where each container is.
    places: BTreeMap<Id, CompactString>,
    /// When nodes have something that changes by itself.
    wakes: BTreeSet<(Time, CompactString)>,
    /// Nodes of which something changed.
    dirty: BTreeSet<CompactString>,
    /// Whether requests have not come to rest.
    pub(crate) moving: bool,
    /// Nodes with a client or endpoint of any route; `None` after containers or routes have changed.
    routed: Option<BTreeSet<CompactString>>,
    /// Has every tick solve all routes, to compare with one that leaves out what has not changed.
    #[cfg(test)]
    pub(crate) thorough: bool,
    last: Option<Time>,
}

/// Requests of one namespace's clients to one host and port.
pub(crate) type Route = (CompactString, Target);

#[derive(Debug)]
pub(crate) struct NodeState {
    pub(crate) node: Node,
    pub(crate) containers: BTreeMap<Id, State>,
    pub(crate) told: Usage,
    wake: Option<Time>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) container: Container,
    /// What was last told of it.
    pub(crate) told: Usage,
    pub(crate) answered: f64,
    /// The share of the cpu it wanted that it got.
    pub(crate) pace: f64,
}

#[derive(Debug, Default)]
pub(crate) struct RouteState {
    pub(crate) clients: BTreeSet<Id>,
    /// Who answers; `None` if the host is not known here.
    pub(crate) endpoints: Vec<Id>,
    pub(crate) latency: f64,
    pub(crate) answered: f64,
    pub(crate) failed: f64,
}

impl Load {
    /// Takes in a node, or what it has now.
    pub fn set_node(&mut self, name: &CompactString, node: Node) {
        let state = self.nodes.entry(name.clone()).or_insert_with(|| NodeState {
            node,
            containers: BTreeMap::new(),
            told: Usage::default(),
            wake: None,
        });
        state.node = node;
        self.dirty.insert(name.clone());
    }

    /// A node is no more; its containers went with it.
    pub fn remove_node(&mut self, name: &str) {
        let Some(state) = self.nodes.remove(name) else { return };
        self.routed = None;
        for (id, state) in &state.containers {
            self.places.remove(id);
            self.leave_routes(id, &state.container.profile);
        }
        if let Some(wake) = state.wake {
            self.wakes.remove(&(wake, name.into()));
        }
        self.dirty.remove(name);
    }

    /// A container runs on a node, in place of one of the same name. Returns whether the node is
    /// known.
    pub fn start(&mut self, node: &CompactString, id: &Id, container: Container) -> bool {
        self.stop(id);
        let Some(state) = self.nodes.get_mut(node) else { return false };
        for target in container.profile.targets() {
            let route = (id.pod.namespace.clone(), target.clone());
            self.routes.entry(route).or_default().clients.insert(id.clone());
            self.moving = true;
        }
        let told = Usage::default();
        let first = State { container, told, answered: 0.0, pace: 1.0 };
        state.containers.insert(id.clone(), first);
        self.places.insert(id.clone(), node.clone());
        self.routed = None;
        self.dirty.insert(node.clone());
        true
    }

    /// A container does something else, or may use more or less, from now on.
    pub fn change(&mut self, id: &Id, edit: impl FnOnce(&mut Container)) {
        let Some(node) = self.places.get(id).cloned() else { return };
        let Some(state) = self.nodes.get_mut(&node).and_then(|node| node.containers.get_mut(id))
        else {
            return;
        };
        let before = state.container.clone();
        edit(&mut state.container);
        if state.container == before {
            return;
        }
        let profile = Arc::clone(&state.container.profile);
        if !before.profile.targets().eq(profile.targets()) {
            self.routed = None;
        }
        self.leave_routes(id, &before.profile);
        for target in profile.targets() {
            let route = (id.pod.namespace.clone(), target.clone());
            self.routes.entry(route).or_default().clients.insert(id.clone());
        }
        self.moving |= profile.targets().next().is_some();
        self.dirty.insert(node);
    }

    /// A container runs no more.
    pub fn stop(&mut self, id: &Id) {
        let Some(node) = self.places.remove(id) else { return };
        self.routed = None;
        let state = self.nodes.get_mut(&node).and_then(|state| state.containers.remove(id));
        if let Some(state) = state {
            self.leave_routes(id, &state.container.profile);
        }
        self.dirty.insert(node);
    }

    /// The hosts that are asked for, each with the namespace of who asks.
    pub fn routes(&self) -> impl Iterator<Item = (&CompactString, &Target)> {
        self.routes.keys().map(|(namespace, target)| (namespace, target))
    }

    /// Who answers requests to a host. Nobody: they fail.
    pub fn set_endpoints(&mut self, namespace: &str, target: &Target, endpoints: Vec<Id>) {
        let route = (CompactString::from(namespace), target.clone());
        let Some(state) = self.routes.get_mut(&route) else { return };
        if state.endpoints != endpoints {
            // Those that are no longer asked have less to do.
            let before = std::mem::replace(&mut state.endpoints, endpoints);
            for id in before.iter() {
                self.dirty.extend(self.places.get(id).cloned());
            }
            self.moving = true;
            self.routed = None;
        }
    }

    /// When to tick next; `None` if nothing changes.
    pub fn next(&self) -> Option<Time> {
        let soon = (self.moving || !self.dirty.is_empty())
            .then(|| self.last.map_or(Time::EPOCH, |last| last + PERIOD));
        let wake = self.wakes.first().map(|(at, _)| *at);
        soon.into_iter().chain(wake).min()
    }

    /// The first moment of the grid at or after a time.
    pub fn on_grid(time: Time) -> Time {
        let period = i64::try_from(PERIOD.as_nanos()).unwrap_or(i64::MAX);
        let cut = time.as_nanos().div_euclid(period) * period;
        let before = Time::from_nanos(cut);
        if before == time { time } else { before + PERIOD }
    }

    /// Solves the model for a moment of the grid: what is used from then on.
    pub fn tick(&mut self, now: Time) -> Outcome {
        self.last = Some(now);
        while self.wakes.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, node)) = self.wakes.pop_first() {
                if let Some(state) = self.nodes.get_mut(&node) {
                    state.wake = None;
                }
                self.dirty.insert(node);
            }
        }
        if self.dirty.is_empty() && !self.moving {
            return Outcome::default();
        }
        let mut involved = std::mem::take(&mut self.dirty);
        // As long as nothing has changed on a node with clients or endpoints, requests are as they
        // were: a hundred thousand pods that are asked cost nothing while others change.
        let known = self.routed.take().filter(|_| !self.moving && !self.is_thorough());
        let rests = known.as_ref().is_some_and(|routed| routed.is_disjoint(&involved));
        let routes_too = !rests;
        let routed = known.unwrap_or_else(|| self.routed_nodes());
        if routes_too {
            involved.extend(routed.iter().cloned());
        }
        self.routed = Some(routed);
        let outcome = Solver::new(self, &involved, now).solve(routes_too);
        for node in &involved {
            self.plan(node, now);
        }
        outcome
    }

    /// The bytes that a pod's containers use, by container.
    pub fn memory_on<'l>(&'l self, node: &str) -> impl Iterator<Item = (&'l Id, u64)> + 'l {
        let containers = self.nodes.get(node).into_iter().flat_map(|node| &node.containers);
        containers.map(|(id, state)| (id, state.told.memory_bytes))
    }

    /// What a node uses.
    pub fn usage_of(&self, node: &str) -> Option<(Node, Usage)> {
        self.nodes.get(node).map(|state| (state.node, state.told))
    }

    /// Requests a second that are answered, by the host that they are for and the namespace of who asks.
    pub fn answered(&self) -> impl Iterator<Item = (&CompactString, &Target, f64)> {
        self.routes.iter().map(|((namespace, target), state)| (namespace, target, state.answered))
    }

    /// Requests a second that are answered and that fail, over all routes.
    pub fn requests(&self) -> (f64, f64) {
        let sum = |(answered, failed), state: &RouteState| {
            (answered + state.answered, failed + state.failed)
        };
        self.routes.values().fold((0.0, 0.0), sum)
    }

    fn routed_nodes(&self) -> BTreeSet<CompactString> {
        let ids =
            self.routes.values().flat_map(|state| state.clients.iter().chain(&state.endpoints));
        ids.filter_map(|id| self.places.get(id).cloned()).collect()
    }

    #[cfg(test)]
    fn is_thorough(&self) -> bool {
        self.thorough
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "it is a field in tests")]
    fn is_thorough(&self) -> bool {
        false
    }

    /// Notes when something on a node changes by itself next.
    fn plan(&mut self, name: &CompactString, now: Time) {
        let Some(state) = self.nodes.get_mut(name) else { return };
        let changes = state.containers.values().filter_map(|state| {
            let container = &state.container;
            let next = container.profile.changes(now.since(container.started))?;
            Some(Self::on_grid(container.started + next).max(now + PERIOD))
        });
        let wake = changes.min();
        if wake == state.wake {
            return;
        }
        if let Some(old) = std::mem::replace(&mut state.wake, wake) {
            self.wakes.remove(&(old, name.clone()));
        }
        if let Some(wake) = wake {
            self.wakes.insert((wake, name.clone()));
        }
    }

    fn leave_routes(&mut self, id: &Id, profile: &Profile) {
        for target in profile.targets() {
            let route = (id.pod.namespace.clone(), target.clone());
            if let Some(state) = self.routes.get_mut(&route) {
                state.clients.remove(id);
                self.moving = true;
                if state.clients.is_empty() {
                    let gone = self.routes.remove(&route);
                    let endpoints = gone.into_iter().flat_map(|gone| gone.endpoints);
                    let places = endpoints.filter_map(|id| self.places.get(&id).cloned());
                    self.dirty.extend(places);
                }
            }
        }
    }
}
