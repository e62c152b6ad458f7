//! The whole model: what must hold whatever happens, and the numbers of the labs.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use wharf_model::curve::Curve;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;

use super::*;

const MEBI: f64 = 1_048_576.0;

fn node(cores: f64) -> Node {
    Node { cores, memory: 4_096.0 * MEBI, system_cores: 0.0, system_memory: 0.0 }
}

fn id(name: &str) -> Id {
    Id { pod: ObjectKey::namespaced("default", name), container: "c".into() }
}

fn container(profile: Profile) -> Container {
    Container {
        started: Time::EPOCH,
        weight: 102.0,
        cpu_limit: None,
        memory_limit: None,
        oom_score_adj: 1_000,
        profile: Arc::new(profile),
    }
}

fn target() -> Target {
    Target { host: "php-apache".into(), port: 80 }
}

/// `while sleep 0.01; do wget …; done`
fn generator() -> Profile {
    let phases = vec![Phase::Work(0.005), Phase::Pause(0.01), Phase::Request(target())];
    Profile { cycles: vec![Cycle { phases }], ..Profile::idle(0.0, MEBI) }
}

fn php() -> Profile {
    let serve = Serve { cpu: 0.07, wait: 0.0, memory: 0.0 };
    Profile { serve: Some(serve), ..Profile::idle(0.0, 12.0 * MEBI) }
}

/// Ticks until nothing changes any more.
fn settle(load: &mut Load, from: i64) -> i64 {
    let mut now = from;
    for _ in 0..200 {
        load.tick(Time::from_seconds(now));
        if load.next().is_none() {
            return now;
        }
        now += 1;
    }
    now
}

fn cpu_milli(load: &Load, node: &str, name: &str) -> u64 {
    load.nodes[node].containers[&id(name)].told.cpu_nanos / 1_000_000
}

/// Generators and endpoints, the latter with a limit, on a node each.
fn lab(generators: usize, endpoints: usize, limit: f64) -> Load {
    let mut load = Load::default();
    load.set_node(&"clients".into(), node(64.0));
    load.set_node(&"servers".into(), node(64.0));
    let servers: Vec<Id> = (0..endpoints).map(|index| id(&format!("php-{index}"))).collect();
    for server in &servers {
        let limited = Container { cpu_limit: Some(limit), ..container(php()) };
        load.start(&"servers".into(), server, limited);
    }
    for index in 0..generators {
        load.start(&"clients".into(), &id(&format!("gen-{index}")), container(generator()));
    }
    load.set_endpoints("default", &target(), servers);
    load
}

#[test]
fn one_generator_fills_one_pod_and_spreads_over_more() {
    for (endpoints, limit, low, high) in [
        // At its limit: 250% of the lab's request of 200m.
        (1, 0.5, 495, 500),
        (2, 0.5, 280, 340),
        (7, 0.5, 80, 100),
        // Without a limit one client keeps less than one core busy.
        (1, 64.0, 700, 900),
    ] {
        let mut load = lab(1, endpoints, limit);
        settle(&mut load, 1);
        let used = cpu_milli(&load, "servers", "php-0");
        assert!((low..=high).contains(&used), "{endpoints} endpoints: {used}m each");
    }
}

#[test]
fn a_loop_that_works_half_the_time_uses_half_a_core() {
    let mut load = Load::default();
    load.set_node(&"n".into(), node(2.0));
    let phases = vec![Phase::Work(0.003), Phase::Burn(0.5), Phase::Work(0.003), Phase::Pause(0.5)];
    let hamster = Profile { cycles: vec![Cycle { phases }], ..Profile::idle(0.0, MEBI) };
    load.start(&"n".into(), &id("hamster"), container(hamster));
    settle(&mut load, 1);
    let used = cpu_milli(&load, "n", "hamster");
    // Within the histogram's bucket from 477m to 511m: what the vertical autoscaler makes 587m of.
    assert!((478..511).contains(&used), "{used}");
}

#[test]
fn requests_nobody_answers_fail() {
    let mut load = lab(1, 0, 0.5);
    settle(&mut load, 1);
    let (answered, failed) = load.requests();
    assert_eq!(answered, 0.0);
    assert!(failed > 10.0, "{failed}");
}

#[test]
fn memory_over_a_limit_kills_the_container_and_over_the_node_who_matters_least() {
    let mut load = Load::default();
    load.set_node(&"n".into(), node(2.0));
    let holds = |mebi: f64| Profile::idle(0.0, mebi * MEBI);
    let limited = Container { memory_limit: Some(100.0 * MEBI), ..container(holds(250.0)) };
    load.start(&"n".into(), &id("limited"), limited);
    assert_eq!(load.tick(Time::from_seconds(1)).killed, [id("limited")]);
    load.stop(&id("limited"));
    let guaranteed = Container { oom_score_adj: -997, ..container(holds(3_000.0)) };
    load.start(&"n".into(), &id("guaranteed"), guaranteed);
    load.start(&"n".into(), &id("best-effort"), container(holds(1_500.0)));
    assert_eq!(load.tick(Time::from_seconds(2)).killed, [id("best-effort")]);
}

