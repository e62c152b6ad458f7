//! Get and list.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Revision};
use wharf_model::selector::{FieldSelector, Selector};
use wharf_ports::error::ApiError;

use super::render::{self, ListMeta};
use super::{Call, Target};
use crate::api::Api;
use crate::body::Body;
use crate::paging::{self, Start};
use crate::query::ListOptions;
use crate::resources::Backing;
use crate::{fields, status};

/// How many objects are looked at once when a page is made with a selector.
const SCAN_OBJECTS: usize = 1_000;

/// Answers `get`.
pub(super) async fn get(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let object = find(api, call, target).await?;
    render::one(api, call, target, StatusCode::OK, &object)
}

/// The object that the path names, durable; so is its absence.
pub(super) async fn find(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Arc<Object>, ApiError> {
    if let Ok(version) = call.query.text("resourceVersion").parse::<Revision>() {
        paging::reached(version, api.store.revision())?;
    }
    let key = call.key();
    match api.store.get(target.kind, &key) {
        Some(object) => {
            api.durable(object.revision()).await?;
            Ok(object)
        }
        None => {
            api.durable(api.store.revision()).await?;
            Err(not_found(target, &key))
        }
    }
}

fn not_found(target: Target, key: &ObjectKey) -> ApiError {
    let mut error = ApiError::not_found(target.kind, &key.name);
    if target.resource.group != target.kind.group {
        error.message = format!("{} \"{}\" not found", target.resource.group_resource(), key.name);
        error.group = target.resource.group.to_owned();
    }
    error
}

/// What of the objects is asked for.
pub(super) struct Filter {
    /// By labels.
    pub labels: Selector,
    /// By fields, all of them known.
    pub fields: FieldSelector,
    /// By a name in the path.
    pub name: Option<String>,
    /// Within this namespace only.
    pub namespace: Option<String>,
}

impl Filter {
    /// Reads and checks what a request asks for.
    pub(super) fn new(
        call: &Call<'_>,
        target: Target,
        options: &ListOptions,
    ) -> Result<Self, ApiError> {
        let mut fields = options.fields.clone();
        if target.resource.backing == Backing::EventsV1 {
            fields = fields::from_events_v1(fields);
        }
        fields::check(target.kind, &fields)?;
        Ok(Self {
            labels: options.labels.clone(),
            fields,
            name: call.path.name.as_deref().map(str::to_owned),
            namespace: call.path.namespace.as_deref().map(str::to_owned),
        })
    }

    /// Whether it asks for everything in its namespace.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.name.is_none()
    }

    /// Whether an object within the namespace is asked for.
    pub(super) fn selects(&self, object: &Object) -> bool {
        self.name.as_ref().is_none_or(|name| object.key().name == name.as_str())
            && self.labels.matches_with(|key| object.header().label(key))
            && fields::matches(object, &self.fields)
    }

    /// The one key that can match, if the selector names it.
    fn only_key(&self, kind: Kind) -> Option<ObjectKey> {
        let name = self.name.as_deref().or(self.fields.exact_value("metadata.name"))?;
        match (&self.namespace, kind.namespaced) {
            (_, false) => Some(ObjectKey::cluster(name)),
            (Some(namespace), true) => Some(ObjectKey::namespaced(namespace, name)),
            (None, true) => None,
        }
    }
}

/// Answers `list`.
pub(super) async fn list(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    let options = ListOptions::parse(&call.query)?;
    let filter = Filter::new(call, target, &options)?;
    let start = paging::start(&options, api.store.revision())?;
    let found = match select(api, target.kind, &filter, &start, options.limit) {
        Ok(found) => found,
        Err(wharf_store::Expired { .. }) if options.continue_token.is_empty() => {
            return Err(paging::expired());
        }
        Err(wharf_store::Expired { .. }) => {
            let token = start.after.as_ref().map(|key| paging::token(None, key));
            return Ok(status::refuse_with_continue(
                &paging::expired_continue(),
                &token.unwrap_or_default(),
            ));
        }
    };
    api.durable(found.revision).await?;
    let continue_token = match (found.more, found.objects.last()) {
        (true, Some(last)) => paging::token(Some(found.revision), last.key()),
        _ => String::new(),
    };
    let meta = ListMeta {
        resource_version: found.revision,
        continue_token,
        remaining_item_count: found.remaining,
    };
    render::list(api, call, target, found.objects, &meta)
}

/// What a list found.
struct Found {
    objects: Vec<Arc<Object>>,
    revision: Revision,
    /// Whether there may be more after the last object.
    more: bool,
    /// How many more; known only without selectors, as upstream.
    remaining: Option<usize>,
}

fn select(
    api: &Api,
    kind: Kind,
    filter: &Filter,
    start: &Start,
    limit: usize,
) -> Result<Found, wharf_store::Expired> {
    let namespace = filter.namespace.as_deref();
    let limit = (limit > 0).then_some(limit);
    if start.at.is_none()
        && start.after.is_none()
        && let Some(key) = filter.only_key(kind)
    {
        // The revision first: the object may be newer than it, never older.
        let revision = api.store.revision();
        let object = api.store.get(kind, &key).filter(|object| filter.selects(object));
        let revision = object.as_ref().map_or(revision, |object| revision.max(object.revision()));
        let objects = object.into_iter().collect();
        return Ok(Found { objects, revision, more: false, remaining: None });
    }
    if filter.is_everything() {
        let page = api.store.page(kind, namespace, start.at, start.after.as_ref(), limit)?;
        return Ok(Found {
            objects: page.objects,
            revision: page.revision,
            more: page.remaining > 0,
            remaining: (page.remaining > 0).then_some(page.remaining),
        });
    }
    let Some(limit) = limit else {
        let page = api.store.page(kind, namespace, start.at, start.after.as_ref(), None)?;
        let mut objects = page.objects;
        objects.retain(|object| filter.selects(object));
        return Ok(Found { objects, revision: page.revision, more: false, remaining: None });
    };
    let mut found = Found { objects: Vec::new(), revision: 0, more: false, remaining: None };
    let mut start = start.clone();
    loop {
        let page =
            api.store.page(kind, namespace, start.at, start.after.as_ref(), Some(SCAN_OBJECTS))?;
        // All further parts stand at the revision of the first.
        start.at = Some(page.revision);
        found.revision = page.revision;
        start.after = page.objects.last().map(|object| object.key().clone());
        for object in page.objects.into_iter().filter(|object| filter.selects(object)) {
            if found.objects.len() == limit {
                found.more = true;
                return Ok(found);
            }
            found.objects.push(object);
        }
        if page.remaining == 0 {
            return Ok(found);
        }
    }
}
