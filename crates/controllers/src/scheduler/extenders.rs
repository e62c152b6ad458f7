//! Extenders: programs that have a say in where a pod goes, asked over HTTP.
//!
//! As upstream's scheduler waits for their answers, one pod at a time is asked about, and no other
//! is tried meanwhile; but nothing here waits: the pod's cycle stays open between the steps. Those
//! that filter are asked one after another, those that score all at once; the first that binds
//! does so in place of the scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use wharf_model::kinds::Kind;
use wharf_model::object::{Object, ObjectKey};
use wharf_ports::cluster::Write;
use wharf_ports::controller::{Context, Step};
use wharf_ports::extender::{ExtenderAnswer, ExtenderCall};
use wharf_ports::view::View;
use wharf_scheduler::config::Extender;
use wharf_scheduler::{Choice, Decision, PodInfo, Survey, Verdicts, Veto, conclude, survey};

use super::Scheduler;
use super::assumed::Assumed;
use super::metrics::Outcome;
use super::queue::{Entry, Wake};

/// The extenders, and what they are being asked.
#[derive(Debug, Default)]
pub(super) struct Extenders {
    list: Vec<Extender>,
    calls: u64,
    asking: Option<Box<Asking>>,
    answers: Vec<ExtenderAnswer>,
    /// Bindings that an extender was asked for: which one, and the pod's uid.
    binding: BTreeMap<u64, (usize, CompactString)>,
}

/// A pod in the middle of its cycle.
#[derive(Debug)]
struct Asking {
    entry: Entry,
    took: Duration,
    choice: Choice,
    verdicts: Verdicts,
    waits_for: WaitsFor,
    /// Whether anything happened meanwhile that could help it.
    news: bool,
}

#[derive(Debug)]
enum WaitsFor {
    Nothing,
    /// A filter's answer.
    Filter {
        call: u64,
        extender: usize,
    },
    /// Scores, by call.
    Scores(BTreeMap<u64, usize>),
}

impl Extenders {
    pub(super) fn new(list: Vec<Extender>) -> Self {
        Self { list, ..Self::default() }
    }

    /// Whether a pod's cycle is open.
    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// How many pods are held here: one at most.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        usize::from(self.is_asking())
    }

    /// Whether one of them has a say in where a pod goes.
    pub(super) fn concern(&self, pod: &PodInfo) -> bool {
        self.list.iter().any(|extender| {
            let verbs = [&extender.filter_verb, &extender.prioritize_verb];
            verbs.iter().any(|verb| !verb.is_empty()) && extender.is_interested(pod)
        })
    }

    /// Keeps an answer for the next step.
    pub(super) fn keep(&mut self, answer: ExtenderAnswer) {
        self.answers.push(answer);
    }

    /// Something happened that could help a pod whose cycle is open.
    pub(super) fn hear(&mut self) {
        if let Some(asking) = &mut self.asking {
            asking.news = true;
        }
    }

    /// Puts a newer form of the pod in place of the one whose cycle is open.
    pub(super) fn refresh(&mut self, pod: &Arc<PodInfo>) -> bool {
        let asking = self.asking.as_mut().filter(|asking| asking.entry.pod.uid == pod.uid);
        let Some(asking) = asking else { return false };
        asking.entry.pod = pod.clone();
        asking.news = true;
        true
    }

    /// Puts another form of the same pod in place of the one held.
    pub(super) fn replace(&mut self, form: impl Fn(&str) -> Option<Arc<PodInfo>>) {
        if let Some(asking) = &mut self.asking
            && let Some(pod) = form(&asking.entry.pod.uid)
        {
            asking.entry.pod = pod;
        }
    }

    /// Ends a pod's cycle without a decision. Returns whether it was open.
    pub(super) fn cancel(&mut self, uid: &str) -> bool {
        let open = self.asking.as_ref().is_some_and(|asking| asking.entry.pod.uid == uid);
        if open {
            self.asking = None;
        }
        open
    }

    /// The next one from `from` on that has a verb and is interested.
    fn next(&self, from: usize, pod: &PodInfo, verb: fn(&Extender) -> &str) -> Option<usize> {
        (from..self.list.len()).find(|index| {
            !verb(&self.list[*index]).is_empty() && self.list[*index].is_interested(pod)
        })
    }

    fn call(&mut self, extender: usize, verb: fn(&Extender) -> &str, body: String) -> ExtenderCall {
        let id = self.calls;
        self.calls += 1;
        let asked = &self.list[extender];
        let url = asked.url(verb(asked));
        ExtenderCall { id, extender, url, timeout: asked.timeout, body }
    }
}

