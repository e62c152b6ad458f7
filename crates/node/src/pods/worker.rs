//! One pod on its node: the order in which its containers start, and how they are stopped.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use wharf_model::random::{Random, fnv1a};
use wharf_model::time::Time;
use wharf_ports::event::EventType;

use super::resize::{Next, Resize};
use super::run::{Images, Restart, Run, Said, State};
use super::status;

/// The default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// A process always gets this long between SIGTERM and SIGKILL.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// The reason of a pod that the kubelet gave up for want of a resource.
pub(super) const EVICTED: &str = "Evicted";
const DEADLINE: &str = "Pod was active on the node longer than the specified deadline";

/// A pod on its node.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) uid: String,
    /// When the kubelet took the pod on.
    pub(super) start: Time,
    /// When sandbox and network are set up.
    pub(super) sandbox_at: Time,
    /// Whether the sandbox waits for volumes.
    pub(super) is_held: bool,
    pub(super) host_ip: Ipv4Addr,
    /// The pod's address; the host's on the host network.
    pub(super) ip: Option<Ipv4Addr>,
    /// Init containers first, each list in its order.
    pub(super) runs: Vec<Run>,
    pub(super) init_count: usize,
    pub(super) kill: Option<Kill>,
    /// Why the kubelet gave the pod up: status reason and message.
    pub(super) failure: Option<(&'static str, String)>,
    /// What the containers have while they are being resized; absent if that is what they ask for.
    pub(super) resize: Option<Box<Resize>>,
    draw: u64,
}

/// A pod being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kill {
    pub(super) since: Time,
    /// When the containers were all stopped.
    pub(super) down: Option<Time>,
}

