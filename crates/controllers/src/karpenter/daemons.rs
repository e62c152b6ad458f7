//! What DaemonSets take of each node: of new ones, which are planned with room for it, and of those
//! that have not got all their daemons yet.
//!
//! Follows <https://karpenter.sh/docs/concepts/scheduling/>: a daemon counts on a node whose labels
//! and taints let it in, whether it is there or still to come.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod, PodSpec, Taint};
use wharf_model::requirements::Requirements;
use wharf_model::requirements::node_selector::pod_matches_node;
use wharf_model::resources::{Resources, pod_requests};
use wharf_model::selector::Labels;
use wharf_model::taints::{ComparisonOperators, blocks_scheduling, first_untolerated};
use wharf_ports::view::View;
use wharf_provision::pool::Daemon;
use wharf_provision::terms::HostPort;

use super::pods;
use crate::workloads::daemon_set::nodes::tolerations;

/// The daemons of the cluster.
pub(super) struct Daemons<'v>(Vec<(&'v PodSpec, Daemon)>);

impl<'v> Daemons<'v> {
    /// All there are. One whose affinity is malformed, which validation refuses, is left out.
    pub(super) fn of(view: &'v View) -> Self {
        let sets = view.list::<DaemonSet>();
        let specs = sets.filter_map(|set| set.spec.as_ref()?.template.spec.as_ref());
        Self(specs.filter_map(|spec| Some((spec, daemon(spec)?))).collect())
    }

    /// As the solver sees them.
    pub(super) fn for_pool(&self) -> Vec<Daemon> {
        self.0.iter().map(|(_, daemon)| daemon.clone()).collect()
    }

    /// What daemons that are not on a node yet will take of it.
    pub(super) fn still_to_come(
        &self,
        name: &str,
        labels: &(impl Labels + ?Sized),
        taints: &[Taint],
        on_it: &[&Pod],
    ) -> Resources {
        let mut missing = Resources::default();
        for (spec, daemon) in &self.0 {
            let comparison = ComparisonOperators::Off;
            let kept_out =
                first_untolerated(taints, &daemon.tolerations, comparison, blocks_scheduling);
            if kept_out.is_none() && pod_matches_node(spec, name, labels) {
                missing.add(&daemon.requests);
            }
        }
        if missing.is_zero() {
            return missing;
        }
        for pod in on_it.iter().filter(|pod| pods::is_owned_by(pod, &["DaemonSet"])) {
            missing.subtract(&pods::usage(pod));
        }
        // A daemon that is there may ask for more than its set's template by now.
        let mut least = Resources::default();
        least.max(&missing);
        least
    }
}

fn daemon(spec: &PodSpec) -> Option<Daemon> {
    let mut requests = pod_requests(spec);
    requests.pods += 1;
    let selected = Requirements::from_labels(spec.node_selector.iter().flatten());
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    let with = |term: &NodeSelectorTerm| {
        let expressions = term.match_expressions.iter().flatten();
        let mut requirements = selected.clone();
        requirements.extend(Requirements::from_node_selector_requirements(expressions).ok()?);
        Some(requirements)
    };
    let alternatives = match required {
        None => vec![selected.clone()],
        Some(required) => {
            required.node_selector_terms.iter().map(with).collect::<Option<Vec<_>>>()?
        }
    };
    let ports = HostPort::of_pod(spec);
    Some(Daemon { requests, alternatives, tolerations: tolerations(spec), ports })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::{Value, json};
    use wharf_model::object::Object;

    use super::*;

    fn view(sets: &[Value]) -> View {
        let mut view = View::new();
        for (index, spec) in sets.iter().enumerate() {
            let set: DaemonSet = serde_json::from_value(json!({
                "metadata": {"name": format!("d{index}"), "namespace": "default"},
                "spec": {"selector": {}, "template": {"spec": spec}}}))
            .expect("a set");
            view.load(Arc::new(Object::from_typed(Box::new(set), 1)));
        }
        view
    }

    fn spec(more: Value) -> Value {
        let mut spec = json!({"containers": [{"name": "c",
            "resources": {"requests": {"cpu": "100m"}}}]});
        for (field, value) in more.as_object().expect("fields") {
            spec[field] = value.clone();
        }
        spec
    }

    #[test]
    fn daemons_count_until_they_are_there() {
        let off_fargate = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "eks.amazonaws.com/compute-type",
                "operator": "NotIn", "values": ["fargate"]}]}]}}});
        let view = view(&[
            spec(json!({"affinity": off_fargate})),
            spec(json!({"nodeSelector": {"disk": "ssd"}})),
        ]);
        let daemons = Daemons::of(&view);
        assert_eq!(daemons.for_pool().len(), 2);
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let cpu = |labels: &BTreeMap<String, String>, taints: &[Taint], pods: &[&Pod]| {
            let missing = daemons.still_to_come("n", labels, taints, pods);
            (missing.get("cpu"), missing.pods)
        };
        let ssd = labels(&[("disk", "ssd")]);
        assert_eq!(cpu(&labels(&[]), &[], &[]), (100, 1));
        assert_eq!(cpu(&ssd, &[], &[]), (200, 2));
        assert_eq!(
            cpu(&labels(&[("eks.amazonaws.com/compute-type", "fargate")]), &[], &[]),
            (0, 0)
        );
        let taint = |key: &str| wharf_model::taints::taint(key.to_owned(), "NoSchedule");
        assert_eq!(cpu(&ssd, &[taint("mine")], &[]), (0, 0));
        assert_eq!(cpu(&ssd, &[taint("node.kubernetes.io/unschedulable")], &[]), (200, 2));
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d0", "uid": "u"}]);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "ownerReferences": owner},
            "spec": spec(json!({}))}))
            .expect("a pod");
        assert_eq!(cpu(&ssd, &[], &[&pod]), (100, 1));
        assert_eq!(cpu(&ssd, &[], &[&pod, &pod, &pod]), (0, 0));
    }
}
