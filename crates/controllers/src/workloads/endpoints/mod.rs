//! The endpoints of Services: which pods are behind them, and whether they are ready, as EndpointSlices
//! and as the older Endpoints (<https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>).
//!
//! `members` says which pods count and at which ports; `slices` and `subsets` put them into objects, as
//! plain functions of what there is. Services are filed under one label of their selectors each, so that
//! a pod which no Service selects costs one look-up for each of its labels.

mod members;
mod slices;
mod subsets;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rustc_hash::FxHashMap;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_terminal;
use wharf_model::pod::ready_since;
use wharf_model::selector::Selector;
use wharf_ports::cluster::{Change, Delete, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::{View, place};

pub use slices::{ENDPOINTS_MAX, MANAGED_BY, MANAGER, SERVICE_NAME};

/// The wait after a change grows with the number of pods, so that the work for many changes does not
/// grow with the square of their number.
const SETTLE_PER_POD: Duration = Duration::from_micros(20);
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Fewer pods than this are looked at without a wait.
const SETTLE_FROM: usize = 50;

/// In which form endpoints are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// EndpointSlices.
    Slices,
    /// Endpoints.
    Subsets,
}

/// The controller of one form.
#[derive(Debug)]
pub struct ServiceEndpoints {
    form: Form,
    /// Services with a selector, by the label they are filed under.
    by_label: FxHashMap<u64, BTreeSet<ObjectKey>>,
    services: FxHashMap<ObjectKey, Filed>,
}

#[derive(Debug)]
struct Filed {
    place: u64,
    selector: Selector,
    /// How many pods there were at the last look.
    pods: usize,
}

impl ServiceEndpoints {
    /// A controller that has seen nothing.
    pub fn new(form: Form) -> Self {
        Self { form, by_label: FxHashMap::default(), services: FxHashMap::default() }
    }

    fn file(&mut self, key: &ObjectKey, service: Option<&Service>) {
        if let Some(old) = self.services.remove(key)
            && let Some(filed) = self.by_label.get_mut(&old.place)
        {
            filed.remove(key);
            if filed.is_empty() {
                self.by_label.remove(&old.place);
            }
        }
        let Some(selector) = service.and_then(selector_of) else { return };
        let Some(place) = selector.anchors().next().map(|(k, v)| place(&key.namespace, k, v))
        else {
            return;
        };
        self.by_label.entry(place).or_default().insert(key.clone());
        self.services.insert(key.clone(), Filed { place, selector, pods: 0 });
    }

    fn queue(&self, key: &ObjectKey, queue: &mut Enqueue) {
        let pods = self.services.get(key).map_or(0, |filed| filed.pods);
        let wait = match u32::try_from(pods).unwrap_or(u32::MAX) {
            _ if pods < SETTLE_FROM => Duration::ZERO,
            pods => SETTLE_PER_POD.saturating_mul(pods),
        };
        queue.after(WorkKey::object(Kind::of::<Service>(), key), wait.min(SETTLE_MAX));
    }

    /// Queues the Services whose endpoints a change of a pod touches.
    fn observe_pod(&self, change: &Change, queue: &mut Enqueue) {
        if self.services.is_empty() {
            return;
        }
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && old.header().labels == new.header().labels
            && told(old) == told(new)
        {
            return;
        }
        let mut found = BTreeSet::new();
        for pod in change.old.iter().chain(&change.new) {
            let header = pod.header();
            for (key, value) in &header.labels {
                let Some(filed) = self.by_label.get(&place(&header.key.namespace, key, value))
                else {
                    continue;
                };
                found.extend(filed.iter().filter(|key| {
                    key.namespace == header.key.namespace
                        && self.services.get(*key).is_some_and(|filed| {
                            filed.selector.matches_with(|label| header.label(label))
                        })
                }));
            }
        }
        found.into_iter().for_each(|key| self.queue(key, queue));
    }

