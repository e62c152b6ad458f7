//! The storage objects as decisions see them: compiled once when they change.

use compact_str::CompactString;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSINode, CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use smallvec::SmallVec;
use wharf_model::labels;
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;

use super::migration::{EBS_DRIVER, EBS_IN_TREE, ebs_handle, ebs_terms, zone_set};
use super::pod::ClaimKey;
use crate::node::NodeInfo;
use crate::selector::{Selector, Term};
use crate::symbols::{Labels, Symbol, Symbols, label};

/// The class of a claim or volume in old objects; it wins over the field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// A CSINode's list of the in-tree plugins that its kubelet has migrated.
const MIGRATED_PLUGINS: &str = "storage.alpha.kubernetes.io/migrated-plugins";
/// The provisioner of classes whose volumes nobody makes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub(crate) key: ClaimKey,
    pub(crate) name: ObjectKey,
    pub(crate) uid: CompactString,
    /// The class; empty if it has none.
    pub(crate) class: Symbol,
    /// `spec.volumeName`; empty if it has none.
    pub(crate) volume: Symbol,
    /// Whether the binding to that volume is complete.
    pub(crate) bound: bool,
    /// Whether its volume is gone.
    pub(crate) lost: bool,
    pub(crate) deleting: bool,
    /// The node for which a volume is to be made.
    pub(crate) selected_node: Option<Symbol>,
    /// How much it asks for, if it says so.
    pub(crate) bytes: Option<i64>,
    pub(crate) modes: AccessModes,
    /// Whether it wants a block device.
    pub(crate) block: bool,
    pub(crate) selector: Option<Selector>,
    pub(crate) attributes_class: Symbol,
    /// The uid of the controlling owner; empty if it has none.
    pub(crate) owner: CompactString,
}

/// A set of access modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccessModes(u8);

/// A PersistentVolume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Volume {
    pub(crate) name: CompactString,
    pub(crate) symbol: Symbol,
    pub(crate) class: Symbol,
    pub(crate) bytes: i64,
    pub(crate) modes: AccessModes,
    pub(crate) block: bool,
    pub(crate) labels: Labels,
    pub(crate) attributes_class: Symbol,
    /// The nodes that reach it; `None` if all do.
    affinity: Option<Box<[Term]>>,
    /// The same on nodes that attach it through the CSI driver, where that is different.
    migrated_affinity: Option<Box<[Term]>>,
    /// Host names, one of which a node must have to reach it, if its affinity says so.
    pub(crate) hosts: Option<SmallVec<[Symbol; 1]>>,
    /// The claim it is bound to or kept for.
    pub(crate) claim: Option<(ClaimKey, CompactString)>,
    pub(crate) available: bool,
    pub(crate) deleting: bool,
    pub(crate) source: Source,
    /// Zone and region labels.
    pub(crate) topology: SmallVec<[Topology; 1]>,
}

/// Where a volume's data is, as far as limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Csi {
        driver: Symbol,
        handle: Symbol,
    },
    /// An in-tree EBS volume, with the driver's name and its handle there.
    Ebs {
        driver: Symbol,
        handle: Option<Symbol>,
    },
    Other,
}

/// A zone or region label of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    /// The label, and its present-day name where it is an old one.
    pub(crate) keys: [Symbol; 2],
    pub(crate) values: SmallVec<[Symbol; 1]>,
}

/// A StorageClass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Class {
    pub(crate) provisioner: Symbol,
    /// The CSI driver that makes its volumes on nodes that have migrated to it, for a class of the
    /// in-tree EBS plugin.
    pub(crate) migrated_to: Option<Symbol>,
    /// Whether anybody makes its volumes.
    pub(crate) provisions: bool,
    pub(crate) mode: BindingMode,
    /// Where volumes may be made: one of the terms, each of which lists keys with values. Empty
    /// means everywhere.
    pub(crate) topologies: Vec<Vec<(Symbol, SmallVec<[Symbol; 2]>)>>,
}

