//! How many pods each ReplicaSet of a Deployment is to have: upstream's arithmetic
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment>).

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::Deployment;

use crate::workloads::percentage::scaled;

/// What the arithmetic needs of a Deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) replicas: i32,
    /// Pods above `replicas` that a rolling update may have; 0 for `Recreate`.
    pub(super) surge: i32,
    /// Pods below `replicas` that a rolling update may be; 0 for `Recreate`.
    pub(super) unavailable: i32,
    pub(super) rolling: bool,
}

impl Wanted {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let strategy = spec.and_then(|spec| spec.strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        if !rolling {
            return Self { replicas, surge: 0, unavailable: 0, rolling };
        }
        let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = |round_up| {
            let text = "25%".to_owned();
            let percent = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(text);
            scaled(&percent, replicas, round_up)
        };
        let surge = update
            .and_then(|update| update.max_surge.as_ref())
            .map_or_else(|| quarter(true), |value| scaled(value, replicas, true));
        let unavailable = update
            .and_then(|update| update.max_unavailable.as_ref())
            .map_or_else(|| quarter(false), |value| scaled(value, replicas, false));
        // Both zero would stop every rollout; validation refuses it, rounding can still give it.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { replicas, surge, unavailable: unavailable.clamp(0, replicas.max(0)), rolling }
    }

    /// The most pods there may be.
    pub(super) fn most(self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// The fewest available pods there may be.
    pub(super) fn least_available(self) -> i32 {
        self.replicas - self.unavailable
    }

    /// The size of the new ReplicaSet, now `new_size`, while all together are `total`.
    pub(super) fn new_size(self, new_size: i32, total: i32) -> i32 {
        if !self.rolling || new_size > self.replicas {
            return self.replicas;
        }
        if total >= self.most() {
            return new_size;
        }
        new_size + (self.most() - total).min(self.replicas - new_size)
    }
}

/// A ReplicaSet as the arithmetic sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) replicas: i32,
    pub(super) available: i32,
}

/// The sizes of the old ReplicaSets (oldest first) in the next step of a rolling update.
pub(super) fn roll_old(wanted: Wanted, old: &[Size], new: Size) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|size| size.replicas).collect();
    let least_available = i64::from(wanted.least_available());
    let total = total(&sizes) + i64::from(new.replicas);
    let new_unavailable = i64::from(new.replicas) - i64::from(new.available);
    let mut spare = total - least_available - new_unavailable;
    if spare <= 0 {
        return sizes;
    }
    // Pods that are not available do nobody any good and go first.
    for (size, old) in sizes.iter_mut().zip(old) {
        let unhealthy = old.replicas.saturating_sub(old.available).max(0);
        spare -= i64::from(shrink(size, spare.min(unhealthy.into())));
    }
    let available = old.iter().map(|size| i64::from(size.available)).sum::<i64>();
    let mut rest = available + i64::from(new.available) - least_available;
    for size in &mut sizes {
        rest -= i64::from(shrink(size, rest));
    }
    sizes
}

/// Takes up to `by` from a size, and tells how much that was.
fn shrink(size: &mut i32, by: i64) -> i32 {
    let down = i64::from(*size).min(by).max(0);
    let down = i32::try_from(down).expect("it is no more than the size");
    *size -= down;
    down
}

/// The sum of sizes, each of which may be the largest there is.
fn total(sizes: &[i32]) -> i64 {
    sizes.iter().copied().map(i64::from).sum()
}

/// A ReplicaSet that takes part in scaling a Deployment in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) replicas: i32,
    /// The `max-replicas` that its size was computed from; the Deployment's own number of
    /// replicas where it is not annotated.
    pub(super) of: i32,
}

/// The sizes of active ReplicaSets (newest first) when a Deployment is scaled in the middle of a
/// rollout: each grows or shrinks in proportion to its size, what rounding leaves goes to the
/// largest.
pub(super) fn in_proportion(wanted: Wanted, shares: &[Share]) -> Vec<i32> {
    let allowed = if wanted.replicas > 0 { wanted.most() } else { 0 };
    let mut sizes: Vec<i32> = shares.iter().map(|share| share.replicas).collect();
    let change = i64::from(allowed) - total(&sizes);
    if change == 0 {
        return sizes;
    }
    let mut order: Vec<usize> = (0..shares.len()).collect();
    // Among equals, the newest grows first and the oldest shrinks first.
    if change > 0 {
        order.sort_by_key(|index| (Reverse(shares[*index].replicas), *index));
    } else {
        order.sort_by_key(|index| (Reverse(shares[*index].replicas), Reverse(*index)));
    }
    let mut left = change;
    for index in &order {
        let share = shares[*index];
        if share.replicas == 0 || left == 0 {
            continue;
        }
        let before = i64::from(share.replicas);
        let after = if wanted.replicas == 0 {
            0
        } else {
            divide_rounded(before * i64::from(wanted.most()), i64::from(share.of.max(1)))
        };
        let fraction = after - before;
        let part = if change > 0 { fraction.min(left) } else { fraction.max(left) };
        sizes[*index] = clamped(before + part);
        left -= i64::from(sizes[*index]) - before;
    }
    if let Some(first) = order.first() {
        sizes[*first] = clamped(i64::from(sizes[*first]) + left);
    }
    sizes
}

/// A size that a ReplicaSet can have.
fn clamped(size: i64) -> i32 {
    i32::try_from(size.max(0)).unwrap_or(i32::MAX)
}