fn filter_verb(extender: &Extender) -> &str {
    &extender.filter_verb
}

fn prioritize_verb(extender: &Extender) -> &str {
    &extender.prioritize_verb
}

fn bind_verb(extender: &Extender) -> &str {
    &extender.bind_verb
}

impl Scheduler {
    /// Opens the cycle of a pod that extenders have a say in. `nomination` says whether the node on
    /// which room was made for it is to be tried alone first.
    pub(super) fn ask_extenders(
        &mut self,
        entry: Entry,
        nomination: bool,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let profile = &self.profiles[entry.profile];
        let start = self.metrics.clock();
        let found = survey(&self.snapshot, &entry.pod, profile, &mut self.rotation, nomination);
        let took = self.metrics.clock().saturating_sub(start);
        match found {
            Survey::Decided(decision) => {
                self.metrics.algorithm(took);
                self.carry_out(entry, decision, took, context, step);
            }
            Survey::Open(choice) => {
                let verdicts = Verdicts { kept: choice.nodes.clone(), ..Verdicts::default() };
                let waits_for = WaitsFor::Nothing;
                let asking = Asking { entry, took, choice, verdicts, waits_for, news: false };
                self.ask_next(Box::new(asking), 0, context, step);
            }
        }
    }

    /// Asks the next extender that filters; after the last, all that score.
    fn ask_next(
        &mut self,
        mut asking: Box<Asking>,
        from: usize,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        // A pod that is gone or being deleted needs no node.
        if self.object_of(&asking.entry.pod, context.view).is_none() {
            return;
        }
        if asking.entry.pod.terminating {
            self.skip(&asking.entry, context, step);
            return;
        }
        let pod = asking.entry.pod.clone();
        let filter = self.extenders.next(from, &pod, filter_verb);
        if let Some(extender) = filter.filter(|_| !asking.verdicts.kept.is_empty()) {
            let body = self.arguments(extender, &asking, context.view);
            let call = self.extenders.call(extender, filter_verb, body);
            asking.waits_for = WaitsFor::Filter { call: call.id, extender };
            step.extender.push(call);
            self.extenders.asking = Some(asking);
            return;
        }
        // A single node is taken unscored.
        let mut calls = BTreeMap::new();
        if asking.verdicts.kept.len() > 1 {
            let mut from = 0;
            while let Some(extender) = self.extenders.next(from, &pod, prioritize_verb) {
                let body = self.arguments(extender, &asking, context.view);
                let call = self.extenders.call(extender, prioritize_verb, body);
                calls.insert(call.id, extender);
                step.extender.push(call);
                from = extender + 1;
            }
        }
        if calls.is_empty() {
            self.conclude(*asking, context, step);
        } else {
            asking.waits_for = WaitsFor::Scores(calls);
            self.extenders.asking = Some(asking);
        }
    }

