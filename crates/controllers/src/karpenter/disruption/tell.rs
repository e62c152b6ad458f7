//! What disruption says: events, reasons, and a command in words.

use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Node;
use wharf_model::karpenter::{DisruptionReason, NodeClaim, NodePool, events};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::controller::Step;
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;
use wharf_provision::disruption::budget::{PoolNodes, allowed};
use wharf_provision::disruption::candidate::{Blocked, Candidate};
use wharf_provision::disruption::command::Command;
use wharf_provision::disruption::consolidate::LeftAlone;

use super::super::events::{normal, warning};
use super::super::shared::TELL_AGAIN;
use super::super::snapshot::{Snapshot, StateNode};
use super::gather::{Candidates, pool_nodes};
use super::{DisruptionController, NAME};

/// Unconsolidatable events are not repeated for so long.
const UNCONSOLIDATABLE_AGAIN: Duration = Duration::from_mins(15);
/// Events about budgets are not repeated for so long.
const BUDGET_AGAIN: Duration = Duration::from_mins(1);
const REASONS: [DisruptionReason; 3] =
    [DisruptionReason::Underutilized, DisruptionReason::Empty, DisruptionReason::Drifted];

impl DisruptionController {
    /// Tells of pools whose budgets allow no disruption at all just now.
    pub(super) fn tell_budgets(
        &self,
        snapshot: &Snapshot<'_>,
        view: &View,
        now: Time,
        step: &mut Step,
    ) {
        let nodes = pool_nodes(snapshot);
        for pool in view.list::<NodePool>() {
            let name = pool.metadata.name.as_deref().unwrap_or_default();
            let total = nodes.get(name).map_or(0, |nodes| nodes.total);
            let budgets = pool.spec.disruption.budgets();
            for reason in REASONS {
                let idle = PoolNodes { total, unavailable: 0 };
                if total > 0 && allowed(Some(&budgets), reason, idle, now) == 0 {
                    let message = format!(
                        "No allowed disruptions for disruption reason {reason} due to blocking \
                         budget"
                    );
                    let event = normal(pool, events::DISRUPTION_BLOCKED, message);
                    self.shared.tell(step, event, BUDGET_AGAIN, now);
                }
            }
        }
    }

    pub(super) fn tell_blocked(
        &self,
        node: &StateNode<'_>,
        why: &Blocked,
        now: Time,
        step: &mut Step,
    ) {
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

    pub(super) fn tell_unconsolidatable(
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

    pub(super) fn tell_left_alone(
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

    pub(super) fn tell_candidate(
        &self,
        command: &Command,
        view: &View,
        now: Time,
        step: &mut Step,
    ) {
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

    pub(super) fn reject(&self, command: &Command, view: &View, now: Time, step: &mut Step) {
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

fn subjects(candidate: &Candidate) -> [(Kind, &CompactString); 2] {
    [(Kind::of::<NodeClaim>(), &candidate.node_claim), (Kind::of::<Node>(), &candidate.node)]
}

/// Why a node is given up, for the node and its claim.
pub(super) fn reasons(candidate: &Candidate, command: &Command, text: &str) -> Vec<Reason> {
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
