//! Where a pass finds pods and metrics: the view, and the metrics port.

use std::cell::OnceCell;

use k8s_openapi::api::autoscaling::v2::{MetricIdentifier, MetricSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use wharf_autoscale::hpa::Source;
use wharf_model::metrics::{PodMetrics, Sample};
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::metrics::{DescribedObject, MetricQuery, Metrics, PodQuery};
use wharf_ports::view::View;

use super::index::Index;

/// What one pass looks at.
pub(super) struct Seen<'a> {
    pub(super) view: &'a View,
    pub(super) index: &'a Index,
    pub(super) metrics: &'a dyn Metrics,
    pub(super) namespace: &'a str,
    pub(super) now: Time,
    /// The template whose requests stand for those of the pods, and for which resources.
    pub(super) base: Option<(&'a PodSpec, Vec<&'static str>)>,
    /// What a forecast asks for.
    pub(super) floor: Option<i32>,
    /// The target's selector and pods, once they were asked for.
    pub(super) found: OnceCell<(Selector, Vec<&'a Pod>)>,
}

impl<'a> Seen<'a> {
    fn found(&self, selector: &Selector) -> &[&'a Pod] {
        let found = self.found.get_or_init(|| {
            let pods = self.view.pods_matching(self.namespace, selector);
            (selector.clone(), pods.into_iter().filter_map(|pod| pod.typed()).collect())
        });
        &found.1
    }

    fn names(&self) -> Vec<&'a str> {
        let pods = self.found.get().map(|(_, pods)| pods.as_slice()).unwrap_or_default();
        pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap_or_default()).collect()
    }
}

impl Source for Seen<'_> {
    fn pods(&self, selector: &Selector) -> Vec<&Pod> {
        self.found(selector).to_vec()
    }

    fn pod_metrics(&self, selector: &Selector) -> Result<Vec<PodMetrics>, String> {
        self.found(selector);
        let names = self.names();
        let query = PodQuery { namespace: self.namespace, selector, names: &names };
        self.metrics.pod_metrics(&query, self.now)
    }

    fn samples(&self, _: usize, spec: &MetricSpec) -> Result<Vec<Sample>, String> {
        let namespace = self.namespace;
        if let Some(source) = &spec.pods {
            let names = self.names();
            static NOTHING: Selector = Selector::NOTHING;
            let selector = self.found.get().map_or(&NOTHING, |(selector, _)| selector);
            let pods = PodQuery { namespace, selector, names: &names };
            let series = series(&source.metric)?;
            let query = MetricQuery::Pods { pods, metric: &source.metric.name, series: &series };
            return self.metrics.samples(&query, self.now);
        }
        if let Some(source) = &spec.object {
            let object = DescribedObject {
                namespace,
                api_version: source.described_object.api_version.as_deref().unwrap_or_default(),
                kind: &source.described_object.kind,
                name: &source.described_object.name,
            };
            let series = series(&source.metric)?;
            let query =
                MetricQuery::Object { object, metric: &source.metric.name, series: &series };
            return self.metrics.samples(&query, self.now);
        }
        let Some(source) = &spec.external else { return Ok(Vec::new()) };
        let series = series(&source.metric)?;
        let query =
            MetricQuery::External { namespace, metric: &source.metric.name, series: &series };
        self.metrics.samples(&query, self.now)
    }

    fn autoscalers_over(&self, pods: &[&Pod]) -> Vec<String> {
        self.index.autoscalers_over(self.namespace, pods)
    }

    fn base_requests(&self, resource: &str) -> Option<&PodSpec> {
        let (spec, resources) = self.base.as_ref()?;
        resources.contains(&resource).then_some(*spec)
    }

    fn floor(&self) -> Option<i32> {
        self.floor
    }
}

/// Which series of a metric; all of them if nothing is said.
fn series(metric: &MetricIdentifier) -> Result<Selector, String> {
    match &metric.selector {
        None => Ok(Selector::EVERYTHING),
        some => Selector::from_api(some.as_ref()).map_err(|error| error.to_string()),
    }
}
