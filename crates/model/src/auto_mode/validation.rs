//! What EKS refuses of NodeClass and Cluster, and of NodePools on Auto Mode beside what Karpenter does.

use serde_json::Value;

use super::pools::BUILT_IN;
use super::schema::compiled;
use crate::custom::FieldError;
use crate::duration;
use crate::karpenter::NEVER;
use crate::karpenter::validation::rules::{At, Rules};

/// How long a node of Auto Mode may live, its drain included: 21 days.
pub const LIFETIME_MAX_HOURS: i64 = 504;
const NANOS_PER_HOUR: i64 = 3_600_000_000_000;

/// What is wrong with an object of Auto Mode's kinds; others have nothing.
pub fn validate(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(schema) = compiled(kind) else { return Vec::new() };
    let mut errors = schema.validate(new, old);
    if errors.iter().any(|error| error.kind.is_blocking()) {
        return errors;
    }
    let mut rules = Rules(Vec::new());
    if let Some(spec) = At::root(new, old).field("spec") {
        if kind == "NodeClass" {
            node_class(&mut rules, &spec);
        } else {
            cluster(&mut rules, &spec);
        }
    }
    errors.extend(rules.0);
    errors
}

/// Why nodes that live so long are not for Auto Mode. Texts that are no durations are another
/// rule's business.
pub fn lifetime_problem(expire_after: &str, grace_period: Option<&str>) -> Option<String> {
    let limit = LIFETIME_MAX_HOURS * NANOS_PER_HOUR;
    let life = match expire_after {
        NEVER => None,
        text => Some(duration::parse(text).ok()?),
    };
    let grace = grace_period.map_or(Some(0), |text| duration::parse(text).ok())?;
    let total = life.map(|life| life.saturating_add(grace));
    total.is_none_or(|total| total > limit).then(|| {
        let given = total.map_or_else(|| NEVER.to_owned(), duration::format);
        format!(
            "a node of EKS Auto Mode lives at most 21 days: expireAfter and terminationGracePeriod \
             together must be {LIFETIME_MAX_HOURS}h or less, not {given}"
        )
    })
}

fn node_class(rules: &mut Rules, spec: &At<'_>) {
    let has = |name: &str| spec.field(name).is_some();
    rules.check(
        spec,
        has("role") != has("instanceProfile"),
        "must specify exactly one of ['role', 'instanceProfile']",
    );
    for name in ["role", "instanceProfile"] {
        if let Some(field) = spec.field(name) {
            let is_empty = field.value.as_str() == Some("");
            rules.check(&field, !is_empty, &format!("{name} cannot be empty"));
        }
    }
    rules.check(
        spec,
        has("podSubnetSelectorTerms") == has("podSecurityGroupSelectorTerms"),
        "podSubnetSelectorTerms and podSecurityGroupSelectorTerms must be set together",
    );
    let lists: [(&str, &[&str]); 5] = [
        ("subnetSelectorTerms", &["tags", "id"]),
        ("podSubnetSelectorTerms", &["tags", "id"]),
        ("securityGroupSelectorTerms", &["tags", "id", "name"]),
        ("podSecurityGroupSelectorTerms", &["tags", "id", "name"]),
        ("capacityReservationSelectorTerms", &["tags", "id"]),
    ];
    for (name, fields) in lists {
        let Some(list) = spec.field(name).filter(|list| !list.is_unchanged()) else { continue };
        rules.check(&list, list.items().next().is_some(), &format!("{name} cannot be empty"));
        let any = |term: At<'_>| fields.iter().any(|field| term.field(field).is_some());
        let expected = fields.iter().map(|field| format!("'{field}'")).collect::<Vec<_>>();
        rules.check(
            &list,
            list.items().all(any),
            &format!("expected at least one, got none, [{}]", expected.join(", ")),
        );
        let alone = |term: At<'_>| {
            term.field("id").is_none()
                || (term.field("tags").is_none() && term.field("name").is_none())
        };
        rules.check(
            &list,
            list.items().all(alone),
            "'id' is mutually exclusive, cannot be set with a combination of other fields in a \
             selector term",
        );
    }
}

