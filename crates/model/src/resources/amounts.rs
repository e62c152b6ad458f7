//! Exact amounts by resource name, while they are being summed up.
//!
//! Upstream adds quantities exactly and rounds the result up once; adding rounded amounts would
//! count two containers of `100.5m` as 202 thousandths instead of 201.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::Resources;
use crate::quantity::Quantity;

/// A list of resources with exact amounts; the names are borrowed from the lists it was made of.
/// Unlike [`Resources`] it tells an explicit zero from a resource not named at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Amounts<'a>(SmallVec<[(&'a str, Quantity); 4]>);

impl<'a> Amounts<'a> {
    /// From the API's form. What is no quantity is left out: the API server lets none in.
    pub(super) fn of<Q>(list: Option<&'a BTreeMap<String, Q>>) -> Self
    where
        Quantity: TryFrom<&'a Q>,
    {
        let parse = |(name, text): (&'a String, &'a Q)| {
            Some((name.as_str(), Quantity::try_from(text).ok()?))
        };
        Self(list.into_iter().flatten().filter_map(parse).collect())
    }

    /// The amount of a resource, if it is named.
    pub(super) fn get(&self, name: &str) -> Option<&Quantity> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, amount)| amount)
    }

    /// Whether a resource is named, with whatever amount.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The resources named here with their amounts, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, Quantity)> {
        self.0.iter().copied()
    }

    /// Replaces the amount of a resource.
    pub(super) fn set(&mut self, name: &'a str, amount: Quantity) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, held)) => *held = amount,
            None => self.0.push((name, amount)),
        }
    }

    /// Adds every amount of `other`.
    pub(super) fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.set(name, self.get(name).map_or(amount, |held| held.add(&amount)));
        }
    }

    /// Raises every amount to at least that of `other`.
    pub(super) fn max(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            if self.get(name).is_none_or(|held| *held < amount) {
                self.set(name, amount);
            }
        }
    }

    /// Rounded up to the unit of each resource.
    pub(super) fn into_resources(self) -> Resources {
        let mut resources = Resources::default();
        for (name, amount) in self.iter() {
            resources.set(name, super::in_units(name, &amount));
        }
        resources
    }
}
