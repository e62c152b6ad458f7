//! Why a decision fell as it did, as data: what `wharf why` prints and the views show.

use std::borrow::Cow;

use serde::Serialize;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;

/// One decision about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The kind of the object it is about.
    pub kind: Kind,
    /// Which object.
    pub key: ObjectKey,
    /// Which system decided (`scheduler`, `provisioner`, `disruption`, `kubelet`).
    pub by: &'static str,
    /// The decision in one line.
    pub decision: String,
    /// What spoke for it, most important first.
    pub because: Vec<Because>,
}

/// One fact behind a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Because {
    /// The rule or candidate (`NodeResourcesFit`, `c5a.2xlarge`, `price`).
    pub rule: Cow<'static, str>,
    /// What it said, with the numbers.
    pub says: String,
}

impl Because {
    /// A fact.
    pub fn new(rule: impl Into<Cow<'static, str>>, says: impl Into<String>) -> Self {
        Self { rule: rule.into(), says: says.into() }
    }
}
