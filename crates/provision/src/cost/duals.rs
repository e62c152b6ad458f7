//! What resources are worth: prices at which no machine offers more than it costs, as high as
//! possible.
//!
//! They are the dual of buying fractions of machines, and with them come a lower bound on the cost
//! of any plan and a yardstick: a machine is well used if what its pods are worth comes near its
//! price. One price for each resource in total and one more for each set of pods that may not use
//! every machine; one for places on different machines, if many pods must be kept apart.

use super::problem::{DIMS_MAX, Problem};

/// So many sets of pods get prices of their own.
const SETS_PRICED_MAX: usize = 16;
/// The simplex method ends in a fraction of this; it is a guard against cycling.
const PIVOTS_MAX: usize = 2_000;
const EPSILON: f64 = 1e-9;

/// What pods are worth.
#[derive(Clone, Debug)]
pub(crate) struct Duals {
    /// Per class, in nano-dollars an hour.
    pub(crate) values: Vec<f64>,
    /// Per set: the worth of each resource.
    pub(crate) rates: Vec<[f64; DIMS_MAX]>,
    /// No plan for the pods can cost less.
    pub(crate) bound: f64,
}

/// One thing that has to be covered: a resource for the pods of some sets, or a number of machines.
struct Row {
    demand: f64,
    sets: u128,
    /// The resource; `None` for a number of machines.
    dim: Option<usize>,
    /// For a number of machines: the group of pods that need them.
    group: u32,
}

/// The worth of pods when `left` of each class remain.
pub(crate) fn solve(problem: &Problem, left: &[u32]) -> Duals {
    let rows = rows(problem, left);
    let (prices, bound) = maximize(problem, &rows);
    let sets = problem.classes.iter().map(|class| usize::from(class.set) + 1).max().unwrap_or(0);
    let mut rates = vec![[0.0; DIMS_MAX]; sets];
    for (row, price) in rows.iter().zip(&prices) {
        let Some(dim) = row.dim else { continue };
        for (set, rates) in rates.iter_mut().enumerate() {
            if row.sets >> set & 1 == 1 {
                rates[dim] += price;
            }
        }
    }
    let apart = |group: u32| {
        let rows = rows.iter().zip(&prices).filter(|(row, _)| row.dim.is_none());
        rows.filter(|(row, _)| row.group == group).map(|(_, price)| *price).sum::<f64>()
    };
    let values = problem
        .classes
        .iter()
        .map(|class| {
            let rates = &rates[usize::from(class.set)];
            let amounts: f64 =
                (0..problem.dims).map(|dim| rates[dim] * class.need[dim] as f64).sum();
            let alone = class.hosts.iter().filter(|rule| rule.counts && rule.most < u32::MAX);
            amounts + alone.map(|rule| apart(rule.group) / f64::from(rule.most.max(1))).sum::<f64>()
        })
        .collect();
    Duals { values, rates, bound }
}

fn rows(problem: &Problem, left: &[u32]) -> Vec<Row> {
    let mut demand: Vec<[f64; DIMS_MAX]> = Vec::new();
    let mut machines: Vec<(f64, u128)> = vec![(0.0, 0); problem.groups];
    for (class, left) in problem.classes.iter().zip(left) {
        let set = usize::from(class.set);
        if demand.len() <= set {
            demand.resize(set + 1, [0.0; DIMS_MAX]);
        }
        for dim in 0..problem.dims {
            demand[set][dim] += class.need[dim] as f64 * f64::from(*left);
        }
        for rule in class.hosts.iter().filter(|rule| rule.counts && rule.most < u32::MAX) {
            let machines = &mut machines[rule.group as usize];
            machines.0 += f64::from(*left) / f64::from(rule.most.max(1));
            machines.1 |= 1 << set;
        }
    }
    let present: u128 = (0..demand.len())
        .filter(|set| demand[*set].iter().any(|amount| *amount > 0.0))
        .fold(0, |sets, set| sets | 1 << set);
    let mut unions = vec![present];
    // A set that may use every machine is covered by the total.
    let everywhere = |set: usize| {
        problem.kinds.iter().all(|kind| kind.sets >> set & 1 == 1 || kind.sets & present == 0)
    };
    let mut own: Vec<usize> = (0..demand.len())
        .filter(|set| present >> set & 1 == 1 && present.count_ones() > 1 && !everywhere(*set))
        .collect();
    own.sort_by(|a, b| demand[*b][0].total_cmp(&demand[*a][0]).then(a.cmp(b)));
    unions.extend(own.into_iter().take(SETS_PRICED_MAX).map(|set| 1_u128 << set));
    let mut rows = Vec::new();
    for sets in unions {
        for dim in 0..problem.dims {
            let of_set = |set: usize| if sets >> set & 1 == 1 { demand[set][dim] } else { 0.0 };
            let total: f64 = (0..demand.len()).map(of_set).sum();
            if total > 0.0 {
                rows.push(Row { demand: total, sets, dim: Some(dim), group: 0 });
            }
        }
    }
    // Of groups that need the same machines the largest asks for the others too.
    let mut most: Vec<(u128, f64, u32)> = Vec::new();
    for (group, (count, sets)) in machines.into_iter().enumerate() {
        if count <= 1.0 {
            continue;
        }
        match most.iter_mut().find(|known| known.0 == sets) {
            Some(known) if known.1 >= count => {}
            Some(known) => *known = (sets, count, group as u32),
            None => most.push((sets, count, group as u32)),
        }
    }
    rows.extend(most.into_iter().take(SETS_PRICED_MAX).map(|(sets, demand, group)| Row {
        demand,
        sets,
        dim: None,
        group,
    }));
    rows
}

