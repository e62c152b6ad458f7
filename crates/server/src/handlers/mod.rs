//! Requests about objects: which handler answers which verb of which resource.

mod delete;
mod kubelet;
mod list;
mod log;
pub(crate) mod metrics;
mod render;
mod review;
mod scale;
mod streams;
mod subresource;
mod watch;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, Response};
use wharf_model::instance::Instance;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::cluster::Part;
use wharf_ports::error::{ApiError, StatusReason};

use crate::api::Api;
use crate::auth::User;
use crate::body::Body;
use crate::negotiate::Accepted;
use crate::path::ResourcePath;
use crate::query::Query;
use crate::resources::{self, Backing, Resource};
use crate::status;
use crate::{api_services, definitions};

pub(crate) use watch::DeletedForms;

/// A request about objects.
pub(crate) struct Call<'a> {
    /// The head.
    pub head: &'a Parts,
    /// What the path names.
    pub path: ResourcePath<'a>,
    /// The query.
    pub query: Query<'a>,
    /// The body; empty for reads.
    pub body: Bytes,
    /// Who is asking.
    pub user: &'a Arc<User>,
    /// In which form the answer is wanted.
    pub accepted: Accepted,
}

/// The objects that a request is about.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The resource.
    pub resource: &'static Resource,
    /// The kind under which they are stored.
    pub kind: Kind,
}

impl Call<'_> {
    /// The namespace in the path; empty if there is none.
    fn namespace(&self) -> &str {
        self.path.namespace.as_deref().unwrap_or_default()
    }

    /// The key that the path names.
    fn key(&self) -> ObjectKey {
        ObjectKey::namespaced(self.namespace(), self.path.name.as_deref().unwrap_or_default())
    }
}

/// Answers a request about objects.
pub(crate) async fn resource(api: &Arc<Api>, call: Call<'_>) -> Result<Response<Body>, ApiError> {
    let path = &call.path;
    if metrics::is_adapters(path.group) {
        return metrics::adapters(api, &call);
    }
    let resource = resources::find(path.group, path.version, path.resource)
        .ok_or_else(status::no_such_path)?;
    // A namespaced path of a cluster-scoped resource is no path, nor is a name without namespace.
    let misplaced = if resource.namespaced {
        path.namespace.is_none() && path.name.is_some()
    } else {
        path.namespace.is_some()
    };
    if misplaced {
        return Err(status::no_such_path());
    }
    match resource.backing {
        Backing::Stored(kind) => stored(api, &call, Target { resource, kind }).await,
        Backing::Converted(_) | Backing::EventsV1 => {
            let kind = resource.stored_kind().ok_or_else(status::no_such_path)?;
            stored(api, &call, Target { resource, kind }).await
        }
        Backing::Definitions => definitions::read_only(api).answer(api, &call, resource),
        Backing::ApiServices => api_services::all(api).answer(api, &call, resource),
        Backing::Adapter => metrics::adapters(api, &call),
        Backing::Usage => metrics::usage(api, &call, resource),
        Backing::Binding => {
            require(&call.head.method, &Method::POST)?;
            subresource::binding(api, &call).await
        }
        Backing::AccessReview | Backing::RulesReview | Backing::SelfReview => {
            require(&call.head.method, &Method::POST)?;
            review::answer(&call, resource)
        }
    }
}

