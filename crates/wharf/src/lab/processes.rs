//! What goes on in the lab's containers when somebody enters them: modelled shells on threads of
//! their own, which wait on the lab's clock, and the pages that pods answer with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use wharf_controllers::journal::Journal;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_terminal;
use wharf_model::random::{Random, fnv1a};
use wharf_model::time::Time;
use wharf_node::pods::ended;
use wharf_node::shell::{self, Descriptor, Host, Wake, web};
use wharf_ports::clock::Clock as _;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::error::StatusReason;
use wharf_ports::metrics::Board;
use wharf_registry::Registry;
use wharf_server::{
    Input, Output, PIECES_MAX, PodLogs as _, PodProcesses, PortConnection, Process, ProcessCall,
};

use super::clock::ScaledClock;
use super::pod_logs::ModelledLogs;

/// How often a log that somebody is attached to is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long the end of a process may take to be seen by those attached to it.
const END_SEEN: Duration = Duration::from_secs(30);
/// The pause in every round of a shell's loop, so that an idle one leaves the machine alone.
const REST: Duration = Duration::from_millis(1);
/// The shortest wait on the clock: it may be held back by what is still to be done.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Over how much of cluster time usage is averaged.
const USAGE_SPAN: Duration = Duration::from_secs(10);
/// How often the end of a process is written if others change the pod at the same time.
const WRITES_MAX: usize = 10;

/// Processes of a lab's containers.
pub(super) struct ModelledProcesses {
    lab: Arc<LabParts>,
    logs: Arc<ModelledLogs>,
}

/// What every process sees of the lab.
struct LabParts {
    registry: Arc<Registry>,
    clock: Arc<ScaledClock>,
    board: Arc<Board>,
    stop: watch::Receiver<bool>,
}

impl ModelledProcesses {
    pub(super) fn new(
        registry: Arc<Registry>,
        clock: Arc<ScaledClock>,
        board: Arc<Board>,
        journal: Arc<Mutex<Journal>>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let logs = Arc::new(ModelledLogs::new(journal, Arc::clone(&clock) as Arc<_>));
        Self { lab: Arc::new(LabParts { registry, clock, board, stop }), logs }
    }

    /// Starts a shell on a thread; `then` is done with its exit code before the client hears of it.
    fn start(
        &self,
        call: ProcessCall,
        container: Container,
        command: Vec<String>,
        then: impl FnOnce(&LabParts, &ProcessCall, i32) + Send + 'static,
    ) -> Process {
        let (input, for_host) = mpsc::channel(PIECES_MAX);
        let (from_host, output) = mpsc::channel(PIECES_MAX);
        let lab = Arc::clone(&self.lab);
        let handle = Handle::current();
        tokio::task::spawn_blocking(move || {
            let Some(pod) = call.pod.typed::<Pod>() else { return };
            let mut waiting = VecDeque::new();
            if !call.stdin {
                waiting.push_back(Wake::End);
            }
            let mut host = LabHost {
                lab: &lab,
                handle: &handle,
                stop: lab.stop.clone(),
                input: for_host,
                output: from_host.clone(),
                waiting,
                size: (80, 24),
                gone: false,
            };
            let code = shell::exec(&mut host, pod, &container, &command, call.tty);
            if !host.gone {
                then(&lab, &call, code);
            }
            let _ = from_host.blocking_send(Output::Exit(code));
        });
        Process { input, output }
    }

    /// Shows what a container prints from now on.
    fn follow(&self, call: ProcessCall) -> Process {
        let (input, mut ignored) = mpsc::channel(PIECES_MAX);
        let (sender, output) = mpsc::channel(PIECES_MAX);
        let (lab, logs) = (Arc::clone(&self.lab), Arc::clone(&self.logs));
        tokio::spawn(async move {
            let mut stop = lab.stop.clone();
            let mut next = logs.read(&call.pod, &call.container, false, 0).lines.len() as u64;
            let mut ticks = tokio::time::interval(LOOK_AGAIN);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    Some(_) = ignored.recv() => continue,
                    () = sender.closed() => return,
                    _ = stop.wait_for(|stop| *stop) => return,
                }
                let Some(newest) = lab.newest(&call.pod) else { break };
                let part = logs.read(&newest, &call.container, false, next);
                next += part.lines.len() as u64;
                let end = if call.tty { "\r\n" } else { "\n" };
                let text: String =
                    part.lines.iter().map(|line| format!("{}{end}", line.text)).collect();
                if !text.is_empty() && sender.send(Output::Stdout(text.into())).await.is_err() {
                    return;
                }
                if part.finished {
                    break;
                }
            }
            let _ = sender.send(Output::Exit(0)).await;
        });
        Process { input, output }
    }
}

