//! What all custom resources have in common: structural schemas with their defaults and refusals,
//! printed columns, and amounts kept as they were written.
//!
//! A custom resource is a kind that a CustomResourceDefinition would bring into a cluster:
//! Karpenter's three, the Vertical Pod Autoscaler's two, EKS' node group and Fargate
//! profile, EKS Auto Mode's two, the AWS Load Balancer Controller's two and Wharf's own. Its objects
//! are decoded by the rules of structural schemas rather than by Go's types. This is the one place that
//! knows which kinds these are; what is theirs alone is in [`crate::karpenter`], [`crate::vpa`],
//! [`crate::fargate`], [`crate::nodegroup`] and [`crate::auto_mode`].

pub(crate) mod build;
mod int_or_quantity;
pub(crate) mod resource;
pub mod structural;

use std::fmt;

use serde_json::Value;

use crate::{auto_mode, balancing, fargate, karpenter, nodegroup, subnet, vpa};

pub use int_or_quantity::IntOrQuantity;

/// Whether the kinds of an API group are custom resources.
pub fn is_custom_group(group: &str) -> bool {
    matches!(
        group,
        karpenter::GROUP
            | karpenter::AWS_GROUP
            | vpa::GROUP
            | fargate::GROUP
            | auto_mode::GROUP
            | balancing::GROUP
    ) || group.ends_with("wharf.dev")
}

/// The OpenAPI v3 schema of a custom resource with a definition, by the name of its kind.
pub fn schema(kind: &str) -> Option<&'static Value> {
    karpenter::schema::by_kind(kind)
        .or_else(|| vpa::schema::by_kind(kind))
        .or_else(|| fargate::schema::by_kind(kind))
        .or_else(|| auto_mode::schema::by_kind(kind))
        .or_else(|| nodegroup::schema::by_kind(kind))
        .or_else(|| subnet::schema(kind))
        .or_else(|| balancing::schema::by_kind(kind))
}

/// Fills in what the definition of a kind says; other kinds stay as they are.
pub fn apply_defaults(kind: &str, value: &mut Value) {
    karpenter::defaults::apply(kind, value);
    vpa::schema::apply_defaults(kind, value);
    auto_mode::schema::apply_defaults(kind, value);
}

/// What the definition of a kind refuses in an object, with its stored form when it is an update.
/// Defaults must have been applied to both.
pub fn validate(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = karpenter::validation::validate(kind, new, old);
    errors.extend(vpa::schema::validate(kind, new, old));
    errors.extend(fargate::schema::validate(kind, new, old));
    errors.extend(auto_mode::validate(kind, new, old));
    errors.extend(nodegroup::schema::validate(kind, new, old));
    errors.extend(subnet::validate(kind, new, old));
    errors.extend(balancing::schema::validate(kind, new, old));
    errors
}

/// The columns that `kubectl get` prints after the name.
pub fn columns(kind: &str) -> Option<&'static [Column]> {
    karpenter::columns::by_kind(kind)
        .or_else(|| vpa::columns::by_kind(kind))
        .or_else(|| fargate::columns::by_kind(kind))
        .or_else(|| auto_mode::columns::by_kind(kind))
        .or_else(|| nodegroup::columns::by_kind(kind))
        .or_else(|| subnet::columns(kind))
        .or_else(|| balancing::columns::by_kind(kind))
}

/// One printed column; `NAME` comes first by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The header; kubectl writes it in capitals.
    pub name: &'static str,
    /// `string`, `integer` or `date` (which kubectl shows as an age).
    pub kind: &'static str,
    /// Where the cell's value lies in the object.
    pub json_path: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

/// A column.
pub(crate) const fn column(
    name: &'static str,
    kind: &'static str,
    json_path: &'static str,
    priority: i32,
) -> Column {
    Column { name, kind, json_path, priority }
}

/// One thing that is wrong with one field, as the API server reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The path of the field, `spec.limits.cpu`; `<nil>` for the object as a whole.
    pub field: String,
    /// What kind of wrong.
    pub kind: FieldErrorKind,
    /// The value that is shown; none where the message shows none.
    pub bad_value: Option<Value>,
    /// What is wrong, in words.
    pub detail: String,
}

/// What kind of wrong a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// It is missing.
    Required,
    /// Its value is not allowed.
    Invalid,
    /// Its value has the wrong type.
    TypeInvalid,
    /// Its value is not one of those that are.
    NotSupported,
    /// Its value must be unique and is not.
    Duplicate,
    /// It must not be set.
    Forbidden,
    /// It is too long.
    TooLong,
    /// It has too many items.
    TooMany,
}

impl FieldErrorKind {
    /// The `reason` of the cause in a Status.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }

    /// Whether such an error keeps the rules beside the schema from being looked at.
    pub(crate) fn is_blocking(self) -> bool {
        matches!(
            self,
            Self::Required | Self::TypeInvalid | Self::NotSupported | Self::TooLong | Self::TooMany
        )
    }
}

impl FieldError {
    /// The message without the field, as a cause in a Status has it.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if let Some(value) = &self.bad_value {
            text.push_str(": ");
            text.push_str(&value.to_string());
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}
