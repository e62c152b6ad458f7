//! What must hold of any filter of the catalogue.

use wharf_cloud::catalog::Catalog;
use wharf_cloud::catalog::listing::{ListingArgs, ListingFormat, listing};

/// A filter: it is refused in one line, or selects some of the types.
pub(crate) fn catalog_filter(data: &[u8]) {
    let Ok(filter) = std::str::from_utf8(data) else { return };
    let _ = Catalog::load(filter).map_err(|error| error.to_string());
    let format = ListingFormat::Table;
    if let Err(error) = listing(ListingArgs { region: "us-east-1", filter, format }) {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
}
