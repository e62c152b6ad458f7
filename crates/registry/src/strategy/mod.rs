//! The rules of each kind, one file per kind, behind one face.
//!
//! A kind says what is filled in, what is wrong, what counts as a change of its spec and which
//! part is its status; everything that is the same for all kinds is done by the registry.

mod certificate;
mod config;
mod cron_job;
mod custom;
mod daemon_set;
mod devices;
mod endpoints;
mod event;
mod horizontal_pod_autoscaler;
mod ingress;
mod job;
mod lease;
mod limit_range;
mod namespace;
mod node;
pub(crate) mod pod;
mod pod_disruption_budget;
mod pod_group;
mod priority_class;
mod replication_controller;
mod resource_slice;
mod service;
mod simulated;
mod stateful_set;
pub(crate) mod storage;
mod webhook;
mod workloads;

use std::marker::PhantomData;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
    PersistentVolumeClaim, Pod, ReplicationController, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{
    DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::scheduling::v1alpha2::{PodGroup, Workload};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};
use wharf_model::auto_mode::{AutoNodeClass, Cluster};
use wharf_model::balancing::{IngressClassParams, LoadBalancer, TargetGroup, TargetGroupBinding};
use wharf_model::fargate::FargateProfile;
use wharf_model::instance::Instance;
use wharf_model::karpenter::{EC2NodeClass, NodeClaim, NodePool};
use wharf_model::kinds::{Kind, Resource, built_in};
use wharf_model::names;
use wharf_model::nodegroup::Nodegroup;
use wharf_model::object::Typed;
use wharf_model::subnet::Subnet;
use wharf_model::time::Time;
use wharf_model::vpa::{VerticalPodAutoscaler, VerticalPodAutoscalerCheckpoint};
use wharf_ports::cluster::Part;

use crate::field::Errors;

/// The rules of one kind.
pub(crate) trait Rules: Resource + Clone + PartialEq {
    /// Whether the API server counts generations of this kind.
    const GENERATION: bool = false;
    /// Whether an update of an object that is not there creates it.
    const CREATE_ON_UPDATE: bool = false;
    /// Whether API clients may update without a resourceVersion.
    const UNCONDITIONAL_UPDATE: bool = true;
    /// Whether labels and annotations can be changed together with the status.
    const LABELS_WITH_STATUS: bool = false;

    /// What is wrong with a name of this kind.
    fn name_errors(name: &str) -> Vec<String> {
        names::dns_1123_subdomain(name)
    }

    /// Fills in what the API's defaults say.
    fn set_defaults(&mut self) {}

    /// Sets what a new object begins with, its first status above all.
    fn prepare_create(&mut self, _now: Time) {}

    /// Carries over what an update cannot change.
    fn prepare_update(&mut self, _old: &Self, _part: Part) {}

    /// Whether a change starts a new generation.
    fn starts_generation(&self, _old: &Self) -> bool {
        false
    }

    /// Takes over the status of `from`.
    fn take_status(&mut self, _from: &Self) {}

    /// A copy with the status of `from` in place of its own.
    fn with_status(&self, from: &Self) -> Self {
        let mut copy = self.clone();
        copy.take_status(from);
        copy
    }

    /// What is wrong with the object.
    fn validate(&self, _errors: &mut Errors) {}

    /// What is wrong with a change of the object, its new form included.
    fn validate_update(&self, _old: &Self, errors: &mut Errors) {
        self.validate(errors);
    }
}

/// The rules of a kind behind a face without the kind's type.
pub(crate) trait Strategy: Send + Sync {
    fn generation(&self) -> bool;
    fn create_on_update(&self) -> bool;
    fn unconditional_update(&self) -> bool;
    fn labels_with_status(&self) -> bool;
    fn name_errors(&self, name: &str) -> Vec<String>;
    fn set_defaults(&self, object: &mut dyn Typed);
    fn prepare_create(&self, object: &mut dyn Typed, now: Time);
    fn prepare_update(&self, object: &mut dyn Typed, old: &dyn Typed, part: Part);
    fn starts_generation(&self, object: &dyn Typed, old: &dyn Typed) -> bool;
    fn take_status(&self, object: &mut dyn Typed, from: &dyn Typed);
    fn with_status(&self, object: &dyn Typed, from: &dyn Typed) -> Box<dyn Typed>;
    fn validate(&self, object: &dyn Typed, errors: &mut Errors);
    fn validate_update(&self, object: &dyn Typed, old: &dyn Typed, errors: &mut Errors);
    fn same(&self, left: &dyn Typed, right: &dyn Typed) -> bool;
}

