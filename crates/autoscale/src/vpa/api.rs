//! Between the API's objects and the recommender's own terms.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as MetaTime;
use wharf_model::custom::IntOrQuantity;
use wharf_model::quantity::Quantity;
use wharf_model::time::Time;
use wharf_model::vpa::{
    Amounts as ApiAmounts, CHECKPOINT_VERSION, ContainerPolicy, ContainerRecommendation,
    HistogramCheckpoint as ApiHistogram, PodRecommendation, VerticalPodAutoscaler,
    VerticalPodAutoscalerCheckpointStatus, amount,
};

use super::{
    Checkpoint, HistogramCheckpoint, Limits, Policies, Policy, Recommendation, Recommended,
};

/// What asks for whole cores: `vpa-post-processor.kubernetes.io/CONTAINER_integerCPU: "true"`.
const POST_PROCESSOR: &str = "vpa-post-processor.kubernetes.io/";
const INTEGER_CPU: &str = "_integerCPU";

/// The policies of an autoscaler.
pub fn policies(autoscaler: &VerticalPodAutoscaler) -> Policies {
    let policy = autoscaler.spec.resource_policy.as_ref();
    let containers = policy.and_then(|policy| policy.container_policies.as_deref());
    let annotations = autoscaler.metadata.annotations.iter().flatten();
    let integer_cpu = annotations
        .filter(|(_, value)| value.as_str() == "true")
        .filter_map(|(key, _)| key.strip_prefix(POST_PROCESSOR)?.strip_suffix(INTEGER_CPU))
        .map(Into::into)
        .collect();
    Policies {
        containers: containers.unwrap_or_default().iter().map(policy_of).collect(),
        integer_cpu,
    }
}

fn policy_of(policy: &ContainerPolicy) -> Policy {
    let limits = |amounts: &ApiAmounts| Limits {
        cpu: amount(amounts, "cpu"),
        memory: amount(amounts, "memory"),
    };
    let number = |amount: &Option<IntOrQuantity>| {
        amount.as_ref().and_then(|amount| Quantity::try_from(amount).ok())
    };
    let has = |resources: &Vec<String>, name: &str| resources.iter().any(|own| own == name);
    Policy {
        container: policy.container_name.as_str().into(),
        off: policy.is_off(),
        min_allowed: limits(&policy.min_allowed),
        max_allowed: limits(&policy.max_allowed),
        controlled: policy
            .controlled_resources
            .as_ref()
            .map(|resources| (has(resources, "cpu"), has(resources, "memory"))),
        memory_interval: policy
            .memory_aggregation_interval_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        oom_bump_ratio: number(&policy.oom_bump_up_ratio).map(|ratio| ratio.as_f64()),
        oom_bump_least: number(&policy.oom_min_bump_up).map(|least| least.as_f64()),
    }
}

/// Recommendations as the status of an autoscaler has them.
pub fn recommendation(all: &[Recommendation]) -> PodRecommendation {
    let container_recommendations = all
        .iter()
        .map(|one| ContainerRecommendation {
            container_name: one.container.to_string(),
            target: amounts(&one.target),
            lower_bound: amounts(&one.lower),
            upper_bound: amounts(&one.upper),
            uncapped_target: amounts(&one.uncapped),
        })
        .collect();
    PodRecommendation { container_recommendations }
}

/// Amounts as the API writes them.
pub(super) fn amounts(recommended: &Recommended) -> ApiAmounts {
    let named = [("cpu", recommended.cpu), ("memory", recommended.memory)];
    named
        .into_iter()
        .filter_map(|(name, amount)| {
            Some((name.to_owned(), IntOrQuantity::Text(amount?.to_string())))
        })
        .collect()
}

/// Amounts as the API wrote them.
pub(super) fn recommended(amounts: &ApiAmounts) -> Recommended {
    Recommended { cpu: amount(amounts, "cpu"), memory: amount(amounts, "memory") }
}

