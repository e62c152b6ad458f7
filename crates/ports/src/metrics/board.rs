//! The metrics of a simulated cluster, in memory: the load model tells what is used from when on,
//! readers get what a metrics server would have scraped.
//!
//! Every 15 s of cluster time, at its multiples, all kubelets are scraped; usage of cpu is what
//! the counter moved between the last two scrapes. A container that has not been there for both
//! has no metrics, unless it started at least 10 s before the last: metrics-server's rules
//! (<https://github.com/kubernetes-sigs/metrics-server>). Scrapes take place when somebody asks.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use compact_str::CompactString;
use wharf_model::curve::Curve;
use wharf_model::metrics::{ContainerUsage, NodeMetrics, PodMetrics, Sample, Usage};
use wharf_model::object::ObjectKey;
use wharf_model::quantity::{Format, Quantity};
use wharf_model::selector::Selector;
use wharf_model::time::Time;

use super::meter::{Level, Meter};
use super::{MetricQuery, Metrics, PodQuery};

/// How often kubelets are scraped: metrics-server's `--metric-resolution`.
pub const RESOLUTION: Duration = Duration::from_secs(15);
/// A container this old at its first scrape needs no second one.
const FRESH_MIN: Duration = Duration::from_secs(10);

/// One piece of news for the board.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// From `at` on a container uses this much.
    Container {
        /// Its pod.
        pod: ObjectKey,
        /// Its name.
        container: CompactString,
        /// When this run of it started.
        started: Time,
        /// From when on.
        at: Time,
        /// How much.
        level: Level,
    },
    /// A container ended.
    Ended {
        /// Its pod.
        pod: ObjectKey,
        /// Its name.
        container: CompactString,
        /// When.
        at: Time,
    },
    /// A pod is no more.
    PodGone {
        /// Which.
        pod: ObjectKey,
    },
    /// From `at` on a node uses this much, with all that runs on it.
    Node {
        /// Its name.
        node: CompactString,
        /// From when on.
        at: Time,
        /// How much.
        level: Level,
    },
    /// A node is no more.
    NodeGone {
        /// Its name.
        node: CompactString,
    },
    /// The value of a custom or external metric.
    Value {
        /// Which.
        series: Series,
        /// The value from `at` on.
        value: Value,
        /// From when on.
        at: Time,
    },
    /// A series is no more.
    ValueGone {
        /// Which.
        series: Series,
    },
}

/// A series of a custom or external metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The resource of the object it is about, with its group: `pods`, `deployments.apps`; empty
    /// for an external metric.
    pub resource: CompactString,
    /// The object; for an external metric the one that it is written on.
    pub object: ObjectKey,
    /// The metric.
    pub metric: CompactString,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number, until another is told.
    Number(f64),
    /// A function of the time since a moment.
    Curve(Arc<Curve>, Time),
}

/// A container's counters, as its kubelet shows them.
#[derive(Clone, Debug, PartialEq)]
pub struct Counters {
    /// Its name.
    pub container: CompactString,
    /// When it started.
    pub started: Time,
    /// Processor time since then, in nanoseconds.
    pub cpu_nanos: u64,
    /// The working set.
    pub memory_bytes: u64,
}

/// Who is told all that a board is told: in a lab of two processes, the other one.
pub type Listener = Box<dyn Fn(&Told) + Send + Sync>;

/// The board.
#[derive(Default)]
pub struct Board {
    state: RwLock<State>,
    listener: OnceLock<Listener>,
}

#[derive(Default)]
struct State {
    /// Per namespace, so that a query by name needs no key of its own.
    pods: BTreeMap<CompactString, BTreeMap<CompactString, Vec<Container>>>,
    nodes: BTreeMap<CompactString, Meter>,
    values: BTreeMap<Subject, Vec<Valued>>,
    /// How many series there are of each metric of each resource.
    names: BTreeMap<(CompactString, CompactString), usize>,
}

/// The resource and object that values are about; for external metrics only the namespace counts.
type Subject = (CompactString, ObjectKey);

struct Container {
    name: CompactString,
    /// Its runs that a reader may still ask for, the present one last.
    runs: Vec<Meter>,
}

struct Valued {
    series: Series,
    at: Time,
    value: Value,
    /// The value before, for readers whose scrape was then.
    before: Option<Value>,
}

