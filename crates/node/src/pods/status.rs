//! A pod's status as the kubelet reports it, made from the state of its containers.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use wharf_model::duration;
use wharf_model::time::Time;

use super::resize;
use super::run::{Ended, OOM_KILLED, Run, State};
use super::worker::{EVICTED, Worker};
use crate::image;

/// The condition types that are the kubelet's.
const OWN_CONDITIONS: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    resize::CONDITIONS[0],
    resize::CONDITIONS[1],
];

/// The kubelet's part of the status. `before` is the status last reported; conditions that did
/// not change keep their time.
pub(super) fn report(
    worker: &Worker,
    pod: &Pod,
    before: Option<&PodStatus>,
    now: Time,
) -> PodStatus {
    let phase = phase(worker);
    let waiting_since_start = now < worker.sandbox_at;
    let (init, main) = worker.runs.split_at(worker.init_count);
    let statuses = |runs: &[Run], containers: &[Container]| -> Vec<ContainerStatus> {
        let mut list: Vec<_> = runs
            .iter()
            .map(|run| {
                let container = containers.iter().find(|container| container.name == run.name);
                container_status(worker, run, container, pod, now)
            })
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    };
    let spec = pod.spec.as_ref();
    let init_containers = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let ip = (!waiting_since_start && !worker.removed_sandbox(now))
        .then(|| worker.ip.map(|ip| ip.to_string()))
        .flatten();
    let (reason, message) = match &worker.failure {
        Some((reason, message)) => (Some((*reason).to_owned()), Some(message.clone())),
        None => (None, None),
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(worker, pod, phase, before, now)),
        container_statuses: Some(statuses(main, containers)).filter(|list| !list.is_empty()),
        init_container_statuses: Some(statuses(init, init_containers))
            .filter(|list| !list.is_empty()),
        host_ip: Some(worker.host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: worker.host_ip.to_string() }]),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        start_time: Some(worker.start.to_meta()),
        observed_generation: pod.metadata.generation,
        reason,
        message,
        ..PodStatus::default()
    }
}

/// Puts the kubelet's part into a status that others write to as well.
pub(super) fn merge(own: &PodStatus, seen: Option<&PodStatus>) -> PodStatus {
    let mut status = seen.cloned().unwrap_or_default();
    let mut conditions = own.conditions.clone().unwrap_or_default();
    let others = status.conditions.take().unwrap_or_default();
    let is_own = |type_: &str| {
        OWN_CONDITIONS.contains(&type_) || conditions.iter().any(|own| own.type_ == type_)
    };
    let others: Vec<_> = others.into_iter().filter(|other| !is_own(&other.type_)).collect();
    conditions.splice(0..0, others);
    status.conditions = Some(conditions);
    status.phase.clone_from(&own.phase);
    status.container_statuses.clone_from(&own.container_statuses);
    status.init_container_statuses.clone_from(&own.init_container_statuses);
    status.host_ip.clone_from(&own.host_ip);
    status.host_ips.clone_from(&own.host_ips);
    status.pod_ip.clone_from(&own.pod_ip);
    status.pod_ips.clone_from(&own.pod_ips);
    status.start_time.clone_from(&own.start_time);
    status.observed_generation = own.observed_generation;
    if own.reason.is_some() {
        status.reason.clone_from(&own.reason);
        status.message.clone_from(&own.message);
    }
    status
}

/// The pod's phase by upstream's rules
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase>). A pod that is
/// being deleted reaches a final phase whatever its restart policy.
pub(super) fn phase(worker: &Worker) -> &'static str {
    if worker.failure.is_some() && worker.is_down() {
        return "Failed";
    }
    let (init, main) = worker.runs.split_at(worker.init_count);
    let ended = |run: &&Run| matches!(run.state, State::Ended(_));
    let failed = |run: &Run| matches!(&run.state, State::Ended(ended) if ended.code != 0);
    if worker.kill.is_some() && worker.is_down() && main.iter().any(|run| ended(&run)) {
        return if main.iter().any(failed) { "Failed" } else { "Succeeded" };
    }
    let init_failed = |run: &Run| !run.sidecar && failed(run) && run.is_over();
    if init.iter().any(init_failed) {
        return "Failed";
    }
    if !worker.initialized() {
        return "Pending";
    }
    if main.iter().all(Run::is_over) && !main.is_empty() {
        return if main.iter().any(failed) { "Failed" } else { "Succeeded" };
    }
    let never_ran = |run: &Run| {
        run.last.is_none() && !matches!(run.state, State::Running { .. } | State::Ended(_))
    };
    if main.iter().any(never_ran) { "Pending" } else { "Running" }
}

