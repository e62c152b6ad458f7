//! From a proposal to a count: stabilisation over a window, and limits on the rate of change.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
};
use wharf_model::time::Time;

use super::Config;

/// What an autoscaler remembers from pass to pass. Lost when the controller restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Proposals before stabilisation.
    recommendations: Vec<(i32, Time)>,
    scale_ups: Vec<Scaling>,
    scale_downs: Vec<Scaling>,
}

/// A change of the count that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scaling {
    by: i32,
    at: Time,
    outdated: bool,
}

/// What stabilisation and limits made of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The count after stabilisation.
    pub stabilized: i32,
    /// The reason of the condition `AbleToScale`.
    pub stabilization: &'static str,
    /// The count after limits.
    pub count: i32,
    /// The reason of the condition `ScalingLimited`.
    pub limit: &'static str,
}

/// What a condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) reason: &'static str,
    pub(super) message: &'static str,
}

const READY: Why =
    Why { reason: "ReadyForNewScale", message: "recommended size matches current size" };
const DOWN_STABILIZED: Why = Why {
    reason: "ScaleDownStabilized",
    message: "recent recommendations were higher than current one, applying the highest recent recommendation",
};
const UP_STABILIZED: Why = Why {
    reason: "ScaleUpStabilized",
    message: "recent recommendations were lower than current one, applying the lowest recent recommendation",
};
const WITHIN: Why = Why {
    reason: "DesiredWithinRange",
    message: "the desired count is within the acceptable range",
};
const TOO_FEW: Why = Why {
    reason: "TooFewReplicas",
    message: "the desired replica count is less than the minimum replica count",
};
const TOO_MANY: Why = Why {
    reason: "TooManyReplicas",
    message: "the desired replica count is more than the maximum replica count",
};
const UP_LIMIT: Why = Why {
    reason: "ScaleUpLimit",
    message: "the desired replica count is increasing faster than the maximum scale rate",
};
const DOWN_LIMIT: Why = Why {
    reason: "ScaleDownLimit",
    message: "the desired replica count is decreasing faster than the maximum scale rate",
};

impl Memory {
    /// The first count seen is the first proposal, so that a fresh autoscaler does not shrink what
    /// it does not know yet.
    pub(super) fn start(&mut self, current: i32, now: Time) {
        if self.recommendations.is_empty() {
            self.recommendations.push((current, now));
        }
    }

    /// The count after stabilisation and limits. `tell` gets the conditions this decides.
    pub(super) fn normalize(
        &mut self,
        config: &Config,
        spec: &HorizontalPodAutoscalerSpec,
        current: i32,
        desired: i32,
        now: Time,
        mut tell: impl FnMut(&str, bool, Why),
    ) -> Limits {
        let (stabilized, why) = match &spec.behavior {
            None => self.stabilize(config, desired, now),
            Some(behavior) => {
                let rules = Rules::of(behavior, config);
                self.stabilize_with(&rules, current, desired, now)
            }
        };
        let stabilization = if stabilized == desired { READY } else { why };
        tell("AbleToScale", true, stabilization);
        let least = spec.min_replicas.unwrap_or(1);
        let (limited, why) = match &spec.behavior {
            None => limit(current, stabilized, least, spec.max_replicas),
            Some(behavior) => {
                self.limit_with(behavior, current, stabilized, least, spec.max_replicas, now)
            }
        };
        tell("ScalingLimited", limited != stabilized, why);
        Limits {
            stabilized,
            stabilization: stabilization.reason,
            count: limited,
            limit: why.reason,
        }
    }

    /// Without behavior: no lower than any proposal of the downscale window.
    fn stabilize(&mut self, config: &Config, desired: i32, now: Time) -> (i32, Why) {
        let cutoff = now - config.downscale_stabilization;
        let mut highest = desired;
        let mut expired = None;
        for (index, (count, at)) in self.recommendations.iter().enumerate() {
            if *at < cutoff {
                expired = Some(index);
            } else {
                highest = highest.max(*count);
            }
        }
        self.recommend(expired, desired, now);
        (highest, DOWN_STABILIZED)
    }

    /// With behavior: the current count moves only as far as all proposals of the window agree.
    fn stabilize_with(
        &mut self,
        rules: &Rules,
        current: i32,
        desired: i32,
        now: Time,
    ) -> (i32, Why) {
        let up_cutoff = now - rules.up_window;
        let down_cutoff = now - rules.down_window;
        let (mut up, mut down) = (desired, desired);
        let mut expired = None;
        for (index, (count, at)) in self.recommendations.iter().enumerate() {
            if *at > up_cutoff {
                up = up.min(*count);
            }
            if *at > down_cutoff {
                down = down.max(*count);
            }
            if *at < up_cutoff && *at < down_cutoff {
                expired = Some(index);
            }
        }
        let mut stabilized = current;
        if stabilized < up {
            stabilized = up;
        }
        if stabilized > down {
            stabilized = down;
        }
        self.recommend(expired, desired, now);
        (stabilized, if desired >= current { UP_STABILIZED } else { DOWN_STABILIZED })
    }

