//! The Cluster port over a registry in the same process: a write is carried out at once, its
//! outcome and the changes come with the next poll.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHashSet;

use wharf_model::kinds::{Kind, built_in};
use wharf_model::object::{Object, ObjectKey, Revision};
use wharf_ports::cluster::{Change, Cluster, ClusterEvent, Write, WriteId};
use wharf_ports::view::View;
use wharf_store::{Visibility, Watch};

use crate::Registry;

/// A cluster whose API server is a [`Registry`] in this process.
pub struct EmbeddedCluster {
    registry: Arc<Registry>,
    watch: Watch,
    outcomes: Vec<ClusterEvent>,
    changes: Vec<Change>,
    /// What the reader has been told of, so that it can be told of deletions even after its watch
    /// has fallen out of the history.
    told: FxHashSet<Told>,
}

/// An object that the reader was told of. Stands for all versions: equal is what has the same kind
/// and key.
struct Told(Arc<Object>);

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind() == other.0.kind() && self.0.key() == other.0.key()
    }
}

impl Eq for Told {}

impl Hash for Told {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.kind(), self.0.key()).hash(state);
    }
}

impl EmbeddedCluster {
    /// The cluster as seen from now on, with the world as it stands.
    ///
    /// # Panics
    /// Never: the watch begins at the store's present revision.
    pub fn new(registry: Arc<Registry>) -> (Self, View) {
        let (all, revision) = list_all(&registry);
        let watch = watch_from(&registry, revision);
        let mut view = View::new();
        for object in all.values() {
            view.load(Arc::clone(object));
        }
        #[expect(
            clippy::mutable_key_type,
            reason = "what an object fills in later has no part in its kind and key"
        )]
        let told = all.into_values().map(Told).collect();
        let (outcomes, changes) = (Vec::new(), Vec::new());
        (Self { registry, watch, outcomes, changes, told }, view)
    }

    /// The registry underneath.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The watch, for a loop that sleeps until something changes.
    pub fn watch_mut(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Lists everything again and works out what has changed meanwhile.
    fn relist(&mut self) {
        let missed_after = self.watch.cursor();
        let (now, revision) = list_all(&self.registry);
        self.watch = watch_from(&self.registry, revision);
        self.changes.clear();
        for new in now.values() {
            let old = self.told.get(&Told(Arc::clone(new))).map(|told| &told.0);
            if old.is_none_or(|old| old.revision() != new.revision()) {
                let revision = new.revision();
                let (old, new) = (old.cloned(), Some(Arc::clone(new)));
                self.changes.push(Change { revision, old, new });
            }
        }
        // A deletion had a revision of its own, which is no longer known. Any that was missed and
        // is not taken by another change will do: the reader only needs them to be distinct.
        let taken: BTreeSet<Revision> = self.changes.iter().map(|change| change.revision).collect();
        let mut free = (missed_after + 1..).filter(|revision| !taken.contains(revision));
        let told = self.told.iter().map(|told| &told.0);
        let mut gone: Vec<&Arc<Object>> =
            told.filter(|old| !now.contains_key(&(old.kind(), old.key().clone()))).collect();
        gone.sort_unstable_by(|left, right| {
            (left.kind(), left.key()).cmp(&(right.kind(), right.key()))
        });
        for old in gone {
            let revision = free.next().unwrap_or(revision);
            self.changes.push(Change { revision, old: Some(Arc::clone(old)), new: None });
        }
        self.changes.sort_by_key(|change| change.revision);
    }
}

impl Cluster for EmbeddedCluster {
    fn submit(&mut self, id: WriteId, write: Arc<Write>) {
        let result = self.registry.carry_out(&write);
        self.outcomes.push(ClusterEvent::Outcome { id, result });
    }

    fn poll(&mut self, events: &mut Vec<ClusterEvent>) {
        if self.watch.drain(&mut self.changes).is_err() {
            self.relist();
        }
        for change in self.changes.drain(..) {
            let told = Told(Arc::clone(change.object()));
            if change.new.is_some() {
                self.told.replace(told);
            } else {
                self.told.remove(&told);
            }
            events.push(ClusterEvent::Changed(change));
        }
        // Outcomes come last: whoever learns that a write was carried out has seen its effect.
        events.append(&mut self.outcomes);
    }
}

fn list_all(registry: &Registry) -> (BTreeMap<(Kind, ObjectKey), Arc<Object>>, Revision) {
    // Taken before the lists, so that nothing between them is missed; what is told twice is known
    // by its revision.
    let revision = registry.store().revision();
    let mut all = BTreeMap::new();
    for kind in built_in() {
        let (objects, _) = registry.store().list(*kind, None);
        all.extend(objects.into_iter().map(|object| ((*kind, object.key().clone()), object)));
    }
    (all, revision)
}

fn watch_from(registry: &Registry, revision: Revision) -> Watch {
    registry
        .store()
        .watch(None, revision, Visibility::Sequenced)
        .or_else(|_| {
            registry.store().watch(None, registry.store().revision(), Visibility::Sequenced)
        })
        .expect("invariant: history reaches back to the present revision")
}
