//! What one pod asks of the place it is put in.

use smallvec::SmallVec;

use super::Domains;

/// A pod's questions to its groups, answered for the present counts.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    pub(crate) entries: SmallVec<[Entry; 2]>,
}

/// One group's answer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) group: u32,
    pub(crate) key: usize,
    /// The domains that will do; meaningless for hosts.
    pub(crate) allowed: Domains,
    /// Which of those a claim that could be in several takes.
    pub(crate) pick: Pick,
    /// Which hosts will do; meaningless for other keys.
    pub(crate) host: Hosts,
}

/// How a claim that could be in several allowed domains is narrowed.
#[derive(Clone, Debug)]
pub(crate) enum Pick {
    /// It stays open.
    All,
    /// The first one in order; upstream takes any.
    First,
    /// The first one with the lowest count; the counts by domain.
    Least(SmallVec<[u32; 8]>),
}

/// Which hosts will do, by how many of the group's pods they have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hosts {
    /// Any.
    Any,
    /// Those with at most so many.
    AtMost(i64),
    /// Those with at least one.
    Some,
}

impl Hosts {
    pub(crate) fn admits(self, count: u32) -> bool {
        match self {
            Self::Any => true,
            Self::AtMost(most) => i64::from(count) <= most,
            Self::Some => count > 0,
        }
    }
}

impl Entry {
    /// The domains that are left of `open`; 0 if none will do.
    pub(crate) fn choose(&self, open: Domains) -> Domains {
        let left = self.allowed & open;
        if left == 0 {
            return 0;
        }
        match &self.pick {
            Pick::All => left,
            Pick::First => 1 << left.trailing_zeros(),
            Pick::Least(counts) => {
                let least = super::bits(left).min_by_key(|domain| counts[*domain]);
                least.map_or(0, |domain| 1 << domain)
            }
        }
    }
}
