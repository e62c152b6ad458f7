use std::sync::Mutex;

use serde_json::{Value, json};
use wharf_model::metrics::{ContainerUsage, NodeMetrics, Sample};
use wharf_model::quantity::Quantity;
use wharf_ports::cluster::Propagation;
use wharf_ports::metrics::MetricQuery;

use super::*;
use crate::workloads::deployment::DeploymentController;
use crate::workloads::harness::World;
use crate::workloads::replica_set::ReplicaSetController;

/// Every container of every pod uses the same.
struct Constant(Mutex<Option<(&'static str, &'static str)>>);

impl Metrics for Constant {
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String> {
        let usage = self.0.lock().expect("not poisoned");
        let (cpu, memory) = usage.ok_or("no metrics known for pod")?;
        let quantity = |text: &str| Quantity::parse(text).expect("a quantity");
        let usage = vec![("cpu".into(), quantity(cpu)), ("memory".into(), quantity(memory))];
        let measured = |name: &&str| PodMetrics {
            namespace: pods.namespace.into(),
            pod: (*name).into(),
            timestamp: now,
            window: Duration::from_secs(15),
            containers: vec![ContainerUsage { name: "hamster".into(), usage: usage.clone() }],
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

fn controllers(metrics: &Arc<Constant>) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(DeploymentController::new()),
        Box::new(ReplicaSetController::new()),
        Box::new(Recommender::new(Arc::clone(metrics) as Arc<dyn Metrics>)),
    ]
}

fn autoscaler(target: Value) -> Value {
    json!({"apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
        "metadata": {"name": "hamster-vpa", "namespace": "default"},
        "spec": {"targetRef": target, "resourcePolicy": {"containerPolicies": [
            {"containerName": "*", "minAllowed": {"cpu": "100m", "memory": "50Mi"},
                "maxAllowed": {"cpu": 1, "memory": "500Mi"}}]}}})
}

fn target(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": name})
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "hamster", "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "hamster"}},
            "template": {"metadata": {"labels": {"app": "hamster"}},
                "spec": {"containers": [{"name": "hamster", "image": "i", "resources":
                    {"requests": {"cpu": "100m", "memory": "50Mi"}}}]}}}})
}

fn hamsters() -> (World, Arc<Constant>) {
    let metrics = Arc::new(Constant(Mutex::new(Some(("500m", "10Mi")))));
    let mut world = World::new(controllers(&metrics));
    world.apply(deployment());
    world.apply(autoscaler(target("Deployment", "hamster")));
    world.run_for(Duration::from_secs(1));
    world.kubelet("n1");
    (world, metrics)
}

