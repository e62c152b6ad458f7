//! What the API fills into pods and pod templates.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle,
    LifecycleHandler, ObjectFieldSelector, Pod, PodSpec, Probe, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use wharf_model::quantity::Quantity;

use super::super::storage::persistent_volume_claim;

/// Files of ConfigMaps, Secrets and the like: 0644.
const FILE_MODE: i32 = 0o644;
/// The finest amount of a container resource.
const MILLI: i32 = -3;

/// Defaults of a pod: those of its spec, and those that templates do not get.
pub(crate) fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    spec.enable_service_links.get_or_insert(true);
    pod_spec(spec);
    let uses_host_network = spec.host_network == Some(true);
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        requests_from_limits(container.resources.get_or_insert_default());
        if uses_host_network {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.unwrap_or(0) == 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
}

/// Defaults of the spec of a pod or a pod template.
pub(crate) fn pod_spec(spec: &mut PodSpec) {
    fill(&mut spec.dns_policy, "ClusterFirst");
    fill(&mut spec.restart_policy, "Always");
    fill(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_default();
    if spec.host_network == Some(false) {
        // Upstream's internal form does not tell false from absent.
        spec.host_network = None;
    }
    if let Some(overhead) = &mut spec.overhead {
        round(overhead);
    }
    for container in &mut spec.containers {
        self::container(container);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        self::container(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        ephemeral_container(container);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        self::volume(volume);
    }
}

fn container(container: &mut Container) {
    fill_pull_policy(&mut container.image_pull_policy, container.image.as_deref());
    fill(&mut container.termination_message_path, "/dev/termination-log");
    fill(&mut container.termination_message_policy, "File");
    resources(container.resources.get_or_insert_default());
    for port in container.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
    }
    environment(&mut container.env);
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(probe);
    if let Some(hooks) = &mut container.lifecycle {
        lifecycle(hooks);
    }
}

fn ephemeral_container(container: &mut EphemeralContainer) {
    fill_pull_policy(&mut container.image_pull_policy, container.image.as_deref());
    fill(&mut container.termination_message_path, "/dev/termination-log");
    fill(&mut container.termination_message_policy, "File");
    resources(container.resources.get_or_insert_default());
    environment(&mut container.env);
}

/// An image without a tag, or with the tag `latest`, is always pulled.
fn fill_pull_policy(policy: &mut Option<String>, image: Option<&str>) {
    let image = image.unwrap_or_default();
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    // A colon before the last slash belongs to the registry's port.
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let is_latest = match (tag, digest) {
        (Some(tag), _) => tag == "latest",
        (None, digest) => digest.is_none(),
    };
    fill(policy, if is_latest { "Always" } else { "IfNotPresent" });
}

fn environment(variables: &mut Option<Vec<EnvVar>>) {
    for variable in variables.iter_mut().flatten() {
        let field = variable.value_from.as_mut().and_then(|from| from.field_ref.as_mut());
        field.into_iter().for_each(field_version);
    }
}

fn field_version(field: &mut ObjectFieldSelector) {
    fill(&mut field.api_version, "v1");
}

fn probe(probe: &mut Probe) {
    for (field, value) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.unwrap_or(0) == 0 {
            *field = Some(value);
        }
    }
    probe.http_get.iter_mut().for_each(http_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn lifecycle(lifecycle: &mut Lifecycle) {
    let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
    for LifecycleHandler { http_get: action, .. } in hooks.into_iter().flatten() {
        action.iter_mut().for_each(http_get);
    }
}

fn http_get(action: &mut HTTPGetAction) {
    fill(&mut action.path, "/");
    fill(&mut action.scheme, "HTTP");
}

/// Quantities in canonical form, rounded up to thousandths.
fn resources(resources: &mut ResourceRequirements) {
    resources.limits.iter_mut().for_each(round);
    resources.requests.iter_mut().for_each(round);
}

fn round(list: &mut BTreeMap<String, ApiQuantity>) {
    for quantity in list.values_mut() {
        // What is not a quantity is left for validation to name.
        if let Ok(parsed) = Quantity::parse(&quantity.0) {
            let canonical = parsed.round_up(MILLI).to_string();
            if canonical != quantity.0 {
                quantity.0 = canonical;
            }
        }
    }
}

/// A container that limits a resource without asking for it asks for as much as its limit.
fn requests_from_limits(resources: &mut ResourceRequirements) {
    let Some(limits) = resources.limits.as_ref().filter(|limits| !limits.is_empty()) else {
        return;
    };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        if !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

fn volume(volume: &mut Volume) {
    let bare = Volume { name: volume.name.clone(), ..Volume::default() };
    if *volume == bare {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        let items = source.items.iter_mut().flatten();
        items.filter_map(|item| item.field_ref.as_mut()).for_each(field_version);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.ephemeral
        && let Some(template) = &mut source.volume_claim_template
    {
        persistent_volume_claim::claim_spec(&mut template.spec);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        for source in source.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(3_600);
            }
            let items = source.downward_api.iter_mut().filter_map(|api| api.items.as_mut());
            items.flatten().filter_map(|item| item.field_ref.as_mut()).for_each(field_version);
        }
    }
}

/// Sets a text that is absent or empty.
pub(crate) fn fill(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn defaulted(spec: Value) -> Value {
        let mut parsed: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        pod(&mut parsed);
        serde_json::to_value(parsed).unwrap()["spec"].take()
    }

    #[test]
    fn the_smallest_pod() {
        assert_eq!(
            defaulted(json!({"containers": [{"name": "c", "image": "nginx"}]})),
            json!({
                "containers": [{
                    "name": "c", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {},
                "terminationGracePeriodSeconds": 30
            })
        );
    }

    #[test]
    fn pull_policies() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:ab", "IfNotPresent"),
            ("nginx:latest@sha256:ab", "Always"),
            ("public.ecr.aws/eks-distro/kubernetes/pause:3.7", "IfNotPresent"),
        ] {
            let spec = defaulted(json!({"containers": [{"name": "c", "image": image}]}));
            assert_eq!(spec["containers"][0]["imagePullPolicy"], policy, "{image}");
        }
    }

    #[test]
    fn amounts_ports_probes_and_volumes() {
        let spec = defaulted(json!({
            "hostNetwork": true,
            "containers": [{"name": "c", "image": "i:1",
                "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": "0.1001"}},
                "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "m"}}]
        }));
        let container = &spec["containers"][0];
        assert_eq!(
            container["resources"],
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "101m", "memory": "1Gi"}})
        );
        assert_eq!(
            container["ports"],
            json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])
        );
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(
            spec["volumes"],
            json!([{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "m", "defaultMode": 420}}])
        );
    }
}
