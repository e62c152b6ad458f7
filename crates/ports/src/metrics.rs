//! The Metrics port: what the metrics APIs say at a moment of cluster time.
//!
//! An answer is a function of what was measured up to `now`, never of when somebody asks: a lab at
//! any speed and a rehearsal decide alike.

use wharf_model::metrics::{NodeMetrics, PodMetrics, Sample};
use wharf_model::selector::Selector;
use wharf_model::time::Time;

/// The metrics APIs. Errors are their texts, as upstream's autoscalers put them into conditions
/// and Events.
pub trait Metrics: Send + Sync {
    /// What `metrics.k8s.io` says of pods. One of which nothing is known is left out.
    ///
    /// # Errors
    /// The API's refusal.
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String>;

    /// What `metrics.k8s.io` says of all nodes, in the order of their names.
    ///
    /// # Errors
    /// The API's refusal.
    fn node_metrics(&self, now: Time) -> Result<Vec<NodeMetrics>, String>;

    /// What `custom.metrics.k8s.io` or `external.metrics.k8s.io` says of a metric.
    ///
    /// # Errors
    /// The API's refusal.
    fn samples(&self, query: &MetricQuery<'_>, now: Time) -> Result<Vec<Sample>, String>;
}

/// Which pods. Who asks knows the pods that its selector matches; an adapter that has the numbers
/// in memory looks them up by name, one that asks an API sends the selector.
#[derive(Clone, Copy, Debug)]
pub struct PodQuery<'a> {
    /// Their namespace.
    pub namespace: &'a str,
    /// What the API is asked for.
    pub selector: &'a Selector,
    /// The names of the pods that the selector matches. Answers come in this order.
    pub names: &'a [&'a str],
}

/// Which values of a custom or external metric.
#[derive(Clone, Copy, Debug)]
pub enum MetricQuery<'a> {
    /// A value for each of some pods.
    Pods {
        /// Which pods.
        pods: PodQuery<'a>,
        /// The metric.
        metric: &'a str,
        /// Which of its series.
        series: &'a Selector,
    },
    /// The value of one object.
    Object {
        /// Which object.
        object: DescribedObject<'a>,
        /// The metric.
        metric: &'a str,
        /// Which of its series.
        series: &'a Selector,
    },
    /// The values of an external metric.
    External {
        /// In whose name it is asked for.
        namespace: &'a str,
        /// The metric.
        metric: &'a str,
        /// Which of its series.
        series: &'a Selector,
    },
}

/// An object that a custom metric is about.
#[derive(Clone, Copy, Debug)]
pub struct DescribedObject<'a> {
    /// Its namespace: that of the autoscaler, for cluster-scoped objects too.
    pub namespace: &'a str,
    /// Its `apiVersion`; may be empty.
    pub api_version: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
}
