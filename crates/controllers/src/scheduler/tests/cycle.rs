//! The way between decision and binding.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use wharf_scheduler::{Plugin, Profile};

use super::super::reserve::{PreBind, Refusal, Waiting};
use super::*;

/// A plugin that has work before a binding: a PersistentVolumeClaim of the pod's name has to say
/// that it is bound.
#[derive(Debug, Default)]
struct Claims {
    held: std::collections::BTreeSet<CompactString>,
}

impl Reserver for Claims {
    fn plugin(&self) -> Plugin {
        Plugin::VolumeBinding
    }

    fn reserve(
        &mut self,
        pod: &PodInfo,
        _: &str,
        _: &mut Snapshot,
        view: &View,
    ) -> Result<bool, Refusal> {
        let claim = view.get::<PersistentVolumeClaim>(&pod.key);
        if claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some()) {
            return Err(Refusal::Rejected("the claim goes".to_owned()));
        }
        if claim.is_some_and(|claim| claim.spec.is_some()) {
            return Err(Refusal::Pending("the claim is being made".to_owned()));
        }
        assert!(self.held.insert(pod.uid.clone()), "reserved twice");
        Ok(claim.is_some())
    }

    fn unreserve(&mut self, pod: &PodInfo, _: &mut Snapshot) {
        assert!(self.held.remove(&pod.uid), "not reserved");
    }

    fn bound(&mut self, pod: &PodInfo, _: &mut Snapshot) {
        assert!(self.held.remove(&pod.uid), "not reserved");
    }

    fn pre_bind(
        &mut self,
        pod: &PodInfo,
        _: &str,
        _: &mut Snapshot,
        view: &View,
        _: Time,
    ) -> PreBind {
        let Some(claim) = view.get::<PersistentVolumeClaim>(&pod.key) else {
            return PreBind::Failed(Refusal::Error("the claim is gone".to_owned()));
        };
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Bound") { PreBind::Done } else { PreBind::Waits(Waiting::default()) }
    }

    fn patience(&self, profile: &Profile) -> Duration {
        profile.arguments.volume_bind_timeout
    }

    fn concerned(&self, kind: Kind, key: &ObjectKey) -> Vec<CompactString> {
        let claim = kind == Kind::of::<PersistentVolumeClaim>();
        let uid = CompactString::from(format!("{}-uid", key.name));
        (claim && self.held.contains(&uid)).then_some(uid).into_iter().collect()
    }

    fn renew(&mut self, _: &mut Snapshot) {}
}

impl Lab {
    fn with_claims() -> Self {
        let mut lab = Self::new();
        lab.scheduler = Scheduler::default().with_reserver(Box::new(Claims::default()));
        lab.node("a", "4", json!([]));
        lab
    }

    fn claim(&mut self, name: &str, phase: &str) {
        let claim = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "status": {"phase": phase}});
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        self.put(Box::new(claim));
    }
}

#[test]
fn a_pod_waits_for_its_volumes_and_says_where_it_goes() {
    let mut lab = Lab::with_claims();
    lab.claim("p", "Pending");
    lab.pod("p", json!({"cpu": "3"}), json!({}));
    lab.pod("q", json!({"cpu": "2"}), json!({}));
    lab.settle();
    assert_eq!((lab.node_of("p"), lab.node_of("q")), (None, None), "p's room is taken");
    assert_eq!(lab.status("p").nominated_node_name.as_deref(), Some("a"));
    lab.claim("p", "Bound");
    lab.settle();
    assert_eq!(lab.node_of("p"), Some("a"));
    assert_eq!(lab.told("Scheduled"), ["Successfully assigned default/p to a"]);
    lab.check_state();
}

#[test]
fn volumes_that_do_not_come_in_time_free_the_room() {
    let mut lab = Lab::with_claims();
    lab.claim("p", "Pending");
    lab.pod("p", json!({"cpu": "3"}), json!({"priority": 1}));
    lab.pod("q", json!({"cpu": "2"}), json!({}));
    lab.settle();
    lab.wait(Duration::from_secs(601));
    let status = lab.status("p");
    let condition = &status.conditions.unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("SchedulerError"));
    assert_eq!(
        condition.message.as_deref(),
        Some("running PreBind plugin \"VolumeBinding\": not done after waiting 10m0s")
    );
    assert_eq!(lab.node_of("q"), Some("a"), "woken as if a pod had gone");
    lab.check_state();
}

