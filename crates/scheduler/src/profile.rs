//! A scheduling profile: which plugins take part, with which weights and arguments.

use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{NodeAffinity, Pod, TopologySpreadConstraint};
use wharf_model::resources::{CPU, MEMORY};

/// The scheduling plugins, in upstream's order of registration, which is the order of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Plugin {
    /// Keeps pods with gates out of the queue.
    SchedulingGates,
    /// Orders the queue: higher priority first, then longer waiting.
    PrioritySort,
    /// Keeps pods off cordoned nodes.
    NodeUnschedulable,
    /// Heeds `spec.nodeName`.
    NodeName,
    /// Heeds taints.
    TaintToleration,
    /// Heeds node selectors and node affinity.
    NodeAffinity,
    /// Heeds host ports.
    NodePorts,
    /// Heeds resources.
    NodeResourcesFit,
    /// Heeds disks and claims that only one may use.
    VolumeRestrictions,
    /// Heeds how many volumes a node can attach.
    NodeVolumeLimits,
    /// Finds volumes for claims, or places where they can be made.
    VolumeBinding,
    /// Heeds the zones of volumes.
    VolumeZone,
    /// Spreads pods over domains.
    PodTopologySpread,
    /// Heeds what pods want of each other.
    InterPodAffinity,
    /// Allocates devices for resource claims.
    DynamicResources,
    /// Makes room by evicting pods of lower priority.
    DefaultPreemption,
    /// Likes cpu and memory used evenly.
    NodeResourcesBalancedAllocation,
    /// Likes nodes that have the images.
    ImageLocality,
    /// Binds pods to nodes.
    DefaultBinder,
    /// Heeds the features a pod needs of its node.
    NodeDeclaredFeatures,
    /// Holds the pods of a group until enough of them have a place.
    GangScheduling,
    /// Not a plugin: an HTTP extender, which upstream names so where it names plugins.
    Extender,
}

/// How many plugins there are.
pub const PLUGINS: usize = Plugin::Extender as usize + 1;

impl Plugin {
    /// Every plugin, in its order.
    pub const ALL: [Self; 21] = [
        Self::SchedulingGates,
        Self::PrioritySort,
        Self::NodeUnschedulable,
        Self::NodeName,
        Self::TaintToleration,
        Self::NodeAffinity,
        Self::NodePorts,
        Self::NodeResourcesFit,
        Self::VolumeRestrictions,
        Self::NodeVolumeLimits,
        Self::VolumeBinding,
        Self::VolumeZone,
        Self::PodTopologySpread,
        Self::InterPodAffinity,
        Self::DynamicResources,
        Self::DefaultPreemption,
        Self::NodeResourcesBalancedAllocation,
        Self::ImageLocality,
        Self::DefaultBinder,
        Self::NodeDeclaredFeatures,
        Self::GangScheduling,
    ];

    /// Those that filter nodes, in the order of upstream's default profile.
    pub const FILTERS: [Self; 14] = [
        Self::NodeUnschedulable,
        Self::NodeName,
        Self::TaintToleration,
        Self::NodeAffinity,
        Self::NodePorts,
        Self::NodeResourcesFit,
        Self::VolumeRestrictions,
        Self::NodeVolumeLimits,
        Self::VolumeBinding,
        Self::VolumeZone,
        Self::PodTopologySpread,
        Self::InterPodAffinity,
        Self::DynamicResources,
        Self::NodeDeclaredFeatures,
    ];

    /// Upstream's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SchedulingGates => "SchedulingGates",
            Self::PrioritySort => "PrioritySort",
            Self::NodeUnschedulable => "NodeUnschedulable",
            Self::NodeName => "NodeName",
            Self::TaintToleration => "TaintToleration",
            Self::NodeAffinity => "NodeAffinity",
            Self::NodePorts => "NodePorts",
            Self::NodeResourcesFit => "NodeResourcesFit",
            Self::VolumeRestrictions => "VolumeRestrictions",
            Self::NodeVolumeLimits => "NodeVolumeLimits",
            Self::VolumeBinding => "VolumeBinding",
            Self::VolumeZone => "VolumeZone",
            Self::PodTopologySpread => "PodTopologySpread",
            Self::InterPodAffinity => "InterPodAffinity",
            Self::DynamicResources => "DynamicResources",
            Self::DefaultPreemption => "DefaultPreemption",
            Self::NodeResourcesBalancedAllocation => "NodeResourcesBalancedAllocation",
            Self::ImageLocality => "ImageLocality",
            Self::DefaultBinder => "DefaultBinder",
            Self::NodeDeclaredFeatures => "NodeDeclaredFeatures",
            Self::GangScheduling => "GangScheduling",
            Self::Extender => "Extender",
        }
    }

    /// The plugin of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plugin| plugin.name() == name)
    }
}

