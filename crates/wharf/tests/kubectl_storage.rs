//! Claims, volumes and StatefulSets with a real kubectl: what is said while a claim waits, what the
//! tables show once pods run, and what is left when they go.

mod harness;

use harness::{Kubectl, Wharf, lab_file, wait_for};

const CLAIM: &str = "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  storageClassName: gp2
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 8Gi}}
";

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  containers:
  - {name: c, image: 'nginx:1.27', volumeMounts: [{name: data, mountPath: /data}]}
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
";

const SET: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: 2
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: 'nginx:1.27', volumeMounts: [{name: www, mountPath: /www}]}
  volumeClaimTemplates:
  - metadata: {name: www}
    spec: {storageClassName: gp2, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

/// The words of a table's rows.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

fn wait_until_gone(kubectl: &Kubectl, what: &str) {
    wait_for(&format!("{what} to be gone"), || {
        let left = kubectl.ok(&format!("get {what} -o name"));
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_claim_waits_for_its_pod_and_goes_after_it() {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    let classes = kubectl.ok("get sc --no-headers");
    assert_eq!(
        rows(&classes)[0][..5],
        ["gp2", "kubernetes.io/aws-ebs", "Delete", "WaitForFirstConsumer", "false"]
    );
    assert_eq!(kubectl.input("apply -f -", CLAIM).ok(), "persistentvolumeclaim/data created\n");
    let said = wait_for("the claim to say what it waits for", || {
        let text = kubectl.ok("describe pvc data");
        if text.contains("WaitForFirstConsumer") { Ok(text) } else { Err(text) }
    });
    assert!(said.contains("waiting for first consumer to be created before binding"), "{said}");
    let claims = kubectl.ok("get pvc --no-headers");
    assert_eq!(rows(&claims)[0][..4], ["data", "Pending", "gp2", "<unset>"], "{claims}");

    assert_eq!(kubectl.input("apply -f -", POD).ok(), "pod/writer created\n");
    kubectl.ok("wait --for=condition=Ready pod/writer --timeout=120s");
    let claims = kubectl.ok("get pvc --no-headers");
    let row = rows(&claims).remove(0);
    assert_eq!((row[1], row[3], row[4], row[5]), ("Bound", "8Gi", "RWO", "gp2"), "{claims}");
    let volume = row[2];
    let volumes = kubectl.ok("get pv --no-headers");
    assert_eq!(
        rows(&volumes)[0][..7],
        [volume, "8Gi", "RWO", "Delete", "Bound", "default/data", "gp2"]
    );
    let node = kubectl.ok("get pod writer -o jsonpath={.spec.nodeName}");
    let zone = |of: &str| kubectl.ok(&format!("get {of}"));
    assert_eq!(
        zone(&format!(
            "pv {volume} -o jsonpath={{.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values[0]}}"
        )),
        zone(&format!(
            "node {node} -o jsonpath={{.metadata.labels.topology\\.kubernetes\\.io/zone}}"
        ))
    );
    let attached = kubectl.ok("get volumeattachments --no-headers");
    assert_eq!(rows(&attached)[0][1..5], ["ebs.csi.aws.com", volume, &node, "true"]);
    assert_eq!(rows(&kubectl.ok(&format!("get csinode {node} --no-headers")))[0][1], "1");
    let events = kubectl.ok("get events");
    for text in [
        "External provisioner is provisioning volume for claim \"default/data\"",
        &format!("Successfully provisioned volume {volume}"),
        &format!("AttachVolume.Attach succeeded for volume \"{volume}\""),
    ] {
        assert!(events.contains(text), "{text}: {events}");
    }

    kubectl.ok("delete pvc data --wait=false");
    assert_eq!(rows(&kubectl.ok("get pvc --no-headers"))[0][1], "Terminating");
    kubectl.ok("delete pod writer");
    for what in ["pvc", "pv", "volumeattachments"] {
        wait_until_gone(&kubectl, what);
    }
}

#[test]
fn a_stateful_set_has_pods_and_claims_in_order() {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    assert_eq!(kubectl.input("apply -f -", SET).ok(), "statefulset.apps/web created\n");
    kubectl.ok("rollout status statefulset/web --timeout=120s");
    let sets = kubectl.ok("get sts --no-headers");
    assert_eq!(rows(&sets)[0][..2], ["web", "2/2"], "{sets}");
    assert_eq!(kubectl.ok("get pods -o name"), "pod/web-0\npod/web-1\n");
    let claims = kubectl.ok("get pvc --no-headers");
    let names: Vec<&str> = rows(&claims).iter().map(|row| row[0]).collect();
    assert_eq!(names, ["www-web-0", "www-web-1"]);
    let revisions = kubectl.ok("get controllerrevisions --no-headers");
    assert_eq!(rows(&revisions)[0][1..3], ["statefulset.apps/web", "1"], "{revisions}");

    kubectl.ok("set image statefulset/web c=nginx:1.28");
    kubectl.ok("rollout status statefulset/web --timeout=120s");
    assert_eq!(
        kubectl.ok("get pods -o jsonpath={.items[*].spec.containers[0].image}"),
        "nginx:1.28 nginx:1.28"
    );
    let history = kubectl.ok("rollout history statefulset/web");
    assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");
    kubectl.ok("rollout undo statefulset/web");
    kubectl.ok("rollout status statefulset/web --timeout=120s");
    assert_eq!(
        kubectl.ok("get pods -o jsonpath={.items[*].spec.containers[0].image}"),
        "nginx:1.27 nginx:1.27"
    );
    assert_eq!(kubectl.ok("scale statefulset web --replicas=1"), "statefulset.apps/web scaled\n");
    wait_for("the second pod to be gone", || {
        let pods = kubectl.ok("get pods -o name");
        if pods == "pod/web-0\n" { Ok(()) } else { Err(pods) }
    });
    assert_eq!(rows(&kubectl.ok("get pvc --no-headers")).len(), 2, "claims stay");
    let explained = kubectl.ok("explain statefulset.spec.volumeClaimTemplates.spec.accessModes");
    assert!(explained.contains("FIELD: accessModes"), "{explained}");
}
