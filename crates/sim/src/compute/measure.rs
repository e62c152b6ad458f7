//! What is read off a rehearsal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ContainerState, Event, Node, Pod};
use wharf_fargate::size::Size;
use wharf_model::instance::Instance;
use wharf_model::kinds::Kind;
use wharf_model::money::{Money, Price};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::resources::{CPU, MEMORY, Resources, pod_requests};
use wharf_model::time::Time;
use wharf_ports::view::View;

use super::of_month;
use crate::ledger::Ledger;
use crate::rehearsal::{Rehearsal, RehearsalError};

/// How often the pods are looked at.
const EVERY: Duration = Duration::from_secs(60);
/// Whose word counts, of all that say why a pod cannot run: the one that could still help it first.
const WORDS: [&str; 3] = ["fargate-scheduler", "karpenter", "eks-auto-mode/compute"];

/// Alike machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machines {
    /// How many.
    pub count: usize,
    /// EC2's instance type, or the size of a micro-VM.
    pub instance_type: String,
    /// `on-demand` or `spot`.
    pub capacity_type: String,
    /// What one costs.
    pub price: Price,
}

/// How long pods waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// Half of them no longer than this.
    pub median: Duration,
    /// All but one of twenty no longer than this.
    pub p95: Duration,
    /// The longest.
    pub max: Duration,
}

/// Pods of one workload that did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `deployment/web`, in a namespace.
    pub workload: ObjectKey,
    /// The kind that makes them, as kubectl names it.
    pub kind: String,
    /// How many; 0 for a DaemonSet that no node takes.
    pub pods: usize,
    /// Why, in the words of who refused them.
    pub reason: String,
}

/// Parts of a whole, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of cpu.
    pub cpu: u32,
    /// Of memory.
    pub memory: u32,
}

/// All that is read off.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub machines_per_month: Money,
    pub fees_per_month: Money,
    pub machines: Vec<Machines>,
    /// The most machines there were at a time.
    pub machines_max: usize,
    pub start: Option<Delays>,
    pub ran: usize,
    pub pods: usize,
    pub refused: Vec<Refused>,
    pub used: Option<Share>,
}

impl Measured {
    pub(super) fn refused_pods(&self) -> usize {
        self.refused.iter().map(|refused| refused.pods).sum()
    }
}

/// Runs from the moment at which the workload comes to the end of what is looked at, `from` which its
/// cost counts.
pub(super) fn measure(
    rehearsal: &mut Rehearsal,
    start: Time,
    from: Time,
    until: Time,
) -> Result<Measured, RehearsalError> {
    let mut watch = Watch::default();
    let (mut now, mut before) = (start, None);
    while now < until {
        if now == from {
            before = Some(rehearsal.ledger());
        }
        // Not past the moment from which the cost counts.
        let next = now + EVERY;
        now = if now < from { next.min(from) } else { next.min(until) };
        rehearsal.run_to(now)?;
        watch.look(rehearsal.view());
    }
    let (ledger, before) = (rehearsal.ledger(), before.unwrap_or_default());
    let span = until.since(from);
    let view = rehearsal.view();
    let waiting: Vec<&Pod> = pods(view).filter(|pod| watch.waits(pod)).collect();
    let mut refused = group(&waiting, view, &rehearsal.events());
    refused.extend(daemon_sets_without_nodes(view));
    Ok(Measured {
        machines_per_month: of_month(
            (ledger.total() - ledger.fees()) - (before.total() - before.fees()),
            span,
        ),
        fees_per_month: of_month(ledger.fees() - before.fees(), span),
        machines: alike(&ledger),
        machines_max: watch.machines_max,
        start: delays(watch.delays.values().copied().collect()),
        ran: watch.delays.len(),
        pods: watch.delays.len() + waiting.len(),
        refused,
        used: used(view),
    })
}

/// What was seen of the pods so far.
#[derive(Default)]
struct Watch {
    /// By uid, from its creation until its containers ran.
    delays: BTreeMap<String, Duration>,
    machines_max: usize,
}

