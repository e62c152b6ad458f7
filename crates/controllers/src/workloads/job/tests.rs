use proptest::prelude::*;
use serde_json::{Value, json};
use wharf_model::labels::{JOB_COMPLETION_INDEX, JOB_INDEX_FAILURE_COUNT};
use wharf_ports::cluster::Propagation;

use super::*;
use crate::workloads::harness::World;

fn world() -> World {
    World::new(vec![Box::new(JobController::new())])
}

fn job(spec: Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "pi", "namespace": "default"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6,
            "template": {"metadata": {"labels": {"job-name": "pi"}}, "spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "perl"}]}}}});
    for (field, value) in spec.as_object().expect("fields") {
        job["spec"][field] = value.clone();
    }
    job
}

fn seconds(world: &mut World, seconds: u64) {
    world.run_for(Duration::from_secs(seconds));
}

/// The Job's status, its times left out.
fn told(world: &World) -> Value {
    let job = world.get::<Job>("default", "pi").expect("the job");
    let mut status = serde_json::to_value(&job.status).expect("JSON");
    for field in ["startTime", "completionTime"] {
        status.as_object_mut().expect("fields").remove(field);
    }
    let conditions: Vec<String> = job
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .map(|it| format!("{}={}", it.type_, it.status))
        .collect();
    status["conditions"] = json!(conditions);
    status
}

fn counts(world: &World) -> (i64, i64, i64) {
    let status = told(world);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    (count("active"), count("succeeded"), count("failed"))
}

fn conditions(world: &World) -> Vec<String> {
    let status = told(world);
    let all = status["conditions"].as_array().expect("a list");
    all.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

/// The message of the condition by which the Job has ended.
fn ending(world: &World) -> Option<(String, String)> {
    let job = world.get::<Job>("default", "pi")?;
    let condition = status::finished(job)?;
    Some((condition.reason.clone()?, condition.message.clone()?))
}

fn active(world: &World) -> Vec<ObjectKey> {
    let pods = world.stored.objects(Kind::of::<Pod>());
    let active = pods.filter(|pod| pod.typed::<Pod>().is_some_and(wharf_model::pod::is_active));
    active.map(|pod| pod.key().clone()).collect()
}

fn end(world: &mut World, pod: &ObjectKey, code: i32) {
    let now = world.now.to_meta();
    world.edit::<Pod>(pod, |pod| {
        let status = pod.status.get_or_insert_default();
        status.phase = Some(if code == 0 { "Succeeded" } else { "Failed" }.to_owned());
        let state = json!([{"name": "c", "image": "perl", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": code,
                "finishedAt": now.0.to_string()}}}]);
        status.container_statuses = serde_json::from_value(state).expect("statuses");
    });
}

fn end_all(world: &mut World, code: i32) {
    for pod in active(world) {
        end(world, &pod, code);
    }
}

/// What a kubelet does with pods that are being deleted.
fn remove_deleted(world: &mut World) {
    let going: Vec<ObjectKey> = world
        .stored
        .objects(Kind::of::<Pod>())
        .filter(|pod| pod.header().deleting.is_some())
        .map(|pod| pod.key().clone())
        .collect();
    for pod in going {
        world.edit::<Pod>(&pod, |pod| {
            pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
        });
        world.delete::<Pod>(&pod, Propagation::Background);
    }
}

#[test]
fn a_pod_that_succeeds_completes_its_job() {
    let mut world = world();
    world.apply(job(json!({})));
    seconds(&mut world, 2);
    let pod = world.list::<Pod>()[0].clone();
    let name = pod.metadata.name.clone().expect("a name");
    assert!(name.starts_with("pi-") && name.len() == 8, "{name}");
    assert_eq!(pod.metadata.finalizers, Some(vec!["batch.kubernetes.io/job-tracking".to_owned()]));
    assert_eq!(
        told(&world),
        json!({"active": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}, "conditions": []})
    );
    world.kubelet("n1");
    seconds(&mut world, 2);
    assert_eq!(told(&world)["ready"], 1);
    end_all(&mut world, 0);
    seconds(&mut world, 2);
    assert_eq!(
        told(&world),
        json!({"succeeded": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {},
            "conditions": ["SuccessCriteriaMet=True", "Complete=True"]})
    );
    let reached = ("CompletionsReached", "Reached expected number of succeeded pods");
    assert_eq!(ending(&world), Some((reached.0.to_owned(), reached.1.to_owned())));
    assert_eq!(world.list::<Pod>()[0].metadata.finalizers.clone().unwrap_or_default().len(), 0);
    assert_eq!(world.messages(), [format!("Created pod: {name}"), "Job completed".to_owned()]);
    let writes = world.writes;
    seconds(&mut world, 3_600);
    assert_eq!(world.writes, writes, "nothing happens, nothing is written");
}

