//! `disruption`: every ten seconds looks for nodes that are not worth their price, waits whether the
//! finding holds, and carries it out: taint, launch replacements, wait until they are ready, delete.
//!
//! What is under way is kept in memory, as upstream does. After a restart a node that was tainted for
//! a command that nobody remembers is untainted, and what is still worth it is found again.

mod execution;
mod gather;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::karpenter::{DisruptionReason, NodeClaim};
use wharf_model::kinds::Kind;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::view::View;
use wharf_provision::catalog::Catalog;
use wharf_provision::disruption::command::Command;
use wharf_provision::disruption::consolidate::{Pass, Simulator};
use wharf_provision::pod::{Origin, PodRequest};
use wharf_provision::solve::Solver;

use self::execution::Execution;
use self::gather::allowances;
use super::pods::{self, Requests};
use super::provisioner::displaced;
use super::shared::Shared;
use super::snapshot::{Snapshot, is_node_ready};

const NAME: &str = "disruption";
/// How often to look.
const POLL: Duration = Duration::from_secs(10);
/// How long a finding must hold before it is carried out.
const VALIDATION: Duration = Duration::from_secs(15);
/// After a pass that found nothing, another one is made after so long though nothing changed.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

/// The controller.
pub(super) struct DisruptionController {
    shared: Arc<Shared>,
    /// A finding that waits for its validation.
    found: Option<Found>,
    /// Commands being carried out.
    executing: Vec<Execution>,
    /// When to look for something next.
    next_pass: Time,
    /// The state of the cluster when the last full pass found nothing, and when that was.
    nothing: Option<(u64, Time)>,
}

struct Found {
    command: Command,
    due: Time,
    /// The catalogues of the pools by the indexes that the command uses.
    catalogs: Vec<(CompactString, Arc<Catalog>)>,
}

impl DisruptionController {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (found, executing) = (None, Vec::new());
        Self { shared, found, executing, next_pass: Time::EPOCH, nothing: None }
    }

    fn run(&mut self, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        let now = context.now;
        self.progress(context, &mut step);
        self.untaint_strays(context.view, &mut step);
        if context.view.count(Kind::of::<NodeClaim>()) == 0 {
            self.found = None;
            return step;
        }
        if now >= self.next_pass {
            self.next_pass = now + POLL;
            if self.pass(context, &mut step) {
                // Something is under way: look again soon.
                self.progress(context, &mut step);
            }
        }
        let due = self.found.as_ref().map_or(self.next_pass, |found| found.due);
        step.again = Some(due.min(self.next_pass).since(now).max(Duration::from_millis(100)));
        step
    }

    /// Looks for something to do; says whether a command was started.
    fn pass(&mut self, context: &mut Context<'_>, step: &mut Step) -> bool {
        let now = context.now;
        let validating = self.found.is_some();
        if self.found.as_ref().is_some_and(|found| found.due > now) {
            self.next_pass = self.found.as_ref().map_or(self.next_pass, |found| found.due);
            return false;
        }
        let shared = Arc::clone(&self.shared);
        let view = context.view;
        let changes = shared.memory().changes;
        let unchanged =
            self.nothing.is_some_and(|(known, at)| known == changes && now.since(at) < LOOK_AGAIN);
        if !validating && unchanged {
            return false;
        }
        let snapshot = Snapshot::gather(&shared, view, now);
        if !snapshot.is_synced() {
            return false;
        }
        let mut requests = Requests::new(view);
        let candidates = self.candidates(&snapshot, view, &mut requests, now, step);
        let mut homeless: Vec<PodRequest> = view
            .list::<Pod>()
            .filter(|pod| pods::is_provisionable(pod))
            .filter_map(|pod| requests.of(pod, Origin::Pending))
            .collect();
        homeless.extend(displaced(view, &snapshot, &mut requests, now));
        let mut solver = snapshot.solver(&shared, true, now);
        let gates = shared.settings.gates;
        let mut simulator = Simulator::new(&mut solver, &homeless, gates, &candidates.totals);
        self.tell_budgets(&snapshot, view, now, step);
        let budgets = |reason| allowances(&snapshot, view, reason, now);
        if let Some(found) = self.found.take() {
            let command = &found.command;
            let allowances = budgets(command.reason);
            let same = same_catalogs(&found.catalogs, &snapshot);
            let valid = same
                .then(|| simulator.revalidate(command, &candidates.graceful, allowances))
                .flatten();
            return match valid {
                Some(command) => {
                    self.execute(command, &found.catalogs, &snapshot, context, step);
                    true
                }
                None => {
                    self.reject(command, view, now, step);
                    false
                }
            };
        }
        let mut constrained = candidates.passing;
        let mut method = |pass: Pass, told: bool| {
            constrained |= pass.constrained_by_budget;
            if told {
                self.tell_left_alone(&pass.left_alone, &candidates, view, now, step);
            }
            pass.command
        };
        let empty = budgets(DisruptionReason::Empty);
        let drifted = budgets(DisruptionReason::Drifted);
        let underutilized = budgets(DisruptionReason::Underutilized);
        let command = method(simulator.emptiness(&candidates.graceful, empty), false)
            .or_else(|| method(simulator.drift(&candidates.eventual, drifted), true))
            .or_else(|| {
                method(simulator.multi_node(&candidates.graceful, underutilized.clone()), false)
            })
            .or_else(|| method(simulator.single_node(&candidates.graceful, underutilized), true));
        let Some(command) = command else {
            self.nothing = (!constrained).then_some((changes, now));
            return false;
        };
        self.nothing = None;
        let catalogs = catalogs(&solver);
        if command.reason == DisruptionReason::Drifted {
            self.execute(command, &catalogs, &snapshot, context, step);
            return true;
        }
        self.tell_candidate(&command, view, now, step);
        self.next_pass = now + VALIDATION;
        self.found = Some(Found { command, due: now + VALIDATION, catalogs });
        false
    }
}

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        if !matters(change) {
            return;
        }
        self.shared.memory().changes += 1;
        if kind != Kind::of::<NodeClaim>() && kind != Kind::of::<Node>() {
            return;
        }
        if self.executing.is_empty() && change.old.is_some() {
            // The timer looks at it; only the first claim has to start the timer.
            return;
        }
        queue.now(WorkKey::singleton(NAME));
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        self.run(context)
    }

    fn refused(&mut self, _key: &WorkKey, write: &Write, _error: &ApiError) -> OnError {
        if let Write::Create(object) = write {
            let name = object.meta().name.clone();
            let all = self.executing.iter_mut().flat_map(|run| &mut run.replacements);
            for replacement in all.filter(|other| other.claim.metadata.name == name) {
                replacement.asked = None;
            }
        }
        OnError::Retry
    }
}

