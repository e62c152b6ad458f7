//! eksctl's `ClusterConfig` (`eksctl.io/v1alpha5`): what a cluster begins with, from a file.
//!
//! Read are the name, the region, the VPC's subnets, the Fargate profiles, the managed node groups, Auto
//! Mode and the add-ons CoreDNS and `aws-load-balancer-controller`. Fields
//! of eksctl's that mean nothing to a simulated cluster (IAM, tags) are taken in silence; those that
//! would mean something, but are not done here, are told; those that eksctl does not know either are told
//! too. What is wrong is an error with its line and column.
//! <https://schema.eksctl.io/>

mod node_groups;
mod tree;
mod vpc;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use wharf_cloud::catalog::Catalog;
use wharf_controllers::fargate::ACCOUNT;
use wharf_fargate::profile::{self, SubnetKind};
use wharf_model::auto_mode::pools::BUILT_IN;
use wharf_model::fargate::{FargateProfile, FargateProfileSpec, FargateSelector};
use wharf_model::nodegroup::Nodegroup;
use wharf_model::random::{Random, fnv1a};

use crate::cluster::{AutoMode, Cluster, CoreDns, DnsRequests, KUBERNETES};
use crate::scenario::read_duration;
use tree::{Fields, Node, Place, Tree, Wrong, entries, wrong};

/// The API version of the files.
pub const API_VERSION: &str = "eksctl.io/v1alpha5";
/// The annotation with the account's quota of vCPUs on Fargate.
const VCPU_QUOTA: &str = "wharf.dev/fargate-vcpu-quota";
/// The annotation that says how often AWS patches what runs on Fargate.
const PATCH_EVERY: &str = "wharf.dev/fargate-patch-every";
/// A round has to be over before the next begins.
const PATCH_MIN: Duration = Duration::from_hours(1);
/// Where the profiles' objects are.
const NAMESPACE: &str = "kube-system";

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// The region.
    pub region: String,
    /// What the cluster begins with.
    pub cluster: Cluster,
    /// What of the file has no effect, a line each.
    pub warnings: Vec<String>,
}

/// Why a file cannot be used: one line, with the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {says}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// Where, from 1; 0 if it is not known.
    pub line: u64,
    /// Where in the line, from 1.
    pub column: u64,
    /// What is wrong and what is allowed.
    pub says: String,
}

/// Reads a file's text; `file` names it in errors and warnings.
///
/// # Errors
/// The first thing that is wrong.
pub fn load(text: &str, file: &str) -> Result<ClusterConfig, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let document: Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) =
            error.location().map_or((0, 0), |place| (place.line(), place.column()));
        let says = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let says = says.lines().next().unwrap_or_default();
        let says = says.split(" at line ").next().unwrap_or(says).to_owned();
        ConfigError { file: file.to_owned(), line, column, says }
    })?;
    let refused = |wrong: Wrong| {
        let Place { line, column } = wrong.place;
        ConfigError { file: file.to_owned(), line, column, says: wrong.says }
    };
    let mut reader = Reader { warnings: Vec::new() };
    let (region, cluster) = reader.document(&document).map_err(refused)?;
    let warnings = reader.warnings.iter().map(|text| format!("{file}:{text}")).collect();
    Ok(ClusterConfig { region, cluster, warnings })
}

/// Fields of a document that eksctl knows and that mean nothing to a simulated cluster.
const SILENT: [&str; 8] = [
    "accessConfig",
    "addonsConfig",
    "cloudWatch",
    "gitops",
    "iam",
    "iamIdentityMappings",
    "identityProviders",
    "secretsEncryption",
];
/// Fields that would mean something, and are not done.
const NOT_DONE: [(&str, &str); 7] = [
    ("karpenter", "Karpenter is there anyway, with its defaults"),
    ("kubernetesNetworkConfig", "services have addresses of 10.100.0.0/16"),
    ("localZones", "there are no local zones"),
    ("nodeGroups", "there are no self-managed node groups; managedNodeGroups has those of EKS"),
    ("outpost", "there are no Outposts"),
    ("privateCluster", "the API listens where --listen says"),
    ("zonalShiftConfig", "there is no zonal shift"),
];

/// An add-on that means something here.
enum Addon {
    CoreDns(CoreDns),
    LoadBalancerController,
}

struct Reader {
    warnings: Vec<String>,
}

