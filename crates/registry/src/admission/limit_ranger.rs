//! The LimitRanger: new pods get the requests and limits that their namespace gives to containers
//! without any, and are refused beyond its bounds, as are claims on storage.
//!
//! Public contract: <https://kubernetes.io/docs/concepts/policy/limit-range/>. Pods are looked at when
//! they are made; what an autoscaler makes of them in between is held to the bounds, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, Typed};
use wharf_model::quantity::Quantity;
use wharf_ports::error::ApiError;
use wharf_store::Store;

/// What says which amounts were filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type List = BTreeMap<String, ApiQuantity>;

/// Fills in what containers lack, and says so in an annotation.
pub(super) fn fill_in(store: &Store, pod: &mut Pod) {
    let objects = ranges(store, pod.metadata.namespace.as_deref());
    let mut told: Vec<String> = Vec::new();
    for range in objects.iter().filter_map(|object| object.typed::<LimitRange>()) {
        let (mut requests, mut limits) = (List::new(), List::new());
        for item in items(range, "Container") {
            requests.extend(item.default_request.clone().unwrap_or_default());
            limits.extend(item.default.clone().unwrap_or_default());
        }
        let Some(spec) = &mut pod.spec else { return };
        let mains = spec.containers.iter_mut().map(|container| ("container", container));
        let init = spec.init_containers.iter_mut().flatten();
        for (what, container) in mains.chain(init.map(|container| ("init container", container))) {
            let resources = container.resources.get_or_insert_with(ResourceRequirements::default);
            for (list, defaults, word) in [
                (&mut resources.requests, &requests, "request"),
                (&mut resources.limits, &limits, "limit"),
            ] {
                let mut set = Vec::new();
                for (name, amount) in defaults {
                    let has = list.as_ref().is_some_and(|list| list.contains_key(name));
                    if !has {
                        list.get_or_insert_default().insert(name.clone(), amount.clone());
                        set.push(name.as_str());
                    }
                }
                if !set.is_empty() {
                    told.push(format!("{} {word} for {what} {}", set.join(", "), container.name));
                }
            }
        }
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.to_owned(), text);
    }
}

/// Refuses a pod beyond the bounds.
pub(super) fn check_pod(store: &Store, pod: &Pod) -> Result<(), ApiError> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    for object in ranges(store, pod.metadata.namespace.as_deref()) {
        let Some(range) = object.typed::<LimitRange>() else { continue };
        let mut errors = Vec::new();
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        for (item, container) in
            items(range, "Container").flat_map(|item| all.clone().map(move |one| (item, one)))
        {
            let resources = container.resources.as_ref();
            let empty = List::new();
            let requests = resources.and_then(|r| r.requests.as_ref()).unwrap_or(&empty);
            let limits = resources.and_then(|r| r.limits.as_ref()).unwrap_or(&empty);
            errors.extend(broken(item, &amounts(requests), &amounts(limits)));
        }
        for item in items(range, "Pod") {
            let init = spec.init_containers.as_deref().unwrap_or_default();
            let requests = whole(&spec.containers, init, |r| r.requests.as_ref());
            let limits = whole(&spec.containers, init, |r| r.limits.as_ref());
            errors.extend(broken(item, &requests, &limits));
        }
        let name = pod.metadata.name.as_deref().or(pod.metadata.generate_name.as_deref());
        refuse(Kind::of::<Pod>(), name, &errors)?;
    }
    Ok(())
}

/// Refuses a claim beyond the bounds.
pub(super) fn check_claim(store: &Store, claim: &PersistentVolumeClaim) -> Result<(), ApiError> {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.clone()).unwrap_or_default();
    for object in ranges(store, claim.metadata.namespace.as_deref()) {
        let Some(range) = object.typed::<LimitRange>() else { continue };
        let mut errors = Vec::new();
        for item in items(range, "PersistentVolumeClaim") {
            // A claim has no limits: its request is held to both bounds.
            let requests = amounts(&requests);
            let bounds = LimitRangeItem {
                max: item.max.clone(),
                min: item.min.clone(),
                type_: item.type_.clone(),
                ..LimitRangeItem::default()
            };
            errors.extend(broken(&bounds, &requests, &requests));
        }
        refuse(Typed::kind(claim), claim.metadata.name.as_deref(), &errors)?;
    }
    Ok(())
}

fn ranges(store: &Store, namespace: Option<&str>) -> Vec<Arc<Object>> {
    store.list(Kind::of::<LimitRange>(), namespace).0
}

