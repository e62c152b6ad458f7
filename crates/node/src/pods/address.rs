//! Pod addresses: the VPC's own, as the Amazon VPC CNI gives them. Pods take the even addresses of
//! their node's subnet (machines have the odd ones), and addresses of 100.64.0.0/10, which
//! EKS users add for the purpose, once the subnet is full.

use std::net::Ipv4Addr;

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use wharf_model::instance::Instance;
use wharf_model::subnet::{Cidr, Subnet};
use wharf_ports::view::View;

const FIRST: u32 = 6;
const OVERFLOW: u32 = u32::from_be_bytes([100, 64, 0, 0]);
const OVERFLOW_SIZE: u32 = 1 << 22;
/// Taken addresses are counted by blocks of 256.
const COUNTED_BITS: u32 = 8;

/// Which pod has which address.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pods: FxHashMap<Ipv4Addr, CompactString>,
    /// How many addresses of pods are taken of each block of 256.
    taken: FxHashMap<u32, u32>,
}

/// The addresses of a machine's subnet. Where there are no subnets, or the machine is of a time
/// before it was written down, the /19 around its own address.
pub(super) fn subnet_of(machine: &Instance, address: Ipv4Addr, view: &View) -> Cidr {
    let subnet = view.get_cluster::<Subnet>(&machine.spec.subnet_id);
    subnet
        .and_then(|subnet| subnet.spec.cidr_block.parse::<Cidr>().ok())
        .unwrap_or_else(|| Cidr::around(address, 19))
}

impl Addresses {
    /// An address for a pod on a node in this subnet; `hint` says where to look first.
    pub(super) fn assign(&mut self, subnet: Cidr, hint: u64, uid: &str) -> Ipv4Addr {
        // Even addresses from `FIRST` to the last but one.
        let room = (subnet.size() - 2 - FIRST) / 2 + 1;
        let (base, count, stride) = if self.taken_of(subnet) < room {
            (u32::from(subnet.address(0)) + FIRST, room, 2)
        } else {
            (OVERFLOW + FIRST, OVERFLOW_SIZE - 2 * FIRST, 1)
        };
        let start = (hint % u64::from(count)) as u32;
        let address = (0..count)
            .map(|step| Ipv4Addr::from(base + (start + step) % count * stride))
            .find(|address| !self.pods.contains_key(address))
            .unwrap_or(Ipv4Addr::from(OVERFLOW));
        self.claim(address, uid);
        address
    }

    fn taken_of(&self, subnet: Cidr) -> u32 {
        if subnet.size() < 1 << COUNTED_BITS {
            let all = (0..subnet.size()).map(|position| subnet.address(position));
            return all.filter(|one| is_pods(*one) && self.pods.contains_key(one)).count() as u32;
        }
        let first = u32::from(subnet.address(0)) >> COUNTED_BITS;
        let blocks = first..first + (subnet.size() >> COUNTED_BITS);
        blocks.map(|block| self.taken.get(&block).copied().unwrap_or(0)).sum()
    }

    /// Notes that a pod has an address.
    pub(super) fn claim(&mut self, address: Ipv4Addr, uid: &str) {
        if self.pods.insert(address, uid.into()).is_none() && is_pods(address) {
            *self.taken.entry(u32::from(address) >> COUNTED_BITS).or_default() += 1;
        }
    }

    /// Takes an address back, if it is still that pod's.
    pub(super) fn release(&mut self, address: Ipv4Addr, uid: &str) {
        if self.pods.get(&address).is_some_and(|owner| owner == uid) {
            self.pods.remove(&address);
            let taken = self.taken.get_mut(&(u32::from(address) >> COUNTED_BITS));
            if let Some(taken) = taken.filter(|_| is_pods(address)) {
                *taken = taken.saturating_sub(1);
            }
        }
    }
}

/// Whether an address is one of those that are kept for pods.
fn is_pods(address: Ipv4Addr) -> bool {
    u32::from(address) % 2 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_and_come_back() {
        let node = Cidr::around(Ipv4Addr::new(192, 168, 32, 5), 19);
        let mut addresses = Addresses::default();
        let first = addresses.assign(node, 7, "first");
        assert_eq!(first.to_string(), "192.168.32.20");
        let mut seen = std::collections::BTreeSet::from([first]);
        for number in 0..5_000_u64 {
            assert!(seen.insert(addresses.assign(node, 7 + number % 3, "pod")));
        }
        assert!(seen.last().is_some_and(|last| last.octets()[0] == 192));
        assert!(seen.first().is_some_and(|first| first.octets()[0] == 100), "the subnet is full");
        addresses.release(first, "somebody else");
        assert_ne!(addresses.assign(node, 7, "pod"), first);
        addresses.release(first, "first");
        assert_eq!(addresses.assign(node, 7, "pod"), first);
    }

    #[test]
    fn pods_have_addresses_of_their_nodes_subnet_whatever_its_size() {
        for (block, room) in [("10.10.0.0/28", 5), ("10.10.48.0/24", 125), ("10.20.0.0/20", 2_045)]
        {
            let subnet: Cidr = block.parse().expect("a block");
            let mut addresses = Addresses::default();
            addresses.claim(subnet.address(5), "a micro-VM's, of the odd ones");
            for pod in 0..room {
                let address = addresses.assign(subnet, pod * 7, "pod");
                assert!(subnet.contains(address) && is_pods(address), "{block}: {address}");
            }
            let address = addresses.assign(subnet, 0, "one too many");
            assert_eq!(address.octets()[0], 100, "{block}");
        }
    }
}
