use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::score::normalize;
use crate::cycle::evaluate;
use crate::profile::Profile;
use crate::testing::{cluster, node, pod};

fn nodes() -> [Node; 3] {
    [("a1", json!({"zone": "a"})), ("a2", json!({"zone": "a"})), ("bare", json!({}))]
        .map(|(name, labels)| node(name, json!({"labels": labels}), json!({})))
}

fn labelled(name: &str, app: &str, on: &str, affinity: Value) -> Pod {
    let mut pod = pod(name, json!({}));
    pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
    let spec = pod.spec.as_mut().unwrap();
    spec.node_name = Some(on.to_owned()).filter(|on| !on.is_empty());
    spec.affinity = serde_json::from_value(affinity).unwrap();
    pod
}

fn required(kind: &str, app: &str) -> Value {
    json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}}
    ]}})
}

/// What each node says in words for people; empty if it would do.
fn says(pods: &[Pod], pod: &Pod) -> Vec<String> {
    let (snapshot, pod) = cluster(&nodes(), pods, pod);
    let evaluation = evaluate(&snapshot, &pod, &Profile::default());
    let explain = |(node, refused): &(_, Option<crate::plugins::Rejection>)| {
        refused.map_or(String::new(), |refused| refused.explain(&pod, *node, &snapshot))
    };
    let mut says: Vec<_> = evaluation
        .nodes
        .iter()
        .map(|said| (snapshot.node(said.0).facts.name.clone(), explain(said)))
        .collect();
    says.sort();
    says.into_iter().map(|(_, says)| says).collect()
}

#[test]
fn a_refusal_names_the_pod_in_the_way() {
    let web = labelled("web-1", "web", "a1", Value::Null);
    let apart = labelled("p", "p", "", required("podAntiAffinity", "web"));
    let told = "its anti-affinity keeps it apart from default/web-1 on a1 (zone a)";
    assert_eq!(says(std::slice::from_ref(&web), &apart), [told, told, ""]);
    let second = labelled("web-2", "web", "a2", Value::Null);
    let more = format!("{told} and 1 more");
    assert_eq!(says(&[web, second], &apart), [more.as_str(), more.as_str(), ""]);
    let loner = labelled("loner", "loner", "a2", required("podAntiAffinity", "p"));
    let told = "the anti-affinity of default/loner on a2 keeps it out (zone a)";
    assert_eq!(says(&[loner], &labelled("p", "p", "", Value::Null)), [told, told, ""]);
}

#[test]
fn a_refusal_tells_that_nobody_is_there_to_be_near() {
    let near = labelled("p", "p", "", required("podAffinity", "web"));
    let nobody = "zone a has no pod that its affinity selects";
    assert_eq!(says(&[], &near), [nobody, nobody, "bare has no label zone"]);
}

#[test]
fn the_first_of_a_group_may_be_anywhere_that_has_the_key() {
    let first = labelled("p", "web", "", required("podAffinity", "web"));
    assert_eq!(says(&[], &first), ["", "", "bare has no label zone"]);
    let strange = labelled("other", "web", "bare", Value::Null);
    assert_eq!(says(&[strange], &first)[0], "", "a pod on a node without the key does not count");
}

#[test]
fn normalisation_follows_the_vectors() {
    for (raw, expected) in [([-1, 0, 2], [0, 33, 100]), ([5, 5, 5], [0, 0, 0])] {
        let mut scores = raw;
        normalize(&mut scores);
        assert_eq!(scores, expected, "{raw:?}");
    }
    // The truncation of floating point shows.
    let mut scores = [0, 29, 100];
    normalize(&mut scores);
    assert_eq!(scores, [0, 28, 100]);
}

/// Upstream counts by key and value all that any term selects: one pod less leaves the others.
#[test]
fn a_trial_takes_a_pod_out_of_the_term_that_selects_it() {
    let term = |app: &str| {
        required("podAntiAffinity", app)["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0].clone()
    };
    let terms = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("web"), term("db"), term("db")]}});
    let apart = labelled("p", "p", "", terms);
    let there = ["web", "db"].map(|app| labelled(app, app, "a1", Value::Null));
    let (snapshot, apart) = cluster(&nodes(), &there, &apart);
    let index = snapshot.find("a1").unwrap();
    for order in [["web", "db"], ["db", "web"]] {
        let mut state = super::filter::State::new(&apart, &snapshot).unwrap();
        for (gone, app) in order.into_iter().enumerate() {
            assert!(state.check(index).is_some(), "{gone} of 2 are gone, {app} is there");
            let pods = &snapshot.node(index).pods;
            let pod = pods.iter().find(|pod| pod.key.name == app).unwrap();
            state.pod_changed(pod, index, -1);
        }
        assert!(state.check(index).is_none());
    }
}
