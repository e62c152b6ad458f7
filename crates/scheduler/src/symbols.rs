//! Interned strings: label keys and values, taints, names. Comparing two symbols is comparing two
//! integers, and the integer a `Gt`/`Lt` requirement needs is parsed once per distinct text.

use std::collections::BTreeMap;

use compact_str::CompactString;
use rustc_hash::FxHashMap;

/// A string of one [`Symbols`] table. Meaningless in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(u32);

impl Symbol {
    /// The empty string, in every table.
    pub const EMPTY: Self = Self(0);
}

/// Label pairs sorted by key symbol; each key once.
pub type Labels = Box<[(Symbol, Symbol)]>;

/// A table of interned strings. It only grows; who holds one for long replaces it together with
/// everything made from it (see [`crate::snapshot::Snapshot`]).
#[derive(Clone, Debug)]
pub struct Symbols {
    known: FxHashMap<CompactString, Symbol>,
    texts: Vec<(CompactString, Option<i64>)>,
}

impl Default for Symbols {
    fn default() -> Self {
        let mut symbols = Self { known: FxHashMap::default(), texts: Vec::new() };
        symbols.intern("");
        symbols
    }
}

impl Symbols {
    /// The symbol of a text, new if need be.
    pub fn intern(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.known.get(text) {
            return *symbol;
        }
        let index = u32::try_from(self.texts.len())
            .expect("invariant: the table is replaced long before it holds 2^32 strings");
        let text = CompactString::from(text);
        self.texts.push((text.clone(), text.parse().ok()));
        self.known.insert(text, Symbol(index));
        Symbol(index)
    }

    /// Sorted label pairs of a map.
    pub fn intern_labels<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Labels {
        let mut pairs: Vec<_> =
            labels.into_iter().map(|(key, value)| (self.intern(key), self.intern(value))).collect();
        pairs.sort_unstable();
        pairs.into_boxed_slice()
    }

    /// Whether these are the symbols of those labels.
    pub(crate) fn are_labels(
        &self,
        known: &[(Symbol, Symbol)],
        labels: Option<&BTreeMap<String, String>>,
    ) -> bool {
        labels.map_or(0, BTreeMap::len) == known.len()
            && labels.into_iter().flatten().all(|(key, value)| {
                let pair = self.find(key).zip(self.find(value));
                pair.is_some_and(|pair| known.binary_search(&pair).is_ok())
            })
    }

    /// The symbol of a text, if it has one.
    pub fn find(&self, text: &str) -> Option<Symbol> {
        self.known.get(text).copied()
    }

    /// The text of a symbol.
    pub fn text(&self, symbol: Symbol) -> &str {
        &self.texts[symbol.0 as usize].0
    }

    /// The text as a decimal integer, if it is one.
    pub fn integer(&self, symbol: Symbol) -> Option<i64> {
        self.texts[symbol.0 as usize].1
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none but the empty string.
    pub fn is_empty(&self) -> bool {
        self.texts.len() <= 1
    }
}

/// The value of a label among sorted pairs.
pub(crate) fn label(labels: &[(Symbol, Symbol)], key: Symbol) -> Option<Symbol> {
    // Nodes and pods carry a dozen labels or two: a scan over integers beats a binary search.
    labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_a_symbol_and_integers_are_known() {
        let mut symbols = Symbols::default();
        let a = symbols.intern("a");
        assert_eq!(symbols.intern("a"), a);
        assert_eq!(symbols.intern(""), Symbol::EMPTY);
        assert_eq!(symbols.text(a), "a");
        assert_eq!(symbols.integer(a), None);
        for (text, integer) in [("04", Some(4)), ("-3", Some(-3)), ("1.5", None), ("", None)] {
            let symbol = symbols.intern(text);
            assert_eq!(symbols.integer(symbol), integer, "{text}");
        }
    }
}
