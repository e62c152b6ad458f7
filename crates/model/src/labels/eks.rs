//! The labels of EKS Auto Mode's nodes, in the domain `eks.amazonaws.com`. What self-managed Karpenter
//! says under `karpenter.k8s.aws/instance-…` is said here under `eks.amazonaws.com/instance-…`; the
//! former mean nothing to Auto Mode, and the latter nothing to Karpenter.

use super::{MANAGED_BY, TOPOLOGY_ZONE_ID};

/// The domain.
pub const DOMAIN: &str = "eks.amazonaws.com";
/// What kind of machine a node is; `auto` for those of Auto Mode.
pub const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";
/// The value of [`COMPUTE_TYPE`] on Auto Mode's nodes.
pub const COMPUTE_TYPE_AUTO: &str = "auto";
/// The value of [`MANAGED_BY`] on what EKS manages.
pub const MANAGER: &str = "eks";
/// The NodeClass a node was made from.
pub const NODE_CLASS: &str = "eks.amazonaws.com/nodeclass";
/// The hash of the NodeClass a NodeClaim was made from.
pub const NODE_CLASS_HASH: &str = "eks.amazonaws.com/nodeclass-hash";
/// The version of the hash in [`NODE_CLASS_HASH`].
pub const NODE_CLASS_HASH_VERSION: &str = "eks.amazonaws.com/nodeclass-hash-version";
/// The zone, in the words of Auto Mode's own EBS driver.
pub const EBS_ZONE: &str = "topology.ebs.csi.eks.amazonaws.com/zone";
/// The letters that a type's name begins with.
pub const INSTANCE_CATEGORY: &str = "eks.amazonaws.com/instance-category";
/// What stands before the dot of a type's name.
pub const INSTANCE_FAMILY: &str = "eks.amazonaws.com/instance-family";
/// The number in a type's family.
pub const INSTANCE_GENERATION: &str = "eks.amazonaws.com/instance-generation";
/// What stands after the dot of a type's name.
pub const INSTANCE_SIZE: &str = "eks.amazonaws.com/instance-size";
/// vCPUs.
pub const INSTANCE_CPU: &str = "eks.amazonaws.com/instance-cpu";
/// Who made the processor.
pub const INSTANCE_CPU_MANUFACTURER: &str = "eks.amazonaws.com/instance-cpu-manufacturer";
/// The processor's clock, in MHz.
pub const INSTANCE_CPU_SUSTAINED_CLOCK_SPEED_MHZ: &str =
    "eks.amazonaws.com/instance-cpu-sustained-clock-speed-mhz";
/// Memory in MiB.
pub const INSTANCE_MEMORY: &str = "eks.amazonaws.com/instance-memory";
/// Network bandwidth in Mbit/s.
pub const INSTANCE_NETWORK_BANDWIDTH: &str = "eks.amazonaws.com/instance-network-bandwidth";
/// Bandwidth to EBS in Mbit/s.
pub const INSTANCE_EBS_BANDWIDTH: &str = "eks.amazonaws.com/instance-ebs-bandwidth";
/// Local disks in GB.
pub const INSTANCE_LOCAL_NVME: &str = "eks.amazonaws.com/instance-local-nvme";
/// The hypervisor; empty on bare metal.
pub const INSTANCE_HYPERVISOR: &str = "eks.amazonaws.com/instance-hypervisor";
/// Whether traffic between instances is encrypted.
pub const INSTANCE_ENCRYPTION_IN_TRANSIT_SUPPORTED: &str =
    "eks.amazonaws.com/instance-encryption-in-transit-supported";
/// Whether it is a flex type.
pub const INSTANCE_CAPABILITY_FLEX: &str = "eks.amazonaws.com/instance-capability-flex";
/// The graphics processor.
pub const INSTANCE_GPU_NAME: &str = "eks.amazonaws.com/instance-gpu-name";
/// Who made the graphics processor.
pub const INSTANCE_GPU_MANUFACTURER: &str = "eks.amazonaws.com/instance-gpu-manufacturer";
/// How many graphics processors.
pub const INSTANCE_GPU_COUNT: &str = "eks.amazonaws.com/instance-gpu-count";
/// Memory of a graphics processor in MiB.
pub const INSTANCE_GPU_MEMORY: &str = "eks.amazonaws.com/instance-gpu-memory";
/// The accelerator.
pub const INSTANCE_ACCELERATOR_NAME: &str = "eks.amazonaws.com/instance-accelerator-name";
/// Who made the accelerator.
pub const INSTANCE_ACCELERATOR_MANUFACTURER: &str =
    "eks.amazonaws.com/instance-accelerator-manufacturer";
/// How many accelerators.
pub const INSTANCE_ACCELERATOR_COUNT: &str = "eks.amazonaws.com/instance-accelerator-count";

/// The labels whose values Auto Mode knows besides [`super::WELL_KNOWN`], sorted.
pub const WELL_KNOWN: [&str; 24] = [
    MANAGED_BY,
    COMPUTE_TYPE,
    INSTANCE_ACCELERATOR_COUNT,
    INSTANCE_ACCELERATOR_MANUFACTURER,
    INSTANCE_ACCELERATOR_NAME,
    INSTANCE_CAPABILITY_FLEX,
    INSTANCE_CATEGORY,
    INSTANCE_CPU,
    INSTANCE_CPU_MANUFACTURER,
    INSTANCE_CPU_SUSTAINED_CLOCK_SPEED_MHZ,
    INSTANCE_EBS_BANDWIDTH,
    INSTANCE_ENCRYPTION_IN_TRANSIT_SUPPORTED,
    INSTANCE_FAMILY,
    INSTANCE_GENERATION,
    INSTANCE_GPU_COUNT,
    INSTANCE_GPU_MANUFACTURER,
    INSTANCE_GPU_MEMORY,
    INSTANCE_GPU_NAME,
    INSTANCE_HYPERVISOR,
    INSTANCE_LOCAL_NVME,
    INSTANCE_MEMORY,
    INSTANCE_NETWORK_BANDWIDTH,
    INSTANCE_SIZE,
    TOPOLOGY_ZONE_ID,
];

/// The label of Auto Mode that says what one of self-managed Karpenter's does; none if Auto Mode does
/// not say it.
pub fn translated(karpenter: &str) -> Option<&'static str> {
    let name = karpenter.strip_prefix("karpenter.k8s.aws/")?;
    WELL_KNOWN.into_iter().find(|key| key.strip_prefix("eks.amazonaws.com/") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::super::{INSTANCE_CATEGORY as KARPENTER_CATEGORY, WELL_KNOWN_AWS};
    use super::*;

    #[test]
    fn labels_are_sorted_and_have_their_fellows() {
        assert!(WELL_KNOWN.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(translated(KARPENTER_CATEGORY), Some(INSTANCE_CATEGORY));
        assert_eq!(translated("karpenter.k8s.aws/instance-tenancy"), None);
        assert_eq!(translated("team"), None);
        let fellows = WELL_KNOWN_AWS.into_iter().filter(|key| translated(key).is_some()).count();
        assert_eq!(fellows, WELL_KNOWN.len() - 3, "all but three are about the machine");
    }
}
