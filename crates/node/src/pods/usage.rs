//! What the agent tells the load model of its pods, and what it does at the model's word: kill a
//! container for want of memory, evict a pod, say that a node is short of it.

use std::collections::BTreeMap;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Node, Pod, Service};
use wharf_load::Id;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Enqueue, Step, WorkKey};
use wharf_ports::event::{EventType, Regarding};

use super::run::{Run, Said, State};
use super::worker::EVICTED;
use super::{PodAgent, Tracked, record};
use crate::load::{Eviction, Order, Subject, takes_requests, tells_values, with_pressure};

/// The singleton under which the model is solved.
const LOAD: &str = "load";
/// The reason of Events about annotations that cannot be read.
const INVALID: &str = "InvalidLoad";

/// What the load model knows of a pod.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// The runs of its containers, in the order of the worker's, by their start.
    runs: Vec<Option<Time>>,
    /// The version of the pod that was looked at last.
    revision: u64,
    /// What was said to be wrong with its annotations.
    problems: Vec<String>,
    /// When the pod was taken on, or taken up again.
    taken_on: Time,
}

impl Measured {
    /// Nothing is known of a pod that is taken on now.
    pub(super) fn from(now: Time) -> Self {
        Self { taken_on: now, ..Self::default() }
    }
}

impl PodAgent {
    /// Tells the model which of a pod's containers run, and what they do now.
    pub(super) fn measure(
        &mut self,
        key: &ObjectKey,
        object: &Object,
        pod: &Pod,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let Some(tracked) = self.pods.get_mut(key) else { return };
        let (now, node) = (context.now, CompactString::from(tracked.node.as_str()));
        if !self.loads.knows(&node) {
            return;
        }
        let Tracked { worker, measured, .. } = tracked;
        measured.runs.resize(worker.runs.len(), None);
        let is_new = object.revision() != measured.revision;
        measured.revision = object.revision();
        let spec = pod.spec.as_ref();
        let mut problems = Vec::new();
        for (run, known) in worker.runs.iter().zip(&mut measured.runs) {
            let since = run.running_since();
            if since == *known && !(is_new && since.is_some()) {
                continue;
            }
            let id = Id { pod: key.clone(), container: run.name.as_str().into() };
            if known.is_some() && since != *known {
                self.loads.ended(&id, ended_at(run, now), now);
            }
            let mut containers = spec
                .into_iter()
                .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
            let container = containers.find(|container| container.name == run.name);
            // While a container is being resized it has what it had.
            let had = worker.resize.as_ref().and_then(|resize| resize.resources(&run.name).0);
            let resized = container.zip(had).map(|(container, had)| Container {
                resources: Some(had.clone()),
                ..container.clone()
            });
            let container = resized.as_ref().or(container);
            if let (Some(since), Some(container)) = (since, container) {
                let (view, program) = (context.view, &run.program);
                let subject = Subject { view, node: &node, id: &id, pod, container, program };
                problems.extend(if since == known.unwrap_or(Time::MAX) {
                    self.loads.changed(&subject, since, now)
                } else {
                    // What ran before is known of from now on.
                    let from = if since < measured.taken_on { now } else { since };
                    self.loads.started(&subject, since, from, now)
                });
            }
            *known = since;
        }
        if problems.iter().any(|problem| !measured.problems.contains(problem)) {
            problems.dedup();
            let regarding = Regarding::object(object);
            let said = problems.iter().map(|problem| warning(INVALID, problem));
            step.writes.extend(said.map(|said| record(&regarding, &node, said)));
            measured.problems = problems;
        }
    }

    /// The pod's containers are gone with it.
    pub(super) fn measure_no_more(&mut self, key: &ObjectKey, tracked: &Tracked, now: Time) {
        for (run, known) in tracked.worker.runs.iter().zip(&tracked.measured.runs) {
            if known.is_some() {
                let id = Id { pod: key.clone(), container: run.name.as_str().into() };
                self.loads.ended(&id, ended_at(run, now), now);
            }
        }
    }

    /// Says when the model is to be solved next.
    pub(super) fn plan_tick(&self, now: Time, step: &mut Step) {
        if let Some(due) = self.loads.due() {
            step.enqueue.push((WorkKey::singleton(LOAD), due.since(now)));
        }
    }

