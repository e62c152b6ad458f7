//! Tools over texts: `cat`, `grep`, `head` and their like.

use super::Flags;
use crate::shell::run::{Sink, Source, Streams};
use crate::shell::{Done, Flow, Shell};

/// What `printf` and `seq` give at most.
const LINES_MAX: i64 = 100_000;

pub(super) fn success(_: &mut Shell<'_>, _: &[String], _: &Streams) -> Done {
    Ok(0)
}

pub(super) fn failure(_: &mut Shell<'_>, _: &[String], _: &Streams) -> Done {
    Ok(1)
}

/// Says what is wrong in a tool's own name.
pub(super) fn complain(shell: &mut Shell<'_>, streams: &Streams, says: &str) -> Result<(), Flow> {
    shell.write(&streams.errors, format!("{says}\n").as_bytes())
}

/// The files' contents one after the other, or what is to be read. The code is 1 if a file is missing.
fn contents(
    shell: &mut Shell<'_>,
    tool: &str,
    files: &[&str],
    streams: &Streams,
) -> Result<(Vec<u8>, i32), Flow> {
    if files.is_empty() {
        return Ok((shell.read_all(&streams.input)?, 0));
    }
    let (mut all, mut code) = (Vec::new(), 0);
    for file in files {
        let found = match *file {
            "-" => Some(shell.read_all(&streams.input)?),
            file => shell.read_file(file),
        };
        match found {
            Some(text) => all.extend(text),
            None => {
                code = 1;
                let why = if shell.is_folder(&shell.absolute(file)) {
                    "Is a directory"
                } else {
                    "No such file or directory"
                };
                complain(shell, streams, &format!("{tool}: can't open '{file}': {why}"))?;
            }
        }
    }
    Ok((all, code))
}

/// The lines of a text with their ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

pub(super) fn cat(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "");
    if flags.rest.is_empty() && matches!(streams.input, Source::Client) {
        // Line by line, as it is typed.
        while let Some(line) = shell.read_line(&streams.input)? {
            shell.write(&streams.output, &line)?;
        }
        return Ok(0);
    }
    let (text, code) = contents(shell, "cat", &flags.rest, streams)?;
    shell.write(&streams.output, &text)?;
    Ok(code)
}

pub(super) fn echo(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = arguments
        .iter()
        .take_while(|word| ["-n", "-e", "-en", "-ne", "-E"].contains(&word.as_str()));
    let count = flags.count();
    let has = |letter| arguments[..count].iter().any(|word| word.contains(letter));
    let mut text = arguments[count..].join(" ");
    if has('e') {
        text = unescape(&text);
    }
    if !has('n') {
        text.push('\n');
    }
    shell.print(streams, &text).map(|()| 0)
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("\\033", "\x1b").replace("\\\\", "\\")
}

pub(super) fn printf(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let Some((format, rest)) = arguments.split_first() else {
        complain(shell, streams, "printf: usage: printf FORMAT [ARG...]")?;
        return Ok(2);
    };
    let format = unescape(format);
    let mut values = rest.iter();
    let mut out = String::new();
    for _ in 0..LINES_MAX {
        let mut pieces = format.split('%');
        out.push_str(pieces.next().unwrap_or_default());
        let mut after_percent = false;
        for piece in pieces {
            if after_percent {
                after_percent = false;
                out.push_str(piece);
                continue;
            }
            match piece.chars().next() {
                None => {
                    out.push('%');
                    after_percent = true;
                }
                Some('s' | 'd' | 'i' | 'b') => {
                    out.push_str(values.next().map_or("", String::as_str));
                    out.push_str(&piece[1..]);
                }
                Some(_) => {
                    out.push('%');
                    out.push_str(piece);
                }
            }
        }
        if values.len() == 0 || !format.contains('%') {
            break;
        }
    }
    shell.print(streams, &out).map(|()| 0)
}

