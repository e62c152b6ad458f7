//! A pod's requests and limits: the one place in Wharf that computes them.
//!
//! Rules: <https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers>,
//! <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>, pod-level resources
//! (KEP-2837), pod overhead (KEP-688) and in-place resize (KEP-1287).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::amounts::Amounts;
use super::{CPU, List, MEMORY, Resources, is_huge_pages};
use crate::pod::is_sidecar;
use crate::quantity::{Format, Quantity};

/// What a container without a cpu request counts as, in scores alone.
const DEFAULT_CPU_MILLI: i64 = 100;
/// What a container without a memory request counts as, in scores alone: 200Mi.
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Whether requests on the pod as a whole count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodLevel {
    /// They replace the sum of the containers.
    Counted,
    /// They are left out, as kube-scheduler's Fit scorer does for the incoming pod.
    Ignored,
}

/// What a pod asks for before it runs: the larger of all containers running together and the most
/// any moment of the start takes, replaced by pod-level requests, plus overhead.
///
/// `pods` is 0: callers add the slot the pod takes.
pub fn pod_requests(spec: &PodSpec) -> Resources {
    Asking::before_it_runs(spec).total(PodLevel::Counted, Defaults::NONE).into_resources()
}

/// What a pod on a node takes, by the rules of [`pod_requests`]. While a resize is under way, each
/// container counts as the most of what it asks for, what it has been allotted and what it has; an
/// infeasible resize does not count what it asks for. A pod which does not run yet takes what it
/// asks for.
pub fn assigned_pod_requests(pod: &Pod) -> Resources {
    let Some(asking) = Asking::of(pod) else {
        return Resources::default();
    };
    asking.total(PodLevel::Counted, Defaults::NONE).into_resources()
}

/// What a pod counts as when nodes are scored: like [`assigned_pod_requests`], but a container
/// which names no cpu or no memory counts as a little of it, so that pods without requests spread
/// too. An explicit zero stays zero. With pod-level requests a default is used only for a resource
/// which nothing in the pod names.
pub fn non_zero_requests(pod: &Pod, pod_level: PodLevel) -> Resources {
    let Some(asking) = Asking::of(pod) else {
        return Resources::default();
    };
    let defaults = if pod_level == PodLevel::Counted && asking.has_pod_level() {
        let plain = asking.total(pod_level, Defaults::NONE);
        Defaults { cpu: !plain.contains(CPU), memory: !plain.contains(MEMORY) }
    } else {
        Defaults::BOTH
    };
    asking.total(pod_level, defaults).into_resources()
}

/// What a pod is limited to, by the rules of [`pod_requests`]. Overhead raises only the limits
/// there are.
pub fn pod_limits(spec: &PodSpec) -> Resources {
    let mut total =
        containers_total(spec, |container, _| Amounts::of(limits(container.resources.as_ref())));
    replace_by_pod_level(&mut total, limits(spec.resources.as_ref()));
    for (name, overhead) in Amounts::of(spec.overhead.as_ref()).iter() {
        if let Some(limit) = total.get(name) {
            total.set(name, limit.add(&overhead));
        }
    }
    total.into_resources()
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
    let asked = asked_by_containers(spec);
    let Some(resources) = &mut spec.resources else {
        return;
    };
    if resources.limits.as_ref().is_none_or(BTreeMap::is_empty) {
        return;
    }
    let pod_requests = resources.requests.get_or_insert_default();
    for (name, amount) in asked {
        pod_requests.entry(name).or_insert(amount);
    }
    copy_missing(resources, is_pod_level);
}

/// What the containers ask for in sum, of what may be defaulted for the pod: huge pages cannot be
/// overcommitted, their request is always their limit.
fn asked_by_containers(spec: &PodSpec) -> Vec<(String, ApiQuantity)> {
    containers_total(spec, |container, _| Amounts::of(requests(container.resources.as_ref())))
        .iter()
        .filter(|(name, _)| matches!(*name, CPU | MEMORY))
        .map(|(name, amount)| (name.to_owned(), amount.to_api()))
        .collect()
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

/// What is known of what a pod asks for.
struct Asking<'a> {
    spec: &'a PodSpec,
    /// What its kubelet says, for a pod which runs.
    status: Option<&'a PodStatus>,
    /// Whether the kubelet has said that the resize asked for cannot be done.
    infeasible: bool,
}

/// For which resources a container that does not name them counts a little.
#[derive(Clone, Copy)]
struct Defaults {
    cpu: bool,
    memory: bool,
}

impl Defaults {
    const NONE: Self = Self { cpu: false, memory: false };
    const BOTH: Self = Self { cpu: true, memory: true };
}

