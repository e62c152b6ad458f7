//! Required terms, the pod's own and those of the pods that are placed.

use smallvec::SmallVec;

use crate::node::NodeInfo;
use crate::plugins::{Code, Rejection};
use crate::pod::PodInfo;
use crate::profile::Plugin;
use crate::snapshot::{NodeIndex, Snapshot};
use crate::symbols::Symbols;
use crate::topology::groups::MatcherId;
use crate::topology::keys::{Domain, Key, KeyId};
use crate::topology::{CarriedTerm, Counts, DomainCounts, OwnTerm, TermKind, Topology};

const REASON_AFFINITY: &str = "node(s) didn't match pod affinity rules";
const REASON_ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const REASON_OTHERS: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Which of the three it is; the low bits are the place of the term.
const AFFINITY: u64 = 1 << 32;
const ANTI_AFFINITY: u64 = 2 << 32;
const OTHERS: u64 = 3 << 32;

pub(crate) fn reason(detail: u64) -> &'static str {
    match detail & OTHERS {
        AFFINITY => REASON_AFFINITY,
        ANTI_AFFINITY => REASON_ANTI_AFFINITY,
        _ => REASON_OTHERS,
    }
}

/// The filter for one pod.
#[derive(Clone)]
pub(crate) struct State<'a> {
    pod: &'a PodInfo,
    topology: &'a Topology,
    symbols: &'a Symbols,
    /// The pod's own required affinity, by term.
    affinity: SmallVec<[Counted<'a>; 1]>,
    /// Whether the pod is one of those that all terms of its required affinity select.
    fits_itself: bool,
    /// Its own required anti-affinity, by term.
    anti_affinity: SmallVec<[Counted<'a>; 1]>,
    /// Carriers of required anti-affinity against the pod, by key.
    others: SmallVec<[Carriers<'a>; 1]>,
    /// What a trial has changed.
    changes: SmallVec<[Change; 2]>,
}

/// The pods that one of the pod's own terms counts.
#[derive(Clone, Copy)]
struct Counted<'a> {
    id: KeyId,
    key: &'a Key,
    counts: &'a DomainCounts,
}

/// Placed pods whose required anti-affinity by one key selects the pod.
#[derive(Clone)]
struct Carriers<'a> {
    id: KeyId,
    key: &'a Key,
    counts: CarrierCounts<'a>,
}

#[derive(Clone)]
enum CarrierCounts<'a> {
    One(&'a CarriedTerm),
    /// Several terms, put together.
    Sum(Box<Counts>),
}

/// Pods that a trial has put into a domain or taken out of it, as far as some count goes.
#[derive(Clone, Copy)]
struct Change {
    of: Subject,
    key: KeyId,
    domain: Domain,
    by: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Affinity,
    /// The term at this place: others by the same key may count other pods.
    AntiAffinity(u64),
    Others,
}

impl<'a> State<'a> {
    pub(crate) fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Self> {
        let (topology, symbols) = (snapshot.topology(), snapshot.symbols());
        let others = carriers(pod, topology);
        if others.is_empty() && pod.terms.required.is_empty() && pod.terms.required_anti.is_empty()
        {
            return None;
        }
        let counted = |term: &OwnTerm| Counted {
            id: term.key,
            key: topology.key(term.key),
            counts: &topology.tally(term.tally).counts,
        };
        Some(Self {
            pod,
            topology,
            symbols,
            affinity: pod.terms.required.iter().map(counted).collect(),
            fits_itself: pod
                .terms
                .required_of_all
                .is_some_and(|matcher| topology.selects(matcher, pod, symbols)),
            anti_affinity: pod.terms.required_anti.iter().map(counted).collect(),
            others,
            changes: SmallVec::new(),
        })
    }

