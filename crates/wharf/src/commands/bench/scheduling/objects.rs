//! The nodes and pods of the workloads, as upstream's benchmark has them: nodes of 4 cores, 32Gi and
//! 110 pods; pods that ask for 100m and 500Mi.

use serde_json::{Value, json};

use super::workloads::Size;

/// Namespace of the pods that are there before.
pub(super) const BEFORE: &str = "sched-0";
/// Namespace of the pods that are measured.
pub(super) const MEASURED: &str = "sched-1";
/// The label that nodes of a zone share.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The label that tells nodes apart.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// The one node of the workload that fills a single node.
const LARGE_NODE: &str = "large-node";
/// Namespaces of the workloads that select namespaces by label.
const TEAMS: usize = 100;

/// A namespace.
pub(super) fn namespace(name: &str, labels: Value) -> (String, Value) {
    ("/api/v1/namespaces".to_owned(), json!({"metadata": {"name": name, "labels": labels}}))
}

/// A priority class.
pub(super) fn priority_class(name: &str, value: i32) -> (String, Value) {
    (
        "/apis/scheduling.k8s.io/v1/priorityclasses".to_owned(),
        json!({"metadata": {"name": name}, "value": value}),
    )
}

/// A service that selects the pods labelled `app: measured`.
pub(super) fn service(name: &str) -> (String, Value) {
    (
        format!("/api/v1/namespaces/{MEASURED}/services"),
        json!({"metadata": {"name": name}, "spec": {"selector": {"app": "measured"}, "ports": [{"port": 80}]}}),
    )
}

/// A node as all workloads have it.
pub(super) fn node(index: usize) -> Value {
    named_node(&format!("node-{index:05}"), json!({"cpu": "4", "memory": "32Gi", "pods": "110"}))
}

/// A node of the given name and amounts.
pub(super) fn named_node(name: &str, amounts: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {HOSTNAME: name}},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True"}]
        }
    })
}

/// A node in one of so many zones.
fn zoned(index: usize, zones: usize) -> Value {
    let mut node = node(index);
    node["metadata"]["labels"][ZONE] = json!(format!("zone-{}", index % zones + 1));
    node
}

/// A node in the only zone.
pub(super) fn node_in_one_zone(index: usize, _size: &Size) -> Value {
    zoned(index, 1)
}

/// A node in one of three zones.
pub(super) fn node_in_three_zones(index: usize, _size: &Size) -> Value {
    zoned(index, 3)
}

/// A node without a zone.
pub(super) fn plain_node(index: usize, _size: &Size) -> Value {
    node(index)
}

/// A fifth of the nodes is tainted.
pub(super) fn node_tainted_or_not(index: usize, _size: &Size) -> Value {
    let mut node = node(index);
    if index % 5 == 4 {
        node["spec"]["taints"] = json!([{"key": "foo", "effect": "NoSchedule"}]);
    }
    node
}

/// A node with something that only this benchmark asks for.
pub(super) fn node_with_extended_resource(index: usize, _size: &Size) -> Value {
    let mut node = node(index);
    for list in ["capacity", "allocatable"] {
        node["status"][list]["example.com/thing"] = json!("1");
    }
    node
}

/// Plain nodes, and one that holds all the pods.
pub(super) fn node_or_the_large_one(index: usize, size: &Size) -> Value {
    if index + 1 < size.nodes {
        return node(index);
    }
    named_node(LARGE_NODE, json!({"cpu": "90k", "memory": "64Ti", "pods": "90000"}))
}

/// A pod in the namespace of those that are there before, or of those that are measured.
pub(super) fn pod(name: &str, namespace: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{
            "name": "pause",
            "image": "registry.k8s.io/pause:3.10.1",
            "ports": [{"containerPort": 80}],
            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}
        }]}
    })
}

/// A plain pod among those that are there before.
pub(super) fn plain_before(index: usize, _size: &Size) -> Value {
    pod(&format!("before-{index:06}"), BEFORE)
}

/// A plain pod to measure.
pub(super) fn plain(index: usize, _size: &Size) -> Value {
    pod(&format!("measured-{index:06}"), MEASURED)
}

/// A plain pod to measure that the service selects.
pub(super) fn selected(index: usize, size: &Size) -> Value {
    labelled(plain(index, size), "app", "measured")
}

