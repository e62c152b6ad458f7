//! kube-scheduler's rules as they are written down, applied one node at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::{GPU, Resident, Task, World};

/// What should become of a task.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) evaluated: usize,
    pub(crate) feasible: usize,
    pub(crate) verdict: Verdict,
}

#[derive(Debug)]
pub(crate) enum Verdict {
    /// It runs here, for these weighted scores (those that are not 0).
    Placed {
        machine: usize,
        scores: BTreeMap<&'static str, i64>,
    },
    /// These have to leave first.
    Room {
        machine: usize,
        victims: Vec<usize>,
    },
    Nothing {
        message: String,
    },
}

pub(crate) fn decide(world: &mut World, number: usize, task: &Task, percentage: usize) -> Expected {
    if world.machines.is_empty() {
        let message = "no nodes available to schedule pods".to_owned();
        return Expected { evaluated: 0, feasible: 0, verdict: Verdict::Nothing { message } };
    }
    let own = world.nominated.iter().find(|waiting| waiting.number == number);
    if let Some(own) = own
        && refusal(world, own.machine, number, task).0.is_empty()
    {
        let verdict = Verdict::Placed { machine: own.machine, scores: BTreeMap::new() };
        return Expected { evaluated: 1, feasible: 1, verdict };
    }
    let order = order(world);
    let count = order.len();
    let wanted = wanted(count, percentage);
    let mut feasible = Vec::new();
    let mut rejected = Vec::new();
    for step in 0..count {
        let machine = order[(world.start + step) % count];
        let (reasons, hopeless) = refusal(world, machine, number, task);
        if reasons.is_empty() {
            feasible.push(machine);
        } else {
            rejected.push((machine, reasons, hopeless));
        }
        if feasible.len() == wanted {
            break;
        }
    }
    let evaluated = feasible.len() + rejected.len();
    world.start = (world.start + evaluated) % count;
    let verdict = match feasible.as_slice() {
        [] => without_room(world, number, task, &rejected),
        [only] => Verdict::Placed { machine: *only, scores: BTreeMap::new() },
        several => {
            let scores = scores(world, task, several);
            let totals: Vec<i64> = scores.iter().map(|scores| scores.values().sum()).collect();
            let highest = totals.iter().max().unwrap();
            let first = totals.iter().position(|total| total == highest).unwrap();
            let mut scores = scores[first].clone();
            scores.retain(|_, score| *score != 0);
            Verdict::Placed { machine: several[first], scores }
        }
    };
    Expected { evaluated, feasible: feasible.len(), verdict }
}

/// The first of each zone, then the second of each, and so on.
fn order(world: &World) -> Vec<usize> {
    let mut zones: Vec<(u8, Vec<usize>)> = Vec::new();
    for (index, machine) in world.machines.iter().enumerate() {
        match zones.iter_mut().find(|(zone, _)| *zone == machine.zone) {
            Some((_, machines)) => machines.push(index),
            None => zones.push((machine.zone, vec![index])),
        }
    }
    let mut order = Vec::new();
    for round in 0..world.machines.len() {
        for (_, machines) in &zones {
            order.extend(machines.get(round));
        }
    }
    order
}

/// How many feasible nodes are enough.
fn wanted(count: usize, percentage: usize) -> usize {
    if count < 100 {
        return count;
    }
    let percentage = if percentage == 0 { (50 - count / 125).max(5) } else { percentage };
    (count * percentage / 100).max(100)
}

fn on(pods: &[Resident], machine: usize) -> Vec<&Resident> {
    pods.iter().filter(|pod| pod.machine == machine).collect()
}

/// Why a machine refuses a task, both with the pods there and with those besides for which room is
/// being made; and whether evictions could not help.
pub(crate) fn refusal(
    world: &World,
    machine: usize,
    number: usize,
    task: &Task,
) -> (Vec<String>, bool) {
    let there = on(&world.residents, machine);
    let mut expected = there.clone();
    expected.extend(
        on(&world.nominated, machine)
            .into_iter()
            .filter(|waiting| waiting.number != number && waiting.task.priority >= task.priority),
    );
    let refused = refused_among(world, machine, task, &expected);
    if refused.0.is_empty() { refused_among(world, machine, task, &there) } else { refused }
}

