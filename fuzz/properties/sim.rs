//! What must hold of any scenario file.

use std::path::Path;

use wharf_sim::scenario;

/// A scenario file: what is accepted has its steps in order of time.
pub(crate) fn scenario(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Files that a scenario names are opened; the text alone is what is tried here.
    if text.contains("file") || text.contains('\\') {
        return;
    }
    if let Ok(scenario) = scenario::parse(text, Path::new("input.yaml")) {
        assert!(scenario.steps.is_sorted_by_key(|step| step.at));
    }
    let _ = scenario::Target::parse(text, None);
    let _ = scenario::read_duration(text, "at");
}
