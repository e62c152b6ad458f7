use std::sync::Arc;

use wharf_model::instance::KubeletArguments;
use wharf_model::object::{Object, Typed};
use wharf_model::subnet::{Cidr, Subnet, SubnetSpec};
use wharf_ports::cluster::Change;

use super::*;

/// A world that does what the writes say.
struct World {
    ec2: SimulatedEc2,
    view: View,
    now: Time,
    events: Vec<CloudEvent>,
    /// Whether writes are lost.
    deaf: bool,
}

impl World {
    fn new() -> Self {
        Self {
            ec2: SimulatedEc2::new(Ec2Settings::new("us-east-1", 1)),
            view: View::new(),
            now: Time::from_seconds(1_000),
            events: Vec::new(),
            deaf: false,
        }
    }

    fn poll(&mut self) {
        let mut output = CloudOutput::default();
        self.ec2.poll(self.now, &self.view, &mut output);
        self.events.append(&mut output.events);
        if self.deaf {
            return;
        }
        for write in output.writes {
            let revision = self.view.revision() + 1;
            let (kind, key) = write.subject();
            let old = self.view.object(kind, &key).cloned();
            let new = match write {
                Write::Create(object) => Some(object),
                Write::Update { object, part: Part::Status } => {
                    let mut stored = old
                        .as_ref()
                        .and_then(|old| old.draft::<Instance>())
                        .expect("only what exists is updated");
                    let update = object.as_any().downcast_ref::<Instance>().expect("an instance");
                    stored.status = update.status.clone();
                    Some(Box::new(stored) as Box<dyn Typed>)
                }
                Write::Delete(_) => None,
                write => panic!("unexpected {write:?}"),
            };
            let new = new.map(|object| Arc::new(Object::from_typed(object, revision)));
            self.view.apply(&Change { revision, old, new });
        }
    }

    /// Polls at each wake until `until`.
    fn run_until(&mut self, until: Time) {
        self.poll();
        while let Some(at) = self.ec2.next_wake().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.poll();
        }
        self.now = until;
    }

    fn run_for(&mut self, seconds: u64) {
        self.run_until(self.now + Duration::from_secs(seconds));
    }

    fn submit(&mut self, request: CloudRequest) {
        self.ec2.submit(request, self.now);
    }

    fn launched(&self) -> Vec<&Launched> {
        self.events
            .iter()
            .filter_map(|event| match event {
                CloudEvent::Launched(launched) => Some(launched.as_ref()),
                _ => None,
            })
            .collect()
    }

    fn instance(&self, id: &str) -> &Instance {
        self.view.get_cluster(id).expect("the instance is there")
    }
}

fn offer(instance_type: &str, zone: &str, price: &str) -> LaunchOverride {
    LaunchOverride {
        instance_type: instance_type.to_owned(),
        zone: zone.to_owned(),
        zone_id: "use1-az1".to_owned(),
        price: price.parse().expect("a price"),
        fee: Price::ZERO,
        capacity: BTreeMap::from([("cpu".to_owned(), "2".to_owned())]),
        allocatable: BTreeMap::from([("cpu".to_owned(), "1930m".to_owned())]),
    }
}

fn request(token: &str, overrides: Vec<LaunchOverride>) -> CloudRequest {
    CloudRequest::Launch(Box::new(LaunchRequest {
        token: token.to_owned(),
        node_claim: format!("default-{token}"),
        capacity_type: "on-demand".to_owned(),
        overrides,
        allocation: Allocation::LowestPrice,
        subnets: Vec::new(),
        ami_family: "al2023".to_owned(),
        image_id: "ami-1".to_owned(),
        tags: BTreeMap::new(),
        kubelet: KubeletArguments::default(),
        managed: false,
    }))
}

fn zones(price: &str) -> Vec<LaunchOverride> {
    ["us-east-1b", "us-east-1a"].map(|zone| offer("c5a.large", zone, price)).into()
}

