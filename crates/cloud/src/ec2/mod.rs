//! The simulated EC2: takes launches and terminations, and runs machines through their states.
//!
//! Its only state that counts is the `Instance` objects it writes, so that it survives a restart
//! with the cluster's own history. What it keeps besides (requests under way, timers, instances
//! written but not yet seen again) can be lost: a launch that is asked for again with the same
//! token gives the same machine, and timers are made anew from the objects.
//!
//! How long things take is in [`BootModel`]; who gets which address in the `network` module.
//! A launch takes one of what would do as its allocation strategy says, and of the subnets that it may
//! be in and that are in the chosen zone the one with the most free addresses. Behaviour:
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html>.

mod boot;
mod capacity_rule;
mod micro_vm;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use wharf_fargate::{size, start};
use wharf_model::instance::{Instance, InstanceState};
use wharf_model::kinds::Kind;
use wharf_model::money::Price;
use wharf_model::object::ObjectKey;
use wharf_model::time::Time;
use wharf_ports::cloud::{
    Allocation, Cloud, CloudEvent, CloudOutput, CloudRequest, LaunchError, LaunchOverride,
    LaunchRequest, Launched, MicroVmRequest,
};
use wharf_ports::cluster::{Delete, Part, Write};
use wharf_ports::view::View;

pub use boot::BootModel;
pub use capacity_rule::CapacityRule;
pub use micro_vm::CAPACITY_TYPE as FARGATE_CAPACITY_TYPE;
pub use network::{resource_id, zone_block};

/// The tag that keeps a launch's idempotency token.
pub const TOKEN_TAG: &str = "sim.wharf.dev/client-token";
/// The tag that names the NodeClaim, as Karpenter tags its instances.
pub const NODE_CLAIM_TAG: &str = "karpenter.sh/nodeclaim";

/// How long a terminated instance is kept, so that the ledger and people can still read it.
const KEEP_TERMINATED: Duration = Duration::from_hours(24);
/// After so long a write that has not shown up in the view is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// What a simulated EC2 is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Ec2Settings {
    /// The region.
    pub region: String,
    /// Seed of every draw.
    pub seed: u64,
    /// How long things take.
    pub boot: BootModel,
    /// Shortages.
    pub shortages: Vec<CapacityRule>,
    /// How many vCPUs Fargate may run at once: the account's quota. AWS begins with 6; here nothing
    /// limits it unless somebody says so.
    pub fargate_vcpus_max: Option<u32>,
}

impl Ec2Settings {
    /// A region without shortages.
    pub fn new(region: impl Into<String>, seed: u64) -> Self {
        Self {
            region: region.into(),
            seed,
            boot: BootModel::AL2023,
            shortages: Vec::new(),
            fargate_vcpus_max: None,
        }
    }
}

/// The simulated EC2 of one region.
#[derive(Debug)]
pub struct SimulatedEc2 {
    settings: Ec2Settings,
    /// Launches under way by token, with the time of the answer.
    launches: BTreeMap<String, (Time, Box<LaunchRequest>)>,
    /// Micro-VMs asked for, by token.
    micro_vms: BTreeMap<String, Box<MicroVmRequest>>,
    terminations: BTreeSet<String>,
    /// Answers to launches, held back until the view shows the instance: a cloud does not forget
    /// a machine it has told of, whatever happens to this process in between.
    announcements: BTreeMap<ObjectKey, CloudEvent>,
    /// When to look at an instance next.
    wakes: BTreeSet<(Time, ObjectKey)>,
    /// Instances as last written, until the view shows them so.
    unseen: BTreeMap<ObjectKey, (Time, Instance)>,
    /// Whether the timers of the instances that were there at the start have been made.
    started: bool,
    /// The machines there are; gathered once and kept, since a burst of launches would otherwise count
    /// all of them for each.
    fleet: Option<Fleet>,
}

impl SimulatedEc2 {
    /// A simulated EC2. It finds the instances of an earlier run in the view of the first poll.
    pub fn new(settings: Ec2Settings) -> Self {
        Self {
            settings,
            launches: BTreeMap::new(),
            micro_vms: BTreeMap::new(),
            terminations: BTreeSet::new(),
            announcements: BTreeMap::new(),
            wakes: BTreeSet::new(),
            unseen: BTreeMap::new(),
            started: false,
            fleet: None,
        }
    }

