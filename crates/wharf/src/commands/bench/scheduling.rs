//! `wharf bench scheduling`: upstream's scheduler_perf workloads through this build's whole path,
//! or through the scheduler's core alone.

mod core;
mod extras;
mod load;
mod measure;
mod objects;
mod workloads;

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use self::core::{Cluster, Share};
use self::workloads::{Size, Upstream, WORKLOADS, Workload};
use super::Scratch;
use crate::cli::{Output, SchedulingArgs};
use crate::failure::Failure;
use crate::output;

/// The numbers of nodes for which the curve is drawn.
const CURVE_NODES: [usize; 9] = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000];
/// The numbers of pods on 5,000 nodes for which it is drawn.
const CURVE_PODS: [usize; 6] = [0, 5_000, 10_000, 20_000, 50_000, 100_000];
/// How many decisions each of its points rests on at most.
const CURVE_DECISIONS: usize = 2_000;
/// How long each of its points may take. Slow ones then rest on fewer decisions.
const CURVE_POINT_MAX: Duration = Duration::from_secs(3);

/// Runs what is asked for.
pub(super) fn run(args: &SchedulingArgs, format: Output) -> Result<(), Failure> {
    let chosen = choose(&args.workloads)?;
    if args.list {
        output::data(&list(&chosen, format));
        return Ok(());
    }
    let rows: Vec<Value> = if args.curve {
        let mut rows = Vec::new();
        for workload in chosen {
            rows.extend(curve(workload)?);
        }
        rows
    } else if args.core {
        chosen.into_iter().map(|workload| core_row(workload, args)).collect::<Result<_, _>>()?
    } else if let [workload] = chosen.as_slice() {
        vec![whole_row(workload, args)?]
    } else {
        // Each in a process of its own, so that its memory is its own.
        chosen.into_iter().map(|workload| in_a_child(workload, args)).collect::<Result<_, _>>()?
    };
    output::data(&match format {
        Output::Json => json!({"items": rows}).to_string(),
        Output::Text if args.curve => text(&rows, &CURVE_COLUMNS),
        Output::Text if args.core => text(&rows, &CORE_COLUMNS),
        Output::Text => text(&rows, &WHOLE_COLUMNS),
    });
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static Workload>, Failure> {
    if names.is_empty() {
        return Ok(WORKLOADS.iter().filter(|workload| workload.goal.is_some()).collect());
    }
    if names == ["all"] {
        return Ok(WORKLOADS.iter().collect());
    }
    let find = |name: &String| {
        let known = WORKLOADS.iter().find(|workload| workload.name.eq_ignore_ascii_case(name));
        known.ok_or_else(|| {
            Failure::bad_input(format!(
                "there is no workload {name:?}; `wharf bench scheduling all --list` has their names"
            ))
        })
    };
    names.iter().map(find).collect()
}

fn list(workloads: &[&Workload], format: Output) -> String {
    let rows: Vec<Value> =
        workloads.iter().map(|workload| described(workload, &workload.size)).collect();
    match format {
        Output::Json => json!({"items": rows}).to_string(),
        Output::Text => text(&rows, &LIST_COLUMNS),
    }
}

/// What is known of a workload before it is run.
fn described(workload: &Workload, size: &Size) -> Value {
    let upstream = match workload.upstream {
        Upstream::Measured(rate) => json!({"measured": rate}),
        Upstream::Floor(rate) => json!({"floor": rate}),
        Upstream::Unknown => Value::Null,
    };
    json!({
        "workload": workload.name,
        "nodes": size.nodes,
        "before": size.before,
        "pods": size.pods,
        "upstream": upstream,
        "goal": workload.goal,
    })
}

fn whole_row(workload: &Workload, args: &SchedulingArgs) -> Result<Value, Failure> {
    let size = workload.scaled(args.nodes, args.pods);
    let scratch = Scratch::new_in(args.data.as_deref())?;
    let options = measure::Options { folder: scratch.0.join("lab"), clients: args.clients };
    let outcome = measure::run(workload, &size, &options)?;
    let mut row = described(workload, &size);
    row["bound"] = json!(outcome.bound);
    row["seconds"] = json!(rounded(outcome.elapsed.as_secs_f64(), 3));
    row["podsPerSecond"] = json!(rounded(outcome.rate(), 0));
    row["averageOfSamples"] = json!(outcome.average.map(|average| rounded(average, 0)));
    row["peakMiB"] = json!(rounded(outcome.peak_kib as f64 / 1024.0, 0));
    Ok(row)
}

fn in_a_child(workload: &Workload, args: &SchedulingArgs) -> Result<Value, Failure> {
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let mut command = Command::new(program);
    command.args(["bench", "scheduling", workload.name, "-o", "json", "--clients"]);
    command.arg(args.clients.to_string());
    for (flag, number) in [("--nodes", args.nodes), ("--pods", args.pods)] {
        if let Some(number) = number {
            command.arg(flag).arg(number.to_string());
        }
    }
    if let Some(data) = &args.data {
        command.arg("--data").arg(data);
    }
    let child = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let finished = child.map_err(Failure::failed)?;
    let told: Value = serde_json::from_slice(&finished.stdout).unwrap_or_default();
    match told["items"].get(0) {
        Some(row) if finished.status.success() => Ok(row.clone()),
        _ => Err(Failure::failed(format!("{} did not end well", workload.name))),
    }
}

fn core_row(workload: &Workload, args: &SchedulingArgs) -> Result<Value, Failure> {
    let size = workload.scaled(args.nodes, args.pods);
    output::status(&format!("{}: the core alone", workload.name));
    let before = Cluster::new(workload, &size)?;
    let sampled = before.clone().measure(workload, &size, Share::Sampled, None)?;
    let mut cluster = before;
    let every = cluster.measure(workload, &size, Share::Every, None)?;
    output::status("");
    let mut row = described(workload, &size);
    row["placed"] = json!(sampled.placed);
    row["sampledPerSecond"] = json!(rounded(sampled.rate(), 0));
    row["everyNodePerSecond"] = json!(rounded(every.rate(), 0));
    Ok(row)
}

/// The cost of a decision for ever more nodes, then for ever more pods on the same nodes.
fn curve(workload: &Workload) -> Result<Vec<Value>, Failure> {
    let by_nodes = CURVE_NODES.map(|nodes| Size { nodes, before: nodes, pods: CURVE_DECISIONS });
    let by_pods = CURVE_PODS.map(|before| Size { nodes: 5_000, before, pods: CURVE_DECISIONS });
    let mut rows = Vec::new();
    for size in by_nodes.into_iter().chain(by_pods) {
        output::status(&format!(
            "{}: {} nodes, {} pods on them",
            workload.name, size.nodes, size.before
        ));
        let before = Cluster::new(workload, &size)?;
        let sampled =
            before.clone().measure(workload, &size, Share::Sampled, Some(CURVE_POINT_MAX))?;
        let mut cluster = before;
        let every = cluster.measure(workload, &size, Share::Every, Some(CURVE_POINT_MAX))?;
        rows.push(json!({
            "workload": workload.name,
            "nodes": size.nodes,
            "before": size.before,
            "sampledMicros": rounded(sampled.micros(), 2),
            "everyNodeMicros": rounded(every.micros(), 2),
            "everyNodeNanosPerNode": rounded(every.micros() * 1e3 / size.nodes as f64, 1),
        }));
    }
    output::status("");
    Ok(rows)
}

fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

/// A column's head, and the field it shows.
type Column = (&'static str, &'static str);

const LIST_COLUMNS: [Column; 6] = [
    ("WORKLOAD", "workload"),
    ("NODES", "nodes"),
    ("BEFORE", "before"),
    ("PODS", "pods"),
    ("UPSTREAM", "upstream"),
    ("GOAL", "goal"),
];
const WHOLE_COLUMNS: [Column; 9] = [
    ("WORKLOAD", "workload"),
    ("NODES", "nodes"),
    ("BEFORE", "before"),
    ("BOUND", "bound"),
    ("PODS/S", "podsPerSecond"),
    ("SAMPLES", "averageOfSamples"),
    ("UPSTREAM", "upstream"),
    ("GOAL", "goal"),
    ("PEAK MiB", "peakMiB"),
];
const CORE_COLUMNS: [Column; 6] = [
    ("WORKLOAD", "workload"),
    ("NODES", "nodes"),
    ("PODS", "pods"),
    ("PLACED", "placed"),
    ("SAMPLED/S", "sampledPerSecond"),
    ("EVERY NODE/S", "everyNodePerSecond"),
];
const CURVE_COLUMNS: [Column; 6] = [
    ("WORKLOAD", "workload"),
    ("NODES", "nodes"),
    ("BEFORE", "before"),
    ("SAMPLED µs", "sampledMicros"),
    ("EVERY NODE µs", "everyNodeMicros"),
    ("ns PER NODE", "everyNodeNanosPerNode"),
];

/// A table: words to the left, numbers to the right.
fn text(rows: &[Value], columns: &[Column]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|(_, field)| cell(&row[*field])).collect())
        .collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, (head, _))| {
            let widest = cells.iter().map(|row| row[index].chars().count()).max().unwrap_or(0);
            widest.max(head.chars().count())
        })
        .collect();
    let heads: Vec<String> = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(&cells) {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if index == 0 {
                text.push_str(&format!("{cell:<width$}"));
            } else {
                text.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(upstream) => match upstream.get("floor") {
            Some(floor) => format!("≥{floor}"),
            None => cell(&upstream["measured"]),
        },
        number => {
            let text = number.to_string();
            text.strip_suffix(".0").unwrap_or(&text).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let chosen = choose(&["schedulingbasic".to_owned(), "Unschedulable".to_owned()])
            .expect("they are known");
        assert_eq!(
            list(&chosen, Output::Text),
            "WORKLOAD         NODES  BEFORE   PODS  UPSTREAM  GOAL\n\
             SchedulingBasic   5000    1000  10000       336  6700\n\
             Unschedulable     5000     100  10000      ≥170  5000\n"
        );
        let error = choose(&["basic".to_owned()]).err().expect("no such workload");
        assert!(error.to_string().contains("there is no workload \"basic\""), "{error}");
    }

    #[test]
    fn without_names_those_with_goals_are_run() {
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            choose(&names).expect("they are known").len()
        };
        assert_eq!(names(&[]), 10);
        assert_eq!(names(&["all"]), WORKLOADS.len());
    }
}
