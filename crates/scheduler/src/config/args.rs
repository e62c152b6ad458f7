//! `pluginConfig`: the arguments of the default plugins, with upstream's defaults and validation.

use compact_str::CompactString;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use wharf_model::names::{label_value, qualified_name};
use wharf_model::resources::{CPU, MEMORY};

use super::affinity;
use super::field::{Field, Wrong};
use super::{API_VERSION, GROUP};
use crate::profile::{FitRule, FitStrategy, Plugin, PluginArguments, Profile, SpreadDefaults};

/// The plugins that take arguments.
const TAKE_ARGS: [Plugin; 8] = [
    Plugin::NodeAffinity,
    Plugin::NodeResourcesFit,
    Plugin::NodeResourcesBalancedAllocation,
    Plugin::PodTopologySpread,
    Plugin::InterPodAffinity,
    Plugin::VolumeBinding,
    Plugin::DefaultPreemption,
    Plugin::DynamicResources,
];

/// Reads `pluginConfig` of a profile into it.
pub(super) fn read(profile_field: &Field<'_>, profile: &mut Profile) -> Result<(), Wrong> {
    let mut seen = Vec::new();
    for item in profile_field.items("pluginConfig")? {
        let item = item.only(&["name", "args"])?;
        let name = item.required_text("name")?;
        let Some(plugin) = TAKE_ARGS.into_iter().find(|plugin| plugin.name() == name) else {
            let known = super::plugins::names(&TAKE_ARGS);
            let what = match Plugin::named(name) {
                Some(_) => format!("{name} takes no arguments"),
                None => format!("unknown plugin {name:?}"),
            };
            return Err(item.wrong_at("name", format!("{what}; those that do are {known}")));
        };
        if seen.contains(&plugin) {
            return Err(item.wrong_at("name", format!("{name} is configured twice")));
        }
        seen.push(plugin);
        let Some(args) = item.get("args") else { continue };
        let read = Args { plugin, field: args };
        match plugin {
            Plugin::NodeAffinity => read.node_affinity(profile)?,
            Plugin::NodeResourcesFit => read.fit(profile)?,
            Plugin::NodeResourcesBalancedAllocation => read.balanced(profile)?,
            Plugin::PodTopologySpread => read.spread(profile)?,
            Plugin::InterPodAffinity => read.pod_affinity(&mut profile.arguments)?,
            Plugin::VolumeBinding => read.volumes(&mut profile.arguments)?,
            Plugin::DefaultPreemption => read.preemption(profile)?,
            _ => read.devices(&mut profile.arguments)?,
        }
    }
    Ok(())
}

struct Args<'a> {
    plugin: Plugin,
    field: Field<'a>,
}

