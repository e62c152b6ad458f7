//! The well-known labels of a machine type, as Karpenter's AWS provider sets them
//! (<https://karpenter.sh/docs/reference/instance-types/>).
//!
//! A fact that EC2 does not state gives no label, except the hypervisor, whose label is there and
//! empty on bare metal. Device labels exist only on types with exactly one kind of device.

use compact_str::{CompactString, ToCompactString};
use smallvec::{SmallVec, smallvec};
use wharf_model::instance_type::InstanceTypeLabel;
use wharf_model::labels::{
    ARCH, INSTANCE_ACCELERATOR_COUNT, INSTANCE_ACCELERATOR_MANUFACTURER, INSTANCE_ACCELERATOR_NAME,
    INSTANCE_CAPABILITY_FLEX, INSTANCE_CATEGORY, INSTANCE_CPU, INSTANCE_CPU_MANUFACTURER,
    INSTANCE_CPU_SUSTAINED_CLOCK_SPEED_MHZ, INSTANCE_EBS_BANDWIDTH,
    INSTANCE_ENCRYPTION_IN_TRANSIT_SUPPORTED, INSTANCE_FAMILY, INSTANCE_GENERATION,
    INSTANCE_GPU_COUNT, INSTANCE_GPU_MANUFACTURER, INSTANCE_GPU_MEMORY, INSTANCE_GPU_NAME,
    INSTANCE_HYPERVISOR, INSTANCE_LOCAL_NVME, INSTANCE_MEMORY, INSTANCE_NETWORK_BANDWIDTH,
    INSTANCE_SIZE, INSTANCE_TENANCY, INSTANCE_TYPE, KARPENTER_AWS_DOMAIN, MANAGED_BY, OS,
    TOPOLOGY_REGION, eks,
};

use super::data::Machine;

/// Every label that a machine type can have, by the names of the constants.
pub(super) const LABEL_KEYS: [&str; 26] = [
    ARCH,
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
    INSTANCE_TENANCY,
    INSTANCE_TYPE,
    OS,
    TOPOLOGY_REGION,
];

/// The labels of a type in a region, sorted by key.
pub(super) fn labels(machine: &Machine, region: &'static str) -> Vec<InstanceTypeLabel> {
    let mut labels = Labels(Vec::with_capacity(26));
    labels.set(ARCH, machine.arch);
    labels.set(OS, "linux");
    labels.set(INSTANCE_TYPE, machine.name);
    labels.set(TOPOLOGY_REGION, region);
    labels.set(INSTANCE_FAMILY, machine.family());
    labels.set(INSTANCE_SIZE, machine.size());
    labels.set(INSTANCE_CAPABILITY_FLEX, machine.family().contains("-flex"));
    if let Some((category, generation)) = category_and_generation(machine.name) {
        labels.set(INSTANCE_CATEGORY, category);
        labels.set(INSTANCE_GENERATION, generation);
    }
    labels.set(INSTANCE_CPU, machine.vcpus);
    labels.set(INSTANCE_CPU_MANUFACTURER, machine.cpu_manufacturer);
    labels.set(INSTANCE_CPU_SUSTAINED_CLOCK_SPEED_MHZ, machine.clock_mhz);
    labels.set(INSTANCE_MEMORY, machine.memory_mib);
    labels.set(INSTANCE_HYPERVISOR, machine.hypervisor);
    labels.set(INSTANCE_ENCRYPTION_IN_TRANSIT_SUPPORTED, machine.encryption_in_transit);
    labels.set_known(INSTANCE_NETWORK_BANDWIDTH, machine.network_mbps);
    labels.set_known(INSTANCE_EBS_BANDWIDTH, machine.ebs_mbps);
    if machine.instance_store_nvme {
        labels.set_known(INSTANCE_LOCAL_NVME, machine.instance_store_gb);
    }
    if let Some(gpu) = machine.gpu {
        labels.set(INSTANCE_GPU_NAME, gpu.name);
        labels.set(INSTANCE_GPU_MANUFACTURER, gpu.manufacturer);
        labels.set(INSTANCE_GPU_COUNT, gpu.count);
        labels.set(INSTANCE_GPU_MEMORY, gpu.memory_mib);
    }
    if let Some(accelerator) = machine.accelerator {
        labels.set(INSTANCE_ACCELERATOR_NAME, accelerator.name);
        labels.set(INSTANCE_ACCELERATOR_MANUFACTURER, accelerator.manufacturer);
        labels.set(INSTANCE_ACCELERATOR_COUNT, accelerator.count);
    }
    labels.set_all(INSTANCE_TENANCY, smallvec!["dedicated".into(), "default".into()]);
    labels.0.sort_unstable_by_key(|label| label.key);
    labels.0
}

