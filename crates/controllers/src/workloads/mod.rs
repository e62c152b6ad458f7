//! kube-controller-manager's part: Deployment, ReplicaSet, DaemonSet, Job, CronJob, endpoints, garbage
//! collection, namespaces, node lifecycle and what else keeps a cluster's objects in order.

pub mod certificates;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod event_ttl;
mod events;
pub mod garbage_collector;
#[cfg(test)]
pub(crate) mod harness;
pub mod job;
pub mod namespace;
pub mod node_lifecycle;
mod owners;
mod percentage;
pub mod pod_gc;
pub mod replica_set;
pub mod resource_claim;
mod revision;
pub mod service_account;
pub mod stateful_set;
pub mod taint_eviction;
pub mod ttl_after_finished;

use std::time::Duration;

use wharf_ports::controller::Controller;

pub(crate) use events::event;
pub(crate) use owners::controller_reference;

/// Every controller of this part, in a fixed order. `node_grace_period` is how long a node may be
/// silent; it has to be longer than the nodes' own interval of heartbeats.
pub fn controllers(node_grace_period: Duration) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(deployment::DeploymentController::new()),
        Box::new(replica_set::ReplicaSetController::new()),
        Box::new(replica_set::ReplicationManager::new()),
        Box::new(stateful_set::StatefulSetController::new()),
        Box::new(daemon_set::DaemonSetController::new()),
        Box::new(job::JobController::new()),
        Box::new(cron_job::CronJobController::new()),
        Box::new(ttl_after_finished::TtlAfterFinished),
        Box::new(resource_claim::ResourceClaimController::default()),
        Box::new(garbage_collector::GarbageCollector::new()),
        Box::new(namespace::NamespaceController),
        Box::new(service_account::ServiceAccountController),
        Box::new(node_lifecycle::NodeLifecycle::new(node_grace_period)),
        Box::new(taint_eviction::TaintEviction::default()),
        Box::new(pod_gc::PodGc::default()),
        Box::new(disruption::DisruptionController::new()),
        Box::new(event_ttl::EventTtl::default()),
        Box::new(certificates::CertificateCleaner::default()),
        Box::new(endpoints::ServiceEndpoints::new(endpoints::Form::Slices)),
        Box::new(endpoints::ServiceEndpoints::new(endpoints::Form::Subsets)),
    ]
}
