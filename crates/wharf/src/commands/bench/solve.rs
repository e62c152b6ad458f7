//! `wharf bench solve`: which machines a batch of pods needs, on upstream's own benchmark and on one
//! large deployment with the whole catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use smallvec::SmallVec;
use wharf_cloud::catalog::{Catalog as Ec2, NodeSettings};
use wharf_model::instance_type::{
    CapacityType, InstanceType, InstanceTypeLabel, Offering, PriceSource,
};
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::object::ObjectKey;
use wharf_model::random::Random;
use wharf_model::requirements::{Operator, Requirement, Requirements};
use wharf_model::resources::Resources;
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_provision::catalog::Catalog;
use wharf_provision::pod::{Constraints, Origin, PodRequest};
use wharf_provision::pool::Pool;
use wharf_provision::solve::{Packing, Settings, Solution, Solver};
use wharf_provision::terms::{TopologyKind, TopologyTerm};

use super::memory_kib;
use crate::cli::{Output, PackingChoice, SolveArgs, SolveWorkload};
use crate::failure::Failure;
use crate::lab::clock::machine_instant;
use crate::output;

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
/// Upstream's benchmark has so many types.
const TYPES: i64 = 400;
const CPU_MILLI: [i64; 5] = [100, 250, 500, 1_000, 1_500];
const MEMORY_MIB: [i64; 6] = [100, 256, 512, 1_024, 2_048, 4_096];
const LABEL_VALUES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
/// The seed of upstream's benchmark; the generator is another.
const SEED: u64 = 42;
const DIVERSE_SIZES: [usize; 6] = [100, 1_000, 2_000, 5_000, 10_000, 20_000];
const INFLATE_SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];

/// Runs what is asked for.
pub(super) fn run(args: &SolveArgs, format: Output) -> Result<(), Failure> {
    let workloads = match args.workload {
        Some(workload) => vec![workload],
        None => vec![SolveWorkload::Diverse, SolveWorkload::Inflate],
    };
    let packings = match args.packing {
        Some(packing) => vec![packing],
        None => vec![PackingChoice::Upstream, PackingChoice::Cost],
    };
    let mut rows = Vec::new();
    for workload in workloads {
        let sizes = match (&args.pods[..], workload) {
            ([], SolveWorkload::Diverse) => &DIVERSE_SIZES[..],
            ([], SolveWorkload::Inflate) => &INFLATE_SIZES[..],
            (sizes, _) => sizes,
        };
        let pool = match workload {
            SolveWorkload::Diverse => pool(upstream_types()),
            SolveWorkload::Inflate => inflate_pool()?,
        };
        for size in sizes {
            let pods = match workload {
                SolveWorkload::Diverse => diverse(*size),
                SolveWorkload::Inflate => inflate(*size),
            };
            for packing in &packings {
                rows.push(measure(workload, &pool, &pods, *packing, args.runs.max(1)));
            }
        }
    }
    output::data(&match format {
        Output::Json => json!({ "items": rows }).to_string(),
        Output::Text => text(&rows),
    });
    Ok(())
}

/// The median time of some runs, each from a snapshot on; and what is bought.
fn measure(
    workload: SolveWorkload,
    pool: &Pool,
    pods: &[PodRequest],
    packing: PackingChoice,
    runs: u32,
) -> Value {
    let packing_setting: Packing = packing.into();
    let settings = Settings { packing: packing_setting, ..Settings::default() };
    let (mut times, mut found) = (Vec::new(), (0, 0, Price::ZERO));
    for _ in 0..runs {
        let begun = machine_instant();
        let mut solver = Solver::new(vec![pool.clone()], Vec::new(), settings);
        let solution = std::hint::black_box(solver.solve(pods));
        times.push(begun.elapsed());
        found = (solution.claims.len(), solution.failed.len(), cost(&solver, &solution));
    }
    times.sort_unstable();
    let milliseconds = times[times.len() / 2].as_secs_f64() * 1_000.0;
    json!({
        "workload": workload.name(),
        "pods": pods.len(),
        "packing": packing.name(),
        "milliseconds": (milliseconds * 10.0).round() / 10.0,
        "podsPerSecond": (pods.len() as f64 / milliseconds * 1_000.0).round(),
        "machines": found.0,
        "unplaced": found.1,
        "usdPerHour": found.2.nano_dollars_per_hour() as f64 / 1e9,
        "peakMemoryMiB": memory_kib("self", "VmHWM:") / 1024,
    })
}