    /// Takes in the answers that have come.
    pub(super) fn take_answers(&mut self, context: &Context<'_>, step: &mut Step) {
        for answer in std::mem::take(&mut self.extenders.answers) {
            if let Some((extender, uid)) = self.extenders.binding.remove(&answer.id) {
                self.take_binding(extender, uid, &answer.result, step);
                continue;
            }
            // An answer about a pod that has gone meanwhile finds another one, or none.
            let Some(mut asking) = self.extenders.asking.take() else { continue };
            match &mut asking.waits_for {
                WaitsFor::Filter { call, extender } if *call == answer.id => {
                    let extender = *extender;
                    self.take_filter(asking, extender, &answer.result, context, step);
                }
                WaitsFor::Scores(calls) if calls.contains_key(&answer.id) => {
                    let extender = calls.remove(&answer.id).unwrap_or_default();
                    let done = calls.is_empty();
                    // One that fails to score is done without.
                    if let Ok(body) = &answer.result {
                        let weight = self.extenders.list[extender].weight;
                        add_scores(body, weight, &mut asking.verdicts);
                    }
                    if done {
                        self.conclude(*asking, context, step);
                    } else {
                        self.extenders.asking = Some(asking);
                    }
                }
                _ => self.extenders.asking = Some(asking),
            }
        }
    }

    fn take_filter(
        &mut self,
        mut asking: Box<Asking>,
        extender: usize,
        result: &Result<String, String>,
        context: &Context<'_>,
        step: &mut Step,
    ) {
        let known = &self.extenders.list[extender];
        let by_names = known.node_cache_capable;
        let read = |body: &String| read_filter(body, by_names, &asking.verdicts.kept);
        match result.as_ref().map_err(Clone::clone).and_then(read) {
            Ok((kept, vetoes)) => {
                asking.verdicts.kept = kept;
                asking.verdicts.vetoes.extend(vetoes);
            }
            Err(_) if known.ignorable => {}
            Err(error) => {
                let message = format!("extender {}: {error}", known.url_prefix);
                let Asking { entry, took, .. } = *asking;
                self.metrics.algorithm(took);
                self.metrics.attempt(entry.profile, Outcome::Error, took);
                self.fail_with_error(entry, &message, context, step);
                return;
            }
        }
        self.ask_next(asking, extender + 1, context, step);
    }

    /// All have been heard: decides on the world as it is now.
    fn conclude(&mut self, asking: Asking, context: &Context<'_>, step: &mut Step) {
        let Asking { entry, took, choice, verdicts, news, .. } = asking;
        let profile = &self.profiles[entry.profile];
        let start = self.metrics.clock();
        let decision =
            conclude(&self.snapshot, &entry.pod, profile, self.rotation, &choice, verdicts);
        if choice.nominated && matches!(decision, Decision::Unschedulable(_)) {
            // The other nodes have not been looked at.
            self.ask_extenders(entry, false, context, step);
            return;
        }
        let took = took + self.metrics.clock().saturating_sub(start);
        self.metrics.algorithm(took);
        let uid = entry.pod.uid.clone();
        self.carry_out(entry, decision, took, context, step);
        if news {
            // If it sleeps now, it may have missed what would have woken it.
            self.queue.wake_one(&uid, "ClusterChange", Wake::AfterBackoff);
        }
    }

    /// Has an extender bind a pod, if one does. Returns whether it was asked.
    pub(super) fn bind_by_extender(&mut self, assumed: &Assumed, step: &mut Step) -> bool {
        let pod = &assumed.entry.pod;
        let Some(extender) = self.extenders.next(0, pod, bind_verb) else { return false };
        let body = json!({
            "PodName": pod.key.name.as_str(),
            "PodNamespace": pod.key.namespace.as_str(),
            "PodUID": pod.uid.as_str(),
            "Node": assumed.node.as_str(),
        });
        let call = self.extenders.call(extender, bind_verb, body.to_string());
        self.extenders.binding.insert(call.id, (extender, pod.uid.clone()));
        step.extender.push(call);
        true
    }

    fn take_binding(
        &mut self,
        extender: usize,
        uid: CompactString,
        result: &Result<String, String>,
        step: &mut Step,
    ) {
        let Some(assumed) = self.assumed.get(&uid) else { return };
        // Without an answer of its own nobody knows what it has done.
        let (error, certain) = match result {
            Err(error) => (error.clone(), false),
            Ok(body) => match error_of(body) {
                Ok(()) => return,
                Err(error) => (error, true),
            },
        };
        if self.extenders.list[extender].ignorable {
            let pod = &assumed.entry.pod;
            step.write(Write::Bind {
                pod: pod.key.clone(),
                uid: uid.clone(),
                node: assumed.node.clone(),
            });
        } else {
            self.failed_bindings.push((uid, error, certain));
        }
    }

