//! `apiservices`: which group-versions are served, and by whom. Those of this server are `Local`. In an
//! EKS cluster there is one more, of AWS' metrics of the control plane; it is shown where its Service is.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;

use crate::api::Api;
use crate::read_only::{ReadOnly, uid};
use crate::resources::{self, group_version};

/// The group of EKS' metrics of the control plane.
pub(crate) const EKS_METRICS: &str = "metrics.eks.amazonaws.com";
/// The Service behind it.
const EKS_SERVICE: &str = "eks-extension-metrics-api";

/// Whether the cluster has EKS' metrics of the control plane.
pub(crate) fn has_eks_metrics(api: &Api) -> bool {
    let key = ObjectKey::namespaced("kube-system", EKS_SERVICE);
    api.store.get(Kind::of::<Service>(), &key).is_some()
}

/// The documents of that group: its own, and that of its one version.
pub(crate) fn eks_metrics(version: Option<&str>) -> Option<Value> {
    let resource = |name: &str| json!({"name": name, "singularName": "", "namespaced": false, "kind": "Metrics", "verbs": ["get"]});
    match version {
        None => {
            let version = json!({"groupVersion": format!("{EKS_METRICS}/v1"), "version": "v1"});
            Some(json!({
                "kind": "APIGroup", "apiVersion": "v1", "name": EKS_METRICS,
                "versions": [version], "preferredVersion": version,
            }))
        }
        Some("v1") => Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{EKS_METRICS}/v1"),
            "resources": [resource("kcm/metrics"), resource("ksh/metrics")],
        })),
        Some(_) => None,
    }
}

/// What there is.
pub(crate) fn all(api: &Api) -> ReadOnly {
    let served =
        resources::groups().iter().filter(|(group, _)| api.parts.metrics_apis.serve(group));
    let mut objects: Vec<Value> = std::iter::once(&("", "v1"))
        .chain(served)
        .map(|(group, version)| object(group, version, None, api.started))
        .collect();
    if has_eks_metrics(api) {
        objects.push(object(EKS_METRICS, "v1", Some(EKS_SERVICE), api.started));
    }
    objects.sort_by(|a, b| a["metadata"]["name"].as_str().cmp(&b["metadata"]["name"].as_str()));
    ReadOnly {
        objects,
        columns: &[("Name", "name"), ("Service", ""), ("Available", ""), ("Age", "")],
        cells,
        refusal: "what is served is part of the program and cannot be changed",
    }
}

fn object(group: &str, version: &str, service: Option<&str>, created: Time) -> Value {
    let name = format!("{version}.{group}");
    let mut labels = json!({});
    let (reason, message) = match service {
        Some(_) => ("Passed", "all checks passed"),
        None => {
            labels["kube-aggregator.kubernetes.io/automanaged"] = "onstart".into();
            ("Local", "Local APIServices are always available")
        }
    };
    let service =
        service.map(|name| json!({"name": name, "namespace": "kube-system", "port": 443}));
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": name,
            "labels": labels,
            "uid": uid(&group_version(group, version)),
            "resourceVersion": "1",
            "creationTimestamp": created.to_string(),
        },
        "spec": {
            "group": group,
            "version": version,
            "service": service,
            "groupPriorityMinimum": if group.is_empty() { 18_000 } else { 17_000 },
            "versionPriority": if version == "v1" { 15 } else { 9 },
        },
        "status": {"conditions": [{
            "type": "Available",
            "status": "True",
            "lastTransitionTime": created.to_string(),
            "reason": reason,
            "message": message,
        }]},
    })
}

fn cells(object: &Value, api: &Api) -> Vec<Value> {
    let service = match object["spec"]["service"].as_object() {
        Some(service) => {
            let part = |name: &str| service[name].as_str().unwrap_or_default().to_owned();
            format!("{}/{}", part("namespace"), part("name"))
        }
        None => "Local".to_owned(),
    };
    let age = wharf_model::duration::human(api.now().as_nanos() - api.started.as_nanos());
    vec![object["metadata"]["name"].clone(), json!(service), json!("True"), json!(age)]
}
