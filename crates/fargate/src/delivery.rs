//! Where the lines of a container go: what Fluent Bit, as Fargate runs it, does with one line on its way
//! to CloudWatch Logs.
//!
//! Applied are the filters `parser` (regular expressions and JSON), `kubernetes` and `grep`, and the
//! outputs to CloudWatch. What else a map asks for is told in [`Delivery::notes`], and not done.
//! <https://docs.fluentbit.io/manual/pipeline/outputs/cloudwatch>

use k8s_openapi::api::core::v1::Pod;
use regex::Regex;
use serde_json::{Map, Value, json};
use wharf_model::time::Time;

use crate::logging::{Logging, Section};
use crate::pattern;

/// The filters and outputs of a map, ready for lines.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    filters: Vec<(String, Filter)>,
    outputs: Vec<(String, Output)>,
    /// Whether the router's own log is collected.
    pub ships_own_log: bool,
    /// What of the map is not done, a line each.
    pub notes: Vec<String>,
}

/// A container whose lines are delivered.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `kube.var.log.containers.POD_NAMESPACE_CONTAINER-ID.log`.
    tag: String,
    /// What the filter `kubernetes` adds.
    kubernetes: Map<String, Value>,
    own_stream: String,
}

/// A line where it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The log group.
    pub group: String,
    /// The log stream.
    pub stream: String,
    /// What is kept: the record as JSON, or one value of it.
    pub message: String,
    /// For how many days the group is to keep it, if the map says so.
    pub retention_days: Option<u32>,
}

#[derive(Clone, Debug)]
enum Filter {
    Parser { key: String, parsers: Vec<Parser>, keeps_rest: bool },
    Kubernetes { merges_log: bool, labels: bool, annotations: bool },
    Grep { wanted: Vec<(String, Regex)>, unwanted: Vec<(String, Regex)> },
}

#[derive(Clone, Debug)]
enum Parser {
    Regex { regex: Regex, time_key: Option<String> },
    Json,
}

#[derive(Clone, Debug)]
struct Output {
    group: String,
    group_template: Option<String>,
    stream: Option<String>,
    stream_prefix: Option<String>,
    stream_template: Option<String>,
    log_key: Option<String>,
    retention_days: Option<u32>,
}

impl Delivery {
    /// What a map asks for.
    pub fn of(logging: &Logging) -> Self {
        let mut delivery = Self { ships_own_log: logging.ships_own_log, ..Self::default() };
        for section in &logging.filters {
            match filter(section, &logging.parsers) {
                Ok(filter) => delivery.filters.push((matched(section), filter)),
                Err(why) => delivery.notes.push(format!("filter {}: {why}", section.name)),
            }
        }
        for section in &logging.outputs {
            match output(section) {
                Ok(output) => delivery.outputs.push((matched(section), output)),
                Err(why) => delivery.notes.push(format!("output {}: {why}", section.name)),
            }
        }
        delivery
    }

    /// Where a line goes, one for each output; none if a filter drops it.
    pub fn deliver(&self, origin: &Origin, at: Time, line: &str) -> Vec<Delivered> {
        // As the container runtime writes it down.
        let when = at.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.9fZ");
        let log = format!("{when} stdout F {line}");
        let mut record = Map::from_iter([("log".to_owned(), json!(log))]);
        for (wanted, filter) in &self.filters {
            if pattern::matches(wanted, &origin.tag) && !filter.apply(&mut record, origin) {
                return Vec::new();
            }
        }
        let outputs = self.outputs.iter().filter(|(w, _)| pattern::matches(w, &origin.tag));
        outputs.map(|(_, output)| output.deliver(&record, origin)).collect()
    }

    /// Where the router's own line goes.
    pub fn own_line(&self, cluster: &str, origin: &Origin, at: Time, says: &str) -> Delivered {
        let when = at.timestamp().strftime("%Y/%m/%d %H:%M:%S");
        let message = format!("[{when}] [ info] [output:cloudwatch_logs:cloudwatch_logs.0] {says}");
        Delivered {
            group: format!("{cluster}-fluent-bit-logs"),
            stream: origin.own_stream.clone(),
            message,
            retention_days: None,
        }
    }
}