#[test]
fn failures_are_tried_again_after_a_growing_wait() {
    let mut world = world();
    world.apply(job(json!({"backoffLimit": 2})));
    seconds(&mut world, 1);
    for (failures, wait) in [(1, 10), (2, 20)] {
        end_all(&mut world, 1);
        seconds(&mut world, wait - 1);
        assert_eq!(counts(&world), (0, 0, failures), "after {failures} failures");
        seconds(&mut world, 2);
        assert_eq!(counts(&world), (1, 0, failures));
    }
    end_all(&mut world, 1);
    seconds(&mut world, 3);
    assert_eq!(counts(&world), (0, 0, 3));
    assert_eq!(conditions(&world), ["FailureTarget=True", "Failed=True"]);
    let reached = "Job has reached the specified backoff limit".to_owned();
    assert_eq!(ending(&world), Some(("BackoffLimitExceeded".to_owned(), reached.clone())));
    assert_eq!(world.messages().last(), Some(&reached.as_str()));
}

#[test]
fn a_deadline_ends_the_job_and_its_pods() {
    let mut world = world();
    world.apply(job(json!({"activeDeadlineSeconds": 30, "parallelism": 2, "completions": 2})));
    seconds(&mut world, 2);
    world.kubelet("n1");
    seconds(&mut world, 29);
    assert_eq!(conditions(&world), ["FailureTarget=True"], "until the pods have stopped");
    assert_eq!(told(&world)["terminating"], 2);
    remove_deleted(&mut world);
    seconds(&mut world, 3);
    assert_eq!(counts(&world), (0, 0, 2));
    assert_eq!(
        ending(&world).map(|(_, message)| message).as_deref(),
        Some("Job was active longer than specified deadline")
    );
}

#[test]
fn parallelism_bounds_the_pods_and_completions_their_number() {
    let mut world = world();
    world.apply(job(json!({"parallelism": 3, "completions": 5})));
    let mut made = 0;
    for _ in 0..10 {
        seconds(&mut world, 3);
        made += active(&world).len();
        assert!(active(&world).len() <= 3);
        end_all(&mut world, 0);
    }
    assert_eq!((made, counts(&world)), (5, (0, 5, 0)));
    assert_eq!(world.list::<Pod>().len(), 5);
}

#[test]
fn a_suspended_job_has_no_pods_and_counts_none_as_failed() {
    let mut world = world();
    world.apply(job(json!({"parallelism": 2, "completions": 2})));
    seconds(&mut world, 2);
    world.kubelet("n1");
    let key = ObjectKey::namespaced("default", "pi");
    let suspend = |world: &mut World, suspend| {
        world.edit::<Job>(&key, |job| job.spec.get_or_insert_default().suspend = Some(suspend));
    };
    suspend(&mut world, true);
    seconds(&mut world, 2);
    assert_eq!(active(&world).len(), 0);
    assert_eq!(conditions(&world), ["Suspended=True"]);
    remove_deleted(&mut world);
    seconds(&mut world, 2);
    assert_eq!(counts(&world), (0, 0, 0));
    suspend(&mut world, false);
    seconds(&mut world, 2);
    assert_eq!(
        (counts(&world), conditions(&world)),
        ((2, 0, 0), vec!["Suspended=False".to_owned()])
    );
    let said = world.messages();
    assert!(said.contains(&"Job suspended") && said.contains(&"Job resumed"), "{said:?}");
}

#[test]
fn an_indexed_job_runs_each_index() {
    let mut world = world();
    world.apply(job(json!({"completionMode": "Indexed", "parallelism": 2, "completions": 4})));
    seconds(&mut world, 2);
    let pods = world.list::<Pod>();
    let meta = &pods[1].metadata;
    assert!(meta.name.as_deref().is_some_and(|name| name.starts_with("pi-1-")));
    assert_eq!(meta.annotations.as_ref().map(|all| all[JOB_COMPLETION_INDEX].as_str()), Some("1"));
    assert_eq!(meta.labels.as_ref().map(|all| all[JOB_COMPLETION_INDEX].as_str()), Some("1"));
    let spec = pods[1].spec.as_ref().expect("a spec");
    assert_eq!(spec.hostname.as_deref(), Some("pi-1"));
    assert_eq!(
        spec.containers[0].env.as_ref().map(|env| env[0].name.as_str()),
        Some("JOB_COMPLETION_INDEX")
    );
    let second = active(&world)[1].clone();
    end(&mut world, &second, 0);
    seconds(&mut world, 3);
    assert_eq!(told(&world)["completedIndexes"], "1");
    for _ in 0..3 {
        end_all(&mut world, 0);
        seconds(&mut world, 3);
    }
    assert_eq!(
        (told(&world)["completedIndexes"].clone(), counts(&world)),
        (json!("0-3"), (0, 4, 0))
    );
    assert_eq!(conditions(&world), ["SuccessCriteriaMet=True", "Complete=True"]);
}

