//! What an EKS cluster has in `kube-system` from the start, for those who look: ConfigMaps, the service
//! behind the metrics of the control plane, and the configurations of EKS' webhooks. Nothing of it has
//! an effect here; the webhooks run on AWS' side of a real cluster.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use serde_json::{Value, json};
use wharf_model::fargate::FargateProfile;
use wharf_model::object::Typed;
use wharf_ports::error::ApiError;
use wharf_registry::Registry;

use crate::addons::ensure;
use crate::cluster::Cluster;

const NAMESPACE: &str = "kube-system";
/// Where EKS' own webhooks listen, beside the API server.
const WEBHOOKS: &str = "https://127.0.0.1:23443";
/// The groups that a node of Fargate is in.
const FARGATE_GROUPS: [&str; 3] = ["system:bootstrappers", "system:nodes", "system:node-proxier"];

/// Creates what is not there yet.
///
/// # Errors
/// The API's refusal.
pub(crate) fn create(registry: &Registry, cluster: &Cluster, region: &str) -> Result<(), ApiError> {
    let maps = [
        ("amazon-vpc-cni", vpc_cni()),
        ("aws-auth", aws_auth(&cluster.profiles)),
        ("coredns", json!({"Corefile": CORE_FILE})),
        ("extension-apiserver-authentication", authentication()),
        ("kube-proxy", json!({"kubeconfig": proxy_access(&cluster.name, region)})),
        ("kube-proxy-config", json!({"config": PROXY_CONFIG})),
    ];
    for (name, data) in maps {
        let map = json!({"metadata": {"name": name, "namespace": NAMESPACE}, "data": data});
        ensure(registry, read::<ConfigMap>(map))?;
    }
    ensure(registry, read::<Service>(metrics_service()))?;
    for (name, url) in [
        ("pod-identity-webhook", format!("{WEBHOOKS}/mutate")),
        ("vpc-resource-mutating-webhook", format!("{WEBHOOKS}/mutate-v1-pod")),
    ] {
        let webhook = json!({"metadata": {"name": name}, "webhooks": [{
            "name": match name {
                "pod-identity-webhook" => "iam-for-pods.amazonaws.com",
                _ => "mpod.vpc.k8s.aws",
            },
            "admissionReviewVersions": ["v1beta1"],
            "clientConfig": {"url": url},
            "failurePolicy": "Ignore",
            "rules": [rule("pods", "CREATE")],
            "sideEffects": "None",
        }]});
        ensure(registry, read::<MutatingWebhookConfiguration>(webhook))?;
    }
    let validating = |name: &str, path: &str, resource: &str| {
        json!({
            "name": name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("{WEBHOOKS}/{path}")},
            "failurePolicy": "Ignore",
            "rules": [rule(resource, "UPDATE")],
            "sideEffects": "None",
        })
    };
    let configuration = json!({"metadata": {"name": "vpc-resource-validating-webhook"}, "webhooks": [
        validating("vpod.vpc.k8s.aws", "validate-v1-pod", "pods"),
        validating("vnode.vpc.k8s.aws", "validate-v1-node", "nodes"),
    ]});
    ensure(registry, read::<ValidatingWebhookConfiguration>(configuration))
}

fn read<T: Typed + serde::de::DeserializeOwned>(value: Value) -> Box<dyn Typed> {
    let object: T =
        serde_json::from_value(value).expect("invariant: the manifests in this file are valid");
    Box::new(object)
}

fn rule(resource: &str, operation: &str) -> Value {
    json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": [resource]})
}

/// One entry for each role under which pods of a Fargate profile register their nodes.
fn aws_auth(profiles: &[FargateProfile]) -> Value {
    let mut roles = String::new();
    for profile in profiles {
        let role = profile.spec.pod_execution_role_arn.as_deref().unwrap_or_default();
        roles += "- groups:\n";
        for group in FARGATE_GROUPS {
            roles += &format!("  - {group}\n");
        }
        roles += &format!("  rolearn: {role}\n  username: system:node:{{{{SessionName}}}}\n");
    }
    if roles.is_empty() {
        roles = "[]\n".to_owned();
    }
    json!({"mapRoles": roles})
}

fn vpc_cni() -> Value {
    json!({
        "branch-eni-cooldown": "60",
        "enable-network-policy-controller": "false",
        "enable-windows-ipam": "false",
        "enable-windows-prefix-delegation": "false",
        "minimum-ip-target": "3",
        "warm-ip-target": "1",
        "warm-prefix-target": "0",
    })
}

/// What servers behind the API server learn of its clients. The certificates are the API's own affair.
fn authentication() -> Value {
    json!({
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
    })
}

const CORE_FILE: &str = ".:53 {
    errors
    health {
        lameduck 5s
      }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
      pods insecure
      fallthrough in-addr.arpa ip6.arpa
    }
    prometheus :9153
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}
";

const PROXY_CONFIG: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
clientConnection:
  kubeconfig: /var/lib/kube-proxy/kubeconfig
clusterCIDR: \"\"
iptables:
  masqueradeAll: false
  masqueradeBit: 14
kind: KubeProxyConfiguration
metricsBindAddress: 0.0.0.0:10249
mode: iptables
";

fn proxy_access(cluster: &str, region: &str) -> String {
    format!(
        "kind: Config
apiVersion: v1
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: https://{cluster}.gr7.{region}.eks.amazonaws.com
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
"
    )
}

/// The service behind the API group `metrics.eks.amazonaws.com`, whose server is AWS'.
fn metrics_service() -> Value {
    json!({
        "metadata": {
            "name": "eks-extension-metrics-api",
            "namespace": NAMESPACE,
        },
        "spec": {"ports": [{"name": "metrics-api", "port": 443, "targetPort": 10443, "protocol": "TCP"}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_profile_has_its_role_in_aws_auth() {
        let mut profile = FargateProfile::default();
        profile.spec.pod_execution_role_arn = Some("arn:aws:iam::1:role/a".to_owned());
        let auth = aws_auth(&[profile.clone(), profile]);
        let text = auth["mapRoles"].as_str().expect("text");
        assert_eq!(text.matches("rolearn: arn:aws:iam::1:role/a\n").count(), 2);
        assert_eq!(text.matches("- system:node-proxier\n").count(), 2);
        assert!(text.contains("username: system:node:{{SessionName}}\n"), "{text}");
        let read: Value = serde_saphyr::from_str(text).expect("YAML");
        assert_eq!(read.as_array().map(Vec::len), Some(2));
    }
}
