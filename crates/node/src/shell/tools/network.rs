//! Tools for networks: `curl`, `wget`, `ping`, names and addresses. Names are those of Services, of
//! nodes, and of a few hosts outside that say from which address one comes.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::Kind;
use wharf_model::pod::is_terminal;
use wharf_model::random::{Random, fnv1a};

use super::Flags;
use super::text::complain;
use crate::http::{self, Response};
use crate::program::target_of;
use crate::shell::images::Image;
use crate::shell::run::{Sink, Streams};
use crate::shell::web;
use crate::shell::{Done, Flow, Shell};

/// How long a connection to an address where nobody is takes to fail, as Linux does it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(130);
/// Hosts outside that answer with the address one comes from.
const ECHO_HOSTS: [&str; 5] =
    ["ipinfo.io", "ifconfig.me", "checkip.amazonaws.com", "icanhazip.com", "api.ipify.org"];
/// Packets that `ping` sends when nobody stops it.
const PACKETS_MAX: u64 = 1_000_000;

/// Why a request has no answer.
enum Unanswered {
    /// There is no such name.
    NoHost,
    /// Somebody is there who does not listen.
    Refused(String),
    /// Nobody is there.
    Silent,
}

impl Shell<'_> {
    /// The address that a name leads to; an address leads to itself.
    fn address_of(&self, host: &str) -> Option<String> {
        let host = host.trim_end_matches('.').to_lowercase();
        if host.parse::<Ipv4Addr>().is_ok() {
            return Some(host);
        }
        if host == "localhost" {
            return Some("127.0.0.1".to_owned());
        }
        if host == self.host_name() {
            return Some(self.ip());
        }
        if let Some(service) = self.service_of(&host) {
            let spec = service.spec?;
            return match spec.cluster_ip.as_deref() {
                Some("None") | None => self.answering(&host, None).first().map(ip_of),
                Some(address) => Some(address.to_owned()),
            };
        }
        if ECHO_HOSTS.contains(&host.as_str()) {
            // From the second of the ranges for examples: names outside are not really looked up.
            return Some(format!("198.51.100.{}", 1 + fnv1a(host.as_bytes()) % 254));
        }
        let machines = self.host.list(Kind::of::<Instance>(), None);
        let mut machines = machines.iter().filter_map(|object| object.typed::<Instance>());
        let machine = machines.find(|machine| machine.spec.private_dns_name == host)?;
        Some(machine.spec.private_ip.clone())
    }

    /// The Service that a name means: `web`, `web.shop`, `web.shop.svc`, `web.shop.svc.cluster.local`.
    fn service_of(&self, host: &str) -> Option<Service> {
        let mut names = host.splitn(3, '.');
        let (name, own, rest) = (names.next()?, names.next(), names.next());
        if !matches!(rest, None | Some("svc" | "svc.cluster.local")) {
            return None;
        }
        self.object(own.unwrap_or(self.namespace()), name)
    }

    /// The full name of a Service's host.
    fn full_name(&self, host: &str) -> String {
        let mut names = host.trim_end_matches('.').splitn(3, '.');
        let name = names.next().unwrap_or_default();
        let namespace = names.next().unwrap_or(self.namespace());
        format!("{name}.{namespace}.svc.cluster.local")
    }

    /// The pods behind a host, at a port or at any.
    fn answering(&self, host: &str, port: Option<u16>) -> Vec<Pod> {
        let found = crate::load::answering(&*self.host, self.namespace(), host, port);
        found.into_iter().filter_map(|key| self.object(&key.namespace, &key.name)).collect()
    }

    /// Asks a host for a page; with the address that was asked.
    fn fetch(
        &mut self,
        host: &str,
        port: u16,
        path: &str,
    ) -> Result<(String, Response), Unanswered> {
        let host = host.to_lowercase();
        let address = self.address_of(&host).ok_or(Unanswered::NoHost)?;
        self.requests += 1;
        if ECHO_HOSTS.contains(&host.as_str()) {
            return Ok((address, self.echo_page(&host, path)));
        }
        let own = ["127.0.0.1".to_owned(), self.ip()].contains(&address);
        let pods = if own { vec![self.pod.clone()] } else { self.answering(&host, Some(port)) };
        if pods.is_empty() && !self.is_up(&address) && !self.is_service(&address) {
            return Err(Unanswered::Silent);
        }
        // One after the other, where upstream's proxy throws dice.
        let pod = pods.get(self.requests % pods.len().max(1));
        let asked = if own || address == pod.map(ip_of).unwrap_or_default() { port } else { 0 };
        let container = pod.and_then(|pod| {
            web::listener(pod, asked).or_else(|| web::server(pod).filter(|_| asked == 0))
        });
        match (pod, container) {
            (Some(pod), Some(container)) => Ok((address, http::page(pod, container, "GET", path))),
            _ => Err(Unanswered::Refused(address)),
        }
    }

    fn echo_page(&self, host: &str, path: &str) -> Response {
        let address = self.public_address();
        let as_json = host == "ipinfo.io" && matches!(path, "" | "/" | "/json");
        Response {
            status: 200,
            server: "wharf".to_owned(),
            content_type: if as_json { "application/json" } else { "text/plain" }.to_owned(),
            body: match (host, as_json) {
                (_, true) => format!("{{\n  \"ip\": \"{address}\"\n}}\n"),
                ("checkip.amazonaws.com" | "icanhazip.com", _) => format!("{address}\n"),
                _ => address,
            },
        }
    }

    /// Whether packets to an address are answered: pods, nodes, the pod itself, the outside.
    fn is_up(&self, address: &str) -> bool {
        let Ok(ip) = address.parse::<Ipv4Addr>() else { return false };
        if ip.is_loopback() || address == self.ip() {
            return true;
        }
        let pods = self.host.list(Kind::of::<Pod>(), None);
        let mut pods = pods.iter().filter_map(|object| object.typed::<Pod>());
        if pods.any(|pod| !is_terminal(pod) && ip_of(pod) == address) {
            return true;
        }
        let machines = self.host.list(Kind::of::<Instance>(), None);
        let mut machines = machines.iter().filter_map(|object| object.typed::<Instance>());
        let is_machine = machines.any(|machine| {
            machine.status.state == InstanceState::Running && machine.spec.private_ip == address
        });
        is_machine || !(ip.is_private() || ip.is_link_local() || self.is_service(address))
    }

    fn is_service(&self, address: &str) -> bool {
        let services = self.host.list(Kind::of::<Service>(), None);
        let mut services = services.iter().filter_map(|object| object.typed::<Service>());
        services.any(|service| {
            service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some(address)
        })
    }
}

