//! The instance types of a node class: from the region's catalogue, by what the class says of its
//! nodes, less what the cloud is out of.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use wharf_cloud::catalog::{
    AmiFamily, BlockDevice, InstanceStorePolicy, KubeletSettings, NodeSettings,
};
use wharf_model::karpenter::EC2NodeClass;
use wharf_model::quantity::Quantity;
use wharf_model::resources::CPU;
use wharf_model::time::Time;
use wharf_provision::catalog::Catalog;

use super::class::NodeClass;
use super::shared::{CompiledCatalog, Shared};

impl Shared {
    /// The compiled instance types of a node class; kept until the class or what is available
    /// changes.
    pub(super) fn instance_types(&self, class: NodeClass<'_>, now: Time) -> Arc<Catalog> {
        let name = class.catalog_key();
        let settings = class.settings();
        let mut memory = self.memory();
        let unavailable = memory.unavailable(now);
        let fresh = |compiled: &&CompiledCatalog| {
            compiled.settings == settings && compiled.unavailable == unavailable
        };
        if let Some(compiled) = memory.catalogs.get(&name).filter(fresh) {
            return Arc::clone(&compiled.catalog);
        }
        let mut types = self.cloud.instance_types(&settings);
        for machine in &mut types {
            for offering in &mut machine.offerings {
                let key = (offering.capacity_type, (&*machine.name).into(), offering.zone.clone());
                offering.available &= !unavailable.contains(&key);
            }
        }
        let catalog = Arc::new(Catalog::new(types));
        memory.changes += 1;
        let compiled = CompiledCatalog { settings, unavailable, catalog: Arc::clone(&catalog) };
        memory.catalogs.insert(name, compiled);
        catalog
    }
}

/// What a node class says of its nodes. What cannot be read counts as not said: the API server and
/// the class's own validation tell the user.
pub(super) fn node_settings(class: &EC2NodeClass) -> NodeSettings {
    let kubelet = &class.spec.kubelet;
    let amounts = |map: BTreeMap<&str, &str>| -> BTreeMap<CompactString, i64> {
        let amount = |(name, text): (&str, &str)| {
            let quantity = Quantity::parse(text).ok()?;
            let amount =
                if name == CPU { quantity.milli_value_ceil() } else { quantity.value_ceil() };
            Some((name.into(), amount))
        };
        map.into_iter().filter_map(amount).collect()
    };
    let eviction = kubelet.eviction_hard();
    let threshold = |signal: &str| eviction.get(signal).and_then(|text| text.parse().ok());
    let positive = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    NodeSettings {
        ami_family: class.ami_family().parse().unwrap_or(AmiFamily::Custom),
        kubelet: KubeletSettings {
            max_pods: positive(kubelet.max_pods()),
            pods_per_core: positive(kubelet.pods_per_core()),
            kube_reserved: amounts(kubelet.kube_reserved()),
            system_reserved: amounts(kubelet.system_reserved()),
            eviction_memory: threshold("memory.available"),
            eviction_ephemeral_storage: threshold("nodefs.available"),
        },
        block_devices: class
            .spec
            .block_device_mappings
            .iter()
            .map(|mapping| BlockDevice {
                device_name: mapping.device_name.as_deref().unwrap_or_default().into(),
                size_bytes: mapping
                    .ebs
                    .as_ref()
                    .and_then(|ebs| Quantity::try_from(ebs.volume_size.as_ref()?).ok())
                    .map(|size| size.value_ceil()),
                root_volume: mapping.root_volume == Some(true),
            })
            .collect(),
        instance_store_policy: (class.spec.instance_store_policy.as_deref() == Some("RAID0"))
            .then_some(InstanceStorePolicy::Raid0),
        zones: Some(
            class.status.subnets.iter().map(|subnet| subnet.zone.as_str().into()).collect(),
        ),
        ..NodeSettings::default()
    }
}