fn refused_among(
    world: &World,
    machine: usize,
    task: &Task,
    pods: &[&Resident],
) -> (Vec<String>, bool) {
    let machine = &world.machines[machine];
    let because = |reason: &str| (vec![reason.to_owned()], true);
    if machine.cordoned && !task.tolerant {
        return because("node(s) were unschedulable");
    }
    if machine.hard_taint && !task.tolerant {
        return because("node(s) had untolerated taint(s)");
    }
    if task.zone.is_some_and(|zone| zone != machine.zone) {
        return because("node(s) didn't match Pod's node affinity/selector");
    }
    if task.port > 0 && pods.iter().any(|pod| pod.task.port == task.port) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return (vec![reason.to_owned()], false);
    }
    let mut reasons = Vec::new();
    let mut hopeless = false;
    if pods.len() as i64 + 1 > machine.slots {
        reasons.push("Too many pods".to_owned());
    }
    let used = |amount: fn(&Task) -> i64| pods.iter().map(|pod| amount(&pod.task)).sum::<i64>();
    let cpu = |task: &Task| task.cpu.unwrap_or(0);
    let memory = |task: &Task| task.memory.unwrap_or(0);
    for (name, asked, all, used) in [
        ("cpu", cpu(task), machine.cpu, used(cpu)),
        ("memory", memory(task), machine.memory, used(memory)),
        (GPU, task.gpu, machine.gpu, used(|task| task.gpu)),
    ] {
        if asked > 0 && asked > all - used {
            reasons.push(format!("Insufficient {name}"));
            hopeless |= asked > all;
        }
    }
    (reasons, hopeless)
}

/// The weighted scores of each of these machines.
fn scores(world: &World, task: &Task, machines: &[usize]) -> Vec<BTreeMap<&'static str, i64>> {
    let soft = |machine: &usize| {
        let taints = i64::from(world.machines[*machine].soft_taints);
        if task.tolerant { (taints - 1).max(0) } else { taints }
    };
    let liked = |machine: &usize| {
        let here = task.preferred.iter().filter(|(_, zone)| *zone == world.machines[*machine].zone);
        here.map(|(weight, _)| weight).sum::<i64>()
    };
    let most_soft = machines.iter().map(soft).max().unwrap();
    let most_liked = machines.iter().map(liked).max().unwrap();
    let score = |machine: &usize| {
        let taints = if most_soft == 0 { 100 } else { 100 - 100 * soft(machine) / most_soft };
        let affinity = if most_liked == 0 { 0 } else { 100 * liked(machine) / most_liked };
        BTreeMap::from([
            ("TaintToleration", 3 * taints),
            ("NodeAffinity", 2 * affinity),
            ("NodeResourcesFit", least_allocated(world, task, *machine)),
            ("NodeResourcesBalancedAllocation", balanced(world, task, *machine)),
        ])
    };
    machines.iter().map(score).collect()
}

fn least_allocated(world: &World, task: &Task, machine: usize) -> i64 {
    let pods = on(&world.residents, machine);
    let cpu = |task: &Task| task.cpu.unwrap_or(100);
    let memory = |task: &Task| task.memory.unwrap_or(200 << 20);
    let used = |amount: fn(&Task) -> i64| pods.iter().map(|pod| amount(&pod.task)).sum::<i64>();
    let all = &world.machines[machine];
    let parts: Vec<i64> =
        [(used(cpu) + cpu(task), all.cpu), (used(memory) + memory(task), all.memory)]
            .into_iter()
            .filter(|(_, all)| *all > 0)
            .map(|(used, all)| if used > all { 0 } else { (all - used) * 100 / all })
            .collect();
    if parts.is_empty() { 0 } else { parts.iter().sum::<i64>() / parts.len() as i64 }
}

fn balanced(world: &World, task: &Task, machine: usize) -> i64 {
    let (cpu, memory) = (task.cpu.unwrap_or(0), task.memory.unwrap_or(0));
    if cpu == 0 && memory == 0 {
        return 0;
    }
    let pods = on(&world.residents, machine);
    let used_cpu: i64 = pods.iter().filter_map(|pod| pod.task.cpu).sum();
    let used_memory: i64 = pods.iter().filter_map(|pod| pod.task.memory).sum();
    let all = &world.machines[machine];
    let balance = |cpu: i64, memory: i64| {
        let share = |used: i64, all: i64| (used as f64 / all as f64).min(1.0);
        let deviation = if all.cpu == 0 || all.memory == 0 {
            0.0
        } else {
            (share(cpu, all.cpu) - share(memory, all.memory)).abs() / 2.0
        };
        ((1.0 - deviation) * 100.0).trunc() as i64
    };
    50 + (50 + balance(used_cpu + cpu, used_memory + memory) - balance(used_cpu, used_memory)) / 2
}

type Rejected = (usize, Vec<String>, bool);

