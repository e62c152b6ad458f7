//! Node requirements: what pods, NodePools and machines ask of labels, and how two such asks
//! combine.
//!
//! This is Karpenter's algebra: each label key has a set of allowed values or the complement of a
//! set of excluded ones, with optional integer bounds. Requirements of one key intersect. The plain
//! Kubernetes matching of a node selector against the labels of an existing node, which
//! kube-scheduler uses, is in [`node_selector`].

pub mod node_selector;
mod requirement;

use std::collections::BTreeMap;
use std::fmt;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorRequirement, PodSpec, PreferredSchedulingTerm,
};

pub use requirement::{Operator, Requirement, Values};

use crate::labels;

/// Requirements on several labels, at most one for each key, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    by_key: BTreeMap<CompactString, Requirement>,
}

/// Which labels the other side may ask for although nothing is known of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undefined {
    /// None: an existing node has all the labels it will ever have.
    Denied,
    /// The well-known ones: the provider sets them on every machine it makes.
    WellKnownAllowed,
}

/// Why two sets of requirements do not go together. The texts are Karpenter's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// A label is asked for which nothing defines.
    #[error("label {key:?} does not have known values{hint}")]
    Undefined {
        /// The label's key.
        key: CompactString,
        /// ` (typo of "…"?)`, or nothing.
        hint: String,
    },
    /// No value of a label satisfies both sides.
    #[error("key {}, {incoming} not in {existing}", incoming.key)]
    NoCommonValue {
        /// What is asked for.
        incoming: Requirement,
        /// What there is.
        existing: Requirement,
    },
}

impl Requirements {
    /// No requirements: every node will do.
    pub fn new() -> Requirements {
        Requirements::default()
    }

