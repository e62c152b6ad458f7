//! Pod addresses: the VPC's own, as the Amazon VPC CNI gives them. Pods take the even addresses of
//! their node's /19 subnet (instances have the odd ones), and addresses of 100.64.0.0/10, which
//! EKS users add for the purpose, once the subnet is full.

use std::net::Ipv4Addr;

use compact_str::CompactString;
use rustc_hash::FxHashMap;

const SUBNET_MASK: u32 = !0x1fff;
const FIRST: u32 = 6;
/// Even addresses from `FIRST` to the last but one of a /19.
const PER_SUBNET: u32 = (8_192 - 2 - FIRST) / 2 + 1;
const OVERFLOW: u32 = u32::from_be_bytes([100, 64, 0, 0]);
const OVERFLOW_SIZE: u32 = 1 << 22;

/// Which pod has which address.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pods: FxHashMap<Ipv4Addr, CompactString>,
    /// How many addresses are taken of each subnet.
    taken: FxHashMap<u32, u32>,
}

impl Addresses {
    /// An address for a pod on the node with this address; `hint` says where to look first.
    pub(super) fn assign(&mut self, node: Ipv4Addr, hint: u64, uid: &str) -> Ipv4Addr {
        let subnet = u32::from(node) & SUBNET_MASK;
        let (base, count, stride) = if self.taken.get(&subnet).is_none_or(|n| *n < PER_SUBNET) {
            (subnet + FIRST, PER_SUBNET, 2)
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

    /// Notes that a pod has an address.
    pub(super) fn claim(&mut self, address: Ipv4Addr, uid: &str) {
        if self.pods.insert(address, uid.into()).is_none() {
            *self.taken.entry(u32::from(address) & SUBNET_MASK).or_default() += 1;
        }
    }

    /// Takes an address back, if it is still that pod's.
    pub(super) fn release(&mut self, address: Ipv4Addr, uid: &str) {
        if self.pods.get(&address).is_some_and(|owner| owner == uid) {
            self.pods.remove(&address);
            if let Some(taken) = self.taken.get_mut(&(u32::from(address) & SUBNET_MASK)) {
                *taken = taken.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_and_come_back() {
        let node = Ipv4Addr::new(192, 168, 32, 5);
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
}
