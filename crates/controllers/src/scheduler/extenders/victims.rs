//! Whom a pod may push out: `preemptVerb`.
//!
//! An extender is sent every candidate (a node, and who would have to leave it) and answers with
//! those it leaves over, which may have other victims; the next one is sent what the one before has
//! left. The cheapest of what is left in the end is chosen by upstream's rules. Nothing of it is
//! evicted that has gone meanwhile.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wharf_ports::controller::{Context, Step};
use wharf_ports::extender::ExtenderAnswer;
use wharf_ports::view::View;
use wharf_scheduler::config::Extender;
use wharf_scheduler::{PodInfo, Unschedulable, candidates, cheapest};

use super::super::Scheduler;
use super::super::cycle::{End, Progress, Refused, Room};
use super::super::queue::Entry;
use super::{Asking, answers, preempt_verb, text};

/// What upstream says when extenders leave nothing over.
const NO_CANDIDATE: &str = "no candidate node for preemption";

/// What has come of asking about victims.
#[derive(Debug)]
pub(super) struct OfVictims {
    refused: Box<Refused>,
    /// The candidates that are left.
    left: Vec<Room>,
    call: u64,
    extender: usize,
}

impl OfVictims {
    /// Whether the answer to this question is waited for.
    pub(super) fn waits_for(&self, call: u64) -> bool {
        self.call == call
    }
}

impl Scheduler {
    /// Leaves the cycle of a pod that is to push others out open for those who have a say in that.
    pub(in super::super) fn ask_about_victims(
        &mut self,
        entry: Entry,
        answer: Box<Unschedulable>,
        took: Duration,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        let profile = &self.profiles[entry.profile];
        let found = candidates(&self.snapshot, &entry.pod, profile, self.rotation, &answer);
        let left = found.iter().map(|candidate| Room::new(candidate, &self.snapshot)).collect();
        let memo = &mut self.memos[entry.profile];
        let refused = Box::new(Refused::new(&entry.pod, answer, memo, &self.snapshot));
        let about = OfVictims { refused, left, call: 0, extender: 0 };
        self.ask_for_victims(Asking { entry, took, about, news: false }, 0, context, step)
    }

    /// Asks the next extender that looks at victims, or chooses from what is left.
    fn ask_for_victims(
        &mut self,
        mut asking: Asking<OfVictims>,
        from: usize,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        let (pod, left) = (&asking.entry.pod, &asking.about.left);
        let next = self.extenders.next(from, pod, preempt_verb);
        if let Some(extender) = next.filter(|_| !left.is_empty()) {
            let body = self.candidates_told(extender, pod, left, context.view);
            let call = self.extenders.call(extender, preempt_verb, body);
            (asking.about.call, asking.about.extender) = (call.id, extender);
            step.extender.push(call);
            return self.extenders.wait(asking);
        }
        let Asking { entry, took, about, news } = asking;
        let OfVictims { mut refused, left, .. } = about;
        match self.choose(left) {
            Some(room) => refused.room = Some(room),
            None => refused.without_room(NO_CANDIDATE, true, false),
        }
        Progress::ended(entry, End::Refused(refused), took).with_news(news)
    }

    /// Takes in an answer that was waited for.
    pub(super) fn take_victims(
        &mut self,
        mut asking: Asking<OfVictims>,
        answer: &ExtenderAnswer,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        if self.object_of(&asking.entry.pod, context.view).is_none() {
            return Progress::Over;
        }
        if asking.entry.pod.terminating {
            self.skip(&asking.entry, context, step);
            return Progress::Over;
        }
        let extender = asking.about.extender;
        let known = &self.extenders.list[extender];
        let read = |body: &String| self.left_over(known, body, &asking.about.left);
        match answer.result.as_ref().map_err(Clone::clone).and_then(read) {
            Ok(left) => asking.about.left = left,
            Err(_) if known.ignorable => {}
            Err(error) => {
                let Asking { entry, took, about, news } = asking;
                let mut refused = about.refused;
                refused.without_room(&error, true, true);
                return Progress::ended(entry, End::Refused(refused), took).with_news(news);
            }
        }
        self.ask_for_victims(asking, extender + 1, context, step)
    }

