//! The Auto Scaling group behind a node group, as a plan: how many machines to launch and where, and
//! which to give up. Nothing is done here.
//!
//! Launches go to the zone with the fewest machines. Of the machines that are one too many, those of
//! the zone with the most go first, in it the oldest; that is the default termination policy without
//! what needs launch templates of several ages.
//! <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-termination-policies.html>

use std::collections::BTreeMap;

use wharf_model::time::Time;

/// A machine of a group that is not being given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Instance id.
    pub(super) id: String,
    /// Availability zone.
    pub(super) zone: String,
    /// When it was launched.
    pub(super) launched: Time,
}

/// What a group does to have as many machines as it should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// One launch each: the zones in the order in which they are tried.
    pub(super) launches: Vec<Vec<String>>,
    /// Ids of the machines to give up.
    pub(super) retired: Vec<String>,
}

/// The plan for `desired` machines, where `under_way` are the zones of launches not yet answered.
pub(super) fn plan(
    members: &[Member],
    under_way: &[String],
    desired: usize,
    zones: &[String],
) -> Plan {
    let mut counts: BTreeMap<&str, usize> = zones.iter().map(|zone| (zone.as_str(), 0)).collect();
    let of_members = members.iter().map(|member| member.zone.as_str());
    for zone in of_members.chain(under_way.iter().map(String::as_str)) {
        *counts.entry(zone).or_default() += 1;
    }
    let have = members.len() + under_way.len();
    let mut plan = Plan::default();
    for _ in have..desired {
        let mut order: Vec<&String> = zones.iter().collect();
        order.sort_by_key(|zone| (counts.get(zone.as_str()).copied(), zone.as_str()));
        let Some(first) = order.first() else { break };
        *counts.entry(first.as_str()).or_default() += 1;
        plan.launches.push(order.into_iter().cloned().collect());
    }
    // A launch under way cannot be called back; its machine is given up once it is there.
    let excess = have.saturating_sub(desired).min(members.len());
    let mut staying: Vec<&Member> = members.iter().collect();
    for _ in 0..excess {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        staying.iter().for_each(|member| *counts.entry(&member.zone).or_default() += 1);
        let next = staying.iter().enumerate().min_by_key(|(_, member)| {
            let in_zone = counts.get(member.zone.as_str()).copied().unwrap_or(0);
            (std::cmp::Reverse(in_zone), &member.zone, member.launched, &member.id)
        });
        let Some((index, _)) = next else { break };
        plan.retired.push(staying.remove(index).id.clone());
    }
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(id: &str, zone: &str, launched: i64) -> Member {
        Member { id: id.to_owned(), zone: zone.to_owned(), launched: Time::from_seconds(launched) }
    }

    fn zones(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn launches_fill_the_emptiest_zones_first() {
        let members = [member("i-1", "a", 1), member("i-2", "a", 2), member("i-3", "b", 3)];
        let plan = plan(&members, &zones(&["b"]), 7, &zones(&["a", "b", "c"]));
        let first: Vec<&str> = plan.launches.iter().map(|order| order[0].as_str()).collect();
        assert_eq!(first, ["c", "c", "a"]);
        assert_eq!(plan.launches[0], ["c", "a", "b"], "the others are tried after it");
        assert_eq!(plan.retired, [""; 0]);
    }

    #[test]
    fn the_fullest_zone_loses_its_oldest_machine_first() {
        let members = [
            member("i-old", "b", 1),
            member("i-1", "a", 7),
            member("i-2", "a", 5),
            member("i-3", "a", 9),
        ];
        assert_eq!(plan(&members, &[], 2, &zones(&["a", "b"])).retired, ["i-2", "i-1"]);
        assert_eq!(plan(&members, &[], 0, &zones(&["a", "b"])).retired.len(), 4);
        let under_way = zones(&["a"]);
        assert_eq!(plan(&members, &under_way, 4, &zones(&["a", "b"])).retired, ["i-2"]);
    }

    #[test]
    fn without_a_zone_nothing_is_launched() {
        assert_eq!(plan(&[], &[], 3, &[]), Plan::default());
    }

    proptest! {
        /// A plan leads to the number asked for, and leaves zones as even as launches alone or
        /// retirements alone can make them.
        #[test]
        fn plans_lead_to_what_is_desired_and_keep_zones_even(
            places in proptest::collection::vec((0_usize..3, 0_i64..50), 0..12),
            under_way in proptest::collection::vec(0_usize..3, 0..3),
            desired in 0_usize..20,
        ) {
            let names = ["a", "b", "c"];
            let members: Vec<Member> = places.iter().enumerate()
                .map(|(index, (zone, at))| member(&format!("i-{index}"), names[*zone], *at))
                .collect();
            let under_way: Vec<String> = under_way.iter().map(|zone| names[*zone].to_owned()).collect();
            let plan = plan(&members, &under_way, desired, &zones(&names));
            prop_assert!(plan.launches.is_empty() || plan.retired.is_empty());
            let have = members.len() + under_way.len() + plan.launches.len() - plan.retired.len();
            prop_assert_eq!(have, desired.max(under_way.len()));
            let spread = |counts: [usize; 3]| counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
            let count = |zone: &str, with: bool| {
                members.iter().filter(|m| m.zone == zone && !plan.retired.contains(&m.id)).count()
                    + under_way.iter().filter(|z| *z == zone).count()
                    + plan.launches.iter().filter(|order| with && order[0] == zone).count()
            };
            if !plan.launches.is_empty() {
                let (before, after) = (names.map(|z| count(z, false)), names.map(|z| count(z, true)));
                prop_assert!(spread(after) <= spread(before).max(1));
            }
        }
    }
}
