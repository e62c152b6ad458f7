//! Deployments: rollouts of templates over ReplicaSets.
//!
//! Follows <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/>. Each look does
//! what upstream does in one pass: finds or makes the ReplicaSet of the present template, scales,
//! takes one step of the rollout, clears old ReplicaSets away, and reports. Writes to ReplicaSets
//! carry the version that was seen, so that a look at an old view is refused and repeated.

mod revision;
mod scale;
mod status;

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use wharf_model::kinds::Kind;
use wharf_model::labels::{
    DEPLOYMENT_DESIRED_REPLICAS, DEPLOYMENT_MAX_REPLICAS, DEPLOYMENT_REVISION,
};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::pod::is_terminal;
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::event::EventType;
use wharf_ports::view::View;

use super::events::event;
use super::owners::{controller_of, controller_reference};
use scale::{Share, Size, Wanted, in_proportion, roll_old};
use status::{actual, size};

const COMPONENT: &str = "deployment-controller";

/// The Deployment controller.
#[derive(Debug, Default)]
pub struct DeploymentController {
    /// ReplicaSets without a managing owner.
    orphans: BTreeSet<ObjectKey>,
}

impl DeploymentController {
    /// A controller that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn observe_set(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let set = change.object();
        let kind = Kind::of::<Deployment>();
        if change.new.is_some() && set.header().controller().is_none() {
            self.orphans.insert(change.key().clone());
            for deployment in view.objects_in(kind, &change.key().namespace) {
                queue.now(WorkKey::object(kind, deployment.key()));
            }
        } else {
            self.orphans.remove(change.key());
        }
        for version in change.old.iter().chain(&change.new) {
            if let Some(owner) = controller_of::<Deployment>(version, view) {
                queue.now(WorkKey::object(kind, owner.key()));
            }
        }
    }

    /// A ReplicaSet that the selector matches and nobody manages is taken on.
    fn adopt(&self, deployment: &Deployment, view: &View) -> Option<Write> {
        let spec = deployment.spec.as_ref()?;
        let selector = Selector::from_api(Some(&spec.selector)).ok()?;
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let orphan = self.orphans.iter().filter(|key| key.namespace == namespace).find_map(|key| {
            let object = view.object(Kind::of::<ReplicaSet>(), key)?;
            let header = object.header();
            let matches = header.controller().is_none()
                && header.deleting.is_none()
                && selector.matches_with(|key| header.label(key));
            matches.then(|| object.draft::<ReplicaSet>()).flatten()
        });
        let mut set = orphan?;
        let owners = set.metadata.owner_references.get_or_insert_default();
        owners.push(controller_reference(deployment));
        Some(Write::Update { object: Box::new(set), part: Part::Main })
    }
}

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = change.kind();
        if kind == Kind::of::<Deployment>() {
            queue.now(WorkKey::object(kind, change.key()));
        } else if kind == Kind::of::<ReplicaSet>() {
            self.observe_set(change, view, queue);
        } else if kind == Kind::of::<Pod>() && change.new.is_none() {
            // A rollout of type Recreate waits for the last old pod to go.
            let set = controller_of::<ReplicaSet>(change.object(), view);
            let owner = set.and_then(|set| controller_of::<Deployment>(set, view));
            if let Some(owner) = owner
                && owner.typed::<Deployment>().is_some_and(|owner| !Wanted::of(owner).rolling)
            {
                queue.now(WorkKey::object(owner.kind(), owner.key()));
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let object = context.view.object(Kind::of::<Deployment>(), &key.key);
        let Some((object, deployment)) =
            object.and_then(|object| Some((object, object.typed::<Deployment>()?)))
        else {
            return Step::done();
        };
        let selects_all = deployment.spec.as_ref().is_none_or(|spec| {
            Selector::from_api(Some(&spec.selector)).is_ok_and(|selector| selector.is_everything())
        });
        if selects_all {
            let mut step = Step::done();
            if deployment.status.as_ref().and_then(|status| status.observed_generation)
                != deployment.metadata.generation
            {
                let text =
                    "This deployment is selecting all pods. A non-empty selector is required.";
                step.write(event(object, EventType::Warning, COMPONENT, "SelectingAll", text));
                let mut deployment = deployment.clone();
                deployment.metadata.resource_version = None;
                let generation = deployment.metadata.generation;
                deployment.status.get_or_insert_default().observed_generation = generation;
                step.write(Write::Update { object: Box::new(deployment), part: Part::Status });
            }
            return step;
        }
        if object.header().deleting.is_none()
            && let Some(adoption) = self.adopt(deployment, context.view)
        {
            let mut step = Step::done();
            step.write(adoption);
            return step;
        }
        Rollout::gather(object, deployment, context).run(object.header().deleting.is_some())
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

/// One look at a Deployment: its ReplicaSets as they are to become.
struct Rollout<'a> {
    object: &'a Object,
    deployment: &'a Deployment,
    wanted: Wanted,
    view: &'a View,
    now: Time,
    /// Oldest first.
    sets: Vec<Draft<'a>>,
    new: Option<usize>,
    status: DeploymentStatus,
    revision: Option<i64>,
    events: Vec<Write>,
    deletes: Vec<Write>,
}

/// A ReplicaSet as it is to become.
struct Draft<'a> {
    /// As it is; `None` for one to be created.
    seen: Option<&'a Object>,
    set: ReplicaSet,
    changed: bool,
}

