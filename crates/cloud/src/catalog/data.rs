//! The machine types of `data/ec2.csv` as values.
//!
//! The file is compiled into the program as text and read once, when it is first asked for: 120 KB
//! and 1,340 lines take well under a millisecond, and every name in a [`Machine`] borrows from the
//! program's own read-only pages.

use std::sync::LazyLock;

use wharf_model::money::Price;

/// The data file. `data/README.md` says what its columns mean.
const TEXT: &str = include_str!("../../data/ec2.csv");

/// What the file says of one instance type. Nothing here depends on a region but the price and the
/// zone letters, whose region is in their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The name (`c5a.2xlarge`).
    pub name: &'static str,
    /// `amd64` or `arm64`.
    pub arch: &'static str,
    /// Virtual CPUs with default CPU options.
    pub vcpus: u32,
    /// Memory in MiB, as EC2 states it.
    pub memory_mib: u64,
    /// `intel`, `amd` or `aws`.
    pub cpu_manufacturer: &'static str,
    /// Sustained clock in MHz; 0 where EC2 states none.
    pub clock_mhz: u32,
    /// `nitro`, `xen`, or empty for bare metal.
    pub hypervisor: &'static str,
    /// The machine is the whole server, with no hypervisor.
    pub bare_metal: bool,
    /// CPU use above a baseline spends credits.
    pub burstable: bool,
    /// EC2 counts the type to the current generation.
    pub current_generation: bool,
    /// Traffic between instances is encrypted by the hardware.
    pub encryption_in_transit: bool,
    /// The type can be bought as spot capacity.
    pub spot: bool,
    /// Network interfaces of the default network card, the only one the VPC CNI gives pods.
    pub enis: u32,
    /// IPv4 addresses per network interface.
    pub ipv4_per_eni: u32,
    /// Branch network interfaces for pods with security groups of their own.
    pub branch_enis: u32,
    /// Elastic Fabric Adapter interfaces.
    pub efa_interfaces: u32,
    /// Baseline network bandwidth in Mbit/s, where known.
    pub network_mbps: Option<u32>,
    /// Bandwidth to EBS in Mbit/s, where known.
    pub ebs_mbps: Option<u32>,
    /// Local disks in GB, all together.
    pub instance_store_gb: Option<u32>,
    /// The local disks are NVMe, not SATA or older.
    pub instance_store_nvme: bool,
    /// Graphics processors.
    pub gpu: Option<Gpu>,
    /// Accelerators of the Neuron family.
    pub accelerator: Option<Accelerator>,
    /// On-demand price in us-east-1: Linux, shared tenancy.
    pub usd_us_east_1: Price,
    /// Letters of the zones of us-east-1 that sell it.
    pub zones_us_east_1: &'static str,
    /// Letters of the zones of ap-northeast-2 that sell it; empty if none does.
    pub zones_ap_northeast_2: &'static str,
}

/// The graphics processors of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// `nvidia` or `amd`, or `habana` for Gaudi.
    pub manufacturer: &'static str,
    /// The model in lower kebab case (`a10g`).
    pub name: &'static str,
    /// How many; 0 where a machine has a fraction of one.
    pub count: u32,
    /// Memory of one of them in MiB.
    pub memory_mib: u32,
}

/// The machine-learning accelerators of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// `aws`.
    pub manufacturer: &'static str,
    /// The model (`inferentia2`).
    pub name: &'static str,
    /// How many devices.
    pub count: u32,
    /// Neuron cores per device.
    pub cores_per_device: u32,
}

impl Machine {
    /// The part of the name before the point (`c5a`).
    pub fn family(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(family, _)| family)
    }

    /// The part of the name after the point (`2xlarge`).
    pub fn size(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(_, size)| size)
    }
}

/// Every machine type of the data file, sorted by name.
pub fn machines() -> &'static [Machine] {
    static MACHINES: LazyLock<Box<[Machine]>> = LazyLock::new(|| {
        let machines = parse(TEXT).expect("the built-in data file is well formed");
        machines.into_boxed_slice()
    });
    &MACHINES
}

/// A line of the data file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the instance type data: column {column} is malformed")]
struct Malformed {
    line: usize,
    column: &'static str,
}

