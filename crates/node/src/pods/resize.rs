//! In-place resize (KEP-1287): the kubelet allots what a running pod asks for anew if its node has
//! room, gives it to the containers, and restarts those whose policy asks for it.
//!
//! Until then the status says why not: `PodResizePending` with the reason Deferred (there may be
//! room later) or Infeasible (never on this node), and `PodResizeInProgress` while it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Node, Pod, PodCondition, PodStatus, ResourceRequirements,
};
use wharf_model::pod::is_active;
use wharf_model::random::Random;
use wharf_model::resources::{Resources, assigned_pod_requests, pod_requests};
use wharf_model::time::Time;
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::run::{Run, Said, State};

/// The conditions that tell of a resize.
pub(super) const CONDITIONS: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];
/// How often a deferred resize is tried again, if no pod leaves the node before.
const RETRY: Duration = Duration::from_secs(180);

type ByContainer = BTreeMap<String, ResourceRequirements>;

/// A resize of a pod, from when it is asked for until the containers have it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resize {
    /// What has been set aside for each container.
    allotted: ByContainer,
    /// What each container has.
    actual: ByContainer,
    /// Why what is asked for is not allotted.
    pending: Option<(&'static str, String)>,
    /// When the containers get what is allotted.
    done_at: Option<Time>,
}

/// What a resize does next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Nothing is asked for that the containers do not have.
    Over,
    /// Look again then.
    At(Time),
    /// It waits for room that only news can make.
    Wait,
}

impl Resize {
    /// The resize that a pod's spec asks for, if what its containers were last told to have
    /// differs from it.
    pub(super) fn asked_for(pod: &Pod, before: Option<&PodStatus>) -> Option<Self> {
        let statuses = before?.container_statuses.as_deref()?;
        let differs = |status: &ContainerStatus| {
            let asked = container(pod, &status.name)?;
            let has = status.resources.as_ref()?;
            (asked.resources.clone().unwrap_or_default() != *has).then_some(())
        };
        if !statuses.iter().any(|status| differs(status).is_some()) {
            return None;
        }
        let has = |status: &ContainerStatus| {
            Some((status.name.clone(), status.resources.clone().unwrap_or_default()))
        };
        let actual: ByContainer = statuses.iter().filter_map(has).collect();
        Some(Self { allotted: actual.clone(), actual, pending: None, done_at: None })
    }

