//! From a Service to a stack: a Network Load Balancer with a listener for each port.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::balancing::{HealthCheck, Listener, ListenerRule};
use wharf_model::object::ObjectKey;
use wharf_ports::view::View;

use super::annotations::{Annotations, SERVICE};
use super::stack::{Stack, StackId, WantedGroup, subnets};
use super::{AUTO_MODE_NLB_CLASS, ElbSettings, NLB_CLASS, names};

/// Whether a Service wants a Network Load Balancer from this controller.
pub(super) fn is_wanted(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let class = spec.load_balancer_class.as_deref();
    spec.type_.as_deref() == Some("LoadBalancer")
        && matches!(class, Some(NLB_CLASS | AUTO_MODE_NLB_CLASS))
        && service.metadata.deletion_timestamp.is_none()
}

/// The stack that a Service has.
pub(super) fn id(key: &ObjectKey) -> StackId {
    StackId { owner: "service.k8s.aws", name: key.to_string() }
}

/// The stack of a Service.
///
/// # Errors
/// The controller's words, which follow `Failed build model due to`.
pub(super) fn build(
    service: &Service,
    settings: &ElbSettings,
    view: &View,
) -> Result<Stack, String> {
    let key = ObjectKey::of(&service.metadata);
    let annotations = Annotations::new(service.metadata.annotations.as_ref(), SERVICE);
    let spec = service.spec.clone().unwrap_or_default();
    let is_auto_mode = spec.load_balancer_class.as_deref() == Some(AUTO_MODE_NLB_CLASS);
    let scheme = annotations.word("scheme", &["internal", "internet-facing"])?;
    let scheme = scheme.unwrap_or("internal").to_owned();
    let default = if is_auto_mode { "ip" } else { "instance" };
    let target_type = annotations.word("nlb-target-type", &["instance", "ip"])?.unwrap_or(default);
    let id = id(&key);
    let cluster = settings.cluster_name.as_str();
    let name = match annotations.text("name") {
        Some(name) if name.len() > 32 => {
            return Err(format!("load balancer name cannot be longer than 32 characters: {name}"));
        }
        Some(name) => name.to_owned(),
        None => names::of_object(&key.namespace, &key.name, &[cluster, &id.name, &scheme]),
    };
    let subnets = subnets(&scheme, 1, view)?;
    let (mut listeners, mut groups) = (Vec::new(), Vec::new());
    for port in spec.ports.iter().flatten() {
        let text = port.port.to_string();
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let hashed = [cluster, &id.name, &text, target_type, &protocol];
        let group = names::of_object(&key.namespace, &key.name, &hashed);
        let target_port = match (target_type, &port.target_port) {
            ("instance", _) => port.node_port.filter(|port| *port > 0).ok_or(
                "TargetGroup port is empty. When using Instance targets, your service must be of type 'NodePort' or 'LoadBalancer'",
            )?,
            (_, Some(IntOrString::Int(number))) => *number,
            (_, None) => port.port,
            (_, Some(IntOrString::String(_))) => 1,
        };
        let rule = ListenerRule { target_group: Some(group.clone()), ..ListenerRule::default() };
        listeners.push(Listener { port: port.port, protocol: protocol.clone(), rules: vec![rule] });
        groups.push(WantedGroup {
            name: group,
            service: key.clone(),
            service_port: IntOrString::Int(port.port),
            target_type: target_type.to_owned(),
            protocol,
            port: target_port,
            health_check: HealthCheck {
                path: String::new(),
                protocol: "TCP".to_owned(),
                interval_seconds: 10,
                timeout_seconds: 10,
                healthy_threshold: 3,
                unhealthy_threshold: 3,
                success_codes: String::new(),
                ..HealthCheck::default()
            },
        });
    }
    Ok(Stack {
        id,
        name,
        is_network: true,
        scheme,
        subnets,
        listeners,
        groups,
        tags: annotations.map("additional-resource-tags")?,
        token: service.metadata.uid.clone().unwrap_or_default(),
    })
}
