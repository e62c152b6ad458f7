//! The ports through which decisions meet the world, and the shape of a controller.
//!
//! Values cross the ports, effects stay outside: a [`controller::Controller`] is handed the cached
//! world ([`view::View`]), a key and the time, and returns a [`controller::Step`] of writes, cloud
//! requests and reasons. The adapters behind [`cluster::Cluster`], [`cloud::Cloud`],
//! [`extender::ExtenderCalls`], [`history::HistoryCalls`], [`metrics::Metrics`] and [`clock::Clock`]
//! carry them out; results come back as events. This crate holds no adapter but those that are a piece of memory: the virtual clock and the metrics board.

pub mod clock;
pub mod cloud;
pub mod cluster;
pub mod controller;
pub mod error;
pub mod event;
pub mod extender;
pub mod history;
pub mod metrics;
pub mod reason;
pub mod view;
