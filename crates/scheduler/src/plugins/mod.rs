//! The plugins: one file each with its rule, its texts, what wakes a pod it turned down, and its
//! tests. This file holds what they have in common.
//!
//! A filter and a scorer are prepared once per pod and then asked per node. Both are closed sets,
//! so asking is a match and not a call through a pointer, and nothing is allocated per node.

pub(crate) mod balanced_allocation;
pub(crate) mod dynamic_resources;
pub(crate) mod image_locality;
pub(crate) mod inter_pod_affinity;
pub(crate) mod node_affinity;
pub(crate) mod node_declared_features;
pub(crate) mod node_name;
pub(crate) mod node_ports;
pub(crate) mod node_resources_fit;
pub(crate) mod node_unschedulable;
pub(crate) mod node_volume_limits;
pub(crate) mod pod_topology_spread;
pub(crate) mod scheduling_gates;
pub(crate) mod taint_toleration;
pub(crate) mod volume_binding;
pub(crate) mod volume_restrictions;
pub(crate) mod volume_zone;

use std::borrow::Cow;

use crate::measure::Status;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::profile::{Plugin, PluginSet, Profile};
use crate::scores::{Scale, Scaling};
use crate::snapshot::{NodeIndex, Snapshot};
use crate::symbols::Symbol;

/// The highest score of a node.
pub const MAX_SCORE: i64 = 100;

/// Whether evicting pods could make a refused node fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// It could.
    Unschedulable,
    /// It could not.
    UnschedulableAndUnresolvable,
}

/// Why a node was refused. Small, so that one per node costs nothing; the plugin turns it into
/// words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rejection {
    /// Who refused.
    pub plugin: Plugin,
    /// Whether evictions could help.
    pub code: Code,
    /// What the plugin has to say, as bits that it alone understands.
    pub(crate) detail: u64,
}

/// Marks the refusal of a node that PreFilters left out; the other bits are the set of the plugins
/// that narrowed the nodes.
const OUTSIDE_NODE_SET: u64 = 1 << 63;

impl Rejection {
    pub(crate) fn new(plugin: Plugin, code: Code) -> Option<Self> {
        Some(Self { plugin, code, detail: 0 })
    }

    /// The refusal of every node outside the set that these plugins' PreFilters left over.
    pub(crate) fn outside(narrowed_by: PluginSet) -> Self {
        Self {
            plugin: narrowed_by.iter().next().unwrap_or(Plugin::NodeAffinity),
            code: Code::UnschedulableAndUnresolvable,
            detail: OUTSIDE_NODE_SET | u64::from(narrowed_by.bits()),
        }
    }

    /// The plugins whose PreFilters left the node out; `None` if a filter refused it.
    pub fn narrowed_by(&self) -> Option<PluginSet> {
        (self.detail & OUTSIDE_NODE_SET != 0)
            .then(|| PluginSet::from_bits((self.detail & u64::from(u32::MAX)) as u32))
    }

    /// The reasons, in upstream's words.
    pub fn reasons(&self, pod: &PodInfo) -> Vec<Cow<'static, str>> {
        if let Some(plugins) = self.narrowed_by() {
            return vec![format!("node(s) didn't satisfy plugin(s) [{}]", names(plugins)).into()];
        }
        match self.plugin {
            Plugin::NodeUnschedulable => vec![node_unschedulable::REASON.into()],
            Plugin::NodeName => vec![node_name::REASON.into()],
            Plugin::TaintToleration => vec![taint_toleration::REASON.into()],
            Plugin::NodeAffinity => vec![node_affinity::reason(self.detail).into()],
            Plugin::NodePorts => vec![node_ports::REASON.into()],
            Plugin::NodeResourcesFit => node_resources_fit::reasons(self.detail, pod),
            Plugin::VolumeRestrictions => vec![volume_restrictions::reason(self.detail).into()],
            Plugin::NodeVolumeLimits => vec![node_volume_limits::REASON.into()],
            Plugin::VolumeBinding => volume_binding::reasons(self.detail),
            Plugin::VolumeZone => vec![volume_zone::REASON.into()],
            Plugin::PodTopologySpread => vec![pod_topology_spread::reason(self.detail).into()],
            Plugin::InterPodAffinity => vec![inter_pod_affinity::reason(self.detail).into()],
            Plugin::DynamicResources => vec![dynamic_resources::reason(self.detail).into()],
            Plugin::NodeDeclaredFeatures => vec![node_declared_features::REASON.into()],
            _ => Vec::new(),
        }
    }

    /// The refusal of one node with its numbers and names, for people.
    pub fn explain(&self, pod: &PodInfo, index: NodeIndex, snapshot: &Snapshot) -> String {
        let (node, symbols) = (snapshot.node(index), snapshot.symbols());
        let detail = self.detail;
        let says = match self.plugin {
            _ if self.narrowed_by().is_some() => None,
            Plugin::NodeResourcesFit => Some(node_resources_fit::explain(detail, pod, node)),
            Plugin::TaintToleration => Some(taint_toleration::explain(pod, node, symbols)),
            Plugin::NodePorts => Some(node_ports::explain(pod, node, symbols)),
            Plugin::PodTopologySpread => {
                pod_topology_spread::explain(detail, pod, index, node, snapshot)
            }
            Plugin::InterPodAffinity => {
                inter_pod_affinity::explain(detail, pod, index, node, snapshot)
            }
            Plugin::DynamicResources => dynamic_resources::explain(pod, node, snapshot),
            Plugin::NodeDeclaredFeatures => {
                Some(node_declared_features::explain(pod, node, symbols))
            }
            _ => None,
        };
        says.unwrap_or_else(|| self.reasons(pod).join(", "))
    }
}