impl PodProcesses for ModelledProcesses {
    fn exec(&self, call: ProcessCall, command: Vec<String>) -> Result<Process, String> {
        let container = container_of(&call)?;
        let draw = self.lab.clock.now().as_nanos().unsigned_abs();
        if let Some(refusal) = shell::start_refusal(&container, &command, draw) {
            return Err(refusal);
        }
        Ok(self.start(call, container, command, |_, _, _| {}))
    }

    fn attach(&self, call: ProcessCall) -> Result<Process, String> {
        let container = container_of(&call)?;
        if container.stdin != Some(true) || !call.stdin {
            return Ok(self.follow(call));
        }
        // The first process reads what is typed: it is played for who is attached, and its end is the
        // container's.
        let call = ProcessCall { tty: container.tty == Some(true), ..call };
        let command = shell::first_process(&container);
        Ok(self.start(call, container, command, LabParts::end))
    }

    fn connect(&self, object: &Arc<Object>, port: u16) -> Result<Box<dyn PortConnection>, String> {
        let pod = object.typed::<Pod>();
        let open =
            pod.filter(|pod| !is_terminal(pod)).and_then(|pod| web::Connection::open(pod, port));
        match open {
            Some(connection) => Ok(Box::new(Forwarded(connection))),
            None => Err(refused(object.uid(), port)),
        }
    }
}

/// What the container runtime says where nobody listens.
fn refused(uid: &str, port: u16) -> String {
    let mut random = Random::new(fnv1a(uid.as_bytes()), 0x5a);
    let sandbox = random.hex(64);
    let name = random.hex(32);
    let name = [&name[..8], &name[8..12], &name[12..16], &name[16..20], &name[20..]].join("-");
    format!(
        "error forwarding port {port} to pod {sandbox}, uid : failed to execute portforward in network namespace \"/var/run/netns/cni-{name}\": failed to connect to localhost:{port} inside namespace \"{sandbox}\", IPv4: dial tcp4 127.0.0.1:{port}: connect: connection refused IPv6 dial tcp6 [::1]:{port}: connect: connection refused "
    )
}

struct Forwarded(web::Connection);

impl PortConnection for Forwarded {
    fn take(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> bool {
        self.0.take(bytes, answer)
    }
}

fn container_of(call: &ProcessCall) -> Result<Container, String> {
    let spec = call.pod.typed::<Pod>().and_then(|pod| pod.spec.as_ref());
    let mut containers = spec
        .into_iter()
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let found = containers.find(|container| container.name == call.container);
    found.cloned().ok_or_else(|| format!("container {} is not there", call.container))
}

impl LabParts {
    /// The pod as it is now, if it is still the same.
    fn newest(&self, object: &Object) -> Option<Arc<Object>> {
        let newest = self.registry.store().get(object.kind(), object.key());
        newest.filter(|newest| newest.uid() == object.uid())
    }

