//! The Vertical Pod Autoscaler's custom resources (`autoscaling.k8s.io/v1`): `VerticalPodAutoscaler`
//! and `VerticalPodAutoscalerCheckpoint`, with their schema, printed columns and what its admission
//! webhook refuses.
//!
//! The field set is that of VPA 1.7. Words such as modes are kept as they were written, since the
//! webhook looks at them before the schema does; [`VerticalPodAutoscaler::update_mode`] reads them.
//!
//! Public contract: <https://github.com/kubernetes/autoscaler/blob/master/vertical-pod-autoscaler/docs/api.md>.

pub mod columns;
pub mod schema;
pub mod validation;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};

use crate::custom::IntOrQuantity;
use crate::custom::resource::namespaced_resource;
use crate::quantity::Quantity;

/// The API group of both kinds.
pub const GROUP: &str = "autoscaling.k8s.io";
/// The version of the format of checkpoints.
pub const CHECKPOINT_VERSION: &str = "v3";
/// The recommender that sees to objects which name none.
pub const DEFAULT_RECOMMENDER: &str = "default";
/// The policy of containers that have none of their own.
pub const OTHER_CONTAINERS: &str = "*";

/// Amounts by resource name, as they were written.
pub type Amounts = BTreeMap<String, IntOrQuantity>;

/// How much the pods of a workload ask for, kept in step with what they use.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct VerticalPodAutoscaler {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is to be kept in step, and how.
    #[serde(default)]
    pub spec: VerticalPodAutoscalerSpec,
    /// What was found.
    #[serde(default)]
    pub status: VerticalPodAutoscalerStatus,
}

namespaced_resource!(VerticalPodAutoscaler, "autoscaling.k8s.io", "v1", "verticalpodautoscalers");

/// What is to be kept in step, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerticalPodAutoscalerSpec {
    /// The topmost controller of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// How recommendations reach the pods; absent is `Recreate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_policy: Option<UpdatePolicy>,
    /// What recommendations are held to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_policy: Option<ResourcePolicy>,
    /// Who recommends; absent is the recommender named `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommenders: Option<Vec<RecommenderSelector>>,
    /// What containers get more of while they start. Gate `CPUStartupBoost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_boost: Option<StartupBoost>,
}

/// A controller of pods, in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Name.
    #[serde(default)]
    pub name: String,
}

/// How recommendations reach the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdatePolicy {
    /// One of [`UpdateMode`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_mode: Option<String>,
    /// A workload with fewer live pods is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// What must hold of a recommendation for a pod to be evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_requirements: Option<Vec<EvictionRequirement>>,
    /// A container killed for memory within so many seconds of its start counts as a quick kill.
    /// Gate `PerVPAConfig`.
    #[serde(rename = "evictAfterOOMSeconds", default, skip_serializing_if = "Option::is_none")]
    pub evict_after_oom_seconds: Option<i32>,
}

/// One thing that must hold of a recommendation for a pod to be evicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvictionRequirement {
    /// Of any of these resources.
    #[serde(default)]
    pub resources: Vec<String>,
    /// `TargetHigherThanRequests` or `TargetLowerThanRequests`.
    #[serde(default)]
    pub change_requirement: String,
}

/// What recommendations are held to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcePolicy {
    /// One for each container name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_policies: Option<Vec<ContainerPolicy>>,
}

/// What recommendations for one container are held to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPolicy {
    /// The container, or `*` for those without a policy of their own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_name: String,
    /// `Auto` or `Off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The least that is recommended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub min_allowed: Amounts,
    /// The most that is recommended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub max_allowed: Amounts,
    /// The resources for which anything is recommended; absent is both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controlled_resources: Option<Vec<String>>,
    /// `RequestsAndLimits` or `RequestsOnly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controlled_values: Option<String>,
    /// How much more memory after a kill for it, as a multiple. Gate `PerVPAConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_bump_up_ratio: Option<IntOrQuantity>,
    /// And at least so much more. Gate `PerVPAConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_min_bump_up: Option<IntOrQuantity>,
    /// Over how long one peak of memory counts. Gate `PerVPAConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_aggregation_interval_seconds: Option<i64>,
    /// How many such intervals count. Gate `PerVPAConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_aggregation_interval_count: Option<i64>,
    /// What the container gets more of while it starts. Gate `CPUStartupBoost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_boost: Option<StartupBoost>,
}

