//! The node that a micro-VM is: its names, labels, taint and amounts.
//!
//! A node holds its one pod and nothing else. What it says to have is more than what is billed, since
//! VMs come in fewer sizes than are sold; the smallest is observed (2 cpus, 4,037,540 KiB), those above
//! are modelled on it.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use wharf_model::labels;
use wharf_model::random::{Random, fnv1a};
use wharf_model::taints;

use crate::COMPUTE_TYPE;
use crate::size::Size;
use crate::storage::DEFAULT_GIB;

/// What the label and the taint of the compute type say.
pub const FARGATE: &str = "fargate";

const MEMORY_SMALLEST_MIB: u32 = 4_096;
const CPUS_SMALLEST: u32 = 2;
/// What of its memory a VM does not see: 4 GiB less the 4,037,540 KiB seen.
const MEMORY_UNSEEN_KIB: u64 = 156_764;
/// The kubelet evicts below 100 MiB.
const MEMORY_EVICTION_KIB: u64 = 100 * 1_024;
/// What a VM with the default storage sees of its disk, which is 10 GiB larger.
const STORAGE_SEEN_KIB: u64 = 30_832_548;
const STORAGE_SEEN_OF_GIB: u64 = DISK_MORE_GIB + DEFAULT_GIB as u64;
const DISK_MORE_GIB: u64 = 10;

/// The host name of an address, as EC2 gives it: `ip-10-10-27-74.ap-northeast-2.compute.internal`.
pub fn host_name(address: Ipv4Addr, region: &str) -> String {
    let [a, b, c, d] = address.octets();
    let domain = match region {
        "us-east-1" => "ec2.internal".to_owned(),
        _ => format!("{region}.compute.internal"),
    };
    format!("ip-{a}-{b}-{c}-{d}.{domain}")
}

/// The name of the node with an address: that of the host behind `fargate-`.
pub fn name(address: Ipv4Addr, region: &str) -> String {
    format!("fargate-{}", host_name(address, region))
}

/// The name that Fargate gives to the VM of the pod with this uid: 10 and 32 hexadecimal digits.
pub fn machine_id(seed: u64, pod_uid: &str) -> String {
    let mut random = Random::new(seed ^ fnv1a(b"fargate machine"), fnv1a(pod_uid.as_bytes()));
    let first = random.hex(10);
    format!("{first}-{}", random.hex(32))
}

/// `aws:///ap-northeast-2b/368270442a-793d42d32c704bb793ca88a6a14ddd6e/fargate-ip-…`.
pub fn provider_id(zone: &str, machine_id: &str, node_name: &str) -> String {
    format!("aws:///{zone}/{machine_id}/{node_name}")
}

