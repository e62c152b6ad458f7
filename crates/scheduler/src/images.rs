//! Which images nodes have, and how large they are.

use rustc_hash::FxHashMap;

use crate::symbols::Symbol;

/// An image that some node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageState {
    /// Its size in bytes, as told by the node that first had it.
    pub(crate) size: i64,
    /// How many nodes have it.
    pub(crate) nodes: u32,
}

/// The images that nodes have, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images {
    states: FxHashMap<Symbol, ImageState>,
}

impl Images {
    pub(crate) fn get(&self, name: Symbol) -> Option<ImageState> {
        self.states.get(&name).copied()
    }

    /// Takes in what a node has.
    pub(crate) fn enter(&mut self, images: &[(Symbol, i64)]) {
        for (name, size) in images {
            self.states.entry(*name).or_insert(ImageState { size: *size, nodes: 0 }).nodes += 1;
        }
    }

    /// Takes out what a node had.
    pub(crate) fn leave(&mut self, images: &[(Symbol, i64)]) {
        for (name, _) in images {
            let Some(state) = self.states.get_mut(name) else { continue };
            state.nodes -= 1;
            if state.nodes == 0 {
                self.states.remove(name);
            }
        }
    }
}
