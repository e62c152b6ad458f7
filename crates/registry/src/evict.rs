//! The `pods/eviction` subresource: a deletion that disruption budgets may refuse.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use wharf_model::kinds::Kind;
use wharf_model::object::Object;
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::cluster::Delete;
use wharf_ports::error::{ApiError, Cause, StatusReason};

use crate::strategy::{self, pod};
use crate::{Deleted, Registry, WriteOptions, decoded};

/// Upstream's bound on evictions that the budget's controller has not yet seen.
const DISRUPTED_PODS_MAX: usize = 2_000;
/// The condition of a budget that says whether it has any disruption left.
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";
/// After how long a budget that its controller has not seen is worth asking again; upstream's.
const UNSEEN_RETRY_SECONDS: u32 = 10;

impl Registry {
    /// Evicts a pod: deletes it, as `delete` says, if its disruption budget allows.
    ///
    /// # Errors
    /// `TooManyRequests` if the budget does not allow it; an internal error if the pod has several.
    pub fn evict(&self, delete: &Delete, options: &WriteOptions) -> Result<Deleted, ApiError> {
        let stored = self.get(delete.kind, &delete.key)?;
        let evicted = strategy::typed::<Pod>(decoded(&stored)?);
        let mut delete = delete.clone();
        if let Some(budget) = self.budget_against(evicted)? {
            if is_exempt(evicted, strategy::typed(decoded(&budget)?)) {
                // A pod that turns healthy meanwhile counts again.
                delete.revision = Some(stored.revision());
            } else {
                self.take_disruption(&budget, &stored, options)?;
            }
        }
        let now = self.now();
        let generation = evicted.metadata.generation;
        self.delete_after(
            &delete,
            options,
            Some(&|object| {
                let evicted = strategy::typed_mut::<Pod>(object);
                let mut condition = pod::condition("DisruptionTarget", true, generation);
                condition.reason = Some("EvictionByEvictionAPI".to_owned());
                condition.message = Some("Eviction API: evicting".to_owned());
                pod::set_condition(evicted.status.get_or_insert_default(), condition, now);
                Ok(())
            }),
        )
    }

    /// The budget that counts for a pod, if there is one.
    fn budget_against(&self, evicted: &Pod) -> Result<Option<Arc<Object>>, ApiError> {
        let phase = evicted.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_disrupted_already = matches!(phase, Some("Pending" | "Succeeded" | "Failed"))
            || evicted.metadata.deletion_timestamp.is_some();
        if is_disrupted_already {
            return Ok(None);
        }
        let kind = Kind::of::<PodDisruptionBudget>();
        let (budgets, _) = self.store.list(kind, evicted.metadata.namespace.as_deref());
        let mut matching = budgets.into_iter().filter(|budget| {
            let selector = budget
                .typed::<PodDisruptionBudget>()
                .and_then(|budget| budget.spec.as_ref()?.selector.as_ref());
            Selector::from_api(selector)
                .is_ok_and(|selector| selector.matches(&evicted.metadata.labels))
        });
        let first = matching.next();
        if matching.next().is_some() {
            return Err(ApiError::new(
                StatusReason::InternalError,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        Ok(first)
    }

    /// Takes one disruption from a budget.
    fn take_disruption(
        &self,
        budget: &Object,
        evicted: &Object,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        let now = self.now();
        let pod = evicted.key().name.as_str();
        self.change(budget.kind(), budget.key(), options.dry_run, &|object| {
            check_and_decrement(strategy::typed_mut(object), pod, now)
        })?;
        Ok(())
    }
}

/// Whether an unhealthy pod may go without counting against its budget.
fn is_exempt(evicted: &Pod, budget: &PodDisruptionBudget) -> bool {
    if pod::is_ready(evicted) {
        return false;
    }
    let policy =
        budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let status = budget.status.clone().unwrap_or_default();
    let desired = status.desired_healthy.unwrap_or(0);
    let has_health_to_spare = desired > 0 && status.current_healthy.unwrap_or(0) >= desired;
    policy == Some("AlwaysAllow") || has_health_to_spare
}

fn check_and_decrement(
    budget: &mut PodDisruptionBudget,
    pod: &str,
    now: Time,
) -> Result<(), ApiError> {
    let kind = Kind::of::<PodDisruptionBudget>();
    let name = budget.metadata.name.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < generation {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        let mut refusal = too_many(cause);
        refusal.retry_after_seconds = Some(UNSEEN_RETRY_SECONDS);
        return Err(refusal);
    }
    let allowed = status.disruptions_allowed.unwrap_or(0);
    if allowed < 0 {
        return Err(ApiError::forbidden(kind, &name, "pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().map_or(0, |pods| pods.len()) > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden(kind, &name, why));
    }
    if allowed == 0 {
        return Err(too_many(refusal_cause(&name, status)));
    }
    status.disruptions_allowed = Some(allowed - 1);
    if allowed == 1 {
        refuse_further(status, generation, now);
    }
    status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), now.to_meta());
    Ok(())
}

fn refusal_cause(name: &str, status: &PodDisruptionBudgetStatus) -> String {
    let failed = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == DISRUPTION_ALLOWED && condition.reason == "SyncFailed"
    });
    match failed {
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            condition.message
        ),
        None => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy.unwrap_or(0),
            status.current_healthy.unwrap_or(0)
        ),
    }
}

/// Brings the condition DisruptionAllowed up to date with a budget that is used up.
fn refuse_further(status: &mut PodDisruptionBudgetStatus, generation: i64, now: Time) {
    let conditions = status.conditions.get_or_insert_default();
    let index = conditions.iter().position(|condition| condition.type_ == DISRUPTION_ALLOWED);
    let since = index
        .map(|index| conditions.remove(index))
        .filter(|condition| condition.status == "False")
        .map_or_else(|| now.to_meta(), |condition| condition.last_transition_time);
    let condition = Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: "False".to_owned(),
        reason: "InsufficientPods".to_owned(),
        message: String::new(),
        last_transition_time: since,
        observed_generation: Some(generation),
    };
    conditions.insert(index.unwrap_or(conditions.len()), condition);
}

fn too_many(cause: String) -> ApiError {
    let mut refusal = ApiError::new(
        StatusReason::TooManyRequests,
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    refusal.causes.push(Cause {
        reason: "DisruptionBudget".to_owned(),
        message: cause,
        field: String::new(),
    });
    refusal
}
