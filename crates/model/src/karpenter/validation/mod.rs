//! What the API server refuses of the three kinds, in the words of Kubernetes 1.36.
//!
//! Three layers, as in the real server: the structural schema ([`structural`]); the rules that
//! upstream's definitions state beside the schema ([`rules`]); and what only Karpenter itself
//! checks, later, and reports as the condition ValidationSucceeded ([`runtime`]).
//!
//! On an update a value that was already there unchanged is not held against the user (validation
//! ratcheting, KEP-4008), so that a stricter version does not lock old objects.

pub mod ec2nodeclass;
pub mod nodeclaim;
pub mod nodepool;
mod rules;
pub mod runtime;
pub mod structural;

use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

use super::schema;
use structural::Structural;

/// The errors of an object of a kind (`NodePool`, `NodeClaim`, `EC2NodeClass`); with its stored
/// form when it is an update. Defaults must have been applied to both. A kind that is not one of
/// the three has none.
pub fn validate(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match kind {
        "NodePool" => node_pool(new, old),
        "NodeClaim" => node_claim(new, old),
        "EC2NodeClass" => ec2_node_class(new, old),
        _ => Vec::new(),
    }
}

/// The errors of a NodePool.
pub fn node_pool(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    layered(compiled::node_pool(), new, old, nodepool::rules)
}

/// The errors of a NodeClaim.
pub fn node_claim(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    layered(compiled::node_claim(), new, old, nodeclaim::rules)
}

/// The errors of an EC2NodeClass.
pub fn ec2_node_class(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    layered(compiled::ec2_node_class(), new, old, ec2nodeclass::rules)
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
    fn is_blocking(self) -> bool {
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

/// The compiled schemas, made on first use.
pub(super) mod compiled {
    use super::{LazyLock, Structural, schema};

    fn compile(schema: &serde_json::Value) -> Structural {
        Structural::compile(schema).expect("the schemas in this crate compile")
    }

    pub(in crate::karpenter) fn node_pool() -> &'static Structural {
        static SCHEMA: LazyLock<Structural> = LazyLock::new(|| compile(schema::node_pool()));
        &SCHEMA
    }

    pub(in crate::karpenter) fn node_claim() -> &'static Structural {
        static SCHEMA: LazyLock<Structural> = LazyLock::new(|| compile(schema::node_claim()));
        &SCHEMA
    }

    pub(in crate::karpenter) fn ec2_node_class() -> &'static Structural {
        static SCHEMA: LazyLock<Structural> = LazyLock::new(|| compile(schema::ec2_node_class()));
        &SCHEMA
    }
}

fn layered(
    schema: &Structural,
    new: &Value,
    old: Option<&Value>,
    check_rules: fn(&Value, Option<&Value>) -> Vec<FieldError>,
) -> Vec<FieldError> {
    let mut errors = schema.validate(new, old);
    if errors.iter().any(|error| error.kind.is_blocking()) {
        errors.push(FieldError {
            field: "<nil>".to_owned(),
            kind: FieldErrorKind::Invalid,
            bad_value: Some(Value::Null),
            detail: "some validation rules were not checked because the object was invalid; \
                     correct the existing errors to complete validation"
                .to_owned(),
        });
    } else {
        errors.extend(check_rules(new, old));
    }
    errors
}
