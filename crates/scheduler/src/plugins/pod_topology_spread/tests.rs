use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::cycle::evaluate;
use crate::profile::{Plugin, Profile, SpreadDefaults};
use crate::snapshot::Snapshot;
use crate::testing::{cluster, node, pod, scores};

const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Three nodes in two zones, and one without a zone.
fn nodes() -> Vec<Node> {
    [("a1", Some("a")), ("a2", Some("a")), ("b1", Some("b")), ("none", None)]
        .map(|(name, zone)| {
            let mut labels = json!({HOSTNAME: name});
            if let Some(zone) = zone {
                labels[ZONE] = json!(zone);
            }
            node(name, json!({"labels": labels}), json!({}))
        })
        .into()
}

fn app(name: &str, on: &str, spread: Value) -> Pod {
    let mut pod = pod(name, json!({}));
    pod.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
    let spec = pod.spec.as_mut().unwrap();
    spec.node_name = Some(on.to_owned()).filter(|on| !on.is_empty());
    spec.topology_spread_constraints = serde_json::from_value(spread).unwrap();
    pod
}

fn constraint(when: &str, skew: i64, min_domains: Option<i64>) -> Value {
    json!([{
        "maxSkew": skew, "topologyKey": ZONE, "whenUnsatisfiable": when, "minDomains": min_domains,
        "labelSelector": {"matchLabels": {"app": "web"}}
    }])
}

/// What each node says in words for people; empty if it would do.
fn says(nodes: &[Node], pods: &[Pod], pod: &Pod, profile: &Profile) -> Vec<String> {
    let (snapshot, pod) = cluster(nodes, pods, pod);
    let evaluation = evaluate(&snapshot, &pod, profile);
    let mut says: Vec<_> = evaluation
        .nodes
        .iter()
        .map(|(node, refused)| {
            let name = snapshot.node(*node).facts.name.clone();
            (name, refused.map_or(String::new(), |no| no.explain(&pod, *node, &snapshot)))
        })
        .collect();
    says.sort();
    says.into_iter().map(|(_, says)| says).collect()
}

#[test]
fn a_refusal_tells_the_counts() {
    let pods = ["a1", "a2", "b1"].map(|on| app(&format!("on-{on}"), on, Value::Null));
    let told = |min_domains| {
        let asked = app("p", "", constraint("DoNotSchedule", 1, min_domains));
        says(&nodes(), &pods, &asked, &Profile::default())
    };
    let crowded = "topology.kubernetes.io/zone a has 2 matching pods, the least is 1, maxSkew 1";
    let unlabelled = "none has no label topology.kubernetes.io/zone";
    assert_eq!(told(None), [crowded, crowded, "", unlabelled]);
    let few = |zone: &str, pods: &str| {
        format!(
            "topology.kubernetes.io/zone {zone} has {pods}, the least counts as 0 with 2 domains of minDomains 3, maxSkew 1"
        )
    };
    let (a, b) = (few("a", "2 matching pods"), few("b", "1 matching pod"));
    assert_eq!(told(Some(3)), [a.as_str(), a.as_str(), b.as_str(), unlabelled]);
}

#[test]
fn normalisation_follows_the_vectors() {
    let with = |raw: [i64; 3]| {
        let mut scores = raw;
        super::score::normalize(&mut scores);
        scores
    };
    assert_eq!(with([10, 14, 20]), [100, 80, 50]);
    assert_eq!(with([0, 0, 0]), [100, 100, 100]);
    assert_eq!(with([10, -1, 20]), [100, 0, 50], "nodes left out get nothing");
}

#[test]
fn preferred_constraints_leave_nodes_without_the_key_out() {
    let pods = [app("one", "a1", Value::Null)];
    let asked = app("p", "", constraint("ScheduleAnyway", 1, None));
    let (snapshot, info) = cluster(&nodes(), &pods, &asked);
    let mut scores: Vec<_> = evaluate(&snapshot, &info, &Profile::default())
        .candidates
        .iter()
        .map(|candidate| {
            let score = candidate.scores.iter().find(|(by, _)| *by == Plugin::PodTopologySpread);
            (snapshot.node(candidate.node).facts.name.to_string(), score.map(|(_, score)| *score))
        })
        .collect();
    scores.sort();
    let expected = [("a1", 0), ("a2", 0), ("b1", 200), ("none", 0)];
    assert_eq!(scores, expected.map(|(name, score)| (name.to_owned(), Some(score))));
}

fn with_service(snapshot: &mut Snapshot) {
    let service = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}}
    });
    snapshot.set_service(&serde_json::from_value(service).unwrap());
}

#[test]
fn pods_of_a_service_are_spread_by_default_and_others_are_not() {
    let pods = [app("one", "a1", Value::Null), app("two", "a2", Value::Null)];
    let asked = app("p", "", Value::Null);
    assert_eq!(scores(&nodes(), &pods, &asked, Plugin::PodTopologySpread), [0; 4]);
    let (mut snapshot, info) = cluster(&nodes(), &pods, &asked);
    with_service(&mut snapshot);
    let candidates = evaluate(&snapshot, &info, &Profile::default()).candidates;
    let best = candidates.iter().max_by_key(|candidate| {
        let score = candidate.scores.iter().find(|(by, _)| *by == Plugin::PodTopologySpread);
        score.map_or(0, |(_, score)| *score)
    });
    assert_eq!(snapshot.node(best.unwrap().node).facts.name, "none", "it is in no crowded zone");
}

#[test]
fn a_profile_can_have_required_constraints_by_default() {
    let listed = constraint("DoNotSchedule", 1, None);
    let mut listed: Vec<k8s_openapi::api::core::v1::TopologySpreadConstraint> =
        serde_json::from_value(listed).unwrap();
    listed[0].label_selector = None;
    let mut profile = Profile::default();
    profile.arguments.spread_defaults = SpreadDefaults::List(listed);
    let pods = [app("one", "a1", Value::Null)];
    let asked = app("p", "", Value::Null);
    let (mut snapshot, info) = cluster(&nodes(), &pods, &asked);
    let refused = |snapshot: &Snapshot| {
        let evaluation = evaluate(snapshot, &info, &profile);
        evaluation.nodes.iter().filter(|(_, refused)| refused.is_some()).count()
    };
    assert_eq!(refused(&snapshot), 0, "nothing selects the pod");
    with_service(&mut snapshot);
    assert_eq!(refused(&snapshot), 3, "zone a has one more than b, and one node has no zone");
    assert_eq!(says(&nodes(), &pods, &asked, &profile), [""; 4]);
}
