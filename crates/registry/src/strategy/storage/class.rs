//! StorageClasses:
//! <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/storage-class-v1/>.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySelectorTerm;
use k8s_openapi::api::storage::v1::StorageClass;
use wharf_model::names;

use super::super::Rules;
use super::super::pod::defaults::fill;
use super::super::pod::validate::one_of;
use crate::field::{Errors, Path};

/// Upstream's bounds on a provisioner's parameters: how many, and their bytes in all.
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;

impl Rules for StorageClass {
    fn set_defaults(&mut self) {
        fill(&mut self.reclaim_policy, "Delete");
        fill(&mut self.volume_binding_mode, "Immediate");
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::root("provisioner");
        if self.provisioner.is_empty() {
            errors.required(&path, "");
        } else {
            let name = self.provisioner.to_lowercase();
            errors.invalid_each(&path, &name, names::qualified_name(&name));
        }
        parameters(self.parameters.as_ref(), errors);
        let policy = self.reclaim_policy.as_deref();
        one_of(&Path::root("reclaimPolicy"), policy, &["Delete", "Retain"], errors);
        one_of(
            &Path::root("volumeBindingMode"),
            self.volume_binding_mode.as_deref(),
            &["Immediate", "WaitForFirstConsumer"],
            errors,
        );
        let path = Path::root("allowedTopologies");
        for (index, term) in self.allowed_topologies.iter().flatten().enumerate() {
            topology(&path.index(index), term, errors);
        }
    }

    /// Upstream checks only what must not change.
    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        for (field, changed) in [
            ("parameters", self.parameters != old.parameters),
            ("provisioner", self.provisioner != old.provisioner),
            ("reclaimPolicy", self.reclaim_policy != old.reclaim_policy),
        ] {
            if changed {
                let detail = format!("updates to {field} are forbidden.");
                errors.forbidden(&Path::root(field), detail);
            }
        }
        errors.immutable(
            &Path::root("volumeBindingMode"),
            &self.volume_binding_mode,
            &old.volume_binding_mode,
        );
    }
}

fn parameters(parameters: Option<&BTreeMap<String, String>>, errors: &mut Errors) {
    let path = Path::root("parameters");
    let Some(parameters) = parameters else { return };
    if parameters.len() > PARAMETERS_MAX {
        return errors.too_long(&path, PARAMETERS_MAX);
    }
    if parameters.contains_key("") {
        errors.invalid(&path, "", "field can not be empty.");
    }
    let bytes: usize = parameters.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > PARAMETERS_BYTES_MAX {
        errors.too_long(&path, PARAMETERS_BYTES_MAX);
    }
}

fn topology(path: &Path<'_>, term: &TopologySelectorTerm, errors: &mut Errors) {
    let path = path.child("matchLabelExpressions");
    let mut keys = BTreeSet::new();
    for (index, expression) in term.match_label_expressions.iter().flatten().enumerate() {
        let path = path.index(index);
        let values_path = path.child("values");
        if expression.values.is_empty() {
            errors.required(&values_path, "");
        }
        let mut seen = BTreeSet::new();
        for (index, value) in expression.values.iter().enumerate() {
            if !seen.insert(value) {
                errors.duplicate(&values_path.index(index), value);
            }
        }
        let key = path.child("key");
        errors.invalid_each(&key, &expression.key, names::qualified_name(&expression.key));
        if !keys.insert(&expression.key) {
            errors.duplicate(&key, &expression.key);
        }
    }
}
