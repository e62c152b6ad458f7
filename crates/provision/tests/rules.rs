//! Upstream's rules, one by one.

mod common;

use std::collections::BTreeMap;

use common::{GIB, node, pod, pool, requirement, selecting, taint, tolerating, with_constraints};
use wharf_model::instance_type::CapacityType;
use wharf_model::karpenter::{ConsolidationPolicy, DisruptionReason};
use wharf_model::labels;
use wharf_model::requirements::{Operator, Requirement, Requirements};
use wharf_model::resources::Resources;
use wharf_model::time::Time;
use wharf_provision::catalog::Catalog;
use wharf_provision::disruption::candidate::Candidate;
use wharf_provision::disruption::consolidate::{Allowances, Gates, Pass, PoolTotals, Simulator};
use wharf_provision::node::ExistingNode;
use wharf_provision::pod::{Constraints, Origin, PodRequest};
use wharf_provision::pool::{Daemon, NODES, Pool};
use wharf_provision::solve::{Packing, Settings, Solver};

fn upstream() -> Settings {
    Settings { packing: Packing::Upstream, ..Settings::default() }
}

/// Where pods go, in words: node names, or `new <pool>: <cheapest type> of <number of types>`.
fn places(pools: Vec<Pool>, nodes: Vec<ExistingNode>, pods: &[PodRequest]) -> Vec<String> {
    let mut solver = Solver::new(pools, nodes, upstream());
    let solution = solver.solve(pods);
    let mut places = vec![String::new(); pods.len()];
    for (pod, node) in &solution.on_nodes {
        places[*pod as usize] = solver.nodes()[*node as usize].name.to_string();
    }
    for claim in &solution.claims {
        let pool = solver.pool(claim.pool);
        let first = &pool.catalog.get(claim.types[0]).name;
        for pod in &claim.pods {
            places[*pod as usize] = format!("new {}: {first} of {}", pool.name, claim.types.len());
        }
    }
    for (pod, why) in &solution.failed {
        places[*pod as usize] = why.to_string();
    }
    places
}

fn only_node(name: &str) -> ExistingNode {
    node(name, &pool("default"), "c.4", CapacityType::OnDemand, &[]).0
}

fn preferring(weights: &[(i32, &str, &str)]) -> Constraints {
    let term = |key: &str, value: &str| {
        Requirements::from_iter([requirement(key, Operator::In, &[value])])
    };
    let preferred =
        weights.iter().map(|(weight, key, value)| (*weight, term(key, value))).collect();
    Constraints { preferred, ..Constraints::default() }
}

#[test]
fn the_cheapest_type_that_holds_the_pods() {
    assert_eq!(
        places(vec![pool("default")], vec![], &[pod("a", 1500, GIB)]),
        ["new default: g.2 of 15"]
    );
    let pods = [pod("a", 1500, GIB), pod("b", 2500, GIB)];
    assert_eq!(places(vec![pool("default")], vec![], &pods), ["new default: g.8 of 9"; 2]);
}

#[test]
fn pools_by_weight_then_from_z_to_a() {
    let heavy = Pool { weight: 5, ..pool("aaa") };
    let [a] = [pod("a", 500, 0)];
    let place = |pools| places(pools, vec![], std::slice::from_ref(&a))[0].clone();
    assert_eq!(place(vec![pool("bbb"), pool("ccc")]), "new ccc: g.1 of 18");
    assert_eq!(place(vec![pool("bbb"), heavy, pool("ccc")]), "new aaa: g.1 of 18");
}

#[test]
fn initialized_nodes_first_then_by_name_then_new_ones() {
    let late = ExistingNode { initialized: false, ..only_node("a") };
    let nodes = vec![late, only_node("c"), only_node("b")];
    let pods: Vec<PodRequest> = (0..4).map(|n| pod(&format!("p{n}"), 3000, GIB)).collect();
    assert_eq!(
        places(vec![pool("default")], nodes, &pods),
        ["b", "c", "a", "new default: g.4 of 12"]
    );
}

