//! Decisions against a slow, obvious restatement of the rules for pods and nodes taken one by one:
//! no index, no memo, nothing kept from one decision to the next.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod rules;
mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use wharf_scheduler::{
    Candidate, Decision, Memo, Profile, Rotation, Snapshot, evaluate, schedule_with,
};

use rules::{Expected, Verdict};
use world::{Budget, Machine, Resident, Task, World};

fn machine() -> impl Strategy<Value = Machine> {
    (0..5i64, 1..5i64, 2..6i64, 0..2i64, 0..3u8, 0..12u8, prop::bool::weighted(0.05)).prop_map(
        |(cpu, memory, slots, gpu, zone, taint, cordoned)| Machine {
            cpu: cpu * 1000,
            memory: memory << 30,
            slots,
            gpu,
            zone,
            hard_taint: taint == 0,
            soft_taints: taint.saturating_sub(8),
            cordoned,
        },
    )
}

fn task() -> impl Strategy<Value = Task> {
    (
        (
            prop::option::weighted(0.8, 0..6i64),
            prop::option::weighted(0.8, 0..6i64),
            0..12i64,
            0..8u16,
        ),
        (
            any::<bool>(),
            prop::option::weighted(0.1, 0..4u8),
            prop::collection::vec((1..100i64, 0..3u8), 0..3),
        ),
        (0..3u8, 0..3i32, 0..50u32),
    )
        .prop_map(
            |((cpu, memory, gpu, port), (tolerant, zone, preferred), (app, priority, started))| {
                Task {
                    cpu: cpu.map(|cpu| cpu * 400),
                    memory: memory.map(|memory| memory << 28),
                    gpu: i64::from(gpu == 0),
                    port: if port == 0 { 80 } else { 0 },
                    tolerant,
                    zone,
                    preferred,
                    app,
                    priority,
                    started,
                }
            },
        )
}

#[derive(Clone, Debug)]
enum Event {
    /// The task with this number asks for a node.
    Ask(usize),
    /// A pod goes.
    Leave(usize),
    Budget(u8, i64),
    /// A machine becomes another one in the same zone.
    Change(usize, Machine),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any::<usize>().prop_map(Event::Ask),
        2 => any::<usize>().prop_map(Event::Leave),
        1 => (0..3u8, 0..2i64).prop_map(|(app, allowed)| Event::Budget(app, allowed)),
        1 => (any::<usize>(), machine()).prop_map(|(index, machine)| Event::Change(index, machine)),
    ]
}

/// The world twice: as the rules see it, and as the scheduler's snapshot.
struct Both {
    world: World,
    snapshot: Snapshot,
    memo: Memo,
    rotation: Rotation,
}

impl Both {
    fn new(machines: Vec<Machine>) -> Self {
        let mut snapshot = Snapshot::new();
        for (index, machine) in machines.iter().enumerate() {
            snapshot.set_node(&machine.node(index));
        }
        let world = World { machines, ..World::default() };
        Self { world, snapshot, memo: Memo::new(), rotation: Rotation::default() }
    }

    fn name(&self, node: wharf_scheduler::NodeIndex) -> usize {
        self.snapshot.node(node).facts.name[1..].parse().unwrap()
    }

