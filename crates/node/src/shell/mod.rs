//! What somebody finds who enters a container with `kubectl exec` or `attach`: a modelled shell, a few
//! dozen tools, and a few files. A model, not a system: whatever is not in it is not found.
//!
//! Nothing here waits or looks at the cluster by itself; a [`Host`] does, and so one shell runs on the
//! lab's clock and in tests on none. [`exec`] runs a command to its end; [`start_refusal`] says
//! beforehand whether a container runtime could start it. Which commands there are depends on the
//! image ([`images`]).

mod files;
mod images;
mod interactive;
mod parse;
mod run;
mod tools;
pub mod web;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::{Object, ObjectKey, Typed};
use wharf_model::time::Time;

pub use images::start_refusal;

/// What a shell needs of the world.
pub trait Host {
    /// Cluster time.
    fn now(&self) -> Time;
    /// Waits until there is something to read or it is so late; without a time until there is
    /// something to read.
    fn wait(&mut self, until: Option<Time>) -> Wake;
    /// What there is to read at once. With `rest` it may take a moment of real time, so that a loop
    /// that does nothing does not take a processor.
    fn poll(&mut self, rest: bool) -> Wake;
    /// Hands output over; false if nobody is there any more.
    fn write(&mut self, to: Descriptor, bytes: &[u8]) -> bool;
    /// The terminal's columns and rows.
    fn size(&self) -> (u16, u16);
    /// An object of the cluster.
    fn get(&self, kind: Kind, key: &ObjectKey) -> Option<Arc<Object>>;
    /// All objects of a kind, or those of one namespace, in the order of their keys.
    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Object>>;
    /// The cores that a pod's container uses and the bytes it holds, if that is measured.
    fn usage(&self, pod: &ObjectKey, container: &str) -> Option<(f64, u64)>;
}

/// Why a wait is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// It is as late as was asked for, or nothing is there.
    Time,
    /// Something was sent.
    Input(Vec<u8>),
    /// Nothing more will be sent. Told once.
    End,
    /// The client has gone.
    Gone,
}

/// Where output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Runs a command in a container to its end; returns its exit code.
pub fn exec(
    host: &mut dyn Host,
    pod: &Pod,
    container: &Container,
    command: &[String],
    tty: bool,
) -> i32 {
    let mut shell = Shell::new(host, pod, container, tty);
    let streams = run::Streams::of_client();
    let done = shell.program(command, &streams);
    shell.exit_code(done)
}

/// The command that a container runs by itself: its own, or its image's.
pub fn first_process(container: &Container) -> Vec<String> {
    let command = container.command.iter().flatten();
    let mut words: Vec<String> = command.chain(container.args.iter().flatten()).cloned().collect();
    if container.command.is_none() {
        let entry = images::entry_point(container.image.as_deref().unwrap_or_default());
        match (entry, words.is_empty()) {
            (Some((program, _)), true) => words = vec![program.to_owned()],
            (Some((program, true)), false) => words.insert(0, program.to_owned()),
            _ => {}
        }
    }
    words
}

/// Why a command does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// The shell ends with this code.
    Exit(i32),
    /// Ctrl-C.
    Interrupt,
    /// The client has gone.
    Gone,
    /// So many loops are left.
    Break(u32),
    /// So many loops but one are left, and that goes on with its next round.
    Continue(u32),
}

/// What a command comes to: an exit code.
type Done = Result<i32, Flow>;

/// A shell in a container.
struct Shell<'h> {
    host: &'h mut dyn Host,
    pod: &'h Pod,
    container: &'h Container,
    tty: bool,
    image: images::Image,
    variables: BTreeMap<String, String>,
    /// `$0`, `$1`, …
    arguments: Vec<String>,
    /// Files that were written.
    written: BTreeMap<String, Vec<u8>>,
    folder: String,
    code: i32,
    depth: usize,
    /// What was typed and not read yet.
    typed: VecDeque<u8>,
    ended: bool,
    history: Vec<String>,
    /// Requests made so far: the one after the other goes to another endpoint.
    requests: usize,
}

impl<'h> Shell<'h> {
    fn new(host: &'h mut dyn Host, pod: &'h Pod, container: &'h Container, tty: bool) -> Self {
        let image = images::Image::of(container.image.as_deref().unwrap_or_default());
        let mut shell = Self {
            host,
            pod,
            container,
            tty,
            image,
            variables: BTreeMap::new(),
            arguments: Vec::new(),
            written: BTreeMap::new(),
            folder: container.working_dir.clone().unwrap_or_else(|| image.folder().to_owned()),
            code: 0,
            depth: 0,
            typed: VecDeque::new(),
            ended: false,
            history: Vec::new(),
            requests: 0,
        };
        shell.variables = shell.environment();
        shell
    }

    fn namespace(&self) -> &'h str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn host_name(&self) -> String {
        let spec = self.pod.spec.as_ref();
        if spec.is_some_and(|spec| spec.host_network == Some(true)) {
            return spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        }
        let named = spec.and_then(|spec| spec.hostname.clone());
        named.or_else(|| self.pod.metadata.name.clone()).unwrap_or_default()
    }

    fn ip(&self) -> String {
        let status = self.pod.status.as_ref();
        status.and_then(|status| status.pod_ip.clone()).unwrap_or_default()
    }

    /// An object of a kind, as that kind.
    fn object<T: Resource + Typed + Clone>(&self, namespace: &str, name: &str) -> Option<T> {
        let key = ObjectKey::namespaced(namespace, name);
        self.host.get(Kind::of::<T>(), &key)?.typed::<T>().cloned()
    }

    /// Lets time pass, as `sleep` does; Ctrl-C and the end of the connection cut it short.
    fn pass(&mut self, time: Duration) -> Result<(), Flow> {
        let until = self.host.now() + time;
        loop {
            match self.host.wait(Some(until)) {
                Wake::Time => return Ok(()),
                wake => self.take(wake)?,
            }
        }
    }

    /// Takes what has been typed meanwhile.
    fn breathe(&mut self, rest: bool) -> Result<(), Flow> {
        let wake = self.host.poll(rest);
        self.take(wake)
    }

    fn take(&mut self, wake: Wake) -> Result<(), Flow> {
        match wake {
            Wake::Time => Ok(()),
            Wake::End => {
                self.ended = true;
                Ok(())
            }
            Wake::Gone => Err(Flow::Gone),
            Wake::Input(bytes) => {
                match bytes.iter().rposition(|byte| self.tty && *byte == interactive::INTERRUPT) {
                    Some(at) => {
                        self.typed.clear();
                        self.typed.extend(&bytes[at + 1..]);
                        self.host.write(Descriptor::Stdout, b"^C");
                        Err(Flow::Interrupt)
                    }
                    None => {
                        self.typed.extend(bytes);
                        Ok(())
                    }
                }
            }
        }
    }

    /// The exit code of the first process.
    fn exit_code(&self, done: Done) -> i32 {
        match done {
            Ok(code) | Err(Flow::Exit(code)) => code,
            Err(Flow::Interrupt) => INTERRUPTED,
            Err(Flow::Gone) => HUNG_UP,
            Err(Flow::Break(_) | Flow::Continue(_)) => self.code,
        }
    }
}

/// The exit code of what SIGINT ended.
const INTERRUPTED: i32 = 130;
/// The exit code of what SIGHUP ended.
const HUNG_UP: i32 = 129;

#[cfg(test)]
mod tests;
