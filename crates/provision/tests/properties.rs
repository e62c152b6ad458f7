//! What holds of every plan, whatever the pods, pools and nodes.

mod common;

use std::collections::BTreeMap;

use common::{GIB, node, pod, pool, requirement, selecting, taint, tolerating, with_constraints};
use proptest::prelude::*;
use wharf_model::instance_type::CapacityType;
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::requirements::Operator;
use wharf_model::resources::Resources;
use wharf_provision::disruption::candidate::Candidate;
use wharf_provision::disruption::command::Command;
use wharf_provision::disruption::consolidate::{Allowances, Gates, Simulator};
use wharf_provision::node::ExistingNode;
use wharf_provision::pod::{Constraints, PodRequest};
use wharf_provision::pool::{NODES, Pool};
use wharf_provision::solve::{Settings, Solution, Solver};

fn some_constraints() -> impl Strategy<Value = Constraints> {
    let preferred = Constraints {
        preferred: vec![(
            10,
            [requirement(labels::ARCH, Operator::In, &["arm64"])].into_iter().collect(),
        )],
        ..Constraints::default()
    };
    let either = Constraints {
        required: vec![
            [requirement(labels::ARCH, Operator::In, &["riscv"])].into_iter().collect(),
            [requirement(labels::INSTANCE_CATEGORY, Operator::NotIn, &["c"])].into_iter().collect(),
        ],
        ..Constraints::default()
    };
    let tolerant = Constraints { tolerations: vec![tolerating("team")], ..Constraints::default() };
    prop_oneof![
        4 => Just(Constraints::default()),
        2 => Just(selecting(labels::ARCH, "arm64")),
        1 => Just(selecting(labels::TOPOLOGY_ZONE, "east-b")),
        1 => Just(selecting("team", "blue")),
        1 => Just(preferred),
        1 => Just(either),
        1 => Just(tolerant),
    ]
}

fn some_pods(count: usize) -> impl Strategy<Value = Vec<PodRequest>> {
    prop::collection::vec((1i64..200, 1i64..60, some_constraints()), 1..count).prop_map(|pods| {
        let pods = pods.into_iter().enumerate();
        pods.map(|(index, (cpu, memory, constraints))| {
            let plain = pod(&format!("p{index:03}"), cpu * 50, memory * GIB / 8);
            with_constraints(plain, constraints)
        })
        .collect()
    })
}

fn some_pools() -> impl Strategy<Value = Vec<Pool>> {
    (any::<bool>(), prop::option::of(0i64..60), prop::option::of(0i64..6)).prop_map(
        |(tainted, cpus, nodes)| {
            let mut first = pool("default");
            first.remaining.extend(cpus.map(|cpus| ("cpu".into(), cpus * 1000)));
            first.remaining.extend(nodes.map(|nodes| (NODES.into(), nodes)));
            let mut second = pool("blue");
            second.weight = 10;
            second.requirements.add(requirement("team", Operator::In, &["blue"]));
            if tainted {
                second.taints.push(taint("team", "NoSchedule"));
            }
            vec![first, second]
        },
    )
}

fn some_nodes() -> impl Strategy<Value = Vec<(ExistingNode, Candidate)>> {
    let names = ["c.4", "c.8", "m.8", "g.16", "m.2"];
    let spot = prop_oneof![Just(CapacityType::OnDemand), Just(CapacityType::Spot)];
    let one = (0..names.len(), spot, prop::collection::vec((1i64..20, 1i64..16), 0..6));
    prop::collection::vec(one, 0..7).prop_map(move |nodes| {
        let default = pool("default");
        let nodes = nodes.into_iter().enumerate();
        nodes
            .map(|(index, (name, capacity_type, sizes))| {
                let machine = default.catalog.find(names[name]).expect("a known type");
                let mut free = default.catalog.get(machine).allocatable.clone();
                let mut pods = Vec::new();
                for (number, (cpu, memory)) in sizes.into_iter().enumerate() {
                    let pod = pod(&format!("n{index}-{number}"), cpu * 100, memory * GIB / 8);
                    if pod.requests.fits_in(&free) {
                        free.subtract(&pod.requests);
                        pods.push(pod);
                    }
                }
                node(&format!("node-{index}"), &default, names[name], capacity_type, &pods)
            })
            .collect()
    })
}