    /// What an answer leaves over: nodes and pods there, which it may also have chosen anew. The
    /// candidates of before keep their order.
    fn left_over(
        &self,
        extender: &Extender,
        body: &str,
        before: &[Room],
    ) -> Result<Vec<Room>, String> {
        let mut left = Vec::new();
        for named in answers::candidates(body)? {
            let index = self.snapshot.find(&named.node);
            let there = index.map(|index| self.snapshot.node(index).pods.as_slice());
            let old = before.iter().position(|room| room.node == named.node);
            if index.is_none() && old.is_none() {
                return Err(format!("nodeinfo not found for node name {:?}", named.node));
            }
            let mut victims = Vec::new();
            for uid in &named.victims {
                let there = there.into_iter().flatten();
                let asked = old.into_iter().flat_map(|old| &before[old].victims);
                // One it was asked about may have gone since: that is no fault of the answer.
                let found = there.chain(asked).find(|pod| pod.uid == *uid);
                // Upstream prints a pointer to the uid's holder.
                let missing = || {
                    format!(
                        "extender: {} claims to preempt pod (UID: &{{{uid}}}) on node: {}, but the pod is not found on that node",
                        extender.url_prefix, named.node
                    )
                };
                victims.push(found.cloned().ok_or_else(missing)?);
            }
            if victims.is_empty() {
                if extender.ignorable {
                    continue;
                }
                return Err(format!("expected at least one victim pod on node {:?}", named.node));
            }
            let room = Room { node: named.node, victims, violations: named.violations };
            left.push((old.unwrap_or(before.len()), room));
        }
        left.sort_by_key(|(place, _)| *place);
        Ok(left.into_iter().map(|(_, room)| room).collect())
    }

    /// The cheapest of the candidates with those of its victims that are still there.
    fn choose(&self, left: Vec<Room>) -> Option<Room> {
        let there = |node: &str, pod: &PodInfo| {
            let placed = self.snapshot.placement(&pod.uid);
            placed.is_some_and(|placed| placed.facts.name == node)
        };
        let mut rooms: Vec<Room> = left
            .into_iter()
            .filter_map(|mut room| {
                room.victims.retain(|pod| there(&room.node, pod));
                for pod in &mut room.victims {
                    if let Some(now) = self.snapshot.placed(&pod.uid) {
                        *pod = Arc::clone(now);
                    }
                }
                (!room.victims.is_empty()).then_some(room)
            })
            .collect();
        let sets = rooms.iter().map(|room| (room.victims.as_slice(), room.violations));
        let best = cheapest(sets)?;
        Some(rooms.swap_remove(best))
    }

    /// What an extender is told: the pod, and by node who would go, or by what they are known.
    fn candidates_told(
        &self,
        extender: usize,
        pod: &PodInfo,
        left: &[Room],
        view: &View,
    ) -> String {
        let by_uid = self.extenders.list[extender].node_cache_capable;
        let asked = self.object_of(pod, view).map(text);
        let mut rooms: Vec<&Room> = left.iter().collect();
        rooms.sort_by_key(|room| &room.node);
        let victim = |pod: &Arc<PodInfo>| {
            if by_uid {
                return Some(json!({"UID": pod.uid.as_str()}).to_string());
            }
            self.object_of(pod, view).map(text)
        };
        let told = |room: &&Room| {
            let victims: Vec<_> = room.victims.iter().filter_map(victim).collect();
            format!(
                "{}:{{\"Pods\":[{}],\"NumPDBViolations\":{}}}",
                json!(room.node.as_str()),
                victims.join(","),
                room.violations
            )
        };
        let told: Vec<_> = rooms.iter().map(told).collect();
        let told = format!("{{{}}}", told.join(","));
        let (whole, by_name) =
            if by_uid { ("null", told.as_str()) } else { (told.as_str(), "null") };
        format!(
            "{{\"Pod\":{},\"NodeNameToVictims\":{whole},\"NodeNameToMetaVictims\":{by_name}}}",
            asked.as_deref().unwrap_or("null")
        )
    }
}
