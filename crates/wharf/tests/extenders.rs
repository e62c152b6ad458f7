//! A scheduler that asks an extender over HTTP: it refuses a node, prefers another, and binds.

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

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
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut line = String::new();
            stream.read_line(&mut line).expect("a request");
            let verb = line.split(' ').nth(1).expect("a path").to_owned();
            let mut length = 0;
            while line.trim_end() != "" {
                line.clear();
                stream.read_line(&mut line).expect("a header");
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("the body");
            let asked: Value = serde_json::from_slice(&body).expect("JSON");
            let answer = match verb.as_str() {
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
            let body = answer.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let stream = stream.get_mut();
            stream.write_all((head + &body).as_bytes()).expect("it is taken");
        }
    });
    (port, bindings)
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

#[test]
fn what_an_extender_cannot_do_here_is_told_in_one_line() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let file = folder.path().join("s.yaml").display().to_string();
    for (extender, message) in [
        ("{urlPrefix: 'http://e', preemptVerb: p}", "take preemptVerb of http://e out"),
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
