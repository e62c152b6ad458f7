//! A cluster adapter that misbehaves as real ones do, by a seed: late and repeated events, refused
//! writes, writes that succeed though their answer says otherwise, and a crash after any write.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use wharf_model::kinds::Kind;
use wharf_model::random::Random;
use wharf_ports::cluster::{Change, Cluster, ClusterEvent, Write, WriteId};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_ports::view::View;
use wharf_registry::EmbeddedCluster;

/// How often what happens, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// An event is told late.
    pub late: u32,
    /// A change is told again.
    pub repeated: u32,
    /// A write is refused.
    pub refused: u32,
    /// A write succeeds but its answer is an error.
    pub answer_lost: u32,
    /// Whether each kind has a watch of its own, so that changes of one overtake those of another.
    pub watch_per_kind: bool,
    /// Whether the program may die.
    pub crashes: bool,
}

impl Faults {
    /// Nothing fails.
    pub(crate) const NONE: Self = Self {
        late: 0,
        repeated: 0,
        refused: 0,
        answer_lost: 0,
        watch_per_kind: false,
        crashes: false,
    };
}

pub(crate) struct FaultyCluster {
    inner: EmbeddedCluster,
    random: Random,
    faults: Faults,
    /// Writes until the crash; `None` for no crash.
    writes_left: Option<u32>,
    crashed: bool,
    /// The kind whose watch is being taken up again: nothing is told of it.
    stalled: Option<Kind>,
    /// By kind if each has its own watch.
    changes: BTreeMap<Option<Kind>, VecDeque<Change>>,
    outcomes: Vec<ClusterEvent>,
    told: VecDeque<Change>,
}

impl FaultyCluster {
    pub(crate) fn new(
        inner: EmbeddedCluster,
        random: Random,
        faults: Faults,
        writes: Option<u32>,
    ) -> Self {
        Self {
            inner,
            random,
            faults,
            writes_left: writes,
            crashed: false,
            stalled: None,
            changes: BTreeMap::new(),
            outcomes: Vec::new(),
            told: VecDeque::new(),
        }
    }

    /// Whether the process is to be taken for dead.
    pub(crate) fn crashed(&self) -> bool {
        self.crashed
    }

    /// Has the process die after so many writes.
    pub(crate) fn die_after(&mut self, writes: u32) {
        self.writes_left = Some(writes);
    }

    /// Has the process not die any more.
    pub(crate) fn live_on(&mut self) {
        self.writes_left = None;
    }

    /// Has the watch of a kind tell nothing until it is told otherwise.
    pub(crate) fn stall(&mut self, kind: Option<Kind>) {
        self.stalled = kind;
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.below(100) < percent
    }

    /// Tells changes in their order, up to one that is late.
    fn tell(&mut self, changes: &mut VecDeque<Change>, events: &mut Vec<ClusterEvent>) {
        while let Some(change) = changes.pop_front() {
            if self.chance(self.faults.late) {
                changes.push_front(change);
                break;
            }
            events.push(ClusterEvent::Changed(change.clone()));
            self.told.push_back(change);
            if self.told.len() > 50 {
                self.told.pop_front();
            }
            if self.chance(self.faults.repeated) {
                let which = self.random.below(self.told.len() as u32) as usize;
                events.push(ClusterEvent::Changed(self.told[which].clone()));
            }
        }
    }

    fn injected(reason: StatusReason) -> ApiError {
        ApiError::new(reason, "injected fault")
    }
}

impl Cluster for FaultyCluster {
    fn submit(&mut self, id: WriteId, write: Arc<Write>) {
        if self.crashed {
            return;
        }
        if let Some(left) = &mut self.writes_left {
            if *left == 0 {
                self.crashed = true;
                return;
            }
            *left -= 1;
        }
        if self.chance(self.faults.refused) {
            let reason = match self.random.below(3) {
                0 => StatusReason::InternalError,
                1 => StatusReason::Conflict,
                _ => StatusReason::ServiceUnavailable,
            };
            self.outcomes.push(ClusterEvent::Outcome { id, result: Err(Self::injected(reason)) });
            return;
        }
        if self.chance(self.faults.answer_lost) {
            // Under an id that nobody waits for: the true outcome is lost.
            self.inner.submit(WriteId(u64::MAX), write);
            let result = Err(Self::injected(StatusReason::Timeout));
            self.outcomes.push(ClusterEvent::Outcome { id, result });
            return;
        }
        self.inner.submit(id, write);
    }

    fn poll(&mut self, view: &View, events: &mut Vec<ClusterEvent>) {
        let mut fresh = Vec::new();
        self.inner.poll(view, &mut fresh);
        for event in fresh {
            match event {
                ClusterEvent::Changed(change) => {
                    let watch = self.faults.watch_per_kind.then(|| change.kind());
                    self.changes.entry(watch).or_default().push_back(change);
                }
                outcome => self.outcomes.push(outcome),
            }
        }
        // Outcomes may overtake the changes they belong to.
        events.append(&mut self.outcomes);
        let mut watches = std::mem::take(&mut self.changes);
        for (watch, changes) in &mut watches {
            if watch.is_none() || *watch != self.stalled {
                self.tell(changes, events);
            }
        }
        watches.retain(|_, changes| !changes.is_empty());
        self.changes = watches;
    }

    fn pending(&self) -> bool {
        let mut watches = self.changes.keys();
        !self.crashed && watches.any(|watch| watch.is_none() || *watch != self.stalled)
    }
}
