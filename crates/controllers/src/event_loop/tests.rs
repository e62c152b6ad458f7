use std::collections::VecDeque;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::cloud::CloudRequest;
use wharf_ports::error::StatusReason;

use super::*;

/// A cluster that applies writes at once and refuses those whose turn in `refusals` is true.
#[derive(Default)]
struct FakeCluster {
    events: VecDeque<ClusterEvent>,
    refusals: VecDeque<bool>,
    revision: u64,
}

impl Cluster for FakeCluster {
    fn submit(&mut self, id: WriteId, write: Arc<Write>) {
        if self.refusals.pop_front() == Some(true) {
            let error = ApiError::new(StatusReason::Conflict, "not now");
            self.events.push_back(ClusterEvent::Outcome { id, result: Err(error) });
            return;
        }
        let Write::Create(object) = write.as_ref().clone() else { return };
        self.revision += 1;
        let object = Arc::new(Object::from_typed(object, self.revision));
        self.events.push_back(ClusterEvent::Changed(Change {
            revision: self.revision,
            old: None,
            new: Some(Arc::clone(&object)),
        }));
        self.events.push_back(ClusterEvent::Outcome { id, result: Ok(Some(object)) });
    }

    fn poll(&mut self, _view: &View, events: &mut Vec<ClusterEvent>) {
        events.extend(self.events.drain(..));
    }
}

struct NoCloud;

impl Cloud for NoCloud {
    fn submit(&mut self, _request: CloudRequest, _now: Time) {}
    fn poll(&mut self, _now: Time, _view: &View, _output: &mut CloudOutput) {}
    fn next_wake(&self) -> Option<Time> {
        None
    }
}

/// Makes two ConfigMaps for each Namespace, and looks again after a minute.
struct Maker {
    refused: usize,
}

impl Controller for Maker {
    fn name(&self) -> &'static str {
        "maker"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<Namespace>() {
            queue.now(WorkKey::object(change.kind(), change.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step::again_after(Duration::from_secs(60));
        for name in ["one", "two"] {
            let wanted = ObjectKey::namespaced(&key.key.name, name);
            if context.view.object(Kind::of::<ConfigMap>(), &wanted).is_none() {
                let mut map = ConfigMap::default();
                map.metadata.name = Some(name.to_owned());
                map.metadata.namespace = Some(key.key.name.to_string());
                step.write(Write::Create(Box::new(map)));
            }
        }
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, _error: &ApiError) -> OnError {
        self.refused += 1;
        OnError::Retry
    }
}

fn with_namespace() -> View {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("n".to_owned());
    let mut view = View::new();
    view.load(Arc::new(Object::from_typed(Box::new(namespace), 1)));
    view
}

fn looped(refusals: &[bool]) -> EventLoop<FakeCluster> {
    let cluster = FakeCluster {
        refusals: refusals.iter().copied().collect(),
        revision: 1,
        ..FakeCluster::default()
    };
    EventLoop::new(cluster, Box::new(NoCloud), vec![Box::new(Maker { refused: 0 })], 1)
}

#[test]
fn a_step_is_carried_out_and_seen() {
    let mut run = looped(&[]);
    let now = Time::from_seconds(100);
    run.start(now, with_namespace());
    run.run_due(now, &mut NoRecorder).expect("comes to rest");
    assert_eq!(run.view().count(Kind::of::<ConfigMap>()), 2);
    assert_eq!(run.next_wake(), Some(now + Duration::from_secs(60)));
    assert_eq!(run.steps_run(), 1);
}

#[test]
fn a_refused_write_drops_the_rest_and_is_tried_again_later() {
    let mut run = looped(&[true, false, true]);
    let mut now = Time::from_seconds(100);
    run.start(now, with_namespace());
    run.run_due(now, &mut NoRecorder).expect("comes to rest");
    assert_eq!(run.view().count(Kind::of::<ConfigMap>()), 0, "the second write was dropped");
    now = run.next_wake().expect("a retry");
    assert_eq!(now, Time::from_seconds(100) + BACKOFF_FIRST);
    run.run_due(now, &mut NoRecorder).expect("comes to rest");
    assert_eq!(run.view().count(Kind::of::<ConfigMap>()), 1, "the second refusal hit `two`");
    let next = run.next_wake().expect("a retry");
    assert_eq!(next, now + BACKOFF_FIRST * 2, "back-off grows until a whole step succeeds");
    run.run_due(next, &mut NoRecorder).expect("comes to rest");
    assert_eq!(run.view().count(Kind::of::<ConfigMap>()), 2);
}

/// Always asks to be called again at once.
struct Restless;

impl Controller for Restless {
    fn name(&self) -> &'static str {
        "restless"
    }
    fn observe(&mut self, _change: &Change, _view: &View, _queue: &mut Enqueue) {}
    fn start(&mut self, queue: &mut Enqueue) {
        queue.now(WorkKey::singleton("round"));
    }
    fn step(&mut self, _key: &WorkKey, _context: &mut Context<'_>) -> Step {
        Step::again_after(Duration::ZERO)
    }
}

#[test]
fn controllers_that_never_rest_are_named() {
    let mut run =
        EventLoop::new(FakeCluster::default(), Box::new(NoCloud), vec![Box::new(Restless)], 1);
    run.steps_at_one_moment_max = 1_000;
    run.start(Time::EPOCH, View::new());
    let error = run.run_due(Time::EPOCH, &mut NoRecorder).expect_err("it never rests");
    assert_eq!((error.controller, error.key.as_str()), ("restless", "round"));
}
