//! The lab of the Horizontal Pod Autoscaler as a rehearsal: load makes more pods, its going fewer.

use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Event;
use wharf_model::object::ObjectKey;
use wharf_sim::rehearsal::{Options, Rehearsal};
use wharf_sim::scenario;

/// The counts of the lab's pods in their order, and what the autoscaler said of them.
fn run(seed: u64) -> (Vec<i32>, Vec<String>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../labs/hpa/scenario.yaml");
    let scenario = scenario::load(&file).expect("a scenario");
    let options = Options { seed: Some(seed), ..Options::default() };
    let mut rehearsal = Rehearsal::new(scenario, &options).expect("a world");
    let key = ObjectKey::namespaced("default", "php-apache");
    let mut counts = Vec::new();
    while rehearsal.advance().expect("it comes to rest") {
        let deployment = rehearsal.view().get::<Deployment>(&key);
        let count = deployment.and_then(|it| it.spec.as_ref()).and_then(|spec| spec.replicas);
        if let Some(count) = count
            && counts.last() != Some(&count)
        {
            counts.push(count);
        }
    }
    let events = rehearsal.view().list::<Event>();
    let mut rescales: Vec<_> = events
        .filter(|event| event.reason.as_deref() == Some("SuccessfulRescale"))
        .map(|event| (event.first_timestamp.clone(), event.message.clone().unwrap_or_default()))
        .collect();
    rescales.sort_by(|left, right| left.0.cmp(&right.0));
    (counts, rescales.into_iter().map(|(_, message)| message).collect())
}

#[test]
fn load_makes_more_pods_and_its_going_takes_them_back() {
    let (counts, events) = run(1);
    assert_eq!((counts.first(), counts.last()), (Some(&1), Some(&1)), "{counts:?}");
    let most = counts.iter().copied().max().unwrap_or(0);
    assert!((4..=10).contains(&most), "{counts:?}");
    let up = "reason: cpu resource utilization (percentage of request) above target";
    assert!(events.first().is_some_and(|text| text.ends_with(up)), "{events:?}");
    let last = "New size: 1; reason: All metrics below target";
    assert_eq!(events.last().map(String::as_str), Some(last), "{events:?}");
    assert_eq!(run(1), (counts, events), "one seed, one history");
}
