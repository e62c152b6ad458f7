//! Watches: events, selectors, bookmarks, ends.

use serde_json::json;

use crate::harness::{Cluster, NOW};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_watch_shows_what_its_selector_sees() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let from = cluster.store.revision();
    let query = format!("{MAPS}?watch=true&resourceVersion={from}&labelSelector=tier%3Dx");
    let mut events = cluster.watch(&query).await;
    cluster.config_map("b", "y").await;
    let relabel = |tier: &'static str| json!({"metadata": {"labels": {"tier": tier}}});
    cluster.merge(&format!("{MAPS}/b"), relabel("x")).await;
    cluster.merge(&format!("{MAPS}/b"), json!({"data": {"k": "w"}})).await;
    cluster.merge(&format!("{MAPS}/b"), relabel("y")).await;
    cluster.delete(&format!("{MAPS}/b")).await;
    cluster.delete(&format!("{MAPS}/a")).await;
    assert_eq!(events.words(4).await, ["ADDED b", "MODIFIED b", "DELETED b", "DELETED a"]);
}

#[tokio::test]
async fn a_deletion_carries_the_last_state_and_its_own_revision() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let from = cluster.store.revision();
    let mut events = cluster.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    cluster.delete(&format!("{MAPS}/a")).await;
    let event = events.next().await.expect("an event");
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["data"], json!({"k": "v"}));
    assert_eq!(event["object"]["metadata"]["resourceVersion"], (from + 1).to_string());
}

#[tokio::test]
async fn without_a_revision_a_watch_begins_with_what_is_there() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    for version in ["", "&resourceVersion=0"] {
        let query = format!("{MAPS}?watch=1&labelSelector=tier{version}");
        let mut events = cluster.watch(&query).await;
        assert_eq!(events.words(1).await, ["ADDED a"]);
        cluster.merge(&format!("{MAPS}/a"), json!({"data": {"k": version}})).await;
        assert_eq!(events.words(1).await, ["MODIFIED a"]);
    }
    let mut old_style = cluster.watch("/api/v1/watch/namespaces/default/configmaps/a").await;
    assert_eq!(old_style.words(1).await, ["ADDED a"]);
}

#[tokio::test]
async fn a_streamed_list_ends_with_a_bookmark() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let query = format!(
        "{MAPS}?watch=1&labelSelector=tier&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    );
    let mut events = cluster.watch(&query).await;
    assert_eq!(events.words(1).await, ["ADDED a"]);
    let mark = events.next().await.expect("a bookmark");
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    let meta = &mark["object"]["metadata"];
    assert_eq!(meta["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    assert_eq!(meta["resourceVersion"], cluster.store.revision().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_in_time_and_tells_how_far_it_came() {
    let cluster = Cluster::new();
    let from = cluster.store.revision();
    let query =
        format!("{MAPS}?watch=1&resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds=90");
    let mut events = cluster.watch(&query).await;
    cluster.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await;
    let mark = events.next().await.expect("a bookmark after a minute");
    assert_eq!(mark["type"], "BOOKMARK");
    let revision = mark["object"]["metadata"]["resourceVersion"].as_str().expect("a revision");
    assert!(revision.parse::<u64>().expect("a number") > from, "other kinds move it on");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_from_too_long_ago_is_told_to_list_again() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    // More changes than any window of history holds.
    let mut revision = cluster.store.revision();
    let from = revision;
    let draft = |revision: u64| {
        let map: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "default", "annotations": {"r": revision.to_string()}}
        }))
        .expect("a ConfigMap");
        Box::new(map)
    };
    let expired = (0..200_000).any(|_| {
        revision = cluster
            .store
            .put(draft(revision), wharf_store::Expect::Any)
            .expect("stored")
            .revision();
        let kind = wharf_model::kinds::Kind::of::<k8s_openapi::api::core::v1::ConfigMap>();
        cluster.store.watch(Some(kind), from, wharf_store::Visibility::Durable).is_err()
    });
    assert!(expired, "the window is bounded");
    let mut events = cluster.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    let error = events.next().await.expect("an event");
    assert_eq!(error["type"], "ERROR");
    assert_eq!(error["object"]["code"], 410);
    assert_eq!(error["object"]["reason"], "Expired");
    assert_eq!(events.next().await, None);
    let list =
        cluster.get(&format!("{MAPS}?resourceVersion={from}&resourceVersionMatch=Exact")).await;
    assert_eq!(
        list.refusal(),
        "410 Expired: The resourceVersion for the provided list is too old."
    );
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let cluster = Cluster::new();
    let from = cluster.store.revision();
    let mut events = cluster.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    cluster.stop.send_replace(true);
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watched_table_shows_ages_and_names_its_columns_once() {
    let cluster = Cluster::new();
    cluster.pod("p").await;
    cluster.clock.advance_to(NOW + std::time::Duration::from_secs(300));
    let path = "/api/v1/namespaces/default/pods?watch=1";
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut events = cluster.watch_as(path, accept).await;
    let first = events.next().await.expect("an event");
    let table = &first["object"];
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(cells[..5], [json!("p"), json!("0/1"), json!("Pending"), json!("0"), json!("5m")]);
    cluster
        .merge("/api/v1/namespaces/default/pods/p", json!({"metadata": {"labels": {"a": "b"}}}))
        .await;
    let second = events.next().await.expect("an event");
    assert_eq!(second["object"]["columnDefinitions"], json!(null));
}

/// The sum of now and so long a time does not exist.
#[tokio::test]
async fn a_watch_may_be_asked_for_the_longest_time() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let query = format!("{MAPS}?watch=true&timeoutSeconds={}", i64::MAX);
    assert_eq!(cluster.watch(&query).await.words(1).await, ["ADDED a"]);
}
