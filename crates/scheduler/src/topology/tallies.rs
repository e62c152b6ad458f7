//! Tallies: how many pods there are in each domain of a key, and how many carry a term.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::groups::{MatcherId, Presence};
use super::keys::{Domain, KeyId};
use super::scopes::ScopeId;

/// How many pods of some kind are in each domain of a key.
#[derive(Clone, Debug)]
pub(crate) struct DomainCounts {
    /// Whether pods that are being deleted are left out.
    live_only: bool,
    counts: Counts,
    total: u64,
    /// How many domains have each count above zero; only where pods that are being deleted are
    /// left out, which is where the least count matters.
    levels: BTreeMap<u32, u32>,
}

impl DomainCounts {
    pub(crate) fn new(live_only: bool) -> Self {
        Self { live_only, counts: Counts::default(), total: 0, levels: BTreeMap::new() }
    }

    /// The count of a domain.
    #[inline]
    pub(crate) fn get(&self, domain: Domain) -> i64 {
        i64::from(self.counts.get(domain))
    }

    /// The sum of all counts.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The counts above zero by domain, in no particular order.
    pub(crate) fn for_each(&self, call: impl FnMut(Domain, u32)) {
        self.counts.for_each(call);
    }

    /// The least count of `domains` domains, if there are any, after some of them have changed by
    /// these amounts. Each domain is named once.
    pub(crate) fn least(&self, domains: usize, changes: &[(Domain, i64)]) -> Option<i64> {
        let changed = changes.iter().map(|(domain, change)| self.get(*domain) + change).min();
        let held =
            |count: i64| changes.iter().filter(|(domain, _)| self.get(*domain) == count).count();
        let empty = domains.saturating_sub(self.counts.above_zero());
        let others = if empty > held(0) {
            Some(0)
        } else {
            let mut levels = self.levels.iter();
            let level =
                levels.find(|(count, domains)| **domains as usize > held(i64::from(**count)));
            level.map(|(count, _)| i64::from(*count))
        };
        changed.into_iter().chain(others).min()
    }

    pub(crate) fn add(&mut self, domain: Domain, presence: Presence) {
        let more = if self.live_only { presence.live } else { presence.all };
        if more == 0 {
            return;
        }
        self.total += u64::from(more);
        let now = self.counts.add(domain, more);
        self.level(now - more, now);
    }

    pub(super) fn subtract(&mut self, domain: Domain, presence: Presence) {
        let less = if self.live_only { presence.live } else { presence.all };
        if less == 0 {
            return;
        }
        self.total -= u64::from(less);
        let now = self.counts.subtract(domain, less);
        self.level(now + less, now);
    }

    fn level(&mut self, before: u32, now: u32) {
        if !self.live_only {
            return;
        }
        if before > 0
            && let Some(domains) = self.levels.get_mut(&before)
        {
            *domains -= 1;
            if *domains == 0 {
                self.levels.remove(&before);
            }
        }
        if now > 0 {
            *self.levels.entry(now).or_insert(0) += 1;
        }
    }
}

/// The pods of a matcher by the domains of a key, on the nodes of a scope.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(super) key: KeyId,
    pub(super) scope: ScopeId,
    pub(crate) counts: DomainCounts,
}

/// What a term is to the pod it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TermKind {
    /// Required affinity.
    Required,
    /// Required anti-affinity.
    RequiredAnti,
    /// Preferred affinity, or anti-affinity if the weight is negative.
    Preferred(i64),
}

/// A term that pods carry, with the number of its carriers in each domain.
#[derive(Clone, Debug)]
pub(crate) struct CarriedTerm {
    pub(crate) matcher: MatcherId,
    pub(crate) key: KeyId,
    pub(crate) kind: TermKind,
    carriers: Counts,
    total: u64,
}

impl CarriedTerm {
    /// A term that nobody carries yet.
    pub(super) fn new(matcher: MatcherId, key: KeyId, kind: TermKind) -> Self {
        Self { matcher, key, kind, carriers: Counts::default(), total: 0 }
    }

    pub(super) fn add(&mut self, domain: Domain) {
        self.carriers.add(domain, 1);
        self.total += 1;
    }

    pub(super) fn subtract(&mut self, domain: Domain) {
        self.carriers.subtract(domain, 1);
        self.total -= 1;
    }

    /// The number of pods in a domain that carry the term.
    #[inline]
    pub(crate) fn get(&self, domain: Domain) -> i64 {
        i64::from(self.carriers.get(domain))
    }

    /// The number of carriers in all domains.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The carriers by domain, in no particular order.
    pub(crate) fn for_each(&self, call: impl FnMut(Domain, u32)) {
        self.carriers.for_each(call);
    }
}