fn found(world: &World) -> &VerticalPodAutoscaler {
    world.get("default", "hamster-vpa").expect("the autoscaler")
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn target_of(autoscaler: &VerticalPodAutoscaler) -> Value {
    let recommendation = autoscaler.recommendation_for("hamster").expect("a recommendation");
    serde_json::to_value(&recommendation.target).expect("JSON")
}

#[test]
fn hamsters_get_what_they_use() {
    let (mut world, _) = hamsters();
    world.run_for(minutes(3));
    let autoscaler = found(&world);
    assert_eq!(target_of(autoscaler), json!({"cpu": "587m", "memory": "250Mi"}));
    let conditions = &autoscaler.status.conditions;
    assert_eq!(conditions.len(), 1, "{conditions:?}");
    assert_eq!(
        (conditions[0].type_.as_str(), conditions[0].status.as_str()),
        ("RecommendationProvided", "True")
    );
    let checkpoint: &VerticalPodAutoscalerCheckpoint =
        world.get("default", "hamster-vpa-hamster").expect("a checkpoint");
    assert_eq!(checkpoint.spec.vpa_object_name, "hamster-vpa");
    assert_eq!(checkpoint.status.total_samples_count, 6, "two pods, three rounds");
}

#[test]
fn what_was_learned_survives_a_restart() {
    let (mut world, metrics) = hamsters();
    world.run_for(minutes(30));
    let before = found(&world).status.clone();
    // Nothing new is learned afterwards.
    *metrics.0.lock().expect("not poisoned") = None;
    world.restart(controllers(&metrics));
    world.run_for(minutes(3));
    let recommendation = before.recommendation.expect("a recommendation");
    let after = found(&world).status.recommendation.clone().expect("a recommendation");
    let targets = |all: &wharf_model::vpa::PodRecommendation| {
        all.container_recommendations.iter().map(|one| one.target.clone()).collect::<Vec<_>>()
    };
    assert_eq!(targets(&after), targets(&recommendation));
    let checkpoint: &VerticalPodAutoscalerCheckpoint =
        world.get("default", "hamster-vpa-hamster").expect("a checkpoint");
    assert_eq!(checkpoint.status.total_samples_count, 60);
}

#[test]
fn an_autoscaler_says_why_it_recommends_nothing() {
    for (target, conditions) in [
        (
            target("Deployment", "gone"),
            json!([
                [
                    "ConfigUnsupported",
                    "True",
                    "",
                    "Cannot read targetRef. Reason: Deployment default/gone does not exist"
                ],
                ["NoPodsMatched", "True", "NoPodsMatched", "No pods match this VPA object"],
                [
                    "RecommendationProvided",
                    "False",
                    "NoPodsMatched",
                    "No pods match this VPA object"
                ],
            ]),
        ),
        (
            target("Deployment", "hamster"),
            json!([
                ["NoPodsMatched", "True", "NoPodsMatched", "No pods match this VPA object"],
                [
                    "RecommendationProvided",
                    "False",
                    "NoPodsMatched",
                    "No pods match this VPA object"
                ],
            ]),
        ),
    ] {
        let metrics = Arc::new(Constant(Mutex::new(None)));
        let mut world = World::new(controllers(&metrics));
        world.apply(deployment());
        world.apply(autoscaler(target));
        // The pods wait for a node.
        world.run_for(minutes(2));
        let status = &found(&world).status;
        let told: Vec<Value> = status
            .conditions
            .iter()
            .map(|one| json!([one.type_, one.status, one.reason, one.message]))
            .collect();
        assert_eq!(json!(told), conditions);
        assert_eq!(status.recommendation, Some(wharf_model::vpa::PodRecommendation::default()));
    }
}

#[test]
fn a_kill_for_memory_raises_the_memory() {
    let (mut world, _) = hamsters();
    world.run_for(minutes(2));
    let name = world.list::<Pod>()[0].metadata.name.clone().expect("a name");
    let ended = world.now.to_string();
    let at = ObjectKey::namespaced("default", &name);
    for restarts in [0, 1] {
        let status = json!([{"name": "hamster", "image": "", "imageID": "", "ready": true,
            "restartCount": restarts, "lastState": {"terminated": {"exitCode": 137,
                "reason": "OOMKilled", "finishedAt": ended}}}]);
        world.edit::<Pod>(&at, |pod| {
            pod.spec.as_mut().expect("a spec").containers[0].resources =
                serde_json::from_value(json!({"requests": {"memory": "400Mi"}}))
                    .expect("resources");
            pod.status.get_or_insert_default().container_statuses =
                serde_json::from_value(status.clone()).expect("statuses");
        });
        world.run_for(Duration::from_secs(1));
    }
    world.run_for(minutes(1));
    // 400Mi and 100Mi more, up to the end of the bucket, and 15 % on top: more than is allowed.
    assert_eq!(target_of(found(&world))["memory"], "500Mi");
}

#[test]
fn checkpoints_go_with_their_autoscaler() {
    let (mut world, _) = hamsters();
    world.run_for(minutes(2));
    let key = ObjectKey::namespaced("default", "hamster-vpa");
    world.delete::<VerticalPodAutoscaler>(&key, Propagation::Background);
    world.run_for(minutes(12));
    assert!(world.list::<VerticalPodAutoscalerCheckpoint>().is_empty());
    let steps = world.steps;
    world.run_for(minutes(60));
    assert_eq!(world.steps, steps, "without autoscalers there is nothing to do");
}

#[test]
fn another_recommenders_autoscalers_are_left_alone() {
    let metrics = Arc::new(Constant(Mutex::new(Some(("1", "1Gi")))));
    let mut world = World::new(controllers(&metrics));
    world.apply(deployment());
    let mut other = autoscaler(target("Deployment", "hamster"));
    other["spec"]["recommenders"] = json!([{"name": "frugal"}]);
    world.apply(other);
    world.run_for(minutes(3));
    assert_eq!(found(&world).status, wharf_model::vpa::VerticalPodAutoscalerStatus::default());
}