fn items<'a>(range: &'a LimitRange, type_: &'a str) -> impl Iterator<Item = &'a LimitRangeItem> {
    range.spec.iter().flat_map(|spec| &spec.limits).filter(move |item| item.type_ == type_)
}

fn amounts<'a>(list: &'a List) -> BTreeMap<&'a str, Quantity> {
    let read = |(name, amount): (&'a String, &ApiQuantity)| {
        Some((name.as_str(), Quantity::parse(&amount.0).ok()?))
    };
    list.iter().filter_map(read).collect()
}

/// What a pod asks for: its containers together, or its largest init container.
fn whole<'a>(
    containers: &'a [Container],
    init: &'a [Container],
    list: impl Fn(&'a ResourceRequirements) -> Option<&'a List>,
) -> BTreeMap<&'a str, Quantity> {
    let of = |container: &'a Container| {
        container.resources.as_ref().and_then(&list).map(amounts).unwrap_or_default()
    };
    let mut sum: BTreeMap<&str, Quantity> = BTreeMap::new();
    for (name, amount) in containers.iter().flat_map(of) {
        let known = sum.entry(name).or_insert(Quantity::ZERO);
        *known = known.add(&amount);
    }
    for (name, amount) in init.iter().flat_map(of) {
        let known = sum.entry(name).or_insert(amount);
        *known = (*known).max(amount);
    }
    sum
}

/// What is beyond an item's bounds, in upstream's words.
fn broken(
    item: &LimitRangeItem,
    requests: &BTreeMap<&str, Quantity>,
    limits: &BTreeMap<&str, Quantity>,
) -> Vec<String> {
    let per = &item.type_;
    let mut errors = Vec::new();
    let told = |amount: &Quantity| amount.to_api().0;
    for (name, least) in item.min.iter().flatten() {
        let Ok(bound) = Quantity::parse(&least.0) else { continue };
        let least = told(&bound);
        let (request, limit) = (requests.get(name.as_str()), limits.get(name.as_str()));
        match (request, limit) {
            (None, _) => errors.push(format!(
                "minimum {name} usage per {per} is {least}.  No request is specified"
            )),
            (Some(request), _) if *request < bound => errors.push(format!(
                "minimum {name} usage per {per} is {least}, but request is {}",
                told(request)
            )),
            (_, Some(limit)) if *limit < bound => errors.push(format!(
                "minimum {name} usage per {per} is {least}, but limit is {}",
                told(limit)
            )),
            _ => {}
        }
    }
    for (name, most) in item.max.iter().flatten() {
        let Ok(bound) = Quantity::parse(&most.0) else { continue };
        let most = told(&bound);
        let (request, limit) = (requests.get(name.as_str()), limits.get(name.as_str()));
        match (request, limit) {
            (_, None) => errors
                .push(format!("maximum {name} usage per {per} is {most}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => {
                // Of a claim it is its request that is told.
                let word = if per == "PersistentVolumeClaim" { "request" } else { "limit" };
                errors.push(format!(
                    "maximum {name} usage per {per} is {most}, but {word} is {}",
                    told(limit)
                ));
            }
            (Some(request), _) if *request > bound => errors.push(format!(
                "maximum {name} usage per {per} is {most}, but request is {}",
                told(request)
            )),
            _ => {}
        }
    }
    for (name, ratio) in item.max_limit_request_ratio.iter().flatten() {
        let Ok(bound) = Quantity::parse(&ratio.0) else { continue };
        let start = format!("{name} max limit to request ratio per {per} is {}", told(&bound));
        let set = |list: &BTreeMap<&str, Quantity>| {
            list.get(name.as_str()).filter(|amount| !amount.is_zero()).map(Quantity::as_f64)
        };
        match (set(requests), set(limits)) {
            (None, _) => {
                errors.push(format!("{start}, but no request is specified or request is 0"));
            }
            (_, None) => errors.push(format!("{start}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) if limit / request > bound.as_f64() => {
                errors.push(format!("{start}, but provided ratio is {:.6}", limit / request));
            }
            _ => {}
        }
    }
    errors
}

fn refuse(kind: Kind, name: Option<&str>, errors: &[String]) -> Result<(), ApiError> {
    let text = match errors {
        [] => return Ok(()),
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    Err(ApiError::forbidden(kind, name.unwrap_or_default(), &text))
}
