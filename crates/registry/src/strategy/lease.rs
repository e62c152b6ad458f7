//! Leases: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/>.

use k8s_openapi::api::coordination::v1::Lease;

use super::Rules;
use crate::field::{Errors, Path};

impl Rules for Lease {
    const CREATE_ON_UPDATE: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(&self, errors: &mut Errors) {
        let path = Path::root("spec");
        let Some(spec) = &self.spec else { return };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            let path = path.child("leaseDurationSeconds");
            errors.invalid(&path, &seconds, "must be greater than 0");
        }
        let transitions = spec.lease_transitions.map(i64::from);
        errors.not_negative(&path.child("leaseTransitions"), transitions);
    }
}