impl Worker {
    /// A pod that the kubelet of the node with address `host_ip` takes on at `now`, or takes up
    /// again if its status shows that it had.
    pub(super) fn new(pod: &Pod, host_ip: Ipv4Addr, now: Time) -> Self {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let draw = fnv1a(uid.as_bytes());
        let status = pod.status.as_ref();
        let began = status.and_then(|status| status.start_time.as_ref()).map(Time::from);
        let start = began.unwrap_or(now);
        let sandbox = Random::new(draw, 0x5b).between(450, 1_100);
        let spec = pod.spec.clone().unwrap_or_default();
        let restart = restart_policy(&spec);
        let sandbox_at = start + Duration::from_millis(sandbox);
        let new = |container, init| Run::new(pod, container, init, restart, sandbox_at);
        let init = spec.init_containers.iter().flatten().map(|container| new(container, true));
        let mut runs: Vec<Run> = init.collect();
        let init_count = runs.len();
        runs.extend(spec.containers.iter().map(|container| new(container, false)));
        let statuses = status.into_iter().flat_map(|status| {
            let main = status.container_statuses.iter().flatten();
            status.init_container_statuses.iter().flatten().chain(main)
        });
        for status in statuses {
            if let Some(run) = runs.iter_mut().find(|run| run.name == status.name) {
                run.resume(status);
            }
        }
        let ip = if spec.host_network == Some(true) {
            Some(host_ip)
        } else {
            status.and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok())
        };
        let kill = (began.is_some() && pod.metadata.deletion_timestamp.is_some())
            .then(|| Kill { since: deletion_asked(pod), down: None });
        Self {
            uid,
            start,
            sandbox_at,
            is_held: false,
            host_ip,
            ip,
            runs,
            init_count,
            kill,
            failure: None,
            resize: None,
            draw,
        }
    }

    /// Holds the sandbox back as long as volumes are missing. What has begun goes on.
    pub(super) fn wait_for_volumes(&mut self, are_missing: bool, now: Time) {
        let has_begun = self.runs.iter().any(|run| !matches!(run.state, State::Waiting { .. }));
        if has_begun || are_missing == self.is_held {
            return;
        }
        self.is_held = are_missing;
        if !are_missing {
            let takes = Random::new(self.draw, 0x5b).between(450, 1_100);
            self.sandbox_at = now + Duration::from_millis(takes);
            for run in &mut self.runs {
                run.state = State::Waiting { since: self.sandbox_at };
            }
        }
    }

    /// Brings a resize that the pod's spec asks for up to `now`; says when to look again. `before` is
    /// what was last told of the containers, `room` whether the node can hold what is asked for.
    pub(super) fn advance_resize(
        &mut self,
        pod: &Pod,
        before: Option<&PodStatus>,
        room: &dyn Fn() -> Result<(), (&'static str, String)>,
        now: Time,
        said: &mut Vec<Said>,
    ) -> Option<Time> {
        if self.kill.is_some() {
            return None;
        }
        let known = self.resize.take();
        let mut resize = known.or_else(|| Resize::asked_for(pod, before).map(Box::new))?;
        let next = resize.advance(pod, &mut self.runs, room, self.draw, now, said);
        if next != Next::Over {
            self.resize = Some(resize);
        }
        match next {
            Next::At(at) => Some(at),
            Next::Over | Next::Wait => None,
        }
    }

    /// Whether a resize waits for room on the node.
    pub(super) fn is_cramped(&self) -> bool {
        self.resize.as_ref().is_some_and(|resize| resize.is_pending())
    }

    /// Brings the pod up to `now`; says when to look again.
    pub(super) fn advance(
        &mut self,
        pod: &Pod,
        images: &mut Images,
        now: Time,
        said: &mut Vec<Said>,
    ) -> Option<Time> {
        self.check_deadline(pod, now, said);
        if pod.metadata.deletion_timestamp.is_some() && self.kill.is_none() {
            self.begin_kill(now, said);
        }
        if let Some(kill) = self.kill {
            return self.advance_kill(pod, kill, now);
        }
        if self.is_held {
            return active_deadline(pod, self.start);
        }
        if now < self.sandbox_at {
            return Some(self.sandbox_at);
        }
        let name = status::full_name(pod);
        // Every round makes at least one transition; how many are due is bounded by how often
        // containers can restart since the last look.
        const ROUNDS_MAX: usize = 10_000;
        for _ in 0..ROUNDS_MAX {
            if !self.advance_once(&name, images, now, said) {
                break;
            }
        }
        if self.is_finished() {
            self.stop_sidecars(now, said);
        }
        let deadline = active_deadline(pod, self.start);
        let runs = self.runs.iter().filter_map(|run| run.next(now)).filter(|at| *at > now);
        runs.chain(deadline).min()
    }

    fn advance_once(
        &mut self,
        pod: &str,
        images: &mut Images,
        now: Time,
        said: &mut Vec<Said>,
    ) -> bool {
        let mut changed = false;
        for run in &mut self.runs {
            if matches!(run.state, State::Running { .. }) {
                changed |= run.advance(pod, images, now, said);
            }
        }
        for run in &mut self.runs {
            if !matches!(run.state, State::Running { .. }) {
                changed |= run.advance(pod, images, now, said);
            }
            let goes_on = match &run.state {
                _ if run.sidecar => run.is_started(now),
                State::Ended(ended) if run.init => ended.code == 0,
                // Containers are started one after the other, but none waits for one that backs
                // off.
                State::Running { .. } | State::Ended(_) | State::BackOff { .. } => !run.init,
                State::ImageMissing => !run.init,
                State::Waiting { .. } | State::Pulling { .. } | State::Starting { .. } => false,
            };
            if !goes_on {
                break;
            }
        }
        changed
    }

    /// Whether every init container has done its part.
    pub(super) fn initialized(&self) -> bool {
        self.runs[..self.init_count].iter().all(|run| match &run.state {
            _ if run.sidecar => {
                run.last.is_some() || matches!(run.state, State::Running { .. } | State::Ended(_))
            }
            State::Ended(ended) => ended.code == 0,
            _ => false,
        })
    }

    /// Whether no container runs any more.
    pub(super) fn is_down(&self) -> bool {
        !self.runs.iter().any(|run| matches!(run.state, State::Running { .. }))
    }

    /// Whether the pod is at its end: its containers have ended for good.
    pub(super) fn is_finished(&self) -> bool {
        matches!(status::phase(self), "Succeeded" | "Failed")
    }

    /// Whether the network of a stopped pod has been taken down.
    pub(super) fn removed_sandbox(&self, now: Time) -> bool {
        let down = self.kill.and_then(|kill| kill.down);
        down.is_some_and(|down| down <= now) || self.is_finished() && self.is_down()
    }

    /// When a pod being deleted can be removed from the API; `None` while it is being stopped.
    pub(super) fn remove_at(&self) -> Option<Time> {
        let down = self.kill?.down?;
        Some(down + Duration::from_millis(Random::new(self.draw, 0xde).between(150, 500)))
    }

    fn begin_kill(&mut self, now: Time, said: &mut Vec<Said>) {
        self.kill = Some(Kill { since: now, down: None });
        said.extend(self.killings());
    }

    /// What is said of every container that runs when the pod is stopped.
    pub(super) fn killings(&self) -> Vec<Said> {
        let running = self.runs.iter().filter(|run| matches!(run.state, State::Running { .. }));
        running
            .map(|run| {
                let message = format!("Stopping container {}", run.name);
                run.say(EventType::Normal, "Killing", message)
            })
            .collect()
    }

    /// Ends the containers whose time has come. Sidecars are stopped after the others.
    fn advance_kill(&mut self, pod: &Pod, kill: Kill, now: Time) -> Option<Time> {
        if kill.down.is_some() {
            return self.remove_at().filter(|at| *at > now);
        }
        let limit = kill.since + grace(pod);
        let mut last = kill.since;
        for sidecars in [false, true] {
            let begin = if sidecars { last } else { kill.since };
            for run in self.runs.iter_mut().filter(|run| run.sidecar == sidecars) {
                match run.state {
                    State::Running { since } => {
                        let (at, code) = stop(run, since, begin, limit);
                        last = last.max(at);
                        if at <= now {
                            run.end(at, code);
                        }
                    }
                    State::Ended(ref ended) => last = last.max(ended.at.min(limit)),
                    _ => {}
                }
            }
        }
        if !self.is_down() {
            return Some(last);
        }
        self.kill = Some(Kill { down: Some(last), ..kill });
        self.remove_at().filter(|at| *at > now)
    }

    /// The node has no memory left for the pod: its containers are killed at once.
    pub(super) fn evict(&mut self, message: String, now: Time) {
        for run in &mut self.runs {
            run.end(now, 137);
        }
        self.failure = Some((EVICTED, message));
        self.kill = Some(Kill { since: now, down: Some(now) });
    }

    fn stop_sidecars(&mut self, now: Time, said: &mut Vec<Said>) {
        for run in self.runs.iter_mut().filter(|run| run.sidecar) {
            if matches!(run.state, State::Running { .. }) {
                let message = format!("Stopping container {}", run.name);
                said.push(run.say(EventType::Normal, "Killing", message));
                run.end(now, if run.program.heeds_term { 0 } else { 137 });
            }
            run.restart = Restart::Never;
        }
    }

    fn check_deadline(&mut self, pod: &Pod, now: Time, said: &mut Vec<Said>) {
        let due = active_deadline(pod, self.start).is_some_and(|deadline| deadline <= now);
        if !due || self.failure.is_some() || self.is_finished() {
            return;
        }
        self.failure = Some(("DeadlineExceeded", DEADLINE.to_owned()));
        said.push(Said {
            field_path: String::new(),
            kind: EventType::Normal,
            reason: "DeadlineExceeded",
            message: DEADLINE.to_owned(),
            annotations: BTreeMap::new(),
        });
        if self.kill.is_none() {
            self.begin_kill(now, said);
        }
    }
}