impl Origin {
    /// A container of a pod, as its status tells of it.
    pub fn of(pod: &Pod, container: &str) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (name, namespace) = (text(&pod.metadata.name), text(&pod.metadata.namespace));
        let status = pod.status.as_ref();
        let statuses = status.into_iter().flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        });
        let status = { statuses }.find(|status| status.name == container);
        let id = status.and_then(|status| status.container_id.as_deref()).unwrap_or_default();
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        let hash = status.map(|status| status.image_id.clone()).unwrap_or_default();
        let image = status.map(|status| status.image.clone()).unwrap_or_default();
        let host = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let fields = [
            ("pod_name", json!(name)),
            ("namespace_name", json!(namespace)),
            ("pod_id", json!(text(&pod.metadata.uid))),
            ("labels", json!(pod.metadata.labels.clone().unwrap_or_default())),
            ("annotations", json!(pod.metadata.annotations.clone().unwrap_or_default())),
            ("host", json!(host.unwrap_or_default())),
            ("container_name", json!(container)),
            ("docker_id", json!(id)),
            ("container_hash", json!(hash)),
            ("container_image", json!(image)),
        ];
        Self {
            tag: format!("kube.var.log.containers.{name}_{namespace}_{container}-{id}.log"),
            kubernetes: fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect(),
            own_stream: format!("fluent-bit-{name}-{namespace}"),
        }
    }
}

impl Filter {
    /// Changes a record; whether it goes on.
    fn apply(&self, record: &mut Map<String, Value>, origin: &Origin) -> bool {
        match self {
            Self::Parser { key, parsers, keeps_rest } => {
                let Some(text) = record.get(key).and_then(Value::as_str) else { return true };
                let Some(mut read) = parsers.iter().find_map(|parser| parser.read(text)) else {
                    return true;
                };
                if *keeps_rest {
                    record.remove(key);
                    let rest = std::mem::take(record);
                    rest.into_iter().for_each(|(key, value)| {
                        read.entry(key).or_insert(value);
                    });
                }
                *record = read;
                true
            }
            Self::Kubernetes { merges_log, labels, annotations } => {
                if *merges_log
                    && let Some(text) = record.get("log").and_then(Value::as_str)
                    && let Ok(Value::Object(merged)) = serde_json::from_str(text)
                {
                    record.extend(merged);
                }
                let mut about = origin.kubernetes.clone();
                about.retain(|key, _| match key.as_str() {
                    "labels" => *labels,
                    "annotations" => *annotations,
                    _ => true,
                });
                record.insert("kubernetes".to_owned(), Value::Object(about));
                true
            }
            Self::Grep { wanted, unwanted } => {
                let is_match = |(key, regex): &(String, Regex)| {
                    value_at(record, key).is_some_and(|text| regex.is_match(&text))
                };
                wanted.iter().all(is_match) && !unwanted.iter().any(is_match)
            }
        }
    }
}

impl Parser {
    fn read(&self, text: &str) -> Option<Map<String, Value>> {
        match self {
            Self::Json => match serde_json::from_str(text) {
                Ok(Value::Object(read)) => Some(read),
                _ => None,
            },
            Self::Regex { regex, time_key } => {
                let found = regex.captures(text)?;
                let names = regex.capture_names().flatten();
                let names = names.filter(|name| Some(*name) != time_key.as_deref());
                let value = |name: &str| Some((name.to_owned(), json!(found.name(name)?.as_str())));
                Some(names.filter_map(value).collect())
            }
        }
    }
}

impl Output {
    fn deliver(&self, record: &Map<String, Value>, origin: &Origin) -> Delivered {
        let filled = |template: &Option<String>| fill(template.as_deref()?, record, &origin.tag);
        let named = self.stream.clone();
        let prefix = self.stream_prefix.as_deref().unwrap_or_default();
        let key = self.log_key.as_ref().and_then(|key| record.get(key));
        let message = match key {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => Value::Object(record.clone()).to_string(),
        };
        Delivered {
            group: filled(&self.group_template).unwrap_or_else(|| self.group.clone()),
            stream: filled(&self.stream_template)
                .or(named)
                .unwrap_or_else(|| format!("{prefix}{}", origin.tag)),
            message,
            retention_days: self.retention_days,
        }
    }
}

fn matched(section: &Section) -> String {
    section.get("Match").unwrap_or("*").to_owned()
}

fn flag(section: &Section, key: &str, default: bool) -> bool {
    section.get(key).map_or(default, |value| {
        matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes")
    })
}

