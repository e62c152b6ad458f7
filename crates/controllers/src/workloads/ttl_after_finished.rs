//! Jobs that are deleted a while after they have ended (`ttlSecondsAfterFinished`,
//! <https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/>). Their pods go
//! with them, before them.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use wharf_model::kinds::Kind;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Propagation, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;

use super::job::status;

/// The controller of `ttlSecondsAfterFinished`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TtlAfterFinished;

/// When a Job is to be deleted; `None` while it runs or if it is to stay.
fn expires_at(job: &Job) -> Option<Time> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let finished = status::finished(job)?.last_transition_time.as_ref()?;
    Some(Time::from(finished) + Duration::from_secs(u64::try_from(ttl).unwrap_or(0)))
}

impl Controller for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(&[("batch", "jobs")])
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let job = change.new.as_ref().and_then(|object| object.typed::<Job>());
        if job.and_then(expires_at).is_some() {
            queue.now(WorkKey::object(change.kind(), change.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some(object) = context.view.object(Kind::of::<Job>(), &key.key) else {
            return Step::done();
        };
        let expires = object.typed::<Job>().and_then(expires_at);
        let Some(at) = expires.filter(|_| object.header().deleting.is_none()) else {
            return Step::done();
        };
        if context.now < at {
            return Step::again_after(at.since(context.now));
        }
        let mut step = Step::done();
        let delete = Delete { propagation: Propagation::Foreground, ..Delete::of(object) };
        step.write(Write::Delete(delete));
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::workloads::harness::World;

    fn job(name: &str, ttl: Value, condition: &str) -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
            "status": {"conditions": [{"type": condition, "status": "True",
                "lastTransitionTime": "1970-01-01T02:46:40Z"}]}})
    }

    #[test]
    fn ended_jobs_go_when_their_time_is_over() {
        let mut world = World::new(vec![Box::new(TtlAfterFinished)]);
        for (name, ttl, condition) in [
            ("done", json!(60), "Complete"),
            ("failed", json!(30), "Failed"),
            ("kept", json!(null), "Complete"),
            ("running", json!(0), "SuccessCriteriaMet"),
        ] {
            world.apply(job(name, ttl, condition));
        }
        let going = |world: &World| -> Vec<String> {
            let deleting = |job: &&&Job| job.metadata.deletion_timestamp.is_some();
            let jobs = world.list::<Job>();
            jobs.iter().filter(deleting).filter_map(|job| job.metadata.name.clone()).collect()
        };
        world.run_for(Duration::from_secs(29));
        assert_eq!(going(&world), Vec::<String>::new());
        world.restart(vec![Box::new(TtlAfterFinished)]);
        world.run_for(Duration::from_secs(1));
        assert_eq!(going(&world), ["failed"]);
        world.run_for(Duration::from_secs(30));
        assert_eq!(going(&world), ["done", "failed"]);
        let held =
            world.get::<Job>("default", "done").and_then(|it| it.metadata.finalizers.clone());
        assert_eq!(held, Some(vec!["foregroundDeletion".to_owned()]));
        let writes = world.writes;
        world.run_for(Duration::from_secs(3_600));
        assert_eq!(world.writes, writes);
    }
}
