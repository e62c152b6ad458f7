use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use proptest::prelude::*;
use serde_json::{Value, json};
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::Propagation;

use super::*;
use crate::workloads::harness::World;

fn controllers() -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(ServiceEndpoints::new(Form::Slices)),
        Box::new(ServiceEndpoints::new(Form::Subsets)),
    ]
}

fn world() -> World {
    World::new(controllers())
}

/// The view catches up with its lag only when nothing is due, and a write that was refused for what the
/// view does not show yet is due again and again: what it leaves to do is done in the second span.
fn settle(world: &mut World) {
    world.run_for(Duration::from_secs(5));
    world.run_for(Duration::from_secs(5));
}

fn service(spec: Value) -> Value {
    let metadata = json!({"name": "web", "namespace": "shop", "labels": {"tier": "front"}});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

fn web() -> Value {
    service(json!({"clusterIP": "10.100.7.7", "selector": {"app": "web"}, "ports": [
        {"port": 80, "targetPort": "http", "protocol": "TCP"}]}))
}

fn pod(number: usize, ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-{number}"), "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", number / 200, number % 200 + 1),
            "conditions": [{"type": "Ready", "status": status}]}})
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("shop", name)
}

fn endpoints(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

fn slices(world: &World) -> Vec<&EndpointSlice> {
    world.list::<EndpointSlice>()
}

fn subsets(world: &World) -> Value {
    let endpoints = world.get::<Endpoints>("shop", "web").expect("Endpoints");
    serde_json::to_value(&endpoints.subsets).expect("plain data")
}

#[test]
fn ready_pods_are_endpoints_and_others_are_told_apart() {
    let mut world = world();
    world.apply(web());
    settle(&mut world);
    assert_eq!(slices(&world).len(), 1, "an empty slice from the start");
    assert_eq!(endpoints(slices(&world)[0]), []);
    assert_eq!(subsets(&world), json!(null));
    world.apply(pod(1, true));
    world.apply(pod(2, false));
    settle(&mut world);
    let [slice] = slices(&world)[..] else { panic!("one slice") };
    let name = slice.metadata.name.as_deref().expect("a name");
    assert!(name.starts_with("web-") && name.len() == "web-xxxxx".len(), "{name}");
    let labels = slice.metadata.labels.clone().expect("labels");
    assert_eq!(labels[SERVICE_NAME], "web");
    assert_eq!(labels[MANAGED_BY], MANAGER);
    assert_eq!(labels["tier"], "front");
    let owner = &slice.metadata.owner_references.as_ref().expect("an owner")[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Service", "web"));
    assert_eq!(slice.ports.as_ref().expect("ports")[0].port, Some(8080), "by its name");
    let conditions: BTreeMap<&str, (bool, bool, bool)> = endpoints(slice)
        .iter()
        .map(|endpoint| {
            let said = endpoint.conditions.clone().expect("conditions");
            let all = (said.ready, said.serving, said.terminating);
            (
                endpoint.addresses[0].as_str(),
                (all.0 == Some(true), all.1 == Some(true), all.2 == Some(true)),
            )
        })
        .collect();
    assert_eq!(conditions["10.0.0.2"], (true, true, false));
    assert_eq!(conditions["10.0.0.3"], (false, false, false));
    let told = subsets(&world);
    assert_eq!(told[0]["addresses"][0]["ip"], "10.0.0.2");
    assert_eq!(told[0]["addresses"][0]["targetRef"]["name"], "web-1");
    assert_eq!(told[0]["notReadyAddresses"][0]["ip"], "10.0.0.3");
    assert_eq!(told[0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));

    // On its way out it still serves.
    world.delete::<Pod>(&key("web-1"), Propagation::Background);
    settle(&mut world);
    let out = endpoints(slices(&world)[0]).iter().find(|e| e.addresses[0] == "10.0.0.2");
    let said = out.and_then(|endpoint| endpoint.conditions.clone()).expect("conditions");
    assert_eq!((said.ready, said.serving, said.terminating), (Some(false), Some(true), Some(true)));
    assert_eq!(subsets(&world)[0]["addresses"], json!(null));
    world.delete::<Service>(&key("web"), Propagation::Background);
    settle(&mut world);
    assert!(world.get::<Endpoints>("shop", "web").is_none(), "Endpoints go with the Service");
}

#[test]
fn pods_that_are_not_ready_are_published_where_a_service_wants_it() {
    let mut world = world();
    world.apply(service(
        json!({"clusterIP": "None", "selector": {"app": "web"}, "publishNotReadyAddresses": true}),
    ));
    world.apply(pod(1, false));
    settle(&mut world);
    let slice = slices(&world)[0];
    let labels = slice.metadata.labels.as_ref().expect("labels");
    assert_eq!(labels["service.kubernetes.io/headless"], "");
    assert_eq!(slice.ports, Some(vec![]));
    let said = endpoints(slice)[0].conditions.clone().expect("conditions");
    assert_eq!((said.ready, said.serving), (Some(true), Some(false)));
    assert_eq!(subsets(&world)[0]["addresses"][0]["ip"], "10.0.0.2");
}

#[test]
fn pods_whose_ports_differ_are_in_slices_of_their_own() {
    let mut world = world();
    world.apply(web());
    world.apply(pod(1, true));
    let mut other = pod(2, true);
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090);
    world.apply(other);
    settle(&mut world);
    let ports: Vec<Option<i32>> = slices(&world)
        .iter()
        .filter_map(|slice| slice.ports.as_ref()?.first().map(|port| port.port))
        .collect();
    assert_eq!(ports.len(), 2);
    assert!(ports.contains(&Some(8080)) && ports.contains(&Some(9090)));
    assert_eq!(subsets(&world).as_array().map(Vec::len), Some(2));
}

#[test]
fn nothing_is_written_twice_and_strangers_pods_cost_nothing() {
    let mut world = world();
    world.apply(web());
    world.apply(pod(1, true));
    settle(&mut world);
    let (writes, steps) = (world.writes, world.steps);
    let mut stranger = pod(7, true);
    stranger["metadata"]["labels"] = json!({"app": "db"});
    world.apply(stranger);
    settle(&mut world);
    assert_eq!((world.writes, world.steps), (writes, steps));
    world.restart(controllers());
    settle(&mut world);
    assert_eq!(world.writes, writes, "a restart changes nothing");
}

/// What there is of pods: none, not ready, ready; told to go.
#[derive(Clone, Copy, Debug)]
enum Act {
    Add(usize),
    Ready(usize),
    Remove(usize),
}

fn act() -> impl Strategy<Value = Act> {
    (90..120_usize, 0..4_u8).prop_map(|(number, what)| match what {
        0 | 1 => Act::Add(number),
        2 => Act::Ready(number),
        _ => Act::Remove(number),
    })
}

/// Every pod with an address is in exactly one slice, ready where the pod is, and no slice is too long.
fn check(world: &World) {
    let mut seen: BTreeMap<String, bool> = BTreeMap::new();
    for slice in slices(world) {
        assert!(endpoints(slice).len() <= ENDPOINTS_MAX);
        for endpoint in endpoints(slice) {
            let name = endpoint.target_ref.as_ref().and_then(|of| of.name.clone()).expect("a pod");
            let ready = endpoint.conditions.as_ref().and_then(|it| it.ready) == Some(true);
            assert!(seen.insert(name.clone(), ready).is_none(), "{name} is in two slices");
        }
    }
    let expected: BTreeMap<String, bool> = world
        .list::<Pod>()
        .into_iter()
        .map(|pod| {
            let ready = ready_since(pod).is_some() && pod.metadata.deletion_timestamp.is_none();
            (pod.metadata.name.clone().expect("a name"), ready)
        })
        .collect();
    assert_eq!(seen, expected);
    let subsets = subsets(world);
    let told: usize = subsets
        .as_array()
        .into_iter()
        .flatten()
        .map(|subset| subset["addresses"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(told, expected.values().filter(|ready| **ready).count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5))]

    /// Step by step, with a view that lags behind, the endpoints come to what they would be from
    /// scratch.
    #[test]
    fn every_ready_pod_is_in_exactly_one_slice(
        rounds in proptest::collection::vec(proptest::collection::vec(act(), 1..25), 1..4),
        lag in 0..4_usize,
    ) {
        let mut world = world();
        // Enough for two slices.
        (0..98).for_each(|number| world.apply(pod(number, number % 2 == 0)));
        world.lag = lag;
        world.apply(web());
        for round in rounds {
            for act in round {
                let there = |world: &World, number: usize| {
                    world.get::<Pod>("shop", &format!("web-{number}")).is_some()
                };
                match act {
                    Act::Add(number) if !there(&world, number) => world.apply(pod(number, false)),
                    Act::Ready(number) if there(&world, number) => {
                        world.edit::<Pod>(&key(&format!("web-{number}")), |pod| {
                            let status = pod.status.get_or_insert_default();
                            for condition in status.conditions.iter_mut().flatten() {
                                condition.status = "True".to_owned();
                            }
                        });
                    }
                    Act::Remove(number) if there(&world, number) => {
                        world.delete::<Pod>(&key(&format!("web-{number}")), Propagation::Background);
                    }
                    _ => {}
                }
            }
            settle(&mut world);
            check(&world);
        }
        let writes = world.writes;
        world.restart(controllers());
        settle(&mut world);
        prop_assert_eq!(world.writes, writes, "from scratch it is the same");
    }
}
