//! Fargate, a managed node group, self-managed Karpenter and Auto Mode in one cluster: each pod goes
//! where the rules say, and `wharf why` says the same.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use wharf_cloud::catalog::Catalog;
use wharf_controllers::karpenter::{KarpenterSettings, review};
use wharf_model::object::ObjectKey;
use wharf_scheduler::Profile;
use wharf_sim::rehearsal::{Options, Rehearsal, START};
use wharf_sim::{scenario, why};

const CLUSTER: &str = "mixed";
const SCENARIO: &str = "
apiVersion: wharf.dev/v1alpha1
kind: Scenario
metadata: {name: mixed}
spec:
  until: 20m
  clusterConfig:
    inline:
      apiVersion: eksctl.io/v1alpha5
      kind: ClusterConfig
      metadata: {name: mixed, region: us-east-1}
      vpc: {cidr: 10.10.0.0/16}
      karpenter: {version: 1.9.0}
      autoModeConfig: {enabled: true, nodePools: [general-purpose]}
      managedNodeGroups:
        - {name: workers, instanceType: m5.large, desiredCapacity: 1, minSize: 1, maxSize: 1, labels: {tier: workers}}
      fargateProfiles:
        - {name: web, selectors: [{namespace: web}]}
  manifests:
    - inline: {apiVersion: v1, kind: Namespace, metadata: {name: web}}
    - inline:
        apiVersion: karpenter.k8s.aws/v1
        kind: EC2NodeClass
        metadata: {name: default}
        spec:
          role: nodes
          amiSelectorTerms: [{alias: al2023@latest}]
          subnetSelectorTerms: [{tags: {karpenter.sh/discovery: mixed}}]
          securityGroupSelectorTerms: [{tags: {karpenter.sh/discovery: mixed}}]
    - inline:
        apiVersion: karpenter.sh/v1
        kind: NodePool
        metadata: {name: batch}
        spec:
          template:
            spec:
              nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
              taints: [{key: dedicated, value: batch, effect: NoSchedule}]
              requirements:
                - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
                - {key: karpenter.k8s.aws/instance-category, operator: In, values: [c, m, r]}
  steps:
    - at: 6m
      apply:
        - inline: {apiVersion: v1, kind: Pod, metadata: {name: front, namespace: web}, spec: {containers: [{name: c, image: nginx}]}}
        - inline: {apiVersion: v1, kind: Pod, metadata: {name: worker, namespace: default}, spec: {nodeSelector: {tier: workers}, containers: [{name: c, image: nginx}]}}
        - inline: {apiVersion: v1, kind: Pod, metadata: {name: auto, namespace: default}, spec: {nodeSelector: {eks.amazonaws.com/compute-type: auto}, containers: [{name: c, image: nginx}]}}
        - inline: {apiVersion: v1, kind: Pod, metadata: {name: batch, namespace: default}, spec: {nodeSelector: {karpenter.sh/nodepool: batch}, tolerations: [{key: dedicated, operator: Exists}], containers: [{name: c, image: nginx}]}}
";

#[test]
fn each_pod_goes_where_the_rules_say_and_why_says_the_same() {
    let scenario = scenario::parse(SCENARIO, Path::new("mixed.yaml")).expect("a scenario");
    let warnings = scenario.cluster.as_ref().map(|config| config.warnings.as_slice());
    assert_eq!(warnings, Some(&[][..]), "every field means something");
    let mut rehearsal = Rehearsal::new(scenario, &Options::default()).expect("a cluster");
    rehearsal.run_to(START + Duration::from_secs(14 * 60)).expect("it comes to rest");
    let now = rehearsal.now();
    let view = rehearsal.view();
    let catalog = Arc::new(Catalog::load("us-east-1").expect("a region"));
    let profiles = [Profile::default()];
    let cluster = why::Cluster { name: CLUSTER, catalog: &catalog, profiles: &profiles };
    let settings =
        KarpenterSettings { cluster_name: CLUSTER.to_owned(), ..KarpenterSettings::default() };
    for (namespace, name, prefix, label, taker) in [
        ("web", "front", "fargate-ip-10-10-", "eks.amazonaws.com/compute-type=fargate", "Fargate"),
        (
            "default",
            "worker",
            "ip-10-10-",
            "eks.amazonaws.com/nodegroup=workers",
            "node group workers",
        ),
        (
            "default",
            "auto",
            "i-",
            "eks.amazonaws.com/compute-type=auto",
            "Auto Mode NodePool general-purpose",
        ),
        (
            "default",
            "batch",
            "ip-10-10-",
            "karpenter.sh/nodepool=batch",
            "Karpenter NodePool batch",
        ),
    ] {
        let pod = view.get::<Pod>(&ObjectKey::namespaced(namespace, name)).expect("the pod");
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = node.unwrap_or_else(|| panic!("{name} has no node: {:?}", pod.status));
        assert!(node.starts_with(prefix), "{name} is on {node}");
        let (key, value) = label.split_once('=').expect("a label");
        let labels = view.get_cluster::<Node>(node).and_then(|node| node.metadata.labels.as_ref());
        let found = labels.and_then(|labels| labels.get(key)).map(String::as_str);
        assert_eq!(found, Some(value), "{name} on {node}");

        let told = why::pod_review(pod, view, &profiles).expect("it has not ended");
        let outlook = review(view, &catalog, settings.clone(), pod, now);
        let says = why::takers(pod, &told, Some(&outlook), cluster, view);
        let takes: Vec<&str> =
            says.iter().filter(|one| one.takes).map(|one| one.who.as_str()).collect();
        assert_eq!(takes, [taker], "{name}: {says:#?}");
        assert_eq!(says.len(), 4, "each of the four says something: {says:#?}");
        assert!(says.iter().all(|one| !one.because.is_empty()), "{says:#?}");
    }
}
