//! What images bring: shells, tools, and what their containers run by themselves.
//!
//! A short table of the images that labs use. An image that is not in it has what Alpine has.

use k8s_openapi::api::core::v1::Container;
use wharf_model::random::{Random, fnv1a};

use super::tools;
use crate::program::image_name;

/// A family of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// `busybox`.
    Busybox,
    /// `alpine`, and every image that is not in the table.
    Alpine,
    /// Debian without tools for networks: the official nginx, httpd, python, redis.
    Debian,
    /// PHP's old image, from which `hpa-example` is made.
    Php,
    /// `nicolaka/netshoot`.
    Netshoot,
    /// Amazon Linux.
    Amazon,
    /// One program and nothing else.
    Distroless,
}

/// Images of one program, by the end of their names.
const DISTROLESS: [&str; 30] = [
    "pause",
    "coredns",
    "kube-proxy",
    "metrics-server",
    "controller",
    "karpenter",
    "cluster-autoscaler",
    "cluster-proportional-autoscaler-amd64",
    "cluster-proportional-autoscaler",
    "cpa",
    "cpvpa",
    "vpa-recommender",
    "vpa-updater",
    "vpa-admission-controller",
    "aws-load-balancer-controller",
    "aws-ebs-csi-driver",
    "external-dns",
    "keda",
    "keda-metrics-apiserver",
    "keda-admission-webhooks",
    "kube-state-metrics",
    "node-exporter",
    "etcd",
    "kube-apiserver",
    "kube-scheduler",
    "kube-controller-manager",
    "eks-pod-identity-agent",
    "hello-world",
    "stress",
    "agnhost-distroless",
];

/// What every shell's image has.
const BASE: [&str; 35] = [
    "sh", "cat", "ls", "echo", "printf", "env", "printenv", "hostname", "head", "tail", "wc",
    "grep", "date", "sleep", "id", "whoami", "uname", "nproc", "df", "true", "false", "pwd", "tr",
    "sort", "uniq", "cut", "seq", "test", "[", "basename", "dirname", "uptime", "mount", "touch",
    "yes",
];
/// What busybox has besides.
const OF_BUSYBOX: [&str; 15] = [
    "ash", "ip", "ifconfig", "ping", "wget", "nslookup", "top", "ps", "free", "nc", "arp", "route",
    "kill", "watch", "clear",
];

impl Image {
    /// Which an image is.
    pub(super) fn of(image: &str) -> Self {
        let name = image_name(image);
        match name {
            "busybox" => Self::Busybox,
            "netshoot" => Self::Netshoot,
            "hpa-example" | "php" => Self::Php,
            "nginx" | "httpd" | "debian" | "ubuntu" | "python" | "node" | "redis" | "postgres"
            | "mysql" | "bash" => Self::Debian,
            "amazonlinux" | "aws-cli" | "centos" | "fedora" => Self::Amazon,
            name if DISTROLESS.contains(&name) => Self::Distroless,
            _ => Self::Alpine,
        }
    }

    /// Whether a command is there.
    pub(super) fn has(self, name: &str) -> bool {
        let base = || BASE.contains(&name);
        match self {
            Self::Distroless => false,
            Self::Busybox | Self::Alpine => base() || OF_BUSYBOX.contains(&name),
            Self::Debian => base() || ["bash", "dash", "curl"].contains(&name),
            Self::Php => {
                base() || ["bash", "dash", "curl", "top", "ps", "free", "php"].contains(&name)
            }
            Self::Amazon => base() || ["bash", "curl"].contains(&name),
            Self::Netshoot => {
                base()
                    || OF_BUSYBOX.contains(&name)
                    || ["bash", "zsh", "curl", "dig", "host", "lsblk"].contains(&name)
            }
        }
    }

    /// What comes before what the shell complains of.
    pub(super) fn shell_name(self) -> &'static str {
        match self {
            Self::Amazon => "bash",
            _ => "sh",
        }
    }

    /// Where a shell starts.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Php => "/var/www/html",
            Self::Netshoot => "/root",
            _ => "/",
        }
    }

    /// The text of `/etc/os-release`.
    pub(super) fn release(self) -> &'static str {
        match self {
            Self::Busybox | Self::Distroless => "",
            Self::Alpine | Self::Netshoot => {
                "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.21.3\nPRETTY_NAME=\"Alpine Linux v3.21\"\nHOME_URL=\"https://alpinelinux.org/\"\n"
            }
            Self::Debian => {
                "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n"
            }
            Self::Php => {
                "PRETTY_NAME=\"Debian GNU/Linux 8 (jessie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"8\"\nVERSION=\"8 (jessie)\"\nID=debian\n"
            }
            Self::Amazon => {
                "NAME=\"Amazon Linux\"\nVERSION=\"2023\"\nID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\nPRETTY_NAME=\"Amazon Linux 2023\"\n"
            }
        }
    }
}

