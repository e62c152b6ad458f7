//! Carrying a command out: taint, launch replacements, wait until they are ready, delete.

use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use wharf_model::karpenter::conditions::{Conditioned, node_claim};
use wharf_model::karpenter::{DisruptionReason, NodeClaim, events};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cluster::{Delete, Part, Write};
use wharf_ports::controller::{Context, Step};
use wharf_ports::view::View;
use wharf_provision::catalog::Catalog;
use wharf_provision::disruption::command::Command;

use super::super::events::{normal, report_transitions};
use super::super::log::{self, Source};
use super::super::provisioner::{claim_for, created_fields};
use super::super::shared::{Shared, TELL_AGAIN};
use super::super::snapshot::Snapshot;
use super::super::termination::add_disrupted_taint;
use super::tell::reasons;
use super::{DisruptionController, NAME, POLL};

/// A command that is not through after so long is given up.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(10);
/// A replacement that was created but does not show up for so long is lost.
const AWAIT_REPLACEMENT: Duration = Duration::from_mins(1);

/// A command being carried out.
pub(super) struct Execution {
    pub(super) reason: DisruptionReason,
    /// NodeClaims to delete, with their nodes.
    pub(super) candidates: Vec<(CompactString, CompactString)>,
    /// NodeClaims to create first.
    pub(super) replacements: Vec<Replacement>,
    pub(super) started: Time,
}

/// A NodeClaim to create before others are deleted.
pub(super) struct Replacement {
    pub(super) claim: Box<NodeClaim>,
    /// When its creation was last asked for.
    pub(super) asked: Option<Time>,
    pub(super) seen: bool,
}

impl DisruptionController {
    /// Starts carrying out a command.
    pub(super) fn execute(
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
            // The pool was there when the command was validated, in this very step.
            let Some(pool) = pool else { return };
            let claim = Box::new(claim_for(pool, planned, catalog, context.random));
            let claim_name = claim.metadata.name.as_deref().unwrap_or_default();
            let fields = created_fields(name, claim_name, planned, catalog);
            log::info(step, context, Source::singleton(NAME), "created nodeclaim", &fields);
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
    pub(super) fn progress(&mut self, context: &Context<'_>, step: &mut Step) {
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
    pub(super) fn untaint_strays(&self, view: &View, step: &mut Step) {
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
