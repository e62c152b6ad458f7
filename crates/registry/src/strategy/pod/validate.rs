//! What is wrong with pods and pod templates.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, Pod, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::names;
use wharf_model::quantity::Quantity;

use super::{SPEC, claims, scheduling, volumes};
use crate::field::{Errors, Path};
use crate::metadata;

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// Resources of containers without a domain that Kubernetes knows.
const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What is wrong with a pod.
pub(super) fn pod(pod: &Pod, errors: &mut Errors) {
    let Some(spec) = &pod.spec else {
        return errors.required(&SPEC.child("containers"), "");
    };
    pod_spec(&SPEC, spec, errors);
    volumes::claims_to_be(pod, spec, errors);
    if spec.node_name.as_deref().is_some_and(|node| !node.is_empty())
        && spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
    {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(&SPEC.child("nodeName"), detail);
    }
}

/// What is wrong with a pod template.
pub(crate) fn template(path: &Path<'_>, template: &PodTemplateSpec, errors: &mut Errors) {
    if let Some(meta) = &template.metadata {
        let path = path.child("metadata");
        metadata::labels(&path.child("labels"), meta.labels.iter().flatten(), errors);
        metadata::annotations(&path.child("annotations"), meta, errors);
    }
    let path = path.child("spec");
    match &template.spec {
        Some(spec) => pod_spec(&path, spec, errors),
        None => errors.required(&path.child("containers"), ""),
    }
}

fn pod_spec(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    let volumes = volumes::validate(&path.child("volumes"), spec, errors);
    let claims = claims::validate(path, spec, errors);
    let restart_policy = spec.restart_policy.as_deref();
    let context = Context { volumes: &volumes, claims: &claims, restart_policy };
    let containers = path.child("containers");
    if spec.containers.is_empty() {
        errors.required(&containers, "");
    }
    let mut seen = BTreeSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        self::container(&containers.index(index), container, &context, &mut seen, errors);
    }
    let init_containers = path.child("initContainers");
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = init_containers.index(index);
        self::container(&path, container, &context, &mut seen, errors);
        init_container(&path, container, errors);
    }
    host_ports(&containers, spec, errors);
    one_of(&path.child("restartPolicy"), spec.restart_policy.as_deref(), &RESTART_POLICIES, errors);
    one_of(&path.child("dnsPolicy"), spec.dns_policy.as_deref(), &DNS_POLICIES, errors);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&path.child("activeDeadlineSeconds"), &seconds, detail);
    }
    errors.not_negative(
        &path.child("terminationGracePeriodSeconds"),
        spec.termination_grace_period_seconds,
    );
    for (field, name) in [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            errors.invalid_each(&path.child(field), name, names::dns_1123_subdomain(name));
        }
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            errors.invalid_each(&path.child(field), name, names::dns_1123_label(name));
        }
    }
    scheduling::validate(path, spec, errors);
}

/// What the checks of a container need of its pod.
struct Context<'a> {
    volumes: &'a BTreeSet<&'a str>,
    claims: &'a BTreeSet<&'a str>,
    restart_policy: Option<&'a str>,
}

fn container<'c>(
    path: &Path<'_>,
    container: &'c Container,
    context: &Context<'_>,
    seen: &mut BTreeSet<&'c str>,
    errors: &mut Errors,
) {
    let name = path.child("name");
    if container.name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.invalid_each(&name, &container.name, names::dns_1123_label(&container.name));
        if !seen.insert(&container.name) {
            errors.duplicate(&name, &container.name);
        }
    }
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        errors.required(&path.child("image"), "");
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.invalid(&path.child("image"), image, detail);
    }
    let policy = container.image_pull_policy.as_deref();
    one_of(&path.child("imagePullPolicy"), policy, &PULL_POLICIES, errors);
    one_of(
        &path.child("terminationMessagePolicy"),
        container.termination_message_policy.as_deref(),
        &["File", "FallbackToLogsOnError"],
        errors,
    );
    ports(&path.child("ports"), container.ports.as_deref().unwrap_or_default(), errors);
    environment(&path.child("env"), container.env.as_deref().unwrap_or_default(), errors);
    volume_mounts(&path.child("volumeMounts"), container, context, errors);
    if let Some(resources) = &container.resources {
        let path = path.child("resources");
        self::resources(&path, resources, errors);
        claims::of_container(&path, resources, context.claims, errors);
    }
    for (field, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        if let Some(probe) = probe {
            self::probe(&path.child(field), field, probe, errors);
        }
    }
    if let Some(policy) = container.restart_policy.as_deref()
        && context.restart_policy.is_some()
    {
        one_of(&path.child("restartPolicy"), Some(policy), &RESTART_POLICIES, errors);
    }
}

