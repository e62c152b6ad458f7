//! Garbage collection by owner references
//! (<https://kubernetes.io/docs/concepts/architecture/garbage-collection/>): dependents go when
//! their last owner is gone; foreground deletion waits for blocking dependents; orphaning deletion
//! takes the reference off them.
//!
//! An owner that the view does not have may be one that the view has not been told of yet, since
//! kinds are separate streams. So an absent owner counts as gone at once only if its deletion was
//! seen, and otherwise after a while.

use std::collections::VecDeque;
use std::time::Duration;

use compact_str::CompactString;
use rustc_hash::{FxHashMap, FxHashSet};
use wharf_model::kinds::Kind;
use wharf_model::labels::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use wharf_model::object::{Object, ObjectKey, Owner, Typed};
use wharf_model::time::Time;
use wharf_ports::cluster::{Change, Delete, Part, Propagation, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;

/// How long an owner must have been absent whose deletion was not seen.
const ABSENCE: Duration = Duration::from_secs(5);
/// How many deletions are remembered; older ones fall back to [`ABSENCE`].
const REMEMBERED_MAX: usize = 50_000;
/// The most dependents dealt with in one step, so that one owner does not hold up the rest.
const BATCH: usize = 500;

/// The garbage collector.
#[derive(Debug, Default)]
pub struct GarbageCollector {
    /// Uids of objects seen to be deleted, and their order.
    gone: FxHashSet<CompactString>,
    gone_order: VecDeque<CompactString>,
    /// Since when an object's owners have been found absent.
    absent_since: FxHashMap<(Kind, ObjectKey), Time>,
}

/// What the owners of an object are to it.
#[derive(Debug, Default)]
struct Owners<'o> {
    /// There, and to stay.
    solid: usize,
    /// Being deleted in the foreground, waiting for their dependents.
    waiting: Vec<&'o Owner>,
    /// Gone.
    dangling: Vec<&'o Owner>,
    /// Not in the view, perhaps not yet.
    unsure: usize,
}

