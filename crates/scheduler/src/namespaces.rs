//! Namespaces, as far as scheduling looks at them: their labels, which the namespace selectors of
//! pod affinity terms ask for.

use rustc_hash::FxHashMap;

use crate::symbols::{Labels, Symbol};

/// The labels of the namespaces that are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    labels: FxHashMap<Symbol, Labels>,
}

impl Namespaces {
    /// Takes in a namespace as it is now. Returns whether that is news.
    pub(crate) fn set(&mut self, name: Symbol, labels: Labels) -> bool {
        let old = self.labels.insert(name, labels);
        old.as_ref() != self.labels.get(&name)
    }

    /// Forgets a namespace. Returns whether it was known.
    pub(crate) fn remove(&mut self, name: Symbol) -> bool {
        self.labels.remove(&name).is_some()
    }

    /// The labels of a namespace; `None` if there is no such namespace.
    pub(crate) fn labels(&self, name: Symbol) -> Option<&[(Symbol, Symbol)]> {
        self.labels.get(&name).map(AsRef::as_ref)
    }
}
