//! The 2048 lab by hand, with a real kubectl: an Ingress, its load balancer, and the pods behind it, which
//! answer over HTTP by turns.

mod harness;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{Kubectl, Options, Wharf, repository, wait_for};

fn lab(file: &str) -> String {
    repository().join("labs/fargate-serverless").join(file).display().to_string()
}

/// Status code and body of a page, asked for at `address` as `target`.
fn page(address: &str, target: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .expect("it is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, text.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}

fn running(kubectl: &Kubectl, namespace: &str, count: usize) {
    wait_for("all pods to run", || {
        let pods = kubectl.items(&format!("get pods -n {namespace}"));
        let up = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        if pods.len() == count && up == count { Ok(()) } else { Err(format!("{up} of {count}")) }
    });
}

fn targets(wharf: &Wharf, expected: &str) {
    wait_for("the targets", || {
        let list = wharf.wharf(&["lb", "list"]).ok();
        let is_there = list.lines().nth(1).is_some_and(|line| {
            line.contains(" active ")
                && line.contains(&format!(" {expected} "))
                && line.contains(" 127.")
        });
        if is_there { Ok(()) } else { Err(list) }
    });
}

#[test]
fn the_game_answers_behind_its_load_balancer() {
    let wharf = Wharf::start(&Options {
        arguments: vec!["--config".to_owned(), lab("cluster.yaml")],
        ..Options::default()
    });
    let kubectl = wharf.kubectl();
    let classes = kubectl.ok("get ingressclass --no-headers");
    assert!(classes.contains("ingress.k8s.aws/alb"), "{classes}");
    assert!(classes.contains("IngressClassParams.elbv2.k8s.aws/alb"), "{classes}");
    running(&kubectl, "kube-system", 5);
    let system = kubectl.ok("get svc,ep,pdb -n kube-system");
    for name in [
        "service/aws-load-balancer-webhook-service",
        "endpoints/kube-dns",
        "poddisruptionbudget.policy/aws-load-balancer-controller",
    ] {
        assert!(system.contains(name), "{name}\n{system}");
    }
    let api = kubectl.ok("get ep kubernetes --no-headers");
    assert!(api.contains("10.10.0.4:443,10.10.16.4:443"), "{api}");

    kubectl.ok("create namespace study-aews");
    kubectl.ok(&format!("apply -f {}", lab("game-2048.yaml")));
    running(&kubectl, "study-aews", 2);
    let host = wait_for("the hostname", || {
        let host = kubectl.ok("get ingress -n study-aews ingress-2048 -o jsonpath={.status.loadBalancer.ingress[0].hostname}");
        if host.is_empty() { Err("none yet".to_owned()) } else { Ok(host) }
    });
    assert!(host.starts_with("k8s-studyaew-ingress2-"), "{host}");
    assert!(host.ends_with(".ap-northeast-2.elb.amazonaws.com"), "{host}");
    targets(&wharf, "2/2");

    let all = kubectl.ok("get ingress,svc,ep,pod -n study-aews");
    assert!(
        all.contains(
            "ingress.networking.k8s.io/ingress-2048   alb     *       k8s-studyaew-ingress2-"
        ),
        "{all}"
    );
    let endpoints =
        kubectl.ok("get ep -n study-aews service-2048 -o jsonpath={.subsets[0].addresses[*].ip}");
    assert_eq!(endpoints.split(' ').count(), 2, "{endpoints}");
    let slices = kubectl.ok("get endpointslices -n study-aews");
    assert!(slices.starts_with("NAME ") && slices.contains("service-2048-"), "{slices}");
    let bindings = kubectl.ok("get targetgroupbindings -n study-aews");
    let rows: Vec<Vec<&str>> =
        bindings.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "SERVICE-NAME", "SERVICE-PORT", "TARGET-TYPE", "AGE"]);
    assert!(rows[1][0].starts_with("k8s-studyaew-service2-"), "{bindings}");
    assert_eq!(rows[1][1..4], ["service-2048", "80", "ip"], "{bindings}");
    let described = kubectl.ok("describe ingress -n study-aews ingress-2048");
    assert!(
        described.contains("SuccessfullyReconciled")
            && described.contains("Successfully reconciled"),
        "{described}"
    );
    assert!(described.contains("service-2048:80 (10.10."), "{described}");

    // By the proxy, under its own name.
    let proxy = wharf.wharf(&["lb", "proxy"]).ok();
    let proxy = proxy.trim().trim_start_matches("http://").to_owned();
    let answering = |count: usize| {
        let mut pods = BTreeSet::new();
        for _ in 0..count {
            let (code, body) = page(&proxy, &format!("http://{host}/"), &host);
            assert_eq!(code, 200, "{body}");
            assert!(body.contains("<title>2048</title>"), "{body}");
            pods.extend(body.lines().find(|line| line.contains("pod ")).map(str::to_owned));
        }
        pods.len()
    };
    assert_eq!(answering(2), 2, "by turns");
    // At its own address.
    let list = wharf.wharf(&["lb", "list"]).ok();
    let address =
        list.lines().nth(1).and_then(|line| line.split_whitespace().nth(4)).expect("an address");
    assert_eq!(page(address, "/", &host).0, 200);
    assert_eq!(page(&proxy, "http://nobody.example/", "nobody.example").0, 502);
    assert_eq!(page(&proxy, "http://service-2048.study-aews/", "service-2048").0, 200);

    kubectl.ok("scale deployment -n study-aews deployment-2048 --replicas 4");
    targets(&wharf, "4/4");
    assert_eq!(answering(4), 4);

    kubectl.ok("delete ingress -n study-aews ingress-2048");
    wait_for("all to go", || {
        let list = wharf.wharf(&["lb", "list"]).ok();
        let bindings = kubectl.items("get targetgroupbindings -n study-aews");
        if list.lines().count() == 1 && bindings.is_empty() { Ok(()) } else { Err(list) }
    });
    assert_eq!(page(&proxy, &format!("http://{host}/"), &host).0, 502, "nobody has the name");
    let cost = wharf.wharf(&["lb", "list", "-o", "json"]).ok();
    assert_eq!(cost.trim(), "[]");
}
