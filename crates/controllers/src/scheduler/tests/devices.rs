//! Pods that wait for devices on their way to a node.

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};

use super::*;

mod extended;
mod readiness;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";

impl Lab {
    /// A node with so many devices.
    fn with_devices(count: usize) -> Self {
        let mut lab = Self::new();
        lab.node("a", "4", json!([]));
        let class: DeviceClass = serde_json::from_value(json!({
            "metadata": {"name": "gpu", "uid": "gpu"}, "spec": {}
        }))
        .unwrap();
        lab.put(Box::new(class));
        lab.slice(count);
        lab
    }

    fn slice(&mut self, count: usize) {
        let devices: Vec<_> = (0..count).map(|at| json!({"name": format!("g{at}")})).collect();
        let slice: ResourceSlice = serde_json::from_value(json!({
            "metadata": {"name": "a", "uid": "a"},
            "spec": {"driver": "d", "nodeName": "a", "devices": devices,
                "pool": {"name": "a", "generation": 1, "resourceSliceCount": 1}}
        }))
        .unwrap();
        self.put(Box::new(slice));
    }

    fn new_device_claim(&mut self, name: &str) {
        let claim: ResourceClaim = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"devices": {"requests": [
                {"name": "r", "exactly": {"deviceClassName": "gpu", "count": 1}}]}}
        }))
        .unwrap();
        self.put(Box::new(claim));
    }

    fn pod_with_device(&mut self, name: &str, claim: &str) {
        let claims = json!([{"name": "gpu", "resourceClaimName": claim}]);
        self.pod(name, json!({"cpu": "1"}), json!({"resourceClaims": claims}));
    }

    fn device_claim(&self, name: &str) -> ResourceClaim {
        self.view.get(&ObjectKey::namespaced("default", name)).cloned().expect("it is there")
    }

    /// The devices of a claim, and the pods it is reserved for.
    fn stands(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let status = self.device_claim(name).status.unwrap_or_default();
        let devices = status.allocation.and_then(|allocation| allocation.devices);
        let results = devices.and_then(|devices| devices.results).unwrap_or_default();
        let users = status.reserved_for.unwrap_or_default();
        (
            results.into_iter().map(|result| result.device).collect(),
            users.into_iter().map(|user| user.name).collect(),
        )
    }
}

/// How a write ends whose pod has gone meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// Done; the answer comes before the watch shows it.
    AnswerFirst,
    /// Done; the watch shows it before the answer comes.
    WatchFirst,
    /// Not done.
    Refused,
    /// Done, but the answer says that nobody knows.
    HiddenSuccess,
    /// Not done, and the answer says that nobody knows.
    HiddenFailure,
}

impl Lab {
    /// The claim as the held write will leave it.
    fn as_written(&mut self, write: &Write) -> Change {
        let Write::Update { object, .. } = write else { panic!("an update") };
        self.revision += 1;
        let old = self.view.object(object.kind(), &ObjectKey::of(object.meta())).cloned();
        let new = Some(Arc::new(Object::from_typed(object.clone_box(), self.revision)));
        Change { revision: self.revision, old, new }
    }

    fn show(&mut self, change: &Change) {
        assert!(self.view.apply(change));
        self.observe(change);
        self.settle();
    }

    fn hear(&mut self, write: &Write, result: Result<&Change, StatusReason>) {
        let key = Scheduler::key();
        let mut queue = Enqueue::default();
        match result {
            Ok(change) => self.scheduler.done(&key, write, change.new.as_ref(), &mut queue),
            Err(reason) => {
                let error = ApiError::new(reason, "no");
                if self.scheduler.refused(&key, write, &error) == OnError::Retry {
                    self.wake = Some(self.now);
                }
            }
        }
        self.note(&mut queue);
        self.settle();
    }

    /// Waits long enough for a pod that was turned down to be tried again, if it was woken.
    fn pause(&mut self) {
        self.wait(Duration::from_secs(4));
    }

    /// What the resource claim controller does for a claim that nobody uses.
    fn give_back(&mut self, name: &str) {
        let mut claim = self.device_claim(name);
        let status = claim.status.get_or_insert_default();
        (status.allocation, status.reserved_for) = (None, None);
        self.put(Box::new(claim));
        self.wait(Duration::from_secs(30));
    }
}

