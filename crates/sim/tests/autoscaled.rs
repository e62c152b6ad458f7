//! Whole rehearsals with load and autoscalers of both kinds: one seed has one history, to the byte.

use std::fmt::Write;
use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use wharf_model::metrics::{ContainerUsage, Usage};
use wharf_model::selector::Selector;
use wharf_ports::metrics::{Metrics, PodQuery, last_scrape};
use wharf_sim::rehearsal::{Options, Rehearsal};
use wharf_sim::scenario;

/// What a rehearsal went through.
#[derive(PartialEq)]
struct History {
    /// What metrics-server would say of each container and node at each scrape.
    usage: String,
    /// The counts of all Deployments whenever one of them changes.
    replicas: String,
    /// All Events at the end, in their order.
    events: String,
}

fn run(seed: u64) -> History {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/autoscaled.yaml");
    let scenario = scenario::load(&file).expect("a scenario");
    let options = Options { seed: Some(seed), ..Options::default() };
    let mut rehearsal = Rehearsal::new(scenario, &options).expect("a world");
    let (mut usage, mut replicas) = (String::new(), String::new());
    let (mut scraped, mut counted) = (None, String::new());
    while rehearsal.advance().expect("it comes to rest") {
        let scrape = last_scrape(rehearsal.now());
        if scraped.replace(scrape) != Some(scrape) {
            writeln!(usage, "{scrape} {}", used(&rehearsal)).expect("memory");
        }
        let counts = counts(&rehearsal);
        if counted != counts {
            writeln!(replicas, "{} {counts}", rehearsal.now()).expect("memory");
            counted = counts;
        }
    }
    let mut events = String::new();
    for event in rehearsal.view().list::<Event>() {
        events.push_str(&serde_json::to_string(event).expect("JSON"));
        events.push('\n');
    }
    History { usage, replicas, events }
}

fn used(rehearsal: &Rehearsal) -> String {
    let (board, now) = (rehearsal.board(), rehearsal.now());
    let pods = rehearsal.view().list_in::<Pod>("default");
    let names: Vec<&str> = pods.filter_map(|pod| pod.metadata.name.as_deref()).collect();
    let selector = Selector::EVERYTHING;
    let query = PodQuery { namespace: "default", selector: &selector, names: &names };
    let amounts = |usage: &Usage| {
        let texts: Vec<String> = usage.iter().map(|(_, amount)| amount.to_api().0).collect();
        texts.join(" ")
    };
    let mut text = String::new();
    for pod in board.pod_metrics(&query, now).expect("a board never refuses") {
        for ContainerUsage { name, usage } in &pod.containers {
            write!(text, "{}/{name} {}; ", pod.pod, amounts(usage)).expect("memory");
        }
    }
    for node in board.node_metrics(now).expect("a board never refuses") {
        write!(text, "{} {}; ", node.node, amounts(&node.usage)).expect("memory");
    }
    text
}

fn counts(rehearsal: &Rehearsal) -> String {
    let counts = rehearsal.view().list::<Deployment>().map(|deployment| {
        let count = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        format!("{}={count}", deployment.metadata.name.as_deref().unwrap_or_default())
    });
    counts.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_seed_has_one_history_of_usage_replicas_and_events() {
    let (first, again, other) = (run(7), run(7), run(8));
    for (what, [one, two, else_]) in [
        ("usage", [&first.usage, &again.usage, &other.usage]),
        ("replicas", [&first.replicas, &again.replicas, &other.replicas]),
        ("events", [&first.events, &again.events, &other.events]),
    ] {
        assert!(one == two, "{what} of the same seed differ: {}", difference(one, two));
        // Which names there are, and to the millisecond when, is drawn.
        assert!(one != else_, "{what} of another seed are the same");
    }
    // Lest nothing be compared.
    assert!(first.replicas.lines().count() > 4, "{}", first.replicas);
    assert!(first.events.contains("EvictedByVPA"), "the sizes were changed");
    assert!(first.events.contains("SuccessfulRescale"), "the count was changed");
    assert!(first.usage.lines().count() > 100, "{}", first.usage);
}

/// The first lines that differ.
fn difference(one: &str, two: &str) -> String {
    let different = one.lines().zip(two.lines()).find(|(one, two)| one != two);
    different.map_or_else(|| "one is longer".to_owned(), |(one, two)| format!("{one}\n{two}"))
}
