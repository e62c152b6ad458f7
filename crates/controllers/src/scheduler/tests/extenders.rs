//! Programs that have a say in where pods go.

use super::*;

fn lab(extenders: &str) -> Lab {
    let text = format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nextenders:\n{extenders}"
    );
    let configuration = wharf_scheduler::config::load(&text, "s.yaml").unwrap();
    let mut lab = Lab { scheduler: Scheduler::new(configuration), ..Lab::new() };
    for name in ["a", "b", "c"] {
        lab.node(name, "4", json!([]));
    }
    lab
}

impl Lab {
    /// The one question that is open: its URL and body.
    fn asked(&mut self) -> (String, Value) {
        let [call] = self.calls.as_slice() else { panic!("one question: {:?}", self.calls) };
        (call.url.clone(), serde_json::from_str(&call.body).unwrap())
    }

    /// Answers the question that was put to this URL.
    fn answer(&mut self, url: &str, result: Result<Value, &str>) {
        let at = self.calls.iter().position(|call| call.url == url).expect(url);
        let id = self.calls.remove(at).id;
        let result = result.map(|body| body.to_string()).map_err(str::to_owned);
        let mut queue = Enqueue::default();
        self.scheduler.answered(&ExtenderAnswer { id, result }, &mut queue);
        assert_eq!(queue.take().len(), 1);
        self.wake = Some(self.now);
        self.settle();
        self.check_state();
    }
}

const ALL: &str = "- {urlPrefix: 'http://e', filterVerb: f, prioritizeVerb: p, weight: 2, bindVerb: b, nodeCacheCapable: true}\n";

#[test]
fn they_filter_score_and_bind() {
    let mut lab = lab(ALL);
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    lab.pod("q", json!({"cpu": "1"}), json!({}));
    lab.settle();
    let (url, body) = lab.asked();
    assert_eq!(url, "http://e/f");
    assert_eq!(body["Pod"]["metadata"]["name"], "p");
    assert_eq!(body["NodeNames"], json!(["a", "b", "c"]));
    assert_eq!(body["Nodes"], Value::Null);
    let kept = json!({"nodenames": ["b", "c"], "failedNodes": {"a": "no"}});
    lab.answer("http://e/f", Ok(kept));
    assert_eq!(lab.asked().1["NodeNames"], json!(["b", "c"]));
    lab.answer("http://e/p", Ok(json!([{"Host": "c", "Score": 9}, {"Host": "b", "Score": 1}])));
    // The binding of the first is under way while the second is asked about.
    let binding = lab.calls.iter().find(|call| call.url == "http://e/b").unwrap();
    let body: Value = serde_json::from_str(&binding.body).unwrap();
    assert_eq!(
        body,
        json!({"PodName": "p", "PodNamespace": "default", "PodUID": "p-uid", "Node": "c"})
    );
    assert_eq!(lab.node_of("p"), None, "the scheduler does not bind it");
    assert_eq!(lab.scheduler.assumed.len(), 1);
    lab.answer("http://e/b", Ok(json!({"Error": "not today"})));
    assert_eq!(
        lab.message("p").as_deref(),
        Some("running Bind plugin \"DefaultBinder\": not today")
    );
    lab.answer("http://e/f", Ok(json!({"NodeNames": ["a"]})));
    assert_eq!(lab.calls[0].url, "http://e/b", "a single node is not scored");
    let key = ObjectKey::namespaced("default", "q");
    let (uid, node) = ("q-uid".into(), "a".into());
    lab.execute(&Write::Bind { pod: key, uid, node }).unwrap();
    lab.answer("http://e/b", Ok(json!({})));
    assert_eq!(lab.told("Scheduled"), ["Successfully assigned default/q to a"]);
    assert_eq!(lab.scheduler.assumed.len(), 0);
}

