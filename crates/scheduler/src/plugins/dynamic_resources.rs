//! DynamicResources: a pod goes where its claims have devices, or can get them. What it takes is
//! set aside at Reserve ([`crate::Snapshot::reserve_devices`]).

use std::collections::BTreeSet;

use wharf_model::object::ObjectKey;

use super::{Code, PreFilterRejection, Rejection};
use crate::devices::{Claim, DeviceNews, Fault, rate};
use crate::node::{NodeFacts, NodeInfo};
use crate::pod::PodInfo;
use crate::profile::Plugin;
use crate::refusals::Refusals;
use crate::snapshot::Snapshot;

/// As many may share a claim.
const CONSUMERS_MAX: usize = 256;

const CANNOT: u64 = 0;
const ELSEWHERE: u64 = 1;
const INVALID_POOLS: u64 = 2;
const SELECTOR: u64 = 3;
const TOO_LONG: u64 = 4;
const STALE: u64 = 5;

pub(crate) fn reason(detail: u64) -> &'static str {
    match detail {
        ELSEWHERE => "resourceclaim not available on the node",
        STALE => "cannot schedule extended resource claim",
        INVALID_POOLS => "invalid resource pools were encountered",
        SELECTOR => "cannot allocate all claims: a device selector fails",
        TOO_LONG => "cannot allocate all claims: the search was given up after too many steps",
        _ => "cannot allocate all claims",
    }
}

#[derive(Clone)]
pub(crate) struct State<'a> {
    snapshot: &'a Snapshot,
    /// Claims that have their devices.
    allocated: Vec<&'a Claim>,
    /// Those that need some.
    free: Vec<&'a Claim>,
    /// The pod, if classes stand for extended resources that it asks for.
    extended: Option<&'a PodInfo>,
}

impl<'a> State<'a> {
    /// PreFilter: the claims are there, and so are the classes they ask for.
    pub(crate) fn new(
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
    ) -> Result<Option<Self>, PreFilterRejection> {
        let extended = snapshot.devices.stand_for(pod).then_some(pod);
        if pod.claims.is_none() && extended.is_none() {
            return Ok(None);
        }
        let refuse = |message: String| PreFilterRejection {
            plugin: Plugin::DynamicResources,
            code: Code::UnschedulableAndUnresolvable,
            message: message.into(),
        };
        let mut seen: BTreeSet<&ObjectKey> = BTreeSet::new();
        let mut state = Self { snapshot, allocated: Vec::new(), free: Vec::new(), extended };
        for wanted in pod.claims.iter().flat_map(|own| own.claims.iter()) {
            let Some(key) = &wanted.key else {
                return Err(refuse(format!("resourceclaim for {:?} not found", wanted.name)));
            };
            let Some(claim) = snapshot.devices.claim(key) else {
                return Err(refuse(format!("resourceclaim {:?} not found", key.name.as_str())));
            };
            if !seen.insert(key) {
                continue;
            }
            if claim.deleting {
                return Err(refuse(format!(
                    "resourceclaim {:?} is being deleted",
                    key.name.as_str()
                )));
            }
            if wanted.from_template && claim.owner != pod.uid {
                return Err(refuse(format!(
                    "ResourceClaim {key} was not created for pod {} (pod is not owner)",
                    pod.key
                )));
            }
            if claim.allocation.is_some() {
                let is_full = claim.reserved_for.len() >= CONSUMERS_MAX;
                if is_full && !claim.reserved_for.contains(&pod.uid) {
                    return Err(refuse("resourceclaim in use".to_owned()));
                }
                state.allocated.push(claim);
                continue;
            }
            if snapshot.devices.is_in_flight(key) {
                return Err(refuse(format!(
                    "resource claim {key} is in the process of being allocated"
                )));
            }
            for alternative in claim.requests.iter().flat_map(|request| &request.alternatives) {
                let (name, class) = (&alternative.name, &alternative.class);
                if snapshot.devices.class(class).is_none() {
                    return Err(refuse(format!(
                        "request {name}: device class {class} does not exist"
                    )));
                }
            }
            state.free.push(claim);
        }
        let any = !seen.is_empty() || extended.is_some();
        Ok(any.then_some(state))
    }

    pub(crate) fn check(&self, node: &NodeInfo) -> Option<Rejection> {
        let detail = if self.elsewhere(node).is_some() {
            ELSEWHERE
        } else {
            match self.rate(node) {
                _ if self.is_stale() => STALE,
                Ok(_) => return None,
                Err(Fault::None) => CANNOT,
                Err(Fault::InvalidPools) => INVALID_POOLS,
                Err(Fault::Selector(_)) => SELECTOR,
                Err(Fault::TooLong) => TOO_LONG,
            }
        };
        let code = Code::UnschedulableAndUnresolvable;
        Some(Rejection { plugin: Plugin::DynamicResources, code, detail })
    }