pub(super) fn grep(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "eABCm");
    let long: Vec<&str> =
        flags.rest.iter().copied().filter(|word| word.starts_with("--")).collect();
    let rest: Vec<&str> = flags.rest.iter().copied().filter(|word| !long.contains(word)).collect();
    let (pattern, files) = match (flags.value('e'), rest.split_first()) {
        (Some(pattern), _) => (pattern, rest.as_slice()),
        (None, Some((pattern, files))) => (*pattern, files),
        (None, None) => {
            complain(shell, streams, "Usage: grep [-ivnco] [-A N] [-B N] PATTERN [FILE]...")?;
            return Ok(2);
        }
    };
    let ignore = flags.has('i');
    let fold = |text: &str| if ignore { text.to_lowercase() } else { text.to_owned() };
    let patterns: Vec<String> = if flags.has('F') {
        vec![fold(pattern)]
    } else {
        pattern.replace("\\|", "|").split('|').map(fold).collect()
    };
    let matches = |line: &str| {
        let line = fold(line);
        patterns.iter().any(|pattern| found(pattern, &line)) != flags.has('v')
    };
    let number = |letter| flags.value(letter).and_then(|text| text.parse::<usize>().ok());
    let around = number('C').unwrap_or(0);
    let (before, after) = (number('B').unwrap_or(around), number('A').unwrap_or(around));
    let (text, _) = contents(shell, "grep", files, streams)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let all: Vec<&str> = text.lines().collect();
    let hits: Vec<usize> = (0..all.len()).filter(|at| matches(all[*at])).collect();
    let code = i32::from(hits.is_empty());
    if flags.has('q') {
        return Ok(code);
    }
    if flags.has('c') {
        return shell.print(streams, &format!("{}\n", hits.len())).map(|()| code);
    }
    let mut out = String::new();
    let mut next = 0;
    for hit in hits {
        let first = hit.saturating_sub(before).max(next);
        let shown = all.iter().enumerate().take(hit + after + 1).skip(first);
        for (at, line) in shown {
            if flags.has('n') {
                out += &format!("{}:", at + 1);
            }
            out += line;
            out.push('\n');
            next = at + 1;
        }
    }
    shell.print(streams, &out).map(|()| code)
}

/// Whether a pattern is in a line: text with `.`, `.*`, `^` and `$`.
fn found(pattern: &str, line: &str) -> bool {
    let (pattern, from_start) = match pattern.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let (pattern, to_end) = match pattern.strip_suffix('$') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    // Pieces between `.*`, each found after the one before.
    let mut at = 0;
    let pieces: Vec<&str> = pattern.split(".*").collect();
    for (index, piece) in pieces.iter().enumerate() {
        let (is_first, is_last) = (index == 0, index + 1 == pieces.len());
        let starts = (at..=line.len()).filter(|at| line.is_char_boundary(*at));
        let mut ends = starts.filter_map(|start| {
            let end = ahead(piece, &line[start..])? + start;
            let fits = (!is_first || !from_start || start == 0)
                && (!is_last || !to_end || end == line.len());
            fits.then_some(end)
        });
        match ends.next() {
            Some(end) => at = end,
            None => return false,
        }
    }
    true
}

/// How much of a line a piece takes at its start; `.` is any character, `\` takes the next as it is.
fn ahead(piece: &str, line: &str) -> Option<usize> {
    let mut rest = line.chars();
    let mut wanted = piece.chars();
    while let Some(next) = wanted.next() {
        let (next, any) = match next {
            '\\' => (wanted.next().unwrap_or('\\'), false),
            '.' => ('.', true),
            next => (next, false),
        };
        let found = rest.next()?;
        if !any && found != next {
            return None;
        }
    }
    Some(line.len() - rest.as_str().len())
}

