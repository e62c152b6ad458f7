//! The small kinds: services, events, namespaces, configuration, leases and priority classes.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, LimitRange, Namespace, Secret, Service, ServiceAccount, ServiceSpec,
};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};
use wharf_model::time::Time;

use super::{Column, age, labels, or_none, since};

pub(super) const SERVICE: &[Column] = &[
    Column::text("Name"),
    Column::text("Type"),
    Column::text("Cluster-IP"),
    Column::text("External-IP"),
    Column::text("Port(s)"),
    Column::text("Age"),
    Column::text("Selector").wide(),
];

pub(super) fn service(service: &Service, now: Time) -> Vec<Value> {
    let none = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&none);
    let cluster_ip = spec.cluster_ips.iter().flatten().next().or(spec.cluster_ip.as_ref());
    vec![
        json!(service.metadata.name),
        json!(spec.type_.as_deref().unwrap_or_default()),
        or_none(cluster_ip.map(String::as_str)),
        json!(external_ip(service, spec)),
        or_none(Some(&ports(spec))),
        json!(age(service.metadata.creation_timestamp.as_ref(), now)),
        json!(labels(spec.selector.iter().flatten())),
    ]
}

fn external_ip(service: &Service, spec: &ServiceSpec) -> String {
    let given = spec.external_ips.as_deref().unwrap_or_default();
    match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.clone().unwrap_or_default(),
        Some("LoadBalancer") => {
            let ingress = service
                .status
                .as_ref()
                .and_then(|status| status.load_balancer.as_ref())
                .and_then(|balancer| balancer.ingress.as_deref())
                .unwrap_or_default();
            let found: BTreeSet<&str> = ingress
                .iter()
                .filter_map(|point| point.ip.as_deref().or(point.hostname.as_deref()))
                .filter(|text| !text.is_empty())
                .collect();
            let all: Vec<&str> =
                found.into_iter().chain(given.iter().map(String::as_str)).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if given.is_empty() => "<none>".to_owned(),
        _ => given.join(","),
    }
}

/// `80/TCP,443:30443/TCP`.
fn ports(spec: &ServiceSpec) -> String {
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            match port.node_port.filter(|node_port| *node_port > 0) {
                Some(node_port) => format!("{}:{node_port}/{protocol}", port.port),
                None => format!("{}/{protocol}", port.port),
            }
        })
        .collect();
    ports.join(",")
}

pub(super) const EVENT: &[Column] = &[
    Column::text("Last Seen"),
    Column::text("Type"),
    Column::text("Reason"),
    Column::text("Object"),
    Column::text("Subobject").wide(),
    Column::text("Source").wide(),
    Column::text("Message"),
    Column::text("First Seen").wide(),
    Column::number("Count").wide(),
    Column::text("Name").wide(),
];

pub(super) fn event(event: &Event, now: Time) -> Vec<Value> {
    let occurred = event.event_time.as_ref().map(Time::from);
    let first = event.first_timestamp.as_ref().map(Time::from).or(occurred);
    let mut last = event.last_timestamp.as_ref().map(Time::from).or(first);
    let mut count = event.count.filter(|count| *count != 0).unwrap_or(1);
    if let Some(series) = &event.series {
        last = series.last_observed_time.as_ref().map(Time::from);
        count = series.count.unwrap_or_default();
    }
    let about = &event.involved_object;
    let kind = about.kind.as_deref().unwrap_or_default().to_lowercase();
    let target = match about.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => format!("{kind}/{name}"),
        None => kind,
    };
    vec![
        json!(since(last, now)),
        json!(event.type_.as_deref().unwrap_or_default()),
        json!(event.reason.as_deref().unwrap_or_default()),
        json!(target),
        json!(about.field_path.as_deref().unwrap_or_default()),
        json!(source(event)),
        json!(event.message.as_deref().unwrap_or_default().trim()),
        json!(since(first, now)),
        json!(count),
        json!(event.metadata.name),
    ]
}

