//! The answer to `wharf why`: what an object is now, what was decided about it and why, and what
//! its machine costs.

mod chances;
mod pools;
mod takers;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use serde_json::{Value, json};
use wharf_controllers::fargate::Taker;
use wharf_controllers::journal::Journal;
use wharf_controllers::scheduler::snapshot_of;
use wharf_model::instance::Instance;
use wharf_model::karpenter::NodeClaim;
use wharf_model::money::Price;
use wharf_model::object::Object;
use wharf_model::quantity::Quantity;
use wharf_model::resources::{cpu_shares, oom_score_adj, qos_class};
use wharf_model::time::Time;
use wharf_model::vpa::VerticalPodAutoscaler;
use wharf_ports::view::View;
use wharf_scheduler::Profile;
use wharf_scheduler::review::{Review, review};

pub use self::chances::Telling;
pub use self::takers::{Cluster, Compute, takers};
use crate::ledger::Line;
use crate::scenario::Target;

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    subject: String,
    state: Vec<String>,
    reasons_text: String,
    reasons: Value,
    machine: Option<Line>,
    kernel: Vec<ForKernel>,
    chances: Option<Chances>,
    fargate: Option<Taker>,
    takers: Vec<Compute>,
}

/// What a kubelet tells the kernel of a container.
#[derive(Clone, Debug, PartialEq)]
struct ForKernel {
    container: String,
    class: &'static str,
    oom_score_adj: i32,
    cpu_shares: i64,
    memory_limit: Option<String>,
}

/// What becomes of a pod by the scheduler's rules, as things are.
#[derive(Clone, Debug, PartialEq)]
struct Chances {
    text: String,
    review: Value,
}

/// Answers for one object; `None` if there is no such object and nothing was ever told of it.
pub fn answer<'a>(
    target: &Target,
    object: Option<&Object>,
    machines: impl Iterator<Item = &'a Instance>,
    journal: &Journal,
    now: Time,
) -> Option<Answer> {
    let reasons_text = journal.to_text(target.kind, &target.key);
    if object.is_none() && reasons_text.is_empty() {
        return None;
    }
    let state = match object {
        Some(object) => state(object),
        None => vec!["it is gone".to_owned()],
    };
    // The machine's id is the last part, or for a micro-VM the last but one.
    let machine = object.and_then(provider_id).and_then(|id| {
        let mut machines = machines;
        machines
            .find(|machine| {
                id.split('/').any(|part| machine.metadata.name.as_deref() == Some(part))
            })
            .and_then(|machine| Line::of(machine, now))
    });
    Some(Answer {
        subject: format!("{}/{}", target.kind.singular, target.key),
        state,
        reasons: journal.to_json(target.kind, &target.key)["reasons"].clone(),
        reasons_text,
        machine,
        kernel: Vec::new(),
        chances: None,
        fargate: None,
        takers: Vec::new(),
    })
}

/// What the nodes say of a pod.
#[derive(Clone, Debug)]
pub struct PodReview {
    review: Review,
    /// The scheduler's names, if none of them is the one that the pod asks for.
    foreign_to: Option<String>,
}

/// What the nodes say of a pod as things are, by the rules of the profile that it asks for; `None`
/// for one that has ended. One that asks for another scheduler is looked at by the default rules.
pub fn pod_review(pod: &Pod, view: &View, profiles: &[Profile]) -> Option<PodReview> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let own = profiles.iter().find(|profile| profile.is_for(pod));
    let foreign_to = own.is_none().then(|| {
        let names: Vec<&str> =
            profiles.iter().map(|profile| profile.scheduler_name.as_str()).collect();
        names.join(", ")
    });
    let profile = own.cloned().unwrap_or_default();
    Some(PodReview { review: review(&mut snapshot_of(view), pod, &profile), foreign_to })
}

impl PodReview {
    /// Whether a node would take the pod now.
    pub fn has_place(&self) -> bool {
        self.review.feasible > 0
    }
}

