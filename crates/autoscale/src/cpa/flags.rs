//! The flags of the `cluster-proportional-autoscaler` program, and what it says when they are wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use wharf_model::selector::Selector;

/// What the program was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// Where targets and ConfigMap are.
    pub namespace: String,
    /// The name of the ConfigMap with the parameters.
    pub config_map: String,
    /// What is scaled, in this order.
    pub targets: Vec<Target>,
    /// The targets as they were given, in lower case.
    pub target: String,
    /// What the ConfigMap is made of when it cannot be read.
    pub default_params: Option<BTreeMap<String, String>>,
    /// Which nodes count.
    pub node_labels: Selector,
    /// How often it looks.
    pub poll_period: Duration,
    /// After how many failures in a row it gives up; 0 is never.
    pub max_sync_failures: u32,
    /// Up to which level its log goes.
    pub verbosity: i64,
    /// Whether what is no error is seen in its container's log; otherwise it goes to files.
    pub logs_everything: bool,
}

/// A workload to be scaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
}

/// What can be scaled. (The program refuses StatefulSets.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A Deployment.
    Deployment,
    /// A ReplicationController.
    ReplicationController,
    /// A ReplicaSet.
    ReplicaSet,
}

/// Why the program ends as soon as it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such flag, or its value is of another type: told without a log's head.
    Usage(String),
    /// What does not hold of the values, one log line each.
    Invalid(Vec<String>),
}

const KINDS: [(&str, TargetKind); 3] = [
    ("deployment/", TargetKind::Deployment),
    ("replicationcontroller/", TargetKind::ReplicationController),
    ("replicaset/", TargetKind::ReplicaSet),
];
/// Flags that may stand without a value.
const SWITCHES: [&str; 3] = ["logtostderr", "alsologtostderr", "version"];
/// Flags that are taken without effect here: where files go and traces are printed.
const OTHERS: [&str; 8] = [
    "log-dir",
    "log-link",
    "logbuflevel",
    "log-backtrace-at",
    "stderrthreshold",
    "vmodule",
    "v",
    "max-sync-failures",
];
const POLL_PERIOD_SECONDS: i64 = 10;

impl TargetKind {
    /// As it is written in a target.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::ReplicationController => "replicationcontroller",
            Self::ReplicaSet => "replicaset",
        }
    }
}

