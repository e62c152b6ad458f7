//! Karpenter's log: JSON lines as `kubectl logs … | jq` readers know them.

use serde_json::{Value, json};
use wharf_model::time::Time;
use wharf_ports::controller::{Context, LogLine, Step};

/// The component whose log the lines go to.
pub(super) const COMPONENT: &str = "karpenter";
/// The build that the lines name, as upstream's name a git commit.
const COMMIT: &str = "058c665";
/// Lists in log lines show so many items.
const LISTED: usize = 5;

/// Which controller speaks, and of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// The controller's name (`nodeclaim.lifecycle`).
    pub(super) controller: &'static str,
    /// Group, kind and name of the object it works on; none for singletons.
    pub(super) object: Option<(&'static str, &'static str, &'a str)>,
}

impl<'a> Source<'a> {
    /// A controller that works on no single object.
    pub(super) fn singleton(controller: &'static str) -> Self {
        Self { controller, object: None }
    }

    /// A controller at work on a NodeClaim.
    pub(super) fn node_claim(controller: &'static str, name: &'a str) -> Self {
        Self { controller, object: Some(("karpenter.sh", "NodeClaim", name)) }
    }

    /// A controller at work on a Node.
    pub(super) fn node(controller: &'static str, name: &'a str) -> Self {
        Self { controller, object: Some(("", "Node", name)) }
    }
}

/// Adds an informational line.
pub(super) fn info(
    step: &mut Step,
    context: &mut Context<'_>,
    source: Source<'_>,
    message: &str,
    fields: &[(&str, Value)],
) {
    line(step, context, "INFO", source, message, fields);
}

/// Adds an error line.
pub(super) fn error(
    step: &mut Step,
    context: &mut Context<'_>,
    source: Source<'_>,
    message: &str,
    fields: &[(&str, Value)],
) {
    line(step, context, "ERROR", source, message, fields);
}

fn line(
    step: &mut Step,
    context: &mut Context<'_>,
    level: &str,
    source: Source<'_>,
    message: &str,
    fields: &[(&str, Value)],
) {
    // Written field by field: readers see the order, and a map would sort it.
    let mut entries = vec![
        ("level", json!(level)),
        ("time", json!(stamp(context.now))),
        ("logger", json!("controller")),
        ("message", json!(message)),
        ("commit", json!(COMMIT)),
        ("controller", json!(source.controller)),
    ];
    let (group, kind, name) = source.object.unwrap_or_default();
    if source.object.is_some() {
        entries.push(("controllerGroup", json!(group)));
        entries.push(("controllerKind", json!(kind)));
        entries.push((kind, json!({ "name": name })));
    }
    entries.push(("namespace", json!("")));
    entries.push(("name", json!(name)));
    entries.push(("reconcileID", json!(context.random.uuid())));
    entries.extend(fields.iter().cloned());
    let fields: Vec<String> =
        entries.into_iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    let line = format!("{{{}}}", fields.join(","));
    step.logs.push(LogLine { component: COMPONENT.into(), line });
}

/// RFC 3339 with milliseconds: `2025-03-08T06:53:28.780Z`.
fn stamp(time: Time) -> String {
    let millis = time.as_nanos().div_euclid(1_000_000);
    let (seconds, rest) = (millis.div_euclid(1_000), millis.rem_euclid(1_000));
    let whole = Time::from_seconds(seconds).to_string();
    format!("{}.{rest:03}Z", whole.trim_end_matches('Z'))
}

/// The first five items and how many more there are: `a, b, c, d, e and 3 other(s)`.
pub(super) fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(LISTED);
    let shown: Vec<String> = items.take(LISTED).collect();
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} other(s)") }
}

#[cfg(test)]
mod tests {
    use wharf_model::random::Random;
    use wharf_ports::view::View;

    use super::*;

    #[test]
    fn lines_have_upstreams_fields_in_upstreams_order() {
        let (view, mut random) = (View::new(), Random::new(1, 1));
        let now = Time::from_nanos(1_741_416_808_780_999_000);
        let mut context = Context { view: &view, now, random: &mut random };
        let mut step = Step::done();
        let source = Source::node_claim("nodeclaim.lifecycle", "default-x7ntc");
        info(&mut step, &mut context, source, "deleted nodeclaim", &[("provider-id", json!("p"))]);
        let line = &step.logs[0].line;
        let start = concat!(
            r#"{"level":"INFO","time":"2025-03-08T06:53:28.780Z","logger":"controller","#,
            r#""message":"deleted nodeclaim","commit":"058c665","controller":"nodeclaim.lifecycle","#,
            r#""controllerGroup":"karpenter.sh","controllerKind":"NodeClaim","#,
            r#""NodeClaim":{"name":"default-x7ntc"},"namespace":"","name":"default-x7ntc","#,
            r#""reconcileID":""#
        );
        assert!(line.starts_with(start), "{line}");
        assert!(line.ends_with(r#"","provider-id":"p"}"#), "{line}");
    }

    #[test]
    fn long_lists_are_cut() {
        let items = |count: usize| (0..count).map(|item| item.to_string());
        assert_eq!(list(items(5)), "0, 1, 2, 3, 4");
        assert_eq!(list(items(7)), "0, 1, 2, 3, 4 and 2 other(s)");
    }
}
