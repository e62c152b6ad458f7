//! The Fargate lab by hand, with a real kubectl: a cluster from eksctl's file, pods on machines of their
//! own, and one that is refused.

mod harness;

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Kubectl, Options, Wharf, repository, run, wait_for, wharf_binary};
use serde_json::{Value, json};

const REFUSAL: &str = "Pod not supported on Fargate: fields not supported: HostNetwork, HostPID, HostIPC, volumes not supported: hostroot is of an unsupported volume Type, invalid SecurityContext fields: Privileged";

fn lab(file: &str) -> String {
    repository().join("labs/fargate-serverless").join(file).display().to_string()
}

fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

fn running(kubectl: &Kubectl, namespace: &str, count: usize) -> Vec<Value> {
    wait_for("all pods to run", || {
        let pods = kubectl.items(&format!("get pods -n {namespace}"));
        let up = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        if pods.len() == count && up == count { Ok(pods) } else { Err(format!("{up} of {count}")) }
    })
}

#[test]
fn pods_of_the_lab_run_on_nodes_of_their_own() {
    let config = lab("cluster.yaml");
    let wharf = Wharf::start(&Options {
        arguments: vec!["--config".to_owned(), config],
        ..Options::default()
    });
    let kubectl = wharf.kubectl();

    // The profiles.
    let list = wharf.wharf(&["fargate", "profile", "list"]).ok();
    let listed = rows(&list);
    assert_eq!(
        listed[0],
        [
            "NAME",
            "SELECTOR_NAMESPACE",
            "SELECTOR_LABELS",
            "POD_EXECUTION_ROLE_ARN",
            "SUBNETS",
            "TAGS",
            "STATUS"
        ]
    );
    let subnets = "subnet-0fb7743ba258e0484,subnet-0e566d9ba1cf69706,subnet-07cd710d1aecc83c5";
    let tags = "Blueprint=fargate-serverless";
    assert_eq!(listed[1][..3], ["kube-system", "kube-system", "<none>"]);
    assert_eq!(listed[2][..3], ["study_wildcard", "study-*", "<none>"]);
    assert_eq!(listed[2][4..], [subnets, tags, "ACTIVE"], "{list}");
    let webhooks = wait_for("the webhook's configuration", || {
        let text = kubectl.ok("get mutatingwebhookconfigurations");
        if text.contains("0500-amazon-eks-fargate") { Ok(text) } else { Err(text) }
    });
    assert_eq!(rows(&webhooks)[0], ["NAME", "WEBHOOKS", "AGE"]);
    assert_eq!(rows(&webhooks)[1][..2], ["0500-amazon-eks-fargate-mutation.amazonaws.com", "2"]);

    // CoreDNS; no EC2 machine.
    let dns = wait_for("CoreDNS to run", || {
        let pods = kubectl.items("get pods -n kube-system -l k8s-app=kube-dns");
        let up = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        if up == 2 { Ok(pods) } else { Err(format!("{up} of 2")) }
    });
    for pod in &dns {
        assert_eq!(pod["spec"]["schedulerName"], "fargate-scheduler");
        assert_eq!(pod["metadata"]["annotations"]["CapacityProvisioned"], "0.25vCPU 0.5GB");
    }
    // With the load balancer controller's two.
    wait_for("four nodes", || {
        let nodes = kubectl.items("get nodes").len();
        if nodes == 4 { Ok(()) } else { Err(format!("{nodes} nodes")) }
    });
    let described = kubectl.ok("describe nodes");
    let lines = |text: &str| described.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("eks.amazonaws.com/compute-type=fargate:NoSchedule"), 4, "the taints");
    assert_eq!(lines("eks.amazonaws.com/compute-type=fargate"), 8, "and the labels");

    // Each node's kubelet has asked for a certificate, and has it.
    wait_for("the kubelets' certificates", || {
        let table = kubectl.ok("get csr");
        let header = ["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"];
        assert_eq!(rows(&table)[0], header);
        let issued = rows(&table).into_iter().filter(|row| {
            row[0].starts_with("csr-")
                && row[2] == "kubernetes.io/kubelet-serving"
                && row[3].starts_with("system:node:fargate-ip-10-10-")
                && row[4..] == ["<none>", "Approved,Issued"]
        });
        if issued.count() == 4 { Ok(()) } else { Err(table.clone()) }
    });

    look_into_kube_system(&kubectl);

    // netshoot.
    kubectl.ok("create namespace study-aews");
    kubectl.ok(&format!("apply -f {}", lab("netshoot.yaml")));
    let pod = running(&kubectl, "study-aews", 1).remove(0);
    assert_eq!(
        kubectl.ok(
            "get pod -n study-aews -o jsonpath={.items[0].metadata.annotations.CapacityProvisioned}"
        ),
        "0.5vCPU 1GB"
    );
    let spec = &pod["spec"];
    assert_eq!(spec["schedulerName"], "fargate-scheduler");
    assert_eq!(spec["priorityClassName"], "system-node-critical");
    assert_eq!(spec["priority"], 2_000_001_000);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"], "the node's address");
    assert_eq!(pod["metadata"]["labels"]["eks.amazonaws.com/fargate-profile"], "study_wildcard");
    let address = pod["status"]["podIP"].as_str().expect("an address").replace('.', "-");
    let node = format!("fargate-ip-{address}.ap-northeast-2.compute.internal");
    assert_eq!(spec["nodeName"], json!(node));
    let deployment = kubectl.json("get deploy -n study-aews netshoot");
    assert_eq!(deployment["spec"]["template"]["spec"]["schedulerName"], "default-scheduler");
    let events = kubectl.ok("describe pod -n study-aews -l app=netshoot");
    assert!(
        events.contains("fargate-scheduler  Successfully assigned study-aews/netshoot-"),
        "{events}"
    );
    assert!(events.contains("fargate-scheduler  Disabled logging because aws-logging configmap was not found. configmap \"aws-logging\" not found"), "{events}");
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let why = wharf.wharf(&["why", &format!("pod/{name}"), "-n", "study-aews"]).ok();
    assert!(why.contains("gets a micro-VM of 0.5vCPU 1GB"), "{why}");
    let machine = wharf.wharf(&["why", &format!("node/{node}")]).ok();
    assert!(machine.contains("$0.02839"), "{machine}");

    // root-shell.
    kubectl.ok(&format!("apply -f {}", lab("root-shell.yaml")));
    wait_for("root-shell to be refused", || {
        let text = kubectl.ok("describe pod -n study-aews root-shell");
        let told = text.contains(&format!("fargate-scheduler  {REFUSAL}"));
        if told { Ok(()) } else { Err(text) }
    });
    let row = kubectl.ok("get pod -n study-aews root-shell --no-headers");
    assert_eq!(rows(&row)[0][2], "Pending");
    let why = wharf.wharf(&["why", "pod/root-shell", "-n", "study-aews"]).ok();
    assert!(why.contains("Fargate takes it, by profile study_wildcard"), "{why}");
    kubectl.ok("delete pod -n study-aews root-shell");

    // sample-app, whose logs are collected, and all goes.
    kubectl.ok(&format!("apply -f {}", lab("logging.yaml")));
    kubectl.ok(&format!("apply -f {}", lab("sample-app.yaml")));
    let pods = running(&kubectl, "study-aews", 3);
    logs_arrive(&wharf, &kubectl);
    let mut nodes: Vec<&str> =
        pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!(nodes.len(), 3, "one each");

    // From within a pod.
    let within = |words: &[&str]| {
        let exec = ["exec", "deploy/netshoot", "-n", "study-aews", "--"];
        kubectl.args(&[&exec[..], words].concat()).ok()
    };
    let page = within(&["curl", "sample-app"]);
    assert_eq!(page.lines().filter(|line| line.contains("title")).count(), 1, "{page}");
    let resolver = within(&["cat", "/etc/resolv.conf"]);
    assert!(resolver.contains("search study-aews.svc.cluster.local "), "{resolver}");
    assert!(resolver.contains("nameserver 10.100.0.10\n"), "{resolver}");
    let own = pod["status"]["podIP"].as_str().expect("an address");
    let interfaces = within(&["ip", "-c", "a"]);
    assert!(interfaces.contains(&format!("inet {own}/20 scope global eth0")), "{interfaces}");
    assert!(within(&["curl", "-s", "ipinfo.io/ip"]).starts_with("203.0.113."));
    let other = pods.iter().find(|other| other["metadata"]["uid"] != pod["metadata"]["uid"]);
    let other = other.and_then(|other| other["status"]["podIP"].as_str()).expect("an address");
    assert!(within(&["ping", "-c", "1", other]).contains("0% packet loss"));
    kubectl.ok(&format!("delete -f {} -f {}", lab("netshoot.yaml"), lab("sample-app.yaml")));
    wait_for("the nodes to go", || {
        let nodes = kubectl.items("get nodes").len();
        if nodes == 4 { Ok(()) } else { Err(format!("{nodes} nodes")) }
    });
}