    /// What an extender is told: the pod, and the nodes it is about or their names.
    fn arguments(&self, extender: usize, asking: &Asking, view: &View) -> String {
        let text =
            |object: &Arc<Object>| String::from_utf8_lossy(&object.json_unkept()).into_owned();
        let pod = self.object_of(&asking.entry.pod, view).map(text);
        let pod = pod.as_deref().unwrap_or("null");
        let names = &asking.verdicts.kept;
        if self.extenders.list[extender].node_cache_capable {
            let names: Vec<&str> = names.iter().map(CompactString::as_str).collect();
            return format!("{{\"Pod\":{pod},\"Nodes\":null,\"NodeNames\":{}}}", json!(names));
        }
        let node =
            |name: &CompactString| view.object(Kind::of::<Node>(), &ObjectKey::cluster(name));
        let nodes: Vec<_> = names.iter().filter_map(node).map(text).collect();
        let nodes = nodes.join(",");
        format!(
            "{{\"Pod\":{pod},\"Nodes\":{{\"metadata\":{{}},\"items\":[{nodes}]}},\"NodeNames\":null}}"
        )
    }
}

/// What a filter left over, and what it said of the others.
type Filtered = (Vec<CompactString>, BTreeMap<CompactString, Veto>);

fn read_filter(body: &str, by_names: bool, asked: &[CompactString]) -> Result<Filtered, String> {
    error_of(body)?;
    let answer: Value = parse(body)?;
    let names: Vec<&str> = match (field(&answer, "NodeNames"), field(&answer, "Nodes")) {
        (Value::Array(names), _) if by_names => names.iter().filter_map(Value::as_str).collect(),
        (_, nodes) => {
            let items = field(nodes, "items").as_array().into_iter().flatten();
            items.filter_map(|node| node["metadata"]["name"].as_str()).collect()
        }
    };
    let known: BTreeSet<&str> = asked.iter().map(CompactString::as_str).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
        return Err(format!("it leaves over node {unknown:?}, which it was not asked about"));
    }
    let left: BTreeSet<&str> = names.into_iter().collect();
    let mut vetoes = BTreeMap::new();
    // Whoever is in both cannot be helped by evictions.
    for (name, unresolvable) in [("FailedNodes", false), ("FailedAndUnresolvableNodes", true)] {
        for (node, text) in field(&answer, name).as_object().into_iter().flatten() {
            if known.contains(node.as_str()) {
                let text = text.as_str().unwrap_or_default().to_owned();
                vetoes.insert(node.into(), Veto { text, unresolvable });
            }
        }
    }
    let kept = asked.iter().filter(|name| left.contains(name.as_str())).cloned().collect();
    Ok((kept, vetoes))
}

fn add_scores(body: &str, weight: i64, verdicts: &mut Verdicts) {
    let Ok(answer) = parse(body) else { return };
    for item in answer.as_array().into_iter().flatten() {
        let host = field(item, "Host").as_str();
        let (Some(host), Some(score)) = (host, field(item, "Score").as_i64()) else { continue };
        let sum = verdicts.scores.entry(host.into()).or_default();
        *sum = sum.saturating_add(score.saturating_mul(weight));
    }
}

/// The error that an answer tells of.
fn error_of(body: &str) -> Result<(), String> {
    let answer = parse(body)?;
    match field(&answer, "Error").as_str() {
        None | Some("") => Ok(()),
        Some(error) => Err(error.to_owned()),
    }
}

fn parse(body: &str) -> Result<Value, String> {
    serde_json::from_str(body).map_err(|error| format!("its answer cannot be read: {error}"))
}

/// A field by its name in any case, as upstream's decoder takes it.
fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    let mut fields = value.as_object().into_iter().flatten();
    let found = fields.find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
    found.map_or(&Value::Null, |(_, value)| value)
}
