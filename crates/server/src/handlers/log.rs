//! `pods/NAME/log`: what a container has printed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::sync::mpsc;
use wharf_model::object::Object;
use wharf_model::time::Time;
use wharf_ports::error::ApiError;

use super::{Call, Target, list, render};
use crate::api::Api;
use crate::body::Body;
use crate::logs::LogLine;
use crate::query::Query;
use crate::serve::stopped;
use crate::status::{bad_request, invalid};

/// How often a followed log is looked at. Cluster time may run a thousand times faster than this.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// Pieces that wait for a slow reader.
const PIECES_MAX: usize = 4;

/// What of a log is asked for.
struct Options {
    container: Option<String>,
    follow: bool,
    previous: bool,
    timestamps: bool,
    since: Option<Since>,
    tail_lines: Option<usize>,
    limit_bytes: Option<usize>,
}

enum Since {
    Seconds(i64),
    Time(Time),
}

impl Options {
    fn parse(query: &Query<'_>) -> Result<Self, ApiError> {
        let refuse = |field: &str, value: &str, why: &str| {
            let message = format!("Invalid value: {value}: {why}");
            Err(invalid("", "PodLogOptions", "", "FieldValueInvalid", field, &message))
        };
        let since_seconds = query.integer("sinceSeconds")?;
        let since_time = query.get("sinceTime").filter(|text| !text.is_empty());
        let since = match (since_seconds, since_time) {
            (Some(_), Some(_)) => {
                let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
                let message = format!("Forbidden: {why}");
                return Err(invalid("", "PodLogOptions", "", "FieldValueForbidden", "", &message));
            }
            (Some(seconds), None) if seconds < 1 => {
                return refuse("sinceSeconds", &seconds.to_string(), "must be greater than 0");
            }
            (Some(seconds), None) => Some(Since::Seconds(seconds)),
            (None, Some(text)) => match text.parse::<jiff::Timestamp>() {
                Ok(time) => Some(Since::Time(time.into())),
                Err(error) => {
                    return Err(bad_request(format!("parsing time {text:?}: {error}")));
                }
            },
            (None, None) => None,
        };
        let tail_lines = match query.integer("tailLines")? {
            Some(lines) if lines < 0 => {
                return refuse(
                    "tailLines",
                    &lines.to_string(),
                    "must be greater than or equal to 0",
                );
            }
            lines => lines.and_then(|lines| usize::try_from(lines).ok()),
        };
        let limit_bytes = match query.integer("limitBytes")? {
            Some(bytes) if bytes < 1 => {
                return refuse("limitBytes", &bytes.to_string(), "must be greater than 0");
            }
            bytes => bytes.and_then(|bytes| usize::try_from(bytes).ok()),
        };
        Ok(Self {
            container: query.get("container").filter(|name| !name.is_empty()).map(str::to_owned),
            follow: query.flag("follow").unwrap_or(false),
            previous: query.flag("previous").unwrap_or(false),
            timestamps: query.flag("timestamps").unwrap_or(false),
            since,
            tail_lines,
            limit_bytes,
        })
    }
}

/// Answers `get` on the log.
pub(super) async fn log(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let options = Options::parse(&call.query)?;
    let object = list::find(api, call, target).await?;
    let Some(pod) = object.typed::<Pod>() else {
        return Err(bad_request(format!("pod {} cannot be read", object.key().name)));
    };
    let container = container(pod, options.container.as_deref())?;
    let scheduled = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty()));
    if !scheduled {
        // A pod without a node has no log yet; upstream answers with an empty one.
        return Ok(text(Body::empty()));
    }
    check_started(pod, &container, options.previous)?;

    let part = api.parts.logs.read(&object, &container, options.previous, 0);
    let mut writer = Writer { timestamps: options.timestamps, left: options.limit_bytes };
    let start = match &options.since {
        Some(Since::Time(time)) => Some(*time),
        Some(Since::Seconds(seconds)) => {
            Some(api.now() - Duration::from_secs(seconds.unsigned_abs()))
        }
        None => None,
    };
    let next = part.lines.len() as u64;
    let mut lines = part.lines;
    if let Some(start) = start {
        lines.retain(|line| line.time >= start);
    }
    if let Some(tail) = options.tail_lines {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    let first = writer.write(&lines);
    if !options.follow || options.previous || part.finished || writer.is_full() {
        return Ok(text(Body::Full(first)));
    }
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let follower = Follower { api: Arc::clone(api), object, container, next, writer, sender };
    tokio::spawn(follower.run(first));
    Ok(text(Body::Stream(receiver)))
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    render::head(&mut response, "text/plain");
    response
}

