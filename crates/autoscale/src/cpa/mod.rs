//! The Cluster Proportional Autoscaler: replicas by the number of nodes and cores, as its 1.9 line
//! computes them. Parameters come as the one entry of a ConfigMap's data, `linear` or `ladder`; the
//! program's own flags are in [`flags`].

pub mod container;
pub mod flags;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use serde::Deserialize;
use wharf_model::quantity::Quantity;

/// How large the cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterSize {
    /// All nodes.
    pub nodes: i64,
    /// Their cores.
    pub cores: i64,
    /// Nodes that are ready and not cordoned.
    pub schedulable_nodes: i64,
    /// Their cores.
    pub schedulable_cores: i64,
}

impl ClusterSize {
    /// Counts nodes. Cores are summed as they are, and rounded up once.
    pub fn of<'n>(nodes: impl IntoIterator<Item = &'n Node>) -> Self {
        let mut size = Self::default();
        let (mut cores, mut schedulable) = (Quantity::ZERO, Quantity::ZERO);
        for node in nodes {
            let own = cpu(node);
            size.nodes += 1;
            cores = cores.add(&own);
            if is_schedulable(node) {
                size.schedulable_nodes += 1;
                schedulable = schedulable.add(&own);
            }
        }
        Self { cores: cores.value_ceil(), schedulable_cores: schedulable.value_ceil(), ..size }
    }

    fn counted(self, all: bool) -> (i64, i64) {
        if all {
            (self.nodes, self.cores)
        } else {
            (self.schedulable_nodes, self.schedulable_cores)
        }
    }
}

fn cpu(node: &Node) -> Quantity {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let cpu = allocatable.and_then(|list| list.get("cpu"));
    cpu.and_then(|cpu| Quantity::try_from(cpu).ok()).unwrap_or_default()
}

/// Taints do not count.
fn is_schedulable(node: &Node) -> bool {
    let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    !cordoned && conditions.into_iter().any(|item| item.type_ == "Ready" && item.status == "True")
}

/// What is wrong with a ConfigMap. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// Not exactly one entry.
    #[error("invalid configMap format, expected only one entry, got: {0}")]
    Entries(String),
    /// An entry of another name.
    #[error("not a supported control mode: {0}")]
    Mode(String),
    /// The entry's text is not its JSON.
    #[error("error parsing {mode} params: could not parse parameters ({error})")]
    Json {
        /// The mode.
        mode: &'static str,
        /// The decoder's text.
        error: String,
    },
    /// A value that cannot be.
    #[error("error parsing {mode} params: {error}")]
    Value {
        /// The mode.
        mode: &'static str,
        /// What is wrong.
        error: String,
    },
}

/// How replicas follow from the cluster's size.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameters {
    /// So many for each so many nodes or cores.
    Linear(Linear),
    /// Steps.
    Ladder(Ladder),
}

/// The linear mode.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linear {
    cores_per_replica: f64,
    nodes_per_replica: f64,
    min: i64,
    max: i64,
    prevent_single_point_failure: bool,
    include_unschedulable_nodes: bool,
}

/// The ladder mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ladder {
    cores_to_replicas: Vec<(i64, i64)>,
    nodes_to_replicas: Vec<(i64, i64)>,
    include_unschedulable_nodes: bool,
}

impl ParameterError {
    /// How the program tells of it.
    pub fn told(&self) -> String {
        match self {
            Self::Entries(_) | Self::Mode(_) => self.to_string(),
            Self::Json { .. } | Self::Value { .. } => {
                format!("Error syncing configMap with controller: {self}")
            }
        }
    }
}

impl Parameters {
    /// The mode's name.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Linear(_) => "linear",
            Self::Ladder(_) => "ladder",
        }
    }

    /// Reads a ConfigMap's data.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, ParameterError> {
        let mut entries = data.iter();
        let (Some((mode, text)), None) = (entries.next(), entries.next()) else {
            return Err(ParameterError::Entries(in_go(data)));
        };
        match mode.as_str() {
            "linear" => Linear::read(text).map(Self::Linear),
            "ladder" => Ladder::read(text).map(Self::Ladder),
            _ => Err(ParameterError::Mode(mode.clone())),
        }
    }

    /// How many replicas a cluster of that size needs.
    pub fn replicas(&self, size: ClusterSize) -> i32 {
        let replicas = match self {
            Self::Linear(linear) => linear.replicas(size),
            Self::Ladder(ladder) => ladder.replicas(size),
        };
        i32::try_from(replicas).unwrap_or(i32::MAX)
    }
}

