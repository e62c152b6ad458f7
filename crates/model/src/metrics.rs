//! What is measured of pods, nodes and other objects, as the three metrics APIs tell it.
//!
//! The APIs: `metrics.k8s.io` (usage of cpu and memory), `custom.metrics.k8s.io` (values about
//! objects of the cluster) and `external.metrics.k8s.io` (values about nothing in it).

use std::collections::BTreeMap;
use std::time::Duration;

use compact_str::CompactString;

use crate::quantity::Quantity;
use crate::time::Time;

/// What the resource metrics API says of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodMetrics {
    /// The pod's namespace.
    pub namespace: CompactString,
    /// The pod's name.
    pub pod: CompactString,
    /// When it was measured.
    pub timestamp: Time,
    /// Over how long.
    pub window: Duration,
    /// Usage by container.
    pub containers: Vec<ContainerUsage>,
}

/// What one container uses.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerUsage {
    /// The container's name.
    pub name: CompactString,
    /// Amounts by resource.
    pub usage: Usage,
}

/// Amounts used, by resource: `cpu` in cores, `memory` in bytes.
pub type Usage = Vec<(CompactString, Quantity)>;

/// What the resource metrics API says of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeMetrics {
    /// The node's name.
    pub node: CompactString,
    /// When it was measured.
    pub timestamp: Time,
    /// Over how long.
    pub window: Duration,
    /// Usage of all that runs on it.
    pub usage: Usage,
}

/// One value of the custom or external metrics API.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name of the pod or object it is about; empty for an external metric.
    pub object: CompactString,
    /// The labels of the series.
    pub labels: BTreeMap<String, String>,
    /// When it was measured.
    pub timestamp: Time,
    /// Over how long; `None` if the source does not say.
    pub window: Option<Duration>,
    /// The value.
    pub value: Quantity,
}
