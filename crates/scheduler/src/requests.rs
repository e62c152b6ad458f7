//! What a pod asks for: containers, init containers, sidecars, pod-level requests and overhead
//! folded into one amount per resource (upstream's `PodRequests`).
//!
//! Amounts are added exactly and rounded up once at the end, as upstream does: cpu to thousandths,
//! everything else to whole units.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use smallvec::SmallVec;
use wharf_model::quantity::Quantity;
use wharf_model::resources::{CPU, EPHEMERAL_STORAGE, MEMORY, PODS, Resources};

/// Cpu that a container without a request counts for when nodes are scored, in thousandths.
pub(crate) const DEFAULT_CPU_MILLI: i64 = 100;
/// Memory that a container without a request counts for when nodes are scored, in bytes (200Mi).
pub(crate) const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// The amounts of one pod that filters and scores look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRequests {
    /// What it asks for, `pods` being 1.
    pub requests: Resources,
    /// Cpu and memory with the defaults for scoring: what it adds to its node's non-zero total.
    pub non_zero: NonZero,
    /// What NodeResourcesFit scores the pod with while it is pending: with the defaults, but
    /// without pod-level requests. Upstream's scorer never looks at those of the incoming pod.
    pub scored: Resources,
}

/// Cpu and memory with a default for every container that does not ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonZero {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

impl PodRequests {
    /// Reads a pod's spec and, for a pod that runs, the resources its kubelet actuated.
    pub fn of(pod: &Pod) -> Self {
        let plain = sum(pod, Defaults::NONE, true);
        let defaults = if has_pod_level_requests(pod) {
            Defaults { cpu: !plain.contains(CPU), memory: !plain.contains(MEMORY) }
        } else {
            Defaults::BOTH
        };
        let non_zero = sum(pod, defaults, true);
        let scored = sum(pod, Defaults::BOTH, false);
        let mut requests = plain.into_resources();
        requests.pods = 1;
        Self {
            requests,
            non_zero: NonZero {
                cpu_milli: non_zero.milli(CPU),
                memory_bytes: non_zero.units(MEMORY),
            },
            scored: scored.into_resources(),
        }
    }
}

/// Whether the scheduler keeps account of a resource besides the four core ones: extended
/// resources, huge pages, prefixed native ones and attachable volumes. Others are ignored.
pub fn is_scalar(name: &str) -> bool {
    (name.contains('/') && !name.starts_with("requests."))
        || name.starts_with("hugepages-")
        || name.starts_with("attachable-volumes-")
}

/// Amounts of a node or another list of quantities. Quantities that do not parse count as 0: the
/// API refuses them before.
pub(crate) fn resources(list: &BTreeMap<String, ApiQuantity>) -> Resources {
    Amounts::parse(list).into_resources()
}

#[derive(Clone, Copy)]
struct Defaults {
    cpu: bool,
    memory: bool,
}

impl Defaults {
    const NONE: Self = Self { cpu: false, memory: false };
    const BOTH: Self = Self { cpu: true, memory: true };
}

/// Exact amounts by resource name.
#[derive(Clone, Debug, Default)]
struct Amounts<'a>(SmallVec<[(&'a str, Quantity); 4]>);

impl<'a> Amounts<'a> {
    fn parse(list: &'a BTreeMap<String, ApiQuantity>) -> Self {
        Self(list.iter().map(|(name, text)| (name.as_str(), quantity(text))).collect())
    }

    fn entry(&mut self, name: &'a str) -> &mut Quantity {
        let index = self.0.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.0.push((name, Quantity::ZERO));
            self.0.len() - 1
        });
        &mut self.0[index].1
    }

    fn get(&self, name: &str) -> Option<&Quantity> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, amount)| amount)
    }

    fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn milli(&self, name: &str) -> i64 {
        self.get(name).map_or(0, Quantity::milli_value_ceil)
    }

    fn units(&self, name: &str) -> i64 {
        self.get(name).map_or(0, Quantity::value_ceil)
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let entry = self.entry(name);
            *entry = entry.add(amount);
        }
    }

    fn max(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            if self.get(name).is_none_or(|held| held < amount) {
                *self.entry(name) = *amount;
            }
        }
    }

    fn into_resources(self) -> Resources {
        let mut resources = Resources::default();
        for (name, amount) in &self.0 {
            match *name {
                CPU => resources.cpu_milli = amount.milli_value_ceil(),
                MEMORY | EPHEMERAL_STORAGE | PODS => resources.set(name, amount.value_ceil()),
                _ if is_scalar(name) && !amount.is_zero() => {
                    resources.set(name, amount.value_ceil());
                }
                _ => {}
            }
        }
        resources
    }
}

fn sum(pod: &Pod, defaults: Defaults, pod_level: bool) -> Amounts<'_> {
    let Some(spec) = pod.spec.as_ref() else { return Amounts::default() };
    let status = pod.status.as_ref();
    let resize_infeasible = is_resize_infeasible(pod);
    let statuses = status.and_then(|status| status.container_statuses.as_deref());
    let of =
        |container, statuses| container_amounts(container, statuses, resize_infeasible, defaults);

    let mut total = Amounts::default();
    for container in &spec.containers {
        total.add(&of(container, statuses));
    }
    // An ordinary init container runs beside the sidecars declared before it, so the order counts.
    let mut sidecars = Amounts::default();
    let mut init = Amounts::default();
    let statuses = status.and_then(|status| status.init_container_statuses.as_deref());
    for container in spec.init_containers.iter().flatten() {
        let mut asked = of(container, statuses);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&asked);
            sidecars.add(&asked);
            init.max(&sidecars);
        } else {
            asked.add(&sidecars);
            init.max(&asked);
        }
    }
    total.max(&init);

    if pod_level {
        for (name, text) in spec.resources.iter().flat_map(|list| list.requests.iter().flatten()) {
            if is_pod_level(name) {
                *total.entry(name) = quantity(text);
            }
        }
    }
    if let Some(overhead) = &spec.overhead {
        total.add(&Amounts::parse(overhead));
    }
    total
}

