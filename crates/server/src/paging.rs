//! Lists at one revision in pages: the continue token, and the choice of the revision.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use compact_str::ToCompactString as _;
use serde::{Deserialize, Serialize};
use wharf_model::object::{ObjectKey, Revision};
use wharf_ports::error::{ApiError, Cause, StatusReason};

use crate::query::{ListOptions, VersionMatch};
use crate::status::bad_request;

/// Where a list begins and at which revision it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// The revision; `None` is now.
    pub at: Option<Revision>,
    /// The last key of the page before.
    pub after: Option<ObjectKey>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// The token that carries a list on after `key`; with `at` of `None` from whatever there is then.
pub(crate) fn token(at: Option<Revision>, key: &ObjectKey) -> String {
    let token = Token {
        v: TOKEN_VERSION.to_owned(),
        rv: at.map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX)),
        start: key.to_string(),
    };
    // Plain strings and a number always encode.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("a token always encodes as JSON"))
}

/// Where the list that `options` ask for begins. `current` is the store's revision.
///
/// # Errors
/// 400 for a token that is not ours, 504 for a revision that has not been reached.
pub(crate) fn start(options: &ListOptions, current: Revision) -> Result<Start, ApiError> {
    if !options.continue_token.is_empty() {
        if options.resource_version.is_some_and(|version| version > 0) {
            return Err(bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        return parse(&options.continue_token);
    }
    let at = match options.resource_version {
        None | Some(0) => None,
        Some(version) => {
            reached(version, current)?;
            let exact = match options.version_match {
                VersionMatch::Exact => true,
                VersionMatch::NotOlderThan => false,
                // The rule from before there was a choice: pages stand at the revision asked for.
                VersionMatch::Unset => options.limit > 0,
            };
            exact.then_some(version)
        }
    };
    Ok(Start { at, after: None })
}

fn parse(text: &str) -> Result<Start, ApiError> {
    let invalid = |why: &str| bad_request(format!("continue key is not valid: {why}"));
    let bytes = URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|error| invalid(&error.to_string()))?;
    let token: Token =
        serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
    if token.v != TOKEN_VERSION {
        return Err(invalid(&format!(
            "server does not recognize this encoded version {:?}",
            token.v
        )));
    }
    if token.rv == 0 {
        return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
    }
    let (namespace, name) = token.start.split_once('/').unwrap_or(("", &token.start));
    if name.is_empty() {
        return Err(invalid("incorrect encoded start key"));
    }
    Ok(Start {
        at: Revision::try_from(token.rv).ok(),
        after: Some(ObjectKey {
            namespace: namespace.to_compact_string(),
            name: name.to_compact_string(),
        }),
    })
}

/// 504 if a revision lies in the future: the client has seen another server's history.
///
/// # Errors
/// Only then.
pub(crate) fn reached(version: Revision, current: Revision) -> Result<(), ApiError> {
    if version <= current {
        return Ok(());
    }
    let message = format!("Too large resource version: {version}, current: {current}");
    let mut error = ApiError::new(StatusReason::Timeout, message);
    error.causes = vec![Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    }];
    error.retry_after_seconds = Some(1);
    Err(error)
}

/// 410 for a list that can be carried on only inconsistently.
pub(crate) fn expired_continue() -> ApiError {
    ApiError::new(
        StatusReason::Expired,
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    )
}

/// 410 for a revision that is no longer held.
pub(crate) fn expired() -> ApiError {
    ApiError::new(StatusReason::Expired, "The resourceVersion for the provided list is too old.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;

    fn options(query: &str) -> ListOptions {
        ListOptions::parse(&Query::parse(query)).expect("valid options")
    }

    #[test]
    fn a_token_leads_back_to_its_key() {
        for key in [ObjectKey::cluster("a"), ObjectKey::namespaced("n", "a.b-c")] {
            for at in [Some(7), None] {
                let query = format!("limit=1&continue={}", token(at, &key));
                let start = start(&options(&query), 9).expect("ours");
                assert_eq!(start, Start { at, after: Some(key.clone()) });
            }
        }
        for rubbish in ["%21", "abc", "e30"] {
            let error = start(&options(&format!("continue={rubbish}")), 9).expect_err("rubbish");
            assert!(error.message.starts_with("continue key is not valid: "), "{error}");
        }
    }

    #[test]
    fn the_revision_follows_the_match() {
        let at = |query: &str| start(&options(query), 9).map(|start| start.at);
        assert_eq!(at(""), Ok(None));
        assert_eq!(at("resourceVersion=0"), Ok(None));
        assert_eq!(at("resourceVersion=5"), Ok(None));
        assert_eq!(at("resourceVersion=5&limit=2"), Ok(Some(5)));
        assert_eq!(at("resourceVersion=5&resourceVersionMatch=Exact"), Ok(Some(5)));
        assert_eq!(at("resourceVersion=5&limit=2&resourceVersionMatch=NotOlderThan"), Ok(None));
        assert_eq!(at("resourceVersion=10").expect_err("future").reason.code(), 504);
    }
}