/// What is kept of a container, as an object's status.
pub fn checkpoint_status(
    checkpoint: &Checkpoint,
    now: Time,
) -> VerticalPodAutoscalerCheckpointStatus {
    VerticalPodAutoscalerCheckpointStatus {
        last_update_time: Some(now.to_meta()),
        version: CHECKPOINT_VERSION.to_owned(),
        cpu_histogram: histogram_status(&checkpoint.cpu),
        memory_histogram: histogram_status(&checkpoint.memory),
        first_sample_start: checkpoint.first.map(Time::to_meta),
        last_sample_start: checkpoint.last.map(Time::to_meta),
        total_samples_count: i64::try_from(checkpoint.samples).unwrap_or(i64::MAX),
    }
}

fn histogram_status(histogram: &HistogramCheckpoint) -> ApiHistogram {
    ApiHistogram {
        reference_timestamp: histogram.reference.map(Time::to_meta),
        bucket_weights: histogram.weights.clone(),
        total_weight: histogram.total,
    }
}

/// What was kept of a container; `None` if it is in another version of the format.
pub fn checkpoint_of(status: &VerticalPodAutoscalerCheckpointStatus) -> Option<Checkpoint> {
    if status.version != CHECKPOINT_VERSION {
        return None;
    }
    let time = |time: &Option<MetaTime>| time.as_ref().map(Time::from);
    let histogram = |histogram: &ApiHistogram| HistogramCheckpoint {
        reference: time(&histogram.reference_timestamp),
        weights: histogram.bucket_weights.clone(),
        total: histogram.total_weight,
    };
    Some(Checkpoint {
        cpu: histogram(&status.cpu_histogram),
        memory: histogram(&status.memory_histogram),
        first: time(&status.first_sample_start),
        last: time(&status.last_sample_start),
        samples: u64::try_from(status.total_samples_count).unwrap_or(0),
    })
}

/// The name of a container's checkpoint.
pub fn checkpoint_name(autoscaler: &str, container: &str) -> String {
    format!("{autoscaler}-{container}")
}

/// The memory that a container asked for, in bytes.
pub fn memory_request(
    requests: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> i64 {
    let request = requests.and_then(|requests| requests.get("memory"));
    request.and_then(|request| Quantity::parse(&request.0).ok()).map_or(0, |q| q.value_ceil())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_are_read() {
        let autoscaler: VerticalPodAutoscaler = serde_json::from_value(json!({
            "metadata": {"annotations": {
                "vpa-post-processor.kubernetes.io/a_integerCPU": "true",
                "vpa-post-processor.kubernetes.io/b_integerCPU": "false"}},
            "spec": {"resourcePolicy": {"containerPolicies": [
                {"containerName": "a", "mode": "Off"},
                {"containerName": "*", "minAllowed": {"cpu": 1}, "maxAllowed": {"memory": "1Gi"},
                    "controlledResources": ["memory"], "oomBumpUpRatio": "1.5"}]}},
        }))
        .expect("it decodes");
        let policies = policies(&autoscaler);
        assert_eq!(policies.integer_cpu, ["a"]);
        assert!(policies.containers[0].off);
        let rest = policies.of("b").expect("the rest");
        assert_eq!(rest.min_allowed.cpu.map(|cpu| cpu.milli_value_ceil()), Some(1000));
        assert_eq!(rest.max_allowed.memory.map(|memory| memory.value_ceil()), Some(1 << 30));
        assert_eq!((rest.controlled, rest.oom_bump_ratio), (Some((false, true)), Some(1.5)));
    }

    #[test]
    fn a_checkpoint_of_another_version_is_none() {
        let checkpoint = Checkpoint { samples: 3, ..Checkpoint::default() };
        let mut status = checkpoint_status(&checkpoint, Time::from_seconds(1));
        assert_eq!(checkpoint_of(&status), Some(checkpoint));
        status.version = "v2".to_owned();
        assert_eq!(checkpoint_of(&status), None);
    }
}
