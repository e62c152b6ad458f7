//! What containers and nodes use, under cAdvisor's and the kubelet's names, for all nodes at once.
//!
//! Samples carry no times: they are read at Prometheus' own, which a lab's clock may be far ahead
//! of. `wharf_cluster_time_seconds` says where it is.

use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::time::Time;
use wharf_ports::metrics::{Board, Counters};

use super::{Described, Families, Labels, gauge};

const CPU: Described = Described {
    kind: "counter",
    help: "Cumulative cpu time consumed by the container in core-seconds",
};

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// The lab's clock, so that what a counter counts can be told per second of cluster time.
pub(super) fn clock(now: Time, out: &mut Families) {
    let about = gauge("The cluster's clock, in seconds since the unix epoch");
    out.row("wharf_cluster_time_seconds", about, &[], now.as_nanos() as f64 / 1e9);
}

pub(super) fn containers(pod: &Pod, board: &Board, now: Time, out: &mut Families) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    let Some(spec) = &pod.spec else { return };
    let node = text(&spec.node_name);
    for counters in board.counters(&namespace, &name, now) {
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let container = containers.into_iter().find(|one| one.name == counters.container.as_str());
        let image = container.and_then(|one| one.image.clone()).unwrap_or_default();
        let labels: &Labels<'_> = &[
            ("namespace", &namespace),
            ("pod", &name),
            ("container", &counters.container),
            ("image", &image),
            ("node", &node),
        ];
        let used = seconds(counters.cpu_nanos);
        out.row("container_cpu_usage_seconds_total", CPU, &[labels], used);
        let about = gauge("Current working set of the container in bytes");
        let memory = counters.memory_bytes as f64;
        out.row("container_memory_working_set_bytes", about, &[labels], memory);
        let about = gauge("Start time of the container since unix epoch in seconds");
        let started = counters.started.as_nanos() as f64 / 1e9;
        out.row("container_start_time_seconds", about, &[labels], started);
    }
}

pub(super) fn node(node: &Node, board: &Board, now: Time, out: &mut Families) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let Some(Counters { cpu_nanos, memory_bytes, .. }) = board.node_counters(&name, now) else {
        return;
    };
    let labels: &Labels<'_> = &[("node", &name)];
    let about = Described {
        kind: "counter",
        help: "Cumulative cpu time consumed by the node in core-seconds",
    };
    out.row("node_cpu_usage_seconds_total", about, &[labels], seconds(cpu_nanos));
    let about = gauge("Current working set of the node in bytes");
    out.row("node_memory_working_set_bytes", about, &[labels], memory_bytes as f64);
}
