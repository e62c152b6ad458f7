//! What the verbs do, one file each.

pub(crate) mod bench;
pub(crate) mod catalog;
pub(crate) mod clock;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod run;
pub(crate) mod simulate;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod why;

use wharf_scheduler::config::Configuration;
use wharf_sim::world::{Controllers, chosen_controllers};

use crate::failure::Failure;
use crate::lab::REGION_DEFAULT;

/// The controllers that a flag names, all of which there must be.
fn controllers(names: &str) -> Result<Controllers, Failure> {
    let choice = Controllers::named(names);
    chosen_controllers(REGION_DEFAULT, &choice, Configuration::default())
        .map_err(|error| Failure::bad_input(format!("{error}, all and none")))?;
    Ok(choice)
}
