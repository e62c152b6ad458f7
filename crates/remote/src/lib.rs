//! The Cluster port over a remote Kubernetes API, through kube-rs' client.
//!
//! kube gives the connection: kubeconfig files, credentials and their renewal, TLS. What goes over
//! it is made here, from raw bytes, because kube's typed objects drop the fields they do not know
//! and a controller that writes such an object back deletes them. No type of kube's leaves this
//! crate but the client that [`Server::over`] takes.
//!
//! ```text
//!   event loop   submit ──► writer ──► requests ──► api ──► server
//!                poll  ◄── told  ◄──── reflector ◄── api ◄──
//! ```
//!
//! - [`RemoteCluster`] is the port. It never waits: tasks do, behind channels.
//! - A reflector per kind lists and watches, and comes through cut connections, expired revisions
//!   (410) and kinds that are not served. `told` turns what it brings into changes, each of which
//!   is told once, in order, with deletions that fell into a gap.
//! - The writer sends patches, creations, deletions, bindings and evictions, bounded in number and
//!   in order for each object. A write is sent again only after an answer which says that it was
//!   not carried out (429, or 503 with `Retry-After`). An answer that is lost, or a 5xx, may hide a
//!   success; the outcome says so ([`Timeout`], [`InternalError`], [`ServiceUnavailable`]) and the
//!   controller must treat it so, as the scheduler does with a binding in doubt.
//! - Requests keep to a rate ([`Rate`]); Events and leases have limiters of their own.
//! - [`RemoteMetrics`] is the Metrics port: it asks the cluster's metrics APIs, and never waits either.
//! - [`Election`] holds a Lease, so that one of several copies acts.
//!
//! What this crate does not know: which kinds matter and what is done with them.
//!
//! [`Timeout`]: wharf_ports::error::StatusReason::Timeout
//! [`InternalError`]: wharf_ports::error::StatusReason::InternalError
//! [`ServiceUnavailable`]: wharf_ports::error::StatusReason::ServiceUnavailable

mod api;
mod backoff;
mod cluster;
mod connect;
mod decode;
mod election;
mod limiter;
mod link;
mod merge;
mod metrics;
mod path;
mod recorder;
mod reflector;
mod requests;
mod status;
mod told;
mod writer;

use std::sync::Arc;

pub use cluster::{RemoteCluster, Settings, StartError};
pub use connect::{ConnectError, Place, Server};
pub use election::{Election, LeaseLost, LeaseSettings};
pub use limiter::Rate;
pub use metrics::RemoteMetrics;
pub use told::HistoryLost;

/// Takes a line about the connection, for the program's log.
pub type Log = Arc<dyn Fn(String) + Send + Sync>;
