//! LimitRanges:
//! <https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/limit-range-v1/>.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::names;
use wharf_model::quantity::Quantity;

use super::Rules;
use crate::field::{Errors, Path};

type List = BTreeMap<String, ApiQuantity>;

impl Rules for LimitRange {
    fn set_defaults(&mut self) {
        let items = self.spec.iter_mut().flat_map(|spec| &mut spec.limits);
        for item in items.filter(|item| item.type_ == "Container") {
            // A limit defaults to the maximum, a request to the limit, else to the minimum.
            let default = item.default.get_or_insert_default();
            for (name, amount) in item.max.iter().flatten() {
                default.entry(name.clone()).or_insert_with(|| amount.clone());
            }
            let request = item.default_request.get_or_insert_default();
            for (name, amount) in default.iter().chain(item.min.iter().flatten()) {
                request.entry(name.clone()).or_insert_with(|| amount.clone());
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let root = Path::root("spec");
        let limits = root.child("limits");
        let mut types: BTreeSet<&str> = BTreeSet::new();
        let items = self.spec.iter().flat_map(|spec| &spec.limits);
        for (index, item) in items.enumerate() {
            let path = limits.index(index);
            let path_of_type = path.child("type");
            errors.invalid_each(&path_of_type, &item.type_, names::qualified_name(&item.type_));
            if !types.insert(&item.type_) {
                errors.duplicate(&path_of_type, &item.type_);
            }
            one(item, &path, errors);
        }
    }
}

fn one(item: &LimitRangeItem, path: &Path<'_>, errors: &mut Errors) {
    if item.type_ == "Pod" {
        for (field, list) in [("default", &item.default), ("defaultRequest", &item.default_request)]
        {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.forbidden(&path.child(field), detail);
            }
        }
    }
    if item.type_ == "PersistentVolumeClaim" {
        let has = |list: &Option<List>| list.as_ref().is_some_and(|l| l.contains_key("storage"));
        if !has(&item.min) && !has(&item.max) {
            let detail =
                "either minimum or maximum storage value is required, but neither was provided";
            errors.required(&path.child("limits"), detail);
        }
    }
    let lists = [&item.max, &item.min, &item.default, &item.default_request];
    let all = lists.iter().copied().chain([&item.max_limit_request_ratio]);
    let keys: BTreeSet<&String> = all.flatten().flat_map(|list| list.keys()).collect();
    for key in keys {
        let get = |list: &Option<List>| Quantity::parse(&list.as_ref()?.get(key)?.0).ok();
        let [max, min, default, request] = lists.map(get);
        let told = |amount: Quantity| amount.to_api().0;
        let mut ordered = |field: &str, shown: Quantity, low, high, between: (&str, &str)| {
            let (low, high): (Quantity, Quantity) = (low, high);
            if low > high {
                let (low_word, high_word) = between;
                let detail = format!(
                    "{low_word} value {} is greater than {high_word} value {}",
                    told(low),
                    told(high)
                );
                errors.invalid(&path.child(field).key(key), &told(shown), detail);
            }
        };
        if let (Some(min), Some(max)) = (min, max) {
            ordered("min", min, min, max, ("min", "max"));
        }
        if let (Some(min), Some(request)) = (min, request) {
            ordered("defaultRequest", request, min, request, ("min", "default request"));
        }
        if let (Some(request), Some(max)) = (request, max) {
            ordered("defaultRequest", request, request, max, ("default request", "max"));
        }
        if let (Some(request), Some(default)) = (request, default) {
            let words = ("default request", "default limit");
            ordered("defaultRequest", request, request, default, words);
        }
        if let (Some(min), Some(default)) = (min, default) {
            ordered("default", min, min, default, ("min", "default"));
        }
        if let (Some(default), Some(max)) = (default, max) {
            ordered("default", max, default, max, ("default", "max"));
        }
        if let Some(ratio) = get(&item.max_limit_request_ratio) {
            let field = path.child("maxLimitRequestRatio");
            let place = field.key(key);
            if ratio.as_f64() < 1.0 {
                let detail = format!("ratio {} is less than 1", told(ratio));
                errors.invalid(&place, &told(ratio), detail);
            }
            if let (Some(min), Some(max)) = (min, max)
                && !min.is_zero()
                && ratio.as_f64() > max.as_f64() / min.as_f64()
            {
                let detail = format!(
                    "ratio {} is greater than max/min = {:.6}",
                    told(ratio),
                    max.as_f64() / min.as_f64()
                );
                errors.invalid(&place, &told(ratio), detail);
            }
        }
    }
}
