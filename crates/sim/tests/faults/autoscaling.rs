//! Horizontal and Vertical Pod Autoscalers over a load that moves.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscaler};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_model::vpa::{Amounts, VerticalPodAutoscaler};
use wharf_ports::cluster::{Part, Write};
use wharf_scheduler::config::Configuration;
use wharf_store::Store;

use crate::trial::Trial;

/// Neither count is ever asked for more: beyond it, the tolerance would let two counts stand.
const MOST: u32 = 8;
/// Pods of the workload that is sized.
const HAMSTERS: u32 = 4;

/// What somebody does to the load, and how long it stays so.
struct Stage {
    clients: u32,
    queue: u32,
    seconds: u64,
    /// Writes until the program dies, where it is not left to chance.
    dies_after: Option<u32>,
}

/// A world's script, which faults do not change.
struct Plan {
    manifests: String,
    stages: Vec<Stage>,
}

/// However the load went and whatever failed: at rest there are as many replicas as if nothing had.
pub(crate) fn run(seed: u64) -> Trial {
    let mut peaceful = Trial::without_faults(seed);
    let expected = play(&mut peaceful);
    let mut trial = Trial::new(seed, Configuration::default());
    let counts = play(&mut trial);
    assert_eq!(counts, expected, "as without faults {}", trial.describe());
    sizes_are_as_recommended(&trial);
    trial
}

/// Plays the script, and gives the counts that it ends with.
fn play(trial: &mut Trial) -> Vec<(&'static str, i32)> {
    let plan = plan(&mut Random::for_purpose(trial.seed(), "autoscaling"));
    for _ in 0..3 {
        trial.add_machine();
    }
    trial.apply(&plan.manifests);
    for stage in &plan.stages {
        trial.scale("client", stage.clients);
        queue(trial, stage.queue);
        trial.die_after(stage.dies_after);
        trial.run_for_seconds(stage.seconds);
    }
    // A restart forgets what was proposed, and begins the downscale window anew, as upstream's does.
    trial.live_on();
    // That window, and the slowest policy from the most pods to the fewest.
    trial.run_for_minutes(25);
    let ends = ["web", "worker"].map(|name| (name, replicas(trial, name)));
    let pods: i32 = ends.iter().map(|(_, count)| count).sum();
    let clients = plan.stages.last().map_or(0, |stage| stage.clients);
    let expected = usize::try_from(pods).expect("a count") + (clients + HAMSTERS) as usize;
    assert_eq!(trial.running(), expected, "all of them run {}", trial.describe());
    ends.into()
}

fn replicas(trial: &Trial, name: &str) -> i32 {
    let key = ObjectKey::namespaced("default", name);
    let object = trial.registry.get(Kind::of::<Deployment>(), &key).expect("there");
    let deployment = object.typed::<Deployment>().expect("a Deployment");
    deployment.spec.as_ref().and_then(|spec| spec.replicas).expect("defaulted")
}

/// Has the queue be as long.
fn queue(trial: &Trial, length: u32) {
    let key = ObjectKey::namespaced("default", "queue");
    let object = trial.registry.get(Kind::of::<ConfigMap>(), &key).expect("there");
    let mut map = object.draft::<ConfigMap>().expect("a ConfigMap");
    map.metadata.resource_version = None;
    let annotations = map.metadata.annotations.get_or_insert_default();
    annotations.insert("external.load.wharf.dev/jobs".to_owned(), length.to_string());
    let write = Write::Update { object: Box::new(map), part: Part::Main };
    trial.registry.apply(write).expect("accepted");
}

