//! What the controllers said and why: the reasons that `wharf why` prints, and the components' own
//! logs that `kubectl logs` prints. Kept in memory within bounds; a restart begins it anew, and
//! every decision that still matters is made, and told, again.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::controller::LogLine;
use wharf_ports::reason::{Because, Reason, Says};

use crate::event_loop::Recorder;

/// Reasons kept for one object; the oldest goes first.
const REASONS_OF_ONE_MAX: usize = 24;
/// Objects with reasons; the one that was spoken of least recently goes first.
const SUBJECTS_MAX: usize = 20_000;
/// Log lines kept for one component, as a container log is rotated.
const LOG_LINES_MAX: usize = 20_000;
/// Logs; the one in which nothing was said for longest goes first.
const LOGS_MAX: usize = 1_000;

type Subject = (Kind, ObjectKey);

/// A reason and when it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When it was first told.
    pub first: Time,
    /// When it was last told in the same words.
    pub last: Time,
    /// How often.
    pub count: u32,
    /// The reason.
    pub reason: Reason,
}

/// One line of a component's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// When, in cluster time.
    pub at: Time,
    /// The line.
    pub line: String,
}

/// The journal.
#[derive(Debug, Default)]
pub struct Journal {
    subjects: BTreeMap<Subject, (u64, VecDeque<Told>)>,
    /// Subjects by the moment they were last spoken of.
    recency: BTreeMap<u64, Subject>,
    spoken: u64,
    logs: BTreeMap<Cow<'static, str>, Log>,
}

/// One log.
#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<Logged>,
    /// Lines dropped from it, so that a follower knows where it stands.
    dropped: u64,
    /// When its last line was told.
    last: Time,
}

impl Journal {
    /// The reasons told of an object, oldest first.
    pub fn told(&self, kind: Kind, key: &ObjectKey) -> impl Iterator<Item = &Told> {
        self.subjects.get(&(kind, key.clone())).into_iter().flat_map(|(_, told)| told)
    }

    /// A component's log from line number `from` on, and the number of the next line.
    pub fn lines(&self, component: &str, from: u64) -> (Vec<Logged>, u64) {
        let Some(log) = self.logs.get(component) else { return (Vec::new(), 0) };
        let skip = usize::try_from(from.saturating_sub(log.dropped)).unwrap_or(usize::MAX);
        let next = log.dropped + log.lines.len() as u64;
        (log.lines.iter().skip(skip).cloned().collect(), next)
    }

    /// Whether there is a log of that name.
    pub fn has_log(&self, component: &str) -> bool {
        self.logs.contains_key(component)
    }

    /// The reasons told of an object, for people.
    pub fn to_text(&self, kind: Kind, key: &ObjectKey) -> String {
        let mut text = String::new();
        for told in self.told(kind, key) {
            let again = match told.count {
                1 => String::new(),
                count => format!(" (told {count} times, last at {})", told.last),
            };
            text.push_str(&format!(
                "{}  {}: {}{again}\n",
                told.first, told.reason.by, told.reason.decision
            ));
            for because in &told.reason.because {
                if let Says::Text(says) | Says::Told { text: says, .. } = &because.says {
                    text.push_str(&format!("    {}: {says}\n", because.rule));
                }
            }
            text.push_str(&score_table(&told.reason.because));
        }
        text
    }

    /// The reasons told of an object, for scripts.
    pub fn to_json(&self, kind: Kind, key: &ObjectKey) -> Value {
        let reasons: Vec<Value> = self
            .told(kind, key)
            .map(|told| {
                json!({
                    "at": told.first.to_string(),
                    "last": told.last.to_string(),
                    "count": told.count,
                    "by": told.reason.by,
                    "decision": told.reason.decision,
                    "because": told.reason.because,
                })
            })
            .collect();
        json!({
            "kind": kind.kind,
            "namespace": key.namespace.as_str(),
            "name": key.name.as_str(),
            "reasons": reasons,
        })
    }

    fn touch(&mut self, subject: &Subject) {
        self.spoken += 1;
        let spoken = self.spoken;
        if let Some((recency, _)) = self.subjects.get_mut(subject) {
            self.recency.remove(recency);
            *recency = spoken;
        } else {
            if self.subjects.len() >= SUBJECTS_MAX
                && let Some((_, oldest)) = self.recency.pop_first()
            {
                self.subjects.remove(&oldest);
            }
            self.subjects.insert(subject.clone(), (spoken, VecDeque::new()));
        }
        self.recency.insert(spoken, subject.clone());
    }
}

/// The candidates that were scored, with a column for each who gave scores.
fn score_table(facts: &[Because]) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut scored = Vec::new();
    for fact in facts {
        let Says::Scores { total, by } = &fact.says else { continue };
        scored.push((&fact.rule, total, by));
        for (name, _) in by {
            if !names.contains(&name.as_ref()) {
                names.push(name);
            }
        }
    }
    if scored.is_empty() {
        return String::new();
    }
    let first = scored.iter().map(|(candidate, ..)| candidate.len()).max().unwrap_or(0);
    let mut text = format!("    {:<first$}  {:>5}", "", "TOTAL");
    names.iter().for_each(|name| text.push_str(&format!("  {name}")));
    text.push('\n');
    for (candidate, total, by) in scored {
        text.push_str(&format!("    {candidate:<first$}  {total:>5}"));
        for name in &names {
            let score = by.iter().find(|(known, _)| known == name);
            let score = score.map_or_else(|| "-".to_owned(), |(_, score)| score.to_string());
            text.push_str(&format!("  {score:>width$}", width = name.len()));
        }
        text.push('\n');
    }
    text
}

