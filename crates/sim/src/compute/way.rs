//! The ways of computing, and the cluster that each is rehearsed in.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use wharf_cloud::catalog::Catalog;
use wharf_model::time::Time;

use super::measure::{Measured, measure};
use super::workload::{Asks, Workload};
use super::{CompareError, Options, Outcome};
use crate::config;
use crate::rehearsal::{self, Rehearsal, RehearsalError, START};
use crate::scenario::{Action, Manifest, Scenario, Step};

/// The cluster stands for so long before the workload comes: node groups and profiles are ready then.
const BEFORE: Duration = Duration::from_secs(15 * 60);
/// A workload of manifests alone is given so long to settle, and then looked at for an hour.
const SETTLES: Duration = Duration::from_secs(45 * 60);
const LOOKED_AT: Duration = Duration::from_secs(60 * 60);
/// A scenario without an end is looked at for so long after its last step.
const AFTER_LAST_STEP: Duration = Duration::from_secs(30 * 60);
/// The sizes among which the machine of a managed node group is chosen: eksctl's default, and larger.
const GROUP_TYPES: [&str; 6] =
    ["m5.large", "m5.xlarge", "m5.2xlarge", "m5.4xlarge", "m5.8xlarge", "m5.16xlarge"];
/// The most machines that are tried for a managed node group: EKS' quota.
const GROUP_MAX: usize = 450;

/// A way of computing that EKS offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// EKS Fargate: a micro-VM for each pod.
    Fargate,
    /// EKS Auto Mode, by its built-in NodePool.
    AutoMode,
    /// Karpenter with on-demand machines.
    KarpenterOnDemand,
    /// Karpenter with spot machines.
    KarpenterSpot,
    /// A managed node group of a fixed size.
    ManagedNodeGroup,
}

impl Way {
    /// Every way, in the order in which they are told.
    pub const ALL: [Way; 5] = [
        Way::Fargate,
        Way::AutoMode,
        Way::KarpenterOnDemand,
        Way::KarpenterSpot,
        Way::ManagedNodeGroup,
    ];

    /// The word for scripts and the command line.
    pub fn id(self) -> &'static str {
        match self {
            Way::Fargate => "fargate",
            Way::AutoMode => "auto-mode",
            Way::KarpenterOnDemand => "karpenter-on-demand",
            Way::KarpenterSpot => "karpenter-spot",
            Way::ManagedNodeGroup => "managed-node-group",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::Fargate => "Fargate",
            Way::AutoMode => "Auto Mode",
            Way::KarpenterOnDemand => "Karpenter on-demand",
            Way::KarpenterSpot => "Karpenter spot",
            Way::ManagedNodeGroup => "managed node group",
        })
    }
}

impl FromStr for Way {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|way| way.id() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Way::id).collect();
            format!("there is no way of computing {text:?}; there are {}", known.join(", "))
        })
    }
}

/// Rehearses a workload by one way; also tells how many pods it had.
pub(super) fn rehearse(
    way: Way,
    workload: &Workload,
    options: &Options,
) -> Result<(Outcome, usize), CompareError> {
    if way == Way::ManagedNodeGroup {
        return in_a_group(workload, options);
    }
    let pools = pools(way, workload.asks, None);
    let measured = run(way, workload, options, &cluster_of(way, &options.region), pools)?;
    Ok((outcome(way, &measured, notes(way)), measured.pods))
}

fn outcome(way: Way, measured: &Measured, notes: Vec<String>) -> Outcome {
    Outcome {
        way,
        per_month: measured.machines_per_month + measured.fees_per_month,
        machines_per_month: measured.machines_per_month,
        fees_per_month: measured.fees_per_month,
        machines: measured.machines.clone(),
        start: measured.start,
        ran: measured.ran,
        refused: measured.refused.clone(),
        used: measured.used,
        notes,
    }
}

fn notes(way: Way) -> Vec<String> {
    let notes: &[&str] = match way {
        Way::Fargate => {
            &["each pod pays for the whole of its size, also for what it does not ask for"]
        }
        Way::AutoMode => &["the fee for AWS to run the machines is part of it"],
        Way::KarpenterOnDemand => &[],
        Way::KarpenterSpot => {
            &["spot prices are modelled; machines can be taken back at two minutes' notice"]
        }
        Way::ManagedNodeGroup => &[],
    };
    notes.iter().map(|note| (*note).to_owned()).collect()
}