/// Some form of the pod's constraints holds for a node with these labels.
fn holds(constraints: &Constraints, has: impl Fn(&str) -> Vec<String>) -> bool {
    let met = |requirements: &wharf_model::requirements::Requirements| {
        requirements.iter().all(|requirement| {
            let values = has(&requirement.key);
            if values.is_empty() {
                requirement.operator().is_negative()
            } else {
                values.iter().any(|value| requirement.has(value))
            }
        })
    };
    met(&constraints.selector)
        && (constraints.required.is_empty() || constraints.required.iter().any(met))
}

fn tolerated(taints: &[k8s_openapi::api::core::v1::Taint], constraints: &Constraints) -> bool {
    taints.iter().all(|taint| {
        constraints.tolerations.iter().any(|t| t.key.as_deref() == Some(taint.key.as_str()))
    })
}

fn check_plan(solver: &Solver, pods: &[PodRequest], solution: &Solution) {
    let mut seen = vec![0; pods.len()];
    let mut used: BTreeMap<u32, Resources> = BTreeMap::new();
    for (pod, node) in &solution.on_nodes {
        seen[*pod as usize] += 1;
        let (pod, existing) = (&pods[*pod as usize], &solver.nodes()[*node as usize]);
        used.entry(*node).or_default().add(&pod.requests);
        assert!(tolerated(&existing.taints, &pod.constraints));
        let has = |key: &str| existing.labels.get(key).cloned().into_iter().collect();
        assert!(holds(&pod.constraints, has), "{} may not be on {}", pod.key, existing.name);
    }
    for (node, used) in used {
        let existing = &solver.nodes()[node as usize];
        assert!(used.fits_in(&existing.free), "{} is overcommitted", existing.name);
    }
    let mut charged: BTreeMap<(usize, &str), i64> = BTreeMap::new();
    for claim in &solution.claims {
        let pool = solver.pool(claim.pool);
        assert!(!claim.types.is_empty());
        let mut total = Resources::default();
        for pod in &claim.pods {
            seen[*pod as usize] += 1;
            total.add(&pods[*pod as usize].requests);
            assert!(tolerated(&pool.taints, &pods[*pod as usize].constraints));
        }
        for index in &claim.types {
            let machine = pool.catalog.get(*index);
            assert!(total.fits_in(&machine.allocatable), "{} is overcommitted", machine.name);
            assert!(pool.catalog.cheapest(*index, claim.cells).is_some());
            for pod in &claim.pods {
                let has = |key: &str| {
                    let of_type = machine.label_values(key).iter().map(ToString::to_string);
                    let mut values: Vec<String> = of_type.collect();
                    let of_claim = claim.requirements.get(key);
                    let of_claim = of_claim.and_then(|requirement| requirement.values.allowed());
                    if values.is_empty() {
                        values.extend(of_claim.into_iter().flatten().map(ToString::to_string));
                    }
                    values
                };
                assert!(holds(&pods[*pod as usize].constraints, has), "{}", machine.name);
            }
        }
        for (name, _) in &pool.remaining {
            // Whatever type is launched, the limit holds.
            let capacity = |index: &u32| pool.catalog.get(*index).capacity.get(name);
            let most = claim.types.iter().map(capacity).max().unwrap_or(0);
            let most = if name == NODES { 1 } else { most };
            *charged.entry((claim.pool, name.as_str())).or_default() += most;
        }
    }
    for ((pool, name), amount) in charged {
        let left = solver.pool(pool).remaining.iter().find(|(limited, _)| limited == name);
        assert!(left.is_some_and(|(_, left)| amount <= *left), "{name} is over its limit");
    }
    for (pod, why) in &solution.failed {
        seen[*pod as usize] += 1;
        assert!(!why.to_string().is_empty());
    }
    assert!(seen.iter().all(|count| *count == 1), "every pod has one fate");
}

