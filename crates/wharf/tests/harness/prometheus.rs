//! A real Prometheus: where it is, and how it is started and asked.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::process::{self, Finished, run};
use super::{PATIENCE, repository, wait_for};

/// Names a Prometheus to test with instead of the one that is found.
const VARIABLE: &str = "WHARF_PROMETHEUS";

/// A running Prometheus. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    log: Arc<Mutex<String>>,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
}

impl Prometheus {
    /// Starts it in a folder that holds `prometheus.yml`, and its data if there is any, and waits
    /// until it answers.
    pub(crate) fn start(folder: &Path) -> Self {
        // It does not say which port it got. One that was free a moment ago most likely is.
        for _ in 0..3 {
            let mut started = Self::launch(folder);
            let is_ready = wait_for("Prometheus to be ready", || {
                match started.child.try_wait().expect("it was started here") {
                    Some(_) => Ok(false),
                    None => started.get("/-/ready").map(|_| true),
                }
            });
            if is_ready {
                return started;
            }
            let log = started.log();
            assert!(log.contains("address already in use"), "Prometheus ended:\n{log}");
        }
        panic!("three ports that were free were taken a moment later")
    }

    fn launch(folder: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port is free")
            .port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program("prometheus"));
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.args([
            &format!("--web.listen-address={address}"),
            // Blocks that a test has made may be of any age.
            "--storage.tsdb.retention.time=3650d",
            "--log.level=warn",
        ]);
        let mut child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let log = process::text_of(child.stderr.take().expect("stderr is piped"));
        Self { child, log, address }
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no reader panics").clone()
    }

    /// Asks its HTTP API. HTTP 1.0, so that the answer is whole when the connection closes.
    fn get(&self, path: &str) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| error.to_string())?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(answer),
        }
    }

    fn json(&self, path: &str) -> Result<Value, String> {
        let text = self.get(path)?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(text),
        }
    }

    /// What it says of its targets.
    pub(crate) fn targets(&self) -> Result<Vec<Value>, String> {
        let data = self.json("/api/v1/targets?state=active")?;
        Ok(data["activeTargets"].as_array().cloned().unwrap_or_default())
    }

    /// The series that a query finds now, each with its labels and value.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<(Value, f64)>, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.json(&format!("/api/v1/query?query={encoded}"))?;
        let series = data["result"].as_array().cloned().unwrap_or_default();
        let one = |series: &Value| {
            let value = series["value"][1].as_str().and_then(|value| value.parse().ok());
            (series["metric"].clone(), value.unwrap_or(f64::NAN))
        };
        Ok(series.iter().map(one).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of prometheus at {}:\n{}", self.address, self.log());
        }
    }
}

/// Runs promtool.
pub(crate) fn promtool(arguments: &[&str], folder: &Path) -> Finished {
    let mut command = Command::new(program("promtool"));
    command.args(arguments).current_dir(folder);
    run(command)
}

/// `prometheus` or `promtool`: of the environment, else what `.ci/tools` fetched, else of the PATH.
fn program(name: &str) -> PathBuf {
    if let Some(prometheus) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        return prometheus.with_file_name(name);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository().join("target"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fetched = target.join("tools/prometheus/usr/bin");
    std::iter::once(fetched)
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!(
                "there is no {name}: run .ci/tools, or install Prometheus (Debian: apt-get install prometheus), or name one with {VARIABLE}=/path/to/prometheus"
            )
        })
}
