//! The NodePools and the NodeClass that Auto Mode brings.
//! <https://docs.aws.amazon.com/eks/latest/userguide/set-builtin-node-pools.html>

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    AutoNodeClass, AutoNodeClassSpec, DEFAULT_CLASS, EphemeralStorage, FINALIZER, GROUP, NODE_CLASS,
};
use crate::karpenter::ec2nodeclass::{SecurityGroupSelectorTerm, SubnetSelectorTerm};
use crate::karpenter::{
    Budget, ConsolidationPolicy, Disruption, NodeClaimTemplate, NodeClaimTemplateSpec,
    NodeClassReference, NodePool, NodePoolSpec, NodeSelectorRequirementWithMinValues,
};
use crate::labels;
use crate::taints;

/// The names of the pools, as `computeConfig.nodePools` has them.
pub const BUILT_IN: [&str; 2] = [GENERAL_PURPOSE, SYSTEM];
/// The pool for whatever says nothing else.
pub const GENERAL_PURPOSE: &str = "general-purpose";
/// The pool for what clusters need themselves.
pub const SYSTEM: &str = "system";
/// The taint of the system pool's nodes.
pub const CRITICAL_ADDONS: &str = "CriticalAddonsOnly";
/// How long a node lives where its pool does not say it.
pub const EXPIRE_AFTER: &str = "336h";
/// How long a node's drain may take where its pool does not say it.
pub const GRACE_PERIOD: &str = "24h0m0s";

/// The pool of a name, as EKS makes it; none if EKS brings no such pool.
pub fn built_in(name: &str) -> Option<NodePool> {
    let architectures: &[&str] = match name {
        GENERAL_PURPOSE => &["amd64"],
        SYSTEM => &["amd64", "arm64"],
        _ => return None,
    };
    let taint = taints::taint(CRITICAL_ADDONS, taints::NO_SCHEDULE);
    let taints: Vec<Taint> = if name == SYSTEM { vec![taint] } else { Vec::new() };
    let spec = NodeClaimTemplateSpec {
        taints,
        requirements: vec![
            requirement(labels::CAPACITY_TYPE, "In", &["on-demand"]),
            requirement(labels::eks::INSTANCE_CATEGORY, "In", &["c", "m", "r"]),
            requirement(labels::eks::INSTANCE_GENERATION, "Gt", &["4"]),
            requirement(labels::ARCH, "In", architectures),
            requirement(labels::OS, "In", &["linux"]),
        ],
        node_class_ref: NodeClassReference {
            group: GROUP.to_owned(),
            kind: NODE_CLASS.to_owned(),
            name: DEFAULT_CLASS.to_owned(),
        },
        termination_grace_period: Some(GRACE_PERIOD.to_owned()),
        expire_after: Some(EXPIRE_AFTER.to_owned()),
        ..NodeClaimTemplateSpec::default()
    };
    let disruption = Disruption {
        budgets: Some(vec![Budget { nodes: "10%".to_owned(), ..Budget::default() }]),
        consolidate_after: Some("30s".to_owned()),
        consolidation_policy: Some(ConsolidationPolicy::WhenEmptyOrUnderutilized),
    };
    Some(NodePool {
        metadata: managed(name),
        spec: NodePoolSpec {
            template: NodeClaimTemplate { spec, ..NodeClaimTemplate::default() },
            disruption,
            ..NodePoolSpec::default()
        },
        ..NodePool::default()
    })
}

