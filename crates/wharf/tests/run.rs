//! `wharf run` beside an API server, driven with a real kubectl.

mod harness;

use harness::{Kubectl, Options, Wharf, run, wait_for, wharf_binary};
use serde_json::Value;
use std::process::Command;

/// An API server without controllers, on real time.
fn bare() -> Wharf {
    let arguments = ["--controllers", "none"].map(str::to_owned).to_vec();
    Wharf::start(&Options { speed: 1, arguments, ..Options::default() })
}

/// A node as a kubelet registers it, ready and without taints.
fn create_node(kubectl: &Kubectl, name: &str, cpu: &str) {
    let node = format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels: {{kubernetes.io/hostname: {name}}}\n"
    );
    kubectl.input("apply -f -", &node).ok();
    let status = format!(
        r#"{{"status":{{"capacity":{{"cpu":"{cpu}","memory":"8Gi","pods":"110"}},"allocatable":{{"cpu":"{cpu}","memory":"8Gi","pods":"110"}},"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
    );
    kubectl
        .args(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", &status])
        .ok();
    // No node-lifecycle controller runs here to take the taint of a new node away.
    kubectl
        .args(&["patch", "node", name, "--type=merge", "-p", r#"{"spec":{"taints":null}}"#])
        .ok();
}

fn create_pod(kubectl: &Kubectl, name: &str, scheduler: &str, cpu: &str) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  schedulerName: {scheduler}\n  containers:\n  - name: main\n    image: registry.k8s.io/pause:3.10\n    resources: {{requests: {{cpu: {cpu}}}}}\n"
    );
    kubectl.input("apply -f -", &pod).ok();
}

fn node_of(kubectl: &Kubectl, pod: &str) -> String {
    kubectl.ok(&format!("get pod {pod} -o jsonpath={{.spec.nodeName}}"))
}

fn wait_bound(kubectl: &Kubectl, pod: &str) -> String {
    wait_for("the pod to be bound", || {
        let node = node_of(kubectl, pod);
        if node.is_empty() { Err(kubectl.ok("get pods,events")) } else { Ok(node) }
    })
}

fn event(kubectl: &Kubectl, pod: &str, reason: &str) -> Value {
    wait_for("the event", || {
        let events = kubectl.items(&format!(
            "get events --field-selector involvedObject.name={pod},reason={reason}"
        ));
        events.into_iter().next().ok_or_else(|| kubectl.ok("get events"))
    })
}

#[test]
fn a_second_scheduler_schedules_its_own_pods() {
    let wharf = bare();
    let kubectl = wharf.kubectl();
    create_node(&kubectl, "small", "1");
    create_node(&kubectl, "large", "4");
    create_pod(&kubectl, "before", "wharf-scheduler", "100m");

    let beside =
        wharf.run_beside(&["--only", "scheduler", "--scheduler-name", "wharf-scheduler", "-v"]);
    assert!(beside.ready.starts_with("wharf runs scheduler at https://"), "{}", beside.ready);
    assert!(beside.ready.contains("scheduler name wharf-scheduler"), "{}", beside.ready);

    // What was there at the start, what comes later, and what fits only once another has gone.
    wait_bound(&kubectl, "before");
    create_pod(&kubectl, "big", "wharf-scheduler", "3");
    assert_eq!(wait_bound(&kubectl, "big"), "large");
    let scheduled = event(&kubectl, "big", "Scheduled");
    assert_eq!(scheduled["message"], "Successfully assigned default/big to large");
    assert_eq!(scheduled["reportingComponent"], "wharf-scheduler");
    assert_eq!(scheduled["source"], serde_json::json!({}));
    create_pod(&kubectl, "theirs", "default-scheduler", "100m");
    create_pod(&kubectl, "next", "wharf-scheduler", "3");
    let failed = event(&kubectl, "next", "FailedScheduling");
    let message = failed["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{message}");
    let why = kubectl.ok("get pod next -o jsonpath={.status.conditions[0].reason}");
    assert_eq!(why, "Unschedulable");
    kubectl.ok("delete pod big --force --grace-period=0");
    assert_eq!(wait_bound(&kubectl, "next"), "large");
    assert_eq!(node_of(&kubectl, "theirs"), "", "another scheduler's pod is left alone");
    let why = wharf.wharf(&["why", "pod/next"]).ok();
    assert!(why.contains("scheduler: "), "the lab knows the reasons of what runs beside it: {why}");

    assert!(beside.stop("INT").success());
}

