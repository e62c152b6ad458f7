//! Tables: what `kubectl get` prints, made by the server (`meta.k8s.io/v1` Table).
//!
//! One file per group of kinds holds their columns and cells. Ages count from the creation to the
//! `now` that is handed in, which is cluster time. A kind without columns of its own gets its name
//! and when it was created, as upstream's default table.
//!
//! Public contract:
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables>.

mod autoscaler;
mod batch;
mod certificate;
mod core;
mod custom;
mod devices;
mod network;
mod node;
mod pod;
mod pod_group;
mod storage;
mod workload;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time as MetaTime};
use serde_json::{Map, Value, json};
use wharf_model::duration::human;
use wharf_model::kinds::{Kind, Resource};
use wharf_model::object::Object;
use wharf_model::time::Time;

/// How much of each object its row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    /// Nothing.
    None,
    /// The metadata.
    Metadata,
    /// All of it.
    Object,
}

/// The table of some objects of a kind, in their order. An object that cannot be decoded keeps its
/// row, with its name and nothing else.
pub(crate) fn render(
    kind: Kind,
    objects: &[Arc<Object>],
    now: Time,
    include: IncludeObject,
) -> Value {
    let printer = Printer::of(kind);
    let columns = printer.columns();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells = printer.cells(object, now).unwrap_or_else(|| {
                let mut cells = vec![Value::Null; columns.len()];
                cells[printer.name_position()] = json!(object.key().name.as_str());
                cells
            });
            row(object, cells, printer.conditions(object), include)
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns.iter().map(Column::definition).collect::<Vec<_>>(),
        "rows": rows,
    })
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    name: &'static str,
    /// `string`, `integer`, `boolean`, `date`.
    kind: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    priority: i32,
}

impl Column {
    const fn text(name: &'static str) -> Self {
        Self { name, kind: "string", priority: 0 }
    }

    const fn number(name: &'static str) -> Self {
        Self { name, kind: "integer", priority: 0 }
    }

    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": if self.name == "Name" { "name" } else { "" },
            "description": "",
            "priority": self.priority,
        })
    }
}

type Cells = fn(&Object, Time) -> Option<Vec<Value>>;

