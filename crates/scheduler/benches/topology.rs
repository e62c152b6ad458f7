//! How long decisions take about pods that look at other pods: upstream's scheduler_perf workloads
//! of affinity and spreading without an API, every decision carried out in the snapshot.
//! `cargo bench -p wharf-scheduler --bench topology`, with the start of a workload's name to run
//! only some.

#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]
#![allow(clippy::print_stdout, reason = "what it measured is its output")]
#![allow(clippy::unwrap_used, reason = "what it is fed is written below")]

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use wharf_scheduler::{Decision, Memo, Profile, Rotation, Snapshot, SpreadDefaults, schedule_with};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    println!(
        "{:46} {:>9} {:>10} {:>10} {:>10}",
        "workload", "decisions", "each", "median", "compile"
    );
    for workload in workloads() {
        let name = workload.name;
        if !wanted.is_empty() && !wanted.iter().any(|word| name.starts_with(word)) {
            continue;
        }
        let (mut times, compiling) = workload.run();
        let count = u32::try_from(times.len()).unwrap();
        let each = times.iter().sum::<Duration>() / count;
        times.sort_unstable();
        let median = times[times.len() / 2];
        let compile = compiling / count;
        println!("{name:46} {:>9} {each:>10.2?} {median:>10.2?} {compile:>10.2?}", times.len());
    }
}

/// A cluster and the pods that come to it.
struct Workload {
    name: &'static str,
    nodes: usize,
    zones: usize,
    /// How many of the nodes have a taint.
    tainted: usize,
    namespaces: usize,
    service: bool,
    /// Whether the profile has a list of default constraints.
    listed: bool,
    /// Pods that are there before, placed by the same rules.
    before: Vec<Pod>,
    /// Pods about which decisions are timed.
    measured: Vec<Pod>,
}

impl Workload {
    fn new(name: &'static str, before: Vec<Pod>, measured: Vec<Pod>) -> Self {
        Self {
            name,
            nodes: 5_000,
            zones: 3,
            tainted: 0,
            namespaces: 0,
            service: false,
            listed: false,
            before,
            measured,
        }
    }

