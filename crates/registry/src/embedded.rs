//! The Cluster port over a registry in the same process: a write is carried out at once, its
//! outcome and the changes come with the next poll.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    told: BTreeMap<(Kind, ObjectKey), Arc<Object>>,
}

impl EmbeddedCluster {
    /// The cluster as seen from now on, with the world as it stands.
    ///
    /// # Panics
    /// Never: the watch begins at the store's present revision.
    pub fn new(registry: Arc<Registry>) -> (Self, View) {
        let (told, revision) = list_all(&registry);
        let watch = watch_from(&registry, revision);
        let mut view = View::new();
        for object in told.values() {
            view.load(Arc::clone(object));
        }
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
        for (key, new) in &now {
            let old = self.told.get(key);
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
        for (_, old) in self.told.iter().filter(|(key, _)| !now.contains_key(*key)) {
            let revision = free.next().unwrap_or(revision);
            self.changes.push(Change { revision, old: Some(Arc::clone(old)), new: None });
        }
        self.changes.sort_by_key(|change| change.revision);
    }
}

impl Cluster for EmbeddedCluster {
    fn submit(&mut self, id: WriteId, write: Write) {
        let result = self.registry.apply(write);
        self.outcomes.push(ClusterEvent::Outcome { id, result });
    }

    fn poll(&mut self, events: &mut Vec<ClusterEvent>) {
        if self.watch.drain(&mut self.changes).is_err() {
            self.relist();
        }
        for change in self.changes.drain(..) {
            let key = (change.kind(), change.key().clone());
            match &change.new {
                Some(object) => self.told.insert(key, Arc::clone(object)),
                None => self.told.remove(&key),
            };
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