/// Turns lines into text up to a number of bytes.
struct Writer {
    timestamps: bool,
    left: Option<usize>,
}

impl Writer {
    fn write(&mut self, lines: &[LogLine]) -> Bytes {
        let mut out = String::new();
        for line in lines {
            if self.timestamps {
                // Nine digits always, as the kubelet writes them.
                out += &format!("{:.9} ", line.time.timestamp());
            }
            out += &line.text;
            out.push('\n');
        }
        let mut bytes = Bytes::from(out);
        if let Some(left) = &mut self.left {
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        bytes
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }
}

/// A followed log, as a task that owns its place in it.
struct Follower {
    api: Arc<Api>,
    object: Arc<Object>,
    container: String,
    next: u64,
    writer: Writer,
    sender: mpsc::Sender<Bytes>,
}

impl Follower {
    /// Sends lines as they are printed, until the container ends, the pod goes, the client leaves
    /// or the server stops.
    async fn run(mut self, first: Bytes) {
        if !first.is_empty() && self.sender.send(first).await.is_err() {
            return;
        }
        let mut stop = self.api.parts.stop.clone();
        let mut ticks = tokio::time::interval(FOLLOW_INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.sender.closed() => return,
                () = stopped(&mut stop) => return,
            }
            let newest = self.api.store.get(self.object.kind(), self.object.key());
            let there = newest.filter(|newest| newest.uid() == self.object.uid());
            let gone = there.is_none();
            self.object = there.unwrap_or(self.object);
            let part = self.api.parts.logs.read(&self.object, &self.container, false, self.next);
            self.next += part.lines.len() as u64;
            let bytes = self.writer.write(&part.lines);
            if !bytes.is_empty() && self.sender.send(bytes).await.is_err() {
                return;
            }
            if part.finished || gone || self.writer.is_full() {
                return;
            }
        }
    }
}

/// The container that is asked for, of which there is one if none is named.
pub(super) fn container(pod: &Pod, asked: Option<&str>) -> Result<String, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let containers: Vec<String> = spec.containers.into_iter().map(|c| c.name).collect();
    let init: Vec<String> = spec.init_containers.into_iter().flatten().map(|c| c.name).collect();
    match asked {
        Some(asked) if containers.iter().chain(&init).any(|known| known == asked) => {
            Ok(asked.to_owned())
        }
        Some(asked) => Err(bad_request(format!("container {asked} is not valid for pod {name}"))),
        None => match &containers[..] {
            [only] if init.is_empty() => Ok(only.clone()),
            [] => Err(bad_request(format!("a container name must be specified for pod {name}"))),
            several => {
                let mut message = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    several.join(" ")
                );
                if !init.is_empty() {
                    message += &format!(" or one of the init containers: [{}]", init.join(" "));
                }
                Err(bad_request(message))
            }
        },
    }
}

/// Refuses the log of a container that has not run, as the kubelet does.
fn check_started(pod: &Pod, container: &str, previous: bool) -> Result<(), ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref();
    let statuses = status
        .into_iter()
        .flat_map(|status| [&status.container_statuses, &status.init_container_statuses])
        .flatten()
        .flatten();
    let found: Option<&ContainerStatus> =
        statuses.into_iter().find(|status| status.name == container);
    let state = found.and_then(|status| status.state.as_ref());
    let terminated_before = found
        .and_then(|status| status.last_state.as_ref())
        .is_some_and(|state| state.terminated.is_some());
    if previous {
        return if terminated_before {
            Ok(())
        } else {
            Err(bad_request(format!(
                "previous terminated container {container:?} in pod {name:?} not found"
            )))
        };
    }
    let has_run = state.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
    if has_run || terminated_before {
        return Ok(());
    }
    let reason = state
        .and_then(|state| state.waiting.as_ref())
        .and_then(|waiting| waiting.reason.as_deref())
        .unwrap_or("ContainerCreating");
    Err(bad_request(format!(
        "container {container:?} in pod {name:?} is waiting to start: {reason}"
    )))
}