/// The kinds of shell, which differ in their prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShellKind {
    Ash,
    Bash,
    Zsh,
}

impl ShellKind {
    /// What stands before what is typed.
    pub(super) fn prompt(self, host: &str, folder: &str) -> String {
        let short = if folder == "/root" { "~" } else { folder };
        match self {
            Self::Ash => format!("{short} # "),
            Self::Bash => format!("root@{host}:{short}# "),
            Self::Zsh => format!(" {host}  {short}  "),
        }
    }
}

/// Which shell a command is.
pub(super) fn shell_of(name: &str) -> Option<ShellKind> {
    match name {
        "sh" | "ash" | "dash" => Some(ShellKind::Ash),
        "bash" => Some(ShellKind::Bash),
        "zsh" => Some(ShellKind::Zsh),
        _ => None,
    }
}

/// What an image runs by itself, and whether arguments are arguments of that.
pub(super) fn entry_point(image: &str) -> Option<(&'static str, bool)> {
    match image_name(image) {
        "busybox" => Some(("sh", false)),
        "alpine" | "ubuntu" | "debian" => Some(("/bin/sh", false)),
        "bash" | "amazonlinux" | "centos" | "fedora" => Some(("/bin/bash", false)),
        "netshoot" => Some(("zsh", false)),
        "stress" => Some(("stress", true)),
        _ => None,
    }
}

/// Why a container runtime cannot start a command in a container, in containerd's and runc's words;
/// nothing if it can. `draw` makes up the id that runc gives it.
pub fn start_refusal(container: &Container, command: &[String], draw: u64) -> Option<String> {
    let first = command.first()?;
    let image = Image::of(container.image.as_deref().unwrap_or_default());
    let name = first.rsplit('/').next().unwrap_or(first);
    let known = image.has(name) && (shell_of(name).is_some() || tools::find(name).is_some());
    // A path has to be one where commands are.
    let in_place = match first.rsplit_once('/') {
        None => true,
        Some((folder, _)) => {
            ["/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/local/bin"].contains(&folder)
        }
    };
    if known && in_place {
        return None;
    }
    let why = if first.contains('/') {
        format!("stat {first}: no such file or directory")
    } else {
        "executable file not found in $PATH".to_owned()
    };
    let id = Random::new(fnv1a(first.as_bytes()), draw).hex(64);
    Some(format!(
        "failed to exec in container: failed to start exec \"{id}\": OCI runtime exec failed: exec failed: unable to start container process: exec: {first:?}: {why}: unknown"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_commands_can_be_started() {
        for (image, command, starts) in [
            ("busybox:1.28", "sh", true),
            ("busybox:1.28", "/bin/sh", true),
            ("busybox:1.28", "bash", false),
            ("busybox:1.28", "/opt/sh", false),
            ("nicolaka/netshoot", "zsh", true),
            ("nicolaka/netshoot:v0.13", "dig", true),
            ("nginx:1.27", "curl", true),
            ("nginx:1.27", "ping", false),
            ("registry.k8s.io/hpa-example", "top", true),
            ("public.ecr.aws/eks-distro/kubernetes/pause:3.7", "sh", false),
            ("602401143452.dkr.ecr.us-east-1.amazonaws.com/eks/coredns:v1.11.4", "sh", false),
            ("example.com/unknown:1", "sh", true),
        ] {
            let container = Container { image: Some(image.to_owned()), ..Container::default() };
            let refusal = start_refusal(&container, &[command.to_owned()], 1);
            assert_eq!(refusal.is_none(), starts, "{image} {command}: {refusal:?}");
        }
    }

    #[test]
    fn refusals_in_the_runtimes_words() {
        let container = Container { image: Some("pause:3.9".to_owned()), ..Container::default() };
        let refusal = |command: &str| start_refusal(&container, &[command.to_owned()], 1);
        let text = refusal("sh").expect("it cannot");
        let (head, tail) =
            text.split_at("failed to exec in container: failed to start exec \"".len());
        assert_eq!(head, "failed to exec in container: failed to start exec \"");
        assert_eq!(
            &tail[64..],
            "\": OCI runtime exec failed: exec failed: unable to start container process: exec: \"sh\": executable file not found in $PATH: unknown"
        );
        let text = refusal("/bin/bash").expect("it cannot");
        assert!(
            text.ends_with(
                "exec: \"/bin/bash\": stat /bin/bash: no such file or directory: unknown"
            )
        );
    }
}
