//! How many decisions a second the core makes: upstream's scheduler_perf workloads without an API,
//! every decision carried out in the snapshot. `cargo bench -p wharf-scheduler`, with the start of
//! a workload's name to run only some, and with `-- --plain` without a memo.

#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
#![allow(clippy::print_stdout, reason = "what it measured is its output")]
#![allow(clippy::unwrap_used, reason = "what it is fed is written below")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use wharf_scheduler::{
    Decision, Memo, PodInfo, Profile, Rotation, Snapshot, schedule, schedule_with,
};

/// Whether nothing is remembered between decisions.
static PLAIN: AtomicBool = AtomicBool::new(false);

fn main() {
    PLAIN.store(std::env::args().any(|word| word == "--plain"), Relaxed);
    // Cargo adds `--bench`.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.starts_with(word));
    println!(
        "{:42} {:>9} {:>12} {:>10} {:>10}",
        "workload", "decisions", "a second", "each", "median"
    );
    for (name, run) in WORKLOADS.iter().filter(|(name, _)| runs(name)) {
        let mut times = run();
        let all: Duration = times.iter().sum();
        let each = all / u32::try_from(times.len()).unwrap();
        let rate = times.len() as f64 / all.as_secs_f64();
        times.sort_unstable();
        let median = times[times.len() / 2];
        println!("{name:42} {:>9} {rate:>12.0} {each:>10.2?} {median:>10.2?}", times.len());
    }
}

/// The workloads by name.
const WORKLOADS: &[(&str, Workload)] = &[
    ("basic/5000 nodes", || basic(5_000, 10_000, sampled())),
    ("basic/5000 nodes, with compiling", || basic_compiled(5_000, 10_000)),
    ("basic/5000 nodes, 50 shapes", || shapes(5_000, 10_000, 50)),
    ("basic/5000 nodes, 1000 shapes", || shapes(5_000, 10_000, 1_000)),
    ("all scored/5000 nodes", || basic(5_000, 10_000, every_node())),
    ("daemonset/15000 nodes, one pod each", || daemon_set(15_000, 15_000, 15_000)),
    ("daemonset/15000 nodes, all to one", || daemon_set(15_000, 30_000, 1)),
    ("unschedulable/5000 nodes", || unschedulable(5_000, 2_000)),
    ("preemption/5000 nodes, victims leave", || preemption(5_000, 5_000, true)),
    ("preemption/5000 nodes, victims stay", || preemption(5_000, 5_000, false)),
    ("curve/100 nodes", || basic(100, 4_000, every_node())),
    ("curve/1000 nodes", || basic(1_000, 10_000, every_node())),
    ("curve/10000 nodes", || basic(10_000, 5_000, every_node())),
    ("curve/50000 nodes", || basic(50_000, 2_000, every_node())),
    ("devices/500 nodes of ten", || devices(500, 2_500, sampled())),
    ("devices/500 nodes of ten, all scored", || devices(500, 2_500, every_node())),
    ("update/100 nodes", || updates(100)),
    ("update/5000 nodes", || updates(5_000)),
    ("update/50000 nodes", || updates(50_000)),
];

/// Makes a cluster, and tells how long each decision took.
type Workload = fn() -> Vec<Duration>;

/// A cluster of upstream's default nodes, and who decides.
struct Core {
    snapshot: Snapshot,
    profile: Profile,
    rotation: Rotation,
    /// `None` decides without: the plain path.
    memo: Option<Memo>,
}

impl Core {
    fn new(nodes: usize, slots: usize, profile: Profile) -> Self {
        let mut snapshot = Snapshot::new();
        for index in 0..nodes {
            snapshot.set_node(&node(index, slots));
        }
        let memo = (!PLAIN.load(Relaxed)).then(Memo::new);
        Self { snapshot, profile, rotation: Rotation::default(), memo }
    }

    fn compile(&mut self, pods: impl IntoIterator<Item = Pod>) -> Vec<Arc<PodInfo>> {
        pods.into_iter().map(|pod| self.snapshot.compile(&pod)).collect()
    }

