//! Upstream's rules for what pods ask of each other, one by one.

#[allow(dead_code, reason = "each test uses a part of it")]
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{GIB, ZONES, node, pod, pool, requirement, selecting};
use smallvec::SmallVec;
use wharf_model::instance_type::CapacityType;
use wharf_model::labels;
use wharf_model::requirements::Operator;
use wharf_model::selector::Selector;
use wharf_provision::node::{ExistingNode, ResidentPod};
use wharf_provision::pod::{Constraints, PodRequest};
use wharf_provision::pool::Pool;
use wharf_provision::solve::{Packing, PreferencePolicy, Settings, Solver};
use wharf_provision::terms::{HostPort, TopologyKind, TopologyTerm};

const ZONE: &str = labels::TOPOLOGY_ZONE;
const HOST: &str = labels::HOSTNAME;
const SPREAD: TopologyKind = TopologyKind::Spread {
    max_skew: 1,
    min_domains: None,
    honor_affinity: true,
    honor_taints: false,
};

fn app(name: &str) -> Arc<BTreeMap<String, String>> {
    Arc::new(BTreeMap::from([("app".to_owned(), name.to_owned())]))
}

fn term(kind: TopologyKind, key: &str, selected: &str) -> TopologyTerm {
    TopologyTerm {
        kind,
        key: key.into(),
        namespaces: SmallVec::from_iter(["default".into()]),
        selector: Selector::from_map(&app(selected)),
        preference: None,
    }
}

fn preferred(weight: i32, term: TopologyTerm) -> TopologyTerm {
    TopologyTerm { preference: Some(weight), ..term }
}

/// `count` pods of an app with terms.
fn pods(name: &str, count: usize, cpu: i64, terms: &[TopologyTerm]) -> Vec<PodRequest> {
    constrained(name, count, cpu, terms, Constraints::default())
}

fn constrained(
    name: &str,
    count: usize,
    cpu: i64,
    terms: &[TopologyTerm],
    constraints: Constraints,
) -> Vec<PodRequest> {
    let topology = terms.iter().cloned().map(Arc::new).collect();
    let constraints = Arc::new(Constraints { topology, ..constraints });
    let one = |number| PodRequest {
        labels: app(name),
        constraints: Arc::clone(&constraints),
        ..pod(&format!("{name}-{number:02}"), cpu, GIB / 4)
    };
    (0..count).map(one).collect()
}

/// A node in a zone with pods of some apps, each with anti-affinity against `repels` in the zone.
fn resident_node(name: &str, zone: &str, apps: &[(&str, Option<&str>)]) -> ExistingNode {
    let (mut existing, _) = node(name, &pool("default"), "c.8", CapacityType::OnDemand, &[]);
    existing.labels.insert(ZONE.to_owned(), zone.to_owned());
    existing.labels.insert(HOST.to_owned(), name.to_owned());
    let resident = |(name, repels): &(&str, Option<&str>)| ResidentPod {
        namespace: "default".into(),
        labels: app(name),
        anti_affinity: repels
            .iter()
            .map(|repels| Arc::new(term(TopologyKind::AntiAffinity, ZONE, repels)))
            .collect(),
    };
    existing.pods = apps.iter().map(resident).collect();
    existing
}

fn settings() -> Settings {
    Settings { packing: Packing::Upstream, ..Settings::default() }
}

/// Where pods go, sorted: nodes as `<name>: <apps>`, claims as `<value of key>: <apps>`, then what
/// failed.
fn places(
    pools: Vec<Pool>,
    nodes: Vec<ExistingNode>,
    pods: &[PodRequest],
    key: &str,
) -> Vec<String> {
    placed_with(settings(), pools, nodes, pods, key)
}

fn placed_with(
    settings: Settings,
    pools: Vec<Pool>,
    nodes: Vec<ExistingNode>,
    pods: &[PodRequest],
    key: &str,
) -> Vec<String> {
    let mut solver = Solver::new(pools, nodes, settings);
    let solution = solver.solve(pods);
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let app = |pod: u32| pods[pod as usize].labels["app"].as_str();
    for (pod, node) in &solution.on_nodes {
        let name = solver.nodes()[*node as usize].name.to_string();
        places.entry(name).or_default().push(app(*pod));
    }
    for (number, claim) in solution.claims.iter().enumerate() {
        let value = claim
            .requirements
            .get(key)
            .and_then(|requirement| Some(requirement.values.allowed()?.join("|")));
        let place = format!("{} #{number}", value.unwrap_or_else(|| "any".to_owned()));
        places.insert(place, claim.pods.iter().map(|pod| app(*pod)).collect());
    }
    for (pod, why) in &solution.failed {
        places.entry(format!("failed: {why}")).or_default().push(app(*pod));
    }
    let text = |(place, mut apps): (String, Vec<&str>)| {
        apps.sort_unstable();
        format!("{place}: {}", apps.join(" "))
    };
    places.into_iter().map(text).collect()
}

