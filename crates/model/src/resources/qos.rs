//! A pod's quality-of-service class, which decides who is evicted first when a node runs short.
//!
//! Rules: <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::pod::{all_containers, is_pod_level, limits, requests};
use super::{CPU, MEMORY};
use crate::quantity::Quantity;

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QosClass {
    /// Every container has cpu and memory limits, and requests equal to them.
    Guaranteed,
    /// Something is asked for, but not all of that.
    Burstable,
    /// No cpu or memory is asked for or limited.
    BestEffort,
}

type List = BTreeMap<String, ApiQuantity>;
type Sums<'n> = BTreeMap<&'n str, Quantity>;

/// The class of a pod. Only cpu and memory above zero count. Where the pod as a whole has
/// resources, they alone decide.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let mut requested = Sums::new();
    let mut limited = Sums::new();
    let pod_level = spec.resources.as_ref().filter(|resources| {
        let lists = [&resources.requests, &resources.limits];
        let mut names = lists.into_iter().flatten().flat_map(BTreeMap::keys);
        names.any(|name| is_pod_level(name))
    });
    let mut all_limited = true;
    let mut count = |resources| {
        add(&mut requested, requests(resources));
        let found = add(&mut limited, limits(resources));
        all_limited &= found == 2;
    };
    if pod_level.is_some() {
        count(pod_level);
    } else {
        all_containers(spec).for_each(|container| count(container.resources.as_ref()));
    }
    if requested.is_empty() && limited.is_empty() {
        QosClass::BestEffort
    } else if all_limited && requested == limited {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// Priorities from here on are those of pods that a node cannot do without.
const NODE_CRITICAL_PRIORITY: i32 = 2_000_001_000;
/// `cpu.shares` of a core.
const SHARES_PER_CORE: i64 = 1_024;
/// The kernel's smallest `cpu.shares`.
const SHARES_MIN: i64 = 2;

/// A container's `oom_score_adj` on a node with so many bytes of memory: the kernel kills those with
/// the highest scores first.
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-out-of-memory-behavior>
pub fn oom_score_adj(spec: &PodSpec, container: &Container, memory_bytes: i64) -> i32 {
    const GUARANTEED: i32 = -997;
    const BEST_EFFORT: i32 = 1_000;
    if spec.priority.is_some_and(|priority| priority >= NODE_CRITICAL_PRIORITY) {
        return GUARANTEED;
    }
    match qos_class(spec) {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let asked = amount(container, MEMORY, Quantity::value_ceil).unwrap_or(0);
            let part = 1_000_i128 * i128::from(asked) / i128::from(memory_bytes.max(1));
            let score = i32::try_from(1_000 - part).unwrap_or(i32::MIN);
            // Between the two other classes, whatever is asked for.
            score.clamp(1_000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

/// A container's `cpu.shares`: its weight where a node's cores are all busy.
pub fn cpu_shares(container: &Container) -> i64 {
    let limits = limits(container.resources.as_ref());
    let limit = limits.and_then(|limits| limits.get(CPU));
    let limit = limit.and_then(|limit| Quantity::try_from(limit).ok());
    let asked = amount(container, CPU, Quantity::milli_value_ceil);
    // Without a request a limit stands for it.
    let milli = asked.or_else(|| limit.map(|limit| limit.milli_value_ceil())).unwrap_or(0);
    (milli.saturating_mul(SHARES_PER_CORE) / 1_000).max(SHARES_MIN)
}

fn amount(container: &Container, name: &str, unit: impl Fn(&Quantity) -> i64) -> Option<i64> {
    let requests = requests(container.resources.as_ref())?;
    Some(unit(&Quantity::try_from(requests.get(name)?).ok()?))
}

/// Adds what counts of a list and says how many resources that were.
fn add<'n>(sums: &mut Sums<'n>, list: Option<&'n List>) -> usize {
    let mut found = 0;
    for (name, quantity) in list.into_iter().flatten() {
        let Ok(quantity) = Quantity::try_from(quantity) else {
            continue;
        };
        if matches!(name.as_str(), CPU | MEMORY) && quantity > Quantity::ZERO {
            let sum = sums.entry(name).or_default();
            *sum = sum.add(&quantity);
            found += 1;
        }
    }
    found
}

impl QosClass {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_the_kernel_is_told() {
        let cases: [(Value, Value, i32, i64); 7] = [
            // The labs' numbers on a machine with 15.4 GiB.
            (
                json!({"requests": {"memory": "100Mi"}, "limits": {"memory": "200Mi"}}),
                json!(null),
                994,
                2,
            ),
            (
                json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "500m"}}),
                json!(null),
                999,
                204,
            ),
            (
                json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                json!(null),
                -997,
                512,
            ),
            (json!({"requests": {"memory": "1000Gi"}}), json!(null), 3, 2),
            (json!({}), json!(null), 1_000, 2),
            (json!({"limits": {"cpu": "2"}}), json!(null), 999, 2_048),
            (json!({}), json!(2_000_001_000), -997, 2),
        ];
        for (resources, priority, score, shares) in cases {
            let spec: PodSpec = serde_json::from_value(
                json!({"priority": priority, "containers": [{"name": "c", "resources": resources}]}),
            )
            .expect("a spec");
            let container = &spec.containers[0];
            assert_eq!(oom_score_adj(&spec, container, 16_535_000_000), score, "{resources}");
            assert_eq!(cpu_shares(container), shares, "{resources}");
        }
    }
}
