//! Bodies in protobuf form, as kubectl sends them: answered like the same objects as JSON.

use serde_json::Value;

use crate::harness::Cluster;

/// Commands, paths, bodies in hexadecimal, and objects as JSON.
const CASES: &str = include_str!("../data/kubectl-protobuf.txt");

const HEADERS: [(&str, &str); 2] = [
    ("content-type", "application/vnd.kubernetes.protobuf"),
    ("accept", "application/vnd.kubernetes.protobuf,application/json"),
];

fn bytes(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

/// An answer without what differs from one creation to the next.
fn lasting(mut answer: Value) -> Value {
    if let Some(meta) = answer["metadata"].as_object_mut() {
        meta.remove("uid");
    }
    answer
}

#[tokio::test]
async fn bodies_of_kubectl_are_answered_as_json_is() {
    let cluster = Cluster::new();
    for case in CASES.split("\n\n").skip(1) {
        let lines: Vec<&str> = case.lines().collect();
        let [command, path, body, object] = lines[..] else { panic!("four lines: {case}") };
        let tried = format!("{path}?dryRun=All&fieldValidation=Strict");
        let json = cluster.call("POST", &tried, &[], object.as_bytes()).await;
        let protobuf = cluster.call("POST", &tried, &HEADERS, &bytes(body)).await;
        assert_eq!(protobuf.code, 201, "{command}: {:?}", protobuf.body);
        assert_eq!(protobuf.headers["content-type"], "application/json", "{command}");
        assert_eq!(lasting(protobuf.json()), lasting(json.json()), "{command}");
        assert!(!protobuf.headers.contains_key("warning"), "{command}");
        // The first makes the namespace in which the others try theirs.
        if path == "/api/v1/namespaces" {
            assert_eq!(cluster.call("POST", path, &HEADERS, &bytes(body)).await.code, 201);
        }
    }
}

#[tokio::test]
async fn options_of_a_deletion_and_an_eviction_are_taken() {
    let cluster = Cluster::new();
    cluster.pod("a").await;
    cluster.pod("b").await;
    // DeleteOptions of v1: gracePeriodSeconds 0, preconditions of another uid, then of none.
    let delete = |raw: &[u8]| {
        let length = u8::try_from(raw.len()).expect("short");
        [b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12", &[length][..], raw].concat()
    };
    let pod = "/api/v1/namespaces/default/pods/a";
    let other = delete(b"\x08\0\x12\x03\x0a\x01x");
    let refused = cluster.call("DELETE", pod, &HEADERS, &other).await;
    assert!(refused.refusal().starts_with("409 Conflict"), "{}", refused.refusal());
    assert_eq!(cluster.call("DELETE", pod, &HEADERS, &delete(b"\x08\0")).await.code, 200);
    assert_eq!(cluster.get(pod).await.code, 404);

    // Eviction of policy/v1: metadata{name: b}, deleteOptions{gracePeriodSeconds: 0}.
    let eviction =
        b"k8s\0\x0a\x15\x0a\x09policy/v1\x12\x08Eviction\x12\x09\x0a\x03\x0a\x01b\x12\x02\x08\0";
    let pod = "/api/v1/namespaces/default/pods/b";
    let evicted = cluster.call("POST", &format!("{pod}/eviction"), &HEADERS, eviction).await;
    assert_eq!(evicted.code, 201, "{:?}", evicted.body);
    assert_eq!(cluster.get(pod).await.code, 404);
}

#[tokio::test]
async fn what_is_no_such_body_is_refused() {
    let cluster = Cluster::new();
    let maps = "/api/v1/namespaces/default/configmaps";
    let broken = cluster.call("POST", maps, &HEADERS, b"{}").await;
    assert!(broken.refusal().starts_with("400 BadRequest"), "{}", broken.refusal());
    // Another kind than the path's: Namespace{}.
    let body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\0";
    let other = cluster.call("POST", maps, &HEADERS, body).await;
    assert!(other.refusal().starts_with("400 BadRequest"), "{}", other.refusal());
    // Custom resources have no protobuf form.
    let body = b"k8s\0\x0a\x1b\x0a\x0fkarpenter.sh/v1\x12\x08NodePool\x12\0";
    let custom = cluster.call("POST", "/apis/karpenter.sh/v1/nodepools", &HEADERS, body).await;
    assert!(custom.refusal().starts_with("415 UnsupportedMediaType"), "{}", custom.refusal());
    let unknown = cluster.call("POST", maps, &[("content-type", "text/plain")], b"{}").await;
    assert!(
        unknown
            .refusal()
            .ends_with("application/json, application/yaml, application/vnd.kubernetes.protobuf"),
        "{}",
        unknown.refusal()
    );
}
