//! The schema of `Instance`, which has no definition elsewhere: it is Wharf's own kind.

use serde_json::{Value, json};

/// The OpenAPI v3 schema of `Instance`, in the form of a custom resource definition's.
pub(crate) fn schema() -> Value {
    let nanos = |description: &str| json!({"type": "integer", "format": "int64", "description": description});
    let text = |description: &str| json!({"type": "string", "description": description});
    let texts = |description: &str| {
        json!({
            "type": "object", "description": description,
            "additionalProperties": {"type": "string"},
        })
    };
    let micro_vm = json!({
        "type": "object",
        "description": "For a micro-VM of Fargate: whose it is.",
        "properties": {
            "podNamespace": text("The pod's namespace."),
            "podName": text("The pod's name."),
            "podUid": text("The pod's uid."),
            "profile": text("The Fargate profile."),
            "subnet": text("The subnet."),
            "size": text("What is provisioned, 0.5vCPU 1GB."),
            "storageGib": {"type": "integer", "format": "int32",
                "description": "Ephemeral storage provisioned."},
            "hostName": text("The node's name without fargate-."),
        },
    });
    let kubelet = json!({
        "type": "object",
        "description": "What the boot script tells the kubelet of the new machine.",
        "properties": {
            "labels": texts("Labels the node registers with."),
            "taints": {
                "type": "array",
                "description": "Taints the node registers with.",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": text("The taint's key."),
                        "value": text("The taint's value."),
                        "effect": text("NoSchedule, PreferNoSchedule or NoExecute."),
                        "timeAdded": {
                            "type": "string", "format": "date-time",
                            "description": "When the taint was added.",
                        },
                    },
                },
            },
            "capacity": texts("Capacity the kubelet finds, as quantities."),
            "allocatable": texts("Allocatable the kubelet reports, as quantities."),
        },
    });
    json!({
        "type": "object",
        "description": "A machine of the simulated EC2. Its name is the instance id.",
        "properties": {
            "apiVersion": text("Group and version of the form this object is written in."),
            "kind": text("Name of the kind of object."),
            "metadata": {"type": "object", "description": "Standard object metadata."},
            "spec": {
                "type": "object",
                "description": "What was launched.",
                "properties": {
                    "instanceType": text("EC2 instance type."),
                    "capacityType": {
                        "type": "string", "enum": ["on-demand", "spot", "reserved", "fargate"],
                        "description": "How the capacity was bought.",
                    },
                    "region": text("Region."),
                    "zone": text("Availability zone name."),
                    "zoneId": text("Availability zone id."),
                    "privateIp": text("Private IPv4 address."),
                    "privateDnsName": text("Private DNS name, which is also the node's name."),
                    "subnetId": text("The subnet."),
                    "imageId": text("AMI."),
                    "priceNanosPerHour": nanos("Price in nano-dollars per hour, fixed at launch."),
                    "tags": texts("EC2 tags."),
                    "kubelet": kubelet,
                    "microVm": micro_vm,
                },
            },
            "status": {
                "type": "object",
                "description": "What has become of it. Times are nanoseconds since the Unix epoch in cluster time.",
                "properties": {
                    "state": {
                        "type": "string",
                        "enum": ["pending", "running", "shutting-down", "terminated"],
                        "description": "EC2's instance state.",
                    },
                    "launchedAtNanos": nanos("When the launch was accepted."),
                    "runningAtNanos": nanos("When it runs, and billing begins."),
                    "registersAtNanos": nanos("When its kubelet registers the node."),
                    "readyAtNanos": nanos("When its kubelet reports the node ready."),
                    "shuttingDownAtNanos": nanos("When termination was asked for."),
                    "terminatedAtNanos": nanos("When it was gone and billing ended."),
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use wharf_model::instance::Instance;

    use super::*;

    /// The schema names the very fields that the type writes.
    #[test]
    fn the_schema_names_the_fields_of_the_type() {
        fn check(path: &str, schema: &Value, value: &Value) {
            let Some(fields) = value.as_object() else { return };
            let Some(known) = schema["properties"].as_object() else { return };
            for (name, value) in fields {
                let known = known.get(name).unwrap_or_else(|| panic!("{path}.{name} is missing"));
                check(&format!("{path}.{name}"), known, value);
            }
        }
        let text = |text: &str| text.to_owned();
        let mut instance = Instance::default();
        instance.spec.tags.insert(text("a"), text("b"));
        instance.spec.kubelet.labels.insert(text("a"), text("b"));
        instance.spec.kubelet.capacity.insert(text("cpu"), text("1"));
        instance.spec.kubelet.allocatable.insert(text("cpu"), text("1"));
        instance.spec.kubelet.taints.push(k8s_openapi::api::core::v1::Taint::default());
        instance.spec.micro_vm = Some(wharf_model::instance::MicroVm::default());
        instance.status.shutting_down_at_nanos = Some(1);
        instance.status.terminated_at_nanos = Some(1);
        check("", &schema(), &serde_json::to_value(instance).unwrap());
    }
}
