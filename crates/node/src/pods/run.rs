//! One container through its life: pull, create, start, end, back off, start again.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, Probe};
use wharf_model::duration;
use wharf_model::random::{Random, fnv1a};
use wharf_model::time::Time;
use wharf_ports::event::EventType;

use crate::image;
use crate::program::{Program, program_in, program_of};

/// Longest wait between restarts.
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// Wait before the second restart; each further one is twice as long.
const BACK_OFF_FIRST: Duration = Duration::from_secs(10);
/// A container that ran this long starts its back-off anew.
const BACK_OFF_RESET: Duration = Duration::from_secs(600);
/// The reason of a container that the kernel killed for want of memory.
pub(super) const OOM_KILLED: &str = "OOMKilled";
/// How long the kubelet takes to notice that a container ended.
const NOTICE: Duration = Duration::from_secs(1);

/// The images of one node: when each is, or will be, there.
#[derive(Debug, Default)]
pub(super) struct Images(pub(super) BTreeMap<String, Time>);

/// What the kubelet has to say about a container.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// `spec.containers{name}`; empty for the pod.
    pub(super) field_path: String,
    pub(super) kind: EventType,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// Annotations of the Event.
    pub(super) annotations: BTreeMap<String, String>,
}

/// When a container is started again after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting {
        since: Time,
    },
    Pulling {
        since: Time,
        until: Time,
    },
    /// The image is not there and may not be pulled.
    ImageMissing,
    Starting {
        at: Time,
    },
    Running {
        since: Time,
    },
    Ended(Ended),
    BackOff {
        until: Time,
        delay: Duration,
    },
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) id: String,
    pub(super) since: Time,
    pub(super) at: Time,
    pub(super) code: i32,
    /// Whether the kernel killed it for want of memory.
    pub(super) out_of_memory: bool,
}

/// A container of a pod.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) init: bool,
    pub(super) sidecar: bool,
    pub(super) restart: Restart,
    pub(super) state: State,
    pub(super) restarts: u32,
    pub(super) last: Option<Ended>,
    pub(super) program: Program,
    /// From start until the startup probe has succeeded.
    pub(super) started_after: Duration,
    /// From start until the readiness probe has succeeded.
    pub(super) ready_after: Duration,
    pub(super) pre_stop: Duration,
    pull_policy: String,
    /// Restarts since the back-off was last reset.
    streak: u32,
    /// Tells this container's draws from those of all others.
    draw: u64,
}

impl Run {
    /// A container that waits since `since`. `pod_restart` is the pod's restart policy.
    pub(super) fn new(
        pod: &Pod,
        container: &Container,
        init: bool,
        pod_restart: Restart,
        since: Time,
    ) -> Self {
        let image = container.image.clone().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let draw = fnv1a(format!("{uid}/{}", container.name).as_bytes());
        let sidecar = init && wharf_model::pod::is_sidecar(container);
        let restart = match pod_restart {
            _ if sidecar => Restart::Always,
            Restart::Never => Restart::Never,
            _ if init => Restart::OnFailure,
            restart => restart,
        };
        let started_after = probe_delay(container.startup_probe.as_ref(), draw);
        let readiness = probe_delay(container.readiness_probe.as_ref(), draw ^ 1);
        Self {
            name: container.name.clone(),
            init,
            sidecar,
            restart,
            state: State::Waiting { since },
            restarts: 0,
            last: None,
            program: program_in(pod, container),
            started_after,
            ready_after: started_after.max(readiness),
            pre_stop: pre_stop(container),
            pull_policy: container
                .image_pull_policy
                .clone()
                .unwrap_or_else(|| image::default_pull_policy(&image).to_owned()),
            image,
            streak: 0,
            draw,
        }
    }

