//! From a NodeClaim to the request for its machine: which types and zones would do, cheapest first.

use std::collections::BTreeMap;

use wharf_cloud::catalog::Catalog as CloudCatalog;
use wharf_model::auto_mode::fee;
use wharf_model::instance::KubeletArguments;
use wharf_model::instance_type::CapacityType;
use wharf_model::karpenter::NodeClaim;
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::requirements::{Requirement, Requirements};
use wharf_model::resources::Resources;
use wharf_model::taints;
use wharf_model::time::Time;
use wharf_ports::cloud::{Allocation, LaunchOverride, LaunchRequest};
use wharf_provision::catalog::{Catalog, Cells, TypeSet};

use super::class::NodeClass;

/// At most so many instance types go into a launch (upstream's bound).
const TYPES_IN_LAUNCH_MAX: usize = 60;
/// Labels of types that are bought only when asked for.
const EXOTIC: [&str; 4] = [
    labels::INSTANCE_GPU_NAME,
    labels::INSTANCE_ACCELERATOR_NAME,
    labels::eks::INSTANCE_GPU_NAME,
    labels::eks::INSTANCE_ACCELERATOR_NAME,
];

/// What a NodeClaim requires of its machine. A malformed entry is left out: the API lets none in.
pub(super) fn claim_requirements(claim: &NodeClaim) -> Requirements {
    claim
        .spec
        .requirements
        .iter()
        .filter_map(|entry| {
            Requirement::parse(&entry.key, &entry.operator, &entry.values, entry.min_values).ok()
        })
        .collect()
}

/// Who sells machines, to whom, and when.
pub(super) struct Seller<'a> {
    /// The region's prices.
    pub(super) cloud: &'a CloudCatalog,
    /// The cluster's name.
    pub(super) cluster: &'a str,
    /// The time of the request: fees change.
    pub(super) now: Time,
}

/// The request for a NodeClaim's machine; `None` if nothing that is available would do.
pub(super) fn request(
    claim: &NodeClaim,
    class: NodeClass<'_>,
    catalog: &Catalog,
    seller: &Seller<'_>,
) -> Option<LaunchRequest> {
    let requirements = claim_requirements(claim);
    let (types, cells) = fitting(claim, &requirements, catalog);
    let capacity_type = CapacityType::ALL.into_iter().find(|capacity_type| {
        let cells = cells & catalog.cells_of(*capacity_type);
        types.ones().any(|index| catalog.available(index as u32) & cells != 0)
    })?;
    let cells_wanted = cells & catalog.cells_of(capacity_type);
    let types = if requirements.has_min_values() {
        types
    } else {
        let generic = without_exotic(types, catalog);
        if capacity_type == CapacityType::Spot {
            without_dear_spot(generic, catalog, cells)
        } else {
            generic
        }
    };
    let chosen = catalog.by_price(&types, cells_wanted);
    let chosen = &chosen[..chosen.len().min(TYPES_IN_LAUNCH_MAX)];
    let arch = catalog.get(*chosen.first()?).label(labels::ARCH).unwrap_or("amd64");
    let name = claim.metadata.name.clone().unwrap_or_default();
    Some(LaunchRequest {
        token: claim.metadata.uid.clone().unwrap_or_default(),
        node_claim: name,
        capacity_type: capacity_type.as_str().to_owned(),
        overrides: overrides(chosen, class, catalog, cells_wanted, seller),
        allocation: Allocation::LowestPrice,
        subnets: class.subnets().iter().map(|subnet| subnet.id.clone()).collect(),
        ami_family: class.ami_family().to_owned(),
        image_id: class.image_for(arch),
        tags: tags(claim, class, seller.cluster),
        kubelet: kubelet_arguments(claim, class, capacity_type),
        managed: class.is_auto(),
    })
}

/// The types that satisfy a NodeClaim and hold what it requests, and the ways to buy them.
fn fitting(claim: &NodeClaim, requirements: &Requirements, catalog: &Catalog) -> (TypeSet, Cells) {
    let (mut types, mut cells) = (catalog.all(), catalog.all_cells());
    for requirement in requirements.iter() {
        catalog.retain_where(&mut types, requirement);
        cells &= catalog.cells_where(requirement);
    }
    let requests = Resources::from_map(&claim.spec.resources.requests);
    let unfit: Vec<usize> = types
        .ones()
        .filter(|index| {
            let index = *index as u32;
            catalog.available(index) & cells == 0
                || !requests.fits_in(&catalog.get(index).allocatable)
        })
        .collect();
    for index in unfit {
        types.set(index, false);
    }
    (types, cells)
}