/// The node's labels. None names an instance type.
pub fn node_labels(region: &str, zone: &str, host_name: &str) -> BTreeMap<String, String> {
    [
        (labels::ARCH_BETA, "amd64"),
        (labels::OS_BETA, "linux"),
        (COMPUTE_TYPE, FARGATE),
        (labels::TOPOLOGY_REGION_BETA, region),
        (labels::TOPOLOGY_ZONE_BETA, zone),
        (labels::ARCH, "amd64"),
        (labels::HOSTNAME, host_name),
        (labels::OS, "linux"),
        (labels::TOPOLOGY_REGION, region),
        (labels::TOPOLOGY_ZONE, zone),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// The taint that keeps other pods off.
pub fn taint() -> Taint {
    Taint { value: Some(FARGATE.to_owned()), ..taints::taint(COMPUTE_TYPE, "NoSchedule") }
}

/// What the node says to have, and what of it is for its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// Capacity by resource name.
    pub capacity: BTreeMap<String, String>,
    /// Allocatable by resource name.
    pub allocatable: BTreeMap<String, String>,
}

/// The amounts of a VM of a size with so much storage.
pub fn amounts(size: Size, storage_gib: u32) -> Amounts {
    let cpus = size.cpu_milli.div_ceil(1_000).max(CPUS_SMALLEST).to_string();
    let memory_kib =
        u64::from(size.memory_mib.max(MEMORY_SMALLEST_MIB)) * 1_024 - MEMORY_UNSEEN_KIB;
    let disk_gib = u64::from(storage_gib) + DISK_MORE_GIB;
    let storage_kib = STORAGE_SEEN_KIB * disk_gib / STORAGE_SEEN_OF_GIB;
    let storage_bytes = storage_kib * 1_024;
    // A tenth, as the kubelet's threshold of single precision has it.
    let eviction_bytes = (storage_bytes as f64 * f64::from(0.1_f32)) as u64;
    let amounts = |memory_kib: u64, storage: String| {
        [
            ("cpu", cpus.clone()),
            ("ephemeral-storage", storage),
            ("hugepages-1Gi", "0".to_owned()),
            ("hugepages-2Mi", "0".to_owned()),
            ("memory", format!("{memory_kib}Ki")),
            ("pods", "1".to_owned()),
        ]
        .into_iter()
        .map(|(name, amount)| (name.to_owned(), amount))
        .collect()
    };
    Amounts {
        capacity: amounts(memory_kib, format!("{storage_kib}Ki")),
        allocatable: amounts(
            memory_kib - MEMORY_EVICTION_KIB,
            (storage_bytes - eviction_bytes).to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use wharf_model::quantity::Quantity;

    use super::*;
    use crate::size::{OVERHEAD_MIB, table};

    #[test]
    fn names_are_those_of_fargate() {
        let address = Ipv4Addr::new(10, 10, 27, 74);
        assert_eq!(
            name(address, "ap-northeast-2"),
            "fargate-ip-10-10-27-74.ap-northeast-2.compute.internal"
        );
        assert_eq!(name(address, "us-east-1"), "fargate-ip-10-10-27-74.ec2.internal");
        let id = machine_id(1, "pod");
        assert_eq!(id.len(), "368270442a-793d42d32c704bb793ca88a6a14ddd6e".len());
        assert_eq!(id, machine_id(1, "pod"));
        assert_ne!(id, machine_id(1, "other"));
        let provider = provider_id("us-west-2b", "0123456789-ab", "fargate-ip-1-2-3-4.x");
        assert_eq!(provider, "aws:///us-west-2b/0123456789-ab/fargate-ip-1-2-3-4.x");
        assert_eq!(taints::display(&taint()), "eks.amazonaws.com/compute-type=fargate:NoSchedule");
    }

    #[test]
    fn the_smallest_node_is_as_seen() {
        let size = "0.5vCPU 1GB".parse().expect("a size");
        let Amounts { capacity, allocatable } = amounts(size, 20);
        assert_eq!(capacity["cpu"], "2");
        assert_eq!(capacity["memory"], "4037540Ki");
        assert_eq!(capacity["ephemeral-storage"], "30832548Ki");
        assert_eq!(capacity["pods"], "1");
        assert_eq!(allocatable["memory"], "3935140Ki");
        assert_eq!(allocatable["ephemeral-storage"], "28415276190");
        assert!(!node_labels("r", "z", "h").contains_key(labels::INSTANCE_TYPE));
    }

    #[test]
    fn a_node_always_holds_what_its_size_was_chosen_for() {
        let bytes = |text: &str| Quantity::parse(text).expect("a quantity").value_ceil();
        for size in table() {
            let allocatable = amounts(size, 20).allocatable;
            let pod = i64::from(size.memory_mib) - OVERHEAD_MIB;
            assert!(bytes(&allocatable["memory"]) >= pod << 20, "{size}");
            let cpu = Quantity::parse(&allocatable["cpu"]).expect("a quantity").milli_value_ceil();
            assert!(cpu >= i64::from(size.cpu_milli), "{size}");
        }
        let size = "0.25vCPU 0.5GB".parse().expect("a size");
        for (asked, provisioned) in [(20_i64, 20), (100, 115), (175, 200)] {
            let allocatable = amounts(size, provisioned).allocatable;
            assert!(bytes(&allocatable["ephemeral-storage"]) >= asked << 30, "{asked}");
        }
    }
}
