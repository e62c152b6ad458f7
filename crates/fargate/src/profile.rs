//! Fargate profiles: which one a pod gets, and what is wrong with one.
//!
//! A selector matches a pod whose namespace and labels are of its patterns; one matching selector is
//! enough. Of several profiles the one whose name sorts first is taken, unless the pod's label names
//! another. <https://docs.aws.amazon.com/eks/latest/userguide/fargate-profile.html>

use std::collections::BTreeMap;

use wharf_model::fargate::{FargateProfile, FargateProfileSpec, FargateSelector};

use crate::pattern;

/// Selectors of one profile.
pub const SELECTORS_MAX: usize = 5;
/// Pairs of labels in one selector.
pub const LABELS_MAX: usize = 5;
/// Profiles of one cluster.
pub const PROFILES_MAX: usize = 10;
/// A profile's name is the value of a label of its pods.
pub const NAME_LEN_MAX: usize = 63;

/// A pod as selectors see it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

/// The profile of a pod among those that match it: the one whose name sorts first.
pub fn choose<'p>(
    profiles: impl IntoIterator<Item = &'p FargateProfile>,
    pod: Candidate<'_>,
) -> Option<&'p FargateProfile> {
    profiles
        .into_iter()
        .filter(|profile| matches(&profile.spec, pod))
        .min_by(|one, other| one.spec.name.cmp(&other.spec.name))
}

/// Whether any selector of a profile matches a pod.
pub fn matches(profile: &FargateProfileSpec, pod: Candidate<'_>) -> bool {
    profile.selectors.iter().any(|selector| selector_matches(selector, pod))
}

/// Whether a selector matches a pod: its namespace, and for every pair of the selector some label.
pub fn selector_matches(selector: &FargateSelector, pod: Candidate<'_>) -> bool {
    pattern::matches(&selector.namespace, pod.namespace)
        && selector.labels.iter().all(|(key, value)| {
            pod.labels.into_iter().flatten().any(|(pod_key, pod_value)| {
                pattern::matches(key, pod_key) && pattern::matches(value, pod_value)
            })
        })
}

/// A subnet as profiles see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubnetKind {
    /// Without a route to an internet gateway.
    Private,
    /// With one.
    Public,
}

/// One thing that is wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct Problem {
    /// The field, `spec.selectors[1].namespace`.
    pub field: String,
    /// What is wrong with it, and what is allowed.
    pub what: String,
}

/// What is wrong with a profile. `subnet` tells of the cluster's subnets by id.
pub fn problems(
    spec: &FargateProfileSpec,
    subnet: &dyn Fn(&str) -> Option<SubnetKind>,
) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut problem = |field: String, what: String| found.push(Problem { field, what });
    if let Some(what) = name_problem(&spec.name) {
        problem("spec.name".to_owned(), what);
    }
    if let Some(arn) = &spec.pod_execution_role_arn
        && let Some(what) = role_problem(arn)
    {
        problem("spec.podExecutionRoleARN".to_owned(), what);
    }
    let count = spec.selectors.len();
    if count == 0 || count > SELECTORS_MAX {
        let what = format!("a profile has 1 to {SELECTORS_MAX} selectors, this one has {count}");
        problem("spec.selectors".to_owned(), what);
    }
    for (index, selector) in spec.selectors.iter().enumerate() {
        let path = format!("spec.selectors[{index}]");
        if let Some(before) = spec.selectors[..index].iter().position(|other| other == selector) {
            problem(path.clone(), format!("is the same as selectors[{before}]"));
        }
        for (field, what) in selector_problems(selector) {
            problem(format!("{path}.{field}"), what);
        }
    }
    for (index, id) in spec.subnets.iter().enumerate() {
        let path = format!("spec.subnets[{index}]");
        if spec.subnets[..index].contains(id) {
            problem(path.clone(), format!("{id} is named twice"));
        }
        match subnet(id) {
            Some(SubnetKind::Private) => {}
            Some(SubnetKind::Public) => {
                problem(
                    path,
                    format!("Subnet {id} provided in Fargate Profile is not a private subnet"),
                );
            }
            None => problem(path, format!("The subnet ID '{id}' does not exist")),
        }
    }
    found
}

