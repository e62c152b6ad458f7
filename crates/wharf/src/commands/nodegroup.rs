//! `wharf nodegroup`: managed node groups of a running lab, through its API.

use serde_json::{Value, json};
use wharf_model::nodegroup::{Nodegroup, status};

use super::eksctl::{self, or_none};
use crate::cli::{LabArgs, NodegroupCommand, NodegroupScaleArgs, Output};
use crate::client;
use crate::failure::Failure;
use crate::output;

/// All groups; an object's own path goes on after it, within its namespace.
const ALL: &str = "/apis/eks.services.k8s.aws/v1alpha1/nodegroups";

/// Does what is asked for.
pub(crate) fn run(command: &NodegroupCommand) -> Result<(), Failure> {
    match command {
        NodegroupCommand::List(args) => {
            let groups = match &args.name {
                Some(name) => vec![find(&args.lab, name)?],
                None => groups(&args.lab)?,
            };
            match args.output {
                Output::Json => {
                    let all: Vec<Value> = groups.iter().map(described).collect();
                    output::data(&pretty(&json!(all)));
                }
                Output::Text => output::data(&table(&groups)),
            }
            Ok(())
        }
        NodegroupCommand::Describe(args) => {
            let group = find(&args.lab, &args.name)?;
            output::data(&pretty(&json!({"nodegroup": described(&group)})));
            Ok(())
        }
        NodegroupCommand::Scale(args) => scale(args),
        NodegroupCommand::Delete(args) => {
            let group = find(&args.lab, &args.name)?;
            client::ask_well(args.lab.kubeconfig.as_deref(), "DELETE", &path(&group), "")?;
            output::progress(&format!("deleting node group {}; its nodes are drained", args.name));
            Ok(())
        }
    }
}

fn scale(args: &NodegroupScaleArgs) -> Result<(), Failure> {
    let mut group = find(&args.lab, &args.name)?;
    let sizes = group.sizes();
    let config = group.spec.scaling_config.get_or_insert_default();
    config.desired_size = Some(args.nodes);
    config.min_size = Some(args.nodes_min.unwrap_or(sizes.min));
    config.max_size = Some(args.nodes_max.unwrap_or(sizes.max));
    let body = serde_json::to_string(&group).map_err(Failure::failed)?;
    client::ask_well(args.lab.kubeconfig.as_deref(), "PUT", &path(&group), &body)?;
    output::progress(&format!(
        "scaling node group {} from {} to {} machines",
        args.name, sizes.desired, args.nodes
    ));
    Ok(())
}

fn path(group: &Nodegroup) -> String {
    let namespace = group.metadata.namespace.as_deref().unwrap_or_default();
    let name = group.metadata.name.as_deref().unwrap_or_default();
    format!("/apis/eks.services.k8s.aws/v1alpha1/namespaces/{namespace}/nodegroups/{name}")
}

/// The lab's groups, in the order of their names.
fn groups(lab: &LabArgs) -> Result<Vec<Nodegroup>, Failure> {
    let answer = client::ask_well(lab.kubeconfig.as_deref(), "GET", ALL, "")?;
    let mut list: Value = serde_json::from_str(&answer).map_err(Failure::failed)?;
    let mut groups: Vec<Nodegroup> =
        serde_json::from_value(list["items"].take()).map_err(Failure::failed)?;
    groups.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
    Ok(groups)
}

fn find(lab: &LabArgs, name: &str) -> Result<Nodegroup, Failure> {
    let all = groups(lab)?;
    let names: Vec<String> = all.iter().map(|group| group.spec.name.clone()).collect();
    all.into_iter().find(|group| group.spec.name == name).ok_or_else(|| {
        let there = match names.as_slice() {
            [] => "there are none".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        Failure::bad_input(format!("No node group found for name: {name}; {there}"))
    })
}

/// A group as EKS' API tells it.
fn described(group: &Nodegroup) -> Value {
    let Nodegroup { spec, status, .. } = group;
    let known_as = status.ack_resource_metadata.as_ref();
    json!({
        "nodegroupName": spec.name,
        "nodegroupArn": known_as.and_then(|known_as| known_as.arn.clone()),
        "clusterName": spec.cluster_name,
        "createdAt": status.created_at,
        "modifiedAt": status.modified_at,
        "status": status_of(group),
        "capacityType": spec.capacity_type,
        "scalingConfig": spec.scaling_config,
        "instanceTypes": spec.instance_types,
        "subnets": spec.subnets,
        "amiType": spec.ami_type,
        "nodeRole": spec.node_role,
        "labels": spec.labels,
        "taints": spec.taints,
        "resources": status.resources,
        "diskSize": spec.disk_size,
        "health": status.health.clone().unwrap_or_default(),
        "updateConfig": spec.update_config,
        "nodeRepairConfig": spec.node_repair_config,
        "tags": spec.tags,
    })
}

/// A new group says nothing for a moment.
fn status_of(group: &Nodegroup) -> &str {
    if group.is_deleting() {
        return status::DELETING;
    }
    group.status.status.as_deref().unwrap_or(status::CREATING)
}

/// eksctl's table.
fn table(groups: &[Nodegroup]) -> String {
    let header = [
        "CLUSTER",
        "NODEGROUP",
        "STATUS",
        "CREATED",
        "MIN SIZE",
        "MAX SIZE",
        "DESIRED CAPACITY",
        "INSTANCE TYPE",
        "IMAGE ID",
        "ASG NAME",
        "TYPE",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for group in groups {
        let sizes = group.sizes();
        let created = group.status.created_at.as_ref().map(|at| json!(at));
        rows.push([
            or_none(group.spec.cluster_name.clone().unwrap_or_default()),
            group.spec.name.clone(),
            status_of(group).to_owned(),
            or_none(created.and_then(|at| at.as_str().map(str::to_owned)).unwrap_or_default()),
            sizes.min.to_string(),
            sizes.max.to_string(),
            sizes.desired.to_string(),
            group.spec.instance_types.join(","),
            group.spec.ami_type.clone().unwrap_or_default(),
            group.auto_scaling_group(),
            "managed".to_owned(),
        ]);
    }
    eksctl::table(&rows)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_eksctls() {
        let group: Nodegroup = serde_json::from_value(json!({
            "metadata": {"uid": "32c10aa4"},
            "spec": {
                "name": "workers", "clusterName": "mixed", "amiType": "AL2023_x86_64_STANDARD",
                "instanceTypes": ["m5.large", "m5a.large"],
                "scalingConfig": {"minSize": 1, "desiredSize": 3, "maxSize": 6},
            },
            "status": {"status": "ACTIVE", "createdAt": "2026-01-01T00:00:00Z"},
        }))
        .expect("a group");
        let text = table(&[group]);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split('\t').map(str::trim_end).collect()).collect();
        assert_eq!(
            rows[0].join("|"),
            "CLUSTER|NODEGROUP|STATUS|CREATED|MIN SIZE|MAX SIZE|DESIRED CAPACITY|INSTANCE TYPE|IMAGE ID|ASG NAME|TYPE"
        );
        assert_eq!(
            rows[1].join("|"),
            "mixed|workers|ACTIVE|2026-01-01T00:00:00Z|1|6|3|m5.large,m5a.large|AL2023_x86_64_STANDARD|eks-workers-32c10aa4|managed"
        );
    }
}
