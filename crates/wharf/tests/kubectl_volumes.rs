//! A claim that waits for its first pod, with a real kubectl: the pod gets a machine, the claim a
//! volume in the machine's zone, and only then does the pod run.

mod harness;

use harness::{Wharf, lab_file};

const CLAIM_AND_POD: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: data
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: gp2
  resources:
    requests:
      storage: 10Gi
---
apiVersion: v1
kind: Pod
metadata:
  name: db
spec:
  containers:
  - name: db
    image: registry.k8s.io/pause:3.10
    resources:
      requests:
        cpu: 500m
    volumeMounts:
    - name: data
      mountPath: /data
  volumes:
  - name: data
    persistentVolumeClaim:
      claimName: data
"#;

#[test]
fn a_claim_gets_its_volume_where_its_pod_goes() {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    kubectl.ok("wait --for=condition=Ready nodepool/default ec2nodeclass/default --timeout=120s");
    kubectl.input("apply -f -", CLAIM_AND_POD).ok();
    kubectl.ok("wait --for=condition=Ready pod/db --timeout=180s");

    let claim = kubectl.json("get persistentvolumeclaim data");
    assert_eq!(claim["status"]["phase"], "Bound");
    let node = kubectl.ok("get pod db -o jsonpath={.spec.nodeName}");
    let annotations = &claim["metadata"]["annotations"];
    assert_eq!(annotations["volume.kubernetes.io/selected-node"], node.as_str());
    let labels = kubectl.json(&format!("get node {node}"))["metadata"]["labels"].clone();
    let zone = labels["topology.kubernetes.io/zone"].as_str().expect("nodes have zones");
    let name = claim["spec"]["volumeName"].as_str().expect("it is bound");
    let volume = kubectl.json(&format!("get persistentvolume {name}"));
    assert_eq!(volume["spec"]["claimRef"]["name"], "data");
    let affinity = volume["spec"]["nodeAffinity"].to_string();
    assert!(affinity.contains(zone), "made in the machine's zone: {affinity}");
    let events =
        kubectl.ok("get events --field-selector reason=Scheduled -o jsonpath={.items[*].message}");
    assert_eq!(events, format!("Successfully assigned default/db to {node}"));
}
