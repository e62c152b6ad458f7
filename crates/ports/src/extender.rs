//! The Extender port: questions to programs beside the scheduler as values; their answers as events.

use std::time::Duration;

/// A question to an extender: one POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtenderCall {
    /// By what the answer is known.
    pub id: u64,
    /// Which of the configured extenders, in their order: how to speak TLS with it goes with it.
    pub extender: usize,
    /// Where.
    pub url: String,
    /// How long to wait for the answer.
    pub timeout: Duration,
    /// JSON.
    pub body: String,
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtenderAnswer {
    /// The question's id.
    pub id: u64,
    /// The body, or why there is none.
    pub result: Result<String, String>,
}

/// Who asks. Every question gets one answer.
pub trait ExtenderCalls: Send {
    /// Takes a question; does not wait for the answer.
    fn call(&mut self, call: ExtenderCall);

    /// Adds the answers that have come since it was last asked.
    fn poll(&mut self, answers: &mut Vec<ExtenderAnswer>);
}
