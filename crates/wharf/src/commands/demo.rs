//! `wharf demo`: the inflate lab by itself, on a fast clock, told for a person.

use std::path::Path;
use std::time::Duration;

use wharf_sim::rehearsal::{Options, Rehearsal};
use wharf_sim::scenario;

use super::simulate::to_failure;
use crate::cli::DemoArgs;
use crate::failure::Failure;
use crate::output;

/// The lab that is shown, compiled in so that the demo needs no files.
const SCENARIO: &str = include_str!("demo.yaml");
/// Cluster seconds told in one real second, at most.
const PACE: u32 = 120;
/// The longest pause between two lines; the whole demo stays well under 15 s.
const PAUSE_MAX: Duration = Duration::from_millis(400);

const INTRODUCTION: &str = "\
The inflate lab: a NodePool for on-demand c, m and r machines (generation 3 and later), and a
Deployment of pods that ask for one CPU each. Times are cluster time since the start.
";

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let mut scenario =
        scenario::parse(SCENARIO, Path::new("demo.yaml")).map_err(Failure::failed)?;
    scenario.region = Some(args.region.clone());
    let options = Options { seed: Some(args.seed), ..Options::default() };
    let mut rehearsal = Rehearsal::new(scenario, &options).map_err(to_failure)?;
    output::data(&output::strong("wharf demo"));
    output::data(INTRODUCTION);
    let mut told = rehearsal.now();
    loop {
        let more = rehearsal.advance().map_err(to_failure)?;
        let lines = rehearsal.timeline_mut().take_lines();
        if !lines.is_empty() && !args.fast {
            let pause = rehearsal.now().since(told) / PACE;
            std::thread::sleep(pause.min(PAUSE_MAX));
            told = rehearsal.now();
        }
        lines.iter().for_each(|line| output::data(line));
        if !more {
            break;
        }
    }
    let report = rehearsal.report();
    output::data(&format!("\n{}", output::strong("What it cost")));
    output::data(&report.ledger.to_text());
    output::data(
        "Every amount is price x seconds of one machine (EC2's minimum is a minute). Start times of\n\
         machines and images are modelled. Next: `wharf up --speed 60`, then kubectl as usual.",
    );
    Ok(())
}