    /// Brings the resize up to `now`.
    pub(super) fn advance(
        &mut self,
        pod: &Pod,
        runs: &mut [Run],
        room: &dyn Fn() -> Result<(), (&'static str, String)>,
        draw: u64,
        now: Time,
        said: &mut Vec<Said>,
    ) -> Next {
        let asked: ByContainer = self
            .actual
            .keys()
            .filter_map(|name| Some((name.clone(), container(pod, name)?.resources.clone()?)))
            .collect();
        let differs =
            |list: &ByContainer| asked.iter().any(|(name, own)| list.get(name) != Some(own));
        self.pending = None;
        if differs(&self.allotted) {
            match room() {
                Ok(()) => {
                    self.allotted.extend(asked.clone());
                    let takes = Random::new(draw, 0x2e).between(500, 1_500);
                    self.done_at = Some(now + Duration::from_millis(takes));
                }
                Err(why) => self.pending = Some(why),
            }
        }
        if let Some(at) = self.done_at {
            if now < at {
                return Next::At(at);
            }
            self.give(pod, runs, now, said);
            self.done_at = None;
        }
        match &self.pending {
            Some(("Deferred", _)) => Next::At(now + RETRY),
            Some(_) => Next::Wait,
            None => Next::Over,
        }
    }

    /// Gives the containers what is allotted, and restarts those whose policy asks for it.
    fn give(&mut self, pod: &Pod, runs: &mut [Run], now: Time, said: &mut Vec<Said>) {
        for run in runs.iter_mut() {
            let (had, has) = (self.actual.get(&run.name), self.allotted.get(&run.name));
            let restarts = container(pod, &run.name).is_some_and(|container| {
                container.resize_policy.iter().flatten().any(|policy| {
                    let name = policy.resource_name.as_str();
                    policy.restart_policy == "RestartContainer" && of(had, name) != of(has, name)
                })
            });
            if restarts && matches!(run.state, State::Running { .. }) {
                let message = format!("Container {} resize requires restart", run.name);
                said.push(run.say(EventType::Normal, "Killing", message));
                run.restart_at(now);
            }
        }
        self.actual.clone_from(&self.allotted);
    }

    /// Whether what is asked for is not allotted.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// What the status says a container has, and what is set aside for it.
    pub(super) fn resources(
        &self,
        container: &str,
    ) -> (Option<&ResourceRequirements>, Option<&ResourceRequirements>) {
        (self.actual.get(container), self.allotted.get(container))
    }

    /// The conditions that tell of it. Those that stay as they were keep their time.
    pub(super) fn conditions(
        &self,
        pod: &Pod,
        before: Option<&PodStatus>,
        now: Time,
    ) -> Vec<PodCondition> {
        let condition = |type_: &str, reason: Option<&str>, message: Option<String>| {
            let known = before.and_then(|before| {
                before.conditions.iter().flatten().find(|condition| condition.type_ == type_)
            });
            PodCondition {
                type_: type_.to_owned(),
                status: "True".to_owned(),
                reason: reason.map(str::to_owned),
                message,
                last_transition_time: known
                    .and_then(|known| known.last_transition_time.clone())
                    .or_else(|| Some(now.to_meta())),
                observed_generation: pod.metadata.generation,
                last_probe_time: None,
            }
        };
        let mut conditions = Vec::new();
        if let Some((reason, message)) = &self.pending {
            conditions.push(condition(CONDITIONS[0], Some(reason), Some(message.clone())));
        }
        if self.done_at.is_some() {
            conditions.push(condition(CONDITIONS[1], None, None));
        }
        conditions
    }
}

/// Whether a node has room for what a pod on it asks for now; or the reason and message of the
/// condition `PodResizePending`.
///
/// # Errors
/// Infeasible if the node could not hold it even alone, Deferred if others take the room.
pub(super) fn room(pod: &Pod, node: &str, view: &View) -> Result<(), (&'static str, String)> {
    let allocatable = view
        .get_cluster::<Node>(node)
        .and_then(|node| node.status.as_ref()?.allocatable.as_ref())
        .map(Resources::from_map)
        .unwrap_or_default();
    let asked = pod.spec.as_ref().map(pod_requests).unwrap_or_default();
    let lacks = |used: &Resources| {
        // Upstream names memory first where both are missing.
        ["memory", "cpu"].into_iter().find(|name| {
            let asked = asked.get(name);
            asked > 0 && asked.saturating_add(used.get(name)) > allocatable.get(name)
        })
    };
    if let Some(name) = lacks(&Resources::default()) {
        let (asked, capacity) = (asked.get(name), allocatable.get(name));
        let message = format!(
            "Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"
        );
        return Err(("Infeasible", message));
    }
    let mut used = Resources::default();
    for other in view.pods_on(node).filter_map(|object| object.typed::<Pod>()) {
        if is_active(other) && other.metadata.uid != pod.metadata.uid {
            used.add(&assigned_pod_requests(other));
        }
    }
    if let Some(name) = lacks(&used) {
        let (asked, used, capacity) = (asked.get(name), used.get(name), allocatable.get(name));
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
        );
        return Err(("Deferred", message));
    }
    Ok(())
}

fn container<'p>(pod: &'p Pod, name: &str) -> Option<&'p Container> {
    pod.spec.as_ref()?.containers.iter().find(|container| container.name == name)
}

