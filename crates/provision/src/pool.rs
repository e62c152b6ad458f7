//! A node pool as the solver sees it: which types it may buy, what daemons take of each, and how
//! much of its limits is left.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use wharf_model::requirements::{Requirements, Undefined};
use wharf_model::resources::Resources;
use wharf_model::taints::{self, ComparisonOperators};

use crate::catalog::{Catalog, Cells, Core, TypeSet, core};
use crate::failure::PoolFailure;
use crate::pod::tolerate_soft_taints;
use crate::terms::{HostPort, ports_conflict};

/// The name under which limits count nodes.
pub const NODES: &str = "nodes";

/// A pool that may launch nodes.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub name: CompactString,
    /// Precedence; higher first.
    pub weight: i32,
    /// The instance types of its node class.
    pub catalog: Arc<Catalog>,
    /// What its template asks of a node, the template's labels and the pool's own label included.
    pub requirements: Requirements,
    /// The taints of its nodes. Startup taints go away by themselves and are not here.
    pub taints: Vec<Taint>,
    /// What is left of the limits: `spec.limits` less the capacity of all its nodes, by resource
    /// (and [`NODES`]); only resources that are limited.
    pub remaining: Vec<(CompactString, i64)>,
    /// The pods that each of its nodes may have to run besides.
    pub daemons: Vec<Daemon>,
}

/// A daemon set's pod.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// What it asks for, its pod slot included.
    pub requests: Resources,
    /// Node selector with each of its required affinity terms: any may hold. Never empty.
    pub alternatives: Vec<Requirements>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// The node's ports that it takes.
    pub ports: Vec<HostPort>,
}

/// A pool compiled for the solver.
#[derive(Debug)]
pub(crate) struct CompiledPool {
    pub(crate) pool: Pool,
    /// The types that satisfy the template and can be bought now.
    pub(crate) options: TypeSet,
    /// The ways to buy that the template allows.
    pub(crate) cells: Cells,
    /// Per type: what is left for pods after daemons.
    pub(crate) usable: Vec<Core>,
    /// Groups of types with the same daemons.
    pub(crate) groups: Vec<DaemonGroup>,
    /// Per type: its group.
    pub(crate) group_of: Vec<u16>,
}

/// What the daemons of a group of types ask for together.
#[derive(Clone, Debug, Default)]
pub(crate) struct DaemonGroup {
    pub(crate) overhead: Resources,
    pub(crate) ports: Vec<HostPort>,
}

/// Sorts pools into the order in which they are tried: weight descending, then name descending
/// (upstream breaks ties from Z to A).
pub fn sort_pools(pools: &mut [Pool]) {
    pools.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| b.name.cmp(&a.name)));
}

impl CompiledPool {
    pub(crate) fn new(pool: Pool) -> Self {
        let catalog = Arc::clone(&pool.catalog);
        let mut options = catalog.all();
        let mut cells = catalog.all_cells();
        for requirement in pool.requirements.iter() {
            catalog.retain_where(&mut options, requirement);
            cells &= catalog.cells_where(requirement);
        }
        for index in 0..catalog.len() {
            if catalog.available(index as u32) & cells == 0 {
                options.set(index, false);
            }
        }
        let (groups, group_of) = daemon_groups(&pool);
        let usable = std::iter::zip(catalog.allocatable(), &group_of)
            .map(|(allocatable, group)| {
                let overhead = core(&groups[usize::from(*group)].overhead);
                std::array::from_fn(|resource| allocatable[resource] - overhead[resource])
            })
            .collect();
        Self { pool, options, cells, usable, groups, group_of }
    }

    /// Whether requests (all of a claim's, without daemons) fit a type.
    pub(crate) fn fits(&self, index: usize, requests: &Resources, requested: &Core) -> bool {
        let usable = &self.usable[index];
        let holds = (0..4).all(|resource| requested[resource] <= usable[resource]);
        holds && (requests.extended.is_empty() || self.fits_extended(index, requests))
    }

    /// What a type has of a resource for pods.
    pub(crate) fn left_for_pods(&self, index: usize, name: &str) -> i64 {
        let offered = &self.pool.catalog.get(index as u32).allocatable;
        let overhead = &self.groups[usize::from(self.group_of[index])].overhead;
        offered.get(name) - overhead.get(name)
    }

    fn fits_extended(&self, index: usize, requests: &Resources) -> bool {
        let mut extended = requests.extended.iter();
        extended.all(|(name, amount)| *amount <= self.left_for_pods(index, name))
    }

    /// Takes away from `set` the types whose daemons take one of these ports.
    pub(crate) fn retain_with_ports(&self, ports: &[HostPort], set: &mut TypeSet) {
        let taken = |index: usize| {
            ports_conflict(ports, &self.groups[usize::from(self.group_of[index])].ports)
        };
        let taken: Vec<usize> = set.ones().filter(|index| taken(*index)).collect();
        taken.into_iter().for_each(|index| set.set(index, false));
    }

