//! What was measured, as JSON and for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::account::Accounts;
use crate::beam::Account;
use crate::fleet::{Chatter, Errors, Logins, Options};
use crate::generator::error_list;
use crate::summary::Summary;
use crate::users::Args;
use crate::users::format::{Latency, bytes, three_digits};
use crate::users::server::{Cost, Memory};

/// Everything that was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Version of the tool.
    pub version: String,
    /// Where the users logged in.
    pub urls: Vec<String>,
    /// The XMPP domain.
    pub domain: String,
    /// `anonymous`, or the pattern of the accounts and their mechanism.
    pub accounts: String,
    /// Bytes of a message's text.
    pub body: u32,
    /// What pairs were drawn by.
    pub seed: u64,
    /// Seconds a login or an answer could take.
    pub patience: f64,
    /// One for each number of users.
    pub steps: Vec<Step>,
    /// What the server's memory grew by a user, from the first step to the last.
    pub memory_per_user: Option<Slope>,
    /// Logins that failed, users that fell out, and messages that were lost, doubled,
    /// out of order, damaged or not sent: 0 when all went well.
    pub faults: u64,
}

/// One number of users.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Step {
    /// How many users there were to be.
    pub users: u32,
    /// How they logged in.
    pub logins: Logins,
    /// What that took.
    pub login_cost: Cost,
    /// How they were held.
    pub hold: Hold,
    /// The server's memory after that.
    pub memory: Memory,
    /// The same after a forced garbage collection (`--collect`).
    pub collected: Option<Memory>,
    /// What the generator used after that.
    pub generator: Generator,
    /// How they chattered.
    pub chatter: Option<Chatter>,
    /// What that took.
    pub chatter_cost: Option<Cost>,
    /// How many were logged in at the end.
    pub online: u32,
    /// Users that fell out after that, by kind.
    pub faults: Errors,
}

/// How users were held.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Hold {
    /// How many were logged in at its end.
    pub online: u32,
    /// Those that fell out meanwhile or while others logged in, by kind.
    pub errors: Errors,
    /// What it took.
    pub cost: Cost,
}

/// The generator's own memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Worker processes.
    pub workers: u32,
    /// Resident bytes of all of them.
    pub rss: u64,
    /// Resident bytes, what is shared counted once.
    pub pss: u64,
}

/// Bytes a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// Of the server's resident bytes.
    pub rss: Option<f64>,
    /// Of its `pss`.
    pub pss: Option<f64>,
    /// Of what its allocators hold, by its own account.
    pub allocated: Option<f64>,
    /// Of what is in use of that.
    pub used: Option<f64>,
}

impl Report {
    pub(super) fn new(args: &Args, options: &Options) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            urls: args.urls.clone(),
            domain: options.target.domain.clone(),
            accounts: match &options.accounts {
                Accounts::Anonymous => "anonymous".into(),
                Accounts::Pattern {
                    user, mechanism, ..
                } => format!("{user} ({mechanism})"),
            },
            body: args.body,
            seed: options.seed,
            patience: options.patience.as_secs_f64(),
            ..Self::default()
        }
    }

    /// Reckons what follows from the steps.
    pub(super) fn finish(&mut self) {
        self.faults = self.steps.iter().map(Step::count_faults).sum();
        if let [first, .., last] = self.steps.as_slice() {
            self.memory_per_user = Slope::between(first, last);
        }
    }

    /// Whether all went well; the error says what did not.
    pub(super) fn verdict(&self) -> Result<(), String> {
        match self.faults {
            0 => Ok(()),
            1 => Err("1 thing went wrong".into()),
            faults => Err(format!("{faults} things went wrong")),
        }
    }
}

impl Step {
    fn count_faults(&self) -> u64 {
        let fell_out = [&self.logins.errors, &self.hold.errors, &self.faults];
        let fell_out: u64 = fell_out.iter().map(|errors| sum(errors)).sum();
        let chatter = self.chatter.as_ref().map_or(0, |chatter| {
            chatter.lost
                + chatter.doubled
                + chatter.disordered
                + chatter.damaged
                + chatter.unsent
                + sum(&chatter.errors)
        });
        fell_out + chatter
    }
}

fn sum(errors: &Errors) -> u64 {
    errors.values().sum()
}

impl Slope {
    fn between(first: &Step, last: &Step) -> Option<Self> {
        let users = f64::from(last.hold.online) - f64::from(first.hold.online);
        let slope = |of: fn(&Memory) -> Option<u64>| {
            let (before, after) = (of(&first.memory)?, of(&last.memory)?);
            (users > 0.0).then_some((after as f64 - before as f64) / users)
        };
        let slopes = Self {
            rss: slope(|memory| memory.rss),
            pss: slope(|memory| memory.pss),
            allocated: slope(|memory| Some(memory.account.as_ref()?.allocated)),
            used: slope(|memory| Some(memory.account.as_ref()?.used)),
        };
        (slopes != Self::default()).then_some(slopes)
    }
}

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
