//! The adapter against our own API server, with faults in between: cut connections, revisions that
//! are no longer held, refusals, lost answers.

mod harness;
mod metrics;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Fault, Lab, node, pod};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use serde_json::json;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::{Delete, Part, Write};
use wharf_ports::error::StatusReason;
use wharf_ports::event::{EventRecord, EventType, Regarding};
use wharf_remote::{LeaseSettings, StartError};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

#[tokio::test]
async fn it_begins_with_the_world_and_follows_it() {
    let lab = Lab::new();
    for index in 0..1_203 {
        lab.create(pod(&format!("old-{index:04}")));
    }
    let mut run = lab.start().await;
    assert_eq!(run.view.count(Kind::of::<Pod>()), 1_203, "three pages");
    lab.create(pod("new"));
    run.until("the new pod", |view| view.get::<Pod>(&key("new")).is_some()).await;
    lab.delete::<Pod>(&key("old-0000"));
    run.until("the deletion", |view| view.get::<Pod>(&key("old-0000")).is_none()).await;
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_where_it_was() {
    let lab = Lab::new();
    let mut run = lab.start().await;
    for round in 0..3 {
        lab.cut_watches();
        lab.create(pod(&format!("p{round}")));
        let wanted = round + 1;
        run.until("the pod", |view| view.count(Kind::of::<Pod>()) == wanted).await;
    }
    assert_eq!(lab.lists_of("pods"), 1, "no new list was needed");
}

#[tokio::test]
async fn what_fell_into_a_gap_is_told_after_a_new_list() {
    let lab = Lab::new();
    lab.create(pod("stays"));
    lab.create(pod("goes"));
    let mut run = lab.start().await;
    // There is a watch to be cut once it has told something.
    lab.create(pod("told"));
    run.until("the watch", |view| view.get::<Pod>(&key("told")).is_some()).await;
    // The next watch is told that its revision is gone; meanwhile one pod goes and one comes.
    lab.fault("GET", "pods?watch", Fault::gone());
    lab.hold_watches(true);
    lab.cut_watches();
    lab.delete::<Pod>(&key("goes"));
    lab.create(pod("comes"));
    lab.hold_watches(false);
    run.until("the gap", |view| {
        view.get::<Pod>(&key("goes")).is_none() && view.get::<Pod>(&key("comes")).is_some()
    })
    .await;
    assert!(run.view.get::<Pod>(&key("stays")).is_some());
    assert_eq!(lab.lists_of("pods"), 2);
}

#[tokio::test]
async fn a_list_whose_pages_expire_is_taken_whole() {
    let lab = Lab::new();
    for index in 0..700 {
        lab.create(pod(&format!("p-{index}")));
    }
    lab.fault("GET", "continue=", Fault::gone());
    let run = lab.start().await;
    assert_eq!(run.view.count(Kind::of::<Pod>()), 700);
}

#[tokio::test]
async fn writes_say_what_changed_and_insist_on_what_was_seen() {
    let lab = Lab::new();
    lab.create(node("n"));
    lab.create(pod("p"));
    let mut run = lab.start().await;
    let bound = Write::Bind {
        pod: key("p"),
        uid: run.view.object(Kind::of::<Pod>(), &key("p")).expect("a pod").uid().into(),
        node: "n".into(),
    };
    run.write(bound).await.expect("it is pending");
    run.until("the binding", |view| view.pods_on("n").count() == 1).await;

    let object = run.view.object(Kind::of::<Node>(), &ObjectKey::cluster("n")).expect("a node");
    let mut draft = object.draft::<Node>().expect("it decodes");
    draft.spec.get_or_insert_default().unschedulable = Some(true);
    draft.status.get_or_insert_default().phase = Some("Running".to_owned());
    let all = Write::Update { object: Box::new(draft.clone()), part: Part::All };
    let after = run.write(all).await.expect("nobody else writes").expect("the new version");
    let after = after.typed::<Node>().expect("a node");
    assert_eq!(after.spec.as_ref().and_then(|spec| spec.unschedulable), Some(true));
    assert_eq!(after.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Running"));
    let patches = lab.bodies("PATCH", "/nodes/n");
    assert_eq!(patches.len(), 2, "the object, then its status");
    assert_eq!(patches[0]["spec"], json!({"unschedulable": true}));
    assert_eq!(patches[1]["status"], json!({"phase": "Running"}));

    // The draft is of an old version now.
    draft.spec.get_or_insert_default().unschedulable = None;
    let stale = Write::Update { object: Box::new(draft), part: Part::Main };
    let error = run.write(stale).await.expect_err("it is stale");
    assert_eq!(error.reason, StatusReason::Conflict);

    let there = run.view.object(Kind::of::<Pod>(), &key("p")).expect("a pod").clone();
    run.write(Write::Delete(Delete::of(&there).with_grace(0))).await.expect("it is there");
    run.until("the deletion", |view| view.count(Kind::of::<Pod>()) == 0).await;
    let error = run.write(Write::Delete(Delete::of(&there))).await.expect_err("it is gone");
    assert_eq!(error.reason, StatusReason::NotFound);
}

#[tokio::test]
async fn a_generated_name_and_the_effect_come_with_the_outcome() {
    let lab = Lab::new();
    let mut run = lab.start().await;
    let mut wanted = pod("");
    wanted.metadata.name = None;
    wanted.metadata.generate_name = Some("web-".to_owned());
    let created = run.write(Write::Create(Box::new(wanted))).await.expect("a valid pod");
    let created = created.expect("the first version");
    assert!(created.key().name.starts_with("web-"));
    assert!(run.view.object(Kind::of::<Pod>(), created.key()).is_some(), "it was seen before");
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_says_so() {
    let lab = Lab::new();
    let mut run = lab.start().await;
    lab.fault("POST", "/pods", Fault::busy(1));
    lab.fault("POST", "/pods", Fault::busy(1));
    let start = tokio::time::Instant::now();
    run.write(Write::Create(Box::new(pod("p")))).await.expect("at the third time");
    assert!(start.elapsed() >= Duration::from_secs(2), "it waited as long as it was told to");
    assert_eq!(lab.bodies("POST", "/pods").len(), 3);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_not_sent_again() {
    let lab = Lab::new();
    let mut run = lab.start().await;
    lab.fault("POST", "/pods", Fault::AnswerLost);
    let error = run.write(Write::Create(Box::new(pod("p")))).await.expect_err("no answer");
    assert_eq!(error.reason, StatusReason::Timeout, "{error}");
    run.until("what was done all the same", |view| view.get::<Pod>(&key("p")).is_some()).await;
    assert_eq!(lab.bodies("POST", "/pods").len(), 1);
    lab.fault("POST", "/pods", Fault::broken());
    let error = run.write(Write::Create(Box::new(pod("q")))).await.expect_err("a 500");
    assert_eq!(error.reason, StatusReason::InternalError);
    assert_eq!(lab.bodies("POST", "/pods").len(), 2);
}

#[tokio::test]
async fn a_kind_that_is_not_served_is_left_out_and_a_missing_right_is_named() {
    let lab = Lab::new();
    lab.fault("GET", "/nodepools?", Fault::not_served());
    let run = lab.start().await;
    let absent: Vec<String> = run.cluster.absent().map(|kind| kind.group_resource()).collect();
    assert_eq!(absent, ["nodepools.karpenter.sh"]);
    lab.fault("GET", "/pods?", Fault::forbidden());
    let error = lab.try_start().await.err().expect("pods are needed");
    assert!(matches!(error, StartError::Forbidden { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "pods is forbidden: User \"x\" cannot list resource \"pods\"; give this user a role with the verbs list and watch on pods"
    );
}

#[tokio::test]
async fn events_are_counted_and_never_wait() {
    let lab = Lab::new();
    lab.create(pod("p"));
    let mut run = lab.start().await;
    let object = run.view.object(Kind::of::<Pod>(), &key("p")).expect("a pod");
    let record = EventRecord {
        regarding: Regarding::object(object),
        related: None,
        kind: EventType::Warning,
        reason: "FailedScheduling".to_owned(),
        action: "Scheduling".to_owned(),
        message: "0/0 nodes are available.".to_owned(),
        component: "wharf-scheduler".to_owned(),
        host: String::new(),
        annotations: BTreeMap::new(),
    };
    for _ in 0..3 {
        run.write(Write::Record(record.clone())).await.expect("saying something never fails");
    }
    run.cluster.close().await;
    let events = lab.list::<Event>();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].count, None, "the newer interface counts in a series");
    assert_eq!(events[0].series.as_ref().and_then(|series| series.count), Some(3));
    assert!(events[0].event_time.is_some());
    assert_eq!(events[0].involved_object.name.as_deref(), Some("p"));
}

#[tokio::test(start_paused = true)]
async fn one_of_two_copies_leads_and_the_other_takes_over() {
    let lab = Lab::new();
    let settings = |name: &str| {
        LeaseSettings::new(ObjectKey::namespaced("kube-system", "wharf"), name.to_owned())
    };
    let mut first = lab.election(settings("first")).await;
    let mut second = lab.election(settings("second")).await;
    first.acquire().await.expect("the lease is free");
    let waits = tokio::time::timeout(Duration::from_secs(8), second.acquire()).await;
    assert!(waits.is_err(), "the first has it");
    // A leader that is asked to stop gives the lease up.
    first.release().await;
    let start = tokio::time::Instant::now();
    second.acquire().await.expect("it is free again");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    // One that dies keeps it for its duration.
    let start = tokio::time::Instant::now();
    first.acquire().await.expect("when it has ended");
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(15) && waited < Duration::from_secs(25), "{waited:?}");
    // The second finds out when it tries to renew.
    let lost = second.keep().await;
    assert!(lost.to_string().contains("first has it"), "{lost}");
    // And a leader that cannot reach the server stops before another may lead.
    lab.refuse_everything();
    let start = tokio::time::Instant::now();
    first.keep().await;
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}