    /// Solves the model as far as it is due, and carries out what comes of it.
    pub(super) fn tick(&mut self, context: &Context<'_>) -> Step {
        let now = context.now;
        let mut step = Step { independent: true, ..Step::done() };
        for order in self.loads.tick(context.view, now) {
            match order {
                Order::Kill(id, at) => {
                    let Some(tracked) = self.pods.get_mut(&id.pod) else { continue };
                    let runs = &mut tracked.worker.runs;
                    if let Some(run) = runs.iter_mut().find(|run| *run.name == id.container) {
                        run.kill_for_memory(at);
                        step.enqueue.push((pod_key(&id.pod), Duration::ZERO));
                    }
                }
                Order::Evict(key, eviction) => self.evict(&key, eviction, context, &mut step),
                Order::Press(node, pressed) => {
                    let key = ObjectKey::cluster(&node);
                    let Some(object) = context.view.object(Kind::of::<Node>(), &key) else {
                        continue;
                    };
                    if pressed {
                        let said = warning("EvictionThresholdMet", "Attempting to reclaim memory");
                        step.write(record(&Regarding::object(object), &node, said));
                    }
                    let changed =
                        object.typed::<Node>().and_then(|node| with_pressure(node, pressed, now));
                    if let Some(changed) = changed {
                        let object = Box::new(changed);
                        step.write(Write::Update { object, part: Part::Status });
                    }
                }
            }
        }
        if let Some(due) = self.loads.due() {
            step.again = Some(due.since(now).max(Duration::from_millis(1)));
        }
        step
    }

    fn evict(
        &mut self,
        key: &ObjectKey,
        eviction: Eviction,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let object = context.view.object(Kind::of::<Pod>(), key);
        let (Some(tracked), Some(object)) = (self.pods.get_mut(key), object) else { return };
        if tracked.worker.kill.is_some() {
            return;
        }
        let Eviction { message, annotations } = eviction;
        let said = Said { annotations, ..warning(EVICTED, &message) };
        step.write(record(&Regarding::object(object), &tracked.node, said));
        let killing = tracked.worker.killings();
        let regarding = Regarding::object(object);
        let node = tracked.node.clone();
        step.writes.extend(killing.into_iter().map(|said| record(&regarding, &node, said)));
        tracked.worker.evict(message, context.now);
        step.enqueue.push((pod_key(key), Duration::ZERO));
    }

    /// Takes in what a change means for the model.
    pub(super) fn observe_load(&mut self, change: &Change, queue: &mut Enqueue) {
        let (kind, key) = (change.kind(), change.key());
        if kind == Kind::of::<Service>() || kind == Kind::of::<Pod>() && self.moves_requests(change)
        {
            self.loads.reroute();
            queue.now(WorkKey::singleton(LOAD));
        }
        if kind == Kind::of::<ConfigMap>() {
            for pod in self.loads.readers(key).cloned().collect::<Vec<_>>() {
                let pod = &pod;
                if let Some(tracked) = self.pods.get_mut(pod) {
                    tracked.measured.revision = 0;
                    queue.now(pod_key(pod));
                }
            }
        }
        let says = |object: &Option<std::sync::Arc<Object>>| {
            object.as_ref().is_some_and(|object| tells_values(object))
        };
        if says(&change.new) || self.values.has_told(kind, key) {
            queue.now(WorkKey::object(kind, key));
        }
    }

    /// Whether other pods answer requests than before.
    fn moves_requests(&self, change: &Change) -> bool {
        if !self.loads.has_clients() {
            return false;
        }
        let of = |object: &Option<std::sync::Arc<Object>>| {
            let pod = object.as_ref()?.typed::<Pod>()?;
            takes_requests(pod).then(|| pod.metadata.labels.clone())
        };
        of(&change.old) != of(&change.new)
    }
}

impl PodAgent {
    /// Tells the board what an object's annotations say of metrics.
    pub(super) fn take_values(&mut self, key: &WorkKey, context: &Context<'_>) -> Step {
        let mut step = Step::done();
        let Some(kind) = key.kind else { return step };
        let object = context.view.object(kind, &key.key);
        let says = object.is_some_and(|object| tells_values(object));
        if !says && !self.values.has_told(kind, &key.key) {
            return step;
        }
        let board = self.loads.board();
        let problems = self.values.take(kind, &key.key, context.view, board, context.now);
        if let Some(object) = object {
            let regarding = Regarding::object(object);
            let said = problems.iter().map(|problem| warning(INVALID, problem));
            step.writes.extend(said.map(|said| record(&regarding, "", said)));
        }
        step
    }

