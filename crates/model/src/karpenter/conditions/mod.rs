//! Conditions of the three kinds: their words, and how a change of one moves the root condition
//! Ready.
//!
//! The rules are those of upstream's condition sets: all dependents start Unknown with the reason
//! AwaitingReconciliation; the transition time moves only with the status; Ready is True when every
//! dependent is True for the present generation, False as soon as one is False for it, else Unknown.

mod words;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};

use super::{EC2NodeClass, NodeClaim, NodePool};
use crate::auto_mode::AutoNodeClass;
pub use words::{auto_node_class, ec2_node_class, node_claim, node_pool, reason};

/// The root condition of every kind.
pub const READY: &str = "Ready";
/// Status of a condition that holds.
pub const TRUE: &str = "True";
/// Status of a condition that does not hold.
pub const FALSE: &str = "False";
/// Status of a condition of which nothing is known yet.
pub const UNKNOWN: &str = "Unknown";

/// The condition of a type, if it is set.
pub fn get<'a>(conditions: &'a [Condition], condition_type: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == condition_type)
}

/// Whether a condition is set and True.
pub fn is_true(conditions: &[Condition], condition_type: &str) -> bool {
    get(conditions, condition_type).is_some_and(|condition| condition.status == TRUE)
}

/// A change of a condition's status, from which the event that reports it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The condition's type; also the event's reason.
    pub condition_type: String,
    /// The status before.
    pub from: String,
    /// The status now.
    pub to: String,
    /// The condition's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

impl Transition {
    /// The text of the Normal event that upstream records for the change.
    pub fn event_message(&self) -> String {
        let Self { condition_type, from, to, reason, message } = self;
        let separator = if message.is_empty() { "" } else { ", Message: " };
        format!(
            "Status condition transitioned, Type: {condition_type}, Status: {from} -> {to}, \
             Reason: {reason}{separator}{message}"
        )
    }
}

/// The changes of status between two versions of an object's conditions. A condition that is new or
/// gone is no transition: upstream reports only those it has seen before.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Transition> {
    after
        .iter()
        .filter_map(|condition| {
            let old = get(before, &condition.type_)?;
            (old.status != condition.status).then(|| Transition {
                condition_type: condition.type_.clone(),
                from: old.status.clone(),
                to: condition.status.clone(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            })
        })
        .collect()
}

/// An object with a root condition and dependents.
pub trait Conditioned: k8s_openapi::Metadata<Ty = ObjectMeta> {
    /// The types Ready depends on.
    const DEPENDENTS: &'static [&'static str];

    /// Its conditions.
    fn conditions(&self) -> &[Condition];

    /// Its conditions, to replace.
    fn conditions_vec_mut(&mut self) -> &mut Vec<Condition>;

    /// Its conditions, to change at a time. Dependents that are missing become Unknown.
    fn conditions_mut(&mut self, now: Timestamp) -> ConditionSet<'_>
    where
        Self: Sized,
    {
        let metadata = self.metadata();
        let context = Context {
            generation: metadata.generation.unwrap_or(0),
            now: to_second(now),
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(to_second(now), |created| created.0),
            deleting: metadata.deletion_timestamp.is_some(),
            dependents: Self::DEPENDENTS,
        };
        let mut set = ConditionSet { conditions: self.conditions_vec_mut(), context };
        for condition_type in std::iter::once(&READY).chain(Self::DEPENDENTS) {
            if set.get(condition_type).is_none() {
                set.set_unknown(
                    condition_type,
                    reason::AWAITING_RECONCILIATION,
                    reason::AWAITING_RECONCILIATION_MESSAGE,
                );
            }
        }
        set
    }

    /// Whether a condition is set and True.
    fn is_true(&self, condition_type: &str) -> bool {
        is_true(self.conditions(), condition_type)
    }

    /// Whether the root condition is True for the present generation.
    fn is_ready(&self) -> bool {
        self.is_true(READY)
    }
}

macro_rules! conditioned {
    ($type:ty, $dependents:expr) => {
        impl Conditioned for $type {
            const DEPENDENTS: &'static [&'static str] = $dependents;

            fn conditions(&self) -> &[Condition] {
                &self.status.conditions
            }

            fn conditions_vec_mut(&mut self) -> &mut Vec<Condition> {
                &mut self.status.conditions
            }
        }
    };
}

conditioned!(NodePool, node_pool::DEPENDENTS);
conditioned!(NodeClaim, node_claim::DEPENDENTS);
conditioned!(EC2NodeClass, ec2_node_class::DEPENDENTS);
conditioned!(AutoNodeClass, auto_node_class::DEPENDENTS);

/// The conditions of one object while they are changed.
pub struct ConditionSet<'a> {
    conditions: &'a mut Vec<Condition>,
    context: Context,
}

