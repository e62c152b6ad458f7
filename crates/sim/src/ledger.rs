//! The money ledger: instance × price × seconds, in whole nano-dollars. Every amount in a report
//! can be unfolded to these lines.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use wharf_controllers::nodegroups::group_of;
use wharf_model::auto_mode::fee as auto_mode_fee;
use wharf_model::balancing::LoadBalancer;
use wharf_model::instance::Instance;
use wharf_model::money::{Billing, Money, Price};
use wharf_model::time::Time;

/// The width of the column of ids that no id is too long for.
const ID_WIDTH_MIN: usize = 20;

/// Each hour that is begun. What goes through a load balancer (capacity units) is not counted.
const BALANCER_BILLING: Billing = Billing { granularity_ns: HOUR_NS, minimum_ns: HOUR_NS };
const HOUR_NS: u64 = 3_600_000_000_000;

/// What one machine has cost so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Instance id.
    pub instance: String,
    /// EC2 instance type.
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// `on-demand`, `spot` or `reserved`.
    pub capacity_type: String,
    /// The managed node group, if it is of one.
    pub node_group: Option<String>,
    /// Price per hour, fixed at launch.
    pub price: Price,
    /// When billing began.
    pub from: Time,
    /// When billing ended, or the time of the report.
    pub until: Time,
    /// Whether it is still billed.
    pub running: bool,
    /// What is owed for the machine.
    pub cost: Money,
    /// What EKS Auto Mode takes per hour on top; nothing for machines that it does not run.
    pub fee: Price,
    /// What is owed to it.
    pub fee_cost: Money,
}

impl Line {
    /// The line of one machine at `now`; `None` while it is not billed yet.
    pub fn of(instance: &Instance, now: Time) -> Option<Self> {
        let (from, until) = instance.status.billed(now)?;
        let price = Price::from_nano_dollars_per_hour(instance.spec.price_nanos_per_hour);
        let elapsed = u64::try_from(until.since(from).as_nanos()).unwrap_or(u64::MAX);
        let billing = match instance.spec.micro_vm {
            Some(_) => wharf_fargate::price::BILLING,
            None => Billing::EC2_LINUX,
        };
        let fee = Price::from_nano_dollars_per_hour(instance.spec.fee_nanos_per_hour);
        let fee_cost = match instance.spec.fee_nanos_per_hour {
            0 => Money::default(),
            _ => auto_mode_fee::BILLING.cost(fee, elapsed),
        };
        Some(Self {
            instance: instance.metadata.name.clone().unwrap_or_default(),
            instance_type: instance.spec.instance_type.clone(),
            zone: instance.spec.zone.clone(),
            capacity_type: instance.spec.capacity_type.clone(),
            node_group: group_of(instance).map(str::to_owned),
            price,
            from,
            until,
            running: instance.status.shutting_down_at_nanos.is_none()
                && instance.status.terminated_at_nanos.is_none(),
            cost: billing.cost(price, elapsed),
            fee,
            fee_cost,
        })
    }

    /// What is owed in all.
    pub fn total(&self) -> Money {
        self.cost + self.fee_cost
    }

    /// The line of a load balancer at `now`; `None` while it is not billed yet.
    pub fn of_balancer(balancer: &LoadBalancer, now: Time) -> Option<Self> {
        let status = &balancer.status;
        let from = Time::from_nanos(status.active_at_nanos?);
        let deleted = status.deleted_at_nanos.map(Time::from_nanos);
        let until = deleted.unwrap_or(now).min(now).max(from);
        let price = Price::from_nano_dollars_per_hour(balancer.spec.price_nanos_per_hour);
        let elapsed = u64::try_from(until.since(from).as_nanos()).unwrap_or(u64::MAX);
        Some(Self {
            instance: balancer.spec.name.clone(),
            instance_type: if balancer.spec.type_ == "network" { "nlb" } else { "alb" }.to_owned(),
            zone: "-".to_owned(),
            capacity_type: "on-demand".to_owned(),
            node_group: None,
            price,
            from,
            until,
            running: deleted.is_none(),
            cost: BALANCER_BILLING.cost(price, elapsed),
            fee: Price::ZERO,
            fee_cost: Money::default(),
        })
    }

