//! Required constraints: a node will not do where its domain would have too many matching pods
//! more than the domain with the fewest.

use smallvec::SmallVec;

use super::{Counted, Rule, Rules, own_rules, rules};
use crate::node::NodeInfo;
use crate::plugins::{Code, Rejection};
use crate::pod::PodInfo;
use crate::profile::{Plugin, Profile};
use crate::snapshot::{NodeIndex, Snapshot};
use crate::symbols::Symbols;
use crate::topology::keys::Domain;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const REASON_NO_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";

/// Marks the refusal of a node without the topology key; the low bits are the place of the
/// constraint among the required ones.
const NO_LABEL: u64 = 1 << 32;

/// The least count where no domain has any node: upstream starts from this.
const NO_DOMAIN: i64 = i32::MAX as i64;

pub(crate) fn reason(detail: u64) -> &'static str {
    if detail & NO_LABEL == 0 { REASON } else { REASON_NO_LABEL }
}

/// The filter for one pod.
#[derive(Clone)]
pub(crate) struct State<'a> {
    pod: &'a PodInfo,
    symbols: &'a Symbols,
    rules: SmallVec<[Required<'a>; 2]>,
}

#[derive(Clone)]
struct Required<'a> {
    rule: Rule<'a>,
    /// 1 if the pod itself is one of those that are counted.
    own: i64,
    least: i64,
    /// What a trial has changed.
    changes: SmallVec<[(Domain, i64); 1]>,
}

impl<'a> Required<'a> {
    fn count(&self, domain: Domain) -> i64 {
        let Counted::ByDomain(counts) = &self.rule.counted else { return 0 };
        let changes = self.changes.iter().filter(|(changed, _)| *changed == domain);
        counts.get(domain) + changes.map(|(_, change)| change).sum::<i64>()
    }

    fn find_least(&mut self) {
        let Counted::ByDomain(counts) = &self.rule.counted else { return };
        self.least = if self.rule.domains < self.rule.min_domains {
            0
        } else {
            counts.least(self.rule.domains, &self.changes).unwrap_or(NO_DOMAIN)
        };
    }

    #[inline]
    fn allows(&self, domain: Domain) -> bool {
        self.count(domain) + self.own - self.least <= self.rule.max_skew
    }
}

impl<'a> State<'a> {
    pub(crate) fn new(pod: &'a PodInfo, profile: &Profile, snapshot: &'a Snapshot) -> Option<Self> {
        let (rules, _) = rules(pod, profile, true, snapshot);
        (!rules.is_empty()).then(|| Self::of(rules, pod, snapshot))
    }

    fn of(rules: Rules<'a>, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let symbols = snapshot.symbols();
        let rules = rules.into_iter().map(|rule| {
            let own = i64::from(rule.selector.matches(&pod.labels, symbols));
            let mut required = Required { rule, own, least: 0, changes: SmallVec::new() };
            required.find_least();
            required
        });
        Self { pod, symbols, rules: rules.collect() }
    }

    #[inline]
    pub(crate) fn check(&self, index: NodeIndex) -> Option<Rejection> {
        for (place, required) in (0..).zip(&self.rules) {
            let Some(domain) = required.rule.domain(index) else {
                return Some(Rejection {
                    plugin: Plugin::PodTopologySpread,
                    code: Code::UnschedulableAndUnresolvable,
                    detail: NO_LABEL | place,
                });
            };
            if !required.allows(domain) {
                return Some(Rejection {
                    plugin: Plugin::PodTopologySpread,
                    code: Code::Unschedulable,
                    detail: place,
                });
            }
        }
        None
    }

    /// A trial has put a pod on a node (`by` is 1) or taken it off (-1).
    ///
    /// As upstream has it, a pod that is being deleted or that an empty selector selects is not
    /// among those counted, but changes the count all the same when it is tried without.
    pub(crate) fn pod_changed(&mut self, pod: &PodInfo, index: NodeIndex, by: i64) {
        let namespace = pod.namespace == self.pod.namespace;
        if !namespace || self.rules.iter().any(|required| required.rule.domain(index).is_none()) {
            return;
        }
        for required in &mut self.rules {
            let rule = &required.rule;
            let selected = rule.selector.matches(&pod.labels, self.symbols);
            let Some(domain) = rule.domain(index) else { continue };
            if !selected || !rule.eligible.counts(index) {
                continue;
            }
            let changes = &mut required.changes;
            match changes.iter_mut().find(|(changed, _)| *changed == domain) {
                Some((_, change)) => *change += by,
                None => changes.push((domain, by)),
            }
            required.find_least();
        }
    }

    /// Takes back what trials have changed since this was a copy of `before`.
    pub(crate) fn undo(&mut self, before: &Self) {
        for (required, before) in self.rules.iter_mut().zip(&before.rules) {
            required.changes.clone_from(&before.changes);
            required.least = before.least;
        }
    }
}

/// The numbers behind a refusal.
pub(crate) fn explain(
    detail: u64,
    pod: &PodInfo,
    index: NodeIndex,
    node: &NodeInfo,
    snapshot: &Snapshot,
) -> Option<String> {
    let state = State::of(own_rules(pod, true, snapshot.topology()), pod, snapshot);
    let required = state.rules.get((detail & !NO_LABEL) as usize)?;
    let symbols = snapshot.symbols();
    let key = symbols.text(required.rule.key.symbol);
    if detail & NO_LABEL != 0 {
        return Some(format!("{} has no label {key}", node.facts.name));
    }
    let domain = required.rule.domain(index)?;
    let (count, least, skew) = (required.count(domain), required.least, required.rule.max_skew);
    let value = symbols.text(required.rule.key.value(domain));
    let pods = if count == 1 { "pod" } else { "pods" };
    let domains = if required.rule.domains < required.rule.min_domains {
        let (is, wanted) = (required.rule.domains, required.rule.min_domains);
        format!("the least counts as 0 with {is} domains of minDomains {wanted}")
    } else {
        format!("the least is {least}")
    };
    Some(format!("{key} {value} has {count} matching {pods}, {domains}, maxSkew {skew}"))
}