#[test]
fn what_does_not_change_is_not_looked_at() {
    let mut load = Load::default();
    load.set_node(&"n".into(), node(2.0));
    let steps = vec![(Duration::ZERO, 0.1), (Duration::from_secs(300), 0.5)];
    let curve = Curve::Steps { points: steps, repeat: None };
    load.start(&"n".into(), &id("a"), container(Profile { cpu: curve, ..Profile::idle(0.0, 0.0) }));
    load.start(&"n".into(), &id("b"), container(Profile::idle(0.001, MEBI)));
    assert_eq!(load.tick(Time::from_seconds(1)).usages.len(), 2);
    assert_eq!(load.next(), Some(Time::from_seconds(300)));
    let outcome = load.tick(Time::from_seconds(300));
    assert_eq!(outcome.usages.len(), 1);
    assert_eq!((cpu_milli(&load, "n", "a"), load.next()), (500, None));
    assert_eq!(load.tick(Time::from_seconds(301)), Outcome::default());
}

/// A world of some nodes with containers of all sorts on them.
fn worlds() -> impl Strategy<Value = Load> {
    let kinds = (0_u8..4, 0.0_f64..3.0, proptest::option::of(0.05_f64..2.0), 2.0_f64..2_048.0);
    let containers = proptest::collection::vec((0_usize..3, kinds), 0..24);
    (0.2_f64..8.0, containers).prop_map(|(cores, containers)| {
        let mut load = Load::default();
        let names = ["a", "b", "c"];
        for name in names {
            load.set_node(&name.into(), node(cores));
        }
        let mut endpoints = Vec::new();
        for (index, (node, (kind, cpu, limit, weight))) in containers.into_iter().enumerate() {
            let id = id(&format!("c{index}"));
            let profile = match kind {
                0 => Profile::idle(cpu, MEBI),
                1 => generator(),
                2 => Profile {
                    open: Some((Curve::Constant(cpu * 30.0), target())),
                    ..Profile::idle(0.0, MEBI)
                },
                _ => php(),
            };
            if kind == 3 {
                endpoints.push(id.clone());
            }
            let limited = Container { cpu_limit: limit, weight, ..container(profile) };
            load.start(&names[node].into(), &id, limited);
        }
        load.set_endpoints("default", &target(), endpoints);
        load
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nobody_uses_more_than_there_is_and_no_request_is_lost(mut load in worlds()) {
        for second in 1..8 {
            load.tick(Time::from_seconds(second));
            let mut answered = 0.0;
            for state in load.nodes.values() {
                let capacity = (state.node.cores * 1e9) as u64;
                let mut sum = 0;
                for state in state.containers.values() {
                    let limit = state.container.cpu_limit.unwrap_or(f64::INFINITY);
                    prop_assert!(state.told.cpu_nanos as f64 <= limit * 1e9 + 1.0);
                    sum += state.told.cpu_nanos;
                    answered += state.answered;
                }
                prop_assert!(sum <= capacity + 1_000, "{sum} of {capacity}");
            }
            let (routed, failed) = load.requests();
            prop_assert!((routed - answered).abs() <= 1e-6 * routed.max(1.0), "{routed} {answered}");
            prop_assert!(failed >= 0.0);
        }
    }

    #[test]
    fn more_load_is_no_less_work(generators in 1_usize..12, endpoints in 1_usize..6, limit in 0.1_f64..2.0) {
        let total = |generators: usize| {
            let mut load = lab(generators, endpoints, limit);
            settle(&mut load, 1);
            (load.requests().0, load.nodes["servers"].told.cpu_nanos)
        };
        let (few, more) = (total(generators), total(generators + 1));
        prop_assert!(more.0 >= few.0 * 0.999 && more.1 as f64 >= few.1 as f64 * 0.999, "{few:?} {more:?}");
    }

    /// One more endpoint means less for each, and no fewer answers.
    #[test]
    fn more_endpoints_share_the_work(generators in 1_usize..12, endpoints in 1_usize..6) {
        let each = |endpoints: usize| {
            let mut load = lab(generators, endpoints, 0.5);
            settle(&mut load, 1);
            (cpu_milli(&load, "servers", "php-0"), load.requests().0)
        };
        let (few, more) = (each(endpoints), each(endpoints + 1));
        prop_assert!(more.0 <= few.0 + 1 && more.1 >= few.1 * 0.999, "{few:?} {more:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Leaving out what has not changed changes nothing.
    #[test]
    fn routes_need_not_be_solved_while_other_nodes_change(
        steps in proptest::collection::vec((0..6_u8, 0..4_usize, 1..400_u32), 1..40),
    ) {
        let mut both = [false, true].map(|thorough| {
            let mut load = lab(2, 2, 0.5);
            load.thorough = thorough;
            load.set_node(&"others".into(), node(2.0));
            load
        });
        for (second, (what, which, amount)) in steps.into_iter().enumerate() {
            let now = Time::from_seconds(i64::try_from(second).expect("small") + 1);
            let amount = f64::from(amount) / 100.0;
            let outcomes = both.each_mut().map(|load| {
                let other = id(&format!("other-{which}"));
                let idle = container(Profile::idle(amount, MEBI));
                match what {
                    0 => drop(load.start(&"others".into(), &other, idle)),
                    1 => load.change(&other, |container| {
                        container.profile = Arc::new(Profile::idle(amount, MEBI));
                    }),
                    2 => load.stop(&other),
                    3 => drop(load.start(&"servers".into(), &other, idle)),
                    4 => load.stop(&id(&format!("php-{which}"))),
                    _ => drop(load.start(
                        &"servers".into(),
                        &id(&format!("php-{which}")),
                        container(php()),
                    )),
                }
                load.tick(now)
            });
            let [one, other] = outcomes;
            prop_assert_eq!(one, other);
            prop_assert_eq!(both[0].next().is_some(), both[1].next().is_some());
        }
    }
}
