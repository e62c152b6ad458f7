use std::sync::Mutex;

use serde_json::{Value, json};
use wharf_model::metrics::{ContainerUsage, NodeMetrics, Sample};
use wharf_model::quantity::Quantity;
use wharf_ports::cluster::Propagation;
use wharf_ports::history::UsageHistory;
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

/// What a recommender comes to when a pod was evicted, as an Event with these annotations tells it.
fn memory_after_eviction(containers: &str, usages: &str, starved: &str) -> Value {
    let (mut world, _) = hamsters();
    world.run_for(minutes(2));
    let name = world.list::<Pod>()[0].metadata.name.clone().expect("a name");
    world.apply(json!({"apiVersion": "v1", "kind": "Event",
        "metadata": {"name": "evicted", "namespace": "default", "annotations": {
            "offending_containers": containers, "offending_containers_usage": usages,
            "starved_resource": starved}},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": name},
        "reason": "Evicted", "type": "Warning", "message": "The node was low on resource: memory. "}));
    world.run_for(minutes(1));
    target_of(found(&world))["memory"].clone()
}

#[test]
fn an_eviction_for_memory_raises_the_memory() {
    assert_eq!(memory_after_eviction("hamster", "400Mi", "memory"), "500Mi");
    let unmoved = memory_after_eviction("hamster", "400Mi", "ephemeral-storage");
    assert_ne!(unmoved, "500Mi");
    // The kubelet names the resource once: with several offenders the lists differ in length.
    assert_eq!(memory_after_eviction("hamster,other", "400Mi,1Gi", "memory"), unmoved);
    assert_eq!(memory_after_eviction("", "", "memory"), unmoved);
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

/// The same controllers with history from elsewhere.
fn recalling(metrics: &Arc<Constant>) -> Vec<Box<dyn Controller>> {
    let recommender = Recommender::new(Arc::clone(metrics) as Arc<dyn Metrics>);
    let mut all = controllers(metrics);
    all.pop();
    all.push(Box::new(recommender.with_storage(Storage::Prometheus)));
    all
}

/// Two days in which a pod that is long gone used so many cores.
fn two_days(until: Time, cores: f64) -> PodHistory {
    let hours = (1..=48_u64).rev().map(|hours| until - Duration::from_secs(3600 * hours));
    let usage = UsageHistory {
        cpu: hours.clone().map(|at| (at, cores)).collect(),
        memory: hours.map(|at| (at, 1e7)).collect(),
    };
    PodHistory {
        pod: ObjectKey::namespaced("default", "hamster-of-yore"),
        labels: [("app".to_owned(), "hamster".to_owned())].into(),
        containers: [("hamster".into(), usage)].into(),
    }
}

/// Deployments and the pods of hamsters that use next to nothing, with history from elsewhere.
fn sleepers() -> World {
    let metrics = Arc::new(Constant(Mutex::new(Some(("10m", "10Mi")))));
    let mut world = World::new(recalling(&metrics));
    world.now = Time::from_seconds(1_000_000);
    world.apply(deployment());
    world.apply(autoscaler(target("Deployment", "hamster")));
    world.run_for(Duration::from_secs(1));
    world.kubelet("n1");
    world
}

#[test]
fn an_autoscaler_begins_with_history() {
    let mut world = sleepers();
    world.run_for(minutes(5));
    assert_eq!(found(&world).status, Default::default(), "it holds still until there is an answer");
    let [call] = &world.asked[..] else { panic!("one question: {:?}", world.asked) };
    assert_eq!(call.namespaces, ["default"]);
    let answer = HistoryAnswer { id: call.id, result: Ok(vec![two_days(call.until, 0.5)]) };
    world.recall(&answer);
    world.run_for(Duration::from_secs(1));
    assert_eq!(target_of(found(&world)), json!({"cpu": "587m", "memory": "250Mi"}));
    let began = world.reasons.iter().find(|reason| reason.decision == "begins with history");
    let why = format!("{:?}", began.expect("it says so").because);
    assert!(why.contains("96 samples of 1 pods between "), "{why}");
    world.run_for(minutes(5));
    assert_eq!(world.asked.len(), 1, "it is asked for once");
    // Another is asked for by itself; the first goes on meanwhile.
    let mut second = autoscaler(target("Deployment", "hamster"));
    second["metadata"]["name"] = json!("second");
    world.apply(second);
    world.run_for(minutes(2));
    assert_eq!(world.asked.len(), 2);
    let second: &VerticalPodAutoscaler = world.get("default", "second").expect("it is there");
    assert_eq!(second.status, Default::default());
    assert_eq!(target_of(found(&world)), json!({"cpu": "587m", "memory": "250Mi"}));
}

#[test]
fn without_history_it_begins_as_ever_and_says_so() {
    for (result, told) in
        [(Err("no answer from http://prometheus: refused".to_owned()), 1), (Ok(Vec::new()), 0)]
    {
        let mut world = sleepers();
        world.run_for(minutes(2));
        let id = world.asked[0].id;
        world.recall(&HistoryAnswer { id, result: result.clone() });
        world.run_for(minutes(2));
        assert_eq!(target_of(found(&world)), json!({"cpu": "100m", "memory": "250Mi"}));
        let text = "cannot fetch history: no answer from http://prometheus: refused; beginning without history";
        let events = world.messages().into_iter().filter(|message| *message == text);
        assert_eq!(events.count(), told, "{result:?}");
        assert!(world.reasons.iter().any(|reason| reason.decision == "begins without history"));
        assert_eq!(world.asked.len(), 1);
    }
}

#[test]
fn checkpoints_count_where_there_is_no_history() {
    let (mut world, metrics) = hamsters();
    world.run_for(minutes(30));
    *metrics.0.lock().expect("not poisoned") = None;
    world.restart(recalling(&metrics));
    world.run_for(minutes(3));
    let before = target_of(found(&world));
    assert_eq!(before, json!({"cpu": "587m", "memory": "250Mi"}), "it holds still");
    let id = world.asked[0].id;
    world.recall(&HistoryAnswer { id, result: Err("it is broken".to_owned()) });
    world.run_for(minutes(3));
    assert_eq!(target_of(found(&world)), before);
    assert!(world.reasons.iter().any(|reason| reason.decision == "begins with its checkpoints"));
}
