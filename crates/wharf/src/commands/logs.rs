//! `wharf logs`: the log groups of a running lab.

use std::time::Duration;

use serde_json::{Value, json};
use wharf_model::time::Time;

use super::why::escape;
use crate::cli::{LogsArgs, Output};
use crate::client;
use crate::failure::Failure;
use crate::output;

/// Between two looks for what has come.
const FOLLOW: Duration = Duration::from_millis(500);

/// Prints the groups, or the events of one.
pub(crate) fn run(args: &LogsArgs) -> Result<(), Failure> {
    let Some(group) = &args.group else { return list(args) };
    let mut answer = events(args, group, args.since, 0)?;
    if let Some(file) = &args.export {
        let text = pretty(&filtered(&mut answer));
        std::fs::write(file, text + "\n")
            .map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
        output::progress(&format!("wrote the events of {group} into {}", file.display()));
        return Ok(());
    }
    if args.output == Output::Json {
        output::data(&pretty(&filtered(&mut answer)));
        return Ok(());
    }
    loop {
        let lines = tail(&answer);
        if !lines.is_empty() {
            output::data(&lines);
        }
        if !args.follow {
            return Ok(());
        }
        std::thread::sleep(FOLLOW);
        let last = answer["last"].as_u64().unwrap_or(0);
        answer = events(args, group, None, last)?;
    }
}

fn events(
    args: &LogsArgs,
    group: &str,
    since: Option<Duration>,
    after: u64,
) -> Result<Value, Failure> {
    let mut path = format!("/wharf/v1/logs?group={}&after={after}", escape(group));
    if let Some(stream) = &args.stream {
        path.push_str(&format!("&stream={}", escape(stream)));
    }
    if let Some(since) = since {
        path.push_str(&format!("&since={}", since.as_nanos()));
    }
    ask(args, &path)
}

fn ask(args: &LogsArgs, path: &str) -> Result<Value, Failure> {
    let answer = client::ask_well(args.lab.kubeconfig.as_deref(), "GET", path, "")?;
    serde_json::from_str(&answer).map_err(Failure::failed)
}

fn list(args: &LogsArgs) -> Result<(), Failure> {
    let described = ask(args, "/wharf/v1/logs")?;
    if args.output == Output::Json {
        output::data(&pretty(&described));
        return Ok(());
    }
    for note in described["notes"].as_array().into_iter().flatten() {
        output::progress(&format!("aws-logging: {}", note.as_str().unwrap_or_default()));
    }
    let dropped = described["dropped"].as_u64().unwrap_or(0);
    if dropped > 0 {
        output::progress(&format!("the oldest {dropped} events had to go"));
    }
    output::data(&table(&described));
    Ok(())
}

/// What CloudWatch answers to `filter-log-events`.
fn filtered(answer: &mut Value) -> Value {
    json!({"events": answer["events"].take(), "searchedLogStreams": []})
}

/// A line for each event, as `aws logs tail` prints them.
fn tail(answer: &Value) -> String {
    let mut text = String::new();
    for event in answer["events"].as_array().into_iter().flatten() {
        let at = moment(&event["timestamp"]);
        let (stream, message) = (&event["logStreamName"], &event["message"]);
        let (stream, message) = (stream.as_str(), message.as_str());
        text.push_str(&format!(
            "{at} {} {}\n",
            stream.unwrap_or_default(),
            message.unwrap_or_default()
        ));
    }
    text
}

fn moment(milliseconds: &Value) -> String {
    let nanos = milliseconds.as_i64().unwrap_or(0).saturating_mul(1_000_000);
    Time::from_nanos(nanos).timestamp().strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

fn table(described: &Value) -> String {
    let mut rows = vec![["GROUP", "STREAM", "LAST EVENT"].map(str::to_owned)];
    for group in described["logGroups"].as_array().into_iter().flatten() {
        for stream in group["logStreams"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let last = moment(&stream["lastEventTimestamp"]);
            rows.push([text(&group["logGroupName"]), text(&stream["logStreamName"]), last]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or(0));
    let line = |row: &[String; 3]| {
        let [group, stream, last] = row;
        format!("{group:<w0$}   {stream:<w1$}   {last}\n", w0 = widths[0], w1 = widths[1])
    };
    rows.iter().map(line).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_as_aws_prints_them() {
        let mut answer = json!({"last": 1, "events": [
            {"logStreamName": "s", "timestamp": 1_767_225_600_250_i64, "message": "hello"}]});
        assert_eq!(tail(&answer), "2026-01-01T00:00:00.250000+00:00 s hello\n");
        assert_eq!(filtered(&mut answer)["events"][0]["message"], "hello");
        let described = json!({"logGroups": [{"logGroupName": "/g", "logStreams": [
            {"logStreamName": "stream", "lastEventTimestamp": 1_767_225_600_250_i64}]}]});
        assert_eq!(
            table(&described),
            "GROUP   STREAM   LAST EVENT\n/g      stream   2026-01-01T00:00:00.250000+00:00\n"
        );
    }
}
