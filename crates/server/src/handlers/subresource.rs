//! Binding, eviction, finalize.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use k8s_openapi::api::core::v1::Namespace;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::Part;
use wharf_ports::error::ApiError;

use super::delete::{self, DeleteOptions};
use super::{Call, Target, list, render, write};
use crate::api::Api;
use crate::body::Body;
use crate::query::WriteOptions;
use crate::status::{self, bad_request};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta {
    name: String,
    namespace: String,
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Binding {
    metadata: Meta,
    target: Reference,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    kind: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Eviction {
    metadata: Meta,
    delete_options: Option<DeleteOptions>,
}

/// Answers `create` on `pods/NAME/binding` and on `bindings`.
pub(super) async fn binding(api: &Arc<Api>, call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let binding: Binding = parse(call, "Binding")?;
    let key = named(call, &binding.metadata)?;
    let refuse = |reason: &str, field: &str, message: &str| {
        Err(status::invalid("", "Binding", &key.name, reason, field, message))
    };
    if !matches!(binding.target.kind.as_str(), "" | "Node") {
        let message = format!(
            "Unsupported value: {:?}: supported values: \"Node\", \"<empty>\"",
            binding.target.kind
        );
        return refuse("FieldValueNotSupported", "target.kind", &message);
    }
    if binding.target.name.is_empty() {
        return refuse("FieldValueRequired", "target.name", "Required value");
    }
    let uid = Some(binding.metadata.uid.as_str()).filter(|uid| !uid.is_empty());
    let bound = api.parts.registry.bind(
        &key,
        uid,
        &binding.target.name,
        &write::registry_options(call, &options),
    )?;
    if !options.dry_run {
        api.durable(bound.revision()).await?;
    }
    render::finish(call, StatusCode::CREATED, status::created())
}

/// Answers `create` on `pods/NAME/eviction`.
pub(super) async fn eviction(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let eviction: Eviction = parse(call, "Eviction")?;
    let key = named(call, &eviction.metadata)?;
    let mut asked = eviction.delete_options.unwrap_or_default().asked(call, target)?;
    asked.delete.key = key;
    asked.dry_run |= options.dry_run;
    api.parts.registry.evict(&asked.delete, &delete::registry_options(call, &asked))?;
    if !asked.dry_run {
        api.durable(api.store.revision()).await?;
    }
    render::finish(call, StatusCode::CREATED, status::created())
}

/// Answers `update` on `namespaces/NAME/finalize`: only the finalizers of the spec count.
pub(super) async fn finalize(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let (sent, warnings) = write::body_object(call, target, options.field_validation)?;
    let current = list::find(api, call, target).await?;
    let (Some(sent), Some(mut namespace)) =
        (sent.as_any().downcast_ref::<Namespace>(), current.draft::<Namespace>())
    else {
        return Err(status::no_such_path());
    };
    if let Some(version) = sent.metadata.resource_version.as_ref().filter(|text| !text.is_empty()) {
        namespace.metadata.resource_version = Some(version.clone());
    }
    let finalizers = sent.spec.as_ref().and_then(|spec| spec.finalizers.clone());
    namespace.spec.get_or_insert_default().finalizers = finalizers;
    let registry_options = write::registry_options(call, &options);
    let object = api.parts.registry.update(Box::new(namespace), Part::All, &registry_options)?;
    if !options.dry_run {
        api.durable(api.store.revision()).await?;
    }
    let mut response = render::one(api, call, target, StatusCode::OK, &object)?;
    render::warn(&mut response, &warnings);
    Ok(response)
}

fn parse<T: DeserializeOwned>(call: &Call<'_>, kind: &str) -> Result<T, ApiError> {
    let json: Bytes = write::body_json(call)?;
    serde_json::from_slice(&json)
        .map_err(|error| bad_request(format!("unable to decode {kind}: {error}")))
}

/// The pod that the path or, without a name there, the body names.
fn named(call: &Call<'_>, meta: &Meta) -> Result<ObjectKey, ApiError> {
    let namespace = call.namespace();
    if namespace.is_empty() {
        return Err(status::no_such_method());
    }
    if !meta.namespace.is_empty() && meta.namespace != namespace {
        return Err(bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    match call.path.name.as_deref() {
        Some(name) if meta.name.is_empty() || meta.name == name => {
            Ok(ObjectKey::namespaced(namespace, name))
        }
        Some(_) => Err(bad_request("name in URL does not match name in the body")),
        None if meta.name.is_empty() => Err(bad_request("name must be provided")),
        None => Ok(ObjectKey::namespaced(namespace, &meta.name)),
    }
}
