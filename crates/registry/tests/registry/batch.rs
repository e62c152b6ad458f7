//! Jobs, CronJobs and DaemonSets.

use serde_json::{Value, json};
use wharf_ports::cluster::Part;

use crate::{Cluster, with};

fn job(name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "busybox", "command": ["sleep", "10"]}]}}}})
}

fn cron_job(name: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job("x")["spec"]}}})
}

fn daemon_set(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "agent:1"}]}}}})
}

#[test]
fn jobs_get_their_defaults_and_a_selector_of_their_own() {
    let cluster = Cluster::new();
    let job = cluster.create(job("pi")).unwrap();
    let uid = &job["metadata"]["uid"];
    assert_eq!(job["metadata"]["generation"], 1);
    let labels = json!({"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
        "batch.kubernetes.io/job-name": "pi", "job-name": "pi"});
    assert_eq!(job["metadata"]["labels"], labels);
    let mut spec = job["spec"].clone();
    assert_eq!(spec["template"]["metadata"]["labels"], labels);
    spec.as_object_mut().unwrap().remove("template");
    assert_eq!(
        spec,
        json!({"backoffLimit": 6, "completionMode": "NonIndexed", "completions": 1,
            "manualSelector": false, "parallelism": 1, "podReplacementPolicy": "TerminatingOrFailed",
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}, "suspend": false})
    );
    let policy =
        json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]});
    let failing = with(self::job("b"), "spec.podFailurePolicy", policy);
    let failing = with(failing, "spec.parallelism", json!(3));
    let spec = cluster.create(failing).unwrap()["spec"].take();
    assert_eq!(
        (&spec["completions"], &spec["podReplacementPolicy"]),
        (&json!(null), &json!("Failed"))
    );
    assert_eq!(spec["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
    let indexed = json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1,
        "template": job["spec"]["template"]["spec"]});
    let mut by_index = self::job("c");
    for (field, value) in indexed.as_object().unwrap() {
        if field != "template" {
            by_index["spec"][field] = value.clone();
        }
    }
    assert_eq!(cluster.create(by_index).unwrap()["spec"]["backoffLimit"], i32::MAX);
}

