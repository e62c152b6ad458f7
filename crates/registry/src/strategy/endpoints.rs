//! Endpoints and EndpointSlices:
//! <https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/>.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use wharf_model::names;

use super::Rules;
use super::pod::validate::one_of;
use crate::field::{Errors, Path};

const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const FAMILIES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const ENDPOINTS_MAX: usize = 1_000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;

impl Rules for Endpoints {
    fn set_defaults(&mut self) {
        for port in self.subsets.iter_mut().flatten().flat_map(|it| it.ports.iter_mut().flatten()) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let root = Path::root("subsets");
        for (index, subset) in self.subsets.iter().flatten().enumerate() {
            let path = root.index(index);
            let ready = subset.addresses.as_deref().unwrap_or_default();
            let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
            if ready.is_empty() && not_ready.is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for (field, list) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                let path = path.child(field);
                for (index, address) in list.iter().enumerate() {
                    let path = path.index(index);
                    self::address(&path.child("ip"), &address.ip, errors);
                }
            }
            let path = path.child("ports");
            let ports = subset.ports.as_deref().unwrap_or_default();
            for (index, port) in ports.iter().enumerate() {
                let path = path.index(index);
                match port.name.as_deref().unwrap_or_default() {
                    "" if ports.len() > 1 => errors.required(&path.child("name"), ""),
                    "" => {}
                    name => {
                        errors.invalid_each(&path.child("name"), name, names::dns_1123_label(name));
                    }
                }
                for message in names::port_number(i64::from(port.port)) {
                    errors.invalid(&path.child("port"), &port.port, message);
                }
                one_of(&path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS, errors);
            }
        }
    }
}

impl Rules for EndpointSlice {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.endpoints != old.endpoints
            || self.ports != old.ports
            || self.metadata.labels != old.metadata.labels
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::root("addressType");
        match self.address_type.as_str() {
            "" => errors.required(&path, ""),
            family => one_of(&path, Some(family), &FAMILIES, errors),
        }
        endpoints(self, errors);
        let path = Path::root("ports");
        ports(&path, self.ports.as_deref().unwrap_or_default(), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        errors.immutable(&Path::root("addressType"), &self.address_type, &old.address_type);
    }
}

fn endpoints(slice: &EndpointSlice, errors: &mut Errors) {
    let root = Path::root("endpoints");
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > ENDPOINTS_MAX {
        errors.too_many(&root, endpoints.len(), ENDPOINTS_MAX);
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = root.index(index);
        let field = path.child("addresses");
        if endpoint.addresses.is_empty() {
            errors.required(&field, "must contain at least 1 address");
        } else if endpoint.addresses.len() > ADDRESSES_MAX {
            errors.too_many(&field, endpoint.addresses.len(), ADDRESSES_MAX);
        }
        for (index, address) in endpoint.addresses.iter().enumerate() {
            let field = field.index(index);
            if slice.address_type == "FQDN" {
                errors.invalid_each(&field, address, names::dns_1123_subdomain(address));
            } else {
                self::address(&field, address, errors);
            }
        }
        if let Some(name) = endpoint.hostname.as_deref() {
            errors.invalid_each(&path.child("hostname"), name, names::dns_1123_label(name));
        }
        if let Some(node) = endpoint.node_name.as_deref() {
            let messages = names::dns_1123_subdomain(node);
            errors.invalid_each(&path.child("nodeName"), node, messages);
        }
    }
}

fn ports(path: &Path<'_>, ports: &[EndpointPort], errors: &mut Errors) {
    if ports.len() > PORTS_MAX {
        errors.too_many(path, ports.len(), PORTS_MAX);
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            errors.invalid_each(&path.child("name"), name, names::dns_1123_label(name));
        }
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if let Some(number) = port.port {
            for message in names::port_number(i64::from(number)) {
                errors.invalid(&path.child("port"), &number, message);
            }
        }
        match port.protocol.as_deref().unwrap_or_default() {
            "" => errors.required(&path.child("protocol"), ""),
            protocol => one_of(&path.child("protocol"), Some(protocol), &PROTOCOLS, errors),
        }
    }
}

/// An address that traffic may be sent to: the machine's own are not.
fn address(path: &Path<'_>, text: &str, errors: &mut Errors) {
    let Ok(address) = text.parse::<IpAddr>() else {
        errors.invalid(path, text, NOT_AN_ADDRESS);
        return;
    };
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let link_local_multicast = match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] == 0xff02,
    };
    if address.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({text})"));
    }
    if address.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if is_link_local {
        let detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        errors.invalid(path, text, detail);
    }
    if link_local_multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        errors.invalid(path, text, detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use wharf_model::kinds::{Kind, Resource};

    fn said<T: Rules>(value: Value) -> String {
        let mut object: T = serde_json::from_value(value).expect("it decodes");
        object.set_defaults();
        let mut errors = Errors::default();
        object.validate(&mut errors);
        let kind: Kind = <T as Resource>::kind();
        errors.into_result(kind, "x").err().map_or_else(String::new, |error| error.message)
    }

    #[test]
    fn slices_are_refused_in_upstreams_words() {
        let slice = |rest: Value| {
            let mut value = json!({"metadata": {"name": "x"}, "addressType": "IPv4"});
            let fields = value.as_object_mut().expect("an object");
            fields.extend(rest.as_object().expect("fields").clone());
            said::<EndpointSlice>(value)
        };
        let good = json!({"endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}]});
        assert_eq!(slice(good), "");
        for (rest, expected) in [
            (
                json!({"endpoints": [], "addressType": "IPX"}),
                "addressType: Unsupported value: \"IPX\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
            ),
            (
                json!({"endpoints": [{"addresses": []}]}),
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ),
            (
                json!({"endpoints": [{"addresses": ["10.1.2"]}]}),
                "endpoints[0].addresses[0]: Invalid value: \"10.1.2\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                json!({"endpoints": [{"addresses": ["127.0.0.1"]}]}),
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            (
                json!({"endpoints": [], "ports": [{"port": 80}, {"port": 81}]}),
                "ports[1].name: Duplicate value: \"\"",
            ),
        ] {
            let text = slice(rest);
            assert!(text.ends_with(expected), "{text}\n{expected}");
        }
    }

    #[test]
    fn endpoints_are_refused_in_upstreams_words() {
        let empty = json!({"metadata": {"name": "x"}, "subsets": [{"ports": [{"port": 80}]}]});
        assert_eq!(
            said::<Endpoints>(empty),
            "Endpoints \"x\" is invalid: subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"
        );
        let good = json!({"metadata": {"name": "x"}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]});
        assert_eq!(said::<Endpoints>(good), "");
    }
}