/// What sample-app prints is in the log group that the map names, and reads as `kubectl logs` does.
fn logs_arrive(wharf: &Wharf, kubectl: &Kubectl) {
    const GROUP: &str = "/fargate-serverless/fargate-fluentbit-logs";
    let told = kubectl.ok("get events -n study-aews --field-selector reason=LoggingEnabled");
    assert_eq!(told.matches("Successfully enabled logging for pod").count(), 2, "{told}");
    let printed = kubectl.ok("logs -n study-aews -l app=nginx --tail=-1");
    let printed: Vec<&str> = printed.lines().collect();
    assert!(!printed.is_empty(), "nginx says that it starts");
    let events = wait_for("all lines to arrive", || {
        let events = wharf.wharf(&["logs", GROUP]);
        let events = if events.code == Some(0) { events.ok() } else { String::new() };
        let count = events.lines().count();
        if count == printed.len() { Ok(events) } else { Err(format!("{count} lines")) }
    });
    assert!(events.contains(" fargate-logs-kube.var.log.containers.sample-app-"), "{events}");
    let groups = wharf.wharf(&["logs"]).ok();
    let named = |group: &str| rows(&groups).iter().filter(|row| row[0] == group).count();
    assert_eq!((named(GROUP), named("fargate-serverless-fluent-bit-logs")), (2, 2), "{groups}");
    let file = wharf.folder().join("events.json");
    wharf.wharf(&["logs", GROUP, "--export", &file.display().to_string()]).ok();
    let text = std::fs::read_to_string(&file).expect("it is written");
    let exported: Value = serde_json::from_str(&text).expect("JSON");
    let exported = exported["events"].as_array().expect("events");
    let said: Vec<Value> = exported
        .iter()
        .map(|event| serde_json::from_str(event["message"].as_str().expect("text")).expect("JSON"))
        .collect();
    for (record, event) in said.iter().zip(exported) {
        assert!(printed.contains(&record["log"].as_str().expect("a line")), "{record}");
        assert_eq!(record["kubernetes"]["labels"]["app"], "nginx");
        assert_eq!(record["kubernetes"]["namespace_name"], "study-aews");
        let (at, arrived) = (&event["timestamp"], &event["ingestionTime"]);
        assert_eq!(arrived.as_i64(), at.as_i64().map(|at| at + 1_000));
    }
    let none = wharf.wharf(&["logs", "/none"]).fails_with(2);
    assert!(none.contains("The specified log group does not exist: /none"), "{none}");
}

