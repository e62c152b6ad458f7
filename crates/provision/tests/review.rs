//! What pools say of a pod: that they take it, or the first thing that stands against it.

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use common::{GIB, pod, pool, requirement, selecting, taint, tolerating, with_constraints};
use proptest::prelude::*;
use wharf_model::labels;
use wharf_model::requirements::{Operator, Requirement};
use wharf_model::resources::Resources;
use wharf_provision::pod::{Constraints, PodRequest};
use wharf_provision::pool::{Daemon, NODES, Pool};
use wharf_provision::review::{Exceeded, Exclusion, Hindrance, PoolAnswer, Shortage};
use wharf_provision::solve::{Packing, Settings, Solver};

fn answer(pool: Pool, pod: &PodRequest) -> PoolAnswer {
    Solver::new(vec![pool], Vec::new(), Settings::default()).review(pod).remove(0)
}

fn because(pool: Pool, pod: &PodRequest) -> Hindrance {
    match answer(pool, pod) {
        PoolAnswer::Refuses(refusal) => refusal.because,
        taken @ PoolAnswer::Takes(_) => panic!("it takes the pod: {taken:?}"),
    }
}

fn with(change: impl FnOnce(&mut Pool)) -> Pool {
    let mut pool = pool("default");
    change(&mut pool);
    pool
}

fn cpu(asked: i64, most: i64, instance_type: Option<&str>) -> Shortage {
    let instance_type = instance_type.map(Into::into);
    Shortage { resource: "cpu".into(), asked, most, instance_type }
}

#[test]
fn what_it_would_buy_is_what_a_solve_buys() {
    let PoolAnswer::Takes(offer) = answer(pool("default"), &pod("p", 12_000, GIB)) else {
        panic!("16 cpus are enough");
    };
    assert_eq!((&*offer.cheapest, offer.types), ("g.16", 6));
}

#[test]
fn the_first_thing_against_it_is_told_with_the_numbers() {
    let small = |pool: &mut Pool| {
        pool.requirements.add(requirement(labels::INSTANCE_CPU, Operator::In, &["2", "4"]));
    };
    let asks = |cpu_milli| pod("p", cpu_milli, GIB);
    let excluded = |instance_type: &str, by, shortages| Hindrance::Excluded {
        instance_type: instance_type.into(),
        by: vec![by],
        shortages,
    };
    // No machine at all, then none that the pool lets through.
    assert_eq!(
        because(pool("default"), &asks(32_000)),
        Hindrance::TooSmall { shortages: vec![cpu(32_000, 31_920, Some("c.32"))] }
    );
    let requirement_text =
        |key: &str, values: &[&str]| Requirement::new(key, Operator::In, values).to_string();
    assert_eq!(
        because(with(small), &asks(12_000)),
        excluded(
            "g.16",
            Exclusion::NodePool {
                requirement: requirement_text(labels::INSTANCE_CPU, &["2", "4"])
            },
            vec![cpu(12_000, 3_920, Some("c.4"))]
        )
    );
    // What the pod asks of its node counts as the pod's.
    let picky = with_constraints(asks(12_000), selecting(labels::INSTANCE_CPU, "8"));
    assert_eq!(
        because(pool("default"), &picky),
        excluded(
            "g.16",
            Exclusion::Pod { requirement: requirement_text(labels::INSTANCE_CPU, &["8"]) },
            vec![cpu(12_000, 7_920, Some("c.8"))]
        )
    );
    // Sold, but not in this way.
    let elsewhere = with(|pool| {
        let zone = requirement(labels::TOPOLOGY_ZONE, Operator::In, &["west-a"]);
        pool.requirements.add(zone);
    });
    assert_eq!(because(elsewhere, &asks(1_000)), excluded("g.2", Exclusion::Offerings, Vec::new()));
    // Limits count what the machine has, not what the pod asks for.
    let limited = with(|pool| pool.remaining = vec![("cpu".into(), 12_000)]);
    assert_eq!(
        because(limited.clone(), &asks(9_000)),
        Hindrance::Limits {
            instance_type: "g.16".into(),
            exceeded: vec![Exceeded { resource: "cpu".into(), has: 16_000, left: 12_000 }]
        }
    );
    assert!(matches!(answer(limited, &asks(7_000)), PoolAnswer::Takes(_)));
    let full = with(|pool| pool.remaining = vec![(NODES.into(), 0)]);
    assert_eq!(because(full, &asks(1_000)), Hindrance::Nodes);
    // Whoever has the wrong taints or labels is told so before sizes.
    let tainted = with(|pool| pool.taints = vec![taint("dedicated", "NoSchedule")]);
    assert_eq!(
        because(tainted.clone(), &asks(64_000)),
        Hindrance::Taint { taint: "dedicated:NoSchedule".to_owned() }
    );
    let constraints =
        Constraints { tolerations: vec![tolerating("dedicated")], ..Constraints::default() };
    let tolerant = with_constraints(asks(1_000), constraints);
    assert!(matches!(answer(tainted, &tolerant), PoolAnswer::Takes(_)));
    let contradicts = with_constraints(asks(64_000), selecting(labels::OS, "windows"));
    let Hindrance::Requirements { contradictions } = because(pool("default"), &contradicts) else {
        panic!("linux is not windows");
    };
    assert_eq!(
        contradictions,
        ["key kubernetes.io/os, kubernetes.io/os In [windows] not in kubernetes.io/os In [linux]"]
    );
    let choosy = with(|pool| {
        let mut families = requirement(labels::INSTANCE_CATEGORY, Operator::Exists, &[]);
        families.min_values = Some(4);
        pool.requirements.add(families);
    });
    assert_eq!(
        because(choosy, &asks(1_000)),
        Hindrance::MinValues { key: labels::INSTANCE_CATEGORY.into(), wanted: 4, found: 3 }
    );
}

