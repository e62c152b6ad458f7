//! The workload: manifests or a scenario, without what says where it computes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use wharf_schema::decode::decode_yaml_documents;

use crate::scenario::{self, Action, Manifest, Scenario, ScenarioError, Step};

/// Kinds that say where to compute, by group: what is compared takes their place.
const OF_COMPUTE: [(&str, &str); 9] = [
    ("karpenter.sh", "NodePool"),
    ("karpenter.sh", "NodeClaim"),
    ("karpenter.k8s.aws", "EC2NodeClass"),
    ("eks.amazonaws.com", "NodeClass"),
    ("eks.services.k8s.aws", "FargateProfile"),
    ("eks.services.k8s.aws", "Nodegroup"),
    ("eksctl.io", "ClusterConfig"),
    ("sim.wharf.dev", "Subnet"),
    ("", "Node"),
];
/// File names that are manifests.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// What runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name: that of the scenario, or of the first file.
    pub name: String,
    /// What is there at its start.
    pub manifests: Vec<Manifest>,
    /// What follows, counted from its start.
    pub steps: Vec<Step>,
    /// How long it is looked at, if it says so.
    pub until: Option<Duration>,
    /// The region that it names.
    pub region: Option<String>,
    /// What of its files is left out, a line each.
    pub left_out: Vec<String>,
    /// What the pods ask for that not every machine has.
    pub asks: Asks,
}

/// What pods ask for that not every machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// A GPU or another accelerator.
    pub accelerators: bool,
    /// The architecture arm64, by name.
    pub arm64: bool,
}

/// Why a workload cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// A file or folder cannot be read.
    #[error("{file}: {error}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: String,
    },
    /// A file is no manifest.
    #[error("{0}")]
    Manifest(String),
    /// A scenario has a mistake.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A scenario among other files.
    #[error("{0}: is a scenario, which stands for the whole workload; give it alone")]
    ScenarioAmongOthers(PathBuf),
    /// Nothing is left to run.
    #[error("nothing to run: the files have no pods, and no workloads that make some")]
    Nothing,
}

impl Workload {
    /// Reads manifests, folders of them, or one scenario.
    ///
    /// # Errors
    /// If a file cannot be read, or nothing in it runs.
    pub fn read(paths: &[PathBuf]) -> Result<Self, WorkloadError> {
        let mut files = Vec::new();
        for path in paths {
            gather(path, &mut files)?;
        }
        if let [file] = files.as_slice()
            && is_scenario(&read(file)?)
        {
            return Self::of_scenario(scenario::load(file)?);
        }
        let mut workload = Self::empty(name_of(paths));
        for file in &files {
            let text = read(file)?;
            if is_scenario(&text) {
                // One that is named; of a folder it is the folder's own rehearsal.
                if paths.contains(file) {
                    return Err(WorkloadError::ScenarioAmongOthers(file.clone()));
                }
                workload.left_out.push(format!("{}: a scenario", file.display()));
                continue;
            }
            let manifest = Manifest { source: file.display().to_string(), text };
            let manifest = workload.keep(&manifest)?;
            workload.manifests.extend(manifest);
        }
        workload.complete()
    }

    /// The workload of a scenario.
    ///
    /// # Errors
    /// If a manifest is none, or nothing in it runs.
    pub fn of_scenario(scenario: Scenario) -> Result<Self, WorkloadError> {
        let mut workload = Self::empty(scenario.name.as_str());
        workload.region =
            scenario.region.or_else(|| scenario.cluster.map(|cluster| cluster.region));
        workload.until = scenario.until;
        for manifest in &scenario.manifests {
            let manifest = workload.keep(manifest)?;
            workload.manifests.extend(manifest);
        }
        for step in scenario.steps {
            let action = match step.action {
                Action::Apply(manifests) => {
                    let mut kept = Vec::with_capacity(manifests.len());
                    for manifest in &manifests {
                        kept.extend(workload.keep(manifest)?);
                    }
                    Action::Apply(kept)
                }
                action => action,
            };
            workload.steps.push(Step { at: step.at, action });
        }
        workload.complete()
    }

