//! Request options from the query string, refused as upstream refuses them.

use wharf_model::selector::{FieldSelector, Selector};
use wharf_ports::error::ApiError;
use wharf_schema::decode::FieldValidation;

use crate::path::decode;
use crate::status::{bad_request, invalid};

/// A query string as pairs, in their order.
#[derive(Clone, Debug, Default)]
pub struct Query<'a>(Vec<(std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)>);

/// The most parameters that are looked at; nothing real sends more than a dozen.
const PARAMETERS_MAX: usize = 256;

impl<'a> Query<'a> {
    /// Splits a query string.
    pub fn parse(text: &'a str) -> Self {
        let value = |text: &'a str| -> std::borrow::Cow<'a, str> {
            if text.contains('+') {
                decode(&text.replace('+', " ")).into_owned().into()
            } else {
                decode(text)
            }
        };
        Self(
            text.split('&')
                .filter(|pair| !pair.is_empty())
                .take(PARAMETERS_MAX)
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(key, text)| (value(key), value(text)))
                .collect(),
        )
    }

    /// The same query with a parameter set.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.0.retain(|(key, _)| key != name);
        self.0.push((name.into(), value.into()));
        self
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// The first value of a parameter, empty if it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of a parameter.
    pub(crate) fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// A boolean as upstream reads it: there means true, unless it says `false` or `0`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| !(value == "0" || value.eq_ignore_ascii_case("false")))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name).filter(|text| !text.is_empty()).map(parse_int).transpose()
    }
}

/// A number, with Go's words if it is none.
fn parse_int(text: &str) -> Result<i64, ApiError> {
    text.parse::<i64>().map_err(|error| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                "value out of range"
            }
            _ => "invalid syntax",
        };
        bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
    })
}

/// Which revision a list stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    /// Not said.
    Unset,
    /// Exactly the one asked for.
    Exact,
    /// The one asked for or a newer one.
    NotOlderThan,
}

/// Options of list and watch.
#[derive(Clone, Debug)]
pub(crate) struct ListOptions {
    /// Label selector.
    pub labels: Selector,
    /// Field selector, its fields not yet checked against the kind.
    pub fields: FieldSelector,
    /// Whether to watch.
    pub watch: bool,
    /// Whether bookmarks may be sent.
    pub bookmarks: bool,
    /// Whether a watch begins with the present objects and ends those with a bookmark.
    pub send_initial_events: Option<bool>,
    /// The revision, `None` if unset.
    pub resource_version: Option<u64>,
    /// How the revision is meant.
    pub version_match: VersionMatch,
    /// When a watch ends.
    pub timeout_seconds: Option<u64>,
    /// Length of a page; 0 is no limit.
    pub limit: usize,
    /// Where to carry on a list; empty at its start.
    pub continue_token: String,
}

