//! The structural OpenAPI v3 schemas of load balancing's kinds. Types are those of the controller's
//! definitions; the descriptions are ours.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::custom::FieldError;
use crate::custom::build::{
    Schema, array, boolean, int32, int64, kind, map, object, opaque, string,
};
use crate::custom::structural::Structural;

/// The schema of a kind by its name.
pub fn by_kind(kind: &str) -> Option<&'static Value> {
    static BINDING: LazyLock<Value> = LazyLock::new(binding);
    static PARAMS: LazyLock<Value> = LazyLock::new(params);
    static BALANCER: LazyLock<Value> = LazyLock::new(balancer);
    static TARGETS: LazyLock<Value> = LazyLock::new(target_group);
    match kind {
        "TargetGroupBinding" => Some(&BINDING),
        "IngressClassParams" => Some(&PARAMS),
        "LoadBalancer" => Some(&BALANCER),
        "TargetGroup" => Some(&TARGETS),
        _ => None,
    }
}

/// What the schema refuses; other kinds have none.
pub fn validate(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    macro_rules! compiled {
        ($kind:literal) => {{
            static COMPILED: LazyLock<Structural> = LazyLock::new(|| {
                let schema = by_kind($kind).expect("invariant: the kind has a schema");
                Structural::compile(schema).expect("invariant: the schemas in this crate compile")
            });
            COMPILED.validate(new, old)
        }};
    }
    match kind {
        "TargetGroupBinding" => compiled!("TargetGroupBinding"),
        "IngressClassParams" => compiled!("IngressClassParams"),
        "LoadBalancer" => compiled!("LoadBalancer"),
        "TargetGroup" => compiled!("TargetGroup"),
        _ => Vec::new(),
    }
}

fn target_type() -> Schema {
    string("instance or ip.").one_of(&["instance", "ip"])
}

fn scheme() -> Schema {
    string("internal or internet-facing.").one_of(&["internal", "internet-facing"])
}

fn label_selector(description: &str) -> Schema {
    object(
        description,
        [
            ("matchLabels", map("Labels.", string("A label's value."))),
            (
                "matchExpressions",
                array(
                    "Requirements, all of which must hold.",
                    object(
                        "A requirement on one label.",
                        [
                            ("key", string("The label.")),
                            ("operator", string("In, NotIn, Exists or DoesNotExist.")),
                            ("values", array("Values.", string("A value."))),
                        ],
                    )
                    .required(&["key", "operator"]),
                ),
            ),
        ],
    )
}

fn binding() -> Value {
    let port = Schema::any()
        .with("anyOf", json!([{"type": "integer"}, {"type": "string"}]))
        .with("x-kubernetes-int-or-string", true)
        .describe("Its port, by number or name.");
    kind(
        "Which Service's pods are in which target group.",
        object(
            "What is bound to what.",
            [
                ("targetGroupARN", string("The target group; wins over its name.")),
                ("targetGroupName", string("The target group by its name.")),
                (
                    "multiClusterTargetGroup",
                    boolean("Whether other clusters register targets in the group too."),
                ),
                ("targetType", target_type()),
                (
                    "serviceRef",
                    object(
                        "The Service and its port.",
                        [("name", string("The Service.")), ("port", port)],
                    )
                    .required(&["name", "port"]),
                ),
                ("networking", opaque("From where targets may be reached.")),
                ("nodeSelector", label_selector("Which nodes are targets of type instance.")),
                ("ipAddressType", string("ipv4 or ipv6.").one_of(&["ipv4", "ipv6"])),
                ("vpcID", string("The VPC.")),
            ],
        )
        .required(&["serviceRef"]),
        object(
            "What the controller has seen of it.",
            [("observedGeneration", int64("The generation it was reconciled at."))],
        ),
    )
    .build()
}

fn params() -> Value {
    let texts = |description: &str| array(description, string("One."));
    let pair = |description: &str| {
        object(description, [("key", string("Name.")), ("value", string("Value."))])
            .required(&["key", "value"])
    };
    kind(
        "Settings that an IngressClass has for all its Ingresses.",
        object(
            "The settings.",
            [
                ("namespaceSelector", label_selector("Which namespaces may use the class.")),
                (
                    "group",
                    object(
                        "The group that all Ingresses of the class are in.",
                        [("name", string("Its name."))],
                    )
                    .required(&["name"]),
                ),
                ("scheme", scheme()),
                ("targetType", target_type()),
                (
                    "ipAddressType",
                    string("ipv4, dualstack or dualstack-without-public-ipv4.").one_of(&[
                        "ipv4",
                        "dualstack",
                        "dualstack-without-public-ipv4",
                    ]),
                ),
                ("inboundCIDRs", texts("Who may connect.")),
                ("certificateArn", texts("Certificates.")),
                ("sslPolicy", string("The security policy of HTTPS listeners.")),
                ("subnets", opaque("Which subnets are used.")),
                ("tags", array("Tags.", pair("A tag."))),
                ("loadBalancerAttributes", array("Attributes.", pair("An attribute."))),
                ("listeners", array("Attributes of listeners.", opaque("Those of one."))),
            ],
        ),
        object("Nothing.", []),
    )
    .build()
}

