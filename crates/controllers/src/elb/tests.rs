use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};
use wharf_model::balancing::{LoadBalancer, TargetGroup, TargetGroupBinding};
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::Propagation;
use wharf_ports::controller::Controller;

use super::*;
use crate::workloads::endpoints::{Form, ServiceEndpoints};
use crate::workloads::harness::World;

fn all() -> Vec<Box<dyn Controller>> {
    let settings = ElbSettings::new("fargate-serverless", "ap-northeast-2", (1, 1));
    let mut all = controllers(settings);
    all.push(Box::new(ServiceEndpoints::new(Form::Slices)));
    all
}

fn world(zones: usize) -> World {
    let mut world = World::new(all());
    world.apply(json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": "alb"}, "spec": {"controller": CONTROLLER}}));
    for zone in ["a", "b", "c"].into_iter().take(zones) {
        for public in [true, false] {
            world.apply(json!({"apiVersion": "sim.wharf.dev/v1", "kind": "Subnet",
                "metadata": {"name": format!("subnet-{zone}-{public}")},
                "spec": {"cidrBlock": "10.0.0.0/24", "zone": zone, "zoneId": zone, "public": public}}));
        }
    }
    world.apply(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "service-2048", "namespace": "study-aews"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.100.7.7", "selector": {"app": "2048"},
            "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]}}));
    for number in 1..=2 {
        add_pod(&mut world, number);
    }
    world
}

fn add_pod(world: &mut World, number: usize) {
    world.apply(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p-{number}"), "namespace": "study-aews", "labels": {"app": "2048"}},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]},
        "status": {"phase": "Running", "podIP": format!("10.0.0.{number}"),
            "conditions": [{"type": "Ready", "status": "True"}]}}));
}

fn ingress(name: &str, annotations: Value) -> Value {
    let annotations: serde_json::Map<String, Value> = annotations
        .as_object()
        .expect("annotations")
        .iter()
        .map(|(key, value)| (format!("alb.ingress.kubernetes.io/{key}"), value.clone()))
        .collect();
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "study-aews", "annotations": annotations},
        "spec": {"ingressClassName": "alb", "rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "service-2048", "port": {"number": 80}}}}]}}]}})
}

fn public() -> Value {
    json!({"scheme": "internet-facing", "target-type": "ip"})
}

fn settle(world: &mut World, seconds: u64) {
    world.run_for(Duration::from_secs(seconds));
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("study-aews", name)
}

fn hostname(world: &World, name: &str) -> Option<String> {
    let ingress = world.get::<Ingress>("study-aews", name)?;
    let points = ingress.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    points.first()?.hostname.clone()
}

fn states(world: &World) -> Vec<String> {
    let groups = world.list::<TargetGroup>();
    let targets = groups.iter().flat_map(|group| &group.status.targets);
    targets.map(|target| format!("{}:{} {}", target.id, target.port, target.state)).collect()
}

