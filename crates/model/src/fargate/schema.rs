//! The structural OpenAPI v3 schema of a profile. Types are those of the AWS controller's
//! definition; the descriptions are ours. What EKS itself refuses is not in it.

use std::sync::LazyLock;

use serde_json::Value;

use crate::custom::FieldError;
use crate::custom::build::{array, kind, map, object, string, time};
use crate::custom::structural::Structural;

const KIND: &str = "FargateProfile";

/// The schema of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static Value> {
    static PROFILE: LazyLock<Value> = LazyLock::new(profile);
    (kind == KIND).then(|| &*PROFILE)
}

/// What the schema refuses; other kinds have none.
pub fn validate(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    static PROFILE: LazyLock<Structural> = LazyLock::new(|| {
        let schema = by_kind(KIND).expect("invariant: a profile has a schema");
        Structural::compile(schema).expect("invariant: the schemas in this crate compile")
    });
    if kind == KIND { PROFILE.validate(new, old) } else { Vec::new() }
}

fn profile() -> Value {
    kind(
        "Which pods run on EKS Fargate, and in which subnets.",
        object(
            "Which pods, and where.",
            [
                ("clientRequestToken", string("Idempotency token of the request.")),
                ("clusterName", string("The cluster; absent is this one.")),
                ("name", string("The profile's name.")),
                ("podExecutionRoleARN", string("The role of kubelets and image pulls.")),
                ("selectors", array("One that matches is enough; at most five.", selector())),
                (
                    "subnets",
                    array("Ids of private subnets; none stands for all.", string("A subnet id.")),
                ),
                ("tags", map("Tags.", string("A tag's value."))),
            ],
        )
        .required(&["name"]),
        object(
            "What has become of it.",
            [
                (
                    "ackResourceMetadata",
                    object(
                        "What AWS knows it by.",
                        [
                            ("arn", string("Its ARN.")),
                            ("ownerAccountID", string("The account.")),
                            ("region", string("The region.")),
                        ],
                    )
                    .required(&["ownerAccountID", "region"]),
                ),
                (
                    "conditions",
                    array(
                        "Conditions.",
                        object(
                            "One aspect of the profile's state.",
                            [
                                ("type", string("The condition's name.")),
                                ("status", string("True, False or Unknown.")),
                                ("lastTransitionTime", time("When the status last changed.")),
                                ("reason", string("One word that says why.")),
                                ("message", string("Why, for people.")),
                            ],
                        )
                        .required(&["status", "type"]),
                    ),
                ),
                ("createdAt", time("When it was asked for.")),
                ("status", string("CREATING, ACTIVE, DELETING, CREATE_FAILED or DELETE_FAILED.")),
            ],
        ),
    )
    .build()
}

fn selector() -> crate::custom::build::Schema {
    object(
        "A namespace and labels that a pod must have; * and ? are wildcards.",
        [
            ("labels", map("Labels.", string("A label's value."))),
            ("namespace", string("The namespace.")),
        ],
    )
}
