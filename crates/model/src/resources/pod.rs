//! A pod's requests and limits: the one place in Wharf that computes them.
//!
//! Rules: <https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers>,
//! <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>, pod-level resources
//! (KEP-2837), pod overhead (KEP-688) and in-place resize (KEP-1287).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{CPU, MEMORY, Resources, is_huge_pages};

/// What a container without a cpu request counts as, in scores alone.
const DEFAULT_CPU_MILLI: i64 = 100;
/// What a container without a memory request counts as, in scores alone: 200Mi.
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

type List = BTreeMap<String, ApiQuantity>;

/// Whether requests on the pod as a whole count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodLevel {
    /// They replace the sum of the containers.
    Counted,
    /// They are left out, as kube-scheduler's Fit scorer does for the incoming pod.
    Ignored,
}

/// What a pod asks for: the larger of all containers running together and the most any moment of
/// the start takes, replaced by pod-level requests, plus overhead.
///
/// `pods` is 0: callers add the slot the pod takes.
pub fn pod_requests(spec: &PodSpec) -> Resources {
    let mut total =
        containers_total(spec, |container| Resources::of(requests(container.resources.as_ref())));
    replace_by_pod_level(&mut total, requests(spec.resources.as_ref()));
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

/// What a pod is limited to, by the rules of [`pod_requests`]. Overhead raises only the limits
/// there are.
pub fn pod_limits(spec: &PodSpec) -> Resources {
    let mut total =
        containers_total(spec, |container| Resources::of(limits(container.resources.as_ref())));
    replace_by_pod_level(&mut total, limits(spec.resources.as_ref()));
    let mut overhead = Resources::of(spec.overhead.as_ref());
    let unlimited: Vec<String> = overhead
        .iter()
        .map(|(name, _)| name.to_owned())
        .filter(|name| !total.contains(name))
        .collect();
    unlimited.iter().for_each(|name| overhead.set(name, 0));
    overhead.extended.retain(|(name, _)| total.contains(name));
    total.add(&overhead);
    total
}

/// What a pod counts as when nodes are scored: like [`pod_requests`], but a container which names
/// no cpu or no memory counts as a little of it, so that pods without requests spread too. An
/// explicit zero stays zero. With pod-level requests the default stands in for the whole pod, and
/// only where nothing names the resource.
pub fn non_zero_requests(spec: &PodSpec, pod_level: PodLevel) -> Resources {
    let pod_requests = requests(spec.resources.as_ref())
        .filter(|list| pod_level == PodLevel::Counted && list.keys().any(|n| is_pod_level(n)));
    let mut total = containers_total(spec, |container| {
        let list = requests(container.resources.as_ref());
        let mut asked = Resources::of(list);
        if pod_requests.is_none() {
            default_missing(&mut asked, |name| names(list, name));
        }
        asked
    });
    if pod_requests.is_some() {
        replace_by_pod_level(&mut total, pod_requests);
        default_missing(&mut total, |name| {
            names(pod_requests, name)
                || names(spec.overhead.as_ref(), name)
                || all_containers(spec)
                    .any(|container| names(requests(container.resources.as_ref()), name))
        });
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

/// What a pod on a node takes. While a resize is under way, each container counts as the most of
/// what it asks for, what it has been allotted and what it has; an infeasible resize does not
/// count what it asks for.
pub fn assigned_pod_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let Some(status) = &pod.status else {
        return pod_requests(spec);
    };
    let infeasible = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible")
    });
    let statuses = || {
        let all = [&status.container_statuses, &status.init_container_statuses];
        all.into_iter().flatten().flatten()
    };
    let mut total = containers_total(spec, |container| {
        let asked = Resources::of(requests(container.resources.as_ref()));
        let counts = !is_ordinary_init(spec, container);
        let found = statuses().find(|status| counts && status.name == container.name);
        let Some(mut actual) = found.and_then(actual_requests) else {
            return asked;
        };
        if !infeasible {
            actual.max(&asked);
        }
        actual
    });
    let mut pod_level = Resources::of(requests(spec.resources.as_ref()));
    let actual = [requests(status.resources.as_ref()), status.allocated_resources.as_ref()];
    if infeasible && actual.iter().any(Option::is_some) {
        pod_level = Resources::default();
    }
    for list in actual {
        pod_level.max(&Resources::of(list));
    }
    for name in requests(spec.resources.as_ref()).into_iter().flat_map(BTreeMap::keys) {
        if is_pod_level(name) {
            total.set(name, pod_level.get(name));
        }
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

/// Copies limits into the requests that are missing, as the API server does to every pod: first
/// for each container, then for the pod as a whole. A pod-level request not given becomes what the
/// containers ask for in sum, or else its limit.
pub fn default_requests_from_limits(spec: &mut PodSpec) {
    let containers = spec.containers.iter_mut();
    for container in containers.chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(resources) = &mut container.resources {
            copy_missing(resources, |_| true);
        }
    }
    let total =
        containers_total(spec, |container| Resources::of(requests(container.resources.as_ref())));
    let named: Vec<String> = all_containers(spec)
        .filter_map(|container| requests(container.resources.as_ref()))
        .flat_map(|list| list.keys().cloned())
        .collect();
    let Some(resources) = &mut spec.resources else {
        return;
    };
    if resources.limits.as_ref().is_none_or(BTreeMap::is_empty) {
        return;
    }
    let pod_requests = resources.requests.get_or_insert_default();
    // Huge pages cannot be overcommitted: their request is always their limit.
    for name in named.iter().filter(|name| matches!(name.as_str(), CPU | MEMORY)) {
        pod_requests
            .entry(name.clone())
            .or_insert_with(|| ApiQuantity(super::amount_text(name, total.get(name))));
    }
    copy_missing(resources, is_pod_level);
}

fn copy_missing(resources: &mut ResourceRequirements, wanted: fn(&str) -> bool) {
    let Some(limits) = resources.limits.as_ref().filter(|limits| !limits.is_empty()) else {
        return;
    };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits.iter().filter(|(name, _)| wanted(name)) {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// The most the containers take at any time, `of` giving what each takes. An ordinary init
/// container runs on top of the sidecars declared before it, and alone otherwise.
fn containers_total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut taken = of(container);
        if is_sidecar(container) {
            sidecars.add(&taken);
            starting.max(&sidecars);
        } else {
            taken.add(&sidecars);
            starting.max(&taken);
        }
    }
    running.add(&sidecars);
    running.max(&starting);
    running
}

fn replace_by_pod_level(total: &mut Resources, pod_level: Option<&List>) {
    let amounts = Resources::of(pod_level);
    for name in pod_level.into_iter().flat_map(BTreeMap::keys) {
        if is_pod_level(name) {
            total.set(name, amounts.get(name));
        }
    }
}

fn default_missing(resources: &mut Resources, is_named: impl Fn(&str) -> bool) {
    for (name, amount) in [(CPU, DEFAULT_CPU_MILLI), (MEMORY, DEFAULT_MEMORY_BYTES)] {
        if !is_named(name) {
            resources.set(name, amount);
        }
    }
}

fn actual_requests(status: &ContainerStatus) -> Option<Resources> {
    let running = requests(status.resources.as_ref());
    let allocated = status.allocated_resources.as_ref();
    if running.is_none() && allocated.is_none() {
        return None;
    }
    let mut actual = Resources::of(running);
    actual.max(&Resources::of(allocated));
    Some(actual)
}

/// Whether a resource may be given for the pod as a whole.
pub(super) fn is_pod_level(name: &str) -> bool {
    matches!(name, CPU | MEMORY) || is_huge_pages(name)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn is_ordinary_init(spec: &PodSpec, container: &Container) -> bool {
    let mut init = spec.init_containers.iter().flatten();
    init.any(|other| std::ptr::eq(other, container)) && !is_sidecar(container)
}

pub(super) fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

pub(super) fn requests(resources: Option<&ResourceRequirements>) -> Option<&List> {
    resources?.requests.as_ref()
}

pub(super) fn limits(resources: Option<&ResourceRequirements>) -> Option<&List> {
    resources?.limits.as_ref()
}

fn names(list: Option<&List>, name: &str) -> bool {
    list.is_some_and(|list| list.contains_key(name))
}

impl Resources {
    fn of(list: Option<&List>) -> Resources {
        list.map(Resources::from_map).unwrap_or_default()
    }
}
