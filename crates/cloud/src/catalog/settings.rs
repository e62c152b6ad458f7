//! What a node class and the provisioner's settings say about the nodes to come.

use std::collections::BTreeMap;
use std::str::FromStr;

use compact_str::CompactString;
use wharf_model::quantity::Quantity;

/// Everything outside the machine type that decides what its nodes offer: the EC2NodeClass and the
/// provisioner's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// The image family, which decides how the kubelet is configured.
    pub ami_family: AmiFamily,
    /// The kubelet's part of the node class.
    pub kubelet: KubeletSettings,
    /// `blockDeviceMappings` of the node class; empty for the family's own volumes.
    pub block_devices: Vec<BlockDevice>,
    /// Whether local disks hold ephemeral storage.
    pub instance_store_policy: Option<InstanceStorePolicy>,
    /// Network interfaces kept from pods (`RESERVED_ENIS`).
    pub reserved_enis: u32,
    /// The part of memory that the hypervisor takes, in millionths (`VM_MEMORY_OVERHEAD_PERCENT`,
    /// 0.075 by default).
    pub vm_memory_overhead_millionths: u32,
    /// Names of the zones in which there are subnets; `None` for every zone of the region.
    pub zones: Option<Vec<CompactString>>,
    /// Whether EKS Auto Mode runs the nodes: with its own labels, on the types that it takes, and
    /// with fewer pods on large ones.
    pub auto_mode: bool,
}

/// The fields of `spec.kubelet` of an EC2NodeClass which change what a node offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeletSettings {
    /// `maxPods`: instead of the number of addresses.
    pub max_pods: Option<u32>,
    /// `podsPerCore`: an upper bound per vCPU; 0 is none.
    pub pods_per_core: Option<u32>,
    /// `kubeReserved`: replaces the computed amount of each resource it names. Amounts as in
    /// [`Resources`](wharf_model::resources::Resources): thousandths for `cpu`, whole units otherwise.
    pub kube_reserved: BTreeMap<CompactString, i64>,
    /// `systemReserved`, in the same units.
    pub system_reserved: BTreeMap<CompactString, i64>,
    /// `evictionHard["memory.available"]`; 100Mi if absent.
    pub eviction_memory: Option<EvictionThreshold>,
    /// `evictionHard["nodefs.available"]`; 10% if absent.
    pub eviction_ephemeral_storage: Option<EvictionThreshold>,
}

/// The image family of a node class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AmiFamily {
    /// Amazon Linux 2.
    Al2,
    /// Amazon Linux 2023.
    #[default]
    Al2023,
    /// Bottlerocket.
    Bottlerocket,
    /// An image of the user's own.
    Custom,
}

/// One entry of `blockDeviceMappings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// `deviceName`.
    pub device_name: CompactString,
    /// `ebs.volumeSize` in bytes; `None` if it comes from a snapshot.
    pub size_bytes: Option<i64>,
    /// `rootVolume`.
    pub root_volume: bool,
}

/// What local disks are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceStorePolicy {
    /// All of them together are the node's ephemeral storage.
    Raid0,
}

/// How little may be left before the kubelet evicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionThreshold {
    /// An amount.
    Bytes(i64),
    /// A part of the capacity, in millionths. The whole capacity switches the threshold off.
    Millionths(u32),
}

impl Default for NodeSettings {
    /// AL2023 with nothing overridden, and the provisioner's default settings.
    fn default() -> NodeSettings {
        NodeSettings {
            ami_family: AmiFamily::Al2023,
            kubelet: KubeletSettings::default(),
            block_devices: Vec::new(),
            instance_store_policy: None,
            reserved_enis: 0,
            vm_memory_overhead_millionths: 75_000,
            zones: None,
            auto_mode: false,
        }
    }
}

