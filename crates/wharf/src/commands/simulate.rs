//! `wharf simulate`.

use wharf_sim::rehearsal::{Options, Rehearsal, RehearsalError, Report};
use wharf_sim::scenario;

use crate::cli::{Output, SimulateArgs};
use crate::failure::Failure;
use crate::output;

/// Runs a scenario and prints the report.
pub(crate) fn run(args: &SimulateArgs) -> Result<(), Failure> {
    let report = rehearse(args)?;
    output::data(&match args.output {
        Output::Text => report.to_text(),
        Output::Json => format!("{:#}", report.to_json()),
    });
    Ok(())
}

/// Runs a scenario.
pub(crate) fn rehearse(args: &SimulateArgs) -> Result<Report, Failure> {
    let scenario = scenario::load(&args.file).map_err(Failure::bad_input)?;
    for warning in scenario.cluster.iter().flat_map(|config| &config.warnings) {
        output::progress(&format!("warning: {warning}"));
    }
    let scheduler = super::scheduler_config(args.scheduler_config.as_deref())?;
    super::without_extenders(&scheduler)?;
    let options =
        Options { until: args.until, seed: args.seed, scheduler, gates: args.feature_gates };
    let rehearsal = Rehearsal::new(scenario, &options).map_err(to_failure)?;
    rehearsal.run().map_err(to_failure)
}

/// Mistakes in the scenario are the user's; a world that does not come to rest is ours.
pub(crate) fn to_failure(error: RehearsalError) -> Failure {
    match error {
        RehearsalError::NeverAtRest(_) => Failure::failed(error),
        _ => Failure::bad_input(error),
    }
}
