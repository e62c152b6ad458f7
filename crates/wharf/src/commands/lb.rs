//! `wharf lb`: the load balancers of a running lab, and where they answer.

use serde_json::Value;

use crate::cli::{LbCommand, Output};
use crate::client;
use crate::failure::Failure;
use crate::output;

/// Does what is asked for.
pub(crate) fn run(command: &LbCommand) -> Result<(), Failure> {
    let (LbCommand::List { lab, .. } | LbCommand::Proxy { lab }) = command;
    let text = client::ask_well(lab.kubeconfig.as_deref(), "GET", "/wharf/v1/load-balancers", "")?;
    let told: Value = serde_json::from_str(&text).map_err(Failure::failed)?;
    match command {
        LbCommand::Proxy { .. } => output::data(told["proxy"].as_str().unwrap_or_default()),
        LbCommand::List { output: Output::Json, .. } => {
            output::data(&serde_json::to_string_pretty(&told["items"]).map_err(Failure::failed)?);
        }
        LbCommand::List { output: Output::Text, .. } => output::data(&table(&told["items"])),
    }
    Ok(())
}

fn table(items: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows =
        vec![["NAME", "TYPE", "STATE", "TARGETS", "ADDRESS", "HOSTNAME"].map(str::to_owned)];
    for item in items.as_array().into_iter().flatten() {
        let addresses: Vec<&str> =
            item["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let address = if addresses.is_empty() { "<none>".to_owned() } else { addresses.join(",") };
        rows.push([
            text(&item["name"]),
            text(&item["type"]),
            text(&item["state"]),
            format!("{}/{}", item["targetsHealthy"], item["targets"]),
            address,
            text(&item["hostname"]),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}
