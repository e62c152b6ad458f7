//! Which nodes will do for a pod, and how well: `filterVerb` and `prioritizeVerb`.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_ports::controller::{Context, Step};
use wharf_ports::extender::ExtenderAnswer;
use wharf_ports::view::View;
use wharf_scheduler::{Choice, Decision, Survey, Verdicts, conclude, survey};

use super::super::Scheduler;
use super::super::cycle::{End, Progress};
use super::super::queue::Entry;
use super::{Asking, answers, filter_verb, prioritize_verb, text};

/// What has come of asking about nodes.
#[derive(Debug)]
pub(super) struct OfNodes {
    choice: Choice,
    verdicts: Verdicts,
    waits_for: WaitsFor,
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

impl OfNodes {
    /// Whether the answer to this question is waited for.
    pub(super) fn waits_for(&self, call: u64) -> bool {
        match &self.waits_for {
            WaitsFor::Nothing => false,
            WaitsFor::Filter { call: asked, .. } => *asked == call,
            WaitsFor::Scores(calls) => calls.contains_key(&call),
        }
    }
}

impl Scheduler {
    /// Opens the cycle of a pod that extenders have a say in. `nomination` says whether the node on
    /// which room was made for it is to be tried alone first.
    pub(in super::super) fn ask_extenders(
        &mut self,
        entry: Entry,
        nomination: bool,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        let Self { profiles, snapshot, rotation, metrics, cycles, .. } = self;
        let start = metrics.clock();
        let mut measure = metrics.measure(*cycles);
        let profile = &profiles[entry.profile];
        let found = survey(snapshot, &entry.pod, profile, rotation, nomination, &mut measure);
        let took = metrics.clock().saturating_sub(start);
        metrics.measured(entry.profile, &measure);
        match found {
            Survey::Decided(decision) => self.decided(entry, decision, took, context, step),
            Survey::Open(choice) => {
                let verdicts = Verdicts { kept: choice.nodes.clone(), ..Verdicts::default() };
                let about = OfNodes { choice, verdicts, waits_for: WaitsFor::Nothing };
                self.ask_next(Asking { entry, took, about, news: false }, 0, context, step)
            }
        }
    }

    /// Asks the next extender that filters; after the last, all that score.
    fn ask_next(
        &mut self,
        mut asking: Asking<OfNodes>,
        from: usize,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        // A pod that is gone or being deleted needs no node.
        if self.object_of(&asking.entry.pod, context.view).is_none() {
            return Progress::Over;
        }
        if asking.entry.pod.terminating {
            self.skip(&asking.entry, context, step);
            return Progress::Over;
        }
        let pod = Arc::clone(&asking.entry.pod);
        let filter = self.extenders.next(from, &pod, filter_verb);
        if let Some(extender) = filter.filter(|_| !asking.about.verdicts.kept.is_empty()) {
            let body = self.arguments(extender, &asking, context.view);
            let call = self.extenders.call(extender, filter_verb, body);
            asking.about.waits_for = WaitsFor::Filter { call: call.id, extender };
            step.extender.push(call);
            return self.extenders.wait(asking);
        }
        // A single node is taken unscored.
        let mut calls = BTreeMap::new();
        if asking.about.verdicts.kept.len() > 1 {
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
            return self.conclude(asking, context, step);
        }
        asking.about.waits_for = WaitsFor::Scores(calls);
        self.extenders.wait(asking)
    }

    /// Takes in an answer that was waited for.
    pub(super) fn take_nodes(
        &mut self,
        mut asking: Asking<OfNodes>,
        answer: &ExtenderAnswer,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        match &mut asking.about.waits_for {
            WaitsFor::Scores(calls) => {
                let extender = calls.remove(&answer.id).unwrap_or_default();
                let done = calls.is_empty();
                // One that fails to score is done without.
                if let Ok(body) = &answer.result {
                    let weight = self.extenders.list[extender].weight;
                    answers::add_scores(body, weight, &mut asking.about.verdicts);
                }
                if done {
                    self.conclude(asking, context, step)
                } else {
                    self.extenders.wait(asking)
                }
            }
            WaitsFor::Filter { extender, .. } => {
                let extender = *extender;
                self.take_filter(asking, extender, &answer.result, context, step)
            }
            WaitsFor::Nothing => Progress::Over,
        }
    }

    fn take_filter(
        &mut self,
        mut asking: Asking<OfNodes>,
        extender: usize,
        result: &Result<String, String>,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        let known = &self.extenders.list[extender];
        let by_names = known.node_cache_capable;
        let read = |body: &String| answers::filter(body, by_names, &asking.about.verdicts.kept);
        match result.as_ref().map_err(Clone::clone).and_then(read) {
            Ok((kept, vetoes)) => {
                asking.about.verdicts.kept = kept;
                asking.about.verdicts.vetoes.extend(vetoes);
            }
            Err(_) if known.ignorable => {}
            Err(error) => {
                let message = format!("extender {}: {error}", known.url_prefix);
                let Asking { entry, took, .. } = asking;
                self.metrics.algorithm(took);
                return Progress::ended(entry, End::Failed(message), took);
            }
        }
        self.ask_next(asking, extender + 1, context, step)
    }

    /// All have been heard: decides on the world as it is now.
    fn conclude(
        &mut self,
        asking: Asking<OfNodes>,
        context: &Context<'_>,
        step: &mut Step,
    ) -> Progress {
        let Asking { entry, took, about, news } = asking;
        let OfNodes { choice, verdicts, .. } = about;
        let Self { profiles, snapshot, rotation, metrics, cycles, .. } = self;
        let start = metrics.clock();
        let mut measure = metrics.measure(*cycles);
        let (pod, profile) = (&entry.pod, &profiles[entry.profile]);
        let decision = conclude(snapshot, pod, profile, *rotation, &choice, verdicts, &mut measure);
        metrics.measured(entry.profile, &measure);
        if choice.nominated && matches!(decision, Decision::Unschedulable(_)) {
            // The other nodes have not been looked at.
            let progress = self.ask_extenders(entry, false, context, step);
            return self.extenders.carry_news(progress, news);
        }
        let took = took + self.metrics.clock().saturating_sub(start);
        let progress = self.decided(entry, decision, took, context, step);
        self.extenders.carry_news(progress, news)
    }

    /// What an extender is told: the pod, and the nodes it is about or their names.
    fn arguments(&self, extender: usize, asking: &Asking<OfNodes>, view: &View) -> String {
        let pod = self.object_of(&asking.entry.pod, view).map(text);
        let pod = pod.as_deref().unwrap_or("null");
        let names = &asking.about.verdicts.kept;
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
