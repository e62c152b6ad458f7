//! A NodeClaim that is being planned: the types that still hold its pods, narrowed pod by pod.

use compact_str::CompactString;
use fixedbitset::FixedBitSet;
use smallvec::SmallVec;
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::requirements::{Operator, Requirement, Requirements, Undefined};
use wharf_model::resources::Resources;

use crate::catalog::{Catalog, Cells, Core, TypeSet, bits, core};
use crate::failure::{PoolFailure, TypeFailure};
use crate::pod::Rung;
use crate::pool::{CompiledPool, untolerated};
use crate::terms::{HostPort, ports_conflict};
use crate::topology::{Ask, Domains, Topology};

/// At most so many instance types are written into a NodeClaim's requirements (upstream's bound).
pub const TYPES_IN_CLAIM_MAX: usize = 600;

/// A node to launch: the result of a solve.
#[derive(Clone, Debug)]
pub struct PlannedClaim {
    /// Index of its pool in the solver's order.
    pub pool: usize,
    /// The types that hold its pods, cheapest first.
    pub types: Vec<u32>,
    /// The ways to buy that satisfy its requirements.
    pub cells: Cells,
    /// What the node must be, without the instance types.
    pub requirements: Requirements,
    /// What its pods ask for, with the least that daemons add.
    pub requests: Resources,
    /// Its pods: indexes into the pods that were solved for.
    pub pods: Vec<u32>,
}

impl PlannedClaim {
    /// The requirements to write into the NodeClaim: with the cheapest
    /// [`TYPES_IN_CLAIM_MAX`] types.
    pub fn requirements_with_types(&self, catalog: &Catalog) -> Requirements {
        let names =
            self.types.iter().take(TYPES_IN_CLAIM_MAX).map(|index| &catalog.get(*index).name);
        let mut requirements = self.requirements.clone();
        // A pool's own minValues on the type stays with the requirement.
        requirements.add(Requirement::new(labels::INSTANCE_TYPE, Operator::In, names));
        requirements
    }

    /// What a lowest-price launch makes of the claim: type, cell and price. It takes bare metal only
    /// if nothing else is left, as the provider's launch filter has it.
    pub fn launch(&self, catalog: &Catalog) -> (u32, usize, Price) {
        let is_metal = |index: &&u32| catalog.get(**index).name.contains("metal");
        let index = self.types.iter().find(|index| !is_metal(index)).or(self.types.first());
        let index = *index.expect("invariant: a claim has types");
        let (price, cell) = bits(catalog.available(index) & self.cells)
            .filter_map(|cell| Some((catalog.price(index, cell)?, cell)))
            .min()
            .expect("invariant: a claim's types are available");
        (index, cell, price)
    }

    /// Pins the claim to a capacity type, where its requirements leave a choice.
    pub fn pin_capacity_type(&mut self, catalog: &Catalog, value: &str) {
        let requirement = Requirement::new(labels::CAPACITY_TYPE, Operator::In, [value]);
        self.cells &= catalog.cells_where(&requirement);
        self.requirements.add(requirement);
    }
}

/// A claim while pods are added to it.
#[derive(Clone, Debug)]
pub(crate) struct OpenClaim {
    pub(crate) pool: usize,
    pub(crate) requirements: Requirements,
    pub(crate) cells: Cells,
    pub(crate) options: TypeSet,
    /// What its pods ask for, daemons not included.
    pub(crate) requests: Resources,
    pub(crate) pods: Vec<u32>,
    /// The least that any remaining type has left for pods: as long as requests stay below, no type
    /// drops out and nothing need be filtered.
    least: Core,
    /// Constraint forms already part of the requirements.
    absorbed: FixedBitSet,
    /// Pod shapes that did not fit. A claim only gets fuller and narrower, so they never will.
    rejected: FixedBitSet,
    /// The node's ports that its pods take.
    ports: Vec<HostPort>,
    /// Per topology key: the domains that the requirements leave open; forgotten when they change.
    open: SmallVec<[Option<Domains>; 2]>,
}

