//! A comparison as one page that needs nothing else: no script, no font, no network.

use std::fmt::Write as _;

use wharf_model::money::Money;

use super::report::{dollars, machines_text, percent, ran, span, who};
use super::{Comparison, Outcome};

/// Colours keep 4.5:1 against their ground in both schemes; a bar is never the only sign of a number.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #57606a; --ground: #ffffff; --line: #d0d7de;
  --machines: #0b62b8; --fees: #b35900; --best: #eaf5ea; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9aa5b1; --ground: #0d1117;
  --line: #30363d; --machines: #58a6ff; --fees: #e09b4f; --best: #12261a; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p.quiet, footer { color: var(--quiet); margin: .25rem 0 1.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; color: var(--quiet); padding-bottom: .5rem; }
th, td { text-align: left; padding: .5rem .75rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.best { background: var(--best); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.machines { fill: var(--machines); } .fees { fill: var(--fees); }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .35em; }
";
/// Measures of the plot, in its own units.
const LABELS: usize = 170;
const BARS: usize = 480;
const AMOUNTS: usize = 130;
const ROW: usize = 30;

impl Comparison {
    /// For a browser.
    pub fn to_html(&self) -> String {
        let title = format!("{}: what it would cost", escape(&self.workload));
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p class=\"quiet\">{} pods in {}, seed {}</p>\n",
            self.pods,
            escape(&self.region),
            self.seed
        );
        match self.cheapest() {
            Some(best) => {
                let _ = writeln!(
                    page,
                    "<p><strong>{}</strong> is the cheapest of those that run everything: <strong>{}</strong> a month.</p>",
                    best.way,
                    best.per_month.cents()
                );
            }
            None => page.push_str("<p><strong>No way runs everything.</strong></p>\n"),
        }
        self.plot(&mut page);
        self.table(&mut page);
        self.refused(&mut page);
        page.push_str("<h2>To know</h2>\n<ul>\n");
        for outcome in &self.outcomes {
            for note in &outcome.notes {
                let _ = writeln!(page, "<li>{}: {}</li>", outcome.way, escape(note));
            }
        }
        for line in self.assumptions() {
            let _ = writeln!(page, "<li>{}</li>", escape(&line));
        }
        for line in &self.left_out {
            let _ = writeln!(page, "<li>left out: {}</li>", escape(line));
        }
        let _ = write!(
            page,
            "</ul>\n</main>\n<footer>Rehearsed by Wharf {}.</footer>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        );
        page
    }

    /// A bar for each way: what the machines cost, and what is paid for running them.
    fn plot(&self, page: &mut String) {
        let most = self.outcomes.iter().map(|outcome| outcome.per_month).max().unwrap_or_default();
        let length = |money: Money| match most.nano_dollars() {
            0 => 0,
            most => money.nano_dollars() * BARS as i128 / most,
        };
        let (width, height) = (LABELS + BARS + AMOUNTS, ROW * self.outcomes.len() + 6);
        page.push_str("<h2>Dollars a month</h2>\n<p class=\"quiet\"><svg class=\"key\" viewBox=\"0 0 1 1\" aria-hidden=\"true\" style=\"display:inline-block\"><rect class=\"machines\" width=\"1\" height=\"1\"/></svg>machines ");
        page.push_str("<svg class=\"key\" viewBox=\"0 0 1 1\" aria-hidden=\"true\" style=\"display:inline-block\"><rect class=\"fees\" width=\"1\" height=\"1\"/></svg>fees for running them</p>\n");
        let _ = writeln!(
            page,
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Dollars a month by way; the table below has the same numbers\">"
        );
        for (index, outcome) in self.outcomes.iter().enumerate() {
            let (top, base) = (index * ROW + 5, index * ROW + 21);
            let machines = length(outcome.machines_per_month);
            let fees = length(outcome.fees_per_month);
            let _ = writeln!(
                page,
                "<text x=\"0\" y=\"{base}\">{}</text><rect class=\"machines\" x=\"{LABELS}\" y=\"{top}\" width=\"{machines}\" height=\"20\"/><rect class=\"fees\" x=\"{}\" y=\"{top}\" width=\"{fees}\" height=\"20\"/><text x=\"{}\" y=\"{base}\">{}</text>",
                outcome.way,
                LABELS as i128 + machines,
                LABELS as i128 + machines + fees + 8,
                dollars(outcome.per_month)
            );
        }
        page.push_str("</svg>\n");
    }

    fn table(&self, page: &mut String) {
        page.push_str("<h2>The same in numbers</h2>\n<div class=\"scroll\">\n<table>\n<caption>The cheapest way that runs everything is marked.</caption>\n<thead><tr><th scope=\"col\">Way</th><th scope=\"col\" class=\"number\">USD a month</th><th scope=\"col\" class=\"number\">of that fees</th><th scope=\"col\" class=\"number\">Start, median</th><th scope=\"col\" class=\"number\">95 of 100</th><th scope=\"col\" class=\"number\">slowest</th><th scope=\"col\" class=\"number\">CPU used</th><th scope=\"col\" class=\"number\">Memory used</th><th scope=\"col\" class=\"number\">Pods that ran</th><th scope=\"col\">Machines at the end</th></tr></thead>\n<tbody>\n");
        let best = self.cheapest().map(|best| best.way);
        for outcome in &self.outcomes {
            let is_best = best == Some(outcome.way);
            let class = if is_best { " class=\"best\"" } else { "" };
            let mark = if is_best { " (cheapest)" } else { "" };
            let _ = write!(page, "<tr{class}><th scope=\"row\">{}{mark}</th>", outcome.way);
            for cell in cells(outcome) {
                let _ = write!(page, "<td class=\"number\">{}</td>", escape(&cell));
            }
            let _ = writeln!(page, "<td>{}</td></tr>", escape(&machines_text(&outcome.machines)));
        }
        page.push_str("</tbody>\n</table>\n</div>\n");
    }

    fn refused(&self, page: &mut String) {
        if self.outcomes.iter().all(|outcome| outcome.refused.is_empty()) {
            return;
        }
        page.push_str("<h2>What cannot run where</h2>\n<div class=\"scroll\">\n<table>\n<thead><tr><th scope=\"col\">Way</th><th scope=\"col\">What</th><th scope=\"col\">Why</th></tr></thead>\n<tbody>\n");
        for outcome in &self.outcomes {
            for refused in &outcome.refused {
                let _ = writeln!(
                    page,
                    "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>",
                    outcome.way,
                    escape(&who(refused)),
                    escape(&refused.reason)
                );
            }
        }
        page.push_str("</tbody>\n</table>\n</div>\n");
    }
}

fn cells(outcome: &Outcome) -> [String; 8] {
    let start = |of: fn(super::Delays) -> std::time::Duration| {
        outcome.start.map_or_else(|| "-".to_owned(), |start| span(of(start)))
    };
    let used = |of: fn(super::Share) -> u32| {
        outcome.used.map_or_else(|| "-".to_owned(), |used| percent(of(used)))
    };
    [
        dollars(outcome.per_month),
        dollars(outcome.fees_per_month),
        start(|start| start.median),
        start(|start| start.p95),
        start(|start| start.max),
        used(|share| share.cpu),
        used(|share| share.memory),
        ran(outcome),
    ]
}

/// Text as it may stand in a page, between tags and in attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}