#[test]
fn cron_jobs_and_daemon_sets_get_their_defaults() {
    let cluster = Cluster::new();
    let spec = cluster.create(cron_job("c")).unwrap()["spec"].take();
    assert_eq!((&spec["concurrencyPolicy"], &spec["suspend"]), (&json!("Allow"), &json!(false)));
    assert_eq!(
        (&spec["successfulJobsHistoryLimit"], &spec["failedJobsHistoryLimit"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(spec["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    let set = cluster.create(daemon_set("d")).unwrap();
    assert_eq!(set["metadata"]["labels"], json!({"app": "d"}));
    let generation = "deprecated.daemonset.template.generation";
    assert_eq!(set["metadata"]["annotations"][generation], "1");
    assert_eq!(
        set["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
    );
    assert_eq!(set["spec"]["revisionHistoryLimit"], 10);
    let image = "spec.template.spec.containers.0.image";
    let set = cluster.update(with(set, image, json!("agent:2")), Part::Main).unwrap();
    assert_eq!(set["metadata"]["annotations"][generation], "2");
    assert_eq!(set["metadata"]["generation"], 2);
    let set = cluster.update(with(set, "spec.minReadySeconds", json!(5)), Part::Main).unwrap();
    assert_eq!(set["metadata"]["annotations"][generation], "2");
    assert_eq!(set["metadata"]["generation"], 3);
}

#[test]
fn manifests_that_are_refused() {
    let rule = |rule: Value| with(job("j"), "spec.podFailurePolicy", json!({"rules": [rule]}));
    let indexed = |field: &str, value: Value| {
        let job = with(job("j"), "spec.completionMode", json!("Indexed"));
        with(with(job, "spec.completions", json!(5)), field, value)
    };
    let strategy = |rolling: Value| {
        with(
            daemon_set("d"),
            "spec.updateStrategy",
            json!({"type": "RollingUpdate", "rollingUpdate": rolling}),
        )
    };
    for (manifest, expected) in [
        (
            with(job("j"), "spec.template.spec.restartPolicy", json!("Always")),
            "Job.batch \"j\" is invalid: spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            with(job("j"), "spec.parallelism", json!(-1)),
            "Job.batch \"j\" is invalid: spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            with(job("j"), "spec.ttlSecondsAfterFinished", json!(-1)),
            "Job.batch \"j\" is invalid: spec.ttlSecondsAfterFinished: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            with(job("j"), "spec.completionMode", json!("Odd")),
            "Job.batch \"j\" is invalid: spec.completionMode: Unsupported value: \"Odd\": supported values: \"NonIndexed\", \"Indexed\"",
        ),
        (
            with(job("j"), "spec.managedBy", json!("me")),
            "Job.batch \"j\" is invalid: spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
        (
            with(job("j"), "spec.backoffLimitPerIndex", json!(1)),
            "Job.batch \"j\" is invalid: spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            with(job("j"), "spec.manualSelector", json!(true)),
            "Job.batch \"j\" is invalid: spec.selector: Required value",
        ),
        (
            indexed("metadata.name", json!("j.x")),
            "Job.batch \"j.x\" is invalid: metadata.name: Invalid value: \"j.x\": will not able to create pod with invalid DNS label: j.x-4",
        ),
        (
            indexed("spec.parallelism", json!(100_001)),
            "Job.batch \"j\" is invalid: spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
        ),
        (
            indexed("spec.successPolicy", json!({"rules": [{"succeededIndexes": "1-7"}]})),
            "Job.batch \"j\" is invalid: spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"1-7\": error parsing succeededIndexes: too large index: \"7\"",
        ),
        (
            indexed(
                "spec.successPolicy",
                json!({"rules": [{"succeededIndexes": "1,2", "succeededCount": 3}]}),
            ),
            "Job.batch \"j\" is invalid: spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
        ),
        (
            rule(json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}})),
            "Job.batch \"j\" is invalid: spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
        ),
        (
            rule(json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [2, 0]}})),
            "Job.batch \"j\" is invalid: [spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator, spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0]: must be ordered]",
        ),
        (
            rule(json!({"action": "Count"})),
            "Job.batch \"j\" is invalid: spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ),
        (
            with(cron_job("c"), "spec.schedule", json!("* * *")),
            "CronJob.batch \"c\" is invalid: spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
        ),
        (
            with(cron_job("c"), "spec.schedule", json!("TZ=UTC 0 * * * *")),
            "CronJob.batch \"c\" is invalid: spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ),
        (
            with(cron_job("c"), "spec.timeZone", json!("Asia/Busan")),
            "CronJob.batch \"c\" is invalid: spec.timeZone: Invalid value: \"Asia/Busan\": unknown time zone Asia/Busan",
        ),
        (
            with(cron_job("c"), "spec.concurrencyPolicy", json!("Maybe")),
            "CronJob.batch \"c\" is invalid: spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
        ),
        (
            cron_job(&"c".repeat(53)),
            "CronJob.batch \"ccccccccccccccccccccccccccccccccccccccccccccccccccccc\" is invalid: metadata.name: Invalid value: \"ccccccccccccccccccccccccccccccccccccccccccccccccccccc\": must be no more than 52 characters",
        ),
        (
            strategy(json!({"maxUnavailable": 1, "maxSurge": 1})),
            "DaemonSet.apps \"d\" is invalid: spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
        ),
        (
            strategy(json!({"maxUnavailable": 0})),
            "DaemonSet.apps \"d\" is invalid: spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ),
        (
            with(daemon_set("d"), "spec.template.spec.restartPolicy", json!("Never")),
            "DaemonSet.apps \"d\" is invalid: spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            with(daemon_set("d"), "spec.template.metadata.labels", json!({"app": "e"})),
            "DaemonSet.apps \"d\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"e\"}: `selector` does not match template `labels`",
        ),
    ] {
        let refusal = Cluster::new().create(manifest.clone()).unwrap_err();
        assert_eq!(refusal.message, expected, "{manifest}");
    }
}

#[test]
fn what_may_change_in_a_job() {
    let cluster = Cluster::new();
    let stored = cluster.create(job("j")).unwrap();
    let stored = cluster.update(with(stored, "spec.parallelism", json!(4)), Part::Main).unwrap();
    assert_eq!(stored["metadata"]["generation"], 2);
    for (field, value) in [
        ("spec.completions", json!(3)),
        ("spec.completionMode", json!(null)),
        ("spec.managedBy", json!("acme.io/foo")),
        ("spec.template.spec.nodeSelector", json!({"a": "b"})),
    ] {
        let changed = cluster.update(with(stored.clone(), field, value.clone()), Part::Main);
        match (field, changed) {
            // Left out, it is filled in again.
            ("spec.completionMode", changed) => assert!(changed.is_ok()),
            (_, changed) => {
                let refusal = changed.unwrap_err().message;
                assert!(refusal.ends_with("field is immutable"), "{field}: {refusal}");
            }
        }
    }
    let waiting = cluster.create(with(job("w"), "spec.suspend", json!(true))).unwrap();
    let moved = with(waiting, "spec.template.spec.nodeSelector", json!({"a": "b"}));
    assert!(cluster.update(moved, Part::Main).is_ok());
}
