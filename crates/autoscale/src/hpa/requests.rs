//! What the pods of a target ask for, as utilisation is measured against it.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use rustc_hash::FxHashMap;
use wharf_model::pod::is_sidecar;
use wharf_model::quantity::Quantity;

/// Requests in thousandths by name of pod. One pod without a request spoils it for all: then
/// utilisation has no meaning. `base` stands for what each of them asks for, if it is there.
pub(super) fn of<'a>(
    pods: &[&'a Pod],
    base: Option<&PodSpec>,
    container: Option<&str>,
    resource: &str,
    pod_level: bool,
) -> Result<FxHashMap<&'a str, i64>, String> {
    let one = |pod: &'a Pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let spec = base.or(pod.spec.as_ref());
        Ok((name, of_pod(spec, name, container, resource, pod_level)?))
    };
    pods.iter().map(|pod| one(pod)).collect()
}

fn of_pod(
    spec: Option<&PodSpec>,
    name: &str,
    container: Option<&str>,
    resource: &str,
    pod_level: bool,
) -> Result<i64, String> {
    let Some(spec) = spec else { return Ok(0) };
    let sidecars = spec.init_containers.iter().flatten().filter(|init| is_sidecar(init));
    let containers = spec.containers.iter().chain(sidecars);
    if let Some(wanted) = container {
        let mut containers = containers;
        let Some(container) = containers.find(|container| container.name == wanted) else {
            return Err(format!("container {wanted} not found in Pod {name}"));
        };
        return of_container(container, name, resource);
    }
    let whole = spec.resources.as_ref().filter(|whole| pod_level && sets_any(whole));
    if let Some(amount) = whole.and_then(|whole| request(Some(whole), resource)) {
        return Ok(amount);
    }
    let mut sum = 0_i64;
    for container in containers {
        sum = sum.saturating_add(of_container(container, name, resource)?);
    }
    Ok(sum)
}

fn sets_any(resources: &ResourceRequirements) -> bool {
    let set = |list: &Option<std::collections::BTreeMap<_, _>>| {
        list.as_ref().is_some_and(|list| !list.is_empty())
    };
    set(&resources.requests) || set(&resources.limits)
}

fn of_container(container: &Container, pod: &str, resource: &str) -> Result<i64, String> {
    request(container.resources.as_ref(), resource).ok_or_else(|| {
        format!("missing request for {resource} in container {} of Pod {pod}", container.name)
    })
}

fn request(resources: Option<&ResourceRequirements>, resource: &str) -> Option<i64> {
    let quantity = resources?.requests.as_ref()?.get(resource)?;
    Some(Quantity::try_from(quantity).ok()?.milli_value_ceil())
}