/// Who recorded an event: `kubelet, node-a`.
fn source(event: &Event) -> String {
    let source = event.source.as_ref();
    let pick = |old: Option<&String>, new: Option<&String>| {
        old.filter(|text| !text.is_empty()).or(new).cloned().unwrap_or_default()
    };
    let component = pick(
        source.and_then(|source| source.component.as_ref()),
        event.reporting_component.as_ref(),
    );
    let instance =
        pick(source.and_then(|source| source.host.as_ref()), event.reporting_instance.as_ref());
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

pub(super) const NAMESPACE: &[Column] =
    &[Column::text("Name"), Column::text("Status"), Column::text("Age")];

pub(super) fn namespace(namespace: &Namespace, now: Time) -> Vec<Value> {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    vec![
        json!(namespace.metadata.name),
        json!(phase.unwrap_or_default()),
        json!(age(namespace.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const CONFIG_MAP: &[Column] =
    &[Column::text("Name"), Column::number("Data"), Column::text("Age")];

pub(super) fn config_map(map: &ConfigMap, now: Time) -> Vec<Value> {
    let texts = map.data.as_ref().map_or(0, |data| data.len());
    let binaries = map.binary_data.as_ref().map_or(0, |data| data.len());
    vec![
        json!(map.metadata.name),
        json!(texts + binaries),
        json!(age(map.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const SECRET: &[Column] =
    &[Column::text("Name"), Column::text("Type"), Column::number("Data"), Column::text("Age")];

pub(super) fn secret(secret: &Secret, now: Time) -> Vec<Value> {
    vec![
        json!(secret.metadata.name),
        json!(secret.type_.as_deref().unwrap_or_default()),
        json!(secret.data.as_ref().map_or(0, |data| data.len())),
        json!(age(secret.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const SERVICE_ACCOUNT: &[Column] = &[Column::text("Name"), Column::text("Age")];

pub(super) fn service_account(account: &ServiceAccount, now: Time) -> Vec<Value> {
    vec![
        json!(account.metadata.name),
        json!(age(account.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const LIMIT_RANGE: &[Column] = &[Column::text("Name"), Column::text("Created At")];

pub(super) fn limit_range(range: &LimitRange, _now: Time) -> Vec<Value> {
    vec![json!(range.metadata.name), json!(range.metadata.creation_timestamp)]
}

pub(super) const WEBHOOKS: &[Column] =
    &[Column::text("Name"), Column::number("Webhooks"), Column::text("Age")];

pub(super) fn mutating_webhooks(
    configuration: &MutatingWebhookConfiguration,
    now: Time,
) -> Vec<Value> {
    vec![
        json!(configuration.metadata.name),
        json!(configuration.webhooks.as_ref().map_or(0, Vec::len)),
        json!(age(configuration.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) fn validating_webhooks(
    configuration: &ValidatingWebhookConfiguration,
    now: Time,
) -> Vec<Value> {
    vec![
        json!(configuration.metadata.name),
        json!(configuration.webhooks.as_ref().map_or(0, Vec::len)),
        json!(age(configuration.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const LEASE: &[Column] =
    &[Column::text("Name"), Column::text("Holder"), Column::text("Age")];

pub(super) fn lease(lease: &Lease, now: Time) -> Vec<Value> {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
    vec![
        json!(lease.metadata.name),
        json!(holder.unwrap_or_default()),
        json!(age(lease.metadata.creation_timestamp.as_ref(), now)),
    ]
}

pub(super) const PRIORITY_CLASS: &[Column] = &[
    Column::text("Name"),
    Column::number("Value"),
    Column { name: "Global-Default", kind: "boolean", priority: 0 },
    Column::text("Age"),
    Column::text("PreemptionPolicy"),
];

pub(super) fn priority_class(class: &PriorityClass, now: Time) -> Vec<Value> {
    vec![
        json!(class.metadata.name),
        json!(class.value),
        json!(class.global_default.unwrap_or_default()),
        json!(age(class.metadata.creation_timestamp.as_ref(), now)),
        json!(class.preemption_policy.as_deref().unwrap_or("PreemptLowerPriority")),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    fn meta() -> Value {
        json!({"name": "x", "creationTimestamp": "2026-01-01T23:55:00Z"})
    }

    #[test]
    fn services_print_as_upstreams() {
        let line = |spec: Value, status: Value| {
            printed("Service", json!({"metadata": meta(), "spec": spec, "status": status}))
        };
        assert_eq!(
            line(
                json!({"type": "ClusterIP", "clusterIP": "10.100.0.1", "clusterIPs": ["10.100.0.1"], "ports": [{"port": 443, "protocol": "TCP"}], "selector": {"b": "2", "a": "1"}}),
                json!({})
            ),
            "x|ClusterIP|10.100.0.1|<none>|443/TCP|5m || a=1,b=2"
        );
        let balancer = json!({"type": "LoadBalancer", "clusterIP": "10.100.0.2", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]});
        assert_eq!(
            line(balancer.clone(), json!({})),
            "x|LoadBalancer|10.100.0.2|<pending>|80:30080/TCP,53/UDP|5m || <none>"
        );
        assert!(
            line(balancer, json!({"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}))
                .contains("|lb.example|")
        );
        assert_eq!(
            line(json!({"type": "ExternalName", "externalName": "db.example"}), json!({})),
            "x|ExternalName|<none>|db.example|<none>|5m || <none>"
        );
    }

    #[test]
    fn events_print_as_upstreams() {
        let event = json!({
            "metadata": {"name": "p.1"},
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "type": "Normal", "reason": "Pulled", "message": "text\n",
            "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2026-01-01T23:50:00Z", "lastTimestamp": "2026-01-01T23:59:30Z", "count": 3,
        });
        assert_eq!(
            printed("Event", event),
            "30s|Normal|Pulled|pod/p|text || spec.containers{c}|kubelet, n|10m|3|p.1"
        );
        let series = json!({
            "metadata": {"name": "e"}, "involvedObject": {"kind": "Node"},
            "eventTime": "2026-01-01T23:58:00.000000Z", "reportingComponent": "karpenter",
            "series": {"count": 7, "lastObservedTime": "2026-01-01T23:59:59.000000Z"},
        });
        assert_eq!(printed("Event", series), "1s|||node| || |karpenter|2m|7|e");
        let bare = json!({"metadata": {"name": "e"}, "involvedObject": {}});
        assert_eq!(printed("Event", bare), "<unknown>|||| || ||<unknown>|1|e");
    }

    #[test]
    fn small_kinds_print_as_upstreams() {
        for (kind, rest, expected) in [
            ("Namespace", json!({"status": {"phase": "Active"}}), "x|Active|5m"),
            ("ConfigMap", json!({"data": {"a": "1"}, "binaryData": {"b": "AA=="}}), "x|2|5m"),
            ("Secret", json!({"type": "Opaque", "data": {"a": "AA=="}}), "x|Opaque|1|5m"),
            ("ServiceAccount", json!({}), "x|5m"),
            ("Lease", json!({"spec": {"holderIdentity": "me"}}), "x|me|5m"),
            ("PriorityClass", json!({"value": 1000}), "x|1000|false|5m|PreemptLowerPriority"),
            (
                "PriorityClass",
                json!({"value": -1, "globalDefault": true, "preemptionPolicy": "Never"}),
                "x|-1|true|5m|Never",
            ),
        ] {
            let mut object = json!({"metadata": meta()});
            object
                .as_object_mut()
                .expect("object")
                .extend(rest.as_object().expect("object").clone());
            assert_eq!(printed(kind, object), expected, "{kind}");
        }
    }
}
