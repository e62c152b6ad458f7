//! The manifests of the Karpenter lab, as users write them, must apply unchanged.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{EC2NodeClass, NodeClaim, NodePool, defaults, schema, validation};

/// The pool and the class of a lab manifest, parsed as YAML.
fn manifests(capacity_type: &str, limits: &str, alias: &str) -> [Value; 2] {
    let pool = format!(
        r#"
apiVersion: karpenter.sh/v1
kind: NodePool
metadata:
  name: default
spec:
  template:
    spec:
      requirements:
        - key: kubernetes.io/arch
          operator: In
          values: ["amd64"]
        - key: karpenter.sh/capacity-type
          operator: In
          values: ["{capacity_type}"]
        - key: karpenter.k8s.aws/instance-size
          operator: NotIn
          values: ["nano","micro","small","medium"]
        - key: karpenter.k8s.aws/instance-generation
          operator: Gt
          values: ["2"]
      nodeClassRef:
        group: karpenter.k8s.aws
        kind: EC2NodeClass
        name: default
      expireAfter: 720h # 30 * 24h = 720h
  limits: {limits}
  disruption:
    consolidationPolicy: WhenEmptyOrUnderutilized
    consolidateAfter: 1m
"#
    );
    let class = format!(
        r#"
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata:
  name: default
spec:
  role: "KarpenterNodeRole-demo"
  amiSelectorTerms:
    - alias: "{alias}"
  subnetSelectorTerms:
    - tags:
        karpenter.sh/discovery: "demo"
  securityGroupSelectorTerms:
    - tags:
        karpenter.sh/discovery: "demo"
"#
    );
    [pool, class].map(|text| serde_saphyr::from_str(&text).unwrap())
}