impl NodeSettings {
    /// What EKS Auto Mode says of its nodes: Bottlerocket on a data volume of so many bytes, local
    /// disks joined for pods, and some cpu held back while machines are only planned.
    pub fn auto_mode(data_volume_bytes: i64, zones: Vec<CompactString>) -> NodeSettings {
        let system_reserved =
            BTreeMap::from([("cpu".into(), wharf_model::auto_mode::PLANNING_RESERVE_MILLI)]);
        let data_volume = BlockDevice {
            device_name: "/dev/xvdb".into(),
            size_bytes: Some(data_volume_bytes),
            root_volume: false,
        };
        NodeSettings {
            ami_family: AmiFamily::Bottlerocket,
            kubelet: KubeletSettings { system_reserved, ..KubeletSettings::default() },
            block_devices: vec![data_volume],
            instance_store_policy: Some(InstanceStorePolicy::Raid0),
            zones: Some(zones),
            auto_mode: true,
            ..NodeSettings::default()
        }
    }
}

impl AmiFamily {
    /// The device that holds ephemeral storage; unknown for custom images.
    pub const fn ephemeral_device(self) -> Option<&'static str> {
        match self {
            AmiFamily::Al2 | AmiFamily::Al2023 => Some("/dev/xvda"),
            AmiFamily::Bottlerocket => Some("/dev/xvdb"),
            AmiFamily::Custom => None,
        }
    }
}

impl FromStr for AmiFamily {
    type Err = UnknownAmiFamily;

    /// Reads `spec.amiFamily` (`AL2023`) or the family in an alias (`al2023`).
    fn from_str(text: &str) -> Result<AmiFamily, UnknownAmiFamily> {
        match text.to_ascii_lowercase().as_str() {
            "al2" => Ok(AmiFamily::Al2),
            "al2023" => Ok(AmiFamily::Al2023),
            "bottlerocket" => Ok(AmiFamily::Bottlerocket),
            "custom" => Ok(AmiFamily::Custom),
            _ => Err(UnknownAmiFamily(text.to_owned())),
        }
    }
}

/// The text names no image family known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown image family {0:?}, use AL2, AL2023, Bottlerocket or Custom")]
pub struct UnknownAmiFamily(pub String);

impl FromStr for EvictionThreshold {
    type Err = BadEvictionThreshold;

    /// Reads a value of `evictionHard`: a quantity (`100Mi`) or a percentage (`5%`, `7.5%`).
    fn from_str(text: &str) -> Result<EvictionThreshold, BadEvictionThreshold> {
        /// A percentage with four digits after the point is a whole number of millionths.
        const TEN_THOUSANDTHS: i32 = -4;
        let bad = || BadEvictionThreshold(text.to_owned());
        // A quantity may lack its digits (`Mi`); a threshold may not.
        if !text.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
            return Err(bad());
        }
        let number = |text| Quantity::parse(text).map_err(|_| bad());
        match text.strip_suffix('%') {
            Some(percent) => u32::try_from(number(percent)?.scaled_ceil(TEN_THOUSANDTHS))
                .ok()
                .filter(|millionths| *millionths <= 1_000_000)
                .map(EvictionThreshold::Millionths)
                .ok_or_else(bad),
            None => Ok(EvictionThreshold::Bytes(number(text)?.value_ceil())),
        }
    }
}

/// The text is no eviction threshold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no eviction threshold, use a quantity such as 100Mi or a percentage such as 5%")]
pub struct BadEvictionThreshold(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;
    const GIB: i64 = 1 << 30;

    #[test]
    fn eviction_thresholds_are_read_from_text() {
        use EvictionThreshold::{Bytes, Millionths};
        let table = [
            ("100Mi", Some(Bytes(100 * MIB))),
            ("1073741824", Some(Bytes(GIB))),
            ("5%", Some(Millionths(50_000))),
            ("7.5%", Some(Millionths(75_000))),
            ("100%", Some(Millionths(1_000_000))),
            ("0%", Some(Millionths(0))),
            ("101%", None),
            ("-1%", None),
            ("-1Mi", None),
            ("%", None),
            ("Mi", None),
            ("lots", None),
        ];
        for (text, expected) in table {
            let read = text.parse::<EvictionThreshold>();
            assert_eq!(read.ok(), expected, "{text}");
        }
    }

    #[test]
    fn image_families_are_read_from_spec_and_alias() {
        assert_eq!("AL2023".parse(), Ok(AmiFamily::Al2023));
        assert_eq!("bottlerocket".parse(), Ok(AmiFamily::Bottlerocket));
        assert_eq!(
            "windows2022".parse::<AmiFamily>(),
            Err(UnknownAmiFamily("windows2022".to_owned()))
        );
    }
}
