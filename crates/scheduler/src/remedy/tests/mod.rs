//! Remedies by table, and that they are proven and minimal: here for what nodes and pods have of their
//! own, in `others` for what depends on other pods, volumes and devices.

mod others;

use k8s_openapi::api::core::v1::Node;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{cluster, node, pod, sized};

fn advice(nodes: &[Node], pods: &[Pod], pod: &Pod) -> Vec<(String, String, usize)> {
    let (mut snapshot, _) = cluster(nodes, pods, pod);
    let told = |remedy: Remedy| {
        let changes: Vec<_> = remedy.changes.iter().map(ToString::to_string).collect();
        (changes.join(" and "), remedy.node.to_string(), remedy.nodes)
    };
    remedies(&mut snapshot, pod, &Profile::default()).into_iter().map(told).collect()
}

fn first(nodes: &[Node], pods: &[Pod], pod: &Pod) -> String {
    let advice = advice(nodes, pods, pod);
    advice.first().unwrap_or_else(|| panic!("there is advice")).0.clone()
}

fn large(name: &str) -> Node {
    sized(name, json!({"cpu": "4", "memory": "8Gi", "pods": "3"}))
}

fn tainted(name: &str, key: &str) -> Node {
    let taints = json!({"taints": [{"key": key, "value": "v", "effect": "NoSchedule"}]});
    node(name, json!({}), taints)
}

fn running(name: &str, on: &str, requests: Value) -> Pod {
    let mut pod = pod(name, requests);
    pod.spec.as_mut().unwrap().node_name = Some(on.to_owned());
    pod
}

fn with(mut pod: Pod, spec: Value) -> Pod {
    let mut all = serde_json::to_value(&pod.spec).unwrap();
    for (name, value) in spec.as_object().unwrap() {
        all[name] = value.clone();
    }
    pod.spec = serde_json::from_value(all).unwrap();
    pod
}

#[test]
fn a_pod_that_fits_needs_no_remedy() {
    assert_eq!(advice(&[large("a")], &[], &pod("p", json!({"cpu": "1"}))), []);
    assert_eq!(advice(&[], &[], &pod("p", json!({"cpu": "1"}))), []);
}

#[test]
fn a_request_is_cut_to_what_is_free_on_the_roomiest_node() {
    let nodes = [large("a"), large("b")];
    let pods =
        [running("a1", "a", json!({"cpu": "2590m"})), running("b1", "b", json!({"cpu": "3"}))];
    let advice = advice(&nodes, &pods, &pod("p", json!({"cpu": "2"})));
    assert_eq!(advice[0], ("ask for 1410m of cpu instead of 2".into(), "a".into(), 1));
    assert!(advice.iter().any(|(says, ..)| says.starts_with("take pod default/")), "{advice:?}");
    let both = pod("p", json!({"cpu": "5", "memory": "9Gi"}));
    assert_eq!(
        first(&nodes[..1], &[], &both),
        "ask for 4 of cpu instead of 5 and ask for 8Gi of memory instead of 9Gi"
    );
}

#[test]
fn a_taint_is_tolerated_unless_it_says_that_the_node_is_not_well() {
    let nodes = [tainted("a", "dedicated"), tainted("b", "node.kubernetes.io/not-ready")];
    let advice = advice(&nodes, &[], &pod("p", json!({"cpu": "1"})));
    assert_eq!(advice, [("tolerate dedicated=v:NoSchedule".into(), "a".into(), 1)]);
}

#[test]
fn several_changes_go_together_where_one_is_not_enough() {
    let mut only = tainted("a", "dedicated");
    only.spec.as_mut().unwrap().unschedulable = Some(true);
    let asked = with(pod("p", json!({"cpu": "5"})), json!({"nodeSelector": {"disk": "ssd"}}));
    assert_eq!(
        first(&[only], &[], &asked),
        "ask for 4 of cpu instead of 5 and tolerate dedicated=v:NoSchedule and uncordon a and do without node selector disk=ssd"
    );
}

