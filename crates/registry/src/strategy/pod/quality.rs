//! The quality-of-service class of a pod.
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::quantity::Quantity;

/// `Guaranteed`, `Burstable` or `BestEffort`: only cpu and memory count, and zero amounts do not.
pub fn quality_of_service(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else {
        return "BestEffort";
    };
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let mut is_guaranteed = !containers.is_empty();
    let mut asks_for_something = false;
    for container in containers {
        let resources = container.resources.as_ref();
        let requests = amounts(resources.and_then(|resources| resources.requests.as_ref()));
        let limits = amounts(resources.and_then(|resources| resources.limits.as_ref()));
        asks_for_something |= !requests.is_empty() || !limits.is_empty();
        is_guaranteed &= limits.len() == 2
            && limits.iter().all(|(name, limit)| {
                // A request that is not given is the limit.
                requests.get(name).is_none_or(|request| request == limit)
            });
    }
    match (asks_for_something, is_guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn amounts(list: Option<&BTreeMap<String, ApiQuantity>>) -> BTreeMap<&'static str, Quantity> {
    ["cpu", "memory"]
        .into_iter()
        .filter_map(|name| {
            let quantity = Quantity::parse(&list?.get(name)?.0).ok()?;
            (!quantity.is_zero() && !quantity.is_negative()).then_some((name, quantity))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes() {
        let cases = [
            (json!([{}]), "BestEffort"),
            (json!([{"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}]), "Burstable"),
            (json!([{"limits": {"cpu": "1", "memory": "1Gi"}}]), "Guaranteed"),
            (
                json!([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}]),
                "Guaranteed",
            ),
            (
                json!([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}]),
                "Burstable",
            ),
            (json!([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}]), "Burstable"),
            (json!([{"requests": {"cpu": "0"}}]), "BestEffort"),
        ];
        for (resources, class) in cases {
            let containers: Vec<_> = resources
                .as_array()
                .unwrap()
                .iter()
                .map(|r| json!({"name": "c", "resources": r}))
                .collect();
            let pod = serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
            assert_eq!(quality_of_service(&pod), class, "{resources}");
        }
    }
}