impl<'a> Args<'a> {
    /// The arguments, which have no other fields than these and are of the plugin's own kind, if
    /// they name one.
    fn only(&self, known: &[&str]) -> Result<Field<'a>, Wrong> {
        let mut all = vec!["apiVersion", "kind"];
        all.extend(known);
        let field = self.field.only(&all)?;
        let kind = format!("{}Args", self.plugin.name());
        if field.text_at("kind")?.is_some_and(|given| given != kind) {
            return Err(field.wrong_at("kind", format!("the arguments here are of kind {kind}")));
        }
        if field.text_at("apiVersion")?.is_some_and(|given| given != API_VERSION) {
            return Err(field.wrong_at("apiVersion", format!("write {GROUP}/v1 or leave it out")));
        }
        Ok(field)
    }

    fn node_affinity(&self, profile: &mut Profile) -> Result<(), Wrong> {
        let field = self.only(&["addedAffinity"])?;
        if let Some(added) = field.get("addedAffinity") {
            profile.added_affinity_spec = Some(Box::new(affinity::read(&added)?));
        }
        Ok(())
    }

    fn fit(&self, profile: &mut Profile) -> Result<(), Wrong> {
        let field = self.only(&["ignoredResources", "ignoredResourceGroups", "scoringStrategy"])?;
        for item in field.items("ignoredResources")? {
            let name = item.text()?;
            if let Some(error) = qualified_name(name).first() {
                return Err(item.wrong(format!("{name:?} is no resource name: {error}")));
            }
            profile.arguments.ignored_resources.push(name.into());
        }
        for item in field.items("ignoredResourceGroups")? {
            let name = item.text()?;
            if name.contains('/') {
                return Err(item.wrong(format!(
                    "a group is what comes before the slash of a resource; write {:?}",
                    name.split('/').next().unwrap_or_default()
                )));
            }
            if let Some(error) = qualified_name(name).first() {
                return Err(item.wrong(format!("{name:?} is no resource group: {error}")));
            }
            profile.arguments.ignored_resource_groups.push(name.into());
        }
        if let Some(strategy) = field.get("scoringStrategy") {
            profile.fit = self.strategy(&strategy)?;
        }
        Ok(())
    }

    fn strategy(&self, field: &Field<'_>) -> Result<FitStrategy, Wrong> {
        let field = field.only(&["type", "resources", "requestedToCapacityRatio"])?;
        let rule = match field.text_at("type")?.unwrap_or("LeastAllocated") {
            "LeastAllocated" => FitRule::LeastAllocated,
            "MostAllocated" => FitRule::MostAllocated,
            "RequestedToCapacityRatio" => {
                let Some(ratio) = field.get("requestedToCapacityRatio") else {
                    return Err(field.wrong_at(
                        "requestedToCapacityRatio",
                        "is required for type RequestedToCapacityRatio",
                    ));
                };
                let ratio = ratio.only(&["shape"])?;
                FitRule::RequestedToCapacityRatio(shape(&ratio)?)
            }
            other => {
                return Err(field.wrong_at(
                    "type",
                    format!(
                        "unknown type {other:?}; use LeastAllocated, MostAllocated or RequestedToCapacityRatio"
                    ),
                ));
            }
        };
        let resources = resources(&field, 1..=100)?;
        Ok(FitStrategy { rule, resources })
    }

    fn balanced(&self, profile: &mut Profile) -> Result<(), Wrong> {
        let field = self.only(&["resources"])?;
        // The balance has no weights: upstream takes none but 1.
        let resources = resources(&field, 1..=1)?;
        profile.balanced = resources.into_iter().map(|(name, _)| name).collect();
        Ok(())
    }

    fn spread(&self, profile: &mut Profile) -> Result<(), Wrong> {
        let field = self.only(&["defaultConstraints", "defaultingType"])?;
        let constraints = field.items("defaultConstraints")?;
        let kind = field.text_at("defaultingType")?.unwrap_or("System");
        let mut read = Vec::with_capacity(constraints.len());
        for constraint in &constraints {
            let one = spread_constraint(constraint)?;
            let same = |other: &TopologySpreadConstraint| {
                other.topology_key == one.topology_key
                    && other.when_unsatisfiable == one.when_unsatisfiable
            };
            if read.iter().any(same) {
                return Err(constraint.wrong(format!(
                    "topologyKey {:?} with whenUnsatisfiable {} is there twice",
                    one.topology_key, one.when_unsatisfiable
                )));
            }
            read.push(one);
        }
        profile.arguments.spread_defaults = match kind {
            "System" if read.is_empty() => SpreadDefaults::System,
            "System" => {
                return Err(field.wrong_at(
                    "defaultingType",
                    "has to be List when there are defaultConstraints",
                ));
            }
            "List" => SpreadDefaults::List(read),
            other => {
                return Err(field.wrong_at(
                    "defaultingType",
                    format!("unknown type {other:?}; use System or List"),
                ));
            }
        };
        Ok(())
    }

    fn pod_affinity(&self, arguments: &mut PluginArguments) -> Result<(), Wrong> {
        let field = self.only(&["hardPodAffinityWeight", "ignorePreferredTermsOfExistingPods"])?;
        if let Some(weight) = field.number("hardPodAffinityWeight", 0..=100)? {
            arguments.hard_pod_affinity_weight = weight;
        }
        if let Some(ignore) = field.flag("ignorePreferredTermsOfExistingPods")? {
            arguments.ignore_preferred_terms_of_existing_pods = ignore;
        }
        Ok(())
    }

    fn volumes(&self, arguments: &mut PluginArguments) -> Result<(), Wrong> {
        let field = self.only(&["bindTimeoutSeconds", "shape"])?;
        if let Some(seconds) = field.number("bindTimeoutSeconds", 0..=i64::from(i32::MAX))? {
            arguments.volume_bind_timeout = std::time::Duration::from_secs(seconds.unsigned_abs());
        }
        match field.get("shape") {
            Some(shape) => Err(shape
                .wrong("needs feature gate StorageCapacityScoring, which is off; leave it out")),
            None => Ok(()),
        }
    }

    fn preemption(&self, profile: &mut Profile) -> Result<(), Wrong> {
        let field = self.only(&["minCandidateNodesPercentage", "minCandidateNodesAbsolute"])?;
        if let Some(percentage) = field.number("minCandidateNodesPercentage", 0..=100)? {
            profile.min_candidate_nodes_percentage = small(percentage);
        }
        if let Some(number) = field.number("minCandidateNodesAbsolute", 0..=i64::from(i32::MAX))? {
            profile.min_candidate_nodes_absolute = small(number);
        }
        if profile.min_candidate_nodes_percentage == 0 && profile.min_candidate_nodes_absolute == 0
        {
            return Err(field.wrong(
                "minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be 0",
            ));
        }
        Ok(())
    }

    fn devices(&self, arguments: &mut PluginArguments) -> Result<(), Wrong> {
        let field = self.only(&["filterTimeout", "bindingTimeout"])?;
        if let Some(timeout) = field.duration("filterTimeout")? {
            arguments.device_filter_timeout = timeout;
        }
        if let Some(timeout) = field.duration("bindingTimeout")? {
            if timeout < std::time::Duration::from_secs(1) {
                return Err(field.wrong_at("bindingTimeout", "has to be at least 1s"));
            }
            arguments.device_binding_timeout = timeout;
        }
        Ok(())
    }
}

