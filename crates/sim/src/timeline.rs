//! The timeline of a rehearsal: what happened, when in cluster time, and why; told from the changes
//! of the cluster itself, so that it shows what is and not what a controller meant.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use wharf_controllers::event_loop::Recorder;
use wharf_model::duration;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::karpenter::conditions::{self, node_claim};
use wharf_model::karpenter::{NodeClaim, NodePool};
use wharf_model::kinds::Kind;
use wharf_model::labels;
use wharf_model::money::{Money, Price};
use wharf_model::object::{Object, ObjectKey};
use wharf_model::time::Time;
use wharf_ports::cluster::Change;
use wharf_ports::controller::LogLine;
use wharf_ports::reason::Reason;

use crate::ledger::Line;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, in cluster time.
    pub at: Time,
    /// A word for scripts: `step`, `claim`, `launch`, `node`, `pods`, `scale`,
    /// `disruption`, `gone`.
    pub what: &'static str,
    /// The object, `kind/name`.
    pub object: String,
    /// The text for people.
    pub text: String,
}

/// Collects entries from changes and reasons.
#[derive(Debug)]
pub struct Timeline {
    start: Time,
    entries: Vec<Entry>,
    /// Of each deployment, the last count of ready pods that was told.
    ready: BTreeMap<ObjectKey, (i32, i32)>,
    /// Why a pod was last said not to fit.
    unschedulable: BTreeMap<ObjectKey, String>,
    /// Why a claim is being disrupted.
    disrupted: BTreeMap<ObjectKey, String>,
    reasons: Vec<(Time, Reason)>,
}

impl Timeline {
    /// An empty timeline that counts from `start`.
    pub fn starting_at(start: Time) -> Self {
        Self {
            start,
            entries: Vec::new(),
            ready: BTreeMap::new(),
            unschedulable: BTreeMap::new(),
            disrupted: BTreeMap::new(),
            reasons: Vec::new(),
        }
    }

    /// The entries so far, in the order of time.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The reasons so far, in the order of time.
    pub fn reasons(&self) -> &[(Time, Reason)] {
        &self.reasons
    }

    /// Adds an entry.
    pub fn tell(&mut self, at: Time, what: &'static str, object: String, text: String) {
        self.entries.push(Entry { at, what, object, text });
    }

    /// One entry as a line: time since the start, and the text.
    pub fn line(&self, entry: &Entry) -> String {
        let seconds = entry.at.since(self.start).as_millis();
        let (whole, tenths) = (seconds / 1_000, seconds % 1_000 / 100);
        format!(
            "+{:02}:{:02}:{:02}.{tenths}  {}",
            whole / 3_600,
            whole / 60 % 60,
            whole % 60,
            entry.text
        )
    }

    /// Takes the entries gathered so far as lines: for a reader that follows along.
    pub fn take_lines(&mut self) -> Vec<String> {
        let entries = std::mem::take(&mut self.entries);
        entries.iter().map(|entry| self.line(entry)).collect()
    }

    /// All entries as lines.
    pub fn to_text(&self) -> String {
        self.entries.iter().fold(String::new(), |mut text, entry| {
            let _ = writeln!(text, "{}", self.line(entry));
            text
        })
    }

    /// All entries as JSON.
    pub fn to_json(&self) -> Value {
        let entries = self.entries.iter().map(|entry| {
            let offset = i64::try_from(entry.at.since(self.start).as_nanos()).unwrap_or(i64::MAX);
            json!({
                "at": entry.at.to_string(),
                "after": duration::format(offset),
                "what": entry.what,
                "object": entry.object,
                "text": entry.text,
            })
        });
        Value::Array(entries.collect())
    }

    fn deployment(&mut self, now: Time, object: &Arc<Object>, removed: bool) {
        let Some(deployment) = object.typed::<Deployment>() else { return };
        let key = object.key().clone();
        if removed {
            self.ready.remove(&key);
            return;
        }
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let ready =
            deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let told = self.ready.get(&key).copied();
        if told == Some((ready, wanted)) {
            return;
        }
        let settled = ready == wanted && told.is_some_and(|(before, _)| before != ready);
        self.ready.insert(key.clone(), (ready, wanted));
        if settled {
            let text = format!("deployment {key}: {ready}/{wanted} pods ready");
            self.tell(now, "pods", format!("deployment/{}", key.name), text);
        }
    }

    fn autoscaler(&mut self, now: Time, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let status = |object: Option<&Arc<Object>>| {
            object?.typed::<HorizontalPodAutoscaler>()?.status.clone()
        };
        let (Some(object), Some(after)) = (new, status(new)) else { return };
        let before = status(old).and_then(|before| before.last_scale_time);
        if after.last_scale_time.is_some() && after.last_scale_time != before {
            let key = object.key();
            let was = after.current_replicas.unwrap_or_default();
            let text = format!("hpa {key}: {was} -> {} replicas", after.desired_replicas);
            self.tell(now, "scale", format!("hpa/{}", key.name), text);
        }
    }

    fn pod(&mut self, now: Time, object: &Arc<Object>, removed: bool) {
        let key = object.key().clone();
        if removed {
            self.unschedulable.remove(&key);
            return;
        }
        let Some(pod) = object.typed::<Pod>() else { return };
        let refused = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
            .and_then(|condition| condition.message.clone());
        // Pods of a workload wait together; only a pod on its own is told one by one.
        match refused {
            Some(message) if object.header().controller().is_none() => {
                if self.unschedulable.get(&key) != Some(&message) {
                    self.unschedulable.insert(key.clone(), message.clone());
                    let text = format!("pod {key} is Pending: {message}");
                    self.tell(now, "pods", format!("pod/{}", key.name), text);
                }
            }
            _ => {
                self.unschedulable.remove(&key);
            }
        }
    }