/// How a kind is printed.
enum Printer {
    /// Columns and cells written here.
    BuiltIn(&'static [Column], Cells),
    /// Columns by JSON paths, as custom resource definitions have them.
    Custom(Vec<Column>, custom::Paths),
}

impl Printer {
    fn of(kind: Kind) -> Self {
        macro_rules! printer {
            ($columns:expr, $cells:path) => {
                Self::BuiltIn($columns, |object, now| Some($cells(typed(object)?, now)))
            };
        }
        match (kind.group, kind.kind) {
            ("", "Pod") => printer!(pod::COLUMNS, pod::cells),
            ("", "Node") => printer!(node::COLUMNS, node::cells),
            ("apps", "Deployment") => printer!(workload::DEPLOYMENT, workload::deployment),
            ("apps", "ReplicaSet") => printer!(workload::REPLICA_SET, workload::replica_set),
            ("apps", "StatefulSet") => printer!(workload::STATEFUL_SET, workload::stateful_set),
            ("apps", "DaemonSet") => printer!(workload::DAEMON_SET, workload::daemon_set),
            ("batch", "Job") => printer!(batch::JOB, batch::job),
            ("batch", "CronJob") => printer!(batch::CRON_JOB, batch::cron_job),
            ("apps", "ControllerRevision") => {
                printer!(workload::CONTROLLER_REVISION, workload::controller_revision)
            }
            ("", "ReplicationController") => {
                printer!(workload::REPLICA_SET, workload::replication_controller)
            }
            ("", "PersistentVolume") => printer!(storage::VOLUME, storage::volume),
            ("", "PersistentVolumeClaim") => printer!(storage::CLAIM, storage::claim),
            ("storage.k8s.io", "StorageClass") => printer!(storage::CLASS, storage::class),
            ("storage.k8s.io", "CSINode") => printer!(storage::NODE, storage::node),
            ("storage.k8s.io", "CSIDriver") => printer!(storage::DRIVER, storage::driver),
            ("storage.k8s.io", "CSIStorageCapacity") => {
                printer!(storage::CAPACITY, storage::capacity)
            }
            ("storage.k8s.io", "VolumeAttachment") => {
                printer!(storage::ATTACHMENT, storage::attachment)
            }
            ("resource.k8s.io", "ResourceClaim") => printer!(devices::CLAIM, devices::claim),
            ("resource.k8s.io", "ResourceClaimTemplate") => {
                printer!(devices::NAMED, devices::template)
            }
            ("resource.k8s.io", "DeviceClass") => printer!(devices::NAMED, devices::class),
            ("resource.k8s.io", "ResourceSlice") => printer!(devices::SLICE, devices::slice),
            ("scheduling.k8s.io", "PodGroup") => printer!(pod_group::GROUP, pod_group::group),
            ("scheduling.k8s.io", "Workload") => {
                printer!(pod_group::WORKLOAD, pod_group::workload)
            }
            ("autoscaling", "HorizontalPodAutoscaler") => {
                printer!(autoscaler::AUTOSCALER, autoscaler::autoscaler)
            }
            ("policy", "PodDisruptionBudget") => printer!(workload::BUDGET, workload::budget),
            ("", "Service") => printer!(core::SERVICE, core::service),
            ("", "Endpoints") => printer!(network::ENDPOINTS, network::endpoints),
            ("discovery.k8s.io", "EndpointSlice") => printer!(network::SLICE, network::slice),
            ("networking.k8s.io", "Ingress") => printer!(network::INGRESS, network::ingress),
            ("networking.k8s.io", "IngressClass") => printer!(network::CLASS, network::class),
            ("", "Event") => printer!(core::EVENT, core::event),
            ("", "Namespace") => printer!(core::NAMESPACE, core::namespace),
            ("", "ConfigMap") => printer!(core::CONFIG_MAP, core::config_map),
            ("", "Secret") => printer!(core::SECRET, core::secret),
            ("", "ServiceAccount") => printer!(core::SERVICE_ACCOUNT, core::service_account),
            ("", "LimitRange") => printer!(core::LIMIT_RANGE, core::limit_range),
            ("coordination.k8s.io", "Lease") => printer!(core::LEASE, core::lease),
            ("scheduling.k8s.io", "PriorityClass") => {
                printer!(core::PRIORITY_CLASS, core::priority_class)
            }
            ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
                printer!(core::WEBHOOKS, core::mutating_webhooks)
            }
            ("certificates.k8s.io", "CertificateSigningRequest") => {
                printer!(certificate::REQUEST, certificate::request)
            }
            ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
                printer!(core::WEBHOOKS, core::validating_webhooks)
            }
            (_, "Instance") => printer!(custom::INSTANCE, custom::instance),
            _ => match custom::paths(kind) {
                Some((columns, paths)) => Self::Custom(columns, paths),
                None => Self::BuiltIn(DEFAULT, default_cells),
            },
        }
    }

    fn columns(&self) -> &[Column] {
        match self {
            Self::BuiltIn(columns, _) => columns,
            Self::Custom(columns, _) => columns,
        }
    }

    fn cells(&self, object: &Object, now: Time) -> Option<Vec<Value>> {
        match self {
            Self::BuiltIn(_, cells) => cells(object, now),
            Self::Custom(_, paths) => paths.cells(object, now),
        }
    }

    fn name_position(&self) -> usize {
        self.columns().iter().position(|column| column.name == "Name").unwrap_or(0)
    }

    fn conditions(&self, object: &Object) -> Option<Value> {
        object.typed().and_then(pod::conditions)
    }
}

/// The columns of a kind that has none of its own.
const DEFAULT: &[Column] =
    &[Column::text("Name"), Column { name: "Created At", kind: "date", priority: 0 }];

fn default_cells(object: &Object, _: Time) -> Option<Vec<Value>> {
    let header = object.header();
    Some(vec![json!(header.key.name.as_str()), json!(header.created.to_string())])
}

fn typed<T: Resource>(object: &Object) -> Option<&T> {
    object.typed::<T>()
}

fn row(
    object: &Object,
    cells: Vec<Value>,
    conditions: Option<Value>,
    include: IncludeObject,
) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array(cells));
    if let Some(conditions) = conditions {
        row.insert("conditions".to_owned(), conditions);
    }
    let carried = match include {
        IncludeObject::None => None,
        IncludeObject::Metadata => Some(json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata(object),
        })),
        IncludeObject::Object => serde_json::from_slice(object.json()).ok(),
    };
    if let Some(carried) = carried {
        row.insert("object".to_owned(), carried);
    }
    Value::Object(row)
}

fn metadata(object: &Object) -> Value {
    match object.typed_any() {
        Ok(typed) => serde_json::to_value(typed.meta()).unwrap_or_default(),
        Err(_) => {
            let value: Value = serde_json::from_slice(object.json()).unwrap_or_default();
            value.get("metadata").cloned().unwrap_or_default()
        }
    }
}

/// The time since then as kubectl shows ages.
fn age(then: Option<&MetaTime>, now: Time) -> String {
    since(then.map(Time::from), now)
}

