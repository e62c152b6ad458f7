//! Choosing domains before machines: each pod that asks for something in a domain, or that counts
//! for others that do, gets one. And looking back: whether everything asked for is so in the end.

use smallvec::SmallVec;
use wharf_model::requirements::Requirements;

use super::{Domains, Tallies, Topology, allowed_domains, bits};
use crate::cost::problem::HostRule;
use crate::pod::Rung;
use crate::terms::TopologyKind;

/// The domains that a pod is pinned to: key and domain.
pub(crate) type Pins = SmallVec<[(usize, Domains); 1]>;

impl Topology {
    /// Pins a pod to domains that do now, where fewest of its like are, and counts it there; `None`
    /// if there is none. `open` tells the domains of a key in which machines for it can be bought.
    pub(crate) fn pin(
        &mut self,
        labels: u32,
        rung_id: usize,
        rung: &Rung,
        mut open: impl FnMut(&Self, usize) -> Domains,
        tallies: &mut Tallies,
    ) -> Option<Pins> {
        let ask = self.ask(labels, rung_id, rung, tallies).unwrap_or_default();
        if self.is_idle() {
            return Some(Pins::new());
        }
        let counted: SmallVec<[u32; 4]> = self
            .counted_in(labels, rung_id)
            .filter(|group| !self.keys[self.groups[*group as usize].key].host)
            .collect();
        let asked = ask.entries.iter().map(|entry| entry.key);
        let mut keys: SmallVec<[usize; 2]> = asked
            .filter(|key| !self.keys[*key].host)
            .chain(counted.iter().map(|group| self.groups[*group as usize].key))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let mut pins = Pins::new();
        for key in keys {
            let entries = ask.entries.iter().filter(|entry| entry.key == key);
            let allowed = entries.fold(open(self, key), |all, entry| all & entry.allowed);
            let crowd = |domain: usize| -> u64 {
                let of_key = |group: &&u32| self.groups[**group as usize].key == key;
                let count = |group: &u32| u64::from(tallies.0[*group as usize].domains()[domain]);
                counted.iter().filter(of_key).map(count).sum()
            };
            let domain = bits(allowed).min_by_key(|domain| crowd(*domain))?;
            pins.push((key, 1 << domain));
        }
        for group in counted {
            let key = self.groups[group as usize].key;
            for domain in pins.iter().filter(|(pinned, _)| *pinned == key) {
                tallies.0[group as usize].add(domain.1.trailing_zeros() as usize);
            }
        }
        Some(pins)
    }

    /// What a pod has to do with others on its host.
    pub(crate) fn host_rules(&mut self, labels: u32, rung: usize) -> SmallVec<[HostRule; 2]> {
        if self.is_idle() {
            return SmallVec::new();
        }
        self.select(labels);
        let selected = &self.labels[labels as usize].selected_by;
        let owned = &self.rungs[rung].owned;
        let mut groups: SmallVec<[u32; 4]> = selected.iter().chain(owned).copied().collect();
        groups.sort_unstable();
        groups.dedup();
        let of_host = groups.into_iter().filter(|index| {
            let group = &self.groups[*index as usize];
            !group.inverse && self.keys[group.key].host
        });
        of_host
            .map(|index| {
                let counts = selected.binary_search(&index).is_ok();
                let most = match self.groups[index as usize].term.kind {
                    _ if !owned.contains(&index) => u32::MAX,
                    TopologyKind::Spread { max_skew, .. } => u32::try_from(max_skew).unwrap_or(1),
                    TopologyKind::AntiAffinity => u32::from(counts),
                    TopologyKind::Affinity => u32::MAX,
                };
                HostRule { group: index, most, counts }
            })
            .collect()
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether a form of constraints asks for company on the same host.
    pub(crate) fn wants_company_on_host(&self, rung: usize) -> bool {
        self.rungs[rung].owned.iter().any(|group| {
            let group = &self.groups[*group as usize];
            group.term.kind == TopologyKind::Affinity && self.keys[group.key].host
        })
    }

    /// The domains of a key that requirements leave open and that some values name.
    pub(crate) fn domains_of(&self, key: usize, values: &[impl AsRef<str>]) -> Domains {
        let known = &self.keys[key].values;
        let position = |value: &str| known.binary_search_by(|known| known.as_str().cmp(value)).ok();
        let named = values.iter().filter_map(|value| position(value.as_ref()));
        named.fold(0, |domains, at| domains | 1 << at)
    }

    /// Whether all that a pod on a claim asks for is so when everything is placed.
    pub(crate) fn holds_on_claim(
        &mut self,
        labels: u32,
        rung_id: usize,
        rung: &Rung,
        claim: usize,
        requirements: &Requirements,
        tallies: &Tallies,
    ) -> bool {
        if self.is_idle() {
            return true;
        }
        self.select(labels);
        let selected = &self.labels[labels as usize].selected_by;
        let own_inverse = &self.rungs[rung_id].inverse;
        let repelling = selected.iter().filter(|index| self.groups[**index as usize].inverse);
        self.rungs[rung_id].owned.iter().chain(repelling).all(|index| {
            let group = &self.groups[*index as usize];
            let key = &self.keys[group.key];
            let tally = &tallies.0[*index as usize];
            let itself = if group.inverse {
                own_inverse.contains(index)
            } else {
                selected.binary_search(index).is_ok()
            };
            let itself = i64::from(itself);
            let of_pod = group.universe & allowed_domains(key, &rung.strict);
            let (here, least, domains) = if key.host {
                (i64::from(tally.on_claim(claim)), 0, 1)
            } else {
                let open = allowed_domains(key, requirements);
                let counts = || bits(of_pod).map(|domain| i64::from(tally.domains()[domain]));
                let here = bits(open).map(|domain| i64::from(tally.domains()[domain])).max();
                (here.unwrap_or(0), counts().min().unwrap_or(0), open.count_ones())
            };
            match group.term.kind {
                TopologyKind::Spread { max_skew, min_domains, .. } => {
                    let few = min_domains.is_some_and(|few| i64::from(of_pod.count_ones()) < few);
                    domains == 1 && here - if few { 0 } else { least } <= max_skew
                }
                TopologyKind::AntiAffinity => here - itself <= 0,
                TopologyKind::Affinity => {
                    let alone = itself == 1 && tally.total() == 1;
                    domains == 1 && (here - itself > 0 || alone)
                }
            }
        })
    }
}
