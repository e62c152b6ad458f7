//! What each pool says of one pod, for people: the machine it would buy, or what stands in the way
//! with the numbers. The answer is the solver's own; only the search for the reason is added.

use compact_str::CompactString;
use serde::{Serialize, Serializer};
use wharf_model::money::Price;
use wharf_model::taints;

use crate::catalog::{Catalog, TypeSet, core};
use crate::claim::{Attempt, Narrowed, unmet_min_values};
use crate::failure::PoolFailure;
use crate::pod::PodRequest;
use crate::pool::{CompiledPool, untolerated};
use crate::solve::Solver;

/// What a pool says of a pod that no node takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PoolAnswer {
    /// It would buy a machine for it.
    Takes(Offer),
    /// It would not.
    Refuses(Refusal),
}

/// What a pool would buy for a pod alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// How many types hold the pod and can be bought.
    pub types: usize,
    /// The cheapest of them.
    pub cheapest: CompactString,
    /// What that costs.
    #[serde(rename = "usdPerHour", serialize_with = "dollars")]
    pub price: Price,
}

/// Why a pool buys nothing for a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// In the words of provisioning's Event.
    pub message: String,
    /// The first thing that would have to change.
    pub because: Hindrance,
}

/// What keeps a pool from buying for a pod. A type that is named is the one with the least against
/// it; of equals the cheapest.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Hindrance {
    /// The pod does not tolerate a taint of the pool's nodes.
    Taint {
        /// As `key=value:effect`.
        taint: String,
    },
    /// What the pod asks of its node contradicts what the pool asks of its nodes.
    Requirements {
        /// What contradicts what.
        contradictions: Vec<String>,
    },
    /// No type of the pool's node class would hold the pod, whatever the pool asks for. Without
    /// shortages there is enough of everything, but of no type all at once.
    TooSmall {
        /// Of what there is too little.
        shortages: Vec<Shortage>,
    },
    /// There are types that would hold the pod, and requirements exclude all of them.
    Excluded {
        /// A type that would hold it.
        instance_type: CompactString,
        /// What excludes it.
        by: Vec<Exclusion>,
        /// How the types fall short that are not excluded.
        shortages: Vec<Shortage>,
    },
    /// The limits leave too little for any type that would hold the pod.
    Limits {
        /// The type of which the limits are exceeded by least.
        instance_type: CompactString,
        /// By what.
        exceeded: Vec<Exceeded>,
    },
    /// The pool has as many nodes as it may.
    Nodes,
    /// Too few different types are left for a requirement's minValues.
    MinValues {
        /// The requirement's key.
        key: CompactString,
        /// How many values are wanted.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// What the pod asks of other pods.
    Others {
        /// In upstream's words.
        says: String,
    },
}

/// A resource of which the types there are have too little for a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shortage {
    /// The resource.
    pub resource: CompactString,
    /// How much the pod asks for, in the resource's unit.
    pub asked: i64,
    /// The most that a type has for pods.
    pub most: i64,
    /// Which that is; none if none has any.
    pub instance_type: Option<CompactString>,
}

/// Why a type is not among those that a pool buys for a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Exclusion {
    /// A requirement of the pool.
    NodePool {
        /// The requirement.
        requirement: String,
    },
    /// What the pod asks of its node.
    Pod {
        /// The requirement.
        requirement: String,
    },
    /// It cannot be bought in the zones and in the ways that are left.
    Offerings,
}

/// A limit that a machine would exceed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exceeded {
    /// The resource.
    pub resource: CompactString,
    /// How much of it the machine has.
    pub has: i64,
    /// How much the limit leaves.
    pub left: i64,
}

fn dollars<S: Serializer>(price: &Price, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(price)
}

impl Solver {
    /// What each pool says of a pod, in the order of [`Solver::pools`], as if no node had room.
    pub fn review(&mut self, pod: &PodRequest) -> Vec<PoolAnswer> {
        let shape = self.intern(pod);
        (0..self.pools.len())
            .map(|pool| match self.open_alone(pool, shape) {
                Ok(claim) => {
                    let catalog = &self.pools[pool].pool.catalog;
                    let (cheapest, _, price) = claim.launch(catalog);
                    PoolAnswer::Takes(Offer {
                        types: claim.types.len(),
                        cheapest: (*catalog.get(cheapest).name).into(),
                        price,
                    })
                }
                Err(failure) => PoolAnswer::Refuses(Refusal {
                    message: failure.to_string(),
                    because: hindrance(&self.pools[pool], &self.barest(shape), &failure),
                }),
            })
            .collect()
    }
}

