//! The label, annotation, taint and finalizer keys Wharf reads or writes, and the lists Karpenter
//! calls well-known.

use std::borrow::Cow;

// Kubernetes: node labels.

/// The node's name as its machine knows it.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// The processor architecture: `amd64`, `arm64`.
pub const ARCH: &str = "kubernetes.io/arch";
/// The operating system: `linux`, `windows`.
pub const OS: &str = "kubernetes.io/os";
/// The failure zone, as `us-west-2a`.
pub const TOPOLOGY_ZONE: &str = "topology.kubernetes.io/zone";
/// The region, as `us-west-2`.
pub const TOPOLOGY_REGION: &str = "topology.kubernetes.io/region";
/// The machine type, as `m5.large`.
pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// The Windows build of a node.
pub const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";
/// Keeps a node out of cloud load balancers.
pub const EXCLUDE_FROM_LOAD_BALANCERS: &str =
    "node.kubernetes.io/exclude-from-external-load-balancers";
/// The prefix of role labels, shown in `kubectl get nodes`.
pub const NODE_ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// The zone before Kubernetes 1.17.
pub const TOPOLOGY_ZONE_BETA: &str = "failure-domain.beta.kubernetes.io/zone";
/// The region before Kubernetes 1.17.
pub const TOPOLOGY_REGION_BETA: &str = "failure-domain.beta.kubernetes.io/region";
/// The architecture before Kubernetes 1.14.
pub const ARCH_BETA: &str = "beta.kubernetes.io/arch";
/// The operating system before Kubernetes 1.14.
pub const OS_BETA: &str = "beta.kubernetes.io/os";
/// The machine type before Kubernetes 1.17.
pub const INSTANCE_TYPE_BETA: &str = "beta.kubernetes.io/instance-type";

// Kubernetes: taints.

/// The node is not ready.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node has not been heard of.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The node is cordoned.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The node is short of memory.
pub const TAINT_MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// The node is short of disk.
pub const TAINT_DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
/// The node is short of process ids.
pub const TAINT_PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
/// The node's network is not set up.
pub const TAINT_NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";
/// The node is about to be shut down.
pub const TAINT_OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The cloud controller has not yet set the node up.
pub const TAINT_CLOUD_UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// The prefix of taints held by readiness rules.
pub const TAINT_READINESS_PREFIX: &str = "readiness.k8s.io/";

// Kubernetes: workloads.

/// The template a ReplicaSet's pods were made from.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The revision a DaemonSet's or StatefulSet's pods were made from.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";
/// The generation of a DaemonSet's template.
pub const POD_TEMPLATE_GENERATION: &str = "pod-template-generation";
/// A StatefulSet pod's name.
pub const STATEFULSET_POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// A StatefulSet or indexed Job pod's index.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// The Job a pod belongs to.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The Job a pod belongs to, by uid.
pub const JOB_CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The Job a pod belongs to, by the key of before 1.27.
pub const JOB_NAME_LEGACY: &str = "job-name";
/// The Job a pod belongs to, by uid and the key of before 1.27.
pub const JOB_CONTROLLER_UID_LEGACY: &str = "controller-uid";
/// The finalizer that holds a Job's pod until it has been counted.
pub const JOB_TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// How often pods of its index failed before this one.
pub const JOB_INDEX_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often pods of its index failed before this one in ways that do not count.
pub const JOB_INDEX_IGNORED_FAILURE_COUNT: &str =
    "batch.kubernetes.io/job-index-ignored-failure-count";
/// For when a CronJob's Job was scheduled.
pub const CRON_JOB_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// The generation of a DaemonSet's template, on the DaemonSet.
pub const DAEMON_TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// The index of an indexed Job's pod.
pub const JOB_COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The namespace's own name, set on every namespace.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// How much a ReplicaSet minds losing this pod.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// A Deployment's revision.
pub const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";
/// The replicas a Deployment wants of all its ReplicaSets.
pub const DEPLOYMENT_DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The most replicas a Deployment may have of all its ReplicaSets.
pub const DEPLOYMENT_MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// What `kubectl apply` last sent.
pub const LAST_APPLIED_CONFIGURATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// When `kubectl rollout restart` was last used.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// A pod that came from a file on the node.
pub const MIRROR_POD: &str = "kubernetes.io/config.mirror";
/// The finalizer that makes a deletion wait for dependents.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
/// The finalizer that makes a deletion wait until dependents have lost their owner reference.
pub const ORPHAN_FINALIZER: &str = "orphan";
/// The node a claim's volume is to be made for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The claim has been bound.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The claim was bound by the volume controller, which may unbind it.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who makes the volume of a claim.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The older name of [`STORAGE_PROVISIONER`], which is still written.
pub const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// Who made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The finalizer of a claim, until no pod uses it.
pub const PVC_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// The finalizer of a volume, until no claim is bound to it.
pub const PV_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The finalizer of a volume whose driver deletes what is behind it first.
pub const EXTERNAL_PROVISIONER_FINALIZER: &str =
    "external-provisioner.volume.kubernetes.io/finalizer";
