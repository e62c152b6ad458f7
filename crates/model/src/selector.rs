//! Label selectors and field selectors: what `kubectl get -l` and `--field-selector` send, and
//! what workloads, services, budgets and affinity terms hold.
//!
//! Rules: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>.

mod field;
mod parse;

use std::collections::BTreeMap;
use std::fmt;

use compact_str::CompactString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use smallvec::SmallVec;

pub use field::{FieldSelector, FieldSelectorError, FieldTerm};

use crate::names;

/// A label selector: all of its requirements must hold. Without requirements it matches
/// everything, unless it is [`Selector::NOTHING`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    nothing: bool,
    requirements: Vec<Requirement>,
}

/// What a selector asks of one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: CompactString,
    operator: Operator,
    /// Sorted, each value once.
    values: SmallVec<[CompactString; 1]>,
}

/// How a requirement looks at a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key in (a,b)`: the label is there and its value one of these.
    In,
    /// `key notin (a,b)`: the label is missing or its value none of these.
    NotIn,
    /// `key=a`
    Equals,
    /// `key==a`
    DoubleEquals,
    /// `key!=a`: the label is missing or its value another.
    NotEquals,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`: the label's value is a larger integer.
    GreaterThan,
    /// `key<1`: the label's value is a smaller integer.
    LessThan,
}

/// Why a label selector is not one. The texts are the API server's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text has not the shape of a selector.
    #[error("{0}")]
    Syntax(String),
    /// One requirement of the text is wrong.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// A requirement of a structured selector is wrong.
    #[error("{0}")]
    Invalid(String),
    /// An operator of a structured selector is not known.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
}

/// Something labels can be looked up in.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Option<BTreeMap<String, String>> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref()?.label(key)
    }
}

/// Labels sorted by key.
impl<K: AsRef<str>, V: AsRef<str>> Labels for [(K, V)] {
    fn label(&self, key: &str) -> Option<&str> {
        let index = self.binary_search_by(|(entry, _)| entry.as_ref().cmp(key)).ok()?;
        Some(self[index].1.as_ref())
    }
}

impl Selector {
    /// Matches nothing: what a missing selector stands for.
    pub const NOTHING: Selector = Selector { nothing: true, requirements: Vec::new() };

    /// Matches everything.
    pub const EVERYTHING: Selector = Selector { nothing: false, requirements: Vec::new() };

    /// Parses the form used in query strings and on the command line.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        Ok(Selector::of(parse::parse(text)?))
    }

    /// From the structured form: none matches nothing, an empty one everything.
    pub fn from_api(selector: Option<&LabelSelector>) -> Result<Selector, SelectorError> {
        let Some(selector) = selector else {
            return Ok(Selector::NOTHING);
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, [value])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            let values = expression.values.iter().flatten();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Selector::of(requirements))
    }

    /// From the plain form of Services and ReplicationControllers: every label must be there with
    /// its value. Unlike the structured form it is not validated.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Selector {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.into(),
            operator: Operator::Equals,
            values: [CompactString::from(value)].into_iter().collect(),
        };
        Selector::of(labels.iter().map(equals).collect())
    }

    /// Whether labels match.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.matches_with(|key| labels.label(key))
    }

    /// Whether labels, given as a function from key to value, match.
    pub fn matches_with<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Whether this matches whatever the labels are.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The labels, with their values, without which it matches nothing.
    pub fn anchors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.requirements().iter().filter_map(|requirement| {
            let mut values = requirement.values();
            match (requirement.operator(), values.next(), values.next()) {
                (Operator::Equals | Operator::DoubleEquals | Operator::In, Some(value), None) => {
                    Some((requirement.key(), value))
                }
                _ => None,
            }
        })
    }

    /// Whether this matches nothing because there was no selector.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// What the selector asks for, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Adds a requirement; to nothing nothing can be added.
    pub fn and(&mut self, requirement: Requirement) {
        if !self.nothing {
            let index = self.requirements.partition_point(|entry| entry.key <= requirement.key);
            self.requirements.insert(index, requirement);
        }
    }

    fn of(mut requirements: Vec<Requirement>) -> Selector {
        requirements.sort_by(|left, right| left.key.cmp(&right.key));
        Selector { nothing: false, requirements }
    }
}

impl Requirement {
    /// A requirement with valid key and values, as many as the operator takes.
    pub fn new(
        key: &str,
        operator: Operator,
        values: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Requirement, SelectorError> {
        let mut values: SmallVec<[CompactString; 1]> =
            values.into_iter().map(|value| CompactString::from(value.as_ref())).collect();
        values.sort_unstable();
        values.dedup();
        let errors = validate(key, operator, &values);
        if !errors.is_empty() {
            return Err(SelectorError::Invalid(aggregate(&errors)));
        }
        Ok(Requirement { key: key.into(), operator, values })
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How the label is looked at.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values it is compared with, sorted.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(CompactString::as_str)
    }

    /// Whether a label with this value, or its absence, satisfies the requirement.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|entry| entry == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|(have, than)| have > than),
            Operator::LessThan => self.compare(value).is_some_and(|(have, than)| have < than),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

fn validate(key: &str, operator: Operator, values: &[CompactString]) -> Vec<String> {
    let mut errors = Vec::new();
    let key_errors = names::qualified_name(key);
    if !key_errors.is_empty() {
        errors.push(format!("key: Invalid value: {key:?}: {}", key_errors.join("; ")));
    }
    let count_error = match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            Some("for 'in', 'notin' operators, values set can't be empty")
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            Some("exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            Some("values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
            Some("for 'Gt', 'Lt' operators, exactly one value is required")
        }
        _ => None,
    };
    if let Some(error) = count_error {
        let list: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        errors.push(format!("values: Invalid value: [{}]: {error}", list.join(",")));
    }
    if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
        for (index, value) in values.iter().enumerate() {
            if value.parse::<i64>().is_err() {
                errors.push(format!("values[{index}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"));
            }
        }
    }
    for (index, value) in values.iter().enumerate() {
        let value_errors = names::label_value(value);
        if !value_errors.is_empty() {
            errors.push(format!(
                "values[{index}][{key}]: Invalid value: {value:?}: {}",
                value_errors.join("; ")
            ));
        }
    }
    errors
}

/// Several errors as upstream joins them.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [error] => error.clone(),
        errors => format!("[{}]", errors.join(", ")),
    }
}

impl fmt::Display for Selector {
    /// The form for query strings, as `status.selector` of a scale holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = self.values.join(",");
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

#[cfg(test)]
mod tests;
