//! The managed node groups of a `ClusterConfig`, with what eksctl puts where the file says nothing: two
//! machines of m5.large with 80 GiB in the public subnets, where there are any.
//! <https://docs.aws.amazon.com/eks/latest/eksctl/nodegroups.html>

use std::collections::BTreeMap;

use wharf_cloud::catalog::Catalog;
use wharf_cloud::ec2::resource_id;
use wharf_controllers::fargate::ACCOUNT;
use wharf_model::nodegroup::rules::{self, AMI_TYPE_ARM, AMI_TYPE_DEFAULT};
use wharf_model::nodegroup::{
    GroupTaint, NodeRepairConfig, Nodegroup, NodegroupSpec, ScalingConfig, UpdateConfig,
    capacity_type,
};
use wharf_model::random::{Random, fnv1a};
use wharf_model::subnet::Subnet;

use super::tree::{Fields, Node, Place, Wrong, entries, wrong};
use super::{NAMESPACE, Reader, object_name, place_of, vpc};
use crate::cluster::Cluster;

/// eksctl's instance type.
const TYPE_DEFAULT: &str = "m5.large";
/// eksctl's volume, in GiB.
const VOLUME_DEFAULT: u32 = 80;
/// eksctl's number of machines.
const SIZE_DEFAULT: u32 = 2;
/// What eksctl knows of node groups besides, and that means nothing to a simulated machine.
const SILENT: [&str; 30] = [
    "ami",
    "asgMetricsCollection",
    "asgSuspendProcesses",
    "bottlerocket",
    "capacityReservation",
    "clusterDNS",
    "disableIMDSv1",
    "disablePodIMDS",
    "ebsOptimized",
    "efaEnabled",
    "enableDetailedMonitoring",
    "enclaveEnabled",
    "instanceName",
    "instancePrefix",
    "kubeletExtraConfig",
    "launchTemplate",
    "localZones",
    "overrideBootstrapCommand",
    "placement",
    "preBootstrapCommands",
    "propagateASGTags",
    "releaseVersion",
    "securityGroups",
    "ssh",
    "targetGroupARNs",
    "volumeEncrypted",
    "volumeIOPS",
    "volumeKmsKeyID",
    "volumeName",
    "volumeThroughput",
];

impl Reader {
    /// One node group.
    pub(super) fn node_group(
        &mut self,
        node: &Node,
        path: &str,
        cluster: &Cluster,
        catalog: &Catalog,
    ) -> Result<Nodegroup, Wrong> {
        let mut fields = Fields::of(node, path)?;
        let (name, _) = fields.required_text("name")?;
        let instance_types = instance_types(&mut fields, catalog)?;
        let ami_type = self.ami_type(&mut fields, &instance_types, catalog)?;
        let mut labels: BTreeMap<String, String> = fields.text_map("labels")?.into_iter().collect();
        labels.insert("alpha.eksctl.io/cluster-name".to_owned(), cluster.name.clone());
        labels.insert("alpha.eksctl.io/nodegroup-name".to_owned(), name.clone());
        let bought = match fields.flag("spot")? {
            Some(true) => capacity_type::SPOT,
            _ => capacity_type::ON_DEMAND,
        };
        let spec = NodegroupSpec {
            ami_type: Some(ami_type),
            capacity_type: Some(bought.to_owned()),
            cluster_name: Some(cluster.name.clone()),
            disk_size: Some(i64::from(fields.count("volumeSize")?.unwrap_or(VOLUME_DEFAULT))),
            instance_types,
            labels,
            node_repair_config: node_repair(&mut fields)?,
            node_role: Some(node_role(&mut fields, &cluster.name, &name)?),
            scaling_config: Some(sizes(&mut fields, node, path)?),
            subnets: subnets(&mut fields, cluster, catalog)?,
            tags: fields.text_map("tags")?.into_iter().collect(),
            taints: self.taints(&mut fields)?,
            update_config: Some(update_config(&mut fields)?),
            name: name.clone(),
            ..NodegroupSpec::default()
        };
        for name in ["maxPodsPerNode", "volumeType"] {
            if let Some(node) = fields.get(name) {
                let path = fields.path(name);
                self.warn(node.place, &format!("{path} has no effect: every machine has its type's own pods and gp3 volumes"));
            }
        }
        for name in SILENT {
            fields.has(name);
        }
        self.unknown(&fields);
        if let Some(problem) = rules::problems(&spec, &|_| true).into_iter().next() {
            let field = problem.field.strip_prefix("spec").unwrap_or(&problem.field);
            let place = place_of(node, field.trim_start_matches('.'));
            return Err(Wrong { place, says: format!("{path}{field}: {}", problem.what) });
        }
        let mut group = Nodegroup { spec, ..Nodegroup::default() };
        group.metadata.name = Some(object_name(&name));
        group.metadata.namespace = Some(NAMESPACE.to_owned());
        Ok(group)
    }