/// What is said when no machine will do, or the room that can be made.
fn without_room(world: &World, number: usize, task: &Task, rejected: &[Rejected]) -> Verdict {
    let count = world.machines.len();
    let potential: Vec<usize> = rejected
        .iter()
        .filter(|(_, _, hopeless)| !hopeless)
        .map(|(machine, ..)| *machine)
        .collect();
    let wanted = (potential.len() / 10).max(100).min(potential.len());
    let mut candidates = Vec::new();
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for step in 0..potential.len() {
        let machine = potential[(world.start + step) % potential.len()];
        match candidate(world, machine, number, task) {
            Ok(candidate) => candidates.push(candidate),
            Err(reasons) => {
                reasons.into_iter().for_each(|reason| *told.entry(reason).or_default() += 1);
            }
        }
        let clean = candidates.iter().any(|candidate| candidate.violations == 0);
        if clean && candidates.len() >= wanted {
            break;
        }
    }
    if let Some(best) = choose(&candidates) {
        let victims = best.victims.iter().map(|victim| victim.number).collect();
        return Verdict::Room { machine: best.machine, victims };
    }
    if potential.len() < count {
        let reason = "Preemption is not helpful for scheduling".to_owned();
        told.insert(reason, count - potential.len());
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for reason in rejected.iter().flat_map(|(_, reasons, _)| reasons) {
        *reasons.entry(reason.clone()).or_default() += 1;
    }
    let message = format!(
        "{} no new claims to deallocate, preemption: {}",
        sentence(count, &reasons),
        sentence(count, &told)
    );
    Verdict::Nothing { message }
}

fn sentence(count: usize, reasons: &BTreeMap<String, usize>) -> String {
    let phrases: BTreeSet<_> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let phrases: Vec<_> = phrases.into_iter().collect();
    format!("0/{count} nodes are available: {}.", phrases.join(", "))
}

struct RoomToMake<'w> {
    machine: usize,
    victims: Vec<&'w Resident>,
    violations: usize,
}

/// Takes every pod of lower priority away, and lets them back in one by one.
fn candidate<'w>(
    world: &'w World,
    machine: usize,
    number: usize,
    task: &Task,
) -> Result<RoomToMake<'w>, Vec<String>> {
    let (mut lower, mut there): (Vec<_>, Vec<_>) = on(&world.residents, machine)
        .into_iter()
        .partition(|pod| pod.task.priority < task.priority);
    if lower.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    // Local rules get no milder with more pods.
    let waiting = on(&world.nominated, machine).into_iter();
    there.extend(
        waiting
            .filter(|waiting| waiting.number != number && waiting.task.priority >= task.priority),
    );
    let (reasons, _) = refused_among(world, machine, task, &there);
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let importance = |pod: &&Resident| (-pod.task.priority, pod.task.started);
    lower.sort_by_key(importance);
    let mut allowed: BTreeMap<u8, i64> =
        world.budgets.iter().map(|budget| (budget.app, budget.allowed)).collect();
    let (protected, free): (Vec<_>, Vec<_>) = lower.into_iter().partition(|pod| {
        allowed.get_mut(&pod.task.app).is_some_and(|allowed| {
            *allowed -= 1;
            *allowed < 0
        })
    });
    let count = protected.len();
    let mut victims = Vec::new();
    let mut violations = 0;
    for (index, pod) in protected.into_iter().chain(free).enumerate() {
        there.push(pod);
        if !refused_among(world, machine, task, &there).0.is_empty() {
            there.pop();
            victims.push(pod);
            violations += usize::from(index < count);
        }
    }
    victims.sort_by_key(importance);
    Ok(RoomToMake { machine, victims, violations })
}

/// Each rule decides only among the equals of the one before.
fn choose<'c, 'w>(candidates: &'c [RoomToMake<'w>]) -> Option<&'c RoomToMake<'w>> {
    let highest = |candidate: &RoomToMake<'_>| {
        candidate.victims.iter().map(|victim| victim.task.priority).max().unwrap_or(i32::MIN)
    };
    let mut left: Vec<&RoomToMake<'_>> = candidates.iter().collect();
    let rules: [&dyn Fn(&RoomToMake<'_>) -> i64; 5] = [
        &|candidate| candidate.violations as i64,
        &|candidate| i64::from(highest(candidate)),
        &|candidate| {
            candidate.victims.iter().map(|victim| i64::from(victim.task.priority) + (1 << 31)).sum()
        },
        &|candidate| candidate.victims.len() as i64,
        &|candidate| {
            let most = candidate.victims.iter();
            let most = most.filter(|victim| victim.task.priority == highest(candidate));
            -i64::from(most.map(|victim| victim.task.started).min().unwrap_or(0))
        },
    ];
    for rule in rules {
        let least = left.iter().map(|candidate| rule(candidate)).min()?;
        left.retain(|candidate| rule(candidate) == least);
    }
    left.first().copied()
}