fn conditions(
    worker: &Worker,
    pod: &Pod,
    phase: &str,
    before: Option<&PodStatus>,
    now: Time,
) -> Vec<PodCondition> {
    let (init, main) = worker.runs.split_at(worker.init_count);
    let names = |runs: Vec<&Run>| -> String {
        runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let sandbox = now >= worker.sandbox_at && !worker.removed_sandbox(now);
    let not_initialized: Vec<&Run> = init
        .iter()
        .filter(|run| if run.sidecar { !run.is_started(now) } else { !run.is_ready(now) })
        .collect();
    let over = matches!(phase, "Succeeded" | "Failed");
    let initialized = if worker.initialized() {
        (true, (phase == "Succeeded").then_some("PodCompleted"), None)
    } else {
        let text = format!("containers with incomplete status: [{}]", names(not_initialized));
        (false, Some("ContainersNotInitialized"), Some(text))
    };
    let watched = init.iter().filter(|run| run.sidecar).chain(main);
    let not_ready: Vec<&Run> = watched.filter(|run| !run.is_ready(now)).collect();
    let ready = if over {
        let reason = if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
        (false, Some(reason), None)
    } else if not_ready.is_empty() && worker.initialized() {
        (true, None, None)
    } else {
        let text = format!("containers with unready status: [{}]", names(not_ready));
        (false, Some("ContainersNotReady"), Some(text))
    };
    let gates_missing: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten())
        .map(|gate| gate.condition_type.as_str())
        .filter(|gate| {
            let conditions =
                pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            !conditions.into_iter().any(|c| c.type_ == *gate && c.status == "True")
        })
        .collect();
    let pod_ready = if ready.0 && !gates_missing.is_empty() {
        let text = format!(
            "corresponding condition of pod readiness gate \"{}\" does not exist.",
            gates_missing[0]
        );
        (false, Some("ReadinessGatesNotReady"), Some(text))
    } else {
        ready.clone()
    };
    [
        ("PodReadyToStartContainers", (sandbox, None, None)),
        ("Initialized", initialized),
        ("Ready", pod_ready),
        ("ContainersReady", ready),
        ("PodScheduled", (true, None, None)),
    ]
    .into_iter()
    .chain(disruption(worker))
    .map(|(type_, (status, reason, message))| {
        let status = if status { "True" } else { "False" };
        let before = before
            .and_then(|before| before.conditions.iter().flatten().find(|c| c.type_ == type_))
            .filter(|before| before.status == status);
        PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            message,
            last_transition_time: before
                .and_then(|before| before.last_transition_time.clone())
                .or_else(|| Some(now.to_meta())),
            observed_generation: pod.metadata.generation,
            last_probe_time: None,
        }
    })
    .chain(worker.resize.iter().flat_map(|resize| resize.conditions(pod, before, now)))
    .collect()
}

/// A condition's type, whether it holds, its reason and message.
type Told = (&'static str, (bool, Option<&'static str>, Option<String>));

/// That the kubelet ended the pod for want of a resource.
fn disruption(worker: &Worker) -> Option<Told> {
    let (reason, message) = worker.failure.as_ref()?;
    let told = (true, Some("TerminationByKubelet"), Some(message.clone()));
    (*reason == EVICTED).then_some(("DisruptionTarget", told))
}

fn container_status(
    worker: &Worker,
    run: &Run,
    container: Option<&Container>,
    pod: &Pod,
    now: Time,
) -> ContainerStatus {
    let has_run =
        run.last.is_some() || matches!(run.state, State::Running { .. } | State::Ended(_));
    let running = matches!(run.state, State::Running { .. });
    let id = match &run.state {
        State::Running { .. } => Some(run.id()),
        State::Ended(ended) => Some(ended.id.clone()),
        _ => run.last.as_ref().map(|last| last.id.clone()),
    };
    let asked = container.and_then(|container| container.resources.as_ref());
    let (actual, allotted) =
        worker.resize.as_ref().map_or((None, None), |resize| resize.resources(&run.name));
    let (actual, allotted) = (actual.or(asked), allotted.or(asked));
    ContainerStatus {
        name: run.name.clone(),
        state: Some(state(worker, run, pod, now)),
        last_state: Some(ContainerState {
            terminated: run.last.as_ref().map(terminated),
            ..ContainerState::default()
        }),
        ready: run.is_ready(now),
        started: Some(run.is_started(now)),
        restart_count: i32::try_from(run.restarts).unwrap_or(i32::MAX),
        image: if has_run { image::canonical(&run.image) } else { run.image.clone() },
        image_id: if has_run { image::image_id(&run.image) } else { String::new() },
        container_id: id,
        allocated_resources: allotted
            .filter(|_| running)
            .and_then(|resources| resources.requests.clone()),
        resources: actual.filter(|_| running).cloned(),
        ..ContainerStatus::default()
    }
}

fn state(worker: &Worker, run: &Run, pod: &Pod, now: Time) -> ContainerState {
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    };
    match &run.state {
        State::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(since.to_meta()) }),
            ..ContainerState::default()
        },
        State::Ended(ended) => {
            ContainerState { terminated: Some(terminated(ended)), ..ContainerState::default() }
        }
        State::BackOff { delay, .. } => {
            let delay = duration::format(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX));
            let message = format!(
                "back-off {delay} restarting failed container={} pod={}",
                run.name,
                full_name(pod)
            );
            waiting("CrashLoopBackOff", Some(message))
        }
        State::ImageMissing => {
            let message = format!(
                "Container image \"{}\" is not present with pull policy of Never",
                run.image
            );
            waiting("ErrImageNeverPull", Some(message))
        }
        State::Waiting { .. } | State::Pulling { .. } | State::Starting { .. } => {
            let early = now < worker.sandbox_at || worker.initialized();
            if worker.init_count > 0 && !(early && worker.initialized()) {
                waiting("PodInitializing", None)
            } else {
                waiting("ContainerCreating", None)
            }
        }
    }
}

fn terminated(ended: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(ended.id.clone()),
        exit_code: ended.code,
        reason: Some(
            match ended.code {
                _ if ended.out_of_memory => OOM_KILLED,
                0 => "Completed",
                _ => "Error",
            }
            .to_owned(),
        ),
        started_at: Some(ended.since.to_meta()),
        finished_at: Some(ended.at.to_meta()),
        ..ContainerStateTerminated::default()
    }
}

/// `name_namespace(uid)`: how the kubelet names a pod in texts.
pub(super) fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!(
        "{}_{}({})",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default()
    )
}
