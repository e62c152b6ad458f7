//! The Horizontal Pod Autoscaler's controller: every autoscaler's pass, one after the other.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::json;
use wharf_controllers::hpa::HorizontalPodAutoscalers;
use wharf_model::kinds::Kind;
use wharf_model::metrics::{ContainerUsage, NodeMetrics, PodMetrics, Sample};
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_ports::cluster::Write;
use wharf_ports::controller::{Context, Controller, WorkKey};
use wharf_ports::metrics::{MetricQuery, Metrics, PodQuery};

use super::Measured;
use super::objects::{World, name, namespace};
use crate::cli::AutoscaleArgs;
use crate::commands::bench::memory_kib;
use crate::failure::Failure;
use crate::lab::clock::machine_instant;

const START: Time = Time::from_seconds(1_795_255_200);
const ROUND: Duration = Duration::from_secs(15);
/// Rounds that are not counted: in the first each autoscaler only learns when its pass is due, in
/// the second it meets everything for the first time.
const ROUNDS_BEFORE: u32 = 2;

/// Measures rounds in which every autoscaler has a new status to write.
pub(super) fn measure(args: &AutoscaleArgs) -> Result<Measured, Failure> {
    let mut world = World::new(args.autoscalers, args.pods)?;
    let kind = Kind::of::<HorizontalPodAutoscaler>();
    let mut keys = Vec::new();
    for index in 0..args.autoscalers {
        let (namespace, name) = (namespace(index), name(index));
        world.add::<HorizontalPodAutoscaler>(json!({
            "metadata": {"name": name, "namespace": namespace, "uid": format!("h-{index}"),
                "creationTimestamp": START.to_string()},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": 1,
                "maxReplicas": 100,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}],
            },
        }))?;
        keys.push(WorkKey::object(kind, &ObjectKey::namespaced(namespace, name)));
    }
    let before = memory_kib("self", "VmRSS:");
    let mut controller = HorizontalPodAutoscalers::new(Default::default(), Arc::new(Swaying));
    world.show_to(&mut controller);
    let mut random = Random::new(1, 1);
    let mut measured =
        Measured { controller: "hpa", rounds: Vec::new(), writes: 0, resident_kib: 0 };
    let mut now = START;
    for run in 0..args.runs.max(1) + ROUNDS_BEFORE {
        let begun = machine_instant();
        let mut writes = Vec::new();
        for key in &keys {
            let mut context = Context { view: &world.view, now, random: &mut random };
            writes.extend(controller.step(key, &mut context).writes);
        }
        let took = begun.elapsed();
        if run >= ROUNDS_BEFORE {
            measured.rounds.push(took);
        }
        measured.writes = writes.len();
        for write in writes {
            if let Write::Update { object, .. } = write {
                world.put(object);
            }
        }
        now = now + ROUND;
    }
    measured.resident_kib = memory_kib("self", "VmRSS:").saturating_sub(before);
    Ok(measured)
}

/// Usage that sways within the tolerance, so that there is something to say, but not to scale.
struct Swaying;

impl Metrics for Swaying {
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String> {
        let is_even = (now.since(START).as_secs() / ROUND.as_secs()).is_multiple_of(2);
        let usage = vec![("cpu".into(), Quantity::from_milli(if is_even { 49 } else { 51 }))];
        let measured = |name: &&str| PodMetrics {
            namespace: pods.namespace.into(),
            pod: (*name).into(),
            timestamp: now,
            window: ROUND,
            containers: vec![ContainerUsage { name: "app".into(), usage: usage.clone() }],
        };
        Ok(pods.names.iter().map(measured).collect())
    }

    fn node_metrics(&self, _: Time) -> Result<Vec<NodeMetrics>, String> {
        Ok(Vec::new())
    }

    fn samples(&self, _: &MetricQuery<'_>, _: Time) -> Result<Vec<Sample>, String> {
        Ok(Vec::new())
    }
}
