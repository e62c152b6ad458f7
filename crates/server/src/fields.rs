//! Field selectors: which fields each kind can be selected by, and their values.

use std::borrow::Cow;

use compact_str::CompactString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{
    Event, Namespace, Node, Pod, ReplicationController, Secret, Service,
};
use k8s_openapi::api::resource::v1::ResourceSlice;
use wharf_model::karpenter::{NodeClaim, NodePool};
use wharf_model::kinds::Kind;
use wharf_model::object::Object;
use wharf_model::selector::FieldSelector;
use wharf_ports::error::ApiError;

use crate::status::bad_request;

/// Checks that every field of a selector can be selected by.
///
/// # Errors
/// 400 in upstream's words for a field that cannot.
pub(crate) fn check(kind: Kind, selector: &FieldSelector) -> Result<(), ApiError> {
    for term in &selector.terms {
        let field = term.field.as_str();
        if matches!(field, "metadata.name" | "metadata.namespace") {
            continue;
        }
        let known = own_fields(kind);
        if known.is_empty() && !kind.is_custom() {
            return Err(bad_request(format!(
                "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            )));
        }
        if !known.contains(&field) {
            return Err(bad_request(format!("field label not supported: {field}")));
        }
    }
    Ok(())
}

/// Rewrites the names that `events.k8s.io/v1` gives to the fields of an event.
pub(crate) fn from_events_v1(mut selector: FieldSelector) -> FieldSelector {
    for term in &mut selector.terms {
        if let Some(rest) = term.field.strip_prefix("regarding.") {
            term.field = CompactString::from(format!("involvedObject.{rest}"));
        } else if term.field == "reportingController" {
            term.field = "reportingComponent".into();
        }
    }
    selector
}

/// Whether an object matches a selector that [`check`] has let through.
pub(crate) fn matches(object: &Object, selector: &FieldSelector) -> bool {
    selector.terms.iter().all(|term| {
        let value = value(object, &term.field).unwrap_or_default();
        (value == term.value.as_str()) == term.equal
    })
}

fn own_fields(kind: Kind) -> &'static [&'static str] {
    match (kind.group, kind.kind) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Namespace") => &["status.phase"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "ReplicationController") => &["status.replicas"],
        ("certificates.k8s.io", "CertificateSigningRequest") => &["spec.signerName"],
        ("resource.k8s.io", "ResourceSlice") => &["spec.nodeName", "spec.driver"],
        ("karpenter.sh", "NodePool") => &[
            "spec.template.spec.nodeClassRef.group",
            "spec.template.spec.nodeClassRef.kind",
            "spec.template.spec.nodeClassRef.name",
        ],
        ("karpenter.sh", "NodeClaim") => {
            &["spec.nodeClassRef.group", "spec.nodeClassRef.kind", "spec.nodeClassRef.name"]
        }
        _ => &[],
    }
}

fn value<'a>(object: &'a Object, field: &str) -> Option<Cow<'a, str>> {
    match field {
        "metadata.name" => return Some(Cow::Borrowed(&object.key().name)),
        "metadata.namespace" => return Some(Cow::Borrowed(&object.key().namespace)),
        _ => {}
    }
    let kind = object.kind();
    let found = match (kind.group, kind.kind) {
        ("", "Pod") => pod_field(object.typed::<Pod>()?, field)?,
        ("", "Node") => {
            let unschedulable = object.typed::<Node>()?.spec.as_ref()?.unschedulable;
            if unschedulable == Some(true) { "true" } else { "false" }
        }
        ("", "Namespace") => object.typed::<Namespace>()?.status.as_ref()?.phase.as_deref()?,
        ("", "Secret") => object.typed::<Secret>()?.type_.as_deref()?,
        ("", "Service") => {
            let spec = object.typed::<Service>()?.spec.as_ref()?;
            match field {
                "spec.clusterIP" => spec.cluster_ip.as_deref()?,
                _ => spec.type_.as_deref()?,
            }
        }
        ("", "Event") => event_field(object.typed::<Event>()?, field)?,
        ("", "ReplicationController") => {
            let status = object.typed::<ReplicationController>()?.status.as_ref();
            return Some(Cow::Owned(status.map_or(0, |status| status.replicas).to_string()));
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            &object.typed::<CertificateSigningRequest>()?.spec.signer_name
        }
        ("resource.k8s.io", "ResourceSlice") => {
            let spec = &object.typed::<ResourceSlice>()?.spec;
            match field {
                "spec.driver" => &spec.driver,
                _ => spec.node_name.as_deref()?,
            }
        }
        ("karpenter.sh", "NodePool") => {
            let class = &object.typed::<NodePool>()?.spec.template.spec.node_class_ref;
            class_field(&class.group, &class.kind, &class.name, field)
        }
        ("karpenter.sh", "NodeClaim") => {
            let class = &object.typed::<NodeClaim>()?.spec.node_class_ref;
            class_field(&class.group, &class.kind, &class.name, field)
        }
        _ => return None,
    };
    Some(Cow::Borrowed(found))
}