#[test]
fn certificates_are_given_to_those_who_are_approved() {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    let (key, pem) = certificate_request("jane", "team");
    for name in ["jane", "stranger"] {
        let file = wharf.folder().join(format!("{name}.json"));
        let request = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {"request": STANDARD.encode(&pem), "usages": ["client auth"],
                "signerName": "kubernetes.io/kube-apiserver-client", "expirationSeconds": 86_400},
        });
        std::fs::write(&file, request.to_string()).expect("it is written");
        kubectl.ok(&format!("apply -f {}", file.display()));
    }
    let row = |name: &str| kubectl.ok(&format!("get csr {name} --no-headers"));
    assert_eq!(
        rows(&row("jane"))[0][2..],
        ["kubernetes.io/kube-apiserver-client", "kubernetes-admin", "24h", "Pending"]
    );
    kubectl.ok("certificate approve jane");
    kubectl.ok("certificate deny stranger");
    assert_eq!(rows(&row("jane"))[0][5], "Approved,Issued");
    assert_eq!(rows(&row("stranger"))[0][5], "Denied");
    let certificate = kubectl.ok("get csr jane -o jsonpath={.status.certificate}");
    let certificate = STANDARD.decode(certificate).expect("base64");
    let path = |name: &str| wharf.folder().join(name).display().to_string();
    std::fs::write(path("jane.crt"), certificate).expect("it is written");
    std::fs::write(path("jane.key"), key).expect("it is written");
    kubectl.ok(&format!(
        "config set-credentials jane --client-certificate={} --client-key={} --embed-certs=true",
        path("jane.crt"),
        path("jane.key")
    ));
    let who = kubectl.ok("auth whoami --user=jane");
    assert!(who.contains("jane") && who.contains("[team system:authenticated]"), "{who}");
}