/// Request and limit of one resource.
fn of<'r>(
    resources: Option<&'r ResourceRequirements>,
    name: &str,
) -> (Option<&'r str>, Option<&'r str>) {
    let amount = |list: Option<&'r BTreeMap<String, _>>| {
        list.and_then(|list| list.get(name))
            .map(|q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| q.0.as_str())
    };
    (
        amount(resources.and_then(|resources| resources.requests.as_ref())),
        amount(resources.and_then(|resources| resources.limits.as_ref())),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wharf_model::object::ObjectKey;

    use super::super::PodAgent;
    use super::*;
    use crate::harness::{World, instance};

    const NODE: &str = "ip-192-168-0-5.ec2.internal";

    /// A node with 2 cores and 4Gi, and pods `a`, `b`, … that ask for `requests` each.
    fn world(requests: &[Value], policy: &Value) -> World<PodAgent> {
        let mut world = World::new(PodAgent::default());
        world.put(Box::new(instance("i-1", "192.168.0.5")));
        let node: Node = serde_json::from_value(json!({"metadata": {"name": NODE},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}}))
        .expect("a node");
        world.put(Box::new(node));
        world.run_for(Duration::from_secs(60));
        for (index, requests) in requests.iter().enumerate() {
            let name = ["a", "b", "c"][index];
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "default", "uid": name},
                "spec": {"nodeName": NODE, "containers": [{"name": "c",
                    "image": "public.ecr.aws/eks-distro/kubernetes/pause:3.7",
                    "resources": {"requests": requests}, "resizePolicy": policy}]},
                "status": {"phase": "Pending"}}))
            .expect("a pod");
            world.put(Box::new(pod));
        }
        world.run_for(Duration::from_secs(30));
        world
    }

    fn ask(world: &mut World<PodAgent>, name: &str, requests: &Value) {
        world.edit::<Pod>(&ObjectKey::namespaced("default", name), |pod| {
            let resources = serde_json::from_value(json!({"requests": requests}));
            let spec = pod.spec.as_mut().expect("a spec");
            spec.containers[0].resources = Some(resources.expect("resources"));
        });
        world.run_for(Duration::from_millis(10));
    }

    /// The conditions that tell of a resize, and what the container has and is allotted of cpu.
    fn told(world: &World<PodAgent>, name: &str) -> (Vec<String>, String, String, i32) {
        let key = ObjectKey::namespaced("default", name);
        let status = world.view.get::<Pod>(&key).and_then(|pod| pod.status.clone());
        let status = status.expect("a status");
        let conditions = status.conditions.unwrap_or_default();
        let told = conditions.iter().filter(|c| CONDITIONS.contains(&c.type_.as_str()));
        let told = told.map(|c| {
            let (reason, message) = (c.reason.as_deref(), c.message.as_deref());
            format!("{} {} {}", c.type_, reason.unwrap_or("-"), message.unwrap_or("-"))
        });
        let container = status.container_statuses.unwrap_or_default().remove(0);
        let requests = container.resources.and_then(|r| r.requests).unwrap_or_default();
        let allotted = container.allocated_resources.unwrap_or_default();
        let cpu = |list: BTreeMap<
            String,
            k8s_openapi::apimachinery::pkg::api::resource::Quantity,
        >| { list.get("cpu").map(|cpu| cpu.0.clone()).unwrap_or_default() };
        (told.collect(), cpu(requests), cpu(allotted), container.restart_count)
    }

    fn cpu(amount: &str) -> Value {
        json!({"cpu": amount})
    }

    #[test]
    fn a_resize_with_room_is_done_in_a_moment() {
        let mut world = world(&[cpu("500m")], &Value::Null);
        assert_eq!(told(&world, "a"), (vec![], "500m".into(), "500m".into(), 0));
        ask(&mut world, "a", &cpu("1500m"));
        let under_way = vec!["PodResizeInProgress - -".to_owned()];
        assert_eq!(told(&world, "a"), (under_way, "500m".into(), "1500m".into(), 0));
        world.run_for(Duration::from_secs(2));
        assert_eq!(told(&world, "a"), (vec![], "1500m".into(), "1500m".into(), 0));
    }

    #[test]
    fn a_resize_without_room_waits_until_a_pod_leaves() {
        let mut world = world(&[cpu("500m"), cpu("1")], &Value::Null);
        ask(&mut world, "a", &cpu("1500m"));
        let text = "PodResizePending Deferred Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000";
        assert_eq!(told(&world, "a"), (vec![text.to_owned()], "500m".into(), "500m".into(), 0));
        world.remove::<Pod>(&ObjectKey::namespaced("default", "b"));
        world.run_for(Duration::from_secs(2));
        assert_eq!(told(&world, "a"), (vec![], "1500m".into(), "1500m".into(), 0));
    }

    #[test]
    fn what_no_pod_could_have_there_is_infeasible_until_less_is_asked_for() {
        let mut world = world(&[cpu("500m")], &Value::Null);
        ask(&mut world, "a", &cpu("3"));
        let text = "PodResizePending Infeasible Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000";
        assert_eq!(told(&world, "a"), (vec![text.to_owned()], "500m".into(), "500m".into(), 0));
        ask(&mut world, "a", &cpu("500m"));
        assert_eq!(told(&world, "a"), (vec![], "500m".into(), "500m".into(), 0));
    }

    #[test]
    fn a_policy_may_ask_for_a_restart() {
        let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"},
            {"resourceName": "memory", "restartPolicy": "NotRequired"}]);
        let mut world = world(&[json!({"cpu": "500m", "memory": "1Gi"})], &policy);
        ask(&mut world, "a", &json!({"cpu": "500m", "memory": "2Gi"}));
        world.run_for(Duration::from_secs(5));
        assert_eq!(told(&world, "a").3, 0, "memory does not ask for one");
        ask(&mut world, "a", &json!({"cpu": "1", "memory": "2Gi"}));
        world.run_for(Duration::from_secs(5));
        assert_eq!(told(&world, "a"), (vec![], "1".into(), "1".into(), 1));
        assert!(world.messages().contains(&"Container c resize requires restart"));
    }

    #[test]
    fn a_kubelets_restart_forgets_no_resize() {
        let mut world = world(&[cpu("500m"), cpu("1")], &Value::Null);
        ask(&mut world, "a", &cpu("1500m"));
        world.restart(PodAgent::default());
        world.run_for(Duration::from_secs(1));
        let (conditions, has, allotted, _) = told(&world, "a");
        assert_eq!((conditions.len(), has.as_str(), allotted.as_str()), (1, "500m", "500m"));
    }
}