impl Reader {
    fn document(&mut self, document: &Node) -> Result<(String, Cluster), Wrong> {
        let mut fields = Fields::of(document, "")?;
        let (version, place) = fields.required_text("apiVersion")?;
        if version != API_VERSION {
            let says = format!("apiVersion is {API_VERSION}, not {version}");
            return Err(Wrong { place, says });
        }
        let (kind, place) = fields.required_text("kind")?;
        if kind != "ClusterConfig" {
            return Err(Wrong { place, says: format!("kind is ClusterConfig, not {kind}") });
        }
        let Some(metadata) = fields.get("metadata") else {
            return Err(wrong(document, "metadata", "is missing"));
        };
        let (name, region, catalog) = self.metadata(metadata)?;
        let (vcpus_max, patch_every) = self.extensions(metadata)?;
        let zones = self.zones(&mut fields, &catalog)?;
        let subnets = match fields.get("vpc") {
            Some(node) => self.vpc(node, &name, &zones, &catalog.zones())?,
            None => Vec::new(),
        };
        let mut cluster = Cluster {
            name,
            subnets,
            fargate_vcpus_max: vcpus_max,
            fargate_patch_every: patch_every,
            ..Cluster::default()
        };
        let role = fields.get("iam").and_then(execution_role);
        for (path, node) in fields.list("fargateProfiles")? {
            let profile = self.profile(node, &path, &cluster, role.as_deref())?;
            let taken = cluster.profiles.iter().any(|other| other.spec.name == profile.spec.name);
            if taken {
                let says = format!("is a second profile named {}", profile.spec.name);
                return Err(wrong(node, &path, &says));
            }
            if cluster.profiles.len() == profile::PROFILES_MAX {
                let says =
                    format!("is one too many: a cluster has {} profiles", profile::PROFILES_MAX);
                return Err(wrong(node, &path, &says));
            }
            cluster.profiles.push(profile);
        }
        for (path, node) in fields.list("managedNodeGroups")? {
            let group = self.node_group(node, &path, &cluster, &catalog)?;
            let mut others = cluster.node_groups.iter();
            if others.any(|other: &Nodegroup| other.spec.name == group.spec.name) {
                let says = format!("is a second node group named {}", group.spec.name);
                return Err(wrong(node, &path, &says));
            }
            cluster.node_groups.push(group);
        }
        for (path, node) in fields.list("addons")? {
            match self.addon(node, &path)? {
                Some(Addon::CoreDns(dns)) => cluster.core_dns = Some(dns),
                Some(Addon::LoadBalancerController) => cluster.load_balancer_controller = true,
                None => {}
            }
        }
        let with_karpenter = fields.get("karpenter").is_some();
        if let Some(node) = fields.get("autoModeConfig") {
            cluster.auto_mode = self.auto_mode(node, &cluster.name, with_karpenter)?;
        }
        for name in SILENT {
            fields.has(name);
        }
        for (name, why) in NOT_DONE {
            let Some(node) = fields.get(name) else { continue };
            // Beside Auto Mode it is what keeps Karpenter's own pools at work.
            if name != "karpenter" || cluster.auto_mode.is_none() {
                self.warn(node.place, &format!("{name} has no effect: {why}"));
            }
        }
        self.unknown(&fields);
        Ok((region, cluster))
    }