/// The storage class used where none is named.
pub const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

// Karpenter: labels.

/// Karpenter's group, the domain of its own labels.
pub const KARPENTER_DOMAIN: &str = "karpenter.sh";
/// The NodePool a node belongs to.
pub const NODEPOOL: &str = "karpenter.sh/nodepool";
/// How a node is paid for: `on-demand`, `spot`, `reserved`.
pub const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";
/// Set once a node's NodeClaim has found it.
pub const REGISTERED: &str = "karpenter.sh/registered";
/// Set once a node is ready for pods.
pub const INITIALIZED: &str = "karpenter.sh/initialized";
/// Keeps Karpenter from writing the NodeClaim's taints to the node.
pub const DO_NOT_SYNC_TAINTS: &str = "karpenter.sh/do-not-sync-taints";

/// [`CAPACITY_TYPE`]: paid by the second, not taken back.
pub const CAPACITY_TYPE_ON_DEMAND: &str = "on-demand";
/// [`CAPACITY_TYPE`]: cheaper, may be taken back with two minutes' notice.
pub const CAPACITY_TYPE_SPOT: &str = "spot";
/// [`CAPACITY_TYPE`]: paid for by a capacity reservation.
pub const CAPACITY_TYPE_RESERVED: &str = "reserved";

// Karpenter: annotations.

/// Keeps a pod, node or NodeClaim from voluntary disruption.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
/// The hash of the NodePool a NodeClaim was made from.
pub const NODEPOOL_HASH: &str = "karpenter.sh/nodepool-hash";
/// The version of the hash in [`NODEPOOL_HASH`].
pub const NODEPOOL_HASH_VERSION: &str = "karpenter.sh/nodepool-hash-version";
/// When a NodeClaim's termination is no longer graceful.
pub const NODECLAIM_TERMINATION_TIMESTAMP: &str = "karpenter.sh/nodeclaim-termination-timestamp";
/// Whether minValues were lowered to find machines.
pub const NODECLAIM_MIN_VALUES_RELAXED: &str = "karpenter.sh/nodeclaim-min-values-relaxed";

// Karpenter: taints and finalizers.

/// The node is about to be removed.
pub const TAINT_DISRUPTED: &str = "karpenter.sh/disrupted";
/// The node has not yet been found by its NodeClaim.
pub const TAINT_UNREGISTERED: &str = "karpenter.sh/unregistered";
/// The finalizer on nodes and NodeClaims.
pub const TERMINATION_FINALIZER: &str = "karpenter.sh/termination";

// Karpenter on AWS.

/// The domain of Karpenter's AWS labels.
pub const KARPENTER_AWS_DOMAIN: &str = "karpenter.k8s.aws";
/// The EC2NodeClass a node was made from.
pub const EC2NODECLASS: &str = "karpenter.k8s.aws/ec2nodeclass";
/// `c`, `m`, `r`, …
pub const INSTANCE_CATEGORY: &str = "karpenter.k8s.aws/instance-category";
/// `m5`, `c6g`, …
pub const INSTANCE_FAMILY: &str = "karpenter.k8s.aws/instance-family";
/// `5`, `6`, …
pub const INSTANCE_GENERATION: &str = "karpenter.k8s.aws/instance-generation";
/// `large`, `2xlarge`, …
pub const INSTANCE_SIZE: &str = "karpenter.k8s.aws/instance-size";
/// Number of virtual cpus.
pub const INSTANCE_CPU: &str = "karpenter.k8s.aws/instance-cpu";
/// `intel`, `amd`, `aws`.
pub const INSTANCE_CPU_MANUFACTURER: &str = "karpenter.k8s.aws/instance-cpu-manufacturer";
/// Sustained clock in MHz.
pub const INSTANCE_CPU_SUSTAINED_CLOCK_SPEED_MHZ: &str =
    "karpenter.k8s.aws/instance-cpu-sustained-clock-speed-mhz";
/// Memory in MiB.
pub const INSTANCE_MEMORY: &str = "karpenter.k8s.aws/instance-memory";
/// Network bandwidth in Mbps.
pub const INSTANCE_NETWORK_BANDWIDTH: &str = "karpenter.k8s.aws/instance-network-bandwidth";
/// EBS bandwidth in Mbps.
pub const INSTANCE_EBS_BANDWIDTH: &str = "karpenter.k8s.aws/instance-ebs-bandwidth";
/// Local NVMe storage in GB.
pub const INSTANCE_LOCAL_NVME: &str = "karpenter.k8s.aws/instance-local-nvme";
/// `nitro`, `xen` or empty.
pub const INSTANCE_HYPERVISOR: &str = "karpenter.k8s.aws/instance-hypervisor";
/// Whether traffic between machines is encrypted by the hardware.
pub const INSTANCE_ENCRYPTION_IN_TRANSIT_SUPPORTED: &str =
    "karpenter.k8s.aws/instance-encryption-in-transit-supported";
