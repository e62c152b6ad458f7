//! Groups of pods that go together or not at all.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::scheduling::v1alpha2::PodGroup;

use super::*;

fn heeding_groups(extenders: &str) -> Scheduler {
    let text = format!(
        "{{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration,
        profiles: [{{plugins: {{multiPoint: {{enabled: [{{name: GangScheduling}}]}}}}}}], extenders: [{extenders}]}}"
    );
    Scheduler::new(wharf_scheduler::config::load(&text, "s.yaml").unwrap())
}

/// One that filters and looks at victims.
const EXTENDER: &str =
    "{urlPrefix: 'http://e', filterVerb: f, preemptVerb: v, nodeCacheCapable: true}";

#[derive(Clone, Copy, Debug)]
enum How {
    Agrees,
    Refuses,
    Fails,
}

impl Lab {
    fn with_groups() -> Self {
        Self { scheduler: heeding_groups(""), ..Self::new() }
    }

    fn with_groups_and_extender() -> Self {
        Self { scheduler: heeding_groups(EXTENDER), ..Self::new() }
    }

    /// Answers the oldest question, if there is one: by agreeing, by refusing all, or not at all.
    fn answer_somehow(&mut self, how: How) -> bool {
        if self.calls.is_empty() {
            return false;
        }
        let call = self.calls.remove(0);
        let asked: Value = serde_json::from_str(&call.body).unwrap();
        let victims = asked["NodeNameToMetaVictims"].clone();
        let result = match how {
            How::Agrees => {
                Ok(json!({"NodeNames": asked["NodeNames"], "NodeNameToMetaVictims": victims}))
            }
            How::Refuses => Ok(json!({"NodeNames": [], "NodeNameToMetaVictims": {}})),
            How::Fails => Err("nobody there".to_owned()),
        };
        let result = result.map(|answer| answer.to_string());
        self.scheduler.answered(&ExtenderAnswer { id: call.id, result }, &mut Enqueue::default());
        self.wake = Some(self.now);
        self.settle();
        true
    }

    fn group(&mut self, name: &str, count: i32) {
        let group: PodGroup = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"schedulingPolicy": {"gang": {"minCount": count}}}
        }))
        .unwrap();
        self.put(Box::new(group));
    }

    fn member(&mut self, name: &str, group: &str, cpu: &str, priority: i32) {
        let more = json!({"schedulingGroup": {"podGroupName": group}, "priority": priority});
        self.pod(name, json!({"cpu": cpu}), more);
    }

    fn placed(&self) -> Vec<String> {
        let pods = self.view.list::<Pod>();
        let bound = pods.filter(|pod| pod.spec.as_ref().unwrap().node_name.is_some());
        bound.map(|pod| pod.metadata.name.clone().unwrap()).collect()
    }

    fn go(&mut self, name: &str) {
        self.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", name));
        self.settle();
    }
}

#[test]
fn a_group_waits_until_it_is_all_there_and_goes_together() {
    let mut lab = Lab::with_groups();
    lab.node("a", "4", json!([]));
    lab.member("g1", "g", "1", 0);
    lab.member("g2", "g", "1", 0);
    lab.settle();
    assert_eq!(lab.scheduler.queue.depth().gated, 2, "there is no such group");
    lab.group("g", 3);
    lab.settle();
    assert_eq!(lab.scheduler.queue.depth().gated, 2, "it is not all there");
    assert!(lab.events.is_empty() && lab.placed().is_empty());
    lab.member("g3", "g", "1", 0);
    lab.settle();
    assert_eq!(lab.placed(), ["g1", "g2", "g3"]);
    lab.member("g4", "g", "1", 0);
    lab.settle();
    assert_eq!(lab.placed().len(), 4, "one more goes by itself");
    lab.check_state();
}