    /// Takes up where a status left off: what a kubelet does after its own restart.
    pub(super) fn resume(&mut self, status: &ContainerStatus) {
        self.restarts = u32::try_from(status.restart_count).unwrap_or(0);
        self.streak = self.restarts;
        let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
            let ended = state.as_ref()?.terminated.as_ref()?;
            Some(Ended {
                id: ended.container_id.clone().unwrap_or_default(),
                since: ended.started_at.as_ref().map(Time::from).unwrap_or_default(),
                at: ended.finished_at.as_ref().map(Time::from).unwrap_or_default(),
                code: ended.exit_code,
                out_of_memory: ended.reason.as_deref() == Some(OOM_KILLED),
            })
        };
        self.last = ended(&status.last_state);
        if let Some(now_ended) = ended(&status.state) {
            self.state = State::Ended(now_ended);
        } else if let Some(running) = status.state.as_ref().and_then(|s| s.running.as_ref()) {
            let since = running.started_at.as_ref().map(Time::from).unwrap_or_default();
            self.state = State::Running { since };
        } else if let Some(last) = &self.last {
            let delay = back_off(self.restarts);
            self.state = State::BackOff { until: last.at + delay, delay };
        }
    }

    /// Makes the transitions that are due at `now`; returns whether there was any.
    pub(super) fn advance(
        &mut self,
        pod: &str,
        images: &mut Images,
        now: Time,
        said: &mut Vec<Said>,
    ) -> bool {
        match self.state.clone() {
            State::Waiting { since } if since <= now => self.fetch(now, images, said),
            State::Pulling { since, until } if until <= now => {
                images.0.entry(self.image.clone()).or_insert(until);
                let took = duration::format(millis(until.since(since)));
                let size = image::size_bytes(&self.image);
                let message = format!(
                    "Successfully pulled image \"{}\" in {took} ({took} including waiting). Image size: {size} bytes.",
                    self.image
                );
                said.push(self.say(EventType::Normal, "Pulled", message));
                self.state = State::Starting { at: until + self.create_time() };
            }
            State::Starting { at } if at <= now => {
                said.push(self.say(EventType::Normal, "Created", "Container created"));
                said.push(self.say(EventType::Normal, "Started", "Container started"));
                self.state = State::Running { since: at };
            }
            State::Running { since } => match self.program.end {
                Some((after, code)) if since + after <= now => self.end(since + after, code),
                _ => return false,
            },
            State::Ended(ended) => return self.after_end(ended, pod, now, said),
            State::BackOff { until, .. } if until <= now => self.again(until),
            _ => return false,
        }
        true
    }

    /// When [`Run::advance`] has something to do, or readiness changes, next.
    pub(super) fn next(&self, now: Time) -> Option<Time> {
        match &self.state {
            State::Waiting { since } => Some(*since),
            State::Pulling { until, .. } | State::BackOff { until, .. } => Some(*until),
            State::Starting { at } => Some(*at),
            State::Running { since } => {
                let end = self.program.end.map(|(after, _)| *since + after);
                let probes = [*since + self.started_after, *since + self.ready_after];
                let probe = probes.into_iter().filter(|at| *at > now).min();
                end.into_iter().chain(probe).min()
            }
            State::Ended(ended) => {
                let restarts = self.restarts_after(ended) && ended.at + NOTICE > now;
                restarts.then_some(ended.at + NOTICE)
            }
            State::ImageMissing => None,
        }
    }

    /// Ends the container at `at`.
    pub(super) fn end(&mut self, at: Time, code: i32) {
        if let State::Running { since } = self.state {
            let id = self.id();
            self.state = State::Ended(Ended { id, since, at, code, out_of_memory: false });
        }
    }

    /// The kernel kills it for want of memory.
    pub(super) fn kill_for_memory(&mut self, at: Time) {
        self.end(at, 137);
        if let State::Ended(ended) = &mut self.state {
            ended.out_of_memory = true;
        }
    }

    /// Since when it runs.
    pub(super) fn running_since(&self) -> Option<Time> {
        match self.state {
            State::Running { since } => Some(since),
            _ => None,
        }
    }

    /// Stops the container and has it started anew at once, without back-off.
    pub(super) fn restart_at(&mut self, at: Time) {
        if let State::Running { since } = self.state {
            let code = if self.program.heeds_term { 0 } else { 137 };
            self.last = Some(Ended { id: self.id(), since, at, code, out_of_memory: false });
            self.restarts += 1;
            self.state = State::Waiting { since: at };
        }
    }

    /// Whether it is started again after such an end.
    pub(super) fn restarts_after(&self, ended: &Ended) -> bool {
        match self.restart {
            Restart::Always => true,
            Restart::OnFailure => ended.code != 0,
            Restart::Never => false,
        }
    }

    /// Whether it has ended for good.
    pub(super) fn is_over(&self) -> bool {
        matches!(&self.state, State::Ended(ended) if !self.restarts_after(ended))
    }

    pub(super) fn is_started(&self, now: Time) -> bool {
        matches!(self.state, State::Running { since } if since + self.started_after <= now)
    }

    pub(super) fn is_ready(&self, now: Time) -> bool {
        match &self.state {
            State::Running { since } => *since + self.ready_after <= now,
            // An init container that did its work counts as ready.
            State::Ended(ended) => self.init && !self.sidecar && ended.code == 0,
            _ => false,
        }
    }

    /// The id of the container that runs or would run now.
    pub(super) fn id(&self) -> String {
        let mut random = Random::new(self.draw, u64::from(self.restarts));
        format!("containerd://{}", random.hex(64))
    }

    pub(super) fn say(
        &self,
        kind: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Said {
        let list = if self.init { "initContainers" } else { "containers" };
        let field_path = format!("spec.{list}{{{}}}", self.name);
        let annotations = BTreeMap::new();
        Said { field_path, kind, reason, message: message.into(), annotations }
    }

    /// How long it takes to stop on SIGTERM, for a process that heeds it.
    pub(super) fn stop_time(&self) -> Duration {
        Duration::from_millis(Random::new(self.draw, 0x7e).between(100, 600))
    }

    fn fetch(&mut self, now: Time, images: &mut Images, said: &mut Vec<Said>) {
        let there = images.0.get(&self.image).copied();
        let present = there.is_some_and(|since| since <= now);
        let draw = self.draw ^ u64::from(self.restarts);
        match self.pull_policy.as_str() {
            "Always" => {}
            _ if present => {
                let message = format!(
                    "Container image \"{}\" already present on machine and can be accessed by the pod",
                    self.image
                );
                said.push(self.say(EventType::Normal, "Pulled", message));
                self.state = State::Starting { at: now + self.create_time() };
                return;
            }
            "Never" => {
                let message = format!(
                    "Container image \"{}\" is not present with pull policy of Never",
                    self.image
                );
                said.push(self.say(EventType::Warning, "ErrImageNeverPull", message));
                self.state = State::ImageMissing;
                return;
            }
            _ => {}
        }
        let message = format!("Pulling image \"{}\"", self.image);
        said.push(self.say(EventType::Normal, "Pulling", message));
        let check = now + image::check_time(&self.image, draw);
        let until = match there {
            // EKS nodes pull in parallel; layers under way are waited for, not fetched twice.
            Some(there) => there.max(check),
            None => now + image::pull_time(&self.image, draw),
        };
        images.0.entry(self.image.clone()).or_insert(until);
        self.state = State::Pulling { since: now, until };
    }

    fn after_end(&mut self, ended: Ended, pod: &str, now: Time, said: &mut Vec<Said>) -> bool {
        if !self.restarts_after(&ended) || now < ended.at + NOTICE {
            return false;
        }
        if ended.at.since(ended.since) >= BACK_OFF_RESET {
            self.streak = 0;
        }
        let delay = back_off(self.streak);
        let until = ended.at + delay.max(NOTICE);
        self.last = Some(ended);
        if delay.is_zero() {
            self.again(until);
        } else {
            let message =
                format!("Back-off restarting failed container {} in pod {pod}", self.name);
            said.push(self.say(EventType::Warning, "BackOff", message));
            self.state = State::BackOff { until, delay };
        }
        true
    }

    fn again(&mut self, since: Time) {
        self.restarts += 1;
        self.streak += 1;
        self.state = State::Waiting { since };
    }

    fn create_time(&self) -> Duration {
        Duration::from_millis(Random::new(self.draw, 0xc0).between(60, 250))
    }
}