#[test]
fn indexes_fail_on_their_own() {
    let mut world = world();
    world.apply(job(json!({"completionMode": "Indexed", "parallelism": 2, "completions": 2,
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1})));
    seconds(&mut world, 2);
    let pods = active(&world);
    end(&mut world, &pods[0], 1);
    end(&mut world, &pods[1], 0);
    seconds(&mut world, 12);
    let again = world.stored.get::<Pod>(&active(&world)[0]).cloned().expect("the second try");
    let annotations = again.metadata.annotations.expect("annotations");
    assert_eq!(annotations[JOB_INDEX_FAILURE_COUNT], "1");
    assert_eq!(annotations[JOB_COMPLETION_INDEX], "0");
    end_all(&mut world, 1);
    seconds(&mut world, 3);
    let status = told(&world);
    assert_eq!((&status["completedIndexes"], &status["failedIndexes"]), (&json!("1"), &json!("0")));
    assert_eq!(
        ending(&world),
        Some(("FailedIndexes".to_owned(), "Job has failed indexes".to_owned()))
    );
}

#[test]
fn policies_decide_about_failures_and_success() {
    let rule = |action: &str| {
        json!({"podFailurePolicy": {"rules": [{"action": action,
            "onExitCodes": {"operator": "In", "values": [42]}}]}, "backoffLimit": 0})
    };
    let mut world = self::world();
    world.apply(job(rule("FailJob")));
    seconds(&mut world, 1);
    end_all(&mut world, 42);
    seconds(&mut world, 3);
    let (reason, message) = ending(&world).expect("an end");
    assert_eq!(reason, "PodFailurePolicy");
    assert!(message.starts_with("Container c for pod default/pi-"), "{message}");
    assert!(message.ends_with("failed with exit code 42 matching FailJob rule at index 0"));

    let mut world = self::world();
    world.apply(job(rule("Ignore")));
    seconds(&mut world, 1);
    end_all(&mut world, 42);
    seconds(&mut world, 15);
    assert_eq!(counts(&world), (1, 0, 0), "it does not count, and is tried again");

    let mut world = self::world();
    world.apply(job(json!({"completionMode": "Indexed", "parallelism": 3, "completions": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}})));
    seconds(&mut world, 2);
    world.kubelet("n1");
    let leader = active(&world)[0].clone();
    end(&mut world, &leader, 0);
    seconds(&mut world, 3);
    assert_eq!(conditions(&world), ["SuccessCriteriaMet=True"]);
    remove_deleted(&mut world);
    seconds(&mut world, 3);
    assert_eq!(
        ending(&world),
        Some(("SuccessPolicy".to_owned(), "Matched rules at index 0".to_owned()))
    );
}

#[test]
fn pods_of_a_job_that_is_gone_are_let_go() {
    let mut world = world();
    world.apply(job(json!({})));
    seconds(&mut world, 1);
    world.delete::<Job>(&ObjectKey::namespaced("default", "pi"), Propagation::Background);
    seconds(&mut world, 1);
    assert!(!pods::is_tracked(world.list::<Pod>()[0]));
}

#[test]
fn a_refused_pod_is_told_and_tried_again() {
    let mut world = world();
    world.refuse_pods = Some("exceeded quota".to_owned());
    world.apply(job(json!({})));
    world.run_for(Duration::from_millis(3));
    world.refuse_pods = None;
    seconds(&mut world, 1);
    assert!(world.messages().iter().any(|text| text.contains("exceeded quota")));
    assert_eq!(world.list::<Pod>().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever ends in which order, with a view that lags and a controller that is restarted:
    /// no pod is counted twice, none too many run, and the Job completes.
    #[test]
    fn nothing_is_counted_twice(
        ends in prop::collection::vec((0_usize..4, prop::bool::weighted(0.8), 0_u64..4, any::<bool>()), 1..20),
        lag in 0_usize..6, parallelism in 1_i32..4, indexed in any::<bool>(),
    ) {
        let mut world = self::world();
        world.lag = lag;
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        world.apply(job(json!({"parallelism": parallelism, "completions": 6,
            "backoffLimit": 100, "completionMode": mode})));
        let (mut well, mut badly) = (0, 0);
        let check = |world: &World, well: i64, badly: i64| {
            let (_, succeeded, failed) = counts(world);
            let running = i32::try_from(active(world).len()).unwrap();
            prop_assert!(succeeded <= well && failed <= badly, "{succeeded}/{well} {failed}/{badly}");
            prop_assert!(running <= parallelism, "{running} run");
            Ok(())
        };
        seconds(&mut world, 2);
        for (which, ends_well, pause, restarts) in ends {
            let running = active(&world);
            if let Some(pod) = running.get(which % running.len().max(1)) {
                end(&mut world, pod, i32::from(!ends_well));
                if ends_well { well += 1 } else { badly += 1 }
            }
            if restarts {
                world.restart(vec![Box::new(JobController::new())]);
            }
            seconds(&mut world, pause);
            check(&world, well, badly)?;
        }
        for _ in 0..40 {
            well += i64::try_from(active(&world).len()).unwrap();
            end_all(&mut world, 0);
            seconds(&mut world, 30);
        }
        check(&world, well, badly)?;
        prop_assert_eq!(counts(&world), (0, 6, badly));
        prop_assert_eq!(conditions(&world).pop(), Some("Complete=True".to_owned()));
    }
}