#[test]
fn the_smaller_of_two_changes_comes_first() {
    // To tolerate the taint of an empty node is less than to cut half of what is asked.
    let nodes = [tainted("a", "dedicated"), large("b")];
    let pods = [running("b1", "b", json!({"cpu": "3"}))];
    let advice = advice(&nodes, &pods, &pod("p", json!({"cpu": "2"})));
    let says: Vec<_> = advice.iter().map(|(says, ..)| says.as_str()).collect();
    assert_eq!(
        says,
        [
            "tolerate dedicated=v:NoSchedule",
            "ask for 1 of cpu instead of 2",
            "take pod default/b1 off b"
        ]
    );
}

#[test]
fn slots_and_ports_are_given_by_others() {
    let full: Vec<_> =
        ["x", "y", "z"].map(|name| running(name, "a", json!({"cpu": "100m"}))).into();
    assert_eq!(first(&[large("a")], &full, &pod("p", json!({}))), "take pod default/x off a");
    let port =
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    let holder = with(running("x", "a", json!({})), port.clone());
    let advice = advice(&[large("a")], &[holder], &with(pod("p", json!({})), port));
    let says: Vec<_> = advice.iter().map(|(says, ..)| says.as_str()).collect();
    assert_eq!(says, ["do without host port 80/TCP", "take pod default/x off a"]);
}

#[test]
fn terms_that_cannot_hold_are_dropped() {
    let field = |name: &str| json!({"key": "metadata.name", "operator": "In", "values": [name]});
    let affinity = |fields: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": fields}]}}}})
    };
    for fields in [json!([field("a"), field("b")]), json!([field("gone")])] {
        let asked = with(pod("p", json!({"cpu": "1"})), affinity(fields));
        assert_eq!(first(&[large("a")], &[], &asked), "do without the required node affinity");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is advised works, and nothing less does.
    #[test]
    fn advice_is_proven_and_minimal(
        nodes in prop::collection::vec((1..6_u32, 0..3_u8, any::<bool>()), 1..5),
        running in prop::collection::vec((0..5_usize, 1..40_u32), 0..8),
        asked in 10..80_u32, select in any::<bool>(),
    ) {
        let nodes: Vec<Node> = nodes.iter().enumerate().map(|(index, (cpu, taints, ssd))| {
            let mut node = sized(&format!("n{index}"), json!({"cpu": cpu.to_string(), "memory": "8Gi", "pods": "4"}));
            let taint = |name: u8| json!({"key": format!("t{name}"), "effect": "NoSchedule"});
            let taints: Vec<_> = (0..*taints).map(taint).collect();
            node.spec = serde_json::from_value(json!({"taints": taints})).unwrap();
            if *ssd {
                node.metadata.labels = Some([("disk".to_owned(), "ssd".to_owned())].into());
            }
            node
        }).collect();
        let pods: Vec<Pod> = running.iter().enumerate().map(|(index, (on, cpu))| {
            super::tests::running(&format!("r{index}"), &format!("n{on}"), json!({"cpu": format!("{cpu}00m")}))
        }).collect();
        let mut asked = pod("p", json!({"cpu": format!("{asked}00m")}));
        if select {
            asked = with(asked, json!({"nodeSelector": {"disk": "ssd"}}));
        }
        let (mut snapshot, _) = cluster(&nodes, &pods, &asked);
        let before = snapshot.clone();
        let profile = Profile::default();
        let found = remedies(&mut snapshot, &asked, &profile);
        for index in before.nodes() {
            let (was, is) = (before.node(*index), snapshot.node(*index));
            prop_assert_eq!(&was.requested, &is.requested, "the search leaves no trace");
        }
        prop_assert!(found.is_sorted_by_key(|remedy| remedy.cost));
        for remedy in &found {
            let fits = |changes: &[Change]| {
                let gone = |pod: &&Pod| changes.iter().any(|change| {
                    matches!(change, Change::PodGone { pod: gone, .. } if Some(gone.name.as_str()) == pod.metadata.name.as_deref())
                });
                let left: Vec<_> = pods.iter().filter(|pod| !gone(pod)).cloned().collect();
                let (snapshot, info) = cluster(&nodes, &left, &change::changed(&asked, changes));
                evaluate(&snapshot, &info, &profile).candidates.len()
            };
            prop_assert_eq!(fits(&remedy.changes), remedy.nodes);
            for index in 0..remedy.changes.len() {
                let mut fewer = remedy.changes.clone();
                fewer.remove(index);
                prop_assert_eq!(fits(&fewer), 0, "{:?} is needed", remedy.changes[index]);
            }
        }
    }
}
