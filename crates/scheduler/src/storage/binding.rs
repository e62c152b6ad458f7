//! Which volumes a pod's claims get on a node: those they are bound to, the smallest free ones that
//! fit, or new ones where new ones can be made.

use std::fmt;
use std::sync::Arc;

use compact_str::CompactString;
use smallvec::SmallVec;
use wharf_model::object::ObjectKey;

use super::objects::{BindingMode, Claim, Class, Volume};
use super::pod::PodVolumes;
use super::{BySize, Storage};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::symbols::{Symbol, Symbols, label};

const UNBOUND_IMMEDIATE: &str = "pod has unbound immediate PersistentVolumeClaims";

/// What has to be written before a pod can run where it goes, and waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumePlan {
    /// Claims, each with the volume to bind it to.
    pub bindings: Vec<(ObjectKey, CompactString)>,
    /// Claims for which a volume is to be made.
    pub provisions: Vec<ObjectKey>,
}

impl VolumePlan {
    /// Whether there is nothing to do: the pod has no claims, or all are bound.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.provisions.is_empty()
    }

    /// The claims to wait for.
    pub fn claims(&self) -> impl Iterator<Item = &ObjectKey> {
        self.bindings.iter().map(|(claim, _)| claim).chain(&self.provisions)
    }
}

/// The node does not have what the pod's claims need any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoLongerFits {
    /// The pod.
    pub pod: ObjectKey,
    /// The node.
    pub node: CompactString,
}

impl fmt::Display for NoLongerFits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} no longer has the volumes that pod {} needs", self.node, self.pod)
    }
}

impl std::error::Error for NoLongerFits {}

/// Why a node cannot have a pod's volumes, as bits; there may be several reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unreachable(pub(crate) u64);

impl Unreachable {
    /// A bound volume's node affinity leaves the node out.
    pub(crate) const AFFINITY: u64 = 1;
    /// No free volume fits and none can be made here.
    pub(crate) const NO_MATCH: u64 = 2;
    /// There is no room to make one.
    pub(crate) const NO_SPACE: u64 = 4;
    /// A claim's volume does not exist.
    pub(crate) const NO_VOLUME: u64 = 8;
}

/// What a pod's claims are in need of.
#[derive(Clone)]
pub(crate) struct Needs<'a> {
    /// The volumes of bound claims; `None` for one that does not exist.
    bound: SmallVec<[Option<&'a Arc<Volume>>; 2]>,
    /// Claims that wait for the pod's node, the smallest first.
    waiting: SmallVec<[Waiting<'a>; 1]>,
}

/// A claim that waits for its pod's node.
#[derive(Clone, Copy)]
struct Waiting<'a> {
    claim: &'a Arc<Claim>,
    class: &'a Class,
    /// The only node where its volume may be made, if that has been decided.
    node: Option<Symbol>,
}

/// Volumes for the claims that wait.
#[derive(Default)]
pub(crate) struct Found<'a> {
    bindings: SmallVec<[(&'a Arc<Claim>, &'a Arc<Volume>); 1]>,
    provisions: SmallVec<[&'a Arc<Claim>; 1]>,
}

impl<'a> Needs<'a> {
    /// PreFilter: sorts out a pod's claims, or says why the pod has to wait wherever it would go.
    /// `None` if it has no claims.
    pub(crate) fn of(
        pod: &PodInfo,
        volumes: &PodVolumes,
        snapshot: &'a Snapshot,
    ) -> Result<Option<Self>, String> {
        let storage = &snapshot.storage;
        if volumes.claims.is_empty() {
            return Ok(None);
        }
        let mut claims: SmallVec<[&'a Arc<Claim>; 4]> = SmallVec::new();
        for used in &volumes.claims {
            let name = snapshot.symbols().text(used.key.1);
            let Some(claim) = storage.claims.get(&used.key) else {
                return Err(if used.ephemeral {
                    format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                    )
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                });
            };
            if claim.lost {
                let volume = snapshot.symbols().text(claim.volume);
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                ));
            }
            if claim.deleting {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if used.ephemeral && claim.owner != pod.uid {
                return Err(format!(
                    "PVC {} was not created for pod {} (pod is not owner)",
                    claim.name, pod.key
                ));
            }
            claims.push(claim);
        }
        let mut needs = Self { bound: SmallVec::new(), waiting: SmallVec::new() };
        for claim in claims {
            if claim.bound {
                needs.bound.push(storage.volumes.get(&claim.volume));
                continue;
            }
            let class = storage.classes.get(&claim.class).map(Arc::as_ref);
            match class {
                Some(class) if class.mode == BindingMode::Unset => {
                    let class = snapshot.symbols().text(claim.class);
                    return Err(format!("VolumeBindingMode not set for StorageClass {class:?}"));
                }
                Some(class)
                    if class.mode == BindingMode::WaitForFirstConsumer
                        && claim.volume == Symbol::EMPTY =>
                {
                    // A pod may mount one claim twice.
                    if needs.waiting.iter().all(|known| known.claim.key != claim.key) {
                        let node = storage.selected_node(claim);
                        needs.waiting.push(Waiting { claim, class, node });
                    }
                }
                _ => return Err(UNBOUND_IMMEDIATE.to_owned()),
            }
        }
        needs.waiting.sort_by_key(|waiting| waiting.claim.bytes.unwrap_or(0));
        Ok(Some(needs))
    }
}

