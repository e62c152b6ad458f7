//! The disk behind the store: a data file with a log in front of it, and two threads.
//!
//! Writers append to a queue; the commit thread takes all that has gathered and appends it to the
//! log as one group with one sync. The group is whatever arrived while the last sync ran, so a
//! lone write waits for nobody and a burst shares the cost. A second thread takes full segments of
//! the log into the data file, where most of what was written over meanwhile never arrives.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch as channel;
use wharf_model::object::{Object, Revision};
use wharf_model::time::Time;

use crate::StoreFailed;
use crate::data_file::{self, DataFile, FORMAT, Standing};
use crate::log::{self, Append, Group, ReadError, Reader, Segment};
use crate::state::State;

/// Writers wait when so many changes are queued: the disk is the bound, not memory.
const QUEUE_MAX: usize = 65_536;
/// Commits wait when so many segments are to be taken in: the log must not grow without bound.
const SEGMENTS_MAX: usize = 4;
/// A segment of the log is closed when it is longer. A start after a crash reads what the segments
/// hold; the longer they are, the more of what they hold has been written over.
const SEGMENT_BYTES: u64 = 64 << 20;
/// A group is closed when it is longer, so that its writers need not wait for all that follows.
const GROUP_BYTES: usize = 4 << 20;

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

/// The directory and its threads.
pub(crate) struct Disk {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock_at_open: Option<Time>,
}

struct Shared {
    directory: PathBuf,
    segment_bytes: u64,
    data_file: DataFile,
    queue: Mutex<Queue>,
    /// Signalled when there is something to commit, or to end.
    filled: Condvar,
    /// Signalled after each commit and when the store fails.
    emptied: Condvar,
    /// Signalled when there is a segment to take in, or to end.
    sealed: Condvar,
}

#[derive(Default)]
struct Queue {
    changes: Vec<Queued>,
    committing: bool,
    clock: Option<Time>,
    /// Full segments; the first one is being taken in.
    segments: VecDeque<PathBuf>,
    /// The last revision that the data file has.
    taken_in: Revision,
    /// The first revision that the log does not have.
    next: Revision,
    closing: bool,
    /// Nothing will be committed any more.
    complete: bool,
    failed: Option<StoreFailed>,
}

struct Queued {
    object: Arc<Object>,
    revision: Revision,
    removed: bool,
}

impl Disk {
    /// Opens or creates the directory, and loads what it holds: the data file, and over it what the
    /// log has. Changes nothing of either.
    pub(crate) fn open(directory: &Path) -> Result<(Self, State, Revision), OpenError> {
        Self::open_with(directory, SEGMENT_BYTES)
    }

    fn open_with(
        directory: &Path,
        segment_bytes: u64,
    ) -> Result<(Self, State, Revision), OpenError> {
        let unusable = |error| OpenError::Unusable { path: directory.to_owned(), error };
        std::fs::create_dir_all(directory).map_err(unusable)?;
        let (data_file, standing) = DataFile::open(directory)?;
        let Standing { mut revision, mut clock } = standing;
        let mut state = State::restoring();
        data_file.load(&mut |restored| state.restore(restored))?;
        let segments = log::segments(directory).map_err(unusable)?;
        for path in &segments {
            let refuse = |error| match error {
                ReadError::Io(error) => unusable(error),
                ReadError::Damaged(what) => OpenError::Corrupt { path: path.clone(), what },
            };
            let segment = Reader::open(path, revision).map_err(refuse)?;
            for record in segment.newest() {
                let value = segment.value(record).map_err(|error| refuse(error.into()))?;
                let restored = data_file::read(&record.key, value.as_deref())
                    .map_err(|what| refuse(ReadError::Damaged(what)))?;
                restored.into_iter().for_each(|restored| state.restore(restored));
            }
            revision = segment.last;
            clock = segment.clock.or(clock);
        }
        state.restored(revision);
        let queue = Queue {
            segments: segments.into(),
            taken_in: standing.revision,
            next: revision + 1,
            ..Queue::default()
        };
        let disk = Self {
            shared: Arc::new(Shared {
                directory: directory.to_owned(),
                segment_bytes,
                data_file,
                queue: Mutex::new(queue),
                filled: Condvar::new(),
                emptied: Condvar::new(),
                sealed: Condvar::new(),
            }),
            threads: Mutex::default(),
            clock_at_open: clock,
        };
        Ok((disk, state, revision))
    }

