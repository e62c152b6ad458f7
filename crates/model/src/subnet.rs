//! `Subnet` (`sim.wharf.dev/v1`): a subnet of the simulated VPC. Like an `Instance` it is kept as an
//! object, so that the simulated cloud's state lives in the cluster's own history. Its name is the
//! subnet's id.

use core::net::Ipv4Addr;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::custom::structural::Structural;
use crate::custom::{Column, FieldError, column};
use crate::instance::constant_text;

/// A subnet of the simulated VPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// Always `sim.wharf.dev/v1`.
    #[serde(default)]
    api_version: ApiVersion,
    /// Always `Subnet`.
    #[serde(default)]
    kind: KindName,
    /// Object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Where it is and which addresses it has.
    #[serde(default)]
    pub spec: SubnetSpec,
}

/// Where a subnet is and which addresses it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubnetSpec {
    /// Its addresses, `10.10.16.0/20`.
    pub cidr_block: String,
    /// Availability zone name.
    pub zone: String,
    /// Availability zone id.
    pub zone_id: String,
    /// Whether it has a route to an internet gateway.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
}

impl Subnet {
    /// A subnet.
    pub fn new(id: impl Into<String>, spec: SubnetSpec) -> Self {
        let metadata = ObjectMeta { name: Some(id.into()), ..ObjectMeta::default() };
        Self { metadata, spec, ..Self::default() }
    }
}

constant_text!(ApiVersion, "sim.wharf.dev/v1");
constant_text!(KindName, "Subnet");

impl k8s_openapi::Resource for Subnet {
    const API_VERSION: &'static str = "sim.wharf.dev/v1";
    const GROUP: &'static str = "sim.wharf.dev";
    const KIND: &'static str = "Subnet";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "subnets";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for Subnet {
    type Ty = ObjectMeta;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A block of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    first: u32,
    /// How many bits all its addresses share.
    prefix: u8,
}

/// The text is no block of addresses that a VPC or subnet can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No address and prefix.
    #[error("{0:?} is no block of addresses, which reads like 10.10.0.0/16")]
    Malformed(String),
    /// Of a size that VPCs and subnets do not have.
    #[error("{0} has a prefix of other than 16 to 28 bits")]
    Size(String),
    /// The address is not the block's first.
    #[error("{text} is no block of addresses; the block around it is {block}")]
    NotFirst {
        /// What was given.
        text: String,
        /// The block it is in.
        block: Cidr,
    },
}

/// AWS keeps the first four addresses of a subnet to itself, and the last.
const KEPT_FIRST: u32 = 4;

impl Cidr {
    /// The block with so many bits of prefix that an address is in.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let block = Self { first: u32::from(address), prefix: prefix.clamp(16, 28) };
        Self { first: block.first & block.mask(), ..block }
    }

    /// How many addresses it has.
    pub fn size(self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The address at a position.
    pub fn address(self, position: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.first + position % self.size())
    }

    /// Whether an address is of the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == self.first
    }

    /// Whether two blocks share addresses.
    pub fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.first & mask == other.first & mask
    }

    /// The block's equal parts with `more` bits of prefix; part `index`.
    pub fn part(self, more: u8, index: u32) -> Self {
        let prefix = self.prefix + more;
        Self { first: self.first + (index << (32 - u32::from(prefix))), prefix }
    }

    /// The addresses that machines get: those of odd number, so that pods can have the even ones
    /// without either asking the other. Begins at the hint's.
    pub fn machine_addresses(self, hint: u32) -> impl Iterator<Item = Ipv4Addr> {
        let first = KEPT_FIRST + 1;
        let count = (self.size() - 2 - first) / 2 + 1;
        (0..count).map(move |step| self.address(first + 2 * ((hint % count + step) % count)))
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let malformed = || CidrError::Malformed(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let prefix: u8 = prefix.parse().ok().filter(|bits| *bits <= 32).ok_or_else(malformed)?;
        if !(16..=28).contains(&prefix) {
            return Err(CidrError::Size(text.to_owned()));
        }
        let block = Self { first: u32::from(address), prefix };
        let block = Self { first: block.first & block.mask(), prefix };
        if block.first != u32::from(address) {
            return Err(CidrError::NotFirst { text: text.to_owned(), block });
        }
        Ok(block)
    }
}

