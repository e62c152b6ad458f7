//! One pod's scheduling cycle: decided, then on its way to a node (`binding`) or turned down
//! (`failure`), with room made for it where evictions can (`preempt`).
//!
//! A cycle may stay open while extenders are asked: what is kept of it then names nodes, and no
//! places in the snapshot (`refused`).

mod binding;
mod failure;
mod preempt;
mod refused;

use std::time::Duration;

use wharf_ports::controller::{Context, Step};
use wharf_scheduler::{Decision, News, Placement, Preemption, schedule_measured};

use super::assumed::Assumed;
use super::metrics::Outcome;
use super::queue::{Entry, Wake};
use super::{Scheduler, reasons, writes};

pub(super) use preempt::Preemptions;
pub(super) use refused::{Refused, Room};

/// How far a pod's cycle has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// Extenders are being asked.
    Open,
    /// To its end.
    Ended(Box<Ended>),
    /// The pod needs no decision any more.
    Over,
}

/// A pod's cycle at its end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) entry: Entry,
    pub(super) end: End,
    /// How long its decision took on the machine's clock.
    pub(super) took: Duration,
    /// Whether anything happened while extenders were asked that could help it.
    pub(super) news: bool,
}

/// What a pod's cycle ends with.
#[derive(Debug)]
pub(super) enum End {
    /// It goes to a node.
    Placed(Placement),
    /// No node will do.
    Refused(Box<Refused>),
    /// Something went wrong.
    Failed(String),
}

impl Progress {
    pub(super) fn ended(entry: Entry, end: End, took: Duration) -> Self {
        Self::Ended(Box::new(Ended { entry, end, took, news: false }))
    }

    /// The same with whether anything happened while extenders were asked.
    pub(super) fn with_news(mut self, news: bool) -> Self {
        if let Self::Ended(ended) = &mut self {
            ended.news |= news;
        }
        self
    }
}

impl Scheduler {
    /// Decides about a pod that was taken from the queue.
    pub(super) fn decide(&mut self, entry: Entry, context: &Context<'_>, step: &mut Step) {
        if self.goes_in_a_group(&entry) {
            self.decide_group(entry, context, step);
        } else {
            let progress = self.begin(entry, context, step);
            self.close(progress, context, step);
        }
    }

    /// Whether a cycle is open: then no other is begun, as upstream's scheduler waits too.
    pub(super) fn is_open(&self) -> bool {
        self.extenders.is_asking() || self.groups.is_open()
    }

    /// Begins a pod's cycle, and ends it if no extender is to be asked.
    pub(super) fn begin(
        &mut self,
        entry: Entry,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        self.cycles += 1;
        if entry.pod.terminating {
            self.skip(&entry, context, step);
            return Progress::Over;
        }
        if self.extenders.concern(&entry.pod) {
            return self.ask_extenders(entry, true, context, step);
        }
        let Self { profiles, memos, snapshot, rotation, metrics, .. } = self;
        let (profile, memo) = (&profiles[entry.profile], &mut memos[entry.profile]);
        let start = metrics.clock();
        let mut measure = metrics.measure(self.cycles);
        let decision =
            schedule_measured(memo, snapshot, &entry.pod, profile, rotation, &mut measure);
        let took = metrics.clock().saturating_sub(start);
        metrics.measured(entry.profile, &measure);
        self.decided(entry, decision, took, context, step)
    }

    /// The core has decided. Extenders may have a say in whom a pod pushes out.
    pub(super) fn decided(
        &mut self,
        entry: Entry,
        decision: Decision,
        took: Duration,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        self.metrics.algorithm(took);
        match decision {
            Decision::Bind(placement) => Progress::ended(entry, End::Placed(placement), took),
            Decision::Unschedulable(answer) => {
                let Preemption { nomination, message, .. } = &answer.preemption;
                if nomination.is_some() || message.is_some() {
                    self.metrics.looked_for_room();
                }
                if answer.preemption.nomination.is_some() && self.extenders.heed_victims(&entry.pod)
                {
                    return self.ask_about_victims(entry, answer, took, context, step);
                }
                let memo = &mut self.memos[entry.profile];
                let refused = Refused::new(&entry.pod, answer, memo, &self.snapshot);
                Progress::ended(entry, End::Refused(Box::new(refused)), took)
            }
        }
    }

    /// Carries out what a cycle has ended with; one of a group's pods first waits for the others'.
    pub(super) fn close(&mut self, progress: Progress, context: &Context<'_>, step: &mut Step) {
        if self.groups.is_open() {
            self.take_member(progress, context, step);
            self.go_on_with_group(context, step);
        } else if let Progress::Ended(ended) = progress {
            self.carry_out(*ended, context, step);
        }
    }

    /// Sends a pod where it was decided that it goes, or turns it down.
    fn carry_out(&mut self, ended: Ended, context: &Context<'_>, step: &mut Step) {
        let Ended { entry, end, took, news } = ended;
        let uid = entry.pod.uid.clone();
        match end {
            End::Placed(placement) => {
                if let Some(assumed) = self.assume(entry, &placement, took, context, step) {
                    self.wake(&News::PodPlaced(&assumed.entry.pod));
                    self.go_on(assumed, context, step);
                }
            }
            End::Refused(refused) => {
                self.metrics.attempt(entry.profile, Outcome::Unschedulable, took);
                self.turn_down(entry, &refused, context, step);
            }
            End::Failed(message) => {
                self.metrics.attempt(entry.profile, Outcome::Error, took);
                self.fail_with_error(entry, &message, context, step);
            }
        }
        if news {
            self.hear_late(&uid);
        }
    }

    /// A pod came back from a cycle during which something happened: if it sleeps now, it may have
    /// missed what would have woken it.
    pub(super) fn hear_late(&mut self, uid: &str) {
        self.queue.wake_one(uid, "ClusterChange", Wake::AfterBackoff);
    }

    /// A pod that is being deleted needs no node. It is forgotten until it changes.
    pub(super) fn skip(&self, entry: &Entry, context: &Context<'_>, step: &mut Step) {
        if let Some(object) = self.object_of(&entry.pod, context.view) {
            let message = format!("skip schedule deleting pod: {}", entry.pod.key);
            step.write(writes::failed(object, &message, self.name_of(entry.profile)));
        }
    }

    /// A node has been found: it counts the pod, and plugins set aside what the pod needs. `None` if
    /// one of them refuses.
    pub(super) fn assume(
        &mut self,
        entry: Entry,
        placement: &Placement,
        took: Duration,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Option<Assumed> {
        step.reasons.push(reasons::placed(&entry.pod, placement, &self.snapshot));
        let node = self.snapshot.node(placement.node).facts.name.clone();
        self.release_nomination(&entry.pod.uid);
        self.snapshot.place(entry.pod.clone(), &node);
        self.reserve(Assumed::new(entry, node, took, context.now), context, step)
    }
}