    /// Tells the kubelet that the first process of a container has ended, and waits until it knows.
    fn end(&self, call: &ProcessCall, code: i32) {
        let started = self.newest(&call.pod).and_then(|object| restarts(&object, &call.container));
        let Some(before) = started else { return };
        for _ in 0..WRITES_MAX {
            let Some(mut pod) = self.newest(&call.pod).and_then(|object| object.draft::<Pod>())
            else {
                return;
            };
            let (key, text) = ended(&call.container, before, code);
            pod.metadata.annotations.get_or_insert_default().insert(key, text);
            let write = Write::Update { object: Box::new(pod), part: Part::Main };
            match self.registry.apply(write) {
                Err(error) if error.reason == StatusReason::Conflict => {}
                Err(_) => return,
                Ok(_) => break,
            }
        }
        let store = self.registry.store();
        let seen = async {
            loop {
                let revision = store.revision();
                let object = self.newest(&call.pod);
                let runs =
                    object.is_some_and(|object| restarts(&object, &call.container).is_some());
                if !runs {
                    return;
                }
                store.wait_past(revision).await;
            }
        };
        let mut stop = self.stop.clone();
        Handle::current().block_on(async {
            tokio::select! {
                _ = tokio::time::timeout(END_SEEN, seen) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
    }
}

/// How often a container that runs was restarted.
fn restarts(object: &Object, container: &str) -> Option<u32> {
    let mut statuses = object.typed::<Pod>()?.status.as_ref()?.container_statuses.iter().flatten();
    let status = statuses.find(|status| status.name == container)?;
    status.state.as_ref()?.running.as_ref()?;
    u32::try_from(status.restart_count).ok()
}

/// The lab as a shell's host. Lives on a thread that may wait.
struct LabHost<'l> {
    lab: &'l LabParts,
    handle: &'l Handle,
    stop: watch::Receiver<bool>,
    input: mpsc::Receiver<Input>,
    output: mpsc::Sender<Output>,
    waiting: VecDeque<Wake>,
    size: (u16, u16),
    gone: bool,
}

impl LabHost<'_> {
    /// What an input is to the shell; sizes are noted.
    fn wake(&mut self, input: Option<Input>) -> Option<Wake> {
        match input {
            Some(Input::Data(bytes)) => Some(Wake::Input(bytes.to_vec())),
            Some(Input::End) => Some(Wake::End),
            Some(Input::Resize { columns, rows }) => {
                self.size = (columns, rows);
                None
            }
            None => {
                self.gone = true;
                Some(Wake::Gone)
            }
        }
    }
}

/// Waits until the clock shows a time.
async fn until(clock: &ScaledClock, time: Time) {
    let mut changes = clock.changes();
    while clock.now() < time {
        let wait = async {
            match clock.real_time_until(time) {
                Some(wait) => tokio::time::sleep(wait.max(WAIT_MIN)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => {}
            _ = changes.changed() => {}
        }
    }
}

impl Host for LabHost<'_> {
    fn now(&self) -> Time {
        self.lab.clock.now()
    }

    fn wait(&mut self, time: Option<Time>) -> Wake {
        if self.gone {
            return Wake::Gone;
        }
        if let Some(wake) = self.waiting.pop_front() {
            return wake;
        }
        loop {
            let (input, stop, clock) = (&mut self.input, &mut self.stop, &self.lab.clock);
            let event = self.handle.block_on(async {
                let late = async {
                    match time {
                        Some(time) => until(clock, time).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    input = input.recv() => Some(input),
                    _ = stop.wait_for(|stop| *stop) => Some(None),
                    () = late => None,
                }
            });
            match event {
                None => return Wake::Time,
                Some(input) => {
                    if let Some(wake) = self.wake(input) {
                        return wake;
                    }
                }
            }
        }
    }

    fn poll(&mut self, rest: bool) -> Wake {
        if rest {
            self.handle.block_on(tokio::time::sleep(REST));
        }
        if *self.stop.borrow() {
            self.gone = true;
        }
        if self.gone {
            return Wake::Gone;
        }
        if let Some(wake) = self.waiting.pop_front() {
            return wake;
        }
        loop {
            let input = match self.input.try_recv() {
                Ok(input) => Some(input),
                Err(mpsc::error::TryRecvError::Empty) => return Wake::Time,
                Err(mpsc::error::TryRecvError::Disconnected) => None,
            };
            if let Some(wake) = self.wake(input) {
                return wake;
            }
        }
    }

    fn write(&mut self, to: Descriptor, bytes: &[u8]) -> bool {
        let bytes = bytes.to_vec().into();
        let output = match to {
            Descriptor::Stdout => Output::Stdout(bytes),
            Descriptor::Stderr => Output::Stderr(bytes),
        };
        if self.output.blocking_send(output).is_err() {
            self.gone = true;
        }
        !self.gone
    }

    fn size(&self) -> (u16, u16) {
        self.size
    }

    fn get(&self, kind: Kind, key: &ObjectKey) -> Option<Arc<Object>> {
        self.lab.registry.store().get(kind, key)
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Object>> {
        self.lab.registry.store().list(kind, namespace).0
    }

    fn usage(&self, pod: &ObjectKey, container: &str) -> Option<(f64, u64)> {
        let now = self.lab.clock.now();
        let at = |time| {
            let all = self.lab.board.counters(&pod.namespace, &pod.name, time);
            all.into_iter().find(|counters| counters.container == container)
        };
        let newest = at(now)?;
        let span = USAGE_SPAN.min(now.since(newest.started));
        let before = at(now - span).map_or(0, |counters| counters.cpu_nanos);
        let used = newest.cpu_nanos.saturating_sub(before) as f64;
        Some((used / span.as_nanos().max(1) as f64, newest.memory_bytes))
    }
}
