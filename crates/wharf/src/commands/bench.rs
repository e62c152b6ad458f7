//! `wharf bench`: measures this very binary, as a user would run it. Prints medians; judges nothing.

mod autoscale;
mod scheduling;
mod solve;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use wharf_store::{Expect, Store};

use super::simulate::rehearse;
use crate::cli::{BenchArgs, Benchmark, Output, SimulateArgs};
use crate::failure::Failure;
use crate::lab::clock::machine_instant;
use crate::output;

/// How long a started lab is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// Runs a benchmark.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    match &args.what {
        Benchmark::Startup { runs, objects } => startup((*runs).max(1), *objects, args.output),
        Benchmark::Scheduling(what) => scheduling::run(what, args.output),
        Benchmark::Autoscale(what) => autoscale::run(what, args.output),
        Benchmark::Solve(what) => solve::run(what, args.output),
        Benchmark::Simulate { file, runs } => simulate(file, (*runs).max(1), args.output),
    }
}

#[derive(Clone, Copy)]
struct Start {
    ready: Duration,
    resident_kib: u64,
}

fn startup(runs: u32, objects: u32, format: Output) -> Result<(), Failure> {
    let scratch = Scratch::new()?;
    let mut empty = Vec::new();
    for run in 0..runs {
        empty.push(start_once(&scratch.0.join(format!("empty-{run}")), run == 0)?);
    }
    let full = scratch.0.join("full");
    fill(&full, objects)?;
    let mut again = Vec::new();
    for run in 0..runs {
        again.push(start_once(&full, run == 0)?);
    }
    let (empty_ready, full_ready) = (median(&empty), median(&again));
    let (empty_memory, full_memory) = (empty[0].resident_kib, again[0].resident_kib);
    output::data(&match format {
        Output::Json => json!({
            "runs": runs,
            "coldReadyMs": empty_ready.as_millis(),
            "idleResidentKiB": empty_memory,
            "objects": objects,
            "secondStartReadyMs": full_ready.as_millis(),
            "secondStartResidentKiB": full_memory,
        })
        .to_string(),
        Output::Text => format!(
            "ready, empty data directory     {:>8} ms   (median of {runs})\n\
             resident, idle                  {:>8.1} MB\n\
             ready, {objects} objects         {:>8} ms   (median of {runs})\n\
             resident, {objects} objects      {:>8.1} MB",
            empty_ready.as_millis(),
            empty_memory as f64 / 1024.0,
            full_ready.as_millis(),
            full_memory as f64 / 1024.0,
        ),
    });
    Ok(())
}

fn simulate(file: &Path, runs: u32, format: Output) -> Result<(), Failure> {
    let args = SimulateArgs {
        feature_gates: Default::default(),
        file: file.to_owned(),
        until: None,
        seed: None,
        scheduler_config: None,
        output: Output::Json,
    };
    let mut times = Vec::new();
    for _ in 0..runs {
        let begun = machine_instant();
        let report = rehearse(&args)?;
        // Printing is part of what a user waits for.
        std::hint::black_box(report.to_text());
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    output::data(&match format {
        Output::Json => json!({"runs": runs, "simulateMs": median.as_millis()}).to_string(),
        Output::Text => format!(
            "simulate {}: {:.1} ms (median of {runs})",
            file.display(),
            median.as_secs_f64() * 1_000.0
        ),
    });
    Ok(())
}

fn median(starts: &[Start]) -> Duration {
    let mut times: Vec<Duration> = starts.iter().map(|start| start.ready).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Starts this binary's lab, takes the time to its ready line, and with `settle` its idle memory.
fn start_once(data: &Path, settle: bool) -> Result<Start, Failure> {
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let begun = machine_instant();
    let child = Command::new(program)
        .args(["up", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .arg("--kubeconfig")
        .arg(data.with_extension("kubeconfig"))
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .map_err(Failure::failed)?;
    let mut child = Running(child);
    let stdout = child.0.stdout.take().ok_or_else(|| Failure::failed("the lab has no output"))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).map_err(Failure::failed)?;
    let ready = begun.elapsed();
    if !line.starts_with("wharf is ready") {
        return Err(Failure::failed("the lab did not start; run `wharf up` to see why"));
    }
    if settle {
        std::thread::sleep(SETTLE);
    }
    Ok(Start { ready, resident_kib: memory_kib(&child.0.id().to_string(), "VmRSS:") })
}

/// A child that ends with the benchmark.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line of what the kernel tells of a process's memory (`VmRSS:`), in KiB.
fn memory_kib(process: &str, line: &str) -> u64 {
    std::fs::read_to_string(format!("/proc/{process}/status"))
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|known| known.starts_with(line))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or_default()
}

/// Fills a data directory with small objects, as an earlier lab would have left them.
fn fill(data: &Path, objects: u32) -> Result<(), Failure> {
    let store = Store::open(data).map_err(Failure::failed)?;
    for index in 0..objects {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(format!("cm-{index:06}"));
        map.metadata.namespace = Some("default".to_owned());
        map.metadata.uid = Some(format!("00000000-0000-4000-8000-{index:012x}"));
        map.data = Some([("k".to_owned(), "0123456789".repeat(7))].into());
        store.put(Box::new(map), Expect::Any).map_err(Failure::failed)?;
    }
    store.flush().map_err(Failure::failed)
}

/// A folder that goes with the benchmark.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        Self::new_in(None)
    }

    /// In a folder of the user's choice, for measuring its disk; else where temporary files go.
    fn new_in(folder: Option<&Path>) -> Result<Self, Failure> {
        let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = folder.join(format!("wharf-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| {
            Failure::bad_input(format!("{} cannot be made: {error}", folder.display()))
        })?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
