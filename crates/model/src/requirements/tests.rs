use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelector, NodeSelectorTerm};
use proptest::prelude::*;

use super::node_selector::*;
use super::*;

fn expression(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: (!values.is_empty()).then(|| values.iter().map(ToString::to_string).collect()),
    }
}

/// `key Operator value value …`
fn requirement(text: &str) -> Requirement {
    let words: Vec<&str> = text.split(' ').collect();
    let values: Vec<String> = words[2..].iter().map(ToString::to_string).collect();
    Requirement::parse(words[0], words[1], &values, None).unwrap()
}

fn requirements(texts: &[&str]) -> Requirements {
    texts.iter().map(|text| requirement(text)).collect()
}

#[test]
fn intersections_print_as_karpenter_prints_them() {
    for (left, right, expected) in [
        ("k Exists", "k Exists", "k Exists"),
        ("k In a b", "k In b c", "k In [b]"),
        ("k In a", "k In b", "k DoesNotExist"),
        ("k In a b", "k NotIn b", "k In [a]"),
        ("k NotIn a", "k NotIn b", "k NotIn [a b]"),
        ("k Exists", "k DoesNotExist", "k DoesNotExist"),
        ("k Gt 1", "k Exists", "k Exists >=2"),
        ("k Gt 1", "k Lt 5", "k Exists >=2 <=4"),
        ("k Gt 1", "k Lt 2", "k DoesNotExist"),
        ("k Gt 1", "k Lt 3", "k Exists >=2 <=2"),
        ("k Gte 2", "k Lte 2", "k Exists >=2 <=2"),
        ("k Gte 4", "k In 1 4 9 x", "k In [4 9]"),
        ("k NotIn 1 5 x", "k Gt 3", "k NotIn [5] >=4"),
        ("k Gt 1", "k Gt 7", "k Exists >=8"),
        ("k Lt 1", "k Lt 7", "k Exists <=0"),
        ("k In a b c d e f g", "k Exists", "k In [a b c d e and 2 others]"),
        ("k Gt 9223372036854775807", "k Exists", "k DoesNotExist"),
    ] {
        let (left, right) = (requirement(left), requirement(right));
        assert_eq!(left.intersection(&right).to_string(), expected);
        assert_eq!(right.intersection(&left).to_string(), expected);
    }
}

#[test]
fn the_larger_min_values_stays() {
    let at_least = |count| Requirement { min_values: count, ..requirement("k Exists") };
    assert_eq!(at_least(Some(2)).intersection(&at_least(Some(5))).min_values, Some(5));
    assert_eq!(at_least(None).intersection(&at_least(Some(2))).min_values, Some(2));
    assert_eq!(at_least(Some(3)).to_string(), "k Exists minValues 3");
    assert!(requirements(&["a Exists"]).iter().all(|r| r.min_values.is_none()));
}

