//! How a node of a group is emptied: cordoned, its pods evicted, and after 15 minutes at the latest its
//! machine goes whatever is left on it, since budgets do not hold up a smaller size.
//!
//! <https://docs.aws.amazon.com/eks/latest/userguide/managed-node-update-behavior.html>

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_model::instance::Instance;
use wharf_model::labels;
use wharf_model::object::Object;
use wharf_model::pod::is_terminal;
use wharf_model::time::Time;
use wharf_ports::cluster::{Part, Write};
use wharf_ports::view::View;

/// On an Instance that its group gives up: since when, in nanoseconds.
pub(super) const SINCE: &str = "sim.wharf.dev/draining-since";
/// On an Instance that its group gives up: why.
pub(super) const WHY: &str = "sim.wharf.dev/draining-why";
/// How long a drain may take.
pub(super) const LIMIT: Duration = Duration::from_mins(15);
/// How often to try to evict again.
pub(super) const AGAIN: Duration = Duration::from_secs(5);

/// What a drain has come to.
#[derive(Debug)]
pub(super) enum Drain {
    /// There is more to wait for; these writes on the way.
    Waiting(Vec<Write>),
    /// The machine can go.
    Over,
}

/// Since when a machine is being given up; `None` for one that stays.
pub(super) fn since(machine: &Instance) -> Option<Time> {
    let text = machine.metadata.annotations.as_ref()?.get(SINCE)?;
    // What cannot be read was not written here; such a drain is over at once.
    Some(Time::from_nanos(text.parse().unwrap_or(0)))
}

/// The machine, marked as one that is given up.
pub(super) fn mark(machine: &Instance, why: &str, now: Time) -> Write {
    let mut draft = machine.clone();
    let annotations = draft.metadata.annotations.get_or_insert_default();
    annotations.insert(SINCE.to_owned(), now.as_nanos().to_string());
    annotations.insert(WHY.to_owned(), why.to_owned());
    Write::Update { object: Box::new(draft), part: Part::Main }
}

/// The next thing to do for a machine that is given up.
pub(super) fn drain(machine: &Instance, since: Time, view: &View, now: Time) -> Drain {
    let name = machine.spec.private_dns_name.as_str();
    let Some(node) = view.get_cluster::<Node>(name) else { return Drain::Over };
    if now >= since + LIMIT {
        return Drain::Over;
    }
    if let Some(cordoned) = cordon(node) {
        return Drain::Waiting(vec![cordoned]);
    }
    let waiting: Vec<&Object> = view
        .pods_on(name)
        .map(|object| &**object)
        .filter(|object| object.typed::<Pod>().is_some_and(is_waited_for))
        .collect();
    if waiting.is_empty() {
        return Drain::Over;
    }
    let staying = waiting.iter().filter(|pod| pod.header().deleting.is_none());
    let evict = |pod: &&Object| Write::Evict { pod: pod.key().clone(), uid: pod.uid().into() };
    Drain::Waiting(staying.map(evict).collect())
}

/// Keeps new pods and load balancers off; `None` if that is done.
fn cordon(node: &Node) -> Option<Write> {
    let mut draft = node.clone();
    draft.spec.get_or_insert_default().unschedulable = Some(true);
    let node_labels = draft.metadata.labels.get_or_insert_default();
    node_labels.insert(labels::EXCLUDE_FROM_LOAD_BALANCERS.to_owned(), "true".to_owned());
    (draft != *node).then(|| Write::Update { object: Box::new(draft), part: Part::Main })
}

/// Whether a drain waits for a pod: not for those of DaemonSets and of the node itself.
fn is_waited_for(pod: &Pod) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let stays = owners.any(|owner| matches!(owner.kind.as_str(), "DaemonSet" | "Node"));
    let annotations = pod.metadata.annotations.as_ref();
    let is_mirror = annotations.is_some_and(|all| all.contains_key(labels::MIRROR_POD));
    !stays && !is_mirror && !is_terminal(pod)
}
