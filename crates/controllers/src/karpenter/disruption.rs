//! `disruption`: every ten seconds looks for nodes that are not worth their price, waits whether the
//! finding holds, and carries it out: taint, launch replacements, wait until they are ready, delete.
//!
//! What is under way is kept in memory, as upstream does. After a restart a node that was tainted for
//! a command that nobody remembers is untainted, and what is still worth it is found again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use wharf_model::karpenter::conditions::{Conditioned, node_claim};
use wharf_model::karpenter::{DisruptionReason, NodeClaim, NodePool, events};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;
use wharf_provision::catalog::Catalog;
use wharf_provision::disruption::budget::{PoolNodes, allowed};
use wharf_provision::disruption::candidate::{
    Blocked, Candidate, NodeFacts, PodBlock, Skip, blocked,
};
use wharf_provision::disruption::command::Command;
use wharf_provision::disruption::consolidate::{
    Allowances, LeftAlone, Pass, PoolTotals, Simulator,
};
use wharf_provision::disruption::cost::Cost;
use wharf_provision::pod::{Origin, PodRequest};
use wharf_provision::solve::Solver;

use super::events::{normal, report_transitions, warning};
use super::log::{self, Source};
use super::pods::{self, Budgets, Requests};
use super::provisioner::{claim_for, displaced};
use super::shared::{Shared, TELL_AGAIN};
use super::snapshot::{Snapshot, StateNode, is_node_ready};
use super::termination::add_disrupted_taint;

const NAME: &str = "disruption";
/// How often to look.
const POLL: Duration = Duration::from_secs(10);
/// How long a finding must hold before it is carried out.
const VALIDATION: Duration = Duration::from_secs(15);
/// A command that is not through after so long is given up.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(10);
/// After a pass that found nothing, another one is made after so long though nothing changed.
const LOOK_AGAIN: Duration = Duration::from_mins(5);
/// Unconsolidatable events are not repeated for so long.
const UNCONSOLIDATABLE_AGAIN: Duration = Duration::from_mins(15);
/// A replacement that was created but does not show up for so long is lost.
const AWAIT_REPLACEMENT: Duration = Duration::from_mins(1);

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

struct Execution {
    reason: DisruptionReason,
    /// NodeClaims to delete, with their nodes.
    candidates: Vec<(CompactString, CompactString)>,
    /// NodeClaims to create first.
    replacements: Vec<Replacement>,
    started: Time,
}

struct Replacement {
    claim: Box<NodeClaim>,
    /// When its creation was last asked for.
    asked: Option<Time>,
    seen: bool,
}

/// The candidates of one pass, and what was found out on the way.
struct Candidates {
    graceful: Vec<Candidate>,
    eventual: Vec<Candidate>,
    totals: BTreeMap<CompactString, PoolTotals>,
    /// Whether some node is blocked by something that passes without a change of objects.
    passing: bool,
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
        let mut requests = Requests::default();
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

    /// Starts carrying out a command.
    fn execute(
        &mut self,
        command: Command,
        catalogs: &[(CompactString, Arc<Catalog>)],
        snapshot: &Snapshot<'_>,
        context: &mut Context<'_>,
        step: &mut Step,
    ) {
        let id = context.random.uuid();
        let text = command.describe(|pool| &catalogs[pool].1);
        let reason = command.reason.as_str().to_ascii_lowercase();
        let fields = [("command-id", json!(id)), ("reason", json!(reason))];
        let message = format!("disrupting nodeclaim(s) via {text}");
        log::info(step, context, Source::singleton(NAME), &message, &fields);
        let mut replacements = Vec::new();
        for planned in &command.replacements {
            let (name, catalog) = &catalogs[planned.pool];
            let pool = snapshot
                .pools
                .iter()
                .map(|ready| ready.pool)
                .find(|pool| pool.metadata.name.as_deref() == Some(name.as_str()));
            let Some(pool) = pool else { return };
            let claim = Box::new(claim_for(pool, planned, catalog, context.random));
            replacements.push(Replacement { claim, asked: None, seen: false });
        }
        for candidate in &command.candidates {
            step.reasons.extend(reasons(candidate, &command, &text));
            self.shared.memory().marked.insert(candidate.node_claim.clone());
        }
        self.shared.memory().changes += 1;
        self.executing.push(Execution {
            reason: command.reason,
            candidates: command
                .candidates
                .iter()
                .map(|candidate| (candidate.node_claim.clone(), candidate.node.clone()))
                .collect(),
            replacements,
            started: context.now,
        });
    }

