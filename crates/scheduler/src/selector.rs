//! Selectors over interned labels: node selector terms and label selectors, compiled once per pod
//! or budget and matched without allocation.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use smallvec::SmallVec;

use crate::node::NodeInfo;
use crate::symbols::{Symbol, Symbols, label};

/// The field a `matchFields` requirement may name.
const NAME_FIELD: &str = "metadata.name";

/// One term of a node selector: every expression and every field requirement holds. A term with
/// neither matches nothing, and so does a malformed one, as in upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    expressions: Box<[Expression]>,
    names: Box<[NameRequirement]>,
    well_formed: bool,
    /// Node names that the term's `In` fields pin it to, if it has such a field.
    pinned: Option<Box<[Symbol]>>,
}

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    key: Symbol,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(SmallVec<[Symbol; 2]>),
    NotIn(SmallVec<[Symbol; 2]>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NameRequirement {
    name: Symbol,
    equal: bool,
}

impl Term {
    /// Compiles a term.
    pub fn new(term: &NodeSelectorTerm, symbols: &mut Symbols) -> Self {
        let expressions: Vec<_> = term
            .match_expressions
            .iter()
            .flatten()
            .map(|requirement| Expression::of_node(requirement, symbols))
            .collect();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let names: Vec<_> = fields.iter().map(|field| name_requirement(field, symbols)).collect();
        Self {
            well_formed: expressions.iter().all(Option::is_some)
                && names.iter().all(Option::is_some)
                && !(expressions.is_empty() && names.is_empty()),
            expressions: expressions.into_iter().flatten().collect(),
            names: names.into_iter().flatten().collect(),
            pinned: pinned_names(fields, symbols),
        }
    }

    /// Whether a node satisfies the term.
    pub fn matches(&self, node: &NodeInfo, symbols: &Symbols) -> bool {
        self.well_formed
            && self.expressions.iter().all(|item| item.matches(&node.facts.labels, symbols))
            && self.names.iter().all(|item| (item.name == node.facts.symbol) == item.equal)
    }

    /// The nodes that the term's `metadata.name In` fields leave over; `None` if it has none.
    pub fn pinned(&self) -> Option<&[Symbol]> {
        self.pinned.as_deref()
    }
}

fn name_requirement(
    field: &NodeSelectorRequirement,
    symbols: &mut Symbols,
) -> Option<NameRequirement> {
    let [name] = field.values.as_deref().unwrap_or_default() else { return None };
    let equal = match field.operator.as_str() {
        "In" => true,
        "NotIn" => false,
        _ => return None,
    };
    (field.key == NAME_FIELD).then(|| NameRequirement { name: symbols.intern(name), equal })
}

fn pinned_names(
    fields: &[NodeSelectorRequirement],
    symbols: &mut Symbols,
) -> Option<Box<[Symbol]>> {
    let mut pinned: Option<Vec<Symbol>> = None;
    for field in fields {
        if field.key != NAME_FIELD || field.operator != "In" {
            continue;
        }
        let names: Vec<_> =
            field.values.iter().flatten().map(|name| symbols.intern(name)).collect();
        match &mut pinned {
            Some(left) => left.retain(|name| names.contains(name)),
            None => pinned = Some(names),
        }
    }
    pinned.map(Vec::into_boxed_slice)
}

impl Expression {
    fn of_node(requirement: &NodeSelectorRequirement, symbols: &mut Symbols) -> Option<Self> {
        Self::new(
            &requirement.key,
            &requirement.operator,
            requirement.values.as_deref().unwrap_or_default(),
            symbols,
        )
    }

    /// Compiles a requirement; `None` if it is malformed.
    fn new(key: &str, operator: &str, values: &[String], symbols: &mut Symbols) -> Option<Self> {
        let operator = match (operator, values) {
            ("In" | "NotIn", []) => return None,
            ("In", values) => Operator::In(values.iter().map(|v| symbols.intern(v)).collect()),
            ("NotIn", values) => {
                Operator::NotIn(values.iter().map(|v| symbols.intern(v)).collect())
            }
            ("Exists", []) => Operator::Exists,
            ("DoesNotExist", []) => Operator::DoesNotExist,
            ("Gt", [value]) => Operator::Gt(value.parse().ok()?),
            ("Lt", [value]) => Operator::Lt(value.parse().ok()?),
            _ => return None,
        };
        Some(Self { key: symbols.intern(key), operator })
    }

    fn matches(&self, labels: &[(Symbol, Symbol)], symbols: &Symbols) -> bool {
        let value = label(labels, self.key);
        let integer = || value.and_then(|value| symbols.integer(value));
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(&value)),
            Operator::NotIn(values) => !value.is_some_and(|value| values.contains(&value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt(bound) => integer().is_some_and(|value| value > *bound),
            Operator::Lt(bound) => integer().is_some_and(|value| value < *bound),
        }
    }
}

/// A label selector over interned labels. A malformed one matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    expressions: Option<Box<[Expression]>>,
}

