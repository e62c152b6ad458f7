//! The command line: every verb, flag and example in one place. Parsing only; what the verbs do is
//! in `commands`.

mod compare_compute;
mod eks;
mod prometheus;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use wharf_model::gates::FeatureGates;
use wharf_model::names;
use wharf_model::object::ObjectKey;
use wharf_ports::metrics::MetricsApis;
use wharf_sim::scenario::read_duration;

use crate::lab::clock::SPEED_MAX;
pub(crate) use compare_compute::{CompareComputeArgs, ReportOutput};
pub(crate) use eks::{
    FargateCommand, LbCommand, LogsArgs, NodegroupCommand, NodegroupScaleArgs, ProfileCommand,
    ProfileCreateArgs,
};
pub(crate) use prometheus::PrometheusArgs;

/// Kubernetes capacity in one binary: pods come in, the right machines appear, they leave when
/// nobody needs them.
#[derive(Debug, Parser)]
#[command(
    name = "wharf",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:
  wharf demo                       see pods arrive, machines appear and leave, and what it costs
  wharf up                         a lab for your own kubectl, at https://127.0.0.1:6443
  wharf up --speed 60 --ephemeral  the same, a minute a second, nothing kept
  wharf simulate labs/inflate/scenario.yaml"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a lab: a Kubernetes API with simulated EC2 behind it
    Up(UpArgs),
    /// Run controllers against a cluster: its scheduler, or everything with a simulated cloud
    Run(RunArgs),
    /// Show the main job in a few seconds: pods, machines, money
    Demo(DemoArgs),
    /// Read or set the clock of a running lab
    Clock(ClockArgs),
    /// Run a scenario on a virtual clock and print what happens and what it costs
    Simulate(SimulateArgs),
    /// Say what a workload would cost on Fargate, Auto Mode, Karpenter and a managed node group
    CompareCompute(CompareComputeArgs),
    /// Say why a pod, node or nodeclaim is where it is
    Why(WhyArgs),
    /// Make, list, describe and delete Fargate profiles of a running lab
    #[command(subcommand)]
    Fargate(FargateCommand),
    /// List, describe, scale and delete managed node groups of a running lab
    #[command(subcommand)]
    Nodegroup(NodegroupCommand),
    /// Show what log groups have got of pods on Fargate, as `aws logs tail` does
    Logs(LogsArgs),
    /// List the load balancers of a running lab, and reach them
    #[command(subcommand)]
    Lb(LbCommand),
    /// List instance types with what pods may use of them and what they cost
    Catalog(CatalogArgs),
    /// Print a bearer token with the administrator's rights on the running lab
    Token(TokenArgs),
    /// Answer recorded cases, for comparing this build's decisions with upstream's
    Verify(VerifyArgs),
    /// Measure this build
    Bench(BenchArgs),
    /// Print the version
    Version(VersionArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:\n  source <(wharf completions bash)")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// `wharf up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf up                                   adds the context `wharf` to your kubeconfig
  wharf up --speed 60                        a cluster minute each second
  wharf up --ephemeral --listen 127.0.0.1:0  nothing kept, any free port
  wharf up --kubeconfig ./lab.yaml           writes only that file
  wharf up --controllers none                the API alone, for `wharf run` beside it
  wharf up --auto-mode                       a cluster in EKS Auto Mode
  wharf up --config labs/fargate-serverless/cluster.yaml
      the cluster that an eksctl file describes
  wharf up --ephemeral -- kubectl get nodes  runs a command against a lab, then ends")]
pub(crate) struct UpArgs {
    /// Address to serve at; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDRESS:PORT", value_parser = listen)]
    pub(crate) listen: SocketAddr,
    /// Directory that keeps the lab between starts [default: ~/.local/share/wharf]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    pub(crate) data: Option<PathBuf>,
    /// Keep nothing
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// Write only this kubeconfig file, instead of adding a context to yours
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Cluster seconds per second, 1 to 1000
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SPEED_MAX)))]
    pub(crate) speed: u32,
    /// EC2 region to simulate [default: us-east-1, or the one the data directory began with]
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// Seed of everything random [default: 1, or the one the data directory began with]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Which controllers run in it: all, none, or names (scheduler, karpenter, kubelet, storage,
    /// workloads, or one of the workloads' such as deployment-controller), for others to be run
    /// elsewhere
    #[arg(long, default_value = "all", value_name = "NAME,…")]
    pub(crate) controllers: String,
    /// eksctl's ClusterConfig file: the cluster's name, region, subnets, node groups and Fargate
    /// profiles
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// EKS Auto Mode with both of its NodePools, for a cluster that has no file or one without
    /// autoModeConfig
    #[arg(long)]
    pub(crate) auto_mode: bool,
    /// A KubeSchedulerConfiguration file (v1, YAML or JSON) for the scheduler
    #[arg(long, value_name = "FILE")]
    pub(crate) scheduler_config: Option<PathBuf>,
    /// Which metrics APIs there are: all, none, or names (resource, custom, external)
    #[arg(long, default_value = "all", value_name = "NAME,…")]
    pub(crate) metrics_apis: MetricsApis,
    /// Features that upstream has off: NAME=true, of HPAScaleToZero, InPlace,
    /// NodeRepair and PerVPAConfig
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME=true,…")]
    pub(crate) feature_gates: FeatureGates,
    /// Say more on stderr; twice for every change
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// A command to run against the lab; the lab ends with it and passes on its exit status
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
    // Last, since its heading is also that of what follows.
    #[command(flatten)]
    pub(crate) prometheus: PrometheusArgs,
}

