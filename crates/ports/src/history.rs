//! The History port: what containers used in the past, asked for as a value and answered later as an
//! event, since who has kept it (a Prometheus) takes its time.

use std::collections::BTreeMap;

use compact_str::CompactString;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;

/// A question for history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryCall {
    /// By what the answer is known.
    pub id: u64,
    /// Of the pods of which namespaces.
    pub namespaces: Vec<CompactString>,
    /// Up to when; how far back is for the asked to know.
    pub until: Time,
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryAnswer {
    /// The question's id.
    pub id: u64,
    /// History by pod, or why there is none.
    pub result: Result<Vec<PodHistory>, String>,
}

/// What was kept of a pod, which may long be gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodHistory {
    /// Which.
    pub pod: ObjectKey,
    /// Its labels when it was last seen, if they were kept. In keys each character that is not a
    /// letter, a digit or `_` may have become `_`, since others are no part of a metric's label.
    pub labels: BTreeMap<String, String>,
    /// Usage by container.
    pub containers: BTreeMap<CompactString, UsageHistory>,
}

/// Usage of a container, in the order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageHistory {
    /// Cores.
    pub cpu: Vec<(Time, f64)>,
    /// Bytes of the working set.
    pub memory: Vec<(Time, f64)>,
}

/// Who is asked. Every question gets one answer.
pub trait HistoryCalls: Send {
    /// Takes a question; does not wait for the answer.
    fn call(&mut self, call: HistoryCall);

    /// Adds the answers that have come since it was last asked.
    fn poll(&mut self, answers: &mut Vec<HistoryAnswer>);
}

/// The key of a label as a metric's label can be named.
pub fn metric_label(key: &str) -> String {
    key.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "_")
}
