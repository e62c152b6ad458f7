//! Deterministic simulation with faults: whole worlds under late, repeated and refused events and
//! writes, lost answers, and a restart after any write. Whatever happens, the invariants hold after
//! every step and the world ends as it should. A failing seed is printed and reproduces.
//!
//! `WHARF_FAULT_SEEDS=5000 cargo test -p wharf-sim --test faults` runs more seeds,
//! `WHARF_FAULT_SEED=17` runs one.

mod autoscaling;
mod batch;
mod cluster;
mod devices;
mod fargate;
mod gangs;
mod invariants;
mod lab;
mod services;
mod trial;
mod volumes;

use trial::Trial;

/// Seeds of the inflate lab, which needs about a second each, and of the smaller worlds.
const LAB_SEEDS: u64 = 40;
const SEEDS: u64 = 24;
/// Of worlds with a Service and a load balancer before the lab's pods.
const SERVICES_SEEDS: u64 = 12;
/// Of worlds with autoscalers, which are played twice each: with faults and without.
const AUTOSCALING_SEEDS: u64 = 12;
/// Of worlds with a watch for each kind.
const LATE_WATCH_SEEDS: u64 = 12;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a world with as many seeds as asked for.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a failing seed must be told")]
fn survives(world: fn(u64) -> Trial, seeds: u64) {
    let seeds = match number("WHARF_FAULT_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("WHARF_FAULT_SEEDS").unwrap_or(seeds),
    };
    let mut crashes = 0;
    for seed in seeds {
        let result = std::panic::catch_unwind(|| world(seed).crashes);
        match result {
            Ok(of_seed) => crashes += of_seed,
            Err(panic) => {
                eprintln!("seed {seed} fails; reproduce it with WHARF_FAULT_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{crashes} crashes survived");
}

#[test]
fn the_lab_survives_every_fault() {
    survives(lab::run, LAB_SEEDS);
}

#[test]
fn services_survive_every_fault() {
    survives(services::run, SERVICES_SEEDS);
}

#[test]
fn gangs_survive_every_fault() {
    survives(gangs::run, SEEDS);
}

#[test]
fn volumes_survive_every_fault() {
    survives(volumes::run, SEEDS);
}

#[test]
fn devices_survive_every_fault() {
    survives(devices::run, SEEDS);
}

#[test]
fn devices_survive_late_watches() {
    survives(devices::run_with_late_watches, LATE_WATCH_SEEDS);
}

#[test]
fn jobs_and_daemons_survive_every_fault() {
    survives(batch::run, SEEDS);
}

#[test]
fn jobs_and_daemons_survive_late_watches() {
    survives(batch::run_with_late_watches, LATE_WATCH_SEEDS);
}

#[test]
fn autoscalers_survive_every_fault() {
    survives(autoscaling::run, AUTOSCALING_SEEDS);
}

#[test]
fn forecasts_survive_every_fault() {
    survives(autoscaling::run_with_forecast, SEEDS);
}

#[test]
fn pods_on_fargate_survive_every_fault() {
    survives(fargate::run, SEEDS);
}

#[test]
fn a_seed_gives_the_same_history_twice() {
    let worlds = [lab::run, gangs::run, volumes::run, devices::run, autoscaling::run, fargate::run];
    for world in worlds {
        assert_eq!(world(3).history(), world(3).history());
    }
}
