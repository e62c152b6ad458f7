//! The schemas of NodePool and NodeClaim, which share most of their spec.

use serde_json::{Value, json};

use crate::custom::build::{
    LABEL_KEY, LABEL_VALUE, Schema, array, conditions, int32, int64, integer, kind, map, object,
    quantities, string, time,
};

pub(super) fn node_pool() -> Value {
    kind(
        "A pool of nodes: which nodes may be launched for pending pods, how many, and when they may \
         be disrupted.",
        object(
            "What the pool is to hold.",
            [
                ("template", template()),
                ("disruption", disruption()),
                (
                    "limits",
                    quantities(
                        "The most the pool may hold, by resource; `nodes` counts nodes. A static \
                         pool may limit nodes only.",
                    ),
                ),
                (
                    "weight",
                    int32(
                        "Precedence among pools: higher is tried first, absent counts as 0. Not for \
                         static pools.",
                    )
                    .range(1, 100),
                ),
                (
                    "replicas",
                    int64(
                        "A fixed number of nodes, kept whatever the pods need. Makes the pool \
                         static: consolidation does not touch it.",
                    )
                    .minimum(0),
                ),
            ],
        )
        .required(&["template"]),
        object(
            "What was observed of the pool.",
            [
                ("conditions", by_type(conditions(true))),
                (
                    "nodeClassObservedGeneration",
                    int64("The generation of the node class last seen."),
                ),
                ("nodes", int64("The number of nodes.").default(0)),
                ("resources", quantities("The sum of the nodes' capacity.")),
            ],
        ),
    )
    .required(&["spec"])
    .build()
}

pub(super) fn node_claim() -> Value {
    kind(
        "A claim for one node: a machine that was asked for, from the request to its end.",
        object(
            "What was asked for; never changes.",
            [
                ("expireAfter", expire_after()),
                ("nodeClassRef", node_class_ref()),
                ("requirements", requirements()),
                (
                    "resources",
                    object(
                        "What the machine must offer.",
                        [("requests", quantities("The least of each resource."))],
                    ),
                ),
                ("startupTaints", startup_taints()),
                ("taints", taints()),
                ("terminationGracePeriod", termination_grace_period()),
            ],
        )
        .required(&["nodeClassRef", "requirements"]),
        object(
            "What was observed of the machine and its node.",
            [
                ("allocatable", quantities("What pods may use of the node, estimated.")),
                ("capacity", quantities("What the node has, estimated.")),
                ("conditions", by_type(conditions(false))),
                ("imageID", string("The image the machine runs.")),
                ("lastPodEventTime", time("When a pod last came to the node or left it.")),
                ("nodeName", string("The node that registered for this claim.")),
                ("providerID", string("The machine, as its provider names it.")),
            ],
        ),
    )
    .required(&["spec"])
    .build()
}

fn by_type(list: Schema) -> Schema {
    list.list_type("map").with("x-kubernetes-list-map-keys", json!(["type"]))
}

fn template() -> Schema {
    object(
        "The shape of the pool's nodes. What pods ask for narrows it further.",
        [
            (
                "metadata",
                object(
                    "Labels and annotations of the nodes.",
                    [
                        (
                            "annotations",
                            map("Annotations of claims and nodes.", string("A value."))
                                .with("x-kubernetes-map-type", "granular"),
                        ),
                        (
                            "labels",
                            map(
                                "Labels of claims and nodes.",
                                string("A value.").with("maxLength", 63).pattern(LABEL_VALUE),
                            )
                            .with("maxProperties", 100)
                            .with("x-kubernetes-map-type", "atomic"),
                        ),
                    ],
                ),
            ),
            (
                "spec",
                object(
                    "The spec of the pool's claims.",
                    [
                        ("expireAfter", expire_after()),
                        ("nodeClassRef", node_class_ref()),
                        ("requirements", requirements()),
                        ("startupTaints", startup_taints()),
                        ("taints", taints()),
                        ("terminationGracePeriod", termination_grace_period()),
                    ],
                )
                .required(&["nodeClassRef", "requirements"]),
            ),
        ],
    )
    .required(&["spec"])
}

