//! Requests that Services get: the metric of a Service is what the pods behind it answer, whoever asks
//! and by whichever of its names.

use std::collections::BTreeMap;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Service;
use wharf_load::{Load, Target};
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::metrics::{Board, Series, Told, Value};
use wharf_ports::view::View;

use super::REQUESTS_METRIC;

/// A host and port that is asked for, with the namespace of who asks.
type Route = (CompactString, Target);

/// The Services that were ever asked for anything.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// Which of them each route leads to.
    routes: BTreeMap<Route, ObjectKey>,
    /// Requests a second that were last told.
    told: BTreeMap<ObjectKey, f64>,
}

impl Services {
    /// Whether no Service was asked for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Routes lead elsewhere. Services that are no more have no metric.
    pub(super) fn lead(&mut self, routes: BTreeMap<Route, ObjectKey>, view: &View, board: &Board) {
        self.routes = routes;
        self.told.retain(|service, _| {
            let is_there = view.get::<Service>(service).is_some();
            if !is_there {
                board.take(Told::ValueGone { series: series(service) });
            }
            is_there
        });
    }

    /// Tells what has changed. A Service that nobody asks any more gets none a second.
    pub(super) fn tell(&mut self, load: &Load, board: &Board, at: Time) {
        if self.routes.is_empty() && self.told.is_empty() {
            return;
        }
        let mut rates: BTreeMap<&ObjectKey, f64> = self.told.keys().map(|key| (key, 0.0)).collect();
        for (namespace, target, answered) in load.answered() {
            if let Some(service) = self.routes.get(&(namespace.clone(), target.clone())) {
                *rates.entry(service).or_default() += answered;
            }
        }
        let news: Vec<(ObjectKey, f64)> = rates
            .into_iter()
            .filter(|(service, rate)| self.told.get(*service) != Some(rate))
            .map(|(service, rate)| (service.clone(), rate))
            .collect();
        for (service, rate) in news {
            board.take(Told::Value { series: series(&service), value: Value::Number(rate), at });
            self.told.insert(service, rate);
        }
    }
}

fn series(service: &ObjectKey) -> Series {
    Series {
        resource: "services".into(),
        object: service.clone(),
        metric: REQUESTS_METRIC.into(),
        labels: BTreeMap::new(),
    }
}
