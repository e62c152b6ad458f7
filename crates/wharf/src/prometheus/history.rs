//! What containers used in the past: upstream's history provider, with its queries and flags.
//!
//! Usage of cpu is the rate of cAdvisor's counter over one step of the resolution, memory its gauge
//! at each step. Labels of pods come from a metric that has them as labels of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use compact_str::CompactString;
use tokio::sync::Notify;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::history::{HistoryAnswer, HistoryCall, HistoryCalls, PodHistory, UsageHistory};

use super::{Client, Data, Range, Series};
use crate::output;

/// Namespaces named in a query; for more of them all pods are asked for.
const NAMESPACES_MAX: usize = 50;

/// What is asked for, by upstream's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistorySettings {
    /// `--history-length`.
    pub(crate) length: Duration,
    /// `--history-resolution`.
    pub(crate) resolution: Duration,
    /// `--prometheus-cadvisor-job-name`; empty for any.
    pub(crate) job: String,
    /// `--container-namespace-label`.
    pub(crate) container_namespace: String,
    /// `--container-pod-name-label`.
    pub(crate) container_pod: String,
    /// `--container-name-label`.
    pub(crate) container: String,
    /// `--metric-for-pod-labels`.
    pub(crate) pod_labels: String,
    /// `--pod-label-prefix`.
    pub(crate) pod_label_prefix: String,
    /// `--pod-namespace-label`.
    pub(crate) pod_namespace: String,
    /// `--pod-name-label`.
    pub(crate) pod: String,
}

/// Asks a Prometheus: each question on a thread of its own.
pub(crate) struct History {
    client: Client,
    settings: Arc<HistorySettings>,
    sender: Sender<HistoryAnswer>,
    receiver: Receiver<HistoryAnswer>,
    /// Told of every answer.
    arrivals: Arc<Notify>,
}

impl History {
    /// Prepares to ask; `arrivals` is told when answers come.
    pub(crate) fn new(client: Client, settings: HistorySettings, arrivals: Arc<Notify>) -> Self {
        let (sender, receiver) = channel();
        Self { client, settings: Arc::new(settings), sender, receiver, arrivals }
    }
}

impl HistoryCalls for History {
    fn call(&mut self, call: HistoryCall) {
        let (sender, arrivals) = (self.sender.clone(), Arc::clone(&self.arrivals));
        let (client, settings) = (self.client.clone(), Arc::clone(&self.settings));
        let id = call.id;
        let spawned = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            let result = ask(&client, &settings, &call);
            match &result {
                Err(error) => output::progress(&format!(
                    "wharf: {error}; the recommender begins without history"
                )),
                Ok(pods) if pods.is_empty() => output::progress(&format!(
                    "wharf: Prometheus at {} has no history of {}; the recommender begins without",
                    client.address(),
                    selector(&settings, &call.namespaces)
                )),
                Ok(_) => {}
            }
            // The loop may have ended; then nobody waits for it.
            let _ = sender.send(HistoryAnswer { id, result });
            arrivals.notify_one();
        });
        if let Err(error) = spawned {
            let result = Err(format!("cannot start a thread: {error}"));
            let _ = self.sender.send(HistoryAnswer { id, result });
            self.arrivals.notify_one();
        }
    }

    fn poll(&mut self, answers: &mut Vec<HistoryAnswer>) {
        answers.extend(self.receiver.try_iter());
    }
}