    /// Replaces the shortages.
    pub fn set_shortages(&mut self, shortages: Vec<CapacityRule>) {
        self.settings.shortages = shortages;
    }

    /// The instance as it will be once every write is seen.
    fn instance(&self, key: &ObjectKey, view: &View) -> Option<Instance> {
        match self.unseen.get(key) {
            Some((_, instance)) => Some(instance.clone()),
            None => view.get::<Instance>(key).cloned(),
        }
    }

    fn launch_due(&mut self, now: Time, view: &View, output: &mut CloudOutput) {
        let due: Vec<String> = self
            .launches
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(token, _)| token.clone())
            .collect();
        if due.is_empty() {
            return;
        }
        let mut fleet = self.take_fleet(view);
        for token in due {
            let Some((at, request)) = self.launches.remove(&token) else { continue };
            let there = fleet.by_token.get(&token).and_then(|key| self.instance(key, view));
            let instance = match there {
                Some(instance) => instance,
                None => match launch(&self.settings, &fleet, view, &request, at) {
                    Ok(instance) => {
                        fleet.add(&instance);
                        output.writes.push(Write::Create(Box::new(instance.clone())));
                        self.written(instance.clone(), now);
                        instance
                    }
                    Err(error) => {
                        output.events.push(CloudEvent::LaunchFailed {
                            token: request.token,
                            node_claim: request.node_claim,
                            error,
                        });
                        continue;
                    }
                },
            };
            let key = ObjectKey::of(&instance.metadata);
            let event = CloudEvent::Launched(Box::new(launched(&request, &instance)));
            self.announcements.insert(key.clone(), event);
            // The write is carried out before the next poll of the same moment.
            self.wakes.insert((now, key));
        }
        self.fleet = Some(fleet);
    }

    /// The machines there are, to be put back.
    fn take_fleet(&mut self, view: &View) -> Fleet {
        let unseen = self.unseen.values().map(|(_, instance)| instance);
        self.fleet.take().unwrap_or_else(|| Fleet::gather(view, unseen))
    }

    /// Starts the micro-VMs that were asked for. One that is there already needs no answer.
    fn start_micro_vms(&mut self, now: Time, view: &View, output: &mut CloudOutput) {
        if self.micro_vms.is_empty() {
            return;
        }
        let mut fleet = self.take_fleet(view);
        for (token, request) in std::mem::take(&mut self.micro_vms) {
            if fleet.by_token.contains_key(&token) {
                continue;
            }
            match micro_vm::launch(&self.settings, &fleet, view, &request, now) {
                Ok(instance) => {
                    fleet.add(&instance);
                    output.writes.push(Write::Create(Box::new(instance.clone())));
                    self.written(instance, now);
                }
                Err(error) => {
                    output.events.push(CloudEvent::MicroVmFailed { pod: request.pod, error });
                }
            }
        }
        self.fleet = Some(fleet);
    }

    /// Gives the answers whose instances the view shows.
    fn announce(&mut self, view: &View, output: &mut CloudOutput) {
        let seen = |key: &ObjectKey| view.object(Kind::of::<Instance>(), key).is_some();
        for (_, event) in self.announcements.extract_if(.., |key, _| seen(key)) {
            output.events.push(event);
        }
    }

    fn terminate_asked(&mut self, now: Time, view: &View, output: &mut CloudOutput) {
        for instance_id in std::mem::take(&mut self.terminations) {
            let key = ObjectKey::cluster(&instance_id);
            let Some(mut instance) = self.instance(&key, view) else {
                // EC2 says InvalidInstanceID.NotFound, which callers take for "gone".
                output.events.push(CloudEvent::Terminated { instance_id });
                continue;
            };
            match instance.status.state {
                InstanceState::Terminated => {
                    output.events.push(CloudEvent::Terminated { instance_id });
                }
                InstanceState::ShuttingDown => {}
                InstanceState::Pending | InstanceState::Running => {
                    let gone = match &instance.spec.micro_vm {
                        Some(vm) => now + start::stop(self.settings.seed, &vm.pod_uid),
                        None => boot::gone_at(
                            &self.settings.boot,
                            self.settings.seed,
                            &instance_id,
                            now,
                        ),
                    };
                    instance.status.state = InstanceState::ShuttingDown;
                    instance.status.shutting_down_at_nanos = Some(now.as_nanos());
                    instance.status.terminated_at_nanos = Some(gone.as_nanos());
                    output.writes.push(status_write(&instance));
                    self.written(instance, now);
                }
            }
        }
    }

    fn wake_due(&mut self, now: Time, view: &View, output: &mut CloudOutput) {
        while self.wakes.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.wakes.pop_first() else { break };
            self.resend(&key, now, view, output);
            let Some(mut instance) = self.instance(&key, view) else { continue };
            if remove_at(&instance).is_some_and(|at| at <= now) {
                if let Some(fleet) = &mut self.fleet {
                    fleet.forget(&instance);
                }
                if let Some(object) = view.object(Kind::of::<Instance>(), &key) {
                    output.writes.push(Write::Delete(Delete::of(object)));
                    self.wakes.insert((now + RETRY, key));
                }
                continue;
            }
            let state = state_at(&instance, now);
            if state != instance.status.state {
                instance.status.state = state;
                output.writes.push(status_write(&instance));
                if state == InstanceState::Terminated {
                    if let Some(fleet) = &mut self.fleet {
                        fleet.release(&instance);
                    }
                    let instance_id = key.name.to_string();
                    output.events.push(CloudEvent::Terminated { instance_id });
                }
                self.written(instance, now);
            } else if let Some(at) = next_change(&instance) {
                self.wakes.insert((at.max(now), key));
            }
        }
    }

    /// Notes a write that the view does not show yet, and when to look at the instance again.
    fn written(&mut self, instance: Instance, now: Time) {
        let key = ObjectKey::of(&instance.metadata);
        if let Some(at) = next_change(&instance) {
            self.wakes.insert((at, key.clone()));
        }
        self.wakes.insert((now + RETRY, key.clone()));
        self.unseen.insert(key, (now, instance));
    }

    /// Forgets a write that the view shows, and repeats one that it should show by now.
    fn resend(&mut self, key: &ObjectKey, now: Time, view: &View, output: &mut CloudOutput) {
        let Some((at, instance)) = self.unseen.get_mut(key) else { return };
        match view.get::<Instance>(key) {
            Some(seen) if seen.status == instance.status => {
                self.unseen.remove(key);
            }
            seen if *at + RETRY <= now => {
                output.writes.push(match seen {
                    Some(_) => status_write(instance),
                    None => Write::Create(Box::new(instance.clone())),
                });
                *at = now;
                self.wakes.insert((now + RETRY, key.clone()));
            }
            _ => {}
        }
    }
}