impl Recorder for Journal {
    fn reason(&mut self, now: Time, reason: Reason) {
        let subject = (reason.kind, reason.key.clone());
        self.touch(&subject);
        let Some((_, told)) = self.subjects.get_mut(&subject) else { return };
        if let Some(last) = told.back_mut()
            && last.reason == reason
        {
            last.last = now;
            last.count = last.count.saturating_add(1);
            return;
        }
        if told.len() == REASONS_OF_ONE_MAX {
            told.pop_front();
        }
        told.push_back(Told { first: now, last: now, count: 1, reason });
    }

    fn log(&mut self, now: Time, line: LogLine) {
        if self.logs.len() >= LOGS_MAX && !self.logs.contains_key(&line.component) {
            let oldest = self.logs.iter().min_by_key(|(_, log)| log.last).map(|(name, _)| name);
            if let Some(oldest) = oldest.cloned() {
                self.logs.remove(&oldest);
            }
        }
        let log = self.logs.entry(line.component).or_default();
        if log.lines.len() == LOG_LINES_MAX {
            log.lines.pop_front();
            log.dropped += 1;
        }
        log.lines.push_back(Logged { at: now, line: line.line });
        log.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn reason(name: &str, decision: &str) -> Reason {
        Reason {
            kind: Kind::of::<Pod>(),
            key: ObjectKey::namespaced("default", name),
            by: "scheduler",
            decision: decision.to_owned(),
            because: vec![
                Because::new("NodeResourcesFit", "asked 2, free 1"),
                Because::told("share", "half of it", vec![("milli", 500)]),
            ],
        }
    }

    #[test]
    fn repeats_are_counted_and_bounds_hold() {
        let mut journal = Journal::default();
        let key = ObjectKey::namespaced("default", "a");
        for second in 0..3 {
            journal.reason(Time::from_seconds(second), reason("a", "no node fits"));
        }
        for round in 0..100 {
            journal.reason(Time::from_seconds(9), reason("a", &format!("bound to n{round}")));
        }
        let told: Vec<&Told> = journal.told(Kind::of::<Pod>(), &key).collect();
        assert_eq!(told.len(), REASONS_OF_ONE_MAX);
        assert_eq!(told.last().map(|told| told.reason.decision.as_str()), Some("bound to n99"));
        for name in 0..SUBJECTS_MAX {
            journal.reason(Time::EPOCH, reason(&format!("p{name}"), "x"));
        }
        assert_eq!(journal.subjects.len(), SUBJECTS_MAX);
        assert_eq!(journal.told(Kind::of::<Pod>(), &key).count(), 0, "least recently spoken of");
    }

    #[test]
    fn text_tells_repeats_and_facts() {
        let mut journal = Journal::default();
        for second in [5, 65] {
            journal.reason(Time::from_seconds(second), reason("a", "no node fits"));
        }
        let text = journal.to_text(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "a"));
        assert_eq!(
            text,
            "1970-01-01T00:00:05Z  scheduler: no node fits (told 2 times, last at 1970-01-01T00:01:05Z)\n    \
             NodeResourcesFit: asked 2, free 1\n    share: half of it\n"
        );
    }

    #[test]
    fn scores_are_told_as_a_table() {
        let mut journal = Journal::default();
        let mut placed = reason("a", "goes to node n1");
        placed.because = vec![
            Because::new("nodes", "2 of 3 looked at will do"),
            Because::scored(
                "n1",
                470,
                vec![("TaintToleration".into(), 300), ("NodeAffinity".into(), 170)],
            ),
            Because::scored("node-2", 99, vec![("TaintToleration".into(), 99)]),
        ];
        journal.reason(Time::EPOCH, placed);
        assert_eq!(
            journal.to_text(Kind::of::<Pod>(), &ObjectKey::namespaced("default", "a")),
            [
                "1970-01-01T00:00:00Z  scheduler: goes to node n1",
                "    nodes: 2 of 3 looked at will do",
                "            TOTAL  TaintToleration  NodeAffinity",
                "    n1        470              300           170",
                "    node-2     99               99             -",
                "",
            ]
            .join("\n")
        );
    }

    #[test]
    fn a_follower_of_a_log_misses_nothing_that_is_kept() {
        let mut journal = Journal::default();
        let log = |journal: &mut Journal, text: &str| {
            journal
                .log(Time::EPOCH, LogLine { component: "karpenter".into(), line: text.to_owned() });
        };
        log(&mut journal, "one");
        let (lines, next) = journal.lines("karpenter", 0);
        assert_eq!((lines.len(), next), (1, 1));
        for round in 0..LOG_LINES_MAX {
            log(&mut journal, &round.to_string());
        }
        let (lines, next) = journal.lines("karpenter", next);
        assert_eq!((lines.len(), next), (LOG_LINES_MAX, LOG_LINES_MAX as u64 + 1));
        assert_eq!(journal.lines("unknown", 0), (Vec::new(), 0));
    }
}