    fn scores(&self, candidate: &Candidate) -> BTreeMap<&'static str, i64> {
        // What has nothing to do with these pods scores nothing.
        let scores = candidate.scores.iter().filter(|(_, score)| *score != 0);
        scores.map(|(plugin, score)| (plugin.name(), *score)).collect()
    }

    fn carry_out(&mut self, number: usize, task: &Task, expected: &Expected) {
        let info = self.snapshot.compile(&task.pod(number, None));
        match &expected.verdict {
            Verdict::Placed { machine, .. } => {
                self.snapshot.withdraw_nomination(&info.uid);
                self.snapshot.place(info, &format!("n{machine}"));
                let resident = Resident { number, task: task.clone(), machine: *machine };
                self.world.nominated.retain(|waiting| waiting.number != number);
                self.world.residents.push(resident);
            }
            Verdict::Room { machine, victims } => {
                for victim in victims {
                    self.leave(*victim);
                }
                self.snapshot.nominate(info, &format!("n{machine}"));
                let resident = Resident { number, task: task.clone(), machine: *machine };
                self.world.nominated.retain(|waiting| waiting.number != number);
                self.world.nominated.push(resident);
            }
            Verdict::Nothing { .. } => {}
        }
    }

    fn leave(&mut self, number: usize) {
        self.snapshot.displace(&format!("default/p{number}"));
        self.world.residents.retain(|resident| resident.number != number);
    }

    fn ask(&mut self, number: usize, task: &Task, profile: &Profile) -> Result<(), TestCaseError> {
        let waits = self.world.nominated.iter().find(|waiting| waiting.number == number);
        let info = self.snapshot.compile(&task.pod(number, waits.map(|waiting| waiting.machine)));
        let percentage = profile.percentage_of_nodes_to_score as usize;
        let expected = rules::decide(&mut self.world, number, task, percentage);
        let everybody = evaluate(&self.snapshot, &info, profile);
        for (node, refused) in &everybody.nodes {
            let reasons = refused.map(|refused| refused.reasons(&info)).unwrap_or_default();
            let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
            let machine = self.name(*node);
            let (theirs, _) = rules::refusal(&self.world, machine, number, task);
            prop_assert_eq!(reasons, theirs, "{} on n{}", number, machine);
        }
        let decision =
            schedule_with(&mut self.memo, &self.snapshot, &info, profile, &mut self.rotation);
        match (&decision, &expected.verdict) {
            (Decision::Bind(placement), Verdict::Placed { machine, scores }) => {
                prop_assert_eq!(self.name(placement.node), *machine);
                prop_assert_eq!(placement.evaluated, expected.evaluated);
                prop_assert_eq!(placement.feasible, expected.feasible);
                if let Some(best) = placement.best.first() {
                    prop_assert_eq!(&self.scores(best), scores);
                    prop_assert_eq!(best.total, scores.values().sum::<i64>());
                }
            }
            (Decision::Unschedulable(answer), Verdict::Room { machine, victims }) => {
                let nomination = answer.preemption.nomination.as_ref().unwrap();
                prop_assert_eq!(self.name(nomination.node), *machine);
                let mine: Vec<usize> = nomination
                    .victims
                    .iter()
                    .map(|victim| victim.key.name[1..].parse().unwrap())
                    .collect();
                prop_assert_eq!(&mine, victims);
            }
            (Decision::Unschedulable(answer), Verdict::Nothing { message }) => {
                prop_assert_eq!(&answer.message(), message);
            }
            _ => prop_assert!(false, "{decision:?} instead of {expected:?}"),
        }
        self.carry_out(number, task, &expected);
        Ok(())
    }

    fn nothing_is_overcommitted(&self) -> Result<(), TestCaseError> {
        for index in self.snapshot.nodes() {
            let node = self.snapshot.node(*index);
            let machine = &self.world.machines[self.name(*index)];
            let residents = self.world.residents.iter();
            let here = residents.filter(|resident| resident.machine == self.name(*index));
            prop_assert_eq!(node.pods.len(), here.clone().count());
            let cpu: i64 = here.filter_map(|resident| resident.task.cpu).sum();
            prop_assert_eq!(node.requested.cpu_milli, cpu);
            prop_assert!(cpu <= machine.cpu.max(0), "n{} is overcommitted", self.name(*index));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn decisions_are_those_of_the_rules(
        machines in prop_oneof![
            4 => prop::collection::vec(machine(), 0..8),
            2 => prop::collection::vec(machine(), 16..24),
            1 => prop::collection::vec(machine(), 100..120),
        ],
        tasks in prop::collection::vec(task(), 1..8),
        events in prop::collection::vec(event(), 0..80),
        percentage in prop_oneof![Just(0), Just(100)],
    ) {
        let profile = Profile { percentage_of_nodes_to_score: percentage, ..Profile::default() };
        let mut both = Both::new(machines);
        let mut changed = false;
        for (number, event) in events.into_iter().enumerate() {
            match event {
                Event::Ask(from) => {
                    // Those that wait for their room ask again now and then.
                    let waiting = both.world.nominated.first().filter(|_| from % 2 == 0);
                    let (number, task) = match waiting {
                        Some(waiting) => (waiting.number, waiting.task.clone()),
                        None => {
                            let mut task = tasks[from % tasks.len()].clone();
                            // Who comes late had better be important.
                            task.priority += i32::try_from(number / 10).unwrap();
                            (number, task)
                        }
                    };
                    both.ask(number, &task, &profile)?;
                }
                Event::Leave(from) if !both.world.residents.is_empty() => {
                    let number = both.world.residents[from % both.world.residents.len()].number;
                    both.leave(number);
                }
                Event::Budget(app, allowed) => {
                    both.world.budgets.retain(|budget| budget.app != app);
                    let budget = Budget { app, allowed };
                    both.snapshot.set_budget(&budget.object());
                    both.world.budgets.push(budget);
                    both.world.budgets.sort_by_key(|budget| budget.app);
                }
                Event::Change(from, machine) if !both.world.machines.is_empty() => {
                    let index = from % both.world.machines.len();
                    let zone = both.world.machines[index].zone;
                    let machine = Machine { zone, ..machine };
                    both.snapshot.set_node(&machine.node(index));
                    both.world.machines[index] = machine;
                    changed = true;
                }
                Event::Leave(_) | Event::Change(..) => {}
            }
            // A machine that shrinks may have more pods than it has room.
            if !changed {
                both.nothing_is_overcommitted()?;
            }
        }
    }
}