impl Cloud for SimulatedEc2 {
    fn submit(&mut self, request: CloudRequest, now: Time) {
        match request {
            CloudRequest::Launch(request) => {
                let takes =
                    boot::launch_call(&self.settings.boot, self.settings.seed, &request.token);
                self.launches.entry(request.token.clone()).or_insert((now + takes, request));
            }
            CloudRequest::LaunchMicroVm(request) => {
                self.micro_vms.entry(request.token.clone()).or_insert(request);
            }
            CloudRequest::Terminate { instance_id } => {
                self.terminations.insert(instance_id);
            }
        }
    }

    fn poll(&mut self, now: Time, view: &View, output: &mut CloudOutput) {
        if !self.started {
            self.started = true;
            self.wakes.extend(
                view.objects(Kind::of::<Instance>()).map(|object| (now, object.key().clone())),
            );
        }
        self.wake_due(now, view, output);
        self.terminate_asked(now, view, output);
        self.launch_due(now, view, output);
        self.start_micro_vms(now, view, output);
        self.announce(view, output);
    }

    fn next_wake(&self) -> Option<Time> {
        if !self.started || !self.terminations.is_empty() || !self.micro_vms.is_empty() {
            return Some(Time::EPOCH);
        }
        let launch = self.launches.values().map(|(at, _)| *at).min();
        let wake = self.wakes.first().map(|(at, _)| *at);
        launch.into_iter().chain(wake).min()
    }
}

/// What a launch has to know of the machines there are.
#[derive(Debug)]
struct Fleet {
    by_token: BTreeMap<String, ObjectKey>,
    ids: BTreeSet<String>,
    addresses: BTreeSet<Ipv4Addr>,
    per_zone: BTreeMap<String, usize>,
    per_subnet: BTreeMap<String, usize>,
    /// Thousandths of vCPUs that micro-VMs have.
    micro_vm_milli: u64,
}