/// What is wrong with a change of a profile: all but its tags is fixed.
pub fn change_problems(new: &FargateProfileSpec, old: &FargateProfileSpec) -> Vec<Problem> {
    let comparable = FargateProfileSpec { tags: new.tags.clone(), ..old.clone() };
    if *new == comparable {
        return Vec::new();
    }
    let fields: [(&str, bool); 6] = [
        ("clientRequestToken", new.client_request_token == old.client_request_token),
        ("clusterName", new.cluster_name == old.cluster_name),
        ("name", new.name == old.name),
        ("podExecutionRoleARN", new.pod_execution_role_arn == old.pod_execution_role_arn),
        ("selectors", new.selectors == old.selectors),
        ("subnets", new.subnets == old.subnets),
    ];
    let changed = fields.into_iter().filter(|(_, same)| !same);
    changed
        .map(|(field, _)| Problem {
            field: format!("spec.{field}"),
            what: "a Fargate profile cannot be changed; create another and delete this one"
                .to_owned(),
        })
        .collect()
}

fn name_problem(name: &str) -> Option<String> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() {
        return Some("a profile has a name".to_owned());
    }
    if name.len() > NAME_LEN_MAX {
        return Some(format!("{name:?} has more than {NAME_LEN_MAX} characters"));
    }
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let ends = alphanumeric(name.chars().next()) && alphanumeric(name.chars().next_back());
    if !ends || !name.chars().all(of_name) {
        return Some(format!(
            "{name:?} is no name of a profile: letters, digits, '-' and '_', a letter or digit at both ends"
        ));
    }
    name.starts_with("eks-")
        .then(|| format!("{name:?} begins with eks-, which AWS keeps to itself"))
}

/// EKS compares the role with what the node's identity says, which holds no path.
fn role_problem(arn: &str) -> Option<String> {
    let role = arn.splitn(6, ':').nth(5).filter(|_| arn.starts_with("arn:"));
    match role.and_then(|role| role.strip_prefix("role/")) {
        None | Some("") => Some(format!("{arn:?} is no role: arn:aws:iam::111122223333:role/NAME")),
        Some(name) if name.contains('/') => {
            Some(format!("{arn:?} holds a path; the role's ARN must have none"))
        }
        Some(_) => None,
    }
}

