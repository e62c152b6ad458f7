//! What is to be done about a set's pods: a function of which there are and how they are.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::identity;
use crate::workloads::percentage::scaled;

/// One pod of a set, as far as decisions go.
#[derive(Clone, Debug)]
pub(super) struct Replica<'p> {
    pub(super) ordinal: i32,
    /// The revision it was made from.
    pub(super) revision: &'p str,
    pub(super) is_terminating: bool,
    /// Failed or succeeded.
    pub(super) has_ended: bool,
    pub(super) is_ready: bool,
    /// Ready for as long as the set asks for.
    pub(super) is_available: bool,
}

impl Replica<'_> {
    fn is_healthy(&self) -> bool {
        self.is_ready && !self.is_terminating
    }
}

/// What a set asks for.
#[derive(Debug)]
pub(super) struct Order<'s> {
    pub(super) start: i32,
    pub(super) replicas: i32,
    /// Whether pods come and go one after the other.
    in_order: bool,
    /// Whether pods of an older revision are replaced.
    rolls: bool,
    /// Pods below this ordinal keep the current revision.
    partition: i32,
    /// How many pods may be unavailable while others are replaced.
    unavailable_max: usize,
    /// Whether the strategy says from which ordinal on pods are updated.
    has_partition: bool,
    /// How many pods have the current revision.
    current_replicas: i32,
    pub(super) current: &'s str,
    pub(super) update: &'s str,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Make the pod of an ordinal, of the current revision or of the one updated to.
    Create { ordinal: i32, is_current: bool },
    /// Delete it, because there are to be fewer, or to make it anew.
    Delete { ordinal: i32, is_scaling: bool },
}

impl<'s> Order<'s> {
    pub(super) fn of(set: &StatefulSet, current: &'s str, update: &'s str) -> Self {
        let spec = set.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1).max(0);
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let one = IntOrString::Int(1);
        let unavailable = scaled(unavailable.unwrap_or(&one), replicas, true);
        Self {
            start: identity::start(set),
            replicas,
            in_order: spec.and_then(|spec| spec.pod_management_policy.as_deref())
                != Some("Parallel"),
            rolls: strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete"),
            partition: rolling.and_then(|rolling| rolling.partition).unwrap_or(0),
            has_partition: rolling.is_some(),
            unavailable_max: usize::try_from(unavailable).unwrap_or(1).max(1),
            current_replicas: set
                .status
                .as_ref()
                .and_then(|status| status.current_replicas)
                .unwrap_or(0),
            current,
            update,
        }
    }

    /// Whether a pod of this ordinal is wanted.
    pub(super) fn has(&self, ordinal: i32) -> bool {
        ordinal >= self.start
            && i64::from(ordinal) < i64::from(self.start) + i64::from(self.replicas)
    }

    /// Whether a new pod of this ordinal is made from the current revision.
    fn is_current(&self, ordinal: i32) -> bool {
        let below = if self.has_partition { self.partition } else { self.current_replicas };
        self.rolls && i64::from(ordinal) < i64::from(self.start) + i64::from(below)
    }
}

/// What to do now; the next look, after it has been done, says how to go on.
pub(super) fn decide(order: &Order<'_>, pods: &[Replica<'_>]) -> Vec<Action> {
    let mut actions = Vec::new();
    let find = |ordinal: i32| pods.iter().find(|pod| pod.ordinal == ordinal);
    for index in 0..order.replicas {
        let Some(ordinal) = order.start.checked_add(index) else { break };
        match find(ordinal) {
            None => {
                actions.push(Action::Create { ordinal, is_current: order.is_current(ordinal) });
                if order.in_order {
                    return actions;
                }
            }
            Some(pod) if pod.has_ended => {
                if !pod.is_terminating {
                    actions.push(Action::Delete { ordinal, is_scaling: false });
                }
                if order.in_order {
                    return actions;
                }
            }
            // The next one waits until this one is there.
            Some(pod) if order.in_order && !(pod.is_healthy() && pod.is_available) => {
                return actions;
            }
            Some(_) => {}
        }
    }
    if !scale_down(order, pods, &mut actions) && order.rolls {
        roll(order, pods, &mut actions);
    }
    actions
}

/// Gives up pods that are too many, the highest first. Returns whether that is still going on.
fn scale_down(order: &Order<'_>, pods: &[Replica<'_>], actions: &mut Vec<Action>) -> bool {
    let first_unhealthy = pods.iter().find(|pod| !pod.is_healthy()).map(|pod| pod.ordinal);
    let mut is_going_on = false;
    for pod in pods.iter().rev().filter(|pod| !order.has(pod.ordinal)) {
        is_going_on = true;
        if pod.is_terminating {
            if order.in_order {
                return true;
            }
            continue;
        }
        // One that is not healthy waits for others that are not, unless it is the first of them.
        let is_well = pod.is_ready && pod.is_available;
        if order.in_order && !is_well && Some(pod.ordinal) != first_unhealthy {
            return true;
        }
        actions.push(Action::Delete { ordinal: pod.ordinal, is_scaling: true });
        if order.in_order {
            return true;
        }
    }
    is_going_on && order.in_order
}

