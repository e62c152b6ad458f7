//! Scenario files (`wharf.dev/v1alpha1`, kind `Scenario`): manifests that are there at the start,
//! and a list of timed steps.
//!
//! ```yaml
//! apiVersion: wharf.dev/v1alpha1
//! kind: Scenario
//! metadata: {name: inflate}
//! spec:
//!   until: 30m
//!   manifests:
//!     - file: nodepool.yaml        # relative to the scenario file
//!   steps:
//!     - {at: 10s, scale: deployment/inflate, replicas: 5}
//!     - {at: 5m, apply: [{file: memory-demo-3.yaml}]}
//!     - {at: 20m, delete: deployment/inflate}
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use wharf_model::duration;
use wharf_model::kinds::{Kind, built_in};
use wharf_model::object::ObjectKey;

use crate::config::{self, ClusterConfig};

/// The API version of scenario files.
pub const API_VERSION: &str = "wharf.dev/v1alpha1";
/// Steps a scenario may have: more is a mistake, and is refused before anything runs.
const STEPS_MAX: usize = 100_000;

/// Why a scenario cannot be used. The text names the file, the place in it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// A file cannot be read.
    #[error("{file}: {error}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: String,
    },
    /// The file is not a scenario.
    #[error("{file}: {error}")]
    Invalid {
        /// The file.
        file: PathBuf,
        /// What is wrong, with line and column where known.
        error: String,
    },
}

/// A scenario, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The region, if it names one.
    pub region: Option<String>,
    /// The seed, if it names one.
    pub seed: Option<u64>,
    /// How long to run, if it says so.
    pub until: Option<Duration>,
    /// The cluster that an eksctl file describes, if it names one.
    pub cluster: Option<ClusterConfig>,
    /// What is there at the start.
    pub manifests: Vec<Manifest>,
    /// What is done when, in the order of time.
    pub steps: Vec<Step>,
}

/// A YAML text with one or more objects, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The file for messages; the scenario itself for inline manifests.
    pub source: String,
    /// The YAML (or JSON) text.
    pub text: String,
}

/// A timed step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When, counted from the start.
    pub at: Duration,
    /// What is done.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates or updates objects, as `kubectl apply` does.
    Apply(Vec<Manifest>),
    /// Sets the replicas of a workload, as `kubectl scale` does.
    Scale {
        /// The workload.
        target: Target,
        /// The wanted number of pods.
        replicas: i32,
    },
    /// Deletes an object, as `kubectl delete` does.
    Delete(Target),
}

/// An object named as on kubectl's command line: `deployment/inflate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its key; the namespace defaults to `default`.
    pub key: ObjectKey,
}

impl Target {
    /// Reads `TYPE/NAME` with kubectl's resource names, short names included.
    ///
    /// # Errors
    /// A text that says what was expected.
    pub fn parse(text: &str, namespace: Option<&str>) -> Result<Self, String> {
        let Some((resource, name)) = text.split_once('/') else {
            return Err(format!(
                "{text:?} is not of the form TYPE/NAME, such as deployment/inflate"
            ));
        };
        let wanted = resource.to_lowercase();
        let (wanted, group) =
            wanted.split_once('.').map_or((wanted.as_str(), None), |(w, group)| (w, Some(group)));
        let kind = built_in().iter().copied().find(|kind| {
            (kind.plural == wanted || kind.singular == wanted || kind.short_names.contains(&wanted))
                && group.is_none_or(|group| kind.group == group)
        });
        let Some(kind) = kind else {
            let known: Vec<&str> = built_in().iter().map(|kind| kind.singular).collect();
            return Err(format!(
                "unknown resource type {resource:?}; known are {}",
                known.join(", ")
            ));
        };
        if name.is_empty() || name.contains('/') {
            return Err(format!("{text:?} names no object; write {}/NAME", kind.singular));
        }
        let key = if kind.namespaced {
            ObjectKey::namespaced(namespace.unwrap_or("default"), name)
        } else {
            ObjectKey::cluster(name)
        };
        Ok(Self { kind, key })
    }
}