#[test]
fn the_cheapest_is_chosen_then_the_emptiest_zone_then_the_first_name() {
    let mut world = World::new();
    let cheap = offer("c6a.large", "us-east-1c", "0.01");
    world.submit(request("a", zones("0.077").into_iter().chain([cheap]).collect()));
    world.run_for(10);
    world.submit(request("b", zones("0.077")));
    world.submit(request("c", zones("0.077")));
    world.run_for(10);
    let mut zones: Vec<_> =
        world.launched().iter().map(|launched| launched.chosen.zone.clone()).collect();
    zones[1..].sort();
    assert_eq!(zones, ["us-east-1c", "us-east-1a", "us-east-1b"]);
    let launched = world.launched()[0];
    assert_eq!(launched.chosen.instance_type, "c6a.large");
    assert_eq!(launched.chosen.allocatable["cpu"], "1930m");
    assert_eq!(world.instance(&launched.instance_id).spec.price_nanos_per_hour, 10_000_000);
}

#[test]
fn a_machine_goes_through_its_states() {
    let mut world = World::new();
    world.submit(request("a", zones("0.077")));
    world.run_for(3);
    let id = world.launched()[0].instance_id.clone();
    assert_eq!(world.instance(&id).status.state, InstanceState::Pending);
    assert!(world.instance(&id).spec.private_dns_name.ends_with(".ec2.internal"));
    world.run_for(10);
    assert_eq!(world.instance(&id).status.state, InstanceState::Running);
    let asked = world.now;
    world.submit(CloudRequest::Terminate { instance_id: id.clone() });
    world.submit(CloudRequest::Terminate { instance_id: id.clone() });
    world.run_for(1);
    let status = &world.instance(&id).status;
    assert_eq!(status.state, InstanceState::ShuttingDown);
    assert_eq!(status.shutting_down_at_nanos, Some(asked.as_nanos()));
    world.run_for(40);
    assert_eq!(world.instance(&id).status.state, InstanceState::Terminated);
    let terminated = CloudEvent::Terminated { instance_id: id.clone() };
    assert_eq!(world.events.iter().filter(|event| **event == terminated).count(), 1);
    // Asked again, it says so again, and a day later nobody remembers it.
    world.submit(CloudRequest::Terminate { instance_id: id.clone() });
    world.run_for(1);
    assert_eq!(world.events.iter().filter(|event| **event == terminated).count(), 2);
    world.run_for(25 * 3_600);
    assert_eq!(world.view.count(Kind::of::<Instance>()), 0);
    assert_eq!(world.ec2.next_wake(), None);
}

#[test]
fn a_token_launches_once_also_after_a_restart() {
    let mut world = World::new();
    world.submit(request("a", zones("0.077")));
    world.submit(request("a", zones("0.077")));
    world.run_for(5);
    assert_eq!(world.launched().len(), 1);
    world.ec2 = SimulatedEc2::new(Ec2Settings::new("us-east-1", 1));
    world.submit(request("a", zones("0.001")));
    world.run_for(5);
    assert_eq!(world.launched().len(), 2);
    assert_eq!(world.launched()[0], world.launched()[1]);
    assert_eq!(world.view.count(Kind::of::<Instance>()), 1);
    world.run_for(10);
    let id = world.launched()[0].instance_id.clone();
    assert_eq!(world.instance(&id).status.state, InstanceState::Running, "timers are made anew");
}

#[test]
fn a_lost_write_is_repeated() {
    let mut world = World::new();
    world.deaf = true;
    world.submit(request("a", zones("0.077")));
    world.run_for(10);
    assert_eq!(world.view.count(Kind::of::<Instance>()), 0);
    world.deaf = false;
    world.run_for(10);
    let id = world.launched()[0].instance_id.clone();
    assert_eq!(world.instance(&id).status.state, InstanceState::Running);
}