/// `-n 5`, `-5`.
fn count(arguments: &[String]) -> (usize, Vec<&str>) {
    let mut number = 10;
    let mut files = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix('-') {
            Some("n") => {
                let text = words.next().map_or("", String::as_str);
                number = text.trim_start_matches(['+', '-']).parse().unwrap_or(number);
            }
            Some(text) if !text.is_empty() => {
                let text = text.trim_start_matches('n');
                number = text.parse().unwrap_or(number);
            }
            _ => files.push(word.as_str()),
        }
    }
    (number, files)
}

pub(super) fn head(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let (number, files) = count(arguments);
    let (text, code) = contents(shell, "head", &files, streams)?;
    let kept: Vec<u8> = lines(&text).take(number).flatten().copied().collect();
    shell.write(&streams.output, &kept)?;
    Ok(code)
}

pub(super) fn tail(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let follows = arguments.iter().any(|word| ["-f", "-F"].contains(&word.as_str()));
    let (number, files) = count(arguments);
    let (text, code) = contents(shell, "tail", &files, streams)?;
    let all: Vec<&[u8]> = lines(&text).collect();
    let kept = all[all.len().saturating_sub(number)..].concat();
    shell.write(&streams.output, &kept)?;
    if follows {
        // Nobody else writes here.
        loop {
            shell.pass(std::time::Duration::from_secs(3_600))?;
        }
    }
    Ok(code)
}

pub(super) fn wc(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "");
    let (text, code) = contents(shell, "wc", &flags.rest, streams)?;
    let words = String::from_utf8_lossy(&text).split_whitespace().count();
    let counts = [
        ('l', text.iter().filter(|byte| **byte == b'\n').count()),
        ('w', words),
        ('c', text.len()),
    ];
    let chosen: Vec<String> = counts
        .iter()
        .filter(|(letter, _)| flags.set.is_empty() || flags.has(*letter))
        .map(|(_, count)| count.to_string())
        .collect();
    shell.print(streams, &format!("{}\n", chosen.join(" ")))?;
    Ok(code)
}

pub(super) fn sort(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "kt");
    let (text, code) = contents(shell, "sort", &flags.rest, streams)?;
    let mut all: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    if all.last().is_some_and(|last| last.is_empty()) {
        all.pop();
    }
    if flags.has('n') {
        let number = |line: &&[u8]| {
            let text = String::from_utf8_lossy(line);
            text.split_whitespace().next().and_then(|word| word.parse::<i64>().ok()).unwrap_or(0)
        };
        all.sort_by_key(number);
    } else {
        all.sort_unstable();
    }
    if flags.has('r') {
        all.reverse();
    }
    if flags.has('u') {
        all.dedup();
    }
    let mut out = all.join(&b'\n');
    if !out.is_empty() {
        out.push(b'\n');
    }
    shell.write(&streams.output, &out)?;
    Ok(code)
}

pub(super) fn uniq(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "");
    let (text, code) = contents(shell, "uniq", &flags.rest, streams)?;
    let mut groups: Vec<(usize, &[u8])> = Vec::new();
    for line in lines(&text) {
        match groups.last_mut() {
            Some((count, last)) if *last == line => *count += 1,
            _ => groups.push((1, line)),
        }
    }
    for (count, line) in groups {
        if flags.has('c') {
            shell.print(streams, &format!("{count:>7} "))?;
        }
        shell.write(&streams.output, line)?;
    }
    Ok(code)
}

pub(super) fn cut(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "dfc");
    let delimiter = flags.value('d').and_then(|text| text.chars().next()).unwrap_or('\t');
    let fields: Vec<usize> =
        flags.value('f').unwrap_or("1").split(',').filter_map(|text| text.parse().ok()).collect();
    let (text, code) = contents(shell, "cut", &flags.rest, streams)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    for line in text.lines() {
        let parts: Vec<&str> = line.split(delimiter).collect();
        let kept: Vec<&str> =
            fields.iter().filter_map(|field| parts.get(field.checked_sub(1)?).copied()).collect();
        let out =
            if parts.len() == 1 { line.to_owned() } else { kept.join(&delimiter.to_string()) };
        shell.print(streams, &(out + "\n"))?;
    }
    Ok(code)
}

