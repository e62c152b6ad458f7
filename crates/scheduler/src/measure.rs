//! How long a decision's parts take, for those who want to know.
//!
//! The core reads no clock: whoever asks for the times lends one. Nothing depends on them. Most
//! answers of plugins about nodes are remembered, so how long a single filter or scorer takes shows
//! nowhere in a decision; for a sample of decisions they are asked about one node more, apart.

use std::time::Duration;

use smallvec::SmallVec;

use crate::plugins::Code;
use crate::profile::Plugin;

/// Where plugins take part in a cycle, by upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtensionPoint {
    /// A filter prepares for a pod.
    PreFilter,
    /// Nodes are filtered.
    Filter,
    /// No node would do.
    PostFilter,
    /// A scorer prepares for a pod and the nodes that would do.
    PreScore,
    /// Nodes are scored.
    Score,
    /// What a pod needs on its node is set aside.
    Reserve,
    /// What has to be done before the binding.
    PreBind,
    /// The binding.
    Bind,
}

impl ExtensionPoint {
    /// Upstream's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreFilter => "PreFilter",
            Self::Filter => "Filter",
            Self::PostFilter => "PostFilter",
            Self::PreScore => "PreScore",
            Self::Score => "Score",
            Self::Reserve => "Reserve",
            Self::PreBind => "PreBind",
            Self::Bind => "Bind",
        }
    }

    fn has(self, plugin: Plugin) -> bool {
        use Plugin as P;
        match self {
            Self::PreFilter => {
                !matches!(plugin, P::NodeUnschedulable | P::NodeName | P::TaintToleration)
            }
            Self::PreScore => !matches!(plugin, P::ImageLocality | P::DynamicResources),
            _ => true,
        }
    }
}

/// What came of it, by upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It went well.
    Success,
    /// Nothing to do for this pod.
    Skip,
    /// Refused; evictions may help.
    Unschedulable,
    /// Refused for good.
    UnschedulableAndUnresolvable,
    /// It went wrong.
    Error,
}

impl Status {
    /// Upstream's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Skip => "Skip",
            Self::Unschedulable => "Unschedulable",
            Self::UnschedulableAndUnresolvable => "UnschedulableAndUnresolvable",
            Self::Error => "Error",
        }
    }
}

impl From<Code> for Status {
    fn from(code: Code) -> Self {
        match code {
            Code::Unschedulable => Self::Unschedulable,
            Code::UnschedulableAndUnresolvable => Self::UnschedulableAndUnresolvable,
        }
    }
}

/// Takes the times of one decision.
#[derive(Default)]
pub struct Measure<'c> {
    clock: Option<&'c dyn Fn() -> Duration>,
    sampled: bool,
    since: Duration,
    points: SmallVec<[(ExtensionPoint, Status, Duration); 5]>,
    executions: Vec<(Plugin, ExtensionPoint, Status, Duration)>,
    answers: SmallVec<[(Plugin, ExtensionPoint, u64); 24]>,
}

impl<'c> Measure<'c> {
    /// Takes no times.
    pub fn off() -> Self {
        Self::default()
    }

    /// Takes times by a clock that only goes forward; of single plugins too if the decision is one
    /// of the `sampled`.
    pub fn by(clock: &'c dyn Fn() -> Duration, sampled: bool) -> Self {
        Self { clock: Some(clock), sampled, since: clock(), ..Self::default() }
    }

    /// How long all plugins together took at each extension point.
    pub fn points(&self) -> &[(ExtensionPoint, Status, Duration)] {
        &self.points
    }

    /// How long single plugins took, if the decision was sampled.
    pub fn executions(&self) -> &[(Plugin, ExtensionPoint, Status, Duration)] {
        &self.executions
    }

    /// How often each plugin was heard: at PreFilter and PreScore for the pod, unless it had nothing
    /// to do, at Filter and Score about nodes. An answer that is remembered counts like another.
    pub fn answers(&self) -> &[(Plugin, ExtensionPoint, u64)] {
        &self.answers
    }

    /// A plugin has been heard so often.
    pub(crate) fn answered(&mut self, plugin: Plugin, point: ExtensionPoint, times: usize) {
        if self.clock.is_some() && times > 0 && point.has(plugin) {
            self.answers.push((plugin, point, times as u64));
        }
    }

    /// An extension point is done; what follows belongs to the next.
    pub(crate) fn point(&mut self, point: ExtensionPoint, status: Status) {
        if let Some(clock) = self.clock {
            let now = clock();
            self.points.push((point, status, now.saturating_sub(self.since)));
            self.since = now;
        }
    }

    /// What was done since the last extension point belongs to none.
    pub(crate) fn skip(&mut self) {
        if let Some(clock) = self.clock {
            self.since = clock();
        }
    }

    /// Whether times of single plugins are taken.
    pub(crate) fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Has a plugin do its part, and takes the time of it if the decision is sampled.
    #[inline]
    pub(crate) fn plugin<T>(
        &mut self,
        plugin: Plugin,
        point: ExtensionPoint,
        part: impl FnOnce() -> T,
        status: impl FnOnce(&T) -> Status,
    ) -> T {
        let Some(clock) = self.clock.filter(|_| self.sampled && point.has(plugin)) else {
            return part();
        };
        let begun = clock();
        let done = part();
        let took = clock().saturating_sub(begun);
        self.executions.push((plugin, point, status(&done), took));
        done
    }
}