#[test]
fn shortages_move_launches_or_fail_them() {
    let mut world = World::new();
    let short =
        |zone: &str| CapacityRule { zone: Some(zone.to_owned()), ..CapacityRule::default() };
    world.ec2.set_shortages(vec![short("us-east-1a")]);
    world.submit(request("a", zones("0.077")));
    world.run_for(5);
    assert_eq!(world.launched()[0].chosen.zone, "us-east-1b");
    world.ec2.set_shortages(vec![short("us-east-1a"), short("us-east-1b")]);
    world.submit(request("b", zones("0.077")));
    world.run_for(5);
    let Some(CloudEvent::LaunchFailed { error, node_claim, .. }) = world.events.last() else {
        panic!("{:?}", world.events)
    };
    assert_eq!(node_claim, "default-b");
    assert_eq!(
        error.to_string(),
        "insufficient capacity: We currently do not have sufficient c5a.large capacity in the Availability Zone you requested (us-east-1a)."
    );
}

#[test]
fn addresses_and_names_are_never_shared() {
    let mut world = World::new();
    for number in 0..300 {
        world.submit(request(&number.to_string(), vec![offer("c5a.large", "us-east-1a", "1")]));
    }
    world.run_for(5);
    let names: BTreeSet<_> =
        world.view.list::<Instance>().map(|one| one.spec.private_dns_name.clone()).collect();
    assert_eq!(names.len(), 300);
}

#[test]
fn what_is_prioritized_is_taken_in_its_order() {
    let mut world = World::new();
    let CloudRequest::Launch(mut first) = request("a", zones("0.077")) else { panic!("a launch") };
    first.overrides =
        vec![offer("m5.large", "us-east-1c", "0.096"), offer("c5a.large", "us-east-1a", "0.077")];
    first.allocation = Allocation::Prioritized;
    let mut second = first.clone();
    second.token = "b".to_owned();
    second.node_claim = String::new();
    world.submit(CloudRequest::Launch(first));
    world.run_for(5);
    assert_eq!(world.launched()[0].chosen.instance_type, "m5.large");
    let tags = |world: &World, id: &str| world.instance(id).spec.tags.clone();
    assert!(tags(&world, &world.launched()[0].instance_id).contains_key(NODE_CLAIM_TAG));
    let short = CapacityRule { zone: Some("us-east-1c".to_owned()), ..CapacityRule::default() };
    world.ec2.set_shortages(vec![short]);
    world.submit(CloudRequest::Launch(second));
    world.run_for(5);
    let launched = world.launched()[1];
    assert_eq!(launched.chosen.instance_type, "c5a.large");
    assert!(!tags(&world, &launched.instance_id).contains_key(NODE_CLAIM_TAG));
}

#[test]
fn machines_have_addresses_of_the_zones_subnets_until_those_are_full() {
    let mut world = with_subnets(&[("subnet-a", "10.10.0.0/28"), ("subnet-b", "10.10.16.0/28")]);
    let both = || {
        vec![
            offer("c5a.large", "zone-of-subnet-a", "1"),
            offer("c5a.large", "zone-of-subnet-b", "2"),
        ]
    };
    for number in 0..11 {
        world.submit(request(&number.to_string(), both()));
    }
    world.run_for(5);
    let mut per_subnet = BTreeMap::new();
    for machine in world.view.list::<Instance>() {
        let block: Cidr = match machine.spec.subnet_id.as_str() {
            "subnet-a" => "10.10.0.0/28",
            _ => "10.10.16.0/28",
        }
        .parse()
        .expect("a block");
        assert!(block.contains(machine.spec.private_ip.parse().expect("an address")));
        assert_eq!(machine.spec.zone, format!("zone-of-{}", machine.spec.subnet_id));
        *per_subnet.entry(machine.spec.subnet_id.clone()).or_insert(0) += 1;
    }
    let expected = BTreeMap::from([("subnet-a".to_owned(), 5), ("subnet-b".to_owned(), 5)]);
    assert_eq!(per_subnet, expected, "the dearer zone once the cheaper one is full");
    let Some(CloudEvent::LaunchFailed { error, .. }) = world.events.last() else {
        panic!("{:?}", world.events)
    };
    assert_eq!(
        error.to_string(),
        "InsufficientFreeAddressesInSubnet: There are not enough free addresses in subnet 'subnet-a' to satisfy the requested number of instances. There are not enough free addresses in subnet 'subnet-b' to satisfy the requested number of instances."
    );
}

