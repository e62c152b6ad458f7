//! Small worlds for tests: a few machine types, pools, pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::format_compact;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use wharf_model::instance_type::{
    CapacityType, InstanceType, InstanceTypeLabel, Offering, PriceSource,
};
use wharf_model::karpenter::ConsolidationPolicy;
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::object::ObjectKey;
use wharf_model::requirements::{Operator, Requirement, Requirements};
use wharf_model::resources::Resources;
use wharf_model::taints;
use wharf_model::time::Time;
use wharf_provision::catalog::Catalog;
use wharf_provision::disruption::candidate::Candidate;
use wharf_provision::disruption::cost::Cost;
use wharf_provision::node::ExistingNode;
use wharf_provision::pod::{Constraints, Origin, PodRequest};
use wharf_provision::pool::Pool;

pub(crate) const GIB: i64 = 1 << 30;
pub(crate) const ZONES: [&str; 2] = ["east-a", "east-b"];

/// `<family>.<cpu>` for amd64 and arm64 families, 1 to 32 cpus, 2 or 4 GiB for each, prices by size
/// with spot at 40 %.
pub(crate) fn types() -> Vec<InstanceType> {
    let families = [("c", "amd64", 2, 40), ("m", "amd64", 4, 50), ("g", "arm64", 2, 34)];
    let mut types = Vec::new();
    for (family, arch, gib, cents_per_cpu) in families {
        for cpus in [1, 2, 4, 8, 16, 32] {
            types.push(machine(family, arch, cpus, gib * cpus, cents_per_cpu * cpus));
        }
    }
    types
}

fn machine(family: &str, arch: &str, cpus: i64, gib: i64, mills: i64) -> InstanceType {
    let capacity = Resources {
        cpu_milli: cpus * 1000,
        memory_bytes: gib * GIB,
        ephemeral_storage_bytes: 20 * GIB,
        pods: 8 * cpus,
        ..Resources::default()
    };
    let overhead = Resources { cpu_milli: 80, memory_bytes: GIB / 2, ..Resources::default() };
    let none = Resources::default();
    let price = Price::from_nano_dollars_per_hour(mills * 1_000_000);
    let offering = |capacity_type, zone: &str, price| Offering {
        capacity_type,
        zone: zone.into(),
        zone_id: format_compact!("{zone}-id"),
        price,
        price_source: PriceSource::Published,
        available: true,
    };
    let label = |key, value: &str| InstanceTypeLabel { key, values: [value.into()].into() };
    let name = format!("{family}.{cpus}");
    let mut labels = vec![
        label(labels::ARCH, arch),
        label(labels::OS, "linux"),
        label(labels::INSTANCE_TYPE, &name),
        label(labels::INSTANCE_CATEGORY, family),
        label(labels::INSTANCE_CPU, &cpus.to_string()),
    ];
    labels.sort_by_key(|label| label.key);
    InstanceType {
        name: name.as_str().into(),
        labels,
        allocatable: InstanceType::compute_allocatable(&capacity, &overhead, &none, &none),
        capacity,
        kube_reserved: overhead,
        system_reserved: none.clone(),
        eviction_threshold: none,
        offerings: ZONES
            .iter()
            .map(|zone| offering(CapacityType::Spot, zone, price.scale(40, 100)))
            .chain(ZONES.iter().map(|zone| offering(CapacityType::OnDemand, zone, price)))
            .collect(),
    }
}

pub(crate) fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
    Requirement::new(key, operator, values)
}

/// A pool over [`types`] that buys on demand.
pub(crate) fn pool(name: &str) -> Pool {
    let requirements = Requirements::from_iter([
        requirement(labels::CAPACITY_TYPE, Operator::In, &["on-demand"]),
        requirement(labels::OS, Operator::In, &["linux"]),
        requirement(labels::NODEPOOL, Operator::In, &[name]),
    ]);
    Pool {
        name: name.into(),
        weight: 0,
        catalog: Arc::new(Catalog::new(types())),
        requirements,
        taints: Vec::new(),
        remaining: Vec::new(),
        daemons: Vec::new(),
    }
}

pub(crate) fn pod(name: &str, cpu_milli: i64, memory_bytes: i64) -> PodRequest {
    PodRequest {
        key: ObjectKey::namespaced("default", name),
        uid: name.into(),
        created: Time::EPOCH,
        requests: Resources { cpu_milli, memory_bytes, pods: 1, ..Resources::default() },
        labels: Arc::default(),
        constraints: Arc::new(Constraints::default()),
        origin: Origin::Pending,
    }
}

pub(crate) fn with_constraints(mut pod: PodRequest, constraints: Constraints) -> PodRequest {
    pod.constraints = Arc::new(constraints);
    pod
}

/// Constraints of a node selector.
pub(crate) fn selecting(key: &str, value: &str) -> Constraints {
    let selector = Requirements::from_iter([requirement(key, Operator::In, &[value])]);
    Constraints { selector, ..Constraints::default() }
}

pub(crate) fn taint(key: &str, effect: &str) -> Taint {
    taints::taint(key.to_owned(), effect)
}

pub(crate) fn tolerating(key: &str) -> Toleration {
    Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    }
}

/// A node of a type with pods on it, and the candidate it makes.
pub(crate) fn node(
    name: &str,
    pool: &Pool,
    type_name: &str,
    capacity_type: CapacityType,
    pods: &[PodRequest],
) -> (ExistingNode, Candidate) {
    let index = pool.catalog.find(type_name).expect("a known type");
    let machine = pool.catalog.get(index);
    let mut free = machine.allocatable.clone();
    for pod in pods {
        free.subtract(&pod.requests);
    }
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let labels = BTreeMap::from([
        label(labels::ARCH, machine.label(labels::ARCH).expect("an architecture")),
        label(labels::OS, "linux"),
        label(labels::INSTANCE_TYPE, type_name),
        label(labels::NODEPOOL, &pool.name),
        label(labels::CAPACITY_TYPE, capacity_type.as_str()),
        label(labels::TOPOLOGY_ZONE, ZONES[0]),
    ]);
    let existing = ExistingNode {
        name: name.into(),
        node_claim: name.into(),
        labels,
        taints: Vec::new(),
        free,
        initialized: true,
        settling: false,
        pods: Vec::new(),
        ports: Vec::new(),
    };
    let moving = pods
        .iter()
        .map(|pod| PodRequest { origin: Origin::Candidate, ..pod.clone() })
        .collect::<Vec<_>>();
    let candidate = Candidate {
        node: name.into(),
        node_claim: name.into(),
        pool: pool.name.clone(),
        instance_type: type_name.into(),
        type_known: true,
        capacity_type: Some(capacity_type),
        zone: Some(ZONES[0].into()),
        price: pool.catalog.node_price(type_name, capacity_type, ZONES[0]).expect("a price"),
        cost: Cost::of_rescheduling(moving.iter().map(|_| Cost::ONE)),
        pods: moving,
        consolidatable: true,
        drifted_since: None,
        static_pool: false,
        consolidates: true,
        policy: ConsolidationPolicy::WhenEmptyOrUnderutilized,
    };
    (existing, candidate)
}
