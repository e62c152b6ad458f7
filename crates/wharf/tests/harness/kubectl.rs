//! Real kubectls: where they are, and how they are called.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;

use super::process::{self, Finished, run_with_input};
use super::repository;

/// Names kubectls to test with instead of those that are found: paths with `:` between.
const VARIABLE: &str = "WHARF_KUBECTL";

/// A kubectl that is pointed at one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// The kubectl at `binary`, which keeps its caches in `home`.
    pub(crate) fn new(binary: &Path, kubeconfig: &Path, home: &Path) -> Self {
        let name = binary.file_name().unwrap_or_default();
        Self {
            binary: binary.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            // Versions must not read each other's caches.
            home: home.join("kubectl-home").join(name),
        }
    }

    /// A command with these arguments, to be finished by the caller.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        std::fs::create_dir_all(&self.home).expect("a temporary folder can be written");
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(repository());
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        command.env("KUBECTL_COMMAND_HEADERS", "false").env_remove("KUBECACHEDIR");
        command
    }

    /// Runs it. Arguments are words with spaces between; use [`Kubectl::args`] for others.
    pub(crate) fn run(&self, arguments: &str) -> Finished {
        self.args(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs it with these arguments.
    pub(crate) fn args(&self, arguments: &[&str]) -> Finished {
        run_with_input(self.command(arguments), "")
    }

    /// Runs it with a text as its input: `apply -f -`.
    pub(crate) fn input(&self, arguments: &str, input: &str) -> Finished {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        run_with_input(self.command(&arguments), input)
    }

    /// Runs it and gives back its stdout; the test fails if it fails.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &str) -> String {
        self.run(arguments).ok()
    }

    /// Runs it with `-o json` and reads the answer.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &str) -> Value {
        let text = self.ok(&format!("{arguments} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments}: {error}\n{text}"))
    }

    /// Runs it with `-o json` and reads the items of the list.
    #[track_caller]
    pub(crate) fn items(&self, arguments: &str) -> Vec<Value> {
        match self.json(arguments)["items"].take() {
            Value::Array(items) => items,
            other => panic!("{arguments} gave no list but {other}"),
        }
    }

    /// Starts it and leaves it running: for `-w`.
    pub(crate) fn start(&self, arguments: &str) -> Running {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let mut child = self
            .command(&words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let lines = process::lines_of(child.stdout.take().expect("stdout is piped"));
        let errors = process::text_of(child.stderr.take().expect("stderr is piped"));
        Running { child, lines, errors }
    }

    /// The version, as in `1.36`.
    pub(crate) fn version(&self) -> String {
        let text = self.ok("version --client -o json");
        let value: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
        let version = value["clientVersion"]["gitVersion"].as_str().unwrap_or_default().to_owned();
        version.trim_start_matches('v').split('.').take(2).collect::<Vec<_>>().join(".")
    }

    /// Karpenter's log, one JSON object a line, as its users read it.
    pub(crate) fn karpenter_log(&self) -> Vec<Value> {
        self.ok("logs -n kube-system -l app.kubernetes.io/name=karpenter -c controller --tail=-1")
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("a log line that is no JSON: {error}: {line}"))
            })
            .collect()
    }
}

/// A kubectl that runs on. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: std::process::Child,
    /// Its lines as they come.
    pub(crate) lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
}

impl Running {
    /// Reads lines until one holds `text`, and gives back all that were read.
    pub(crate) fn until(&self, text: &str) -> Vec<String> {
        self.until_that(&format!("{text:?}"), |line| line.contains(text))
    }

    /// The same until one is as wanted; `what` says what that is.
    pub(crate) fn until_that(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| wanted(line)) {
            match self.lines.recv_timeout(super::PATIENCE) {
                Ok(line) => seen.push(line),
                Err(error) => {
                    let errors = self.errors.lock().expect("no reader panics").clone();
                    panic!("no line with {what} came ({error}); {seen:#?}\n{errors}")
                }
            }
        }
        seen
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The newest of [`kubectls`].
pub(crate) fn newest_kubectl() -> PathBuf {
    kubectls().last().expect("there is at least one").1.clone()
}

/// The kubectls to test with, by version: those of `WHARF_KUBECTL`, or else those that `.ci/tools`
/// has fetched and the one on the PATH if its version is not among them.
pub(crate) fn kubectls() -> &'static [(String, PathBuf)] {
    static FOUND: OnceLock<Vec<(String, PathBuf)>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        for binary in candidates() {
            let Some(version) = version_of(&binary) else { continue };
            if found.iter().all(|(known, _)| *known != version) {
                found.push((version, binary));
            }
        }
        assert!(
            !found.is_empty(),
            "no kubectl: these tests drive wharf with real ones; run .ci/tools to fetch them, or name some in {VARIABLE}"
        );
        found.sort_by_key(|(version, _)| minor(version));
        found
    })
}

fn candidates() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        return std::env::split_paths(&named).collect();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository().join("target"), |target| repository().join(target));
    let mut binaries: Vec<PathBuf> = std::fs::read_dir(target.join("tools"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl-1."))
        })
        .collect();
    binaries.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    binaries.extend(std::env::split_paths(&path).map(|folder| folder.join("kubectl")));
    binaries.into_iter().filter(|path| path.is_file()).collect()
}

fn version_of(binary: &Path) -> Option<String> {
    let output = Command::new(binary).args(["version", "--client", "-o", "json"]).output().ok()?;
    let value: Value = serde_json::from_slice(&output.stdout).ok()?;
    let text = value["clientVersion"]["gitVersion"].as_str()?.trim_start_matches('v').to_owned();
    Some(text.split('.').take(2).collect::<Vec<_>>().join("."))
}

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}
