use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use proptest::prelude::*;
use serde_json::{Value, json};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, Revision, Typed};
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_ports::cluster::Part;
use wharf_ports::event::EventRecord;
use wharf_ports::extender::ExtenderCall;
use wharf_ports::reason::Reason;
use wharf_scheduler::PodInfo;

use super::pods::is_finished;
use super::renew::SYMBOLS_MIN;
use super::*;

mod cycle;
mod devices;
mod extenders;
mod gang;
mod volumes;

/// A cluster in a nutshell: carries writes out on a view and tells the scheduler of each change.
struct Lab {
    scheduler: Scheduler,
    view: View,
    revision: Revision,
    now: Time,
    random: Random,
    /// When the scheduler asked to be woken.
    wake: Option<Time>,
    refuse_bindings: u32,
    /// Whether pods may go to tainted nodes.
    free_choice: bool,
    events: Vec<EventRecord>,
    reasons: Vec<Reason>,
    steps: usize,
    changes: Vec<Change>,
    /// What extenders were asked and have not answered.
    calls: Vec<ExtenderCall>,
    /// Whether writes of claims on devices are held back, and those that are.
    holds_claims: bool,
    held: Vec<Write>,
}

impl Lab {
    fn new() -> Self {
        Self {
            scheduler: Scheduler::default(),
            view: View::new(),
            revision: 0,
            now: Time::from_seconds(1_000),
            random: Random::new(1, 1),
            wake: None,
            refuse_bindings: 0,
            free_choice: false,
            events: Vec::new(),
            reasons: Vec::new(),
            steps: 0,
            changes: Vec::new(),
            calls: Vec::new(),
            holds_claims: false,
            held: Vec::new(),
        }
    }

    fn tell(&mut self, change: Change) {
        if self.view.apply(&change) {
            self.observe(&change);
        }
        self.changes.push(change);
    }

    fn observe(&mut self, change: &Change) {
        let mut queue = Enqueue::default();
        self.scheduler.observe(change, &self.view, &mut queue);
        self.note(&mut queue);
    }

    fn note(&mut self, queue: &mut Enqueue) {
        for (_, delay) in queue.take() {
            let at = self.now + delay;
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        }
    }

    fn put(&mut self, object: Box<dyn Typed>) {
        self.revision += 1;
        let old = self.view.object(object.kind(), &ObjectKey::of(object.meta())).cloned();
        let new = Some(Arc::new(Object::from_typed(object, self.revision)));
        self.tell(Change { revision: self.revision, old, new });
    }

    fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        let Some(old) = self.view.object(kind, key).cloned() else { return };
        self.revision += 1;
        self.tell(Change { revision: self.revision, old: Some(old), new: None });
    }

    fn node(&mut self, name: &str, cpu: &str, taints: Value) {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"taints": taints},
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}
        }))
        .unwrap();
        self.put(Box::new(node));
    }

    fn pod(&mut self, name: &str, requests: Value, more: Value) {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-uid")},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "resources": {"requests": requests}}]}
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.put(Box::new(pod));
    }

    fn get(&self, name: &str) -> &Pod {
        self.view.get(&ObjectKey::namespaced("default", name)).expect("the pod is there")
    }

    fn node_of(&self, name: &str) -> Option<&str> {
        self.get(name).spec.as_ref()?.node_name.as_deref()
    }

    fn status(&self, name: &str) -> PodStatus {
        self.get(name).status.clone().unwrap_or_default()
    }

    fn message(&self, name: &str) -> Option<String> {
        let conditions = self.status(name).conditions?;
        conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?.message
    }

    fn told(&self, reason: &str) -> Vec<&str> {
        let events = self.events.iter().filter(|event| event.reason == reason);
        events.map(|event| event.message.as_str()).collect()
    }

    /// What the node's pods ask for and this one fits in what the node has, by a count of its own.
    fn assert_fits(&self, object: &Object, node: &str) {
        let mut snapshot = Snapshot::new();
        let pods = self.view.pods_on(node).filter_map(|object| object.typed::<Pod>());
        let mut cpu = 0;
        for pod in pods.filter(|pod| !is_finished(pod)).chain(object.typed::<Pod>()) {
            cpu += snapshot.compile(pod).amounts.requests.cpu_milli;
        }
        snapshot.set_node(self.view.get_cluster::<Node>(node).expect("the node is there"));
        let node = snapshot.node_named(node).expect("it was just set");
        assert!(cpu <= node.facts.allocatable.cpu_milli, "{} is overcommitted", node.facts.name);
        let untainted = self.free_choice || node.facts.taints.is_empty();
        assert!(untainted, "no pod here tolerates anything");
    }

    fn execute(&mut self, write: &Write) -> Result<(), ApiError> {
        let kind = Kind::of::<Pod>();
        match write {
            Write::Bind { pod, uid, node } => {
                let object = self.view.object(kind, pod).cloned();
                let object = object.ok_or_else(|| ApiError::not_found(kind, &pod.name))?;
                let mut bound = object.draft::<Pod>().unwrap();
                let spec = bound.spec.as_mut().unwrap();
                if self.refuse_bindings > 0 {
                    self.refuse_bindings -= 1;
                    return Err(ApiError::stale(kind, &pod.name));
                }
                if object.uid() != uid || spec.node_name.is_some() {
                    return Err(ApiError::stale(kind, &pod.name));
                }
                self.assert_fits(&object, node);
                spec.node_name = Some(node.to_string());
                bound.status.get_or_insert_default().nominated_node_name = None;
                self.put(Box::new(bound));
            }
            Write::Update { object, part } => {
                let key = ObjectKey::of(object.meta());
                let held = self.view.object(object.kind(), &key);
                let held = held.ok_or_else(|| ApiError::not_found(kind, &key.name))?;
                if object.meta().resource_version != Some(held.revision().to_string()) {
                    return Err(ApiError::stale(kind, &key.name));
                }
                // Of a status update nothing but the status is taken.
                let told = object.as_any().downcast_ref::<Pod>();
                match told.filter(|_| *part == Part::Status).zip(held.draft::<Pod>()) {
                    Some((told, mut pod)) => {
                        pod.status.clone_from(&told.status);
                        self.put(Box::new(pod));
                    }
                    None => self.put(object.clone_box()),
                }
            }
            Write::Create(object) => {
                let mut object = object.clone_box();
                let meta = object.meta_mut();
                let base = meta.generate_name.clone().unwrap_or_default();
                meta.name = Some(format!("{base}{}", self.revision));
                meta.uid = meta.name.clone();
                self.put(object);
            }
            Write::Delete(delete) if delete.kind != kind => self.remove(delete.kind, &delete.key),
            Write::Delete(delete) => {
                let object = self.view.object(delete.kind, &delete.key).cloned();
                let object = object.ok_or_else(|| ApiError::not_found(kind, &delete.key.name))?;
                let mut pod = object.draft::<Pod>().unwrap();
                pod.metadata.deletion_timestamp =
                    Some((self.now + Duration::from_secs(30)).to_meta());
                self.put(Box::new(pod));
            }
            Write::Record(record) => self.events.push(record.clone()),
            other => panic!("the scheduler does not {other:?}"),
        }
        Ok(())
    }

    /// Steps as long as there is something to do now.
    fn settle(&mut self) {
        let start = self.steps;
        while self.wake.is_some_and(|wake| wake <= self.now) {
            self.wake = None;
            self.steps += 1;
            assert!(self.steps - start < 1_000, "the scheduler does not come to rest");
            let key = Scheduler::key();
            let mut context = Context { view: &self.view, now: self.now, random: &mut self.random };
            let step = self.scheduler.step(&key, &mut context);
            self.wake = step.again.map(|again| self.now + again);
            self.reasons.extend(step.reasons);
            self.calls.extend(step.extender);
            assert!(step.independent);
            for write in step.writes {
                let claims = Kind::of::<k8s_openapi::api::resource::v1::ResourceClaim>();
                if self.holds_claims && write.subject().0 == claims {
                    self.held.push(write);
                    continue;
                }
                let result = self.execute(&write);
                self.outcome(&write, result);
            }
        }
    }

    /// Tells the scheduler what became of a write.
    fn outcome(&mut self, write: &Write, result: Result<(), ApiError>) {
        let key = Scheduler::key();
        match result {
            Ok(()) => {
                let (kind, subject) = write.subject();
                let left = self.view.object(kind, &subject).cloned();
                let mut queue = Enqueue::default();
                self.scheduler.done(&key, write, left.as_ref(), &mut queue);
                self.note(&mut queue);
            }
            Err(error) => {
                if self.scheduler.refused(&key, write, &error) == OnError::Retry {
                    self.wake = Some(self.now);
                }
            }
        }
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(wake) = self.wake.filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.settle();
        }
        self.now = end;
    }

    /// Nothing is held of what is not there, and everything of what is.
    fn check_state(&mut self) {
        let mut held: Vec<_> = self.scheduler.tracked.values().cloned().collect();
        held.sort_unstable();
        let mut pods: Vec<_> =
            self.view.list::<Pod>().filter(|pod| !is_finished(pod)).map(PodInfo::uid_of).collect();
        pods.sort_unstable();
        assert_eq!(held, pods);
        let bound = self
            .view
            .list::<Pod>()
            .filter(|pod| !is_finished(pod))
            .filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()));
        let bound = bound.count();
        assert_eq!(self.scheduler.snapshot.pod_count(), bound + self.scheduler.assumed.len());
        let mut held_open = self.scheduler.groups.held();
        held_open.extend(self.scheduler.extenders.held());
        // Nobody waits for a pod that is being deleted, but to the end of its cycle.
        let leaving = self.view.list::<Pod>().filter(|pod| {
            let uid = PodInfo::uid_of(pod);
            pod.metadata.deletion_timestamp.is_some()
                && self.scheduler.queue.get(&uid).is_none()
                && !held_open.contains(&uid)
                && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())
        });
        let waiting = self.scheduler.queue.len() + self.scheduler.assumed.len() + held_open.len();
        assert_eq!(waiting + leaving.count(), pods.len() - bound);
    }
}