/// A pod to measure with secrets for volumes, which are nothing to a scheduler.
pub(super) fn with_secrets(index: usize, size: &Size) -> Value {
    let mut pod = plain(index, size);
    pod["spec"]["volumes"] = json!([{"name": "secret", "secret": {"secretName": "secret"}}]);
    pod
}

/// A pod to measure that asks for an extended resource.
pub(super) fn with_extended_resource(index: usize, size: &Size) -> Value {
    let mut pod = plain(index, size);
    let resources = &mut pod["spec"]["containers"][0]["resources"];
    resources["requests"]["example.com/thing"] = json!("1");
    resources["limits"] = json!({"example.com/thing": "1"});
    pod
}

/// Nine tenths are plain; the others ask for more than any node has, and for a hearing first.
pub(super) fn impossible_or_not(index: usize, size: &Size) -> Value {
    let mut pod = plain(index, size);
    if index % 10 == 9 {
        pod["spec"]["priorityClassName"] = json!("high");
        pod["spec"]["containers"][0]["resources"]["requests"] =
            json!({"cpu": "9", "memory": "500Mi"});
    }
    pod
}

/// A pod that can be pushed out, at once.
pub(super) fn low_priority(index: usize, size: &Size) -> Value {
    let mut pod = plain_before(index, size);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("900m");
    pod
}

/// A pod that pushes three others out.
pub(super) fn high_priority(index: usize, size: &Size) -> Value {
    let mut pod = plain(index, size);
    pod["spec"]["priorityClassName"] = json!("high");
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("3");
    pod
}

/// A pod that must be in the zone where all nodes are.
pub(super) fn with_node_affinity(index: usize, size: &Size) -> Value {
    let expression = json!({"key": ZONE, "operator": "In", "values": ["zone-1", "zone-2"]});
    required_nodes(plain(index, size), json!({"matchExpressions": [expression]}))
}

/// A pod that names its node, as a DaemonSet's does.
pub(super) fn on_the_large_node(index: usize, size: &Size) -> Value {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [LARGE_NODE]});
    required_nodes(plain(index, size), json!({"matchFields": [field]}))
}

fn required_nodes(mut pod: Value, term: Value) -> Value {
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [term]});
    pod
}

fn labelled(mut pod: Value, key: &str, value: &str) -> Value {
    pod["metadata"]["labels"][key] = json!(value);
    pod
}

/// How a pod stands to pods of its own label.
#[derive(Clone, Copy)]
pub(super) enum Wish {
    /// It needs them near.
    Near,
    /// It needs them away.
    Away,
    /// It would rather have them near.
    RatherNear,
    /// It would rather have them away.
    RatherAway,
}

impl Wish {
    fn field(self) -> (&'static str, bool) {
        match self {
            Self::Near => ("podAffinity", true),
            Self::Away => ("podAntiAffinity", true),
            Self::RatherNear => ("podAffinity", false),
            Self::RatherAway => ("podAntiAffinity", false),
        }
    }
}

fn with_wish(pod: Value, wish: Wish, mut term: Value, color: &str) -> Value {
    let mut pod = labelled(pod, "color", color);
    term["labelSelector"] = json!({"matchLabels": {"color": color}});
    let (field, required) = wish.field();
    let affinity = &mut pod["spec"]["affinity"][field];
    if required {
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = json!([term]);
    } else {
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] =
            json!([{"weight": 1, "podAffinityTerm": term}]);
    }
    pod
}

fn in_both_namespaces(key: &str) -> Value {
    json!({"topologyKey": key, "namespaces": [MEASURED, BEFORE]})
}

/// A pod there before that excludes its like from its node.
pub(super) fn away_before(index: usize, size: &Size) -> Value {
    with_wish(plain_before(index, size), Wish::Away, in_both_namespaces(HOSTNAME), "green")
}

/// The same, measured.
pub(super) fn away(index: usize, size: &Size) -> Value {
    with_wish(plain(index, size), Wish::Away, in_both_namespaces(HOSTNAME), "green")
}

/// A plain pod of the label that others exclude.
pub(super) fn excluded_by_others(index: usize, size: &Size) -> Value {
    labelled(plain(index, size), "color", "green")
}

/// A pod there before that needs its like in its zone.
pub(super) fn near_before(index: usize, size: &Size) -> Value {
    with_wish(plain_before(index, size), Wish::Near, in_both_namespaces(ZONE), "blue")
}

