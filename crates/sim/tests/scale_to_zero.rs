//! The lab of a worker that runs only while there is work, as a rehearsal: with the feature gate
//! `HPAScaleToZero` it goes down to no pod and comes back, without it the autoscaler is refused.

use std::path::Path;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use wharf_model::gates::FeatureGates;
use wharf_model::object::ObjectKey;
use wharf_sim::rehearsal::{Options, Rehearsal, RehearsalError};
use wharf_sim::scenario;

fn rehearsal(gates: FeatureGates) -> Result<Rehearsal, RehearsalError> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../labs/hpa/queue-scenario.yaml");
    let scenario = scenario::load(&file).expect("a scenario");
    Rehearsal::new(scenario, &Options { gates, ..Options::default() })
}

#[test]
fn workers_go_and_come_back_with_the_work() {
    let gates = FeatureGates { hpa_scale_to_zero: true, ..FeatureGates::default() };
    let mut rehearsal = rehearsal(gates).expect("a world");
    let key = ObjectKey::namespaced("default", "worker");
    let mut history: Vec<String> = Vec::new();
    while rehearsal.advance().expect("it comes to rest") {
        let Some(hpa) = rehearsal.view().get::<HorizontalPodAutoscaler>(&key) else { continue };
        let status = hpa.status.clone().unwrap_or_default();
        let conditions = status.conditions.iter().flatten();
        let zero = conditions.into_iter().find(|condition| condition.type_ == "ScaledToZero");
        let zero = zero.map_or("", |condition| condition.status.as_str());
        if status.last_scale_time.is_some() {
            let line = format!("{} {zero}", status.desired_replicas);
            if history.last() != Some(&line) {
                history.push(line);
            }
        }
    }
    // Five minutes of stabilisation, then none; 60 messages at 20 a worker are three; then none.
    assert_eq!(history, ["0 True", "3 False", "0 True"]);
}

#[test]
fn without_the_gate_the_autoscaler_is_refused() {
    let error = rehearsal(FeatureGates::default()).err().expect("minReplicas is 0").to_string();
    assert!(
        error.contains(
            "HorizontalPodAutoscaler.autoscaling \"worker\" is invalid: spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"
        ),
        "{error}"
    );
}
