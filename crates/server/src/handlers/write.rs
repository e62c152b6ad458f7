//! Create, update and patch.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use wharf_model::object::{Object, Typed};
use wharf_model::vpa::VerticalPodAutoscaler;
use wharf_model::vpa::validation::{self, Gates};
use wharf_ports::cluster::Part;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_schema::decode::{self, Decoded, FieldValidation};
use wharf_schema::patch;

use super::{Call, Target, list, render};
use crate::api::Api;
use crate::body::Body;
use crate::query::WriteOptions;
use crate::resources::Backing;
use crate::status::bad_request;
use crate::{certificates, events_v1, negotiate, protobuf, yaml};

/// How often a patch is made anew when the object changed under it; upstream's number.
const PATCH_ATTEMPTS_MAX: usize = 5;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// Answers `create`.
pub(super) async fn create(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let (mut object, mut warnings) = body_object(call, target, options.field_validation)?;
    warnings.extend(warnings_about(&*object, None));
    certificates::of_user(&mut *object, call.user)?;
    let created = api.parts.registry.create(object, &registry_options(call, &options))?;
    answer(api, call, target, StatusCode::CREATED, &created, &options, &warnings).await
}

/// Answers `update`.
pub(super) async fn update(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
    part: Part,
) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let (mut object, mut warnings) = body_object(call, target, options.field_validation)?;
    check_name(call, &*object)?;
    certificates::stamp(&mut *object, part, api.now());
    let stored = api.store.get(target.kind, &call.key());
    if part == Part::Main {
        warnings.extend(warnings_about(&*object, stored.as_deref()));
    }
    let there = stored.is_some();
    let updated = api.parts.registry.update(object, part, &registry_options(call, &options))?;
    if part == Part::Approval && !options.dry_run {
        certificates::sign(api, &updated);
    }
    let code = if there { StatusCode::OK } else { StatusCode::CREATED };
    answer(api, call, target, code, &updated, &options, &warnings).await
}

/// Answers `patch`.
pub(super) async fn patch(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
    part: Part,
) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let patch_type = patch_type(call)?;
    let mut attempt = 1;
    loop {
        let current = list::find(api, call, target).await?;
        let result = patch_once(api, call, target, part, patch_type, &options, &current);
        match result {
            Ok((object, warnings)) => {
                if part == Part::Approval && !options.dry_run {
                    certificates::sign(api, &object);
                }
                return answer(api, call, target, StatusCode::OK, &object, &options, &warnings)
                    .await;
            }
            // Another writer was faster. A patch that names the version it was made for is refused,
            // any other is made again from what is there now.
            Err(Refused { error, named_version: false })
                if error.reason == StatusReason::Conflict && attempt < PATCH_ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            Err(refused) => return Err(refused.error),
        }
    }
}

/// Why a patch was refused.
struct Refused {
    error: ApiError,
    /// Whether the patch itself names a resourceVersion.
    named_version: bool,
}

