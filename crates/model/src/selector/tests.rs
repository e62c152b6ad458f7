use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use proptest::prelude::*;

use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn a_selector_matches_labels() {
    let pod = labels("app=web,tier=front,rank=7,empty=");
    for (text, expected) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app!=web", false),
        ("app!=db", true),
        ("missing!=db", true),
        ("app in (web,db)", true),
        ("app in (db)", false),
        ("app notin (web)", false),
        ("missing notin (web)", true),
        ("missing in (web)", false),
        ("app", true),
        ("!app", false),
        ("missing", false),
        ("!missing", true),
        ("rank>6", true),
        ("rank>7", false),
        ("rank<8", true),
        ("app<8", false),
        ("missing<8", false),
        ("app=web,tier=back", false),
        (" app = web , tier in ( front , back ) ", true),
        ("empty=", true),
        ("empty in ()", true),
        ("empty", true),
        ("app in (,web)", true),
        ("in=1", false),
        ("app=in", false),
    ] {
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.matches(&pod), expected, "{text}");
        let slice: Vec<(&str, &str)> = pod.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(selector.matches(&slice[..]), expected, "{text}");
        let printed = selector.to_string();
        assert_eq!(Selector::parse(&printed).unwrap(), selector, "{printed}");
    }
}

#[test]
fn a_selector_prints_sorted_and_plain() {
    for (text, expected) in [
        ("b=1,a", "a,b=1"),
        ("x in (c,a,b)", "x in (a,b,c)"),
        ("x notin (a,,a)", "x notin (,a)"),
        ("x in (),y", "x in (),y"),
        ("!z,a==b", "a==b,!z"),
        ("x>1,y<2", "x>1,y<2"),
    ] {
        assert_eq!(Selector::parse(text).unwrap().to_string(), expected);
    }
}

#[test]
fn a_wrong_selector_is_refused_in_the_api_servers_words() {
    let operators = "in, notin, =, ==, !=, gt, lt";
    for (text, expected) in [
        ("=", "found '=', expected: !, identifier, or 'end of string'".to_owned()),
        (",", "found ',', expected: !, identifier, or 'end of string'".to_owned()),
        ("a,", "found '', expected: identifier after ','".to_owned()),
        ("a,,b", "found ',', expected: identifier after ','".to_owned()),
        ("!a=b", "found '=', expected: ',' or 'end of string'".to_owned()),
        ("a=b c", "found 'c', expected: ',' or 'end of string'".to_owned()),
        ("!", "unable to parse requirement: found '', expected: identifier".to_owned()),
        ("a b", format!("unable to parse requirement: found 'b', expected: {operators}")),
        ("a in b", "unable to parse requirement: found 'b' expected: '('".to_owned()),
        ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier".to_owned()),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'".to_owned()),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'".to_owned()),
        ("a in (b,=)", "unable to parse requirement: found '=', expected: ',', or identifier".to_owned()),
        ("a==!", "unable to parse requirement: found '!', expected: identifier".to_owned()),
        ("a>x", "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer".to_owned()),
        (
            "-a=b",
            "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')".to_owned(),
        ),
        (
            "a=b_",
            "unable to parse requirement: values[0][a]: Invalid value: \"b_\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".to_owned(),
        ),
    ] {
        let error = Selector::parse(text).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn the_structured_form_matches_nothing_everything_or_its_terms() {
    let pod = labels("app=web");
    assert!(!Selector::from_api(None).unwrap().matches(&pod));
    let empty = LabelSelector::default();
    assert!(Selector::from_api(Some(&empty)).unwrap().is_everything());
    let check = |operator: &str, values: &[&str]| {
        Selector::from_api(Some(&LabelSelector {
            match_labels: Some(labels("app=web")),
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "tier".to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(ToString::to_string).collect()),
            }]),
        }))
    };
    for (operator, values, expected) in [
        ("In", &["front"][..], "app=web,tier in (front)"),
        ("NotIn", &["b", "a"], "app=web,tier notin (a,b)"),
        ("Exists", &[], "app=web,tier"),
        ("DoesNotExist", &[], "app=web,!tier"),
    ] {
        let selector = check(operator, values).unwrap();
        assert_eq!(selector.to_string(), expected);
        assert_eq!(selector.matches(&pod), operator.starts_with("DoesNot") || operator == "NotIn");
    }
    for (operator, values, expected) in [
        ("Gt", &["1"][..], "\"Gt\" is not a valid label selector operator"),
        (
            "In",
            &[],
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
        ),
        (
            "Exists",
            &["a"],
            "values: Invalid value: [\"a\"]: values set must be empty for exists and does not exist",
        ),
    ] {
        assert_eq!(check(operator, values).unwrap_err().to_string(), expected);
    }
    assert!(Selector::from_map(&labels("app=web")).matches(&pod));
    let mut nothing = Selector::NOTHING;
    nothing.and(Requirement::new("app", Operator::Exists, [""; 0]).unwrap());
    assert!(!nothing.matches(&pod));
}

#[test]
fn field_selectors_compare_fields() {
    let field = |path: &str| match path {
        "metadata.name" => Some("web"),
        "status.phase" => Some("Running"),
        _ => None,
    };
    for (text, expected, printed) in [
        ("", true, ""),
        ("metadata.name=web", true, "metadata.name=web"),
        ("metadata.name==web", true, "metadata.name=web"),
        ("metadata.name!=web", false, "metadata.name!=web"),
        ("status.phase!=Failed,metadata.name=web", true, "metadata.name=web,status.phase!=Failed"),
        ("spec.nodeName=", true, "spec.nodeName="),
        ("metadata.name=a\\,b\\=c\\\\", false, "metadata.name=a\\,b\\=c\\\\"),
        (",,", true, ""),
    ] {
        let selector = FieldSelector::parse(text).unwrap();
        assert_eq!(selector.matches(field), expected, "{text}");
        assert_eq!(selector.to_string(), printed);
    }
    for (text, expected) in [
        ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("a=b\\c", "invalid field selector: invalid escape sequence: \\c"),
        ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), expected);
    }
    let selector = FieldSelector::parse("metadata.name=web,status.phase!=Failed").unwrap();
    assert_eq!(selector.exact_value("metadata.name"), Some("web"));
    assert_eq!(selector.exact_value("status.phase"), None);
}

proptest! {
    #[test]
    fn parsers_never_panic(text in "\\PC{0,24}|[ab=!(),<> \\\\in\u{0}]{0,40}") {
        if let Ok(selector) = Selector::parse(&text) {
            let printed = selector.to_string();
            prop_assert_eq!(Selector::parse(&printed).unwrap(), selector);
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            let printed = selector.to_string();
            prop_assert_eq!(FieldSelector::parse(&printed).unwrap(), selector);
        }
    }
}
