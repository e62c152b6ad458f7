use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use wharf_model::metrics::{ContainerUsage, NodeMetrics, PodMetrics, Sample};
use wharf_model::quantity::Quantity;
use wharf_ports::metrics::{MetricQuery, PodQuery};

use super::*;
use crate::workloads::deployment::DeploymentController;
use crate::workloads::harness::World;
use crate::workloads::replica_set::ReplicaSetController;

/// A load that the pods of a workload share, and the values of other metrics.
#[derive(Default)]
struct Load {
    cpu_milli: Mutex<i64>,
    error: Mutex<Option<String>>,
    value: Mutex<Option<i64>>,
}

impl Load {
    fn set(&self, cpu_milli: i64) {
        *self.cpu_milli.lock().unwrap() = cpu_milli;
    }
}

impl Metrics for Load {
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String> {
        if let Some(error) = self.error.lock().unwrap().clone() {
            return Err(error);
        }
        let each =
            *self.cpu_milli.lock().unwrap() / i64::try_from(pods.names.len().max(1)).unwrap();
        let pod = |name: &&str| PodMetrics {
            namespace: pods.namespace.into(),
            pod: (*name).into(),
            timestamp: now,
            window: Duration::from_secs(15),
            containers: vec![ContainerUsage {
                name: "c".into(),
                usage: vec![("cpu".into(), Quantity::from_milli(each))],
            }],
        };
        Ok(pods.names.iter().map(pod).collect())
    }

    fn node_metrics(&self, _: Time) -> Result<Vec<NodeMetrics>, String> {
        Ok(Vec::new())
    }

    fn samples(&self, query: &MetricQuery<'_>, now: Time) -> Result<Vec<Sample>, String> {
        let MetricQuery::External { metric: "queue", .. } = query else {
            return Err("the server could not find the metric".to_owned());
        };
        let sample = |value| Sample {
            object: CompactString::default(),
            labels: std::collections::BTreeMap::new(),
            timestamp: now,
            window: None,
            value: Quantity::from_milli(value),
        };
        Ok(self.value.lock().unwrap().map(sample).into_iter().collect())
    }
}

struct Lab {
    world: World,
    load: Arc<Load>,
}

fn autoscaler(name: &str, spec: &Value) -> Value {
    let mut hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        hpa["spec"][key] = value.clone();
    }
    hpa
}

impl Lab {
    /// One pod that asks for 200m, and an autoscaler over it.
    fn new(spec: &Value) -> Self {
        let load = Arc::new(Load::default());
        let metrics: Arc<dyn Metrics> = load.clone();
        let mut world = World::new(vec![
            Box::new(HorizontalPodAutoscalers::new(Config::default(), metrics)),
            Box::new(DeploymentController::new()),
            Box::new(ReplicaSetController::new()),
        ]);
        world.apply(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i",
                        "resources": {"requests": {"cpu": "200m"}}}]}}}}));
        let mut lab = Self { world, load };
        lab.run(60);
        lab.world.apply(autoscaler("web", spec));
        lab
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.world.run_for(Duration::from_secs(1));
            self.world.kubelet("n1");
        }
    }

    fn replicas(&self) -> i32 {
        let deployment = self.world.get::<Deployment>("default", "web").expect("the deployment");
        deployment.spec.as_ref().and_then(|spec| spec.replicas).expect("replicas")
    }

    fn status(&self) -> HorizontalPodAutoscalerStatus {
        let hpa = self.world.get::<HorizontalPodAutoscaler>("default", "web").expect("the hpa");
        hpa.status.clone().unwrap_or_default()
    }

    fn condition(&self, type_: &str) -> (String, String) {
        let conditions = self.status().conditions.unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == type_);
        let found = found.unwrap_or_default();
        (found.status, found.reason.unwrap_or_default())
    }

    fn events(&self) -> Vec<String> {
        let own = self.world.records.iter().filter(|record| record.component == COMPONENT);
        own.map(|record| format!("{} {}", record.reason, record.message)).collect()
    }
}

const NO_METRICS: &str =
    "the server could not find the requested resource (get pods.metrics.k8s.io)";
const ABOVE: &str = "reason: cpu resource utilization (percentage of request) above target";