fn patch_once(
    api: &Api,
    call: &Call<'_>,
    target: Target,
    part: Part,
    patch_type: patch::PatchType,
    options: &WriteOptions,
    current: &Arc<Object>,
) -> Result<(Arc<Object>, Vec<String>), Refused> {
    let plain = |error| Refused { error, named_version: true };
    let value = render::object_value(target, current).map_err(plain)?;
    let version = current.revision().to_string();
    let patched = patch::apply(target.kind, patch_type, &value, &call.body).map_err(plain)?;
    let named = patched["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let named_version = !named.is_empty() && named != version;
    let refused = |error| Refused { error, named_version };
    let (body, validation) = (&call.body, options.field_validation);
    let decoded = match target.resource.backing {
        Backing::Converted(version) => {
            version.decode_patched(patched, patch_type, body, validation)
        }
        Backing::EventsV1 => {
            let stored = events_v1::value_to_stored(patched);
            decode::decode_patched(target.kind, stored, patch_type, body, validation)
        }
        _ => decode::decode_patched(target.kind, patched, patch_type, body, validation),
    };
    let Decoded { mut object, mut warnings } = decoded.map_err(plain)?;
    check_name(call, &*object).map_err(plain)?;
    certificates::stamp(&mut *object, part, api.now());
    if part == Part::Main {
        warnings.extend(warnings_about(&*object, Some(current)));
    }
    let object = api
        .parts
        .registry
        .update(object, part, &registry_options(call, options))
        .map_err(refused)?;
    Ok((object, warnings))
}

/// The kind of patch, from the body's media type.
pub(super) fn patch_type(call: &Call<'_>) -> Result<patch::PatchType, ApiError> {
    match negotiate::content_type(&call.head.headers) {
        "application/json-patch+json" => Ok(patch::PatchType::Json),
        "application/merge-patch+json" => Ok(patch::PatchType::Merge),
        // Custom resources refuse it, in the schema crate.
        "application/strategic-merge-patch+json" => Ok(patch::PatchType::StrategicMerge),
        "application/apply-patch+yaml" => Err(ApiError::new(
            StatusReason::UnsupportedMediaType,
            "server-side apply (application/apply-patch+yaml) is not served by this version; use client-side apply (kubectl apply without --server-side)",
        )),
        other => Err(negotiate::unsupported(
            other,
            &[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ],
        )),
    }
}

/// The object in the request's body, with warnings about it.
pub(super) fn body_object(
    call: &Call<'_>,
    target: Target,
    validation: FieldValidation,
) -> Result<(Box<dyn Typed>, Vec<String>), ApiError> {
    let json = body_json(call)?;
    let Decoded { object, warnings } = match target.resource.backing {
        Backing::Converted(version) => version.decode(&json, validation)?,
        Backing::EventsV1 => decode::decode(target.kind, &events_v1::to_stored(json), validation)?,
        _ => decode::decode(target.kind, &json, validation)?,
    };
    Ok((object, warnings))
}

/// What admission has to say about an object that it lets in.
fn warnings_about(object: &dyn Typed, old: Option<&Object>) -> Vec<String> {
    if object.as_any().is::<MutatingWebhookConfiguration>()
        || object.as_any().is::<ValidatingWebhookConfiguration>()
    {
        return vec!["no webhook is called here: the configuration has no effect".to_owned()];
    }
    let Some(vpa) = object.as_any().downcast_ref::<VerticalPodAutoscaler>() else {
        return Vec::new();
    };
    validation::review(vpa, old.and_then(|old| old.typed()), Gates::default()).warnings
}

/// The request's body as JSON.
pub(super) fn body_json(call: &Call<'_>) -> Result<Bytes, ApiError> {
    match negotiate::content_type(&call.head.headers) {
        "" | JSON => Ok(call.body.clone()),
        YAML | "application/x-yaml" | "text/yaml" => yaml::to_json(&call.body),
        protobuf::MEDIA_TYPE => Ok(protobuf::to_json(&call.body)?.to_string().into()),
        other => Err(negotiate::unsupported(other, &[JSON, YAML, protobuf::MEDIA_TYPE])),
    }
}

/// The registry's options for a write of this request.
pub(super) fn registry_options(
    call: &Call<'_>,
    options: &WriteOptions,
) -> wharf_registry::WriteOptions {
    wharf_registry::WriteOptions {
        dry_run: options.dry_run,
        namespace: call.namespace().to_owned(),
        unconditional: false,
    }
}

/// An object must be the one that the path names.
fn check_name(call: &Call<'_>, object: &dyn Typed) -> Result<(), ApiError> {
    let wanted = call.path.name.as_deref().unwrap_or_default();
    match object.meta().name.as_deref() {
        None | Some("") => Err(bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: resource name may not be empty"
        ))),
        Some(name) if name != wanted => Err(bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
        Some(_) => Ok(()),
    }
}

/// Answers a write once it is durable.
async fn answer(
    api: &Api,
    call: &Call<'_>,
    target: Target,
    code: StatusCode,
    object: &Arc<Object>,
    options: &WriteOptions,
    warnings: &[String],
) -> Result<Response<Body>, ApiError> {
    // Made before the wait, so that what is written to disk need not be encoded another time.
    let mut response = if object.revision() == 0 {
        render::one(api, call, target, code, &unnumbered(object))?
    } else {
        render::one(api, call, target, code, object)?
    };
    if !options.dry_run {
        api.durable(object.revision()).await?;
    }
    render::warn(&mut response, warnings);
    Ok(response)
}

/// An object that was not stored has no resourceVersion.
fn unnumbered(object: &Arc<Object>) -> Arc<Object> {
    let Ok(typed) = object.typed_any() else { return Arc::clone(object) };
    let mut typed = typed.clone_box();
    typed.meta_mut().resource_version = None;
    let json = Bytes::from(typed.encode());
    Object::from_json(object.kind(), json, 0).map_or_else(|_| Arc::clone(object), Arc::new)
}
