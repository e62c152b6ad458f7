//! The Vertical Pod Autoscaler's two controllers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wharf_controllers::vpa::recommender::Recommender;
use wharf_controllers::vpa::updater::Updater;
use wharf_model::metrics::{ContainerUsage, NodeMetrics, PodMetrics, Sample};
use wharf_model::quantity::{Format, Quantity};
use wharf_model::random::{Random, fnv1a};
use wharf_model::time::Time;
use wharf_model::vpa::VerticalPodAutoscaler;
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
const ROUND: Duration = Duration::from_secs(60);

/// Measures rounds of both controllers. The first round, which meets everything for the first
/// time, is not counted.
pub(super) fn measure(args: &AutoscaleArgs) -> Result<Vec<Measured>, Failure> {
    let mut world = World::new(args.autoscalers, args.pods)?;
    for index in 0..args.autoscalers {
        let (namespace, name) = (namespace(index), name(index));
        world.add::<VerticalPodAutoscaler>(json!({
            "metadata": {"name": name, "namespace": namespace, "uid": format!("v-{index}")},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "updatePolicy": {"updateMode": "Recreate"},
                "resourcePolicy": {"containerPolicies": [
                    {"containerName": "*", "maxAllowed": {"cpu": "4", "memory": "8Gi"}}]},
            },
        }))?;
    }
    let recommender = Recommender::new(Arc::new(Steady));
    let updater = Updater::default();
    Ok(vec![
        rounds("vpa-recommender", Box::new(recommender), "recommender", &mut world, args.runs),
        rounds("vpa-updater", Box::new(updater), "updater", &mut world, args.runs),
    ])
}

fn rounds(
    name: &'static str,
    mut controller: Box<dyn Controller>,
    key: &'static str,
    world: &mut World,
    runs: u32,
) -> Measured {
    let before = memory_kib("self", "VmRSS:");
    world.show_to(&mut *controller);
    let mut random = Random::new(1, 1);
    let mut measured =
        Measured { controller: name, rounds: Vec::new(), writes: 0, resident_kib: 0 };
    let mut now = START;
    for run in 0..=runs.max(1) {
        now = now + ROUND;
        let mut context = Context { view: &world.view, now, random: &mut random };
        let begun = machine_instant();
        let step = controller.step(&WorkKey::singleton(key), &mut context);
        let took = begun.elapsed();
        if run > 0 {
            measured.rounds.push(took);
        }
        measured.writes = step.writes.len();
        for write in step.writes {
            if let Write::Create(object) | Write::Update { object, .. } = write {
                world.put(object);
            }
        }
    }
    measured.resident_kib = memory_kib("self", "VmRSS:").saturating_sub(before);
    measured
}

/// Every container uses about as much in every round.
struct Steady;

impl Metrics for Steady {
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String> {
        let measured = |name: &&str| {
            let draw = i64::from(u16::try_from(fnv1a(name.as_bytes()) % 1000).unwrap_or(0));
            let usage = vec![
                ("cpu".into(), Quantity::from_milli(50 + draw)),
                ("memory".into(), Quantity::from_units((64 + draw) << 20, Format::BinarySi)),
            ];
            PodMetrics {
                namespace: pods.namespace.into(),
                pod: (*name).into(),
                timestamp: now,
                window: Duration::from_secs(15),
                containers: vec![ContainerUsage { name: "app".into(), usage }],
            }
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