#[test]
fn preferences_are_tried_everywhere_before_one_is_given_up() {
    // A preference opens a new node although an existing one would do without it.
    let arm = with_constraints(pod("a", 500, 0), preferring(&[(1, labels::ARCH, "arm64")]));
    assert_eq!(
        places(vec![pool("default")], vec![only_node("n")], &[arm]),
        ["new default: g.1 of 6"]
    );
    // The heaviest counts alone, and goes first.
    let both = preferring(&[(1, labels::ARCH, "arm64"), (9, labels::ARCH, "riscv")]);
    let pod_both = with_constraints(pod("a", 500, 0), both);
    assert_eq!(places(vec![pool("default")], vec![], &[pod_both]), ["new default: g.1 of 6"]);
    let none = preferring(&[(1, labels::ARCH, "riscv")]);
    let pod_none = with_constraints(pod("a", 500, 0), none);
    assert_eq!(places(vec![pool("default")], vec![only_node("n")], &[pod_none]), ["n"]);
}

#[test]
fn required_terms_are_alternatives() {
    let terms = ["riscv", "arm64", "amd64"];
    let required = terms
        .iter()
        .map(|arch| Requirements::from_iter([requirement(labels::ARCH, Operator::In, &[arch])]))
        .collect();
    let either = Constraints { required, ..Constraints::default() };
    assert_eq!(
        places(vec![pool("default")], vec![], &[with_constraints(pod("a", 500, 0), either)]),
        ["new default: g.1 of 6"]
    );
}

#[test]
fn soft_taints_block_until_preferences_are_given_up() {
    let soft = Pool { taints: vec![taint("slow", "PreferNoSchedule")], weight: 9, ..pool("soft") };
    let small = [pod("a", 500, 0)];
    assert_eq!(
        places(vec![soft.clone(), pool("default")], vec![], &small),
        ["new default: g.1 of 18"]
    );
    assert_eq!(places(vec![soft], vec![], &small), ["new soft: g.1 of 18"]);
}

#[test]
fn daemons_take_their_part_of_the_types_they_run_on() {
    let mut daemons = pool("default");
    let requests = Resources { cpu_milli: 500, pods: 1, ..Resources::default() };
    let on_amd = requirement(labels::ARCH, Operator::In, &["amd64"]);
    daemons.daemons.push(Daemon {
        requests,
        alternatives: vec![Requirements::from_iter([on_amd])],
        tolerations: Vec::new(),
        ports: Vec::new(),
    });
    let small = pod("a", 900, 0);
    assert_eq!(
        places(vec![daemons.clone()], vec![], std::slice::from_ref(&small)),
        ["new default: g.1 of 16"]
    );
    let on_amd = with_constraints(small, selecting(labels::ARCH, "amd64"));
    let mut solver = Solver::new(vec![daemons], vec![], upstream());
    let solution = solver.solve(&[on_amd]);
    assert_eq!(solution.claims[0].requests.cpu_milli, 1400);
    assert_eq!(solution.claims[0].requests.pods, 2);
}

#[test]
fn limits_leave_smaller_types_and_then_nothing() {
    let with = |name: &str, left: i64| {
        let mut pool = pool("default");
        pool.remaining.push((name.into(), left));
        vec![pool]
    };
    let two = [pod("a", 1500, 0), pod("b", 15_000, 0)];
    // The large pod comes first and may use 16 cpus; the half that is left is no machine.
    assert_eq!(
        places(with("cpu", 16_500), vec![], &two),
        [
            "all available instance types exceed limits for nodepool (NodePool=default)",
            "new default: g.16 of 3",
        ]
    );
    assert_eq!(
        places(with(NODES, 1), vec![], &[pod("a", 31_000, 0), pod("b", 31_000, 0)]),
        [
            "new default: g.32 of 3",
            "node limits have been exhausted for nodepool (NodePool=default)",
        ]
    );
}

