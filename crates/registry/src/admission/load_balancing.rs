//! The AWS Load Balancer Controller's webhooks: Services of type LoadBalancer get its class, and pods a
//! gate for each target group they will be in, where their namespace asks for it. Both do nothing in a
//! cluster without the controller.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodReadinessGate, Service};
use wharf_model::balancing::TargetGroupBinding;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::selector::Selector;
use wharf_store::Store;

const CONTROLLER: (&str, &str) = ("kube-system", "aws-load-balancer-controller");
const CLASS: &str = "service.k8s.aws/nlb";
const INJECT: &str = "elbv2.k8s.aws/pod-readiness-gate-inject";
const GATE: &str = "target-health.elbv2.k8s.aws";

/// Gives a new Service of type LoadBalancer the controller's class, unless it names one.
pub(super) fn on_service_create(store: &Store, service: &mut Service) {
    let Some(spec) = &mut service.spec else { return };
    if spec.type_.as_deref() != Some("LoadBalancer") || spec.load_balancer_class.is_some() {
        return;
    }
    let key = ObjectKey::namespaced(CONTROLLER.0, CONTROLLER.1);
    if store.get(Kind::of::<Deployment>(), &key).is_some() {
        spec.load_balancer_class = Some(CLASS.to_owned());
    }
}

/// Gives a new pod a readiness gate for each binding whose Service selects it.
pub(super) fn admit_pod(store: &Store, pod: &mut Pod) {
    if store.count(Kind::of::<TargetGroupBinding>()) == 0 {
        return;
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let asks = store
        .get(Kind::of::<Namespace>(), &ObjectKey::cluster(&namespace))
        .is_some_and(|object| object.header().label(INJECT) == Some("enabled"));
    if !asks {
        return;
    }
    let empty = Default::default();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
    let (bindings, _) = store.list(Kind::of::<TargetGroupBinding>(), Some(&namespace));
    let mut gates = Vec::new();
    for object in bindings {
        let Some(binding) = object.typed::<TargetGroupBinding>() else { continue };
        if binding.spec.target_type.as_deref() != Some("ip") {
            continue;
        }
        let key = ObjectKey::namespaced(&namespace, &binding.spec.service_ref.name);
        let service = store.get(Kind::of::<Service>(), &key);
        let selector = service
            .as_ref()
            .and_then(|object| object.typed::<Service>()?.spec.as_ref()?.selector.as_ref())
            .filter(|selector| !selector.is_empty())
            .map(Selector::from_map);
        if selector.is_some_and(|selector| selector.matches(labels)) {
            gates.push(format!("{GATE}/{}", object.key().name));
        }
    }
    let spec = pod.spec.get_or_insert_default();
    let held = spec.readiness_gates.get_or_insert_default();
    for condition_type in gates {
        if !held.iter().any(|gate| gate.condition_type == condition_type) {
            held.push(PodReadinessGate { condition_type });
        }
    }
    if held.is_empty() {
        spec.readiness_gates = None;
    }
}