/// When a class's claims get their volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindingMode {
    Immediate,
    WaitForFirstConsumer,
    Unset,
}

/// A CSIStorageCapacity.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Capacity {
    pub(crate) class: Symbol,
    /// The largest volume that can be made; `None` if it does not say.
    pub(crate) limit: Option<i64>,
    /// The nodes it is for; `None` if for none.
    pub(crate) nodes: Option<Selector>,
}

/// What a CSINode says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeDrivers {
    /// How many volumes of a driver can be attached, for drivers that have a limit.
    pub(crate) limits: SmallVec<[(Symbol, i64); 1]>,
    /// Whether in-tree EBS volumes are attached through the CSI driver.
    pub(crate) ebs_migrated: bool,
}

impl Claim {
    pub(crate) fn new(claim: &PersistentVolumeClaim, symbols: &mut Symbols) -> Self {
        let metadata = &claim.metadata;
        let name = ObjectKey::of(metadata);
        let spec = claim.spec.as_ref();
        let volume = spec.and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        let selector = spec.and_then(|spec| spec.selector.as_ref());
        let bytes = spec
            .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"))
            .map(bytes);
        let owners = metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
        Self {
            key: (symbols.intern(&name.namespace), symbols.intern(&name.name)),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            class: class_of(metadata, spec.and_then(|s| s.storage_class_name.as_deref()), symbols),
            volume: symbols.intern(volume),
            bound: !volume.is_empty() && annotation(metadata, labels::BIND_COMPLETED).is_some(),
            lost: claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost"),
            deleting: metadata.deletion_timestamp.is_some(),
            selected_node: annotation(metadata, labels::SELECTED_NODE)
                .map(|node| symbols.intern(node)),
            bytes,
            modes: AccessModes::new(spec.and_then(|spec| spec.access_modes.as_deref())),
            block: spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block"),
            selector: selector.map(|selector| Selector::new(Some(selector), symbols)),
            attributes_class: symbols.intern(
                spec.and_then(|spec| spec.volume_attributes_class_name.as_deref())
                    .unwrap_or_default(),
            ),
            owner: owner.map_or("", |owner| owner.uid.as_str()).into(),
            name,
        }
    }
}

impl AccessModes {
    /// One pod in the cluster.
    const READ_WRITE_ONCE_POD: u8 = 8;

    fn new(modes: Option<&[String]>) -> Self {
        let bits = modes.unwrap_or_default().iter().map(|mode| match mode.as_str() {
            "ReadWriteOnce" => 1,
            "ReadOnlyMany" => 2,
            "ReadWriteMany" => 4,
            "ReadWriteOncePod" => Self::READ_WRITE_ONCE_POD,
            // A word the API would have refused, which no volume offers.
            _ => 16,
        });
        Self(bits.fold(0, |all, bit| all | bit))
    }

    /// Whether all of these are among the others.
    pub(crate) fn are_in(self, others: Self) -> bool {
        self.0 & !others.0 == 0 && self.0 & 16 == 0
    }

    /// Whether only one pod may use the claim at a time.
    pub(crate) fn for_one_pod(self) -> bool {
        self.0 & Self::READ_WRITE_ONCE_POD != 0
    }
}

