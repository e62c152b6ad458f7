//! The window of history of one kind: its last changes, in order.

use std::collections::VecDeque;

use wharf_model::object::Revision;

use crate::Expired;
use wharf_ports::cluster::Change;

/// How many changes of one kind are held. A client that falls further behind lists again. A kind
/// has its own window so that chatter (leases, events) cannot push out the history of pods.
pub(crate) const CHANGES_MAX: usize = 8_192;
/// The same in a rehearsal, whose only reader reads after every step. Each change holds a version.
pub(crate) const CHANGES_MAX_REHEARSED: usize = 1_024;

/// The last changes of one kind.
#[derive(Debug)]
pub(crate) struct History {
    changes: VecDeque<Change>,
    /// How many are held.
    max: usize,
    /// Changes up to this revision are no longer held.
    forgotten: Revision,
}

impl History {
    /// An empty history that begins after `revision` and holds at most `max` changes.
    pub(crate) fn after(revision: Revision, max: usize) -> Self {
        Self { changes: VecDeque::new(), max, forgotten: revision }
    }

    /// Appends a change and drops the oldest one past the bound.
    pub(crate) fn push(&mut self, change: Change) {
        if self.changes.len() == self.max
            && let Some(oldest) = self.changes.pop_front()
        {
            self.forgotten = oldest.revision;
        }
        self.changes.push_back(change);
    }

    /// Whether all changes after `from` are held.
    pub(crate) fn check_reach(&self, from: Revision) -> Result<(), Expired> {
        if from < self.forgotten {
            return Err(Expired { asked: from, oldest: self.forgotten });
        }
        Ok(())
    }

    /// The changes after `from`, oldest first.
    pub(crate) fn after_revision(
        &self,
        from: Revision,
    ) -> impl DoubleEndedIterator<Item = &Change> {
        let first = self.changes.partition_point(|change| change.revision <= from);
        self.changes.range(first..)
    }
}