/// A key and a request for a certificate, PEM.
fn certificate_request(name: &str, organization: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    let request = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    (key.serialize_pem(), request)
}

#[test]
fn a_job_keeps_its_machine_until_it_is_deleted() {
    let wharf = Wharf::start(&Options {
        arguments: vec!["--config".to_owned(), lab("cluster.yaml")],
        ..Options::default()
    });
    let kubectl = wharf.kubectl();
    kubectl.ok("create namespace study-aews");
    kubectl.ok(&format!("apply -f {}", lab("jobs.yaml")));
    let node_of = |job: &str| {
        wait_for("the Job's pod to run", || {
            let pods = kubectl.items(&format!("get pods -n study-aews -l job-name={job}"));
            let node = pods.first().and_then(|pod| pod["spec"]["nodeName"].as_str());
            node.map(str::to_owned).ok_or_else(|| format!("{pods:?}"))
        })
    };
    let (first, second) = (node_of("busybox1"), node_of("busybox2"));
    assert_ne!(first, second, "one each");

    // busybox1 goes a minute after its end: with it its pod and its machine.
    wait_for("busybox1 to be gone", || {
        let left = kubectl.ok("get job,pod -n study-aews -l job-name=busybox1 --no-headers");
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
    wait_for("its node to go", || {
        let nodes = kubectl.ok("get nodes");
        if nodes.contains(&first) { Err(nodes) } else { Ok(()) }
    });

    // busybox2 stays.
    let table = wait_for("busybox2 to be complete", || {
        let table = kubectl.ok("get job -n study-aews busybox2");
        if table.contains("Complete") { Ok(table) } else { Err(table) }
    });
    let listed = rows(&table);
    assert_eq!(listed[0], ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]);
    assert_eq!(listed[1][..3], ["busybox2", "Complete", "1/1"]);
    let pod = kubectl.items("get pods -n study-aews -l job-name=busybox2").remove(0);
    assert_eq!(pod["status"]["phase"], "Succeeded");
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(0), &json!("Completed")));
    let row = kubectl.ok("get pod -n study-aews --no-headers");
    assert_eq!(rows(&row)[0][1..4], ["0/1", "Completed", "0"]);
    assert!(kubectl.ok("get nodes").contains(&second), "its machine is still there");
    let described = kubectl.ok("describe job -n study-aews busybox2");
    assert!(described.contains("Created pod: busybox2-"), "{described}");
    assert!(described.contains("job-controller  Job completed"), "{described}");

    kubectl.ok("delete job -n study-aews --all");
    wait_for("its node to go", || {
        let nodes = kubectl.items("get nodes").len();
        if nodes == 4 { Ok(()) } else { Err(format!("{nodes} nodes")) }
    });
    assert_eq!(kubectl.items("get pods -n study-aews").len(), 0);
}

