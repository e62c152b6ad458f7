//! What is in use stays: the finalizers of claims that pods use and of volumes that are bound
//! (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::kinds::{Kind, Resource};
use wharf_model::labels::{PV_PROTECTION, PVC_PROTECTION};
use wharf_model::object::{Object, Typed};
use wharf_model::pod::is_terminal;
use wharf_ports::cluster::{Change, Part, Write};
use wharf_ports::controller::{Context, Controller, Enqueue, OnError, Step, WorkKey};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;

use super::usage;

/// Keeps claims until no pod that runs uses them.
#[derive(Debug, Default)]
pub(super) struct ClaimProtection {
    users: usage::Users,
}

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn observe(&mut self, change: &Change, view: &View, queue: &mut Enqueue) {
        let kind = Kind::of::<PersistentVolumeClaim>();
        self.users.observe(change);
        if change.kind() == kind {
            queue.now(WorkKey::object(kind, change.key()));
        } else if change.kind() == Kind::of::<Pod>() {
            let has_ended = change.new.as_ref().and_then(|pod| pod.typed::<Pod>());
            if has_ended.is_some_and(|pod| !is_terminal(pod)) {
                return;
            }
            for claim in usage::claims(change.object()) {
                if view.object(kind, &claim).is_some_and(|object| is_going(object)) {
                    queue.now(WorkKey::object(kind, &claim));
                }
            }
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        let object = context.view.object(Kind::of::<PersistentVolumeClaim>(), &key.key);
        let Some(object) = object else { return step };
        // A pod that has no node yet will not start with a claim that is going.
        let in_use = || {
            self.users
                .of(&key.key, context.view)
                .any(|(_, pod)| usage::node(pod).is_some() && !is_terminal(pod))
        };
        step.writes.extend(protect::<PersistentVolumeClaim>(object, PVC_PROTECTION, in_use));
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

/// Keeps volumes as long as they are bound.
#[derive(Debug)]
pub(super) struct VolumeProtection;

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn observe(&mut self, change: &Change, _view: &View, queue: &mut Enqueue) {
        if change.kind() == Kind::of::<PersistentVolume>() && change.new.is_some() {
            queue.now(WorkKey::object(change.kind(), change.key()));
        }
    }

    fn step(&mut self, key: &WorkKey, context: &mut Context<'_>) -> Step {
        let mut step = Step::done();
        let object = context.view.object(Kind::of::<PersistentVolume>(), &key.key);
        let Some(object) = object else { return step };
        let in_use = || {
            let volume = object.typed::<PersistentVolume>();
            let status = volume.and_then(|volume| volume.status.as_ref());
            status.and_then(|status| status.phase.as_deref()) == Some("Bound")
        };
        step.writes.extend(protect::<PersistentVolume>(object, PV_PROTECTION, in_use));
        step
    }

    fn refused(&mut self, _key: &WorkKey, _write: &Write, error: &ApiError) -> OnError {
        if error.reason == StatusReason::NotFound { OnError::Forget } else { OnError::Retry }
    }
}

fn is_going(object: &Object) -> bool {
    object.header().deleting.is_some()
}

/// Puts the finalizer on what is to stay, and takes it off what is going and not in use.
fn protect<T: Resource>(
    object: &Object,
    finalizer: &str,
    in_use: impl FnOnce() -> bool,
) -> Option<Write> {
    let mut draft = object.draft::<T>()?;
    let meta: &mut ObjectMeta = draft.meta_mut();
    let finalizers = meta.finalizers.get_or_insert_default();
    let has = finalizers.iter().any(|one| one == finalizer);
    match (is_going(object), has) {
        (false, false) => finalizers.push(finalizer.to_owned()),
        (true, true) if !in_use() => finalizers.retain(|one| one != finalizer),
        _ => return None,
    }
    Some(Write::Update { object: Box::new(draft), part: Part::Main })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use wharf_model::object::ObjectKey;
    use wharf_ports::cluster::Propagation;

    use super::*;
    use crate::workloads::harness::World;

    #[test]
    fn a_claim_goes_after_the_pod_that_uses_it() {
        let mut world = World::new(vec![Box::new(ClaimProtection::default())]);
        world.apply(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "default"}, "spec": {}}));
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        for (name, node) in [("running", Some("n")), ("pending", None)] {
            world.apply(json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"containers": [], "volumes": volumes.clone(), "nodeName": node}}));
        }
        world.run_for(Duration::from_secs(1));
        let key = ObjectKey::namespaced("default", "c");
        world.delete::<PersistentVolumeClaim>(&key, Propagation::Background);
        world.run_for(Duration::from_secs(60));
        let claim = world.get::<PersistentVolumeClaim>("default", "c").expect("it is in use");
        assert_eq!(claim.metadata.finalizers.as_deref(), Some(&[PVC_PROTECTION.to_owned()][..]));
        let writes = world.writes;
        world.edit::<Pod>(&ObjectKey::namespaced("default", "running"), |pod| {
            pod.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
        });
        world.run_for(Duration::from_secs(1));
        assert!(world.get::<PersistentVolumeClaim>("default", "c").is_none());
        assert_eq!(world.writes, writes + 1);
    }

    #[test]
    fn a_volume_goes_when_it_is_not_bound() {
        let mut world = World::new(vec![Box::new(VolumeProtection)]);
        world.apply(json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "v"}, "spec": {}, "status": {"phase": "Bound"}}));
        world.run_for(Duration::from_secs(1));
        let key = ObjectKey::cluster("v");
        world.delete::<PersistentVolume>(&key, Propagation::Background);
        world.run_for(Duration::from_secs(60));
        assert!(world.get::<PersistentVolume>("", "v").is_some());
        world.edit::<PersistentVolume>(&key, |volume| {
            volume.status.get_or_insert_default().phase = Some("Released".to_owned());
        });
        world.run_for(Duration::from_secs(1));
        assert!(world.get::<PersistentVolume>("", "v").is_none());
    }
}