    /// Starts the threads, of which the first publishes what is durable.
    pub(crate) fn start(
        &self,
        durable: channel::Sender<Result<Revision, StoreFailed>>,
    ) -> Result<(), OpenError> {
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .map_err(|error| OpenError::Unusable { path: self.shared.directory.clone(), error })
        };
        let (shared, publish) = (Arc::clone(&self.shared), durable.clone());
        let commit = spawn("store-commit", Box::new(move || commit_loop(&shared, &publish)))?;
        self.threads.lock().push(commit);
        let shared = Arc::clone(&self.shared);
        let take_in = spawn("store-file", Box::new(move || take_in_loop(&shared, &durable)))?;
        self.threads.lock().push(take_in);
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
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A panic of a thread has already failed every waiter.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// What the next group is made of; `None` when there will be none.
    fn next_batch(&self) -> Option<(Vec<Queued>, Option<Time>)> {
        let mut queue = self.queue.lock();
        while queue.changes.is_empty() && !queue.closing && queue.failed.is_none() {
            self.filled.wait(&mut queue);
            if queue.clock.is_some() {
                break;
            }
        }
        if queue.failed.is_some() || (queue.changes.is_empty() && queue.clock.is_none()) {
            return None;
        }
        queue.committing = true;
        Some((std::mem::take(&mut queue.changes), queue.clock.take()))
    }

    /// The next segment for the data file, and the last revision before it; `None` when there will
    /// be none.
    fn next_segment(&self) -> Option<(PathBuf, Revision)> {
        let mut queue = self.queue.lock();
        while queue.segments.is_empty() && !queue.complete && queue.failed.is_none() {
            self.sealed.wait(&mut queue);
        }
        let path = queue.segments.front().filter(|_| queue.failed.is_none())?;
        Some((path.clone(), queue.taken_in))
    }

    /// Gives a segment away to be taken in, and waits while there are too many.
    fn seal(&self, segment: &Segment) {
        let mut queue = self.queue.lock();
        queue.segments.push_back(segment.path().to_owned());
        self.sealed.notify_one();
        while queue.segments.len() > SEGMENTS_MAX && queue.failed.is_none() {
            self.emptied.wait(&mut queue);
        }
    }

    /// Nothing can be written any more: all who wait are told.
    fn fail(&self, error: String, durable: &channel::Sender<Result<Revision, StoreFailed>>) {
        let failed = StoreFailed(error);
        self.queue.lock().failed = Some(failed.clone());
        durable.send_modify(|durable| *durable = Err(failed));
        for waiting in [&self.filled, &self.emptied, &self.sealed] {
            waiting.notify_all();
        }
    }
}

/// Runs what may panic inside the storage engine: that must fail the waiters, not leave them
/// waiting.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err("the storage engine panicked".to_owned()))
}

fn commit_loop(shared: &Shared, durable: &channel::Sender<Result<Revision, StoreFailed>>) {
    let next = shared.queue.lock().next;
    let mut log = Log { shared, durable, segment: None, group: Group::default(), next };
    while let Some((changes, clock)) = shared.next_batch() {
        let written = guarded(|| log.write(&changes, clock).map_err(|error| error.to_string()));
        if let Err(error) = written {
            shared.fail(error, durable);
            return;
        }
        // Out of the way of the writers, who may take the lock as soon as they are told.
        drop(changes);
        shared.queue.lock().committing = false;
        shared.emptied.notify_all();
    }
    let mut queue = shared.queue.lock();
    queue.segments.extend(log.segment.map(|segment| segment.path().to_owned()));
    queue.complete = true;
    shared.sealed.notify_one();
}

/// The end of the log.
struct Log<'a> {
    shared: &'a Shared,
    durable: &'a channel::Sender<Result<Revision, StoreFailed>>,
    segment: Option<Segment>,
    group: Group,
    /// The revision of the next change.
    next: Revision,
}

