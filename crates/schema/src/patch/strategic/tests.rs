use proptest::prelude::*;
use serde_json::json;
use wharf_model::kinds::built_in;

use super::*;

fn kind(name: &str) -> Kind {
    *built_in().iter().find(|kind| kind.kind == name).unwrap()
}

fn patched(name: &str, current: &Value, patch: &Value) -> Result<Value, String> {
    apply(kind(name), current, patch.as_object().unwrap().clone()).map_err(|error| error.message)
}

/// A pod with the given spec patched by a spec.
fn pod_spec(current: &Value, patch: &Value) -> Value {
    let result = patched("Pod", &json!({"spec": current}), &json!({"spec": patch}));
    result.unwrap()["spec"].clone()
}

#[test]
fn lists_merge_by_key_or_are_replaced() {
    let two = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]});
    for (current, patch, expected) in [
        // By name; a new item goes in front of those the patch does not name.
        (
            &two,
            json!({"containers": [{"name": "b", "image": "z"}]}),
            json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "z"}]}),
        ),
        (
            &two,
            json!({"containers": [{"name": "c", "image": "z"}]}),
            json!({"containers": [{"name": "c", "image": "z"}, {"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}),
        ),
        (
            &two,
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b", "image": "y"}]}),
        ),
        (
            &two,
            json!({"containers": [{"$patch": "replace"}, {"name": "n"}]}),
            json!({"containers": [{"name": "n"}]}),
        ),
        // No merge key: replaced.
        (
            &json!({"tolerations": [{"key": "a"}, {"key": "b"}]}),
            json!({"tolerations": [{"key": "c"}]}),
            json!({"tolerations": [{"key": "c"}]}),
        ),
        // Nested lists merge by their own keys.
        (
            &json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "3"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "3"}]}]}),
        ),
        // A null removes a field, also of an item.
        (
            &json!({"containers": [{"name": "a", "image": "x", "command": ["c"]}]}),
            json!({"containers": [{"name": "a", "command": null}]}),
            json!({"containers": [{"name": "a", "image": "x"}]}),
        ),
        // Volumes name the one source they keep.
        (
            &json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}),
            json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}),
        ),
        (
            &json!({"nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeSelector": {"$patch": "replace", "c": "3"}}),
            json!({"nodeSelector": {"c": "3"}}),
        ),
        (
            &json!({"nodeSelector": {"a": "1"}, "hostNetwork": true}),
            json!({"nodeSelector": {"$patch": "delete"}, "hostNetwork": null}),
            json!({"nodeSelector": {}}),
        ),
    ] {
        assert_eq!(pod_spec(current, &patch), expected, "{patch}");
    }
}

#[test]
fn element_order_is_set() {
    let current = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "server"}]});
    let patch = json!({
        "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
        "containers": [{"name": "new", "image": "n"}],
    });
    assert_eq!(
        pod_spec(&current, &patch),
        json!({"containers": [{"name": "b"}, {"name": "new", "image": "n"}, {"name": "a"}, {"name": "server"}]})
    );
    // Only the order: what kubectl apply sends when nothing in the list has changed.
    let patch = json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]});
    assert_eq!(
        pod_spec(&current, &patch),
        json!({"containers": [{"name": "b"}, {"name": "a"}, {"name": "server"}]})
    );
    // A deletion together with an order.
    let patch = json!({
        "$setElementOrder/containers": [{"name": "b"}],
        "containers": [{"name": "a", "$patch": "delete"}],
    });
    assert_eq!(
        pod_spec(&current, &patch),
        json!({"containers": [{"name": "b"}, {"name": "server"}]})
    );
}

#[test]
fn sets_of_scalars_merge() {
    let current = json!({"metadata": {"finalizers": ["a", "b"]}});
    let check = |patch: Value, expected: Value| {
        let result = patched("Node", &current, &json!({"metadata": patch})).unwrap();
        assert_eq!(result["metadata"]["finalizers"], expected);
    };
    check(json!({"finalizers": ["b", "c"]}), json!(["a", "b", "c"]));
    check(json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!(["b"]));
    check(
        json!({"$setElementOrder/finalizers": ["c", "b"], "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}),
        json!(["c", "b"]),
    );
}

#[test]
fn strategies_of_objects() {
    // retainKeys: going from RollingUpdate to Recreate drops the parameters.
    let current =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        patched("Deployment", &current, &patch).unwrap(),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
    // replace: a selector is not merged.
    let current = json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}});
    let patch = json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}});
    assert_eq!(patched("PodDisruptionBudget", &current, &patch).unwrap(), patch);
    // Conditions of a status merge by type, as kubelets patch them.
    let current = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Disk", "status": "True"}]}});
    let patch = json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}], "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(
        patched("Node", &current, &patch).unwrap(),
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "True"}]}})
    );
}

