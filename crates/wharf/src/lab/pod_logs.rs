//! What the lab's pods have printed: the simulated controllers' pods show the controllers' own
//! logs, as do containers whose program a controller plays; all others what the model of their process
//! says.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use wharf_controllers::journal::Journal;
use wharf_model::object::Object;
use wharf_node::logs::{container_log_from, previous_container_log};
use wharf_ports::clock::Clock;
use wharf_ports::controller::container_log_name;
use wharf_server::{LogLine, LogPart, PodLogs};
use wharf_sim::world::component_of;

/// The logs of a lab.
pub(super) struct ModelledLogs {
    journal: Arc<Mutex<Journal>>,
    clock: Arc<dyn Clock>,
}

impl ModelledLogs {
    pub(super) fn new(journal: Arc<Mutex<Journal>>, clock: Arc<dyn Clock>) -> Self {
        Self { journal, clock }
    }
}

impl PodLogs for ModelledLogs {
    fn read(&self, object: &Object, container: &str, previous: bool, from: u64) -> LogPart {
        if let Some(component) = component_of(object) {
            let (lines, _) = self.journal.lock().lines(component, from);
            let lines =
                lines.into_iter().map(|line| LogLine { time: line.at, text: line.line }).collect();
            return LogPart { lines, finished: previous };
        }
        let Some(pod) = object.typed::<Pod>() else { return LogPart::default() };
        if let Some(part) = self.played(object, pod, container, previous, from) {
            return part;
        }
        let now = self.clock.now();
        let lines = if previous {
            let skip = usize::try_from(from).unwrap_or(usize::MAX);
            let lines = previous_container_log(pod, container, now).unwrap_or_default();
            lines.into_iter().skip(skip).collect()
        } else {
            container_log_from(pod, container, from, now)
        };
        LogPart {
            lines: lines.into_iter().map(|(time, text)| LogLine { time, text }).collect(),
            finished: previous || !runs(pod, container),
        }
    }
}

impl ModelledLogs {
    /// The log of a container whose program is played by a controller.
    fn played(
        &self,
        object: &Object,
        pod: &Pod,
        container: &str,
        previous: bool,
        from: u64,
    ) -> Option<LogPart> {
        let mut statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
        let status = statuses.find(|status| status.name == container)?;
        let run = status.restart_count - i32::from(previous);
        let name = container_log_name(object.uid(), container, run);
        let journal = self.journal.lock();
        if !journal.has_log(&name) {
            return None;
        }
        let (lines, _) = journal.lines(&name, from);
        let lines = lines.into_iter().map(|line| LogLine { time: line.at, text: line.line });
        Some(LogPart { lines: lines.collect(), finished: previous || !runs(pod, container) })
    }
}

/// Whether the container may still print something.
fn runs(pod: &Pod, container: &str) -> bool {
    let Some(status) = &pod.status else { return true };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return false;
    }
    let mut statuses = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    statuses
        .find(|status| status.name == container)
        .and_then(|status| status.state.as_ref())
        .is_none_or(|state| state.terminated.is_none())
}