    #[inline]
    pub(crate) fn check(&self, index: NodeIndex) -> Option<Rejection> {
        if let Some(place) = self.unmet(index) {
            return rejection(AFFINITY | place, Code::UnschedulableAndUnresolvable);
        }
        for (place, term) in (0..).zip(&self.anti_affinity) {
            let Some(domain) = term.key.domain(index) else { continue };
            let change = self.change(Subject::AntiAffinity(place), term.id, domain);
            if term.counts.get(domain) + change > 0 {
                return rejection(ANTI_AFFINITY | place, Code::Unschedulable);
            }
        }
        for (place, carriers) in (0..).zip(&self.others) {
            let Some(domain) = carriers.key.domain(index) else { continue };
            let count = match &carriers.counts {
                CarrierCounts::One(term) => term.get(domain),
                CarrierCounts::Sum(counts) => i64::from(counts.get(domain)),
            };
            if count + self.change(Subject::Others, carriers.id, domain) > 0 {
                return rejection(OTHERS | place, Code::Unschedulable);
            }
        }
        // Carriers by keys that nobody but the trial's pods carry terms by.
        let strange = self.changes.iter().any(|change| {
            change.of == Subject::Others
                && self.others.iter().all(|carriers| carriers.id != change.key)
                && self.topology.key(change.key).domain(index) == Some(change.domain)
                && self.change(Subject::Others, change.key, change.domain) > 0
        });
        if strange { rejection(OTHERS, Code::Unschedulable) } else { None }
    }

    /// The place of a term of required affinity that the node does not meet.
    #[inline]
    fn unmet(&self, index: NodeIndex) -> Option<u64> {
        let mut unmet = None;
        for (place, term) in (0..).zip(&self.affinity) {
            // The node must have every key, even for the first of a group of pods.
            let Some(domain) = term.key.domain(index) else { return Some(place) };
            let change = self.change(Subject::Affinity, term.id, domain);
            if unmet.is_none() && term.counts.get(domain) + change <= 0 {
                unmet = Some(place);
            }
        }
        // The first pod of a group that wants to be together may be anywhere.
        unmet.filter(|_| !(self.fits_itself && self.nobody_fits()))
    }

    /// Whether no pod anywhere is one that the pod's required affinity counts.
    fn nobody_fits(&self) -> bool {
        let total: i64 = self
            .affinity
            .iter()
            .map(|term| i64::try_from(term.counts.total()).unwrap_or(i64::MAX))
            .sum();
        // A change is noted once per key, a total counted once per term: with none of the former
        // left over the latter is zero.
        let tried = self.changes.iter().filter(|change| change.of == Subject::Affinity);
        let terms = |key: KeyId| self.affinity.iter().filter(|term| term.id == key).count() as i64;
        total + tried.map(|change| change.by * terms(change.key)).sum::<i64>() == 0
    }

    #[inline]
    fn change(&self, of: Subject, key: KeyId, domain: Domain) -> i64 {
        let changes = self.changes.iter();
        let changes = changes
            .filter(|change| change.of == of && change.key == key && change.domain == domain);
        changes.map(|change| change.by).sum()
    }

    /// A trial has put a pod on a node (`by` is 1) or taken it off (-1).
    pub(crate) fn pod_changed(&mut self, pod: &PodInfo, index: NodeIndex, by: i64) {
        let (topology, symbols) = (self.topology, self.symbols);
        for term in &pod.terms.carried {
            let term = topology.term(*term);
            if term.kind == TermKind::RequiredAnti
                && topology.selects(term.matcher, self.pod, symbols)
            {
                self.note(Subject::Others, term.key, index, by);
            }
        }
        let selects = |matcher: MatcherId| topology.selects(matcher, pod, symbols);
        if self.pod.terms.required_of_all.is_some_and(selects) {
            let mut keys: SmallVec<[KeyId; 2]> = self.affinity.iter().map(|term| term.id).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                self.note(Subject::Affinity, key, index, by);
            }
        }
        for (place, term) in (0..).zip(&self.pod.terms.required_anti) {
            if selects(term.matcher) {
                self.note(Subject::AntiAffinity(place), term.key, index, by);
            }
        }
    }

    /// Takes back what trials have changed.
    pub(crate) fn undo(&mut self) {
        self.changes.clear();
    }

    fn note(&mut self, of: Subject, key: KeyId, index: NodeIndex, by: i64) {
        let Some(domain) = self.topology.key(key).domain(index) else { return };
        let known = self.changes.iter_mut();
        let mut known = known.filter(|it| it.of == of && it.key == key && it.domain == domain);
        match known.next() {
            Some(known) => known.by += by,
            None => self.changes.push(Change { of, key, domain, by }),
        }
    }
}

