//! What a cluster in the simulated cloud begins with besides its nodes: its name, the subnets of its
//! VPC, its Fargate profiles and its managed node groups.

use std::time::Duration;

use wharf_cloud::catalog::Catalog;
use wharf_cloud::ec2::{resource_id, zone_block};
use wharf_controllers::fargate::ACCOUNT;
use wharf_model::auto_mode::{Cluster as EksCluster, pools};
use wharf_model::fargate::{FargateProfile, status};
use wharf_model::kinds::Kind;
use wharf_model::nodegroup::Nodegroup;
use wharf_model::object::ObjectKey;
use wharf_model::random::{Random, fnv1a};
use wharf_model::subnet::{Cidr, Subnet, SubnetSpec};
use wharf_ports::cluster::{Part, Write};
use wharf_ports::error::{ApiError, StatusReason};
use wharf_registry::Registry;

use crate::{addons, kube_system};

/// The version of the API that every cluster here has.
pub(crate) const KUBERNETES: &str = "1.36";
/// A cluster's name where nobody says another.
pub const NAME_DEFAULT: &str = "wharf";

/// What a cluster begins with.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The subnets of its VPC; none stands for a private one in each zone.
    pub subnets: Vec<Subnet>,
    /// Its Fargate profiles, which are there from the start.
    pub profiles: Vec<FargateProfile>,
    /// Its managed node groups.
    pub node_groups: Vec<Nodegroup>,
    /// The add-on CoreDNS, if it has it.
    pub core_dns: Option<CoreDns>,
    /// Whether kubelets ask for serving certificates, as those of EKS do. A rehearsal does without: the
    /// requests decide nothing.
    pub kubelet_certificates: bool,
    /// How many vCPUs Fargate may run at once; without a number, any.
    pub fargate_vcpus_max: Option<u32>,
    /// How often what pods on Fargate run on is patched; without a span, never.
    pub fargate_patch_every: Option<Duration>,
    /// Whether `kube-system` has what EKS puts there for those who look.
    pub kube_system: bool,
    /// EKS Auto Mode, if it is on.
    pub auto_mode: Option<AutoMode>,
    /// Whether it has the AWS Load Balancer Controller.
    pub load_balancer_controller: bool,
}

/// How EKS Auto Mode is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoMode {
    /// Which of its own NodePools there are.
    pub node_pools: Vec<String>,
    /// The role of the nodes of those pools.
    pub node_role_arn: String,
    /// Whether Karpenter is in the cluster besides, for NodePools of its own.
    pub with_karpenter: bool,
}

impl AutoMode {
    /// Auto Mode as eksctl sets it up where nothing more is said: with both of its NodePools.
    pub fn of_eksctl(cluster: &str) -> Self {
        Self {
            node_pools: pools::BUILT_IN.map(str::to_owned).to_vec(),
            node_role_arn: node_role(cluster),
            with_karpenter: false,
        }
    }
}

/// The role of Auto Mode's nodes that eksctl makes: its name ends in characters that AWS draws.
pub fn node_role(cluster: &str) -> String {
    let suffix = Random::new(0, fnv1a(format!("{cluster} auto mode").as_bytes())).hex(12);
    let suffix = suffix.to_ascii_uppercase();
    format!("arn:aws:iam::{ACCOUNT}:role/eksctl-{cluster}-cluster-AutoModeNodeRole-{suffix}")
}

/// How the add-on CoreDNS is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreDns {
    /// Whether it may run on Fargate; otherwise an annotation keeps it off.
    pub on_fargate: bool,
    /// What each of its pods asks for.
    pub requests: DnsRequests,
}

/// What a pod of CoreDNS asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRequests {
    /// Cpu.
    pub cpu: String,
    /// Memory.
    pub memory: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: NAME_DEFAULT.to_owned(),
            subnets: Vec::new(),
            profiles: Vec::new(),
            node_groups: Vec::new(),
            core_dns: None,
            kubelet_certificates: false,
            fargate_vcpus_max: None,
            fargate_patch_every: None,
            auto_mode: None,
            kube_system: false,
            load_balancer_controller: false,
        }
    }
}