/// What topology makes of a claim.
enum Settled {
    /// None of its domains will do.
    Refused,
    /// It can stay as it is.
    AsIs,
    /// It is narrowed to fewer domains.
    To(Requirements),
}

/// Constraints narrowed by a pod's, before it is known whether a type is left.
#[derive(Clone, Debug)]
pub(crate) struct Narrowed {
    pub(crate) requirements: Requirements,
    pub(crate) cells: Cells,
    pub(crate) options: TypeSet,
}

impl Narrowed {
    /// The start of a new claim of a pool.
    pub(crate) fn of_pool(pool: &CompiledPool) -> Self {
        Self {
            requirements: pool.pool.requirements.clone(),
            cells: pool.cells,
            options: pool.options.clone(),
        }
    }

    /// Narrows by a pod's requirements; the types are those that can still satisfy them and be
    /// bought, whatever their size.
    pub(crate) fn by(
        &self,
        requirements: &Requirements,
        catalog: &Catalog,
    ) -> Result<Self, PoolFailure> {
        self.requirements
            .compatible(requirements, Undefined::WellKnownAllowed)
            .map_err(PoolFailure::Requirements)?;
        let mut narrowed = self.clone();
        for requirement in requirements.iter() {
            narrowed.requirements.add(requirement.clone());
            // The combination counts: a type with two values may meet each side with another one.
            let combined = narrowed.requirements.get(&requirement.key).unwrap_or(requirement);
            catalog.retain_where(&mut narrowed.options, combined);
            narrowed.cells &= catalog.cells_where(combined);
        }
        let cells = narrowed.cells;
        let unavailable: Vec<usize> = narrowed
            .options
            .ones()
            .filter(|index| catalog.available(*index as u32) & cells == 0)
            .collect();
        for index in unavailable {
            narrowed.options.set(index, false);
        }
        Ok(narrowed)
    }

    /// Narrows to domains in which a pod may be; `None` if there are none.
    pub(crate) fn settle(&self, ask: &Ask, topology: &Topology, catalog: &Catalog) -> Option<Self> {
        let settled = settle(ask, topology, |key| topology.open_domains(key, &self.requirements));
        match settled {
            Settled::Refused => None,
            Settled::AsIs => Some(self.clone()),
            Settled::To(requirements) => self.by(&requirements, catalog).ok(),
        }
    }
}

/// What topology makes of a claim whose open domains are `open`. Every group sees the claim as it
/// was; the answers then have to agree.
fn settle(ask: &Ask, topology: &Topology, mut open: impl FnMut(usize) -> Domains) -> Settled {
    let mut chosen: SmallVec<[(usize, Domains, Domains); 2]> = SmallVec::new();
    for entry in &ask.entries {
        if topology.is_host(entry.key) {
            continue;
        }
        let before = open(entry.key);
        let after = entry.choose(before);
        let at = chosen.iter().position(|(key, ..)| *key == entry.key).unwrap_or_else(|| {
            chosen.push((entry.key, before, before));
            chosen.len() - 1
        });
        chosen[at].2 &= after;
        if chosen[at].2 == 0 {
            return Settled::Refused;
        }
    }
    chosen.retain(|(_, before, after)| before != after);
    if chosen.is_empty() {
        return Settled::AsIs;
    }
    let requirement = |(key, _, after): &(usize, Domains, Domains)| {
        let (name, domains) = topology.names(*key, *after);
        Requirement::new(name, Operator::In, domains)
    };
    Settled::To(chosen.iter().map(requirement).collect())
}

/// A pod's shape in one form of its constraints.
pub(crate) struct Attempt<'a> {
    /// Identifies shape and form together.
    pub(crate) id: usize,
    /// Identifies what the form of constraints asks of the node itself.
    pub(crate) node_form: usize,
    pub(crate) rung: &'a Rung,
    pub(crate) requests: &'a Resources,
    pub(crate) ports: &'a [HostPort],
}