#[test]
fn load_makes_more_replicas_and_their_going_fewer() {
    let mut lab = Lab::new(&json!({}));
    lab.load.set(1000);
    lab.run(14);
    assert_eq!(lab.status().desired_replicas, 0, "a new autoscaler waits a whole period");
    lab.run(2);
    assert_eq!(lab.replicas(), 4, "at most four at once");
    lab.run(60);
    assert_eq!(lab.replicas(), 10);
    assert_eq!(
        lab.events(),
        [
            format!("SuccessfulRescale New size: 4; {ABOVE}"),
            format!("SuccessfulRescale New size: 8; {ABOVE}"),
            format!("SuccessfulRescale New size: 10; {ABOVE}"),
        ]
    );
    let status = lab.status();
    assert_eq!((status.current_replicas, status.desired_replicas), (Some(10), 10));
    let current = status.current_metrics.expect("metrics");
    let current = &current[0].resource.as_ref().expect("cpu").current;
    assert_eq!(current.average_utilization, Some(50));
    assert_eq!(lab.condition("ScalingActive"), ("True".into(), "ValidMetricFound".into()));
    lab.load.set(0);
    lab.run(200);
    assert_eq!(lab.replicas(), 10, "recent proposals were higher");
    assert_eq!(lab.condition("AbleToScale"), ("True".into(), "ScaleDownStabilized".into()));
    lab.run(140);
    assert_eq!(lab.replicas(), 1);
    let events = lab.events();
    let last = "SuccessfulRescale New size: 1; reason: All metrics below target";
    assert_eq!(events.last().map(String::as_str), Some(last));
}

#[test]
fn passes_take_place_whole_periods_after_the_creation() {
    let mut lab = Lab::new(&json!({}));
    lab.load.set(150);
    let created = lab.world.now;
    lab.run(40);
    let metrics: Arc<dyn Metrics> = lab.load.clone();
    lab.world.restart(vec![Box::new(HorizontalPodAutoscalers::new(Config::default(), metrics))]);
    lab.load.set(800);
    lab.run(4);
    assert_eq!(lab.replicas(), 2);
    lab.run(2);
    assert_eq!(lab.replicas(), 4, "45 s after the creation");
    let scaled = lab.status().last_scale_time.expect("it scaled");
    assert_eq!(Time::from(&scaled).since(created), Duration::from_secs(45));
}

#[test]
fn the_record_tells_what_was_asked_for_and_what_limited_it() {
    let mut lab = Lab::new(&json!({}));
    lab.load.set(1000);
    lab.run(16);
    let reason =
        lab.world.reasons.iter().find(|reason| reason.by == reasons::BY).expect("a reason");
    assert_eq!(
        reason.decision,
        "1 -> 4: cpu resource utilization (percentage of request) above target"
    );
    let told = serde_json::to_value(&reason.because).expect("JSON");
    assert_eq!(told[0]["rule"], "cpu resource utilization (percentage of request)");
    assert_eq!(
        told[0]["says"],
        "500% of requests (1000m each), 10.000 of the target, on 1 pods: asks for 10"
    );
    assert_eq!(told[0]["numbers"]["ratioMilli"], 10_000);
    assert_eq!(told[0]["numbers"]["asksFor"], 10);
    assert_eq!(told[1]["rule"], "scale-up policy");
    assert_eq!(told[1]["numbers"], json!({"from": 10, "to": 4}));
}

