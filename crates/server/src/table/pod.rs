//! Pods. The status column sums up phase, reasons and container states as upstream's printer does.

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as MetaTime;
use serde_json::{Value, json};
use wharf_model::pod::{is_sidecar, is_terminal};
use wharf_model::time::Time;

use super::{Column, age, or_none};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("Name"),
    Column::text("Ready"),
    Column::text("Status"),
    Column::text("Restarts"),
    Column::text("Age"),
    Column::text("IP").wide(),
    Column::text("Node").wide(),
    Column::text("Nominated Node").wide(),
    Column::text("Readiness Gates").wide(),
];

pub(super) fn cells(pod: &Pod, now: Time) -> Vec<Value> {
    let no_spec = PodSpec::default();
    let no_status = PodStatus::default();
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let mut summary = Summary::of(spec, status);
    if pod.metadata.deletion_timestamp.is_some() {
        if status.reason.as_deref() == Some("NodeLost") {
            summary.reason = "Unknown".to_owned();
        } else if !is_terminal(pod) {
            summary.reason = "Terminating".to_owned();
        }
    }
    let ip = status.pod_ips.iter().flatten().next().map(|ip| ip.ip.as_str());
    vec![
        json!(pod.metadata.name),
        json!(format!("{}/{}", summary.ready, summary.containers)),
        json!(summary.reason),
        json!(summary.restarts_text(now)),
        json!(age(pod.metadata.creation_timestamp.as_ref(), now)),
        or_none(ip),
        or_none(spec.node_name.as_deref()),
        or_none(status.nominated_node_name.as_deref()),
        readiness_gates(spec, status),
    ]
}

/// What the row of a finished pod says beside its cells.
pub(super) fn conditions(pod: &Pod) -> Option<Value> {
    let (reason, message) = match pod.status.as_ref()?.phase.as_deref()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

/// What the containers of a pod add up to.
struct Summary {
    reason: String,
    ready: usize,
    containers: usize,
    restarts: i32,
    last_restart: Option<MetaTime>,
}

impl Summary {
    fn of(spec: &PodSpec, status: &PodStatus) -> Self {
        let phase = status.phase.as_deref().unwrap_or_default();
        let reason = status.reason.as_deref().filter(|reason| !reason.is_empty()).unwrap_or(phase);
        let gated = conditions_of(status).any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.reason.as_deref() == Some("SchedulingGated")
        });
        let sidecars = init_containers(spec).filter(|container| is_sidecar(container)).count();
        let mut summary = Self {
            reason: if gated { "SchedulingGated".to_owned() } else { reason.to_owned() },
            ready: 0,
            containers: spec.containers.len() + sidecars,
            restarts: 0,
            last_restart: None,
        };
        let sidecar_restarts = summary.init_containers(spec, status);
        let initialized = conditions_of(status)
            .any(|condition| condition.type_ == "Initialized" && condition.status == "True");
        if sidecar_restarts.is_done || initialized {
            // Once initialized only restarts of what goes on running count.
            summary.restarts = sidecar_restarts.count;
            summary.last_restart = sidecar_restarts.last;
            summary.main_containers(status);
        }
        summary
    }

    /// Looks at the init containers up to the first that is not done.
    fn init_containers(&mut self, spec: &PodSpec, status: &PodStatus) -> SidecarRestarts {
        let mut sidecars = SidecarRestarts { count: 0, last: None, is_done: true };
        let statuses = status.init_container_statuses.iter().flatten();
        for (index, container) in statuses.enumerate() {
            self.restarts += container.restart_count;
            later(&mut self.last_restart, last_end(container));
            let is_sidecar = init_containers(spec)
                .any(|known| known.name == container.name && is_sidecar(known));
            if is_sidecar {
                sidecars.count += container.restart_count;
                later(&mut sidecars.last, last_end(container));
            }
            let state = container.state.as_ref();
            let terminated = state.and_then(|state| state.terminated.as_ref());
            let waiting = state
                .and_then(|state| state.waiting.as_ref())
                .and_then(|waiting| waiting.reason.as_deref())
                .filter(|reason| !reason.is_empty() && *reason != "PodInitializing");
            if terminated.is_some_and(|terminated| terminated.exit_code == 0) {
                continue;
            }
            if is_sidecar && container.started == Some(true) {
                self.ready += usize::from(container.ready);
                continue;
            }
            self.reason = match (terminated, waiting) {
                (Some(ended), _) => format!("Init:{}", end_reason(ended)),
                (None, Some(reason)) => format!("Init:{reason}"),
                (None, None) => format!("Init:{index}/{}", init_containers(spec).count()),
            };
            sidecars.is_done = false;
            break;
        }
        sidecars
    }

    /// Looks at the containers; of several reasons the first container's is shown.
    fn main_containers(&mut self, status: &PodStatus) {
        let mut has_running = false;
        for container in status.container_statuses.iter().flatten().rev() {
            self.restarts += container.restart_count;
            later(&mut self.last_restart, last_end(container));
            let state = container.state.as_ref();
            let waiting = state
                .and_then(|state| state.waiting.as_ref())
                .and_then(|waiting| waiting.reason.as_deref())
                .filter(|reason| !reason.is_empty());
            let terminated = state.and_then(|state| state.terminated.as_ref());
            let running = state.is_some_and(|state| state.running.is_some());
            if let Some(reason) = waiting {
                self.reason = reason.to_owned();
            } else if let Some(ended) = terminated {
                self.reason = end_reason(ended);
            } else if container.ready && running {
                has_running = true;
                self.ready += 1;
            }
        }
        // Some containers are done while others run.
        if self.reason == "Completed" && has_running {
            let is_ready = conditions_of(status)
                .any(|condition| condition.type_ == "Ready" && condition.status == "True");
            self.reason = if is_ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn restarts_text(&self, now: Time) -> String {
        match &self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!("{} ({} ago)", self.restarts, age(Some(last), now))
            }
            _ => self.restarts.to_string(),
        }
    }
}