impl GarbageCollector {
    /// A collector that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn remember(&mut self, uid: &str) {
        if self.gone.insert(uid.into()) {
            self.gone_order.push_back(uid.into());
            if self.gone_order.len() > REMEMBERED_MAX
                && let Some(oldest) = self.gone_order.pop_front()
            {
                self.gone.remove(&oldest);
            }
        }
    }

    fn judge<'o>(&self, object: &'o Object, view: &View, waited: bool) -> Owners<'o> {
        let mut owners = Owners::default();
        for owner in &object.header().owners {
            if self.gone.contains(&owner.uid) {
                owners.dangling.push(owner);
                continue;
            }
            match find(owner, &object.key().namespace, view) {
                Found::Solid => owners.solid += 1,
                Found::Waiting => owners.waiting.push(owner),
                Found::Absent if waited => owners.dangling.push(owner),
                Found::Absent => owners.unsure += 1,
            }
        }
        owners
    }

    fn collect(&mut self, object: &Object, context: &Context<'_>) -> Step {
        let (view, now) = (context.view, context.now);
        let entry = (object.kind(), object.key().clone());
        let since = self.absent_since.get(&entry).copied();
        let owners = self.judge(object, view, since.is_some_and(|since| since + ABSENCE <= now));
        if owners.unsure > 0 {
            let since = *self.absent_since.entry(entry).or_insert(now);
            return Step::again_after((since + ABSENCE).since(now));
        }
        self.absent_since.remove(&entry);
        let mut step = Step::done();
        if owners.solid > 0 {
            let lost: Vec<&str> =
                owners.dangling.iter().chain(&owners.waiting).map(|o| o.uid.as_str()).collect();
            if !lost.is_empty() {
                step.writes.extend(without_owners(object, &lost));
            }
        } else if !owners.waiting.is_empty() || !owners.dangling.is_empty() {
            let has_dependents = view.dependents(object.uid()).next().is_some();
            let propagation = if has(object, ORPHAN_FINALIZER) {
                Propagation::Orphan
            } else if has(object, FOREGROUND_FINALIZER)
                || (!owners.waiting.is_empty() && has_dependents)
            {
                Propagation::Foreground
            } else {
                Propagation::Background
            };
            let delete = Delete { propagation, ..Delete::of(object) };
            step.write(Write::Delete(delete));
        }
        step
    }

    /// Takes the references to an owner that is to leave its dependents behind off them, then
    /// lets the owner go.
    fn orphan(&self, object: &Object, view: &View) -> Step {
        let mut step = Step::done();
        let dependents = view.dependents(object.uid()).take(BATCH);
        step.writes.extend(dependents.filter_map(|one| without_owners(one, &[object.uid()])));
        if step.writes.is_empty() {
            step.writes.extend(without_finalizer(object, ORPHAN_FINALIZER));
        }
        step
    }

    /// Deletes the dependents of an owner that waits for them, and lets it go once none blocks.
    fn foreground(&self, object: &Object, view: &View) -> Step {
        let mut step = Step { independent: true, ..Step::default() };
        let mut blocked = false;
        for dependent in view.dependents(object.uid()) {
            let owners = &dependent.header().owners;
            blocked |= owners.iter().any(|o| o.uid == object.uid() && o.block_deletion);
            if dependent.header().deleting.is_none() && step.writes.len() < BATCH {
                step.enqueue
                    .push((WorkKey::object(dependent.kind(), dependent.key()), Duration::ZERO));
            }
        }
        if !blocked {
            step.writes.extend(without_finalizer(object, FOREGROUND_FINALIZER));
        }
        step
    }
}

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let object = change.object();
        let header = object.header();
        if change.new.is_none() {
            self.remember(object.uid());
            self.absent_since.remove(&(object.kind(), object.key().clone()));
            for dependent in view.dependents(object.uid()) {
                queue.now(WorkKey::object(dependent.kind(), dependent.key()));
            }
            waiting_owners(object, view, queue);
            return;
        }
        let old = change.old.as_ref();
        let newly = |test: fn(&Object) -> bool| test(object) && !old.is_some_and(|old| test(old));
        let owners_changed = old.is_none_or(|old| old.header().owners != header.owners);
        if owners_changed && let Some(old) = old {
            waiting_owners(old, view, queue);
        }
        let deleting =
            |object: &Object| object.header().deleting.is_some() && object.header().has_finalizers;
        if (!header.owners.is_empty() && owners_changed) || newly(deleting) {
            queue.now(WorkKey::object(object.kind(), object.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let Some(kind) = key.kind else { return Step::done() };
        let Some(object) = context.view.object(kind, &key.key) else {
            self.absent_since.remove(&(kind, key.key.clone()));
            return Step::done();
        };
        if object.header().deleting.is_some() {
            if has(object, ORPHAN_FINALIZER) {
                return self.orphan(object, context.view);
            }
            if has(object, FOREGROUND_FINALIZER) {
                return self.foreground(object, context.view);
            }
            return Step::done();
        }
        if object.header().owners.is_empty() {
            return Step::done();
        }
        self.collect(object, context)
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

/// Queues the owners of an object that are being deleted: they may have waited for it.
fn waiting_owners(object: &Object, view: &View, queue: &mut Enqueue) {
    for owner in &object.header().owners {
        if let Some((kind, key)) = locate(owner, &object.key().namespace, view)
            && view.object(kind, &key).is_some_and(|owner| owner.header().deleting.is_some())
        {
            queue.now(WorkKey::object(kind, &key));
        }
    }
}

enum Found {
    Solid,
    Waiting,
    Absent,
}

fn find(owner: &Owner, namespace: &str, view: &View) -> Found {
    let Some((kind, key)) = locate(owner, namespace, view) else {
        // Of a kind that this does not know: whether it is there cannot be told.
        return Found::Solid;
    };
    match view.object(kind, &key) {
        Some(found) if found.uid() == owner.uid => {
            if found.header().deleting.is_some() && has(found, FOREGROUND_FINALIZER) {
                Found::Waiting
            } else {
                Found::Solid
            }
        }
        _ => Found::Absent,
    }
}

/// Where an owner is to be found. The header does not keep the reference's group, so among kinds
/// of one name the one that has such an object counts.
fn locate(owner: &Owner, namespace: &str, view: &View) -> Option<(Kind, ObjectKey)> {
    let named = wharf_model::kinds::built_in().iter().filter(|kind| kind.kind == owner.kind);
    let mut found = named.map(|kind| {
        let namespace = if kind.namespaced { namespace } else { "" };
        (*kind, ObjectKey::namespaced(namespace, &owner.name))
    });
    let first = found.next()?;
    let holds = |(kind, key): &(Kind, ObjectKey)| {
        view.object(*kind, key).is_some_and(|object| object.uid() == owner.uid)
    };
    if holds(&first) { Some(first) } else { Some(found.find(holds).unwrap_or(first)) }
}

fn has(object: &Object, finalizer: &str) -> bool {
    if !object.header().has_finalizers {
        return false;
    }
    let Ok(typed) = object.typed_any() else { return false };
    typed.meta().finalizers.iter().flatten().any(|one| one == finalizer)
}

/// The object without references to these owners, on condition that it is as it was seen.
fn without_owners(object: &Object, uids: &[&str]) -> Option<Write> {
    edited(object, |object| {
        if let Some(owners) = &mut object.meta_mut().owner_references {
            owners.retain(|owner| !uids.contains(&owner.uid.as_str()));
        }
    })
}

fn without_finalizer(object: &Object, finalizer: &str) -> Option<Write> {
    edited(object, |object| {
        if let Some(finalizers) = &mut object.meta_mut().finalizers {
            finalizers.retain(|one| one != finalizer);
        }
    })
}

fn edited(object: &Object, edit: impl FnOnce(&mut dyn Typed)) -> Option<Write> {
    let mut copy = object.typed_any().ok()?.clone_box();
    copy.meta_mut().resource_version = Some(object.revision().to_string());
    edit(copy.as_mut());
    Some(Write::Update { object: copy, part: Part::Main })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use serde_json::{Value, json};

    use super::*;
    use crate::workloads::deployment::DeploymentController;
    use crate::workloads::harness::World;
    use crate::workloads::replica_set::ReplicaSetController;

    fn world() -> World {
        World::new(vec![
            Box::new(GarbageCollector::new()),
            Box::new(DeploymentController::new()),
            Box::new(ReplicaSetController::new()),
        ])
    }

    fn config_map(name: &str, owners: &[(&str, bool)]) -> Value {
        let owners: Vec<Value> = owners
            .iter()
            .map(|(owner, block)| {
                json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner,
                    "uid": format!("uid-{owner}"), "blockOwnerDeletion": block})
            })
            .collect();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name,
            "namespace": "default", "uid": format!("uid-{name}"), "ownerReferences": owners}})
    }

    fn deployment() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    }

    fn run(world: &mut World, seconds: u64) {
        for _ in 0..seconds {
            world.run_for(Duration::from_secs(1));
            world.kubelet("n1");
        }
        world.run_for(Duration::from_millis(500));
    }

    fn names(world: &World) -> Vec<&str> {
        world.list::<ConfigMap>().iter().filter_map(|c| c.metadata.name.as_deref()).collect()
    }

    fn delete(world: &mut World, name: &str, propagation: Propagation) {
        world.delete::<ConfigMap>(&ObjectKey::namespaced("default", name), propagation);
    }

    #[test]
    fn everything_below_a_deleted_deployment_goes() {
        use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
        for propagation in [Propagation::Background, Propagation::Foreground] {
            let mut world = world();
            world.apply(deployment());
            run(&mut world, 3);
            assert_eq!(world.list::<Pod>().len(), 3);
            let key = ObjectKey::namespaced("default", "web");
            world.delete::<Deployment>(&key, propagation);
            run(&mut world, 10);
            assert_eq!(world.list::<Pod>().len(), 0);
            assert_eq!(world.list::<ReplicaSet>().len(), 0);
            assert_eq!(world.list::<Deployment>().len(), 0);
        }
    }

    #[test]
    fn orphaned_pods_stay() {
        use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
        let mut world = world();
        world.apply(deployment());
        run(&mut world, 3);
        world.delete::<Deployment>(&ObjectKey::namespaced("default", "web"), Propagation::Orphan);
        run(&mut world, 10);
        assert_eq!(world.list::<Deployment>().len(), 0);
        assert_eq!(world.list::<ReplicaSet>().len(), 1);
        let owners = world.list::<ReplicaSet>()[0].metadata.owner_references.clone();
        assert!(owners.unwrap_or_default().is_empty());
        assert_eq!(world.list::<Pod>().len(), 3);
    }

    #[test]
    fn an_object_goes_with_its_last_owner() {
        let mut world = world();
        world.apply(config_map("a", &[]));
        world.apply(config_map("b", &[]));
        world.apply(config_map("child", &[("a", false), ("b", false)]));
        run(&mut world, 10);
        assert_eq!(names(&world), ["a", "b", "child"]);
        delete(&mut world, "a", Propagation::Background);
        run(&mut world, 2);
        assert_eq!(names(&world), ["b", "child"]);
        let child: &ConfigMap = world.get("default", "child").expect("it stays");
        assert_eq!(child.metadata.owner_references.as_ref().map(Vec::len), Some(1));
        delete(&mut world, "b", Propagation::Background);
        run(&mut world, 2);
        assert_eq!(names(&world), Vec::<&str>::new());
    }

    #[test]
    fn an_owner_that_never_was_is_waited_for_first() {
        let mut world = world();
        world.apply(config_map("child", &[("late", false)]));
        run(&mut world, 3);
        assert_eq!(names(&world), ["child"]);
        world.apply(config_map("late", &[]));
        run(&mut world, 20);
        assert_eq!(names(&world), ["child", "late"]);
        world.apply(config_map("lost", &[("nobody", false)]));
        run(&mut world, 20);
        assert_eq!(names(&world), ["child", "late"]);
    }

    #[test]
    fn a_restart_finds_what_was_left_behind() {
        let mut world = World::new(Vec::new());
        world.apply(config_map("child", &[("nobody", false)]));
        world.restart(vec![Box::new(GarbageCollector::new())]);
        run(&mut world, 10);
        assert_eq!(names(&world), Vec::<&str>::new());
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents_only() {
        let mut world = World::new(vec![Box::new(GarbageCollector::new())]);
        world.apply(config_map("owner", &[]));
        let mut held = config_map("held", &[("owner", true)]);
        held["metadata"]["finalizers"] = json!(["example.com/wait"]);
        world.apply(held);
        delete(&mut world, "owner", Propagation::Foreground);
        run(&mut world, 5);
        assert_eq!(names(&world), ["held", "owner"], "the owner waits");
        world.edit::<ConfigMap>(&ObjectKey::namespaced("default", "held"), |held| {
            held.metadata.finalizers = None;
        });
        run(&mut world, 5);
        assert_eq!(names(&world), Vec::<&str>::new());
    }
}
