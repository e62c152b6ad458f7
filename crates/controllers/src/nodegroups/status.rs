//! How a node group is doing, in EKS' words.

use std::time::Duration;

use wharf_model::nodegroup::{
    AutoScalingGroup, GroupResources, Health, Issue, Nodegroup, ProfileCondition, ResourceMetadata,
    SYNCED, status,
};
use wharf_model::time::Time;

/// EKS gives up on the creation of a group whose nodes have not joined by then.
pub(super) const CREATION_LIMIT: Duration = Duration::from_mins(25);

/// What a group's status follows from.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Machines that are there and stay.
    pub(super) machines: usize,
    /// Those of them whose nodes are ready.
    pub(super) ready: usize,
    /// Machines on their way in or out.
    pub(super) moving: usize,
    /// How many there should be.
    pub(super) desired: usize,
    /// What is wrong, if anything is.
    pub(super) issue: Option<Issue>,
    /// Whether that will never go away by itself.
    pub(super) is_final: bool,
}

/// What AWS knows groups of a cluster by.
pub(super) struct Account<'a> {
    pub(super) id: &'a str,
    pub(super) region: &'a str,
    pub(super) cluster: &'a str,
}

/// Writes a group's status as the facts have it; says when it will be another without anything else
/// happening.
pub(super) fn write(
    draft: &mut Nodegroup,
    facts: &Facts,
    account: &Account<'_>,
    now: Time,
) -> Option<Time> {
    let name = draft.spec.name.clone();
    let uid = draft.metadata.uid.clone().unwrap_or_default();
    let asg = draft.auto_scaling_group();
    let is_deleting = draft.is_deleting();
    let Account { id, region, cluster } = account;
    let status = &mut draft.status;
    let created = status.created_at.get_or_insert_with(|| now.to_meta());
    let give_up = Time::from(&*created) + CREATION_LIMIT;
    status.ack_resource_metadata.get_or_insert_with(|| ResourceMetadata {
        arn: Some(format!("arn:aws:eks:{region}:{id}:nodegroup/{cluster}/{name}/{uid}")),
        owner_account_id: (*id).to_owned(),
        region: (*region).to_owned(),
    });
    status.resources.get_or_insert_with(|| GroupResources {
        auto_scaling_groups: vec![AutoScalingGroup { name: asg.clone() }],
    });
    let before = status.status.clone().unwrap_or_else(|| status::CREATING.to_owned());
    let mut issue = facts.issue.clone();
    let is_there = facts.ready >= facts.desired && facts.machines == facts.desired;
    let was_created = !matches!(before.as_str(), status::CREATING | status::CREATE_FAILED);
    let mut again = None;
    let word = if is_deleting {
        status::DELETING
    } else if is_there && facts.moving == 0 {
        issue = None;
        status::ACTIVE
    } else if was_created {
        match issue {
            Some(_) => status::DEGRADED,
            None => status::UPDATING,
        }
    } else if facts.is_final {
        status::CREATE_FAILED
    } else if give_up <= now {
        issue.get_or_insert_with(|| Issue {
            code: "NodeCreationFailure".to_owned(),
            message: "Instances failed to join the kubernetes cluster".to_owned(),
            resource_ids: vec![asg],
        });
        status::CREATE_FAILED
    } else {
        again = Some(give_up);
        status::CREATING
    };
    if before != word && was_created {
        status.modified_at = Some(now.to_meta());
    }
    status.status = Some(word.to_owned());
    status.health = issue.map(|issue| Health { issues: vec![issue] });
    set_synced(&mut status.conditions, word == status::ACTIVE, now);
    again
}

fn set_synced(conditions: &mut Vec<ProfileCondition>, synced: bool, now: Time) {
    let word = if synced { "True" } else { "False" };
    match conditions.iter_mut().find(|condition| condition.type_ == SYNCED) {
        Some(condition) if condition.status == word => {}
        Some(condition) => {
            condition.status = word.to_owned();
            condition.last_transition_time = Some(now.to_meta());
        }
        None => conditions.push(ProfileCondition {
            type_: SYNCED.to_owned(),
            status: word.to_owned(),
            last_transition_time: Some(now.to_meta()),
            ..ProfileCondition::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: Account<'static> = Account { id: "1", region: "r", cluster: "c" };

    fn facts(machines: usize, ready: usize, moving: usize, desired: usize) -> Facts {
        Facts { machines, ready, moving, desired, ..Facts::default() }
    }

    fn short() -> Option<Issue> {
        Some(Issue { code: "AsgInstanceLaunchFailures".to_owned(), ..Issue::default() })
    }

    #[test]
    fn a_groups_life_in_eks_words() {
        let mut group = Nodegroup::default();
        group.spec.name = "workers".to_owned();
        group.metadata.uid = Some("u".to_owned());
        let mut at = |seconds: i64, facts: Facts| {
            let again = write(&mut group, &facts, &ACCOUNT, Time::from_seconds(seconds));
            (group.status.status.clone().unwrap_or_default(), again.is_some(), group.status.clone())
        };
        assert_eq!(at(0, facts(0, 0, 2, 2)).0, "CREATING");
        assert_eq!(at(10, Facts { issue: short(), ..facts(0, 0, 2, 2) }).0, "CREATING");
        let (word, again, status) = at(60, facts(2, 2, 0, 2));
        assert_eq!((word.as_str(), again, &status.health), ("ACTIVE", false, &None));
        let arn = status.ack_resource_metadata.and_then(|known_as| known_as.arn);
        assert_eq!(arn.as_deref(), Some("arn:aws:eks:r:1:nodegroup/c/workers/u"));
        assert_eq!(at(70, facts(2, 2, 1, 3)).0, "UPDATING");
        assert_eq!(at(80, Facts { issue: short(), ..facts(2, 2, 0, 3) }).0, "DEGRADED");
        assert_eq!(at(90, facts(3, 3, 0, 3)).0, "ACTIVE");
        assert_eq!(at(95, facts(3, 2, 0, 3)).0, "UPDATING", "a node is not ready any more");
    }

    #[test]
    fn a_group_that_never_has_its_nodes_fails() {
        let mut group = Nodegroup::default();
        let again = write(&mut group, &facts(2, 0, 0, 2), &ACCOUNT, Time::from_seconds(0));
        assert_eq!(again, Some(Time::from_seconds(0) + CREATION_LIMIT));
        write(&mut group, &facts(2, 0, 0, 2), &ACCOUNT, Time::from_seconds(1_500));
        assert_eq!(group.status.status.as_deref(), Some("CREATE_FAILED"));
        let issue = &group.status.health.clone().unwrap_or_default().issues[0];
        assert_eq!(issue.code, "NodeCreationFailure");
        write(&mut group, &facts(2, 2, 0, 2), &ACCOUNT, Time::from_seconds(1_501));
        assert_eq!(group.status.status.as_deref(), Some("ACTIVE"), "they came after all");
    }
}