    fn node_claim(&mut self, now: Time, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let before = old.and_then(|object| object.typed::<NodeClaim>());
        let Some(after) = new.and_then(|object| object.typed::<NodeClaim>()) else {
            if let Some(object) = old {
                self.disrupted.remove(object.key());
                let text = format!("nodeclaim {} is gone", object.key());
                self.tell(now, "gone", format!("nodeclaim/{}", object.key().name), text);
            }
            return;
        };
        let name = after.metadata.name.clone().unwrap_or_default();
        let subject = format!("nodeclaim/{name}");
        if before.is_none() {
            let requests: Vec<String> = after
                .spec
                .resources
                .requests
                .iter()
                .map(|(resource, amount)| format!("{resource} {amount}"))
                .collect();
            let types = after
                .spec
                .requirements
                .iter()
                .find(|requirement| requirement.key == labels::INSTANCE_TYPE)
                .map_or(0, |requirement| requirement.values.len());
            let text = format!(
                "nodeclaim {name} asks for {} from {types} instance types",
                requests.join(", ")
            );
            self.tell(now, "claim", subject.clone(), text);
        }
        let turned = |condition: &str| {
            conditions::is_true(&after.status.conditions, condition)
                && !before
                    .is_some_and(|before| conditions::is_true(&before.status.conditions, condition))
        };
        if turned(node_claim::DISRUPTION_REASON)
            && let Some(condition) =
                conditions::get(&after.status.conditions, node_claim::DISRUPTION_REASON)
        {
            let text = format!("nodeclaim {name} is to be disrupted: {}", condition.reason);
            self.disrupted.insert(ObjectKey::cluster(&name), condition.reason.clone());
            self.tell(now, "disruption", subject.clone(), text);
        }
        if turned(node_claim::INITIALIZED) {
            let text =
                format!("node {} is ready for pods (nodeclaim {name})", after.status.node_name);
            self.tell(now, "node", format!("node/{}", after.status.node_name), text);
        }
        let deleting = |claim: &NodeClaim| claim.metadata.deletion_timestamp.is_some();
        if deleting(after) && !before.is_some_and(deleting) {
            let why = self.disrupted.get(&ObjectKey::cluster(&name)).cloned();
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            let text = format!("nodeclaim {name} is being deleted{why}");
            self.tell(now, "disruption", subject, text);
        }
    }

    fn instance(&mut self, now: Time, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let Some(after) = new.and_then(|object| object.typed::<Instance>()) else { return };
        let before = old.and_then(|object| object.typed::<Instance>());
        let id = after.metadata.name.clone().unwrap_or_default();
        let price = Price::from_nano_dollars_per_hour(after.spec.price_nanos_per_hour);
        if before.is_none() {
            let text = format!(
                "launched {id}: {} {} in {} at {}",
                after.spec.capacity_type,
                after.spec.instance_type,
                after.spec.zone,
                price.per_hour()
            );
            self.tell(now, "launch", format!("instance/{id}"), text);
        }
        let left = |state| matches!(state, InstanceState::ShuttingDown | InstanceState::Terminated);
        if left(after.status.state) && !before.is_some_and(|before| left(before.status.state)) {
            let line = Line::of(after, now);
            let (seconds, cost) =
                line.map_or((0, Money::default()), |line| (line.elapsed().as_secs(), line.cost));
            let text = format!(
                "terminated {id}: {} ran {} and cost {}",
                after.spec.instance_type,
                duration::format(i64::try_from(seconds).unwrap_or(i64::MAX) * 1_000_000_000),
                cost.rounded(6)
            );
            self.tell(now, "gone", format!("instance/{id}"), text);
        }
    }

    fn node(&mut self, now: Time, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        match (old, new) {
            (None, Some(object)) => {
                let instance_type =
                    object.header().label(labels::INSTANCE_TYPE).unwrap_or("unknown").to_owned();
                let text = format!("node {} ({instance_type}) joined", object.key());
                self.tell(now, "node", format!("node/{}", object.key().name), text);
            }
            (Some(object), None) => {
                let text = format!("node {} left", object.key());
                self.tell(now, "gone", format!("node/{}", object.key().name), text);
            }
            _ => {}
        }
    }
}

impl Recorder for Timeline {
    fn reason(&mut self, now: Time, reason: Reason) {
        self.reasons.push((now, reason));
    }

    fn log(&mut self, _now: Time, _line: LogLine) {}

    fn change(&mut self, now: Time, change: &Change) {
        let kind = change.kind();
        let (old, new) = (change.old.as_ref(), change.new.as_ref());
        if kind == Kind::of::<Pod>() {
            self.pod(now, change.object(), new.is_none());
        } else if kind == Kind::of::<Deployment>() {
            self.deployment(now, change.object(), new.is_none());
        } else if kind == Kind::of::<HorizontalPodAutoscaler>() {
            self.autoscaler(now, old, new);
        } else if kind == Kind::of::<NodeClaim>() {
            self.node_claim(now, old, new);
        } else if kind == Kind::of::<Instance>() {
            self.instance(now, old, new);
        } else if kind == Kind::of::<Node>() {
            self.node(now, old, new);
        } else if kind == Kind::of::<NodePool>()
            && let (None, Some(object)) = (old, new)
        {
            let text = format!("nodepool {} is there", object.key());
            self.tell(now, "step", format!("nodepool/{}", object.key().name), text);
        }
    }
}
