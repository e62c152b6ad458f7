//! Addresses of the simulated VPC: 192.168.0.0/16 cut into /19 subnets, one per zone, as eksctl
//! lays out a cluster by default (<https://eksctl.io/usage/vpc-configuration/>).
//!
//! Instances take the odd addresses of a subnet and leave the even ones to pods, so that neither
//! has to ask the other what is free.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use wharf_model::random::{Random, fnv1a};

/// Addresses in a /19.
const SUBNET_SIZE: u32 = 8_192;
const VPC: u32 = u32::from_be_bytes([192, 168, 0, 0]);

/// The first address of the subnet in a zone: the zone's letter counts the subnets.
pub(super) fn subnet(zone: &str) -> Ipv4Addr {
    let letter = zone.bytes().last().filter(u8::is_ascii_lowercase).unwrap_or(b'a');
    Ipv4Addr::from(VPC + u32::from((letter - b'a') % 8) * SUBNET_SIZE)
}

/// The addresses of the subnet in a zone: `192.168.32.0/19`.
pub fn zone_block(zone: &str) -> String {
    format!("{}/19", subnet(zone))
}

/// The id of a cluster's resource in the simulated account: a prefix and 17 hexadecimal digits that
/// follow from what it is for.
pub fn resource_id(cluster: &str, prefix: &str, of: &str) -> String {
    let text = format!("{cluster} {prefix} {of}");
    format!("{prefix}-0{}", Random::new(0, fnv1a(text.as_bytes())).hex(16))
}

/// A free address for an instance in `zone`, the first one from `hint` on; `None` if the subnet
/// is full. AWS keeps the first four addresses of a subnet and the last one to itself.
pub(super) fn free_address(zone: &str, hint: u32, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    const FIRST: u32 = 5;
    const COUNT: u32 = (SUBNET_SIZE - 2 - FIRST) / 2 + 1;
    let base = u32::from(subnet(zone));
    (0..COUNT)
        .map(|step| Ipv4Addr::from(base + FIRST + 2 * ((hint % COUNT + step) % COUNT)))
        .find(|address| !used.contains(address))
}

/// The private DNS name EC2 gives to an address, which is also the node's name.
pub(super) fn private_dns_name(address: Ipv4Addr, region: &str) -> String {
    let [a, b, c, d] = address.octets();
    if region == "us-east-1" {
        format!("ip-{a}-{b}-{c}-{d}.ec2.internal")
    } else {
        format!("ip-{a}-{b}-{c}-{d}.{region}.compute.internal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_their_subnets() {
        assert_eq!(subnet("ap-northeast-2a").to_string(), "192.168.0.0");
        assert_eq!(subnet("ap-northeast-2c").to_string(), "192.168.64.0");
        assert_eq!(subnet("us-east-1f").to_string(), "192.168.160.0");
    }

    #[test]
    fn names_are_ec2s() {
        let address = Ipv4Addr::new(192, 168, 176, 171);
        assert_eq!(
            private_dns_name(address, "ap-northeast-2"),
            "ip-192-168-176-171.ap-northeast-2.compute.internal"
        );
        assert_eq!(private_dns_name(address, "us-east-1"), "ip-192-168-176-171.ec2.internal");
    }

    #[test]
    fn addresses_are_given_once_until_the_subnet_is_full() {
        let mut used = BTreeSet::new();
        while let Some(address) = free_address("us-east-1b", 3_000, &used) {
            assert!(used.insert(address));
            assert_eq!(address.octets()[3] % 2, 1);
            assert_eq!(address.octets()[2] / 32, 1);
        }
        assert_eq!(used.len(), 4_093);
        assert_eq!(used.first().map(ToString::to_string).as_deref(), Some("192.168.32.5"));
        assert_eq!(used.last().map(ToString::to_string).as_deref(), Some("192.168.63.253"));
    }
}