fn balancer() -> Value {
    let rule = object(
        "What becomes of requests that match.",
        [
            ("host", string("The host header.")),
            ("paths", array("Paths.", string("A path."))),
            ("targetGroup", string("The target group that gets the request.")),
            ("fixedResponse", int32("The code of a fixed answer.")),
        ],
    );
    let listener = object(
        "A port at which it listens.",
        [
            ("port", int32("The port.")),
            ("protocol", string("HTTP, HTTPS, TCP, UDP.")),
            ("rules", array("The first that matches counts.", rule)),
        ],
    );
    kind(
        "A load balancer of the simulated cloud.",
        object(
            "What was asked for.",
            [
                ("name", string("The load balancer's name.")),
                ("type", string("application or network.")),
                ("scheme", scheme()),
                ("dnsName", string("The name that DNS has for it.")),
                ("arn", string("What AWS knows it by.")),
                ("subnets", array("One in each zone.", string("A subnet id."))),
                ("listeners", array("Where it listens.", listener)),
                ("tags", map("Tags.", string("A tag's value."))),
                ("priceNanosPerHour", int64("Price in nano-dollars per hour.")),
            ],
        ),
        object(
            "What has become of it.",
            [
                ("state", string("provisioning, active or deleted.")),
                ("createdAtNanos", int64("When it was created.")),
                ("activeAtNanos", int64("When it became active.")),
                ("deletedAtNanos", int64("When it was deleted.")),
            ],
        ),
    )
    .build()
}

fn target_group() -> Value {
    let check = object(
        "How targets are checked.",
        [
            ("path", string("The path that is asked.")),
            ("port", string("traffic-port or a number.")),
            ("protocol", string("HTTP, HTTPS or TCP.")),
            ("intervalSeconds", int32("Seconds between two checks.")),
            ("timeoutSeconds", int32("Seconds until a check has failed.")),
            ("healthyThreshold", int32("Checks that make a target healthy.")),
            ("unhealthyThreshold", int32("Checks that make a target unhealthy.")),
            ("successCodes", string("Codes that mean success.")),
        ],
    );
    let target = object(
        "A target.",
        [
            ("id", string("An address, or an instance's id.")),
            ("port", int32("The port.")),
            ("pod", string("The pod behind it.")),
            ("state", string("initial, healthy, unhealthy or draining.")),
            ("sinceNanos", int64("Since when.")),
        ],
    );
    kind(
        "A target group of the simulated cloud. Its name is the target group's.",
        object(
            "What was asked for.",
            [
                ("arn", string("What AWS knows it by.")),
                ("targetType", target_type()),
                ("protocol", string("HTTP, TCP.")),
                ("port", int32("The port where targets have none of their own.")),
                ("healthCheck", check),
                ("tags", map("Tags.", string("A tag's value."))),
            ],
        ),
        object("Its targets.", [("targets", array("All of them.", target))]),
    )
    .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancing::{LoadBalancer, TargetGroup, TargetGroupBinding};

    #[test]
    fn bindings_are_refused_as_their_definition_says() {
        let said = |spec: Value| -> Vec<String> {
            let value = json!({"metadata": {"name": "b"}, "spec": spec});
            validate("TargetGroupBinding", &value, None).iter().map(ToString::to_string).collect()
        };
        assert_eq!(said(json!({"serviceRef": {"name": "s", "port": 80}})), [""; 0]);
        assert_eq!(said(json!({"serviceRef": {"name": "s", "port": "http"}})), [""; 0]);
        assert_eq!(said(json!({})), ["spec.serviceRef: Required value"]);
        assert_eq!(
            said(json!({"serviceRef": {"name": "s", "port": 80}, "targetType": "pod"})),
            ["spec.targetType: Unsupported value: \"pod\": supported values: \"instance\", \"ip\""]
        );
    }

    #[test]
    fn objects_are_written_as_their_schemas_say() {
        let mut balancer = LoadBalancer::default();
        balancer.spec.scheme = "internal".to_owned();
        let value = serde_json::to_value(&balancer).expect("plain data");
        assert_eq!(validate("LoadBalancer", &value, None), []);
        assert_eq!(serde_json::from_value::<LoadBalancer>(value).expect("its own form"), balancer);
        let mut group = TargetGroup::default();
        group.spec.target_type = "ip".to_owned();
        let value = serde_json::to_value(&group).expect("plain data");
        assert_eq!(validate("TargetGroup", &value, None), []);
        let binding = serde_json::to_value(TargetGroupBinding::default()).expect("plain data");
        assert_eq!(binding["apiVersion"], "elbv2.k8s.aws/v1beta1");
    }
}