/// What `kubectl get subnets` prints.
pub fn columns(kind: &str) -> Option<&'static [Column]> {
    const COLUMNS: &[Column] = &[
        column("CIDR", "string", ".spec.cidrBlock", 0),
        column("Zone", "string", ".spec.zone", 0),
        column("Public", "boolean", ".spec.public", 0),
        column("Age", "date", ".metadata.creationTimestamp", 0),
    ];
    (kind == "Subnet").then_some(COLUMNS)
}

/// The schema of a subnet.
pub fn schema(kind: &str) -> Option<&'static Value> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let text = |description: &str| json!({"type": "string", "description": description});
        json!({
            "type": "object",
            "description": "A subnet of the simulated VPC. Its name is the subnet's id.",
            "properties": {
                "apiVersion": text("Group and version of the form this object is written in."),
                "kind": text("Name of the kind of object."),
                "metadata": {"type": "object", "description": "Standard object metadata."},
                "spec": {
                    "type": "object",
                    "description": "Where it is and which addresses it has.",
                    "required": ["cidrBlock", "zone", "zoneId"],
                    "properties": {
                        "cidrBlock": text("Its addresses."),
                        "zone": text("Availability zone name."),
                        "zoneId": text("Availability zone id."),
                        "public": {"type": "boolean",
                            "description": "Whether it has a route to an internet gateway."},
                    },
                },
            },
        })
    });
    (kind == "Subnet").then(|| &*SCHEMA)
}

/// What the schema refuses; other kinds have none.
pub fn validate(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    static COMPILED: LazyLock<Option<Structural>> =
        LazyLock::new(|| Structural::compile(schema("Subnet")?).ok());
    match &*COMPILED {
        Some(compiled) if kind == "Subnet" => compiled.validate(new, old),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a block")
    }

    #[test]
    fn blocks_are_read_and_cut() {
        let vpc = cidr("10.10.0.0/16");
        assert_eq!(vpc.part(4, 1).to_string(), "10.10.16.0/20");
        assert_eq!(vpc.part(8, 48).to_string(), "10.10.48.0/24");
        assert!(vpc.part(4, 1).contains(Ipv4Addr::new(10, 10, 27, 74)));
        assert!(!vpc.part(4, 0).contains(Ipv4Addr::new(10, 10, 27, 74)));
        assert!(vpc.overlaps(vpc.part(4, 3)) && vpc.part(4, 3).overlaps(vpc));
        assert!(!vpc.part(4, 3).overlaps(vpc.part(4, 2)));
        for (text, expected) in [
            ("10.10.0.0", "\"10.10.0.0\" is no block of addresses, which reads like 10.10.0.0/16"),
            (
                "10.10.0/16",
                "\"10.10.0/16\" is no block of addresses, which reads like 10.10.0.0/16",
            ),
            (
                "10.10.0.0/33",
                "\"10.10.0.0/33\" is no block of addresses, which reads like 10.10.0.0/16",
            ),
            ("10.0.0.0/8", "10.0.0.0/8 has a prefix of other than 16 to 28 bits"),
            (
                "10.10.0.4/16",
                "10.10.0.4/16 is no block of addresses; the block around it is 10.10.0.0/16",
            ),
        ] {
            assert_eq!(text.parse::<Cidr>().expect_err("it is wrong").to_string(), expected);
        }
    }

    #[test]
    fn machines_have_the_odd_addresses() {
        let all: Vec<Ipv4Addr> = cidr("10.10.48.0/24").machine_addresses(7).collect();
        assert_eq!(all.len(), 125);
        assert_eq!(all[0].to_string(), "10.10.48.19");
        assert_eq!(all.iter().min().map(ToString::to_string).as_deref(), Some("10.10.48.5"));
        assert_eq!(all.iter().max().map(ToString::to_string).as_deref(), Some("10.10.48.253"));
        assert_eq!(cidr("10.0.0.0/28").machine_addresses(0).count(), 5);
    }

    #[test]
    fn it_is_written_as_the_schema_says() {
        let spec = SubnetSpec {
            cidr_block: "10.10.0.0/20".to_owned(),
            zone: "ap-northeast-2a".to_owned(),
            zone_id: "apne2-az1".to_owned(),
            public: true,
        };
        let subnet = Subnet::new("subnet-1", spec);
        let value = serde_json::to_value(&subnet).expect("plain data");
        assert_eq!(value["apiVersion"], "sim.wharf.dev/v1");
        assert_eq!(validate("Subnet", &value, None), []);
        assert_eq!(serde_json::from_value::<Subnet>(value).expect("its own form"), subnet);
        let empty = json!({"metadata": {"name": "s"}, "spec": {}});
        assert_eq!(validate("Subnet", &empty, None).len(), 3);
    }
}
