//! The lab's load balancers answer over HTTP: each on a loopback address of its own, and all of them
//! behind one proxy, so that their names work in URLs though no DNS server knows them.
//!
//! An address is drawn from the load balancer's name in DNS. Ports below 1024 are not everybody's: where
//! a listener's own port cannot be had, a free one is taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wharf_model::balancing::{
    ACTIVE, DELETED, DRAINING, HEALTHY, LoadBalancer, Target, TargetGroup, TargetGroupBinding,
    route,
};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::random::fnv1a;
use wharf_node::http::{self, Directory, Request, Response};
use wharf_store::{Store, Visibility};

use crate::failure::Failure;

/// How long changes are collected before listeners follow them.
const SETTLE: Duration = Duration::from_millis(200);
/// The longest head of a request.
const HEAD_BYTES_MAX: u64 = 16 << 10;
/// The longest body of a request; it is read and forgotten.
const BODY_BYTES_MAX: u64 = 1 << 20;
/// How long a connection may be silent: an Application Load Balancer's idle timeout.
const IDLE: Duration = Duration::from_mins(1);
/// What load balancers call themselves.
const SERVER: &str = "awselb/2.0";

/// The load balancers of a lab.
pub(crate) struct Balancers {
    store: Store,
    proxy: SocketAddr,
    /// Where listeners are served, by name in DNS and port.
    bound: Mutex<BTreeMap<(String, i32), SocketAddr>>,
    /// Whose turn it is in each target group.
    turns: Mutex<BTreeMap<String, usize>>,
}

