//! Filling one machine: which of the pods that are left go on it.
//!
//! Pods are added one class at a time, always the class that matches best what is still free: the
//! sum over resources of what a pod takes times what is free, each weighed by its worth. Large pods
//! come first by that, and a machine whose memory is nearly gone takes pods of cpu.

use super::duals::Duals;
use super::problem::{Amounts, Class, DIMS_MAX, Problem};

/// How a fill departs from the plain rule, so that a search finds others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tilt {
    /// Factor on each resource's weight; empty for 1.
    pub(crate) weights: Vec<f64>,
    /// Varies the classes' scores by a few percent, each number differently; 0 not at all.
    pub(crate) noise: u64,
    /// Whether to even out what is left free rather than to match it.
    pub(crate) even: bool,
}

/// Pods that mind who else is on their machine come this much earlier: what is left to the end has
/// to fit with anybody.
const PARTICULAR: f64 = 1.5;
/// While a machine has room for many pods, this part of them is chosen at a time.
const PART_AT_A_TIME: u32 = 8;

/// Fills machines one after the other; keeps its tables between them.
pub(crate) struct Filler<'p> {
    problem: &'p Problem,
    /// Needs as floating point numbers, by class.
    needs: Vec<[f64; DIMS_MAX]>,
    /// Per group: how many pods of it are on the machine, and the most that its pods tolerate.
    groups: Vec<(u32, u32)>,
    touched: Vec<u32>,
    /// Per class: how many pods are on the machine.
    taken: Vec<u32>,
    /// Per class: whether it minds who else is on its machine, and what its place is worth besides
    /// its resources is asked for.
    particular: Vec<bool>,
    /// Per class: the number of its run. Classes of a run, which follow each other, ask for the same
    /// and differ at most in whom they mind; so a run is weighed once.
    run_of: Vec<u32>,
    /// Scratch: the classes that may go on the machine, and their runs.
    open: Vec<u32>,
    runs: Vec<Run>,
    scored: Vec<(f64, u32)>,
    /// Steps taken: classes looked at.
    pub(crate) work: u64,
}

/// Classes that ask for the same: a range of those that are open.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Those before it have no pod left that goes with what is on the machine.
    next: usize,
    end: usize,
}

impl<'p> Filler<'p> {
    pub(crate) fn new(problem: &'p Problem) -> Self {
        let needs =
            problem.classes.iter().map(|class| class.need.map(|need| need as f64)).collect();
        Self {
            problem,
            needs,
            groups: vec![(0, u32::MAX); problem.groups],
            touched: Vec::new(),
            taken: vec![0; problem.classes.len()],
            particular: problem.classes.iter().map(Class::is_particular).collect(),
            run_of: runs(problem),
            open: Vec::new(),
            runs: Vec::new(),
            scored: Vec::new(),
            work: 0,
        }
    }

    /// Forgets what is on the machine.
    pub(crate) fn clear(&mut self) {
        for group in self.touched.drain(..) {
            self.groups[group as usize] = (0, u32::MAX);
        }
    }

    /// Notes pods that are on the machine.
    pub(crate) fn put(&mut self, class: u32, count: u32) {
        for rule in &self.problem.classes[class as usize].hosts {
            let group = &mut self.groups[rule.group as usize];
            if *group == (0, u32::MAX) {
                self.touched.push(rule.group);
            }
            group.0 += if rule.counts { count } else { 0 };
            group.1 = group.1.min(rule.most);
        }
    }

    /// How many more pods of a class fit, by resources and by what they think of each other.
    pub(crate) fn fits(&self, class: u32, free: &Amounts) -> u32 {
        let class = &self.problem.classes[class as usize];
        let mut count = u32::MAX;
        for dim in 0..self.problem.dims {
            if class.need[dim] > 0 {
                let most = (free[dim].max(0) / class.need[dim]).min(i64::from(u32::MAX));
                count = count.min(most as u32);
            }
        }
        for rule in &class.hosts {
            let (here, most) = self.groups[rule.group as usize];
            let most = most.min(rule.most);
            if rule.counts {
                count = count.min(most.saturating_sub(here));
            } else if here > most {
                return 0;
            }
        }
        count
    }

