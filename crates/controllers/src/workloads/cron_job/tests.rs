use serde_json::{Value, json};

use super::*;
use crate::workloads::harness::World;

/// The harness begins at 10,000 seconds: twenty seconds before a minute.
fn world(more: Value) -> World {
    let mut world = World::new(vec![Box::new(CronJobController::new())]);
    let mut cron_job = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow",
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}}});
    for (field, value) in more.as_object().expect("fields") {
        cron_job["spec"][field] = value.clone();
    }
    world.apply(cron_job);
    world
}

fn minutes(world: &mut World, minutes: u64) {
    world.run_for(Duration::from_secs(60 * minutes));
}

fn names(world: &World) -> Vec<String> {
    world.list::<Job>().into_iter().filter_map(|job| job.metadata.name.clone()).collect()
}

fn told(world: &World) -> CronJobStatus {
    world.get::<CronJob>("default", "hello").and_then(|it| it.status.clone()).unwrap_or_default()
}

fn end(world: &mut World, name: &str, type_: &str) {
    let now = world.now.to_meta();
    world.edit::<Job>(&ObjectKey::namespaced("default", name), |job| {
        let status = job.status.get_or_insert_default();
        let condition = json!([{"type": type_, "status": "True"}]);
        status.conditions = serde_json::from_value(condition).expect("conditions");
        status.completion_time = (type_ == "Complete").then_some(now);
    });
}

#[test]
fn jobs_are_made_at_their_times_and_forgotten() {
    let mut world = world(json!({"timeZone": "Asia/Seoul"}));
    minutes(&mut world, 1);
    assert_eq!(names(&world), Vec::<String>::new());
    minutes(&mut world, 3);
    // 10,200 seconds, the 170th minute.
    assert_eq!(names(&world), ["hello-170"]);
    let job = world.list::<Job>()[0].clone();
    let annotations = job.metadata.annotations.expect("annotations");
    assert_eq!(annotations[CRON_JOB_TIMESTAMP], "1970-01-01T11:50:00+09:00");
    assert_eq!(job.metadata.labels.expect("labels")["a"], "b");
    let status = told(&world);
    assert_eq!(
        status.active.map(|active| active[0].name.clone()),
        Some(Some("hello-170".to_owned()))
    );
    assert_eq!(
        status.last_schedule_time.as_ref().map(Time::from),
        Some(Time::from_seconds(10_200))
    );
    for _ in 0..5 {
        let last = names(&world).pop().expect("a Job");
        end(&mut world, &last, "Complete");
        minutes(&mut world, 5);
    }
    assert_eq!(names(&world), ["hello-180", "hello-185", "hello-190", "hello-195"]);
    assert!(told(&world).last_successful_time.is_some());
    let said = world.messages();
    for text in [
        "Created job hello-170",
        "Saw completed job: hello-170, condition: Complete",
        "Deleted job hello-170",
    ] {
        assert!(said.contains(&text), "{text} in {said:?}");
    }
}

#[test]
fn jobs_that_still_run_are_let_be_waited_for_or_replaced() {
    for (policy, expected, said) in [
        ("Allow", vec!["hello-170", "hello-175", "hello-180"], "Created job hello-175"),
        (
            "Forbid",
            vec!["hello-170"],
            "Not starting job because prior execution is running and concurrency policy is Forbid",
        ),
        ("Replace", vec!["hello-180"], "Deleted job hello-175"),
    ] {
        let mut world = world(json!({"concurrencyPolicy": policy}));
        minutes(&mut world, 14);
        assert_eq!(names(&world), expected, "{policy}");
        assert!(world.messages().contains(&said), "{policy}");
    }
}

#[test]
fn nothing_is_made_while_suspended_and_missed_times_have_a_deadline() {
    let mut world = world(json!({"suspend": true, "startingDeadlineSeconds": 60}));
    minutes(&mut world, 9);
    assert_eq!(names(&world), Vec::<String>::new());
    let resume = |world: &mut World| {
        world.edit::<CronJob>(&ObjectKey::namespaced("default", "hello"), |it| {
            it.spec.suspend = Some(false)
        });
    };
    resume(&mut world);
    world.run_for(Duration::from_secs(1));
    assert_eq!(names(&world), ["hello-175"], "40 seconds late");
    let mut world = self::world(json!({"suspend": true, "startingDeadlineSeconds": 10}));
    minutes(&mut world, 9);
    resume(&mut world);
    world.run_for(Duration::from_secs(1));
    assert_eq!(names(&world), Vec::<String>::new(), "too late");
}

#[test]
fn a_restart_makes_no_job_twice() {
    let mut world = world(json!({}));
    for _ in 0..5 {
        world.restart(vec![Box::new(CronJobController::new())]);
        minutes(&mut world, 2);
    }
    assert_eq!(names(&world), ["hello-170", "hello-175"]);
    let created = world.messages().iter().filter(|text| text.starts_with("Created job")).count();
    assert_eq!(created, 2);
}
