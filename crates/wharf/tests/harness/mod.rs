//! What the tests of the binary share: a running `wharf up`, real kubectls, and waiting.
//!
//! A test starts its own [`Wharf`] on a free port with a kubeconfig of its own, so that tests can
//! run side by side. Nothing here counts on a machine's speed: what takes time is waited for, with
//! deadlines far beyond what it takes.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of the harness")]
#![allow(clippy::print_stderr, reason = "a test that fails says what it saw")]
#![allow(clippy::disallowed_methods, reason = "tests drive real processes, on real time")]

mod kubectl;
mod process;
mod prometheus;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use kubectl::{Kubectl, Running, kubectls, newest_kubectl};
pub(crate) use process::{Finished, run, run_with_input};
pub(crate) use prometheus::{Prometheus, promtool};

/// How long anything may take before a test fails. Far more than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often a condition is looked at that cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The binary under test.
pub(crate) fn wharf_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_wharf"))
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies two folders below the root")
        .to_owned()
}

/// A file of the inflate lab.
pub(crate) fn lab_file(name: &str) -> String {
    repository().join("labs/inflate").join(name).display().to_string()
}

/// How to start a lab.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Keep the cluster here; ephemeral if `None`.
    pub(crate) data: Option<PathBuf>,
    /// Cluster seconds in a second.
    pub(crate) speed: u32,
    /// Further arguments.
    pub(crate) arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { data: None, speed: 60, arguments: Vec::new() }
    }
}

/// A running `wharf up`. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Wharf {
    child: Child,
    /// The line it printed when it was ready.
    pub(crate) ready: String,
    /// Where the API is served.
    pub(crate) url: String,
    /// The kubeconfig it wrote.
    pub(crate) kubeconfig: PathBuf,
    /// What it has written to stderr so far.
    log: Arc<Mutex<String>>,
    folder: TempDir,
}

impl Wharf {
    /// Starts a lab and waits until it says that it is ready.
    pub(crate) fn start(options: &Options) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let kubeconfig = folder.path().join("kubeconfig");
        let mut command = Command::new(wharf_binary());
        command.args(["up", "--listen", "127.0.0.1:0"]);
        match &options.data {
            Some(data) => command.arg("--data").arg(data),
            None => command.arg("--ephemeral"),
        };
        command.arg("--kubeconfig").arg(&kubeconfig);
        command.args(["--speed", &options.speed.to_string()]);
        command.args(&options.arguments);
        command.env("HOME", folder.path()).env_remove("KUBECONFIG").stdin(Stdio::null());
        Self::launch(command, kubeconfig, folder)
    }

    /// An ephemeral lab at 60 cluster seconds a second.
    pub(crate) fn ephemeral() -> Self {
        Self::start(&Options::default())
    }

    /// Starts a prepared command that will write `kubeconfig`.
    pub(crate) fn launch(mut command: Command, kubeconfig: PathBuf, folder: TempDir) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let lines = process::lines_of(child.stdout.take().expect("stdout is piped"));
        let log = process::text_of(child.stderr.take().expect("stderr is piped"));
        let ready = ready_line(&lines).unwrap_or_else(|| {
            let _ = child.kill();
            let status = child.wait();
            let log = log.lock().expect("no reader panics").clone();
            panic!("{command:?} was not ready: {status:?}, stderr:\n{log}")
        });
        let url = ready
            .split_whitespace()
            .find(|word| word.starts_with("https://"))
            .unwrap_or_else(|| panic!("no address in the ready line {ready:?}"))
            .to_owned();
        Self { child, ready, url, kubeconfig, log, folder }
    }

    /// The newest kubectl, pointed at this lab.
    pub(crate) fn kubectl(&self) -> Kubectl {
        Kubectl::new(&newest_kubectl(), &self.kubeconfig, self.folder.path())
    }

    /// A certain kubectl, pointed at this lab.
    pub(crate) fn with_kubectl(&self, binary: &Path) -> Kubectl {
        Kubectl::new(binary, &self.kubeconfig, self.folder.path())
    }

    /// A folder that goes away with the lab.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has written to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no reader panics").clone()
    }

    /// Runs `wharf` against this lab.
    pub(crate) fn wharf(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(wharf_binary());
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command.env("HOME", self.folder.path());
        run(command)
    }

    /// Starts `wharf run` against this lab's API and waits until it runs.
    pub(crate) fn run_beside(&self, arguments: &[&str]) -> Beside {
        let mut command = Command::new(wharf_binary());
        command.arg("run").args(arguments).arg("--kubeconfig").arg(&self.kubeconfig);
        command.env("HOME", self.folder.path()).env_remove("KUBECONFIG").stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let lines = process::lines_of(child.stdout.take().expect("stdout is piped"));
        let log = process::text_of(child.stderr.take().expect("stderr is piped"));
        let mut beside = Beside { child, log, ready: String::new() };
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => beside.ready = line,
            Err(_) => panic!("{command:?} does not run:\n{}", beside.log()),
        }
        beside
    }

    /// Ends it as `kill -9` does: it has no say in it.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process was started here");
    }

    /// Asks it to stop with a signal (`TERM`, `INT`) and waits until it has.
    pub(crate) fn stop(mut self, signal: &str) -> ExitStatus {
        send(signal, self.child.id());
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process was started here") {
                return status;
            }
            assert!(Instant::now() < give_up, "it did not stop on SIG{signal}:\n{}", self.log());
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// A running `wharf run`. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Beside {
    child: Child,
    log: Arc<Mutex<String>>,
    /// The line it printed when it ran.
    pub(crate) ready: String,
}

impl Beside {
    /// What it has written to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no reader panics").clone()
    }

    /// Asks it to stop with a signal and waits until it has.
    pub(crate) fn stop(mut self, signal: &str) -> ExitStatus {
        send(signal, self.child.id());
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process was started here") {
                return status;
            }
            assert!(Instant::now() < give_up, "it did not stop on SIG{signal}:\n{}", self.log());
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_for("wharf run to end", || {
            let status = self.child.try_wait().expect("the process was started here");
            status.ok_or_else(|| self.log())
        })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of wharf run:\n{}", self.log());
        }
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of wharf at {}:\n{}", self.url, self.log());
        }
    }
}

/// Says where a test is, for when it fails.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Sends a signal to a process that has not been waited for yet.
fn send(signal: &str, pid: u32) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {pid}")])
        .status()
        .expect("sh is on every system");
    assert!(status.success(), "signal {signal} could not be sent to {pid}");
}

/// Looks at a condition until it gives a value; what it last said is told when time is over.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(state) if Instant::now() >= give_up => {
                panic!("waited {}s for {what}; the last state was:\n{state}", PATIENCE.as_secs())
            }
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Numbers from a seed, for moments and choices of a test that a failure can be replayed with.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut state = self.0;
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (state ^ (state >> 31)) % limit
    }
}

fn ready_line(lines: &Receiver<String>) -> Option<String> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let line = lines.recv_timeout(give_up.saturating_duration_since(Instant::now())).ok()?;
        if line.starts_with("wharf is ready at ") {
            return Some(line);
        }
    }
}

/// Runs both and gives back what they return: for two programs that must run at one time.
pub(crate) fn together<A: Send + 'static, B>(
    first: impl FnOnce() -> A + Send + 'static,
    second: impl FnOnce() -> B,
) -> (A, B) {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(first());
    });
    let second = second();
    let first = receiver.recv();
    thread.join().expect("the first of two has panicked");
    (first.expect("a thread that has not panicked has sent its result"), second)
}
