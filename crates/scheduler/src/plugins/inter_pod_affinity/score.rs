//! Preferred terms of the pod, and what placed pods prefer or require that selects it.

use smallvec::SmallVec;

use crate::plugins::MAX_SCORE;
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::{NodeIndex, Snapshot};
use crate::topology::keys::{Key, KeyId};
use crate::topology::{CarriedTerm, DomainCounts, TermKind};

/// How many terms by one key are looked up one by one; more are added up per domain beforehand.
const TERMS_MAX: usize = 3;

/// The scorer for one pod.
pub(crate) struct Scores<'a> {
    keys: SmallVec<[ByKey<'a>; 2]>,
}

/// What is to be added up for the domain of a node by one key.
struct ByKey<'a> {
    id: KeyId,
    key: &'a Key,
    terms: SmallVec<[(i64, Source<'a>); TERMS_MAX]>,
    /// The sums by domain, if there are many terms.
    sums: Vec<i64>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    /// Pods that a term of the pod selects.
    Own(&'a DomainCounts),
    /// Pods that carry a term which selects the pod.
    Carried(&'a CarriedTerm),
}

impl<'a> Scores<'a> {
    /// `None` if no term says anything of any node.
    pub(crate) fn new(pod: &'a PodInfo, profile: &Profile, snapshot: &'a Snapshot) -> Option<Self> {
        let topology = snapshot.topology();
        let preferred = &pod.terms.preferred;
        if preferred.is_empty() && profile.arguments.ignore_preferred_terms_of_existing_pods {
            return None;
        }
        let own = preferred
            .iter()
            .map(|(weight, term)| {
                let counts = &topology.tally(term.tally).counts;
                (term.key, *weight, Source::Own(counts))
            })
            .filter(|(.., source)| source.total() > 0);
        let required = profile.arguments.hard_pod_affinity_weight;
        let carried = topology.terms_about(pod).filter_map(|(_, term)| {
            let weight = match term.kind {
                TermKind::Required if required > 0 => required,
                TermKind::Preferred(weight) => weight,
                TermKind::Required | TermKind::RequiredAnti => return None,
            };
            Some((term.key, weight, Source::Carried(term)))
        });
        let mut keys: SmallVec<[ByKey<'a>; 2]> = SmallVec::new();
        for (id, weight, source) in own.chain(carried) {
            match keys.iter_mut().find(|known| known.id == id) {
                Some(known) => known.terms.push((weight, source)),
                None => keys.push(ByKey {
                    id,
                    key: topology.key(id),
                    terms: SmallVec::from_iter([(weight, source)]),
                    sums: Vec::new(),
                }),
            }
        }
        keys.iter_mut().filter(|key| key.terms.len() > TERMS_MAX).for_each(ByKey::add_up);
        (!keys.is_empty()).then_some(Self { keys })
    }

    #[inline]
    pub(crate) fn score(&self, index: NodeIndex) -> i64 {
        let mut score = 0;
        for by_key in &self.keys {
            let Some(domain) = by_key.key.domain(index) else { continue };
            if !by_key.sums.is_empty() {
                score += by_key.sums[domain as usize];
                continue;
            }
            for (weight, source) in &by_key.terms {
                score += weight
                    * match source {
                        Source::Own(counts) => counts.get(domain),
                        Source::Carried(term) => term.get(domain),
                    };
            }
        }
        score
    }
}

/// Brings raw scores into 0 to [`MAX_SCORE`], the least becoming 0.
pub(crate) fn normalize(scores: &mut [i64]) {
    let least = scores.iter().copied().min().unwrap_or(0);
    let range = scores.iter().copied().max().unwrap_or(0) - least;
    for score in scores {
        // Upstream's order of operations in floating point, whose truncation shows.
        *score = if range > 0 {
            (MAX_SCORE as f64 * ((*score - least) as f64 / range as f64)) as i64
        } else {
            0
        };
    }
}

impl ByKey<'_> {
    fn add_up(&mut self) {
        let mut sums = vec![0; self.key.domains_end().max(1)];
        for (weight, source) in &self.terms {
            source.for_each(|domain, count| sums[domain as usize] += weight * i64::from(count));
        }
        self.sums = sums;
    }
}

impl Source<'_> {
    fn total(&self) -> u64 {
        match self {
            Self::Own(counts) => counts.total(),
            Self::Carried(term) => term.total(),
        }
    }

    fn for_each(&self, call: impl FnMut(u32, u32)) {
        match self {
            Self::Own(counts) => counts.for_each(call),
            Self::Carried(term) => term.for_each(call),
        }
    }
}