#[test]
fn their_refusals_are_told_and_any_news_wakes() {
    let mut lab = lab("- {urlPrefix: 'http://e', filterVerb: f}\n");
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    lab.settle();
    let (_, body) = lab.asked();
    let nodes = body["Nodes"]["items"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    assert_eq!(nodes[0]["status"]["allocatable"]["cpu"], "4");
    let refused = json!({
        "nodes": {"items": []},
        "failedNodes": {"a": "busy", "b": "busy"},
        "failedAndUnresolvableNodes": {"b": "broken"}
    });
    lab.answer("http://e/f", Ok(refused.clone()));
    let message = lab.message("p").unwrap();
    assert!(message.starts_with("0/3 nodes are available: 1 broken, 1 busy."), "{message}");
    lab.wait(Duration::from_secs(60));
    assert!(lab.calls.is_empty(), "it sleeps");
    lab.node("d", "4", json!([]));
    lab.wait(Duration::from_secs(1));
    // What happens while it is asked about is not lost.
    lab.node("e", "4", json!([]));
    lab.answer("http://e/f", Ok(refused));
    lab.wait(Duration::from_secs(10));
    let items = lab.asked().1["Nodes"]["items"].as_array().unwrap().len();
    assert_eq!(items, 5, "asked again");
    lab.answer("http://e/f", Ok(json!({"nodes": {"items": [{"metadata": {"name": "e"}}]}})));
    assert_eq!(lab.node_of("p"), Some("e"));
}

#[test]
fn one_that_fails_is_done_without_if_it_may_fail() {
    let mut lab = lab(
        "- {urlPrefix: 'http://may', filterVerb: f, ignorable: true}\n- {urlPrefix: 'http://must', filterVerb: f, prioritizeVerb: p, weight: 1}\n",
    );
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    lab.settle();
    lab.answer("http://must/f", Err("nobody there"));
    assert_eq!(lab.message("p").as_deref(), Some("extender http://must: nobody there"));
    lab.wait(Duration::from_secs(2));
    let all: Vec<_> = ["a", "b", "c"].map(|name| json!({"metadata": {"name": name}})).into();
    lab.answer("http://must/f", Ok(json!({"Nodes": {"items": all}})));
    lab.answer("http://may/f", Err("nobody there"));
    lab.answer("http://must/p", Err("nobody there"));
    assert_eq!(lab.node_of("p"), Some("a"), "scores are done without");
    // An answer that makes no sense is a failure too.
    lab.pod("q", json!({"cpu": "1"}), json!({}));
    lab.settle();
    lab.answer("http://must/f", Ok(json!({"Nodes": {"items": [{"metadata": {"name": "x"}}]}})));
    assert!(lab.message("q").unwrap().contains("not asked about"));
}

#[test]
fn what_changes_meanwhile_is_heeded() {
    let mut lab = lab(
        "- {urlPrefix: 'http://e', filterVerb: f, nodeCacheCapable: true, managedResources: [{name: example.com/device, ignoredByScheduler: true}]}\n",
    );
    lab.pod("other", json!({"cpu": "1"}), json!({}));
    lab.settle();
    assert_eq!(lab.node_of("other"), Some("a"), "it is not the extender's business");
    let wants = json!({"cpu": "4", "example.com/device": "1"});
    lab.pod("p", wants.clone(), json!({}));
    lab.settle();
    assert_eq!(lab.asked().1["NodeNames"], json!(["b", "c"]));
    // Somebody else takes the room on one of them.
    lab.pod("taker", json!({"cpu": "1"}), json!({"nodeName": "b"}));
    lab.answer("http://e/f", Ok(json!({"NodeNames": ["b"]})));
    assert_eq!(lab.node_of("p"), None);
    // It is asked about c again; then it goes, and the next one has its turn.
    lab.wait(Duration::from_secs(2));
    assert_eq!(lab.asked().1["NodeNames"], json!(["c"]));
    lab.pod("q", wants, json!({}));
    lab.settle();
    assert_eq!(lab.calls.len(), 1, "one at a time");
    lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "p"));
    lab.settle();
    assert_eq!(lab.calls.len(), 2);
    lab.answer("http://e/f", Ok(json!({"NodeNames": ["c"]})));
    assert_eq!(lab.node_of("q"), None, "that was about another pod");
    lab.answer("http://e/f", Ok(json!({"NodeNames": ["c"]})));
    assert_eq!(lab.node_of("q"), Some("c"));
}

#[test]
fn where_room_was_made_is_asked_about_first() {
    for (fits, kept) in [(true, json!([])), (false, json!(["b"])), (true, json!(["b"]))] {
        let mut lab = lab("- {urlPrefix: 'http://e', filterVerb: f, nodeCacheCapable: true}\n");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default", "uid": "p-uid"},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "resources": {"requests": {"cpu": "4"}}}]},
            "status": {"nominatedNodeName": "b"}
        }))
        .unwrap();
        lab.put(Box::new(pod));
        lab.settle();
        assert_eq!(lab.asked().1["NodeNames"], json!(["b"]));
        if !fits {
            lab.pod("taker", json!({"cpu": "1"}), json!({"nodeName": "b"}));
        }
        let good = fits && kept != json!([]);
        lab.answer("http://e/f", Ok(json!({"NodeNames": kept})));
        if good {
            assert_eq!(lab.node_of("p"), Some("b"));
            continue;
        }
        let others = if fits { json!(["a", "b", "c"]) } else { json!(["a", "c"]) };
        assert_eq!(lab.asked().1["NodeNames"], others);
        lab.answer("http://e/f", Ok(json!({"NodeNames": ["c"]})));
        assert_eq!(lab.node_of("p"), Some("c"));
    }
}