fn cost(solver: &Solver, solution: &Solution) -> Price {
    let price = |claim: &wharf_provision::claim::PlannedClaim| {
        claim.launch(&solver.pool(claim.pool).catalog).2
    };
    solution.claims.iter().map(price).sum()
}

fn text(rows: &[Value]) -> String {
    let mut lines = vec![format!(
        "{:<10}{:>9}  {:<10}{:>11}{:>12}{:>10}{:>10}{:>13}{:>11}",
        "WORKLOAD",
        "PODS",
        "PACKING",
        "MS",
        "PODS/S",
        "MACHINES",
        "UNPLACED",
        "USD/HOUR",
        "PEAK MIB"
    )];
    for row in rows {
        let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| row[key].as_f64().unwrap_or_default();
        lines.push(format!(
            "{:<10}{:>9}  {:<10}{:>11.1}{:>12.0}{:>10}{:>10}{:>13.5}{:>11}",
            word("workload"),
            number("pods"),
            word("packing"),
            number("milliseconds"),
            number("podsPerSecond"),
            number("machines"),
            number("unplaced"),
            number("usdPerHour"),
            number("peakMemoryMiB"),
        ));
    }
    lines.join("\n")
}

/// Upstream's types: the i-th has i cpus, twice as many GiB and ten times as many pods, and costs a
/// tenth of a dollar for each cpu and for each (decimal) GB.
fn upstream_types() -> Vec<InstanceType> {
    (1..=TYPES).map(upstream_type).collect()
}

fn upstream_type(cpus: i64) -> InstanceType {
    let capacity = Resources {
        cpu_milli: cpus * 1_000,
        memory_bytes: 2 * cpus * GIB,
        ephemeral_storage_bytes: 20 * GIB,
        pods: 10 * cpus,
        ..Resources::default()
    };
    let overhead = Resources { cpu_milli: 100, memory_bytes: 10 * MIB, ..Resources::default() };
    let none = Resources::default();
    // A tenth of a dollar for each GB is a tenth of a nano-dollar for each byte.
    let price = cpus * 100_000_000 + capacity.memory_bytes / 10;
    let offering = |capacity_type, zone: usize| Offering {
        capacity_type,
        zone: format!("test-zone-{zone}").into(),
        zone_id: format!("tstz1-{zone}a").into(),
        price: Price::from_nano_dollars_per_hour(price),
        price_source: PriceSource::Published,
        available: true,
    };
    let name = format!("fake-it-{}", cpus - 1);
    let label = |key, value: &str| InstanceTypeLabel { key, values: [value.into()].into() };
    let mut labels = vec![
        label(labels::ARCH, "amd64"),
        label(labels::OS, "linux"),
        label(labels::INSTANCE_TYPE, &name),
    ];
    labels.sort_by_key(|label| label.key);
    InstanceType {
        name: name.as_str().into(),
        labels,
        allocatable: InstanceType::compute_allocatable(&capacity, &overhead, &none, &none),
        capacity,
        kube_reserved: overhead,
        system_reserved: none.clone(),
        eviction_threshold: none,
        offerings: (1..=2)
            .map(|zone| offering(CapacityType::Spot, zone))
            .chain((1..=3).map(|zone| offering(CapacityType::OnDemand, zone)))
            .collect(),
    }
}

fn pool(types: Vec<InstanceType>) -> Pool {
    Pool {
        name: "default".into(),
        weight: 0,
        catalog: Arc::new(Catalog::new(types)),
        requirements: Requirements::from_iter([Requirement::new(
            labels::NODEPOOL,
            Operator::In,
            ["default"],
        )]),
        taints: Vec::new(),
        remaining: Vec::new(),
        daemons: Vec::new(),
    }
}