/// `wharf run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf run --only scheduler --scheduler-name wharf-scheduler
      schedules the pods of your current context that ask for wharf-scheduler
  wharf run --only scheduler --config scheduler.yaml --leader-elect
      with a KubeSchedulerConfiguration file, as one of several copies
  wharf run --cloud sim --kubeconfig lab.yaml
      everything but the API, for a lab started with `wharf up --controllers none`")]
pub(crate) struct RunArgs {
    /// Kubeconfig of the cluster [default: $KUBECONFIG, or ~/.kube/config, or the pod it runs in]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context in it [default: the current one]
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Which controllers run: names as for `wharf up --controllers`
    #[arg(long, value_name = "NAME,…", required_unless_present = "cloud")]
    pub(crate) only: Option<String>,
    /// The pods to schedule are those with this spec.schedulerName [default: default-scheduler]
    #[arg(long, value_name = "NAME", conflicts_with = "config", value_parser = scheduler_name)]
    pub(crate) scheduler_name: Option<String>,
    /// A KubeSchedulerConfiguration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where machines come from
    #[arg(long, value_enum)]
    pub(crate) cloud: Option<CloudChoice>,
    /// EC2 region of the simulated cloud
    #[arg(long, default_value = "us-east-1", value_name = "REGION")]
    pub(crate) region: String,
    /// Seed of everything random
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Act only while holding a Lease, so that several copies can stand by
    #[arg(long)]
    pub(crate) leader_elect: bool,
    /// The Lease [default: kube-system/kube-scheduler for the default scheduler, else
    /// kube-system/ and the scheduler's name, or kube-system/wharf for more than a scheduler]
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_key)]
    pub(crate) lease: Option<ObjectKey>,
    /// Requests a second to the API server; 0 for no limit [default: 50, or the
    /// file's; a lab has no limit]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) qps: Option<f64>,
    /// Requests at once [default: 100, or the file's]
    #[arg(long, value_name = "N")]
    pub(crate) burst: Option<u32>,
    /// Answer /healthz, /livez, /readyz and /metrics over plain HTTP at this address
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen)]
    pub(crate) health_listen: Option<SocketAddr>,
    /// Features that upstream has off: NAME=true, of HPAScaleToZero, InPlace,
    /// NodeRepair and PerVPAConfig
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME=true,…")]
    pub(crate) feature_gates: FeatureGates,
    /// Say more on stderr: decisions; twice for every change
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    // Last, since its heading is also that of what follows.
    #[command(flatten)]
    pub(crate) prometheus: PrometheusArgs,
}

/// Where machines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CloudChoice {
    /// A simulated EC2 in this process, for an API server that is Wharf's
    Sim,
    /// Nowhere: somebody else buys them
    None,
}