/// Whether a change could change what disruption finds: not a heartbeat, not an Event.
fn matters(change: &Change) -> bool {
    let kind = change.kind();
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return [Kind::of::<Pod>(), Kind::of::<Node>(), Kind::of::<NodeClaim>()].contains(&kind);
    };
    if let (Some(old), Some(new)) = (old.typed::<Node>(), new.typed::<Node>()) {
        return old.spec != new.spec
            || old.metadata.labels != new.metadata.labels
            || old.metadata.annotations != new.metadata.annotations
            || is_node_ready(old) != is_node_ready(new);
    }
    if let (Some(old), Some(new)) = (old.typed::<Pod>(), new.typed::<Pod>()) {
        return pods::node_of(old) != pods::node_of(new)
            || pods::is_terminal(old) != pods::is_terminal(new)
            || pods::is_provisionable(old) != pods::is_provisionable(new)
            || old.metadata.annotations != new.metadata.annotations
            || old.metadata.deletion_timestamp.is_some()
                != new.metadata.deletion_timestamp.is_some();
    }
    kind == Kind::of::<NodeClaim>()
}

fn catalogs(solver: &Solver) -> Vec<(CompactString, Arc<Catalog>)> {
    solver.pools().map(|pool| (pool.name.clone(), Arc::clone(&pool.catalog))).collect()
}

/// Whether the indexes of a command still mean the same: the same pools with the same catalogues.
fn same_catalogs(known: &[(CompactString, Arc<Catalog>)], snapshot: &Snapshot<'_>) -> bool {
    known.len() == snapshot.pools.len()
        && known.iter().all(|(name, catalog)| {
            snapshot.pools.iter().any(|ready| {
                ready.pool.metadata.name.as_deref() == Some(name.as_str())
                    && Arc::ptr_eq(&ready.catalog, catalog)
            })
        })
}
