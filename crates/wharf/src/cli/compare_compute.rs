//! The arguments of `wharf compare-compute`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use wharf_sim::compute::Way;

/// `wharf compare-compute`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf compare-compute shop/                      every manifest of a folder
  wharf compare-compute web.yaml db.yaml --region ap-northeast-2
  wharf compare-compute labs/inflate/scenario.yaml --way fargate,karpenter-spot
  wharf compare-compute shop/ -o html > shop.html  a page to look at and pass on")]
pub(crate) struct CompareComputeArgs {
    /// Manifests, folders of them, or one scenario
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// EC2 region [default: the scenario's, or us-east-1]
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Which to compare: fargate, auto-mode, karpenter-on-demand, karpenter-spot, managed-node-group
    /// [default: all]
    #[arg(long = "way", value_delimiter = ',', value_name = "WAY,…")]
    pub(crate) ways: Vec<Way>,
    /// Machines of the managed node group [default: the smallest m5 that holds every pod]
    #[arg(long, value_name = "TYPE")]
    pub(crate) instance_type: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ReportOutput,
}

/// Output of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportOutput {
    /// For people
    #[default]
    Text,
    /// For scripts
    Json,
    /// One page for a browser, which needs nothing else
    Html,
}
