//! The disk behind the store: one redb file, one thread that commits in groups.
//!
//! Writers append to a queue; the thread takes all that has gathered and commits it as one
//! transaction with one sync. The group is whatever arrived while the last sync ran, so a lone
//! write waits for nobody and a burst shares the cost.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::watch as channel;
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, Revision};
use wharf_model::time::Time;

use crate::StoreFailed;
use crate::state::State;

/// Newest version of every object: `group/plural NUL namespace NUL name` to revision (8 bytes,
/// little endian), CRC-32 of the rest (4 bytes), JSON.
const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
/// `format`, `revision` and `clock`, each a little-endian 64-bit integer.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Format of the file; raised when a reader of the old one would misread the new one.
const FORMAT: u64 = 1;
/// redb's page cache. The state lives in our memory; the cache only helps commits.
const CACHE_BYTES: usize = 4 << 20;
/// Writers wait when so many changes are queued: the disk is the bound, not memory.
const QUEUE_MAX: usize = 65_536;
const HEAD_BYTES: usize = 12;

/// Why a data directory cannot be used. Each says what to do; none has changed anything.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "data directory {0} is in use by another wharf; stop that one, or choose another directory with --data"
    )]
    Locked(PathBuf),
    /// The directory or file cannot be created, read or written.
    #[error(
        "data directory {path} cannot be used: {error}; check that it is a directory you may write to, or choose another with --data"
    )]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is damaged.
    #[error(
        "data file {path} is damaged ({what}); move it away to start empty, or restore it from a copy"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file was written by a newer Wharf.
    #[error(
        "data file {path} has format {found}, this wharf reads up to {FORMAT}; use a newer wharf"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
}

/// The file and its commit thread.
pub(crate) struct Disk {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    clock_at_open: Option<Time>,
}

struct Shared {
    database: Database,
    queue: Mutex<Queue>,
    /// Signalled when there is something to commit, or to end.
    filled: Condvar,
    /// Signalled after each commit.
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    changes: Vec<Queued>,
    committing: bool,
    clock: Option<Time>,
    closing: bool,
    failed: Option<StoreFailed>,
}

struct Queued {
    object: Arc<Object>,
    revision: Revision,
    removed: bool,
}

impl Disk {
    /// Opens or creates the file, and loads what it holds.
    pub(crate) fn open(directory: &Path) -> Result<(Self, State, Revision), OpenError> {
        let unusable = |error| OpenError::Unusable { path: directory.to_owned(), error };
        std::fs::create_dir_all(directory).map_err(unusable)?;
        let path = directory.join("wharf.redb");
        let corrupt = |what: String| OpenError::Corrupt { path: path.clone(), what };
        // redb checks what it reads but may still panic on a file damaged in the middle.
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let database =
                Database::builder().set_cache_size(CACHE_BYTES).create(&path).map_err(|error| {
                    match error {
                        DatabaseError::DatabaseAlreadyOpen => {
                            OpenError::Locked(directory.to_owned())
                        }
                        DatabaseError::Storage(redb::StorageError::Io(error))
                            if error.kind() != io::ErrorKind::InvalidData
                                && error.kind() != io::ErrorKind::UnexpectedEof =>
                        {
                            unusable(error)
                        }
                        error => corrupt(error.to_string()),
                    }
                })?;
            let contents = load(&database, &path)?;
            Ok((database, contents))
        }))
        .unwrap_or_else(|_| Err(corrupt("its pages do not fit together".to_owned())));
        let (database, contents) = loaded?;
        let disk = Self {
            shared: Arc::new(Shared {
                database,
                queue: Mutex::default(),
                filled: Condvar::new(),
                emptied: Condvar::new(),
            }),
            thread: Mutex::new(None),
            clock_at_open: contents.clock,
        };
        Ok((disk, State::loaded(contents.objects, contents.revision), contents.revision))
    }

    /// Starts the commit thread, which publishes what is durable.
    pub(crate) fn start(
        &self,
        durable: channel::Sender<Result<Revision, StoreFailed>>,
    ) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || commit_loop(&shared, &durable))
            .map_err(|error| OpenError::Unusable { path: PathBuf::new(), error })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Queues a change for the next group. Called in the order of revisions.
    pub(crate) fn enqueue(&self, object: Arc<Object>, revision: Revision, removed: bool) {
        let mut queue = self.shared.queue.lock();
        while queue.changes.len() >= QUEUE_MAX && queue.failed.is_none() {
            self.shared.emptied.wait(&mut queue);
        }
        queue.changes.push(Queued { object, revision, removed });
        self.shared.filled.notify_one();
    }

    /// Remembers the cluster's time for the next commit.
    pub(crate) fn set_clock(&self, now: Time) {
        self.shared.queue.lock().clock = Some(now);
    }

    pub(crate) fn clock_at_open(&self) -> Option<Time> {
        self.clock_at_open
    }

    /// Waits until all that is queued is on disk, the clock included.
    pub(crate) fn flush(&self) -> Result<(), StoreFailed> {
        let mut queue = self.shared.queue.lock();
        self.shared.filled.notify_one();
        while queue.failed.is_none()
            && (queue.committing || !queue.changes.is_empty() || queue.clock.is_some())
        {
            // The thread commits a lone clock too once it is woken.
            self.shared.filled.notify_one();
            self.shared.emptied.wait_for(&mut queue, std::time::Duration::from_millis(50));
        }
        queue.failed.clone().map_or(Ok(()), Err)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.queue.lock().closing = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread has already failed every waiter.
            let _ = thread.join();
        }
    }
}

