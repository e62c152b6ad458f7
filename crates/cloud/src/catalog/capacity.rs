//! What a node of a machine type offers, and what is kept back from pods.
//!
//! These are Karpenter's estimates, made before any machine is launched
//! (<https://karpenter.sh/docs/concepts/scheduling/>, and the resources listed at
//! <https://karpenter.sh/docs/reference/instance-types/>): memory less what the hypervisor takes,
//! pods by the number of addresses the VPC CNI can hand out, and the kubelet's reservations as the
//! EKS images configure them. All arithmetic is in integers.

use std::collections::BTreeMap;

use compact_str::CompactString;
use wharf_model::auto_mode::PODS_MAX;
use wharf_model::resources::Resources;

use super::data::Machine;
use super::settings::{
    AmiFamily, EvictionThreshold, InstanceStorePolicy, KubeletSettings, NodeSettings,
};

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const GB: i64 = 1_000_000_000;

/// The resource name of NVIDIA graphics processors.
pub const NVIDIA_GPU: &str = "nvidia.com/gpu";
/// The resource name of AMD graphics processors.
pub const AMD_GPU: &str = "amd.com/gpu";
/// The resource name of Gaudi accelerators.
pub const HABANA_GAUDI: &str = "habana.ai/gaudi";
/// The resource name of Neuron devices.
pub const AWS_NEURON: &str = "aws.amazon.com/neuron";
/// The resource name of the cores on Neuron devices.
pub const AWS_NEURON_CORE: &str = "aws.amazon.com/neuroncore";
/// The resource name of branch network interfaces for pods.
pub const AWS_POD_ENI: &str = "vpc.amazonaws.com/pod-eni";
/// The resource name of Elastic Fabric Adapters.
pub const AWS_EFA: &str = "vpc.amazonaws.com/efa";

/// The four amounts of an instance type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeResources {
    pub(super) capacity: Resources,
    pub(super) kube_reserved: Resources,
    pub(super) system_reserved: Resources,
    pub(super) eviction_threshold: Resources,
}

/// Computes what a node of this type offers and keeps.
pub(super) fn node_resources(machine: &Machine, settings: &NodeSettings) -> NodeResources {
    let pods = pods(machine, settings);
    let capacity = capacity(machine, settings, pods);
    // Upstream counts every address for AL2, AL2023 and custom images even where maxPods is lower,
    // as those images' bootstrap does; Bottlerocket counts the pods there can really be.
    let pods_reserved_for = match settings.ami_family {
        AmiFamily::Bottlerocket => pods,
        AmiFamily::Al2 | AmiFamily::Al2023 | AmiFamily::Custom => eni_limited_pods(machine, 0),
    };
    NodeResources {
        kube_reserved: kube_reserved(machine, pods_reserved_for, &settings.kubelet),
        system_reserved: from_amounts(&settings.kubelet.system_reserved),
        eviction_threshold: eviction_threshold(&capacity, &settings.kubelet),
        capacity,
    }
}

fn capacity(machine: &Machine, settings: &NodeSettings, pods: i64) -> Resources {
    let mut capacity = Resources {
        cpu_milli: i64::from(machine.vcpus) * 1_000,
        memory_bytes: memory_bytes(machine, settings.vm_memory_overhead_millionths),
        ephemeral_storage_bytes: ephemeral_storage_bytes(machine, settings),
        pods,
        ..Resources::default()
    };
    let mut offer = |name: &str, amount: u32| {
        if amount > 0 {
            capacity.set(name, i64::from(amount));
        }
    };
    offer(AWS_POD_ENI, machine.branch_enis);
    offer(AWS_EFA, machine.efa_interfaces);
    if let Some(gpu) = machine.gpu {
        match gpu.manufacturer {
            "nvidia" => offer(NVIDIA_GPU, gpu.count),
            "amd" => offer(AMD_GPU, gpu.count),
            "habana" => offer(HABANA_GAUDI, gpu.count),
            _ => {}
        }
    }
    if let Some(accelerator) = machine.accelerator {
        offer(AWS_NEURON, accelerator.count);
        offer(AWS_NEURON_CORE, accelerator.count * accelerator.cores_per_device);
    }
    capacity
}

