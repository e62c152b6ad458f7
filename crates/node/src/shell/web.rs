//! Connections to the ports of pods: HTTP/1.1 without bodies of requests in mind. What is answered is
//! [`crate::http`]'s.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::http;
use crate::program::{image_name, program_of};

/// Longer heads of requests are refused.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longer bodies of requests are refused.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The container of a pod that listens at a port: the one that declares it, or whose image is known to.
pub fn listener(pod: &Pod, port: u16) -> Option<&Container> {
    let containers = &pod.spec.as_ref()?.containers;
    let listens = |container: &&Container| program_of(container).effort.listens;
    let declares = |container: &&Container| {
        let mut ports = container.ports.iter().flatten();
        ports.any(|declared| declared.container_port == i32::from(port))
    };
    let known = |container: &&Container| {
        default_port(image_name(container.image.as_deref().unwrap_or_default())) == Some(port)
    };
    let mut servers = containers.iter().filter(listens);
    servers.clone().find(declares).or_else(|| servers.find(known))
}

/// The first container of a pod that is a server.
pub(super) fn server(pod: &Pod) -> Option<&Container> {
    let mut containers = pod.spec.as_ref()?.containers.iter();
    containers.find(|container| program_of(container).effort.listens)
}

/// Where an image listens that declares nothing.
fn default_port(image: &str) -> Option<u16> {
    match image {
        "nginx" | "httpd" | "hpa-example" | "docker-2048" => Some(80),
        "kube-ops-view" => Some(8080),
        "coredns" => Some(9153),
        _ => None,
    }
}

/// One connection to a container's port.
#[derive(Clone, Debug)]
pub struct Connection {
    pod: Pod,
    container: Container,
    buffer: Vec<u8>,
    closed: bool,
}

impl Connection {
    /// A connection to a port of a pod; nothing if nobody listens there.
    pub fn open(pod: &Pod, port: u16) -> Option<Self> {
        let container = listener(pod, port)?.clone();
        Some(Self { pod: pod.clone(), container, buffer: Vec::new(), closed: false })
    }

    /// Takes what the client sends and answers every request that is whole. Returns whether the server
    /// has closed the connection.
    pub fn take(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> bool {
        self.buffer.extend_from_slice(bytes);
        while !self.closed {
            let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                self.closed = self.buffer.len() > HEAD_BYTES_MAX;
                break;
            };
            let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            let length = header(&head, "content-length").and_then(|text| text.parse().ok());
            let length: usize = length.unwrap_or(0);
            if length > BODY_BYTES_MAX {
                self.closed = true;
                break;
            }
            if self.buffer.len() < end + 4 + length {
                break;
            }
            self.buffer.drain(..end + 4 + length);
            self.answer(&head, answer);
        }
        self.closed
    }

    fn answer(&mut self, head: &str, answer: &mut Vec<u8>) {
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let known = method.is_some_and(|method| method.bytes().all(|b| b.is_ascii_uppercase()));
        let (Some(target), Some(version), true) = (target, version, known) else {
            answer.extend(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
            self.closed = true;
            return;
        };
        let page = http::page(&self.pod, &self.container, method.unwrap_or_default(), target);
        answer.extend(page.head().bytes());
        if method != Some("HEAD") {
            answer.extend(page.body.bytes());
        }
        let connection = header(head, "connection").unwrap_or_default();
        self.closed = connection.eq_ignore_ascii_case("close") || version == "HTTP/1.0";
    }
}

fn header<'h>(head: &'h str, wanted: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(image: &str, ports: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "image": image, "ports": ports}]}
        }))
        .expect("a pod")
    }

    fn ask(pod: &Pod, port: u16, request: &str) -> Option<(String, bool)> {
        let mut connection = Connection::open(pod, port)?;
        let (mut answer, mut closed) = (Vec::new(), false);
        for byte in request.bytes() {
            closed = connection.take(&[byte], &mut answer);
        }
        Some((String::from_utf8(answer).expect("text"), closed))
    }

    #[test]
    fn pages_by_image() {
        for (image, port, title) in [
            ("nginx:latest", 80, "<title>Welcome to nginx!</title>"),
            ("registry.k8s.io/hpa-example", 80, "OK!"),
            ("public.ecr.aws/l6m2t8p7/docker-2048:latest", 80, "<title>2048</title>"),
            ("example.com/shop:1", 8080, "pod p answers /"),
        ] {
            let pod = pod(image, json!([{"containerPort": 8080}]));
            let (answer, closed) =
                ask(&pod, port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("it listens");
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(title),
                "{answer}"
            );
            assert!(!closed);
        }
        assert!(ask(&pod("nginx", json!([])), 81, "").is_none());
        assert!(
            ask(&pod("registry.k8s.io/pause:3.9", json!([{"containerPort": 80}])), 80, "")
                .is_none()
        );
    }

    #[test]
    fn several_requests_on_one_connection() {
        let nginx = pod("nginx", json!([]));
        let (answer, closed) = ask(
            &nginx,
            80,
            "HEAD / HTTP/1.1\r\n\r\nPOST /x HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
        )
        .expect("it listens");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 3);
        assert_eq!(answer.matches("HTTP/1.1 405 Not Allowed\r\n").count(), 1);
        assert!(closed, "HTTP/1.0 has one request a connection");
        let (answer, closed) = ask(&nginx, 80, "hello\r\n\r\n").expect("it listens");
        assert!(answer.starts_with("HTTP/1.1 400") && closed);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut connection = Connection::open(&pod("nginx", json!([])), 80).expect("it listens");
            let mut answer = Vec::new();
            for piece in [&b"GET / HTTP/1.1\r\n"[..], &bytes, b"\r\n\r\n"] {
                connection.take(piece, &mut answer);
            }
        }
    }
}
