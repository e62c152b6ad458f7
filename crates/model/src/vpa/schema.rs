//! The structural OpenAPI v3 schema of both kinds: what `kubectl explain` shows and what structural
//! validation reads. Types, limits and enums are those of upstream's definitions; the descriptions
//! are ours.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::custom::FieldError;
use crate::custom::build::{
    QUANTITY, Schema, array, int32, int64, integer, kind, object, opaque, quantities, string, time,
};
use crate::custom::structural::Structural;

/// The schema of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static Value> {
    static AUTOSCALER: LazyLock<Value> = LazyLock::new(autoscaler);
    static CHECKPOINT: LazyLock<Value> = LazyLock::new(checkpoint);
    match kind {
        "VerticalPodAutoscaler" => Some(&AUTOSCALER),
        "VerticalPodAutoscalerCheckpoint" => Some(&CHECKPOINT),
        _ => None,
    }
}

/// Fills in the schema's defaults; other kinds stay as they are.
pub fn apply_defaults(kind: &str, value: &mut Value) {
    if let Some(schema) = compiled(kind) {
        schema.apply_defaults(value);
    }
}

/// What the schema refuses; other kinds have none.
pub fn validate(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    compiled(kind).map(|schema| schema.validate(new, old)).unwrap_or_default()
}

fn compiled(kind: &str) -> Option<&'static Structural> {
    static AUTOSCALER: LazyLock<Structural> = LazyLock::new(|| compile("VerticalPodAutoscaler"));
    static CHECKPOINT: LazyLock<Structural> =
        LazyLock::new(|| compile("VerticalPodAutoscalerCheckpoint"));
    match kind {
        "VerticalPodAutoscaler" => Some(&AUTOSCALER),
        "VerticalPodAutoscalerCheckpoint" => Some(&CHECKPOINT),
        _ => None,
    }
}

fn compile(kind: &str) -> Structural {
    let schema = by_kind(kind).expect("invariant: both kinds have a schema");
    Structural::compile(schema).expect("invariant: the schemas in this crate compile")
}

fn autoscaler() -> Value {
    kind(
        "Keeps what the pods of a workload ask for in step with what they use.",
        object(
            "What is to be kept in step, and how.",
            [
                (
                    "targetRef",
                    object(
                        "The topmost controller of the pods, or any object with a scale subresource.",
                        [
                            ("apiVersion", string("The controller's API version.")),
                            ("kind", string("The controller's kind.")),
                            ("name", string("The controller's name.")),
                        ],
                    )
                    .required(&["kind", "name"])
                    .with("x-kubernetes-map-type", "atomic"),
                ),
                ("updatePolicy", update_policy()),
                (
                    "resourcePolicy",
                    object(
                        "What recommendations are held to.",
                        [(
                            "containerPolicies",
                            array("One policy for each container.", container_policy()),
                        )],
                    ),
                ),
                (
                    "recommenders",
                    array(
                        "Who recommends, at most one; absent is the recommender named default.",
                        object("A recommender.", [("name", string("The recommender's name."))])
                            .required(&["name"]),
                    ),
                ),
                ("startupBoost", startup_boost()),
            ],
        )
        .required(&["targetRef"]),
        object(
            "What was found.",
            [
                ("observedGeneration", int64("The generation that was looked at.")),
                (
                    "recommendation",
                    object(
                        "What each container should ask for.",
                        [(
                            "containerRecommendations",
                            array("One for each container, sorted by name.", recommendation()),
                        )],
                    ),
                ),
                ("conditions", array("Signals of whether and why.", condition())),
            ],
        ),
    )
    .required(&["spec"])
    .build()
}

fn update_policy() -> Schema {
    object(
        "How recommendations reach the pods. Absent is Recreate.",
        [
            (
                "updateMode",
                string(
                    "Off: they do not. Initial: when a pod is created. Recreate: pods are evicted, \
                     too. InPlaceOrRecreate: running pods are resized where possible, else evicted. \
                     InPlace: never evicted. Auto: deprecated, as Recreate.",
                )
                .one_of(&["Off", "Initial", "Recreate", "InPlaceOrRecreate", "InPlace", "Auto"]),
            ),
            (
                "minReplicas",
                int32("A workload with fewer live pods is left alone; it overrides the updater's own."),
            ),
            (
                "evictionRequirements",
                array(
                    "What must all hold of a recommendation for a pod to be evicted.",
                    object(
                        "One requirement.",
                        [
                            (
                                "resources",
                                array("Any of these resources.", string("A resource.")),
                            ),
                            (
                                "changeRequirement",
                                string("How the target has to stand to the request.").one_of(&[
                                    "TargetHigherThanRequests",
                                    "TargetLowerThanRequests",
                                ]),
                            ),
                        ],
                    )
                    .required(&["changeRequirement", "resources"]),
                ),
            ),
            (
                "evictAfterOOMSeconds",
                int32(
                    "A container killed for memory within so many seconds of its start makes its pod \
                     eligible for eviction.",
                )
                .minimum(1),
            ),
        ],
    )
}