/// Names of plugins as upstream lists them: sorted, with spaces between.
pub(crate) fn names(plugins: PluginSet) -> String {
    let mut names: Vec<_> = plugins.iter().map(Plugin::name).collect();
    names.sort_unstable();
    names.join(" ")
}

/// A rejection of the whole pod before any node was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreFilterRejection {
    /// Who refused.
    pub plugin: Plugin,
    /// Whether evictions could help.
    pub code: Code,
    /// The text.
    pub message: Cow<'static, str>,
}

/// A filter prepared for one pod. Cloned for trials, which change it as pods come and go.
#[derive(Clone)]
pub(crate) enum Filter<'a> {
    NodeUnschedulable(node_unschedulable::State),
    NodeName(node_name::State<'a>),
    TaintToleration(taint_toleration::State<'a>),
    NodeAffinity(node_affinity::State<'a>),
    NodePorts(node_ports::State<'a>),
    NodeResourcesFit(node_resources_fit::State<'a>),
    VolumeRestrictions(volume_restrictions::State<'a>),
    NodeVolumeLimits(node_volume_limits::State<'a>),
    VolumeBinding(volume_binding::State<'a>),
    VolumeZone(volume_zone::State<'a>),
    PodTopologySpread(Box<pod_topology_spread::State<'a>>),
    InterPodAffinity(Box<inter_pod_affinity::State<'a>>),
    DynamicResources(Box<dynamic_resources::State<'a>>),
    NodeDeclaredFeatures(node_declared_features::State<'a>),
}

/// What a plugin's PreFilter makes of a pod.
#[derive(Default)]
pub(crate) struct Prepared<'a> {
    /// Its filter; `None` if it has nothing to refuse for this pod (upstream's `Skip`).
    pub(crate) filter: Option<Filter<'a>>,
    /// The names of the only nodes to look at, sorted and each once, if it narrows them. A node
    /// that nobody knows may be among them.
    pub(crate) nodes: Option<Vec<Symbol>>,
}

impl Prepared<'_> {
    /// What came of preparing, in upstream's words.
    pub(crate) fn status(prepared: &Result<Self, PreFilterRejection>) -> Status {
        match prepared {
            Ok(Self { filter: None, nodes: None }) => Status::Skip,
            Ok(_) => Status::Success,
            Err(rejection) => rejection.code.into(),
        }
    }
}

impl<'a> From<Option<Filter<'a>>> for Prepared<'a> {
    fn from(filter: Option<Filter<'a>>) -> Self {
        Self { filter, nodes: None }
    }
}

impl<'a> Filter<'a> {
    /// PreFilter: prepares a plugin's filter for a pod, or turns the pod down as a whole.
    pub(crate) fn prepare(
        plugin: Plugin,
        pod: &'a PodInfo,
        profile: &'a Profile,
        snapshot: &'a Snapshot,
    ) -> Result<Prepared<'a>, PreFilterRejection> {
        let filter = match plugin {
            Plugin::NodeUnschedulable => {
                Some(Self::NodeUnschedulable(node_unschedulable::State::new(pod, snapshot)))
            }
            Plugin::NodeName => node_name::State::new(pod).map(Self::NodeName),
            Plugin::TaintToleration => {
                Some(Self::TaintToleration(taint_toleration::State::new(pod)))
            }
            Plugin::NodeAffinity => {
                let nodes = node_affinity::node_set(pod)?;
                let state = node_affinity::State::new(pod, profile, snapshot);
                return Ok(Prepared { filter: state.map(Self::NodeAffinity), nodes });
            }
            Plugin::NodePorts => node_ports::State::new(pod).map(Self::NodePorts),
            Plugin::NodeResourcesFit => {
                let serves = profile.filters.contains(&Plugin::DynamicResources);
                let classes = serves.then_some(snapshot);
                let state = node_resources_fit::State::new(pod, &profile.arguments, classes);
                Some(Self::NodeResourcesFit(state))
            }
            Plugin::VolumeRestrictions => {
                volume_restrictions::State::new(pod, snapshot)?.map(Self::VolumeRestrictions)
            }
            Plugin::NodeVolumeLimits => {
                node_volume_limits::State::new(pod, snapshot).map(Self::NodeVolumeLimits)
            }
            Plugin::VolumeBinding => {
                volume_binding::State::new(pod, snapshot)?.map(Self::VolumeBinding)
            }
            Plugin::VolumeZone => volume_zone::State::new(pod, snapshot)?.map(Self::VolumeZone),
            Plugin::PodTopologySpread => pod_topology_spread::State::new(pod, profile, snapshot)
                .map(|state| Self::PodTopologySpread(Box::new(state))),
            Plugin::InterPodAffinity => inter_pod_affinity::State::new(pod, snapshot)
                .map(|state| Self::InterPodAffinity(Box::new(state))),
            Plugin::DynamicResources => dynamic_resources::State::new(pod, snapshot)?
                .map(|state| Self::DynamicResources(Box::new(state))),
            Plugin::NodeDeclaredFeatures => {
                node_declared_features::State::new(pod).map(Self::NodeDeclaredFeatures)
            }
            // The others have no filter.
            _ => None,
        };
        Ok(filter.into())
    }

    /// The plugin, if all it reads are the pod's [`crate::Shape`], the profile, and the node: facts,
    /// and what its pods use together. Such answers are remembered.
    pub(crate) fn local(&self) -> Option<Plugin> {
        match self {
            Self::NodeUnschedulable(_)
            | Self::NodeName(_)
            | Self::TaintToleration(_)
            | Self::NodeAffinity(_)
            | Self::NodePorts(_)
            | Self::NodeDeclaredFeatures(_) => Some(self.plugin()),
            Self::NodeResourcesFit(state) => state.is_local().then(|| self.plugin()),
            _ => None,
        }
    }

    /// Whose filter it is.
    pub(crate) fn plugin(&self) -> Plugin {
        match self {
            Self::NodeUnschedulable(_) => Plugin::NodeUnschedulable,
            Self::NodeName(_) => Plugin::NodeName,
            Self::TaintToleration(_) => Plugin::TaintToleration,
            Self::NodeAffinity(_) => Plugin::NodeAffinity,
            Self::NodePorts(_) => Plugin::NodePorts,
            Self::NodeResourcesFit(_) => Plugin::NodeResourcesFit,
            Self::VolumeRestrictions(_) => Plugin::VolumeRestrictions,
            Self::NodeVolumeLimits(_) => Plugin::NodeVolumeLimits,
            Self::VolumeBinding(_) => Plugin::VolumeBinding,
            Self::VolumeZone(_) => Plugin::VolumeZone,
            Self::PodTopologySpread(_) => Plugin::PodTopologySpread,
            Self::InterPodAffinity(_) => Plugin::InterPodAffinity,
            Self::DynamicResources(_) => Plugin::DynamicResources,
            Self::NodeDeclaredFeatures(_) => Plugin::NodeDeclaredFeatures,
        }
    }

    /// Whether it looks through the list of the node's pods, and not only at what they use together.
    pub(crate) fn lists_pods(&self) -> bool {
        matches!(self, Self::VolumeRestrictions(_) | Self::NodeVolumeLimits(_))
    }

    /// Whether it looks at nothing but the node.
    pub(crate) fn is_local(&self) -> bool {
        self.local().is_some()
    }

    /// Whether the node is refused.
    #[inline]
    pub(crate) fn check(&self, index: NodeIndex, node: &NodeInfo) -> Option<Rejection> {
        match self {
            Self::NodeUnschedulable(state) => state.check(node),
            Self::NodeName(state) => state.check(node),
            Self::TaintToleration(state) => state.check(node),
            Self::NodeAffinity(state) => state.check(node),
            Self::NodePorts(state) => state.check(node),
            Self::NodeResourcesFit(state) => state.check(node),
            Self::VolumeRestrictions(state) => state.check(node),
            Self::NodeVolumeLimits(state) => state.check(index, node),
            Self::VolumeBinding(state) => state.check(node),
            Self::VolumeZone(state) => state.check(node),
            Self::PodTopologySpread(state) => state.check(index),
            Self::InterPodAffinity(state) => state.check(index),
            Self::DynamicResources(state) => state.check(node),
            Self::NodeDeclaredFeatures(state) => state.check(node),
        }
    }

    /// Tells a filter that counts pods beyond one node that a trial has put a pod on a node. The
    /// node itself already counts it.
    pub(crate) fn pod_added(&mut self, pod: &PodInfo, index: NodeIndex, _node: &NodeInfo) {
        if let Self::VolumeRestrictions(state) = self {
            state.pod_added(pod);
        }
        self.pod_changed(pod, index, 1);
    }

    /// The same when a trial has taken a pod off a node.
    pub(crate) fn pod_removed(&mut self, pod: &PodInfo, index: NodeIndex, _node: &NodeInfo) {
        if let Self::VolumeRestrictions(state) = self {
            state.pod_removed(pod);
        }
        self.pod_changed(pod, index, -1);
    }

    /// Takes back all that a trial has changed, which began with `before`.
    pub(crate) fn undo(&mut self, before: &Self) {
        match (self, before) {
            (Self::VolumeRestrictions(state), Self::VolumeRestrictions(before)) => {
                state.clone_from(before);
            }
            (Self::NodeVolumeLimits(state), _) => state.undo(),
            (Self::PodTopologySpread(state), Self::PodTopologySpread(before)) => state.undo(before),
            (Self::InterPodAffinity(state), _) => state.undo(),
            // The others look no further than the node.
            _ => {}
        }
    }

    fn pod_changed(&mut self, pod: &PodInfo, index: NodeIndex, by: i64) {
        match self {
            Self::NodeVolumeLimits(state) => state.node_changed(index),
            Self::PodTopologySpread(state) => state.pod_changed(pod, index, by),
            Self::InterPodAffinity(state) => state.pod_changed(pod, index, by),
            // The others look no further than the node.
            _ => {}
        }
    }
}

/// A scorer prepared for one pod and the nodes that passed the filters.
pub(crate) enum Scorer<'a> {
    TaintToleration(taint_toleration::State<'a>),
    NodeAffinity(node_affinity::State<'a>),
    NodeResourcesFit(node_resources_fit::Scores<'a>),
    BalancedAllocation(balanced_allocation::State<'a>),
    PodTopologySpread(Box<pod_topology_spread::Scores<'a>>),
    InterPodAffinity(Box<inter_pod_affinity::Scores<'a>>),
    ImageLocality(image_locality::State<'a>),
    DynamicResources(Box<dynamic_resources::Scores<'a>>),
}

impl<'a> Scorer<'a> {
    /// Prepares a plugin's scorer; `None` if it has nothing to say of this pod.
    pub(crate) fn prepare(
        plugin: Plugin,
        pod: &'a PodInfo,
        profile: &'a Profile,
        snapshot: &'a Snapshot,
        feasible: &[NodeIndex],
    ) -> Option<Self> {
        match plugin {
            Plugin::TaintToleration => {
                Some(Self::TaintToleration(taint_toleration::State::new(pod)))
            }
            Plugin::NodeAffinity => {
                node_affinity::State::for_scores(pod, profile, snapshot).map(Self::NodeAffinity)
            }
            Plugin::NodeResourcesFit => {
                let scores = node_resources_fit::Scores::new(pod, &profile.fit, snapshot);
                Some(Self::NodeResourcesFit(scores))
            }
            Plugin::NodeResourcesBalancedAllocation => {
                balanced_allocation::State::new(pod, &profile.balanced, snapshot)
                    .map(Self::BalancedAllocation)
            }
            Plugin::PodTopologySpread => {
                pod_topology_spread::Scores::new(pod, profile, snapshot, feasible)
                    .map(|scores| Self::PodTopologySpread(Box::new(scores)))
            }
            Plugin::InterPodAffinity => inter_pod_affinity::Scores::new(pod, profile, snapshot)
                .map(|scores| Self::InterPodAffinity(Box::new(scores))),
            Plugin::ImageLocality => {
                Some(Self::ImageLocality(image_locality::State::new(pod, snapshot)))
            }
            Plugin::DynamicResources => dynamic_resources::Scores::new(pod, snapshot)
                .map(|scores| Self::DynamicResources(Box::new(scores))),
            _ => None,
        }
    }

    /// Whether all that a plugin takes from a node for the scores of a pod is told by the pod's
    /// [`crate::Shape`], the profile and the node alone. That is remembered.
    pub(crate) fn is_local(plugin: Plugin, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        match plugin {
            Plugin::TaintToleration | Plugin::NodeAffinity => true,
            // How many devices are taken is not told by the node.
            Plugin::NodeResourcesFit | Plugin::NodeResourcesBalancedAllocation => {
                !snapshot.devices.stand_for(pod)
            }
            Plugin::ImageLocality => image_locality::is_tabulated(pod),
            _ => false,
        }
    }

    /// What is remembered of a node: with upstream's rule for all the nodes together it makes the
    /// score.
    pub(crate) fn remembered(&self, index: NodeIndex, node: &NodeInfo) -> i64 {
        match self {
            Self::ImageLocality(state) => state.held(node),
            _ => self.score(index, node),
        }
    }

    /// How what is remembered becomes a score.
    pub(crate) fn scale(&self, remembered: impl Iterator<Item = i64>) -> Scale {
        match self {
            Self::ImageLocality(state) => Scale::Table(state.by_held()),
            _ => self.scaling().among(remembered),
        }
    }

    /// Whether what is remembered is the score already.
    pub(crate) fn remembers_scores(&self) -> bool {
        !matches!(self, Self::ImageLocality(_)) && self.scaling() == Scaling::None
    }

    /// How a local scorer's raw scores are brought to one scale.
    pub(crate) fn scaling(&self) -> Scaling {
        match self {
            Self::TaintToleration(_) => Scaling::HighestReversed,
            Self::NodeAffinity(_) | Self::DynamicResources(_) => Scaling::Highest,
            // Some of these have rules of their own.
            _ => Scaling::None,
        }
    }

    /// The score of a node before normalisation.
    #[inline]
    pub(crate) fn score(&self, index: NodeIndex, node: &NodeInfo) -> i64 {
        match self {
            Self::TaintToleration(state) => state.score(node),
            Self::NodeAffinity(state) => state.score(node),
            Self::NodeResourcesFit(state) => state.score(node),
            Self::BalancedAllocation(state) => state.score(node),
            Self::PodTopologySpread(state) => state.score(index, node),
            Self::InterPodAffinity(state) => state.score(index),
            Self::ImageLocality(state) => state.score(node),
            Self::DynamicResources(state) => state.score(node),
        }
    }

    /// Brings the raw scores of all feasible nodes into 0 to [`MAX_SCORE`].
    pub(crate) fn normalize(&self, scores: &mut [i64]) {
        match self {
            Self::PodTopologySpread(_) => pod_topology_spread::normalize(scores),
            Self::InterPodAffinity(_) => inter_pod_affinity::normalize(scores),
            _ => normalize(scores, self.scaling()),
        }
    }
}

/// Brings raw scores to one scale.
pub(crate) fn normalize(scores: &mut [i64], scaling: Scaling) {
    let scale = scaling.among(scores.iter().copied());
    for score in scores {
        *score = scale.apply(*score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Scaling::{Highest, HighestReversed};

    #[test]
    fn normalisation_follows_the_vectors() {
        for (raw, scaling, expected) in [
            ([0, 1, 3], HighestReversed, [100, 67, 0]),
            ([0, 10, 30], Highest, [0, 33, 100]),
            ([0, 0, 0], HighestReversed, [100, 100, 100]),
            ([0, 0, 0], Highest, [0, 0, 0]),
        ] {
            let mut scores = raw;
            normalize(&mut scores, scaling);
            assert_eq!(scores, expected, "{raw:?}");
        }
    }
}
