//! Pods that wait for volumes on their way to a node.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::*;

impl Lab {
    /// A node and a class whose volumes are made by that provisioner once a pod needs them.
    fn with_class(provisioner: &str) -> Self {
        let mut lab = Self::new();
        lab.node("a", "4", json!([]));
        let class: StorageClass = serde_json::from_value(json!({
            "metadata": {"name": "fast", "uid": "fast"}, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer"
        }))
        .unwrap();
        lab.put(Box::new(class));
        lab
    }

    fn new_claim(&mut self, name: &str) {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"storageClassName": "fast", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}
        }))
        .unwrap();
        self.put(Box::new(claim));
    }

    fn new_volume(&mut self, name: &str) {
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"storageClassName": "fast", "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"}, "csi": {"driver": "csi", "volumeHandle": name}},
            "status": {"phase": "Available"}
        }))
        .unwrap();
        self.put(Box::new(volume));
    }

    fn pod_with(&mut self, name: &str, claim: &str) {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
        self.pod(name, json!({"cpu": "1"}), json!({"volumes": volumes}));
    }

    fn claim_of(&self, name: &str) -> PersistentVolumeClaim {
        self.view.get(&ObjectKey::namespaced("default", name)).cloned().expect("it is there")
    }

    fn selected_node(&self, name: &str) -> Option<String> {
        let annotations = self.claim_of(name).metadata.annotations?;
        annotations.get("volume.kubernetes.io/selected-node").cloned()
    }

    /// What the volume's controller does in the end.
    fn bind_claim(&mut self, name: &str, volume: &str) {
        let mut claim = self.claim_of(name);
        claim.spec.as_mut().unwrap().volume_name = Some(volume.to_owned());
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.insert("pv.kubernetes.io/bind-completed".to_owned(), "yes".to_owned());
        self.put(Box::new(claim));
    }

    fn kept_for(&self, volume: &str) -> Option<String> {
        let volume: PersistentVolume = self.view.get_cluster(volume).cloned().unwrap();
        volume.spec?.claim_ref?.name
    }
}

#[test]
fn a_volume_is_made_for_the_node_and_then_the_pod_is_bound() {
    let mut lab = Lab::with_class("csi");
    lab.new_claim("c");
    lab.pod_with("p", "c");
    lab.settle();
    assert_eq!(lab.selected_node("c").as_deref(), Some("a"));
    assert_eq!(lab.node_of("p"), None, "it waits for its volume");
    assert_eq!(lab.status("p").nominated_node_name.as_deref(), Some("a"));
    lab.new_volume("v");
    lab.bind_claim("c", "v");
    lab.settle();
    assert_eq!(lab.node_of("p"), Some("a"));
    lab.check_state();
}

#[test]
fn a_volume_that_cannot_be_made_sends_the_pod_back() {
    let mut lab = Lab::with_class("csi");
    lab.new_claim("c");
    lab.pod_with("p", "c");
    lab.settle();
    let mut claim = lab.claim_of("c");
    claim.metadata.annotations = None;
    lab.put(Box::new(claim));
    lab.settle();
    assert_eq!(
        lab.message("p").as_deref(),
        Some(
            "running PreBind plugin \"VolumeBinding\": binding volumes: provisioning failed for PVC \"c\""
        )
    );
    lab.wait(Duration::from_secs(15));
    assert_eq!(lab.selected_node("c").as_deref(), Some("a"), "it is tried again");
    lab.check_state();
}

#[test]
fn one_volume_goes_to_one_claim() {
    let mut lab = Lab::with_class("kubernetes.io/no-provisioner");
    for name in ["c", "d"] {
        lab.new_claim(name);
    }
    lab.new_volume("v");
    lab.pod_with("p", "c");
    lab.pod_with("q", "d");
    lab.settle();
    assert_eq!(lab.kept_for("v").as_deref(), Some("c"));
    assert!(
        lab.message("q").unwrap().starts_with(
            "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind."
        ),
        "both were decided in one step"
    );
    lab.bind_claim("c", "v");
    lab.settle();
    assert_eq!((lab.node_of("p"), lab.node_of("q")), (Some("a"), None));
    lab.new_volume("w");
    lab.wait(Duration::from_secs(15));
    assert_eq!(lab.kept_for("w").as_deref(), Some("d"));
    lab.bind_claim("d", "w");
    lab.settle();
    assert_eq!(lab.node_of("q"), Some("a"));
    lab.check_state();
}
