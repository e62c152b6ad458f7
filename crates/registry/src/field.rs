//! Field errors: what is wrong, at which path, worded as the API server words it.
//!
//! A [`Path`] is a chain on the stack, so that checking a valid object builds no text at all.

use std::fmt;

use serde::Serialize;
use wharf_model::gates::FeatureGates;
use wharf_model::kinds::Kind;
use wharf_ports::error::{ApiError, Cause, StatusReason};

/// The path of a field, as kubectl's users see it: `spec.containers[0].ports[1].containerPort`.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub(crate) const fn root(name: &'a str) -> Self {
        Self { parent: None, segment: Segment::Name(name) }
    }

    pub(crate) fn child(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), segment: Segment::Name(name) }
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), segment: Segment::Index(index) }
    }

    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Name(name) if self.parent.is_some() => write!(f, ".{name}"),
            Segment::Name(name) => f.write_str(name),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// A value as a message shows it.
pub(crate) trait Shown {
    fn shown(&self) -> String;
}

impl Shown for str {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.as_str().shown()
    }
}

macro_rules! shown_plainly {
    ($($type:ty),*) => {
        $(impl Shown for $type {
            fn shown(&self) -> String {
                self.to_string()
            }
        })*
    };
}
shown_plainly!(i32, i64, usize, bool);

/// A structured value, shown as its JSON.
pub(crate) struct Json<'a, T>(pub(crate) &'a T);

impl<T: Serialize> Shown for Json<'_, T> {
    fn shown(&self) -> String {
        serde_json::to_string(self.0).unwrap_or_else(|_| "null".to_owned())
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) body: String,
}

/// Everything wrong with an object, in the order it was found.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    found: Vec<FieldError>,
    /// What may be used: some fields are wrong only where their feature is off.
    gates: FeatureGates,
}

impl Errors {
    /// None yet, in a cluster with these features.
    pub(crate) fn under(gates: FeatureGates) -> Self {
        Self { found: Vec::new(), gates }
    }

    pub(crate) fn gates(&self) -> FeatureGates {
        self.gates
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn push(&mut self, error: FieldError) {
        self.found.push(error);
    }

    pub(crate) fn invalid<V: Shown + ?Sized>(
        &mut self,
        path: &Path<'_>,
        value: &V,
        detail: impl AsRef<str>,
    ) {
        self.add("FieldValueInvalid", path, format!("Invalid value: {}", value.shown()), detail);
    }

    /// One `Invalid value` for each message of a check of `wharf_model::names`.
    pub(crate) fn invalid_each(&mut self, path: &Path<'_>, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(path, value, message);
        }
    }

    pub(crate) fn required(&mut self, path: &Path<'_>, detail: impl AsRef<str>) {
        self.add("FieldValueRequired", path, "Required value".to_owned(), detail);
    }

    pub(crate) fn forbidden(&mut self, path: &Path<'_>, detail: impl AsRef<str>) {
        self.add("FieldValueForbidden", path, "Forbidden".to_owned(), detail);
    }

    pub(crate) fn duplicate<V: Shown + ?Sized>(&mut self, path: &Path<'_>, value: &V) {
        self.add("FieldValueDuplicate", path, format!("Duplicate value: {}", value.shown()), "");
    }

    pub(crate) fn not_found(&mut self, path: &Path<'_>, value: &str) {
        self.add("FieldValueNotFound", path, format!("Not found: {}", value.shown()), "");
    }

    /// Not found, with a word on what there is.
    pub(crate) fn not_found_among(&mut self, path: &Path<'_>, value: &str, detail: &str) {
        self.add("FieldValueNotFound", path, format!("Not found: {}", value.shown()), detail);
    }

    pub(crate) fn not_supported(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        let names: Vec<String> = supported.iter().map(|name| format!("\"{name}\"")).collect();
        let detail = format!("supported values: {}", names.join(", "));
        self.add("FieldValueNotSupported", path, format!("Unsupported value: {value:?}"), detail);
    }

