//! What a VerticalPodAutoscaler's policy says of each container, and the limits it sets.

use std::time::Duration;

use compact_str::CompactString;
use wharf_model::quantity::{Format, Quantity};

use super::{Amount, Amounts, Config, Recommendation, Recommended};

/// The policies of one autoscaler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// One per container name; `*` is for the rest.
    pub containers: Vec<Policy>,
    /// Containers whose cpu is rounded up to whole cores.
    pub integer_cpu: Vec<CompactString>,
}

/// The policy of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// The container, or `*`.
    pub container: CompactString,
    /// Whether it is left alone (`mode: Off`).
    pub off: bool,
    /// The least it is given.
    pub min_allowed: Limits,
    /// The most it is given.
    pub max_allowed: Limits,
    /// Which resources are recommended: cpu, memory; `None` is both.
    pub controlled: Option<(bool, bool)>,
    /// Its own memory interval.
    pub memory_interval: Option<Duration>,
    /// Its own multiple after a kill for memory.
    pub oom_bump_ratio: Option<f64>,
    /// Its own least addition after a kill for memory, in bytes.
    pub oom_bump_least: Option<f64>,
}

impl Policies {
    /// The policy of a container: its own, or that of the rest.
    pub fn of(&self, container: &str) -> Option<&Policy> {
        let named = |name: &str| self.containers.iter().find(|policy| policy.container == name);
        named(container).or_else(|| named("*"))
    }

    pub(super) fn is_off(&self, container: &str) -> bool {
        self.of(container).is_some_and(|policy| policy.off)
    }

    /// Only the resources that the policy controls.
    pub(super) fn control(&self, container: &str, amounts: Amounts) -> Recommended {
        let (cpu, memory) =
            self.of(container).and_then(|policy| policy.controlled).unwrap_or((true, true));
        Recommended {
            cpu: cpu.then(|| Quantity::from_milli(amounts.cpu)),
            memory: memory.then(|| Quantity::from_units(amounts.memory, Format::BinarySi)),
        }
    }

    /// Upstream's post-processors: whole cores, then the limits.
    pub(super) fn process(&self, recommendation: &mut Recommendation, config: &Config) {
        let container = &recommendation.container;
        if config.integer_cpu && self.integer_cpu.contains(container) {
            for amounts in [
                &mut recommendation.target,
                &mut recommendation.lower,
                &mut recommendation.upper,
                &mut recommendation.uncapped,
            ] {
                amounts.cpu = amounts.cpu.map(|cpu| cpu.round_up(0));
            }
        }
        let capping = Capping::of(self.of(container), config.max_allowed);
        for amounts in
            [&mut recommendation.target, &mut recommendation.lower, &mut recommendation.upper]
        {
            capping.apply(amounts);
        }
    }
}

/// Limits of both resources. Zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of cpu.
    pub cpu: Option<Quantity>,
    /// Of memory.
    pub memory: Option<Quantity>,
}

/// The limits that hold for one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capping {
    least: Limits,
    most: Limits,
}

impl Capping {
    /// Those of a policy; `most` fills in what it leaves open.
    pub fn of(policy: Option<&Policy>, most: Limits) -> Self {
        let own = policy.map(|policy| policy.max_allowed).unwrap_or_default();
        let set = |limit: Option<Quantity>| limit.filter(|limit| !limit.is_zero());
        Self {
            least: policy.map(|policy| policy.min_allowed).unwrap_or_default(),
            most: Limits {
                cpu: set(own.cpu).or(most.cpu),
                memory: set(own.memory).or(most.memory),
            },
        }
    }

    /// Not below the least, then not above the most.
    pub fn apply(&self, amounts: &mut Recommended) {
        let cap = |amount: Quantity, least: Option<Quantity>, most: Option<Quantity>| {
            let raised = least.filter(|least| !least.is_zero() && amount < *least);
            let amount = raised.unwrap_or(amount);
            most.filter(|most| !most.is_zero() && amount > *most).unwrap_or(amount)
        };
        amounts.cpu = amounts.cpu.map(|cpu| cap(cpu, self.least.cpu, self.most.cpu));
        amounts.memory =
            amounts.memory.map(|memory| cap(memory, self.least.memory, self.most.memory));
    }
}

/// The next multiple.
pub(super) fn round_up(amount: Amount, to: Amount) -> Amount {
    if to <= 1 {
        return amount;
    }
    match amount % to {
        0 => amount,
        over => amount.saturating_add(to - over),
    }
}
