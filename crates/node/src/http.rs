//! What a pod answers over HTTP, and which pods are behind a name: for load balancers, and for what is
//! run in a pod or forwarded to one.
//!
//! Modelled: every server image answers at the ports that its containers name, and where they name none
//! at the image's own (80). Pages are not the images' but as short as they can be and still be told by
//! their title; each has the pod's name. <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>
//! says what names there are.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::{is_sidecar, phase, ready_since};
use wharf_ports::view::View;

use crate::program::{image_name, program_of};

/// The title of the page that nginx has for a start.
const NGINX_TITLE: &str = "Welcome to nginx!";

/// A request, as far as an answer depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The host header.
    pub host: String,
    /// The port of the pod.
    pub port: u16,
}

impl Request {
    /// A `GET` of a path.
    pub fn get(host: &str, port: u16, path: &str) -> Self {
        Self { method: "GET".to_owned(), path: path.to_owned(), host: host.to_owned(), port }
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// `Server`.
    pub server: String,
    /// `Content-Type`.
    pub content_type: String,
    /// The body, also where a `HEAD` leaves it out.
    pub body: String,
}

impl Response {
    /// A short page.
    pub fn page(status: u16, server: &str, body: String) -> Self {
        let (server, content_type) = (server.to_owned(), "text/html".to_owned());
        Self { status, server, content_type, body }
    }

    /// The words that belong to its code.
    pub fn reason(&self) -> &'static str {
        reason(self.status)
    }

    /// The status line and headers, with line ends.
    pub fn head(&self) -> String {
        let Self { status, server, content_type, body } = self;
        let server =
            if server.is_empty() { String::new() } else { format!("Server: {server}\r\n") };
        format!(
            "HTTP/1.1 {status} {}\r\n{server}Content-Type: {content_type}\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n",
            self.reason(),
            body.len()
        )
    }
}

/// The words that belong to a status code.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        _ => "Unknown",
    }
}

/// What a pod answers; `None` where nothing listens, so that a connection is refused.
pub fn answer(pod: &Pod, request: &Request) -> Option<Response> {
    let container = listener(pod, request.port)?;
    Some(page(pod, container, &request.method, &request.path))
}

/// What a pod's container answers.
pub(crate) fn page(pod: &Pod, container: &Container, method: &str, path: &str) -> Response {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let image = image_name(container.image.as_deref().unwrap_or_default());
    let (server, title) = match image {
        "nginx" => ("nginx", NGINX_TITLE),
        "docker-2048" => ("nginx", "2048"),
        "httpd" => ("Apache", "It works!"),
        "kube-ops-view" => ("Python/3.11 aiohttp", "Kubernetes Operational View"),
        _ => return plain(image, name, path),
    };
    if !matches!(method, "GET" | "HEAD") {
        return error_page(405, server);
    }
    let is_there = matches!(path, "" | "/" | "/index.html");
    if !is_there {
        return error_page(404, server);
    }
    Response::page(200, server, titled(title, &format!("<p>pod {name}</p>\n")))
}

/// The page that nginx has for a start, as it lies in its files.
pub(crate) fn nginx_page() -> String {
    titled(NGINX_TITLE, "")
}

fn titled(title: &str, rest: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n{rest}</body>\n</html>\n"
    )
}

/// What a server says of which nothing is known but its image.
fn plain(image: &str, pod: &str, path: &str) -> Response {
    let body = match image {
        // The image of the Kubernetes documentation's autoscaling walk-through.
        "hpa-example" => "OK!".to_owned(),
        _ => format!("pod {pod} answers {path}\n"),
    };
    Response {
        status: 200,
        server: String::new(),
        content_type: "text/plain; charset=utf-8".to_owned(),
        body,
    }
}

/// An error in the manner of nginx, which is also that of AWS' load balancers.
pub fn error_page(status: u16, server: &str) -> Response {
    let words = reason(status);
    let foot = if server.is_empty() {
        String::new()
    } else {
        format!("<hr><center>{server}</center>\r\n")
    };
    let body = format!(
        "<html>\r\n<head><title>{status} {words}</title></head>\r\n<body>\r\n<center><h1>{status} {words}</h1></center>\r\n{foot}</body>\r\n</html>\r\n"
    );
    Response::page(status, server, body)
}

/// The running container that listens at a port.
fn listener(pod: &Pod, port: u16) -> Option<&Container> {
    let spec = pod.spec.as_ref()?;
    if phase(pod) != "Running" {
        return None;
    }
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    let runs = |container: &Container| {
        let of = statuses.unwrap_or_default().iter().find(|it| it.name == container.name);
        of.is_none_or(|it| it.state.as_ref().is_none_or(|state| state.running.is_some()))
    };
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    spec.containers.iter().chain(sidecars).filter(|container| runs(container)).find(|container| {
        let mut named = container.ports.iter().flatten().peekable();
        if named.peek().is_some() {
            let is_tcp = |protocol: Option<&str>| protocol.is_none_or(|it| it == "TCP");
            return named
                .any(|of| of.container_port == i32::from(port) && is_tcp(of.protocol.as_deref()));
        }
        port == 80 && program_of(container).effort.listens
    })
}

