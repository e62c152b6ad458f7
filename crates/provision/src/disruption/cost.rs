//! What disturbing pods is worth, in exact arithmetic.
//!
//! Upstream computes `1 + podDeletionCost/2^27 + priority/2^25`, clamped to ±10, in floating point;
//! in units of 2^-27 every value is an integer, so here it is one.

use std::cmp::Ordering;
use std::time::Duration;

use wharf_model::money::Price;

/// A cost in units of 2^-27.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(i64);

impl Cost {
    /// The cost of disturbing an ordinary pod, and of a node's disruption itself.
    pub const ONE: Self = Self(1 << 27);

    /// What evicting a pod costs.
    pub fn of_eviction(pod_deletion_cost: i32, priority: i32) -> Self {
        let cost = Self::ONE.0 + i64::from(pod_deletion_cost) + 4 * i64::from(priority);
        Self(cost.clamp(-10 * Self::ONE.0, 10 * Self::ONE.0))
    }

    /// What moving these pods off a node costs: one for the node and each pod's own cost, of which
    /// none makes it cheaper.
    pub fn of_rescheduling(evictions: impl IntoIterator<Item = Self>) -> Self {
        Self(evictions.into_iter().fold(Self::ONE.0, |sum, cost| sum + cost.0.max(0)))
    }

    /// Whether a node with this rescheduling cost counts as empty.
    pub fn is_empty_node(self) -> bool {
        self <= Self::ONE
    }

    /// The cost in units of 2^-27, for sums and ratios.
    pub fn units(self) -> i128 {
        i128::from(self.0)
    }

    /// For people: `1.25`.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / Self::ONE.0 as f64
    }
}

/// Orders nodes by price saved per cost of rescheduling, the most worthwhile first; nodes without
/// pods cost at least [`Cost::ONE`], so the ratio is always defined.
pub fn by_savings_ratio(left: (Price, Cost), right: (Price, Cost)) -> Ordering {
    let value = |price: Price, cost: Cost| {
        i128::from(price.nano_dollars_per_hour()) * i128::from(cost.0.max(1))
    };
    value(right.0, left.1).cmp(&value(left.0, right.1))
}

/// The part of its life a node has left, in thousandths; all of it if it never expires.
pub fn lifetime_remaining_milli(age: Duration, expire_after: Option<Duration>) -> u32 {
    let Some(expire_after) = expire_after.filter(|life| !life.is_zero()) else { return 1_000 };
    let left = expire_after.saturating_sub(age).as_nanos() * 1_000 / expire_after.as_nanos();
    u32::try_from(left).unwrap_or(1_000).min(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_costs_are_upstreams() {
        let table = [
            (0, 0, 1.0),
            (1 << 27, 0, 2.0),
            (-(1 << 27), 0, 0.0),
            (0, 1 << 25, 2.0),
            (i32::MAX, 0, 10.0),
            (i32::MIN, i32::MIN, -10.0),
            (0, 2_000_000_000, 10.0),
        ];
        for (deletion, priority, expected) in table {
            let cost = Cost::of_eviction(deletion, priority).as_f64();
            assert!((cost - expected).abs() < 1e-6 || expected == 10.0 && cost > 9.99, "{cost}");
        }
    }

    #[test]
    fn a_node_of_worthless_pods_is_empty() {
        let worthless = Cost::of_eviction(-(1 << 27), 0);
        assert!(Cost::of_rescheduling([]).is_empty_node());
        assert!(Cost::of_rescheduling([worthless, worthless]).is_empty_node());
        assert!(!Cost::of_rescheduling([worthless, Cost::ONE]).is_empty_node());
        // A cheap pod does not make a dear one cheaper.
        let negative = Cost::of_eviction(-(1 << 28), 0);
        assert_eq!(Cost::of_rescheduling([negative, Cost::ONE]), Cost(2 << 27));
    }

    #[test]
    fn dear_nodes_with_few_pods_come_first() {
        let price = Price::from_nano_dollars_per_hour;
        let (cheap, dear) = ((price(10), Cost(2 << 27)), (price(30), Cost(3 << 27)));
        assert_eq!(by_savings_ratio(cheap, dear), Ordering::Greater);
        assert_eq!(by_savings_ratio(dear, cheap), Ordering::Less);
        assert_eq!(by_savings_ratio((price(20), Cost(4 << 27)), cheap), Ordering::Equal);
    }

    #[test]
    fn lifetime_runs_out() {
        let hour = Duration::from_secs(3600);
        assert_eq!(lifetime_remaining_milli(hour, None), 1_000);
        assert_eq!(lifetime_remaining_milli(hour, Some(hour * 4)), 750);
        assert_eq!(lifetime_remaining_milli(hour * 5, Some(hour * 4)), 0);
    }
}
