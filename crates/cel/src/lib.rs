//! The Common Expression Language (<https://github.com/google/cel-spec>) as Kubernetes' selectors
//! use it: operators, macros, strings, and Kubernetes' quantities and semantic versions.
//!
//! An expression is parsed once ([`Expression::parse`]) and evaluated any number of times against
//! variables ([`Expression::evaluate`]). It comes from users: its length and depth are limited when
//! it is parsed, the work it does when it is evaluated, and nothing in here panics. Types are
//! checked while evaluating, not before. Not known are bytes, times and durations, protocol buffer
//! messages and optional values; what is not known is an error that names it.

mod eval;
mod functions;
mod lexer;
mod parser;
mod value;
mod version;

pub use eval::EvalError;
pub use parser::ParseError;
pub use value::{Key, Map, Value};
pub use version::Version;

use std::collections::BTreeMap;

/// The longest expression, in bytes; Kubernetes has the same limit for device selectors.
pub const LENGTH_MAX: usize = 10 * 1024;
/// The work one evaluation may do if nothing else is asked for; a step is an operation, or eight
/// bytes of text or elements of a list looked at.
pub const COST_MAX: u64 = 1_000_000;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Expression {
    root: parser::Expr,
}

/// The variables of an evaluation, by name.
pub type Variables = BTreeMap<String, Value>;

impl Expression {
    /// Parses an expression.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self { root: parser::parse(text)? })
    }

    /// The value for these variables, within [`COST_MAX`].
    pub fn evaluate(&self, variables: &Variables) -> Result<Value, EvalError> {
        self.evaluate_within(variables, &mut COST_MAX.clone())
    }

    /// The same within a limit, from which the work done is taken off.
    pub fn evaluate_within(
        &self,
        variables: &Variables,
        cost: &mut u64,
    ) -> Result<Value, EvalError> {
        eval::evaluate(&self.root, variables, cost)
    }
}

#[cfg(test)]
mod tests;