    /// Takes every command one step on, as the view allows.
    fn progress(&mut self, context: &Context<'_>, step: &mut Step) {
        let mut running = std::mem::take(&mut self.executing);
        running.retain_mut(|execution| self.advance(execution, context, step));
        self.executing = running;
        // A claim that is being deleted counts as going by itself.
        let taken = |name: &CompactString| {
            self.executing.iter().any(|run| run.candidates.iter().any(|(claim, _)| claim == name))
        };
        self.shared.memory().marked.retain(|name| taken(name));
    }

    /// Takes a command one step on; says whether it is still under way.
    fn advance(&self, execution: &mut Execution, context: &Context<'_>, step: &mut Step) -> bool {
        let (view, now) = (context.view, context.now);
        let remaining: Vec<&NodeClaim> = execution
            .candidates
            .iter()
            .filter_map(|(claim, _)| view.get_cluster::<NodeClaim>(claim))
            .filter(|claim| claim.metadata.deletion_timestamp.is_none())
            .collect();
        if remaining.is_empty() {
            return false;
        }
        let lost = execution.replacements.iter().any(|replacement| {
            let name = replacement.claim.metadata.name.as_deref().unwrap_or_default();
            let there = view
                .get_cluster::<NodeClaim>(name)
                .is_some_and(|claim| claim.metadata.deletion_timestamp.is_none());
            replacement.seen && !there
        });
        if lost || now.since(execution.started) > COMMAND_TIMEOUT {
            // Their taints are strays now and go with the next look.
            return false;
        }
        let mut prepared = true;
        for claim in &remaining {
            prepared &= !self.prepare(claim, execution.reason, view, now, step);
        }
        let ready = launch_replacements(execution, &self.shared, view, now, step);
        if !(prepared && ready) {
            return true;
        }
        for claim in remaining {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let reason = execution.reason.as_str();
            let key = ObjectKey::cluster(name);
            let Some(object) = view.object(Kind::of::<NodeClaim>(), &key) else { continue };
            step.write(Write::Delete(Delete::of(object)));
            let message = format!("Disrupting NodeClaim: {reason}");
            step.write(normal(claim, events::DISRUPTION_TERMINATING, message));
            if let Some(node) = view.get_cluster::<Node>(&claim.status.node_name) {
                let message = format!("Disrupting Node: {reason}");
                step.write(normal(node, events::DISRUPTION_TERMINATING, message));
            }
        }
        true
    }

    /// Taints a candidate's node and writes down the reason; says whether there was anything to do.
    fn prepare(
        &self,
        claim: &NodeClaim,
        reason: DisruptionReason,
        view: &View,
        now: Time,
        step: &mut Step,
    ) -> bool {
        let mut changed = false;
        if let Some(node) = view.get_cluster::<Node>(&claim.status.node_name) {
            let mut draft = node.clone();
            add_disrupted_taint(&mut draft);
            if draft != *node {
                step.write(Write::Update { object: Box::new(draft), part: Part::Main });
                changed = true;
            }
        }
        let mut draft = claim.clone();
        let mut set = draft.conditions_mut(now.timestamp());
        set.set_true_with_reason(node_claim::DISRUPTION_REASON, reason.as_str(), "");
        if draft.status.conditions != claim.status.conditions {
            let after = draft.status.conditions.clone();
            step.write(Write::Update { object: Box::new(draft), part: Part::Status });
            report_transitions(step, claim, claim.conditions(), &after);
            changed = true;
        }
        changed
    }

    /// Takes the taint off nodes that no command holds: one that failed, or from before a restart.
    fn untaint_strays(&self, view: &View, step: &mut Step) {
        for claim in view.list::<NodeClaim>() {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let held = self
                .executing
                .iter()
                .any(|run| run.candidates.iter().any(|(candidate, _)| candidate == name));
            if held || claim.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if let Some(node) = view.get_cluster::<Node>(&claim.status.node_name)
                && node.metadata.deletion_timestamp.is_none()
            {
                let mut draft = node.clone();
                if let Some(taints) = draft.spec.as_mut().and_then(|spec| spec.taints.as_mut()) {
                    taints.retain(|taint| taint.key != labels::TAINT_DISRUPTED);
                }
                if draft != *node {
                    step.write(Write::Update { object: Box::new(draft), part: Part::Main });
                }
            }
            if claim.is_true(node_claim::DISRUPTION_REASON) {
                let mut draft = claim.clone();
                draft
                    .status
                    .conditions
                    .retain(|condition| condition.type_ != node_claim::DISRUPTION_REASON);
                step.write(Write::Update { object: Box::new(draft), part: Part::Status });
            }
        }
    }

