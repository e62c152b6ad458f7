//! History that somebody else has kept, upstream's `--storage=prometheus`: for which autoscalers it
//! is asked for, and how a model begins with it.
//!
//! Upstream asks once, for the whole cluster, before it does anything else. Here every new
//! autoscaler is asked for, by namespace, and holds still until there is an answer: controllers do
//! not wait, and usage of pods that no autoscaler is about is not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use wharf_autoscale::vpa::{Model, ObservedContainer, ObservedPod};
use wharf_model::object::Object;
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::history::{HistoryAnswer, HistoryCall, PodHistory, metric_label};

/// History of some namespaces, or why there is none.
type Kept = Result<BTreeMap<CompactString, Vec<PodHistory>>, String>;

/// Questions and answers.
#[derive(Debug, Default)]
pub(super) struct Recall {
    next_id: u64,
    /// The question that is under way, and what for.
    asked: Option<(u64, BTreeSet<CompactString>)>,
    /// What came of the last one, until the next round.
    answer: Option<(BTreeSet<CompactString>, Kept)>,
    /// The namespaces of autoscalers that wait.
    wanted: BTreeSet<CompactString>,
}

impl Recall {
    /// Takes an answer. Returns whether it is to a question of this one's.
    pub(super) fn take(&mut self, answer: &HistoryAnswer) -> bool {
        let Some((_, namespaces)) = self.asked.take_if(|(id, _)| *id == answer.id) else {
            return false;
        };
        let kept = answer.result.clone().map(|pods| {
            let mut kept: BTreeMap<_, Vec<PodHistory>> = BTreeMap::new();
            for pod in pods {
                kept.entry(pod.pod.namespace.clone()).or_default().push(pod);
            }
            kept
        });
        self.answer = Some((namespaces, kept));
        true
    }

    /// What is kept of the pods of a namespace. `None` if that has to be waited for.
    pub(super) fn of(&mut self, namespace: &str) -> Option<Result<&[PodHistory], &str>> {
        match &self.answer {
            Some((namespaces, kept)) if namespaces.contains(namespace) => Some(match kept {
                Ok(kept) => Ok(kept.get(namespace).map(Vec::as_slice).unwrap_or_default()),
                Err(why) => Err(why),
            }),
            _ => {
                self.wanted.insert(namespace.into());
                None
            }
        }
    }

    /// Ends a round: what there is to ask.
    pub(super) fn question(&mut self, now: Time) -> Option<HistoryCall> {
        self.answer = None;
        let wanted = std::mem::take(&mut self.wanted);
        if wanted.is_empty() || self.asked.is_some() {
            return None;
        }
        self.next_id += 1;
        let namespaces = wanted.iter().cloned().collect();
        self.asked = Some((self.next_id, wanted));
        Some(HistoryCall { id: self.next_id, namespaces, until: now })
    }
}

/// How much a model began with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fed {
    pub(super) pods: usize,
    pub(super) samples: usize,
    pub(super) first: Option<Time>,
    pub(super) last: Option<Time>,
}

/// Gives a model what was kept of the pods that a selector matches; `live` are those of them that
/// are there.
pub(super) fn feed(
    model: &mut Model,
    selector: &Selector,
    live: &[&Arc<Object>],
    kept: &[PodHistory],
) -> Fed {
    let mut fed = Fed::default();
    let of_pods: BTreeSet<&str> = live
        .iter()
        .filter_map(|object| object.typed::<Pod>()?.spec.as_ref())
        .flat_map(|spec| &spec.containers)
        .map(|container| container.name.as_str())
        .collect();
    // What is kept does not tell init containers from others; the pods there are do.
    let counts = |container: &str| of_pods.is_empty() || of_pods.contains(container);
    for pod in kept {
        let labels = labels(pod, selector, live);
        if !selector.matches(&labels) {
            continue;
        }
        let containers = || pod.containers.iter().filter(|(container, _)| counts(container));
        let observed = |(name, _): (&CompactString, _)| ObservedContainer { name: name.clone() };
        let name = pod.pod.name.clone();
        let containers_observed = containers().map(observed).collect();
        model.set_pod(&ObservedPod { name: name.clone(), labels, containers: containers_observed });
        let before = fed.samples;
        for (container, usage) in containers() {
            // Cores to millicores; a fraction is cut, as upstream does.
            for (at, cores) in usage.cpu.iter().filter(|(_, cores)| cores.is_finite()) {
                model.add_cpu(&name, container, (cores * 1000.0) as i64, *at);
                fed.count(*at);
            }
            for (at, bytes) in usage.memory.iter().filter(|(_, bytes)| bytes.is_finite()) {
                model.add_memory(&name, container, *bytes as i64, *at);
                fed.count(*at);
            }
        }
        fed.pods += usize::from(fed.samples > before);
    }
    fed
}