impl Log<'_> {
    /// Writes changes, in one group unless they are large, and publishes that they are durable.
    fn write(&mut self, changes: &[Queued], clock: Option<Time>) -> io::Result<()> {
        let mut rest = changes;
        loop {
            let first = self.next;
            self.group.clear();
            while let Some((change, after)) = rest.split_first()
                && self.group.len() < GROUP_BYTES
            {
                debug_assert_eq!(change.revision, self.next, "revisions have no gaps");
                self.next = change.revision + 1;
                let object = &change.object;
                let value: Append<'_> = &|value| data_file::write_value(object, value);
                let value = (!change.removed).then_some(value);
                self.group.add(&|key| data_file::write_key(object, key), value);
                rest = after;
            }
            let segment = match &mut self.segment {
                Some(segment) => segment,
                none => none.insert(Segment::create(&self.shared.directory, first)?),
            };
            segment.append(&mut self.group, first, clock.filter(|_| rest.is_empty()))?;
            if self.next > first {
                let durable = self.next - 1;
                self.durable.send_modify(|published| *published = Ok(durable));
            }
            if segment.len() >= self.shared.segment_bytes {
                self.shared.seal(segment);
                self.segment = None;
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}

fn take_in_loop(shared: &Shared, durable: &channel::Sender<Result<Revision, StoreFailed>>) {
    while let Some((path, after)) = shared.next_segment() {
        match guarded(|| take_in(&shared.data_file, &path, after)) {
            Ok(last) => {
                let mut queue = shared.queue.lock();
                queue.segments.pop_front();
                queue.taken_in = last;
                shared.emptied.notify_all();
            }
            Err(error) => return shared.fail(error, durable),
        }
    }
}

/// Takes a segment into the data file and removes it; returns the last revision it has.
fn take_in(data_file: &DataFile, path: &Path, after: Revision) -> Result<Revision, String> {
    let segment = Reader::open(path, after).map_err(|error| error.to_string())?;
    data_file.take_in(&segment).map_err(|error| error.to_string())?;
    // Should it come back in a crash, it has nothing that the data file has not.
    std::fs::remove_file(path).map_err(|error| error.to_string())?;
    Ok(segment.last)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use wharf_model::kinds::Kind;

    use super::*;

    fn version(name: u64, revision: Revision) -> Arc<Object> {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some("n".to_owned());
        map.metadata.name = Some(format!("c{name}"));
        map.data = Some([("k".to_owned(), revision.to_string().repeat(100))].into());
        Arc::new(Object::from_typed(Box::new(map), revision))
    }

    fn held(state: &State) -> Vec<(String, Revision)> {
        let objects = state.list(Kind::of::<ConfigMap>(), None);
        objects.iter().map(|object| (object.key().to_string(), object.revision())).collect()
    }

    #[test]
    fn segments_are_taken_in_while_others_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut expected = std::collections::BTreeMap::new();
        let mut revision = 0;
        for round in 0..6 {
            let (disk, state, found) = Disk::open_with(directory.path(), 16 << 10).unwrap();
            assert_eq!(found, revision);
            assert_eq!(held(&state), expected.clone().into_iter().collect::<Vec<_>>());
            assert_eq!(disk.clock_at_open().map(Time::as_nanos), (round > 0).then_some(round));
            disk.start(channel::channel(Ok(revision)).0).unwrap();
            for step in 0..150 {
                revision += 1;
                let object = version(revision * 7 % 31, revision);
                let removed = revision % 5 == 0;
                if removed {
                    expected.remove(&object.key().to_string());
                } else {
                    expected.insert(object.key().to_string(), revision);
                }
                disk.enqueue(object, revision, removed);
                if step % 20 == 0 {
                    disk.flush().unwrap();
                }
            }
            disk.set_clock(Time::from_nanos(round + 1));
            disk.flush().unwrap();
            drop(disk);
            assert!(log::segments(directory.path()).unwrap().is_empty(), "all is taken in");
        }
    }

    #[test]
    fn a_log_without_its_data_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        Segment::create(directory.path(), 8)
            .and_then(|mut segment| {
                let mut group = Group::default();
                group.clear();
                let object = version(1, 8);
                group.add(&|key| data_file::write_key(&object, key), None);
                segment.append(&mut group, 8, None)
            })
            .unwrap();
        let error = Disk::open(directory.path()).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("revision 1 to 7 are missing")));
    }
}
