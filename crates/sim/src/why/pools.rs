//! What the NodePools would do for a pod that no node takes, as `wharf why` tells it.

use serde_json::{Value, json};
use wharf_controllers::karpenter::{
    Exclusion, Hindrance, Outlook, PoolAnswer, PoolReview, PoolSays, Refusal, Shortage,
};
use wharf_model::resources::amount_text;

/// For people: a heading, and each pool's name with what it says.
pub(super) fn rows(pools: &[PoolReview]) -> Option<(&'static str, Vec<Vec<String>>)> {
    if pools.is_empty() {
        return None;
    }
    let takes = |pool: &PoolReview| matches!(pool.says, PoolSays::Answer(PoolAnswer::Takes(_)));
    let heading = if pools.iter().any(takes) {
        "a machine would be bought for it:\n"
    } else {
        "no NodePool would buy a machine for it:\n"
    };
    let mut rows = vec![["NODEPOOL", "SAYS"].map(str::to_owned).to_vec()];
    rows.extend(pools.iter().map(|pool| vec![pool.node_pool.to_string(), says(pool)]));
    Some((heading, rows))
}

/// For scripts: the same, each pool with what is told of it to people.
pub(super) fn to_json(outlook: &Outlook) -> Value {
    let told = |pool: &PoolReview| {
        let mut value = serde_json::to_value(pool).unwrap_or_default();
        value["says"] = json!(says(pool));
        value
    };
    let pools: Vec<Value> = outlook.node_pools.iter().map(told).collect();
    json!({"expectedOn": outlook.expected_on, "nodePools": pools})
}

/// What a pool says, in words.
pub(super) fn says(pool: &PoolReview) -> String {
    match &pool.says {
        PoolSays::Unused(why) => format!("nothing: {why}"),
        PoolSays::Answer(PoolAnswer::Takes(offer)) if offer.types == 1 => {
            format!("it would buy {} for {}", offer.cheapest, offer.price.per_hour())
        }
        PoolSays::Answer(PoolAnswer::Takes(offer)) => format!(
            "it would buy {} for {}, the cheapest of {} types that hold it",
            offer.cheapest,
            offer.price.per_hour(),
            offer.types
        ),
        PoolSays::Answer(PoolAnswer::Refuses(refusal)) => refused(pool, refusal),
    }
}

fn refused(pool: &PoolReview, refusal: &Refusal) -> String {
    match &refusal.because {
        Hindrance::Taint { taint } => format!("the pod does not tolerate its taint {taint}"),
        Hindrance::Requirements { contradictions } => {
            format!("its requirements are against it: {}", contradictions.join("; "))
        }
        Hindrance::TooSmall { shortages } if shortages.is_empty() => {
            "none of its node class's machines has all that is asked for".to_owned()
        }
        Hindrance::TooSmall { shortages } => {
            format!("none of its node class's machines holds it: {}", list(shortages))
        }
        Hindrance::Excluded { instance_type, by, shortages } => {
            let by: Vec<String> = by.iter().map(exclusion).collect();
            let mut text = format!("{instance_type} would hold it, but {}", by.join(", and "));
            if !shortages.is_empty() {
                text.push_str("; of what is left: ");
                text.push_str(&list(shortages));
            }
            text
        }
        Hindrance::Limits { instance_type, exceeded } => {
            let exceeded = exceeded.iter().map(|one| {
                let limit = pool.limits.iter().find(|limit| limit.resource == one.resource);
                let text = |amount| amount_text(&one.resource, amount);
                format!(
                    "{} {}, where {} is left of the limit of {}",
                    one.resource,
                    text(one.has),
                    text(one.left.max(0)),
                    text(limit.map_or(0, |limit| limit.limit))
                )
            });
            let exceeded: Vec<String> = exceeded.collect();
            format!("its limits: {instance_type} would hold it and has {}", exceeded.join("; "))
        }
        Hindrance::Nodes => {
            let nodes = pool.limits.iter().find(|limit| limit.resource == "nodes");
            let limit = nodes.map_or(0, |nodes| nodes.limit);
            format!("its limits: it has as many nodes as it may, {limit}")
        }
        Hindrance::MinValues { key, wanted, found } => {
            format!("its minValues: {wanted} different {key} are wanted, and {found} hold it")
        }
        Hindrance::Others { says } => says.clone(),
    }
}

fn exclusion(exclusion: &Exclusion) -> String {
    match exclusion {
        Exclusion::NodePool { requirement } => {
            format!("the pool's requirement {requirement} excludes it")
        }
        Exclusion::Pod { requirement } => format!("the pod asks for {requirement}"),
        Exclusion::Offerings => "it is not sold in the zones and ways that are left".to_owned(),
    }
}