    fn reconcile(&mut self, object: &Object, service: &Service, view: &View) -> Step {
        let mut step = Step::done();
        let key = object.key();
        let Some(filed) = self.services.get_mut(key) else { return step };
        let pods = view.pods_matching(&key.namespace, &filed.selector);
        filed.pods = pods.len();
        match self.form {
            Form::Slices => {
                let wanted = members::for_slices(service, &pods, view);
                step.writes = slices::plan(service, wanted, &slices_of(key, view));
            }
            Form::Subsets => {
                let subsets = subsets::of(service, &pods);
                step.writes.extend(subsets::plan(service, subsets, view.get(key)));
            }
        }
        step
    }

    /// Removes what was made for a Service that is gone. Slices go with it, as it owns them.
    fn clean_up(&self, key: &ObjectKey, view: &View) -> Step {
        let mut step = Step::done();
        if self.form == Form::Subsets
            && let Some(object) = view.object(Kind::of::<Endpoints>(), key)
            && object.header().label(subsets::MANAGED_BY) == Some(subsets::MANAGER)
        {
            step.write(Write::Delete(Delete::of(object)));
        }
        step
    }
}

impl Controller for ServiceEndpoints {
    fn name(&self) -> &'static str {
        match self.form {
            Form::Slices => "endpointslice-controller",
            Form::Subsets => "endpoints-controller",
        }
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(match self.form {
            Form::Slices => &[
                ("", "services"),
                ("", "pods"),
                ("", "nodes"),
                ("discovery.k8s.io", "endpointslices"),
            ],
            Form::Subsets => &[("", "services"), ("", "pods"), ("", "endpoints")],
        })
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        if kind == Kind::of::<Pod>() {
            self.observe_pod(change, queue);
        } else if kind == Kind::of::<Service>() {
            let service = change.new.as_ref().and_then(|object| object.typed::<Service>());
            self.file(change.key(), service);
            queue.now(WorkKey::object(kind, change.key()));
        } else if kind == Kind::of::<EndpointSlice>() && self.form == Form::Slices {
            let header = change.object().header();
            if let Some(service) = header.label(SERVICE_NAME) {
                self.queue(&ObjectKey::namespaced(&header.key.namespace, service), queue);
            }
        } else if kind == Kind::of::<Endpoints>() && self.form == Form::Subsets {
            self.queue(change.key(), queue);
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<Service>(), &key.key);
        let Some((object, service)) =
            object.and_then(|object| Some((object, object.typed::<Service>()?)))
        else {
            return self.clean_up(&key.key, context.view);
        };
        if object.header().deleting.is_some() {
            return Step::done();
        }
        self.reconcile(object, service, context.view)
    }

    fn refused(&mut self, _key: &WorkKey, write: &Write, error: &ApiError) -> OnError {
        // A namespace that goes takes no new objects; what is gone needs no deletion.
        let gone = matches!(write, Write::Delete(_)) && error.reason == StatusReason::NotFound;
        let going = matches!(write, Write::Create(_)) && error.reason == StatusReason::Forbidden;
        if gone || going { OnError::Forget } else { OnError::Retry }
    }
}

/// The slices that this controller has made for a Service.
fn slices_of<'v>(key: &ObjectKey, view: &'v View) -> Vec<&'v EndpointSlice> {
    // Names begin with the Service's, so that only its own need be looked at, and its neighbours'.
    let prefix = format!("{}-", key.name);
    view.objects_from(Kind::of::<EndpointSlice>(), &key.namespace, &prefix)
        .take_while(|object| object.key().name.starts_with(prefix.as_str()))
        .filter(|object| {
            object.header().label(SERVICE_NAME) == Some(key.name.as_str())
                && object.header().label(MANAGED_BY) == Some(MANAGER)
        })
        .filter_map(|object| object.typed())
        .collect()
}

fn selector_of(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then(|| Selector::from_map(selector))
}

/// What endpoints tell of a pod: its address, its node, and whether it is ready, has ended, is to go.
fn told(object: &Object) -> Option<([Option<&str>; 2], [bool; 3])> {
    let pod = object.typed::<Pod>()?;
    Some((
        [
            pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()),
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()),
        ],
        [ready_since(pod).is_some(), is_terminal(pod), object.header().deleting.is_some()],
    ))
}