    /// The least that daemons add on any type of `set`, resource by resource: what a claim's
    /// requests are raised by when it is finished.
    pub(crate) fn least_overhead(&self, set: &TypeSet) -> Resources {
        let mut seen = vec![false; self.groups.len()];
        for index in set.ones() {
            seen[usize::from(self.group_of[index])] = true;
        }
        let mut groups =
            std::iter::zip(&self.groups, seen).filter(|(_, seen)| *seen).map(|(group, _)| group);
        let Some(first) = groups.next() else { return Resources::default() };
        groups.fold(first.overhead.clone(), |least, group| least_of(&least, &group.overhead))
    }

    /// The most that daemons add on any type.
    pub(crate) fn most_overhead(&self) -> Resources {
        self.groups.iter().fold(Resources::default(), |mut most, group| {
            most.max(&group.overhead);
            most
        })
    }

    /// Takes away from `set` the types that would exceed what is left of the limits.
    pub(crate) fn retain_within(
        &self,
        remaining: &[(CompactString, i64)],
        set: &mut TypeSet,
    ) -> Result<(), PoolFailure> {
        if remaining.is_empty() {
            return Ok(());
        }
        if remaining.iter().any(|(name, left)| name == NODES && *left <= 0) {
            return Err(PoolFailure::NodeLimit { pool: self.pool.name.clone() });
        }
        let exceeds = |index: usize| {
            let capacity = &self.pool.catalog.get(index as u32).capacity;
            remaining.iter().any(|(name, left)| name != NODES && capacity.get(name) > *left)
        };
        let dear: Vec<usize> = set.ones().filter(|index| exceeds(*index)).collect();
        for index in dear {
            set.set(index, false);
        }
        if set.is_clear() {
            return Err(PoolFailure::Limits { pool: self.pool.name.clone() });
        }
        Ok(())
    }

    /// Lowers what is left of the limits by the most a launch from `set` could use.
    pub(crate) fn charge(&self, remaining: &mut [(CompactString, i64)], set: &TypeSet) {
        for (name, left) in remaining {
            let most = if name == NODES {
                1
            } else {
                let capacity = |index| self.pool.catalog.get(index as u32).capacity.get(name);
                set.ones().map(capacity).max().unwrap_or(0)
            };
            *left = left.saturating_sub(most);
        }
    }
}

/// Groups types by the daemons that would run on them. A daemon must tolerate the template's hard
/// taints (upstream lets it tolerate every PreferNoSchedule) and match template and type.
fn daemon_groups(pool: &Pool) -> (Vec<DaemonGroup>, Vec<u16>) {
    let catalog = &pool.catalog;
    let types = catalog.len();
    let mut sets: Vec<(TypeSet, &Daemon)> = Vec::new();
    for daemon in &pool.daemons {
        let mut tolerations = daemon.tolerations.clone();
        tolerations.push(tolerate_soft_taints());
        if untolerated(&pool.taints, &tolerations).is_some() {
            continue;
        }
        let mut on = TypeSet::with_capacity(types);
        for alternative in &daemon.alternatives {
            if !pool.requirements.is_compatible(alternative, Undefined::WellKnownAllowed) {
                continue;
            }
            let mut set = catalog.all();
            for requirement in alternative.iter() {
                catalog.retain_where(&mut set, requirement);
            }
            on.union_with(&set);
        }
        sets.push((on, daemon));
    }
    let mut signatures: Vec<Vec<bool>> = Vec::new();
    let mut groups: Vec<DaemonGroup> = Vec::new();
    let group_of = (0..types)
        .map(|index| {
            let signature: Vec<bool> = sets.iter().map(|(on, _)| on.contains(index)).collect();
            let known = signatures.iter().position(|other| *other == signature);
            let group = known.unwrap_or_else(|| {
                let mut group = DaemonGroup::default();
                for ((_, daemon), _) in std::iter::zip(&sets, &signature).filter(|(_, runs)| **runs)
                {
                    group.overhead.add(&daemon.requests);
                    group.ports.extend(daemon.ports.iter().cloned());
                }
                signatures.push(signature);
                groups.push(group);
                groups.len() - 1
            });
            group as u16
        })
        .collect();
    (groups, group_of)
}

/// The first taint that keeps a pod with these tolerations away. PreferNoSchedule counts until the
/// pod's preferences are given up.
pub(crate) fn untolerated<'t>(
    taints: &'t [Taint],
    tolerations: &[Toleration],
) -> Option<&'t Taint> {
    taints::first_untolerated(taints, tolerations, ComparisonOperators::On, |_| true)
}

fn least_of(left: &Resources, right: &Resources) -> Resources {
    let mut least = Resources::default();
    for (name, amount) in left.iter() {
        least.set(name, amount.min(right.get(name)));
    }
    least
}