/// Reads a scenario file and the manifest files it names.
///
/// # Errors
/// If a file cannot be read, is not a scenario, or has a step that makes no sense.
pub fn load(file: &Path) -> Result<Scenario, ScenarioError> {
    let text = read(file)?;
    parse(&text, file)
}

/// Reads a scenario from its text; `file` is for messages and for the files it names.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, file: &Path) -> Result<Scenario, ScenarioError> {
    let invalid = |error: String| ScenarioError::Invalid { file: file.to_owned(), error };
    let raw: wire::Scenario =
        serde_saphyr::from_str(text).map_err(|error| invalid(one_line(&error.to_string())))?;
    if raw.api_version != API_VERSION || raw.kind != "Scenario" {
        return Err(invalid(format!(
            "apiVersion {:?} and kind {:?} are not a scenario; write apiVersion: {API_VERSION} and kind: Scenario",
            raw.api_version, raw.kind
        )));
    }
    if raw.spec.steps.len() > STEPS_MAX {
        return Err(invalid(format!("spec.steps: more than {STEPS_MAX} steps")));
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    let cluster = match &raw.spec.cluster_config {
        Some(given) => Some(read_cluster(given, raw.spec.region.as_deref(), folder, file)?),
        None => None,
    };
    let manifests = read_manifests(&raw.spec.manifests, folder, file, "spec.manifests")?;
    let mut steps = Vec::with_capacity(raw.spec.steps.len());
    for (index, step) in raw.spec.steps.iter().enumerate() {
        let path = format!("spec.steps[{index}]");
        steps.push(read_step(step, &path, folder, file)?);
    }
    // Stable: steps at one moment keep the order of the file.
    steps.sort_by_key(|step| step.at);
    let until = raw
        .spec
        .until
        .as_deref()
        .map(|text| read_duration(text, "spec.until"))
        .transpose()
        .map_err(invalid)?;
    Ok(Scenario {
        name: raw.metadata.name,
        region: raw.spec.region,
        seed: raw.spec.seed,
        until,
        cluster,
        manifests,
        steps,
    })
}

fn read_cluster(
    given: &wire::Manifest,
    region: Option<&str>,
    folder: &Path,
    file: &Path,
) -> Result<ClusterConfig, ScenarioError> {
    const FIELD: &str = "spec.clusterConfig";
    let invalid = |error: String| ScenarioError::Invalid { file: file.to_owned(), error };
    let given = read_manifests(std::slice::from_ref(given), folder, file, FIELD)?.remove(0);
    let cluster = config::load(&given.text, &given.source).map_err(|error| {
        // Places of what is written inline are not those of the file.
        match given.source.ends_with(".inline") {
            true => invalid(format!("{FIELD}.inline: {}", error.says)),
            false => invalid(error.to_string()),
        }
    })?;
    match region {
        Some(region) if region != cluster.region => Err(invalid(format!(
            "spec.region: is {region}, and {FIELD} says {}; leave one of them out",
            cluster.region
        ))),
        _ => Ok(cluster),
    }
}