impl Balancers {
    /// Serves the load balancers that there are and will be, until told to stop.
    pub(crate) async fn start(
        store: Store,
        stop: watch::Receiver<bool>,
    ) -> Result<Arc<Self>, Failure> {
        let failed = |error| {
            Failure::failed(format!("cannot listen for the proxy of load balancers: {error}"))
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let proxy = listener.local_addr().map_err(failed)?;
        let (bound, turns) = Default::default();
        let balancers = Arc::new(Self { store, proxy, bound, turns });
        tokio::spawn(accept(Arc::clone(&balancers), listener, None, stop.clone()));
        tokio::spawn(follow(Arc::clone(&balancers), stop));
        Ok(balancers)
    }

    /// What `wharf lb` tells.
    pub(crate) fn told(&self) -> Value {
        let bound = self.bound.lock().clone();
        let items: Vec<Value> = self
            .all()
            .iter()
            .filter_map(|object| object.typed::<LoadBalancer>())
            .filter(|balancer| balancer.status.state != DELETED)
            .map(|balancer| {
                let host = &balancer.spec.dns_name;
                let addresses: Vec<String> = bound
                    .iter()
                    .filter(|((name, _), _)| name == host)
                    .map(|(_, address)| address.to_string())
                    .collect();
                let (healthy, all) = self.targets_of(balancer);
                json!({
                    "name": balancer.spec.name, "hostname": host, "type": balancer.spec.type_,
                    "scheme": balancer.spec.scheme, "state": balancer.status.state,
                    "addresses": addresses, "targetsHealthy": healthy, "targets": all,
                })
            })
            .collect();
        json!({"proxy": format!("http://{}", self.proxy), "items": items})
    }

    fn all(&self) -> Vec<Arc<Object>> {
        self.store.list(Kind::of::<LoadBalancer>(), None).0
    }

    /// How many targets are healthy, and how many there are.
    fn targets_of(&self, balancer: &LoadBalancer) -> (usize, usize) {
        let rules = balancer.spec.listeners.iter().flat_map(|listener| &listener.rules);
        let names: std::collections::BTreeSet<&String> =
            rules.filter_map(|rule| rule.target_group.as_ref()).collect();
        let (mut healthy, mut all) = (0, 0);
        for name in names {
            let group = self.store.get(Kind::of::<TargetGroup>(), &ObjectKey::cluster(name));
            let Some(group) = group.as_ref().and_then(|it| it.typed::<TargetGroup>()) else {
                continue;
            };
            let targets = group.status.targets.iter().filter(|target| target.state != DRAINING);
            for target in targets {
                all += 1;
                healthy += usize::from(target.state == HEALTHY);
            }
        }
        (healthy, all)
    }

    /// Answers a request that was sent to a load balancer, or through the proxy to any host.
    fn answer(&self, request: &Incoming, through: Option<&(String, i32)>) -> Response {
        if let Some((host, port)) = through {
            return self.balanced(host, *port, request);
        }
        let (host, port) = (request.host(), request.port());
        let is_ours = self.all().iter().any(|object| {
            object.typed::<LoadBalancer>().is_some_and(|it| {
                it.spec.dns_name.eq_ignore_ascii_case(host) && it.status.state == ACTIVE
            })
        });
        if is_ours {
            return self.balanced(host, i32::from(port), request);
        }
        let directory = Stored(&self.store);
        match http::resolve(&directory, "default", host, port) {
            Ok(found) => {
                let turn = self.turn(host, found.len());
                self.of_pod(&found[turn].pod, found[turn].port, request)
            }
            Err(error) => plain(502, format!("{error}\n")),
        }
    }

    fn balanced(&self, host: &str, port: i32, request: &Incoming) -> Response {
        let all = self.all();
        let balancer = all
            .iter()
            .filter_map(|object| object.typed::<LoadBalancer>())
            .find(|it| it.spec.dns_name.eq_ignore_ascii_case(host) && it.status.state == ACTIVE);
        let listener = balancer.and_then(|it| it.spec.listeners.iter().find(|it| it.port == port));
        let Some(listener) = listener else {
            return plain(502, format!("Failed to connect to {host} port {port}\n"));
        };
        let path = request.path.split('?').next().unwrap_or_default();
        let Some(rule) = route::rule(listener, request.host(), path) else { return error(404) };
        match (&rule.target_group, rule.fixed_response) {
            (Some(group), _) => self.of_group(group, request),
            (None, Some(503)) => plain(503, "Backend service does not exist".to_owned()),
            (None, code) => plain(code.unwrap_or(404), String::new()),
        }
    }

    fn of_group(&self, name: &str, request: &Incoming) -> Response {
        let group = self.store.get(Kind::of::<TargetGroup>(), &ObjectKey::cluster(name));
        let Some(group) = group.as_ref().and_then(|it| it.typed::<TargetGroup>()) else {
            return error(503);
        };
        let healthy: Vec<&Target> =
            group.status.targets.iter().filter(|target| target.state == HEALTHY).collect();
        if healthy.is_empty() {
            return error(503);
        }
        let target = healthy[self.turn(name, healthy.len())];
        if let Some((namespace, pod)) = target.pod.as_deref().and_then(|pod| pod.split_once('/')) {
            let port = u16::try_from(target.port).unwrap_or_default();
            return self.of_pod(&ObjectKey::namespaced(namespace, pod), port, request);
        }
        // A machine: from there it goes to any pod of the Service.
        let (bindings, _) = self.store.list(Kind::of::<TargetGroupBinding>(), None);
        let binding = bindings
            .iter()
            .filter_map(|it| it.typed::<TargetGroupBinding>())
            .find(|it| it.spec.target_group_arn.as_ref() == Some(&group.spec.arn));
        let Some(binding) = binding else { return error(502) };
        let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
        let service = &binding.spec.service_ref;
        let port = service.port.as_ref().and_then(|port| http::port_of(&Pod::default(), port));
        let found =
            http::resolve(&Stored(&self.store), namespace, &service.name, port.unwrap_or(80));
        match found {
            Ok(found) => {
                let turn = self.turn(&service.name, found.len());
                self.of_pod(&found[turn].pod, found[turn].port, request)
            }
            Err(_) => error(502),
        }
    }

    fn of_pod(&self, pod: &ObjectKey, port: u16, request: &Incoming) -> Response {
        let object = self.store.get(Kind::of::<Pod>(), pod);
        let request = Request {
            method: request.method.clone(),
            path: request.path.clone(),
            host: request.host().to_owned(),
            port,
        };
        let pod = object.as_ref().and_then(|object| object.typed::<Pod>());
        pod.and_then(|pod| http::answer(pod, &request)).unwrap_or_else(|| error(502))
    }

    /// Whose turn it is among so many.
    fn turn(&self, name: &str, count: usize) -> usize {
        let mut turns = self.turns.lock();
        let turn = turns.entry(name.to_owned()).or_default();
        *turn = turn.wrapping_add(1);
        turn.wrapping_sub(1) % count.max(1)
    }
}

/// Names are looked up in what is stored.
struct Stored<'s>(&'s Store);