fn selector_problems(selector: &FargateSelector) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let wild = |c: char| matches!(c, '*' | '?');
    let namespace = &selector.namespace;
    if namespace.is_empty() {
        found.push(("namespace".to_owned(), "a selector has a namespace".to_owned()));
    } else if !namespace
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || wild(c))
    {
        let what = format!(
            "{namespace:?} can match no namespace: lower case letters, digits, '-', and the wildcards * and ?"
        );
        found.push(("namespace".to_owned(), what));
    }
    let count = selector.labels.len();
    if count > LABELS_MAX {
        let what = format!("a selector has at most {LABELS_MAX} labels, this one has {count}");
        found.push(("labels".to_owned(), what));
    }
    let of_value = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || wild(c);
    for (key, value) in &selector.labels {
        if key.is_empty() || !key.chars().all(|c| of_value(c) || c == '/') {
            found.push(("labels".to_owned(), format!("{key:?} can match no label's key")));
        }
        if !value.chars().all(of_value) {
            found.push((format!("labels[{key}]"), format!("{value:?} can match no label's value")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn spec(name: &str, selectors: Value) -> FargateProfileSpec {
        serde_json::from_value(json!({"name": name, "selectors": selectors})).expect("a valid spec")
    }

    fn profile(name: &str, selectors: Value) -> FargateProfile {
        FargateProfile { spec: spec(name, selectors), ..FargateProfile::default() }
    }

    fn chosen(profiles: &[FargateProfile], namespace: &str, labels: &[(&str, &str)]) -> String {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let pod = Candidate { namespace, labels: Some(&labels) };
        choose(profiles, pod).map_or("none".to_owned(), |profile| profile.spec.name.clone())
    }

    #[test]
    fn a_pod_gets_the_profile_that_sorts_first_of_those_that_match() {
        let profiles = [
            profile("study_wildcard", json!([{"namespace": "study-*"}])),
            profile("kube-system", json!([{"namespace": "kube-system"}])),
            profile(
                "a-web",
                json!([
                    {"namespace": "study-*", "labels": {"tier": "we?", "team": "*"}},
                    {"namespace": "shop"},
                ]),
            ),
            profile("wild-keys", json!([{"namespace": "keys", "labels": {"app*": "v?"}}])),
        ];
        for (namespace, labels, expected) in [
            ("study-aews", &[][..], "study_wildcard"),
            ("study-aews", &[("tier", "web")], "study_wildcard"),
            ("study-aews", &[("tier", "web"), ("team", "a")], "a-web"),
            ("study", &[], "none"),
            ("kube-system", &[("k8s-app", "kube-dns")], "kube-system"),
            ("shop", &[], "a-web"),
            ("default", &[], "none"),
            ("keys", &[("app.kubernetes.io/name", "v1")], "wild-keys"),
            ("keys", &[("name", "v1")], "none"),
            ("keys", &[("app", "v12"), ("other", "v1")], "none"),
        ] {
            assert_eq!(chosen(&profiles, namespace, labels), expected, "{namespace} {labels:?}");
        }
        assert!(choose(&[], Candidate { namespace: "default", labels: None }).is_none());
    }

    fn told(spec: &FargateProfileSpec) -> Vec<String> {
        let subnet = |id: &str| match id {
            "subnet-private" => Some(SubnetKind::Private),
            "subnet-public" => Some(SubnetKind::Public),
            _ => None,
        };
        problems(spec, &subnet).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_profiles_have_no_problems() {
        let mut good = spec(
            "study_wildcard",
            json!([
                {"namespace": "study-*"},
                {"namespace": "study-*", "labels": {"a": "*", "b/c": "?", "d": "", "e": "v", "f": "v"}},
                {"namespace": "c"}, {"namespace": "d"}, {"namespace": "e"},
            ]),
        );
        good.subnets = vec!["subnet-private".to_owned()];
        good.pod_execution_role_arn = Some("arn:aws:iam::111122223333:role/study".to_owned());
        assert_eq!(told(&good), Vec::<String>::new());
    }

    #[test]
    fn problems_are_told_with_the_field() {
        let five_and_one: Vec<Value> =
            (0..6).map(|n| json!({"namespace": format!("n{n}")})).collect();
        let six_labels = json!({"a": "1", "b": "1", "c": "1", "d": "1", "e": "1", "f": "1"});
        let one = json!([{"namespace": "a"}]);
        let long = "n".repeat(64);
        let cases = [
            ("", one.clone(), "spec.name: a profile has a name"),
            (
                "a b",
                one.clone(),
                "spec.name: \"a b\" is no name of a profile: letters, digits, '-' and '_', a letter or digit at both ends",
            ),
            (
                "a_",
                one.clone(),
                "spec.name: \"a_\" is no name of a profile: letters, digits, '-' and '_', a letter or digit at both ends",
            ),
            (
                "eks-mine",
                one.clone(),
                "spec.name: \"eks-mine\" begins with eks-, which AWS keeps to itself",
            ),
            (&long, one, &format!("spec.name: {long:?} has more than 63 characters")),
            ("p", json!([]), "spec.selectors: a profile has 1 to 5 selectors, this one has 0"),
            (
                "p",
                json!(five_and_one),
                "spec.selectors: a profile has 1 to 5 selectors, this one has 6",
            ),
            (
                "p",
                json!([{"namespace": "a"}, {"namespace": "a"}]),
                "spec.selectors[1]: is the same as selectors[0]",
            ),
            (
                "p",
                json!([{"labels": {"a": "b"}}]),
                "spec.selectors[0].namespace: a selector has a namespace",
            ),
            (
                "p",
                json!([{"namespace": "Prod"}]),
                "spec.selectors[0].namespace: \"Prod\" can match no namespace: lower case letters, digits, '-', and the wildcards * and ?",
            ),
            (
                "p",
                json!([{"namespace": "a", "labels": six_labels}]),
                "spec.selectors[0].labels: a selector has at most 5 labels, this one has 6",
            ),
            (
                "p",
                json!([{"namespace": "a", "labels": {"a": "b c"}}]),
                "spec.selectors[0].labels[a]: \"b c\" can match no label's value",
            ),
            (
                "p",
                json!([{"namespace": "a", "labels": {"": "b"}}]),
                "spec.selectors[0].labels: \"\" can match no label's key",
            ),
        ];
        for (name, selectors, expected) in cases {
            assert_eq!(told(&spec(name, selectors)), [expected]);
        }
    }

    #[test]
    fn subnets_and_roles_are_checked() {
        let mut spec = spec("p", json!([{"namespace": "a"}]));
        for (subnets, expected) in [
            (vec!["subnet-private"], None),
            (
                vec!["subnet-public"],
                Some(
                    "spec.subnets[0]: Subnet subnet-public provided in Fargate Profile is not a private subnet",
                ),
            ),
            (vec!["subnet-x"], Some("spec.subnets[0]: The subnet ID 'subnet-x' does not exist")),
            (
                vec!["subnet-private", "subnet-private"],
                Some("spec.subnets[1]: subnet-private is named twice"),
            ),
        ] {
            spec.subnets = subnets.into_iter().map(str::to_owned).collect();
            assert_eq!(told(&spec).first().map(String::as_str), expected);
        }
        spec.subnets.clear();
        for (arn, expected) in [
            (
                "arn:aws:iam::1:role/path/r",
                "spec.podExecutionRoleARN: \"arn:aws:iam::1:role/path/r\" holds a path; the role's ARN must have none",
            ),
            (
                "fargate",
                "spec.podExecutionRoleARN: \"fargate\" is no role: arn:aws:iam::111122223333:role/NAME",
            ),
            (
                "arn:aws:iam::1:user/u",
                "spec.podExecutionRoleARN: \"arn:aws:iam::1:user/u\" is no role: arn:aws:iam::111122223333:role/NAME",
            ),
        ] {
            spec.pod_execution_role_arn = Some(arn.to_owned());
            assert_eq!(told(&spec), [expected]);
        }
    }

    #[test]
    fn only_tags_may_change() {
        let old = spec("p", json!([{"namespace": "a"}]));
        let mut new = old.clone();
        new.tags.insert("team".to_owned(), "a".to_owned());
        assert_eq!(change_problems(&new, &old), []);
        new.selectors[0].namespace = "b".to_owned();
        let told: Vec<String> =
            change_problems(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "spec.selectors: a Fargate profile cannot be changed; create another and delete this one"
            ]
        );
    }

    proptest! {
        #[test]
        fn the_choice_matches_and_none_before_it_does(
            names in proptest::collection::btree_set("[a-c]{1,2}", 1..6),
            namespaces in proptest::collection::vec("[ab*?]{1,3}", 6),
            namespace in "[ab]{1,3}",
        ) {
            let profiles: Vec<FargateProfile> = names.iter().zip(&namespaces)
                .map(|(name, pattern)| profile(name, json!([{"namespace": pattern}])))
                .collect();
            let pod = Candidate { namespace: &namespace, labels: None };
            let chosen = choose(profiles.iter().rev(), pod);
            let first = profiles.iter().find(|profile| matches(&profile.spec, pod));
            prop_assert_eq!(chosen, first);
        }
    }
}