impl Answer {
    /// The same with what the nodes say of the pod. People are told it of a pod that waits, and
    /// of one that runs if it is not known how it came to where it is.
    #[must_use]
    pub fn with_chances(mut self, told: &PodReview, waits: bool, telling: Telling<'_>) -> Self {
        let PodReview { review, foreign_to } = told;
        let text = if waits {
            let foreign = foreign_to.as_ref().map_or_else(String::new, |names| {
                format!(
                    "it waits for a scheduler of another name: that of the lab is {names}. By the default rules:\n"
                )
            });
            foreign + &chances::text(review, telling)
        } else if self.reasons_text.is_empty() {
            format!("if it had to be placed again:\n{}", chances::text(review, telling))
        } else {
            String::new()
        };
        let mut review = serde_json::to_value(review).unwrap_or_default();
        if let Some(outlook) = telling.outlook {
            review["provisioning"] = pools::to_json(outlook);
        }
        self.chances = Some(Chances { text, review });
        self
    }

    /// The same with who takes the pod. What nodes say of one that Fargate takes is left out: none of
    /// them is asked.
    #[must_use]
    pub fn with_fargate(mut self, taker: Taker) -> Self {
        self.chances = self.chances.filter(|_| !taker.is_fargate);
        self.fargate = Some(taker);
        self
    }

    /// The same with what each sort of compute that the cluster has says of the pod.
    #[must_use]
    pub fn with_takers(mut self, takers: Vec<Compute>) -> Self {
        self.takers = takers;
        self
    }

    /// The same with what the kubelet of the pod's node tells the kernel of its containers.
    #[must_use]
    pub fn with_kernel(mut self, pod: &Pod, node: &Node) -> Self {
        let Some(spec) = &pod.spec else { return self };
        let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
        let memory = capacity.and_then(|capacity| Quantity::try_from(capacity.get("memory")?).ok());
        let memory = memory.map_or(0, |memory| memory.value_ceil());
        let of = |container: &Container| ForKernel {
            container: container.name.clone(),
            class: qos_class(spec).as_str(),
            oom_score_adj: oom_score_adj(spec, container, memory),
            cpu_shares: cpu_shares(container),
            memory_limit: container
                .resources
                .as_ref()
                .and_then(|resources| Some(resources.limits.as_ref()?.get("memory")?.0.clone())),
        };
        self.kernel = spec.containers.iter().map(of).collect();
        self
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}: {}\n", self.subject, self.state.join("; "));
        if let Some(machine) = &self.machine {
            text.push_str(&format!(
                "machine {}: {} {} in {} at {}, {} so far\n",
                machine.instance,
                machine.capacity_type,
                machine.instance_type,
                machine.zone,
                machine.price.per_hour(),
                machine.cost.rounded(6)
            ));
            if machine.fee != Price::ZERO {
                text.push_str(&format!(
                    "EKS Auto Mode takes {} on top, {} so far\n",
                    machine.fee.per_hour(),
                    machine.fee_cost.rounded(6)
                ));
            }
        }
        for kernel in &self.kernel {
            text.push_str(&format!(
                "container {}: {}, oom_score_adj {}, cpu_shares {}, memory limit {}\n",
                kernel.container,
                kernel.class,
                kernel.oom_score_adj,
                kernel.cpu_shares,
                kernel.memory_limit.as_deref().unwrap_or("none")
            ));
        }
        if let Some(taker) = &self.fargate {
            text.push_str(&format!("{}\n", taker.text));
        }
        text.push_str(&takers::text(&self.takers));
        if let Some(chances) = &self.chances {
            text.push_str(&chances.text);
        }
        if self.reasons_text.is_empty() {
            text.push_str("nothing was decided about it since the lab started\n");
        } else {
            text.push_str(&self.reasons_text);
        }
        text
    }

    /// For scripts.
    pub fn to_json(&self) -> Value {
        json!({
            "object": self.subject,
            "state": self.state,
            "now": self.chances.as_ref().map(|chances| &chances.review),
            "fargate": self.fargate.as_ref().map(|taker| &taker.text),
            "takers": self.takers,
            "reasons": self.reasons,
            "kernel": self.kernel.iter().map(|kernel| json!({
                "container": kernel.container,
                "qosClass": kernel.class,
                "oomScoreAdj": kernel.oom_score_adj,
                "cpuShares": kernel.cpu_shares,
                "memoryLimit": kernel.memory_limit,
            })).collect::<Vec<_>>(),
            "machine": self.machine.as_ref().map(|machine| json!({
                "instance": machine.instance,
                "instanceType": machine.instance_type,
                "capacityType": machine.capacity_type,
                "zone": machine.zone,
                "usdPerHour": machine.price.to_string(),
                "seconds": machine.elapsed().as_secs(),
                "usd": machine.cost.to_string(),
                "autoModeUsdPerHour": machine.fee.to_string(),
                "autoModeUsd": machine.fee_cost.to_string(),
            })),
        })
    }
}

