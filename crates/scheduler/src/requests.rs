//! What a pod asks for, as filters and scores count it. The arithmetic is
//! [`wharf_model::resources`]'s; here is only which of the amounts each of them looks at.

use k8s_openapi::api::core::v1::Pod;
use wharf_model::resources::{PodLevel, Resources, assigned_pod_requests, non_zero_requests};

/// The amounts of one pod that filters and scores look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NonZero {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

impl PodRequests {
    /// Reads a pod's spec and, for a pod that runs, the resources its kubelet actuated.
    pub fn of(pod: &Pod) -> Self {
        let mut requests = assigned_pod_requests(pod).counted_by_scheduler();
        requests.pods = 1;
        let non_zero = non_zero_requests(pod, PodLevel::Counted);
        Self {
            requests,
            non_zero: NonZero {
                cpu_milli: non_zero.cpu_milli,
                memory_bytes: non_zero.memory_bytes,
            },
            scored: non_zero_requests(pod, PodLevel::Ignored).counted_by_scheduler(),
        }
    }
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
    fn containers_that_do_not_ask_count_a_default_in_scores_only() {
        let pod = requests(json!({"containers": [
            container("a", json!({"cpu": "0"})), container("b", json!({"memory": "1Gi"})),
        ]}));
        assert_eq!((pod.requests.cpu_milli, pod.requests.memory_bytes), (0, 1 << 30));
        let expected = NonZero { cpu_milli: 100, memory_bytes: (1 << 30) + (200 << 20) };
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
        assert_eq!(pod.non_zero.memory_bytes, 200 << 20);
        assert_eq!(pod.scored.cpu_milli, 2001, "the scorer of a pending pod does not see them");
    }

    #[test]
    fn only_names_the_scheduler_keeps_account_of_are_kept() {
        let pod = requests(json!({"containers": [
            container("a", json!({"cpu": "1", "example.com/gpu": "1", "storage": "5", "hugepages-2Mi": "2Mi", "example.com/zero": "0"})),
        ]}));
        assert_eq!((pod.requests.cpu_milli, pod.requests.pods), (1000, 1));
        let names: Vec<_> = pod.requests.extended.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["example.com/gpu", "hugepages-2Mi"]);
        assert_eq!(pod.scored.extended, pod.requests.extended);
    }
}