/// `wharf demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// EC2 region to simulate
    #[arg(long, default_value = "us-east-1", value_name = "REGION")]
    pub(crate) region: String,
    /// Seed of everything random
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Print at once instead of at a pace one can read
    #[arg(long)]
    pub(crate) fast: bool,
}

/// Where a running lab is found.
#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    /// Kubeconfig with the lab's context [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// `wharf clock`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf clock             read it
  wharf clock pause       stop it
  wharf clock step 10m    move ten minutes on, doing what falls due on the way
  wharf clock speed 60    a cluster minute each second")]
pub(crate) struct ClockArgs {
    /// What to do with it; nothing reads it.
    #[command(subcommand)]
    pub(crate) action: Option<ClockAction>,
    #[command(flatten)]
    pub(crate) lab: LabArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub(crate) output: Output,
}

/// What to do with the clock.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ClockAction {
    /// Stop it
    Pause,
    /// Let it go on
    Resume,
    /// Move on by a span of cluster time
    Step {
        /// How far, such as 90s, 10m or 1h30m.
        #[arg(value_parser = span)]
        by: Duration,
    },
    /// Set its speed
    Speed {
        /// Cluster seconds per second, 1 to 1000.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(SPEED_MAX)))]
        speed: u32,
    },
}

/// `wharf simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf simulate labs/inflate/scenario.yaml
  wharf simulate labs/inflate/scenario.yaml --until 2h --seed 7
  wharf simulate labs/inflate/scenario.yaml -o json | jq .cost.usd")]
pub(crate) struct SimulateArgs {
    /// The scenario
    pub(crate) file: PathBuf,
    /// How long to run in cluster time [default: the scenario's, or until nothing is left to do]
    #[arg(long, value_name = "SPAN", value_parser = span, allow_hyphen_values = true)]
    pub(crate) until: Option<Duration>,
    /// Seed of everything random [default: the scenario's, or 1]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// A KubeSchedulerConfiguration file (v1, YAML or JSON) for the scheduler
    #[arg(long, value_name = "FILE")]
    pub(crate) scheduler_config: Option<PathBuf>,
    /// Features that upstream has off: NAME=true, of HPAScaleToZero, InPlace,
    /// NodeRepair and PerVPAConfig
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME=true,…")]
    pub(crate) feature_gates: FeatureGates,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// `wharf why`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf why pod/inflate-b6b45f8d4-8xzbm
  wharf why pod/web-0 -n shop
  wharf why pod/web-0 -n shop --nodes        what every single node says
  wharf why nodeclaim/default-x7ntc -o json")]
pub(crate) struct WhyArgs {
    /// TYPE/NAME: a pod, node or nodeclaim
    #[arg(value_name = "TYPE/NAME")]
    pub(crate) object: String,
    /// Namespace of the object
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Of a pod, what every node says, instead of groups of those that say the same
    #[arg(long)]
    pub(crate) nodes: bool,
    #[command(flatten)]
    pub(crate) lab: LabArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// `wharf catalog`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf catalog c5a
  wharf catalog 'category=c|m' 'cpu>=8' 'memory<=32Gi' arch=amd64
  wharf catalog --region ap-northeast-2 c5a.2xlarge -o json")]
pub(crate) struct CatalogArgs {
    /// EC2 region
    #[arg(long, default_value = "us-east-1", value_name = "REGION")]
    pub(crate) region: String,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: CatalogOutput,
    /// Names, globs or terms such as cpu>=8; all must hold
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
}

/// `wharf token`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curl -sk -H \"Authorization: Bearer $(wharf token)\" https://127.0.0.1:6443/api/v1/nodes")]
pub(crate) struct TokenArgs {
    /// How long it is valid, in real time
    #[arg(long, default_value = "1h", value_name = "SPAN", value_parser = span, allow_hyphen_values = true)]
    pub(crate) ttl: Duration,
    #[command(flatten)]
    pub(crate) lab: LabArgs,
}

/// `wharf verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// What to answer for.
    #[command(subcommand)]
    pub(crate) what: Verifiable,
}

/// What can be verified.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Verifiable {
    /// Filter and score every node for the pods of cases on stdin, one JSON object a line
    #[command(after_help = "Examples:
  wharf verify scheduler < cases.jsonl > answers.jsonl
  zcat cases.jsonl.gz | wharf verify scheduler | jq -c '[.id, .message]'")]
    Scheduler,
    /// Run the passes of HorizontalPodAutoscalers in histories on stdin, one JSON object a line
    #[command(after_help = "Examples:
  zcat histories.jsonl.gz | wharf verify hpa | jq -c '[.id, (.steps | map(.scale))]'")]
    Hpa,
    /// Buy machines for batches of pods on stdin, JSON objects
    #[command(after_help = "Examples:
  zcat case.json.gz | wharf verify provision | jq .usd_per_hour
  zcat case.json.gz | wharf verify provision --packing upstream")]
    Provision {
        /// How pods are packed: `upstream` as Karpenter does, `cost` for the least money
        #[arg(long, value_enum, default_value_t = PackingChoice::Cost)]
        packing: PackingChoice,
    },
    /// Recommend requests for histories of usage on stdin, one JSON object a line
    #[command(after_help = "Examples:
  zcat histories.jsonl.gz | wharf verify vpa | jq -c '[.id, .results[-1].recommendation]'")]
    Vpa,
}

