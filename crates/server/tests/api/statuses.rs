//! Refusals and the documents about the server.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::json;

use crate::harness::{Cluster, NOW};

async fn as_nobody(cluster: &Cluster, path: &str, token: Option<&str>) -> u16 {
    let mut request = Request::builder().uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    cluster.send(request, false).await.status().as_u16()
}

#[tokio::test]
async fn strangers_see_health_and_version_only() {
    let cluster = Cluster::new();
    for path in ["/livez", "/readyz", "/healthz", "/version", "/readyz/ping"] {
        assert_eq!(as_nobody(&cluster, path, None).await, 200, "{path}");
    }
    for path in ["/", "/api", "/apis", "/api/v1/pods", "/openapi/v2", "/wharf/v1/token", "/none"] {
        assert_eq!(as_nobody(&cluster, path, None).await, 401, "{path}");
        assert_eq!(as_nobody(&cluster, path, Some("a.b.c")).await, 401, "{path}");
    }
    let token = cluster.tokens.issue(NOW, std::time::Duration::from_secs(1));
    assert_eq!(as_nobody(&cluster, "/api/v1/pods", Some(&token)).await, 200);
    let issued = cluster.call("POST", "/wharf/v1/token?ttlSeconds=60", &[], b"").await;
    let token = std::str::from_utf8(&issued.body).expect("text").to_owned();
    assert_eq!(as_nobody(&cluster, "/api/v1/pods", Some(&token)).await, 200);
    assert_eq!(cluster.call("POST", "/wharf/v1/token?ttlSeconds=0", &[], b"").await.code, 400);
}

#[tokio::test]
async fn refusals_are_upstreams() {
    let cluster = Cluster::new();
    cluster.config_map("a", "x").await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let cases = [
        ("GET", "/api/v1/namespaces/default/pods/x", "404 NotFound: pods \"x\" not found"),
        ("GET", "/nothing", "404 NotFound: the server could not find the requested resource"),
        (
            "GET",
            "/apis/apps/v1beta1/deployments",
            "404 NotFound: the server could not find the requested resource",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/nodes",
            "404 NotFound: the server could not find the requested resource",
        ),
        (
            "POST",
            "/api/v1/pods",
            "405 MethodNotAllowed: the server does not allow this method on the requested resource",
        ),
        (
            "DELETE",
            "/api/v1/namespaces",
            "405 MethodNotAllowed: deletecollection is not supported on resources of kind \"namespaces\"",
        ),
        (
            "DELETE",
            "/apis/sim.wharf.dev/v1/instances/i-1",
            "405 MethodNotAllowed: delete is not supported on resources of kind \"instances.sim.wharf.dev\"",
        ),
        (
            "GET",
            "/api/v1/pods?limit=x",
            "400 BadRequest: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "GET",
            "/api/v1/pods?fieldSelector=spec.foo=1",
            "400 BadRequest: field label not supported: spec.foo",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps/a?resourceVersion=999999",
            "504 Timeout: Too large resource version: 999999, current: ",
        ),
    ];
    for (method, path, expected) in cases {
        let refusal = cluster.call(method, path, &[], b"").await.refusal();
        assert!(refusal.starts_with(expected), "{method} {path}: {refusal}");
    }
    let again = cluster.post(maps, json!({"metadata": {"name": "a"}})).await;
    assert_eq!(again.refusal(), "409 AlreadyExists: configmaps \"a\" already exists");
    let renamed = cluster.put(&format!("{maps}/a"), json!({"metadata": {"name": "b"}})).await;
    assert_eq!(
        renamed.refusal(),
        "400 BadRequest: the name of the object (b) does not match the name on the URL (a)"
    );
}