    fn empty(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            manifests: Vec::new(),
            steps: Vec::new(),
            until: None,
            region: None,
            left_out: Vec::new(),
            asks: Asks::default(),
        }
    }

    /// The manifest without what is left out; none if nothing remains.
    fn keep(&mut self, manifest: &Manifest) -> Result<Option<Manifest>, WorkloadError> {
        let documents = decode_yaml_documents(&manifest.text, &manifest.source)
            .map_err(|error| WorkloadError::Manifest(error.to_string()))?;
        let mut kept = Vec::with_capacity(documents.len());
        for document in documents {
            let (group, kind) = group_and_kind(&document);
            if OF_COMPUTE.contains(&(group, kind)) {
                let name = text_at(&document, "/metadata/name");
                self.left_out.push(format!("{}: {kind} {name}", manifest.source));
                continue;
            }
            kept.push(document);
        }
        if kept.is_empty() {
            return Ok(None);
        }
        // Objects of one text, each a document; JSON is YAML.
        let text: Vec<String> = kept.iter().map(Value::to_string).collect();
        Ok(Some(Manifest { source: manifest.source.clone(), text: text.join("\n---\n") }))
    }

    /// Looks at what the pods ask for, and adds the namespaces that nobody makes.
    fn complete(mut self) -> Result<Self, WorkloadError> {
        let mut has_pods = false;
        let mut used = BTreeSet::new();
        let mut made: BTreeSet<String> = NAMESPACES.map(str::to_owned).into();
        let later = self.steps.iter().flat_map(|step| match &step.action {
            Action::Apply(manifests) => manifests.as_slice(),
            _ => &[],
        });
        for manifest in self.manifests.iter().chain(later) {
            let documents = decode_yaml_documents(&manifest.text, &manifest.source)
                .map_err(|error| WorkloadError::Manifest(error.to_string()))?;
            for document in &documents {
                if group_and_kind(document) == ("", "Namespace") {
                    made.insert(text_at(document, "/metadata/name").to_owned());
                }
                let namespace = text_at(document, "/metadata/namespace");
                if !namespace.is_empty() {
                    used.insert(namespace.to_owned());
                }
                if let Some(spec) = pod_spec(document) {
                    has_pods = true;
                    self.asks.accelerators |= asks_for_accelerators(spec);
                    self.asks.arm64 |= names_arm64(spec);
                }
            }
        }
        if !has_pods {
            return Err(WorkloadError::Nothing);
        }
        let namespaces = used.difference(&made).map(|name| {
            let object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            Manifest { source: format!("namespace {name}"), text: object.to_string() }
        });
        self.manifests = namespaces.chain(std::mem::take(&mut self.manifests)).collect();
        Ok(self)
    }
}

/// The name of the first folder or file that was named.
fn name_of(paths: &[PathBuf]) -> String {
    let first = paths.first().map(PathBuf::as_path).unwrap_or(Path::new("."));
    // `.` and `..` have names of their own.
    let whole = first.canonicalize().unwrap_or_else(|_| first.to_owned());
    let name = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// A file, or the manifests of a folder by name.
fn gather(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), WorkloadError> {
    let unreadable = |error: std::io::Error| WorkloadError::Unreadable {
        file: path.to_owned(),
        error: error.to_string(),
    };
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let extension = file.extension().unwrap_or_default().to_string_lossy().into_owned();
        if file.is_file() && EXTENSIONS.contains(&extension.as_str()) {
            found.push(file);
        }
    }
    found.sort();
    files.append(&mut found);
    Ok(())
}

fn read(file: &Path) -> Result<String, WorkloadError> {
    std::fs::read_to_string(file).map_err(|error| WorkloadError::Unreadable {
        file: file.to_owned(),
        error: error.to_string(),
    })
}

/// Whether a text is a scenario; how good a one is for its reader to say.
fn is_scenario(text: &str) -> bool {
    text.lines().any(|line| line.trim_end() == "kind: Scenario")
}