/// A number already known to fit.
fn small(number: i64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// `resources` with weights: cpu and memory if there are none, 1 where there is no weight.
fn resources(
    field: &Field<'_>,
    weights: std::ops::RangeInclusive<i64>,
) -> Result<Vec<(CompactString, i64)>, Wrong> {
    let mut read: Vec<(CompactString, i64)> = Vec::new();
    for item in field.items("resources")? {
        let item = item.only(&["name", "weight"])?;
        let name = item.required_text("name")?;
        if read.iter().any(|(known, _)| known == name) {
            return Err(item.wrong_at("name", format!("{name} is there twice")));
        }
        // An explicit 0 is the same as no weight upstream.
        let weight = item.number("weight", 0..=*weights.end())?.filter(|weight| *weight != 0);
        read.push((name.into(), weight.unwrap_or(1)));
    }
    if read.is_empty() {
        read = vec![(CPU.into(), 1), (MEMORY.into(), 1)];
    }
    Ok(read)
}

/// Points of utilisation in percent, ascending, each with a score from 0 to 10.
fn shape(field: &Field<'_>) -> Result<Vec<(i64, i64)>, Wrong> {
    let mut points: Vec<(i64, i64)> = Vec::new();
    for item in field.items("shape")? {
        let item = item.only(&["utilization", "score"])?;
        let utilization = item.number("utilization", 0..=100)?.unwrap_or(0);
        let score = item.number("score", 0..=10)?.unwrap_or(0);
        if points.last().is_some_and(|(before, _)| *before >= utilization) {
            return Err(item.wrong_at("utilization", "has to be larger than the one before"));
        }
        points.push((utilization, score));
    }
    if points.is_empty() {
        return Err(field.wrong_at("shape", "needs at least one point"));
    }
    Ok(points)
}

fn spread_constraint(field: &Field<'_>) -> Result<TopologySpreadConstraint, Wrong> {
    let known = [
        "maxSkew",
        "topologyKey",
        "whenUnsatisfiable",
        "labelSelector",
        "minDomains",
        "matchLabelKeys",
        "nodeAffinityPolicy",
        "nodeTaintsPolicy",
    ];
    let field = field.only(&known)?;
    if field.get("labelSelector").is_some() {
        return Err(field.wrong_at(
            "labelSelector",
            "default constraints have none; it is that of the pod's services and owner",
        ));
    }
    let max_skew = field.number("maxSkew", 1..=i64::from(i32::MAX))?;
    let Some(max_skew) = max_skew else { return Err(field.wrong_at("maxSkew", "is required")) };
    let topology_key = field.required_text("topologyKey")?;
    if let Some(error) = qualified_name(topology_key).first() {
        return Err(field.wrong_at("topologyKey", error));
    }
    let when = field.required_text("whenUnsatisfiable")?;
    one_of(&field, "whenUnsatisfiable", when, &["DoNotSchedule", "ScheduleAnyway"])?;
    let min_domains = field.number("minDomains", 1..=i64::from(i32::MAX))?;
    if min_domains.is_some() && when != "DoNotSchedule" {
        return Err(field.wrong_at("minDomains", "only goes with DoNotSchedule"));
    }
    let policy = |name: &str| -> Result<Option<String>, Wrong> {
        let given = field.text_at(name)?;
        if let Some(given) = given {
            one_of(&field, name, given, &["Honor", "Ignore"])?;
        }
        Ok(given.map(str::to_owned))
    };
    let keys = field.texts("matchLabelKeys")?;
    Ok(TopologySpreadConstraint {
        max_skew: i32::try_from(max_skew).unwrap_or(i32::MAX),
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: when.to_owned(),
        label_selector: None,
        min_domains: min_domains.and_then(|number| i32::try_from(number).ok()),
        match_label_keys: (!keys.is_empty()).then(|| keys.into_iter().map(str::to_owned).collect()),
        node_affinity_policy: policy("nodeAffinityPolicy")?,
        node_taints_policy: policy("nodeTaintsPolicy")?,
    })
}

/// Refuses a word that is not among those allowed.
pub(super) fn one_of(
    field: &Field<'_>,
    name: &str,
    given: &str,
    allowed: &[&str],
) -> Result<(), Wrong> {
    if allowed.contains(&given) {
        return Ok(());
    }
    Err(field.wrong_at(name, format!("{given:?} is not one of {}", allowed.join(", "))))
}

/// Refuses what cannot be the value of a label.
pub(super) fn label(field: &Field<'_>, value: &str) -> Result<(), Wrong> {
    match label_value(value).first() {
        Some(error) => Err(field.wrong(format!("{value:?}: {error}"))),
        None => Ok(()),
    }
}