/// Whether the type is a flex type.
pub const INSTANCE_CAPABILITY_FLEX: &str = "karpenter.k8s.aws/instance-capability-flex";
/// `t4`, `a100`, …
pub const INSTANCE_GPU_NAME: &str = "karpenter.k8s.aws/instance-gpu-name";
/// `nvidia`, `amd`, …
pub const INSTANCE_GPU_MANUFACTURER: &str = "karpenter.k8s.aws/instance-gpu-manufacturer";
/// Number of GPUs.
pub const INSTANCE_GPU_COUNT: &str = "karpenter.k8s.aws/instance-gpu-count";
/// Memory of one GPU in MiB.
pub const INSTANCE_GPU_MEMORY: &str = "karpenter.k8s.aws/instance-gpu-memory";
/// `inferentia`, `trainium`, …
pub const INSTANCE_ACCELERATOR_NAME: &str = "karpenter.k8s.aws/instance-accelerator-name";
/// `aws`, `habana`, …
pub const INSTANCE_ACCELERATOR_MANUFACTURER: &str =
    "karpenter.k8s.aws/instance-accelerator-manufacturer";
/// Number of accelerators.
pub const INSTANCE_ACCELERATOR_COUNT: &str = "karpenter.k8s.aws/instance-accelerator-count";
/// `default`, `dedicated`.
pub const INSTANCE_TENANCY: &str = "karpenter.k8s.aws/instance-tenancy";
/// Whether the machine can hold Nitro sandboxes.
pub const NITRO_SANDBOX: &str = "karpenter.k8s.aws/nitro-sandbox";
/// The capacity reservation a machine was launched into.
pub const CAPACITY_RESERVATION_ID: &str = "karpenter.k8s.aws/capacity-reservation-id";
/// `default`, `capacity-block`.
pub const CAPACITY_RESERVATION_TYPE: &str = "karpenter.k8s.aws/capacity-reservation-type";
/// Whether the reservation may be taken back.
pub const CAPACITY_RESERVATION_INTERRUPTIBLE: &str =
    "karpenter.k8s.aws/capacity-reservation-interruptible";
/// The placement group a machine was launched into.
pub const PLACEMENT_GROUP_ID: &str = "karpenter.k8s.aws/placement-group-id";
/// The partition of the placement group.
pub const PLACEMENT_GROUP_PARTITION: &str = "karpenter.k8s.aws/placement-group-partition";
/// The zone's id, the same in every account: `usw2-az1`.
pub const TOPOLOGY_ZONE_ID: &str = "topology.k8s.aws/zone-id";
/// The hash of the EC2NodeClass a NodeClaim was made from.
pub const EC2NODECLASS_HASH: &str = "karpenter.k8s.aws/ec2nodeclass-hash";
/// The version of the hash in [`EC2NODECLASS_HASH`].
pub const EC2NODECLASS_HASH_VERSION: &str = "karpenter.k8s.aws/ec2nodeclass-hash-version";
/// The machine carries its NodeClaim's tags.
pub const INSTANCE_TAGGED: &str = "karpenter.k8s.aws/tagged";
/// The instance profile made for an EC2NodeClass.
pub const INSTANCE_PROFILE_NAME: &str = "karpenter.k8s.aws/instance-profile-name";
/// The finalizer on EC2NodeClasses.
pub const EC2NODECLASS_FINALIZER: &str = "karpenter.k8s.aws/termination";

/// Which tool manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

pub mod eks;

/// The labels whose values Karpenter knows in any cloud: a pod may ask for them although no
/// NodePool names them.
pub const WELL_KNOWN: [&str; 8] = [
    CAPACITY_TYPE,
    NODEPOOL,
    ARCH,
    OS,
    INSTANCE_TYPE,
    WINDOWS_BUILD,
    TOPOLOGY_REGION,
    TOPOLOGY_ZONE,
];

