//! What a pass decided and why, for `wharf why hpa/NAME`: what each metric asked for, and what the
//! way from there to the count was.

use wharf_autoscale::hpa::{Count, Held, Limits, Pass, Proposal};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::reason::{Because, Reason};

/// Who decides.
pub(super) const BY: &str = "horizontal-pod-autoscaler";

/// The record of a pass; `extra` is what else had a part in it.
pub(super) fn of_pass(kind: Kind, key: &ObjectKey, pass: &Pass, extra: Vec<Because>) -> Reason {
    let current = pass.current();
    let failed = pass.proposals.iter().any(|proposal| proposal.result.is_err());
    let decision = match pass.scale_to {
        Some(count) if pass.reason.is_empty() => {
            format!("{current} -> {count}: {}", unspoken(pass.limits.as_ref()))
        }
        Some(count) => format!("{current} -> {count}: {}", pass.reason),
        None if pass.proposed.is_none() && (failed || pass.failure().is_some()) => {
            let why = pass.failure().unwrap_or("no metric can be told");
            format!("stays at {current}: {why}")
        }
        None if current == 0 => "stays at 0: scaling is disabled".to_owned(),
        None => format!("stays at {current}"),
    };
    let mut because: Vec<Because> = pass.proposals.iter().map(metric).collect();
    if let (Some(floor), Some(proposed)) = (pass.foreseen, pass.proposed) {
        let text = format!("foresees a need of {floor}, where metrics ask for {proposed} now");
        because.push(Because::told("forecast", text, vec![("floor", floor.into())]));
    }
    if let (Some(limits), Some(proposed)) = (&pass.limits, pass.proposed) {
        let proposed = pass.foreseen.unwrap_or(proposed);
        because.extend(stabilization(limits, proposed));
        because.extend(limit(limits));
    }
    because.extend(extra);
    Reason { kind, key: key.clone(), by: BY, decision, because }
}

/// Why a count changes though the metrics ask for none: upstream's Event gives no reason then.
fn unspoken(limits: Option<&Limits>) -> &'static str {
    match limits.map(|limits| (limits.stabilization, limits.limit)) {
        Some(("ScaleDownStabilized", _)) => "stabilization: recent proposals were higher",
        Some(("ScaleUpStabilized", _)) => "stabilization: recent proposals were lower",
        Some((_, "TooFewReplicas")) => "less than minReplicas",
        Some((_, "TooManyReplicas")) => "more than maxReplicas",
        Some((_, "ScaleUpLimit" | "ScaleDownLimit")) => "a policy limits the change",
        _ => "no reason is given",
    }
}

fn metric(proposal: &Proposal) -> Because {
    match &proposal.result {
        Ok(count) => Because::told(proposal.metric.clone(), text(count), numbers(count)),
        Err(error) => Because::new(proposal.metric.clone(), error.clone()),
    }
}

fn text(count: &Count) -> String {
    let mut text = match count.utilization {
        Some(percent) => format!("{percent}% of requests ({}m each)", count.milli),
        None => format!("{}m", count.milli),
    };
    text.push_str(&format!(", {:.3} of the target", count.ratio));
    if let Some(pods) = count.pods {
        text.push_str(&format!(", on {} pods", pods.ready));
        for (number, what) in [
            (pods.unready, "not ready yet"),
            (pods.missing, "without samples"),
            (pods.ignored, "ending"),
        ] {
            if number > 0 {
                text.push_str(&format!(", {number} {what}"));
            }
        }
    }
    text.push_str(&format!(": asks for {}", count.replicas));
    match count.held {
        Some(Held::Tolerance) => text.push_str(", being within the tolerance"),
        Some(Held::Missing) => {
            text.push_str(", as what pods without samples may be using would turn the change round")
        }
        None => {}
    }
    text
}

fn numbers(count: &Count) -> Vec<(&'static str, i64)> {
    let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let mut numbers = vec![
        ("asksFor", i64::from(count.replicas)),
        // A ratio is a float; the record keeps thousandths of it.
        ("ratioMilli", (count.ratio * 1000.0) as i64),
        ("valueMilli", count.milli),
        ("withinTolerance", i64::from(count.held == Some(Held::Tolerance))),
    ];
    numbers.extend(count.utilization.map(|percent| ("utilizationPercent", i64::from(percent))));
    if let Some(pods) = count.pods {
        numbers.extend([
            ("podsReady", whole(pods.ready)),
            ("podsUnready", whole(pods.unready)),
            ("podsMissing", whole(pods.missing)),
            ("podsIgnored", whole(pods.ignored)),
        ]);
    }
    numbers
}

fn stabilization(limits: &Limits, proposed: i32) -> Option<Because> {
    let what = match limits.stabilization {
        "ScaleDownStabilized" => "higher",
        "ScaleUpStabilized" => "lower",
        _ => return None,
    };
    let count = limits.stabilized;
    let text = format!(
        "{}: {proposed} is proposed, but recent proposals were {what}: {count}",
        limits.stabilization
    );
    let numbers = vec![("proposed", proposed.into()), ("stabilized", count.into())];
    Some(Because::told("stabilization", text, numbers))
}

fn limit(limits: &Limits) -> Option<Because> {
    let (rule, what) = match limits.limit {
        "TooFewReplicas" => ("minReplicas", "is less than the minimum"),
        "TooManyReplicas" => ("maxReplicas", "is more than the maximum"),
        "ScaleUpLimit" => ("scale-up policy", "would be faster than the policy allows"),
        "ScaleDownLimit" => ("scale-down policy", "would be faster than the policy allows"),
        _ => return None,
    };
    let (from, to) = (limits.stabilized, limits.count);
    let text = format!("{}: {from} {what}: {to}", limits.limit);
    Some(Because::told(rule, text, vec![("from", from.into()), ("to", to.into())]))
}
