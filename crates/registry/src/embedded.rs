//! The Cluster port over a registry in the same process: a write is carried out at once, its
//! outcome and the changes come with the next poll.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use wharf_model::kinds::{Kind, built_in};
use wharf_model::object::{Object, ObjectKey, Revision};
use wharf_ports::cluster::{Change, Cluster, ClusterEvent, Write, WriteId};
use wharf_ports::view::View;
use wharf_store::{Visibility, Watch};

use crate::Registry;
use crate::broadcaster::Broadcaster;

/// A cluster whose API server is a [`Registry`] in this process.
pub struct EmbeddedCluster {
    registry: Arc<Registry>,
    watch: Watch,
    outcomes: Vec<ClusterEvent>,
    changes: Vec<Change>,
    /// Who records Events, if not this cluster itself.
    broadcaster: Option<Broadcaster>,
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
        let (outcomes, changes) = (Vec::new(), Vec::new());
        (Self { registry, watch, outcomes, changes, broadcaster: None }, view)
    }

    /// Has Events recorded by a thread of their own from now on: for worlds in real time.
    ///
    /// # Errors
    /// If there can be no such thread.
    pub fn record_beside(&mut self) -> io::Result<()> {
        self.broadcaster = Some(Broadcaster::start(Arc::clone(&self.registry))?);
        Ok(())
    }

    /// Hands the Events said so far over to that thread: to be called now and then, and before the
    /// loop sleeps.
    pub fn hand_over_events(&mut self) {
        if let Some(broadcaster) = &mut self.broadcaster {
            broadcaster.hand_over();
        }
    }

    /// Waits until every Event said so far is recorded. To be called before the clock jumps.
    pub fn settle_events(&mut self) {
        if let Some(broadcaster) = &mut self.broadcaster {
            broadcaster.settle();
        }
    }

    /// The registry underneath.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The watch, for a loop that sleeps until something changes.
    pub fn watch_mut(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Lists everything again and works out what has changed since the reader's view.
    fn relist(&mut self, view: &View) {
        let missed_after = self.watch.cursor();
        let (now, revision) = list_all(&self.registry);
        self.watch = watch_from(&self.registry, revision);
        self.changes.clear();
        for new in now.values() {
            let old = view.object(new.kind(), new.key());
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
        let known = built_in().iter().flat_map(|kind| view.objects(*kind));
        for old in known.filter(|old| !now.contains_key(&(old.kind(), old.key().clone()))) {
            let revision = free.next().unwrap_or(revision);
            self.changes.push(Change { revision, old: Some(Arc::clone(old)), new: None });
        }
        self.changes.sort_by_key(|change| change.revision);
    }
}

impl Cluster for EmbeddedCluster {
    fn submit(&mut self, id: WriteId, write: Arc<Write>) {
        let beside = matches!(*write, Write::Record(_))
            && self.broadcaster.as_mut().is_some_and(|broadcaster| broadcaster.take(&write));
        let result = if beside { Ok(None) } else { self.registry.carry_out(&write) };
        self.outcomes.push(ClusterEvent::Outcome { id, result });
    }

    fn poll(&mut self, view: &View, events: &mut Vec<ClusterEvent>) {
        if self.watch.drain(&mut self.changes).is_err() {
            self.relist(view);
        }
        events.extend(self.changes.drain(..).map(ClusterEvent::Changed));
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
