//! Which plugins take part at which extension point: a profile's lists merged with the default
//! ones, and `multiPoint` spread over the points.
//!
//! The rules are upstream's. What a profile enables at `multiPoint` takes the place of the default
//! entry of the same name, or comes after all of them. A point's own list comes on top: a plugin
//! that it enables, though `multiPoint` has it already, comes first and with the point's weight;
//! others come last; `disabled` takes away what `multiPoint` brings, `*` all of it.

use super::field::{Field, Wrong};
use crate::profile::{Plugin, PluginSet};

/// Where plugins take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

impl Point {
    const ALL: [Self; 12] = [
        Self::PreEnqueue,
        Self::QueueSort,
        Self::PreFilter,
        Self::Filter,
        Self::PostFilter,
        Self::PreScore,
        Self::Score,
        Self::Reserve,
        Self::Permit,
        Self::PreBind,
        Self::Bind,
        Self::PostBind,
    ];

    /// The field's name.
    fn name(self) -> &'static str {
        match self {
            Self::PreEnqueue => "preEnqueue",
            Self::QueueSort => "queueSort",
            Self::PreFilter => "preFilter",
            Self::Filter => "filter",
            Self::PostFilter => "postFilter",
            Self::PreScore => "preScore",
            Self::Score => "score",
            Self::Reserve => "reserve",
            Self::Permit => "permit",
            Self::PreBind => "preBind",
            Self::Bind => "bind",
            Self::PostBind => "postBind",
        }
    }

    /// Whether a plugin has anything to do here.
    fn has(self, plugin: Plugin) -> bool {
        use Plugin as P;
        match self {
            Self::PreEnqueue => matches!(
                plugin,
                P::SchedulingGates | P::DynamicResources | P::DefaultPreemption | P::GangScheduling
            ),
            Self::QueueSort => plugin == P::PrioritySort,
            Self::PreFilter => {
                Self::Filter.has(plugin)
                    && !matches!(plugin, P::NodeUnschedulable | P::NodeName | P::TaintToleration)
            }
            Self::Filter => Plugin::FILTERS.contains(&plugin),
            Self::PostFilter => matches!(plugin, P::DynamicResources | P::DefaultPreemption),
            Self::PreScore => {
                Self::Score.has(plugin) && !matches!(plugin, P::ImageLocality | P::DynamicResources)
            }
            Self::Score => default_weight(plugin).is_some(),
            Self::Reserve | Self::PreBind => {
                matches!(plugin, P::VolumeBinding | P::DynamicResources)
            }
            Self::Permit => plugin == P::GangScheduling,
            Self::Bind => plugin == P::DefaultBinder,
            Self::PostBind => false,
        }
    }
}

/// What a scorer counts by default; `None` if the plugin does not score.
fn default_weight(plugin: Plugin) -> Option<i64> {
    match plugin {
        Plugin::TaintToleration => Some(3),
        Plugin::NodeAffinity
        | Plugin::PodTopologySpread
        | Plugin::InterPodAffinity
        | Plugin::DynamicResources => Some(2),
        Plugin::NodeResourcesFit
        | Plugin::VolumeBinding
        | Plugin::NodeResourcesBalancedAllocation
        | Plugin::ImageLocality => Some(1),
        _ => None,
    }
}

/// The plugins of a profile, point by point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plugins {
    points: Vec<(Point, Vec<Entry>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    plugin: Plugin,
    weight: Option<i64>,
}

/// A list of a profile: what it adds and what it takes away.
#[derive(Clone, Debug, Default)]
struct Set {
    enabled: Vec<Entry>,
    disabled: Vec<Plugin>,
    /// `*` is among the disabled.
    none: bool,
}

impl Plugins {
    /// The default profile's.
    pub(super) fn defaults() -> Self {
        Self::spread(&default_entries(), &[])
    }

    /// Reads `plugins` of a profile.
    pub(super) fn read(field: &Field<'_>) -> Result<Self, Wrong> {
        let mut known: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        known.push("multiPoint");
        let field = field.only(&known)?;
        let everywhere = Set::read(&field, "multiPoint", None)?;
        let mut own = Vec::new();
        for point in Point::ALL {
            own.push((point, Set::read(&field, point.name(), Some(point))?));
        }
        let plugins = Self::spread(&merge(&default_entries(), &everywhere), &own);
        plugins.check(&field)?;
        Ok(plugins)
    }

    fn spread(everywhere: &[Entry], own: &[(Point, Set)]) -> Self {
        let nothing = Set::default();
        let points = Point::ALL.into_iter().map(|point| {
            let own = own.iter().find(|(of, _)| *of == point).map_or(&nothing, |(_, set)| set);
            let at_point = |plugin: Plugin| own.enabled.iter().any(|entry| entry.plugin == plugin);
            let (mut spread, mut replaced) = (Vec::new(), PluginSet::default());
            for entry in everywhere.iter().filter(|entry| point.has(entry.plugin)) {
                if own.none || own.disabled.contains(&entry.plugin) {
                    continue;
                }
                if at_point(entry.plugin) {
                    replaced.insert(entry.plugin);
                } else {
                    spread.push(*entry);
                }
            }
            let first = own.enabled.iter().filter(|entry| replaced.contains(entry.plugin));
            let last = own.enabled.iter().filter(|entry| !replaced.contains(entry.plugin));
            (point, first.chain(&spread).chain(last).copied().collect())
        });
        Self { points: points.collect() }
    }

