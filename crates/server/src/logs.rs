//! The log of containers: the hook through which the program that runs the pods tells what they
//! have printed.

use wharf_model::object::Object;
use wharf_model::time::Time;

/// Knows what containers have printed.
pub trait PodLogs: Send + Sync {
    /// What a container of a pod has printed up to now, from the line with number `from` on (the
    /// first is 0). With `previous` the log of the container's last terminated run.
    fn read(&self, pod: &Object, container: &str, previous: bool, from: u64) -> LogPart;
}

/// A part of a container's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPart {
    /// The lines, in their order.
    pub lines: Vec<LogLine>,
    /// Whether nothing more will come.
    pub finished: bool,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was printed, in cluster time.
    pub time: Time,
    /// The line without its end.
    pub text: String,
}

/// Containers that print nothing.
pub struct SilentPods;

impl PodLogs for SilentPods {
    fn read(&self, _: &Object, _: &str, _: bool, _: u64) -> LogPart {
        LogPart { lines: Vec::new(), finished: true }
    }
}