impl OpenClaim {
    /// Opens a claim of a pool for a first pod; `narrowed` are the pool's constraints narrowed by
    /// the pod's and by limits.
    pub(crate) fn open(
        pool_index: usize,
        pool: &CompiledPool,
        narrowed: Narrowed,
        attempt: &Attempt<'_>,
    ) -> Option<Self> {
        let mut claim = Self {
            pool: pool_index,
            requirements: narrowed.requirements,
            cells: narrowed.cells,
            options: narrowed.options,
            requests: Resources::default(),
            pods: Vec::new(),
            least: [i64::MIN; 4],
            absorbed: FixedBitSet::new(),
            rejected: FixedBitSet::new(),
            ports: attempt.ports.to_vec(),
            open: SmallVec::new(),
        };
        claim.absorbed.grow_and_insert(attempt.node_form);
        claim.grow(pool, attempt, None).then_some(claim)
    }

    /// Whether this shape was turned down before.
    pub(crate) fn has_rejected(&self, attempt: &Attempt<'_>) -> bool {
        self.rejected.contains(attempt.id)
    }

    /// Adds a pod if some type holds it with the others, in a domain that will do; else nothing
    /// changes.
    pub(crate) fn try_add(
        &mut self,
        pool: &CompiledPool,
        attempt: &Attempt<'_>,
        asked: Option<(&Ask, &Topology)>,
    ) -> bool {
        let mut narrowed = None;
        let absorbed = self.absorbed.contains(attempt.node_form);
        if !attempt.ports.is_empty() && ports_conflict(attempt.ports, &self.ports) {
            return self.reject(attempt);
        }
        if !absorbed {
            narrowed = self.narrow(pool, attempt.rung);
            if narrowed.is_none() {
                return self.reject(attempt);
            }
        }
        let mut is_final = true;
        if let Some((ask, topology)) = asked {
            match self.settled(ask, topology, narrowed.as_ref()) {
                Settled::Refused => return false,
                Settled::AsIs => {}
                Settled::To(requirements) => {
                    let before = narrowed.unwrap_or_else(|| self.narrowed());
                    let Ok(settled) = before.by(&requirements, &pool.pool.catalog) else {
                        return false;
                    };
                    // Another time the domain may be another.
                    is_final = false;
                    narrowed = Some(settled);
                }
            }
        }
        let changed = narrowed.is_some();
        if !self.grow(pool, attempt, narrowed) {
            return is_final && self.reject(attempt);
        }
        if changed {
            self.open.clear();
        }
        self.absorbed.grow_and_insert(attempt.node_form);
        self.ports.extend(attempt.ports.iter().cloned());
        true
    }

    fn reject(&mut self, attempt: &Attempt<'_>) -> bool {
        self.rejected.grow_and_insert(attempt.id);
        false
    }

    fn narrowed(&self) -> Narrowed {
        Narrowed {
            requirements: self.requirements.clone(),
            cells: self.cells,
            options: self.options.clone(),
        }
    }

    fn settled(&mut self, ask: &Ask, topology: &Topology, narrowed: Option<&Narrowed>) -> Settled {
        if let Some(narrowed) = narrowed {
            return settle(ask, topology, |key| topology.open_domains(key, &narrowed.requirements));
        }
        let (open, requirements) = (&mut self.open, &self.requirements);
        settle(ask, topology, |key| {
            if open.len() <= key {
                open.resize(key + 1, None);
            }
            *open[key].get_or_insert_with(|| topology.open_domains(key, requirements))
        })
    }

    fn narrow(&self, pool: &CompiledPool, rung: &Rung) -> Option<Narrowed> {
        if untolerated(&pool.pool.taints, &rung.tolerations).is_some()
            || !self.requirements.is_compatible(&rung.requirements, Undefined::WellKnownAllowed)
        {
            return None;
        }
        self.narrowed().by(&rung.requirements, &pool.pool.catalog).ok()
    }