/// Probes and hooks are only for init containers that stay (sidecars).
fn init_container(path: &Path<'_>, container: &Container, errors: &mut Errors) {
    if container.restart_policy.as_deref() == Some("Always") {
        return;
    }
    let detail = "may not be set for init containers without restartPolicy=Always";
    for (field, is_set) in [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ] {
        if is_set {
            errors.forbidden(&path.child(field), detail);
        }
    }
}

fn ports(path: &Path<'_>, ports: &[ContainerPort], errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let messages = names::port_name(name);
            if messages.is_empty() && !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
            errors.invalid_each(&path.child("name"), name, messages);
        }
        if port.container_port == 0 {
            errors.required(&path.child("containerPort"), "");
        } else {
            number(&path.child("containerPort"), port.container_port, errors);
        }
        if let Some(host_port) = port.host_port.filter(|port| *port != 0) {
            number(&path.child("hostPort"), host_port, errors);
        }
        one_of(&path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS, errors);
    }
}

/// A port of the host can be had only once.
fn host_ports(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("ports");
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let Some(host_port) = port.host_port.filter(|port| *port != 0) else { continue };
            if spec.host_network == Some(true) && host_port != port.container_port {
                let path = path.index(index);
                let detail = "must match `hostPort` when `hostNetwork` is true";
                errors.invalid(&path.child("containerPort"), &port.container_port, detail);
            }
            let key = (port.protocol.as_deref(), port.host_ip.as_deref(), host_port);
            if !seen.insert(key) {
                let shown = format!(
                    "{}/{}/{host_port}",
                    port.protocol.as_deref().unwrap_or_default(),
                    port.host_ip.as_deref().unwrap_or_default()
                );
                let path = path.index(index);
                errors.duplicate(&path.child("hostPort"), &shown);
            }
        }
    }
}

fn number(path: &Path<'_>, port: i32, errors: &mut Errors) {
    for message in names::port_number(i64::from(port)) {
        errors.invalid(path, &port, message);
    }
}

fn environment(path: &Path<'_>, variables: &[EnvVar], errors: &mut Errors) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = &variable.name;
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if name.contains('=') || !name.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            let detail = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            errors.invalid(&path.child("name"), name, detail);
        }
        let Some(from) = &variable.value_from else { continue };
        let from_path = path.child("valueFrom");
        let sources = usize::from(from.field_ref.is_some())
            + usize::from(from.resource_field_ref.is_some())
            + usize::from(from.config_map_key_ref.is_some())
            + usize::from(from.secret_key_ref.is_some())
            + usize::from(from.file_key_ref.is_some());
        if variable.value.as_deref().is_some_and(|value| !value.is_empty()) && sources > 0 {
            errors.invalid(&from_path, "", "may not be specified when `value` is not empty");
        } else if sources == 0 {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.invalid(&from_path, "", detail);
        } else if sources > 1 {
            errors.invalid(&from_path, "", "may not have more than one field specified at a time");
        }
    }
}