    /// Takes in that a machine is up, or no more.
    pub(super) fn watch_machine(&mut self, key: &WorkKey, context: &Context<'_>) -> Step {
        let now = context.now;
        let Some(instance) = context.view.get::<Instance>(&key.key) else {
            if let Some(name) = self.machines.remove(&key.key) {
                self.loads.node_gone(&name);
            }
            return Step::done();
        };
        let name = instance.spec.private_dns_name.as_str();
        let is_up =
            matches!(instance.status.state, InstanceState::Pending | InstanceState::Running);
        if !is_up {
            if self.machines.remove(&key.key).is_some() {
                self.loads.node_gone(name);
            }
            return Step::done();
        }
        let registers = Time::from_nanos(instance.status.registers_at_nanos);
        if now < registers {
            return Step::again_after(registers.since(now));
        }
        let mut step = Step::done();
        if self.machines.insert(key.key.clone(), name.to_owned()).is_none() {
            self.loads.node_up(instance, now);
            let pods = context.view.pods_on(name).map(|pod| (pod_key(pod.key()), Duration::ZERO));
            step.enqueue.extend(pods);
            self.plan_tick(now, &mut step);
        }
        step
    }
}

fn pod_key(pod: &ObjectKey) -> WorkKey {
    WorkKey::object(Kind::of::<Pod>(), pod)
}

fn ended_at(run: &Run, now: Time) -> Time {
    match &run.state {
        State::Ended(ended) => ended.at,
        _ => run.last.as_ref().map_or(now, |last| last.at),
    }
}

