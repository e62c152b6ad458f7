//! The controller of managed node groups: a step looks at one group, its machines and their nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_cloud::ec2::TOKEN_TAG;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::Kind;
use wharf_model::nodegroup::{FINALIZER, Issue, Nodegroup};
use wharf_model::object::ObjectKey;
use wharf_model::taints;
use wharf_model::time::Time;
use wharf_ports::cloud::{CloudEvent, CloudRequest, LaunchError};
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::event::{EventRecord, EventType, Regarding};
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;

use super::asg::{Member, Plan, plan};
use super::drain::{self, Drain};
use super::launch::{self, Offer};
use super::repair;
use super::status::{self, Account, Facts};
use super::{NodegroupSettings, group_of, group_of_node};

/// The controller's name.
pub const NAME: &str = "nodegroups";
/// Who says what Events say.
const COMPONENT: &str = "autoscaling";
/// A launch that is not answered after so long is asked for again; its token keeps it one.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long a group waits after a launch has failed.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

/// The controller.
pub(super) struct Nodegroups {
    settings: NodegroupSettings,
    /// The machines of each group, by the group's own name.
    machines: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// Launches under way, by token.
    asked: BTreeMap<String, Asked>,
    /// The last failure of each group, until launches succeed again.
    failed: BTreeMap<ObjectKey, (Time, LaunchError)>,
    /// What is to be told of groups.
    news: BTreeMap<ObjectKey, Vec<News>>,
}

/// A launch under way.
struct Asked {
    group: ObjectKey,
    zones: Vec<String>,
    at: Time,
}

/// Something to tell of a group.
struct News {
    kind: EventType,
    reason: &'static str,
    message: String,
}

impl Nodegroups {
    pub(super) fn new(settings: NodegroupSettings) -> Self {
        let (machines, asked, failed, news) = Default::default();
        Self { settings, machines, asked, failed, news }
    }