fn divide_rounded(dividend: i64, divisor: i64) -> i64 {
    // Both are of numbers of 31 bits, so that twice the dividend fits.
    (2 * dividend + divisor).div_euclid(2 * divisor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn wanted(replicas: i32, strategy: serde_json::Value) -> Wanted {
        let deployment = json!({"spec": {"replicas": replicas, "strategy": strategy,
            "selector": {}, "template": {}}});
        Wanted::of(&serde_json::from_value(deployment).expect("a deployment"))
    }

    fn rolling(replicas: i32, surge: i32, unavailable: i32) -> Wanted {
        Wanted { replicas, surge, unavailable, rolling: true }
    }

    #[test]
    fn bounds_of_a_rollout() {
        let percent = json!({"rollingUpdate": {"maxSurge": "30%", "maxUnavailable": "0%"}});
        let zero = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}});
        for (replicas, strategy, surge, unavailable) in [
            (10, json!({}), 3, 2),
            (1, json!({}), 1, 0),
            (5, percent, 2, 0),
            (5, zero, 0, 1),
            (3, json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 7}}), 1, 3),
            (4, json!({"type": "Recreate"}), 0, 0),
        ] {
            let wanted = wanted(replicas, strategy);
            assert_eq!((wanted.surge, wanted.unavailable), (surge, unavailable));
        }
    }

    #[test]
    fn upstreams_example_of_a_stuck_and_a_rolled_over_rollout() {
        // 10 replicas, 2 may be unavailable, 3 may surge: old 8, new 5 that never comes up.
        let wanted = rolling(10, 3, 2);
        let old = [Size { replicas: 8, available: 7 }];
        assert_eq!(roll_old(wanted, &old, Size { replicas: 5, available: 0 }), [8]);
        // The same with a third template: 13 pods are there, so the new set starts with none.
        assert_eq!(wanted.new_size(0, 13), 0);
        let old = [Size { replicas: 8, available: 8 }, Size { replicas: 5, available: 0 }];
        assert_eq!(roll_old(wanted, &old, Size { replicas: 0, available: 0 }), [8, 0]);
    }

    #[test]
    fn scaling_in_proportion_keeps_the_documented_example() {
        // From the documentation: 10 replicas with surge 3, old 8 and new 5, scaled to 15.
        let wanted = rolling(15, 3, 2);
        let shares = [Share { replicas: 5, of: 13 }, Share { replicas: 8, of: 13 }];
        assert_eq!(in_proportion(wanted, &shares), [7, 11]);
        assert_eq!(in_proportion(rolling(0, 0, 0), &shares), [0, 0]);
    }

    proptest! {
        #[test]
        fn a_rollout_keeps_its_bounds_and_comes_to_its_end(
            replicas in 1..40_i32,
            surge in 0..10_i32,
            unavailable in 0..10_i32,
            olds in proptest::collection::vec(0..20_i32, 1..4),
        ) {
            let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
            let wanted = rolling(replicas, surge, unavailable.min(replicas));
            let mut old = olds;
            let mut new = 0;
            let start: i32 = old.iter().sum();
            for _ in 0..200 {
                let total = old.iter().sum::<i32>() + new;
                new = wanted.new_size(new, total);
                let total = old.iter().sum::<i32>() + new;
                prop_assert!(total <= wanted.most().max(start));
                // Every pod is available by the next look.
                let sizes: Vec<_> =
                    old.iter().map(|n| Size { replicas: *n, available: *n }).collect();
                let rolled = roll_old(wanted, &sizes, Size { replicas: new, available: new });
                let left = rolled.iter().sum::<i32>() + new;
                prop_assert!(left >= wanted.least_available().min(total));
                old = rolled;
            }
            prop_assert_eq!(new, replicas);
            prop_assert_eq!(old.iter().sum::<i32>(), 0);
        }

        /// No field of a Deployment or ReplicaSet bounds its number of replicas.
        #[test]
        fn the_largest_sizes_do_no_harm(
            replicas in prop_oneof![0..i32::MAX, Just(i32::MAX)],
            surge in prop_oneof![0..9_i32, Just(i32::MAX)],
            sizes in proptest::collection::vec(prop_oneof![0..i32::MAX, Just(i32::MAX)], 1..5),
            available in prop_oneof![0..i32::MAX, Just(i32::MAX)],
        ) {
            let wanted = rolling(replicas, surge, replicas / 4);
            let shares: Vec<_> = sizes.iter().map(|n| Share { replicas: *n, of: 1 }).collect();
            prop_assert!(in_proportion(wanted, &shares).iter().all(|size| *size >= 0));
            let old: Vec<_> = sizes.iter().map(|n| Size { replicas: *n, available }).collect();
            let rolled = roll_old(wanted, &old, Size { replicas, available });
            prop_assert!(rolled.iter().zip(&sizes).all(|(after, before)| (0..=*before).contains(after)));
        }

        #[test]
        fn scaling_in_proportion_adds_up(
            replicas in 0..60_i32,
            surge in 0..10_i32,
            shares in proptest::collection::vec((1..30_i32, 1..60_i32), 2..5),
        ) {
            let wanted = rolling(replicas, surge, 0);
            let shares: Vec<_> =
                shares.into_iter().map(|(replicas, of)| Share { replicas, of }).collect();
            let sizes = in_proportion(wanted, &shares);
            prop_assert!(sizes.iter().all(|size| *size >= 0));
            let allowed = if replicas > 0 { wanted.most() } else { 0 };
            prop_assert!(sizes.iter().sum::<i32>() >= allowed);
        }
    }
}
