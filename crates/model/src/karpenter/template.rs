//! From a NodePool's template to a NodeClaim.

use std::collections::BTreeMap;

use k8s_openapi::Resource;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::hash::NODE_POOL_HASH_VERSION;
use super::nodeclaim::ResourceRequirements;
use super::{
    NodeClaim, NodeClaimSpec, NodePool, NodeSelectorRequirementWithMinValues, TERMINATION_FINALIZER,
};
use crate::labels;

/// What the provisioner decided for one claim, beyond what the pool's template says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimParts {
    /// All requirements of the claim, the pool's included.
    pub requirements: Vec<NodeSelectorRequirementWithMinValues>,
    /// The least the machine must offer.
    pub requests: BTreeMap<String, Quantity>,
    /// Labels whose values follow from the requirements (custom labels with one value).
    pub labels: BTreeMap<String, String>,
    /// Annotations besides the template's.
    pub annotations: BTreeMap<String, String>,
}

impl NodePool {
    /// The labels of the pool's nodes: the template's, the pool's name and the class' name.
    pub fn template_labels(&self) -> BTreeMap<String, String> {
        let template = &self.spec.template;
        let class = &template.spec.node_class_ref;
        let mut labels = template.metadata.labels.clone();
        labels.insert(labels::NODEPOOL.to_owned(), self.name().to_owned());
        labels.insert(class.label_key(), class.name.clone());
        labels
    }

    /// What the pool's nodes must be: the template's requirements, and its labels as requirements
    /// of one value each.
    pub fn template_requirements(&self) -> Vec<NodeSelectorRequirementWithMinValues> {
        let fixed = self.template_labels().into_iter().map(|(key, value)| {
            NodeSelectorRequirementWithMinValues {
                key,
                operator: "In".to_owned(),
                values: vec![value],
                min_values: None,
            }
        });
        self.spec.template.spec.requirements.iter().cloned().chain(fixed).collect()
    }

    /// The annotations of the pool's claims: the template's, and the hash that tells drift.
    pub fn template_annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = self.spec.template.metadata.annotations.clone();
        annotations.insert(labels::NODEPOOL_HASH.to_owned(), self.static_hash());
        annotations
            .insert(labels::NODEPOOL_HASH_VERSION.to_owned(), NODE_POOL_HASH_VERSION.to_owned());
        annotations
    }

    /// A claim from this pool. Its name is the caller's to give, from `generateName` and a suffix.
    pub fn node_claim(&self, parts: ClaimParts) -> NodeClaim {
        let template = &self.spec.template.spec;
        let mut labels = self.template_labels();
        labels.extend(parts.labels);
        let mut annotations = self.template_annotations();
        annotations.extend(parts.annotations);
        NodeClaim {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", self.name())),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![self.owner_reference()]),
                finalizers: Some(vec![TERMINATION_FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: NodeClaimSpec {
                taints: template.taints.clone(),
                startup_taints: template.startup_taints.clone(),
                requirements: parts.requirements,
                resources: ResourceRequirements {
                    requests: parts
                        .requests
                        .into_iter()
                        .map(|(name, amount)| (name, amount.into()))
                        .collect(),
                },
                node_class_ref: template.node_class_ref.clone(),
                termination_grace_period: template.termination_grace_period.clone(),
                expire_after: template.expire_after.clone(),
            },
            ..NodeClaim::default()
        }
    }

    /// The reference by which a claim names this pool. A foreground deletion of the pool waits for
    /// its claims.
    pub fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: Self::API_VERSION.to_owned(),
            kind: Self::KIND.to_owned(),
            name: self.name().to_owned(),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            block_owner_deletion: Some(true),
            controller: None,
        }
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool() -> NodePool {
        serde_json::from_value(json!({
            "metadata": {"name": "default", "uid": "u-1"},
            "spec": {"template": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"note": "n"}},
                "spec": {
                    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "class"},
                    "requirements": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}],
                    "taints": [{"key": "t", "effect": "NoSchedule"}],
                    "startupTaints": [{"key": "s", "effect": "NoExecute"}],
                    "expireAfter": "1h",
                    "terminationGracePeriod": "5m"
                }
            }}
        }))
        .unwrap()
    }

    #[test]
    fn labels_become_requirements() {
        let requirements: Vec<String> = pool()
            .template_requirements()
            .iter()
            .map(|r| format!("{} {} {}", r.key, r.operator, r.values.join(",")))
            .collect();
        assert_eq!(
            requirements,
            [
                "kubernetes.io/os In linux",
                "karpenter.k8s.aws/ec2nodeclass In class",
                "karpenter.sh/nodepool In default",
                "team In a",
            ]
        );
    }

    #[test]
    fn a_claim_carries_what_the_template_and_the_provisioner_say() {
        let pool = pool();
        let claim = pool.node_claim(ClaimParts {
            requirements: pool.template_requirements(),
            requests: [("cpu".to_owned(), Quantity("1".to_owned()))].into(),
            labels: [("zone-group".to_owned(), "z".to_owned())].into(),
            annotations: BTreeMap::new(),
        });
        let mut json = serde_json::to_value(&claim).unwrap();
        json["spec"].as_object_mut().unwrap().remove("requirements");
        assert_eq!(
            json,
            json!({
                "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
                "metadata": {
                    "generateName": "default-",
                    "labels": {
                        "team": "a", "zone-group": "z", "karpenter.sh/nodepool": "default",
                        "karpenter.k8s.aws/ec2nodeclass": "class"
                    },
                    "annotations": {
                        "note": "n", "karpenter.sh/nodepool-hash": pool.static_hash(),
                        "karpenter.sh/nodepool-hash-version": "v3"
                    },
                    "finalizers": ["karpenter.sh/termination"],
                    "ownerReferences": [{"apiVersion": "karpenter.sh/v1", "kind": "NodePool",
                        "name": "default", "uid": "u-1", "blockOwnerDeletion": true}]
                },
                "spec": {
                    "taints": [{"key": "t", "effect": "NoSchedule"}],
                    "startupTaints": [{"key": "s", "effect": "NoExecute"}],
                    "resources": {"requests": {"cpu": "1"}},
                    "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "class"},
                    "expireAfter": "1h", "terminationGracePeriod": "5m"
                }
            })
        );
    }
}
