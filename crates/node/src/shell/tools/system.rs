//! Tools that show the machine: `top`, `ps`, `df`, `lsblk` and their like. What they show is the
//! model's: processors and memory are the node's, usage is what the load model measures.

use std::time::Duration;

use wharf_model::object::ObjectKey;

use super::Flags;
use super::text::complain;
use crate::program::seconds;
use crate::shell::run::Streams;
use crate::shell::{Done, Shell, first_process};

/// Modelled: what a node's root disk holds of images and system.
const USED_KIB: i64 = 6_291_456;
/// How often `top` and `watch` look again.
const REFRESH: Duration = Duration::from_secs(3);

pub(super) fn sleep(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let mut total = Duration::ZERO;
    if arguments.is_empty() {
        complain(shell, streams, "sleep: missing operand")?;
        return Ok(1);
    }
    for argument in arguments {
        if argument.starts_with("inf") {
            loop {
                shell.pass(Duration::from_secs(86_400))?;
            }
        }
        match seconds(argument) {
            Some(time) => total = total.saturating_add(time),
            None => {
                let says = format!("sleep: invalid time interval '{argument}'");
                complain(shell, streams, &says)?;
                return Ok(1);
            }
        }
    }
    shell.pass(total.min(Duration::from_secs(100 * 365 * 86_400))).map(|()| 0)
}

pub(super) fn date(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let now = shell.host.now().timestamp();
    let format = arguments.iter().find_map(|word| word.strip_prefix('+'));
    let format = format.unwrap_or("%a %b %e %H:%M:%S UTC %Y").replace("%N", "000000000");
    let time = now.to_zoned(jiff::tz::TimeZone::UTC);
    let mut text = match jiff::fmt::strtime::format(&format, &time) {
        Ok(text) => text,
        Err(_) => {
            complain(shell, streams, &format!("date: invalid format {format:?}"))?;
            return Ok(1);
        }
    };
    text.push('\n');
    shell.print(streams, &text).map(|()| 0)
}

pub(super) fn hostname(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let shows_ip = arguments.iter().any(|word| word == "-i" || word == "-I");
    let text = if shows_ip { shell.ip() } else { shell.host_name() };
    shell.print(streams, &format!("{text}\n")).map(|()| 0)
}

pub(super) fn env(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    if let Some((_, at)) = arguments.iter().zip(0..).find(|(word, _)| !word.contains('=')) {
        // `printenv NAME`, `env COMMAND`.
        let rest = &arguments[at..];
        if let [name] = rest
            && let Some(value) = shell.variables.get(name).cloned()
        {
            return shell.print(streams, &format!("{value}\n")).map(|()| 0);
        }
        return shell.program(rest, streams);
    }
    let text: String =
        shell.variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    shell.print(streams, &text).map(|()| 0)
}

pub(super) fn pwd(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    let text = format!("{}\n", shell.folder);
    shell.print(streams, &text).map(|()| 0)
}

pub(super) fn ls(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "");
    let here = shell.folder.clone();
    let paths = if flags.rest.is_empty() { vec![here.as_str()] } else { flags.rest.clone() };
    let (mut out, mut code) = (String::new(), 0);
    for path in &paths {
        let absolute = shell.absolute(path);
        let names = match shell.names_in(&absolute) {
            Some(names) => names,
            None if shell.read_file(path).is_some() => vec![(*path).to_owned()],
            None => {
                complain(shell, streams, &format!("ls: {path}: No such file or directory"))?;
                code = 1;
                continue;
            }
        };
        if flags.has('l') {
            for name in &names {
                let file = format!("{}/{name}", absolute.trim_end_matches('/'));
                let is_file = shell.read_file(&file);
                let kind = if is_file.is_some() { "-rw-r--r--" } else { "drwxr-xr-x" };
                let size = is_file.map_or(4_096, |text| text.len());
                out += &format!("{kind}    1 root     root     {size:>9} Jan  1 00:00 {name}\n");
            }
        } else if shell.is_terminal(&streams.output) {
            out += &format!("{}\n", names.join("  "));
        } else {
            out += &names.iter().map(|name| format!("{name}\n")).collect::<String>();
        }
    }
    shell.print(streams, &out)?;
    Ok(code)
}

