//! What upstream's admission plugins do to a new object: they look at other objects, where
//! defaults and validation look at the object alone.

mod addresses;
mod autoscaler;
mod fargate;
mod limit_ranger;
mod load_balancing;
mod namespace_lifecycle;
mod nodegroup;
mod priority;
mod service_account;
mod storage;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use wharf_model::fargate::FargateProfile;
use wharf_model::gates::FeatureGates;
use wharf_model::nodegroup::Nodegroup;
use wharf_model::object::Typed;
use wharf_model::taints::add_default_toleration_seconds;
use wharf_model::vpa::VerticalPodAutoscaler;
use wharf_ports::error::ApiError;
use wharf_store::Store;

use crate::strategy;

pub(crate) use addresses::{KUBERNETES_SERVICE_IP, allocate};

/// On whose behalf an object is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// A client or a controller.
    Client,
    /// The API server itself, which may use reserved names.
    System,
}

/// Admits a new object, whose defaults are set.
pub(crate) fn on_create(
    store: &Store,
    object: &mut dyn Typed,
    requester: Requester,
    gates: FeatureGates,
) -> Result<(), ApiError> {
    if object.kind().namespaced {
        namespace_lifecycle::admit(store, object)?;
    }
    if let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() {
        service_account::admit(store, pod)?;
        let spec = pod.spec.get_or_insert_default();
        add_default_toleration_seconds(spec.tolerations.get_or_insert_default());
        priority::admit(store, pod)?;
        limit_ranger::fill_in(store, pod);
        // Webhooks are called in the order of their configurations' names.
        fargate::admit_pod(store, pod);
        load_balancing::admit_pod(store, pod);
        autoscaler::admit_pod(store, pod);
        limit_ranger::check_pod(store, pod)?;
    } else if let Some(class) = object.as_any().downcast_ref::<PriorityClass>()
        && requester == Requester::Client
    {
        priority::refuse_reserved(class)?;
    } else if let Some(claim) = object.as_any_mut().downcast_mut::<PersistentVolumeClaim>() {
        storage::on_claim_create(store, claim);
        limit_ranger::check_claim(store, claim)?;
    } else if let Some(volume) = object.as_any_mut().downcast_mut::<PersistentVolume>() {
        storage::on_volume_create(volume);
    } else if let Some(vpa) = object.as_any_mut().downcast_mut::<VerticalPodAutoscaler>() {
        autoscaler::admit(vpa, None, gates.vpa)?;
    } else if let Some(service) = object.as_any_mut().downcast_mut::<Service>() {
        load_balancing::on_service_create(store, service);
    } else if let Some(profile) = object.as_any_mut().downcast_mut::<FargateProfile>() {
        fargate::on_profile_create(store, profile)?;
    } else if let Some(group) = object.as_any_mut().downcast_mut::<Nodegroup>() {
        nodegroup::on_create(store, group)?;
    }
    Ok(())
}

/// Admits a change of an object but of its status.
pub(crate) fn on_update(
    store: &Store,
    object: &mut dyn Typed,
    old: &dyn Typed,
    gates: FeatureGates,
) -> Result<(), ApiError> {
    if object.as_any().is::<Pod>() {
        on_pod_update(object, old);
    } else if let Some(claim) = object.as_any().downcast_ref::<PersistentVolumeClaim>() {
        storage::on_claim_update(store, claim, strategy::typed(old))?;
        limit_ranger::check_claim(store, claim)?;
    } else if let Some(vpa) = object.as_any_mut().downcast_mut::<VerticalPodAutoscaler>() {
        autoscaler::admit(vpa, Some(strategy::typed(old)), gates.vpa)?;
    } else if let Some(profile) = object.as_any().downcast_ref::<FargateProfile>() {
        fargate::on_profile_update(profile, strategy::typed(old))?;
    } else if let Some(group) = object.as_any_mut().downcast_mut::<Nodegroup>() {
        nodegroup::on_update(store, group, strategy::typed(old))?;
    }
    Ok(())
}

/// Fills in what an update of a pod need not repeat of what admission once set.
fn on_pod_update(object: &mut dyn Typed, old: &dyn Typed) {
    let (pod, old) = (strategy::typed_mut::<Pod>(object), strategy::typed::<Pod>(old));
    let (Some(spec), Some(old)) = (&mut pod.spec, &old.spec) else {
        return;
    };
    if spec.priority.is_none() {
        spec.priority = old.priority;
    }
    if spec.preemption_policy.is_none() {
        spec.preemption_policy.clone_from(&old.preemption_policy);
    }
    if spec.service_account_name.is_none() {
        spec.service_account_name.clone_from(&old.service_account_name);
    }
    if spec.service_account.is_none() {
        spec.service_account.clone_from(&old.service_account);
    }
    add_default_toleration_seconds(spec.tolerations.get_or_insert_default());
}
