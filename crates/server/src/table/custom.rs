//! Custom resources: columns by JSON paths, as their definitions have them; and `Instance`.

use serde_json::{Value, json};
use wharf_model::custom;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::Kind;
use wharf_model::money::Price;
use wharf_model::object::Object;
use wharf_model::time::Time;

use super::{Column, age, since};

/// The columns and paths of a custom resource.
pub(super) fn paths(kind: Kind) -> Option<(Vec<Column>, Paths)> {
    let printed = custom::columns(kind.kind)?;
    let mut headers = vec![Column::text("Name")];
    headers.extend(printed.iter().map(|column| Column {
        name: column.name,
        kind: column.kind,
        priority: column.priority,
    }));
    let paths = printed.iter().map(|column| (Path::parse(column.json_path), column.kind)).collect();
    Some((headers, Paths(paths)))
}

/// The path and type of each column after the name.
pub(super) struct Paths(Vec<(Path, &'static str)>);

impl Paths {
    pub(super) fn cells(&self, object: &Object, now: Time) -> Option<Vec<Value>> {
        let value: Value = serde_json::from_slice(object.json()).ok()?;
        let name = json!(object.key().name.as_str());
        let found = self.0.iter().map(|(path, kind)| {
            path.find(&value).map_or(Value::Null, |found| cell(found, kind, now))
        });
        Some(std::iter::once(name).chain(found).collect())
    }
}

/// A value as a cell of that type.
fn cell(value: &Value, kind: &str, now: Time) -> Value {
    match (kind, value) {
        ("date", Value::String(text)) => match text.parse::<jiff::Timestamp>() {
            Ok(then) => json!(since(Some(then.into()), now)),
            Err(_) => json!("<invalid>"),
        },
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("integer" | "number", Value::Number(_)) => value.clone(),
        ("string", Value::Null) => json!("<nil>"),
        ("string", other) => json!(other.to_string()),
        _ => Value::Null,
    }
}

/// The part of JSONPath that definitions use: fields (`\.` is a dot within a name), an item of a list
/// by its position, `[0]`, and a filter of list items by equality, `[?(@.type=="Ready")]`.
struct Path(Vec<Segment>);

enum Segment {
    Field(String),
    Item(usize),
    Where { field: String, is: String },
}

impl Path {
    fn parse(text: &str) -> Self {
        let mut segments = Vec::new();
        let mut name = String::new();
        let mut chars = text.chars();
        let flush = |name: &mut String, segments: &mut Vec<Segment>| {
            if !name.is_empty() {
                segments.push(Segment::Field(std::mem::take(name)));
            }
        };
        while let Some(c) = chars.next() {
            match c {
                '\\' => name.extend(chars.next()),
                '.' => flush(&mut name, &mut segments),
                '[' => {
                    flush(&mut name, &mut segments);
                    let filter: String = chars.by_ref().take_while(|c| *c != ']').collect();
                    let inner = filter.trim_start_matches("?(@.").trim_end_matches(')');
                    if let Ok(index) = inner.parse() {
                        segments.push(Segment::Item(index));
                    } else if let Some((field, is)) = inner.split_once("==") {
                        segments.push(Segment::Where {
                            field: field.to_owned(),
                            is: is.trim_matches('"').to_owned(),
                        });
                    }
                }
                c => name.push(c),
            }
        }
        flush(&mut name, &mut segments);
        Self(segments)
    }

    fn find<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |value, segment| match segment {
            Segment::Field(name) => value.get(name),
            Segment::Item(index) => value.get(index),
            Segment::Where { field, is } => {
                value.as_array()?.iter().find(|item| item[field.as_str()] == is.as_str())
            }
        })
    }
}

pub(super) const INSTANCE: &[Column] = &[
    Column::text("Name"),
    Column::text("Type"),
    Column::text("Capacity"),
    Column::text("Zone"),
    Column::text("State"),
    Column::text("Price"),
    Column::text("Age"),
];

