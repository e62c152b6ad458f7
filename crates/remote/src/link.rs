//! What is said of the connection: one line when it is lost and one when all is followed again,
//! however many kinds there are. A watch that breaks and is taken up at once is nobody's concern.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use wharf_model::kinds::Kind;

use crate::Log;

/// The connection as all reflectors see it.
pub(crate) struct Link {
    log: Log,
    /// The kinds that cannot be followed for want of an answer.
    without: Mutex<BTreeSet<Kind>>,
}

impl Link {
    pub(crate) fn new(log: Log) -> Self {
        Self { log, without: Mutex::default() }
    }

    /// There was no answer about a kind.
    pub(crate) fn lost(&self, kind: Kind, why: &str) {
        let mut without = self.without.lock();
        if without.is_empty() {
            (self.log)(format!("the API server does not answer ({why}); trying again"));
        }
        without.insert(kind);
    }

    /// There was an answer about a kind.
    pub(crate) fn answers(&self, kind: Kind) {
        let mut without = self.without.lock();
        if without.remove(&kind) && without.is_empty() {
            (self.log)("the API server answers again".to_owned());
        }
    }

    /// Says something else.
    pub(crate) fn say(&self, line: String) {
        (self.log)(line);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;

    #[test]
    fn an_outage_is_told_once_and_its_end_too() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let link = Link::new({
            let lines = Arc::clone(&lines);
            Arc::new(move |line| lines.lock().push(line))
        });
        let (pods, nodes) = (Kind::of::<Pod>(), Kind::of::<Node>());
        link.answers(pods);
        link.lost(pods, "refused");
        link.lost(nodes, "refused");
        link.lost(pods, "refused");
        link.answers(nodes);
        link.answers(nodes);
        link.answers(pods);
        assert_eq!(
            *lines.lock(),
            [
                "the API server does not answer (refused); trying again",
                "the API server answers again"
            ]
        );
    }
}