#[test]
fn a_refused_reservation_turns_the_pod_down() {
    let mut lab = Lab::with_claims();
    let claim = json!({"metadata": {"name": "p", "namespace": "default", "uid": "c", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    lab.put(Box::new(serde_json::from_value::<PersistentVolumeClaim>(claim).unwrap()));
    lab.pod("p", json!({"cpu": "3"}), json!({}));
    lab.settle();
    assert_eq!(lab.message("p").as_deref(), Some("0/1 nodes are available: 1 the claim goes."));
    lab.remove(Kind::of::<PersistentVolumeClaim>(), &ObjectKey::namespaced("default", "p"));
    lab.wait(Duration::from_secs(331));
    assert_eq!(lab.node_of("p"), Some("a"));
    lab.check_state();
}

#[test]
fn what_is_only_under_way_costs_no_backoff() {
    let mut lab = Lab::with_claims();
    let claim = json!({"metadata": {"name": "p", "namespace": "default", "uid": "c"}, "spec": {}});
    lab.put(Box::new(serde_json::from_value::<PersistentVolumeClaim>(claim).unwrap()));
    lab.pod("p", json!({"cpu": "1"}), json!({"priority": 1}));
    lab.settle();
    let text = "0/1 nodes are available: 1 the claim is being made.";
    assert_eq!(lab.message("p").as_deref(), Some(text));
    lab.scheduler.queue.wake("StorageChange", |entry| {
        assert!(entry.pending_by.contains(Plugin::VolumeBinding));
        Wake::Now
    });
    assert_eq!(lab.scheduler.queue.depth().active, 1);
}

#[test]
fn a_victim_that_waits_for_its_volumes_is_not_deleted_but_turned_down() {
    let mut lab = Lab::with_claims();
    lab.claim("p", "Pending");
    lab.pod("p", json!({"cpu": "3"}), json!({}));
    lab.settle();
    lab.pod("high", json!({"cpu": "3"}), json!({"priority": 10}));
    lab.settle();
    lab.wait(Duration::from_secs(2));
    assert_eq!(lab.node_of("high"), Some("a"));
    assert!(lab.get("p").metadata.deletion_timestamp.is_none());
    assert_eq!(
        lab.told("Preempted"),
        ["Preempted by pod high-uid on node a (in kube-scheduler memory)."]
    );
    let event = lab.events.iter().find(|event| event.reason == "Preempted").unwrap();
    assert_eq!(event.related.as_ref().unwrap().key.name, "high");
    lab.check_state();
}

#[test]
fn a_binding_that_fails_is_told_as_an_error() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.refuse_bindings = 1;
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    lab.settle();
    let status = lab.status("p");
    let condition = &status.conditions.unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("SchedulerError"));
    let message = condition.message.as_deref().unwrap();
    assert!(message.starts_with("running Bind plugin \"DefaultBinder\": "), "{message}");
    lab.wait(Duration::from_secs(3));
    assert_eq!(lab.node_of("p"), Some("a"));
}

#[test]
fn profiles_share_one_queue_and_have_their_own_rules() {
    let config = wharf_scheduler::config::load(
        "{apiVersion: kubescheduler.config.k8s.io/v1, kind: KubeSchedulerConfiguration, profiles: [
            {schedulerName: default-scheduler},
            {schedulerName: packed, plugins: {multiPoint: {disabled: [{name: TaintToleration}]}},
             pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [b]}]}]}}}}]}]}",
        "s.yaml",
    );
    let mut lab = Lab::new();
    lab.scheduler = Scheduler::new(config.unwrap());
    lab.node("a", "4", json!([]));
    lab.node("b", "4", json!([{"key": "k", "effect": "NoSchedule"}]));
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    lab.pod("q", json!({"cpu": "1"}), json!({"schedulerName": "packed"}));
    lab.pod("r", json!({"cpu": "1"}), json!({"schedulerName": "other"}));
    lab.free_choice = true;
    lab.settle();
    assert_eq!(
        (lab.node_of("p"), lab.node_of("q"), lab.node_of("r")),
        (Some("a"), Some("b"), None)
    );
    let components: Vec<_> = lab.events.iter().map(|event| event.component.as_str()).collect();
    assert_eq!(components, ["default-scheduler", "packed"]);
}

#[test]
fn the_preemptor_waits_until_its_victims_have_been_told() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.pod("low1", json!({"cpu": "2"}), json!({}));
    lab.pod("low2", json!({"cpu": "2"}), json!({}));
    lab.settle();
    lab.pod("high", json!({"cpu": "4"}), json!({"priority": 10}));
    let mut context = Context { view: &lab.view, now: lab.now, random: &mut lab.random };
    let step = lab.scheduler.step(&Scheduler::key(), &mut context);
    assert!(lab.scheduler.queue.is_held("high-uid"));
    lab.node("b", "1", json!([]));
    for write in &step.writes {
        assert!(lab.scheduler.queue.is_held("high-uid"), "{write:?}");
        lab.execute(write).unwrap();
        if matches!(write, Write::Delete(delete) if delete.key.name == "low2") {
            break;
        }
    }
    assert!(!lab.scheduler.queue.is_held("high-uid"));
    lab.settle();
    lab.finish_leaving();
    lab.settle();
    assert_eq!(lab.node_of("high"), Some("a"));
    lab.check_state();
}