impl Board {
    /// An empty board.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Has somebody told all that the board is told from now on; the first one stays.
    pub fn tell(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// Takes in news.
    pub fn take(&self, told: Told) {
        if let Some(listener) = self.listener.get() {
            listener(&told);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.take(told);
    }

    /// The counters of a pod's containers that run at `now`, for the kubelet's own endpoints.
    pub fn counters(&self, namespace: &str, pod: &str, now: Time) -> Vec<Counters> {
        let state = self.read();
        let containers = state.pods.get(namespace).and_then(|pods| pods.get(pod));
        let running = containers.into_iter().flatten().filter_map(|container| {
            let run = container.runs.iter().find(|run| run.ran(now))?;
            Some(Counters {
                container: container.name.clone(),
                started: run.started(),
                cpu_nanos: run.cpu_used(now),
                memory_bytes: run.memory(now),
            })
        });
        running.collect()
    }

    /// A node's counters.
    pub fn node_counters(&self, node: &str, now: Time) -> Option<Counters> {
        let state = self.read();
        let meter = state.nodes.get(node)?;
        Some(Counters {
            container: CompactString::default(),
            started: meter.started(),
            cpu_nanos: meter.cpu_used(now),
            memory_bytes: meter.memory(now),
        })
    }

    /// The custom metrics there are, as resource with group and metric; external ones have an
    /// empty resource.
    pub fn metric_names(&self) -> Vec<(CompactString, CompactString)> {
        self.read().names.keys().cloned().collect()
    }

    /// The values of a metric of one object, by the resource's name with its group.
    pub fn values_of(
        &self,
        resource: &str,
        object: &ObjectKey,
        metric: &str,
        series: &Selector,
        now: Time,
    ) -> Vec<Sample> {
        let state = self.read();
        let subject = (CompactString::from(resource), object.clone());
        let of_object = state.values.get(&subject).into_iter().flatten();
        let matching = of_object.filter(|valued| {
            valued.series.metric == metric && series.matches(&valued.series.labels)
        });
        matching.filter_map(|valued| valued.sample(now)).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics for Board {
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String> {
        let state = self.read();
        let Some(known) = state.pods.get(pods.namespace) else { return Ok(Vec::new()) };
        let scrape = last_scrape(now);
        let one = |name: &&str| of_pod(pods.namespace, name, known.get(*name)?, scrape);
        Ok(pods.names.iter().filter_map(one).collect())
    }

    fn node_metrics(&self, now: Time) -> Result<Vec<NodeMetrics>, String> {
        let state = self.read();
        let scrape = last_scrape(now);
        let of_node = |(name, meter): (&CompactString, &Meter)| {
            let (from, cpu, memory) = rate(meter, scrape)?;
            Some(NodeMetrics {
                node: name.clone(),
                timestamp: scrape,
                window: scrape.since(from),
                usage: usage(cpu, memory),
            })
        };
        Ok(state.nodes.iter().filter_map(of_node).collect())
    }

    fn samples(&self, query: &MetricQuery<'_>, now: Time) -> Result<Vec<Sample>, String> {
        let found = match query {
            MetricQuery::Pods { pods, metric, series } => {
                let of_pod = |name: &&str| {
                    let key = ObjectKey::namespaced(pods.namespace, name);
                    self.values_of("pods", &key, metric, series, now)
                };
                pods.names.iter().flat_map(of_pod).collect()
            }
            MetricQuery::Object { object, metric, series } => {
                let (resource, key) = object.resource();
                self.values_of(&resource, &key, metric, series, now)
            }
            MetricQuery::External { namespace, metric, series } => {
                return Ok(self.external(namespace, metric, series, now));
            }
        };
        if found.is_empty() {
            return Err(missing(query));
        }
        Ok(found)
    }
}

impl Board {
    /// The values of an external metric in a namespace; those that are in none are in all.
    pub fn external(
        &self,
        namespace: &str,
        metric: &str,
        series: &Selector,
        now: Time,
    ) -> Vec<Sample> {
        let state = self.read();
        let of = |namespace: &str| {
            let namespace = CompactString::from(namespace);
            let first = (CompactString::default(), ObjectKey::namespaced(namespace.clone(), ""));
            state.values.range(first..).take_while(move |((resource, object), _)| {
                resource.is_empty() && object.namespace == namespace
            })
        };
        let everywhere = (!namespace.is_empty()).then(|| of("")).into_iter().flatten();
        of(namespace)
            .chain(everywhere)
            .flat_map(|(_, values)| values)
            .filter(|valued| {
                valued.series.metric == metric && series.matches(&valued.series.labels)
            })
            .filter_map(|valued| Some(Sample { object: "".into(), ..valued.sample(now)? }))
            .collect()
    }
}

/// The refusal of an adapter made with upstream's custom-metrics-apiserver library.
fn missing(query: &MetricQuery<'_>) -> String {
    match query {
        MetricQuery::Pods { metric, .. } => {
            format!("the server could not find the metric {metric} for pods")
        }
        MetricQuery::Object { object, metric, .. } => {
            let (resource, _) = object.resource();
            let name = object.name;
            format!("the server could not find the metric {metric} for {resource} {name}")
        }
        MetricQuery::External { metric, .. } => {
            format!("the server could not find the metric {metric}")
        }
    }
}

impl State {
    fn take(&mut self, told: Told) {
        match told {
            Told::Container { pod, container, started, at, level } => {
                let pods = self.pods.entry(pod.namespace).or_default();
                let containers = pods.entry(pod.name).or_default();
                let index = containers.iter().position(|known| known.name == container);
                let index = index.unwrap_or_else(|| {
                    containers.push(Container { name: container, runs: Vec::new() });
                    containers.len() - 1
                });
                containers[index].set(started, at, level);
            }
            Told::Ended { pod, container, at } => {
                let pods = self.pods.get_mut(&pod.namespace);
                let containers = pods.and_then(|pods| pods.get_mut(&pod.name));
                let ended = containers.into_iter().flatten().find(|known| known.name == container);
                if let Some(run) = ended.and_then(|container| container.runs.last_mut()) {
                    run.end(at);
                }
            }
            Told::PodGone { pod } => {
                if let Some(pods) = self.pods.get_mut(&pod.namespace) {
                    pods.remove(&pod.name);
                    if pods.is_empty() {
                        self.pods.remove(&pod.namespace);
                    }
                }
                for gone in self.values.remove(&("pods".into(), pod)).into_iter().flatten() {
                    self.uncount(&gone.series);
                }
            }
            Told::Node { node, at, level } => match self.nodes.get_mut(&node) {
                Some(meter) => meter.set(at, level),
                None => {
                    self.nodes.insert(node, Meter::new(at, at, level));
                }
            },
            Told::NodeGone { node } => {
                self.nodes.remove(&node);
            }
            Told::Value { series, value, at } => self.value(series, value, at),
            Told::ValueGone { series } => {
                let subject = (series.resource.clone(), series.object.clone());
                let Some(values) = self.values.get_mut(&subject) else { return };
                let before = values.len();
                values.retain(|valued| valued.series != series);
                let gone = values.len() < before;
                if values.is_empty() {
                    self.values.remove(&subject);
                }
                if gone {
                    self.uncount(&series);
                }
            }
        }
    }

    fn value(&mut self, series: Series, value: Value, at: Time) {
        let subject = (series.resource.clone(), series.object.clone());
        let values = self.values.entry(subject).or_default();
        if let Some(valued) = values.iter_mut().find(|valued| valued.series == series) {
            if valued.value != value {
                let old = std::mem::replace(&mut valued.value, value);
                // Of several values within one interval the one before it is what counted.
                if at >= last_scrape(valued.at) + RESOLUTION || valued.before.is_none() {
                    valued.before = Some(old);
                }
                valued.at = at;
            }
            return;
        }
        let name = (series.resource.clone(), series.metric.clone());
        *self.names.entry(name).or_default() += 1;
        values.push(Valued { series, at, value, before: None });
    }

    fn uncount(&mut self, series: &Series) {
        let name = (series.resource.clone(), series.metric.clone());
        if let Some(count) = self.names.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                self.names.remove(&name);
            }
        }
    }
}

impl Container {
    fn set(&mut self, started: Time, at: Time, level: Level) {
        match self.runs.last_mut() {
            Some(run) if run.started() == started && run.ended().is_none() => run.set(at, level),
            _ => {
                if let Some(run) = self.runs.last_mut() {
                    run.end(started);
                }
                let oldest = at - 2 * RESOLUTION;
                self.runs.retain(|run| run.ended().is_none_or(|ended| ended > oldest));
                self.runs.push(Meter::new(started, at, level));
            }
        }
    }
}

impl Valued {
    fn sample(&self, now: Time) -> Option<Sample> {
        let scrape = last_scrape(now);
        let value = if self.at < scrape { &self.value } else { self.before.as_ref()? };
        let number = match value {
            Value::Number(number) => *number,
            Value::Curve(curve, start) => curve.at(scrape.since(*start)),
        };
        Some(Sample {
            object: self.series.object.name.clone(),
            labels: self.series.labels.clone(),
            timestamp: scrape,
            window: Some(RESOLUTION),
            // Thousandths are what autoscalers count in.
            value: Quantity::from_milli((number * 1_000.0).round() as i64),
        })
    }
}

/// The last scrape at or before a moment.
pub fn last_scrape(now: Time) -> Time {
    let period = i64::try_from(RESOLUTION.as_nanos()).unwrap_or(i64::MAX);
    Time::from_nanos(now.as_nanos().div_euclid(period) * period)
}

/// From when on, cpu in billionths of a core, and bytes of memory, as of a scrape.
fn rate(meter: &Meter, scrape: Time) -> Option<(Time, u64, u64)> {
    if !meter.ran(scrape) {
        return None;
    }
    let (age, previous) = (scrape.since(meter.started()), scrape - RESOLUTION);
    let from = if meter.known() == meter.started() && age >= FRESH_MIN && age < RESOLUTION {
        meter.started()
    } else if meter.known() <= previous && meter.started() < previous {
        previous
    } else {
        return None;
    };
    let used = meter.cpu_used(scrape).saturating_sub(meter.cpu_used(from));
    let window = u64::try_from(scrape.since(from).as_nanos()).unwrap_or(u64::MAX).max(1);
    let cpu = u128::from(used) * 1_000_000_000 / u128::from(window);
    Some((from, u64::try_from(cpu).unwrap_or(u64::MAX), meter.memory(scrape)))
}

fn of_pod(
    namespace: &str,
    name: &str,
    containers: &[Container],
    scrape: Time,
) -> Option<PodMetrics> {
    let mut usages = Vec::with_capacity(containers.len());
    let mut window = RESOLUTION;
    for container in containers {
        let Some(run) = container.runs.iter().find(|run| run.ran(scrape)) else { continue };
        let (from, cpu, memory) = rate(run, scrape)?;
        window = window.min(scrape.since(from));
        usages.push(ContainerUsage { name: container.name.clone(), usage: usage(cpu, memory) });
    }
    (!usages.is_empty()).then(|| PodMetrics {
        namespace: namespace.into(),
        pod: name.into(),
        timestamp: scrape,
        window,
        containers: usages,
    })
}

fn usage(cpu: u64, memory: u64) -> Usage {
    let whole = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    vec![
        ("cpu".into(), Quantity::from_nanos(whole(cpu))),
        ("memory".into(), Quantity::from_units(whole(memory), Format::BinarySi)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "web";

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    fn told(container: &str, started: i64, from: i64, milli: u64, mebi: u64) -> Told {
        Told::Container {
            pod: ObjectKey::namespaced("default", POD),
            container: container.into(),
            started: at(started),
            at: at(from),
            level: Level { cpu_nanos: milli * 1_000_000, memory_bytes: mebi << 20 },
        }
    }

    /// `cpu/memory/window` of each container at a time.
    fn read(board: &Board, now: i64) -> Vec<String> {
        let everything = Selector::default();
        let query = PodQuery { namespace: "default", selector: &everything, names: &[POD, "gone"] };
        let pods = board.pod_metrics(&query, at(now)).expect("a board never refuses");
        let one = |pod: &PodMetrics, usage: &ContainerUsage| {
            let amounts: Vec<String> =
                usage.usage.iter().map(|(_, amount)| amount.to_api().0).collect();
            format!("{} {} {:?}", usage.name, amounts.join(" "), pod.window)
        };
        pods.iter().flat_map(|pod| pod.containers.iter().map(|usage| one(pod, usage))).collect()
    }

    #[test]
    fn nothing_is_known_before_two_scrapes() {
        let board = Board::new();
        board.take(told("a", 107, 107, 100, 64));
        for (now, expected) in [
            (119, vec![]),
            // Scraped at 120, 13 s old: counted from its start.
            (120, vec!["a 100m 64Mi 13s"]),
            (134, vec!["a 100m 64Mi 13s"]),
            (135, vec!["a 100m 64Mi 15s"]),
        ] {
            assert_eq!(read(&board, now), expected, "at {now}");
        }
        let board = Board::new();
        board.take(told("a", 112, 112, 100, 64));
        assert_eq!(read(&board, 134), Vec::<String>::new(), "8 s are too young");
        assert_eq!(read(&board, 135), ["a 100m 64Mi 15s"]);
    }

    #[test]
    fn usage_is_the_mean_of_the_last_window() {
        let board = Board::new();
        board.take(told("a", 0, 0, 0, 10));
        board.take(told("a", 0, 110, 300, 20));
        assert_eq!(read(&board, 119), ["a 0 10Mi 15s"], "the scrape was at 105");
        assert_eq!(read(&board, 120), ["a 200m 20Mi 15s"]);
        assert_eq!(read(&board, 150), ["a 300m 20Mi 15s"]);
        // What comes after the scrape changes nothing of it.
        board.take(told("a", 0, 152, 0, 0));
        assert_eq!(read(&board, 152), ["a 300m 20Mi 15s"]);
    }

    #[test]
    fn a_restart_begins_anew() {
        let board = Board::new();
        let pod = ObjectKey::namespaced("default", POD);
        board.take(told("a", 0, 0, 100, 10));
        board.take(told("b", 0, 0, 100, 10));
        board.take(Told::Ended { pod: pod.clone(), container: "a".into(), at: at(62) });
        assert_eq!(read(&board, 70), ["a 100m 10Mi 15s", "b 100m 10Mi 15s"], "it ran at 60");
        assert_eq!(read(&board, 75), ["b 100m 10Mi 15s"], "what does not run is not shown");
        board.take(told("a", 86, 86, 200, 10));
        assert_eq!(read(&board, 90), Vec::<String>::new(), "one of two has no window yet");
        assert_eq!(read(&board, 105), ["a 200m 10Mi 15s", "b 100m 10Mi 15s"]);
        board.take(Told::PodGone { pod });
        assert_eq!(read(&board, 105), Vec::<String>::new());
    }

    #[test]
    fn custom_and_external_values() {
        let board = Board::new();
        let everything = Selector::default();
        let pod = ObjectKey::namespaced("default", POD);
        let series = |resource: &str, object: &ObjectKey, labels: &[(&str, &str)]| Series {
            resource: resource.into(),
            object: object.clone(),
            metric: "rps".into(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let value = |series: Series, number: f64, from: i64| Told::Value {
            series,
            value: Value::Number(number),
            at: at(from),
        };
        board.take(value(series("pods", &pod, &[]), 2.5, 10));
        let pods = PodQuery { namespace: "default", selector: &everything, names: &[POD] };
        let query = MetricQuery::Pods { pods, metric: "rps", series: &everything };
        let ask = |query: &MetricQuery<'_>, now: i64| {
            let samples = board.samples(query, at(now));
            samples.map(|samples| samples.iter().map(|s| s.value.to_api().0).collect::<Vec<_>>())
        };
        let refused = Err("the server could not find the metric rps for pods".to_owned());
        assert_eq!(ask(&query, 14), refused, "not scraped yet");
        assert_eq!(ask(&query, 15), Ok(vec!["2500m".to_owned()]));
        board.take(value(series("pods", &pod, &[]), 4.0, 20));
        board.take(value(series("pods", &pod, &[]), 5.0, 21));
        assert_eq!(ask(&query, 29), Ok(vec!["2500m".to_owned()]));
        assert_eq!(ask(&query, 30), Ok(vec!["5".to_owned()]));

        let queue = ObjectKey::namespaced("default", "queue-a");
        board.take(value(series("", &queue, &[("queue", "a")]), 7.0, 10));
        let only = |text: &str| Selector::parse(text).expect("a selector");
        for (selector, expected) in [("queue=a", vec!["7".to_owned()]), ("queue=b", vec![])] {
            let selector = only(selector);
            let query =
                MetricQuery::External { namespace: "default", metric: "rps", series: &selector };
            assert_eq!(ask(&query, 30), Ok(expected));
        }
        let names: Vec<String> = board
            .metric_names()
            .iter()
            .map(|(resource, metric)| format!("{resource}/{metric}"))
            .collect();
        assert_eq!(names, ["/rps", "pods/rps"]);
        board.take(Told::PodGone { pod });
        assert_eq!(ask(&query, 30), refused);
        assert_eq!(board.metric_names().len(), 1);
    }
}
