//! The schema of EC2NodeClass.

use serde_json::{Value, json};

use crate::custom::build::{
    Schema, array, boolean, conditions, int32, int64, kind, map, object, opaque, string, time,
};

pub(super) fn ec2_node_class() -> Value {
    kind("How AWS machines are made: image, network, disks, identity.", spec(), status()).build()
}

fn spec() -> Schema {
    object(
        "What machines of this class are to be.",
        [
            (
                "amiFamily",
                string(
                    "The image family: the form of user data and the default disks. Follows from an \
                     alias; needed without one.",
                )
                .one_of(&[
                    "AL2",
                    "AL2023",
                    "Bottlerocket",
                    "Custom",
                    "Windows2019",
                    "Windows2022",
                    "Windows2025",
                ]),
            ),
            ("amiSelectorTerms", ami_terms()),
            (
                "associatePublicIPAddress",
                boolean("Whether instances get a public address; absent leaves it to the subnet."),
            ),
            ("blockDeviceMappings", block_devices()),
            ("capacityReservationSelectorTerms", capacity_reservation_terms()),
            ("connectionTracking", connection_tracking()),
            ("context", string("Handed to EC2 as it is.")),
            (
                "cpuOptions",
                object(
                    "CPU options.",
                    [("nestedVirtualization", on_or_off("Whether guests may run machines."))],
                ),
            ),
            ("detailedMonitoring", boolean("Whether CloudWatch monitors in detail.")),
            (
                "instanceProfile",
                string("A ready-made instance profile. Excludes role."),
            ),
            (
                "instanceStorePolicy",
                string("What to do with instance-store disks: RAID0 joins them for pods.")
                    .one_of(&["RAID0"]),
            ),
            (
                "ipPrefixCount",
                int32("How many IPv4 prefixes the network interface gets.").minimum(0),
            ),
            (
                "kubelet",
                opaque("Settings of the kubelet. Karpenter itself reads those about pods and reserves."),
            ),
            ("metadataOptions", metadata_options()),
            ("networkInterfaces", network_interfaces()),
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
                "role",
                string("The role of the nodes; a profile is made for it. Excludes instanceProfile."),
            ),
            (
                "securityGroupSelectorTerms",
                terms(
                    "Which security groups; terms are alternatives.",
                    object(
                        "All given fields must match.",
                        [
                            ("id", string("One group.").pattern("sg-[0-9a-z]+")),
                            ("name", string("The group's name field, not its name tag.")),
                            ("tags", tags()),
                        ],
                    ),
                ),
            ),
            (
                "subnetSelectorTerms",
                terms(
                    "Which subnets; terms are alternatives.",
                    object(
                        "All given fields must match.",
                        [
                            ("id", string("One subnet.").pattern("subnet-[0-9a-z]+")),
                            ("tags", tags()),
                        ],
                    ),
                ),
            ),
            (
                "tags",
                map("Tags of instances, volumes and launch templates.", string("A value.")),
            ),
            ("userData", string("User data in the family's form; what the family needs is merged in.")),
        ],
    )
    .required(&["amiSelectorTerms", "securityGroupSelectorTerms", "subnetSelectorTerms"])
}

fn terms(description: &str, term: Schema) -> Schema {
    array(description, term).max_items(30)
}

fn tags() -> Schema {
    map("Tags that must be there; `*` stands for any value.", string("A value."))
        .with("maxProperties", 20)
}

fn on_or_off(description: &str) -> Schema {
    string(description).one_of(&["enabled", "disabled"])
}

fn ami_terms() -> Schema {
    terms(
        "Which images; terms are alternatives, the newest fitting image is taken.",
        object(
            "All given fields must match; an alias stands alone.",
            [
                (
                    "alias",
                    string(
                        "An EKS optimized image as family@version, such as al2023@v20240625. The \
                         version latest makes nodes drift with each release.",
                    )
                    .with("maxLength", 30),
                ),
                ("id", string("One image.").pattern("ami-[0-9a-z]+")),
                ("name", string("The image's name field, not its name tag.")),
                ("owner", string("The owner: an account, self, amazon or aws-marketplace.")),
                ("ssmParameter", string("Name or ARN of the SSM parameter that holds the id.")),
                ("tags", tags()),
            ],
        ),
    )
    .with("minItems", 1)
}

fn capacity_reservation_terms() -> Schema {
    terms(
        "Which capacity reservations; terms are alternatives.",
        object(
            "All given fields must match.",
            [
                ("id", string("One reservation.").pattern("^cr-[0-9a-z]+$")),
                (
                    "instanceMatchCriteria",
                    string("Which launches the reservation takes.").one_of(&["open", "targeted"]),
                ),
                ("ownerID", string("The owning account.").pattern("^[0-9]{12}$")),
                ("tags", tags()),
            ],
        ),
    )
}