/// Maximizes the worth of the demand such that no kind offers more than it costs: a simplex method
/// that starts with all prices at zero. Returns the prices and the worth.
fn maximize(problem: &Problem, rows: &[Row]) -> (Vec<f64>, f64) {
    let (height, width) = (problem.kinds.len(), rows.len());
    let stride = width + 1;
    // Amounts are scaled by the demand, so that all numbers are of one size.
    let mut table = vec![0.0; (height + 1) * stride];
    for (at, kind) in problem.kinds.iter().enumerate() {
        for (column, row) in rows.iter().enumerate() {
            if kind.sets & row.sets != 0 {
                let offer = row.dim.map_or(1.0, |dim| kind.room[dim].max(0) as f64);
                table[at * stride + column] = offer / row.demand;
            }
        }
        table[at * stride + width] = kind.price as f64;
    }
    for column in 0..width {
        table[height * stride + column] = -1.0;
    }
    // Which variable each table row stands for: below `width` a price, else a kind's slack.
    let mut basis: Vec<usize> = (width..width + height).collect();
    let mut free: Vec<usize> = (0..width).collect();
    for _ in 0..PIVOTS_MAX {
        let objective = &table[height * stride..height * stride + width];
        let Some(column) = (0..width)
            .filter(|column| objective[*column] < -EPSILON)
            .min_by(|a, b| objective[*a].total_cmp(&objective[*b]).then(free[*a].cmp(&free[*b])))
        else {
            break;
        };
        let ratio = |row: usize| table[row * stride + width] / table[row * stride + column];
        let Some(row) = (0..height)
            .filter(|row| table[row * stride + column] > EPSILON)
            .min_by(|a, b| ratio(*a).total_cmp(&ratio(*b)).then(basis[*a].cmp(&basis[*b])))
        else {
            break;
        };
        pivot(&mut table, stride, row, column);
        std::mem::swap(&mut basis[row], &mut free[column]);
    }
    let mut prices = vec![0.0; width];
    for (row, variable) in basis.iter().enumerate() {
        if *variable < width {
            prices[*variable] = table[row * stride + width].max(0.0) / rows[*variable].demand;
        }
    }
    (prices, table[height * stride + width])
}

/// Exchanges a basic variable (a table row) for a free one (a column).
fn pivot(table: &mut [f64], stride: usize, row: usize, column: usize) {
    let inverse = 1.0 / table[row * stride + column];
    for at in 0..stride {
        table[row * stride + at] *= inverse;
    }
    table[row * stride + column] = inverse;
    let own: Vec<f64> = table[row * stride..(row + 1) * stride].to_vec();
    for other in (0..table.len() / stride).filter(|other| *other != row) {
        let factor = table[other * stride + column];
        if factor == 0.0 {
            continue;
        }
        for at in 0..stride {
            table[other * stride + at] -= factor * own[at];
        }
        table[other * stride + column] = -factor * inverse;
    }
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::super::problem::{Class, HostRule, Kind};
    use super::*;

    fn kind(price: i64, cpu: i64, memory: i64, sets: u128) -> Kind {
        let mut room = [0; DIMS_MAX];
        (room[0], room[1]) = (cpu, memory);
        Kind { pool: 0, index: 0, price, room, sets }
    }

    fn class(cpu: i64, memory: i64, set: u8, count: u32) -> Class {
        let mut need = [0; DIMS_MAX];
        (need[0], need[1]) = (cpu, memory);
        Class { need, set, count, hosts: SmallVec::new() }
    }

    fn solved(problem: &Problem) -> Duals {
        let left: Vec<u32> = problem.classes.iter().map(|class| class.count).collect();
        solve(problem, &left)
    }

    #[test]
    fn the_bound_mixes_machines() {
        // 30 cpus and 100 memory: 10 of the first and 10 of the second kind.
        let problem = Problem {
            dims: 2,
            classes: vec![class(3, 10, 0, 10)],
            kinds: vec![kind(10, 2, 2, 1), kind(15, 1, 8, 1)],
            groups: 0,
        };
        let duals = solved(&problem);
        assert!((duals.bound - 250.0).abs() < 1e-6, "{}", duals.bound);
        assert!((duals.values[0] - 25.0).abs() < 1e-6);
    }

    #[test]
    fn pods_that_need_dear_machines_are_worth_more() {
        let problem = Problem {
            dims: 1,
            classes: vec![class(1, 0, 0, 10), class(1, 0, 1, 10)],
            kinds: vec![kind(10, 10, 0, 0b01), kind(20, 10, 0, 0b11)],
            groups: 0,
        };
        let duals = solved(&problem);
        assert!((duals.bound - 30.0).abs() < 1e-6, "{}", duals.bound);
        assert!(duals.values[1] > duals.values[0]);
    }

    #[test]
    fn pods_that_must_be_apart_are_worth_their_places() {
        let mut apart = class(1, 0, 0, 10);
        apart.hosts.push(HostRule { group: 0, most: 1, counts: true });
        let problem = Problem {
            dims: 1,
            classes: vec![apart],
            kinds: vec![kind(3, 1, 0, 1), kind(4, 8, 0, 1)],
            groups: 1,
        };
        let duals = solved(&problem);
        assert!((duals.bound - 30.0).abs() < 1e-6, "{}", duals.bound);
        assert!((duals.values[0] - 3.0).abs() < 1e-6);
    }
}
