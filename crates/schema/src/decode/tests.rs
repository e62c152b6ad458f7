use serde_json::json;
use wharf_model::kinds::built_in;

use super::*;

fn kind(name: &str) -> Kind {
    *built_in().iter().find(|kind| kind.kind == name).unwrap()
}

/// Decodes and tells the result in one line: the refusal, or the warnings and the object.
fn outcome(name: &str, body: &str, validation: FieldValidation) -> String {
    match decode(kind(name), body.as_bytes(), validation) {
        Ok(decoded) => {
            let json = String::from_utf8(decoded.object.encode()).unwrap();
            format!("{:?} {json}", decoded.warnings)
        }
        Err(error) => format!("{} {}", error.reason.code(), error.message),
    }
}

fn strictly(name: &str, body: &str) -> String {
    outcome(name, body, FieldValidation::Strict)
}

fn deployment(spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"a"}},"spec":{spec}}}"#
    )
}

#[test]
fn wrong_types_are_refused_in_gos_words() {
    let prefix = "400 Deployment in version \"v1\" cannot be handled as a Deployment: ";
    for (spec, expected) in [
        (
            r#"{"replicas":"3"}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"replicas":1.5}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"replicas":3000000000}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}}"#,
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            r#"{"template":{"spec":{"containers":{}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"template":{"metadata":{"labels":{"a":true}}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.spec.template.metadata.labels of type string",
        ),
        (
            r#"[]"#,
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            r#"{"strategy":{"rollingUpdate":{"maxSurge":true}}}"#,
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"1 core"}}}]}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"template":{"metadata":{"creationTimestamp":"now"}}}"#,
            "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\"",
        ),
    ] {
        assert_eq!(
            strictly("Deployment", &deployment(spec)),
            format!("{prefix}{expected}"),
            "{spec}"
        );
    }
    assert_eq!(
        strictly("Secret", r#"{"data":{"a":"%"}}"#),
        "400 Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0"
    );
}

