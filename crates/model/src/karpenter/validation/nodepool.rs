//! The rules of NodePool beside its schema.

use serde_json::Value;

use super::FieldError;
use super::rules::{At, Rules};
use crate::auto_mode;

/// What breaks a rule.
pub(super) fn rules(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut rules = Rules(Vec::new());
    let Some(spec) = At::root(new, old).field("spec") else { return rules.0 };
    static_pool(&mut rules, &spec);
    if let Some(budgets) = spec.at(&["disruption", "budgets"]) {
        let goes_together = |budget: At<'_>| {
            budget.field("schedule").is_some() == budget.field("duration").is_some()
        };
        rules.check(
            &budgets,
            budgets.items().all(goes_together),
            "'schedule' must be set with 'duration'",
        );
    }
    if let Some(labels) = spec.at(&["template", "metadata", "labels"]) {
        rules.labels(&labels);
    }
    if let Some(reference) = spec.at(&["template", "spec", "nodeClassRef"]) {
        for field in ["group", "kind"] {
            rules.check_transition(
                &reference,
                |new, old| new.get(field) == old.get(field),
                &format!("nodeClassRef.{field} is immutable"),
            );
        }
        rules.node_class_ref(&reference);
    }
    if let Some(requirements) = spec.at(&["template", "spec", "requirements"]) {
        rules.requirements(&requirements, true);
    }
    if let Some(template) = spec.at(&["template", "spec"]) {
        lifetime(&mut rules, &template);
    }
    rules.0
}

/// Nodes of EKS Auto Mode have an end.
fn lifetime(rules: &mut Rules, template: &At<'_>) {
    let text = |name: &str| template.value.get(name).and_then(Value::as_str);
    let group = template.value.pointer("/nodeClassRef/group").and_then(Value::as_str);
    if group != Some(auto_mode::GROUP) {
        return;
    }
    let life = text("expireAfter").unwrap_or_default();
    if let Some(problem) = auto_mode::lifetime_problem(life, text("terminationGracePeriod")) {
        rules.check(template, false, &problem);
    }
}