impl ListOptions {
    /// Reads and checks the options.
    ///
    /// # Errors
    /// 400 for what cannot be read, 422 for combinations that make no sense.
    pub(crate) fn parse(query: &Query<'_>) -> Result<Self, ApiError> {
        let labels = Selector::parse(query.text("labelSelector"))
            .map_err(|error| bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(query.text("fieldSelector"))
            .map_err(|error| bad_request(error.to_string()))?;
        let resource_version = match query.text("resourceVersion") {
            "" => None,
            text => Some(text.parse::<u64>().map_err(|_| {
                invalid(
                    "",
                    "ListOptions",
                    "",
                    "FieldValueInvalid",
                    "resourceVersion",
                    &format!(
                        "Invalid value: {text:?}: resourceVersion must be a non-negative integer"
                    ),
                )
            })?),
        };
        let version_match = match query.text("resourceVersionMatch") {
            "" => VersionMatch::Unset,
            "Exact" => VersionMatch::Exact,
            "NotOlderThan" => VersionMatch::NotOlderThan,
            other => {
                return Err(list_options_invalid(
                    "FieldValueNotSupported",
                    "resourceVersionMatch",
                    &format!(
                        "Unsupported value: {other:?}: supported values: \"\", \"Exact\", \"NotOlderThan\""
                    ),
                ));
            }
        };
        let limit = query.integer("limit")?.unwrap_or(0);
        if limit < 0 {
            return Err(list_options_invalid(
                "FieldValueInvalid",
                "limit",
                &format!("Invalid value: {limit}: must be greater than or equal to 0"),
            ));
        }
        let options = Self {
            labels,
            fields,
            watch: query.flag("watch").unwrap_or(false),
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            send_initial_events: query.flag("sendInitialEvents"),
            resource_version,
            version_match,
            timeout_seconds: query
                .integer("timeoutSeconds")?
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            continue_token: query.text("continue").to_owned(),
        };
        options.check()?;
        Ok(options)
    }

    /// Combinations that upstream refuses.
    fn check(&self) -> Result<(), ApiError> {
        let forbidden = |field: &str, why: &str| {
            Err(list_options_invalid("FieldValueForbidden", field, &format!("Forbidden: {why}")))
        };
        let matched = self.version_match != VersionMatch::Unset;
        if self.watch {
            return match self.send_initial_events {
                Some(_) if self.version_match != VersionMatch::NotOlderThan => forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
                None if matched => forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ),
                _ => Ok(()),
            };
        }
        if self.send_initial_events.is_some() {
            return forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if matched && self.resource_version.is_none() {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if matched && !self.continue_token.is_empty() {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            );
        }
        if self.version_match == VersionMatch::Exact && self.resource_version == Some(0) {
            return forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
        Ok(())
    }
}

fn list_options_invalid(reason: &str, field: &str, message: &str) -> ApiError {
    invalid("meta.k8s.io", "ListOptions", "", reason, field, message)
}

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    /// Whether only to say what would happen.
    pub dry_run: bool,
    /// How unknown fields are met.
    pub field_validation: FieldValidation,
}

impl WriteOptions {
    /// Reads and checks the options; `options` is the name of the upstream type in refusals.
    ///
    /// # Errors
    /// 422 for values that do not exist.
    pub(crate) fn parse(query: &Query<'_>, options: &str) -> Result<Self, ApiError> {
        let dry_run = dry_run(query.get("dryRun"), options)?;
        let field_validation = match query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                return Err(invalid(
                    "meta.k8s.io",
                    options,
                    "",
                    "FieldValueNotSupported",
                    "fieldValidation",
                    &format!(
                        "Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
                    ),
                ));
            }
        };
        if query.text("fieldManager").chars().count() > FIELD_MANAGER_MAX {
            return Err(invalid(
                "meta.k8s.io",
                options,
                "",
                "FieldValueTooLong",
                "fieldManager",
                &format!("Too long: may not be more than {FIELD_MANAGER_MAX} bytes"),
            ));
        }
        Ok(Self { dry_run, field_validation })
    }
}

/// Longest name of a field manager, as upstream.
const FIELD_MANAGER_MAX: usize = 128;

/// Reads `dryRun`: absent, or `All`.
///
/// # Errors
/// 422 for any other value.
pub(crate) fn dry_run(value: Option<&str>, options: &str) -> Result<bool, ApiError> {
    match value {
        None | Some("") => Ok(false),
        Some("All") => Ok(true),
        Some(other) => Err(invalid(
            "meta.k8s.io",
            options,
            "",
            "FieldValueNotSupported",
            "dryRun",
            &format!("Unsupported value: {other:?}: supported values: \"All\""),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(query: &str) -> String {
        match ListOptions::parse(&Query::parse(query)) {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{} {}", error.reason.code(), error.message),
        }
    }

    #[test]
    fn options_are_refused_in_upstreams_words() {
        let cases = [
            ("", "ok"),
            ("watch=true&resourceVersion=5&allowWatchBookmarks=true", "ok"),
            ("limit=abc", "400 strconv.ParseInt: parsing \"abc\": invalid syntax"),
            (
                "resourceVersionMatch=Exact",
                "422 ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "sendInitialEvents=true",
                "422 ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
            (
                "watch=1&sendInitialEvents=true",
                "422 ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        ];
        for (query, expected) in cases {
            assert_eq!(message(query), expected, "{query}");
        }
        assert!(message("labelSelector=a%20b%20c").starts_with("400 "));
    }

    #[test]
    fn flags_and_values_are_decoded() {
        let query = Query::parse("labelSelector=app%3Dweb%2Ctier+in+(a)&watch=0&pretty");
        assert_eq!(query.text("labelSelector"), "app=web,tier in (a)");
        assert_eq!(query.flag("watch"), Some(false));
        assert_eq!(query.flag("pretty"), Some(true));
        assert_eq!(query.flag("other"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_query_panics(text in "[a-zA-Z=&%+0-9]{0,80}") {
            let query = Query::parse(&text);
            let _ = ListOptions::parse(&query);
            let _ = WriteOptions::parse(&query, "CreateOptions");
        }
    }
}
