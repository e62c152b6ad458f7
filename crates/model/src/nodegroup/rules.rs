//! What EKS refuses in a managed node group, and what it puts where a group says nothing.
//!
//! <https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateNodegroup.html>

use crate::names;

use super::{NodegroupSpec, ScalingConfig, Sizes, UpdateConfig, capacity_type};

/// The most labels of one group.
pub const LABELS_MAX: usize = 50;
/// The most taints of one group.
pub const TAINTS_MAX: usize = 50;
/// The most instance types of one group.
pub const TYPES_MAX: usize = 20;
/// A group's name is the value of a label of its nodes.
pub const NAME_LEN_MAX: usize = 63;
/// The most machines of one group: an account's limit.
pub const SIZE_MAX: i64 = 450;
/// The image where a group names none.
pub const AMI_TYPE_DEFAULT: &str = "AL2023_x86_64_STANDARD";
/// The image where a group names none and its types are Graviton's.
pub const AMI_TYPE_ARM: &str = "AL2023_ARM_64_STANDARD";
/// Images that nodes here can have. Windows has none.
pub const AMI_TYPES: [&str; 15] = [
    "AL2023_ARM_64_NVIDIA",
    "AL2023_ARM_64_STANDARD",
    "AL2023_x86_64_NEURON",
    "AL2023_x86_64_NVIDIA",
    "AL2023_x86_64_STANDARD",
    "AL2_ARM_64",
    "AL2_x86_64",
    "AL2_x86_64_GPU",
    "BOTTLEROCKET_ARM_64",
    "BOTTLEROCKET_ARM_64_FIPS",
    "BOTTLEROCKET_ARM_64_NVIDIA",
    "BOTTLEROCKET_x86_64",
    "BOTTLEROCKET_x86_64_FIPS",
    "BOTTLEROCKET_x86_64_NVIDIA",
    "CUSTOM",
];
const EFFECTS: [&str; 3] = ["NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"];
/// Prefixes of labels that EKS keeps to itself.
const RESERVED: [&str; 3] = ["kubernetes.io/", "k8s.io/", "eks.amazonaws.com/"];

/// One thing that is wrong with a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct Problem {
    /// The field, `spec.scalingConfig`.
    pub field: String,
    /// What is wrong with it, and what is allowed.
    pub what: String,
}

/// Puts EKS' defaults where a group says nothing.
pub fn set_defaults(spec: &mut NodegroupSpec) {
    spec.ami_type.get_or_insert_with(|| AMI_TYPE_DEFAULT.to_owned());
    spec.capacity_type.get_or_insert_with(|| capacity_type::ON_DEMAND.to_owned());
    spec.disk_size.get_or_insert(20);
    if spec.instance_types.is_empty() {
        spec.instance_types.push("t3.medium".to_owned());
    }
    let scaling = spec.scaling_config.get_or_insert_default();
    let ScalingConfig { min_size, max_size, desired_size } = scaling;
    min_size.get_or_insert(Sizes::DEFAULT.min);
    desired_size.get_or_insert(Sizes::DEFAULT.desired);
    max_size.get_or_insert(Sizes::DEFAULT.max);
    spec.update_config
        .get_or_insert(UpdateConfig { max_unavailable: Some(1), max_unavailable_percentage: None });
}

/// Takes over what a change leaves out of what a group keeps: a manifest need not repeat it.
pub fn keep(spec: &mut NodegroupSpec, old: &NodegroupSpec) {
    fn keep<T: Clone>(new: &mut Option<T>, old: &Option<T>) {
        if new.is_none() {
            new.clone_from(old);
        }
    }
    keep(&mut spec.ami_type, &old.ami_type);
    keep(&mut spec.capacity_type, &old.capacity_type);
    keep(&mut spec.cluster_name, &old.cluster_name);
    keep(&mut spec.disk_size, &old.disk_size);
    keep(&mut spec.node_role, &old.node_role);
    keep(&mut spec.scaling_config, &old.scaling_config);
    keep(&mut spec.update_config, &old.update_config);
    if spec.instance_types.is_empty() {
        spec.instance_types.clone_from(&old.instance_types);
    }
    if spec.subnets.is_empty() {
        spec.subnets.clone_from(&old.subnets);
    }
}

