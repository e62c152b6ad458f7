//! The wildcards of a profile's selectors: `*` stands for any characters or none, `?` for exactly
//! one. Everything else stands for itself; these are no regular expressions.

/// Whether the whole of `text` is of this pattern. Takes at most |pattern| × |text| steps, whatever
/// the pattern: it goes back only to the last `*`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut position) = (0, 0);
    // The last `*`, and how far into the text it reaches so far.
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[position] => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((star_at, reached)) = &mut star else { return false };
                *reached += 1;
                (at, position) = (*star_at + 1, *reached);
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_are_those_of_the_user_guide() {
        for (pattern, text, expected) in [
            ("value?", "valuea", true),
            ("value?", "value", false),
            ("value?", "value-a", false),
            ("prod*", "prod", true),
            ("prod*", "prod-metrics", true),
            ("prod*", "preprod", false),
            ("study-*", "study-aews", true),
            ("study-*", "study", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("*a?", "aaab", true),
            ("v.1", "vx1", false),
            ("ü?", "üä", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(200);
        assert!(!matches(&pattern, &"b".repeat(5_000)));
        assert!(!matches(&pattern, &"a".repeat(199)));
        assert!(matches(&pattern, &"a".repeat(5_000)));
    }

    /// The definition: each `*` takes any number of characters.
    fn by_definition(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|taken| by_definition(rest, &text[taken..])),
            Some((c, rest)) => text.split_first().is_some_and(|(first, tail)| {
                (*c == '?' || c == first) && by_definition(rest, tail)
            }),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,7}", text in "[ab]{0,9}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(
                matches(&pattern, &text),
                by_definition(&chars(&pattern), &chars(&text)),
            );
        }
    }
}
