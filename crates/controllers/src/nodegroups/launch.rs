//! From a node group to the request for one of its machines: which types and zones would do, in which
//! order, and what the machine is told.

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use wharf_cloud::catalog::{AmiFamily, BlockDevice, Catalog, NodeSettings};
use wharf_cloud::ec2::resource_id;
use wharf_model::instance::KubeletArguments;
use wharf_model::instance_type::{CapacityType, InstanceType};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::money::Price;
use wharf_model::nodegroup::rules::AMI_TYPE_DEFAULT;
use wharf_model::nodegroup::{
    ASG_TAG, CAPACITY_TYPE_LABEL, IMAGE_LABEL, LABEL, NAME_TAG, Nodegroup, capacity_type,
};
use wharf_model::resources::Resources;
use wharf_model::subnet::Subnet;
use wharf_ports::cloud::{Allocation, LaunchOverride, LaunchRequest};
use wharf_ports::view::View;

const GIB: i64 = 1 << 30;

/// What can be launched for a group.
pub(super) struct Offer {
    types: Vec<InstanceType>,
    capacity_type: CapacityType,
}

/// Looks up the types of a group.
///
/// # Errors
/// EKS' or EC2's words for what is wrong with them.
pub(super) fn offer(group: &Nodegroup, catalog: &Catalog) -> Result<Offer, String> {
    let settings = node_settings(group);
    let ami = group.spec.ami_type.as_deref().unwrap_or(AMI_TYPE_DEFAULT);
    let arch = if ami.contains("ARM_64") { "arm64" } else { "amd64" };
    let mut types = Vec::new();
    for name in &group.spec.instance_types {
        let Some(machine) = catalog.instance_type(name, &settings) else {
            return Err(format!("The following supplied instance types do not exist: [{name}]"));
        };
        if ami != "CUSTOM" && machine.label(labels::ARCH).is_some_and(|of_type| of_type != arch) {
            return Err(format!(
                "[{name}] is not a valid instance type for requested amiType {ami}"
            ));
        }
        types.push(machine);
    }
    let capacity_type = if group.is_spot() { CapacityType::Spot } else { CapacityType::OnDemand };
    Ok(Offer { types, capacity_type })
}

/// The zones that a group spans: those of its subnets.
pub(super) fn zones(group: &Nodegroup, catalog: &Catalog, view: &View) -> Vec<String> {
    let of_subnets = group.spec.subnets.iter().filter_map(|id| view.get_cluster::<Subnet>(id));
    let mut zones: Vec<String> = of_subnets.map(|subnet| subnet.spec.zone.clone()).collect();
    if zones.is_empty() && view.count(Kind::of::<Subnet>()) == 0 {
        zones = catalog.zones().into_iter().map(|zone| zone.name.to_string()).collect();
    }
    zones.sort();
    zones.dedup();
    zones
}

/// The request for one machine, in the first of `zones` that has one: there the first of the group's
/// types on demand (`prioritized`), the cheapest on the spot market. How much of a type EC2 has left,
/// by which `price-capacity-optimized` goes too, is not modelled.
pub(super) fn request(
    group: &Nodegroup,
    offer: &Offer,
    zones: &[String],
    token: String,
    cluster: &str,
) -> LaunchRequest {
    let mut overrides = Vec::new();
    for zone in zones {
        let mut of_zone: Vec<LaunchOverride> =
            offer.types.iter().filter_map(|machine| in_zone(machine, offer, zone)).collect();
        if offer.capacity_type == CapacityType::Spot {
            of_zone.sort_by(|a, b| (a.price, &a.instance_type).cmp(&(b.price, &b.instance_type)));
        }
        overrides.extend(of_zone);
    }
    let ami = group.spec.ami_type.as_deref().unwrap_or(AMI_TYPE_DEFAULT);
    LaunchRequest {
        token,
        node_claim: String::new(),
        capacity_type: offer.capacity_type.as_str().to_owned(),
        overrides,
        allocation: Allocation::Prioritized,
        subnets: group.spec.subnets.clone(),
        ami_family: family_word(ami).to_owned(),
        image_id: image(group, cluster),
        tags: tags(group, cluster),
        kubelet: kubelet_arguments(group, cluster),
        managed: false,
    }
}

