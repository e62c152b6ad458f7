//! What the fields of every served kind are, and what follows from that: decoding with upstream's
//! refusals and warnings, the three kinds of patches, and the OpenAPI documents.
//!
//! Start with [`decode`], [`patch`] and [`openapi`]; all three read the field [`tree`]. This crate
//! knows no HTTP, no store and no clock: bytes and values in, values and refusals out. Everything
//! is built on first use, so that a server's start costs nothing here.

pub mod decode;
mod error;
mod instance;
pub mod openapi;
pub mod patch;
pub mod tree;