impl<'a> Asking<'a> {
    fn before_it_runs(spec: &'a PodSpec) -> Self {
        Self { spec, status: None, infeasible: false }
    }

    fn of(pod: &'a Pod) -> Option<Self> {
        let status = pod.status.as_ref();
        let mut conditions = status.into_iter().flat_map(|s| s.conditions.iter().flatten());
        let infeasible = conditions.any(|condition| {
            condition.type_ == "PodResizePending"
                && condition.reason.as_deref() == Some("Infeasible")
        });
        Some(Self { spec: pod.spec.as_ref()?, status, infeasible })
    }

    fn has_pod_level(&self) -> bool {
        let list = requests(self.spec.resources.as_ref());
        list.is_some_and(|list| list.keys().any(|name| is_pod_level(name)))
    }

    fn total(&self, pod_level: PodLevel, defaults: Defaults) -> Amounts<'a> {
        let mut total = containers_total(self.spec, |container, role| {
            self.container(container, role, defaults)
        });
        if pod_level == PodLevel::Counted {
            self.count_pod_level(&mut total);
        }
        total.add(&Amounts::of(self.spec.overhead.as_ref()));
        total
    }

    fn container(&self, container: &'a Container, role: Role, defaults: Defaults) -> Amounts<'a> {
        let mut amounts = Amounts::of(requests(container.resources.as_ref()));
        // What an ordinary init container has says nothing about what the pod will take.
        if role != Role::Init
            && let Some(status) = self.container_status(&container.name)
            && let Some(resources) = &status.resources
        {
            if self.infeasible {
                amounts = Amounts::default();
            }
            amounts.max(&Amounts::of(resources.requests.as_ref()));
            amounts.max(&Amounts::of(status.allocated_resources.as_ref()));
        }
        if defaults.cpu && !amounts.contains(CPU) {
            amounts.set(CPU, Quantity::from_milli(DEFAULT_CPU_MILLI));
        }
        if defaults.memory && !amounts.contains(MEMORY) {
            amounts.set(MEMORY, Quantity::from_units(DEFAULT_MEMORY_BYTES, Format::BinarySi));
        }
        amounts
    }

    fn container_status(&self, name: &str) -> Option<&'a ContainerStatus> {
        let status = self.status?;
        let all = [&status.container_statuses, &status.init_container_statuses];
        all.into_iter().flatten().flatten().find(|status| status.name == name)
    }

    /// Replaces the sum of the containers by what the pod as a whole asks for and has.
    fn count_pod_level(&self, total: &mut Amounts<'a>) {
        let asked = requests(self.spec.resources.as_ref());
        let status = self.status;
        let running = status.and_then(|status| requests(status.resources.as_ref()));
        let allocated = status.and_then(|status| status.allocated_resources.as_ref());
        let mut amounts = Amounts::of(asked);
        if self.infeasible && (running.is_some() || allocated.is_some()) {
            amounts = Amounts::default();
        }
        amounts.max(&Amounts::of(running));
        amounts.max(&Amounts::of(allocated));
        for name in asked.into_iter().flat_map(BTreeMap::keys).filter(|name| is_pod_level(name)) {
            total.set(name, amounts.get(name).copied().unwrap_or(Quantity::ZERO));
        }
    }
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// One of the pod's containers proper.
    Main,
    /// An init container which stays (`restartPolicy: Always`).
    Sidecar,
    /// An init container which runs to its end.
    Init,
}

/// The most the containers take at any time, `of` giving what each takes. An ordinary init
/// container runs on top of the sidecars declared before it, and alone otherwise.
fn containers_total<'a>(
    spec: &'a PodSpec,
    of: impl Fn(&'a Container, Role) -> Amounts<'a>,
) -> Amounts<'a> {
    let mut running = Amounts::default();
    for container in &spec.containers {
        running.add(&of(container, Role::Main));
    }
    let mut sidecars = Amounts::default();
    let mut starting = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        if is_sidecar(container) {
            sidecars.add(&of(container, Role::Sidecar));
            starting.max(&sidecars);
        } else {
            let mut taken = of(container, Role::Init);
            taken.add(&sidecars);
            starting.max(&taken);
        }
    }
    running.add(&sidecars);
    running.max(&starting);
    running
}

fn replace_by_pod_level<'a>(total: &mut Amounts<'a>, pod_level: Option<&'a List>) {
    for (name, amount) in Amounts::of(pod_level).iter().filter(|(name, _)| is_pod_level(name)) {
        total.set(name, amount);
    }
}

/// Whether a resource may be given for the pod as a whole.
pub(super) fn is_pod_level(name: &str) -> bool {
    matches!(name, CPU | MEMORY) || is_huge_pages(name)
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