/// The same for a point in cluster time.
fn since(then: Option<Time>, now: Time) -> String {
    match then {
        Some(then) => human(now.as_nanos().saturating_sub(then.as_nanos())),
        None => "<unknown>".to_owned(),
    }
}

/// A text, or `<none>`.
fn or_none(text: Option<&str>) -> Value {
    json!(text.filter(|text| !text.is_empty()).unwrap_or("<none>"))
}

/// Labels as `a=b,c=d`, or `<none>`.
fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let pairs: Vec<String> =
        labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A label selector as kubectl takes it: `app=web,tier in (a,b),!old`.
fn selector(selector: &LabelSelector) -> String {
    // Upstream sorts the requirements by key.
    let mut parts: Vec<(&str, String)> = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), format!("{key}={value}")))
        .collect();
    for requirement in selector.match_expressions.iter().flatten() {
        let key = &requirement.key;
        let mut values = requirement.values.clone().unwrap_or_default();
        values.sort();
        let values = values.join(",");
        let text = match requirement.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        parts.push((key, text));
    }
    if parts.is_empty() {
        return "<none>".to_owned();
    }
    parts.sort_by_key(|(key, _)| *key);
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub(super) mod tests {
    use wharf_model::kinds::built_in;

    use super::*;

    /// Cluster time in these tests.
    pub(crate) const NOW: &str = "2026-01-02T00:00:00Z";

    pub(crate) fn now() -> Time {
        NOW.parse::<jiff::Timestamp>().expect("a time").into()
    }

    /// The cells of one object, joined by bars; those of `-o wide` after a double bar.
    pub(crate) fn printed(kind: &str, object: Value) -> String {
        let kind = *built_in().iter().find(|row| row.kind == kind).expect("a kind");
        let bytes = bytes::Bytes::from(object.to_string());
        let object = Arc::new(Object::from_json(kind, bytes, 1).expect("readable metadata"));
        let table = render(kind, &[object], now(), IncludeObject::None);
        let mut shown = Vec::new();
        let mut wide = Vec::new();
        for (index, cell) in table["rows"][0]["cells"].as_array().expect("cells").iter().enumerate()
        {
            let text = cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
            let priority = &table["columnDefinitions"][index]["priority"];
            if priority == 0 { shown.push(text) } else { wide.push(text) }
        }
        if wide.is_empty() {
            shown.join("|")
        } else {
            format!("{} || {}", shown.join("|"), wide.join("|"))
        }
    }

    fn header(kind: Kind) -> String {
        let table = render(kind, &[], now(), IncludeObject::None);
        let columns: Vec<String> = table["columnDefinitions"]
            .as_array()
            .expect("columns")
            .iter()
            .map(|column| {
                let star = if column["priority"] == 0 { "" } else { "*" };
                format!("{}{star}", column["name"].as_str().expect("a name"))
            })
            .collect();
        columns.join("|")
    }

    #[test]
    fn headers_are_upstreams() {
        for (kind, expected) in [
            ("Pod", "Name|Ready|Status|Restarts|Age|IP*|Node*|Nominated Node*|Readiness Gates*"),
            ("PodDisruptionBudget", "Name|Min Available|Max Unavailable|Allowed Disruptions|Age"),
            ("ReplicaSet", "Name|Desired|Current|Ready|Age|Containers*|Images*|Selector*"),
            ("Service", "Name|Type|Cluster-IP|External-IP|Port(s)|Age|Selector*"),
            (
                "Node",
                "Name|Status|Roles|Age|Version|Internal-IP*|External-IP*|OS-Image*|Kernel-Version*|Container-Runtime*",
            ),
            (
                "Event",
                "Last Seen|Type|Reason|Object|Subobject*|Source*|Message|First Seen*|Count*|Name*",
            ),
            ("Namespace", "Name|Status|Age"),
            ("Secret", "Name|Type|Data|Age"),
            ("ServiceAccount", "Name|Age"),
            ("Deployment", "Name|Ready|Up-to-date|Available|Age|Containers*|Images*|Selector*"),
            ("ConfigMap", "Name|Data|Age"),
            ("Lease", "Name|Holder|Age"),
            ("LimitRange", "Name|Created At"),
            ("PriorityClass", "Name|Value|Global-Default|Age|PreemptionPolicy"),
            (
                "ReplicationController",
                "Name|Desired|Current|Ready|Age|Containers*|Images*|Selector*",
            ),
            ("StatefulSet", "Name|Ready|Age|Containers*|Images*"),
            (
                "DaemonSet",
                "Name|Desired|Current|Ready|Up-to-date|Available|Node Selector|Age|Containers*|Images*|Selector*",
            ),
            ("Job", "Name|Status|Completions|Duration|Age|Containers*|Images*|Selector*"),
            (
                "CronJob",
                "Name|Schedule|Timezone|Suspend|Active|Last Schedule|Age|Containers*|Images*|Selector*",
            ),
            ("ControllerRevision", "Name|Controller|Revision|Age"),
            (
                "PersistentVolume",
                "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|VolumeMode*",
            ),
            (
                "PersistentVolumeClaim",
                "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|VolumeMode*",
            ),
            (
                "StorageClass",
                "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age",
            ),
            ("VolumeAttachment", "Name|Attacher|PV|Node|Attached|Age"),
            ("CSINode", "Name|Drivers|Age"),
            (
                "CSIDriver",
                "Name|AttachRequired|PodInfoOnMount|StorageCapacity|TokenRequests|RequiresRepublish|Modes|Age",
            ),
            ("CSIStorageCapacity", "Name|StorageClassName|Capacity"),
            ("ResourceClaim", "Name|State|Age"),
            ("ResourceClaimTemplate", "Name|Age"),
            ("DeviceClass", "Name|Age"),
            ("ResourceSlice", "Name|Node|Driver|Pool|Age"),
            ("PodGroup", "Name|Policy|Workload|Status|Age"),
            ("Workload", "Name|Age"),
            ("HorizontalPodAutoscaler", "Name|Reference|Targets|MinPods|MaxPods|Replicas|Age"),
            ("NodePool", "Name|NodeClass|Nodes|Ready|Age|Weight*|CPU*|Memory*"),
            ("MutatingWebhookConfiguration", "Name|Webhooks|Age"),
            (
                "CertificateSigningRequest",
                "Name|Age|SignerName|Requestor|RequestedDuration|Condition",
            ),
            ("ValidatingWebhookConfiguration", "Name|Webhooks|Age"),
            ("FargateProfile", "Name|CLUSTER|STATUS|PODEXECUTIONROLEARN*|Synced|Age"),
            ("Subnet", "Name|CIDR|Zone|Public|Age"),
            ("NodeClass", "Name|Role|Ready|Age"),
            ("Cluster", "Name|VERSION|STATUS|AUTOMODE|Age"),
            (
                "Nodegroup",
                "Name|CLUSTER|STATUS|DESIREDSIZE|MINSIZE|MAXSIZE|CAPACITYTYPE*|AMITYPE*|Synced|Age",
            ),
            ("Endpoints", "Name|Endpoints|Age"),
            ("EndpointSlice", "Name|AddressType|Ports|Endpoints|Age"),
            ("Ingress", "Name|Class|Hosts|Address|Ports|Age"),
            ("IngressClass", "Name|Controller|Parameters|Age"),
            ("TargetGroupBinding", "Name|SERVICE-NAME|SERVICE-PORT|TARGET-TYPE|ARN*|NAME*|AGE"),
            ("Instance", "Name|Type|Capacity|Zone|State|Price|Age"),
        ] {
            let kind = *built_in().iter().find(|row| row.kind == kind).expect("a kind");
            assert_eq!(header(kind), expected, "{kind}");
        }
    }

    #[test]
    fn an_object_that_does_not_decode_keeps_its_row() {
        let broken = json!({"metadata": {"name": "p"}, "spec": {"containers": 5}});
        assert!(printed("Pod", broken).starts_with("p|null|"));
        let event = json!({"metadata": {"name": "e"}, "involvedObject": 5});
        assert!(printed("Event", event).ends_with("|e"));
    }

    #[test]
    fn rows_carry_what_was_asked_for() {
        let kind = *built_in().iter().find(|row| row.kind == "ConfigMap").expect("a kind");
        let json = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
        let bytes = bytes::Bytes::from(json.to_string());
        let object = [Arc::new(Object::from_json(kind, bytes, 1).expect("readable"))];
        let carried = |include| render(kind, &object, now(), include)["rows"][0]["object"].clone();
        assert_eq!(carried(IncludeObject::None), Value::Null);
        assert_eq!(
            carried(IncludeObject::Metadata),
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "c"}})
        );
        assert_eq!(carried(IncludeObject::Object), json);
    }

    #[test]
    fn selectors_read_as_kubectls() {
        let read = |value: Value| selector(&serde_json::from_value(value).expect("a selector"));
        assert_eq!(read(json!({})), "<none>");
        assert_eq!(
            read(json!({"matchLabels": {"b": "1", "a": "2"}, "matchExpressions": [
                {"key": "t", "operator": "In", "values": ["y", "x"]}, {"key": "o", "operator": "DoesNotExist"}]})),
            "a=2,b=1,!o,t in (x,y)"
        );
    }
}