#[test]
fn a_group_that_does_not_fit_holds_its_places_until_the_rest_fits() {
    let mut lab = Lab::with_groups();
    lab.node("a", "2", json!([]));
    lab.group("g", 3);
    for name in ["g1", "g2", "g3"] {
        lab.member(name, "g", "1", 0);
    }
    lab.settle();
    assert!(lab.placed().is_empty());
    assert_eq!(lab.status("g1").nominated_node_name.as_deref(), Some("a"));
    assert!(lab.message("g3").unwrap().starts_with("0/1 nodes are available: 1 Insufficient cpu."));
    let waits = lab.reasons.iter().find(|reason| reason.decision.starts_with("waits")).unwrap();
    assert_eq!(waits.because[0].says.to_string(), "pod group g has places for 2 of 3 pods");
    lab.node("b", "1", json!([]));
    lab.settle();
    assert_eq!(lab.placed(), ["g1", "g2", "g3"]);
    lab.check_state();
}

#[test]
fn patience_ends_for_all_at_once_and_others_have_the_first_go() {
    let mut lab = Lab::with_groups();
    lab.node("a", "2", json!([]));
    lab.group("g", 3);
    for name in ["g1", "g2", "g3"] {
        lab.member(name, "g", "1", 0);
    }
    lab.settle();
    lab.pod("single", json!({"cpu": "2"}), json!({}));
    lab.wait(Duration::from_secs(299));
    assert!(lab.placed().is_empty());
    lab.wait(Duration::from_secs(2));
    assert_eq!(lab.placed(), ["single"]);
    let text = "0/1 nodes are available: 1 rejected due to timeout after waiting 5m0s at plugin GangScheduling.";
    assert_eq!(lab.message("g1").as_deref(), Some(text));
    assert_eq!(lab.status("g1").nominated_node_name, None);
    lab.check_state();
}

#[test]
fn two_halves_do_not_wait_for_each_other() {
    let mut lab = Lab::with_groups();
    lab.node("a", "3", json!([]));
    for group in ["g", "h"] {
        lab.group(group, 2);
        lab.member(&format!("{group}1"), group, "2", 0);
    }
    // Neither half would leave room for another.
    lab.member("g2", "g", "2", 0);
    lab.member("h2", "h", "2", 0);
    lab.settle();
    assert!(lab.placed().is_empty());
    assert_eq!(lab.scheduler.assumed.len(), 1, "one group holds, the other does not");
    lab.node("b", "3", json!([]));
    lab.settle();
    assert_eq!(lab.placed(), ["g1", "g2"], "the one that held is complete");
    lab.go("g1");
    lab.go("g2");
    lab.wait(Duration::from_secs(30));
    assert_eq!(lab.placed(), ["h1", "h2"]);
    lab.check_state();
}

#[test]
fn nothing_is_evicted_for_a_group_that_stays_incomplete() {
    let mut lab = Lab::with_groups();
    lab.node("a", "2", json!([]));
    lab.pod("low", json!({"cpu": "2"}), json!({}));
    lab.settle();
    lab.group("g", 3);
    for name in ["g1", "g2", "g3"] {
        lab.member(name, "g", "1", 10);
    }
    lab.settle();
    assert!(lab.get("low").metadata.deletion_timestamp.is_none());
    lab.node("b", "1", json!([]));
    lab.wait(Duration::from_secs(15));
    assert!(lab.get("low").metadata.deletion_timestamp.is_some(), "now it would be complete");
    lab.finish_leaving();
    lab.wait(Duration::from_secs(15));
    assert_eq!(lab.placed(), ["g1", "g2", "g3"]);
    lab.check_state();
}

#[test]
fn extenders_are_asked_about_each_of_a_group() {
    let mut lab = Lab::with_groups_and_extender();
    for name in ["a", "b"] {
        lab.node(name, "2", json!([]));
    }
    lab.group("g", 3);
    for name in ["g1", "g2", "g3"] {
        lab.member(name, "g", "1", 0);
    }
    lab.pod("single", json!({"cpu": "1"}), json!({}));
    lab.settle();
    for expected in [["a", "b"].as_slice(), &["b", "a"], &["a", "b"]] {
        assert_eq!(lab.calls.len(), 1, "one at a time");
        let asked: Value = serde_json::from_str(&lab.calls[0].body).unwrap();
        let names = asked["NodeNames"].as_array().unwrap();
        assert_eq!(names.len(), expected.len(), "{names:?}");
        assert!(lab.placed().is_empty());
        lab.answer_somehow(How::Agrees);
    }
    assert_eq!(lab.placed(), ["g1", "g2", "g3"]);
    lab.answer_somehow(How::Agrees);
    assert_eq!(lab.placed().len(), 4, "then others have their turn");
    lab.check_state();
}

