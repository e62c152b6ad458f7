//! The program's log, in the form of glog.

use wharf_model::time::Time;
use wharf_ports::controller::{LogLine, Step, container_log_name};

use super::Run;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Info,
    Error,
}

/// Where lines go to.
#[derive(Clone, Debug)]
pub(super) struct Log {
    name: String,
    verbosity: i64,
    /// Whether more than errors reaches the container's output.
    everything: bool,
}

impl Log {
    pub(super) fn new(run: &Run, verbosity: i64, everything: bool) -> Self {
        let name = container_log_name(&run.pod, &run.container, run.restarts);
        Self { name, verbosity, everything }
    }

    /// Adds a line of a level, as `file:line` of the program has it.
    pub(super) fn info(&self, step: &mut Step, now: Time, level: i64, place: &str, text: &str) {
        if level <= self.verbosity && self.everything {
            self.line(step, head(Severity::Info, now, place) + text);
        }
    }

    /// Adds an error.
    pub(super) fn error(&self, step: &mut Step, now: Time, place: &str, text: &str) {
        self.line(step, head(Severity::Error, now, place) + text);
    }

    /// Adds a line as it is.
    pub(super) fn line(&self, step: &mut Step, line: String) {
        step.logs.push(LogLine { component: self.name.clone().into(), line });
    }
}

/// `I0131 15:04:05.000000       1 autoscaler.go:49] `
fn head(severity: Severity, now: Time, place: &str) -> String {
    let letter = match severity {
        Severity::Info => 'I',
        Severity::Error => 'E',
    };
    let time = now.timestamp().strftime("%m%d %H:%M:%S%.6f");
    format!("{letter}{time}       1 {place}] ")
}
