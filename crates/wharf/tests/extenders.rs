//! A scheduler that asks an extender over HTTP: it refuses a node, prefers another, and binds.

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use harness::{Kubectl, Options, Wharf, run, wait_for, wharf_binary};
use serde_json::{Value, json};

/// An extender that leaves over all nodes but `a`, likes `c` best, and leaves binding to who
/// receives what it was asked.
fn extender() -> (u16, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    let (sender, bindings) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (path, asked) = request(&mut stream).expect("a request");
            let answer = match path.as_str() {
                "/x/filter" => {
                    let nodes = asked["Nodes"]["items"].as_array().expect("nodes").clone();
                    let kept: Vec<_> =
                        nodes.into_iter().filter(|node| node["metadata"]["name"] != "a").collect();
                    json!({"Nodes": {"items": kept}, "FailedNodes": {"a": "not this one"}})
                }
                "/x/prioritize" => json!([{"Host": "b", "Score": 0}, {"Host": "c", "Score": 10}]),
                _ => {
                    if sender.send(asked).is_err() {
                        return;
                    }
                    json!({"Error": ""})
                }
            };
            respond(&mut stream, &answer).expect("it is taken");
        }
    });
    (port, bindings)
}

/// Reads one request: its path and body.
fn request(stream: &mut impl Read) -> std::io::Result<(String, Value)> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    while line.trim_end() != "" {
        line.clear();
        stream.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((path, serde_json::from_slice(&body)?))
}

fn respond(stream: &mut impl Write, answer: &Value) -> std::io::Result<()> {
    let body = answer.to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes())?;
    stream.flush()
}

fn config(extender: &str) -> String {
    format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nleaderElection: {{leaderElect: false}}\nextenders: [{extender}]\n"
    )
}

fn create_node(kubectl: &Kubectl, name: &str) {
    let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n");
    kubectl.input("apply -f -", &node).ok();
    let status = r#"{"status":{"allocatable":{"cpu":"2","memory":"8Gi","pods":"110"}}}"#;
    kubectl
        .args(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", status])
        .ok();
    // No node-lifecycle controller runs here to take the taint of a new node away.
    let untainted = r#"{"spec":{"taints":null}}"#;
    kubectl.args(&["patch", "node", name, "--type=merge", "-p", untainted]).ok();
}

/// Has a pod scheduled with the extender's help.
fn schedule(kubectl: &Kubectl, bindings: &Receiver<Value>) {
    for name in ["a", "b", "c"] {
        create_node(kubectl, name);
    }
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i}]}\n";
    kubectl.input("apply -f -", pod).ok();
    let asked = bindings.recv_timeout(harness::PATIENCE).expect("the extender is asked to bind");
    assert_eq!((&asked["PodName"], &asked["Node"]), (&json!("p"), &json!("c")));
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": "p", "namespace": "default", "uid": asked["PodUID"]},
        "target": {"kind": "Node", "name": "c"}
    });
    let bind = "create --raw /api/v1/namespaces/default/pods/p/binding -f -";
    kubectl.input(bind, &binding.to_string()).ok();
    wait_for("the binding to be announced", || {
        let events = kubectl.ok("get events");
        let told = events.contains("Successfully assigned default/p to c");
        if told { Ok(()) } else { Err(events) }
    });
}

#[test]
fn a_lab_asks_its_extenders() {
    let (port, bindings) = extender();
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("s.yaml");
    let text = config(&format!(
        "{{urlPrefix: 'http://127.0.0.1:{port}/x', filterVerb: filter, prioritizeVerb: prioritize, weight: 5, bindVerb: bind}}"
    ));
    std::fs::write(&file, text).expect("it can be written");
    let file = file.display().to_string();
    let arguments = ["--controllers", "scheduler", "--scheduler-config", &file];
    let arguments = arguments.map(str::to_owned).to_vec();
    let wharf = Wharf::start(&Options { speed: 1, arguments, ..Options::default() });
    schedule(&wharf.kubectl(), &bindings);
}