/// Finds volumes on a node for all that a pod needs.
pub(crate) fn find<'a>(
    needs: &Needs<'a>,
    node: &NodeInfo,
    storage: &'a Storage,
    symbols: &Symbols,
) -> Result<Found<'a>, Unreachable> {
    let mut reasons = 0;
    for volume in &needs.bound {
        let Some(volume) = volume else {
            reasons |= Unreachable::NO_VOLUME;
            break;
        };
        let migrated = volume.may_migrate() && storage.ebs_migrated(node.facts.symbol);
        if !volume.reachable(node, migrated, symbols) {
            reasons |= Unreachable::AFFINITY;
            break;
        }
    }
    let mut found = Found::default();
    if !needs.waiting.is_empty()
        && let Err(reason) = find_waiting(needs, node, storage, symbols, &mut found)
    {
        reasons |= reason;
    }
    if reasons == 0 { Ok(found) } else { Err(Unreachable(reasons)) }
}

fn find_waiting<'a>(
    needs: &Needs<'a>,
    node: &NodeInfo,
    storage: &'a Storage,
    symbols: &Symbols,
    found: &mut Found<'a>,
) -> Result<(), u64> {
    let elsewhere =
        |waiting: &Waiting<'_>| waiting.node.is_some_and(|selected| selected != node.facts.symbol);
    if needs.waiting.iter().any(elsewhere) {
        return Err(Unreachable::NO_MATCH);
    }
    // Those whose node is decided have a volume made for them; the others first look for one.
    let mut to_make: SmallVec<[Waiting<'a>; 1]> = SmallVec::new();
    to_make.extend(needs.waiting.iter().filter(|waiting| waiting.node.is_some()).copied());
    for waiting in needs.waiting.iter().filter(|waiting| waiting.node.is_none()) {
        match match_volume(waiting.claim, node, storage, symbols, found) {
            Some(volume) => found.bindings.push((waiting.claim, volume)),
            None => to_make.push(*waiting),
        }
    }
    for waiting in to_make {
        if !waiting.class.provisions || !waiting.class.admits(node) {
            return Err(Unreachable::NO_MATCH);
        }
        if !storage.has_room(waiting.claim, waiting.class, node, symbols) {
            return Err(Unreachable::NO_SPACE);
        }
        found.provisions.push(waiting.claim);
    }
    Ok(())
}

/// The volume for a claim on a node: one kept for the claim, or else the smallest free one that
/// will do; of equals the first by name.
fn match_volume<'a>(
    claim: &Claim,
    node: &NodeInfo,
    storage: &'a Storage,
    symbols: &Symbols,
    found: &Found<'a>,
) -> Option<&'a Arc<Volume>> {
    let wanted = claim.bytes.unwrap_or(0);
    let taken =
        |volume: &Volume| found.bindings.iter().any(|(_, chosen)| chosen.symbol == volume.symbol);
    for volume in storage.kept_for.get(&claim.key).into_iter().flatten() {
        let kept = volume.is_for(claim) || volume.claim.is_none();
        let fits = volume.class == claim.class
            && volume.bytes >= wanted
            && volume.block == claim.block
            && volume.attributes_class == claim.attributes_class
            && !volume.deleting;
        if kept && fits && !taken(volume) {
            // A volume kept for the claim is the only one it may have, even where it is out of
            // reach.
            return volume.reachable(node, false, symbols).then_some(volume);
        }
    }
    let free = storage.available.get(&claim.class)?;
    let will_do = |volume: &Volume| {
        volume.block == claim.block
            && volume.attributes_class == claim.attributes_class
            && claim.modes.are_in(volume.modes)
            && claim
                .selector
                .as_ref()
                .is_none_or(|selector| selector.matches(&volume.labels, symbols))
            && volume.reachable(node, false, symbols)
            && !taken(volume)
    };
    let smallest = |volumes: &'a BySize| {
        let large_enough = volumes.range((wanted, CompactString::default())..);
        large_enough.into_iter().find(|(_, volume)| will_do(volume))
    };
    let anywhere = smallest(&free.anywhere);
    let host = label(&node.facts.labels, storage.keys.hostname);
    let here = host.and_then(|host| free.on_host.get(&host)).and_then(smallest);
    match (anywhere, here) {
        (Some(one), Some(other)) => Some(if one.0 < other.0 { one.1 } else { other.1 }),
        (one, other) => one.or(other).map(|(_, volume)| volume),
    }
}

impl Storage {
    /// Whether a volume can be made for a claim as far as the driver tells how much room it has.
    fn has_room(&self, claim: &Claim, class: &Class, node: &NodeInfo, symbols: &Symbols) -> bool {
        let Some(bytes) = claim.bytes else { return true };
        if self.telling_capacity.get(&class.provisioner) != Some(&true) {
            return true;
        }
        self.capacities.values().any(|capacity| {
            capacity.class == claim.class
                && capacity.limit.is_some_and(|limit| limit >= bytes)
                && capacity
                    .nodes
                    .as_ref()
                    .is_some_and(|nodes| nodes.matches(&node.facts.labels, symbols))
        })
    }
}

/// The volumes for a pod on a node.
pub(super) fn plan(
    snapshot: &Snapshot,
    pod: &PodInfo,
    node: &str,
) -> Result<VolumePlan, NoLongerFits> {
    let refused = || NoLongerFits { pod: pod.key.clone(), node: node.into() };
    let needs = match pod.volumes.as_deref() {
        Some(volumes) => Needs::of(pod, volumes, snapshot).map_err(|_| refused())?,
        None => None,
    };
    let Some(needs) = needs else { return Ok(VolumePlan::default()) };
    let node = snapshot.node_named(node).ok_or_else(refused)?;
    let found = find(&needs, node, &snapshot.storage, snapshot.symbols()).map_err(|_| refused())?;
    let binding =
        |(claim, volume): &(&Arc<Claim>, &Arc<Volume>)| (claim.name.clone(), volume.name.clone());
    Ok(VolumePlan {
        bindings: found.bindings.iter().map(binding).collect(),
        provisions: found.provisions.iter().map(|claim| claim.name.clone()).collect(),
    })
}
