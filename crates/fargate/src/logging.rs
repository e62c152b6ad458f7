//! Whether what a pod's containers print is collected: the ConfigMap `aws-logging` in the namespace
//! `aws-observability`, as the built-in router of Fluent Bit takes it.
//!
//! The map is looked at when a pod comes; pods that are there keep what they had. What AWS allows in it
//! is less than what Fluent Bit knows. Only one text of its refusals is known (that of an unsupported
//! plugin); the others are worded alike.
//! <https://docs.aws.amazon.com/eks/latest/userguide/fargate-logging.html>

use std::collections::BTreeMap;

/// The namespace of the map.
pub const NAMESPACE: &str = "aws-observability";
/// The map's name.
pub const CONFIG_MAP: &str = "aws-logging";
/// The label that the namespace has to have, with the value `enabled`.
pub const NAMESPACE_LABEL: &str = "aws-observability";
/// So many characters may the map hold.
pub const CHARACTERS_MAX: usize = 5_300;

const OUTPUT_KEY: &str = "output.conf";
const OWN_LOG_KEY: &str = "flb_log_cw";
const OUTPUTS: [&str; 6] =
    ["cloudwatch", "cloudwatch_logs", "es", "firehose", "kinesis_firehose", "kinesis"];
const FILTERS: [&str; 8] = [
    "grep",
    "kubernetes",
    "modify",
    "nest",
    "parser",
    "record_modifier",
    "rewrite_tag",
    "throttle",
];
/// What the filter `kubernetes` must not be told, since the router knows it.
const FORBIDDEN_OF_KUBERNETES: [&str; 4] =
    ["Kube_URL", "Kube_CA_File", "Kube_Token_Command", "Kube_Token_File"];

/// One section of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The plugin (`cloudwatch_logs`), or a parser's name.
    pub name: String,
    /// What it is told, in order. Keys compare without regard to case.
    pub entries: Vec<(String, String)>,
}

impl Section {
    /// What it is told under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut entries = self.entries.iter();
        entries.find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }
}

/// How output is collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// Where it goes.
    pub outputs: Vec<Section>,
    /// What is done with it on the way.
    pub filters: Vec<Section>,
    /// How lines are read.
    pub parsers: Vec<Section>,
    /// Whether the router's own log is collected too.
    pub ships_own_log: bool,
}

/// Why output is not collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disabled {
    /// There is no map, or none in a namespace of the right label.
    NotFound,
    /// The map is wrong.
    Invalid(Invalid),
}

/// What is wrong with a map; displays as the event's detail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Too many characters.
    #[error("configmap has {0} characters, the limit is {CHARACTERS_MAX}")]
    TooLong(usize),
    /// Nothing says where output goes.
    #[error("{OUTPUT_KEY} must have at least one [OUTPUT] section")]
    NoOutput,
    /// A plugin that the router does not have.
    #[error("{name} is not a supported {kind} plugin")]
    Plugin {
        /// The plugin.
        name: String,
        /// `output` or `filter`.
        kind: &'static str,
    },
    /// A section that is not for this key.
    #[error("[{section}] is not supported in {key}")]
    Section {
        /// The section's name.
        section: String,
        /// The key.
        key: &'static str,
    },
    /// A section lacks an entry.
    #[error("[{section}] in {key} needs {entry}")]
    Missing {
        /// The section's name.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// What is missing.
        entry: &'static str,
    },
    /// An entry that must not be there.
    #[error("{entry} is not supported in the kubernetes filter")]
    Forbidden {
        /// The entry.
        entry: &'static str,
    },
    /// A reference to the environment.
    #[error("environment variables are not supported, {key} has {reference}")]
    Environment {
        /// The key.
        key: &'static str,
        /// The reference, `${NAME}`.
        reference: String,
    },
    /// A line that is neither a section nor an entry, or stands at the wrong depth.
    #[error("{key} line {line}: {what}")]
    Syntax {
        /// The key.
        key: &'static str,
        /// The line, the first is 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A flag that is neither.
    #[error("{OWN_LOG_KEY} must be \"true\" or \"false\"")]
    Flag,
}