fn ip_of(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default()
}

/// The host, port and path of a URL.
fn parts(url: &str) -> Option<(String, u16, String)> {
    let target = target_of(url)?;
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    Some((target.host.to_string(), target.port, path.to_owned()))
}

pub(super) fn curl(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let words: Vec<String> = arguments
        .iter()
        .map(|word| match word.as_str() {
            "--silent" => "-s".to_owned(),
            "--head" => "-I".to_owned(),
            "--include" => "-i".to_owned(),
            "--fail" => "-f".to_owned(),
            "--output" => "-o".to_owned(),
            "--write-out" => "-w".to_owned(),
            "--max-time" | "--connect-timeout" => "-m".to_owned(),
            "--request" => "-X".to_owned(),
            "--header" => "-H".to_owned(),
            "--data" => "-d".to_owned(),
            word => word.to_owned(),
        })
        .collect();
    let flags = Flags::of(&words, "oXHdmwAeuxT");
    let Some(url) = flags.rest.iter().find(|word| !word.starts_with("--")) else {
        complain(
            shell,
            streams,
            "curl: try 'curl --help' or 'curl --manual' for more information",
        )?;
        return Ok(2);
    };
    let Some((host, port, path)) = parts(url) else {
        complain(shell, streams, &format!("curl: (3) URL rejected: {url}"))?;
        return Ok(3);
    };
    let is_silent = flags.has('s');
    let to_terminal = shell.is_terminal(&streams.output) && !flags.has('o') && !flags.has('O');
    let says = |text: String| if is_silent && !flags.has('S') { String::new() } else { text };
    let limit = flags.value('m').and_then(crate::program::seconds).unwrap_or(CONNECT_TIMEOUT);
    let (code, text) = match shell.fetch(&host, port, &path) {
        Ok((_, page)) => return shown(shell, streams, &flags, &page, is_silent || to_terminal),
        Err(Unanswered::NoHost) => (6, format!("curl: (6) Could not resolve host: {host}")),
        Err(Unanswered::Refused(_)) => (
            7,
            format!(
                "curl: (7) Failed to connect to {host} port {port} after 0 ms: Could not connect to server"
            ),
        ),
        Err(Unanswered::Silent) => {
            shell.pass(limit)?;
            let millis = limit.as_millis();
            let text = format!(
                "curl: (28) Failed to connect to {host} port {port} after {millis} ms: Could not connect to server"
            );
            (28, text)
        }
    };
    let text = says(text);
    if !text.is_empty() {
        complain(shell, streams, &text)?;
    }
    if let Some(format) = flags.value('w') {
        shell.print(streams, &written_out(format, 0))?;
    }
    Ok(code)
}

