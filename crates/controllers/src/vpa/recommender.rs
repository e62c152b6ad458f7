//! The recommender: once a minute it reads what containers use, works out what each should ask for,
//! and keeps what it has learned in checkpoints.
//!
//! Usage of pods that no autoscaler is about is not kept, as with upstream's `--memory-saver`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Event, Pod, PodSpec, PodStatus};
use wharf_autoscale::vpa::target::selector;
use wharf_autoscale::vpa::{
    Checkpoint, Config, Model, ObservedContainer, ObservedPod, Recommendation, Target, api,
};
use wharf_model::kinds::Kind;
use wharf_model::metrics::PodMetrics;
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::phase;
use wharf_model::quantity::Quantity;
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_model::vpa::{
    VerticalPodAutoscaler, VerticalPodAutoscalerCheckpoint, VerticalPodAutoscalerCheckpointSpec,
};
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::ApiError;
use wharf_ports::event::EventType;
use wharf_ports::history::{HistoryAnswer, PodHistory};
use wharf_ports::metrics::{Metrics, PodQuery};
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;

use super::recall::{Recall, feed};
use super::status::{Found, report};
use super::{INTERVAL, READS, Storage, lookup};
use crate::workloads::event;

/// `--checkpoints-gc-interval`: how often checkpoints without an autoscaler are removed.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(600);
/// How often usage that is too old is forgotten.
const OLD_INTERVAL: Duration = Duration::from_secs(3600);
/// Checkpoints written in one round, those first that were written longest ago: what upstream's
/// client, at 50 requests a second, gets done in the minute it has for them.
const CHECKPOINTS_MAX: usize = 3000;
const ROUND: &str = "recommender";
const COMPONENT: &str = "vpa-recommender";
/// How long a round is put off whose metrics have been sent for, and how often: then it takes place
/// with those that there are.
const DEFERRED: (Duration, u32) = (Duration::from_secs(1), 9);

