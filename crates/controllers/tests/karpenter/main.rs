//! Karpenter's controllers in a small cluster on a virtual clock.

mod world;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;
use wharf_cloud::ec2::CapacityRule;
use wharf_controllers::karpenter;
use wharf_model::karpenter::{NodeClaim, NodePool};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::{Delete, Write};

use world::World;

fn check_settled(world: &World, pods: usize) {
    let story = || format!("{:#?}\n{:#?}", world.messages(), world.journal.refused);
    assert_eq!(world.running_pods(), pods, "{}", story());
    let (nodes, claims, machines) =
        (world.nodes().len(), world.claims().len(), world.machines().len());
    assert_eq!((nodes, machines), (claims, claims), "claims: {claims}; {}", story());
}

fn delete<T: Resource>(world: &mut World, key: &ObjectKey) {
    let object = world.registry.get(Kind::of::<T>(), key).expect("it is there");
    world.registry.apply(Write::Delete(Delete::of(&object))).expect("it is accepted");
}

fn running(pods: usize) -> World {
    let mut world = World::new();
    world.pool(|_| {});
    world.scale(pods);
    world.run(90);
    check_settled(&world, pods);
    world
}

#[test]
fn the_inflate_lab() {
    let mut world = running(5);
    let claims = world.claims();
    assert_eq!(claims.len(), 1);
    let labels = claims[0].metadata.labels.clone().unwrap_or_default();
    assert_eq!(labels["node.kubernetes.io/instance-type"], "c6g.2xlarge");
    assert_eq!(labels["karpenter.sh/capacity-type"], "on-demand");
    assert!(claims[0].metadata.name.as_deref().is_some_and(|name| name.len() == 13));
    world.scale(30);
    world.run(120);
    check_settled(&world, 30);
    assert_eq!(world.claims().len(), 2);
    world.scale(5);
    world.run(900);
    check_settled(&world, 5);
    assert_eq!(world.claims().len(), 1);
    world.scale(0);
    world.run(400);
    check_settled(&world, 0);
    assert_eq!(world.claims().len(), 0);
    let expected = [
        "found provisionable pod(s)",
        "computed new nodeclaim(s) to fit pod(s)",
        "created nodeclaim",
        "launched nodeclaim",
        "registered nodeclaim",
        "initialized nodeclaim",
    ];
    let messages = world.messages();
    assert_eq!(messages[..6], expected);
    let disrupting: Vec<&String> =
        messages.iter().filter(|message| message.starts_with("disrupting")).collect();
    assert!(disrupting[0].starts_with("disrupting nodeclaim(s) via delete, terminating 1 nodes ("));
    assert!(disrupting[0].ends_with("/on-demand [underutilized]"), "{disrupting:?}");
    let last = disrupting[disrupting.len() - 1];
    assert!(last.contains("(0 pods) ip-192-168-") && last.ends_with("[empty]"), "{last}");
    assert_eq!(
        messages[messages.len() - 3..],
        ["tainted node", "deleted node", "deleted nodeclaim"]
    );
    for (reason, text) in [
        ("Nominated", "Pod should schedule on: nodeclaim/default-"),
        ("Launched", "Status condition transitioned, Type: Launched, Status: Unknown -> True"),
        ("Registered", "Type: Registered, Status: Unknown -> True, Reason: Registered"),
        ("Initialized", "Type: Initialized, Status: Unknown -> True"),
        ("Ready", "Type: Ready, Status: Unknown -> True"),
        ("DisruptionTerminating", "Disrupting Node: Underutilized"),
        ("DisruptionTerminating", "Disrupting NodeClaim: Empty"),
        ("Evicted", "Evicted pod: Underutilized"),
    ] {
        assert!(world.has_event(reason, text), "{reason}: {text}\n{:#?}", world.events());
    }
    let why = |by: &str, start: &str| {
        let reasons = world.journal.reasons.iter();
        reasons.filter(|reason| reason.by == by && reason.decision.starts_with(start)).count()
    };
    assert!(why("provisioner", "no node has room") >= 20);
    assert!(why("provisioner", "launched c6g.2xlarge (on-demand) in us-east-1") >= 1);
    assert!(why("disruption", "given up: Underutilized") >= 2);
    assert!(why("disruption", "given up: Empty") >= 2);
    assert_eq!(world.journal.refused, Vec::<String>::new());
}

