//! StatefulSets and the revisions of their templates:
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/stateful-set-v1/>.

use k8s_openapi::api::apps::v1::{
    ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::names;
use wharf_model::time::Time;

use super::Rules;
use super::pod::defaults;
use super::storage::persistent_volume_claim;
use super::workloads::{int_or_percent, runs_for_good, selector_and_labels};
use crate::field::{Errors, Json, Path};
use crate::metadata;

const SPEC: Path<'static> = Path::root("spec");
const ROLLING_UPDATE: &str = "RollingUpdate";
const ON_DELETE: &str = "OnDelete";
/// What becomes of a claim when its pod is not wanted any more.
const RETENTION: [&str; 2] = ["Retain", "Delete"];

impl Rules for StatefulSet {
    const GENERATION: bool = true;

    /// Pods are named after the set, and a pod's name is its host name.
    fn name_errors(name: &str) -> Vec<String> {
        names::dns_1123_label(name)
    }

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        defaults::fill(&mut spec.pod_management_policy, "OrderedReady");
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or_default().is_empty() {
            strategy.type_ = Some(ROLLING_UPDATE.to_owned());
            strategy.rolling_update.get_or_insert_default();
        }
        if strategy.type_.as_deref() == Some(ROLLING_UPDATE)
            && let Some(rolling) = &mut strategy.rolling_update
        {
            rolling.partition.get_or_insert(0);
            // MaxUnavailableStatefulSet, on by default since 1.35.
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        defaults::fill(&mut retention.when_deleted, "Retain");
        defaults::fill(&mut retention.when_scaled, "Retain");
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        defaults::pod_spec(spec.template.spec.get_or_insert_default());
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            persistent_volume_claim::claim_spec(claim.spec.get_or_insert_default());
            claim.status.get_or_insert_with(persistent_volume_claim::pending);
        }
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(StatefulSetStatus::default());
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
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        let mut allowed = old.clone();
        allowed.replicas = new.replicas;
        allowed.ordinals.clone_from(&new.ordinals);
        allowed.template.clone_from(&new.template);
        allowed.update_strategy.clone_from(&new.update_strategy);
        allowed.revision_history_limit = new.revision_history_limit;
        allowed
            .persistent_volume_claim_retention_policy
            .clone_from(&new.persistent_volume_claim_retention_policy);
        allowed.min_ready_seconds = new.min_ready_seconds;
        if *new != allowed {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errors.forbidden(&SPEC, detail);
        }
    }
}

fn spec(spec: &StatefulSetSpec, errors: &mut Errors) {
    let policy = spec.pod_management_policy.as_deref().unwrap_or_default();
    if !matches!(policy, "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        errors.invalid(&SPEC.child("podManagementPolicy"), policy, detail);
    }
    strategy(spec, errors);
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        let path = SPEC.child("persistentVolumeClaimRetentionPolicy");
        for (field, policy) in
            [("whenDeleted", &retention.when_deleted), ("whenScaled", &retention.when_scaled)]
        {
            let policy = policy.as_deref().unwrap_or_default();
            if !RETENTION.contains(&policy) {
                errors.not_supported(&path.child(field), policy, &RETENTION);
            }
        }
    }
    errors.not_negative(&SPEC.child("replicas"), spec.replicas.map(i64::from));
    errors.not_negative(&SPEC.child("minReadySeconds"), spec.min_ready_seconds.map(i64::from));
    let limit = spec.revision_history_limit.map(i64::from);
    errors.not_negative(&SPEC.child("revisionHistoryLimit"), limit);
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start);
    errors.not_negative(&SPEC.child("ordinals.start"), start.map(i64::from));
    selector_and_labels("statefulset", &spec.selector, &spec.template, errors);
    // The pod's own rules wait for the pod: its volumes come from the claims, which are not there.
    if let Some(meta) = &spec.template.metadata {
        let path = SPEC.child("template");
        metadata::labels(&path.child("labels"), meta.labels.iter().flatten(), errors);
        metadata::annotations(&path.child("annotations"), meta, errors);
    }
    runs_for_good("StatefulSet", &spec.template, errors);
}

fn strategy(spec: &StatefulSetSpec, errors: &mut Errors) {
    let Some(strategy) = &spec.update_strategy else { return };
    let path = SPEC.child("updateStrategy");
    let rolling_path = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("", _) => errors.required(&path, ""),
        (ON_DELETE, Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&rolling_path, &Json(rolling), detail);
        }
        (ROLLING_UPDATE, Some(rolling)) => {
            let partition = rolling.partition.map(i64::from);
            errors.not_negative(&rolling_path.child("partition"), partition);
            if let Some(value) = &rolling.max_unavailable {
                let path = rolling_path.child("maxUnavailable");
                int_or_percent(&path, value, errors);
                let is_zero = match value {
                    IntOrString::Int(number) => *number == 0,
                    IntOrString::String(text) => text == "0%",
                };
                if is_zero {
                    errors.invalid(&path, &Json(value), "cannot be 0");
                }
            }
        }
        (ON_DELETE | ROLLING_UPDATE, None) => {}
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.invalid(&path, &Json(strategy), detail);
        }
    }
}

impl Rules for ControllerRevision {
    fn validate(&self, errors: &mut Errors) {
        if self.data.is_none() {
            errors.required(&Path::root("data"), "data is mandatory");
        }
        errors.not_negative(&Path::root("revision"), Some(self.revision));
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        errors.immutable(&Path::root("data"), &self.data, &old.data);
    }
}
