//! `Nodegroup` (`eks.services.k8s.aws/v1alpha1`): a managed node group of EKS. The kind is that of the
//! AWS controller for EKS, so that its manifests work here.
//!
//! Fields that point to objects of other AWS controllers (`clusterRef`, `subnetRefs`, `nodeRoleRef`)
//! are left out: there is nothing they could point to. `launchTemplate` and `remoteAccess` are read and
//! have no effect: a simulated machine has no user data and nobody to log in.
//!
//! Public contract: <https://aws-controllers-k8s.github.io/community/reference/eks/v1alpha1/nodegroup/>.

pub mod columns;
pub mod rules;
pub mod schema;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};

use crate::custom::resource::namespaced_resource;
pub use crate::fargate::{ProfileCondition, ResourceMetadata, SYNCED};

/// Keeps a group until its machines are gone.
pub const FINALIZER: &str = "finalizers.eks.services.k8s.aws/Nodegroup";
/// The label that names a node's group.
pub const LABEL: &str = "eks.amazonaws.com/nodegroup";
/// The label that names the image of a node of a group.
pub const IMAGE_LABEL: &str = "eks.amazonaws.com/nodegroup-image";
/// The label that says how a node of a group is bought.
pub const CAPACITY_TYPE_LABEL: &str = "eks.amazonaws.com/capacityType";
/// The tag that names a machine's group.
pub const NAME_TAG: &str = "eks:nodegroup-name";
/// The tag that names the Auto Scaling group of a machine.
pub const ASG_TAG: &str = "aws:autoscaling:groupName";

/// A managed node group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Nodegroup {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Which machines, and how many.
    #[serde(default)]
    pub spec: NodegroupSpec,
    /// What has become of it.
    #[serde(default)]
    pub status: NodegroupStatus,
}

namespaced_resource!(Nodegroup, "eks.services.k8s.aws", "v1alpha1", "nodegroups");

/// Which machines, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodegroupSpec {
    /// The image's type, `AL2023_x86_64_STANDARD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ami_type: Option<String>,
    /// `ON_DEMAND` or `SPOT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_type: Option<String>,
    /// Idempotency token of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_request_token: Option<String>,
    /// The cluster; absent is the one the object is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Size of the root volume in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<i64>,
    /// EC2 instance types, the preferred one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instance_types: Vec<String>,
    /// Labels of the nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Read and kept, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_template: Option<LaunchTemplate>,
    /// The group's name.
    #[serde(default)]
    pub name: String,
    /// Whether nodes that the monitoring agent finds broken are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_repair_config: Option<NodeRepairConfig>,
    /// The role of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_role: Option<String>,
    /// The image's release; absent is the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_version: Option<String>,
    /// Read and kept, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_access: Option<RemoteAccess>,
    /// How many machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_config: Option<ScalingConfig>,
    /// Ids of the subnets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// Tags of the group itself; the machines do not get them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Taints of the nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<GroupTaint>,
    /// How many nodes may be missing during an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// The Kubernetes version; only the cluster's is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A launch template: by id or by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Whether broken nodes are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRepairConfig {
    /// Whether they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Who may log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteAccess {
    /// Name of a key pair.
    #[serde(rename = "ec2SshKey", default, skip_serializing_if = "Option::is_none")]
    pub ec2_ssh_key: Option<String>,
    /// Security groups from which that is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_security_groups: Vec<String>,
}

/// How many machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingConfig {
    /// How many there should be now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_size: Option<i64>,
    /// The most there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<i64>,
    /// The fewest there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<i64>,
}

/// A taint in EKS' words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupTaint {
    /// `NO_SCHEDULE`, `NO_EXECUTE` or `PREFER_NO_SCHEDULE`.
    #[serde(default)]
    pub effect: String,
    /// Key.
    #[serde(default)]
    pub key: String,
    /// Value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// How many nodes may be missing during an update: a number or a percentage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateConfig {
    /// A number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<i64>,
    /// A percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable_percentage: Option<i64>,
}

/// What has become of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodegroupStatus {
    /// What AWS knows it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_resource_metadata: Option<ResourceMetadata>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ProfileCondition>,
    /// When it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// When it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<Time>,
    /// What it is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<GroupResources>,
    /// One of the words in [`status`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// What is wrong with a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// One by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
}

/// One thing that is wrong with a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// EKS' word for it.
    #[serde(default)]
    pub code: String,
    /// In words.
    #[serde(default)]
    pub message: String,
    /// What it concerns.
    #[serde(rename = "resourceIDs", default, skip_serializing_if = "Vec::is_empty")]
    pub resource_ids: Vec<String>,
}

