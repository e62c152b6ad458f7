//! Defaults, as the API server fills them in on the way to the store and out of it.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::validation::compiled;
use super::{
    Budget, ConsolidationPolicy, Disruption, NEVER, NodeClaimSpec, NodeClaimTemplateSpec, NodePool,
};
use crate::auto_mode::pools;
use crate::duration::GoDuration;

/// The life time of a node whose pool does not say one.
pub const EXPIRE_AFTER: &str = "720h";
/// How long a node must be quiet where the pool does not say it.
pub const CONSOLIDATE_AFTER: &str = "0s";
/// The budget of a pool without budgets.
pub const BUDGET_NODES: &str = "10%";

/// Fills in the defaults of a kind (`NodePool`, `NodeClaim`, `EC2NodeClass`); other kinds stay as
/// they are.
pub fn apply(kind: &str, value: &mut Value) {
    match kind {
        "NodePool" => node_pool(value),
        "NodeClaim" => node_claim(value),
        "EC2NodeClass" => ec2_node_class(value),
        _ => {}
    }
}

/// Fills in the defaults of a NodePool.
pub fn node_pool(value: &mut Value) {
    auto_mode(value);
    compiled::node_pool().apply_defaults(value);
}

/// Fills in how long nodes of EKS Auto Mode live and drain, where their pool does not say it: AWS
/// replaces them sooner than Karpenter does.
fn auto_mode(pool: &mut Value) {
    let Some(template) = pool.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut)
    else {
        return;
    };
    let group = template.get("nodeClassRef").and_then(|reference| reference.get("group"));
    if group.and_then(Value::as_str) != Some(crate::auto_mode::GROUP) {
        return;
    }
    for (field, default) in
        [("expireAfter", pools::EXPIRE_AFTER), ("terminationGracePeriod", pools::GRACE_PERIOD)]
    {
        template.entry(field).or_insert_with(|| default.into());
    }
}

/// Fills in the defaults of a NodeClaim.
pub fn node_claim(value: &mut Value) {
    compiled::node_claim().apply_defaults(value);
}

/// Fills in the defaults of an EC2NodeClass.
pub fn ec2_node_class(value: &mut Value) {
    compiled::ec2_node_class().apply_defaults(value);
}

impl NodePool {
    /// Fills in the defaults of a pool that was built in memory rather than read from the API.
    pub fn apply_defaults(&mut self) {
        self.spec.template.spec.expire_after.get_or_insert_with(|| EXPIRE_AFTER.to_owned());
        let Disruption { consolidate_after, consolidation_policy, budgets } =
            &mut self.spec.disruption;
        consolidate_after.get_or_insert_with(|| CONSOLIDATE_AFTER.to_owned());
        consolidation_policy.get_or_insert_default();
        let budgets = budgets.get_or_insert_with(|| vec![default_budget()]);
        for budget in budgets.iter_mut().filter(|budget| budget.nodes.is_empty()) {
            budget.nodes = BUDGET_NODES.to_owned();
        }
    }
}

impl NodeClaimTemplateSpec {
    /// The life time of the template's nodes; none for `Never`.
    pub fn expire_after(&self) -> Option<Duration> {
        duration(self.expire_after.as_deref().unwrap_or(EXPIRE_AFTER))
    }

    /// How long a drain may take; none for as long as it needs.
    pub fn termination_grace_period(&self) -> Option<Duration> {
        self.termination_grace_period.as_deref().and_then(duration)
    }
}

impl NodeClaimSpec {
    /// The life time of the claim's node; none for `Never`.
    pub fn expire_after(&self) -> Option<Duration> {
        duration(self.expire_after.as_deref().unwrap_or(EXPIRE_AFTER))
    }

    /// How long a drain may take; none for as long as it needs.
    pub fn termination_grace_period(&self) -> Option<Duration> {
        self.termination_grace_period.as_deref().and_then(duration)
    }
}

impl Disruption {
    /// How long a node must be quiet before it is considered; none for `Never`.
    pub fn consolidate_after(&self) -> Option<Duration> {
        duration(self.consolidate_after.as_deref().unwrap_or(CONSOLIDATE_AFTER))
    }

    /// Which nodes consolidation may take.
    pub fn consolidation_policy(&self) -> ConsolidationPolicy {
        self.consolidation_policy.unwrap_or_default()
    }

    /// The budgets; the default one where none are stated, which is not the same as stating none.
    pub fn budgets(&self) -> Cow<'_, [Budget]> {
        match &self.budgets {
            Some(budgets) => Cow::Borrowed(budgets),
            None => Cow::Owned(vec![default_budget()]),
        }
    }
}

fn default_budget() -> Budget {
    Budget { nodes: BUDGET_NODES.to_owned(), ..Budget::default() }
}