    /// The image: of the family that the file names, for the architecture of the types.
    fn ami_type(
        &mut self,
        fields: &mut Fields<'_>,
        types: &[String],
        catalog: &Catalog,
    ) -> Result<String, Wrong> {
        let of_type = types.first().and_then(|name| catalog.machine(name));
        let is_arm = of_type.is_some_and(|machine| machine.arch == "arm64");
        let path = fields.path("amiFamily");
        let place = fields.get("amiFamily").map(|node| node.place);
        let family = fields.text("amiFamily")?.unwrap_or_else(|| "AmazonLinux2023".to_owned());
        let (arm, other) = match family.as_str() {
            "AmazonLinux2023" => (AMI_TYPE_ARM, AMI_TYPE_DEFAULT),
            "AmazonLinux2" => ("AL2_ARM_64", "AL2_x86_64"),
            "Bottlerocket" => ("BOTTLEROCKET_ARM_64", "BOTTLEROCKET_x86_64"),
            family if family.starts_with("Ubuntu") => ("CUSTOM", "CUSTOM"),
            _ => {
                let says = format!(
                    "{path} is {family}; nodes here can be AmazonLinux2023, AmazonLinux2, Bottlerocket or Ubuntu's"
                );
                return Err(Wrong { place: place.unwrap_or(Place { line: 0, column: 0 }), says });
            }
        };
        Ok(if is_arm { arm } else { other }.to_owned())
    }

    fn taints(&mut self, fields: &mut Fields<'_>) -> Result<Vec<GroupTaint>, Wrong> {
        let mut taints = Vec::new();
        for (path, node) in fields.list("taints")? {
            let mut fields = Fields::of(node, &path)?;
            let (key, _) = fields.required_text("key")?;
            let (effect, place) = fields.required_text("effect")?;
            let effect = match effect.as_str() {
                "NoSchedule" => "NO_SCHEDULE",
                "NoExecute" => "NO_EXECUTE",
                "PreferNoSchedule" => "PREFER_NO_SCHEDULE",
                other => {
                    let says = format!(
                        "{path}.effect is {other}; a taint has NoSchedule, NoExecute or PreferNoSchedule"
                    );
                    return Err(Wrong { place, says });
                }
            };
            let value = fields.text("value")?;
            self.unknown(&fields);
            taints.push(GroupTaint { effect: effect.to_owned(), key, value });
        }
        Ok(taints)
    }
}

fn instance_types(fields: &mut Fields<'_>, catalog: &Catalog) -> Result<Vec<String>, Wrong> {
    let path = fields.path("instanceType");
    let one = fields.get("instanceType").map(|node| node.place);
    let one = fields.text("instanceType")?.zip(one);
    let mut named = fields.texts("instanceTypes")?;
    named.extend(one.filter(|_| named.is_empty()));
    for (name, place) in &named {
        if catalog.machine(name).is_none() {
            let says = format!("{path}: {} sells no {name}", catalog.region().name);
            return Err(Wrong { place: *place, says });
        }
    }
    if named.is_empty() {
        return Ok(vec![TYPE_DEFAULT.to_owned()]);
    }
    Ok(named.into_iter().map(|(name, _)| name).collect())
}

/// The sizes: what is not said follows from what is.
fn sizes(fields: &mut Fields<'_>, node: &Node, path: &str) -> Result<ScalingConfig, Wrong> {
    let (least, most) = (fields.count("minSize")?, fields.count("maxSize")?);
    let desired = fields.count("desiredCapacity")?;
    let desired_or =
        desired.or(least).unwrap_or_else(|| SIZE_DEFAULT.min(most.unwrap_or(SIZE_DEFAULT)));
    let least = least.unwrap_or(desired_or);
    let most = most.unwrap_or(desired_or.max(1));
    if least > desired_or || desired_or > most {
        return Err(wrong(node, path, "needs minSize <= desiredCapacity <= maxSize"));
    }
    Ok(ScalingConfig {
        desired_size: Some(i64::from(desired_or)),
        max_size: Some(i64::from(most)),
        min_size: Some(i64::from(least)),
    })
}

