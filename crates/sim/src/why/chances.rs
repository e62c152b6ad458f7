//! A pod's chances as `wharf why` tells them to people: short tables, the most telling first.

use wharf_cloud::catalog::{Catalog, NodeSettings};
use wharf_controllers::karpenter::Outlook;
use wharf_scheduler::Plugin;
use wharf_scheduler::review::{Beyond, Review};

use super::pools;

/// How many nodes are listed one by one without being asked to.
const NODES_LISTED: usize = 5;

/// What else there is to say of a pod's chances.
#[derive(Clone, Copy, Debug)]
pub struct Telling<'a> {
    /// Whether every node is listed, however many there are.
    pub every_node: bool,
    /// The machines that there are to buy; `None` where no cloud is known.
    pub catalog: Option<&'a Catalog>,
    /// What provisioning would do for a pod that no node takes; `None` where nothing buys machines.
    pub outlook: Option<&'a Outlook>,
}

/// The chances of a pod that waits, for people.
pub(super) fn text(review: &Review, telling: Telling<'_>) -> String {
    let mut text = String::new();
    if !review.gates.is_empty() {
        text.push_str(&format!(
            "it waits for its scheduling gates to be removed: {}\n",
            review.gates.join(", ")
        ));
    }
    if review.nodes == 0 {
        text.push_str("there are no nodes\n");
        text.push_str(&bought(telling.outlook));
        return text;
    }
    if review.feasible > 0 {
        text.push_str(&format!(
            "{} of {} would take it now; the best:\n",
            review.feasible,
            nodes(review.nodes)
        ));
        text.push_str(&scores(review));
    } else {
        text.push_str(&format!("none of {} takes it now:\n", nodes(review.nodes)));
    }
    if let Some((plugin, says)) = &review.whole {
        text.push_str(&format!("  {}: {says}\n", plugin.name()));
    } else if review.refused.len() <= NODES_LISTED || telling.every_node {
        text.push_str(&refused(review));
    } else {
        text.push_str(&groups(review));
    }
    for beyond in &review.beyond {
        text.push_str(&too_much(beyond, telling));
    }
    text.push_str(&bought(telling.outlook));
    if let Some(eviction) = &review.eviction {
        let victims = eviction.victims.iter();
        let victims: Vec<_> = victims
            .map(|victim| format!("{} (priority {})", victim.pod, victim.priority))
            .collect();
        text.push_str(&format!(
            "room can be made: {} would be evicted from {}",
            victims.join(", "),
            eviction.node
        ));
        if eviction.violations > 0 {
            text.push_str(&format!(", {} against a disruption budget", eviction.violations));
        }
        text.push('\n');
    }
    if review.feasible == 0 && review.remedies.is_empty() {
        text.push_str("no small change would make it fit\n");
    } else if review.feasible == 0 {
        text.push_str("what would make it fit, the smallest change first:\n");
        text.push_str(&remedies(review));
    }
    text
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

fn bought(outlook: Option<&Outlook>) -> String {
    let Some(outlook) = outlook else { return String::new() };
    if let Some(node) = &outlook.expected_on {
        return format!("it is expected on {node}, which is on its way or has room in a moment\n");
    }
    pools::rows(&outlook.node_pools)
        .map_or_else(String::new, |(heading, rows)| heading.to_owned() + &table(&rows, 0..0))
}

/// The score table: a column for each plugin that had something to say.
fn scores(review: &Review) -> String {
    let mut plugins: Vec<Plugin> = Vec::new();
    for (plugin, _) in review.best.iter().flat_map(|scored| &scored.scores) {
        if !plugins.contains(plugin) {
            plugins.push(*plugin);
        }
    }
    let heads = ["NODE", "TOTAL"].into_iter().chain(plugins.iter().map(|plugin| plugin.name()));
    let mut rows: Vec<Vec<String>> = vec![heads.map(str::to_owned).collect()];
    for scored in &review.best {
        let score = |plugin: &Plugin| {
            let found = scored.scores.iter().find(|(known, _)| known == plugin);
            found.map_or_else(|| "-".to_owned(), |(_, score)| score.to_string())
        };
        let mut row = vec![scored.node.to_string(), scored.total.to_string()];
        row.extend(plugins.iter().map(score));
        rows.push(row);
    }
    table(&rows, 1..usize::MAX)
}

fn refused(review: &Review) -> String {
    if review.refused.is_empty() {
        return String::new();
    }
    let mut rows = vec![["NODE", "REFUSED BY", "BECAUSE"].map(str::to_owned).to_vec()];
    rows.extend(review.refused.iter().map(|refused| {
        vec![refused.node.to_string(), refused.plugin.name().to_owned(), refused.says.clone()]
    }));
    table(&rows, 0..0)
}

fn groups(review: &Review) -> String {
    let heads = ["NODES", "REFUSED BY", "CLOSEST", "BECAUSE"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(review.groups.iter().map(|group| {
        vec![
            group.nodes.to_string(),
            group.plugin.name().to_owned(),
            group.closest.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            group.says.clone(),
        ]
    }));
    table(&rows, 0..1)
}

fn remedies(review: &Review) -> String {
    let rows: Vec<_> = review
        .remedies
        .iter()
        .map(|remedy| {
            let changes: Vec<_> = remedy.changes.iter().map(ToString::to_string).collect();
            let on = match remedy.nodes {
                1 => format!("then {} takes it", remedy.node),
                all => format!("then {} of {} take it", all, nodes(review.nodes)),
            };
            vec![changes.join("; "), on]
        })
        .collect();
    table(&rows, 0..0)
}

fn too_much(beyond: &Beyond, telling: Telling<'_>) -> String {
    let Beyond { resource, node, .. } = beyond;
    let asked = beyond.asked_text();
    let most = beyond.most_text();
    let mut text = match node {
        Some(node) => {
            format!(
                "it asks for {asked} of {resource}, more than any node has: {node} has the most, {most}"
            )
        }
        None => format!("it asks for {asked} of {resource}, which no node has"),
    };
    if let Some(catalog) = telling.catalog {
        text.push_str(&largest_machine(beyond, catalog, telling.outlook.is_some()));
    }
    text.push('\n');
    text
}

/// Whether a machine could be bought that has as much, if anybody bought any.
fn largest_machine(beyond: &Beyond, catalog: &Catalog, anybody_buys: bool) -> String {
    let region = catalog.region().name;
    let types = catalog.instance_types(&NodeSettings::default());
    let most = types.iter().max_by_key(|machine| machine.allocatable.get(&beyond.resource));
    let Some(most) = most.filter(|most| most.allocatable.get(&beyond.resource) > 0) else {
        return format!("; nor has any machine type of {region}");
    };
    let has = most.allocatable.get(&beyond.resource);
    if has >= beyond.asked {
        let but = if anybody_buys { "" } else { ", but there is no NodePool to buy one" };
        return format!("; machine types of {region} have up to {}{but}", amount(beyond, has));
    }
    format!(
        "; nor has any machine type of {region}: {} has the most, {}. It can never run",
        most.name,
        amount(beyond, has)
    )
}

fn amount(beyond: &Beyond, amount: i64) -> String {
    Beyond { most: amount, ..beyond.clone() }.most_text()
}

/// A table, indented; the columns in `right` hold numbers.
pub(super) fn table(rows: &[Vec<String>], right: std::ops::Range<usize>) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if right.contains(&column) {
                line.push_str(&format!(" {cell:>width$} "));
            } else {
                line.push_str(&format!(" {cell:<width$} "));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{Value, json};
    use wharf_scheduler::review::review;
    use wharf_scheduler::{Profile, Snapshot};

    use super::*;

    fn node(name: &str, taint: Option<&str>) -> Node {
        let taints: Vec<_> =
            taint.map(|key| json!({"key": key, "effect": "NoSchedule"})).into_iter().collect();
        serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"taints": taints},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}
        }))
        .expect("a node")
    }

    fn pod(name: &str, on: Option<&str>, cpu: &str, spec: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": on, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}
        });
        for (field, value) in spec.as_object().expect("fields") {
            pod["spec"][field] = value.clone();
        }
        serde_json::from_value(pod).expect("a pod")
    }

    fn told(nodes: &[Node], pods: &[Pod], asked: &Pod, telling: Telling<'_>) -> String {
        let mut snapshot = Snapshot::new();
        for node in nodes {
            snapshot.set_node(node);
        }
        for pod in pods {
            let info = snapshot.compile(pod);
            let node = info.node_name.clone();
            snapshot.place(info, &node);
        }
        text(&review(&mut snapshot, asked, &Profile::default()), telling)
    }

    const PLAIN: Telling<'_> = Telling { every_node: false, catalog: None, outlook: None };

    #[test]
    fn a_few_nodes_are_told_one_by_one() {
        let nodes = [node("a", None), node("b", None), node("gpu", Some("dedicated"))];
        let low = pod("low", Some("a"), "2590m", json!({"priority": 0}));
        let high = pod("high", Some("b"), "3", json!({"priority": 9}));
        let asked = pod("p", None, "2", json!({"priority": 5}));
        assert_eq!(
            told(&nodes, &[low, high], &asked, PLAIN),
            "none of 3 nodes takes it now:
  NODE  REFUSED BY        BECAUSE
  a     NodeResourcesFit  cpu: asks 2, free 1410m of 4, short 590m
  b     NodeResourcesFit  cpu: asks 2, free 1 of 4, short 1
  gpu   TaintToleration   does not tolerate taint dedicated:NoSchedule
room can be made: default/low (priority 0) would be evicted from a
what would make it fit, the smallest change first:
  tolerate dedicated:NoSchedule      then gpu takes it
  ask for 1410m of cpu instead of 2  then a takes it
  take pod default/low off a         then a takes it
"
        );
    }

    #[test]
    fn many_nodes_are_told_in_groups() {
        let mut nodes: Vec<_> = (0..6).map(|index| node(&format!("n{index}"), None)).collect();
        nodes.push(node("gpu", Some("dedicated")));
        let asked = pod("p", None, "5", json!({}));
        let text = told(&nodes, &[], &asked, PLAIN);
        assert_eq!(
            text,
            "none of 7 nodes takes it now:
  NODES  REFUSED BY        CLOSEST  BECAUSE
      6  NodeResourcesFit  n0       cpu: asks 5, free 4 of 4, short 1
      1  TaintToleration   gpu      does not tolerate taint dedicated:NoSchedule
it asks for 5 of cpu, more than any node has: n0 has the most, 4
what would make it fit, the smallest change first:
  ask for 4 of cpu instead of 5  then 6 of 7 nodes take it
"
        );
        let every = told(&nodes, &[], &asked, Telling { every_node: true, ..PLAIN });
        assert!(every.contains("  n5    NodeResourcesFit  cpu: asks 5"), "{every}");
    }

    #[test]
    fn who_would_take_it_is_told_with_the_scores() {
        let nodes = [node("a", None), node("b", None)];
        let busy = pod("busy", Some("a"), "2", json!({}));
        let text = told(&nodes, &[busy], &pod("p", None, "1", json!({})), PLAIN);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("2 of 2 nodes would take it now; the best:"));
        let heads: Vec<_> = lines.next().expect("heads").split_whitespace().collect();
        assert_eq!(heads[..3], ["NODE", "TOTAL", "TaintToleration"]);
        let best: Vec<_> = lines.next().expect("the best").split_whitespace().collect();
        assert_eq!((best[0], best.len()), ("b", heads.len()));
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn what_can_never_run_is_told_by_the_catalogue() {
        let catalog = Catalog::load("us-east-1").expect("there is one");
        let telling = Telling { catalog: Some(&catalog), ..PLAIN };
        let nodes = [node("a", None)];
        let never = told(&nodes, &[], &pod("p", None, "5000", json!({})), telling);
        assert!(never.contains("it asks for 5k of cpu, more than any node has: a has the most, 4; nor has any machine type of us-east-1: "), "{never}");
        assert!(never.contains("It can never run"), "{never}");
        let dear = told(&nodes, &[], &pod("p", None, "64", json!({})), telling);
        assert!(dear.contains("; machine types of us-east-1 have up to "), "{dear}");
        assert!(dear.contains(", but there is no NodePool to buy one\n"), "{dear}");
        assert!(!dear.contains("never"), "{dear}");
        let telling = Telling { outlook: Some(&Outlook::default()), ..telling };
        let bought = told(&nodes, &[], &pod("p", None, "64", json!({})), telling);
        assert!(!bought.contains("no NodePool"), "{bought}");
    }

    #[test]
    fn gates_and_empty_clusters_are_told() {
        let asked =
            pod("p", None, "1", json!({"schedulingGates": [{"name": "example.com/quota"}]}));
        assert_eq!(
            told(&[], &[], &asked, PLAIN),
            "it waits for its scheduling gates to be removed: example.com/quota\nthere are no nodes\n"
        );
    }
}