    fn machines_of<'v>(&self, group: &str, view: &'v View) -> Vec<&'v Instance> {
        let keys = self.machines.get(group).into_iter().flatten();
        keys.filter_map(|key| view.get::<Instance>(key)).collect()
    }

    fn reconcile(&mut self, key: &ObjectKey, group: &Nodegroup, context: &Context<'_>) -> Step {
        let (now, view) = (context.now, context.view);
        let all = self.machines_of(&group.spec.name, view);
        // A launch whose machine is there is under way no more.
        let is_seen = |token: &str| {
            all.iter().any(|machine| machine.spec.tags.get(TOKEN_TAG).is_some_and(|t| t == token))
        };
        self.asked.retain(|token, asked| asked.group != *key || !is_seen(token));
        let up: Vec<&Instance> = all.iter().copied().filter(|machine| is_up(machine)).collect();
        let (going, staying): (Vec<&Instance>, Vec<&Instance>) =
            up.into_iter().partition(|machine| drain::since(machine).is_some());
        let members: Vec<Member> = staying.iter().map(|machine| member(machine)).collect();
        let offer = launch::offer(group, &self.settings.catalog);
        let zones = launch::zones(group, &self.settings.catalog, view);
        let is_wanted = !group.is_deleting() && offer.is_ok();
        let desired =
            if is_wanted { usize::try_from(group.sizes().desired).unwrap_or(0) } else { 0 };
        let under_way: Vec<String> = self
            .asked
            .values()
            .filter(|asked| asked.group == *key)
            .filter_map(|asked| asked.zones.first().cloned())
            .collect();
        let plan = plan(&members, &under_way, desired, &zones);
        let mut step = Step { independent: true, ..Step::done() };
        if let Ok(offer) = &offer {
            self.launch(key, group, offer, &plan, context, &mut step);
            self.ask_again(key, group, offer, now, &mut step);
        }
        self.retire(key, group, &staying, &plan, now, &mut step);
        repair::repair(key, group, &staying, &plan.retired, view, now, &mut step);
        for machine in &going {
            self.empty(machine, view, now, &mut step);
        }
        if !group.is_deleting() {
            for machine in &staying {
                step.writes.extend(relabel(group, machine, &self.settings.cluster_name, view));
            }
        }
        let is_left = |machine: &&Instance| machine.status.state != InstanceState::Terminated;
        let facts = Facts {
            machines: staying.len(),
            ready: staying.iter().filter(|machine| is_ready(machine, view)).count(),
            moving: all.iter().filter(|m| is_left(m)).count() - staying.len() + under_way.len(),
            desired: usize::try_from(group.sizes().desired).unwrap_or(0),
            issue: self.issue(key, group, &offer, &zones),
            is_final: offer.is_err() || zones.is_empty(),
        };
        let is_gone = group.is_deleting() && facts.machines + facts.moving == 0;
        self.tell(key, group, &facts, is_gone, now, &mut step);
        step
    }

    /// Asks for the machines that a plan wants, unless the cloud has just refused some.
    fn launch(
        &mut self,
        key: &ObjectKey,
        group: &Nodegroup,
        offer: &Offer,
        plan: &Plan,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let now = context.now;
        if plan.launches.is_empty() {
            return;
        }
        if let Some((at, _)) = self.failed.get(key) {
            let until = *at + AFTER_FAILURE;
            if now < until {
                look_again(step, until.since(now));
                return;
            }
        }
        let uid = group.metadata.uid.as_deref().unwrap_or_default();
        for (index, zones) in plan.launches.iter().enumerate() {
            // Never one that was used before: a token is a machine.
            let token = format!("{uid}/{}/{index}", now.as_nanos());
            self.ask(&token, group, offer, zones, step);
            let asked = Asked { group: key.clone(), zones: zones.clone(), at: now };
            self.asked.insert(token, asked);
        }
        look_again(step, ASK_AGAIN);
        let count = plan.launches.len();
        let first = plan.launches.iter().filter_map(|order| order.first());
        let mut per_zone: BTreeMap<&str, usize> = BTreeMap::new();
        first.for_each(|zone| *per_zone.entry(zone).or_default() += 1);
        let zones: Vec<String> =
            per_zone.iter().map(|(zone, n)| format!("{n} in {zone}")).collect();
        let sizes = group.sizes();
        step.reasons.push(Reason {
            kind: Kind::of::<Nodegroup>(),
            key: key.clone(),
            by: NAME,
            decision: format!("launches {count} machine{}", if count == 1 { "" } else { "s" }),
            because: vec![
                Because::new("desiredSize", format!("{} are desired", sizes.desired)),
                Because::new("zones", format!("the emptiest first: {}", zones.join(", "))),
            ],
        });
    }

    fn ask(
        &self,
        token: &str,
        group: &Nodegroup,
        offer: &Offer,
        zones: &[String],
        step: &mut Step,
    ) {
        let cluster = &self.settings.cluster_name;
        let request = launch::request(group, offer, zones, token.to_owned(), cluster);
        step.cloud.push(CloudRequest::Launch(Box::new(request)));
    }

    /// Repeats launches that the cloud has not answered.
    fn ask_again(
        &mut self,
        key: &ObjectKey,
        group: &Nodegroup,
        offer: &Offer,
        now: Time,
        step: &mut Step,
    ) {
        let mut due = Vec::new();
        for (token, asked) in self.asked.iter_mut().filter(|(_, asked)| asked.group == *key) {
            if asked.at + ASK_AGAIN <= now {
                asked.at = now;
                due.push((token.clone(), asked.zones.clone()));
            }
            look_again(step, (asked.at + ASK_AGAIN).since(now));
        }
        for (token, zones) in due {
            self.ask(&token, group, offer, &zones, step);
        }
    }

    /// Marks the machines that a plan gives up.
    fn retire(
        &self,
        key: &ObjectKey,
        group: &Nodegroup,
        staying: &[&Instance],
        plan: &Plan,
        now: Time,
        step: &mut Step,
    ) {
        let why = if group.is_deleting() { "the group is deleted" } else { "a lower desired size" };
        for machine in staying {
            let id = id_of(machine);
            if plan.retired.contains(&id) {
                step.write(drain::mark(machine, why, now));
                step.reasons.push(Reason {
                    kind: Kind::of::<Nodegroup>(),
                    key: key.clone(),
                    by: NAME,
                    decision: format!("gives up {id} ({})", machine.spec.private_dns_name),
                    because: vec![
                        Because::new("size", why),
                        Because::new(
                            "termination policy",
                            format!("the oldest of the fullest zone, {}", machine.spec.zone),
                        ),
                    ],
                });
            }
        }
    }

    /// Does what is next for a machine that is given up.
    fn empty(&self, machine: &Instance, view: &View, now: Time, step: &mut Step) {
        let Some(since) = drain::since(machine) else { return };
        match drain::drain(machine, since, view, now) {
            Drain::Waiting(writes) => {
                step.writes.extend(writes);
                look_again(step, drain::AGAIN.min((since + drain::LIMIT).since(now)));
            }
            Drain::Over => {
                step.cloud.push(CloudRequest::Terminate { instance_id: id_of(machine) });
                look_again(step, ASK_AGAIN);
            }
        }
    }

    /// What is wrong with a group, in EKS' words.
    fn issue(
        &self,
        key: &ObjectKey,
        group: &Nodegroup,
        offer: &Result<Offer, String>,
        zones: &[String],
    ) -> Option<Issue> {
        let issue = |code: &str, message: String| {
            let resource_ids = vec![group.auto_scaling_group()];
            Some(Issue { code: code.to_owned(), message, resource_ids })
        };
        if let Err(message) = offer {
            return issue("Ec2InstanceTypeDoesNotExist", message.clone());
        }
        if zones.is_empty() {
            let message = "One or more subnets of the node group could not be found".to_owned();
            return issue("Ec2SubnetNotFound", message);
        }
        match &self.failed.get(key)?.1 {
            LaunchError::Api { code, message } if code.starts_with("InsufficientFreeAddresses") => {
                issue("InsufficientFreeAddresses", message.clone())
            }
            LaunchError::Api { message, .. }
            | LaunchError::InsufficientCapacity { message, .. } => {
                issue("AsgInstanceLaunchFailures", message.clone())
            }
        }
    }

    /// Writes the status, says the news, and lets a group go that has nothing left.
    fn tell(
        &mut self,
        key: &ObjectKey,
        group: &Nodegroup,
        facts: &Facts,
        is_gone: bool,
        now: Time,
        step: &mut Step,
    ) {
        let mut draft = group.clone();
        let finalizers = draft.metadata.finalizers.get_or_insert_default();
        if is_gone {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        } else if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) && !group.is_deleting()
        {
            finalizers.push(FINALIZER.to_owned());
        }
        let account = Account {
            id: &self.settings.account,
            region: self.settings.catalog.region().name,
            cluster: &self.settings.cluster_name,
        };
        if let Some(at) = status::write(&mut draft, facts, &account, now) {
            look_again(step, at.since(now));
        }
        for News { kind, reason, message } in self.news.remove(key).unwrap_or_default() {
            step.write(event(group, kind, reason, message));
        }
        if draft != *group {
            let part = if is_gone { Part::Main } else { Part::All };
            step.write(Write::Update { object: Box::new(draft), part });
        }
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.asked.retain(|_, asked| asked.group != *key);
        self.failed.remove(key);
        self.news.remove(key);
    }
}