fn text_at<'a>(document: &'a Value, pointer: &str) -> &'a str {
    document.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn group_and_kind(document: &Value) -> (&str, &str) {
    let version = text_at(document, "/apiVersion");
    (version.split_once('/').map_or("", |(group, _)| group), text_at(document, "/kind"))
}

/// The spec of the pods that an object is, or makes.
fn pod_spec(document: &Value) -> Option<&Value> {
    match text_at(document, "/kind") {
        "Pod" => document.pointer("/spec"),
        "CronJob" => document.pointer("/spec/jobTemplate/spec/template/spec"),
        _ => document.pointer("/spec/template/spec").filter(|spec| spec["containers"].is_array()),
    }
}

fn asks_for_accelerators(spec: &Value) -> bool {
    let containers =
        ["containers", "initContainers"].into_iter().filter_map(|list| spec[list].as_array());
    containers.flatten().any(|container| {
        ["requests", "limits"].into_iter().any(|list| {
            container["resources"][list].as_object().is_some_and(|map| {
                map.keys().any(|name| {
                    ["nvidia.com/", "amd.com/", "aws.amazon.com/neuron", "habana.ai/"]
                        .iter()
                        .any(|vendor| name.starts_with(vendor))
                })
            })
        })
    })
}

fn names_arm64(spec: &Value) -> bool {
    let of_selector = spec["nodeSelector"]["kubernetes.io/arch"] == "arm64";
    let terms = spec.pointer(
        "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
    );
    let of_terms = terms.and_then(Value::as_array).into_iter().flatten().any(|term| {
        term["matchExpressions"].as_array().into_iter().flatten().any(|expression| {
            expression["key"] == "kubernetes.io/arch"
                && expression["operator"] == "In"
                && expression["values"].as_array().is_some_and(|all| all.contains(&"arm64".into()))
        })
    });
    of_selector || of_terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(spec: &str) -> Result<Workload, String> {
        let text = format!(
            "apiVersion: wharf.dev/v1alpha1\nkind: Scenario\nmetadata: {{name: w}}\nspec:\n{spec}"
        );
        let scenario = scenario::parse(&text, Path::new("w.yaml")).expect("a scenario");
        Workload::of_scenario(scenario).map_err(|error| error.to_string())
    }

    #[test]
    fn what_says_where_to_compute_is_left_out_and_told() {
        let workload = scenario(
            "  manifests:
    - inline: {apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: p}, spec: {}}
    - inline: {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}, spec: {containers: [{name: c}]}}
  steps:
    - {at: 5m, scale: deployment/a, replicas: 3}
",
        )
        .expect("a workload");
        assert_eq!(workload.left_out, ["w.yaml spec.manifests[0].inline: NodePool p"]);
        let sources: Vec<&str> =
            workload.manifests.iter().map(|manifest| manifest.source.as_str()).collect();
        assert_eq!(sources, ["namespace shop", "w.yaml spec.manifests[1].inline"]);
        assert_eq!(workload.steps.len(), 1);
        assert_eq!(workload.asks, Asks::default());
    }

    #[test]
    fn what_pods_ask_for_is_seen_wherever_they_are_made() {
        let asks = |object: &str| {
            scenario(&format!("  manifests:\n    - inline: {object}\n"))
                .map(|workload| workload.asks)
        };
        let gpu = "containers: [{name: c, resources: {limits: {nvidia.com/gpu: 1}}}]";
        let arm = "nodeSelector: {kubernetes.io/arch: arm64}, containers: [{name: c}]";
        assert!(
            asks(&format!("{{apiVersion: v1, kind: Pod, spec: {{{gpu}}}}}"))
                .expect("a pod")
                .accelerators
        );
        let job = format!(
            "{{apiVersion: batch/v1, kind: CronJob, spec: {{jobTemplate: {{spec: {{template: {{spec: {{{arm}}}}}}}}}}}}}"
        );
        assert_eq!(asks(&job), Ok(Asks { accelerators: false, arm64: true }));
        assert!(
            asks("{apiVersion: v1, kind: ConfigMap}")
                .expect_err("no pods")
                .starts_with("nothing to run")
        );
    }
}
