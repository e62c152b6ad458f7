//! What selectors say of devices, remembered: a device's facts never change within its slice, so a
//! selector is evaluated once for each device, however many pods and nodes ask.
//!
//! Nothing is decided here: without it every answer would be the same, only later.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustc_hash::FxHashMap;
use wharf_cel::{Value, Variables};

use super::objects::Parsed;

/// The selectors of which a slice remembers the answers; beyond, all are forgotten.
const SELECTORS_MAX: usize = 64;

/// The answers of selectors about the devices of one slice.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    known: Mutex<FxHashMap<usize, Arc<Column>>>,
}

/// One selector's answers.
#[derive(Debug)]
pub(crate) struct Column {
    /// Kept here, so that no other selector can have its address.
    selector: Parsed,
    answers: Box<[OnceLock<Answer>]>,
}

/// Whether a device fits, or why that cannot be said.
type Answer = Result<bool, String>;

impl Answers {
    /// The answers of a selector about so many devices.
    pub(super) fn of(&self, selector: &Parsed, devices: usize) -> Arc<Column> {
        // Answers stay answers, whoever panicked while holding them.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::as_ptr(selector).addr();
        if let Some(column) = known.get(&key) {
            return Arc::clone(column);
        }
        if known.len() >= SELECTORS_MAX {
            known.clear();
        }
        let answers = (0..devices).map(|_| OnceLock::new()).collect();
        let column = Arc::new(Column { selector: Arc::clone(selector), answers });
        known.insert(key, Arc::clone(&column));
        column
    }
}

/// A copy has yet to find its answers.
impl Clone for Answers {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Column {
    /// What the selector says of the device at a place of the slice.
    pub(super) fn at(&self, place: usize, variables: &Variables) -> Result<bool, &str> {
        let answer = self.answers[place].get_or_init(|| evaluate(&self.selector, variables));
        answer.as_ref().map(|fits| *fits).map_err(String::as_str)
    }
}

fn evaluate(selector: &Parsed, variables: &Variables) -> Answer {
    let expression = match &**selector {
        Ok(expression) => expression,
        Err(error) => return Err(error.clone()),
    };
    match expression.evaluate(variables) {
        Ok(Value::Bool(fits)) => Ok(fits),
        Ok(other) => Err(format!("it gives a {} where a bool is needed", other.type_name())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use wharf_cel::Expression;

    use super::*;

    fn selector(text: &str) -> Parsed {
        Arc::new(Expression::parse(text).map_err(|error| error.to_string()))
    }

    fn variables(driver: &str) -> Variables {
        let device = Value::map([("driver".to_owned(), Value::text(driver))]);
        [("device".to_owned(), device)].into()
    }

    #[test]
    fn a_selector_is_evaluated_once_for_each_device() {
        let answers = Answers::default();
        let is_a = selector("device.driver == \"a\"");
        assert_eq!(answers.of(&is_a, 2).at(0, &variables("a")), Ok(true));
        assert_eq!(answers.of(&is_a, 2).at(1, &variables("b")), Ok(false));
        assert_eq!(answers.of(&is_a, 2).at(0, &variables("b")), Ok(true), "it is remembered");
        let other = selector("device.driver == \"a\"");
        assert_eq!(answers.of(&other, 2).at(0, &variables("b")), Ok(false), "another asks anew");
    }

    #[test]
    fn what_fails_fails_again() {
        let answers = Answers::default();
        for text in ["device.nothing", "device.driver", "device ==="] {
            let selector = selector(text);
            let first = answers.of(&selector, 1).at(0, &variables("a")).map_err(str::to_owned);
            assert!(first.is_err(), "{text}: {first:?}");
            let again = answers.of(&selector, 1).at(0, &variables("a")).map_err(str::to_owned);
            assert_eq!(again, first);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let answers = Answers::default();
        for number in 0..3 * SELECTORS_MAX {
            answers.of(&selector(&format!("{number} == 0")), 1);
            assert!(answers.known.lock().expect("nobody panicked").len() <= SELECTORS_MAX);
        }
    }
}
