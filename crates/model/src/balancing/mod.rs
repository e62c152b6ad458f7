//! Load balancing in AWS: the AWS Load Balancer Controller's kinds (`elbv2.k8s.aws/v1beta1`), and the
//! load balancers and target groups of the simulated cloud (`sim.wharf.dev/v1`), kept as objects like
//! its machines.
//!
//! A `TargetGroupBinding` says which Service's pods are in which target group. It is made by the
//! controller for each backend of an Ingress, and may be made by hand. Fields of IngressClassParams that
//! the simulation does not act on (certificates, attributes) are kept as they are.
//!
//! Public contract: <https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/targetgroupbinding/spec/>.

pub mod columns;
pub mod route;
pub mod schema;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::custom::resource::{cluster_resource, namespaced_resource};

/// The controller's API group.
pub const GROUP: &str = "elbv2.k8s.aws";

/// Which Service's pods are in which target group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct TargetGroupBinding {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is bound to what.
    #[serde(default)]
    pub spec: TargetGroupBindingSpec,
    /// What the controller has seen of it.
    #[serde(default)]
    pub status: TargetGroupBindingStatus,
}

namespaced_resource!(TargetGroupBinding, "elbv2.k8s.aws", "v1beta1", "targetgroupbindings");

/// What is bound to what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroupBindingSpec {
    /// The target group; wins over its name.
    #[serde(rename = "targetGroupARN", default, skip_serializing_if = "Option::is_none")]
    pub target_group_arn: Option<String>,
    /// The target group by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_group_name: Option<String>,
    /// Whether other clusters register targets in the group too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_cluster_target_group: Option<bool>,
    /// `instance` or `ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_type: Option<String>,
    /// The Service and its port.
    #[serde(default)]
    pub service_ref: ServiceReference,
    /// From where targets may be reached; nothing here filters packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networking: Option<Value>,
    /// Which nodes are targets of type `instance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// `ipv4` or `ipv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address_type: Option<String>,
    /// The VPC.
    #[serde(rename = "vpcID", default, skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
}

/// A Service and one of its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReference {
    /// The Service, in the binding's namespace.
    #[serde(default)]
    pub name: String,
    /// Its port, by number or name.
    #[serde(default)]
    pub port: Option<IntOrString>,
}

/// What the controller has seen of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroupBindingStatus {
    /// The generation it was reconciled at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Settings that an IngressClass has for all its Ingresses; they win over annotations.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct IngressClassParams {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The settings.
    #[serde(default)]
    pub spec: IngressClassParamsSpec,
    /// There is nothing to say of it.
    #[serde(default)]
    pub status: IngressClassParamsStatus,
}

cluster_resource!(IngressClassParams, "elbv2.k8s.aws", "v1beta1", "ingressclassparams");

/// Nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressClassParamsStatus {}

/// Settings of an IngressClass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressClassParamsSpec {
    /// Which namespaces may use the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// The group that all Ingresses of the class are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<IngressGroup>,
    /// `internal` or `internet-facing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// `instance` or `ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_type: Option<String>,
    /// `ipv4`, `dualstack` or `dualstack-without-public-ipv4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address_type: Option<String>,
    /// Fields that the simulation does not act on.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// A group of Ingresses that share a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressGroup {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A load balancer of the simulated cloud. The object's name is the load balancer's and what AWS puts
/// after it in DNS, since a name may be used again.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct LoadBalancer {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked for.
    #[serde(default)]
    pub spec: LoadBalancerSpec,
    /// What has become of it.
    #[serde(default)]
    pub status: LoadBalancerStatus,
}

cluster_resource!(LoadBalancer, "sim.wharf.dev", "v1", "loadbalancers");

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerSpec {
    /// The load balancer's name.
    #[serde(default)]
    pub name: String,
    /// `application` or `network`.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// `internal` or `internet-facing`.
    #[serde(default)]
    pub scheme: String,
    /// The name that DNS has for it.
    #[serde(default)]
    pub dns_name: String,
    /// What AWS knows it by.
    #[serde(default)]
    pub arn: String,
    /// One in each zone that it serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Price in nano-dollars per hour, without capacity units.
    #[serde(default)]
    pub price_nanos_per_hour: i64,
}

