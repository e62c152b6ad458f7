//! What kubectl shows of a lab, with each kubectl version there is: output forms, columns,
//! describe, explain, watches, events, discovery and logs.

mod harness;

use std::path::Path;

use harness::{Kubectl, Wharf, kubectls, lab_file, wait_for};
use serde_json::Value;

/// A lab with two inflate pods on one machine, and an object of each other kind.
fn furnished() -> Wharf {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    kubectl.ok(&format!("apply -f {}", lab_file("inflate.yaml")));
    kubectl.ok("scale deployment inflate --replicas 2");
    kubectl.input("apply -f -", FURNITURE).ok();
    kubectl.ok("rollout status deployment/inflate --timeout=120s");
    kubectl.ok("wait --for=jsonpath={.status.phase}=Succeeded pod/speaker --timeout=120s");
    // Events are kept for an hour, which is a minute at the speed of before.
    wharf.wharf(&["clock", "speed", "1"]).ok();
    wharf
}

const FURNITURE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: inflate}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: xyzzy}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
description: goes first
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: inflate}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: inflate}}
---
apiVersion: v1
kind: Pod
metadata: {name: speaker, labels: {app: speaker}}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: busybox:1.36
      command: ["sh", "-c", "echo one; echo two; sleep 1; echo three"]
"#;

/// Runs a check with every kubectl there is, on one lab.
fn with_each(wharf: &Wharf, check: impl Fn(&Kubectl, &str)) {
    for (version, binary) in kubectls() {
        harness::note(&format!("with kubectl {version}"));
        check(&wharf.with_kubectl(Path::new(binary)), version);
    }
}

