//! Which nodes changed, in order: by it, whoever remembers something about nodes learns what to
//! forget, at a cost that does not grow with the cluster.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::snapshot::NodeIndex;

/// How many changes are kept. Who is further behind starts anew, which costs about as much as
/// catching up with so many.
const CHANGES_MAX: usize = 1 << 13;

/// The latest changes of nodes. Its clones go their own ways, and are told apart.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    identity: Arc<()>,
    latest: VecDeque<NodeIndex>,
    /// How many changes there were before those that are kept.
    dropped: u64,
}

/// A journal and a place in it.
#[derive(Clone, Debug)]
pub(crate) struct Bookmark {
    of: Arc<()>,
    position: u64,
}

impl Journal {
    /// Notes that a node is not what it was: pods on it, pods nominated to it, or itself.
    pub(crate) fn touch(&mut self, node: NodeIndex) {
        if self.latest.len() == CHANGES_MAX {
            self.latest.pop_front();
            self.dropped += 1;
        }
        self.latest.push_back(node);
    }

    /// The place after the latest change.
    pub(crate) fn end(&self) -> Bookmark {
        Bookmark { of: self.identity.clone(), position: self.end_position() }
    }

    /// The changes since a bookmark, which moves to the end; `None` if they are no longer known,
    /// or the bookmark is of another journal.
    pub(crate) fn since(
        &self,
        bookmark: &mut Bookmark,
    ) -> Option<impl Iterator<Item = NodeIndex> + '_> {
        let position = std::mem::replace(&mut bookmark.position, self.end_position());
        if !Arc::ptr_eq(&bookmark.of, &self.identity) {
            bookmark.of = self.identity.clone();
            return None;
        }
        let seen = usize::try_from(position.checked_sub(self.dropped)?).ok()?;
        Some(self.latest.range(seen..).copied())
    }

    fn end_position(&self) -> u64 {
        self.dropped + self.latest.len() as u64
    }
}

impl Clone for Journal {
    fn clone(&self) -> Self {
        Self { identity: Arc::default(), latest: self.latest.clone(), dropped: self.dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::NodeIndex;

    #[test]
    fn bookmarks_tell_what_changed_since() {
        let nodes: Vec<_> = (0..4).map(NodeIndex::for_test).collect();
        let mut journal = Journal::default();
        journal.touch(nodes[0]);
        let mut bookmark = journal.end();
        assert_eq!(journal.since(&mut bookmark).unwrap().count(), 0);
        journal.touch(nodes[1]);
        journal.touch(nodes[2]);
        assert!(journal.since(&mut bookmark).unwrap().eq([nodes[1], nodes[2]]));
        assert_eq!(journal.since(&mut bookmark).unwrap().count(), 0, "it moved on");
        let mut copy = journal.clone();
        copy.touch(nodes[3]);
        assert!(copy.since(&mut bookmark).is_none(), "a copy has a future of its own");
        assert_eq!(copy.since(&mut bookmark).unwrap().count(), 0);
        let mut late = journal.end();
        for _ in 0..=CHANGES_MAX {
            journal.touch(nodes[0]);
        }
        assert!(journal.since(&mut late).is_none(), "too far behind");
        journal.touch(nodes[3]);
        assert!(journal.since(&mut late).unwrap().eq([nodes[3]]));
    }
}
