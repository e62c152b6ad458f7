//! A node affinity in a configuration file, read strictly: a typo in one would keep every pod of
//! the profile off the nodes it was meant for.

use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PreferredSchedulingTerm,
};
use wharf_model::names::qualified_name;

use super::args::{label, one_of};
use super::field::{Field, Wrong};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];

/// Reads `addedAffinity`.
pub(super) fn read(field: &Field<'_>) -> Result<NodeAffinity, Wrong> {
    let field = field.only(&[REQUIRED, PREFERRED])?;
    let required = field.get(REQUIRED).map(|required| selector(&required)).transpose()?;
    let mut preferred = Vec::new();
    for item in field.items(PREFERRED)? {
        let item = item.only(&["weight", "preference"])?;
        let Some(weight) = item.number("weight", 1..=100)? else {
            return Err(item.wrong_at("weight", "is required: a whole number from 1 to 100"));
        };
        let Some(preference) = item.get("preference") else {
            return Err(item.wrong_at("preference", "is required"));
        };
        preferred.push(PreferredSchedulingTerm {
            weight: i32::try_from(weight).unwrap_or(100),
            preference: term(&preference)?,
        });
    }
    if required.is_none() && preferred.is_empty() {
        return Err(field.wrong(format!("is empty; give it {REQUIRED} or {PREFERRED}")));
    }
    Ok(NodeAffinity {
        required_during_scheduling_ignored_during_execution: required,
        preferred_during_scheduling_ignored_during_execution: (!preferred.is_empty())
            .then_some(preferred),
    })
}

fn selector(field: &Field<'_>) -> Result<NodeSelector, Wrong> {
    let field = field.only(&["nodeSelectorTerms"])?;
    let terms: Result<Vec<_>, _> = field.items("nodeSelectorTerms")?.iter().map(term).collect();
    let terms = terms?;
    if terms.is_empty() {
        return Err(field.wrong_at("nodeSelectorTerms", "needs at least one term"));
    }
    Ok(NodeSelector { node_selector_terms: terms })
}

fn term(field: &Field<'_>) -> Result<NodeSelectorTerm, Wrong> {
    let field = field.only(&["matchExpressions", "matchFields"])?;
    let read = |name: &str| -> Result<Option<Vec<NodeSelectorRequirement>>, Wrong> {
        let items = field.items(name)?;
        let list: Result<Vec<_>, _> = items.iter().map(|item| requirement(item, name)).collect();
        list.map(|list| (!list.is_empty()).then_some(list))
    };
    Ok(NodeSelectorTerm {
        match_expressions: read("matchExpressions")?,
        match_fields: read("matchFields")?,
    })
}

fn requirement(field: &Field<'_>, list: &str) -> Result<NodeSelectorRequirement, Wrong> {
    let field = field.only(&["key", "operator", "values"])?;
    let key = field.required_text("key")?;
    let operator = field.required_text("operator")?;
    let items = field.items("values")?;
    let values = field.texts("values")?;
    if list == "matchFields" {
        one_of(&field, "key", key, &["metadata.name"])?;
        one_of(&field, "operator", operator, &["In", "NotIn"])?;
        if values.len() != 1 {
            return Err(field.wrong_at("values", "a field has exactly one value"));
        }
    } else {
        if let Some(error) = qualified_name(key).first() {
            return Err(field.wrong_at("key", error));
        }
        one_of(&field, "operator", operator, &OPERATORS)?;
        for (item, value) in items.iter().zip(&values) {
            label(item, value)?;
        }
        let says = match (operator, values.len()) {
            ("In" | "NotIn", 0) => Some(format!("{operator} needs at least one value")),
            ("Exists" | "DoesNotExist", 1..) => Some(format!("{operator} takes no values")),
            ("Gt" | "Lt", count) if count != 1 || values[0].parse::<i64>().is_err() => {
                Some(format!("{operator} takes exactly one whole number"))
            }
            _ => None,
        };
        if let Some(says) = says {
            return Err(field.wrong_at("values", says));
        }
    }
    Ok(NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: (!values.is_empty()).then(|| values.into_iter().map(str::to_owned).collect()),
    })
}
