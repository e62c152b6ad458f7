//! One moment of the model: who uses how much, given what everybody wants.
//!
//! Requests are solved with the limits alone, the cpu of each node is shared, and requests are
//! solved again with what endpoints on full nodes got. The second time nobody is asked for more
//! than the first time, so that no node is overdrawn.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;
use wharf_model::time::Time;

use crate::closed::{Client, PATIENCE, latency, throttled};
use crate::profile::Target;
use crate::share::{Want, share};
use crate::world::{Container, Id, Load, Outcome, Route, RouteState, State, Usage};

/// How long a refused connection takes.
const REFUSED: f64 = 0.002;
/// Endpoints are left this part of their cpu for requests, whatever else they do.
const SERVED_MIN: f64 = 0.1;
/// Latencies and paces that differ by less are taken for the same: requests have come to rest.
const AT_REST: f64 = 1e-3;

/// The containers in question while they are solved for.
pub(crate) struct Solver<'l> {
    load: &'l mut Load,
    now: Time,
    /// Their nodes: cores, and which of the slots are theirs.
    nodes: Vec<(CompactString, std::ops::Range<usize>)>,
    slots: Vec<Slot>,
    by_id: BTreeMap<Id, usize>,
}

struct Slot {
    id: Id,
    container: Container,
    /// Cores wanted in the background.
    background: f64,
    /// Bytes used in the background.
    memory: f64,
    /// Cores there are for it.
    available: f64,
    /// Cores that cycles want, as they go now.
    cycling: f64,
    /// Cores that requests take.
    serving: f64,
    /// Requests answered a second.
    answered: f64,
    /// Requests being answered.
    concurrent: f64,
    /// The share of what it wanted that it got when it was last solved for.
    pace: f64,
}

impl<'l> Solver<'l> {
    pub(crate) fn new(load: &'l mut Load, involved: &BTreeSet<CompactString>, now: Time) -> Self {
        let (mut nodes, mut slots, mut by_id) = (Vec::new(), Vec::new(), BTreeMap::new());
        for name in involved {
            let Some(node) = load.nodes.get(name) else { continue };
            let first = slots.len();
            for (id, state) in &node.containers {
                by_id.insert(id.clone(), slots.len());
                slots.push(Slot::new(id, state, node.node.cores, now));
            }
            nodes.push((name.clone(), first..slots.len()));
        }
        Self { load, now, nodes, slots, by_id }
    }

    /// Solves for the containers in question. Either all clients and endpoints are among them, or
    /// none: then `routes_too` is false, and requests stay as they are.
    pub(crate) fn solve(mut self, routes_too: bool) -> Outcome {
        let routes: Vec<Route> = self.load.routes.keys().filter(|_| routes_too).cloned().collect();
        let before: Vec<f64> = routes.iter().map(|route| self.load.routes[route].latency).collect();
        self.requests(&routes, &before);
        for (name, range) in self.nodes.clone() {
            let Some(node) = self.load.nodes.get(&name) else { continue };
            let wants: Vec<Want> = self.slots[range.clone()].iter().map(Slot::want).collect();
            let capacity = (node.node.cores - node.node.system_cores).max(0.0);
            let given = share(&wants, capacity);
            for ((slot, want), given) in self.slots[range].iter_mut().zip(wants).zip(given) {
                if given < want.cores {
                    slot.available = given;
                }
            }
        }
        self.requests(&routes, &before);
        self.load.moving = false;
        for (route, before) in routes.iter().zip(before) {
            let after = self.load.routes[route].latency;
            self.load.moving |= (after - before).abs() > AT_REST * before.max(1e-3);
        }
        self.tell()
    }