/// The node's root disk and how much of it there is.
fn disk(shell: &Shell<'_>) -> (&'static str, i64) {
    let gib = match shell.machine().and_then(|machine| machine.spec.micro_vm) {
        // Fargate adds what it needs itself: 20 GiB asked for are 30 GiB.
        Some(vm) => i64::from(vm.storage_gib.max(20)) + 10,
        None => 20,
    };
    (
        if shell.machine().is_some_and(|m| m.spec.micro_vm.is_some()) {
            "nvme1n1"
        } else {
            "nvme0n1p1"
        },
        gib << 20,
    )
}

/// Sizes with one letter behind, as `-h` shows them.
fn human(kib: i64) -> String {
    let mut size = kib as f64;
    for unit in ["K", "M", "G"] {
        if size < 1_024.0 {
            return if size < 10.0 {
                format!("{size:.1}{unit}")
            } else {
                format!("{size:.0}{unit}")
            };
        }
        size /= 1_024.0;
    }
    format!("{size:.1}T")
}

pub(super) fn df(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "");
    let (name, total) = disk(shell);
    let used = USED_KIB.min(total);
    let is_human = flags.has('h');
    let size = |kib: i64| if is_human { human(kib) } else { kib.to_string() };
    let shm = 65_536;
    let rows = [
        ("overlay", "overlay", total, used, "/"),
        ("tmpfs", "tmpfs", shm, 0, "/dev"),
        (name, "ext4", total, used, "/etc/hosts"),
        ("shm", "tmpfs", shm, 0, "/dev/shm"),
    ];
    let mut out = String::from("Filesystem          ");
    if flags.has('T') {
        out += " Type      ";
    }
    out += if is_human {
        "     Size      Used Available Use% Mounted on\n"
    } else {
        "1K-blocks      Used Available Use% Mounted on\n"
    };
    let wanted: Vec<String> = flags.rest.iter().map(|path| shell.absolute(path)).collect();
    for (device, kind, total, used, place) in rows {
        if !wanted.is_empty() && !wanted.iter().any(|path| path == place) {
            continue;
        }
        let device = if device == name { format!("/dev/{device}") } else { device.to_owned() };
        out += &format!("{device:<20}");
        if flags.has('T') {
            out += &format!(" {kind:<10}");
        }
        let percent = used * 100 / total.max(1);
        out += &format!(
            "{:>9} {:>9} {:>9} {percent:>3}% {place}\n",
            size(total),
            size(used),
            size(total - used)
        );
    }
    shell.print(streams, &out).map(|()| 0)
}

pub(super) fn lsblk(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    let (name, kib) = disk(shell);
    let mut out = "NAME        MAJ:MIN RM SIZE RO TYPE MOUNTPOINTS\n".to_owned();
    if name == "nvme1n1" {
        out += "nvme0n1     259:0    0   5G  0 disk \n└─nvme0n1p1 259:1    0   5G  0 part \n";
        out += &format!(
            "nvme1n1     259:2    0  {:>2}G  0 disk /etc/resolv.conf\n                                      /etc/hosts\n",
            kib >> 20
        );
    } else {
        out += &format!("nvme0n1     259:0    0  {:>2}G  0 disk \n", kib >> 20);
        out += &format!(
            "└─nvme0n1p1 259:1    0  {:>2}G  0 part /etc/resolv.conf\n                                      /etc/hosts\n",
            kib >> 20
        );
    }
    shell.print(streams, &out).map(|()| 0)
}

pub(super) fn mount(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    let (name, _) = disk(shell);
    let mut out = "overlay on / type overlay (rw,relatime)\nproc on /proc type proc (rw,nosuid,nodev,noexec,relatime)\ntmpfs on /dev type tmpfs (rw,nosuid,size=65536k,mode=755)\n".to_owned();
    for place in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        out += &format!("/dev/{name} on {place} type ext4 (rw,relatime)\n");
    }
    let mounts: Vec<String> = shell.mounts().map(|mount| mount.mount_path.clone()).collect();
    for place in mounts {
        out += &format!("/dev/{name} on {place} type ext4 (rw,relatime)\n");
    }
    shell.print(streams, &out).map(|()| 0)
}

