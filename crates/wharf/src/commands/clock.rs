//! `wharf clock`.

use serde_json::{Value, json};

use crate::cli::{ClockAction, ClockArgs, Output};
use crate::client;
use crate::failure::Failure;
use crate::output;

/// Reads or sets the clock of a running lab, and prints what it shows.
pub(crate) fn run(args: &ClockArgs) -> Result<(), Failure> {
    let kubeconfig = args.lab.kubeconfig.as_deref();
    let path = "/wharf/v1/clock";
    let answer = match &args.action {
        None => client::ask_well(kubeconfig, "GET", path, "")?,
        Some(action) => client::ask_well(kubeconfig, "PUT", path, &order(action).to_string())?,
    };
    if args.output == Output::Json {
        output::data(&answer);
        return Ok(());
    }
    let clock: Value = serde_json::from_str(&answer)
        .map_err(|error| Failure::failed(format!("the lab's answer is not JSON: {error}")))?;
    let state = if clock["paused"] == true { "paused" } else { "running" };
    output::data(&format!(
        "{} {}x {state}",
        clock["now"].as_str().unwrap_or_default(),
        clock["speed"]
    ));
    Ok(())
}

fn order(action: &ClockAction) -> Value {
    match action {
        ClockAction::Pause => json!({"do": "pause"}),
        ClockAction::Resume => json!({"do": "resume"}),
        ClockAction::Step { by } => {
            json!({"do": "step", "nanos": u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)})
        }
        ClockAction::Speed { speed } => json!({"do": "speed", "speed": speed}),
    }
}
