//! What extenders answer, read as upstream's decoder takes it: the names of fields in any case.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;
use serde_json::Value;
use wharf_scheduler::{Verdicts, Veto};

/// What a filter left over, and what it said of the others.
type Filtered = (Vec<CompactString>, BTreeMap<CompactString, Veto>);

/// A node that is left over, and who is to leave it, by uid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) node: CompactString,
    pub(super) victims: Vec<CompactString>,
    /// How many of them a disruption budget would have kept, as it counts.
    pub(super) violations: usize,
}

/// A filter's answer about the nodes `asked`.
pub(super) fn filter(
    body: &str,
    by_names: bool,
    asked: &[CompactString],
) -> Result<Filtered, String> {
    error_of(body)?;
    let answer: Value = parse(body)?;
    let names: Vec<&str> = match (field(&answer, "NodeNames"), field(&answer, "Nodes")) {
        (Value::Array(names), _) if by_names => names.iter().filter_map(Value::as_str).collect(),
        (_, nodes) => {
            let items = field(nodes, "items").as_array().into_iter().flatten();
            items.filter_map(|node| node["metadata"]["name"].as_str()).collect()
        }
    };
    let known: BTreeSet<&str> = asked.iter().map(CompactString::as_str).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
        return Err(format!("it leaves over node {unknown:?}, which it was not asked about"));
    }
    let left: BTreeSet<&str> = names.into_iter().collect();
    let mut vetoes = BTreeMap::new();
    // Whoever is in both cannot be helped by evictions.
    for (name, unresolvable) in [("FailedNodes", false), ("FailedAndUnresolvableNodes", true)] {
        for (node, text) in field(&answer, name).as_object().into_iter().flatten() {
            if known.contains(node.as_str()) {
                let text = text.as_str().unwrap_or_default().to_owned();
                vetoes.insert(node.into(), Veto { text, unresolvable });
            }
        }
    }
    let kept = asked.iter().filter(|name| left.contains(name.as_str())).cloned().collect();
    Ok((kept, vetoes))
}

/// Adds a scorer's answer.
pub(super) fn add_scores(body: &str, weight: i64, verdicts: &mut Verdicts) {
    let Ok(answer) = parse(body) else { return };
    for item in answer.as_array().into_iter().flatten() {
        let host = field(item, "Host").as_str();
        let (Some(host), Some(score)) = (host, field(item, "Score").as_i64()) else { continue };
        let sum = verdicts.scores.entry(host.into()).or_default();
        *sum = sum.saturating_add(score.saturating_mul(weight));
    }
}

/// An answer about victims, by the names of nodes. Whatever was sent, it names pods by their uids.
pub(super) fn candidates(body: &str) -> Result<Vec<Named>, String> {
    let answer = parse(body)?;
    let Some(nodes) = field(&answer, "NodeNameToMetaVictims").as_object() else {
        return Ok(Vec::new());
    };
    let named = nodes.iter().map(|(node, told)| {
        let pods = field(told, "Pods").as_array().into_iter().flatten();
        let victims: Vec<_> =
            pods.map(|pod| field(pod, "UID").as_str().unwrap_or_default().into()).collect();
        let violations = field(told, "NumPDBViolations").as_u64().unwrap_or(0);
        let violations = usize::try_from(violations).unwrap_or(usize::MAX);
        Named { node: node.as_str().into(), victims, violations }
    });
    let mut named: Vec<_> = named.collect();
    named.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(named)
}

/// The error that an answer tells of.
pub(super) fn error_of(body: &str) -> Result<(), String> {
    let answer = parse(body)?;
    match field(&answer, "Error").as_str() {
        None | Some("") => Ok(()),
        Some(error) => Err(error.to_owned()),
    }
}

fn parse(body: &str) -> Result<Value, String> {
    serde_json::from_str(body).map_err(|error| format!("its answer cannot be read: {error}"))
}

/// A field by its name in any case.
fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    let mut fields = value.as_object().into_iter().flatten();
    let found = fields.find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
    found.map_or(&Value::Null, |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn victims_are_read_in_any_case_of_letters() {
        let body = r#"{"nodenametometavictims": {
            "b": {"pods": [{"uid": "2"}, {"UID": "1"}], "numPDBViolations": 1},
            "a": {"Pods": null},
            "c": null
        }}"#;
        let named = |node: &str, victims: &[&str], violations| Named {
            node: node.into(),
            victims: victims.iter().map(|uid| (*uid).into()).collect(),
            violations,
        };
        let expected = [named("a", &[], 0), named("b", &["2", "1"], 1), named("c", &[], 0)];
        assert_eq!(candidates(body).unwrap(), expected);
        assert_eq!(candidates("{}").unwrap(), []);
        assert_eq!(candidates(r#"{"NodeNameToMetaVictims": null}"#).unwrap(), []);
        assert!(candidates("<html>").unwrap_err().starts_with("its answer cannot be read"));
    }
}
