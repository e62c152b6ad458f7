//! EKS' part in admission: new pods that a Fargate profile matches become Fargate's, and profiles are
//! checked as EKS' API checks them.

use k8s_openapi::api::core::v1::Pod;
use wharf_fargate::admission;
use wharf_fargate::profile::{self, PROFILES_MAX, Problem, SubnetKind};
use wharf_model::fargate::FargateProfile;
use wharf_model::kinds::Kind;
use wharf_model::object::{ObjectKey, Typed};
use wharf_model::subnet::Subnet;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_store::Store;

use crate::field::{Errors, FieldError};

/// What the webhook `0500-amazon-eks-fargate-mutation.amazonaws.com` does to a new pod.
pub(super) fn admit_pod(store: &Store, pod: &mut Pod) {
    let (objects, _) = store.list(Kind::of::<FargateProfile>(), None);
    if objects.is_empty() {
        return;
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let profiles = objects.iter().filter_map(|object| object.typed::<FargateProfile>());
    if let Ok(profile) = admission::profile_of(pod, &namespace, profiles) {
        admission::admit(pod, profile);
    }
}

/// Refuses a new profile that EKS would not make. One that names no subnets gets the cluster's private
/// ones, in the order of their zones.
///
/// # Errors
/// What is wrong with it, or what stands in its way.
pub(super) fn on_profile_create(store: &Store, new: &mut FargateProfile) -> Result<(), ApiError> {
    if new.spec.subnets.is_empty() {
        new.spec.subnets = private_subnets(store);
    }
    let subnet = |id: &str| {
        let object = store.get(Kind::of::<Subnet>(), &ObjectKey::cluster(id))?;
        let is_public = object.typed::<Subnet>()?.spec.public;
        Some(if is_public { SubnetKind::Public } else { SubnetKind::Private })
    };
    refuse(new, profile::problems(&new.spec, &subnet))?;
    let (objects, _) = store.list(Kind::of::<FargateProfile>(), None);
    let others = || objects.iter().filter_map(|object| object.typed::<FargateProfile>());
    let name = &new.spec.name;
    let denied = |message: String| Err(ApiError::new(StatusReason::Denied, message));
    if others().any(|other| other.spec.name == *name) {
        return denied(format!("there is a Fargate profile named {name} already"));
    }
    if let Some(going) = others().find(|other| other.is_deleting()) {
        return denied(format!(
            "Cannot create Fargate Profile {name} because the cluster currently has Fargate profile {} in status DELETING",
            going.spec.name
        ));
    }
    if objects.len() >= PROFILES_MAX {
        return denied(format!(
            "Cannot create Fargate Profile {name}: the cluster has {PROFILES_MAX} profiles, the most there may be"
        ));
    }
    Ok(())
}

/// Refuses a change of a profile: all but its tags is fixed.
///
/// # Errors
/// Which fields were changed.
pub(super) fn on_profile_update(
    new: &FargateProfile,
    old: &FargateProfile,
) -> Result<(), ApiError> {
    refuse(new, profile::change_problems(&new.spec, &old.spec))
}

pub(super) fn private_subnets(store: &Store) -> Vec<String> {
    let (objects, _) = store.list(Kind::of::<Subnet>(), None);
    let subnets = objects.iter().filter_map(|object| object.typed::<Subnet>());
    let mut private: Vec<(&str, &str)> = subnets
        .filter(|subnet| !subnet.spec.public)
        .filter_map(|subnet| Some((subnet.spec.zone.as_str(), subnet.metadata.name.as_deref()?)))
        .collect();
    private.sort_unstable();
    private.into_iter().map(|(_, id)| id.to_owned()).collect()
}

fn refuse(profile: &FargateProfile, problems: Vec<Problem>) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    for Problem { field, what } in problems {
        let body = format!("Invalid value: {what}");
        errors.push(FieldError { reason: "FieldValueInvalid", field, body });
    }
    let name = profile.metadata.name.as_deref().unwrap_or_default();
    errors.into_result(Typed::kind(profile), name)
}
