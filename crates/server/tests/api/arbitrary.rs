//! Whatever a client sends: it is answered, and no answer says that the server is at fault.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::harness::Cluster;

/// Those that change something more often.
const METHODS: [&str; 9] =
    ["GET", "POST", "POST", "PUT", "PATCH", "PATCH", "DELETE", "HEAD", "LEAP"];

const PATHS: [&str; 16] = [
    "/api/v1/namespaces/default/pods/a",
    "/api/v1/namespaces/default/configmaps/a",
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/pods/a/log",
    "/api/v1/namespaces/default/pods/a/eviction",
    "/api/v1/namespaces/default/pods/a/binding",
    "/api/v1/namespaces/default/pods/a/status",
    "/apis/apps/v1/namespaces/default/deployments/a/scale",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/karpenter.sh/v1/nodepools/a",
    "/apis/karpenter.sh/v1/nodepools",
    "/api/v1/namespaces/default/finalize",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/openapi/v3/apis/apps/v1",
    "/wharf/v1/token",
    "/readyz/ping",
];

const QUERIES: [&str; 14] = [
    "limit=9223372036854775807",
    "limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiLyJ9",
    "labelSelector=a%20in%20(b,c),!d",
    "fieldSelector=metadata.name%3Da,spec.nodeName!%3D",
    "resourceVersion=18446744073709551615&resourceVersionMatch=Exact",
    "watch=1&timeoutSeconds=9223372036854775807",
    "watch=1&resourceVersion=1&allowWatchBookmarks=true",
    "sinceSeconds=9223372036854775807&tailLines=9223372036854775807&limitBytes=1",
    "sinceTime=-9999-01-01T00:00:00Z&timestamps=1",
    "gracePeriodSeconds=-9223372036854775808&propagationPolicy=Orphan",
    "gracePeriodSeconds=9223372036854775807",
    "fieldValidation=Strict&dryRun=All",
    "fieldManager=%ff%00",
    "ttlSeconds=9223372036854775807",
];

const BODIES: [&str; 13] = [
    r#"{"metadata":{"name":"a","labels":{"a":"b"}},"data":{"k":"v"}}"#,
    r#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#,
    r#"{"metadata":{"name":"a"},"spec":{"replicas":2147483647,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
    r#"{"apiVersion":"karpenter.sh/v1","kind":"NodePool","metadata":{"name":"a"},"spec":{"template":{"spec":{"requirements":[],"nodeClassRef":{"group":"karpenter.k8s.aws","kind":"EC2NodeClass","name":"a"}}}}}"#,
    r#"{"spec":{"replicas":-2147483648}}"#,
    r#"{"target":{"kind":"Node","name":"n"}}"#,
    r#"{"gracePeriodSeconds":9223372036854775807,"preconditions":{"uid":"x"}}"#,
    r#"[{"op":"copy","from":"","path":"/metadata/labels"},{"op":"add","path":"/spec/x/99999999999999999999","value":1}]"#,
    r#"{"metadata":{"$patch":"replace","labels":null},"$retainKeys":["a"]}"#,
    r#"{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}"#,
    "a: &a [x]\nb: [*a, *a]\nkind: ConfigMap\n",
    "k8s\0\n\u{f}\n\u{2}v1\u{12}\tConfigMap\u{12}\u{5}\n\u{3}\n\u{1}a",
    "",
];

const TYPES: [&str; 8] = [
    "application/json",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "text/\u{e9}",
];

const ACCEPTS: [&str; 6] = [
    "application/json",
    "application/json",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "*/*;q=2",
];

/// A text, now and then with one or two edits.
fn edited(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<Index>(), 0..9_usize, "[-+/%&=,\"{}\\[\\]a-c0-9\u{e9} ]{0,4}");
    let edits = prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(edit, 1..3)];
    (select(texts), edits).prop_map(|(text, edits)| {
        let mut text = text.as_bytes().to_vec();
        for (at, length, insert) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, insert.into_bytes());
        }
        text
    })
}

#[test]
fn every_request_is_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let cluster = Cluster::new();
    runtime.block_on(async {
        cluster.config_map("a", "x").await;
        cluster.pod("a").await;
    });
    let request = (
        select(&METHODS[..]),
        edited(&PATHS),
        edited(&QUERIES),
        edited(&BODIES),
        select(&TYPES[..]),
        select(&ACCEPTS[..]),
    );
    let codes = RefCell::new(BTreeMap::<u16, u32>::new());
    let config = Config { failure_persistence: None, ..Config::with_cases(4_000) };
    // The same requests every time: some answers are rare among so many.
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    let outcome = runner.run(&request, |(method, path, query, body, kind, accept)| {
        let uri = [path.as_slice(), b"?", query.as_slice()].concat();
        let request = Request::builder().method(method).uri(uri.as_slice());
        let request = request.header("content-type", kind).header("accept", accept);
        // What is no URI does not get so far.
        let Ok(request) = request.body(Full::new(Bytes::from(body))) else { return Ok(()) };
        let code = runtime.block_on(async {
            let (head, mut body) = cluster.send(request, true).await.into_parts();
            // The first piece is enough: a watch goes on.
            let wait = std::time::Duration::from_millis(1);
            let _ = tokio::time::timeout(wait, body.frame()).await;
            head.status.as_u16()
        });
        *codes.borrow_mut().entry(code).or_default() += 1;
        prop_assert!(code < 500 || code == 504, "{code}");
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // Requests that are all refused at once would try nothing.
    let codes = codes.into_inner();
    for code in [200, 201, 400, 404, 405, 409, 415, 422] {
        assert!(codes.contains_key(&code), "{code} is none of {codes:?}");
    }
}