impl Fleet {
    fn gather<'a>(view: &'a View, unseen: impl Iterator<Item = &'a Instance>) -> Self {
        let mut fleet = Self {
            by_token: BTreeMap::new(),
            ids: BTreeSet::new(),
            addresses: BTreeSet::new(),
            per_zone: BTreeMap::new(),
            per_subnet: BTreeMap::new(),
            micro_vm_milli: 0,
        };
        // What was written last counts, so it goes first: each id is added once.
        unseen.chain(view.list::<Instance>()).for_each(|instance| fleet.add(instance));
        fleet
    }

    fn add(&mut self, instance: &Instance) {
        let id = instance.metadata.name.clone().unwrap_or_default();
        if !self.ids.insert(id) {
            return;
        }
        if let Some(token) = instance.spec.tags.get(TOKEN_TAG) {
            self.by_token.insert(token.clone(), ObjectKey::of(&instance.metadata));
        }
        if instance.status.state == InstanceState::Terminated {
            return;
        }
        self.addresses.extend(instance.spec.private_ip.parse::<Ipv4Addr>().ok());
        if let Some(vm) = &instance.spec.micro_vm {
            *self.per_subnet.entry(vm.subnet.clone()).or_default() += 1;
            self.micro_vm_milli += size::cpu_milli_of(&vm.size);
            return;
        }
        *self.per_zone.entry(instance.spec.zone.clone()).or_default() += 1;
    }

    /// Gives back what a machine took that is no more.
    fn release(&mut self, instance: &Instance) {
        if let Ok(address) = instance.spec.private_ip.parse::<Ipv4Addr>() {
            self.addresses.remove(&address);
        }
        if let Some(vm) = &instance.spec.micro_vm {
            let milli = size::cpu_milli_of(&vm.size);
            self.micro_vm_milli = self.micro_vm_milli.saturating_sub(milli);
        }
        let count = match &instance.spec.micro_vm {
            Some(vm) => self.per_subnet.get_mut(&vm.subnet),
            None => self.per_zone.get_mut(&instance.spec.zone),
        };
        if let Some(count) = count {
            *count = count.saturating_sub(1);
        }
    }

    /// Forgets a machine that was released.
    fn forget(&mut self, instance: &Instance) {
        self.ids.remove(instance.metadata.name.as_deref().unwrap_or_default());
        if let Some(token) = instance.spec.tags.get(TOKEN_TAG) {
            self.by_token.remove(token);
        }
    }

    fn machines_in_subnet(&self, subnet: &str) -> usize {
        self.per_subnet.get(subnet).copied().unwrap_or(0)
    }

    fn machines_in(&self, zone: &str) -> usize {
        self.per_zone.get(zone).copied().unwrap_or(0)
    }
}

fn launch(
    settings: &Ec2Settings,
    fleet: &Fleet,
    view: &View,
    request: &LaunchRequest,
    now: Time,
) -> Result<Instance, LaunchError> {
    let (short, mut offered): (Vec<_>, Vec<_>) = request.overrides.iter().partition(|wanted| {
        settings.shortages.iter().any(|rule| rule.applies(wanted, &request.capacity_type, now))
    });
    if offered.is_empty() {
        return Err(insufficient_capacity(&short));
    }
    if request.allocation == Allocation::LowestPrice {
        offered.sort_by_key(|offer| {
            (offer.price, fleet.machines_in(&offer.zone), &offer.zone, &offer.instance_type)
        });
    }
    let draw = boot::draw(&settings.boot, settings.seed, &request.token);
    let mut full = BTreeMap::new();
    let found = offered.into_iter().find_map(|offer| {
        if full.contains_key(offer.zone.as_str()) {
            return None;
        }
        let hint = draw.address_hint;
        match network::place(view, &fleet.addresses, &offer.zone, &request.subnets, hint) {
            Ok(place) => Some((offer, place)),
            Err(refused) => {
                full.insert(offer.zone.as_str(), refused);
                None
            }
        }
    });
    let Some((chosen, place)) = found else {
        let messages: Vec<String> = full.into_values().collect();
        return Err(LaunchError::Api {
            code: network::NO_ADDRESS.to_owned(),
            message: messages.join(" "),
        });
    };
    let mut instance = Instance::default();
    let dns_name = match request.managed {
        // Subnets of Auto Mode name machines by their ids, and nodes go by the id alone.
        true => draw.instance_id.clone(),
        false => network::private_dns_name(place.address, &settings.region),
    };
    instance.metadata.name = Some(draw.instance_id);
    let spec = &mut instance.spec;
    spec.instance_type.clone_from(&chosen.instance_type);
    spec.capacity_type.clone_from(&request.capacity_type);
    spec.region.clone_from(&settings.region);
    spec.zone.clone_from(&chosen.zone);
    spec.zone_id.clone_from(&chosen.zone_id);
    spec.private_ip = place.address.to_string();
    spec.private_dns_name = dns_name;
    spec.subnet_id = place.subnet;
    spec.managed = request.managed;
    spec.fee_nanos_per_hour = chosen.fee.nano_dollars_per_hour();
    spec.image_id.clone_from(&request.image_id);
    spec.price_nanos_per_hour = chosen.price.nano_dollars_per_hour();
    spec.tags.clone_from(&request.tags);
    spec.tags.insert(TOKEN_TAG.to_owned(), request.token.clone());
    if !request.node_claim.is_empty() {
        spec.tags.insert(NODE_CLAIM_TAG.to_owned(), request.node_claim.clone());
    }
    spec.kubelet.clone_from(&request.kubelet);
    spec.kubelet.capacity.clone_from(&chosen.capacity);
    spec.kubelet.allocatable.clone_from(&chosen.allocatable);
    let registers = now + draw.registration;
    instance.status.state = InstanceState::Pending;
    instance.status.launched_at_nanos = now.as_nanos();
    instance.status.running_at_nanos = (now + draw.running).as_nanos();
    instance.status.registers_at_nanos = registers.as_nanos();
    instance.status.ready_at_nanos = (registers + draw.ready).as_nanos();
    Ok(instance)
}