/// When and how a running container ends that is asked to stop at `begin` and killed at `limit`.
fn stop(run: &Run, since: Time, begin: Time, limit: Time) -> (Time, i32) {
    let by_term = begin + run.pre_stop + run.stop_time();
    let stopped = if run.program.heeds_term && by_term < limit {
        (by_term, 0)
    } else {
        (limit.max(begin), 137)
    };
    match run.program.end {
        Some((after, code)) if since + after < stopped.0 => ((since + after).max(begin), code),
        _ => stopped,
    }
}

fn restart_policy(spec: &PodSpec) -> Restart {
    match spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    }
}

fn grace(pod: &Pod) -> Duration {
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds =
        pod.metadata.deletion_grace_period_seconds.or(own).unwrap_or(DEFAULT_GRACE_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(MINIMUM_GRACE)
}

/// When the deletion was asked for: the deletion timestamp is when the grace period ends.
fn deletion_asked(pod: &Pod) -> Time {
    let ends = pod.metadata.deletion_timestamp.as_ref().map(Time::from).unwrap_or_default();
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    ends - Duration::from_secs(u64::try_from(grace).unwrap_or(0))
}

fn active_deadline(pod: &Pod, start: Time) -> Option<Time> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    Some(start + Duration::from_secs(u64::try_from(seconds).ok()?))
}