/// What containers get more of while they start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StartupBoost {
    /// More cpu.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuBoost>,
}

/// More cpu while a container starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuBoost {
    /// `Factor` or `Quantity`.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// So many times as much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<i32>,
    /// So much more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<IntOrQuantity>,
    /// For so long after the pod became ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<i32>,
}

/// Who recommends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecommenderSelector {
    /// The recommender's name.
    #[serde(default)]
    pub name: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerticalPodAutoscalerStatus {
    /// The generation that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What each container should ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<PodRecommendation>,
    /// Signals of whether and why, sorted by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What each container should ask for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRecommendation {
    /// Sorted by container name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container_recommendations: Vec<ContainerRecommendation>,
}

/// What one container should ask for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRecommendation {
    /// The container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_name: String,
    /// What it should ask for.
    #[serde(default)]
    pub target: Amounts,
    /// Less than this is too little.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lower_bound: Amounts,
    /// More than this is too much.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upper_bound: Amounts,
    /// The target before the policy's limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub uncapped_target: Amounts,
}

/// One aspect of the object's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The condition's name.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// True, False or Unknown.
    #[serde(default)]
    pub status: String,
    /// When the status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// One word that says why, for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What the recommender keeps of one container, so that it survives its own restart.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct VerticalPodAutoscalerCheckpoint {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Whose it is.
    #[serde(default)]
    pub spec: VerticalPodAutoscalerCheckpointSpec,
    /// What is kept.
    #[serde(default)]
    pub status: VerticalPodAutoscalerCheckpointStatus,
}

namespaced_resource!(
    VerticalPodAutoscalerCheckpoint,
    "autoscaling.k8s.io",
    "v1",
    "verticalpodautoscalercheckpoints"
);

/// Whose checkpoint it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerticalPodAutoscalerCheckpointSpec {
    /// The autoscaler.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vpa_object_name: String,
    /// The container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_name: String,
}

/// What is kept of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerticalPodAutoscalerCheckpointStatus {
    /// When it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// The version of the format.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Usage of cpu.
    #[serde(default)]
    pub cpu_histogram: HistogramCheckpoint,
    /// Peaks of memory.
    #[serde(default)]
    pub memory_histogram: HistogramCheckpoint,
    /// The first sample of cpu.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_sample_start: Option<Time>,
    /// The last sample of cpu.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sample_start: Option<Time>,
    /// How many samples of cpu there were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total_samples_count: i64,
}

/// A histogram as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistogramCheckpoint {
    /// When a sample has its own weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_timestamp: Option<Time>,
    /// Weights of the buckets that are not empty, by index; the heaviest weighs 10,000.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bucket_weights: BTreeMap<usize, u32>,
    /// The weight of all.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub total_weight: f64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_nothing(number: &f64) -> bool {
    *number == 0.0
}

/// How recommendations reach the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpdateMode {
    /// They do not: they can be read in the status.
    Off,
    /// When a pod is created.
    Initial,
    /// When a pod is created, and pods are evicted so that new ones are.
    Recreate,
    /// In place where that is possible, otherwise as with `Recreate`.
    InPlaceOrRecreate,
    /// In place, and never by eviction. Gate `InPlace`.
    InPlace,
}

impl UpdateMode {
    /// The modes that are not deprecated, in the order in which messages list them.
    pub const NAMES: [&'static str; 5] =
        ["InPlace", "InPlaceOrRecreate", "Initial", "Off", "Recreate"];

    /// The mode of a name; `Auto`, which is deprecated, is `Recreate`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "Off" => Some(Self::Off),
            "Initial" => Some(Self::Initial),
            "Recreate" | "Auto" => Some(Self::Recreate),
            "InPlaceOrRecreate" => Some(Self::InPlaceOrRecreate),
            "InPlace" => Some(Self::InPlace),
            _ => None,
        }
    }

    /// Whether the updater acts on pods that run already.
    pub fn updates_running_pods(self) -> bool {
        matches!(self, Self::Recreate | Self::InPlaceOrRecreate | Self::InPlace)
    }
}