    /// Each label with exactly its value.
    pub fn from_labels<'l>(
        labels: impl IntoIterator<Item = (&'l String, &'l String)>,
    ) -> Requirements {
        labels
            .into_iter()
            .map(|(key, value)| Requirement::new(key, Operator::In, [value]))
            .collect()
    }

    /// From the terms of a node selector or affinity. A malformed one (an unknown operator, a bound
    /// which is no integer) is an error naming it.
    pub fn from_node_selector_requirements<'r>(
        requirements: impl IntoIterator<Item = &'r NodeSelectorRequirement>,
    ) -> Result<Requirements, Malformed> {
        requirements
            .into_iter()
            .map(|requirement| {
                let values = requirement.values.as_deref().unwrap_or_default();
                Requirement::parse(&requirement.key, &requirement.operator, values, None)
            })
            .collect()
    }

    /// What a pod requires of its node: its node selector and the first term of its required node
    /// affinity; with [`Preferences::Required`] also its heaviest preference, as if it were
    /// required. Karpenter's relaxation removes preferences and leading terms one by one when no
    /// machine is found, and asks again.
    pub fn from_pod(spec: &PodSpec, preferences: Preferences) -> Result<Requirements, Malformed> {
        let mut requirements = Requirements::from_labels(spec.node_selector.iter().flatten());
        let affinity = spec.affinity.as_ref();
        let Some(affinity) =
            affinity.and_then(|affinity: &Affinity| affinity.node_affinity.as_ref())
        else {
            return Ok(requirements);
        };
        if preferences == Preferences::Required {
            let preferred =
                affinity.preferred_during_scheduling_ignored_during_execution.as_deref();
            if let Some(term) = heaviest(preferred.unwrap_or_default()) {
                let expressions = term.preference.match_expressions.iter().flatten();
                requirements.extend(Requirements::from_node_selector_requirements(expressions)?);
            }
        }
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
        if let Some(term) = required.and_then(|required| required.node_selector_terms.first()) {
            let expressions = term.match_expressions.iter().flatten();
            requirements.extend(Requirements::from_node_selector_requirements(expressions)?);
        }
        Ok(requirements)
    }

    /// Adds a requirement, intersecting it with the one its key has already.
    pub fn add(&mut self, requirement: Requirement) {
        match self.by_key.get_mut(&requirement.key) {
            Some(existing) => *existing = requirement.intersection(existing),
            None => {
                self.by_key.insert(requirement.key.clone(), requirement);
            }
        }
    }

    /// The requirement of a key, if there is one.
    pub fn get(&self, key: &str) -> Option<&Requirement> {
        self.by_key.get(key)
    }

    /// Whether a key has a requirement.
    pub fn contains_key(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// Takes a key's requirement away.
    pub fn remove(&mut self, key: &str) -> Option<Requirement> {
        self.by_key.remove(key)
    }

    /// Whether a label may have this value: true where its key has no requirement.
    pub fn allows(&self, key: &str, value: &str) -> bool {
        self.get(key).is_none_or(|requirement| requirement.has(value))
    }

    /// The requirements, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Requirement> {
        self.by_key.values()
    }

    /// How many keys have a requirement.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no key has a requirement.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Whether any requirement asks for several values to stay possible.
    pub fn has_min_values(&self) -> bool {
        self.iter().any(|requirement| requirement.min_values.is_some())
    }

    /// Whether `incoming`, what a pod asks for, can be met by a node with these requirements. It
    /// must have a common value for every key both name, and may ask for an undefined label only
    /// as `undefined` says, or to be without it. The result is the list of what is wrong.
    pub fn compatible(
        &self,
        incoming: &Requirements,
        undefined: Undefined,
    ) -> Result<(), Vec<Incompatible>> {
        let may_be_undefined =
            |key: &str| undefined == Undefined::WellKnownAllowed && self.is_well_known(key);
        let mut errors: Vec<Incompatible> = incoming
            .iter()
            .filter(|requirement| {
                !may_be_undefined(&requirement.key)
                    && !self.contains_key(&requirement.key)
                    && !requirement.operator().is_negative()
            })
            .map(|requirement| Incompatible::Undefined {
                key: requirement.key.clone(),
                hint: self.hint(&requirement.key, undefined),
            })
            .collect();
        if let Err(disjoint) = self.intersects(incoming) {
            errors.extend(disjoint);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// [`Requirements::compatible`] without the reasons, for hot loops.
    pub fn is_compatible(&self, incoming: &Requirements, undefined: Undefined) -> bool {
        incoming.iter().all(|asked| match self.get(&asked.key) {
            Some(existing) => overlap(existing, asked),
            None => {
                asked.operator().is_negative()
                    || (undefined == Undefined::WellKnownAllowed && self.is_well_known(&asked.key))
            }
        })
    }

    /// Whether whoever makes these nodes knows the values of a label by itself: EKS Auto Mode knows
    /// other labels than Karpenter, and its nodes are told by their class.
    fn is_well_known(&self, key: &str) -> bool {
        match self.is_of_auto_mode() {
            true => labels::is_well_known_to_auto_mode(key),
            false => labels::is_well_known(key),
        }
    }

    fn is_of_auto_mode(&self) -> bool {
        self.contains_key(labels::eks::NODE_CLASS)
    }

    /// Whether every key both sides name has a common value; keys of one side alone do not count.
    pub fn intersects(&self, incoming: &Requirements) -> Result<(), Vec<Incompatible>> {
        let errors: Vec<Incompatible> = incoming
            .iter()
            .filter_map(|asked| Some((self.get(&asked.key)?, asked)))
            .filter(|(existing, asked)| !overlap(existing, asked))
            .map(|(existing, asked)| Incompatible::NoCommonValue {
                incoming: asked.clone(),
                existing: existing.clone(),
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The labels these requirements fix: those with exactly one allowed value.
    pub fn single_values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter_map(|requirement| {
            let [value] = requirement.values.allowed()? else {
                return None;
            };
            Some((requirement.key.as_str(), value.as_str()))
        })
    }

    /// Karpenter's guess at what a mistyped label key was meant to be. Upstream looks through its
    /// keys in no order; here the first in order is taken.
    fn hint(&self, key: &str, undefined: Undefined) -> String {
        let mut known: Vec<&str> = match undefined {
            Undefined::Denied => Vec::new(),
            Undefined::WellKnownAllowed if self.is_of_auto_mode() => {
                labels::WELL_KNOWN.into_iter().chain(labels::eks::WELL_KNOWN).collect()
            }
            Undefined::WellKnownAllowed => labels::well_known().collect(),
        };
        known.sort_unstable();
        let suffix = key.split_once('/').map_or(key, |(_, suffix)| suffix);
        known
            .into_iter()
            .chain(self.by_key.keys().map(CompactString::as_str))
            .find(|candidate| {
                candidate.contains(key)
                    || edit_distance(key, candidate) < candidate.len() / 5
                    || candidate.ends_with(suffix)
            })
            .map_or_else(String::new, |candidate| format!(" (typo of {candidate:?}?)"))
    }
}

/// Whether a common value exists, or both sides are content with none.
fn overlap(existing: &Requirement, incoming: &Requirement) -> bool {
    existing.has_intersection(incoming)
        || (incoming.operator().is_negative() && existing.operator().is_negative())
}

/// Whether a pod's preferences count as requirements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preferences {
    /// The heaviest preferred term is required.
    Required,
    /// Preferences do not count.
    Ignored,
}

/// A requirement that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The operator is not known.
    #[error("requirement on key {key:?} has unknown operator {operator:?}")]
    Operator {
        /// The label's key.
        key: String,
        /// The operator.
        operator: String,
    },
    /// A bound needs exactly one integer.
    #[error("requirement on key {key:?} with operator {operator} needs exactly one integer")]
    Bound {
        /// The label's key.
        key: String,
        /// The operator.
        operator: String,
    },
}

fn heaviest(terms: &[PreferredSchedulingTerm]) -> Option<&PreferredSchedulingTerm> {
    // The first of the heaviest: max_by_key alone would take the last.
    terms.iter().rev().max_by_key(|term| term.weight)
}

/// The number of insertions, deletions and substitutions between two texts; as upstream's it does
/// not look at the first byte of either.
fn edit_distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.is_empty() || right.is_empty() {
        return left.len().max(right.len());
    }
    let mut previous: Vec<usize> = (0..right.len()).collect();
    for left_byte in &left[1..] {
        // Upstream's first column stays zero.
        let mut current = vec![0; right.len()];
        for j in 1..right.len() {
            let substitution = previous[j - 1] + usize::from(*left_byte != right[j]);
            current[j] = substitution.min(previous[j] + 1).min(current[j - 1] + 1);
        }
        previous = current;
    }
    previous[right.len() - 1]
}

impl Extend<Requirement> for Requirements {
    fn extend<I: IntoIterator<Item = Requirement>>(&mut self, requirements: I) {
        for requirement in requirements {
            self.add(requirement);
        }
    }
}

impl FromIterator<Requirement> for Requirements {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Requirements {
        let mut all = Requirements::new();
        all.extend(requirements);
        all
    }
}

impl IntoIterator for Requirements {
    type Item = Requirement;
    type IntoIter = std::collections::btree_map::IntoValues<CompactString, Requirement>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_key.into_values()
    }
}

impl fmt::Display for Requirements {
    /// As Karpenter's logs and events print them: sorted, without those it never tells of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = self
            .iter()
            .filter(|requirement| requirement.key != labels::HOSTNAME)
            .map(Requirement::to_string)
            .collect();
        texts.sort_unstable();
        f.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests;
