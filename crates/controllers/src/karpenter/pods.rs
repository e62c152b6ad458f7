//! Which pods provisioning and disruption look at, and what they ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
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
use wharf_provision::node::ResidentPod;
use wharf_provision::pod::{Constraints, Origin, PodRequest};
use wharf_provision::terms::{HostPort, TopologyKind, TopologyTerm};

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

/// Whether a pod asks anything of other pods.
pub(super) fn asks_of_others(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        spec.topology_spread_constraints.as_ref().is_some_and(|terms| !terms.is_empty())
            || spec.affinity.as_ref().is_some_and(|affinity| {
                affinity.pod_affinity.is_some() || affinity.pod_anti_affinity.is_some()
            })
    })
}

/// A pod on a node, as other pods' terms see it.
pub(super) fn resident(pod: &Pod, view: &View) -> ResidentPod {
    let repels = pod.spec.as_ref().filter(|spec| {
        let affinity = spec.affinity.as_ref();
        affinity.is_some_and(|affinity| affinity.pod_anti_affinity.is_some())
    });
    let terms = repels.and_then(|spec| topology_terms(pod, spec, view)).unwrap_or_default();
    let required =
        |term: &TopologyTerm| term.kind == TopologyKind::AntiAffinity && term.preference.is_none();
    ResidentPod {
        namespace: pod.metadata.namespace.as_deref().unwrap_or_default().into(),
        labels: Arc::new(pod.metadata.labels.clone().unwrap_or_default()),
        anti_affinity: terms.into_iter().filter(required).map(Arc::new).collect(),
    }
}

/// What a pod asks of others; `None` if a selector cannot be read.
fn topology_terms(pod: &Pod, spec: &PodSpec, view: &View) -> Option<Vec<TopologyTerm>> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let own = pod.metadata.labels.clone().unwrap_or_default();
    let selected = |selector: &LabelSelector| {
        let Ok(selector) = Selector::from_api(Some(selector)) else { return Vec::new() };
        view.list::<Namespace>()
            .filter(|namespace| selector.matches(&namespace.metadata.labels))
            .filter_map(|namespace| namespace.metadata.name.as_deref().map(CompactString::from))
            .collect()
    };
    TopologyTerm::of_pod(spec, namespace, &own, &selected).ok()
}

/// Whether the terms depend on the pod's own labels, so that pods of one owner may differ.
fn has_match_label_keys(spec: &PodSpec) -> bool {
    let constraints = spec.topology_spread_constraints.iter().flatten();
    constraints.flat_map(|constraint| constraint.match_label_keys.iter().flatten()).next().is_some()
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
            labels: Arc::new(pod.metadata.labels.clone().unwrap_or_default()),
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
                && known.tolerations == spec.tolerations
                && known.topology_spread_constraints == spec.topology_spread_constraints
                && !has_match_label_keys(spec)
                && constraints.ports == HostPort::of_pod(spec);
            if same {
                return Some(Arc::clone(constraints));
            }
        }
        let mut constraints = Constraints::of(spec).ok()?;
        let terms = topology_terms(pod, spec, self.view)?;
        constraints.topology = terms.into_iter().map(Arc::new).collect();
        let constraints = Arc::new(constraints);
        let kept = PodSpec {
            node_selector: spec.node_selector.clone(),
            affinity: spec.affinity.clone(),
            tolerations: spec.tolerations.clone(),
            topology_spread_constraints: spec.topology_spread_constraints.clone(),
            ..PodSpec::default()
        };
        self.by_owner.insert(owner, (Arc::clone(&constraints), kept));
        Some(constraints)
    }
}
