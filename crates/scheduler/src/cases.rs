//! Recorded decisions as JSON: a small cluster and one pod in, what every node says of it out. The
//! one reading of that format, for whoever wants to compare this scheduler with another.
//!
//! A case is an object with `id`, `nodes`, `pods` (each on a node), `pod` (the one that waits) and,
//! where they matter, `namespaces`, `services`, `replicasets` and `pdbs`. Other fields are not
//! looked at.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wharf_model::quantity::Quantity;

use crate::cycle::{Decision, Evaluation, Rotation, evaluate, schedule};
use crate::diagnosis::Unschedulable;
use crate::plugins::Rejection;
use crate::pod::PodInfo;
use crate::profile::{Plugin, Profile};
use crate::snapshot::{NodeIndex, Snapshot};

/// A cluster, and the pod to place in it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the case is called.
    pub id: String,
    /// The cluster.
    pub snapshot: Snapshot,
    /// The pod.
    pub pod: Arc<PodInfo>,
}

/// Why a case cannot be read: which field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CaseError(String);

impl Case {
    /// Reads a case from its JSON text.
    ///
    /// # Errors
    /// If it is not JSON, lacks a field, or a field is not what it should be.
    pub fn parse(text: &str) -> Result<Self, CaseError> {
        let value = serde_json::from_str(text).map_err(|error| {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            CaseError(format!("not JSON at column {}: {what}", error.column()))
        })?;
        Self::from_json(value)
    }

    /// Reads a case.
    ///
    /// # Errors
    /// As [`Case::parse`].
    pub fn from_json(case: Value) -> Result<Self, CaseError> {
        let Value::Object(fields) = case else {
            return Err(CaseError("a case is an object with id, nodes, pods and pod".to_owned()));
        };
        let mut fields = Fields(fields);
        let id = match fields.0.remove("id") {
            Some(Value::String(id)) if !id.is_empty() => id,
            _ => return Err(CaseError("id: must be a string that names the case".to_owned())),
        };
        let mut snapshot = Snapshot::new();
        let mut names = BTreeSet::new();
        if !fields.0.contains_key("nodes") {
            return Err(CaseError("nodes: must be there; a list, which may be empty".to_owned()));
        }
        for (index, node) in fields.list("nodes")?.into_iter().enumerate() {
            let node: Node = read(node, || format!("nodes[{index}]"))?;
            let name = node.metadata.name.clone().unwrap_or_default();
            if name.is_empty() || !names.insert(name.clone()) {
                return Err(CaseError(format!(
                    "nodes[{index}].metadata.name: {name:?} must be there and be the only one of its name"
                )));
            }
            snapshot.set_node(&node);
        }
        fields.each("namespaces", |namespace| snapshot.set_namespace(&namespace))?;
        fields.each("services", |service| snapshot.set_service(&service))?;
        fields.each("replicasets", |object| snapshot.set_replica_set(&object))?;
        fields.each("pdbs", |budget| snapshot.set_budget(&budget))?;
        for (index, pod) in fields.list("pods")?.into_iter().enumerate() {
            let info = snapshot.compile(&read(pod, || format!("pods[{index}]"))?);
            if info.node_name.is_empty() {
                return Err(CaseError(format!(
                    "pods[{index}].spec.nodeName: must be there; these are the pods that run"
                )));
            }
            let node = info.node_name.clone();
            snapshot.place(info, &node);
        }
        let Some(pod) = fields.0.remove("pod") else {
            return Err(CaseError("pod: must be there; the pod to place".to_owned()));
        };
        let pod = snapshot.compile(&read(pod, || "pod".to_owned())?);
        Ok(Self { id, snapshot, pod })
    }

    /// What every node says of the pod, and what becomes of it where none will do. All nodes are
    /// looked at, whatever share of them the profile samples.
    pub fn answer(&self, profile: &Profile) -> Answer {
        let profile = Profile { percentage_of_nodes_to_score: 100, ..profile.clone() };
        let evaluation = evaluate(&self.snapshot, &self.pod, &profile);
        let refused = evaluation.candidates.is_empty().then(|| self.refused(&profile)).flatten();
        let nomination = refused.as_ref().and_then(|answer| answer.preemption.nomination.as_ref());
        Answer {
            id: self.id.clone(),
            filter: self.verdicts(&evaluation),
            scores: evaluation
                .candidates
                .iter()
                .map(|candidate| {
                    let own = candidate.scores.iter().map(|(by, score)| (by.name(), *score));
                    // Upstream's DynamicResources speaks of every pod: 0 of one without claims.
                    let devices = Plugin::DynamicResources;
                    let speaks = profile.scores.iter().any(|(plugin, _)| *plugin == devices);
                    let silent = speaks.then_some((devices.name(), 0));
                    let total = ("total", candidate.total);
                    let scores = silent.into_iter().chain(own).chain([total]).collect();
                    (self.name(candidate.node).to_owned(), scores)
                })
                .collect(),
            message: refused.as_ref().map(|answer| answer.summary.clone()),
            postfilter_message: refused.as_ref().map(|answer| answer.postscript()),
            preemption: nomination.map(|nomination| Eviction {
                node: self.name(nomination.node).to_owned(),
                victims: nomination.victims.iter().map(|pod| pod.key.to_string()).collect(),
            }),
        }
    }