    /// Which nodes may be disrupted; tells of those that may not.
    fn candidates(
        &self,
        snapshot: &Snapshot<'_>,
        view: &View,
        requests: &mut Requests,
        now: Time,
        step: &mut Step,
    ) -> Candidates {
        let budgets = Budgets::of(view);
        let mut found = Candidates {
            graceful: Vec::new(),
            eventual: Vec::new(),
            totals: BTreeMap::new(),
            passing: false,
        };
        self.shared.memory().forget_nominations(now);
        for node in snapshot.nodes.iter().filter(|node| node.claim.is_some()) {
            let pool = view.get_cluster::<NodePool>(node.pool_name());
            let catalog = snapshot
                .pools
                .iter()
                .find(|ready| ready.pool.metadata.name.as_deref() == Some(node.pool_name()))
                .map(|ready| &ready.catalog);
            let facts = self.facts(node, pool.is_some() && catalog.is_some(), &budgets, now);
            let eventual =
                node.claim.is_some_and(|claim| claim.spec.termination_grace_period.is_some());
            let graceful = blocked(&facts, false);
            if let (Some(pool), Some(catalog)) = (pool, catalog) {
                let candidate = candidate(node, pool, catalog, requests);
                let totals = found.totals.entry(candidate.pool.clone()).or_default();
                totals.add(candidate.price, candidate.cost);
                if blocked(&facts, eventual).is_none() {
                    found.eventual.push(candidate.clone());
                }
                if graceful.is_none() {
                    found.graceful.push(candidate);
                }
            }
            if let Some(why) = graceful {
                found.passing |= matches!(why, Blocked::Nominated | Blocked::Pod(_));
                self.tell_blocked(node, &why, now, step);
            }
        }
        for candidate in &found.graceful {
            let skips = [candidate.skip_emptiness(), candidate.skip_consolidation()];
            for skip in skips.into_iter().flatten() {
                if let Skip::Tell(message) = skip {
                    self.tell_unconsolidatable(candidate, &message, view, now, step);
                }
            }
        }
        found
    }

    fn facts(
        &self,
        node: &StateNode<'_>,
        pool_exists: bool,
        budgets: &Budgets<'_>,
        now: Time,
    ) -> NodeFacts {
        let forbids = |annotations: Option<&BTreeMap<String, String>>| {
            annotations
                .and_then(|map| map.get(labels::DO_NOT_DISRUPT))
                .is_some_and(|value| value == "true")
        };
        let of_claim = node.claim.and_then(|claim| claim.metadata.annotations.as_ref());
        let of_node = node.node.and_then(|node| node.metadata.annotations.as_ref());
        let mut blocks = Vec::new();
        for pod in &node.pods {
            if pods::forbids_disruption(pod, now) {
                blocks.push(PodBlock::DoNotDisrupt(ObjectKey::of(&pod.metadata)));
            } else if pods::is_reschedulable(pod) {
                blocks.extend(budgets.against(pod));
            }
        }
        NodeFacts {
            has_node: node.node.is_some(),
            initialized: node.is_initialized(),
            deleting: node.deleting,
            nominated: self.shared.memory().is_nominated(node.claim_name(), now),
            do_not_disrupt: forbids(of_claim) || forbids(of_node),
            pool: node.pool_name().into(),
            pool_exists,
            pods: blocks,
        }
    }

    fn tell_blocked(&self, node: &StateNode<'_>, why: &Blocked, now: Time, step: &mut Step) {
        let message = why.to_string();
        if let Some(claim) = node.claim {
            let event = normal(claim, events::DISRUPTION_BLOCKED, message.clone());
            self.shared.tell(step, event, TELL_AGAIN, now);
        }
        if let Some(node) = node.node {
            let event = normal(node, events::DISRUPTION_BLOCKED, message);
            self.shared.tell(step, event, TELL_AGAIN, now);
        }
    }

