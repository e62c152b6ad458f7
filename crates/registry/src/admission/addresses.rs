//! Addresses and node ports of Services. Which are taken is read from the Services themselves, so
//! that nothing has to survive a restart; which is given follows from the Service's name, so that
//! the same manifests always get the same addresses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::random::fnv1a;
use wharf_store::Store;

use crate::field::{Errors, Json, Path};

/// The address of the `kubernetes` Service: the first of the range, as upstream.
pub(crate) const KUBERNETES_SERVICE_IP: &str = "10.100.0.1";
/// EKS' service range, 10.100.0.0/16.
const RANGE_FIRST: u32 = u32::from_be_bytes([10, 100, 0, 0]);
const RANGE_LEN: u32 = 1 << 16;
/// Upstream keeps a lower band free for addresses that users choose (KEP-3070): at this range's
/// size 256 of them.
const CHOSEN_BAND_LEN: u32 = 256;
const NODE_PORT_FIRST: i32 = 30_000;
const NODE_PORT_LAST: i32 = 32_767;

/// Gives a Service its cluster address and node ports, or takes those it asks for.
pub(crate) fn allocate(
    store: &Store,
    service: &mut Service,
    old: Option<&Service>,
    errors: &mut Errors,
) {
    keep(service, old);
    let key = ObjectKey::of(&service.metadata);
    let kind = Kind::of::<Service>();
    let wants_address = needs_address(service);
    let wants_ports = needs_node_ports(service);
    if !wants_address && !wants_ports {
        return;
    }
    let (services, _) = store.list(kind, None);
    let others = || {
        services
            .iter()
            .filter(|other| *other.key() != key)
            .filter_map(|other| other.typed::<Service>()?.spec.as_ref())
    };
    if wants_address {
        let taken: BTreeSet<Ipv4Addr> =
            others().filter_map(|spec| spec.cluster_ip.as_deref()?.parse().ok()).collect();
        give_address(service, &key, &taken, errors);
    }
    if wants_ports {
        let taken: BTreeSet<i32> = others()
            .flat_map(|spec| spec.ports.iter().flatten())
            .filter_map(|p| p.node_port)
            .collect();
        give_node_ports(service, &key, taken, errors);
    }
}

/// An update that says nothing of addresses keeps them, as long as the type still has any.
fn keep(service: &mut Service, old: Option<&Service>) {
    let Some(old) = old.and_then(|old| old.spec.as_ref()) else {
        return;
    };
    let with_address = is_addressed(service.spec.as_ref().and_then(|spec| spec.type_.as_deref()));
    let with_ports = needs_node_ports(service);
    let spec = service.spec.get_or_insert_default();
    if with_address && is_addressed(old.type_.as_deref()) {
        if spec.cluster_ip.as_deref().unwrap_or_default().is_empty() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if !with_ports {
        return;
    }
    let same = |a: &ServicePort, b: &ServicePort| a.port == b.port && a.protocol == b.protocol;
    for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or(0) == 0) {
        let before = old.ports.iter().flatten().find(|before| same(before, port));
        port.node_port = before.and_then(|before| before.node_port);
    }
}

fn is_addressed(type_: Option<&str>) -> bool {
    matches!(type_, None | Some("ClusterIP" | "NodePort" | "LoadBalancer"))
}

fn needs_address(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    is_addressed(spec.and_then(|spec| spec.type_.as_deref()))
        && spec.and_then(|spec| spec.cluster_ip.as_deref()) != Some("None")
}

fn needs_node_ports(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    match spec.and_then(|spec| spec.type_.as_deref()) {
        Some("NodePort") => true,
        Some("LoadBalancer") => {
            spec.and_then(|spec| spec.allocate_load_balancer_node_ports) != Some(false)
        }
        _ => false,
    }
}

fn give_address(
    service: &mut Service,
    key: &ObjectKey,
    taken: &BTreeSet<Ipv4Addr>,
    errors: &mut Errors,
) {
    let root = Path::root("spec");
    let path = root.child("clusterIPs");
    let spec = service.spec.get_or_insert_default();
    let asked = spec.cluster_ip.clone().filter(|address| !address.is_empty());
    let asked = asked.or_else(|| spec.cluster_ips.as_ref()?.first().cloned());
    let address = match asked {
        Some(text) => {
            let list = vec![text.clone()];
            let list = Json(&list);
            let Ok(address) = text.parse::<Ipv4Addr>() else {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.invalid(&path.index(0), &text, detail);
                return;
            };
            if u32::from(address).wrapping_sub(RANGE_FIRST) >= RANGE_LEN {
                let detail = format!(
                    "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is 10.100.0.0/16"
                );
                errors.invalid(&path, &list, detail);
                return;
            }
            if taken.contains(&address) {
                let detail =
                    format!("failed to allocate IP {address}: provided IP is already allocated");
                errors.invalid(&path, &list, detail);
                return;
            }
            address
        }
        None => {
            let usable = RANGE_LEN - CHOSEN_BAND_LEN - 1;
            let start = u32::try_from(fnv1a(key.to_string().as_bytes()) % u64::from(usable))
                .unwrap_or_default();
            let free = (0..usable)
                .map(|step| RANGE_FIRST + CHOSEN_BAND_LEN + (start + step) % usable)
                .map(Ipv4Addr::from)
                .find(|address| !taken.contains(address));
            let Some(address) = free else {
                errors.invalid(&path, "", "failed to allocate a serviceIP: range is full");
                return;
            };
            address
        }
    };
    let text = address.to_string();
    spec.cluster_ips = Some(vec![text.clone()]);
    spec.cluster_ip = Some(text);
}

fn give_node_ports(
    service: &mut Service,
    key: &ObjectKey,
    mut taken: BTreeSet<i32>,
    errors: &mut Errors,
) {
    let count = NODE_PORT_LAST - NODE_PORT_FIRST + 1;
    let hash = fnv1a(key.to_string().as_bytes()) % u64::try_from(count).unwrap_or(1);
    let start = i32::try_from(hash).unwrap_or_default();
    let root = Path::root("spec");
    let ports = root.child("ports");
    let spec = service.spec.get_or_insert_default();
    for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
        let entry = ports.index(index);
        let path = entry.child("nodePort");
        match port.node_port.unwrap_or(0) {
            0 => {
                let free = (0..count)
                    .map(|step| NODE_PORT_FIRST + (start + step) % count)
                    .find(|port| !taken.contains(port));
                port.node_port = free;
            }
            asked if !(NODE_PORT_FIRST..=NODE_PORT_LAST).contains(&asked) => {
                let detail = format!(
                    "provided port is not in the valid range. The range of valid ports is {NODE_PORT_FIRST}-{NODE_PORT_LAST}"
                );
                errors.invalid(&path, &asked, detail);
            }
            asked if taken.contains(&asked) => {
                errors.invalid(&path, &asked, "provided port is already allocated");
            }
            _ => {}
        }
        taken.extend(port.node_port);
    }
}