#[test]
fn a_refused_scale_is_told_and_tried_again() {
    let mut lab = Lab::new(&json!({"behavior": {
        "scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
        "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}}));
    lab.load.set(1000);
    lab.world.refuse_scales = Some("no".to_owned());
    lab.run(16);
    assert_eq!(lab.replicas(), 1);
    let error = "deployments.apps \"web\" is forbidden: no";
    assert_eq!(lab.events(), [format!("FailedRescale New size: 2; {ABOVE}; error: {error}")]);
    assert_eq!(lab.condition("AbleToScale"), ("False".into(), "FailedUpdateScale".into()));
    assert_eq!(lab.status().last_scale_time, None);
    lab.world.refuse_scales = None;
    lab.run(15);
    assert_eq!(lab.replicas(), 2, "what was refused does not count against the policy");
    assert_eq!(lab.condition("AbleToScale"), ("True".into(), "SucceededRescale".into()));
}

#[test]
fn a_scale_that_came_about_though_its_answer_was_lost_counts_against_the_policy() {
    let mut lab = Lab::new(&json!({"behavior": {"scaleUp": {"selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}}));
    lab.load.set(1000);
    lab.world.refuse_scales = Some("the answer was lost".to_owned());
    lab.run(16);
    lab.world.refuse_scales = None;
    lab.world.edit::<Deployment>(&ObjectKey::namespaced("default", "web"), |web| {
        web.spec.get_or_insert_default().replicas = Some(2);
    });
    lab.run(45);
    assert_eq!(lab.replicas(), 2, "one a minute");
    lab.run(30);
    assert_eq!(lab.replicas(), 3);
}

#[test]
fn without_metrics_or_target_nothing_moves() {
    let mut lab = Lab::new(&json!({}));
    *lab.load.error.lock().unwrap() = Some(NO_METRICS.to_owned());
    lab.run(16);
    let inner = format!(
        "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: {NO_METRICS}"
    );
    assert_eq!(
        lab.events(),
        [
            format!("FailedGetResourceMetric {inner}"),
            format!(
                "FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {inner}"
            ),
        ]
    );
    assert_eq!(lab.condition("ScalingActive"), ("False".into(), "FailedGetResourceMetric".into()));
    assert_eq!(lab.replicas(), 1);
    for (reference, error) in [
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "gone"}),
            "deployments.apps \"gone\" not found",
        ),
        (
            json!({"apiVersion": "x/v1", "kind": "Thing", "name": "t"}),
            "no matches for kind \"Thing\" in group \"x\"",
        ),
    ] {
        let mut lab = Lab::new(&json!({"scaleTargetRef": reference}));
        lab.run(16);
        assert_eq!(lab.events(), [format!("FailedGetScale {error}")]);
        assert_eq!(lab.condition("AbleToScale"), ("False".into(), "FailedGetScale".into()));
    }
}

#[test]
fn two_autoscalers_over_the_same_pods_both_stop() {
    let mut lab = Lab::new(&json!({}));
    lab.world.apply(autoscaler("other", &json!({})));
    lab.load.set(1000);
    // The first pass of the first sees no other yet.
    lab.run(31);
    let text =
        "pods by selector app=web are controlled by multiple HPAs: [default/other default/web]";
    assert!(lab.events().contains(&format!("AmbiguousSelector {text}")), "{:?}", lab.events());
    assert_eq!(lab.condition("ScalingActive"), ("False".into(), "AmbiguousSelector".into()));
    let replicas = lab.replicas();
    lab.world.delete::<HorizontalPodAutoscaler>(
        &ObjectKey::namespaced("default", "other"),
        wharf_ports::cluster::Propagation::Background,
    );
    lab.run(30);
    assert!(lab.replicas() > replicas);
    assert_eq!(lab.condition("ScalingActive").1, "ValidMetricFound");
}

#[test]
fn external_metrics_are_asked_for_by_name() {
    let mut lab = Lab::new(&json!({"metrics": [{"type": "External", "external": {
        "metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}}}]}));
    *lab.load.value.lock().unwrap() = Some(35_000);
    lab.run(16);
    assert_eq!(lab.replicas(), 4);
    assert_eq!(
        lab.events(),
        ["SuccessfulRescale New size: 4; reason: external metric queue(nil) above target"]
    );
}

#[test]
fn lagging_views_do_not_double_a_scale() {
    let mut lab = Lab::new(&json!({}));
    lab.world.lag = 3;
    lab.load.set(400);
    lab.run(61);
    assert_eq!(lab.replicas(), 4);
}

/// A lab with forecasts, whose load comes back every ten minutes.
fn seasonal() -> Lab {
    let at_once = json!({"behavior": {
        "scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 9, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}});
    let mut lab = Lab::new(&at_once);
    let key = ObjectKey::namespaced("default", "web");
    lab.world.edit::<HorizontalPodAutoscaler>(&key, |hpa| {
        let said = [(PREDICT, "true"), (PREDICT_SEASON, "10m"), (PREDICT_AHEAD, "1m")];
        let said = said.map(|(name, value)| (name.to_owned(), value.to_owned()));
        hpa.metadata.annotations = Some(said.into());
    });
    lab
}

impl Lab {
    /// Runs with a load that is there from minute 4 to 7 of every ten, and gives the counts just
    /// before it comes.
    fn run_seasons(&mut self, seconds: std::ops::Range<i64>) -> Vec<i32> {
        let mut before_load = Vec::new();
        for second in seconds {
            self.load.set(if (240..420).contains(&(second % 600)) { 1000 } else { 100 });
            if second % 600 == 239 {
                before_load.push(self.replicas());
            }
            self.run(1);
        }
        before_load
    }

    fn kept(&self) -> Option<String> {
        let hpa = self.world.get::<HorizontalPodAutoscaler>("default", "web").expect("the hpa");
        hpa.metadata.annotations.as_ref()?.get(PREDICT_HISTORY).cloned()
    }
}

#[test]
fn annotations_that_cannot_be_read_are_told_once() {
    for (name, value, told) in [
        (PREDICT, "yes", "annotation autoscaling.wharf.dev/predict is \"yes\"; allowed are"),
        (
            PREDICT_SEASON,
            "tomorrow",
            "annotation autoscaling.wharf.dev/predict-season is \"tomorrow\"; allowed are spans such as 24h or 5m, and 24h counts",
        ),
    ] {
        let mut lab = seasonal();
        lab.world.edit::<HorizontalPodAutoscaler>(
            &ObjectKey::namespaced("default", "web"),
            |hpa| {
                let annotations = hpa.metadata.annotations.get_or_insert_default();
                annotations.insert(name.to_owned(), value.to_owned());
            },
        );
        lab.run(100);
        let events = lab.events();
        let said: Vec<_> = events.iter().filter(|text| text.starts_with(INVALID)).collect();
        assert_eq!(said.len(), 1, "{events:?}");
        assert!(said[0].contains(told), "{said:?}");
    }
}

#[test]
fn a_forecast_survives_a_restart() {
    let mut lab = seasonal();
    assert_eq!(lab.run_seasons(0..590), [1]);
    let kept = lab.kept().expect("it is kept");
    assert!(kept.starts_with("v1 15 ") && kept.contains("10x"), "{kept}");
    let metrics: Arc<dyn Metrics> = lab.load.clone();
    lab.world.restart(vec![
        Box::new(HorizontalPodAutoscalers::new(Config::default(), metrics)),
        Box::new(DeploymentController::new()),
        Box::new(ReplicaSetController::new()),
    ]);
    assert_eq!(lab.run_seasons(590..1200), [10]);
    assert!(lab.kept().is_some_and(|text| text != kept), "it goes on");
    // Somebody else's text there is passed over, and written over.
    lab.world.edit::<HorizontalPodAutoscaler>(&ObjectKey::namespaced("default", "web"), |hpa| {
        let annotations = hpa.metadata.annotations.get_or_insert_default();
        annotations.insert(PREDICT_HISTORY.to_owned(), "no history".to_owned());
    });
    assert_eq!(lab.run_seasons(1200..1800), [10]);
    assert!(lab.kept().is_some_and(|text| text.starts_with("v1 15 ")));
}

#[test]
fn a_forecast_raises_the_floor_ahead_of_time_and_tells_what_it_was_worth() {
    let mut lab = seasonal();
    let before_load = lab.run_seasons(0..1500);
    assert_eq!(before_load, [1, 10, 10], "there is nothing to go by in the first season");
    assert_eq!(lab.replicas(), 10, "the load of the third season");
    assert!(
        lab.events().contains(
            &"SuccessfulRescale New size: 10; reason: forecast of 10 replicas".to_owned()
        ),
        "{:?}",
        lab.events()
    );
    let last = lab.world.reasons.iter().rfind(|reason| reason.by == reasons::BY).expect("a reason");
    let told = last.because.iter().find(|because| because.rule == "prediction").expect("told");
    let told = serde_json::to_value(told).expect("JSON");
    assert_eq!(told["numbers"]["rises"], 2);
    assert_eq!(told["numbers"]["readyPodSeconds"], 2 * 9 * 60);
    let extra = told["numbers"]["extraPodSeconds"].as_i64().expect("a number");
    assert!((2 * 9 * 45..=2 * 9 * 90).contains(&extra), "{extra}");
}

#[test]
fn beside_a_vertical_autoscaler_the_count_follows_the_template() {
    let mut lab = Lab::new(&json!({}));
    lab.world.apply(json!({"apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
        "metadata": {"name": "sizes", "namespace": "default"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}));
    let pod = ObjectKey::of(&lab.world.list::<Pod>()[0].metadata);
    lab.world.edit::<Pod>(&pod, |pod| {
        let container = &mut pod.spec.get_or_insert_default().containers[0];
        let requests = container.resources.get_or_insert_default().requests.get_or_insert_default();
        requests.insert("cpu".to_owned(), Quantity::from_milli(600).to_api());
    });
    lab.load.set(300);
    lab.run(16);
    assert_eq!(lab.replicas(), 3, "150% of the template's 200m, not 50% of the pod's 600m");
    let told = lab.world.reasons.iter().rfind(|reason| reason.by == reasons::BY).expect("a reason");
    let told = told.because.iter().find(|because| because.rule == "coordination").expect("told");
    assert!(told.says.to_string().starts_with("vpa/sizes sizes the pods by cpu, too"), "{told:?}");
}

/// Metrics that have to be sent for: a question is answered when it is asked again.
struct Distant {
    load: Arc<Load>,
    asked: Mutex<Option<Time>>,
    deferred: AtomicU64,
}

impl Metrics for Distant {
    fn pod_metrics(&self, pods: &PodQuery<'_>, now: Time) -> Result<Vec<PodMetrics>, String> {
        let mut asked = self.asked.lock().unwrap();
        match *asked {
            Some(at) if now.since(at) < Duration::from_secs(10) => self.load.pod_metrics(pods, now),
            _ => {
                *asked = Some(now);
                self.deferred.fetch_add(1, Ordering::Relaxed);
                Err("not yet".to_owned())
            }
        }
    }

    fn node_metrics(&self, now: Time) -> Result<Vec<NodeMetrics>, String> {
        self.load.node_metrics(now)
    }

    fn samples(&self, query: &MetricQuery<'_>, now: Time) -> Result<Vec<Sample>, String> {
        self.load.samples(query, now)
    }

    fn deferred(&self) -> Option<u64> {
        Some(self.deferred.load(Ordering::Relaxed))
    }
}

#[test]
fn a_pass_waits_for_metrics_that_are_on_their_way() {
    let mut lab = Lab::new(&json!({}));
    lab.load.set(1000);
    let distant = Arc::new(Distant {
        load: lab.load.clone(),
        asked: Mutex::default(),
        deferred: AtomicU64::default(),
    });
    let metrics: Arc<dyn Metrics> = distant.clone();
    let created = lab.world.now;
    lab.world.restart(vec![
        Box::new(HorizontalPodAutoscalers::new(Config::default(), metrics)),
        Box::new(DeploymentController::new()),
        Box::new(ReplicaSetController::new()),
    ]);
    lab.run(15);
    assert_eq!(lab.replicas(), 1);
    assert_eq!(lab.condition("ScalingActive").1, "", "a pass that is put off says nothing");
    lab.run(2);
    assert_eq!(lab.replicas(), 4);
    let scaled = lab.status().last_scale_time.expect("it scaled");
    assert_eq!(Time::from(&scaled).since(created), Duration::from_secs(16));
    lab.run(15);
    assert_eq!(lab.replicas(), 8);
    let scaled = lab.status().last_scale_time.expect("it scaled");
    let later = Time::from(&scaled).since(created);
    assert_eq!(later, Duration::from_secs(31), "the next pass is not moved");
    assert_eq!(lab.events().len(), 2, "{:?}", lab.events());
    assert_eq!(distant.deferred(), Some(2), "one question a pass");
}

#[test]
fn a_raise_by_stabilization_alone_names_it() {
    let mut lab = Lab::new(&json!({}));
    lab.load.set(400);
    lab.run(31);
    assert_eq!(lab.replicas(), 4);
    // Somebody takes pods away; those that are left carry just what they should.
    let mut deployment =
        lab.world.get::<Deployment>("default", "web").expect("the deployment").clone();
    deployment.spec.as_mut().expect("a spec").replicas = Some(2);
    lab.world.apply(serde_json::to_value(deployment).expect("JSON"));
    lab.load.set(200);
    lab.run(15);
    assert_eq!(lab.replicas(), 4, "four were asked for a moment ago");
    let last = lab.world.reasons.iter().rfind(|reason| reason.by == reasons::BY);
    let decision = &last.expect("a reason").decision;
    assert_eq!(decision, "2 -> 4: stabilization: recent proposals were higher");
    let events = lab.events();
    let last = events.last().map(String::as_str);
    assert_eq!(last, Some("SuccessfulRescale New size: 4; reason: "), "as upstream's");
}
