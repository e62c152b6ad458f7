//! What each NodePool would do for a pod that finds no node, as `wharf why` tells it: by the
//! provisioner's own snapshot and solver.

use std::sync::Arc;

use compact_str::CompactString;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use wharf_cloud::catalog::Catalog as CloudCatalog;
use wharf_model::karpenter::NodePool;
use wharf_model::karpenter::conditions::{self, Conditioned};
use wharf_model::resources::Resources;
use wharf_model::time::Time;
use wharf_ports::view::View;
use wharf_provision::pod::Origin;
use wharf_provision::review::PoolAnswer;

use super::KarpenterSettings;
use super::pods::{Requests, is_owned_by};
use super::shared::Shared;
use super::snapshot::Snapshot;

/// What provisioning would do for a pod that no node takes now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlook {
    /// The node, or the NodeClaim without a node yet, on which provisioning expects the pod.
    pub expected_on: Option<CompactString>,
    /// What each NodePool says, in the order in which they are tried; those that are not asked come
    /// last. Empty for a pod that comes with its node.
    pub node_pools: Vec<PoolReview>,
}

/// What a NodePool says of a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReview {
    /// The pool.
    pub node_pool: CompactString,
    /// Its limits, and what is left of them.
    pub limits: Vec<Limit>,
    /// What it says.
    #[serde(flatten)]
    pub says: PoolSays,
}

/// A limit of a NodePool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// The resource; `nodes` for their number.
    pub resource: CompactString,
    /// The limit, in the resource's unit.
    pub limit: i64,
    /// What is left of it.
    pub left: i64,
}

/// What a NodePool says of a pod, if it is asked at all.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PoolSays {
    /// No machines are bought from it for any pod, and why.
    Unused(String),
    /// It takes the pod or refuses it.
    #[serde(untagged)]
    Answer(PoolAnswer),
}

/// What provisioning would do for a pod that no node takes now.
///
/// What the cloud has run out of in the last minutes is not considered: only the controllers know.
pub fn review(
    view: &View,
    catalog: &Arc<CloudCatalog>,
    settings: KarpenterSettings,
    pod: &Pod,
    now: Time,
) -> Outlook {
    if is_owned_by(pod, &["DaemonSet", "Node"]) {
        return Outlook::default();
    }
    let unused = |pool: &NodePool, why: String| PoolReview {
        node_pool: name(pool).into(),
        limits: Vec::new(),
        says: PoolSays::Unused(why),
    };
    let Some(request) = Requests::new(view).of(pod, Origin::Pending) else {
        let why = "no machine can be where the pod's volumes are or will be";
        let unused = |pool| unused(pool, why.to_owned());
        let node_pools = view.list::<NodePool>().map(unused).collect();
        return Outlook { expected_on: None, node_pools };
    };
    let shared = Shared::new(Arc::clone(catalog), settings);
    let snapshot = Snapshot::gather(&shared, view, now);
    let mut solver = snapshot.solver(&shared, false, now);
    let expected = solver.solve(std::slice::from_ref(&request)).on_nodes.first().copied();
    let expected_on = expected.map(|(_, node)| solver.nodes()[node as usize].name.clone());
    let answers = solver.review(&request);
    let mut node_pools: Vec<PoolReview> = std::iter::zip(solver.pools(), answers)
        .filter_map(|(pool, answer)| {
            let ready = snapshot.pools.iter().map(|ready| ready.pool);
            let object = ready.into_iter().find(|object| name(object) == pool.name)?;
            let limits = Resources::from_map(&object.spec.limits);
            let limit = |(resource, left): &(CompactString, i64)| Limit {
                resource: resource.clone(),
                limit: limits.get(resource),
                left: *left,
            };
            Some(PoolReview {
                node_pool: pool.name.clone(),
                limits: pool.remaining.iter().map(limit).collect(),
                says: PoolSays::Answer(answer),
            })
        })
        .collect();
    let others = view.list::<NodePool>();
    node_pools.extend(others.filter_map(|pool| Some(unused(pool, why_unused(pool)?))));
    Outlook { expected_on, node_pools }
}

/// Why a pool is not among those that may launch.
fn why_unused(pool: &NodePool) -> Option<String> {
    if pool.metadata.deletion_timestamp.is_some() {
        return Some("it is being deleted".to_owned());
    }
    if pool.spec.is_static() {
        return Some("it keeps a fixed number of nodes".to_owned());
    }
    if pool.is_ready() {
        return None;
    }
    let because = conditions::get(pool.conditions(), conditions::READY)
        .map(|condition| condition.message.as_str())
        .filter(|message| !message.is_empty());
    Some(match because {
        Some(because) => format!("it is not ready, {because}"),
        None => "it is not ready".to_owned(),
    })
}

fn name(pool: &NodePool) -> &str {
    pool.metadata.name.as_deref().unwrap_or_default()
}