    fn metadata(&mut self, node: &Node) -> Result<(String, String, Catalog), Wrong> {
        let mut fields = Fields::of(node, "metadata")?;
        let (name, place) = fields.required_text("name")?;
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic());
        if !starts || !name.chars().all(of_name) || name.len() > 100 {
            let says = format!(
                "metadata.name is {name:?}; a name has letters, digits and '-', begins with a letter, and has at most 100 characters"
            );
            return Err(Wrong { place, says });
        }
        let (region, place) = fields.required_text("region")?;
        let catalog = Catalog::load(&region)
            .map_err(|error| Wrong { place, says: format!("metadata.region: {error}") })?;
        if let Some(version) = fields.text("version")?
            && version != KUBERNETES
            && version != "latest"
        {
            let says =
                format!("metadata.version is {version}; the API here is Kubernetes {KUBERNETES}");
            self.warn(node.place, &says);
        }
        fields.text_map("tags")?;
        fields.text_map("annotations")?;
        self.unknown(&fields);
        Ok((name, region, catalog))
    }

    /// What annotations of Wharf's own say: eksctl leaves them to their readers.
    fn extensions(&mut self, node: &Node) -> Result<(Option<u32>, Option<Duration>), Wrong> {
        let mut fields = Fields::of(node, "metadata")?;
        let (mut vcpus_max, mut patch_every) = (None, None);
        for (key, value) in fields.text_map("annotations")? {
            let wrong = |says: &str| {
                let says = format!("metadata.annotations[{key}]: {value:?} {says}");
                Wrong { place: node.place, says }
            };
            match key.as_str() {
                VCPU_QUOTA => {
                    let quota = value.parse().map_err(|_| wrong("is no number of vCPUs"))?;
                    vcpus_max = Some(quota);
                }
                PATCH_EVERY => {
                    let span = read_duration(&value, "it").ok().filter(|span| *span >= PATCH_MIN);
                    patch_every = Some(
                        span.ok_or_else(|| wrong("is no span of an hour or more, such as 168h"))?,
                    );
                }
                _ if key.starts_with("wharf.dev/") => {
                    let says = format!(
                        "metadata.annotations[{key}] has no effect: there are {VCPU_QUOTA} and {PATCH_EVERY}"
                    );
                    self.warn(node.place, &says);
                }
                _ => {}
            }
        }
        Ok((vcpus_max, patch_every))
    }

    fn profile(
        &mut self,
        node: &Node,
        path: &str,
        cluster: &Cluster,
        role: Option<&str>,
    ) -> Result<FargateProfile, Wrong> {
        let mut fields = Fields::of(node, path)?;
        let (name, _) = fields.required_text("name")?;
        let mut selectors = Vec::new();
        for (path, node) in fields.list("selectors")? {
            let mut fields = Fields::of(node, &path)?;
            let namespace = fields.text("namespace")?.unwrap_or_default();
            let labels: BTreeMap<String, String> = fields.text_map("labels")?.into_iter().collect();
            self.unknown(&fields);
            selectors.push(FargateSelector { namespace, labels });
        }
        let subnets = fields.texts("subnets")?;
        let tags = fields.text_map("tags")?.into_iter().collect();
        let own_role = fields.text("podExecutionRoleARN")?;
        fields.has("status");
        self.unknown(&fields);
        let named = |wanted: &str| {
            let mut all = cluster.subnets.iter();
            all.find(|subnet| vpc::is_named(subnet, wanted))
        };
        let spec = FargateProfileSpec {
            cluster_name: Some(cluster.name.clone()),
            pod_execution_role_arn: Some(
                own_role
                    .or(role.map(str::to_owned))
                    .unwrap_or_else(|| generated_role(&cluster.name)),
            ),
            name,
            selectors,
            subnets: subnets
                .iter()
                .map(|(wanted, _)| named(wanted).map_or(wanted.clone(), vpc::id))
                .collect(),
            tags,
            client_request_token: None,
        };
        let kind_of = |id: &str| {
            let subnet = cluster.subnets.iter().find(|subnet| vpc::id(subnet) == id)?;
            Some(if subnet.spec.public { SubnetKind::Public } else { SubnetKind::Private })
        };
        if let Some(problem) = profile::problems(&spec, &kind_of).into_iter().next() {
            let field = problem.field.strip_prefix("spec").unwrap_or(&problem.field);
            let place = place_of(node, field.trim_start_matches('.'));
            return Err(Wrong { place, says: format!("{path}{field}: {}", problem.what) });
        }
        let mut profile = FargateProfile { spec, ..FargateProfile::default() };
        profile.metadata.name = Some(object_name(&profile.spec.name));
        profile.metadata.namespace = Some(NAMESPACE.to_owned());
        Ok(profile)
    }

    /// Auto Mode, if the section switches it on. Without a list of NodePools it has both, with an
    /// empty one none.
    fn auto_mode(
        &mut self,
        node: &Node,
        cluster: &str,
        with_karpenter: bool,
    ) -> Result<Option<AutoMode>, Wrong> {
        let mut fields = Fields::of(node, "autoModeConfig")?;
        let is_enabled = fields.flag("enabled")? == Some(true);
        let says_pools = fields.has("nodePools");
        let mut node_pools = Vec::new();
        for (pool, place) in fields.texts("nodePools")? {
            let says = match pool.as_str() {
                known if !BUILT_IN.contains(&known) => {
                    format!("there is no {pool}, only {}", BUILT_IN.join(" and "))
                }
                _ if node_pools.contains(&pool) => format!("{pool} is named twice"),
                _ => {
                    node_pools.push(pool);
                    continue;
                }
            };
            return Err(Wrong { place, says: format!("autoModeConfig.nodePools: {says}") });
        }
        let role = fields.text("nodeRoleARN")?;
        fields.text("permissionsBoundaryARN")?;
        self.unknown(&fields);
        let refused =
            |what: &str, says: &str| Err(wrong(node, &format!("autoModeConfig.{what}"), says));
        if !is_enabled && (says_pools || role.is_some()) {
            // eksctl's own rule: half a configuration is a mistake.
            return refused(
                "enabled",
                "must be true for nodePools and nodeRoleARN to mean something",
            );
        }
        if says_pools && node_pools.is_empty() && role.is_some() {
            return refused(
                "nodeRoleARN",
                "is the role of the nodes of nodePools, of which there are none",
            );
        }
        if !is_enabled {
            return Ok(None);
        }
        let mut auto_mode = AutoMode { with_karpenter, ..AutoMode::of_eksctl(cluster) };
        if says_pools {
            auto_mode.node_pools = node_pools;
        }
        if let Some(role) = role {
            auto_mode.node_role_arn = role;
        }
        Ok(Some(auto_mode))
    }

    /// What an add-on brings, if it is one that means something here.
    fn addon(&mut self, node: &Node, path: &str) -> Result<Option<Addon>, Wrong> {
        let mut fields = Fields::of(node, path)?;
        let (name, _) = fields.required_text("name")?;
        let values = fields.text("configurationValues")?;
        for name in [
            "attachPolicy",
            "attachPolicyARNs",
            "permissionsBoundary",
            "podIdentityAssociations",
            "resolveConflicts",
            "serviceAccountRoleARN",
            "tags",
            "useDefaultPodIdentityAssociations",
            "version",
            "wellKnownPolicies",
            "publishers",
            "types",
            "owners",
            "force",
            "namespaceConfig",
        ] {
            fields.has(name);
        }
        self.unknown(&fields);
        match name.as_str() {
            "coredns" => {}
            "aws-load-balancer-controller" => return Ok(Some(Addon::LoadBalancerController)),
            _ => return Ok(None),
        }
        let text = values.unwrap_or_else(|| "{}".to_owned());
        let values: Value = serde_saphyr::from_str(&text).map_err(|_| {
            wrong(node, &format!("{path}.configurationValues"), "is neither JSON nor YAML")
        })?;
        let requests = &values["resources"]["requests"];
        let amount = |name: &str, default: &str| match &requests[name] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => default.to_owned(),
        };
        Ok(Some(Addon::CoreDns(CoreDns {
            on_fargate: values["computeType"]
                .as_str()
                .is_some_and(|t| t.eq_ignore_ascii_case("fargate")),
            requests: DnsRequests { cpu: amount("cpu", "100m"), memory: amount("memory", "70Mi") },
        })))
    }

    fn warn(&mut self, place: Place, text: &str) {
        self.warnings.push(format!("{}:{}: {text}", place.line, place.column));
    }

    fn unknown(&mut self, fields: &Fields<'_>) {
        self.warnings.extend(fields.unknown());
    }
}

