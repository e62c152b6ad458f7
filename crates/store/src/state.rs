//! The state in memory: the newest version of every object, the revision, the history.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use compact_str::CompactString;
use wharf_model::kinds::{Keep, Kind};
use wharf_model::object::{Object, ObjectKey, Revision, Typed, Unsequenced};
use wharf_ports::cluster::Change;

use crate::Expired;
use crate::data_file::Restored;
use crate::history::{CHANGES_MAX, CHANGES_MAX_REHEARSED, History};

/// What a writer expects to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No object under that key.
    Absent,
    /// An object at exactly this revision.
    At(Revision),
    /// Anything, also nothing.
    Any,
}

/// Why a write was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PutError {
    /// There is an object where none was expected.
    #[error("an object of that name exists")]
    Exists(Arc<Object>),
    /// There is no object where one was expected.
    #[error("there is no such object")]
    Missing,
    /// The object is at another revision.
    #[error("the object has changed")]
    Changed(Arc<Object>),
}

/// A write that was refused, and what it was to write.
pub struct Refused {
    /// Why.
    pub error: PutError,
    /// The object, as it was given.
    pub object: Box<dyn Typed>,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The objects, in the order of keys.
    pub objects: Vec<Arc<Object>>,
    /// The revision at which the list stands.
    pub revision: Revision,
    /// How many more follow.
    pub remaining: usize,
}

struct OfKind {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    history: History,
}

/// The state behind the store's lock.
pub(crate) struct State {
    kinds: Vec<OfKind>,
    revision: Revision,
    keep_json: bool,
}

impl State {
    /// An empty state. With `keep_json` kinds that ask for it are held as JSON.
    pub(crate) fn new(keep_json: bool) -> Self {
        Self { kinds: Vec::new(), revision: 0, keep_json }
    }

    /// A state to be filled with what is on disk.
    pub(crate) fn restoring() -> Self {
        Self::new(true)
    }

    /// Takes in what is on disk; of one key the last one counts.
    pub(crate) fn restore(&mut self, restored: Restored) {
        match restored {
            Restored::There(object) => {
                let objects = &mut self.of_kind(object.kind()).objects;
                objects.insert(object.key().clone(), object);
            }
            Restored::Gone(kind, key) => {
                self.of_kind(kind).objects.remove(&key);
            }
        }
    }

    /// The disk ends at `revision`; history begins here.
    pub(crate) fn restored(&mut self, revision: Revision) {
        self.revision = revision;
        for kind in wharf_model::kinds::built_in() {
            let max = self.changes_max();
            self.of_kind(*kind).history = History::after(revision, max);
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn get(&self, kind: Kind, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.kinds.get(kind.index)?.objects.get(key)
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.kinds.get(kind.index).map_or(0, |of_kind| of_kind.objects.len())
    }

    pub(crate) fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Object>> {
        self.range(kind, namespace, None).map(|(_, object)| Arc::clone(object)).collect()
    }

    pub(crate) fn put(
        &mut self,
        object: Unsequenced,
        expect: Expect,
    ) -> Result<Arc<Object>, Refused> {
        let kind = object.kind();
        let keep_json = self.keep_json;
        let revision = self.revision + 1;
        let of_kind = self.of_kind(kind);
        // Most writes are of objects that are there, or find nothing in their way: one search.
        let entry = of_kind.objects.entry(object.key().clone());
        let old = match &entry {
            Entry::Occupied(entry) => Some(entry.get()),
            Entry::Vacant(_) => None,
        };
        if let Err(error) = check(old, expect) {
            return Err(Refused { error, object: object.into_typed() });
        }
        let object = object.at(revision);
        let object = match kind.keep {
            Keep::Json if keep_json => object.as_json_only(),
            _ => object,
        };
        let object = Arc::new(object);
        let old = match entry {
            Entry::Occupied(mut entry) => Some(entry.insert(Arc::clone(&object))),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(&object));
                None
            }
        };
        of_kind.history.push(Change { revision, old, new: Some(Arc::clone(&object)) });
        self.revision = revision;
        Ok(object)
    }

    pub(crate) fn remove(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        expect: Expect,
    ) -> Result<(Arc<Object>, Revision), PutError> {
        let revision = self.revision + 1;
        let of_kind = self.of_kind(kind);
        check(of_kind.objects.get(key), expect)?;
        let old = of_kind.objects.remove(key).ok_or(PutError::Missing)?;
        of_kind.history.push(Change { revision, old: Some(Arc::clone(&old)), new: None });
        self.revision = revision;
        Ok((old, revision))
    }

