use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;

use compact_str::CompactString;
use wharf_model::selector::Selector;
use wharf_model::time::Time;
use wharf_ports::history::{HistoryCall, PodHistory};
use wharf_ports::metrics::Board;

use super::history::{ask, labels_query, selector};
use super::source::Tellings;
use super::*;

/// A server on a free port that answers one connection after another with texts; gives back the
/// heads of the requests.
fn serve(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    let thread = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client comes");
            let reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let lines = reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            heads.push(lines.collect::<Vec<_>>().join("\n"));
            stream.write_all(answer.as_bytes()).expect("it can be sent");
        }
        heads
    });
    (address, thread)
}

fn http(code: &str, body: &str) -> String {
    format!("HTTP/1.1 {code}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn client(address: &str) -> Client {
    let settings = Settings {
        address: address.to_owned(),
        timeout: Duration::from_secs(20),
        ..Settings::default()
    };
    Client::new(settings).expect("an address")
}

fn settings() -> HistorySettings {
    HistorySettings {
        length: Duration::from_secs(8 * 86_400),
        resolution: Duration::from_secs(3_600),
        job: "kubernetes-cadvisor".to_owned(),
        container_namespace: "namespace".to_owned(),
        container_pod: "pod_name".to_owned(),
        container: "name".to_owned(),
        pod_labels: "up{job=\"kubernetes-pods\"}".to_owned(),
        pod_label_prefix: "pod_label_".to_owned(),
        pod_namespace: "kubernetes_namespace".to_owned(),
        pod: "kubernetes_pod_name".to_owned(),
    }
}

fn call() -> HistoryCall {
    let until = Time::from_seconds(1_700_000_000);
    HistoryCall { id: 1, namespaces: vec!["default".into()], until }
}

fn history(address: &str) -> Result<Vec<PodHistory>, String> {
    ask(&client(address), &settings(), &call())
}

#[test]
fn queries_are_upstreams() {
    let all = r#"{job="kubernetes-cadvisor", pod_name=~".+", name!="POD", name!=""}"#;
    assert_eq!(selector(&settings(), &[]), all);
    let names: Vec<CompactString> = vec!["a".into(), "b".into()];
    assert_eq!(
        selector(&HistorySettings { job: String::new(), ..settings() }, &names),
        r#"{pod_name=~".+", name!="POD", name!="", namespace=~"a|b"}"#
    );
    let many: Vec<CompactString> = (0..51).map(|at| format!("n{at}").into()).collect();
    assert_eq!(selector(&settings(), &many), all);
    assert_eq!(labels_query(&settings()), "up{job=\"kubernetes-pods\"}[691200s]");
    let ranged = HistorySettings { pod_labels: "up[2d]".to_owned(), ..settings() };
    assert_eq!(labels_query(&ranged), "up[2d]");
}

#[test]
fn answers_become_history_by_pod() {
    let series = |values: &str, more: &str| {
        format!(
            r#"{{"metric":{{"namespace":"default","pod_name":"web-1","name":"web"{more}}},"values":[{values}]}}"#
        )
    };
    let matrix = |series: &str| {
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}}}}"#
        );
        http("200 OK", &body)
    };
    let labels = r#"{"metric":{"kubernetes_namespace":"default","kubernetes_pod_name":"web-1","pod_label_app":"web","job":"x"},"values":[[5,"1"]]},
        {"metric":{"kubernetes_namespace":"default","kubernetes_pod_name":"web-1","pod_label_app":"old"},"values":[[4,"1"]]},
        {"metric":{"kubernetes_namespace":"default","kubernetes_pod_name":"of-no-use"},"values":[[4,"1"]]}"#;
    let (address, server) = serve(vec![
        // Two runs of one container.
        matrix(
            &[series(r#"[2,"0.5"],[3.5,"NaN"]"#, r#","id":"b""#), series(r#"[1,"0.25"]"#, "")]
                .join(","),
        ),
        matrix(&series(r#"[1,"1e+06"]"#, "")),
        matrix(labels),
    ]);
    let pods = history(&format!("{address}/")).expect("history");
    let heads = server.join().expect("it serves");
    let first = heads[0].lines().next().expect("a request");
    assert_eq!(
        first,
        "GET /api/v1/query_range?query=rate%28container_cpu_usage_seconds_total%7Bjob%3D%22kubernetes-cadvisor%22%2C%20pod_name%3D~%22.%2B%22%2C%20name%21%3D%22POD%22%2C%20name%21%3D%22%22%2C%20namespace%3D~%22default%22%7D%5B3600s%5D%29&start=1699308800&end=1700000000&step=3600 HTTP/1.1"
    );
    assert!(heads[2].starts_with("GET /api/v1/query?query=up%7Bjob"), "{}", heads[2]);
    let [pod] = &pods[..] else { panic!("{pods:?}") };
    assert_eq!(pod.pod.to_string(), "default/web-1");
    assert_eq!(pod.labels, [("app".to_owned(), "web".to_owned())].into());
    let usage = &pod.containers["web"];
    assert_eq!(usage.cpu[..2], [(Time::from_seconds(1), 0.25), (Time::from_seconds(2), 0.5)]);
    assert_eq!(usage.cpu[2].0.as_nanos(), 3_500_000_000);
    assert!(usage.cpu[2].1.is_nan());
    assert_eq!(usage.memory, [(Time::from_seconds(1), 1e6)]);
}

#[test]
fn what_is_broken_is_told_in_one_line() {
    let empty = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
    let unlabelled = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"pod":"x"},"values":[]}]}}"#;
    for (answer, expected) in [
        (http("500 Internal Server Error", "<html>\noops"), Err("it answered 500: <html>")),
        (
            http("400 Bad Request", r#"{"status":"error","errorType":"bad_data","error":"no"}"#),
            Err("it answered 400: bad_data: no"),
        ),
        (
            http("200 OK", r#"{"status":"error","errorType":"timeout","error":"slow"}"#),
            Err("it answered 200: timeout: slow"),
        ),
        (
            http("200 OK", "{\"status\""),
            Err(
                "its answer is not that of its API (EOF while parsing an object at line 1 column 9)",
            ),
        ),
        (
            http("200 OK", "42"),
            Err("its answer is not that of its API (invalid type: integer `42`"),
        ),
        (
            http(
                "200 OK",
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#,
            ),
            Err("it answered with a scalar, not a matrix"),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{".to_owned(), Err("its answer breaks off")),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), Err("its answer is not HTTP")),
        (
            http("200 OK", unlabelled),
            Err("series of containers have no label namespace: {\"pod\": \"x\"}"),
        ),
        (http("200 OK", empty), Ok(())),
    ] {
        // Without series there is a second question, and no third.
        let answers = if expected.is_ok() { vec![answer.clone(), answer] } else { vec![answer] };
        let (address, server) = serve(answers);
        match (history(&address), expected) {
            (Err(error), Err(expected)) => {
                assert!(error.contains(expected), "{error} / {expected}");
                assert_eq!(error.lines().count(), 1, "{error}");
            }
            (Ok(pods), Ok(())) => assert_eq!(pods, []),
            (found, expected) => panic!("{found:?} / {expected:?}"),
        }
        server.join().expect("it serves");
    }
}

#[test]
fn who_does_not_answer_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = silent.local_addr().expect("it is bound");
    let settings_of = |address: String, timeout| Settings {
        address: format!("http://{address}"),
        timeout: Duration::from_millis(timeout),
        ..Settings::default()
    };
    let client = Client::new(settings_of(address.to_string(), 50)).expect("an address");
    let error = ask(&client, &settings(), &call()).expect_err("nobody answers");
    assert_eq!(error, format!("no answer from http://{address}: it takes longer than 50ms"));
    drop(silent);
    let client = Client::new(settings_of(address.to_string(), 5_000)).expect("an address");
    let error = ask(&client, &settings(), &call()).expect_err("nobody is there");
    assert!(error.contains("refused"), "{error}");
    for address in ["prometheus:9090", "", "ftp://x", "http://me:pw@x"] {
        let settings = Settings { address: address.to_owned(), ..Settings::default() };
        assert!(Client::new(settings).is_err(), "{address}");
    }
    let nobody = Settings {
        address: "https://x".to_owned(),
        ca_file: Some("/does/not/exist".into()),
        ..Settings::default()
    };
    let error = Client::new(nobody).err().expect("no such file");
    assert!(error.starts_with("/does/not/exist: "), "{error}");
}

#[test]
fn credentials_go_with_each_request() {
    let empty = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "of-the-file\n").expect("it can be written");
    for (settings, expected) in [
        (
            Settings { user: Some(("me".to_owned(), "pw".to_owned())), ..Settings::default() },
            "Authorization: Basic bWU6cHc=",
        ),
        (
            Settings { token: Some("abc".to_owned()), ..Settings::default() },
            "Authorization: Bearer abc",
        ),
        (
            Settings { token_file: Some(file.path().to_owned()), ..Settings::default() },
            "Authorization: Bearer of-the-file",
        ),
    ] {
        let (address, server) = serve(vec![http("200 OK", empty)]);
        let timeout = Duration::from_secs(20);
        let client = Client::new(Settings { address, timeout, ..settings }).expect("an address");
        client.range("up", &Range { start: 0.0, end: 1.0, step: 1 }).expect("an answer");
        let heads = server.join().expect("it serves");
        assert!(heads[0].lines().any(|line| line == expected), "{}", heads[0]);
    }
}

#[test]
fn rules_are_put_on_the_board_and_taken_away_when_they_fail() {
    let rules = load(
        "apiVersion: wharf.dev/v1alpha1\nkind: PrometheusRules\nrules:\n- {metric: queue, query: q}\n",
        "rules.yaml",
    )
    .expect("it is right");
    let vector = |series: &str| {
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#
        );
        http("200 OK", &body)
    };
    let of = |name: &str, value: u32| {
        format!(r#"{{"metric":{{"name":"{name}"}},"value":[1,"{value}"]}}"#)
    };
    let (address, server) = serve(vec![
        vector(&[of("a", 1), of("b", 2)].join(",")),
        vector(&[of("b", 3), of("c", 4)].join(",")),
        http("500 Internal Server Error", "no"),
        vector(&of("a", 5)),
    ]);
    let board = Board::new();
    let mut told = Tellings::new(Source::new(client(&address), rules), Arc::clone(&board));
    let mut shown = Vec::new();
    for round in 0..4_i64 {
        told.round(Time::from_seconds(15 * round + 1));
        let seen = Time::from_seconds(15 * round + 15);
        let found = board.external("shop", "queue", &Selector::EVERYTHING, seen);
        let found =
            found.iter().map(|one| format!("{}={}", one.labels["name"], one.value.to_api().0));
        shown.push(found.collect::<Vec<_>>().join(" "));
    }
    assert_eq!(shown, ["a=1 b=2", "b=3 c=4", "", "a=5"]);
    let heads = server.join().expect("it serves");
    assert!(heads[0].starts_with("GET /api/v1/query?query=q HTTP/1.1"), "{}", heads[0]);
}