/// The same in EKS Auto Mode's words, and what all of its nodes say.
pub(super) fn auto_mode(machine: &Machine, region: &'static str) -> Vec<InstanceTypeLabel> {
    let said = labels(machine, region).into_iter().filter_map(|label| {
        let key = match label.key.starts_with(KARPENTER_AWS_DOMAIN) {
            true => eks::translated(label.key)?,
            false => label.key,
        };
        Some(InstanceTypeLabel { key, ..label })
    });
    let mut labels = Labels(said.collect());
    labels.set(eks::COMPUTE_TYPE, eks::COMPUTE_TYPE_AUTO);
    labels.set(MANAGED_BY, eks::MANAGER);
    labels.0.sort_unstable_by_key(|label| label.key);
    labels.0
}

/// The letters that a type's name starts with and the number after them, past the memory size that
/// the first high-memory types have between (`u-6tb1.56xlarge` is category `u`, generation `1`).
/// Upstream reads both with the pattern `(^[a-z]+)(\-[0-9]+tb)?([0-9]+).*\.`.
pub(super) fn category_and_generation(name: &str) -> Option<(&str, &str)> {
    let (family, _) = name.split_once('.')?;
    let split_digits = |text: &'_ str| text.bytes().take_while(u8::is_ascii_digit).count();
    let letters = family.bytes().take_while(u8::is_ascii_lowercase).count();
    let (category, rest) = family.split_at(letters);
    let without_size = rest.strip_prefix('-').and_then(|size| {
        let digits = split_digits(size);
        if digits == 0 { None } else { size[digits..].strip_prefix("tb") }
    });
    let rest = without_size.unwrap_or(rest);
    let generation = &rest[..split_digits(rest)];
    (!category.is_empty() && !generation.is_empty()).then_some((category, generation))
}

struct Labels(Vec<InstanceTypeLabel>);

impl Labels {
    fn set(&mut self, key: &'static str, value: impl ToCompactString) {
        self.set_all(key, smallvec![value.to_compact_string()]);
    }