#[test]
fn a_scheduler_that_is_restarted_goes_on() {
    let wharf = bare();
    let kubectl = wharf.kubectl();
    create_node(&kubectl, "node", "4");
    let arguments = ["--only", "scheduler", "--scheduler-name", "s", "--leader-elect"];
    let first = wharf.run_beside(&arguments);
    create_pod(&kubectl, "a", "s", "1");
    wait_bound(&kubectl, "a");
    let lease = "get lease s -n kube-system -o jsonpath={.spec.holderIdentity}";
    assert_ne!(kubectl.ok(lease), "");
    assert!(first.stop("TERM").success());
    assert_eq!(kubectl.ok(lease), "", "the lease is given up");
    create_pod(&kubectl, "b", "s", "1");
    let second = wharf.run_beside(&arguments);
    wait_bound(&kubectl, "b");

    // The server goes away for good: writes and watches fail, and the lease cannot be renewed.
    let mut second = second;
    wharf.kill();
    assert_eq!(second.ended().code(), Some(1));
    assert!(second.log().contains("the lease kube-system/s is lost"), "{}", second.log());
}

fn fails(arguments: &[&str], kubeconfig: Option<&std::path::Path>) -> (Option<i32>, String) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(wharf_binary());
    command.arg("run").args(arguments).env("HOME", home.path()).env_remove("KUBECONFIG");
    command.env_remove("KUBERNETES_SERVICE_HOST");
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    let finished = run(command);
    let stderr = finished.stderr.trim().to_owned();
    assert_eq!(stderr.lines().count(), 1, "one line: {finished}");
    (finished.code, stderr)
}

#[test]
fn what_is_wrong_with_the_way_to_the_cluster_is_told_in_one_line() {
    let scheduler = ["--only", "scheduler"];
    let (code, text) = fails(&scheduler, None);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.starts_with("wharf: there is no kubeconfig ("), "{text}");
    assert!(text.ends_with("name a file with --kubeconfig"), "{text}");

    let (code, text) = fails(&["--only", "schedular"], None);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("no controller \"schedular\"; there are workloads, autoscaling, scheduler"),
        "{text}"
    );

    let wharf = bare();
    let good = std::fs::read_to_string(&wharf.kubeconfig).expect("the lab's kubeconfig");
    let changed = |name: &str, change: &dyn Fn(&str) -> String| {
        let file = wharf.folder().join(name);
        std::fs::write(&file, change(&good)).expect("a temporary folder can be written");
        file
    };

    let file = changed("context", &|text| text.replace("current-context: wharf", ""));
    let (code, text) = fails(&scheduler, Some(&file));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("no current context") && text.contains("wharf"), "{text}");

    let (code, text) =
        fails(&["--only", "scheduler", "--context", "prod"], Some(&wharf.kubeconfig));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("it has no context \"prod\"; it has wharf"), "{text}");

    let (host, port) = wharf.url.rsplit_once(':').expect("an address with a port");
    let file =
        changed("port", &|text| text.replace(&format!("{host}:{port}"), &format!("{host}:1")));
    let (code, text) = fails(&scheduler, Some(&file));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no API server answers at https://127.0.0.1:1"), "{text}");

    let other = bare();
    let authority = |text: &str| {
        let line = text.lines().find(|line| line.contains("certificate-authority-data"));
        line.expect("an authority").trim().to_owned()
    };
    let others = std::fs::read_to_string(&other.kubeconfig).expect("the other's kubeconfig");
    let file = changed("authority", &|text| text.replace(&authority(text), &authority(&others)));
    let (code, text) = fails(&scheduler, Some(&file));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("the certificate of https://127.0.0.1"), "{text}");
    assert!(text.contains("is not trusted"), "{text}");

    let token = |text: &str| {
        let kept = text.lines().filter(|line| !line.contains("client-key-data")).map(|line| {
            match line.split_once("client-certificate-data:") {
                Some((indent, _)) => format!("{indent}token: nobody"),
                None => line.to_owned(),
            }
        });
        kept.collect::<Vec<_>>().join("\n")
    };
    let file = changed("token", &token);
    let (code, text) = fails(&scheduler, Some(&file));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("does not accept the credentials"), "{text}");
}