#[test]
fn pods_spread_over_zones_evenly() {
    let web = pods("web", 5, 1000, &[term(SPREAD, ZONE, "web")]);
    assert_eq!(
        places(vec![pool("default")], vec![], &web, ZONE),
        ["east-a #0: web web", "east-b #1: web web web"]
    );
}

#[test]
fn pods_on_nodes_count_in_a_spread_unless_their_node_goes() {
    let nodes = vec![resident_node("a", ZONES[0], &[("web", None), ("web", None)])];
    let web = pods("web", 3, 1000, &[term(SPREAD, ZONE, "web")]);
    assert_eq!(
        places(vec![pool("default")], nodes.clone(), &web, ZONE),
        ["a: web", "east-b #0: web web"]
    );
    let mut solver = Solver::new(vec![pool("default")], nodes, settings());
    let batch: Vec<_> = web.iter().map(|pod| (pod, solver.intern(pod))).collect();
    let mut without = fixedbitset::FixedBitSet::with_capacity(1);
    without.insert(0);
    let claims = solver.simulate(&batch, &without).claims;
    let counts: Vec<usize> = claims.iter().map(|claim| claim.pods.len()).collect();
    assert_eq!(counts, [2, 1]);
}

#[test]
fn a_spread_counts_only_nodes_that_the_pod_could_use() {
    let nodes = vec![resident_node("a", ZONES[0], &[("web", None), ("web", None)])];
    let spread = [term(SPREAD, ZONE, "web")];
    let on_arm = constrained("web", 2, 1000, &spread, selecting(labels::ARCH, "arm64"));
    assert_eq!(
        places(vec![pool("default")], nodes.clone(), &on_arm, ZONE),
        ["east-a #0: web", "east-b #1: web"]
    );
    let TopologyKind::Spread { max_skew, min_domains, honor_taints, .. } = SPREAD else {
        unreachable!("a spread")
    };
    let ignoring =
        TopologyKind::Spread { max_skew, min_domains, honor_taints, honor_affinity: false };
    let ignoring = [term(ignoring, ZONE, "web")];
    let on_arm = constrained("web", 2, 1000, &ignoring, selecting(labels::ARCH, "arm64"));
    assert_eq!(places(vec![pool("default")], nodes, &on_arm, ZONE), ["east-b #0: web web"]);
}

#[test]
fn too_few_domains_make_the_minimum_zero() {
    let least = TopologyKind::Spread {
        max_skew: 1,
        min_domains: Some(3),
        honor_affinity: true,
        honor_taints: false,
    };
    let web = pods("web", 3, 1000, &[term(least, ZONE, "web")]);
    let places = places(vec![pool("default")], vec![], &web, ZONE);
    assert_eq!(&places[..2], ["east-a #0: web", "east-b #1: web"]);
    assert_eq!(
        places[2],
        "failed: unsatisfiable topology constraint for topology spread, \
         key=topology.kubernetes.io/zone (counts = map[east-a:1 east-b:1]): web"
    );
}

#[test]
fn pods_spread_over_hosts_and_capacity_types() {
    let web = pods("web", 2, 1000, &[term(SPREAD, HOST, "web")]);
    let other = pods("other", 2, 500, &[]);
    let both = [web, other].concat();
    assert_eq!(
        places(vec![pool("default")], vec![], &both, HOST),
        ["any #0: other web", "any #1: other web"]
    );
    let mut mixed = pool("default");
    mixed.requirements.remove(labels::CAPACITY_TYPE);
    let web = pods("web", 4, 1000, &[term(SPREAD, labels::CAPACITY_TYPE, "web")]);
    assert_eq!(
        places(vec![mixed], vec![], &web, labels::CAPACITY_TYPE),
        ["on-demand #0: web web", "spot #1: web web"]
    );
}