/// The first thing that would have to change: what no change of another would help with comes
/// first.
fn hindrance(pool: &CompiledPool, attempt: &Attempt<'_>, failure: &PoolFailure) -> Hindrance {
    if let Some(taint) = untolerated(&pool.pool.taints, &attempt.rung.tolerations) {
        return Hindrance::Taint { taint: taints::display(taint).to_string() };
    }
    let catalog = &pool.pool.catalog;
    let narrowed = match Narrowed::of_pool(pool).by(&attempt.rung.requirements, catalog) {
        Ok(narrowed) => narrowed,
        Err(PoolFailure::Requirements(errors)) => {
            let contradictions = errors.iter().map(ToString::to_string).collect();
            return Hindrance::Requirements { contradictions };
        }
        Err(other) => return Hindrance::Others { says: other.to_string() },
    };
    let mut holding = catalog.all();
    let requested = core(attempt.requests);
    for index in 0..catalog.len() {
        holding.set(index, pool.fits(index, attempt.requests, &requested));
    }
    pool.retain_with_ports(attempt.ports, &mut holding);
    if holding.is_clear() {
        return Hindrance::TooSmall { shortages: shortages(pool, attempt, &catalog.all()) };
    }
    let mut options = narrowed.options.clone();
    options.intersect_with(&holding);
    if options.is_clear() {
        let (instance_type, by) = least_excluded(pool, &narrowed, &holding);
        let shortages = shortages(pool, attempt, &narrowed.options);
        return Hindrance::Excluded { instance_type, by, shortages };
    }
    let mut within = options.clone();
    match pool.retain_within(&pool.pool.remaining, &mut within) {
        Ok(()) => {}
        Err(PoolFailure::NodeLimit { .. }) => return Hindrance::Nodes,
        Err(_) => {
            let (instance_type, exceeded) = least_over(pool, &narrowed, &options);
            return Hindrance::Limits { instance_type, exceeded };
        }
    }
    match unmet_min_values(&narrowed.requirements, catalog, &within) {
        Some((key, wanted, found)) => Hindrance::MinValues { key, wanted, found },
        None => Hindrance::Others { says: failure.to_string() },
    }
}

/// Of what a pod asks for more than any type of a set has for pods.
fn shortages(pool: &CompiledPool, attempt: &Attempt<'_>, among: &TypeSet) -> Vec<Shortage> {
    let catalog = &pool.pool.catalog;
    let asked = attempt.requests.iter().filter(|(_, asked)| *asked > 0);
    asked
        .filter_map(|(resource, asked)| {
            let has = |index: usize| pool.left_for_pods(index, resource);
            // The first of equals.
            let richest =
                among.ones().max_by(|a, b| has(*a).cmp(&has(*b)).then_with(|| b.cmp(a)))?;
            let most = has(richest).max(0);
            (asked > most).then(|| Shortage {
                resource: resource.into(),
                asked,
                most,
                instance_type: (most > 0).then(|| name(catalog, richest)),
            })
        })
        .collect()
}

/// The type of a set that the fewest requirements exclude, and those.
fn least_excluded(
    pool: &CompiledPool,
    narrowed: &Narrowed,
    among: &TypeSet,
) -> (CompactString, Vec<Exclusion>) {
    let catalog = &pool.pool.catalog;
    let exclusions = |index: usize| -> Vec<Exclusion> {
        let broken = narrowed
            .requirements
            .iter()
            .filter(|requirement| !catalog.satisfies(index as u32, requirement));
        let mut by: Vec<Exclusion> = broken
            .map(|requirement| {
                let own = pool.pool.requirements.get(&requirement.key);
                match own.filter(|own| !catalog.satisfies(index as u32, own)) {
                    Some(own) => Exclusion::NodePool { requirement: own.to_string() },
                    None => Exclusion::Pod { requirement: requirement.to_string() },
                }
            })
            .collect();
        if catalog.available(index as u32) & narrowed.cells == 0 {
            by.push(Exclusion::Offerings);
        }
        by
    };
    cheapest_by_key(catalog, among, |index| exclusions(index).len())
        .map(|index| (name(catalog, index), exclusions(index)))
        .unwrap_or_default()
}

/// The type of a set that exceeds the fewest limits by the least, and those.
fn least_over(
    pool: &CompiledPool,
    narrowed: &Narrowed,
    among: &TypeSet,
) -> (CompactString, Vec<Exceeded>) {
    let catalog = &pool.pool.catalog;
    let exceeded = |index: usize| -> Vec<Exceeded> {
        let over = |(resource, left): &(CompactString, i64)| {
            let has = catalog.get(index as u32).capacity.get(resource);
            (has > *left).then(|| Exceeded { resource: resource.clone(), has, left: *left })
        };
        pool.pool.remaining.iter().filter_map(over).collect()
    };
    let mut sold = among.clone();
    for index in among.ones() {
        sold.set(index, catalog.available(index as u32) & narrowed.cells != 0);
    }
    let by = |index: usize| {
        let exceeded = exceeded(index);
        (exceeded.len(), exceeded.first().map(|first| first.has))
    };
    cheapest_by_key(catalog, &sold, by)
        .map(|index| (name(catalog, index), exceeded(index)))
        .unwrap_or_default()
}

/// The type of a set with the least key; of equals the cheapest, then the first.
fn cheapest_by_key<K: Ord>(
    catalog: &Catalog,
    among: &TypeSet,
    key: impl Fn(usize) -> K,
) -> Option<usize> {
    let price = |index: usize| catalog.cheapest(index as u32, catalog.all_cells());
    // What is not for sale at all comes last.
    among.ones().min_by_key(|index| {
        let price = price(*index);
        (price.is_none(), key(*index), price, *index)
    })
}

fn name(catalog: &Catalog, index: usize) -> CompactString {
    (*catalog.get(index as u32).name).into()
}