    fn run(self) -> (Vec<Duration>, Duration) {
        let mut snapshot = Snapshot::new();
        for index in 0..self.nodes {
            snapshot.set_node(&node(index, self.zones, index < self.tainted));
        }
        for index in 0..self.namespaces {
            let labels = json!({"team": "devops"});
            let namespace = json!({"metadata": {"name": format!("ns-{index}"), "labels": labels}});
            snapshot.set_namespace(&serde_json::from_value(namespace).unwrap());
        }
        if self.service {
            let service = json!({
                "metadata": {"name": "service", "namespace": "default"},
                "spec": {"selector": {"app": "default-spread"}}
            });
            snapshot.set_service(&serde_json::from_value(service).unwrap());
        }
        let mut profile = Profile::default();
        if self.listed {
            let list = json!([
                {"maxSkew": 3, "topologyKey": HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway"},
                {"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"},
            ]);
            profile.arguments.spread_defaults =
                SpreadDefaults::List(serde_json::from_value(list).unwrap());
        }
        snapshot.compile_profile(&mut profile);
        let (mut rotation, mut memo) = (Rotation::default(), Memo::new());
        let mut compiling = Duration::ZERO;
        let mut times = Vec::with_capacity(self.measured.len());
        for (pod, counts) in self
            .before
            .iter()
            .map(|pod| (pod, false))
            .chain(self.measured.iter().map(|pod| (pod, true)))
        {
            let started = Instant::now();
            let info = snapshot.compile(pod);
            let compiled = Instant::now();
            let decision = schedule_with(&mut memo, &snapshot, &info, &profile, &mut rotation);
            let node = match decision {
                Decision::Bind(placement) => placement.node,
                Decision::Unschedulable(answer) => {
                    let nomination = answer.preemption.nomination.expect("evictions make room");
                    for victim in &nomination.victims {
                        snapshot.displace(&victim.uid);
                    }
                    nomination.node
                }
            };
            let node = snapshot.node(node).facts.name.clone();
            snapshot.place(info, &node);
            if counts {
                compiling += compiled - started;
                times.push(compiled.elapsed());
            }
        }
        (times, compiling)
    }
}

fn workloads() -> Vec<Workload> {
    let anti = |namespaces: Value| {
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"color": "green"}}, "topologyKey": HOSTNAME, "namespaces": namespaces}
        ]}})
    };
    let term = |color: &str, key: &str| json!({"labelSelector": {"matchLabels": {"color": color}}, "topologyKey": key, "namespaces": ["sched-0", "sched-1"]});
    let required = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("blue", ZONE)]}});
    let preferred = |kind: &str, color: &str| json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term(color, HOSTNAME)}]}});
    let by_namespace = |color: &str, key: &str| json!({"labelSelector": {"matchLabels": {"color": color}}, "topologyKey": key, "namespaceSelector": {"matchLabels": {"team": "devops"}}});
    let pair = |name, before: usize, measured: usize, color: &str, affinity: Value| {
        let make = |namespace: &str, count: usize| {
            (0..count)
                .map(|index| pod(namespace, index, color, json!({"affinity": affinity})))
                .collect()
        };
        Workload::new(name, make("sched-0", before), make("sched-1", measured))
    };
    let spread = |name, when: &str, skew: i64| {
        let constraint = json!({"topologySpreadConstraints": [{"maxSkew": skew, "topologyKey": ZONE, "whenUnsatisfiable": when, "labelSelector": {"matchLabels": {"color": "blue"}}}]});
        let before = (0..5_000).map(|index| pod("default", index, "plain", json!({})));
        let measured =
            (5_000..10_000).map(|index| pod("default", index, "blue", constraint.clone()));
        Workload::new(name, before.collect(), measured.collect())
    };
    let selecting = |name, per_namespace: usize, measured: usize, color: &str, affinity: Value| {
        let before = (0..100).flat_map(|namespace| {
            let affinity = affinity.clone();
            (0..per_namespace).map(move |index| {
                pod(&format!("ns-{namespace}"), index, color, json!({"affinity": affinity}))
            })
        });
        let measured = (per_namespace..per_namespace + measured)
            .map(|index| pod("ns-0", index, color, json!({"affinity": affinity})));
        Workload { namespaces: 100, ..Workload::new(name, before.collect(), measured.collect()) }
    };
    // Every node is full of pods that can be pushed out.
    let evicting = |name, spec: Value| {
        let before = (0..20_000).map(|index| {
            let requests = json!({"cpu": "900m", "memory": "500Mi"});
            let containers = json!([{"name": "c", "resources": {"requests": requests}}]);
            pod("sched-0", index, "green", json!({"containers": containers}))
        });
        let measured = (20_000..20_300).map(|index| {
            let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "3"}}}]);
            let mut spec = spec.clone();
            spec["containers"] = containers;
            spec["priority"] = json!(10);
            pod("sched-1", index, "green", spec)
        });
        Workload::new(name, before.collect(), measured.collect())
    };
    let one_zone = |workload: Workload| Workload { zones: 1, ..workload };
    let inclusion = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "DoNotSchedule", "nodeTaintsPolicy": "Honor", "nodeAffinityPolicy": "Ignore", "labelSelector": {"matchLabels": {"color": "blue"}}}]});
    let default_pods = |from: usize, to: usize| {
        (from..to)
            .map(|index| pod_with("default", index, json!({"app": "default-spread"}), json!({})))
            .collect()
    };
    let mixed = [
        json!({}),
        json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("blue", ZONE)]}}),
        anti(json!(["sched-0", "sched-1"])),
        preferred("podAffinity", "red"),
        preferred("podAntiAffinity", "yellow"),
    ];
    let colors = ["plain", "blue", "green", "red", "yellow"];
    let mixed = mixed.iter().zip(colors).flat_map(|(affinity, color)| {
        (0..if color == "green" { 1_000 } else { 2_000 })
            .map(move |index| pod("sched-0", index, color, json!({"affinity": affinity})))
    });
    vec![
        pair("anti-affinity/hostname", 1_000, 2_000, "green", anti(json!(["sched-0", "sched-1"]))),
        one_zone(pair("affinity/one zone", 5_000, 5_000, "blue", required)),
        pair("preferred affinity/hostname", 5_000, 5_000, "red", preferred("podAffinity", "red")),
        pair(
            "preferred anti-affinity/hostname",
            5_000,
            5_000,
            "yellow",
            preferred("podAntiAffinity", "yellow"),
        ),
        spread("spread/3 zones", "DoNotSchedule", 5),
        spread("preferred spread/3 zones", "ScheduleAnyway", 5),
        Workload {
            service: true,
            ..Workload::new(
                "default spread/service",
                default_pods(0, 5_000),
                default_pods(5_000, 15_000),
            )
        },
        Workload {
            service: true,
            listed: true,
            ..Workload::new(
                "listed default spread/service",
                default_pods(0, 5_000),
                default_pods(5_000, 7_000),
            )
        },
        evicting(
            "preemption/anti-affinity",
            json!({"affinity": anti(json!(["sched-0", "sched-1"]))}),
        ),
        evicting(
            "preemption/spread",
            json!({"topologySpreadConstraints": [{"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"color": "green"}}}]}),
        ),
        Workload {
            tainted: 1_000,
            ..Workload::new(
                "inclusion policy/hostname",
                Vec::new(),
                (0..4_000).map(|index| pod("default", index, "blue", inclusion.clone())).collect(),
            )
        },
        Workload {
            zones: 3,
            ..Workload::new(
                "mixed/plain pods amid affinity",
                mixed.collect(),
                (0..5_000).map(|index| pod("sched-1", index, "plain", json!({}))).collect(),
            )
        },
        selecting(
            "namespaceSelector/anti-affinity",
            20,
            2_000,
            "green",
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [by_namespace("green", HOSTNAME)]}}),
        ),
        selecting(
            "namespaceSelector/preferred anti-affinity",
            40,
            2_000,
            "yellow",
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": by_namespace("yellow", HOSTNAME)}]}}),
        ),
        one_zone(selecting(
            "namespaceSelector/affinity",
            50,
            2_000,
            "blue",
            json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [by_namespace("blue", ZONE)]}}),
        )),
        selecting(
            "namespaceSelector/preferred affinity",
            50,
            5_000,
            "red",
            json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": by_namespace("red", HOSTNAME)}]}}),
        ),
    ]
}

fn node(index: usize, zones: usize, tainted: bool) -> Node {
    let name = format!("node-{index}");
    let taints = if tainted { json!([{"key": "foo", "effect": "NoSchedule"}]) } else { json!([]) };
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {HOSTNAME: name, ZONE: format!("zone-{}", index % zones)}},
        "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}}
    }))
    .unwrap()
}

fn pod(namespace: &str, index: usize, color: &str, spec: Value) -> Pod {
    pod_with(namespace, index, json!({"color": color, "name": "test"}), spec)
}

fn pod_with(namespace: &str, index: usize, labels: Value, mut spec: Value) -> Pod {
    let name = format!("{}-{index}", labels["color"].as_str().unwrap_or("pod"));
    if spec.get("containers").is_none() {
        let requests = json!({"cpu": "100m", "memory": "500Mi"});
        spec["containers"] = json!([{"name": "pause", "resources": {"requests": requests}}]);
    }
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": spec,
    }))
    .unwrap()
}