/// What the seeds look at that EKS brings.
fn look_into_kube_system(kubectl: &Kubectl) {
    let maps = kubectl.ok("get cm -n kube-system -o name");
    for name in [
        "amazon-vpc-cni",
        "aws-auth",
        "coredns",
        "extension-apiserver-authentication",
        "kube-proxy",
        "kube-proxy-config",
    ] {
        assert!(maps.contains(&format!("configmap/{name}\n")), "{name} in {maps}");
    }
    let auth = kubectl.json("get cm -n kube-system aws-auth");
    let roles = auth["data"]["mapRoles"].as_str().expect("text");
    assert_eq!(roles.matches("system:node-proxier").count(), 2, "one for each profile: {roles}");
    let mutating = kubectl.ok("get mutatingwebhookconfigurations");
    for name in ["pod-identity-webhook", "vpc-resource-mutating-webhook"] {
        assert!(rows(&mutating).iter().any(|row| row[..2] == [name, "1"]), "{mutating}");
    }
    let validating = kubectl.ok("get validatingwebhookconfigurations.admissionregistration.k8s.io");
    assert_eq!(rows(&validating)[1][..2], ["vpc-resource-validating-webhook", "2"], "{validating}");
    kubectl.ok("describe validatingwebhookconfigurations vpc-resource-validating-webhook");
    let services = kubectl.ok("get apiservices.apiregistration.k8s.io");
    let own = rows(&services).into_iter().find(|row| row[0] == "v1.apps");
    assert_eq!(own.expect("the API's own")[1..3], ["Local", "True"], "{services}");
    let metrics = rows(&services).into_iter().find(|row| row[0] == "v1.metrics.eks.amazonaws.com");
    assert_eq!(
        metrics.expect("the metrics of the control plane")[1..3],
        ["kube-system/eks-extension-metrics-api", "True"]
    );
    let group: Value =
        serde_json::from_str(&kubectl.ok("get --raw /apis/metrics.eks.amazonaws.com"))
            .expect("JSON");
    assert_eq!(group["preferredVersion"]["version"], "v1");
    kubectl.ok("get --raw /apis/metrics.eks.amazonaws.com/v1");
    assert!(kubectl.ok("get pdb -n kube-system").contains("coredns"));
    assert!(kubectl.ok("cluster-info").contains("is running at"));
}

#[test]
fn profiles_come_and_go_by_command() {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    let profile = |arguments: &[&str]| wharf.wharf(&[&["fargate", "profile"], arguments].concat());
    assert_eq!(rows(&profile(&["list"]).ok()).len(), 1);
    let create =
        ["create", "shop_web", "--namespace", "shop-*", "--labels", "tier=web", "--tags", "a=b"];
    profile(&create).ok();
    let again = profile(&create).fails_with(2);
    assert!(again.contains("already"), "{again}");
    let missing = profile(&["describe", "shop"]).fails_with(2);
    assert!(
        missing.contains("No Fargate Profile found with name: shop; there are shop_web"),
        "{missing}"
    );
    let wrong = profile(&["create", "eks-x", "--namespace", "x"]).fails_with(2);
    assert!(wrong.contains("begins with eks-, which AWS keeps to itself"), "{wrong}");
    wait_for("the profile to be in use", || {
        let list = profile(&["list"]).ok();
        if list.contains("ACTIVE") { Ok(()) } else { Err(list) }
    });
    let described: Value =
        serde_json::from_str(&profile(&["describe", "shop_web"]).ok()).expect("JSON");
    let described = &described["fargateProfile"];
    assert_eq!(described["selectors"], json!([{"namespace": "shop-*", "labels": {"tier": "web"}}]));
    assert_eq!(described["status"], "ACTIVE");
    let arn = described["fargateProfileArn"].as_str().expect("an ARN");
    assert!(
        arn.starts_with("arn:aws:eks:us-east-1:111122223333:fargateprofile/wharf/shop_web/"),
        "{arn}"
    );
    let table = kubectl.ok("get fargateprofiles -A");
    assert_eq!(rows(&table)[0], ["NAMESPACE", "NAME", "CLUSTER", "STATUS", "SYNCED", "AGE"]);
    assert_eq!(rows(&table)[1][2..5], ["wharf", "ACTIVE", "True"], "{table}");
    let subnets = kubectl.ok("get subnets");
    assert_eq!(rows(&subnets)[0], ["NAME", "CIDR", "ZONE", "PUBLIC", "AGE"]);

    profile(&["delete", "shop_web"]).ok();
    wait_for("the profile to go", || {
        let list = profile(&["list"]).ok();
        if list.contains("shop_web") { Err(list) } else { Ok(()) }
    });
}

#[test]
fn a_cluster_file_that_is_wrong_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cluster.yaml");
    let text = "apiVersion: eksctl.io/v1alpha5\nkind: ClusterConfig\nmetadata: {name: a, region: us-east-1}\nfargateProfiles:\n- name: eks-a\n  selectors: [{namespace: a}]\n";
    std::fs::write(&file, text).expect("the file is written");
    let mut command = Command::new(wharf_binary());
    command.args(["up", "--ephemeral", "--listen", "127.0.0.1:0", "--config"]).arg(&file);
    let said = run(command).fails_with(2);
    let place =
        format!("{}:5:9: fargateProfiles[0].name: \"eks-a\" begins with eks-", file.display());
    assert!(said.contains(&place), "{said}");
}