/// Every pod asks for what is within the bounds of what is recommended.
fn sizes_are_as_recommended(trial: &Trial) {
    let store = trial.registry.store();
    let key = ObjectKey::namespaced("default", "hamster");
    let object = store.get(Kind::of::<VerticalPodAutoscaler>(), &key).expect("there");
    let autoscaler = object.typed::<VerticalPodAutoscaler>().expect("a VerticalPodAutoscaler");
    let recommended = autoscaler.recommendation_for("c").expect("it has learned");
    for object in store.list(Kind::of::<Pod>(), Some("default")).0 {
        let pod = object.typed::<Pod>().expect("a pod");
        if object.header().label("app") != Some("hamster") {
            continue;
        }
        let spec = pod.spec.as_ref().expect("a spec");
        let asked = spec.containers[0].resources.as_ref().and_then(|it| it.requests.as_ref());
        for resource in ["cpu", "memory"] {
            let text = &asked.and_then(|asked| asked.get(resource)).expect("it asks for it").0;
            let asked = Quantity::parse(text).expect("a quantity");
            let low = amount(&recommended.lower_bound, resource);
            let high = amount(&recommended.upper_bound, resource);
            assert!(low <= asked && asked <= high, "{}: {resource} {text}", object.key());
        }
    }
}

/// Load that comes back every ten minutes is met before it comes, though the program is started anew
/// again and again.
pub(crate) fn run_with_forecast(seed: u64) -> Trial {
    const SEASON: u64 = 600;
    let mut trial = Trial::new(seed, Configuration::default());
    trial.add_machine();
    trial.apply(FORECAST);
    for season in 0..3 {
        queue(&trial, 10);
        trial.run_for_seconds(240);
        if season == 2 {
            assert_eq!(replicas(&trial, "worker"), 6, "foreseen {}", trial.describe());
        }
        queue(&trial, 60);
        trial.run_for_seconds(180);
        queue(&trial, 10);
        let before = u64::from(trial.draw(170));
        trial.run_for_seconds(before);
        let writes = trial.draw(20);
        trial.die_after(Some(writes));
        trial.run_for_seconds(SEASON - 240 - 180 - before);
    }
    assert!(trial.crashes >= 3, "each season is cut short {}", trial.describe());
    trial
}

fn plan(random: &mut Random) -> Plan {
    let mut manifests = FIXED.to_owned();
    for (name, metric) in [("web", WEB_METRIC), ("worker", WORKER_METRIC)] {
        let least = 1 + random.below(3);
        let most = least + 1 + random.below(MOST - least);
        let behavior = behavior(random);
        manifests.push_str(&format!(
            "
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: {name}}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: {least}
  maxReplicas: {most}
  metrics: [{metric}]
{behavior}"
        ));
        let first = least + random.below(most - least + 1);
        manifests = manifests.replace(&format!("FIRST-OF-{name}"), &first.to_string());
    }
    let stages = (0..3 + random.below(5)).map(|_| Stage {
        clients: random.below(5),
        queue: 10 * random.below(MOST + 3),
        seconds: u64::from(20 + random.below(400)),
        dies_after: (random.below(3) == 0).then(|| random.below(60)),
    });
    let stages = stages.collect();
    Plan { manifests, stages }
}

/// Rules for both directions, or none.
fn behavior(random: &mut Random) -> String {
    if random.below(4) == 0 {
        return String::new();
    }
    let mut text = "  behavior:\n".to_owned();
    for (direction, windows) in [("scaleUp", [0, 30]), ("scaleDown", [60, 300])] {
        let window = windows[random.below(2) as usize];
        let select = ["Max", "Min"][random.below(2) as usize];
        let policies: Vec<String> = (0..1 + random.below(2))
            .map(|_| {
                let period = 15 * (1 + random.below(8));
                match random.below(2) {
                    0 => {
                        let value = 1 + random.below(3);
                        format!("{{type: Pods, value: {value}, periodSeconds: {period}}}")
                    }
                    _ => {
                        let value = 20 + 20 * random.below(6);
                        format!("{{type: Percent, value: {value}, periodSeconds: {period}}}")
                    }
                }
            })
            .collect();
        text.push_str(&format!(
            "    {direction}: {{stabilizationWindowSeconds: {window}, selectPolicy: {select}, policies: [{}]}}\n",
            policies.join(", ")
        ));
    }
    text
}