pub(super) fn tr(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "");
    let set = |text: &str| -> Vec<char> {
        match text {
            "a-z" | "[:lower:]" => ('a'..='z').collect(),
            "A-Z" | "[:upper:]" => ('A'..='Z').collect(),
            "0-9" | "[:digit:]" => ('0'..='9').collect(),
            text => unescape(text).chars().collect(),
        }
    };
    let from = set(flags.rest.first().copied().unwrap_or_default());
    let to = set(flags.rest.get(1).copied().unwrap_or_default());
    let text = shell.read_all(&streams.input)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let changed = text.chars().filter_map(|c| match from.iter().position(|known| *known == c) {
        None => Some(c),
        Some(_) if flags.has('d') => None,
        Some(at) => Some(to.get(at).or(to.last()).copied().unwrap_or(c)),
    });
    let changed: String = changed.collect();
    shell.print(streams, &changed).map(|()| 0)
}

pub(super) fn seq(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let numbers: Vec<i64> = arguments.iter().filter_map(|word| word.parse().ok()).collect();
    let (first, step, last) = match numbers.as_slice() {
        [last] => (1, 1, *last),
        [first, last] => (*first, 1, *last),
        [first, step, last] if *step != 0 => (*first, *step, *last),
        _ => {
            complain(shell, streams, "usage: seq [FIRST [INC]] LAST")?;
            return Ok(1);
        }
    };
    let mut out = String::new();
    let mut number = first;
    for _ in 0..LINES_MAX {
        if (step > 0 && number > last) || (step < 0 && number < last) {
            break;
        }
        out += &format!("{number}\n");
        number = number.saturating_add(step);
    }
    shell.print(streams, &out).map(|()| 0)
}

pub(super) fn basename(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let path = arguments.first().map(String::as_str).unwrap_or_default();
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    shell.print(streams, &format!("{name}\n")).map(|()| 0)
}

pub(super) fn dirname(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let path = arguments.first().map(String::as_str).unwrap_or_default();
    let folder = path.trim_end_matches('/').rsplit_once('/').map_or(".", |(folder, _)| folder);
    let folder = if folder.is_empty() { "/" } else { folder };
    shell.print(streams, &format!("{folder}\n")).map(|()| 0)
}

pub(super) fn touch(shell: &mut Shell<'_>, arguments: &[String], _: &Streams) -> Done {
    for file in Flags::of(arguments, "").rest {
        shell.write(&Sink::File(shell.absolute(file)), b"")?;
    }
    Ok(0)
}

/// `test`, `[`: strings, numbers and files; one `!`.
pub(super) fn test(shell: &mut Shell<'_>, arguments: &[String], _: &Streams) -> Done {
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words.last() == Some(&"]") {
        words.pop();
    }
    let negated = words.first() == Some(&"!");
    if negated {
        words.remove(0);
    }
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    let holds = match words.as_slice() {
        [] => false,
        [text] => !text.is_empty(),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-f", path] => shell.read_file(path).is_some(),
        ["-d", path] => shell.is_folder(&shell.absolute(path)),
        ["-e" | "-r", path] => {
            shell.read_file(path).is_some() || shell.is_folder(&shell.absolute(path))
        }
        [one, "=" | "==", other] => one == other,
        [one, "!=", other] => one != other,
        [one, "-eq", other] => number(one) == number(other),
        [one, "-ne", other] => number(one) != number(other),
        [one, "-lt", other] => number(one) < number(other),
        [one, "-le", other] => number(one) <= number(other),
        [one, "-gt", other] => number(one) > number(other),
        [one, "-ge", other] => number(one) >= number(other),
        _ => return Ok(2),
    };
    Ok(i32::from(holds == negated))
}
