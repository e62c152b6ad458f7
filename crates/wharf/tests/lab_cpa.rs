//! The labs of the Cluster Proportional Autoscaler and of over-provisioning by hand, with a real
//! kubectl.

mod harness;

use harness::{Kubectl, Wharf, repository, wait_for};

fn file(path: &str) -> String {
    repository().join("labs").join(path).display().to_string()
}

fn lab(nodepool: &str) -> Wharf {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", file(nodepool)));
    kubectl.ok("wait --for=condition=Ready nodepool/default ec2nodeclass/default --timeout=120s");
    wharf
}

/// Waits until there are so many nodes, and so many replicas of `web` that run.
fn wait_for_replicas(kubectl: &Kubectl, nodes: usize, replicas: usize) {
    wait_for(&format!("{replicas} replicas on {nodes} nodes"), || {
        let there = kubectl.ok("get nodes -o name").lines().count();
        let ready =
            kubectl.ok("get deployment web -o jsonpath={.spec.replicas}/{.status.readyReplicas}");
        let expected = format!("{replicas}/{replicas}");
        if there == nodes && ready == expected {
            Ok(())
        } else {
            Err(format!("{ready} on {there}"))
        }
    });
}

#[test]
fn replicas_climb_the_ladder_as_nodes_come() {
    let wharf = lab("cpa/nodepool.yaml");
    let kubectl = wharf.kubectl();
    for name in ["cpa", "web", "spread"] {
        kubectl.ok(&format!("apply -f {}", file(&format!("cpa/{name}.yaml"))));
    }
    kubectl.ok("rollout status deployment/cluster-proportional-autoscaler --timeout=120s");
    wait_for_replicas(&kubectl, 1, 1);
    for (nodes, replicas) in [(3, 3), (4, 3), (5, 5)] {
        kubectl.ok(&format!("scale deployment spread --replicas {nodes}"));
        wait_for_replicas(&kubectl, nodes, replicas);
    }
    let log = || kubectl.ok("logs deployment/cluster-proportional-autoscaler");
    let told = log();
    assert!(
        told.contains("autoscaler.go:49] Scaling Namespace: default, Target: deployment/web\n"),
        "{told}"
    );
    assert!(
        told.contains("] Replicas are not as expected : updating deployment/web from "),
        "{told}"
    );

    // A mistake in the ConfigMap stops it, what mends that is taken at the next poll.
    let patch = |data: &str| {
        let patch = format!(r#"{{"data": {data}}}"#);
        let name = "cluster-proportional-autoscaler";
        kubectl.args(&["patch", "configmap", name, "--type=merge", "-p", &patch]).ok();
    };
    patch(r#"{"linear": "{\"nodesPerReplica\": 2}"}"#);
    let wrong = "Error ensuring controller: invalid configMap format, expected only one entry, got: map[ladder:";
    wait_for("the mistake to be told", || {
        let told = log();
        if told.contains(wrong) { Ok(()) } else { Err(told) }
    });
    assert_eq!(kubectl.ok("get deployment web -o jsonpath={.spec.replicas}"), "5");
    patch(r#"{"ladder": null}"#);
    wait_for_replicas(&kubectl, 5, 3);
}

#[test]
fn a_real_pod_takes_the_room_of_a_placeholder() {
    let wharf = lab("inflate/nodepool.yaml");
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", file("over-provisioning/placeholders.yaml")));
    kubectl.ok(&format!("apply -f {}", file("over-provisioning/app.yaml")));
    kubectl.ok("rollout status deployment/placeholder --timeout=120s");
    let on = |app: &str| {
        kubectl.ok(&format!("get pods -l app={app} -o jsonpath={{.items[*].spec.nodeName}}"))
    };
    let first = on("placeholder");
    let claims = || kubectl.ok("get nodeclaims -o name").lines().count();
    assert_eq!(claims(), 1);

    kubectl.ok("scale deployment app --replicas 1");
    kubectl.ok("rollout status deployment/app --timeout=120s");
    assert_eq!(on("app"), first, "it runs where the room was kept");
    let preempted =
        kubectl.ok("get events --field-selector reason=Preempted -o jsonpath={.items[*].message}");
    assert!(preempted.starts_with("Preempted by pod "), "{preempted}");
    assert!(preempted.ends_with(&format!(" on node {first}")), "{preempted}");

    kubectl.ok("rollout status deployment/placeholder --timeout=120s");
    let second = on("placeholder");
    assert!(second != first && !second.is_empty(), "{second}: there is room again, elsewhere");
    assert_eq!(claims(), 2);
}
