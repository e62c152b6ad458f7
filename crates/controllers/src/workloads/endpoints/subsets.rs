//! The older Endpoints: one object for each Service, whose subsets have the addresses with the same ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::object::Object;
use wharf_model::pod::ready_since;
use wharf_ports::cluster::{Part, Write};

use super::members::{self, Port, is_headless, publishes_not_ready};
use super::slices::HEADLESS;

/// The label that names who writes Endpoints.
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// The name of this controller there.
pub(super) const MANAGER: &str = "endpoint-controller";
/// The annotation of Endpoints that do not tell of all.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The most addresses that one object tells of.
const ADDRESSES_MAX: usize = 1_000;

/// Ready addresses and those that are not, each in the order of addresses.
type Addresses = (Vec<usize>, Vec<usize>);

/// What Endpoints tell.
pub(super) struct Subsets {
    subsets: Vec<EndpointSubset>,
    truncated: bool,
}

/// The subsets of a Service. Pods on their way out are in none.
pub(super) fn of(service: &Service, pods: &[&Arc<Object>]) -> Subsets {
    let mut members: Vec<(&Arc<Object>, &Pod, &str)> = pods
        .iter()
        .filter(|object| object.header().deleting.is_none())
        .filter_map(|object| {
            let pod = object.typed::<Pod>()?;
            Some((*object, pod, members::address(pod)?))
        })
        .collect();
    let truncated = members.len() > ADDRESSES_MAX;
    if truncated {
        // Ready ones first.
        members.sort_by_key(|(_, pod, _)| ready_since(pod).is_none());
        members.truncate(ADDRESSES_MAX);
    }
    members.sort_by_key(|(object, _, address)| (octets(address), object.uid()));
    let mut by_port: BTreeMap<Option<Port>, Addresses> = BTreeMap::new();
    for (index, (_, pod, _)) in members.iter().enumerate() {
        let is_ready = publishes_not_ready(service) || ready_since(pod).is_some();
        let has_no_ports = service.spec.as_ref().is_none_or(|spec| spec.ports.is_none());
        let ports: Vec<Option<Port>> = match members::ports(service, pod) {
            ports if ports.is_empty() && has_no_ports && is_headless(service) => vec![None],
            ports => ports.into_iter().map(Some).collect(),
        };
        for port in ports {
            let (ready, not_ready) = by_port.entry(port).or_default();
            if is_ready { ready } else { not_ready }.push(index);
        }
    }
    let mut by_addresses: BTreeMap<Addresses, Vec<Port>> = BTreeMap::new();
    for (port, addresses) in by_port {
        by_addresses.entry(addresses).or_default().extend(port);
    }
    let list = |of: Vec<usize>| {
        let list = of.into_iter().map(|index| address(service, members[index]));
        Some(list.collect::<Vec<_>>()).filter(|list| !list.is_empty())
    };
    let subsets = by_addresses
        .into_iter()
        .map(|((ready, not_ready), ports)| EndpointSubset {
            addresses: list(ready),
            not_ready_addresses: list(not_ready),
            ports: Some(ports.into_iter().map(port).collect::<Vec<_>>())
                .filter(|ports| !ports.is_empty()),
        })
        .collect();
    Subsets { subsets, truncated }
}

/// What to write so that the Service's Endpoints tell that.
pub(super) fn plan(
    service: &Service,
    subsets: Subsets,
    existing: Option<&Endpoints>,
) -> Option<Write> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let list = Some(subsets.subsets).filter(|list| !list.is_empty());
    let truncated = subsets.truncated.then(|| "truncated".to_owned());
    let Some(existing) = existing else {
        let metadata = ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: truncated.map(|word| [(OVER_CAPACITY.to_owned(), word)].into()),
            ..ObjectMeta::default()
        };
        return Some(Write::Create(Box::new(Endpoints { metadata, subsets: list })));
    };
    let said = existing.metadata.annotations.as_ref().and_then(|all| all.get(OVER_CAPACITY));
    if existing.subsets.clone().unwrap_or_default() == list.clone().unwrap_or_default()
        && existing.metadata.labels.as_ref() == Some(&labels)
        && said == truncated.as_ref()
    {
        return None;
    }
    let mut draft = existing.clone();
    draft.subsets = list;
    draft.metadata.labels = Some(labels);
    let annotations = draft.metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    annotations.extend(truncated.map(|word| (OVER_CAPACITY.to_owned(), word)));
    if annotations.is_empty() {
        draft.metadata.annotations = None;
    }
    Some(Write::Update { object: Box::new(draft), part: Part::Main })
}

/// An address by its number, so that 10.0.0.9 comes before 10.0.0.10.
fn octets(address: &str) -> Option<std::net::IpAddr> {
    address.parse().ok()
}

fn address(service: &Service, (object, pod, ip): (&Arc<Object>, &Pod, &str)) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: members::hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(members::reference(object)),
    }
}

fn port(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}
