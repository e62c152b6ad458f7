//! Managed node groups as EKS' API takes them.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;

use crate::{Cluster, with};

fn group(name: &str) -> Value {
    json!({"apiVersion": "eks.services.k8s.aws/v1alpha1", "kind": "Nodegroup",
        "metadata": {"name": name}, "spec": {"name": name}})
}

fn subnet(id: &str, public: bool) -> Value {
    json!({"apiVersion": "sim.wharf.dev/v1", "kind": "Subnet", "metadata": {"name": id},
        "spec": {"cidrBlock": "10.10.0.0/20", "zone": "z", "zoneId": "i", "public": public}})
}

#[test]
fn a_new_group_is_completed_and_counts_its_generations() {
    let cluster = Cluster::new();
    cluster.create(subnet("subnet-private", false)).unwrap();
    cluster.create(subnet("subnet-public", true)).unwrap();
    let stored = cluster.create(group("workers")).unwrap();
    assert_eq!(stored["spec"]["instanceTypes"], json!(["t3.medium"]));
    assert_eq!(stored["spec"]["subnets"], json!(["subnet-private"]), "none is all private ones");
    let sizes = json!({"minSize": 1, "desiredSize": 2, "maxSize": 2});
    assert_eq!(stored["spec"]["scalingConfig"], sizes);
    let stored = cluster.update(with(stored, "status.status", json!("ACTIVE")), Part::Status);
    assert_eq!(stored.as_ref().unwrap()["metadata"]["generation"], 1);
    // What the group keeps need not be repeated.
    let sizes = json!({"minSize": 0, "desiredSize": 5, "maxSize": 9});
    let mut scaled = with(stored.unwrap(), "spec", json!({"name": "workers"}));
    scaled["spec"]["scalingConfig"] = sizes.clone();
    let stored = cluster.update(scaled, Part::Main).unwrap();
    assert_eq!(stored["spec"]["scalingConfig"], sizes);
    assert_eq!(stored["spec"]["instanceTypes"], json!(["t3.medium"]));
    assert_eq!(stored["metadata"]["generation"], 2);
    assert_eq!(stored["status"]["status"], "ACTIVE");
}

#[test]
fn eks_refuses_these_groups() {
    let cluster = Cluster::new();
    let refusal = |group: Value| cluster.create(group).unwrap_err().message;
    let start = "Nodegroup.eks.services.k8s.aws \"a\" is invalid: ";
    for (path, value, expected) in [
        (
            "spec.scalingConfig",
            json!({"minSize": 2, "desiredSize": 1, "maxSize": 3}),
            "spec.scalingConfig: Invalid value: Minimum capacity 2 can't be greater than desired size 1",
        ),
        (
            "spec.subnets",
            json!(["subnet-1"]),
            "spec.subnets[0]: Invalid value: The subnet ID 'subnet-1' does not exist",
        ),
    ] {
        assert_eq!(refusal(with(group("a"), path, value)), format!("{start}{expected}"));
    }
    let stored = cluster.create(group("a")).unwrap();
    let again = with(group("b"), "spec.name", json!("a"));
    assert_eq!(refusal(again), "NodeGroup already exists with name a");
    let changed = with(stored, "spec.instanceTypes", json!(["m5.large"]));
    let message = cluster.update(changed, Part::Main).unwrap_err().message;
    assert_eq!(
        message,
        format!(
            "{start}spec.instanceTypes: Invalid value: a node group keeps it: create another group, and delete this one"
        )
    );
}
