//! Node repair of managed groups: the machine of a node that is broken for too long is given up, and the
//! group has another one, unless so many of its nodes are broken that the fault lies elsewhere.
//!
//! <https://docs.aws.amazon.com/eks/latest/userguide/node-repair.html>

use k8s_openapi::api::core::v1::Node;
use wharf_model::instance::Instance;
use wharf_model::kinds::Kind;
use wharf_model::nodegroup::Nodegroup;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::controller::Step;
use wharf_ports::reason::{Because, Reason};
use wharf_ports::view::View;
use wharf_provision::repair::{Broken, broken, holds_back_group};

use super::controller::{NAME, id_of, look_again};
use super::drain;

/// When a node has been broken for long enough; `None` for one that is not.
pub(super) fn due(node: &Node) -> Option<Time> {
    broken(node).map(|broken| broken.due)
}

/// Gives up the machines of a group's broken nodes, but for those that go anyway.
pub(super) fn repair(
    key: &ObjectKey,
    group: &Nodegroup,
    staying: &[&Instance],
    going: &[String],
    view: &View,
    now: Time,
    step: &mut Step,
) {
    let config = group.spec.node_repair_config.as_ref();
    if group.is_deleting() || config.is_none_or(|config| config.enabled != Some(true)) {
        return;
    }
    let of_machine =
        |machine: &&Instance| broken(view.get_cluster::<Node>(&machine.spec.private_dns_name)?);
    let found: Vec<(&Instance, Broken)> =
        staying.iter().filter_map(|machine| Some((*machine, of_machine(machine)?))).collect();
    let held_back = holds_back_group(found.len(), staying.len());
    for (machine, broken) in &found {
        let id = id_of(machine);
        if now < broken.due {
            look_again(step, broken.due.since(now));
        } else if !held_back && !going.contains(&id) {
            step.write(drain::mark(machine, "node repair", now));
            step.reasons.push(Reason {
                kind: Kind::of::<Nodegroup>(),
                key: key.clone(),
                by: NAME,
                decision: format!("replaces {id} ({})", machine.spec.private_dns_name),
                because: vec![
                    Because::new(
                        broken.condition,
                        format!("{} ({}) since {}", broken.status, broken.reason, broken.since),
                    ),
                    Because::new(
                        "unhealthy",
                        format!("{} of {} nodes", found.len(), staying.len()),
                    ),
                ],
            });
        }
    }
}