    fn decide(&mut self, pod: &PodInfo) -> Decision {
        let Self { snapshot, profile, rotation, memo } = self;
        match memo {
            Some(memo) => schedule_with(memo, snapshot, pod, profile, rotation),
            None => schedule(snapshot, pod, profile, rotation),
        }
    }

    fn bind(&mut self, pod: Arc<PodInfo>) {
        let Decision::Bind(placement) = self.decide(&pod) else { panic!("{} fits", pod.key) };
        let node = self.snapshot.node(placement.node).facts.name.clone();
        self.snapshot.place(pod, &node);
    }
}

fn sampled() -> Profile {
    Profile::default()
}

fn every_node() -> Profile {
    Profile { percentage_of_nodes_to_score: 100, ..Profile::default() }
}

fn timed<T>(items: impl IntoIterator<Item = T>, mut run: impl FnMut(T)) -> Vec<Duration> {
    let time = |item| {
        let started = Instant::now();
        run(item);
        started.elapsed()
    };
    items.into_iter().map(time).collect()
}

fn basic(nodes: usize, pods: usize, profile: Profile) -> Vec<Duration> {
    let mut core = Core::new(nodes, 110, profile);
    let pods = core.compile((0..pods).map(|index| small(index, 100)));
    timed(pods, |pod| core.bind(pod))
}

fn basic_compiled(nodes: usize, pods: usize) -> Vec<Duration> {
    let mut core = Core::new(nodes, 110, sampled());
    let pods: Vec<_> = (0..pods).map(|index| small(index, 100)).collect();
    timed(&pods, |pod| {
        let pod = core.snapshot.compile(pod);
        core.bind(pod);
    })
}