impl Watch {
    fn look(&mut self, view: &View) {
        for pod in pods(view) {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if let Some(delay) = delay(pod) {
                self.delays.entry(uid).or_insert(delay);
            }
        }
        self.machines_max = self.machines_max.max(view.count(Kind::of::<Node>()));
    }

    fn waits(&self, pod: &Pod) -> bool {
        !pod.metadata.uid.as_ref().is_some_and(|uid| self.delays.contains_key(uid))
            && pod.metadata.deletion_timestamp.is_none()
    }
}

/// The workload's pods.
fn pods(view: &View) -> impl Iterator<Item = &Pod> {
    view.list::<Pod>().filter(|pod| pod.metadata.namespace.as_deref() != Some("kube-system"))
}

/// From a pod's creation until the last of its containers ran for the first time.
fn delay(pod: &Pod) -> Option<Duration> {
    let created = Time::from(pod.metadata.creation_timestamp.as_ref()?);
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let containers = pod.spec.as_ref()?.containers.len();
    let mut started = Vec::with_capacity(containers);
    for status in statuses {
        let of = |state: &ContainerState| {
            let running = state.running.as_ref().and_then(|running| running.started_at.as_ref());
            let ended = state.terminated.as_ref().and_then(|ended| ended.started_at.as_ref());
            running.or(ended).map(Time::from)
        };
        let states = [status.last_state.as_ref(), status.state.as_ref()];
        started.push(states.into_iter().flatten().find_map(of)?);
    }
    let last = (started.len() == containers).then(|| started.into_iter().max()).flatten()?;
    Some(last.since(created))
}

