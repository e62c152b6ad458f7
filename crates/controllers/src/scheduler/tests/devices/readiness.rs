//! Devices that are made ready once they have been allocated, while the pod waits for that.

use super::*;

impl Lab {
    /// A node with devices that somebody has to attach.
    fn with_attachable(count: usize) -> Self {
        let mut lab = Self::with_devices(0);
        let devices: Vec<_> = (0..count)
            .map(|at| {
                json!({"name": format!("g{at}"), "bindsToNode": true,
                    "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]})
            })
            .collect();
        let slice: ResourceSlice = serde_json::from_value(json!({
            "metadata": {"name": "a", "uid": "a"},
            "spec": {"driver": "d", "allNodes": true, "devices": devices,
                "pool": {"name": "a", "generation": 1, "resourceSliceCount": 1}}
        }))
        .unwrap();
        lab.put(Box::new(slice));
        lab.new_device_claim("c");
        lab.pod_with_device("p", "c");
        lab.settle();
        lab
    }

    /// What a driver says of a device.
    fn say(&mut self, device: &str, condition: &str) {
        let mut claim = self.device_claim("c");
        claim.status.get_or_insert_default().devices = serde_json::from_value(json!([
            {"driver": "d", "pool": "a", "device": device, "conditions": [{"type": condition,
                "status": "True", "reason": "Why", "message": "so",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}]))
        .unwrap();
        self.put(Box::new(claim));
        self.settle();
    }

    /// How often pods' waits for the driver's devices ended so, and how long these took together.
    fn waits(&self, status: &str) -> Option<(u64, u64)> {
        let text = self.scheduler.metrics().to_text();
        let labels = format!("{{driver=\"d\",profile=\"default-scheduler\",status=\"{status}\"}} ");
        let number = |name: &str| -> Option<u64> {
            let name = format!("scheduler_dra_bindingconditions_{name}{labels}");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
        };
        Some((number("allocations_total")?, number("wait_duration_seconds_sum")?))
    }

    fn allocated_at(&self) -> Option<Time> {
        let allocation = self.device_claim("c").status?.allocation?;
        allocation.allocation_timestamp.map(|time| Time::from(time.0))
    }
}

const PENDING: &str = "waiting for binding conditions for device on node a";

#[test]
fn a_pod_waits_until_its_device_is_ready() {
    let mut lab = Lab::with_attachable(1);
    assert_eq!(lab.node_of("p"), None);
    assert_eq!(lab.stands("c"), (texts(&["g0"]), texts(&["p"])), "but it is allocated");
    assert_eq!(lab.allocated_at(), Some(lab.now));
    assert_eq!(lab.status("p").nominated_node_name.as_deref(), Some("a"));
    assert_eq!(lab.told("BindingConditionsPending"), [PENDING]);
    lab.wait(Duration::from_secs(599));
    assert_eq!(lab.node_of("p"), None);
    lab.say("g0", "Attached");
    assert_eq!(lab.node_of("p"), Some("a"));
    assert_eq!(lab.told("BindingConditionsPending"), [PENDING], "told once");
    assert_eq!(lab.waits("success"), Some((1, 599)));
    assert_eq!((lab.waits("failure"), lab.waits("timeout")), (None, None));
    lab.check_state();
}

#[test]
fn a_device_that_fails_makes_place_for_another() {
    let mut lab = Lab::with_attachable(2);
    lab.say("g0", "Broken");
    assert_eq!(
        lab.message("p").as_deref(),
        Some(
            "running PreBind plugin \"DynamicResources\": claim c binding failed: reason=Why, message=\"so\""
        )
    );
    assert_eq!(lab.waits("failure"), Some((1, 0)));
    lab.wait(Duration::from_secs(2));
    assert!(lab.told("FailedScheduling").iter().any(|text| text.starts_with(
        "0/1 nodes are available: 1 resourceclaim not available on the node. deallocation of ResourceClaim completed, "
    )));
    // As upstream, the same device is tried again if nobody takes it away.
    lab.wait(Duration::from_secs(30));
    assert_eq!(lab.stands("c").0, texts(&["g0"]));
    assert!(lab.device_claim("c").status.is_some_and(|status| status.devices.is_none()));
    lab.say("g0", "Attached");
    assert_eq!(lab.node_of("p"), Some("a"));
    lab.check_state();
}

#[test]
fn a_device_that_takes_too_long_is_given_up() {
    let mut lab = Lab::with_attachable(1);
    let first = lab.allocated_at();
    lab.wait(Duration::from_secs(600));
    assert_eq!(
        lab.message("p").as_deref(),
        Some("running PreBind plugin \"DynamicResources\": device binding timeout")
    );
    assert_eq!(lab.waits("timeout"), Some((1, 600)));
    lab.wait(Duration::from_secs(60));
    assert!(lab.told("FailedScheduling").iter().any(|text| text.starts_with(
        "0/1 nodes are available: 1 resourceclaim not available on the node. deallocation of ResourceClaim completed, "
    )));
    assert!(lab.allocated_at() > first, "allocated anew");
    lab.say("g0", "Attached");
    assert_eq!(lab.node_of("p"), Some("a"));
    lab.check_state();
}

#[test]
fn the_time_counts_from_when_the_claim_was_allocated() {
    let mut lab = Lab::with_attachable(1);
    lab.wait(Duration::from_secs(400));
    lab.pod_with_device("q", "c");
    lab.wait(Duration::from_secs(199));
    assert_eq!(lab.told("BindingConditionsPending"), [PENDING, PENDING]);
    assert!(lab.message("q").is_none());
    lab.wait(Duration::from_secs(1));
    let late = "running PreBind plugin \"DynamicResources\": device binding timeout";
    assert_eq!(lab.message("p").as_deref(), Some(late));
    assert_eq!(lab.message("q").as_deref(), Some(late));
    lab.check_state();
}
