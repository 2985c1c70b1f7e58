//! The report for people.

use std::fmt;

use crate::beam::Account;
use crate::fleet::{Chatter, Errors};
use crate::generator::error_list;
use crate::summary::Summary;
use crate::users::format::{Latency, bytes, three_digits};
use crate::users::report::{Report, Step};
use crate::users::server::{Cost, Memory};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            urls,
            domain,
            accounts,
            ..
        } = self;
        writeln!(f, "{} ({domain}), {accounts} users", urls.join(" "))?;
        for step in &self.steps {
            writeln!(f)?;
            write!(f, "{step}")?;
        }
        if let Some(slope) = &self.memory_per_user {
            let known = [
                (slope.rss, "RSS"),
                (slope.pss, "PSS"),
                (slope.allocated, "allocated by the node"),
                (slope.used, "in use of that"),
            ];
            let known = known
                .into_iter()
                .filter_map(|(slope, name)| Some(format!("{} {name}", bytes(slope?))));
            let known: Vec<String> = known.collect();
            writeln!(f, "\nthe server's memory a user  {}", known.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let logins = &self.logins;
        writeln!(f, "{} users", self.users)?;
        if logins.tried == 0 {
            return self.rest(f);
        }
        writeln!(
            f,
            "  logins     {} of {} in {:.2} s, {} a second",
            logins.logged_in,
            logins.tried,
            logins.seconds,
            three_digits(f64::from(logins.logged_in) / logins.seconds.max(1e-6))
        )?;
        latency(f, &logins.latency)?;
        let each = f64::from(logins.tried);
        line_of_cost(f, &self.login_cost, each, "thousand logins", 1e3)?;
        errors(f, "failed", &logins.errors)?;
        self.rest(f)
    }
}

impl Step {
    /// All but how they logged in.
    fn rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hold = &self.hold;
        writeln!(
            f,
            "  held       {} for {:.0} s",
            hold.online, hold.cost.seconds
        )?;
        if let (Some(server), true) = (hold.cost.server_cpu, hold.cost.seconds >= 1.0) {
            let share = |cpu: f64| three_digits(100.0 * cpu / hold.cost.seconds);
            writeln!(
                f,
                "  CPU        server {} % of a core, generator {} %",
                share(server),
                share(hold.cost.generator_cpu)
            )?;
        }
        errors(f, "fell out", &hold.errors)?;
        line_of_memory(f, "memory", &self.memory)?;
        if let Some(memory) = &self.collected {
            line_of_memory(f, "collected", memory)?;
        }
        let generator = &self.generator;
        writeln!(
            f,
            "  generator  {} of memory in {} workers",
            bytes(generator.pss as f64),
            generator.workers
        )?;
        if let Some(chatter) = &self.chatter {
            chatter_lines(f, chatter, self.chatter_cost.as_ref())?;
        }
        errors(f, "fell out", &self.faults)
    }
}

fn chatter_lines(
    f: &mut fmt::Formatter<'_>,
    chatter: &Chatter,
    cost: Option<&Cost>,
) -> fmt::Result {
    writeln!(
        f,
        "  chatter    {} messages in {} s, {} a second",
        chatter.sent,
        three_digits(chatter.seconds),
        three_digits(chatter.sent as f64 / chatter.seconds.max(1e-6))
    )?;
    writeln!(
        f,
        "  arrived    {} whole, once and in order; {} lost, {} doubled, {} out of order, {} damaged",
        chatter.arrived, chatter.lost, chatter.doubled, chatter.disordered, chatter.damaged
    )?;
    latency(f, &chatter.latency)?;
    if let Some(cost) = cost {
        line_of_cost(f, cost, chatter.sent as f64, "million messages", 1e6)?;
    }
    writeln!(
        f,
        "  bytes      {} read, {} written",
        bytes(chatter.read as f64),
        bytes(chatter.written as f64)
    )?;
    if chatter.joined + chatter.left > 0 {
        writeln!(
            f,
            "  churn      {} left, {} joined",
            chatter.left, chatter.joined
        )?;
    }
    for (count, what) in [
        (
            chatter.late,
            "messages were sent over 1 ms late by the generator's fault",
        ),
        (
            chatter.unsent,
            "messages were not sent: fewer than two users could",
        ),
        (
            chatter.nudges,
            "times a user's requests were answered only after somebody had written to it (BOSH)",
        ),
        (
            chatter.stale,
            "messages of an earlier step came, which counted them as lost",
        ),
    ] {
        if count > 0 {
            writeln!(f, "  note       {count} {what}")?;
        }
    }
    errors(f, "fell out", &chatter.errors)
}

fn latency(f: &mut fmt::Formatter<'_>, latency: &Summary) -> fmt::Result {
    match latency.count {
        0 => Ok(()),
        _ => writeln!(f, "  took       {}", Latency(latency)),
    }
}

fn line_of_cost(
    f: &mut fmt::Formatter<'_>,
    cost: &Cost,
    count: f64,
    what: &str,
    unit: f64,
) -> fmt::Result {
    let each = |cpu: f64| three_digits(cpu * unit / count.max(1.0));
    match cost.server_cpu {
        Some(server) => writeln!(
            f,
            "  CPU        server {server:.2} s, generator {:.2} s: {} and {} s per {what}",
            cost.generator_cpu,
            each(server),
            each(cost.generator_cpu)
        ),
        None => writeln!(
            f,
            "  CPU        generator {:.2} s: {} s per {what}",
            cost.generator_cpu,
            each(cost.generator_cpu)
        ),
    }
}

fn errors(f: &mut fmt::Formatter<'_>, what: &str, errors: &Errors) -> fmt::Result {
    match errors.is_empty() {
        true => Ok(()),
        false => writeln!(f, "  {what:<9}  {}", error_list(errors)),
    }
}

fn line_of_memory(f: &mut fmt::Formatter<'_>, what: &str, memory: &Memory) -> fmt::Result {
    if let (Some(rss), Some(pss)) = (memory.rss, memory.pss) {
        let (rss, pss) = (bytes(rss as f64), bytes(pss as f64));
        writeln!(f, "  {what:<9}  server {rss} RSS, {pss} PSS")?;
    }
    match &memory.account {
        Some(account) => account_lines(f, what, account),
        None => Ok(()),
    }
}

/// Types of processes that are named one by one: those that hold the most.
const TYPES: usize = 6;

fn account_lines(f: &mut fmt::Formatter<'_>, what: &str, account: &Account) -> fmt::Result {
    let (allocated, used) = (account.allocated as f64, account.used as f64);
    writeln!(
        f,
        "  {what:<9}  node {} allocated, {} in use",
        bytes(allocated),
        bytes(used)
    )?;
    let kinds = account.memory.iter().chain(&account.nifs);
    let kinds: Vec<String> = kinds
        .map(|(kind, count)| format!("{kind} {}", bytes(*count as f64)))
        .collect();
    writeln!(f, "             {}", kinds.join(", "))?;
    let mut types: Vec<_> = account.processes.iter().collect();
    types.sort_by_key(|(_, processes)| std::cmp::Reverse(processes.memory));
    let types: Vec<String> = types
        .iter()
        .take(TYPES)
        .map(|(name, processes)| {
            let memory = bytes(processes.memory as f64);
            format!("{} {name} {memory}", processes.count)
        })
        .collect();
    writeln!(f, "             {}", types.join(", "))
}