#[test]
fn pods_are_bound_and_announced() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.node("b", "2", json!([]));
    lab.pod("p", json!({"cpu": "3"}), json!({}));
    lab.pod("q", json!({"cpu": "2"}), json!({}));
    lab.settle();
    assert_eq!((lab.node_of("p"), lab.node_of("q")), (Some("a"), Some("b")));
    assert_eq!(
        lab.told("Scheduled"),
        ["Successfully assigned default/p to a", "Successfully assigned default/q to b"]
    );
    assert_eq!(lab.reasons[0].decision, "goes to node a");
    assert_eq!(lab.scheduler.assumed.len(), 0);
    lab.check_state();
}

#[test]
fn what_cannot_fit_says_so_and_sleeps() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.pod("huge", json!({"memory": "1000Gi"}), json!({}));
    lab.settle();
    let text = "0/1 nodes are available: 1 Insufficient memory. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(lab.message("huge").as_deref(), Some(text));
    assert_eq!(lab.told("FailedScheduling"), [text]);
    let event = &lab.events[0];
    assert_eq!(
        (event.component.as_str(), event.action.as_str()),
        ("default-scheduler", "Scheduling")
    );
    let reason = &lab.reasons[0];
    assert_eq!(reason.because[0].rule, "NodeResourcesFit");
    assert_eq!(
        reason.because[0].says.to_string(),
        "a: memory: asks 1000Gi, free 8Gi of 8Gi, short 992Gi"
    );
    let revision = lab.revision;
    lab.node("a", "5", json!([]));
    lab.wait(Duration::from_secs(299));
    assert_eq!(lab.told("FailedScheduling").len(), 1, "more cpu does not help");
    lab.wait(Duration::from_secs(31));
    assert_eq!(lab.told("FailedScheduling").len(), 2, "tried again after five minutes");
    assert_eq!(lab.revision, revision + 1, "the same condition is not written again");
}