    fn refused(&self, profile: &Profile) -> Option<Box<Unschedulable>> {
        match schedule(&self.snapshot, &self.pod, profile, &mut Rotation::default()) {
            Decision::Unschedulable(answer) => Some(answer),
            Decision::Bind(_) => None,
        }
    }

    fn verdicts(&self, evaluation: &Evaluation) -> BTreeMap<String, Verdict> {
        if let Some(refusal) = &evaluation.prefilter {
            // Nobody asked the nodes: each repeats what was said of the pod.
            let reasons = || Verdict::Refused(vec![refusal.message.clone()]);
            let nodes = self.snapshot.nodes().iter();
            return nodes.map(|node| (self.name(*node).to_owned(), reasons())).collect();
        }
        let verdict = |refused: &Option<Rejection>| match refused {
            None => Verdict::Ok,
            Some(rejection) => Verdict::Refused(rejection.reasons(&self.pod)),
        };
        let nodes = evaluation.nodes.iter();
        nodes.map(|(node, refused)| (self.name(*node).to_owned(), verdict(refused))).collect()
    }

    fn name(&self, node: NodeIndex) -> &str {
        &self.snapshot.node(node).facts.name
    }
}

/// The answer to a case, in the shape in which it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The case's.
    pub id: String,
    /// What each node says.
    pub filter: BTreeMap<String, Verdict>,
    /// For each node that would do, every plugin's normalised score times its weight, and `total`.
    /// Plugins with nothing to say about the pod are absent.
    pub scores: BTreeMap<String, BTreeMap<&'static str, i64>>,
    /// The text of the event without what follows about preemption; `None` if a node would do.
    pub message: Option<String>,
    /// What follows; empty where preemption found a way.
    #[serde(rename = "postfilterMessage")]
    pub postfilter_message: Option<String>,
    /// Who would have to go, and where.
    pub preemption: Option<Eviction>,
}

/// What a node says of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would do.
    Ok,
    /// It will not, for these reasons.
    Refused(Vec<Cow<'static, str>>),
}

/// The pods to evict from a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Eviction {
    /// The node.
    pub node: String,
    /// The pods as `namespace/name`, most important first.
    pub victims: Vec<String>,
}

impl Serialize for Verdict {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ok => serializer.serialize_str("ok"),
            Self::Refused(reasons) => reasons.serialize(serializer),
        }
    }
}

/// The fields of a case, taken out one by one.
struct Fields(Map<String, Value>);