/// A port at which a load balancer listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The port.
    #[serde(default)]
    pub port: i32,
    /// `HTTP`, `HTTPS`, `TCP`, `UDP`, …
    #[serde(default)]
    pub protocol: String,
    /// What becomes of requests, the first that matches; the last one takes all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<ListenerRule>,
}

/// What becomes of requests that match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerRule {
    /// The host header, with `*` for any characters; none stands for every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Paths, with `*` for any characters; none stands for every path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The target group that gets the request; none stands for the fixed answer 404.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_group: Option<String>,
    /// The code of a fixed answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_response: Option<u16>,
}

/// What has become of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerStatus {
    /// `provisioning`, `active` or `deleted`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at_nanos: Option<i64>,
    /// When it became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_at_nanos: Option<i64>,
    /// When it was deleted: billing ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at_nanos: Option<i64>,
}

/// A load balancer's state once it answers.
pub const ACTIVE: &str = "active";
/// A load balancer's state before it does.
pub const PROVISIONING: &str = "provisioning";
/// A load balancer's state after its deletion; it is kept for a while, for the ledger.
pub const DELETED: &str = "deleted";

/// A target group of the simulated cloud. The object's name is the target group's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct TargetGroup {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked for.
    #[serde(default)]
    pub spec: TargetGroupSpec,
    /// Its targets.
    #[serde(default)]
    pub status: TargetGroupStatus,
}

cluster_resource!(TargetGroup, "sim.wharf.dev", "v1", "targetgroups");

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroupSpec {
    /// What AWS knows it by.
    #[serde(default)]
    pub arn: String,
    /// `instance` or `ip`.
    #[serde(default)]
    pub target_type: String,
    /// `HTTP`, `TCP`, …
    #[serde(default)]
    pub protocol: String,
    /// The port where targets have none of their own.
    #[serde(default)]
    pub port: i32,
    /// How targets are checked.
    #[serde(default)]
    pub health_check: HealthCheck,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// How targets are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// The path that is asked.
    #[serde(default)]
    pub path: String,
    /// `traffic-port` or a number.
    #[serde(default)]
    pub port: String,
    /// `HTTP`, `HTTPS` or `TCP`.
    #[serde(default)]
    pub protocol: String,
    /// Seconds between two checks.
    #[serde(default)]
    pub interval_seconds: u32,
    /// Seconds until a check has failed.
    #[serde(default)]
    pub timeout_seconds: u32,
    /// Checks in a row that make a target healthy.
    #[serde(default)]
    pub healthy_threshold: u32,
    /// Checks in a row that make a target unhealthy.
    #[serde(default)]
    pub unhealthy_threshold: u32,
    /// Codes that mean success, `200` or `200-299,302`.
    #[serde(default)]
    pub success_codes: String,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            port: "traffic-port".to_owned(),
            protocol: "HTTP".to_owned(),
            interval_seconds: 15,
            timeout_seconds: 5,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            success_codes: "200".to_owned(),
        }
    }
}

/// The targets of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroupStatus {
    /// Those that are registered, and those that are on their way out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// An address, or an instance's id.
    #[serde(default)]
    pub id: String,
    /// The port.
    #[serde(default)]
    pub port: i32,
    /// The pod behind it, with its namespace before a slash; none for instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `initial`, `healthy`, `unhealthy` or `draining`.
    #[serde(default)]
    pub state: String,
    /// Since when.
    #[serde(default)]
    pub since_nanos: i64,
}

/// The state of a target that gets requests.
pub const HEALTHY: &str = "healthy";
/// The state of a target before its checks are over.
pub const INITIAL: &str = "initial";
/// The state of a target that has been taken out.
pub const DRAINING: &str = "draining";
