//! `wharf catalog`.

use wharf_cloud::catalog::listing::{ListingArgs, ListingFormat, listing};

use crate::cli::{CatalogArgs, CatalogOutput};
use crate::failure::Failure;
use crate::output;

/// Prints the instance types that match a filter.
pub(crate) fn run(args: &CatalogArgs) -> Result<(), Failure> {
    let format = match args.output {
        CatalogOutput::Table => ListingFormat::Table,
        CatalogOutput::Wide => ListingFormat::Wide,
        CatalogOutput::Json => ListingFormat::Json,
    };
    let filter = args.filter.join(" ");
    let text = listing(ListingArgs { region: &args.region, filter: &filter, format })
        .map_err(Failure::bad_input)?;
    output::data(&text);
    Ok(())
}