    /// Solves every route with the cpu that endpoints have now. `latencies` are those of the
    /// routes before, for clients that ask several hosts in a round.
    fn requests(&mut self, routes: &[Route], latencies: &[f64]) {
        for slot in &mut self.slots {
            slot.serving = 0.0;
            slot.answered = 0.0;
            slot.concurrent = 0.0;
        }
        let known: BTreeMap<(&str, &Target), f64> = routes
            .iter()
            .zip(latencies)
            .map(|((namespace, target), latency)| ((namespace.as_str(), target), *latency))
            .collect();
        let mut solved = Vec::with_capacity(routes.len());
        for route in routes {
            let (clients, open) = self.clients(route, &known);
            solved.push(self.route(route, &clients, open));
        }
        for (route, (latency, answered, failed)) in routes.iter().zip(solved) {
            if let Some(state) = self.load.routes.get_mut(route) {
                (state.latency, state.answered, state.failed) = (latency, answered, failed);
            }
        }
        for index in 0..self.slots.len() {
            self.slots[index].cycling = self.cycling(index);
        }
    }

    /// The clients of a route, and requests a second that come anyway.
    fn clients(&self, route: &Route, known: &BTreeMap<(&str, &Target), f64>) -> (Vec<Client>, f64) {
        let (namespace, target) = route;
        let (mut clients, mut open) = (Vec::new(), 0.0);
        let ids = self.load.routes.get(route).into_iter().flat_map(|state| &state.clients);
        for slot in ids.filter_map(|id| Some(&self.slots[*self.by_id.get(id)?])) {
            let profile = &slot.container.profile;
            if let Some((rate, to)) = &profile.open
                && to == target
            {
                open += slot.pace * rate.at(self.now.since(slot.container.started));
            }
            for cycle in &profile.cycles {
                let requests = cycle.requests().filter(|asked| *asked == target).count();
                if requests == 0 {
                    continue;
                }
                let others = cycle.requests().filter(|asked| *asked != target);
                let waits = others.filter_map(|other| known.get(&(namespace.as_str(), other)));
                clients.push(Client {
                    requests: requests as f64,
                    elsewhere: cycle.own_seconds() + waits.sum::<f64>(),
                    pace: slot.pace,
                });
            }
        }
        (clients, open)
    }

    /// Latency, answers and failures a second of a route; its endpoints are given their part.
    fn route(&mut self, route: &Route, clients: &[Client], open: f64) -> (f64, f64, f64) {
        let asked = |latency: f64| open + clients.iter().map(|c| c.rate(latency)).sum::<f64>();
        let endpoints = self.load.routes.get(route).map(|state| state.endpoints.as_slice());
        let answering: Vec<usize> = endpoints
            .into_iter()
            .flatten()
            .filter_map(|id| self.by_id.get(id).copied())
            .filter(|index| self.slots[*index].container.profile.serve.is_some())
            .collect();
        if answering.is_empty() {
            return (REFUSED, 0.0, asked(REFUSED));
        }
        let count = answering.len() as f64;
        let (mut alone, mut least) = (0.0, f64::INFINITY);
        for index in &answering {
            let slot = &self.slots[*index];
            let Some(serve) = slot.container.profile.serve else { continue };
            let left = slot.left_for_requests();
            alone += (throttled(serve.cpu, left) + serve.wait) / count;
            least = least.min(left / serve.cpu.max(1e-9));
        }
        // Requests go to all endpoints alike: the one that can take least holds up the rest.
        let capacity = least * count;
        let latency = latency(clients, open, alone, capacity);
        let wanted = asked(latency);
        let answered = wanted.min(capacity);
        for index in answering {
            let slot = &mut self.slots[index];
            let Some(serve) = slot.container.profile.serve else { continue };
            slot.answered += answered / count;
            slot.serving += answered / count * serve.cpu;
            slot.concurrent += answered / count * latency.min(PATIENCE);
        }
        (latency, answered, wanted - answered)
    }

    /// Cores that the cycles of a container want at the latencies there are.
    fn cycling(&self, index: usize) -> f64 {
        let slot = &self.slots[index];
        let wait = |target: &Target| {
            let route = (slot.id.pod.namespace.clone(), target.clone());
            self.load.routes.get(&route).map_or(0.0, |state: &RouteState| state.latency)
        };
        let cycles = slot.container.profile.cycles.iter().map(|cycle| {
            let round = cycle.own_seconds() + cycle.requests().map(wait).sum::<f64>();
            cycle.cpu_seconds() / round
        });
        cycles.sum()
    }

