//! The objects that every cluster begins with.

use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wharf_model::object::Typed;
use wharf_ports::error::{ApiError, StatusReason};

use crate::admission::{KUBERNETES_SERVICE_IP, Requester};
use crate::{Registry, WriteOptions};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The port on which EKS' API servers answer.
const API_SERVER_PORT: i32 = 443;

impl Registry {
    /// Creates what every cluster has from the start; what is there already stays as it is, so this
    /// may run again after a restart.
    ///
    /// # Errors
    /// If the store refuses a write.
    pub fn bootstrap(&self) -> Result<(), ApiError> {
        for name in NAMESPACES {
            let metadata = named(name, None);
            self.ensure(Box::new(Namespace { metadata, ..Namespace::default() }))?;
            default_service_account(self, name)?;
        }
        self.ensure(priority_class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ))?;
        self.ensure(priority_class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ))?;
        self.ensure(kubernetes_service())
    }

    fn ensure(&self, object: Box<dyn Typed>) -> Result<(), ApiError> {
        match self.create_as(object, &WriteOptions::default(), Requester::System) {
            Err(error) if error.reason != StatusReason::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}

/// Creates the ServiceAccount that pods of a namespace get if they name none.
pub(crate) fn default_service_account(
    registry: &Registry,
    namespace: &str,
) -> Result<(), ApiError> {
    let metadata = named("default", Some(namespace));
    registry.ensure(Box::new(ServiceAccount { metadata, ..ServiceAccount::default() }))
}

fn named(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        ..ObjectMeta::default()
    }
}

fn priority_class(name: &str, value: i32, description: &str) -> Box<dyn Typed> {
    Box::new(PriorityClass {
        metadata: named(name, None),
        value: Some(value),
        description: Some(description.to_owned()),
        ..PriorityClass::default()
    })
}

fn kubernetes_service() -> Box<dyn Typed> {
    let mut metadata = named("kubernetes", Some("default"));
    let labels = [("component", "apiserver"), ("provider", "kubernetes")];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    metadata.labels = Some(labels.into_iter().map(owned).collect());
    Box::new(Service {
        metadata,
        spec: Some(ServiceSpec {
            cluster_ip: Some(KUBERNETES_SERVICE_IP.to_owned()),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                port: API_SERVER_PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(API_SERVER_PORT)),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}
