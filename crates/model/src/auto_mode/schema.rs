//! The structural OpenAPI v3 schemas of NodeClass and Cluster. Fields, limits and defaults are those of
//! EKS' documentation; the descriptions are ours.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::custom::build::{
    Schema, array, boolean, conditions, int64, kind, map, object, opaque, string, time,
};
use crate::custom::structural::Structural;

/// The schema of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static Value> {
    static NODE_CLASS: LazyLock<Value> = LazyLock::new(node_class);
    static CLUSTER: LazyLock<Value> = LazyLock::new(cluster);
    match kind {
        "NodeClass" => Some(&NODE_CLASS),
        "Cluster" => Some(&CLUSTER),
        _ => None,
    }
}

/// Fills in what the definition of a kind says; other kinds stay as they are.
pub fn apply_defaults(kind: &str, value: &mut Value) {
    if let Some(schema) = compiled(kind) {
        schema.apply_defaults(value);
    }
}

/// The compiled schema of a kind by its name.
pub(super) fn compiled(kind: &str) -> Option<&'static Structural> {
    fn compile(kind: &str) -> Structural {
        let schema = by_kind(kind).expect("invariant: the kind has a schema");
        Structural::compile(schema).expect("invariant: the schemas in this crate compile")
    }
    static NODE_CLASS: LazyLock<Structural> = LazyLock::new(|| compile("NodeClass"));
    static CLUSTER: LazyLock<Structural> = LazyLock::new(|| compile("Cluster"));
    match kind {
        "NodeClass" => Some(&NODE_CLASS),
        "Cluster" => Some(&CLUSTER),
        _ => None,
    }
}

fn node_class() -> Value {
    kind(
        "How EKS Auto Mode makes machines: network, data volume, identity.",
        object(
            "What machines of this class are to be.",
            [
                (
                    "advancedNetworking",
                    object(
                        "Proxies, public addresses, prefixes.",
                        [
                            (
                                "associatePublicIPAddress",
                                boolean("Whether instances get a public address."),
                            ),
                            ("enableV4Egress", boolean("IPv4 on the way out of IPv6 clusters.")),
                            ("httpsProxy", string("The proxy of requests to the outside.")),
                            (
                                "ipv4PrefixSize",
                                string("How many addresses a node takes at once.")
                                    .one_of(&["Auto", "32"]),
                            ),
                            (
                                "networkInterfaces",
                                array("The network interfaces.", opaque("One interface.")),
                            ),
                            (
                                "noProxy",
                                array("What goes past the proxy.", string("A name or address.")),
                            ),
                        ],
                    ),
                ),
                (
                    "advancedSecurity",
                    object(
                        "What hardens nodes further.",
                        [
                            ("fips", boolean("FIPS-validated modules; in regions of the US.")),
                            ("kernelLockdown", string("The kernel's lockdown mode.")),
                        ],
                    ),
                ),
                (
                    "capacityReservationSelectorTerms",
                    terms(
                        "Which capacity reservations; terms are alternatives.",
                        object(
                            "All given fields must match.",
                            [
                                ("id", string("One reservation.").pattern("^cr-[0-9a-z]+$")),
                                ("owner", string("The owning account.").pattern("^[0-9]{12}$")),
                                ("tags", tags()),
                            ],
                        ),
                    ),
                ),
                (
                    "certificateBundles",
                    array(
                        "Certificates that nodes trust besides.",
                        object(
                            "One bundle.",
                            [
                                ("name", string("Its name.")),
                                ("data", string("Certificates in PEM, base64 encoded.")),
                            ],
                        )
                        .required(&["name", "data"]),
                    ),
                ),
                (
                    "ephemeralStorage",
                    object(
                        "The data volume: images, logs, writable layers.",
                        [
                            ("iops", int64("Operations per second.").range(3_000, 16_000).default(3_000)),
                            ("kmsKeyID", string("The key it is encrypted with.")),
                            ("size", string("Size in Gi, G, Ti or T.").pattern(SIZE).default("80Gi")),
                            ("throughput", int64("MiB per second.").range(125, 1_000).default(125)),
                        ],
                    )
                    .default(json!({"iops": 3_000, "size": "80Gi", "throughput": 125})),
                ),
                (
                    "instanceProfile",
                    string("A ready-made instance profile. Excludes role."),
                ),
                (
                    "networkPolicy",
                    string("What holds for pods that no network policy selects.")
                        .one_of(&["DefaultAllow", "DefaultDeny"])
                        .default("DefaultAllow"),
                ),
                (
                    "networkPolicyEventLogs",
                    string("Whether decisions of network policies are logged.")
                        .one_of(&["Enabled", "Disabled"])
                        .default("Disabled"),
                ),
                (
                    "placementGroupSelector",
                    object(
                        "The placement group, by name or id.",
                        [
                            ("id", string("The id.").pattern("^pg-[0-9a-z]+$")),
                            ("name", string("The name.").with("minLength", 1)),
                        ],
                    ),
                ),
                (
                    "podSecurityGroupSelectorTerms",
                    terms("The security groups of pods. With podSubnetSelectorTerms.", group_term()),
                ),
                (
                    "podSubnetSelectorTerms",
                    terms(
                        "The subnets of pods, where not the nodes'. With podSecurityGroupSelectorTerms.",
                        subnet_term(),
                    ),
                ),
                ("role", string("The role of the nodes. Excludes instanceProfile.")),
                (
                    "securityGroupSelectorTerms",
                    terms("Which security groups; terms are alternatives.", group_term()),
                ),
                (
                    "snatPolicy",
                    string("How pods' addresses are translated on the way out.")
                        .one_of(&["Random", "Disabled"])
                        .default("Random"),
                ),
                (
                    "subnetSelectorTerms",
                    terms("Which subnets; terms are alternatives.", subnet_term()),
                ),
                ("tags", map("Tags of instances and volumes.", string("A value."))),
            ],
        )
        .required(&["securityGroupSelectorTerms", "subnetSelectorTerms"]),
        object(
            "What the class resolves to.",
            [
                ("conditions", conditions(true)),
                ("instanceProfile", string("The profile in use.")),
                (
                    "securityGroups",
                    array(
                        "The selected security groups.",
                        object(
                            "A security group.",
                            [("id", string("Its id.")), ("name", string("Its name."))],
                        )
                        .required(&["id"]),
                    ),
                ),
                (
                    "subnets",
                    array(
                        "The selected subnets.",
                        object(
                            "A subnet.",
                            [
                                ("id", string("Its id.")),
                                ("zone", string("Its availability zone.")),
                                ("zoneID", string("The zone's id, the same in all accounts.")),
                            ],
                        )
                        .required(&["id", "zone"]),
                    ),
                ),
            ],
        ),
    )
    .build()
}