fn read_step(
    step: &wire::Step,
    path: &str,
    folder: &Path,
    file: &Path,
) -> Result<Step, ScenarioError> {
    let invalid = |error: String| ScenarioError::Invalid { file: file.to_owned(), error };
    let at = read_duration(&step.at, &format!("{path}.at")).map_err(invalid)?;
    let namespace = step.namespace.as_deref();
    let target = |text: &str, field: &str| {
        Target::parse(text, namespace).map_err(|error| invalid(format!("{path}.{field}: {error}")))
    };
    let action = match (&step.apply, &step.scale, &step.delete) {
        (Some(manifests), None, None) => {
            Action::Apply(read_manifests(manifests, folder, file, &format!("{path}.apply"))?)
        }
        (None, Some(scale), None) => {
            let Some(replicas) = step.replicas else {
                return Err(invalid(format!(
                    "{path}: scale needs the number of pods; add replicas: N"
                )));
            };
            if replicas < 0 {
                return Err(invalid(format!("{path}.replicas: {replicas} is less than 0")));
            }
            let target = target(scale, "scale")?;
            if !matches!(target.kind.kind, "Deployment" | "ReplicaSet") {
                return Err(invalid(format!(
                    "{path}.scale: a {} has no replicas; scale a deployment or replicaset",
                    target.kind.singular
                )));
            }
            Action::Scale { target, replicas }
        }
        (None, None, Some(delete)) => Action::Delete(target(delete, "delete")?),
        (None, None, None) => {
            return Err(invalid(format!(
                "{path}: does nothing; give it one of apply, scale or delete"
            )));
        }
        _ => {
            return Err(invalid(format!(
                "{path}: has more than one of apply, scale and delete; make a step of each"
            )));
        }
    };
    if step.replicas.is_some() && step.scale.is_none() {
        return Err(invalid(format!("{path}.replicas: only goes with scale")));
    }
    Ok(Step { at, action })
}

fn read_manifests(
    manifests: &[wire::Manifest],
    folder: &Path,
    file: &Path,
    path: &str,
) -> Result<Vec<Manifest>, ScenarioError> {
    let invalid = |error: String| ScenarioError::Invalid { file: file.to_owned(), error };
    let mut read_ones = Vec::with_capacity(manifests.len());
    for (index, manifest) in manifests.iter().enumerate() {
        read_ones.push(match (&manifest.file, &manifest.inline) {
            (Some(name), None) => {
                let named = folder.join(name);
                Manifest { text: read(&named)?, source: named.display().to_string() }
            }
            (None, Some(inline)) => Manifest {
                // JSON is YAML: the inline object needs no second form.
                text: inline.to_string(),
                source: format!("{} {path}[{index}].inline", file.display()),
            },
            _ => {
                return Err(invalid(format!(
                    "{path}[{index}]: give it either file: NAME or inline: OBJECT"
                )));
            }
        });
    }
    Ok(read_ones)
}

/// Reads a positive Go duration.
///
/// # Errors
/// A text that names the field and shows how durations are written.
pub fn read_duration(text: &str, field: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(nanos) => u64::try_from(nanos)
            .map(Duration::from_nanos)
            .map_err(|_| format!("{field}: {text:?} lies in the past; write 0s or more")),
        Err(_) => {
            Err(format!("{field}: {text:?} is not a duration; write it as 90s, 10m or 1h30m"))
        }
    }
}

fn read(file: &Path) -> Result<String, ScenarioError> {
    std::fs::read_to_string(file).map_err(|error| ScenarioError::Unreadable {
        file: file.to_owned(),
        error: error.to_string(),
    })
}

/// The first line of a parser's message; what follows is its excerpt of the file.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
}

