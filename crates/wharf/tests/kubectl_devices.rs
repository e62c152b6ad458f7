//! Two pods and one device, with a real kubectl: one runs with the device, the other says what it
//! waits for, and gets it when the first is gone.

mod harness;

use harness::{Wharf, lab_file, wait_for};

const SEED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: seed}
spec:
  containers: [{name: c, image: registry.k8s.io/pause:3.10, resources: {requests: {cpu: 100m}}}]
";

fn devices(node: &str) -> String {
    format!(
        r#"
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {{name: gpus}}
spec:
  driver: gpu.example.com
  nodeName: {node}
  pool: {{name: {node}, generation: 1, resourceSliceCount: 1}}
  devices:
  - name: gpu-0
    attributes: {{model: {{string: a100}}}}
    capacity: {{memory: {{value: 40Gi}}}}
---
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {{name: gpu}}
spec:
  selectors:
  - cel: {{expression: 'device.driver == "gpu.example.com"'}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {{name: one-gpu}}
spec:
  spec:
    devices:
      requests:
      - name: gpu
        exactly:
          deviceClassName: gpu
          selectors:
          - cel: {{expression: 'device.capacity["gpu.example.com"].memory.compareTo(quantity("10Gi")) >= 0'}}
"#
    )
}

fn pod(name: &str, node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  resourceClaims: [{{name: gpu, resourceClaimTemplateName: one-gpu}}]
  containers: [{{name: c, image: registry.k8s.io/pause:3.10, resources: {{claims: [{{name: gpu}}]}}}}]
"
    )
}

#[test]
fn one_device_goes_to_one_pod_at_a_time() {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    kubectl.ok("wait --for=condition=Ready nodepool/default ec2nodeclass/default --timeout=120s");
    kubectl.input("apply -f -", SEED).ok();
    kubectl.ok("wait --for=condition=Ready pod/seed --timeout=180s");
    let node = kubectl.ok("get pod seed -o jsonpath={.spec.nodeName}");
    kubectl.input("apply -f -", &devices(&node)).ok();
    kubectl.input("apply -f -", &pod("p", &node)).ok();
    kubectl.ok("wait --for=condition=Ready pod/p --timeout=180s");

    let claim_of = |pod: &str| {
        let path = "{.status.resourceClaimStatuses[0].resourceClaimName}";
        let name = kubectl.ok(&format!("get pod {pod} -o jsonpath={path}"));
        kubectl.json(&format!("get resourceclaim {name}"))
    };
    let status = claim_of("p")["status"].clone();
    let result = &status["allocation"]["devices"]["results"][0];
    assert_eq!(
        (&result["request"], &result["driver"], &result["pool"], &result["device"]),
        (&"gpu".into(), &"gpu.example.com".into(), &node.as_str().into(), &"gpu-0".into())
    );
    let user = &status["reservedFor"][0];
    assert_eq!((&user["resource"], &user["name"]), (&"pods".into(), &"p".into()));

    kubectl.input("apply -f -", &pod("q", &node)).ok();
    let message =
        r#"get pod q -o jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}"#;
    wait_for("the second pod to be turned down", || {
        let message = kubectl.ok(message);
        let told = message.starts_with("0/1 nodes are available: 1 cannot allocate all claims. ");
        if told { Ok(()) } else { Err(message) }
    });
    assert_eq!(kubectl.ok("get pod q -o jsonpath={.status.phase}"), "Pending");

    kubectl.ok("delete pod p --wait=true");
    kubectl.ok("wait --for=condition=Ready pod/q --timeout=180s");
    let status = claim_of("q")["status"].clone();
    assert_eq!(status["allocation"]["devices"]["results"][0]["device"], "gpu-0");
    assert_eq!(status["reservedFor"][0]["name"], "q");
}
