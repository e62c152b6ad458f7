//! Processes in containers: the hook through which the program that runs the pods lets `exec`,
//! `attach` and `port-forward` in.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use wharf_model::object::Object;

/// Pieces of input that wait for a process, and of output that wait for a client.
pub const PIECES_MAX: usize = 16;

/// Runs commands in containers and answers at their ports.
pub trait PodProcesses: Send + Sync {
    /// Starts a command in a running container.
    ///
    /// # Errors
    /// Why the container runtime cannot start it, in its words.
    fn exec(&self, call: ProcessCall, command: Vec<String>) -> Result<Process, String>;

    /// Joins the first process of a running container.
    ///
    /// # Errors
    /// Why the container runtime cannot.
    fn attach(&self, call: ProcessCall) -> Result<Process, String>;

    /// Connects to a port of a pod.
    ///
    /// # Errors
    /// Why nobody answers there, in the container runtime's words.
    fn connect(&self, pod: &Arc<Object>, port: u16) -> Result<Box<dyn PortConnection>, String>;
}

/// Where a process is wanted, and what of it the client has.
#[derive(Clone, Debug)]
pub struct ProcessCall {
    /// The pod.
    pub pod: Arc<Object>,
    /// The container.
    pub container: String,
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether the process has a terminal.
    pub tty: bool,
}

/// A running process, as its client holds it. When `input` is dropped the client has gone.
#[derive(Debug)]
pub struct Process {
    /// What the client sends.
    pub input: mpsc::Sender<Input>,
    /// What the process gives; ends after [`Output::Exit`].
    pub output: mpsc::Receiver<Output>,
}

/// What a client sends to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes for stdin.
    Data(Bytes),
    /// Stdin has ended.
    End,
    /// The terminal has another size.
    Resize {
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
}

/// What a process gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes of stdout.
    Stdout(Bytes),
    /// Bytes of stderr.
    Stderr(Bytes),
    /// It has ended, with this exit code.
    Exit(i32),
}

/// One connection to a port of a pod. Takes what the client sends and answers at once.
pub trait PortConnection: Send {
    /// Takes bytes; appends the answer. Returns whether the other side has closed the connection.
    fn take(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> bool;
}

/// Pods into which nobody gets.
pub struct ClosedPods;

impl PodProcesses for ClosedPods {
    fn exec(&self, _: ProcessCall, _: Vec<String>) -> Result<Process, String> {
        Err("this server runs no processes".to_owned())
    }

    fn attach(&self, _: ProcessCall) -> Result<Process, String> {
        Err("this server runs no processes".to_owned())
    }

    fn connect(&self, _: &Arc<Object>, _: u16) -> Result<Box<dyn PortConnection>, String> {
        Err("this server runs no processes".to_owned())
    }
}
