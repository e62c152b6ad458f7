//! Namespaces: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/namespace-v1/>.

use k8s_openapi::api::core::v1::Namespace;
use wharf_model::names;
use wharf_model::time::Time;
use wharf_ports::cluster::Part;

use super::Rules;
use crate::metadata::KUBERNETES_FINALIZER;

/// The label with which selectors pick a namespace by its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Rules for Namespace {
    fn name_errors(name: &str) -> Vec<String> {
        names::dns_1123_label(name)
    }

    fn set_defaults(&mut self) {
        let name = self.metadata.name.clone().filter(|name| !name.is_empty());
        if let Some(name) = name {
            self.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
    }

    fn prepare_create(&mut self, _now: Time) {
        // A generated name is known only now.
        self.set_defaults();
        let finalizers = self.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == KUBERNETES_FINALIZER) {
            finalizers.push(KUBERNETES_FINALIZER.to_owned());
        }
        self.status.take();
        self.status.get_or_insert_default().phase = Some("Active".to_owned());
    }

    /// The finalizers of the spec change only through the `finalize` subresource, for which a
    /// controller of this process updates everything at once.
    fn prepare_update(&mut self, old: &Self, part: Part) {
        if part != Part::All {
            self.spec.clone_from(&old.spec);
        }
    }

    fn take_status(&mut self, from: &Self) {
        self.status.clone_from(&from.status);
    }
}