pub(super) fn nproc(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    let text = format!("{}\n", shell.cores());
    shell.print(streams, &text).map(|()| 0)
}

pub(super) fn uname(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "");
    let labels = shell.node().and_then(|node| node.metadata.labels).unwrap_or_default();
    let machine = match labels.get("kubernetes.io/arch").map(String::as_str) {
        Some("arm64") => "aarch64",
        _ => "x86_64",
    };
    let all = [
        ('s', "Linux".to_owned()),
        ('n', shell.host_name()),
        ('r', shell.kernel()),
        ('v', "#1 SMP".to_owned()),
        ('m', machine.to_owned()),
        ('o', "Linux".to_owned()),
    ];
    let everything = flags.has('a');
    let chosen: Vec<String> = all
        .into_iter()
        .filter(|(letter, _)| {
            everything || flags.has(*letter) || (flags.set.is_empty() && *letter == 's')
        })
        .map(|(_, text)| text)
        .collect();
    shell.print(streams, &format!("{}\n", chosen.join(" "))).map(|()| 0)
}

pub(super) fn id(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    let (user, group) = user(shell);
    let name = |number: i64| if number == 0 { "(root)" } else { "" };
    let text = format!("uid={user}{} gid={group}{}\n", name(user), name(group));
    shell.print(streams, &text).map(|()| 0)
}

pub(super) fn whoami(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    let (user, _) = user(shell);
    if user == 0 {
        return shell.print(streams, "root\n").map(|()| 0);
    }
    complain(shell, streams, &format!("whoami: unknown uid {user}"))?;
    Ok(1)
}

/// Who the container's processes are.
fn user(shell: &Shell<'_>) -> (i64, i64) {
    let own = shell.container.security_context.as_ref();
    let pods = shell.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let user = own.and_then(|own| own.run_as_user).or(pods.and_then(|pods| pods.run_as_user));
    let group = own.and_then(|own| own.run_as_group).or(pods.and_then(|pods| pods.run_as_group));
    (user.unwrap_or(0), group.unwrap_or(0))
}

pub(super) fn free(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "");
    let total = shell.memory_kib();
    let used = (total / 5).max(1);
    let size = |kib: i64| match (flags.has('h'), flags.has('m')) {
        (true, _) => human(kib),
        (_, true) => (kib / 1_024).to_string(),
        _ => kib.to_string(),
    };
    let row = |name: &str, all: [i64; 6]| {
        let cells: String = all.iter().map(|kib| format!("{:>12}", size(*kib))).collect();
        format!("{name:<6}{cells}\n")
    };
    let text = format!(
        "{:>18}{:>12}{:>12}{:>12}{:>12}{:>12}\n{}Swap: {:>12}{:>12}{:>12}\n",
        "total",
        "used",
        "free",
        "shared",
        "buff/cache",
        "available",
        row("Mem:", [total, used, total / 2, 0, total - used - total / 2, total - used]),
        0,
        0,
        0
    );
    shell.print(streams, &text).map(|()| 0)
}

/// The processes that are shown: number, cores, bytes, command.
fn processes(shell: &Shell<'_>, own: &str) -> Vec<(u32, f64, u64, String)> {
    let key = ObjectKey::of(&shell.pod.metadata);
    let (cores, bytes) = shell.host.usage(&key, &shell.container.name).unwrap_or((0.0, 1_048_576));
    let mut first = first_process(shell.container).join(" ");
    if first.is_empty() {
        let image = shell.container.image.as_deref().unwrap_or_default();
        first = match crate::program::image_name(image) {
            "hpa-example" => "apache2 -DFOREGROUND".to_owned(),
            "nginx" => "nginx: master process nginx -g daemon off;".to_owned(),
            image => image.to_owned(),
        };
    }
    vec![(1, cores, bytes, first), (7, 0.0, 524_288, own.to_owned())]
}

pub(super) fn ps(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    let mut out = "PID   USER     TIME  COMMAND\n".to_owned();
    for (number, _, _, command) in processes(shell, "ps") {
        out += &format!("{number:>5} root      0:00 {command}\n");
    }
    shell.print(streams, &out).map(|()| 0)
}

