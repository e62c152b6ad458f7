//! The files and the environment that a process in a container sees: what the kubelet puts there, what
//! volumes bring, and a few of the system's.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMap, EnvVarSource, Node, Secret, Service, Volume, VolumeMount,
};
use wharf_model::instance::Instance;
use wharf_model::kinds::Kind;
use wharf_model::object::ObjectKey;
use wharf_model::quantity::Quantity;
use wharf_model::subnet::Subnet;

use super::{Shell, images::Image};

/// Where pods ask for names in a cluster without a Service `kube-dns`: EKS' address.
const DNS_ADDRESS: &str = "10.100.0.10";
/// Folders of every image.
const FOLDERS: [&str; 16] = [
    "/", "/bin", "/dev", "/etc", "/home", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin",
    "/sys", "/tmp", "/usr", "/usr/bin", "/var",
];
/// The page of `hpa-example`.
const HPA_EXAMPLE: &str = "<?php\n  $x = 0.0001;\n  for ($i = 0; $i <= 1000000; $i++) {\n    $x += sqrt($x);\n  }\n  echo \"OK!\";\n?>\n";
/// Variables of one process.
const ENVIRONMENT_MAX: usize = 4_096;

impl Shell<'_> {
    /// The content of a file.
    pub(super) fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.absolute(name);
        if let Some(text) = self.written.get(&path) {
            return Some(text.clone());
        }
        if let Some(text) = self.mounted(&path) {
            return Some(text);
        }
        Some(self.system_file(&path)?.into_bytes())
    }

    fn system_file(&self, path: &str) -> Option<String> {
        let text = match path {
            "/dev/null" => String::new(),
            "/etc/hostname" => format!("{}\n", self.host_name()),
            "/etc/hosts" => self.hosts(),
            "/etc/resolv.conf" => self.resolver(),
            "/etc/fstab" => self.file_systems(),
            "/etc/os-release" if self.image.release().is_empty() => return None,
            "/etc/os-release" => self.image.release().to_owned(),
            "/etc/passwd" => {
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"
                    .to_owned()
            }
            "/proc/1/cmdline" => super::first_process(self.container).join("\0"),
            "/proc/cpuinfo" => {
                (0..self.cores()).map(|core| format!("processor\t: {core}\n\n")).collect()
            }
            "/proc/meminfo" => {
                let total = self.memory_kib();
                format!("MemTotal:       {total:>8} kB\nMemAvailable:   {:>8} kB\n", total / 5 * 4)
            }
            "/proc/version" => format!("Linux version {} (gcc)\n", self.kernel()),
            "/proc/loadavg" => "0.00 0.00 0.00 1/120 7\n".to_owned(),
            "/var/www/html/index.php" if self.image == Image::Php => HPA_EXAMPLE.to_owned(),
            "/usr/share/nginx/html/index.html" if self.is_nginx() => crate::http::nginx_page(),
            _ => return None,
        };
        Some(text)
    }

    fn is_nginx(&self) -> bool {
        crate::program::image_name(self.container.image.as_deref().unwrap_or_default()) == "nginx"
    }

    /// A path from the root, without `.` and `..`.
    pub(super) fn absolute(&self, path: &str) -> String {
        let joined =
            if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.folder) };
        let mut parts: Vec<&str> = Vec::new();
        for part in joined.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }

    /// Whether a path is a folder.
    pub(super) fn is_folder(&self, path: &str) -> bool {
        FOLDERS.contains(&path)
            || path == self.image.folder()
            || self.container.working_dir.as_deref() == Some(path)
            || self.mounts().any(|mount| mount.mount_path.trim_end_matches('/') == path)
    }

    /// The names in a folder; nothing if there is no such folder.
    pub(super) fn names_in(&self, path: &str) -> Option<Vec<String>> {
        if !self.is_folder(path) {
            return None;
        }
        const KNOWN: [&str; 8] = [
            "/etc/hostname",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/etc/fstab",
            "/etc/os-release",
            "/etc/passwd",
            "/var/www/html/index.php",
            "/usr/share/nginx/html/index.html",
        ];
        let mounts = self.mounts().map(|mount| mount.mount_path.trim_end_matches('/').to_owned());
        let keys = self.mounts().flat_map(|mount| {
            let keys = self.keys_of(mount).unwrap_or_default();
            keys.into_keys().map(|key| format!("{}/{key}", mount.mount_path.trim_end_matches('/')))
        });
        let known = KNOWN.iter().filter(|path| self.system_file(path).is_some());
        let all = FOLDERS
            .iter()
            .chain(known)
            .map(|path| (*path).to_owned())
            .chain(mounts)
            .chain(keys)
            .chain(self.written.keys().cloned());
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let names: BTreeSet<String> = all
            .filter_map(|file| {
                let rest = file.strip_prefix(&prefix)?;
                let first = rest.split('/').next().unwrap_or(rest);
                (!first.is_empty()).then(|| first.to_owned())
            })
            .collect();
        Some(names.into_iter().collect())
    }

    pub(super) fn mounts(&self) -> impl Iterator<Item = &VolumeMount> {
        self.container.volume_mounts.iter().flatten()
    }

    pub(super) fn volume(&self, name: &str) -> Option<&Volume> {
        let volumes = self.pod.spec.as_ref()?.volumes.as_ref()?;
        volumes.iter().find(|volume| volume.name == name)
    }

    /// A file of a ConfigMap or a Secret that is mounted.
    fn mounted(&self, path: &str) -> Option<Vec<u8>> {
        self.mounts().find_map(|mount| {
            let keys = self.keys_of(mount)?;
            let folder = mount.mount_path.trim_end_matches('/');
            if let Some(key) = &mount.sub_path {
                return (path == folder).then(|| keys.get(key).cloned()).flatten();
            }
            keys.get(path.strip_prefix(folder)?.strip_prefix('/')?).cloned()
        })
    }

    /// The files that a mount brings.
    fn keys_of(&self, mount: &VolumeMount) -> Option<BTreeMap<String, Vec<u8>>> {
        let volume = self.volume(&mount.name)?;
        let namespace = self.namespace();
        if let Some(source) = &volume.config_map {
            let map: ConfigMap = self.object(namespace, &source.name)?;
            let all = map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
            return Some(chosen(all.collect(), source.items.as_deref()));
        }
        if let Some(source) = &volume.secret {
            let secret: Secret = self.object(namespace, source.secret_name.as_deref()?)?;
            let all = secret.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0));
            return Some(chosen(all.collect(), source.items.as_deref()));
        }
        // The volume of the service account; tokens are not modelled.
        let is_account = volume.projected.is_some() && volume.name.starts_with("kube-api-access-");
        is_account
            .then(|| BTreeMap::from([("namespace".to_owned(), namespace.as_bytes().to_vec())]))
    }

    fn hosts(&self) -> String {
        let host = self.host_name();
        let mut text = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n".to_owned();
        text += &format!("{}\t{host}\n", self.ip());
        for alias in self.pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
            let names = alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t");
            text += &format!("{}\t{names}\n", alias.ip);
        }
        text
    }

    /// Where the pod asks for names.
    pub(super) fn name_server(&self) -> String {
        let service: Option<Service> = self.object("kube-system", "kube-dns");
        let address = service.and_then(|service| service.spec?.cluster_ip);
        address.unwrap_or_else(|| DNS_ADDRESS.to_owned())
    }

    fn resolver(&self) -> String {
        let region = self.region();
        let of_region = if region == "us-east-1" {
            "ec2.internal".to_owned()
        } else {
            format!("{region}.compute.internal")
        };
        let policy = self.pod.spec.as_ref().and_then(|spec| spec.dns_policy.as_deref());
        let on_host = self.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        if policy == Some("Default") || (on_host && policy != Some("ClusterFirstWithHostNet")) {
            return format!("search {of_region}\nnameserver 169.254.169.253\n");
        }
        let namespace = self.namespace();
        format!(
            "search {namespace}.svc.cluster.local svc.cluster.local cluster.local {of_region}\nnameserver {}\noptions ndots:5\n",
            self.name_server()
        )
    }

    fn file_systems(&self) -> String {
        match self.image {
            Image::Alpine | Image::Netshoot => {
                "/dev/cdrom\t/media/cdrom\tiso9660\tnoauto,ro 0 0\n/dev/usbdisk\t/media/usb\tvfat\tnoauto\t0 0\n".to_owned()
            }
            Image::Debian | Image::Php => "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n".to_owned(),
            _ => String::new(),
        }
    }

    /// The pod's node.
    pub(super) fn node(&self) -> Option<Node> {
        let name = self.pod.spec.as_ref()?.node_name.as_deref()?;
        self.object("", name)
    }

    /// The machine under it.
    pub(super) fn machine(&self) -> Option<Instance> {
        let name = self.pod.spec.as_ref()?.node_name.as_deref()?.to_owned();
        let machines = self.host.list(Kind::of::<Instance>(), None);
        let mut machines = machines.iter().filter_map(|object| object.typed::<Instance>());
        machines.find(|machine| machine.spec.private_dns_name == name).cloned()
    }

    /// How long the prefix of the pod's address is: its subnet's on Fargate, else it stands alone.
    pub(super) fn prefix(&self) -> u8 {
        let subnet = self.machine().and_then(|machine| machine.spec.micro_vm).map(|vm| vm.subnet);
        let subnet =
            subnet.and_then(|name| self.host.get(Kind::of::<Subnet>(), &ObjectKey::cluster(&name)));
        let block =
            subnet.and_then(|object| Some(object.typed::<Subnet>()?.spec.cidr_block.clone()));
        let length = block.and_then(|block| block.rsplit_once('/')?.1.parse().ok());
        length.unwrap_or(32)
    }

    fn region(&self) -> String {
        let node = self.node();
        let labels = node.and_then(|node| node.metadata.labels).unwrap_or_default();
        let region = labels.get("topology.kubernetes.io/region").cloned();
        region.unwrap_or_else(|| "us-east-1".to_owned())
    }

    fn capacity(&self, resource: &str) -> Option<i64> {
        let node = self.node()?;
        let quantity = node.status?.capacity?.remove(resource)?;
        Some(Quantity::parse(&quantity.0).ok()?.value_ceil())
    }

    /// Processors of the machine.
    pub(super) fn cores(&self) -> i64 {
        self.capacity("cpu").unwrap_or(2).clamp(1, 1_024)
    }

    /// Its memory.
    pub(super) fn memory_kib(&self) -> i64 {
        self.capacity("memory").unwrap_or(4 << 30) / 1_024
    }

    pub(super) fn kernel(&self) -> String {
        let info = self.node().and_then(|node| node.status?.node_info);
        info.map_or_else(|| "6.1.0".to_owned(), |info| info.kernel_version)
    }

    /// Where the cluster's requests to the outside come from: the NAT gateway. An address from the range
    /// that RFC 5737 keeps for examples, one for each region.
    pub(super) fn public_address(&self) -> String {
        let draw = wharf_model::random::fnv1a(self.region().as_bytes());
        format!("203.0.113.{}", 1 + draw % 254)
    }

    /// The environment of a new process.
    pub(super) fn environment(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            if all.len() < ENVIRONMENT_MAX {
                all.insert(name.to_owned(), value);
            }
        };
        set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        set("HOSTNAME", self.host_name());
        set("HOME", "/root".to_owned());
        if self.tty {
            set("TERM", "xterm".to_owned());
        }
        for (name, value) in self.service_links() {
            set(&name, value);
        }
        for source in self.container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let map = source.config_map_ref.as_ref();
            let map: Option<ConfigMap> =
                map.and_then(|reference| self.object(self.namespace(), &reference.name));
            for (key, value) in map.and_then(|map| map.data).into_iter().flatten() {
                set(&format!("{prefix}{key}"), value);
            }
            let secret = source.secret_ref.as_ref();
            let secret: Option<Secret> =
                secret.and_then(|reference| self.object(self.namespace(), &reference.name));
            for (key, value) in secret.and_then(|secret| secret.data).into_iter().flatten() {
                set(&format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
        for variable in self.container.env.iter().flatten() {
            let value = match (&variable.value, &variable.value_from) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(source)) => self.value_from(source),
                (None, None) => Some(String::new()),
            };
            if let Some(value) = value {
                let value = references(&value, &all);
                if all.len() < ENVIRONMENT_MAX {
                    all.insert(variable.name.clone(), value);
                }
            }
        }
        all
    }

    /// The API's address and, if the pod wants that, those of the namespace's Services.
    fn service_links(&self) -> Vec<(String, String)> {
        let links =
            self.pod.spec.as_ref().is_none_or(|spec| spec.enable_service_links != Some(false));
        let own = self.namespace();
        let api = self.object::<Service>("default", "kubernetes");
        let others =
            if links { self.host.list(Kind::of::<Service>(), Some(own)) } else { Vec::new() };
        let others = others.iter().filter_map(|object| object.typed::<Service>().cloned());
        let mut all = Vec::new();
        for service in others.chain(api) {
            let name = service.metadata.name.unwrap_or_default();
            let name = name.to_uppercase().replace('-', "_");
            let Some(spec) = service.spec else { continue };
            let address =
                spec.cluster_ip.filter(|address| address != "None" && !address.is_empty());
            let port = spec.ports.iter().flatten().next().map(|port| port.port);
            let (Some(address), Some(port)) = (address, port) else { continue };
            all.push((format!("{name}_SERVICE_HOST"), address.clone()));
            all.push((format!("{name}_SERVICE_PORT"), port.to_string()));
            all.push((format!("{name}_PORT"), format!("tcp://{address}:{port}")));
        }
        all
    }

    fn value_from(&self, source: &EnvVarSource) -> Option<String> {
        let namespace = self.namespace();
        if let Some(field) = &source.field_ref {
            let meta = &self.pod.metadata;
            let spec = self.pod.spec.as_ref();
            let status = self.pod.status.as_ref();
            let of_map = |map: &Option<BTreeMap<String, String>>, prefix: &str| {
                let key = field.field_path.strip_prefix(prefix)?.strip_suffix("']")?;
                map.as_ref()?.get(key).cloned()
            };
            return match field.field_path.as_str() {
                "metadata.name" => meta.name.clone(),
                "metadata.namespace" => meta.namespace.clone(),
                "metadata.uid" => meta.uid.clone(),
                "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
                "spec.serviceAccountName" => {
                    spec.and_then(|spec| spec.service_account_name.clone())
                }
                "status.podIP" => status.and_then(|status| status.pod_ip.clone()),
                "status.hostIP" => status.and_then(|status| status.host_ip.clone()),
                _ => of_map(&meta.labels, "metadata.labels['")
                    .or_else(|| of_map(&meta.annotations, "metadata.annotations['")),
            };
        }
        if let Some(key) = &source.config_map_key_ref {
            return self.object::<ConfigMap>(namespace, &key.name)?.data?.remove(&key.key);
        }
        if let Some(key) = &source.secret_key_ref {
            let bytes = self.object::<Secret>(namespace, &key.name)?.data?.remove(&key.key)?;
            return Some(String::from_utf8_lossy(&bytes.0).into_owned());
        }
        let field = source.resource_field_ref.as_ref()?;
        let resources = self.container.resources.as_ref()?;
        let (list, name) = match field.resource.split_once('.')? {
            ("requests", name) => (resources.requests.as_ref()?, name),
            ("limits", name) => (resources.limits.as_ref()?, name),
            _ => return None,
        };
        let quantity = Quantity::parse(&list.get(name)?.0).ok()?;
        Some(quantity.value_ceil().to_string())
    }
}

/// The keys that a volume's `items` choose, under the names that they give.
fn chosen(
    mut all: BTreeMap<String, Vec<u8>>,
    items: Option<&[k8s_openapi::api::core::v1::KeyToPath]>,
) -> BTreeMap<String, Vec<u8>> {
    match items {
        None | Some([]) => all,
        Some(items) => items
            .iter()
            .filter_map(|item| Some((item.path.clone(), all.remove(&item.key)?)))
            .collect(),
    }
}

/// Replaces `$(NAME)` by variables that are there, as the kubelet does.
fn references(value: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(start) = rest.find("$(") {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        match after[2..].split_once(')') {
            Some((name, tail)) if known.contains_key(name) => {
                out.push_str(&known[name]);
                rest = tail;
            }
            _ => {
                out.push_str("$(");
                rest = &after[2..];
            }
        }
    }
    out + rest
}