/// The reason and message of the event that a pod gets, and whether it is a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `LoggingEnabled` or `LoggingDisabled`.
    pub reason: &'static str,
    /// The event's text.
    pub message: String,
    /// What the pod's annotation says.
    pub annotation: String,
    /// Whether the event is a warning.
    pub is_warning: bool,
}

/// What a pod is told of its logging.
pub fn told(logging: &Result<Logging, Disabled>) -> Told {
    let (message, code) = match logging {
        Ok(_) => {
            return Told {
                reason: "LoggingEnabled",
                message: "Successfully enabled logging for pod".to_owned(),
                annotation: "LoggingEnabled".to_owned(),
                is_warning: false,
            };
        }
        Err(Disabled::NotFound) => (
            format!(
                "Disabled logging because {CONFIG_MAP} configmap was not found. configmap \"{CONFIG_MAP}\" not found"
            ),
            "LOGGING_CONFIGMAP_NOT_FOUND",
        ),
        Err(Disabled::Invalid(invalid)) => (
            format!(
                "Disabled logging for pod due to invalid configmap. {invalid}. Please fix the logging configmap"
            ),
            // The code is not published.
            "LOGGING_CONFIGMAP_INVALID",
        ),
    };
    Told {
        reason: "LoggingDisabled",
        message,
        annotation: format!("LoggingDisabled: {code}"),
        is_warning: true,
    }
}

/// Reads a map's data.
///
/// # Errors
/// The first thing that is wrong with it, in the order of the keys here.
pub fn read(data: &BTreeMap<String, String>) -> Result<Logging, Invalid> {
    let characters: usize = data.values().map(|text| text.chars().count()).sum();
    if characters > CHARACTERS_MAX {
        return Err(Invalid::TooLong(characters));
    }
    let text = |key: &str| data.get(key).map_or("", String::as_str);
    let part = |of: &'static Part| of.read(text(of.key));
    let logging = Logging {
        outputs: part(&Part::OUTPUT)?,
        filters: part(&Part::FILTER)?,
        parsers: part(&Part::PARSER)?,
        ships_own_log: match text(OWN_LOG_KEY).trim() {
            "true" => true,
            "" | "false" => false,
            _ => return Err(Invalid::Flag),
        },
    };
    if logging.outputs.is_empty() { Err(Invalid::NoOutput) } else { Ok(logging) }
}

/// What one key of the map may hold.
struct Part {
    key: &'static str,
    section: &'static str,
    kind: &'static str,
    /// The plugins there are; none where any name will do.
    plugins: &'static [&'static str],
    needs: [&'static str; 2],
}

impl Part {
    const OUTPUT: Self = Self {
        key: OUTPUT_KEY,
        section: "OUTPUT",
        kind: "output",
        plugins: &OUTPUTS,
        needs: ["Name", "Match"],
    };
    const FILTER: Self = Self {
        key: "filters.conf",
        section: "FILTER",
        kind: "filter",
        plugins: &FILTERS,
        needs: ["Name", "Match"],
    };
    const PARSER: Self = Self {
        key: "parsers.conf",
        section: "PARSER",
        kind: "parser",
        plugins: &[],
        needs: ["Name", "Format"],
    };