/// Decodes, encodes and decodes again; nothing may get lost, and the kind comes first.
fn round_trip<T>(value: &Value) -> Value
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let typed: T = serde_json::from_value(value.clone()).unwrap();
    let text = serde_json::to_string(&typed).unwrap();
    assert!(text.starts_with(r#"{"apiVersion":"#), "{text}");
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), typed);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn lab_manifests_apply_unchanged() {
    for (capacity_type, limits, alias) in [
        ("on-demand", "{cpu: 1000}", "al2023@v20250228"),
        ("on-demand", r#"{cpu: "1000", memory: 1000Gi}"#, "al2023@latest"),
        ("spot", r#"{cpu: "1000", memory: 1000Gi}"#, "bottlerocket@latest"),
    ] {
        let [mut pool, mut class] = manifests(capacity_type, limits, alias);
        for (kind, value) in [("NodePool", &mut pool), ("EC2NodeClass", &mut class)] {
            let unknown =
                validation::structural::Structural::compile(schema::by_kind(kind).unwrap())
                    .unwrap()
                    .unknown_fields(value);
            assert_eq!(unknown, [""; 0]);
            defaults::apply(kind, value);
            assert_eq!(validation::validate(kind, value, None), []);
        }
        let typed: NodePool = serde_json::from_value(pool.clone()).unwrap();
        assert_eq!(typed.spec.limits["cpu"].to_string(), "1000");
        assert_eq!(validation::runtime::errors(&typed), [""; 0]);
        assert_eq!(round_trip::<NodePool>(&pool), pool);
        assert_eq!(round_trip::<EC2NodeClass>(&class), class);
    }
}

#[test]
fn every_field_survives_a_round_trip() {
    let condition = json!({"type": "Ready", "status": "True", "reason": "Ready", "message": "",
        "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 2});
    let claim = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "default-abcde"},
        "spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
            "requirements": [{"key": "a", "operator": "In", "values": ["b", "c"], "minValues": 2}],
            "resources": {"requests": {"cpu": "150m", "pods": "3"}}, "expireAfter": "720h",
            "taints": [{"key": "t", "effect": "NoSchedule", "value": "v"}],
            "startupTaints": [{"key": "s", "effect": "NoExecute"}], "terminationGracePeriod": "5m"
        },
        "status": {
            "nodeName": "node", "providerID": "aws:///us-west-2a/i-1", "imageID": "ami-1",
            "capacity": {"cpu": "8"}, "allocatable": {"cpu": "7910m"}, "conditions": [condition],
            "lastPodEventTime": "2026-01-02T03:04:05Z"
        }
    });
    assert_eq!(round_trip::<NodeClaim>(&claim), claim);
    assert_eq!(validation::node_claim(&claim, None), []);

    let class = json!({
        "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass", "metadata": {"name": "default"},
        "spec": {
            "amiFamily": "AL2023", "associatePublicIPAddress": false, "context": "c", "ipPrefixCount": 1,
            "amiSelectorTerms": [{"id": "ami-1"}, {"name": "n", "owner": "self"}, {"ssmParameter": "p"}, {"tags": {"a": "b"}}],
            "blockDeviceMappings": [{"deviceName": "/dev/xvda", "rootVolume": true, "ebs": {
                "deleteOnTermination": true, "encrypted": true, "iops": 3000, "kmsKeyID": "k", "snapshotID": "s",
                "throughput": 125, "volumeInitializationRate": 100, "volumeSize": "20Gi", "volumeType": "gp3"}}],
            "capacityReservationSelectorTerms": [{"ownerID": "012345678901", "instanceMatchCriteria": "open"}],
            "connectionTracking": {"tcpEstablishedTimeout": 60, "udpStreamTimeout": 60, "udpTimeout": 30},
            "cpuOptions": {"nestedVirtualization": "disabled"}, "detailedMonitoring": true,
            "instanceProfile": "p", "instanceStorePolicy": "RAID0", "kubelet": {"clusterDNS": ["10.0.0.10"], "maxPods": 5},
            "metadataOptions": {"httpEndpoint": "enabled", "httpProtocolIPv6": "enabled", "httpPutResponseHopLimit": 2, "httpTokens": "optional"},
            "networkInterfaces": [{"deviceIndex": 0, "interfaceType": "interface", "networkCardIndex": 0}],
            "placementGroupSelector": {"name": "g"}, "securityGroupSelectorTerms": [{"name": "n"}],
            "subnetSelectorTerms": [{"id": "subnet-1"}], "tags": {"a": "b"}, "userData": "u"
        },
        "status": {
            "amis": [{"id": "ami-1", "name": "n", "deprecated": true, "requirements": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}],
            "capacityReservations": [{"availabilityZone": "a", "endTime": "2026-01-02T03:04:05Z", "id": "cr-1", "instanceMatchCriteria": "open",
                "instanceType": "m5.large", "interruptible": true, "ownerID": "012345678901", "reservationType": "default", "state": "active"}],
            "conditions": [condition], "instanceProfile": "p", "securityGroups": [{"id": "sg-1", "name": "n"}],
            "subnets": [{"id": "subnet-1", "zone": "us-west-2a", "zoneID": "usw2-az1"}]
        }
    });
    assert_eq!(round_trip::<EC2NodeClass>(&class), class);
    assert_eq!(validation::ec2_node_class(&class, None), []);

    let pool = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
        "spec": {
            "template": {
                "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "spec": {"nodeClassRef": {"group": "g", "kind": "k", "name": "n"}, "requirements": [], "expireAfter": "Never"}
            },
            "disruption": {"consolidateAfter": "0s", "consolidationPolicy": "Balanced",
                "budgets": [{"nodes": "1", "reasons": ["Empty"], "schedule": "@daily", "duration": "1h"}]},
            "limits": {"nodes": "3"}, "replicas": 2
        },
        "status": {"resources": {"cpu": "2"}, "nodes": 2, "nodeClassObservedGeneration": 1, "conditions": [condition]}
    });
    assert_eq!(round_trip::<NodePool>(&pool), pool);
    assert_eq!(validation::node_pool(&pool, None), []);
}
