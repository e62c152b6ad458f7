//! What Fargate refuses of pods that it has taken, and how it says so.
//!
//! The pod stays Pending with the condition `PodScheduled` False and a `FailedScheduling` event. The
//! order of reasons and the joints between them are observed; inside one kind of reason they follow
//! the pod's spec.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};

use crate::SCHEDULER;

/// The reason of the condition of a pod that is refused.
pub const REASON: &str = "POD_UNSUPPORTED_ON_FARGATE";

/// Capabilities that containers may add, as they are written.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// The only driver whose volumes can be mounted.
const EFS_DRIVER: &str = "efs.csi.aws.com";

/// Why a pod is refused; displays as the event tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reasons, in the order in which they are told.
    pub reasons: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pod not supported on Fargate: {}", self.reasons.join(", "))
    }
}

/// What a claim of a pod's namespace is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// There is no such claim.
    Missing,
    /// It has no volume yet.
    Unbound,
    /// Its volume, and the CSI driver of that; none if it is of another type.
    Bound {
        /// The volume's name.
        volume: String,
        /// The CSI driver.
        driver: Option<String>,
    },
}

/// Why a pod cannot run on Fargate; `None` if it can. `claim` tells of claims by name.
pub fn refusal(pod: &Pod, claim: &dyn Fn(&str) -> Claim) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let mut reasons = Vec::new();
    if spec.scheduler_name.as_deref() != Some(SCHEDULER) {
        reasons.push(format!("SchedulerName is not {SCHEDULER}"));
    }
    if pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "DaemonSet") {
        reasons.push("DaemonSet not supported".to_owned());
    }
    let fields: Vec<&str> = [
        ("HostNetwork", spec.host_network),
        ("HostPID", spec.host_pid),
        ("HostIPC", spec.host_ipc),
    ]
    .into_iter()
    .filter_map(|(name, set)| (set == Some(true)).then_some(name))
    .collect();
    push(&mut reasons, "fields not supported", &fields, ", ");
    let volumes: Vec<String> =
        spec.volumes.iter().flatten().filter_map(|volume| volume_problem(volume, claim)).collect();
    push(&mut reasons, "volumes not supported", &volumes, ", ");
    let contexts: Vec<String> = containers(spec).filter_map(security_problem).collect();
    // Without a blank between containers, unlike everywhere else.
    push(&mut reasons, "invalid SecurityContext fields", &contexts, ",");
    if containers(spec).any(|c| c.volume_devices.as_ref().is_some_and(|list| !list.is_empty())) {
        reasons.push("volumeDevices not supported".to_owned());
    }
    if containers(spec).any(names_host_port) {
        reasons.push("port contains HostIP or HostPort".to_owned());
    }
    (!reasons.is_empty()).then_some(Refusal { reasons })
}

fn push(reasons: &mut Vec<String>, what: &str, items: &[impl AsRef<str>], joint: &str) {
    if !items.is_empty() {
        let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
        reasons.push(format!("{what}: {}", items.join(joint)));
    }
}

/// Init containers come first.
fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn volume_problem(volume: &Volume, claim: &dyn Fn(&str) -> Claim) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        let error = claim_problem(&source.claim_name, claim(&source.claim_name))?;
        return Some(format!("{} not supported because: {error}", volume.name));
    }
    let supported = volume.empty_dir.is_some()
        || volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
        || volume.nfs.is_some();
    (!supported).then(|| format!("{} is of an unsupported volume Type", volume.name))
}

fn claim_problem(name: &str, claim: Claim) -> Option<String> {
    match claim {
        Claim::Missing => Some(format!("persistentvolumeclaim \"{name}\" not found")),
        Claim::Unbound => Some(format!("PVC {name} not bound")),
        Claim::Bound { volume, driver: None } => {
            Some(format!("PVC {name} bound to invalid PV {volume} with nil CSI spec"))
        }
        Claim::Bound { driver: Some(driver), .. } if driver == EFS_DRIVER => None,
        Claim::Bound { volume, driver: Some(driver) } => {
            Some(format!("PVC {name} bound to invalid PV {volume} with CSI Driver: {driver}"))
        }
    }
}

fn security_problem(container: &Container) -> Option<String> {
    let context = container.security_context.as_ref()?;
    let mut found = Vec::new();
    let added = context.capabilities.iter().flat_map(|all| all.add.iter().flatten());
    let refused: Vec<&str> =
        added.map(String::as_str).filter(|name| !CAPABILITIES.contains(name)).collect();
    if !refused.is_empty() {
        found.push(format!("Capabilities added: {}", refused.join(", ")));
    }
    if context.allow_privilege_escalation == Some(true) {
        found.push("AllowPrivilegeEscalation".to_owned());
    }
    if context.privileged == Some(true) {
        found.push("Privileged".to_owned());
    }
    (!found.is_empty()).then(|| found.join(", "))
}

