//! Creation: names, identity, admission, defaults, validation, and the first version.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, Namespace, Service};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Typed};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_store::Expect;

use crate::field::Errors;
use crate::metadata;
use crate::{Registry, WriteOptions, admission, bootstrap, strategy, unstored};

/// How many names are tried for `generateName`; upstream's number.
const NAMES_MAX: usize = 8;

impl Registry {
    /// Creates an object and returns its first version.
    ///
    /// # Errors
    /// The API's refusal.
    pub fn create(
        &self,
        object: Box<dyn Typed>,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, ApiError> {
        self.create_as(object, options, admission::Requester::Client)
    }

    pub(crate) fn create_as(
        &self,
        mut object: Box<dyn Typed>,
        options: &WriteOptions,
        requester: admission::Requester,
    ) -> Result<Arc<Object>, ApiError> {
        let kind = object.kind();
        let rules = strategy::of(kind);
        place(&mut *object, &options.namespace)?;
        if object.meta().resource_version.as_deref().is_some_and(|version| !version.is_empty()) {
            return Err(ApiError::new(
                StatusReason::BadRequest,
                "resourceVersion should not be set on objects to be created",
            ));
        }
        rules.set_defaults(&mut *object);
        admission::on_create(&self.store, &mut *object, requester, self.gates)?;
        let now = self.now();
        let generated = self.identify(kind, &mut *object, rules.generation());
        rules.prepare_create(&mut *object, now);

        // Addresses are taken under a lock that is held until they are stored.
        let _allocation = (kind == Kind::of::<Service>()).then(|| self.allocation.lock());
        let mut errors = Errors::under(self.gates);
        if let Some(service) = object.as_any_mut().downcast_mut::<Service>() {
            admission::allocate(&self.store, service, None, &mut errors);
        }
        metadata::validate(kind, rules, object.meta(), &mut errors);
        rules.validate(&*object, &mut errors);
        errors.into_result(kind, object.meta().name.as_deref().unwrap_or_default())?;

        let created = self.insert(object, generated, options.dry_run)?;
        if kind == Kind::of::<Namespace>() && !options.dry_run {
            // Upstream's controller does this a moment later; pods need it at once.
            bootstrap::default_service_account(self, &created.key().name)?;
        }
        Ok(created)
    }

    /// Gives a new object its identity. Returns whether its name was generated.
    fn identify(&self, kind: Kind, object: &mut dyn Typed, generation: bool) -> bool {
        let now = self.now();
        let meta = object.meta_mut();
        meta.creation_timestamp = Some(now.to_meta());
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        metadata::normalize(meta);
        meta.resource_version = None;
        meta.generation = generation.then_some(1);
        let of_events = kind == Kind::of::<Event>();
        let mut random = if of_events { &self.event_random } else { &self.random }.lock();
        meta.uid = Some(random.uuid());
        if meta.name.as_deref().is_some_and(|name| !name.is_empty()) {
            return false;
        }
        let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) else {
            return false;
        };
        meta.name = Some(random.generated_name(prefix));
        true
    }

    fn insert(
        &self,
        mut object: Box<dyn Typed>,
        generated: bool,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let kind = object.kind();
        let name = |object: &dyn Typed| object.meta().name.clone().unwrap_or_default();
        for _ in 0..NAMES_MAX {
            if dry_run {
                if self.store.get(kind, &ObjectKey::of(object.meta())).is_none() {
                    return Ok(unstored(object, 0));
                }
            } else {
                match self.store.try_put(object, Expect::Absent) {
                    Ok(object) => return Ok(object),
                    Err(refused) => object = refused.object,
                }
            }
            if !generated {
                return Err(ApiError::already_exists(kind, &name(&*object)));
            }
            let prefix = object.meta().generate_name.clone().unwrap_or_default();
            object.meta_mut().name = Some(self.random.lock().generated_name(&prefix));
        }
        let mut refusal = ApiError::already_exists(kind, &name(&*object));
        refusal
            .message
            .push_str(", the server was not able to generate a unique name for the object");
        Err(refusal)
    }
}

/// Refuses an object that ought to be in a namespace and names none.
pub(crate) fn require_place(object: &dyn Typed) -> Result<(), ApiError> {
    let named = object.meta().namespace.as_deref().is_some_and(|name| !name.is_empty());
    if named || !object.kind().namespaced {
        return Ok(());
    }
    Err(ApiError::new(
        StatusReason::BadRequest,
        "an empty namespace may not be set during creation",
    ))
}

/// Puts an object into the namespace of its request.
pub(crate) fn place(object: &mut dyn Typed, requested: &str) -> Result<(), ApiError> {
    if !object.kind().namespaced {
        return Ok(());
    }
    let meta = object.meta_mut();
    match meta.namespace.as_deref().unwrap_or_default() {
        "" if requested.is_empty() => require_place(object),
        "" => {
            meta.namespace = Some(requested.to_owned());
            Ok(())
        }
        namespace if requested.is_empty() || namespace == requested => Ok(()),
        namespace => Err(ApiError::new(
            StatusReason::BadRequest,
            format!(
                "the namespace of the provided object does not match the namespace sent on the request: {namespace} is not {requested}"
            ),
        )),
    }
}