/// Deletes pods of older revisions, the highest first, so that they are made anew.
fn roll(order: &Order<'_>, pods: &[Replica<'_>], actions: &mut Vec<Action>) {
    let wanted: Vec<&Replica<'_>> = pods.iter().filter(|pod| order.has(pod.ordinal)).collect();
    let first = i64::from(order.start) + i64::from(order.partition);
    let updated = wanted.iter().rev().filter(|pod| i64::from(pod.ordinal) >= first);
    let missing = usize::try_from(order.replicas).unwrap_or(0).saturating_sub(wanted.len());
    if order.unavailable_max == 1 {
        if missing > 0 {
            return;
        }
        for pod in updated {
            if pod.revision != order.update && !pod.is_terminating {
                actions.push(Action::Delete { ordinal: pod.ordinal, is_scaling: false });
                return;
            }
            if !(pod.is_healthy() && pod.is_available) {
                return;
            }
        }
        return;
    }
    let is_unavailable = |pod: &&&Replica<'_>| !(pod.is_healthy() && pod.is_available);
    let unavailable = wanted.iter().filter(is_unavailable).count() + missing;
    let spare = order.unavailable_max.saturating_sub(unavailable);
    let outdated = updated.filter(|pod| pod.revision != order.update && !pod.is_terminating);
    actions.extend(
        outdated.take(spare).map(|pod| Action::Delete { ordinal: pod.ordinal, is_scaling: false }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(replicas: i32) -> Order<'static> {
        Order {
            start: 0,
            replicas,
            in_order: true,
            rolls: true,
            partition: 0,
            unavailable_max: 1,
            has_partition: true,
            current_replicas: 0,
            current: "old",
            update: "new",
        }
    }

    /// One pod per word: `+` ready, `-` not ready, `t` terminating, `f` failed; `old+` of the old
    /// revision.
    fn pods(text: &str) -> Vec<Replica<'static>> {
        text.split_whitespace()
            .enumerate()
            .filter(|(_, word)| *word != "_")
            .map(|(index, word)| Replica {
                ordinal: i32::try_from(index).expect("few"),
                revision: if word.starts_with("old") { "old" } else { "new" },
                is_terminating: word.ends_with('t'),
                has_ended: word.ends_with('f'),
                is_ready: word.ends_with('+') || word.ends_with('t'),
                is_available: word.ends_with('+') || word.ends_with('t'),
            })
            .collect()
    }

    fn check(order: &Order<'_>, there: &str, expected: &str) {
        let actions: Vec<String> = decide(order, &pods(there))
            .into_iter()
            .map(|action| match action {
                Action::Create { ordinal, is_current: false } => format!("+{ordinal}"),
                Action::Create { ordinal, is_current: true } => format!("+{ordinal}old"),
                Action::Delete { ordinal, is_scaling: true } => format!("-{ordinal}"),
                Action::Delete { ordinal, is_scaling: false } => format!("~{ordinal}"),
            })
            .collect();
        assert_eq!(actions.join(" "), expected, "{there}");
    }

    #[test]
    fn one_after_the_other() {
        let order = order(3);
        for (there, expected) in [
            ("", "+0"),
            ("-", ""),
            ("+", "+1"),
            ("+ t", ""),
            ("+ f", "~1"),
            ("+ + +", ""),
            ("_ + +", "+0"),
            ("+ + + + +", "-4"),
            ("+ + + + t", ""),
            ("+ + + - +", "-4"),
            ("+ + - + +", ""),
            // The highest is the first that is not healthy.
            ("+ + + + -", "-4"),
            ("+ + + - -", ""),
            ("old+ old+ old+", "~2"),
            ("old+ old+ +", "~1"),
            ("old+ old+ -", ""),
            ("old+ old- +", ""),
        ] {
            check(&order, there, expected);
        }
    }

    #[test]
    fn all_at_once() {
        let order = Order { in_order: false, ..order(3) };
        for (there, expected) in [
            ("", "+0 +1 +2"),
            ("- _ -", "+1"),
            ("+ + + - +", "-4 -3"),
            ("f f +", "~0 ~1"),
            ("old+ old+ old-", "~2"),
            ("old+ old+ -", ""),
        ] {
            check(&order, there, expected);
        }
    }

    #[test]
    fn partitions_and_unavailability() {
        let parted = Order { partition: 2, ..order(3) };
        check(&parted, "old+ old+ old+", "~2");
        check(&parted, "old+ old+ +", "");
        check(&parted, "_ old+ +", "+0old");
        let many = Order { unavailable_max: 2, in_order: false, ..order(4) };
        check(&many, "old+ old+ old+ old+", "~3 ~2");
        check(&many, "old+ old+ old+ -", "~2");
        check(&many, "old+ old+ - t", "");
        let by_hand = Order { rolls: false, ..order(2) };
        check(&by_hand, "old+ old+", "");
        check(&by_hand, "old+", "+1");
    }
}