#[test]
fn bad_patches_are_refused() {
    let current = json!({"spec": {"containers": [{"name": "a"}]}});
    for (patch, expected) in [
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (json!({"spec": {"$patch": "twist"}}), "unknown patch type found in map: twist"),
        (
            json!({"spec": {"$setElementOrder/containers": 1}}),
            "invalid patch format of setElementOrder list",
        ),
        (
            json!({"spec": {"$retainKeys": ["a"], "hostname": "h"}}),
            "invalid patch format of retainKeys",
        ),
    ] {
        assert_eq!(patched("Pod", &current, &patch), Err(expected.to_owned()), "{patch}");
    }
}

/// What `kubectl apply` sends for a manifest whose fields and items went away or changed.
#[test]
fn a_client_side_apply_comes_out_right() {
    let current = json!({
        "metadata": {"name": "inflate", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "old"}},
        "spec": {
            "replicas": 5,
            "template": {
                "metadata": {"labels": {"app": "inflate", "old": "x"}},
                "spec": {"containers": [{"name": "inflate", "image": "pause:3.7", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}, "imagePullPolicy": "Always"}]},
            },
        },
    });
    let patch = json!({
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "new"}},
        "spec": {
            "replicas": null,
            "template": {
                "metadata": {"labels": {"old": null}},
                "spec": {
                    "$setElementOrder/containers": [{"name": "inflate"}],
                    "containers": [{"name": "inflate", "resources": {"requests": {"memory": null, "cpu": "2"}}}],
                },
            },
        },
    });
    assert_eq!(
        patched("Deployment", &current, &patch).unwrap(),
        json!({
            "metadata": {"name": "inflate", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "new"}},
            "spec": {
                "template": {
                    "metadata": {"labels": {"app": "inflate"}},
                    "spec": {"containers": [{"name": "inflate", "image": "pause:3.7", "resources": {"requests": {"cpu": "2"}}, "imagePullPolicy": "Always"}]},
                },
            },
        })
    );
}

prop_compose! {
    fn containers()(names in proptest::collection::btree_set("[a-f]", 0..5), image in "[xyz]") -> Vec<Value> {
        names.into_iter().map(|name| json!({"name": name, "image": image})).collect()
    }
}

proptest! {
    /// Applying a patch twice gives what applying it once gives.
    #[test]
    fn twice_is_once(old in containers(), new in containers(), order in containers(), gone in "[a-f]", finalizers in proptest::collection::vec("[a-c]", 0..4)) {
        let current = json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"containers": old}});
        let mut items = new;
        items.retain(|item| item["name"] != gone.as_str());
        items.push(json!({"name": gone, "$patch": "delete"}));
        let patch = json!({
            "metadata": {"finalizers": finalizers},
            "spec": {"$setElementOrder/containers": order, "containers": items},
        });
        let once = patched("Pod", &current, &patch).unwrap();
        let twice = patched("Pod", &once, &patch).unwrap();
        prop_assert_eq!(once, twice);
    }

    /// No container is lost or doubled by a merge without directives.
    #[test]
    fn merging_is_a_union_by_name(old in containers(), new in containers()) {
        let names = |list: &[Value]| -> std::collections::BTreeSet<String> {
            list.iter().map(|item| item["name"].to_string()).collect()
        };
        let merged = pod_spec(&json!({"containers": old.clone()}), &json!({"containers": new.clone()}));
        let list = merged["containers"].as_array().cloned().unwrap_or_default();
        let expected: std::collections::BTreeSet<String> = names(&old).union(&names(&new)).cloned().collect();
        prop_assert_eq!(names(&list), expected.clone());
        prop_assert_eq!(list.len(), expected.len());
    }
}
