//! `wharf token`.

use crate::cli::TokenArgs;
use crate::client;
use crate::failure::Failure;
use crate::output;

/// Prints a bearer token for the running lab.
pub(crate) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let path = format!("/wharf/v1/token?ttlSeconds={}", args.ttl.as_secs());
    output::data(&client::ask_well(args.lab.kubeconfig.as_deref(), "POST", &path, "")?);
    Ok(())
}