#[test]
fn without_nodes_pods_are_tried_again_and_again() {
    let mut lab = Lab::new();
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    lab.settle();
    assert_eq!(lab.message("p").as_deref(), Some("no nodes available to schedule pods"));
    lab.node("a", "4", json!([]));
    lab.wait(Duration::from_secs(11));
    assert_eq!(lab.node_of("p"), Some("a"));
}

#[test]
fn a_node_takes_pods_as_soon_as_its_taints_are_gone() {
    let mut lab = Lab::new();
    let unregistered = json!({"key": "karpenter.sh/unregistered", "effect": "NoExecute"});
    let not_ready = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    lab.node("a", "4", json!([unregistered, not_ready]));
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    lab.settle();
    assert!(
        lab.message("p")
            .unwrap()
            .starts_with("0/1 nodes are available: 1 node(s) had untolerated taint(s).")
    );
    lab.node("a", "4", json!([not_ready]));
    lab.settle();
    assert_eq!(lab.node_of("p"), None);
    lab.node("a", "4", json!([]));
    lab.settle();
    assert_eq!(lab.node_of("p"), Some("a"), "at the same moment");
}

#[test]
fn a_refused_binding_is_forgotten_and_tried_again() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.refuse_bindings = 1;
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    lab.settle();
    assert_eq!(lab.node_of("p"), None);
    assert_eq!(lab.scheduler.snapshot.pod_count(), 0);
    assert_eq!(lab.told("Scheduled"), Vec::<&str>::new());
    lab.check_state();
    lab.wait(Duration::from_secs(3));
    assert_eq!(lab.node_of("p"), Some("a"));
    lab.check_state();
}

#[test]
fn a_pod_that_goes_while_its_binding_is_under_way_leaves_nothing() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    let mut context = Context { view: &lab.view, now: lab.now, random: &mut lab.random };
    let step = lab.scheduler.step(&Scheduler::key(), &mut context);
    assert_eq!((step.writes.len(), lab.scheduler.assumed.len()), (1, 1));
    let error =
        lab.execute(&step.writes[0]).and_then(|()| lab.execute(&step.writes[0])).unwrap_err();
    lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "p"));
    lab.scheduler.refused(&Scheduler::key(), &step.writes[0], &error);
    lab.settle();
    lab.check_state();
    assert_eq!(lab.scheduler.queue.len() + lab.scheduler.snapshot.pod_count(), 0);
}

#[test]
fn a_pod_bound_by_somebody_else_counts_where_it_is() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.pod("p", json!({"cpu": "3"}), json!({"nodeName": "a"}));
    lab.pod("q", json!({"cpu": "2"}), json!({}));
    lab.settle();
    assert_eq!(lab.node_of("q"), None);
    assert_eq!(lab.told("Scheduled"), Vec::<&str>::new());
    lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "p"));
    lab.settle();
    assert_eq!(lab.node_of("q"), Some("a"));
}

#[test]
fn pods_of_others_gated_and_leaving_ones_are_not_scheduled() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.pod("other", json!({}), json!({"schedulerName": "other"}));
    lab.pod("gated", json!({}), json!({"schedulingGates": [{"name": "g"}]}));
    lab.settle();
    let mut leaving = lab.get("gated").clone();
    leaving.metadata.name = Some("leaving".to_owned());
    leaving.metadata.uid = Some("leaving-uid".to_owned());
    leaving.metadata.deletion_timestamp = Some(lab.now.to_meta());
    leaving.spec.as_mut().unwrap().scheduling_gates = None;
    lab.put(Box::new(leaving));
    lab.wait(Duration::from_secs(600));
    assert_eq!(lab.told("FailedScheduling"), ["skip schedule deleting pod: default/leaving"]);
    assert_eq!(lab.events.len(), 1);
    for name in ["other", "gated", "leaving"] {
        assert_eq!(lab.node_of(name), None);
    }
    lab.pod("gated", json!({}), json!({"schedulingGates": []}));
    lab.settle();
    assert_eq!(lab.node_of("gated"), Some("a"));
}