fn volume_mounts(
    path: &Path<'_>,
    container: &Container,
    context: &Context<'_>,
    errors: &mut Errors,
) {
    let mut seen = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = path.index(index);
        if mount.name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !context.volumes.contains(mount.name.as_str()) {
            errors.not_found(&path.child("name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            errors.required(&path.child("mountPath"), "");
        } else if !seen.insert(mount.mount_path.as_str()) {
            errors.invalid(&path.child("mountPath"), &mount.mount_path, "must be unique");
        }
    }
}

fn probe(path: &Path<'_>, field: &str, probe: &Probe, errors: &mut Errors) {
    let handlers = usize::from(probe.exec.is_some())
        + usize::from(probe.http_get.is_some())
        + usize::from(probe.tcp_socket.is_some())
        + usize::from(probe.grpc.is_some());
    match handlers {
        0 => errors.required(path, "must specify a handler type"),
        1 => {}
        _ => errors.forbidden(path, "may not specify more than 1 handler type"),
    }
    if let Some(exec) = &probe.exec
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        let path = path.child("exec");
        errors.required(&path.child("command"), "");
    }
    if let Some(get) = &probe.http_get {
        let path = path.child("httpGet");
        target(&path.child("port"), &get.port, errors);
        one_of(&path.child("scheme"), get.scheme.as_deref(), &["HTTP", "HTTPS"], errors);
    }
    if let Some(socket) = &probe.tcp_socket {
        let path = path.child("tcpSocket");
        target(&path.child("port"), &socket.port, errors);
    }
    for (name, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        errors.not_negative(&path.child(name), value.map(i64::from));
    }
    if field != "readinessProbe"
        && let Some(threshold) = probe.success_threshold.filter(|threshold| *threshold != 1)
    {
        errors.invalid(&path.child("successThreshold"), &threshold, "must be 1");
    }
}

/// A port by number or by name.
pub(crate) fn target(path: &Path<'_>, port: &IntOrString, errors: &mut Errors) {
    match port {
        IntOrString::Int(port) => number(path, *port, errors),
        IntOrString::String(name) => errors.invalid_each(path, name, names::port_name(name)),
    }
}

/// What is wrong with requests and limits.
fn resources(path: &Path<'_>, resources: &ResourceRequirements, errors: &mut Errors) {
    let limits_path = path.child("limits");
    let requests_path = path.child("requests");
    let limits = amounts(&limits_path, resources.limits.as_ref(), errors);
    let requests = amounts(&requests_path, resources.requests.as_ref(), errors);
    for (name, request) in &requests {
        let limit = limits.get(name);
        let cannot_be_overcommitted = !CONTAINER_RESOURCES.contains(name);
        match limit {
            Some(limit) if cannot_be_overcommitted && request != limit => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.invalid(&requests_path, &request.to_string(), detail);
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid(&requests_path, &request.to_string(), detail);
            }
            None if cannot_be_overcommitted => {
                errors.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
}

fn amounts<'l>(
    path: &Path<'_>,
    list: Option<&'l BTreeMap<String, ApiQuantity>>,
    errors: &mut Errors,
) -> BTreeMap<&'l str, Quantity> {
    let mut amounts = BTreeMap::new();
    for (name, text) in list.into_iter().flatten() {
        let path = path.key(name);
        if name.contains('/') {
            errors.invalid_each(&path, name, names::qualified_name(name));
        } else if !CONTAINER_RESOURCES.contains(&name.as_str()) && !name.starts_with("hugepages-") {
            errors.invalid(&path, name, "must be a standard resource for containers");
        }
        let quantity = match Quantity::parse(&text.0) {
            Ok(quantity) => quantity,
            Err(error) => {
                errors.invalid(&path, &text.0, error.to_string());
                continue;
            }
        };
        if quantity.is_negative() {
            errors.invalid(&path, &text.0, "must be greater than or equal to 0");
        } else if name.contains('/') && quantity.round_up(0) != quantity {
            errors.invalid(&path, &text.0, "must be an integer");
        }
        amounts.insert(name.as_str(), quantity);
    }
    amounts
}

/// A text that must be one of a few; absent is right.
pub(crate) fn one_of(
    path: &Path<'_>,
    value: Option<&str>,
    supported: &[&str],
    errors: &mut Errors,
) {
    if let Some(value) = value
        && !supported.contains(&value)
    {
        errors.not_supported(path, value, supported);
    }
}
