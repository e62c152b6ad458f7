//! `wharf why`.

use wharf_sim::scenario::Target;

use crate::cli::{Output, WhyArgs};
use crate::client;
use crate::failure::Failure;
use crate::output;

/// Prints what was decided about an object, and why.
pub(crate) fn run(args: &WhyArgs) -> Result<(), Failure> {
    let target = Target::parse(&args.object, Some(&args.namespace)).map_err(Failure::bad_input)?;
    let format = if args.output == Output::Json { "json" } else { "text" };
    let path = format!(
        "/wharf/v1/why?object={}/{}&namespace={}&output={format}&nodes={}",
        target.kind.singular,
        escape(&target.key.name),
        escape(&args.namespace),
        if args.nodes { "all" } else { "groups" }
    );
    output::data(&client::ask_well(args.lab.kubeconfig.as_deref(), "GET", &path, "")?);
    Ok(())
}

/// Percent-encodes what may not stand in a query. Names of objects need none of it; typos may.
pub(crate) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}