/// eksctl's file of the cluster.
fn cluster_of(way: Way, region: &str) -> String {
    let head = format!(
        "apiVersion: eksctl.io/v1alpha5\nkind: ClusterConfig\nmetadata: {{name: compare, region: {region}}}\n"
    );
    head + match way {
        Way::Fargate => "fargateProfiles:\n- {name: everything, selectors: [{namespace: '*'}]}\n",
        Way::AutoMode => "autoModeConfig: {enabled: true, nodePools: [general-purpose]}\n",
        Way::KarpenterOnDemand | Way::KarpenterSpot | Way::ManagedNodeGroup => "",
    }
}

fn group_of(region: &str, instance_type: &str, machines: usize) -> String {
    format!(
        "{}managedNodeGroups:\n- {{name: workers, instanceType: {instance_type}, desiredCapacity: {machines}, minSize: {machines}, maxSize: {machines}}}\n",
        cluster_of(Way::ManagedNodeGroup, region)
    )
}

/// The pools that Karpenter and Auto Mode need beside their default: those of machines that the
/// workload names.
fn pools(way: Way, asks: Asks, only_type: Option<&str>) -> Vec<Manifest> {
    let capacity = if way == Way::KarpenterSpot { "spot" } else { "on-demand" };
    let mut pools: Vec<String> = Vec::new();
    match way {
        Way::Fargate => return Vec::new(),
        Way::AutoMode => {}
        Way::KarpenterOnDemand | Way::KarpenterSpot | Way::ManagedNodeGroup => {
            pools.push(NODE_CLASS.to_owned());
            pools.push(match only_type {
                Some(only) => pool(
                    "default",
                    capacity,
                    "amd64",
                    &in_values(INSTANCE_TYPE, &[only]),
                    KARPENTER,
                ),
                None => {
                    let general = in_values(KARPENTER.category, &["c", "m", "r"])
                        + &requirement(KARPENTER.generation, "Gt", "'2'");
                    pool("default", capacity, "amd64", &general, KARPENTER)
                }
            });
            if only_type.is_some() {
                return manifests(pools);
            }
        }
    }
    let names = if way == Way::AutoMode { AUTO_MODE } else { KARPENTER };
    if asks.arm64 {
        pools.push(pool(
            "arm64",
            capacity,
            "arm64",
            &in_values(names.category, &["c", "m", "r"]),
            names,
        ));
    }
    if asks.accelerators {
        pools.push(pool(
            "accelerated",
            capacity,
            "amd64",
            &in_values(names.category, &["g", "p"]),
            names,
        ));
    }
    manifests(pools)
}

fn manifests(pools: Vec<String>) -> Vec<Manifest> {
    let source = "the cluster's pools".to_owned();
    pools.into_iter().map(|text| Manifest { source: source.clone(), text }).collect()
}

/// What the labels and the class of machines are called.
#[derive(Clone, Copy)]
struct Names {
    category: &'static str,
    generation: &'static str,
    class: &'static str,
}

const KARPENTER: Names = Names {
    category: "karpenter.k8s.aws/instance-category",
    generation: "karpenter.k8s.aws/instance-generation",
    class: "{group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}",
};
const AUTO_MODE: Names = Names {
    category: "eks.amazonaws.com/instance-category",
    generation: "eks.amazonaws.com/instance-generation",
    class: "{group: eks.amazonaws.com, kind: NodeClass, name: default}",
};
const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
const NODE_CLASS: &str = "apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {name: default}
spec:
  role: compare
  amiSelectorTerms: [{alias: al2023@latest}]
  subnetSelectorTerms: [{tags: {karpenter.sh/discovery: compare}}]
  securityGroupSelectorTerms: [{tags: {karpenter.sh/discovery: compare}}]
";

fn in_values(key: &str, values: &[&str]) -> String {
    requirement(key, "In", &values.join(", "))
}

fn requirement(key: &str, operator: &str, values: &str) -> String {
    format!("        - {{key: {key}, operator: {operator}, values: [{values}]}}\n")
}

/// A NodePool in Karpenter's defaults.
fn pool(name: &str, capacity: &str, arch: &str, more: &str, names: Names) -> String {
    let requirements = [
        in_values("karpenter.sh/capacity-type", &[capacity]),
        in_values("kubernetes.io/arch", &[arch]),
        in_values("kubernetes.io/os", &["linux"]),
    ]
    .concat();
    format!(
        "apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {{name: {name}}}
spec:
  template:
    spec:
      nodeClassRef: {}
      requirements:
{requirements}{more}",
        names.class
    )
}