impl<'a> Rollout<'a> {
    fn gather(object: &'a Object, deployment: &'a Deployment, context: &Context<'a>) -> Self {
        let mut sets: Vec<Draft<'a>> = context
            .view
            .owned_by(object.uid(), Kind::of::<ReplicaSet>())
            .filter(|set| set.header().controller().is_some_and(|c| c.uid == object.uid()))
            .filter_map(|seen| {
                let set = seen.draft::<ReplicaSet>()?;
                Some(Draft { seen: Some(seen.as_ref()), set, changed: false })
            })
            .collect();
        sets.sort_by_key(|draft| draft.seen.map(|seen| (seen.header().created, seen.key())));
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let new = template.and_then(|template| {
            sets.iter().position(|d| revision::is_of_template(&d.set, template))
        });
        Self {
            object,
            deployment,
            wanted: Wanted::of(deployment),
            view: context.view,
            now: context.now,
            sets,
            new,
            status: deployment.status.clone().unwrap_or_default(),
            revision: None,
            events: Vec::new(),
            deletes: Vec::new(),
        }
    }

    fn run(mut self, deleting: bool) -> Step {
        if deleting {
            self.count();
            return self.finish();
        }
        let paused = self.deployment.spec.as_ref().is_some_and(|spec| spec.paused == Some(true));
        status::note_pause(&mut self.status, self.deployment, self.now);
        if paused || self.is_being_scaled() {
            self.sync_revision(false);
            self.scale();
            if paused {
                self.clean_up();
            }
            self.count();
        } else if self.wanted.rolling {
            self.roll();
            self.count();
            self.judge();
        } else {
            self.recreate();
            self.count();
            self.judge();
        }
        self.finish()
    }

    /// Whether the Deployment's size changed since the ReplicaSets were last sized.
    fn is_being_scaled(&self) -> bool {
        self.sets.iter().any(|draft| {
            let desired = revision::annotated(&draft.set, DEPLOYMENT_DESIRED_REPLICAS);
            size(&draft.set) > 0 && desired.is_some_and(|desired| desired != self.wanted.replicas)
        })
    }