/// The node class of those pools: the cluster's private subnets and its security group.
pub fn default_class(
    node_role: &str,
    subnets: impl IntoIterator<Item = String>,
    security_group: String,
) -> AutoNodeClass {
    let subnet = |id| SubnetSelectorTerm { id: Some(id), ..SubnetSelectorTerm::default() };
    let mut metadata = managed(DEFAULT_CLASS);
    metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    AutoNodeClass {
        metadata,
        spec: AutoNodeClassSpec {
            // A role's name, without the ARN that it is the end of.
            role: Some(node_role.rsplit('/').next().unwrap_or(node_role).to_owned()),
            subnet_selector_terms: subnets.into_iter().map(subnet).collect(),
            security_group_selector_terms: vec![SecurityGroupSelectorTerm {
                id: Some(security_group),
                ..SecurityGroupSelectorTerm::default()
            }],
            snat_policy: Some("Random".to_owned()),
            network_policy: Some("DefaultAllow".to_owned()),
            network_policy_event_logs: Some("Disabled".to_owned()),
            ephemeral_storage: Some(EphemeralStorage {
                size: Some("80Gi".to_owned()),
                iops: Some(3_000),
                throughput: Some(125),
                kms_key_id: None,
            }),
            ..AutoNodeClassSpec::default()
        },
        ..AutoNodeClass::default()
    }
}

/// Whether an object is one that EKS keeps as it wants it.
pub fn is_managed(metadata: &ObjectMeta) -> bool {
    metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(labels::MANAGED_BY))
        .is_some_and(|by| by == labels::eks::MANAGER)
}

fn managed(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some([(labels::MANAGED_BY.to_owned(), labels::eks::MANAGER.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirementWithMinValues {
    NodeSelectorRequirementWithMinValues {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        min_values: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::custom;

    #[test]
    fn the_pools_are_as_eks_makes_them() {
        let pool = serde_json::to_value(built_in(GENERAL_PURPOSE)).expect("plain data");
        assert_eq!(
            pool,
            json!({
                "apiVersion": "karpenter.sh/v1", "kind": "NodePool",
                "metadata": {"name": "general-purpose",
                    "labels": {"app.kubernetes.io/managed-by": "eks"}},
                "spec": {
                    "disruption": {"budgets": [{"nodes": "10%"}], "consolidateAfter": "30s",
                        "consolidationPolicy": "WhenEmptyOrUnderutilized"},
                    "template": {"spec": {
                        "expireAfter": "336h",
                        "nodeClassRef": {"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"},
                        "requirements": [
                            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                            {"key": "eks.amazonaws.com/instance-category", "operator": "In", "values": ["c", "m", "r"]},
                            {"key": "eks.amazonaws.com/instance-generation", "operator": "Gt", "values": ["4"]},
                            {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                            {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                        ],
                        "terminationGracePeriod": "24h0m0s",
                    }},
                },
            })
        );
        let system = serde_json::to_value(built_in(SYSTEM)).expect("plain data");
        let template = &system["spec"]["template"]["spec"];
        assert_eq!(
            template["taints"],
            json!([{"key": "CriticalAddonsOnly", "effect": "NoSchedule"}])
        );
        assert_eq!(template["requirements"][3]["values"], json!(["amd64", "arm64"]));
        assert_eq!(built_in("spot"), None);
    }

    #[test]
    fn the_hash_of_the_general_purpose_pool_is_upstreams() {
        let pool = |name| built_in(name).expect("built in");
        assert_eq!(pool(GENERAL_PURPOSE).static_hash(), "4012513481623584108");
        assert_ne!(pool(SYSTEM).static_hash(), "4012513481623584108");
        let mut other = pool(GENERAL_PURPOSE);
        other.spec.template.spec.expire_after = Some("480h".to_owned());
        assert_ne!(other.static_hash(), "4012513481623584108");
    }

    #[test]
    fn what_is_brought_is_valid_and_has_no_defaults_left_to_fill_in() {
        let subnets = ["subnet-1".to_owned(), "subnet-2".to_owned()];
        let class = default_class("arn:aws:iam::1:role/nodes", subnets, "sg-1".to_owned());
        assert_eq!(class.spec.role.as_deref(), Some("nodes"));
        let objects = [
            ("NodePool", serde_json::to_value(built_in(GENERAL_PURPOSE))),
            ("NodePool", serde_json::to_value(built_in(SYSTEM))),
            ("NodeClass", serde_json::to_value(class)),
        ];
        for (kind, object) in objects {
            let object = object.expect("plain data");
            let mut filled = object.clone();
            custom::apply_defaults(kind, &mut filled);
            assert_eq!(filled["spec"], object["spec"]);
            assert_eq!(custom::validate(kind, &filled, None), []);
        }
    }
}
