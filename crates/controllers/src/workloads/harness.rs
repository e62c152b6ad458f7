//! A small cluster for tests of the workload controllers: it does what writes say with the API
//! server's semantics as far as they matter here, runs the controllers' steps in the order of
//! time, and can lag behind with changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::{Object, ObjectKey, Typed};
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Propagation, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventRecord;
use wharf_ports::history::{HistoryAnswer, HistoryCall};
use wharf_ports::view::View;

pub(crate) struct World {
    controllers: Vec<Box<dyn Controller>>,
    /// What is stored.
    pub(crate) stored: View,
    /// What the controllers see; behind `stored` by what is in `changes`.
    seen: View,
    changes: VecDeque<Change>,
    /// How many changes the view may lag behind.
    pub(crate) lag: usize,
    pub(crate) now: Time,
    pub(crate) records: Vec<EventRecord>,
    pub(crate) reasons: Vec<wharf_ports::reason::Reason>,
    /// What was logged, by the log's name.
    pub(crate) logs: Vec<(String, String)>,
    /// What was asked of those who keep history.
    pub(crate) asked: Vec<HistoryCall>,
    pub(crate) writes: usize,
    pub(crate) steps: usize,
    /// Refuses every creation of a pod with this message.
    pub(crate) refuse_pods: Option<String>,
    /// Refuses every change of a scale with this message.
    pub(crate) refuse_scales: Option<String>,
    queue: BTreeMap<(Time, u64), (usize, WorkKey)>,
    waiting: BTreeMap<(usize, WorkKey), (Time, u64)>,
    sequence: u64,
    random: Random,
}

impl World {
    pub(crate) fn new(controllers: Vec<Box<dyn Controller>>) -> Self {
        let mut world = Self {
            controllers,
            stored: View::new(),
            seen: View::new(),
            changes: VecDeque::new(),
            lag: 0,
            now: Time::from_seconds(10_000),
            records: Vec::new(),
            reasons: Vec::new(),
            logs: Vec::new(),
            asked: Vec::new(),
            writes: 0,
            steps: 0,
            refuse_pods: None,
            refuse_scales: None,
            queue: BTreeMap::new(),
            waiting: BTreeMap::new(),
            sequence: 0,
            random: Random::new(1, 1),
        };
        world.start();
        world
    }

    /// Replaces the controllers by new ones that are told of everything there is.
    pub(crate) fn restart(&mut self, controllers: Vec<Box<dyn Controller>>) {
        self.controllers = controllers;
        self.queue.clear();
        self.waiting.clear();
        self.deliver(0);
        self.start();
    }

    fn start(&mut self) {
        for index in 0..self.controllers.len() {
            let mut queue = Enqueue::default();
            self.controllers[index].start(&mut queue);
            for kind in wharf_model::kinds::built_in() {
                for object in self.seen.objects(*kind) {
                    let new = Some(object.clone());
                    let change = Change { revision: object.revision(), old: None, new };
                    self.controllers[index].observe(&change, &self.seen, &mut queue);
                }
            }
            self.enqueue(index, queue.take());
        }
    }

    pub(crate) fn apply(&mut self, manifest: Value) {
        let group = manifest["apiVersion"].as_str().and_then(|v| v.split_once('/'));
        let group = group.map_or("", |(group, _)| group);
        let kind = manifest["kind"].as_str().expect("a kind");
        let kind = Kind::by_kind(group, kind).expect("a known kind");
        let object = (kind.decode)(manifest.to_string().as_bytes()).expect("a valid object");
        let key = ObjectKey::of(object.meta());
        if self.stored.object(kind, &key).is_some() {
            self.update(object, Part::Main).expect("an update");
        } else {
            self.create(object).expect("a creation");
        }
    }

