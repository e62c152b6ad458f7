use serde_json::{Value, json};
use wharf_model::kinds::Kind;

use super::*;

/// A slice with one device that is the whole node's, and this changed of it: the path of a field
/// and its value, `null` to leave it out.
fn changed(changes: &[(&str, Value)]) -> ResourceSlice {
    let mut slice = json!({
        "metadata": {"name": "s"},
        "spec": {
            "driver": "gpu.example.com", "nodeName": "node-a",
            "pool": {"name": "node-a", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"}]
        }
    });
    for (path, value) in changes {
        let (parent, field) = path.rsplit_once('/').expect("a path with a parent");
        let parent = slice.pointer_mut(parent).unwrap_or_else(|| panic!("{path} has a parent"));
        match value {
            Value::Null => {
                parent.as_object_mut().expect("an object").remove(field);
            }
            value => parent[field] = value.clone(),
        }
    }
    serde_json::from_value(slice).expect("a slice")
}

/// What is wrong with a slice, without the heading.
fn refusal(slice: &ResourceSlice) -> String {
    let mut errors = Errors::default();
    slice.validate(&mut errors);
    match errors.into_result(Kind::of::<ResourceSlice>(), "s") {
        Ok(()) => "fine".to_owned(),
        Err(error) => error
            .message
            .trim_start_matches("ResourceSlice.resource.k8s.io \"s\" is invalid: ")
            .to_owned(),
    }
}

#[track_caller]
fn check(changes: &[(&str, Value)], expected: &str) {
    assert_eq!(refusal(&changed(changes)), expected, "{changes:?}");
}

#[test]
fn a_slice_says_in_one_way_where_its_devices_are() {
    check(&[], "fine");
    check(&[("/spec/nodeName", Value::Null)], &format!("spec: Required value: {ONE_PLACE}"));
    check(
        &[("/spec/allNodes", json!(true))],
        &format!(
            "spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {ONE_PLACE}, but multiple fields are set"
        ),
    );
    check(
        &[("/spec/allNodes", json!(false))],
        "spec.allNodes: Invalid value: false: must be either unset or set to true",
    );
    let term = json!({"matchExpressions": [{"key": "rack", "operator": "In", "values": ["1"]}]});
    let selector = |terms: Value| {
        [
            ("/spec/nodeName", Value::Null),
            ("/spec/nodeSelector", json!({"nodeSelectorTerms": terms})),
        ]
    };
    check(&selector(json!([term])), "fine");
    let two = refusal(&changed(&selector(json!([term, term]))));
    assert!(two.starts_with("spec.nodeSelector.nodeSelectorTerms: Invalid value: [{"), "{two}");
    assert!(two.ends_with(": must have exactly one node selector term"), "{two}");
}

#[test]
fn devices_say_it_themselves_if_the_slice_leaves_it_to_them() {
    let each = |device: Value| {
        [
            ("/spec/nodeName", Value::Null),
            ("/spec/perDeviceNodeSelection", json!(true)),
            ("/spec/devices", json!([device])),
        ]
    };
    check(&each(json!({"name": "g", "nodeName": "node-a"})), "fine");
    check(&each(json!({"name": "g", "allNodes": true})), "fine");
    check(
        &each(json!({"name": "g"})),
        &format!("spec.devices[0]: Required value: {ONE_PLACE_PER_DEVICE}"),
    );
    check(
        &each(json!({"name": "g", "nodeName": "node-a", "allNodes": true})),
        &format!(
            "spec.devices[0]: Invalid value: \"{{`nodeName`, `allNodes`}}\": {ONE_PLACE_PER_DEVICE}"
        ),
    );
    check(
        &[("/spec/devices/0/nodeName", json!("node-a"))],
        "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
    );
}

#[test]
fn counters_are_published_apart_from_devices() {
    let sets = |sets: Value| [("/spec/devices", Value::Null), ("/spec/sharedCounters", sets)];
    let set = json!({"name": "gpu-0", "counters": {"memory": {"value": "40Gi"}}});
    check(&sets(json!([set])), "fine");
    check(
        &[("/spec/sharedCounters", json!([set]))],
        "spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed",
    );
    check(&sets(json!([set, set])), "spec.sharedCounters[1]: Duplicate value: \"gpu-0\"");
    check(
        &sets(json!([{"name": "", "counters": {}}])),
        "[spec.sharedCounters[0].name: Required value, spec.sharedCounters[0].counters: Required value]",
    );
    let many: Vec<_> = (0..9)
        .map(|at| json!({"name": format!("s{at}"), "counters": {"m": {"value": "1"}}}))
        .collect();
    check(&sets(json!(many)), "spec.sharedCounters: Too many: 9: must have at most 8 items");
    let takes = |takes: Value| [("/spec/devices/0/consumesCounters", takes)];
    let part = json!({"counterSet": "gpu-0", "counters": {"memory": {"value": "10Gi"}}});
    check(&takes(json!([part])), "fine");
    check(
        &takes(json!([part, part])),
        "spec.devices[0].consumesCounters[1]: Duplicate value: \"gpu-0\"",
    );
    check(
        &takes(json!([{"counterSet": "gpu-0", "counters": {}}])),
        "spec.devices[0].consumesCounters[0].counters: Required value",
    );
    check(
        &takes(json!([part, part, part])),
        "spec.devices[0].consumesCounters: Too many: 3: must have at most 2 items",
    );
    let devices = |count: usize, taken: &Value| -> Value {
        (0..count).map(|at| json!({"name": format!("g{at}"), "consumesCounters": taken})).collect()
    };
    check(&[("/spec/devices", devices(64, &json!([part])))], "fine");
    check(
        &[("/spec/devices", devices(65, &json!([part])))],
        "spec.devices: Too many: 65: must have at most 64 items",
    );
    check(&[("/spec/devices", devices(128, &json!([])))], "fine");
}

#[test]
fn taints_have_a_key_and_an_effect() {
    let taints = |taint: Value| [("/spec/devices/0/taints", json!([taint]))];
    for effect in TAINT_EFFECTS {
        check(&taints(json!({"key": "example.com/broken", "effect": effect})), "fine");
    }
    check(&taints(json!({"key": "k"})), "spec.devices[0].taints[0].effect: Required value");
    check(
        &taints(json!({"key": "k", "effect": "PreferNoSchedule"})),
        "spec.devices[0].taints[0].effect: Unsupported value: \"PreferNoSchedule\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
    );
    // What has been there before is left alone.
    let old = changed(&taints(json!({"key": "k", "effect": "Odd"})));
    let mut errors = Errors::default();
    old.validate_update(&old, &mut errors);
    assert!(errors.is_empty());
}

#[test]
fn binding_conditions_come_with_their_failures() {
    let conditions = |needed: Value, failures: Value| {
        [
            ("/spec/devices/0/bindingConditions", needed),
            ("/spec/devices/0/bindingFailureConditions", failures),
        ]
    };
    check(&conditions(json!(["Attached"]), json!(["Broken"])), "fine");
    check(
        &conditions(json!(["Attached"]), Value::Null),
        "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions",
    );
    check(
        &conditions(json!([]), json!(["Broken"])),
        "spec.devices[0].bindingConditions: Invalid value: []: bindingConditions are required to use bindingFailureConditions",
    );
    check(
        &conditions(json!(["A", "A"]), json!(["B"])),
        "spec.devices[0].bindingConditions[1]: Duplicate value: \"A\"",
    );
    check(
        &conditions(json!(["A"]), json!(["A"])),
        "spec.devices[0].bindingFailureConditions[0]: Invalid value: \"A\": bindingFailureConditions must not overlap with bindingConditions",
    );
    check(
        &conditions(json!(["A", "B", "C", "D", "E"]), json!(["F"])),
        "spec.devices[0].bindingConditions: Too many: 5: must have at most 4 items",
    );
}

#[test]
fn shares_are_asked_for_by_values_or_by_a_range() {
    let policy = |policy: Value| {
        [
            ("/spec/devices/0/allowMultipleAllocations", json!(true)),
            (
                "/spec/devices/0/capacity",
                json!({"memory": {"value": "40Gi", "requestPolicy": policy}}),
            ),
        ]
    };
    const AT: &str = "spec.devices[0].capacity[memory].requestPolicy";
    check(&policy(json!({})), "fine");
    check(&policy(json!({"default": "1Gi"})), "fine");
    check(&policy(json!({"default": "5Gi", "validValues": ["5Gi", "10Gi"]})), "fine");
    let range = json!({"min": "1Gi", "max": "10Gi", "step": "1Gi"});
    check(&policy(json!({"default": "2Gi", "validRange": range})), "fine");
    check(
        &policy(json!({"default": "5Gi", "validValues": ["5Gi"], "validRange": range})),
        &format!(
            "{AT}: Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time"
        ),
    );
    for (field, value) in [("validValues", json!(["5Gi"])), ("validRange", range)] {
        check(
            &policy(json!({field: value})),
            &format!("{AT}.default: Required value: required when {field} is defined"),
        );
    }
    check(
        &policy(json!({"default": "1Gi", "validValues": ["50Gi", "5Gi", "5Gi"]})),
        &format!(
            "[{AT}.validValues[1]: Invalid value: \"5Gi\": values must be sorted in ascending order, {AT}.validValues[0]: Invalid value: \"50Gi\": option is larger than capacity value: 40Gi, {AT}.validValues[2]: Duplicate value: \"5368709120\", {AT}.validValues: Invalid value: \"1Gi\": default value is not valid according to the requestPolicy]"
        ),
    );
    check(
        &policy(json!({"default": "1Gi", "validRange": {"min": "2Gi", "max": "50Gi"}})),
        &format!(
            "[{AT}.validRange.min: Invalid value: \"1Gi\": default is less than min: 2Gi, {AT}.validRange.max: Invalid value: \"50Gi\": max is larger than capacity value: 40Gi]"
        ),
    );
    check(
        &policy(json!({"default": "2Gi", "validRange": {"min": "1Gi", "step": "3Gi"}})),
        &format!(
            "{AT}.validRange.step: Invalid value: \"2Gi\": value is not a multiple of a given step (3Gi) from (1Gi)"
        ),
    );
    check(
        &policy(json!({"default": "1Gi", "validRange": {"min": "1Gi", "step": "0"}})),
        &format!(
            "{AT}.validRange.step: Invalid value: \"1Gi\": value is not a multiple of a given step (0) from (1Gi)"
        ),
    );
    check(
        &policy(json!({"default": "1Gi", "validRange": {}})),
        &format!("{AT}.validRange.min: Required value: required when validRange is defined"),
    );
    check(
        &[(
            "/spec/devices/0/capacity",
            json!({"memory": {"value": "40Gi", "requestPolicy": {"default": "1Gi"}}}),
        )],
        &format!("{AT}: Forbidden: allowMultipleAllocations must be true"),
    );
}

#[test]
fn attributes_have_one_value_and_a_name() {
    let attribute =
        |name: &str, value: Value| changed(&[("/spec/devices/0/attributes", json!({name: value}))]);
    let refused = |name: &str, value: Value| refusal(&attribute(name, value));
    assert_eq!(refused("example.com/model", json!({"string": "a100"})), "fine");
    assert_eq!(refused("driver", json!({"version": "1.2.3-rc.1+b.007"})), "fine");
    assert_eq!(
        refused("driver", json!({"version": "1.2"})),
        "spec.devices[0].attributes[driver].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0"
    );
    assert_eq!(
        refused("model", json!({})),
        "spec.devices[0].attributes[model]: Invalid value: \"\": exactly one value must be specified"
    );
    assert_eq!(
        refused("model", json!({"int": 1, "bool": true})),
        "spec.devices[0].attributes[model]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be specified"
    );
    assert_eq!(
        refused("/model", json!({"int": 1})),
        "spec.devices[0].attributes[/model]: Invalid value: \"\": the domain must not be empty"
    );
    let odd = refused("my-model", json!({"int": 1}));
    assert!(odd.starts_with("spec.devices[0].attributes[my-model]: Invalid value: \"my-model\": a valid C identifier must start with"), "{odd}");
    assert_eq!(
        refused(&"m".repeat(33), json!({"int": 1})),
        format!(
            "spec.devices[0].attributes[{}]: Too long: may not be more than 32 bytes",
            "m".repeat(33)
        )
    );
    let many: serde_json::Map<_, _> =
        (0..33).map(|at| (format!("a{at}"), json!({"int": 1}))).collect();
    check(
        &[("/spec/devices/0/attributes", Value::Object(many))],
        "spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32",
    );
}

#[test]
fn versions_are_told_by_their_form() {
    for good in
        ["0.0.0", "1.2.3", "1.0.0-alpha", "1.0.0-0.3.7", "1.0.0-x-y.z", "1.0.0+21AF26D3", "1.0.0--"]
    {
        assert!(is_semver(good), "{good}");
    }
    for bad in [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3+",
        "1.2.3-a..b",
        "v1.2.3",
        "1.2.3-ä",
    ] {
        assert!(!is_semver(bad), "{bad}");
    }
}

#[test]
fn pools_and_drivers_have_names() {
    check(&[("/spec/driver", json!(""))], "spec.driver: Required value");
    check(&[("/spec/pool/name", json!("rack/shelf"))], "fine");
    check(
        &[("/spec/pool/generation", json!(-1))],
        "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
    );
    check(
        &[("/spec/devices", json!([{"name": "g"}, {"name": "g"}]))],
        "spec.devices[1]: Duplicate value: \"g\"",
    );
}