/// Every pod claims one of the devices of a class.
fn devices(nodes: usize, pods: usize, profile: Profile) -> Vec<Duration> {
    let mut core = Core::new(nodes, 110, profile);
    let class = json!({"metadata": {"name": "c"},
        "spec": {"selectors": [{"cel": {"expression": "device.driver == 'd.example.com'"}}]}});
    core.snapshot.set_device_class(&serde_json::from_value(class).unwrap());
    for index in 0..nodes {
        let name = format!("node-{index}");
        let devices: Vec<_> = (0..10).map(|at| json!({"name": format!("d{at}")})).collect();
        let slice = json!({"metadata": {"name": name}, "spec": {
            "driver": "d.example.com", "nodeName": name, "devices": devices,
            "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}}});
        core.snapshot.set_resource_slice(&serde_json::from_value(slice).unwrap());
    }
    let pods = (0..pods).map(|index| {
        let name = format!("pod-{index}");
        let request = json!({"name": "r", "exactly": {"deviceClassName": "c"}});
        let claim = json!({"metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"devices": {"requests": [request]}}});
        core.snapshot.set_resource_claim(&serde_json::from_value(claim).unwrap());
        with_spec(
            &name,
            json!({
                "resourceClaims": [{"name": "d", "resourceClaimName": name}],
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}],
            }),
        )
    });
    let pods: Vec<_> = pods.collect();
    let pods = core.compile(pods);
    timed(pods, |pod| {
        let Decision::Bind(placement) = core.decide(&pod) else { panic!("{} fits", pod.key) };
        let node = core.snapshot.node(placement.node).facts.name.clone();
        core.snapshot.reserve_devices(&pod, &node).unwrap();
        core.snapshot.place(pod, &node);
    })
}

fn shapes(nodes: usize, pods: usize, shapes: usize) -> Vec<Duration> {
    let mut core = Core::new(nodes, 110, sampled());
    let pods = core.compile((0..pods).map(|index| small(index, 50 + index % shapes)));
    timed(pods, |pod| core.bind(pod))
}

fn daemon_set(nodes: usize, pods: usize, hosts: usize) -> Vec<Duration> {
    let mut core = Core::new(nodes, 90_000, sampled());
    let pods = core.compile((0..pods).map(|index| pinned(index, index % hosts)));
    timed(pods, |pod| core.bind(pod))
}

/// Refusals of a pod that asks for more than any node has, with a binding now and then.
fn unschedulable(nodes: usize, pods: usize) -> Vec<Duration> {
    let mut core = Core::new(nodes, 110, sampled());
    let others = core.compile((0..pods).map(|index| small(index, 100)));
    let huge = core.compile((0..pods).map(|index| pod(&format!("huge-{index}"), "9", "500Mi", 10)));
    let mut others = others.into_iter();
    let mut times = Vec::new();
    for huge in &huge {
        times.extend(timed([huge], |huge| {
            let Decision::Unschedulable(answer) = core.decide(huge) else { panic!("too large") };
            assert_eq!(answer.diagnosis.nodes, nodes);
        }));
        others.next().into_iter().for_each(|other| core.bind(other));
    }
    times
}

/// Full nodes, and pods of a higher priority each of which has to make its own room. Victims leave
/// before the next decision, or while all of them are still there.
fn preemption(nodes: usize, pods: usize, leave: bool) -> Vec<Duration> {
    let mut core = Core::new(nodes, 110, sampled());
    for index in 0..4 * nodes {
        let victim = core.snapshot.compile(&pod(&format!("low-{index}"), "900m", "500Mi", 0));
        core.snapshot.place(victim, &format!("node-{}", index % nodes));
    }
    let pods = core.compile((0..pods).map(|index| pod(&format!("high-{index}"), "3", "500Mi", 10)));
    timed(pods, |pod| {
        let Decision::Unschedulable(answer) = core.decide(&pod) else { panic!("all is full") };
        let nomination = answer.preemption.nomination.expect("there is a way");
        assert_eq!(nomination.victims.len(), 3);
        let node = core.snapshot.node(nomination.node).facts.name.clone();
        if leave {
            for victim in &nomination.victims {
                core.snapshot.displace(&victim.uid);
            }
        }
        core.snapshot.nominate(pod, &node);
    })
}

/// Pods that come and go on nodes of a hundred pods, decisions aside.
fn updates(nodes: usize) -> Vec<Duration> {
    let mut core = Core::new(nodes, 110, sampled());
    let pods = core.compile((0..100_000).map(|index| small(index, 10)));
    let host = |index: usize| format!("node-{}", index % nodes.min(1_000));
    for (index, pod) in pods.iter().enumerate() {
        core.snapshot.place(pod.clone(), &host(index));
    }
    timed(pods.iter().enumerate(), |(index, pod)| {
        core.snapshot.displace(&pod.uid);
        core.snapshot.place(pod.clone(), &host(index));
    })
}

fn node(index: usize, slots: usize) -> Node {
    let name = format!("node-{index}");
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": format!("zone-{}", index % 3),
        }},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": slots.to_string()}}
    }))
    .unwrap()
}

fn pod(name: &str, cpu: &str, memory: &str, priority: i32) -> Pod {
    with_spec(
        name,
        json!({
            "priority": priority,
            "containers": [{"name": "pause", "resources": {"requests": {"cpu": cpu, "memory": memory}}}],
        }),
    )
}

fn small(index: usize, cpu_milli: usize) -> Pod {
    pod(&format!("pod-{index}"), &format!("{cpu_milli}m"), "500Mi", 0)
}

fn pinned(index: usize, host: usize) -> Pod {
    let field =
        json!({"key": "metadata.name", "operator": "In", "values": [format!("node-{host}")]});
    with_spec(
        &format!("daemon-{index}"),
        json!({
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [field]}]
            }}},
            "containers": [{"name": "pause"}],
        }),
    )
}

fn with_spec(name: &str, spec: Value) -> Pod {
    let uid = format!("4f9c1a52-7d1e-4a57-9d5e-{:012x}", hash(name));
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": spec,
    }))
    .unwrap()
}

/// Tells names apart in uids of the usual length.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0, |hash, byte| (hash * 31 + u64::from(byte)) % (1 << 47))
}
