//! The inflate lab: machines come for pods, are consolidated, and go with them.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::karpenter::NodeClaim;
use wharf_scheduler::config::Configuration;

use crate::trial::Trial;

/// What must be true at the lab's stations is true however many faults there were.
pub(crate) fn run(seed: u64) -> Trial {
    let mut trial = Trial::new(seed, Configuration::default());
    trial.apply(LAB);
    trial.run_for_seconds(20);
    assert_eq!(trial.count::<Node>(|_| true), 0, "no pods, no machines");
    trial.scale("inflate", 5);
    trial.run_for_minutes(6);
    assert_eq!(trial.running(), 5, "five pods run {}", trial.describe());
    trial.scale("inflate", 30);
    trial.run_for_minutes(8);
    assert_eq!(trial.running(), 30, "thirty pods run {}", trial.describe());
    trial.scale("inflate", 5);
    trial.run_for_minutes(20);
    assert_eq!(trial.running(), 5, "five pods run again {}", trial.describe());
    trial.delete::<Deployment>("inflate");
    trial.run_for_minutes(20);
    assert_eq!(trial.pods(), 0);
    assert_eq!(trial.count::<NodeClaim>(|_| true), 0, "no claims are left {}", trial.describe());
    assert_eq!(trial.count::<Node>(|_| true), 0, "no nodes are left {}", trial.describe());
    let billed = |instance: &Instance| {
        matches!(instance.status.state, InstanceState::Pending | InstanceState::Running)
    };
    assert_eq!(trial.count(billed), 0, "no machine is left running");
    trial
}

pub(crate) const LAB: &str = r#"
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {name: default}
spec:
  role: KarpenterNodeRole-test
  amiSelectorTerms: [{alias: al2023@latest}]
  subnetSelectorTerms: [{tags: {karpenter.sh/discovery: test}}]
  securityGroupSelectorTerms: [{tags: {karpenter.sh/discovery: test}}]
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  template:
    spec:
      requirements:
        - {key: kubernetes.io/arch, operator: In, values: [amd64]}
        - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
        - {key: karpenter.k8s.aws/instance-category, operator: In, values: [c, m, r]}
        - {key: karpenter.k8s.aws/instance-generation, operator: Gt, values: ["2"]}
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
  limits: {cpu: 1000}
  disruption: {consolidationPolicy: WhenEmptyOrUnderutilized, consolidateAfter: 1m}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: inflate}
spec:
  replicas: 0
  selector: {matchLabels: {app: inflate}}
  template:
    metadata: {labels: {app: inflate}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: inflate
          image: public.ecr.aws/eks-distro/kubernetes/pause:3.7
          resources: {requests: {cpu: 1}}
"#;
