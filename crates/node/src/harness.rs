//! A small world for tests: it does what writes say, with the simplest semantics that will do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::instance::Instance;
use wharf_model::kinds::Resource;
use wharf_model::object::{Object, ObjectKey, Typed};
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, WorkKey};
use wharf_ports::event::EventRecord;
use wharf_ports::view::View;

pub(crate) struct World<C> {
    pub(crate) controller: C,
    pub(crate) view: View,
    pub(crate) now: Time,
    pub(crate) records: Vec<(Time, EventRecord)>,
    pub(crate) writes: usize,
    queue: BTreeMap<(Time, u64), WorkKey>,
    sequence: u64,
    random: Random,
}

impl<C: Controller> World<C> {
    pub(crate) fn new(controller: C) -> Self {
        Self {
            controller,
            view: View::new(),
            now: Time::from_seconds(1_000),
            records: Vec::new(),
            writes: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            random: Random::new(1, 1),
        }
    }

    pub(crate) fn put(&mut self, object: Box<dyn Typed>) {
        let key = ObjectKey::of(object.meta());
        let old = self.view.object(object.kind(), &key).cloned();
        let revision = self.view.revision() + 1;
        let new = Some(Arc::new(Object::from_typed(object, revision)));
        self.change(Change { revision, old, new });
    }

    pub(crate) fn remove<T: Resource>(&mut self, key: &ObjectKey) {
        let old = self.view.object(T::kind(), key).cloned();
        let revision = self.view.revision() + 1;
        if old.is_some() {
            self.change(Change { revision, old, new: None });
        }
    }

    pub(crate) fn edit<T: Resource>(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut T)) {
        let mut object: T = self.view.get::<T>(key).cloned().expect("it is there");
        edit(&mut object);
        self.put(Box::new(object));
    }

    fn change(&mut self, change: Change) {
        self.view.apply(&change);
        let mut queue = Enqueue::default();
        self.controller.observe(&change, &self.view, &mut queue);
        self.enqueue(queue.take());
    }

    /// As after a restart of the process: a new controller is told of everything there is.
    pub(crate) fn restart(&mut self, controller: C) {
        self.controller = controller;
        self.queue.clear();
        let mut queue = Enqueue::default();
        for kind in wharf_model::kinds::built_in() {
            for object in self.view.objects(*kind) {
                let change =
                    Change { revision: object.revision(), old: None, new: Some(object.clone()) };
                self.controller.observe(&change, &self.view, &mut queue);
            }
        }
        self.enqueue(queue.take());
    }

    fn enqueue(&mut self, keys: Vec<(WorkKey, Duration)>) {
        for (key, delay) in keys {
            // A key waits once, at the earliest of its times, as in the event loop.
            if let Some(waiting) = self.queue.iter().find(|(_, k)| **k == key).map(|(at, _)| *at) {
                if waiting.0 <= self.now + delay {
                    continue;
                }
                self.queue.remove(&waiting);
            }
            self.sequence += 1;
            self.queue.insert((self.now + delay, self.sequence), key);
        }
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        let mut steps = 0;
        while let Some(((at, _), key)) = self.queue.first_key_value().map(|(k, v)| (*k, v.clone()))
        {
            if at > until {
                break;
            }
            steps += 1;
            assert!(steps < 100_000, "the controller does not come to rest");
            self.queue.pop_first();
            self.now = self.now.max(at);
            let mut context = Context { view: &self.view, now: self.now, random: &mut self.random };
            let step = self.controller.step(&key, &mut context);
            let again = step.again.map(|delay| (key, delay));
            self.enqueue(again.into_iter().chain(step.enqueue).collect());
            for write in step.writes {
                self.carry_out(write);
            }
        }
        self.now = until;
    }

    fn carry_out(&mut self, write: Write) {
        if let Write::Record(record) = write {
            self.records.push((self.now, record));
            return;
        }
        self.writes += 1;
        match write {
            Write::Create(mut object) => {
                let revision = self.view.revision() + 1;
                let meta = object.meta_mut();
                meta.uid.get_or_insert_with(|| format!("uid-{revision}"));
                meta.creation_timestamp.get_or_insert_with(|| self.now.to_meta());
                self.put(object);
            }
            Write::Update { object, part } => self.update(object, part),
            Write::Delete(delete) => {
                if let Some(old) = self.view.object(delete.kind, &delete.key).cloned() {
                    let revision = self.view.revision() + 1;
                    self.change(Change { revision, old: Some(old), new: None });
                }
            }
            write => panic!("unexpected {write:?}"),
        }
    }

    fn update(&mut self, object: Box<dyn Typed>, part: Part) {
        let key = ObjectKey::of(object.meta());
        let Some(stored) = self.view.object(object.kind(), &key) else { return };
        let any = object.as_any();
        if let (Part::Status, Some(new)) = (part, any.downcast_ref::<Pod>()) {
            let mut pod = stored.draft::<Pod>().expect("a pod");
            pod.status.clone_from(&new.status);
            self.put(Box::new(pod));
        } else if let (Part::Status, Some(new)) = (part, any.downcast_ref::<Node>()) {
            let mut node = stored.draft::<Node>().expect("a node");
            node.status.clone_from(&new.status);
            self.put(Box::new(node));
        } else if let (Part::Main, Some(new)) = (part, any.downcast_ref::<Instance>()) {
            let mut new = new.clone();
            new.status = stored.draft::<Instance>().expect("an instance").status;
            self.put(Box::new(new));
        } else {
            self.put(object);
        }
    }

    pub(crate) fn messages(&self) -> Vec<&str> {
        self.records.iter().map(|(_, record)| record.message.as_str()).collect()
    }
}

/// A running machine whose kubelet registers 30 s and is ready 40 s after the world's start.
pub(crate) fn instance(id: &str, ip: &str) -> Instance {
    let mut instance = Instance::default();
    instance.metadata.name = Some(id.to_owned());
    let spec = &mut instance.spec;
    spec.instance_type = "c5a.large".to_owned();
    spec.region = "us-east-1".to_owned();
    spec.zone = "us-east-1a".to_owned();
    spec.zone_id = "use1-az1".to_owned();
    spec.private_ip = ip.to_owned();
    spec.private_dns_name = format!("ip-{}.ec2.internal", ip.replace('.', "-"));
    spec.kubelet.labels.insert("karpenter.sh/nodepool".to_owned(), "default".to_owned());
    spec.kubelet.taints =
        vec![wharf_model::taints::taint("karpenter.sh/unregistered", "NoExecute")];
    for amounts in [&mut spec.kubelet.capacity, &mut spec.kubelet.allocatable] {
        amounts.insert("cpu".to_owned(), "2".to_owned());
        amounts.insert("memory".to_owned(), "3Gi".to_owned());
        amounts.insert("pods".to_owned(), "29".to_owned());
    }
    let start = Time::from_seconds(1_000);
    instance.status.state = wharf_model::instance::InstanceState::Running;
    instance.status.launched_at_nanos = start.as_nanos();
    instance.status.running_at_nanos = (start + Duration::from_secs(5)).as_nanos();
    instance.status.registers_at_nanos = (start + Duration::from_secs(30)).as_nanos();
    instance.status.ready_at_nanos = (start + Duration::from_secs(40)).as_nanos();
    instance
}