fn filter(section: &Section, parsers: &[Section]) -> Result<Filter, String> {
    match section.name.to_ascii_lowercase().as_str() {
        "kubernetes" => Ok(Filter::Kubernetes {
            merges_log: flag(section, "Merge_Log", false),
            labels: flag(section, "Labels", true),
            annotations: flag(section, "Annotations", true),
        }),
        "parser" => {
            let key = section.get("Key_Name").ok_or("it names no Key_Name")?;
            let entries = section.entries.iter();
            let names = entries.filter(|(key, _)| key.eq_ignore_ascii_case("Parser"));
            let parsers = names.map(|(_, name)| {
                let found = parsers.iter().find(|parser| parser.name == *name);
                parser(found.ok_or(format!("there is no parser {name} in parsers.conf"))?)
            });
            let keeps_rest = flag(section, "Reserve_Data", false);
            let parsers = parsers.collect::<Result<_, String>>()?;
            Ok(Filter::Parser { key: key.to_owned(), parsers, keeps_rest })
        }
        "grep" => {
            let rules = |wanted: &str| -> Result<Vec<(String, Regex)>, String> {
                let entries = section.entries.iter();
                let entries = entries.filter(|(key, _)| key.eq_ignore_ascii_case(wanted));
                entries
                    .map(|(_, rule)| {
                        let (key, text) =
                            rule.split_once(char::is_whitespace).ok_or_else(|| {
                                format!("{wanted} {rule} needs a key and an expression")
                            })?;
                        Ok((key.to_owned(), regex(text.trim())?))
                    })
                    .collect()
            };
            Ok(Filter::Grep { wanted: rules("Regex")?, unwanted: rules("Exclude")? })
        }
        _ => Err("is not applied here".to_owned()),
    }
}

fn parser(section: &Section) -> Result<Parser, String> {
    match section.get("Format").unwrap_or_default().to_ascii_lowercase().as_str() {
        "json" => Ok(Parser::Json),
        "regex" => {
            let text = section.get("Regex").ok_or("its parser has no Regex")?;
            let keeps_time = flag(section, "Time_Keep", false);
            let time_key = section.get("Time_Key").filter(|_| !keeps_time).map(str::to_owned);
            Ok(Parser::Regex { regex: regex(text)?, time_key })
        }
        other => Err(format!("parsers of format {other} are not applied here")),
    }
}

fn regex(text: &str) -> Result<Regex, String> {
    // Slashes around an expression are how other tools write it.
    let bare = text.strip_prefix('/').and_then(|text| text.strip_suffix('/')).unwrap_or(text);
    Regex::new(bare).map_err(|_| format!("the expression {text} cannot be used here"))
}

fn output(section: &Section) -> Result<Output, String> {
    let name = section.name.to_ascii_lowercase();
    if !matches!(name.as_str(), "cloudwatch" | "cloudwatch_logs") {
        return Err("nothing is delivered there".to_owned());
    }
    let text = |key: &str| section.get(key).map(str::to_owned);
    let output = Output {
        group: text("log_group_name").ok_or("it needs log_group_name")?,
        group_template: text("log_group_template"),
        stream: text("log_stream_name"),
        stream_prefix: text("log_stream_prefix"),
        stream_template: text("log_stream_template"),
        log_key: text("log_key"),
        retention_days: section.get("log_retention_days").and_then(|days| days.parse().ok()),
    };
    if output.stream.is_none() && output.stream_prefix.is_none() {
        return Err("it needs log_stream_name or log_stream_prefix".to_owned());
    }
    Ok(output)
}

