//! What a request path names.

use std::borrow::Cow;

/// A parsed request path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/`: the list of paths.
    Root,
    /// `/version`.
    Version,
    /// `/healthz`, `/livez`, `/readyz` and what is below them.
    Health {
        /// `healthz`, `livez` or `readyz`.
        endpoint: &'a str,
        /// One check of it; empty for all.
        check: &'a str,
    },
    /// `/api`.
    Api,
    /// `/apis`.
    Apis,
    /// `/apis/GROUP`.
    Group(&'a str),
    /// `/api/v1` (group empty) or `/apis/GROUP/VERSION`.
    GroupVersion(&'a str, &'a str),
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiV3,
    /// `/openapi/v3/…`: one group-version, `api/v1` or `apis/apps/v1`.
    OpenApiV3Path(&'a str),
    /// `/metrics`.
    Metrics,
    /// `/wharf/v1/…`: our own endpoints, the part after `/wharf/v1/`.
    Private(&'a str),
    /// Objects.
    Resource(ResourcePath<'a>),
}

/// A path of objects: `/apis/GROUP/VERSION[/watch][/namespaces/NS]/RESOURCE[/NAME[/SUBRESOURCE]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Whether the old `/watch/` prefix is there.
    pub watch: bool,
    /// Namespace, if one is named.
    pub namespace: Option<Cow<'a, str>>,
    /// The resource, `pods`.
    pub resource: &'a str,
    /// The object's name.
    pub name: Option<Cow<'a, str>>,
    /// The subresource, `status`.
    pub subresource: Option<&'a str>,
    /// What is left after the subresource (a proxied path).
    pub rest: &'a str,
}

/// Parses a request path; `None` if it has no place in the API.
pub(crate) fn parse(path: &str) -> Option<Route<'_>> {
    let path = path.strip_prefix('/')?;
    let (first, rest) = split(path);
    match (first, rest) {
        ("", "") => Some(Route::Root),
        ("version", "") => Some(Route::Version),
        ("healthz" | "livez" | "readyz", check) => Some(Route::Health { endpoint: first, check }),
        ("metrics", "") => Some(Route::Metrics),
        ("api", "") => Some(Route::Api),
        ("apis", "") => Some(Route::Apis),
        ("openapi", "v2") => Some(Route::OpenApiV2),
        ("openapi", "v3") => Some(Route::OpenApiV3),
        ("openapi", rest) => Some(Route::OpenApiV3Path(rest.strip_prefix("v3/")?)),
        ("wharf", rest) => Some(Route::Private(rest.strip_prefix("v1/")?)),
        ("api", rest) => {
            let (version, rest) = split(rest);
            group_version("", version, rest)
        }
        ("apis", rest) => {
            let (group, rest) = split(rest);
            let (version, rest) = split(rest);
            if version.is_empty() {
                return Some(Route::Group(group));
            }
            group_version(group, version, rest)
        }
        _ => None,
    }
}

fn group_version<'a>(group: &'a str, version: &'a str, rest: &'a str) -> Option<Route<'a>> {
    if rest.is_empty() {
        return Some(Route::GroupVersion(group, version));
    }
    let mut path = ResourcePath { group, version, ..ResourcePath::default() };
    let (mut first, mut rest) = split(rest);
    if first == "watch" && !rest.is_empty() {
        path.watch = true;
        (first, rest) = split(rest);
    }
    if first == "namespaces" && group.is_empty() {
        // A namespace itself: `/namespaces/x` and its subresources are not objects within it.
        let (name, below) = split(rest);
        let (next, deeper) = split(below);
        let itself =
            next.is_empty() || (deeper.is_empty() && matches!(next, "status" | "finalize"));
        if itself {
            path.resource = first;
            path.name = (!name.is_empty()).then(|| decode(name));
            path.subresource = (!next.is_empty()).then_some(next);
            return Some(Route::Resource(path));
        }
    }
    if first == "namespaces" {
        let (namespace, below) = split(rest);
        if namespace.is_empty() || below.is_empty() {
            return None;
        }
        path.namespace = Some(decode(namespace));
        (first, rest) = split(below);
    }
    path.resource = first;
    let (name, rest) = split(rest);
    path.name = (!name.is_empty()).then(|| decode(name));
    let (subresource, rest) = split(rest);
    path.subresource = (!subresource.is_empty()).then_some(subresource);
    path.rest = rest;
    Some(Route::Resource(path))
}

/// The first segment and what follows it.
fn split(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

/// Undoes percent-encoding; a broken sequence stays as it is.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[index], hex(index + 1), hex(index + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                index += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                index += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_upstreams_do() {
        let resource = |path: &str| match parse(path) {
            Some(Route::Resource(found)) => format!(
                "{}/{} {:?} {} {:?} {:?}{}",
                found.group,
                found.version,
                found.namespace.as_deref().unwrap_or("-"),
                found.resource,
                found.name.as_deref().unwrap_or("-"),
                found.subresource.unwrap_or("-"),
                if found.watch { " watch" } else { "" },
            ),
            other => format!("{other:?}"),
        };
        let cases = [
            ("/api/v1/pods", r#"/v1 "-" pods "-" "-""#),
            ("/api/v1/namespaces", r#"/v1 "-" namespaces "-" "-""#),
            ("/api/v1/namespaces/a", r#"/v1 "-" namespaces "a" "-""#),
            ("/api/v1/namespaces/a/finalize", r#"/v1 "-" namespaces "a" "finalize""#),
            ("/api/v1/namespaces/a/pods", r#"/v1 "a" pods "-" "-""#),
            ("/api/v1/namespaces/a/pods/b/log", r#"/v1 "a" pods "b" "log""#),
            ("/api/v1/namespaces/a/bindings", r#"/v1 "a" bindings "-" "-""#),
            ("/api/v1/watch/namespaces/a/pods/b", r#"/v1 "a" pods "b" "-" watch"#),
            ("/apis/apps/v1/namespaces/a/deployments/b", r#"apps/v1 "a" deployments "b" "-""#),
            ("/apis/karpenter.sh/v1/nodepools/a%2Fb", r#"karpenter.sh/v1 "-" nodepools "a/b" "-""#),
        ];
        for (path, expected) in cases {
            assert_eq!(resource(path), expected, "{path}");
        }
        assert_eq!(parse("/apis/apps"), Some(Route::Group("apps")));
        assert_eq!(parse("/apis/apps/v1"), Some(Route::GroupVersion("apps", "v1")));
        assert_eq!(parse("/api/v1"), Some(Route::GroupVersion("", "v1")));
        assert_eq!(
            parse("/readyz/ping"),
            Some(Route::Health { endpoint: "readyz", check: "ping" })
        );
        assert_eq!(parse("/openapi/v3/apis/apps/v1"), Some(Route::OpenApiV3Path("apis/apps/v1")));
        for path in ["/nothing", "", "/apis/x/v1/namespaces/a", "/openapi/v9"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics(path in "[/a-z%0-9é]{0,60}") {
            let _ = parse(&format!("/{path}"));
            let _ = decode(&path);
        }
    }
}