#[test]
fn malformed_requirements_are_named() {
    for (operator, values, expected) in [
        ("Near", &["a"][..], "requirement on key \"k\" has unknown operator \"Near\""),
        ("Gt", &[], "requirement on key \"k\" with operator Gt needs exactly one integer"),
        ("Lte", &["a"], "requirement on key \"k\" with operator Lte needs exactly one integer"),
        (
            "Gte",
            &["1", "2"],
            "requirement on key \"k\" with operator Gte needs exactly one integer",
        ),
    ] {
        let expressions = [expression("k", operator, values)];
        let error = Requirements::from_node_selector_requirements(&expressions).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn compatibility_and_its_reasons_are_karpenters() {
    use Undefined::{Denied, WellKnownAllowed};
    let zone = labels::TOPOLOGY_ZONE;
    for (existing, incoming, undefined, expected) in [
        (&["team In a"][..], "team In a", Denied, ""),
        (&["team In a"], "team In b", Denied, "key team, team In [b] not in team In [a]"),
        (
            &["team In a"],
            "team DoesNotExist",
            Denied,
            "key team, team DoesNotExist not in team In [a]",
        ),
        (&["team NotIn a"], "team DoesNotExist", Denied, ""),
        (&["team DoesNotExist"], "team NotIn a", Denied, ""),
        (
            &["team DoesNotExist"],
            "team Exists",
            Denied,
            "key team, team Exists not in team DoesNotExist",
        ),
        (&[], "team In a", Denied, "label \"team\" does not have known values"),
        (&[], "team Exists", WellKnownAllowed, "label \"team\" does not have known values"),
        (&[], "team NotIn a", Denied, ""),
        (&[], "team DoesNotExist", Denied, ""),
        (&[], "topology.kubernetes.io/zone In z", WellKnownAllowed, ""),
        (&[], "failure-domain.beta.kubernetes.io/zone In z", WellKnownAllowed, ""),
        (
            &[],
            "topology.kubernetes.io/zone In z",
            Denied,
            "label \"topology.kubernetes.io/zone\" does not have known values",
        ),
        (
            &[],
            "example.com/zone In z",
            WellKnownAllowed,
            "label \"example.com/zone\" does not have known values (typo of \"topology.kubernetes.io/zone\"?)",
        ),
        (
            &[],
            "zone In z",
            WellKnownAllowed,
            "label \"zone\" does not have known values (typo of \"topology.k8s.aws/zone-id\"?)",
        ),
        (&[], "karpenter.k8s.aws/instance-category In c", WellKnownAllowed, ""),
        (
            &[],
            "eks.amazonaws.com/compute-type In auto",
            WellKnownAllowed,
            "label \"eks.amazonaws.com/compute-type\" does not have known values",
        ),
        (
            &["eks.amazonaws.com/nodeclass In default"],
            "eks.amazonaws.com/compute-type In auto",
            WellKnownAllowed,
            "",
        ),
        (
            &["eks.amazonaws.com/nodeclass In default"],
            "karpenter.k8s.aws/instance-category In c",
            WellKnownAllowed,
            "label \"karpenter.k8s.aws/instance-category\" does not have known values (typo of \"eks.amazonaws.com/instance-category\"?)",
        ),
        (
            &["example.com/team In a"],
            "team In a",
            Denied,
            "label \"team\" does not have known values (typo of \"example.com/team\"?)",
        ),
    ] {
        let (existing, incoming) = (requirements(existing), requirements(&[incoming]));
        let result = existing.compatible(&incoming, undefined);
        let text = match &result {
            Ok(()) => String::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        };
        assert_eq!(text, expected);
        assert_eq!(result.is_ok(), existing.is_compatible(&incoming, undefined));
    }
    assert!(requirements(&["failure-domain.beta.kubernetes.io/zone In z"]).contains_key(zone));
}

#[test]
fn a_pod_asks_by_selector_first_term_and_heaviest_preference() {
    let term = |text: &[NodeSelectorRequirement]| NodeSelectorTerm {
        match_expressions: Some(text.to_vec()),
        match_fields: None,
    };
    let preferred = |weight, key: &str| PreferredSchedulingTerm {
        weight,
        preference: term(&[expression(key, "Exists", &[])]),
    };
    let spec = PodSpec {
        node_selector: Some([("a".to_owned(), "1".to_owned())].into()),
        affinity: Some(Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                    node_selector_terms: vec![
                        term(&[expression("b", "In", &["2"])]),
                        term(&[expression("c", "In", &["3"])]),
                    ],
                }),
                preferred_during_scheduling_ignored_during_execution: Some(vec![
                    preferred(1, "light"),
                    preferred(9, "heavy"),
                    preferred(9, "second"),
                ]),
            }),
            ..Affinity::default()
        }),
        ..PodSpec::default()
    };
    let print = |preferences| Requirements::from_pod(&spec, preferences).unwrap().to_string();
    assert_eq!(print(Preferences::Ignored), "a In [1], b In [2]");
    assert_eq!(print(Preferences::Required), "a In [1], b In [2], heavy Exists");
}