/// What a group is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupResources {
    /// Its Auto Scaling group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auto_scaling_groups: Vec<AutoScalingGroup>,
}

/// An Auto Scaling group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoScalingGroup {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// EKS' words for what becomes of a group.
pub mod status {
    /// Its first machines are on their way.
    pub const CREATING: &str = "CREATING";
    /// As its spec wants it.
    pub const ACTIVE: &str = "ACTIVE";
    /// On its way to what its spec wants now.
    pub const UPDATING: &str = "UPDATING";
    /// Its machines are being drained and given up.
    pub const DELETING: &str = "DELETING";
    /// It never had what it needs.
    pub const CREATE_FAILED: &str = "CREATE_FAILED";
    /// It lacks something; `health` says what.
    pub const DEGRADED: &str = "DEGRADED";
}

/// EKS' words for how machines are bought.
pub mod capacity_type {
    /// At the list price.
    pub const ON_DEMAND: &str = "ON_DEMAND";
    /// On the spot market.
    pub const SPOT: &str = "SPOT";
}

/// How many machines a group has: what it says, with what EKS puts where it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The fewest.
    pub min: i64,
    /// The most.
    pub max: i64,
    /// How many now.
    pub desired: i64,
}

impl Sizes {
    /// EKS': one to two machines, two at first.
    pub const DEFAULT: Self = Self { min: 1, max: 2, desired: 2 };
}

impl Nodegroup {
    /// How many machines it has.
    pub fn sizes(&self) -> Sizes {
        let Some(config) = &self.spec.scaling_config else { return Sizes::DEFAULT };
        Sizes {
            min: config.min_size.unwrap_or(Sizes::DEFAULT.min),
            max: config.max_size.unwrap_or(Sizes::DEFAULT.max),
            desired: config.desired_size.unwrap_or(Sizes::DEFAULT.desired),
        }
    }

    /// Whether its machines are bought on the spot market.
    pub fn is_spot(&self) -> bool {
        self.spec.capacity_type.as_deref() == Some(capacity_type::SPOT)
    }

    /// Whether it is going.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Its Auto Scaling group's name: `eks-`, the group's, and a uuid, which here is the object's.
    pub fn auto_scaling_group(&self) -> String {
        format!("eks-{}-{}", self.spec.name, self.metadata.uid.as_deref().unwrap_or_default())
    }
}

impl GroupTaint {
    /// The taint in Kubernetes' words.
    pub fn to_taint(&self) -> Taint {
        let effect = match self.effect.as_str() {
            "NO_SCHEDULE" => crate::taints::NO_SCHEDULE,
            "NO_EXECUTE" => crate::taints::NO_EXECUTE,
            "PREFER_NO_SCHEDULE" => crate::taints::PREFER_NO_SCHEDULE,
            other => other,
        };
        let value = self.value.clone().filter(|value| !value.is_empty());
        Taint { value, ..crate::taints::taint(self.key.clone(), effect) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manifest_of_the_aws_controller_is_read_and_written() {
        let manifest = json!({
            "apiVersion": "eks.services.k8s.aws/v1alpha1",
            "kind": "Nodegroup",
            "metadata": {"name": "workers", "namespace": "kube-system"},
            "spec": {
                "amiType": "AL2023_x86_64_STANDARD",
                "capacityType": "SPOT",
                "clusterName": "mixed",
                "diskSize": 50,
                "instanceTypes": ["m5.large", "m5a.large"],
                "labels": {"tier": "web"},
                "launchTemplate": {"id": "lt-0", "version": "2"},
                "name": "workers",
                "nodeRepairConfig": {"enabled": true},
                "nodeRole": "arn:aws:iam::111122223333:role/nodes",
                "remoteAccess": {"ec2SshKey": "mine", "sourceSecurityGroups": ["sg-1"]},
                "scalingConfig": {"desiredSize": 3, "maxSize": 5, "minSize": 1},
                "subnets": ["subnet-0fb7743ba258e0484"],
                "tags": {"Team": "x"},
                "taints": [{"effect": "NO_SCHEDULE", "key": "dedicated", "value": "web"}],
                "updateConfig": {"maxUnavailablePercentage": 33},
            },
        });
        let group: Nodegroup = serde_json::from_value(manifest.clone()).expect("valid");
        assert_eq!(serde_json::to_value(&group).expect("plain data"), manifest);
        assert_eq!(group.sizes(), Sizes { min: 1, max: 5, desired: 3 });
        assert!(group.is_spot() && !group.is_deleting());
        let taint = group.spec.taints[0].to_taint();
        assert_eq!(crate::taints::display(&taint), "dedicated=web:NoSchedule");
        assert_eq!(Nodegroup::default().sizes(), Sizes::DEFAULT);
    }
}