    fn read(&self, text: &str) -> Result<Vec<Section>, Invalid> {
        if let Some(reference) = environment(text) {
            return Err(Invalid::Environment { key: self.key, reference });
        }
        let mut sections: Vec<Section> = Vec::new();
        // How far the first section, and the entries of the present one, are indented.
        let mut depth: Option<usize> = None;
        for (index, line) in text.lines().enumerate() {
            let wrong = |what| Err(Invalid::Syntax { key: self.key, line: index + 1, what });
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let indented = line.len() - line.trim_start().len();
            if let Some(name) = trimmed.strip_prefix('[') {
                let Some(name) = name.strip_suffix(']') else {
                    return wrong("a section ends in ]");
                };
                if *depth.get_or_insert(indented) != indented {
                    return wrong("all sections are indented alike");
                }
                if !name.eq_ignore_ascii_case(self.section) {
                    let section = name.to_owned();
                    return Err(Invalid::Section { section, key: self.key });
                }
                sections.push(Section { name: String::new(), entries: Vec::new() });
                continue;
            }
            let Some(section) = sections.last_mut() else {
                return wrong("an entry stands in a section");
            };
            if depth.is_some_and(|depth| indented <= depth) {
                return wrong("entries are indented deeper than their section");
            }
            let Some((key, value)) = trimmed.split_once(char::is_whitespace) else {
                return wrong("an entry has a key and a value");
            };
            section.entries.push((key.to_owned(), value.trim().to_owned()));
        }
        for section in &mut sections {
            self.check(section)?;
        }
        Ok(sections)
    }

    fn check(&self, section: &mut Section) -> Result<(), Invalid> {
        for entry in self.needs {
            if section.get(entry).is_none() {
                return Err(Invalid::Missing { section: self.section, key: self.key, entry });
            }
        }
        section.name = section.get("Name").unwrap_or_default().to_owned();
        let known = |name: &&&str| name.eq_ignore_ascii_case(&section.name);
        if !self.plugins.is_empty() && self.plugins.iter().find(known).is_none() {
            return Err(Invalid::Plugin { name: section.name.clone(), kind: self.kind });
        }
        if self.section == Self::FILTER.section && section.name.eq_ignore_ascii_case("kubernetes") {
            let told = |entry: &&&'static str| section.get(entry).is_some();
            if let Some(entry) = FORBIDDEN_OF_KUBERNETES.iter().find(told) {
                return Err(Invalid::Forbidden { entry });
            }
        }
        Ok(())
    }
}

