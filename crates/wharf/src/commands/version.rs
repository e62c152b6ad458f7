//! `wharf version`.

use serde_json::json;

use crate::cli::{Output, VersionArgs};
use crate::output;

/// The Kubernetes release whose behaviour is followed.
const KUBERNETES: &str = "v1.36.0";

/// Prints the version of Wharf and of what it follows.
pub(crate) fn run(args: &VersionArgs) {
    let version = env!("CARGO_PKG_VERSION");
    output::data(&match args.output {
        Output::Text => format!("wharf {version} (Kubernetes {KUBERNETES}, Karpenter v1)"),
        Output::Json => json!({"wharf": version, "kubernetes": KUBERNETES}).to_string(),
    });
}