/// Memory without what the hypervisor takes, rounded up to whole MiB; Graviton loses another 64 MiB
/// to the kernel's contiguous allocator before that.
fn memory_bytes(machine: &Machine, overhead_millionths: u32) -> i64 {
    let graviton = if machine.arch == "arm64" { 64 } else { 0 };
    let mib = machine.memory_mib.saturating_sub(graviton);
    let overhead = (mib * u64::from(overhead_millionths)).div_ceil(1_000_000);
    i64::try_from(mib.saturating_sub(overhead)).unwrap_or(i64::MAX / MIB) * MIB
}

fn pods(machine: &Machine, settings: &NodeSettings) -> i64 {
    let limit = match settings.kubelet.max_pods {
        Some(max_pods) => i64::from(max_pods),
        None => eni_limited_pods(machine, settings.reserved_enis),
    };
    if settings.auto_mode {
        return limit.min(i64::from(PODS_MAX));
    }
    match settings.kubelet.pods_per_core {
        // Bottlerocket has no such setting.
        Some(per_core) if per_core > 0 && settings.ami_family != AmiFamily::Bottlerocket => {
            limit.min(i64::from(per_core) * i64::from(machine.vcpus))
        }
        _ => limit,
    }
}

/// One address of each interface is its own; two pods use the host's network.
fn eni_limited_pods(machine: &Machine, reserved_enis: u32) -> i64 {
    match machine.enis.saturating_sub(reserved_enis) {
        0 => 0,
        enis => i64::from(enis) * (i64::from(machine.ipv4_per_eni) - 1) + 2,
    }
}

fn kube_reserved(machine: &Machine, pods: i64, kubelet: &KubeletSettings) -> Resources {
    let mut reserved = Resources {
        cpu_milli: kube_reserved_cpu_milli(machine.vcpus),
        memory_bytes: (255 + 11 * pods) * MIB,
        ephemeral_storage_bytes: GIB,
        ..Resources::default()
    };
    for (name, amount) in &kubelet.kube_reserved {
        reserved.set(name, *amount);
    }
    reserved
}

/// 6 % of the first core, 1 % of the second, 0.5 % of the next two, 0.25 % of the rest, each band
/// cut to whole thousandths of a core.
fn kube_reserved_cpu_milli(vcpus: u32) -> i64 {
    const BANDS: [(i64, i64, i64); 4] =
        [(0, 1_000, 600), (1_000, 2_000, 100), (2_000, 4_000, 50), (4_000, i64::MAX, 25)];
    let cpu_milli = i64::from(vcpus) * 1_000;
    BANDS
        .iter()
        .filter(|(from, ..)| cpu_milli > *from)
        .map(|(from, to, per_ten_thousand)| (cpu_milli.min(*to) - from) * per_ten_thousand / 10_000)
        .sum()
}

fn eviction_threshold(capacity: &Resources, kubelet: &KubeletSettings) -> Resources {
    let memory = kubelet.eviction_memory.unwrap_or(EvictionThreshold::Bytes(100 * MIB));
    let storage =
        kubelet.eviction_ephemeral_storage.unwrap_or(EvictionThreshold::Millionths(100_000));
    Resources {
        memory_bytes: threshold_bytes(memory, capacity.memory_bytes),
        ephemeral_storage_bytes: threshold_bytes(storage, capacity.ephemeral_storage_bytes),
        ..Resources::default()
    }
}

/// The size of what holds pods' writable layers and `emptyDir` volumes.
fn ephemeral_storage_bytes(machine: &Machine, settings: &NodeSettings) -> i64 {
    if settings.instance_store_policy == Some(InstanceStorePolicy::Raid0)
        && let Some(gigabytes) = machine.instance_store_gb
    {
        return i64::from(gigabytes) * GB;
    }
    let devices = &settings.block_devices;
    let root = devices.iter().find(|device| device.root_volume);
    if let Some(size) = root.and_then(|device| device.size_bytes) {
        return size;
    }
    let device = match settings.ami_family.ephemeral_device() {
        Some(name) => devices.iter().find(|device| device.device_name == name),
        // Nobody knows which volume a custom image uses; upstream takes the last.
        None => devices.last(),
    };
    device.and_then(|device| device.size_bytes).unwrap_or(20 * GIB)
}