    /// How well a node serves the claims, with the one that is made for extended resources.
    fn rate(&self, node: &NodeInfo) -> Result<i64, Fault> {
        let devices = &self.snapshot.devices;
        let extended = self.extended.and_then(|pod| devices.extended_claim(pod, node));
        let extended = extended.as_ref().map(|(_, claim)| claim);
        let all: Vec<&Claim> = self.free.iter().copied().chain(extended).collect();
        rate(&all, node, devices, self.snapshot.symbols())
    }

    /// Whether a claim for extended resources is left from an earlier try.
    fn is_stale(&self) -> bool {
        self.extended.is_some_and(|pod| self.snapshot.devices.stale_claim(pod).is_some())
    }

    /// A claim whose devices the node does not reach, or will never be able to use.
    fn elsewhere(&self, node: &NodeInfo) -> Option<&'a Claim> {
        self.allocated.iter().find(|claim| self.is_unavailable(claim, node)).copied()
    }

    fn is_unavailable(&self, claim: &Claim, node: &NodeInfo) -> bool {
        let symbols = self.snapshot.symbols();
        claim.allocation.as_ref().is_some_and(|it| !it.is_on(node, symbols))
            || self.snapshot.devices.is_hopeless(claim)
    }

    fn explain(&self, node: &NodeInfo) -> String {
        if let Some(claim) = self.elsewhere(node) {
            let why = if self.snapshot.devices.is_hopeless(claim) {
                "has devices that have not become ready"
            } else {
                "has its devices elsewhere"
            };
            return format!("claim {} {why}", claim.key.name);
        }
        match self.rate(node) {
            _ if self.is_stale() => {
                "the claim that was made for the pod's extended resources is deleted first"
                    .to_owned()
            }
            Ok(_) => "its devices would do now".to_owned(),
            Err(fault) => fault.to_string(),
        }
    }
}

/// Why a node refuses, with names.
pub(crate) fn explain(pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> Option<String> {
    Some(State::new(pod, snapshot).ok()??.explain(node))
}

/// The scores: where claims get what they like best.
pub(crate) struct Scores<'a> {
    state: State<'a>,
}

impl<'a> Scores<'a> {
    /// `None` if no claim says what it likes best.
    pub(crate) fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Self> {
        let state = State::new(pod, snapshot).ok()??;
        state.free.iter().any(|claim| claim.is_prioritised()).then_some(Self { state })
    }

    pub(crate) fn score(&self, node: &NodeInfo) -> i64 {
        self.state.rate(node).unwrap_or(0)
    }
}

/// PostFilter: what is to be said of a pod's claims when no node takes it, and the claim that loses
/// its devices, since nobody uses it where it is.
pub(crate) fn post_filter(
    pod: &PodInfo,
    snapshot: &Snapshot,
    refused: &Refusals,
) -> (&'static str, Option<ObjectKey>) {
    const NO_CLAIMS: &str = "no new claims to deallocate";
    let state = match State::new(pod, snapshot) {
        Ok(None) => return (NO_CLAIMS, None),
        Err(_) => return ("still not schedulable", None),
        Ok(Some(state)) => state,
    };
    // Nodes that others refused were never asked for the claims.
    let nodes = || {
        let elsewhere = |rejection: &Rejection| {
            rejection.plugin == Plugin::DynamicResources && rejection.detail == ELSEWHERE
        };
        refused.iter().filter(move |(_, rejection)| elsewhere(rejection)).map(|(node, _)| node)
    };
    let unused = state.allocated.iter().find(|claim| {
        let others = claim.reserved_for.iter().any(|user| *user != pod.uid);
        !others && nodes().any(|node| state.is_unavailable(claim, snapshot.node(node)))
    });
    let stale = state.extended.and_then(|pod| snapshot.devices.stale_claim(pod));
    match unused {
        None if stale.is_some() => {
            ("deletion of ResourceClaim completed", stale.map(|claim| claim.key.clone()))
        }
        Some(claim) => ("deallocation of ResourceClaim completed", Some(claim.key.clone())),
        None => ("still not schedulable", None),
    }
}

/// A node is new, has other labels, or room for what it did not have room for.
pub(crate) fn wakes_on_node(old: Option<&NodeFacts>, new: &NodeFacts) -> bool {
    old.is_none_or(|old| old.labels != new.labels || old.allocatable != new.allocatable)
}

/// A pod with claims gave its place up before it was bound: its devices are free. Upstream tells
/// this by the claim.
pub(crate) fn wakes_on_pod_gone(gone: &PodInfo) -> bool {
    gone.node_name.is_empty() && (gone.claims.is_some() || gone.extended.is_some())
}

/// The pod was told of its claims.
pub(crate) fn wakes_on_self(old: &PodInfo, new: &PodInfo) -> bool {
    old.claims != new.claims
}

/// A claim of its own changed, another gave devices back, or there are other devices or classes.
pub(crate) fn wakes_on_devices(pod: &PodInfo, news: &DeviceNews) -> bool {
    match news {
        DeviceNews::Class | DeviceNews::Slice => true,
        DeviceNews::Claim { key, freed } => {
            *freed || pod.claims.as_deref().is_some_and(|own| own.uses(key))
        }
    }
}
