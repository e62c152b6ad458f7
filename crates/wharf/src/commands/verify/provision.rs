//! `wharf verify provision`: what is bought for recorded batches of pods.

use std::io;

use serde::Serialize;
use wharf_cloud::catalog::{Catalog, NodeSettings};
use wharf_provision::cases::{Answer, Case};
use wharf_provision::solve::{Packing, Settings};

use crate::cli::PackingChoice;
use crate::failure::Failure;
use crate::lab::clock::machine_instant;
use crate::output;

/// An answer with the time it took.
#[derive(Serialize)]
struct Timed {
    #[serde(flatten)]
    answer: Answer,
    /// From the pods to the plan, in milliseconds.
    ms: f64,
}

/// Answers each JSON object on stdin with a line on stdout. The objects may be written over several
/// lines. One that cannot be answered is told on stderr; one that is no JSON ends the reading.
pub(super) fn run(packing: PackingChoice) -> Result<(), Failure> {
    let settings = Settings { packing: packing.into(), ..Settings::default() };
    let cases = serde_json::Deserializer::from_reader(io::stdin().lock()).into_iter::<Case>();
    let (mut number, mut refused) = (0_u64, 0_u64);
    for case in cases {
        number += 1;
        let answered = case
            .map_err(|error| error.to_string())
            .and_then(|case| answer(&case, settings))
            .and_then(|answer| serde_json::to_string(&answer).map_err(|error| error.to_string()));
        match answered {
            Ok(line) => output::data(&line),
            Err(error) => {
                refused += 1;
                output::progress(&format!("wharf: case {number}: {error}"));
            }
        }
    }
    if refused > 0 {
        let noun = if refused == 1 { "case" } else { "cases" };
        return Err(Failure::bad_input(format!(
            "{refused} {noun} of {number} could not be answered"
        )));
    }
    Ok(())
}

fn answer(case: &Case, settings: Settings) -> Result<Timed, String> {
    let catalog = Catalog::load(&case.region).map_err(|error| error.to_string())?;
    let types = catalog.instance_types(&NodeSettings::default());
    let begun = machine_instant();
    let answer = case.answer(types, settings).map_err(|error| format!("nodepool: {error}"))?;
    Ok(Timed { answer, ms: begun.elapsed().as_secs_f64() * 1_000.0 })
}

impl From<PackingChoice> for Packing {
    fn from(choice: PackingChoice) -> Self {
        match choice {
            PackingChoice::Upstream => Self::Upstream,
            PackingChoice::Cost => Self::default(),
        }
    }
}