/// Required anti-affinity of placed pods that selects the pod, put together by key.
fn carriers<'a>(pod: &PodInfo, topology: &'a Topology) -> SmallVec<[Carriers<'a>; 1]> {
    let mut all: SmallVec<[Carriers<'a>; 1]> = SmallVec::new();
    for (_, term) in topology.terms_about(pod) {
        if term.kind != TermKind::RequiredAnti {
            continue;
        }
        match all.iter_mut().find(|known| known.id == term.key) {
            None => all.push(Carriers {
                id: term.key,
                key: topology.key(term.key),
                counts: CarrierCounts::One(term),
            }),
            Some(known) => known.add(term),
        }
    }
    all
}

impl Carriers<'_> {
    fn add(&mut self, term: &CarriedTerm) {
        if let CarrierCounts::One(first) = self.counts {
            let mut sum = Counts::default();
            first.for_each(|domain, count| {
                sum.add(domain, count);
            });
            self.counts = CarrierCounts::Sum(Box::new(sum));
        }
        if let CarrierCounts::Sum(sum) = &mut self.counts {
            term.for_each(|domain, count| {
                sum.add(domain, count);
            });
        }
    }
}

fn rejection(detail: u64, code: Code) -> Option<Rejection> {
    Some(Rejection { plugin: Plugin::InterPodAffinity, code, detail })
}

/// Which term stands in the way, and whose pod.
pub(crate) fn explain(
    detail: u64,
    pod: &PodInfo,
    index: NodeIndex,
    node: &NodeInfo,
    snapshot: &Snapshot,
) -> Option<String> {
    let (topology, symbols) = (snapshot.topology(), snapshot.symbols());
    let place = (detail & !OTHERS) as usize;
    let in_domain = |key: KeyId| {
        let key = topology.key(key);
        let domain = key.domain(index);
        let nodes = snapshot.nodes().iter();
        nodes
            .filter(move |other| domain.is_some() && key.domain(**other) == domain)
            .flat_map(|other| snapshot.node(*other).pods.iter().map(move |pod| (other, pod)))
    };
    let named = |key: KeyId| {
        let key = topology.key(key);
        let value = key.domain(index).map(|domain| symbols.text(key.value(domain)));
        (symbols.text(key.symbol), value)
    };
    match detail & OTHERS {
        AFFINITY => {
            let term = pod.terms.required.get(place)?;
            let (key, value) = named(term.key);
            let Some(value) = value else {
                return Some(format!("{} has no label {key}", node.facts.name));
            };
            let which = if pod.terms.required.len() == 1 {
                "its affinity selects".to_owned()
            } else {
                format!("all {} terms of its affinity select", pod.terms.required.len())
            };
            Some(format!("{key} {value} has no pod that {which}"))
        }
        ANTI_AFFINITY => {
            let term = pod.terms.required_anti.get(place)?;
            let (key, value) = named(term.key);
            let mut pods = in_domain(term.key)
                .filter(|(_, other)| topology.selects(term.matcher, other, symbols));
            let (on, other) = pods.next()?;
            let more = pods.count();
            let on = &snapshot.node(*on).facts.name;
            Some(format!(
                "its anti-affinity keeps it apart from {} on {on} ({key} {}){}",
                other.key,
                value.unwrap_or_default(),
                and_more(more)
            ))
        }
        _ => {
            let carriers = carriers(pod, topology);
            let id = carriers.get(place)?.id;
            let (key, value) = named(id);
            let objects = |other: &PodInfo| {
                other.terms.carried.iter().any(|term| {
                    let term = topology.term(*term);
                    term.kind == TermKind::RequiredAnti
                        && term.key == id
                        && topology.selects(term.matcher, pod, symbols)
                })
            };
            let mut pods = in_domain(id).filter(|(_, other)| objects(other));
            let (on, other) = pods.next()?;
            let more = pods.count();
            let on = &snapshot.node(*on).facts.name;
            Some(format!(
                "the anti-affinity of {} on {on} keeps it out ({key} {}){}",
                other.key,
                value.unwrap_or_default(),
                and_more(more)
            ))
        }
    }
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" and {more} more") }
}
