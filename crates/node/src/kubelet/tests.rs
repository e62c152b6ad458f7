use super::*;
use crate::harness::{World, instance};

const NAME: &str = "ip-192-168-0-5.ec2.internal";

fn world() -> World<NodeAgent> {
    let mut world = World::new(NodeAgent::default());
    world.put(Box::new(instance("i-1", "192.168.0.5")));
    world
}

fn seconds(world: &mut World<NodeAgent>, seconds: u64) {
    world.run_for(Duration::from_secs(seconds));
}

fn node(world: &World<NodeAgent>) -> Option<&Node> {
    world.view.get_cluster(NAME)
}

fn lease_renewed(world: &World<NodeAgent>) -> Option<Time> {
    let lease: &Lease = world.view.get(&ObjectKey::namespaced(LEASE_NAMESPACE, NAME))?;
    lease.spec.as_ref()?.renew_time.as_ref().map(Time::from)
}

fn set_state(world: &mut World<NodeAgent>, state: InstanceState) {
    let now = world.now;
    world.edit::<Instance>(&ObjectKey::cluster("i-1"), |instance| {
        instance.status.state = state;
        instance.status.terminated_at_nanos = Some(now.as_nanos());
    });
}

#[test]
fn a_node_registers_and_becomes_ready_as_planned() {
    let mut world = world();
    seconds(&mut world, 29);
    assert!(node(&world).is_none());
    seconds(&mut world, 2);
    let registered = node(&world).expect("it has registered");
    let labels = registered.metadata.labels.clone().expect("labels");
    assert_eq!(labels["kubernetes.io/hostname"], NAME);
    assert_eq!(labels["karpenter.sh/nodepool"], "default");
    assert_eq!(labels["topology.k8s.aws/zone-id"], "use1-az1");
    let spec = registered.spec.clone().expect("a spec");
    assert_eq!(spec.provider_id.as_deref(), Some("aws:///us-east-1a/i-1"));
    let taints: Vec<String> =
        spec.taints.iter().flatten().map(wharf_model::taints::display).collect();
    assert_eq!(
        taints,
        ["node.kubernetes.io/not-ready:NoSchedule", "karpenter.sh/unregistered:NoExecute"]
    );
    assert!(!node::reported_ready(registered));
    seconds(&mut world, 10);
    assert!(node::reported_ready(node(&world).expect("it is there")));
    assert_eq!(
        world.messages().last().copied(),
        Some("Node ip-192-168-0-5.ec2.internal status is now: NodeReady")
    );
    assert_eq!(world.messages()[0], "Starting kubelet.");
    assert_eq!(world.records.len(), 7);
}

#[test]
fn leases_and_status_are_kept_fresh_and_no_more() {
    let mut world = world();
    seconds(&mut world, 60);
    let before = world.writes;
    seconds(&mut world, 600);
    assert!(lease_renewed(&world).is_some_and(|at| at + Duration::from_secs(10) >= world.now));
    assert_eq!(world.writes - before, 60 + 2, "a lease every 10 s, a report every 5 min");
}

#[test]
fn a_deleted_node_does_not_come_back() {
    let mut world = world();
    seconds(&mut world, 60);
    world.remove::<Node>(&ObjectKey::cluster(NAME));
    seconds(&mut world, 600);
    assert!(node(&world).is_none());
    world.restart(NodeAgent::default());
    seconds(&mut world, 600);
    assert!(node(&world).is_none(), "nor after a restart of the simulation");
}

#[test]
fn the_kubelet_stops_with_the_machine_and_the_cloud_controller_removes_the_node() {
    let mut world = world();
    seconds(&mut world, 60);
    set_state(&mut world, InstanceState::ShuttingDown);
    let renewed = lease_renewed(&world);
    seconds(&mut world, 60);
    assert_eq!(lease_renewed(&world), renewed);
    set_state(&mut world, InstanceState::Terminated);
    seconds(&mut world, 3);
    assert!(node(&world).is_some());
    seconds(&mut world, 3);
    assert!(node(&world).is_none());
}

#[test]
fn a_restart_changes_nothing() {
    let mut world = world();
    seconds(&mut world, 45);
    let (writes, records) = (world.writes, world.records.len());
    world.restart(NodeAgent::default());
    world.run_for(Duration::from_millis(1));
    assert_eq!((world.writes, world.records.len()), (writes, records));
    seconds(&mut world, 60);
    assert_eq!(world.writes, writes + 6);
}

#[test]
fn a_kubelet_asks_for_one_certificate_where_kubelets_do() {
    use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
    for ask in [false, true] {
        let mut world = World::new(NodeAgent::default().asking_for_certificates(ask));
        world.put(Box::new(instance("i-1", "192.168.0.5")));
        seconds(&mut world, 600);
        let requests: Vec<_> = world.view.list::<CertificateSigningRequest>().collect();
        assert_eq!(requests.len(), usize::from(ask));
        for request in requests {
            assert_eq!(request.spec.username.as_deref(), Some(&*format!("system:node:{NAME}")));
            assert_eq!(request.spec.signer_name, "kubernetes.io/kubelet-serving");
        }
    }
}