    /// Notes what everybody uses, and says what is new.
    fn tell(self) -> Outcome {
        let mut outcome = Outcome::default();
        let Self { load, slots, nodes, .. } = self;
        for (name, range) in nodes {
            let Some(node) = load.nodes.get_mut(&name) else { continue };
            let (mut cpu, mut memory) = (node.node.system_cores, node.node.system_memory);
            let mut scores: Vec<(f64, &Slot, f64)> = Vec::new();
            for slot in &slots[range] {
                let Some(state) = node.containers.get_mut(&slot.id) else { continue };
                let wanted = slot.want().cores;
                let used = wanted.min(slot.available);
                let pace = if wanted > 0.0 { used / wanted } else { 1.0 };
                load.moving |= !slot.container.profile.cycles.is_empty()
                    && (pace - state.pace).abs() > AT_REST;
                state.pace = pace;
                let (bytes, is_over) = slot.bytes();
                if is_over {
                    outcome.killed.push(slot.id.clone());
                }
                cpu += used;
                memory += bytes;
                let usage =
                    Usage { cpu_nanos: (used * 1e9).round() as u64, memory_bytes: bytes as u64 };
                if usage != state.told || state.answered != slot.answered {
                    if usage != state.told {
                        state.told = usage;
                        outcome.usages.push((slot.id.clone(), slot.container.started, usage));
                    }
                    if state.answered != slot.answered {
                        state.answered = slot.answered;
                        outcome.answered.push((slot.id.clone(), slot.answered));
                    }
                }
                let score = 1_000.0 * bytes / node.node.memory.max(1.0)
                    + f64::from(slot.container.oom_score_adj);
                if !is_over {
                    scores.push((score, slot, bytes));
                }
            }
            // The kernel kills who has the highest score until there is memory again.
            scores.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id)));
            let mut left = memory;
            for (_, slot, bytes) in scores {
                if left <= node.node.memory {
                    break;
                }
                left -= bytes;
                outcome.killed.push(slot.id.clone());
            }
            let usage = Usage {
                cpu_nanos: (cpu.min(node.node.cores) * 1e9) as u64,
                memory_bytes: memory.min(node.node.memory) as u64,
            };
            if usage != node.told {
                node.told = usage;
                outcome.nodes.push((name, usage));
            }
        }
        outcome
    }
}

impl Slot {
    fn new(id: &Id, state: &State, cores: f64, now: Time) -> Self {
        let container = state.container.clone();
        let since = now.since(container.started);
        let (background, memory) = container.profile.background(since);
        Self {
            id: id.clone(),
            available: container.cpu_limit.unwrap_or(cores).min(cores),
            container,
            background,
            memory,
            cycling: 0.0,
            serving: 0.0,
            answered: 0.0,
            concurrent: 0.0,
            pace: state.pace,
        }
    }

    fn want(&self) -> Want {
        let cores = self.background + self.cycling + self.serving;
        let limit = self.container.cpu_limit.unwrap_or(f64::INFINITY);
        Want { cores: cores.min(limit), weight: self.container.weight }
    }

    /// Cores that requests may still take.
    fn left_for_requests(&self) -> f64 {
        let busy = self.background + self.cycling;
        let left = (self.available - busy).max(self.available * SERVED_MIN);
        (left - self.serving).max(1e-9)
    }

    /// Bytes in use, and whether they are more than there may be.
    fn bytes(&self) -> (f64, bool) {
        let serve = self.container.profile.serve;
        let held = serve.map_or(0.0, |serve| serve.memory * self.concurrent);
        let bytes = (self.memory + held).max(0.0);
        match self.container.memory_limit {
            Some(limit) if bytes > limit => (limit, true),
            _ => (bytes, false),
        }
    }
}