    /// Raises the requests by a pod's and drops the types that no longer hold them.
    fn grow(
        &mut self,
        pool: &CompiledPool,
        attempt: &Attempt<'_>,
        narrowed: Option<Narrowed>,
    ) -> bool {
        let mut requests = self.requests.clone();
        requests.add(attempt.requests);
        let requested = core(&requests);
        let simple = requests.extended.is_empty() && narrowed.is_none() && attempt.ports.is_empty();
        if simple && (0..4).all(|resource| requested[resource] <= self.least[resource]) {
            self.requests = requests;
            return true;
        }
        let mut options = narrowed.as_ref().map_or(&self.options, |n| &n.options).clone();
        let mut least: Core = [i64::MAX; 4];
        for index in narrowed.as_ref().map_or(&self.options, |n| &n.options).ones() {
            if pool.fits(index, &requests, &requested) {
                for (least, usable) in std::iter::zip(&mut least, &pool.usable[index]) {
                    *least = (*least).min(*usable);
                }
            } else {
                options.set(index, false);
            }
        }
        if !attempt.ports.is_empty() {
            pool.retain_with_ports(attempt.ports, &mut options);
        }
        let requirements = narrowed.as_ref().map_or(&self.requirements, |n| &n.requirements);
        let catalog = &pool.pool.catalog;
        if options.is_clear() || unmet_min_values(requirements, catalog, &options).is_some() {
            return false;
        }
        if let Some(narrowed) = narrowed {
            (self.requirements, self.cells) = (narrowed.requirements, narrowed.cells);
        }
        (self.requests, self.options, self.least) = (requests, options, least);
        true
    }

    /// The finished claim.
    pub(crate) fn finish(mut self, pool: &CompiledPool) -> PlannedClaim {
        let catalog = &pool.pool.catalog;
        self.requests.add(&pool.least_overhead(&self.options));
        self.requirements.remove(labels::HOSTNAME);
        PlannedClaim {
            pool: self.pool,
            types: catalog.by_price(&self.options, self.cells),
            cells: self.cells,
            requirements: self.requirements,
            requests: self.requests,
            pods: self.pods,
        }
    }
}

/// The first requirement whose minValues the types cannot meet: key, wanted, found.
pub(crate) fn unmet_min_values(
    requirements: &Requirements,
    catalog: &Catalog,
    options: &TypeSet,
) -> Option<(CompactString, usize, usize)> {
    if !requirements.has_min_values() {
        return None;
    }
    requirements.iter().find_map(|requirement| {
        let wanted = requirement.min_values? as usize;
        let found = catalog.distinct_values(options, requirement);
        (found < wanted).then(|| (requirement.key.clone(), wanted, found))
    })
}

/// Says why no type of a pool would do for a pod on a node of its own.
pub(crate) fn explain(
    pool: &CompiledPool,
    within_limits: &TypeSet,
    attempt: &Attempt<'_>,
) -> PoolFailure {
    if let Some(taint) = untolerated(&pool.pool.taints, &attempt.rung.tolerations) {
        return PoolFailure::Taint(taint.clone());
    }
    let catalog = &pool.pool.catalog;
    let template = Narrowed::of_pool(pool);
    let narrowed = match template.by(&attempt.rung.requirements, catalog) {
        Ok(narrowed) => narrowed,
        Err(failure) => return failure,
    };
    let mut failure = TypeFailure {
        requests: attempt.requests.clone(),
        overhead: (pool.least_overhead(&pool.options), pool.most_overhead()),
        ..TypeFailure::default()
    };
    let requested = core(attempt.requests);
    let mut fitting = TypeSet::with_capacity(catalog.len());
    for index in within_limits.ones() {
        let type_index = index as u32;
        let met = narrowed.requirements.iter().all(|requirement| {
            catalog.satisfies(type_index, requirement)
                && catalog.available(type_index) & catalog.cells_where(requirement) != 0
        });
        let fits = pool.fits(index, attempt.requests, &requested);
        let offered = catalog.available(type_index) & narrowed.cells != 0;
        failure.requirements_met |= met;
        failure.fits |= fits;
        failure.has_offering |= offered;
        failure.requirements_and_fits |= met && fits && !offered;
        failure.requirements_and_offering |= met && offered && !fits;
        failure.fits_and_offering |= fits && offered && !met;
        if met && fits && offered {
            fitting.insert(index);
        }
    }
    failure.min_values = unmet_min_values(&narrowed.requirements, catalog, &fitting)
        .map(|(key, wanted, found)| (key.to_string(), wanted, found));
    failure.requirements = narrowed.requirements;
    PoolFailure::Types(Box::new(failure))
}