pub(super) fn instance(instance: &Instance, now: Time) -> Vec<Value> {
    let state = match instance.status.state {
        InstanceState::Pending => "pending",
        InstanceState::Running => "running",
        InstanceState::ShuttingDown => "shutting-down",
        InstanceState::Terminated => "terminated",
    };
    vec![
        json!(instance.metadata.name),
        json!(instance.spec.instance_type),
        json!(instance.spec.capacity_type),
        json!(instance.spec.zone),
        json!(state),
        json!(Price::from_nano_dollars_per_hour(instance.spec.price_nanos_per_hour).per_hour()),
        json!(age(instance.metadata.creation_timestamp.as_ref(), now)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    #[test]
    fn karpenters_kinds_print_their_columns() {
        let pool = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool",
            "metadata": {"name": "default", "creationTimestamp": "2026-01-01T23:00:00Z"},
            "spec": {"weight": 10, "template": {"spec": {"nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "d"}}}},
            "status": {"nodes": 2, "resources": {"cpu": "8"}, "conditions": [
                {"type": "Other", "status": "False", "lastTransitionTime": "2026-01-01T23:00:00Z", "reason": "", "message": ""},
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T23:00:00Z", "reason": "Ready", "message": ""}]},
        });
        assert_eq!(printed("NodePool", pool), "default|d|2|True|60m || 10|8|null");
        let claim = json!({
            "metadata": {"name": "c", "creationTimestamp": "2026-01-01T23:59:00Z", "labels": {
                "node.kubernetes.io/instance-type": "c5a.2xlarge", "karpenter.sh/capacity-type": "spot",
                "topology.kubernetes.io/zone": "ap-northeast-2a", "karpenter.sh/nodepool": "default"}},
            "spec": {"nodeClassRef": {"name": "d"}},
        });
        assert_eq!(
            printed("NodeClaim", claim),
            "c|c5a.2xlarge|spot|ap-northeast-2a|null|null|60s || null|null|default|d|null"
        );
    }

    #[test]
    fn vertical_pod_autoscalers_print_their_first_recommendation() {
        let autoscaler = json!({
            "metadata": {"name": "hamster-vpa", "namespace": "default", "creationTimestamp": "2026-01-01T23:57:00Z"},
            "spec": {"targetRef": {"kind": "Deployment", "name": "hamster"}, "updatePolicy": {"updateMode": "Recreate"}},
            "status": {
                "recommendation": {"containerRecommendations": [{"containerName": "hamster",
                    "target": {"cpu": "587m", "memory": "262144k"}}]},
                "conditions": [{"type": "RecommendationProvided", "status": "True"}]},
        });
        assert_eq!(
            printed("VerticalPodAutoscaler", autoscaler),
            "hamster-vpa|Recreate|587m|262144k|True|3m || null|null"
        );
        let new = json!({"metadata": {"name": "v", "creationTimestamp": "2026-01-01T23:57:00Z"},
            "spec": {"updatePolicy": {"updateMode": "Off"}}});
        assert_eq!(printed("VerticalPodAutoscaler", new), "v|Off|null|null|null|3m || null|null");
    }

    #[test]
    fn instances_show_what_they_cost() {
        let mut instance = Instance::default();
        instance.metadata.name = Some("i-1".to_owned());
        instance.spec.instance_type = "c5a.large".to_owned();
        instance.spec.capacity_type = "spot".to_owned();
        instance.spec.zone = "ap-northeast-2a".to_owned();
        instance.spec.price_nanos_per_hour = 86_000_000;
        instance.status.state = InstanceState::Running;
        let line = printed("Instance", serde_json::to_value(instance).expect("plain data"));
        assert!(line.starts_with("i-1|c5a.large|spot|ap-northeast-2a|running|"), "{line}");
        assert!(line.contains("0.086"), "{line}");
    }

    #[test]
    fn paths_find_what_definitions_name() {
        let value =
            json!({"a": {"b.c": 1}, "list": [{"type": "x", "v": 1}, {"type": "y", "v": 2}]});
        for (path, expected) in [
            (r".a.b\.c", Some(json!(1))),
            (r#".list[?(@.type=="y")].v"#, Some(json!(2))),
            (r#".list[?(@.type=="z")].v"#, None),
            (".a.q", None),
            (".list[1].v", Some(json!(2))),
            (".list[2].v", None),
        ] {
            assert_eq!(Path::parse(path).find(&value).cloned(), expected, "{path}");
        }
    }
}
