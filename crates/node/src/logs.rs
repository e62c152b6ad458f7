//! What a container printed, by the model of its process: a function of the pod and the time.
//!
//! Only processes that [`crate::program`] understands print anything.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Pod};
use wharf_model::time::Time;

use crate::program::{DATE, ERROR_HEAD, HOSTNAME, program_in};

/// The most lines told at once. A loop that prints this much is told of from its beginning.
const LINES_MAX: usize = 1_000_000;

/// What the named container has printed up to `now`, each line with its time; empty if it has not
/// run or prints nothing. Tells of the container that runs or, if none does, of the last one.
pub fn container_log(pod: &Pod, container: &str, now: Time) -> Vec<(Time, String)> {
    container_log_from(pod, container, 0, now)
}

/// The same from the line with number `from` on (the first is 0). Costs no more than the lines it
/// tells, so that a long log can be followed.
pub fn container_log_from(pod: &Pod, container: &str, from: u64, now: Time) -> Vec<(Time, String)> {
    let Some((spec, status)) = find(pod, container) else { return Vec::new() };
    let state = status.state.as_ref().filter(|state| span(state).is_some());
    lines(pod, spec, state.or(status.last_state.as_ref()), from, now)
}

/// What the container printed that ran before the present one (`kubectl logs --previous`); `None`
/// if there was none.
pub fn previous_container_log(
    pod: &Pod,
    container: &str,
    now: Time,
) -> Option<Vec<(Time, String)>> {
    let (spec, status) = find(pod, container)?;
    let last = status.last_state.as_ref().filter(|state| span(state).is_some())?;
    Some(lines(pod, spec, Some(last), 0, now))
}

fn find<'p>(pod: &'p Pod, name: &str) -> Option<(&'p Container, &'p ContainerStatus)> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let container = containers.into_iter().find(|container| container.name == name)?;
    let status = pod.status.as_ref()?;
    let statuses = status.init_container_statuses.iter().flatten();
    let status = statuses
        .chain(status.container_statuses.iter().flatten())
        .find(|status| status.name == name)?;
    Some((container, status))
}

/// From when until when the container of a state ran.
fn span(state: &ContainerState) -> Option<(Time, Option<Time>)> {
    if let Some(running) = &state.running {
        return Some((running.started_at.as_ref()?.into(), None));
    }
    let ended = state.terminated.as_ref()?;
    Some((ended.started_at.as_ref()?.into(), ended.finished_at.as_ref().map(Time::from)))
}

fn lines(
    pod: &Pod,
    container: &Container,
    state: Option<&ContainerState>,
    skip: u64,
    now: Time,
) -> Vec<(Time, String)> {
    let Some((from, until)) = state.and_then(span) else { return Vec::new() };
    // Times in a status are cut to seconds: what ended in a second ran to its end.
    let until = until.map_or(now, |until| until + Duration::from_secs(1)).min(now);
    let program = program_in(pod, container);
    let host = pod.metadata.name.as_deref().unwrap_or_default();
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let once = program.output.iter().map(|line| (from, line));
    let per_round = program.rounds.as_ref().map_or(0, |rounds| rounds.output.len());
    // Whole rounds before the first line asked for are passed over without being made.
    let passed = skip.saturating_sub(program.output.len()).checked_div(per_round).unwrap_or(0);
    let repeated = program.rounds.iter().filter(|_| per_round > 0).flat_map(|rounds| {
        (passed..).flat_map(move |round| {
            let nanos = rounds.period.as_nanos().saturating_mul(round as u128);
            let offset = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            let start = from + rounds.start + offset;
            rounds.output.iter().map(move |line| (start, line))
        })
    });
    once.chain(repeated)
        .skip(skip - passed * per_round)
        .map(|(start, line)| (start + line.at, line))
        .take_while(|(at, _)| *at <= until)
        .take(LINES_MAX)
        .map(|(at, line)| (at, render(&line.text, at, host)))
        .collect()
}

fn render(text: &str, at: Time, host: &str) -> String {
    if !text.contains('\u{1}') {
        return text.to_owned();
    }
    let date = at.timestamp().strftime("%a %b %e %H:%M:%S UTC %Y").to_string();
    let head = at.timestamp().strftime("E%m%d %H:%M:%S%.6f       1 ").to_string();
    text.replace(DATE, &date).replace(HOSTNAME, host).replace(ERROR_HEAD, &head)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(script: &str, state: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [
                {"name": "c", "image": "busybox", "command": ["sh", "-c", script]}]},
            "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "",
                "ready": true, "restartCount": 0, "state": state}]}
        }))
        .expect("a pod")
    }

    fn log(script: &str, state: serde_json::Value, now: i64) -> Vec<String> {
        let now = Time::from_seconds(now);
        container_log(&pod(script, state), "c", now).into_iter().map(|line| line.1).collect()
    }

    #[test]
    fn a_program_that_refuses_its_flags_tells_so_with_the_time() {
        let running = json!({"running": {"startedAt": "1970-01-01T00:01:40Z"}});
        let mut pod = pod("", running);
        let container = &mut pod.spec.get_or_insert_default().containers[0];
        container.image = Some("registry.k8s.io/cpa/cluster-proportional-autoscaler:v1.9.0".into());
        container.command = Some(vec!["/cluster-proportional-autoscaler".to_owned()]);
        container.args = Some(vec!["--namespace=x".to_owned(), "--configmap=y".to_owned()]);
        let lines = container_log(&pod, "c", Time::from_seconds(101));
        let texts: Vec<&str> = lines.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "E0101 00:01:40.000000       1 options.go:60] --target parameter cannot be empty",
                "E0101 00:01:40.000000       1 options.go:60] failed to validate all input parameters"
            ]
        );
    }

    #[test]
    fn loops_print_until_now() {
        let running = json!({"running": {"startedAt": "1970-01-01T00:01:40Z"}});
        let script = "echo begin; while true; do echo $(date) $(hostname); sleep 10; done";
        assert_eq!(
            log(script, running.clone(), 121),
            [
                "begin",
                "Thu Jan  1 00:01:40 UTC 1970 p",
                "Thu Jan  1 00:01:50 UTC 1970 p",
                "Thu Jan  1 00:02:00 UTC 1970 p",
            ]
        );
        let pod = pod(script, running);
        let all = container_log(&pod, "c", Time::from_seconds(200_000));
        assert_eq!(all.len(), 19_991);
        for from in [0, 1, 2, 7_000, 19_990, 19_991, 30_000] {
            let some = container_log_from(&pod, "c", from, Time::from_seconds(200_000));
            assert_eq!(some, all[usize::try_from(from).expect("small").min(all.len())..]);
        }
    }

    #[test]
    fn an_ended_container_keeps_its_log_and_a_waiting_one_has_none() {
        let ended = json!({"terminated": {"exitCode": 0, "startedAt": "1970-01-01T00:01:40Z",
            "finishedAt": "1970-01-01T00:01:45Z"}});
        assert_eq!(log("echo a; sleep 5; echo b", ended, 1_000), ["a", "b"]);
        assert_eq!(log("echo a", json!({"waiting": {}}), 1_000), Vec::<String>::new());
    }
}
