//! What the verbs do, one file each.

pub(crate) mod bench;
pub(crate) mod catalog;
pub(crate) mod clock;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod simulate;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod why;