#[test]
fn nodes_are_replaced_by_smaller_ones() {
    let mut world = running(12);
    for (pods, from, to) in [(5, "c6g.4xlarge", "c6g.2xlarge"), (1, "c6g.2xlarge", "c6g.large")] {
        world.scale(pods);
        world.run(300);
        check_settled(&world, pods);
        let expected =
            format!("/{from}/on-demand and replacing with on-demand node from types {to}, c7g.");
        let messages = world.messages();
        let found = messages.iter().any(|message| {
            message.starts_with("disrupting nodeclaim(s) via replace, terminating 1 nodes (")
                && message.contains(&expected)
        });
        assert!(found, "{expected}: {messages:#?}");
    }
    for reason in ["DisruptionLaunching", "DisruptionWaitingReadiness", "DisruptionTerminating"] {
        assert!(world.has_event(reason, ""), "{reason}");
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = || {
        let mut world = running(12);
        world.scale(1);
        world.run(600);
        check_settled(&world, 1);
        world.journal.logs
    };
    assert_eq!(story(), story());
}

#[test]
fn restarts_between_any_two_writes_change_nothing_that_lasts() {
    for salt in 0..3 {
        let mut world = World::with("1", Vec::new(), salt);
        world.pool(|_| {});
        world.scale(5);
        world.run_with_restarts(200, 16, salt);
        check_settled(&world, 5);
        assert_eq!(world.claims().len(), 1, "salt {salt}");
        world.scale(30);
        world.run_with_restarts(200, 16, salt);
        check_settled(&world, 30);
        world.scale(4);
        world.run_with_restarts(300, 16, salt);
        // A restart forgets what is under way; what is worth it is found again.
        world.run(900);
        check_settled(&world, 4);
        assert_eq!(world.claims().len(), 1, "salt {salt}");
        world.scale(0);
        world.run_with_restarts(300, 16, salt);
        check_settled(&world, 0);
        assert_eq!(world.machines().len(), 0);
    }
}

#[test]
fn types_out_of_capacity_are_passed_over() {
    let rules = ["c6g.2xlarge", "c7g.2xlarge"].map(|name| CapacityRule {
        instance_type: Some(name.to_owned()),
        ..CapacityRule::default()
    });
    let mut world = World::with("1", rules.to_vec(), 1);
    // Consolidation would try the cheaper types again, at a moment that varies with names.
    world.pool(|pool| pool["spec"]["disruption"]["consolidateAfter"] = json!("Never"));
    world.scale(5);
    world.run(120);
    check_settled(&world, 5);
    let labels = world.claims()[0].metadata.labels.clone().unwrap_or_default();
    assert_eq!(labels["node.kubernetes.io/instance-type"], "c6a.2xlarge");
}

#[test]
fn a_pool_without_capacity_is_tried_again() {
    let rule =
        CapacityRule { instance_type: Some("c6g.2xlarge".to_owned()), ..CapacityRule::default() };
    let mut world = World::with("1", vec![rule], 1);
    world.pool(|pool| {
        let requirements = &mut pool["spec"]["template"]["spec"]["requirements"];
        requirements.as_array_mut().expect("a list").push(json!(
            {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["c6g.2xlarge"]}
        ));
    });
    world.scale(2);
    world.run(60);
    assert_eq!(world.running_pods(), 0);
    assert!(world.has_event("InsufficientCapacityError", "event: creating instance"));
    assert!(
        world.has_event(
            "FailedScheduling",
            "Failed to schedule pod, nodepool requirements filtered out all available instance types"
        ),
        "{:#?}",
        world.events()
    );
    assert_eq!(world.claims().len(), 0);
}

#[test]
fn limits_hold_and_unplaceable_pods_are_told() {
    let mut world = World::new();
    world.pool(|pool| pool["spec"]["limits"] = json!({"cpu": "8"}));
    world.scale(20);
    world.run(300);
    let cpus: i64 = world
        .claims()
        .iter()
        .map(|claim| wharf_model::resources::Resources::from_map(&claim.status.capacity).cpu_milli)
        .sum();
    assert!(cpus <= 8_000, "{cpus}");
    assert_eq!(world.running_pods(), 7);
    assert!(world.has_event(
        "FailedScheduling",
        "Failed to schedule pod, all available instance types exceed limits for nodepool"
    ));
    let pool = &world.list::<NodePool>()[0];
    assert_eq!(pool.status.nodes, Some(1));
    assert_eq!(pool.status.resources["cpu"].0, "8");
}

#[test]
fn a_deleted_claim_moves_its_pods_first() {
    let mut world = running(5);
    let name = world.claims()[0].metadata.name.clone().expect("a name");
    delete::<NodeClaim>(&mut world, &ObjectKey::cluster(&name));
    world.run(200);
    check_settled(&world, 5);
    assert_eq!(world.claims().len(), 1);
    assert_ne!(world.claims()[0].metadata.name.as_deref(), Some(name.as_str()));
}

#[test]
fn a_budget_holds_the_drain_up() {
    let mut world = running(3);
    world.create::<PodDisruptionBudget>(json!({
        "metadata": {"name": "inflate", "namespace": "default"},
        "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "inflate"}}},
    }));
    world.run(5);
    let name = world.claims()[0].metadata.name.clone().expect("a name");
    delete::<NodeClaim>(&mut world, &ObjectKey::cluster(&name));
    world.run(120);
    assert_eq!(world.running_pods(), 3);
    assert!(
        world.has_event("FailedDraining", "evicting pod violates a PDB"),
        "{:#?}",
        world.events()
    );
    assert!(world.has_event("FailedDraining", "Failed to drain node, 3 pods are waiting"));
    delete::<PodDisruptionBudget>(&mut world, &ObjectKey::namespaced("default", "inflate"));
    world.run(200);
    check_settled(&world, 3);
}

#[test]
fn nodes_expire() {
    let mut world = World::new();
    world.pool(|pool| pool["spec"]["template"]["spec"]["expireAfter"] = json!("10m"));
    world.scale(2);
    world.run(500);
    check_settled(&world, 2);
    let first = world.claims()[0].metadata.name.clone();
    world.run(300);
    check_settled(&world, 2);
    assert_ne!(world.claims()[0].metadata.name, first);
}

#[test]
fn drifted_nodes_are_replaced_before_they_go() {
    let mut world = running(5);
    let first = world.claims()[0].metadata.name.clone();
    world.update::<NodePool>("default", |pool| {
        pool.spec.template.metadata.labels.insert("team".to_owned(), "blue".to_owned());
    });
    world.run(30);
    assert_eq!(world.running_pods(), 5, "the old node serves until the new one is ready");
    world.run(200);
    check_settled(&world, 5);
    let claim = &world.claims()[0];
    assert_ne!(claim.metadata.name, first);
    assert_eq!(claim.metadata.labels.clone().unwrap_or_default()["team"], "blue");
    let drifted = world.messages().into_iter().any(|message| message.ends_with("[drifted]"));
    assert!(drifted, "{:#?}", world.messages());
}

#[test]
fn budgets_of_zero_keep_every_node() {
    let mut world = World::new();
    world.pool(|pool| pool["spec"]["disruption"]["budgets"] = json!([{"nodes": "0"}]));
    world.scale(5);
    world.run(90);
    world.scale(0);
    world.run(600);
    assert_eq!(world.claims().len(), 1);
}

#[test]
fn do_not_disrupt_keeps_a_node() {
    let mut world = running(5);
    let pod = world.list::<Pod>().remove(0);
    let key = ObjectKey::of(&pod.metadata);
    let mut draft = pod;
    let annotations = draft.metadata.annotations.get_or_insert_default();
    annotations.insert("karpenter.sh/do-not-disrupt".to_owned(), "true".to_owned());
    let part = wharf_ports::cluster::Part::Main;
    world.registry.apply(Write::Update { object: Box::new(draft), part }).expect("accepted");
    world.run(400);
    assert!(
        world.has_event("DisruptionBlocked", &format!("annotation (Pod={key})")),
        "{:#?}",
        world.events()
    );
    check_settled(&world, 5);
}

/// What provisioning says of a pod of this size, as JSON.
fn outlook(world: &World, cpu: &str) -> serde_json::Value {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "p"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    }))
    .expect("a pod");
    let settings = karpenter::KarpenterSettings::default();
    let (view, catalog) = (world.view(), world::catalog());
    let outlook = karpenter::review(&view, &catalog, settings, &pod, world.registry.now());
    serde_json::to_value(outlook).expect("it serializes")
}