/// The wait before a restart, by how many there were: none, 10 s, 20 s, … 5 min.
fn back_off(restarts: u32) -> Duration {
    match restarts {
        0 => Duration::ZERO,
        _ => (BACK_OFF_FIRST * 2_u32.saturating_pow((restarts - 1).min(10))).min(BACK_OFF_MAX),
    }
}

/// Whole milliseconds, in nanoseconds: the precision of the kubelet's texts.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000)
}

/// When a probe that always succeeds has done so often enough. Without a probe: at once.
fn probe_delay(probe: Option<&Probe>, draw: u64) -> Duration {
    let Some(probe) = probe else { return Duration::ZERO };
    let seconds = |value: Option<i32>, default: u64| {
        value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default)
    };
    let period = seconds(probe.period_seconds, 10).max(1);
    let further = seconds(probe.success_threshold, 1).saturating_sub(1) * period;
    let settle = Random::new(draw, 0xb0).between(50, 950);
    Duration::from_secs(seconds(probe.initial_delay_seconds, 0) + further)
        + Duration::from_millis(settle)
}

/// How long a preStop hook holds SIGTERM back, for hooks that sleep.
fn pre_stop(container: &Container) -> Duration {
    let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else {
        return Duration::ZERO;
    };
    if let Some(sleep) = &hook.sleep {
        return Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
    }
    let command = hook.exec.as_ref().and_then(|exec| exec.command.clone());
    command
        .map(|command| program_of(&Container { command: Some(command), ..Container::default() }))
        .and_then(|program| program.end)
        .map_or(Duration::ZERO, |(after, _)| after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_five_minutes() {
        let waits: Vec<u64> = (0..8).map(|restarts| back_off(restarts).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off(u32::MAX), BACK_OFF_MAX);
    }
}
