//! The `scale` subresource of workloads.

use k8s_openapi::api::autoscaling::v1::Scale;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::scale;
use wharf_ports::error::{ApiError, StatusReason};

use crate::field::{Errors, Path};
use crate::{Registry, WriteOptions, decoded};

impl Registry {
    /// The scale of a workload.
    ///
    /// # Errors
    /// If the workload is not there, or is of a kind that has no scale.
    pub fn scale(&self, kind: Kind, key: &ObjectKey) -> Result<Scale, ApiError> {
        let stored = self.get(kind, key)?;
        scale::of(decoded(&stored)?).ok_or_else(|| no_scale(kind))
    }

    /// Sets the number of replicas of a workload.
    ///
    /// # Errors
    /// The API's refusal, as for [`Registry::scale`].
    pub fn set_scale(
        &self,
        kind: Kind,
        key: &ObjectKey,
        scale: &Scale,
        options: &WriteOptions,
    ) -> Result<Scale, ApiError> {
        let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let mut errors = Errors::default();
        let path = Path::root("spec");
        errors.not_negative(&path.child("replicas"), Some(i64::from(replicas)));
        errors.into_result(kind, &key.name).map_err(|mut refusal| {
            refusal.message = refusal.message.replacen(
                &refusal.message[..refusal.message.find(' ').unwrap_or(0)],
                "Scale.autoscaling",
                1,
            );
            refusal.group = "autoscaling".to_owned();
            refusal.kind = "Scale".to_owned();
            refusal
        })?;
        let version = scale.metadata.resource_version.as_deref().unwrap_or_default();
        let uid = scale.metadata.uid.as_deref().unwrap_or_default();
        let stored = self.change(kind, key, options.dry_run, &|object| {
            let meta = object.meta();
            let stored_version = meta.resource_version.as_deref().unwrap_or_default();
            if !version.is_empty() && version != stored_version {
                return Err(ApiError::stale(kind, &key.name));
            }
            let stored_uid = meta.uid.as_deref().unwrap_or_default();
            if !uid.is_empty() && uid != stored_uid {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {stored_uid}"
                );
                return Err(ApiError::conflict(kind, &key.name, &why));
            }
            if scale::set(object, replicas) { Ok(()) } else { Err(no_scale(kind)) }
        })?;
        scale::of(decoded(&stored)?).ok_or_else(|| no_scale(kind))
    }
}

fn no_scale(kind: Kind) -> ApiError {
    let message = "the server could not find the requested resource";
    ApiError::new(StatusReason::NotFound, message).about(kind, "")
}
