//! What is between Services and clients: endpoints, Ingresses and their classes.

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde_json::{Value, json};
use wharf_model::time::Time;

use super::{Column, age, or_none};

/// So many of a list are shown; then how many more there are.
const SHOWN_MAX: usize = 3;

pub(super) const ENDPOINTS: &[Column] =
    &[Column::text("Name"), Column::text("Endpoints"), Column::text("Age")];

pub(super) fn endpoints(endpoints: &Endpoints, now: Time) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = subset.ports.as_deref().unwrap_or_default();
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        if ports.is_empty() {
            all.extend(addresses.iter().map(|address| address.ip.clone()));
        }
        for port in ports {
            all.extend(addresses.iter().map(|address| joined(&address.ip, port.port)));
        }
    }
    vec![
        json!(endpoints.metadata.name),
        json!(first_few(&all, "<none>")),
        json!(age(endpoints.metadata.creation_timestamp.as_ref(), now)),
    ]
}

/// An address with a port, as URLs have it.
fn joined(address: &str, port: i32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn first_few(all: &[String], none: &str) -> String {
    if all.is_empty() {
        return none.to_owned();
    }
    let shown = all.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        rest => format!("{shown} + {rest} more..."),
    }
}

pub(super) const SLICE: &[Column] = &[
    Column::text("Name"),
    Column::text("AddressType"),
    Column::text("Ports"),
    Column::text("Endpoints"),
    Column::text("Age"),
];

pub(super) fn slice(slice: &EndpointSlice, now: Time) -> Vec<Value> {
    let ports: Vec<String> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| port.port.map_or_else(|| "*".to_owned(), |port| port.to_string()))
        .collect();
    let addresses: Vec<String> =
        slice.endpoints.iter().flatten().flat_map(|it| it.addresses.clone()).collect();
    vec![
        json!(slice.metadata.name),
        json!(slice.address_type),
        json!(first_few(&ports, "<unset>")),
        json!(first_few(&addresses, "<unset>")),
        json!(age(slice.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const INGRESS: &[Column] = &[
    Column::text("Name"),
    Column::text("Class"),
    Column::text("Hosts"),
    Column::text("Address"),
    Column::text("Ports"),
    Column::text("Age"),
];

pub(super) fn ingress(ingress: &Ingress, now: Time) -> Vec<Value> {
    let spec = ingress.spec.as_ref();
    let rules = spec.and_then(|spec| spec.rules.as_deref()).unwrap_or_default();
    let hosts: Vec<String> =
        rules.iter().filter_map(|rule| rule.host.clone().filter(|host| !host.is_empty())).collect();
    let points = ingress
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref())
        .unwrap_or_default();
    let addresses: Vec<&str> = points
        .iter()
        .filter_map(|point| {
            let ip = point.ip.as_deref().filter(|ip| !ip.is_empty());
            ip.or(point.hostname.as_deref()).filter(|text| !text.is_empty())
        })
        .collect();
    let has_tls = spec.is_some_and(|spec| spec.tls.iter().flatten().count() > 0);
    vec![
        json!(ingress.metadata.name),
        or_none(spec.and_then(|spec| spec.ingress_class_name.as_deref())),
        json!(first_few(&hosts, "*")),
        json!(addresses.join(",")),
        json!(if has_tls { "80, 443" } else { "80" }),
        json!(age(ingress.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const CLASS: &[Column] = &[
    Column::text("Name"),
    Column::text("Controller"),
    Column::text("Parameters"),
    Column::text("Age"),
];

pub(super) fn class(class: &IngressClass, now: Time) -> Vec<Value> {
    let spec = class.spec.as_ref();
    let parameters = spec.and_then(|spec| spec.parameters.as_ref()).map(|parameters| {
        let group = parameters.api_group.as_ref().map(|group| format!(".{group}"));
        format!("{}{}/{}", parameters.kind, group.unwrap_or_default(), parameters.name)
    });
    vec![
        json!(class.metadata.name),
        json!(spec.and_then(|spec| spec.controller.as_deref()).unwrap_or_default()),
        or_none(parameters.as_deref()),
        json!(age(class.metadata.creation_timestamp.as_ref(), now)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    fn with(rest: Value) -> Value {
        let mut value =
            json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T23:55:00Z"}});
        let fields = value.as_object_mut().expect("an object");
        fields.extend(rest.as_object().expect("fields").clone());
        value
    }

    #[test]
    fn endpoints_print_as_upstreams() {
        let ips = |count: usize| -> Value {
            (1..=count).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect()
        };
        let subset = |count| json!([{"addresses": ips(count), "ports": [{"port": 80}]}]);
        for (subsets, expected) in [
            (json!(null), "x|<none>|5m"),
            (subset(2), "x|10.0.0.1:80,10.0.0.2:80|5m"),
            (subset(5), "x|10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...|5m"),
            (json!([{"notReadyAddresses": ips(1), "ports": [{"port": 80}]}]), "x|<none>|5m"),
        ] {
            assert_eq!(printed("Endpoints", with(json!({"subsets": subsets}))), expected);
        }
        let slice = |addresses: Value, ports: Value| {
            let endpoints: Vec<Value> = addresses
                .as_array()
                .expect("a list")
                .iter()
                .map(|a| json!({"addresses": [a]}))
                .collect();
            let rest = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports});
            printed("EndpointSlice", with(rest))
        };
        assert_eq!(slice(json!([]), json!([])), "x|IPv4|<unset>|<unset>|5m");
        assert_eq!(
            slice(json!(["10.0.0.1", "10.0.0.2"]), json!([{"port": 80}, {"name": "a"}])),
            "x|IPv4|80,*|10.0.0.1,10.0.0.2|5m"
        );
    }

    #[test]
    fn ingresses_print_as_upstreams() {
        assert_eq!(printed("Ingress", with(json!({"spec": {}}))), "x|<none>|*||80|5m");
        let ingress = json!({
            "spec": {"ingressClassName": "alb", "rules": [{"host": "a.example"}], "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}},
        });
        assert_eq!(printed("Ingress", with(ingress)), "x|alb|a.example|lb.example|80, 443|5m");
        let spec = json!({"spec": {"controller": "ingress.k8s.aws/alb", "parameters":
            {"apiGroup": "elbv2.k8s.aws", "kind": "IngressClassParams", "name": "alb"}}});
        assert_eq!(
            printed("IngressClass", with(spec)),
            "x|ingress.k8s.aws/alb|IngressClassParams.elbv2.k8s.aws/alb|5m"
        );
    }

    #[test]
    fn bindings_print_as_the_controllers() {
        let spec = json!({"serviceRef": {"name": "s", "port": 80}, "targetType": "ip", "targetGroupARN": "arn:x"});
        let text = printed("TargetGroupBinding", with(json!({"spec": spec})));
        assert_eq!(text, "x|s|80|ip|5m || arn:x|null");
    }
}
