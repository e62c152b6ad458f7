//! PodDisruptionBudgets:
//! <https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/pod-disruption-budget-v1/>.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use wharf_model::time::Time;

use super::Rules;
use super::pod::label_selector;
use super::pod::validate::one_of;
use super::workloads::int_or_percent;
use crate::field::{Errors, Json, Path};

impl Rules for PodDisruptionBudget {
    const GENERATION: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(PodDisruptionBudgetStatus::default());
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let path = Path::root("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.invalid(&path, &Json(spec), detail);
        }
        for (field, value) in
            [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)]
        {
            if let Some(value) = value {
                int_or_percent(&path.child(field), value, errors);
            }
        }
        label_selector(&path.child("selector"), spec.selector.as_ref(), errors);
        one_of(
            &path.child("unhealthyPodEvictionPolicy"),
            spec.unhealthy_pod_eviction_policy.as_deref(),
            &["AlwaysAllow", "IfHealthyBudget"],
            errors,
        );
    }
}
