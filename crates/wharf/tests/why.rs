//! `wharf why` of a pod that waits: who refuses it, and what would help, by a real lab.

mod harness;

use harness::{Options, Wharf, wait_for};
use serde_json::{Value, json};

fn node(name: &str, taint: Option<&str>) -> Value {
    let amounts = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
    let taints: Vec<_> =
        taint.map(|key| json!({"key": key, "effect": "NoSchedule"})).into_iter().collect();
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"taints": taints},
        "status": {"capacity": amounts, "conditions": [{"type": "Ready", "status": "True"}]}
    })
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": cpu}}}]}
    })
}

#[test]
fn a_pod_that_waits_is_told_what_would_help() {
    // At real speed: nobody plays the kubelets of these nodes, and they are not missed for a while.
    let wharf = Wharf::start(&Options { speed: 1, ..Options::default() });
    let kubectl = wharf.kubectl();
    let objects =
        [node("a", None), node("b", Some("dedicated")), pod("small", "3"), pod("large", "3500m")];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    kubectl.input("apply -f -", &list.to_string()).ok();
    wait_for("both pods to be decided on", || {
        let small = kubectl.json("get pod small -o json");
        let large = kubectl.json("get pod large -o json");
        let decided = small["spec"]["nodeName"] == "a"
            && large["status"]["conditions"][0]["reason"] == "Unschedulable";
        if decided { Ok(()) } else { Err(format!("{small}\n{large}")) }
    });
    let text = wharf.wharf(&["why", "pod/large"]).ok();
    for line in [
        "none of 2 nodes takes it now:",
        "  NODE  REFUSED BY        BECAUSE",
        "  a     NodeResourcesFit  cpu: asks 3500m, free 1 of 4, short 2500m",
        "  b     TaintToleration   does not tolerate taint dedicated:NoSchedule",
        "what would make it fit, the smallest change first:",
        "  tolerate dedicated:NoSchedule      then b takes it",
        "  take pod default/small off a       then a takes it",
    ] {
        assert!(text.lines().any(|known| known == line), "{line:?} is not in\n{text}");
    }
    let told: Value =
        serde_json::from_str(&wharf.wharf(&["why", "pod/large", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(told["now"]["remedies"][0]["says"], json!(["tolerate dedicated:NoSchedule"]));
    assert_eq!(told["now"]["refused"][1]["plugin"], "TaintToleration");
    // Of one that runs, the decision is told, and scripts learn how it would fall now.
    let told: Value =
        serde_json::from_str(&wharf.wharf(&["why", "pod/small", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(told["now"]["best"][0]["node"], "a");
    assert_eq!(told["reasons"][0]["decision"], "goes to node a");
}
