//! The rules that upstream's definitions state beside the schema, as far as two kinds share them,
//! and the frame in which a rule is evaluated.
//!
//! Upstream writes them in CEL. Here they are plain code with CEL's manners: a rule that cannot be
//! evaluated (a key that is not there, a text that is no number) is reported as such, unless another
//! item of the same list already breaks it.

use serde_json::Value;

use super::{FieldError, FieldErrorKind};
use crate::custom::structural::type_name;
use crate::labels;

/// The errors found so far.
pub(crate) struct Rules(pub(crate) Vec<FieldError>);

/// A value at a path, with what it was before the update.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub(crate) path: String,
    pub(crate) value: &'a Value,
    pub(crate) old: Option<&'a Value>,
}

/// What the evaluation of a rule gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Holds,
    Broken,
    Failed(&'static str),
}

impl From<bool> for Outcome {
    fn from(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::Broken }
    }
}

impl Outcome {
    /// CEL's `all`: one broken item breaks it, whatever the others do.
    pub(crate) fn all(items: impl Iterator<Item = Self>) -> Self {
        let mut result = Self::Holds;
        for item in items {
            match item {
                Self::Broken => return Self::Broken,
                Self::Failed(_) if result == Self::Holds => result = item,
                _ => {}
            }
        }
        result
    }
}

impl<'a> At<'a> {
    /// The object as a whole.
    pub(crate) fn root(value: &'a Value, old: Option<&'a Value>) -> Self {
        Self { path: String::new(), value, old }
    }

    /// A field, if it is set.
    pub(crate) fn field(&self, name: &str) -> Option<Self> {
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let value = self.value.get(name)?;
        Some(Self { path, value, old: self.old.and_then(|old| old.get(name)) })
    }

    /// A field of a field and so on, if all are set.
    pub(crate) fn at(&self, names: &[&str]) -> Option<Self> {
        names.iter().try_fold(self.clone(), |at, name| at.field(name))
    }

    /// The items of a list. They have no old values: upstream cannot tell which was which.
    pub(crate) fn items(&self) -> impl Iterator<Item = Self> + '_ {
        let list = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().enumerate().map(|(index, value)| Self {
            path: format!("{}[{index}]", self.path),
            value,
            old: None,
        })
    }

    /// Whether an update left the value as it was.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.old == Some(self.value)
    }

    fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }
}

impl Rules {
    /// Applies one rule to a value.
    pub(crate) fn check(&mut self, at: &At<'_>, outcome: impl Into<Outcome>, message: &str) {
        if at.is_unchanged() {
            return;
        }
        let (bad_value, detail) = match outcome.into() {
            Outcome::Holds => return,
            // The server shows the value of a scalar and leaves out lists and objects.
            Outcome::Broken if at.value.is_object() || at.value.is_array() => {
                (None, message.to_owned())
            }
            Outcome::Broken => (Some(at.value.clone()), message.to_owned()),
            Outcome::Failed(error) => (
                Some(Value::from(type_name(at.value))),
                format!("{error} evaluating rule: {message}"),
            ),
        };
        self.push(at, bad_value, detail);
    }

    /// Applies a rule about old and new; it is not evaluated when there is no old value.
    pub(crate) fn check_transition(
        &mut self,
        at: &At<'_>,
        holds: impl FnOnce(&Value, &Value) -> bool,
        message: &str,
    ) {
        if at.old.is_some_and(|old| !holds(at.value, old)) {
            self.push(at, None, message.to_owned());
        }
    }

    fn push(&mut self, at: &At<'_>, bad_value: Option<Value>, detail: String) {
        let kind = FieldErrorKind::Invalid;
        self.0.push(FieldError { field: at.path.clone(), kind, bad_value, detail });
    }

    /// The three fields of a node class reference must say something.
    pub(crate) fn node_class_ref(&mut self, reference: &At<'_>) {
        for name in ["group", "kind", "name"] {
            if let Some(field) = reference.field(name) {
                self.check(&field, !field.text().is_empty(), &format!("{name} may not be empty"));
            }
        }
    }

