//! The structural OpenAPI v3 schema of a node group. Types are those of the AWS controller's
//! definition; the descriptions are ours. What EKS itself refuses is in [`super::rules`].

use std::sync::LazyLock;

use serde_json::Value;

use crate::custom::FieldError;
use crate::custom::build::{Schema, array, boolean, int64, kind, map, object, string, time};
use crate::custom::structural::Structural;

const KIND: &str = "Nodegroup";

/// The schema of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static Value> {
    static GROUP: LazyLock<Value> = LazyLock::new(group);
    (kind == KIND).then(|| &*GROUP)
}

/// What the schema refuses; other kinds have none.
pub fn validate(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    static GROUP: LazyLock<Structural> = LazyLock::new(|| {
        let schema = by_kind(KIND).expect("invariant: a node group has a schema");
        Structural::compile(schema).expect("invariant: the schemas in this crate compile")
    });
    if kind == KIND { GROUP.validate(new, old) } else { Vec::new() }
}

fn group() -> Value {
    kind("A managed node group of EKS.", spec(), status()).build()
}

fn spec() -> Schema {
    object(
        "Which machines, and how many.",
        [
            ("amiType", string("The image's type; AL2023_x86_64_STANDARD unless said.")),
            ("capacityType", string("ON_DEMAND, which is the default, or SPOT.")),
            ("clientRequestToken", string("Idempotency token of the request.")),
            ("clusterName", string("The cluster; absent is this one.")),
            ("diskSize", int64("Size of the root volume in GiB; 20 unless said.")),
            (
                "instanceTypes",
                array(
                    "EC2 instance types, the preferred one first; t3.medium unless said.",
                    string("A type."),
                ),
            ),
            ("labels", map("Labels of the nodes.", string("A label's value."))),
            (
                "launchTemplate",
                object(
                    "A launch template. It has no effect here.",
                    [
                        ("id", string("Its id.")),
                        ("name", string("Its name.")),
                        ("version", string("Its version.")),
                    ],
                ),
            ),
            ("name", string("The group's name.")),
            (
                "nodeRepairConfig",
                object(
                    "Whether nodes that the monitoring agent finds broken are replaced.",
                    [("enabled", boolean("Whether they are."))],
                ),
            ),
            ("nodeRole", string("The role of the nodes.")),
            ("releaseVersion", string("The image's release; absent is the latest.")),
            (
                "remoteAccess",
                object(
                    "Who may log in. It has no effect here.",
                    [
                        ("ec2SshKey", string("Name of a key pair.")),
                        (
                            "sourceSecurityGroups",
                            array("From where.", string("A security group's id.")),
                        ),
                    ],
                ),
            ),
            (
                "scalingConfig",
                object(
                    "How many machines; 2 of 1 to 2 unless said.",
                    [
                        ("desiredSize", int64("How many now.")),
                        ("maxSize", int64("The most.")),
                        ("minSize", int64("The fewest.")),
                    ],
                ),
            ),
            (
                "subnets",
                array("Ids of subnets; none stands for all private ones.", string("A subnet id.")),
            ),
            ("tags", map("Tags of the group, not of its machines.", string("A tag's value."))),
            (
                "taints",
                array(
                    "Taints of the nodes.",
                    object(
                        "A taint.",
                        [
                            ("effect", string("NO_SCHEDULE, NO_EXECUTE or PREFER_NO_SCHEDULE.")),
                            ("key", string("Its key.")),
                            ("value", string("Its value.")),
                        ],
                    ),
                ),
            ),
            (
                "updateConfig",
                object(
                    "How many nodes may be missing during an update.",
                    [
                        ("maxUnavailable", int64("A number, 1 unless said.")),
                        ("maxUnavailablePercentage", int64("A percentage.")),
                    ],
                ),
            ),
            ("version", string("The Kubernetes version; only the cluster's is there.")),
        ],
    )
    .required(&["name"])
}

fn status() -> Schema {
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
                        "One aspect of the group's state.",
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
            (
                "health",
                object(
                    "What is wrong with it.",
                    [(
                        "issues",
                        array(
                            "One by one.",
                            object(
                                "One thing that is wrong.",
                                [
                                    ("code", string("EKS' word for it.")),
                                    ("message", string("In words.")),
                                    ("resourceIDs", array("What it concerns.", string("An id."))),
                                ],
                            ),
                        ),
                    )],
                ),
            ),
            ("modifiedAt", time("When it was last changed.")),
            (
                "resources",
                object(
                    "What it is made of.",
                    [(
                        "autoScalingGroups",
                        array(
                            "Its Auto Scaling group.",
                            object("An Auto Scaling group.", [("name", string("Its name."))]),
                        ),
                    )],
                ),
            ),
            ("status", string("CREATING, ACTIVE, UPDATING, DELETING, CREATE_FAILED or DEGRADED.")),
        ],
    )
}