    pub(crate) fn edit<T: Resource>(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut T)) {
        let mut object: T = self.stored.get::<T>(key).cloned().expect("it is there");
        edit(&mut object);
        self.update(Box::new(object), Part::All).expect("an update");
    }

    pub(crate) fn delete<T: Resource>(&mut self, key: &ObjectKey, propagation: Propagation) {
        let object = self.stored.object(T::kind(), key).expect("it is there");
        let delete = Delete { propagation, ..Delete::of(object) };
        self.remove(&delete).expect("a deletion");
    }

    /// What a perfect kubelet does at once: runs what is active, removes what is to go.
    pub(crate) fn kubelet(&mut self, node: &str) {
        let pods: Vec<Arc<Object>> = self.stored.objects(Kind::of::<Pod>()).cloned().collect();
        for object in pods {
            if object.header().deleting.is_some() {
                let delete = Delete::of(&object).with_grace(0);
                self.remove(&delete).expect("a deletion");
                continue;
            }
            let mut pod = object.draft::<Pod>().expect("a pod");
            let status = pod.status.get_or_insert_default();
            if status.phase.as_deref() == Some("Running") {
                continue;
            }
            status.phase = Some("Running".to_owned());
            status.start_time = Some(self.now.to_meta());
            let ready = json!({"type": "Ready", "status": "True",
                "lastTransitionTime": self.now.to_string()});
            status.conditions = Some(vec![serde_json::from_value(ready).expect("a condition")]);
            pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
            self.update(Box::new(pod), Part::All).expect("an update");
        }
    }

    pub(crate) fn list<T: Resource>(&self) -> Vec<&T> {
        self.stored.list::<T>().collect()
    }

    pub(crate) fn get<T: Resource>(&self, namespace: &str, name: &str) -> Option<&T> {
        self.stored.get(&ObjectKey { namespace: namespace.into(), name: name.into() })
    }

    pub(crate) fn messages(&self) -> Vec<&str> {
        self.records.iter().map(|record| record.message.as_str()).collect()
    }

    /// Answers a question about the past.
    pub(crate) fn recall(&mut self, answer: &HistoryAnswer) {
        for index in 0..self.controllers.len() {
            let mut queue = Enqueue::default();
            self.controllers[index].recalled(answer, &mut queue);
            self.enqueue(index, queue.take());
        }
    }

    /// Runs until `duration` has passed.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        let mut steps = 0;
        loop {
            self.deliver(self.lag);
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = next.filter(|at| *at <= until) else {
                if self.changes.is_empty() {
                    break;
                }
                self.deliver(0);
                continue;
            };
            let Some((_, (index, key))) = self.queue.pop_first() else { break };
            self.waiting.remove(&(index, key.clone()));
            self.now = self.now.max(at);
            steps += 1;
            assert!(steps < 200_000, "the controllers do not come to rest: {key:?}");
            self.step(index, key);
        }
        self.now = until;
    }

    fn step(&mut self, index: usize, key: WorkKey) {
        self.steps += 1;
        let mut context = Context { view: &self.seen, now: self.now, random: &mut self.random };
        let Step { writes, independent, again, enqueue, reasons, logs, history, .. } =
            self.controllers[index].step(&key, &mut context);
        self.reasons.extend(reasons);
        self.asked.extend(history);
        let logs = logs.into_iter().map(|line| (line.component.into_owned(), line.line));
        self.logs.extend(logs);
        let again = again.map(|delay| (key.clone(), delay));
        self.enqueue(index, again.into_iter().chain(enqueue).collect());
        for write in writes {
            let Err(error) = self.carry_out(write.clone()) else { continue };
            if self.controllers[index].refused(&key, &write, &error) == OnError::Retry {
                self.enqueue(index, vec![(key.clone(), Duration::from_millis(5))]);
            }
            if !independent {
                return;
            }
        }
    }

    fn enqueue(&mut self, index: usize, keys: Vec<(WorkKey, Duration)>) {
        for (key, delay) in keys {
            let at = self.now + delay;
            if let Some(waiting) = self.waiting.get(&(index, key.clone())).copied() {
                if waiting.0 <= at {
                    continue;
                }
                self.queue.remove(&waiting);
            }
            self.sequence += 1;
            self.queue.insert((at, self.sequence), (index, key.clone()));
            self.waiting.insert((index, key), (at, self.sequence));
        }
    }

    fn carry_out(&mut self, write: Write) -> Result<(), ApiError> {
        self.writes += 1;
        match write {
            Write::Record(record) => {
                self.records.push(record);
                Ok(())
            }
            Write::Create(object) => self.create(object),
            Write::Update { object, part } => self.update(object, part),
            Write::Delete(delete) => self.remove(&delete),
            Write::Evict { pod, uid } => {
                let object = self.stored.object(Kind::of::<Pod>(), &pod).expect("it is there");
                let delete = Delete { uid: Some(uid), ..Delete::of(object) };
                self.remove(&delete)
            }
            Write::Scale { kind, key, replicas, .. } => {
                if let Some(why) = &self.refuse_scales {
                    return Err(ApiError::forbidden(kind, &key.name, why));
                }
                let Some(old) = self.stored.object(kind, &key).cloned() else {
                    return Err(ApiError::not_found(kind, &key.name));
                };
                let mut object = old.typed_any().expect("it decodes").clone_box();
                assert!(wharf_model::scale::set(&mut *object, replicas), "{kind} has a scale");
                self.change(kind, &key, Some(object));
                Ok(())
            }
            write => panic!("unexpected {write:?}"),
        }
    }

    fn create(&mut self, mut object: Box<dyn Typed>) -> Result<(), ApiError> {
        let kind = object.kind();
        let key = ObjectKey::of(object.meta());
        if let Some(why) = self.refuse_pods.as_ref().filter(|_| kind == Kind::of::<Pod>()) {
            return Err(ApiError::forbidden(kind, &key.name, why));
        }
        if self.stored.object(kind, &key).is_some() {
            return Err(ApiError::already_exists(kind, &key.name));
        }
        let revision = self.stored.revision() + 1;
        let meta = object.meta_mut();
        meta.uid.get_or_insert_with(|| format!("uid-{revision}"));
        meta.generation = Some(1);
        meta.creation_timestamp.get_or_insert_with(|| self.now.to_meta());
        self.change(kind, &key, Some(object));
        Ok(())
    }

    fn update(&mut self, object: Box<dyn Typed>, part: Part) -> Result<(), ApiError> {
        let kind = object.kind();
        let key = ObjectKey::of(object.meta());
        let Some(old) = self.stored.object(kind, &key).cloned() else {
            return Err(ApiError::not_found(kind, &key.name));
        };
        let version = object.meta().resource_version.as_deref();
        if version.is_some_and(|version| version != old.revision().to_string()) {
            return Err(ApiError::stale(kind, &key.name));
        }
        let before: Value = serde_json::from_slice(old.json()).expect("JSON");
        let mut after: Value = serde_json::from_slice(&object.encode()).expect("JSON");
        match part {
            _ if !kind.has_status_apart() => {}
            Part::Main | Part::Resize => after["status"] = before["status"].clone(),
            Part::Status | Part::Approval => {
                let status = after["status"].take();
                after = before.clone();
                after["status"] = status;
            }
            Part::All => {}
        }
        for field in ["uid", "creationTimestamp", "generation", "deletionTimestamp"] {
            after["metadata"][field] = before["metadata"][field].clone();
        }
        if after["spec"] != before["spec"] {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(0);
            after["metadata"]["generation"] = json!(generation + 1);
        }
        strip_nulls(&mut after);
        let text = after.to_string();
        let object = (kind.decode)(text.as_bytes()).expect("a valid object");
        let deleting = object.meta().deletion_timestamp.is_some();
        let held = object.meta().finalizers.as_ref().is_some_and(|list| !list.is_empty());
        let namespace_held = after["spec"]["finalizers"].as_array().is_some_and(|l| !l.is_empty());
        let gone = deleting && !held && !namespace_held && kind != Kind::of::<Pod>();
        self.change(kind, &key, (!gone).then_some(object));
        Ok(())
    }

    /// Deletes as the API server does.
    pub(crate) fn remove(&mut self, delete: &Delete) -> Result<(), ApiError> {
        let Some(old) = self.stored.object(delete.kind, &delete.key).cloned() else {
            return Err(ApiError::not_found(delete.kind, &delete.key.name));
        };
        if delete.uid.as_ref().is_some_and(|uid| uid != old.uid()) {
            return Err(ApiError::new(StatusReason::Conflict, "another uid"));
        }
        let mut object = old.typed_any().expect("it decodes").clone_box();
        let running = object
            .as_any()
            .downcast_ref::<Pod>()
            .is_some_and(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()));
        let graceful = running && delete.grace_seconds != Some(0);
        let meta = object.meta_mut();
        match delete.propagation {
            Propagation::Background => {}
            Propagation::Foreground => add(&mut meta.finalizers, "foregroundDeletion"),
            Propagation::Orphan => add(&mut meta.finalizers, "orphan"),
        }
        let held = meta.finalizers.as_ref().is_some_and(|list| !list.is_empty());
        let namespace = object.as_any().downcast_ref::<k8s_openapi::api::core::v1::Namespace>();
        let held = held
            || namespace.is_some_and(|namespace| {
                let spec = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
                spec.is_some_and(|list| !list.is_empty())
            });
        if !graceful && !held {
            self.change(delete.kind, &delete.key, None);
            return Ok(());
        }
        let meta = object.meta_mut();
        if meta.deletion_timestamp.is_none() {
            meta.deletion_timestamp = Some(self.now.to_meta());
            self.change(delete.kind, &delete.key, Some(object));
        }
        Ok(())
    }

    fn change(&mut self, kind: Kind, key: &ObjectKey, object: Option<Box<dyn Typed>>) {
        let revision = self.stored.revision() + 1;
        let old = self.stored.object(kind, key).cloned();
        let new = object.map(|object| Arc::new(Object::from_typed(object, revision)));
        let change = Change { revision, old, new };
        assert!(self.stored.apply(&change));
        self.changes.push_back(change);
    }

    fn deliver(&mut self, keep: usize) {
        while self.changes.len() > keep {
            let Some(change) = self.changes.pop_front() else { return };
            self.seen.apply(&change);
            for index in 0..self.controllers.len() {
                let mut queue = Enqueue::default();
                self.controllers[index].observe(&change, &self.seen, &mut queue);
                self.enqueue(index, queue.take());
            }
        }
    }
}

fn add(finalizers: &mut Option<Vec<String>>, name: &str) {
    let finalizers = finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == name) {
        finalizers.push(name.to_owned());
    }
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