impl Fed {
    fn count(&mut self, at: Time) {
        self.samples += 1;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = self.last.max(Some(at));
    }
}

/// The labels of a pod: its own if it is there, else those that were kept, under the keys that the
/// selector has for them.
fn labels(
    pod: &PodHistory,
    selector: &Selector,
    live: &[&Arc<Object>],
) -> BTreeMap<String, String> {
    if let Some(object) = live.iter().find(|object| *object.key() == pod.pod) {
        let own = &object.header().labels;
        return own.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    }
    let mut labels = pod.labels.clone();
    for requirement in selector.requirements() {
        let key = requirement.key();
        if let Some(value) = pod.labels.get(&metric_label(key)) {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use wharf_autoscale::vpa::{Config, Policies, Target};
    use wharf_model::object::ObjectKey;
    use wharf_ports::history::UsageHistory;

    use super::*;

    fn at(hours: i64) -> Time {
        Time::from_seconds(3600 * hours)
    }

    fn pod(name: &str, labels: &[(&str, &str)], container: &str, cores: f64) -> PodHistory {
        let usage = UsageHistory {
            cpu: (0..48).map(|hour| (at(hour), cores)).collect(),
            memory: vec![(at(1), f64::NAN), (at(2), 3e8)],
        };
        PodHistory {
            pod: ObjectKey::namespaced("default", name),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            containers: [(container.into(), usage)].into(),
        }
    }

    #[test]
    fn a_model_begins_with_what_was_kept_of_its_pods() {
        let selector = Selector::parse("app.kubernetes.io/name=web").expect("a selector");
        let target = Target { selector: selector.clone(), policies: Policies::default() };
        let mut model = Model::new(Config::default(), target);
        let kept = [
            pod("web-1", &[("app_kubernetes_io_name", "web")], "web", 0.5),
            pod("web-2", &[("app_kubernetes_io_name", "db")], "web", 4.0),
            pod("web-3", &[], "web", 4.0),
        ];
        let fed = feed(&mut model, &selector, &[], &kept);
        // What is no number is no sample.
        assert_eq!((fed.pods, fed.samples), (1, 49));
        assert_eq!((fed.first, fed.last), (Some(at(0)), Some(at(47))));
        let recommended = model.recommend();
        let cpu = recommended[0].target.cpu.map(|cpu| cpu.milli_value_ceil());
        assert_eq!((recommended.len(), cpu), (1, Some(587)));
        assert_eq!(model.history("web"), (48, Some(at(0)), Some(at(47))));
    }

    #[test]
    fn questions_are_asked_one_at_a_time() {
        let mut recall = Recall::default();
        assert!(recall.question(at(0)).is_none(), "nobody waits");
        assert!(recall.of("b").is_none() && recall.of("a").is_none() && recall.of("a").is_none());
        let call = recall.question(at(1)).expect("two wait");
        assert_eq!((call.namespaces, call.until), (vec!["a".into(), "b".into()], at(1)));
        assert!(recall.of("c").is_none());
        assert!(recall.question(at(2)).is_none(), "one at a time");
        let kept = vec![pod("x", &[], "c", 1.0)];
        assert!(!recall.take(&HistoryAnswer { id: 7, result: Ok(Vec::new()) }), "another's");
        assert!(recall.take(&HistoryAnswer { id: call.id, result: Ok(vec![]) }));
        assert_eq!(recall.of("a"), Some(Ok(&[][..])));
        assert!(recall.of("default").is_none(), "it was not asked for");
        let call = recall.question(at(3)).expect("one waits");
        assert!(recall.of("a").is_none(), "an answer is for one round");
        assert!(recall.take(&HistoryAnswer { id: call.id, result: Ok(kept.clone()) }));
        assert!(matches!(recall.of("default"), Some(Ok([one])) if one.pod == kept[0].pod));
        let call = recall.question(at(4)).expect("a waits again");
        assert!(recall.take(&HistoryAnswer { id: call.id, result: Err("no".to_owned()) }));
        assert_eq!(recall.of("a"), Some(Err("no")));
    }
}
