//! VerticalPodAutoscalers as metrics. kube-state-metrics shows custom resources as it is configured
//! to; here are the families of the two configurations in use: the one that kube-prometheus-stack's
//! values propose, and the one that brings back the names from before 2.9.
//! <https://github.com/kubernetes/kube-state-metrics/blob/main/docs/metrics/extend/customresourcestate-metrics.md>

use wharf_model::vpa::{Amounts, VerticalPodAutoscaler, amount};

use super::{Families, Labels, gauge};

pub(super) fn rows(autoscaler: &VerticalPodAutoscaler, out: &mut Families) {
    let meta = &autoscaler.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&meta.namespace), text(&meta.name));
    let target = autoscaler.spec.target_ref.clone().unwrap_or_default();
    let version = target.api_version.unwrap_or_default();
    let own: &Labels<'_> = &[
        ("namespace", &namespace),
        ("target_kind", &target.kind),
        ("target_name", &target.name),
        ("verticalpodautoscaler", &name),
    ];
    let custom: &Labels<'_> = &[
        ("customresource_group", "autoscaling.k8s.io"),
        ("customresource_kind", "VerticalPodAutoscaler"),
        ("customresource_version", "v1"),
        // That configuration takes the version of the autoscaler for the target's.
        ("target_api_version", "autoscaling.k8s.io/v1"),
    ];
    let plain: &Labels<'_> = &[("target_api_version", &version)];
    let recommendation = autoscaler.status.recommendation.as_ref();
    for one in recommendation.iter().flat_map(|all| &all.container_recommendations) {
        let mut row = |family, about, kind: &Labels<'_>, amounts: &Amounts| {
            for (resource, unit) in [("cpu", "core"), ("memory", "byte")] {
                let Some(amount) = amount(amounts, resource) else { continue };
                let labels: &Labels<'_> =
                    &[("container", &one.container_name), ("resource", resource), ("unit", unit)];
                out.row(family, gauge(about), &[kind, own, labels], amount.as_f64());
            }
        };
        row(
            "kube_customresource_vpa_containerrecommendations_target",
            "VPA container recommendations for cpu and memory.",
            custom,
            &one.target,
        );
        row(
            "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_target",
            "Target resources the VerticalPodAutoscaler recommends for the container.",
            plain,
            &one.target,
        );
        row(
            "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_lowerbound",
            "Minimum resources the container can use before the VerticalPodAutoscaler updater evicts it.",
            plain,
            &one.lower_bound,
        );
        row(
            "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_upperbound",
            "Maximum resources the container can use before the VerticalPodAutoscaler updater evicts it.",
            plain,
            &one.upper_bound,
        );
        row(
            "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_uncappedtarget",
            "Target resources the VerticalPodAutoscaler recommends for the container ignoring bounds.",
            plain,
            &one.uncapped_target,
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recommendations_have_the_names_of_both_configurations() {
        let autoscaler: VerticalPodAutoscaler = serde_json::from_value(json!({
            "metadata": {"name": "hamster-vpa", "namespace": "default"},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hamster"}},
            "status": {"recommendation": {"containerRecommendations": [{"containerName": "hamster",
                "target": {"cpu": "587m", "memory": "262144k"}, "lowerBound": {"cpu": "100m"}}]}},
        }))
        .expect("an autoscaler");
        let mut out = Families::default();
        rows(&autoscaler, &mut out);
        let text = out.text();
        for line in [
            "kube_customresource_vpa_containerrecommendations_target{customresource_group=\"autoscaling.k8s.io\",customresource_kind=\"VerticalPodAutoscaler\",customresource_version=\"v1\",target_api_version=\"autoscaling.k8s.io/v1\",namespace=\"default\",target_kind=\"Deployment\",target_name=\"hamster\",verticalpodautoscaler=\"hamster-vpa\",container=\"hamster\",resource=\"cpu\",unit=\"core\"} 0.587",
            "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_target{target_api_version=\"apps/v1\",namespace=\"default\",target_kind=\"Deployment\",target_name=\"hamster\",verticalpodautoscaler=\"hamster-vpa\",container=\"hamster\",resource=\"memory\",unit=\"byte\"} 262144000",
            "kube_verticalpodautoscaler_status_recommendation_containerrecommendations_lowerbound{target_api_version=\"apps/v1\",namespace=\"default\",target_kind=\"Deployment\",target_name=\"hamster\",verticalpodautoscaler=\"hamster-vpa\",container=\"hamster\",resource=\"cpu\",unit=\"core\"} 0.1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("upperbound"), "what is not recommended has no series: {text}");
    }
}