/// What `curl -w` writes.
fn written_out(format: &str, code: u16) -> String {
    format.replace("%{http_code}", &format!("{code:03}")).replace("\\n", "\n").replace("\\t", "\t")
}

/// What `curl` makes of a page.
fn shown(
    shell: &mut Shell<'_>,
    streams: &Streams,
    flags: &Flags<'_>,
    page: &Response,
    without_meter: bool,
) -> Done {
    if !without_meter {
        let size = page.body.len();
        let meter = format!(
            "  % Total    % Received % Xferd  Average Speed   Time    Time     Time  Current\n                                 Dload  Upload   Total   Spent    Left  Speed\n100 {size:>5}  100 {size:>5}    0     0   300k      0 --:--:-- --:--:-- --:--:--  300k\n"
        );
        shell.write(&streams.errors, meter.as_bytes())?;
    }
    if flags.has('f') && page.status >= 400 {
        complain(
            shell,
            streams,
            &format!("curl: (22) The requested URL returned error: {}", page.status),
        )?;
        return Ok(22);
    }
    let mut out = String::new();
    if flags.has('i') || flags.has('I') {
        out += &page.head();
    }
    if !flags.has('I') {
        out += &page.body;
    }
    match flags.value('o') {
        Some("/dev/null") => {}
        Some(file) => {
            let path = shell.absolute(file);
            shell.written.insert(path.clone(), Vec::new());
            shell.write(&Sink::File(path), out.as_bytes())?;
        }
        None => shell.print(streams, &out)?,
    }
    if let Some(format) = flags.value('w') {
        shell.print(streams, &written_out(format, page.status))?;
    }
    Ok(0)
}

pub(super) fn wget(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "OTPUt");
    let timeout = flags.rest.iter().find_map(|word| word.strip_prefix("--timeout="));
    let Some(url) = flags.rest.iter().find(|word| !word.starts_with("--")) else {
        complain(shell, streams, "wget: missing URL")?;
        return Ok(1);
    };
    let Some((host, port, path)) = parts(url) else {
        complain(shell, streams, &format!("wget: not an http or ftp url: {url}"))?;
        return Ok(1);
    };
    let limit = timeout.or(flags.value('T')).and_then(crate::program::seconds);
    let why = match shell.fetch(&host, port, &path) {
        Ok((address, page)) => {
            if !flags.has('q') {
                complain(shell, streams, &format!("Connecting to {host} ({address}:{port})"))?;
            }
            if page.status < 400 {
                return saved(shell, streams, &flags, &path, &page);
            }
            format!("server returned error: HTTP/1.1 {} {}", page.status, page.reason())
        }
        Err(Unanswered::NoHost) => format!("bad address '{host}'"),
        Err(Unanswered::Refused(address)) => {
            format!("can't connect to remote host ({address}): Connection refused")
        }
        Err(Unanswered::Silent) => {
            shell.pass(limit.unwrap_or(CONNECT_TIMEOUT))?;
            if limit.is_some() {
                "download timed out".to_owned()
            } else {
                format!("can't connect to remote host ({host}): Connection timed out")
            }
        }
    };
    complain(shell, streams, &format!("wget: {why}"))?;
    Ok(1)
}

