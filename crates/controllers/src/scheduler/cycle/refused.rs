//! The answer for a pod that no node will take, without places in the snapshot: it outlasts the
//! snapshot it was found on, so that extenders and the rest of a group can be waited for.

use std::sync::Arc;

use compact_str::CompactString;
use wharf_model::object::ObjectKey;
use wharf_ports::reason::Because;
use wharf_scheduler::{Memo, Nomination, PluginSet, PodInfo, Preemption, Snapshot, Unschedulable};

use super::super::reasons;

/// Why no node takes a pod, and what evictions would bring.
#[derive(Clone, Debug)]
pub(in super::super) struct Refused {
    answer: Box<Unschedulable>,
    /// What stood against it, without the evictions.
    pub(in super::super) obstacles: Vec<Because>,
    /// Where room can be made, and by whose going.
    pub(in super::super) room: Option<Room>,
}

/// A node and the pods that have to leave it.
#[derive(Clone, Debug)]
pub(in super::super) struct Room {
    pub(in super::super) node: CompactString,
    /// In the order in which they go.
    pub(in super::super) victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget would have kept.
    pub(in super::super) violations: usize,
}

impl Room {
    pub(in super::super) fn new(nomination: &Nomination, snapshot: &Snapshot) -> Self {
        let Nomination { node, victims, violations } = nomination;
        let node = snapshot.node(*node).facts.name.clone();
        Self { node, victims: victims.clone(), violations: *violations }
    }
}

impl Refused {
    pub(in super::super) fn new(
        pod: &PodInfo,
        answer: Box<Unschedulable>,
        memo: &mut Memo,
        snapshot: &Snapshot,
    ) -> Self {
        let obstacles = reasons::obstacles(pod, &answer, memo, snapshot);
        let nomination = answer.preemption.nomination.as_ref();
        let room = nomination.map(|nomination| Room::new(nomination, snapshot));
        Self { answer, obstacles, room }
    }

    /// No room is made after all, for this reason. `stands` says whether what was begun earlier
    /// goes on.
    pub(in super::super) fn without_room(&mut self, message: &str, stands: bool, failed: bool) {
        self.room = None;
        self.answer.preemption = Preemption {
            message: Some(message.to_owned()),
            nomination: None,
            keeps_nomination: stands,
            failed,
        };
    }

    /// The whole text of the condition and the event.
    pub(in super::super) fn message(&self) -> String {
        self.answer.message()
    }

    /// The text without what follows about making room.
    pub(in super::super) fn summary(&self) -> &str {
        &self.answer.summary
    }

    /// What came of trying to make room, if it is none.
    pub(in super::super) fn of_preemption(&self) -> Option<&str> {
        self.answer.preemption.message.as_deref()
    }

    /// Whether an earlier nomination stands.
    pub(in super::super) fn keeps_nomination(&self) -> bool {
        self.answer.preemption.keeps_nomination
    }

    /// The plugins that refused.
    pub(in super::super) fn plugins(&self) -> PluginSet {
        self.answer.diagnosis.plugins
    }

    /// Whether there were no nodes at all.
    pub(in super::super) fn is_without_nodes(&self) -> bool {
        self.answer.diagnosis.nodes == 0
    }

    /// A claim on devices that is to lose them.
    pub(in super::super) fn deallocate(&self) -> Option<&ObjectKey> {
        self.answer.deallocate.as_ref()
    }
}
