//! The recommender: once a minute it reads what containers use, works out what each should ask for,
//! and keeps what it has learned in checkpoints.
//!
//! Usage of pods that no autoscaler is about is not kept, as with upstream's `--memory-saver`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use wharf_autoscale::vpa::target::selector;
use wharf_autoscale::vpa::{
    Checkpoint, Config, Model, ObservedContainer, ObservedPod, Recommendation, Target, api,
};
use wharf_model::kinds::Kind;
use wharf_model::metrics::PodMetrics;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::phase;
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_model::vpa::{
    VerticalPodAutoscaler, VerticalPodAutoscalerCheckpoint, VerticalPodAutoscalerCheckpointSpec,
};
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::metrics::{Metrics, PodQuery};
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;

use super::pods::PodIndex;
use super::status::{Found, report};
use super::{INTERVAL, lookup};

/// `--checkpoints-gc-interval`: how often checkpoints without an autoscaler are removed.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(600);
/// How often usage that is too old is forgotten.
const OLD_INTERVAL: Duration = Duration::from_secs(3600);
/// Checkpoints written in one round, those first that were written longest ago: what upstream's
/// client, at 50 requests a second, gets done in the minute it has for them.
const CHECKPOINTS_MAX: usize = 3000;
const ROUND: &str = "recommender";

/// The recommender named `default`.
pub struct Recommender {
    metrics: Arc<dyn Metrics>,
    config: Config,
    pods: PodIndex,
    autoscalers: BTreeMap<ObjectKey, Learned>,
    kills: Vec<Kill>,
    /// Whether the checkpoints that there were at the start have been read.
    has_loaded: bool,
    orphans_at: Time,
    old_at: Time,
}

/// What is known of one autoscaler's pods.
struct Learned {
    uid: CompactString,
    selector: Selector,
    model: Model,
    /// When its checkpoints were last written.
    kept_at: Option<Time>,
}

/// A container that was killed for memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kill {
    pod: ObjectKey,
    container: CompactString,
    /// What it asked for, in bytes.
    request: i64,
    at: Time,
}

impl Recommender {
    /// A recommender that has learned nothing yet.
    pub fn new(metrics: Arc<dyn Metrics>) -> Self {
        Self::with_config(metrics, Config::default())
    }

    /// The same with other flags than upstream's defaults.
    pub fn with_config(metrics: Arc<dyn Metrics>, config: Config) -> Self {
        Self {
            metrics,
            config,
            pods: PodIndex::default(),
            autoscalers: BTreeMap::new(),
            kills: Vec::new(),
            has_loaded: false,
            orphans_at: Time::EPOCH,
            old_at: Time::EPOCH,
        }
    }

    /// Upstream's main loop, once.
    fn round(&mut self, context: &Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let mut step = Step { independent: true, ..Step::default() };
        let objects: Vec<&Arc<Object>> =
            view.objects(Kind::of::<VerticalPodAutoscaler>()).collect();
        let seen_to = |object: &&&Arc<Object>| {
            object.typed::<VerticalPodAutoscaler>().is_some_and(|a| a.has_default_recommender())
        };
        let there: BTreeSet<&ObjectKey> =
            objects.iter().filter(seen_to).map(|object| object.key()).collect();
        self.autoscalers.retain(|key, _| there.contains(key));
        let checkpoints = self.checkpoints_to_load(view);
        let kills = self.kills_by_namespace();
        let forgets = now >= self.old_at;
        for object in objects.iter().copied().filter(|object| seen_to(&object)) {
            let Some(autoscaler) = object.typed::<VerticalPodAutoscaler>() else { continue };
            let (selector, unsupported) =
                match selector(autoscaler, &object.key().namespace, &lookup(view)) {
                    Ok(selector) => (selector, None),
                    Err(why) => (Selector::NOTHING, Some(why)),
                };
            self.meet(object, autoscaler, selector, &checkpoints);
            let Some(learned) = self.autoscalers.get_mut(object.key()) else { continue };
            learn(learned, object.key(), &self.pods, &kills, &*self.metrics, view, now);
            if forgets {
                learned.model.forget_old(now);
            }
            let recommendations = learned.model.recommend();
            let found = Found {
                recommendations: &recommendations,
                has_pods: learned.model.has_pods(),
                unsupported: unsupported.as_deref(),
            };
            let status = report(autoscaler, &found, now);
            if status != autoscaler.status {
                step.reasons.extend(reason(object, autoscaler, learned, &recommendations));
                let mut autoscaler = VerticalPodAutoscaler { status, ..autoscaler.clone() };
                autoscaler.metadata.resource_version = None;
                step.write(Write::Update { object: Box::new(autoscaler), part: Part::Status });
            }
        }
        if forgets {
            self.old_at = now + OLD_INTERVAL;
        }
        self.keep(view, now, &mut step);
        self.remove_orphans(view, now, &mut step);
        // Checkpoints may still have to be removed when the last autoscaler is gone.
        let is_idle =
            objects.is_empty() && view.count(Kind::of::<VerticalPodAutoscalerCheckpoint>()) == 0;
        step.again = (!is_idle).then_some(INTERVAL);
        step
    }

