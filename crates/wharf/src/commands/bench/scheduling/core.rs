//! The scheduler's core alone: snapshot and pod in, decision out, the pod placed in the snapshot.
//! No API, no store, no queue.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use serde::de::DeserializeOwned;
use serde_json::Value;
use wharf_scheduler::{Decision, Memo, PodInfo, Profile, Rotation, Snapshot, schedule_with};

use super::extras;
use super::objects::MEASURED;
use super::workloads::{Size, Workload};
use crate::failure::Failure;
use crate::lab::clock::machine_instant;

/// Looks at the clock are this many decisions apart.
const BATCH: usize = 64;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Decisions {
    /// How many decisions were made.
    pub(super) made: usize,
    /// How many of them found a node.
    pub(super) placed: usize,
    /// How long they took together.
    pub(super) elapsed: Duration,
}

impl Decisions {
    /// Decisions a second.
    pub(super) fn rate(&self) -> f64 {
        self.made as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds for one.
    pub(super) fn micros(&self) -> f64 {
        self.elapsed.as_secs_f64() * 1e6 / self.made.max(1) as f64
    }
}

/// Which share of the nodes is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// As upstream does by default: the more nodes, the smaller the share.
    Sampled,
    /// All of them.
    Every,
}

/// A cluster as a workload has it before it is measured.
#[derive(Clone)]
pub(super) struct Cluster {
    snapshot: Snapshot,
    rotation: Rotation,
    memo: Memo,
}

impl Cluster {
    /// The nodes, with the pods that are there before.
    pub(super) fn new(workload: &Workload, size: &Size) -> Result<Self, Failure> {
        let mut cluster =
            Self { snapshot: Snapshot::new(), rotation: Rotation::default(), memo: Memo::new() };
        for (path, object) in workload.set_up() {
            cluster.take_in(&path, object)?;
        }
        for index in 0..size.nodes {
            cluster.snapshot.set_node(&typed::<Node>((workload.node)(index, size))?);
            for (path, object) in (workload.with_node)(index, size) {
                cluster.take_in(&path, object)?;
            }
        }
        let profile = Profile::default();
        for index in 0..size.before {
            let pod = cluster.compile(workload, (workload.before)(index, size))?;
            cluster.decide(&pod, &profile);
        }
        Ok(cluster)
    }

    /// Decides on the measured pods, in turn, until all have been or the time is over.
    pub(super) fn measure(
        &mut self,
        workload: &Workload,
        size: &Size,
        share: Share,
        limit: Option<Duration>,
    ) -> Result<Decisions, Failure> {
        let profile = match share {
            Share::Sampled => Profile::default(),
            Share::Every => Profile { percentage_of_nodes_to_score: 100, ..Profile::default() },
        };
        let pods: Vec<_> = (0..size.pods)
            .map(|index| self.compile(workload, (workload.pod)(index, size)))
            .collect::<Result<_, _>>()?;
        let begun = machine_instant();
        let (mut made, mut placed) = (0, 0);
        for batch in pods.chunks(BATCH) {
            for pod in batch {
                made += 1;
                placed += usize::from(self.decide(pod, &profile));
            }
            if limit.is_some_and(|limit| begun.elapsed() > limit) {
                break;
            }
        }
        Ok(Decisions { made, placed, elapsed: begun.elapsed() })
    }

    /// Takes in what else decisions look at.
    fn take_in(&mut self, path: &str, object: Value) -> Result<(), Failure> {
        let snapshot = &mut self.snapshot;
        match path.rsplit('/').next().unwrap_or_default() {
            "namespaces" => {
                snapshot.set_namespace(&typed(object)?);
            }
            "services" => {
                let mut service = typed::<Service>(object)?;
                service.metadata.namespace = Some(MEASURED.to_owned());
                snapshot.set_service(&service);
            }
            "csinodes" => {
                snapshot.set_csi_node(&typed(object)?);
            }
            "persistentvolumes" => {
                snapshot.set_volume(&typed(object)?);
            }
            "persistentvolumeclaims" => {
                snapshot.set_claim(&typed(object)?);
            }
            "deviceclasses" => {
                snapshot.set_device_class(&typed(object)?);
            }
            "resourceslices" => {
                snapshot.set_resource_slice(&typed(object)?);
            }
            "resourceclaims" => {
                snapshot.set_resource_claim(&typed(object)?);
            }
            // Priority classes and templates are nothing to a scheduler.
            _ => {}
        }
        Ok(())
    }

    fn compile(&mut self, workload: &Workload, mut pod: Value) -> Result<Arc<PodInfo>, Failure> {
        for (path, object) in (workload.with_pod)(&pod) {
            self.take_in(&path, object)?;
        }
        let uid = PodInfo::uid_of(&typed::<Pod>(pod.clone())?);
        if let Some(claim) = extras::made_claim(&mut pod, &uid) {
            self.take_in("resourceclaims", claim)?;
        }
        let mut pod = typed::<Pod>(pod)?;
        if let Some(spec) = &mut pod.spec
            && spec.priority_class_name.is_some()
        {
            // What the API would have filled in.
            spec.priority = Some(10);
        }
        Ok(self.snapshot.compile(&pod))
    }

    /// One decision, carried out. Returns whether the pod found a node.
    fn decide(&mut self, pod: &Arc<PodInfo>, profile: &Profile) -> bool {
        let Self { snapshot, rotation, memo } = self;
        match schedule_with(memo, snapshot, pod, profile, rotation) {
            Decision::Bind(placement) => {
                let node = self.snapshot.node(placement.node).facts.name.clone();
                self.snapshot.place(pod.clone(), &node);
                // Devices stay set aside: nobody writes claims here.
                pod.claims.is_none() || self.snapshot.reserve_devices(pod, &node).is_ok()
            }
            Decision::Unschedulable(answer) => {
                let Some(nomination) = &answer.preemption.nomination else { return false };
                let node = self.snapshot.node(nomination.node).facts.name.clone();
                for victim in &nomination.victims {
                    self.snapshot.displace(&victim.uid);
                }
                self.snapshot.place(pod.clone(), &node);
                true
            }
        }
    }
}

fn typed<T: DeserializeOwned>(object: Value) -> Result<T, Failure> {
    serde_json::from_value(object).map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::scheduling::workloads::WORKLOADS;

    #[test]
    fn the_core_places_what_the_workloads_say() {
        for workload in WORKLOADS {
            // As many nodes as the fullest workload has pods, each of which needs a node of its own.
            let size = workload.scaled(Some(120), Some(40));
            for share in [Share::Sampled, Share::Every] {
                let mut cluster = Cluster::new(workload, &size).expect("the objects are valid");
                let decisions = cluster.measure(workload, &size, share, None).expect("they are");
                assert_eq!(decisions.made, size.pods, "{}", workload.name);
                assert_eq!(decisions.placed, workload.expected(&size), "{}", workload.name);
            }
        }
    }
}
