//! `wharf bench autoscale`: one round of the autoscalers' controllers over many objects, in process:
//! from a world in memory and the metrics API to the writes it wants, without those writes.

mod horizontal;
mod objects;
mod vertical;

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{AutoscaleArgs, Output};
use crate::failure::Failure;
use crate::output;

/// What a controller's rounds came to.
struct Measured {
    /// Which controller.
    controller: &'static str,
    /// Each round, in order.
    rounds: Vec<Duration>,
    /// What the last round wanted written.
    writes: usize,
    /// What the controller and its objects took of memory, in KiB.
    resident_kib: u64,
}

impl Measured {
    fn median(&self) -> Duration {
        let mut rounds = self.rounds.clone();
        rounds.sort_unstable();
        rounds[rounds.len() / 2]
    }
}

/// Runs the benchmark.
pub(super) fn run(args: &AutoscaleArgs, format: Output) -> Result<(), Failure> {
    let mut measured = vec![horizontal::measure(args)?];
    measured.extend(vertical::measure(args)?);
    let (autoscalers, pods) = (args.autoscalers, args.pods);
    let rows: Vec<Value> = measured
        .iter()
        .map(|row| {
            json!({
                "controller": row.controller,
                "autoscalers": autoscalers,
                "pods": pods,
                "runs": args.runs,
                "roundMs": row.median().as_secs_f64() * 1_000.0,
                "writes": row.writes,
                "residentKiB": row.resident_kib,
            })
        })
        .collect();
    let lines: Vec<String> = measured
        .iter()
        .map(|row| {
            format!(
                "{:<16} {:>9.1} ms a round   {:>7} writes   {:>7.1} MB",
                row.controller,
                row.median().as_secs_f64() * 1_000.0,
                row.writes,
                row.resident_kib as f64 / 1024.0,
            )
        })
        .collect();
    output::data(&match format {
        Output::Json => json!({ "items": rows }).to_string(),
        Output::Text => format!(
            "{autoscalers} autoscalers over {pods} pods (median of {})\n{}",
            args.runs,
            lines.join("\n")
        ),
    });
    Ok(())
}
