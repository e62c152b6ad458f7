//! Choosing machines and what goes on them, for as little money as possible.
//!
//! First a plan is built machine by machine: whichever kind, filled from what is left, gives the
//! most worth for its price. Then it is improved: a few machines are emptied and what was on them
//! is packed anew, a little differently each time; what is cheaper stays. The work is bounded by a
//! number of steps, not by time, so one input has one plan.

use wharf_model::random::Random;

use super::duals::{self, Duals};
use super::fill::{Filler, Tilt};
use super::problem::{Amounts, Bin, DIMS_MAX, Problem};

/// How many kinds are tried for each machine.
const KINDS_TRIED: usize = 14;
/// Fewer while improving, where many plans are tried.
const KINDS_TRIED_AGAIN: usize = 8;
/// And fewer for a batch with more than so many pods times classes.
const KINDS_TRIED_LARGE: usize = 7;
const LARGE: u64 = 20_000_000;
/// Steps for each pod, and at least.
const WORK_PER_POD: u64 = 12_000;
const WORK_MIN: u64 = 10_000_000;
/// A plan this near its bound is not improved any more.
const NEAR_ENOUGH: f64 = 1.000_2;
/// How much better the smallest machine has to be used than a very large one, as a part of its
/// price: what few pods fill by chance leaves the others the worse to fit.
const SMALLNESS: f64 = 0.008;

/// A plan for all pods; `None` if some pod fits no machine.
pub(crate) fn solve(problem: &Problem, seed: u64) -> Option<Vec<Bin>> {
    let counts: Vec<u32> = problem.classes.iter().map(|class| class.count).collect();
    let all: Vec<u32> = (0..problem.classes.len() as u32).collect();
    let duals = duals::solve(problem, &counts);
    let mut search = Search {
        problem,
        filler: Filler::new(problem),
        random: Random::for_purpose(seed, "packing"),
        duals,
        left: vec![0; problem.classes.len()],
    };
    let bound = search.duals.bound;
    let mut best: Option<Vec<Bin>> = None;
    let pods: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    // A very large batch is planned once only, looking at fewer kinds.
    let large = pods * problem.classes.len() as u64 > LARGE;
    let tried = if large { KINDS_TRIED_LARGE } else { KINDS_TRIED };
    for even in [false, true] {
        if even && large {
            break;
        }
        let tilt = Tilt { even, ..Tilt::default() };
        search.left.copy_from_slice(&counts);
        let bins = search.construct(&all, &tilt, tried, true, i64::MAX)?;
        let cost = problem.cost(&bins);
        if best.as_ref().is_none_or(|best| cost < problem.cost(best)) {
            best = Some(bins);
        }
    }
    let mut bins = best?;
    let budget = search.filler.work + (pods * WORK_PER_POD).max(WORK_MIN);
    search.improve(&mut bins, bound, budget);
    Some(bins)
}

/// Classes and how many pods of each.
type Content = Vec<(u32, u32)>;

struct Search<'p> {
    problem: &'p Problem,
    filler: Filler<'p>,
    random: Random,
    duals: Duals,
    /// Per class: how many pods wait for a machine.
    left: Vec<u32>,
}