#[tokio::test]
async fn bodies_are_limited_and_their_form_is_told() {
    let cluster = Cluster::new();
    let maps = "/api/v1/namespaces/default/configmaps";
    let large = vec![b' '; wharf_server::BODY_BYTES_MAX + 1];
    let refusal = cluster.call("POST", maps, &[], &large).await.refusal();
    assert_eq!(refusal, "413 RequestEntityTooLarge: Request entity too large: limit is 3145728");
    let xml = cluster.call("POST", maps, &[("content-type", "text/xml")], b"<a/>").await;
    assert!(xml.refusal().starts_with(
        "415 UnsupportedMediaType: the body of the request was in an unknown format (text/xml)"
    ));
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(cluster.call("GET", maps, &protobuf, b"").await.code, 406);
    let apply = [("content-type", "application/apply-patch+yaml")];
    let refusal = cluster.call("PATCH", &format!("{maps}/a"), &apply, b"{}").await.refusal();
    assert!(refusal.starts_with("415 UnsupportedMediaType: server-side apply"), "{refusal}");
}

#[tokio::test]
async fn who_am_i_and_what_may_i_do() {
    let cluster = Cluster::new();
    let review = cluster
        .post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            json!({"kind": "SelfSubjectReview"}),
        )
        .await;
    assert_eq!(review.code, 201);
    assert_eq!(review.json()["status"]["userInfo"]["username"], "kubernetes-admin");
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let access = cluster.post(path, json!({"spec": {"resourceAttributes": {"verb": "get"}}})).await;
    assert_eq!(access.json()["status"]["allowed"], true);
    assert_eq!(cluster.post(path, json!({"spec": {}})).await.code, 422);
    assert_eq!(cluster.get(path).await.code, 405);
}

#[tokio::test]
async fn discovery_comes_in_the_form_that_is_asked_for() {
    let cluster = Cluster::new();
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = cluster.call("GET", "/apis", &[("accept", accept)], b"").await;
    assert_eq!(
        answer.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    // Upstream's order: the aggregator's own group before all others.
    assert_eq!(answer.json()["items"][0]["metadata"]["name"], "apiregistration.k8s.io");
    assert_eq!(answer.json()["items"][1]["metadata"]["name"], "apps");
    assert_eq!(cluster.get("/apis").await.json()["kind"], "APIGroupList");
    assert_eq!(cluster.get("/api").await.json()["versions"], json!(["v1"]));
    assert_eq!(cluster.get("/apis/apps").await.json()["preferredVersion"]["version"], "v1");
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(cluster.get(definitions).await.names().len(), 11);
    let one = cluster.get(&format!("{definitions}/nodepools.karpenter.sh")).await;
    assert_eq!(one.json()["spec"]["names"]["kind"], "NodePool");
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let cluster = Cluster::new();
    let verbose = cluster.get("/readyz?verbose").await;
    assert_eq!(
        std::str::from_utf8(&verbose.body).expect("text"),
        "[+]ping ok\n[+]store ok\n[+]shutdown ok\nreadyz check passed\n"
    );
    assert_eq!(cluster.get("/readyz").await.body, "ok");
    cluster.stop.send_replace(true);
    assert_eq!(cluster.get("/readyz").await.code, 500);
    assert_eq!(cluster.get("/livez").await.code, 200);
}

#[tokio::test]
async fn openapi_documents_can_be_kept() {
    let cluster = Cluster::new();
    let index = cluster.get("/openapi/v3").await.json();
    let address = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("an address");
    let document = cluster.get(address).await;
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert_eq!(document.json()["openapi"], "3.0.0");
    let tag = document.headers["etag"].to_str().expect("a tag");
    let again = cluster.call("GET", address, &[("if-none-match", tag)], b"").await;
    assert_eq!((again.code, again.body.len()), (304, 0));
    assert_eq!(cluster.get("/openapi/v2").await.json()["swagger"], "2.0");
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let packed = cluster.call("GET", "/openapi/v2", &[("accept", accept)], b"").await;
    assert!(packed.headers["content-type"].to_str().expect("text").ends_with("+protobuf"));
    assert_eq!(cluster.get("/openapi/v3/apis/none/v1").await.code, 404);
}
