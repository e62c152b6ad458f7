//! What the EBS driver's node plugin says of its node: the CSINode. Auto Mode's nodes have a driver of
//! their own.

use std::collections::BTreeMap;

use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use wharf_model::ebs;
use wharf_model::instance::Instance;
use wharf_model::object::Object;

use super::node::owner_reference;

/// The in-tree plugins whose volumes drivers serve, as kubelets of 1.36 list them.
const MIGRATED: &str = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume";

/// The CSINode of a node on which the driver runs. How many volumes it can attach is computed from
/// the instance type.
pub(super) fn csi_node(node: &Object, instance: &Instance) -> CSINode {
    let name = node.key().name.to_string();
    let driver = driver_of(instance);
    let count = ebs::attach_limit(&instance.spec.instance_type);
    let mut csi_node = CSINode {
        spec: CSINodeSpec {
            drivers: vec![CSINodeDriver {
                name: driver.name.to_owned(),
                node_id: instance.metadata.name.clone().unwrap_or_default(),
                topology_keys: Some(
                    driver.topology_keys.iter().map(|key| (*key).to_owned()).collect(),
                ),
                allocatable: Some(VolumeNodeResources { count: Some(count) }),
            }],
        },
        ..CSINode::default()
    };
    let meta = &mut csi_node.metadata;
    meta.name = Some(name.clone());
    let annotation = ("storage.alpha.kubernetes.io/migrated-plugins", MIGRATED);
    meta.annotations = Some(BTreeMap::from([(annotation.0.to_owned(), annotation.1.to_owned())]));
    meta.owner_references = Some(vec![owner_reference(name, node.uid())]);
    csi_node
}

/// The driver of a machine's node.
pub(super) fn driver_of(instance: &Instance) -> ebs::Driver {
    if instance.spec.managed { ebs::AUTO } else { ebs::ADD_ON }
}