#[test]
fn a_scheduler_beside_a_cluster_asks_them_too() {
    let (port, bindings) = extender();
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("s.yaml");
    let text = config(&format!(
        "{{urlPrefix: 'http://127.0.0.1:{port}/x/', filterVerb: filter, prioritizeVerb: prioritize, weight: 5, bindVerb: bind}}"
    ));
    std::fs::write(&file, text).expect("it can be written");
    let arguments = ["--controllers", "none"].map(str::to_owned).to_vec();
    let wharf = Wharf::start(&Options { speed: 1, arguments, ..Options::default() });
    let file = file.display().to_string();
    let beside = wharf.run_beside(&["--only", "scheduler", "--config", &file]);
    schedule(&wharf.kubectl(), &bindings);
    assert!(beside.stop("INT").success());
}

/// The API server stands in for an extender with a certificate: that it refuses to answer shows
/// that it was reached.
#[test]
fn they_are_asked_over_tls() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("s.yaml").display().to_string();
    let arguments = ["--controllers", "none"].map(str::to_owned).to_vec();
    let wharf = Wharf::start(&Options { speed: 1, arguments, ..Options::default() });
    let kubectl = wharf.kubectl();
    create_node(&kubectl, "a");
    let cluster = |field: &str| {
        kubectl.ok(&format!("config view --raw -o jsonpath={{.clusters[0].cluster.{field}}}"))
    };
    let (server, authority) = (cluster("server"), cluster("certificate-authority-data"));
    for (index, (tls, message)) in [
        (format!("tlsConfig: {{caData: {authority}}}"), "it answered 4"),
        ("tlsConfig: {insecure: true}".to_owned(), "it answered 4"),
        ("enableHTTPS: true".to_owned(), "it answered 4"),
        (
            format!("tlsConfig: {{caData: {authority}, serverName: elsewhere}}"),
            "invalid peer certificate",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let text = config(&format!("{{urlPrefix: '{server}/x', filterVerb: f, {tls}}}"));
        std::fs::write(&file, text).expect("it can be written");
        let beside = wharf.run_beside(&["--only", "scheduler", "--config", &file]);
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{index}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n"
        );
        kubectl.input("apply -f -", &pod).ok();
        wait_for("the error to be told", || {
            let pod = format!("get pod p{index} -o jsonpath={{.status.conditions[0].message}}");
            let told = kubectl.ok(&pod);
            if told.contains(message) { Ok(()) } else { Err(told) }
        });
        assert!(beside.stop("INT").success());
        kubectl.ok(&format!("delete pod p{index} --force --grace-period=0"));
    }
}

/// Certificates of an authority of its own, in PEM.
struct Certificates {
    authority: String,
    server: (CertificateDer<'static>, PrivateKeyDer<'static>),
    client: (String, String),
}

impl Certificates {
    fn new() -> Self {
        let key = || KeyPair::generate().expect("a key");
        let params = |name: &str| CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let mut authority = params("authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer_key = key();
        let pem = authority.self_signed(&issuer_key).expect("a certificate").pem();
        let issuer = Issuer::new(authority, issuer_key);
        let issue = |name: &str| {
            let key = key();
            (params(name).signed_by(&key, &issuer).expect("a certificate"), key)
        };
        let (server, server_key) = issue("127.0.0.1");
        let server_key = PrivatePkcs8KeyDer::from(server_key.serialize_der());
        let (client, client_key) = issue("scheduler");
        Self {
            authority: pem,
            server: (server.der().clone(), server_key.into()),
            client: (client.pem(), client_key.serialize_pem()),
        }
    }

    /// A server that talks only with those who show a certificate of this authority.
    fn server_config(&self) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes()).expect("PEM");
        roots.add(authority).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![self.server.0.clone()], self.server.1.clone_key())
            .expect("a certificate")
    }
}

/// An extender that leaves over node `b` alone for evictions, over TLS with client certificates.
/// What it is asked at `/x/slow` it answers a byte now and then, and never to the end.
fn secured(certificates: &Certificates) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    let config = Arc::new(certificates.server_config());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let stream = StreamOwned::new(connection, socket.expect("a connection"));
            // It ends with an error when the other side has had enough.
            std::thread::spawn(move || answer_secured(stream));
        }
    });
    port
}

