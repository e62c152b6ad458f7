//! ReplicationControllers:
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/replication-controller-v1/>.

use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerStatus};
use wharf_model::time::Time;

use super::Rules;
use super::pod::{defaults, validate};
use super::workloads::runs_for_good;
use crate::field::{Errors, Json, Path};
use crate::metadata;

const SPEC: Path<'static> = Path::root("spec");

impl Rules for ReplicationController {
    const GENERATION: bool = true;

    /// The template's labels are the selector, and the controller's own labels, if none are given.
    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let Some(template) = &mut spec.template else { return };
        defaults::pod_spec(template.spec.get_or_insert_default());
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        let Some(labels) = labels.filter(|labels| !labels.is_empty()) else { return };
        if spec.selector.as_ref().is_none_or(|selector| selector.is_empty()) {
            spec.selector = Some(labels.clone());
        }
        if self.metadata.labels.as_ref().is_none_or(|labels| labels.is_empty()) {
            self.metadata.labels = Some(labels);
        }
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(ReplicationControllerStatus::default());
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        errors.not_negative(&SPEC.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from));
        let path = SPEC.child("selector");
        let selector = spec.selector.clone().unwrap_or_default();
        if selector.is_empty() {
            errors.required(&path, "");
        }
        metadata::labels(&path, selector.iter(), errors);
        errors.not_negative(&SPEC.child("replicas"), spec.replicas.map(i64::from));
        let path = SPEC.child("template");
        let Some(template) = &spec.template else {
            return errors.required(&path, "");
        };
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        let labels = labels.unwrap_or_default();
        if !selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
            let path = path.child("metadata");
            let detail = "`selector` does not match template `labels`";
            errors.invalid(&path.child("labels"), &Json(&labels), detail);
        }
        validate::template(&path, template, errors);
        runs_for_good("ReplicationController", template, errors);
    }
}