fn cluster(rules: &mut Rules, spec: &At<'_>) {
    let is_on =
        |path: &[&str]| spec.at(path).is_some_and(|enabled| enabled.value.as_bool() == Some(true));
    let compute = is_on(&["computeConfig", "enabled"]);
    let all = [
        compute,
        is_on(&["kubernetesNetworkConfig", "elasticLoadBalancing", "enabled"]),
        is_on(&["storageConfig", "blockStorage", "enabled"]),
    ];
    rules.check(
        spec,
        all == [true; 3] || all == [false; 3],
        "For EKS Auto Mode, please ensure that all required configs, including computeConfig, \
         kubernetesNetworkConfig, and blockStorage are all either fully enabled or fully disabled.",
    );
    let Some(config) = spec.field("computeConfig") else { return };
    let pools = config.field("nodePools");
    let has_pools = pools.as_ref().is_some_and(|pools| pools.items().next().is_some());
    rules.check(
        &config,
        compute || !has_pools,
        "nodePools are of Auto Mode: computeConfig.enabled must be true",
    );
    rules.check(
        &config,
        has_pools == config.field("nodeRoleARN").is_some(),
        "nodePools and nodeRoleARN must be set together",
    );
    for pool in pools.iter().flat_map(At::items) {
        let known = pool.value.as_str().is_some_and(|name| BUILT_IN.contains(&name));
        rules.check(&pool, known, &format!("must be one of {}", BUILT_IN.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn class(spec: Value) -> Vec<String> {
        let mut class = json!({"apiVersion": "eks.amazonaws.com/v1", "kind": "NodeClass",
            "metadata": {"name": "c"}, "spec": {
                "role": "r", "subnetSelectorTerms": [{"id": "subnet-1"}],
                "securityGroupSelectorTerms": [{"tags": {"a": "b"}}]}});
        for (key, value) in spec.as_object().expect("a map") {
            match value {
                Value::Null => class["spec"].as_object_mut().expect("a map").remove(key),
                value => {
                    class["spec"].as_object_mut().expect("a map").insert(key.clone(), value.clone())
                }
            };
        }
        super::super::schema::apply_defaults("NodeClass", &mut class);
        validate("NodeClass", &class, None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_node_class_is_refused_for_what_is_wrong_with_it() {
        let none: Vec<String> = Vec::new();
        assert_eq!(class(json!({})), none);
        assert_eq!(
            class(json!({"ephemeralStorage": {"size": "59000Gi"}, "networkPolicy": "DefaultDeny"})),
            none
        );
        let table = [
            (
                json!({"instanceProfile": "p"}),
                "spec: Invalid value: must specify exactly one of ['role', 'instanceProfile']",
            ),
            (
                json!({"role": null}),
                "spec: Invalid value: must specify exactly one of ['role', 'instanceProfile']",
            ),
            (json!({"subnetSelectorTerms": null}), "spec.subnetSelectorTerms: Required value"),
            (
                json!({"subnetSelectorTerms": []}),
                "spec.subnetSelectorTerms: Invalid value: subnetSelectorTerms cannot be empty",
            ),
            (
                json!({"securityGroupSelectorTerms": [{}]}),
                "spec.securityGroupSelectorTerms: Invalid value: expected at least one, got none, ['tags', 'id', 'name']",
            ),
            (
                json!({"subnetSelectorTerms": [{"id": "subnet-1", "tags": {"a": "b"}}]}),
                "spec.subnetSelectorTerms: Invalid value: 'id' is mutually exclusive, cannot be set with a combination of other fields in a selector term",
            ),
            (
                json!({"podSubnetSelectorTerms": [{"id": "subnet-1"}]}),
                "spec: Invalid value: podSubnetSelectorTerms and podSecurityGroupSelectorTerms must be set together",
            ),
            (
                json!({"ephemeralStorage": {"iops": 100}}),
                "spec.ephemeralStorage.iops: Invalid value: 100: spec.ephemeralStorage.iops in body should be greater than or equal to 3000",
            ),
            (
                json!({"snatPolicy": "Some"}),
                "spec.snatPolicy: Unsupported value: \"Some\": supported values: \"Random\", \"Disabled\"",
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(class(spec.clone()), [expected], "{spec}");
        }
        assert!(
            class(json!({"ephemeralStorage": {"size": "59001Gi"}}))[0].contains("should match")
        );
    }

    #[test]
    fn a_cluster_is_in_auto_mode_wholly_or_not_at_all() {
        let errors = |spec: Value| -> Vec<String> {
            let cluster = json!({"metadata": {"name": "c"}, "spec": spec});
            validate("Cluster", &cluster, None).iter().map(ToString::to_string).collect()
        };
        let on = |compute: Value| {
            json!({"name": "c", "computeConfig": compute,
                "kubernetesNetworkConfig": {"elasticLoadBalancing": {"enabled": true}},
                "storageConfig": {"blockStorage": {"enabled": true}}})
        };
        assert_eq!(errors(json!({"name": "c"})), [""; 0]);
        assert_eq!(errors(on(json!({"enabled": true}))), [""; 0]);
        let pools =
            |pools: Value| on(json!({"enabled": true, "nodePools": pools, "nodeRoleARN": "r"}));
        assert_eq!(errors(pools(json!(["system", "general-purpose"]))), [""; 0]);
        assert_eq!(
            errors(pools(json!(["spot"]))),
            [
                "spec.computeConfig.nodePools[0]: Invalid value: \"spot\": must be one of general-purpose, system"
            ]
        );
        assert_eq!(
            errors(on(json!({"enabled": true, "nodePools": ["system"]}))),
            ["spec.computeConfig: Invalid value: nodePools and nodeRoleARN must be set together"]
        );
        let halved = errors(json!({"name": "c", "computeConfig": {"enabled": true}}));
        assert!(halved[0].contains("either fully enabled or fully disabled"), "{halved:?}");
    }

    #[test]
    fn three_weeks_are_the_longest_life() {
        for (life, grace, fine) in [
            ("336h", Some("24h0m0s"), true),
            ("480h", Some("24h"), true),
            ("480h", Some("24h1s"), false),
            ("504h", None, true),
            ("505h", None, false),
            ("Never", Some("1h"), false),
        ] {
            assert_eq!(lifetime_problem(life, grace).is_none(), fine, "{life} {grace:?}");
        }
        let told = lifetime_problem("720h", None).expect("too long");
        assert!(told.ends_with("must be 504h or less, not 720h0m0s"), "{told}");
    }

    proptest! {
        #[test]
        fn a_life_is_refused_exactly_beyond_the_cap(life in 0..2_000_i64, grace in 0..2_000_i64) {
            let problem = lifetime_problem(&format!("{life}h"), Some(&format!("{grace}h")));
            prop_assert_eq!(problem.is_some(), life + grace > LIFETIME_MAX_HOURS);
        }
    }
}
