//! Which kinds there are: one row each, and the uniform access that the row gives.

use std::fmt;
use std::hash::{Hash, Hasher};

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
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auto_mode::{AutoNodeClass, Cluster};
use crate::balancing::{IngressClassParams, LoadBalancer, TargetGroup, TargetGroupBinding};
use crate::fargate::FargateProfile;
use crate::instance::Instance;
use crate::karpenter::{EC2NodeClass, NodeClaim, NodePool};
use crate::nodegroup::Nodegroup;
use crate::object::Typed;
use crate::subnet::Subnet;
use crate::vpa::{VerticalPodAutoscaler, VerticalPodAutoscalerCheckpoint};

/// A kind of API object: a row of the table of kinds. Cheap to copy and compare.
#[derive(Clone, Copy)]
pub struct Kind(&'static KindInfo);

/// What the table of kinds says of one kind.
pub struct KindInfo {
    /// Position in the table: an index for arrays by kind, and the order of kinds.
    pub index: usize,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// The version in which objects are stored.
    pub version: &'static str,
    /// The kind's name, `Pod`.
    pub kind: &'static str,
    /// The resource's name, `pods`.
    pub plural: &'static str,
    /// The singular name, `pod`.
    pub singular: &'static str,
    /// kubectl's short names.
    pub short_names: &'static [&'static str],
    /// kubectl's categories (`all`, `karpenter`).
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// How the store keeps objects of this kind in memory.
    pub keep: Keep,
    /// Decodes JSON into the typed form; the error is the decoder's text.
    pub decode: Decode,
}

/// Decodes JSON into a kind's typed form; the error is the decoder's text.
pub type Decode = fn(&[u8]) -> Result<Box<dyn Typed>, String>;

/// Which form of an object stays in memory after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The typed form, since controllers read it all the time.
    Typed,
    /// The JSON form, since nobody but API clients reads it.
    Json,
}

/// A Rust type that is the typed form of a kind.
pub trait Resource:
    k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + Send
    + Sync
    + 'static
{
    /// Its row in the table of kinds.
    fn kind() -> Kind;
}

macro_rules! kinds {
    ($($type:ident: $scope:ident $keep:ident, $singular:literal, [$($short:literal),*], [$($category:literal),*];)*) => {
        /// The rows in their order, whose numbers are the indexes.
        #[derive(Clone, Copy)]
        enum Row { $($type),* }

        $(impl Resource for $type {
            fn kind() -> Kind {
                static INFO: KindInfo = KindInfo {
                    index: Row::$type as usize,
                    group: <$type as k8s_openapi::Resource>::GROUP,
                    version: <$type as k8s_openapi::Resource>::VERSION,
                    kind: <$type as k8s_openapi::Resource>::KIND,
                    plural: <$type as k8s_openapi::Resource>::URL_PATH_SEGMENT,
                    singular: $singular,
                    short_names: &[$($short),*],
                    categories: &[$($category),*],
                    namespaced: kinds!(@namespaced $scope),
                    keep: Keep::$keep,
                    decode: decode::<$type>,
                };
                Kind(&INFO)
            }
        })*

        /// Every built-in kind, in the order of their indexes.
        pub fn built_in() -> &'static [Kind] {
            static ALL: std::sync::LazyLock<Vec<Kind>> = std::sync::LazyLock::new(|| vec![$(<$type as Resource>::kind()),*]);
            &ALL
        }
    };
    (@namespaced namespaced) => { true };
    (@namespaced cluster) => { false };
}

