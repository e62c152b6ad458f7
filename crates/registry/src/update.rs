//! Updates: preconditions, which part counts, what may not change, generations, and the removal
//! of an object whose last finalizer goes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Typed};
use wharf_ports::cluster::Part;
use wharf_ports::error::ApiError;
use wharf_store::{Expect, PutError};

use crate::create::place;
use crate::field::{Errors, Path};
use crate::strategy::{self, Strategy};
use crate::{
    ATTEMPTS_MAX, Registry, WriteOptions, admission, decoded, metadata, too_busy, unstored,
};

/// A change of the stored object, to be made on a copy; it may refuse.
pub(crate) type Change<'a> = dyn Fn(&mut dyn Typed) -> Result<(), ApiError> + 'a;

impl Registry {
    /// Replaces a part of an object. An object with a resourceVersion is refused if the stored one
    /// differs. Returns the new version, or the stored one if nothing changes; an object whose last
    /// finalizer goes is removed, and its last form returned.
    ///
    /// # Errors
    /// The API's refusal.
    pub fn update(
        &self,
        mut object: Box<dyn Typed>,
        part: Part,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, ApiError> {
        place(&mut *object, &options.namespace)?;
        self.update_by(&*object, part, options)
    }

    /// The same by an object in its namespace that stays the caller's.
    pub(crate) fn update_by(
        &self,
        object: &dyn Typed,
        part: Part,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, ApiError> {
        let kind = object.kind();
        let key = ObjectKey::of(object.meta());
        let rules = strategy::of(kind);
        let version = asked_version(kind, object)?;
        // Addresses are taken under a lock that is held until they are stored.
        let _allocation = (kind == Kind::of::<Service>()).then(|| self.allocation.lock());
        for _ in 0..ATTEMPTS_MAX {
            let Some(existing) = self.store.get(kind, &key) else {
                if version.is_none() && rules.create_on_update() && part == Part::Main {
                    return self.create(object.clone_box(), options);
                }
                return Err(ApiError::not_found(kind, &key.name));
            };
            let uid = object.meta().uid.as_deref().unwrap_or_default();
            if !uid.is_empty() && uid != existing.uid() {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    existing.uid()
                );
                return Err(ApiError::conflict(kind, &key.name, &why));
            }
            match version {
                Some(version) if version != existing.revision() => {
                    return Err(ApiError::stale(kind, &key.name));
                }
                None if !rules.unconditional_update() && !options.unconditional => {
                    let mut errors = Errors::default();
                    let path = Path::root("metadata");
                    let detail = "must be specified for an update";
                    errors.invalid(&path.child("resourceVersion"), &0, detail);
                    errors.into_result(kind, &key.name)?;
                }
                _ => {}
            }
            let old = decoded(&existing)?;
            let Some(draft) = self.draft(rules, object, old, part, version.is_some())? else {
                return Ok(existing);
            };
            match self.store_over(&existing, draft, options.dry_run)? {
                Some(stored) => return Ok(stored),
                None if version.is_some() => return Err(ApiError::stale(kind, &key.name)),
                None => {}
            }
        }
        Err(too_busy(kind, &key.name))
    }

    /// Changes an object in place past the rules of its kind, as subresources do.
    pub(crate) fn change(
        &self,
        kind: Kind,
        key: &ObjectKey,
        dry_run: bool,
        change: &Change<'_>,
    ) -> Result<Arc<Object>, ApiError> {
        for _ in 0..ATTEMPTS_MAX {
            let existing = self.get(kind, key)?;
            let mut draft = decoded(&existing)?.clone_box();
            change(&mut *draft)?;
            if let Some(stored) = self.replace(&existing, draft, dry_run)? {
                return Ok(stored);
            }
        }
        Err(too_busy(kind, &key.name))
    }

    /// What is to be stored when `part` of `object` replaces that of `old`; `None` if it is there.
    fn draft(
        &self,
        rules: &dyn Strategy,
        object: &dyn Typed,
        old: &dyn Typed,
        part: Part,
        is_versioned: bool,
    ) -> Result<Option<Box<dyn Typed>>, ApiError> {
        let kind = object.kind();
        let mut errors = Errors::under(self.gates);
        let mut draft = if matches!(part, Part::Status | Part::Approval) {
            status_draft(rules, object, old, is_versioned)
        } else if part == Part::Resize {
            strategy::pod::resized(object, old, &mut errors)?
        } else {
            let mut draft = object.clone_box();
            if part == Part::Main {
                rules.take_status(&mut *draft, old);
            }
            rules.set_defaults(&mut *draft);
            draft
        };
        keep_identity(&mut *draft, old);
        rules.prepare_update(&mut *draft, old, part);
        if matches!(part, Part::Main | Part::All) {
            admission::on_update(&self.store, &mut *draft, old, self.gates)?;
        }
        let generation = old.meta().generation;
        // A status update keeps the spec.
        let started = rules.generation()
            && !matches!(part, Part::Status | Part::Approval)
            && rules.starts_generation(&*draft, old);
        draft.meta_mut().generation =
            if started { Some(generation.unwrap_or(0) + 1) } else { generation };
        if rules.same(&*draft, old) && errors.is_empty() {
            // What is stored already cannot be refused.
            return Ok(None);
        }
        if let Some(service) = draft.as_any_mut().downcast_mut::<Service>() {
            let old = strategy::typed::<Service>(old);
            admission::allocate(&self.store, service, Some(old), &mut errors);
            // The addresses that it did not repeat may have been all that was different.
            if service == old && errors.is_empty() {
                return Ok(None);
            }
        }
        metadata::validate(kind, rules, draft.meta(), &mut errors);
        metadata::validate_update(draft.meta(), old.meta(), &mut errors);
        match part {
            Part::Status => {}
            Part::Resize => strategy::pod::validate_resize(&*draft, old, &mut errors),
            Part::Main | Part::All | Part::Approval => {
                rules.validate_update(&*draft, old, &mut errors);
            }
        }
        errors.into_result(kind, draft.meta().name.as_deref().unwrap_or_default())?;
        Ok(Some(draft))
    }

    /// Stores a draft in place of the version it was made from, if it differs. `None` if another
    /// writer was faster.
    pub(crate) fn replace(
        &self,
        existing: &Arc<Object>,
        draft: Box<dyn Typed>,
        dry_run: bool,
    ) -> Result<Option<Arc<Object>>, ApiError> {
        if strategy::of(existing.kind()).same(&*draft, decoded(existing)?) {
            return Ok(Some(Arc::clone(existing)));
        }
        self.store_over(existing, draft, dry_run)
    }

    /// The same of a draft that is known to differ.
    fn store_over(
        &self,
        existing: &Arc<Object>,
        draft: Box<dyn Typed>,
        dry_run: bool,
    ) -> Result<Option<Arc<Object>>, ApiError> {
        let kind = existing.kind();
        let old = decoded(existing)?;
        if dry_run {
            return Ok(Some(unstored(draft, existing.revision())));
        }
        let expect = Expect::At(existing.revision());
        let result = if is_finished(&*draft, old) {
            self.store
                .remove(kind, existing.key(), expect)
                .map(|(_, revision)| unstored(draft, revision))
        } else {
            self.store.put(draft, expect)
        };
        match result {
            Ok(stored) => Ok(Some(stored)),
            Err(PutError::Missing) => Err(ApiError::not_found(kind, &existing.key().name)),
            Err(PutError::Changed(_) | PutError::Exists(_)) => Ok(None),
        }
    }
}

/// The version the caller has seen, if it says so.
fn asked_version(kind: Kind, object: &dyn Typed) -> Result<Option<u64>, ApiError> {
    let Some(text) = object.meta().resource_version.as_deref() else {
        return Ok(None);
    };
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let mut errors = Errors::default();
        let path = Path::root("metadata");
        let detail = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        errors.invalid(&path.child("resourceVersion"), text, detail);
        let name = object.meta().name.as_deref().unwrap_or_default();
        errors.into_result(kind, name).err().unwrap_or_else(|| ApiError::stale(kind, name))
    })
}