/// Restarts of the init containers that go on running beside the others.
struct SidecarRestarts {
    count: i32,
    last: Option<MetaTime>,
    /// Whether no init container is left to be done.
    is_done: bool,
}

fn conditions_of(status: &PodStatus) -> impl Iterator<Item = &PodCondition> {
    status.conditions.iter().flatten()
}

fn init_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten()
}

/// Why a container ended: its reason, or its signal or exit code.
fn end_reason(ended: &k8s_openapi::api::core::v1::ContainerStateTerminated) -> String {
    match (ended.reason.as_deref(), ended.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", ended.exit_code),
    }
}

/// When a container's last run ended.
fn last_end(container: &ContainerStatus) -> Option<&MetaTime> {
    container.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()
}

fn later(latest: &mut Option<MetaTime>, time: Option<&MetaTime>) {
    if let Some(time) = time
        && latest.as_ref().is_none_or(|latest| latest < time)
    {
        *latest = Some(time.clone());
    }
}

fn readiness_gates(spec: &PodSpec, status: &PodStatus) -> Value {
    let gates = spec.readiness_gates.as_deref().unwrap_or_default();
    if gates.is_empty() {
        return json!("<none>");
    }
    let is_true = |name: &str| {
        conditions_of(status)
            .find(|condition| condition.type_ == name)
            .is_some_and(|condition| condition.status == "True")
    };
    let open = gates.iter().filter(|gate| is_true(&gate.condition_type)).count();
    json!(format!("{open}/{}", gates.len()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    fn pod(spec: Value, status: Value) -> Value {
        json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-01T23:57:00Z"},
            "spec": spec,
            "status": status,
        })
    }

    fn two_containers() -> Value {
        json!({"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "n"})
    }

    fn line(spec: Value, status: Value) -> String {
        printed("Pod", pod(spec, status))
    }

    #[test]
    fn statuses_are_upstreams() {
        let running = |name: &str, ready: bool| json!({"name": name, "ready": ready, "restartCount": 0, "image": "", "imageID": "", "state": {"running": {}}});
        let cases = [
            (json!({"phase": "Pending"}), "p|0/2|Pending|0|3m"),
            (
                json!({"phase": "Running", "containerStatuses": [running("a", true), running("b", false)]}),
                "p|1/2|Running|0|3m",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [
                    {"name": "a", "ready": false, "restartCount": 3, "image": "", "imageID": "",
                     "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                     "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T23:59:45Z"}}},
                    running("b", true)]}),
                "p|1/2|CrashLoopBackOff|3 (15s ago)|3m",
            ),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                "p|0/2|SchedulingGated|0|3m",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [
                    {"name": "a", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
                "p|0/2|Completed|0|3m",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [
                    {"name": "a", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
                "p|0/2|Signal:9|0|3m",
            ),
            (json!({"phase": "Failed", "reason": "Evicted"}), "p|0/2|Evicted|0|3m"),
            (
                json!({"phase": "Running", "containerStatuses": [
                    {"name": "a", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                    running("b", true)]}),
                "p|1/2|NotReady|0|3m",
            ),
        ];
        for (status, expected) in cases {
            let text = line(two_containers(), status.clone());
            assert_eq!(text.split(" || ").next(), Some(expected), "{status}");
        }
    }

    #[test]
    fn init_containers_show_how_far_they_are() {
        let spec = json!({
            "containers": [{"name": "c"}],
            "initContainers": [{"name": "i"}, {"name": "j"}, {"name": "s", "restartPolicy": "Always"}],
        });
        let init = |name: &str, rest: Value| {
            let mut status = json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": ""});
            status
                .as_object_mut()
                .expect("object")
                .extend(rest.as_object().expect("object").clone());
            status
        };
        let done = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        for (statuses, expected) in [
            (json!([init("i", json!({"state": {"running": {}}}))]), "p|0/2|Init:0/3|0|3m"),
            (
                json!([
                    init("i", done.clone()),
                    init("j", json!({"state": {"waiting": {"reason": "PodInitializing"}}}))
                ]),
                "p|0/2|Init:1/3|0|3m",
            ),
            (
                json!([init("i", json!({"state": {"terminated": {"exitCode": 2}}}))]),
                "p|0/2|Init:ExitCode:2|0|3m",
            ),
            (
                json!([init("i", json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}}))]),
                "p|0/2|Init:ImagePullBackOff|0|3m",
            ),
            (
                json!([
                    init("i", done.clone()),
                    init("j", done),
                    init("s", json!({"started": true, "ready": true, "state": {"running": {}}}))
                ]),
                "p|1/2|Pending|0|3m",
            ),
        ] {
            let text =
                line(spec.clone(), json!({"phase": "Pending", "initContainerStatuses": statuses}));
            assert_eq!(text.split(" || ").next(), Some(expected), "{statuses}");
        }
    }

    #[test]
    fn deletion_and_wide_columns() {
        let mut going = pod(
            json!({"containers": [{"name": "a"}], "nodeName": "n", "readinessGates": [{"conditionType": "g"}, {"conditionType": "h"}]}),
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "g", "status": "True"}]}),
        );
        assert_eq!(printed("Pod", going.clone()), "p|0/1|Running|0|3m || 10.0.0.1|n|<none>|1/2");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T23:59:00Z");
        assert!(printed("Pod", going.clone()).starts_with("p|0/1|Terminating|0|3m"));
        going["status"]["reason"] = json!("NodeLost");
        assert!(printed("Pod", going.clone()).starts_with("p|0/1|Unknown|0|3m"));
        going["status"] = json!({"phase": "Succeeded"});
        assert!(printed("Pod", going).starts_with("p|0/1|Succeeded|0|3m"));
    }
}