impl Search<'_> {
    /// Packs what is left of the classes `from` on new machines; `None` if that costs `limit` or
    /// more, or if some pod fits nowhere. With `reprice` worths follow what is left. Afterwards
    /// nothing is left.
    fn construct(
        &mut self,
        from: &[u32],
        tilt: &Tilt,
        tried: usize,
        reprice: bool,
        limit: i64,
    ) -> Option<Vec<Bin>> {
        let problem = self.problem;
        let mut bins: Vec<Bin> = Vec::new();
        let mut cost = 0;
        let mut open: Vec<u32> =
            from.iter().copied().filter(|class| self.left[*class as usize] > 0).collect();
        let mut content = Vec::new();
        let mut failed = false;
        let mut order: Vec<u32> = Vec::new();
        let mut pods_at_order = u64::MAX;
        let least_price = problem.kinds.first().map_or(1, |kind| kind.price) as f64;
        while !open.is_empty() {
            let pods: u64 = open.iter().map(|class| u64::from(self.left[*class as usize])).sum();
            // What is left changes its mix, and with it the worth of machines.
            if pods_at_order == u64::MAX || pods * 10 < pods_at_order * 9 {
                if reprice && pods_at_order != u64::MAX {
                    self.duals = duals::solve(problem, &self.left);
                }
                order = self.promising(&open);
                pods_at_order = pods;
            }
            let mut best: Option<(f64, Content, u32)> = None;
            let mut looked = 0;
            for kind in &order {
                if looked >= tried && best.is_some() {
                    break;
                }
                let worth =
                    self.filler.fill(*kind, &open, &self.left, &self.duals, tilt, &mut content);
                if content.is_empty() {
                    continue;
                }
                looked += 1;
                let (load, sets) = problem.load(&content);
                let smallest = problem.cheapest(&load, sets).unwrap_or(*kind);
                let price = problem.kinds[smallest as usize].price.max(1) as f64;
                let score = worth / price - SMALLNESS * least_price / price;
                if best.as_ref().is_none_or(|(known, ..)| score > *known) {
                    best = Some((score, content.clone(), smallest));
                }
            }
            let Some((_, content, kind)) = best else {
                failed = true;
                break;
            };
            let times = content
                .iter()
                .map(|(class, count)| self.left[*class as usize] / count)
                .min()
                .unwrap_or(1)
                .max(1);
            // All alike at once, but for some, since the end needs room to choose.
            let times = if times > 4 { times - times / 4 } else { 1 };
            for (class, count) in &content {
                self.left[*class as usize] -= count * times;
            }
            cost += problem.kinds[kind as usize].price * i64::from(times);
            bins.extend(std::iter::repeat_n(Bin { kind, content }, times as usize));
            open.retain(|class| self.left[*class as usize] > 0);
            if cost >= limit {
                failed = true;
                break;
            }
        }
        for class in from {
            self.left[*class as usize] = 0;
        }
        (!failed).then_some(bins)
    }

    /// The kinds by how much worth a full one has for its price, then those that just hold all
    /// that is left.
    fn promising(&self, open: &[u32]) -> Vec<u32> {
        let problem = self.problem;
        let wanted = open
            .iter()
            .fold(0_u128, |sets, class| sets | 1 << problem.classes[*class as usize].set);
        let mut total: Amounts = [0; DIMS_MAX];
        for class in open {
            let (class, left) = (&problem.classes[*class as usize], self.left[*class as usize]);
            for dim in 0..problem.dims {
                total[dim] += class.need[dim] * i64::from(left);
            }
        }
        let score = |kind: u32| {
            let machine = &problem.kinds[kind as usize];
            let of_set = |rates: &[f64; DIMS_MAX]| -> f64 {
                // More room than pods to put there is worth nothing.
                let used = |dim: usize| machine.room[dim].min(total[dim]).max(0) as f64;
                (0..problem.dims).map(|dim| rates[dim] * used(dim)).sum()
            };
            let sets = (0..self.duals.rates.len())
                .filter(|set| (machine.sets & wanted) >> set & 1 == 1)
                .map(|set| of_set(&self.duals.rates[set]));
            sets.fold(0.0, f64::max) / machine.price.max(1) as f64
        };
        let mut order: Vec<(f64, u32)> = (0..problem.kinds.len() as u32)
            .filter(|kind| problem.kinds[*kind as usize].sets & wanted != 0)
            .map(|kind| (score(kind), kind))
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        order.into_iter().map(|(_, kind)| kind).collect()
    }

    /// Empties some machines and packs anew, again and again, as long as work is left.
    fn improve(&mut self, bins: &mut Vec<Bin>, bound: f64, budget: u64) {
        let problem = self.problem;
        let all: Vec<u32> = problem.classes.iter().map(|class| class.count).collect();
        self.duals = duals::solve(problem, &all);
        let mut cost = problem.cost(bins);
        let mut idle = 0;
        let patience = 100 + 20 * bins.len();
        while self.filler.work < budget && idle < patience && bins.len() > 1 {
            if cost as f64 <= bound * NEAR_ENOUGH {
                break;
            }
            let chosen = self.choose(bins);
            let before: i64 =
                chosen.iter().map(|at| problem.kinds[bins[*at].kind as usize].price).sum();
            let mut from: Vec<u32> = Vec::new();
            for at in &chosen {
                for (class, count) in &bins[*at].content {
                    if self.left[*class as usize] == 0 {
                        from.push(*class);
                    }
                    self.left[*class as usize] += count;
                }
            }
            from.sort_unstable();
            let saved: Vec<u32> = from.iter().map(|class| self.left[*class as usize]).collect();
            let mut moved = Vec::new();
            if self.random.below(3) == 0 {
                self.squeeze(bins, &chosen, &from, &mut moved);
            }
            let tilt = self.tilt();
            let packed = self.construct(&from, &tilt, KINDS_TRIED_AGAIN, false, before + 1);
            let after = packed.as_ref().map_or(i64::MAX, |packed| problem.cost(packed));
            if after > before || (after == before && self.random.below(4) == 0) {
                self.filler.work += saved.len() as u64;
                idle += 1;
                continue;
            }
            for (at, class, count) in moved {
                let content = &mut bins[at].content;
                match content.iter_mut().find(|(known, _)| *known == class) {
                    Some((_, known)) => *known += count,
                    None => content.push((class, count)),
                }
            }
            let mut chosen = chosen;
            chosen.sort_unstable_by(|a, b| b.cmp(a));
            chosen.into_iter().for_each(|at| {
                bins.swap_remove(at);
            });
            bins.extend(packed.into_iter().flatten());
            idle = if after < before { 0 } else { idle + 1 };
            cost += after - before;
        }
    }

    /// Which machines to empty: a badly used one and a few others.
    fn choose(&mut self, bins: &[Bin]) -> Vec<usize> {
        let count = bins.len() as u32;
        let waste = |bin: &Bin| {
            let worth: f64 = bin
                .content
                .iter()
                .map(|(class, count)| self.duals.values[*class as usize] * f64::from(*count))
                .sum();
            self.problem.kinds[bin.kind as usize].price as f64 - worth
        };
        // The worst of a few at random.
        let mut first = (f64::MIN, 0);
        for _ in 0..4 {
            let at = self.random.below(count) as usize;
            let waste = waste(&bins[at]);
            if waste > first.0 {
                first = (waste, at);
            }
        }
        let mut chosen = vec![first.1];
        let mut pods: u32 = bins[first.1].content.iter().map(|(_, count)| count).sum();
        let wanted = 2 + self.random.below(3) as usize;
        // Mostly machines whose pods may be exchanged for those of the first.
        let sets = self.problem.kinds[bins[first.1].kind as usize].sets;
        let alike = self.random.below(4) > 0;
        for _ in 0..24 {
            if chosen.len() >= wanted.min(bins.len()) {
                break;
            }
            let at = self.random.below(count) as usize;
            let more: u32 = bins[at].content.iter().map(|(_, count)| count).sum();
            if alike && self.problem.kinds[bins[at].kind as usize].sets != sets {
                continue;
            }
            if !chosen.contains(&at) && (pods + more < 3_000 || chosen.len() < 2) {
                pods += more;
                chosen.push(at);
            }
        }
        chosen
    }

    /// Moves pods that wait for a machine to what is free on some others.
    fn squeeze(
        &mut self,
        bins: &[Bin],
        chosen: &[usize],
        from: &[u32],
        moved: &mut Vec<(usize, u32, u32)>,
    ) {
        for _ in 0..bins.len().min(12) {
            let at = self.random.below(bins.len() as u32) as usize;
            if chosen.contains(&at) || moved.iter().any(|(other, ..)| *other == at) {
                continue;
            }
            let bin = &bins[at];
            let kind = &self.problem.kinds[bin.kind as usize];
            let (load, _) = self.problem.load(&bin.content);
            let mut free = kind.room;
            for dim in 0..self.problem.dims {
                free[dim] -= load[dim];
            }
            self.filler.clear();
            for (class, count) in &bin.content {
                self.filler.put(*class, *count);
            }
            self.filler.work += from.len() as u64;
            loop {
                // The pod that is worth most of those that fit.
                let fitting = from.iter().copied().filter(|class| {
                    self.left[*class as usize] > 0
                        && kind.sets >> self.problem.classes[*class as usize].set & 1 == 1
                        && self.filler.fits(*class, &free) > 0
                });
                let value = |class: &u32| self.duals.values[*class as usize];
                let best = fitting.max_by(|a, b| value(a).total_cmp(&value(b)).then(b.cmp(a)));
                let Some(class) = best else { break };
                self.filler.work += from.len() as u64;
                self.filler.put(class, 1);
                self.left[class as usize] -= 1;
                for dim in 0..self.problem.dims {
                    free[dim] -= self.problem.classes[class as usize].need[dim];
                }
                match moved.iter_mut().find(|(bin, known, _)| *bin == at && *known == class) {
                    Some((.., count)) => *count += 1,
                    None => moved.push((at, class, 1)),
                }
            }
        }
    }

    fn tilt(&mut self) -> Tilt {
        let mut around = |spread: f64| {
            let part = self.random.below(1_000) as f64 / 1_000.0;
            1.0 + spread * (part - 0.5)
        };
        let weights = (0..self.problem.dims).map(|_| around(1.0)).collect();
        Tilt { weights, noise: self.random.next_u64() | 1, even: self.random.below(2) == 0 }
    }
}
