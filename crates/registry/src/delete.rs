//! Deletion: preconditions, finalizers, grace periods of pods, termination of namespaces.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, Typed};
use wharf_model::time::Time;
use wharf_ports::cluster::{Delete, Propagation};
use wharf_ports::error::ApiError;
use wharf_store::{Expect, PutError};

use crate::metadata::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use crate::{ATTEMPTS_MAX, Registry, WriteOptions, decoded, strategy, too_busy, unstored};

/// What a deletion came to.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// The version that is still there, or the last one there was.
    pub object: Arc<Object>,
    /// Whether the object is gone. If not, finalizers or a grace period hold it.
    pub gone: bool,
}

impl Deleted {
    /// The version that is still there.
    pub fn left_behind(self) -> Option<Arc<Object>> {
        (!self.gone).then_some(self.object)
    }
}

/// Namespaces that can never be deleted (`NamespaceLifecycle` admission).
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What a deletion does to the stored object.
enum Outcome {
    Remove,
    Update,
    Nothing,
}

impl Registry {
    /// Deletes an object, gracefully and with respect to finalizers.
    ///
    /// # Errors
    /// The API's refusal.
    pub fn delete(&self, delete: &Delete, options: &WriteOptions) -> Result<Deleted, ApiError> {
        self.delete_after(delete, options, None)
    }

    /// Deletes an object after a last change of it, in one write if it stays.
    pub(crate) fn delete_after(
        &self,
        delete: &Delete,
        options: &WriteOptions,
        change: Option<&crate::update::Change<'_>>,
    ) -> Result<Deleted, ApiError> {
        let Delete { kind, key, .. } = delete;
        for _ in 0..ATTEMPTS_MAX {
            let existing = self.get(*kind, key)?;
            check_preconditions(delete, &existing)?;
            let old = decoded(&existing)?;
            if change.is_none() && !options.dry_run && goes_at_once(old, delete) {
                match self.store.remove(*kind, key, Expect::At(existing.revision())) {
                    Ok((object, _)) => return Ok(Deleted { object, gone: true }),
                    Err(PutError::Missing) => return Err(ApiError::not_found(*kind, &key.name)),
                    Err(PutError::Changed(_) | PutError::Exists(_)) => continue,
                }
            }
            let mut draft = old.clone_box();
            let outcome = mark(&mut *draft, delete, self.now())?;
            if let Some(change) = change
                && !matches!(outcome, Outcome::Nothing)
            {
                change(&mut *draft)?;
            }
            let stored = match outcome {
                Outcome::Nothing => return Ok(Deleted { object: existing, gone: false }),
                Outcome::Remove if options.dry_run => {
                    let object = unstored(draft, existing.revision());
                    return Ok(Deleted { object, gone: true });
                }
                Outcome::Remove => {
                    match self.store.remove(*kind, key, Expect::At(existing.revision())) {
                        Ok((object, _)) => return Ok(Deleted { object, gone: true }),
                        Err(PutError::Missing) => {
                            return Err(ApiError::not_found(*kind, &key.name));
                        }
                        Err(PutError::Changed(_) | PutError::Exists(_)) => None,
                    }
                }
                Outcome::Update if strategy::of(*kind).same(&*draft, old) => Some(existing),
                Outcome::Update if options.dry_run => Some(unstored(draft, existing.revision())),
                Outcome::Update => match self.store.put(draft, Expect::At(existing.revision())) {
                    Ok(object) => Some(object),
                    Err(PutError::Missing) => {
                        return Err(ApiError::not_found(*kind, &key.name));
                    }
                    Err(PutError::Changed(_) | PutError::Exists(_)) => None,
                },
            };
            if let Some(object) = stored {
                return Ok(Deleted { object, gone: false });
            }
        }
        Err(too_busy(*kind, &key.name))
    }