impl Controller for Nodegroups {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[
            ("eks.services.k8s.aws", "nodegroups"),
            ("sim.wharf.dev", "instances"),
            ("sim.wharf.dev", "subnets"),
            ("", "nodes"),
            ("", "pods"),
        ])
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        if kind == Kind::of::<Nodegroup>() {
            queue.now(WorkKey::object(kind, change.key()));
        } else if kind == Kind::of::<Instance>() {
            let Some(group) = change.object().typed::<Instance>().and_then(group_of) else {
                return;
            };
            let machines = self.machines.entry(group.to_owned()).or_default();
            if change.new.is_some() {
                machines.insert(change.key().clone());
            } else {
                machines.remove(change.key());
            }
            enqueue(group, view, queue);
        } else if kind == Kind::of::<Node>() {
            let of_group = |node: &Node| Some(group_of_node(node)?.to_owned());
            // Heartbeats change nothing that counts here.
            let before = change.old.as_ref().and_then(|old| old.typed::<Node>());
            let node = change.new.as_ref().and_then(|new| new.typed::<Node>());
            let counts = |node: Option<&Node>| {
                node.map(|node| (node_ready(node), node.metadata.labels.clone(), repair::due(node)))
            };
            if counts(before) != counts(node)
                && let Some(group) = node.or(before).and_then(of_group)
            {
                enqueue(&group, view, queue);
            }
        } else if kind == Kind::of::<Pod>() && change.new.is_none() {
            // The last pod of a node that is being emptied.
            let pod = change.object().typed::<Pod>();
            let name = pod.and_then(|pod| pod.spec.as_ref()?.node_name.as_deref());
            let node = name.and_then(|name| view.get_cluster::<Node>(name));
            let cordoned = node.filter(|node| {
                node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
            });
            if let Some(group) = cordoned.and_then(group_of_node) {
                enqueue(group, view, queue);
            }
        }
    }

    fn observe_cloud(&mut self, event: &CloudEvent, view: &View, queue: &mut Enqueue) {
        let (token, news, failure) = match event {
            CloudEvent::Launched(launched) => {
                let message = format!("Launching a new EC2 instance: {}", launched.instance_id);
                (&launched.token, (EventType::Normal, "Launched", message), None)
            }
            CloudEvent::LaunchFailed { token, error, .. } => {
                let message = format!("Launching a new EC2 instance. Status Reason: {error}");
                (token, (EventType::Warning, "LaunchFailed", message), Some(error.clone()))
            }
            CloudEvent::Terminated { .. } | CloudEvent::MicroVmFailed { .. } => return,
        };
        // The machine may be seen, and its launch forgotten, before the answer comes.
        let uid = token.split('/').next();
        let group = view.list::<Nodegroup>().find(|group| group.metadata.uid.as_deref() == uid);
        let Some(key) = group.map(|group| ObjectKey::of(&group.metadata)) else { return };
        match (failure, self.asked.remove(token)) {
            (Some(error), Some(asked)) => {
                self.failed.insert(key.clone(), (asked.at, error));
            }
            (Some(_), None) => return,
            (None, asked) => {
                self.asked.extend(asked.map(|asked| (token.clone(), asked)));
                self.failed.remove(&key);
            }
        }
        let (kind, reason, message) = news;
        self.news.entry(key.clone()).or_default().push(News { kind, reason, message });
        queue.now(WorkKey::object(Kind::of::<Nodegroup>(), &key));
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        match context.view.get::<Nodegroup>(&key.key) {
            Some(group) => self.reconcile(&key.key, group, context),
            None => {
                self.forget(&key.key);
                Step::done()
            }
        }
    }

    fn refused(&mut self, _key: &WorkKey, write: &Write, _error: &ApiError) -> OnError {
        match write {
            // A budget protects the pod; the step has said when to try again.
            Write::Evict { .. } => OnError::Forget,
            _ => OnError::Retry,
        }
    }
}