#[derive(Clone, Copy)]
struct Context {
    generation: i64,
    now: Timestamp,
    created: Timestamp,
    deleting: bool,
    dependents: &'static [&'static str],
}

impl ConditionSet<'_> {
    /// The condition of a type, if it is set.
    pub fn get(&self, condition_type: &str) -> Option<&Condition> {
        get(self.conditions, condition_type)
    }

    /// Whether a condition is set and True.
    pub fn is_true(&self, condition_type: &str) -> bool {
        is_true(self.conditions, condition_type)
    }

    /// Makes a condition True with its type as the reason. Says whether anything changed, as all
    /// setters do.
    pub fn set_true(&mut self, condition_type: &str) -> bool {
        self.set(condition_type, TRUE, condition_type, "")
    }

    /// Makes a condition True with a reason of its own (Drifted, DisruptionReason).
    pub fn set_true_with_reason(
        &mut self,
        condition_type: &str,
        reason: &str,
        message: &str,
    ) -> bool {
        self.set(condition_type, TRUE, reason, message)
    }

    /// Makes a condition False.
    pub fn set_false(&mut self, condition_type: &str, reason: &str, message: &str) -> bool {
        self.set(condition_type, FALSE, reason, message)
    }

    /// Makes a condition Unknown.
    pub fn set_unknown(&mut self, condition_type: &str, reason: &str, message: &str) -> bool {
        self.set(condition_type, UNKNOWN, reason, message)
    }

    /// Removes a condition that Ready does not depend on. Says whether it was there.
    pub fn remove(&mut self, condition_type: &str) -> bool {
        if self.is_dependent(condition_type) || self.get(condition_type).is_none() {
            return false;
        }
        self.conditions.retain(|condition| condition.type_ != condition_type);
        // Upstream sorts by name here and by time on a set; kept, since users see the order.
        self.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        true
    }

    fn set(&mut self, condition_type: &str, status: &str, reason: &str, message: &str) -> bool {
        let Context { generation, now, created, deleting, .. } = self.context;
        let mut condition = Condition {
            type_: condition_type.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: (generation != 0).then_some(generation),
            // A dependent that appears now has been Unknown since the object was created.
            last_transition_time: Time(if self.is_dependent(condition_type) {
                created
            } else {
                now
            }),
        };
        if let Some(old) = self.get(condition_type) {
            condition.last_transition_time =
                if old.status == status { old.last_transition_time.clone() } else { Time(now) };
            if *old == condition {
                return false;
            }
        }
        self.conditions.retain(|other| other.type_ != condition_type);
        if deleting {
            // Nobody reconciles the others of an object that goes away; they must not make Ready
            // Unknown just because the deletion raised the generation.
            for other in self.conditions.iter_mut() {
                other.observed_generation = condition.observed_generation;
            }
        }
        self.conditions.push(condition);
        self.conditions.sort_by(|a, b| {
            (a.type_ == READY, &a.last_transition_time)
                .cmp(&(b.type_ == READY, &b.last_transition_time))
        });
        self.recompute_root(condition_type);
        true
    }

    fn recompute_root(&mut self, changed: &str) {
        if changed == READY {
            return;
        }
        let current = (self.context.generation != 0).then_some(self.context.generation);
        let mut unhealthy: Vec<&Condition> = self
            .conditions
            .iter()
            .filter(|condition| self.context.dependents.contains(&condition.type_.as_str()))
            .filter(|condition| {
                condition.status != TRUE || condition.observed_generation != current
            })
            .collect();
        if unhealthy.is_empty() {
            self.set_true(READY);
            return;
        }
        unhealthy.sort_by(|a, b| b.last_transition_time.cmp(&a.last_transition_time));
        let failed = unhealthy
            .iter()
            .any(|condition| condition.status == FALSE && condition.observed_generation == current);
        let message = unhealthy
            .iter()
            .map(|condition| format!("{}={}", condition.type_, condition.status))
            .collect::<Vec<_>>()
            .join(", ");
        if failed {
            self.set_false(READY, reason::UNHEALTHY_DEPENDENTS, &message);
        } else {
            self.set_unknown(READY, reason::RECONCILING_DEPENDENTS, &message);
        }
    }

    fn is_dependent(&self, condition_type: &str) -> bool {
        condition_type == READY || self.context.dependents.contains(&condition_type)
    }
}