impl Flags {
    /// Reads a program's arguments. The namespace in its environment (`MY_POD_NAMESPACE`) holds where
    /// no flag says otherwise.
    ///
    /// # Errors
    /// What the program says before it ends.
    pub fn parse(arguments: &[String], namespace: Option<&str>) -> Result<Self, Refusal> {
        let given = split(arguments)?;
        let text = |name: &str| given.get(name).cloned().unwrap_or_default();
        let number = |name: &str, default: i64| {
            match given.get(name) {
            None => Ok(default),
            Some(text) => text.parse::<i64>().map_err(|_| {
                Refusal::Usage(format!(
                    "invalid argument {text:?} for \"--{name}\" flag: strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            }),
        }
        };
        let switch = |name: &str| given.get(name).is_some_and(|text| text != "false");
        let default_params = given.get("default-params").map(|text| defaults(text)).transpose()?;
        let node_labels = Selector::parse(&text("nodelabels")).map_err(|error| {
            Refusal::Usage(format!("invalid argument for \"--nodelabels\" flag: {error}"))
        })?;
        let (seconds, failures, verbosity) = (
            number("poll-period-seconds", POLL_PERIOD_SECONDS)?,
            number("max-sync-failures", 0)?,
            number("v", 0)?,
        );
        let mut wrong = Vec::new();
        let target = text("target").to_lowercase();
        let targets = targets(&target).unwrap_or_else(|error| {
            wrong.push(error);
            Vec::new()
        });
        let config_map = text("configmap");
        if config_map.is_empty() {
            wrong.push("--configmap parameter cannot be empty".to_owned());
        }
        let namespace = given.get("namespace").map(String::as_str).or(namespace);
        let namespace = namespace.unwrap_or_default().to_owned();
        if namespace.is_empty() {
            wrong.push("--namespace parameter not set and failed to fallback".to_owned());
        }
        let poll_period = u64::try_from(seconds).unwrap_or(0);
        if poll_period == 0 {
            wrong.push("--poll-period-seconds cannot be less than 1".to_owned());
        }
        if !wrong.is_empty() {
            wrong.push("failed to validate all input parameters".to_owned());
            return Err(Refusal::Invalid(wrong));
        }
        Ok(Self {
            namespace,
            config_map,
            targets,
            target,
            default_params,
            node_labels,
            poll_period: Duration::from_secs(poll_period),
            max_sync_failures: u32::try_from(failures).unwrap_or(0),
            verbosity,
            logs_everything: switch("logtostderr") || switch("alsologtostderr"),
        })
    }
}

/// Flags and their values: `--name=value`, `--name value`, and switches alone. Underscores in names
/// are dashes, and the last of several counts.
fn split(arguments: &[String]) -> Result<BTreeMap<String, String>, Refusal> {
    const KNOWN: [&str; 6] =
        ["target", "configmap", "namespace", "poll-period-seconds", "default-params", "nodelabels"];
    let mut given = BTreeMap::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
            continue;
        };
        if flag.is_empty() {
            break;
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let name = name.replace('_', "-");
        let is_switch = SWITCHES.contains(&name.as_str());
        if !is_switch && !KNOWN.contains(&name.as_str()) && !OTHERS.contains(&name.as_str()) {
            return Err(Refusal::Usage(format!("unknown flag: --{name}")));
        }
        let value = match value {
            Some(value) => value,
            None if is_switch => "true".to_owned(),
            None => rest
                .next()
                .cloned()
                .ok_or_else(|| Refusal::Usage(format!("flag needs an argument: --{name}")))?,
        };
        given.insert(name, value);
    }
    Ok(given)
}

/// `{"linear": {…}}` as a ConfigMap's data: the text of each value.
fn defaults(text: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let map: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        Refusal::Usage(format!("invalid argument {text:?} for \"--default-params\" flag: {error}"))
    })?;
    Ok(map.into_iter().map(|(mode, parameters)| (mode, parameters.to_string())).collect())
}

fn targets(target: &str) -> Result<Vec<Target>, String> {
    if target.is_empty() {
        return Err("--target parameter cannot be empty".to_owned());
    }
    let read = |one: &str| {
        let one = one.trim();
        let found =
            KINDS.iter().find_map(|(prefix, kind)| Some((*kind, one.strip_prefix(*prefix)?)));
        found.map(|(kind, name)| Target { kind, name: name.to_owned() })
    };
    target.split(',').map(read).collect::<Option<_>>().ok_or_else(|| {
        "Target format error. Please use 'deployment/*,replicationcontroller/*,replicaset/*' (not case sensitive, comma delimiter supported).".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Flags, Refusal> {
        let arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Flags::parse(&arguments, None)
    }

    #[test]
    fn flags_are_read_in_all_their_forms() {
        let flags = parse(
            "--configmap=cpa --namespace kube-system --target=Deployment/CoreDNS,replicaset/b \
             --logtostderr --v=2 --poll_period_seconds=5 --max-sync-failures=3 --nodelabels=a=b \
             --default-params={\"linear\":{\"nodesPerReplica\":2}}",
        )
        .unwrap();
        let target = |kind, name: &str| Target { kind, name: name.to_owned() };
        assert_eq!(
            flags,
            Flags {
                namespace: "kube-system".to_owned(),
                config_map: "cpa".to_owned(),
                targets: vec![
                    target(TargetKind::Deployment, "coredns"),
                    target(TargetKind::ReplicaSet, "b")
                ],
                target: "deployment/coredns,replicaset/b".to_owned(),
                default_params: Some(
                    [("linear".to_owned(), r#"{"nodesPerReplica":2}"#.to_owned())].into()
                ),
                node_labels: Selector::parse("a=b").unwrap(),
                poll_period: Duration::from_secs(5),
                max_sync_failures: 3,
                verbosity: 2,
                logs_everything: true,
            }
        );
        let plain = parse("--configmap=c --namespace=n --target=deployment/d").unwrap();
        assert_eq!(plain.poll_period, Duration::from_secs(10));
        assert_eq!((plain.max_sync_failures, plain.logs_everything), (0, false));
        let own =
            Flags::parse(&["--configmap=c".into(), "--target=deployment/d".into()], Some("x"));
        assert_eq!(own.unwrap().namespace, "x");
    }

    #[test]
    fn what_is_wrong_is_told_at_once_in_upstreams_words() {
        let format = "Target format error. Please use 'deployment/*,replicationcontroller/*,replicaset/*' (not case sensitive, comma delimiter supported).";
        let end = "failed to validate all input parameters";
        for (text, expected) in [
            (
                "--poll-period-seconds=0",
                vec![
                    "--target parameter cannot be empty",
                    "--configmap parameter cannot be empty",
                    "--namespace parameter not set and failed to fallback",
                    "--poll-period-seconds cannot be less than 1",
                    end,
                ],
            ),
            ("--target=statefulset/a --configmap=c --namespace=n", vec![format, end]),
            ("--target=deployment/a,b --configmap=c --namespace=n", vec![format, end]),
        ] {
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(parse(text), Err(Refusal::Invalid(expected)), "{text}");
        }
        for (text, expected) in [
            ("--targets=a", "unknown flag: --targets"),
            ("--target", "flag needs an argument: --target"),
        ] {
            assert_eq!(parse(text), Err(Refusal::Usage(expected.to_owned())));
        }
        for text in ["--v=high", "--default-params=[1]", "--nodelabels=a!!b"] {
            assert!(matches!(parse(text), Err(Refusal::Usage(_))), "{text}");
        }
    }
}
