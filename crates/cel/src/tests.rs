//! Tables of expressions with their outcomes, and what no expression may do.

use std::sync::Arc;

use proptest::prelude::*;
use wharf_model::quantity::Quantity;

use super::*;

/// A device as selectors see it.
fn device() -> Variables {
    let attributes = Value::map([
        ("model".to_owned(), Value::text("LATEST-GPU-MODEL")),
        ("cores".to_owned(), Value::Int(8)),
        ("healthy".to_owned(), Value::Bool(true)),
        ("driverVersion".to_owned(), Value::Version("1.10.2".parse().unwrap())),
    ]);
    let memory = Value::Quantity(Quantity::parse("64Gi").unwrap());
    let domains = |domain: Value| {
        let entries = [(Key::String("gpu.example.com".into()), domain)].into();
        let otherwise = Some(Value::Map(Arc::default()));
        Value::Map(Arc::new(Map { entries, otherwise }))
    };
    let device = Value::map([
        ("driver".to_owned(), Value::text("gpu.example.com")),
        ("attributes".to_owned(), domains(attributes)),
        ("capacity".to_owned(), domains(Value::map([("memory".to_owned(), memory)]))),
    ]);
    [("device".to_owned(), device)].into()
}

/// What becomes of an expression: its value as `string()` would show it, or its error.
fn outcome(text: &str) -> String {
    let expression = match Expression::parse(text) {
        Ok(expression) => expression,
        Err(error) => return error.to_string(),
    };
    match expression.evaluate(&device()) {
        Ok(Value::Bool(value)) => value.to_string(),
        Ok(Value::Int(value)) => value.to_string(),
        Ok(Value::Uint(value)) => format!("{value}u"),
        Ok(Value::Double(value)) => format!("{value:?}"),
        Ok(Value::String(value)) => format!("{value:?}"),
        Ok(Value::Null) => "null".to_owned(),
        Ok(Value::List(items)) => format!("a list of {}", items.len()),
        Ok(other) => other.type_name().to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn device_selectors_say_which_devices_they_mean() {
    for (selector, expected) in [
        (r#"device.driver == "gpu.example.com""#, "true"),
        (
            r#"device.driver == "gpu.example.com" && device.attributes["gpu.example.com"].model == "LATEST-GPU-MODEL" && device.capacity["gpu.example.com"].memory.compareTo(quantity("1Gi")) >= 0"#,
            "true",
        ),
        (r#"device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("64Gi"))"#, "false"),
        (r#"device.attributes["gpu.example.com"].cores in [4, 8]"#, "true"),
        (r#"device.attributes["other.example.com"].model == "x""#, "no such key: model"),
        (r#"has(device.attributes["other.example.com"].model)"#, "false"),
        (
            r#"has(device.attributes["other.example.com"].model) && device.attributes["other.example.com"].model == "x""#,
            "false",
        ),
        (r#""other.example.com" in device.attributes"#, "false"),
        (
            r#"device.attributes["gpu.example.com"].driverVersion.isGreaterThan(semver("1.9.0"))"#,
            "true",
        ),
        (r#"device.attributes["gpu.example.com"].driverVersion.minor()"#, "10"),
        (
            r#"device.attributes["gpu.example.com"].model.lowerAscii().matches("^latest-.*")"#,
            "true",
        ),
        ("devise.driver == 'x'", "undeclared reference to 'devise'"),
        ("device.colour", "no such key: colour"),
        ("frobnicate(1)", "unknown function 'frobnicate'"),
        ("device.driver.frobnicate()", "no such overload: frobnicate(string)"),
    ] {
        assert_eq!(outcome(selector), expected, "{selector}");
    }
}

#[test]
fn operators_follow_the_specification() {
    for (text, expected) in [
        ("1 + 2 * 3 - 4 / 2 % 2", "7"),
        ("(1 + 2) * 3", "9"),
        ("-7 / 2", "-3"),
        ("-7 % 2", "-1"),
        ("- -3", "3"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1 / 0", "division by zero"),
        ("1.0 / 0.0 > 1.0", "true"),
        ("2u + 3u", "5u"),
        ("1 + 2u", "no such overload: +(int, uint)"),
        ("1 == 1u && 1.0 == 1 && 1u < 1.5", "true"),
        ("'a' + \"b\" == 'ab'", "true"),
        (r"r'\n'.size() == 2 && '\n\x41\u00e9\101'.size() == 4", "true"),
        ("'''a\nb'''.size()", "3"),
        ("'a' < 1", "no such overload: <(string, int)"),
        ("'a' == 1", "false"),
        ("[1, 2] + [3] == [1, 2, 3]", "true"),
        ("{'a': 1}.a + {'b': 2}['b']", "3"),
        ("{'a': 1, 'a': 2}", "insert failed: key a already exists"),
        ("[1][1]", "index out of bounds: 1"),
        ("true ? 1 : 2", "1"),
        ("false ? 1 : true ? 2 : 3", "2"),
        ("!!true", "true"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 && true", "division by zero"),
        ("1 && true", "no such overload: &&(int)"),
        ("0x1F // a comment", "31"),
        ("1e3", "1000.0"),
    ] {
        assert_eq!(outcome(text), expected, "{text}");
    }
}

#[test]
fn macros_and_functions_do_what_they_say() {
    for (text, expected) in [
        ("[1, 2, 3].all(x, x > 0)", "true"),
        ("[1, 2, 3].exists(x, x == 2)", "true"),
        ("[1, 2, 2].exists_one(x, x == 2)", "false"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[1, 2, 3].filter(x, x % 2 == 1).size()", "2"),
        ("[1, 2, 3].map(x, x * x).sum()", "14"),
        ("[1, 2, 3].map(x, x > 1, x * x).max()", "9"),
        ("{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])", "true"),
        ("[1, 2].all(x, [3, 4].all(y, x < y))", "true"),
        ("size('é') == 1 && 'abc'.substring(1, 2) == 'b'", "true"),
        ("'a,b'.split(',').size()", "2"),
        ("int('12') + int(3.9) + int(2u)", "17"),
        ("int('x')", "\"x\" is not an int"),
        ("uint(-1)", "integer overflow"),
        ("string(1) + string(true)", "\"1true\""),
        ("quantity('1Gi').add(quantity('1Gi')).isGreaterThan(quantity('1.5Gi'))", "true"),
        ("quantity('1500m').isInteger()", "false"),
        ("quantity('2k').asInteger()", "2000"),
        ("isQuantity('x') || isSemver('1.2')", "false"),
        ("semver('1.0.0-rc.1').compareTo(semver('1.0.0'))", "-1"),
        ("'a'.matches('(')", "pattern: regex parse error:\n    (\n    ^\nerror: unclosed group"),
    ] {
        assert_eq!(outcome(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_expression_says_where_and_why() {
    let deep = format!("{}1{}", "(".repeat(200), ")".repeat(200));
    let chain = format!("a{}", ".b".repeat(1000));
    let long = " ".repeat(LENGTH_MAX + 1);
    for (text, expected) in [
        ("", "at byte 0: the expression ends too soon"),
        ("1 +", "at byte 3: the expression ends too soon"),
        ("1 2", "at byte 2: an operator or the end was expected"),
        ("(1", "at byte 2: \")\" was expected"),
        ("'a", "at byte 0: a text without end"),
        ("a.1", "at byte 1: an operator or the end was expected"),
        ("for", "at byte 0: \"for\" is a reserved word"),
        ("has(a)", "at byte 6: has() takes one member access, such as has(a.b)"),
        ("[].all(1, true)", "at byte 15: the first argument of all() is to be a name"),
        ("1 # 2", "at byte 2: unexpected '#'"),
        ("99999999999999999999", "at byte 0: a number that does not fit 64 bits"),
        (deep.as_str(), "at byte 40: brackets nest deeper than 40 levels"),
        (chain.as_str(), "at byte 401: the expression is deeper than 200 levels"),
        (long.as_str(), "at byte 10240: the expression is longer than 10240 bytes"),
    ] {
        assert_eq!(outcome(text), expected, "{}", &text[..text.len().min(40)]);
    }
}

#[test]
fn work_is_limited() {
    let items: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let list = format!("[{}]", items.join(","));
    let cubed = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c >= 0)))");
    assert_eq!(outcome(&cubed), "operation cancelled: actual cost limit exceeded");
    let doubled =
        "['aaaaaaaaaaaaaaaa']".to_owned() + &".map(x, x + x + x + x + x + x + x + x)".repeat(12);
    assert_eq!(outcome(&doubled), "operation cancelled: actual cost limit exceeded");
}

proptest! {
    /// Whatever the text, there is an answer.
    #[test]
    fn no_text_panics(text in ".{0,60}") {
        outcome(&text);
    }

    /// The same for texts that look like expressions.
    #[test]
    fn no_expression_panics(
        words in prop::collection::vec(prop::sample::select(vec![
            "device", ".", "driver", "attributes", "[", "]", "(", ")", "{", "}", ",", ":", "?",
            "'a'", "'gpu.example.com'", "1", "2u", "0.5", "-", "!", "&&", "||", "==", "<", "in",
            "+", "*", "/", "%", "x", "all", "map", "has", "size", "quantity", "matches", "split",
            "-9223372036854775808", "18446744073709551615u", "1e308", "substring", "replace",
        ]), 0..40),
    ) {
        outcome(&words.join(" "));
        outcome(&words.concat());
    }

    /// Whole numbers are added, compared and printed as numbers are.
    #[test]
    fn arithmetic_agrees_with_ours(a in any::<i64>(), b in any::<i64>()) {
        let sum = a.checked_add(b).map_or("integer overflow".to_owned(), |sum| sum.to_string());
        prop_assert_eq!(outcome(&format!("({a}) + ({b})")), sum);
        prop_assert_eq!(outcome(&format!("({a}) < ({b})")), (a < b).to_string());
    }
}
