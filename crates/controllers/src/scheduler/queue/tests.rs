use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use wharf_scheduler::{Snapshot, admits};

use super::*;

fn pod(name: &str, priority: i32, gated: bool) -> Arc<PodInfo> {
    let gates = if gated { json!([{"name": "g"}]) } else { json!([]) };
    let pod = json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"containers": [], "priority": priority, "schedulingGates": gates}
    });
    Snapshot::new().compile(&serde_json::from_value(pod).unwrap())
}

/// Puts a pod in as the scheduler does.
fn set(queue: &mut SchedulingQueue, name: &str, priority: i32, gated: bool) -> bool {
    let pod = pod(name, priority, gated);
    let gate = (!admits(&pod)).then_some(Plugin::SchedulingGates);
    queue.set(pod, 0, gate, |_| Wake::No)
}

fn at(millis: i64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn popped(queue: &mut SchedulingQueue, now: Time) -> Vec<String> {
    std::iter::from_fn(|| queue.pop(now)).map(|entry| entry.pod.uid.to_string()).collect()
}

fn fit() -> PluginSet {
    PluginSet::from(Plugin::NodeResourcesFit)
}

fn wake_if(plugin: Plugin) -> impl Fn(&Entry) -> Wake {
    move |entry| if entry.rejected_by.contains(plugin) { Wake::AfterBackoff } else { Wake::No }
}

#[test]
fn priority_then_arrival() {
    let mut queue = SchedulingQueue::default();
    for (name, priority) in [("b", 0), ("a", 0), ("high", 10)] {
        set(&mut queue, name, priority, false);
    }
    assert_eq!(popped(&mut queue, at(0)), ["high", "b", "a"]);
    assert_eq!(queue.len(), 0);
}

#[test]
fn sleepers_wake_only_when_it_helps_or_at_the_look_after_five_minutes() {
    let mut queue = SchedulingQueue::default();
    set(&mut queue, "p", 0, false);
    let entry = queue.pop(at(0)).unwrap();
    queue.fail(entry, fit(), Wake::No, at(0));
    assert!(queue.pop(at(200_000)).is_none());
    assert_eq!(queue.next(at(100_000)), Some(Duration::from_secs(230)));
    assert!(!queue.wake("NodeAdd", wake_if(Plugin::NodePorts)));
    assert!(queue.wake("NodeAdd", wake_if(Plugin::NodeResourcesFit)));
    let entry = queue.pop(at(10)).expect("with nothing active, the backoff is cut short");
    assert_eq!(entry.attempts, 2);
    queue.fail(entry, fit(), Wake::No, at(10));
    assert!(queue.pop(at(329_999)).is_none(), "the looks are 30 s apart");
    assert!(queue.pop(at(330_000)).is_some());
}

#[test]
fn a_sleep_of_exactly_five_minutes_is_not_too_long() {
    let mut queue = SchedulingQueue::default();
    assert!(queue.pop(at(0)).is_none());
    set(&mut queue, "p", 0, false);
    let entry = queue.pop(at(29_000)).unwrap();
    queue.fail(entry, fit(), Wake::No, at(29_000));
    assert!(queue.pop(at(329_999)).is_none());
    assert!(queue.pop(at(330_000)).is_some(), "it has slept 301 s");
}

#[test]
fn a_backoff_holds_while_others_are_active() {
    let mut queue = SchedulingQueue::default();
    set(&mut queue, "p", 5, false);
    let entry = queue.pop(at(100)).unwrap();
    queue.fail(entry, fit(), Wake::No, at(100));
    queue.wake("NodeAdd", |_| Wake::AfterBackoff);
    set(&mut queue, "q", 0, false);
    assert_eq!(popped(&mut queue, at(200)), ["q", "p"], "p's priority does not help it");
    set(&mut queue, "p", 5, false);
    let entry = queue.pop(at(100)).unwrap();
    queue.fail(entry, fit(), Wake::No, at(100));
    queue.wake("NodeAdd", |_| Wake::AfterBackoff);
    set(&mut queue, "q", 0, false);
    assert_eq!(popped(&mut queue, at(2_000)), ["p", "q"], "its backoff is over");
}

#[test]
fn what_only_waited_has_no_backoff() {
    let mut queue = SchedulingQueue::default();
    set(&mut queue, "p", 5, false);
    let entry = queue.pop(at(100)).unwrap();
    queue.fail(entry, fit(), Wake::No, at(100));
    queue.wake("NodeAdd", |_| Wake::Now);
    set(&mut queue, "q", 0, false);
    assert_eq!(popped(&mut queue, at(200)), ["p", "q"]);
}

#[test]
fn news_from_while_a_pod_was_tried_wakes_it_when_it_returns() {
    let mut queue = SchedulingQueue::default();
    set(&mut queue, "p", 0, false);
    let entry = queue.pop(at(0)).unwrap();
    queue.fail(entry, fit(), Wake::AfterBackoff, at(0));
    assert_eq!(queue.depth(), Depth { backoff: 1, ..Depth::default() });
}

#[test]
fn errors_wait_longer_each_time_and_are_never_taken_early() {
    let mut queue = SchedulingQueue::default();
    set(&mut queue, "p", 0, false);
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let entry = queue.pop(now).expect("it is due");
        queue.error(entry, now);
        assert!(queue.pop(now).is_none());
        let wait = queue.next(now).unwrap();
        waits.push(wait.as_secs());
        now = now + wait;
    }
    assert_eq!(waits, [2, 3, 5, 9, 11, 11], "1, 2, 4, 8, 10, 10 and the window");
}