impl Volume {
    pub(crate) fn new(volume: &PersistentVolume, symbols: &mut Symbols) -> Self {
        let metadata = &volume.metadata;
        let spec = volume.spec.as_ref();
        let name = CompactString::from(metadata.name.as_deref().unwrap_or_default());
        let own = spec
            .and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref())
            .map(|required| required.node_selector_terms.as_slice());
        let mut compile = |terms: &[_]| -> Box<[Term]> {
            terms.iter().map(|term| Term::new(term, symbols)).collect()
        };
        let affinity = own.map(&mut compile);
        let ebs = spec.and_then(|spec| spec.aws_elastic_block_store.as_ref());
        let migrated_affinity =
            ebs.and_then(|_| ebs_terms(volume)).map(|terms| compile(terms.as_slice()));
        let hostname = symbols.intern(labels::HOSTNAME);
        let hosts = match affinity.as_deref() {
            Some([only]) if migrated_affinity.is_none() => only.values(hostname).map(Into::into),
            _ => None,
        };
        let claim = spec.and_then(|spec| spec.claim_ref.as_ref()).map(|claim| {
            let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
            let key = (symbols.intern(&text(&claim.namespace)), symbols.intern(&text(&claim.name)));
            (key, CompactString::from(text(&claim.uid)))
        });
        let capacity = spec.and_then(|spec| spec.capacity.as_ref()?.get("storage"));
        let status = volume.status.as_ref();
        Self {
            symbol: symbols.intern(&name),
            name,
            class: class_of(metadata, spec.and_then(|s| s.storage_class_name.as_deref()), symbols),
            bytes: capacity.map_or(0, bytes),
            modes: AccessModes::new(spec.and_then(|spec| spec.access_modes.as_deref())),
            block: spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block"),
            labels: symbols.intern_labels(metadata.labels.iter().flatten()),
            attributes_class: symbols.intern(
                spec.and_then(|spec| spec.volume_attributes_class_name.as_deref())
                    .unwrap_or_default(),
            ),
            affinity,
            migrated_affinity,
            hosts,
            claim,
            available: status.and_then(|status| status.phase.as_deref()) == Some("Available"),
            deleting: metadata.deletion_timestamp.is_some(),
            source: Source::new(volume, symbols),
            topology: topology(metadata, symbols),
        }
    }

    /// Whether a node reaches the volume.
    pub(crate) fn reachable(&self, node: &NodeInfo, migrated: bool, symbols: &Symbols) -> bool {
        let terms = match (&self.migrated_affinity, migrated) {
            (Some(terms), true) => Some(terms),
            _ => self.affinity.as_ref(),
        };
        terms.is_none_or(|terms| terms.iter().any(|term| term.matches(node, symbols)))
    }

    /// Whether other nodes reach it where in-tree volumes are attached through the CSI driver.
    pub(crate) fn may_migrate(&self) -> bool {
        self.migrated_affinity.is_some()
    }

    /// Whether it is kept for or bound to a claim, or to an earlier one of that name.
    pub(crate) fn is_for(&self, claim: &Claim) -> bool {
        self.claim
            .as_ref()
            .is_some_and(|(key, uid)| *key == claim.key && (uid.is_empty() || *uid == claim.uid))
    }
}

impl Source {
    fn new(volume: &PersistentVolume, symbols: &mut Symbols) -> Self {
        let Some(spec) = volume.spec.as_ref() else { return Self::Other };
        if let Some(csi) = &spec.csi {
            let driver = symbols.intern(&csi.driver);
            return Self::Csi { driver, handle: symbols.intern(&csi.volume_handle) };
        }
        match &spec.aws_elastic_block_store {
            Some(disk) => Self::Ebs {
                driver: symbols.intern(EBS_DRIVER),
                handle: ebs_handle(&disk.volume_id).map(|handle| symbols.intern(handle)),
            },
            None => Self::Other,
        }
    }
}

/// The labels by which volumes and nodes tell zone and region, old ones first, each with its
/// present-day name.
pub(crate) const TOPOLOGY_LABELS: [[&str; 2]; 4] = [
    [labels::TOPOLOGY_ZONE_BETA, labels::TOPOLOGY_ZONE],
    [labels::TOPOLOGY_REGION_BETA, labels::TOPOLOGY_REGION],
    [labels::TOPOLOGY_ZONE, labels::TOPOLOGY_ZONE],
    [labels::TOPOLOGY_REGION, labels::TOPOLOGY_REGION],
];