fn warning(reason: &'static str, message: &str) -> Said {
    Said {
        field_path: String::new(),
        kind: EventType::Warning,
        reason,
        message: message.to_owned(),
        annotations: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use wharf_model::selector::Selector;
    use wharf_ports::metrics::{Board, DescribedObject, MetricQuery, Metrics, PodQuery};

    use super::*;
    use crate::harness::{World, instance};

    const NODE: &str = "ip-192-168-0-5.ec2.internal";

    struct Lab {
        world: World<PodAgent>,
        board: Arc<Board>,
    }

    impl Lab {
        /// One node with 2 cores and 3Gi.
        fn new() -> Self {
            let board = Board::new();
            let mut world = World::new(PodAgent::new(Arc::clone(&board)));
            world.put(Box::new(instance("i-1", "192.168.0.5")));
            let node: Node = serde_json::from_value(json!({
                "metadata": {"name": NODE},
                "status": {"conditions": [{"type": "MemoryPressure", "status": "False"}]}
            }))
            .expect("a node");
            world.put(Box::new(node));
            let mut lab = Self { world, board };
            lab.run(60);
            lab
        }

        fn run(&mut self, seconds: u64) {
            self.world.run_for(Duration::from_secs(seconds));
        }

        fn pod(&mut self, name: &str, meta: Value, container: Value) {
            let mut container = container;
            container["name"] = json!("c");
            let mut pod = json!({
                "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
                "spec": {"nodeName": NODE, "containers": [container]},
                "status": {"phase": "Pending"}
            });
            for (field, value) in meta.as_object().expect("fields") {
                pod["metadata"][field] = value.clone();
            }
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            self.world.put(Box::new(pod));
        }

        fn status(&self, name: &str) -> Value {
            let key = ObjectKey::namespaced("default", name);
            let pod = self.world.view.get::<Pod>(&key).expect("it is there");
            serde_json::to_value(&pod.status).expect("JSON")
        }

        /// `cpu memory` of a pod.
        fn usage(&self, name: &str) -> Option<String> {
            let everything = Selector::default();
            let query = PodQuery { namespace: "default", selector: &everything, names: &[name] };
            let pods = self.board.pod_metrics(&query, self.world.now).expect("a board");
            let usage = &pods.first()?.containers.first()?.usage;
            let cpu = usage[0].1.milli_value_ceil();
            Some(format!("{cpu}m {}Mi", usage[1].1.value_ceil() >> 20))
        }

        fn said(&self, reason: &str) -> Vec<&str> {
            let records = self.world.records.iter().map(|(_, record)| record);
            let found = records.filter(|record| record.reason == reason);
            found.map(|record| record.message.as_str()).collect()
        }
    }

    fn stress(bytes: &str, resources: Value) -> Value {
        json!({"image": "polinux/stress", "command": ["stress"],
            "args": ["--vm", "1", "--vm-bytes", bytes, "--vm-hang", "1"], "resources": resources})
    }

    #[test]
    fn the_memory_demo_stays_within_its_limit() {
        let mut lab = Lab::new();
        let resources = json!({"requests": {"memory": "100Mi"}, "limits": {"memory": "200Mi"}});
        lab.pod("memory-demo", json!({}), stress("150M", resources));
        lab.run(60);
        assert_eq!(lab.usage("memory-demo").as_deref(), Some("70m 151Mi"));
        let writes = lab.world.writes;
        lab.run(600);
        assert_eq!(lab.world.writes, writes);
    }

    #[test]
    fn memory_over_the_limit_is_killed_again_and_again() {
        let mut lab = Lab::new();
        let resources = json!({"requests": {"memory": "50Mi"}, "limits": {"memory": "100Mi"}});
        lab.pod("memory-demo-2", json!({}), stress("250M", resources));
        lab.run(120);
        let status = lab.status("memory-demo-2");
        let container = &status["containerStatuses"][0];
        let last = &container["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], &last["reason"]), (&json!(137), &json!("OOMKilled")));
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff", "{container}");
        assert!(container["restartCount"].as_i64().is_some_and(|count| (3..=5).contains(&count)));
        let back_off = "Back-off restarting failed container c in pod memory-demo-2_default(uid-memory-demo-2)";
        assert!(lab.said("BackOff").iter().all(|message| *message == back_off));
        assert_eq!(lab.usage("memory-demo-2"), None, "nothing of it runs");
    }

    #[test]
    fn a_generator_loads_the_pods_of_a_service() {
        let mut lab = Lab::new();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "php-apache", "namespace": "default"},
            "spec": {"selector": {"run": "php-apache"}, "ports": [{"port": 80}]}
        }))
        .expect("a service");
        lab.world.put(Box::new(service));
        let server = json!({"image": "registry.k8s.io/hpa-example", "ports": [{"containerPort": 80}],
            "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "500m"}}});
        let labels = json!({"labels": {"run": "php-apache"}});
        lab.pod("php-1", labels.clone(), server.clone());
        let script = "while sleep 0.01; do wget -q -O- http://php-apache; done";
        let client = json!({"image": "busybox:1.28", "command": ["/bin/sh", "-c", script]});
        lab.pod("load-generator", json!({}), client);
        lab.run(60);
        assert_eq!(lab.usage("php-1").as_deref(), Some("500m 12Mi"));
        lab.pod("php-2", labels, server);
        lab.run(60);
        let (one, two) = (lab.usage("php-1"), lab.usage("php-2"));
        assert_eq!(one, two, "requests are spread");
        assert!(one.is_some_and(|usage| usage.starts_with("32")));
        let everything = Selector::default();
        let pods =
            PodQuery { namespace: "default", selector: &everything, names: &["php-1", "php-2"] };
        let query =
            MetricQuery::Pods { pods, metric: "http_requests_per_second", series: &everything };
        let samples = lab.board.samples(&query, lab.world.now).expect("a board");
        assert!((4_000..5_000).contains(&samples[0].value.milli_value_ceil()), "{samples:?}");
        let of_service = |lab: &Lab| {
            let object = DescribedObject {
                namespace: "default",
                api_version: "v1",
                kind: "Service",
                name: "php-apache",
            };
            let metric = "http_requests_per_second";
            let query = MetricQuery::Object { object, metric, series: &Selector::EVERYTHING };
            let found = lab.board.samples(&query, lab.world.now)?;
            Ok::<i64, String>(found[0].value.milli_value_ceil())
        };
        let each: i64 = samples.iter().map(|sample| sample.value.milli_value_ceil()).sum();
        assert!(of_service(&lab).is_ok_and(|all| (all - each).abs() <= 1), "the sum of both");
        // The generator is gone: the server rests.
        lab.world.remove::<Pod>(&ObjectKey::namespaced("default", "load-generator"));
        lab.run(60);
        assert_eq!(lab.usage("php-1").as_deref(), Some("1m 12Mi"));
        assert_eq!(of_service(&lab), Ok(0), "nobody asks, which is not to say that nobody knows");
        lab.world.remove::<Service>(&ObjectKey::namespaced("default", "php-apache"));
        lab.run(60);
        assert!(of_service(&lab).is_err(), "{:?}", of_service(&lab));
    }

    #[test]
    fn curves_come_from_annotations_and_configmaps() {
        let mut lab = Lab::new();
        let configmap = |rows: &str| -> Box<ConfigMap> {
            let json = json!({"metadata": {"name": "usage", "namespace": "default"},
                "data": {"cpu.csv": rows}});
            Box::new(serde_json::from_value(json).expect("a ConfigMap"))
        };
        lab.world.put(configmap("0,100m\n10,lots\n"));
        let annotations = json!({"annotations": {
            "load.wharf.dev/cpu": "trace configmap=usage key=cpu.csv",
            "load.wharf.dev/memory": "64Mi",
            "custom.load.wharf.dev/packets-per-second": "1500"
        }});
        lab.pod("traced", annotations, json!({"image": "nginx"}));
        lab.run(60);
        let problem = "annotation load.wharf.dev/cpu: row 2 of cpu.csv in ConfigMap usage is \"10,lots\"; a row is TIME,VALUE such as 90s,250m, and times rise";
        assert_eq!(lab.said(INVALID), [problem]);
        assert_eq!(lab.usage("traced").as_deref(), Some("1m 64Mi"));
        lab.world.put(configmap("0,100m\n100,1200m\n"));
        lab.run(30);
        assert_eq!(lab.usage("traced").as_deref(), Some("100m 64Mi"));
        lab.run(90);
        assert_eq!(lab.usage("traced").as_deref(), Some("1200m 64Mi"));
        let everything = Selector::default();
        let pods = PodQuery { namespace: "default", selector: &everything, names: &["traced"] };
        let query = MetricQuery::Pods { pods, metric: "packets-per-second", series: &everything };
        let samples = lab.board.samples(&query, lab.world.now).expect("it is annotated");
        assert_eq!(samples[0].value.to_api().0, "1500");
    }

    #[test]
    fn a_full_node_evicts_who_uses_most_beyond_its_request() {
        let mut lab = Lab::new();
        let growing =
            json!({"annotations": {"load.wharf.dev/memory": "steps 0s=100Mi 60s=2200Mi"}});
        lab.pod("growing", growing, json!({"image": "nginx"}));
        let resources = json!({"requests": {"memory": "600Mi"}});
        let steady = json!({"annotations": {"load.wharf.dev/memory": "400Mi"}});
        lab.pod("steady", steady, json!({"image": "nginx", "resources": resources}));
        lab.run(100);
        let status = lab.status("growing");
        assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Evicted")));
        let message = status["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with(
                "The node was low on resource: memory. Threshold quantity: 100Mi, available: "
            ),
            "{message}"
        );
        assert!(
            message.ends_with(
                "Container c was using 2200Mi, request is 0, has larger consumption of memory. "
            ),
            "{message}"
        );
        assert_eq!(lab.said("Evicted"), [message]);
        let records = lab.world.records.iter().map(|(_, record)| record);
        let record = records.clone().find(|record| record.reason == "Evicted").expect("one");
        assert_eq!(record.annotations["offending_containers"], "c");
        assert_eq!(record.annotations["offending_containers_usage"], "2200Mi");
        let conditions = status["conditions"].as_array().expect("conditions");
        let target = conditions.iter().find(|one| one["type"] == "DisruptionTarget").expect("it");
        assert_eq!(
            (&target["status"], &target["reason"], &target["message"]),
            (&json!("True"), &json!("TerminationByKubelet"), &json!(message))
        );
        assert_eq!(lab.said("EvictionThresholdMet"), ["Attempting to reclaim memory"]);
        assert_eq!(lab.status("steady")["phase"], "Running");
        let pressed = |lab: &Lab| {
            let node = lab.world.view.get_cluster::<Node>(NODE).expect("it is there");
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.expect("conditions")[0].status.clone()
        };
        assert_eq!(pressed(&lab), "True");
        lab.run(320);
        assert_eq!(pressed(&lab), "False");
    }

    /// A lab at high speed comes to its steps late; a rehearsal never does.
    #[test]
    fn a_loop_that_comes_late_measures_the_same() {
        let history = |late: u64| -> Vec<Option<String>> {
            let mut lab = Lab::new();
            let curve = "steps 0s=100m 33s=700m 50s=200m 91s=1100m 92s=300m";
            let annotations = json!({"annotations": {"load.wharf.dev/cpu": curve}});
            lab.pod("curve", annotations, json!({"image": "nginx"}));
            lab.run(20);
            let mut look = || {
                for _ in 0..7 / late {
                    lab.world.now = lab.world.now + Duration::from_secs(late);
                    lab.run(0);
                }
                lab.usage("curve")
            };
            (0..20).map(|_| look()).collect()
        };
        let (prompt, late) = (history(1), history(7));
        assert_eq!(prompt, late);
        let distinct: std::collections::BTreeSet<_> = prompt.iter().flatten().collect();
        assert!(distinct.len() > 4, "{prompt:?}");
    }

    #[test]
    fn a_restart_of_the_simulation_goes_on_where_it_was() {
        let mut lab = Lab::new();
        let resources = json!({"limits": {"memory": "200Mi"}});
        lab.pod("memory-demo", json!({}), stress("150M", resources));
        lab.run(60);
        lab.board = Board::new();
        lab.world.restart(PodAgent::new(Arc::clone(&lab.board)));
        lab.run(10);
        assert_eq!(lab.usage("memory-demo"), None, "nothing has been scraped twice");
        lab.run(35);
        assert_eq!(lab.usage("memory-demo").as_deref(), Some("70m 151Mi"));
    }
}
