//! EKS' part in admission: managed node groups are completed and checked as EKS' API does it.

use wharf_model::kinds::Kind;
use wharf_model::nodegroup::Nodegroup;
use wharf_model::nodegroup::rules::{self, Problem};
use wharf_model::object::{ObjectKey, Typed};
use wharf_model::subnet::Subnet;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_store::Store;

use super::fargate::private_subnets;
use crate::field::{Errors, FieldError};

/// Completes a new group, and refuses one that EKS would not make. One that names no subnets gets the
/// cluster's private ones, in the order of their zones.
///
/// # Errors
/// What is wrong with it, or what stands in its way.
pub(super) fn on_create(store: &Store, new: &mut Nodegroup) -> Result<(), ApiError> {
    rules::set_defaults(&mut new.spec);
    if new.spec.subnets.is_empty() {
        new.spec.subnets = private_subnets(store);
    }
    refuse(new, rules::problems(&new.spec, &|id| has_subnet(store, id)))?;
    let (objects, _) = store.list(Kind::of::<Nodegroup>(), None);
    let name = &new.spec.name;
    let mut others = objects.iter().filter_map(|object| object.typed::<Nodegroup>());
    if others.any(|other| other.spec.name == *name) {
        let message = format!("NodeGroup already exists with name {name}");
        return Err(ApiError::new(StatusReason::Denied, message));
    }
    Ok(())
}

/// Refuses a change that EKS would not make. What a group keeps need not be repeated.
///
/// # Errors
/// Which fields were changed, or what is wrong with them now.
pub(super) fn on_update(
    store: &Store,
    new: &mut Nodegroup,
    old: &Nodegroup,
) -> Result<(), ApiError> {
    rules::keep(&mut new.spec, &old.spec);
    if new.spec == old.spec {
        return Ok(());
    }
    let mut problems = rules::change_problems(&new.spec, &old.spec);
    if problems.is_empty() {
        problems = rules::problems(&new.spec, &|id| has_subnet(store, id));
    }
    refuse(new, problems)
}

fn has_subnet(store: &Store, id: &str) -> bool {
    store.get(Kind::of::<Subnet>(), &ObjectKey::cluster(id)).is_some()
}

fn refuse(group: &Nodegroup, problems: Vec<Problem>) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    for Problem { field, what } in problems {
        let body = format!("Invalid value: {what}");
        errors.push(FieldError { reason: "FieldValueInvalid", field, body });
    }
    let name = group.metadata.name.as_deref().unwrap_or_default();
    errors.into_result(Typed::kind(group), name)
}