/// `wharf bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharf bench startup\n  wharf bench scheduling SchedulingBasic\n  wharf bench startup -o json"
)]
pub(crate) struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) what: Benchmark,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub(crate) output: Output,
}

/// The benchmarks.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Benchmark {
    /// Time to readiness and resident memory, empty and with objects
    Startup {
        /// How many starts of each kind; the median is told.
        #[arg(long, default_value_t = 5)]
        runs: u32,
        /// How many objects the second start finds.
        #[arg(long, default_value_t = 50_000)]
        objects: u32,
    },
    /// Pods a second on upstream's scheduler_perf workloads, created and bound through the API
    Scheduling(SchedulingArgs),
    /// One round of the autoscalers over many objects, in process
    Autoscale(AutoscaleArgs),
    /// The time to choose machines for a batch of pods, on upstream's benchmark and on one large
    /// deployment
    Solve(SolveArgs),
    /// The time of `simulate` on a scenario
    Simulate {
        /// The scenario.
        file: PathBuf,
        /// How many runs; the median is told.
        #[arg(long, default_value_t = 5)]
        runs: u32,
    },
}

/// `wharf bench autoscale`.
#[derive(Clone, Debug, Args)]
pub(crate) struct AutoscaleArgs {
    /// How many autoscalers there are, each with a workload
    #[arg(long, default_value_t = 10_000)]
    pub(crate) autoscalers: u32,
    /// How many pods the workloads have together
    #[arg(long, default_value_t = 100_000)]
    pub(crate) pods: u32,
    /// How many rounds; the median is told
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: u32,
}

/// How pods are packed on machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PackingChoice {
    /// As Karpenter does
    Upstream,
    /// For the least money
    Cost,
}

impl PackingChoice {
    /// As it is written.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Cost => "cost",
        }
    }
}

/// `wharf bench solve`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  wharf bench solve
  wharf bench solve diverse --pods 2000,20000 --packing upstream
  wharf bench solve inflate -o json")]
pub(crate) struct SolveArgs {
    /// Which pods [default: both]
    #[arg(value_enum)]
    pub(crate) workload: Option<SolveWorkload>,
    /// How many [default: a curve]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = count)]
    pub(crate) pods: Vec<usize>,
    /// How they are packed [default: both]
    #[arg(long, value_enum)]
    pub(crate) packing: Option<PackingChoice>,
    /// How many runs; the median is told
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: u32,
}

/// The pods of `wharf bench solve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SolveWorkload {
    /// Upstream's benchmark: 400 types; plain, zone spread, host spread, affinity, anti-affinity
    Diverse,
    /// One deployment of pods with 1 cpu, and the whole catalogue
    Inflate,
}

impl SolveWorkload {
    /// As it is written.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Diverse => "diverse",
            Self::Inflate => "inflate",
        }
    }
}

