//! Taints and tolerations: which pods a taint keeps away, and for how long a pod may stay.
//!
//! Rules: <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::labels;

/// Effect: new pods which do not tolerate the taint stay away.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Effect: such pods are kept away where something else is possible.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Effect: such pods stay away and are evicted.
pub const NO_EXECUTE: &str = "NoExecute";

/// How long a pod stays on a node which is not ready or unreachable, if it says nothing else.
pub const DEFAULT_TOLERATION_SECONDS: i64 = 300;

/// Whether `Gt` and `Lt` tolerations compare numbers.
///
/// kube-scheduler 1.36 has this behind a gate that is off (they never match); Karpenter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOperators {
    /// `Gt` and `Lt` tolerations match nothing.
    Off,
    /// `Gt` and `Lt` tolerations compare the taint's value with theirs.
    On,
}

/// Whether a toleration tolerates a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint, comparison: ComparisonOperators) -> bool {
    let unset_or_equal =
        |field: Option<&str>, other: &str| field.is_none_or(|f| f.is_empty() || f == other);
    if !unset_or_equal(toleration.effect.as_deref(), &taint.effect)
        || !unset_or_equal(toleration.key.as_deref(), &taint.key)
    {
        return false;
    }
    let asked = toleration.value.as_deref().unwrap_or("");
    let actual = taint.value.as_deref().unwrap_or("");
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => asked == actual,
        Some("Exists") => true,
        Some(operator @ ("Gt" | "Lt")) if comparison == ComparisonOperators::On => {
            match (actual.parse::<i64>(), asked.parse::<i64>()) {
                (Ok(actual), Ok(asked)) if operator == "Gt" => actual > asked,
                (Ok(actual), Ok(asked)) => actual < asked,
                _ => false,
            }
        }
        Some(_) => false,
    }
}

/// The first taint, of those `relevant`, which no toleration tolerates.
pub fn first_untolerated<'t>(
    taints: &'t [Taint],
    tolerations: &[Toleration],
    comparison: ComparisonOperators,
    relevant: impl Fn(&Taint) -> bool,
) -> Option<&'t Taint> {
    taints.iter().find(|taint| {
        relevant(taint)
            && !tolerations.iter().any(|toleration| tolerates(toleration, taint, comparison))
    })
}

/// Whether a taint keeps pods from being scheduled: its effect is NoSchedule or NoExecute.
pub fn blocks_scheduling(taint: &Taint) -> bool {
    taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE
}

/// What the NoExecute taints of its node mean for a running pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoExecuteVerdict {
    /// It may stay for good.
    Stay,
    /// It is to be evicted this many seconds after the taints appeared; 0 is at once.
    EvictAfterSeconds(i64),
}

/// What a node's NoExecute taints mean for a pod with these tolerations: one taint not tolerated
/// evicts at once, otherwise the shortest `tolerationSeconds` of the tolerations in use counts.
pub fn no_execute_verdict(taints: &[Taint], tolerations: &[Toleration]) -> NoExecuteVerdict {
    let mut shortest: Option<i64> = None;
    for taint in taints.iter().filter(|taint| taint.effect == NO_EXECUTE) {
        // Upstream takes the first toleration that matches the taint.
        let matching = tolerations
            .iter()
            .find(|toleration| tolerates(toleration, taint, ComparisonOperators::Off));
        let Some(toleration) = matching else {
            return NoExecuteVerdict::EvictAfterSeconds(0);
        };
        if let Some(seconds) = toleration.toleration_seconds {
            let seconds = seconds.max(0);
            shortest = Some(shortest.map_or(seconds, |shortest| shortest.min(seconds)));
        }
    }
    shortest.map_or(NoExecuteVerdict::Stay, NoExecuteVerdict::EvictAfterSeconds)
}