kinds! {
    Namespace: cluster Typed, "namespace", ["ns"], [];
    Node: cluster Typed, "node", ["no"], [];
    Pod: namespaced Typed, "pod", ["po"], ["all"];
    Service: namespaced Typed, "service", ["svc"], ["all"];
    ServiceAccount: namespaced Json, "serviceaccount", ["sa"], [];
    ConfigMap: namespaced Json, "configmap", ["cm"], [];
    Secret: namespaced Json, "secret", [], [];
    Event: namespaced Json, "event", ["ev"], [];
    Lease: namespaced Typed, "lease", [], [];
    PriorityClass: cluster Typed, "priorityclass", ["pc"], [];
    Deployment: namespaced Typed, "deployment", ["deploy"], ["all"];
    ReplicaSet: namespaced Typed, "replicaset", ["rs"], ["all"];
    PodDisruptionBudget: namespaced Typed, "poddisruptionbudget", ["pdb"], [];
    NodePool: cluster Typed, "nodepool", [], ["karpenter"];
    NodeClaim: cluster Typed, "nodeclaim", [], ["karpenter"];
    EC2NodeClass: cluster Typed, "ec2nodeclass", ["ec2nc", "ec2ncs"], ["karpenter"];
    Instance: cluster Typed, "instance", [], [];
    PersistentVolume: cluster Typed, "persistentvolume", ["pv"], [];
    PersistentVolumeClaim: namespaced Typed, "persistentvolumeclaim", ["pvc"], [];
    StorageClass: cluster Typed, "storageclass", ["sc"], [];
    CSINode: cluster Typed, "csinode", [], [];
    CSIDriver: cluster Typed, "csidriver", [], [];
    CSIStorageCapacity: namespaced Typed, "csistoragecapacity", [], [];
    VolumeAttachment: cluster Typed, "volumeattachment", [], [];
    ReplicationController: namespaced Typed, "replicationcontroller", ["rc"], ["all"];
    StatefulSet: namespaced Typed, "statefulset", ["sts"], ["all"];
    ControllerRevision: namespaced Typed, "controllerrevision", [], [];
    ResourceClaim: namespaced Typed, "resourceclaim", [], [];
    ResourceClaimTemplate: namespaced Typed, "resourceclaimtemplate", [], [];
    DeviceClass: cluster Typed, "deviceclass", [], [];
    ResourceSlice: cluster Typed, "resourceslice", [], [];
    PodGroup: namespaced Typed, "podgroup", [], [];
    Workload: namespaced Json, "workload", [], [];
    VerticalPodAutoscaler: namespaced Typed, "verticalpodautoscaler", ["vpa"], [];
    VerticalPodAutoscalerCheckpoint: namespaced Typed, "verticalpodautoscalercheckpoint", ["vpacheckpoint"], [];
    HorizontalPodAutoscaler: namespaced Typed, "horizontalpodautoscaler", ["hpa"], ["all"];
    LimitRange: namespaced Typed, "limitrange", ["limits"], [];
    FargateProfile: namespaced Typed, "fargateprofile", [], [];
    Subnet: cluster Typed, "subnet", [], [];
    MutatingWebhookConfiguration: cluster Json, "mutatingwebhookconfiguration", [], [];
    AutoNodeClass: cluster Typed, "nodeclass", [], ["karpenter"];
    Cluster: namespaced Typed, "cluster", [], [];
    Nodegroup: namespaced Typed, "nodegroup", [], [];
    Job: namespaced Typed, "job", [], ["all"];
    CronJob: namespaced Typed, "cronjob", ["cj"], ["all"];
    DaemonSet: namespaced Typed, "daemonset", ["ds"], ["all"];
    CertificateSigningRequest: cluster Typed, "certificatesigningrequest", ["csr"], [];
    ValidatingWebhookConfiguration: cluster Json, "validatingwebhookconfiguration", [], [];
    Endpoints: namespaced Typed, "endpoints", ["ep"], [];
    EndpointSlice: namespaced Typed, "endpointslice", [], [];
    Ingress: namespaced Typed, "ingress", ["ing"], [];
    IngressClass: cluster Typed, "ingressclass", [], [];
    TargetGroupBinding: namespaced Typed, "targetgroupbinding", [], [];
    IngressClassParams: cluster Typed, "ingressclassparams", [], [];
    LoadBalancer: cluster Typed, "loadbalancer", [], [];
    TargetGroup: cluster Typed, "targetgroup", [], [];
}

fn decode<T: Resource>(json: &[u8]) -> Result<Box<dyn Typed>, String> {
    serde_json::from_slice::<T>(json)
        .map(|value| Box::new(value) as Box<dyn Typed>)
        .map_err(|error| error.to_string())
}

impl Kind {
    /// The kind of a typed object.
    pub fn of<T: Resource>() -> Self {
        T::kind()
    }

    /// The built-in kind stored under a group and resource name (`apps`, `deployments`).
    pub fn by_resource(group: &str, plural: &str) -> Option<Self> {
        built_in().iter().copied().find(|kind| kind.group == group && kind.plural == plural)
    }

    /// The built-in kind with a group and kind name (`apps`, `Deployment`).
    pub fn by_kind(group: &str, kind: &str) -> Option<Self> {
        built_in().iter().copied().find(|row| row.group == group && row.kind == kind)
    }

    /// Whether it is a custom resource: one that a definition would bring into a cluster.
    pub fn is_custom(self) -> bool {
        crate::custom::is_custom_group(self.group)
    }

    /// Whether a status, where objects of the kind have one, is written apart from the rest, through
    /// a subresource of its own. Of the kinds there are one does without.
    pub fn has_status_apart(self) -> bool {
        (self.group, self.kind) != (crate::vpa::GROUP, "VerticalPodAutoscalerCheckpoint")
    }

    /// `apiVersion` as manifests write it: `v1`, `apps/v1`.
    pub fn api_version(self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource with its group, as upstream's messages write it: `pods`, `deployments.apps`.
    pub fn group_resource(self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

impl std::ops::Deref for Kind {
    type Target = KindInfo;
    fn deref(&self) -> &KindInfo {
        self.0
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.0.index == other.0.index
    }
}
impl Eq for Kind {}
impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.index.cmp(&other.0.index)
    }
}
impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.index.hash(state);
    }
}
impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind)
    }
}
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_positions_and_names_are_unique() {
        for (position, kind) in built_in().iter().enumerate() {
            assert_eq!(kind.index, position, "{kind}");
            assert_eq!(Kind::by_resource(kind.group, kind.plural), Some(*kind));
            assert_eq!(Kind::by_kind(kind.group, kind.kind), Some(*kind));
        }
    }

    #[test]
    fn names_read_as_upstream_writes_them() {
        assert_eq!(Kind::of::<Pod>().api_version(), "v1");
        assert_eq!(Kind::of::<Deployment>().api_version(), "apps/v1");
        assert_eq!(Kind::of::<Deployment>().group_resource(), "deployments.apps");
        assert_eq!(Kind::of::<NodePool>().group_resource(), "nodepools.karpenter.sh");
    }
}
