//! What kubectl changes in a lab, with each kubectl version there is: apply, patch, scale, rollouts,
//! labels, taints, cordon, drain, delete; and what is refused, in upstream's words.

mod harness;

use std::path::Path;

use harness::{Kubectl, Wharf, kubectls, lab_file, wait_for};

/// Runs a check with every kubectl there is, each in a namespace of its own.
fn with_each(wharf: &Wharf, check: impl Fn(&Kubectl, &str)) {
    for (version, binary) in kubectls() {
        harness::note(&format!("with kubectl {version}"));
        let kubectl = wharf.with_kubectl(Path::new(binary));
        let namespace = format!("with-{}", version.replace('.', "-"));
        assert_eq!(
            kubectl.ok(&format!("create namespace {namespace}")),
            format!("namespace/{namespace} created\n")
        );
        check(&kubectl, &namespace);
    }
}

/// A manifest written as flow YAML; without the comment kubectl takes it for JSON.
fn yaml(manifest: &str) -> String {
    format!("# YAML\n{manifest}\n")
}

fn config_map(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {value}\n")
}

#[test]
fn apply_creates_configures_and_leaves_alone() {
    let wharf = Wharf::ephemeral();
    with_each(&wharf, |kubectl, ns| {
        let apply =
            |value: &str| kubectl.input(&format!("apply -n {ns} -f -"), &config_map(value)).ok();
        assert_eq!(apply("{a: '1', b: '2'}"), "configmap/settings created\n");
        assert_eq!(apply("{a: '1', b: '2'}"), "configmap/settings unchanged\n");
        kubectl.ok(&format!("patch -n {ns} configmap settings -p {{\"data\":{{\"c\":\"3\"}}}}"));
        assert_eq!(apply("{a: '9'}"), "configmap/settings configured\n");
        let data = kubectl.json(&format!("get -n {ns} configmap settings"))["data"].to_string();
        assert_eq!(
            data, r#"{"a":"9","c":"3"}"#,
            "what another has set stays, what was removed goes"
        );
        let dry = kubectl
            .input(&format!("apply -n {ns} --dry-run=server -f -"), &config_map("{z: '1'}"))
            .ok();
        assert_eq!(dry, "configmap/settings configured (server dry run)\n");
        let diff = kubectl.input(&format!("diff -n {ns} -f -"), &config_map("{a: '9', d: '4'}"));
        assert!(diff.code == Some(1) && diff.stdout.contains("+  d: \"4\""), "{diff}");
        let data = kubectl.json(&format!("get -n {ns} configmap settings"))["data"].to_string();
        assert_eq!(data, r#"{"a":"9","c":"3"}"#, "dry runs and diffs change nothing");
        let replaced =
            kubectl.input(&format!("replace -n {ns} -f -"), &config_map("{only: this}")).ok();
        assert_eq!(replaced, "configmap/settings replaced\n");
        assert_eq!(
            kubectl.json(&format!("get -n {ns} configmap settings"))["data"].to_string(),
            r#"{"only":"this"}"#
        );
        let again = kubectl.input(&format!("create -n {ns} -f -"), &config_map("{}")).fails();
        assert_eq!(
            again,
            "Error from server (AlreadyExists): error when creating \"STDIN\": configmaps \"settings\" already exists\n"
        );
    });
}

#[test]
fn all_three_patches() {
    let wharf = Wharf::ephemeral();
    with_each(&wharf, |kubectl, ns| {
        let inflate = std::fs::read_to_string(lab_file("inflate.yaml")).expect("it is there");
        kubectl.input(&format!("apply -n {ns} -f -"), &inflate).ok();
        let patch = |kind: &str, patch: &str| {
            kubectl.args(&["patch", "-n", ns, "deployment", "inflate", "--type", kind, "-p", patch])
        };
        let env = r#"{"spec":{"template":{"spec":{"containers":[{"name":"inflate","env":[{"name":"A","value":"1"}]}]}}}}"#;
        assert_eq!(patch("strategic", env).ok(), "deployment.apps/inflate patched\n");
        let container = &kubectl.json(&format!("get -n {ns} deployment inflate"))["spec"]["template"]
            ["spec"]["containers"][0];
        assert_eq!(container["env"][0]["name"], "A");
        assert_eq!(container["resources"]["requests"]["cpu"], "1", "merged by name: {container}");
        patch("merge", r#"{"metadata":{"annotations":{"why":"test"}}}"#).ok();
        patch("json", r#"[{"op":"add","path":"/spec/minReadySeconds","value":2},{"op":"remove","path":"/metadata/annotations/why"}]"#).ok();
        let object = kubectl.json(&format!("get -n {ns} deployment inflate"));
        assert_eq!(object["spec"]["minReadySeconds"], 2);
        assert!(object["metadata"]["annotations"]["why"].is_null(), "{object}");
        assert_eq!(patch("merge", "{}").ok(), "deployment.apps/inflate patched (no change)\n");
        let error = patch("json", r#"[{"op":"remove","path":"/spec/nothing"}]"#).fails();
        assert!(error.contains("nothing"), "{error}");
        let image = kubectl
            .ok(&format!("set -n {ns} image deployment/inflate inflate=registry.k8s.io/pause:3.9"));
        assert_eq!(image, "deployment.apps/inflate image updated\n");
        let edited = edit(kubectl, ns);
        assert_eq!(edited, "deployment.apps/inflate edited\n");
        assert_eq!(
            kubectl.ok(&format!(
                "get -n {ns} deployment inflate -o jsonpath={{.spec.revisionHistoryLimit}}"
            )),
            "3"
        );
    });
}

/// `kubectl edit` with an editor that changes one number.
fn edit(kubectl: &Kubectl, namespace: &str) -> String {
    let mut command = kubectl.command(&["edit", "-n", namespace, "deployment", "inflate"]);
    command.env("KUBE_EDITOR", "sed -i s/revisionHistoryLimit:.*/revisionHistoryLimit:\\ 3/");
    harness::run(command).ok()
}

#[test]
fn workloads_scale_roll_and_go() {
    let wharf = Wharf::ephemeral();
    wharf.kubectl().ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    with_each(&wharf, |kubectl, ns| {
        kubectl.ok(&format!("create -n {ns} deployment web --image=nginx:1.27 --replicas=2"));
        kubectl.ok(&format!("rollout -n {ns} status deployment/web --timeout=120s"));
        kubectl.ok(&format!("scale -n {ns} deployment/web --replicas=3"));
        kubectl.ok(&format!(
            "wait -n {ns} --for=jsonpath={{.status.readyReplicas}}=3 deployment/web --timeout=120s"
        ));
        let error = kubectl
            .run(&format!("scale -n {ns} deployment/web --current-replicas=7 --replicas=1"))
            .fails();
        assert!(error.contains("Expected replicas to be 7, was 3"), "{error}");
        kubectl.ok(&format!("set -n {ns} image deployment/web nginx=nginx:1.28"));
        let rolled = kubectl.ok(&format!("rollout -n {ns} status deployment/web --timeout=120s"));
        assert!(rolled.ends_with("deployment \"web\" successfully rolled out\n"), "{rolled}");
        let history = kubectl.ok(&format!("rollout -n {ns} history deployment/web"));
        assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
        kubectl.ok(&format!("rollout -n {ns} undo deployment/web"));
        kubectl.ok(&format!("rollout -n {ns} status deployment/web --timeout=120s"));
        assert_eq!(
            kubectl.ok(&format!(
                "get -n {ns} deployment web -o jsonpath={{.spec.template.spec.containers[0].image}}"
            )),
            "nginx:1.27"
        );
        kubectl.ok(&format!("rollout -n {ns} restart deployment/web"));
        kubectl.ok(&format!("rollout -n {ns} status deployment/web --timeout=120s"));
        kubectl.ok(&format!("delete -n {ns} deployment web --timeout=120s"));
        wait_for("pods and replica sets to go with their owner", || {
            let left = kubectl.ok(&format!("get -n {ns} pods,replicasets -o name"));
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        kubectl.ok(&format!("create -n {ns} configmap a --from-literal=a=1"));
        kubectl.ok(&format!("create -n {ns} configmap b --from-literal=a=1"));
        kubectl.ok(&format!("delete -n {ns} configmaps --all"));
        kubectl.ok(&format!("delete namespace {ns} --timeout=120s"));
        let error = kubectl.run(&format!("get namespace {ns}")).fails();
        assert_eq!(error, format!("Error from server (NotFound): namespaces \"{ns}\" not found\n"));
    });
}

#[test]
fn nodes_are_labelled_tainted_cordoned_and_drained() {
    let wharf = Wharf::ephemeral();
    wharf.kubectl().ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    with_each(&wharf, |kubectl, ns| {
        kubectl.ok(&format!("create -n {ns} deployment web --image=nginx:1.27 --replicas=2"));
        kubectl.ok(&format!("rollout -n {ns} status deployment/web --timeout=120s"));
        let node = kubectl.ok(&format!("get -n {ns} pods -o jsonpath={{.items[0].spec.nodeName}}"));
        // The pool must not take the node away under this test.
        let no_disruption = format!("annotate node {node} karpenter.sh/do-not-disrupt=true");
        assert_eq!(kubectl.ok(&no_disruption), format!("node/{node} annotated\n"));
        assert_eq!(
            kubectl.ok(&format!("label node {node} rack=7")),
            format!("node/{node} labeled\n")
        );
        assert_eq!(kubectl.ok("get nodes -l rack=7 -o name"), format!("node/{node}\n"));
        assert!(kubectl.run(&format!("label node {node} rack=8")).fails().contains("overwrite"));
        assert_eq!(
            kubectl.ok(&format!("label node {node} rack-")),
            format!("node/{node} unlabeled\n")
        );
        assert_eq!(
            kubectl.ok(&format!("taint node {node} gpu=yes:NoSchedule")),
            format!("node/{node} tainted\n")
        );
        assert_eq!(
            kubectl.ok(&format!("taint node {node} gpu-")),
            format!("node/{node} untainted\n")
        );
        assert_eq!(kubectl.ok(&format!("cordon {node}")), format!("node/{node} cordoned\n"));
        assert!(kubectl.ok(&format!("get node {node}")).contains("Ready,SchedulingDisabled"));
        assert_eq!(kubectl.ok(&format!("uncordon {node}")), format!("node/{node} uncordoned\n"));
        let drained = kubectl.ok(&format!("drain {node} --ignore-daemonsets --timeout=120s"));
        assert!(drained.contains(&format!("node/{node} drained")), "{drained}");
        assert!(
            drained.contains(&format!("evicting pod {ns}/web-")) || drained.contains("evicted"),
            "{drained}"
        );
        kubectl.ok(&format!("rollout -n {ns} status deployment/web --timeout=120s"));
        let nodes =
            kubectl.ok(&format!("get -n {ns} pods -o jsonpath={{.items[*].spec.nodeName}}"));
        assert!(!nodes.split(' ').any(|name| name == node), "{nodes}");
        kubectl.ok(&format!("delete -n {ns} deployment web"));
        kubectl.ok(&format!("delete node {node} --timeout=120s"));
    });
}

#[test]
fn a_budget_holds_evictions_back() {
    let wharf = Wharf::ephemeral();
    wharf.kubectl().ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    with_each(&wharf, |kubectl, ns| {
        kubectl.ok(&format!("create -n {ns} deployment web --image=nginx:1.27 --replicas=1"));
        kubectl.ok(&format!("rollout -n {ns} status deployment/web --timeout=120s"));
        kubectl.ok(&format!(
            "create -n {ns} poddisruptionbudget web --selector=app=web --min-available=1"
        ));
        kubectl.ok(&format!(
            "wait -n {ns} --for=jsonpath={{.status.currentHealthy}}=1 pdb/web --timeout=120s"
        ));
        let node = kubectl.ok(&format!("get -n {ns} pods -o jsonpath={{.items[0].spec.nodeName}}"));
        let error = kubectl.run(&format!("drain {node} --ignore-daemonsets --timeout=1s")).fails();
        assert!(
            error.contains("Cannot evict pod as it would violate the pod's disruption budget."),
            "{error}"
        );
        kubectl.ok(&format!("uncordon {node}"));
        kubectl.ok(&format!("delete -n {ns} pdb,deployment web"));
    });
}

#[test]
fn invalid_manifests_are_refused_in_upstreams_words() {
    let wharf = Wharf::ephemeral();
    with_each(&wharf, |kubectl, ns| {
        for (manifest, says) in [
            (
                "{apiVersion: v1, kind: ConfigMap, metadata: {name: Bad_Name}}",
                "The ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: []}}",
                "The Pod \"p\" is invalid: spec.containers: Required value",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i, resources: {requests: {cpu: 2}, limits: {cpu: 1}}}]}}",
                "The Pod \"p\" is invalid: spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {restartPolicy: Often, containers: [{name: c, image: i}]}}",
                "spec.restartPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ),
            (
                "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}}",
                "The Deployment \"d\" is invalid: spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
            ),
            (
                "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: -1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: pool}, spec: {template: {spec: {requirements: [{key: a, operator: Near, values: [b]}], nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}}}}}",
                "spec.template.spec.requirements[0].operator: Unsupported value: \"Near\"",
            ),
            (
                "{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: pool}, spec: {template: {spec: {requirements: [], nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: ''}}}}}",
                "spec.template.spec.nodeClassRef.name: Invalid value: \"\": name may not be empty",
            ),
        ] {
            let error = kubectl
                .input(&format!("create -n {ns} --validate=false -f -"), &yaml(manifest))
                .fails();
            assert!(error.contains(says), "{manifest}\ngave: {error}\nwanted: {says}");
        }
        let nowhere = kubectl.run("create -n nowhere configmap a").fails();
        assert!(nowhere.contains("namespaces \"nowhere\" not found"), "{nowhere}");
        let error = kubectl
            .input(
                &format!("apply -n {ns} -f -"),
                &yaml("{apiVersion: v1, kind: Rocket, metadata: {name: r}}"),
            )
            .fails();
        assert!(error.contains("no matches for kind \"Rocket\" in version \"v1\""), "{error}");
    });
}

#[test]
fn a_typing_error_in_a_field_is_refused() {
    let wharf = Wharf::ephemeral();
    with_each(&wharf, |kubectl, ns| {
        for (manifest, field) in [
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i, resorces: {}}]}}",
                "unknown field \"spec.containers[0].resorces\"",
            ),
            (
                "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replica: 1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}",
                "unknown field \"spec.replica\"",
            ),
            (
                "{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: pool}, spec: {disruption: {consolidateAfer: 1m}, template: {spec: {requirements: [], nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}}}}}",
                "unknown field \"spec.disruption.consolidateAfer\"",
            ),
        ] {
            for verb in ["create", "apply"] {
                let arguments = format!("{verb} -n {ns} --validate=strict -f -");
                let error = kubectl.input(&arguments, &yaml(manifest)).fails();
                assert!(error.contains("strict decoding error"), "{error}");
                assert!(error.contains(field), "{error}");
            }
            let warned = kubectl.input(
                &format!("create -n {ns} --validate=warn --dry-run=server -f -"),
                &yaml(manifest),
            );
            assert!(warned.code == Some(0) && warned.stderr.contains(field), "{warned}");
        }
        assert_eq!(kubectl.ok(&format!("get -n {ns} pods,deployments -o name")), "");
    });
}