const PREEMPTS: &str = "- {urlPrefix: 'http://e', preemptVerb: v, nodeCacheCapable: true}\n";

/// Three nodes that are full: two pods of low priority on `a`, one of a middle one on `b`, one that
/// nobody pushes out on `c`; and a pod that wants 2 cpu.
fn full(extenders: &str) -> Lab {
    let mut lab = lab(extenders);
    for (name, node, cpu, priority) in
        [("a1", "a", "2", 1), ("a2", "a", "2", 2), ("b1", "b", "4", 50), ("c1", "c", "4", 500)]
    {
        lab.pod(name, json!({"cpu": cpu}), json!({"nodeName": node, "priority": priority}));
    }
    lab.pod("p", json!({"cpu": "2"}), json!({"priority": 100}));
    lab.settle();
    lab
}

impl Lab {
    fn leaving(&self) -> Vec<&str> {
        let pods = self.view.list::<Pod>();
        let leaving = pods.filter(|pod| pod.metadata.deletion_timestamp.is_some());
        leaving.map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
    }

    fn nominated(&self, pod: &str) -> Option<String> {
        self.status(pod).nominated_node_name
    }
}

fn left(candidates: Value) -> Result<Value, &'static str> {
    Ok(json!({"NodeNameToMetaVictims": candidates}))
}

#[test]
fn they_have_a_say_in_who_is_pushed_out() {
    // The cheapest without them, another of the candidates, another victim, a node of their own.
    for (answer, node, victim) in [
        (
            json!({"a": {"Pods": [{"UID": "a1-uid"}]}, "b": {"Pods": [{"UID": "b1-uid"}]}}),
            "a",
            "a1",
        ),
        (json!({"b": {"Pods": [{"UID": "b1-uid"}]}}), "b", "b1"),
        (json!({"a": {"Pods": [{"UID": "a2-uid"}]}}), "a", "a2"),
        (json!({"c": {"Pods": [{"UID": "c1-uid"}]}}), "c", "c1"),
        // What they say of budgets counts before anything else.
        (
            json!({"a": {"Pods": [{"UID": "a1-uid"}], "NumPDBViolations": 1}, "b": {"Pods": [{"UID": "b1-uid"}]}}),
            "b",
            "b1",
        ),
    ] {
        let mut lab = full(PREEMPTS);
        let (url, body) = lab.asked();
        assert_eq!(url, "http://e/v");
        assert_eq!(body["Pod"]["metadata"]["name"], "p");
        assert_eq!(body["NodeNameToVictims"], Value::Null);
        let told = json!({
            "a": {"Pods": [{"UID": "a1-uid"}], "NumPDBViolations": 0},
            "b": {"Pods": [{"UID": "b1-uid"}], "NumPDBViolations": 0}
        });
        assert_eq!(body["NodeNameToMetaVictims"], told);
        assert!(lab.leaving().is_empty() && lab.message("p").is_none());
        lab.answer("http://e/v", left(answer));
        assert_eq!(lab.leaving(), [victim]);
        assert_eq!(lab.nominated("p").as_deref(), Some(node));
        assert_eq!(
            lab.message("p").as_deref(),
            Some("0/3 nodes are available: 3 Insufficient cpu.")
        );
    }
}

#[test]
fn one_that_keeps_no_pods_is_sent_them_and_the_next_what_is_left() {
    let mut lab = full(
        "- {urlPrefix: 'http://one', preemptVerb: v}\n- {urlPrefix: 'http://two', preemptVerb: w}\n- {urlPrefix: 'http://three', preemptVerb: x, managedResources: [{name: example.com/d}]}\n",
    );
    let (_, body) = lab.asked();
    assert_eq!(body["NodeNameToMetaVictims"], Value::Null);
    let sent = &body["NodeNameToVictims"];
    assert_eq!(sent["a"]["Pods"][0]["metadata"]["name"], "a1");
    assert_eq!(sent["b"]["Pods"][0]["spec"]["nodeName"], "b");
    lab.answer("http://one/v", left(json!({"b": {"Pods": [{"UID": "b1-uid"}]}})));
    let (url, body) = lab.asked();
    assert_eq!(url, "http://two/w");
    let names: Vec<_> = body["NodeNameToVictims"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["b"]);
    lab.answer("http://two/w", left(json!({"b": {"Pods": [{"UID": "b1-uid"}]}})));
    assert_eq!(lab.leaving(), ["b1"]);
}