#[test]
fn a_victim_that_cannot_be_deleted_frees_the_preemptor() {
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.pod("low", json!({"cpu": "3"}), json!({}));
    lab.settle();
    lab.pod("high", json!({"cpu": "4"}), json!({"priority": 10}));
    let key = Scheduler::key();
    let mut context = Context { view: &lab.view, now: lab.now, random: &mut lab.random };
    let step = lab.scheduler.step(&key, &mut context);
    let delete = step.writes.iter().find(|write| matches!(write, Write::Delete(_))).unwrap();
    let error = ApiError::new(StatusReason::Forbidden, "no");
    assert_eq!(lab.scheduler.refused(&key, delete, &error), OnError::Retry);
    assert!(!lab.scheduler.queue.is_held("high-uid"));
    assert_eq!(lab.scheduler.queue.depth().active, 1, "it is tried again at once");
}

#[test]
fn times_are_taken_of_extension_points_and_of_one_in_ten_pods_by_plugin() {
    let mut lab = Lab::new();
    // A stopwatch that shows a millisecond more whenever it is looked at.
    let looks = std::sync::atomic::AtomicU64::new(0);
    lab.scheduler.metrics().measure_with(move || {
        Duration::from_millis(looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    });
    for name in ["a", "b"] {
        lab.node(name, "100", json!([]));
    }
    for index in 0..11 {
        lab.pod(&format!("p{index}"), json!({"cpu": "1"}), json!({}));
    }
    lab.pod("huge", json!({"cpu": "200"}), json!({}));
    lab.settle();
    let text = lab.scheduler.metrics().to_text();
    let count = |sample: &str| {
        let line = text.lines().find(|line| line.starts_with(sample)).expect(sample);
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    let point = |point: &str, status: &str| {
        count(&format!(
            "scheduler_framework_extension_point_duration_seconds_count{{extension_point=\"{point}\",profile=\"default-scheduler\",status=\"{status}\"}}"
        ))
    };
    for (name, times) in
        [("PreFilter", "12"), ("Filter", "12"), ("PreScore", "11"), ("Score", "11")]
    {
        assert_eq!(point(name, "Success"), times, "{name}");
    }
    assert_eq!(point("PostFilter", "Unschedulable"), "1");
    for name in ["Reserve", "PreBind", "Bind"] {
        assert_eq!(point(name, "Success"), "11", "{name}");
    }
    let plugin = |point: &str, plugin: &str, status: &str| {
        count(&format!(
            "scheduler_plugin_execution_duration_seconds_count{{extension_point=\"{point}\",plugin=\"{plugin}\",status=\"{status}\"}}"
        ))
    };
    // Of the first and the eleventh.
    assert_eq!(plugin("PreFilter", "NodeResourcesFit", "Success"), "2");
    assert_eq!(plugin("PreFilter", "NodePorts", "Skip"), "2");
    assert_eq!(plugin("Filter", "TaintToleration", "Success"), "2");
    assert_eq!(plugin("PreScore", "NodeAffinity", "Skip"), "2");
    assert_eq!(plugin("Score", "NodeResourcesFit", "Success"), "2");
    let heard = |point: &str, plugin: &str| {
        count(&format!(
            "scheduler_plugin_evaluation_total{{extension_point=\"{point}\",plugin=\"{plugin}\",profile=\"default-scheduler\"}}"
        ))
    };
    // Of every pod, and of both nodes for each; no node that refuses is scored.
    assert_eq!(heard("PreFilter", "NodeResourcesFit"), "12");
    assert_eq!(heard("Filter", "NodeResourcesFit"), "24");
    assert_eq!(heard("PreScore", "NodeResourcesFit"), "11");
    assert_eq!(heard("Score", "NodeResourcesFit"), "22");
    assert!(!text.contains("plugin=\"NodePorts\",profile"), "it had nothing to do");
    assert!(
        !text.contains("extension_point=\"PreFilter\",plugin=\"TaintToleration\""),
        "it has none"
    );
    assert_eq!(count("scheduler_event_handling_duration_seconds_count{event=\"NodeAdd\"}"), "2");
    assert_eq!(count("scheduler_preemption_attempts_total"), "1", "in vain");
    assert_eq!(count("scheduler_pod_scheduling_attempts_count"), "11");
    assert_eq!(count("scheduler_goroutines"), "0");
    // Without a stopwatch nothing is measured.
    let mut lab = Lab::new();
    lab.node("a", "4", json!([]));
    lab.pod("p", json!({"cpu": "1"}), json!({}));
    lab.settle();
    assert!(!lab.scheduler.metrics().to_text().contains("extension_point=\"PreFilter\""));
}
