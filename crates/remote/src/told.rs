//! What the reader has been told, and how the next list or event becomes changes of it.
//!
//! Revisions of one kind only grow, which is how repeated events are known. A deletion that fell
//! into a gap between watches has a revision that nobody knows any more; since every write has one
//! of its own, one that is left over between what was known and the new list will do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey, Revision};
use wharf_ports::cluster::Change;
use wharf_ports::view::View;

/// The server's history is not the one that was followed so far.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server's history of {resource} has gone back from revision {known} to {told}, as after a restore from a backup; start again to take in the cluster as it is now"
)]
pub struct HistoryLost {
    resource: String,
    known: Revision,
    told: Revision,
}

/// What the reader has been told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    kinds: BTreeMap<Kind, Followed>,
}

#[derive(Debug, Default)]
struct Followed {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// All changes up to here have been told.
    reached: Revision,
}

impl Told {
    /// An object as last told.
    pub(crate) fn get(&self, kind: Kind, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.kinds.get(&kind)?.objects.get(key)
    }

    /// The world as told so far, for a reader that begins with it.
    pub(crate) fn view(&self) -> View {
        let mut view = View::new();
        for object in self.kinds.values().flat_map(|followed| followed.objects.values()) {
            view.load(Arc::clone(object));
        }
        view
    }

    /// Takes in a list of all objects of a kind, and appends what has changed.
    pub(crate) fn listed(
        &mut self,
        kind: Kind,
        objects: Vec<Arc<Object>>,
        revision: Revision,
        changes: &mut Vec<Change>,
    ) -> Result<(), HistoryLost> {
        let followed = self.kinds.entry(kind).or_default();
        if revision < followed.reached {
            return Err(HistoryLost {
                resource: kind.group_resource(),
                known: followed.reached,
                told: revision,
            });
        }
        let now: BTreeMap<ObjectKey, Arc<Object>> =
            objects.into_iter().map(|object| (object.key().clone(), object)).collect();
        let first = changes.len();
        for (key, new) in &now {
            let old = followed.objects.get(key);
            if old.is_none_or(|old| old.revision() < new.revision()) {
                let (old, new) = (old.cloned(), Some(Arc::clone(new)));
                changes.push(Change { revision: new_revision(&new), old, new });
            }
        }
        let taken: BTreeSet<Revision> =
            changes[first..].iter().map(|change| change.revision).collect();
        let mut free = (followed.reached + 1..).filter(|revision| !taken.contains(revision));
        for (_, old) in followed.objects.iter().filter(|(key, _)| !now.contains_key(*key)) {
            let revision = free.next().unwrap_or(revision);
            changes.push(Change { revision, old: Some(Arc::clone(old)), new: None });
        }
        changes[first..].sort_by_key(|change| change.revision);
        followed.objects = now;
        followed.reached = revision;
        Ok(())
    }

    /// Takes in that a kind is not served: whatever there was of it is gone.
    pub(crate) fn absent(&mut self, kind: Kind, changes: &mut Vec<Change>) {
        let reached = self.kinds.get(&kind).map_or(0, |followed| followed.reached);
        let gone = self.kinds.get(&kind).map_or(0, |followed| followed.objects.len() as u64);
        // Each of them was deleted by a write of its own, so the history has got at least so far.
        self.listed(kind, Vec::new(), reached + gone, changes)
            .expect("invariant: this list is not older than what is known");
    }

    /// Takes in an event of a watch; `is_there` tells whether the object still exists.
    pub(crate) fn changed(
        &mut self,
        object: Arc<Object>,
        is_there: bool,
        changes: &mut Vec<Change>,
    ) {
        let followed = self.kinds.entry(object.kind()).or_default();
        let revision = object.revision();
        if revision <= followed.reached {
            return;
        }
        followed.reached = revision;
        let key = object.key().clone();
        if is_there {
            let old = followed.objects.insert(key, Arc::clone(&object));
            changes.push(Change { revision, old, new: Some(object) });
        } else if let Some(old) = followed.objects.remove(&key) {
            changes.push(Change { revision, old: Some(old), new: None });
        }
    }

    /// Takes in that nothing else has happened up to a revision.
    pub(crate) fn reached(&mut self, kind: Kind, revision: Revision) {
        let followed = self.kinds.entry(kind).or_default();
        followed.reached = followed.reached.max(revision);
    }
}

