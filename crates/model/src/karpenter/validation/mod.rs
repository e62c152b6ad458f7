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
pub(crate) mod rules;
pub mod runtime;

use std::sync::LazyLock;

use serde_json::Value;

use super::schema;
use crate::custom::structural::Structural;

pub use crate::custom::{FieldError, FieldErrorKind, structural};

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