    /// The checkpoints that there were at the start, by autoscaler; none later.
    fn checkpoints_to_load<'v>(
        &mut self,
        view: &'v View,
    ) -> BTreeMap<ObjectKey, Vec<(&'v str, Checkpoint)>> {
        let mut found: BTreeMap<ObjectKey, Vec<(&str, Checkpoint)>> = BTreeMap::new();
        if !std::mem::replace(&mut self.has_loaded, true) {
            for object in view.list::<VerticalPodAutoscalerCheckpoint>() {
                // One of another version is passed over.
                let Some(checkpoint) = api::checkpoint_of(&object.status) else { continue };
                let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
                let key = ObjectKey::namespaced(namespace, &object.spec.vpa_object_name);
                found.entry(key).or_default().push((&object.spec.container_name, checkpoint));
            }
        }
        found
    }

    fn kills_by_namespace(&mut self) -> BTreeMap<CompactString, Vec<Kill>> {
        let mut kills: BTreeMap<CompactString, Vec<Kill>> = BTreeMap::new();
        for kill in self.kills.drain(..) {
            kills.entry(kill.pod.namespace.clone()).or_default().push(kill);
        }
        kills
    }

    /// Takes in an autoscaler as it is now.
    fn meet(
        &mut self,
        object: &Object,
        autoscaler: &VerticalPodAutoscaler,
        selector: Selector,
        checkpoints: &BTreeMap<ObjectKey, Vec<(&str, Checkpoint)>>,
    ) {
        let key = object.key();
        if self.autoscalers.get(key).is_some_and(|learned| learned.uid != object.uid()) {
            self.autoscalers.remove(key);
        }
        let policies = api::policies(autoscaler);
        let target = Target { selector: selector.clone(), policies };
        if let Some(learned) = self.autoscalers.get_mut(key) {
            if learned.selector != selector {
                // What was kept is about other pods.
                learned.model.forget_loaded();
                learned.selector = selector;
            }
            learned.model.set_target(target);
            return;
        }
        let mut model = Model::new(self.config.clone(), target);
        for (container, checkpoint) in checkpoints.get(key).into_iter().flatten() {
            model.load(container, checkpoint);
        }
        let learned = Learned { uid: object.uid().into(), selector, model, kept_at: None };
        self.autoscalers.insert(key.clone(), learned);
    }

    /// Writes checkpoints, those first that were written longest ago.
    fn keep(&mut self, view: &View, now: Time, step: &mut Step) {
        let mut order: Vec<(Option<Time>, ObjectKey)> =
            self.autoscalers.iter().map(|(key, learned)| (learned.kept_at, key.clone())).collect();
        order.sort();
        let mut written = 0;
        for (_, key) in order {
            if written >= CHECKPOINTS_MAX {
                break;
            }
            let Some(learned) = self.autoscalers.get_mut(&key) else { continue };
            learned.kept_at = Some(now);
            for (container, checkpoint) in learned.model.checkpoints(now) {
                step.writes.push(checkpoint_write(view, &key, &container, &checkpoint, now));
                written += 1;
            }
        }
    }

    fn remove_orphans(&mut self, view: &View, now: Time, step: &mut Step) {
        if now < self.orphans_at {
            return;
        }
        self.orphans_at = now + ORPHANS_INTERVAL;
        let kind = Kind::of::<VerticalPodAutoscaler>();
        for object in view.objects(Kind::of::<VerticalPodAutoscalerCheckpoint>()) {
            let Some(checkpoint) = object.typed::<VerticalPodAutoscalerCheckpoint>() else {
                continue;
            };
            let name = &checkpoint.spec.vpa_object_name;
            let key = ObjectKey::namespaced(&object.key().namespace, name);
            if view.object(kind, &key).is_none() {
                step.write(Write::Delete(Delete::of(object)));
            }
        }
    }
}

