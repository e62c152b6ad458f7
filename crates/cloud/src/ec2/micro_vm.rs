//! Fargate's micro-VMs: machines for one pod each, with an address of their pod's subnet. They are
//! `Instance` objects like EC2's, of the capacity type `fargate`; nobody sees them in EC2.

use wharf_fargate::{node, size, start};
use wharf_model::instance::{Instance, InstanceState, MicroVm};
use wharf_model::object::ObjectKey;
use wharf_model::subnet::{Cidr, Subnet};
use wharf_model::time::Time;
use wharf_ports::cloud::{LaunchError, MicroVmRequest};
use wharf_ports::view::View;

use super::{Ec2Settings, Fleet, TOKEN_TAG, boot, network};

/// What the capacity type of a micro-VM says.
pub const CAPACITY_TYPE: &str = "fargate";

/// The machine of a request, in the subnet with the fewest of them among those asked for.
pub(super) fn launch(
    settings: &Ec2Settings,
    fleet: &Fleet,
    view: &View,
    request: &MicroVmRequest,
    now: Time,
) -> Result<Instance, LaunchError> {
    let (region, seed) = (settings.region.as_str(), settings.seed);
    if let Some(most) = settings.fargate_vcpus_max
        && fleet.micro_vm_milli + size::cpu_milli_of(&request.size) > u64::from(most) * 1_000
    {
        return Err(LaunchError::Api {
            code: "VcpuLimitExceeded".to_owned(),
            message: format!(
                "You've reached the limit on the number of Fargate vCPUs you can run concurrently: {most}"
            ),
        });
    }
    let subnets = request.subnets.iter().filter_map(|id| {
        let subnet = view.get::<Subnet>(&ObjectKey::cluster(id))?;
        Some((
            fleet.machines_in_subnet(id),
            id,
            subnet,
            subnet.spec.cidr_block.parse::<Cidr>().ok()?,
        ))
    });
    let mut subnets: Vec<_> = subnets.collect();
    subnets.sort_by_key(|(machines, id, ..)| (*machines, *id));
    let zones: Vec<&str> =
        subnets.iter().map(|(_, _, subnet, _)| subnet.spec.zone.as_str()).collect();
    let is_short = |zone: &str| {
        let mut rules = settings.shortages.iter();
        rules.any(|rule| rule.is_short(&request.size, zone, CAPACITY_TYPE, now))
    };
    if !zones.is_empty() && zones.iter().all(|zone| is_short(zone)) {
        let pools = zones.iter().map(|zone| (request.size.clone(), (*zone).to_owned())).collect();
        let message = format!("no Fargate capacity in {}", zones.join(", "));
        return Err(LaunchError::InsufficientCapacity { pools, message });
    }
    subnets.retain(|(_, _, subnet, _)| !is_short(&subnet.spec.zone));
    let hint = boot::address_hint(seed, &request.token);
    let found = subnets.into_iter().find_map(|(_, id, subnet, block)| {
        Some((id, subnet, network::free_address(block, hint, &fleet.addresses)?))
    });
    let Some((subnet_id, subnet, address)) = found else {
        return Err(LaunchError::Api {
            code: network::NO_ADDRESS.to_owned(),
            message: format!("no free address in any of {}", request.subnets.join(", ")),
        });
    };
    let host_name = node::host_name(address, region);
    let mut instance = Instance::default();
    instance.metadata.name = Some(node::machine_id(seed, &request.token));
    let spec = &mut instance.spec;
    spec.instance_type.clone_from(&request.size);
    spec.capacity_type = CAPACITY_TYPE.to_owned();
    spec.region = region.to_owned();
    spec.zone.clone_from(&subnet.spec.zone);
    spec.zone_id.clone_from(&subnet.spec.zone_id);
    spec.private_ip = address.to_string();
    spec.private_dns_name = node::name(address, region);
    spec.price_nanos_per_hour = request.price.nano_dollars_per_hour();
    spec.tags.insert(TOKEN_TAG.to_owned(), request.token.clone());
    spec.kubelet.labels = node::node_labels(region, &subnet.spec.zone, &host_name);
    spec.kubelet.taints = vec![node::taint()];
    spec.kubelet.capacity.clone_from(&request.capacity);
    spec.kubelet.allocatable.clone_from(&request.allocatable);
    spec.micro_vm = Some(MicroVm {
        pod_namespace: request.pod.namespace.to_string(),
        pod_name: request.pod.name.to_string(),
        pod_uid: request.pod_uid.clone(),
        profile: request.profile.clone(),
        subnet: subnet_id.clone(),
        size: request.size.clone(),
        storage_gib: request.storage_gib,
        host_name,
    });
    let start = start::start(seed, &request.token);
    let ready = (now + start.ready).as_nanos();
    instance.status.state = InstanceState::Pending;
    instance.status.launched_at_nanos = now.as_nanos();
    // Billing begins when the image is pulled.
    instance.status.running_at_nanos = ready;
    instance.status.registers_at_nanos = (now + start.registers).as_nanos();
    instance.status.ready_at_nanos = ready;
    Ok(instance)
}