/// What the boot script tells the kubelet: the group's labels and taints, and EKS' labels.
pub(super) fn kubelet_arguments(group: &Nodegroup, cluster: &str) -> KubeletArguments {
    let bought = match group.is_spot() {
        true => capacity_type::SPOT,
        false => capacity_type::ON_DEMAND,
    };
    let mut node_labels = group.spec.labels.clone();
    node_labels.extend([
        (LABEL.to_owned(), group.spec.name.clone()),
        (IMAGE_LABEL.to_owned(), image(group, cluster)),
        (CAPACITY_TYPE_LABEL.to_owned(), bought.to_owned()),
    ]);
    KubeletArguments {
        labels: node_labels,
        taints: group.spec.taints.iter().map(|taint| taint.to_taint()).collect(),
        ..KubeletArguments::default()
    }
}

/// A node as a new machine of the group in a zone would be, of the first of its types.
pub(super) fn template(
    group: &Nodegroup,
    offer: &Offer,
    zone: &str,
    cluster: &str,
) -> Option<Node> {
    let machine = offer.types.first()?;
    let told = kubelet_arguments(group, cluster);
    let mut node = Node::default();
    let of_type = machine.labels.iter().filter_map(|label| match &label.values[..] {
        [value] => Some((label.key.to_owned(), value.to_string())),
        _ => None,
    });
    // Karpenter's labels are for its own nodes.
    let of_type = of_type.filter(|(key, _)| !key.contains(labels::KARPENTER_DOMAIN));
    let mut node_labels: BTreeMap<String, String> = of_type.collect();
    let name = format!("{}-{zone}", group.spec.name);
    node_labels.extend([
        (labels::INSTANCE_TYPE.to_owned(), machine.name.to_string()),
        (labels::TOPOLOGY_ZONE.to_owned(), zone.to_owned()),
        (labels::HOSTNAME.to_owned(), name.clone()),
        (labels::OS.to_owned(), "linux".to_owned()),
    ]);
    node_labels.extend(told.labels);
    node.metadata.name = Some(name);
    node.metadata.labels = Some(node_labels);
    node.spec = Some(NodeSpec { taints: Some(told.taints), ..NodeSpec::default() });
    node.status = Some(NodeStatus {
        capacity: Some(machine.capacity.to_map()),
        allocatable: Some(machine.allocatable.to_map()),
        ..NodeStatus::default()
    });
    Some(node)
}

/// The tags of the Auto Scaling group, which its machines get: those by which the Cluster Autoscaler
/// finds it among them. The group's own tags stay with the group.
fn tags(group: &Nodegroup, cluster: &str) -> BTreeMap<String, String> {
    [
        ("eks:cluster-name".to_owned(), cluster.to_owned()),
        (NAME_TAG.to_owned(), group.spec.name.clone()),
        (ASG_TAG.to_owned(), group.auto_scaling_group()),
        ("k8s.io/cluster-autoscaler/enabled".to_owned(), "true".to_owned()),
        (format!("k8s.io/cluster-autoscaler/{cluster}"), "owned".to_owned()),
        (format!("kubernetes.io/cluster/{cluster}"), "owned".to_owned()),
    ]
    .into()
}

fn image(group: &Nodegroup, cluster: &str) -> String {
    let ami = group.spec.ami_type.as_deref().unwrap_or(AMI_TYPE_DEFAULT);
    resource_id(cluster, "ami", ami)
}

fn in_zone(machine: &InstanceType, offer: &Offer, zone: &str) -> Option<LaunchOverride> {
    let found = machine
        .offerings
        .iter()
        .find(|offering| offering.zone == zone && offering.capacity_type == offer.capacity_type)?;
    let amounts = |resources: &Resources| -> BTreeMap<String, String> {
        resources.to_map().into_iter().map(|(name, quantity)| (name, quantity.0)).collect()
    };
    Some(LaunchOverride {
        instance_type: machine.name.to_string(),
        zone: zone.to_owned(),
        zone_id: found.zone_id.to_string(),
        price: found.price,
        fee: Price::ZERO,
        capacity: amounts(&machine.capacity),
        allocatable: amounts(&machine.allocatable),
    })
}

fn family_word(ami: &str) -> &'static str {
    match ami {
        ami if ami.starts_with("AL2023") => "al2023",
        ami if ami.starts_with("AL2") => "al2",
        ami if ami.starts_with("BOTTLEROCKET") => "bottlerocket",
        _ => "custom",
    }
}

