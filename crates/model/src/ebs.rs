//! The EBS CSI driver's names, and how many volumes it attaches to an instance
//! (<https://github.com/kubernetes-sigs/aws-ebs-csi-driver/tree/master/docs>).

use crate::labels::{OS, TOPOLOGY_ZONE};
use crate::random::Random;

/// The driver's name.
pub const DRIVER: &str = "ebs.csi.aws.com";
/// The in-tree provisioner's name. The driver serves the classes that use it.
pub const IN_TREE: &str = "kubernetes.io/aws-ebs";
/// The driver's own label for zones.
pub const ZONE: &str = "topology.ebs.csi.aws.com/zone";
/// The labels by which the driver tells where a node is, sorted.
pub const TOPOLOGY_KEYS: [&str; 3] = [OS, ZONE, TOPOLOGY_ZONE];

/// A driver that makes EBS volumes: the add-on's, or Auto Mode's own, which serves its nodes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name, which is that of its provisioner.
    pub name: &'static str,
    /// Its label for zones, by which its volumes say where they are.
    pub zone: &'static str,
    /// The finalizer of its VolumeAttachments.
    pub attacher: &'static str,
    /// The label by which the volumes of its claims are kept to a zone.
    pub affinity: &'static str,
    /// The labels by which it tells where a node is, sorted.
    pub topology_keys: &'static [&'static str],
}

/// The add-on's driver.
pub const ADD_ON: Driver = Driver {
    name: DRIVER,
    zone: ZONE,
    attacher: "external-attacher/ebs-csi-aws-com",
    affinity: TOPOLOGY_ZONE,
    topology_keys: &TOPOLOGY_KEYS,
};

/// Auto Mode's driver.
pub const AUTO: Driver = Driver {
    name: "ebs.csi.eks.amazonaws.com",
    zone: AUTO_ZONE,
    attacher: "external-attacher/ebs-csi-eks-amazonaws-com",
    affinity: AUTO_ZONE,
    topology_keys: &[AUTO_ZONE],
};

/// The label of Auto Mode's driver for zones.
pub const AUTO_ZONE: &str = crate::labels::eks::EBS_ZONE;

/// The driver of this name.
pub fn driver(name: &str) -> Option<&'static Driver> {
    [&ADD_ON, &AUTO].into_iter().find(|driver| driver.name == name)
}

/// The driver that serves classes of a provisioner.
pub fn driver_of_provisioner(provisioner: &str) -> Option<&'static Driver> {
    driver(if provisioner == IN_TREE { DRIVER } else { provisioner })
}

/// What can be attached to a Nitro instance in all: volumes, network interfaces, local disks
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/volume_limits.html>).
const NITRO_SHARED: i32 = 28;
/// Volumes alone, for the types that count them apart. Larger sizes have more; the number of the
/// smaller ones is taken for all.
const NITRO_DEDICATED: i32 = 32;
/// The driver's number for instances on Xen.
const XEN: i32 = 39;
/// The root volume, and the network interface that an instance starts with.
const ROOT: i32 = 1;
const INTERFACE: i32 = 1;
/// From this generation on volumes are counted apart.
const DEDICATED_GENERATION: u32 = 7;
/// Families that run on Xen, but for their bare metal sizes.
const XEN_FAMILIES: [&str; 25] = [
    "c1", "c3", "c4", "cc2", "d2", "f1", "g2", "g3", "g3s", "h1", "hs1", "i2", "i3", "m1", "m2",
    "m3", "m4", "p2", "p3", "r3", "r4", "t1", "t2", "x1", "x1e",
];

/// How many volumes the driver says that it can attach to a new instance of this type, as a node's
/// CSINode tells: the limit less the root volume, and where others share it less the first network
/// interface and, for types with local disks, one of these (their number is not known here).
pub fn attach_limit(instance_type: &str) -> i32 {
    let (family, size) = instance_type.split_once('.').unwrap_or((instance_type, ""));
    if XEN_FAMILIES.contains(&family) && !size.starts_with("metal") {
        return XEN - ROOT;
    }
    let digits = family.trim_start_matches(|c: char| !c.is_ascii_digit());
    let attributes = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    let generation = digits[..digits.len() - attributes.len()].parse().unwrap_or(0);
    if generation >= DEDICATED_GENERATION {
        return NITRO_DEDICATED - ROOT;
    }
    let has_disks = attributes.contains('d') || matches!(family.as_bytes(), [b'i' | b'd', ..]);
    NITRO_SHARED - INTERFACE - ROOT - i32::from(has_disks)
}

/// The name of the VolumeAttachment of a volume and a node. As upstream's it is a hash of the
/// volume's handle, the driver and the node; the value is Wharf's own and never changes.
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", Random::for_purpose(0, &format!("{handle}{driver}{node}")).hex(64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_found_by_their_provisioners() {
        assert_eq!(driver_of_provisioner(IN_TREE), Some(&ADD_ON));
        assert_eq!(driver_of_provisioner("ebs.csi.aws.com"), Some(&ADD_ON));
        assert_eq!(driver_of_provisioner("ebs.csi.eks.amazonaws.com"), Some(&AUTO));
        assert_eq!(driver_of_provisioner("efs.csi.aws.com"), None);
        assert_eq!(driver(IN_TREE), None);
    }

    #[test]
    fn limits_follow_what_the_type_is_built_on() {
        for (instance_type, limit) in [
            ("c5a.2xlarge", 26),
            ("t3.medium", 26),
            ("m5d.large", 25),
            ("i4i.large", 25),
            ("m7i.large", 31),
            ("c7gd.xlarge", 31),
            ("r8g.large", 31),
            ("t2.micro", 38),
            ("i3.large", 38),
            ("i3.metal", 25),
        ] {
            assert_eq!(attach_limit(instance_type), limit, "{instance_type}");
        }
    }
}