    /// The rules of a list of requirements. A pool may not name itself, its claims do.
    pub(crate) fn requirements(&mut self, list: &At<'_>, in_pool: bool) {
        if list.is_unchanged() {
            return;
        }
        let all = |rule: fn(&Value) -> Outcome| Outcome::all(list.items().map(|at| rule(at.value)));
        self.check(
            list,
            all(in_has_values),
            "requirements with operator 'In' must have a value defined",
        );
        self.check(
            list,
            all(bound_is_one_number),
            "requirements operator 'Gt', 'Lt', 'Gte', or 'Lte' must have a single positive integer \
             value",
        );
        self.check(
            list,
            all(has_min_values),
            "requirements with 'minValues' must have at least that many values specified in the \
             'values' field",
        );
        for item in list.items() {
            if let Some(key) = item.field("key") {
                for (is_allowed, message) in label_rules(in_pool) {
                    self.check(&key, is_allowed(key.text()), message);
                }
            }
        }
    }

    /// The rules of a pool's template labels.
    pub(crate) fn labels(&mut self, labels: &At<'_>) {
        let Some(map) = labels.value.as_object() else { return };
        for (is_allowed, message) in label_rules(true) {
            self.check(labels, map.keys().all(|key| is_allowed(key)), message);
        }
    }
}

fn operator(requirement: &Value) -> &str {
    requirement.get("operator").and_then(Value::as_str).unwrap_or_default()
}

fn values(requirement: &Value) -> Option<&Vec<Value>> {
    requirement.get("values").and_then(Value::as_array)
}

const NO_VALUES: Outcome = Outcome::Failed("no such key: values");

fn in_has_values(requirement: &Value) -> Outcome {
    match (operator(requirement), values(requirement)) {
        ("In", None) => NO_VALUES,
        ("In", Some(values)) => (!values.is_empty()).into(),
        _ => Outcome::Holds,
    }
}

fn bound_is_one_number(requirement: &Value) -> Outcome {
    if !matches!(operator(requirement), "Gt" | "Lt" | "Gte" | "Lte") {
        return Outcome::Holds;
    }
    let Some(values) = values(requirement) else { return NO_VALUES };
    match values.as_slice() {
        [value] => value
            .as_str()
            .and_then(|text| text.parse::<i64>().ok())
            .map_or(Outcome::Failed("type conversion error from 'string' to 'int'"), |number| {
                (number >= 0).into()
            }),
        _ => Outcome::Broken,
    }
}

fn has_min_values(requirement: &Value) -> Outcome {
    let min_values = requirement.get("minValues").and_then(Value::as_u64);
    match (operator(requirement), min_values) {
        ("In", Some(least)) => {
            values(requirement).map_or(NO_VALUES, |values| (values.len() as u64 >= least).into())
        }
        _ => Outcome::Holds,
    }
}

type LabelRule = (fn(&str) -> bool, &'static str);

/// Which label keys may be used, rule by rule in upstream's order.
fn label_rules(in_pool: bool) -> impl Iterator<Item = LabelRule> {
    const RULES: [LabelRule; 4] = [
        (
            |key| {
                matches!(key, labels::CAPACITY_TYPE | labels::NODEPOOL)
                    || !domain(key).ends_with("karpenter.sh")
            },
            "label domain \"karpenter.sh\" is restricted",
        ),
        (|key| key != labels::NODEPOOL, "label \"karpenter.sh/nodepool\" is restricted"),
        (|key| key != labels::HOSTNAME, "label \"kubernetes.io/hostname\" is restricted"),
        (
            |key| {
                key == labels::EC2NODECLASS
                    || labels::WELL_KNOWN_AWS.contains(&key)
                    || !domain(key).ends_with("karpenter.k8s.aws")
            },
            "label domain \"karpenter.k8s.aws\" is restricted",
        ),
    ];
    RULES
        .into_iter()
        .enumerate()
        .filter(move |(index, _)| in_pool || *index != 1)
        .map(|(_, rule)| rule)
}

/// What stands before the slash; the whole key where there is none.
fn domain(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}