/// A set of plugins, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PluginSet(u32);

impl PluginSet {
    /// Adds one.
    pub fn insert(&mut self, plugin: Plugin) {
        self.0 |= 1 << plugin as u8;
    }

    /// Takes one out.
    pub fn remove(&mut self, plugin: Plugin) {
        self.0 &= !(1 << plugin as u8);
    }

    /// Whether it is in.
    pub fn contains(self, plugin: Plugin) -> bool {
        self.0 & (1 << plugin as u8) != 0
    }

    /// Those that are in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether none is in.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are in, in their order.
    pub fn iter(self) -> impl Iterator<Item = Plugin> {
        Plugin::ALL
            .into_iter()
            .chain([Plugin::Extender])
            .filter(move |plugin| self.contains(*plugin))
    }

    /// The set as bits, one for each plugin.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The set with these bits.
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl From<Plugin> for PluginSet {
    fn from(plugin: Plugin) -> Self {
        Self(1 << plugin as u8)
    }
}

impl FromIterator<Plugin> for PluginSet {
    fn from_iter<I: IntoIterator<Item = Plugin>>(plugins: I) -> Self {
        let mut set = Self::default();
        plugins.into_iter().for_each(|plugin| set.insert(plugin));
        set
    }
}

/// One scheduling profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Pods with this `spec.schedulerName` are its own.
    pub scheduler_name: CompactString,
    /// Who may keep a pod out of the queue.
    pub pre_enqueue: PluginSet,
    /// Filters in their order.
    pub filters: Vec<Plugin>,
    /// Scorers with their weights.
    pub scores: Vec<(Plugin, i64)>,
    /// Whether pods of lower priority may be evicted to make room.
    pub preemption: bool,
    /// Whether the answer to a pod that no node takes tells of its resource claims, as
    /// DynamicResources does after filtering.
    pub tells_of_claims: bool,
    /// Who sets something aside for a pod that has a node, in their order.
    pub reserve: Vec<Plugin>,
    /// Who may have such a pod wait.
    pub permit: Vec<Plugin>,
    /// Who has work to do before it is bound.
    pub pre_bind: Vec<Plugin>,
    /// How many of the nodes to look at, in percent; 0 adapts to the size of the cluster.
    pub percentage_of_nodes_to_score: u32,
    /// How NodeResourcesFit scores.
    pub fit: FitStrategy,
    /// The resources NodeResourcesBalancedAllocation balances.
    pub balanced: Vec<CompactString>,
    /// A node affinity every pod of the profile has besides its own.
    pub added_affinity_spec: Option<Box<NodeAffinity>>,
    /// The same, compiled against one snapshot by [`crate::Snapshot::compile_profile`].
    pub added_affinity: Option<Box<crate::pod::NodeAffinity>>,
    /// The fewest candidates that preemption tries to find, in percent of the nodes where it may
    /// help.
    pub min_candidate_nodes_percentage: usize,
    /// The same as a number; the larger of the two counts.
    pub min_candidate_nodes_absolute: usize,
    /// The arguments of the other plugins.
    pub arguments: PluginArguments,
}

/// Arguments of plugins that each only one of them reads.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginArguments {
    /// Extended resources that NodeResourcesFit leaves alone.
    pub ignored_resources: Vec<CompactString>,
    /// Groups of them: what comes before the slash.
    pub ignored_resource_groups: Vec<CompactString>,
    /// How pods without constraints of their own are spread.
    pub spread_defaults: SpreadDefaults,
    /// What required pod affinity of running pods counts in the score of one they want.
    pub hard_pod_affinity_weight: i64,
    /// Whether InterPodAffinity scores a pod without preferences by those of running pods.
    pub ignore_preferred_terms_of_existing_pods: bool,
    /// How long a pod waits for its volumes before its binding.
    pub volume_bind_timeout: Duration,
    /// How long the search for devices may take on one node. The search is bounded by its steps
    /// here, so that it always ends the same.
    pub device_filter_timeout: Duration,
    /// How long a pod waits for its devices before its binding.
    pub device_binding_timeout: Duration,
}