fn container_policy() -> Schema {
    object(
        "What recommendations for one container are held to.",
        [
            (
                "containerName",
                string("The container, or * for those without a policy of their own."),
            ),
            ("mode", string("Whether anything is recommended.").one_of(&["Auto", "Off"])),
            ("minAllowed", quantities("The least that is recommended, by resource.")),
            ("maxAllowed", quantities("The most that is recommended, by resource.")),
            (
                "controlledResources",
                array(
                    "The resources for which anything is recommended; absent is cpu and memory.",
                    string("A resource."),
                ),
            ),
            (
                "controlledValues",
                string("Whether limits are kept in proportion or left alone.")
                    .one_of(&["RequestsAndLimits", "RequestsOnly"]),
            ),
            (
                "oomBumpUpRatio",
                quantity("How much more memory after a kill for it, as a multiple."),
            ),
            ("oomMinBumpUp", quantity("And at least so much more.")),
            (
                "memoryAggregationIntervalSeconds",
                int64("Over how many seconds one peak of memory counts.").minimum(1),
            ),
            ("memoryAggregationIntervalCount", int64("How many such intervals count.").minimum(1)),
            ("startupBoost", startup_boost()),
        ],
    )
}

fn startup_boost() -> Schema {
    object(
        "What containers get more of while they start.",
        [(
            "cpu",
            object(
                "More cpu.",
                [
                    (
                        "type",
                        string("Whether the factor or the quantity counts.")
                            .one_of(&["Factor", "Quantity"]),
                    ),
                    ("factor", int32("So many times as much.").minimum(1)),
                    ("quantity", quantity("So much more.")),
                    (
                        "durationSeconds",
                        int32("For so long after the pod became ready.").minimum(0),
                    ),
                ],
            )
            .required(&["type"]),
        )],
    )
}

fn quantity(description: &str) -> Schema {
    quantity_schema().describe(description)
}

fn quantity_schema() -> Schema {
    Schema::any()
        .with("anyOf", json!([{"type": "integer"}, {"type": "string"}]))
        .pattern(QUANTITY)
        .with("x-kubernetes-int-or-string", true)
}

fn recommendation() -> Schema {
    object(
        "What one container should ask for.",
        [
            ("containerName", string("The container.")),
            ("target", quantities("What it should ask for.")),
            ("lowerBound", quantities("Less than this is too little.")),
            ("upperBound", quantities("More than this is too much.")),
            ("uncappedTarget", quantities("The target before the policy's limits.")),
        ],
    )
    .required(&["target"])
}

fn condition() -> Schema {
    object(
        "One aspect of the object's state.",
        [
            ("type", string("The condition's name.")),
            ("status", string("True, False or Unknown.")),
            ("lastTransitionTime", time("When the status last changed.")),
            ("reason", string("One word that says why, for programs.")),
            ("message", string("Why, for people.")),
        ],
    )
    .required(&["status", "type"])
}

fn checkpoint() -> Value {
    kind(
        "What the recommender keeps of one container, so that it survives its own restart.",
        object(
            "Whose checkpoint it is.",
            [
                ("vpaObjectName", string("The autoscaler.")),
                ("containerName", string("The container.")),
            ],
        ),
        object(
            "What is kept.",
            [
                ("lastUpdateTime", time("When it was written.").with("nullable", true)),
                ("version", string("The version of the format.")),
                ("cpuHistogram", histogram("Usage of cpu.")),
                ("memoryHistogram", histogram("Peaks of memory.")),
                ("firstSampleStart", time("The first sample of cpu.").with("nullable", true)),
                ("lastSampleStart", time("The last sample of cpu.").with("nullable", true)),
                ("totalSamplesCount", integer("How many samples of cpu there were.")),
            ],
        ),
    )
    .build()
}

fn histogram(description: &str) -> Schema {
    object(
        description,
        [
            (
                "referenceTimestamp",
                time("When a sample has its own weight.").with("nullable", true),
            ),
            ("bucketWeights", opaque("Weights of buckets by their index.")),
            ("totalWeight", Schema::any().with("type", "number").describe("The weight of all.")),
        ],
    )
}