fn saved(
    shell: &mut Shell<'_>,
    streams: &Streams,
    flags: &Flags<'_>,
    path: &str,
    page: &Response,
) -> Done {
    let name = match flags.value('O') {
        Some("-") => {
            shell.print(streams, &page.body)?;
            return Ok(0);
        }
        Some("/dev/null") => return Ok(0),
        Some(name) => name.to_owned(),
        None => match path.rsplit('/').next().unwrap_or_default() {
            "" => "index.html".to_owned(),
            name => name.to_owned(),
        },
    };
    let file = shell.absolute(&name);
    shell.written.insert(file.clone(), Vec::new());
    shell.write(&Sink::File(file), page.body.as_bytes())?;
    if !flags.has('q') {
        complain(shell, streams, &format!("saving to '{name}'\n'{name}' saved"))?;
    }
    Ok(0)
}

pub(super) fn ping(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "cwWisI");
    let Some(host) = flags.rest.first().copied() else {
        complain(shell, streams, "ping: usage error: Destination address required")?;
        return Ok(1);
    };
    let is_busybox = shell.image != Image::Netshoot;
    let Some(address) = shell.address_of(host) else {
        let says = if is_busybox {
            format!("ping: bad address '{host}'")
        } else {
            format!("ping: {host}: Name does not resolve")
        };
        complain(shell, streams, &says)?;
        return Ok(if is_busybox { 1 } else { 2 });
    };
    let count = flags.value('c').and_then(|text| text.parse().ok()).unwrap_or(PACKETS_MAX);
    let (bytes, header) = if is_busybox {
        ("56 data bytes".to_owned(), format!("{host} ({address}): "))
    } else {
        ("56(84) bytes of data.".to_owned(), format!("{host} ({address}) "))
    };
    shell.print(streams, &format!("PING {header}{bytes}\n"))?;
    let is_up = shell.is_up(&address);
    let (mut sent, mut got) = (0, 0);
    let mut times: Vec<f64> = Vec::new();
    let mut interrupted = false;
    while sent < count && !interrupted {
        sent += 1;
        if is_up {
            got += 1;
            let mut random = Random::new(fnv1a(address.as_bytes()), sent);
            let time = random.between(300, 1_400) as f64 / 1_000.0;
            times.push(time);
            let (number, ttl) = if is_busybox { ("seq", 126) } else { ("icmp_seq", 126) };
            let first = if is_busybox { sent - 1 } else { sent };
            shell.print(
                streams,
                &format!("64 bytes from {address}: {number}={first} ttl={ttl} time={time:.3} ms\n"),
            )?;
        }
        if sent < count || !is_up {
            interrupted = match shell.pass(Duration::from_secs(1)) {
                Ok(()) => false,
                Err(Flow::Interrupt) => true,
                Err(flow) => return Err(flow),
            };
        }
    }
    let lost = (sent - got) * 100 / sent.max(1);
    let mut out = format!("\n--- {host} ping statistics ---\n");
    out += &if is_busybox {
        format!("{sent} packets transmitted, {got} packets received, {lost}% packet loss\n")
    } else {
        format!(
            "{sent} packets transmitted, {got} received, {lost}% packet loss, time {}ms\n",
            (sent - 1) * 1_000
        )
    };
    if !times.is_empty() {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let most = times.iter().copied().fold(0.0, f64::max);
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        out += &if is_busybox {
            format!("round-trip min/avg/max = {least:.3}/{mean:.3}/{most:.3} ms\n")
        } else {
            format!("rtt min/avg/max/mdev = {least:.3}/{mean:.3}/{most:.3}/0.000 ms\n")
        };
    }
    shell.print(streams, &out)?;
    if interrupted {
        return Err(Flow::Interrupt);
    }
    Ok(i32::from(got == 0))
}

pub(super) fn ip(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let words = arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-'));
    let what = words.take(1).next().unwrap_or("address").to_owned();
    if what.starts_with('r') {
        return route(shell, &[], streams);
    }
    if !(what.starts_with('a') || what.starts_with('l')) {
        complain(shell, streams, &format!("ip: Object \"{what}\" is unknown, try \"ip help\"."))?;
        return Ok(1);
    }
    let (address, prefix) = (shell.ip(), shell.prefix());
    let draw = fnv1a(address.as_bytes()).to_be_bytes();
    let hardware = format!(
        "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        draw[0] & 0xfc | 2,
        draw[1],
        draw[2],
        draw[3],
        draw[4],
        draw[5]
    );
    let mut out = "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000\n    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n".to_owned();
    if what.starts_with('a') {
        out +=
            "    inet 127.0.0.1/8 scope host lo\n       valid_lft forever preferred_lft forever\n";
    }
    out += &format!(
        "3: eth0@if4: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 9001 qdisc noqueue state UP group default \n    link/ether {hardware} brd ff:ff:ff:ff:ff:ff link-netnsid 0\n"
    );
    if what.starts_with('a') {
        out += &format!(
            "    inet {address}/{prefix} scope global eth0\n       valid_lft forever preferred_lft forever\n"
        );
    }
    shell.print(streams, &out).map(|()| 0)
}