#[test]
fn devices_stay_set_aside_until_it_is_seen_what_became_of_the_write() {
    use Ending::*;
    for ending in [AnswerFirst, WatchFirst, Refused, HiddenSuccess, HiddenFailure] {
        let mut lab = Lab::with_devices(1);
        lab.new_device_claim("c");
        lab.new_device_claim("d");
        lab.holds_claims = true;
        lab.pod_with_device("p", "c");
        lab.settle();
        assert_eq!(lab.held.len(), 1, "on its way");
        let write = lab.held.remove(0);
        lab.holds_claims = false;
        lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "p"));
        lab.pod_with_device("q", "d");
        lab.pause();
        assert_eq!(lab.node_of("q"), None, "{ending:?}: the device may be gone");
        let written = lab.as_written(&write);
        match ending {
            AnswerFirst => {
                lab.hear(&write, Ok(&written));
                lab.pause();
                assert!(lab.scheduler.is_unsettled(), "the watch has not shown it");
                assert_eq!(lab.node_of("q"), None);
                lab.show(&written);
            }
            WatchFirst => {
                lab.show(&written);
                assert!(!lab.scheduler.is_unsettled(), "the claim tells by itself");
                lab.hear(&write, Ok(&written));
            }
            Refused => lab.hear(&write, Err(StatusReason::Conflict)),
            HiddenSuccess => {
                lab.holds_claims = true;
                lab.hear(&write, Err(StatusReason::Timeout));
                for _ in 0..3 {
                    let fence = lab.held.remove(0);
                    lab.hear(&fence, Err(StatusReason::Conflict));
                    lab.wait(Duration::from_secs(6));
                    assert_eq!(lab.node_of("q"), None, "however long it takes");
                }
                lab.holds_claims = false;
                lab.held.clear();
                lab.show(&written);
            }
            HiddenFailure => {
                lab.holds_claims = true;
                lab.hear(&write, Err(StatusReason::ServiceUnavailable));
                lab.pause();
                assert_eq!(lab.node_of("q"), None, "it may be gone");
                let fence = lab.held.remove(0);
                lab.holds_claims = false;
                let fenced = lab.as_written(&fence);
                lab.hear(&fence, Ok(&fenced));
                lab.pause();
                assert_eq!(lab.node_of("q"), None, "what came before is not seen yet");
                lab.show(&fenced);
            }
        }
        lab.pause();
        if matches!(ending, AnswerFirst | WatchFirst | HiddenSuccess) {
            assert!(!lab.scheduler.is_unsettled());
            assert_eq!(lab.stands("c"), (texts(&["g0"]), texts(&["p"])));
            assert_eq!(lab.node_of("q"), None, "{ending:?}: the claim has it");
            lab.give_back("c");
        }
        lab.wait(Duration::from_secs(30));
        assert!(!lab.scheduler.is_unsettled(), "{ending:?}");
        assert_eq!(lab.node_of("q"), Some("a"), "{ending:?}");
        assert_eq!(lab.stands("d"), (texts(&["g0"]), texts(&["q"])));
        lab.check_state();
    }
}