fn delays(mut all: Vec<Duration>) -> Option<Delays> {
    all.sort_unstable();
    // The nearest rank: the smallest that so many are not above.
    let at =
        |percent: usize| all.get((all.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Some(Delays { median: at(50)?, p95: at(95)?, max: *all.last()? })
}

/// The machines that run, alike ones together, the most first.
fn alike(ledger: &Ledger) -> Vec<Machines> {
    let mut counts: BTreeMap<(&str, &str, i64), usize> = BTreeMap::new();
    for line in ledger.lines.iter().filter(|line| line.running) {
        let price = line.price.nano_dollars_per_hour();
        *counts.entry((&line.instance_type, &line.capacity_type, price)).or_default() += 1;
    }
    let machines =
        counts.into_iter().map(|((instance_type, capacity_type, price), count)| Machines {
            count,
            instance_type: instance_type.to_owned(),
            capacity_type: capacity_type.to_owned(),
            price: Price::from_nano_dollars_per_hour(price),
        });
    let mut machines: Vec<Machines> = machines.collect();
    machines.sort_by_key(|machines| std::cmp::Reverse(machines.count));
    machines
}

/// Pods that wait, by who makes them and why.
fn group(waiting: &[&Pod], view: &View, events: &[Event]) -> Vec<Refused> {
    let mut said: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for event in events {
        let (Some(uid), Some(message)) = (event.involved_object.uid.as_deref(), &event.message)
        else {
            continue;
        };
        if event.reason.as_deref() != Some("FailedScheduling") {
            continue;
        }
        let by = event.source.as_ref().and_then(|source| source.component.as_deref());
        let by = by.or(event.reporting_component.as_deref()).unwrap_or_default();
        let rank = WORDS.iter().position(|word| *word == by).unwrap_or(WORDS.len());
        // Of one speaker's words the last, since the events come in the order of their names.
        if said.get(uid).is_none_or(|(before, _)| rank <= *before) {
            said.insert(uid, (rank, message));
        }
    }
    let mut groups: BTreeMap<(ObjectKey, String, String), usize> = BTreeMap::new();
    for pod in waiting {
        let (kind, key) = maker(pod, view);
        let word = pod.metadata.uid.as_deref().and_then(|uid| said.get(uid)).map(|(_, word)| *word);
        let condition = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
        let told = condition.and_then(|condition| condition.message.as_deref());
        let reason = word.or(told).unwrap_or("it has not started yet");
        *groups.entry((key, kind, reason.to_owned())).or_default() += 1;
    }
    groups
        .into_iter()
        .map(|((workload, kind, reason), pods)| Refused { workload, kind, pods, reason })
        .collect()
}

/// Who makes a pod: its controller, or for a ReplicaSet's the Deployment.
fn maker(pod: &Pod, view: &View) -> (String, ObjectKey) {
    let key = ObjectKey::of(&pod.metadata);
    let owner =
        pod.metadata.owner_references.iter().flatten().find(|one| one.controller == Some(true));
    let Some(owner) = owner else { return ("pod".to_owned(), key) };
    let of = ObjectKey::namespaced(&key.namespace, &owner.name);
    let above =
        view.get::<ReplicaSet>(&of).filter(|_| owner.kind == "ReplicaSet").and_then(|set| {
            set.metadata.owner_references.iter().flatten().find(|one| one.controller == Some(true))
        });
    match above {
        Some(above) => {
            (above.kind.to_lowercase(), ObjectKey::namespaced(&key.namespace, &above.name))
        }
        None => (owner.kind.to_lowercase(), of),
    }
}

/// DaemonSets of which no node takes a pod.
fn daemon_sets_without_nodes(view: &View) -> Vec<Refused> {
    let Some(kind) = Kind::by_kind("apps", "DaemonSet") else { return Vec::new() };
    let nowhere = |set: &&std::sync::Arc<Object>| {
        let status: serde_json::Value = serde_json::from_slice(set.json()).unwrap_or_default();
        set.key().namespace != "kube-system" && status["status"]["desiredNumberScheduled"] == 0
    };
    let refused = |set: &std::sync::Arc<Object>| Refused {
        workload: set.key().clone(),
        kind: kind.singular.to_owned(),
        pods: 0,
        reason: "no node takes its pods".to_owned(),
    };
    view.objects(kind).filter(nowhere).map(refused).collect()
}

/// What the pods ask for of what is paid for.
fn used(view: &View) -> Option<Share> {
    let mut asked = Resources::default();
    for pod in view.list::<Pod>() {
        let ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let spec = pod.spec.as_ref().filter(|spec| spec.node_name.is_some());
        if let Some(spec) = spec.filter(|_| !matches!(ended, Some("Succeeded" | "Failed"))) {
            asked.add(&pod_requests(spec));
        }
    }
    let (mut cpu, mut memory) = (0_i64, 0_i64);
    let micro_vms: BTreeSet<&str> = view
        .list::<Instance>()
        .filter(|instance| instance.spec.micro_vm.is_some())
        .map(|instance| instance.spec.private_dns_name.as_str())
        .collect();
    for node in view.list::<Node>() {
        if micro_vms.contains(node.metadata.name.as_deref().unwrap_or_default()) {
            continue;
        }
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let allocatable = allocatable.map(Resources::from_map).unwrap_or_default();
        cpu += allocatable.get(CPU);
        memory += allocatable.get(MEMORY);
    }
    // What a micro-VM's node offers is more than what is paid for.
    let running = view.list::<Instance>().filter(|instance| {
        instance.status.shutting_down_at_nanos.is_none()
            && instance.status.terminated_at_nanos.is_none()
    });
    for size in running.filter_map(|one| one.spec.micro_vm.as_ref()?.size.parse::<Size>().ok()) {
        cpu += i64::from(size.cpu_milli);
        memory += i64::from(size.memory_mib) << 20;
    }
    let share = |part: i64, whole: i64| {
        u32::try_from(i128::from(part) * 1_000 / i128::from(whole)).unwrap_or(u32::MAX)
    };
    (cpu > 0 && memory > 0).then(|| Share {
        cpu: share(asked.get(CPU), cpu),
        memory: share(asked.get(MEMORY), memory),
    })
}