/// What the object is now, in a few words.
fn state(object: &Object) -> Vec<String> {
    let mut state = Vec::new();
    if let Some(pod) = object.typed::<Pod>() {
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        state.push(phase.unwrap_or_else(|| "Pending".to_owned()));
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) {
            state.push(format!("on node {node}"));
        }
        let refused = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
        state.extend(refused.and_then(|condition| condition.message.clone()));
    } else if let Some(node) = object.typed::<Node>() {
        let ready = node
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        state.push(if ready { "Ready" } else { "NotReady" }.to_owned());
    } else if let Some(claim) = object.typed::<NodeClaim>() {
        state.extend(claim.status.conditions.iter().map(|condition| {
            let (kind, status, reason) = (&condition.type_, &condition.status, &condition.reason);
            if reason.is_empty() || reason == kind {
                format!("{kind} {status}")
            } else {
                format!("{kind} {status} ({reason})")
            }
        }));
    } else if let Some(autoscaler) = object.typed::<VerticalPodAutoscaler>() {
        state.push(format!("mode {:?}", autoscaler.update_mode()));
        let recommendation = autoscaler.status.recommendation.iter();
        for one in recommendation.flat_map(|all| &all.container_recommendations) {
            let target: Vec<String> =
                one.target.iter().map(|(name, amount)| format!("{name} {amount}")).collect();
            state.push(format!("{} is to ask for {}", one.container_name, target.join(", ")));
        }
        let conditions = autoscaler.status.conditions.iter();
        state.extend(
            conditions
                .filter(|one| !one.message.is_empty())
                .map(|one| format!("{} {}: {}", one.type_, one.status, one.message)),
        );
    } else {
        state.push("it is there".to_owned());
    }
    if object.header().deleting.is_some() {
        state.push("being deleted".to_owned());
    }
    state
}

fn provider_id(object: &Object) -> Option<&str> {
    if let Some(node) = object.typed::<Node>() {
        return node.spec.as_ref()?.provider_id.as_deref();
    }
    object.typed::<NodeClaim>().map(|claim| claim.status.provider_id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_looked_at_by_the_profile_it_asks_for() {
        let pod = |scheduler: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "default", "uid": "p"},
                "spec": {
                    "schedulerName": scheduler, "nodeName": "",
                    "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]
                }
            }))
            .expect("a pod")
        };
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "tainted"},
            "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}
        }))
        .expect("a node");
        let mut view = View::new();
        view.load(std::sync::Arc::new(Object::from_typed(Box::new(node), 1)));

        let config = "apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: careless
  plugins: {multiPoint: {disabled: [{name: TaintToleration}]}}
";
        let profiles =
            wharf_scheduler::config::load(config, "config.yaml").expect("a configuration").profiles;
        let told = |scheduler: &str| {
            let review = pod_review(&pod(scheduler), &view, &profiles).expect("it waits");
            (review.review.feasible, review.foreign_to)
        };
        assert_eq!(told("default-scheduler"), (0, None));
        assert_eq!(told("careless"), (1, None));
        let names = "default-scheduler, careless".to_owned();
        assert_eq!(told("theirs"), (0, Some(names)));
    }
}
