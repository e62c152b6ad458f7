//! Which rule of a listener a request is for, and the patterns of hosts and paths.

use super::{Listener, ListenerRule};

/// The first rule that a request matches; the last one of a listener matches all.
pub fn rule<'l>(listener: &'l Listener, host: &str, path: &str) -> Option<&'l ListenerRule> {
    let host = host.to_ascii_lowercase();
    listener.rules.iter().find(|rule| {
        let of_host = rule.host.as_ref();
        of_host.is_none_or(|pattern| matches(&pattern.to_ascii_lowercase(), &host))
            && (rule.paths.is_empty() || rule.paths.iter().any(|pattern| matches(pattern, path)))
    })
}

/// Whether a text is as a pattern has it: `*` stands for any characters or none, `?` for one.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Where to go back to: behind the last star, and one character further in the text.
    let mut back: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                back = Some((at + 1, seen));
                at += 1;
            }
            Some(c) if *c == b'?' || *c == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (at, seen) = (star, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_listeners() {
        for (pattern, text, expected) in [
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a/*", "/a/", true),
            ("/a/*", "/ab", false),
            ("/img/*.p?g", "/img/x/y.png", true),
            ("/img/*.p?g", "/img/y.pg", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("", "", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_counts() {
        let rule_of = |host: Option<&str>, path: &str, group: &str| ListenerRule {
            host: host.map(str::to_owned),
            paths: vec![path.to_owned()],
            target_group: Some(group.to_owned()),
            fixed_response: None,
        };
        let listener = Listener {
            port: 80,
            protocol: "HTTP".to_owned(),
            rules: vec![
                rule_of(Some("*.shop.example"), "/*", "shop"),
                rule_of(None, "/api/*", "api"),
                ListenerRule { fixed_response: Some(404), ..ListenerRule::default() },
            ],
        };
        let group =
            |host, path| rule(&listener, host, path).and_then(|it| it.target_group.as_deref());
        assert_eq!(group("WWW.shop.example", "/api/x"), Some("shop"));
        assert_eq!(group("other", "/api/x"), Some("api"));
        assert_eq!(group("other", "/"), None);
        assert_eq!(rule(&listener, "other", "/").and_then(|it| it.fixed_response), Some(404));
    }
}