/// The file as written.
mod wire {
    use super::Deserialize;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Scenario {
        #[serde(default)]
        pub(super) api_version: String,
        #[serde(default)]
        pub(super) kind: String,
        #[serde(default)]
        pub(super) metadata: Metadata,
        pub(super) spec: Spec,
    }

    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Metadata {
        #[serde(default)]
        pub(super) name: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Spec {
        #[serde(default)]
        pub(super) region: Option<String>,
        #[serde(default)]
        pub(super) seed: Option<u64>,
        #[serde(default)]
        pub(super) until: Option<String>,
        #[serde(default, rename = "clusterConfig")]
        pub(super) cluster_config: Option<Manifest>,
        #[serde(default)]
        pub(super) manifests: Vec<Manifest>,
        #[serde(default)]
        pub(super) steps: Vec<Step>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Manifest {
        #[serde(default)]
        pub(super) file: Option<String>,
        #[serde(default)]
        pub(super) inline: Option<serde_json::Value>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Step {
        pub(super) at: String,
        #[serde(default)]
        pub(super) namespace: Option<String>,
        #[serde(default)]
        pub(super) apply: Option<Vec<Manifest>>,
        #[serde(default)]
        pub(super) scale: Option<String>,
        #[serde(default)]
        pub(super) replicas: Option<i32>,
        #[serde(default)]
        pub(super) delete: Option<String>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(steps: &str) -> Result<Scenario, String> {
        let text = format!(
            "apiVersion: wharf.dev/v1alpha1\nkind: Scenario\nmetadata: {{name: t}}\nspec:\n  until: 30m\n  steps:\n{steps}"
        );
        parse(&text, Path::new("t.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn steps_are_read_and_sorted_by_time() {
        let scenario = parsed(
            "    - {at: 5m, delete: deploy/inflate}\n    - {at: 10s, scale: deployment/inflate, replicas: 5, namespace: n}\n",
        )
        .expect("a valid scenario");
        assert_eq!(scenario.until, Some(Duration::from_secs(1_800)));
        let Action::Scale { target, replicas: 5 } = &scenario.steps[0].action else {
            panic!("the scale step comes first: {:?}", scenario.steps)
        };
        assert_eq!(target.key.to_string(), "n/inflate");
        assert!(
            matches!(&scenario.steps[1].action, Action::Delete(target) if target.kind.kind == "Deployment")
        );
    }

    #[test]
    fn each_mistake_is_named_with_its_place() {
        for (steps, expected) in [
            ("    - {at: 5x, delete: deploy/a}\n", "spec.steps[0].at: \"5x\" is not a duration"),
            ("    - {at: -5s, delete: deploy/a}\n", "lies in the past"),
            ("    - {at: 5s}\n", "spec.steps[0]: does nothing"),
            ("    - {at: 5s, scael: deploy/a}\n", "scael"),
            ("    - {at: 5s, scale: deploy/a}\n", "add replicas: N"),
            ("    - {at: 5s, scale: pod/a, replicas: 1}\n", "has no replicas"),
            ("    - {at: 5s, scale: deploy/a, replicas: -1}\n", "less than 0"),
            ("    - {at: 5s, delete: thing/a}\n", "unknown resource type \"thing\""),
            ("    - {at: 5s, delete: deploy}\n", "not of the form TYPE/NAME"),
            ("    - {at: 5s, delete: deploy/a, scale: deploy/a}\n", "more than one of"),
            ("    - {at: 5s, delete: deploy/a, replicas: 1}\n", "only goes with scale"),
            ("    - {at: 5s, apply: [{}]}\n", "spec.steps[0].apply[0]: give it either"),
        ] {
            let error = parsed(steps).expect_err(steps);
            assert!(error.contains(expected), "{steps} gave {error}");
            assert!(error.starts_with("t.yaml: "), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_cluster_comes_with_its_region() {
        let with = |spec: &str| {
            let text = format!(
                "apiVersion: wharf.dev/v1alpha1\nkind: Scenario\nspec:\n{spec}  clusterConfig:\n    inline:\n      apiVersion: eksctl.io/v1alpha5\n      kind: ClusterConfig\n      metadata: {{name: c, region: eu-west-1}}\n"
            );
            parse(&text, Path::new("t.yaml")).map_err(|error| error.to_string())
        };
        let cluster = with("").expect("a scenario").cluster.expect("its cluster");
        assert_eq!((cluster.region.as_str(), cluster.cluster.name.as_str()), ("eu-west-1", "c"));
        let error = with("  region: us-east-1\n").expect_err("two regions");
        assert_eq!(
            error,
            "t.yaml: spec.region: is us-east-1, and spec.clusterConfig says eu-west-1; leave one of them out"
        );
        let typo = "apiVersion: wharf.dev/v1alpha1\nkind: Scenario\nspec:\n  clusterConfig:\n    inline: {apiVersion: eksctl.io/v1alpha5, kind: ClusterConfig, metadata: {name: c}}\n";
        let error = parse(typo, Path::new("t.yaml")).expect_err("no region").to_string();
        assert!(error.starts_with("t.yaml: spec.clusterConfig.inline: "), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/no/such/scenario.yaml")).expect_err("not there");
        assert!(error.to_string().starts_with("/no/such/scenario.yaml: "), "{error}");
    }
}