impl PluginArguments {
    /// Whether NodeResourcesFit leaves any resource alone.
    pub fn ignores_resources(&self) -> bool {
        !self.ignored_resources.is_empty() || !self.ignored_resource_groups.is_empty()
    }

    /// Whether NodeResourcesFit leaves an extended resource alone.
    pub(crate) fn ignores(&self, resource: &str) -> bool {
        let group = resource.split_once('/').map(|(group, _)| group);
        // Resources of Kubernetes itself are never left alone.
        group.is_some_and(|group| {
            group != "kubernetes.io"
                && !group.ends_with(".kubernetes.io")
                && (self.ignored_resources.iter().any(|name| name == resource)
                    || self.ignored_resource_groups.iter().any(|known| known == group))
        })
    }
}

/// The topology spread constraints of pods that have none.
#[derive(Clone, Debug, PartialEq)]
pub enum SpreadDefaults {
    /// The built-in ones: hosts with a skew of 3, zones with one of 5, both preferred.
    System,
    /// These.
    List(Vec<TopologySpreadConstraint>),
}

impl Default for PluginArguments {
    fn default() -> Self {
        Self {
            ignored_resources: Vec::new(),
            ignored_resource_groups: Vec::new(),
            spread_defaults: SpreadDefaults::System,
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
            volume_bind_timeout: Duration::from_secs(600),
            device_filter_timeout: Duration::from_secs(10),
            device_binding_timeout: Duration::from_secs(600),
        }
    }
}

/// How NodeResourcesFit scores a node.
#[derive(Clone, Debug, PartialEq)]
pub struct FitStrategy {
    /// The rule.
    pub rule: FitRule,
    /// The resources with their weights.
    pub resources: Vec<(CompactString, i64)>,
}

/// The rule by which NodeResourcesFit scores one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FitRule {
    /// The freer the better.
    LeastAllocated,
    /// The fuller the better.
    MostAllocated,
    /// A piecewise linear function: utilisation in percent, ascending, and score from 0 to 10.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

impl Default for FitStrategy {
    fn default() -> Self {
        Self { rule: FitRule::LeastAllocated, resources: vec![(CPU.into(), 1), (MEMORY.into(), 1)] }
    }
}

impl Default for Profile {
    /// Upstream's default profile.
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".into(),
            pre_enqueue: [
                Plugin::SchedulingGates,
                Plugin::DynamicResources,
                Plugin::DefaultPreemption,
            ]
            .into_iter()
            .collect(),
            filters: Plugin::FILTERS.to_vec(),
            scores: vec![
                (Plugin::TaintToleration, 3),
                (Plugin::NodeAffinity, 2),
                (Plugin::NodeResourcesFit, 1),
                (Plugin::VolumeBinding, 1),
                (Plugin::PodTopologySpread, 2),
                (Plugin::InterPodAffinity, 2),
                (Plugin::DynamicResources, 2),
                (Plugin::NodeResourcesBalancedAllocation, 1),
                (Plugin::ImageLocality, 1),
            ],
            preemption: true,
            tells_of_claims: true,
            reserve: vec![Plugin::VolumeBinding, Plugin::DynamicResources],
            permit: Vec::new(),
            pre_bind: vec![Plugin::VolumeBinding, Plugin::DynamicResources],
            percentage_of_nodes_to_score: 0,
            fit: FitStrategy::default(),
            balanced: vec![CPU.into(), MEMORY.into()],
            added_affinity_spec: None,
            added_affinity: None,
            min_candidate_nodes_percentage: 10,
            min_candidate_nodes_absolute: 100,
            arguments: PluginArguments::default(),
        }
    }
}

impl Profile {
    /// Whether a pod is this profile's to schedule.
    pub fn is_for(&self, pod: &Pod) -> bool {
        let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        // The API fills the name in; a pod without one is the default scheduler's.
        name.unwrap_or("default-scheduler") == self.scheduler_name
    }
}