pub(super) fn route(shell: &mut Shell<'_>, _: &[String], streams: &Streams) -> Done {
    shell
        .print(streams, "default via 169.254.1.1 dev eth0 \n169.254.1.1 dev eth0 scope link \n")
        .map(|()| 0)
}

pub(super) fn nslookup(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "");
    let Some(host) = flags.rest.first().copied() else { return Ok(1) };
    let server = shell.name_server();
    let mark = if shell.image == Image::Netshoot { '#' } else { ':' };
    let mut out = format!("Server:\t\t{server}\nAddress:\t{server}{mark}53\n\n");
    let found = shell.address_of(host).filter(|_| host.parse::<Ipv4Addr>().is_err());
    let code = match found {
        Some(address) => {
            let name = match shell.service_of(host) {
                Some(_) => shell.full_name(host),
                None => host.to_owned(),
            };
            out += &format!("Name:\t{name}\nAddress: {address}\n\n");
            0
        }
        None => {
            out += &format!("** server can't find {host}: NXDOMAIN\n\n");
            1
        }
    };
    shell.print(streams, &out)?;
    Ok(code)
}

pub(super) fn dig(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let is_short = arguments.iter().any(|word| word == "+short");
    let searches = arguments.iter().any(|word| word == "+search");
    let names = arguments.iter().filter(|word| !word.starts_with(['+', '-', '@']));
    let Some(host) = names.into_iter().find(|word| !["A", "in", "IN"].contains(&word.as_str()))
    else {
        return Ok(0);
    };
    // It does not go through the search list unless it is told to.
    let is_full = host.trim_end_matches('.').contains('.');
    let is_part = shell.service_of(host).is_some() && !host.contains("svc.cluster.local");
    let address = shell.address_of(host).filter(|_| (is_full && !is_part) || searches);
    let mut out = String::new();
    if is_short {
        out = address.map(|address| format!("{address}\n")).unwrap_or_default();
    } else {
        let status = if address.is_some() { "NOERROR" } else { "NXDOMAIN" };
        let name = format!("{}.", host.trim_end_matches('.'));
        out += &format!(
            ";; ->>HEADER<<- opcode: QUERY, status: {status}, id: 7\n;; QUESTION SECTION:\n;{name}\t\tIN\tA\n\n"
        );
        if let Some(address) = address {
            out += &format!(";; ANSWER SECTION:\n{name}\t5\tIN\tA\t{address}\n\n");
        }
        out += &format!(";; SERVER: {}#53\n", shell.name_server());
    }
    shell.print(streams, &out).map(|()| 0)
}

pub(super) fn host(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let Some(host) = arguments.first() else { return Ok(1) };
    match shell.address_of(host) {
        Some(address) => {
            let name = match shell.service_of(host) {
                Some(_) => shell.full_name(host),
                None => host.clone(),
            };
            shell.print(streams, &format!("{name} has address {address}\n")).map(|()| 0)
        }
        None => shell.print(streams, &format!("Host {host} not found: 3(NXDOMAIN)\n")).map(|()| 1),
    }
}

/// `nc -z HOST PORT`: whether somebody listens.
pub(super) fn nc(shell: &mut Shell<'_>, arguments: &[String], streams: &Streams) -> Done {
    let flags = Flags::of(arguments, "w");
    let [host, port] = flags.rest.as_slice() else { return Ok(1) };
    let port: u16 = port.parse().unwrap_or(0);
    match shell.fetch(host, port, "/") {
        Ok((address, _)) if flags.has('v') => {
            complain(shell, streams, &format!("{host} ({address}:{port}) open")).map(|()| 0)
        }
        Ok(_) => Ok(0),
        Err(Unanswered::NoHost) => {
            complain(shell, streams, &format!("nc: bad address '{host}'")).map(|()| 1)
        }
        Err(_) => Ok(1),
    }
}