/// Creates what is not there yet. A cluster that has subnets keeps them.
///
/// # Errors
/// The API's refusal.
pub(crate) fn create(
    registry: &Registry,
    catalog: &Catalog,
    cluster: &Cluster,
) -> Result<(), ApiError> {
    if registry.store().count(Kind::of::<Subnet>()) == 0 {
        let subnets = match cluster.subnets.as_slice() {
            [] => subnets_of_zones(catalog, &cluster.name),
            given => given.to_vec(),
        };
        for subnet in subnets {
            registry.apply(Write::Create(Box::new(subnet)))?;
        }
    }
    for profile in &cluster.profiles {
        create_profile(registry, profile)?;
    }
    for group in &cluster.node_groups {
        match registry.apply(Write::Create(Box::new(group.clone()))) {
            // It is there from before; or a group of this name is, that the user has made since.
            Err(error)
                if matches!(error.reason, StatusReason::AlreadyExists | StatusReason::Denied) => {}
            created => {
                created?;
            }
        }
    }
    if let Some(auto_mode) = &cluster.auto_mode {
        create_auto_mode(registry, &cluster.name, auto_mode)?;
    }
    if cluster.kube_system {
        kube_system::create(registry, cluster, catalog.region().name)?;
    }
    create_api_endpoints(registry)?;
    if let Some(dns) = &cluster.core_dns {
        addons::create_core_dns(registry, dns, catalog.region().name)?;
    }
    if cluster.load_balancer_controller {
        addons::create_load_balancer_controller(registry)?;
    }
    Ok(())
}

/// Where pods reach the API: EKS puts network interfaces of its own into two of the cluster's subnets.
/// They have the subnets' first address that AWS gives, which neither machines nor pods get here.
fn create_api_endpoints(registry: &Registry) -> Result<(), ApiError> {
    const FIRST_GIVEN: u32 = 4;
    const INTERFACES: usize = 2;
    let (subnets, _) = registry.store().list(Kind::of::<Subnet>(), None);
    let all = subnets.iter().filter_map(|object| object.typed::<Subnet>());
    let mut private: Vec<&Subnet> = all.filter(|subnet| !subnet.spec.public).collect();
    private.sort_by(|a, b| a.spec.zone.cmp(&b.spec.zone));
    let addresses: Vec<String> = private
        .into_iter()
        .filter_map(|subnet| subnet.spec.cidr_block.parse::<Cidr>().ok())
        .map(|block| block.address(FIRST_GIVEN).to_string())
        .take(INTERFACES)
        .collect();
    if addresses.is_empty() {
        return Ok(());
    }
    addons::create_api_endpoints(registry, &addresses)
}

/// A profile that was made with the cluster is in use from the start.
fn create_profile(registry: &Registry, profile: &FargateProfile) -> Result<(), ApiError> {
    let kind = Kind::of::<FargateProfile>();
    if registry.store().get(kind, &ObjectKey::of(&profile.metadata)).is_some() {
        return Ok(());
    }
    let created = match registry.apply(Write::Create(Box::new(profile.clone()))) {
        Err(error) if error.reason == StatusReason::AlreadyExists => return Ok(()),
        created => created?,
    };
    let Some(mut profile) = created.and_then(|object| object.draft::<FargateProfile>()) else {
        return Ok(());
    };
    profile.status.created_at = Some(registry.now().to_meta());
    profile.status.status = Some(status::ACTIVE.to_owned());
    registry.apply(Write::Update { object: Box::new(profile), part: Part::Status }).map(|_| ())
}

/// The cluster's own object, in which Auto Mode is on. One that is there stays as it is: it may have
/// been changed since.
fn create_auto_mode(registry: &Registry, name: &str, auto_mode: &AutoMode) -> Result<(), ApiError> {
    let AutoMode { node_pools, node_role_arn, .. } = auto_mode;
    let mut cluster = EksCluster::in_auto_mode(name, node_role_arn, node_pools);
    cluster.metadata.namespace = Some("kube-system".to_owned());
    cluster.spec.version = Some(KUBERNETES.to_owned());
    let created = match registry.apply(Write::Create(Box::new(cluster))) {
        Err(error) if error.reason == StatusReason::AlreadyExists => return Ok(()),
        created => created?,
    };
    let Some(mut cluster) = created.and_then(|object| object.draft::<EksCluster>()) else {
        return Ok(());
    };
    cluster.status.created_at = Some(registry.now().to_meta());
    cluster.status.status = Some(status::ACTIVE.to_owned());
    registry.apply(Write::Update { object: Box::new(cluster), part: Part::Status }).map(|_| ())
}

/// One private subnet in each zone: those in which EC2's machines are.
fn subnets_of_zones(catalog: &Catalog, cluster: &str) -> Vec<Subnet> {
    let subnet = |zone: wharf_cloud::catalog::Zone| {
        let spec = SubnetSpec {
            cidr_block: zone_block(&zone.name),
            zone: zone.name.to_string(),
            zone_id: zone.id.to_string(),
            public: false,
        };
        Subnet::new(resource_id(cluster, "subnet", &zone.name), spec)
    };
    catalog.zones().into_iter().map(subnet).collect()
}