fn static_pool(rules: &mut Rules, spec: &At<'_>) {
    let is_static = spec.field("replicas").is_some();
    rules.check_transition(
        spec,
        |new, old| new.get("replicas").is_some() == old.get("replicas").is_some(),
        "Cannot transition NodePool between static (replicas set) and dynamic (replicas unset) \
         provisioning modes",
    );
    let limits = spec.value.get("limits").and_then(Value::as_object);
    let limits_nodes_only = limits.is_none_or(|limits| limits.keys().all(|key| key == "nodes"));
    rules.check(
        spec,
        !is_static || limits_nodes_only,
        "only 'limits.nodes' is supported on static NodePools",
    );
    rules.check(
        spec,
        !is_static || spec.field("weight").is_none(),
        "'weight' is not supported on static NodePools",
    );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::defaults;
    use super::super::node_pool;

    fn pool(change: impl FnOnce(&mut Value)) -> Value {
        let mut pool = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
            "spec": {
                "template": {
                    "metadata": {"labels": {"team": "a"}},
                    "spec": {
                        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                        "requirements": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]
                    }
                },
                "limits": {"cpu": 1000, "memory": "1000Gi"}
            }
        });
        change(&mut pool["spec"]);
        defaults::node_pool(&mut pool);
        pool
    }

    fn errors(new: &Value, old: Option<&Value>) -> Vec<String> {
        node_pool(new, old).iter().map(ToString::to_string).collect()
    }

    fn refused(change: impl FnOnce(&mut Value), expected: &[&str]) {
        assert_eq!(errors(&pool(change), None), expected);
    }

    const UNCHECKED: &str = "<nil>: Invalid value: null: some validation rules were not checked \
        because the object was invalid; correct the existing errors to complete validation";

    #[test]
    fn a_usual_pool_is_accepted() {
        refused(|_| {}, &[]);
        refused(
            |spec| {
                spec["weight"] = json!(100);
                spec["disruption"] = json!({"consolidateAfter": "Never", "budgets": [
                    {"nodes": "0", "schedule": "@daily", "duration": "8h30m0s", "reasons": ["Drifted", "Empty"]},
                    {"nodes": "100%", "schedule": "0 9 * * mon-fri", "duration": "10m"}, {"nodes": "5"}]});
                spec["template"]["spec"]["terminationGracePeriod"] = json!("1h30m");
                spec["template"]["spec"]["expireAfter"] = json!("Never");
                spec["template"]["spec"]["taints"] =
                    json!([{"key": "a.b/c", "effect": "NoSchedule", "value": "v"}]);
            },
            &[],
        );
    }

    #[test]
    fn nodes_of_auto_mode_live_three_weeks_at_most() {
        let on_auto = |life: &str, grace: &str| {
            let change = |spec: &mut Value| {
                let template = &mut spec["template"]["spec"];
                template["nodeClassRef"] =
                    json!({"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"});
                template["expireAfter"] = json!(life);
                template["terminationGracePeriod"] = json!(grace);
            };
            errors(&pool(change), None)
        };
        assert_eq!(on_auto("480h", "24h"), [""; 0]);
        assert_eq!(
            on_auto("504h", "1h"),
            [
                "spec.template.spec: Invalid value: a node of EKS Auto Mode lives at most 21 days: expireAfter and terminationGracePeriod together must be 504h or less, not 505h0m0s"
            ]
        );
        assert!(on_auto("Never", "24h")[0].ends_with("or less, not Never"));
    }

    #[test]
    fn the_schema_is_enforced() {
        let cases: &[(&str, Value, &str)] = &[
            (
                "/template/spec/expireAfter",
                json!("1d"),
                r#"spec.template.spec.expireAfter: Invalid value: "1d": spec.template.spec.expireAfter in body should match '^(([0-9]+(s|m|h))+|Never)$'"#,
            ),
            (
                "/template/spec/terminationGracePeriod",
                json!("Never"),
                r#"spec.template.spec.terminationGracePeriod: Invalid value: "Never": spec.template.spec.terminationGracePeriod in body should match '^([0-9]+(s|m|h))+$'"#,
            ),
            (
                "/disruption/consolidateAfter",
                json!("soon"),
                r#"spec.disruption.consolidateAfter: Invalid value: "soon": spec.disruption.consolidateAfter in body should match '^(([0-9]+(s|m|h))+|Never)$'"#,
            ),
            (
                "/disruption/budgets",
                json!([{"nodes": "101%"}]),
                r#"spec.disruption.budgets[0].nodes: Invalid value: "101%": spec.disruption.budgets[0].nodes in body should match '^((100|[0-9]{1,2})%|[0-9]+)$'"#,
            ),
            (
                "/disruption/budgets",
                json!([{"nodes": "1", "schedule": "@daily", "duration": "10s"}]),
                r#"spec.disruption.budgets[0].duration: Invalid value: "10s": spec.disruption.budgets[0].duration in body should match '^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$'"#,
            ),
            (
                "/disruption/budgets",
                json!([{"nodes": "1", "schedule": "* * * *", "duration": "10m"}]),
                r#"spec.disruption.budgets[0].schedule: Invalid value: "* * * *": spec.disruption.budgets[0].schedule in body should match '^(@(annually|yearly|monthly|weekly|daily|midnight|hourly))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$'"#,
            ),
            (
                "/weight",
                json!(101),
                "spec.weight: Invalid value: 101: spec.weight in body should be less than or equal to 100",
            ),
            (
                "/weight",
                json!(0),
                "spec.weight: Invalid value: 0: spec.weight in body should be greater than or equal to 1",
            ),
            (
                "/limits/cpu",
                json!("many"),
                r#"spec.limits.cpu: Invalid value: "many": spec.limits.cpu in body should match '^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$'"#,
            ),
            (
                "/template/spec/nodeClassRef/group",
                json!("a/v1"),
                r#"spec.template.spec.nodeClassRef.group: Invalid value: "a/v1": spec.template.spec.nodeClassRef.group in body should match '^[^/]*$'"#,
            ),
            (
                "/template/metadata/labels/team",
                json!("a b"),
                r#"spec.template.metadata.labels.team: Invalid value: "a b": spec.template.metadata.labels.team in body should match '^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$'"#,
            ),
            (
                "/template/spec/requirements/0/key",
                json!("-a"),
                r#"spec.template.spec.requirements[0].key: Invalid value: "-a": spec.template.spec.requirements[0].key in body should match '^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(\/))?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$'"#,
            ),
        ];
        for (pointer, value, expected) in cases {
            refused(|spec| set(spec, pointer, value.clone()), &[expected]);
        }
    }

    #[test]
    fn a_grave_error_keeps_the_rules_from_being_checked() {
        let cases: &[(&str, Value, &str)] = &[
            (
                "/disruption/consolidationPolicy",
                json!("Always"),
                r#"spec.disruption.consolidationPolicy: Unsupported value: "Always": supported values: "WhenEmpty", "WhenEmptyOrUnderutilized", "Balanced""#,
            ),
            (
                "/disruption/budgets",
                json!([{"reasons": ["Old"]}]),
                r#"spec.disruption.budgets[0].reasons[0]: Unsupported value: "Old": supported values: "Underutilized", "Empty", "Drifted""#,
            ),
            (
                "/disruption/budgets",
                Value::Array(vec![json!({"nodes": "1"}); 51]),
                "spec.disruption.budgets: Too many: 51: must have at most 50 items",
            ),
            (
                "/template/spec/requirements/0/operator",
                json!("Is"),
                r#"spec.template.spec.requirements[0].operator: Unsupported value: "Is": supported values: "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte""#,
            ),
            (
                "/template/spec/requirements/0/key",
                json!("k".repeat(317)),
                "spec.template.spec.requirements[0].key: Too long: may not be more than 316 bytes",
            ),
            (
                "/template/spec/taints",
                json!([{"key": "a", "effect": "Never"}]),
                r#"spec.template.spec.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute""#,
            ),
            (
                "/template/spec/taints",
                json!([{"key": "a"}]),
                "spec.template.spec.taints[0].effect: Required value",
            ),
            (
                "/template/metadata/labels/team",
                json!("x".repeat(64)),
                "spec.template.metadata.labels.team: Too long: may not be more than 63 bytes",
            ),
            (
                "/template/spec/nodeClassRef",
                json!({"group": "g", "kind": "k"}),
                "spec.template.spec.nodeClassRef.name: Required value",
            ),
            (
                "/replicas",
                json!("two"),
                r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
            ),
            (
                "/limits/cpu",
                json!(1.5),
                r#"spec.limits.cpu: Invalid value: "number": spec.limits.cpu in body must be of type integer,string: "number""#,
            ),
        ];
        for (pointer, value, expected) in cases {
            refused(|spec| set(spec, pointer, value.clone()), &[expected, UNCHECKED]);
        }
        refused(
            |spec| *spec = json!({"template": {"spec": {}}}),
            &[
                "spec.template.spec.nodeClassRef: Required value",
                "spec.template.spec.requirements: Required value",
                UNCHECKED,
            ],
        );
        assert_eq!(errors(&json!({}), None), ["spec: Required value", UNCHECKED]);
    }

    fn set(spec: &mut Value, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        if spec.pointer(parent).is_none() {
            set(spec, parent, json!({}));
        }
        spec.pointer_mut(parent).unwrap()[name] = value;
    }

    fn requirement(requirement: Value) -> Vec<String> {
        errors(&pool(|spec| spec["template"]["spec"]["requirements"][0] = requirement), None)
    }

    #[test]
    fn requirements_must_make_sense() {
        const IN: &str = "requirements with operator 'In' must have a value defined";
        const BOUND: &str = "requirements operator 'Gt', 'Lt', 'Gte', or 'Lte' must have a single positive integer value";
        const MIN: &str = "requirements with 'minValues' must have at least that many values specified in the 'values' field";
        let cases: &[(Value, &str)] = &[
            (json!({"operator": "In", "values": []}), IN),
            (
                json!({"operator": "In"}),
                "\"array\": no such key: values evaluating rule: requirements with operator 'In' must have a value defined",
            ),
            (json!({"operator": "Gt", "values": []}), BOUND),
            (json!({"operator": "Gte", "values": ["1", "2"]}), BOUND),
            (json!({"operator": "Lt", "values": ["-1"]}), BOUND),
            (
                json!({"operator": "Lte", "values": ["x"]}),
                "\"array\": type conversion error from 'string' to 'int' evaluating rule: requirements operator 'Gt', 'Lt', 'Gte', or 'Lte' must have a single positive integer value",
            ),
            (json!({"operator": "In", "values": ["a"], "minValues": 2}), MIN),
        ];
        for (rest, expected) in cases {
            let mut value = rest.clone();
            value["key"] = json!("team");
            assert_eq!(
                requirement(value),
                [format!("spec.template.spec.requirements: Invalid value: {expected}")],
                "{rest}"
            );
        }
        for good in [
            json!({"key": "a", "operator": "Gt", "values": ["0"]}),
            json!({"key": "a", "operator": "Exists", "minValues": 3}),
            json!({"key": "a", "operator": "In", "values": ["a", "b"], "minValues": 2}),
            json!({"key": "karpenter.k8s.aws/instance-category", "operator": "In", "values": ["c"]}),
        ] {
            assert_eq!(requirement(good), [""; 0]);
        }
        assert_eq!(
            requirement(json!({"key": "a", "operator": "Exists", "minValues": 51})),
            [
                "spec.template.spec.requirements[0].minValues: Invalid value: 51: spec.template.spec.requirements[0].minValues in body should be less than or equal to 50"
            ]
        );
    }

    #[test]
    fn restricted_labels_are_refused_in_both_places() {
        let cases = [
            ("karpenter.sh/initialized", "label domain \"karpenter.sh\" is restricted"),
            ("sub.karpenter.sh/x", "label domain \"karpenter.sh\" is restricted"),
            ("karpenter.sh/nodepool", "label \"karpenter.sh/nodepool\" is restricted"),
            ("kubernetes.io/hostname", "label \"kubernetes.io/hostname\" is restricted"),
            ("karpenter.k8s.aws/instance-pods", "label domain \"karpenter.k8s.aws\" is restricted"),
        ];
        for (key, message) in cases {
            assert_eq!(
                requirement(json!({"key": key, "operator": "Exists"})),
                [format!(
                    "spec.template.spec.requirements[0].key: Invalid value: \"{key}\": {message}"
                )]
            );
            refused(
                |spec| spec["template"]["metadata"]["labels"][key] = json!("x"),
                &[&format!("spec.template.metadata.labels: Invalid value: {message}")],
            );
        }
        refused(
            |spec| {
                spec["template"]["metadata"]["labels"]["karpenter.sh/capacity-type"] = json!("spot")
            },
            &[],
        );
    }

    #[test]
    fn budgets_need_both_halves_of_a_window() {
        for half in
            [json!({"nodes": "1", "schedule": "@daily"}), json!({"nodes": "1", "duration": "1h"})]
        {
            refused(
                |spec| spec["disruption"] = json!({"budgets": [{"nodes": "1"}, half]}),
                &["spec.disruption.budgets: Invalid value: 'schedule' must be set with 'duration'"],
            );
        }
        refused(
            |spec| spec["disruption"] = json!({"budgets": [{"reasons": ["Empty", "Empty"]}]}),
            &["spec.disruption.budgets[0].reasons[1]: Duplicate value: \"Empty\""],
        );
    }

    #[test]
    fn static_pools_have_neither_weight_nor_other_limits() {
        refused(
            |spec| {
                spec["replicas"] = json!(3);
                spec["limits"] = json!({"nodes": 5});
            },
            &[],
        );
        refused(
            |spec| {
                spec["replicas"] = json!(3);
                spec["weight"] = json!(1);
            },
            &[
                "spec: Invalid value: only 'limits.nodes' is supported on static NodePools",
                "spec: Invalid value: 'weight' is not supported on static NodePools",
            ],
        );
        refused(
            |spec| {
                spec["replicas"] = json!(-1);
                spec["limits"] = json!({});
            },
            &[
                "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0",
            ],
        );
    }

    #[test]
    fn an_update_may_not_change_the_class_kind_or_the_mode() {
        let old = pool(|_| {});
        let update = |change: fn(&mut Value)| errors(&pool(change), Some(&old));
        assert_eq!(
            update(|spec| spec["template"]["spec"]["nodeClassRef"]["name"] = json!("other")),
            [""; 0]
        );
        assert_eq!(
            update(|spec| spec["template"]["spec"]["nodeClassRef"] =
                json!({"group": "g", "kind": "K", "name": "n"})),
            [
                "spec.template.spec.nodeClassRef: Invalid value: nodeClassRef.group is immutable",
                "spec.template.spec.nodeClassRef: Invalid value: nodeClassRef.kind is immutable",
            ]
        );
        assert_eq!(
            update(|spec| {
                spec["replicas"] = json!(1);
                spec["limits"] = json!({});
            }),
            [
                "spec: Invalid value: Cannot transition NodePool between static (replicas set) and dynamic (replicas unset) provisioning modes"
            ]
        );
    }

    #[test]
    fn what_was_wrong_before_may_stay() {
        let old = pool(|spec| spec["template"]["spec"]["requirements"][0]["values"] = json!([]));
        let new = pool(|spec| {
            spec["template"]["spec"]["requirements"][0]["values"] = json!([]);
            spec["weight"] = json!(2);
        });
        assert_eq!(errors(&new, Some(&old)), [""; 0]);
        assert_eq!(errors(&new, None).len(), 1);
    }
    #[test]
    fn an_empty_reference_is_refused() {
        refused(
            |spec| {
                spec["template"]["spec"]["nodeClassRef"] =
                    json!({"group": "", "kind": "", "name": ""})
            },
            &[
                "spec.template.spec.nodeClassRef.group: Invalid value: \"\": group may not be empty",
                "spec.template.spec.nodeClassRef.kind: Invalid value: \"\": kind may not be empty",
                "spec.template.spec.nodeClassRef.name: Invalid value: \"\": name may not be empty",
            ],
        );
    }
}
