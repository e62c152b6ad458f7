//! Agreement with kube-scheduler on recorded decisions: refusals, scores, choice, texts and
//! preemption. See `vectors/README.md`.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, LazyLock};

use flate2::read::GzDecoder;
use serde_json::Value;
use wharf_scheduler::{
    Code, Decision, Evaluation, PodInfo, Profile, Rotation, Snapshot, cases, evaluate, schedule,
};

struct Case {
    id: String,
    snapshot: Snapshot,
    pod: Arc<PodInfo>,
    expect: Value,
}

/// Read once for all tests.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let mut text = String::new();
    GzDecoder::new(&include_bytes!("vectors/kubernetes-1.36.jsonl.gz")[..])
        .read_to_string(&mut text)
        .expect("the vectors are intact");
    text.lines().map(|line| Case::new(serde_json::from_str(line).unwrap())).collect()
});

fn cases() -> &'static [Case] {
    &CASES
}

impl Case {
    fn new(mut case: Value) -> Self {
        let expect = case["expect"].take();
        let cases::Case { id, snapshot, pod } = cases::Case::from_json(case).unwrap();
        Self { id, snapshot, pod, expect }
    }

    fn evaluate(&self) -> Evaluation {
        evaluate(&self.snapshot, &self.pod, &Profile::default())
    }

    fn decide(&self, profile: &Profile) -> Decision {
        schedule(&self.snapshot, &self.pod, profile, &mut Rotation::default())
    }

    fn name(&self, node: wharf_scheduler::NodeIndex) -> &str {
        &self.snapshot.node(node).facts.name
    }
}

fn word(code: Code) -> &'static str {
    match code {
        Code::Unschedulable => "Unschedulable",
        Code::UnschedulableAndUnresolvable => "UnschedulableAndUnresolvable",
    }
}

fn strings(value: &Value) -> BTreeSet<String> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

#[test]
fn refusals_agree() {
    for case in cases() {
        let evaluation = case.evaluate();
        if let Some(expected) = case.expect.get("prefilter") {
            let refused = evaluation.prefilter.expect("refused as a whole");
            assert_eq!(refused.plugin.name(), expected["plugin"], "{}", case.id);
            assert_eq!(word(refused.code), expected["code"], "{}", case.id);
            assert_eq!(refused.message, expected["message"].as_str().unwrap(), "{}", case.id);
            continue;
        }
        let expected = case.expect["filter"].as_object().unwrap();
        assert_eq!(evaluation.nodes.len(), expected.len(), "{}", case.id);
        for (node, refused) in &evaluation.nodes {
            let name = case.name(*node);
            let (expected, at) = (&expected[name], format!("{} {name}", case.id));
            match refused {
                None => assert_eq!(expected, "ok", "{at}"),
                Some(rejection) => {
                    let reasons = rejection.reasons(&case.pod);
                    let reasons: BTreeSet<_> = reasons.iter().map(ToString::to_string).collect();
                    assert_eq!(reasons, strings(&expected["reasons"]), "{at}");
                    assert_eq!(word(rejection.code), expected["code"], "{at}");
                    // Who left a node out of the set of nodes is only told in the text.
                    if !expected["plugin"].as_str().unwrap().is_empty() {
                        assert_eq!(rejection.plugin.name(), expected["plugin"], "{at}");
                    }
                }
            }
        }
    }
}

#[test]
fn scores_agree() {
    let mut compared = 0;
    for case in cases() {
        let expected = case.expect["scores"].as_object().unwrap();
        let candidates = case.evaluate().candidates;
        assert_eq!(candidates.len(), expected.len(), "{}", case.id);
        for candidate in candidates {
            let name = case.name(candidate.node);
            let mine: BTreeMap<_, _> =
                candidate.scores.iter().map(|(plugin, score)| (plugin.name(), *score)).collect();
            let theirs: BTreeMap<_, _> = expected[name]
                .as_object()
                .unwrap()
                .iter()
                .map(|(plugin, score)| (plugin.as_str(), score.as_i64().unwrap()))
                .collect();
            assert_eq!(mine, theirs, "{} {name}", case.id);
            compared += 1;
        }
    }
    assert!(compared > 2000, "only {compared} nodes compared");
}

#[test]
fn choices_agree() {
    let mut compared = 0;
    for case in cases() {
        let Some(best) = case.expect.get("best") else { continue };
        let Decision::Bind(placement) = case.decide(&Profile::default()) else {
            panic!("{} should be placed", case.id)
        };
        let name = case.name(placement.node);
        assert!(strings(best).contains(name), "{}: {name} is not among {best}", case.id);
        compared += 1;
    }
    assert!(compared > 250, "only {compared} choices compared");
}

#[test]
fn texts_agree() {
    for case in cases() {
        let Some(message) = case.expect.get("message") else { continue };
        let Decision::Unschedulable(answer) = case.decide(&Profile::default()) else {
            panic!("{} should be refused", case.id)
        };
        assert_eq!(answer.summary, message.as_str().unwrap(), "{}", case.id);
        let postscript = case.expect["postscript"].as_str().unwrap();
        assert_eq!(answer.postscript(), postscript, "{}", case.id);
    }
}

#[test]
fn preemption_agrees() {
    let mut compared = 0;
    for case in cases() {
        let Some(expected) = case.expect.get("preemption") else { continue };
        let Decision::Unschedulable(answer) = case.decide(&Profile::default()) else {
            panic!("{} should be refused", case.id)
        };
        let nomination = answer.preemption.nomination;
        if expected.is_null() {
            assert!(nomination.is_none(), "{}: {nomination:?}", case.id);
            continue;
        }
        let nomination = nomination.expect("there is a way");
        let victims: Vec<_> = nomination.victims.iter().map(|pod| pod.key.to_string()).collect();
        let matches = |choice: &&Value| {
            choice["node"] == case.name(nomination.node)
                && choice["victims"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|name| name.as_str().unwrap())
                    .eq(victims.iter().map(String::as_str))
        };
        let ties = expected["ties"].as_array().unwrap();
        assert!(
            ties.iter().any(|tie| matches(&tie)),
            "{}: {} without {victims:?} is not among {expected}",
            case.id,
            case.name(nomination.node)
        );
        compared += 1;
    }
    assert!(compared > 5, "only {compared} preemptions compared");
}