fn commit_loop(shared: &Shared, durable: &channel::Sender<Result<Revision, StoreFailed>>) {
    loop {
        let (changes, clock) = {
            let mut queue = shared.queue.lock();
            while queue.changes.is_empty() && !queue.closing {
                shared.filled.wait(&mut queue);
                if queue.clock.is_some() {
                    break;
                }
            }
            if queue.changes.is_empty() && queue.clock.is_none() && queue.closing {
                return;
            }
            queue.committing = true;
            (std::mem::take(&mut queue.changes), queue.clock.take())
        };
        // A panic inside redb must fail the waiters, not leave them waiting.
        let result = catch_unwind(AssertUnwindSafe(|| commit(&shared.database, &changes, clock)))
            .map_err(|_| "the storage engine panicked".to_owned())
            .and_then(|result| result.map_err(|error| error.to_string()));
        let mut queue = shared.queue.lock();
        queue.committing = false;
        match result {
            Ok(()) => {
                if let Some(last) = changes.last() {
                    durable.send_modify(|durable| *durable = Ok(last.revision));
                }
            }
            Err(error) => {
                let failed = StoreFailed(error);
                queue.failed = Some(failed.clone());
                durable.send_modify(|durable| *durable = Err(failed));
            }
        }
        shared.emptied.notify_all();
        if queue.failed.is_some() {
            return;
        }
    }
}

fn commit(
    database: &Database,
    changes: &[Queued],
    clock: Option<Time>,
) -> Result<(), Box<redb::Error>> {
    let boxed = |error: redb::Error| Box::new(error);
    let transaction = database.begin_write().map_err(|error| boxed(error.into()))?;
    {
        let mut objects = transaction.open_table(OBJECTS).map_err(|error| boxed(error.into()))?;
        for change in changes {
            let key = disk_key(&change.object);
            if change.removed {
                objects.remove(key.as_slice()).map_err(|error| boxed(error.into()))?;
            } else {
                let value = disk_value(&change.object);
                objects
                    .insert(key.as_slice(), value.as_slice())
                    .map_err(|error| boxed(error.into()))?;
            }
        }
        let mut meta = transaction.open_table(META).map_err(|error| boxed(error.into()))?;
        let last = changes.last().map(|change| ("revision", change.revision));
        let clock = clock.map(|clock| ("clock", clock.as_nanos().cast_unsigned()));
        for (name, value) in [Some(("format", FORMAT)), last, clock].into_iter().flatten() {
            meta.insert(name, value).map_err(|error| boxed(error.into()))?;
        }
    }
    transaction.commit().map_err(|error| boxed(error.into()))
}

fn disk_key(object: &Object) -> Vec<u8> {
    let (kind, key) = (object.kind(), object.key());
    format!("{}/{}\0{}\0{}", kind.group, kind.plural, key.namespace, key.name).into_bytes()
}

fn disk_value(object: &Object) -> Vec<u8> {
    let json = object.json_unkept();
    let mut value = Vec::with_capacity(HEAD_BYTES + json.len());
    value.extend_from_slice(&object.revision().to_le_bytes());
    value.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
    value.extend_from_slice(&json);
    value
}

struct Contents {
    objects: Vec<Object>,
    revision: Revision,
    clock: Option<Time>,
}

fn load(database: &Database, path: &Path) -> Result<Contents, OpenError> {
    let corrupt = |what: String| OpenError::Corrupt { path: path.to_owned(), what };
    let mut contents = Contents { objects: Vec::new(), revision: 0, clock: None };
    let transaction = database.begin_read().map_err(|error| corrupt(error.to_string()))?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(contents),
        Err(error) => return Err(corrupt(error.to_string())),
    };
    let number = |name: &str| match meta.get(name) {
        Ok(value) => Ok(value.map(|value| value.value())),
        Err(error) => Err(corrupt(error.to_string())),
    };
    if let Some(found) = number("format")?.filter(|found| *found > FORMAT) {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    contents.revision = number("revision")?.unwrap_or_default();
    contents.clock = number("clock")?.map(|nanos| Time::from_nanos(nanos.cast_signed()));
    let table = transaction.open_table(OBJECTS).map_err(|error| corrupt(error.to_string()))?;
    for entry in table.iter().map_err(|error| corrupt(error.to_string()))? {
        let (key, value) = entry.map_err(|error| corrupt(error.to_string()))?;
        if let Some(object) = read(key.value(), value.value()).map_err(corrupt)? {
            contents.objects.push(object);
        }
    }
    Ok(contents)
}

/// One stored object; `None` for a kind that this Wharf does not know, which stays on disk.
fn read(key: &[u8], value: &[u8]) -> Result<Option<Object>, String> {
    let name = || String::from_utf8_lossy(key).replace('\0', " ");
    let text = std::str::from_utf8(key).map_err(|_| format!("unreadable key {}", name()))?;
    let resource = text.split('\0').next().unwrap_or_default();
    let Some((group, plural)) = resource.split_once('/') else {
        return Err(format!("unreadable key {}", name()));
    };
    let Some(kind) = Kind::by_resource(group, plural) else { return Ok(None) };
    let (Some((revision, rest)), true) =
        (value.split_first_chunk::<8>(), value.len() >= HEAD_BYTES)
    else {
        return Err(format!("{} is cut short", name()));
    };
    let (sum, json) = rest.split_at(HEAD_BYTES - 8);
    if crc32fast::hash(json).to_le_bytes() != sum {
        return Err(format!("{} does not match its checksum", name()));
    }
    let object =
        Object::from_json(kind, Bytes::copy_from_slice(json), Revision::from_le_bytes(*revision))
            .map_err(|error| format!("{}: {error}", name()))?;
    Ok(Some(object))
}