impl Fields {
    /// A list of objects; absent and null are empty.
    fn list(&mut self, name: &str) -> Result<Vec<Value>, CaseError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(CaseError(format!("{name}: must be a list"))),
        }
    }

    /// Hands on every object of a list.
    fn each<T: DeserializeOwned, R>(
        &mut self,
        name: &str,
        mut take: impl FnMut(T) -> R,
    ) -> Result<(), CaseError> {
        for (index, object) in self.list(name)?.into_iter().enumerate() {
            take(read(object, || format!("{name}[{index}]"))?);
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(mut value: Value, path: impl Fn() -> String) -> Result<T, CaseError> {
    if !value.is_object() {
        return Err(CaseError(format!("{}: must be an object", path())));
    }
    check_quantities(&mut value, &path)?;
    serde_json::from_value(value).map_err(|error| CaseError(format!("{}: {error}", path())))
}

/// Resource lists, by the names of their fields. A mistyped amount would otherwise count as none.
const RESOURCE_LISTS: [&str; 5] = ["allocatable", "capacity", "limits", "overhead", "requests"];

fn check_quantities(value: &mut Value, path: &dyn Fn() -> String) -> Result<(), CaseError> {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = || format!("{}.{name}", path());
                match field {
                    Value::Object(amounts) if RESOURCE_LISTS.contains(&name.as_str()) => {
                        check_amounts(amounts, &path)?;
                    }
                    field => check_quantities(field, &path)?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(index, item)| {
            check_quantities(item, &|| format!("{}[{index}]", path()))
        }),
        _ => Ok(()),
    }
}

fn check_amounts(
    amounts: &mut Map<String, Value>,
    path: &dyn Fn() -> String,
) -> Result<(), CaseError> {
    for (name, amount) in amounts {
        // The API takes bare numbers too.
        if amount.is_number() {
            *amount = Value::String(amount.to_string());
        }
        if amount.as_str().is_none_or(|text| Quantity::parse(text).is_err()) {
            return Err(CaseError(format!(
                "{}.{name}: {amount} is not a quantity, such as 500m or 2Gi",
                path()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn case() -> Value {
        let node = |name: &str| json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": 10}}});
        let pod = |name: &str, cpu: &str, priority: i32| {
            json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}
            })
        };
        let mut low = pod("low", "2", 0);
        low["spec"]["nodeName"] = json!("b");
        let mut high = pod("high", "1", 9);
        high["spec"]["nodeName"] = json!("a");
        json!({"id": "one", "nodes": [node("b"), node("a")], "pods": [low, high], "pod": pod("p", "1500m", 1), "expect": {"ignored": 1}})
    }

    fn answer(case: Value) -> Value {
        let case = Case::parse(&case.to_string()).unwrap();
        serde_json::to_value(case.answer(&Profile::default())).unwrap()
    }

    #[test]
    fn a_pod_that_would_evict_gets_its_text_and_its_victims() {
        assert_eq!(
            answer(case()),
            json!({
                "id": "one",
                "filter": {"a": ["Insufficient cpu"], "b": ["Insufficient cpu"]},
                "scores": {},
                "message": "0/2 nodes are available: 2 Insufficient cpu.",
                "postfilterMessage": "",
                "preemption": {"node": "b", "victims": ["default/low"]}
            })
        );
    }

    #[test]
    fn a_single_node_that_would_do_is_scored_all_the_same() {
        let mut case = case();
        case["pods"] = json!(null);
        case["nodes"].as_array_mut().unwrap().truncate(1);
        let answer = answer(case);
        assert_eq!(answer["filter"], json!({"b": "ok"}));
        let scores = answer["scores"]["b"].as_object().unwrap();
        let total: i64 = scores
            .iter()
            .filter(|(name, _)| *name != "total")
            .map(|(_, score)| score.as_i64().unwrap())
            .sum();
        assert_eq!(scores["total"], json!(total));
        assert!(scores.contains_key("NodeResourcesFit") && !scores.contains_key("NodeAffinity"));
        for field in ["message", "postfilterMessage", "preemption"] {
            assert_eq!(answer[field], json!(null), "{field}");
        }
    }

    #[test]
    fn a_pod_refused_as_a_whole_is_refused_by_every_node() {
        let mut case = case();
        let field =
            |name: &str| json!({"key": "metadata.name", "operator": "In", "values": [name]});
        case["pod"]["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [field("a"), field("b")]}]}}});
        let answer = answer(case);
        let reason = json!(["pod affinity terms conflict"]);
        assert_eq!(answer["filter"], json!({"a": reason, "b": reason}));
        assert_eq!(answer["postfilterMessage"], "not found");
    }

    #[test]
    fn mistakes_name_their_field() {
        let with = |path: &str, value: Value| {
            let mut case = case();
            *case.pointer_mut(path).unwrap() = value;
            case
        };
        let without = |name: &str| {
            let mut case = case();
            case.as_object_mut().unwrap().remove(name);
            case
        };
        for (case, says) in [
            (json!([]), "a case is an object"),
            (without("id"), "id: must be a string"),
            (without("nodes"), "nodes: must be there"),
            (without("pod"), "pod: must be there"),
            (with("/nodes", json!(1)), "nodes: must be a list"),
            (with("/nodes/1", json!("a")), "nodes[1]: must be an object"),
            (
                with("/nodes/1/metadata/name", json!("b")),
                "nodes[1].metadata.name: \"b\" must be there and be the only one",
            ),
            (
                with("/nodes/0/status/allocatable/cpu", json!("two")),
                "nodes[0].status.allocatable.cpu: \"two\" is not a quantity",
            ),
            (with("/pods/0/spec/nodeName", json!(null)), "pods[0].spec.nodeName: must be there"),
            (with("/pod/spec/priority", json!("high")), "pod: invalid type: string \"high\""),
            (
                with("/pod/spec/containers/0/resources/requests/cpu", json!({})),
                "pod.spec.containers[0].resources.requests.cpu: {} is not a quantity",
            ),
        ] {
            let error = Case::from_json(case).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error} / {says}");
        }
        let error = Case::parse("{\"id\": ").unwrap_err().to_string();
        assert!(error.starts_with("not JSON at column"), "{error}");
    }
}
