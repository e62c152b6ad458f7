//! Why a machine is bought and why it is the one it is: the reasons that `wharf why` prints.

use k8s_openapi::api::core::v1::Pod;
use wharf_model::karpenter::NodeClaim;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::resources::amount_text;
use wharf_ports::reason::{Because, Reason};
use wharf_provision::catalog::{Catalog, TypeSet};
use wharf_provision::claim::PlannedClaim;
use wharf_provision::failure::resources_text;
use wharf_provision::pod::PodRequest;

use super::log;

/// Types that a reason names with their prices.
const TYPES_TOLD: usize = 5;

/// Why a claim looks as it does: its pods, and the types that hold them by price.
pub(super) fn claim_reason(
    name: &str,
    planned: &PlannedClaim,
    catalog: &Catalog,
    batch: &[PodRequest],
) -> Reason {
    let pods = planned.pods.iter().map(|pod| batch[*pod as usize].key.to_string());
    let mut because = vec![
        Because::new("pods", format!("{} pods: {}", planned.pods.len(), log::list(pods))),
        Because::new("requests", resources_text(&planned.requests)),
        Because::new("requirements", planned.requirements.to_string()),
    ];
    because.extend(prices(planned, catalog));
    because.extend(passed_over(planned, catalog));
    Reason {
        kind: Kind::of::<NodeClaim>(),
        key: ObjectKey::cluster(name),
        by: "provisioner",
        decision: format!(
            "create {name} for {} pods, from {} instance types",
            planned.pods.len(),
            planned.types.len()
        ),
        because,
    }
}

/// Why a machine is bought for a pod.
pub(super) fn pod_reason(
    pod: &PodRequest,
    name: &str,
    planned: &PlannedClaim,
    catalog: &Catalog,
) -> Reason {
    let others = planned.pods.len() - 1;
    let mut because = vec![
        Because::new("requests", resources_text(&pod.requests)),
        Because::new("batch", format!("shares the machine with {others} other pods of its batch")),
    ];
    because.extend(prices(planned, catalog));
    Reason {
        kind: Kind::of::<Pod>(),
        key: pod.key.clone(),
        by: "provisioner",
        decision: format!("no node has room: a machine is bought, nodeclaim/{name}"),
        because,
    }
}

/// The cheapest types of a claim with their prices.
fn prices(planned: &PlannedClaim, catalog: &Catalog) -> Vec<Because> {
    let price = |index: &u32| {
        let price = catalog.cheapest(*index, planned.cells)?.per_hour();
        Some(Because::new(catalog.get(*index).name.to_string(), format!("holds them for {price}")))
    };
    planned.types.iter().take(TYPES_TOLD).filter_map(price).collect()
}

/// The cheapest types that did not make it, and why: too small, or excluded by a requirement.
fn passed_over(planned: &PlannedClaim, catalog: &Catalog) -> Vec<Because> {
    let mut taken = TypeSet::with_capacity(catalog.len());
    planned.types.iter().for_each(|index| taken.insert(*index as usize));
    let order = catalog.by_price(&catalog.all(), planned.cells);
    let why = |index: u32| {
        let machine = catalog.get(index);
        let broken =
            planned.requirements.iter().find(|requirement| !catalog.satisfies(index, requirement));
        if let Some(requirement) = broken {
            return format!("excluded by {requirement}");
        }
        let short = planned
            .requests
            .iter()
            .find(|(name, amount)| *amount > machine.allocatable.get(name))
            .map(|(name, _)| name.to_owned());
        match short {
            Some(name) => {
                let has = amount_text(&name, machine.allocatable.get(&name));
                format!("too small: offers {name} {has}")
            }
            None => "not chosen".to_owned(),
        }
    };
    order
        .into_iter()
        .filter(|index| !taken.contains(*index as usize))
        .filter_map(|index| Some((index, catalog.cheapest(index, planned.cells)?)))
        // Only those that would have been cheaper are of interest, the dearest of them first.
        .take_while(|(_, price)| {
            let first = planned.types.first();
            first.and_then(|index| catalog.cheapest(*index, planned.cells)) > Some(*price)
        })
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .take(TYPES_TOLD)
        .map(|(index, price)| {
            let name = catalog.get(index).name.to_string();
            Because::new(
                name,
                format!("{} would be cheaper, but is {}", price.per_hour(), why(index)),
            )
        })
        .collect()
}