fn parse(text: &'static str) -> Result<Vec<Machine>, Malformed> {
    // The rows average 89 bytes; one allocation then serves all of them.
    let mut machines = Vec::with_capacity(text.len() / 85);
    let rows = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')).skip(1);
    for (index, line) in rows {
        let machine = parse_row(line).map_err(|column| Malformed { line: index + 1, column })?;
        machines.push(machine);
    }
    Ok(machines)
}

/// One row as a machine, or the name of the column that is wrong.
fn parse_row(line: &'static str) -> Result<Machine, &'static str> {
    let mut row = Row { fields: line.split(',') };
    let name = row.text("name")?;
    let arch = row.text("arch")?;
    let vcpus = row.number("vcpus")?;
    let memory_mib = row.number("memory_mib")?;
    let cpu_manufacturer = row.text("cpu")?;
    let clock_mhz = row.number("clock_mhz")?;
    let hypervisor = row.text("hypervisor")?;
    let flags = row.text("flags")?;
    let flag = |letter: u8| flags.as_bytes().contains(&letter);
    if !flags.bytes().all(|letter| b"mboesh".contains(&letter)) {
        return Err("flags");
    }
    let machine = Machine {
        name,
        arch,
        vcpus,
        memory_mib,
        cpu_manufacturer,
        clock_mhz,
        hypervisor,
        bare_metal: flag(b'm'),
        burstable: flag(b'b'),
        current_generation: !flag(b'o'),
        encryption_in_transit: flag(b'e'),
        spot: flag(b's'),
        enis: row.number("enis")?,
        ipv4_per_eni: row.number("ipv4")?,
        branch_enis: row.optional("branch")?.unwrap_or(0),
        efa_interfaces: row.optional("efa")?.unwrap_or(0),
        network_mbps: row.optional("network_mbps")?,
        ebs_mbps: row.optional("ebs_mbps")?,
        instance_store_gb: row.optional("store_gb")?,
        instance_store_nvme: !flag(b'h'),
        gpu: row.device("gpu")?.map(|(manufacturer, name, count, memory_mib)| Gpu {
            manufacturer,
            name,
            count,
            memory_mib,
        }),
        accelerator: row.device("accelerator")?.map(
            |(manufacturer, name, count, cores_per_device)| Accelerator {
                manufacturer,
                name,
                count,
                cores_per_device,
            },
        ),
        usd_us_east_1: row.text("usd_per_hour")?.parse().map_err(|_| "usd_per_hour")?,
        zones_us_east_1: row.text("zones_use1")?,
        zones_ap_northeast_2: row.text("zones_apne2")?,
    };
    if row.fields.next().is_some() { Err("(one too many)") } else { Ok(machine) }
}

/// The fields of a row that have not been read yet.
struct Row {
    fields: std::str::Split<'static, char>,
}

impl Row {
    fn text(&mut self, column: &'static str) -> Result<&'static str, &'static str> {
        self.fields.next().ok_or(column)
    }

    fn number<N: std::str::FromStr>(&mut self, column: &'static str) -> Result<N, &'static str> {
        self.text(column)?.parse().map_err(|_| column)
    }

    fn optional(&mut self, column: &'static str) -> Result<Option<u32>, &'static str> {
        match self.text(column)? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| column),
        }
    }

    /// `manufacturer:name:count:amount`, or nothing.
    fn device(
        &mut self,
        column: &'static str,
    ) -> Result<Option<(&'static str, &'static str, u32, u32)>, &'static str> {
        let text = self.text(column)?;
        if text.is_empty() {
            return Ok(None);
        }
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(column);
        let (manufacturer, name) = (next()?, next()?);
        let count = next()?.parse().map_err(|_| column)?;
        let amount = next()?.parse().map_err(|_| column)?;
        Ok(Some((manufacturer, name, count, amount)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str) -> &'static Machine {
        machines().iter().find(|machine| machine.name == name).unwrap()
    }

    #[test]
    fn the_file_has_every_type_once_and_in_order() {
        assert_eq!(machines().len(), 1_340);
        assert!(machines().windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn every_row_is_plausible() {
        for machine in machines() {
            let name = machine.name;
            assert!(["amd64", "arm64"].contains(&machine.arch), "{name}");
            assert!(["intel", "amd", "aws"].contains(&machine.cpu_manufacturer), "{name}");
            assert_eq!(machine.arch == "arm64", machine.cpu_manufacturer == "aws", "{name}");
            assert!(["nitro", "xen", ""].contains(&machine.hypervisor), "{name}");
            assert_eq!(machine.bare_metal, machine.hypervisor.is_empty(), "{name}");
            assert!((1..=1_000).contains(&machine.vcpus), "{name}");
            assert!((512..=64 << 20).contains(&machine.memory_mib), "{name}");
            assert!(machine.enis >= 2 && machine.ipv4_per_eni >= 2, "{name}");
            assert!(machine.usd_us_east_1 > Price::ZERO, "{name}");
            assert!(!machine.zones_us_east_1.is_empty(), "{name}");
            assert!(
                machine.zones_us_east_1.bytes().all(|zone| b"abcdef".contains(&zone)),
                "{name}"
            );
            assert!(
                machine.zones_ap_northeast_2.bytes().all(|zone| b"abcd".contains(&zone)),
                "{name}"
            );
            assert!(!machine.family().is_empty() && !machine.size().is_empty(), "{name}");
            assert!(machine.gpu.is_none() || machine.accelerator.is_none(), "{name}");
        }
    }

    #[test]
    fn known_rows_read_as_they_should() {
        let c5a = machine("c5a.2xlarge");
        assert_eq!((c5a.vcpus, c5a.memory_mib, c5a.clock_mhz), (8, 16_384, 3_300));
        assert_eq!((c5a.enis, c5a.ipv4_per_eni, c5a.branch_enis), (4, 15, 38));
        assert_eq!((c5a.network_mbps, c5a.ebs_mbps), (Some(2_500), Some(3_170)));
        assert_eq!(c5a.usd_us_east_1.to_string(), "0.308");
        assert_eq!((c5a.zones_us_east_1, c5a.zones_ap_northeast_2), ("abcdf", "abc"));
        assert!(c5a.spot && c5a.encryption_in_transit && c5a.current_generation);
        assert!(!c5a.bare_metal && !c5a.burstable && c5a.gpu.is_none());

        let p4d = machine("p4d.24xlarge");
        assert_eq!(p4d.usd_us_east_1.nano_dollars_per_hour(), 21_957_642_000);
        let a100 = Gpu { manufacturer: "nvidia", name: "a100", count: 8, memory_mib: 40_960 };
        assert_eq!(p4d.gpu, Some(a100));
        assert_eq!((p4d.enis, p4d.efa_interfaces, p4d.instance_store_gb), (15, 4, Some(8_000)));

        let trainium = machine("trn1.32xlarge").accelerator.unwrap();
        assert_eq!((trainium.name, trainium.count, trainium.cores_per_device), ("trainium", 16, 2));
        assert!(machine("t3.nano").burstable && machine("a1.metal").bare_metal);
        assert!(!machine("m1.small").instance_store_nvme && !machine("t2.nano").spot);
        assert!(machine("i4i.large").instance_store_nvme);
        assert!(!machine("m5.large").current_generation);
    }

    #[test]
    fn a_broken_file_is_noticed() {
        let table = [
            ("head\na1.large,arm64,two", 2, "vcpus"),
            ("# comment\nhead\na1.large", 3, "arch"),
            ("head\na,arm64,1,1,aws,1,nitro,xyz", 2, "flags"),
            ("head\na,arm64,1,1,aws,1,nitro,s,2,2,,,,,,nvidia:x,,0.1,a,", 2, "gpu"),
            ("head\na,arm64,1,1,aws,1,nitro,s,2,2,,,,,,,,free,a,", 2, "usd_per_hour"),
            ("head\na,arm64,1,1,aws,1,nitro,s,2,2,,,,,,,,0.1,a,,x", 2, "(one too many)"),
        ];
        for (text, line, column) in table {
            assert_eq!(parse(text), Err(Malformed { line, column }), "{text}");
        }
    }
}
