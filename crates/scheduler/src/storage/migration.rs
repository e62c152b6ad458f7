//! In-tree EBS volumes as the CSI driver knows them: a node whose kubelet has migrated the plugin
//! attaches them through the driver, so they count towards its limit and carry its topology.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume};
use wharf_model::labels;

/// The in-tree plugin.
pub(crate) const EBS_IN_TREE: &str = "kubernetes.io/aws-ebs";
/// The CSI driver that took over from it.
pub(crate) const EBS_DRIVER: &str = "ebs.csi.aws.com";
/// The node label by which the driver names zones.
const EBS_ZONE: &str = "topology.ebs.csi.aws.com/zone";

/// The volume id of `aws://zone/vol-…`, `aws:///vol-…` or `vol-…`; `None` if the text is none of
/// these.
pub(crate) fn ebs_handle(volume_id: &str) -> Option<&str> {
    let Some(rest) = volume_id.strip_prefix("aws://") else { return Some(volume_id) };
    let (_zone, path) = rest.split_once('/')?;
    let id = path.trim_matches('/');
    (id.starts_with("vol-") && !id.contains('/')).then_some(id)
}

/// The node selector terms of a migrated in-tree EBS volume: its zones are those of the driver's
/// topology, taken from its own terms or else from its zone label.
pub(crate) fn ebs_terms(volume: &PersistentVolume) -> Option<Vec<NodeSelectorTerm>> {
    let own = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref())
        .map(|required| required.node_selector_terms.clone());
    let zone_keys = [labels::TOPOLOGY_ZONE, labels::TOPOLOGY_ZONE_BETA];
    let mut translated = false;
    let mut terms = own.unwrap_or_default();
    for term in &mut terms {
        for requirement in term.match_expressions.iter_mut().flatten() {
            if zone_keys.contains(&requirement.key.as_str()) {
                EBS_ZONE.clone_into(&mut requirement.key);
                translated = true;
            }
        }
    }
    let label = zone_keys.iter().find_map(|key| volume.metadata.labels.as_ref()?.get(*key));
    if let (false, Some(zones)) = (translated, label) {
        let requirement = NodeSelectorRequirement {
            key: EBS_ZONE.to_owned(),
            operator: "In".to_owned(),
            values: Some(zone_set(zones)?.map(str::to_owned).collect()),
        };
        if terms.is_empty() {
            terms.push(NodeSelectorTerm::default());
        }
        for term in &mut terms {
            term.match_expressions.get_or_insert_default().push(requirement.clone());
        }
    }
    (!terms.is_empty()).then_some(terms)
}

/// The zones of a volume's label: one, or several with `__` between. `None` if one of them is
/// empty; then upstream ignores the label.
pub(crate) fn zone_set(label: &str) -> Option<impl Iterator<Item = &str>> {
    let zones = label.split("__").map(str::trim);
    zones.clone().all(|zone| !zone.is_empty()).then_some(zones)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volume_ids_come_in_three_forms() {
        for (id, handle) in [
            ("vol-1", Some("vol-1")),
            ("aws://us-west-2a/vol-1", Some("vol-1")),
            ("aws:///vol-1", Some("vol-1")),
            ("aws://us-west-2a/snap-1", None),
            ("aws://us-west-2a/vol-1/x", None),
            ("aws://vol-1", None),
        ] {
            assert_eq!(ebs_handle(id), handle, "{id}");
        }
    }

    #[test]
    fn zones_become_the_drivers() {
        let volume = |labels, affinity| -> PersistentVolume {
            serde_json::from_value(json!({
                "metadata": {"name": "v", "labels": labels}, "spec": {"nodeAffinity": affinity}
            }))
            .unwrap()
        };
        let terms = |key: &str, zones: &[&str]| json!([{"matchExpressions": [{"key": key, "operator": "In", "values": zones}]}]);
        let affinity = |key, zones| json!({"required": {"nodeSelectorTerms": terms(key, zones)}});
        let translated = serde_json::from_value::<Vec<_>>(terms(EBS_ZONE, &["a", "b"])).ok();
        let labelled = volume(json!({"topology.kubernetes.io/zone": "a__b"}), json!(null));
        assert_eq!(ebs_terms(&labelled), translated);
        let affine = volume(json!({}), affinity("topology.kubernetes.io/zone", &["a", "b"]));
        assert_eq!(ebs_terms(&affine), translated);
        assert_eq!(ebs_terms(&volume(json!({}), json!(null))), None);
        let empty = volume(json!({"topology.kubernetes.io/zone": "a__"}), json!(null));
        assert_eq!(ebs_terms(&empty), None, "a label with an empty zone is ignored");
    }
}
