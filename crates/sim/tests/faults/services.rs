//! A Service and an Ingress before the inflate lab's pods: endpoints and targets follow them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use wharf_model::balancing::{ACTIVE, HEALTHY, LoadBalancer, TargetGroup, TargetGroupBinding};
use wharf_model::kinds::{Kind, Resource};
use wharf_scheduler::config::Configuration;

use crate::lab::LAB;
use crate::trial::Trial;

/// Pods come and go behind the Service, then the Ingress goes.
pub(crate) fn run(seed: u64) -> Trial {
    let mut trial = Trial::new(seed, Configuration::default());
    trial.apply(LAB);
    trial.apply(SERVICES);
    for replicas in [4, 9, 2] {
        trial.scale("inflate", replicas);
        trial.run_for_minutes(10);
        let replicas = usize::try_from(replicas).expect("a few");
        assert_eq!(trial.running(), replicas, "they run {}", trial.describe());
        check(&trial, replicas);
    }
    assert_eq!(trial.count::<LoadBalancer>(|it| it.status.state == ACTIVE), 1);
    trial.delete::<Ingress>("web");
    trial.run_for_minutes(5);
    assert_eq!(trial.count::<Ingress>(|_| true), 0, "it goes {}", trial.describe());
    assert_eq!(trial.count::<TargetGroupBinding>(|_| true), 0);
    assert_eq!(trial.count::<TargetGroup>(|_| true), 0);
    assert_eq!(trial.count::<LoadBalancer>(|it| it.status.state == ACTIVE), 0);
    trial
}

/// Every pod is in exactly one slice, in the Endpoints, and a healthy target.
fn check(trial: &Trial, pods: usize) {
    let mut seen = BTreeSet::new();
    for slice in all::<EndpointSlice>(trial) {
        for endpoint in slice.endpoints.iter().flatten().filter(|it| it.target_ref.is_some()) {
            let name = endpoint.target_ref.as_ref().and_then(|of| of.name.clone());
            assert!(seen.insert(name), "twice {}", trial.describe());
        }
    }
    assert_eq!(seen.len(), pods, "in the slices {}", trial.describe());
    let told: usize = all::<Endpoints>(trial)
        .iter()
        .filter(|it| it.metadata.name.as_deref() == Some("web"))
        .flat_map(|it| it.subsets.iter().flatten())
        .map(|subset| subset.addresses.iter().flatten().count())
        .sum();
    assert_eq!(told, pods, "in the Endpoints {}", trial.describe());
    let healthy: usize = all::<TargetGroup>(trial)
        .iter()
        .map(|group| group.status.targets.iter().filter(|it| it.state == HEALTHY).count())
        .sum();
    assert_eq!(healthy, pods, "in the target group {}", trial.describe());
}

fn all<T: Resource>(trial: &Trial) -> Vec<T> {
    let (objects, _) = trial.registry.store().list(Kind::of::<T>(), None);
    objects.iter().filter_map(|object| object.typed::<T>().cloned()).collect()
}

const SERVICES: &str = r#"
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.aws/alb}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: inflate}
  ports: [{port: 80}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations: {alb.ingress.kubernetes.io/target-type: ip}
spec:
  ingressClassName: alb
  defaultBackend: {service: {name: web, port: {number: 80}}}
"#;