/// Brings what is known of an autoscaler's pods up to now.
fn learn(
    learned: &mut Learned,
    key: &ObjectKey,
    index: &PodIndex,
    kills: &BTreeMap<CompactString, Vec<Kill>>,
    metrics: &dyn Metrics,
    view: &View,
    now: Time,
) {
    let namespace = key.namespace.as_str();
    let mut pods = index.find(view, namespace, &learned.selector);
    // Upstream does not look at pods that wait.
    pods.retain(|pod| pod.typed::<Pod>().is_some_and(|pod| phase(pod) != "Pending"));
    let names: Vec<&str> = pods.iter().map(|pod| pod.key().name.as_str()).collect();
    let gone: Vec<CompactString> = learned
        .model
        .pods()
        .filter(|name| names.binary_search(name).is_err())
        .map(Into::into)
        .collect();
    gone.iter().for_each(|name| learned.model.remove_pod(name));
    for object in &pods {
        if let Some(pod) = object.typed::<Pod>() {
            meet_pod(&mut learned.model, object, pod);
        }
    }
    if names.is_empty() {
        return;
    }
    let query = PodQuery { namespace, selector: &learned.selector, names: &names };
    // Without metrics nothing is learned, and what is known still counts.
    for measured in metrics.pod_metrics(&query, now).unwrap_or_default() {
        add_samples(&mut learned.model, &measured);
    }
    for kill in kills.get(namespace).into_iter().flatten() {
        learned.model.add_oom(&kill.pod.name, &kill.container, kill.request, kill.at);
    }
}

fn meet_pod(model: &mut Model, object: &Object, pod: &Pod) {
    let containers = || pod.spec.iter().flat_map(|spec| &spec.containers);
    let name = object.key().name.as_str();
    let no_labels = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&no_labels);
    if model.knows(name, labels, containers().map(|container| container.name.as_str())) {
        return;
    }
    let containers =
        containers().map(|container| ObservedContainer { name: container.name.as_str().into() });
    model.set_pod(&ObservedPod {
        name: name.into(),
        labels: labels.clone(),
        containers: containers.collect(),
    });
}

fn add_samples(model: &mut Model, measured: &PodMetrics) {
    for container in &measured.containers {
        for (resource, amount) in &container.usage {
            let (pod, name, at) = (&measured.pod, &container.name, measured.timestamp);
            match resource.as_str() {
                "cpu" => model.add_cpu(pod, name, amount.milli_value_ceil(), at),
                "memory" => model.add_memory(pod, name, amount.value_ceil(), at),
                _ => {}
            }
        }
    }
}

fn checkpoint_write(
    view: &View,
    autoscaler: &ObjectKey,
    container: &str,
    checkpoint: &Checkpoint,
    now: Time,
) -> Write {
    let name = api::checkpoint_name(&autoscaler.name, container);
    let key = ObjectKey::namespaced(&autoscaler.namespace, &name);
    let mut object = VerticalPodAutoscalerCheckpoint {
        spec: VerticalPodAutoscalerCheckpointSpec {
            vpa_object_name: autoscaler.name.to_string(),
            container_name: container.to_owned(),
        },
        status: api::checkpoint_status(checkpoint, now),
        ..VerticalPodAutoscalerCheckpoint::default()
    };
    object.metadata.name = Some(name);
    object.metadata.namespace = Some(autoscaler.namespace.to_string());
    match view.get::<VerticalPodAutoscalerCheckpoint>(&key) {
        None => Write::Create(Box::new(object)),
        Some(stored) => {
            object.metadata = stored.metadata.clone();
            object.metadata.resource_version = None;
            Write::Update { object: Box::new(object), part: Part::Main }
        }
    }
}