fn insufficient_capacity(short: &[&LaunchOverride]) -> LaunchError {
    let pools: Vec<(String, String)> = short
        .iter()
        .map(|pool| (pool.instance_type.clone(), pool.zone.clone()))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let message = match pools.first() {
        Some((instance_type, zone)) => format!(
            "We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested ({zone})."
        ),
        None => "the request names no type and zone to launch".to_owned(),
    };
    LaunchError::InsufficientCapacity { pools, message }
}

fn launched(request: &LaunchRequest, instance: &Instance) -> Launched {
    let spec = &instance.spec;
    Launched {
        token: request.token.clone(),
        node_claim: request.node_claim.clone(),
        instance_id: instance.metadata.name.clone().unwrap_or_default(),
        chosen: LaunchOverride {
            instance_type: spec.instance_type.clone(),
            zone: spec.zone.clone(),
            zone_id: spec.zone_id.clone(),
            price: Price::from_nano_dollars_per_hour(spec.price_nanos_per_hour),
            fee: Price::from_nano_dollars_per_hour(spec.fee_nanos_per_hour),
            capacity: spec.kubelet.capacity.clone(),
            allocatable: spec.kubelet.allocatable.clone(),
        },
        capacity_type: spec.capacity_type.clone(),
        image_id: spec.image_id.clone(),
    }
}

fn status_write(instance: &Instance) -> Write {
    let mut object = instance.clone();
    object.metadata.resource_version = None;
    Write::Update { object: Box::new(object), part: Part::Status }
}

/// The state that the plan in the status gives at `now`.
fn state_at(instance: &Instance, now: Time) -> InstanceState {
    let status = &instance.status;
    match status.state {
        InstanceState::Pending if status.running_at_nanos <= now.as_nanos() => {
            InstanceState::Running
        }
        InstanceState::ShuttingDown
            if status.terminated_at_nanos.is_some_and(|at| at <= now.as_nanos()) =>
        {
            InstanceState::Terminated
        }
        state => state,
    }
}

/// When the plan changes the instance next.
fn next_change(instance: &Instance) -> Option<Time> {
    match instance.status.state {
        InstanceState::Pending => Some(Time::from_nanos(instance.status.running_at_nanos)),
        InstanceState::Running => None,
        InstanceState::ShuttingDown => instance.status.terminated_at_nanos.map(Time::from_nanos),
        InstanceState::Terminated => remove_at(instance),
    }
}

/// When a terminated instance is forgotten.
fn remove_at(instance: &Instance) -> Option<Time> {
    (instance.status.state == InstanceState::Terminated)
        .then_some(instance.status.terminated_at_nanos)
        .flatten()
        .map(|at| Time::from_nanos(at) + KEEP_TERMINATED)
}

#[cfg(test)]
mod tests;
