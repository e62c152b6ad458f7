//! What must hold of any input to the parsers of `wharf-model`.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, PodSpec};
use wharf_model::duration::{self, GoDuration};
use wharf_model::quantity::Quantity;
use wharf_model::requirements::{Preferences, Requirement, Requirements};
use wharf_model::selector::{FieldSelector, Selector};

/// Two texts, one a line: quantities that are printed, rounded, compared and added.
pub(crate) fn quantity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, second) = text.split_once('\n').unwrap_or((text, "1"));
    let Ok(first) = Quantity::parse(first) else { return };
    for quantity in [first, first.round_up(-3), first.round_up(0)] {
        let printed = quantity.to_string();
        let again = Quantity::parse(&printed);
        assert_eq!(again.as_ref(), Ok(&quantity), "{printed}");
        assert_eq!(again.map(|again| again.to_string()).as_ref(), Ok(&printed));
    }
    let _ = (first.value_ceil(), first.milli_value_ceil(), first.as_f64());
    let Ok(second) = Quantity::parse(second) else { return };
    assert_eq!(first.cmp(&second), second.cmp(&first).reverse());
    assert_eq!(first.add(&second), second.add(&first));
    let _ = first.sub(&second).sub(&first).add(&second).to_string();
}

/// A duration: what is printed means the same.
pub(crate) fn go_duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(nanos) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::format(nanos)), Ok(nanos));
        let _ = (duration::human(nanos), duration::short_human(nanos));
    }
    if let Ok(duration) = GoDuration::parse(text) {
        assert_eq!(GoDuration::parse(&duration.to_string()), Ok(duration));
    }
}

/// A label selector: what is printed selects the same.
pub(crate) fn label_selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = Selector::parse(text) else { return };
    let printed = selector.to_string();
    let again = Selector::parse(&printed);
    assert_eq!(again.as_ref(), Ok(&selector), "{printed}");
    for requirement in selector.requirements() {
        for value in requirement.values() {
            let _ = selector.matches([(requirement.key(), value)].as_slice());
        }
    }
}

/// A field selector: what is printed selects the same. Terms are sorted as they were written, so
/// that their order settles only when they were printed once.
pub(crate) fn field_selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = FieldSelector::parse(text) else { return };
    let printed = selector.to_string();
    let again = FieldSelector::parse(&printed);
    let again = again.unwrap_or_else(|error| panic!("{printed}: {error}"));
    assert_eq!(FieldSelector::parse(&again.to_string()).as_ref(), Ok(&again), "{printed}");
    for value in ["", "a", "b"] {
        assert_eq!(selector.matches(|_| Some(value)), again.matches(|_| Some(value)));
    }
}

/// Requirements as JSON (a pod's spec, or a list of node selector requirements).
pub(crate) fn requirements(data: &[u8]) {
    if let Ok(spec) = serde_json::from_slice::<PodSpec>(data) {
        let _ = Requirements::from_pod(&spec, Preferences::Required);
        return;
    }
    let Ok(list) = serde_json::from_slice::<Vec<NodeSelectorRequirement>>(data) else { return };
    let Ok(all) = Requirements::from_node_selector_requirements(&list) else { return };
    let _ = all.is_compatible(&all, wharf_model::requirements::Undefined::Denied);
    let mut previous: Option<Requirement> = None;
    for requirement in all.iter() {
        let _ = requirement.to_string();
        let _ = requirement.any(|range| {
            assert!(!range.is_empty(), "{requirement:?} chooses from nothing");
            range.start
        });
        let both = requirement.intersection(requirement);
        assert_eq!(both.has("1"), requirement.has("1"));
        assert_eq!(both.has("x"), requirement.has("x"));
        let printed = requirement.to_node_selector_requirements();
        let again = Requirements::from_node_selector_requirements(&printed);
        let again = again.expect("what requirements print is well-formed");
        let again = again.get(&requirement.key).expect("the key is a normal one already");
        assert_eq!(again.has("7"), requirement.has("7"), "{printed:?}");
        if let Some(previous) = &previous {
            let _ = previous.intersection(requirement).to_string();
            let _ = previous.has_intersection(requirement);
        }
        previous = Some(requirement.clone());
    }
}