    /// Deletes the objects of a kind that `matching` picks, in the order of their keys, each as
    /// `template` says. Objects that vanish meanwhile are passed over.
    ///
    /// # Errors
    /// The first refusal; earlier deletions stand, as upstream.
    pub fn delete_collection(
        &self,
        template: &Delete,
        namespace: Option<&str>,
        matching: &dyn Fn(&Object) -> bool,
        options: &WriteOptions,
    ) -> Result<Vec<Deleted>, ApiError> {
        let (objects, _) = self.store.list(template.kind, namespace);
        let mut deleted = Vec::new();
        for object in objects.iter().filter(|object| matching(object)) {
            let delete = Delete {
                key: object.key().clone(),
                uid: Some(object.uid().into()),
                ..template.clone()
            };
            match self.delete(&delete, options) {
                Ok(outcome) => deleted.push(outcome),
                Err(error) if error.reason == wharf_ports::error::StatusReason::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

fn check_preconditions(delete: &Delete, existing: &Object) -> Result<(), ApiError> {
    let kind = existing.kind();
    let refuse = |why: String| {
        // Upstream names the kind here, not the resource.
        let subject = if kind.group.is_empty() {
            kind.kind.to_owned()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let name = existing.key().name.as_str();
        let mut refusal = ApiError::conflict(kind, name, &why);
        refusal.message = format!("Operation cannot be fulfilled on {subject} \"{name}\": {why}");
        Err(refusal)
    };
    if let Some(uid) = delete.uid.as_deref().filter(|uid| *uid != existing.uid()) {
        return refuse(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            existing.uid()
        ));
    }
    if let Some(revision) = delete.revision.filter(|revision| *revision != existing.revision()) {
        return refuse(format!(
            "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record ({}). The object might have been modified",
            existing.revision()
        ));
    }
    Ok(())
}

/// Marks an object as deleted, as far as something holds it.
fn mark(object: &mut dyn Typed, delete: &Delete, now: Time) -> Result<Outcome, ApiError> {
    if let Some(namespace) = object.as_any_mut().downcast_mut::<Namespace>() {
        return terminate(namespace, now);
    }
    if delete.kind == Kind::of::<Pod>() {
        return Ok(mark_gracefully(object, delete, now));
    }
    let meta = object.meta_mut();
    set_collection_finalizers(meta, delete.propagation);
    if !is_held(meta) {
        return Ok(Outcome::Remove);
    }
    if meta.deletion_timestamp.is_none() {
        start_generation(meta);
        meta.deletion_timestamp = Some(now.to_meta());
    }
    meta.deletion_grace_period_seconds = Some(0);
    Ok(Outcome::Update)
}

/// Whether a deletion takes an object away right now: nothing holds it, and no grace period is to
/// run. Told without a copy of the object, as most deletions are such.
fn goes_at_once(object: &dyn Typed, delete: &Delete) -> bool {
    if delete.kind == Kind::of::<Namespace>()
        || delete.propagation != Propagation::Background
        || is_held(object.meta())
    {
        return false;
    }
    delete.kind != Kind::of::<Pod>()
        || grace_of(strategy::typed::<Pod>(object), delete).is_some_and(|seconds| seconds <= 0)
}

/// The grace period in seconds that a deletion leaves a pod; `None` if it changes nothing about
/// the deletion under way.
fn grace_of(pod: &Pod, delete: &Delete) -> Option<i64> {
    let meta = &pod.metadata;
    match (&meta.deletion_timestamp, meta.deletion_grace_period_seconds) {
        (Some(_), None) => Some(0),
        // A deletion under way can only be shortened.
        (Some(_), Some(given)) => {
            delete.grace_seconds.filter(|seconds| *seconds < given).map(|seconds| seconds.max(0))
        }
        (None, _) => {
            if strategy::pod::node_name(pod).is_none() || strategy::pod::is_finished(pod) {
                return Some(0);
            }
            let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
            let seconds = delete.grace_seconds.or(own).unwrap_or(0);
            Some(if seconds < 0 { 1 } else { seconds })
        }
    }
}

/// The deletion of a pod: the kubelet gets the grace period to stop it and then deletes it again
/// with a grace period of zero.
fn mark_gracefully(object: &mut dyn Typed, delete: &Delete, now: Time) -> Outcome {
    let Some(seconds) = grace_of(strategy::typed::<Pod>(object), delete) else {
        return Outcome::Nothing;
    };
    let meta = object.meta_mut();
    match (&meta.deletion_timestamp, meta.deletion_grace_period_seconds) {
        (Some(_), None) => {}
        (Some(end), Some(given)) => {
            let begun = Time::from(end) - seconds_of(given);
            meta.deletion_timestamp = Some((begun + seconds_of(seconds)).to_meta());
        }
        (None, _) => {
            meta.deletion_timestamp = Some((now + seconds_of(seconds)).to_meta());
            start_generation(meta);
        }
    }
    meta.deletion_grace_period_seconds = Some(seconds);
    set_collection_finalizers(meta, delete.propagation);
    if is_held(meta) || seconds > 0 { Outcome::Update } else { Outcome::Remove }
}

/// The deletion of a namespace: it stays in phase Terminating until its content is gone and the
/// finalizer of its spec with it.
fn terminate(namespace: &mut Namespace, now: Time) -> Result<Outcome, ApiError> {
    let name = namespace.metadata.name.clone().unwrap_or_default();
    if IMMORTAL_NAMESPACES.contains(&name.as_str()) {
        let kind = Kind::of::<Namespace>();
        return Err(ApiError::forbidden(kind, &name, "this namespace may not be deleted"));
    }
    if namespace.metadata.deletion_timestamp.is_none() {
        namespace.metadata.deletion_timestamp = Some(now.to_meta());
    }
    namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    let is_finalized =
        namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref()).is_none_or(Vec::is_empty);
    Ok(if is_finalized && !is_held(&namespace.metadata) {
        Outcome::Remove
    } else {
        Outcome::Update
    })
}

/// Adds or takes away the finalizers of garbage collection. The default, background, takes away
/// none, since a caller that says nothing cannot be told from one that asks for it.
fn set_collection_finalizers(meta: &mut ObjectMeta, propagation: Propagation) {
    let (wanted, unwanted) = match propagation {
        Propagation::Background => return,
        Propagation::Foreground => (FOREGROUND_FINALIZER, ORPHAN_FINALIZER),
        Propagation::Orphan => (ORPHAN_FINALIZER, FOREGROUND_FINALIZER),
    };
    let finalizers = meta.finalizers.get_or_insert_default();
    finalizers.retain(|finalizer| finalizer != unwanted);
    if !finalizers.iter().any(|finalizer| finalizer == wanted) {
        finalizers.push(wanted.to_owned());
    }
}

/// Deletion changes what an object asks of its controller, so it starts a generation.
fn start_generation(meta: &mut ObjectMeta) {
    if let Some(generation) = meta.generation.as_mut().filter(|generation| **generation > 0) {
        *generation += 1;
    }
}

fn is_held(meta: &ObjectMeta) -> bool {
    meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
}

fn seconds_of(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
