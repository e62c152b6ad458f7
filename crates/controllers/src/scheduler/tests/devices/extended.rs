//! Pods that get devices for an extended resource that a class stands for.

use super::*;

const GPU: &str = "example.com/gpu";

impl Lab {
    fn with_named_devices(count: usize) -> Self {
        let mut lab = Self::with_devices(count);
        let class: DeviceClass = serde_json::from_value(json!({
            "metadata": {"name": "gpu", "uid": "gpu"}, "spec": {"extendedResourceName": GPU}
        }))
        .unwrap();
        lab.put(Box::new(class));
        lab
    }

    fn claims(&self) -> Vec<ResourceClaim> {
        self.view.list::<ResourceClaim>().cloned().collect()
    }
}

#[test]
fn a_claim_is_made_and_the_pod_says_so_before_it_is_bound() {
    let mut lab = Lab::with_named_devices(2);
    lab.pod("p", json!({"cpu": "1", GPU: "2"}), json!({}));
    lab.settle();
    assert_eq!(lab.node_of("p"), Some("a"));
    let claims = lab.claims();
    assert_eq!(claims.len(), 1);
    let name = claims[0].metadata.name.clone().unwrap();
    assert!(name.starts_with("p-extended-resources-"));
    assert_eq!(lab.stands(&name), (texts(&["g0", "g1"]), texts(&["p"])));
    assert_eq!(claims[0].metadata.finalizers, Some(texts(&[FINALIZER])));
    let says = lab.status("p").extended_resource_claim_status.unwrap();
    assert_eq!(
        serde_json::to_value(says).unwrap(),
        json!({"resourceClaimName": name, "requestMappings": [{"containerName": "c",
            "requestName": "container-0-request-1", "resourceName": GPU}]})
    );
    let told = lab.scheduler.metrics().to_text();
    assert!(told.contains("scheduler_resourceclaim_creates_total{status=\"success\"} 1\n"));
    lab.pod("q", json!({"cpu": "1", GPU: "1"}), json!({}));
    lab.settle();
    assert!(lab.message("q").unwrap().starts_with(
        "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, "
    ));
    lab.check_state();
}

#[test]
fn a_pod_that_goes_away_leaves_nothing_set_aside() {
    let mut lab = Lab::with_named_devices(1);
    lab.holds_claims = true;
    lab.pod("p", json!({"cpu": "1", GPU: "1"}), json!({}));
    lab.settle();
    assert_eq!(lab.held.len(), 1, "the claim is being made");
    lab.remove(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "p"));
    lab.holds_claims = false;
    lab.pod("q", json!({"cpu": "1", GPU: "1"}), json!({}));
    lab.wait(Duration::from_secs(30));
    assert_eq!(lab.node_of("q"), Some("a"), "a claim without devices takes none");
    lab.check_state();
}

#[test]
fn a_claim_of_an_earlier_try_is_deleted() {
    let mut lab = Lab::with_named_devices(1);
    lab.holds_claims = true;
    lab.pod("p", json!({"cpu": "1", GPU: "1"}), json!({}));
    lab.settle();
    let write = lab.held.remove(0);
    lab.hear(&write, Err(StatusReason::Timeout));
    assert_eq!(
        lab.message("p").as_deref(),
        Some(
            "running PreBind plugin \"DynamicResources\": create claim for extended resources: it is not known whether it was made"
        )
    );
    // It was.
    lab.holds_claims = false;
    assert!(lab.execute(&write).is_ok());
    lab.wait(Duration::from_secs(60));
    assert!(lab.told("FailedScheduling").iter().any(|text| text.starts_with(
        "0/1 nodes are available: 1 cannot schedule extended resource claim. deletion of ResourceClaim completed, "
    )));
    assert_eq!(lab.node_of("p"), Some("a"));
    assert_eq!(lab.claims().len(), 1);
    lab.check_state();
}

#[test]
fn a_refused_claim_is_asked_for_again() {
    let mut lab = Lab::with_named_devices(1);
    lab.holds_claims = true;
    lab.pod("p", json!({"cpu": "1", GPU: "1"}), json!({}));
    lab.settle();
    let write = lab.held.remove(0);
    lab.holds_claims = false;
    lab.hear(&write, Err(StatusReason::Forbidden));
    lab.wait(Duration::from_secs(60));
    assert_eq!(lab.node_of("p"), Some("a"));
    assert_eq!(lab.claims().len(), 1);
    lab.check_state();
}
