//! NodeClass: the few things of Auto Mode's machines that a user may say.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::custom::resource::custom_resource;
use crate::karpenter::ec2nodeclass::{
    CapacityReservationSelectorTerm, PlacementGroupSelector, SecurityGroup,
    SecurityGroupSelectorTerm, Subnet, SubnetSelectorTerm,
};

/// Settings of Auto Mode's machines that NodePools refer to: kind `NodeClass`. What an EC2NodeClass
/// has besides (image, user data, kubelet, disks) is AWS' business here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AutoNodeClass {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user wants.
    #[serde(default)]
    pub spec: AutoNodeClassSpec,
    /// What it resolves to.
    #[serde(default)]
    pub status: AutoNodeClassStatus,
}

custom_resource!(
    AutoNodeClass,
    "NodeClass",
    ClusterResourceScope,
    "eks.amazonaws.com",
    "v1",
    "nodeclasses"
);

/// Selects subnets that pods get addresses of: all given fields must match.
pub type PodSubnetSelectorTerm = SubnetSelectorTerm;

/// What a NodeClass asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoNodeClassSpec {
    /// The role of the nodes; excludes `instance_profile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// A ready-made instance profile; excludes `role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_profile: Option<String>,
    /// Which subnets; terms are alternatives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnet_selector_terms: Vec<SubnetSelectorTerm>,
    /// Which security groups; terms are alternatives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_group_selector_terms: Vec<SecurityGroupSelectorTerm>,
    /// Which subnets pods get their addresses of, where not the nodes'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_subnet_selector_terms: Vec<PodSubnetSelectorTerm>,
    /// The security groups of pods in those subnets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_security_group_selector_terms: Vec<SecurityGroupSelectorTerm>,
    /// Which capacity reservations; terms are alternatives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capacity_reservation_selector_terms: Vec<CapacityReservationSelectorTerm>,
    /// `Random` or `Disabled`: how pods' addresses are translated on the way out.
    #[serde(rename = "snatPolicy", default, skip_serializing_if = "Option::is_none")]
    pub snat_policy: Option<String>,
    /// `DefaultAllow` or `DefaultDeny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<String>,
    /// `Enabled` or `Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy_event_logs: Option<String>,
    /// The data volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<EphemeralStorage>,
    /// Proxies, public addresses, prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced_networking: Option<Value>,
    /// FIPS, kernel lockdown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced_security: Option<Value>,
    /// Certificates that nodes trust besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_bundles: Vec<Value>,
    /// Which placement group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement_group_selector: Option<PlacementGroupSelector>,
    /// Tags of instances and volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// The data volume: images, logs, writable layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralStorage {
    /// Its size, `80Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Operations per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<i64>,
    /// MiB per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i64>,
    /// The key it is encrypted with.
    #[serde(rename = "kmsKeyID", default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
}

/// What a NodeClass resolves to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoNodeClassStatus {
    /// The selected subnets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// The selected security groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<SecurityGroup>,
    /// The profile in use.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance_profile: String,
    /// Ready and what it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