impl Directory for Stored<'_> {
    fn object(&self, kind: Kind, key: &ObjectKey) -> Option<Arc<Object>> {
        self.0.get(kind, key)
    }

    fn objects(&self, kind: Kind, namespace: &str) -> Vec<Arc<Object>> {
        self.0.list(kind, Some(namespace).filter(|namespace| !namespace.is_empty())).0
    }
}

/// An error of the load balancer's own.
fn error(status: u16) -> Response {
    Response { server: SERVER.to_owned(), ..http::error_page(status, "") }
}

fn plain(status: u16, body: String) -> Response {
    let (server, content_type) = (SERVER.to_owned(), "text/plain; charset=utf-8".to_owned());
    Response { status, server, content_type, body }
}

/// Opens and closes listeners as load balancers come and go.
async fn follow(balancers: Arc<Balancers>, mut stop: watch::Receiver<bool>) {
    let kind = Kind::of::<LoadBalancer>();
    let mut serving: BTreeMap<(String, i32), JoinHandle<()>> = BTreeMap::new();
    loop {
        let revision = balancers.store.revision();
        sync(&balancers, &mut serving, &stop).await;
        let Ok(mut changes) = balancers.store.watch(Some(kind), revision, Visibility::Sequenced)
        else {
            continue;
        };
        let mut found = Vec::new();
        while found.is_empty() {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = stopped(&mut stop) => return,
            }
            tokio::time::sleep(SETTLE).await;
            if changes.drain(&mut found).is_err() {
                break;
            }
        }
    }
}

async fn sync(
    balancers: &Arc<Balancers>,
    serving: &mut BTreeMap<(String, i32), JoinHandle<()>>,
    stop: &watch::Receiver<bool>,
) {
    let mut wanted = std::collections::BTreeSet::new();
    for object in balancers.all() {
        let Some(balancer) = object.typed::<LoadBalancer>() else { continue };
        if balancer.status.state != ACTIVE {
            continue;
        }
        // TLS would need a certificate that nobody trusts; packets of UDP have no answer.
        let served = balancer
            .spec
            .listeners
            .iter()
            .filter(|listener| ["HTTP", "TCP"].contains(&listener.protocol.as_str()));
        wanted.extend(served.map(|listener| (balancer.spec.dns_name.clone(), listener.port)));
    }
    serving.retain(|key, task| {
        let is_wanted = wanted.contains(key);
        if !is_wanted {
            task.abort();
            balancers.bound.lock().remove(key);
        }
        is_wanted
    });
    for key in wanted {
        if serving.contains_key(&key) {
            continue;
        }
        let Some((listener, address)) = bind(&key).await else { continue };
        balancers.bound.lock().insert(key.clone(), address);
        let task = accept(Arc::clone(balancers), listener, Some(key.clone()), stop.clone());
        serving.insert(key, tokio::spawn(task));
    }
}

/// A socket for a listener: at its own port of its own address, else at a free port.
async fn bind((host, port): &(String, i32)) -> Option<(TcpListener, SocketAddr)> {
    let own = address_of(host);
    let port = u16::try_from(*port).unwrap_or_default();
    for (ip, port) in [(own, port), (own, 0), (Ipv4Addr::LOCALHOST, 0)] {
        if let Ok(listener) = TcpListener::bind((IpAddr::V4(ip), port)).await
            && let Ok(address) = listener.local_addr()
        {
            return Some((listener, address));
        }
    }
    None
}

/// The loopback address of a load balancer. 127.0 is left to others.
fn address_of(host: &str) -> Ipv4Addr {
    let [_, _, _, _, _, a, b, c] = fnv1a(host.as_bytes()).to_be_bytes();
    Ipv4Addr::new(127, a.clamp(1, 254), b, c.clamp(1, 254))
}

async fn accept(
    balancers: Arc<Balancers>,
    listener: TcpListener,
    through: Option<(String, i32)>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (balancers, through) = (Arc::clone(&balancers), through.clone());
                    tokio::spawn(async move {
                        // A client that hangs up has nothing to be told.
                        let _ = tokio::time::timeout(IDLE * 10, talk(&balancers, stream, through.as_ref())).await;
                    });
                }
                Err(_) => tokio::time::sleep(SETTLE).await,
            },
            () = stopped(&mut stop) => return,
        }
    }
}

