//! The verbs about what EKS and AWS have: Fargate profiles, managed node groups, the logs of pods on
//! Fargate, and load balancers.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use wharf_sim::scenario::read_duration;

use super::{LabArgs, Output};

/// `wharf logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf logs                                     the groups and their streams
  wharf logs /fargate/logs --since 10m           what was printed in the last ten minutes
  wharf logs /fargate/logs --stream web --follow what streams named web… get, as it comes
  wharf logs /fargate/logs --export events.json  a file as filter-log-events answers")]
pub(crate) struct LogsArgs {
    /// The log group; without one, which there are
    #[arg(value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Only streams whose names begin so
    #[arg(long, value_name = "PREFIX", requires = "group")]
    pub(crate) stream: Option<String>,
    /// Only what was printed in so long a time, by the lab's clock [default: everything]
    #[arg(long, value_name = "DURATION", value_parser = since, requires = "group")]
    pub(crate) since: Option<Duration>,
    /// Go on with what comes
    #[arg(short, long, requires = "group", conflicts_with_all = ["export", "output"])]
    pub(crate) follow: bool,
    /// Write the events into a file instead, as CloudWatch's filter-log-events answers
    #[arg(long, value_name = "FILE", requires = "group")]
    pub(crate) export: Option<PathBuf>,
    /// In which form
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Which lab.
    #[command(flatten)]
    pub(crate) lab: LabArgs,
}

fn since(text: &str) -> Result<Duration, String> {
    read_duration(text, "--since")
}

/// `wharf fargate`.
#[derive(Debug, Subcommand)]
pub(crate) enum FargateCommand {
    /// Fargate profiles: which pods run on Fargate
    #[command(subcommand)]
    Profile(ProfileCommand),
}

/// `wharf fargate profile`.
#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Make a profile; it is in use some minutes later
    #[command(after_help = "Examples:
  wharf fargate profile create study_wildcard --namespace 'study-*'
  wharf fargate profile create web --namespace shop --labels tier=web --tags team=a")]
    Create(ProfileCreateArgs),
    /// List profiles, a line for each selector, as `eksctl get fargateprofile` does
    #[command(visible_alias = "get")]
    List(ProfileListArgs),
    /// Show a profile, as `aws eks describe-fargate-profile` does
    Describe(ProfileArgs),
    /// Delete a profile, and the pods that run on it
    Delete(ProfileArgs),
}

/// `wharf fargate profile create`.
#[derive(Debug, Args)]
pub(crate) struct ProfileCreateArgs {
    /// The profile's name
    pub(crate) name: String,
    /// Namespace of the pods; * and ? are wildcards
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: String,
    /// Labels that the pods must have; * and ? are wildcards
    #[arg(short, long, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// Private subnets for the pods [default: all of the cluster]
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    pub(crate) subnets: Vec<String>,
    /// Role of the pods' kubelets [default: one is made up]
    #[arg(long, value_name = "ARN")]
    pub(crate) pod_execution_role_arn: Option<String>,
    /// Tags
    #[arg(short, long, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = pair)]
    pub(crate) tags: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) lab: LabArgs,
}

/// `wharf fargate profile list`, `wharf nodegroup list`.
#[derive(Debug, Args)]
pub(crate) struct ProfileListArgs {
    /// Only the one of this name
    pub(crate) name: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) lab: LabArgs,
}

/// A profile or a node group of a running lab.
#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) lab: LabArgs,
}

/// `wharf nodegroup`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodegroupCommand {
    /// List managed node groups, as `eksctl get nodegroup` does
    #[command(visible_alias = "get")]
    List(ProfileListArgs),
    /// Show a node group, as `aws eks describe-nodegroup` does
    Describe(ProfileArgs),
    /// Change how many machines a node group has, as `eksctl scale nodegroup` does
    #[command(after_help = "Examples:
  wharf nodegroup scale workers --nodes 5
  wharf nodegroup scale workers --nodes 8 --nodes-max 10
  wharf nodegroup scale workers --nodes 0 --nodes-min 0
A new group is an object:
  kubectl apply -f - <<EOF
  apiVersion: eks.services.k8s.aws/v1alpha1
  kind: Nodegroup
  metadata: {name: workers, namespace: kube-system}
  spec:
    name: workers
    instanceTypes: [m5.large]
    scalingConfig: {minSize: 1, maxSize: 6, desiredSize: 3}
  EOF")]
    Scale(NodegroupScaleArgs),
    /// Delete a node group; its nodes are drained first
    Delete(ProfileArgs),
}

/// `wharf nodegroup scale`.
#[derive(Debug, Args)]
pub(crate) struct NodegroupScaleArgs {
    /// The node group's name
    pub(crate) name: String,
    /// How many machines there should be
    #[arg(short = 'N', long, value_name = "N")]
    pub(crate) nodes: i64,
    /// The fewest there may be [default: as it is]
    #[arg(short = 'm', long, value_name = "N")]
    pub(crate) nodes_min: Option<i64>,
    /// The most there may be [default: as it is]
    #[arg(short = 'M', long, value_name = "N")]
    pub(crate) nodes_max: Option<i64>,
    #[command(flatten)]
    pub(crate) lab: LabArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// `wharf lb`.
#[derive(Debug, Subcommand)]
pub(crate) enum LbCommand {
    /// List load balancers with their targets and where they answer
    #[command(after_help = "Examples:
  wharf lb list
  wharf lb list -o json | jq -r '.[].hostname'")]
    List {
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        #[command(flatten)]
        lab: LabArgs,
    },
    /// Print the proxy behind which the names of load balancers, Services and pods work in URLs
    #[command(after_help = "Examples:
  export http_proxy=$(wharf lb proxy)
  curl http://$(kubectl get ingress web -o jsonpath='{.status.loadBalancer.ingress[0].hostname}')
  curl -x $(wharf lb proxy) http://web.shop.svc.cluster.local")]
    Proxy {
        #[command(flatten)]
        lab: LabArgs,
    },
}