/// The same, measured.
pub(super) fn near(index: usize, size: &Size) -> Value {
    with_wish(plain(index, size), Wish::Near, in_both_namespaces(ZONE), "blue")
}

/// A pod there before that likes its like on its node.
pub(super) fn rather_near_before(index: usize, size: &Size) -> Value {
    with_wish(plain_before(index, size), Wish::RatherNear, in_both_namespaces(HOSTNAME), "red")
}

/// The same, measured.
pub(super) fn rather_near(index: usize, size: &Size) -> Value {
    with_wish(plain(index, size), Wish::RatherNear, in_both_namespaces(HOSTNAME), "red")
}

/// A pod there before that likes its like on other nodes.
pub(super) fn rather_away_before(index: usize, size: &Size) -> Value {
    with_wish(plain_before(index, size), Wish::RatherAway, in_both_namespaces(HOSTNAME), "yellow")
}

/// The same, measured.
pub(super) fn rather_away(index: usize, size: &Size) -> Value {
    with_wish(plain(index, size), Wish::RatherAway, in_both_namespaces(HOSTNAME), "yellow")
}

/// Plain pods and pods of all four wishes in turn.
pub(super) fn every_wish_before(index: usize, size: &Size) -> Value {
    match index % 5 {
        0 => plain_before(index, size),
        1 => near_before(index, size),
        2 => away_before(index, size),
        3 => rather_near_before(index, size),
        _ => rather_away_before(index, size),
    }
}

/// The name of a namespace that is selected by its label.
fn team(index: usize) -> String {
    format!("team-{:02}", index % TEAMS)
}

/// Those namespaces, and the one whose pods are measured, which has the label too.
pub(super) fn team_namespaces() -> Vec<(String, Value)> {
    let labels = || json!({"team": "devops"});
    (0..TEAMS)
        .map(|index| namespace(&team(index), labels()))
        .chain([namespace(MEASURED, labels())])
        .collect()
}

fn of_team(index: usize, measured: bool, wish: Wish, key: &str) -> Value {
    let pod = if measured {
        pod(&format!("measured-{index:06}"), MEASURED)
    } else {
        pod(&format!("before-{index:06}"), &team(index))
    };
    let selector = json!({"matchLabels": {"team": "devops"}});
    with_wish(pod, wish, json!({"topologyKey": key, "namespaceSelector": selector}), "green")
}

/// Pods that know their like by the label of their namespaces: before and measured.
macro_rules! of_teams {
    ($($before:ident, $measured:ident, $wish:expr, $key:expr, $what:literal;)*) => {$(
        #[doc = concat!("A pod there before that ", $what, ".")]
        pub(super) fn $before(index: usize, _size: &Size) -> Value {
            of_team(index, false, $wish, $key)
        }

        /// The same, measured.
        pub(super) fn $measured(index: usize, _size: &Size) -> Value {
            of_team(index, true, $wish, $key)
        }
    )*};
}

of_teams! {
    team_away_before, team_away, Wish::Away, HOSTNAME, "excludes its team from its node";
    team_near_before, team_near, Wish::Near, ZONE, "needs its team in its zone";
    team_rather_away_before, team_rather_away, Wish::RatherAway, HOSTNAME, "likes its team elsewhere";
    team_rather_near_before, team_rather_near, Wish::RatherNear, HOSTNAME, "likes its team near";
}

fn spread(pod: Value, mut constraint: Value) -> Value {
    let mut pod = labelled(pod, "color", "blue");
    constraint["labelSelector"] = json!({"matchLabels": {"color": "blue"}});
    pod["spec"]["topologySpreadConstraints"] = json!([constraint]);
    pod
}

/// A pod that must be spread over the zones.
pub(super) fn spread_over_zones(index: usize, size: &Size) -> Value {
    let constraint =
        json!({"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"});
    spread(plain(index, size), constraint)
}

/// A pod that should be spread over the zones.
pub(super) fn rather_spread_over_zones(index: usize, size: &Size) -> Value {
    let constraint =
        json!({"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway"});
    spread(plain(index, size), constraint)
}

/// A pod that must be spread over the nodes it tolerates.
pub(super) fn spread_over_tolerated_nodes(index: usize, size: &Size) -> Value {
    spread(
        plain(index, size),
        json!({
            "maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "DoNotSchedule",
            "nodeAffinityPolicy": "Honor", "nodeTaintsPolicy": "Honor"
        }),
    )
}