impl Linear {
    fn read(text: &str) -> Result<Self, ParameterError> {
        const MODE: &str = "linear";
        let mut linear: Self = json(MODE, text)?;
        let refuse = |error: String| Err(ParameterError::Value { mode: MODE, error });
        if linear.min < 0 {
            return refuse(format!("invalid negative value for min: {}", linear.min));
        }
        if linear.min == 0 {
            linear.min = 1;
        }
        if linear.max != 0 && linear.max < linear.min {
            return refuse(format!(
                "max replicas count {} should be greater than / equal to min replicas count {}",
                linear.max, linear.min
            ));
        }
        if linear.cores_per_replica == 0.0 && linear.nodes_per_replica == 0.0 {
            return refuse("should at least provide either CoresPerReplica or NodesPerReplica (Greater than 0)".to_owned());
        }
        for (name, value) in [
            ("coresPerReplica", linear.cores_per_replica),
            ("nodesPerReplica", linear.nodes_per_replica),
        ] {
            if value < 0.0 {
                return refuse(format!("invalid negative value for {name}: {value}"));
            }
        }
        Ok(linear)
    }

    fn replicas(&self, size: ClusterSize) -> i64 {
        let (nodes, cores) = size.counted(self.include_unschedulable_nodes);
        let by_cores = self.by(cores, self.cores_per_replica);
        let mut by_nodes = self.by(nodes, self.nodes_per_replica);
        // After the limits, so that it may pass the highest.
        if self.prevent_single_point_failure && nodes > 1 {
            by_nodes = by_nodes.max(2);
        }
        by_cores.max(by_nodes)
    }

    fn by(&self, amount: i64, per_replica: f64) -> i64 {
        if per_replica == 0.0 {
            return 1;
        }
        // The cast saturates.
        let wanted = (amount as f64 / per_replica).ceil() as i64;
        let wanted = if self.max == 0 { wanted } else { wanted.min(self.max) };
        wanted.max(self.min)
    }
}

impl Ladder {
    fn read(text: &str) -> Result<Self, ParameterError> {
        const MODE: &str = "ladder";
        let mut ladder: Self = json(MODE, text)?;
        for (name, steps) in [
            ("cores_to_replicas_map", &mut ladder.cores_to_replicas),
            ("nodes_to_replicas_map", &mut ladder.nodes_to_replicas),
        ] {
            if let Some((from, replicas)) =
                steps.iter().find(|(from, replicas)| *from < 0 || *replicas < 0)
            {
                return Err(ParameterError::Value {
                    mode: MODE,
                    error: format!(
                        "invalid negative values in entry [{from} {replicas}] in {name}"
                    ),
                });
            }
            steps.sort_by_key(|(from, _)| *from);
        }
        Ok(ladder)
    }

    fn replicas(&self, size: ClusterSize) -> i64 {
        let (nodes, cores) = size.counted(self.include_unschedulable_nodes);
        step(&self.cores_to_replicas, cores).max(step(&self.nodes_to_replicas, nodes))
    }
}

/// The last step that is reached; below the first one, the first.
fn step(steps: &[(i64, i64)], amount: i64) -> i64 {
    let reached = steps.iter().rev().find(|(from, _)| *from <= amount).or(steps.first());
    reached.map_or(0, |(_, replicas)| *replicas)
}

fn json<'t, T: Deserialize<'t>>(mode: &'static str, text: &'t str) -> Result<T, ParameterError> {
    serde_json::from_str(text)
        .map_err(|error| ParameterError::Json { mode, error: error.to_string() })
}

