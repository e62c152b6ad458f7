//! PodGroups and Workloads (`scheduling.k8s.io/v1alpha2`, KEP-4671): pods that are to be scheduled
//! together.

use std::collections::BTreeSet;

use k8s_openapi::api::scheduling::v1alpha2::{
    PodGroup, PodGroupSchedulingPolicy, PodGroupStatus, Workload,
};
use wharf_model::names;
use wharf_model::time::Time;

use super::Rules;
use crate::field::{Errors, Path};

const SPEC: Path<'static> = Path::root("spec");
/// Upstream's bound on a Workload's templates.
const TEMPLATES_MAX: usize = 8;

impl Rules for PodGroup {
    const GENERATION: bool = true;

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(PodGroupStatus::default());
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        let workload = spec.pod_group_template_ref.as_ref().and_then(|from| from.workload.as_ref());
        if let Some(workload) = workload {
            let path = SPEC.child("podGroupTemplateRef");
            let path = path.child("workload");
            for (field, name) in [
                ("workloadName", &workload.workload_name),
                ("podGroupTemplateName", &workload.pod_group_template_name),
            ] {
                named(&path.child(field), name, errors);
            }
        }
        policy(&SPEC.child("schedulingPolicy"), &spec.scheduling_policy, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        let (new, old) = (&self.spec, &old.spec);
        errors.immutable(
            &SPEC.child("podGroupTemplateRef"),
            &new.pod_group_template_ref,
            &old.pod_group_template_ref,
        );
        errors.immutable(
            &SPEC.child("schedulingPolicy"),
            &new.scheduling_policy,
            &old.scheduling_policy,
        );
    }
}

impl Rules for Workload {
    const GENERATION: bool = true;

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        if let Some(controller) = &self.spec.controller_ref {
            let path = SPEC.child("controllerRef");
            for (field, value) in [("kind", &controller.kind), ("name", &controller.name)] {
                let path = path.child(field);
                if value.is_empty() {
                    errors.required(&path, "");
                } else {
                    errors.invalid_each(&path, value, names::path_segment(value));
                }
            }
        }
        let path = SPEC.child("podGroupTemplates");
        let templates = &self.spec.pod_group_templates;
        if templates.is_empty() {
            errors.required(&path, "must have at least one item");
        } else if templates.len() > TEMPLATES_MAX {
            errors.too_many(&path, templates.len(), TEMPLATES_MAX);
        }
        let mut seen = BTreeSet::new();
        for (index, template) in templates.iter().enumerate() {
            let path = path.index(index);
            named(&path.child("name"), &template.name, errors);
            if !seen.insert(&template.name) {
                errors.duplicate(&path, &template.name);
            }
            policy(&path.child("schedulingPolicy"), &template.scheduling_policy, errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        let (new, old) = (&self.spec, &old.spec);
        if old.controller_ref.is_some() {
            let path = SPEC.child("controllerRef");
            errors.immutable(&path, &new.controller_ref, &old.controller_ref);
        }
        errors.immutable(
            &SPEC.child("podGroupTemplates"),
            &new.pod_group_templates,
            &old.pod_group_templates,
        );
    }
}

fn named(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        errors.invalid_each(path, name, names::dns_1123_label(name));
    }
}

/// Pods are scheduled one by one, or together with at least so many of their group.
fn policy(path: &Path<'_>, policy: &PodGroupSchedulingPolicy, errors: &mut Errors) {
    match (&policy.basic, &policy.gang) {
        (None, None) => errors.invalid(path, "", "must specify one of: `basic`, `gang`"),
        (Some(_), Some(_)) => {
            let detail = "exactly one of `basic`, `gang` is required, but multiple fields are set";
            errors.invalid(path, "{`basic`, `gang`}", detail);
        }
        (None, Some(gang)) => {
            let path = path.child("gang");
            let path = path.child("minCount");
            match gang.min_count {
                0 => errors.required(&path, ""),
                count if count < 0 => errors.invalid(&path, &count, "must be greater than 0"),
                _ => {}
            }
        }
        (Some(_), None) => {}
    }
}