/// Runs one cluster with the workload.
fn run(
    way: Way,
    workload: &Workload,
    options: &Options,
    cluster: &str,
    pools: Vec<Manifest>,
) -> Result<Measured, CompareError> {
    let (scenario, from, until) = scenario_of(way, workload, options, cluster, pools)?;
    let mut rehearsal = Rehearsal::new(scenario, &rehearsal::Options::default())?;
    rehearsal.run_to(START + BEFORE)?;
    Ok(measure(&mut rehearsal, START + BEFORE, from, until)?)
}

/// The scenario, and from when until when its cost is looked at.
fn scenario_of(
    way: Way,
    workload: &Workload,
    options: &Options,
    cluster: &str,
    manifests: Vec<Manifest>,
) -> Result<(Scenario, Time, Time), CompareError> {
    let cluster =
        config::load(cluster, "cluster").map_err(|error| CompareError::Cluster { way, error })?;
    let mut steps = vec![Step { at: BEFORE, action: Action::Apply(workload.manifests.clone()) }];
    steps.extend(
        workload
            .steps
            .iter()
            .map(|step| Step { at: BEFORE + step.at, action: step.action.clone() }),
    );
    let start = START + BEFORE;
    let (from, until) = match workload.steps.last() {
        None if workload.until.is_none() => (start + SETTLES, start + SETTLES + LOOKED_AT),
        last => {
            let last = last.map_or(Duration::ZERO, |step| step.at);
            (start, start + workload.until.unwrap_or(last + AFTER_LAST_STEP))
        }
    };
    let scenario = Scenario {
        name: workload.name.clone(),
        region: None,
        seed: Some(options.seed),
        until: Some(until.since(START)),
        cluster: Some(cluster),
        manifests,
        steps,
    };
    Ok((scenario, from, until))
}

/// A managed node group has as many machines as hold the workload when most of it runs.
fn in_a_group(workload: &Workload, options: &Options) -> Result<(Outcome, usize), CompareError> {
    let catalog =
        Catalog::load(&options.region).map_err(|error| RehearsalError::World(error.into()))?;
    let known = |name: &str| catalog.machine(name).is_some();
    let types: Vec<&str> = match &options.instance_type {
        Some(named) if known(named) => vec![named],
        Some(named) => {
            return Err(CompareError::InstanceType(named.clone(), options.region.clone()));
        }
        None => GROUP_TYPES.into_iter().filter(|name| known(name)).collect(),
    };
    let mut best: Option<(Measured, &str, usize)> = None;
    for instance_type in types {
        let (measured, machines) = sized(workload, options, instance_type)?;
        let refused = measured.refused_pods();
        if best.as_ref().is_none_or(|(best, ..)| refused < best.refused_pods()) {
            best = Some((measured, instance_type, machines));
        }
        if refused == 0 {
            break;
        }
    }
    let Some((measured, instance_type, machines)) = best else {
        return Err(CompareError::InstanceType(GROUP_TYPES[0].to_owned(), options.region.clone()));
    };
    let note = format!(
        "{machines} × {instance_type}, all the time: as many as the workload needs at its largest, and none to spare"
    );
    Ok((outcome(Way::ManagedNodeGroup, &measured, vec![note]), measured.pods))
}

/// The group of the fewest machines of a type which all run that can: as many as Karpenter buys of
/// them, and one more as long as a pod that had a machine there has none here.
fn sized(
    workload: &Workload,
    options: &Options,
    instance_type: &str,
) -> Result<(Measured, usize), CompareError> {
    let way = Way::ManagedNodeGroup;
    let pools = pools(way, workload.asks, Some(instance_type));
    let bought = run(way, workload, options, &cluster_of(way, &options.region), pools)?;
    let mut machines = bought.machines_max.max(1);
    loop {
        let cluster = group_of(&options.region, instance_type, machines);
        let measured = run(way, workload, options, &cluster, Vec::new())?;
        if measured.refused_pods() <= bought.refused_pods() || machines >= GROUP_MAX {
            return Ok((measured, machines));
        }
        machines += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_is_one_that_eksctl_would_make() {
        for way in Way::ALL {
            let text = match way {
                Way::ManagedNodeGroup => group_of("us-east-1", "m5.large", 3),
                _ => cluster_of(way, "us-east-1"),
            };
            let cluster = config::load(&text, "cluster").expect("a cluster");
            assert_eq!(cluster.warnings, Vec::<String>::new(), "{way}");
            assert_eq!(way.id().parse(), Ok(way));
        }
    }
}