/// A map as Go prints it.
fn in_go(data: &BTreeMap<String, String>) -> String {
    let entries: Vec<_> = data.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("map[{}]", entries.join(" "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(mode: &str, text: &str) -> Result<Parameters, ParameterError> {
        Parameters::read(&[(mode.to_owned(), text.to_owned())].into())
    }

    fn size(nodes: i64, cores: i64) -> ClusterSize {
        ClusterSize { nodes, cores, schedulable_nodes: nodes, schedulable_cores: cores }
    }

    #[test]
    fn replicas_follow_the_size() {
        for (mode, text, nodes, cores, expected) in [
            ("linear", r#"{"coresPerReplica": 2, "nodesPerReplica": 1}"#, 4, 13, 7),
            (
                "linear",
                r#"{"nodesPerReplica": 10, "max": 1, "preventSinglePointFailure": true}"#,
                2,
                4,
                2,
            ),
            ("linear", r#"{"nodesPerReplica": 10, "min": 3}"#, 2, 4, 3),
            ("linear", r#"{"coresPerReplica": 4, "max": 5, "unknown": 1}"#, 10, 100, 5),
            (
                "ladder",
                r#"{"coresToReplicas": [[1,1],[64,3],[512,5]], "nodesToReplicas": [[1,1],[2,2]]}"#,
                100,
                400,
                3,
            ),
            ("ladder", r#"{"nodesToReplicas": [[5,4],[3,2]]}"#, 1, 0, 2),
            ("ladder", r#"{"nodesToReplicas": [[0,0],[3,2]]}"#, 1, 0, 0),
            ("ladder", "{}", 9, 9, 0),
        ] {
            let parameters = read(mode, text).unwrap();
            assert_eq!(parameters.replicas(size(nodes, cores)), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_in_upstreams_words() {
        for (mode, text, expected) in [
            (
                "linear",
                "{}",
                "error parsing linear params: should at least provide either CoresPerReplica or NodesPerReplica (Greater than 0)",
            ),
            (
                "linear",
                r#"{"min": -1}"#,
                "error parsing linear params: invalid negative value for min: -1",
            ),
            (
                "linear",
                r#"{"min": 3, "max": 2}"#,
                "error parsing linear params: max replicas count 2 should be greater than / equal to min replicas count 3",
            ),
            (
                "linear",
                r#"{"coresPerReplica": -2}"#,
                "error parsing linear params: invalid negative value for coresPerReplica: -2",
            ),
            (
                "ladder",
                r#"{"coresToReplicas": [[-1,1]]}"#,
                "error parsing ladder params: invalid negative values in entry [-1 1] in cores_to_replicas_map",
            ),
            ("curve", "{}", "not a supported control mode: curve"),
        ] {
            assert_eq!(read(mode, text).unwrap_err().to_string(), expected);
        }
        let error = read("ladder", "{").unwrap_err().to_string();
        assert!(error.starts_with("error parsing ladder params: could not parse parameters ("));
        let none = Parameters::read(&BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(none, "invalid configMap format, expected only one entry, got: map[]");
    }

    #[test]
    fn cores_are_rounded_up_once() {
        let node = |cpu: &str, ready: &str, cordoned: bool| -> Node {
            serde_json::from_value(serde_json::json!({
                "spec": {"unschedulable": cordoned},
                "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]}
            }))
            .unwrap()
        };
        let nodes = [
            node("1930m", "True", false),
            node("1930m", "True", false),
            node("2", "False", false),
            node("2", "True", true),
        ];
        let expected =
            ClusterSize { nodes: 4, cores: 8, schedulable_nodes: 2, schedulable_cores: 4 };
        assert_eq!(ClusterSize::of(&nodes), expected);
    }

    proptest! {
        /// A larger cluster never gets fewer replicas, and limits hold where nothing overrides
        /// them.
        #[test]
        fn linear_is_monotone_and_limited(
            cores in 0..10_000_i64, more in 0..10_000_i64, per in 1..64, min in 1..10_i64, room in 0..20_i64,
        ) {
            let max = min + room;
            let text = format!(r#"{{"coresPerReplica": {per}, "min": {min}, "max": {max}}}"#);
            let parameters = read("linear", &text).unwrap();
            let low = parameters.replicas(size(3, cores));
            let high = parameters.replicas(size(3, cores + more));
            prop_assert!(low <= high && i64::from(low) >= min && i64::from(high) <= max);
        }
    }
}