#[test]
fn unknown_and_repeated_fields_are_refused_warned_of_or_dropped() {
    let body = deployment(
        r#"{"foo":1,"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"name":"c","imagee":"x"}]}}}"#,
    );
    let found = [
        "unknown field \"spec.foo\"",
        "duplicate field \"spec.replicas\"",
        "unknown field \"spec.template.spec.containers[0].imagee\"",
    ];
    assert_eq!(
        strictly("Deployment", &body),
        format!(
            "400 Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {}",
            found.join(", ")
        )
    );
    let warned = decode(kind("Deployment"), body.as_bytes(), FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, found);
    assert!(String::from_utf8(warned.object.encode()).unwrap().contains("\"replicas\":2"));
    let ignored = decode(kind("Deployment"), body.as_bytes(), FieldValidation::Ignore).unwrap();
    assert!(ignored.warnings.is_empty());
    assert_eq!(
        outcome("ConfigMap", r#"{"data":{"a":"1","a":"2"}}"#, FieldValidation::Warn),
        r#"["duplicate field \"data.a\""] {"apiVersion":"v1","kind":"ConfigMap","data":{"a":"2"},"metadata":{}}"#
    );
}

#[test]
fn what_the_data_says_it_is_must_fit() {
    for (name, body, expected) in [
        (
            "Deployment",
            r#"{"apiVersion":"v1","kind":"Deployment"}"#,
            "400 the API version in the data (v1) does not match the expected API version (apps/v1)",
        ),
        (
            "Pod",
            r#"{"apiVersion":"v1","kind":"ConfigMap"}"#,
            "400 ConfigMap in version \"v1\" cannot be handled as a Pod: converting (v1.ConfigMap) to (core.Pod): unknown conversion",
        ),
        (
            "Pod",
            r#"{"apiVersion":"v1","kind":"Foo"}"#,
            "400 Foo in version \"v1\" cannot be handled as a Pod: no kind \"Foo\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            "NodePool",
            r#"{"apiVersion":"karpenter.sh/v1"}"#,
            "400 the object provided is unrecognized (must be of type NodePool): Object 'Kind' is missing in '{\"apiVersion\":\"karpenter.sh/v1\"}' ({\"apiVersion\":\"karpenter.sh/v1 ...)",
        ),
        (
            "Pod",
            r#"{"kind":"Pod""#,
            "400 the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"kind\":\"Pod\")",
        ),
    ] {
        assert_eq!(strictly(name, body), expected, "{body}");
    }
    assert!(strictly("Pod", "{}").starts_with("[] "), "a built-in kind may leave both out");
}

#[test]
fn forms_are_made_plain() {
    let body = deployment(
        r#"{"replicas":null,"template":{"spec":{"nodeSelector":{"a":null},"containers":[{"name":"c","resources":{"requests":{"cpu":1,"memory":"1.5Gi"},"limits":{"cpu":0.5,"memory":"1024Mi"}}}]}}}"#,
    );
    let text = strictly("Deployment", &body);
    assert!(text.contains(r#""requests":{"cpu":"1","memory":"1536Mi"}"#), "{text}");
    assert!(text.contains(r#""limits":{"cpu":"500m","memory":"1Gi"}"#), "{text}");
    assert!(text.contains(r#""nodeSelector":{"a":""}"#), "{text}");
    assert!(!text.contains("replicas"), "{text}");
    let secret = strictly("Secret", "{\"data\":{\"a\":\"YWJj\\n\"}}");
    assert!(secret.contains(r#""a":"YWJj""#), "{secret}");
}

fn node_pool(spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"karpenter.sh/v1","kind":"NodePool","metadata":{{"name":"default"}},"spec":{spec}}}"#
    )
}

const TEMPLATE: &str = r#""template":{"spec":{"nodeClassRef":{"group":"karpenter.k8s.aws","kind":"EC2NodeClass","name":"default"},"requirements":[{"key":"karpenter.sh/capacity-type","operator":"In","values":["spot"]}]}}"#;

#[test]
fn custom_resources_are_held_to_their_schema() {
    assert_eq!(
        strictly("NodePool", &node_pool(&format!(r#"{{"x":1,{TEMPLATE}}}"#))),
        "400 NodePool in version \"v1\" cannot be handled as a NodePool: strict decoding error: unknown field \"spec.x\""
    );
    let warned = node_pool(&format!(r#"{{"x":1,"limits":{{"cpu":1000}},{TEMPLATE}}}"#));
    let text = outcome("NodePool", &warned, FieldValidation::Warn);
    assert!(text.starts_with(r#"["unknown field \"spec.x\""] {"#), "{text}");
    assert!(text.contains(r#""limits":{"cpu":1000}"#) && !text.contains("\"x\":"), "{text}");
    let refused = strictly("NodePool", &node_pool(&format!(r#"{{"limits":"many",{TEMPLATE}}}"#)));
    assert!(
        refused.starts_with("422 NodePool.karpenter.sh \"default\" is invalid: [spec.limits: Invalid value: \"string\": spec.limits in body must be of type object: \"string\", "),
        "{refused}"
    );
    let metadata = r#"{"apiVersion":"karpenter.sh/v1","kind":"NodePool","metadata":{"name":"a","labels":{"a":1}}}"#;
    let refused = strictly("NodePool", metadata);
    assert!(
        refused.starts_with("400 ") && refused.contains("ObjectMeta.metadata.labels"),
        "{refused}"
    );
}

#[test]
fn values_and_patched_values_decode_the_same() {
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}, "x": 1});
    let decoded = decode_any(value.clone(), FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, ["unknown field \"x\""]);
    assert_eq!(decoded.object.meta().name.as_deref(), Some("a"));
    let error =
        decode_patched(kind("ConfigMap"), value, PatchType::Merge, b"", FieldValidation::Strict)
            .unwrap_err();
    assert_eq!(error.reason.code(), 422);
    assert!(
        error.message.starts_with(" \"\" is invalid: patch: Invalid value: \"{\\\"apiVersion"),
        "{error}"
    );
    assert!(error.message.ends_with(": strict decoding error: unknown field \"x\""), "{error}");
    assert_eq!(
        decode_any(json!({"apiVersion": "v1", "kind": "Foo"}), FieldValidation::Warn)
            .unwrap_err()
            .message,
        "no matches for kind \"Foo\" in version \"v1\""
    );
    assert_eq!(
        decode_any(json!({"a": 1}), FieldValidation::Warn).unwrap_err().message,
        "Object 'Kind' is missing in '{\"a\":1}'"
    );
}

#[test]
fn results_of_strategic_patches_are_refused_with_the_patch() {
    let name = "Deployment";
    for (patch, expected) in [
        (
            json!({"spec": {"replicas": "x"}}),
            "\"map[spec:map[replicas:x]]\": unrecognized type: int32",
        ),
        (
            json!({"spec": {"template": 1}}),
            "\"map[spec:map[template:1]]\": cannot restore struct from: int64",
        ),
        (
            json!({"spec": {"foo": 1}}),
            "\"map[spec:map[foo:1]]\": strict decoding error: unknown field \"spec.foo\"",
        ),
    ] {
        let text = patch.to_string();
        let strategic = PatchType::StrategicMerge;
        let value = patch::apply(kind(name), strategic, &json!({}), text.as_bytes()).unwrap();
        let error =
            decode_patched(kind(name), value, strategic, text.as_bytes(), FieldValidation::Strict)
                .unwrap_err();
        assert_eq!(error.message, format!(" \"\" is invalid: patch: Invalid value: {expected}"));
    }
}

proptest::proptest! {
    #[test]
    fn no_body_panics(body in "[{}\\[\\]\",:a-z0-9. ]{0,80}") {
        for kind in built_in() {
            let _ = decode(*kind, body.as_bytes(), FieldValidation::Strict);
        }
    }

    /// What was decoded and encoded again decodes without a finding, to the same object.
    #[test]
    fn its_own_output_is_plain(replicas in 0..9_i32, cpu in "[1-9][0-9]{0,3}m?", names in proptest::collection::btree_set("[a-z]{1,5}", 0..4)) {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "resources": {"limits": {"cpu": cpu}}})).collect();
        let body = json!({"spec": {"replicas": replicas, "template": {"spec": {"containers": containers}}}});
        let first = decode_value(kind("Deployment"), body, FieldValidation::Strict).unwrap().object.encode();
        let again = walk::bytes(kind("Deployment"), &first).unwrap();
        proptest::prop_assert!(again.is_clean() && !again.rewrite);
        let second = decode(kind("Deployment"), &first, FieldValidation::Strict).unwrap().object.encode();
        proptest::prop_assert_eq!(first, second);
    }
}
