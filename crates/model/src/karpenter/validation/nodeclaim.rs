//! The rules of NodeClaim beside its schema.

use serde_json::Value;

use super::FieldError;
use super::rules::{At, Rules};

/// What breaks a rule.
pub(super) fn rules(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut rules = Rules(Vec::new());
    let Some(spec) = At::root(new, old).field("spec") else { return rules.0 };
    rules.check_transition(&spec, |new, old| new == old, "spec is immutable");
    if let Some(reference) = spec.field("nodeClassRef") {
        rules.node_class_ref(&reference);
    }
    if let Some(requirements) = spec.field("requirements") {
        rules.requirements(&requirements, false);
    }
    rules.0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::node_claim;

    fn claim(change: impl FnOnce(&mut Value)) -> Value {
        let mut claim = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "default-x"},
            "spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                "requirements": [{"key": "karpenter.sh/nodepool", "operator": "In", "values": ["default"]}],
                "resources": {"requests": {"cpu": "1", "pods": 3}},
                "expireAfter": "720h"
            }
        });
        change(&mut claim);
        claim
    }

    fn errors(new: &Value, old: Option<&Value>) -> Vec<String> {
        node_claim(new, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_claim_may_name_its_pool() {
        assert_eq!(errors(&claim(|_| {}), None), [""; 0]);
    }

    #[test]
    fn the_spec_never_changes_but_the_rest_may() {
        let old = claim(|_| {});
        let relabelled = claim(|claim| claim["metadata"]["labels"] = json!({"a": "b"}));
        assert_eq!(errors(&relabelled, Some(&old)), [""; 0]);
        let longer = claim(|claim| claim["spec"]["expireAfter"] = json!("1h"));
        assert_eq!(errors(&longer, Some(&old)), ["spec: Invalid value: spec is immutable"]);
    }

    #[test]
    fn restricted_labels_are_refused() {
        for (key, domain) in [
            ("karpenter.sh/registered", "label domain \"karpenter.sh\" is restricted"),
            ("karpenter.k8s.aws/instance-pods", "label domain \"karpenter.k8s.aws\" is restricted"),
            ("kubernetes.io/hostname", "label \"kubernetes.io/hostname\" is restricted"),
        ] {
            let claim = claim(|claim| claim["spec"]["requirements"][0]["key"] = json!(key));
            assert_eq!(
                errors(&claim, None),
                [format!("spec.requirements[0].key: Invalid value: \"{key}\": {domain}")]
            );
        }
    }
}