impl VerticalPodAutoscaler {
    /// How recommendations reach the pods.
    pub fn update_mode(&self) -> UpdateMode {
        let policy = self.spec.update_policy.as_ref();
        let name = policy.and_then(|policy| policy.update_mode.as_deref());
        name.and_then(UpdateMode::parse).unwrap_or(UpdateMode::Recreate)
    }

    /// Whether the recommender named `default` sees to it.
    pub fn has_default_recommender(&self) -> bool {
        match self.spec.recommenders.as_deref() {
            None | Some([]) => true,
            Some(named) => named.iter().any(|selector| selector.name == DEFAULT_RECOMMENDER),
        }
    }

    /// The policy of a container: its own, or that of the rest.
    pub fn policy_of(&self, container: &str) -> Option<&ContainerPolicy> {
        let policies = self.spec.resource_policy.as_ref()?.container_policies.as_deref()?;
        let named = |name: &str| policies.iter().find(|policy| policy.container_name == name);
        named(container).or_else(|| named(OTHER_CONTAINERS))
    }

    /// What was recommended for a container.
    pub fn recommendation_for(&self, container: &str) -> Option<&ContainerRecommendation> {
        let all = &self.status.recommendation.as_ref()?.container_recommendations;
        all.iter().find(|recommendation| recommendation.container_name == container)
    }

    /// A condition of the status.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

impl ContainerPolicy {
    /// Whether the container is left alone.
    pub fn is_off(&self) -> bool {
        self.mode.as_deref() == Some("Off")
    }

    /// Whether limits stay as they are.
    pub fn leaves_limits(&self) -> bool {
        self.controlled_values.as_deref() == Some("RequestsOnly")
    }
}

impl TargetRef {
    /// The API group of the kind.
    pub fn group(&self) -> &str {
        let version = self.api_version.as_deref().unwrap_or_default();
        version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// The amount of a resource, if it is there and can be read.
pub fn amount(amounts: &Amounts, resource: &str) -> Option<Quantity> {
    Quantity::try_from(amounts.get(resource)?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let written = json!({
            "apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
            "metadata": {"name": "hamster-vpa", "namespace": "default"},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hamster"},
                "updatePolicy": {"updateMode": "Recreate", "evictAfterOOMSeconds": 5},
                "resourcePolicy": {"containerPolicies": [{
                    "containerName": "*", "minAllowed": {"cpu": "100m", "memory": "50Mi"},
                    "maxAllowed": {"cpu": 1, "memory": "500Mi"},
                    "controlledResources": ["cpu", "memory"],
                }]},
            },
            "status": {"recommendation": {"containerRecommendations": [
                {"containerName": "hamster", "target": {"cpu": "587m", "memory": "262144k"}},
            ]}},
        });
        let read: VerticalPodAutoscaler = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
        assert_eq!(read.update_mode(), UpdateMode::Recreate);
        assert_eq!(read.policy_of("hamster").unwrap().container_name, "*");
        let target = &read.recommendation_for("hamster").unwrap().target;
        assert_eq!(amount(target, "cpu").unwrap().milli_value_ceil(), 587);
        assert_eq!(read.spec.target_ref.unwrap().group(), "apps");
    }

    #[test]
    fn a_checkpoint_keeps_its_buckets_by_index() {
        let written = json!({
            "apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscalerCheckpoint",
            "metadata": {"name": "hamster-vpa-hamster"},
            "spec": {"vpaObjectName": "hamster-vpa", "containerName": "hamster"},
            "status": {
                "version": "v3", "totalSamplesCount": 3,
                "cpuHistogram": {"bucketWeights": {"2": 10000, "10": 37}, "totalWeight": 0.3,
                    "referenceTimestamp": "2026-01-01T00:00:00Z"},
                "memoryHistogram": {},
            },
        });
        let read: VerticalPodAutoscalerCheckpoint =
            serde_json::from_value(written.clone()).unwrap();
        assert_eq!(read.status.cpu_histogram.bucket_weights[&10], 37);
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
    }
}
