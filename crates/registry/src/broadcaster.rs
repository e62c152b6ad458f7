//! Events recorded beside the event loop: a thread of their own takes them in order, as upstream's
//! recorder sends them behind its caller's back.
//!
//! Only for worlds in real time. In a rehearsal an Event is stored where it is said, or two runs
//! would differ.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;

use wharf_ports::cluster::Write;

use crate::Registry;

/// How many Events may wait to be handed over; upstream's recorder has room for a thousand and drops
/// what is more. Here whoever finds no room records its Event itself.
const WAITING_MAX: usize = 2_048;
/// How many are handed over without being asked: waking a thread for each would cost more than
/// recording it.
const AT_ONCE: usize = 256;
/// How many such batches may be under way.
const BATCHES_MAX: usize = 16;

/// The thread that records, and what is to be handed to it.
pub(crate) struct Broadcaster {
    waiting: Vec<Arc<Write>>,
    /// `None` once the thread is to end, or has.
    said: Option<SyncSender<Said>>,
    thread: Option<JoinHandle<()>>,
}

enum Said {
    /// To be recorded: [`Write::Record`].
    Events(Vec<Arc<Write>>),
    /// Whoever waits for all that was said before is told.
    Settled(SyncSender<()>),
}

impl Broadcaster {
    /// Starts the thread.
    pub(crate) fn start(registry: Arc<Registry>) -> io::Result<Self> {
        let (said, heard) = mpsc::sync_channel(BATCHES_MAX);
        let thread = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || record_all(&registry, &heard))?;
        Ok(Self { waiting: Vec::new(), said: Some(said), thread: Some(thread) })
    }

    /// Takes an Event to record. Returns whether there was room.
    pub(crate) fn take(&mut self, write: &Arc<Write>) -> bool {
        if self.said.is_none() || self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.waiting.push(Arc::clone(write));
        if self.waiting.len().is_multiple_of(AT_ONCE) {
            self.hand_over();
        }
        true
    }

    /// Hands over what waits. With too much under way already it waits on.
    pub(crate) fn hand_over(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(said) = &self.said else { return };
        let waiting = Said::Events(std::mem::take(&mut self.waiting));
        match said.try_send(waiting) {
            Err(TrySendError::Full(Said::Events(waiting))) => self.waiting = waiting,
            // The thread has panicked, which it has reported itself: from now on whoever says
            // something records it.
            Err(TrySendError::Disconnected(_)) => self.said = None,
            Ok(()) | Err(TrySendError::Full(Said::Settled(_))) => {}
        }
    }

    /// Waits until all that was taken is recorded.
    pub(crate) fn settle(&mut self) {
        let Some(said) = &self.said else { return };
        let (tell, told) = mpsc::sync_channel(1);
        let waiting = Said::Events(std::mem::take(&mut self.waiting));
        if said.send(waiting).and_then(|()| said.send(Said::Settled(tell))).is_ok() {
            // Fails only if the thread has ended: then nothing more comes of waiting.
            let _ = told.recv();
        }
    }
}

impl Drop for Broadcaster {
    fn drop(&mut self) {
        self.settle();
        self.said = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the thread itself, and has lost but Events.
            let _ = thread.join();
        }
    }
}

fn record_all(registry: &Registry, heard: &Receiver<Said>) {
    while let Ok(said) = heard.recv() {
        match said {
            Said::Events(writes) => {
                for write in writes {
                    // A lost Event harms nobody, as where the loop records it.
                    let _ = registry.carry_out(&write);
                }
            }
            Said::Settled(tell) => {
                // Nobody may be left to be told.
                let _ = tell.send(());
            }
        }
    }
}