/// What the DefaultTolerationSeconds admission plugin adds to a new pod: five minutes of
/// not-ready and unreachable, unless the pod has a toleration for that key (or for every key)
/// with effect NoExecute or none.
pub fn add_default_toleration_seconds(tolerations: &mut Vec<Toleration>) {
    let covered = |key: &str| {
        tolerations.iter().any(|toleration| {
            let toleration_key = toleration.key.as_deref().unwrap_or("");
            let effect = toleration.effect.as_deref().unwrap_or("");
            (toleration_key.is_empty() || toleration_key == key)
                && (effect.is_empty() || effect == NO_EXECUTE)
        })
    };
    let missing: Vec<&str> = [labels::TAINT_NOT_READY, labels::TAINT_UNREACHABLE]
        .into_iter()
        .filter(|key| !covered(key))
        .collect();
    tolerations.extend(missing.into_iter().map(|key| Toleration {
        toleration_seconds: Some(DEFAULT_TOLERATION_SECONDS),
        ..exists(key, NO_EXECUTE)
    }));
}

/// The tolerations the DaemonSet controller adds to its pods.
pub fn daemon_set_tolerations(host_network: bool) -> Vec<Toleration> {
    let mut tolerations = vec![
        exists(labels::TAINT_NOT_READY, NO_EXECUTE),
        exists(labels::TAINT_UNREACHABLE, NO_EXECUTE),
        exists(labels::TAINT_DISK_PRESSURE, NO_SCHEDULE),
        exists(labels::TAINT_MEMORY_PRESSURE, NO_SCHEDULE),
        exists(labels::TAINT_PID_PRESSURE, NO_SCHEDULE),
        exists(labels::TAINT_UNSCHEDULABLE, NO_SCHEDULE),
    ];
    if host_network {
        tolerations.push(exists(labels::TAINT_NETWORK_UNAVAILABLE, NO_SCHEDULE));
    }
    tolerations
}

/// Whether a taint goes away by itself while a node starts, so that Karpenter ignores it until
/// the node is initialized.
pub fn is_ephemeral(taint: &Taint) -> bool {
    let value = taint.value.as_deref().unwrap_or("");
    match taint.key.as_str() {
        labels::TAINT_NOT_READY => taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE,
        labels::TAINT_UNREACHABLE => taint.effect == NO_SCHEDULE,
        labels::TAINT_CLOUD_UNINITIALIZED => taint.effect == NO_SCHEDULE && value == "true",
        labels::TAINT_UNREGISTERED => taint.effect == NO_EXECUTE,
        key => key.starts_with(labels::TAINT_READINESS_PREFIX),
    }
}

/// Whether two taints are the same to the API: one key and effect, whatever the value.
pub fn same_taint(left: &Taint, right: &Taint) -> bool {
    left.key == right.key && left.effect == right.effect
}

/// A taint as kubectl and Karpenter print it: `key=value:Effect` or `key:Effect`.
pub fn display(taint: &Taint) -> String {
    match taint.value.as_deref() {
        None | Some("") => format!("{}:{}", taint.key, taint.effect),
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
    }
}

/// A taint without value.
pub fn taint(key: impl Into<Cow<'static, str>>, effect: &str) -> Taint {
    Taint { key: key.into().into_owned(), effect: effect.to_owned(), ..Taint::default() }
}

