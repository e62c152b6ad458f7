//! What keeps a number of pods: ReplicaSets and their predecessors, the ReplicationControllers,
//! which differ in the form of their selector and in where things stand. As upstream, the older
//! kind is worked on as if it were the newer.

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use wharf_model::kinds::Resource;

/// A kind that the controller works on.
pub trait Replicated: Resource {
    /// The controller's name.
    const NAME: &'static str;
    /// Who its events are from.
    const COMPONENT: &'static str;

    /// The object as a ReplicaSet.
    fn as_set(&self) -> Cow<'_, ReplicaSet>;

    /// The object with this status, if that is news.
    fn with_status(&self, status: ReplicaSetStatus) -> Option<Self>;
}

impl Replicated for ReplicaSet {
    const NAME: &'static str = "replicaset-controller";
    const COMPONENT: &'static str = Self::NAME;

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Option<Self> {
        let is_news = self.status.as_ref() != Some(&status);
        is_news.then(|| Self { status: Some(status), ..self.clone() })
    }
}

impl Replicated for ReplicationController {
    const NAME: &'static str = "replicationcontroller-controller";
    const COMPONENT: &'static str = "replication-controller";

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.clone().map(|spec| ReplicaSetSpec {
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            template: spec.template,
        });
        let condition = |one: ReplicationControllerCondition| ReplicaSetCondition {
            type_: one.type_,
            status: one.status,
            reason: one.reason,
            message: one.message,
            last_transition_time: one.last_transition_time,
        };
        let status = self.status.clone().map(|status| ReplicaSetStatus {
            replicas: status.replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
            ..ReplicaSetStatus::default()
        });
        Cow::Owned(ReplicaSet { metadata: self.metadata.clone(), spec, status })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Option<Self> {
        let condition = |one: ReplicaSetCondition| ReplicationControllerCondition {
            type_: one.type_,
            status: one.status,
            reason: one.reason,
            message: one.message,
            last_transition_time: one.last_transition_time,
        };
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
        };
        let is_news = self.status.as_ref() != Some(&status);
        is_news.then(|| Self { status: Some(status), ..self.clone() })
    }
}