fn list(shortages: &[Shortage]) -> String {
    let texts = shortages.iter().map(|short| {
        let (resource, asked) = (&short.resource, amount_text(&short.resource, short.asked));
        match &short.instance_type {
            Some(name) => {
                let most = amount_text(resource, short.most);
                format!("{resource}: asks {asked}, {name} has the most for pods, {most}")
            }
            None => format!("{resource}: asks {asked}, no machine has any"),
        }
    });
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use wharf_controllers::karpenter::{Exceeded, Limit, Offer};
    use wharf_model::money::Price;

    use super::*;

    fn pool(says: PoolSays) -> PoolReview {
        let limits = vec![
            Limit { resource: "cpu".into(), limit: 100_000, left: 20_000 },
            Limit { resource: "nodes".into(), limit: 4, left: 0 },
        ];
        PoolReview { node_pool: "default".into(), limits, says }
    }

    fn refuses(because: Hindrance) -> PoolReview {
        let refusal = Refusal { message: "upstream's words".to_owned(), because };
        pool(PoolSays::Answer(PoolAnswer::Refuses(refusal)))
    }

    #[test]
    fn each_pool_says_what_it_would_do_with_the_numbers() {
        let short = |most, instance_type: Option<&str>| Shortage {
            resource: "cpu".into(),
            asked: 64_000,
            most,
            instance_type: instance_type.map(Into::into),
        };
        let requirement = "karpenter.k8s.aws/instance-size In [large]".to_owned();
        let table = [
            (
                Hindrance::Taint { taint: "dedicated=gpu:NoSchedule".to_owned() },
                "the pod does not tolerate its taint dedicated=gpu:NoSchedule",
            ),
            (
                Hindrance::Requirements { contradictions: vec!["a".to_owned(), "b".to_owned()] },
                "its requirements are against it: a; b",
            ),
            (
                Hindrance::TooSmall { shortages: vec![short(7_910, Some("c7i.2xlarge"))] },
                "none of its node class's machines holds it: \
                 cpu: asks 64, c7i.2xlarge has the most for pods, 7910m",
            ),
            (
                Hindrance::TooSmall { shortages: vec![short(0, None)] },
                "none of its node class's machines holds it: cpu: asks 64, no machine has any",
            ),
            (
                Hindrance::TooSmall { shortages: Vec::new() },
                "none of its node class's machines has all that is asked for",
            ),
            (
                Hindrance::Excluded {
                    instance_type: "c7i.24xlarge".into(),
                    by: vec![
                        Exclusion::NodePool { requirement: requirement.clone() },
                        Exclusion::Pod { requirement: "zone In [a]".to_owned() },
                        Exclusion::Offerings,
                    ],
                    shortages: vec![short(1_930, Some("c7i.large"))],
                },
                "c7i.24xlarge would hold it, but the pool's requirement \
                 karpenter.k8s.aws/instance-size In [large] excludes it, and the pod asks for zone \
                 In [a], and it is not sold in the zones and ways that are left; of what is left: \
                 cpu: asks 64, c7i.large has the most for pods, 1930m",
            ),
            (
                Hindrance::Limits {
                    instance_type: "c7i.24xlarge".into(),
                    exceeded: vec![Exceeded { resource: "cpu".into(), has: 96_000, left: 20_000 }],
                },
                "its limits: c7i.24xlarge would hold it and has cpu 96, where 20 is left of the limit of 100",
            ),
            (Hindrance::Nodes, "its limits: it has as many nodes as it may, 4"),
            (
                Hindrance::MinValues { key: "family".into(), wanted: 3, found: 1 },
                "its minValues: 3 different family are wanted, and 1 hold it",
            ),
            (Hindrance::Others { says: "anti-affinity".to_owned() }, "anti-affinity"),
        ];
        for (because, expected) in table {
            assert_eq!(says(&refuses(because)), expected);
        }
        let unused = pool(PoolSays::Unused("it is being deleted".to_owned()));
        assert_eq!(says(&unused), "nothing: it is being deleted");
    }

    #[test]
    fn one_pool_that_takes_it_is_enough() {
        let offer = Offer {
            types: 3,
            cheapest: "c7g.16xlarge".into(),
            price: Price::from_nano_dollars_per_hour(2_320_000_000),
        };
        let pools = [refuses(Hindrance::Nodes), pool(PoolSays::Answer(PoolAnswer::Takes(offer)))];
        let (heading, told) = rows(&pools).expect("there are pools");
        assert_eq!(heading, "a machine would be bought for it:\n");
        assert!(told[2][1].starts_with("it would buy c7g.16xlarge for $2.32"), "{told:?}");
        assert_eq!(rows(&pools[..1]).expect("one").0, "no NodePool would buy a machine for it:\n");
        assert_eq!(rows(&[]), None);
        let json = to_json(&Outlook { expected_on: None, node_pools: pools.to_vec() });
        let json = &json["nodePools"];
        assert_eq!(json[0]["nodePool"], "default");
        assert_eq!(json[0]["refuses"]["because"]["reason"], "nodes");
        assert_eq!(
            json[0]["limits"][0],
            json!({"resource": "cpu", "limit": 100_000, "left": 20_000})
        );
        assert_eq!(json[1]["takes"]["cheapest"], "c7g.16xlarge");
        assert_eq!(json[1]["says"], told[2][1]);
    }
}
