//! ConfigMaps, Secrets and ServiceAccounts.
//! <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/>

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use wharf_model::names;

use super::Rules;
use super::pod::defaults::fill;
use crate::field::{Errors, Json, Path};

/// Upstream's bound on the total size of the values of a ConfigMap or Secret.
const BYTES_MAX: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

impl Rules for ServiceAccount {}

impl Rules for ConfigMap {
    fn validate(&self, errors: &mut Errors) {
        let data = Path::root("data");
        let binary = Path::root("binaryData");
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            bytes += value.len();
            errors.invalid_each(&data.key(key), key, names::config_key(key));
            if self.binary_data.as_ref().is_some_and(|other| other.contains_key(key)) {
                let path = data.key(key);
                errors.invalid(&path, key, "duplicate of key present in binaryData");
            }
        }
        for (key, value) in self.binary_data.iter().flatten() {
            bytes += value.0.len();
            errors.invalid_each(&binary.key(key), key, names::config_key(key));
        }
        if bytes > BYTES_MAX {
            errors.too_long(&Path::root(""), BYTES_MAX);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if old.immutable == Some(true) {
            if self.immutable != Some(true) {
                errors.forbidden(&Path::root("immutable"), IMMUTABLE);
            }
            if self.data != old.data {
                errors.forbidden(&Path::root("data"), IMMUTABLE);
            }
            if self.binary_data != old.binary_data {
                errors.forbidden(&Path::root("binaryData"), IMMUTABLE);
            }
        }
        self.validate(errors);
    }
}

impl Rules for Secret {
    /// `stringData` is only a way to write `data`.
    fn set_defaults(&mut self) {
        fill(&mut self.type_, "Opaque");
        if let Some(texts) = self.string_data.take() {
            let data = self.data.get_or_insert_default();
            data.extend(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::root("data");
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            bytes += value.0.len();
            errors.invalid_each(&path.key(key), key, names::config_key(key));
        }
        if bytes > BYTES_MAX {
            errors.too_long(&path, BYTES_MAX);
        }
        let required: &[&str] = match self.type_.as_deref().unwrap_or_default() {
            "kubernetes.io/dockercfg" => &[".dockercfg"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            _ => &[],
        };
        for key in required {
            if !self.data.as_ref().is_some_and(|data| data.contains_key(*key)) {
                errors.required(&path.key(key), "");
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.type_ != old.type_ {
            let type_ = self.type_.clone().unwrap_or_default();
            errors.invalid(&Path::root("type"), &Json(&type_), "field is immutable");
        }
        if old.immutable == Some(true) {
            if self.immutable != Some(true) {
                errors.forbidden(&Path::root("immutable"), IMMUTABLE);
            }
            if self.data != old.data {
                errors.forbidden(&Path::root("data"), IMMUTABLE);
            }
        }
        self.validate(errors);
    }
}