#[test]
fn requirements_return_to_the_apis_form() {
    for (text, expected) in [
        ("k In b a", vec![expression("k", "In", &["a", "b"])]),
        ("k NotIn a", vec![expression("k", "NotIn", &["a"])]),
        ("k Exists", vec![expression("k", "Exists", &[])]),
        ("k DoesNotExist", vec![expression("k", "DoesNotExist", &[])]),
        ("k Gt 1", vec![expression("k", "Gte", &["2"])]),
        ("k Lt 1", vec![expression("k", "Lte", &["0"])]),
    ] {
        assert_eq!(requirement(text).to_node_selector_requirements(), expected);
    }
    let both = requirement("k Gt 1").intersection(&requirement("k Lt 9"));
    assert_eq!(
        both.to_node_selector_requirements(),
        [expression("k", "Gte", &["2"]), expression("k", "Lte", &["8"])]
    );
}

#[test]
fn some_possible_value_is_given() {
    let low = |range: std::ops::Range<i64>| range.start;
    let high = |range: std::ops::Range<i64>| range.end - 1;
    for (text, lowest, highest) in [
        ("k In b a", Some("a"), Some("a")),
        ("k DoesNotExist", None, None),
        ("k Exists", Some("0"), Some("9223372036854775806")),
        ("k Gt 4", Some("5"), Some("9223372036854775806")),
        ("k Lt 4", Some("0"), Some("3")),
        ("k Lt -5", Some("-6"), Some("-6")),
        ("k Gte 9223372036854775807", Some("9223372036854775807"), Some("9223372036854775807")),
        ("k Gt 9223372036854775807", None, None),
    ] {
        assert_eq!(requirement(text).any(low).as_deref(), lowest);
        assert_eq!(requirement(text).any(high).as_deref(), highest);
    }
    let all = requirements(&["a In x", "b In x y", "c Exists"]);
    assert_eq!(all.single_values().collect::<Vec<_>>(), [("a", "x")]);
}

#[test]
fn node_selector_terms_match_as_in_kube_scheduler() {
    let labels: BTreeMap<String, String> = [("zone", "a"), ("cpu", "8"), ("name", "x")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let term = |expressions: &[NodeSelectorRequirement], fields: &[NodeSelectorRequirement]| {
        NodeSelectorTerm {
            match_expressions: Some(expressions.to_vec()),
            match_fields: Some(fields.to_vec()),
        }
    };
    for (operator, key, values, expected) in [
        ("In", "zone", &["a", "b"][..], true),
        ("In", "zone", &["b"], false),
        ("In", "missing", &["b"], false),
        ("NotIn", "zone", &["a"], false),
        ("NotIn", "missing", &["a"], true),
        ("Exists", "zone", &[], true),
        ("Exists", "missing", &[], false),
        ("DoesNotExist", "missing", &[], true),
        ("Gt", "cpu", &["7"], true),
        ("Gt", "cpu", &["8"], false),
        ("Lt", "cpu", &["9"], true),
        ("Gt", "zone", &["7"], false),
        ("Gt", "missing", &["7"], false),
        ("Gt", "cpu", &["x"], false),
        ("NotIn", "zone", &[], false),
        ("Exists", "zone", &["a"], false),
        ("Gte", "cpu", &["8"], false),
    ] {
        let term = term(&[expression(key, operator, values)], &[]);
        assert_eq!(node_selector_term_matches(&term, "n", &labels), expected, "{operator} {key}");
    }
    for (operator, key, values, expected) in [
        ("In", "metadata.name", &["n"][..], true),
        ("In", "metadata.name", &["m"], false),
        ("NotIn", "metadata.name", &["m"], true),
        ("In", "metadata.name", &["m", "n"], false),
        ("NotIn", "metadata.uid", &["n"], false),
        ("Exists", "metadata.name", &[], false),
    ] {
        let term = term(&[], &[expression(key, operator, values)]);
        assert_eq!(node_selector_term_matches(&term, "n", &labels), expected, "{operator} {key}");
        assert_eq!(pinned_nodes(&term), (operator == "In").then(|| values.to_vec()));
    }
    let named = |names: &[&str]| expression("metadata.name", "In", names);
    let both = term(&[], &[named(&["l", "m"]), named(&["m", "n"])]);
    assert_eq!(pinned_nodes(&both), Some(vec!["m"]));
    let empty = NodeSelectorTerm::default();
    assert!(!node_selector_term_matches(&empty, "n", &labels));
    assert!(node_selector_term_is_valid(&empty));
    assert!(!node_selector_term_is_valid(&term(&[expression("a", "Gt", &["x"])], &[])));
    let matching = term(&[expression("zone", "Exists", &[])], &[]);
    let selector = |terms: &[&NodeSelectorTerm]| NodeSelector {
        node_selector_terms: terms.iter().map(|term| (*term).clone()).collect(),
    };
    assert!(!node_selector_matches(&selector(&[]), "n", &labels));
    assert!(node_selector_matches(&selector(&[&empty, &matching]), "n", &labels));
    let spec = |zone: &str, term: &NodeSelectorTerm| PodSpec {
        node_selector: Some([("zone".to_owned(), zone.to_owned())].into()),
        affinity: Some(Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(selector(&[term])),
                ..NodeAffinity::default()
            }),
            ..Affinity::default()
        }),
        ..PodSpec::default()
    };
    assert!(pod_matches_node(&PodSpec::default(), "n", &labels));
    assert!(pod_matches_node(&spec("a", &matching), "n", &labels));
    assert!(!pod_matches_node(&spec("b", &matching), "n", &labels));
    assert!(!pod_matches_node(&spec("a", &empty), "n", &labels));
}

