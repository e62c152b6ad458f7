//! Custom and external metrics from Prometheus: its rules are asked again and again, and what they
//! give is put on the board, where autoscalers and the metrics APIs find it.
//!
//! When a rule cannot be asked its series are taken away: autoscalers that count by it say that the
//! metric cannot be found, and hold still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wharf_model::metrics::{NodeMetrics, PodMetrics, Sample};
use wharf_model::time::Time;
use wharf_ports::metrics::{
    Board, MetricQuery, Metrics, PodQuery, RESOLUTION, Series, Told, Value, last_scrape,
};

use super::Client;
use super::rules::Rule;
use crate::failure::Failure;
use crate::lab::clock::ScaledClock;
use crate::output;

/// How long one answer may take: longer than a pass of the autoscalers is of no use.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// The least time between two rounds, however fast a lab's clock runs.
const PAUSE: Duration = Duration::from_secs(1);

/// A Prometheus with the rules that it is asked by.
#[derive(Clone)]
pub(crate) struct Source {
    client: Client,
    rules: Arc<[Rule]>,
}

impl Source {
    pub(crate) fn new(client: Client, rules: Vec<Rule>) -> Self {
        Self { client: client.in_at_most(TIMEOUT_MAX), rules: rules.into() }
    }

    /// Asks from now on, before each scrape of the cluster, on a thread that ends with the program.
    pub(crate) fn start(self, board: Arc<Board>, clock: Arc<ScaledClock>) -> Result<(), Failure> {
        let mut told = Tellings { source: self, board, rules: BTreeMap::new() };
        let ask = move || {
            loop {
                let reading = clock.read();
                if !reading.paused {
                    told.round(reading.now);
                }
                let next = last_scrape(clock.read().now) + RESOLUTION;
                let wait = clock.real_time_until(next).unwrap_or(PAUSE);
                std::thread::sleep(wait.clamp(PAUSE, RESOLUTION));
            }
        };
        std::thread::Builder::new()
            .name("prometheus".to_owned())
            .spawn(ask)
            .map(|_| ())
            .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))
    }

    /// Metrics as others say, but for those that have a rule, which are read from the board.
    pub(crate) fn over(&self, others: Arc<dyn Metrics>, board: &Arc<Board>) -> Arc<dyn Metrics> {
        let (rules, board) = (Arc::clone(&self.rules), Arc::clone(board));
        Arc::new(Ruled { rules, board, others })
    }
}

/// What each rule has told.
pub(super) struct Tellings {
    source: Source,
    board: Arc<Board>,
    /// By place: the series on the board, and what was wrong last time.
    rules: BTreeMap<usize, (BTreeSet<Series>, Option<String>)>,
}

impl Tellings {
    #[cfg(test)]
    pub(super) fn new(source: Source, board: Arc<Board>) -> Self {
        Self { source, board, rules: BTreeMap::new() }
    }

    /// Asks every rule once.
    pub(super) fn round(&mut self, now: Time) {
        let rules = Arc::clone(&self.source.rules);
        for (place, rule) in rules.iter().enumerate() {
            let answer = self.source.client.now(&rule.query).and_then(|data| rule.series(data));
            let (known, trouble) = self.rules.entry(place).or_default();
            let wrong = answer.as_ref().err().cloned();
            if *trouble != wrong {
                let name = &rule.metric;
                output::progress(&match &wrong {
                    Some(wrong) => format!(
                        "wharf: metric {name}: {wrong}; autoscalers that count by it hold still"
                    ),
                    None => format!("wharf: metric {name}: Prometheus answers again"),
                });
                *trouble = wrong;
            }
            let found = answer.unwrap_or_default();
            for series in known.iter().filter(|series| !found.contains_key(series)) {
                self.board.take(Told::ValueGone { series: series.clone() });
            }
            *known = found.keys().cloned().collect();
            for (series, number) in found {
                let value = Value::Number(number);
                self.board.take(Told::Value { series, value, at: now });
            }
        }
    }
}

/// Metrics of which some have a rule.
struct Ruled {
    rules: Arc<[Rule]>,
    board: Arc<Board>,
    others: Arc<dyn Metrics>,
}

impl Metrics for Ruled {
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String> {
        self.others.pod_metrics(pods, now)
    }

    fn node_metrics(&self, now: Time) -> Result<Vec<NodeMetrics>, String> {
        self.others.node_metrics(now)
    }

    fn samples(&self, query: &MetricQuery<'_>, now: Time) -> Result<Vec<Sample>, String> {
        if self.rules.iter().any(|rule| rule.answers(query)) {
            self.board.samples(query, now)
        } else {
            self.others.samples(query, now)
        }
    }

    fn deferred(&self) -> Option<u64> {
        self.others.deferred()
    }
}