/// Half of 200m is what 10 of a client's 20 requests a second take, with what a server uses anyway:
/// a little less, so that only one count is right.
const WEB_METRIC: &str =
    "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}";
const WORKER_METRIC: &str = "{type: External, external: {metric: {name: jobs}, target: {type: AverageValue, averageValue: 10}}}";

const FIXED: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: queue, annotations: {external.load.wharf.dev/jobs: "0"}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: FIRST-OF-web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {load.wharf.dev/cpu-per-request: 9700u}}
    spec:
      containers: [{name: c, image: registry.k8s.io/nginx-slim:0.8, resources: {requests: {cpu: 200m}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  replicas: FIRST-OF-worker
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      terminationGracePeriodSeconds: 5
      containers: [{name: c, image: registry.k8s.io/pause:3.10, resources: {requests: {cpu: 50m}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  replicas: 0
  selector: {matchLabels: {app: client}}
  template:
    metadata:
      labels: {app: client}
      annotations: {load.wharf.dev/requests: "20", load.wharf.dev/target: "http://web"}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: registry.k8s.io/pause:3.10, resources: {requests: {cpu: 10m}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hamster}
spec:
  replicas: 4
  selector: {matchLabels: {app: hamster}}
  template:
    metadata: {labels: {app: hamster}, annotations: {load.wharf.dev/cpu: 400m, load.wharf.dev/memory: 300Mi}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: registry.k8s.io/pause:3.10, resources: {requests: {cpu: 100m, memory: 50Mi}}}]
---
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata: {name: hamster}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: hamster}
  updatePolicy: {updateMode: Recreate}
  resourcePolicy:
    containerPolicies:
      - {containerName: "*", minAllowed: {cpu: 100m, memory: 50Mi}, maxAllowed: {cpu: 600m, memory: 400Mi}}
"#;

const FORECAST: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: queue, annotations: {external.load.wharf.dev/jobs: "10"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  replicas: 1
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      terminationGracePeriodSeconds: 5
      containers: [{name: c, image: registry.k8s.io/pause:3.10, resources: {requests: {cpu: 50m}}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: worker
  annotations:
    autoscaling.wharf.dev/predict: "true"
    autoscaling.wharf.dev/predict-season: 10m
    autoscaling.wharf.dev/predict-ahead: 2m
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  maxReplicas: 8
  metrics:
    - {type: External, external: {metric: {name: jobs}, target: {type: AverageValue, averageValue: 10}}}
  behavior:
    scaleUp: {policies: [{type: Pods, value: 8, periodSeconds: 15}]}
    scaleDown: {stabilizationWindowSeconds: 0, policies: [{type: Percent, value: 100, periodSeconds: 15}]}
"#;

/// Limits and policies hold, whatever failed.
#[derive(Default)]
pub(crate) struct AutoscalingInvariants {
    /// The count of each autoscaler's workload, and how it changed since the last restart.
    counts: BTreeMap<ObjectKey, (i32, Vec<Change>)>,
    /// Whether the workload that is sized has been complete.
    was_complete: bool,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    at: Time,
    from: i32,
    to: i32,
}

impl AutoscalingInvariants {
    /// What happened before a restart is forgotten, as upstream's controller forgets it.
    pub(crate) fn restarted(&mut self) {
        for (_, changes) in self.counts.values_mut() {
            changes.clear();
        }
    }

    pub(crate) fn check(&mut self, store: &Store, now: Time) {
        let (autoscalers, _) = store.list(Kind::of::<HorizontalPodAutoscaler>(), None);
        for object in &autoscalers {
            let autoscaler = object.typed::<HorizontalPodAutoscaler>().expect("it decodes");
            self.check_counts(object.key(), autoscaler, store, now);
        }
        let (autoscalers, _) = store.list(Kind::of::<VerticalPodAutoscaler>(), None);
        for object in &autoscalers {
            recommends_within_the_policy(object.typed().expect("it decodes"));
            self.most_pods_stay(store);
        }
    }

    fn check_counts(
        &mut self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        store: &Store,
        now: Time,
    ) {
        let target = ObjectKey::namespaced(&key.namespace, &autoscaler.spec.scale_target_ref.name);
        let Some(object) = store.get(Kind::of::<Deployment>(), &target) else { return };
        let deployment = object.typed::<Deployment>().expect("it decodes");
        let count = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let (least, most) =
            (autoscaler.spec.min_replicas.unwrap_or(1), autoscaler.spec.max_replicas);
        assert!((least..=most).contains(&count), "{key}: {count} of {least} to {most}");
        let (last, changes) = self.counts.entry(key.clone()).or_insert((count, Vec::new()));
        if *last == count {
            return;
        }
        let change = Change { at: now, from: *last, to: count };
        if let Some(behavior) = &autoscaler.spec.behavior {
            let rules = if change.to > change.from {
                behavior.scale_up.as_ref()
            } else {
                behavior.scale_down.as_ref()
            };
            let bound = bound(rules.expect("defaulted"), changes, &change);
            let kept = if change.to > change.from { count <= bound } else { count >= bound };
            assert!(kept, "{key}: {change:?} after {changes:?}, where {rules:?} allow {bound}");
        }
        changes.push(change);
        *last = count;
    }

    /// The updater takes half of the pods at a time, so that the others stay.
    fn most_pods_stay(&mut self, store: &Store) {
        let (pods, _) = store.list(Kind::of::<Pod>(), Some("default"));
        let runs = |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        let hamsters = pods.iter().filter(|object| object.header().label("app") == Some("hamster"));
        let running = hamsters.filter(|object| object.typed().is_some_and(runs)).count();
        let all = HAMSTERS as usize;
        self.was_complete |= running == all;
        assert!(!self.was_complete || running >= all / 2, "only {running} of {all} are left");
    }
}

/// How far the rules let a count go, by the counts that there were.
fn bound(rules: &HPAScalingRules, changes: &[Change], change: &Change) -> i32 {
    let is_up = change.to > change.from;
    let policies = rules.policies.iter().flatten().map(|policy| {
        let period = std::time::Duration::from_secs(policy.period_seconds.unsigned_abs().into());
        // Changes in either direction count against the count at the period's start.
        let within = changes.iter().filter(|earlier| earlier.at + period > change.at);
        let start = change.from - within.map(|earlier| earlier.to - earlier.from).sum::<i32>();
        let (start, value) = (f64::from(start), f64::from(policy.value));
        match (policy.type_.as_str(), is_up) {
            ("Pods", true) => start + value,
            ("Pods", false) => start - value,
            (_, true) => (start * (1.0 + value / 100.0)).ceil(),
            (_, false) => (start * (1.0 - value / 100.0)).floor(),
        }
    });
    let is_widest = rules.select_policy.as_deref() != Some("Min");
    let bound =
        if is_up == is_widest { policies.reduce(f64::max) } else { policies.reduce(f64::min) };
    bound.expect("a policy") as i32
}

fn recommends_within_the_policy(autoscaler: &VerticalPodAutoscaler) {
    let Some(recommended) = autoscaler.recommendation_for("c") else { return };
    for (resource, low, high) in [("cpu", "100m", "600m"), ("memory", "50Mi", "400Mi")] {
        let [low, high] = [low, high].map(|text| Quantity::parse(text).expect("a quantity"));
        for amounts in [&recommended.target, &recommended.lower_bound, &recommended.upper_bound] {
            let amount = amount(amounts, resource);
            assert!(low <= amount && amount <= high, "{resource} {amount:?}");
        }
    }
}

fn amount(amounts: &Amounts, resource: &str) -> Quantity {
    Quantity::try_from(&amounts[resource]).expect("a quantity")
}
