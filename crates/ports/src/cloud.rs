//! The Cloud port: machines asked for and given up as values; what becomes of them as events.

use std::collections::BTreeMap;

use wharf_model::instance::KubeletArguments;
use wharf_model::money::Price;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;

use crate::cluster::Write;
use crate::view::View;

/// What a controller asks of the cloud.
#[derive(Clone, Debug, PartialEq)]
pub enum CloudRequest {
    /// Launch one machine.
    Launch(Box<LaunchRequest>),
    /// Start a micro-VM of Fargate.
    LaunchMicroVm(Box<MicroVmRequest>),
    /// Terminate the machine with this instance id. Repeats are harmless.
    Terminate {
        /// `i-…`.
        instance_id: String,
    },
}

/// One machine to launch: like EC2's `CreateFleet` of type `instant` with a target of one.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchRequest {
    /// Idempotency token: the same token never launches twice. For Karpenter's the NodeClaim's uid.
    pub token: String,
    /// Name of the NodeClaim the machine is for; empty where it is for none.
    pub node_claim: String,
    /// `on-demand`, `spot` or `reserved`.
    pub capacity_type: String,
    /// What would do, the preferred first.
    pub overrides: Vec<LaunchOverride>,
    /// Which of what would do is taken.
    pub allocation: Allocation,
    /// Ids of the subnets it may be in; none stands for any.
    pub subnets: Vec<String>,
    /// AMI family, as the node class names it (`al2023`, `bottlerocket`).
    pub ami_family: String,
    /// AMI id.
    pub image_id: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// What the boot script tells the kubelet, but for what depends on the chosen type.
    pub kubelet: KubeletArguments,
    /// Whether EKS Auto Mode will run it: a managed instance.
    pub managed: bool,
}

/// Which of several types and zones that would do is taken: EC2's allocation strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// The cheapest; among equal prices the zone with the fewest machines, then by name.
    #[default]
    LowestPrice,
    /// The first in the order of the request.
    Prioritized,
}

/// One micro-VM of Fargate to start: a machine for one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroVmRequest {
    /// Idempotency token: the pod's uid, and a number if earlier machines of the pod have failed.
    pub token: String,
    /// The pod.
    pub pod: ObjectKey,
    /// The pod's uid.
    pub pod_uid: String,
    /// The Fargate profile's name.
    pub profile: String,
    /// Ids of the subnets it may be in.
    pub subnets: Vec<String>,
    /// What is provisioned, `0.5vCPU 1GB`.
    pub size: String,
    /// Ephemeral storage provisioned.
    pub storage_gib: u32,
    /// What it costs.
    pub price: Price,
    /// Capacity that the kubelet will find, as quantities.
    pub capacity: BTreeMap<String, String>,
    /// Allocatable that the kubelet will report, as quantities.
    pub allocatable: BTreeMap<String, String>,
}

/// A type and zone that would do for a launch, and what the machine would be worth there.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchOverride {
    /// EC2 instance type.
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// Availability zone id.
    pub zone_id: String,
    /// Price there.
    pub price: Price,
    /// What EKS Auto Mode takes on top; nothing for machines of one's own.
    pub fee: Price,
    /// Capacity that the kubelet will find, as quantities.
    pub capacity: BTreeMap<String, String>,
    /// Allocatable that the kubelet will report, as quantities.
    pub allocatable: BTreeMap<String, String>,
}

/// What the cloud answers.
#[derive(Clone, Debug, PartialEq)]
pub enum CloudEvent {
    /// A launch was accepted.
    Launched(Box<Launched>),
    /// A launch was refused.
    LaunchFailed {
        /// The request's token.
        token: String,
        /// The request's NodeClaim.
        node_claim: String,
        /// Why.
        error: LaunchError,
    },
    /// A micro-VM was refused. One that is accepted shows as its machine.
    MicroVmFailed {
        /// The pod it was for.
        pod: ObjectKey,
        /// Why.
        error: LaunchError,
    },
    /// A machine is gone.
    Terminated {
        /// `i-…`.
        instance_id: String,
    },
}

/// An accepted launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Launched {
    /// The request's token.
    pub token: String,
    /// The request's NodeClaim.
    pub node_claim: String,
    /// `i-…`.
    pub instance_id: String,
    /// What was chosen.
    pub chosen: LaunchOverride,
    /// `on-demand`, `spot` or `reserved`.
    pub capacity_type: String,
    /// AMI.
    pub image_id: String,
}

/// Why the cloud refused a launch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// No capacity in any of the pools asked for; each names type and zone.
    #[error("insufficient capacity: {message}")]
    InsufficientCapacity {
        /// The pools that were out of capacity.
        pools: Vec<(String, String)>,
        /// EC2's text.
        message: String,
    },
    /// Anything else; trying again may help.
    #[error("{code}: {message}")]
    Api {
        /// EC2's error code.
        code: String,
        /// EC2's text.
        message: String,
    },
}

/// What the cloud did since it was last asked.
#[derive(Debug, Default)]
pub struct CloudOutput {
    /// Answers and news.
    pub events: Vec<CloudEvent>,
    /// Writes of a cloud that keeps its own state as objects (the simulated one).
    pub writes: Vec<Write>,
}

/// A cloud.
pub trait Cloud: Send {
    /// Takes a request at cluster time `now`; the answer comes as an event.
    fn submit(&mut self, request: CloudRequest, now: Time);

    /// Does what is due by `now`. `view` is for a cloud that keeps its state as objects.
    fn poll(&mut self, now: Time, view: &View, output: &mut CloudOutput);

    /// When [`Cloud::poll`] has something to do next; `None` if nothing is under way.
    fn next_wake(&self) -> Option<Time>;
}
