//! The Cluster Proportional Autoscaler as a program in pods: while a container of its image runs on
//! a simulated machine, this controller does what the program would, by the flags it was given.
//!
//! As upstream's it asks for the cluster's size and its ConfigMap once a period, beginning when it
//! starts, and scales its targets; what it says goes to the container's log. A container on a real
//! machine is left to itself.

mod log;
mod program;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Node, Pod};
use wharf_autoscale::cpa::container::is_program;
use wharf_model::instance::Instance;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::view::View;

use program::Program;

/// How long the machine of a running container is given to be known.
const RETRY: std::time::Duration = std::time::Duration::from_secs(5);

const READS: &[(&str, &str)] = &[
    ("", "configmaps"),
    ("", "nodes"),
    ("", "pods"),
    ("", "replicationcontrollers"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("sim.wharf.dev", "instances"),
];

/// The controller that plays every Cluster Proportional Autoscaler.
#[derive(Debug, Default)]
pub struct ProportionalAutoscalers {
    /// What runs in a pod, by the container's name.
    programs: BTreeMap<ObjectKey, BTreeMap<String, Program>>,
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    pod: String,
    container: String,
    restarts: i32,
    started: Time,
}

impl Controller for ProportionalAutoscalers {
    fn name(&self) -> &'static str {
        "cluster-proportional-autoscaler"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(READS)
    }

    fn observe(&mut self, change: &Change, _: &View, queue: &mut Enqueue) {
        let (kind, key) = (change.kind(), change.key());
        if kind == Kind::of::<Pod>() {
            let pod = change.object().typed::<Pod>();
            if pod.is_some_and(|pod| containers(pod).next().is_some()) {
                queue.now(WorkKey::object(kind, key));
            }
        } else if kind == Kind::of::<ConfigMap>() {
            for (pod, programs) in &self.programs {
                if programs.values().any(|program| program.awaits(key)) {
                    queue.now(WorkKey::object(Kind::of::<Pod>(), pod));
                }
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let mut step = Step::done();
        let pod = view.object(Kind::of::<Pod>(), &key.key);
        let Some((object, pod)) = pod.and_then(|pod| Some((pod, pod.typed::<Pod>()?))) else {
            self.programs.remove(&key.key);
            return step;
        };
        let runs: Vec<_> = containers(pod)
            .filter_map(|container| Some((container, run_of(object, pod, container)?)))
            .collect();
        if runs.is_empty() {
            self.programs.remove(&key.key);
            return step;
        }
        if !is_simulated(pod, view) {
            return Step::again_after(RETRY);
        }
        let programs = self.programs.entry(key.key.clone()).or_default();
        programs.retain(|name, _| runs.iter().any(|(_, run)| run.container == *name));
        for (container, run) in runs {
            let known = programs.get(&run.container).is_some_and(|program| program.run == run);
            if !known {
                let program = Program::start(run.clone(), pod, container, now, &mut step);
                programs.insert(run.container.clone(), program);
            }
            let Some(program) = programs.get_mut(&run.container) else { continue };
            if let Some(next) = program.go_on(view, now, &mut step) {
                let wait = next.since(now);
                step.again = Some(step.again.map_or(wait, |again| again.min(wait)));
            }
        }
        step
    }

    fn refused(&mut self, key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        for program in self.programs.get_mut(&key.key).into_iter().flat_map(BTreeMap::values_mut) {
            program.refused(write, error);
        }
        // Soon, so that the program can say so.
        OnError::Retry
    }
}

/// The pod's containers that are Cluster Proportional Autoscalers.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let all = pod.spec.iter().flat_map(|spec| &spec.containers);
    all.filter(|container| is_program(container))
}

/// The container's present run; `None` while there is none. The program ends when it is asked to.
fn run_of(object: &Object, pod: &Pod, container: &Container) -> Option<Run> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    let status = statuses.find(|status| status.name == container.name)?;
    let running = status.state.as_ref()?.running.as_ref()?;
    Some(Run {
        pod: object.uid().to_owned(),
        container: container.name.clone(),
        restarts: status.restart_count,
        started: running.started_at.as_ref()?.into(),
    })
}

/// Whether the pod's machine is one of the simulated cloud's.
fn is_simulated(pod: &Pod, view: &View) -> bool {
    let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let node = name.and_then(|name| view.get_cluster::<Node>(name));
    let machine = node.and_then(|node| node.spec.as_ref()?.provider_id.as_deref());
    let id = machine.and_then(|provider_id| provider_id.rsplit('/').next());
    id.is_some_and(|id| view.get_cluster::<Instance>(id).is_some())
}

#[cfg(test)]
mod tests;