/// Without bare metal and accelerated types, as long as others remain.
fn without_exotic(types: TypeSet, catalog: &Catalog) -> TypeSet {
    let is_exotic = |index: usize| {
        let machine = catalog.get(index as u32);
        let metal = machine.name.contains(".metal");
        metal || EXOTIC.iter().any(|key| !machine.label_values(key).is_empty())
    };
    let generic: TypeSet = types.ones().filter(|index| !is_exotic(*index)).collect();
    if generic.is_clear() { types } else { generic }
}

/// Without types whose spot price is above the cheapest on-demand price that would also do.
fn without_dear_spot(types: TypeSet, catalog: &Catalog, cells: Cells) -> TypeSet {
    let on_demand = cells & catalog.cells_of(CapacityType::OnDemand);
    let spot = cells & catalog.cells_of(CapacityType::Spot);
    let cheapest = types.ones().filter_map(|i| catalog.cheapest(i as u32, on_demand)).min();
    let Some(limit) = cheapest else { return types };
    types
        .ones()
        .filter(|index| catalog.cheapest(*index as u32, spot).is_some_and(|price| price <= limit))
        .collect()
}

fn overrides(
    types: &[u32],
    class: NodeClass<'_>,
    catalog: &Catalog,
    cells: Cells,
    seller: &Seller<'_>,
) -> Vec<LaunchOverride> {
    let mut overrides = Vec::new();
    for index in types {
        let machine = catalog.get(*index);
        let fee = auto_mode_fee(&machine.name, class, seller);
        let amounts = |resources: &Resources| -> BTreeMap<String, String> {
            resources.to_map().into_iter().map(|(name, quantity)| (name, quantity.0)).collect()
        };
        for (bit, cell) in catalog.cells().iter().enumerate() {
            let open = catalog.available(*index) & cells & (1 << bit) != 0;
            let Some(price) = catalog.price(*index, bit).filter(|_| open) else { continue };
            overrides.push(LaunchOverride {
                instance_type: machine.name.to_string(),
                zone: cell.zone.to_string(),
                zone_id: cell.zone_id.to_string(),
                price,
                fee,
                capacity: amounts(&machine.capacity),
                allocatable: amounts(&class.offered(&machine.allocatable)),
            });
        }
    }
    overrides.sort_by(|a, b| {
        (a.price, &a.instance_type, &a.zone).cmp(&(b.price, &b.instance_type, &b.zone))
    });
    overrides
}

/// What Auto Mode takes for running a machine of a type.
fn auto_mode_fee(instance_type: &str, class: NodeClass<'_>, seller: &Seller<'_>) -> Price {
    let machine = seller.cloud.machine(instance_type).filter(|_| class.is_auto());
    machine.map_or(Price::ZERO, |machine| {
        let (on_demand, _) = seller.cloud.on_demand_price(machine);
        fee::fee(instance_type, on_demand, seller.now)
    })
}

fn tags(claim: &NodeClaim, class: NodeClass<'_>, cluster: &str) -> BTreeMap<String, String> {
    let mut tags = class.tags().clone();
    let pool = claim.metadata.labels.as_ref().and_then(|map| map.get(labels::NODEPOOL));
    tags.extend([
        (format!("kubernetes.io/cluster/{cluster}"), "owned".to_owned()),
        (labels::NODEPOOL.to_owned(), pool.cloned().unwrap_or_default()),
        ("eks:eks-cluster-name".to_owned(), cluster.to_owned()),
        (class.label_key().to_owned(), class.name().to_owned()),
    ]);
    tags
}

/// What the boot script tells the kubelet: the claim's labels and taints, and the taint that keeps
/// pods off until the claim has found its node.
fn kubelet_arguments(
    claim: &NodeClaim,
    class: NodeClass<'_>,
    capacity_type: CapacityType,
) -> KubeletArguments {
    let mut node_labels = claim.metadata.labels.clone().unwrap_or_default();
    if class.is_auto() {
        // The kubelet brings the claim's taints itself.
        node_labels.insert(labels::DO_NOT_SYNC_TAINTS.to_owned(), "true".to_owned());
    }
    node_labels.insert(labels::CAPACITY_TYPE.to_owned(), capacity_type.as_str().to_owned());
    let mut taints = vec![taints::taint(labels::TAINT_UNREGISTERED, taints::NO_EXECUTE)];
    taints.extend(claim.spec.taints.iter().chain(&claim.spec.startup_taints).cloned());
    KubeletArguments { labels: node_labels, taints, ..KubeletArguments::default() }
}

/// The labels of a node of a type: those with one value.
pub(super) fn type_labels(catalog: &Catalog, instance_type: &str) -> Vec<(String, String)> {
    let Some(index) = catalog.find(instance_type) else { return Vec::new() };
    let machine = catalog.get(index);
    machine
        .labels
        .iter()
        .filter_map(|label| match &label.values[..] {
            [value] => Some((label.key.to_owned(), value.to_string())),
            _ => None,
        })
        .collect()
}
