//! Shortages of the simulated EC2: which launches fail with insufficient capacity, and when.

use wharf_model::time::Time;
use wharf_ports::cloud::LaunchOverride;

/// A shortage. A field that is `None` holds for every value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapacityRule {
    /// The type that is short.
    pub instance_type: Option<String>,
    /// The zone in which it is short.
    pub zone: Option<String>,
    /// The capacity type that is short (`spot`).
    pub capacity_type: Option<String>,
    /// Since when.
    pub from: Option<Time>,
    /// Until when; capacity is back at this very time.
    pub until: Option<Time>,
}

impl CapacityRule {
    /// Whether a launch of `wanted` at `now` falls under this shortage.
    pub fn applies(&self, wanted: &LaunchOverride, capacity_type: &str, now: Time) -> bool {
        self.is_short(&wanted.instance_type, &wanted.zone, capacity_type, now)
    }

    /// The same for a type in a zone. Of micro-VMs the size is the type, and `fargate` the capacity
    /// type.
    pub fn is_short(&self, of_type: &str, zone: &str, capacity_type: &str, now: Time) -> bool {
        let is = |rule: &Option<String>, value: &str| rule.as_deref().is_none_or(|r| r == value);
        is(&self.instance_type, of_type)
            && is(&self.zone, zone)
            && is(&self.capacity_type, capacity_type)
            && self.from.is_none_or(|from| from <= now)
            && self.until.is_none_or(|until| now < until)
    }
}