/// What is wrong with a group. `has_subnet` tells whether the cluster has a subnet of an id.
pub fn problems(spec: &NodegroupSpec, has_subnet: &dyn Fn(&str) -> bool) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut problem = |field: &str, what: String| {
        found.push(Problem { field: format!("spec.{field}"), what });
    };
    if let Some(what) = name_problem(&spec.name) {
        problem("name", what);
    }
    if let Some(ami) = spec.ami_type.as_deref().filter(|ami| !AMI_TYPES.contains(ami)) {
        problem("amiType", format!("{ami:?} is none of {}", AMI_TYPES.join(", ")));
    }
    if let Some(bought) = spec.capacity_type.as_deref()
        && !matches!(bought, capacity_type::ON_DEMAND | capacity_type::SPOT)
    {
        problem("capacityType", format!("{bought:?} is neither ON_DEMAND nor SPOT"));
    }
    if let Some(size) = spec.disk_size.filter(|size| !(1..=16_384).contains(size)) {
        problem("diskSize", format!("{size} is not between 1 and 16384 GiB"));
    }
    if spec.instance_types.len() > TYPES_MAX {
        let count = spec.instance_types.len();
        let what = format!("a group has at most {TYPES_MAX} instance types, this one has {count}");
        problem("instanceTypes", what);
    }
    if let Some(config) = &spec.scaling_config
        && let Some(what) = size_problem(config)
    {
        problem("scalingConfig", what);
    }
    label_problems(spec, &mut problem);
    taint_problems(spec, &mut problem);
    for (index, id) in spec.subnets.iter().enumerate() {
        let path = format!("subnets[{index}]");
        if spec.subnets[..index].contains(id) {
            problem(&path, format!("{id} is named twice"));
        }
        if !has_subnet(id) {
            problem(&path, format!("The subnet ID '{id}' does not exist"));
        }
    }
    if let Some(what) = spec.update_config.as_ref().and_then(update_problem) {
        problem("updateConfig", what);
    }
    found
}

/// What of a change EKS refuses: only sizes, labels, taints, tags and how updates go can be changed.
pub fn change_problems(new: &NodegroupSpec, old: &NodegroupSpec) -> Vec<Problem> {
    let fixed = [
        ("amiType", new.ami_type != old.ami_type),
        ("capacityType", new.capacity_type != old.capacity_type),
        ("clusterName", new.cluster_name != old.cluster_name),
        ("diskSize", new.disk_size != old.disk_size),
        ("instanceTypes", new.instance_types != old.instance_types),
        ("name", new.name != old.name),
        ("nodeRole", new.node_role != old.node_role),
        ("remoteAccess", new.remote_access != old.remote_access),
        ("subnets", new.subnets != old.subnets),
    ];
    let what = "a node group keeps it: create another group, and delete this one";
    fixed
        .into_iter()
        .filter(|(_, is_changed)| *is_changed)
        .map(|(field, _)| Problem { field: format!("spec.{field}"), what: what.to_owned() })
        .collect()
}

fn name_problem(name: &str) -> Option<String> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.is_empty() {
        Some("a group needs a name".to_owned())
    } else if !starts || !name.chars().all(of_name) || name.len() > NAME_LEN_MAX {
        Some(format!(
            "{name:?} is no name of a group: letters, digits, '-' and '_', a letter or digit first, at most {NAME_LEN_MAX}"
        ))
    } else {
        None
    }
}

/// In EKS' words.
fn size_problem(config: &ScalingConfig) -> Option<String> {
    let min = config.min_size.unwrap_or(Sizes::DEFAULT.min);
    let max = config.max_size.unwrap_or(Sizes::DEFAULT.max);
    let desired = config.desired_size.unwrap_or(Sizes::DEFAULT.desired);
    if min < 0 || desired < 0 {
        Some("minSize and desiredSize are 0 or more".to_owned())
    } else if !(1..=SIZE_MAX).contains(&max) {
        Some(format!("maxSize is 1 to {SIZE_MAX}, not {max}"))
    } else if min > desired {
        Some(format!("Minimum capacity {min} can't be greater than desired size {desired}"))
    } else if desired > max {
        Some(format!("desired capacity {desired} can't be greater than max size {max}"))
    } else {
        None
    }
}

fn label_problems(spec: &NodegroupSpec, problem: &mut dyn FnMut(&str, String)) {
    if spec.labels.len() > LABELS_MAX {
        let what = format!("a group has at most {LABELS_MAX} labels, not {}", spec.labels.len());
        problem("labels", what);
    }
    for (key, value) in &spec.labels {
        if RESERVED.iter().any(|prefix| key.contains(prefix)) {
            let what = format!("Label cannot contain reserved prefixes [{}]", RESERVED.join(", "));
            problem(&format!("labels[{key}]"), what);
        }
        for what in names::qualified_name(key).into_iter().chain(names::label_value(value)) {
            problem(&format!("labels[{key}]"), what);
        }
    }
}

fn taint_problems(spec: &NodegroupSpec, problem: &mut dyn FnMut(&str, String)) {
    if spec.taints.len() > TAINTS_MAX {
        let what = format!("a group has at most {TAINTS_MAX} taints, not {}", spec.taints.len());
        problem("taints", what);
    }
    for (index, taint) in spec.taints.iter().enumerate() {
        let path = format!("taints[{index}]");
        if taint.key.is_empty() {
            problem(&format!("{path}.key"), "a taint needs a key".to_owned());
        }
        if !EFFECTS.contains(&taint.effect.as_str()) {
            let what = format!("{:?} is none of {}", taint.effect, EFFECTS.join(", "));
            problem(&format!("{path}.effect"), what);
        }
    }
}