    pub(crate) fn too_long(&mut self, path: &Path<'_>, bytes_max: usize) {
        let detail = format!("may not be more than {bytes_max} bytes");
        self.add("FieldValueTooLong", path, "Too long".to_owned(), detail);
    }

    pub(crate) fn too_many(&mut self, path: &Path<'_>, count: usize, most: usize) {
        let body = format!("Too many: {count}");
        self.add("FieldValueTooMany", path, body, format!("must have at most {most} items"));
    }

    /// `must be greater than or equal to 0` where a number is below zero.
    pub(crate) fn not_negative(&mut self, path: &Path<'_>, value: Option<i64>) {
        if let Some(value) = value.filter(|value| *value < 0) {
            self.invalid(path, &value, "must be greater than or equal to 0");
        }
    }

    /// `field is immutable` where a value has changed.
    pub(crate) fn immutable<T: PartialEq + Serialize>(
        &mut self,
        path: &Path<'_>,
        new: &T,
        old: &T,
    ) {
        if new != old {
            self.invalid(path, &Json(new), "field is immutable");
        }
    }

    fn add(
        &mut self,
        reason: &'static str,
        path: &Path<'_>,
        mut body: String,
        detail: impl AsRef<str>,
    ) {
        let detail = detail.as_ref();
        if !detail.is_empty() {
            body.push_str(": ");
            body.push_str(detail);
        }
        self.found.push(FieldError { reason, field: path.to_string(), body });
    }

    /// The refusal of the whole object, if anything is wrong with it.
    ///
    /// # Errors
    /// `Deployment.apps "x" is invalid: …` with one cause per error.
    pub(crate) fn into_result(self, kind: Kind, name: &str) -> Result<(), ApiError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut texts: Vec<String> = Vec::new();
        for error in &self.found {
            let text = format!("{}: {}", error.field, error.body);
            // Upstream's aggregate tells the same text only once.
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let text = match texts.as_slice() {
            [only] => only.clone(),
            _ => format!("[{}]", texts.join(", ")),
        };
        let group_kind = if kind.group.is_empty() {
            kind.kind.to_owned()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let message = format!("{group_kind} \"{name}\" is invalid: {text}");
        let mut refusal = ApiError::new(StatusReason::Invalid, message).about(kind, name);
        refusal.kind = kind.kind.to_owned();
        refusal.causes = self
            .found
            .into_iter()
            .map(|error| Cause {
                reason: error.reason.to_owned(),
                message: error.body,
                field: error.field,
            })
            .collect();
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let spec = Path::root("spec");
        let mut errors = Errors::default();
        errors.invalid(&spec.child("replicas"), &-1, "must be greater than or equal to 0");
        let kind = Kind::of::<Deployment>();
        let refusal = errors.into_result(kind, "x").expect_err("one error");
        assert_eq!(
            refusal.message,
            "Deployment.apps \"x\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(refusal.kind, "Deployment");
        assert_eq!(refusal.causes[0].field, "spec.replicas");
        assert_eq!(refusal.causes[0].reason, "FieldValueInvalid");
        assert_eq!(
            refusal.causes[0].message,
            "Invalid value: -1: must be greater than or equal to 0"
        );
    }

    #[test]
    fn several_errors_are_listed_once_each() {
        let spec = Path::root("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let mut errors = Errors::default();
        errors.required(&first.child("name"), "");
        errors.required(&first.child("name"), "");
        errors.not_supported(&first.child("p"), "x", &["A", "B"]);
        let data = Path::root("data");
        errors.too_long(&data.key("k"), 5);
        let refusal = errors.into_result(Kind::of::<Deployment>(), "x").expect_err("errors");
        assert!(
            refusal.message.ends_with(
                "[spec.containers[0].name: Required value, spec.containers[0].p: Unsupported value: \"x\": supported values: \"A\", \"B\", data[k]: Too long: may not be more than 5 bytes]"
            ),
            "{refusal}"
        );
        assert_eq!(refusal.causes.len(), 4);
    }
}