fn topology(metadata: &ObjectMeta, symbols: &mut Symbols) -> SmallVec<[Topology; 1]> {
    let Some(own) = metadata.labels.as_ref() else { return SmallVec::new() };
    let mut found = SmallVec::new();
    for keys in TOPOLOGY_LABELS {
        let Some(zones) = own.get(keys[0]).and_then(|value| zone_set(value)) else { continue };
        let values = zones.map(|zone| symbols.intern(zone)).collect();
        found.push(Topology { keys: keys.map(|key| symbols.intern(key)), values });
    }
    found
}

impl Class {
    pub(crate) fn new(class: &StorageClass, symbols: &mut Symbols) -> Self {
        let mut term = |term: &k8s_openapi::api::core::v1::TopologySelectorTerm| {
            let expressions = term.match_label_expressions.iter().flatten();
            expressions
                .map(|item| {
                    let values = item.values.iter().map(|value| symbols.intern(value)).collect();
                    (symbols.intern(&item.key), values)
                })
                .collect()
        };
        Self {
            topologies: class.allowed_topologies.iter().flatten().map(&mut term).collect(),
            provisioner: symbols.intern(&class.provisioner),
            migrated_to: (class.provisioner == EBS_IN_TREE).then(|| symbols.intern(EBS_DRIVER)),
            provisions: !class.provisioner.is_empty() && class.provisioner != NO_PROVISIONER,
            mode: match class.volume_binding_mode.as_deref() {
                Some("WaitForFirstConsumer") => BindingMode::WaitForFirstConsumer,
                Some(_) => BindingMode::Immediate,
                None => BindingMode::Unset,
            },
        }
    }

    /// Whether volumes of the class may be made for a node. A term without keys admits nothing.
    pub(crate) fn admits(&self, node: &NodeInfo) -> bool {
        let has = |(key, values): &(Symbol, SmallVec<[Symbol; 2]>)| {
            label(&node.facts.labels, *key).is_some_and(|value| values.contains(&value))
        };
        self.topologies.is_empty()
            || self.topologies.iter().any(|term| !term.is_empty() && term.iter().all(has))
    }
}

impl Capacity {
    pub(crate) fn new(capacity: &CSIStorageCapacity, symbols: &mut Symbols) -> Self {
        // The largest volume is more precise than what is left in all.
        let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
        let nodes = capacity.node_topology.as_ref();
        Self {
            class: symbols.intern(&capacity.storage_class_name),
            limit: limit.map(bytes),
            nodes: nodes.map(|selector| Selector::new(Some(selector), symbols)),
        }
    }
}

impl NodeDrivers {
    pub(crate) fn new(node: &CSINode, symbols: &mut Symbols) -> Self {
        let drivers = node.spec.drivers.iter();
        let limit = |driver: &k8s_openapi::api::storage::v1::CSINodeDriver| {
            Some(i64::from(driver.allocatable.as_ref()?.count?))
        };
        let migrated = annotation(&node.metadata, MIGRATED_PLUGINS).unwrap_or_default();
        Self {
            limits: drivers
                .filter_map(|driver| Some((symbols.intern(&driver.name), limit(driver)?)))
                .collect(),
            ebs_migrated: migrated.split(',').any(|plugin| plugin == EBS_IN_TREE),
        }
    }

    /// How many volumes of a driver can be attached; `None` if there is no limit.
    pub(crate) fn limit(&self, driver: Symbol) -> Option<i64> {
        self.limits.iter().find(|(name, _)| *name == driver).map(|(_, limit)| *limit)
    }
}

fn annotation<'m>(metadata: &'m ObjectMeta, key: &str) -> Option<&'m str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn class_of(metadata: &ObjectMeta, field: Option<&str>, symbols: &mut Symbols) -> Symbol {
    symbols.intern(annotation(metadata, CLASS_ANNOTATION).or(field).unwrap_or_default())
}

/// An amount of bytes, rounded up; one that cannot be read is none at all.
fn bytes(quantity: &ApiQuantity) -> i64 {
    Quantity::parse(&quantity.0).map_or(0, |quantity| quantity.value_ceil())
}