/// Kubernetes times have whole seconds on the wire; a finer value in memory would compare unequal
/// to itself after a round trip.
fn to_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("the whole second of a timestamp is in range")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(seconds, 500_000_000).unwrap()
    }

    fn claim() -> NodeClaim {
        let mut claim = NodeClaim::default();
        claim.metadata.generation = Some(1);
        claim.metadata.creation_timestamp = Some(Time(Timestamp::from_second(100).unwrap()));
        claim
    }

    fn show(claim: &NodeClaim) -> Vec<String> {
        claim
            .status
            .conditions
            .iter()
            .map(|c| {
                format!(
                    "{}={} {} {:?} @{} g{:?}",
                    c.type_,
                    c.status,
                    c.reason,
                    c.message,
                    c.last_transition_time.0.as_second(),
                    c.observed_generation.unwrap_or(0)
                )
            })
            .collect()
    }

    #[test]
    fn a_new_claim_awaits_reconciliation_since_its_creation() {
        let mut claim = claim();
        claim.conditions_mut(at(130));
        let awaiting = "AwaitingReconciliation \"object is awaiting reconciliation\" @100 g1";
        assert_eq!(
            show(&claim),
            [
                format!("Launched=Unknown {awaiting}"),
                format!("Registered=Unknown {awaiting}"),
                format!("Initialized=Unknown {awaiting}"),
                "Ready=Unknown ReconcilingDependents \"Launched=Unknown, Registered=Unknown, \
                 Initialized=Unknown\" @100 g1"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn ready_follows_its_dependents_and_reports_transitions() {
        let mut claim = claim();
        let mut events = Vec::new();
        for (time, condition_type) in [(110, "Launched"), (120, "Registered"), (130, "Initialized")]
        {
            claim.conditions_mut(at(time));
            let before = claim.status.conditions.clone();
            claim.conditions_mut(at(time)).set_true(condition_type);
            events.extend(
                transitions(&before, &claim.status.conditions)
                    .iter()
                    .map(Transition::event_message),
            );
        }
        assert!(claim.is_ready());
        assert_eq!(
            show(&claim),
            [
                "Launched=True Launched \"\" @110 g1",
                "Registered=True Registered \"\" @120 g1",
                "Initialized=True Initialized \"\" @130 g1",
                "Ready=True Ready \"\" @130 g1",
            ]
        );
        assert_eq!(
            events,
            [
                "Status condition transitioned, Type: Launched, Status: Unknown -> True, \
                 Reason: Launched",
                "Status condition transitioned, Type: Registered, Status: Unknown -> True, \
                 Reason: Registered",
                "Status condition transitioned, Type: Initialized, Status: Unknown -> True, \
                 Reason: Initialized",
                "Status condition transitioned, Type: Ready, Status: Unknown -> True, \
                 Reason: Ready",
            ]
        );
    }

    #[test]
    fn a_false_dependent_makes_ready_false_and_keeps_the_time_while_the_status_stays() {
        let mut pool = NodePool::default();
        pool.metadata.generation = Some(1);
        let mut set = pool.conditions_mut(at(10));
        set.set_true(node_pool::VALIDATION_SUCCEEDED);
        set.set_false(node_pool::NODE_CLASS_READY, "NodeClassNotFound", "first");
        let mut set = pool.conditions_mut(at(20));
        assert!(set.set_false(node_pool::NODE_CLASS_READY, "NodeClassTerminating", "second"));
        assert!(!set.set_false(node_pool::NODE_CLASS_READY, "NodeClassTerminating", "second"));
        let ready = set.get(READY).unwrap();
        assert_eq!(
            (&*ready.status, &*ready.reason, &*ready.message),
            (FALSE, "UnhealthyDependents", "NodeClassReady=False")
        );
        assert_eq!(set.get("NodeClassReady").unwrap().last_transition_time.0.as_second(), 10);
    }

    #[test]
    fn a_new_generation_makes_ready_unknown_until_all_were_seen_again() {
        let mut pool = NodePool::default();
        pool.metadata.generation = Some(1);
        let mut set = pool.conditions_mut(at(10));
        set.set_true(node_pool::VALIDATION_SUCCEEDED);
        set.set_true(node_pool::NODE_CLASS_READY);
        assert!(pool.is_ready());
        pool.metadata.generation = Some(2);
        pool.conditions_mut(at(20)).set_true(node_pool::VALIDATION_SUCCEEDED);
        let ready = get(pool.conditions(), READY).unwrap();
        assert_eq!(
            (&*ready.status, &*ready.message),
            (UNKNOWN, "NodeClassReady=True"),
            "the class was not looked at since the change"
        );
        pool.conditions_mut(at(30)).set_true(node_pool::NODE_CLASS_READY);
        assert!(pool.is_ready());
    }

    #[test]
    fn only_independent_conditions_can_be_removed() {
        let mut claim = claim();
        let mut set = claim.conditions_mut(at(1));
        set.set_true_with_reason(node_claim::DRIFTED, "NodePoolDrifted", "NodePoolDrifted");
        assert!(set.remove(node_claim::DRIFTED));
        assert!(!set.remove(node_claim::DRIFTED));
        assert!(!set.remove(node_claim::LAUNCHED));
        assert!(set.get(node_claim::LAUNCHED).is_some());
    }
}