fn enqueue(group: &str, view: &View, queue: &mut Enqueue) {
    let kind = Kind::of::<Nodegroup>();
    let found = view.list::<Nodegroup>().find(|other| other.spec.name == group);
    if let Some(found) = found {
        queue.now(WorkKey::object(kind, &ObjectKey::of(&found.metadata)));
    }
}

pub(super) fn look_again(step: &mut Step, after: Duration) {
    step.again = Some(step.again.map_or(after, |again| again.min(after)));
}

pub(super) fn id_of(machine: &Instance) -> String {
    machine.metadata.name.clone().unwrap_or_default()
}

fn member(machine: &Instance) -> Member {
    Member {
        id: id_of(machine),
        zone: machine.spec.zone.clone(),
        launched: Time::from_nanos(machine.status.launched_at_nanos),
    }
}

fn is_up(machine: &Instance) -> bool {
    matches!(machine.status.state, InstanceState::Pending | InstanceState::Running)
}

fn is_ready(machine: &Instance, view: &View) -> bool {
    view.get_cluster::<Node>(&machine.spec.private_dns_name).is_some_and(node_ready)
}

fn node_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Gives a node the labels and taints that its group has by now, and takes from it those that the group
/// had when they were last given; the machine keeps which those were.
fn relabel(group: &Nodegroup, machine: &Instance, cluster: &str, view: &View) -> Vec<Write> {
    let told = launch::kubelet_arguments(group, cluster);
    let given = &machine.spec.kubelet;
    if told.labels == given.labels && told.taints == given.taints {
        return Vec::new();
    }
    let Some(node) = view.get_cluster::<Node>(&machine.spec.private_dns_name) else {
        return Vec::new();
    };
    let mut node = node.clone();
    let node_labels = node.metadata.labels.get_or_insert_default();
    node_labels.retain(|key, _| !given.labels.contains_key(key));
    node_labels.extend(told.labels.clone());
    let of_node = node.spec.get_or_insert_default().taints.get_or_insert_default();
    of_node.retain(|taint| !given.taints.iter().any(|other| taints::same_taint(other, taint)));
    of_node.extend(told.taints.clone());
    let mut machine = machine.clone();
    machine.spec.kubelet.labels = told.labels;
    machine.spec.kubelet.taints = told.taints;
    vec![
        Write::Update { object: Box::new(node), part: Part::Main },
        Write::Update { object: Box::new(machine), part: Part::Main },
    ]
}

fn event(group: &Nodegroup, kind: EventType, reason: &str, message: String) -> Write {
    Write::Record(EventRecord {
        regarding: Regarding {
            kind: Kind::of::<Nodegroup>(),
            key: ObjectKey::of(&group.metadata),
            uid: group.metadata.uid.as_deref().unwrap_or_default().into(),
            field_path: String::new(),
        },
        related: None,
        kind,
        reason: reason.to_owned(),
        action: String::new(),
        message,
        component: COMPONENT.to_owned(),
        host: String::new(),
        annotations: BTreeMap::new(),
    })
}