fn container_amounts<'a>(
    container: &'a Container,
    statuses: Option<&'a [ContainerStatus]>,
    resize_infeasible: bool,
    defaults: Defaults,
) -> Amounts<'a> {
    let spec = container.resources.as_ref().and_then(|list| list.requests.as_ref());
    let actuated = statuses
        .and_then(|list| list.iter().find(|status| status.name == container.name))
        .and_then(|status| Some((status, status.resources.as_ref()?)));
    // A resize under way is counted at the larger of what was asked and what is in force, unless
    // the kubelet has already said that it cannot be done.
    let mut amounts = match (spec, actuated) {
        (Some(spec), None) => Amounts::parse(spec),
        (Some(spec), Some(_)) if !resize_infeasible => Amounts::parse(spec),
        _ => Amounts::default(),
    };
    if let Some((status, resources)) = actuated {
        for list in [resources.requests.as_ref(), status.allocated_resources.as_ref()] {
            amounts.max(&list.map(Amounts::parse).unwrap_or_default());
        }
    }
    if defaults.cpu && !amounts.contains(CPU) {
        *amounts.entry(CPU) = Quantity::from_milli(DEFAULT_CPU_MILLI);
    }
    if defaults.memory && !amounts.contains(MEMORY) {
        *amounts.entry(MEMORY) =
            Quantity::from_units(DEFAULT_MEMORY_BYTES, wharf_model::quantity::Format::BinarySi);
    }
    amounts
}

fn is_resize_infeasible(pod: &Pod) -> bool {
    pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| {
        condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible")
    })
}

fn has_pod_level_requests(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref())
        .is_some_and(|list| list.keys().any(|name| is_pod_level(name)))
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, CPU | MEMORY) || name.starts_with("hugepages-")
}

fn quantity(text: &ApiQuantity) -> Quantity {
    Quantity::parse(&text.0).unwrap_or(Quantity::ZERO)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn requests(spec: Value) -> PodRequests {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        PodRequests::of(&serde_json::from_value(pod).unwrap())
    }

    fn container(name: &str, requests: Value) -> Value {
        json!({"name": name, "resources": {"requests": requests}})
    }

    #[test]
    fn init_containers_run_on_top_of_earlier_sidecars() {
        let mut sidecar = container("b", json!({"cpu": "500m"}));
        sidecar["restartPolicy"] = json!("Always");
        let pod = requests(json!({
            "initContainers": [container("a", json!({"cpu": "1"})), sidecar, container("c", json!({"cpu": "2"}))],
            "containers": [container("d", json!({"cpu": "1"}))],
            "overhead": {"cpu": "100m"}
        }));
        assert_eq!(pod.requests.cpu_milli, 2600);
    }

    #[test]
    fn containers_that_do_not_ask_count_a_default_in_scores_only() {
        let pod = requests(json!({"containers": [
            container("a", json!({"cpu": "0"})), container("b", json!({"memory": "1Gi"})),
        ]}));
        assert_eq!((pod.requests.cpu_milli, pod.requests.memory_bytes), (0, 1 << 30));
        let expected = NonZero { cpu_milli: 100, memory_bytes: (1 << 30) + DEFAULT_MEMORY_BYTES };
        assert_eq!(pod.non_zero, expected, "an explicit zero stays zero");
    }

    #[test]
    fn pod_level_requests_replace_the_sum() {
        let pod = requests(json!({
            "resources": {"requests": {"cpu": "500m"}},
            "containers": [container("a", json!({"cpu": "2"}))],
            "overhead": {"cpu": "1m"}
        }));
        assert_eq!(pod.requests.cpu_milli, 501);
        assert_eq!(pod.non_zero.cpu_milli, 501);
        assert_eq!(pod.non_zero.memory_bytes, DEFAULT_MEMORY_BYTES);
        assert_eq!(pod.scored.cpu_milli, 2001, "the scorer of a pending pod does not see them");
    }

    #[test]
    fn amounts_round_up_once_and_unknown_names_are_ignored() {
        let pod = requests(json!({"containers": [
            container("a", json!({"memory": "0.4", "cpu": "100.1m", "example.com/gpu": "1", "storage": "5", "hugepages-2Mi": "2Mi", "example.com/zero": "0"})),
            container("b", json!({"memory": "0.4"})),
        ]}));
        assert_eq!(pod.requests.memory_bytes, 1);
        assert_eq!(pod.requests.cpu_milli, 101);
        let names: Vec<_> = pod.requests.extended.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["example.com/gpu", "hugepages-2Mi"]);
    }

    #[test]
    fn a_resize_counts_the_larger_amount_unless_it_is_infeasible() {
        let pod = |conditions: Value| {
            let pod = json!({
                "metadata": {"name": "p"},
                "spec": {"containers": [container("a", json!({"cpu": "3"}))]},
                "status": {"conditions": conditions, "containerStatuses": [{
                    "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "resources": {"requests": {"cpu": "1"}}, "allocatedResources": {"cpu": "2"}
                }]}
            });
            PodRequests::of(&serde_json::from_value(pod).unwrap()).requests.cpu_milli
        };
        assert_eq!(pod(json!([])), 3000);
        let infeasible =
            json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        assert_eq!(pod(infeasible), 2000);
    }
}