#[test]
fn a_claim_is_not_written_again_before_the_first_write_is_answered() {
    let mut lab = Lab::with_devices(1);
    lab.new_device_claim("c");
    lab.holds_claims = true;
    lab.pod_with_device("p", "c");
    lab.settle();
    let mut claim = lab.device_claim("c");
    claim.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    lab.put(Box::new(claim));
    lab.settle();
    assert_eq!(lab.held.len(), 1, "somebody else's change moves nothing");
    let write = lab.held.remove(0);
    lab.holds_claims = false;
    lab.hear(&write, Err(StatusReason::Conflict));
    assert_eq!(lab.stands("c"), (texts(&["g0"]), texts(&["p"])), "and then it is");
    assert_eq!(lab.node_of("p"), Some("a"));
    assert!(lab.scheduler.reservers.iter().all(|it| !it.is_unsettled()));
    lab.check_state();
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_claim_gets_its_device_before_the_pod_is_bound() {
    let mut lab = Lab::with_devices(1);
    lab.new_device_claim("c");
    lab.new_device_claim("d");
    lab.pod_with_device("p", "c");
    lab.pod_with_device("q", "d");
    lab.settle();
    assert_eq!(lab.node_of("p"), Some("a"));
    assert_eq!(lab.stands("c"), (texts(&["g0"]), texts(&["p"])));
    assert_eq!(lab.device_claim("c").metadata.finalizers, Some(texts(&[FINALIZER])));
    assert_eq!(
        lab.message("q").as_deref(),
        Some(
            "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        ),
        "both were decided in one step"
    );
    lab.check_state();
    lab.slice(2);
    lab.wait(Duration::from_secs(15));
    assert_eq!(lab.node_of("q"), Some("a"));
    assert_eq!(lab.stands("d"), (texts(&["g1"]), texts(&["q"])));
    lab.check_state();
}

#[test]
fn pods_share_a_claim_once_it_is_allocated() {
    let mut lab = Lab::with_devices(1);
    lab.new_device_claim("c");
    lab.pod_with_device("p", "c");
    lab.pod_with_device("q", "c");
    lab.wait(Duration::from_secs(30));
    assert_eq!((lab.node_of("p"), lab.node_of("q")), (Some("a"), Some("a")));
    assert_eq!(lab.stands("c"), (texts(&["g0"]), texts(&["p", "q"])));
    lab.check_state();
}

#[test]
fn a_pod_without_its_claim_is_kept_out_until_it_comes() {
    let mut lab = Lab::with_devices(1);
    lab.pod_with_device("p", "c");
    lab.settle();
    assert!(lab.message("p").is_none() && lab.node_of("p").is_none());
    assert_eq!(lab.scheduler.awaiting_claims.len(), 1);
    lab.new_device_claim("c");
    lab.settle();
    assert_eq!(lab.node_of("p"), Some("a"));
    assert!(lab.scheduler.awaiting_claims.is_empty());
    lab.pod_with_device("q", "never");
    lab.settle();
    lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "q"));
    lab.settle();
    assert!(lab.scheduler.awaiting_claims.is_empty(), "nothing is kept of a pod that is gone");
    lab.check_state();
}

#[test]
fn an_unused_claim_whose_devices_are_elsewhere_loses_them() {
    let mut lab = Lab::with_devices(1);
    lab.new_device_claim("c");
    let mut claim = lab.device_claim("c");
    claim.status = serde_json::from_value(json!({"allocation": {"nodeSelector": {
        "nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["gone"]}]}]}}}))
    .ok();
    lab.put(Box::new(claim));
    lab.pod_with_device("p", "c");
    lab.settle();
    assert!(
        lab.told("FailedScheduling")[0].starts_with(
            "0/1 nodes are available: 1 resourceclaim not available on the node. deallocation of ResourceClaim completed, "
        )
    );
    lab.wait(Duration::from_secs(30));
    assert_eq!(lab.node_of("p"), Some("a"));
    assert_eq!(lab.stands("c"), (texts(&["g0"]), texts(&["p"])));
    lab.check_state();
}

#[test]
fn a_claim_taken_by_somebody_else_sends_the_pod_back() {
    let mut lab = Lab::with_devices(2);
    lab.new_device_claim("c");
    // The scheduler decides before it hears that somebody else has allocated the claim.
    let mut claim = lab.device_claim("c");
    lab.pod_with_device("p", "c");
    let own = claim.status.get_or_insert_default();
    own.allocation = serde_json::from_value(json!({"devices": {"results": [
        {"request": "r", "driver": "d", "pool": "a", "device": "g1"}]}}))
    .ok();
    lab.revision += 1;
    let key = ObjectKey::namespaced("default", "c");
    let old = lab.view.object(Kind::of::<ResourceClaim>(), &key).cloned();
    let new = Some(Arc::new(Object::from_typed(Box::new(claim), lab.revision)));
    let change = Change { revision: lab.revision, old, new };
    assert!(lab.view.apply(&change));
    lab.settle();
    assert_eq!(
        lab.message("p").as_deref(),
        Some(
            "running PreBind plugin \"DynamicResources\": claim \"c\" got allocated elsewhere in the meantime"
        )
    );
    lab.observe(&change);
    lab.wait(Duration::from_secs(30));
    assert_eq!(lab.node_of("p"), Some("a"), "with what the claim has got");
    assert_eq!(lab.stands("c"), (texts(&["g1"]), texts(&["p"])));
    lab.check_state();
}
