//! Who takes a pod in a cluster with several sorts of compute: Fargate, managed node groups, Karpenter and
//! Auto Mode side by side. Each says whether it would, and by which rule.
//!
//! The order is that in which they come to it: Fargate's webhook when the pod is created; then the
//! scheduler, which knows the nodes of groups like any; and only for what finds no node, the NodePools.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Serialize;
use wharf_cloud::catalog::Catalog;
use wharf_controllers::fargate;
use wharf_controllers::karpenter::{Outlook, PoolAnswer, PoolReview, PoolSays};
use wharf_controllers::nodegroups::{group_of_node, template_nodes};
use wharf_model::auto_mode;
use wharf_model::karpenter::NodePool;
use wharf_model::nodegroup::Nodegroup;
use wharf_ports::view::View;
use wharf_scheduler::review::review;
use wharf_scheduler::{Profile, Snapshot};

use super::{PodReview, chances, pools};

/// What one of them says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compute {
    /// Who, `node group web`.
    pub who: String,
    /// Whether it takes the pod.
    pub takes: bool,
    /// By which rule.
    pub because: String,
}

/// What is known of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// Its name.
    pub name: &'a str,
    /// What the region sells.
    pub catalog: &'a Catalog,
    /// How the scheduler is configured.
    pub profiles: &'a [Profile],
}

/// What each sort says of a pod; nothing where there is only one. `outlook` is what NodePools would do.
pub fn takers(
    pod: &Pod,
    told: &PodReview,
    outlook: Option<&Outlook>,
    cluster: Cluster<'_>,
    view: &View,
) -> Vec<Compute> {
    let fargate = fargate::who_takes(pod, view);
    let is_fargates = fargate.as_ref().is_some_and(|taker| taker.is_fargate);
    let mut all = Vec::new();
    all.extend(fargate.map(|taker| Compute {
        who: "Fargate".to_owned(),
        takes: taker.is_fargate,
        because: taker.text,
    }));
    let elsewhere = elsewhere(pod, is_fargates, cluster.profiles);
    for group in view.list::<Nodegroup>() {
        all.push(match &elsewhere {
            Some(why) => refuses(format!("node group {}", group.spec.name), why.clone()),
            None => of_group(pod, group, told, cluster, view),
        });
    }
    for pool in outlook.iter().flat_map(|outlook| &outlook.node_pools) {
        let who = pool_name(pool, view);
        all.push(match &elsewhere {
            Some(why) => refuses(who, why.clone()),
            None => Compute {
                who,
                takes: matches!(pool.says, PoolSays::Answer(PoolAnswer::Takes(_))),
                because: pools::says(pool),
            },
        });
    }
    if all.len() < 2 { Vec::new() } else { all }
}

/// For people.
pub(super) fn text(takers: &[Compute]) -> String {
    if takers.is_empty() {
        return String::new();
    }
    let mut rows = vec![["COMPUTE", "TAKES IT", "BECAUSE"].map(str::to_owned).to_vec()];
    rows.extend(takers.iter().map(|one| {
        let takes = if one.takes { "yes" } else { "no" };
        vec![one.who.clone(), takes.to_owned(), one.because.clone()]
    }));
    "what each sort of compute says of it:\n".to_owned() + &chances::table(&rows, 0..0)
}

/// Why nothing that the scheduler or a NodePool says counts.
fn elsewhere(pod: &Pod, is_fargates: bool, profiles: &[Profile]) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let name = spec.scheduler_name.as_deref().filter(|name| !name.is_empty())?;
    if is_fargates {
        return Some(format!("its schedulerName is {name}, which asks no node that is there"));
    }
    let own = profiles.iter().any(|profile| profile.is_for(pod));
    (!own).then(|| format!("its schedulerName is {name}, and no scheduler here has that name"))
}

fn refuses(who: String, because: String) -> Compute {
    Compute { who, takes: false, because }
}

fn pool_name(pool: &PoolReview, view: &View) -> String {
    let found = view.get_cluster::<NodePool>(&pool.node_pool);
    let group = found.map_or("", |pool| pool.spec.template.spec.node_class_ref.group.as_str());
    let sort = if group == auto_mode::GROUP { "Auto Mode" } else { "Karpenter" };
    format!("{sort} NodePool {}", pool.node_pool)
}

/// What a new machine of a group would say, and which of those there are have room.
fn of_group(
    pod: &Pod,
    group: &Nodegroup,
    told: &PodReview,
    cluster: Cluster<'_>,
    view: &View,
) -> Compute {
    let who = format!("node group {}", group.spec.name);
    let mut snapshot = Snapshot::new();
    let templates = template_nodes(group, cluster.catalog, cluster.name, view);
    if templates.is_empty() {
        return refuses(who, "it can have no machines: see its health".to_owned());
    }
    for node in &templates {
        snapshot.set_node(node);
    }
    let profile = cluster.profiles.iter().find(|profile| profile.is_for(pod));
    let of_new = review(&mut snapshot, pod, &profile.cloned().unwrap_or_default());
    if of_new.feasible == 0 {
        let because = match (&of_new.whole, of_new.refused.first()) {
            (Some((plugin, says)), _) => format!("{}: {says}", plugin.name()),
            (None, Some(refused)) => format!("{}: {}", refused.plugin.name(), refused.says),
            (None, None) => "none of its machines would".to_owned(),
        };
        return refuses(who, because);
    }
    let refusing: BTreeSet<&str> =
        told.review.refused.iter().map(|refused| refused.node.as_str()).collect();
    let nodes: Vec<&Node> = view
        .list::<Node>()
        .filter(|node| group_of_node(node) == Some(group.spec.name.as_str()))
        .collect();
    let room = nodes
        .iter()
        .filter(|node| !node.metadata.name.as_deref().is_some_and(|name| refusing.contains(name)));
    let (room, all, sizes) = (room.count(), nodes.len(), group.sizes());
    let because = if room > 0 && told.review.whole.is_none() {
        format!("{room} of its {all} nodes have room")
    } else {
        format!(
            "its labels, taints and size are right, but none of its {all} nodes has room; it has {} of at most {}, and nothing here raises that by itself",
            sizes.desired, sizes.max
        )
    };
    Compute { who, takes: room > 0, because }
}