fn disruption() -> Schema {
    let budget = object(
        "A cap on nodes disrupted at once, always or in a time window.",
        [
            (
                "duration",
                string("How long the window stays open, in hours and minutes. Goes with schedule.")
                    .pattern("^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$"),
            ),
            (
                "nodes",
                string("The cap: a number, or a percentage of the pool's nodes, rounded up.")
                    .default("10%")
                    .pattern("^((100|[0-9]{1,2})%|[0-9]+)$"),
            ),
            (
                "reasons",
                array(
                    "The reasons it caps; absent means all.",
                    string("A reason.").one_of(&["Underutilized", "Empty", "Drifted"]),
                )
                .max_items(50)
                .list_type("set"),
            ),
            (
                "schedule",
                string("When the window opens: five cron fields or a word like @daily, in UTC.")
                    .pattern(
                        r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$",
                    ),
            ),
        ],
    )
    .required(&["nodes"]);
    object(
        "When nodes may be disrupted, and how many at once.",
        [
            (
                "budgets",
                array("Caps on nodes disrupted at once; the strictest active one counts.", budget)
                    .max_items(50)
                    .list_type("atomic")
                    .default(json!([{"nodes": "10%"}])),
            ),
            (
                "consolidateAfter",
                string(
                    "How long no pod may come or go before a node is considered for consolidation, \
                     or Never.",
                )
                .default("0s")
                .pattern("^(([0-9]+(s|m|h))+|Never)$"),
            ),
            (
                "consolidationPolicy",
                string(
                    "Which nodes consolidation may take: only empty ones, any whose pods fit \
                     elsewhere for less, or those whose saving outweighs the disruption.",
                )
                .default("WhenEmptyOrUnderutilized")
                .one_of(&["WhenEmpty", "WhenEmptyOrUnderutilized", "Balanced"]),
            ),
        ],
    )
    .default(json!({"consolidateAfter": "0s"}))
}

fn expire_after() -> Schema {
    string("How long a node may live, from its creation, or Never.")
        .default("720h")
        .pattern("^(([0-9]+(s|m|h))+|Never)$")
}

fn termination_grace_period() -> Schema {
    string(
        "How long a drain may take, from the deletion. After that pods are deleted whatever protects \
         them. Absent means forever.",
    )
    .pattern("^([0-9]+(s|m|h))+$")
}

fn node_class_ref() -> Schema {
    object(
        "The provider's class that says how machines are made.",
        [
            ("group", string("API group of the class.").pattern("^[^/]*$")),
            ("kind", string("Kind of the class.")),
            ("name", string("Name of the class.")),
        ],
    )
    .required(&["group", "kind", "name"])
}

fn requirements() -> Schema {
    array(
        "What a node must be, by its labels. All must hold.",
        object(
            "A comparison of one label, with a floor on the values that must stay possible.",
            [
                ("key", string("The label.").with("maxLength", 316).pattern(LABEL_KEY)),
                (
                    "minValues",
                    integer("How many distinct values of the label must stay possible.")
                        .range(1, 50),
                ),
                (
                    "operator",
                    string("How the label is compared with the values.").one_of(&[
                        "In",
                        "NotIn",
                        "Exists",
                        "DoesNotExist",
                        "Gt",
                        "Lt",
                        "Gte",
                        "Lte",
                    ]),
                ),
                (
                    "values",
                    array(
                        "The values: some for In and NotIn, none for Exists and DoesNotExist, one \
                         whole number for the others.",
                        string("A value."),
                    )
                    .list_type("atomic"),
                ),
            ],
        )
        .required(&["key", "operator"]),
    )
    .max_items(100)
    .list_type("atomic")
}

fn taints() -> Schema {
    array("Taints of the nodes.", taint()).list_type("atomic")
}

fn startup_taints() -> Schema {
    array(
        "Taints at the start that something else removes soon, often a daemon. Pods need not \
         tolerate them to have a node launched.",
        taint(),
    )
    .list_type("atomic")
}

fn taint() -> Schema {
    object(
        "A mark on a node that keeps pods off which do not tolerate it.",
        [
            (
                "effect",
                string("What it does to pods that do not tolerate it.").one_of(&[
                    "NoSchedule",
                    "PreferNoSchedule",
                    "NoExecute",
                ]),
            ),
            ("key", string("The taint's name.").with("minLength", 1).pattern(LABEL_KEY)),
            ("timeAdded", time("When it was put on.")),
            ("value", string("The taint's value.").pattern(LABEL_KEY)),
        ],
    )
    .required(&["effect", "key"])
}