/// A duration that the schema accepted. One that is too long to be read counts as `Never`, so that
/// nothing is disrupted because of it.
fn duration(text: &str) -> Option<Duration> {
    if text == NEVER {
        return None;
    }
    GoDuration::parse(text).ok().map(|duration| duration.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_of_auto_mode_lives_two_weeks_and_drains_a_day() {
        let bare = json!({"spec": {"template": {"spec": {
            "nodeClassRef": {"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"},
            "requirements": []}}}});
        let mut value = bare.clone();
        apply("NodePool", &mut value);
        let template = &value["spec"]["template"]["spec"];
        assert_eq!(template["expireAfter"], "336h");
        assert_eq!(template["terminationGracePeriod"], "24h0m0s");
        let mut said = bare;
        said["spec"]["template"]["spec"]["expireAfter"] = json!("480h");
        apply("NodePool", &mut said);
        assert_eq!(said["spec"]["template"]["spec"]["expireAfter"], "480h");
    }

    #[test]
    fn a_bare_pool_gets_upstreams_defaults() {
        let bare =
            json!({"spec": {"template": {"spec": {"nodeClassRef": {}, "requirements": []}}}});
        let mut value = bare.clone();
        apply("NodePool", &mut value);
        assert_eq!(
            value,
            json!({"spec": {
                "template": {"spec": {"nodeClassRef": {}, "requirements": [], "expireAfter": "720h"}},
                "disruption": {
                    "consolidateAfter": "0s",
                    "consolidationPolicy": "WhenEmptyOrUnderutilized",
                    "budgets": [{"nodes": "10%"}]
                }
            }})
        );
        let mut typed: NodePool = serde_json::from_value(bare).unwrap();
        typed.apply_defaults();
        assert_eq!(typed, serde_json::from_value(value).unwrap(), "both ways agree");
    }

    #[test]
    fn what_is_set_stays() {
        let mut value = json!({"spec": {
            "disruption": {"consolidateAfter": "Never", "budgets": [{"reasons": ["Empty"]}, {"nodes": "0"}]},
            "template": {"spec": {"expireAfter": "1h"}}
        }, "status": {"resources": {"cpu": "1"}}});
        apply("NodePool", &mut value);
        let disruption = &value["spec"]["disruption"];
        assert_eq!(disruption["consolidateAfter"], "Never");
        assert_eq!(
            disruption["budgets"],
            json!([{"reasons": ["Empty"], "nodes": "10%"}, {"nodes": "0"}])
        );
        assert_eq!(value["spec"]["template"]["spec"]["expireAfter"], "1h");
        assert_eq!(value["status"]["nodes"], 0);
    }

    #[test]
    fn no_budgets_is_not_the_default_budget() {
        let mut value = json!({"spec": {"disruption": {"budgets": []}}});
        apply("NodePool", &mut value);
        assert_eq!(value["spec"]["disruption"]["budgets"], json!([]));
    }

    #[test]
    fn durations_read_with_their_defaults() {
        let hours = |count: u64| Some(Duration::from_secs(count * 3600));
        let mut spec = NodeClaimSpec::default();
        assert_eq!(spec.expire_after(), hours(720));
        assert_eq!(spec.termination_grace_period(), None);
        spec.expire_after = Some("Never".to_owned());
        spec.termination_grace_period = Some("1h".to_owned());
        assert_eq!((spec.expire_after(), spec.termination_grace_period()), (None, hours(1)));
        spec.expire_after = Some("9999999999999h".to_owned());
        assert_eq!(spec.expire_after(), None);
        let disruption = Disruption::default();
        assert_eq!(disruption.consolidate_after(), Some(Duration::ZERO));
        assert_eq!(disruption.budgets()[0].nodes, "10%");
        let none = Disruption { budgets: Some(Vec::new()), ..Disruption::default() };
        assert!(none.budgets().is_empty());
    }

    #[test]
    fn metadata_options_default_as_a_whole_and_one_by_one() {
        let all = json!({"httpEndpoint": "enabled", "httpProtocolIPv6": "disabled", "httpPutResponseHopLimit": 1, "httpTokens": "required"});
        let mut value = json!({"spec": {}});
        apply("EC2NodeClass", &mut value);
        assert_eq!(value["spec"]["metadataOptions"], all);
        let mut value = json!({"spec": {"metadataOptions": {"httpTokens": "optional"}}});
        apply("EC2NodeClass", &mut value);
        assert_eq!(value["spec"]["metadataOptions"]["httpTokens"], "optional");
        assert_eq!(value["spec"]["metadataOptions"]["httpPutResponseHopLimit"], 1);
    }

    #[test]
    fn a_claim_expires_and_a_reservation_is_of_the_default_type() {
        let mut claim = json!({"spec": {}});
        apply("NodeClaim", &mut claim);
        assert_eq!(claim["spec"]["expireAfter"], "720h");
        let mut class = json!({"spec": {}, "status": {"capacityReservations": [{"id": "cr-1"}]}});
        apply("EC2NodeClass", &mut class);
        assert_eq!(
            class["status"]["capacityReservations"][0],
            json!({"id": "cr-1", "reservationType": "default", "state": "active"})
        );
    }
}
