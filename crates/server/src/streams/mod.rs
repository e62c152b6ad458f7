//! Streams beside a request's answer: `exec`, `attach` and `port-forward` after the connection was
//! handed over.
//!
//! The formats are pure state machines ([`websocket`], [`spdy`], and on them [`remote_command`] and
//! [`port_forward`]); [`session`] brings bytes from a socket to them and back. Which of them a client
//! gets, and what it is refused, is [`crate::handlers`]' business.

pub(crate) mod port_forward;
pub(crate) mod remote_command;
pub(crate) mod session;
pub(crate) mod spdy;
mod spdy_headers;
pub(crate) mod websocket;

/// What a client has sent breaks its protocol; the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub(crate) &'static str);

/// For the fuzzers: whatever a client sends, nothing panics.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    remote_command::fuzz(bytes);
    port_forward::fuzz(bytes);
}
