//! Dynamic resource allocation: claims, their templates and classes of devices.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>
//!
//! CEL expressions are not compiled here; the scheduler says what is wrong with one.

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{
    DeviceClass, DeviceRequest, DeviceSelector, ResourceClaim, ResourceClaimSpec,
    ResourceClaimStatus, ResourceClaimTemplate,
};
use wharf_model::names;
use wharf_model::time::Time;

use super::Rules;
use super::pod::defaults::fill;
use super::pod::validate::one_of;
use crate::field::{Errors, Path};

const SPEC: Path<'static> = Path::root("spec");
const ALLOCATION_MODES: [&str; 2] = ["All", "ExactCount"];
const EXACT_COUNT: &str = "ExactCount";
/// Upstream's bounds on lists, so that one object stays small enough to look through.
const REQUESTS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const SUB_REQUESTS_MAX: usize = 8;
const CONSUMERS_MAX: usize = 256;

impl Rules for ResourceClaim {
    fn set_defaults(&mut self) {
        claim_defaults(&mut self.spec);
    }

    fn prepare_create(&mut self, _now: Time) {
        self.status = Some(ResourceClaimStatus::default());
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }

    fn validate(&self, errors: &mut Errors) {
        claim(&SPEC, &self.spec, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable(&SPEC, &self.spec, &old.spec);
        let consumers = self.status.as_ref().and_then(|status| status.reserved_for.as_ref());
        let count = consumers.map_or(0, Vec::len);
        if count > CONSUMERS_MAX {
            let path = Path::root("status");
            errors.too_many(&path.child("reservedFor"), count, CONSUMERS_MAX);
        }
    }
}

impl Rules for ResourceClaimTemplate {
    fn set_defaults(&mut self) {
        claim_defaults(&mut self.spec.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        claim(&SPEC.child("spec"), &self.spec.spec, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        errors.immutable(&SPEC, &self.spec, &old.spec);
    }
}

impl Rules for DeviceClass {
    const GENERATION: bool = true;

    fn starts_generation(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let selectors = self.spec.selectors.as_deref().unwrap_or_default();
        self::selectors(&SPEC.child("selectors"), selectors, errors);
        if let Some(name) = &self.spec.extended_resource_name {
            let path = SPEC.child("extendedResourceName");
            errors.invalid_each(&path, name, names::qualified_name(name));
        }
    }
}

/// One device, unless all or more are asked for.
fn claim_defaults(spec: &mut ResourceClaimSpec) {
    let requests = spec.devices.iter_mut().flat_map(|devices| devices.requests.iter_mut());
    for request in requests.flatten() {
        let subrequests = request.first_available.iter_mut().flatten();
        let all = request
            .exactly
            .iter_mut()
            .map(|request| (&mut request.allocation_mode, &mut request.count))
            .chain(subrequests.map(|request| (&mut request.allocation_mode, &mut request.count)));
        for (mode, count) in all {
            fill(mode, EXACT_COUNT);
            if mode.as_deref() == Some(EXACT_COUNT) && count.unwrap_or(0) == 0 {
                *count = Some(1);
            }
        }
    }
}

fn claim(path: &Path<'_>, spec: &ResourceClaimSpec, errors: &mut Errors) {
    let Some(devices) = &spec.devices else { return };
    let path = path.child("devices");
    let list = path.child("requests");
    let requests = devices.requests.as_deref().unwrap_or_default();
    if requests.len() > REQUESTS_MAX {
        errors.too_many(&list, requests.len(), REQUESTS_MAX);
    }
    let mut known = BTreeSet::new();
    for (index, request) in requests.iter().enumerate() {
        self::request(&list.index(index), request, &mut known, errors);
    }
    let constraints = path.child("constraints");
    for (index, constraint) in devices.constraints.iter().flatten().enumerate() {
        let path = constraints.index(index);
        refer(&path.child("requests"), constraint.requests.as_ref(), &known, errors);
        match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (None, None) => errors.required(&path.child("matchAttribute"), ""),
            (Some(attribute), _) | (None, Some(attribute)) => {
                if !attribute.contains('/') {
                    let path = path.child("matchAttribute");
                    errors.invalid(&path, attribute, "must include a domain");
                }
            }
        }
    }
    let configs = path.child("config");
    for (index, config) in devices.config.iter().flatten().enumerate() {
        let path = configs.index(index);
        refer(&path.child("requests"), config.requests.as_ref(), &known, errors);
        if config.opaque.is_none() {
            errors.required(&path.child("opaque"), "");
        }
    }
}

/// A request, and under which names others refer to it and to its alternatives.
fn request(
    path: &Path<'_>,
    request: &DeviceRequest,
    known: &mut BTreeSet<String>,
    errors: &mut Errors,
) {
    request_name(&path.child("name"), &request.name, "", known, errors);
    let alternatives = request.first_available.as_deref().unwrap_or_default();
    match (&request.exactly, alternatives.is_empty()) {
        (None, true) => {
            errors.required(path, "exactly one of `exactly` or `firstAvailable` is required");
        }
        (Some(_), false) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(path, "", detail);
        }
        (Some(exactly), true) => {
            let path = path.child("exactly");
            let selectors = exactly.selectors.as_deref().unwrap_or_default();
            let mode = exactly.allocation_mode.as_deref();
            self::selectors(&path.child("selectors"), selectors, errors);
            amount(&path, &exactly.device_class_name, mode, exactly.count, errors);
        }
        (None, false) => {}
    }
    let list = path.child("firstAvailable");
    if alternatives.len() > SUB_REQUESTS_MAX {
        errors.too_many(&list, alternatives.len(), SUB_REQUESTS_MAX);
    }
    for (index, alternative) in alternatives.iter().enumerate() {
        let path = list.index(index);
        let parent = format!("{}/", request.name);
        request_name(&path.child("name"), &alternative.name, &parent, known, errors);
        let selectors = alternative.selectors.as_deref().unwrap_or_default();
        let mode = alternative.allocation_mode.as_deref();
        self::selectors(&path.child("selectors"), selectors, errors);
        amount(&path, &alternative.device_class_name, mode, alternative.count, errors);
    }
}

fn request_name(
    path: &Path<'_>,
    name: &str,
    parent: &str,
    known: &mut BTreeSet<String>,
    errors: &mut Errors,
) {
    errors.invalid_each(path, name, names::dns_1123_label(name));
    if !known.insert(format!("{parent}{name}")) {
        errors.duplicate(path, name);
    }
}

fn amount(
    path: &Path<'_>,
    class: &str,
    mode: Option<&str>,
    count: Option<i64>,
    errors: &mut Errors,
) {
    let class_path = path.child("deviceClassName");
    if class.is_empty() {
        errors.required(&class_path, "");
    } else {
        errors.invalid_each(&class_path, class, names::dns_1123_subdomain(class));
    }
    one_of(&path.child("allocationMode"), mode, &ALLOCATION_MODES, errors);
    let path = path.child("count");
    match (mode, count) {
        (Some("All"), Some(count)) if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.invalid(&path, &count, detail);
        }
        (Some(EXACT_COUNT), Some(count)) if count <= 0 => {
            errors.invalid(&path, &count, "must be greater than zero");
        }
        _ => {}
    }
}

fn selectors(path: &Path<'_>, selectors: &[DeviceSelector], errors: &mut Errors) {
    if selectors.len() > SELECTORS_MAX {
        errors.too_many(path, selectors.len(), SELECTORS_MAX);
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("cel");
        match &selector.cel {
            None => errors.required(&path, ""),
            Some(cel) if cel.expression.is_empty() => {
                errors.required(&path.child("expression"), "");
            }
            Some(_) => {}
        }
    }
}

/// Names of requests that a part of the claim is about.
fn refer(
    path: &Path<'_>,
    names: Option<&Vec<String>>,
    known: &BTreeSet<String>,
    errors: &mut Errors,
) {
    for (index, name) in names.into_iter().flatten().enumerate() {
        if !known.contains(name) {
            let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
            errors.invalid(&path.index(index), name, detail);
        }
    }
}
