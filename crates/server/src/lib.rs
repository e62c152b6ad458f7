//! The Kubernetes REST API over the store: TLS, authentication, discovery, verbs, watches, tables.
//!
//! Start with [`Api`], which answers one request, and [`serve`], which brings requests to it from
//! the network. The rules of the API (defaults, admission, validation, deletion) are the
//! registry's; the fields of the kinds, patches and OpenAPI are the schema crate's. What is here is
//! the wire: paths, options, forms of answers, paging, streams.
//!
//! Public contract: <https://kubernetes.io/docs/reference/using-api/api-concepts/>.

mod api;
mod api_services;
mod auth;
mod body;
mod certificates;
mod definitions;
mod discovery;
mod events_v1;
mod fields;
mod handlers;
mod logs;
mod negotiate;
mod openapi;
mod paging;
mod path;
mod processes;
mod protobuf;
mod query;
mod read_only;
mod resources;
mod serve;
mod status;
mod streams;
mod table;
mod tls;
mod yaml;

pub use api::{
    Api, BODY_BYTES_MAX, Extra, ExtraRequest, ExtraResponse, Later, NoExtra, ServerParts,
};
pub use auth::{Tokens, User};
pub use body::{Body, Pieces};
pub use certificates::Signer;
pub use discovery::VERSION;
pub use logs::{LogLine, LogPart, PodLogs, SilentPods};
pub use processes::{
    ClosedPods, Input, Output, PIECES_MAX, PodProcesses, PortConnection, Process, ProcessCall,
};
pub use query::Query;
pub use serve::serve;
#[doc(hidden)]
pub use streams::fuzz as fuzz_streams;
pub use tls::{ADMIN_GROUP, ADMIN_USER, Pki, PkiError};
