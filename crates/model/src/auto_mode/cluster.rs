//! `Cluster`: what EKS is told of the cluster itself, as far as it switches Auto Mode.
//!
//! EKS keeps this outside of the cluster. Here it is an object of the AWS controller's kind, so that
//! it survives a restart with everything else, and is changed as on AWS: by one request.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};

use crate::custom::resource::namespaced_resource;
use crate::fargate::{ProfileCondition, ResourceMetadata};

/// An EKS cluster: this one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Cluster {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the cluster is to be.
    #[serde(default)]
    pub spec: ClusterSpec,
    /// What has become of it.
    #[serde(default)]
    pub status: ClusterStatus,
}

namespaced_resource!(Cluster, "eks.services.k8s.aws", "v1alpha1", "clusters");

/// What a cluster is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The version of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The role of the control plane.
    #[serde(rename = "roleARN", default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// Auto Mode's machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_config: Option<ComputeConfig>,
    /// Networks; of it Auto Mode's load balancers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_network_config: Option<KubernetesNetworkConfig>,
    /// Storage; of it Auto Mode's volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_config: Option<StorageConfig>,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// Auto Mode's machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComputeConfig {
    /// Whether it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Which of its own pools there are: `general-purpose`, `system`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_pools: Vec<String>,
    /// The role of the nodes of those pools.
    #[serde(rename = "nodeRoleARN", default, skip_serializing_if = "Option::is_none")]
    pub node_role_arn: Option<String>,
}

/// Something that is on or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Whether it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesNetworkConfig {
    /// Auto Mode's load balancers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elastic_load_balancing: Option<Switch>,
}

/// Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageConfig {
    /// Auto Mode's volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_storage: Option<Switch>,
}

/// What has become of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// What AWS knows it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_resource_metadata: Option<ResourceMetadata>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ProfileCondition>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// `ACTIVE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

impl Cluster {
    /// A cluster in Auto Mode with these of its pools.
    pub fn in_auto_mode(name: &str, node_role_arn: &str, node_pools: &[String]) -> Self {
        let on = Switch { enabled: Some(true) };
        let compute = ComputeConfig {
            enabled: Some(true),
            node_pools: node_pools.to_vec(),
            // EKS wants a role for the nodes of its pools, and none without them.
            node_role_arn: (!node_pools.is_empty()).then(|| node_role_arn.to_owned()),
        };
        Self {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            spec: ClusterSpec {
                name: name.to_owned(),
                compute_config: Some(compute),
                kubernetes_network_config: Some(KubernetesNetworkConfig {
                    elastic_load_balancing: Some(on),
                }),
                storage_config: Some(StorageConfig { block_storage: Some(on) }),
                ..ClusterSpec::default()
            },
            ..Self::default()
        }
    }

    /// Auto Mode's machines, if Auto Mode is on.
    pub fn auto_mode(&self) -> Option<&ComputeConfig> {
        self.spec.compute_config.as_ref().filter(|compute| compute.enabled == Some(true))
    }
}
