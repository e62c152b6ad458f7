//! Watches: a cursor over the shared history, not a queue of its own, so that a slow reader costs
//! nothing and is told to list again when it has fallen out of the window.

use tokio::sync::watch as channel;
use wharf_model::kinds::Kind;
use wharf_model::object::Revision;
use wharf_ports::cluster::Change;

use crate::{Expired, Store, StoreFailed};

/// Which changes a watch shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Every change as soon as it is sequenced: for the controllers inside.
    Sequenced,
    /// Only changes that would survive a crash: for clients.
    Durable,
}

/// A watch of one kind or of all.
pub struct Watch {
    store: Store,
    kind: Option<Kind>,
    cursor: Revision,
    visibility: Visibility,
    sequenced: channel::Receiver<Revision>,
    durable: channel::Receiver<Result<Revision, StoreFailed>>,
}

impl Watch {
    pub(crate) fn new(
        store: Store,
        kind: Option<Kind>,
        from: Revision,
        visibility: Visibility,
    ) -> Self {
        let sequenced = store.inner.sequenced.subscribe();
        let durable = store.inner.durable.subscribe();
        Self { store, kind, cursor: from, visibility, sequenced, durable }
    }

    /// The revision up to which changes have been given out. Nothing before it is still to come.
    pub fn cursor(&self) -> Revision {
        self.cursor
    }

    /// Appends the changes that came since the last call, in the order of revisions; never waits.
    ///
    /// # Errors
    /// If this watch has fallen out of the window of history.
    pub fn drain(&mut self, changes: &mut Vec<Change>) -> Result<(), Expired> {
        let visible = self.visible();
        if visible > self.cursor {
            let state = self.store.inner.state.read();
            state.changes(self.kind, self.cursor, visible, changes)?;
            self.cursor = visible;
        }
        Ok(())
    }

    /// Waits until there may be more to drain: the visible revision has moved past the cursor.
    ///
    /// # Errors
    /// If the disk has failed or the store is gone.
    pub async fn changed(&mut self) -> Result<(), StoreFailed> {
        let cursor = self.cursor;
        let gone = |_| StoreFailed("the store was closed".to_owned());
        match self.visibility {
            Visibility::Sequenced => {
                self.sequenced.wait_for(|revision| *revision > cursor).await.map_err(gone)?;
                Ok(())
            }
            Visibility::Durable => {
                let durable = self
                    .durable
                    .wait_for(|durable| durable.as_ref().map_or(true, |durable| *durable > cursor))
                    .await
                    .map_err(gone)?;
                durable.clone().map(|_| ())
            }
        }
    }

    fn visible(&self) -> Revision {
        match self.visibility {
            Visibility::Sequenced => *self.sequenced.borrow(),
            Visibility::Durable => self.durable.borrow().as_ref().map_or(0, |durable| *durable),
        }
    }
}
