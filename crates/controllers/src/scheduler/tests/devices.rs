//! Pods that wait for devices on their way to a node.

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};

use super::*;

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