/// The recommender named `default`.
pub struct Recommender {
    metrics: Arc<dyn Metrics>,
    config: Config,
    autoscalers: BTreeMap<ObjectKey, Learned>,
    kills: Vec<Kill>,
    /// Whether the checkpoints that there were at the start have been read.
    has_loaded: bool,
    /// Those of autoscalers that have not begun yet.
    kept: BTreeMap<ObjectKey, Vec<(CompactString, Checkpoint)>>,
    /// History that somebody else has kept; `None` where checkpoints are all there is.
    recall: Option<Recall>,
    orphans_at: Time,
    old_at: Time,
    /// How often the present round has been put off.
    put_off: u32,
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
    /// What it asked for, in bytes; of one that was evicted, what it used.
    memory: i64,
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
            autoscalers: BTreeMap::new(),
            kills: Vec::new(),
            has_loaded: false,
            kept: BTreeMap::new(),
            recall: None,
            orphans_at: Time::EPOCH,
            old_at: Time::EPOCH,
            put_off: 0,
        }
    }

    /// The same with history from elsewhere, or without.
    #[must_use]
    pub fn with_storage(mut self, storage: Storage) -> Self {
        self.recall = (storage == Storage::Prometheus).then(Recall::default);
        self
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
        self.read_checkpoints(view);
        self.kept.retain(|key, _| there.contains(key));
        let kills = self.kills_by_namespace();
        let forgets = now >= self.old_at;
        for object in objects.iter().copied().filter(|object| seen_to(&object)) {
            let Some(autoscaler) = object.typed::<VerticalPodAutoscaler>() else { continue };
            let (selector, unsupported) =
                match selector(autoscaler, &object.key().namespace, &lookup(view)) {
                    Ok(selector) => (selector, None),
                    Err(why) => (Selector::NOTHING, Some(why)),
                };
            let history = match &mut self.recall {
                Some(recall) if begins(&self.autoscalers, object, &selector) => {
                    match recall.of(&object.key().namespace) {
                        Some(history) => Some(history),
                        // It holds still until there is an answer.
                        None => continue,
                    }
                }
                _ => None,
            };
            let is_new = meet(&mut self.autoscalers, &self.config, object, autoscaler, selector);
            let Some(learned) = self.autoscalers.get_mut(object.key()) else { continue };
            if is_new {
                let checkpoints = self.kept.remove(object.key()).unwrap_or_default();
                begin(learned, object, view, history, &checkpoints, &mut step);
            }
            learn(learned, object.key(), &kills, &*self.metrics, view, now);
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
        match &mut self.recall {
            Some(recall) => step.history.extend(recall.question(now)),
            None => self.kept.clear(),
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

    /// Sends for the metrics of a round where that takes time; says whether to wait for them.
    fn awaits_metrics(&mut self, view: &View, now: Time) -> bool {
        let Some(count) = self.metrics.deferred() else { return false };
        for object in view.objects(Kind::of::<VerticalPodAutoscaler>()) {
            let Some(autoscaler) = object.typed::<VerticalPodAutoscaler>() else { continue };
            let namespace = object.key().namespace.as_str();
            if let Ok(selector) = selector(autoscaler, namespace, &lookup(view))
                && autoscaler.has_default_recommender()
                && !view.pods_matching(namespace, &selector).is_empty()
            {
                let query = PodQuery { namespace, selector: &selector, names: &[] };
                // The answer is for the round.
                let _ = self.metrics.pod_metrics(&query, now);
            }
        }
        let waits = self.metrics.deferred() != Some(count) && self.put_off < DEFERRED.1;
        self.put_off = if waits { self.put_off + 1 } else { 0 };
        waits
    }

    /// Reads the checkpoints that there are at the start, and none later.
    fn read_checkpoints(&mut self, view: &View) {
        if std::mem::replace(&mut self.has_loaded, true) {
            return;
        }
        for object in view.list::<VerticalPodAutoscalerCheckpoint>() {
            // One of another version is passed over.
            let Some(checkpoint) = api::checkpoint_of(&object.status) else { continue };
            let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
            let key = ObjectKey::namespaced(namespace, &object.spec.vpa_object_name);
            let container = object.spec.container_name.as_str().into();
            self.kept.entry(key).or_default().push((container, checkpoint));
        }
    }

    fn kills_by_namespace(&mut self) -> BTreeMap<CompactString, Vec<Kill>> {
        let mut kills: BTreeMap<CompactString, Vec<Kill>> = BTreeMap::new();
        for kill in self.kills.drain(..) {
            kills.entry(kill.pod.namespace.clone()).or_default().push(kill);
        }
        kills
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

/// Whether history has to be asked for before anything can be said of an autoscaler: it is new, or
/// about other pods than before.
fn begins(
    autoscalers: &BTreeMap<ObjectKey, Learned>,
    object: &Object,
    selector: &Selector,
) -> bool {
    let is_same = |learned: &Learned| learned.uid == object.uid() && learned.selector == *selector;
    !selector.is_nothing() && !autoscalers.get(object.key()).is_some_and(is_same)
}

/// Takes in an autoscaler as it is now. Returns whether nothing is known of its pods yet.
fn meet(
    autoscalers: &mut BTreeMap<ObjectKey, Learned>,
    config: &Config,
    object: &Object,
    autoscaler: &VerticalPodAutoscaler,
    selector: Selector,
) -> bool {
    let key = object.key();
    if autoscalers.get(key).is_some_and(|learned| learned.uid != object.uid()) {
        autoscalers.remove(key);
    }
    let policies = api::policies(autoscaler);
    let target = Target { selector: selector.clone(), policies };
    if let Some(learned) = autoscalers.get_mut(key) {
        let is_other = learned.selector != selector;
        if is_other {
            // What was kept is about other pods.
            learned.model.forget_loaded();
            learned.selector = selector;
        }
        learned.model.set_target(target);
        return is_other;
    }
    let model = Model::new(config.clone(), target);
    let learned = Learned { uid: object.uid().into(), selector, model, kept_at: None };
    autoscalers.insert(key.clone(), learned);
    true
}

/// Begins with what was kept: history if there is any, else checkpoints.
fn begin(
    learned: &mut Learned,
    object: &Arc<Object>,
    view: &View,
    history: Option<Result<&[PodHistory], &str>>,
    checkpoints: &[(CompactString, Checkpoint)],
    step: &mut Step,
) {
    let mut tell = |decision: &str, why: String| {
        step.reasons.push(Reason {
            kind: object.kind(),
            key: object.key().clone(),
            by: COMPONENT,
            decision: decision.to_owned(),
            because: vec![Because::new("history", why)],
        });
    };
    if let Some(Ok(kept)) = history {
        let live = view.pods_matching(&object.key().namespace, &learned.selector);
        let fed = feed(&mut learned.model, &learned.selector, &live, kept);
        if let (Some(first), Some(last)) = (fed.first, fed.last) {
            let (samples, pods) = (fed.samples, fed.pods);
            let text = format!("{samples} samples of {pods} pods between {first} and {last}");
            tell("begins with history", text);
            return;
        }
    }
    for (container, checkpoint) in checkpoints {
        learned.model.load(container, checkpoint);
    }
    let instead = if checkpoints.is_empty() { "without history" } else { "with its checkpoints" };
    match history {
        Some(Ok(_)) => tell(&format!("begins {instead}"), "there is none of its pods".to_owned()),
        Some(Err(why)) => {
            tell(&format!("begins {instead}"), why.to_owned());
            let text = format!("cannot fetch history: {why}; beginning {instead}");
            let reason = "FetchingHistoryFailed";
            step.write(event(object, EventType::Warning, COMPONENT, reason, text));
        }
        None => {}
    }
}

/// Brings what is known of an autoscaler's pods up to now.
fn learn(
    learned: &mut Learned,
    key: &ObjectKey,
    kills: &BTreeMap<CompactString, Vec<Kill>>,
    metrics: &dyn Metrics,
    view: &View,
    now: Time,
) {
    let namespace = key.namespace.as_str();
    let mut pods = view.pods_matching(namespace, &learned.selector);
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
        learned.model.add_oom(&kill.pod.name, &kill.container, kill.memory, kill.at);
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
        by: COMPONENT,
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
                memory: api::memory_request(resources.requests.as_ref()),
                at: ended.finished_at.as_ref().map(Time::from).unwrap_or_default(),
            });
        }
    }
    kills
}