fn names_host_port(container: &Container) -> bool {
    container.ports.iter().flatten().any(|port| {
        port.host_port.is_some_and(|port| port != 0)
            || port.host_ip.as_deref().is_some_and(|ip| !ip.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(metadata: Value, spec: Value) -> Option<String> {
        let mut whole = json!({"schedulerName": SCHEDULER, "containers": [{"name": "c"}]});
        for (key, value) in spec.as_object().expect("an object") {
            whole[key] = value.clone();
        }
        let pod = json!({"metadata": metadata, "spec": whole});
        let pod: Pod = serde_json::from_value(pod).expect("a valid pod");
        let claim = |name: &str| match name {
            "efs" => Claim::Bound { volume: "pv-efs".into(), driver: Some(EFS_DRIVER.into()) },
            "ebs" => {
                Claim::Bound { volume: "pv-ebs".into(), driver: Some("ebs.csi.aws.com".into()) }
            }
            "local" => Claim::Bound { volume: "pv-local".into(), driver: None },
            "waits" => Claim::Unbound,
            _ => Claim::Missing,
        };
        refusal(&pod, &claim).map(|refusal| {
            let text = refusal.to_string();
            text.strip_prefix("Pod not supported on Fargate: ").expect("its beginning").to_owned()
        })
    }

    fn with(context: Value) -> Value {
        json!({"name": "c", "securityContext": context})
    }

    #[test]
    fn root_shell_is_refused_in_these_words() {
        let spec = json!({
            "hostNetwork": true, "hostPID": true, "hostIPC": true,
            "containers": [{"name": "root-shell", "securityContext": {"privileged": true}}],
            "volumes": [{"name": "hostroot", "hostPath": {"path": "/"}}],
        });
        assert_eq!(
            told(json!({}), spec).as_deref(),
            Some(
                "fields not supported: HostNetwork, HostPID, HostIPC, volumes not supported: hostroot is of an unsupported volume Type, invalid SecurityContext fields: Privileged"
            )
        );
    }

    #[test]
    fn each_reason_alone() {
        let daemon = json!({"ownerReferences":
            [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d"}]});
        let claim = |name: &str| json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]});
        let containers = |list: Value| json!({"containers": list});
        for (metadata, spec, expected) in [
            (
                json!({}),
                json!({"schedulerName": "default-scheduler"}),
                "SchedulerName is not fargate-scheduler",
            ),
            (daemon, json!({}), "DaemonSet not supported"),
            (json!({}), json!({"hostPID": true}), "fields not supported: HostPID"),
            (
                json!({}),
                json!({"volumes": [{"name": "a", "csi": {"driver": "d"}}, {"name": "b", "emptyDir": {}}, {"name": "c", "ephemeral": {}}]}),
                "volumes not supported: a is of an unsupported volume Type, c is of an unsupported volume Type",
            ),
            (
                json!({}),
                claim("x"),
                "volumes not supported: v not supported because: persistentvolumeclaim \"x\" not found",
            ),
            (
                json!({}),
                claim("waits"),
                "volumes not supported: v not supported because: PVC waits not bound",
            ),
            (
                json!({}),
                claim("local"),
                "volumes not supported: v not supported because: PVC local bound to invalid PV pv-local with nil CSI spec",
            ),
            (
                json!({}),
                claim("ebs"),
                "volumes not supported: v not supported because: PVC ebs bound to invalid PV pv-ebs with CSI Driver: ebs.csi.aws.com",
            ),
            (
                json!({}),
                containers(json!([
                    with(json!({"privileged": true})),
                    with(json!({"privileged": true}))
                ])),
                "invalid SecurityContext fields: Privileged,Privileged",
            ),
            (
                json!({}),
                containers(json!([with(json!({"allowPrivilegeEscalation": true}))])),
                "invalid SecurityContext fields: AllowPrivilegeEscalation",
            ),
            (
                json!({}),
                containers(json!([with(
                    json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN", "SYS_ADMIN"]}, "privileged": true})
                )])),
                "invalid SecurityContext fields: Capabilities added: NET_ADMIN, SYS_ADMIN, Privileged",
            ),
            (
                json!({}),
                containers(json!([with(json!({"capabilities": {"add": ["CAP_CHOWN"]}}))])),
                "invalid SecurityContext fields: Capabilities added: CAP_CHOWN",
            ),
            (
                json!({}),
                json!({"initContainers": [with(json!({"allowPrivilegeEscalation": true}))], "containers": [with(json!({"privileged": true}))]}),
                "invalid SecurityContext fields: AllowPrivilegeEscalation,Privileged",
            ),
            (
                json!({}),
                containers(
                    json!([{"name": "c", "volumeDevices": [{"name": "d", "devicePath": "/dev/d"}]}]),
                ),
                "volumeDevices not supported",
            ),
            (
                json!({}),
                containers(
                    json!([{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]),
                ),
                "port contains HostIP or HostPort",
            ),
            (
                json!({}),
                containers(
                    json!([{"name": "c", "ports": [{"containerPort": 80, "hostIP": "127.0.0.1"}]}]),
                ),
                "port contains HostIP or HostPort",
            ),
        ] {
            assert_eq!(told(metadata, spec.clone()).as_deref(), Some(expected), "{spec}");
        }
    }

    #[test]
    fn what_is_supported() {
        let volumes = json!([
            {"name": "a", "emptyDir": {}}, {"name": "b", "secret": {}}, {"name": "c", "configMap": {}},
            {"name": "d", "projected": {}}, {"name": "e", "downwardAPI": {}},
            {"name": "f", "nfs": {"path": "/", "server": "s"}},
            {"name": "g", "persistentVolumeClaim": {"claimName": "efs"}},
        ]);
        let container = json!({"name": "c", "ports": [{"containerPort": 80}],
            "securityContext": {"capabilities": {"add": CAPABILITIES, "drop": ["ALL"]}, "privileged": false}});
        let spec = json!({"volumes": volumes, "containers": [container], "hostNetwork": false});
        assert_eq!(told(json!({}), spec), None);
    }
}
