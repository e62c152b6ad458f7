//! Extenders: programs that have a say in where a pod goes, asked over HTTP.
//!
//! As upstream's scheduler waits for their answers, one pod at a time is asked about, and no other
//! is tried meanwhile; but nothing here waits: the pod's cycle stays open between the steps. Those
//! that filter are asked one after another, those that score all at once (`nodes`); if the pod is
//! to push others out, those that look at victims one after another (`victims`); the first that
//! binds does so in place of the scheduler (`binding`).

mod answers;
mod binding;
mod nodes;
mod victims;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use wharf_model::object::Object;
use wharf_ports::controller::{Context, Step};
use wharf_ports::extender::{ExtenderAnswer, ExtenderCall};
use wharf_scheduler::PodInfo;
use wharf_scheduler::config::Extender;

use super::Scheduler;
use super::cycle::Progress;
use super::queue::Entry;
use nodes::OfNodes;
use victims::OfVictims;

/// The extenders, and what they are being asked.
#[derive(Debug, Default)]
pub(super) struct Extenders {
    list: Vec<Extender>,
    calls: u64,
    asking: Option<Box<Asking<About>>>,
    answers: Vec<ExtenderAnswer>,
    /// Bindings that an extender was asked for: which one, and the pod's uid.
    binding: BTreeMap<u64, (usize, CompactString)>,
}

/// A pod in the middle of its cycle.
#[derive(Debug)]
struct Asking<A> {
    entry: Entry,
    took: Duration,
    /// What is asked.
    about: A,
    /// Whether anything happened meanwhile that could help it.
    news: bool,
}

/// What extenders are asked of a pod.
#[derive(Debug)]
enum About {
    /// Which nodes will do, and how well.
    Nodes(OfNodes),
    /// Whom it may push out.
    Victims(OfVictims),
}

impl From<OfNodes> for About {
    fn from(about: OfNodes) -> Self {
        Self::Nodes(about)
    }
}

impl From<OfVictims> for About {
    fn from(about: OfVictims) -> Self {
        Self::Victims(about)
    }
}

impl Extenders {
    pub(super) fn new(list: Vec<Extender>) -> Self {
        Self { list, ..Self::default() }
    }

    /// Whether a pod's cycle is open.
    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// The pod (uid) that is held here.
    #[cfg(test)]
    pub(super) fn held(&self) -> Option<CompactString> {
        self.asking.as_ref().map(|asking| asking.entry.pod.uid.clone())
    }

    /// Whether one of them has a say in where a pod goes.
    pub(super) fn concern(&self, pod: &PodInfo) -> bool {
        self.next(0, pod, filter_verb).or_else(|| self.next(0, pod, prioritize_verb)).is_some()
    }

    /// Whether one of them has a say in whom a pod pushes out.
    pub(super) fn heed_victims(&self, pod: &PodInfo) -> bool {
        self.next(0, pod, preempt_verb).is_some()
    }

    /// Keeps an answer for the next step.
    pub(super) fn keep(&mut self, answer: ExtenderAnswer) {
        self.answers.push(answer);
    }

    /// Something happened that could help a pod whose cycle is open.
    pub(super) fn hear(&mut self) {
        if let Some(asking) = &mut self.asking {
            asking.news = true;
        }
    }

    /// Puts a newer form of the pod in place of the one whose cycle is open.
    pub(super) fn refresh(&mut self, pod: &Arc<PodInfo>) -> bool {
        let asking = self.asking.as_mut().filter(|asking| asking.entry.pod.uid == pod.uid);
        let Some(asking) = asking else { return false };
        asking.entry.pod = pod.clone();
        asking.news = true;
        true
    }

    /// Puts another form of the same pod in place of the one held.
    pub(super) fn replace(&mut self, form: impl Fn(&str) -> Option<Arc<PodInfo>>) {
        if let Some(asking) = &mut self.asking
            && let Some(pod) = form(&asking.entry.pod.uid)
        {
            asking.entry.pod = pod;
        }
    }

    /// Ends a pod's cycle without a decision. Returns whether it was open.
    pub(super) fn cancel(&mut self, uid: &str) -> bool {
        let open = self.asking.as_ref().is_some_and(|asking| asking.entry.pod.uid == uid);
        if open {
            self.asking = None;
        }
        open
    }

    /// The next one from `from` on that has a verb and is interested.
    fn next(&self, from: usize, pod: &PodInfo, verb: fn(&Extender) -> &str) -> Option<usize> {
        (from..self.list.len()).find(|index| {
            !verb(&self.list[*index]).is_empty() && self.list[*index].is_interested(pod)
        })
    }

    fn call(&mut self, extender: usize, verb: fn(&Extender) -> &str, body: String) -> ExtenderCall {
        let id = self.calls;
        self.calls += 1;
        let asked = &self.list[extender];
        let url = asked.url(verb(asked));
        ExtenderCall { id, extender, url, timeout: asked.timeout, body }
    }

    /// Leaves a pod's cycle open.
    fn wait<A: Into<About>>(&mut self, asking: Asking<A>) -> Progress {
        let Asking { entry, took, about, news } = asking;
        self.asking = Some(Box::new(Asking { entry, took, about: about.into(), news }));
        Progress::Open
    }

    /// Carries over to what follows whether anything happened before it that could help the pod.
    fn carry_news(&mut self, progress: Progress, news: bool) -> Progress {
        if news && matches!(progress, Progress::Open) {
            self.hear();
        }
        progress.with_news(news)
    }
}

fn filter_verb(extender: &Extender) -> &str {
    &extender.filter_verb
}

fn prioritize_verb(extender: &Extender) -> &str {
    &extender.prioritize_verb
}

fn preempt_verb(extender: &Extender) -> &str {
    &extender.preempt_verb
}

fn bind_verb(extender: &Extender) -> &str {
    &extender.bind_verb
}

/// An object as extenders are sent it.
fn text(object: &Arc<Object>) -> String {
    String::from_utf8_lossy(&object.json_unkept()).into_owned()
}

impl Scheduler {
    /// Takes in the answers that have come.
    pub(super) fn take_answers(&mut self, context: &Context<'_>, step: &mut Step) {
        for answer in std::mem::take(&mut self.extenders.answers) {
            if let Some((extender, uid)) = self.extenders.binding.remove(&answer.id) {
                self.take_binding(extender, uid, &answer.result, step);
                continue;
            }
            // An answer about a pod that has gone meanwhile finds another one, or none.
            let Some(asking) = self.extenders.asking.take() else { continue };
            let Asking { entry, took, about, news } = *asking;
            let progress = match about {
                About::Nodes(about) if about.waits_for(answer.id) => {
                    self.take_nodes(Asking { entry, took, about, news }, &answer, context, step)
                }
                About::Victims(about) if about.waits_for(answer.id) => {
                    self.take_victims(Asking { entry, took, about, news }, &answer, context, step)
                }
                about => self.extenders.wait(Asking { entry, took, about, news }),
            };
            if !matches!(progress, Progress::Open) {
                self.close(progress, context, step);
            }
        }
    }
}
