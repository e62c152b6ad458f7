//! The rules as they are written down: every pod is visited for every question.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Constraint, Event, Labels, Machine, Selector, Task, Term, size};

/// A cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) machines: BTreeMap<u8, Machine>,
    pub(super) running: BTreeMap<u8, (u8, Task)>,
    pub(super) namespaces: BTreeMap<u8, Labels>,
    pub(super) services: BTreeMap<(u8, u8), Labels>,
    pub(super) replica_sets: BTreeMap<(u8, u8), Selector>,
}

impl World {
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Machine(name, machine) => {
                self.machines.insert(*name, machine.clone());
            }
            Event::NoMachine(name) => {
                self.machines.remove(name);
            }
            Event::Run(name, on, task) => {
                self.running.insert(*name, (*on, task.clone()));
            }
            Event::Stop(name) => {
                self.running.remove(name);
            }
            Event::Namespace(name, labels) => {
                self.namespaces.insert(*name, labels.clone());
            }
            Event::NoNamespace(name) => {
                self.namespaces.remove(name);
            }
            Event::Service(space, name, labels) => {
                self.services.insert((*space, *name), labels.clone());
            }
            Event::NoService(space, name) => {
                self.services.remove(&(*space, *name));
            }
            Event::ReplicaSet(space, name, selector) => {
                self.replica_sets.insert((*space, *name), selector.clone());
            }
            Event::NoReplicaSet(space, name) => {
                self.replica_sets.remove(&(*space, *name));
            }
        }
    }

    fn value(&self, machine: u8, key: usize) -> Option<String> {
        self.machines.get(&machine)?.label(machine, key)
    }

    /// Whether a term of a pod selects another. `placing`: it is the term of the pod that is being
    /// placed, whose namespace selector is also tried on no labels.
    fn selects(&self, term: &Term, owner: &Task, other: &Task, placing: bool) -> bool {
        let own = term.namespaces.is_empty() && term.namespace_selector.is_none();
        let named = if own {
            other.namespace == owner.namespace
        } else {
            term.namespaces.contains(&other.namespace)
        };
        let empty = Labels::new();
        let labels = self.namespaces.get(&other.namespace).unwrap_or(&empty);
        let covered = named
            || term.namespace_selector.as_ref().is_some_and(|selector| {
                selector.selects(labels) || (placing && selector.selects(&empty))
            });
        covered && term.selector.selects(&other.labels)
    }

    /// Why a machine will not do.
    pub(super) fn refusal(&self, task: &Task, machine: u8) -> Option<&'static str> {
        self.spread(task, machine).or_else(|| self.affinity(task, machine)).or_else(|| {
            (task.needs_feature && !self.machines[&machine].features).then_some("features")
        })
    }

    fn affinity(&self, task: &Task, machine: u8) -> Option<&'static str> {
        let fits = |other: &Task| {
            !task.required.is_empty()
                && task.required.iter().all(|term| self.selects(term, task, other, true))
        };
        let near = |term: &Term, on: u8| {
            let value = self.value(machine, term.key);
            value.is_some() && self.value(on, term.key) == value
        };
        let mut met = true;
        for term in &task.required {
            if self.value(machine, term.key).is_none() {
                return Some("affinity");
            }
            met &= self.running.values().any(|(on, other)| fits(other) && near(term, *on));
        }
        let somebody = self.running.values().any(|(on, other)| {
            fits(other) && task.required.iter().any(|term| self.value(*on, term.key).is_some())
        });
        if !met && (somebody || !fits(task)) {
            return Some("affinity");
        }
        for term in &task.anti {
            let mut others = self.running.values();
            if others.any(|(on, other)| near(term, *on) && self.selects(term, task, other, true)) {
                return Some("anti-affinity");
            }
        }
        let objects = |(on, other): &(u8, Task)| {
            let mut terms = other.anti.iter();
            terms.any(|term| near(term, *on) && self.selects(term, other, task, false))
        };
        self.running.values().any(objects).then_some("others")
    }

    fn selector_of(&self, constraint: &Constraint, task: &Task) -> impl Fn(&Labels) -> bool {
        let selector = constraint.selector.clone();
        let own = constraint.match_label_key.and_then(|key| Some((key, *task.labels.get(key)?)));
        move |labels| match own {
            // Put together with nothing, the label alone selects.
            Some((key, value)) => {
                labels.get(key) == Some(&value)
                    && (matches!(selector, Selector::Nothing) || selector.selects(labels))
            }
            None => selector.selects(labels),
        }
    }

    fn is_empty(constraint: &Constraint, task: &Task) -> bool {
        let own = constraint.match_label_key.is_some_and(|key| task.labels.contains_key(key));
        matches!(constraint.selector, Selector::Everything) && !own
    }

    /// Whether a machine counts for a constraint of which these are all of the same kind.
    fn counts(&self, task: &Task, alike: &[&Constraint], one: &Constraint, machine: u8) -> bool {
        let facts = &self.machines[&machine];
        alike.iter().all(|constraint| self.value(machine, constraint.key).is_some())
            && (one.ignores_affinity || task.zone.is_none_or(|zone| facts.zone == Some(zone)))
            && (!one.honors_taints || !facts.tainted || task.tolerant)
    }

    fn matching_on(&self, constraint: &Constraint, task: &Task, machine: u8) -> i64 {
        if Self::is_empty(constraint, task) {
            return 0;
        }
        let selects = self.selector_of(constraint, task);
        let here = self.running.values().filter(|(on, other)| {
            *on == machine
                && other.namespace == task.namespace
                && !other.terminating
                && selects(&other.labels)
        });
        here.count() as i64
    }

    fn spread(&self, task: &Task, machine: u8) -> Option<&'static str> {
        let required: Vec<_> = task.constraints.iter().filter(|one| one.required).collect();
        for one in &required {
            let Some(value) = self.value(machine, one.key) else { return Some("no label") };
            let mut domains: BTreeMap<String, i64> = BTreeMap::new();
            for other in self.machines.keys() {
                if self.counts(task, &required, one, *other) {
                    let domain = self.value(*other, one.key).unwrap();
                    *domains.entry(domain).or_default() += self.matching_on(one, task, *other);
                }
            }
            let least = domains.values().copied().min().unwrap_or(0);
            let least = if domains.len() < one.min_domains.unwrap_or(1) { 0 } else { least };
            let own = i64::from(self.selector_of(one, task)(&task.labels));
            if domains.get(&value).copied().unwrap_or(0) + own - least > one.skew {
                return Some("skew");
            }
        }
        None
    }

    /// The normalised scores of each plugin that has something to say, by feasible machine.
    pub(super) fn scores(
        &self,
        task: &Task,
        feasible: &[u8],
    ) -> BTreeMap<&'static str, BTreeMap<u8, i64>> {
        let mut all = BTreeMap::new();
        all.extend(self.spread_scores(task, feasible).map(|scores| ("PodTopologySpread", scores)));
        all.extend(self.affinity_scores(task, feasible).map(|scores| ("InterPodAffinity", scores)));
        let images = feasible.iter().map(|machine| (*machine, self.image_score(task, *machine)));
        all.insert("ImageLocality", images.collect());
        all
    }

    fn default_selector(&self, task: &Task) -> Vec<Selector> {
        let mut parts = Vec::new();
        for ((space, _), selector) in &self.services {
            let selects = selector.iter().all(|(key, value)| task.labels.get(key) == Some(value));
            if *space == task.namespace && selects {
                parts.extend(selector.iter().map(|(key, value)| Selector::In(key, vec![value])));
            }
        }
        let owner = task.owner.and_then(|owner| self.replica_sets.get(&(task.namespace, owner)));
        let speaks = |owner: &&Selector| !matches!(owner, Selector::Everything | Selector::Nothing);
        parts.extend(owner.filter(speaks).cloned());
        parts
    }

    fn spread_scores(&self, task: &Task, feasible: &[u8]) -> Option<BTreeMap<u8, i64>> {
        let own = !task.constraints.is_empty();
        let parts = self.default_selector(task);
        let system = |key: usize, skew: i64| Constraint {
            required: false,
            skew,
            key,
            selector: Selector::Everything,
            min_domains: None,
            ignores_affinity: false,
            honors_taints: false,
            match_label_key: None,
        };
        let constraints: Vec<Constraint> = if own {
            task.constraints.iter().filter(|one| !one.required).cloned().collect()
        } else if parts.is_empty() {
            Vec::new()
        } else {
            vec![system(0, 3), system(1, 5)]
        };
        if constraints.is_empty() {
            return None;
        }
        let alike: Vec<_> = if own { constraints.iter().collect() } else { Vec::new() };
        let matching = |one: &Constraint, machine: u8| {
            if own {
                return self.matching_on(one, task, machine);
            }
            let here = self.running.values().filter(|(on, other)| {
                *on == machine
                    && other.namespace == task.namespace
                    && !other.terminating
                    && parts.iter().all(|part| part.selects(&other.labels))
            });
            here.count() as i64
        };
        let has_all = |machine: &u8| {
            !own || constraints.iter().all(|one| self.value(*machine, one.key).is_some())
        };
        let scored: Vec<u8> = feasible.iter().copied().filter(has_all).collect();
        let raw = |machine: u8| {
            let mut sum = 0.0;
            for one in &constraints {
                let Some(value) = self.value(machine, one.key) else { continue };
                let (count, size) = if one.key == 0 {
                    (matching(one, machine), scored.len())
                } else {
                    let domain = |machine: u8| self.value(machine, one.key).unwrap_or_default();
                    let domains: BTreeSet<_> = scored.iter().map(|other| domain(*other)).collect();
                    let there = self.machines.keys().filter(|other| {
                        self.counts(task, &alike, one, **other) && domain(**other) == value
                    });
                    (there.map(|other| matching(one, *other)).sum(), domains.len())
                };
                sum += count as f64 * ((size + 2) as f64).ln() + (one.skew - 1) as f64;
            }
            sum.round() as i64
        };
        let raws: BTreeMap<u8, i64> =
            scored.iter().map(|machine| (*machine, raw(*machine))).collect();
        let most = raws.values().copied().max().unwrap_or(0);
        let least = raws.values().copied().min().unwrap_or(0);
        let score = |machine: &u8| match raws.get(machine) {
            None => 0,
            Some(_) if most == 0 => 100,
            Some(raw) => 100 * (most + least - raw) / most,
        };
        Some(feasible.iter().map(|machine| (*machine, score(machine))).collect())
    }

    fn affinity_scores(&self, task: &Task, feasible: &[u8]) -> Option<BTreeMap<u8, i64>> {
        let mut pairs: BTreeMap<(usize, String), i64> = BTreeMap::new();
        let mut add = |term: &Term, on: u8, weight: i64| {
            if let Some(value) = self.value(on, term.key) {
                *pairs.entry((term.key, value)).or_default() += weight;
            }
        };
        for (on, other) in self.running.values() {
            for (weight, term) in &task.preferred {
                if self.selects(term, task, other, true) {
                    add(term, *on, *weight);
                }
            }
            for (weight, term) in &other.preferred {
                if self.selects(term, other, task, false) {
                    add(term, *on, *weight);
                }
            }
            for term in &other.required {
                if self.selects(term, other, task, false) {
                    add(term, *on, 1);
                }
            }
        }
        if pairs.is_empty() {
            return None;
        }
        let raw = |machine: u8| -> i64 {
            let of = |key: usize| Some((key, self.value(machine, key)?));
            (0..3).filter_map(of).filter_map(|pair| pairs.get(&pair)).sum()
        };
        let most = feasible.iter().map(|machine| raw(*machine)).max().unwrap_or(0);
        let least = feasible.iter().map(|machine| raw(*machine)).min().unwrap_or(0);
        let score = |machine: u8| {
            if most == least {
                return 0;
            }
            (100.0 * ((raw(machine) - least) as f64 / (most - least) as f64)) as i64
        };
        Some(feasible.iter().map(|machine| (*machine, score(*machine))).collect())
    }

    fn image_score(&self, task: &Task, machine: u8) -> i64 {
        let mib = 1024 * 1024;
        let most = 1000 * mib * task.images.len().max(1) as i64;
        let mut sum = 0;
        for image in &task.images {
            let has = |machine: &Machine| machine.images.contains(image);
            if has(&self.machines[&machine]) {
                let nodes = self.machines.values().filter(|machine| has(machine)).count();
                let share = nodes as f64 / self.machines.len() as f64;
                sum += (size(*image) as f64 * share) as i64;
            }
        }
        100 * (sum.clamp(23 * mib, most) - 23 * mib) / (most - 23 * mib)
    }
}
