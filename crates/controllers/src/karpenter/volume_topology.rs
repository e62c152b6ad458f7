//! Where a pod may go because of its volumes: where those are that are bound, and where the class
//! of the others allows them to be made
//! (<https://karpenter.sh/docs/concepts/scheduling/#persistent-volume-topology>).

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use wharf_model::ebs;
use wharf_model::labels::{HOSTNAME, TOPOLOGY_ZONE};
use wharf_model::object::ObjectKey;
use wharf_model::storage::claim_name;
use wharf_ports::view::View;

/// The pod's spec with the places of its volumes in its required node affinity; `None` for a pod
/// whose claims cannot be met, for which no node would help.
pub(super) fn inject<'s>(pod: &Pod, spec: &'s PodSpec, view: &View) -> Option<Cow<'s, PodSpec>> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut places = Vec::new();
    for claim in spec.volumes.iter().flatten().filter_map(|volume| claim_name(name, volume)) {
        let claim = view.get::<PersistentVolumeClaim>(&ObjectKey::namespaced(namespace, claim))?;
        places.extend(of_claim(claim, view)?);
    }
    if places.is_empty() {
        return Some(Cow::Borrowed(spec));
    }
    let mut spec = spec.clone();
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(Default::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_expressions.get_or_insert_default().extend(places.clone());
    }
    Some(Cow::Owned(spec))
}

/// What a claim asks of the node; `None` if it cannot be met.
fn of_claim(claim: &PersistentVolumeClaim, view: &View) -> Option<Vec<NodeSelectorRequirement>> {
    let spec = claim.spec.as_ref()?;
    if let Some(volume) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(of_volume(view.get_cluster::<PersistentVolume>(volume)?));
    }
    let class = spec.storage_class_name.as_deref().filter(|name| !name.is_empty())?;
    let class = view.get_cluster::<StorageClass>(class)?;
    // Of several terms upstream takes the first.
    let term = class.allowed_topologies.as_deref().unwrap_or_default().first();
    let expressions = term.and_then(|term| term.match_label_expressions.as_ref());
    let requirement = |key: &str, values: &[String]| NodeSelectorRequirement {
        key: normalized(key),
        operator: "In".to_owned(),
        values: Some(values.to_vec()),
    };
    let all = expressions.into_iter().flatten();
    Some(all.map(|expression| requirement(&expression.key, &expression.values)).collect())
}

fn of_volume(volume: &PersistentVolume) -> Vec<NodeSelectorRequirement> {
    let Some(spec) = volume.spec.as_ref() else { return Vec::new() };
    let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    let term = required.and_then(|required| required.node_selector_terms.first());
    let expressions = term.and_then(|term| term.match_expressions.as_ref());
    // A disk of a machine that is gone must not keep its pod from a new one.
    let is_local = spec.local.is_some() || spec.host_path.is_some();
    expressions
        .into_iter()
        .flatten()
        .filter(|requirement| !(is_local && requirement.key == HOSTNAME))
        .map(|requirement| NodeSelectorRequirement {
            key: normalized(&requirement.key),
            ..requirement.clone()
        })
        .collect()
}

/// The drivers' own labels for zones say the same as the well-known one.
fn normalized(key: &str) -> String {
    if matches!(key, ebs::ZONE | ebs::AUTO_ZONE) { TOPOLOGY_ZONE } else { key }.to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use wharf_model::kinds::Kind;
    use wharf_model::object::Object;

    use super::*;

    fn view() -> View {
        let mut view = View::new();
        let mut put = |group: &str, kind: &str, value: Value| {
            let kind = Kind::by_kind(group, kind).expect("a kind");
            let typed = (kind.decode)(value.to_string().as_bytes()).expect("a valid object");
            view.load(Arc::new(Object::from_typed(typed, 1)));
        };
        let affinity = |key: &str, value: &str| {
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": key, "operator": "In", "values": [value]}]}]}})
        };
        put(
            "",
            "PersistentVolume",
            json!({"metadata": {"name": "zonal"},
            "spec": {"csi": {"driver": "d", "volumeHandle": "h"},
                "nodeAffinity": affinity("topology.ebs.csi.aws.com/zone", "a")}}),
        );
        put(
            "",
            "PersistentVolume",
            json!({"metadata": {"name": "local"},
            "spec": {"local": {"path": "/x"},
                "nodeAffinity": affinity("kubernetes.io/hostname", "n")}}),
        );
        put(
            "storage.k8s.io",
            "StorageClass",
            json!({"metadata": {"name": "in-b"},
            "provisioner": "p", "allowedTopologies": [{"matchLabelExpressions": [
                {"key": "topology.kubernetes.io/zone", "values": ["b"]}]}]}),
        );
        for (name, spec) in [
            ("zonal", json!({"volumeName": "zonal"})),
            ("local", json!({"volumeName": "local"})),
            ("new", json!({"storageClassName": "in-b"})),
            ("lost", json!({"volumeName": "gone"})),
            ("classless", json!({})),
        ] {
            put(
                "",
                "PersistentVolumeClaim",
                json!({
                "metadata": {"name": name, "namespace": "default"}, "spec": spec}),
            );
        }
        view
    }

    /// What the pod's terms ask for, each as `key values`; `-` if no node would help.
    fn places(claims: &[&str], affinity: Value) -> String {
        let volumes: Vec<Value> = claims
            .iter()
            .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
            .collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [], "volumes": volumes, "affinity": affinity}}))
        .expect("a pod");
        let Some(spec) = inject(&pod, pod.spec.as_ref().expect("a spec"), &view()) else {
            return "-".to_owned();
        };
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| {
            affinity.required_during_scheduling_ignored_during_execution.as_ref()
        });
        let terms = required.into_iter().flat_map(|required| &required.node_selector_terms);
        let texts = terms.map(|term| {
            let all = term.match_expressions.iter().flatten().map(|one| {
                format!("{} {}", one.key, one.values.as_deref().unwrap_or_default().join(","))
            });
            all.collect::<Vec<_>>().join(" & ")
        });
        texts.collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn volumes_say_where_a_pod_may_go() {
        let none = || json!({});
        assert_eq!(places(&[], none()), "");
        assert_eq!(places(&["zonal"], none()), "topology.kubernetes.io/zone a");
        assert_eq!(places(&["local"], none()), "");
        assert_eq!(places(&["new"], none()), "topology.kubernetes.io/zone b");
        for claim in ["lost", "classless", "missing"] {
            assert_eq!(places(&["zonal", claim], none()), "-", "{claim}");
        }
        let term = |value: &str| json!({"matchExpressions": [{"key": "k", "operator": "In", "values": [value]}]});
        let own = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [term("1"), term("2")]}}});
        assert_eq!(
            places(&["zonal"], own),
            "k 1 & topology.kubernetes.io/zone a | k 2 & topology.kubernetes.io/zone a"
        );
    }
}