/// The stored object with the status of `object`, and with the metadata that the kind lets a
/// status update change.
fn status_draft(
    rules: &dyn Strategy,
    object: &dyn Typed,
    old: &dyn Typed,
    is_versioned: bool,
) -> Box<dyn Typed> {
    let mut draft = rules.with_status(old, object);
    let (meta, new) = (draft.meta_mut(), object.meta());
    meta.managed_fields.clone_from(&new.managed_fields);
    // A writer that does not say which version it has seen may hold old metadata.
    if rules.labels_with_status() && is_versioned {
        meta.labels.clone_from(&new.labels);
        meta.annotations.clone_from(&new.annotations);
        meta.finalizers.clone_from(&new.finalizers);
    }
    draft
}

/// Fills in what an update need not repeat; what it repeats is validated.
fn keep_identity(draft: &mut dyn Typed, old: &dyn Typed) {
    let old = old.meta();
    let meta = draft.meta_mut();
    if meta.uid.as_deref().unwrap_or_default().is_empty() {
        meta.uid.clone_from(&old.uid);
    }
    if meta.creation_timestamp.is_none() {
        meta.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if meta.deletion_timestamp.is_none() {
        meta.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if meta.deletion_grace_period_seconds.is_none() {
        meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    metadata::normalize(meta);
    meta.resource_version.clone_from(&old.resource_version);
}

/// Whether a change of a deleted object takes away the last thing that held it.
fn is_finished(new: &dyn Typed, old: &dyn Typed) -> bool {
    let holds = |object: &dyn Typed| {
        let finalizers = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
        let namespace = object.as_any().downcast_ref::<Namespace>();
        finalizers(&object.meta().finalizers)
            || namespace
                .and_then(|namespace| namespace.spec.as_ref())
                .is_some_and(|spec| finalizers(&spec.finalizers))
    };
    old.meta().deletion_timestamp.is_some()
        && old.meta().deletion_grace_period_seconds.unwrap_or(0) == 0
        && !holds(new)
}