#[test]
fn an_ingress_gets_a_load_balancer_with_its_pods_as_targets() {
    let mut world = world(3);
    world.apply(ingress("ingress-2048", public()));
    settle(&mut world, 5);
    let host = hostname(&world, "ingress-2048").expect("a hostname at once");
    assert!(host.starts_with("k8s-studyaew-ingress2-"), "{host}");
    assert!(host.ends_with(".ap-northeast-2.elb.amazonaws.com"), "{host}");
    assert!(world.messages().contains(&"Successfully reconciled"));
    let stored = world.get::<Ingress>("study-aews", "ingress-2048").expect("it is there");
    assert_eq!(
        stored.metadata.finalizers.as_deref(),
        Some(&["ingress.k8s.aws/resources".to_owned()][..])
    );
    let bindings = world.list::<TargetGroupBinding>();
    let [binding] = bindings[..] else { panic!("one binding") };
    let name = binding.metadata.name.clone().expect("a name");
    assert!(name.starts_with("k8s-studyaew-service2-"), "{name}");
    assert_eq!(binding.spec.target_type.as_deref(), Some("ip"));
    assert_eq!(binding.spec.service_ref.name, "service-2048");
    assert_eq!(states(&world), ["10.0.0.1:80 initial", "10.0.0.2:80 initial"]);
    let balancer = world.list::<LoadBalancer>()[0].clone();
    assert_eq!(balancer.status.state, "provisioning");
    assert_eq!(balancer.spec.subnets, ["subnet-a-true", "subnet-b-true", "subnet-c-true"]);
    assert_eq!(balancer.spec.listeners[0].port, 80);
    assert_eq!(balancer.spec.listeners[0].rules[0].paths, ["/*"]);
    assert_eq!(balancer.spec.listeners[0].rules[1].fixed_response, Some(404));
    settle(&mut world, 200);
    assert_eq!(world.list::<LoadBalancer>()[0].status.state, "active");
    assert_eq!(states(&world), ["10.0.0.1:80 healthy", "10.0.0.2:80 healthy"]);

    // Scaled up, and down.
    add_pod(&mut world, 3);
    add_pod(&mut world, 4);
    settle(&mut world, 20);
    assert_eq!(states(&world).len(), 4);
    world.delete::<Pod>(&key("p-1"), Propagation::Background);
    settle(&mut world, 20);
    assert_eq!(states(&world)[0], "10.0.0.1:80 draining");
    settle(&mut world, 300);
    assert_eq!(states(&world).len(), 3);

    // Nothing is written twice; a restart changes nothing.
    let writes = world.writes;
    world.restart(all());
    settle(&mut world, 60);
    assert_eq!(world.writes - writes, 0, "{:?}", world.messages());

    world.delete::<Ingress>(&key("ingress-2048"), Propagation::Background);
    settle(&mut world, 10);
    assert!(world.get::<Ingress>("study-aews", "ingress-2048").is_none(), "it goes");
    assert_eq!(world.list::<TargetGroupBinding>().len(), 0);
    assert_eq!(world.list::<TargetGroup>().len(), 0);
    assert_eq!(world.list::<LoadBalancer>()[0].status.state, "deleted", "kept for the ledger");
    world.apply(ingress("ingress-2048", public()));
    settle(&mut world, 5);
    assert_ne!(hostname(&world, "ingress-2048"), Some(host), "a new one has another name in DNS");
    settle(&mut world, 25 * 3_600);
    assert_eq!(world.list::<LoadBalancer>().len(), 1);
}

#[test]
fn ingresses_of_a_group_share_a_load_balancer() {
    let mut world = world(2);
    let group =
        |order: &str| json!({"target-type": "ip", "group.name": "shop", "group.order": order});
    world.apply(ingress("one", group("20")));
    world.apply(ingress("two", group("10")));
    settle(&mut world, 5);
    let host = hostname(&world, "one").expect("a hostname");
    assert_eq!(hostname(&world, "two").as_ref(), Some(&host));
    assert!(host.starts_with("internal-k8s-shop-"), "{host}");
    let balancers = world.list::<LoadBalancer>();
    assert_eq!(balancers.len(), 1);
    assert_eq!(balancers[0].spec.listeners[0].rules.len(), 3);
    world.delete::<Ingress>(&key("one"), Propagation::Background);
    settle(&mut world, 5);
    assert_eq!(hostname(&world, "two"), Some(host), "the other keeps it");
    assert_eq!(world.list::<LoadBalancer>()[0].spec.listeners[0].rules.len(), 2);
    assert!(world.get::<Ingress>("study-aews", "one").is_none());
}

