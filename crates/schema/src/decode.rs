//! JSON into typed objects, refusing and warning as the Kubernetes API server does.
//!
//! A body is walked once against the field tree, which finds unknown and repeated fields, wrong
//! types and forms that need rewriting; a body in plain form is then decoded straight from its
//! bytes. Only the others are held as a `Value` and rewritten first: nulls dropped, quantities in
//! canonical form.
//!
//! Public contract: <https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation>.

mod envelope;
mod rewrite;
mod version;
mod walk;
mod yaml;

use serde_json::Value;
use wharf_model::custom;
use wharf_model::kinds::Kind;
use wharf_model::object::Typed;
use wharf_ports::error::{ApiError, StatusReason};

pub use envelope::kind_of;
pub(crate) use envelope::{go_type_of, syntax_error};
pub use version::Version;
pub use yaml::{YamlError, decode_yaml_documents, yaml_to_json};

use crate::error::{bad_request, invalid_patch, invalid_resource, not_handled, strict};
use crate::patch::{self, PatchType};
use crate::tree::{Shape, Tree, is_custom};
use walk::Findings;

/// How unknown and repeated fields of a body are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning; what upstream does unless told otherwise.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// An object that was decoded.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub object: Box<dyn Typed>,
    /// What was dropped, for the client's eyes: `unknown field "spec.foo"`.
    pub warnings: Vec<String>,
}

/// Decodes the JSON of a request as an object of `kind`. A built-in kind may leave out `apiVersion`
/// and `kind`, as upstream allows.
///
/// # Errors
/// 400 for what cannot be read, 422 for a custom resource that breaks its schema; in upstream's
/// words.
pub fn decode(kind: Kind, json: &[u8], validation: FieldValidation) -> Result<Decoded, ApiError> {
    envelope::check(kind, kind.version, json)?;
    let findings = walk::bytes(kind, json).map_err(|error| not_handled(kind, &error))?;
    if is_custom(kind) || findings.rewrite {
        let value = serde_json::from_slice(json)
            .map_err(|error| not_handled(kind, &envelope::syntax_error(&error, json)))?;
        return finish(kind, value, findings, validation, &|why| not_handled(kind, why));
    }
    let warnings = judge(&findings, validation, &|why| not_handled(kind, why))?;
    let object = (kind.decode)(json).map_err(|error| not_handled(kind, &error))?;
    Ok(Decoded { object, warnings })
}

/// Decodes a JSON value as an object of `kind`. Like [`decode`], but repeated fields cannot be
/// seen any more.
///
/// # Errors
/// As [`decode`].
pub fn decode_value(
    kind: Kind,
    value: Value,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    envelope::check_value(kind, kind.version, &value)?;
    let findings = walk::value(kind, &value);
    finish(kind, value, findings, validation, &|why| not_handled(kind, why))
}

/// Decodes the result of a patch, which upstream refuses with 422 rather than 400.
///
/// # Errors
/// 422 in upstream's words, which show the patched object, or for a strategic merge patch the
/// patch.
pub fn decode_patched(
    kind: Kind,
    value: Value,
    patch_type: PatchType,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    envelope::check_value(kind, kind.version, &value)?;
    let mut findings = walk::value(kind, &value);
    let shown_patch = patch::shown(patch_type, patch);
    if shown_patch.is_some() {
        // The result of a strategic patch is converted rather than parsed.
        findings.mismatch = findings.mismatch.and(findings.conversion.take());
    }
    let shown = match shown_patch {
        _ if findings.is_clean() => String::new(),
        Some(patch) => patch,
        None => value.to_string(),
    };
    finish(kind, value, findings, validation, &|why| invalid_patch(&shown, why))
}

/// Decodes a value by the `apiVersion` and `kind` it names.
///
/// # Errors
/// `no matches for kind "Foo" in version "v1"`, or as [`decode_value`].
pub fn decode_any(value: Value, validation: FieldValidation) -> Result<Decoded, ApiError> {
    if let Some(version) = Version::of(&value) {
        return version.decode_value(value, validation);
    }
    let kind = kind_of(&value)?;
    decode_value(kind, value, validation)
}

/// What the findings mean: warnings, or a refusal.
fn judge(
    findings: &Findings,
    validation: FieldValidation,
    refuse: &dyn Fn(&str) -> ApiError,
) -> Result<Vec<String>, ApiError> {
    if let Some(mismatch) = &findings.mismatch {
        return Err(refuse(mismatch));
    }
    match validation {
        _ if findings.strict.is_empty() => Ok(Vec::new()),
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(findings.strict.clone()),
        FieldValidation::Strict => Err(refuse(&strict(&findings.strict))),
    }
}

fn finish(
    kind: Kind,
    mut value: Value,
    mut findings: Findings,
    validation: FieldValidation,
    refuse: &dyn Fn(&str) -> ApiError,
) -> Result<Decoded, ApiError> {
    // The types of a custom resource are its schema's matter, except for the metadata.
    let schema_mismatch = findings.custom_mismatch;
    if is_custom(kind) && schema_mismatch {
        findings.mismatch = None;
    }
    let warnings = judge(&findings, validation, refuse)?;
    if schema_mismatch {
        return Err(schema_error(kind, value, &warnings, refuse));
    }
    if findings.rewrite
        && let Some(root) = Tree::get().root(kind)
    {
        rewrite::rewrite(Tree::get(), &Shape::Object(root), &mut value);
    }
    let json = serde_json::to_vec(&value)
        .map_err(|error| ApiError::new(StatusReason::InternalError, error.to_string()))?;
    match (kind.decode)(&json) {
        Ok(object) => Ok(Decoded { object, warnings }),
        Err(why) if is_custom(kind) => Err(schema_error(kind, value, &[why], refuse)),
        Err(why) => Err(refuse(&why)),
    }
}

/// The refusal of a custom resource whose fields have the wrong types: all that its schema says.
fn schema_error(
    kind: Kind,
    mut value: Value,
    found: &[String],
    refuse: &dyn Fn(&str) -> ApiError,
) -> ApiError {
    custom::apply_defaults(kind.kind, &mut value);
    let errors = custom::validate(kind.kind, &value, None);
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if errors.is_empty() {
        let why = found.first().map_or("the object does not fit its schema", String::as_str);
        return refuse(why);
    }
    invalid_resource(kind, name, &errors)
}

/// `no matches for kind "Foo" in version "v1"`.
pub(crate) fn no_matches(kind: &str, api_version: &str) -> ApiError {
    bad_request(format!("no matches for kind {kind:?} in version {api_version:?}"))
}

#[cfg(test)]
mod tests;
