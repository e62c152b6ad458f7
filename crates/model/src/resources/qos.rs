//! A pod's quality-of-service class, which decides who is evicted first when a node runs short.
//!
//! Rules: <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::PodSpec;
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