/// `wharf bench scheduling`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  wharf bench scheduling                       the workloads that have a goal, at upstream's sizes
  wharf bench scheduling TopologySpreading     one of them
  wharf bench scheduling all --list            their names and sizes
  wharf bench scheduling SchedulingBasic --nodes 1000 --pods 2000
  wharf bench scheduling SchedulingBasic --core
  wharf bench scheduling SchedulingBasic --curve -o json")]
pub(crate) struct SchedulingArgs {
    /// Which, by name; `all` for all [default: those with a goal]
    #[arg(value_name = "WORKLOAD")]
    pub(crate) workloads: Vec<String>,
    /// Only list them
    #[arg(long)]
    pub(crate) list: bool,
    /// Nodes, in place of the workload's; the pods there before keep their share
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) nodes: Option<usize>,
    /// Pods to measure, in place of the workload's
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) pods: Option<usize>,
    /// Clients that create pods at once, each over a connection it keeps
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = count)]
    pub(crate) clients: usize,
    /// A folder for the data directory, which goes afterwards [default: the one for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Measure the scheduler's core alone, without API and disk
    #[arg(long)]
    pub(crate) core: bool,
    /// Measure what a decision of the core costs in clusters of 100 to 50,000 nodes
    #[arg(long, conflicts_with_all = ["core", "nodes", "pods"])]
    pub(crate) curve: bool,
}

/// `wharf version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Output for people or for scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Text,
    /// For scripts
    Json,
}

/// Output of the catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CatalogOutput {
    /// A table
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// For scripts
    Json,
}

fn span(text: &str) -> Result<Duration, String> {
    read_duration(text, "span")
        .map_err(|error| error.strip_prefix("span: ").unwrap_or(&error).to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a number of at least 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// A name under which a scheduler can stand in Events, which is all that limits it.
fn scheduler_name(text: &str) -> Result<String, String> {
    match names::qualified_name(text).into_iter().next() {
        None => Ok(text.to_owned()),
        Some(wrong) => Err(wrong),
    }
}

fn object_key(text: &str) -> Result<ObjectKey, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ObjectKey::namespaced(namespace, name))
        }
        _ => Err("write it as NAMESPACE/NAME, such as kube-system/wharf".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("write a number of requests a second, such as 50; 0 is no limit".to_owned()),
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.replace("localhost:", "127.0.0.1:");
    text.parse().map_err(|_| "write it as ADDRESS:PORT, such as 127.0.0.1:6443".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_parses_as_documented() {
        for line in [
            "wharf up --listen 127.0.0.1:0 --ephemeral --speed 60 --region us-east-1 --seed 3 --scheduler-config s.yaml -v -- kubectl get pods",
            "wharf up --controllers none",
            "wharf run --only scheduler --scheduler-name wharf-scheduler --qps 0 --burst 10 -v",
            "wharf run --cloud sim --kubeconfig f --context c --leader-elect --lease a/b",
            "wharf run --only scheduler --config f",
            "wharf demo",
            "wharf clock",
            "wharf clock pause",
            "wharf clock step 10m",
            "wharf clock speed 60",
            "wharf simulate f.yaml --until 2h --seed 1 -o json",
            "wharf why pod/x -n n --nodes",
            "wharf catalog --region us-east-1 -o wide c5a",
            "wharf token --ttl 1h",
            "wharf version",
            "wharf completions bash",
            "wharf bench startup",
            "wharf bench scheduling SchedulingBasic --nodes 10 --pods 5 --core -o json",
            "wharf bench scheduling all --list",
            "wharf bench solve diverse --pods 100,200 --packing cost --runs 1",
            "wharf verify scheduler",
            "wharf verify provision --packing upstream",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "wharf up --speed 0",
            "wharf up --speed 1001",
            "wharf up --data d --ephemeral",
            "wharf up --listen nowhere",
            "wharf run",
            "wharf run --only scheduler --config f --scheduler-name n",
            "wharf run --only scheduler --scheduler-name ",
            "wharf run --only scheduler --scheduler-name mine!",
            "wharf run --only scheduler --lease wharf",
            "wharf run --only scheduler --qps -1",
            "wharf clock step soon",
            "wharf bench scheduling --pods 0",
            "wharf bench scheduling --curve --nodes 5",
            "wharf",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