/// Which series of containers: upstream's, and of which namespaces.
pub(super) fn selector(settings: &HistorySettings, namespaces: &[CompactString]) -> String {
    let HistorySettings { job, container_pod: pod, container: name, .. } = settings;
    let mut terms = Vec::new();
    if !job.is_empty() {
        terms.push(format!("job={}", quoted(job)));
    }
    terms.push(format!("{pod}=~\".+\""));
    terms.push(format!("{name}!=\"POD\""));
    terms.push(format!("{name}!=\"\""));
    if (1..=NAMESPACES_MAX).contains(&namespaces.len()) {
        let names: Vec<&str> = namespaces.iter().map(CompactString::as_str).collect();
        terms.push(format!("{}=~{}", settings.container_namespace, quoted(&names.join("|"))));
    }
    format!("{{{}}}", terms.join(", "))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The query for labels of pods. It has to give a range, so that pods that are gone are found too;
/// where none is written down it is the length of the history.
pub(super) fn labels_query(settings: &HistorySettings) -> String {
    let metric = settings.pod_labels.trim();
    match metric.ends_with(']') {
        true => metric.to_owned(),
        false => format!("{metric}[{}s]", settings.length.as_secs()),
    }
}

fn seconds(time: Time) -> f64 {
    // Thousandths are what Prometheus keeps.
    (time.as_nanos() / 1_000_000) as f64 / 1e3
}

/// Asks the three questions.
pub(super) fn ask(
    client: &Client,
    settings: &HistorySettings,
    call: &HistoryCall,
) -> Result<Vec<PodHistory>, String> {
    let selector = selector(settings, &call.namespaces);
    let step = settings.resolution.as_secs().max(1);
    let range =
        Range { start: seconds(call.until - settings.length), end: seconds(call.until), step };
    let mut pods = Pods { settings, by_key: BTreeMap::new() };
    let query = format!("rate(container_cpu_usage_seconds_total{selector}[{step}s])");
    pods.add(client.range(&query, &range)?, |usage| &mut usage.cpu)?;
    let query = format!("container_memory_working_set_bytes{selector}");
    pods.add(client.range(&query, &range)?, |usage| &mut usage.memory)?;
    if pods.by_key.is_empty() {
        return Ok(Vec::new());
    }
    match client.instant(&labels_query(settings), seconds(call.until)) {
        Ok(Data::Matrix(series)) => pods.label(&series)?,
        // Upstream goes on, too: what is known of pods that are there suffices for those.
        Ok(other) => output::progress(&format!(
            "wharf: --metric-for-pod-labels {:?} gives a {}, not a range; history counts for running pods only",
            settings.pod_labels,
            other.name()
        )),
        Err(error) => output::progress(&format!(
            "wharf: labels of pods: {error}; history counts for running pods only"
        )),
    }
    Ok(pods.into_history())
}

/// What is known of pods so far, with when their labels were seen.
struct Pods<'s> {
    settings: &'s HistorySettings,
    by_key: BTreeMap<ObjectKey, (PodHistory, f64)>,
}

impl Pods<'_> {
    /// Adds the series of containers.
    fn add(
        &mut self,
        all: Vec<Series>,
        kind: impl Fn(&mut UsageHistory) -> &mut Vec<(Time, f64)>,
    ) -> Result<(), String> {
        let HistorySettings { container_namespace, container_pod, container, .. } = self.settings;
        for series in all {
            let named = |label: &String| {
                series.metric.get(label).ok_or_else(|| {
                    format!("series of containers have no label {label}: {:?}", series.metric)
                })
            };
            let key = ObjectKey::namespaced(named(container_namespace)?, named(container_pod)?);
            let container = CompactString::from(named(container)?);
            let (pod, _) = self.by_key.entry(key).or_default();
            let usage = pod.containers.entry(container).or_default();
            kind(usage).extend(series.values.iter().map(|(at, value)| {
                // To the thousandth, as it is kept.
                (Time::from_nanos((at * 1e3).round() as i64 * 1_000_000), value.0)
            }));
        }
        Ok(())
    }

    /// Adds labels to pods that have usage.
    fn label(&mut self, all: &[Series]) -> Result<(), String> {
        let HistorySettings { pod_namespace, pod, pod_label_prefix, .. } = self.settings;
        for series in all {
            let named = |label: &String| {
                series.metric.get(label).ok_or_else(|| {
                    format!("series with labels of pods have no label {label}: {:?}", series.metric)
                })
            };
            let key = ObjectKey::namespaced(named(pod_namespace)?, named(pod)?);
            let Some((last, _)) = series.values.last() else { continue };
            let Some((known, seen)) = self.by_key.get_mut(&key) else { continue };
            if *last > *seen {
                *seen = *last;
                known.labels = series
                    .metric
                    .iter()
                    .filter_map(|(name, value)| {
                        Some((name.strip_prefix(pod_label_prefix)?.to_owned(), value.clone()))
                    })
                    .collect();
            }
        }
        Ok(())
    }

    fn into_history(self) -> Vec<PodHistory> {
        let in_order = |(pod, (mut history, _)): (ObjectKey, (PodHistory, f64))| {
            // One container may have several series: one for each of its runs.
            for usage in history.containers.values_mut() {
                usage.cpu.sort_by_key(|(at, _)| *at);
                usage.memory.sort_by_key(|(at, _)| *at);
            }
            PodHistory { pod, ..history }
        };
        self.by_key.into_iter().map(in_order).collect()
    }
}