#[test]
fn what_daemons_take_is_not_left_for_pods() {
    let daemon = Daemon {
        requests: Resources { cpu_milli: 1_000, pods: 1, ..Resources::default() },
        alternatives: vec![Default::default()],
        tolerations: Vec::new(),
        ports: Vec::new(),
    };
    let busy = with(|pool| pool.daemons = vec![daemon]);
    assert_eq!(
        because(busy, &pod("p", 31_000, GIB)),
        Hindrance::TooSmall { shortages: vec![cpu(31_000, 30_920, Some("c.32"))] }
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A pool takes a pod in the review exactly if a solve buys a machine from it, and then that.
    #[test]
    fn it_says_what_a_solve_does(
        cpus in 1_i64..40,
        gib in 1_i64..140,
        sizes in proptest::collection::vec(prop_oneof!["1", "2", "4", "8", "16", "32"], 0..4),
        category in proptest::option::of(prop_oneof!["c", "m", "g"]),
        left in proptest::option::of(0_i64..40),
        nodes in proptest::option::of(0_i64..2),
        tainted: bool,
        tolerates: bool,
    ) {
        let pool = with(|pool| {
            if !sizes.is_empty() {
                let sizes: Vec<&str> = sizes.iter().map(String::as_str).collect();
                pool.requirements.add(requirement(labels::INSTANCE_CPU, Operator::In, &sizes));
            }
            pool.remaining.extend(left.map(|left| ("cpu".into(), left * 1000)));
            pool.remaining.extend(nodes.map(|left| (NODES.into(), left)));
            if tainted {
                pool.taints.push(taint("t", "NoSchedule"));
            }
        });
        let mut constraints = match &category {
            Some(category) => selecting(labels::INSTANCE_CATEGORY, category),
            None => Constraints::default(),
        };
        if tolerates {
            constraints.tolerations.push(tolerating("t"));
        }
        let pod = with_constraints(pod("p", cpus * 1000, gib * GIB), constraints);
        let settings = Settings { packing: Packing::Upstream, ..Settings::default() };
        let mut solver = Solver::new(vec![pool], Vec::new(), settings);
        let solution = solver.solve(std::slice::from_ref(&pod));
        let answer = solver.review(&pod).remove(0);
        match solution.claims.first() {
            Some(claim) => {
                let (index, _, price) = claim.launch(&solver.pool(0).catalog);
                let PoolAnswer::Takes(offer) = answer else { panic!("{answer:?}") };
                prop_assert_eq!(&*offer.cheapest, &*solver.pool(0).catalog.get(index).name);
                prop_assert_eq!((offer.price, offer.types), (price, claim.types.len()));
            }
            None => {
                let PoolAnswer::Refuses(refusal) = answer else { panic!("{answer:?}") };
                let told = !matches!(refusal.because, Hindrance::Others { .. });
                prop_assert!(told, "nothing here asks for other pods: {refusal:?}");
            }
        }
    }
}