#[test]
fn only_the_subnets_that_a_launch_names_are_used() {
    let mut world = with_subnets(&[("subnet-a", "10.10.0.0/28")]);
    let CloudRequest::Launch(mut launch) =
        request("a", vec![offer("c5a.large", "zone-of-subnet-a", "1")])
    else {
        panic!("a launch")
    };
    launch.subnets = vec!["subnet-z".to_owned()];
    world.submit(CloudRequest::Launch(launch));
    world.run_for(5);
    let Some(CloudEvent::LaunchFailed { error, .. }) = world.events.last() else {
        panic!("{:?}", world.events)
    };
    assert!(
        error
            .to_string()
            .ends_with("No subnet that may be used is in the Availability Zone zone-of-subnet-a.")
    );
}

fn micro_vm(token: &str, subnets: &[&str]) -> CloudRequest {
    CloudRequest::LaunchMicroVm(Box::new(MicroVmRequest {
        token: token.to_owned(),
        pod: ObjectKey::namespaced("study-aews", token),
        pod_uid: token.to_owned(),
        profile: "study_wildcard".to_owned(),
        subnets: subnets.iter().map(|id| (*id).to_owned()).collect(),
        size: "0.5vCPU 1GB".to_owned(),
        storage_gib: 20,
        price: "0.02839".parse().expect("a price"),
        capacity: BTreeMap::new(),
        allocatable: BTreeMap::new(),
    }))
}

fn with_subnets(blocks: &[(&str, &str)]) -> World {
    let mut world = World::new();
    for (id, block) in blocks {
        let spec = SubnetSpec {
            cidr_block: (*block).to_owned(),
            zone: format!("zone-of-{id}"),
            ..SubnetSpec::default()
        };
        let revision = world.view.revision() + 1;
        let new = Object::from_typed(Box::new(Subnet::new(*id, spec)), revision);
        world.view.apply(&Change { revision, old: None, new: Some(Arc::new(new)) });
    }
    world
}

#[test]
fn micro_vms_have_addresses_of_their_subnets_and_names_of_their_addresses() {
    let mut world = with_subnets(&[("subnet-a", "10.10.0.0/20"), ("subnet-b", "10.10.16.0/20")]);
    for pod in 0..10 {
        world.submit(micro_vm(&format!("pod-{pod}"), &["subnet-b", "subnet-a"]));
        world.submit(micro_vm(&format!("pod-{pod}"), &["subnet-b", "subnet-a"]));
    }
    world.run_for(1);
    world.submit(micro_vm("pod-3", &["subnet-a"]));
    world.run_for(1);
    let machines: Vec<&Instance> = world.view.list::<Instance>().collect();
    assert_eq!(machines.len(), 10, "one a token");
    let mut addresses = BTreeSet::new();
    for machine in &machines {
        let vm = machine.spec.micro_vm.as_ref().expect("a micro-VM");
        let block: Cidr = match vm.subnet.as_str() {
            "subnet-a" => "10.10.0.0/20",
            _ => "10.10.16.0/20",
        }
        .parse()
        .expect("a block");
        let address: Ipv4Addr = machine.spec.private_ip.parse().expect("an address");
        assert!(block.contains(address) && addresses.insert(address));
        assert_eq!(machine.spec.zone, format!("zone-of-{}", vm.subnet));
        let host = format!("ip-{}.ec2.internal", machine.spec.private_ip.replace('.', "-"));
        assert_eq!(vm.host_name, host);
        assert_eq!(machine.spec.private_dns_name, format!("fargate-{host}"));
        assert_eq!(machine.status.running_at_nanos, machine.status.ready_at_nanos);
    }
    let in_a = machines.iter().filter(|machine| machine.spec.zone == "zone-of-subnet-a").count();
    assert_eq!(in_a, 5, "spread over both");
}