/// Tells of a target that changed.
fn reason(
    object: &Object,
    autoscaler: &VerticalPodAutoscaler,
    learned: &Learned,
    recommendations: &[Recommendation],
) -> Option<Reason> {
    let written = api::recommendation(recommendations);
    let mut because = Vec::new();
    let mut targets = Vec::new();
    let mut is_news = false;
    for (one, found) in written.container_recommendations.iter().zip(recommendations) {
        let before = autoscaler.recommendation_for(&one.container_name);
        is_news |= before.is_none_or(|before| before.target != one.target);
        let list = |amounts: &wharf_model::vpa::Amounts| {
            let list: Vec<String> =
                amounts.iter().map(|(name, amount)| format!("{name} {amount}")).collect();
            list.join(", ")
        };
        targets.push(format!("{} {}", one.container_name, list(&one.target)));
        let (samples, first, last) = learned.model.history(&found.container);
        let span = match (first, last) {
            (Some(first), Some(last)) => last.since(first),
            _ => Duration::ZERO,
        };
        because.push(Because::new(
            one.container_name.clone(),
            format!(
                "{samples} samples over {}; between {} and {}; without the policy {}",
                wharf_model::duration::human(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)),
                list(&one.lower_bound),
                list(&one.upper_bound),
                list(&one.uncapped_target)
            ),
        ));
    }
    is_news.then(|| Reason {
        kind: object.kind(),
        key: object.key().clone(),
        by: "vpa-recommender",
        decision: format!("recommends {}", targets.join("; ")),
        because,
    })
}

/// The containers that a change of a pod tells were killed for memory.
fn kills(old: &Object, new: &Object) -> Vec<Kill> {
    let (Some(before), Some(after)) = (old.typed::<Pod>(), new.typed::<Pod>()) else {
        return Vec::new();
    };
    let statuses = |status: &Option<PodStatus>| {
        status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default()
    };
    if before.status == after.status {
        return Vec::new();
    }
    let had = statuses(&before.status);
    let mut kills = Vec::new();
    for status in statuses(&after.status) {
        let ended = [&status.state, &status.last_state].into_iter().find_map(|state| {
            let ended = state.as_ref()?.terminated.as_ref()?;
            (ended.reason.as_deref() == Some("OOMKilled")).then_some(ended)
        });
        let grew = had
            .iter()
            .any(|had| had.name == status.name && had.restart_count < status.restart_count);
        let container = |spec: &PodSpec| {
            spec.containers.iter().find(|container| container.name == status.name).cloned()
        };
        if let Some(ended) = ended.filter(|_| grew)
            && let Some(container) = before.spec.as_ref().and_then(container)
        {
            let resources = container.resources.unwrap_or_default();
            kills.push(Kill {
                pod: new.key().clone(),
                container: status.name.as_str().into(),
                request: api::memory_request(resources.requests.as_ref()),
                at: ended.finished_at.as_ref().map(Time::from).unwrap_or_default(),
            });
        }
    }
    kills
}

impl Controller for Recommender {
    fn name(&self) -> &'static str {
        "vpa-recommender"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<VerticalPodAutoscaler>() {
            queue.after(WorkKey::singleton(ROUND), INTERVAL);
        } else if change.kind() == Kind::of::<Pod>() {
            self.pods.observe(change);
            if let (Some(old), Some(new)) = (&change.old, &change.new)
                && view.count(Kind::of::<VerticalPodAutoscaler>()) > 0
            {
                self.kills.extend(kills(old, new));
            }
        }
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        self.round(context)
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, _error: &ApiError) -> OnError {
        // The next round says it again.
        OnError::Forget
    }
}

#[cfg(test)]
mod tests;
