//! `wharf compare-compute`.

use wharf_sim::compute::{self, CompareError, Options, Way, Workload};
use wharf_sim::rehearsal::RehearsalError;

use crate::cli::{CompareComputeArgs, ReportOutput};
use crate::failure::Failure;
use crate::output;

const REGION_DEFAULT: &str = "us-east-1";

/// Rehearses a workload by each way and prints what came of it.
pub(crate) fn run(args: &CompareComputeArgs) -> Result<(), Failure> {
    let workload = Workload::read(&args.files).map_err(Failure::bad_input)?;
    let region = args.region.clone().or_else(|| workload.region.clone());
    let mut ways = args.ways.clone();
    if ways.is_empty() {
        ways = Way::ALL.to_vec();
    }
    let options = Options {
        region: region.unwrap_or_else(|| REGION_DEFAULT.to_owned()),
        seed: args.seed,
        ways,
        instance_type: args.instance_type.clone(),
    };
    let mut progress = |way: Way| output::status(&format!("rehearsing {way} …"));
    let compared = compute::compare(&workload, &options, &mut progress);
    output::status("");
    let compared = compared.map_err(to_failure)?;
    output::data(&match args.output {
        ReportOutput::Text => compared.to_text(),
        ReportOutput::Json => format!("{:#}", compared.to_json()),
        ReportOutput::Html => compared.to_html(),
    });
    Ok(())
}

/// Mistakes in the files are the user's; a world that does not come to rest is ours.
fn to_failure(error: CompareError) -> Failure {
    match error {
        CompareError::Rehearsal(RehearsalError::NeverAtRest(_)) => Failure::failed(error),
        _ => Failure::bad_input(error),
    }
}