fn class_field<'a>(group: &'a str, kind: &'a str, name: &'a str, field: &str) -> &'a str {
    match field.rsplit('.').next() {
        Some("group") => group,
        Some("kind") => kind,
        _ => name,
    }
}

fn pod_field<'a>(pod: &'a Pod, field: &str) -> Option<&'a str> {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    match field {
        "spec.nodeName" => spec?.node_name.as_deref(),
        "spec.restartPolicy" => spec?.restart_policy.as_deref(),
        "spec.schedulerName" => spec?.scheduler_name.as_deref(),
        "spec.serviceAccountName" => spec?.service_account_name.as_deref(),
        "spec.hostNetwork" => Some(if spec?.host_network == Some(true) { "true" } else { "false" }),
        "status.phase" => status?.phase.as_deref(),
        // Upstream's `podIPs` selects by the first address only, like `podIP`.
        "status.podIP" | "status.podIPs" => status?.pod_ip.as_deref(),
        "status.nominatedNodeName" => status?.nominated_node_name.as_deref(),
        _ => None,
    }
}

fn event_field<'a>(event: &'a Event, field: &str) -> Option<&'a str> {
    let about = &event.involved_object;
    match field {
        "involvedObject.kind" => about.kind.as_deref(),
        "involvedObject.namespace" => about.namespace.as_deref(),
        "involvedObject.name" => about.name.as_deref(),
        "involvedObject.uid" => about.uid.as_deref(),
        "involvedObject.apiVersion" => about.api_version.as_deref(),
        "involvedObject.resourceVersion" => about.resource_version.as_deref(),
        "involvedObject.fieldPath" => about.field_path.as_deref(),
        "reason" => event.reason.as_deref(),
        "reportingComponent" => event.reporting_component.as_deref(),
        // Upstream falls back to the new field for events of the new interface.
        "source" => event
            .source
            .as_ref()
            .and_then(|source| source.component.as_deref())
            .filter(|component| !component.is_empty())
            .or(event.reporting_component.as_deref()),
        "type" => event.type_.as_deref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;

    fn selector(text: &str) -> FieldSelector {
        FieldSelector::parse(text).expect("a valid selector")
    }

    #[test]
    fn pods_are_selected_by_node_and_phase() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {"containers": [], "nodeName": "x"}, "status": {"phase": "Running"}
        }))
        .expect("a valid pod");
        let object = Object::from_typed(Box::new(pod), 1);
        for (text, expected) in [
            ("spec.nodeName=x,status.phase!=Succeeded,status.phase!=Failed", true),
            ("spec.nodeName=", false),
            ("metadata.name=a,metadata.namespace=n", true),
            ("metadata.name!=a", false),
            ("status.podIP=", true),
            ("spec.hostNetwork=false", true),
        ] {
            let selector = selector(text);
            check(object.kind(), &selector).expect("known fields");
            assert_eq!(matches(&object, &selector), expected, "{text}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_in_upstreams_words() {
        let text = |kind, selector: &FieldSelector| {
            check(kind, selector).expect_err("an unknown field").message
        };
        let unknown = selector("spec.foo=1");
        assert_eq!(text(Kind::of::<Pod>(), &unknown), "field label not supported: spec.foo");
        assert_eq!(text(Kind::of::<NodePool>(), &unknown), "field label not supported: spec.foo");
        assert_eq!(
            text(Kind::of::<Deployment>(), &unknown),
            "\"spec.foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        let events = from_events_v1(selector("regarding.name=a"));
        assert!(check(Kind::of::<Event>(), &events).is_ok());
    }
}
