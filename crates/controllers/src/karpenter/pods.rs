//! Which pods provisioning and disruption look at, and what they ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use wharf_model::duration::GoDuration;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
pub(super) use wharf_model::pod::is_terminal;
use wharf_model::resources::{Resources, assigned_pod_requests, pod_requests};
use wharf_model::selector::Selector;
use wharf_model::taints::{self, ComparisonOperators};
use wharf_model::time::Time;
use wharf_ports::view::View;
use wharf_provision::disruption::candidate::PodBlock;
use wharf_provision::disruption::cost::Cost;
use wharf_provision::pod::{Constraints, Origin, PodRequest};

use super::volume_topology;

/// Whether a pod waits for a node that provisioning could make: kube-scheduler found none, nothing
/// was preempted for it, and it belongs to no node of its own.
pub(super) fn is_provisionable(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let unschedulable = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    let nominated = status.nominated_node_name.as_deref().is_some_and(|name| !name.is_empty());
    unschedulable
        && !nominated
        && node_of(pod).is_none()
        && !is_terminal(pod)
        && pod.metadata.deletion_timestamp.is_none()
        && !is_owned_by(pod, &["DaemonSet", "Node"])
}

/// Whether a pod on a node needs another place when the node goes.
pub(super) fn is_reschedulable(pod: &Pod) -> bool {
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let active = !is_terminal(pod) && !terminating;
    (active || (terminating && is_owned_by(pod, &["StatefulSet"])))
        && !is_owned_by(pod, &["DaemonSet", "Node"])
}

/// The node a pod is bound to.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether a controller of one of these kinds owns a pod.
pub(super) fn is_owned_by(pod: &Pod, kinds: &[&str]) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| kinds.contains(&&*owner.kind))
}

/// Whether a pod came from a file on its node.
pub(super) fn is_static(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    is_owned_by(pod, &["Node"])
        || annotations.is_some_and(|annotations| annotations.contains_key(labels::MIRROR_POD))
}

/// Whether a pod belongs to the system's critical ones, which leave a node last.
pub(super) fn is_critical(pod: &Pod) -> bool {
    let class = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref());
    matches!(class, Some("system-cluster-critical" | "system-node-critical"))
}

/// Whether a pod stays on a node that is being drained, because it tolerates the drain's taint.
pub(super) fn tolerates_disruption(pod: &Pod) -> bool {
    let taint = taints::taint(labels::TAINT_DISRUPTED, taints::NO_SCHEDULE);
    pod.spec
        .iter()
        .flat_map(|spec| spec.tolerations.iter().flatten())
        .any(|toleration| taints::tolerates(toleration, &taint, ComparisonOperators::On))
}

/// Whether a pod forbids its disruption now: annotated `true`, or with a duration that has not yet
/// passed since its start.
pub(super) fn forbids_disruption(pod: &Pod, now: Time) -> bool {
    let annotation =
        pod.metadata.annotations.as_ref().and_then(|map| map.get(labels::DO_NOT_DISRUPT));
    let active = !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none();
    match annotation.map(String::as_str) {
        Some("true") => active,
        Some(text) => {
            let Ok(GoDuration(span)) = GoDuration::parse(text) else { return false };
            let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
            active && started.is_none_or(|started| now < Time::from(started) + span)
        }
        None => false,
    }
}

/// What a pod's eviction costs.
pub(super) fn eviction_cost(pod: &Pod) -> Cost {
    let annotations = pod.metadata.annotations.as_ref();
    let deletion = annotations
        .and_then(|map| map.get(labels::POD_DELETION_COST))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    Cost::of_eviction(deletion, priority)
}

/// How long a pod may take to stop.
pub(super) fn grace_period(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    Duration::from_secs(u64::try_from(seconds.unwrap_or(30)).unwrap_or(0))
}

/// What a pod takes of its node, its slot included.
pub(super) fn usage(pod: &Pod) -> Resources {
    let mut resources = assigned_pod_requests(pod);
    resources.pods += 1;
    resources
}

/// The cluster's disruption budgets, ready to be asked.
pub(super) struct Budgets<'v>(Vec<(ObjectKey, Selector, &'v PodDisruptionBudget)>);

impl<'v> Budgets<'v> {
    /// All budgets of the cluster.
    pub(super) fn of(view: &'v View) -> Self {
        let budgets = view.list::<PodDisruptionBudget>().filter_map(|budget| {
            let selector = budget.spec.as_ref()?.selector.as_ref();
            let selector = Selector::from_api(selector).ok()?;
            Some((ObjectKey::of(&budget.metadata), selector, budget))
        });
        Self(budgets.collect())
    }

    /// What in the budgets stands against a pod's eviction now.
    pub(super) fn against(&self, pod: &Pod) -> Option<PodBlock> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let matching: Vec<_> = self
            .0
            .iter()
            .filter(|(key, ..)| key.namespace == namespace)
            .filter(|(_, selector, _)| selector.matches(&pod.metadata.labels))
            .collect();
        if matching.len() > 1 {
            let keys = matching.iter().map(|(key, ..)| key.clone()).collect();
            return Some(PodBlock::MultiplePdbs(keys));
        }
        let (key, _, budget) = matching.first()?;
        let allowed =
            budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
        (allowed < 1).then(|| PodBlock::Pdb(key.clone()))
    }
}

/// Turns pods into requests; pods of one template share their constraints.
pub(super) struct Requests<'v> {
    view: &'v View,
    by_owner: BTreeMap<CompactString, (Arc<Constraints>, PodSpec)>,
}

impl<'v> Requests<'v> {
    /// No requests yet.
    pub(super) fn new(view: &'v View) -> Self {
        Self { view, by_owner: BTreeMap::new() }
    }

    /// The request of a pod; `None` for one whose affinity cannot be read or whose claims cannot be
    /// met.
    pub(super) fn of(&mut self, pod: &Pod, origin: Origin) -> Option<PodRequest> {
        let spec = pod.spec.as_ref()?;
        let spec = &*volume_topology::inject(pod, spec, self.view)?;
        let mut requests = pod_requests(spec);
        requests.pods += 1;
        Some(PodRequest {
            key: ObjectKey::of(&pod.metadata),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            created: pod.metadata.creation_timestamp.as_ref().map(Time::from).unwrap_or_default(),
            requests,
            constraints: self.constraints(pod, spec)?,
            origin,
        })
    }

    fn constraints(&mut self, pod: &Pod, spec: &PodSpec) -> Option<Arc<Constraints>> {
        let owner = pod.metadata.owner_references.iter().flatten().next();
        let owner = CompactString::from(owner.map_or("", |owner| owner.uid.as_str()));
        if let Some((constraints, known)) = self.by_owner.get(&owner) {
            let same = known.node_selector == spec.node_selector
                && known.affinity == spec.affinity
                && known.tolerations == spec.tolerations;
            if same {
                return Some(Arc::clone(constraints));
            }
        }
        let constraints = Arc::new(Constraints::of(spec).ok()?);
        let kept = PodSpec {
            node_selector: spec.node_selector.clone(),
            affinity: spec.affinity.clone(),
            tolerations: spec.tolerations.clone(),
            ..PodSpec::default()
        };
        self.by_owner.insert(owner, (Arc::clone(&constraints), kept));
        Some(constraints)
    }
}