fn from_amounts(amounts: &BTreeMap<CompactString, i64>) -> Resources {
    let mut resources = Resources::default();
    for (name, amount) in amounts {
        resources.set(name, *amount);
    }
    resources
}

/// The threshold in bytes for so much capacity: a part of it is rounded up, and all of it means
/// no threshold, as in the kubelet's configuration.
fn threshold_bytes(threshold: EvictionThreshold, capacity_bytes: i64) -> i64 {
    match threshold {
        EvictionThreshold::Bytes(bytes) => bytes,
        EvictionThreshold::Millionths(1_000_000) => 0,
        EvictionThreshold::Millionths(millionths) => {
            let product = i128::from(capacity_bytes) * i128::from(millionths);
            let rounded = (product + 999_999) / 1_000_000;
            i64::try_from(rounded).unwrap_or(i64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::machines;
    use super::super::settings::BlockDevice;
    use super::*;
    use proptest::prelude::*;
    use wharf_model::instance_type::InstanceType;

    fn machine(name: &str) -> &'static Machine {
        machines().iter().find(|machine| machine.name == name).unwrap()
    }

    fn allocatable(name: &str, settings: &NodeSettings) -> Resources {
        let node = node_resources(machine(name), settings);
        InstanceType::compute_allocatable(
            &node.capacity,
            &node.kube_reserved,
            &node.system_reserved,
            &node.eviction_threshold,
        )
    }

    #[test]
    fn al2023_defaults_give_the_published_numbers() {
        let table = [
            ("t3.micro", 1_930, 548, 4),
            ("t4g.small", 1_930, 1_359, 11),
            ("m5.large", 1_930, 6_903, 29),
            ("m5.xlarge", 3_920, 14_162, 58),
            ("c5a.2xlarge", 7_910, 14_162, 58),
            ("c7g.xlarge", 3_920, 6_525, 58),
            ("a1.medium", 940, 1_392, 8),
            ("a1.metal", 15_890, 27_322, 234),
            ("c5.4xlarge", 15_890, 27_381, 234),
            ("m7g.16xlarge", 63_770, 233_962, 737),
            ("g5.12xlarge", 47_810, 173_400, 737),
            ("r6i.24xlarge", 95_690, 718_987, 737),
            ("m5.metal", 95_690, 355_262, 737),
            ("m1.small", 940, 1_166, 8),
            // More than one network card: only the default one carries pods.
            ("p5.48xlarge", 191_450, 1_938_410, 100),
            ("p4d.24xlarge", 95_690, 1_082_712, 737),
            ("c6in.32xlarge", 127_610, 237_794, 394),
            ("trn1.32xlarge", 127_610, 481_894, 247),
        ];
        for (name, cpu_milli, memory_mib, pods) in table {
            let offered = allocatable(name, &NodeSettings::default());
            assert_eq!(offered.cpu_milli, cpu_milli, "{name} cpu");
            assert_eq!(offered.memory_bytes, memory_mib * MIB, "{name} memory");
            assert_eq!(offered.pods, pods, "{name} pods");
            assert_eq!(offered.ephemeral_storage_bytes, 17 * GIB, "{name} ephemeral storage");
        }
    }

    #[test]
    fn devices_are_extended_resources() {
        let table: [(&str, &[(&str, i64)]); 6] = [
            ("c5a.2xlarge", &[(AWS_POD_ENI, 38)]),
            ("t3.nano", &[]),
            ("g5.12xlarge", &[(NVIDIA_GPU, 4), (AWS_EFA, 1), (AWS_POD_ENI, 107)]),
            ("g6f.large", &[(AWS_POD_ENI, 10)]),
            ("inf2.24xlarge", &[(AWS_NEURON, 6), (AWS_NEURON_CORE, 12), (AWS_POD_ENI, 107)]),
            ("p5.48xlarge", &[(NVIDIA_GPU, 8), (AWS_EFA, 32), (AWS_POD_ENI, 120)]),
        ];
        for (name, expected) in table {
            let mut expected: Vec<_> =
                expected.iter().map(|(key, amount)| (CompactString::from(*key), *amount)).collect();
            expected.sort();
            assert_eq!(allocatable(name, &NodeSettings::default()).extended.to_vec(), expected);
        }
    }

    #[test]
    fn max_pods_changes_pods_but_reserved_memory_only_on_bottlerocket() {
        let limited = |ami_family| NodeSettings {
            ami_family,
            kubelet: KubeletSettings { max_pods: Some(10), ..Default::default() },
            ..Default::default()
        };
        for family in [AmiFamily::Al2, AmiFamily::Al2023, AmiFamily::Custom] {
            let offered = allocatable("m5.large", &limited(family));
            assert_eq!((offered.pods, offered.memory_bytes), (10, 6_903 * MIB));
        }
        let offered = allocatable("m5.large", &limited(AmiFamily::Bottlerocket));
        assert_eq!((offered.pods, offered.memory_bytes), (10, (7_577 - 255 - 110 - 100) * MIB));
        let defaults = NodeSettings { ami_family: AmiFamily::Bottlerocket, ..Default::default() };
        assert_eq!(allocatable("m5.large", &defaults).memory_bytes, 6_903 * MIB);
    }

    #[test]
    fn pods_per_core_is_an_upper_bound_but_not_on_bottlerocket() {
        let settings = |ami_family, pods_per_core| NodeSettings {
            ami_family,
            kubelet: KubeletSettings { pods_per_core: Some(pods_per_core), ..Default::default() },
            ..Default::default()
        };
        let pods = |settings| allocatable("m5.large", &settings).pods;
        assert_eq!(pods(settings(AmiFamily::Al2023, 5)), 10);
        assert_eq!(pods(settings(AmiFamily::Al2023, 50)), 29);
        assert_eq!(pods(settings(AmiFamily::Al2023, 0)), 29);
        assert_eq!(pods(settings(AmiFamily::Bottlerocket, 5)), 29);
    }

    #[test]
    fn reserved_interfaces_carry_no_pods() {
        let settings = |reserved_enis| NodeSettings { reserved_enis, ..Default::default() };
        let offered = allocatable("m5.large", &settings(1));
        assert_eq!((offered.pods, offered.memory_bytes), (20, 6_903 * MIB));
        assert_eq!(allocatable("m5.large", &settings(3)).pods, 0);
        assert_eq!(allocatable("m5.large", &settings(9)).pods, 0);
    }

    #[test]
    fn reservations_replace_and_add_per_resource() {
        let mut kubelet = KubeletSettings::default();
        kubelet.kube_reserved.insert("cpu".into(), 200);
        kubelet.system_reserved.insert("memory".into(), 100 * MIB);
        kubelet.system_reserved.insert("ephemeral-storage".into(), 2 * GIB);
        let offered = allocatable("m5.large", &NodeSettings { kubelet, ..Default::default() });
        assert_eq!(offered.cpu_milli, 1_800);
        assert_eq!(offered.memory_bytes, 6_803 * MIB);
        assert_eq!(offered.ephemeral_storage_bytes, 15 * GIB);
    }

    #[test]
    fn eviction_thresholds_are_amounts_or_parts() {
        let settings = |memory, storage| NodeSettings {
            kubelet: KubeletSettings {
                eviction_memory: Some(memory),
                eviction_ephemeral_storage: Some(storage),
                ..Default::default()
            },
            ..Default::default()
        };
        use EvictionThreshold::{Bytes, Millionths};
        let offered = allocatable("m5.large", &settings(Bytes(500 * MIB), Bytes(GIB)));
        assert_eq!(offered.memory_bytes, 6_503 * MIB);
        assert_eq!(offered.ephemeral_storage_bytes, 18 * GIB);
        let offered = allocatable("m5.large", &settings(Millionths(50_000), Millionths(1_000_000)));
        // 5 % of 7577 MiB is 397253017.6 bytes, rounded up; 100 % switches the threshold off.
        assert_eq!(offered.memory_bytes, (7_577 - 574) * MIB - 397_253_018);
        assert_eq!(offered.ephemeral_storage_bytes, 19 * GIB);
    }

    #[test]
    fn ephemeral_storage_is_the_volume_that_the_family_uses() {
        let device = |device_name: &str, gib: Option<i64>, root_volume| BlockDevice {
            device_name: device_name.into(),
            size_bytes: gib.map(|gib| gib * GIB),
            root_volume,
        };
        let capacity = |ami_family, block_devices: &[BlockDevice]| {
            let settings = NodeSettings {
                ami_family,
                block_devices: block_devices.to_vec(),
                ..Default::default()
            };
            node_resources(machine("m5.large"), &settings).capacity.ephemeral_storage_bytes / GIB
        };
        let two = [device("/dev/xvda", Some(40), false), device("/dev/xvdb", Some(100), false)];
        assert_eq!(capacity(AmiFamily::Al2023, &two), 40);
        assert_eq!(capacity(AmiFamily::Bottlerocket, &two), 100);
        assert_eq!(capacity(AmiFamily::Custom, &two), 100);
        assert_eq!(capacity(AmiFamily::Al2023, &[]), 20);
        assert_eq!(capacity(AmiFamily::Bottlerocket, &[]), 20);
        assert_eq!(capacity(AmiFamily::Al2023, &[device("/dev/sdf", Some(40), false)]), 20);
        assert_eq!(capacity(AmiFamily::Al2023, &[device("/dev/sdf", Some(40), true)]), 40);
        assert_eq!(capacity(AmiFamily::Custom, &[device("/dev/xvda", None, false)]), 20);
    }

    #[test]
    fn raid0_uses_the_local_disks_in_decimal_gigabytes() {
        let settings = NodeSettings {
            instance_store_policy: Some(InstanceStorePolicy::Raid0),
            ..Default::default()
        };
        let storage =
            |name| node_resources(machine(name), &settings).capacity.ephemeral_storage_bytes;
        assert_eq!(storage("i4i.large"), 468_000_000_000);
        assert_eq!(storage("m5.large"), 20 * GIB);
        let offered = allocatable("i4i.large", &settings).ephemeral_storage_bytes;
        assert_eq!(offered, 468_000_000_000 - GIB - 46_800_000_000);
    }

    #[test]
    fn cpu_bands_are_cut_one_by_one() {
        let table = [(1, 60), (2, 70), (3, 75), (4, 80), (5, 82), (6, 85), (8, 90), (192, 550)];
        for (vcpus, reserved) in table {
            assert_eq!(kube_reserved_cpu_milli(vcpus), reserved, "{vcpus}");
        }
    }

    #[test]
    fn every_type_offers_something_and_never_more_than_it_has() {
        for machine in machines() {
            let node = node_resources(machine, &NodeSettings::default());
            let offered = allocatable(machine.name, &NodeSettings::default());
            assert!(!offered.is_negative(), "{}", machine.name);
            assert!(offered.fits_in(&node.capacity), "{}", machine.name);
            assert!(offered.cpu_milli > 0 && offered.pods > 0, "{}", machine.name);
        }
        // Half a GiB does not cover what the kubelet keeps; upstream's estimate is below zero too.
        let nano = allocatable("t3.nano", &NodeSettings::default());
        assert!(nano.memory_bytes < 150 * MIB);
    }

    proptest! {
        #[test]
        fn no_settings_make_a_node_offer_less_than_nothing(
            index in 0..1_340_usize,
            max_pods in prop::option::of(0..2_000_u32),
            pods_per_core in prop::option::of(0..200_u32),
            reserved_enis in 0..20_u32,
            memory in 0..1_i64 << 45,
            percent in 0..=1_000_000_u32,
            bottlerocket: bool,
        ) {
            let mut kubelet = KubeletSettings { max_pods, pods_per_core, ..Default::default() };
            kubelet.system_reserved.insert("memory".into(), memory);
            kubelet.eviction_memory = Some(EvictionThreshold::Millionths(percent));
            let ami_family =
                if bottlerocket { AmiFamily::Bottlerocket } else { AmiFamily::Al2023 };
            let settings =
                NodeSettings { ami_family, kubelet, reserved_enis, ..Default::default() };
            let machine = &machines()[index];
            let offered = allocatable(machine.name, &settings);
            prop_assert!(!offered.is_negative());
            prop_assert!(offered.fits_in(&node_resources(machine, &settings).capacity));
        }
    }
}
