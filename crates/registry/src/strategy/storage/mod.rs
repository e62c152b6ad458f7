//! Volumes, claims and what storage drivers say of themselves, one file per kind or family:
//! <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/>.

mod class;
mod csi;
pub(crate) mod persistent_volume;
pub(crate) mod persistent_volume_claim;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::names;
use wharf_model::quantity::Quantity;

use crate::field::{Errors, Path};

/// Sorted, as upstream's message lists them.
const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const READ_WRITE_ONCE_POD: &str = "ReadWriteOncePod";
/// Drivers' names go into labels and socket paths.
const DRIVER_NAME_BYTES_MAX: usize = 63;

/// What is wrong with access modes; there must be one, or `missing` is told.
fn access_modes(path: &Path<'_>, modes: Option<&Vec<String>>, missing: &str, errors: &mut Errors) {
    let modes = modes.map(Vec::as_slice).unwrap_or_default();
    if modes.is_empty() {
        errors.required(path, missing);
    }
    for mode in modes {
        if !ACCESS_MODES.contains(&mode.as_str()) {
            errors.not_supported(path, mode, &ACCESS_MODES);
        }
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == READ_WRITE_ONCE_POD) {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.forbidden(path, detail);
    }
}

/// What is wrong with an amount of storage, which must be more than nothing.
fn storage_amount(path: &Path<'_>, text: &ApiQuantity, errors: &mut Errors) {
    match Quantity::parse(&text.0) {
        Err(error) => errors.invalid(path, &text.0, error.to_string()),
        Ok(amount) if amount.is_zero() || amount.is_negative() => {
            errors.invalid(path, &text.0, "must be greater than zero");
        }
        Ok(_) => {}
    }
}

/// What is wrong with the name of a storage class, if it is given.
fn class_name(path: &Path<'_>, name: Option<&String>, errors: &mut Errors) {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        errors.invalid_each(path, name, names::dns_1123_subdomain(name));
    }
}

/// What is wrong with the name of a driver of volumes or devices.
pub(super) fn driver_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > DRIVER_NAME_BYTES_MAX {
        errors.too_long(path, DRIVER_NAME_BYTES_MAX);
    }
    errors.invalid_each(path, name, names::dns_1123_subdomain(&name.to_lowercase()));
}

/// Amounts in canonical form, as the API gives them back; what is none is left to validation.
fn canonical(list: &mut Option<BTreeMap<String, ApiQuantity>>) {
    list.iter_mut().for_each(wharf_model::quantity::canonicalize_list);
}