    fn recommend(&mut self, expired: Option<usize>, desired: i32, now: Time) {
        match expired {
            Some(index) => self.recommendations[index] = (desired, now),
            None => self.recommendations.push((desired, now)),
        }
    }

    fn limit_with(
        &self,
        behavior: &HorizontalPodAutoscalerBehavior,
        current: i32,
        desired: i32,
        least: i32,
        most: i32,
        now: Time,
    ) -> (i32, Why) {
        if desired > current {
            let limit = self.up_limit(behavior.scale_up.as_ref(), current, now).max(current);
            let (bound, why) = if most > limit { (limit, UP_LIMIT) } else { (most, TOO_MANY) };
            if desired > bound {
                return (bound, why);
            }
        } else if desired < current {
            let limit = self.down_limit(behavior.scale_down.as_ref(), current, now).min(current);
            let (bound, why) = if least < limit { (limit, DOWN_LIMIT) } else { (least, TOO_FEW) };
            if desired < bound {
                return (bound, why);
            }
        }
        (desired, WITHIN)
    }

    fn up_limit(&self, rules: Option<&HPAScalingRules>, current: i32, now: Time) -> i32 {
        let Some(rules) = rules else { return current };
        let proposals = rules.policies.iter().flatten().map(|policy| {
            let start = f64::from(self.at_start(current, policy.period_seconds, now));
            let value = f64::from(policy.value);
            // Sums and products of 32-bit integers are exact in doubles; the casts saturate.
            match &*policy.type_ {
                "Pods" => (start + value) as i32,
                _ => (start * (1.0 + value / 100.0)).ceil() as i32,
            }
        });
        match rules.select_policy.as_deref() {
            Some("Disabled") => current,
            Some("Min") => proposals.min().unwrap_or(i32::MAX),
            _ => proposals.max().unwrap_or(i32::MIN),
        }
    }

    fn down_limit(&self, rules: Option<&HPAScalingRules>, current: i32, now: Time) -> i32 {
        let Some(rules) = rules else { return current };
        let proposals = rules.policies.iter().flatten().map(|policy| {
            let start = f64::from(self.at_start(current, policy.period_seconds, now));
            let value = f64::from(policy.value);
            match &*policy.type_ {
                "Pods" => (start - value) as i32,
                _ => (start * (1.0 - value / 100.0)) as i32,
            }
        });
        match rules.select_policy.as_deref() {
            Some("Disabled") => current,
            // The largest change is the lowest count.
            Some("Min") => proposals.max().unwrap_or(i32::MIN),
            _ => proposals.min().unwrap_or(i32::MAX),
        }
    }

    /// The count at the start of a period that ends now. Changes in both directions count, whatever
    /// the direction of the policy.
    fn at_start(&self, current: i32, period_seconds: i32, now: Time) -> i32 {
        let cutoff = now - seconds(period_seconds);
        let within = |list: &[Scaling]| {
            list.iter()
                .filter(|change| change.at > cutoff)
                .map(|change| i64::from(change.by))
                .sum::<i64>()
        };
        let start = i64::from(current) - within(&self.scale_ups) + within(&self.scale_downs);
        i32::try_from(start).unwrap_or(if start < 0 { i32::MIN } else { i32::MAX })
    }

    /// Remembers a change that was carried out. Without behavior nothing limits the rate by it.
    pub(super) fn remember_scaling(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        from: i32,
        to: i32,
        now: Time,
    ) {
        let Some(behavior) = behavior else { return };
        let (list, rules) = if to > from {
            (&mut self.scale_ups, behavior.scale_up.as_ref())
        } else {
            (&mut self.scale_downs, behavior.scale_down.as_ref())
        };
        let periods = rules.iter().flat_map(|rules| rules.policies.iter().flatten());
        let longest = periods.map(|policy| policy.period_seconds).max().unwrap_or(0);
        let cutoff = now - seconds(longest);
        for change in list.iter_mut().filter(|change| change.at < cutoff) {
            change.outdated = true;
        }
        let new = Scaling { by: from.abs_diff(to).cast_signed(), at: now, outdated: false };
        match list.iter().rposition(|change| change.outdated) {
            Some(index) => list[index] = new,
            None => list.push(new),
        }
    }
}

/// Without behavior: at most double, but up to four at once.
fn limit(current: i32, desired: i32, least: i32, most: i32) -> (i32, Why) {
    let rate = current.saturating_mul(2).max(4);
    let (bound, why) = if most > rate { (rate, UP_LIMIT) } else { (most, TOO_MANY) };
    if desired < least {
        (least, TOO_FEW)
    } else if desired > bound {
        (bound, why)
    } else {
        (desired, WITHIN)
    }
}

struct Rules {
    up_window: Duration,
    down_window: Duration,
}