#[test]
fn tables_have_upstreams_columns() {
    let wharf = furnished();
    with_each(&wharf, |kubectl, version| {
        for (resource, columns, wide) in [
            ("pods", "NAME READY STATUS RESTARTS AGE", " IP NODE NOMINATED NODE READINESS GATES"),
            (
                "nodes",
                "NAME STATUS ROLES AGE VERSION",
                " INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME",
            ),
            ("deployments", "NAME READY UP-TO-DATE AVAILABLE AGE", " CONTAINERS IMAGES SELECTOR"),
            ("replicasets", "NAME DESIRED CURRENT READY AGE", " CONTAINERS IMAGES SELECTOR"),
            ("services", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE", " SELECTOR"),
            ("namespaces", "NAME STATUS AGE", ""),
            ("configmaps", "NAME DATA AGE", ""),
            ("secrets", "NAME TYPE DATA AGE", ""),
            ("leases -n kube-node-lease", "NAME HOLDER AGE", ""),
            (
                "poddisruptionbudgets",
                "NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE",
                "",
            ),
            ("nodepools", "NAME NODECLASS NODES READY AGE", " WEIGHT CPU MEMORY"),
            (
                "nodeclaims",
                "NAME TYPE CAPACITY ZONE NODE READY AGE",
                " IMAGEID ID NODEPOOL NODECLASS DRIFTED",
            ),
            ("ec2nodeclasses", "NAME READY AGE", " ROLE"),
            ("events", "LAST SEEN TYPE REASON OBJECT MESSAGE", ""),
        ] {
            let header = |arguments: String| {
                let table = kubectl.ok(&arguments);
                let words: Vec<&str> =
                    table.lines().next().unwrap_or_default().split_whitespace().collect();
                words.join(" ")
            };
            assert_eq!(header(format!("get {resource}")), columns, "{version}");
            if resource != "events" {
                let all = format!("{columns}{wide}");
                assert_eq!(header(format!("get {resource} -o wide")), all, "{version}");
            }
        }
        let table = kubectl.ok("get priorityclasses");
        assert!(table.starts_with("NAME "), "{table}");
        for row in
            ["system-cluster-critical 2000000000 false", "system-node-critical 2000001000 false"]
        {
            let lines = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "));
            assert!(lines.into_iter().any(|line| line.starts_with(row)), "{table}");
        }
    });
}

#[test]
fn every_form_of_output_works() {
    let wharf = furnished();
    with_each(&wharf, |kubectl, version| {
        let yaml = kubectl.ok("get deployment inflate -o yaml");
        assert!(yaml.starts_with("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n"), "{yaml}");
        let json = kubectl.json("get deployment inflate");
        assert_eq!(json["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%", "{version}");
        assert_eq!(json["status"]["readyReplicas"], 2);
        assert_eq!(kubectl.ok("get deployment inflate -o jsonpath={.spec.replicas}"), "2");
        let names = kubectl.ok("get pods -l app=inflate -o name");
        assert_eq!(names.lines().count(), 2, "{names}");
        assert!(names.lines().all(|name| name.starts_with("pod/inflate-")), "{names}");
        let custom = kubectl.ok("get pods -l app=inflate -o custom-columns=NAME:.metadata.name,CPU:.spec.containers[0].resources.requests.cpu");
        let rows: Vec<&str> = custom.lines().collect();
        assert_eq!(rows[0].split_whitespace().collect::<Vec<_>>(), ["NAME", "CPU"]);
        assert!(rows[1..].iter().all(|row| row.ends_with(" 1")), "{custom}");
        let sorted = kubectl.ok("get configmaps -A --no-headers --sort-by=.metadata.name");
        let names: Vec<&str> =
            sorted.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert!(names.is_sorted() && names.contains(&"settings"), "{sorted}");
        let by_time = kubectl.ok("get events --sort-by=.lastTimestamp");
        assert!(by_time.lines().count() > 5, "{by_time}");
        let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
        let there = kubectl.ok(&format!("get pods --field-selector spec.nodeName={node} -o name"));
        assert_eq!(there.lines().filter(|name| name.contains("inflate")).count(), 2, "{there}");
        assert_eq!(kubectl.ok("get pods --field-selector status.phase=Pending -o name"), "");
        assert_eq!(kubectl.ok("get pods -l app!=inflate,app -o name"), "pod/speaker\n");
        assert_eq!(kubectl.ok("get pods -l app=nobody"), "");
        let all = kubectl.ok("get all");
        for name in [
            "pod/inflate-",
            "service/kubernetes",
            "deployment.apps/inflate",
            "replicaset.apps/inflate-",
        ] {
            assert!(all.contains(name), "{name}: {all}");
        }
        let karpenter = kubectl.ok("get karpenter -o name");
        for name in [
            "nodepool.karpenter.sh/default",
            "ec2nodeclass.karpenter.k8s.aws/default",
            "nodeclaim.karpenter.sh/default-",
        ] {
            assert!(karpenter.contains(name), "{name}: {karpenter}");
        }
        let labels = kubectl.ok("get nodes -L karpenter.sh/nodepool -L node.kubernetes.io/instance-type -L karpenter.sh/capacity-type");
        let header: Vec<&str> =
            labels.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(header[5..], ["NODEPOOL", "INSTANCE-TYPE", "CAPACITY-TYPE"]);
        assert!(labels.contains(" default ") && labels.contains("on-demand"), "{labels}");
        assert!(kubectl.ok("get pods --show-labels").contains("app=inflate,pod-template-hash="));
        let chunked = kubectl.ok("get events -A --chunk-size=3 -o name");
        assert_eq!(chunked.lines().count(), kubectl.ok("get events -A -o name").lines().count());
        assert_eq!(
            kubectl.run("get pod nobody").fails(),
            "Error from server (NotFound): pods \"nobody\" not found\n"
        );
        assert_eq!(
            kubectl.run("get rockets").fails(),
            "error: the server doesn't have a resource type \"rockets\"\n"
        );
    });
}

#[test]
fn describe_knows_every_kind() {
    let wharf = furnished();
    with_each(&wharf, |kubectl, version| {
        let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
        let claim = kubectl.ok("get nodeclaims -o jsonpath={.items[0].metadata.name}");
        for (object, holds) in [
            ("pod -l app=inflate", "Controlled By:  ReplicaSet/inflate-"),
            ("pod speaker", "Successfully assigned default/speaker to "),
            ("pod speaker", "Exit Code:    0"),
            ("deployment inflate", "StrategyType:           RollingUpdate"),
            ("replicaset -l app=inflate", "Controlled By:  Deployment/inflate"),
            ("service web", "TargetPort:"),
            ("serviceaccount robot", "Name:                robot"),
            ("configmap settings", "green"),
            ("secret password", "word:  5 bytes"),
            ("priorityclass high", "goes first"),
            ("poddisruptionbudget inflate", "Min available:  1"),
            ("namespace default", "Status:"),
            (&format!("node {node}"), "Allocated resources:"),
            (&format!("node {node}"), "Non-terminated Pods:"),
            (&format!("lease -n kube-node-lease {node}"), "Holder Identity:"),
            ("nodepool default", "Consolidation Policy:"),
            (&format!("nodeclaim {claim}"), "Expire After:"),
            ("ec2nodeclass default", "Subnet Selector Terms:"),
        ] {
            let text = kubectl.ok(&format!("describe {object}"));
            assert!(text.contains(holds), "{version}: {object} without {holds:?}:\n{text}");
        }
        let text = kubectl.ok(&format!("describe node {node}"));
        assert!(text.contains("karpenter.sh/nodepool=default"), "{text}");
        assert!(text.contains("cpu "), "{text}");
    });
}

#[test]
fn explain_knows_the_fields() {
    let wharf = Wharf::ephemeral();
    with_each(&wharf, |kubectl, version| {
        for (path, holds) in [
            ("pods", "KIND:"),
            ("pods.spec.containers.resources.requests", "requests"),
            ("deployments.spec.strategy", "rollingUpdate"),
            ("services.spec.ports", "targetPort"),
            ("poddisruptionbudgets.spec", "minAvailable"),
            ("nodepools", "GROUP:      karpenter.sh"),
            ("nodepools.spec.disruption", "consolidateAfter"),
            ("nodepools.spec.template.spec.requirements", "operator"),
            ("nodeclaims.spec", "expireAfter"),
            ("ec2nodeclasses.spec", "amiSelectorTerms"),
        ] {
            let text = kubectl.ok(&format!("explain {path}"));
            assert!(text.contains(holds), "{version}: explain {path} without {holds:?}:\n{text}");
        }
        let text = kubectl.ok("explain nodepools.spec --recursive");
        assert!(text.contains("consolidationPolicy"), "{text}");
        assert!(kubectl.run("explain pods.spec.contaners").fails().contains("does not exist"));
    });
}

#[test]
fn watches_tell_changes() {
    let wharf = Wharf::ephemeral();
    with_each(&wharf, |kubectl, version| {
        let name = format!("watched-{}", version.replace('.', "-"));
        kubectl.ok(&format!("create configmap before-{name}"));
        let watch = kubectl.start("get configmaps -w --output-watch-events");
        watch.until(&format!("before-{name}"));
        kubectl.ok(&format!("create configmap {name} --from-literal=a=1"));
        let lines = watch.until(&name);
        assert!(lines.last().is_some_and(|line| line.starts_with("ADDED")), "{lines:#?}");
        kubectl.ok(&format!("label configmap {name} colour=green"));
        let lines = watch.until(&name);
        assert!(lines.last().is_some_and(|line| line.starts_with("MODIFIED")), "{lines:#?}");
        kubectl.ok(&format!("delete configmap {name}"));
        let lines = watch.until(&name);
        assert!(lines.last().is_some_and(|line| line.starts_with("DELETED")), "{lines:#?}");
    });
}

#[test]
fn discovery_and_rights() {
    let wharf = Wharf::ephemeral();
    with_each(&wharf, |kubectl, version| {
        let resources = kubectl.ok("api-resources --no-headers");
        let rows: Vec<String> = resources
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for row in [
            "pods po v1 true Pod",
            "nodes no v1 false Node",
            "deployments deploy apps/v1 true Deployment",
            "leases coordination.k8s.io/v1 true Lease",
            "priorityclasses pc scheduling.k8s.io/v1 false PriorityClass",
            "poddisruptionbudgets pdb policy/v1 true PodDisruptionBudget",
            "nodepools karpenter.sh/v1 false NodePool",
            "nodeclaims karpenter.sh/v1 false NodeClaim",
            "ec2nodeclasses ec2nc,ec2ncs karpenter.k8s.aws/v1 false EC2NodeClass",
            "events ev events.k8s.io/v1 true Event",
        ] {
            assert!(rows.iter().any(|line| line == row), "{version}: {row:?}\n{resources}");
        }
        let versions = kubectl.ok("api-versions");
        for group in ["v1", "apps/v1", "karpenter.sh/v1", "karpenter.k8s.aws/v1", "policy/v1"] {
            assert!(versions.lines().any(|line| line == group), "{group}: {versions}");
        }
        let server = kubectl.json("version");
        assert_eq!(server["serverVersion"]["major"], "1", "{server}");
        assert_eq!(server["serverVersion"]["minor"], "36", "{server}");
        assert!(kubectl.ok("cluster-info").contains(&wharf.url));
        for path in ["/readyz", "/livez", "/healthz"] {
            assert_eq!(kubectl.ok(&format!("get --raw {path}")), "ok", "{path}");
        }
        assert_eq!(kubectl.ok("auth can-i create pods"), "yes\n");
        assert_eq!(kubectl.ok("auth can-i * *"), "yes\n");
        assert!(kubectl.ok("auth whoami").contains("system:masters"));
    });
}

#[test]
fn logs_are_what_the_containers_print() {
    let wharf = furnished();
    with_each(&wharf, |kubectl, version| {
        assert_eq!(kubectl.ok("logs speaker"), "one\ntwo\nthree\n", "{version}");
        assert_eq!(kubectl.ok("logs speaker -c main --tail=1"), "three\n");
        assert_eq!(kubectl.ok("logs -f speaker"), "one\ntwo\nthree\n", "it follows to the end");
        let stamped = kubectl.ok("logs speaker --timestamps");
        assert!(stamped.lines().all(|line| line.contains("T") && line.contains("Z ")), "{stamped}");
        assert_eq!(
            kubectl.ok("logs -l app=speaker --prefix"),
            "[pod/speaker/main] one\n[pod/speaker/main] two\n[pod/speaker/main] three\n"
        );
        let error = kubectl.run("logs speaker -c nobody").fails();
        assert!(error.contains("container nobody is not valid for pod speaker"), "{error}");
        kubectl.ok("logs deployment/inflate");
        let log = kubectl.karpenter_log();
        assert!(log.iter().any(|line| line["message"] == "launched nodeclaim"), "{log:#?}");
        let follow = kubectl.start(
            "logs -f -n kube-system -l app.kubernetes.io/name=karpenter -c controller --tail=-1",
        );
        follow.until("launched nodeclaim");
    });
}

#[test]
fn events_read_as_upstreams() {
    let wharf = furnished();
    with_each(&wharf, |kubectl, version| {
        let pods = kubectl.ok("get pods -l app=inflate -o name");
        let pod = pods.lines().next().expect("there are two");
        let table = kubectl.ok(&format!("events --for {pod}"));
        for reason in ["Scheduled", "Pulling", "Pulled", "Created", "Started"] {
            assert!(table.contains(reason), "{version}: no {reason}:\n{table}");
        }
        let events = kubectl.items("get events");
        let message = |reason: &str, holds: &str| {
            let found = events.iter().any(|event: &Value| {
                event["reason"] == reason
                    && event["message"].as_str().is_some_and(|message| message.contains(holds))
            });
            assert!(found, "{version}: no {reason} with {holds:?}: {events:#?}");
        };
        let name = pod.trim_start_matches("pod/");
        message("Scheduled", &format!("Successfully assigned default/{name} to ip-192-168-"));
        message("Pulling", "Pulling image \"public.ecr.aws/eks-distro/kubernetes/pause:3.7\"");
        message(
            "Pulled",
            "Successfully pulled image \"public.ecr.aws/eks-distro/kubernetes/pause:3.7\" in ",
        );
        message("Pulled", "Image size: 2002080 bytes.");
        message("SuccessfulCreate", &format!("Created pod: {name}"));
        message("ScalingReplicaSet", "Scaled up replica set inflate-");
        message("Nominated", "Pod should schedule on: nodeclaim/default-");
        message("FailedScheduling", "no nodes available to schedule pods");
        wait_for("an event of the newer API", || {
            let newer = kubectl.items("get events.v1.events.k8s.io");
            let found = newer.iter().any(|event| event["regarding"]["name"] == name);
            if found { Ok(()) } else { Err(format!("{} events", newer.len())) }
        });
    });
}
