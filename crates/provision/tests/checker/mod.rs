//! Looks at a plan from nothing but the case and the machine types: whether every pod is placed
//! once, every machine holds its pods, and all that they ask for is so in the end. It shares no
//! code with what makes plans.

use std::collections::BTreeMap;

use serde_json::Value;
use wharf_model::instance_type::{CapacityType, InstanceType};

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// What is wrong with an answer; nothing if it is right. With `related` also what pods ask of each
/// other, strictly: as it is in the end, in whatever order pods were placed.
pub(crate) fn faults(
    case: &Value,
    answer: &Value,
    types: &BTreeMap<String, InstanceType>,
    related: bool,
) -> Vec<String> {
    let mut faults = Vec::new();
    let groups: BTreeMap<&str, &Value> =
        list(&case["pod_groups"]).map(|group| (text(&group["name"]), group)).collect();
    let mut missing: BTreeMap<&str, i64> =
        groups.iter().map(|(name, group)| (*name, number(&group["count"]))).collect();
    for (name, count) in answer["unplaced"].as_object().into_iter().flatten() {
        *missing.get_mut(name.as_str()).expect("a known group") -= number(count);
    }
    let mut total = 0.0;
    for (index, machine) in list(&answer["machines"]).enumerate() {
        let name = text(&machine["type"]);
        let mut fault = |what: String| faults.push(format!("machine {index} ({name}): {what}"));
        let kind = &types[name];
        let sold = kind.offerings.iter().find(|offering| {
            offering.zone == text(&machine["zone"])
                && offering.capacity_type.as_str() == text(&machine["capacity_type"])
        });
        total += machine["usd_per_hour"].as_f64().expect("a price");
        match sold {
            None => fault("is not sold there".to_owned()),
            Some(offering) => {
                let list = offering.price.nano_dollars_per_hour() as f64 / 1e9;
                let spot = offering.capacity_type == CapacityType::Spot;
                let price = machine["usd_per_hour"].as_f64().expect("a price");
                if !spot && (price - list).abs() > 1e-9 {
                    fault(format!("costs {list}, not {price}"));
                }
            }
        }
        if !list(&case["zones"]).any(|zone| zone == &machine["zone"]) {
            fault("is in no zone of the case".to_owned());
        }
        let pool = &case["nodepool"]["spec"]["template"]["spec"]["requirements"];
        for requirement in list(pool) {
            if !allows(requirement, kind, machine) {
                fault(format!("is not one of the pool's: {requirement}"));
            }
        }
        let (mut cpu, mut memory, mut pods) = (0, 0, 0);
        let mut load = |group: &Value, count: i64| {
            cpu += number(&group["cpu_m"]) * count;
            memory += number(&group["memory_mib"]) * count * (1 << 20);
            pods += count;
        };
        list(&case["daemonsets"]).for_each(|daemon| load(daemon, number(&daemon["count"])));
        for (name, count) in pods_of(machine) {
            *missing.get_mut(name).expect("a known group") -= count;
            load(groups[name], count);
            let selector = groups[name]["node_selector"].as_object();
            for (key, value) in selector.into_iter().flatten() {
                if !kind.label_values(key).iter().any(|known| known.as_str() == value) {
                    fault(format!("{name} may not be here: {key}"));
                }
            }
        }
        let room = &kind.allocatable;
        if cpu > room.cpu_milli || memory > room.memory_bytes || pods > room.pods {
            fault(format!("holds too much: {cpu}m cpu, {memory} bytes, {pods} pods"));
        }
    }
    for (name, count) in missing {
        if count != 0 {
            faults.push(format!("{name}: {count} pods are missing (or too many)"));
        }
    }
    if (total - answer["usd_per_hour"].as_f64().expect("a cost")).abs() > 1e-6 {
        faults.push(format!("the machines cost {total}"));
    }
    if related {
        faults.extend(relations(case, answer, &groups));
    }
    faults
}

/// What pods ask of each other.
fn relations(case: &Value, answer: &Value, groups: &BTreeMap<&str, &Value>) -> Vec<String> {
    let mut faults = Vec::new();
    let machines: Vec<&Value> = list(&answer["machines"]).collect();
    let place = |key: &str, index: usize| match key {
        HOST => index.to_string(),
        ZONE => text(&machines[index]["zone"]).to_owned(),
        other => panic!("a case spreads over {other}"),
    };
    let matches = |selector: &Value, name: &str| {
        let mut selector = selector.as_object().into_iter().flatten();
        selector.all(|(key, value)| groups[name]["labels"][key] == *value)
    };
    // Per term: how many of its pods are in each place.
    let mut known: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    let mut counts = |key: &str, selector: &Value| {
        known
            .entry(format!("{key} {selector}"))
            .or_insert_with(|| {
                let mut counts: BTreeMap<String, i64> = BTreeMap::new();
                for (index, machine) in machines.iter().enumerate() {
                    for (name, count) in pods_of(machine) {
                        if matches(selector, name) {
                            *counts.entry(place(key, index)).or_default() += count;
                        }
                    }
                }
                counts
            })
            .clone()
    };
    for (index, machine) in machines.iter().enumerate() {
        for (name, _) in pods_of(machine) {
            let mut check = |field: &str, holds: &dyn Fn(&Value, i64, i64, i64) -> bool| {
                for term in list(&groups[name][field]) {
                    let key = text(&term["key"]);
                    let counts = counts(key, &term["selector"]);
                    let count = |place: &str| counts.get(place).copied().unwrap_or(0);
                    let zones = list(&case["zones"]).map(|zone| count(text(zone)));
                    // A new host is always possible.
                    let least = if key == ZONE { zones.min().unwrap_or(0) } else { 0 };
                    let itself = i64::from(matches(&term["selector"], name));
                    if !holds(term, count(&place(key, index)), least, itself) {
                        faults.push(format!("machine {index}: {name}: {field} {term}"));
                    }
                }
            };
            check("spread", &|term, here, least, _| here - least <= number(&term["max_skew"]));
            check("anti_affinity", &|_, here, _, itself| here - itself == 0);
            check("affinity", &|_, here, _, _| here > 0);
        }
    }
    faults
}

fn allows(requirement: &Value, kind: &InstanceType, machine: &Value) -> bool {
    let key = text(&requirement["key"]);
    let values: Vec<String> = match key {
        ZONE => vec![text(&machine["zone"]).to_owned()],
        "karpenter.sh/capacity-type" => vec![text(&machine["capacity_type"]).to_owned()],
        _ => kind.label_values(key).iter().map(ToString::to_string).collect(),
    };
    let asked: Vec<&str> = list(&requirement["values"]).map(text).collect();
    let bound = || asked[0].parse::<i64>().expect("a bound");
    values.iter().any(|value| match text(&requirement["operator"]) {
        "In" => asked.contains(&value.as_str()),
        "NotIn" => !asked.contains(&value.as_str()),
        "Gt" => value.parse::<i64>().is_ok_and(|value| value > bound()),
        "Lt" => value.parse::<i64>().is_ok_and(|value| value < bound()),
        other => panic!("a case uses {other}"),
    })
}

fn pods_of(machine: &Value) -> impl Iterator<Item = (&str, i64)> {
    let pods = machine["pods"].as_object().into_iter().flatten();
    pods.map(|(name, count)| (name.as_str(), number(count)))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}
