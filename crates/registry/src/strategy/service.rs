//! Services: <https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/>.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::names;
use wharf_model::time::Time;
use wharf_ports::cluster::Part;

use super::Rules;
use super::pod::defaults::fill;
use super::pod::validate::{one_of, target};
use crate::field::{Errors, Json, Path};
use crate::metadata;

const SPEC: Path<'static> = Path::root("spec");
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// For how long a client sticks to a pod.
const AFFINITY_SECONDS: i32 = 10_800;
const EXTERNAL_NAME: &str = "ExternalName";

impl Rules for Service {
    fn name_errors(name: &str) -> Vec<String> {
        names::dns_1035_label(name)
    }

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        fill(&mut spec.session_affinity, "None");
        fill(&mut spec.type_, "ClusterIP");
        if spec.session_affinity.as_deref() == Some("ClientIP") {
            let config = spec.session_affinity_config.get_or_insert_default();
            let client = config.client_ip.get_or_insert_default();
            client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        for port in spec.ports.iter_mut().flatten() {
            fill(&mut port.protocol, "TCP");
            let is_unset = match &port.target_port {
                None | Some(IntOrString::Int(0)) => true,
                Some(IntOrString::String(name)) => name.is_empty(),
                Some(IntOrString::Int(_)) => false,
            };
            if is_unset {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        let type_ = spec.type_.as_deref().unwrap_or_default();
        if matches!(type_, "NodePort" | "LoadBalancer") {
            fill(&mut spec.external_traffic_policy, "Cluster");
        }
        if type_ == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
        }
        if type_ != EXTERNAL_NAME {
            fill(&mut spec.internal_traffic_policy, "Cluster");
            fill(&mut spec.ip_family_policy, "SingleStack");
            if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
                spec.ip_families = Some(vec!["IPv4".to_owned()]);
            }
            if spec.cluster_ip.as_deref() == Some("None") {
                spec.cluster_ips = Some(vec!["None".to_owned()]);
            }
        }
    }

    fn prepare_create(&mut self, _now: Time) {
        // What a load balancer has come to is written later.
        self.status = Some(ServiceStatus::default());
        if let Some(status) = &mut self.status {
            status.load_balancer.get_or_insert_default();
        }
    }