#[test]
fn a_micro_vm_runs_from_ready_to_soon_after_its_end() {
    let mut world = with_subnets(&[("subnet-a", "10.10.0.0/20")]);
    world.submit(micro_vm("pod", &["subnet-a"]));
    world.run_for(61);
    let machine = world.view.list::<Instance>().next().expect("a machine").clone();
    assert_eq!(machine.status.state, InstanceState::Running);
    let id = machine.metadata.name.clone().unwrap_or_default();
    world.submit(CloudRequest::Terminate { instance_id: id.clone() });
    world.run_for(4);
    let machine = world.instance(&id);
    assert_eq!(machine.status.state, InstanceState::Terminated);
    let (from, until) = machine.status.billed(world.now).expect("it is billed");
    assert!((1..=21).contains(&until.since(from).as_secs()), "{:?}", until.since(from));
}

#[test]
fn a_full_subnet_has_no_room_for_micro_vms() {
    let mut world = with_subnets(&[("subnet-a", "10.10.0.0/28")]);
    for pod in 0..6 {
        world.submit(micro_vm(&format!("pod-{pod}"), &["subnet-a", "subnet-unknown"]));
    }
    world.run_for(1);
    assert_eq!(world.view.list::<Instance>().count(), 5);
    let failed: Vec<String> = world
        .events
        .iter()
        .filter_map(|event| match event {
            CloudEvent::MicroVmFailed { pod, error } => Some(format!("{pod}: {error}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        failed,
        [
            "study-aews/pod-5: InsufficientFreeAddressesInSubnet: no free address in any of subnet-a, subnet-unknown"
        ]
    );
}

fn failures(world: &World) -> Vec<String> {
    let failed = world.events.iter().filter_map(|event| match event {
        CloudEvent::MicroVmFailed { error, .. } => Some(error.to_string()),
        _ => None,
    });
    failed.collect()
}

#[test]
fn a_shortage_of_fargates_moves_micro_vms_or_fails_them() {
    let mut world = with_subnets(&[("a", "10.10.0.0/20"), ("b", "10.10.16.0/20")]);
    let short = |zone: Option<&str>| CapacityRule {
        zone: zone.map(str::to_owned),
        capacity_type: Some(FARGATE_CAPACITY_TYPE.to_owned()),
        ..CapacityRule::default()
    };
    world.ec2.set_shortages(vec![short(Some("zone-of-a"))]);
    world.submit(micro_vm("one", &["a", "b"]));
    world.run_for(1);
    assert_eq!(world.view.list::<Instance>().next().expect("a machine").spec.zone, "zone-of-b");
    world.ec2.set_shortages(vec![short(None)]);
    world.submit(micro_vm("two", &["a", "b"]));
    world.run_for(1);
    assert_eq!(
        failures(&world),
        ["insufficient capacity: no Fargate capacity in zone-of-a, zone-of-b"]
    );
}

#[test]
fn the_quota_of_fargates_vcpus_is_kept() {
    let mut world = with_subnets(&[("a", "10.10.0.0/20")]);
    let settings = Ec2Settings::new("us-east-1", 1);
    world.ec2 = SimulatedEc2::new(Ec2Settings { fargate_vcpus_max: Some(1), ..settings });
    for pod in ["a", "b", "c"] {
        world.submit(micro_vm(pod, &["a"]));
    }
    world.run_for(1);
    assert_eq!(world.view.list::<Instance>().count(), 2, "half a vCPU each");
    assert_eq!(
        failures(&world),
        [
            "VcpuLimitExceeded: You've reached the limit on the number of Fargate vCPUs you can run concurrently: 1"
        ]
    );
    let first = world.view.list::<Instance>().next().and_then(|vm| vm.metadata.name.clone());
    world.submit(CloudRequest::Terminate { instance_id: first.expect("a name") });
    world.run_for(10);
    world.submit(micro_vm("c", &["a"]));
    world.run_for(1);
    assert_eq!(world.view.list::<Instance>().count(), 3, "there is room again");
}