    /// What no scheduler can do without.
    fn check(&self, field: &Field<'_>) -> Result<(), Wrong> {
        if self.at(Point::QueueSort).count() != 1 {
            return Err(field
                .wrong_at("queueSort", "one plugin has to sort the queue; enable PrioritySort"));
        }
        if self.at(Point::Bind).count() == 0 {
            return Err(
                field.wrong_at("bind", "at least one plugin has to bind; enable DefaultBinder")
            );
        }
        for (before, after) in [(Point::PreFilter, Point::Filter), (Point::PreScore, Point::Score)]
        {
            let prepared = self.set(before);
            let missing = self
                .at(after)
                .find(|entry| before.has(entry.plugin) && !prepared.contains(entry.plugin));
            if let Some(entry) = missing {
                return Err(field.wrong_at(
                    before.name(),
                    format!(
                        "{} is enabled at {} and needs what it does here; disable it there too",
                        entry.plugin.name(),
                        after.name()
                    ),
                ));
            }
        }
        let total = self.scores().iter().try_fold(0_i64, |sum, (_, weight)| {
            sum.checked_add(weight * crate::plugins::MAX_SCORE)
        });
        match total {
            Some(total) if total <= i64::from(i32::MAX) * crate::plugins::MAX_SCORE => Ok(()),
            _ => Err(field.wrong_at("score", "the sum of the weights is too large")),
        }
    }

    fn at(&self, point: Point) -> impl Iterator<Item = &Entry> {
        self.points.iter().filter(move |(of, _)| *of == point).flat_map(|(_, entries)| entries)
    }

    /// The plugins of a point in their order.
    pub(super) fn list(&self, point: Point) -> Vec<Plugin> {
        self.at(point).map(|entry| entry.plugin).collect()
    }

    /// The plugins of a point as a set.
    pub(super) fn set(&self, point: Point) -> PluginSet {
        let mut set = PluginSet::default();
        self.at(point).for_each(|entry| set.insert(entry.plugin));
        set
    }

    /// The scorers with their weights.
    pub(super) fn scores(&self) -> Vec<(Plugin, i64)> {
        // A weight of 0 means the same as none: 1.
        self.at(Point::Score)
            .map(|entry| (entry.plugin, entry.weight.filter(|weight| *weight != 0).unwrap_or(1)))
            .collect()
    }
}

/// What is enabled everywhere by default, in its order.
fn default_entries() -> Vec<Entry> {
    Plugin::ALL
        .into_iter()
        .filter(|plugin| *plugin != Plugin::GangScheduling)
        .map(|plugin| Entry { plugin, weight: default_weight(plugin) })
        .collect()
}

fn merge(defaults: &[Entry], custom: &Set) -> Vec<Entry> {
    let mut merged = Vec::new();
    let mut replaced = PluginSet::default();
    if !custom.none {
        for default in defaults {
            if custom.disabled.contains(&default.plugin) {
                continue;
            }
            let own = custom.enabled.iter().find(|entry| entry.plugin == default.plugin);
            if own.is_some() {
                replaced.insert(default.plugin);
            }
            merged.push(*own.unwrap_or(default));
        }
    }
    merged.extend(custom.enabled.iter().filter(|entry| !replaced.contains(entry.plugin)));
    merged
}

impl Set {
    fn read(plugins: &Field<'_>, name: &str, point: Option<Point>) -> Result<Self, Wrong> {
        let Some(field) = plugins.get(name) else { return Ok(Self::default()) };
        let field = field.only(&["enabled", "disabled"])?;
        let mut set = Self::default();
        for item in field.items("enabled")? {
            let item = item.only(&["name", "weight"])?;
            let plugin = plugin(&item)?;
            if let Some(point) = point
                && !point.has(plugin)
            {
                let those: Vec<_> = Plugin::ALL.into_iter().filter(|p| point.has(*p)).collect();
                return Err(item.wrong_at(
                    "name",
                    format!("{} has no part in {name}; {}", plugin.name(), has_part(&those)),
                ));
            }
            if set.enabled.iter().any(|entry| entry.plugin == plugin) {
                return Err(
                    item.wrong_at("name", format!("{} is enabled here twice", plugin.name()))
                );
            }
            let weight = item.number("weight", 0..=i64::from(i32::MAX))?;
            set.enabled.push(Entry { plugin, weight });
        }
        for item in field.items("disabled")? {
            let item = item.only(&["name", "weight"])?;
            if item.required_text("name")? == "*" {
                set.none = true;
                continue;
            }
            set.disabled.push(plugin(&item)?);
        }
        Ok(set)
    }
}

fn has_part(plugins: &[Plugin]) -> String {
    match plugins {
        [] => "none has".to_owned(),
        some => {
            format!("those that have are {}", names(some))
        }
    }
}

fn plugin(item: &Field<'_>) -> Result<Plugin, Wrong> {
    let name = item.required_text("name")?;
    Plugin::named(name).ok_or_else(|| {
        let known = names(&Plugin::ALL);
        item.wrong_at("name", format!("unknown plugin {name:?}; the plugins are {known}"))
    })
}

/// Names of plugins for a message.
pub(super) fn names(plugins: &[Plugin]) -> String {
    let names: Vec<_> = plugins.iter().map(|plugin| plugin.name()).collect();
    names.join(", ")
}