#[test]
fn what_pools_would_do_for_a_pod_is_told_by_requirements_and_limits() {
    let mut world = running(5);
    let told = outlook(&world, "64");
    assert_eq!(told["expectedOn"], json!(null));
    assert_eq!(told["nodePools"][0]["nodePool"], "default");
    assert_eq!(told["nodePools"][0]["takes"]["cheapest"], "c5.18xlarge");
    // The batch's machine has eight cpus.
    let limits = json!({"resource": "cpu", "limit": 1_000_000, "left": 992_000});
    assert_eq!(told["nodePools"][0]["limits"][0], limits);
    // The node that is there has room for a small one.
    assert!(outlook(&world, "1")["expectedOn"].is_string());

    world.update::<NodePool>("default", |pool| {
        let limit = k8s_openapi::apimachinery::pkg::api::resource::Quantity("50".to_owned());
        pool.spec.limits.insert("cpu".to_owned(), limit.into());
    });
    world.run(1);
    let told = outlook(&world, "64");
    let because = &told["nodePools"][0]["refuses"]["because"];
    assert_eq!(because["reason"], "limits");
    assert_eq!(because["exceeded"][0]["left"], 42_000);

    world.update::<NodePool>("default", |pool| {
        "missing".clone_into(&mut pool.spec.template.spec.node_class_ref.name);
    });
    world.run(60);
    let told = outlook(&world, "64");
    assert!(
        told["nodePools"][0]["unused"]
            .as_str()
            .is_some_and(|why| why.starts_with("it is not ready")),
        "{told}"
    );
}
