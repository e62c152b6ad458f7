//! PriorityClasses:
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/priority-class-v1/>.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::Rules;
use super::pod::defaults::fill;
use super::pod::validate::one_of;
use crate::field::{Errors, Path};

impl Rules for PriorityClass {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        fill(&mut self.preemption_policy, "PreemptLowerPriority");
        self.value.get_or_insert(0);
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::root("preemptionPolicy");
        let policy = self.preemption_policy.as_deref();
        one_of(&path, policy, &["Never", "PreemptLowerPriority"], errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.value != old.value {
            errors.forbidden(&Path::root("value"), "may not be changed in an update.");
        }
        if self.preemption_policy != old.preemption_policy {
            let path = Path::root("preemptionPolicy");
            let policy = self.preemption_policy.as_deref().unwrap_or_default();
            errors.invalid(&path, policy, "field is immutable");
        }
    }
}
