//! A comparison as text and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use wharf_model::duration;
use wharf_model::money::Money;

use super::{Comparison, HOURS_OF_MONTH, Machines, Outcome, Refused, Share};

/// Machines that a line of the table names.
const MACHINES_TOLD: usize = 3;
/// Characters of a reason in the text; the JSON has it whole.
const REASON_MAX: usize = 300;

impl Comparison {
    /// The cheapest way that runs everything.
    pub fn cheapest(&self) -> Option<&Outcome> {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.refused.is_empty() && outcome.ran > 0)
            .min_by_key(|outcome| outcome.per_month)
    }

    /// What holds of every number.
    pub fn assumptions(&self) -> Vec<String> {
        let mut all = vec![
            format!("a month has {HOURS_OF_MONTH} hours, at the rate of the time that was looked at"),
            "the control plane (0.10 USD an hour, with every way), disks, addresses, load balancers and traffic are not counted".to_owned(),
            "start is from the creation of a pod until its containers run; starts of machines and pulls of images are modelled".to_owned(),
        ];
        if self.region != "us-east-1" && self.region != "ap-northeast-2" {
            all.push(format!("prices of {} are modelled on those of us-east-1", self.region));
        }
        all
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{}: {} pod{} in {}, seed {}\n\n",
            self.workload,
            self.pods,
            if self.pods == 1 { "" } else { "s" },
            self.region,
            self.seed
        );
        let rows: Vec<[String; 7]> = self.outcomes.iter().map(row).collect();
        let head = ["WAY", "USD/MONTH", "START", "SLOWEST", "CPU USED", "MEMORY USED", "RAN"];
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let cells = rows.iter().map(|row| row[column].chars().count());
                cells.chain([head[column].len()]).max().unwrap_or_default()
            })
            .collect();
        let mut line = |cells: &[String; 7], machines: &str| {
            for (column, cell) in cells.iter().enumerate() {
                let width = widths[column];
                // Amounts stand with their points in a line.
                let _ = match column {
                    1 => write!(text, "{cell:>width$}  "),
                    _ => write!(text, "{cell:<width$}  "),
                };
            }
            text.push_str(machines);
            text.push('\n');
        };
        line(&head.map(str::to_owned), "MACHINES");
        for (row, outcome) in rows.iter().zip(&self.outcomes) {
            line(row, &machines_text(&outcome.machines));
        }
        text.push('\n');
        match self.cheapest() {
            Some(best) => {
                let _ = writeln!(
                    text,
                    "{} is the cheapest of those that run everything: {} a month",
                    best.way,
                    best.per_month.cents()
                );
            }
            None => text.push_str("no way runs everything\n"),
        }
        for outcome in self.outcomes.iter().filter(|outcome| !outcome.refused.is_empty()) {
            let _ = writeln!(text, "\n{} cannot run:", outcome.way);
            for refused in &outcome.refused {
                let _ = writeln!(text, "  {}: {}", who(refused), shortened(&refused.reason));
            }
        }
        text.push_str("\nto know:\n");
        for outcome in &self.outcomes {
            for note in &outcome.notes {
                let _ = writeln!(text, "  {}: {note}", outcome.way);
            }
        }
        for line in self.assumptions() {
            let _ = writeln!(text, "  {line}");
        }
        for line in &self.left_out {
            let _ = writeln!(text, "  left out: {line}");
        }
        text
    }

    /// For scripts; amounts are exact decimal strings.
    pub fn to_json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "workload": self.workload,
            "region": self.region,
            "seed": self.seed,
            "pods": self.pods,
            "cheapest": self.cheapest().map(|best| best.way.id()),
            "ways": self.outcomes.iter().map(way_json).collect::<Vec<_>>(),
            "assumptions": self.assumptions(),
            "leftOut": self.left_out,
        })
    }
}

fn way_json(outcome: &Outcome) -> Value {
    json!({
        "way": outcome.way.id(),
        "usdPerMonth": outcome.per_month.to_string(),
        "usdPerMonthMachines": outcome.machines_per_month.to_string(),
        "usdPerMonthFees": outcome.fees_per_month.to_string(),
        "machines": outcome.machines.iter().map(|machines| json!({
            "count": machines.count,
            "instanceType": machines.instance_type,
            "capacityType": machines.capacity_type,
            "usdPerHour": machines.price.to_string(),
        })).collect::<Vec<_>>(),
        "startSeconds": outcome.start.map(|start| json!({
            "median": start.median.as_secs(),
            "p95": start.p95.as_secs(),
            "max": start.max.as_secs(),
        })),
        "ran": outcome.ran,
        "cannotRun": outcome.refused.iter().map(|refused| json!({
            "kind": refused.kind,
            "namespace": refused.workload.namespace.as_str(),
            "name": refused.workload.name.as_str(),
            "pods": refused.pods,
            "reason": refused.reason,
        })).collect::<Vec<_>>(),
        "used": outcome.used.map(|used| json!({
            "cpu": f64::from(used.cpu) / 1_000.0,
            "memory": f64::from(used.memory) / 1_000.0,
        })),
        "notes": outcome.notes,
    })
}

fn row(outcome: &Outcome) -> [String; 7] {
    let used = |of: fn(Share) -> u32| {
        outcome.used.map_or_else(|| "-".to_owned(), |used| percent(of(used)))
    };
    [
        outcome.way.to_string(),
        dollars(outcome.per_month),
        outcome.start.map_or_else(|| "-".to_owned(), |start| span(start.median)),
        outcome.start.map_or_else(|| "-".to_owned(), |start| span(start.max)),
        used(|share| share.cpu),
        used(|share| share.memory),
        ran(outcome),
    ]
}

/// `5`, or `3 of 5`.
pub(super) fn ran(outcome: &Outcome) -> String {
    let waiting: usize = outcome.refused.iter().map(|refused| refused.pods).sum();
    match waiting {
        0 => outcome.ran.to_string(),
        waiting => format!("{} of {}", outcome.ran, outcome.ran + waiting),
    }
}

/// `12.35`.
pub(super) fn dollars(money: Money) -> String {
    money.cents().trim_start_matches('$').to_owned()
}

pub(super) fn span(span: Duration) -> String {
    duration::format(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

pub(super) fn percent(thousandths: u32) -> String {
    format!("{}%", (thousandths + 5) / 10)
}

/// `2 × c5a.large on-demand, 1 × m5.large on-demand`.
pub(super) fn machines_text(machines: &[Machines]) -> String {
    if machines.is_empty() {
        return "none at the end".to_owned();
    }
    let told = machines
        .iter()
        .take(MACHINES_TOLD)
        .map(|one| format!("{} × {} {}", one.count, one.instance_type, one.capacity_type));
    let told: Vec<String> = told.collect();
    match machines.len().saturating_sub(MACHINES_TOLD) {
        0 => told.join(", "),
        more => format!("{}, and {more} other kinds", told.join(", ")),
    }
}

/// `5 pods of deployment shop/web`.
pub(super) fn who(refused: &Refused) -> String {
    match refused.pods {
        0 => format!("{} {}", refused.kind, refused.workload),
        1 if refused.kind == "pod" => format!("pod {}", refused.workload),
        1 => format!("1 pod of {} {}", refused.kind, refused.workload),
        pods => format!("{pods} pods of {} {}", refused.kind, refused.workload),
    }
}

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON_MAX) {
        Some((end, _)) => format!("{}… (whole in -o json)", &reason[..end]),
        None => reason.to_owned(),
    }
}
