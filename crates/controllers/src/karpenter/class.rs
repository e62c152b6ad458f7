//! A NodePool's node class, of either kind: an EC2NodeClass of self-managed Karpenter, or a NodeClass
//! of EKS Auto Mode. This is the one place that tells them apart; pools of both may be in a cluster.

use std::collections::BTreeMap;

use compact_str::CompactString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use wharf_cloud::catalog::NodeSettings;
use wharf_model::auto_mode::{AutoNodeClass, PLANNING_RESERVE_MILLI, is_auto_class};
use wharf_model::karpenter::ec2nodeclass::Subnet;
use wharf_model::karpenter::{EC2NodeClass, NodeClaim, NodeClassReference, conditions};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;
use wharf_model::random::Random;
use wharf_model::resources::Resources;
use wharf_ports::view::View;
use wharf_provision::disruption::drift::Stamped;

use super::instance_types::node_settings;
use super::nodeclass::image_for;

/// The data volume of Auto Mode's machines where their class does not say it.
const DATA_VOLUME_BYTES: i64 = 80 << 30;
/// The release of Auto Mode's image. AWS makes one every week; here there is one.
const AUTO_IMAGE: &str = "eks-auto-standard-1.36-2026.8.11";

/// A node class.
#[derive(Clone, Copy)]
pub(super) enum NodeClass<'v> {
    /// Of self-managed Karpenter.
    Ec2(&'v EC2NodeClass),
    /// Of EKS Auto Mode.
    Auto(&'v AutoNodeClass),
}

impl<'v> NodeClass<'v> {
    /// The class that a reference names.
    pub(super) fn of(view: &'v View, reference: &NodeClassReference) -> Option<Self> {
        let key = ObjectKey::cluster(&reference.name);
        match is_auto_class(reference) {
            true => view.get(&key).map(Self::Auto),
            false => view.get(&key).map(Self::Ec2),
        }
    }

    /// Its metadata.
    pub(super) fn metadata(self) -> &'v ObjectMeta {
        match self {
            Self::Ec2(class) => &class.metadata,
            Self::Auto(class) => &class.metadata,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'v str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// Its conditions.
    pub(super) fn conditions(self) -> &'v [Condition] {
        match self {
            Self::Ec2(class) => &class.status.conditions,
            Self::Auto(class) => &class.status.conditions,
        }
    }

    /// Whether it can be used for launches.
    pub(super) fn is_ready(self) -> bool {
        conditions::is_true(self.conditions(), conditions::READY)
            && self.metadata().deletion_timestamp.is_none()
    }

    /// Whether EKS Auto Mode runs its machines.
    pub(super) fn is_auto(self) -> bool {
        matches!(self, Self::Auto(_))
    }

    /// A name for its compiled instance types: classes of the two kinds may share one.
    pub(super) fn catalog_key(self) -> CompactString {
        let group = if self.is_auto() { "auto/" } else { "" };
        compact_str::format_compact!("{group}{}", self.name())
    }

    /// What it says of its nodes.
    pub(super) fn settings(self) -> NodeSettings {
        match self {
            Self::Ec2(class) => node_settings(class),
            Self::Auto(class) => auto_settings(class),
        }
    }

    /// The image family of its machines.
    pub(super) fn ami_family(self) -> &'v str {
        match self {
            Self::Ec2(class) => class.ami_family(),
            Self::Auto(_) => "Bottlerocket",
        }
    }

    /// The id of its image for an architecture.
    pub(super) fn image_for(self, arch: &str) -> String {
        match self {
            Self::Ec2(class) => image_for(class, arch),
            // AWS' own image: the same in every cluster.
            Self::Auto(_) => {
                let purpose = format!("{AUTO_IMAGE} {arch}");
                format!("ami-{}", Random::for_purpose(0, &purpose).hex(17))
            }
        }
    }

    /// The subnets that it selects.
    pub(super) fn subnets(self) -> &'v [Subnet] {
        match self {
            Self::Ec2(class) => &class.status.subnets,
            Self::Auto(class) => &class.status.subnets,
        }
    }

    /// The tags that it says.
    pub(super) fn tags(self) -> &'v BTreeMap<String, String> {
        match self {
            Self::Ec2(class) => &class.spec.tags,
            Self::Auto(class) => &class.spec.tags,
        }
    }

    /// The label that names it on nodes, and in tags.
    pub(super) fn label_key(self) -> &'static str {
        match self {
            Self::Ec2(_) => labels::EC2NODECLASS,
            Self::Auto(_) => labels::eks::NODE_CLASS,
        }
    }

    /// The annotations with its hash and the hash's version.
    pub(super) fn hash_keys(self) -> [&'static str; 2] {
        match self {
            Self::Ec2(_) => [labels::EC2NODECLASS_HASH, labels::EC2NODECLASS_HASH_VERSION],
            Self::Auto(_) => [labels::eks::NODE_CLASS_HASH, labels::eks::NODE_CLASS_HASH_VERSION],
        }
    }

    /// Its hash among these annotations, which are its own or a claim's.
    pub(super) fn stamped(self, annotations: &BTreeMap<String, String>) -> Stamped<'_> {
        let [hash, version] = self.hash_keys();
        Stamped { annotations, hash, version }
    }

    /// What nodes of a type offer once they have joined, if planning reckons with so much.
    pub(super) fn offered(self, planned: &Resources) -> Resources {
        let mut offered = planned.clone();
        if self.is_auto() {
            offered.cpu_milli += PLANNING_RESERVE_MILLI;
        }
        offered
    }

    /// What is reckoned with for a claim whose node will offer so much.
    pub(super) fn planned(self, offered: &Resources) -> Resources {
        let mut planned = offered.clone();
        if self.is_auto() {
            planned.cpu_milli = (planned.cpu_milli - PLANNING_RESERVE_MILLI).max(0);
        }
        planned
    }
}

/// The kinds of node classes.
pub(super) fn kinds() -> [Kind; 2] {
    [Kind::of::<EC2NodeClass>(), Kind::of::<AutoNodeClass>()]
}

/// Whether EKS Auto Mode runs a claim's machine.
pub(super) fn is_auto_claim(claim: &NodeClaim) -> bool {
    is_auto_class(&claim.spec.node_class_ref)
}

fn auto_settings(class: &AutoNodeClass) -> NodeSettings {
    let size = class.spec.ephemeral_storage.as_ref().and_then(|storage| storage.size.as_deref());
    let bytes = size.and_then(|size| Quantity::parse(size).ok()).map(|size| size.value_ceil());
    let zone = |subnet: &Subnet| CompactString::from(subnet.zone.as_str());
    let mut zones: Vec<CompactString> = class.status.subnets.iter().map(zone).collect();
    zones.sort_unstable();
    zones.dedup();
    NodeSettings::auto_mode(bytes.unwrap_or(DATA_VOLUME_BYTES), zones)
}
