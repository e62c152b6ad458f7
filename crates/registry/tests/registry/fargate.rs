//! Fargate's webhook, profiles, subnets, and configurations of webhooks.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;

use crate::{Cluster, with};

fn profile(name: &str, namespace: &str) -> Value {
    json!({"apiVersion": "eks.services.k8s.aws/v1alpha1", "kind": "FargateProfile",
        "metadata": {"name": name},
        "spec": {"name": name, "selectors": [{"namespace": namespace}]}})
}

fn activate(cluster: &Cluster, profile: Value) {
    let stored = cluster.create(profile).unwrap();
    cluster.update(with(stored, "status", json!({"status": "ACTIVE"})), Part::Status).unwrap();
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[test]
fn pods_of_an_active_profile_become_fargates() {
    let cluster = Cluster::new();
    let creating = cluster.create(profile("fp", "defaul?")).unwrap();
    let before = cluster.create(pod("before")).unwrap();
    assert_eq!(before["spec"]["schedulerName"], "default-scheduler");
    cluster.update(with(creating, "status", json!({"status": "ACTIVE"})), Part::Status).unwrap();
    let taken = cluster.create(pod("taken")).unwrap();
    let spec = &taken["spec"];
    assert_eq!(spec["schedulerName"], "fargate-scheduler");
    assert_eq!(spec["priorityClassName"], "system-node-critical");
    assert_eq!(spec["priority"], 2_000_001_000);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    assert_eq!(taken["metadata"]["labels"], json!({"eks.amazonaws.com/fargate-profile": "fp"}));
    let dns =
        with(pod("dns"), "metadata.annotations", json!({"eks.amazonaws.com/compute-type": "ec2"}));
    assert_eq!(cluster.create(dns).unwrap()["spec"]["schedulerName"], "default-scheduler");
}

#[test]
fn eks_refuses_these_profiles() {
    let cluster = Cluster::new();
    for (path, value, expected) in [
        (
            "spec.name",
            json!("eks-mine"),
            "spec.name: Invalid value: \"eks-mine\" begins with eks-, which AWS keeps to itself",
        ),
        (
            "spec.selectors",
            json!([]),
            "spec.selectors: Invalid value: a profile has 1 to 5 selectors, this one has 0",
        ),
        (
            "spec.subnets",
            json!(["subnet-1"]),
            "spec.subnets[0]: Invalid value: The subnet ID 'subnet-1' does not exist",
        ),
    ] {
        let refusal = cluster.create(with(profile("a", "b"), path, value)).unwrap_err();
        let start = "FargateProfile.eks.services.k8s.aws \"a\" is invalid: ";
        assert_eq!(refusal.message, format!("{start}{expected}"));
    }
    activate(&cluster, profile("a", "b"));
    let again = with(profile("other", "b"), "spec.name", json!("a"));
    let refusal = cluster.create(again).unwrap_err();
    assert_eq!(refusal.message, "there is a Fargate profile named a already");
    for number in 1..10 {
        activate(&cluster, profile(&format!("p{number}"), "b"));
    }
    let refusal = cluster.create(profile("p10", "b")).unwrap_err();
    assert_eq!(
        refusal.message,
        "Cannot create Fargate Profile p10: the cluster has 10 profiles, the most there may be"
    );
}

#[test]
fn all_but_the_tags_of_a_profile_is_fixed() {
    let cluster = Cluster::new();
    let stored = cluster.create(profile("a", "b")).unwrap();
    let tagged = cluster.update(with(stored, "spec.tags", json!({"t": "v"})), Part::Main).unwrap();
    let changed = with(tagged, "spec.selectors", json!([{"namespace": "c"}]));
    let refusal = cluster.update(changed, Part::Main).unwrap_err();
    assert!(refusal.message.ends_with(
        "spec.selectors: Invalid value: a Fargate profile cannot be changed; create another and delete this one"
    ));
}

fn subnet(id: &str, block: &str, public: bool) -> Value {
    json!({"apiVersion": "sim.wharf.dev/v1", "kind": "Subnet", "metadata": {"name": id},
        "spec": {"cidrBlock": block, "zone": "z", "zoneId": "i", "public": public}})
}

#[test]
fn profiles_are_for_private_subnets() {
    let cluster = Cluster::new();
    cluster.create(subnet("subnet-private", "10.10.0.0/20", false)).unwrap();
    let public = cluster.create(subnet("subnet-public", "10.10.48.0/24", true)).unwrap();
    let on = |subnets: Value| with(profile("a", "b"), "spec.subnets", subnets);
    let refusal = cluster.create(on(json!(["subnet-private", "subnet-public"]))).unwrap_err();
    assert!(refusal.message.ends_with(
        "spec.subnets[1]: Invalid value: Subnet subnet-public provided in Fargate Profile is not a private subnet"
    ));
    let stored = cluster.create(profile("a", "b")).unwrap();
    assert_eq!(stored["spec"]["subnets"], json!(["subnet-private"]), "none is all private ones");
    let moved = cluster.update(with(public, "spec.zone", json!("y")), Part::Main).unwrap_err();
    assert!(moved.message.ends_with("field is immutable"), "{}", moved.message);
    let wrong = cluster.create(subnet("s", "10.10.0.1/20", false)).unwrap_err();
    assert!(wrong.message.contains("the block around it is 10.10.0.0/20"), "{}", wrong.message);
}

#[test]
fn webhook_configurations_are_kept_with_upstreams_defaults() {
    let cluster = Cluster::new();
    let webhook = json!({"name": "a.b.c", "clientConfig": {"service": {"namespace": "n", "name": "s"}},
        "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]});
    let configuration = |webhooks: Value| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "c"}, "webhooks": webhooks})
    };
    let stored = cluster.create(configuration(json!([webhook]))).unwrap();
    let first = &stored["webhooks"][0];
    assert_eq!(first["failurePolicy"], "Fail");
    assert_eq!(first["rules"][0]["scope"], "*");
    assert_eq!(first["clientConfig"]["service"]["port"], 443);
    assert_eq!(first["timeoutSeconds"], 10);
    for (path, value, expected) in [
        (
            "name",
            json!("a.b"),
            "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
        ),
        (
            "sideEffects",
            json!("Some"),
            "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
        ),
        (
            "clientConfig",
            json!({}),
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
        ),
        (
            "failurePolicy",
            json!("Perhaps"),
            "webhooks[0].failurePolicy: Unsupported value: \"Perhaps\": supported values: \"Fail\", \"Ignore\"",
        ),
    ] {
        let wrong = with(webhook.clone(), path, value);
        let refusal = cluster.create(configuration(json!([wrong]))).unwrap_err();
        let start = "MutatingWebhookConfiguration.admissionregistration.k8s.io \"c\" is invalid: ";
        assert_eq!(refusal.message, format!("{start}{expected}"));
    }
    let twice = cluster.create(configuration(json!([webhook, webhook]))).unwrap_err();
    assert!(twice.message.contains("webhooks[1].name: Duplicate value: \"a.b.c\""));
}