/// The role of all profiles, if the file names one.
fn execution_role(iam: &Node) -> Option<String> {
    let entries = entries(iam, "iam").ok()?;
    let (_, node) = entries.iter().find(|(key, _)| key == "fargatePodExecutionRoleARN")?;
    match &node.value {
        Tree::Text(arn) => Some(arn.clone()),
        _ => None,
    }
}

/// The role that eksctl makes: its name ends in characters that AWS draws.
pub fn generated_role(cluster: &str) -> String {
    let suffix = Random::new(0, fnv1a(format!("{cluster} role").as_bytes())).hex(12);
    format!(
        "arn:aws:iam::{ACCOUNT}:role/eksctl-{cluster}-cluster-FargatePodExecutionRole-{}",
        suffix.to_ascii_uppercase()
    )
}

/// The name of the object of a profile: a profile's own may hold more than that of an object.
pub fn object_name(profile: &str) -> String {
    let name = profile.to_ascii_lowercase().replace('_', "-");
    if name == profile {
        return name;
    }
    // Two profiles whose names differ only in this way must not meet.
    let suffix = Random::new(0, fnv1a(profile.as_bytes())).name_characters(4);
    format!("{name}-{suffix}")
}

/// Where in a map a field stands, `selectors[1].namespace`; as near as can be told.
fn place_of(node: &Node, path: &str) -> Place {
    let mut at = node;
    for part in path.split(['.', '[']) {
        let part = part.trim_end_matches(']');
        let found = match &at.value {
            Tree::Map(entries) => entries.iter().find(|(key, _)| key == part).map(|(_, node)| node),
            Tree::List(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        match found {
            Some(found) => at = found,
            None => break,
        }
    }
    at.place
}

#[cfg(test)]
mod tests;