/// A toleration of every value of `key` with the given effect.
pub fn exists(key: &str, effect: &str) -> Toleration {
    Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    fn with_value(key: &str, value: &str, effect: &str) -> Taint {
        Taint { value: some(value), ..taint(key.to_owned(), effect) }
    }

    #[test]
    fn a_toleration_matches_by_effect_key_and_operator() {
        let gpu = with_value("gpu", "a100", NO_SCHEDULE);
        let number = with_value("gpu", "10", NO_SCHEDULE);
        for (toleration, taint, off, on) in [
            (toleration("", "Exists", "", ""), &gpu, true, true),
            (toleration("gpu", "Exists", "", ""), &gpu, true, true),
            (toleration("gpu", "Exists", "", NO_EXECUTE), &gpu, false, false),
            (toleration("cpu", "Exists", "", ""), &gpu, false, false),
            (toleration("gpu", "Equal", "a100", NO_SCHEDULE), &gpu, true, true),
            (toleration("gpu", "", "a100", ""), &gpu, true, true),
            (toleration("gpu", "", "", ""), &gpu, false, false),
            (toleration("gpu", "In", "a100", ""), &gpu, false, false),
            (toleration("gpu", "Gt", "9", ""), &number, false, true),
            (toleration("gpu", "Gt", "10", ""), &number, false, false),
            (toleration("gpu", "Lt", "11", ""), &number, false, true),
            (toleration("gpu", "Lt", "ten", ""), &number, false, false),
            (toleration("gpu", "Lt", "11", ""), &gpu, false, false),
        ] {
            assert_eq!(
                tolerates(&toleration, taint, ComparisonOperators::Off),
                off,
                "{toleration:?}"
            );
            assert_eq!(
                tolerates(&toleration, taint, ComparisonOperators::On),
                on,
                "{toleration:?}"
            );
        }
    }

    #[test]
    fn the_first_relevant_untolerated_taint_is_named() {
        let taints = [
            taint("soft", PREFER_NO_SCHEDULE),
            with_value("gpu", "yes", NO_SCHEDULE),
            taint("gone", NO_EXECUTE),
        ];
        let find = |tolerations: &[Toleration]| {
            first_untolerated(&taints, tolerations, ComparisonOperators::Off, blocks_scheduling)
                .map(display)
        };
        assert_eq!(find(&[]).as_deref(), Some("gpu=yes:NoSchedule"));
        assert_eq!(find(&[exists("gpu", NO_SCHEDULE)]).as_deref(), Some("gone:NoExecute"));
        assert_eq!(find(&[toleration("", "Exists", "", "")]), None);
    }

    #[test]
    fn new_pods_tolerate_a_lost_node_for_five_minutes() {
        let keys = |mut tolerations: Vec<Toleration>| {
            let before = tolerations.len();
            add_default_toleration_seconds(&mut tolerations);
            tolerations[before..]
                .iter()
                .map(|t| (t.key.clone().unwrap(), t.toleration_seconds))
                .collect::<Vec<_>>()
        };
        let both = vec![
            (labels::TAINT_NOT_READY.to_owned(), Some(300)),
            (labels::TAINT_UNREACHABLE.to_owned(), Some(300)),
        ];
        assert_eq!(keys(vec![]), both);
        assert_eq!(keys(vec![exists(labels::TAINT_NOT_READY, NO_SCHEDULE)]), both);
        assert_eq!(keys(vec![exists(labels::TAINT_NOT_READY, NO_EXECUTE)]), both[1..]);
        assert_eq!(keys(vec![toleration("", "Exists", "", "")]), []);
        assert_eq!(keys(daemon_set_tolerations(true)), []);
    }

    #[test]
    fn no_execute_taints_evict_at_once_later_or_never() {
        let lost = [taint(labels::TAINT_UNREACHABLE, NO_EXECUTE)];
        let mut defaults = Vec::new();
        add_default_toleration_seconds(&mut defaults);
        for (taints, tolerations, expected) in [
            (&lost[..], vec![], NoExecuteVerdict::EvictAfterSeconds(0)),
            (&lost[..], defaults, NoExecuteVerdict::EvictAfterSeconds(300)),
            (&lost[..], daemon_set_tolerations(false), NoExecuteVerdict::Stay),
            (&[], vec![], NoExecuteVerdict::Stay),
        ] {
            assert_eq!(no_execute_verdict(taints, &tolerations), expected);
        }
    }

    #[test]
    fn taints_of_a_starting_node_are_ephemeral() {
        for (taint, expected) in [
            (taint(labels::TAINT_NOT_READY, NO_SCHEDULE), true),
            (taint(labels::TAINT_NOT_READY, NO_EXECUTE), true),
            (taint(labels::TAINT_NOT_READY, PREFER_NO_SCHEDULE), false),
            (taint(labels::TAINT_UNREACHABLE, NO_SCHEDULE), true),
            (taint(labels::TAINT_UNREACHABLE, NO_EXECUTE), false),
            (with_value(labels::TAINT_CLOUD_UNINITIALIZED, "true", NO_SCHEDULE), true),
            (taint(labels::TAINT_CLOUD_UNINITIALIZED, NO_SCHEDULE), false),
            (taint(labels::TAINT_UNREGISTERED, NO_EXECUTE), true),
            (taint("readiness.k8s.io/cni", NO_SCHEDULE), true),
            (taint("team", NO_SCHEDULE), false),
        ] {
            assert_eq!(is_ephemeral(&taint), expected, "{}", display(&taint));
        }
    }
}
