//! The Vertical Pod Autoscaler: a recommender that learns from usage, and an updater that brings
//! what is recommended to pods that run already. New pods are admission's matter, in the registry.
//!
//! Both look at everything once a minute, as upstream's do, and only while there is an autoscaler.
//! The arithmetic and all rules are in `wharf-autoscale`.
//!
//! Public contract: <https://github.com/kubernetes/autoscaler/tree/master/vertical-pod-autoscaler/docs>.

mod recall;
pub mod recommender;
mod status;
pub mod updater;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::LimitRange;
use wharf_autoscale::vpa::{Config, LimitRanges};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::vpa::validation::Gates;
use wharf_ports::controller::Controller;
use wharf_ports::metrics::Metrics;
use wharf_ports::view::View;

use recommender::Recommender;
use updater::Updater;

/// `--recommender-interval` and `--updater-interval`.
const INTERVAL: Duration = Duration::from_secs(60);

/// Both controllers. Usage is read from `metrics`; `storage` says with what the recommender begins,
/// `gates` which of upstream's features are on.
pub fn controllers(
    metrics: Arc<dyn Metrics>,
    storage: Storage,
    gates: Gates,
) -> Vec<Box<dyn Controller>> {
    let config = Config { per_vpa_config: gates.per_vpa_config, ..Config::default() };
    let recommender = Recommender::with_config(metrics, config).with_storage(storage);
    vec![Box::new(recommender), Box::new(Updater::default())]
}

/// With what the recommender begins: upstream's `--storage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// What it has kept itself.
    #[default]
    Checkpoint,
    /// What somebody else has kept of usage: the History port is asked. Where that fails or has
    /// nothing, checkpoints count.
    Prometheus,
}

/// What both look at: autoscalers with what they have learned, pods, and what is above pods.
const READS: &[(&str, &str)] = &[
    ("autoscaling.k8s.io", "verticalpodautoscalers"),
    ("autoscaling.k8s.io", "verticalpodautoscalercheckpoints"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("", "pods"),
    ("", "limitranges"),
    ("", "replicationcontrollers"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
];

/// What a namespace's LimitRanges allow.
fn limit_ranges(view: &View, namespace: &str) -> LimitRanges {
    if view.count(Kind::of::<LimitRange>()) == 0 {
        return LimitRanges::default();
    }
    let ranges = view.list::<LimitRange>();
    LimitRanges::of(ranges.filter(|range| range.metadata.namespace.as_deref() == Some(namespace)))
}

/// Finds objects in a view.
fn lookup(view: &View) -> impl Fn(Kind, &ObjectKey) -> Option<Arc<Object>> + '_ {
    |kind, key| view.object(kind, key).cloned()
}