impl Selector {
    /// Compiles a label selector; an absent one matches nothing.
    pub fn new(selector: Option<&LabelSelector>, symbols: &mut Symbols) -> Self {
        let Some(selector) = selector else { return Self { expressions: None } };
        let mut expressions = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            let values = std::slice::from_ref(value);
            expressions.push(Expression::new(key, "In", values, symbols));
        }
        for item in selector.match_expressions.iter().flatten() {
            let values = item.values.as_deref().unwrap_or_default();
            expressions.push(match item.operator.as_str() {
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {
                    Expression::new(&item.key, &item.operator, values, symbols)
                }
                _ => None,
            });
        }
        Self { expressions: expressions.into_iter().collect::<Option<Vec<_>>>().map(Into::into) }
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.expressions.as_deref().is_some_and(<[_]>::is_empty)
    }

    /// Whether it selects these labels.
    pub fn matches(&self, labels: &[(Symbol, Symbol)], symbols: &Symbols) -> bool {
        self.expressions
            .as_deref()
            .is_some_and(|list| list.iter().all(|item| item.matches(labels, symbols)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::node;

    fn matches(term: Value, labels: Value) -> bool {
        let mut symbols = Symbols::default();
        let node = NodeInfo::new(&node("n1", json!({"labels": labels}), json!({})), &mut symbols);
        let term = Term::new(&serde_json::from_value(term).unwrap(), &mut symbols);
        term.matches(&node, &symbols)
    }

    fn expression(operator: &str, values: Value) -> Value {
        json!({"matchExpressions": [{"key": "k", "operator": operator, "values": values}]})
    }

    #[test]
    fn operators_follow_the_rules() {
        for (operator, values, label, expected) in [
            ("In", json!(["a", "b"]), Some("b"), true),
            ("In", json!(["a"]), None, false),
            ("In", json!([]), Some("a"), false),
            ("NotIn", json!(["a"]), None, true),
            ("NotIn", json!(["a"]), Some("a"), false),
            ("Exists", json!([]), Some(""), true),
            ("Exists", json!(["a"]), Some("a"), false),
            ("DoesNotExist", json!([]), None, true),
            ("Gt", json!(["3"]), Some("4"), true),
            ("Gt", json!(["3"]), Some("03"), false),
            ("Gt", json!(["3"]), Some("gold"), false),
            ("Lt", json!(["3"]), Some("-1"), true),
            ("Lt", json!(["3"]), None, false),
            ("Lt", json!(["x"]), Some("1"), false),
            ("Near", json!(["x"]), Some("x"), false),
        ] {
            let labels = label.map_or(json!({}), |value| json!({"k": value}));
            let term = expression(operator, values.clone());
            assert_eq!(matches(term, labels), expected, "{operator} {values} {label:?}");
        }
    }

    #[test]
    fn fields_name_one_node_and_empty_terms_match_nothing() {
        let field = |operator: &str, values: Value| json!({"matchFields": [{"key": "metadata.name", "operator": operator, "values": values}]});
        assert!(matches(field("In", json!(["n1"])), json!({})));
        assert!(!matches(field("In", json!(["n1", "n2"])), json!({})), "exactly one value");
        assert!(matches(field("NotIn", json!(["n2"])), json!({})));
        assert!(!matches(json!({}), json!({})));
    }

    #[test]
    fn label_selectors_distinguish_absent_from_empty() {
        let mut symbols = Symbols::default();
        assert!(!Selector::new(None, &mut symbols).matches(&[], &symbols));
        let everything = Selector::new(Some(&LabelSelector::default()), &mut symbols);
        assert!(everything.matches(&[], &symbols) && everything.is_everything());
    }
}
