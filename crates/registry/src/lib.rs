//! What Kubernetes' API server does to an object between decoding and storing it, on typed
//! objects: defaults, admission, validation, generations, finalizers, graceful deletion, binding,
//! eviction and event recording. The HTTP server and the embedded cluster of rehearsals both go
//! through here, so that the rules are the same in both.
//!
//! Start with [`Registry`]. [`EmbeddedCluster`] is the Cluster port over it. The rules of a kind
//! are in `strategy/`, one file each. This crate knows no HTTP and no wall clock.
//!
//! Public contract: <https://kubernetes.io/docs/reference/using-api/api-concepts/>.

mod admission;
mod bind;
mod bootstrap;
mod broadcaster;
mod create;
mod delete;
mod embedded;
mod events;
mod evict;
mod field;
mod metadata;
mod scale;
mod strategy;
mod update;

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use wharf_model::gates::FeatureGates;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Typed};
use wharf_model::random::Random;
use wharf_model::time::Time;
use wharf_ports::clock::Clock;
use wharf_ports::cluster::{Delete, Propagation, Write};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_store::Store;

pub use delete::Deleted;
pub use embedded::EmbeddedCluster;
pub use metadata::{FOREGROUND_FINALIZER, KUBERNETES_FINALIZER, ORPHAN_FINALIZER};
pub use strategy::pod::quality_of_service;

/// How often a write is tried again when another writer was faster and the caller did not insist
/// on a version. Each failure means that someone else made progress.
const ATTEMPTS_MAX: usize = 64;

/// How a write is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but store the result.
    pub dry_run: bool,
    /// The namespace the request names; empty if it names none. An object without a namespace gets
    /// this one, an object with another is refused.
    pub namespace: String,
    /// An update without a resourceVersion is taken even for the kinds whose API asks for one.
    /// Controllers are allowed this, API clients are not.
    pub unconditional: bool,
}

/// The rules of the API over a store.
pub struct Registry {
    store: Store,
    clock: Arc<dyn Clock>,
    /// For uids and generated names. A lock, since requests come from many threads; held for a
    /// few draws only.
    random: Mutex<Random>,
    /// For the uids of Events: they may be recorded beside all else, which must not change the names
    /// that others get.
    event_random: Mutex<Random>,
    /// Held from the choice of an address or port until it is stored, so that none is given twice.
    allocation: Mutex<()>,
    recorder: Mutex<events::Recorder>,
    gates: FeatureGates,
}

impl Registry {
    /// The rules over `store`, by `clock`. Names and uids are drawn from `seed`.
    pub fn new(store: Store, clock: Arc<dyn Clock>, seed: u64) -> Self {
        // A store that lives on must not see the same uids again after a restart.
        let seed = seed ^ store.revision().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            store,
            clock,
            random: Mutex::new(Random::for_purpose(seed, "names")),
            event_random: Mutex::new(Random::for_purpose(seed, "events")),
            allocation: Mutex::new(()),
            recorder: Mutex::new(events::Recorder::default()),
            gates: FeatureGates::default(),
        }
    }

    /// The same with these features on.
    #[must_use]
    pub fn with_gates(self, gates: FeatureGates) -> Self {
        Self { gates, ..self }
    }

    /// The features that are on.
    pub fn gates(&self) -> FeatureGates {
        self.gates
    }

    /// The store underneath.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Cluster time.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Carries out a write of a controller. The result is the version it leaves behind, if any.
    ///
    /// # Errors
    /// The refusal that an API client would be told.
    pub fn apply(&self, write: Write) -> Result<Option<Arc<Object>>, ApiError> {
        match write {
            Write::Create(object) => self.create(object, &of_a_controller()).map(Some),
            other => self.carry_out(&other),
        }
    }

    /// The same with a write that somebody else holds too: only what is stored is copied.
    ///
    /// # Errors
    /// As [`Registry::apply`].
    pub fn carry_out(&self, write: &Write) -> Result<Option<Arc<Object>>, ApiError> {
        let options = of_a_controller();
        match write {
            Write::Create(object) => self.create(object.clone_box(), &options).map(Some),
            Write::Update { object, part } => {
                create::require_place(&**object)?;
                self.update_by(&**object, *part, &options).map(Some)
            }
            Write::Delete(delete) => self.delete(delete, &options).map(Deleted::left_behind),
            Write::Bind { pod, uid, node } => self.bind(pod, Some(uid), node, &options).map(Some),
            Write::Scale { kind, key, uid, replicas } => {
                let meta = ObjectMeta { uid: Some(uid.to_string()), ..ObjectMeta::default() };
                let spec = Some(ScaleSpec { replicas: Some(*replicas) });
                let scale = Scale { metadata: meta, spec, status: None };
                self.set_scale(*kind, key, &scale, &options).map(|_| None)
            }
            Write::Evict { pod, uid } => {
                let delete = Delete {
                    kind: Kind::of::<Pod>(),
                    key: pod.clone(),
                    uid: Some(uid.clone()),
                    revision: None,
                    grace_seconds: None,
                    propagation: Propagation::Background,
                };
                self.evict(&delete, &options).map(Deleted::left_behind)
            }
            Write::Record(record) => self.record(record).map(Some),
        }
    }

    /// Replaces the finalizers of a namespace's spec (`namespaces/finalize`); a namespace that is
    /// being deleted goes with the last of them.
    ///
    /// # Errors
    /// The API's refusal.
    pub fn finalize(
        &self,
        namespace: &Namespace,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, ApiError> {
        let kind = Kind::of::<Namespace>();
        let key = ObjectKey::of(&namespace.metadata);
        let version = namespace.metadata.resource_version.as_deref().unwrap_or_default();
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone());
        self.change(kind, &key, options.dry_run, &|object| {
            let stored = object.meta().resource_version.as_deref().unwrap_or_default();
            if !version.is_empty() && version != stored {
                return Err(ApiError::stale(kind, &key.name));
            }
            let namespace = strategy::typed_mut::<Namespace>(object);
            namespace.spec.get_or_insert_default().finalizers.clone_from(&finalizers);
            Ok(())
        })
    }

    /// The newest version of an object.
    ///
    /// # Errors
    /// `pods "x" not found`.
    pub fn get(&self, kind: Kind, key: &ObjectKey) -> Result<Arc<Object>, ApiError> {
        self.store.get(kind, key).ok_or_else(|| ApiError::not_found(kind, &key.name))
    }
}

/// How controllers ask for writes.
fn of_a_controller() -> WriteOptions {
    WriteOptions { unconditional: true, ..WriteOptions::default() }
}

/// The typed form of a stored object.
fn decoded(object: &Object) -> Result<&dyn Typed, ApiError> {
    match object.typed_any() {
        Ok(typed) => Ok(&**typed),
        Err(error) => Err(ApiError::new(StatusReason::InternalError, error.to_string())
            .about(object.kind(), object.key().name.as_str())),
    }
}

/// The form a dry run answers with: as if stored, under the version it would have replaced.
fn unstored(object: Box<dyn Typed>, revision: u64) -> Arc<Object> {
    Arc::new(Object::from_typed(object, revision))
}

fn too_busy(kind: Kind, name: &str) -> ApiError {
    ApiError::stale(kind, name)
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry over {:?}", self.store)
    }
}