    /// How long it has been in use.
    pub fn elapsed(&self) -> Duration {
        self.until.since(self.from)
    }
}

/// The ledger: one line for each machine that was ever billed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The lines, in the order in which billing began, then by instance id.
    pub lines: Vec<Line>,
}

impl Ledger {
    /// The ledger over these machines at `now`.
    pub fn of<'a>(instances: impl IntoIterator<Item = &'a Instance>, now: Time) -> Self {
        let mut lines: Vec<Line> =
            instances.into_iter().filter_map(|instance| Line::of(instance, now)).collect();
        lines.sort_by(|a, b| (a.from, &a.instance).cmp(&(b.from, &b.instance)));
        Self { lines }
    }

    /// The same with the lines of load balancers.
    #[must_use]
    pub fn and_balancers<'a>(
        mut self,
        balancers: impl IntoIterator<Item = &'a LoadBalancer>,
        now: Time,
    ) -> Self {
        let lines = balancers.into_iter().filter_map(|balancer| Line::of_balancer(balancer, now));
        self.lines.extend(lines);
        self.lines.sort_by(|a, b| (a.from, &a.instance).cmp(&(b.from, &b.instance)));
        self
    }

    /// The sum of all lines, fees included.
    pub fn total(&self) -> Money {
        self.lines.iter().map(Line::total).sum()
    }

    /// What is owed to EKS Auto Mode.
    pub fn fees(&self) -> Money {
        self.lines.iter().map(|line| line.fee_cost).sum()
    }

    /// What the machines of each managed node group have cost, and how many they were.
    pub fn node_groups(&self) -> BTreeMap<&str, (usize, Money)> {
        let mut groups: BTreeMap<&str, (usize, Money)> = BTreeMap::new();
        for line in &self.lines {
            let Some(group) = &line.node_group else { continue };
            let (machines, cost) = groups.entry(group).or_default();
            *machines += 1;
            *cost += line.cost;
        }
        groups
    }

    /// What the running machines cost per hour, fees included.
    pub fn rate(&self) -> Price {
        let running = || self.lines.iter().filter(|line| line.running);
        running().map(|line| line.price).sum::<Price>().saturating_add(self.fee_rate())
    }

    /// What EKS Auto Mode takes of the running machines per hour.
    pub fn fee_rate(&self) -> Price {
        self.lines.iter().filter(|line| line.running).map(|line| line.fee).sum()
    }

    /// The ledger as a table for people.
    pub fn to_text(&self) -> String {
        // Ids of EC2's instances fit; those of Fargate's machines are longer.
        let ids = self.lines.iter().map(|line| line.instance.len());
        let width = ids.chain([ID_WIDTH_MIN]).max().unwrap_or(ID_WIDTH_MIN);
        let mut text = format!(
            "{:<width$} TYPE           ZONE              CAPACITY     USD/HOUR   IN USE      USD\n",
            "INSTANCE"
        );
        for line in &self.lines {
            let seconds = line.elapsed().as_secs();
            let in_use = format!(
                "{}h{:02}m{:02}s{}",
                seconds / 3_600,
                seconds / 60 % 60,
                seconds % 60,
                if line.running { "+" } else { "" }
            );
            text.push_str(&format!(
                "{:<width$} {:<14} {:<17} {:<12} {:<10} {:<11} {}\n",
                line.instance,
                line.instance_type,
                line.zone,
                line.capacity_type,
                line.price.to_string(),
                in_use,
                line.cost.rounded(6).trim_start_matches('$'),
            ));
        }
        for (group, (machines, cost)) in self.node_groups() {
            text.push_str(&format!(
                "node group {group} {} for {machines} machine{}\n",
                cost.rounded(6),
                if machines == 1 { "" } else { "s" },
            ));
        }
        text.push_str(&format!(
            "total {} for {} machine{}, {} per hour now\n",
            self.total().rounded(6),
            self.lines.len(),
            if self.lines.len() == 1 { "" } else { "s" },
            Money::from_nano_dollars(i128::from(self.rate().nano_dollars_per_hour())).rounded(4),
        ));
        let managed = self.lines.iter().filter(|line| line.fee != Price::ZERO).count();
        if managed > 0 {
            text.push_str(&format!(
                "of which {} to EKS Auto Mode for {managed} machine{}, {} per hour now\n",
                self.fees().rounded(6),
                if managed == 1 { "" } else { "s" },
                Money::from_nano_dollars(i128::from(self.fee_rate().nano_dollars_per_hour()))
                    .rounded(5),
            ));
        }
        text
    }

    /// The ledger as JSON; amounts are exact decimal strings.
    pub fn to_json(&self) -> Value {
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                let mut value = json!({
                    "instance": line.instance,
                    "instanceType": line.instance_type,
                    "zone": line.zone,
                    "capacityType": line.capacity_type,
                    "usdPerHour": line.price.to_string(),
                    "from": line.from.to_string(),
                    "until": line.until.to_string(),
                    "seconds": line.elapsed().as_secs(),
                    "running": line.running,
                    "usd": line.cost.to_string(),
                    "autoModeUsdPerHour": line.fee.to_string(),
                    "autoModeUsd": line.fee_cost.to_string(),
                });
                if let Some(group) = &line.node_group {
                    value["nodeGroup"] = json!(group);
                }
                value
            })
            .collect();
        json!({
            "usd": self.total().to_string(),
            "usdPerHourNow": self.rate().to_string(),
            "autoModeUsd": self.fees().to_string(),
            "lines": lines,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wharf_model::instance::InstanceStatus;

    use super::*;

    fn instance(name: &str, price: &str, running: i64, stopped: Option<i64>) -> Instance {
        let mut instance = Instance::default();
        instance.metadata.name = Some(name.to_owned());
        instance.spec.price_nanos_per_hour =
            price.parse::<Price>().expect("a price").nano_dollars_per_hour();
        instance.status = InstanceStatus {
            running_at_nanos: Time::from_seconds(running).as_nanos(),
            shutting_down_at_nanos: stopped.map(|stop| Time::from_seconds(stop).as_nanos()),
            ..InstanceStatus::default()
        };
        instance
    }

    #[test]
    fn an_hour_costs_the_price_and_a_moment_costs_a_minute() {
        let machines = [
            instance("i-b", "0.308", 0, Some(3_600)),
            instance("i-a", "0.06", 0, Some(5)),
            instance("i-c", "1", 9_999, None),
        ];
        let ledger = Ledger::of(&machines, Time::from_seconds(4_000));
        let lines: Vec<(&str, String)> = ledger
            .lines
            .iter()
            .map(|line| (line.instance.as_str(), line.cost.to_string()))
            .collect();
        assert_eq!(lines, [("i-a", "0.001".to_owned()), ("i-b", "0.308".to_owned())]);
        assert_eq!(ledger.total().to_string(), "0.309");
        assert_eq!(ledger.rate(), Price::ZERO);
        assert_eq!(ledger.to_json()["usd"], "0.309");
    }

    #[test]
    fn node_groups_have_their_own_sums() {
        let mut one = instance("i-1", "0.1", 0, Some(3_600));
        one.spec.tags.insert("eks:nodegroup-name".to_owned(), "workers".to_owned());
        let machines = [one, instance("i-2", "0.2", 0, Some(3_600))];
        let ledger = Ledger::of(&machines, Time::from_seconds(4_000));
        let groups = ledger.node_groups();
        assert_eq!(groups.len(), 1);
        assert_eq!((groups["workers"].0, groups["workers"].1.to_string()), (1, "0.1".to_owned()));
        assert!(ledger.to_text().contains("\nnode group workers $0.100000 for 1 machine\ntotal "));
        assert_eq!(ledger.to_json()["lines"][0]["nodeGroup"], "workers");
        assert_eq!(ledger.to_json()["lines"][1].get("nodeGroup"), None);
    }

    #[test]
    fn what_auto_mode_takes_is_a_line_of_its_own() {
        let mut managed = instance("i-a", "0.086", 0, None);
        managed.spec.fee_nanos_per_hour = 10_320_000;
        let ledger = Ledger::of([&managed], Time::from_seconds(3_600));
        assert_eq!(ledger.total().to_string(), "0.09632");
        assert_eq!(ledger.fees().to_string(), "0.01032");
        assert_eq!(ledger.rate().to_string(), "0.09632");
        let text = ledger.to_text();
        assert!(
            text.ends_with(
                "total $0.096320 for 1 machine, $0.0963 per hour now\nof which $0.010320 to EKS Auto Mode for 1 machine, $0.01032 per hour now\n"
            ),
            "{text}"
        );
        // A minute is the least, of the fee as of the price.
        let ledger = Ledger::of([&managed], Time::from_seconds(1));
        assert_eq!(ledger.fees().to_string(), "0.000172");
        let own = instance("i-b", "0.086", 0, None);
        assert!(!Ledger::of([&own], Time::from_seconds(9)).to_text().contains("Auto Mode"));
    }

    #[test]
    fn a_load_balancer_costs_each_hour_that_is_begun() {
        let mut balancer = LoadBalancer::default();
        balancer.spec.name = "k8s-a".to_owned();
        balancer.spec.price_nanos_per_hour = 22_500_000;
        let cost = |balancer: &LoadBalancer, now: i64| {
            let ledger = Ledger::default().and_balancers([balancer], Time::from_seconds(now));
            (ledger.total().to_string(), ledger.rate() == Price::ZERO)
        };
        assert_eq!(cost(&balancer, 100), ("0".to_owned(), true), "not while it is made");
        balancer.status.active_at_nanos = Some(Time::from_seconds(0).as_nanos());
        assert_eq!(cost(&balancer, 100), ("0.0225".to_owned(), false));
        assert_eq!(cost(&balancer, 3_601), ("0.045".to_owned(), false));
        balancer.status.deleted_at_nanos = Some(Time::from_seconds(200).as_nanos());
        assert_eq!(cost(&balancer, 9_999), ("0.0225".to_owned(), true));
    }

    proptest! {
        /// Money adds up: the total is the sum of the lines, and never falls as time goes on.
        #[test]
        fn the_total_is_the_sum_and_never_falls(
            machines in proptest::collection::vec((0_i64..5_000, 0_i64..5_000, 1_i64..5_000_000_000), 0..8),
            mut moments in proptest::collection::vec(0_i64..20_000, 1..6),
        ) {
            let machines: Vec<Instance> = machines.iter().enumerate().map(|(index, (start, length, nanos))| {
                let mut machine = instance(&format!("i-{index}"), "0", *start, Some(start + length));
                machine.spec.price_nanos_per_hour = *nanos;
                machine.spec.fee_nanos_per_hour = nanos / 7;
                machine
            }).collect();
            moments.sort_unstable();
            let mut before = Money::default();
            for moment in moments {
                let ledger = Ledger::of(&machines, Time::from_seconds(moment));
                let sum = ledger.lines.iter().fold(Money::default(), |sum, line| sum + line.cost + line.fee_cost);
                prop_assert_eq!(ledger.total(), sum);
                prop_assert!(ledger.total() >= before);
                before = ledger.total();
            }
        }
    }
}