/// Sizes of EBS volumes: 1 to 59000Gi, and the same in other units.
const SIZE: &str = "^((?:[1-9][0-9]{0,3}|[1-4][0-9]{4}|[5][0-8][0-9]{3}|59000)Gi|(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|[6][0-3][0-9]{3}|64000)G|([1-9]|[1-5][0-7]|58)Ti|([1-9]|[1-5][0-9]|6[0-3]|64)T)$";

fn terms(description: &str, term: Schema) -> Schema {
    array(description, term).max_items(30)
}

fn tags() -> Schema {
    map("Tags that must be there; `*` stands for any value.", string("A value."))
        .with("maxProperties", 20)
}

fn subnet_term() -> Schema {
    object(
        "All given fields must match.",
        [("id", string("One subnet.").pattern("subnet-[0-9a-z]+")), ("tags", tags())],
    )
}

fn group_term() -> Schema {
    object(
        "All given fields must match.",
        [
            ("id", string("One group.").pattern("sg-[0-9a-z]+")),
            ("name", string("The group's name field, not its name tag.")),
            ("tags", tags()),
        ],
    )
}

fn cluster() -> Value {
    let switch =
        |description: &str| object(description, [("enabled", boolean("Whether it is on."))]);
    kind(
        "An EKS cluster: this one. Here Auto Mode is switched on and off.",
        object(
            "What the cluster is to be.",
            [
                (
                    "computeConfig",
                    object(
                        "Auto Mode's machines.",
                        [
                            ("enabled", boolean("Whether Auto Mode is on.")),
                            (
                                "nodePools",
                                array(
                                    "Which of its own pools there are.",
                                    string("general-purpose or system."),
                                ),
                            ),
                            ("nodeRoleARN", string("The role of the nodes of those pools.")),
                        ],
                    ),
                ),
                (
                    "kubernetesNetworkConfig",
                    object(
                        "Networks.",
                        [("elasticLoadBalancing", switch("Auto Mode's load balancers."))],
                    ),
                ),
                ("name", string("Its name.")),
                ("roleARN", string("The role of the control plane.")),
                (
                    "storageConfig",
                    object("Storage.", [("blockStorage", switch("Auto Mode's volumes."))]),
                ),
                ("tags", map("Tags.", string("A tag's value."))),
                ("version", string("The version of Kubernetes.")),
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
                            "One aspect of the cluster's state.",
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
                ("createdAt", time("When it was made.")),
                ("status", string("ACTIVE.")),
            ],
        ),
    )
    .build()
}
