//! ResourceSlices, in which drivers publish the devices of a pool: where they are, what they have,
//! what they share, and what must hold before they are used.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Counter, Device, DeviceAttribute,
    DeviceCounterConsumption, DeviceTaint, ResourcePool, ResourceSlice, ResourceSliceSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::names;
use wharf_model::quantity::Quantity;

use super::Rules;
use super::pod::node_selector;
use super::storage::driver_name;
use crate::field::{Errors, Json, Path};

const SPEC: Path<'static> = Path::root("spec");
/// Upstream's bounds, so that one object stays small enough to look through.
const DEVICES_MAX: usize = 128;
/// The same where devices have taints or use counters.
const RICH_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const COUNTERS_MAX: usize = 32;
const CONSUMPTIONS_MAX: usize = 2;
const ATTRIBUTES_AND_CAPACITIES_MAX: usize = 32;
const TAINTS_MAX: usize = 16;
const CONDITIONS_MAX: usize = 4;
const VALID_VALUES_MAX: usize = 10;
const ID_LEN_MAX: usize = 32;
const VALUE_LEN_MAX: usize = 64;
const TAINT_EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const ONE_PLACE: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
const ONE_PLACE_PER_DEVICE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

impl Rules for ResourceSlice {
    const GENERATION: bool = true;

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        slice(&self.spec, None, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (new, old) = (&self.spec, &old.spec);
        slice(new, Some(old), errors);
        let pool = SPEC.child("pool");
        errors.immutable(&pool.child("name"), &new.pool.name, &old.pool.name);
        errors.immutable(&SPEC.child("driver"), &new.driver, &old.driver);
        errors.immutable(&SPEC.child("nodeName"), &new.node_name, &old.node_name);
    }
}

