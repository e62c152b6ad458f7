//! Events: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>.

use k8s_openapi::api::core::v1::Event;

use super::Rules;
use crate::field::{Errors, Path};

impl Rules for Event {
    const CREATE_ON_UPDATE: bool = true;

    /// Events are told by clients of all ages; upstream checks only where they belong.
    fn validate(&self, errors: &mut Errors) {
        let path = Path::root("involvedObject");
        let path = path.child("namespace");
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        match self.involved_object.namespace.as_deref().unwrap_or_default() {
            // Events of cluster-scoped objects.
            "" if matches!(namespace, "default" | "kube-system") => {}
            about if about == namespace => {}
            about => errors.invalid(&path, about, "does not match event.namespace"),
        }
    }
}
