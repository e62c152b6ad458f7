//! The journal of a lab whose controllers run in another process: they send what they say and why,
//! so that `kubectl logs` and `wharf why` answer as if they ran here. Both ends of the wire.

use serde::{Deserialize, Serialize};
use wharf_controllers::event_loop::Recorder as _;
use wharf_controllers::journal::Journal;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::controller::LogLine;
use wharf_ports::reason::{Because, Reason, Says};

/// Where a lab takes it, below `/wharf/v1/`.
pub(crate) const NAME: &str = "journal";
/// Who decides, as reasons name them. Others are told as the last.
const DECIDERS: [&str; 10] = [
    "scheduler",
    "provisioner",
    "disruption",
    "expiration",
    "kubelet",
    "horizontal-pod-autoscaler",
    "vpa-recommender",
    "vpa-updater",
    "cluster-proportional-autoscaler",
    "controller",
];

/// One thing said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Entry {
    /// A line of a component's log.
    Log {
        /// When, in nanoseconds of cluster time.
        at: i64,
        /// Whose log.
        component: String,
        /// The line.
        line: String,
    },
    /// A decision with its reasons.
    Reason {
        /// When, in nanoseconds of cluster time.
        at: i64,
        /// The object's API group.
        group: String,
        /// Its kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Who decided.
        by: String,
        /// What.
        decision: String,
        /// The rules and what they said.
        because: Vec<Fact>,
    },
}

/// A rule or candidate, and what it said or what was said of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Fact {
    /// Words.
    Text(String, String),
    /// Words, and the numbers in them.
    Told(String, String, Vec<(String, i64)>),
    /// The sum of scores, and who gave how much.
    Scores(String, i64, Vec<(String, i64)>),
}

impl From<Because> for Fact {
    fn from(Because { rule, says }: Because) -> Self {
        match says {
            Says::Text(says) => Self::Text(rule.into_owned(), says),
            Says::Told { text, numbers } => {
                let numbers = numbers.into_iter().map(|(name, number)| (name.into_owned(), number));
                Self::Told(rule.into_owned(), text, numbers.collect())
            }
            Says::Scores { total, by } => {
                let by = by.into_iter().map(|(name, score)| (name.into_owned(), score));
                Self::Scores(rule.into_owned(), total, by.collect())
            }
        }
    }
}

impl From<Fact> for Because {
    fn from(fact: Fact) -> Self {
        match fact {
            Fact::Text(rule, says) => Self::new(rule, says),
            Fact::Told(rule, text, numbers) => {
                let numbers = numbers.into_iter().map(|(name, number)| (name.into(), number));
                let says = Says::Told { text, numbers: numbers.collect() };
                Self { rule: rule.into(), says }
            }
            Fact::Scores(rule, total, by) => {
                let by = by.into_iter().map(|(name, score)| (name.into(), score));
                Self::scored(rule, total, by.collect())
            }
        }
    }
}

impl Entry {
    /// A log line.
    pub(crate) fn log(now: Time, line: LogLine) -> Self {
        let LogLine { component, line } = line;
        Self::Log { at: now.as_nanos(), component: component.into_owned(), line }
    }

    /// A reason.
    pub(crate) fn reason(now: Time, reason: Reason) -> Self {
        let Reason { kind, key, by, decision, because } = reason;
        Self::Reason {
            at: now.as_nanos(),
            group: kind.group.to_owned(),
            kind: kind.kind.to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            by: by.to_owned(),
            decision,
            because: because.into_iter().map(Fact::from).collect(),
        }
    }

    /// Writes it into a journal. What is of a kind that is not known here is left out.
    pub(crate) fn tell(self, journal: &mut Journal) {
        match self {
            Self::Log { at, component, line } => {
                let component = component.into();
                journal.log(Time::from_nanos(at), LogLine { component, line });
            }
            Self::Reason { at, group, kind, namespace, name, by, decision, because } => {
                let Some(kind) = Kind::by_kind(&group, &kind) else { return };
                let known = DECIDERS.iter().find(|known| **known == by);
                let because = because.into_iter().map(Because::from).collect();
                let reason = Reason {
                    kind,
                    key: ObjectKey::namespaced(namespace, name),
                    by: known.copied().unwrap_or("controller"),
                    decision,
                    because,
                };
                journal.reason(Time::from_nanos(at), reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use wharf_sim::world::COMPONENT;

    use super::*;

    #[test]
    fn what_is_sent_is_what_was_said() {
        let now = Time::from_seconds(100);
        let reason = Reason {
            kind: Kind::of::<Pod>(),
            key: ObjectKey::namespaced("shop", "web"),
            by: "provisioner",
            decision: "a new machine".to_owned(),
            because: vec![
                Because::new("price", "the cheapest"),
                Because::scored("n1", 5, vec![("NodeResourcesFit".into(), 5)]),
            ],
        };
        let line = LogLine { component: COMPONENT.into(), line: "launched nodeclaim".to_owned() };
        let sent = [Entry::reason(now, reason.clone()), Entry::log(now, line)];
        let wire = serde_json::to_string(&sent).expect("plain data");
        let received: Vec<Entry> = serde_json::from_str(&wire).expect("its own form");
        let mut journal = Journal::default();
        received.into_iter().for_each(|entry| entry.tell(&mut journal));
        let kept = journal.told(reason.kind, &reason.key).next().expect("a reason");
        assert_eq!((kept.first, &kept.reason), (now, &reason));
        assert_eq!(journal.lines(COMPONENT, 0).0[0].line, "launched nodeclaim");
    }
}
