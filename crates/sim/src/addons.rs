//! What a new EKS cluster with the EBS CSI driver's add-on has for storage.

use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, StorageClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::ebs;
use wharf_model::object::Typed;
use wharf_ports::cluster::Write;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_registry::Registry;

/// EKS's storage class, which since 1.30 is not the default one: a claim has to name its class. The
/// driver's object is the add-on's. What is there already stays as it is.
pub(crate) fn create_storage(registry: &Registry) -> Result<(), ApiError> {
    let parameters = [("fsType", "ext4"), ("type", "gp2")];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let class = StorageClass {
        metadata: named("gp2"),
        parameters: Some(parameters.into_iter().map(owned).collect()),
        provisioner: ebs::IN_TREE.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    };
    let driver = CSIDriver {
        metadata: named(ebs::DRIVER),
        spec: CSIDriverSpec {
            attach_required: Some(true),
            fs_group_policy: Some("File".to_owned()),
            pod_info_on_mount: Some(false),
            ..CSIDriverSpec::default()
        },
    };
    ensure(registry, Box::new(class))?;
    ensure(registry, Box::new(driver))
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn ensure(registry: &Registry, object: Box<dyn Typed>) -> Result<(), ApiError> {
    match registry.apply(Write::Create(object)) {
        Err(error) if error.reason != StatusReason::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