fn new_revision(new: &Option<Arc<Object>>) -> Revision {
    new.as_ref().map_or(0, |object| object.revision())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use proptest::prelude::*;

    use super::*;

    fn kind() -> Kind {
        Kind::of::<ConfigMap>()
    }

    fn object(name: &str, revision: Revision) -> Arc<Object> {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.namespace = Some("n".to_owned());
        Arc::new(Object::from_typed(Box::new(map), revision))
    }

    #[test]
    fn a_gap_is_told_as_the_changes_that_fell_into_it() {
        let mut told = Told::default();
        let mut changes = Vec::new();
        told.listed(kind(), vec![object("a", 1), object("b", 2), object("c", 3)], 3, &mut changes)
            .expect("a first list");
        changes.clear();
        // b was changed (6), a and c deleted (4, 5), d created (7).
        told.listed(kind(), vec![object("b", 6), object("d", 7)], 7, &mut changes)
            .expect("a later list");
        let said: Vec<_> = changes
            .iter()
            .map(|change| (change.revision, change.key().name.to_string(), change.new.is_some()))
            .collect();
        assert_eq!(
            said,
            [
                (4, "a".to_owned(), false),
                (5, "c".to_owned(), false),
                (6, "b".to_owned(), true),
                (7, "d".to_owned(), true)
            ]
        );
    }

    #[test]
    fn repeated_events_are_told_once_and_late_ones_not_at_all() {
        let mut told = Told::default();
        let mut changes = Vec::new();
        for revision in [5, 6, 5, 6] {
            told.changed(object("a", revision), true, &mut changes);
        }
        told.changed(object("a", 7), false, &mut changes);
        told.changed(object("a", 6), true, &mut changes);
        told.changed(object("x", 8), false, &mut changes);
        let revisions: Vec<_> = changes.iter().map(|change| change.revision).collect();
        assert_eq!(revisions, [5, 6, 7], "what was never there cannot go");
    }

    #[test]
    fn a_history_that_goes_back_is_refused() {
        let mut told = Told::default();
        told.reached(kind(), 100);
        let error = told.listed(kind(), Vec::new(), 50, &mut Vec::new()).expect_err("older");
        assert!(error.to_string().contains("from revision 100 to 50"), "{error}");
    }

    #[test]
    fn a_kind_that_is_no_longer_served_takes_its_objects_along() {
        let mut told = Told::default();
        let mut changes = Vec::new();
        told.listed(kind(), vec![object("a", 1), object("b", 2)], 2, &mut changes).expect("first");
        changes.clear();
        told.absent(kind(), &mut changes);
        assert_eq!(changes.iter().map(|change| change.revision).collect::<Vec<_>>(), [3, 4]);
        assert!(told.get(kind(), &ObjectKey::namespaced("n", "a")).is_none());
    }

    proptest! {
        /// However a history is cut into watched and missed parts, the reader ends with the world
        /// as it is, and no change is dropped by a view that takes them in.
        #[test]
        fn every_cut_of_a_history_leads_to_the_same_world(
            writes in prop::collection::vec((0..5_usize, any::<bool>(), any::<bool>(), any::<bool>()), 1..40)
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let mut server: BTreeMap<&str, Arc<Object>> = BTreeMap::new();
            let (mut told, mut view) = (Told::default(), View::new());
            let mut is_cut = false;
            for (index, (name, delete, cut, repeat)) in writes.into_iter().enumerate() {
                let (revision, name) = (index as u64 + 1, names[name]);
                let event = if delete { server.remove(name).map(|_| false) } else {
                    server.insert(name, object(name, revision));
                    Some(true)
                };
                let mut changes = Vec::new();
                if cut {
                    is_cut = true;
                } else if is_cut {
                    is_cut = false;
                    told.listed(kind(), server.values().cloned().collect(), revision, &mut changes).expect("newer");
                } else if let Some(is_there) = event {
                    for _ in 0..=usize::from(repeat) {
                        told.changed(object(name, revision), is_there, &mut changes);
                    }
                }
                for change in &changes {
                    prop_assert!(view.apply(change), "{change:?} was dropped");
                }
                if !is_cut {
                    let seen: Vec<_> = view.objects(kind()).map(|object| object.revision()).collect();
                    let there: Vec<_> = server.values().map(|object| object.revision()).collect();
                    prop_assert_eq!(seen, there);
                }
            }
        }
    }
}