    fn tell_unconsolidatable(
        &self,
        candidate: &Candidate,
        message: &str,
        view: &View,
        now: Time,
        step: &mut Step,
    ) {
        let again = UNCONSOLIDATABLE_AGAIN;
        if let Some(claim) = view.get_cluster::<NodeClaim>(&candidate.node_claim) {
            let event = normal(claim, events::UNCONSOLIDATABLE, message);
            self.shared.tell(step, event, again, now);
        }
        if let Some(node) = view.get_cluster::<Node>(&candidate.node) {
            let event = normal(node, events::UNCONSOLIDATABLE, message);
            self.shared.tell(step, event, again, now);
        }
    }

    fn tell_left_alone(
        &self,
        left_alone: &[(CompactString, LeftAlone)],
        candidates: &Candidates,
        view: &View,
        now: Time,
        step: &mut Step,
    ) {
        for (claim, why) in left_alone {
            let all = candidates.graceful.iter().chain(&candidates.eventual);
            let Some(candidate) = all.into_iter().find(|other| other.node_claim == *claim) else {
                continue;
            };
            let message = why.to_string();
            self.tell_unconsolidatable(candidate, message.trim_end(), view, now, step);
            let price = format!("costs {}", candidate.price.per_hour());
            let because =
                vec![Because::new("consolidation", message), Because::new("price", price)];
            for (kind, name) in subjects(candidate) {
                step.reasons.push(Reason {
                    kind,
                    key: ObjectKey::cluster(name),
                    by: NAME,
                    decision: "kept".to_owned(),
                    because: because.clone(),
                });
            }
        }
    }

    fn tell_candidate(&self, command: &Command, view: &View, now: Time, step: &mut Step) {
        if command.reason != DisruptionReason::Underutilized {
            return;
        }
        let text = command_text(command);
        let savings = savings_text(command);
        for candidate in &command.candidates {
            if let Some(node) = view.get_cluster::<Node>(&candidate.node) {
                let message = format!("Consolidation candidate: {text} (savings: {savings})");
                let event = normal(node, events::CONSOLIDATION_CANDIDATE, message);
                self.shared.tell(step, event, TELL_AGAIN, now);
            }
        }
    }

