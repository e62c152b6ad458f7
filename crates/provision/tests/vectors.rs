//! Batches for which it is known what Karpenter's own solver buys: ours never costs more, and every
//! plan is checked from the pods' own words.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use wharf_cloud::catalog::NodeSettings;
use wharf_model::instance_type::{CapacityType, InstanceType};
use wharf_model::karpenter::NodeSelectorRequirementWithMinValues;
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::object::ObjectKey;
use wharf_model::requirements::{Operator, Requirement, Requirements};
use wharf_model::resources::Resources;
use wharf_model::time::Time;
use wharf_provision::catalog::Catalog;
use wharf_provision::pod::{Constraints, Origin, PodRequest};
use wharf_provision::pool::{Daemon, Pool};
use wharf_provision::solve::{Settings, Solution, Solver};

const MIB: i64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    name: String,
    zones: Vec<String>,
    spot_percent: u32,
    requirements: Vec<NodeSelectorRequirementWithMinValues>,
    daemons: Vec<(i64, i64)>,
    pods: Vec<Group>,
    upstream: Upstream,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Group {
    Any(usize, i64, i64),
    OfArchitecture(usize, i64, i64, String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Upstream {
    usd_per_hour: Price,
}

fn requests(cpu_milli: i64, memory_mib: i64) -> Resources {
    Resources { cpu_milli, memory_bytes: memory_mib * MIB, pods: 1, ..Resources::default() }
}

fn pods(case: &Case) -> Vec<PodRequest> {
    let mut pods = Vec::new();
    for group in &case.pods {
        let (count, cpu_milli, memory_mib, arch) = match group {
            Group::Any(count, cpu, memory) => (*count, *cpu, *memory, None),
            Group::OfArchitecture(count, cpu, memory, arch) => (*count, *cpu, *memory, Some(arch)),
        };
        let mut constraints = Constraints::default();
        if let Some(arch) = arch {
            constraints.selector.add(Requirement::new(labels::ARCH, Operator::In, [arch]));
        }
        let constraints = Arc::new(constraints);
        for _ in 0..count {
            let number = pods.len();
            pods.push(PodRequest {
                key: ObjectKey::namespaced("default", format!("pod-{number}")),
                uid: format!("{number:08}").into(),
                created: Time::EPOCH,
                requests: requests(cpu_milli, memory_mib),
                labels: Arc::default(),
                constraints: Arc::clone(&constraints),
                origin: Origin::Pending,
            });
        }
    }
    pods
}

fn types(case: &Case) -> Vec<InstanceType> {
    let catalog = wharf_cloud::catalog::Catalog::load("us-east-1").expect("a known region");
    let zones = case.zones.iter().map(|zone| zone.as_str().into()).collect();
    let settings = NodeSettings { zones: Some(zones), ..NodeSettings::default() };
    let mut types = catalog.instance_types(&settings);
    for machine in &mut types {
        let on_demand = machine
            .offerings
            .iter()
            .find(|offering| offering.capacity_type == CapacityType::OnDemand)
            .map(|offering| offering.price)
            .expect("every type is sold on demand");
        machine.offerings.retain_mut(|offering| {
            if offering.capacity_type == CapacityType::Spot {
                offering.price = on_demand.scale(case.spot_percent, 100);
            }
            offering.capacity_type == CapacityType::OnDemand || case.spot_percent > 0
        });
    }
    types
}

fn pool(case: &Case) -> Pool {
    let mut requirements = Requirements::new();
    for entry in &case.requirements {
        let parsed =
            Requirement::parse(&entry.key, &entry.operator, &entry.values, entry.min_values);
        requirements.add(parsed.expect("a valid requirement"));
    }
    Pool {
        name: "default".into(),
        weight: 0,
        catalog: Arc::new(Catalog::new(types(case))),
        requirements,
        taints: Vec::new(),
        remaining: Vec::new(),
        daemons: case
            .daemons
            .iter()
            .map(|(cpu, memory)| Daemon {
                requests: requests(*cpu, *memory),
                alternatives: vec![Requirements::new()],
                tolerations: Vec::new(),
                ports: Vec::new(),
            })
            .collect(),
    }
}

/// What the plan costs, each claim at its cheapest type, bare metal only if nothing else is left.
fn cost(solver: &Solver, solution: &Solution) -> Price {
    let price = |claim: &wharf_provision::claim::PlannedClaim| {
        let catalog = &solver.pool(claim.pool).catalog;
        let metal = |index: &u32| catalog.get(*index).name.contains("metal");
        let chosen = claim.types.iter().find(|index| !metal(index)).or(claim.types.first());
        let chosen = chosen.expect("a claim has types");
        catalog.cheapest(*chosen, claim.cells).expect("its types are available")
    };
    solution.claims.iter().map(price).sum()
}

/// Every pod placed once, and every type of every claim holds all its pods with the daemons.
fn check_plan(case: &Case, solver: &Solver, pods: &[PodRequest], solution: &Solution) {
    let mut placed = vec![0; pods.len()];
    for claim in &solution.claims {
        let catalog = &solver.pool(claim.pool).catalog;
        let mut total = Resources::default();
        for (cpu, memory) in &case.daemons {
            total.add(&requests(*cpu, *memory));
        }
        for pod in &claim.pods {
            placed[*pod as usize] += 1;
            total.add(&pods[*pod as usize].requests);
        }
        for index in &claim.types {
            let machine = catalog.get(*index);
            assert!(total.fits_in(&machine.allocatable), "{} is overcommitted", machine.name);
            for pod in &claim.pods {
                for requirement in pods[*pod as usize].constraints.selector.iter() {
                    let values = machine.label_values(&requirement.key);
                    assert!(values.iter().any(|value| requirement.has(value)), "{requirement}");
                }
            }
        }
    }
    assert!(placed.iter().all(|count| *count == 1), "{}: not every pod once", case.name);
}

fn check(path: &Path) {
    let text = std::fs::read_to_string(path).expect("a readable case");
    let case: Case = serde_json::from_str(&text).expect("a valid case");
    let pods = pods(&case);
    let mut solver = Solver::new(vec![pool(&case)], Vec::new(), Settings::default());
    let solution = solver.solve(&pods);
    check_plan(&case, &solver, &pods, &solution);
    // The known costs are given to five digits.
    let ours = cost(&solver, &solution).round_to_digits(5);
    let upstream = case.upstream.usd_per_hour;
    assert!(ours <= upstream, "{}: {ours} is more than {upstream}", case.name);
}

#[test]
fn no_dearer_than_upstream() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    cases.sort();
    assert_eq!(cases.len(), 10, "a case is missing");
    cases.iter().for_each(|path| check(path));
}
