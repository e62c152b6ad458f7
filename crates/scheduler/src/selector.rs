//! Selectors over interned labels: node selector terms and label selectors, compiled once per pod
//! or budget and matched without allocation. What is well-formed is for
//! [`wharf_model::requirements::node_selector`] and [`wharf_model::selector`] to say; tests hold
//! that matching agrees with theirs.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use smallvec::SmallVec;
use wharf_model::requirements::node_selector::{node_selector_term_is_valid, pinned_nodes};
use wharf_model::selector;

use crate::node::NodeInfo;
use crate::symbols::{Symbol, Symbols, label};

/// One term of a node selector: every expression and every field requirement holds. A term with
/// neither matches nothing, and so does a malformed one, as in upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Term {
    expressions: Box<[Expression]>,
    names: Box<[NameRequirement]>,
    well_formed: bool,
    /// Node names that the term's `In` fields pin it to, if it has such a field.
    pinned: Option<Box<[Symbol]>>,
}

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expression {
    key: Symbol,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Operator {
    In(SmallVec<[Symbol; 2]>),
    NotIn(SmallVec<[Symbol; 2]>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NameRequirement {
    name: Symbol,
    equal: bool,
}

impl Term {
    /// Compiles a term.
    pub fn new(term: &NodeSelectorTerm, symbols: &mut Symbols) -> Self {
        let pinned = pinned_nodes(term);
        let pinned = pinned.map(|names| names.iter().map(|name| symbols.intern(name)).collect());
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if !node_selector_term_is_valid(term) {
            return Self { well_formed: false, pinned, ..Self::default() };
        }
        Self {
            well_formed: !(expressions.is_empty() && fields.is_empty()),
            expressions: expressions
                .iter()
                .filter_map(|requirement| Expression::of_node(requirement, symbols))
                .collect(),
            names: fields.iter().filter_map(|field| NameRequirement::new(field, symbols)).collect(),
            pinned,
        }
    }

    /// Whether a node satisfies the term.
    pub fn matches(&self, node: &NodeInfo, symbols: &Symbols) -> bool {
        self.well_formed
            && self.expressions.iter().all(|item| item.matches(&node.facts.labels, symbols))
            && self.names.iter().all(|item| (item.name == node.facts.symbol) == item.equal)
    }

    /// The values that the term allows a label to have, if one of its requirements lists them.
    pub(crate) fn values(&self, key: Symbol) -> Option<&[Symbol]> {
        self.expressions.iter().find_map(|item| match &item.operator {
            Operator::In(values) if item.key == key => Some(values.as_slice()),
            _ => None,
        })
    }

    /// The nodes that the term's `metadata.name In` fields leave over; `None` if it has none.
    pub fn pinned(&self) -> Option<&[Symbol]> {
        self.pinned.as_deref()
    }
}

impl NameRequirement {
    /// Compiles a field requirement of a well-formed term: it has one value.
    fn new(field: &NodeSelectorRequirement, symbols: &mut Symbols) -> Option<Self> {
        let name = field.values.as_ref()?.first()?;
        Some(Self { name: symbols.intern(name), equal: field.operator == "In" })
    }
}

impl Expression {
    /// Compiles a requirement of a well-formed term.
    fn of_node(requirement: &NodeSelectorRequirement, symbols: &mut Symbols) -> Option<Self> {
        let texts = requirement.values.as_deref().unwrap_or_default();
        let mut values = || texts.iter().map(|text| symbols.intern(text)).collect();
        let bound = || texts.first()?.parse().ok();
        let operator = match requirement.operator.as_str() {
            "In" => Operator::In(values()),
            "NotIn" => Operator::NotIn(values()),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt(bound()?),
            "Lt" => Operator::Lt(bound()?),
            _ => return None,
        };
        Some(Self { key: symbols.intern(&requirement.key), operator })
    }

    /// Compiles a requirement of a label selector.
    fn of_labels(requirement: &selector::Requirement, symbols: &mut Symbols) -> Option<Self> {
        use selector::Operator as Written;
        let mut values = || requirement.values().map(|text| symbols.intern(text)).collect();
        let bound = || requirement.values().next()?.parse().ok();
        let operator = match requirement.operator() {
            Written::In | Written::Equals | Written::DoubleEquals => Operator::In(values()),
            Written::NotIn | Written::NotEquals => Operator::NotIn(values()),
            Written::Exists => Operator::Exists,
            Written::DoesNotExist => Operator::DoesNotExist,
            Written::GreaterThan => Operator::Gt(bound()?),
            Written::LessThan => Operator::Lt(bound()?),
        };
        Some(Self { key: symbols.intern(requirement.key()), operator })
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    expressions: Option<Box<[Expression]>>,
}

impl Selector {
    /// Compiles a label selector; an absent one matches nothing.
    pub fn new(selector: Option<&LabelSelector>, symbols: &mut Symbols) -> Self {
        let selector = selector::Selector::from_api(selector).ok();
        let selector = selector.filter(|selector| !selector.is_nothing());
        let expressions = selector.and_then(|selector| {
            let all = selector.requirements().iter();
            all.map(|requirement| Expression::of_labels(requirement, symbols)).collect()
        });
        Self { expressions }
    }

    /// A selector of what has all of these labels; without any it selects everything.
    pub(crate) fn of_labels(pairs: impl IntoIterator<Item = (Symbol, Symbol)>) -> Self {
        let expression = |(key, value)| {
            let operator = Operator::In(SmallVec::from_elem(value, 1));
            Expression { key, operator }
        };
        Self { expressions: Some(pairs.into_iter().map(expression).collect()) }
    }

    /// The same selector with another's requirements besides. One that matches nothing has none to
    /// add, and adding to it leaves the other's: so upstream puts selectors together.
    pub(crate) fn and(self, other: Option<&Self>) -> Self {
        let Some(more) = other.and_then(|other| other.expressions.as_deref()) else { return self };
        let own = self.expressions.into_iter().flatten();
        Self { expressions: Some(own.chain(more.iter().cloned()).collect()) }
    }

    /// A selector that selects nothing.
    pub(crate) fn nothing() -> Self {
        Self { expressions: None }
    }

    /// A key and the values one of which all that is selected has, if there is such a
    /// requirement; of several that with the fewest values.
    pub(crate) fn pairs(&self) -> Option<(Symbol, &[Symbol])> {
        let expressions = self.expressions.as_deref().unwrap_or_default().iter();
        expressions
            .filter_map(|item| match &item.operator {
                Operator::In(values) => Some((item.key, values.as_slice())),
                _ => None,
            })
            .min_by_key(|(_, values)| values.len())
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
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use proptest::sample;
    use serde_json::{Value, json};
    use wharf_model::requirements::node_selector::node_selector_term_matches;

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

    fn any_expression() -> impl Strategy<Value = NodeSelectorRequirement> {
        let key = sample::select(vec!["a", "b", "metadata.name"]);
        let operator =
            sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", ""]);
        let values = vec(sample::select(vec!["1", "2", "03", "x", "n1"]), 0..3);
        (key, operator, values).prop_map(|(key, operator, values)| NodeSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: Some(values.into_iter().map(str::to_owned).collect()),
        })
    }

    fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
        btree_map("[ab]", "[123]|x", 0..3)
    }

    proptest! {
        #[test]
        fn compiled_terms_agree_with_the_plain_ones(
            expressions in vec(any_expression(), 0..3),
            fields in vec(any_expression(), 0..2),
            labels in any_labels(),
        ) {
            let term = NodeSelectorTerm {
                match_expressions: Some(expressions),
                match_fields: Some(fields),
            };
            let mut symbols = Symbols::default();
            let node = node("n1", json!({"labels": labels}), json!({}));
            let node = NodeInfo::new(&node, &mut symbols);
            prop_assert_eq!(
                Term::new(&term, &mut symbols).matches(&node, &symbols),
                node_selector_term_matches(&term, "n1", &labels)
            );
        }

        #[test]
        fn compiled_label_selectors_agree_with_the_plain_ones(
            match_labels in any_labels(),
            expressions in vec(any_expression(), 0..3),
            labels in any_labels(),
        ) {
            let expressions = expressions.into_iter().map(|item| LabelSelectorRequirement {
                key: item.key,
                operator: item.operator,
                values: item.values,
            });
            let selector = LabelSelector {
                match_labels: Some(match_labels),
                match_expressions: Some(expressions.collect()),
            };
            let mut symbols = Symbols::default();
            let compiled = Selector::new(Some(&selector), &mut symbols);
            let interned = symbols.intern_labels(&labels);
            let plain = selector::Selector::from_api(Some(&selector));
            prop_assert_eq!(
                compiled.matches(&interned, &symbols),
                plain.is_ok_and(|plain| plain.matches(&labels))
            );
        }
    }
}
