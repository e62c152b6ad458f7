//! `Instance` (`sim.wharf.dev/v1`): a machine of the simulated EC2. Kept as an object so that the
//! simulated cloud's state lives in the same history as the cluster's and survives restarts with it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// A simulated EC2 instance. Its name is the instance id (`i-0123456789abcdef0`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Always `sim.wharf.dev/v1`.
    #[serde(default)]
    api_version: ApiVersion,
    /// Always `Instance`.
    #[serde(default)]
    kind: KindName,
    /// Object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was launched.
    #[serde(default)]
    pub spec: InstanceSpec,
    /// What has become of it.
    #[serde(default)]
    pub status: InstanceStatus,
}

/// What was launched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceSpec {
    /// EC2 instance type.
    pub instance_type: String,
    /// `on-demand`, `spot` or `reserved`.
    pub capacity_type: String,
    /// Region.
    pub region: String,
    /// Availability zone name.
    pub zone: String,
    /// Availability zone id.
    pub zone_id: String,
    /// Private IPv4 address.
    pub private_ip: String,
    /// Private DNS name, which is also the node's name. A managed instance goes by its id.
    pub private_dns_name: String,
    /// The subnet; that of a micro-VM is with what else is said of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subnet_id: String,
    /// AMI.
    pub image_id: String,
    /// Price in nano-dollars per hour, fixed at launch.
    pub price_nanos_per_hour: i64,
    /// What EKS Auto Mode takes on top, in nano-dollars per hour, fixed at launch.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fee_nanos_per_hour: i64,
    /// Whether EKS Auto Mode runs it: an EC2 managed instance, which its owner cannot log into.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub managed: bool,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// What the boot script tells the kubelet.
    #[serde(default)]
    pub kubelet: KubeletArguments,
    /// For a micro-VM of Fargate: whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_vm: Option<MicroVm>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A micro-VM of Fargate: a machine for one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicroVm {
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// The Fargate profile.
    pub profile: String,
    /// The subnet.
    pub subnet: String,
    /// What is provisioned, `0.5vCPU 1GB`.
    pub size: String,
    /// Ephemeral storage provisioned.
    pub storage_gib: u32,
    /// `kubernetes.io/hostname` of the node: its name without `fargate-`.
    pub host_name: String,
}

/// What the boot script (user data) tells the kubelet of the new machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletArguments {
    /// `--node-labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `--register-with-taints`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Capacity that the kubelet will find, as quantities.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, String>,
    /// Allocatable that the kubelet will report, as quantities.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allocatable: BTreeMap<String, String>,
}

/// EC2's instance states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Launched, not yet running. Not billed.
    #[default]
    Pending,
    /// Running.
    Running,
    /// Being terminated.
    ShuttingDown,
    /// Gone; kept for the ledger.
    Terminated,
}

/// What has become of an instance. Times are nanoseconds since the Unix epoch in cluster time;
/// those in the future are the model's plan, drawn once at launch so that a restart keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// State.
    pub state: InstanceState,
    /// When the launch was accepted.
    pub launched_at_nanos: i64,
    /// When it runs, and billing begins.
    pub running_at_nanos: i64,
    /// When its kubelet registers the node.
    pub registers_at_nanos: i64,
    /// When its kubelet reports the node ready.
    pub ready_at_nanos: i64,
    /// When termination was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutting_down_at_nanos: Option<i64>,
    /// When it was gone and billing ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated_at_nanos: Option<i64>,
}

impl InstanceStatus {
    /// The span that is billed up to `now`, from running to shutting down; `None` before it runs.
    pub fn billed(&self, now: Time) -> Option<(Time, Time)> {
        let from = Time::from_nanos(self.running_at_nanos);
        let until =
            self.shutting_down_at_nanos.or(self.terminated_at_nanos).map_or(now, Time::from_nanos);
        (from <= until.min(now)).then_some((from, until.min(now)))
    }
}

/// A type whose JSON is always the same text.
macro_rules! constant_text {
    ($name:ident, $text:literal) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        struct $name;
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($text)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
            }
        }
    };
}
pub(crate) use constant_text;

constant_text!(ApiVersion, "sim.wharf.dev/v1");
constant_text!(KindName, "Instance");

impl k8s_openapi::Resource for Instance {
    const API_VERSION: &'static str = "sim.wharf.dev/v1";
    const GROUP: &'static str = "sim.wharf.dev";
    const KIND: &'static str = "Instance";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "instances";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for Instance {
    type Ty = ObjectMeta;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billing_runs_from_running_to_shutting_down() {
        let mut status = InstanceStatus { running_at_nanos: 10, ..InstanceStatus::default() };
        assert_eq!(status.billed(Time::from_nanos(5)), None);
        assert_eq!(
            status.billed(Time::from_nanos(30)),
            Some((Time::from_nanos(10), Time::from_nanos(30)))
        );
        status.shutting_down_at_nanos = Some(20);
        status.terminated_at_nanos = Some(25);
        assert_eq!(
            status.billed(Time::from_nanos(30)),
            Some((Time::from_nanos(10), Time::from_nanos(20)))
        );
    }

    #[test]
    fn json_names_its_kind() {
        let json = serde_json::to_value(Instance::default()).expect("plain data");
        assert_eq!(json["apiVersion"], "sim.wharf.dev/v1");
        assert_eq!(json["kind"], "Instance");
        assert_eq!(
            serde_json::from_value::<Instance>(json).expect("its own form"),
            Instance::default()
        );
    }
}