fn update_problem(config: &UpdateConfig) -> Option<String> {
    match (config.max_unavailable, config.max_unavailable_percentage) {
        (Some(_), Some(_)) => {
            Some("has either maxUnavailable or maxUnavailablePercentage, not both".to_owned())
        }
        (Some(number), None) if !(1..=100).contains(&number) => {
            Some(format!("maxUnavailable is 1 to 100, not {number}"))
        }
        (None, Some(percent)) if !(1..=100).contains(&percent) => {
            Some(format!("maxUnavailablePercentage is 1 to 100, not {percent}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(change: impl FnOnce(&mut Value)) -> NodegroupSpec {
        let mut value = json!({"name": "workers"});
        change(&mut value);
        let mut spec = serde_json::from_value(value).expect("a spec");
        set_defaults(&mut spec);
        spec
    }

    fn found(change: impl FnOnce(&mut Value)) -> Vec<String> {
        problems(&spec(change), &|id| id == "subnet-1").iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_group_that_says_nothing_gets_eks_defaults() {
        let spec = spec(|_| {});
        assert_eq!(spec.instance_types, ["t3.medium"]);
        assert_eq!(spec.disk_size, Some(20));
        assert_eq!(spec.capacity_type.as_deref(), Some("ON_DEMAND"));
        let scaling = spec.scaling_config.clone().unwrap_or_default();
        assert_eq!(
            (scaling.min_size, scaling.desired_size, scaling.max_size),
            (Some(1), Some(2), Some(2))
        );
        assert_eq!(problems(&spec, &|_| true), []);
    }

    #[test]
    fn eks_refuses_these() {
        let sizes = |min: i64, desired: i64, max: i64| {
            found(|s| {
                s["scalingConfig"] = json!({"minSize": min, "desiredSize": desired, "maxSize": max})
            })
        };
        assert_eq!(
            sizes(3, 2, 5),
            ["spec.scalingConfig: Minimum capacity 3 can't be greater than desired size 2"]
        );
        assert_eq!(
            sizes(0, 6, 5),
            ["spec.scalingConfig: desired capacity 6 can't be greater than max size 5"]
        );
        assert_eq!(sizes(0, 0, 0), ["spec.scalingConfig: maxSize is 1 to 450, not 0"]);
        assert_eq!(sizes(0, 0, 1), [""; 0]);
        assert_eq!(
            found(|s| s["labels"] = json!({"eks.amazonaws.com/x": "y"})),
            [
                "spec.labels[eks.amazonaws.com/x]: Label cannot contain reserved prefixes [kubernetes.io/, k8s.io/, eks.amazonaws.com/]"
            ]
        );
        assert_eq!(
            found(|s| s["taints"] = json!([{"key": "a", "effect": "NoSchedule"}])),
            [
                "spec.taints[0].effect: \"NoSchedule\" is none of NO_SCHEDULE, NO_EXECUTE, PREFER_NO_SCHEDULE"
            ]
        );
        assert_eq!(
            found(|s| s["subnets"] = json!(["subnet-1", "subnet-2", "subnet-1"])),
            [
                "spec.subnets[1]: The subnet ID 'subnet-2' does not exist",
                "spec.subnets[2]: subnet-1 is named twice",
            ]
        );
        assert_eq!(
            found(|s| s["capacityType"] = json!("spot")),
            ["spec.capacityType: \"spot\" is neither ON_DEMAND nor SPOT"]
        );
        assert_eq!(
            found(|s| s["updateConfig"] = json!({"maxUnavailable": 0})),
            ["spec.updateConfig: maxUnavailable is 1 to 100, not 0"]
        );
        assert_eq!(found(|s| s["amiType"] = json!("WINDOWS_CORE_2022_x86_64")).len(), 1);
        assert_eq!(found(|s| s["name"] = json!("-a")).len(), 1);
    }

    #[test]
    fn sizes_labels_and_taints_can_be_changed_and_nothing_else() {
        let old = spec(|_| {});
        let mut new = old.clone();
        new.scaling_config = Some(ScalingConfig { desired_size: Some(1), ..Default::default() });
        new.labels.insert("a".to_owned(), "b".to_owned());
        new.update_config = None;
        assert_eq!(change_problems(&new, &old), []);
        new.instance_types = vec!["m5.large".to_owned()];
        new.disk_size = None;
        let fields: Vec<String> =
            change_problems(&new, &old).into_iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["spec.diskSize", "spec.instanceTypes"]);
    }
}