/// Waits until the lab stops, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A request as it came in.
struct Incoming {
    method: String,
    /// With its query, without scheme and host.
    path: String,
    /// Host and port as they were asked for.
    authority: String,
    keeps: bool,
    body_bytes: u64,
}

impl Incoming {
    fn host(&self) -> &str {
        self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host)
    }

    fn port(&self) -> u16 {
        let port = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.unwrap_or(80)
    }
}

/// Answers the requests of a connection.
async fn talk(
    balancers: &Balancers,
    stream: TcpStream,
    through: Option<&(String, i32)>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let read = tokio::time::timeout(IDLE, head(&mut stream)).await;
        let Ok(Some(head)) = read.map_err(|_| std::io::ErrorKind::TimedOut)? else {
            return Ok(());
        };
        let Some(request) = parse(&head) else {
            return send(&mut stream, &error(400), false, false).await;
        };
        if request.body_bytes > BODY_BYTES_MAX {
            return send(&mut stream, &plain(413, String::new()), false, false).await;
        }
        let mut body = (&mut stream).take(request.body_bytes);
        tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
        let response = if request.method == "CONNECT" {
            plain(501, "load balancers here answer over HTTP, not HTTPS\n".to_owned())
        } else {
            balancers.answer(&request, through)
        };
        send(&mut stream, &response, request.method == "HEAD", request.keeps).await?;
        if !request.keeps {
            return Ok(());
        }
    }
}

/// The head of the next request; `None` when the client is done.
async fn head(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    let mut limited = stream.take(HEAD_BYTES_MAX);
    loop {
        let before = head.len();
        if limited.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
        if matches!(&head[before..], "\r\n" | "\n") && before > 0 {
            return Ok(Some(head));
        }
    }
}

fn parse(head: &str) -> Option<Incoming> {
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target, version) = (first.next()?, first.next()?, first.next()?);
    let mut incoming = Incoming {
        method: method.to_owned(),
        path: target.to_owned(),
        authority: String::new(),
        keeps: version == "HTTP/1.1",
        body_bytes: 0,
    };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "host" => incoming.authority = value.to_owned(),
            "content-length" => incoming.body_bytes = value.parse().ok()?,
            "connection" if value.eq_ignore_ascii_case("close") => incoming.keeps = false,
            // Bodies in pieces are not read: what follows would be taken for a request.
            "transfer-encoding" => incoming.keeps = false,
            _ => {}
        }
    }
    // As clients ask a proxy.
    if let Some((_, rest)) = target.split_once("://") {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        incoming.authority = authority.to_owned();
        incoming.path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    }
    Some(incoming)
}

async fn send(
    stream: &mut BufReader<TcpStream>,
    response: &Response,
    is_head: bool,
    keeps: bool,
) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} {}\r\n", response.status, response.reason());
    if !response.server.is_empty() {
        text.push_str(&format!("Server: {}\r\n", response.server));
    }
    text.push_str(&format!(
        "Content-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n",
        response.content_type,
        response.body.len(),
        if keeps { "keep-alive" } else { "close" }
    ));
    if !is_head {
        text.push_str(&response.body);
    }
    stream.get_mut().write_all(text.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_in_both_forms() {
        let read =
            |text: &str| parse(text).map(|it| (it.host().to_owned(), it.port(), it.path, it.keeps));
        assert_eq!(
            read("GET /a?b HTTP/1.1\r\nHost: lb.example\r\n\r\n"),
            Some(("lb.example".to_owned(), 80, "/a?b".to_owned(), true))
        );
        assert_eq!(
            read("GET http://lb.example:8080 HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n"),
            Some(("lb.example".to_owned(), 8080, "/".to_owned(), false))
        );
        assert_eq!(read("GET /\r\n\r\n"), None);
        assert_eq!(read("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"), None);
    }

    #[test]
    fn addresses_are_loopback_and_apart() {
        let address = address_of("k8s-a.elb.amazonaws.com");
        assert!(address.is_loopback() && address.octets()[1] != 0);
        assert_ne!(address, address_of("k8s-b.elb.amazonaws.com"));
    }
}