    /// Fills a machine of a kind from `from`, classes of which `left` are left. `content` gets what
    /// goes on it; the result is what that is worth.
    pub(crate) fn fill(
        &mut self,
        kind: u32,
        from: &[u32],
        left: &[u32],
        duals: &Duals,
        tilt: &Tilt,
        content: &mut Vec<(u32, u32)>,
    ) -> f64 {
        let kind = &self.problem.kinds[kind as usize];
        let dims = self.problem.dims;
        let price = kind.price.max(1) as f64;
        let mut free = kind.room;
        content.clear();
        self.clear();
        let mut open = std::mem::take(&mut self.open);
        let mut runs = std::mem::take(&mut self.runs);
        open.clear();
        runs.clear();
        let mut last = u32::MAX;
        for class in from.iter().copied().filter(|class| left[*class as usize] > 0) {
            if kind.sets >> self.problem.classes[class as usize].set & 1 == 0 {
                continue;
            }
            open.push(class);
            let run = self.run_of[class as usize];
            match runs.last_mut().filter(|_| run == last) {
                Some(run) => run.end = open.len(),
                None => runs.push(Run { next: open.len() - 1, end: open.len() }),
            }
            last = run;
        }
        // Looking at a class is less work than weighing it.
        self.work += from.len() as u64 / 8;
        let mut worth = 0.0;
        // What a machine's resources are worth, as parts of its price: those of the set of pods
        // that value it most.
        let mut weights = [0.0; DIMS_MAX];
        for (set, rates) in duals.rates.iter().enumerate() {
            if kind.sets >> set & 1 == 1 {
                for dim in 0..dims {
                    let weight = rates[dim] * kind.room[dim] as f64 / price;
                    weights[dim] = f64::max(weights[dim], weight);
                }
            }
        }
        for (weight, factor) in weights.iter_mut().zip(&tilt.weights) {
            *weight *= factor;
        }
        let mut room = [1.0; DIMS_MAX];
        for dim in 0..dims {
            room[dim] = (kind.room[dim].max(1)) as f64;
        }
        loop {
            let mut factors = [0.0; DIMS_MAX];
            for dim in 0..dims {
                let part = free[dim] as f64 / room[dim];
                factors[dim] = weights[dim] * part / room[dim];
            }
            let mut scored = std::mem::take(&mut self.scored);
            scored.clear();
            self.work += runs.len() as u64 + 1;
            let mut at = 0;
            while at < runs.len() {
                let class = self.skip(&mut runs[at], &open, left, &free);
                let Some(class) = class else {
                    runs.swap_remove(at);
                    continue;
                };
                let known = &self.problem.classes[class as usize];
                let needs = &self.needs[class as usize];
                let mut score = 0.0;
                if tilt.even {
                    // The less is left over, and the more evenly, the better.
                    score = 2.0;
                    for dim in 0..dims {
                        let rest = (free[dim] as f64 - needs[dim]) / room[dim];
                        score -= weights[dim] * rest * rest;
                    }
                } else {
                    for dim in 0..dims {
                        score += factors[dim] * needs[dim];
                    }
                }
                if self.particular[class as usize] {
                    // Pods that must be apart bring what their place is worth besides.
                    let rates = &duals.rates[usize::from(known.set)];
                    let amounts: f64 = (0..dims).map(|dim| rates[dim] * needs[dim]).sum();
                    let place = (duals.values[class as usize] - amounts).max(0.0) / price;
                    score = (score + place) * PARTICULAR;
                }
                if tilt.noise != 0 {
                    score *= noise(tilt.noise, self.run_of[class as usize]);
                }
                scored.push((score, class));
                at += 1;
            }
            let better = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            let Some((_, best)) = scored.iter().min_by(|a, b| better(a, b)).copied() else {
                self.scored = scored;
                break;
            };
            // Many at a time while there is much room.
            let many = self.fits(best, &free) / PART_AT_A_TIME;
            let wanted = many.clamp(1, scored.len() as u32) as usize;
            if wanted < scored.len() && wanted > 1 {
                scored.select_nth_unstable_by(wanted - 1, better);
            }
            if wanted > 1 {
                scored[..wanted].sort_unstable_by(better);
            } else {
                scored[0] = (0.0, best);
            }
            let each = (many / wanted as u32).max(1);
            for (_, class) in &scored[..wanted] {
                let available = left[*class as usize] - self.taken[*class as usize];
                let count = self.fits(*class, &free).min(available).min(each);
                if count == 0 {
                    continue;
                }
                self.put(*class, count);
                for dim in 0..dims {
                    let need = self.problem.classes[*class as usize].need[dim];
                    free[dim] -= need * i64::from(count);
                }
                worth += duals.values[*class as usize] * f64::from(count);
                if self.taken[*class as usize] == 0 {
                    content.push((*class, 0));
                }
                self.taken[*class as usize] += count;
            }
            self.scored = scored;
        }
        (self.open, self.runs) = (open, runs);
        for (class, count) in content.iter_mut() {
            *count = std::mem::take(&mut self.taken[*class as usize]);
        }
        worth
    }

    /// The first class of a run that has a pod for the machine. Those that have none now will have
    /// none later.
    fn skip(&self, run: &mut Run, open: &[u32], left: &[u32], free: &Amounts) -> Option<u32> {
        let need = &self.problem.classes[*open.get(run.next)? as usize].need;
        if (0..self.problem.dims).any(|dim| need[dim] > free[dim]) {
            return None;
        }
        while run.next < run.end {
            let class = open[run.next];
            if left[class as usize] > self.taken[class as usize] && self.admits(class) {
                return Some(class);
            }
            run.next += 1;
        }
        None
    }

    /// Whether one more pod of a class goes with those on the machine.
    fn admits(&self, class: u32) -> bool {
        self.problem.classes[class as usize].hosts.iter().all(|rule| {
            let (here, most) = self.groups[rule.group as usize];
            here + u32::from(rule.counts) <= most.min(rule.most)
        })
    }
}

/// Numbers the runs of classes that ask for the same.
fn runs(problem: &Problem) -> Vec<u32> {
    let mut number = 0;
    let mut run_of = Vec::with_capacity(problem.classes.len());
    for (at, class) in problem.classes.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &problem.classes[before]);
        if before.is_some_and(|before| before.kinship() != class.kinship()) {
            number += 1;
        }
        run_of.push(number);
    }
    run_of
}

/// A factor near 1 that a seed and a run of classes decide.
fn noise(seed: u64, run: u32) -> f64 {
    let mixed = (seed ^ u64::from(run)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let part = (mixed >> 40) as f64 / (1_u64 << 24) as f64;
    0.8 + 0.4 * part
}