    pub(crate) fn page(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        at: Option<Revision>,
        after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Page, Expired> {
        let revision = at.unwrap_or(self.revision).min(self.revision);
        self.check_reach(Some(kind), revision)?;
        let undone = self.undone(kind, namespace, after, revision);
        let mut objects = Vec::new();
        let mut remaining = 0;
        let mut take = |object: &Arc<Object>| {
            if limit.is_some_and(|limit| objects.len() >= limit) {
                remaining += 1;
            } else {
                objects.push(Arc::clone(object));
            }
        };
        // A merge of two sorted sequences: what is stored now, and what undoing puts back.
        let mut undone = undone.into_iter().peekable();
        for (key, object) in self.range(kind, namespace, after) {
            while let Some((_, put_back)) = undone.next_if(|(undone_key, _)| *undone_key < key) {
                put_back.into_iter().for_each(&mut take);
            }
            match undone.next_if(|(undone_key, _)| *undone_key == key) {
                Some((_, put_back)) => put_back.into_iter().for_each(&mut take),
                None => take(object),
            }
        }
        undone.for_each(|(_, put_back)| put_back.into_iter().for_each(&mut take));
        Ok(Page { objects, revision, remaining })
    }

    /// What the keys that changed after `revision` held then.
    fn undone(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        after: Option<&ObjectKey>,
        revision: Revision,
    ) -> BTreeMap<&ObjectKey, Option<&Arc<Object>>> {
        let mut undone = BTreeMap::new();
        if let Some(of_kind) = self.kinds.get(kind.index) {
            for change in of_kind.history.after_revision(revision).rev() {
                let key = change.key();
                let inside = namespace.is_none_or(|namespace| key.namespace == namespace)
                    && after.is_none_or(|after| key > after);
                if inside {
                    undone.insert(key, change.old.as_ref());
                }
            }
        }
        undone
    }

    fn range<'a>(
        &'a self,
        kind: Kind,
        namespace: Option<&str>,
        after: Option<&ObjectKey>,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<Object>)> + use<'a> {
        let namespace: Option<CompactString> = namespace.map(Into::into);
        let first = ObjectKey {
            namespace: namespace.clone().unwrap_or_default(),
            name: CompactString::default(),
        };
        let from = match after {
            Some(after) if *after >= first => Bound::Excluded(after.clone()),
            _ => Bound::Included(first),
        };
        self.kinds
            .get(kind.index)
            .into_iter()
            .flat_map(move |of_kind| of_kind.objects.range((from.clone(), Bound::Unbounded)))
            .take_while(move |(key, _)| {
                namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace)
            })
    }

    /// Whether the changes after `from` are all held, of one kind or of every kind.
    pub(crate) fn check_reach(&self, kind: Option<Kind>, from: Revision) -> Result<(), Expired> {
        match kind {
            Some(kind) => match self.kinds.get(kind.index) {
                Some(of_kind) => of_kind.history.check_reach(from),
                None => Ok(()),
            },
            None => self.kinds.iter().try_for_each(|of_kind| of_kind.history.check_reach(from)),
        }
    }

    /// Appends the changes after `from` up to `until`, in the order of revisions.
    pub(crate) fn changes(
        &self,
        kind: Option<Kind>,
        from: Revision,
        until: Revision,
        changes: &mut Vec<Change>,
    ) -> Result<(), Expired> {
        self.check_reach(kind, from)?;
        let first = changes.len();
        let mut of_kinds = 0;
        let chosen = match kind {
            Some(kind) => self.kinds.get(kind.index..=kind.index).unwrap_or_default(),
            None => &self.kinds,
        };
        for of_kind in chosen {
            let length = changes.len();
            changes.extend(
                of_kind
                    .history
                    .after_revision(from)
                    .take_while(|change| change.revision <= until)
                    .cloned(),
            );
            of_kinds += usize::from(changes.len() > length);
        }
        if of_kinds > 1 {
            changes[first..].sort_unstable_by_key(|change| change.revision);
        }
        Ok(())
    }

    /// Without JSON there are no clients, who might fall behind.
    fn changes_max(&self) -> usize {
        if self.keep_json { CHANGES_MAX } else { CHANGES_MAX_REHEARSED }
    }

    fn of_kind(&mut self, kind: Kind) -> &mut OfKind {
        let (revision, max) = (self.revision, self.changes_max());
        if self.kinds.len() <= kind.index {
            self.kinds.resize_with(kind.index + 1, || OfKind {
                objects: BTreeMap::new(),
                history: History::after(revision, max),
            });
        }
        &mut self.kinds[kind.index]
    }
}

fn check(old: Option<&Arc<Object>>, expect: Expect) -> Result<(), PutError> {
    match (old, expect) {
        (Some(old), Expect::Absent) => Err(PutError::Exists(Arc::clone(old))),
        (None, Expect::At(_)) => Err(PutError::Missing),
        (Some(old), Expect::At(revision)) if old.revision() != revision => {
            Err(PutError::Changed(Arc::clone(old)))
        }
        _ => Ok(()),
    }
}
