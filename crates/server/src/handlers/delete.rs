//! Delete and deletecollection.

use std::sync::Arc;

use compact_str::CompactString;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use wharf_model::object::Revision;
use wharf_ports::cluster::{Delete, Propagation};
use wharf_ports::error::ApiError;

use super::list::Filter;
use super::render::{self, ListMeta};
use super::{Call, Target, write};
use crate::api::Api;
use crate::body::Body;
use crate::query::{ListOptions, dry_run};
use crate::status::{self, bad_request, invalid};

/// `DeleteOptions` as they come in a body.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    dry_run: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// A deletion as it was asked for, and whether only to try it.
pub(super) struct Asked {
    pub delete: Delete,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// The options of a request: of its body, else of its query.
    pub(super) fn of(call: &Call<'_>) -> Result<Self, ApiError> {
        if !call.body.is_empty() {
            let json = write::body_json(call)?;
            return serde_json::from_slice(&json)
                .map_err(|error| bad_request(format!("unable to decode DeleteOptions: {error}")));
        }
        let text =
            |name: &str| call.query.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        Ok(Self {
            grace_period_seconds: call.query.integer("gracePeriodSeconds")?,
            preconditions: None,
            orphan_dependents: call.query.flag("orphanDependents"),
            propagation_policy: text("propagationPolicy"),
            dry_run: text("dryRun").map(|value| vec![value]),
        })
    }

    /// The deletion they ask for.
    pub(super) fn asked(self, call: &Call<'_>, target: Target) -> Result<Asked, ApiError> {
        let refuse = |reason: &str, field: &str, message: &str| {
            Err(invalid("meta.k8s.io", "DeleteOptions", "", reason, field, message))
        };
        let propagation = match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some(_), Some(_)) => {
                return refuse(
                    "FieldValueInvalid",
                    "propagationPolicy",
                    "Invalid value: orphanDependents and deletionPropagation cannot be both set",
                );
            }
            (Some("Foreground"), None) => Propagation::Foreground,
            (Some("Orphan"), None) | (None, Some(true)) => Propagation::Orphan,
            (Some("Background"), None) | (None, _) => Propagation::Background,
            (Some(other), None) => {
                let message = format!(
                    "Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
                );
                return refuse("FieldValueNotSupported", "propagationPolicy", &message);
            }
        };
        let preconditions = self.preconditions.unwrap_or_default();
        let revision = match preconditions.resource_version.as_deref() {
            None | Some("") => None,
            // A version that is no number cannot be the stored one; no revision is that high.
            Some(text) => Some(text.parse::<Revision>().unwrap_or(Revision::MAX)),
        };
        let values = self.dry_run.unwrap_or_default();
        Ok(Asked {
            dry_run: dry_run(values.first().map(String::as_str), "DeleteOptions")?,
            delete: Delete {
                kind: target.kind,
                key: call.key(),
                uid: preconditions.uid.filter(|uid| !uid.is_empty()).map(CompactString::from),
                revision,
                // A negative period means "at once", as upstream takes it.
                grace_seconds: self.grace_period_seconds.map(|seconds| seconds.max(0)),
                propagation,
            },
        })
    }
}

/// The registry's options for a deletion.
pub(super) fn registry_options(call: &Call<'_>, asked: &Asked) -> wharf_registry::WriteOptions {
    wharf_registry::WriteOptions {
        dry_run: asked.dry_run,
        namespace: call.namespace().to_owned(),
        unconditional: false,
    }
}

/// Answers `delete`.
pub(super) async fn delete(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let asked = DeleteOptions::of(call)?.asked(call, target)?;
    let deleted = api.parts.registry.delete(&asked.delete, &registry_options(call, &asked))?;
    if !asked.dry_run {
        api.durable(api.store.revision()).await?;
    }
    let object = &deleted.object;
    if deleted.gone && !answers_with_object(target) {
        let body = status::deleted(target.kind, &object.key().name, object.uid());
        return render::finish(call, StatusCode::OK, body);
    }
    render::one(api, call, target, StatusCode::OK, object)
}

/// The kinds for which upstream answers a completed deletion with the object.
fn answers_with_object(target: Target) -> bool {
    target.kind.group.is_empty() && matches!(target.kind.kind, "Pod" | "Service" | "ServiceAccount")
}

/// Answers `deletecollection`.
pub(super) async fn delete_collection(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let options = ListOptions::parse(&call.query)?;
    let filter = Filter::new(call, target, &options)?;
    let asked = DeleteOptions::of(call)?.asked(call, target)?;
    let deleted = api.parts.registry.delete_collection(
        &asked.delete,
        filter.namespace.as_deref(),
        &|object| filter.selects(object),
        &registry_options(call, &asked),
    )?;
    let revision = api.store.revision();
    if !asked.dry_run {
        api.durable(revision).await?;
    }
    let objects = deleted.into_iter().map(|deleted| deleted.object).collect();
    let meta = ListMeta {
        resource_version: revision,
        continue_token: String::new(),
        remaining_item_count: None,
    };
    render::list(api, call, target, objects, &meta)
}
