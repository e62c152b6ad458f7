//! A pod's priority comes from its PriorityClass, or from the cluster's default one.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::error::ApiError;
use wharf_store::Store;

use super::namespace_lifecycle::called;
use crate::field::{Errors, Path};

/// Names that begin so belong to the system.
const SYSTEM_PREFIX: &str = "system-";
/// The highest priority a user may give.
const USER_PRIORITY_MAX: i32 = 1_000_000_000;
const PREEMPT: &str = "PreemptLowerPriority";

pub(super) fn admit(store: &Store, pod: &mut Pod) -> Result<(), ApiError> {
    let kind = Kind::of::<Pod>();
    let named = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.clone());
    let named = named.filter(|name| !name.is_empty());
    let class = match &named {
        Some(name) => {
            let class = store.get(Kind::of::<PriorityClass>(), &ObjectKey::cluster(name));
            let Some(class) = class.and_then(|class| class.draft::<PriorityClass>()) else {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(ApiError::forbidden(kind, called(pod), &why));
            };
            Some(class)
        }
        None => global_default(store),
    };
    let (name, value, policy) = match class {
        Some(class) => (class.metadata.name, class.value.unwrap_or(0), class.preemption_policy),
        None => (None, 0, None),
    };
    let policy = policy.unwrap_or_else(|| PREEMPT.to_owned());
    let spec = pod.spec.get_or_insert_default();
    if let Some(given) = spec.priority.filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(ApiError::forbidden(kind, called(pod), &why));
    }
    if let Some(given) = spec.preemption_policy.as_deref().filter(|given| *given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(ApiError::forbidden(kind, called(pod), &why));
    }
    if name.is_some() {
        spec.priority_class_name = name;
    }
    spec.priority = Some(value);
    spec.preemption_policy = Some(policy);
    Ok(())
}

/// The class of pods that name none: of several default ones the lowest counts.
fn global_default(store: &Store) -> Option<PriorityClass> {
    let (classes, _) = store.list(Kind::of::<PriorityClass>(), None);
    classes
        .iter()
        .filter_map(|class| class.typed::<PriorityClass>())
        .filter(|class| class.global_default == Some(true))
        .min_by_key(|class| class.value)
        .cloned()
}

/// Refuses names and values that are the system's own.
pub(super) fn refuse_reserved(class: &PriorityClass) -> Result<(), ApiError> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let mut errors = Errors::default();
    if name.starts_with(SYSTEM_PREFIX) {
        let detail = format!(
            "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {name} is not a known system priority class"
        );
        let path = Path::root("metadata");
        errors.forbidden(&path.child("name"), detail);
    } else if class.value.is_some_and(|value| value > USER_PRIORITY_MAX) {
        let detail =
            format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        errors.forbidden(&Path::root("value"), detail);
    }
    errors.into_result(Kind::of::<PriorityClass>(), name)
}