#[test]
fn what_cannot_be_built_is_told_in_clear_words() {
    for (zones, annotations, expected) in [
        (
            3,
            json!({}),
            "Failed build model due to ingress: study-aews/i: TargetGroup port is empty. When using Instance targets, your service must be of type 'NodePort' or 'LoadBalancer'",
        ),
        (
            1,
            public(),
            "Failed build model due to couldn't auto-discover subnets: subnets count less than minimal required count: 1 < 2",
        ),
        (
            0,
            public(),
            "Failed build model due to couldn't auto-discover subnets: unable to resolve at least one subnet (0 match VPC and tags: [kubernetes.io/role/elb])",
        ),
        (
            3,
            json!({"scheme": "public"}),
            "Failed build model due to ingress: study-aews/i: unknown scheme: public, it is one of internal, internet-facing",
        ),
        (
            3,
            json!({"load-balancer-name": "a-name-that-has-more-than-32-letters"}),
            "Failed build model due to load balancer name cannot be longer than 32 characters: a-name-that-has-more-than-32-letters",
        ),
        (
            3,
            json!({"target-type": "ip", "listen-ports": "[]"}),
            "Failed build model due to ingress: study-aews/i: empty listen-ports configuration: `[]`",
        ),
        (
            3,
            json!({"target-type": "ip", "group.name": "A B"}),
            "Failed build model due to ingress: study-aews/i: invalid group.name \"A B\": it has at most 63 lower case letters, digits, - and .",
        ),
    ] {
        let mut world = world(zones);
        world.apply(ingress("i", annotations));
        settle(&mut world, 30);
        let told: Vec<&str> =
            world.messages().into_iter().filter(|m| m.starts_with("Failed")).collect();
        assert_eq!(told, [expected], "once");
    }
    let mut world = world(3);
    let mut missing = ingress("i", public());
    missing["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = json!("gone");
    world.apply(missing);
    settle(&mut world, 5);
    let balancer = world.list::<LoadBalancer>()[0].clone();
    assert_eq!(balancer.spec.listeners[0].rules[0].fixed_response, Some(503));
}

#[test]
fn a_service_gets_a_network_load_balancer() {
    let mut world = world(1);
    world.apply(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "study-aews", "annotations": {
            "service.beta.kubernetes.io/aws-load-balancer-scheme": "internet-facing",
            "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip"}},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": NLB_CLASS, "clusterIP": "10.100.0.9",
            "selector": {"app": "2048"}, "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]}}));
    settle(&mut world, 30);
    let service = world.get::<Service>("study-aews", "web").expect("it is there");
    let points = service.status.as_ref().and_then(|it| it.load_balancer.as_ref()?.ingress.clone());
    let host = points.expect("a hostname")[0].hostname.clone().expect("a hostname");
    assert!(
        host.starts_with("k8s-studyaew-web-") && host.contains(".elb.ap-northeast-2."),
        "{host}"
    );
    assert_eq!(states(&world), ["10.0.0.1:80 healthy", "10.0.0.2:80 healthy"]);
    world.delete::<Service>(&key("web"), Propagation::Background);
    settle(&mut world, 10);
    assert!(world.get::<Service>("study-aews", "web").is_none());
    assert_eq!(world.list::<TargetGroup>().len(), 0);
}

#[test]
fn a_pod_with_the_gate_is_registered_before_it_is_ready() {
    let mut world = world(2);
    world.apply(ingress("i", public()));
    settle(&mut world, 60);
    let binding = world.list::<TargetGroupBinding>()[0].metadata.name.clone().expect("a name");
    let gate = health_condition(&binding);
    world.apply(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "gated", "namespace": "study-aews", "labels": {"app": "2048"}},
        "spec": {"containers": [{"name": "c"}], "readinessGates": [{"conditionType": gate}]},
        "status": {"phase": "Running", "podIP": "10.0.0.9", "conditions": [
            {"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]}}));
    settle(&mut world, 5);
    let said = |world: &World| {
        let pod = world.get::<Pod>("study-aews", "gated").expect("it is there");
        wharf_model::pod::condition(pod, &gate).map(|it| it.status.clone())
    };
    assert_eq!(said(&world).as_deref(), Some("False"));
    settle(&mut world, 20);
    assert_eq!(said(&world).as_deref(), Some("True"));
}
