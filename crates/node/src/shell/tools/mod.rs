//! The tools, by name. Each is a function from a shell, arguments and streams to an exit code.

mod network;
mod system;
mod text;

use super::run::Streams;
use super::{Done, Shell};

/// A tool.
pub(super) type Tool = fn(&mut Shell<'_>, &[String], &Streams) -> Done;

/// The tool of a name.
pub(super) fn find(name: &str) -> Option<Tool> {
    Some(match name {
        "[" | "test" => text::test,
        "basename" => text::basename,
        "cat" => text::cat,
        "cut" => text::cut,
        "dirname" => text::dirname,
        "echo" => text::echo,
        "false" => text::failure,
        "grep" => text::grep,
        "head" => text::head,
        "printf" => text::printf,
        "seq" => text::seq,
        "sort" => text::sort,
        "tail" => text::tail,
        "touch" => text::touch,
        "tr" => text::tr,
        "true" => text::success,
        "uniq" => text::uniq,
        "wc" => text::wc,
        "clear" => system::clear,
        "date" => system::date,
        "df" => system::df,
        "env" | "printenv" => system::env,
        "free" => system::free,
        "hostname" => system::hostname,
        "id" => system::id,
        "kill" => system::kill,
        "ls" => system::ls,
        "lsblk" => system::lsblk,
        "mount" => system::mount,
        "nproc" => system::nproc,
        "ps" => system::ps,
        "pwd" => system::pwd,
        "sleep" => system::sleep,
        "top" => system::top,
        "uname" => system::uname,
        "uptime" => system::uptime,
        "watch" => system::watch,
        "whoami" => system::whoami,
        "yes" => system::yes,
        "arp" | "route" => network::route,
        "curl" => network::curl,
        "dig" => network::dig,
        "host" => network::host,
        "ifconfig" | "ip" => network::ip,
        "nc" => network::nc,
        "nslookup" => network::nslookup,
        "ping" => network::ping,
        "wget" => network::wget,
        _ => return None,
    })
}

/// Arguments as single-letter flags and the rest. `with_value` names the letters that take a value.
struct Flags<'a> {
    set: Vec<(char, &'a str)>,
    rest: Vec<&'a str>,
}

impl<'a> Flags<'a> {
    fn of(arguments: &'a [String], with_value: &str) -> Self {
        let (mut set, mut rest) = (Vec::new(), Vec::new());
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let letters = match word.strip_prefix('-') {
                Some(letters) if !letters.is_empty() && !word.starts_with("--") => letters,
                _ => {
                    rest.push(word.as_str());
                    continue;
                }
            };
            for (at, letter) in letters.char_indices() {
                if with_value.contains(letter) {
                    let value = &letters[at + letter.len_utf8()..];
                    let value = if value.is_empty() {
                        words.next().map_or("", String::as_str)
                    } else {
                        value
                    };
                    set.push((letter, value));
                    break;
                }
                set.push((letter, ""));
            }
        }
        Self { set, rest }
    }

    fn has(&self, letter: char) -> bool {
        self.set.iter().any(|(set, _)| *set == letter)
    }

    fn value(&self, letter: char) -> Option<&'a str> {
        self.set.iter().find(|(set, _)| *set == letter).map(|(_, value)| *value)
    }
}
