//! The Auto Mode lab by hand, with a real kubectl: an empty cluster, machines that come and go with the
//! pods under names of instances, pools that stay as EKS made them, and a fee.

mod harness;

use harness::{Kubectl, Options, Wharf, repository, wait_for};
use serde_json::Value;

fn lab(file: &str) -> String {
    repository().join("labs/auto-mode").join(file).display().to_string()
}

fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

/// How many pods run, and the cores of the nodes there are, in thousandths.
fn running(kubectl: &Kubectl) -> (usize, i64) {
    let pods = kubectl.items("get pods");
    let up = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
    let nodes = kubectl.items("get nodes");
    let cores = nodes.iter().filter_map(|node| {
        let cpu = node["status"]["allocatable"]["cpu"].as_str()?;
        match cpu.strip_suffix('m') {
            Some(thousandths) => thousandths.parse::<i64>().ok(),
            None => cpu.parse::<i64>().ok().map(|cores| cores * 1_000),
        }
    });
    (up, cores.sum())
}

fn scaled(kubectl: &Kubectl, replicas: usize) {
    kubectl.ok(&format!("scale deployment inflate --replicas {replicas}"));
    wait_for(&format!("{replicas} pods on machines of about that size"), || {
        let (up, cores) = running(kubectl);
        let wanted = i64::try_from(replicas).expect("small") * 1_000;
        if up == replicas && cores >= wanted && cores < wanted * 2 {
            return Ok(());
        }
        Err(format!("{up} of {replicas} run on {cores}m"))
    });
}

/// Reasons and texts of what Auto Mode told of objects of a kind.
fn told(kubectl: &Kubectl, kind: &str) -> Vec<(String, String)> {
    let events = kubectl.items("get events -A");
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .filter(|event| event["involvedObject"]["kind"] == kind)
        .filter(|event| event["source"]["component"] == "eks-auto-mode/compute")
        .map(|event| (text(event, "reason"), text(event, "message")))
        .collect()
}

#[test]
fn inflate_runs_on_machines_that_auto_mode_looks_after() {
    let wharf = Wharf::start(&Options {
        arguments: vec!["--config".to_owned(), lab("cluster.yaml")],
        ..Options::default()
    });
    let kubectl = wharf.kubectl();

    // An empty cluster: pools, and nothing that runs.
    assert_eq!(kubectl.ok("get node -o name"), "");
    assert_eq!(kubectl.ok("get pod -A -o name"), "");
    kubectl
        .ok("wait --for=condition=Ready nodepool/general-purpose nodeclass/default --timeout=60s");
    let pools = kubectl.ok("get nodepools");
    let pools = rows(&pools);
    assert_eq!(pools[0], ["NAME", "NODECLASS", "NODES", "READY", "AGE"]);
    assert_eq!(pools[1][..4], ["general-purpose", "default", "0", "True"]);
    assert_eq!(pools.len(), 2, "{pools:?}");
    let classes = kubectl.ok("get nodeclasses");
    let classes = rows(&classes);
    assert_eq!(classes[0], ["NAME", "ROLE", "READY", "AGE"]);
    assert_eq!((classes[1][0], classes[1][2]), ("default", "True"));
    let described = kubectl.ok("describe nodepool general-purpose");
    assert!(described.contains("karpenter.sh/nodepool-hash: 4012513481623584108"), "{described}");

    // One pod.
    kubectl.ok(&format!("apply -f {}", lab("inflate.yaml")));
    kubectl.ok("rollout status deployment/inflate --timeout=120s");
    let node = kubectl.items("get nodes").remove(0);
    let name = node["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("i-") && name.len() == 19, "{name}");
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["kubernetes.io/hostname"], name);
    assert_eq!(labels["eks.amazonaws.com/compute-type"], "auto");
    assert_eq!(labels["app.kubernetes.io/managed-by"], "eks");
    assert_eq!(labels["node.kubernetes.io/instance-type"], "c5a.large");
    assert_eq!(node["status"]["allocatable"]["cpu"], "1930m");
    let image = node["status"]["nodeInfo"]["osImage"].as_str().expect("an image");
    assert!(image.starts_with("Bottlerocket (EKS Auto, Standard) "), "{image}");
    let address = node["status"]["addresses"][0]["address"].as_str().expect("an address");
    assert!(address.starts_with("10.20."), "{address}");
    let claims = kubectl.ok("get nodeclaims");
    let claims = rows(&claims);
    assert_eq!(claims[0], ["NAME", "TYPE", "CAPACITY", "ZONE", "NODE", "READY", "AGE"]);
    assert!(claims[1][0].starts_with("general-purpose-"), "{claims:?}");
    assert_eq!(claims[1][1..3], ["c5a.large", "on-demand"]);
    assert_eq!(claims[1][4], name);
    let why = wharf.wharf(&["why", &format!("node/{name}")]).ok();
    assert!(why.contains("c5a.large in ap-northeast-2"), "{why}");
    assert!(why.contains("EKS Auto Mode takes $0.01032/h on top, $"), "{why}");
    wait_for("Auto Mode's events", || {
        let (claims, nodes) = (told(&kubectl, "NodeClaim"), told(&kubectl, "Node"));
        let has = |events: &[(String, String)], reason: &str| events.iter().any(|e| e.0 == reason);
        let missing: Vec<&str> = ["Launched", "Registered", "Initialized", "Ready"]
            .into_iter()
            .filter(|reason| !has(&claims, reason))
            .collect();
        if missing.is_empty() && has(&nodes, "Ready") {
            Ok(())
        } else {
            Err(format!("{missing:?}"))
        }
    });
    let pods = told(&kubectl, "Pod");
    assert!(
        pods.iter().any(|(reason, text)| {
            reason == "Nominated"
                && text.starts_with("Pod should schedule on: nodeclaim/general-purpose-")
        }),
        "{pods:?}"
    );

    // A hundred, two hundred, fifty.
    for replicas in [100, 200, 50] {
        scaled(&kubectl, replicas);
    }

    // What EKS made is put back, and what it does not allow is refused.
    kubectl.ok("patch nodepool general-purpose --type merge -p {\"spec\":{\"weight\":10}}");
    wait_for("the pool to be as it was", || {
        let weight = kubectl.ok("get nodepool general-purpose -o jsonpath={.spec.weight}");
        if weight.is_empty() { Ok(()) } else { Err(weight) }
    });
    let file = wharf.folder().join("pool.yaml");
    let pool = "apiVersion: karpenter.sh/v1\nkind: NodePool\nmetadata: {name: old}\nspec:\n  template:\n    spec:\n      expireAfter: 720h\n      requirements: []\n      nodeClassRef: {group: eks.amazonaws.com, kind: NodeClass, name: default}\n";
    std::fs::write(&file, pool).expect("the file is written");
    let refused = kubectl.run(&format!("apply -f {}", file.display())).fails_with(1);
    assert!(refused.contains("a node of EKS Auto Mode lives at most 21 days"), "{refused}");

    // All goes.
    kubectl.ok("delete deployment inflate");
    wait_for("the nodes to go", || {
        let nodes = kubectl.items("get nodes").len();
        if nodes == 0 { Ok(()) } else { Err(format!("{nodes} nodes")) }
    });
}