    /// Finds the ReplicaSet of the present template, or makes it, and gives it the next revision.
    fn sync_revision(&mut self, create: bool) {
        let old = self.sets.iter().enumerate().filter(|(index, _)| Some(*index) != self.new);
        let newest = old
            .map(|(_, draft)| revision::revision(draft.set.metadata.annotations.as_ref()))
            .max()
            .unwrap_or(0);
        let next = newest.saturating_add(1);
        if let Some(index) = self.new {
            let draft = &mut self.sets[index];
            draft.changed |= revision::annotate(&mut draft.set, self.deployment, next);
            let min_ready = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
            if let Some(spec) = &mut draft.set.spec
                && spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0)
            {
                spec.min_ready_seconds = min_ready;
                draft.changed = true;
            }
            let revision = revision::revision(draft.set.metadata.annotations.as_ref());
            let name = draft.set.metadata.name.clone().unwrap_or_default();
            self.revision = Some(revision);
            status::note_new_set(&mut self.status, self.deployment, false, &name, self.now);
        } else if create {
            self.create(next);
        }
    }

    fn create(&mut self, revision: i64) {
        let collisions = self.status.collision_count.unwrap_or(0);
        let mut set = revision::new_replica_set(self.deployment, collisions);
        let name = set.metadata.name.clone().unwrap_or_default();
        let key = ObjectKey::of(&set.metadata);
        if self.view.object(Kind::of::<ReplicaSet>(), &key).is_some() {
            // Another template has the same hash: the next look tries with another one.
            self.status.collision_count = Some(collisions.saturating_add(1));
            return;
        }
        revision::annotate(&mut set, self.deployment, revision);
        revision::annotate_sizes(&mut set, self.wanted);
        let replicas = self.wanted.new_size(0, self.total());
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(replicas);
        }
        if replicas > 0 {
            self.say_scaled("up", &name, 0, replicas);
        }
        self.revision = Some(revision);
        status::note_new_set(&mut self.status, self.deployment, true, &name, self.now);
        self.new = Some(self.sets.len());
        self.sets.push(Draft { seen: None, set, changed: true });
    }

    fn roll(&mut self) {
        self.sync_revision(true);
        let Some(new) = self.new else { return };
        let before = size(&self.sets[new].set);
        let created = self.sets[new].seen.is_none();
        if !created && before != self.wanted.replicas {
            let after = self.wanted.new_size(before, self.total());
            self.resize(new, after);
            if after != before {
                return;
            }
        }
        if created {
            return;
        }
        let old = self.old(new);
        let sizes: Vec<Size> = old.iter().map(|index| self.size_of(*index)).collect();
        let rolled = roll_old(self.wanted, &sizes, self.size_of(new));
        let mut scaled = false;
        for (index, replicas) in old.into_iter().zip(rolled) {
            if size(&self.sets[index].set) != replicas {
                self.resize(index, replicas);
                scaled = true;
            }
        }
        if !scaled {
            self.clean_up();
        }
    }

    fn recreate(&mut self) {
        self.sync_revision(false);
        let mut scaled = false;
        for index in 0..self.sets.len() {
            if Some(index) != self.new && size(&self.sets[index].set) > 0 {
                self.resize(index, 0);
                scaled = true;
            }
        }
        if scaled || self.old_pods_run() {
            return;
        }
        if self.new.is_none() {
            self.sync_revision(true);
        }
        if let Some(new) = self.new {
            self.resize(new, self.wanted.replicas);
        }
        self.clean_up();
    }

    fn old_pods_run(&self) -> bool {
        let old = self.sets.iter().enumerate().filter(|(index, _)| Some(*index) != self.new);
        old.filter_map(|(_, draft)| draft.seen).any(|set| {
            self.view
                .owned_by(set.uid(), Kind::of::<Pod>())
                .any(|pod| pod.typed::<Pod>().is_some_and(|pod| !is_terminal(pod)))
        })
    }

    /// Brings the ReplicaSets to the Deployment's new size without going on with a rollout.
    fn scale(&mut self) {
        let active: Vec<usize> =
            (0..self.sets.len()).filter(|index| size(&self.sets[*index].set) > 0).collect();
        if active.len() <= 1 {
            let newest = self.new.or_else(|| self.sets.len().checked_sub(1));
            if let Some(index) = active.first().copied().or(newest) {
                self.resize(index, self.wanted.replicas);
            }
            return;
        }
        if let Some(new) = self.new.filter(|new| self.is_saturated(*new)) {
            for index in active.into_iter().filter(|index| *index != new) {
                self.resize(index, 0);
            }
            return;
        }
        if !self.wanted.rolling {
            return;
        }
        let newest_first: Vec<usize> = active.into_iter().rev().collect();
        let of = self.status.replicas.unwrap_or(0);
        let shares: Vec<Share> = newest_first
            .iter()
            .map(|index| {
                let set = &self.sets[*index].set;
                let of = revision::annotated(set, DEPLOYMENT_MAX_REPLICAS).unwrap_or(of);
                Share { replicas: size(set), of }
            })
            .collect();
        for (index, replicas) in newest_first.into_iter().zip(in_proportion(self.wanted, &shares)) {
            self.resize(index, replicas);
        }
    }

    /// Whether the new ReplicaSet has all the pods there are to be, and all are available.
    fn is_saturated(&self, new: usize) -> bool {
        let set = &self.sets[new].set;
        let desired = revision::annotated(set, DEPLOYMENT_DESIRED_REPLICAS);
        size(set) == self.wanted.replicas
            && desired == Some(self.wanted.replicas)
            && self.size_of(new).available == self.wanted.replicas
    }

    /// Deletes old ReplicaSets beyond `revisionHistoryLimit`, the lowest revisions first.
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let limit = match limit {
            Some(i32::MAX) => return,
            limit => usize::try_from(limit.unwrap_or(10)).unwrap_or(0),
        };
        let mut old: Vec<(i64, usize)> = (0..self.sets.len())
            .filter(|index| Some(*index) != self.new)
            .map(|index| {
                let annotations = self.sets[index].set.metadata.annotations.as_ref();
                (revision::revision(annotations), index)
            })
            .collect();
        old.sort_unstable();
        let surplus = old.len().saturating_sub(limit);
        for (_, index) in old.into_iter().take(surplus) {
            let draft = &self.sets[index];
            let Some(seen) = draft.seen.filter(|seen| seen.header().deleting.is_none()) else {
                continue;
            };
            let observed = draft.set.status.as_ref().and_then(|status| status.observed_generation);
            let settled = observed >= draft.set.metadata.generation;
            if size(&draft.set) == 0 && actual(&draft.set) == 0 && settled {
                self.deletes.push(Write::Delete(Delete::of(seen)));
            }
        }
    }

    fn old(&self, new: usize) -> Vec<usize> {
        (0..self.sets.len())
            .filter(|index| *index != new && size(&self.sets[*index].set) > 0)
            .collect()
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|draft| size(&draft.set)).fold(0, i32::saturating_add)
    }

    fn size_of(&self, index: usize) -> Size {
        let set = &self.sets[index].set;
        let available = set.status.as_ref().and_then(|status| status.available_replicas);
        Size { replicas: size(set), available: available.unwrap_or(0) }
    }

    fn resize(&mut self, index: usize, replicas: i32) {
        let draft = &mut self.sets[index];
        let before = size(&draft.set);
        draft.changed |= revision::annotate_sizes(&mut draft.set, self.wanted);
        if before == replicas {
            return;
        }
        draft.changed = true;
        if let Some(spec) = &mut draft.set.spec {
            spec.replicas = Some(replicas);
        }
        let name = draft.set.metadata.name.clone().unwrap_or_default();
        self.say_scaled(if before < replicas { "up" } else { "down" }, &name, before, replicas);
    }

    fn say_scaled(&mut self, way: &str, name: &str, before: i32, after: i32) {
        let text = format!("Scaled {way} replica set {name} from {before} to {after}");
        let says = event(self.object, EventType::Normal, COMPONENT, "ScalingReplicaSet", text);
        self.events.push(says);
    }

    fn count(&mut self) {
        let mut deployment = self.deployment.clone();
        deployment.status = Some(std::mem::take(&mut self.status));
        let sets: Vec<&ReplicaSet> = self.sets.iter().map(|draft| &draft.set).collect();
        let new = self.new.map(|index| &self.sets[index].set);
        self.status = status::counts(&deployment, &sets, new, self.now);
    }

    fn judge(&mut self) {
        let sets: Vec<&ReplicaSet> = self.sets.iter().map(|draft| &draft.set).collect();
        let new = self.new.map(|index| &self.sets[index].set);
        status::judge_progress(&mut self.status, self.deployment, &sets, new, self.now);
    }

    /// ReplicaSets first, then what is said of them, then the Deployment's own report.
    fn finish(self) -> Step {
        let mut step = Step::done();
        for draft in self.sets.into_iter().filter(|draft| draft.changed) {
            let object = Box::new(draft.set);
            step.write(match draft.seen {
                Some(_) => Write::Update { object, part: Part::Main },
                None => Write::Create(object),
            });
        }
        step.writes.extend(self.events);
        step.writes.extend(self.deletes);
        let again = status::look_again(self.deployment, &self.status);
        step.again = again.map(|at| at.since(self.now).max(std::time::Duration::from_secs(1)));
        let annotations = self.deployment.metadata.annotations.as_ref();
        let revision = self.revision.filter(|new| revision::revision(annotations) != *new);
        let news = self.deployment.status.as_ref() != Some(&self.status);
        if !news && revision.is_none() {
            return step;
        }
        let mut deployment = Deployment { status: Some(self.status), ..self.deployment.clone() };
        let part = match revision {
            // The version seen stays in: a spec that changed meanwhile is not to be put back.
            Some(revision) => {
                let annotations = deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(DEPLOYMENT_REVISION.to_owned(), revision.to_string());
                Part::All
            }
            None => {
                deployment.metadata.resource_version = None;
                Part::Status
            }
        };
        step.write(Write::Update { object: Box::new(deployment), part });
        step
    }
}

#[cfg(test)]
mod tests;