#[test]
fn refusals_read_as_upstreams() {
    let refusal = |pool: Pool, pod: PodRequest| places(vec![pool], vec![], &[pod])[0].clone();
    let on_demand = "karpenter.sh/capacity-type In [on-demand], karpenter.sh/nodepool In \
                     [default], kubernetes.io/os In [linux]";
    assert_eq!(
        refusal(pool("default"), pod("a", 64_000, 0)),
        format!(
            "no instance type has enough resources, requirements={on_demand}, \
             resources={{\"cpu\":\"64\",\"pods\":\"1\"}}"
        )
    );
    assert!(
        refusal(pool("default"), pod("a", 1_000_000_000, 0))
            .ends_with("(CPU request >= 1 Million, m vs M typo?)")
    );
    let custom = with_constraints(pod("a", 500, 0), selecting("team", "blue"));
    assert_eq!(
        refusal(pool("default"), custom),
        "incompatible requirements, label \"team\" does not have known values"
    );
    let arch = with_constraints(pod("a", 500, 0), selecting(labels::ARCH, "riscv"));
    assert!(refusal(pool("default"), arch).starts_with("no instance type met all requirements, "));
    let tainted = Pool { taints: vec![taint("team", "NoSchedule")], ..pool("default") };
    assert_eq!(
        refusal(tainted.clone(), pod("a", 500, 0)),
        "did not tolerate taint (taint=team:NoSchedule)"
    );
    let tolerant = Constraints { tolerations: vec![tolerating("team")], ..Constraints::default() };
    assert_eq!(
        refusal(tainted, with_constraints(pod("a", 500, 0), tolerant)),
        "new default: g.1 of 18"
    );
    assert_eq!(
        places(vec![], vec![], &[pod("a", 1, 0)]),
        ["nodepool requirements filtered out all available instance types"]
    );
}

#[test]
fn min_values_keep_a_choice_open() {
    let mut flexible = pool("default");
    flexible.requirements.add(Requirement {
        min_values: Some(3),
        ..requirement(labels::INSTANCE_CATEGORY, Operator::Exists, &[])
    });
    let any = pod("a", 500, 0);
    let arm = with_constraints(pod("a", 500, 0), selecting(labels::ARCH, "arm64"));
    assert_eq!(places(vec![flexible.clone()], vec![], &[any]), ["new default: g.1 of 18"]);
    assert!(
        places(vec![flexible], vec![], &[arm])[0].starts_with("minValues requirement is not met")
    );
}

#[test]
fn unavailable_offerings_are_not_bought() {
    let mut types = common::types();
    for machine in &mut types {
        for offering in &mut machine.offerings {
            offering.available &= !machine.name.starts_with('g') && offering.zone == "east-b";
        }
    }
    let sold_out = Pool { catalog: Catalog::new(types).into(), ..pool("default") };
    let small = pod("a", 500, 0);
    assert_eq!(
        places(vec![sold_out.clone()], vec![], std::slice::from_ref(&small)),
        ["new default: c.1 of 12"]
    );
    let in_zone = with_constraints(small, selecting(labels::TOPOLOGY_ZONE, "east-a"));
    assert!(!places(vec![sold_out], vec![], &[in_zone])[0].starts_with("new"));
}

struct Lab {
    pool: Pool,
    nodes: Vec<(ExistingNode, Candidate)>,
    gates: Gates,
    totals: BTreeMap<compact_str::CompactString, PoolTotals>,
}

impl Lab {
    fn new(nodes: &[(&str, CapacityType, &[i64])]) -> Self {
        let pool = pool("default");
        let nodes = nodes
            .iter()
            .enumerate()
            .map(|(index, (name, capacity_type, pods))| {
                let named = |(number, cpu)| pod(&format!("p{index}{number}"), cpu, 0);
                let pods: Vec<PodRequest> = pods.iter().copied().enumerate().map(named).collect();
                node(&format!("n{index}"), &pool, name, *capacity_type, &pods)
            })
            .collect();
        Self { pool, nodes, gates: Gates::default(), totals: BTreeMap::new() }
    }

