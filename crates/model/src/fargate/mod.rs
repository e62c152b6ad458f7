//! `FargateProfile` (`eks.services.k8s.aws/v1alpha1`): which pods run on EKS Fargate, and in which
//! subnets. The kind is that of the AWS controller for EKS, so that its manifests work here.
//!
//! A profile's own name (`study_wildcard`) may hold what an object's name may not; that is why it
//! stands in the spec. Fields that point to objects of other AWS controllers (`clusterRef`,
//! `subnetRefs`, `podExecutionRoleRef`) are left out: there is nothing they could point to.
//!
//! Public contract: <https://aws-controllers-k8s.github.io/community/reference/eks/v1alpha1/fargateprofile/>.

pub mod columns;
pub mod schema;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};

use crate::custom::resource::namespaced_resource;

/// The API group.
pub const GROUP: &str = "eks.services.k8s.aws";
/// Keeps a profile until the pods that run on it are gone.
pub const FINALIZER: &str = "finalizers.eks.services.k8s.aws/FargateProfile";
/// The condition that says whether the profile is as its spec wants it.
pub const SYNCED: &str = "ACK.ResourceSynced";

/// Which pods run on Fargate.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct FargateProfile {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Which pods, and where.
    #[serde(default)]
    pub spec: FargateProfileSpec,
    /// What has become of it.
    #[serde(default)]
    pub status: FargateProfileStatus,
}

namespaced_resource!(FargateProfile, "eks.services.k8s.aws", "v1alpha1", "fargateprofiles");

/// Which pods, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FargateProfileSpec {
    /// Idempotency token of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_request_token: Option<String>,
    /// The cluster; absent is the one the object is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// The profile's name.
    #[serde(default)]
    pub name: String,
    /// The role of the kubelets and of the image pulls.
    #[serde(rename = "podExecutionRoleARN", default, skip_serializing_if = "Option::is_none")]
    pub pod_execution_role_arn: Option<String>,
    /// One that matches is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<FargateSelector>,
    /// Subnet ids; none stands for every private subnet of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// What a pod must have for a profile: the namespace and every label. Namespace, keys and values may
/// hold `*` (any characters or none) and `?` (exactly one).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FargateSelector {
    /// The namespace.
    #[serde(default)]
    pub namespace: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What has become of a profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FargateProfileStatus {
    /// What AWS knows it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_resource_metadata: Option<ResourceMetadata>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ProfileCondition>,
    /// When it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// `CREATING`, `ACTIVE`, `DELETING`, `CREATE_FAILED` or `DELETE_FAILED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// What AWS knows a resource by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceMetadata {
    /// Its ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// The account.
    #[serde(rename = "ownerAccountID", default)]
    pub owner_account_id: String,
    /// The region.
    #[serde(default)]
    pub region: String,
}

/// One aspect of a profile's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileCondition {
    /// The condition's name.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// When the status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// One word that says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// EKS' words for what becomes of a profile.
pub mod status {
    /// Asked for; no pod gets it yet.
    pub const CREATING: &str = "CREATING";
    /// In use.
    pub const ACTIVE: &str = "ACTIVE";
    /// Its pods are being deleted.
    pub const DELETING: &str = "DELETING";
}

impl FargateProfile {
    /// Whether new pods get it.
    pub fn is_active(&self) -> bool {
        self.status.status.as_deref() == Some(status::ACTIVE)
            && self.metadata.deletion_timestamp.is_none()
    }

    /// Whether it is going.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
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
            "kind": "FargateProfile",
            "metadata": {"name": "study-wildcard", "namespace": "kube-system"},
            "spec": {
                "name": "study_wildcard",
                "clusterName": "fargate-serverless",
                "podExecutionRoleARN": "arn:aws:iam::111122223333:role/study_wildcard",
                "selectors": [{"namespace": "study-*", "labels": {"tier": "web"}}],
                "subnets": ["subnet-0fb7743ba258e0484"],
                "tags": {"Blueprint": "fargate-serverless"},
            },
        });
        let mut profile: FargateProfile = serde_json::from_value(manifest.clone()).expect("valid");
        assert_eq!(serde_json::to_value(&profile).expect("plain data"), manifest);
        assert!(!profile.is_active());
        profile.status.status = Some(status::ACTIVE.to_owned());
        assert!(profile.is_active());
        profile.metadata.deletion_timestamp = Some(crate::time::Time::EPOCH.to_meta());
        assert!(!profile.is_active() && profile.is_deleting());
    }
}
