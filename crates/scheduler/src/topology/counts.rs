//! Counts by small number: a map while few are above zero, a list once many are.

use rustc_hash::FxHashMap;

/// How many times more places than counts above zero a list may have.
const SPARSE: usize = 8;

/// Counts by domain or by node. All that is not there is zero.
#[derive(Clone, Debug)]
pub(crate) enum Counts {
    Few(FxHashMap<u32, u32>),
    Many { counts: Vec<u32>, above_zero: usize },
}

impl Default for Counts {
    fn default() -> Self {
        Self::Few(FxHashMap::default())
    }
}

impl Counts {
    #[inline]
    pub(crate) fn get(&self, at: u32) -> u32 {
        match self {
            Self::Few(counts) => counts.get(&at).copied().unwrap_or(0),
            Self::Many { counts, .. } => counts.get(at as usize).copied().unwrap_or(0),
        }
    }

    /// Adds and returns the new count.
    pub(crate) fn add(&mut self, at: u32, more: u32) -> u32 {
        if more == 0 {
            return self.get(at);
        }
        match self {
            Self::Few(counts) => {
                let count = counts.entry(at).or_insert(0);
                *count += more;
                let now = *count;
                if counts.len() * SPARSE > at as usize {
                    self.become_list();
                }
                now
            }
            Self::Many { counts, above_zero } => {
                let place = at as usize;
                if counts.len() <= place {
                    counts.resize(place + 1, 0);
                }
                *above_zero += usize::from(counts[place] == 0);
                counts[place] += more;
                counts[place]
            }
        }
    }

    /// Takes away what was added before and returns the new count.
    pub(crate) fn subtract(&mut self, at: u32, less: u32) -> u32 {
        match self {
            Self::Few(counts) => {
                let Some(count) = counts.get_mut(&at) else { return 0 };
                *count = count.saturating_sub(less);
                let now = *count;
                if now == 0 {
                    counts.remove(&at);
                }
                now
            }
            Self::Many { counts, above_zero } => {
                let Some(count) = counts.get_mut(at as usize) else { return 0 };
                let before = *count;
                *count = before.saturating_sub(less);
                *above_zero -= usize::from(before > 0 && *count == 0);
                *count
            }
        }
    }

    /// How many are above zero.
    pub(crate) fn above_zero(&self) -> usize {
        match self {
            Self::Few(counts) => counts.len(),
            Self::Many { above_zero, .. } => *above_zero,
        }
    }

    /// Calls for each that is above zero, in no particular order.
    pub(crate) fn for_each(&self, mut call: impl FnMut(u32, u32)) {
        match self {
            Self::Few(counts) => counts.iter().for_each(|(at, count)| call(*at, *count)),
            Self::Many { counts, .. } => {
                for (at, count) in (0..).zip(counts).filter(|(_, count)| **count > 0) {
                    call(at, *count);
                }
            }
        }
    }

    fn become_list(&mut self) {
        let Self::Few(few) = self else { return };
        let above_zero = few.len();
        let length = few.keys().max().map_or(0, |last| *last as usize + 1);
        // One far place must not make a long list of the others.
        if length > above_zero * SPARSE {
            return;
        }
        let mut counts = vec![0; length];
        for (at, count) in few.drain() {
            counts[at as usize] = count;
        }
        *self = Self::Many { counts, above_zero };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_those_of_a_map(steps in prop::collection::vec((0..300u32, 1..4u32, any::<bool>()), 0..200)) {
            let mut counts = Counts::default();
            let mut plain: BTreeMap<u32, u32> = BTreeMap::new();
            for (at, amount, adds) in steps {
                let held = plain.get(&at).copied().unwrap_or(0);
                let now = if adds {
                    plain.insert(at, held + amount);
                    counts.add(at, amount)
                } else {
                    plain.insert(at, held.saturating_sub(amount));
                    counts.subtract(at, amount)
                };
                prop_assert_eq!(now, plain[&at]);
                prop_assert_eq!(counts.get(at), now);
            }
            plain.retain(|_, count| *count > 0);
            let mut all = BTreeMap::new();
            counts.for_each(|at, count| {
                all.insert(at, count);
            });
            prop_assert_eq!(counts.above_zero(), all.len());
            prop_assert_eq!(all, plain);
        }
    }
}
