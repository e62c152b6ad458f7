//! How many nodes of a pool may be disrupted at once, by reason and time of day.

use std::time::Duration;

use wharf_model::duration::GoDuration;
use wharf_model::karpenter::{Budget, DisruptionReason};
use wharf_model::time::Time;

use super::cron::Schedule;

/// The state of a pool's nodes, as budgets count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolNodes {
    /// Managed, initialized nodes whose machine is not terminating.
    pub total: u32,
    /// Those of them that are not ready or already being disrupted.
    pub unavailable: u32,
}

/// How many more nodes may be disrupted for `reason` now: the least of the active budgets that list
/// the reason or none, less the nodes already unavailable. `u32::MAX` where no budget applies.
///
/// A budget that cannot be read counts as 0: upstream fails closed.
pub fn allowed(
    budgets: Option<&[Budget]>,
    reason: DisruptionReason,
    nodes: PoolNodes,
    now: Time,
) -> u32 {
    let default = [Budget { nodes: "10%".to_owned(), ..Budget::default() }];
    let limit = budgets
        .unwrap_or(&default)
        .iter()
        .filter(|budget| budget.reasons.as_ref().is_none_or(|reasons| reasons.contains(&reason)))
        .map(|budget| match is_active(budget, now) {
            Some(true) => limit(budget, nodes.total).unwrap_or(0),
            Some(false) => u32::MAX,
            None => 0,
        })
        .min()
        .unwrap_or(u32::MAX);
    if limit == u32::MAX { limit } else { limit.saturating_sub(nodes.unavailable) }
}

/// Whether the budget's window is open; always without a schedule, `None` if it cannot be read.
fn is_active(budget: &Budget, now: Time) -> Option<bool> {
    let (Some(schedule), Some(duration)) = (&budget.schedule, &budget.duration) else {
        return match (&budget.schedule, &budget.duration) {
            (None, None) => Some(true),
            _ => None,
        };
    };
    let schedule: Schedule = schedule.parse().ok()?;
    let window: Duration = GoDuration::parse(duration).ok()?.0;
    // Open if the last opening is at most `window` ago.
    Some(schedule.next_after(now - window).is_some_and(|opening| opening <= now))
}

/// The number a budget allows of `total` nodes; percentages round up.
fn limit(budget: &Budget, total: u32) -> Option<u32> {
    match budget.nodes.strip_suffix('%') {
        Some(percent) => {
            let percent: u32 = percent.parse().ok().filter(|percent| *percent <= 100)?;
            let product = u64::from(total) * u64::from(percent);
            u32::try_from(product.div_ceil(100)).ok()
        }
        None => budget.nodes.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REASONS: [DisruptionReason; 3] =
        [DisruptionReason::Underutilized, DisruptionReason::Empty, DisruptionReason::Drifted];

    fn budget(nodes: &str) -> Budget {
        Budget { nodes: nodes.to_owned(), ..Budget::default() }
    }

    fn time(text: &str) -> Time {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    fn check(budgets: &[Budget], total: u32, unavailable: u32, expected: u32) {
        let nodes = PoolNodes { total, unavailable };
        let now = time("2026-08-21T10:30:00Z");
        let got = allowed(Some(budgets), DisruptionReason::Empty, nodes, now);
        assert_eq!(got, expected, "{budgets:?} of {nodes:?}");
    }

    #[test]
    fn percentages_round_up_and_the_strictest_counts() {
        check(&[budget("10%")], 1, 0, 1);
        check(&[budget("10%")], 11, 0, 2);
        check(&[budget("10%")], 11, 1, 1);
        check(&[budget("10%")], 11, 5, 0);
        check(&[budget("0%")], 11, 0, 0);
        check(&[budget("100%"), budget("3")], 11, 1, 2);
        check(&[budget("101%")], 11, 0, 0);
        check(&[], 11, 0, u32::MAX);
        let nodes = PoolNodes { total: 20, unavailable: 0 };
        assert_eq!(allowed(None, DisruptionReason::Drifted, nodes, Time::EPOCH), 2);
    }

    #[test]
    fn reasons_narrow_a_budget() {
        let drift = Budget { reasons: Some(vec![DisruptionReason::Drifted]), ..budget("0") };
        check(std::slice::from_ref(&drift), 5, 0, u32::MAX);
        check(&[drift, budget("20%")], 5, 0, 1);
    }

    #[test]
    fn windows_open_and_close() {
        let window = |schedule: &str, duration: &str| Budget {
            schedule: Some(schedule.to_owned()),
            duration: Some(duration.to_owned()),
            ..budget("0")
        };
        // It is 10:30 on a Friday.
        check(&[window("0 10 * * *", "31m")], 5, 0, 0);
        check(&[window("0 10 * * *", "30m")], 5, 0, u32::MAX);
        check(&[window("0 9 * * mon-fri", "8h")], 5, 0, 0);
        check(&[window("0 9 * * sat", "8h")], 5, 0, u32::MAX);
        check(&[window("nonsense", "8h")], 5, 0, 0);
        check(&[Budget { schedule: None, ..window("", "1h") }], 5, 0, 0);
    }

    proptest! {
        #[test]
        fn never_more_than_any_single_budget(
            total in 0u32..500, unavailable in 0u32..500,
            percents in prop::collection::vec(0u32..=100, 1..5),
        ) {
            let budgets: Vec<Budget> = percents.iter().map(|p| budget(&format!("{p}%"))).collect();
            let nodes = PoolNodes { total, unavailable };
            for reason in REASONS {
                let got = allowed(Some(&budgets), reason, nodes, Time::EPOCH);
                for percent in &percents {
                    let most = (total * percent).div_ceil(100).saturating_sub(unavailable);
                    prop_assert!(got <= most);
                }
            }
        }
    }
}