#[test]
fn anti_affinity_keeps_pods_apart_and_others_away() {
    let apart = [term(TopologyKind::AntiAffinity, HOST, "web")];
    let web = pods("web", 2, 1000, &apart);
    assert_eq!(places(vec![pool("default")], vec![], &web, HOST), ["any #0: web", "any #1: web"]);
    // A claim whose zone is open blocks every zone it could be in.
    let apart = [term(TopologyKind::AntiAffinity, ZONE, "web")];
    let web = pods("web", 2, 1000, &apart);
    let placed = places(vec![pool("default")], vec![], &web, ZONE);
    assert_eq!(placed.len(), 2);
    assert_eq!(placed[0], "any #0: web");
    assert!(
        placed[1].starts_with("failed: unsatisfiable topology constraint for pod anti-affinity")
    );
    // What is on nodes repels by its own terms.
    let nodes = vec![resident_node("a", ZONES[0], &[("db", Some("web"))])];
    let plain = pods("web", 1, 1000, &[]);
    assert_eq!(places(vec![pool("default")], nodes, &plain, ZONE), ["east-b #0: web"]);
}

#[test]
fn affinity_follows_pods_or_begins_somewhere() {
    let near = [term(TopologyKind::Affinity, ZONE, "db")];
    let nodes = vec![resident_node("b", ZONES[1], &[("db", None)])];
    let web = pods("web", 2, 9000, &near);
    assert_eq!(places(vec![pool("default")], nodes, &web, ZONE), ["east-b #0: web web"]);
    let near = [term(TopologyKind::Affinity, ZONE, "web")];
    let web = pods("web", 3, 20_000, &near);
    assert_eq!(
        places(vec![pool("default")], vec![], &web, ZONE),
        ["east-a #0: web", "east-a #1: web", "east-a #2: web"]
    );
    let lonely = pods("web", 1, 100, &[term(TopologyKind::Affinity, HOST, "db")]);
    let placed = places(vec![pool("default")], vec![], &lonely, HOST);
    assert!(placed[0].starts_with("failed: unsatisfiable topology constraint for pod affinity"));
}

#[test]
fn preferences_are_given_up_in_order() {
    // The heavier of two pod affinities goes first, then anti-affinity, then node affinity, then
    // ScheduleAnyway; what remains is kept as if it were required.
    let constraints = Constraints {
        preferred: vec![(
            100,
            [requirement(labels::ARCH, Operator::In, &["arm64"])].into_iter().collect(),
        )],
        topology: [
            preferred(0, term(SPREAD, ZONE, "web")),
            preferred(1, term(TopologyKind::Affinity, ZONE, "light")),
            preferred(9, term(TopologyKind::Affinity, ZONE, "heavy")),
            preferred(50, term(TopologyKind::AntiAffinity, HOST, "web")),
            term(TopologyKind::AntiAffinity, HOST, "required"),
        ]
        .into_iter()
        .map(Arc::new)
        .collect(),
        ..Constraints::default()
    };
    let weights = |rung: &wharf_provision::pod::Rung| {
        let mut text: Vec<String> = rung
            .topology
            .iter()
            .map(|term| term.preference.map_or("!".to_owned(), |weight| weight.to_string()))
            .collect();
        text.push(if rung.requirements.is_empty() { "any" } else { "arm" }.to_owned());
        text.join(" ")
    };
    let ladder: Vec<String> = constraints.ladder(true).iter().map(weights).collect();
    assert_eq!(
        ladder,
        ["0 1 9 50 ! arm", "0 1 50 ! arm", "0 50 ! arm", "0 ! arm", "0 ! any", "! any", "! any"]
    );
}

#[test]
fn a_preference_opens_a_node_though_another_would_do() {
    let apart = [preferred(1, term(TopologyKind::AntiAffinity, HOST, "web"))];
    let web = pods("web", 2, 1000, &apart);
    let place = |preferences| {
        let settings = Settings { preferences, ..settings() };
        placed_with(settings, vec![pool("default")], vec![], &web, HOST)
    };
    assert_eq!(place(PreferencePolicy::Respect), ["any #0: web", "any #1: web"]);
    assert_eq!(place(PreferencePolicy::Ignore), ["any #0: web web"]);
}

#[test]
fn pods_do_not_share_a_host_port() {
    let port = HostPort { ip: "0.0.0.0".into(), port: 80, protocol: "TCP".into() };
    let constraints = Constraints { ports: vec![port.clone()], ..Constraints::default() };
    let web = constrained("web", 2, 1000, &[], constraints.clone());
    let plain = pods("plain", 1, 500, &[]);
    let all = [web, plain].concat();
    assert_eq!(
        places(vec![pool("default")], vec![], &all, HOST),
        ["any #0: plain web", "any #1: web"]
    );
    let taken = ExistingNode { ports: vec![port], ..resident_node("a", ZONES[0], &[]) };
    let free = resident_node("b", ZONES[0], &[]);
    let web = constrained("web", 2, 1000, &[], constraints);
    assert_eq!(
        places(vec![pool("default")], vec![taken, free], &web, HOST),
        ["any #0: web", "b: web"]
    );
}
