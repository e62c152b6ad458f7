//! Three pods, two nodes: two are placed, for the third there is no room. `cargo run --example place`

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use wharf_scheduler::{Decision, Memo, Profile, Rotation, Snapshot, schedule_with};

fn node(name: &str) -> Result<Node, serde_json::Error> {
    let room = json!({"cpu": "2", "memory": "4Gi", "pods": "10"});
    serde_json::from_value(json!({"metadata": {"name": name}, "status": {"allocatable": room}}))
}

fn pod(name: &str) -> Result<Pod, serde_json::Error> {
    let resources = json!({"requests": {"cpu": "1500m", "memory": "1Gi"}});
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "resources": resources}]},
    }))
}

#[allow(clippy::print_stdout, reason = "an example shows what comes of it")]
fn main() -> Result<(), serde_json::Error> {
    // What the cluster has. It is kept up to date piece by piece.
    let mut snapshot = Snapshot::new();
    snapshot.set_node(&node("a")?);
    snapshot.set_node(&node("b")?);

    let profile = Profile::default();
    // Where the search for nodes begins, and what they have answered before. Both are the
    // caller's, so that a decision has no state of its own.
    let mut rotation = Rotation::default();
    let mut memo = Memo::new();

    for name in ["first", "second", "third"] {
        let pod = snapshot.compile(&pod(name)?);
        match schedule_with(&mut memo, &snapshot, &pod, &profile, &mut rotation) {
            Decision::Bind(placement) => {
                let node = snapshot.node(placement.node).facts.name.clone();
                println!("{name} goes to {node}");
                // From now on it counts there, for the next decision too.
                snapshot.place(pod, &node);
            }
            Decision::Unschedulable(answer) => println!("{name} waits: {}", answer.message()),
        }
    }
    Ok(())
}