pub(super) fn uptime(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    let now = shell.host.now();
    let launched = shell.machine().map(|machine| machine.status.running_at_nanos);
    let up = launched.map_or(0, |at| (now.as_nanos() - at).max(0) / 60_000_000_000);
    let time = now.timestamp().to_zoned(jiff::tz::TimeZone::UTC).time();
    let text = format!(
        " {:02}:{:02}:{:02} up {} days, {:>2}:{:02},  load average: 0.00, 0.00, 0.00\n",
        time.hour(),
        time.minute(),
        time.second(),
        up / 1_440,
        up / 60 % 24,
        up % 60
    );
    shell.print(streams, &text).map(|()| 0)
}

pub(super) fn top(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "nd");
    let rounds = flags.value('n').and_then(|text| text.parse::<u32>().ok());
    let is_screen = shell.is_terminal(&streams.output) && !flags.has('b');
    let rounds = rounds.or((!is_screen && !flags.has('b')).then_some(1));
    let mut round = 0;
    loop {
        let total = shell.memory_kib();
        let all = processes(shell, "top");
        let busy: f64 = all.iter().map(|(_, cores, ..)| cores).sum();
        let share = |cores: f64| (100.0 * cores / shell.cores() as f64).min(100.0);
        let mut out = String::new();
        if is_screen {
            out += "\x1b[H\x1b[J";
        }
        out += &format!(
            "Mem: {}K used, {}K free, 0K shrd, 0K buff, 0K cached\nCPU: {:>3.0}% usr   0% sys   0% nic {:>3.0}% idle   0% io   0% irq   0% sirq\nLoad average: {busy:.2} {busy:.2} {busy:.2} 1/{} 7\n  PID  PPID USER     STAT   VSZ %VSZ CPU %CPU COMMAND\n",
            total / 5,
            total - total / 5,
            share(busy),
            100.0 - share(busy),
            all.len(),
        );
        for (number, cores, bytes, command) in &all {
            let kib = bytes / 1_024;
            let percent = kib as i64 * 100 / total.max(1);
            out += &format!(
                "{number:>5}     0 root     {}  {kib:>6} {percent:>3}%   0 {:>3.0}% {command}\n",
                if *cores > 0.05 { "R" } else { "S" },
                100.0 * cores,
            );
        }
        shell.print(streams, &out)?;
        round += 1;
        if rounds.is_some_and(|rounds| round >= rounds) {
            return Ok(0);
        }
        shell.pass(REFRESH)?;
        if shell.typed.contains(&b'q') || shell.ended {
            shell.typed.clear();
            return Ok(0);
        }
    }
}

pub(super) fn watch(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let mut words = arguments;
    let mut every = Duration::from_secs(2);
    while let [first, rest @ ..] = words
        && first.starts_with('-')
    {
        words = rest;
        if let ("-n", [number, rest @ ..]) = (first.as_str(), rest) {
            every = seconds(number).unwrap_or(every).max(Duration::from_millis(100));
            words = rest;
        }
    }
    let script = words.join(" ");
    loop {
        shell.print(streams, &format!("\x1b[H\x1b[JEvery {}s: {script}\n\n", every.as_secs()))?;
        shell.script(&script, streams)?;
        shell.pass(every)?;
    }
}

pub(super) fn yes(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let word = if arguments.is_empty() { "y".to_owned() } else { arguments.join(" ") };
    let text = format!("{word}\n").repeat(64);
    // A pipe or file that holds it all has an end; the client may go.
    for _ in 0..10_000 {
        shell.breathe(true)?;
        shell.print(streams, &text)?;
    }
    Ok(0)
}

pub(super) fn kill(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let number = arguments.iter().rev().find(|word| !word.starts_with('-'));
    let number = number.map(String::as_str).unwrap_or_default();
    // The first process of a container heeds no signal that it has no handler for.
    if number == "1" {
        return Ok(0);
    }
    complain(shell, streams, &format!("kill: can't kill pid {number}: No such process"))?;
    Ok(1)
}

pub(super) fn clear(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    shell.print(streams, "\x1b[H\x1b[J").map(|()| 0)
}