/// The containers for whose use of memory a pod was evicted, as the Event's annotations tell it.
/// Upstream reads three lists of the same length, and the kubelet names the resource once: of an
/// eviction with several offenders nothing is learned.
fn evictions(event: &Event) -> Vec<Kill> {
    let about = &event.involved_object;
    if event.reason.as_deref() != Some("Evicted") || about.kind.as_deref() != Some("Pod") {
        return Vec::new();
    }
    let list = |name: &str| -> Vec<&str> {
        let text = event.metadata.annotations.as_ref().and_then(|all| all.get(name));
        text.map(|text| text.split(',').collect()).unwrap_or_default()
    };
    let containers = list("offending_containers");
    let (usages, starved) = (list("offending_containers_usage"), list("starved_resource"));
    if containers.len() != usages.len() || containers.len() != starved.len() {
        return Vec::new();
    }
    let (namespace, name) = (about.namespace.as_deref(), about.name.as_deref());
    let pod = ObjectKey::namespaced(namespace.unwrap_or_default(), name.unwrap_or_default());
    let each = containers.into_iter().zip(usages).zip(starved);
    each.filter(|(_, starved)| *starved == "memory")
        .filter_map(|((container, usage), _)| {
            Some(Kill {
                pod: pod.clone(),
                container: container.into(),
                memory: Quantity::parse(usage).ok()?.value_ceil(),
                at: event.metadata.creation_timestamp.as_ref().map(Time::from)?,
            })
        })
        .collect()
}

impl Controller for Recommender {
    fn name(&self) -> &'static str {
        "vpa-recommender"
    }

    fn reads(&self) -> Option<&'static [(&'static str, &'static str)]> {
        Some(READS)
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<VerticalPodAutoscaler>() {
            queue.after(WorkKey::singleton(ROUND), INTERVAL);
        } else if change.kind() == Kind::of::<Pod>() {
            if let (Some(old), Some(new)) = (&change.old, &change.new)
                && view.count(Kind::of::<VerticalPodAutoscaler>()) > 0
            {
                self.kills.extend(kills(old, new));
            }
        } else if change.kind() == Kind::of::<Event>()
            && let (None, Some(new)) = (&change.old, &change.new)
            && view.count(Kind::of::<VerticalPodAutoscaler>()) > 0
        {
            self.kills.extend(new.typed().into_iter().flat_map(evictions));
        }
    }

    fn recalled(&mut self, answer: &HistoryAnswer, queue: &mut Enqueue) {
        if self.recall.as_mut().is_some_and(|recall| recall.take(answer)) {
            queue.now(WorkKey::singleton(ROUND));
        }
    }

    fn step(&mut self, _key: &WorkKey, context: &mut Context<'_>) -> Step {
        if self.awaits_metrics(context.view, context.now) {
            return Step { again: Some(DEFERRED.0), ..Step::default() };
        }
        self.round(context)
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, _error: &ApiError) -> OnError {
        // The next round says it again.
        OnError::Forget
    }
}

#[cfg(test)]
mod tests;
