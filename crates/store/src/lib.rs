//! The object store: every object of the cluster under one global revision, with a window of
//! history per kind for watches and consistent lists, and durability by group commit.
//!
//! The state lives in memory; the disk holds the newest version of each object. A write is
//! sequenced in memory at once, in one total order, and is *durable* once [`Store::wait_durable`]
//! says so. What is on disk is always a prefix of that order, so nothing that depends on a lost
//! write can survive it; answers to clients wait for durability, the controllers inside need not.
//!
//! This crate knows no HTTP, no clock and no rule of any kind: those are the registry's.

mod data_file;
mod disk;
mod history;
mod log;
mod state;
mod watch;

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch as channel;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Revision, Typed, Unsequenced};
use wharf_model::time::Time;

pub use disk::OpenError;
pub use state::{Expect, Page, PutError, Refused};
pub use watch::{Visibility, Watch};

use disk::Disk;
use state::State;

/// The revision asked for is older than the window of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// The revision asked for.
    pub asked: Revision,
    /// The oldest revision from which history is held.
    pub oldest: Revision,
}

/// The disk refused a commit; nothing sequenced since is durable and the process should end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data file can no longer be written: {0}")]
pub struct StoreFailed(pub String);

/// The object store. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    state: RwLock<State>,
    disk: Option<Disk>,
    /// The last sequenced revision.
    sequenced: channel::Sender<Revision>,
    /// The last durable revision, or why there will be none.
    durable: channel::Sender<Result<Revision, StoreFailed>>,
}

impl Store {
    /// A store in memory only: for `--ephemeral` labs and tests.
    pub fn ephemeral() -> Self {
        Self::assemble(State::new(true), None, 0)
    }

    /// A store in memory only that never makes JSON: for rehearsals.
    pub fn rehearsal() -> Self {
        Self::assemble(State::new(false), None, 0)
    }

    /// Opens the store in a data directory, which is created if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be used, another process holds it, or its file is damaged. Nothing
    /// is changed in any of these cases.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let (disk, state, revision) = Disk::open(directory)?;
        let store = Self::assemble(state, Some(disk), revision);
        if let Some(disk) = &store.inner.disk {
            disk.start(store.inner.durable.clone())?;
        }
        Ok(store)
    }

    fn assemble(state: State, disk: Option<Disk>, revision: Revision) -> Self {
        let (sequenced, _) = channel::channel(revision);
        let (durable, _) = channel::channel(Ok(revision));
        Self { inner: Arc::new(Inner { state: RwLock::new(state), disk, sequenced, durable }) }
    }

    /// The last sequenced revision.
    pub fn revision(&self) -> Revision {
        *self.inner.sequenced.borrow()
    }

    /// The newest version of an object.
    pub fn get(&self, kind: Kind, key: &ObjectKey) -> Option<Arc<Object>> {
        self.inner.state.read().get(kind, key).cloned()
    }

    /// All objects of a kind, in the order of keys, and the revision at which they stand.
    pub fn list(&self, kind: Kind, namespace: Option<&str>) -> (Vec<Arc<Object>>, Revision) {
        let state = self.inner.state.read();
        (state.list(kind, namespace), state.revision())
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.inner.state.read().count(kind)
    }

    /// A part of a list as it stood at a revision: at most `limit` objects with keys greater than
    /// `after`. `at` of `None` means now.
    ///
    /// # Errors
    /// If the window of history no longer reaches back to `at`.
    pub fn page(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        at: Option<Revision>,
        after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Page, Expired> {
        self.inner.state.read().page(kind, namespace, at, after, limit)
    }

    /// Writes an object under the next revision.
    ///
    /// # Errors
    /// If what is stored is not what `expect` says.
    pub fn put(&self, object: Box<dyn Typed>, expect: Expect) -> Result<Arc<Object>, PutError> {
        self.try_put(object, expect).map_err(|refused| refused.error)
    }

    /// The same, giving the object back when it is refused, for a writer that tries another name.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn try_put(&self, object: Box<dyn Typed>, expect: Expect) -> Result<Arc<Object>, Refused> {
        // All that does not depend on the revision is done before the lock is taken.
        let object = Unsequenced::new(object);
        let mut state = self.inner.state.write();
        let object = state.put(object, expect)?;
        self.sequence(&state, &object, false);
        Ok(object)
    }

    /// Removes an object. Returns its last version and the revision of the removal.
    ///
    /// # Errors
    /// If what is stored is not what `expect` says.
    pub fn remove(
        &self,
        kind: Kind,
        key: &ObjectKey,
        expect: Expect,
    ) -> Result<(Arc<Object>, Revision), PutError> {
        let mut state = self.inner.state.write();
        let (object, revision) = state.remove(kind, key, expect)?;
        self.sequence(&state, &object, true);
        Ok((object, revision))
    }

    /// Hands a change to the disk and wakes those who wait. Called with the state locked, so that
    /// the disk sees changes in the order of revisions.
    fn sequence(&self, state: &State, object: &Arc<Object>, removed: bool) {
        let revision = state.revision();
        match &self.inner.disk {
            Some(disk) => disk.enqueue(Arc::clone(object), revision, removed),
            None => self.inner.durable.send_modify(|durable| *durable = Ok(revision)),
        }
        self.inner.sequenced.send_replace(revision);
    }

    /// A watch of one kind, or of all, for the changes after revision `from`.
    ///
    /// # Errors
    /// If the window of history no longer reaches back to `from`.
    pub fn watch(
        &self,
        kind: Option<Kind>,
        from: Revision,
        visibility: Visibility,
    ) -> Result<Watch, Expired> {
        self.inner.state.read().check_reach(kind, from)?;
        Ok(Watch::new(self.clone(), kind, from, visibility))
    }

    /// Waits until something after `revision` has been sequenced.
    pub async fn wait_past(&self, revision: Revision) {
        let mut sequenced = self.inner.sequenced.subscribe();
        // The sender lives as long as this store: there is no error to tell.
        let _ = sequenced.wait_for(|latest| *latest > revision).await;
    }

    /// Waits until everything up to `revision` would survive a crash.
    ///
    /// # Errors
    /// If the disk has failed.
    pub async fn wait_durable(&self, revision: Revision) -> Result<(), StoreFailed> {
        if matches!(&*self.inner.durable.borrow(), Ok(durable) if *durable >= revision) {
            return Ok(());
        }
        let mut durable = self.inner.durable.subscribe();
        let reached = durable
            .wait_for(|durable| durable.as_ref().map_or(true, |durable| *durable >= revision))
            .await;
        match reached {
            Ok(durable) => durable.clone().map(|_| ()),
            Err(_) => Err(StoreFailed("the store was closed".to_owned())),
        }
    }

    /// The same for a caller without a runtime; used at shutdown and in tests.
    ///
    /// # Errors
    /// If the disk has failed.
    pub fn flush(&self) -> Result<(), StoreFailed> {
        match &self.inner.disk {
            Some(disk) => disk.flush(),
            None => Ok(()),
        }
    }

    /// Remembers the cluster's time; it is written with the next commit.
    pub fn set_clock(&self, now: Time) {
        if let Some(disk) = &self.inner.disk {
            disk.set_clock(now);
        }
    }

    /// The cluster's time at the last commit before this store was opened.
    pub fn clock_at_open(&self) -> Option<Time> {
        self.inner.disk.as_ref().and_then(Disk::clock_at_open)
    }

    /// Why the disk has failed, if it has.
    pub fn failure(&self) -> Option<StoreFailed> {
        self.inner.durable.borrow().as_ref().err().cloned()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store at revision {}", self.revision())
    }
}