    fn reject(&self, command: &Command, view: &View, now: Time, step: &mut Step) {
        self.shared.memory().changes += 1;
        let text = command_text(command);
        let savings = savings_text(command);
        for candidate in &command.candidates {
            if let Some(node) = view.get_cluster::<Node>(&candidate.node) {
                let message =
                    format!("Consolidation rejected: {text}, reason: churn (savings: {savings})");
                let event = warning(node, events::CONSOLIDATION_REJECTED, message);
                self.shared.tell(step, event, TELL_AGAIN, now);
            }
        }
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

/// Creates replacements that are missing; says whether all are ready for pods.
fn launch_replacements(
    execution: &mut Execution,
    shared: &Shared,
    view: &View,
    now: Time,
    step: &mut Step,
) -> bool {
    let reason = execution.reason.as_str();
    let mut ready = true;
    for replacement in &mut execution.replacements {
        let name = replacement.claim.metadata.name.clone().unwrap_or_default();
        // Until its pods come it must not look empty.
        shared.memory().nominate(&name, now + 2 * POLL);
        let Some(claim) = view.get_cluster::<NodeClaim>(&name) else {
            ready = false;
            if replacement.asked.is_none_or(|asked| now.since(asked) > AWAIT_REPLACEMENT) {
                replacement.asked = Some(now);
                step.write(Write::Create(replacement.claim.clone()));
            }
            continue;
        };
        replacement.seen = true;
        let message = format!("Launching NodeClaim: {reason}");
        let event = normal(claim, events::DISRUPTION_LAUNCHING, message);
        shared.tell(step, event, COMMAND_TIMEOUT, now);
        if !claim.is_true(node_claim::INITIALIZED) {
            ready = false;
            let message = "Waiting on readiness to continue disruption";
            let event = normal(claim, events::DISRUPTION_WAITING_READINESS, message);
            shared.tell(step, event, TELL_AGAIN, now);
        }
    }
    ready
}

/// How many nodes of each pool may be disrupted for a reason.
fn allowances(
    snapshot: &Snapshot<'_>,
    view: &View,
    reason: DisruptionReason,
    now: Time,
) -> Allowances {
    let mut nodes: BTreeMap<&str, PoolNodes> = BTreeMap::new();
    for node in &snapshot.nodes {
        let Some(claim) = node.claim.filter(|_| node.is_initialized()) else { continue };
        if claim.is_true(node_claim::INSTANCE_TERMINATING) {
            continue;
        }
        let count = nodes.entry(node.pool_name()).or_default();
        count.total += 1;
        let ready = node.node.is_some_and(is_node_ready);
        count.unavailable += u32::from(!ready || node.deleting);
    }
    view.list::<NodePool>()
        .map(|pool| {
            let name = pool.metadata.name.as_deref().unwrap_or_default();
            let nodes = nodes.get(name).copied().unwrap_or_default();
            let budgets = pool.spec.disruption.budgets();
            (name.into(), allowed(Some(&budgets), reason, nodes, now))
        })
        .collect()
}

fn candidate(
    node: &StateNode<'_>,
    pool: &NodePool,
    catalog: &Catalog,
    requests: &mut Requests,
) -> Candidate {
    let instance_type = node.label(labels::INSTANCE_TYPE).unwrap_or_default();
    let capacity_type = node.label(labels::CAPACITY_TYPE).and_then(|text| text.parse().ok());
    let zone = node.label(labels::TOPOLOGY_ZONE);
    let price = capacity_type
        .zip(zone)
        .and_then(|(capacity_type, zone)| catalog.node_price(instance_type, capacity_type, zone));
    let moving: Vec<&&Pod> = node.pods.iter().filter(|pod| pods::is_reschedulable(pod)).collect();
    let drifted = node
        .claim
        .and_then(|claim| {
            let conditions = claim.conditions();
            wharf_model::karpenter::conditions::get(conditions, node_claim::DRIFTED)
        })
        .filter(|condition| condition.status == "True")
        .map(|condition| Time::from(&condition.last_transition_time));
    Candidate {
        node: node.name().into(),
        node_claim: node.claim_name().into(),
        pool: node.pool_name().into(),
        instance_type: instance_type.into(),
        type_known: catalog.find(instance_type).is_some(),
        capacity_type,
        zone: zone.map(Into::into),
        price: price.unwrap_or_default(),
        cost: Cost::of_rescheduling(moving.iter().map(|pod| pods::eviction_cost(pod))),
        pods: moving.iter().filter_map(|pod| requests.of(pod, Origin::Candidate)).collect(),
        consolidatable: node.claim.is_some_and(|claim| claim.is_true(node_claim::CONSOLIDATABLE)),
        drifted_since: drifted,
        static_pool: pool.spec.is_static(),
        consolidates: pool.spec.disruption.consolidate_after().is_some(),
        policy: pool.spec.disruption.consolidation_policy(),
    }
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

fn subjects(candidate: &Candidate) -> [(Kind, &CompactString); 2] {
    [(Kind::of::<NodeClaim>(), &candidate.node_claim), (Kind::of::<Node>(), &candidate.node)]
}

/// Why a node is given up, for the node and its claim.
fn reasons(candidate: &Candidate, command: &Command, text: &str) -> Vec<Reason> {
    let savings = command.savings.per_hour();
    let because = vec![
        Because::new("command", text.to_owned()),
        Because::new("price", format!("costs {}", candidate.price.per_hour())),
        Because::new("pods", format!("{} pods move", candidate.pods.len())),
        Because::new("savings", format!("the command saves {savings}")),
    ];
    let reason = |(kind, name): (Kind, &CompactString)| Reason {
        kind,
        key: ObjectKey::cluster(name),
        by: NAME,
        decision: format!("given up: {}", command.reason),
        because: because.clone(),
    };
    subjects(candidate).into_iter().map(reason).collect()
}

/// `Underutilized: delete: nodepools=[default]: [n1, n2]`, as the newer releases name a command.
fn command_text(command: &Command) -> String {
    let mut pools: Vec<&str> = command.candidates.iter().map(|c| c.pool.as_str()).collect();
    pools.sort_unstable();
    pools.dedup();
    let nodes: Vec<&str> = command.candidates.iter().map(|c| c.node.as_str()).collect();
    let replacements = match command.replacements.len() {
        0 => String::new(),
        count => format!(" -> [{count} replacement]"),
    };
    format!(
        "{}: {}: nodepools=[{}]: [{}]{replacements}",
        command.reason,
        command.decision(),
        pools.join(", "),
        nodes.join(", ")
    )
}

fn savings_text(command: &Command) -> String {
    format!("${}", command.savings.round_to_digits(2))
}
