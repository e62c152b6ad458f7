//! The VPC of a `ClusterConfig`: its subnets, as the file has them or as eksctl would make them.

use wharf_cloud::catalog::{Catalog, Zone};
use wharf_cloud::ec2::resource_id;
use wharf_model::subnet::{Cidr, Subnet, SubnetSpec};

use super::Reader;
use super::tree::{Fields, Node, Wrong, entries, wrong};

/// How many zones eksctl uses where nobody says which.
const ZONES_DEFAULT: usize = 3;
/// eksctl cuts a VPC into eight.
const PARTS_BITS: u8 = 3;
/// The annotation that keeps the name a file has for a subnet.
const NAME_ANNOTATION: &str = "eksctl.io/subnet-name";

/// A subnet's id.
pub(super) fn id(subnet: &Subnet) -> String {
    subnet.metadata.name.clone().unwrap_or_default()
}

/// Whether a file means this subnet: by its id, or the name it has there.
pub(super) fn is_named(subnet: &Subnet, wanted: &str) -> bool {
    let name = subnet.metadata.annotations.as_ref().and_then(|all| all.get(NAME_ANNOTATION));
    subnet.metadata.name.as_deref() == Some(wanted) || name.is_some_and(|name| name == wanted)
}

impl Reader {
    /// The zones of the cluster.
    pub(super) fn zones(
        &mut self,
        fields: &mut Fields<'_>,
        catalog: &Catalog,
    ) -> Result<Vec<Zone>, Wrong> {
        let asked = fields.texts("availabilityZones")?;
        let all = catalog.zones();
        if asked.is_empty() {
            return Ok(all.into_iter().take(ZONES_DEFAULT).collect());
        }
        let zone_of = |(name, place): &(String, _)| {
            all.iter().find(|zone| zone.name == name.as_str()).cloned().ok_or_else(|| {
                let names: Vec<&str> = all.iter().map(|zone| zone.name.as_str()).collect();
                let says = format!(
                    "availabilityZones: {name} is no zone of {}; there are {}",
                    catalog.region().name,
                    names.join(", ")
                );
                Wrong { place: *place, says }
            })
        };
        asked.iter().map(zone_of).collect()
    }

    /// The subnets: in `zones` where eksctl chooses, in any of `all` where the file says.
    pub(super) fn vpc(
        &mut self,
        node: &Node,
        cluster: &str,
        zones: &[Zone],
        all: &[Zone],
    ) -> Result<Vec<Subnet>, Wrong> {
        let mut fields = Fields::of(node, "vpc")?;
        let block = match fields.get("cidr") {
            Some(node) => Some(block(node, "vpc.cidr")?),
            None => None,
        };
        let mut subnets = Vec::new();
        if let Some(node) = fields.get("subnets") {
            let mut fields = Fields::of(node, "vpc.subnets")?;
            for (kind, public) in [("private", false), ("public", true)] {
                let path = fields.path(kind);
                let Some(node) = fields.get(kind) else { continue };
                for (name, node) in entries(node, &path)? {
                    let path = format!("{path}.{name}");
                    subnets.push(self.subnet(node, &path, name, public, cluster, all)?);
                }
            }
            self.unknown(&fields);
            check(node, &subnets, block)?;
        } else if let Some(block) = block {
            subnets = cut(block, cluster, zones);
        }
        for name in [
            "autoAllocateIPv6",
            "clusterEndpoints",
            "controlPlaneSecurityGroupIDs",
            "controlPlaneSubnetIDs",
            "extraCIDRs",
            "extraIPv6CIDRs",
            "hostnameType",
            "id",
            "ipFamily",
            "ipv6Cidr",
            "ipv6Pool",
            "localZoneSubnets",
            "manageSharedNodeSecurityGroupRules",
            "nat",
            "network",
            "publicAccessCIDRs",
            "securityGroup",
            "sharedNodeSecurityGroup",
        ] {
            fields.has(name);
        }
        self.unknown(&fields);
        Ok(subnets)
    }

    fn subnet(
        &mut self,
        node: &Node,
        path: &str,
        name: &str,
        public: bool,
        cluster: &str,
        zones: &[Zone],
    ) -> Result<Subnet, Wrong> {
        let mut fields = Fields::of(node, path)?;
        let zone_name = fields.text("az")?.unwrap_or_else(|| name.to_owned());
        let Some(zone) = zones.iter().find(|zone| zone.name == zone_name.as_str()) else {
            let names: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
            let says = format!(
                "is in no zone of the region: {zone_name}; name one of {} as its az",
                names.join(", ")
            );
            return Err(wrong(node, path, &says));
        };
        let cidr = fields.get("cidr").ok_or_else(|| {
            wrong(node, path, "has no cidr, and no subnet is there to take it from")
        })?;
        let cidr = block(cidr, &format!("{path}.cidr"))?;
        let kind = if public { "public" } else { "private" };
        let id = fields.text("id")?;
        let id = id.unwrap_or_else(|| resource_id(cluster, "subnet", &format!("{kind} {name}")));
        self.unknown(&fields);
        let mut subnet = subnet(&id, cidr, zone, public);
        let annotations = subnet.metadata.annotations.get_or_insert_default();
        annotations.insert(NAME_ANNOTATION.to_owned(), name.to_owned());
        Ok(subnet)
    }
}

fn block(node: &Node, path: &str) -> Result<Cidr, Wrong> {
    let super::Tree::Text(text) = &node.value else {
        return Err(wrong(node, path, "is a block of addresses, which reads like 10.10.0.0/16"));
    };
    text.parse::<Cidr>().map_err(|error| wrong(node, &format!("{path}:"), &error.to_string()))
}

/// Subnets have addresses of their own, within the VPC's.
fn check(node: &Node, subnets: &[Subnet], block: Option<Cidr>) -> Result<(), Wrong> {
    let blocks: Vec<(String, Cidr)> = subnets
        .iter()
        .filter_map(|subnet| Some((id(subnet), subnet.spec.cidr_block.parse().ok()?)))
        .collect();
    for (index, (name, one)) in blocks.iter().enumerate() {
        if let Some(vpc) = block
            && !(vpc.contains(one.address(0)) && vpc.size() >= one.size())
        {
            return Err(wrong(node, "vpc.subnets", &format!("has {one}, which is not in {vpc}")));
        }
        let other =
            blocks[..index].iter().find(|(other, block)| other == name || block.overlaps(*one));
        if let Some((other, block)) = other {
            let says = format!("has {name} ({one}) and {other} ({block}), which overlap");
            return Err(wrong(node, "vpc.subnets", &says));
        }
    }
    Ok(())
}

/// The subnets that eksctl makes: an eighth of the VPC each, public ones first.
fn cut(block: Cidr, cluster: &str, zones: &[Zone]) -> Vec<Subnet> {
    let count = zones.len().min(1 << (PARTS_BITS - 1)) as u32;
    let of_kind = |public: bool| {
        let kind = if public { "public" } else { "private" };
        zones.iter().zip(0..count).map(move |(zone, index)| {
            let part = block.part(PARTS_BITS, if public { index } else { count + index });
            let id = resource_id(cluster, "subnet", &format!("{kind} {}", zone.name));
            subnet(&id, part, zone, public)
        })
    };
    of_kind(true).chain(of_kind(false)).collect()
}

fn subnet(id: &str, block: Cidr, zone: &Zone, public: bool) -> Subnet {
    let spec = SubnetSpec {
        cidr_block: block.to_string(),
        zone: zone.name.to_string(),
        zone_id: zone.id.to_string(),
        public,
    };
    Subnet::new(id, spec)
}
