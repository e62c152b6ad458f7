//! Get, list, selectors, pages.

use serde_json::json;

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_get_sends_the_stored_bytes() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let answer = cluster.get(&format!("{MAPS}/a")).await;
    assert!(answer.body.starts_with(br#"{"apiVersion":"v1","kind":"ConfigMap","#));
    let object = answer.json();
    assert_eq!(object["data"], json!({"k": "v"}));
    assert_eq!(answer.headers["content-type"], "application/json");
    let yaml =
        cluster.call("GET", &format!("{MAPS}/a"), &[("accept", "application/yaml")], b"").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.body.starts_with(b"apiVersion: v1\n"), "{:?}", yaml.body);
    let pretty = cluster.get(&format!("{MAPS}/a?pretty=true")).await;
    assert_eq!(pretty.json(), object);
    assert!(pretty.body.len() > answer.body.len());
}

#[tokio::test]
async fn selectors_choose() {
    let cluster = Cluster::new();
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        cluster.config_map(name, tier).await;
    }
    for (query, expected) in [
        ("labelSelector=tier%3Dx", &["a", "c"][..]),
        ("labelSelector=tier+in+(y,z)", &["b"]),
        ("labelSelector=!tier", &["kube-root-ca.crt"]),
        ("fieldSelector=metadata.name%3Db", &["b"]),
        ("fieldSelector=metadata.name%3Dnone", &[]),
        ("labelSelector=tier%3Dx&fieldSelector=metadata.name!%3Da", &["c"]),
    ] {
        let names = cluster.get(&format!("{MAPS}?{query}")).await.names();
        let ours: Vec<_> = names.iter().filter(|name| *name != "kube-root-ca.crt").collect();
        let expected: Vec<_> =
            expected.iter().filter(|name| **name != "kube-root-ca.crt").collect();
        assert_eq!(ours, expected, "{query}");
    }
}

#[tokio::test]
async fn items_of_built_in_kinds_leave_out_what_the_list_says() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let list = cluster.get(&format!("{MAPS}?labelSelector=tier")).await.json();
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(list["apiVersion"], "v1");
    assert!(list["items"][0].get("kind").is_none());
    assert!(list["metadata"]["resourceVersion"].is_string());
    let events = cluster.get("/apis/events.k8s.io/v1/events").await.json();
    assert_eq!(events["apiVersion"], "events.k8s.io/v1");
}

#[tokio::test]
async fn pages_stand_at_one_revision() {
    let cluster = Cluster::new();
    for index in 0..7 {
        cluster.config_map(&format!("m{index}"), "x").await;
    }
    let query = "labelSelector=tier%3Dx&limit=3";
    let first = cluster.get(&format!("{MAPS}?{query}")).await;
    assert_eq!(first.names(), ["m0", "m1", "m2"]);
    let meta = first.json()["metadata"].clone();
    assert!(meta.get("remainingItemCount").is_none(), "unknown with a selector");
    cluster.delete(&format!("{MAPS}/m4")).await;
    cluster.config_map("m35", "x").await;
    let token = meta["continue"].as_str().expect("more").to_owned();
    let second = cluster.get(&format!("{MAPS}?{query}&continue={token}")).await;
    assert_eq!(second.names(), ["m3", "m4", "m5"], "as it was at the first page");
    assert_eq!(second.json()["metadata"]["resourceVersion"], meta["resourceVersion"]);
    let token = second.json()["metadata"]["continue"].as_str().expect("more").to_owned();
    let last = cluster.get(&format!("{MAPS}?{query}&continue={token}")).await;
    assert_eq!(last.names(), ["m6"]);
    assert!(last.json()["metadata"].get("continue").is_none());
    let exact = meta["resourceVersion"].as_str().expect("a revision");
    let exact = cluster
        .get(&format!(
            "{MAPS}?labelSelector=tier&resourceVersionMatch=Exact&resourceVersion={exact}"
        ))
        .await;
    assert_eq!(exact.names().len(), 7);

    let all = cluster.get("/api/v1/configmaps?limit=2").await.json();
    let remaining = all["metadata"]["remainingItemCount"].as_u64().expect("known");
    let total = cluster.get("/api/v1/configmaps").await.names().len();
    assert_eq!(remaining as usize + 2, total);
}

#[tokio::test]
async fn a_long_list_is_whole_also_when_compressed() {
    use std::io::Read as _;
    let cluster = Cluster::new();
    for index in 0..1_200 {
        cluster.config_map(&format!("m{index:04}"), "x").await;
    }
    let plain = cluster.get(&format!("{MAPS}?labelSelector=tier")).await;
    assert_eq!(plain.names().len(), 1_200);
    let path = format!("{MAPS}?labelSelector=tier");
    let packed = cluster.call("GET", &path, &[("accept-encoding", "gzip")], b"").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut text).expect("gzip");
    assert_eq!(text, plain.body);
}

#[tokio::test]
async fn metadata_alone_can_be_asked_for() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let path = format!("{MAPS}?labelSelector=tier");
    let list = cluster.call("GET", &path, &[("accept", accept)], b"").await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["labels"], json!({"tier": "x"}));
    assert!(list["items"][0].get("data").is_none());
}
