//! What must never be broken, checked on the store itself after every step.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::instance::Instance;
use wharf_model::kinds::Kind;
use wharf_model::money::Money;
use wharf_model::object::{ObjectKey, Revision};
use wharf_model::resources::{Resources, pod_requests};
use wharf_model::time::Time;
use wharf_sim::ledger::Ledger;
use wharf_store::Store;

use crate::autoscaling::AutoscalingInvariants;
use crate::batch::BatchInvariants;
use crate::devices;
use crate::fargate;
use crate::gangs::GangInvariants;
use crate::volumes::VolumeInvariants;

/// All of them.
#[derive(Default)]
pub(crate) struct Invariants {
    revision: Revision,
    world: WorldInvariants,
    gangs: GangInvariants,
    volumes: VolumeInvariants,
    autoscaling: AutoscalingInvariants,
    batch: BatchInvariants,
}

impl Invariants {
    /// The program was started anew: what only it remembered is gone.
    pub(crate) fn restarted(&mut self) {
        self.autoscaling.restarted();
    }

    /// Checks every invariant, if anything has changed since the last time or could by time alone.
    pub(crate) fn check(&mut self, store: &Store, now: Time) {
        let revision = store.revision();
        assert!(revision >= self.revision, "revisions never fall");
        self.gangs.check_patience(now);
        if revision == self.revision {
            return;
        }
        self.revision = revision;
        self.world.check(store, now);
        self.gangs.check(store, now);
        self.volumes.check(store);
        devices::check(store);
        fargate::check(store);
        self.autoscaling.check(store, now);
        self.batch.check(store);
    }
}

/// Remembers what it needs to see that nothing moves that must not.
#[derive(Default)]
struct WorldInvariants {
    /// On which node each pod was first seen, by uid: a bound pod never moves.
    bound: BTreeMap<String, String>,
    /// Of each machine, whether it ran and what it had cost.
    bill: BTreeMap<String, (bool, Money)>,
}

impl WorldInvariants {
    fn check(&mut self, store: &Store, now: Time) {
        self.pods_fit_and_stay(store);
        self.one_machine_per_claim(store);
        self.money_adds_up(store, now);
    }

    /// No pod moves, and no node holds more than it has.
    fn pods_fit_and_stay(&mut self, store: &Store) {
        let (pods, _) = store.list(Kind::of::<Pod>(), Some("default"));
        let mut used: BTreeMap<String, Resources> = BTreeMap::new();
        for object in &pods {
            let Some(pod) = object.typed::<Pod>() else { panic!("a pod that does not decode") };
            let Some(spec) = &pod.spec else { continue };
            let Some(node) = &spec.node_name else { continue };
            let first = self.bound.entry(object.uid().to_owned()).or_insert_with(|| node.clone());
            assert_eq!(first, node, "pod {} moved", object.key());
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if matches!(phase, Some("Succeeded" | "Failed")) {
                continue;
            }
            let mut requests = pod_requests(spec);
            requests.pods = 1;
            used.entry(node.clone()).or_default().add(&requests);
        }
        for (name, used) in used {
            let Some(object) = store.get(Kind::of::<Node>(), &ObjectKey::cluster(&name)) else {
                continue;
            };
            let Some(node) = object.typed::<Node>() else { panic!("a node that does not decode") };
            let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone());
            let allocatable = Resources::from_map(&allocatable.unwrap_or_default());
            assert!(
                used.fits_in(&allocatable),
                "node {name} is overcommitted: {used} of {allocatable}"
            );
        }
    }

    /// No NodeClaim ever has two machines: a launch is never repeated.
    fn one_machine_per_claim(&self, store: &Store) {
        let (instances, _) = store.list(Kind::of::<Instance>(), None);
        let mut claims: BTreeMap<String, String> = BTreeMap::new();
        for object in &instances {
            let Some(instance) = object.typed::<Instance>() else { continue };
            let Some(claim) = instance.spec.tags.get("karpenter.sh/nodeclaim") else { continue };
            let id = object.key().name.to_string();
            if let Some(other) = claims.insert(claim.clone(), id.clone()) {
                panic!("nodeclaim {claim} has the machines {other} and {id}");
            }
        }
    }

    /// The bill is the sum of its lines; a line grows while its machine runs and never moves once
    /// the machine has stopped. (When a stop is written late, it still counts from when it was.)
    fn money_adds_up(&mut self, store: &Store, now: Time) {
        let (instances, _) = store.list(Kind::of::<Instance>(), None);
        let ledger = Ledger::of(instances.iter().filter_map(|one| one.typed::<Instance>()), now);
        let sum = ledger.lines.iter().fold(Money::default(), |sum, line| sum + line.cost);
        assert_eq!(ledger.total(), sum);
        for line in ledger.lines {
            let told = self.bill.insert(line.instance.clone(), (line.running, line.cost));
            let Some((was_running, before)) = told else { continue };
            assert!(was_running || !line.running, "machine {} came back", line.instance);
            if line.running {
                assert!(line.cost >= before, "the bill of {} fell", line.instance);
            } else if !was_running {
                assert_eq!(line.cost, before, "the bill of {} moved", line.instance);
            }
        }
    }
}