/// The labels whose values Karpenter's AWS provider knows besides [`WELL_KNOWN`], sorted.
pub const WELL_KNOWN_AWS: [&str; 29] = [
    CAPACITY_RESERVATION_ID,
    CAPACITY_RESERVATION_INTERRUPTIBLE,
    CAPACITY_RESERVATION_TYPE,
    INSTANCE_ACCELERATOR_COUNT,
    INSTANCE_ACCELERATOR_MANUFACTURER,
    INSTANCE_ACCELERATOR_NAME,
    INSTANCE_CAPABILITY_FLEX,
    INSTANCE_CATEGORY,
    INSTANCE_CPU,
    INSTANCE_CPU_MANUFACTURER,
    INSTANCE_CPU_SUSTAINED_CLOCK_SPEED_MHZ,
    INSTANCE_EBS_BANDWIDTH,
    INSTANCE_ENCRYPTION_IN_TRANSIT_SUPPORTED,
    INSTANCE_FAMILY,
    INSTANCE_GENERATION,
    INSTANCE_GPU_COUNT,
    INSTANCE_GPU_MANUFACTURER,
    INSTANCE_GPU_MEMORY,
    INSTANCE_GPU_NAME,
    INSTANCE_HYPERVISOR,
    INSTANCE_LOCAL_NVME,
    INSTANCE_MEMORY,
    INSTANCE_NETWORK_BANDWIDTH,
    INSTANCE_SIZE,
    INSTANCE_TENANCY,
    NITRO_SANDBOX,
    PLACEMENT_GROUP_ID,
    PLACEMENT_GROUP_PARTITION,
    TOPOLOGY_ZONE_ID,
];

/// Whether Karpenter (with its AWS provider) knows the values of this label by itself.
pub fn is_well_known(key: &str) -> bool {
    WELL_KNOWN.contains(&key) || WELL_KNOWN_AWS.contains(&key)
}

/// Whether EKS Auto Mode knows the values of this label by itself.
pub fn is_well_known_to_auto_mode(key: &str) -> bool {
    WELL_KNOWN.contains(&key) || eks::WELL_KNOWN.contains(&key)
}

/// Every well-known label, core ones first.
pub fn well_known() -> impl Iterator<Item = &'static str> {
    WELL_KNOWN.into_iter().chain(WELL_KNOWN_AWS)
}

/// The name in use today for a label of the beta days; any other key as it is.
pub fn normalize(key: &str) -> &str {
    match key {
        TOPOLOGY_ZONE_BETA => TOPOLOGY_ZONE,
        TOPOLOGY_REGION_BETA => TOPOLOGY_REGION,
        ARCH_BETA => ARCH,
        OS_BETA => OS,
        INSTANCE_TYPE_BETA => INSTANCE_TYPE,
        key => key,
    }
}

/// The part of a label key before the slash; empty if there is none.
pub fn domain(key: &str) -> &str {
    key.split_once('/').map_or("", |(domain, _)| domain)
}

/// Whether a NodePool may not set this label: those Karpenter sets itself and those of its own
/// domains which it does not know. The text says why, in upstream's words.
pub fn restriction(key: &str) -> Option<Cow<'static, str>> {
    if is_well_known(key) {
        return None;
    }
    let restricted =
        key == HOSTNAME || in_domain(key, KARPENTER_DOMAIN) || in_domain(key, KARPENTER_AWS_DOMAIN);
    restricted.then(|| {
        let known: Vec<&str> = {
            let mut known: Vec<&str> = well_known().collect();
            known.sort_unstable();
            known
        };
        Cow::Owned(format!(
            "label {key} is restricted; specify a well known label: [{}], or a custom label that does not use a restricted domain: [{KARPENTER_AWS_DOMAIN} {KARPENTER_DOMAIN}]",
            known.join(" ")
        ))
    })
}

fn in_domain(key: &str, domain_suffix: &str) -> bool {
    let domain = domain(key);
    domain == domain_suffix
        || domain.strip_suffix(domain_suffix).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_keys_get_their_present_names() {
        for (key, expected) in [
            (TOPOLOGY_ZONE_BETA, TOPOLOGY_ZONE),
            (TOPOLOGY_REGION_BETA, TOPOLOGY_REGION),
            (ARCH_BETA, ARCH),
            (OS_BETA, OS),
            (INSTANCE_TYPE_BETA, INSTANCE_TYPE),
            ("team", "team"),
        ] {
            assert_eq!(normalize(key), expected);
        }
    }

    #[test]
    fn only_unknown_labels_of_karpenters_domains_are_restricted() {
        for (key, restricted) in [
            (NODEPOOL, false),
            (INSTANCE_CPU, false),
            ("team", false),
            ("example.com/team", false),
            ("notkarpenter.sh/team", false),
            (HOSTNAME, true),
            ("karpenter.sh/custom", true),
            ("compatibility.karpenter.sh/custom", true),
            ("karpenter.k8s.aws/custom", true),
            (EC2NODECLASS, true),
        ] {
            assert_eq!(restriction(key).is_some(), restricted, "{key}");
        }
    }

    #[test]
    fn well_known_labels_are_distinct() {
        let mut all: Vec<&str> = well_known().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), WELL_KNOWN.len() + WELL_KNOWN_AWS.len());
        assert!(WELL_KNOWN_AWS.is_sorted());
    }
}