impl Rules {
    fn of(behavior: &HorizontalPodAutoscalerBehavior, config: &Config) -> Self {
        let window = |rules: &Option<HPAScalingRules>| {
            rules.as_ref().and_then(|rules| rules.stabilization_window_seconds).map(seconds)
        };
        Self {
            up_window: window(&behavior.scale_up).unwrap_or_default(),
            down_window: window(&behavior.scale_down).unwrap_or(config.downscale_stabilization),
        }
    }
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::autoscaling::v2::HPAScalingPolicy;
    use proptest::prelude::*;

    use super::*;

    fn rules(type_: &str, value: i32, period_seconds: i32, window: i32) -> HPAScalingRules {
        HPAScalingRules {
            policies: Some(vec![HPAScalingPolicy {
                type_: type_.to_owned(),
                value,
                period_seconds,
            }]),
            select_policy: Some("Max".to_owned()),
            stabilization_window_seconds: Some(window),
            tolerance: None,
        }
    }

    fn spec(
        least: i32,
        most: i32,
        behavior: Option<HorizontalPodAutoscalerBehavior>,
    ) -> HorizontalPodAutoscalerSpec {
        HorizontalPodAutoscalerSpec {
            behavior,
            max_replicas: most,
            min_replicas: Some(least),
            ..HorizontalPodAutoscalerSpec::default()
        }
    }

    /// The counts after each pass, 15 s apart, for what metrics ask for.
    fn run(spec: &HorizontalPodAutoscalerSpec, start: i32, asked: &[i32]) -> Vec<i32> {
        let config = Config::default();
        let mut memory = Memory::default();
        let mut count = start;
        memory.start(count, Time::EPOCH);
        let mut counts = vec![count];
        for (pass, asked) in asked.iter().enumerate() {
            let now = Time::from_seconds(15 * (i64::try_from(pass).unwrap() + 1));
            let next = memory.normalize(&config, spec, count, *asked, now, |_, _, _| {}).count;
            if next != count {
                memory.remember_scaling(spec.behavior.as_ref(), count, next, now);
            }
            count = next;
            counts.push(count);
        }
        counts
    }

    #[test]
    fn without_behavior_a_count_at_most_doubles_but_may_reach_four() {
        let spec = spec(1, 100, None);
        assert_eq!(run(&spec, 1, &[100; 5]), [1, 4, 8, 16, 32, 64]);
        // And shrinks only when five minutes of proposals agree.
        let mut asked = vec![8];
        asked.extend([2; 21]);
        let counts = run(&spec, 8, &asked);
        assert_eq!(counts.iter().filter(|count| **count == 8).count(), 22);
        assert_eq!(counts.last(), Some(&2));
    }

    #[test]
    fn a_disabled_direction_stands_still() {
        let mut down = rules("Percent", 100, 15, 0);
        down.select_policy = Some("Disabled".to_owned());
        let behavior = HorizontalPodAutoscalerBehavior {
            scale_up: Some(rules("Pods", 2, 60, 0)),
            scale_down: Some(down),
        };
        let counts = run(&spec(1, 100, Some(behavior)), 5, &[1, 1, 9, 9, 1]);
        assert_eq!(counts, [5, 5, 5, 7, 7, 7]);
    }

    fn asked() -> impl Strategy<Value = Vec<i32>> {
        prop::collection::vec(0..60, 1..60)
    }

    proptest! {
        /// Counts that metrics decide stay within the limits of the spec.
        #[test]
        fn never_outside_the_limits(
            least in 1..10_i32, room in 0..30_i32, start in 0..30_i32, asked in asked(), behavior in any::<bool>(),
        ) {
            let most = least + room;
            let behavior = behavior.then(|| HorizontalPodAutoscalerBehavior {
                scale_up: Some(rules("Percent", 50, 60, 0)),
                scale_down: Some(rules("Pods", 3, 60, 30)),
            });
            let start = least + start.min(room);
            for count in run(&spec(least, most, behavior), start, &asked) {
                prop_assert!((least..=most).contains(&count), "{count}");
            }
        }

        /// No window of a policy's period sees more change than the policy allows.
        #[test]
        fn no_policy_is_exceeded_in_any_window(
            up in 1..6, up_period in 1..8_i32, down in 1..6, down_period in 1..8_i32, asked in asked(),
        ) {
            let behavior = HorizontalPodAutoscalerBehavior {
                scale_up: Some(rules("Pods", up, up_period * 15, 0)),
                scale_down: Some(rules("Pods", down, down_period * 15, 0)),
            };
            let counts = run(&spec(1, 60, Some(behavior)), 20, &asked);
            for at in 1..counts.len() {
                let (period, most) = match counts[at] - counts[at - 1] {
                    0 => continue,
                    1.. => (up_period, up),
                    _ => (down_period, down),
                };
                // Against the count at the window's start: what went the other way since then
                // makes room again.
                let start = at.saturating_sub(usize::try_from(period).unwrap());
                let change = (counts[at] - counts[start]).abs();
                let against = (counts[at] - counts[start]).signum() != (counts[at] - counts[at - 1]).signum();
                prop_assert!(against || change <= most, "{counts:?} at {at}");
            }
        }
    }
}