/// The first reference to the environment, `${NAME}`.
fn environment(text: &str) -> Option<String> {
    let from = text.find("${")?;
    let rest = &text[from..];
    Some(rest[..rest.find('}').map_or(rest.len(), |end| end + 1)].lines().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUTPUT: &str = "[OUTPUT]\n    Name cloudwatch_logs\n    Match *\n    region ap-northeast-2\n    log_group_name /fargate-serverless/fargate-fluentbit-logs\n    log_stream_prefix fargate-logs-\n";

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn the_blueprints_map_is_read() {
        let filters = "[FILTER]\n    Name parser\n    Match *\n    Key_name log\n    Parser crio\n[FILTER]\n    Name kubernetes\n    Match kube.*\n    Merge_Log On\n    Buffer_Size 0\n";
        let parsers = "[PARSER]\n    Name crio\n    Format Regex\n    Regex ^(?<time>[^ ]+) (?<stream>stdout|stderr) (?<logtag>P|F) (?<log>.*)$\n";
        let data = map(&[
            ("flb_log_cw", "true"),
            ("output.conf", OUTPUT),
            ("filters.conf", filters),
            ("parsers.conf", parsers),
        ]);
        let logging = read(&data).expect("a valid map");
        assert!(logging.ships_own_log);
        assert_eq!(logging.outputs[0].name, "cloudwatch_logs");
        assert_eq!(logging.outputs[0].get("LOG_STREAM_PREFIX"), Some("fargate-logs-"));
        assert_eq!(logging.filters.len(), 2);
        assert_eq!(logging.parsers[0].get("format"), Some("Regex"));
        let enabled = told(&Ok(logging));
        assert_eq!(
            (enabled.reason, enabled.annotation.as_str()),
            ("LoggingEnabled", "LoggingEnabled")
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let output = |text: &str| vec![("output.conf", text.to_owned())];
        let more =
            |key, text: &str| vec![("output.conf", OUTPUT.to_owned()), (key, text.to_owned())];
        for (entries, expected) in [
            (vec![], "output.conf must have at least one [OUTPUT] section"),
            (output("# nothing\n"), "output.conf must have at least one [OUTPUT] section"),
            (
                output("[OUTPUT]\n  Name amazon_data_firehose\n  Match *\n"),
                "amazon_data_firehose is not a supported output plugin",
            ),
            (output("[OUTPUT]\n  Name es\n"), "[OUTPUT] in output.conf needs Match"),
            (output("[OUTPUT]\n  Match *\n"), "[OUTPUT] in output.conf needs Name"),
            (output("[SERVICE]\n  Flush 1\n"), "[SERVICE] is not supported in output.conf"),
            (
                output("[FILTER]\n  Name grep\n  Match *\n"),
                "[FILTER] is not supported in output.conf",
            ),
            (
                output("[OUTPUT]\n  Name es\n  Match *\n  Host ${HOST}\n"),
                "environment variables are not supported, output.conf has ${HOST}",
            ),
            (
                output("[OUTPUT]\nName es\n"),
                "output.conf line 2: entries are indented deeper than their section",
            ),
            (
                output("[OUTPUT]\n  Name es\n  Match *\n [OUTPUT]\n  Name es\n"),
                "output.conf line 4: all sections are indented alike",
            ),
            (output("  Name es\n"), "output.conf line 1: an entry stands in a section"),
            (output("[OUTPUT\n"), "output.conf line 1: a section ends in ]"),
            (output("[OUTPUT]\n  Name\n"), "output.conf line 2: an entry has a key and a value"),
            (
                more("filters.conf", "[FILTER]\n  Name lua\n  Match *\n"),
                "lua is not a supported filter plugin",
            ),
            (
                more(
                    "filters.conf",
                    "[FILTER]\n  Name kubernetes\n  Match *\n  kube_url https://x\n",
                ),
                "Kube_URL is not supported in the kubernetes filter",
            ),
            (
                more("parsers.conf", "[PARSER]\n  Name crio\n"),
                "[PARSER] in parsers.conf needs Format",
            ),
            (more("flb_log_cw", "yes"), "flb_log_cw must be \"true\" or \"false\""),
        ] {
            let data: BTreeMap<String, String> =
                entries.into_iter().map(|(key, text)| (key.to_owned(), text)).collect();
            assert_eq!(read(&data).expect_err("it is wrong").to_string(), expected);
        }
    }

    #[test]
    fn the_limit_is_5300_characters_in_all() {
        let filler = |count: usize| format!("#{}", "ä".repeat(count));
        let used = OUTPUT.chars().count() + 1;
        let within = filler(CHARACTERS_MAX - used);
        assert!(read(&map(&[("output.conf", OUTPUT), ("filters.conf", &within)])).is_ok());
        let beyond = filler(CHARACTERS_MAX - used + 1);
        assert_eq!(
            read(&map(&[("output.conf", OUTPUT), ("filters.conf", &beyond)])),
            Err(Invalid::TooLong(5_301))
        );
    }

    #[test]
    fn pods_are_told_in_these_words() {
        let missing = told(&Err(Disabled::NotFound));
        assert_eq!(
            missing.message,
            "Disabled logging because aws-logging configmap was not found. configmap \"aws-logging\" not found"
        );
        assert_eq!(missing.annotation, "LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND");
        let plugin = Invalid::Plugin { name: "amazon_data_firehose".to_owned(), kind: "output" };
        let invalid = told(&Err(Disabled::Invalid(plugin)));
        assert_eq!(
            invalid.message,
            "Disabled logging for pod due to invalid configmap. amazon_data_firehose is not a supported output plugin. Please fix the logging configmap"
        );
        assert!(invalid.is_warning && missing.is_warning);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]a-zA-Z$\\{\\}# \n\tä]{0,80}") {
            let sections = format!("{OUTPUT}{text}");
            if let Ok(logging) = read(&map(&[("output.conf", &sections)])) {
                prop_assert!(logging.outputs.iter().all(|output| OUTPUTS.contains(&output.name.as_str())));
            }
        }
    }
}