fn slice(spec: &ResourceSliceSpec, old: Option<&ResourceSliceSpec>, errors: &mut Errors) {
    driver_name(&SPEC.child("driver"), &spec.driver, errors);
    pool(&SPEC.child("pool"), &spec.pool, errors);
    place(spec, errors);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        errors.invalid(&SPEC, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let devices = spec.devices.as_deref().unwrap_or_default();
    let is_rich = devices.iter().any(|device| {
        device.taints.as_ref().is_some_and(|taints| !taints.is_empty())
            || device.consumes_counters.as_ref().is_some_and(|taken| !taken.is_empty())
    });
    let most = if is_rich { RICH_DEVICES_MAX } else { DEVICES_MAX };
    let per_device = spec.per_device_node_selection == Some(true);
    let known = |name: &str| {
        old.and_then(|old| old.devices.iter().flatten().find(|device| device.name == name))
    };
    let list = SPEC.child("devices");
    let name = |device: &Device| device.name.clone();
    each(&list, devices, most, name, errors, |path, new, errors| {
        device(path, new, known(&new.name), per_device, errors);
    });
    let sets = spec.shared_counters.as_deref().unwrap_or_default();
    let list = SPEC.child("sharedCounters");
    each(
        &list,
        sets,
        COUNTER_SETS_MAX,
        |set| set.name.clone(),
        errors,
        |path, set, errors| {
            label(&path.child("name"), &set.name, errors);
            counters(&path.child("counters"), &set.counters, errors);
        },
    );
}

/// Every item of a list that may hold so many and none twice. Of one that is too long nothing else
/// is looked at.
fn each<T>(
    path: &Path<'_>,
    items: &[T],
    most: usize,
    key: impl Fn(&T) -> String,
    errors: &mut Errors,
    mut check: impl FnMut(&Path<'_>, &T, &mut Errors),
) {
    if items.len() > most {
        errors.too_many(path, items.len(), most);
        return;
    }
    for (index, item) in items.iter().enumerate() {
        check(&path.index(index), item, errors);
    }
    let mut known = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let key = key(item);
        if known.contains(&key) {
            errors.duplicate(&path.index(index), &key);
        }
        known.insert(key);
    }
}

fn pool(path: &Path<'_>, pool: &ResourcePool, errors: &mut Errors) {
    let name = path.child("name");
    if pool.name.is_empty() {
        errors.required(&name, "");
    } else {
        if pool.name.len() > names::SUBDOMAIN_LEN_MAX {
            errors.too_long(&name, names::SUBDOMAIN_LEN_MAX);
        }
        for part in pool.name.split('/') {
            errors.invalid_each(&name, part, names::dns_1123_subdomain(part));
        }
    }
    if pool.resource_slice_count <= 0 {
        let path = path.child("resourceSliceCount");
        errors.invalid(&path, &pool.resource_slice_count, "must be greater than zero");
    }
    if pool.generation < 0 {
        let detail = "must be greater than or equal to zero";
        errors.invalid(&path.child("generation"), &pool.generation, detail);
    }
}

/// Where the devices of a slice are: said in one way.
fn place(spec: &ResourceSliceSpec, errors: &mut Errors) {
    let mut set = Vec::new();
    if let Some(node) = &spec.node_name {
        let path = SPEC.child("nodeName");
        if node.is_empty() {
            let detail = "must be either unset or set to a non-empty string";
            errors.invalid(&path, node, detail);
        } else {
            set.push("`nodeName`");
            errors.invalid_each(&path, node, names::dns_1123_subdomain(node));
        }
    }
    if let Some(selector) = &spec.node_selector {
        set.push("`nodeSelector`");
        let path = SPEC.child("nodeSelector");
        node_selector(&path, selector, errors);
        if selector.node_selector_terms.len() != 1 {
            let terms = Json(&selector.node_selector_terms);
            let detail = "must have exactly one node selector term";
            errors.invalid(&path.child("nodeSelectorTerms"), &terms, detail);
        }
    }
    only_true("allNodes", spec.all_nodes, &SPEC, &mut set, errors);
    let per_device = spec.per_device_node_selection;
    only_true("perDeviceNodeSelection", per_device, &SPEC, &mut set, errors);
    match set.len() {
        0 => errors.required(&SPEC, ONE_PLACE),
        1 => {}
        _ => {
            let detail = format!("{ONE_PLACE}, but multiple fields are set");
            errors.invalid(&SPEC, &format!("{{{}}}", set.join(", ")), &detail);
        }
    }
}

/// A field that is left out or true.
fn only_true(
    name: &'static str,
    value: Option<bool>,
    path: &Path<'_>,
    set: &mut Vec<&'static str>,
    errors: &mut Errors,
) {
    match value {
        None => {}
        Some(true) if name == "allNodes" => set.push("`allNodes`"),
        Some(true) => set.push("`perDeviceNodeSelection`"),
        Some(false) => {
            errors.invalid(&path.child(name), &false, "must be either unset or set to true");
        }
    }
}

fn device(
    path: &Path<'_>,
    device: &Device,
    old: Option<&Device>,
    per_device: bool,
    errors: &mut Errors,
) {
    errors.invalid_each(&path.child("name"), &device.name, names::dns_1123_label(&device.name));
    let attributes = device.attributes.iter().flatten();
    let capacities = device.capacity.iter().flatten();
    let total = attributes.clone().count() + capacities.clone().count();
    if total > ATTRIBUTES_AND_CAPACITIES_MAX {
        let detail = format!(
            "the total number of attributes and capacities must not exceed {ATTRIBUTES_AND_CAPACITIES_MAX}"
        );
        errors.invalid(path, &total, &detail);
    }
    let map = path.child("attributes");
    for (name, value) in attributes {
        let path = map.key(name);
        qualified_name(&path, name, errors);
        attribute(&path, value, errors);
    }
    let map = path.child("capacity");
    for (name, capacity) in capacities {
        let path = map.key(name);
        qualified_name(&path, name, errors);
        let Some(policy) = &capacity.request_policy else { continue };
        let path = path.child("requestPolicy");
        if device.allow_multiple_allocations == Some(true) {
            request_policy(&path, &capacity.value, policy, errors);
        } else {
            errors.forbidden(&path, "allowMultipleAllocations must be true");
        }
    }
    // What is as it was is not looked at again.
    if old.is_none_or(|old| old.taints != device.taints) {
        taints(&path.child("taints"), device.taints.as_deref().unwrap_or_default(), errors);
    }
    let consumed = device.consumes_counters.as_deref().unwrap_or_default();
    let list = path.child("consumesCounters");
    let key = |taken: &DeviceCounterConsumption| taken.counter_set.clone();
    each(&list, consumed, CONSUMPTIONS_MAX, key, errors, |path, taken, errors| {
        label(&path.child("counterSet"), &taken.counter_set, errors);
        counters(&path.child("counters"), &taken.counters, errors);
    });
    device_place(path, device, per_device, errors);
    binding_conditions(path, device, errors);
}

fn attribute(path: &Path<'_>, attribute: &DeviceAttribute, errors: &mut Errors) {
    if attribute.string.as_ref().is_some_and(|text| text.len() > VALUE_LEN_MAX) {
        errors.too_long(&path.child("string"), VALUE_LEN_MAX);
    }
    if let Some(version) = &attribute.version {
        let path = path.child("version");
        if !is_semver(version) {
            let detail = "must be a string compatible with semver.org spec 2.0.0";
            errors.invalid(&path, version, detail);
        }
        if version.len() > VALUE_LEN_MAX {
            errors.too_long(&path, VALUE_LEN_MAX);
        }
    }
    let set = usize::from(attribute.bool.is_some())
        + usize::from(attribute.int.is_some())
        + usize::from(attribute.string.is_some())
        + usize::from(attribute.version.is_some());
    match set {
        0 => errors.invalid(path, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(path, &Json(attribute), "exactly one value must be specified"),
    }
}

/// What may be asked of a capacity that several share.
fn request_policy(
    path: &Path<'_>,
    capacity: &ApiQuantity,
    policy: &CapacityRequestPolicy,
    errors: &mut Errors,
) {
    // What is no quantity has been refused before.
    let Ok(capacity) = Quantity::try_from(capacity) else { return };
    let default = policy.default.as_ref().and_then(|default| Quantity::try_from(default).ok());
    let values = policy.valid_values.as_deref().unwrap_or_default();
    match (values, &policy.valid_range) {
        ([_, ..], Some(_)) => errors.forbidden(
            path,
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        ([_, ..], None) => match default {
            None => errors.required(&path.child("default"), "required when validValues is defined"),
            Some(default) => {
                valid_values(&path.child("validValues"), values, default, capacity, errors);
            }
        },
        ([], Some(range)) => match default {
            None => errors.required(&path.child("default"), "required when validRange is defined"),
            Some(default) => {
                valid_range(&path.child("validRange"), range, default, capacity, errors);
            }
        },
        ([], None) => {}
    }
}

fn valid_values(
    path: &Path<'_>,
    values: &[ApiQuantity],
    default: Quantity,
    capacity: Quantity,
    errors: &mut Errors,
) {
    let values: Vec<Quantity> =
        values.iter().filter_map(|value| Quantity::try_from(value).ok()).collect();
    for (index, pair) in values.windows(2).enumerate() {
        if pair[0] > pair[1] {
            let detail = "values must be sorted in ascending order";
            errors.invalid(&path.index(index + 1), &pair[1].to_string(), detail);
        }
    }
    let key = |value: &Quantity| value.value_ceil().to_string();
    each(path, &values, VALID_VALUES_MAX, key, errors, |path, value, errors| {
        if *value > capacity {
            let detail = format!("option is larger than capacity value: {capacity}");
            errors.invalid(path, &value.to_string(), &detail);
        }
    });
    if values.len() > VALID_VALUES_MAX || !values.contains(&default) {
        let detail = "default value is not valid according to the requestPolicy";
        errors.invalid(path, &default.to_string(), detail);
    }
}

fn valid_range(
    path: &Path<'_>,
    range: &CapacityRequestPolicyRange,
    default: Quantity,
    capacity: Quantity,
    errors: &mut Errors,
) {
    let parse = |value: &ApiQuantity| Quantity::try_from(value).ok();
    let min_path = path.child("min");
    let Some(min) = parse(&range.min) else {
        errors.required(&min_path, "required when validRange is defined");
        return;
    };
    if min > capacity {
        let detail = format!("min is larger than capacity value: {capacity}");
        errors.invalid(&min_path, &min.to_string(), &detail);
    }
    if default < min {
        errors.invalid(&min_path, &default.to_string(), format!("default is less than min: {min}"));
    }
    let max = range.max.as_ref().and_then(parse);
    if let Some(max) = max {
        let path = path.child("max");
        if min > max {
            errors.invalid(&path, &min.to_string(), format!("min is larger than max: {max}"));
        }
        if max > capacity {
            let detail = format!("max is larger than capacity value: {capacity}");
            errors.invalid(&path, &max.to_string(), &detail);
        }
        if default > max {
            let detail = format!("default is more than max: {max}");
            errors.invalid(&path, &default.to_string(), &detail);
        }
    }
    let Some(step) = range.step.as_ref().and_then(parse) else { return };
    let path = path.child("step");
    let first = min.add(&step);
    if first > capacity {
        let detail = format!("one step {first} is larger than capacity value: {capacity}");
        errors.invalid(&path, &step.to_string(), &detail);
    }
    for value in [Some(default), max].into_iter().flatten() {
        let above = value.value_ceil().wrapping_sub(min.value_ceil());
        // Nothing is a multiple of no step at all; upstream fails to divide by it.
        if above.checked_rem(step.value_ceil()) != Some(0) {
            let detail = format!("value is not a multiple of a given step ({step}) from ({min})");
            errors.invalid(&path, &value.to_string(), &detail);
        }
    }
}

fn taints(path: &Path<'_>, taints: &[DeviceTaint], errors: &mut Errors) {
    if taints.len() > TAINTS_MAX {
        errors.too_many(path, taints.len(), TAINTS_MAX);
        return;
    }
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        errors.invalid_each(&path.child("key"), &taint.key, names::qualified_name(&taint.key));
        if let Some(value) = &taint.value {
            errors.invalid_each(&path.child("value"), value, names::label_value(value));
        }
        let effect = path.child("effect");
        if taint.effect.is_empty() {
            errors.required(&effect, "");
        } else if !TAINT_EFFECTS.contains(&taint.effect.as_str()) {
            errors.not_supported(&effect, &taint.effect, &TAINT_EFFECTS);
        }
    }
}

/// Where a device is, if its slice leaves that to devices.
fn device_place(path: &Path<'_>, device: &Device, per_device: bool, errors: &mut Errors) {
    if !per_device {
        if device.node_name.is_some()
            || device.node_selector.is_some()
            || device.all_nodes.is_some()
        {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.invalid(path, &Json(&()), detail);
        }
        return;
    }
    let mut set = Vec::new();
    if let Some(node) = &device.node_name {
        let path = path.child("nodeName");
        if node.is_empty() {
            errors.invalid(&path, node, "must not be empty");
        } else {
            set.push("`nodeName`");
            errors.invalid_each(&path, node, names::dns_1123_subdomain(node));
        }
    }
    if let Some(selector) = &device.node_selector {
        set.push("`nodeSelector`");
        node_selector(&path.child("nodeSelector"), selector, errors);
    }
    only_true("allNodes", device.all_nodes, path, &mut set, errors);
    match set.len() {
        0 => errors.required(path, ONE_PLACE_PER_DEVICE),
        1 => {}
        _ => errors.invalid(path, &format!("{{{}}}", set.join(", ")), ONE_PLACE_PER_DEVICE),
    }
}

/// Conditions under which pods are bound to a device, and under which they never will be: either
/// both or none, and no condition among both.
fn binding_conditions(path: &Path<'_>, device: &Device, errors: &mut Errors) {
    let (needed, failures) = (&device.binding_conditions, &device.binding_failure_conditions);
    let texts = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (needed_path, failures_path) =
        (path.child("bindingConditions"), path.child("bindingFailureConditions"));
    for (path, list) in [(&needed_path, texts(needed)), (&failures_path, texts(failures))] {
        each(path, &list, CONDITIONS_MAX, String::clone, errors, |path, condition, errors| {
            errors.invalid_each(path, condition, names::qualified_name(condition));
        });
    }
    for (index, failure) in texts(failures).iter().enumerate() {
        if texts(needed).contains(failure) {
            let detail = "bindingFailureConditions must not overlap with bindingConditions";
            errors.invalid(&failures_path.index(index), failure, detail);
        }
    }
    match (texts(needed).is_empty(), texts(failures).is_empty()) {
        (true, false) => {
            let detail = "bindingConditions are required to use bindingFailureConditions";
            errors.invalid(&needed_path, &Json(needed), detail);
        }
        (false, true) => {
            let detail = "bindingFailureConditions are required to use bindingConditions";
            errors.invalid(&failures_path, &Json(failures), detail);
        }
        _ => {}
    }
}

fn counters(path: &Path<'_>, counters: &BTreeMap<String, Counter>, errors: &mut Errors) {
    if counters.is_empty() {
        errors.required(path, "");
    } else if counters.len() > COUNTERS_MAX {
        errors.too_many(path, counters.len(), COUNTERS_MAX);
    } else {
        for name in counters.keys() {
            errors.invalid_each(&path.key(name), name, names::dns_1123_label(name));
        }
    }
}

fn label(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        errors.invalid_each(path, name, names::dns_1123_label(name));
    }
}

/// The name of an attribute or a capacity: an identifier, of a domain or of the driver's. As
/// upstream has it, what has more than one slash is not looked at.
fn qualified_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [id] => identifier(path, id, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.invalid(path, "", "the domain must not be empty");
            } else {
                driver_name(path, domain, errors);
            }
            if id.is_empty() {
                errors.invalid(path, "", "the name must not be empty");
            } else {
                identifier(path, id, errors);
            }
        }
        _ => {}
    }
}

fn identifier(path: &Path<'_>, id: &str, errors: &mut Errors) {
    if id.len() > ID_LEN_MAX {
        errors.too_long(path, ID_LEN_MAX);
    }
    errors.invalid_each(path, id, names::c_identifier(id));
}

/// Whether a text is a version by <https://semver.org> 2.0.0.
fn is_semver(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (core, release) = match text.split_once('-') {
        Some((core, release)) => (core, Some(release)),
        None => (text, None),
    };
    let is_all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(number)
        && release.is_none_or(|release| {
            release.split('.').all(|part| word(part) && (!is_all_digits(part) || number(part)))
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

#[cfg(test)]
mod tests;