async fn stored(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
) -> Result<Response<Body>, ApiError> {
    if let Some(name) = call.path.subresource {
        return of_subresource(api, call, target, name).await;
    }
    let named = call.path.name.is_some();
    let watch = call.path.watch || call.query.flag("watch") == Some(true);
    let verb = match (&call.head.method, named) {
        (&Method::GET | &Method::HEAD, true) if !watch => "get",
        (&Method::GET | &Method::HEAD, _) if watch => "watch",
        (&Method::GET | &Method::HEAD, _) => "list",
        (&Method::POST, false) => "create",
        (&Method::PUT, true) => "update",
        (&Method::PATCH, true) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => return Err(status::no_such_method()),
    };
    if !target.resource.verbs.contains(&verb) && !is_clouds_own(api, target) {
        return Err(not_supported(target.resource, verb));
    }
    // Objects of namespaced kinds are made and deleted within one namespace.
    let within = matches!(verb, "create" | "deletecollection") && target.resource.namespaced;
    if within && call.path.namespace.is_none() {
        return Err(status::no_such_method());
    }
    match verb {
        "get" => list::get(api, call, target).await,
        "list" => list::list(api, call, target).await,
        "watch" => watch::watch(api, call, target).await,
        "create" => write::create(api, call, target).await,
        "update" => write::update(api, call, target, Part::Main).await,
        "patch" => write::patch(api, call, target, Part::Main).await,
        "delete" => delete::delete(api, call, target).await,
        _ => delete::delete_collection(api, call, target).await,
    }
}

/// Whether a request may be the simulated cloud's about one of its machines. The cloud is the one
/// client that writes them, so discovery does not tell of it.
fn is_clouds_own(api: &Api, target: Target) -> bool {
    api.parts.cloud_is_elsewhere && target.kind == Kind::of::<Instance>()
}

async fn of_subresource(
    api: &Arc<Api>,
    call: &Call<'_>,
    target: Target,
    name: &str,
) -> Result<Response<Body>, ApiError> {
    if is_clouds_own(api, target) && name == "status" && call.head.method == Method::PATCH {
        return write::patch(api, call, target, Part::Status).await;
    }
    let subresource = target.resource.subresource(name).ok_or_else(status::no_such_path)?;
    let verb = match call.head.method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        _ => return Err(status::no_such_method()),
    };
    if !subresource.verbs.contains(&verb) {
        return Err(status::no_such_method());
    }
    match (name, verb) {
        ("status", "get") => list::get(api, call, target).await,
        ("status", "update") => write::update(api, call, target, Part::Status).await,
        ("status", _) => write::patch(api, call, target, Part::Status).await,
        ("approval", "get") => list::get(api, call, target).await,
        ("approval", "update") => write::update(api, call, target, Part::Approval).await,
        ("approval", _) => write::patch(api, call, target, Part::Approval).await,
        ("resize", "get") => list::get(api, call, target).await,
        ("resize", "update") => write::update(api, call, target, Part::Resize).await,
        ("resize", _) => write::patch(api, call, target, Part::Resize).await,
        ("scale", "get") => scale::get(api, call, target).await,
        ("scale", "update") => scale::update(api, call, target).await,
        ("scale", _) => scale::patch(api, call, target).await,
        ("finalize", _) => subresource::finalize(api, call, target).await,
        ("binding", _) => subresource::binding(api, call).await,
        ("eviction", _) => subresource::eviction(api, call, target).await,
        ("log", _) => log::log(api, call, target).await,
        ("proxy", _) => kubelet::proxy(api, call, target),
        ("portforward", _) => streams::forward(api, call, target).await,
        _ => streams::command(api, call, target, name).await,
    }
}

fn require(method: &Method, wanted: &Method) -> Result<(), ApiError> {
    if method == wanted { Ok(()) } else { Err(status::no_such_method()) }
}

/// 405 for a verb that a resource does not know.
fn not_supported(resource: &Resource, verb: &str) -> ApiError {
    let mut error = ApiError::new(
        StatusReason::MethodNotAllowed,
        format!("{verb} is not supported on resources of kind \"{}\"", resource.group_resource()),
    );
    error.group = resource.group.to_owned();
    error.kind = resource.plural.to_owned();
    error
}

pub(crate) use render::finish;

/// An answer that a task goes on writing.
pub(crate) fn stream(receiver: tokio::sync::mpsc::Receiver<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Stream(receiver));
    render::head(&mut response, "application/json");
    response
}
