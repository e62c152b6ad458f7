//! The hamster lab by hand, with a real kubectl: pods that ask for too little are evicted, and their
//! successors ask for what they use.

mod harness;

use harness::{Wharf, lab_file, repository, wait_for};
use serde_json::{Value, json};

#[test]
fn hamsters_come_to_ask_for_what_they_use() {
    let wharf = Wharf::ephemeral();
    let kubectl = wharf.kubectl();
    kubectl.ok(&format!("apply -f {}", lab_file("nodepool.yaml")));
    let manifest = repository().join("labs/vpa/hamster.yaml");
    let applied = kubectl.ok(&format!("apply -f {}", manifest.display()));
    assert_eq!(
        applied,
        "verticalpodautoscaler.autoscaling.k8s.io/hamster-vpa created\ndeployment.apps/hamster created\n"
    );
    let wanted = json!({"requests": {"cpu": "587m", "memory": "250Mi"}});
    wait_for("both hamsters to ask for what they use", || {
        let pods = kubectl.items("get pods -l app=hamster --field-selector status.phase=Running");
        let asked = |pod: &Value| pod["spec"]["containers"][0]["resources"].clone();
        let done = pods.len() == 2 && pods.iter().all(|pod| asked(pod) == wanted);
        if done { Ok(()) } else { Err(format!("{:?}", pods.iter().map(asked).collect::<Vec<_>>())) }
    });

    let table = kubectl.ok("get vpa");
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "MODE", "CPU", "MEM", "PROVIDED", "AGE"]);
    assert_eq!(rows[1][..5], ["hamster-vpa", "Recreate", "587m", "250Mi", "True"], "{table}");
    assert_eq!(kubectl.ok("get vpacheckpoint -o name").lines().count(), 1);

    let events = kubectl.items("get events --field-selector reason=EvictedByVPA");
    assert!(events.len() >= 2, "{events:?}");
    for event in &events {
        assert_eq!(
            event["message"],
            "Pod was evicted by VPA Updater to apply resource recommendation."
        );
        assert_eq!(event["source"]["component"], "vpa-updater");
    }
    let pods = kubectl.items("get pods -l app=hamster");
    let annotations = &pods[0]["metadata"]["annotations"];
    assert_eq!(annotations["vpaObservedContainers"], "hamster");
    assert_eq!(
        annotations["vpaUpdates"],
        "Pod resources updated by hamster-vpa: container 0: cpu request, memory request"
    );

    let why = wharf.wharf(&["why", "vpa/hamster-vpa"]).ok();
    assert!(why.contains("hamster is to ask for cpu 587m, memory 250Mi"), "{why}");
    assert!(why.contains("recommends hamster cpu 587m, memory 250Mi"), "{why}");
    let evicted = events[0]["involvedObject"]["name"].as_str().expect("a name");
    let why = wharf.wharf(&["why", &format!("pod/{evicted}")]).ok();
    assert!(why.contains("evicts it so that a new one asks for what is recommended"), "{why}");
}