/// The ids of the subnets: those that the file names, else those of the zones it names, else all;
/// private ones if it says so.
fn subnets(
    fields: &mut Fields<'_>,
    cluster: &Cluster,
    catalog: &Catalog,
) -> Result<Vec<String>, Wrong> {
    let named = fields.texts("subnets")?;
    let zones = fields.texts("availabilityZones")?;
    let is_private = fields.flag("privateNetworking")? == Some(true);
    let subnet_of = |wanted: &str| {
        let mut all = cluster.subnets.iter();
        all.find(|subnet| vpc::is_named(subnet, wanted))
    };
    if !named.is_empty() {
        let id = |(wanted, place): &(String, Place)| match subnet_of(wanted) {
            Some(subnet) => Ok(vpc::id(subnet)),
            None => {
                let path = fields.path("subnets");
                let says = format!("{path}: there is no subnet {wanted} in vpc.subnets");
                Err(Wrong { place: *place, says })
            }
        };
        return named.iter().map(id).collect();
    }
    for (zone, place) in &zones {
        if !catalog.zones().iter().any(|there| there.name == zone.as_str()) {
            let path = fields.path("availabilityZones");
            let says = format!("{path}: {zone} is no zone of {}", catalog.region().name);
            return Err(Wrong { place: *place, says });
        }
    }
    if cluster.subnets.is_empty() {
        // Those that a cluster gets without a VPC of its own, a private one in each zone.
        let id = |(zone, _): &(String, Place)| resource_id(&cluster.name, "subnet", zone);
        return Ok(zones.iter().map(id).collect());
    }
    let is_public = |subnet: &&Subnet| subnet.spec.public;
    let wants_public = !is_private && cluster.subnets.iter().any(|subnet| is_public(&subnet));
    let in_zones = |subnet: &&Subnet| {
        zones.is_empty() || zones.iter().any(|(zone, _)| *zone == subnet.spec.zone)
    };
    let wanted = cluster.subnets.iter().filter(|subnet| is_public(subnet) == wants_public);
    Ok(wanted.filter(in_zones).map(vpc::id).collect())
}

fn update_config(fields: &mut Fields<'_>) -> Result<UpdateConfig, Wrong> {
    let path = fields.path("updateConfig");
    let Some(node) = fields.get("updateConfig") else {
        return Ok(UpdateConfig { max_unavailable: Some(1), max_unavailable_percentage: None });
    };
    let mut fields = Fields::of(node, &path)?;
    Ok(UpdateConfig {
        max_unavailable: fields.count("maxUnavailable")?.map(i64::from),
        max_unavailable_percentage: fields.count("maxUnavailablePercentage")?.map(i64::from),
    })
}

fn node_repair(fields: &mut Fields<'_>) -> Result<Option<NodeRepairConfig>, Wrong> {
    let path = fields.path("nodeRepairConfig");
    let Some(node) = fields.get("nodeRepairConfig") else { return Ok(None) };
    let mut fields = Fields::of(node, &path)?;
    Ok(Some(NodeRepairConfig { enabled: fields.flag("enabled")? }))
}

/// The role that the file names, or the one that eksctl makes.
fn node_role(fields: &mut Fields<'_>, cluster: &str, name: &str) -> Result<String, Wrong> {
    let path = fields.path("iam");
    if let Some(node) = fields.get("iam") {
        let own = entries(node, &path)?.iter().find(|(key, _)| key == "instanceRoleARN");
        if let Some((_, node)) = own
            && let super::Tree::Text(arn) = &node.value
        {
            return Ok(arn.clone());
        }
    }
    let suffix = Random::new(0, fnv1a(format!("{cluster} {name} role").as_bytes())).hex(12);
    Ok(format!(
        "arn:aws:iam::{ACCOUNT}:role/eksctl-{cluster}-nodegroup-{name}-NodeInstanceRole-{}",
        suffix.to_ascii_uppercase()
    ))
}