#[test]
fn nobody_is_pushed_out_against_their_will() {
    let refused = "0/3 nodes are available: 3 Insufficient cpu.";
    for (answer, text) in [
        (
            left(json!({})),
            " no new claims to deallocate, preemption: no candidate node for preemption",
        ),
        (
            Ok(json!(null)),
            " no new claims to deallocate, preemption: no candidate node for preemption",
        ),
        (Err("nobody there"), " preemption: nobody there"),
        (
            left(json!({"x": {"Pods": [{"UID": "a1-uid"}]}})),
            " preemption: nodeinfo not found for node name \"x\"",
        ),
        (
            left(json!({"a": {"Pods": []}})),
            " preemption: expected at least one victim pod on node \"a\"",
        ),
        (
            left(json!({"a": {"Pods": [{"UID": "b1-uid"}]}})),
            " preemption: extender: http://e claims to preempt pod (UID: &{b1-uid}) on node: a, but the pod is not found on that node",
        ),
    ] {
        let mut lab = full(PREEMPTS);
        lab.answer("http://e/v", answer);
        assert_eq!(lab.message("p").unwrap(), format!("{refused}{text}"));
        assert_eq!((lab.leaving(), lab.nominated("p")), (vec![], None));
        lab.wait(Duration::from_secs(60));
        assert!(lab.calls.is_empty(), "it sleeps");
    }
    // One that may fail is done without; a node without victims is left out.
    for answer in
        [Err("nobody there"), left(json!({"a": {"Pods": []}, "b": {"Pods": [{"UID": "b1-uid"}]}}))]
    {
        let expected = if answer.is_ok() { ["b1"] } else { ["a1"] };
        let mut lab = full(
            "- {urlPrefix: 'http://e', preemptVerb: v, nodeCacheCapable: true, ignorable: true}\n",
        );
        lab.answer("http://e/v", answer);
        assert_eq!(lab.leaving(), expected);
    }
}

#[test]
fn who_has_gone_meanwhile_is_not_pushed_out() {
    let candidates =
        || left(json!({"a": {"Pods": [{"UID": "a1-uid"}]}, "b": {"Pods": [{"UID": "b1-uid"}]}}));
    let mut lab = full(PREEMPTS);
    lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "a1"));
    lab.answer("http://e/v", candidates());
    assert_eq!(lab.leaving(), ["b1"], "the one that is left");
    // With all of them gone it is simply tried again.
    let mut lab = full(PREEMPTS);
    for name in ["a1", "b1"] {
        lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", name));
    }
    lab.answer("http://e/v", candidates());
    lab.wait(Duration::from_secs(2));
    assert_eq!(lab.node_of("p"), Some("b"));
    // So it is when the node is gone, or the pod itself.
    let mut lab = full(PREEMPTS);
    lab.remove(Kind::of::<Node>(), &ObjectKey::cluster("a"));
    lab.answer("http://e/v", candidates());
    assert!(!lab.leaving().is_empty());
    let mut lab = full(PREEMPTS);
    lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "p"));
    lab.settle();
    lab.answer("http://e/v", candidates());
    assert!(lab.leaving().is_empty());
}

#[test]
fn filters_are_heard_before_victims_are_looked_at() {
    let mut lab =
        lab("- {urlPrefix: 'http://e', filterVerb: f, preemptVerb: v, nodeCacheCapable: true}\n");
    for (name, node) in [("a1", "a"), ("b1", "b")] {
        lab.pod(name, json!({"cpu": "4"}), json!({"nodeName": node}));
    }
    lab.pod("p", json!({"cpu": "2"}), json!({"priority": 100}));
    lab.settle();
    assert_eq!(lab.asked().1["NodeNames"], json!(["c"]));
    lab.answer("http://e/f", Ok(json!({"NodeNames": [], "FailedNodes": {"c": "no"}})));
    let (url, body) = lab.asked();
    assert_eq!(url, "http://e/v");
    let names: Vec<_> = body["NodeNameToMetaVictims"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["a", "b"]);
    // What happens now is heard too.
    lab.node("c", "5", json!([]));
    lab.answer("http://e/v", left(json!({})));
    lab.wait(Duration::from_secs(2));
    assert_eq!(lab.asked().0, "http://e/f", "it is tried again");
}

#[test]
fn room_made_for_one_that_goes_while_it_is_asked_about_is_free_again() {
    let mut lab = lab(
        "- {urlPrefix: 'http://e', filterVerb: f, nodeCacheCapable: true, managedResources: [{name: example.com/d, ignoredByScheduler: true}]}\n",
    );
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "p-uid"},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "resources": {"requests": {"cpu": "4", "example.com/d": "1"}}}]},
        "status": {"nominatedNodeName": "b"}
    }))
    .unwrap();
    lab.put(Box::new(pod));
    lab.settle();
    assert_eq!(lab.asked().1["NodeNames"], json!(["b"]));
    lab.pod("q", json!({"cpu": "4"}), json!({"nodeSelector": {"x": "y"}}));
    lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "p"));
    assert_eq!(lab.scheduler.snapshot.nomination("p-uid"), None);
}