    fn set_known(&mut self, key: &'static str, value: Option<u32>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    fn set_all(&mut self, key: &'static str, values: SmallVec<[CompactString; 1]>) {
        self.0.push(InstanceTypeLabel { key, values });
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::machines;
    use super::*;

    fn labels_of(name: &str) -> Vec<(String, String)> {
        let machine = machines().iter().find(|machine| machine.name == name).unwrap();
        labels(machine, "us-east-1")
            .into_iter()
            .map(|label| (label.key.to_owned(), label.values.join("|")))
            .collect()
    }

    fn value(name: &str, key: &str) -> Option<String> {
        labels_of(name).into_iter().find(|(label, _)| label == key).map(|(_, value)| value)
    }

    #[test]
    fn a_plain_type_has_the_published_labels() {
        let expected = [
            ("karpenter.k8s.aws/instance-capability-flex", "false"),
            ("karpenter.k8s.aws/instance-category", "c"),
            ("karpenter.k8s.aws/instance-cpu", "8"),
            ("karpenter.k8s.aws/instance-cpu-manufacturer", "amd"),
            ("karpenter.k8s.aws/instance-cpu-sustained-clock-speed-mhz", "3300"),
            ("karpenter.k8s.aws/instance-ebs-bandwidth", "3170"),
            ("karpenter.k8s.aws/instance-encryption-in-transit-supported", "true"),
            ("karpenter.k8s.aws/instance-family", "c5a"),
            ("karpenter.k8s.aws/instance-generation", "5"),
            ("karpenter.k8s.aws/instance-hypervisor", "nitro"),
            ("karpenter.k8s.aws/instance-memory", "16384"),
            ("karpenter.k8s.aws/instance-network-bandwidth", "2500"),
            ("karpenter.k8s.aws/instance-size", "2xlarge"),
            ("karpenter.k8s.aws/instance-tenancy", "dedicated|default"),
            ("kubernetes.io/arch", "amd64"),
            ("kubernetes.io/os", "linux"),
            ("node.kubernetes.io/instance-type", "c5a.2xlarge"),
            ("topology.kubernetes.io/region", "us-east-1"),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(labels_of("c5a.2xlarge"), expected);
    }

    #[test]
    fn special_types_have_their_labels() {
        let table = [
            ("g5.12xlarge", INSTANCE_GPU_NAME, Some("a10g")),
            ("g5.12xlarge", INSTANCE_GPU_MANUFACTURER, Some("nvidia")),
            ("g5.12xlarge", INSTANCE_GPU_COUNT, Some("4")),
            ("g5.12xlarge", INSTANCE_GPU_MEMORY, Some("22888")),
            ("g5.12xlarge", INSTANCE_LOCAL_NVME, Some("3800")),
            ("g6f.large", INSTANCE_GPU_COUNT, Some("0")),
            ("inf2.24xlarge", INSTANCE_ACCELERATOR_NAME, Some("inferentia2")),
            ("inf2.24xlarge", INSTANCE_ACCELERATOR_MANUFACTURER, Some("aws")),
            ("inf2.24xlarge", INSTANCE_ACCELERATOR_COUNT, Some("6")),
            ("c5a.2xlarge", INSTANCE_GPU_COUNT, None),
            ("a1.metal", INSTANCE_HYPERVISOR, Some("")),
            ("a1.metal", ARCH, Some("arm64")),
            ("t2.nano", INSTANCE_NETWORK_BANDWIDTH, None),
            ("m1.small", INSTANCE_LOCAL_NVME, None),
            ("m1.small", INSTANCE_CPU_SUSTAINED_CLOCK_SPEED_MHZ, Some("0")),
            ("c7i-flex.large", INSTANCE_CAPABILITY_FLEX, Some("true")),
            ("c7i-flex.large", INSTANCE_FAMILY, Some("c7i-flex")),
        ];
        for (name, key, expected) in table {
            assert_eq!(value(name, key).as_deref(), expected, "{name} {key}");
        }
    }

    #[test]
    fn category_and_generation_follow_the_name() {
        let table = [
            ("c5a.2xlarge", Some(("c", "5"))),
            ("u-6tb1.56xlarge", Some(("u", "1"))),
            ("u7i-12tb.224xlarge", Some(("u", "7"))),
            ("p6-b200.48xlarge", Some(("p", "6"))),
            ("is4gen.large", Some(("is", "4"))),
            ("hpc7g.16xlarge", Some(("hpc", "7"))),
            ("m10x.large", Some(("m", "10"))),
            ("u-6tb.large", None),
            ("u-tb1.large", None),
            ("c5a", None),
            ("metal.large", None),
            ("5c.large", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(category_and_generation(name), expected, "{name}");
        }
        for machine in machines() {
            assert!(category_and_generation(machine.name).is_some(), "{}", machine.name);
        }
    }

    #[test]
    fn keys_are_sorted_and_unique() {
        for machine in machines() {
            let labels = labels(machine, "us-east-1");
            assert!(labels.windows(2).all(|pair| pair[0].key < pair[1].key), "{}", machine.name);
            assert!(labels.iter().all(|label| LABEL_KEYS.contains(&label.key)), "{}", machine.name);
            assert!(labels.iter().all(|label| label.values.is_sorted()), "{}", machine.name);
        }
    }
}
