//! Who answers requests to a host: what DNS and kube-proxy make of Services and ready pods.

use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_load::{Id, Target};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::pod::{condition, is_terminal};
use wharf_model::selector::Selector;
use wharf_ports::view::View;

use crate::shell::Host;

/// Whom requests of a namespace's clients to a host are for: the Service, if it is one, and the
/// containers that answer, in the order of their pods. None if there is no such host, port or ready
/// pod.
pub(super) fn endpoints(
    view: &View,
    namespace: &str,
    target: &Target,
) -> (Option<ObjectKey>, Vec<Id>) {
    const NOWHERE: (Option<ObjectKey>, Vec<Id>) = (None, Vec::new());
    if target.host.parse::<std::net::Ipv4Addr>().is_ok() {
        return by_address(view, target);
    }
    let mut names = target.host.split('.');
    let (Some(name), own) = (names.next(), names.next()) else { return NOWHERE };
    // `web`, `web.shop`, `web.shop.svc`, `web.shop.svc.cluster.local`.
    let rest: Vec<&str> = names.collect();
    if !["", "svc", "svc.cluster.local"].contains(&rest.join(".").as_str()) {
        return NOWHERE;
    }
    let key = ObjectKey::namespaced(own.unwrap_or(namespace), name);
    let Some(service) = view.get::<Service>(&key) else { return NOWHERE };
    let found = of_service(view, &key.namespace, service, target.port);
    (Some(key), found)
}

/// The pods that answer requests to a host, at a port or (a headless Service's name) at any, as a shell in
/// a pod of the namespace finds them.
pub(crate) fn answering(
    host: &dyn Host,
    namespace: &str,
    name: &str,
    port: Option<u16>,
) -> Vec<ObjectKey> {
    let by_address = name.parse::<std::net::Ipv4Addr>().is_ok();
    let own = name.split('.').nth(1).unwrap_or(namespace);
    let mut view = View::new();
    for kind in [Kind::of::<Service>(), Kind::of::<Pod>()] {
        for object in host.list(kind, (!by_address).then_some(own)) {
            view.load(object);
        }
    }
    let target = Target { host: name.into(), port: port.unwrap_or(0) };
    let (_, found) = endpoints(&view, namespace, &target);
    found.into_iter().map(|id| id.pod).collect()
}

fn by_address(view: &View, target: &Target) -> (Option<ObjectKey>, Vec<Id>) {
    let is_it = |address: Option<&str>| address == Some(target.host.as_str());
    let service = view
        .list::<Service>()
        .find(|service| is_it(service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref())));
    if let Some(service) = service {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let found = of_service(view, namespace, service, target.port);
        return (Some(ObjectKey::of(&service.metadata)), found);
    }
    let pod = view
        .list::<Pod>()
        .find(|pod| is_it(pod.status.as_ref().and_then(|status| status.pod_ip.as_deref())));
    let container = pod.and_then(|pod| id_of(pod, &IntOrString::Int(i32::from(target.port))));
    (None, container.into_iter().collect())
}

fn of_service(view: &View, namespace: &str, service: &Service, port: u16) -> Vec<Id> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(labels) = spec.selector.as_ref().filter(|labels| !labels.is_empty()) else {
        return Vec::new();
    };
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    let found = spec.ports.iter().flatten().find(|known| known.port == i32::from(port));
    let to = match found {
        Some(port) => target_port(port),
        // A headless Service's name leads to the pods themselves, whatever the port.
        None if is_headless => IntOrString::Int(i32::from(port)),
        None => return Vec::new(),
    };
    let selector = Selector::from_map(labels);
    let unready_too = spec.publish_not_ready_addresses == Some(true);
    view.pods_matching(namespace, &selector)
        .into_iter()
        .filter_map(|object| object.typed::<Pod>())
        .filter(|pod| unready_too || takes_requests(pod))
        .filter_map(|pod| id_of(pod, &to))
        .collect()
}

fn target_port(port: &ServicePort) -> IntOrString {
    port.target_port.clone().unwrap_or(IntOrString::Int(port.port))
}

/// Whether a pod is among its Services' endpoints.
pub(super) fn takes_requests(pod: &Pod) -> bool {
    !is_terminal(pod)
        && pod.metadata.deletion_timestamp.is_none()
        && condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// The container of a pod behind a port: the one that declares it, else the first.
fn id_of(pod: &Pod, port: &IntOrString) -> Option<Id> {
    let spec = pod.spec.as_ref()?;
    let declares = |container: &&Container| {
        container.ports.iter().flatten().any(|declared| match port {
            IntOrString::Int(number) => declared.container_port == *number,
            IntOrString::String(name) => declared.name.as_ref() == Some(name),
        })
    };
    let found = spec.containers.iter().find(declares);
    // A named port that nobody declares leads nowhere.
    let found = match port {
        IntOrString::Int(_) => found.or_else(|| spec.containers.first()),
        IntOrString::String(_) => found,
    };
    Some(Id { pod: ObjectKey::of(&pod.metadata), container: found?.name.as_str().into() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use wharf_model::kinds::Resource;
    use wharf_model::object::Object;

    use super::*;

    fn put<T: Resource + wharf_model::object::Typed>(view: &mut View, json: Value) {
        let typed: T = serde_json::from_value(json).expect("an object");
        view.load(Arc::new(Object::from_typed(Box::new(typed), 1)));
    }

    fn view() -> View {
        let mut view = View::new();
        for (name, ready, deleting) in
            [("a", "True", false), ("b", "False", false), ("c", "True", true), ("d", "True", false)]
        {
            let mut pod = json!({
                "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
                "spec": {"containers": [
                    {"name": "proxy"},
                    {"name": "web", "ports": [{"containerPort": 8080, "name": "http"}]}
                ]},
                "status": {"podIP": format!("10.0.0.{}", name.as_bytes()[0]),
                    "conditions": [{"type": "Ready", "status": ready}]}
            });
            if deleting {
                pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:10Z");
            }
            put::<Pod>(&mut view, pod);
        }
        put::<Service>(
            &mut view,
            json!({
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"clusterIP": "10.100.0.7", "selector": {"app": "web"}, "ports": [
                    {"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81},
                    {"name": "c", "port": 82, "targetPort": "none"}]}
            }),
        );
        view
    }

    #[test]
    fn hosts_lead_to_ready_pods() {
        let view = view();
        for (namespace, host, port, expected) in [
            ("shop", "web", 80, "a/web d/web"),
            ("shop", "web", 81, "a/proxy d/proxy"),
            ("shop", "web", 82, ""),
            ("shop", "web", 443, ""),
            ("default", "web", 80, ""),
            ("default", "web.shop", 80, "a/web d/web"),
            ("default", "web.shop.svc.cluster.local", 80, "a/web d/web"),
            ("default", "web.shop.example.com", 80, ""),
            ("default", "10.100.0.7", 80, "a/web d/web"),
            ("default", "10.0.0.98", 8080, "b/web"),
            ("default", "10.9.9.9", 80, ""),
        ] {
            let target = Target { host: host.into(), port };
            let (service, found) = endpoints(&view, namespace, &target);
            // A Service is one even if nothing is behind that port.
            let is_service =
                host == "10.100.0.7" || host.starts_with("web.shop") || namespace == "shop";
            let is_service = is_service && !host.contains("example");
            assert_eq!(service.is_some(), is_service, "{namespace} {host}:{port}");
            let found: Vec<String> =
                found.iter().map(|id| format!("{}/{}", id.pod.name, id.container)).collect();
            assert_eq!(found.join(" "), expected, "{namespace} {host}:{port}");
        }
    }
}