#[test]
fn backoffs_are_configured() {
    let backoff = Backoff { first: Duration::from_secs(3), max: Duration::from_secs(20) };
    let waits: Vec<_> = (0..6).map(|count| backoff.after(count).as_secs()).collect();
    assert_eq!(waits, [0, 3, 6, 12, 20, 20]);
    assert_eq!(backoff.after(u32::MAX).as_secs(), 20);
}

#[test]
fn gates_keep_a_pod_out_but_not_its_place_in_the_line() {
    let mut queue = SchedulingQueue::default();
    set(&mut queue, "gated", 0, true);
    assert!(queue.pop(at(1_000)).is_none());
    assert_eq!(queue.next(at(1_000)), None);
    assert_eq!(queue.depth(), Depth { gated: 1, ..Depth::default() });
    set(&mut queue, "later", 0, false);
    assert!(!queue.wake("NodeAdd", |_| Wake::Now), "no news lets it in");
    assert!(queue.pull("gated", at(2_000)).is_none());
    assert!(set(&mut queue, "gated", 0, false));
    assert_eq!(popped(&mut queue, at(2_000)), ["gated", "later"]);
}

#[test]
fn a_held_pod_sleeps_on_and_hears_the_news_afterwards() {
    let mut queue = SchedulingQueue::default();
    set(&mut queue, "p", 0, false);
    let entry = queue.pop(at(0)).unwrap();
    queue.fail(entry, fit(), Wake::No, at(0));
    queue.hold("p");
    assert!(!queue.wake("NodeAdd", |_| Wake::AfterBackoff));
    assert!(queue.pop(at(1_000)).is_none() && queue.is_held("p"));
    assert!(queue.release("p"));
    assert!(queue.pop(at(1_000)).is_some());
}

#[derive(Clone, Debug)]
enum Event {
    Set(u8, u8, bool),
    Remove(u8),
    Pop,
    Fail(u8),
    Error(u8),
    Wake(bool),
    Hold(u8),
    Release(u8),
    Pass(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..8u8, 0..3u8, prop::bool::weighted(0.2)).prop_map(|(n, p, g)| Event::Set(n, p, g)),
        1 => (0..8u8).prop_map(Event::Remove),
        4 => Just(Event::Pop),
        3 => (0..8u8).prop_map(Event::Fail),
        2 => (0..8u8).prop_map(Event::Error),
        2 => any::<bool>().prop_map(Event::Wake),
        1 => (0..8u8).prop_map(Event::Hold),
        1 => (0..8u8).prop_map(Event::Release),
        2 => (0..40_000u16).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens: no pod is lost or doubled, a gated or held one is never tried, the active
    /// ones come in order, and all that is not gated comes in the end.
    #[test]
    fn nobody_is_lost_stranded_or_let_in(events in prop::collection::vec(event(), 1..80)) {
        let mut queue = SchedulingQueue::default();
        let mut now = at(0);
        // Which pods there are, and whether they are gated; and those that are being tried.
        let mut known: BTreeMap<String, bool> = BTreeMap::new();
        let mut out: BTreeMap<String, Entry> = BTreeMap::new();
        for event in events {
            match event {
                Event::Set(name, priority, gated) => {
                    let name = format!("p{name}");
                    if !out.contains_key(&name) {
                        set(&mut queue, &name, i32::from(priority), gated);
                        known.insert(name, gated);
                    }
                }
                Event::Remove(name) => {
                    let name = format!("p{name}");
                    if !out.contains_key(&name) {
                        prop_assert_eq!(queue.remove(&name).is_some(), known.remove(&name).is_some());
                    }
                }
                Event::Pop => {
                    queue.flush(now);
                    let best = queue.active.first().map(|rank| rank.3.to_string());
                    if let Some(entry) = queue.pop(now) {
                        let name = entry.pod.uid.to_string();
                        prop_assert_eq!(known.get(&name), Some(&false), "gated or unknown");
                        prop_assert!(best.is_none_or(|best| best == name));
                        prop_assert!(entry.held.is_none());
                        out.insert(name, entry);
                    }
                }
                Event::Fail(name) => {
                    if let Some(entry) = out.remove(&format!("p{name}")) {
                        queue.fail(entry, fit(), Wake::No, now);
                    }
                }
                Event::Error(name) => {
                    if let Some(entry) = out.remove(&format!("p{name}")) {
                        queue.error(entry, now);
                    }
                }
                Event::Wake(at_once) => {
                    queue.wake("NodeAdd", |_| if at_once { Wake::Now } else { Wake::AfterBackoff });
                }
                Event::Hold(name) => queue.hold(&format!("p{name}")),
                Event::Release(name) => {
                    queue.release(&format!("p{name}"));
                }
                Event::Pass(millis) => now = now + Duration::from_millis(u64::from(millis)),
            }
            let depth = queue.depth();
            let sum = depth.active + depth.backoff + depth.unschedulable + depth.gated;
            prop_assert_eq!(sum, queue.len());
            prop_assert_eq!(queue.len() + out.len(), known.len());
        }
        let expected: Vec<_> = known
            .iter()
            .filter(|(name, gated)| !**gated && !out.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        let mut found = popped(&mut queue, now);
        while let Some(wait) = queue.next(now) {
            now = now + wait;
            found.extend(popped(&mut queue, now));
        }
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
