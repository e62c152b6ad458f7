//! DaemonSets: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/daemon-set-v1/>.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::labels::DAEMON_TEMPLATE_GENERATION;
use wharf_model::time::Time;
use wharf_ports::cluster::Part;

use super::Rules;
use super::pod::{defaults, validate};
use super::workloads::{amount, int_or_percent, runs_for_good, selector_and_labels};
use crate::field::{Errors, Json, Path};

const SPEC: Path<'static> = Path::root("spec");
const ROLLING_UPDATE: &str = "RollingUpdate";
const ON_DELETE: &str = "OnDelete";

impl Rules for DaemonSet {
    const GENERATION: bool = true;

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let strategy = spec.update_strategy.get_or_insert_default();
        defaults::fill(&mut strategy.type_, ROLLING_UPDATE);
        if strategy.type_.as_deref() == Some(ROLLING_UPDATE) {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
        defaults::pod_spec(spec.template.spec.get_or_insert_default());
        let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        if labels.is_some() && self.metadata.labels.as_ref().is_none_or(|own| own.is_empty()) {
            self.metadata.labels = labels;
        }
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(DaemonSetStatus::default());
        set_template_generation(self, 1);
    }

    /// The generation of the template is counted too, in an annotation.
    fn prepare_update(&mut self, old: &Self, part: Part) {
        if part == Part::Status {
            return;
        }
        let template = |set: &Self| set.spec.as_ref().map(|spec| spec.template.clone());
        let changed = template(self) != template(old);
        let before = template_generation(old).unwrap_or(1);
        set_template_generation(self, before + i64::from(changed));
    }

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        if let Some(spec) = &self.spec {
            self::spec(spec, errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            errors.immutable(&SPEC.child("selector"), &new.selector, &old.selector);
        }
    }
}

fn template_generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(DAEMON_TEMPLATE_GENERATION)?.parse().ok()
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DAEMON_TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn spec(spec: &DaemonSetSpec, errors: &mut Errors) {
    selector_and_labels("daemonset", &spec.selector, &spec.template, errors);
    validate::template(&SPEC.child("template"), &spec.template, errors);
    runs_for_good("DaemonSet", &spec.template, errors);
    errors.not_negative(&SPEC.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from));
    strategy(spec, errors);
    let limit = spec.revision_history_limit.map(i64::from);
    errors.not_negative(&SPEC.child("revisionHistoryLimit"), limit);
}

fn strategy(spec: &DaemonSetSpec, errors: &mut Errors) {
    let Some(strategy) = &spec.update_strategy else { return };
    let path = SPEC.child("updateStrategy");
    let rolling_path = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        (ON_DELETE, _) => {}
        (ROLLING_UPDATE, None) => errors.required(&rolling_path, ""),
        (ROLLING_UPDATE, Some(rolling)) => {
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            let unavailable_path = rolling_path.child("maxUnavailable");
            let surge_path = rolling_path.child("maxSurge");
            int_or_percent(&unavailable_path, unavailable, errors);
            int_or_percent(&surge_path, surge, errors);
            match (amount(unavailable).unwrap_or(0) != 0, amount(surge).unwrap_or(0) != 0) {
                (true, true) => {
                    let detail = "may not be set when maxUnavailable is non-zero";
                    errors.invalid(&surge_path, &Json(surge), detail);
                }
                (false, false) => {
                    errors.required(&unavailable_path, "cannot be 0 when maxSurge is 0");
                }
                _ => {}
            }
            for (path, value) in [(&unavailable_path, unavailable), (&surge_path, surge)] {
                if matches!(value, IntOrString::String(_)) && amount(value) > Some(100) {
                    errors.invalid(path, &Json(value), "must not be greater than 100%");
                }
            }
        }
        (other, _) => errors.not_supported(&path, other, &[ROLLING_UPDATE, ON_DELETE]),
    }
}
