//! Processes that end because of what somebody did who is attached to them. The kubelet of the model
//! hears of it through an annotation of the pod: `ended.sim.wharf.dev/CONTAINER`, with the number of
//! restarts before and the exit code. So it outlives a restart, and kubelets in another process see it.

use k8s_openapi::api::core::v1::Pod;
use wharf_model::time::Time;

use super::worker::Worker;

/// What annotations begin with that say how a container's process ended.
const PREFIX: &str = "ended.sim.wharf.dev/";

/// The annotation that says that a container's process has ended after so many restarts.
pub fn ended(container: &str, restarts: u32, code: i32) -> (String, String) {
    (format!("{PREFIX}{container}"), format!("{restarts} {code}"))
}

/// The restarts and the exit code that an annotation tells.
fn told(text: &str) -> Option<(u32, i32)> {
    let (restarts, code) = text.split_once(' ')?;
    Some((restarts.parse().ok()?, code.parse::<u8>().ok()?.into()))
}

impl Worker {
    /// Ends the containers of which that is told.
    pub(super) fn end_as_told(&mut self, pod: &Pod, now: Time) {
        for (key, text) in pod.metadata.annotations.iter().flatten() {
            let Some(container) = key.strip_prefix(PREFIX) else { continue };
            let Some((restarts, code)) = told(text) else { continue };
            let run = self.runs.iter_mut().find(|run| run.name == container);
            if let Some(run) = run.filter(|run| run.restarts == restarts) {
                run.end(now, code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        let (key, text) = ended("web", 3, 130);
        assert_eq!((key.as_str(), told(&text)), ("ended.sim.wharf.dev/web", Some((3, 130))));
        for text in ["", "1", "1 x", "-1 2", "1 -2", "1 256"] {
            assert_eq!(told(text), None, "{text}");
        }
    }
}
