//! The log of a pod.

use serde_json::json;

use crate::harness::{Cluster, NOW};

const LOG: &str = "/api/v1/namespaces/default/pods/p/log";

async fn running(cluster: &Cluster) {
    cluster.pod("p").await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n"}});
    cluster.post("/api/v1/namespaces/default/pods/p/binding", binding).await;
    let status = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-09-21T10:00:00Z"}}}]}});
    let path = "/api/v1/namespaces/default/pods/p/status";
    let answer = cluster.merge(path, status).await;
    assert_eq!(answer.code, 200, "{:?}", answer.body);
}

async fn text(cluster: &Cluster, query: &str) -> String {
    let answer = cluster.get(&format!("{LOG}?{query}")).await;
    assert_eq!(answer.code, 200, "{:?}", answer.body);
    String::from_utf8(answer.body.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn a_part_of_a_log_can_be_asked_for() {
    let cluster = Cluster::new();
    running(&cluster).await;
    let now = NOW.as_seconds();
    for (age, line) in [(100, "one"), (50, "two"), (10, "three")] {
        cluster.logs.print(now - age, line);
    }
    assert_eq!(text(&cluster, "").await, "one\ntwo\nthree\n");
    assert_eq!(text(&cluster, "tailLines=1").await, "three\n");
    assert_eq!(text(&cluster, "tailLines=0").await, "");
    assert_eq!(text(&cluster, "sinceSeconds=60").await, "two\nthree\n");
    assert_eq!(text(&cluster, "limitBytes=5").await, "one\nt");
    let stamped = text(&cluster, "timestamps=true&tailLines=1").await;
    assert!(stamped.ends_with(".000000000Z three\n"), "{stamped}");
    for (query, expected) in [
        ("container=x", "400 BadRequest: container x is not valid for pod p"),
        (
            "tailLines=-1",
            "422 Invalid: PodLogOptions \"\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "previous=true",
            "400 BadRequest: previous terminated container \"c\" in pod \"p\" not found",
        ),
    ] {
        let refusal = cluster.get(&format!("{LOG}?{query}")).await.refusal();
        assert_eq!(refusal, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_followed_log_goes_on_until_the_container_ends() {
    let cluster = Cluster::new();
    running(&cluster).await;
    cluster.logs.print(1, "one");
    let logs = cluster.logs.clone();
    let later = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        logs.print(2, "two");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        logs.print(3, "three");
        logs.finish();
    };
    let (text, ()) = tokio::join!(text(&cluster, "follow=true"), later);
    assert_eq!(text, "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_pod_that_has_not_started_says_so() {
    let cluster = Cluster::new();
    cluster.pod("p").await;
    assert_eq!(text(&cluster, "").await, "", "no node yet");
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n"}});
    cluster.post("/api/v1/namespaces/default/pods/p/binding", binding).await;
    assert_eq!(
        cluster.get(LOG).await.refusal(),
        "400 BadRequest: container \"c\" in pod \"p\" is waiting to start: ContainerCreating"
    );
}