/// Every value the brute force looks at: integers around the bounds, words, and two outside.
const UNIVERSE: [&str; 12] = ["-1", "0", "1", "2", "3", "4", "5", "6", "7", "a", "b", "c"];

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let values = proptest::collection::vec(proptest::sample::select(&UNIVERSE[..]), 1..5);
    (0..8usize, values, 0..7i64).prop_map(|(operator, values, bound)| {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        let bound = [bound.to_string()];
        let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte"];
        let values = match operator {
            0 | 1 => &values[..],
            2 | 3 => &[],
            _ => &bound[..],
        };
        Requirement::parse("k", operators[operator], values, None).unwrap()
    })
}

proptest! {
    #[test]
    fn intersection_is_that_of_sets(
        all in proptest::collection::vec(any_requirement(), 2..5),
    ) {
        let combined = all[1..].iter().fold(all[0].clone(), |left, right| left.intersection(right));
        for value in UNIVERSE {
            let expected = all.iter().all(|requirement| requirement.has(value));
            prop_assert_eq!(combined.has(value), expected, "{} in {}", value, combined);
        }
    }

    #[test]
    fn overlap_agrees_with_the_intersection(left in any_requirement(), right in any_requirement()) {
        let both = left.intersection(&right);
        prop_assert_eq!(&both, &right.intersection(&left));
        prop_assert_eq!(left.has_intersection(&right), !both.is_empty());
    }

    #[test]
    fn the_apis_form_means_the_same(left in any_requirement(), right in any_requirement()) {
        let both = left.intersection(&right);
        let api = both.to_node_selector_requirements();
        let again = Requirements::from_node_selector_requirements(&api).unwrap();
        prop_assert_eq!(again.get("k"), Some(&both));
    }

    #[test]
    fn adding_in_any_order_is_the_same(all in proptest::collection::vec(any_requirement(), 1..5)) {
        let forward: Requirements = all.iter().cloned().collect();
        let backward: Requirements = all.iter().rev().cloned().collect();
        prop_assert_eq!(forward, backward);
    }
}