/// Where each pod went, told without indexes.
fn fates(solver: &Solver, pods: &[PodRequest], solution: &Solution) -> Vec<(String, String)> {
    let key = |pod: &u32| pods[*pod as usize].key.to_string();
    let mut fates: Vec<(String, String)> = solution
        .on_nodes
        .iter()
        .map(|(pod, node)| (key(pod), solver.nodes()[*node as usize].name.to_string()))
        .chain(solution.failed.iter().map(|(pod, why)| (key(pod), why.to_string())))
        .collect();
    for (number, claim) in solution.claims.iter().enumerate() {
        let fate = format!("{number} {} {:?}", claim.requirements, claim.types);
        fates.extend(claim.pods.iter().map(|pod| (key(pod), fate.clone())));
    }
    fates.sort();
    fates
}

fn check_command(command: &Command, allowed: u32, solver: &Solver) {
    assert!(command.candidates.len() <= allowed as usize, "the budget is exceeded");
    let before: Price = command.candidates.iter().map(|candidate| candidate.price).sum();
    let after: Price = command
        .replacements
        .iter()
        .map(|claim| {
            let catalog = &solver.pool(claim.pool).catalog;
            let worst = |index: &u32| catalog.worst_launch_price(*index, claim.cells);
            claim.types.iter().filter_map(worst).max().expect("a type to launch")
        })
        .sum();
    assert!(after < before, "{after} is not below {before}");
    assert!(command.savings > Price::ZERO);
}

proptest! {
    #[test]
    fn plans_keep_every_promise(
        pods in some_pods(40), pools in some_pools(), nodes in some_nodes(),
    ) {
        let nodes = nodes.into_iter().map(|(node, _)| node).collect();
        let mut solver = Solver::new(pools, nodes, Settings::default());
        let solution = solver.solve(&pods);
        check_plan(&solver, &pods, &solution);
        // The solver is as it was: the same question has the same answer.
        let again = solver.solve(&pods);
        prop_assert_eq!(fates(&solver, &pods, &solution), fates(&solver, &pods, &again));
    }

    #[test]
    fn the_order_of_the_batch_does_not_matter(
        pods in some_pods(30), pools in some_pools(), nodes in some_nodes(), turn in 0usize..30,
    ) {
        let nodes: Vec<ExistingNode> = nodes.into_iter().map(|(node, _)| node).collect();
        let mut turned = pods.clone();
        let turn = turn % pods.len();
        turned.rotate_left(turn);
        turned[..pods.len() / 2].reverse();
        let mut solver = Solver::new(pools.clone(), nodes.clone(), Settings::default());
        let mut other = Solver::new(pools, nodes, Settings::default());
        let (solution, other_solution) = (solver.solve(&pods), other.solve(&turned));
        prop_assert_eq!(
            fates(&solver, &pods, &solution),
            fates(&other, &turned, &other_solution)
        );
    }

    #[test]
    fn consolidation_saves_within_budgets(
        nodes in some_nodes(), spot in any::<bool>(), allowed in 0u32..5, gate in any::<bool>(),
    ) {
        let mut default = pool("default");
        if spot {
            default.requirements.remove(labels::CAPACITY_TYPE);
        }
        let (existing, candidates): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
        let mut solver = Solver::new(vec![default], existing, Settings::default());
        let totals = BTreeMap::new();
        let allowances = Allowances::from([("default".into(), allowed)]);
        let gates = Gates { spot_to_spot: gate };
        for method in 0..3 {
            let mut simulator = Simulator::new(&mut solver, &[], gates, &totals);
            let pass = match method {
                0 => simulator.emptiness(&candidates, allowances.clone()),
                1 => simulator.multi_node(&candidates, allowances.clone()),
                _ => simulator.single_node(&candidates, allowances.clone()),
            };
            if let Some(command) = pass.command {
                let valid = simulator.revalidate(&command, &candidates, allowances.clone());
                prop_assert!(valid.is_some(), "a fresh command holds");
                check_command(&command, allowed, &solver);
            }
        }
    }
}
