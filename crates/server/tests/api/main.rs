//! Requests against the API in process, without a socket: what clients see on the wire.

mod arbitrary;
mod connections;
mod harness;
mod lists;
mod logs;
mod metrics;
mod protobuf;
mod statuses;
mod versions;
mod watches;
mod writes;