#[test]
fn a_burst_takes_few_steps() {
    let mut lab = Lab::new();
    for index in 0..10 {
        lab.node(&format!("n{index}"), "16", json!([]));
    }
    for index in 0..1_000 {
        lab.pod(&format!("p{index}"), json!({"cpu": "100m"}), json!({}));
    }
    lab.settle();
    assert_eq!(lab.told("Scheduled").len(), 1_000);
    assert!(lab.steps <= 20, "{} steps", lab.steps);
    lab.check_state();
}

#[test]
fn lower_priorities_make_room() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.pod("low", json!({"cpu": "4"}), json!({"priority": 0}));
    lab.settle();
    lab.pod("high", json!({"cpu": "2"}), json!({"priority": 10}));
    lab.settle();
    assert_eq!(
        lab.message("high").as_deref(),
        Some("0/1 nodes are available: 1 Insufficient cpu.")
    );
    assert_eq!(lab.status("high").nominated_node_name.as_deref(), Some("a"));
    assert_eq!(lab.told("Preempted"), ["Preempted by pod high-uid on node a"]);
    let target =
        lab.status("low").conditions.unwrap().into_iter().find(|c| c.type_ == "DisruptionTarget");
    assert_eq!(target.unwrap().reason.as_deref(), Some("PreemptionByScheduler"));
    assert!(lab.get("low").metadata.deletion_timestamp.is_some());
    // Room made for one is not taken by another of less weight.
    lab.pod("sneak", json!({"cpu": "3"}), json!({"priority": 5}));
    lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "low"));
    lab.settle();
    assert_eq!((lab.node_of("high"), lab.node_of("sneak")), (Some("a"), None));
    assert_eq!(lab.status("high").nominated_node_name, None);
    lab.check_state();
}

#[test]
fn the_snapshot_is_built_anew_when_it_is_full_of_the_past() {
    let mut lab = Lab::new();
    for index in 0..SYMBOLS_MIN + 10 {
        lab.node(&format!("old{index}"), "1", json!([]));
        lab.remove(Kind::of::<Node>(), &ObjectKey::cluster(format!("old{index}")));
    }
    lab.node("a", "4", json!([{"key": "k", "effect": "NoSchedule"}]));
    lab.node("b", "1", json!([]));
    lab.pod("p", json!({"cpu": "2"}), json!({}));
    lab.pod("q", json!({"cpu": "1"}), json!({}));
    lab.settle();
    assert!(lab.scheduler.snapshot.symbols().len() < 100);
    assert_eq!((lab.node_of("p"), lab.node_of("q")), (None, Some("b")));
    lab.check_state();
    lab.node("a", "4", json!([]));
    lab.settle();
    assert_eq!(lab.node_of("p"), Some("a"), "a sleeping pod was taken along");
}

#[derive(Clone, Debug)]
enum Event {
    Node(u8, u8, bool),
    RemoveNode(u8),
    Pod(u8, u8, u8),
    BoundPod(u8, u8, u8),
    RemovePod(u8),
    FinishPod(u8),
    RefuseBindings(u8),
    Repeat(prop::sample::Index),
    Restart,
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..5u8, 1..6u8, prop::bool::weighted(0.3)).prop_map(|(n, c, t)| Event::Node(n, c, t)),
        1 => (0..5u8).prop_map(Event::RemoveNode),
        6 => (0..20u8, 1..5u8, 0..3u8).prop_map(|(p, c, priority)| Event::Pod(p, c, priority)),
        1 => (0..20u8, 1..3u8, 0..5u8).prop_map(|(p, c, n)| Event::BoundPod(p, c, n)),
        3 => (0..20u8).prop_map(Event::RemovePod),
        1 => (0..20u8).prop_map(Event::FinishPod),
        1 => (1..4u8).prop_map(Event::RefuseBindings),
        1 => any::<prop::sample::Index>().prop_map(Event::Repeat),
        1 => Just(Event::Restart),
        2 => (0..400u16).prop_map(Event::Wait),
    ]
}

