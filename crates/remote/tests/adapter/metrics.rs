//! The metrics APIs through the adapter: what is asked, what is kept, what is told of failures.

use std::sync::Arc;
use std::time::Duration;

use wharf_model::metrics::{PodMetrics, Sample};
use wharf_model::object::ObjectKey;
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::metrics::{
    DescribedObject, Level, MetricQuery, Metrics, PodQuery, Series, Told, Value,
};
use wharf_remote::RemoteMetrics;

use crate::harness::{Fault, Lab, pod};

const USAGE: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

/// Asks until the answer has come, as a controller does that was told to come back.
async fn answer<T>(
    metrics: &RemoteMetrics,
    ask: impl Fn() -> Result<T, String>,
) -> Result<T, String> {
    for _ in 0..60_000 {
        let deferred = metrics.deferred();
        let answer = ask();
        if metrics.deferred() == deferred {
            return answer;
        }
        assert!(answer.is_err(), "what is deferred is no answer");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the question is deferred for ever")
}

async fn usage(metrics: &RemoteMetrics, lab: &Lab) -> Result<Vec<PodMetrics>, String> {
    let selector = Selector::parse("app=web").expect("a selector");
    let pods = PodQuery { namespace: "default", selector: &selector, names: &[] };
    answer(metrics, || metrics.pod_metrics(&pods, lab.now())).await
}

async fn samples(
    metrics: &RemoteMetrics,
    lab: &Lab,
    query: &MetricQuery<'_>,
) -> Result<Vec<Sample>, String> {
    answer(metrics, || metrics.samples(query, lab.now())).await
}

/// A lab with two measured pods, one of which the selector `app=web` matches.
fn measured() -> Lab {
    let lab = Lab::new();
    for (name, app) in [("a", "web"), ("b", "db")] {
        let mut pod = pod(name);
        pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
        lab.create(pod);
        lab.board.take(Told::Container {
            pod: ObjectKey::namespaced("default", name),
            container: "main".into(),
            started: lab.now(),
            at: lab.now(),
            level: Level { cpu_nanos: 250_000_000, memory_bytes: 64 << 20 },
        });
    }
    lab.advance(Duration::from_secs(60));
    lab
}

#[tokio::test(start_paused = true)]
async fn usage_is_asked_for_once_a_pass() {
    let lab = measured();
    let metrics = lab.metrics().await;
    let pods = usage(&metrics, &lab).await.expect("the lab has metrics");
    assert_eq!(pods.len(), 1);
    assert_eq!((&*pods[0].pod, pods[0].window), ("a", Duration::from_secs(15)));
    let amounts: Vec<i64> =
        pods[0].containers[0].usage.iter().map(|(_, amount)| amount.milli_value_ceil()).collect();
    assert_eq!(amounts, [250, (64 << 20) * 1_000]);
    let asked = || lab.requests(USAGE);
    assert_eq!(asked(), [format!("{USAGE}?labelSelector=app%3Dweb")]);
    usage(&metrics, &lab).await.expect("it is kept");
    assert_eq!(asked().len(), 1, "an answer is good for a while");
    // A sync period later, by both clocks.
    lab.advance(Duration::from_secs(15));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = usage(&metrics, &lab).await.expect("it is asked for again");
    assert_eq!(asked().len(), 2);
    assert!(later[0].timestamp > pods[0].timestamp);
    let nodes = answer(&metrics, || metrics.node_metrics(lab.now())).await;
    assert_eq!(nodes, Ok(Vec::new()), "no node has been measured");
}

#[tokio::test(start_paused = true)]
async fn custom_and_external_metrics_are_read() {
    let lab = measured();
    let value = |resource: &str, name: &str, metric: &str, number: f64| {
        lab.board.take(Told::Value {
            series: Series {
                resource: resource.into(),
                object: ObjectKey::namespaced("default", name),
                metric: metric.into(),
                labels: [("verb".to_owned(), "GET".to_owned())].into(),
            },
            value: Value::Number(number),
            at: Time::EPOCH,
        });
    };
    value("pods", "a", "rps", 2.5);
    value("pods", "b", "rps", 9.0);
    value("deployments.apps", "web", "hits", 7.0);
    value("", "queue", "length", 40.0);
    let metrics = lab.metrics().await;
    let (web, get) = (
        Selector::parse("app=web").expect("a selector"),
        Selector::parse("verb=GET").expect("a selector"),
    );
    let pods = PodQuery { namespace: "default", selector: &web, names: &[] };
    let of_pods = MetricQuery::Pods { pods, metric: "rps", series: &get };
    let found = samples(&metrics, &lab, &of_pods).await.expect("there are values");
    assert_eq!((found.len(), &*found[0].object), (1, "a"));
    assert_eq!(found[0].value.milli_value_ceil(), 2_500);
    let version = "/apis/custom.metrics.k8s.io";
    assert_eq!(lab.requests(version)[0], version, "which version there is is asked first");
    assert!(lab.requests(version)[1].starts_with(&format!("{version}/v1beta2/")));
    let web = DescribedObject {
        namespace: "default",
        api_version: "apps/v1",
        kind: "Deployment",
        name: "web",
    };
    let of_object = MetricQuery::Object { object: web, metric: "hits", series: &get };
    let found = samples(&metrics, &lab, &of_object).await.expect("there is a value");
    assert_eq!(found[0].value.milli_value_ceil(), 7_000);
    let external = MetricQuery::External { namespace: "default", metric: "length", series: &get };
    let found = samples(&metrics, &lab, &external).await.expect("there is a value");
    assert_eq!(found[0].value.milli_value_ceil(), 40_000);
    let unknown = MetricQuery::Pods { pods, metric: "latency", series: &get };
    assert_eq!(
        samples(&metrics, &lab, &unknown).await,
        Err("the server could not find the metric latency for pods".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn an_older_custom_metrics_api_is_asked_in_its_version() {
    let lab = measured();
    let everything = Selector::EVERYTHING;
    let pods = PodQuery { namespace: "default", selector: &everything, names: &[] };
    let of_pods = MetricQuery::Pods { pods, metric: "rps", series: &everything };
    lab.fault("GET", "/apis/custom.metrics.k8s.io", Fault::custom_metrics(&["v1beta1"]));
    let metrics = lab.metrics().await;
    let _ = samples(&metrics, &lab, &of_pods).await;
    assert!(lab.requests("/apis/custom.metrics.k8s.io")[1].contains("/v1beta1/"));
    for (versions, expected) in [
        (Fault::custom_metrics(&["v1"]), "no known available metric versions found"),
        (Fault::not_served(), "no custom metrics API (custom.metrics.k8s.io) registered"),
    ] {
        let metrics = lab.metrics().await;
        lab.fault("GET", "/apis/custom.metrics.k8s.io", versions);
        assert_eq!(samples(&metrics, &lab, &of_pods).await, Err(expected.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_answers_in_upstreams_words() {
    let lab = measured();
    for (fault, expected) in [
        (
            Fault::not_served(),
            "the server could not find the requested resource (get pods.metrics.k8s.io)",
        ),
        (Fault::forbidden(), "pods is forbidden: User \"x\" cannot list resource \"pods\""),
        (
            Fault::unavailable(),
            "the server is currently unable to handle the request (get pods.metrics.k8s.io)",
        ),
    ] {
        let metrics = lab.metrics().await;
        lab.fault("GET", USAGE, fault);
        assert_eq!(usage(&metrics, &lab).await, Err(expected.to_owned()));
        // The refusal is over, and the next pass finds what there is.
        lab.advance(Duration::from_secs(15));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(usage(&metrics, &lab).await.map(|pods| pods.len()), Ok(1));
    }
    let metrics = lab.metrics().await;
    lab.refuse_everything();
    let error = usage(&metrics, &lab).await.expect_err("nobody answers");
    assert_eq!(
        error,
        format!("Get \"https://lab{USAGE}?labelSelector=app%3Dweb\": connection refused")
    );
}

#[tokio::test(start_paused = true)]
async fn silence_is_an_answer_after_a_sync_period() {
    let lab = measured();
    let metrics = lab.metrics().await;
    lab.hold("/apis/metrics.k8s.io");
    let error = usage(&metrics, &lab).await.expect_err("it never answers");
    assert!(error.ends_with("app%3Dweb\": context deadline exceeded"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_the_same_send_one_request() {
    let lab = measured();
    let metrics = Arc::new(lab.metrics().await);
    let selector = Selector::parse("app=web").expect("a selector");
    let pods = PodQuery { namespace: "default", selector: &selector, names: &[] };
    for _ in 0..100 {
        assert!(metrics.pod_metrics(&pods, lab.now()).is_err(), "it has not answered yet");
    }
    assert_eq!(metrics.deferred(), Some(100));
    usage(&metrics, &lab).await.expect("the answer");
    assert_eq!(lab.requests(USAGE).len(), 1);
}