    /// A Service that changes its type need not say that it gives up what came with the old one:
    /// what it only repeats is dropped, what it sets anew is validated.
    fn prepare_update(&mut self, old: &Self, _part: Part) {
        let (Some(new), Some(old)) = (&mut self.spec, &old.spec) else { return };
        if has_address(old) && !has_address(new) && new.cluster_ip == old.cluster_ip {
            new.cluster_ip = None;
            new.cluster_ips = None;
            new.ip_families = None;
            new.ip_family_policy = None;
        }
        if has_node_ports(old) && !has_node_ports(new) {
            let given: BTreeSet<i32> = node_ports(old).collect();
            for port in new.ports.iter_mut().flatten() {
                if port.node_port.is_some_and(|port| given.contains(&port)) {
                    port.node_port = None;
                }
            }
            if new.external_traffic_policy == old.external_traffic_policy {
                new.external_traffic_policy = None;
            }
        }
        let is_balanced = |spec: &ServiceSpec| spec.type_.as_deref() == Some("LoadBalancer");
        if is_balanced(old) && !is_balanced(new) {
            new.allocate_load_balancer_node_ports = None;
            new.load_balancer_class = None;
        }
        if new.type_.as_deref() == Some(EXTERNAL_NAME) {
            new.internal_traffic_policy = None;
        }
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let type_ = spec.type_.as_deref().unwrap_or_default();
        one_of(&SPEC.child("type"), Some(type_), &TYPES, errors);
        ports(spec, errors);
        metadata::labels(&SPEC.child("selector"), spec.selector.iter().flatten(), errors);
        one_of(
            &SPEC.child("sessionAffinity"),
            spec.session_affinity.as_deref(),
            &["ClientIP", "None"],
            errors,
        );
        one_of(
            &SPEC.child("internalTrafficPolicy"),
            spec.internal_traffic_policy.as_deref(),
            &["Cluster", "Local"],
            errors,
        );
        one_of(
            &SPEC.child("externalTrafficPolicy"),
            spec.external_traffic_policy.as_deref(),
            &["Cluster", "Local"],
            errors,
        );
        if type_ == EXTERNAL_NAME {
            let name = spec.external_name.as_deref().unwrap_or_default();
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.required(&SPEC.child("externalName"), "");
            } else {
                let messages = names::dns_1123_subdomain(name);
                errors.invalid_each(&SPEC.child("externalName"), name, messages);
            }
            let address = spec.cluster_ip.as_deref().unwrap_or_default();
            if !address.is_empty() {
                let addresses = vec![address.to_owned()];
                let detail = "may not be set when `type` is 'ExternalName'";
                errors.invalid(&SPEC.child("clusterIPs"), &Json(&addresses), detail);
            }
        }
        if matches!(type_, "NodePort" | "LoadBalancer")
            && spec.cluster_ip.as_deref() == Some("None")
        {
            let path = SPEC.child("clusterIPs");
            let detail = format!("may not be set to 'None' for {type_} services");
            errors.invalid(&path.index(0), "None", detail);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        let is_external = |spec: &ServiceSpec| spec.type_.as_deref() == Some(EXTERNAL_NAME);
        let before = old.cluster_ip.as_deref().unwrap_or_default();
        if !is_external(new)
            && !is_external(old)
            && !before.is_empty()
            && new.cluster_ip.as_deref() != Some(before)
        {
            let path = SPEC.child("clusterIPs");
            let shown = new.cluster_ips.clone().unwrap_or_default();
            errors.invalid(&path.index(0), &Json(&shown), "may not change once set");
        }
    }
}

fn has_address(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some(EXTERNAL_NAME)
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
}

fn node_ports(spec: &ServiceSpec) -> impl Iterator<Item = i32> {
    spec.ports.iter().flatten().filter_map(|port| port.node_port)
}

fn ports(spec: &ServiceSpec, errors: &mut Errors) {
    let path = SPEC.child("ports");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let type_ = spec.type_.as_deref().unwrap_or_default();
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    if ports.is_empty() && !is_headless && type_ != EXTERNAL_NAME {
        errors.required(&path, "");
    }
    let mut names_seen = BTreeSet::new();
    let mut ports_seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        self::port(&path, port, ports.len() > 1, errors);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() && !names_seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if !ports_seen.insert((port.port, port.protocol.as_deref())) {
            let key = ServicePort {
                port: port.port,
                protocol: port.protocol.clone(),
                ..ServicePort::default()
            };
            errors.duplicate(&path, &Json(&key));
        }
        if port.node_port.unwrap_or(0) != 0 && type_ == "ClusterIP" {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.forbidden(&path.child("nodePort"), detail);
        }
    }
}

fn port(path: &Path<'_>, port: &ServicePort, needs_name: bool, errors: &mut Errors) {
    match port.name.as_deref().unwrap_or_default() {
        "" if needs_name => errors.required(&path.child("name"), ""),
        "" => {}
        name => errors.invalid_each(&path.child("name"), name, names::dns_1123_label(name)),
    }
    for message in names::port_number(i64::from(port.port)) {
        errors.invalid(&path.child("port"), &port.port, message);
    }
    match port.protocol.as_deref().unwrap_or_default() {
        "" => errors.required(&path.child("protocol"), ""),
        protocol => {
            one_of(&path.child("protocol"), Some(protocol), &["SCTP", "TCP", "UDP"], errors);
        }
    }
    if let Some(port) = &port.target_port {
        target(&path.child("targetPort"), port, errors);
    }
}