#[test]
fn a_group_of_which_one_is_refused_is_not_bound() {
    for how in [How::Refuses, How::Fails] {
        let mut lab = Lab::with_groups_and_extender();
        lab.node("a", "4", json!([]));
        lab.group("g", 2);
        lab.member("g1", "g", "1", 0);
        lab.member("g2", "g", "1", 0);
        lab.settle();
        lab.answer_somehow(How::Agrees);
        lab.answer_somehow(how);
        assert!(lab.placed().is_empty());
        assert_eq!(
            lab.status("g1").nominated_node_name.as_deref(),
            Some("a"),
            "it holds its place"
        );
        assert!(lab.message("g2").is_some());
        // The first has gone while the second is asked about again.
        lab.node("b", "4", json!([]));
        lab.wait(Duration::from_secs(3));
        assert_eq!(lab.calls.len(), 1);
        lab.go("g1");
        lab.answer_somehow(How::Agrees);
        assert!(lab.placed().is_empty());
        lab.member("g3", "g", "1", 0);
        lab.wait(Duration::from_secs(3));
        while lab.answer_somehow(How::Agrees) {}
        assert_eq!(lab.placed(), ["g2", "g3"]);
        lab.check_state();
    }
}

#[test]
fn a_turn_goes_on_when_the_pod_asked_about_goes() {
    let mut lab = Lab::with_groups_and_extender();
    lab.node("a", "4", json!([]));
    lab.group("g", 2);
    for name in ["g1", "g2", "g3"] {
        lab.member(name, "g", "1", 0);
    }
    lab.settle();
    let first: Value = serde_json::from_str(&lab.calls[0].body).unwrap();
    assert_eq!(first["Pod"]["metadata"]["name"], "g1");
    lab.go("g1");
    // The answer about the one that has gone is nothing to the next.
    while lab.answer_somehow(How::Agrees) {}
    assert_eq!(lab.placed(), ["g2", "g3"]);
    lab.check_state();
}

#[derive(Clone, Debug)]
enum Event {
    Node(u8, u8),
    RemoveNode(u8),
    Group(u8, u8),
    Member(u8, u8, u8, u8),
    Single(u8, u8),
    RemovePod(u8, u8),
    Restart,
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..4u8, 1..5u8).prop_map(|(n, cpu)| Event::Node(n, cpu)),
        1 => (0..4u8).prop_map(Event::RemoveNode),
        2 => (0..3u8, 1..4u8).prop_map(|(g, count)| Event::Group(g, count)),
        8 => (0..3u8, 0..5u8, 1..4u8, 0..2u8).prop_map(|(g, m, c, p)| Event::Member(g, m, c, p)),
        2 => (0..4u8, 1..4u8).prop_map(|(p, cpu)| Event::Single(p, cpu)),
        2 => (0..4u8, 0..5u8).prop_map(|(g, m)| Event::RemovePod(g, m)),
        1 => Just(Event::Restart),
        2 => (0..400u16).prop_map(Event::Wait),
    ]
}

impl Lab {
    fn grouped(&mut self, event: &Event, extenders: &str) {
        match event {
            Event::Node(name, cpu) => self.node(&format!("n{name}"), &cpu.to_string(), json!([])),
            Event::RemoveNode(name) => {
                self.remove(Kind::of::<Node>(), &ObjectKey::cluster(format!("n{name}")));
            }
            Event::Group(name, count) => {
                let key = ObjectKey::namespaced("default", format!("g{name}"));
                if self.view.get::<PodGroup>(&key).is_none() {
                    self.group(&format!("g{name}"), i32::from(*count));
                }
            }
            Event::Member(group, name, cpu, priority) => {
                let name = format!("g{group}-{name}");
                let key = ObjectKey::namespaced("default", name.as_str());
                if self.view.get::<Pod>(&key).is_none() {
                    let group = format!("g{group}");
                    self.member(&name, &group, &cpu.to_string(), i32::from(*priority));
                }
            }
            Event::Single(name, cpu) => {
                let key = ObjectKey::namespaced("default", format!("g3-{name}"));
                if self.view.get::<Pod>(&key).is_none() {
                    self.pod(&key.name, json!({"cpu": cpu.to_string()}), json!({"priority": 1}));
                }
            }
            Event::RemovePod(group, name) => {
                let key = ObjectKey::namespaced("default", format!("g{group}-{name}"));
                self.remove(Kind::of::<Pod>(), &key);
            }
            Event::Restart => {
                self.scheduler = heeding_groups(extenders);
                self.calls.clear();
                self.wake = None;
                let kinds = [Kind::of::<Node>(), Kind::of::<Pod>(), Kind::of::<PodGroup>()];
                let objects: Vec<_> =
                    kinds.iter().flat_map(|kind| self.view.objects(*kind).cloned()).collect();
                for object in objects {
                    let revision = object.revision();
                    self.observe(&Change { revision, old: None, new: Some(object) });
                }
            }
            Event::Wait(seconds) => self.wait(Duration::from_secs(u64::from(*seconds))),
        }
    }