/// A record's value, as text, under a name or a path `$kubernetes['labels']['app']`.
fn value_at(record: &Map<String, Value>, path: &str) -> Option<String> {
    let path = path.strip_prefix('$').unwrap_or(path);
    let mut keys = path.split(['[', ']', '\'', '"']).filter(|key| !key.is_empty());
    let mut value = record.get(keys.next()?)?;
    for key in keys {
        value = value.get(key)?;
    }
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// A template such as `$kubernetes['pod_name'].$kubernetes['container_name']`; `None` if the record
/// has not all of it.
fn fill(template: &str, record: &Map<String, Value>, tag: &str) -> Option<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        let path = &rest[at + 1..];
        let name_end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut end = name_end.unwrap_or(path.len());
        while path[end..].starts_with('[') {
            end += path[end..].find(']')? + 1;
        }
        match &path[..end] {
            "tag" | "TAG" => filled.push_str(tag),
            path => filled.push_str(&value_at(record, path)?),
        }
        rest = &path[end..];
    }
    filled.push_str(rest);
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging;

    const AT: Time = Time::from_seconds(1_767_225_600);

    fn delivery(output: &str, filters: &str, parsers: &str) -> Delivery {
        let data = [("output.conf", output), ("filters.conf", filters), ("parsers.conf", parsers)];
        let data = data.map(|(key, text)| (key.to_owned(), text.to_owned()));
        Delivery::of(&logging::read(&data.into_iter().collect()).expect("a valid map"))
    }

    fn origin() -> Origin {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u", "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"containerStatuses": [{"name": "c", "image": "nginx:1", "imageID": "i",
                "containerID": "containerd://abc", "ready": true, "restartCount": 0}]},
        }))
        .expect("a pod");
        Origin::of(&pod, "c")
    }

    const OUTPUT: &str = "[OUTPUT]\n  Name cloudwatch_logs\n  Match kube.*\n  region r\n  log_group_name /g\n  log_stream_prefix p-\n";
    const CRI: &str = "[PARSER]\n  Name crio\n  Format Regex\n  Regex ^(?<time>[^ ]+) (?<stream>stdout|stderr) (?<logtag>P|F) (?<log>.*)$\n  Time_Key time\n";
    const PARSE: &str = "[FILTER]\n  Name parser\n  Match *\n  Key_Name log\n  Parser crio\n";

    #[test]
    fn a_line_without_filters_is_as_the_runtime_writes_it() {
        let delivered = delivery(OUTPUT, "", "").deliver(&origin(), AT, "hello");
        assert_eq!(
            delivered,
            [Delivered {
                group: "/g".to_owned(),
                stream: "p-kube.var.log.containers.web-1_shop_c-abc.log".to_owned(),
                message: r#"{"log":"2026-01-01T00:00:00.000000000Z stdout F hello"}"#.to_owned(),
                retention_days: None,
            }]
        );
    }

    #[test]
    fn the_blueprints_filters_are_applied() {
        let filters =
            format!("{PARSE}[FILTER]\n  Name kubernetes\n  Match kube.*\n  Merge_Log On\n");
        let delivery = delivery(OUTPUT, &filters, CRI);
        assert!(delivery.notes.is_empty(), "{:?}", delivery.notes);
        let delivered = delivery.deliver(&origin(), AT, "hello");
        let record: Value = serde_json::from_str(&delivered[0].message).expect("JSON");
        assert_eq!(record["log"], "hello");
        assert_eq!((&record["stream"], &record["logtag"]), (&json!("stdout"), &json!("F")));
        let about = &record["kubernetes"];
        assert_eq!(about["labels"], json!({"app": "web"}));
        assert_eq!(about["docker_id"], "abc");
        assert!(record.get("time").is_none(), "it became the event's time");
        let merged = delivery.deliver(&origin(), AT, r#"{"level":"info"}"#);
        assert!(merged[0].message.contains(r#""level":"info""#), "{merged:?}");
    }

    #[test]
    fn streams_groups_and_messages_are_named_by_the_record() {
        let output = format!(
            "{OUTPUT}  log_group_template /ns/$kubernetes['namespace_name']\n  log_stream_template $kubernetes['pod_name'].$kubernetes['labels']['app']\n  log_key log\n  log_retention_days 7\n"
        );
        let kubernetes = format!("{PARSE}[FILTER]\n  Name kubernetes\n  Match *\n");
        let with = delivery(&output, &kubernetes, CRI).deliver(&origin(), AT, "hello").remove(0);
        assert_eq!((with.group.as_str(), with.stream.as_str()), ("/ns/shop", "web-1.web"));
        assert_eq!((with.message.as_str(), with.retention_days), ("hello", Some(7)));
        let without = delivery(&output, "", "").deliver(&origin(), AT, "hello").remove(0);
        assert_eq!(without.group, "/g", "what a template cannot tell is told without");
    }

    #[test]
    fn grep_keeps_and_drops() {
        let grep = format!(
            "{PARSE}[FILTER]\n  Name grep\n  Match *\n  Regex log GET\n  Exclude log /healthz/\n"
        );
        let delivery = delivery(OUTPUT, &grep, CRI);
        for (line, kept) in [("GET /", true), ("POST /", false), ("GET healthz", false)] {
            let delivered = delivery.deliver(&origin(), AT, line);
            assert_eq!(!delivered.is_empty(), kept, "{line}");
        }
    }

    #[test]
    fn what_is_not_done_is_told() {
        let output = format!(
            "{OUTPUT}[OUTPUT]\n  Name firehose\n  Match *\n[OUTPUT]\n  Name cloudwatch\n  Match *\n  log_group_name g\n"
        );
        let filters = "[FILTER]\n  Name throttle\n  Match *\n[FILTER]\n  Name parser\n  Match *\n  Key_Name log\n  Parser none\n[FILTER]\n  Name grep\n  Match *\n  Regex log (?!a)\n";
        assert_eq!(
            delivery(&output, filters, "").notes,
            [
                "filter throttle: is not applied here",
                "filter parser: there is no parser none in parsers.conf",
                "filter grep: the expression (?!a) cannot be used here",
                "output firehose: nothing is delivered there",
                "output cloudwatch: it needs log_stream_name or log_stream_prefix",
            ]
        );
    }

    #[test]
    fn the_routers_own_lines_have_a_group_of_their_own() {
        let own = Delivery::default().own_line("lab", &origin(), AT, "Created log group /g");
        assert_eq!(
            (own.group.as_str(), own.stream.as_str()),
            ("lab-fluent-bit-logs", "fluent-bit-web-1-shop")
        );
        assert_eq!(
            own.message,
            "[2026/01/01 00:00:00] [ info] [output:cloudwatch_logs:cloudwatch_logs.0] Created log group /g"
        );
    }
}