fn node_settings(group: &Nodegroup) -> NodeSettings {
    let ami = group.spec.ami_type.as_deref().unwrap_or(AMI_TYPE_DEFAULT);
    let ami_family = AmiFamily::from_str(family_word(ami)).unwrap_or_default();
    let device = ami_family.ephemeral_device().unwrap_or("/dev/xvda");
    let size = group.spec.disk_size.map(|gib| gib.saturating_mul(GIB));
    NodeSettings {
        ami_family,
        block_devices: vec![BlockDevice {
            device_name: device.into(),
            size_bytes: size,
            root_volume: true,
        }],
        ..NodeSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wharf_model::nodegroup::rules;

    use super::*;

    fn group(spec: Value) -> Nodegroup {
        let mut group: Nodegroup =
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec})).expect("valid");
        group.spec.name = "workers".to_owned();
        rules::set_defaults(&mut group.spec);
        group
    }

    fn order(group: &Nodegroup, zones: &[&str]) -> Vec<String> {
        let catalog = Catalog::load("us-east-1").expect("a region");
        let offer = offer(group, &catalog).expect("they exist");
        let zones: Vec<String> = zones.iter().map(|zone| (*zone).to_owned()).collect();
        let request = request(group, &offer, &zones, "t".to_owned(), "mixed");
        let text = |o: &LaunchOverride| format!("{} {}", o.zone, o.instance_type);
        request.overrides.iter().map(text).collect()
    }

    #[test]
    fn on_demand_goes_by_the_groups_order_and_spot_by_price() {
        let mut workers = group(json!({"instanceTypes": ["m5.large", "c5a.large"]}));
        let zones = ["us-east-1b", "us-east-1a"];
        let on_demand = order(&workers, &zones);
        assert_eq!(
            on_demand,
            [
                "us-east-1b m5.large",
                "us-east-1b c5a.large",
                "us-east-1a m5.large",
                "us-east-1a c5a.large"
            ]
        );
        workers.spec.capacity_type = Some("SPOT".to_owned());
        let catalog = Catalog::load("us-east-1").expect("a region");
        let offer = offer(&workers, &catalog).expect("they exist");
        let zones = zones.map(str::to_owned);
        let spot = request(&workers, &offer, &zones, "t".to_owned(), "mixed").overrides;
        assert_eq!(spot.len(), 4);
        for of_zone in spot.chunks(2) {
            assert_eq!(of_zone[0].zone, of_zone[1].zone, "zones keep their order");
            assert!(of_zone[0].price <= of_zone[1].price, "{of_zone:?}");
        }
    }

    #[test]
    fn machines_are_told_the_groups_labels_and_taints_and_eks_own() {
        let workers = group(json!({
            "labels": {"tier": "web"}, "diskSize": 50,
            "taints": [{"key": "dedicated", "value": "web", "effect": "NO_EXECUTE"}],
        }));
        let told = kubelet_arguments(&workers, "mixed");
        assert_eq!(told.labels["tier"], "web");
        assert_eq!(told.labels[LABEL], "workers");
        assert_eq!(told.labels[CAPACITY_TYPE_LABEL], "ON_DEMAND");
        assert!(told.labels[IMAGE_LABEL].starts_with("ami-0"));
        assert_eq!(told.taints.len(), 1);
        let tags = tags(&workers, "mixed");
        assert_eq!(tags["k8s.io/cluster-autoscaler/mixed"], "owned");
        assert_eq!(tags[ASG_TAG], "eks-workers-u");
        let catalog = Catalog::load("us-east-1").expect("a region");
        let offer = offer(&workers, &catalog).expect("t3.medium exists");
        let disk = offer.types[0].capacity.ephemeral_storage_bytes;
        assert_eq!(disk, 50 * GIB, "the disk is what the group says");
    }

    #[test]
    fn wrong_types_are_told_in_awss_words() {
        let catalog = Catalog::load("us-east-1").expect("a region");
        let refused = |spec: Value| offer(&group(spec), &catalog).err().unwrap_or_default();
        assert_eq!(
            refused(json!({"instanceTypes": ["m5.lage"]})),
            "The following supplied instance types do not exist: [m5.lage]"
        );
        assert_eq!(
            refused(json!({"instanceTypes": ["c6g.large"]})),
            "[c6g.large] is not a valid instance type for requested amiType AL2023_x86_64_STANDARD"
        );
        let arm = json!({"instanceTypes": ["c6g.large"], "amiType": "AL2023_ARM_64_STANDARD"});
        assert_eq!(refused(arm), "");
    }
}