/// The objects that names are looked up in.
pub trait Directory {
    /// One object.
    fn object(&self, kind: Kind, key: &ObjectKey) -> Option<Arc<Object>>;
    /// The objects of a kind in a namespace, in the order of their names; an empty one stands for all.
    fn objects(&self, kind: Kind, namespace: &str) -> Vec<Arc<Object>>;
}

impl Directory for View {
    fn object(&self, kind: Kind, key: &ObjectKey) -> Option<Arc<Object>> {
        View::object(self, kind, key).cloned()
    }

    fn objects(&self, kind: Kind, namespace: &str) -> Vec<Arc<Object>> {
        if namespace.is_empty() {
            View::objects(self, kind).cloned().collect()
        } else {
            self.objects_in(kind, namespace).cloned().collect()
        }
    }
}

/// A pod that a name leads to, and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod.
    pub pod: ObjectKey,
    /// Its address.
    pub address: String,
    /// The port of the pod.
    pub port: u16,
}

/// Why a name leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Nobody has the name: curl's error 6.
    #[error("Could not resolve host: {0}")]
    NoSuchHost(String),
    /// Somebody has it, but nobody answers there: curl's error 7.
    #[error("Failed to connect to {host} port {port}")]
    Refused {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
}

/// The pods behind a host as a pod of `namespace` would reach them: a Service's name in its short or
/// longer forms, its address, or a pod's own address. Sorted by address; whoever asks takes one.
///
/// # Errors
/// If there is no such name, or nobody behind it.
pub fn resolve(
    directory: &dyn Directory,
    namespace: &str,
    host: &str,
    port: u16,
) -> Result<Vec<Endpoint>, Unresolved> {
    let host = host.trim_end_matches('.');
    let refused = || Unresolved::Refused { host: host.to_owned(), port };
    if let Some(service) = service(directory, namespace, host) {
        let found = behind(directory, &service, port);
        return if found.is_empty() { Err(refused()) } else { Ok(found) };
    }
    if host.parse::<std::net::IpAddr>().is_err() {
        return Err(Unresolved::NoSuchHost(host.to_owned()));
    }
    let pods = directory.objects(Kind::of::<Pod>(), "");
    let pod = pods.iter().find(|object| {
        object.typed::<Pod>().is_some_and(|pod| {
            phase(pod) == "Running"
                && pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()) == Some(host)
        })
    });
    let pod = pod.ok_or_else(refused)?;
    Ok(vec![Endpoint { pod: pod.key().clone(), address: host.to_owned(), port }])
}

/// The Service that a host names: `web`, `web.shop`, `web.shop.svc`, `web.shop.svc.cluster.local`, or an
/// address.
fn service(directory: &dyn Directory, namespace: &str, host: &str) -> Option<Arc<Object>> {
    let kind = Kind::of::<Service>();
    if host.parse::<std::net::IpAddr>().is_ok() {
        return directory.objects(kind, "").into_iter().find(|object| {
            let service = object.typed::<Service>();
            let address = service.and_then(|it| it.spec.as_ref()?.cluster_ip.as_deref());
            address == Some(host)
        });
    }
    let parts: Vec<&str> = host.split('.').collect();
    let key = match parts.as_slice() {
        [name] => ObjectKey::namespaced(namespace, name),
        [name, namespace]
        | [name, namespace, "svc"]
        | [name, namespace, "svc", "cluster", "local"] => ObjectKey::namespaced(namespace, name),
        _ => return None,
    };
    directory.object(kind, &key)
}

/// The ready endpoints behind a port of a Service.
fn behind(directory: &dyn Directory, object: &Object, port: u16) -> Vec<Endpoint> {
    let Some(spec) = object.typed::<Service>().and_then(|service| service.spec.as_ref()) else {
        return Vec::new();
    };
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    let of = spec.ports.iter().flatten().find(|of| {
        of.port == i32::from(port) && of.protocol.as_deref().is_none_or(|it| it == "TCP")
    });
    // Without an address of its own its name leads to the pods themselves, at whatever port.
    if of.is_none() && !is_headless {
        return Vec::new();
    }
    let name = of.and_then(|of| of.name.as_deref()).unwrap_or_default();
    let key = object.key();
    let slices = directory.objects(Kind::of::<EndpointSlice>(), &key.namespace);
    let mut found = Vec::new();
    for slice in slices.iter().filter(|slice| {
        slice.header().label("kubernetes.io/service-name") == Some(key.name.as_str())
    }) {
        let Some(slice) = slice.typed::<EndpointSlice>() else { continue };
        let target = slice
            .ports
            .iter()
            .flatten()
            .find(|of| of.name.as_deref().unwrap_or_default() == name)
            .and_then(|of| u16::try_from(of.port?).ok());
        let Some(target) = (if is_headless { Some(port) } else { target }) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true);
            let pod = endpoint.target_ref.as_ref().and_then(|of| of.name.as_deref());
            if let (true, Some(pod), Some(address)) = (ready, pod, endpoint.addresses.first()) {
                found.push(Endpoint {
                    pod: ObjectKey::namespaced(&key.namespace, pod),
                    address: address.clone(),
                    port: target,
                });
            }
        }
    }
    found.sort_by(|a, b| a.address.cmp(&b.address).then_with(|| a.pod.cmp(&b.pod)));
    found
}