/// The whole catalogue of a region, on demand.
fn inflate_pool() -> Result<Pool, Failure> {
    let catalog = Ec2::load("us-east-1").map_err(Failure::failed)?;
    let mut pool = pool(catalog.instance_types(&NodeSettings::default()));
    pool.requirements.add(Requirement::new(labels::CAPACITY_TYPE, Operator::In, ["on-demand"]));
    Ok(pool)
}

fn inflate(count: usize) -> Vec<PodRequest> {
    let (labels, constraints) = (Arc::new(BTreeMap::new()), Arc::new(Constraints::default()));
    (0..count).map(|number| pod(number, 1_000, 0, &labels, &constraints)).collect()
}

/// Upstream's five equal classes: plain, spread over zones, spread over hosts, with company in the
/// zone, alone on the host.
fn diverse(count: usize) -> Vec<PodRequest> {
    const SPREAD: TopologyKind = TopologyKind::Spread {
        max_skew: 1,
        min_domains: None,
        honor_affinity: true,
        honor_taints: false,
    };
    let mut random = Random::for_purpose(SEED, "bench solve");
    let mut templates: BTreeMap<(usize, usize, usize), _> = BTreeMap::new();
    let mut pods = Vec::with_capacity(count);
    for class in 0..5 {
        let share = if class == 0 { count - count / 5 * 4 } else { count / 5 };
        for _ in 0..share {
            let own = random.below(LABEL_VALUES.len() as u32) as usize;
            let other = random.below(LABEL_VALUES.len() as u32) as usize;
            let cpu = CPU_MILLI[random.below(CPU_MILLI.len() as u32) as usize];
            let memory = MEMORY_MIB[random.below(MEMORY_MIB.len() as u32) as usize];
            let (own, other) = match class {
                0 | 3 => (own, own),
                4 => (0, 0),
                _ => (own, other),
            };
            let (labels, constraints) = templates.entry((class, own, other)).or_insert_with(|| {
                let of = |key: &str, value: usize| {
                    BTreeMap::from([(key.to_owned(), LABEL_VALUES[value].to_owned())])
                };
                let nginx = || BTreeMap::from([("app".to_owned(), "nginx".to_owned())]);
                let term = |kind, key: &str, selected: &BTreeMap<String, String>| {
                    vec![Arc::new(TopologyTerm {
                        kind,
                        key: key.into(),
                        namespaces: SmallVec::from_iter(["default".into()]),
                        selector: Selector::from_map(selected),
                        preference: None,
                    })]
                };
                let (zone, host) = (labels::TOPOLOGY_ZONE, labels::HOSTNAME);
                let selected = of("my-label", other);
                let (labels, topology) = match class {
                    0 => (of("my-label", own), Vec::new()),
                    1 => (of("my-label", own), term(SPREAD, zone, &selected)),
                    2 => (of("my-label", own), term(SPREAD, host, &selected)),
                    3 => {
                        let near = of("my-affinity", own);
                        let topology = term(TopologyKind::Affinity, zone, &near);
                        (near, topology)
                    }
                    _ => (nginx(), term(TopologyKind::AntiAffinity, host, &nginx())),
                };
                (Arc::new(labels), Arc::new(Constraints { topology, ..Constraints::default() }))
            });
            pods.push(pod(pods.len(), cpu, memory, labels, constraints));
        }
    }
    pods
}

fn pod(
    number: usize,
    cpu_milli: i64,
    memory_mib: i64,
    labels: &Arc<BTreeMap<String, String>>,
    constraints: &Arc<Constraints>,
) -> PodRequest {
    PodRequest {
        key: ObjectKey::namespaced("default", format!("pod-{number}")),
        uid: format!("{number:08}").into(),
        created: Time::EPOCH,
        requests: Resources {
            cpu_milli,
            memory_bytes: memory_mib * MIB,
            pods: 1,
            ..Resources::default()
        },
        labels: Arc::clone(labels),
        constraints: Arc::clone(constraints),
        origin: Origin::Pending,
    }
}