    /// Groups of which pods were bound that are fewer than it takes, but for those of which pods
    /// have gone since.
    fn partial(&self, broken: &BTreeSet<String>) -> Vec<(String, usize)> {
        let mut bound: BTreeMap<String, usize> = BTreeMap::new();
        for pod in self.view.list::<Pod>() {
            let spec = pod.spec.as_ref().unwrap();
            let group = spec.scheduling_group.as_ref().and_then(|g| g.pod_group_name.clone());
            if let (Some(group), Some(_)) = (group, &spec.node_name) {
                *bound.entry(group).or_default() += 1;
            }
        }
        let min = |name: &str| {
            let group: &PodGroup = self.view.get(&ObjectKey::namespaced("default", name)).unwrap();
            usize::try_from(group.spec.scheduling_policy.gang.as_ref().unwrap().min_count).unwrap()
        };
        let short = bound.into_iter().filter(|(name, count)| *count < min(name));
        short.filter(|(name, _)| !broken.contains(name)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever happens, also across restarts: no group is ever bound in part, nothing is
    /// overcommitted or leaks, and the scheduler comes to rest.
    #[test]
    fn no_group_is_bound_in_part(events in prop::collection::vec((event(), any::<bool>()), 1..50)) {
        let mut lab = Lab::with_groups();
        // Groups that have lost pods may stay short.
        let mut broken = BTreeSet::new();
        for (event, settle) in &events {
            if let Event::RemovePod(group, _) = event {
                broken.insert(format!("g{group}"));
            }
            lab.grouped(event, "");
            if *settle {
                lab.settle();
            }
            let leaving = lab.view.list::<Pod>().filter(|pod| pod.metadata.deletion_timestamp.is_some());
            broken.extend(leaving.map(|pod| pod.metadata.name.as_ref().unwrap()[..2].to_owned()));
            prop_assert_eq!(lab.partial(&broken), []);
        }
        lab.wait(Duration::from_secs(400));
        prop_assert_eq!(lab.partial(&broken), []);
        lab.check_state();
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The same with an extender that answers late, refuses and fails.
    #[test]
    fn nor_is_it_with_extenders(
        events in prop::collection::vec((event(), 0..3u8, 0..6u8), 1..50)
    ) {
        let mut lab = Lab::with_groups_and_extender();
        let mut broken = BTreeSet::new();
        for (event, answers, how) in &events {
            if let Event::RemovePod(group, _) = event {
                broken.insert(format!("g{group}"));
            }
            lab.grouped(event, EXTENDER);
            lab.settle();
            for _ in 0..*answers {
                lab.answer_somehow(match how {
                    0 => How::Refuses,
                    1 => How::Fails,
                    _ => How::Agrees,
                });
            }
            lab.check_state();
            let leaving = lab.view.list::<Pod>().filter(|pod| pod.metadata.deletion_timestamp.is_some());
            broken.extend(leaving.map(|pod| pod.metadata.name.as_ref().unwrap()[..2].to_owned()));
            prop_assert_eq!(lab.partial(&broken), []);
        }
        for _ in 0..40 {
            lab.wait(Duration::from_secs(20));
            for _ in 0..100 {
                lab.answer_somehow(How::Agrees);
            }
        }
        prop_assert_eq!(lab.partial(&broken), []);
        prop_assert!(!lab.scheduler.is_open(), "it comes to rest");
        lab.check_state();
    }
}