/// The number of a port that a pod may know by name.
pub fn port_of(pod: &Pod, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(|of| of.name.as_ref() == Some(name))?.container_port
        }
    };
    u16::try_from(number).ok()
}

/// Whether a pod would pass a health check of a load balancer: it is ready, and answers as it should.
pub fn passes_check(pod: &Pod, port: u16, path: &str) -> bool {
    ready_since(pod).is_some()
        && answer(pod, &Request::get("", port, path)).is_some_and(|it| it.status == 200)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wharf_model::kinds::Resource;
    use wharf_ports::cluster::Change;

    use super::*;

    fn pod(name: &str, image: &str, ports: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image, "ports": ports}]},
            "status": {"phase": "Running", "podIP": "10.0.0.6",
                "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn said(image: &str, ports: Value, request: &Request) -> Option<Response> {
        let pod: Pod = serde_json::from_value(pod("web-1", image, ports)).expect("a pod");
        answer(&pod, request)
    }

    #[test]
    fn pages_are_told_by_their_titles_and_name_the_pod() {
        let root = Request::get("web", 80, "/");
        for (image, title) in [
            ("nginx:latest", "<title>Welcome to nginx!</title>"),
            ("public.ecr.aws/l6m2t8p7/docker-2048:latest", "<title>2048</title>"),
        ] {
            let answer = said(image, json!([{"containerPort": 80}]), &root).expect("it answers");
            assert_eq!(answer.status, 200);
            assert!(answer.body.contains(title) && answer.body.contains("web-1"), "{image}");
        }
        let other = said("example.com/api:1", json!([{"containerPort": 80}]), &root);
        assert_eq!(other.expect("it answers").body, "pod web-1 answers /\n");
        let missing = said("nginx", json!(null), &Request::get("web", 80, "/x?y=1"));
        let missing = missing.expect("it answers");
        assert_eq!((missing.status, missing.reason()), (404, "Not Found"));
        assert!(missing.body.contains("<title>404 Not Found</title>"));
    }

    #[test]
    fn nothing_answers_where_nothing_listens() {
        let ports = json!([{"containerPort": 80}]);
        assert_eq!(said("nginx", ports, &Request::get("web", 81, "/")), None);
        assert_eq!(said("busybox", json!(null), &Request::get("web", 80, "/")), None);
        let mut waiting: Pod =
            serde_json::from_value(pod("a", "nginx", json!(null))).expect("a pod");
        waiting.status.get_or_insert_default().phase = Some("Pending".to_owned());
        assert_eq!(answer(&waiting, &Request::get("web", 80, "/")), None);
    }

    fn add<T: Resource>(view: &mut View, value: Value) {
        let object: T = serde_json::from_value(value).expect("it decodes");
        let revision = view.revision() + 1;
        let new = Arc::new(Object::from_typed(Box::new(object), revision));
        view.apply(&Change { revision, old: None, new: Some(new) });
    }

    #[test]
    fn services_are_found_by_every_name_they_have() {
        let mut view = View::new();
        add::<Pod>(&mut view, pod("web-1", "nginx", json!([{"containerPort": 8080}])));
        add::<Service>(
            &mut view,
            json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "10.100.0.7", "ports": [{"port": 80}]}}),
        );
        add::<EndpointSlice>(
            &mut view,
            json!({
            "metadata": {"name": "web-abcde", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.0.0.6"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "web-1"}},
                {"addresses": ["10.0.0.8"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "web-2"}}]}),
        );
        let pod = Endpoint {
            pod: ObjectKey::namespaced("shop", "web-1"),
            address: "10.0.0.6".to_owned(),
            port: 8080,
        };
        for host in ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local.", "10.100.0.7"]
        {
            assert_eq!(resolve(&view, "shop", host, 80), Ok(vec![pod.clone()]), "{host}");
        }
        assert_eq!(resolve(&view, "shop", "10.0.0.6", 8080), Ok(vec![pod]));
        let error = resolve(&view, "other", "web", 80).expect_err("of another namespace");
        assert_eq!(error.to_string(), "Could not resolve host: web");
        let error = resolve(&view, "shop", "web", 81).expect_err("no such port");
        assert_eq!(error.to_string(), "Failed to connect to web port 81");
        assert!(resolve(&view, "shop", "10.0.0.9", 80).is_err());
    }
}
