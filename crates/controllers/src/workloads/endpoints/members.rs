//! Which pods are endpoints of a Service, and at which ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::labels::TOPOLOGY_ZONE;
use wharf_model::object::Object;
use wharf_model::pod::{is_sidecar, is_terminal, ready_since};
use wharf_ports::view::View;

/// A port of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    /// The name of the Service's port.
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) port: i32,
    pub(super) app_protocol: Option<String>,
}

impl Port {
    pub(super) fn to_api(&self) -> EndpointPort {
        EndpointPort {
            name: Some(self.name.clone()),
            protocol: Some(self.protocol.clone()),
            port: Some(self.port),
            app_protocol: self.app_protocol.clone(),
        }
    }

    pub(super) fn from_api(port: &EndpointPort) -> Self {
        Self {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_default(),
            port: port.port.unwrap_or_default(),
            app_protocol: port.app_protocol.clone(),
        }
    }
}

/// The endpoints of a Service by the ports they have, since the port of a name may differ from pod to
/// pod. Pods that are on their way out are among them.
pub(super) fn for_slices(
    service: &Service,
    pods: &[&Arc<Object>],
    view: &View,
) -> BTreeMap<Vec<Port>, Vec<Endpoint>> {
    let mut wanted: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for (object, pod) in pods.iter().filter_map(|object| Some((object, object.typed::<Pod>()?))) {
        let Some(address) = address(pod) else { continue };
        let endpoint = endpoint(service, object, pod, address, view);
        wanted.entry(ports(service, pod)).or_default().push(endpoint);
    }
    wanted
}

/// The address of a pod that can be an endpoint.
pub(super) fn address(pod: &Pod) -> Option<&str> {
    let address = pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())?;
    (!is_terminal(pod)).then_some(address)
}

/// The Service's ports as this pod has them. A name that the pod does not have is left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let mut found: Vec<Port> = ports
        .iter()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: target_port(port, pod)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    found.sort();
    found
}

/// The number of the port that a Service's port leads to in a pod.
fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| {
            port.name.as_ref() == Some(name)
                && port.protocol.as_deref().unwrap_or("TCP") == protocol
        })
        .map(|port| port.container_port)
}

/// Whether the Service tells of pods that are not ready as if they were.
pub(super) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// Whether the Service has no address of its own.
pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The name that DNS gives a pod beneath its Service's.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|name| !name.is_empty())?;
    (spec.subdomain == service.metadata.name).then(|| hostname.clone())
}

/// A reference to the pod behind an endpoint.
pub(super) fn reference(object: &Object) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(object.key().namespace.to_string()),
        name: Some(object.key().name.to_string()),
        uid: Some(object.uid().to_owned()),
        ..ObjectReference::default()
    }
}

fn endpoint(service: &Service, object: &Object, pod: &Pod, address: &str, view: &View) -> Endpoint {
    let serving = ready_since(pod).is_some();
    let terminating = object.header().deleting.is_some();
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let node = node_name.as_deref().and_then(|name| view.get_cluster::<Node>(name));
    let zone = node.and_then(|node| node.metadata.labels.as_ref()?.get(TOPOLOGY_ZONE).cloned());
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name,
        target_ref: Some(reference(object)),
        zone,
        ..Endpoint::default()
    }
}