    fn run(&self, method: impl Fn(&mut Simulator<'_>, &[Candidate], Allowances) -> Pass) -> Pass {
        let (nodes, candidates): (Vec<_>, Vec<_>) = self.nodes.iter().cloned().unzip();
        let mut solver = Solver::new(vec![self.pool.clone()], nodes, upstream());
        let mut simulator = Simulator::new(&mut solver, &[], self.gates, &self.totals);
        method(&mut simulator, &candidates, Allowances::from([("default".into(), u32::MAX)]))
    }

    fn text(&self, pass: &Pass) -> String {
        match &pass.command {
            Some(command) => command.describe(|_| &self.pool.catalog),
            None => pass.left_alone.iter().map(|(name, why)| format!("{name}: {why}\n")).collect(),
        }
    }

    fn single(&self) -> String {
        self.text(
            &self.run(|simulator, candidates, allowed| simulator.single_node(candidates, allowed)),
        )
    }

    fn multi(&self) -> String {
        self.text(
            &self.run(|simulator, candidates, allowed| simulator.multi_node(candidates, allowed)),
        )
    }
}

use CapacityType::{OnDemand, Spot};

#[test]
fn single_nodes_are_deleted_or_replaced_by_a_cheaper_one() {
    let lab = Lab::new(&[("c.4", OnDemand, &[1000]), ("c.8", OnDemand, &[2500])]);
    assert_eq!(lab.single(), "delete, terminating 1 nodes (1 pods) n1/c.8/on-demand");
    let lab = Lab::new(&[("c.8", OnDemand, &[1000, 500])]);
    assert_eq!(
        lab.single(),
        "replace, terminating 1 nodes (2 pods) n0/c.8/on-demand and replacing with on-demand node \
         from types g.2, c.2, m.2, g.4, c.4 and 2 other(s)"
    );
    assert_eq!(
        Lab::new(&[("g.2", OnDemand, &[1500])]).single(),
        "n0: Can't replace with a cheaper node\n"
    );
    let arm_only = Lab::new(&[("g.32", OnDemand, &[20_000, 20_000])]);
    assert_eq!(arm_only.single(), "n0: Can't remove without creating 2 candidates\n");
}

#[test]
fn on_demand_is_replaced_by_spot_alone() {
    let mut lab = Lab::new(&[("c.8", OnDemand, &[7000])]);
    lab.pool.requirements.remove(labels::CAPACITY_TYPE);
    let pass = lab.run(|simulator, candidates, allowed| simulator.single_node(candidates, allowed));
    assert!(lab.text(&pass).contains("replacing with spot node from types"), "{}", lab.text(&pass));
    let command = pass.command.unwrap();
    let pinned = command.replacements[0].requirements.get(labels::CAPACITY_TYPE).unwrap();
    assert_eq!(pinned.to_string(), "karpenter.sh/capacity-type In [spot]");
}

#[test]
fn spot_for_spot_needs_the_gate_and_fifteen_types() {
    let mut lab = Lab::new(&[("m.32", Spot, &[500])]);
    lab.pool.requirements.remove(labels::CAPACITY_TYPE);
    assert_eq!(
        lab.single(),
        "n0: SpotToSpotConsolidation is disabled, can't replace a spot node with a spot node\n"
    );
    lab.gates.spot_to_spot = true;
    assert!(lab.single().ends_with("g.1, c.1, m.1, g.2, c.2 and 10 other(s)"), "{}", lab.single());
    let mut lab = Lab { gates: Gates { spot_to_spot: true }, ..Lab::new(&[("m.8", Spot, &[500])]) };
    lab.pool.requirements.remove(labels::CAPACITY_TYPE);
    assert_eq!(
        lab.single(),
        "n0: SpotToSpotConsolidation requires 15 cheaper instance type options than the current \
         candidate to consolidate, got 11\n"
    );
}

#[test]
fn several_nodes_become_one_but_not_one_of_themselves() {
    let lab = Lab::new(&[("c.8", OnDemand, &[1500]), ("c.8", OnDemand, &[1500])]);
    assert_eq!(
        lab.multi(),
        "replace, terminating 2 nodes (2 pods) n0/c.8/on-demand, n1/c.8/on-demand and replacing \
         with on-demand node from types g.4, c.4, m.4, g.8"
    );
    // Three small ones and their like: only something cheaper than the cheapest would do.
    let lab = Lab::new(&[("c.4", OnDemand, &[1800]), ("c.4", OnDemand, &[1800])]);
    let text = lab.multi();
    assert!(text.ends_with("from types g.4"), "{text}");
}

#[test]
fn nothing_is_moved_to_nodes_that_are_not_ready_or_not_settled() {
    let mut lab = Lab::new(&[("c.2", OnDemand, &[500]), ("c.8", OnDemand, &[])]);
    lab.nodes[1].1.consolidatable = false;
    assert!(lab.single().starts_with("delete"), "{}", lab.single());
    lab.nodes[1].0.settling = true;
    assert!(lab.single().starts_with("replace"), "{}", lab.single());
    lab.nodes[1].0.settling = false;
    lab.nodes[1].0.initialized = false;
    assert_eq!(
        lab.single(),
        "n0: Not all pods would schedule, default/p00 => would schedule against uninitialized \
         nodeclaim/n1 \n"
    );
}

#[test]
fn policies_and_conditions_keep_nodes_out() {
    let skips = |change: fn(&mut Candidate)| {
        let mut lab = Lab::new(&[("c.8", OnDemand, &[500])]);
        change(&mut lab.nodes[0].1);
        assert!(lab.single().is_empty(), "{}", lab.single());
    };
    skips(|candidate| candidate.consolidatable = false);
    skips(|candidate| candidate.consolidates = false);
    skips(|candidate| candidate.static_pool = true);
    skips(|candidate| candidate.type_known = false);
    skips(|candidate| candidate.zone = None);
    skips(|candidate| candidate.policy = ConsolidationPolicy::WhenEmpty);
}

#[test]
fn empty_nodes_go_together() {
    let lab = Lab::new(&[("c.8", OnDemand, &[]), ("c.4", OnDemand, &[500]), ("m.2", Spot, &[])]);
    let pass = lab.run(|simulator, candidates, allowed| simulator.emptiness(candidates, allowed));
    assert_eq!(
        lab.text(&pass),
        "delete, terminating 2 nodes (0 pods) n0/c.8/on-demand, n2/m.2/spot"
    );
    let command = pass.command.unwrap();
    assert_eq!(command.reason, DisruptionReason::Empty);
    assert_eq!(command.savings.to_string(), "0.36");
    let one = Allowances::from([("default".into(), 1)]);
    let pass = lab.run(|simulator, candidates, _| simulator.emptiness(candidates, one.clone()));
    assert!(pass.constrained_by_budget);
    assert_eq!(pass.command.unwrap().candidates.len(), 1);
}

#[test]
fn drift_takes_the_empty_then_the_oldest_and_replaces_what_it_must() {
    let mut lab = Lab::new(&[("c.8", OnDemand, &[7000]), ("c.4", OnDemand, &[3500])]);
    let drift = |lab: &Lab| {
        let pass = lab.run(|simulator, candidates, allowed| simulator.drift(candidates, allowed));
        lab.text(&pass)
    };
    assert_eq!(drift(&lab), "");
    lab.nodes[0].1.drifted_since = Some(Time::from_seconds(20));
    lab.nodes[1].1.drifted_since = Some(Time::from_seconds(10));
    assert!(
        drift(&lab).starts_with("replace, terminating 1 nodes (1 pods) n1/"),
        "{}",
        drift(&lab)
    );
    lab.nodes[0].1.pods.clear();
    lab.nodes[0].1.cost = wharf_provision::disruption::cost::Cost::ONE;
    assert!(drift(&lab).contains("n0/c.8"), "{}", drift(&lab));
}

#[test]
fn balanced_pools_weigh_savings_against_disruption() {
    let mut lab = Lab::new(&[("c.8", OnDemand, &[500])]);
    let candidate = &mut lab.nodes[0].1;
    candidate.policy = ConsolidationPolicy::Balanced;
    let mut totals = PoolTotals::default();
    totals.add(candidate.price, candidate.cost);
    lab.totals.insert("default".into(), totals);
    assert!(lab.single().starts_with("replace"), "{}", lab.single());
    // The same move in a pool a hundred times as dear saves next to nothing.
    let mut large = totals;
    for _ in 0..100 {
        large.price = large.price.saturating_add(totals.price);
    }
    lab.totals.insert("default".into(), large);
    assert_eq!(lab.single(), "n0: score is below the threshold\n");
}

#[test]
fn pending_pods_that_fit_nowhere_do_not_block_consolidation() {
    let lab = Lab::new(&[("c.4", OnDemand, &[1000]), ("c.8", OnDemand, &[2500])]);
    let (nodes, candidates): (Vec<_>, Vec<_>) = lab.nodes.iter().cloned().unzip();
    let mut solver = Solver::new(vec![lab.pool.clone()], nodes, upstream());
    let check = |solver: &mut Solver, origin: Origin| {
        let homeless = [PodRequest { origin, ..pod("huge", 900_000, 0) }];
        let mut simulator = Simulator::new(solver, &homeless, lab.gates, &lab.totals);
        let allowed = Allowances::from([("default".into(), 9)]);
        simulator.single_node(&candidates, allowed).command.is_some()
    };
    assert!(check(&mut solver, Origin::Pending));
    assert!(!check(&mut solver, Origin::Deleting));
}