fn answer_secured(mut stream: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    let (path, asked) = request(&mut stream)?;
    if path == "/x/slow" {
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ")?;
        loop {
            stream.write_all(b"x")?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let left = &asked["NodeNameToMetaVictims"]["b"];
    respond(&mut stream, &json!({"NodeNameToMetaVictims": {"b": left}}))
}

#[test]
fn they_are_shown_a_certificate_and_waited_for_no_longer_than_they_may() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let certificates = Certificates::new();
    std::fs::write(path("ca"), &certificates.authority).expect("it can be written");
    std::fs::write(path("cert"), &certificates.client.0).expect("it can be written");
    std::fs::write(path("key"), &certificates.client.1).expect("it can be written");
    let port = secured(&certificates);
    let arguments = ["--controllers", "none"].map(str::to_owned).to_vec();
    let wharf = Wharf::start(&Options { speed: 1, arguments, ..Options::default() });
    let kubectl = wharf.kubectl();
    let class = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: high}\nvalue: 1000\n";
    kubectl.input("apply -f -", class).ok();
    let pod = |name: &str, more: &str| {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{{more}, containers: [{{name: c, image: i, resources: {{requests: {{cpu: 2}}}}}}]}}\n"
        );
        kubectl.input("apply -f -", &pod).ok();
    };
    for name in ["a", "b"] {
        create_node(&kubectl, name);
        pod(&format!("on-{name}"), &format!("nodeName: {name}"));
    }
    let authority = format!("caFile: {}", path("ca"));
    let data = |text: &str| STANDARD.encode(text);
    let by_file = format!("{authority}, certFile: {}, keyFile: {}", path("cert"), path("key"));
    let by_data = format!(
        "{authority}, certData: {}, keyData: {}",
        data(&certificates.client.0),
        data(&certificates.client.1)
    );
    let refused = "0/2 nodes are available: 2 Insufficient cpu. preemption: ";
    for (index, (verb, tls, message)) in [
        ("preempt", &authority, format!("{refused}no answer from https://127.0.0.1:{port}/x/preempt: received fatal alert: CertificateRequired")),
        ("slow", &by_file, format!("{refused}no answer from https://127.0.0.1:{port}/x/slow: it takes longer than 300ms")),
        ("preempt", &by_data, "0/2 nodes are available: 2 Insufficient cpu.".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let extender = format!(
            "{{urlPrefix: 'https://127.0.0.1:{port}/x', preemptVerb: {verb}, nodeCacheCapable: true, httpTimeout: 300ms, tlsConfig: {{{tls}}}}}"
        );
        std::fs::write(path("s.yaml"), config(&extender)).expect("it can be written");
        let beside = wharf.run_beside(&["--only", "scheduler", "--config", &path("s.yaml")]);
        let name = format!("p{index}");
        pod(&name, "priorityClassName: high");
        wait_for("the pod to be told", || {
            let said = format!("get pod {name} -o jsonpath={{.status.conditions[0].message}}");
            let said = kubectl.ok(&said);
            if said == message { Ok(()) } else { Err(said) }
        });
        assert!(beside.stop("INT").success());
        if index < 2 {
            kubectl.ok(&format!("delete pod {name} --force --grace-period=0"));
        }
    }
    let leaving = "get pods -o jsonpath={.items[?(@.metadata.deletionTimestamp)].metadata.name}";
    assert_eq!(kubectl.ok(leaving), "on-b", "as the extender had it");
    assert_eq!(kubectl.ok("get pod p2 -o jsonpath={.status.nominatedNodeName}"), "b");
}

#[test]
fn what_an_extender_cannot_do_here_is_told_in_one_line() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("s.yaml").display().to_string();
    for (extender, message) in [
        (
            "{urlPrefix: 'https://e', preemptVerb: p, tlsConfig: {insecure: true, certData: aGk=}}",
            "certificate and its key go together",
        ),
        ("{urlPrefix: 'https://e', filterVerb: f}", "https needs caFile, caData or insecure"),
        (
            "{urlPrefix: 'https://e', filterVerb: f, tlsConfig: {caData: '***'}}",
            "tlsConfig.caData: ",
        ),
    ] {
        std::fs::write(&file, config(extender)).expect("it can be written");
        let mut command = Command::new(wharf_binary());
        command.args(["up", "--ephemeral", "--listen", "127.0.0.1:0", "--scheduler-config", &file]);
        let error = run(command).fails_with(2);
        assert!(error.contains(message) && error.trim_end().lines().count() == 1, "{error}");
    }
    std::fs::write(&file, config("{urlPrefix: 'http://e', filterVerb: f}")).expect("written");
    let mut command = Command::new(wharf_binary());
    command.args(["simulate", &harness::lab_file("scenario.yaml"), "--scheduler-config", &file]);
    let error = run(command).fails_with(2);
    assert!(error.contains("extenders are not available here: take http://e out"), "{error}");
}