fn block_devices() -> Schema {
    let volume = object(
        "An EBS volume.",
        [
            ("deleteOnTermination", boolean("Whether it goes with the instance.")),
            ("encrypted", boolean("Whether it is encrypted.")),
            ("iops", int64("Operations per second, for gp3, io1 and io2.")),
            ("kmsKeyID", string("The key it is encrypted with.")),
            ("snapshotID", string("The snapshot it starts from.")),
            ("throughput", int64("MiB per second, for gp3.")),
            (
                "volumeInitializationRate",
                int32("MiB per second at which the snapshot is read in.").range(100, 300),
            ),
            (
                "volumeSize",
                string("Size in Gi, G, Ti or T; needed without a snapshot.").pattern(
                    "^((?:[1-9][0-9]{0,3}|[1-4][0-9]{4}|[5][0-8][0-9]{3}|59000)Gi|(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|[6][0-3][0-9]{3}|64000)G|([1-9]||[1-5][0-7]|58)Ti|([1-9]||[1-5][0-9]|6[0-3]|64)T)$",
                ),
            ),
            (
                "volumeType",
                string("The volume type.").one_of(&[
                    "standard", "io1", "io2", "gp2", "sc1", "st1", "gp3",
                ]),
            ),
        ],
    );
    array(
        "The disks; absent means the family's default.",
        object(
            "One disk.",
            [
                ("deviceName", string("The device, such as /dev/xvda.")),
                ("ebs", volume),
                (
                    "rootVolume",
                    boolean("Whether the kubelet's root lies on it; at most one disk may say so."),
                ),
            ],
        ),
    )
    .max_items(50)
}

fn connection_tracking() -> Schema {
    object(
        "How long idle connections are tracked, in seconds.",
        [
            ("tcpEstablishedTimeout", int32("Established TCP connections.").range(60, 432_000)),
            ("udpStreamTimeout", int32("UDP flows with several exchanges.").range(60, 180)),
            ("udpTimeout", int32("Other UDP flows.").range(30, 60)),
        ],
    )
}

fn metadata_options() -> Schema {
    object(
        "Access to the instance metadata service.",
        [
            ("httpEndpoint", on_or_off("Whether it answers.").default("enabled")),
            ("httpProtocolIPv6", on_or_off("Whether it answers over IPv6.").default("disabled")),
            (
                "httpPutResponseHopLimit",
                int64("How many hops an answer may travel; 1 keeps it from pods.")
                    .default(1)
                    .range(1, 64),
            ),
            (
                "httpTokens",
                string("Whether requests need a session token.")
                    .default("required")
                    .one_of(&["required", "optional"]),
            ),
        ],
    )
    .default(json!({
        "httpEndpoint": "enabled",
        "httpProtocolIPv6": "disabled",
        "httpPutResponseHopLimit": 1,
        "httpTokens": "required",
    }))
}

fn network_interfaces() -> Schema {
    array(
        "The network interfaces; absent means one.",
        object(
            "One network interface.",
            [
                ("deviceIndex", int32("The position on the card.").minimum(0)),
                (
                    "interfaceType",
                    string("A usual interface, or one for EFA alone.")
                        .one_of(&["interface", "efa-only"]),
                ),
                ("networkCardIndex", int32("The network card.").minimum(0)),
            ],
        )
        .required(&["deviceIndex", "interfaceType", "networkCardIndex"]),
    )
    .max_items(150)
}

fn status() -> Schema {
    let requirement = object(
        "A comparison of one label.",
        [
            ("key", string("The label.")),
            ("operator", string("How the label is compared with the values.")),
            ("values", array("The values.", string("A value.")).list_type("atomic")),
        ],
    )
    .required(&["key", "operator"]);
    let image = object(
        "An image and the instance types it fits.",
        [
            ("deprecated", boolean("Whether AWS marks it deprecated.")),
            ("id", string("Its id.")),
            ("name", string("Its name.")),
            ("requirements", array("What an instance type must be to run it.", requirement)),
        ],
    )
    .required(&["id", "requirements"]);
    let subnet = object(
        "A subnet.",
        [
            ("id", string("Its id.")),
            ("zone", string("Its availability zone.")),
            ("zoneID", string("The zone's id, the same in all accounts.")),
        ],
    )
    .required(&["id", "zone"]);
    let security_group =
        object("A security group.", [("id", string("Its id.")), ("name", string("Its name."))])
            .required(&["id"]);
    object(
        "What the class resolves to.",
        [
            ("amis", array("The selected images.", image)),
            ("capacityReservations", array("The selected reservations.", capacity_reservation())),
            ("conditions", conditions(true)),
            ("instanceProfile", string("The profile in use.")),
            ("securityGroups", array("The selected security groups.", security_group)),
            ("subnets", array("The selected subnets.", subnet)),
        ],
    )
}

fn capacity_reservation() -> Schema {
    object(
        "A capacity reservation.",
        [
            ("availabilityZone", string("Its availability zone.")),
            ("endTime", time("When it ends.")),
            ("id", string("Its id.").pattern("^cr-[0-9a-z]+$")),
            (
                "instanceMatchCriteria",
                string("Which launches it takes.").one_of(&["open", "targeted"]),
            ),
            ("instanceType", string("Its instance type.")),
            ("interruptible", boolean("Whether AWS may interrupt its instances.")),
            ("ownerID", string("The owning account.").pattern("^[0-9]{12}$")),
            (
                "reservationType",
                string("Its type.").default("default").one_of(&["default", "capacity-block"]),
            ),
            (
                "state",
                string("Whether it is about to end.")
                    .default("active")
                    .one_of(&["active", "expiring"]),
            ),
        ],
    )
    .required(&["availabilityZone", "id", "instanceMatchCriteria", "instanceType", "ownerID"])
}