impl Lab {
    fn happen(&mut self, event: &Event) {
        let pod_key = |index: &u8| ObjectKey::namespaced("default", format!("p{index}"));
        match event {
            Event::Node(index, cpu, tainted) => {
                let taints = if *tainted {
                    json!([{"key": "k", "effect": "NoSchedule"}])
                } else {
                    json!([])
                };
                self.node(&format!("n{index}"), &cpu.to_string(), taints);
            }
            Event::RemoveNode(index) => {
                self.remove(Kind::of::<Node>(), &ObjectKey::cluster(format!("n{index}")));
            }
            Event::Pod(index, cpu, priority) => {
                if self.view.object(Kind::of::<Pod>(), &pod_key(index)).is_none() {
                    let more = json!({"priority": priority});
                    self.pod(&format!("p{index}"), json!({"cpu": cpu.to_string()}), more);
                }
            }
            Event::BoundPod(index, cpu, node) => {
                if self.view.object(Kind::of::<Pod>(), &pod_key(index)).is_none() {
                    let more = json!({"nodeName": format!("n{node}"), "priority": 5});
                    self.pod(&format!("p{index}"), json!({"cpu": cpu.to_string()}), more);
                }
            }
            Event::RemovePod(index) => self.remove(Kind::of::<Pod>(), &pod_key(index)),
            Event::FinishPod(index) => {
                if let Some(pod) = self.view.get::<Pod>(&pod_key(index)) {
                    let mut pod = pod.clone();
                    pod.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
                    self.put(Box::new(pod));
                }
            }
            Event::RefuseBindings(count) => self.refuse_bindings = u32::from(*count),
            Event::Repeat(index) => {
                if !self.changes.is_empty() {
                    let change = index.get(&self.changes).clone();
                    self.observe(&change);
                }
            }
            Event::Restart => {
                self.scheduler = Scheduler::default();
                self.wake = None;
                let kinds = [Kind::of::<Node>(), Kind::of::<Pod>()];
                let objects: Vec<_> =
                    kinds.iter().flat_map(|kind| self.view.objects(*kind).cloned()).collect();
                for object in objects {
                    let revision = object.revision();
                    self.observe(&Change { revision, old: None, new: Some(object) });
                }
            }
            Event::Wait(seconds) => self.wait(Duration::from_secs(u64::from(*seconds))),
        }
    }

    /// Pods that preemption sent away are gone at last, as a kubelet would have it.
    fn finish_leaving(&mut self) -> bool {
        let leaving: Vec<_> = self
            .view
            .objects(Kind::of::<Pod>())
            .filter(|object| object.header().deleting.is_some())
            .map(|object| object.key().clone())
            .collect();
        for key in &leaving {
            self.remove(Kind::of::<Pod>(), key);
        }
        !leaving.is_empty()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens, in whatever order, also repeated and across restarts: nothing is ever
    /// overcommitted, nothing leaks, and in the end no pod waits that would fit.
    #[test]
    fn the_scheduler_converges(events in prop::collection::vec((event(), any::<bool>()), 1..60)) {
        let mut lab = Lab::new();
        for (event, settle) in &events {
            lab.happen(event);
            if *settle {
                lab.settle();
            }
        }
        lab.refuse_bindings = 0;
        loop {
            lab.wait(Duration::from_secs(30));
            if !lab.finish_leaving() {
                break;
            }
        }
        lab.check_state();
        prop_assert!(lab.scheduler.assumed.len() == 0 && lab.scheduler.failed_bindings.is_empty());
        let waiting = |lab: &Lab| {
            let pods = lab.view.list::<Pod>().filter(|pod| !is_finished(pod));
            pods.filter(|pod| pod.spec.as_ref().unwrap().node_name.is_none()).count()
        };
        let pending = waiting(&lab);
        lab.happen(&Event::Restart);
        lab.wait(Duration::from_secs(30));
        prop_assert_eq!(waiting(&lab), pending, "a fresh start would place more");
    }
}