/// The strategy of a kind.
pub(crate) fn of(kind: Kind) -> &'static dyn Strategy {
    static ALL: std::sync::LazyLock<Vec<&'static dyn Strategy>> = std::sync::LazyLock::new(|| {
        built_in()
            .iter()
            .map(|kind| strategy_of(*kind).expect("invariant: every built-in kind has its rules"))
            .collect()
    });
    ALL[kind.index]
}

fn strategy_of(kind: Kind) -> Option<&'static dyn Strategy> {
    macro_rules! find {
        ($($type:ty),* $(,)?) => {
            $(if kind == Kind::of::<$type>() {
                return Some(&Typeless::<$type>(PhantomData));
            })*
        };
    }
    find!(
        Namespace,
        Node,
        Pod,
        Service,
        ServiceAccount,
        ConfigMap,
        Secret,
        Event,
        Lease,
        PriorityClass,
        Deployment,
        ReplicaSet,
        PodDisruptionBudget,
        NodePool,
        NodeClaim,
        EC2NodeClass,
        Instance,
        PersistentVolume,
        PersistentVolumeClaim,
        StorageClass,
        CSINode,
        CSIDriver,
        CSIStorageCapacity,
        VolumeAttachment,
        ReplicationController,
        StatefulSet,
        ControllerRevision,
        ResourceClaim,
        ResourceClaimTemplate,
        DeviceClass,
        ResourceSlice,
        PodGroup,
        Workload,
        VerticalPodAutoscaler,
        VerticalPodAutoscalerCheckpoint,
        HorizontalPodAutoscaler,
        LimitRange,
        FargateProfile,
        Subnet,
        MutatingWebhookConfiguration,
        AutoNodeClass,
        Cluster,
        Nodegroup,
        Job,
        CronJob,
        DaemonSet,
        CertificateSigningRequest,
        ValidatingWebhookConfiguration,
        Endpoints,
        EndpointSlice,
        Ingress,
        IngressClass,
        TargetGroupBinding,
        IngressClassParams,
        LoadBalancer,
        TargetGroup,
    );
    None
}

struct Typeless<T>(PhantomData<fn() -> T>);

const OWN_KIND: &str = "invariant: a strategy is given objects of its own kind";

/// The concrete form of an object whose kind is known.
pub(crate) fn typed<T: Resource>(object: &dyn Typed) -> &T {
    object.as_any().downcast_ref().expect(OWN_KIND)
}

/// The concrete form of an object whose kind is known, to change.
pub(crate) fn typed_mut<T: Resource>(object: &mut dyn Typed) -> &mut T {
    object.as_any_mut().downcast_mut().expect(OWN_KIND)
}

impl<T: Rules> Strategy for Typeless<T> {
    fn generation(&self) -> bool {
        T::GENERATION
    }
    fn create_on_update(&self) -> bool {
        T::CREATE_ON_UPDATE
    }
    fn unconditional_update(&self) -> bool {
        T::UNCONDITIONAL_UPDATE
    }
    fn labels_with_status(&self) -> bool {
        T::LABELS_WITH_STATUS
    }
    fn name_errors(&self, name: &str) -> Vec<String> {
        T::name_errors(name)
    }
    fn set_defaults(&self, object: &mut dyn Typed) {
        typed_mut::<T>(object).set_defaults();
    }
    fn prepare_create(&self, object: &mut dyn Typed, now: Time) {
        typed_mut::<T>(object).prepare_create(now);
    }
    fn prepare_update(&self, object: &mut dyn Typed, old: &dyn Typed, part: Part) {
        typed_mut::<T>(object).prepare_update(typed(old), part);
    }
    fn starts_generation(&self, object: &dyn Typed, old: &dyn Typed) -> bool {
        typed::<T>(object).starts_generation(typed(old))
    }
    fn take_status(&self, object: &mut dyn Typed, from: &dyn Typed) {
        typed_mut::<T>(object).take_status(typed(from));
    }
    fn with_status(&self, object: &dyn Typed, from: &dyn Typed) -> Box<dyn Typed> {
        Box::new(typed::<T>(object).with_status(typed(from)))
    }
    fn validate(&self, object: &dyn Typed, errors: &mut Errors) {
        typed::<T>(object).validate(errors);
    }
    fn validate_update(&self, object: &dyn Typed, old: &dyn Typed, errors: &mut Errors) {
        typed::<T>(object).validate_update(typed(old), errors);
    }
    fn same(&self, left: &dyn Typed, right: &dyn Typed) -> bool {
        typed::<T>(left) == typed::<T>(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_rules() {
        for kind in built_in() {
            assert!(strategy_of(*kind).is_some(), "{kind}");
        }
    }
}
