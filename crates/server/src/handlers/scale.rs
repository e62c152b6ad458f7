//! The `scale` subresource.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use k8s_openapi::api::autoscaling::v1::Scale;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_schema::patch;

use super::{Call, Target, list, render, write};
use crate::api::Api;
use crate::body::Body;
use crate::query::WriteOptions;
use crate::status::bad_request;

/// How often a patch of a scale is made anew when the object changed under it.
const PATCH_ATTEMPTS_MAX: usize = 5;

/// Answers `get`.
pub(super) async fn get(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    list::find(api, call, target).await?;
    let scale = api.parts.registry.scale(target.kind, &call.key())?;
    render::document(call, StatusCode::OK, &scale)
}

/// Answers `update`.
pub(super) async fn update(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let scale = decode(&write::body_json(call)?)?;
    check_name(call, &scale)?;
    set(api, call, target, &scale, &options).await
}

/// Answers `patch`.
pub(super) async fn patch(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    // A scale has no lists, so that a strategic patch of it is a merge patch.
    let patch_type = match write::patch_type(call)? {
        patch::PatchType::StrategicMerge => patch::PatchType::Merge,
        other => other,
    };
    let mut attempt = 1;
    loop {
        let current = api.parts.registry.scale(target.kind, &call.key())?;
        let version = current.metadata.resource_version.clone();
        let current = serde_json::to_value(&current).map_err(|error| {
            ApiError::new(StatusReason::InternalError, format!("Internal error occurred: {error}"))
        })?;
        let patched = patch::apply(target.kind, patch_type, &current, &call.body)?;
        let scale = decode(patched.to_string().as_bytes())?;
        check_name(call, &scale)?;
        let named_version = scale.metadata.resource_version != version;
        match set(api, call, target, &scale, &options).await {
            Err(error)
                if error.reason == StatusReason::Conflict
                    && !named_version
                    && attempt < PATCH_ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

async fn set(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
    scale: &Scale,
    options: &WriteOptions,
) -> Result<Response<Body>, ApiError> {
    let scale = api.parts.registry.set_scale(
        target.kind,
        &call.key(),
        scale,
        &write::registry_options(call, options),
    )?;
    if !options.dry_run {
        api.durable(api.store.revision()).await?;
    }
    render::document(call, StatusCode::OK, &scale)
}

fn decode(json: &[u8]) -> Result<Scale, ApiError> {
    serde_json::from_slice(json).map_err(|error| {
        bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: {error}"))
    })
}

fn check_name(call: &Call<'_>, scale: &Scale) -> Result<(), ApiError> {
    let wanted = call.path.name.as_deref().unwrap_or_default();
    match scale.metadata.name.as_deref() {
        Some(name) if !name.is_empty() && name != wanted => Err(bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
        _ => Ok(()),
    }
}
