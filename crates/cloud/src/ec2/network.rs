//! Addresses of the simulated VPC: those of its `Subnet` objects. Where nobody says what the VPC is
//! like, it is 192.168.0.0/16 cut into /19 subnets, one per zone, as eksctl lays out a cluster by
//! default (<https://eksctl.io/usage/vpc-configuration/>).
//!
//! Machines, EC2's and Fargate's alike, take the odd addresses of a subnet and leave the even ones to
//! pods, so that neither has to ask the other what is free.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use wharf_model::kinds::Kind;
use wharf_model::random::{Random, fnv1a};
use wharf_model::subnet::{Cidr, Subnet};
use wharf_ports::view::View;

/// EC2's code for a subnet that is full.
pub(super) const NO_ADDRESS: &str = "InsufficientFreeAddressesInSubnet";
/// Addresses in a /19.
const SUBNET_SIZE: u32 = 8_192;
const VPC: u32 = u32::from_be_bytes([192, 168, 0, 0]);

/// Where a machine is in the VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The subnet's id; empty where there are no subnets.
    pub(super) subnet: String,
    /// The address.
    pub(super) address: Ipv4Addr,
}

/// A place for a machine in a zone: in the subnet with the most free addresses among those allowed
/// (any private one, where none is named; any at all, where none is private).
///
/// # Errors
/// EC2's text for a zone whose subnets are full, or that has none.
pub(super) fn place(
    view: &View,
    used: &BTreeSet<Ipv4Addr>,
    zone: &str,
    allowed: &[String],
    hint: u32,
) -> Result<Place, String> {
    if view.count(Kind::of::<Subnet>()) == 0 {
        let block = zone_block(zone).parse().map_err(|_| format!("{zone} has no addresses."))?;
        let address = free_address(block, hint, used).ok_or_else(|| full(&[zone]))?;
        return Ok(Place { subnet: String::new(), address });
    }
    let mut subnets = subnets_in(view, zone, allowed);
    if subnets.len() > 1 {
        subnets.sort_by_key(|(id, block)| {
            let taken = used.range(block.address(0)..=block.address(block.size() - 1)).count();
            (std::cmp::Reverse(block.machine_addresses(0).count().saturating_sub(taken)), *id)
        });
    }
    let found =
        subnets.iter().find_map(|(id, block)| Some((*id, free_address(*block, hint, used)?)));
    match found {
        Some((id, address)) => Ok(Place { subnet: id.to_owned(), address }),
        None if subnets.is_empty() => {
            Err(format!("No subnet that may be used is in the Availability Zone {zone}."))
        }
        None => Err(full(&subnets.iter().map(|(id, _)| *id).collect::<Vec<_>>())),
    }
}

fn subnets_in<'v>(view: &'v View, zone: &str, allowed: &[String]) -> Vec<(&'v str, Cidr)> {
    let of_zone = |subnet: &&Subnet| subnet.spec.zone == zone;
    let place = |subnet: &'v Subnet| {
        Some((subnet.metadata.name.as_deref()?, subnet.spec.cidr_block.parse::<Cidr>().ok()?))
    };
    let with = |wanted: &dyn Fn(&Subnet) -> bool| {
        let subnets = view.list::<Subnet>().filter(of_zone).filter(|subnet| wanted(subnet));
        subnets.filter_map(place).collect::<Vec<_>>()
    };
    if !allowed.is_empty() {
        return with(&|subnet| {
            subnet.metadata.name.as_ref().is_some_and(|name| allowed.contains(name))
        });
    }
    let private = with(&|subnet| !subnet.spec.public);
    if private.is_empty() { with(&|_| true) } else { private }
}

fn full(subnets: &[&str]) -> String {
    format!(
        "There are not enough free addresses in subnet '{}' to satisfy the requested number of instances.",
        subnets.join("', '")
    )
}

/// The first address of the subnet in a zone: the zone's letter counts the subnets.
fn subnet(zone: &str) -> Ipv4Addr {
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

/// A free address for a machine, the first one from the hint's on; `None` if the subnet is full.
pub(super) fn free_address(block: Cidr, hint: u32, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    block.machine_addresses(hint).find(|address| !used.contains(address))
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
        let block: Cidr = zone_block("us-east-1b").parse().expect("a block");
        while let Some(address) = free_address(block, 3_000, &used) {
            assert!(used.insert(address));
            assert_eq!(address.octets()[3] % 2, 1);
            assert_eq!(address.octets()[2] / 32, 1);
        }
        assert_eq!(used.len(), 4_093);
        assert_eq!(used.first().map(ToString::to_string).as_deref(), Some("192.168.32.5"));
        assert_eq!(used.last().map(ToString::to_string).as_deref(), Some("192.168.63.253"));
    }
}
