//! Assumed pods: a node has been chosen for them and counts them, until the cluster shows them
//! bound or the way there ends otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use wharf_model::time::Time;
use wharf_ports::error::{ApiError, StatusReason};
use wharf_scheduler::{PluginSet, PodInfo};

use super::queue::{Entry, Wake};

/// How long a binding may be without word from the cluster. It always has an outcome; this is for
/// adapters that lose one.
pub(super) const BINDING_MAX: Duration = Duration::from_secs(300);
/// How long it may be when its answer leaves open whether the pod was bound: a server error may
/// hide a success, and giving the room away would overcommit the node.
pub(super) const DOUBTED_MAX: Duration = Duration::from_secs(5);

/// How far a pod is on its way to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for the others of its group.
    Permit,
    /// Plugins have work to do that is not done.
    PreBind,
    /// The binding has been asked for.
    Binding,
}

/// A pod on its way to a node.
#[derive(Clone, Debug)]
pub(super) struct Assumed {
    pub(super) node: CompactString,
    pub(super) entry: Entry,
    pub(super) stage: Stage,
    /// How long its decision took on the machine's clock.
    pub(super) took: Duration,
    /// When it began to wait where it is.
    pub(super) since: Time,
    /// The plugins that have set something aside for it.
    pub(super) reserved: PluginSet,
    /// Those of them with work to do before the binding.
    pub(super) work: PluginSet,
    /// For which plugin the news since would have meant something, had it turned the pod down.
    pub(super) news: Vec<(PluginSet, Wake)>,
    /// What the answer to its binding was, if it leaves open whether the pod was bound.
    pub(super) doubt: Option<String>,
    until: Time,
}

/// The assumed pods, by uid and by when their patience ends.
#[derive(Debug, Default)]
pub(super) struct AssumedPods {
    pods: FxHashMap<CompactString, Assumed>,
    ends: BTreeSet<(Time, CompactString)>,
    /// Those that wait for more than the outcome of their binding.
    waiting: BTreeSet<CompactString>,
}

impl Assumed {
    /// A pod that is free to go to a node.
    pub(super) fn new(entry: Entry, node: CompactString, took: Duration, now: Time) -> Self {
        Self {
            node,
            entry,
            stage: Stage::Binding,
            took,
            since: now,
            reserved: PluginSet::default(),
            work: PluginSet::default(),
            news: Vec::new(),
            doubt: None,
            until: now + BINDING_MAX,
        }
    }

    /// What the news since it was placed means for it if these plugins turn it down now.
    pub(super) fn wake(&self, rejected_by: PluginSet) -> Wake {
        let concerning =
            self.news.iter().filter(|(by, _)| by.iter().any(|p| rejected_by.contains(p)));
        concerning.map(|(_, wake)| *wake).max().unwrap_or(Wake::No)
    }

    /// Has the pod wait in a stage until then.
    pub(super) fn wait(&mut self, stage: Stage, now: Time, until: Time) {
        if self.stage != stage {
            self.since = now;
        }
        self.stage = stage;
        self.until = until;
    }
}

impl AssumedPods {
    pub(super) fn insert(&mut self, assumed: Assumed) {
        let uid = assumed.entry.pod.uid.clone();
        self.remove(&uid);
        self.ends.insert((assumed.until, uid.clone()));
        if assumed.stage != Stage::Binding {
            self.waiting.insert(uid.clone());
        }
        self.pods.insert(uid, assumed);
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<Assumed> {
        let assumed = self.pods.remove(uid)?;
        self.ends.remove(&(assumed.until, assumed.entry.pod.uid.clone()));
        if assumed.stage != Stage::Binding {
            self.waiting.remove(uid);
        }
        Some(assumed)
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Assumed> {
        self.pods.get(uid)
    }

    /// Puts a newer form of the pod in place of the one it was assumed with.
    pub(super) fn refresh(&mut self, pod: &Arc<PodInfo>) -> bool {
        let Some(assumed) = self.pods.get_mut(&pod.uid) else { return false };
        assumed.entry.pod = pod.clone();
        true
    }

    /// Notes what news means for the pods that still wait for something.
    pub(super) fn note(&mut self, mut means: impl FnMut(&Assumed) -> Vec<(PluginSet, Wake)>) {
        for uid in &self.waiting {
            if let Some(assumed) = self.pods.get_mut(uid) {
                let news = means(assumed);
                assumed.news.extend(news);
                assumed.news.sort_unstable_by_key(|(by, wake)| (by.bits(), *wake));
                assumed.news.dedup();
            }
        }
    }

    /// Whether any waits for more than the outcome of its binding.
    pub(super) fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The pods whose patience is at its end.
    pub(super) fn ended(&self, now: Time) -> Vec<CompactString> {
        let ended = self.ends.iter().take_while(|(end, _)| *end <= now);
        ended.map(|(_, uid)| uid.clone()).collect()
    }

    /// When the next one's is.
    pub(super) fn first_end(&self) -> Option<Time> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Puts another form of the same pods in place of all of them.
    pub(super) fn replace(&mut self, form: impl Fn(&str) -> Option<Arc<PodInfo>>) {
        for (uid, assumed) in &mut self.pods {
            if let Some(pod) = form(uid) {
                assumed.entry.pod = pod;
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }
}

/// Whether a refusal leaves open what has become of the write.
pub(super) fn may_hide_success(error: &ApiError) -> bool {
    matches!(
        error.reason,
        StatusReason::InternalError | StatusReason::ServiceUnavailable | StatusReason::Timeout
    )
}
