//! Versions of kinds that are served beside the one in which objects are stored.
//!
//! A body in such a version is checked against that version's own fields, converted, and from then
//! on is an object like any other; what is stored is converted back when it is shown.

mod autoscaling;

use serde_json::Value;
use wharf_model::kinds::Kind;
use wharf_ports::error::ApiError;

use super::{Decoded, FieldValidation, envelope, judge, rewrite, walk};
use crate::error::{invalid_patch, not_handled_as};
use crate::patch::{self, PatchType};
use crate::tree::{DefinitionId, Shape, Tree};

/// A version of a kind that is served but not stored.
#[derive(Debug)]
pub struct Version {
    /// API group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind's name.
    pub kind: &'static str,
    /// The full name of its definition.
    definition: &'static str,
    to_stored: fn(Value) -> Value,
    from_stored: fn(Value) -> Value,
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.kind) == (other.group, other.version, other.kind)
    }
}
impl Eq for Version {}

const ALL: &[Version] = &[Version {
    group: "autoscaling",
    version: "v1",
    kind: "HorizontalPodAutoscaler",
    definition: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    to_stored: autoscaling::to_stored,
    from_stored: autoscaling::from_stored,
}];

impl Version {
    /// All there are.
    pub fn all() -> &'static [Version] {
        ALL
    }

    /// The version that a document says it is in.
    pub fn of(document: &Value) -> Option<&'static Version> {
        let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = text("apiVersion").split_once('/')?;
        let kind = text("kind");
        ALL.iter().find(|row| (row.group, row.version, row.kind) == (group, version, kind))
    }

    /// The kind that is stored.
    ///
    /// # Panics
    /// Never: each row names a built-in kind.
    pub fn stored(&self) -> Kind {
        Kind::by_kind(self.group, self.kind).expect("invariant: a served version has a stored one")
    }

    /// A stored object's JSON in this version.
    pub fn show(&self, stored: Value) -> Value {
        (self.from_stored)(stored)
    }

    /// As [`super::decode`], for a body in this version.
    ///
    /// # Errors
    /// As [`super::decode`].
    pub fn decode(&self, json: &[u8], validation: FieldValidation) -> Result<Decoded, ApiError> {
        envelope::check(self.stored(), self.version, json)?;
        let refuse = |why: &str| self.not_handled(why);
        let findings =
            walk::bytes_of(self.root(), false, json).map_err(|error| self.not_handled(&error))?;
        let value = serde_json::from_slice(json)
            .map_err(|error| self.not_handled(&envelope::syntax_error(&error, json)))?;
        self.finish(value, &findings, validation, &refuse)
    }

    /// As [`super::decode_value`], for a value in this version.
    ///
    /// # Errors
    /// As [`super::decode_value`].
    pub fn decode_value(
        &self,
        value: Value,
        validation: FieldValidation,
    ) -> Result<Decoded, ApiError> {
        envelope::check_value(self.stored(), self.version, &value)?;
        let findings = walk::value_of(self.root(), false, &value);
        self.finish(value, &findings, validation, &|why| self.not_handled(why))
    }

    /// As [`super::decode_patched`], for the result of a patch in this version.
    ///
    /// # Errors
    /// As [`super::decode_patched`].
    pub fn decode_patched(
        &self,
        value: Value,
        patch_type: PatchType,
        patch: &[u8],
        validation: FieldValidation,
    ) -> Result<Decoded, ApiError> {
        envelope::check_value(self.stored(), self.version, &value)?;
        let findings = walk::value_of(self.root(), false, &value);
        let shown = match patch::shown(patch_type, patch) {
            _ if findings.is_clean() => String::new(),
            Some(patch) => patch,
            None => value.to_string(),
        };
        self.finish(value, &findings, validation, &|why| invalid_patch(&shown, why))
    }

    fn finish(
        &self,
        mut value: Value,
        findings: &walk::Findings,
        validation: FieldValidation,
        refuse: &dyn Fn(&str) -> ApiError,
    ) -> Result<Decoded, ApiError> {
        let warnings = judge(findings, validation, refuse)?;
        rewrite::rewrite(Tree::get(), &Shape::Object(self.root()), &mut value);
        // Whatever this version does not know was told of above; the conversion leaves it behind.
        let converted = (self.to_stored)(value);
        let Decoded { object, .. } =
            super::decode_value(self.stored(), converted, FieldValidation::Ignore)?;
        Ok(Decoded { object, warnings })
    }

    fn root(&self) -> DefinitionId {
        Tree::get().named(self.definition).expect("invariant: a served version has its definition")
    }

    /// `HorizontalPodAutoscaler in version "v1" cannot be handled as a HorizontalPodAutoscaler: …`.
    fn not_handled(&self, why: &str) -> ApiError {
        not_handled_as(self.kind, self.version, self.stored(), why)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_version_has_a_stored_kind_and_fields() {
        for version in Version::all() {
            assert_ne!(version.stored().version, version.version);
            version.root();
        }
    }

    #[test]
    fn a_body_is_held_against_its_own_versions_fields() {
        let version = &Version::all()[0];
        let body = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "metrics": [], "scaleTargetRef": {"kind": "D", "name": "d"}}});
        let decoded =
            version.decode(body.to_string().as_bytes(), FieldValidation::Warn).expect("decodes");
        assert_eq!(decoded.warnings, ["unknown field \"spec.metrics\""]);
        let error = version
            .decode(body.to_string().as_bytes(), FieldValidation::Strict)
            .expect_err("strict");
        assert_eq!(
            error.message,
            "HorizontalPodAutoscaler in version \"v1\" cannot be handled as a HorizontalPodAutoscaler: strict decoding error: unknown field \"spec.metrics\""
        );
        let other = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"});
        let error = version.decode(other.to_string().as_bytes(), FieldValidation::Warn);
        assert_eq!(
            error.expect_err("another version").message,
            "the API version in the data (autoscaling/v2) does not match the expected API version (autoscaling/v1)"
        );
    }
}
